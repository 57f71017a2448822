"""The layers of a slice of θ: norms, and one number for each spread over its elements (LARS, LAMB)."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor

from talweg.optimizers.kernels import BLOCK

Spans = tuple[tuple[int, int], ...]


class Segments:
    """The segments of a slice of θ: a norm for each, and one number for each spread over its elements.

    Args:
        spans: (start, stop) of each, relative to the slice, in order; the gaps behind them are 0 and count as theirs.
        w: the slice [..., n]; making the object copies a few numbers to its device, using it never waits for the device.

    Example:
        >>> segments = Segments(((0, 2), (2, 3)), torch.zeros(4))
        >>> norms = segments.norms(torch.tensor([3.0, 4.0, 2.0, 0.0]))
        >>> norms.tolist(), segments.spread(norms).tolist()
        ([5.0, 2.0], [5.0, 5.0, 2.0, 2.0])
    """

    def __init__(self, spans: Spans, w: Tensor) -> None:
        self.sizes = sizes(spans, w.shape[-1])
        self._sizes = torch.tensor(self.sizes, device=w.device)
        self._total = w.shape[-1]

    def norms(self, x: Tensor) -> Tensor:
        """The 2-norm of every segment: [..., n] → [..., S]."""
        parts = x.split(self.sizes, dim=-1)
        if x.device.type != "cpu" and x.dim() == 1:
            return torch.stack(torch._foreach_norm(parts))
        # float32 sums of squares run on the CPU lose 4e-5 of the norm of 2 million elements
        exact = torch.float64 if x.device.type == "cpu" else x.dtype
        return torch.stack([torch.linalg.vector_norm(p, dim=-1, dtype=exact) for p in parts], dim=-1).to(x.dtype)

    def spread(self, x: Tensor) -> Tensor:
        """Each segment's number for all its elements: [..., S] → [..., n]."""
        return torch.repeat_interleave(x, self._sizes, dim=-1, output_size=self._total)


def sizes(spans: Spans, total: int) -> list[int]:
    """The lengths of the segments, the gap behind each included; they add up to `total`."""
    starts = [start for start, _ in spans]
    assert starts[0] == 0, "a slice begins with a segment"
    return [stop - start for start, stop in pairwise([*starts, total])]


def norm(x: Tensor) -> float:
    """The 2-norm of a vector on the CPU, as a number: dot products of blocks are the quickest way, and exact enough.

    In float32 a single dot product over 2 million elements is wrong by 2e-5, the sum of those of blocks by 5e-7.
    """
    return math.sqrt(sum(torch.dot(part, part).item() for part in (x.split(BLOCK) if len(x) > BLOCK else (x,))))
