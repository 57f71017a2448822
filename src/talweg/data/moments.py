"""Mean, variance and covariance of a source in one streaming pass, in float64, without cancellation.

Blocks are merged by Chan's formulae: with n = n₁ + n₂ and δ = mean₂ - mean₁, mean = mean₁ + δ·n₂/n and
S = S₁ + S₂ + δ·δᵀ·n₁·n₂/n, where S is the sum of squared deviations (or of their products).

Source: T. Chan, G. Golub, R. LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances", 1979.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from talweg.data.order import ranges
from talweg.data.source import Source
from talweg.errors import UserError

TOKENS = (torch.int64, torch.int32)

_BLOCK = 1 << 20  # elements converted to float64 at once


class Moments(NamedTuple):
    """What was summed up: the number n of values behind each mean, the means, and the deviations S."""

    n: int
    mean: Tensor
    deviation: Tensor


def first_sample(source: Source, name: str) -> Tensor:
    """The first sample of a source, [1, ...], raw.

    Raises:
        UserError: the data are token numbers.
    """
    x, _ = next(iter(source.batches([range(1)])))
    if x.dtype in TOKENS:
        raise UserError(f"{name}: the data are integers (token numbers), which have no scale; leave it out")
    return x


def blocks(source: Source, name: str) -> Iterator[Tensor]:
    """The samples of a source in order, as float64 blocks of bounded size.

    Raises:
        UserError: the data are token numbers, or a value is NaN or infinite; its row is named.
    """
    rows = max(1, _BLOCK // first_sample(source, name).numel())
    start = 0
    for x, _ in source.batches(ranges(len(source), rows)):
        wide = (x.cpu() if x.device.type == "mps" else x).double()  # MPS has no float64
        if x.is_floating_point() and not bool(torch.isfinite(wide).all()):
            row, *position = (~torch.isfinite(wide)).nonzero()[0].tolist()
            where = f", position {tuple(position)}" if position else ""
            value = wide[(row, *position)].item()
            raise UserError(f"{name}: x is {value} at row {start + row}{where}; remove or repair that sample")
        yield wide
        start += len(x)


def moments(source: Source, name: str) -> Moments:
    """Mean and sum of squared deviations of each feature of [N, F], each channel of [N, C, H, W, …], or all of it.

    Example:
        >>> from talweg.data.arrays import Arrays
        >>> x = torch.tensor([[1e9, 1.0], [1e9 + 2, 3.0]], dtype=torch.float64)
        >>> n, mean, deviation = moments(Arrays(x, torch.zeros(2)), "demo")
        >>> mean.tolist(), (deviation / n).tolist()
        ([1000000001.0, 2.0], [1.0, 1.0])
    """
    count, mean, deviation = 0, torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for x in blocks(source, name):
        var, new = torch.var_mean(x, dim=_reduced(x), correction=0)
        var, new = var.cpu(), new.cpu()
        n = x.numel() // max(1, new.numel())
        delta = new - mean
        mean = mean + delta * (n / (count + n))
        deviation = deviation + var * n + delta.square() * (count * n / (count + n))
        count += n
    return Moments(count, mean, deviation)


def mean_sample(source: Source, name: str) -> Tensor:
    """The mean of all samples, value by value: float64 of a sample's shape, on the CPU."""
    count, mean = 0, torch.zeros(first_sample(source, name).shape[1:], dtype=torch.float64)
    for x in blocks(source, name):
        mean = mean + (x.mean(0).cpu() - mean) * (len(x) / (count + len(x)))
        count += len(x)
    return mean


def scatter(source: Source, name: str) -> Moments:
    """Mean [F] of the flattened samples, and the products of their deviations Σ (x - mean)·(x - mean)ᵀ [F, F]."""
    count, mean, products = 0, torch.zeros(()), torch.zeros(())
    for x in blocks(source, name):
        rows = x.flatten(1) if x.dim() > 1 else x[:, None]  # [n, F]
        n, new = len(rows), rows.mean(0)
        rows = rows - new
        if not count:
            mean, products = new, rows.mT @ rows
        else:
            delta = new - mean
            mean = mean + delta * (n / (count + n))
            products.addmm_(rows.mT, rows).addr_(delta, delta, alpha=count * n / (count + n))
        count += n
    return Moments(count, mean.cpu(), products.cpu())


def _reduced(x: Tensor) -> tuple[int, ...]:
    """The dimensions that one mean is taken over: all but the features of [N, F] or the channels of [N, C, H, W, …]."""
    if x.dim() == 2:
        return (0,)
    return (0, *range(2, x.dim())) if x.dim() >= 4 else tuple(range(x.dim()))
