"""Changes of tone as one curve for each channel of each image, and sharpness: what RandAugment needs beside the others.

A curve [N, C, 256] says which value each of the 256 stored ones becomes. Brightness, contrast, equalisation and the like are
all curves, and statistics of an image follow from its histogram: so however many of them are chosen, an image is read once
to count its values and once to look up the results.

Everywhere `chosen` is [N] of 0 and 1: an image with 0 keeps its curve.
"""

from __future__ import annotations

import torch
from torch import Tensor

from talweg.data.augment.colour import luma

LEVELS = 256


def histogram(x: Tensor) -> Tensor:
    """How often each value occurs in each channel of each image: uint8 [N, C, H, W] → int64 [N, C, 256].

    Example:
        >>> histogram(torch.tensor([[[[0, 0, 3]]]], dtype=torch.uint8))[0, 0, :5]
        tensor([2, 0, 0, 1, 0])
    """
    n, c = x.shape[:2]
    values = x.reshape(n, c, -1).long()
    ones = torch.ones((), dtype=torch.int64, device=x.device).expand_as(values)
    return values.new_zeros(n, c, LEVELS).scatter_add_(2, values, ones)


def identity_curve(counts: Tensor, dtype: torch.dtype) -> Tensor:
    """0, 1, …, 255 for each channel of each image: [N, C, 256]."""
    return torch.arange(LEVELS, dtype=dtype, device=counts.device).repeat(*counts.shape[:2], 1)


def look_up(x: Tensor, curve: Tensor) -> Tensor:
    """The images with their values replaced by those of the curves.

    Args:
        x: uint8 [N, C, H, W].
        curve: [N, C, 256].

    Returns:
        [N, C, H, W] of the curve's dtype, contiguous.

    Example:
        >>> negative = torch.arange(255.0, -1.0, -1.0).expand(1, 1, 256)
        >>> look_up(torch.tensor([[[[0, 200]]]], dtype=torch.uint8), negative)
        tensor([[[[255.,  55.]]]])
    """
    n, c, h, w = x.shape
    return curve.gather(2, x.reshape(n, c, -1).long()).view(n, c, h, w)


def equalize(curve: Tensor, counts: Tensor, chosen: Tensor) -> Tensor:
    """Spreads the values so that all become about equally frequent; acts on images as they are stored.

    Formula: with n(v) the histogram and step = ⌊(H·W - n(largest value present))/255⌋, value v becomes
    ⌊(⌊step/2⌋ + Σ_{u<v} n(u))/step⌋; unchanged where step = 0. (Pillow's definition.)

    Example:
        >>> counts = torch.zeros(1, 1, 256, dtype=torch.int64)
        >>> counts[..., 10], counts[..., 11], counts[..., 12] = 255, 255, 255
        >>> equalize(identity_curve(counts, torch.float32), counts, torch.tensor([1.0]))[0, 0, 10:13]
        tensor([  0., 128., 255.])
    """
    total = counts.sum(-1, keepdim=True)
    below = counts.cumsum(-1) - counts
    largest = (counts * (below + counts == total)).amax(-1, keepdim=True)  # n(v) where the count is complete first
    step = (total - largest) // (LEVELS - 1)
    equal = ((step // 2 + below) // step.clamp(min=1)).clamp(max=LEVELS - 1)
    return torch.where(_each(chosen) * (step > 0) > 0, equal.to(curve.dtype), curve)


def autocontrast(curve: Tensor, counts: Tensor, chosen: Tensor) -> Tensor:
    """Stretches the values of each channel to 0 … 255: v ← (v - min)·255/(max - min).

    Example:
        >>> counts = torch.zeros(1, 1, 256, dtype=torch.int64)
        >>> counts[..., 51], counts[..., 153] = 4, 4
        >>> autocontrast(identity_curve(counts, torch.float32), counts, torch.tensor([1.0]))[0, 0, [51, 102, 153]]
        tensor([  0.0000, 127.5000, 255.0000])
    """
    present = counts > 0
    low = curve.masked_fill(~present, torch.inf).amin(-1, keepdim=True)
    high = curve.masked_fill(~present, -torch.inf).amax(-1, keepdim=True)
    flat = high <= low
    stretched = ((curve - low) * (255 / (high - low).masked_fill(flat, 1))).clamp(0, 255)
    return torch.where(_each(chosen) * ~flat > 0, stretched, curve)


def posterize(curve: Tensor, bits: Tensor) -> Tensor:
    """Keeps the upper bits of each value: v ← 2^(8-b)·⌊v/2^(8-b)⌋, for b: [N] of 0 … 8.

    Example:
        >>> posterize(torch.tensor([[[7.0, 130.0, 255.0]]]), torch.tensor([2]))
        tensor([[[  0., 128., 192.]]])
    """
    size = _each(torch.bitwise_left_shift(torch.ones_like(bits), 8 - bits)).to(curve.dtype)
    return (curve / size).floor() * size


def solarize(curve: Tensor, threshold: Tensor) -> Tensor:
    """Inverts the bright values: v ← 255 - v where v ≥ threshold, for thresholds [N].

    Example:
        >>> solarize(torch.tensor([[[100.0, 200.0]]]), torch.tensor([128.0]))
        tensor([[[100.,  55.]]])
    """
    return torch.where(curve >= _each(threshold), 255 - curve, curve)


def scale_tones(curve: Tensor, factor: Tensor) -> Tensor:
    """`colour.brightness_` as a curve: v ← min(factor·v, 255).

    Example:
        >>> scale_tones(torch.tensor([[[100.0, 200.0]]]), torch.tensor([1.5]))
        tensor([[[150., 255.]]])
    """
    return (curve * _each(factor)).clamp(max=255)


def stretch_tones(curve: Tensor, counts: Tensor, factor: Tensor) -> Tensor:
    """`colour.contrast_` as a curve: v ← factor·v + (1 - factor)·m, with m the mean grey that the histogram gives.

    Example:
        >>> counts = torch.zeros(1, 1, 256, dtype=torch.int64)
        >>> counts[..., 100], counts[..., 200] = 8, 8                       # half of the pixels each: the mean is 150
        >>> stretch_tones(identity_curve(counts, torch.float32), counts, torch.tensor([0.5]))[0, 0, [100, 200]]
        tensor([125., 175.])
    """
    mean = luma((curve * counts).sum(-1)) / counts[:, 0].sum(-1)
    return (curve * _each(factor) + _each((1 - factor) * mean)).clamp(0, 255)


def sharpness_(y: Tensor, factor: Tensor, top: float) -> Tensor:
    """Blurs (factor 0 … 1) or sharpens (above 1) in place; the border stays as it is.

    Formula: y ← factor·y + (1 - factor)·b, clamped, with b the mean over 3 × 3 pixels in which the middle counts 5 times.

    Args:
        y: [N, C, H, W], at least 3 × 3.
        factor: [N].

    Example:
        >>> dot = torch.zeros(1, 1, 3, 3)
        >>> dot[..., 1, 1] = 13.0
        >>> sharpness_(dot, torch.tensor([0.0]), top=255.0)[0, 0, 1]
        tensor([0., 5., 0.])
    """
    rows = y[:, :, :-2] + y[:, :, 1:-1] + y[:, :, 2:]
    middle = y[:, :, 1:-1, 1:-1]
    blurred = (rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]).add_(middle, alpha=4).div_(13)
    factor = factor[:, None, None, None]
    middle.mul_(factor).add_(blurred.mul_(1 - factor)).clamp_(0, top)
    return y


def _each(values: Tensor) -> Tensor:
    """[N] → [N, 1, 1]."""
    return values[:, None, None]
