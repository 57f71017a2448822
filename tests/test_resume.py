"""Resume is exact: killed at any point and gone on with, a run ends bit-equal to the one never stopped."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.helpers.commands import command, contents, flip, undrawn
from tests.helpers.runs import differences, environment, run_in, write_tasks

from talweg import Run, verbs
from talweg.errors import UserError

KILLS = 50
KILLED = -signal.SIGKILL

# The runs that are killed: their task, their settings, and the seconds between checkpoints inside an epoch.
RUNS = {
    "adamw_dropout_ema_clip": ("mlp", "--epochs 12 --batch 16 --ema 0.98 --clip 1.0 --lr 0.01", 300.0),
    "momentum_batchnorm_augment": (
        "cnn",
        "--optimizer sgd --lr 0.05 --momentum 0.9 --augment crop flip --epochs 8 --batch 16",
        300.0,
    ),
    "averaged_batchnorm_inside_epochs": ("cnn", "--optimizer sgd --lr 0.02 --ema 0.9 --epochs 3 --batch 4", 0.05),
    "early_stop": ("mlp", "--optimizer lamb --lr 0.1 --epochs 60 --patience 6 --batch 20", 300.0),
    "no_validation_accumulated": ("blind", "--micro-batch 7 --epochs 10 --batch 32 --seed 3", 0.05),
    "dataset_that_draws": ("drawn", "--epochs 6 --batch 16 --workers 0 --precision float64", 300.0),
}

# Where a run is made to kill itself, one after the other: in the middle of a file, between two files, before a removal.
PLACES = [
    ("write summary.json", 1),
    ("write step-*.safetensors", 1),
    ("replace step-*.json", 1),  # the tensors of the first checkpoint are there, its facts are not
    ("write history.jsonl", 2),
    ("replace history.jsonl", 2),
    ("replace step-*.safetensors", 2),
    ("write step-*.json", 2),
    ("replace step-*.json", 2),
    ("unlink step-*.json", 1),
    ("unlink step-*.safetensors", 1),
    ("write model.safetensors", 1),
    ("replace model.safetensors", 1),
    ("replace summary.json", 2),
]


class Killer:
    """Runs commands in forks of one process, and kills them; see `helpers/killer.py`."""

    def __init__(self, folder: Path) -> None:
        self.task, self.log = write_tasks(folder), folder / "log"
        script = Path(__file__).parent / "helpers" / "killer.py"
        self.process = subprocess.Popen(
            [sys.executable, str(script), str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(),
        )

    def go_on(self, name: str, out: Path, **kill: Any) -> int:
        """Starts a run of `RUNS` in `out`, or goes on with the one that is there; the exit status."""
        task, settings, every = RUNS[name]
        run = run_in(out)
        start = ["train", f"{self.task}:{task}", *settings.split(), "--out", str(out)]
        order = {"words": ["resume", str(run)] if run else start, "log": str(self.log), "every": every, **kill}
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())


class End(BaseException):
    """Ends a training at once, as a kill would."""


def ending(function: Callable[..., Any], times: int) -> Callable[..., Any]:
    """The function, which ends the training after some calls."""
    calls = 0

    def counted(*arguments: Any) -> Any:
        nonlocal calls
        result, calls = function(*arguments), calls + 1
        if calls == times:
            raise End
        return result

    return counted


def train(*words: str) -> Path:
    """The folder of a run that is made in `words[-1]`."""
    assert command("train", *words) == 0
    run = run_in(Path(words[-1]))
    assert run is not None
    return run


def newest_step(out: Path) -> int:
    """The step of the newest checkpoint of the run in a folder."""
    return max((int(path.stem[5:]) for path in out.glob("*/checkpoints/step-*.json")), default=0)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    undrawn(monkeypatch)


def copy_of(run: Path, folder: Path) -> Path:
    return Path(shutil.copytree(run, folder / run.name))


@pytest.fixture(scope="module")
def killer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Killer]:
    if not hasattr(os, "fork"):
        pytest.skip("this system cannot fork a process")
    killer = Killer(tmp_path_factory.mktemp("killer"))
    yield killer
    killer.process.stdin.close()
    killer.process.wait(30)


@pytest.fixture(scope="module")
def reference(killer: Killer, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, float]]:
    """A run of `RUNS` never stopped, and the seconds that it took; each is made once."""
    made: dict[str, tuple[Path, float]] = {}

    def get(name: str) -> tuple[Path, float]:
        if name not in made:
            out, start = tmp_path_factory.mktemp(name), time.perf_counter()
            assert killer.go_on(name, out) == 0, killer.log.read_text()
            made[name] = run_in(out), time.perf_counter() - start
        return made[name]

    return get


@pytest.mark.slow
def test_fifty_kills_at_random_points_leave_no_trace(
    killer: Killer, reference: Callable[[str], tuple[Path, float]], tmp_path: Path
) -> None:
    chance = random.Random(0)
    kills, runs = 0, 0
    while kills < KILLS or runs < len(RUNS):
        name, out = list(RUNS)[runs % len(RUNS)], tmp_path / str(runs)
        whole, seconds = reference(name)
        status, own = KILLED, 0
        while status == KILLED:
            # Later kills come later, so that every run ends some time, however slow the machine is.
            status = killer.go_on(name, out, delay=chance.uniform(0.0, seconds) * (0.4 + own / 20))
            own += status == KILLED
            run = run_in(out)
            if run is not None and Run.open(run).summary["status"] == "finished":
                break  # killed after its last word
        else:
            assert status == 0, killer.log.read_text()
        assert not differences(run_in(out), whole), f"{name}, run {runs}, killed {own} times"
        kills, runs = kills + own, runs + 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["adamw_dropout_ema_clip", "early_stop"])
def test_kills_inside_the_writing_of_files_leave_no_trace(
    name: str, killer: Killer, reference: Callable[[str], tuple[Path, float]], tmp_path: Path
) -> None:
    for place, nth in PLACES:
        assert killer.go_on(name, tmp_path, place=place, nth=nth) == KILLED, (place, killer.log.read_text())
    assert killer.go_on(name, tmp_path) == 0, killer.log.read_text()
    assert not differences(run_in(tmp_path), reference(name)[0])
    left = [path.name for path in run_in(tmp_path).rglob("*") if path.is_file()]
    assert not [name for name in left if name.endswith(".tmp")]
    assert len([name for name in left if name.startswith("step-")]) == 4  # the two newest, two files each


@pytest.mark.slow
def test_kills_of_the_command_itself_leave_no_trace(tmp_path: Path, quick: None) -> None:
    words = f"{write_tasks(tmp_path)}:mlp --epochs 60 --batch 16 --ema 0.98 --quiet --out".split()
    whole = train(*words, str(tmp_path / "whole"))
    killed = tmp_path / "killed"
    for step in (25, 300, 700):
        run = run_in(killed)
        start = ["resume", str(run), "--quiet"] if run else ["train", *words, str(killed)]
        process = subprocess.Popen([sys.executable, "-m", "talweg", *start], env=environment())
        while newest_step(killed) < step and process.poll() is None:
            time.sleep(0.01)
        process.kill()
        assert process.wait() == KILLED
    verbs.resume(run_in(killed), quiet=True)
    assert not differences(run_in(killed), whole)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def change_a_fact(path: Path) -> None:
    text = path.read_text()
    assert '"epoch_sum": 0.0' in text
    path.write_text(text.replace('"epoch_sum": 0.0', '"epoch_sum": 1.0'))


# What happens to a checkpoint, given its JSON file, and what is said then.
DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a byte of the tensors": (lambda facts: flip(facts.with_suffix(".safetensors"), -100), "is damaged"),
    "a byte of the tensors' header": (lambda facts: flip(facts.with_suffix(".safetensors"), 20), "is damaged"),
    "half of the tensors": (lambda facts: cut(facts.with_suffix(".safetensors")), "is damaged"),
    "all of the tensors": (lambda facts: facts.with_suffix(".safetensors").write_bytes(b""), "is damaged"),
    "the tensors' file": (
        lambda facts: facts.with_suffix(".safetensors").unlink(),
        "step-00000075.safetensors is missing",
    ),
    "a digit of the facts": (change_a_fact, "is damaged"),
    "half of the facts": (cut, "cannot be read"),
    "all of the facts": (lambda facts: facts.write_bytes(b""), "cannot be read"),
    "the facts' encoding": (lambda facts: facts.write_bytes(b"\xff\xfe\x00"), "cannot be read"),
    "the facts' meaning": (lambda facts: facts.write_text("[1, 2]"), "is not one of Talweg's"),
    "the facts' version": (lambda facts: facts.write_text('{"format": 9, "sha256": "", "facts": {}}'), "has format 9"),
    "the facts' file": (lambda facts: facts.unlink(), "step-00000075.json is missing"),
}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run that ended without a word after its third checkpoint, and the same run never stopped."""
    folder = tmp_path_factory.mktemp("pair")
    words = f"{write_tasks(folder)}:mlp --epochs 6 --batch 16 --ema 0.9 --quiet --out".split()
    with pytest.MonkeyPatch.context() as patch:
        undrawn(patch)
        whole = train(*words, str(folder / "whole"))
        patch.setattr(verbs, "save_checkpoint", ending(verbs.save_checkpoint, times=3))
        with pytest.raises(End):
            train(*words, str(folder / "stopped"))
    return run_in(folder / "stopped"), whole


@pytest.mark.parametrize("what", DAMAGES)
def test_a_damaged_checkpoint_costs_steps_never_the_run(
    what: str, pair: tuple[Path, Path], tmp_path: Path, quick: None, capsys: pytest.CaptureFixture[str]
) -> None:
    run, (damage, said) = copy_of(pair[0], tmp_path), DAMAGES[what]
    damage(run / "checkpoints" / "step-00000075.json")
    command("resume", str(run))
    out = " ".join(capsys.readouterr().out.split())
    assert "note: checkpoint step-00000075 " in out
    assert said in out
    assert "note: going on from update 50 of 150" in out
    assert not differences(run, pair[1])


def test_without_any_whole_checkpoint_nothing_is_lost(pair: tuple[Path, Path], tmp_path: Path, quick: None) -> None:
    run = copy_of(pair[0], tmp_path)
    for path in (run / "checkpoints").glob("*.safetensors"):
        flip(path, -1)
    before = contents(run)
    with pytest.raises(UserError, match=r"no whole checkpoint in .*step-00000075 is damaged.*step-00000050 is damaged"):
        verbs.resume(run, quiet=True)
    assert contents(run) == before
    shutil.rmtree(run / "checkpoints")  # what the message proposes: the run starts from the beginning
    verbs.resume(run, quiet=True)
    assert not differences(run, pair[1])


def test_a_damaged_history_is_said_and_costs_its_rows_only(
    pair: tuple[Path, Path], tmp_path: Path, quick: None, capsys: pytest.CaptureFixture[str]
) -> None:
    run = copy_of(pair[0], tmp_path)
    lines = (run / "history.jsonl").read_text().splitlines(keepends=True)
    (run / "history.jsonl").write_text("".join(lines[:-8]) + lines[-8][:9])
    command("resume", str(run))
    assert "history.jsonl is damaged: 8 of its rows are lost" in " ".join(capsys.readouterr().out.split())
    assert len((run / "history.jsonl").read_text().splitlines()) == 6 * 26 - 8
    assert (run / "model.safetensors").read_bytes() == (pair[1] / "model.safetensors").read_bytes()


def test_the_reasons_of_decisions_outlive_a_resume(pair: tuple[Path, Path], tmp_path: Path, quick: None) -> None:
    run = copy_of(pair[0], tmp_path)
    verbs.resume(run, quiet=True)
    assert Run.open(run).summary["decisions"] == Run.open(pair[0]).summary["decisions"]
