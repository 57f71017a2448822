"""Dropout whose mask is a function of (seed, step, layer, sample, position): torch's layers, keyed."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from talweg.nn.noise import LEVELS, Noisy, bits_like, chosen, is_announced, random_bits


def keep_levels(p: float) -> int:
    """The probability 1 - p of being kept, in units of 1/65,536.

    Rounded, but 0 only for p = 1 and 65,536 only for p = 0: a small p still drops something.

    Example:
        >>> keep_levels(0.5), keep_levels(0.1), keep_levels(1e-9), keep_levels(1.0)
        (32768, 58982, 65535, 0)
    """
    if p in (0.0, 1.0):
        return 0 if p else LEVELS
    return min(max(round((1.0 - p) * LEVELS), 1), LEVELS - 1)


def keep_mask(layer: Noisy, x: Tensor, levels: int, *, channels: bool = False) -> Tensor:
    """1 for the values of x that are kept, 0 for the others: of x's shape, or [B, C, 1, …] for whole channels.

    Args:
        layer: the layer that draws.
        x: [B, ...] its input.
        levels: see `keep_levels`; above 0, below 65,536.
        channels: keep or drop whole channels.
    """
    if not channels:
        return chosen(bits_like(layer, x), levels, x.dtype)
    keep = chosen(random_bits(layer, x, x.shape[1]), levels, x.dtype)
    return keep.view(*x.shape[:2], *[1] * (x.dim() - 2))


def drop(layer: Noisy, x: Tensor, p: float, *, channels: bool = False, inplace: bool = False) -> Tensor:
    """x with values (or channels) zeroed with probability p, and the others divided by the probability 1 - p.

    1 - p is the rounded one (see `keep_levels`), so that the expected value is x exactly.
    """
    levels = keep_levels(p)
    if levels == LEVELS:
        return x
    if levels == 0:
        return x.mul_(0.0) if inplace else x * 0.0
    keep, scale = keep_mask(layer, x, levels, channels=channels), LEVELS / levels
    return x.mul_(keep).mul_(scale) if inplace else x * keep * scale


class Dropout(Noisy, nn.Dropout):
    """`nn.Dropout` whose mask of a sample is the same in any batch.

    Formula: y = x ∘ m / (1 - p), m ~ Bernoulli(1 - p) for each value in training; y = x in evaluation. p is rounded to
    a multiple of 1/65,536. Inside a `noise_context` m is a function of (seed, step, layer name, sample, position);
    outside, this is `nn.Dropout`.

    Args:
        p: the probability with which a value is zeroed.
        inplace: overwrite x.

    Example:
        >>> from talweg.nn import Dropout, name_layers, noise_context
        >>> layer = Dropout(0.25)
        >>> name_layers(layer)
        ('Dropout',)
        >>> with noise_context(seed=0, step=0, indices=torch.arange(100)):
        ...     y = layer(torch.ones(100, 100))
        >>> y.unique().tolist(), round((y == 0).float().mean().item(), 2)
        ([0.0, 1.3333333730697632], 0.25)
        >>> layer.eval()(torch.ones(3)).tolist()
        [1.0, 1.0, 1.0]

    Source: N. Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting", 2014.
    """

    def forward(self, input: Tensor) -> Tensor:
        """x: [B, ...] -> y of the same shape."""
        if not self.training or not is_announced():
            return super().forward(input)
        return drop(self, input, self.p, inplace=self.inplace)


class _ChannelDropout(Noisy, nn.modules.dropout._DropoutNd):
    """Drops whole channels: what `Dropout1d`, `Dropout2d` and `Dropout3d` have in common."""

    def forward(self, input: Tensor) -> Tensor:
        """x: [B, C, ...] -> y of the same shape."""
        if not self.training or not is_announced():
            return super().forward(input)
        return drop(self, input, self.p, channels=True, inplace=self.inplace)


class Dropout1d(_ChannelDropout, nn.Dropout1d):
    """`nn.Dropout1d`, keyed as `Dropout`: drops whole channels of x: [B, C, L]."""


class Dropout2d(_ChannelDropout, nn.Dropout2d):
    """`nn.Dropout2d`, keyed as `Dropout`: drops whole channels of x: [B, C, H, W].

    Example:
        >>> from talweg.nn import Dropout2d, name_layers, noise_context
        >>> layer = Dropout2d(0.5)
        >>> names = name_layers(layer)
        >>> with noise_context(0, 0, torch.tensor([3])):
        ...     layer(torch.ones(1, 8, 5, 5)).mean((2, 3)).tolist()
        [[0.0, 2.0, 2.0, 0.0, 2.0, 2.0, 0.0, 2.0]]

    Source: J. Tompson et al., "Efficient object localization using convolutional networks", 2015.
    """


class Dropout3d(_ChannelDropout, nn.Dropout3d):
    """`nn.Dropout3d`, keyed as `Dropout`: drops whole channels of x: [B, C, D, H, W]."""


class _SelfNormalizingDropout(Noisy, nn.modules.dropout._DropoutNd):
    """Dropout that keeps mean 0 and variance 1: what `AlphaDropout` and `FeatureAlphaDropout` have in common."""

    channels = False

    def forward(self, input: Tensor) -> Tensor:
        """x: [B, ...] -> y of the same shape."""
        levels = keep_levels(self.p)
        if not self.training or not is_announced() or levels in (0, LEVELS):
            return super().forward(input)
        low, q = -1.7580993408473766, levels / LEVELS
        a = (q + low**2 * q * (1 - q)) ** -0.5
        keep = keep_mask(self, input, levels, channels=self.channels)
        y = torch.where(keep.bool(), a * input, a * low) - a * (1 - q) * low
        return input.copy_(y) if self.inplace else y


class AlphaDropout(_SelfNormalizingDropout, nn.AlphaDropout):
    """`nn.AlphaDropout`, keyed as `Dropout`: keeps mean and variance of self-normalising (SELU) networks.

    Formula: y = a·(x∘m + α'·(1 - m)) + b with α' = -1.7581 (the limit of SELU at -∞), q = 1 - p,
    a = (q + α'²·q·(1 - q))^(-1/2), b = -a·(1 - q)·α'.

    Source: G. Klambauer, T. Unterthiner, A. Mayr, S. Hochreiter, "Self-normalizing neural networks", 2017.
    """


class FeatureAlphaDropout(_SelfNormalizingDropout, nn.FeatureAlphaDropout):
    """`nn.FeatureAlphaDropout`, keyed as `Dropout`: `AlphaDropout` of whole channels."""

    channels = True
