"""Lion: the sign of an average gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from talweg.optimizers.rule import Elementwise, Number, State, add_scaled


@dataclass(frozen=True, kw_only=True)
class Lion(Elementwise):
    """Every parameter moves by exactly η, up or down; half the memory of Adam.

    Formula:
        c = β1·m + (1 − β1)·g
        w ← w − η·sign(c)          (with decay: w ← w − η·(sign(c) + λ·w))
        m ← β2·m + (1 − β2)·g

    Use a learning rate 3 to 10 times smaller, and a weight decay as much larger, than AdamW's.

    State: mean m, like w.

    Raises:
        UserError: a setting is out of range.

    Example:
        >>> rule, w = Lion(lr=0.1), torch.zeros(3)
        >>> rule.step(w, torch.tensor([-1e-4, 0.0, 1e4]), rule.init(w), rule.lr, 1, weight_decay=0.0)
        >>> [round(x, 3) for x in w.tolist()]
        [0.1, 0.0, -0.1]

    Source: X. Chen et al., "Symbolic discovery of optimization algorithms", 2023, algorithm 2.
    """

    lr: float = 1e-4
    decay: Literal["decoupled", "l2"] = "decoupled"
    beta1: float = 0.9
    """β1: the weight of the average in the direction c"""
    beta2: float = 0.99
    """β2: the part of the average of g that is kept"""

    def init(self, w: Tensor) -> State:
        """{"mean": zeros like w}."""
        return {"mean": torch.zeros_like(w)}

    def formula(self, w: Tensor, g: Tensor, state: State, lr: Number, t: int) -> None:
        """The equations of the class."""
        mean = state["mean"]
        add_scaled(w, mean.lerp(g, 1.0 - self.beta1).sign_(), -lr)
        mean.lerp_(g, 1.0 - self.beta2)
