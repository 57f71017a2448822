"""What the tests of commands share: to run one in this process, to look at what it said, and at what it left."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from talweg import verbs
from talweg.cli import main


def command(*words: str) -> int:
    """The exit code of a command in this process."""
    with pytest.raises(SystemExit) as end:
        main(words)
    return int(end.value.code or 0)


def complaint(line: str, capsys: pytest.CaptureFixture[str]) -> str:
    """What a command says that must fail for a mistake of the user's: one line, and exit code 2."""
    code, printed = command(*line.split()), capsys.readouterr()
    assert code == 2, printed
    assert printed.out == ""
    assert printed.err.startswith("talweg: ")
    assert printed.err.count("\n") == 1
    assert "Traceback" not in printed.err
    return printed.err.removeprefix("talweg: ")


def contents(folder: Path) -> dict[str, bytes]:
    """All files in a folder."""
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def nothing(*arguments: Any, **options: Any) -> None:
    """Does nothing."""


def undrawn(patch: pytest.MonkeyPatch) -> None:
    """Makes runs leave no picture and no page, which take most of a second."""
    patch.setattr(verbs, "plot_curves", nothing)
    patch.setattr(verbs, "write_page", nothing)


def replaced(name: str, old: str, new: str) -> Callable[[Path], None]:
    """A function that changes a text file in a folder."""

    def replace(folder: Path) -> None:
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new))

    return replace


def flip(path: Path, at: int = -1) -> None:
    """Changes a bit of a file."""
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
