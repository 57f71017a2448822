"""What all update rules share: settings, state vectors, weight decay, and one step on a slice of θ."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Literal

import torch
from torch import Tensor

from talweg.errors import UserError, require, unknown
from talweg.optimizers.kernels import blocks
from talweg.optimizers.segments import Segments, Spans

State = dict[str, Tensor]
Number = float | Tensor  # of a setting: a tensor [K, 1] holds one value for each member of a population
# A rule bound to its slices: called with (learning rate, update number, skip).
Step = Callable[[float, int, Tensor | None], None]

# What each number may be, in whichever rule it is; a round bracket leaves its end out.
_INTERVALS = {
    "(0, inf)": ("lr", "eps", "trust_coefficient", "step_min", "step_max"),
    "[0, inf)": ("weight_decay",),
    "[0, 1)": ("momentum", "beta1", "beta2", "alpha", "rho"),
    "(0, 1)": ("shrink",),
    "(1, inf)": ("grow",),
}


@dataclass(frozen=True, kw_only=True)
class Rule(ABC):
    """An update rule θ ← θ − η·d(∇J): settings, and vector maths that knows nothing of modules or devices.

    A rule keeps no state of its own. `init` makes the state vectors, `step` is the formula on a slice of θ and works
    everywhere, `bind` returns the fastest equal of `step` for given slices. The same formula serves a population: w and
    g may be [K, n], and any number among the settings (and lr, weight_decay) a tensor [K, 1], one value a member.

    Weight decay λ comes in two forms (for LARS and LAMB it is part of the paper's formula, see there):

        "l2"         g ← ∇J + λ·w, then the rule: the gradient of J + λ/2·‖w‖²
        "decoupled"  w ← (1 − η·λ)·w, then the rule, which never sees the decay

    Both use the current learning rate η, schedule included. For gradient descent they are the same.

    Raises:
        UserError: a setting is out of its range, or has no effect beside the others.

    Source: I. Loshchilov, F. Hutter, "Decoupled weight decay regularization", 2019 (their λ is our η·λ).
    """

    lr: float
    """learning rate η, the peak of the schedule"""
    weight_decay: float = 0.0
    """weight decay λ of matrices and filters (biases and the scales of norms are not decayed)"""
    decay: Literal["decoupled", "l2"] = "l2"
    """how weights decay: l2 adds λ·w to the gradient, decoupled shrinks w by the factor 1 − lr·λ"""

    def __post_init__(self) -> None:
        for setting in fields(self):
            value = getattr(self, setting.name)
            for interval in (key for key, names in _INTERVALS.items() if setting.name in names):
                _within(setting.name, value, interval)
        self._choice("decay", "decoupled", "l2")

    def init(self, w: Tensor) -> State:
        """The state vectors that belong to w [..., n], by name, each shaped like w; none for a rule without memory."""
        return {}

    def adapts(self, decay: bool) -> bool:
        """Whether segments (decayed: weights; else biases and norms) get a trust ratio each, and need `spans`."""
        return False

    def step(
        self,
        w: Tensor,
        g: Tensor,
        state: State,
        lr: Number,
        t: int,
        weight_decay: Number,
        spans: Spans = (),
        skip: Tensor | None = None,
    ) -> None:
        """One update of w and the state, in place; g is not changed.

        Args:
            w: [..., n], parameters. Entries with w = g = 0 (the gaps between segments) stay 0.
            g: [..., n], their gradient.
            state: what `init(w)` made, or slices of it.
            lr: the learning rate of this update, schedule and group multiplier included.
            t: the number of this update, 1 for the first.
            weight_decay: λ for these parameters.
            spans: (start, stop) of each segment in the slice, where `adapts`; empty: no segment is adapted.
            skip: a 0-d tensor; 1 leaves everything as it is, without the host knowing (non-finite loss on a GPU).
        """
        self._run(w, g, state, lr, t, weight_decay, Segments(spans, w) if spans else None, skip)

    def bind(self, w: Tensor, g: Tensor, state: State, weight_decay: Number, spans: Spans = ()) -> Step:
        """`step` for these slices as a function (lr, t, skip): everything that can be decided once is decided here."""
        segments = Segments(spans, w) if spans else None
        return lambda lr, t, skip: self._run(w, g, state, lr, t, weight_decay, segments, skip)

    @abstractmethod
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
        """The formula with weight decay, in place; `segments` to be given a trust ratio each, or None."""

    def _run(
        self,
        w: Tensor,
        g: Tensor,
        state: State,
        lr: Number,
        t: int,
        weight_decay: Number,
        segments: Segments | None,
        skip: Tensor | None,
    ) -> None:
        if skip is None:
            self.apply(w, g, state, lr, t, weight_decay, segments)
            return
        vectors = [w, *state.values()]
        before = [v.clone() for v in vectors]
        self.apply(w, g, state, lr, t, weight_decay, segments)
        for now, old in zip(vectors, before, strict=True):
            now.copy_(torch.where(skip > 0, old, now))

    def _choice(self, setting: str, *allowed: str) -> None:
        value = getattr(self, setting)
        if value not in allowed:
            raise unknown(setting, value, allowed)

    def _only_decay(self, form: str, why: str) -> None:
        if self.decay != form:
            raise UserError(f"decay={self.decay!r} does not go with {type(self).__name__}: {why}")


class Elementwise(Rule):
    """A rule in which every parameter is updated on its own; a subclass writes `formula` and its state."""

    @abstractmethod
    def formula(self, w: Tensor, g: Tensor, state: State, lr: Number, t: int) -> None:
        """The rule in place, without weight decay; must not change g."""

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
        """Weight decay in the form of `decay`, then `formula`."""
        if not is_zero(weight_decay):
            if self.decay == "decoupled":
                w.mul_(1.0 - lr * weight_decay)
            else:
                g = g + w * weight_decay if isinstance(weight_decay, Tensor) else g.add(w, alpha=weight_decay)
        self.formula(w, g, state, lr, t)

    def bind(self, w: Tensor, g: Tensor, state: State, weight_decay: Number, spans: Spans = ()) -> Step:
        """`step`, block by block: all operations of the formula on a block that stays in the cache, then the next."""
        parts = [(b[0], b[1], dict(zip(state, b[2:], strict=True))) for b in blocks(w, g, *state.values())]

        def run(lr: float, t: int, skip: Tensor | None) -> None:
            for w, g, state in parts:
                self._run(w, g, state, lr, t, weight_decay, None, skip)

        return run


@dataclass(frozen=True, kw_only=True)
class LayerWise(Rule):
    """A rule that gives each layer, a segment of θ, a learning rate of its own.

    Segments that are not decayed (biases, the scales of norms) are not adapted, as is usual; with `adapt_all` they are.
    """

    adapt_all: bool = False
    """give biases and the scales of norms a trust ratio too"""

    def adapts(self, decay: bool) -> bool:
        """Weights; biases and norms with `adapt_all`."""
        return decay or self.adapt_all


def add_scaled(x: Tensor, y: Tensor, scale: Number) -> Tensor:
    """x ← x + scale·y in place: one operation for a number, and for a tensor [K, 1] one value a member."""
    return x.add_(y * scale) if isinstance(scale, Tensor) else x.add_(y, alpha=scale)


def is_zero(value: float | Tensor) -> bool:
    """Whether a setting is the number 0; a tensor of settings never counts as 0 (and is not looked into)."""
    return not isinstance(value, Tensor) and value == 0


def _within(setting: str, value: Any, interval: str) -> None:
    low, high = (float(end) for end in interval[1:-1].split(", "))
    below = "of at least" if interval[0] == "[" else "above"
    words = f"a number {below} {low:g}" + ("" if high == float("inf") else f" and below {high:g}")
    if isinstance(value, Tensor):
        inside = (value >= low if interval[0] == "[" else value > low) & (value < high)
        require(bool(inside.all()), setting, value.tolist(), words)
    else:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        require(
            number and (value > low or (interval[0] == "[" and value == low)) and value < high, setting, value, words
        )
