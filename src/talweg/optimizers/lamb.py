"""LAMB: Adam with a trust ratio for every layer, for very large batches."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from talweg.optimizers.adam import adam_direction, fused_adam
from talweg.optimizers.kernels import BLOCK, blocks, fused
from talweg.optimizers.rule import Rule, Spans, State, Step, add_scaled
from talweg.optimizers.trust import Segments, norm, sizes


@dataclass(frozen=True, kw_only=True)
class LAMB(Rule):
    """Adam in which every layer moves by the fraction η of its own norm.

    Formula, for each segment (layer) with parameters w and gradient g, in the paper's form with φ(x) = x:

        m ← β1·m + (1 − β1)·g,    v ← β2·v + (1 − β2)·g²
        u = m̂ / (√v̂ + ε) + λ·w,   m̂ = m / (1 − β1ᵗ),  v̂ = v / (1 − β2ᵗ)
        w ← w − η·r·u,            r = ‖w‖ / ‖u‖,  1 if either is 0

    Where implementations differ: some clip the gradient first, clamp ‖w‖ or r, leave out the bias corrections or take λ·w
    out of the norm; this one does none of that (optax's is the same).

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
    adapt_all: bool = False
    """give biases and the scales of norms a trust ratio too"""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._only_decay("decoupled", "its decay is part of the trust ratio, leave decay out")

    def init(self, w: Tensor) -> State:
        """{"mean": zeros like w, "square": zeros like w}."""
        return {"mean": torch.zeros_like(w), "square": torch.zeros_like(w)}

    def adapts(self, decay: bool) -> bool:
        """Weights; biases and norms with `adapt_all`."""
        return decay or self.adapt_all

    def apply(
        self,
        w: Tensor,
        g: Tensor,
        state: State,
        lr: float | Tensor,
        t: int,
        weight_decay: float | Tensor,
        spans: Spans,
    ) -> None:
        """The equations of the class, for all segments at once."""
        u = adam_direction(g, state, t, self.beta1, self.beta2, self.eps)
        add_scaled(u, w, weight_decay)
        if spans:
            segments = Segments(spans, w)
            w_norm, u_norm = segments.norms(w), segments.norms(u)
            u.mul_(segments.spread(torch.where((w_norm > 0) & (u_norm > 0), w_norm / u_norm, 1.0)))
        add_scaled(w, u, -lr)

    def bind(self, w: Tensor, g: Tensor, state: State, weight_decay: float | Tensor, spans: Spans = ()) -> Step:
        """torch's fused Adam, with a work vector u = λ·w as its parameters and η = −1: it leaves u there."""
        settings = (self.beta1, self.beta2, self.eps)
        if not spans:  # r = 1 everywhere: AdamW
            run = fused_adam(w, g, state, *settings, weight_decay, decoupled=True, lr=self.lr)
            return run or super().bind(w, g, state, weight_decay)
        kernel = fused("_fused_adam_", w, self.lr, *settings, weight_decay)
        if kernel is None or w.device.type != "cpu" or w.dim() != 1:
            return super().bind(w, g, state, weight_decay, spans)
        number = torch.zeros(())
        fixed = {"lr": -1.0, "beta1": self.beta1, "beta2": self.beta2, "eps": self.eps, "weight_decay": 0.0}
        vectors = (w, g, state["mean"], state["square"])
        units = _units(sizes(spans, len(w)))
        work = torch.empty(max(stop - start for start, stop, _ in units), dtype=w.dtype)
        bound = []
        for start, stop, lengths in units:
            w_unit, *others = (v[start:stop] for v in vectors)
            u_unit = work[: stop - start]
            calls = []
            for w_block, u_block, *rest in blocks(w_unit, u_unit, *others):
                g_block, mean, square = rest
                call = partial(kernel, [u_block], [g_block], [mean], [square], [], [number], amsgrad=False, maximize=False, **fixed)
                own = lengths if len(lengths) > 1 else [len(w_block)]
                calls.append((w_block, u_block, call, list(zip(w_block.split(own), u_block.split(own), strict=True))))
            bound.append((calls, list(zip(w_unit.split(lengths), u_unit.split(lengths), strict=True))))

        def run(lr: float, t: int, skip: Tensor | None) -> None:
            if skip is not None:
                self.step(w, g, state, lr, t, weight_decay, spans, skip)
                return
            number.fill_(t)
            for calls, segments in bound:
                squares = []
                for w_block, u_block, call, parts in calls:
                    torch.mul(w_block, weight_decay, out=u_block)
                    call()
                    squares += [(torch.dot(a, a).item(), torch.dot(b, b).item()) for a, b in parts]
                if len(segments) == 1:
                    squares = [tuple(map(sum, zip(*squares)))]
                for (w_segment, u_segment), (w2, u2) in zip(segments, squares):
                    trust = math.sqrt(w2 / u2) if w2 > 0.0 and u2 > 0.0 else 1.0
                    w_segment.add_(u_segment, alpha=-lr * trust)

        return run


def _units(lengths: list[int]) -> list[tuple[int, int, list[int]]]:
    """(start, stop, lengths) of runs of neighbouring segments: small ones together up to a block, large ones alone."""
    units: list[tuple[int, int, list[int]]] = []
    for length in lengths:
        start, stop, own = units[-1] if units else (0, 0, [])
        if own and stop - start + length <= BLOCK:
            units[-1] = (start, stop + length, [*own, length])
        else:
            units.append((stop, stop + length, [length]))
    return units
