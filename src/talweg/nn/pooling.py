"""Fractional max-pooling whose regions are a function of (seed, step, layer, sample): torch's layers, keyed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from talweg.nn.noise import Noisy, random_uniform

_HALF = (torch.bfloat16, torch.float16)


class FractionalMaxPool2d(Noisy, nn.FractionalMaxPool2d):
    """Max-pooling by a factor between 1 and 2: rows and columns are cut into regions of 1 or 2 pixels at random places.

    Formula: region i of a row of n pixels that is pooled to m begins at ⌊(i + u)·α⌋ - ⌊u·α⌋ with α = (n - k)/(m - 1), and
    the last one at n - k; u ~ U[0, 1) for each sample, channel and direction in training. In evaluation u = ½ (torch
    draws there too, and so evaluates differently each time). Sizes: [B, C, H, W] -> [B, C, ⌊r·H⌋, ⌊r·W⌋].

    Inside a `noise_context` u is a function of (seed, step, layer name, sample, channel).

    Args:
        kernel_size: k, 2 in the paper.
        output_size: of the result, in pixels; or
        output_ratio: r = m/n, above 0 and below 1: 1/√2 in the paper.
        return_indices: see `nn.FractionalMaxPool2d`.

    Raises:
        ValueError: from torch, where the sizes do not fit together.

    Example:
        >>> from talweg.nn import FractionalMaxPool2d, name_layers, noise_context
        >>> pool = FractionalMaxPool2d(2, output_size=(1, 4))
        >>> names = name_layers(pool)
        >>> x = torch.arange(12.0).view(2, 6).repeat(3, 1, 1, 1)      # three samples of 2 × 6 pixels
        >>> with noise_context(seed=0, step=0, indices=torch.arange(3)):
        ...     pool(x)[:, 0, 0].tolist()
        [[7.0, 8.0, 9.0, 11.0], [7.0, 8.0, 9.0, 11.0], [7.0, 8.0, 10.0, 11.0]]

    Source: B. Graham, "Fractional max-pooling", 2014 (the "pseudo-random" sequences).
    """

    def forward(self, input: Tensor) -> Any:
        """x: [B, C, H, W] -> y, or (y, indices)."""
        return _pool(self, F.fractional_max_pool2d, input, 2)


class FractionalMaxPool3d(Noisy, nn.FractionalMaxPool3d):
    """`nn.FractionalMaxPool3d`, keyed as `FractionalMaxPool2d`: x: [B, C, D, H, W]."""

    def forward(self, input: Tensor) -> Any:
        """x: [B, C, D, H, W] -> y, or (y, indices)."""
        return _pool(self, F.fractional_max_pool3d, input, 3)


def _pool(
    layer: FractionalMaxPool2d | FractionalMaxPool3d, pool: Callable[..., Any], x: Tensor, directions: int
) -> Any:
    samples = x[None] if x.dim() == directions + 1 else x  # torch takes a sample without its batch too
    batch, channels = samples.shape[:2]
    # Torch computes the regions in the dtype of x, which in 16 bits cannot tell the pixels of larger images apart.
    wide = samples.float() if x.dtype in _HALF else samples
    if not layer.training:
        u = wide.new_full((batch, channels, directions), 0.5)
    else:
        u = random_uniform(layer, samples, channels * directions).view(batch, channels, directions).to(wide.dtype)
    found = pool(
        wide, layer.kernel_size, layer.output_size, layer.output_ratio, layer.return_indices, _random_samples=u
    )
    y, *indices = found if layer.return_indices else (found,)
    y = y.to(x.dtype).view(*x.shape[:-directions], *y.shape[-directions:])
    return (y, indices[0].view(y.shape)) if layer.return_indices else y
