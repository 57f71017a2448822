"""Where each output pixel comes from: one 3 × 3 matrix for each operation, and their product.

Points p = (x, y) are in pixels from the centre of the image, x to the right and y down. Every function here returns
*sampling* matrices S: [N, 3, 3], which lead from a point of the result back to the point of the image that it shows:
out(p) = in(S·p) in homogeneous coordinates. Operations that follow each other are one product, in reading order: first
A, then B, is S_A·S_B. However many there are, the image is interpolated once.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def translation(x: Tensor, y: Tensor) -> Tensor:
    """Moves the picture by (x, y) pixels, to the right and down.

    Formula: S = [[1, 0, -x], [0, 1, -y], [0, 0, 1]].

    Args:
        x, y: [N] pixels.

    Returns:
        [N, 3, 3].

    Example:
        >>> right, down = torch.tensor([2.0]), torch.tensor([0.0])
        >>> translation(right, down)[0] @ torch.tensor([5.0, 1.0, 1.0])      # the result's (5, 1) shows the image's (3, 1)
        tensor([3., 1., 1.])
    """
    return _matrices(1, 0, -x, 0, 1, -y, 0, 0, 1)


def reflection(flip: Tensor, x: Tensor | float = 0.0, y: Tensor | float = 0.0) -> Tensor:
    """Mirrors left and right where flip is 1, then moves by (x, y) pixels (see `translation`).

    Formula: S = diag(s, 1, 1)·[[1, 0, -x], [0, 1, -y], [0, 0, 1]] with s = 1 - 2·flip.

    Args:
        flip: [N] of 0 and 1.
        x, y: pixels, [N] or one for all.

    Example:
        >>> reflection(torch.tensor([0.0, 1.0])).diagonal(dim1=1, dim2=2)
        tensor([[ 1.,  1.,  1.],
                [-1.,  1.,  1.]])
    """
    side = 1 - 2 * flip
    return _matrices(side, 0, -x * side, 0, 1, -y, 0, 0, 1)


def scaling(x: Tensor, y: Tensor) -> Tensor:
    """Magnifies the picture about its centre, x times in width and y times in height: S = diag(1/x, 1/y, 1).

    Args:
        x, y: [N] factors above 0; equal ones scale, others stretch.

    Example:
        >>> twice = torch.tensor([2.0])
        >>> scaling(twice, twice)[0] @ torch.tensor([4.0, 4.0, 1.0])
        tensor([2., 2., 1.])
    """
    return _matrices(1 / x, 0, 0, 0, 1 / y, 0, 0, 0, 1)


def rotation(degrees: Tensor) -> Tensor:
    """Turns the picture about its centre, counter-clockwise for positive angles.

    Formula: S = [[cos θ, -sin θ, 0], [sin θ, cos θ, 0], [0, 0, 1]] (y points down).

    Args:
        degrees: [N].

    Example:
        >>> right = torch.tensor([5.0, 0.0, 1.0])
        >>> up = torch.tensor([0.0, -5.0, 1.0])
        >>> torch.allclose(rotation(torch.tensor([90.0]))[0] @ up, right, atol=1e-5)      # what was right is now up
        True
    """
    angle = degrees * (torch.pi / 180)
    cos, sin = angle.cos(), angle.sin()
    return _matrices(cos, -sin, 0, sin, cos, 0, 0, 0, 1)


def shear(x: Tensor, y: Tensor) -> Tensor:
    """Slants the picture: rows slide by tan x of their height, then columns by tan y of their place.

    Formula: S⁻¹ = [[1, 0], [-tan y, 1]]·[[1, -tan x], [0, 1]], hence S = [[1 + tan x·tan y, tan x], [tan y, 1]].

    Args:
        x, y: [N] degrees, between -90 and 90.

    Example:
        >>> by = torch.tensor([45.0])
        >>> (shear(by, 0 * by)[0] @ torch.tensor([0.0, 3.0, 1.0])).round()
        tensor([3., 3., 1.])
    """
    tx, ty = ((angle * (torch.pi / 180)).tan() for angle in (x, y))
    return _matrices(1 + tx * ty, tx, 0, ty, 1, 0, 0, 0, 1)


def window(centre_x: Tensor, centre_y: Tensor, width: Tensor, height: Tensor) -> Tensor:
    """Shows a window of the image, enlarged to the whole size.

    Formula: S = [[width, 0, centre_x], [0, height, centre_y], [0, 0, 1]].

    Args:
        centre_x, centre_y: [N] pixels from the centre of the image.
        width, height: [N] as fractions of the image's sides.

    Example:
        >>> quarter = window(*(torch.tensor([value]) for value in (-8.0, -8.0, 0.5, 0.5)))     # of 32 × 32, upper left
        >>> quarter[0] @ torch.tensor([-16.0, -16.0, 1.0]), quarter[0] @ torch.tensor([16.0, 16.0, 1.0])
        (tensor([-16., -16.,   1.]), tensor([0., 0., 1.]))
    """
    return _matrices(width, 0, centre_x, 0, height, centre_y, 0, 0, 1)


def perspective(corners: Tensor) -> Tensor:
    """Draws the image into a quadrilateral, as if it were a plane seen at an angle.

    Formula: with (u, v) ~ H·(s, t) the projective map of the unit square to the quadrilateral and R that of the unit
    square to the image's rectangle, S = R·H⁻¹ in homogeneous coordinates, scaled to S₃₃ = 1. Here the rectangle is
    the square of side 2 about the centre, so corners are given as fractions of half the sides.

    Args:
        corners: [N, 4, 2] where the corners top left, top right, bottom right, bottom left go to; (-1, -1), (1, -1),
            (1, 1), (-1, 1) leave the image as it is. The quadrilateral must be convex.

    Returns:
        [N, 3, 3] for points in fractions of half the sides (see `in_pixels`).

    Example:
        >>> at_rest = torch.tensor([[[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]]])
        >>> torch.equal(perspective(at_rest)[0], torch.eye(3))
        True
        >>> narrow = at_rest * torch.tensor([[[0.5, 1.0], [0.5, 1.0], [1.0, 1.0], [1.0, 1.0]]])   # the top is farther off
        >>> p = perspective(narrow)[0] @ torch.tensor([0.5, -1.0, 1.0])
        >>> (p / p[2]).round()                                           # its right end shows the upper right corner
        tensor([ 1., -1.,  1.])

    Source: P. Heckbert, "Fundamentals of texture mapping and image warping", 1989, section 2.2.3.
    """
    (x0, y0), (x1, y1), (x2, y2), (x3, y3) = (corner.unbind(-1) for corner in corners.unbind(1))
    ax, ay, bx, by = x1 - x2, y1 - y2, x3 - x2, y3 - y2
    sx, sy = x0 - x1 + x2 - x3, y0 - y1 + y2 - y3
    area = ax * by - ay * bx
    g, h = (sx * by - sy * bx) / area, (ax * sy - ay * sx) / area
    quad = _matrices(x1 - x0 + g * x1, x3 - x0 + h * x3, x0, y1 - y0 + g * y1, y3 - y0 + h * y3, y0, g, h, 1)
    square = _matrices(2, 0, -1 * torch.ones_like(x0), 0, 2, -1, 0, 0, 1)
    sampling = square @ _adjugate(quad)
    return sampling / sampling[:, 2:, 2:]


def in_pixels(matrix: Tensor, h: int, w: int) -> Tensor:
    """Rewrites a sampling matrix for points in fractions of half the sides as one for points in pixels: D·S·D⁻¹.

    Example:
        >>> moved = translation(torch.tensor([0.5]), torch.tensor([0.0]))
        >>> in_pixels(moved, 8, 40)[0, 0, 2].item()                                 # half of half of 40
        -10.0
    """
    sides = matrix.new_ones(3)
    sides[0], sides[1] = w / 2, h / 2
    return matrix * (sides[:, None] / sides)


def compose(matrices: Sequence[Tensor]) -> Tensor:
    """The operations one after the other as one: S = S₁·S₂·…·S_k.

    Example:
        >>> move, turn = translation(torch.tensor([3.0]), torch.tensor([0.0])), rotation(torch.tensor([90.0]))
        >>> p = compose([move, turn])[0] @ torch.tensor([0.0, -3.0, 1.0])
        >>> torch.allclose(p, torch.tensor([0.0, 0.0, 1.0]), atol=1e-5)     # moved right, then turned: the centre is up
        True
    """
    product = matrices[0]
    for matrix in matrices[1:]:
        product = product @ matrix
    return product


def _matrices(*entries: Tensor | float) -> Tensor:
    """[N, 3, 3] from nine entries in reading order, numbers or [N]."""
    like = next(entry for entry in entries if isinstance(entry, Tensor))
    numbers = {entry: torch.full_like(like, entry) for entry in entries if not isinstance(entry, Tensor)}
    return torch.stack([entry if isinstance(entry, Tensor) else numbers[entry] for entry in entries], -1).view(-1, 3, 3)


def _adjugate(m: Tensor) -> Tensor:
    """The inverse up to a factor, which homogeneous coordinates do not see; no linear solver, no host synchronisation."""
    a, b, c, d, e, f, g, h, i = m.flatten(1).unbind(1)
    return _matrices(
        e * i - f * h, c * h - b * i, b * f - c * e,
        f * g - d * i, a * i - c * g, c * d - a * f,
        d * h - e * g, b * g - a * h, a * e - b * d,
    )  # fmt: skip
