"""RMSprop: the gradient divided by a running root mean square of itself."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from talweg.optimizers.kernels import BLOCK, blocks, bound_adam, fused
from talweg.optimizers.rule import Elementwise, Number, Spans, State, Step, add_scaled

# An update number so large that Adam's bias correction is exactly 1.
_LATE = 1e30


@dataclass(frozen=True, kw_only=True)
class RMSprop(Elementwise):
    """Every parameter moves about η a step, whatever the scale of its gradient.

    Formula: s ← α·s + (1 − α)·g²,    w ← w − η·g / (√s + ε)

    ε stands outside the root, as in torch (inside it in TensorFlow). s starts at 0 and is not corrected for that, so
    the first step is η·g / (√(1−α)·|g| + ε), ten times η at α = 0.99.

    State: square s, like w.

    Raises:
        UserError: a setting is out of range.

    Example:
        >>> rule, w = RMSprop(lr=0.1, alpha=0.99), torch.zeros(2)
        >>> rule.step(w, torch.tensor([-1e-3, -1e3]), rule.init(w), rule.lr, 1, weight_decay=0.0)
        >>> [round(x, 3) for x in w.tolist()]
        [1.0, 1.0]

    Source: T. Tieleman, G. Hinton, "Lecture 6.5: RMSprop", Coursera, 2012.
    """

    lr: float = 1e-3
    alpha: float = 0.99
    """α: the part of the average of g² that is kept"""
    eps: float = 1e-8
    """ε, added to the root: the smallest root that is divided by"""

    def init(self, w: Tensor) -> State:
        """{"square": zeros like w}."""
        return {"square": torch.zeros_like(w)}

    def formula(self, w: Tensor, g: Tensor, state: State, lr: Number, t: int) -> None:
        """The equations of the class."""
        square = state["square"].lerp_(g * g, 1.0 - self.alpha)
        add_scaled(w, g / square.sqrt().add_(self.eps), -lr)

    def bind(self, w: Tensor, g: Tensor, state: State, weight_decay: Number, spans: Spans = ()) -> Step:
        """torch's fused Adam with β1 = 0 and no bias correction is RMSprop; its first moment is a block of scratch."""
        name = "_fused_adam_" if self.decay == "l2" else "_fused_adamw_"
        kernel = fused(name, w, self.lr, self.alpha, self.eps, weight_decay)
        if kernel is None or w.device.type != "cpu" or w.dim() != 1:  # elsewhere the scratch would be as long as w
            return super().bind(w, g, state, weight_decay)
        scratch = torch.zeros(min(len(w), BLOCK), dtype=w.dtype)
        late = torch.tensor(_LATE)
        fixed = {"beta1": 0.0, "beta2": self.alpha, "eps": self.eps, "weight_decay": weight_decay}
        calls = [
            bound_adam(kernel, w, g, scratch[: len(w)], square, late, **fixed)
            for w, g, square in blocks(w, g, state["square"])
        ]

        def run(lr: float, t: int, skip: Tensor | None) -> None:
            for call in calls:
                call(lr=lr, found_inf=skip)

        return run
