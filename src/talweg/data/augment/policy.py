"""RandAugment: a few operations for each image, chosen at random from fourteen, all at one strength."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

import talweg.data.augment.geometry as geometry
import talweg.data.augment.tone as tone
from talweg.data.augment.colour import saturation_

STRONGEST = 30  # magnitude at which an operation is at its strongest

# The operations in the order in which they act. The first seven are curves, so they come before the one interpolation.
OPERATIONS = (
    "equalize",
    "autocontrast",
    "posterize",
    "solarize",
    "brightness",
    "contrast",
    "rotate",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
    "colour",
    "sharpness",
    "identity",
)
DRAWS = 2 * len(OPERATIONS)


@dataclass(frozen=True)
class Choice:
    """What happens to each image: for each operation [N] of 0 (not chosen), 1, or -1 (chosen, in the other direction)."""

    sign: dict[str, Tensor]
    strength: float

    def part(self, images: slice) -> Choice:
        """The choice for some of the images."""
        return Choice({name: sign[images] for name, sign in self.sign.items()}, self.strength)

    def amount(self, name: str, most: float) -> Tensor:
        """[N]: ± strength·most where the operation was chosen, else 0."""
        return self.sign[name] * (self.strength * most)

    def factor(self, name: str) -> Tensor:
        """[N]: 1 ± 0.9·strength where the operation was chosen, else 1."""
        return 1 + self.amount(name, 0.9)


def choose(u: Tensor, count: float, magnitude: float) -> Choice:
    """Chooses `count` different operations for each image, and a direction for each.

    Formula: those with the smallest of 14 draws; strength = magnitude/30.

    Args:
        u: [28, N] draws on [0, 1): 14 that choose, 14 for directions.
        count: operations for an image, 1 … 14.
        magnitude: 0 … 30.

    Example:
        >>> choice = choose(torch.rand(28, 1000), 2, 9.0)
        >>> sum(sign.abs() for sign in choice.sign.values()).unique().tolist()           # two for each image
        [2.0]

    Source: E. Cubuk, B. Zoph, J. Shlens, Q. Le, "RandAugment: practical automated data augmentation with a reduced
    search space", 2020. The paper draws with repetition and in random order; here the operations of an image differ, and
    act in the order of `OPERATIONS`. Strengths are those of torchvision's implementation.
    """
    k = len(OPERATIONS)
    places = u[:k].sort(dim=0, stable=True).indices[: int(count)]
    chosen = torch.zeros_like(u[:k]).scatter_(0, places, 1.0)
    signs = torch.where(u[k:] < 0.5, -chosen, chosen)
    return Choice(dict(zip(OPERATIONS, signs.unbind(0), strict=True)), magnitude / STRONGEST)


def toned(x: Tensor, choice: Choice, dtype: torch.dtype) -> Tensor:
    """The images after the operations that are curves.

    Strongest: 4 bits kept, all values inverted, factors 0.1 and 1.9 for brightness and contrast.

    Args:
        x: uint8 [N, C, H, W].

    Returns:
        [N, C, H, W] of the dtype, contiguous, on 0 … 255.

    Example:
        >>> still = {name: torch.zeros(1) for name in OPERATIONS}
        >>> negative = Choice(still | {"solarize": torch.ones(1)}, strength=1.0)
        >>> toned(torch.tensor([[[[0, 100, 255]]]], dtype=torch.uint8), negative, torch.float32)
        tensor([[[[255., 155.,   0.]]]])
    """
    counts = tone.histogram(x)
    chosen = {name: choice.sign[name].abs() for name in ("equalize", "autocontrast", "posterize", "solarize")}
    curve = tone.identity_curve(counts, dtype)
    curve = tone.equalize(curve, counts, chosen["equalize"])
    curve = tone.autocontrast(curve, counts, chosen["autocontrast"])
    curve = tone.posterize(curve, 8 - (chosen["posterize"] * round(4 * choice.strength)).long())
    curve = tone.solarize(curve, (256 - chosen["solarize"] * (1 + 255 * choice.strength)).to(dtype))
    curve = tone.scale_tones(curve, choice.factor("brightness").to(dtype))
    curve = tone.stretch_tones(curve, counts, choice.factor("contrast").to(dtype))
    return tone.look_up(x, curve)


def moved(choice: Choice, h: int, w: int) -> Tensor:
    """The sampling matrices [N, 3, 3] of the operations that move pixels.

    Strongest: 30° for rotate, a slope of 0.3 for shear, 150/331 of a side for translate.

    Example:
        >>> still = {name: torch.zeros(1) for name in OPERATIONS}
        >>> moved(Choice(still | {"translate_x": torch.ones(1)}, strength=0.5), 32, 331)[0, 0]
        tensor([  1.,   0., -75.])
    """
    slope = math.degrees(math.atan(0.3 * choice.strength))
    turned = geometry.rotation(choice.amount("rotate", 30.0))
    slanted = geometry.shear(choice.sign["shear_x"] * slope, choice.sign["shear_y"] * slope)
    shifted = geometry.translation(
        choice.amount("translate_x", 150 / 331 * w), choice.amount("translate_y", 150 / 331 * h)
    )
    return geometry.compose([turned, slanted, shifted])


def coloured_(y: Tensor, choice: Choice, top: float) -> Tensor:
    """Saturation (images of one channel have none to change) and sharpness, in place: [N, C, H, W]."""
    if y.shape[1] == 3:
        saturation_(y.view(*y.shape[:2], -1), choice.factor("colour").to(y.dtype), top)
    return tone.sharpness_(y, choice.factor("sharpness").to(y.dtype), top)
