"""LAMB: Adam with a trust ratio for every layer, for very large batches."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from talweg.optimizers.adam import adam_direction, fused_adam
from talweg.optimizers.kernels import BLOCK, blocks, bound_adam, fused
from talweg.optimizers.rule import LayerWise, Number, State, Step, add_scaled
from talweg.optimizers.segments import Segments, Spans, sizes


@dataclass(frozen=True, kw_only=True)
class LAMB(LayerWise):
    """Adam in which every layer moves by the fraction η of its own norm.

    Formula, for each segment (layer) with parameters w and gradient g, in the paper's form with φ(x) = x:

        m ← β1·m + (1 − β1)·g,    v ← β2·v + (1 − β2)·g²
        u = m̂ / (√v̂ + ε) + λ·w,   m̂ = m / (1 − β1ᵗ),  v̂ = v / (1 − β2ᵗ)
        w ← w − η·r·u,            r = ‖w‖ / ‖u‖,  1 if either is 0

    Where implementations differ: some clip the gradient first, clamp ‖w‖ or r, leave out the bias corrections or take
    λ·w out of the norm; this one does none of that (optax's is the same).

    Weight decay λ is a part of the formula above, decoupled from the averages; l2 is refused.

    Segments that are not decayed (biases, the scales of norms) are not adapted: r = 1, λ = 0, which is Adam. With
    `adapt_all` they are, as in the paper's algorithm and in optax.

    State: mean m and square v, like w. On the CPU a work vector as long as the largest segment is kept beside them.

    Raises:
        UserError: a setting is out of range, or decay="l2".

    Example:
        >>> rule, w = LAMB(lr=0.1), torch.tensor([1.0, 100.0])
        >>> g = torch.tensor([1e-3, -1e3])  # two layers of one weight: each moves by 10 %
        >>> rule.step(w, g, rule.init(w), rule.lr, 1, 0.0, spans=((0, 1), (1, 2)))
        >>> [round(x, 4) for x in w.tolist()]
        [0.9, 110.0]

    Source: Y. You et al., "Large batch optimization for deep learning: training BERT in 76 minutes", 2020, algorithm 2.
    """

    lr: float = 1e-3
    weight_decay: float = 0.01
    decay: Literal["decoupled", "l2"] = "decoupled"
    beta1: float = 0.9
    """β1: the part of the average of g that is kept"""
    beta2: float = 0.999
    """β2: the part of the average of g² that is kept"""
    eps: float = 1e-6
    """ε, added to the root: the smallest root that is divided by"""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._only_decay("decoupled", "its decay is part of the trust ratio, leave decay out")

    def init(self, w: Tensor) -> State:
        """{"mean": zeros like w, "square": zeros like w}."""
        return {"mean": torch.zeros_like(w), "square": torch.zeros_like(w)}

    def apply(
        self,
        w: Tensor,
        g: Tensor,
        state: State,
        lr: Number,
        t: int,
        weight_decay: Number,
        segments: Segments | None,
    ) -> None:
        """The equations of the class, for all segments at once."""
        u = adam_direction(g, state, t, self.beta1, self.beta2, self.eps)
        add_scaled(u, w, weight_decay)
        if segments is not None:
            w_norm, u_norm = segments.norms(w), segments.norms(u)
            u.mul_(segments.spread(torch.where((w_norm > 0) & (u_norm > 0), w_norm / u_norm, 1.0)))
        add_scaled(w, u, -lr)

    def bind(self, w: Tensor, g: Tensor, state: State, weight_decay: Number, spans: Spans = ()) -> Step:
        """torch's fused Adam, with a work vector as its parameters, leaves there a multiple of u, which is enough for r·u."""
        settings = {"beta1": self.beta1, "beta2": self.beta2, "eps": self.eps}
        if not spans:  # r = 1 everywhere: AdamW
            adamw = fused_adam(w, g, state, **settings, weight_decay=weight_decay, decoupled=True, lr=self.lr)
            return adamw or super().bind(w, g, state, weight_decay)
        kernel = fused("_fused_adam_", w, self.lr, *settings.values(), weight_decay)
        if kernel is None or w.device.type != "cpu" or w.dim() != 1:
            return super().bind(w, g, state, weight_decay, spans)
        number = torch.zeros(())
        runs = _runs(sizes(spans, len(w)))
        work = torch.empty(max(stop - start for start, stop, _ in runs), dtype=w.dtype)
        units = []
        for start, stop, lengths in runs:
            vectors = [v[start:stop] for v in (w, g, state["mean"], state["square"])]
            units.append(_Unit(kernel, number, settings, weight_decay, work[: stop - start], vectors, lengths))

        def run(lr: float, t: int, skip: Tensor | None) -> None:
            if skip is not None:
                self.step(w, g, state, lr, t, weight_decay, spans, skip)
                return
            number.fill_(t)
            for unit in units:
                unit.step(lr)

        return run


class _Unit:
    """A few small segments, or a large one, updated while they are in the cache."""

    def __init__(
        self,
        kernel: Callable[..., Any],
        number: Tensor,
        settings: dict[str, float],
        weight_decay: Number,
        u: Tensor,
        vectors: list[Tensor],
        lengths: list[int],
    ) -> None:
        self.segments = list(zip(vectors[0].split(lengths), u.split(lengths), strict=True))
        self.decay = weight_decay
        # u / λ = direction / λ + w: copying w is quicker than multiplying it, unless λ is too small to divide by
        self.scale = weight_decay if weight_decay > 1e-6 else 1.0
        self.blocks = []
        for u_block, w_block, g, mean, square in blocks(u, *vectors):
            call = bound_adam(
                kernel, u_block, g, mean, square, number, lr=-1.0 / self.scale, weight_decay=0.0, **settings
            )
            own = lengths if len(lengths) > 1 else [len(w_block)]  # small segments share one block
            parts = list(zip(w_block.split(own), u_block.split(own), strict=True))
            self.blocks.append((w_block, u_block, call, parts))

    def step(self, lr: float) -> None:
        """u = m̂ / (√v̂ + ε) + λ·w, or u / λ, and the norms, block by block; then w ← w − η·r·u for each segment."""
        squares = []
        for w, u, kernel, parts in self.blocks:
            if self.scale == self.decay:
                u.copy_(w)
            else:
                torch.mul(w, self.decay, out=u)
            kernel()
            squares += [(torch.dot(a, a).item(), torch.dot(b, b).item()) for a, b in parts]
        if len(self.segments) == 1:
            squares = [(sum(w2 for w2, _ in squares), sum(u2 for _, u2 in squares))]
        for (w, u), (w2, u2) in zip(self.segments, squares, strict=True):
            factor = math.sqrt(w2 / u2) if w2 > 0.0 and u2 > 0.0 else self.scale
            w.add_(u, alpha=-lr * factor)


def _runs(lengths: list[int]) -> list[tuple[int, int, list[int]]]:
    """(start, stop, lengths) of neighbouring segments: small ones together up to a block, large ones alone."""
    runs: list[tuple[int, int, list[int]]] = []
    for length in lengths:
        start, stop, own = runs[-1] if runs else (0, 0, [])
        if own and stop - start + length <= BLOCK:
            runs[-1] = (start, stop + length, [*own, length])
        else:
            runs.append((stop, stop + length, [length]))
    return runs
