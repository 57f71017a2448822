"""Noise on every value of an image, and holes in it.

Everywhere y: [N, C, H, W] holds values on 0 … top and is changed in place and returned; draws u are uniform on [0, 1).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from talweg.randomness import generator

_NORMALS = 1 << 20  # smallest table of normal numbers
_ERASED, _SHAPES = (0.02, 0.33), (0.3, 3.3)  # areas and aspect ratios of random erasing


class Box(NamedTuple):
    """Rows `top` to `bottom` and columns `left` to `right` (exclusive) of each image: [N] each; it may stick out."""

    top: Tensor
    bottom: Tensor
    left: Tensor
    right: Tensor


def normal_table(seed: int, size: int) -> Tensor:
    """Normal numbers for `gaussian_noise_`: [L] on the CPU, at least eight times as many as an image has values.

    Example:
        >>> len(normal_table(seed=0, size=3 * 32 * 32))
        1048576
    """
    return torch.randn(max(_NORMALS, 8 * size), generator=generator(seed, "normal table"))


def gaussian_noise_(y: Tensor, u: Tensor, table: Tensor, top: float) -> Tensor:
    """Adds normal noise to every value: y ← y + ε, clamped to 0 … top.

    Formula: ε of an image is a window of a fixed table of L normal numbers that begins at a random place. Within an image
    it is independent; two images share a part of their noise, shifted, with probability 2·C·H·W/L at most (0.6 % for
    32 × 32 in colour). In exchange it is the same on every device, and costs a copy instead of a random generator.

    Args:
        y: [N, C, H, W].
        u: [N] draws.
        table: [L] `normal_table`, times the standard deviation that is wanted.

    Example:
        >>> grey = torch.full((4, 3, 32, 32), 0.5)
        >>> y = gaussian_noise_(grey, torch.rand(4), 0.1 * normal_table(0, 3 * 32 * 32), top=1.0)
        >>> abs(y.std().item() - 0.1) < 0.01
        True
    """
    size = y[0].numel()
    # Every window is a row of a view of the same memory.
    noise = table.unfold(0, size, 1).index_select(0, whole(u, len(table) - size + 1))
    return y.add_(noise.view(y.shape)).clamp_(0, top)


def cutout_box(u: Tensor, fraction: float, h: int, w: int) -> Box:
    """A square about a pixel drawn from all of the image, so that it may be cut off by the border.

    Args:
        u: [2, N] draws.
        fraction: side of the square in shorter sides of the image.

    Example:
        >>> box = cutout_box(torch.tensor([[0.0], [0.5]]), 0.5, 8, 8)
        >>> [edge.item() for edge in box]                                   # half of its rows are above the image
        [-2, 2, 2, 6]

    Source: T. DeVries, G. Taylor, "Improved regularization of convolutional neural networks with cutout", 2017.
    """
    side = max(1, round(fraction * min(h, w)))
    top, left = whole(u[0], h) - side // 2, whole(u[1], w) - side // 2
    return Box(top, top + side, left, left + side)


def erasing_box(u: Tensor, probability: float, h: int, w: int) -> Box:
    """With a probability, a rectangle inside the image, of 2 to 33 % of its area and of aspect ratio 0.3 to 3.3.

    Formula: area a uniform, ratio ρ log-uniform; height √(a·ρ)·√(H·W), width √(a/ρ)·√(H·W), cut to the image's sides.
    (The paper draws anew where a side is too long; here no draw depends on another.)

    Args:
        u: [5, N] draws.
        probability: of being erased; else the box is empty.

    Example:
        >>> box = erasing_box(torch.tensor([[0.9], [0.5], [0.5], [0.5], [0.5]]), 0.5, 8, 8)
        >>> box.bottom.item() - box.top.item()
        0

    Source: Z. Zhong, L. Zheng, G. Kang, S. Li, Y. Yang, "Random erasing data augmentation", 2017.
    """
    area = (_ERASED[0] + (_ERASED[1] - _ERASED[0]) * u[1]) * (h * w)
    ratio = (math.log(_SHAPES[0]) + math.log(_SHAPES[1] / _SHAPES[0]) * u[2]).exp()
    high, wide = (area * ratio).sqrt().round().clamp(1, h), (area / ratio).sqrt().round().clamp(1, w)
    top, left = ((u[3] * (h - high + 1)).floor().long(), (u[4] * (w - wide + 1)).floor().long())
    high, wide = (high * (u[0] < probability)).long(), wide.long()
    return Box(top, top + high, left, left + wide)


def erase_(y: Tensor, box: Box) -> Tensor:
    """Paints a box of each image black (0).

    Example:
        >>> y = torch.ones(1, 1, 3, 4)
        >>> erase_(y, Box(*(torch.tensor([edge]) for edge in (-1, 2, 1, 3))))[0, 0]
        tensor([[1., 0., 0., 1.],
                [1., 0., 0., 1.],
                [1., 1., 1., 1.]])
    """
    rows, columns = inside(box, y.shape[2], y.shape[3])
    return y.mul_(1 - rows.to(y.dtype)[:, None, :, None] * columns.to(y.dtype)[:, None, None, :])


def inside(box: Box, h: int, w: int) -> tuple[Tensor, Tensor]:
    """Which rows [N, H] and which columns [N, W] a box covers."""
    i, j = torch.arange(h, device=box.top.device), torch.arange(w, device=box.top.device)
    rows = (i >= box.top[:, None]) & (i < box.bottom[:, None])
    return rows, (j >= box.left[:, None]) & (j < box.right[:, None])


def whole(u: Tensor, count: int) -> Tensor:
    """Draws on [0, 1) as whole numbers on 0 … count - 1."""
    return (u * count).long().clamp_(max=count - 1)
