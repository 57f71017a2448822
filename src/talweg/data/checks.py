"""Checks of samples and labels before training: every mistake is named with its row."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from talweg.errors import UserError

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
FEATURES = (torch.uint8, torch.int32, torch.int64, *FLOATS)
TARGETS = (*INTEGERS, *FLOATS)

_BLOCK = 1 << 22  # elements checked at once: bounds the temporary memory to a few MB


def check_pair(x: Tensor, y: Tensor, name: str) -> None:
    """Raises a `UserError` unless x and y hold equally many samples, at least one, in dtypes that can be trained on.

    Example:
        >>> check_pair(torch.zeros(3, 2), torch.zeros(4), "train")
        Traceback (most recent call last):
            ...
        talweg.errors.UserError: train: x has 3 samples but y has 4; give one target for each sample
    """
    for what, value, allowed, advice in (
        ("x", x, FEATURES, "use float32/float64, uint8 for images or int64 for tokens"),
        ("y", y, TARGETS, "use int64 for class labels or float32/float64 for regression"),
    ):
        if value.dtype not in allowed or value.layout != torch.strided:
            kind = str(value.dtype if value.layout == torch.strided else value.layout).removeprefix("torch.")
            raise UserError(f"{name}: {what} has dtype {kind}, which cannot be trained on; {advice}")
        if value.dim() == 0:
            raise UserError(f"{name}: {what} is a single number; its first dimension must count the samples")
    if len(x) != len(y):
        raise UserError(f"{name}: x has {len(x)} samples but y has {len(y)}; give one target for each sample")
    if x.numel() == 0:
        raise UserError(f"{name}: the data is empty (x has shape {list(x.shape)}); give at least one sample")


def check_finite(values: Tensor, name: str) -> None:
    """Raises a `UserError` with the first row (sample) that holds a NaN or an infinity; reads in blocks.

    Args:
        values: [N, ...]; integers pass at once.
        name: what the message calls the values, such as "train: x".

    Example:
        >>> check_finite(torch.tensor([[1.0, 2.0], [3.0, float("nan")]]), "train: x")
        Traceback (most recent call last):
            ...
        talweg.errors.UserError: train: x is nan at row 1, position (1,); remove or repair that sample
    """
    if not values.is_floating_point():
        return
    rows = max(1, _BLOCK // max(1, values[0].numel()))
    for start in range(0, len(values), rows):
        block = values[start : start + rows]
        finite = torch.isfinite(block)
        if not bool(finite.all()):
            row, *position = (~finite).nonzero()[0].tolist()
            where = f", position {tuple(position)}" if position else ""
            value = block[(row, *position)].item()
            raise UserError(f"{name} is {value} at row {start + row}{where}; remove or repair that sample")


def check_labels(y: Tensor, classes: int | Sequence[str], name: str = "data") -> None:
    """Raises a `UserError` naming row and value unless every label is an integer in 0 … classes - 1.

    Args:
        y: [N, ...] labels; a floating dtype is refused, a NaN in it by its row.
        classes: their number, or their names.
        name: what the message calls the data, such as "train".

    Example:
        >>> check_labels(torch.tensor([0, 1, 2]), 3)
        >>> check_labels(torch.tensor([0, 10, 2]), 3, "train")
        Traceback (most recent call last):
            ...
        talweg.errors.UserError: train: the label at row 1 is 10, but with 3 classes labels lie in 0..2; correct the \
row or the number of classes
    """
    count = classes if isinstance(classes, int) else len(classes)
    if y.is_floating_point():
        check_finite(y, f"{name}: the label")
        kind = str(y.dtype).removeprefix("torch.")
        raise UserError(f"{name}: class labels must be integers, received {kind}; convert them with y.long()")
    y = y.long()  # in uint8, 256 classes would compare as 0
    bad = (y < 0) | (y >= count)
    if bool(bad.any()):
        place = tuple(bad.nonzero()[0].tolist())
        raise UserError(
            f"{name}: the label at row {place[0]} is {y[place].item()}, but with {count} classes labels lie in "
            f"0..{count - 1}; correct the row or the number of classes"
        )
