"""Errors for people: what was wrong, where, and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A mistake in what the user asked for or brought along; commands print it as one line, without a traceback."""


def unknown(kind: str, name: object, known: Iterable[str]) -> UserError:
    """The error for a name that is not in a table, with the nearest known name.

    Example:
        >>> unknown("optimizer", "adma", ["sgd", "adam"])
        UserError("unknown optimizer 'adma': did you mean 'adam'? Known: adam, sgd")
    """
    names = sorted(known)
    near = difflib.get_close_matches(str(name).lower(), names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return UserError(f"unknown {kind} {name!r}: {hint}Known: {', '.join(names)}")


def require(condition: bool, setting: str, received: object, expected: str) -> None:
    """Raises a `UserError` that names the setting, what was received and what was expected.

    Example:
        >>> require(False, "lr", -1, "a positive number")
        Traceback (most recent call last):
            ...
        talweg.errors.UserError: lr must be a positive number, received -1
    """
    if not condition:
        raise UserError(f"{setting} must be {expected}, received {received!r}")
