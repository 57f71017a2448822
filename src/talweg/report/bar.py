"""A bar for work that is counted in items, such as files."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class Bar:
    """A progress bar with the time that is left, called with (items done, items in all); gone when the work is.

    In a pipe it prints nothing.

    Args:
        words: what is done.
        quiet: print nothing anywhere.
        console: a rich console to print on; standard error if None.

    Example:
        >>> with Bar("packing", quiet=True) as bar:
        ...     for done in (0, 5, 10):
        ...         bar(done, 10)
        >>> bar.done
        10
    """

    def __init__(self, words: str, *, quiet: bool = False, console: Console | None = None) -> None:
        console = console or Console(stderr=True)
        shown = (TextColumn(words), BarColumn(None), MofNCompleteColumn(), TimeRemainingColumn(compact=True))
        self._progress = Progress(*shown, console=console, transient=True, disable=quiet or not console.is_terminal)
        self._task = self._progress.add_task(words, total=None)
        self.done = 0

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def __call__(self, done: int, total: int) -> None:
        """Shows how far the work is."""
        self.done = done
        self._progress.update(self._task, completed=done, total=total)
