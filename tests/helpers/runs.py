"""What the tests of whole runs share: small tasks in a Python file, and the comparison of two run folders."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from torch import Tensor

import talweg
from talweg.checkpoint import load_newest, load_weights

TASKS = '''
import torch
from torch import nn
from torch.utils.data import Dataset

from talweg import Task

CLASSES = 4


def images(count, seed):
    """8 × 8 noise with a brighter row for each class: uint8 [N, 1, 8, 8]."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(CLASSES, (count,), generator=generator)
    x = torch.randint(0, 160, (count, 1, 8, 8), generator=generator, dtype=torch.uint8)
    x[torch.arange(count), 0, 2 * y] += 60
    return x, y


def rows(count, seed):
    """Vectors whose largest of four entries is the class: float32 [N, 6]."""
    x = torch.randn(count, 6, generator=torch.Generator().manual_seed(seed))
    return x, x[:, :CLASSES].argmax(1)


class Drawn(Dataset):
    """Samples that change with every look at them."""

    def __init__(self, count, seed):
        self.x, self.y = rows(count, seed)

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        return self.x[index] + 0.1 * torch.randn(6), self.y[index]


def perceptron():
    return nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, CLASSES))


def network():
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Dropout2d(0.1),
        nn.AvgPool2d(4),
        nn.Flatten(),
        nn.Linear(32, CLASSES),
    )


def masked(output, target):
    """A loss that leaves items out: (sum, count)."""
    items = nn.functional.cross_entropy(output, target, reduction="none")
    kept = target != 3
    return (items * kept).sum(), kept.sum()


mlp = Task(name="mlp", model=perceptron, train=rows(400, 0), validation=rows(100, 1), metrics=("accuracy",))
cnn = Task(name="cnn", model=network, train=images(300, 0), validation=images(100, 1), metrics=("accuracy",))
blind = Task(name="blind", model=perceptron, train=rows(400, 0), loss=masked)
drawn = Task(name="drawn", model=perceptron, train=Drawn(200, 0), validation=rows(100, 1), metrics=("accuracy",))
'''


def write_tasks(folder: Path) -> Path:
    """The task file in a folder."""
    path = folder / "tasks.py"
    path.write_text(TASKS)
    return path


def environment() -> dict[str, str]:
    """For a process that runs what these tests import, on one thread."""
    package = str(Path(talweg.__file__).parents[1])
    return {**os.environ, "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg", "PYTHONPATH": package}


def run_in(out: Path) -> Path | None:
    """The one run in a folder; None where there is none, or one killed before it had written its first word."""
    runs = [path.parent for path in out.glob("*/summary.json")]
    assert len(runs) <= 1, runs
    return runs[0] if runs else None


def differences(run: Path, reference: Path) -> list[str]:
    """Where two finished runs are not the same bit for bit; the time they took does not count."""
    found = []
    for name, read in (("summary", _summary), ("history", _history), ("facts", _facts)):
        if read(run) != read(reference):
            found.append(f"{name}: {read(run)} instead of {read(reference)}")
    for name, read in (("weights", _weights), ("checkpoint", _tensors)):
        own, other = read(run), read(reference)
        if own.keys() != other.keys():
            found.append(f"{name}: {sorted(own.keys() ^ other.keys())} are in one only")
        # Bytes, not values: -0 and NaN count as well.
        found += [f"{name}: {k}" for k in own.keys() & other.keys() if _bytes(own[k]) != _bytes(other[k])]
    return found


def _summary(run: Path) -> dict[str, Any]:
    summary = json.loads((run / "summary.json").read_text())
    return {key: summary[key] for key in ("status", "reason", "best", "last", "train", "steps", "normalize")}


def _history(run: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def _facts(run: Path) -> dict[str, Any]:
    checkpoint, damaged = load_newest(run / "checkpoints")
    assert checkpoint is not None and not damaged
    return {key: value for key, value in checkpoint.facts.items() if key != "seconds"}


def _tensors(run: Path) -> dict[str, Tensor]:
    checkpoint, _ = load_newest(run / "checkpoints")
    assert checkpoint is not None
    return checkpoint.tensors


def _weights(run: Path) -> dict[str, Tensor]:
    return load_weights(run / "model.safetensors")


def _bytes(tensor: Tensor) -> bytes:
    return tensor.numpy().tobytes()
