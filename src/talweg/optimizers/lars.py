"""LARS: layer-wise adaptive rate scaling, for SGD with very large batches."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from talweg.optimizers.kernels import fused
from talweg.optimizers.rule import LayerWise, Number, State, Step, add_scaled, is_zero
from talweg.optimizers.segments import Segments, Spans, norm, sizes


@dataclass(frozen=True, kw_only=True)
class LARS(LayerWise):
    """Momentum SGD in which every layer moves by the same fraction of its own norm.

    Formula, for each segment (layer) with parameters w and gradient g, in the paper's form, ‖g‖ + λ‖w‖:

        r = trust_coefficient · ‖w‖ / (‖g‖ + λ·‖w‖),    1 if ‖w‖ or ‖g‖ is 0
        v ← m·v + r·(g + λ·w)
        w ← w − η·v

    Where implementations differ: some divide by ‖g + λ·w‖ (optax), some add an ε to the denominator. The paper has the
    learning rate inside of v (v ← m·v + η·r·(g + λ·w), w ← w − v), which is the same while η is constant; outside, as
    in all common implementations, a change of η acts at once.

    Weight decay λ is a part of the formula above, an l2 decay that the ratio knows of; decoupled is refused.

    Segments that are not decayed (biases, the scales of norms) are not adapted: r = 1, λ = 0, as is usual. With
    `adapt_all` they are, as in the paper's algorithm.

    State: velocity v, like w.

    Raises:
        UserError: a setting is out of range, or decay="decoupled".

    Example:
        >>> rule, w = LARS(lr=1.0, momentum=0.0, trust_coefficient=0.1), torch.tensor([1.0, 100.0])
        >>> g = torch.tensor([1e-3, -1e3])  # two layers of one weight: gradients of any scale move each by 10 %
        >>> rule.step(w, g, rule.init(w), rule.lr, 1, 0.0, spans=((0, 1), (1, 2)))
        >>> [round(x, 4) for x in w.tolist()]
        [0.9, 110.0]

    Source: Y. You, I. Gitman, B. Ginsburg, "Large batch training of convolutional networks", 2017, algorithm 1.
    """

    lr: float = 1.0
    decay: Literal["decoupled", "l2"] = "l2"
    momentum: float = 0.9
    """momentum m: the part of the last step that is kept (0: none)"""
    trust_coefficient: float = 0.001
    """fraction of its norm by which a layer moves in an update, at lr = 1"""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._only_decay("l2", "its decay is part of the trust ratio, leave decay out")

    def init(self, w: Tensor) -> State:
        """{"velocity": zeros like w}, or nothing without momentum."""
        return {} if is_zero(self.momentum) else {"velocity": torch.zeros_like(w)}

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
        push = g + w * weight_decay
        if segments is not None:
            w_norm, g_norm = segments.norms(w), segments.norms(g)
            trust = self.trust_coefficient * w_norm / (g_norm + weight_decay * w_norm)
            push.mul_(segments.spread(torch.where((w_norm > 0) & (g_norm > 0), trust, 1.0)))
        if state:
            push = state["velocity"].mul_(self.momentum).add_(push)
        add_scaled(w, push, -lr)

    def bind(self, w: Tensor, g: Tensor, state: State, weight_decay: Number, spans: Spans = ()) -> Step:
        """torch's fused SGD on each segment; the kernel's (1 − dampening), a factor on the gradient, is the ratio r."""
        kernel = fused("_fused_sgd_", w, self.lr, self.momentum, weight_decay)
        if kernel is None or w.device.type != "cpu" or w.dim() != 1:
            return super().bind(w, g, state, weight_decay, spans)
        lengths = sizes(spans, len(w)) if spans else [len(w)]
        vectors = [v.split(lengths) for v in (w, g, *state.values())]
        settings = {"weight_decay": weight_decay, "nesterov": False, "maximize": False, "is_first_step": False}
        calls = [
            (w, g, partial(kernel, [w], [g], velocity, momentum=self.momentum, **settings))
            for w, g, *velocity in zip(*vectors, strict=True)
        ]

        def run(lr: float, t: int, skip: Tensor | None) -> None:
            for w, g, call in calls:
                trust: Number = 1.0
                if spans:
                    w_norm, g_norm = norm(w), norm(g)
                    if w_norm > 0.0 and g_norm > 0.0:
                        trust = self.trust_coefficient * w_norm / (g_norm + weight_decay * w_norm)
                if state:
                    call(lr=lr, dampening=1.0 - trust, found_inf=skip)
                else:
                    call(lr=lr * trust, dampening=0.0, found_inf=skip)

        return run
