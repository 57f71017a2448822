"""Normalisation fitted on the training set: raw batches in, float batches out, one multiply-add."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import ClassVar, NamedTuple, Protocol, Self

import torch
from torch import Tensor

from talweg.data.moments import TOKENS, first_sample, moments
from talweg.data.source import Source
from talweg.data.whitening import PCA, ZCA, MeanImage, PCAWhitening
from talweg.errors import UserError, require, unknown


class Normalizer(Protocol):
    """A map of raw batches to float batches, fitted on a source, whose state is a few tensors for the checkpoint."""

    @property
    def dtype(self) -> torch.dtype:
        """Of the result."""

    @classmethod
    def fit(cls, source: Source) -> Self:
        """The normaliser for a training set, read in blocks: it may be larger than memory."""

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

    name: ClassVar[str] = "standardize"

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
    def fit(cls, source: Source) -> Self:
        """Mean and (population) standard deviation of a source in one streaming pass, accumulated in float64.

        A feature that is constant, up to rounding, gets std = 1.

        Raises:
            UserError: the data are token numbers, or a value is NaN or infinite (its row is named).
        """
        count, mean, deviation = moments(source, cls.name)
        std = (deviation / count).sqrt()
        rounding = count * torch.finfo(torch.float64).eps * mean.abs()
        return cls(mean, torch.where(std <= rounding, 1.0, std))

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> Self:
        """The normaliser whose `state()` was stored."""
        return cls(state["mean"], state["std"])

    def state(self) -> dict[str, Tensor]:
        """`mean` and `std`, float64 on the CPU."""
        return {"mean": self.mean, "std": self.std}

    def to(self, device: torch.device | str, dtype: torch.dtype = torch.float32) -> Self:
        """The same map for batches on a device, computing in a dtype."""
        return type(self)(self.mean, self.std, device, dtype)

    def __call__(self, x: Tensor) -> Tensor:
        """(x - mean) / std in `dtype`; images come out in channels_last format."""
        if x.dtype in TOKENS:
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
                f"{self.name}: fitted on {fitted} features or channels, received a batch of shape {list(x.shape)}; give "
                "all data the form of the training data"
            )
        shape = (fitted, *[1] * (x.dim() - 2))
        return torch.addcmul(self._shift.view(shape), x, self._scale.view(shape)).to(self.dtype)


class MeanPixel(Standardize):
    """Mean 0 over the training set for each channel (or feature); the scale stays.

    Formula: z = (x - mean) / unit, where unit is 255 for uint8 data and 1 for floats.

    Example:
        >>> from talweg.data.arrays import Arrays
        >>> x = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 1, 1, 3)
        >>> [round(value, 3) for value in MeanPixel.fit(Arrays(x, torch.zeros(1)))(x).flatten().tolist()]
        [-0.4, -0.2, 0.6]

    Source: K. Simonyan, A. Zisserman, "Very deep convolutional networks for large-scale image recognition", 2014.
    """

    name = "mean_pixel"

    @classmethod
    def fit(cls, source: Source) -> Self:
        """The mean of each channel of a source in one streaming pass, accumulated in float64; see `Standardize.fit`."""
        _, mean, _ = moments(source, cls.name)
        unit = 255.0 if first_sample(source, cls.name).dtype == torch.uint8 else 1.0
        return cls(mean, torch.full_like(mean, unit))


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
        return x if x.dtype in TOKENS else x.to(self.dtype)


NORMALIZERS: Mapping[str, type[Normalizer]] = MappingProxyType(
    {
        "standardize": Standardize,
        "scale": Scale,
        "mean_pixel": MeanPixel,
        "mean_image": MeanImage,
        "pca": PCA,
        "pca_whitening": PCAWhitening,
        "zca": ZCA,
    }
)
"""Every normaliser by name."""


class Normalization(NamedTuple):
    """A normaliser's name and class, and the settings of its fit."""

    name: str
    kind: type[Normalizer]
    settings: dict[str, float]

    def fit(self, source: Source) -> Normalizer:
        """The normaliser, fitted on a training set."""
        return self.kind.fit(source, **self.settings)


def parse_normalizer(spec: str) -> Normalization:
    """The normaliser that a word such as "standardize" or "zca:0.01" (the epsilon of a whitening) stands for.

    Raises:
        UserError: the name is unknown, or what follows it is not its epsilon.

    Example:
        >>> parse_normalizer("zca:0.01").settings
        {'epsilon': 0.01}
        >>> parse_normalizer("standardise")
        Traceback (most recent call last):
            ...
        talweg.errors.UserError: unknown normalize 'standardise': did you mean 'standardize'? Known: mean_image, \
mean_pixel, pca, pca_whitening, scale, standardize, zca
    """
    name, colon, text = spec.partition(":")
    if name not in NORMALIZERS:
        raise unknown("normalize", name, NORMALIZERS)
    kind = NORMALIZERS[name]
    if not colon:
        return Normalization(name, kind, {})
    if "epsilon" not in inspect.signature(kind.fit).parameters:
        raise UserError(f"normalize={name!r} takes no number, received {spec!r}")
    try:
        epsilon = float(text)
    except ValueError:
        epsilon = math.nan
    require(0 <= epsilon < math.inf, f"epsilon of normalize={name!r}", text, "0 or more, in units of the mean variance")
    return Normalization(name, kind, {"epsilon": epsilon})
