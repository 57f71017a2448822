"""What follows the interpolation, drawn at random: changes of colour, noise and holes, each for a block of images."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

import talweg.data.augment.colour as colour
import talweg.data.augment.noise as noise
from talweg.data.augment.moves import centred
from talweg.data.augment.spec import Amounts

Stage = Callable[[Tensor, slice], Any]  # changes the images `part` of a batch, y: [n, C, H, W], in place

DRAWS = {"jitter": 4, "grayscale": 1, "pca_noise": 3, "noise": 1, "cutout": 2, "erasing": 5}  # that a sample needs


def stages(
    u: Mapping[str, Tensor],
    amounts: Mapping[str, Amounts],
    tables: Mapping[str, Tensor],
    shape: torch.Size,
    dtype: torch.dtype,
    top: float,
) -> Iterator[Stage]:
    """Brightness, contrast, saturation, hue, colour noise, noise, cutout and erasing: those asked for, in this order.

    Formula: factors are uniform on 1 - a … 1 + a and the turn of the hue on -a … a, with a fresh draw for each; the images
    that grayscale chooses have saturation 0; the weights of colour noise are normal.

    Args:
        u: draws by name, [k, N] on [0, 1).
        amounts: by name.
        tables: "axes" [3, 3] for pca_noise and "normals" [L] for noise (see `colour`, `noise`).
        shape: [N, C, H, W].
        dtype: of the images.
        top: the value of white.
    """
    factors: dict[str, Tensor] = {}
    if "jitter" in u:
        for name, draw, most in zip(("b", "c", "s", "h"), u["jitter"], amounts["jitter"], strict=True):
            if most:
                factors[name] = (centred(draw, most) + (name != "h")).to(dtype)
    if "grayscale" in u:
        coloured = (u["grayscale"][0] >= amounts["grayscale"][0]).to(dtype)
        factors["s"] = factors["s"] * coloured if "s" in factors else coloured
    if "b" in factors:
        yield lambda y, part: colour.brightness_(_planes(y), factors["b"][part], top)
    if "c" in factors:
        yield lambda y, part: colour.contrast_(_planes(y), factors["c"][part], top)
    if "s" in factors:
        yield lambda y, part: colour.saturation_(_planes(y), factors["s"][part], top)
    if "h" in factors:
        yield lambda y, part: colour.hue_(_planes(y), factors["h"][part])
    if "pca_noise" in u:
        normal = torch.erfinv(2 * u["pca_noise"].clamp(min=2**-25) - 1)  # 0 would be minus infinity
        weights = (normal * (math.sqrt(2) * amounts["pca_noise"][0])).T.to(dtype)  # [N, 3]
        yield lambda y, part: colour.pca_noise_(_planes(y), weights[part], tables["axes"], top)
    if "noise" in u:
        yield lambda y, part: noise.gaussian_noise_(y, u["noise"][0, part], tables["normals"], top)
    for name, draw_box in (("cutout", noise.cutout_box), ("erasing", noise.erasing_box)):
        if name in u:
            box = draw_box(u[name], amounts[name][0], *shape[2:])
            yield _eraser(box)


def _eraser(box: noise.Box) -> Stage:
    return lambda y, part: noise.erase_(y, noise.Box(*(edge[part] for edge in box)))


def _planes(y: Tensor) -> Tensor:
    """[N, C, H, W] as [N, C, H·W], the same memory."""
    return y.view(y.shape[0], y.shape[1], -1)
