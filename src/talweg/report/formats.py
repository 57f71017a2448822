"""How numbers of a run are read from its rows and written for people."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

Row = Mapping[str, Any]

# What a validation row holds besides the task's metrics.
NOT_METRICS = frozenset({"kind", "step", "epoch", "lr", "loss", "train_loss", "seconds"})

MISSING = "–"


def finite(value: object) -> float | None:
    """The value as a float, or None where it is missing, not a number or infinite.

    Example:
        >>> finite(3), finite(None), finite(float("nan")), finite("12")
        (3.0, None, None, None)
    """
    if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    return None


def rows_of(rows: Iterable[Row], kind: str) -> list[Row]:
    """The rows of one kind in the order of their steps; of rows with the same step the last one written counts.

    Example:
        >>> rows = [{"kind": "train", "step": 2}, {"kind": "validation", "step": 2}, {"kind": "train", "step": 1}]
        >>> [row["step"] for row in rows_of(rows, "train")]
        [1, 2]
    """
    by_step = {row.get("step") or 0: row for row in rows if row.get("kind") == kind}
    return [by_step[step] for step in sorted(by_step)]


def metric_names(rows: Iterable[Row], first: str | None = None) -> list[str]:
    """Names of the task's metrics in validation rows, in order of appearance, the one named `first` leading.

    Example:
        >>> metric_names([{"kind": "validation", "step": 3, "loss": 0.1, "f1": 0.8, "accuracy": 0.9}], "accuracy")
        ['accuracy', 'f1']
    """
    names: dict[str, None] = {}
    for row in rows:
        names.update({k: None for k, v in row.items() if k not in NOT_METRICS and isinstance(v, (int, float))})
    return sorted(names, key=lambda name: name != first)


def is_share(name: str) -> bool:
    """Whether a metric is a share of samples, by its name, and is therefore written in per cent.

    Example:
        >>> is_share("top5_accuracy"), is_share("perplexity")
        (True, False)
    """
    return "accuracy" in name.lower()


def metric(name: str, value: object) -> str:
    """A metric's value as text: shares in per cent, anything else with four significant digits.

    Example:
        >>> metric("accuracy", 0.9917), metric("perplexity", 12.3456), metric("accuracy", None)
        ('99.17 %', '12.35', '–')
    """
    known = finite(value)
    return f"{100 * known:.2f} %" if known is not None and is_share(name) else number(value)


def number(value: object) -> str:
    """A number with thousands separators, floats with four significant digits.

    Example:
        >>> number(78042), number(0.0500049), number(123456.7), number(float("nan")), number(None)
        ('78,042', '0.05', '123,457', 'nan', '–')
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return MISSING
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.0f}" if math.isfinite(value) and abs(value) >= 1e4 else f"{value:.4g}"


def fixed(value: object) -> str:
    """A loss for a table column: four decimals, or an exponent where four decimals would say nothing.

    Example:
        >>> fixed(0.31), fixed(2.5e-5), fixed(float("inf"))
        ('0.3100', '2.50e-05', 'inf')
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return MISSING
    if not math.isfinite(value) or value == 0 or 1e-3 <= abs(value) < 1e4:
        return f"{value:.4f}"
    return f"{value:.2e}"


def epoch_text(value: object) -> str:
    """An epoch, whole where it is whole: 17 rather than 17.0.

    Example:
        >>> epoch_text(17.0), epoch_text(5.217), epoch_text(None)
        ('17', '5.2', '–')
    """
    known = finite(value)
    if known is None:
        return MISSING
    return f"{round(known):,}" if abs(known - round(known)) < 0.005 else f"{known:,.1f}"


def unbroken(text: str) -> str:
    """The text with no-break spaces between numbers and their units, to be wrapped without tearing them apart.

    Example:
        >>> unbroken("99.17 % in 2 min")
        '99.17\xa0% in 2\xa0min'
    """
    return re.sub(r"(?<=\d) (?=%|s\b|min\b|h\b|d\b)", "\u00a0", text)


def counted(count: float, noun: str) -> str:
    """A number with its noun, in the plural unless the number is one.

    Example:
        >>> counted(1, "epoch"), counted(1437, "sample"), counted(7.25, "epoch")
        ('1 epoch', '1,437 samples', '7.2 epochs')
    """
    text = epoch_text(count)
    return f"{text} {noun}" if text == "1" else f"{text} {noun}s"


def duration(seconds: object) -> str:
    """A time for people, in the two largest units.

    Example:
        >>> duration(31.24), duration(125), duration(3 * 3600 + 59.9), duration(0.0314)
        ('31.2 s', '2 min 5 s', '3 h 1 min', '0.031 s')
    """
    known = finite(seconds)
    if known is None:
        return MISSING
    if known < 59.95:
        return f"{known:.1f} s" if known >= 1 else f"{known:.2g} s"
    whole = round(known)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    minutes = round(known / 60)
    hours, days = minutes // 60, minutes // 1440
    return f"{hours} h {minutes % 60} min" if hours < 48 else f"{days} d {hours % 24} h"


def clock(seconds: object) -> str:
    """A time for a table or a bar, short: seconds with a decimal up to 100 s, then 12:05 or 3:04:05.

    Example:
        >>> clock(1.94), clock(725), clock(11045.2)
        ('1.9 s', '12:05', '3:04:05')
    """
    known = finite(seconds)
    if known is None:
        return MISSING
    if known < 99.95:
        return f"{known:.1f} s"
    whole = round(known)
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"
