"""The columns of the evaluations table that grows in the terminal, fitted to its width."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from talweg.report.formats import MISSING, Row, clock, epoch_text, finite, fixed, metric, metric_names

MARK = " ★"
WIDEST_NAME = 14


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column: its heading, its width, and how a row's value is written in it."""

    name: str
    width: int
    text: Callable[[Row], str]
    marked: bool = False
    """Whether the best evaluation bears the mark here; space for it is kept in every row."""

    @property
    def total(self) -> int:
        """Columns of the terminal that it takes, with the gap before it."""
        return 2 + self.width + (len(MARK) if self.marked else 0)

    def title(self) -> str:
        """The heading, right above the values."""
        name = self.name if len(self.name) <= self.width else self.name[: self.width - 1] + "…"
        return "  " + name.rjust(self.width) + (" " * len(MARK) if self.marked else "")

    def cell(self, row: Row, is_best: bool) -> str:
        """The value in its place, with the mark if this is the best."""
        mark = MARK if is_best else " " * len(MARK)
        return "  " + self.text(row).rjust(self.width) + (mark if self.marked else "")


def columns(row: Row, monitor: str, width: int) -> list[Column]:
    """The columns for evaluations like `row` that fit into `width` columns of a terminal.

    Left out first is the time, then the learning rate, the metrics that are not monitored, and the training loss.

    Args:
        row: an evaluation; it decides which columns there are.
        monitor: the figure by which evaluations are compared.
        width: columns of the terminal.

    Example:
        >>> row = {"epoch": 1.0, "loss": 0.12, "train_loss": 0.2, "accuracy": 0.981, "lr": 0.01, "seconds": 1.9}
        >>> [column.name for column in columns(row, "accuracy", 80)]
        ['epoch', 'train loss', 'val loss', 'accuracy', 'lr', 'time']
        >>> [column.name for column in columns(row, "accuracy", 45)]
        ['epoch', 'train loss', 'val loss', 'accuracy']
    """
    names = metric_names([row], monitor)
    if monitor not in names:
        monitor = "loss"
    found = [Column(name="epoch", width=6, text=lambda row: epoch_text(row.get("epoch")))]
    if "train_loss" in row:
        found.append(Column(name="train loss", width=10, text=lambda row: fixed(row.get("train_loss"))))
    found.append(Column(name="val loss", width=8, text=lambda row: fixed(row.get("loss")), marked=monitor == "loss"))
    found += [_metric_column(name, name == monitor) for name in names]
    if row.get("lr") is not None:
        found.append(Column(name="lr", width=8, text=lambda row: _rate(row.get("lr"))))
    if "seconds" in row:
        found.append(Column(name="time", width=7, text=lambda row: clock(row.get("seconds"))))
    least = ["time", "lr", *[name for name in reversed(names) if name != monitor], "train loss", "val loss"]
    while sum(column.total for column in found) >= width and least:
        found = [column for column in found if column.name != least[0] or column.marked]
        del least[0]
    return found


def _metric_column(name: str, marked: bool) -> Column:
    width = max(8, min(len(name), WIDEST_NAME))
    return Column(name=name, width=width, text=lambda row: metric(name, row.get(name)), marked=marked)


def _rate(lr: object) -> str:
    known = finite(lr)
    return MISSING if known is None else f"{known:.3g}"
