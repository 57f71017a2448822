"""Trust ratios: one learning-rate multiplier for every segment of θ, from norms (LARS, LAMB)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from talweg.optimizers.rule import Rule


@dataclass(frozen=True, kw_only=True)
class LayerWise(Rule):
    """A rule that gives each layer, a segment of θ, a learning rate of its own: what LARS and LAMB share.

    Segments that are not decayed (biases, the scales of norms) are not adapted, as is usual; with `adapt_all` they are.
    """

    adapt_all: bool = False
    """give biases and the scales of norms a trust ratio too"""

    def adapts(self, decay: bool) -> bool:
        """Weights; biases and norms with `adapt_all`."""
        return decay or self.adapt_all


class Segments:
    """The segments of a slice of θ: a norm for each, and one number for each spread over its elements.

    Args:
        spans: (start, stop) of each, relative to the slice, in order; the gaps behind them are 0 and count as theirs.
        w: the slice [..., n].

    Example:
        >>> segments = Segments(((0, 2), (2, 3)), torch.zeros(4))
        >>> norms = segments.norms(torch.tensor([3.0, 4.0, 2.0, 0.0]))
        >>> norms.tolist(), segments.spread(norms).tolist()
        ([5.0, 2.0], [5.0, 5.0, 2.0, 2.0])
    """

    def __init__(self, spans: tuple[tuple[int, int], ...], w: Tensor) -> None:
        self.sizes = sizes(spans, w.shape[-1])
        self._sizes = torch.tensor(self.sizes, device=w.device)
        self._total = w.shape[-1]

    def norms(self, x: Tensor) -> Tensor:
        """The 2-norm of every segment: [..., n] → [..., S]."""
        parts = x.split(self.sizes, dim=-1)
        if x.dim() == 1:
            return torch.stack(torch._foreach_norm(parts))
        return torch.stack([torch.linalg.vector_norm(part, dim=-1) for part in parts], dim=-1)

    def spread(self, x: Tensor) -> Tensor:
        """Each segment's number for all its elements: [..., S] → [..., n]."""
        return torch.repeat_interleave(x, self._sizes, dim=-1, output_size=self._total)


def sizes(spans: tuple[tuple[int, int], ...], total: int) -> list[int]:
    """The lengths of the segments, the gap behind each included; they add up to `total`."""
    starts = [start for start, _ in spans]
    assert starts[0] == 0, "a slice begins with a segment"
    return [stop - start for start, stop in pairwise([*starts, total])]


def norm(x: Tensor) -> float:
    """The 2-norm of a vector on the CPU, as a number; a dot product is the quickest way to it."""
    return math.sqrt(torch.dot(x, x).item())
