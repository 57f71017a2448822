"""Bad disks: what a full, damaged or read-only disk or a mistake in the middle costs is never what was saved before."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.helpers.commands import command, complaint, contents, flip, nothing, replaced, undrawn
from tests.helpers.runs import differences, run_in

import talweg
from talweg import UserError, checkpoint, verbs
from talweg.checkpoint import load_newest

BAD_TASKS = Path(__file__).parent / "helpers" / "bad_tasks.py"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run and one that a full disk stopped, of tasks in a file beside them."""
    folder = tmp_path_factory.mktemp("runs")
    shutil.copy(BAD_TASKS, folder / "tasks.py")
    words = ["train", f"{folder / 'tasks.py'}:good", "--epochs", "4", "--batch", "16", "--quiet", "--out"]
    with pytest.MonkeyPatch.context() as patch:
        undrawn(patch)
        assert command(*words, str(folder / "whole")) == 0
        patch.setattr(checkpoint.os, "fsync", failing(os.fsync, errno.ENOSPC, at=15))
        assert command(*words, str(folder / "stopped")) == 2
    (folder / "whole" / "good-1").rename(folder / "finished")
    (folder / "stopped" / "good-1").rename(folder / "unfinished")
    return folder


def failing(function: Callable[..., Any], number: int, at: int = 1) -> Callable[..., Any]:
    """The function, which fails from some call on, as a disk does that has become full."""
    calls = 0

    def counted(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls >= at:
            raise OSError(number, os.strerror(number))
        return function(*arguments, **options)

    return counted


def every_checkpoint(folder: Path) -> None:
    for path in (folder / "unfinished" / "checkpoints").glob("*.safetensors"):
        flip(path)


WIDER = replaced(
    "tasks.py", "nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4)", "nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 4)"
)

# What happens to the runs, the command, and what the complaint holds.
RUNS: list[tuple[Callable[[Path], object], str, list[str]]] = [
    (nothing, "resume HERE/finished", ["the run in HERE/finished is finished", "nothing to resume"]),
    (nothing, "evaluate HERE/finished --data test", ["task 'good' has no test data"]),
    (nothing, "evaluate HERE/finished --data tset", ["'tset'", "test"]),
    (nothing, "evaluate HERE/unfinished", ["has no model.safetensors", "talweg resume HERE/unfinished"]),
    (every_checkpoint, "resume HERE/unfinished", ["no whole checkpoint in HERE/unfinished", "put a copy in its place"]),
    (
        lambda folder: flip(folder / "unfinished" / "summary.json"),
        "resume HERE/unfinished",
        ["cannot read", "summary.json"],
    ),
    (
        lambda folder: (folder / "unfinished" / "recipe.toml").unlink(),
        "resume HERE/unfinished",
        ["no such file", "recipe.toml"],
    ),
    (
        replaced("unfinished/recipe.toml", "batch", "bacth"),
        "resume HERE/unfinished",
        ["'bacth': did you mean 'batch'?"],
    ),
    (
        replaced("unfinished/recipe.toml", '"adamw"', '"sgd"'),
        "resume HERE/unfinished",
        ["recipe.toml", "unknown setting 'optimizer.beta1'"],
    ),
    (
        replaced("unfinished/recipe.toml", "ema = 0.0", "ema = 0.9"),
        "resume HERE/unfinished",
        ["the checkpoint has no 'ema'", "another optimizer or averaging"],
    ),
    (WIDER, "resume HERE/unfinished", ["'0.weight' has shape [8, 6]", "[9, 6]"]),
    (replaced("tasks.py", "nn.ReLU(), ", ""), "resume HERE/unfinished", ["parameter '2.", "'1."]),
    (WIDER, "evaluate HERE/finished", ["model.safetensors does not fit the task"]),
    (replaced("tasks.py", "good =", "best ="), "resume HERE/unfinished", ["unknown task in", "'good'"]),
    (lambda folder: (folder / "tasks.py").unlink(), "resume HERE/unfinished", ["no such file", "tasks.py"]),
    (
        lambda folder: (folder / "finished" / "model.safetensors").write_bytes(b"no tensors"),
        "evaluate HERE/finished",
        ["cannot read the weights in HERE/finished/model.safetensors"],
    ),
    (nothing, "resume HERE/unfinished --device cuda:99", ["device 'cuda:99' is not there"]),
]


@pytest.mark.parametrize(("change", "line", "said"), RUNS, ids=[f"{i} {line}" for i, (_, line, _) in enumerate(RUNS)])
def test_a_run_is_not_changed_by_a_mistake(
    change: Callable[[Path], object],
    line: str,
    said: list[str],
    runs: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    here = Path(shutil.copytree(runs, tmp_path / "runs"))
    for run in ("finished", "unfinished"):
        replaced(f"{run}/summary.json", str(runs), str(here))(here)
    change(here)
    before = contents(here)
    complained = complaint(line.replace("HERE", str(here)), capsys)
    for part in said:
        assert part.replace("HERE", str(here)) in complained
    after = {path: data for path, data in contents(here).items() if "__pycache__" not in path}
    assert after == {path: data for path, data in before.items() if "__pycache__" not in path}


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EACCES])
def test_a_disk_that_refuses_the_run_folder(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Permission bits do not hold for root, so the system's refusal is simulated."""
    reasons = {
        errno.ENOSPC: "the disk is full",
        errno.EROFS: "the file system is read-only",
        errno.EDQUOT: "the disk quota is used up",
        errno.EACCES: "permission denied",
    }
    line = f"train {BAD_TASKS}:good --out {tmp_path / 'out'}"
    with monkeypatch.context() as patch:
        patch.setattr(os, "mkdir", failing(os.mkdir, number))
        assert f"cannot write {tmp_path / 'out'}: {reasons[number]}" in complaint(line, capsys)
    for at in (1, 2, 3, 4):  # the first files of a run
        with monkeypatch.context() as patch:
            patch.setattr(checkpoint.os, "fsync", failing(os.fsync, number, at))
            complained = complaint(line, capsys)
        assert reasons[number] in complained
        assert "choose another place with --out" in complained
        assert not contents(tmp_path)
        assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("at", range(5, 18))
def test_a_disk_that_becomes_full_costs_nothing_that_was_saved(
    at: int, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each file and then its folder is synchronised: history at 5 and 6, tensors at 7 and 8, facts at 9 and 10, and anew."""
    undrawn(monkeypatch)
    words = f"train {runs / 'tasks.py'}:good --epochs 4 --batch 16 --quiet --out {tmp_path}"
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.os, "fsync", failing(os.fsync, errno.ENOSPC, at))
        complained = complaint(words, capsys)
    run = run_in(tmp_path)
    assert run is not None
    assert f"cannot write {run}" in complained
    assert "the disk is full; what was saved before is untouched" in complained
    assert f"go on with talweg resume {run}" in complained
    found, damaged = load_newest(run / "checkpoints")
    assert (found is not None) == (at >= 10)
    assert len(damaged) == (at in (8, 9, 14, 15))  # tensors whose facts are not there
    assert not list(run.rglob(".*.tmp"))
    assert command("resume", str(run), "--quiet") == 0  # there is room again
    assert not differences(run, runs / "finished")


def test_a_picture_that_cannot_be_written_is_no_reason_to_train_again(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*arguments: Any, **options: Any) -> None:
        raise UserError("cannot write the picture curves.png: No space left on device")

    monkeypatch.setattr(verbs, "write_page", nothing)
    with monkeypatch.context() as patch:
        patch.setattr(verbs, "plot_curves", full)
        words = f"train {runs / 'tasks.py'}:good --epochs 4 --batch 16 --quiet --out {tmp_path}"
        assert "No space left on device; then go on with talweg resume" in complaint(words, capsys)
    run = run_in(tmp_path)
    assert run is not None
    summary = talweg.Run.open(run).summary
    assert (summary["status"], summary["reason"]["kind"]) == ("failed", "error")
    assert "No space left on device" in summary["reason"]["text"]
    assert command("resume", str(run), "--quiet") == 0
    assert (run / "curves.png").read_bytes()[1:4] == b"PNG"
    assert not differences(run, runs / "finished")


def test_data_that_fails_in_the_middle_costs_an_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    undrawn(monkeypatch)
    task = tmp_path / "fading.py"
    task.write_text(
        BAD_TASKS.read_text()
        + f"""
import pathlib

class Fading(Samples):
    reads = 0

    def __getitem__(self, index):
        Fading.reads += 1
        is_gone = Fading.reads > 200 and not pathlib.Path({str(tmp_path / "back")!r}).exists()
        return broken() if is_gone else (X[index], Y[index])


fading = task("fading", train=Fading(), validation=(X, Y), normalize="scale")
"""
    )
    words = f"train {task}:fading --epochs 6 --batch 8 --workers 0 --quiet --out {tmp_path / 'out'}"
    complained = complaint(words, capsys)
    run = run_in(tmp_path / "out")
    assert run is not None
    assert "could not be read (OSError: image file is truncated); repair or remove it" in complained
    assert f"go on with talweg resume {run}" in complained
    assert load_newest(run / "checkpoints")[0] is not None
    (tmp_path / "back").touch()
    assert command("resume", str(run), "--quiet") == 0
    assert command(*words.replace("/out", "/whole").split()) == 0
    assert not differences(run, run_in(tmp_path / "whole"))
