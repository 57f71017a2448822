"""What moves pixels, drawn at random: for each name of a recipe, from draws on [0, 1) to sampling matrices."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

import talweg.data.augment.geometry as geometry
from talweg.data.augment.spec import Amounts

_ASPECTS = (math.log(3 / 4), math.log(4 / 3))  # of a resized crop, as is usual


class Move(NamedTuple):
    """How many draws a sample needs, and what they mean: (u: [draws, N], amounts, h, w) → sampling matrices [N, 3, 3]."""

    draws: int
    matrix: Callable[[Tensor, Amounts, int, int], Tensor]


def centred(u: Tensor, most: float) -> Tensor:
    """Draws on [0, 1) as values uniform on -most … most."""
    return u * (2 * most) - most


def resized_crop(u: Tensor, amounts: Amounts, h: int, w: int) -> Tensor:
    """A window of random area and aspect ratio inside the image, shown at full size.

    Formula: area a uniform between the amounts, aspect ratio ρ log-uniform on 3/4 … 4/3 (of pixels); width
    min(W, √(a·H·W·ρ)), height min(H, √(a·H·W/ρ)), place uniform. (Others draw anew where a side is too long; cutting it
    makes no draw depend on another.)

    Args:
        u: [4, N] draws: area, aspect ratio, place across, place down.
        amounts: least and largest area, as parts of the image.

    Example:
        >>> u = torch.tensor([[0.0], [0.5], [0.0], [0.0]], dtype=torch.float64)
        >>> resized_crop(u, (0.25, 1.0), 32, 32)[0]             # a quarter of the area, square, in the upper left corner
        tensor([[ 0.5000,  0.0000, -8.0000],
                [ 0.0000,  0.5000, -8.0000],
                [ 0.0000,  0.0000,  1.0000]], dtype=torch.float64)

    Source: C. Szegedy et al., "Going deeper with convolutions", 2015, section 6.
    """
    area = (amounts[0] + (amounts[1] - amounts[0]) * u[0]) * (h * w)
    ratio = (_ASPECTS[0] + (_ASPECTS[1] - _ASPECTS[0]) * u[1]).exp()
    width, height = (area * ratio).sqrt().clamp(max=w), (area / ratio).sqrt().clamp(max=h)
    return geometry.window((u[2] - 0.5) * (w - width), (u[3] - 0.5) * (h - height), width / w, height / h)


def stretched(u: Tensor, most: float) -> Tensor:
    """Wider and flatter, or the reverse, at equal area: aspect ratio log-uniform on 1/(1 + most) … 1 + most.

    Example:
        >>> stretched(torch.tensor([1.0]), most=3.0)[0]           # the extreme: twice as wide, half as high
        tensor([[0.5000, 0.0000, 0.0000],
                [0.0000, 2.0000, 0.0000],
                [0.0000, 0.0000, 1.0000]])
    """
    side = centred(u, math.log1p(most) / 2).exp()
    return geometry.scaling(side, 1 / side)


def tilted(u: Tensor, most: float, h: int, w: int) -> Tensor:
    """Each corner moves inwards, by up to `most` of half a side in each direction: u: [8, N]."""
    low, high = -1 + most * u, 1 - most * u
    corners = (low[0], low[1], high[2], low[3], high[4], high[5], low[6], high[7])
    return geometry.in_pixels(geometry.perspective(torch.stack(corners, -1).view(-1, 4, 2)), h, w)


def _scaled(u: Tensor, amounts: Amounts) -> Tensor:
    factor = amounts[0] + (amounts[1] - amounts[0]) * u
    return geometry.scaling(factor, factor)


# In the order in which they act.
MOVES: Mapping[str, Move] = {
    "resized_crop": Move(4, resized_crop),
    "scale": Move(1, lambda u, a, h, w: _scaled(u[0], a)),
    "translate": Move(2, lambda u, a, h, w: geometry.translation(centred(u[0], a[0] * w), centred(u[1], a[0] * h))),
    "rotate": Move(1, lambda u, a, h, w: geometry.rotation(centred(u[0], a[0]))),
    "stretch": Move(1, lambda u, a, h, w: stretched(u[0], a[0])),
    "shear": Move(1, lambda u, a, h, w: geometry.shear(centred(u[0], a[0]), torch.zeros_like(u[0]))),
    "perspective": Move(8, lambda u, a, h, w: tilted(u, a[0], h, w)),
}
