"""The orders in which an epoch may show its samples: each a pure function of (seed, epoch) and what it looks at."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor

from talweg.data.checks import check_finite
from talweg.errors import UserError, require, unknown
from talweg.randomness import generator


def shuffled(n: int, seed: int, epoch: int) -> Tensor:
    """A permutation of 0..n-1, drawn anew for each (seed, epoch)."""
    return torch.randperm(n, generator=generator(seed, epoch, "order"))


def sequential(n: int, seed: int, epoch: int) -> Tensor:
    """0, 1, …, n-1 in every epoch."""
    return torch.arange(n)


def class_spread(n: int, seed: int, epoch: int, labels: Tensor) -> Tensor:
    """A permutation in which successive samples rarely share a class, and every stretch has all classes in proportion.

    Formula: the k-th sample of class c (in shuffled order) is put at place (k + u_c) / n_c of [0, 1), where n_c is the
    size of the class and u_c = (r_c + ½) / C spreads the C classes by their shuffled ranks r_c; sorted by place, equal
    classes take turns. A class that has more than half of the samples must follow itself.

    Args:
        labels: [n] integers.

    Example:
        >>> labels = torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, 2])
        >>> labels[class_spread(9, 0, 0, labels)].tolist()
        [2, 0, 1, 2, 0, 1, 2, 0, 1]

    Source: Y. LeCun, L. Bottou, G. Orr, K.-R. Müller, "Efficient BackProp", 1998, section 4.1.
    """
    members, counts = _by_class(labels, seed, epoch)
    rank = _ranks(len(counts), seed, epoch)
    rounds = torch.arange(n) - (counts.cumsum(0) - counts).repeat_interleave(counts)  # k, for each of the members
    offset = ((rank.double() + 0.5) / len(counts)).repeat_interleave(counts)
    place = (rounds.double() + offset) / counts.double().repeat_interleave(counts)
    return members[place.argsort(stable=True)]


def class_balanced(n: int, seed: int, epoch: int, labels: Tensor) -> Tensor:
    """n draws that show each class equally often, in shuffled order.

    Each of the C classes gets ⌊n/C⌋ draws and n mod C of them, drawn anew for each epoch, get one more. The draws of a
    class go through its samples in shuffled order, again and again where it is small: no sample of a class is shown
    twice before all have been shown once.

    Args:
        labels: [n] integers.

    Example:
        >>> labels = torch.tensor([0, 0, 0, 0, 0, 0, 0, 1, 1])
        >>> labels[class_balanced(9, 0, 0, labels)].bincount().tolist()
        [5, 4]

    Source: H. He, E. Garcia, "Learning from imbalanced data", 2009, section 3.1 (random oversampling).
    """
    members, counts = _by_class(labels, seed, epoch)
    quota = n // len(counts) + (_ranks(len(counts), seed, epoch) < n % len(counts)).long()
    turn = torch.arange(n) - (quota.cumsum(0) - quota).repeat_interleave(quota)
    first = (counts.cumsum(0) - counts).repeat_interleave(quota)
    drawn = members[first + turn % counts.repeat_interleave(quota)]
    return drawn[torch.randperm(n, generator=generator(seed, epoch, "class balanced"))]


def class_probabilities(labels: Tensor) -> Tensor:
    """p_i = 1 / (C·n_c): the probability with which a draw of `class_balanced` is sample i of class c; float64 [n]."""
    _, inverse, counts = labels.unique(return_inverse=True, return_counts=True)
    return 1.0 / (len(counts) * counts.double())[inverse]


def loss_weighted(n: int, seed: int, epoch: int, losses: Tensor, alpha: float = 1.0, uniform: float = 0.1) -> Tensor:
    """n draws in which samples with a large loss come more often, in shuffled order.

    Formula: sample i is drawn with p_i of `loss_probabilities`, by systematic resampling: the draws are the samples at
    the n equally spaced points (k + u)/n of the cumulated p, with one u ~ U[0, 1). Sample i is then shown ⌊n·p_i⌋ or
    ⌈n·p_i⌉ times, and n·p_i times in the mean: less noise than from n independent draws.

    A gradient that weights each shown sample by 1/(n·p_i) (see `Order.weights`) is unbiased: Σ p_i·w_i·g_i = mean of g.

    Args:
        losses: [n] the latest loss of each sample, at least 0.
        alpha: the power that a loss enters with; 0 makes all samples equal.
        uniform: the share of draws that ignore the losses, above 0: no sample is forgotten, no weight above 1/uniform.

    Example:
        >>> losses = torch.tensor([0.0, 1.0, 1.0, 6.0])
        >>> loss_weighted(4, 0, 0, losses).bincount(minlength=4).tolist()
        [0, 1, 0, 3]
        >>> loss_probabilities(losses).mul(4).round(decimals=2).tolist()       # so often in the mean
        [0.1, 0.55, 0.55, 2.8]

    Source: T. Schaul, J. Quan, I. Antonoglou, D. Silver, "Prioritized experience replay", 2016; A. Katharopoulos,
    F. Fleuret, "Not all samples are created equal: deep learning with importance sampling", 2018; G. Kitagawa, 1996
    (systematic resampling).
    """
    cumulated = loss_probabilities(losses, alpha, uniform).cumsum(0)
    u = torch.rand((), dtype=torch.float64, generator=generator(seed, epoch, "loss weighted"))
    points = (torch.arange(n) + u) / n * cumulated[-1]
    drawn = torch.searchsorted(cumulated, points, right=True).clamp_(max=n - 1)
    return drawn[shuffled(n, seed, epoch)]


def loss_probabilities(losses: Tensor, alpha: float = 1.0, uniform: float = 0.1) -> Tensor:
    """p_i = (1 - uniform)·loss_i^alpha / Σ loss^alpha + uniform/n; 1/n where all losses are 0. Float64 [n].

    Example:
        >>> loss_probabilities(torch.tensor([1.0, 3.0]), alpha=1.0, uniform=0.2).tolist()
        [0.30000000000000004, 0.7000000000000001]
    """
    scaled = losses.double() / losses.max().clamp(min=torch.finfo(losses.dtype).tiny)  # no power overflows
    weight = scaled**alpha
    total = weight.sum()
    share = weight / total if total > 0 else torch.full_like(weight, 1 / len(weight))
    return (1 - uniform) * share + uniform / len(weight)


def curriculum(n: int, seed: int, epoch: int, difficulty: Tensor, start: float = 0.2, epochs: float = 10.0) -> Tensor:
    """n draws from a pool of the easiest samples that grows from epoch to epoch, in shuffled order.

    Formula: the pool of epoch e is the m = ⌈n·min(1, start + (1 - start)·e/epochs)⌉ samples of the lowest difficulty (the
    earlier one of two equal ones). Each of them is shown ⌊n/m⌋ times, the n mod m easiest once more; from epoch `epochs`
    on all samples are shown once.

    Args:
        difficulty: [n] a score for each sample, low for easy ones; such as its loss under a model trained before.
        start: the share of samples in the first pool.
        epochs: how long the pool grows.

    Example:
        >>> difficulty = torch.tensor([0.9, 0.1, 0.5, 0.7, 0.3, 0.2])
        >>> for epoch in (0, 1, 2):
        ...     print(curriculum(6, 0, epoch, difficulty, start=0.5, epochs=2).sort().values.tolist())
        [1, 1, 4, 4, 5, 5]
        [1, 1, 2, 3, 4, 5]
        [0, 1, 2, 3, 4, 5]

    Source: Y. Bengio, J. Louradour, R. Collobert, J. Weston, "Curriculum learning", 2009; G. Hacohen, D. Weinshall, "On
    the power of curriculum learning in training deep networks", 2019 (growing pools).
    """
    size = math.ceil(round(n * min(1.0, start + (1 - start) * epoch / epochs), 6))
    pool = difficulty.argsort(stable=True)[:size]
    return pool[shuffled(n, seed, epoch) % size]


class Amount(NamedTuple):
    """A number that can be set behind an order's name."""

    name: str
    default: float
    valid: Callable[[float], bool]
    expected: str


class Ordering(NamedTuple):
    """An order: its function, what it must be given beside (n, seed, epoch), its numbers, and its probabilities.

    `needs` is "labels", "losses", "difficulty" or "". `probabilities` takes the same data and numbers, and gives how
    probable each sample is in a draw, for orders that show some samples more often.
    """

    draw: Callable[..., Tensor]
    needs: str = ""
    amounts: tuple[Amount, ...] = ()
    probabilities: Callable[..., Tensor] | None = None


_ALPHA = Amount("alpha", 1.0, lambda x: x >= 0, "0 or more")
_UNIFORM = Amount("uniform", 0.1, lambda x: 0 < x <= 1, "above 0 and at most 1")
_START = Amount("start", 0.2, lambda x: 0 < x <= 1, "above 0 and at most 1")
_EPOCHS = Amount("epochs", 10.0, lambda x: x > 0, "a positive number of epochs")

ORDERS: Mapping[str, Ordering] = MappingProxyType(
    {
        "shuffled": Ordering(shuffled),
        "sequential": Ordering(sequential),
        "class_spread": Ordering(class_spread, "labels"),
        "class_balanced": Ordering(class_balanced, "labels", probabilities=class_probabilities),
        "loss_weighted": Ordering(loss_weighted, "losses", (_ALPHA, _UNIFORM), loss_probabilities),
        "curriculum": Ordering(curriculum, "difficulty", (_START, _EPOCHS)),
    }
)
"""Every order by name."""

_GIVEN = {
    "labels": "one class number for each sample",
    "losses": "one loss for each sample",
    "difficulty": "one score for each sample, low for easy ones",
}


class Chosen(NamedTuple):
    """An order with its numbers."""

    name: str
    ordering: Ordering
    amounts: tuple[float, ...]


def parse_order(spec: str) -> Chosen:
    """The order that a word such as "shuffled" or "loss_weighted:0.5,0.2" stands for.

    Raises:
        UserError: the name is unknown, or the numbers behind it are too many or out of range.

    Example:
        >>> parse_order("loss_weighted:0.5").amounts            # alpha as asked, uniform by default
        (0.5, 0.1)
        >>> parse_order("shuffeld")
        Traceback (most recent call last):
            ...
        talweg.errors.UserError: unknown order 'shuffeld': did you mean 'shuffled'? Known: class_balanced, \
class_spread, curriculum, loss_weighted, sequential, shuffled
    """
    name, colon, text = spec.partition(":")
    if name not in ORDERS:
        raise unknown("order", name, ORDERS)
    ordering = ORDERS[name]
    given = [part.strip() for part in text.split(",")] if colon else []
    if len(given) > len(ordering.amounts):
        takes = f"takes {name}:{','.join(a.name for a in ordering.amounts)}" if ordering.amounts else "takes no numbers"
        raise UserError(f"order {name!r} {takes}, received {spec!r}")
    amounts = []
    for amount, value in zip(ordering.amounts, [*given, *[None] * len(ordering.amounts)], strict=False):
        try:
            number = amount.default if value is None else float(value)
        except ValueError:
            number = math.nan
        valid = math.isfinite(number) and amount.valid(number)
        require(valid, f"{amount.name} of order {name!r}", value, amount.expected)
        amounts.append(number)
    return Chosen(name, ordering, tuple(amounts))


def check_given(chosen: Chosen, n: int, values: Tensor | None) -> Tensor:
    """What an order must be given, on the CPU and checked.

    Raises:
        UserError: there is none, it is not [n], or a value is of the wrong kind, not finite or a negative loss.
    """
    needs = chosen.ordering.needs
    what = f"order {chosen.name!r} needs {needs}: {_GIVEN[needs]}"
    if values is None:
        raise UserError(f"{what}, received none")
    if values.dim() != 1 or len(values) != n:
        raise UserError(f"{what} (a tensor [{n}]), received shape {list(values.shape)}")
    values = values.detach().cpu()
    if needs == "labels":
        if values.is_floating_point():
            raise UserError(f"{what}, as integers, received {str(values.dtype).removeprefix('torch.')}")
        return values
    values = values.double()
    check_finite(values, f"order {chosen.name!r}: {needs}")
    if needs == "losses" and bool((values < 0).any()):
        row = int((values < 0).nonzero()[0])
        raise UserError(f"order {chosen.name!r}: the loss at row {row} is {values[row].item():g}; losses are 0 or more")
    return values


def _by_class(labels: Tensor, seed: int, epoch: int) -> tuple[Tensor, Tensor]:
    """The samples class after class, each class in shuffled order, and the sizes of the classes."""
    _, inverse, counts = labels.unique(return_inverse=True, return_counts=True)
    drawn = shuffled(len(labels), seed, epoch)
    return drawn[inverse[drawn].argsort(stable=True)], counts


def _ranks(classes: int, seed: int, epoch: int) -> Tensor:
    """A shuffled rank for each class."""
    return torch.randperm(classes, generator=generator(seed, epoch, "classes"))
