"""One sampling grid for everything that moves pixels, with a lens, and one interpolation through it."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

_NEAREST = 1e-3  # smallest depth of a point: what lies behind a perspective's horizon is sent far outside the image


class Rays(NamedTuple):
    """Where the pixels of the result come from, as a function of the column plus one of the row (see `rays`)."""

    across: Tensor  # [N, 3 or 2, W]
    down: Tensor  # [N, 3 or 2, H]

    def part(self, images: slice) -> Rays:
        """Those of some of the images."""
        return Rays(self.across[images], self.down[images])


def rays(
    matrix: Tensor, h: int, w: int, dtype: torch.dtype, lens: Tensor | None = None, *, affine: bool = False
) -> Rays:
    """All sampling matrices of a batch, made ready for `sampling_grid`.

    Formula: (X, Y, Z) = S·(x, y, 1 + λ·r²) with r² = (x² + y²)/R² and R half the diagonal; the pixel shows (X/Z, Y/Z).
    The factor 1 + λ·r² is the lens (see `lens.bend`), which in homogeneous coordinates costs nothing. Each of X, Y, Z
    is a function of the column plus one of the row: so a pixel costs an addition for each, and no multiplication.

    Args:
        matrix: [N, 3, 3] sampling matrices in pixels.
        h, w: the size of the images.
        dtype: of the images.
        lens: [N] strengths λ, between -1 and 1, of a lens that acts last; none: no lens.
        affine: the last rows are known to be (0, 0, 1), and there is no lens: then Z = 1 is left out.

    Example:
        >>> from talweg.data.augment import geometry
        >>> across, down = rays(geometry.translation(torch.tensor([0.5]), torch.tensor([0.0])), 2, 4, torch.float32, affine=True)
        >>> across[0, 0], down[0, 0]                                    # x of each column; half a pixel = 0.25 less of it
        (tensor([-0.7500, -0.2500,  0.2500,  0.7500]), tensor([-0.2500, -0.2500]))
    """
    x, y = (torch.arange(side, device=matrix.device, dtype=matrix.dtype) - (side - 1) / 2 for side in (w, h))
    rows = 2 if affine else 3
    size = matrix.new_ones(rows, 1)
    size[0], size[1] = 2 / w, 2 / h  # grid_sample's unit is half a side
    a, b, depth = (matrix[:, :rows] * size)[..., None].unbind(2)  # [N, rows, 1] each
    across, down = a * x, b * y + depth
    if lens is not None:
        bend = depth * (lens / ((h * h + w * w) / 4))[:, None, None]
        across, down = across + bend * (x * x), down + bend * (y * y)
    return Rays(across.to(dtype), down.to(dtype))


def sampling_grid(across: Tensor, down: Tensor) -> Tensor:
    """The grid for `warp`: for each pixel of the result, where it comes from.

    Args:
        across, down: see `rays`.

    Returns:
        [N, H, W, 2] points in torch's convention for `grid_sample(align_corners=False)`, stored as planes [N, 2, H, W].

    Example:
        >>> sampling_grid(*rays(torch.eye(3).expand(1, 3, 3), 2, 4, torch.float32))[0, 0]
        tensor([[-0.7500, -0.5000],
                [-0.2500, -0.5000],
                [ 0.2500, -0.5000],
                [ 0.7500, -0.5000]])
    """
    plane = across[:, :2, None, :] + down[:, :2, :, None]
    if across.shape[1] == 3:
        plane /= (across[:, 2:, None, :] + down[:, 2:, :, None]).clamp_(min=_NEAREST)
    return plane.permute(0, 2, 3, 1)


def warp(x: Tensor, grid: Tensor) -> Tensor:
    """The images seen through a grid, interpolated linearly; outside an image everything is 0.

    Args:
        x: [N, C, H, W] floats.
        grid: [N, H, W, 2] of the same dtype.

    Returns:
        [N, C, H, W], contiguous.

    Example:
        >>> x = torch.tensor([[[[1.0, 2.0, 3.0, 4.0]]]])
        >>> from talweg.data.augment import geometry
        >>> half = geometry.translation(torch.tensor([0.5]), torch.tensor([0.0]))
        >>> warp(x, sampling_grid(*rays(half, 1, 4, torch.float32)))
        tensor([[[[0.5000, 1.5000, 2.5000, 3.5000]]]])
    """
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
