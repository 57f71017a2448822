"""Normalisation fitted on the training set: raw batches in, float batches out, one multiply-add."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, Self

import torch
from torch import Tensor

from talweg.data.order import ranges
from talweg.data.source import Source
from talweg.errors import UserError, require

_BLOCK = 1 << 20  # elements converted to float64 at once while fitting
_TOKENS = (torch.int64, torch.int32)


class Normalizer(Protocol):
    """A map of raw batches to float batches, fitted on a source, whose state is a few tensors for the checkpoint."""

    @classmethod
    def fit(cls, source: Source) -> Self:
        """The normaliser for a training set."""

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> Self:
        """The normaliser whose `state()` was stored."""

    def state(self) -> dict[str, Tensor]:
        """What was fitted, as float64 tensors on the CPU."""

    def to(self, device: torch.device | str, dtype: torch.dtype = torch.float32) -> Self:
        """The same map for batches on a device, computing in a dtype."""

    def __call__(self, x: Tensor) -> Tensor:
        """The normalised batch; token numbers (int64, int32) pass untouched."""


@dataclass(frozen=True, eq=False)
class Standardize:
    """Mean 0 and standard deviation 1 over the training set, for each feature or each channel.

    Formula: z = (x - mean) / std, computed as x·scale + shift with scale = 1/std and shift = -mean/std.

    Args:
        mean: [C] for images [N, C, …], [F] for features [N, F], a scalar for [N, H, W] and [N].
        std: of the same shape, positive.
        device: where the batches are.
        dtype: float32 or float64, of the result.

    Raises:
        UserError: if the shapes differ or a std is not positive and finite.

    Example:
        >>> from talweg.data.arrays import Arrays
        >>> x = torch.tensor([[0.0, 5.0], [4.0, 5.0]])
        >>> standardize = Standardize.fit(Arrays(x, torch.zeros(2)))
        >>> standardize.mean.tolist(), standardize.std.tolist()      # a constant feature keeps its scale
        ([2.0, 5.0], [2.0, 1.0])
        >>> standardize(x).tolist()
        [[-1.0, 0.0], [1.0, 0.0]]

    Source: Y. LeCun, L. Bottou, G. Orr, K.-R. Müller, "Efficient BackProp", 1998, section 4.3.
    """

    mean: Tensor
    std: Tensor
    device: torch.device | str = "cpu"
    dtype: torch.dtype = torch.float32
    _scale: Tensor = field(init=False, repr=False)
    _shift: Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        mean, std = self.mean.detach().cpu().double(), self.std.detach().cpu().double()
        require(
            mean.shape == std.shape and mean.dim() <= 1,
            "mean and std",
            list(std.shape),
            "scalars, or both of shape [C]",
        )
        require(bool(torch.isfinite(mean).all()), "mean", mean.tolist(), "finite")
        require(bool(((std > 0) & torch.isfinite(std)).all()), "std", std.tolist(), "positive and finite")
        for name, value in (("mean", mean), ("std", std)):
            object.__setattr__(self, name, value)
        # Rounded once, from float64: float32 images see the exact scale and shift to half a unit in the last place.
        object.__setattr__(self, "_scale", (1 / std).to(self.dtype).to(self.device))
        object.__setattr__(self, "_shift", (-mean / std).to(self.dtype).to(self.device))

    @classmethod
    def fit(cls, source: Source) -> Standardize:
        """Mean and (population) standard deviation of a source in one streaming pass, accumulated in float64.

        Blocks are merged by Chan's formula, which does not cancel however large the mean is: with n = n₁ + n₂ and
        δ = mean₂ - mean₁, mean = mean₁ + δ·n₂/n and M = M₁ + M₂ + δ²·n₁·n₂/n, where M is the sum of squared deviations.
        A feature that is constant, up to rounding, gets std = 1.

        Source: T. Chan, G. Golub, R. LeVeque, "Updating formulae and a pairwise algorithm for computing sample
        variances", 1979.
        """
        first, _ = next(iter(source.batches([range(1)])))
        if first.dtype in _TOKENS:
            raise UserError("standardize: the data are integers (token numbers), which have no scale; leave it out")
        block = max(1, _BLOCK // first.numel())
        count, mean, deviation = 0, torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
        for x, _ in source.batches(ranges(len(source), block)):
            var, new = torch.var_mean(x.double(), dim=_reduced(x), correction=0)
            var, new = var.cpu(), new.cpu()
            n = x.numel() // max(1, new.numel())
            delta = new - mean
            mean = mean + delta * (n / (count + n))
            deviation = deviation + var * n + delta.square() * (count * n / (count + n))
            count += n
        std = (deviation / count).sqrt()
        rounding = count * torch.finfo(torch.float64).eps * mean.abs()
        return cls(mean, torch.where(std <= rounding, 1.0, std))

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> Standardize:
        """The normaliser whose `state()` was stored."""
        return cls(state["mean"], state["std"])

    def state(self) -> dict[str, Tensor]:
        """`mean` and `std`, float64 on the CPU."""
        return {"mean": self.mean, "std": self.std}

    def to(self, device: torch.device | str, dtype: torch.dtype = torch.float32) -> Standardize:
        """The same map for batches on a device, computing in a dtype."""
        return Standardize(self.mean, self.std, device, dtype)

    def __call__(self, x: Tensor) -> Tensor:
        """(x - mean) / std in `dtype`; images come out in channels_last format."""
        if x.dtype in _TOKENS:
            return x
        if self._scale.dim() == 1 and (x.dim() not in (2, 4) or x.shape[1] != len(self._scale)):
            return self._general(x)
        if x.dim() != 4 or self._scale.dim() == 0:
            return torch.addcmul(self._shift, x, self._scale).to(self.dtype)
        n, c, h, w = x.shape
        # As rows [N·H, W·C] of pixels, the channels' constants repeat along a row: the inner loop is long and
        # contiguous (5 times faster on a CPU than to broadcast over an innermost dimension of 3).
        rows = x.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1).view(n * h, w * c)
        z = torch.addcmul(self._shift.repeat(w), rows, self._scale.repeat(w))
        return z.view(n, h, w, c).permute(0, 3, 1, 2).to(self.dtype)

    def _general(self, x: Tensor) -> Tensor:
        """[N, C, …] with any number of further dimensions, or the error for a shape that was not fitted."""
        fitted = len(self._scale)
        if x.dim() < 4 or x.shape[1] != fitted:
            raise UserError(
                f"standardize: fitted on {fitted} features or channels, received a batch of shape {list(x.shape)}; give "
                "all data the form of the training data"
            )
        shape = (fitted, *[1] * (x.dim() - 2))
        return torch.addcmul(self._shift.view(shape), x, self._scale.view(shape)).to(self.dtype)


@dataclass(frozen=True, eq=False)
class Scale:
    """uint8 to [0, 1]: what uint8 data means to a model when nothing else is said.

    Formula: z = x / 255 for uint8; floats keep their values; token numbers pass untouched.

    Example:
        >>> Scale()(torch.tensor([0, 51, 255], dtype=torch.uint8))
        tensor([0.0000, 0.2000, 1.0000])
        >>> Scale()(torch.tensor([0.5, 2.0]))
        tensor([0.5000, 2.0000])
    """

    device: torch.device | str = "cpu"
    dtype: torch.dtype = torch.float32
    _factor: Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_factor", torch.tensor(1 / 255, dtype=self.dtype, device=self.device))

    @classmethod
    def fit(cls, source: Source) -> Scale:
        """Nothing to fit."""
        return cls()

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> Scale:
        """Nothing was stored."""
        return cls()

    def state(self) -> dict[str, Tensor]:
        """Empty."""
        return {}

    def to(self, device: torch.device | str, dtype: torch.dtype = torch.float32) -> Scale:
        """The same map for batches on a device, with results in a dtype."""
        return Scale(device, dtype)

    def __call__(self, x: Tensor) -> Tensor:
        """x / 255 for uint8, x in `dtype` for floats."""
        if x.dtype == torch.uint8:
            return x * self._factor
        return x if x.dtype in _TOKENS else x.to(self.dtype)


NORMALIZERS: dict[str, type[Standardize] | type[Scale]] = {"standardize": Standardize, "scale": Scale}


def _reduced(x: Tensor) -> tuple[int, ...]:
    """The dimensions that one mean is taken over: all but the features of [N, F] or the channels of [N, C, H, W, …]."""
    if x.dim() == 2:
        return (0,)
    return (0, *range(2, x.dim())) if x.dim() >= 4 else tuple(range(x.dim()))
