"""What moves pixels: closed forms, the one interpolation beside several, the lens and its inverse, the ranges of the draws."""

import math

import pytest
import torch

from talweg.data import CropFlip, augmentation
from talweg.data.augment import geometry, sampling
from talweg.data.augment.lens import bend, unbend
from talweg.data.augment.moves import MOVES
from talweg.data.augment.spec import AUGMENTATIONS
from talweg.randomness import uniform

G = torch.Generator().manual_seed(0)
X = torch.rand(4, 3, 15, 15, generator=G, dtype=torch.float64)


def one(*values):
    return [torch.tensor([value], dtype=torch.float64) for value in values]


def warped(x, matrix, lens=None):
    grid = sampling.sampling_grid(*sampling.rays(matrix.expand(len(x), 3, 3), *x.shape[2:], x.dtype, lens))
    return sampling.warp(x, grid)


def shifted(x, right, down):
    out = torch.zeros_like(x)
    h, w = x.shape[2:]
    out[:, :, down:, right:] = x[:, :, : h - down, : w - right]
    return out


def small(x):
    out = torch.zeros_like(x)
    out[:, :, 5:10, 5:10] = x[:, :, 1::3, 1::3]
    return out


IDENTITIES = {
    "translation": geometry.translation(*one(0, 0)),
    "reflection": geometry.reflection(*one(0)),
    "scaling": geometry.scaling(*one(1, 1)),
    "rotation": geometry.rotation(*one(0)),
    "shear": geometry.shear(*one(0, 0)),
    "window": geometry.window(*one(0, 0, 1, 1)),
}
EXACT = {  # what some warps must give, to the pixel
    "right and down": (geometry.translation(*one(3, 2)), lambda x: shifted(x, 3, 2)),
    "mirrored": (geometry.reflection(*one(1)), lambda x: x.flip(3)),
    "a quarter turn, counter-clockwise": (geometry.rotation(*one(90)), lambda x: x.rot90(1, (2, 3))),
    "half a turn": (geometry.rotation(*one(180)), lambda x: x.flip(2, 3)),
    "a third of the size": (geometry.scaling(*one(1 / 3, 1 / 3)), small),
}


@pytest.mark.parametrize("name", IDENTITIES)
def test_no_amount_is_no_change(name):
    assert (warped(X, IDENTITIES[name]) - X).abs().max() < 1e-14
    assert (warped(X.float(), IDENTITIES[name]) - X.float()).abs().max() < 5e-6


@pytest.mark.parametrize("name", EXACT)
def test_exact_pixels(name):
    matrix, expected = EXACT[name]
    assert (warped(X, matrix) - expected(X)).abs().max() < 1e-12


def test_a_window_is_the_inverse_of_a_third_of_the_size():
    product = geometry.compose([geometry.window(*one(0, 0, 1 / 3, 1 / 3)), geometry.scaling(*one(1 / 3, 1 / 3))])
    assert torch.allclose(product[0], torch.eye(3, dtype=torch.float64))


def test_shear_slides_rows_and_then_columns():
    x = one(20.0)[0]
    slide = torch.tensor([[1, -math.tan(math.radians(20)), 0], [0, 1, 0], [0, 0, 1]], dtype=torch.float64)
    assert torch.allclose(geometry.shear(x, 0 * x)[0], slide.inverse())
    lift = torch.tensor([[1, 0, 0], [-math.tan(math.radians(10)), 1, 0], [0, 0, 1]], dtype=torch.float64)
    assert torch.allclose(geometry.shear(x, x / 2)[0], (lift @ slide).inverse())


def test_perspective_sends_corners_to_corners():
    rest = torch.tensor([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]], dtype=torch.float64)
    corners = rest * (1 - 0.8 * torch.rand(50, 4, 2, generator=G, dtype=torch.float64))
    matrix = geometry.in_pixels(geometry.perspective(corners), 20, 30)
    half = torch.tensor([15.0, 10.0, 1.0], dtype=torch.float64)
    points = torch.cat([corners, torch.ones(50, 4, 1)], -1) * half  # in pixels
    back = torch.einsum("nij,nkj->nki", matrix, points)
    assert torch.allclose(back[..., :2] / back[..., 2:], (rest * half[:2]).expand(50, 4, 2))
    assert torch.equal(matrix[:, 2, 2], torch.ones(50, dtype=torch.float64))


def test_the_grid_is_the_matrix_at_every_pixel():
    h, w, strength = 6, 9, torch.tensor([0.3, -0.5], dtype=torch.float64)
    matrix = torch.eye(3, dtype=torch.float64) + 0.02 * torch.randn(2, 3, 3, generator=G, dtype=torch.float64)
    y, x = torch.meshgrid(torch.arange(h) - (h - 1) / 2, torch.arange(w) - (w - 1) / 2, indexing="ij")
    p = torch.stack([x, y], -1).double()
    radius = math.hypot(h, w) / 2
    for lens in (None, strength):
        bent = p.expand(2, h, w, 2) if lens is None else bend(p / radius, lens[:, None, None]) * radius
        there = torch.einsum("nij,nhwj->nhwi", matrix, torch.cat([bent, torch.ones(2, h, w, 1)], -1))
        expected = there[..., :2] / there[..., 2:] / torch.tensor([w / 2, h / 2])
        assert torch.allclose(
            sampling.sampling_grid(*sampling.rays(matrix, h, w, torch.float64, lens)), expected, atol=1e-14
        )


def test_the_lens_and_its_inverse():
    p = torch.rand(1000, 2, generator=G, dtype=torch.float64) * 2 - 1
    p = p[p.square().sum(1) <= 1]  # inside the circle through the corners
    for strength in (-0.9, -0.3, 1e-9, 0.3, 0.9):
        assert torch.allclose(unbend(bend(p, strength), strength), p, atol=1e-12)
    corner = torch.tensor([0.6, 0.8], dtype=torch.float64)
    assert torch.allclose(bend(corner, 0.25), corner / 1.25)
    assert torch.allclose(unbend(corner / 1.25, 0.25), corner)


def scene(x, y):
    """A smooth picture, known between the pixels."""
    return torch.sin(x / 2.5) * torch.cos(y / 3.1) + torch.cos((x + y) / 4) / 2


def test_one_interpolation_is_closer_to_the_truth_than_several():
    side = 65
    place = torch.arange(side, dtype=torch.float64) - (side - 1) / 2
    image = scene(place[None, :], place[:, None])[None, None]
    ops = [
        geometry.rotation(*one(13)),
        geometry.scaling(*one(1.15, 1.15)),
        geometry.shear(*one(8, 0)),
        geometry.translation(*one(2.3, -1.6)),
    ]
    composed = geometry.compose(ops)
    once = warped(image, composed)
    several = image
    for op in ops:
        several = warped(several, op)
    y, x = torch.meshgrid(place, place, indexing="ij")
    there = torch.stack([x, y, torch.ones_like(x)], -1) @ composed[0].T
    truth = scene(there[..., 0], there[..., 1])
    middle = slice(18, -18)
    errors = [(picture[0, 0] - truth)[middle, middle].square().mean().sqrt() for picture in (once, several)]
    assert errors[0] < 0.02
    assert errors[0] < 0.4 * errors[1]


def test_crop_and_flip_in_the_grid_are_those_of_the_gather():
    x = torch.randint(0, 256, (50, 3, 16, 20), dtype=torch.uint8, generator=G)
    composed = augmentation(["crop", "flip", "rotate:1e-6"])(x, torch.arange(50), 3, 1)
    assert (composed - CropFlip()(x, torch.arange(50), 3, 1).float()).abs().max() < 0.01


@pytest.mark.parametrize("name", MOVES)
def test_the_middle_of_the_draws_is_no_change(name):
    u = torch.full((MOVES[name].draws, 1), 0.0 if name == "perspective" else 0.5, dtype=torch.float64)
    amounts = {"scale": (0.9, 1.1), "resized_crop": (1.0, 1.0)}.get(name, AUGMENTATIONS[name].usual)
    assert torch.allclose(MOVES[name].matrix(u, amounts, 16, 16)[0], torch.eye(3, dtype=torch.float64), atol=1e-12)


N = 4000


def drawn(name, amounts, h=32, w=48):
    u = uniform(1, torch.arange(MOVES[name].draws * N)).view(-1, N).double()
    return MOVES[name].matrix(u, amounts, h, w)


def is_uniform(values, low, high):
    assert low <= values.min() and values.max() <= high
    assert abs(values.mean() - (low + high) / 2) < 4 * (high - low) / (12 * N) ** 0.5
    assert abs(values.std() - (high - low) / 12**0.5) < 0.03 * (high - low)


def test_ranges_of_the_draws():
    turn = drawn("rotate", (15.0,))
    is_uniform(torch.atan2(turn[:, 1, 0], turn[:, 0, 0]).rad2deg(), -15, 15)
    is_uniform(1 / drawn("scale", (0.8, 1.2))[:, 0, 0], 0.8, 1.2)
    moved = drawn("translate", (0.1,))
    is_uniform(moved[:, 0, 2], -4.8, 4.8)
    is_uniform(moved[:, 1, 2], -3.2, 3.2)
    is_uniform(drawn("shear", (10.0,))[:, 0, 1].atan().rad2deg(), -10, 10)
    stretched = drawn("stretch", (0.2,))
    is_uniform((stretched[:, 1, 1] / stretched[:, 0, 0]).log(), -math.log(1.2), math.log(1.2))
    assert torch.allclose(stretched[:, 1, 1] * stretched[:, 0, 0], torch.ones(N, dtype=torch.float64))


def test_a_resized_crop_lies_inside_the_image():
    window = drawn("resized_crop", (0.2, 0.6))
    width, height = window[:, 0, 0], window[:, 1, 1]
    assert ((width / 2 + window[:, 0, 2].abs() / 48) <= 0.5 + 1e-12).all()
    assert ((height / 2 + window[:, 1, 2].abs() / 32) <= 0.5 + 1e-12).all()
    area, aspect = width * height, width * 48 / (height * 32)
    is_uniform(area, 0.2, 0.6)  # nothing had to be cut at these amounts
    is_uniform(aspect.log(), math.log(3 / 4), math.log(4 / 3))
    assert drawn("resized_crop", (1.0, 1.0))[:, 0, 0].max() <= 1
