"""Adadelta: steps measured in the units of the parameters."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from talweg.optimizers.rule import Elementwise, Number, State, add_scaled


@dataclass(frozen=True, kw_only=True)
class Adadelta(Elementwise):
    """The step is as long as recent steps were: RMS(steps) / RMS(gradients) is the learning rate of each parameter.

    Formula:
        s ← ρ·s + (1 − ρ)·g²
        d = g·√((a + ε) / (s + ε))
        a ← ρ·a + (1 − ρ)·d²
        w ← w − η·d                (η = 1 in the paper)

    Both averages start at 0: the first step is η·√(ε / ((1−ρ)·g² + ε))·g, tiny, and the steps grow from there.

    State: square s and change a, like w.

    Raises:
        UserError: a setting is out of range.

    Example:
        >>> rule, w = Adadelta(), torch.zeros(1)
        >>> state, before, steps = rule.init(w), 0.0, []
        >>> for t in range(1, 4):  # down a constant slope: each step is longer than the last
        ...     rule.step(w, -torch.ones(1), state, rule.lr, t, weight_decay=0.0)
        ...     steps.append(round(1e3 * (w.item() - before), 2))
        ...     before = w.item()
        >>> steps
        [3.16, 3.24, 3.3]

    Source: M. Zeiler, "ADADELTA: an adaptive learning rate method", 2012, algorithm 1.
    """

    lr: float = 1.0
    rho: float = 0.9
    """ρ: the part of each average that is kept"""
    eps: float = 1e-6
    """ε, inside both roots: sets the length of the first steps"""

    def init(self, w: Tensor) -> State:
        """{"square": zeros like w, "change": zeros like w}."""
        return {"square": torch.zeros_like(w), "change": torch.zeros_like(w)}

    def formula(self, w: Tensor, g: Tensor, state: State, lr: Number, t: int) -> None:
        """The equations of the class, with one root of the quotient instead of two."""
        square, change = state["square"], state["change"]
        square.lerp_(g * g, 1.0 - self.rho)
        d = (change + self.eps).div_(square + self.eps).sqrt_().mul_(g)
        add_scaled(w, d, -lr)
        change.lerp_(d.square_(), 1.0 - self.rho)
