"""Colour changes of a batch, each image by its own amount: in place, without branches, in few passes over the planes.

Everywhere y: [N, C, P] holds the planes of N images of P pixels, red, green, blue (C = 3) or grey (C = 1), with values on
0 … top, and is changed in place and returned. Factors are [N].
"""

from __future__ import annotations

import torch
from torch import Tensor

from talweg.data.source import Source

LUMA = (0.2989, 0.587, 0.114)  # ITU-R 601-2, with the digits that Pillow and torchvision use
_FITTED = 10_000  # images whose colours are looked at
_VALUES = 1 << 22  # and how many of their values at once
_BLACK = 1e-30  # stands for the chroma of a grey pixel: its hue is then 0 and not 0/0


def brightness_(y: Tensor, factor: Tensor, top: float) -> Tensor:
    """Makes images lighter or darker: y ← min(factor·y, top).

    Example:
        >>> y = torch.tensor([[[0.2, 0.8]]])
        >>> brightness_(y, torch.tensor([1.5]), top=1.0)
        tensor([[[0.3000, 1.0000]]])
    """
    return y.mul_(factor.view(-1, 1, 1)).clamp_(max=top)


def contrast_(y: Tensor, factor: Tensor, top: float) -> Tensor:
    """Spreads values about the mean grey m of the image: y ← factor·y + (1 - factor)·m, clamped to 0 … top.

    Example:
        >>> y = torch.tensor([[[0.25, 0.75]]])
        >>> contrast_(y, torch.tensor([0.5]), top=1.0)
        tensor([[[0.3750, 0.6250]]])
    """
    mean = luma(_sums(y)) / y.shape[-1]  # [N]: the mean of the grey image is the grey of the mean colour
    return y.mul_(factor.view(-1, 1, 1)).add_(((1 - factor) * mean).view(-1, 1, 1)).clamp_(0, top)


def saturation_(y: Tensor, factor: Tensor, top: float) -> Tensor:
    """Spreads colours about the grey g of their pixel: y ← factor·y + (1 - factor)·g, clamped; factor 0 leaves grey.

    Args:
        y: [N, 3, P].

    Example:
        >>> red = torch.tensor([[[1.0], [0.0], [0.0]]])
        >>> saturation_(red, torch.tensor([0.0]), top=1.0).flatten()
        tensor([0.2989, 0.2989, 0.2989])
    """
    grey = luma(y).mul_((1 - factor)[:, None])
    return y.mul_(factor.view(-1, 1, 1)).add_(grey[:, None]).clamp_(0, top)


def hue_(y: Tensor, turn: Tensor) -> Tensor:
    """Turns the hue in HSV space by a part of the circle, keeping value and chroma.

    Formula: with M and m the largest and smallest channel of a pixel, c = M - m and the hue h on the circle [0, 6), which
    is found without asking which channel is M: |h'| = (M - R + G - m + B - m)/c is the distance of the hue from red,
    and h = h' for G ≥ B, else 6 - h'. A channel whose colour lies at angle a (0, 2, 4 for red, green, blue) becomes
    y ← m + c·clamp(2 - d, 0, 1), d the distance on the circle between h + 6·turn and a.

    Args:
        y: [N, 3, P].
        turn: [N] parts of the circle, -0.5 … 0.5.

    Example:
        >>> red = torch.tensor([[[1.0], [0.0], [0.0]]])
        >>> hue_(red, torch.tensor([1 / 6])).flatten()               # a sixth of the circle on: yellow
        tensor([1., 1., 0.])

    Source: A. Smith, "Color gamut transform pairs", 1978.
    """
    red, green, blue = y.unbind(1)
    chroma, least = torch.maximum(red, green), torch.minimum(red, green)
    torch.maximum(chroma, blue, out=chroma)
    torch.minimum(least, blue, out=least)
    h = (green + blue).sub_(red).add_(chroma).sub_(least, alpha=2)
    chroma.sub_(least).clamp_(min=_BLACK)
    h.div_(chroma)
    h.sub_(green.lt_(blue), alpha=6).abs_()  # the channels are not needed any more: green becomes the mask G < B
    # clamp(2 - d, 0, 1) = clamp(||z| - 3|, 1, 2) - 1 for z = h + 6·turn - a, wrapped so that -6 ≤ z < 6.
    turned = 6 * turn[:, None] - torch.arange(0, 6, 2, device=y.device, dtype=y.dtype)
    torch.add(h[:, None], turned.remainder_(6).sub_(6)[..., None], out=y)
    y.abs_().sub_(3).abs_().clamp_(1, 2)
    return torch.addcmul(least.sub_(chroma)[:, None], y, chroma[:, None], out=y)


def luma(y: Tensor) -> Tensor:
    """The grey of colours [N, 3, …]: 0.2989·R + 0.587·G + 0.114·B; of grey values [N, 1, …]: themselves. A new [N, …].

    Example:
        >>> luma(torch.tensor([[10.0, 20.0, 30.0]]))
        tensor([18.1490])
    """
    if y.shape[1] == 1:
        return y[:, 0].clone()
    return (y[:, 0] * LUMA[0]).add_(y[:, 1], alpha=LUMA[1]).add_(y[:, 2], alpha=LUMA[2])


def colour_axes(source: Source, top: float) -> Tensor:
    """The directions in which the colours of a training set vary, for `pca_noise_`.

    Formula: column i is λᵢ·pᵢ, with λᵢ and pᵢ the eigenvalues and eigenvectors of the 3 × 3 covariance of all pixels,
    on the scale 0 … 1. At most 10,000 images, evenly spread over the set, are looked at, in one streaming pass.

    Args:
        source: images [N, 3, H, W].
        top: the value of white in them.

    Returns:
        [3, 3] float64 on the CPU.

    Example:
        >>> from talweg.data.arrays import Arrays
        >>> grey = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 3, 4, 4)      # black and white
        >>> axes = colour_axes(Arrays(grey, torch.zeros(2)), top=255.0)
        >>> axes.abs().round(decimals=4)                          # they vary along grey only, with variance 3/4
        tensor([[0.0000, 0.0000, 0.4330],
                [0.0000, 0.0000, 0.4330],
                [0.0000, 0.0000, 0.4330]], dtype=torch.float64)

    Source: A. Krizhevsky, I. Sutskever, G. Hinton, "ImageNet classification with deep convolutional neural networks",
    2012, section 4.1.
    """
    first, _ = next(iter(source.batches([range(1)])))
    step = -(-len(source) // _FITTED)
    stride = step * max(1, _VALUES // first.numel())
    chunks = (range(at, min(at + stride, len(source)), step) for at in range(0, len(source), stride))
    count, total, squares = 0, torch.zeros(3, dtype=torch.float64), torch.zeros(3, 3, dtype=torch.float64)
    for x, _ in source.batches(chunks):
        # Values on 0 … 1 in float64: a one-pass formula loses nothing that matters.
        colours = x.permute(1, 0, 2, 3).reshape(3, -1).cpu().double() / top
        count, total, squares = count + colours.shape[1], total + colours.sum(1), squares + colours @ colours.T
    mean = total / count
    values, vectors = torch.linalg.eigh(squares / count - mean[:, None] * mean)
    return vectors * values.clamp(min=0)


def pca_noise_(y: Tensor, weights: Tensor, axes: Tensor, top: float) -> Tensor:
    """Adds one colour to a whole image, drawn as the colours of the training set vary: y ← y + top·Σᵢ αᵢ·λᵢ·pᵢ, clamped.

    With αᵢ normal of standard deviation σ, the covariance of what is added is Σᵢ σ²·λᵢ²·pᵢ·pᵢᵀ (times top²).

    Args:
        y: [N, 3, P].
        weights: [N, 3] the αᵢ.
        axes: [3, 3] the columns λᵢ·pᵢ (see `colour_axes`).

    Example:
        >>> pca_noise_(torch.full((1, 3, 1), 0.5), torch.tensor([[0.0, 0.0, 1.0]]), torch.eye(3) * 0.1, top=1.0).flatten()
        tensor([0.5000, 0.5000, 0.6000])

    Source: A. Krizhevsky, I. Sutskever, G. Hinton, "ImageNet classification with deep convolutional neural networks",
    2012, section 4.1.
    """
    added = (weights[:, None, :] * axes).sum(-1) * top  # [N, 3]
    return y.add_(added[..., None]).clamp_(0, top)


def _sums(y: Tensor) -> Tensor:
    """Sums over the pixels, [N, C], in the same order however many images and threads there are: equal to the last bit."""
    if y.device.type == "cpu":
        # A row is summed by one thread, unless it is the only one: then it is given twice.
        return y.sum(-1) if y.shape[:2].numel() > 1 else y.expand(2, -1, -1).sum(-1)[:1]
    while y.shape[-1] > 1:  # a CUDA reduction takes an order that depends on the number of rows; pairs do not
        half = y.shape[-1] // 2
        pairs = y[..., :half] + y[..., half : 2 * half]
        if y.shape[-1] % 2:
            pairs[..., 0] += y[..., -1]
        y = pairs
    return y[..., 0]
