"""The learning rate as a pure function of progress.

A schedule is called with progress p ∈ [0, 1] and returns the factor, in [0, 1], that multiplies the peak learning rate.
Nothing steps it and it keeps no state: update k of N (k = 0 … N−1) uses `schedule(k / N)`, on any number of devices and
after any resume. Progress outside [0, 1] is an error, so that a step or epoch number cannot be passed by mistake.

Every schedule has a warm-up, off by default, and a main curve c(u) with c(0) = 1 on the span that remains:

    s(p) = r(p / w)               while p < w,    r: from `warmup_start` to 1, linear or half a cosine
    s(p) = c((p − w) / (1 − w))   from p = w on,  w = `warmup`

So the peak is always reached, at p = w, and the warm-up compresses the main curve instead of cutting into it. The first
update uses s(0) = `warmup_start` > 0: a factor of 0 would waste it. The last one uses s(1 − 1/N), just before s(1).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from bisect import bisect_right
from dataclasses import dataclass, fields
from typing import Any, Literal

from talweg.errors import UserError, require

_ROUNDING = 1e-12  # a jump that falls on k/N must not come one update late because k/N was rounded
_INTERVALS = {  # what each setting may be, in whichever schedule it is; a round bracket leaves its end out
    "warmup": "[0, 1)",
    "warmup_start": "(0, 1]",
    "end": "[0, 1)",
    "rate": "(0, inf)",
    "cooldown": "(0, inf)",
    "gamma": "(0, 1)",
    "drops": "[1, 100]",
    "cycles": "[1, 100]",
    "t_mult": "[1, 10]",
    "power": "(0, inf)",
}


@dataclass(frozen=True, kw_only=True)
class Schedule(ABC):
    """What all schedules share: the warm-up before the main curve (the formula is at the top of this file).

    A setting out of range, a warm-up setting without a warm-up, and progress outside [0, 1] raise `UserError`.

    Example:
        >>> schedule = Linear(warmup=0.2, warmup_start=0.1)
        >>> [round(schedule(k / 10), 3) for k in range(10)]  # ten updates: the third is the peak
        [0.1, 0.55, 1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125]

    Source: P. Goyal et al., "Accurate, large minibatch SGD: training ImageNet in 1 hour", 2017 (gradual warm-up).
    """

    warmup: float = 0.0
    """fraction of the training, before the main curve, in which the factor rises to 1"""
    warmup_shape: Literal["linear", "cosine"] = "linear"
    """how the factor rises: a straight line, or half a cosine (flat at both ends)"""
    warmup_start: float = 0.01
    """factor of the first update of the warm-up; above 0, so that this update counts"""

    def __post_init__(self) -> None:
        for setting in fields(self):
            if setting.name in _INTERVALS:
                _within(setting.name, getattr(self, setting.name), _INTERVALS[setting.name], setting.type == "int")
        require(self.warmup_shape in ("linear", "cosine"), "warmup_shape", self.warmup_shape, "'linear' or 'cosine'")
        for name in ("warmup_shape", "warmup_start"):
            if self.warmup == 0 and getattr(self, name) != getattr(type(self), name):
                raise UserError(f"{name}={getattr(self, name)!r} has no effect without a warm-up: set warmup too")

    def __call__(self, progress: float) -> float:
        """The factor on the peak learning rate at `progress` ∈ [0, 1]."""
        if not 0.0 <= progress <= 1.0:
            raise UserError(f"progress must be the fraction of the training done, in [0, 1], received {progress!r}")
        warmup = self.warmup
        if progress >= warmup:
            return self.curve((progress - warmup) / (1.0 - warmup))
        done = progress / warmup
        rise = 1.0 - _half_cosine(done) if self.warmup_shape == "cosine" else done
        return self.warmup_start + (1.0 - self.warmup_start) * rise

    @abstractmethod
    def curve(self, u: float) -> float:
        """The main curve at u ∈ [0, 1], the progress of what follows the warm-up; c(0) = 1."""


@dataclass(frozen=True, kw_only=True)
class Constant(Schedule):
    """The peak learning rate throughout: c(u) = 1. Ends at 1.

    Example:
        >>> Constant(warmup=0.5)(0.25), Constant(warmup=0.5)(0.5), Constant()(0.9)
        (0.505, 1.0, 1.0)

    Source: H. Robbins, S. Monro, "A stochastic approximation method", 1951, on why noise asks for less than this.
    """

    def curve(self, u: float) -> float:
        return 1.0


@dataclass(frozen=True, kw_only=True)
class TimeBased(Schedule):
    """Falls as one over time: c(u) = 1 / (1 + rate·u). Ends at 1 / (1 + rate).

    Example:
        >>> [round(TimeBased(rate=9)(p), 2) for p in (0, 0.25, 0.5, 0.75, 1)]  # fast at first, then nearly flat
        [1.0, 0.31, 0.18, 0.13, 0.1]

    Source: L. Bottou, "Stochastic gradient descent tricks", 2012 (η₀ / (1 + η₀λt)).
    """

    rate: float = 9.0
    """how strongly it falls: the factor ends at 1 / (1 + rate)"""

    def curve(self, u: float) -> float:
        return 1.0 / (1.0 + self.rate * u)


@dataclass(frozen=True, kw_only=True)
class Step(Schedule):
    """Plateaus of equal length, each γ times the one before: c(u) = γ^⌊(drops + 1)·u⌋. Ends at γ^drops.

    Example:
        >>> schedule = Step(drops=2, gamma=0.1)  # three plateaus: 90 epochs, divided by 10 at epochs 30 and 60
        >>> [round(schedule(epoch / 90), 3) for epoch in (0, 29, 30, 59, 60, 89)]
        [1.0, 1.0, 0.1, 0.1, 0.01, 0.01]

    Source: A. Krizhevsky et al., "ImageNet classification with deep convolutional neural networks", 2012.
    """

    drops: int = 2
    """number of drops, evenly spaced after the warm-up"""
    gamma: float = 0.1
    """what each drop multiplies the learning rate by"""

    def curve(self, u: float) -> float:
        return self.gamma ** min(int((self.drops + 1) * u + _ROUNDING), self.drops)


@dataclass(frozen=True, kw_only=True)
class MultiStep(Schedule):
    """Drops by γ at given times: s(p) = γ^#{m ≤ p}; a warm-up does not move them. Ends at γ^(number of milestones).

    Example:
        >>> schedule = MultiStep(milestones=(0.5, 0.75))  # the paper's 32k and 48k of 64k updates
        >>> [round(schedule(k / 64), 3) for k in (0, 31, 32, 47, 48, 63)]
        [1.0, 1.0, 0.1, 0.1, 0.01, 0.01]

    Source: K. He, X. Zhang, S. Ren, J. Sun, "Deep residual learning for image recognition", 2015 (CIFAR-10).
    """

    milestones: tuple[float, ...] = (0.5, 0.75)
    """fractions of the whole training at which the learning rate drops, rising"""
    gamma: float = 0.1
    """what each drop multiplies the learning rate by"""

    def __post_init__(self) -> None:
        super().__post_init__()
        listed = isinstance(self.milestones, tuple | list) and len(self.milestones) > 0
        require(listed, "milestones", self.milestones, "a list of rising fractions of the training")
        object.__setattr__(self, "milestones", tuple(self.milestones))  # TOML has lists; a frozen setting is hashable
        for before, milestone in zip((self.warmup, *self.milestones), self.milestones, strict=False):
            _within("each milestone (rising, after the warm-up)", milestone, f"({before}, 1)")

    def curve(self, u: float) -> float:
        progress = self.warmup + (1.0 - self.warmup) * u
        return self.gamma ** bisect_right(self.milestones, progress + _ROUNDING)


@dataclass(frozen=True, kw_only=True)
class Exponential(Schedule):
    """Falls by the same ratio in equal times: c(u) = end^u. Ends at `end`.

    Example:
        >>> [round(Exponential(end=0.0001)(p), 4) for p in (0, 0.25, 0.5, 0.75, 1)]  # ten times less in each quarter
        [1.0, 0.1, 0.01, 0.001, 0.0001]

    Source: A. Senior, G. Heigold, M. Ranzato, K. Yang, "An empirical study of learning rates in deep neural networks
    for speech recognition", 2013. One epoch of E multiplies by end^(1/E), the γ of `ExponentialLR`.
    """

    end: float = 0.01
    """factor at the end of the training"""

    def __post_init__(self) -> None:
        super().__post_init__()
        _within("end", self.end, "(0, 1)")

    def curve(self, u: float) -> float:
        return float(self.end**u)


@dataclass(frozen=True, kw_only=True)
class Cosine(Schedule):
    """Half a cosine, flat at both ends: c(u) = end + (1 − end)·(1 + cos πu)/2. Ends at `end`.

    Example:
        >>> [round(Cosine()(p), 3) for p in (0, 0.25, 0.5, 0.75, 1)]
        [1.0, 0.854, 0.5, 0.146, 0.0]
        >>> round(sum(Cosine()(k / 100) for k in range(100)) / 100, 3)  # its mean is that of a straight line
        0.505

    Source: I. Loshchilov, F. Hutter, "SGDR: stochastic gradient descent with warm restarts", 2017 (one cycle of it).
    """

    end: float = 0.0
    """factor at the end of the training"""

    def curve(self, u: float) -> float:
        return self.end + (1.0 - self.end) * _half_cosine(u)


@dataclass(frozen=True, kw_only=True)
class CosineRestarts(Schedule):
    """Cosine cycles, each from the peak, each T_mult times as long as the one before. Ends at `end`.

    Formula: with x = u·(1 + m + … + mⁿ⁻¹), m = t_mult and n = cycles, cycle i covers x from Tᵢ = 1 + … + mⁱ⁻¹ to
    Tᵢ + mⁱ, and c(u) = end + (1 − end)·(1 + cos(π(x − Tᵢ)/mⁱ))/2. Just before a restart the weights are near a minimum.

    Example:
        >>> schedule = CosineRestarts(cycles=3, t_mult=2)  # lengths 1 : 2 : 4, so restarts at 1/7 and 3/7
        >>> [round(schedule(k / 14), 2) for k in range(15)]
        [1.0, 0.5, 1.0, 0.85, 0.5, 0.15, 1.0, 0.96, 0.85, 0.69, 0.5, 0.31, 0.15, 0.04, 0.0]

    Source: I. Loshchilov, F. Hutter, "SGDR: stochastic gradient descent with warm restarts", 2017.
    """

    cycles: int = 3
    """number of cycles"""
    t_mult: float = 2.0
    """length of a cycle relative to the one before it, 1 or more"""
    end: float = 0.0
    """factor at the end of each cycle"""

    def curve(self, u: float) -> float:
        x = u * sum(self.t_mult**i for i in range(self.cycles))
        length = 1.0
        for _ in range(self.cycles - 1):
            if x >= length - _ROUNDING:
                x, length = x - length, length * self.t_mult
        return self.end + (1.0 - self.end) * _half_cosine(x / length)


@dataclass(frozen=True, kw_only=True)
class Linear(Schedule):
    """A straight line: c(u) = end + (1 − end)·(1 − u). Ends at `end`.

    Example:
        >>> [Linear()(p) for p in (0, 0.25, 0.5, 1)]
        [1.0, 0.75, 0.5, 0.0]

    Source: A. Defazio et al., "When, why and how much? Adaptive learning rate scheduling by refinement", 2023.
    """

    end: float = 0.0
    """factor at the end of the training"""

    def curve(self, u: float) -> float:
        return self.end + (1.0 - self.end) * (1.0 - u)


@dataclass(frozen=True, kw_only=True)
class InverseSqrt(Schedule):
    """Falls as one over the square root of time: s(p) = √(w / p) from the warm-up on. Ends at √w.

    Example:
        >>> schedule = InverseSqrt(warmup=0.04)
        >>> [round(schedule(p), 3) for p in (0.04, 0.16, 0.36, 1)]  # 4 times as late, half as large; never 0
        [1.0, 0.5, 0.333, 0.2]

    Source: A. Vaswani et al., "Attention is all you need", 2017.
    """

    warmup: float = 0.1
    """fraction of the training, before the main curve, in which the factor rises to 1"""

    def __post_init__(self) -> None:
        super().__post_init__()
        _within("warmup of an inverse square root schedule", self.warmup, "(0, 1)")

    def curve(self, u: float) -> float:
        return math.sqrt(self.warmup / (self.warmup + (1.0 - self.warmup) * u))


@dataclass(frozen=True, kw_only=True)
class Polynomial(Schedule):
    """A power of what remains: c(u) = end + (1 − end)·(1 − u)^power. Ends at `end`.

    Example:
        >>> [Polynomial(power=2)(p) for p in (0, 0.5, 0.75, 1)]  # power 1 is the straight line; more falls sooner
        [1.0, 0.25, 0.0625, 0.0]

    Source: L.-C. Chen et al., "DeepLab: semantic image segmentation …", 2016 ("poly", power 0.9); Y. You et al., "Large
    batch training of convolutional networks", 2017 (power 2, with LARS).
    """

    power: float = 2.0
    """exponent: 1 is a straight line, above 1 falls early, below 1 falls late"""
    end: float = 0.0
    """factor at the end of the training"""

    def curve(self, u: float) -> float:
        return float(self.end + (1.0 - self.end) * (1.0 - u) ** self.power)


@dataclass(frozen=True, kw_only=True)
class OneCycle(Cosine):
    """One rise and one long fall: a cosine warm-up from 1/25 over the first 30 %, then `Cosine`. Ends at `end`.

    The rise *is* the warm-up: `warmup` is `pct_start` of `OneCycleLR`, `warmup_start` is 1 / div_factor, and `end` is
    1 / (div_factor·final_div_factor). Only the learning rate cycles; the momentum stays.

    Example:
        >>> [round(OneCycle()(p), 3) for p in (0, 0.15, 0.3, 0.65, 1)]
        [0.04, 0.52, 1.0, 0.5, 0.0]

    Source: L. Smith, N. Topin, "Super-convergence: very fast training of neural networks using large learning rates",
    2018; the two cosines are those of J. Howard, S. Gugger, "fastai: a layered API for deep learning", 2020.
    """

    warmup: float = 0.3
    """fraction of the training in which the factor rises to 1"""
    warmup_shape: Literal["linear", "cosine"] = "cosine"
    """how the factor rises: a straight line, or half a cosine (flat at both ends)"""
    warmup_start: float = 0.04
    """factor of the first update"""
    end: float = 4e-6
    """factor at the end of the training"""


@dataclass(frozen=True, kw_only=True)
class WarmupStableDecay(Schedule):
    """Stays at the peak and falls in the last part of the training only, so that a longer run can share the plateau.

    Formula: with d = cooldown and x = (p − (1 − d)) / d, c = 1 while x ≤ 0, then end + (1 − end)·f(x) with f(x) = 1 − x
    (linear), 1 − √x (sqrt) or (1 + cos πx)/2 (cosine). The cooldown is a fraction of the whole training. Ends at `end`.

    Example:
        >>> schedule = WarmupStableDecay(warmup=0.1, cooldown=0.2, cooldown_shape="sqrt")
        >>> [round(schedule(p), 3) for p in (0.1, 0.8, 0.85, 0.9, 1)]  # a quarter of the cooldown takes half of the fall
        [1.0, 1.0, 0.5, 0.293, 0.0]

    Source: S. Hu et al., "MiniCPM", 2024; 1 − √x: A. Hägele et al., "Scaling laws and compute-optimal training beyond
    fixed training durations", 2024.
    """

    cooldown: float = 0.2
    """fraction of the whole training, at its end, in which the learning rate falls"""
    cooldown_shape: Literal["linear", "sqrt", "cosine"] = "sqrt"
    """how it falls: a straight line, 1 − √x (fast at first), or half a cosine"""
    end: float = 0.0
    """factor at the end of the training"""

    def __post_init__(self) -> None:
        super().__post_init__()
        shapes = ("linear", "sqrt", "cosine")
        require(self.cooldown_shape in shapes, "cooldown_shape", self.cooldown_shape, "'linear', 'sqrt' or 'cosine'")
        if self.warmup + self.cooldown > 1.0 + _ROUNDING:
            raise UserError(
                f"warmup {self.warmup:g} and cooldown {self.cooldown:g} overlap: their sum must be at most 1"
            )

    def curve(self, u: float) -> float:
        x = 1.0 - (1.0 - u) * (1.0 - self.warmup) / self.cooldown
        if x <= _ROUNDING:
            return 1.0
        left = {"linear": 1.0 - x, "sqrt": 1.0 - math.sqrt(x), "cosine": _half_cosine(x)}[self.cooldown_shape]
        return self.end + (1.0 - self.end) * left


SCHEDULES: dict[str, type[Schedule]] = {
    "constant": Constant,
    "time-based": TimeBased,
    "step": Step,
    "multistep": MultiStep,
    "exponential": Exponential,
    "cosine": Cosine,
    "cosine-restarts": CosineRestarts,
    "linear": Linear,
    "inverse-sqrt": InverseSqrt,
    "polynomial": Polynomial,
    "one-cycle": OneCycle,
    "wsd": WarmupStableDecay,
}


def _half_cosine(x: float) -> float:
    """From 1 at x = 0 to 0 at x = 1, both exactly."""
    return 0.5 * (1.0 + math.cos(math.pi * x))


def _within(setting: str, value: Any, interval: str, whole: bool = False) -> None:
    """Requires a number (a whole one) in an interval like "(0, 1]"."""
    low, high = (float(end) for end in interval[1:-1].split(","))
    number = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
    above = number and (value > low if interval[0] == "(" else value >= low)
    below = number and (value < high if interval[-1] == ")" else value <= high)
    require(above and below, setting, value, f"a {'whole ' if whole else ''}number in {interval}")
