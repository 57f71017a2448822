"""Resume is exact: killed at any point and gone on with, a run ends bit-equal to the one never stopped."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.helpers.runs import differences, write_tasks

import talweg

KILLS = 50
KILLED = -signal.SIGKILL

# A run each: the task, its settings, and the seconds between checkpoints inside an epoch.
RUNS = {
    "adamw_dropout_ema": ("mlp", "--epochs 16 --batch 16 --ema 0.98 --clip 1.0 --lr 0.01", 300.0),
    "momentum_batchnorm_augmented": ("cnn", "--optimizer sgd --lr 0.05 --momentum 0.9 --augment crop flip --epochs 10 --batch 16", 300.0),
    "averaged_batchnorm_inside_epochs": ("cnn", "--optimizer sgd --lr 0.02 --ema 0.9 --epochs 4 --batch 4", 0.03),
    "early_stop": ("mlp", "--optimizer lamb --lr 0.1 --epochs 60 --patience 8 --batch 20", 300.0),
    "no_validation_accumulated": ("blind", "--micro-batch 7 --epochs 14 --batch 32 --seed 3", 0.02),
    "dataset_that_draws": ("drawn", "--epochs 8 --batch 16 --workers 0 --precision float64", 300.0),
}


class Killer:
    """Runs commands in forks of one process, and kills them; see `helpers/killer.py`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.task = write_tasks(folder)
        script = Path(__file__).parent / "helpers" / "killer.py"
        self.process = subprocess.Popen(
            [sys.executable, str(script), str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(),
        )

    def __call__(
        self, *words: str, delay: float | None = None, place: str | None = None, nth: int = 1, every: float = 300.0
    ) -> int:
        """The exit status of a command."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        order = {"words": words, "log": str(self.folder / "log"), "delay": delay, "place": place, "nth": nth, "every": every}
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def go_on(self, name: str, out: Path, **kill: object) -> int:
        """Starts a run of `RUNS`, or goes on with the one in `out`; its exit status."""
        task, settings, every = RUNS[name]
        if run := run_in(out):
            return self("resume", str(run), every=every, **kill)
        return self("train", f"{self.task}:{task}", *settings.split(), "--out", str(out), every=every, **kill)

    def log(self) -> str:
        return (self.folder / "log").read_text()


def run_in(out: Path) -> Path | None:
    """The run folder in `out`, unless the run was killed before it had written its first word."""
    runs = [path.parent for path in out.glob("*/summary.json")]
    assert len(runs) <= 1
    return runs[0] if runs else None


def environment() -> dict[str, str]:
    """One thread, and the package that is under test."""
    path = str(Path(talweg.__file__).parents[1])
    return {**os.environ, "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg", "PYTHONPATH": path}


@pytest.fixture(scope="module")
def killer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Killer]:
    if not hasattr(os, "fork"):
        pytest.skip("this system cannot fork")
    killer = Killer(tmp_path_factory.mktemp("killer"))
    yield killer
    killer.process.stdin.close()
    killer.process.wait(30)


@pytest.fixture(scope="module")
def references(killer: Killer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, float]]:
    """Each run never stopped, and the seconds that it took."""
    found = {}
    for name in RUNS:
        out = tmp_path_factory.mktemp(name)
        start = time.perf_counter()
        assert killer.go_on(name, out) == 0, killer.log()
        found[name] = (run_in(out), time.perf_counter() - start)
    return found


@pytest.mark.slow
def test_fifty_kills_at_random_points_leave_no_trace(
    killer: Killer, references: dict[str, tuple[Path, float]], tmp_path: Path
) -> None:
    chance = random.Random(2)
    kills, runs = 0, 0
    while kills < KILLS:
        name = list(RUNS)[runs % len(RUNS)]
        reference, seconds = references[name]
        out = tmp_path / str(runs)
        status, own = KILLED, 0
        while status == KILLED:
            # The later kills come later, so that every run ends some time.
            delay = chance.uniform(0.0, seconds) * (0.5 + own / 20)
            status = killer.go_on(name, out, delay=delay)
            own += status == KILLED
        assert status == 0, killer.log()
        assert not differences(run_in(out), reference), f"{name}, run {runs}, killed {own} times"
        kills, runs = kills + own, runs + 1
    assert runs >= len(RUNS)
