"""Errors for people: one line that names the setting, what was received, and what to do."""

from __future__ import annotations

import pytest

from talweg import UserError
from talweg.errors import require, unknown

KNOWN = {"sgd": 1, "adam": 2, "adamw": 3, "lamb": 4}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("adma", "unknown optimizer 'adma': did you mean 'adam'? Known: adam, adamw, lamb, sgd"),
        ("zzz", "unknown optimizer 'zzz': Known: adam, adamw, lamb, sgd"),
        (3, "unknown optimizer 3: Known: adam, adamw, lamb, sgd"),
        (None, "unknown optimizer None: Known: adam, adamw, lamb, sgd"),
    ],
)
def test_unknown_names_the_nearest_one(name: object, message: str) -> None:
    error = unknown("optimizer", name, KNOWN)
    assert isinstance(error, UserError)
    assert str(error) == message


def test_require_passes_and_refuses() -> None:
    require(True, "lr", 0.1, "positive")
    with pytest.raises(UserError, match=r"^lr must be positive, received 'a'$"):
        require(False, "lr", "a", "positive")


def test_user_error_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="x"):
        raise UserError("x")
