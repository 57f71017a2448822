"""Adam and AdamW: momentum divided by a running root mean square, both corrected for their start at 0."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from talweg.optimizers.kernels import bound_adam, fused
from talweg.optimizers.rule import Elementwise, Number, Spans, State, Step, add_scaled


@dataclass(frozen=True, kw_only=True)
class Adam(Elementwise):
    """Every parameter moves at most about η a step, in the direction of its average gradient.

    Formula, with t = 1 for the first update:
        m ← β1·m + (1 − β1)·g
        v ← β2·v + (1 − β2)·g²
        w ← w − η·m̂ / (√v̂ + ε),    m̂ = m / (1 − β1ᵗ),  v̂ = v / (1 − β2ᵗ)

    The first step is η·g / (|g| + ε), the sign of the gradient.

    State: mean m and square v, like w.

    Raises:
        UserError: a setting is out of range.

    Example:
        >>> rule, w = Adam(lr=0.1), torch.zeros(3)
        >>> rule.step(w, torch.tensor([-1e-4, 0.0, 1e4]), rule.init(w), rule.lr, 1, weight_decay=0.0)
        >>> [round(x, 3) for x in w.tolist()]
        [0.1, 0.0, -0.1]

    Source: D. Kingma, J. Ba, "Adam: a method for stochastic optimization", 2015, algorithm 1.
    """

    lr: float = 1e-3
    beta1: float = 0.9
    """β1: the part of the average of g that is kept"""
    beta2: float = 0.999
    """β2: the part of the average of g² that is kept"""
    eps: float = 1e-8
    """ε, added to the root: the smallest root that is divided by"""

    def init(self, w: Tensor) -> State:
        """{"mean": zeros like w, "square": zeros like w}."""
        return {"mean": torch.zeros_like(w), "square": torch.zeros_like(w)}

    def formula(self, w: Tensor, g: Tensor, state: State, lr: Number, t: int) -> None:
        """The equations of the class."""
        add_scaled(w, adam_direction(g, state, t, self.beta1, self.beta2, self.eps), -lr)

    def bind(self, w: Tensor, g: Tensor, state: State, weight_decay: Number, spans: Spans = ()) -> Step:
        """torch's fused Adam or AdamW."""
        settings = (self.beta1, self.beta2, self.eps, weight_decay)
        run = fused_adam(w, g, state, *settings, decoupled=self.decay == "decoupled", lr=self.lr)
        return run or super().bind(w, g, state, weight_decay)


@dataclass(frozen=True, kw_only=True)
class AdamW(Adam):
    """`Adam` with decoupled weight decay.

    Formula: w ← (1 − η·λ)·w, then Adam without decay.

    Raises:
        UserError: a setting is out of range, or decay="l2", which is `Adam`.

    Example:
        >>> w, g = torch.tensor([1.0]), torch.tensor([1e-3])
        >>> for rule in (AdamW(lr=0.1, weight_decay=0.5), Adam(lr=0.1, weight_decay=0.5)):
        ...     now = w.clone()
        ...     rule.step(now, g, rule.init(now), rule.lr, 1, rule.weight_decay)
        ...     print(round(now.item(), 3))  # Adam normalises an l2 decay away
        0.85
        0.9

    Source: I. Loshchilov, F. Hutter, "Decoupled weight decay regularization", 2019, algorithm 2.
    """

    weight_decay: float = 0.01
    decay: Literal["decoupled", "l2"] = "decoupled"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._only_decay("decoupled", "use adam for l2")


def adam_direction(g: Tensor, state: State, t: int, beta1: Number, beta2: Number, eps: Number) -> Tensor:
    """Updates the two averages and returns m̂ / (√v̂ + ε), shaped like g."""
    mean = state["mean"].lerp_(g, 1.0 - beta1)
    square = state["square"].lerp_(g * g, 1.0 - beta2)
    root = (square / (1.0 - beta2**t)).sqrt_().add_(eps)
    return (mean / (1.0 - beta1**t)).div_(root)


def fused_adam(
    w: Tensor,
    g: Tensor,
    state: State,
    beta1: Number,
    beta2: Number,
    eps: Number,
    weight_decay: Number,
    *,
    decoupled: bool,
    lr: Number,
) -> Step | None:
    """torch's fused kernel as a function (lr, t, skip); None where there is none for w or these settings."""
    name = "_fused_adamw_" if decoupled else "_fused_adam_"
    kernel = fused(name, w, lr, beta1, beta2, eps, weight_decay)
    if kernel is None:
        return None
    number = torch.zeros((), device=w.device)
    call = bound_adam(
        kernel,
        w,
        g,
        state["mean"],
        state["square"],
        number,
        beta1=beta1,
        beta2=beta2,
        eps=eps,
        weight_decay=weight_decay,
    )

    def run(lr: float, t: int, skip: Tensor | None) -> None:
        number.fill_(t)
        call(lr=lr, found_inf=skip)

    return run
