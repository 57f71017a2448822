"""Made-up runs for the tests of this folder."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest


@pytest.fixture
def story() -> Callable[..., tuple[dict[str, Any], list[dict[str, Any]]]]:
    """A function that tells a whole run, summary and rows, from its curves."""
    return _story


def _story(
    *,
    epochs: int = 20,
    per_epoch: int = 23,
    stop_after: int | None = None,
    train: Any = lambda e: 2.3 * math.exp(-0.7 * e) + 0.01,
    validation: Any = lambda e: 2.3 * math.exp(-0.7 * e) + 0.05,
    accuracy: Any = lambda e: 0.9917 - 0.9 * math.exp(-0.6 * e),
    **changes: Any,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A summary and its rows; `train`, `validation` and `accuracy` are functions of the epoch, None for absent."""
    rows: list[dict[str, Any]] = []
    for step in range(1, per_epoch * (stop_after or epochs) + 1):
        epoch = step / per_epoch
        lr = 0.01 * 0.5 * (1 + math.cos(math.pi * epoch / epochs))
        if step % 3 == 1:
            wobble = 1 + 0.3 * math.sin(12.9898 * step) * math.cos(78.233 * step)
            rows.append({"kind": "train", "step": step, "epoch": epoch, "lr": lr, "loss": train(epoch) * wobble})
        if step % per_epoch == 0 and validation is not None:
            row = {"kind": "validation", "step": step, "epoch": epoch, "loss": validation(epoch), "seconds": 1.5}
            if accuracy is not None:
                row["accuracy"] = accuracy(epoch)
            rows.append({**row, "train_loss": train(epoch)})
    held_out = [row for row in rows if row["kind"] == "validation"]
    name = "accuracy" if accuracy is not None else "loss"
    sign = -1 if accuracy is not None else 1
    best = min(held_out, key=lambda row: sign * row[name], default=None)
    summary = {
        "talweg": "0.1.0",
        "task": "digits",
        "status": "finished",
        "reason": {"kind": "completed", "text": f"all {epochs} epochs are done"},
        "parameters": 78042,
        "samples": {"train": 1437, "validation": 360},
        "batch": 64,
        "epochs": epochs,
        "steps": epochs * per_epoch,
        "steps_per_epoch": per_epoch,
        "seconds": 31.2,
        "seed": 0,
        "layout": {"data": 1},
        "decisions": [
            {"name": "device", "value": "cpu", "why": "no CUDA or MPS device found"},
            {"name": "precision", "value": "float32", "why": "auto: bf16 was 1.3 times slower in 5 trial steps here"},
            {"name": "learning rate", "value": 0.01, "why": "recipe: 0.1 · batch/640"},
        ],
        "monitor": {"name": name, "higher_is_better": accuracy is not None},
        "best": best and {k: best[k] for k in ("step", "epoch", "loss", *(["accuracy"] if accuracy else []))},
        "last": held_out[-1] if held_out else None,
        "train": {"loss": train(epochs), "accuracy": 1.0} if accuracy is not None and stop_after is None else None,
    }
    return {**summary, **changes}, rows
