"""Training and validation parts of a data set, held apart by name and never by chance."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from talweg.data.arrays import Arrays
from talweg.errors import require
from talweg.randomness import generator


class Sets(NamedTuple):
    """What a built-in set gives: the samples to learn from, and those to validate on."""

    train: Arrays
    validation: Arrays


def stratified(labels: Tensor, held: int, *names: object) -> tuple[Tensor, Tensor]:
    """Splits sample indices so that the held-out part has the class proportions of the whole.

    Each class gives ⌊held·n_c/n⌋ of its samples, and the classes with the largest remainders one more; which samples,
    is drawn by `generator(*names)`.

    Args:
        labels: [N] integers.
        held: number of samples to hold out, between 1 and N - 1.
        names: the split's name.

    Returns:
        (kept, held out): ascending LongTensors.

    Example:
        >>> kept, held = stratified(torch.tensor([0, 0, 0, 0, 1, 1]), 3, "demo")
        >>> len(kept), (held < 4).sum().item(), (held >= 4).sum().item()
        (3, 2, 1)
    """
    n = len(labels)
    require(0 < held < n, "held", held, f"between 1 and {n - 1} of {n} samples")
    classes, inverse = labels.unique(return_inverse=True)
    quota = torch.bincount(inverse).double() * held / n
    counts = quota.floor().long()
    most = (counts - quota).argsort(stable=True)[: held - int(counts.sum())]  # ties go to the first class
    counts[most] += 1
    drawn = torch.randperm(n, generator=generator(*names))
    parts = [drawn[inverse[drawn] == c][: counts[c]] for c in range(len(classes))]
    mask = torch.zeros(n, dtype=torch.bool)
    mask[torch.cat(parts)] = True
    return (~mask).nonzero().view(-1), mask.nonzero().view(-1)


def hold_out(data: Arrays, fraction: float, *names: object) -> Sets:
    """Holds a fraction of the samples out for validation; with class labels, in the class proportions of the whole.

    Args:
        data: arrays on the CPU.
        fraction: of the samples, rounded to at least one.
        names: what the split is called: the same names give the same split.

    Example:
        >>> sets = hold_out(Arrays(torch.arange(100.0), torch.arange(100) % 2), 0.1, "demo")
        >>> len(sets.train), sets.validation.y.tolist().count(1)
        (90, 5)
    """
    n = len(data)
    require(0 < fraction < 1, "fraction", fraction, "above 0 and below 1")
    require(n >= 2, "data", n, "at least 2 samples, to hold one out")
    labels = data.y if data.y.dim() == 1 and not data.y.is_floating_point() else torch.zeros(n, dtype=torch.int64)
    kept, held = stratified(labels, min(n - 1, max(1, round(fraction * n))), *names)
    return Sets(data.subset(kept), data.subset(held))
