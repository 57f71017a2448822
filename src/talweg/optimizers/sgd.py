"""Gradient descent, with and without momentum."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from talweg.errors import UserError
from talweg.optimizers.kernels import fused, shrink_first
from talweg.optimizers.rule import Elementwise, Number, Spans, State, Step, add_scaled, is_zero


@dataclass(frozen=True, kw_only=True)
class GD(Elementwise):
    """Gradient descent: a step down the steepest slope, no memory.

    Formula: w ← w − η·g

    With a batch it is plain stochastic gradient descent. Converges on a quadratic when η < 2 / largest curvature.

    Example:
        >>> rule, w = GD(lr=0.5), torch.tensor([4.0])
        >>> for t in (1, 2, 3):  # J = w²/2, so ∇J = w: every step halves the distance
        ...     rule.step(w, w.clone(), {}, rule.lr, t, weight_decay=0.0)
        >>> w.tolist()
        [0.5]

    Source: A. Cauchy, "Méthode générale pour la résolution des systèmes d'équations simultanées", 1847.
    """

    lr: float = 0.1

    def formula(self, w: Tensor, g: Tensor, state: State, lr: Number, t: int) -> None:
        """w ← w − η·g."""
        add_scaled(w, g, -lr)


@dataclass(frozen=True, kw_only=True)
class SGD(Elementwise):
    """Stochastic gradient descent with momentum, in one of two forms that differ in what η means.

    Formula:
        form="heavy_ball":   v ← m·v + g,            w ← w − η·v      (the step grows to η·g / (1 − m))
        form="exponential":  v ← m·v + (1 − m)·g,    w ← w − η·v      (Δθ ← mΔθ + (1−m)∇J: the step stays η·g)
        nesterov=True:       w ← w − η·(m·v + g),    exponential: w ← w − η·(m·v + (1 − m)·g)

    v starts at 0 in both, so the first step is η·g in the heavy-ball form (as in torch) and η·(1−m)·g in the
    exponential form (torch's `dampening=m` differs: it leaves the first step undamped). Exponential with η is
    heavy-ball with (1−m)·η. In both, η stands outside of v, so a drop in the learning rate acts at once.

    State: velocity v, like w; none for momentum=0.

    Raises:
        UserError: a setting is out of range; nesterov or form="exponential" without momentum, where they do nothing.

    Example:
        >>> for rule in (SGD(lr=1, momentum=0.5), SGD(lr=1, momentum=0.5, form="exponential")):
        ...     w, g = torch.zeros(1), -torch.ones(1)
        ...     state, path = rule.init(w), []
        ...     for t in (1, 2, 3, 4):  # down a constant slope
        ...         rule.step(w, g, state, rule.lr, t, weight_decay=0.0)
        ...         path.append(w.item())
        ...     print(path)
        [1.0, 2.5, 4.25, 6.125]
        [0.5, 1.25, 2.125, 3.0625]

    Source: B. Polyak, "Some methods of speeding up the convergence of iteration methods", 1964; I. Sutskever et al.,
    "On the importance of initialization and momentum in deep learning", 2013 (Nesterov's form; v is one step ahead).
    """

    lr: float = 0.1
    momentum: float = 0.9
    """momentum m: the part of the last step that is kept (0: none)"""
    form: Literal["heavy_ball", "exponential"] = "heavy_ball"
    """heavy_ball sums the gradients (v = m·v + g), exponential averages them (v = m·v + (1−m)·g)"""
    nesterov: bool = False
    """look ahead: use the velocity that the next step would have"""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._choice("form", "heavy_ball", "exponential")
        if is_zero(self.momentum) and (self.nesterov or self.form != "heavy_ball"):
            setting = "nesterov=True" if self.nesterov else f"form={self.form!r}"
            raise UserError(f"{setting} has no effect with momentum=0: set a momentum such as 0.9, or leave it out")

    def init(self, w: Tensor) -> State:
        """{"velocity": zeros like w}, or nothing without momentum."""
        return {} if is_zero(self.momentum) else {"velocity": torch.zeros_like(w)}

    def formula(self, w: Tensor, g: Tensor, state: State, lr: Number, t: int) -> None:
        """The equations of the class."""
        m = self.momentum
        if not state:
            add_scaled(w, g, -lr)
            return
        v, share = state["velocity"], 1.0 if self.form == "heavy_ball" else 1.0 - m
        add_scaled(v.mul_(m), g, share)
        if self.nesterov:
            add_scaled(w, g, -lr * share)
            add_scaled(w, v, -lr * m)
        else:
            add_scaled(w, v, -lr)

    def bind(self, w: Tensor, g: Tensor, state: State, weight_decay: Number, spans: Spans = ()) -> Step:
        """torch's fused SGD; its dampening gives the exponential form, which it cannot combine with Nesterov."""
        exponential = self.form == "exponential"
        kernel = fused("_fused_sgd_", w, self.lr, self.momentum, weight_decay)
        if kernel is None or (exponential and self.nesterov):
            return super().bind(w, g, state, weight_decay)

        def call(w: Tensor, g: Tensor, *velocity: Tensor) -> Callable[..., Any]:
            return partial(
                kernel,
                [w],
                [g],
                list(velocity),
                weight_decay=weight_decay if self.decay == "l2" else 0.0,
                momentum=self.momentum,
                dampening=self.momentum if exponential else 0.0,
                nesterov=self.nesterov,
                maximize=False,
                is_first_step=False,  # v starts at 0, as in the formula
            )

        if self.decay == "decoupled" and not is_zero(weight_decay):
            return shrink_first(call, weight_decay, w, g, *state.values())
        run = call(w, g, *state.values())
        return lambda lr, t, skip: run(lr=lr, found_inf=skip)


@dataclass(frozen=True, kw_only=True)
class SGDW(SGD):
    """`SGD` with decoupled weight decay.

    Formula: w ← (1 − η·λ)·w, then SGD without decay.

    With momentum, a gradient term λ·w (l2) is summed up in v and acts like a decoupled decay of λ / (1 − m): the
    default here is about as strong as the common l2 decay of 1e-4 at momentum 0.9.

    Raises:
        UserError: a setting is out of range, or decay="l2", which is `SGD`.

    Example:
        >>> rule, w = SGDW(lr=0.1, weight_decay=0.5), torch.tensor([1.0])
        >>> rule.step(w, torch.zeros(1), rule.init(w), rule.lr, 1, rule.weight_decay)  # no gradient: decay alone
        >>> round(w.item(), 4)
        0.95

    Source: I. Loshchilov, F. Hutter, "Decoupled weight decay regularization", 2019, algorithm 1.
    """

    weight_decay: float = 1e-3
    decay: Literal["decoupled", "l2"] = "decoupled"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._only_decay("decoupled", "use sgd for l2")
