"""Lens distortion that can be undone exactly: the one-parameter division model."""

from __future__ import annotations

from torch import Tensor


def bend(points: Tensor, strength: Tensor | float) -> Tensor:
    """Where a point of the picture behind the lens comes from.

    Formula: p_in = p / (1 + λ·|p|²). For λ > 0 the rim shows what lies nearer to the centre, so the picture is drawn out
    towards the corners (pincushion); λ < 0 draws it together (barrel).

    Args:
        points: [..., 2] in units of half the image's diagonal, so that the corners have |p| = 1.
        strength: λ, broadcast to points[..., 0], between -1 and 1.

    Returns:
        [..., 2].

    Example:
        >>> import torch
        >>> bend(torch.tensor([[0.0, 0.5], [0.6, 0.8]]), 0.25)        # a corner shows what was at 1/(1 + λ) = 0.8
        tensor([[0.0000, 0.4706],
                [0.4800, 0.6400]])

    Source: A. Fitzgibbon, "Simultaneous linear estimation of multiple view geometry and lens distortion", 2001.
    """
    squared = points.square().sum(-1)
    return points / (1 + strength * squared)[..., None]


def unbend(points: Tensor, strength: Tensor | float) -> Tensor:
    """Where a point of the image goes to behind the lens: the inverse of `bend`, in closed form.

    Formula: p = 2·p_in / (1 + √(1 - 4·λ·|p_in|²)), which solves p_in = p/(1 + λ|p|²). It has a solution within the
    picture whenever p_in = bend(p) for a |p| ≤ 1.

    Args:
        points: [..., 2] in units of half the image's diagonal.
        strength: λ, broadcast to points[..., 0], between -1 and 1.

    Example:
        >>> import torch
        >>> corner = torch.tensor([0.6, 0.8])
        >>> torch.allclose(unbend(bend(corner, 0.25), 0.25), corner)
        True
    """
    squared = points.square().sum(-1)
    return 2 * points / (1 + (1 - 4 * strength * squared).clamp(min=0).sqrt())[..., None]
