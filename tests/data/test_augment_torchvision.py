"""The same as torchvision where torchvision can be imported; skipped elsewhere (nothing depends on it)."""

import pytest
import torch

from talweg.data.augment import colour, geometry, sampling

N, H, W = 6, 40, 56
G = torch.Generator().manual_seed(0)
A, B = (torch.rand(2, N, generator=G) * 2 - 1).double()


@pytest.fixture(scope="module")
def functional():
    """torchvision's functions; a build for another kind of device lacks two operators that its import asks for."""
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    try:
        from torchvision.transforms.v2 import functional
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"torchvision: {error}")
    return functional


def smooth():
    """Images without edges, on 0 … 1."""
    y, x = torch.meshgrid(torch.arange(H) / H, torch.arange(W) / W, indexing="ij")
    phase = torch.rand(N, 3, 1, 1, generator=G) * 6
    return (torch.sin(5 * x + phase) * torch.cos(4 * y - phase)) / 2 + 0.5


def bilinear():
    from torchvision.transforms import InterpolationMode

    return InterpolationMode.BILINEAR


def affine(f, image, angle=0.0, translate=(0.0, 0.0), scale=1.0, shear=(0.0, 0.0)):
    return f.affine(image, angle, list(translate), scale, list(shear), interpolation=bilinear())


def quadrilateral(k):
    inwards = torch.rand(4, 2, generator=torch.Generator().manual_seed(k)) * 0.4
    return torch.tensor([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]]) * (1 - inwards)


def perspective(f, image, k):
    half = torch.tensor([W / 2, H / 2])
    start, end = ([[0, 0], [W, 0], [W, H], [0, H]], ((quadrilateral(k) + 1) * half).tolist())
    return f.perspective(image, start, end, interpolation=bilinear())


ZERO = torch.zeros_like(A)
GEOMETRY = {
    "rotation": (geometry.rotation(40 * A), lambda f, x, k: f.rotate(x, 40 * A[k].item(), bilinear())),
    "translation": (
        geometry.translation(5 * A, 7 * B),
        lambda f, x, k: affine(f, x, translate=(5 * A[k].item(), 7 * B[k].item())),
    ),
    "scaling": (geometry.scaling(1.5**A, 1.5**A), lambda f, x, k: affine(f, x, scale=1.5 ** A[k].item())),
    "shear": (geometry.shear(30 * A, 20 * B), lambda f, x, k: affine(f, x, shear=(30 * A[k].item(), 20 * B[k].item()))),
    "affine": (  # torchvision turns clockwise here, after shear and scale, and moves last
        geometry.compose(
            [
                geometry.shear(20 * B, ZERO),
                geometry.scaling(1.2**A, 1.2**A),
                geometry.rotation(-30 * A),
                geometry.translation(4 * B, 3 * A),
            ]
        ),
        lambda f, x, k: affine(
            f, x, 30 * A[k].item(), (4 * B[k].item(), 3 * A[k].item()), 1.2 ** A[k].item(), (20 * B[k].item(), 0.0)
        ),
    ),
    "reflection": (geometry.reflection(ZERO + 1), lambda f, x, k: f.horizontal_flip(x)),
    "perspective": (
        geometry.in_pixels(geometry.perspective(torch.stack([quadrilateral(k) for k in range(N)]).double()), H, W),
        perspective,
    ),
}


@pytest.mark.parametrize("name", GEOMETRY)
def test_what_moves_pixels(functional, name):
    x = smooth()
    matrix, theirs = GEOMETRY[name]
    grid = sampling.sampling_grid(*sampling.rays(matrix, H, W, torch.float32))
    ours, inside = sampling.warp(x, grid), sampling.warp(torch.ones_like(x), grid) > 0.9999
    expected = torch.cat([theirs(functional, x[k : k + 1], k) for k in range(N)])
    assert (ours - expected)[inside].abs().max() < 1e-5
    assert (ours - expected).abs().max() < 1e-4  # at the edge to black, torchvision's rounding of the place shows more


FACTORS = torch.tensor([0.0, 0.3, 0.8, 1.0, 1.4, 2.0])
TURNS = torch.tensor([-0.5, -0.2, -0.05, 0.0, 0.1, 0.5])
COLOURS = {
    "adjust_brightness": (lambda y: colour.brightness_(y, FACTORS, 1.0), FACTORS),
    "adjust_contrast": (lambda y: colour.contrast_(y, FACTORS, 1.0), FACTORS),
    "adjust_saturation": (lambda y: colour.saturation_(y, FACTORS, 1.0), FACTORS),
    "adjust_hue": (lambda y: colour.hue_(y, TURNS), TURNS),
}


@pytest.mark.parametrize("name", COLOURS)
def test_colours(functional, name):
    x = torch.rand(N, 3, H, W, generator=G)
    change, amounts = COLOURS[name]
    theirs = torch.stack([getattr(functional, name)(image, a.item()) for image, a in zip(x, amounts, strict=True)])
    assert (change(x.flatten(2).clone()).view_as(x) - theirs).abs().max() < 2e-6
