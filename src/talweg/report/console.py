"""What a training shows while it runs: a header, a bar, a table that grows by a row an evaluation, and the end."""

from __future__ import annotations

import math
import os
import sys
import textwrap
from collections.abc import Iterable, Mapping
from time import perf_counter
from types import TracebackType
from typing import Any, Protocol, TextIO

from rich.console import Console
from rich.live import Live
from rich.text import Text

from talweg.report.formats import MISSING, Row, clock, counted, epoch_text, finite, fixed, number, unbroken
from talweg.report.table import Column, columns

REDRAW_SECONDS = 0.1
SILENT_SECONDS = 60.0  # in a pipe: a line of progress after so long without a row
WIDEST = 100

# What a terminal of another encoding gets instead.
PLAIN = str.maketrans({"★": "*", "·": "*", "×": "x", "–": "-", "…": "~", "━": "#", "─": "-", "√": "sqrt", "η": "lr"})


Piece = tuple[int, str, str]
"""A part of the progress line: how much it is wanted where space is short, its text, its style."""


class Update(Protocol):
    """What the bar shows of an update."""

    @property
    def loss(self) -> Any:
        """A number, or a 0-d tensor: reading it may wait for a device."""

    @property
    def lr(self) -> float:
        """Its learning rate."""


class Progress:
    """The one place that prints during a training; a context manager, so that the terminal is always left in order.

    In a terminal a bar is redrawn ten times a second below the table. In a pipe there is no bar and no escape code:
    the rows alone and, after a minute without one, a line of progress. A reader who goes away (`| head`) does not end
    the training. `NO_COLOR` and narrow terminals are respected: columns that do not fit are left out, the last ones
    first. The best value so far bears a ★.

    Args:
        quiet: print nothing.
        file: where to print; standard output if None.
        console: a rich console to print on instead.

    Example:
        >>> import sys
        >>> from types import SimpleNamespace
        >>> row = {"step": 23, "epoch": 1.0, "loss": 0.12, "accuracy": 0.981, "train_loss": 0.2, "seconds": 1.9}
        >>> with Progress(file=sys.stdout) as progress:   # doctest: +NORMALIZE_WHITESPACE
        ...     progress.start({"task": "digits", "monitor": {"name": "accuracy"}})
        ...     progress.step(23, 460, 1.0, SimpleNamespace(loss=0.2, lr=0.01))
        ...     progress.evaluation(row, is_best=True)
        digits
        <BLANKLINE>
           epoch  train loss  val loss  accuracy         lr     time
               1      0.2000    0.1200   98.10 % ★     0.01    1.9 s
    """

    def __init__(self, *, quiet: bool = False, file: TextIO | None = None, console: Console | None = None) -> None:
        self._quiet = quiet
        self._console = console or _Console(file=file, highlight=False, markup=False, emoji=False, force_jupyter=False)
        self._unicode = self._console.encoding.lower().startswith("utf")
        self._bar = self._console.is_terminal and not self._console.is_dumb_terminal
        self._interval = float("inf") if quiet else REDRAW_SECONDS if self._bar else SILENT_SECONDS
        self._live: Live | None = None
        self._batch: int | None = None
        self._epochs: Any = None
        self._monitor = "loss"
        self._columns: list[Column] = []
        self._update: Update | None = None
        self._next = float("inf") if quiet else 0.0  # when to draw next; 0: at the first step
        self._now = 0.0  # when the latest step came
        self._paused = 0.0  # time spent between a step and the end of the evaluation after it
        self._begin: tuple[int, float] | None = None  # step and time of the first call
        self._mark = (0, 0.0)  # step and time without pauses at the latest drawing
        self._rate = 0.0  # updates a second, without pauses

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop_bar()

    def start(self, summary: Mapping[str, Any], notes: Iterable[str] = ()) -> None:
        """Prints the header: task, size, data, length, and every decision with its reason.

        Args:
            summary: what is known before the first update, in the form of `summary.json`.
            notes: sentences that the user should see first, such as a damaged checkpoint that was passed over.
        """
        self._batch, self._epochs = summary.get("batch"), summary.get("epochs")
        self._monitor = str((summary.get("monitor") or {}).get("name") or "loss")
        version = f"talweg {summary['talweg']} · " if summary.get("talweg") else ""
        self._print(Text.assemble((version, "dim"), (str(summary.get("task") or "unnamed task"), "bold")))
        data = ", ".join(f"{number(count)} {kind}" for kind, count in (summary.get("samples") or {}).items() if count)
        lines = [("parameters", number(summary.get("parameters")), ""), ("samples", data, "")]
        lines.append(("length", _length(summary), ""))
        for decision in summary.get("decisions") or []:
            lines.append((str(decision.get("name")), str(decision.get("value")), str(decision.get("why") or "")))
        self._facts([line for line in lines if line[1] not in ("", MISSING)])
        for note in notes:
            self._print(Text(self._filled(f"note: {note}"), style="yellow"))
        self._print(Text())

    def step(self, index: int, total: int, epoch: float, update: Update) -> None:
        """Notes an update; it costs a fraction of a microsecond, except ten times a second when the bar is redrawn.

        Args:
            index: updates made so far, this one included.
            total: updates planned.
            epoch: epochs done so far, with fraction.
            update: its learning rate and its loss; the loss is looked at only when the bar is redrawn.
        """
        self._update = update
        self._now = now = perf_counter()
        if now >= self._next:
            self._next = now + self._interval
            self._draw(index, total, epoch, update, now)

    def evaluation(self, row: Row, is_best: bool = False) -> None:
        """Appends an evaluation to the table.

        Args:
            row: a row of kind "validation" of `history.jsonl`, or "epoch" where there is no validation data.
            is_best: whether it is the best so far.
        """
        if self._quiet:
            return
        row = {"lr": self._update.lr if self._update else None, **row}
        fitting = columns(row, self._monitor, self._console.width)
        if [column.name for column in fitting] != [column.name for column in self._columns]:
            self._columns = fitting
            self._print(Text("".join(column.title() for column in fitting), style="bold"))
        line = Text()
        for column in self._columns:
            marked = is_best and column.marked
            line.append(column.cell(row, marked), style="bold green" if marked else "")
        self._print(line)
        now = perf_counter()
        if self._begin is not None:
            self._paused += now - self._now
            self._now = now
            if not self._bar:
                self._next = now + self._interval

    def finish(self, words: str, folder: str | os.PathLike[str], files: Iterable[str]) -> None:
        """Removes the bar and prints the verdict, the run's folder and what lies in it."""
        self._stop_bar()
        self._print(Text())
        for paragraph in words.strip().splitlines():
            self._print(Text(self._filled(paragraph)))
        self._print(Text.assemble("\nRun folder: ", (os.fspath(folder), "bold")))
        names = list(files)
        if names:
            self._print(Text("  " + _hanging("  ".join(names), self._width(), 2), style="dim"))

    def _facts(self, lines: list[tuple[str, str, str]]) -> None:
        """Names, values and reasons in three columns; a reason goes under its value where it does not fit beside."""
        width = self._width()
        first = 4 + max((len(name) for name, _, _ in lines), default=0)
        second = 2 + max((len(value) for _, value, why in lines if why and len(value) <= 16), default=0)
        for name, value, why in lines:
            text = Text.assemble(("  " + name.ljust(first - 2), "dim"), _hanging(value, width, first))
            third = first + max(second, len(value) + 2)
            if why and third + min(24, len(why)) <= width:
                text.append(" " * (third - first - len(value)) + _hanging(why, width, third), style="dim")
            elif why:
                text.append("\n    " + _hanging(why, width, 4), style="dim")
            self._print(text)

    def _draw(self, step: int, total: int, epoch: float, update: Update, now: float) -> None:
        """Redraws the bar or, in a pipe, prints a line of progress."""
        active = now - self._paused
        if self._begin is None:
            self._begin, self._mark = (step, now), (step, active)
            if not self._bar:
                return
        steps, seconds = step - self._mark[0], active - self._mark[1]
        if steps > 0 and seconds > 0:
            # The first second counts fully, later ones smoothly: a figure that can be read while it changes.
            self._rate += (steps / seconds - self._rate) * (0.2 if self._rate else 1.0)
            self._mark = (step, active)
        done = step - self._begin[0]
        left = (total - step) * (now - self._begin[1]) / done if done > 0 else None
        pieces = self._pieces(step, total, epoch, float(update.loss), left)
        if not self._bar:
            self._print(Text("  " + "  ".join(text for _, text, _ in pieces)))
            return
        if self._live is None:
            self._live = Live(console=self._console, auto_refresh=False, transient=True)
            self._live.start()
        self._live.update(self._line(pieces, step / total if total else 0.0), refresh=True)

    def _pieces(self, step: int, total: int, epoch: float, loss: float, left: float | None) -> list[Piece]:
        """The parts of the progress line, in order."""
        of = f"/{epoch_text(self._epochs)}" if self._epochs else ""
        pieces = [(4, f"epoch {epoch:.1f}{of}", "bold")]
        pieces.append((3, f"{100 * step / total:3.0f} %" if total else f"step {number(step)}", ""))
        pieces.append((5, f"loss {fixed(loss)}", "" if math.isfinite(loss) else "bold red"))
        if self._rate:
            rate = self._rate * (self._batch or 1)
            text = f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"
            pieces.append((1, f"{text} {'samples' if self._batch else 'updates'}/s", "dim"))
        if left is not None:
            pieces.append((2, f"{_left(left)} left", "cyan"))
        return pieces

    def _line(self, pieces: list[Piece], share: float) -> Text:
        """The bar and the pieces that fit; where that leaves less than 8 columns, no bar."""
        width = self._console.width - 1  # a full last column would wrap in some terminals
        while len(pieces) > 1 and sum(len(text) + 2 for _, text, _ in pieces) > width - 10:
            pieces.remove(min(pieces))
        room = width - sum(len(text) + 2 for _, text, _ in pieces) - 2
        line = Text.assemble(("  " + pieces[0][1], pieces[0][2]), no_wrap=True, overflow="crop")
        if room >= 8:
            length = min(room, 30)
            filled = round(max(0.0, min(1.0, share)) * length)
            line.append("  " + self._fit("━" * filled), style="green")
            line.append(self._fit("─" * (length - filled)), style="dim")
        for _, text, style in pieces[1:]:
            line.append("  ")
            line.append(text, style=style)
        return line

    def _stop_bar(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _filled(self, text: str) -> str:
        """The text in lines, no number torn from its unit."""
        filled = textwrap.fill(unbroken(text), self._width(), break_long_words=False, break_on_hyphens=False)
        return filled.replace("\u00a0", " ")

    def _width(self) -> int:
        """Columns for text."""
        return max(20, min(self._console.width, WIDEST))

    def _fit(self, text: str) -> str:
        """The text in letters that the terminal's encoding has."""
        if self._unicode:
            return text
        return text.translate(PLAIN).encode(self._console.encoding, "replace").decode(self._console.encoding)

    def _print(self, text: Text) -> None:
        if self._quiet:
            return
        if not self._unicode:
            text = Text(self._fit(text.plain))
        text.rstrip()
        # soft_wrap: lines are already broken where they should be, and a path is never broken.
        self._console.print(text, soft_wrap=True)


class _Console(Console):
    """A console whose reader may go away: what it prints then goes nowhere, and the training goes on."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        if self.file is sys.stdout:
            # Else the interpreter would complain once more when it flushes at its end.
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, sys.stdout.fileno())
            os.close(nowhere)


def _length(summary: Mapping[str, Any]) -> str:
    """The length of the training in epochs and updates, as a product where it is one."""
    epochs, per_epoch = finite(summary.get("epochs")), finite(summary.get("steps_per_epoch"))
    steps, batch = finite(summary.get("steps")), finite(summary.get("batch"))
    samples = f" of {counted(batch, 'sample')}" if batch else ""
    if epochs and per_epoch and epochs >= 1:
        return f"{counted(epochs, 'epoch')} × {counted(per_epoch, 'update')}{samples}"
    if steps:
        part = f", {epochs:.2g} of an epoch" if epochs else ""
        return f"{counted(steps, 'update')}{samples}{part}"
    return counted(epochs, "epoch") if epochs else ""


def _left(seconds: float) -> str:
    """A time to wait; tenths of a second would only flicker."""
    return clock(round(seconds)) if seconds >= 99.5 else f"{seconds:.0f} s"


def _hanging(text: str, width: int, indent: int) -> str:
    """The text broken into lines that all start at column `indent`, the first of which is already indented."""
    columns = max(width - indent, 8)
    lines = textwrap.wrap(text, columns, break_long_words=False, break_on_hyphens=False) or [""]
    return ("\n" + " " * indent).join(lines)
