"""Adagrad: a learning rate for every parameter, from the sum of its squared gradients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from talweg.optimizers.kernels import fused, shrink_first
from talweg.optimizers.rule import Elementwise, Number, Spans, State, Step, add_scaled, is_zero


@dataclass(frozen=True, kw_only=True)
class Adagrad(Elementwise):
    """Steps shrink like 1/√t, slower for parameters whose gradients are rare or small.

    Formula: s ← s + g²,    w ← w − η·g / (√s + ε)

    The sum starts at 0, so the first step is η·sign(g) whatever the scale of the loss.

    State: sum s, like w.

    Raises:
        UserError: a setting is out of range.

    Example:
        >>> rule, w = Adagrad(lr=1.0), torch.zeros(2)
        >>> state = rule.init(w)
        >>> for t in (1, 2, 3, 4):  # one gradient 1000 times the other: the path is the same, Σ 1/√t
        ...     rule.step(w, torch.tensor([-1.0, -1000.0]), state, rule.lr, t, weight_decay=0.0)
        >>> [round(x, 3) for x in w.tolist()]
        [2.784, 2.784]

    Source: J. Duchi, E. Hazan, Y. Singer, "Adaptive subgradient methods", 2011.
    """

    lr: float = 0.01
    eps: float = 1e-10
    """ε, added to the root: the smallest root that is divided by"""

    def init(self, w: Tensor) -> State:
        """{"sum": zeros like w}."""
        return {"sum": torch.zeros_like(w)}

    def formula(self, w: Tensor, g: Tensor, state: State, lr: Number, t: int) -> None:
        """The equations of the class."""
        total = state["sum"].addcmul_(g, g)
        add_scaled(w, g / total.sqrt().add_(self.eps), -lr)

    def bind(self, w: Tensor, g: Tensor, state: State, weight_decay: Number, spans: Spans = ()) -> Step:
        """torch's fused Adagrad."""
        kernel = fused("_fused_adagrad_", w, self.lr, self.eps, weight_decay)
        if kernel is None:
            return super().bind(w, g, state, weight_decay)
        first = [torch.ones((), device=w.device)]  # the kernel's own decay of the learning rate is off

        def call(w: Tensor, g: Tensor, total: Tensor) -> Callable[..., Any]:
            decay = weight_decay if self.decay == "l2" else 0.0
            return partial(
                kernel, [w], [g], [total], first, lr_decay=0.0, weight_decay=decay, eps=self.eps, maximize=False
            )

        if self.decay == "decoupled" and not is_zero(weight_decay):
            return shrink_first(call, weight_decay, w, g, state["sum"])
        run = call(w, g, state["sum"])
        return lambda lr, t, skip: run(lr=lr, found_inf=skip)
