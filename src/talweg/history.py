"""The losses of a run, turned into rows without making the loop wait."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

ROWS = 2000  # rows of training loss that a whole run leaves, whatever its length
FETCH_EVERY = 64  # updates between two looks at losses that lie on an accelerator


class History:
    """Rows for `history.jsonl`: the training loss averaged over a few updates, and one row an evaluation.

    Losses may be 0-d tensors on an accelerator; they are fetched together, every `FETCH_EVERY` updates.

    Args:
        total_steps: updates of the whole run.
        steps_per_epoch: updates of one epoch.

    Attributes:
        rows: everything recorded so far, in the order of steps.
    """

    def __init__(self, total_steps: int, steps_per_epoch: int) -> None:
        self.rows: list[dict[str, Any]] = []
        self._every = max(1, math.ceil(total_steps / ROWS))
        self._steps_per_epoch = steps_per_epoch
        self._unread: list[tuple[int, float | Tensor, float, int]] = []
        self._row: list[float] = []  # losses of the row being filled
        self._epoch_sum, self._epoch_samples = 0.0, 0

    def add(self, step: int, loss: float | Tensor, lr: float, samples: int) -> bool:
        """Takes the loss of update `step` (from 1), a mean over `samples`; True when it is time to `fetch`."""
        self._unread.append((step, loss, lr, samples))
        return len(self._unread) >= FETCH_EVERY

    def fetch(self) -> int | None:
        """Reads the losses taken since the last call; the first update whose loss was not finite, or None.

        What comes after a non-finite loss is dropped: those updates did not take place.
        """
        if not self._unread:
            return None
        taken, self._unread = self._unread, []
        losses: list[Any] = [loss for _, loss, _, _ in taken]
        if isinstance(losses[0], Tensor):
            losses = torch.stack(losses).tolist()
        for (step, _, lr, samples), loss in zip(taken, losses, strict=True):
            if not math.isfinite(loss):
                return step
            self._epoch_sum += loss * samples
            self._epoch_samples += samples
            self._row.append(loss)
            if step % self._every == 0:
                mean = sum(self._row) / len(self._row)
                epoch = step / self._steps_per_epoch
                self.rows.append({"kind": "train", "step": step, "epoch": round(epoch, 4), "lr": lr, "loss": mean})
                self._row = []
        return None

    def end_epoch(self) -> float:
        """The mean training loss of the epoch that ends, over its samples."""
        mean = self._epoch_sum / max(self._epoch_samples, 1)
        self._epoch_sum, self._epoch_samples = 0.0, 0
        return mean

    def state(self) -> dict[str, Any]:
        """What a checkpoint needs; call `fetch` first."""
        return {
            "rows": len(self.rows),
            "row": list(self._row),
            "epoch_sum": self._epoch_sum,
            "epoch_samples": self._epoch_samples,
        }

    def load(self, state: dict[str, Any], rows: list[dict[str, Any]]) -> None:
        """Goes back to a `state`; `rows` are those of the file, later ones are dropped."""
        self.rows = rows[: state["rows"]]
        self._row = list(state["row"])
        self._epoch_sum, self._epoch_samples = state["epoch_sum"], state["epoch_samples"]
        self._unread = []
