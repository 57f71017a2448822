"""Normalisers that look at whole samples: the mean image, principal components, whitening."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Self

import torch
from torch import Tensor

from talweg.data.moments import TOKENS, first_sample, mean_sample, scatter
from talweg.data.source import Source
from talweg.errors import UserError, require

EPSILON = 1e-10
"""Regularisation of a whitening, in units of the mean variance, if nothing else is asked for."""

FEATURES = 4096
"""Most values of a sample that a covariance is taken of: the matrix then has 134 MB, its eigenvectors take a minute."""


@dataclass(frozen=True, eq=False)
class MeanImage:
    """Mean 0 over the training set for each value of a sample (each pixel of each channel); the scale stays.

    Formula: z = (x - mean) / unit, where unit is 255 for uint8 data and 1 for floats.

    Args:
        mean: of a sample's shape, [C, H, W] for images.
        unit: a positive number.
        device: where the batches are.
        dtype: float32 or float64, of the result.

    Raises:
        UserError: if a mean is not finite or the unit is not positive.

    Example:
        >>> from talweg.data.arrays import Arrays
        >>> x = torch.tensor([[[[0.0, 4.0]]], [[[2.0, 8.0]]]])                # two images of 1 × 2 pixels
        >>> normalizer = MeanImage.fit(Arrays(x, torch.zeros(2)))
        >>> normalizer.mean.tolist(), normalizer(x).flatten(1).tolist()
        ([[[1.0, 6.0]]], [[-1.0, -2.0], [1.0, 2.0]])

    Source: A. Krizhevsky, I. Sutskever, G. Hinton, "ImageNet classification with deep convolutional neural networks",
    2012, section 2.
    """

    mean: Tensor
    unit: Tensor
    device: torch.device | str = "cpu"
    dtype: torch.dtype = torch.float32
    _shift: Tensor = field(init=False, repr=False)
    _scale: Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        mean, unit = self.mean.detach().cpu().double(), self.unit.detach().cpu().double()
        require(bool(torch.isfinite(mean).all()), "mean", "NaN or infinity", "finite")
        require(unit.dim() == 0 and bool(unit > 0), "unit", unit.tolist(), "one positive number")
        for name, value in (("mean", mean), ("unit", unit)):
            object.__setattr__(self, name, value)
        shift = (-mean / unit)[None].to(self.dtype)
        if shift.dim() == 4:
            shift = shift.contiguous(memory_format=torch.channels_last)  # as the images are: one run through memory
        object.__setattr__(self, "_shift", shift.to(self.device))
        object.__setattr__(self, "_scale", (1 / unit).to(self.dtype).to(self.device))

    @classmethod
    def fit(cls, source: Source) -> Self:
        """The mean of a source in one streaming pass, accumulated in float64."""
        first = first_sample(source, "mean_image")
        return cls(mean_sample(source, "mean_image"), torch.tensor(255.0 if first.dtype == torch.uint8 else 1.0))

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> Self:
        """The normaliser whose `state()` was stored."""
        return cls(state["mean"], state["unit"])

    def state(self) -> dict[str, Tensor]:
        """`mean` and `unit`, float64 on the CPU."""
        return {"mean": self.mean, "unit": self.unit}

    def to(self, device: torch.device | str, dtype: torch.dtype = torch.float32) -> Self:
        """The same map for batches on a device, computing in a dtype."""
        return type(self)(self.mean, self.unit, device, dtype)

    def __call__(self, x: Tensor) -> Tensor:
        """(x - mean) / unit in `dtype`; images come out in channels_last format if they came so."""
        if x.dtype in TOKENS:
            return x
        _check_shape("mean_image", x, self.mean)
        return torch.addcmul(self._shift, x, self._scale).to(self.dtype)


@dataclass(frozen=True, eq=False)
class Projection:
    """A linear map of whole samples, z = matrix·(x - mean): what PCA, PCA whitening and ZCA whitening have in common.

    Args:
        mean: of a sample's shape.
        matrix: [F, F], for the F values of a sample.
        device: where the batches are.
        dtype: float32 or float64, of the result.

    Raises:
        UserError: if the sizes do not agree, or a number is not finite.
    """

    mean: Tensor
    matrix: Tensor
    device: torch.device | str = "cpu"
    dtype: torch.dtype = torch.float32
    _mean: Tensor = field(init=False, repr=False)
    _matrix: Tensor = field(init=False, repr=False)

    name: ClassVar[str]
    keeps_shape: ClassVar[bool] = False

    def __post_init__(self) -> None:
        mean, matrix = self.mean.detach().cpu().double(), self.matrix.detach().cpu().double()
        size = mean.numel()
        require(matrix.shape == (size, size), "matrix", list(matrix.shape), f"of shape [{size}, {size}], as the mean")
        finite = bool(torch.isfinite(mean).all() and torch.isfinite(matrix).all())
        require(finite, "mean and matrix", "NaN or infinity", "finite")
        for name, value in (("mean", mean), ("matrix", matrix)):
            object.__setattr__(self, name, value)
        object.__setattr__(self, "_mean", mean.to(self.dtype).to(self.device))
        object.__setattr__(self, "_matrix", matrix.to(self.dtype).to(self.device))

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> Self:
        """The normaliser whose `state()` was stored."""
        return cls(state["mean"], state["matrix"])

    def state(self) -> dict[str, Tensor]:
        """`mean` and `matrix`, float64 on the CPU."""
        return {"mean": self.mean, "matrix": self.matrix}

    def to(self, device: torch.device | str, dtype: torch.dtype = torch.float32) -> Self:
        """The same map for batches on a device, computing in a dtype."""
        return type(self)(self.mean, self.matrix, device, dtype)

    def __call__(self, x: Tensor) -> Tensor:
        """matrix·(x - mean) in `dtype`: [N, F], or of x's shape (images in channels_last format) for ZCA."""
        if x.dtype in TOKENS:
            return x
        _check_shape(self.name, x, self.mean)
        # The mean goes first: as a shift, -matrix·mean, it would cancel digits of what is left.
        z = (x.to(self.dtype) - self._mean).reshape(len(x), -1) @ self._matrix.mT
        if not self.keeps_shape:
            return z
        z = z.view(x.shape)
        return z.contiguous(memory_format=torch.channels_last) if z.dim() == 4 else z


class PCA(Projection):
    """The principal components of the samples: decorrelated, in the order of their variances, which stay.

    Formula: z = Uᵀ·(x - mean), with the covariance U·diag(λ)·Uᵀ of the training set, λ descending. Of the two possible
    signs of a direction, the one is taken that makes its largest entry positive. Images are flattened and come out as
    [N, F]: a component has no place in the image.

    Example:
        >>> from talweg.data.arrays import Arrays
        >>> x = torch.tensor([[0.0, 0.0], [1.0, 1.0], [2.0, 2.0], [3.0, 3.0]])     # points on a line
        >>> z = PCA.fit(Arrays(x, torch.zeros(4)))(x)
        >>> [[round(abs(value), 3) for value in row] for row in z.tolist()]
        [[2.121, 0.0], [0.707, 0.0], [0.707, 0.0], [2.121, 0.0]]

    Source: K. Pearson, "On lines and planes of closest fit to systems of points in space", 1901.
    """

    name = "pca"

    @classmethod
    def fit(cls, source: Source) -> Self:
        """Mean and principal directions of a source, in one streaming pass in float64.

        Raises:
            UserError: a sample has more than `FEATURES` values, the data are token numbers, or a value is NaN (its row
                is named).
        """
        mean, _, vectors = components(source, cls.name)
        return cls(mean, vectors.mT)


class PCAWhitening(Projection):
    """Principal components of variance 1: the covariance of the result is the identity.

    Formula: z = diag(1/√(λ + ε))·Uᵀ·(x - mean), with U and λ as in `PCA` and ε = epsilon·(mean of λ). A direction in which
    the training set does not vary is dropped (z = 0). cov(z) = diag(λ/(λ + ε)).

    A larger epsilon keeps the weakest directions small, which in images are mostly noise: 0.01 to 0.1 is usual there
    ("pca_whitening:0.01" as the `normalize` of a task).

    Example:
        >>> from talweg.data.arrays import Arrays
        >>> x = torch.randn(1000, 3, generator=torch.Generator().manual_seed(0)) @ torch.tensor(
        ...     [[3.0, 1.0, 0.0], [0.0, 0.5, 2.0], [0.0, 0.0, 9.0]])
        >>> z = PCAWhitening.fit(Arrays(x, torch.zeros(1000)))(x)
        >>> torch.allclose(z.T.cov(correction=0), torch.eye(3), atol=1e-5)
        True

    Source: J. Friedman, "Exploratory projection pursuit", 1987 (sphering).
    """

    name = "pca_whitening"

    @classmethod
    def fit(cls, source: Source, epsilon: float = EPSILON) -> Self:
        """As `PCA.fit`, with the regularisation `epsilon` ≥ 0 in units of the mean variance."""
        mean, values, vectors = components(source, cls.name)
        return cls(mean, _gains(values, epsilon)[:, None] * vectors.mT)


class ZCA(Projection):
    """Whitening that stays as near to the samples as can be: images remain images, with edges enhanced.

    Formula: z = U·diag(1/√(λ + ε))·Uᵀ·(x - mean), the symmetric square root of the inverse covariance; U, λ and ε as in
    `PCAWhitening`, the shape of x stays.

    Example:
        >>> from talweg.data.digits import load_digits
        >>> digits = load_digits().train
        >>> normalizer = ZCA.fit(digits, epsilon=0.01)
        >>> normalizer(digits.x[:5]).shape, torch.equal(normalizer.matrix, normalizer.matrix.T)
        (torch.Size([5, 1, 8, 8]), True)

    Source: A. Bell, T. Sejnowski, "The 'independent components' of natural scenes are edge filters", 1997; epsilon for
    images: A. Coates, A. Ng, H. Lee, "An analysis of single-layer networks in unsupervised feature learning", 2011.
    """

    name = "zca"
    keeps_shape = True

    @classmethod
    def fit(cls, source: Source, epsilon: float = EPSILON) -> Self:
        """As `PCA.fit`, with the regularisation `epsilon` ≥ 0 in units of the mean variance."""
        mean, values, vectors = components(source, cls.name)
        half = _gains(values, epsilon).sqrt() * vectors
        matrix = half @ half.mT
        return cls(mean, (matrix + matrix.mT) / 2)  # symmetric to the last bit


def components(source: Source, name: str) -> tuple[Tensor, Tensor, Tensor]:
    """Mean (of a sample's shape), variances λ [F] descending and directions U [F, F] (columns) of a source, float64.

    A variance that is 0 up to rounding is 0.
    """
    first = first_sample(source, name)
    size = first.numel()
    if size > FEATURES:
        raise UserError(
            f"{name}: a sample has {size} values, whose covariance would be {size} × {size} numbers; at most {FEATURES} "
            "are taken: use standardize or mean_image, or smaller images"
        )
    count, mean, products = scatter(source, name)
    values, vectors = torch.linalg.eigh(products / count)
    values, vectors = values.flip(0), vectors.flip(1)
    rounding = max(count, size) * torch.finfo(torch.float64).eps * values[0].clamp(min=0)
    values = torch.where(values <= rounding, 0.0, values)
    largest = vectors.gather(0, vectors.abs().argmax(0, keepdim=True))  # [1, F]
    return mean.view(first.shape[1:]), values, vectors * torch.where(largest < 0, -1.0, 1.0)


def _gains(values: Tensor, epsilon: float) -> Tensor:
    """1/√(λ + ε), and 0 where λ = 0."""
    require(0 <= epsilon < float("inf"), "epsilon", epsilon, "0 or more, in units of the mean variance")
    return torch.where(values > 0, (values + epsilon * values.mean()).rsqrt(), 0.0)


def _check_shape(name: str, x: Tensor, mean: Tensor) -> None:
    if x.shape[1:] != mean.shape:
        raise UserError(
            f"{name}: fitted on samples of shape {list(mean.shape)}, received a batch of shape {list(x.shape)}"
        )
