"""What one does with the nouns: `train`, `resume`, `evaluate`. Each is a function here and a command of the same name."""

from __future__ import annotations

import shutil
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from types import FrameType
from typing import Any

from talweg.checkpoint import load_newest, save_checkpoint, save_weights
from talweg.data import NORMALIZERS
from talweg.errors import UserError, unknown
from talweg.evaluating import evaluate_module
from talweg.layout import Layout
from talweg.predictor import fit_weights, run_weights, task_of
from talweg.recipe import Recipe
from talweg.report import Progress, plot_curves, verdict, write_page
from talweg.run import NORMALIZER, WEIGHTS, Run
from talweg.task import Task
from talweg.tasks import Loaded, TaskSource, load_task
from talweg.training import StopKind, Training
from talweg.version import VERSION

CHECKPOINT_SECONDS = 300.0  # inside a long epoch, at least this often; at the end of an epoch, always
GAP_SAMPLES = 10_000  # training samples that the final train/validation comparison looks at, at most


def train(
    task: Task | Loaded | TaskSource | str,
    recipe: Recipe | None = None,
    layout: Layout | None = None,
    *,
    out: str | Path = "runs",
    quiet: bool = False,
) -> Run:
    """Trains a task by a recipe and leaves a run folder: the best weights, the picture and the verdict in words.

    Args:
        task: a `Task`, a built-in name such as "digits", "path/to/file.py:name", or what `load_task` made of these.
        recipe: how; by default the one that belongs to a built-in task, else `Recipe()`.
        layout: where; by default this machine.
        out: the folder in which the run's own folder is made.
        quiet: print nothing.

    Raises:
        UserError: a mistake in what was asked for or brought along, in one line.

    Example:
        >>> import tempfile
        >>> recipe = Recipe(epochs=1, batch=256)
        >>> run = train("digits", recipe, Layout(device="cpu"), out=tempfile.mkdtemp(), quiet=True)
        >>> run.summary["status"], run.path("curves.png").exists()
        ('finished', True)
    """
    source: TaskSource | None = None
    if not isinstance(task, Task):
        loaded = task if isinstance(task, Loaded) else load_task(task)
        task, source, recipe = loaded.task, loaded.source, recipe or loaded.recipe
    training = Training(task, recipe, layout)
    run = Run.new(out, task.name)
    try:
        run.write_text("recipe.toml", training.recipe.to_toml())
        run.write_summary(_running(training, source))
    except UserError:
        shutil.rmtree(run.folder, ignore_errors=True)  # on a full disk: nothing is begun, so nothing is left
        raise
    with _told_how_to_go_on(training, run, source):
        return _drive(training, run, source, quiet)


def resume(folder: str | Path, task: Task | None = None, layout: Layout | None = None, *, quiet: bool = False) -> Run:
    """Goes on with a run that was stopped, from its newest whole checkpoint, as if it had never stopped.

    Args:
        folder: the run folder.
        task: what it learns; needed for a task that was made in Python, found by name for others.
        layout: where to go on; by default as before. Another one gives the same result up to rounding.
        quiet: print nothing.

    Raises:
        UserError: no run there, nothing left to do, every checkpoint damaged, or another model than the run's.
    """
    run = Run.open(folder)
    summary = run.summary
    if summary["status"] == "finished":
        raise UserError(f"the run in {folder} is finished ({summary['reason']['text']}): there is nothing to resume")
    checkpoint, notes = load_newest(run.checkpoints)
    training = Training(task or task_of(run), run.recipe, layout or run.layout, decisions=_decided(summary))
    why = {(d["name"], d["value"]): d["why"] for d in summary["decisions"]}  # the reasons of the first time
    training.decisions[:] = [d._replace(why=why.get((d.name, d.value), d.why)) for d in training.decisions]
    if checkpoint is not None:
        rows = run.history
        if (lost := checkpoint.facts["history"]["rows"] - len(rows)) > 0:
            notes.append(f"history.jsonl is damaged: {lost} of its rows are lost, which the curves will lack")
        training.load(checkpoint.tensors, checkpoint.facts, rows)
    notes.append(f"going on from update {training.step} of {training.total_steps}")
    source = TaskSource(**summary["source"]) if summary["source"] else None
    run.write_summary(_running(training, source))
    with _told_how_to_go_on(training, run, source):
        return _drive(training, run, source, quiet, notes)


def evaluate(
    folder: str | Path, task: Task | None = None, *, data: str = "validation", device: str = "auto"
) -> dict[str, float]:
    """Loss and metrics of a run's best weights; every sample counts once.

    Args:
        folder: the run folder.
        task: what was learnt; needed for a task that was made in Python, found by name for others.
        data: "validation", "test" or "train".
        device: where, as in `Layout`.

    Raises:
        UserError: no run there, the task has no such data, or the weights are not the model's.
    """
    if data not in ("train", "validation", "test"):
        raise unknown("data", data, ("train", "validation", "test"))
    run = Run.open(folder)
    task = task or task_of(run)
    chosen = getattr(task, data)
    if chosen is None:
        raise UserError(f"task {task.name!r} has no {data} data")
    layout = replace(run.layout, compile="off", device=device)  # one pass: compiling would take longer
    training = Training(replace(task, validation=chosen), run.recipe, layout, decisions=_decided(run.summary))
    fit_weights(training.module, run_weights(run), run)
    built = training.built
    assert built.validation is not None
    return evaluate_module(built.module, built.validation.batches(), built.engine, task.metric_functions)


def _drive(training: Training, run: Run, source: TaskSource | None, quiet: bool, notes: Sequence[str] = ()) -> Run:
    """Iterates a training, shows it, and leaves everything on disk that a run leaves."""
    saved = time.monotonic()
    with _signals(training), Progress(quiet=quiet) as progress:
        progress.start(_running(training, source), notes)
        for step in training:
            progress.step(step.index, training.total_steps, step.epoch, step)
            at_end = step.index % training.steps_per_epoch == 0 or step.index == training.total_steps
            if at_end:
                progress.evaluation(training.history.rows[-1], step.is_best)
            if at_end or time.monotonic() - saved > CHECKPOINT_SECONDS:
                _save(training, run)
                saved = time.monotonic()
        assert training.stop is not None
        if training.stop.kind in (StopKind.INTERRUPTED, StopKind.NON_FINITE):
            _save(training, run)
        if training.stop.kind is StopKind.NON_FINITE:
            training.keep_best()
        summary = _leave(training, run, source)
        progress.finish(summary["words"], run.folder, ("report.html", "curves.png", WEIGHTS, "recipe.toml"))
    return run


def _save(training: Training, run: Run) -> None:
    tensors, facts = training.state()  # first, because it adds rows to the history
    run.write_history(training.history.rows)
    save_checkpoint(run.checkpoints, training.step, tensors, facts)


def _leave(training: Training, run: Run, source: TaskSource | None) -> dict[str, Any]:
    """Writes what a run leaves behind when it ends, whole or not."""
    built, rows = training.built, training.history.rows
    summary = _facts(training, source)
    if training.stop is not None and training.stop.kind in (StopKind.COMPLETED, StopKind.EARLY):
        limit = min(GAP_SAMPLES, len(built.train))
        batches = built.train.batches(limit)
        summary["train"] = evaluate_module(built.module, batches, built.engine, training.task.metric_functions)
    summary["words"] = verdict(summary, rows)
    run.write_history(rows)
    if training.stop is not None and training.stop.kind is not StopKind.INTERRUPTED:
        save_weights(run.path(WEIGHTS), built.module.state_dict())
        save_weights(run.path(NORMALIZER), built.normalizer.state())
    best = summary["best"]["step"] if summary["best"] else None
    picture = run.path("curves.png")
    plot_curves(rows, picture, title=f"{training.task.name}", best_step=best, monitor=built.monitor.name)
    write_page(summary, rows, training.recipe.to_toml(), run.path("report.html"), picture)
    run.write_summary(summary)
    return summary


def _facts(training: Training, source: TaskSource | None) -> dict[str, Any]:
    """What `summary.json` holds, from what is known now."""
    built, stop = training.built, training.stop
    status = {None: "running", StopKind.INTERRUPTED: "interrupted", StopKind.NON_FINITE: "failed"}
    return {
        "talweg": VERSION,
        "task": training.task.name,
        "source": asdict(source) if source else None,
        "status": status.get(stop.kind if stop else None, "finished"),
        "reason": {"kind": str(stop.kind), "text": stop.text} if stop else None,
        "parameters": training.theta.numel,
        "samples": {"train": len(built.train), "validation": len(built.validation) if built.validation else 0},
        "batch": training.recipe.batch,
        "epochs": training.recipe.epochs,
        "steps": training.total_steps,
        "steps_per_epoch": training.steps_per_epoch,
        "seconds": round(training.seconds, 3),
        "seed": training.recipe.seed,
        "layout": asdict(training.layout),
        "decisions": [d._asdict() for d in training.decisions],
        "normalize": next(name for name, cls in NORMALIZERS.items() if cls is type(built.normalizer)),
        "monitor": built.monitor._asdict(),
        "best": training.best,
        "last": training.last,
        "train": None,
        "words": "",
    }


def _running(training: Training, source: TaskSource | None) -> dict[str, Any]:
    """What `summary.json` holds until all is written that the run leaves, even where the training itself has ended."""
    return {**_facts(training, source), "status": "running", "reason": None}


@contextmanager
def _told_how_to_go_on(training: Training, run: Run, source: TaskSource | None) -> Iterator[None]:
    """Where a mistake shows in the middle of a training, its summary and the message say that it can go on."""
    try:
        yield
    except UserError as error:
        reason = {"kind": "error", "text": str(error)}
        with suppress(UserError):  # it cannot be written either where the disk is full
            run.write_summary({**_facts(training, source), "status": "failed", "reason": reason})
        raise UserError(f"{error}; then go on with talweg resume {run.folder}") from error


def _decided(summary: dict[str, Any]) -> dict[str, str]:
    return {d["name"]: d["value"] for d in summary["decisions"]}


@contextmanager
def _signals(training: Training) -> Iterator[None]:
    """Inside, Ctrl-C and SIGTERM end the training after the update in progress; a second one ends it at once."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Python delivers signals to the main thread only
        return

    def handler(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        training.request_stop(f"stopped by {signal.Signals(number).name}")

    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
