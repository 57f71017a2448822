"""Numbers as text, at the edges where rounding changes the unit or the plural."""

from __future__ import annotations

import math

import pytest

from talweg.report.formats import clock, counted, duration, epoch_text, fixed, metric, number, rows_of


@pytest.mark.parametrize(
    ("function", "value", "text"),
    [
        (duration, 0.0, "0 s"),
        (duration, 59.94, "59.9 s"),
        (duration, 59.96, "1 min 0 s"),
        (duration, 3599.6, "1 h 0 min"),
        (duration, 3 * 86400 + 7200, "3 d 2 h"),
        (duration, None, "–"),
        (clock, 99.96, "1:40"),
        (clock, 3599.6, "1:00:00"),
        (epoch_text, 0.9999, "1"),
        (epoch_text, 12345.0, "12,345"),
        (number, 0.1 + 0.2, "0.3"),
        (number, 1e-7, "1e-07"),
        (number, -math.inf, "-inf"),
        (number, True, "–"),
        (fixed, 0.0, "0.0000"),
        (fixed, 0.00012, "1.20e-04"),
        (fixed, 123456.0, "1.23e+05"),
    ],
)
def test_text(function, value, text):
    assert function(value) == text


def test_plural():
    assert [counted(n, "epoch") for n in (0, 1, 1.0, 1.5, 2)] == [
        "0 epochs",
        "1 epoch",
        "1 epoch",
        "1.5 epochs",
        "2 epochs",
    ]


def test_only_accuracies_are_per_cent():
    assert metric("val_accuracy", 1) == "100.00 %"
    assert metric("f1", 0.5) == "0.5"
    assert metric("accuracy", math.nan) == "nan"


def test_a_row_written_twice_counts_once():
    rows = [{"kind": "train", "step": 5, "loss": 1.0}, {"kind": "train", "step": 5, "loss": 2.0}, {"kind": "other"}]
    assert rows_of(rows, "train") == [rows[1]]
