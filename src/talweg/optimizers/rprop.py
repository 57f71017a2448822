"""Rprop: steps from the signs of the gradient alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from talweg.errors import UserError
from talweg.optimizers.rule import Elementwise, Number, State, add_scaled


@dataclass(frozen=True, kw_only=True)
class Rprop(Elementwise):
    """A step size for every parameter: longer while its gradient keeps its sign, shorter when the sign changes.

    For the gradient of the whole data set: the noise of small batches changes signs at random.

    Formula, elementwise, with p the sign kept from the last update, a = sign(g)·p, and Δ from η on:

        Δ ← clamp(Δ·(grow if a > 0, shrink if a < 0, 1 if a = 0), step_min, step_max)

        variant="irprop-":   p ← sign(g) if a ≥ 0 else 0,    w ← w − Δ·p
                             (after a change of sign, rest for one update; torch's variant)
        variant="rprop+":    if a ≥ 0:  p ← sign(g),  u ← −Δ·p;   if a < 0:  p ← 0,  u ← −u;    w ← w + u
                             (after a change of sign, take the last step back; the paper of 1993)

    The learning rate scales all steps: Δ is kept as a multiple s of `lr`, so that Δ = η·s with the current η, and a
    constant schedule gives the equations above exactly.

    State: sign p and scale s (and change u in rprop+), like w; s starts at 1.

    Raises:
        UserError: a setting is out of range, or lr is not between step_min and step_max.

    Example:
        >>> rule, w = Rprop(lr=0.1), torch.zeros(1)
        >>> state, path = rule.init(w), []
        >>> for t in range(1, 7):  # a valley with its bottom at 0.5
        ...     rule.step(w, w - 0.5, state, rule.lr, t, weight_decay=0.0)
        ...     path.append(round(w.item(), 3))
        >>> path  # 0.1, 0.12, 0.144, 0.1728 ahead, a rest past the bottom, then half as far back
        [0.1, 0.22, 0.364, 0.537, 0.537, 0.45]

    Source: M. Riedmiller, H. Braun, "A direct adaptive method for faster backpropagation learning: the RPROP
    algorithm", 1993; C. Igel, M. Hüsken, "Improving the Rprop learning algorithm", 2000 (names the variants).
    """

    lr: float = 0.01
    variant: Literal["irprop-", "rprop+"] = "irprop-"
    """what follows a change of sign: irprop- rests for one update, rprop+ takes the last step back"""
    grow: float = 1.2
    """factor on a step size whose gradient kept its sign"""
    shrink: float = 0.5
    """factor on a step size whose gradient changed its sign"""
    step_min: float = 1e-6
    """shortest step at the full learning rate"""
    step_max: float = 50.0
    """longest step at the full learning rate"""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._choice("variant", "irprop-", "rprop+")
        inside = (self.lr >= self.step_min) & (self.lr <= self.step_max)
        if not (bool(inside.all()) if isinstance(inside, Tensor) else inside):
            raise UserError(
                f"lr={self.lr!r}, the first step, must lie between step_min={self.step_min!r} and "
                f"step_max={self.step_max!r}: change one of them"
            )

    def init(self, w: Tensor) -> State:
        """{"sign": zeros, "scale": ones}, and {"change": zeros} for rprop+, like w."""
        state = {"sign": torch.zeros_like(w), "scale": torch.ones_like(w)}
        return state if self.variant == "irprop-" else {**state, "change": torch.zeros_like(w)}

    def formula(self, w: Tensor, g: Tensor, state: State, lr: Number, t: int) -> None:
        """The equations of the class as arithmetic on signs, which is several times faster than masks."""
        p, scale = state["sign"], state["scale"]
        sign = g.sign()
        agree = sign * p
        changed = agree.clamp(max=0.0)  # −1 where the sign changed, else 0
        factor = agree.clamp_(min=0.0).mul_(self.grow - 1.0)
        add_scaled(factor, changed, 1.0 - self.shrink)
        scale.addcmul_(scale, factor).clamp_(self.step_min / self.lr, self.step_max / self.lr)
        torch.addcmul(sign, sign, changed, out=p)
        step = torch.mul(p, scale, out=factor)
        if self.variant == "irprop-":
            add_scaled(w, step, -lr)
        else:
            w.add_(add_scaled(state["change"].mul_(changed), step, -lr))
