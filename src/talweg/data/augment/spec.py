"""What a recipe's `augment` may hold: names with amounts, such as `rotate:15`, and what the amounts may be."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from talweg.errors import UserError, require, unknown

Amounts = tuple[float, ...]


@dataclass(frozen=True)
class Kind:
    """What may stand behind a name: the amounts of a name alone, what is allowed, and in words."""

    usual: Amounts
    allowed: Callable[[Amounts], bool]
    says: str


@dataclass(frozen=True)
class Op:
    """One entry of `augment`, read."""

    name: str
    amounts: Amounts

    def __str__(self) -> str:
        return self.name + (":" + ",".join(f"{amount:g}" for amount in self.amounts) if self.amounts else "")


def _one(low: float, high: float) -> Callable[[Amounts], bool]:
    """One amount above `low`, up to `high`."""
    return lambda a: len(a) == 1 and low < a[0] <= high


def _two(low: float, high: float) -> Callable[[Amounts], bool]:
    """Two amounts above `low`, up to `high`, not descending and not both 1."""
    return lambda a: len(a) == 2 and low < a[0] <= a[1] <= high and a != (1.0, 1.0)


def _jitter(a: Amounts) -> bool:
    return 1 <= len(a) <= 4 and all(0 <= v <= most for v, most in zip(a, (1, 1, 1, 0.5), strict=False)) and any(a)


def _policy(a: Amounts) -> bool:
    return len(a) == 2 and a[0] in range(1, 15) and 0 < a[1] <= 30


# In the order in which they act: what moves pixels (composed, interpolated once), what changes colours, what hides.
AUGMENTATIONS: Mapping[str, Kind] = {
    "randaugment": Kind((2, 9), _policy, "OPERATIONS of 1 to 14 and MAGNITUDE up to 30, such as randaugment:2,9"),
    "flip": Kind((), lambda a: not a, "no amount: half of the images are mirrored left to right"),
    "crop": Kind(
        (),
        lambda a: not a or (len(a) == 1 and a[0] >= 1 and a[0] == int(a[0])),
        "whole PIXELS of shift, such as crop:4 (none: up to an eighth of the side)",
    ),
    "resized_crop": Kind((0.08, 1.0), _two(0, 1), "least and largest part of the AREA, such as resized_crop:0.08,1"),
    "scale": Kind((0.8, 1.2), _two(0, 10), "least and largest FACTOR, such as scale:0.8,1.2"),
    "translate": Kind((0.1,), _one(0, 1), "a PART of the side of at most 1, such as translate:0.1"),
    "rotate": Kind((15.0,), _one(0, 180), "DEGREES of at most 180, such as rotate:15"),
    "stretch": Kind((0.2,), _one(0, 4), "the largest change of the aspect ratio, such as stretch:0.2"),
    "shear": Kind((10.0,), _one(0, 80), "DEGREES of at most 80, such as shear:10"),
    "perspective": Kind((0.2,), _one(0, 0.9), "the PART of half a side that corners move, such as perspective:0.2"),
    "lens": Kind((0.2,), _one(0, 0.9), "the strength at the corners, at most 0.9, such as lens:0.2"),
    "jitter": Kind(
        (0.4, 0.4, 0.4, 0.1),
        _jitter,
        "BRIGHTNESS,CONTRAST,SATURATION of at most 1 and HUE of at most 0.5, such as jitter:0.4,0.4,0.4,0.1",
    ),
    "grayscale": Kind((0.1,), _one(0, 1), "a PROBABILITY, such as grayscale:0.1"),
    "pca_noise": Kind((0.1,), _one(0, 10), "the standard deviation of the weights, such as pca_noise:0.1"),
    "noise": Kind((0.05,), _one(0, 1), "a standard deviation as part of white, such as noise:0.05"),
    "cutout": Kind((0.5,), _one(0, 1), "the PART of the side that is hidden, such as cutout:0.5"),
    "erasing": Kind((0.5,), _one(0, 1), "a PROBABILITY, such as erasing:0.5"),
}
"""Every name that a recipe's `augment` may hold, in the order in which they act (the order in the list does not matter)."""


def parse(specs: Sequence[str]) -> tuple[Op, ...]:
    """The operations that a recipe's `augment` names, in the order in which they act.

    Args:
        specs: `name` or `name:amount[,amount…]`. A name alone has its usual amounts; `jitter:a` stands for
            `jitter:a,a,a,0`, and amounts that are left out of a longer one are 0.

    Raises:
        UserError: an unknown name, amounts that are no numbers or out of range, or a name given twice.

    Example:
        >>> [str(op) for op in parse(["jitter:0.4", "rotate", "crop"])]
        ['crop', 'rotate:15', 'jitter:0.4,0.4,0.4,0']
        >>> parse(["rotate:fifteen"])
        Traceback (most recent call last):
            ...
        talweg.errors.UserError: rotate must be DEGREES of at most 180, such as rotate:15, received 'rotate:fifteen'
    """
    ops = [_read(spec) for spec in specs]
    names = [op.name for op in ops]
    require(len(set(names)) == len(names), "augment", list(specs), "a list without repetitions")
    return tuple(sorted(ops, key=lambda op: list(AUGMENTATIONS).index(op.name)))


def _read(spec: str) -> Op:
    require(isinstance(spec, str), "augment", spec, "a list of words, such as 'crop' or 'rotate:15'")
    name, colon, text = spec.partition(":")
    if name not in AUGMENTATIONS:
        raise unknown("augmentation", name, AUGMENTATIONS)
    kind = AUGMENTATIONS[name]
    if not colon:
        return Op(name, kind.usual)
    wrong = UserError(f"{name} must be {kind.says}, received {spec!r}")
    try:
        amounts = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise wrong from None
    if not all(map(math.isfinite, amounts)) or not kind.allowed(amounts):
        raise wrong
    if name == "jitter":
        amounts = (*amounts * 3, 0.0) if len(amounts) == 1 else (*amounts, 0.0, 0.0)[:4]
    return Op(name, amounts)
