"""A training that ends before its end: by a signal, by a number that is not finite, or because nothing gets better."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.helpers.commands import command
from tests.helpers.runs import differences, environment, run_in, write_tasks

from talweg import Layout, Recipe, Run, StopKind, Training, Weights, verbs
from talweg.buffers import Kept
from talweg.checkpoint import load_newest, load_weights
from talweg.optimizers import SGD
from talweg.schedules import Constant
from talweg.tasks import TaskSource, load_task


def start(out: Path, *words: str) -> subprocess.Popen[str]:
    """A command in a process group of its own, once its run has written the first checkpoint."""
    process = subprocess.Popen(
        [sys.executable, "-m", "talweg", *words],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    until = time.monotonic() + 60
    while not list(out.glob("*/checkpoints/step-*.json")) and process.poll() is None and time.monotonic() < until:
        time.sleep(0.01)
    return process


# The signal, the process or its whole group (as Ctrl-C in a terminal does), and the task.
SIGNALS = {
    "ctrl_c": (signal.SIGINT, os.killpg, "mlp --epochs 40 --ema 0.9"),
    "ctrl_c_while_workers_read": (signal.SIGINT, os.killpg, "drawn --epochs 10 --workers 1"),
    "sigterm": (signal.SIGTERM, os.kill, "cnn --epochs 20 --optimizer sgd --lr 0.05 --augment flip"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SIGNALS)
def test_a_signal_ends_the_run_in_order_and_resume_leaves_no_trace(name: str, tmp_path: Path) -> None:
    number, kill, settings = SIGNALS[name]
    task, *words = settings.split()
    words = ["train", f"{write_tasks(tmp_path)}:{task}", *words, "--batch", "16", "--out"]
    process = start(tmp_path / "stopped", *words, str(tmp_path / "stopped"))
    kill(process.pid, number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "")
    run = run_in(tmp_path / "stopped")
    summary = Run.open(run).summary
    assert summary["status"] == "interrupted"
    assert summary["reason"] == {"kind": "interrupted", "text": f"stopped by {signal.Signals(number).name}"}
    assert "talweg resume" in " ".join(out.split())
    checkpoint, _ = load_newest(run / "checkpoints")
    assert 0 < checkpoint.facts["step"] < summary["steps"]
    assert not (run / "model.safetensors").exists()  # the best weights are not known yet

    assert command(*words, str(tmp_path / "whole")) == 0
    assert command("resume", str(run)) == 0
    assert not differences(run, run_in(tmp_path / "whole"))


BAD = '''
import torch
from torch import nn

from talweg import Task

x = torch.randn(200, 6, generator=torch.Generator().manual_seed(0))
y = x[:, :4].argmax(1)


class Root(nn.Module):
    """Becomes NaN when a weight before it has become negative enough, as a wrong formula in a layer does."""

    def forward(self, x):
        return torch.sqrt(x + 4.5)


def rooted():
    return nn.Sequential(nn.Linear(6, 16), Root(), nn.Linear(16, 4))


def plain():
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 4))


def normed():
    return nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 16), nn.BatchNorm1d(16),
                         nn.Linear(16, 4))


root = Task(name="root", model=rooted, train=(x, y), validation=(x, y), metrics=("accuracy",))
huge = Task(name="huge", model=plain, train=(x, y), validation=(x, y), metrics=("accuracy",))
norm = Task(name="norm", model=normed, train=(x, y), validation=(x, y), metrics=("accuracy",))
blind = Task(name="blind", model=normed, train=(x, y))
'''

# The task, its settings, and the place that is named.
NON_FINITE = {
    "root": ("--optimizer adamw --lr 0.05 --epochs 40", "first in the output of layer '1' (Root)"),
    "huge": ("--optimizer sgd --lr 1e15 --schedule constant --epochs 10", "layer '"),
    "norm": ("--optimizer sgd --lr 1e18 --schedule constant --epochs 10", "'4"),
    "blind": ("--optimizer sgd --lr 1e18 --schedule constant --epochs 10", "'4"),
}


@pytest.mark.parametrize("task", NON_FINITE)
def test_a_loss_that_is_not_finite_ends_the_run_before_the_update(
    task: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.py").write_text(BAD)
    settings, place = NON_FINITE[task]
    words = ["train", f"{tmp_path}/bad.py:{task}", *settings.split(), "--batch", "20", "--out", str(tmp_path / "out")]
    assert command(*words) == 1
    printed = capsys.readouterr()
    assert printed.err == ""
    run = run_in(tmp_path / "out")
    summary = Run.open(run).summary
    assert (summary["status"], summary["reason"]["kind"]) == ("failed", "non_finite")
    assert place in summary["reason"]["text"]
    assert "that update was not done" in summary["reason"]["text"]
    assert "lower the learning rate" in " ".join(printed.out.split())
    weights = load_weights(run / "model.safetensors")
    assert all(bool(t.isfinite().all()) for t in weights.values())
    checkpoint, damaged = load_newest(run / "checkpoints")
    assert not damaged
    assert not [name for name, t in checkpoint.tensors.items() if not bool(t.isfinite().all())]
    update = int(re.search(r"of update (\d+) is", summary["reason"]["text"])[1])
    assert checkpoint.facts["step"] == update - 1
    rows = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if row["kind"] == "train"] == list(range(1, update))


def without_host(training: Training) -> Training:
    """The training as on an accelerator, where passes go on until the host looks at the losses; its tensors stay here."""
    training._halt = torch.zeros(())
    training._kept = Kept(training.module, training.built.ema.vectors().values())
    return training


def test_where_the_host_does_not_wait_for_the_loss_statistics_stay_finite_too(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text(BAD)
    loaded = load_task(TaskSource(name=f"{tmp_path}/bad.py:norm"))
    recipe = Recipe(batch=20, optimizer=SGD(lr=1e18), schedule=Constant(), weights=Weights(ema=0.9))
    training = Training(loaded.task, recipe, Layout(device="cpu"))
    without_host(training)
    for _ in training:
        pass
    assert training.stop.kind is StopKind.NON_FINITE
    tensors, facts = training.state()
    assert facts["step"] == 1
    assert not [name for name, t in tensors.items() if not bool(t.isfinite().all())]

    good = Training(loaded.task, replace(recipe, optimizer=SGD(lr=0.01), epochs=1), Layout(device="cpu"))
    for _ in good:
        pass
    tensors, facts = good.state()
    resumed = without_host(Training(loaded.task, recipe, Layout(device="cpu")))
    resumed.load(tensors, facts, good.history.rows)
    for _ in resumed:
        pass
    assert resumed.stop.kind is StopKind.NON_FINITE
    for name, buffer in resumed.module.named_buffers():
        assert torch.equal(buffer, tensors[f"buffer/{name}"])  # those of the checkpoint, not those of a fresh model


def test_early_stopping_leaves_the_best_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--optimizer", "lamb", "--lr", "0.1", "--epochs", "60", "--patience", "6", "--batch", "20", "--out"]
    code = command("train", f"{write_tasks(tmp_path)}:mlp", *words, str(tmp_path / "out"))
    run = run_in(tmp_path / "out")
    summary = Run.open(run).summary
    assert (code, summary["status"], summary["reason"]["kind"]) == (0, "finished", "early_stop")
    rows = [row for row in Run.open(run).history if row["kind"] == "validation"]
    best = max(rows, key=lambda row: (row["accuracy"], -row["loss"]))
    assert summary["best"] == {name: best[name] for name in ("step", "epoch", "loss", "accuracy")}
    assert rows[-1]["epoch"] == best["epoch"] + 6 < 60
    assert rows[-1]["accuracy"] < best["accuracy"]  # else it would not matter which weights are kept
    capsys.readouterr()
    assert command("evaluate", str(run)) == 0
    assert capsys.readouterr().out == f"validation: loss {best['loss']:.6g}  accuracy {best['accuracy']:.6g}\n"
    assert verbs.evaluate(run) == {name: best[name] for name in ("loss", "accuracy")}
