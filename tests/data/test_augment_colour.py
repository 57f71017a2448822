"""Colours pixel by pixel by the definition, the colour axes of a training set, noise and holes."""

import colorsys

import pytest
import torch

from talweg.data import Arrays, augmentation
from talweg.data.augment import colour, noise
from talweg.randomness import uniform

G = torch.Generator().manual_seed(0)
LUMA = torch.tensor([0.2989, 0.587, 0.114], dtype=torch.float64)
Y = torch.rand(6, 3, 40, generator=G, dtype=torch.float64)
Y[:, :, 0], Y[:, :, 1] = 0.0, 1.0  # black and white
Y[:, :, 2] = 0.3  # grey
Y[:, 0, 3] = Y[:, 1, 3]  # two channels equal
Y[:, 1, 4] = Y[:, 2, 4]
FACTORS = torch.tensor([0.0, 0.4, 0.9, 1.0, 1.3, 2.0], dtype=torch.float64)
TURNS = torch.tensor([-0.5, -0.3, -0.1, 0.0, 0.2, 0.5], dtype=torch.float64)


def blend(image, other, factor):
    return (factor * image + (1 - factor) * other).clamp(0, 1)


def turned(pixel, turn):
    h, s, v = colorsys.rgb_to_hsv(*pixel.tolist())
    return torch.tensor(colorsys.hsv_to_rgb((h + turn) % 1.0, s, v), dtype=torch.float64)


def by_hand(name, image, amount):  # image: [3, P]
    if name == "brightness":
        return blend(image, torch.zeros_like(image), amount)
    if name == "contrast":
        return blend(image, (LUMA @ image).mean(), amount)
    if name == "saturation":
        return blend(image, LUMA @ image, amount)
    return torch.stack([turned(pixel, amount.item()) for pixel in image.T], 1)


def ours(name, y, amounts, top):
    if name == "hue":
        return colour.hue_(y, amounts)
    return {"brightness": colour.brightness_, "contrast": colour.contrast_, "saturation": colour.saturation_}[name](
        y, amounts, top
    )


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation", "hue"])
@pytest.mark.parametrize(("dtype", "top", "tolerance"), [(torch.float64, 1.0, 1e-12), (torch.float32, 255.0, 1e-6)])
def test_each_pixel_by_the_definition(name, dtype, top, tolerance):
    amounts = TURNS if name == "hue" else FACTORS
    y = (Y * top).to(dtype)
    out = ours(name, y, amounts.to(dtype), top)
    assert out.data_ptr() == y.data_ptr()
    expected = torch.stack([by_hand(name, image, amount) for image, amount in zip(Y, amounts, strict=True)])
    assert (out.double() / top - expected).abs().max() < tolerance


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation", "hue"])
def test_no_amount_is_no_change(name):
    none = torch.zeros(6) if name == "hue" else torch.ones(6)
    assert (ours(name, Y.float(), none, 1.0) - Y.float()).abs().max() < 1e-6


@pytest.mark.parametrize("name", ["brightness", "contrast"])
def test_grey_images(name):
    grey = Y[:, :1]
    out = ours(name, grey.clone(), FACTORS, 1.0)
    other = 0 * grey if name == "brightness" else grey.mean(2, keepdim=True)
    assert torch.allclose(out, (FACTORS.view(-1, 1, 1) * grey + (1 - FACTORS.view(-1, 1, 1)) * other).clamp(0, 1))


def test_jitter_is_the_four_in_a_fixed_order_with_factors_in_range():
    n = 3000
    grey = torch.full((n, 3, 1, 2), 100, dtype=torch.uint8)
    brighter = augmentation(["jitter:0.4,0"])(grey, torch.arange(n), 0, 0)[:, 0, 0, 0] / 100
    assert 0.6 <= brighter.min() < 0.605 and 1.395 < brighter.max() <= 1.4
    assert abs(brighter.mean() - 1) < 4 * 0.8 / (12 * n) ** 0.5
    x = torch.randint(0, 256, (8, 3, 4, 5), dtype=torch.uint8, generator=G)
    u = augmentation(["jitter:0.4,0.5,0.6,0.1"])._uniform(torch.arange(8), 0, 0)["jitter"]
    y = x.double().flatten(2)
    for name, most, draw in zip(("brightness", "contrast", "saturation", "hue"), (0.4, 0.5, 0.6, 0.1), u, strict=True):
        y = ours(name, y, (2 * draw - 1) * most + (name != "hue"), 255.0)
    out = augmentation(["jitter:0.4,0.5,0.6,0.1"])(x, torch.arange(8), 0, 0)
    assert (out.flatten(2) - y).abs().max() < 1e-3


def test_grayscale_takes_the_colour_of_some():
    n = 2000
    x = torch.randint(0, 256, (n, 3, 2, 2), dtype=torch.uint8, generator=G)
    out = augmentation(["grayscale:0.3"])(x, torch.arange(n), 0, 0).double()
    grey = torch.einsum("c,nchw->nhw", LUMA, x.double())[:, None]
    is_grey = (out - grey).abs().amax((1, 2, 3)) < 1e-3
    assert abs(is_grey.double().mean() - 0.3) < 4 * (0.3 * 0.7 / n) ** 0.5
    assert torch.equal(out[~is_grey], x[~is_grey].double())


def test_colour_axes_are_those_of_all_pixels():
    mix = torch.tensor([[30.0, 0, 0], [20, 10, 0], [5, 5, 5]])
    x = (torch.randn(700, 9, 3, generator=G) @ mix.T + 128).clamp(0, 255).byte()  # [N, P, 3]
    source = Arrays(x.permute(0, 2, 1).reshape(700, 3, 3, 3), torch.zeros(700))
    axes = colour.colour_axes(source, 255.0)
    covariance = torch.cov(x.view(-1, 3).T.double() / 255, correction=0)
    assert torch.allclose(axes @ axes.T, covariance @ covariance, atol=1e-12)  # Σ λ²·p·pᵀ


def test_the_covariance_of_colour_noise():
    n, sigma = 20_000, 0.2
    mix = torch.tensor([[60.0, 0, 0], [40, 20, 0], [10, 10, 10]])
    x = (torch.randn(200, 16, 3, generator=G) @ mix.T + 128).clamp(0, 255).byte()
    source = Arrays(x.permute(0, 2, 1).reshape(200, 3, 4, 4), torch.zeros(200))
    grey = torch.full((n, 3, 1, 1), 128, dtype=torch.uint8)
    added = augmentation([f"pca_noise:{sigma}"]).fit(source)(grey, torch.arange(n), 0, 0).double().view(n, 3) - 128
    covariance = torch.cov(x.view(-1, 3).T.double() / 255, correction=0)
    expected = sigma**2 * covariance @ covariance * 255**2
    assert added.mean(0).abs().max() < 5 * (expected.diagonal() / n).max().sqrt()
    assert (torch.cov(added.T) - expected).abs().max() < 0.05 * expected.max()


def test_noise_has_the_standard_deviation_that_was_asked_for():
    x = torch.full((300, 3, 16, 16), 128, dtype=torch.uint8)
    added = augmentation(["noise:0.05"])(x, torch.arange(300), 0, 0).double() - 128
    assert abs(added.std() / (0.05 * 255) - 1) < 0.01
    assert added.mean().abs() < 0.2
    rows = added.flatten(1)
    correlation = torch.corrcoef(rows)[~torch.eye(300, dtype=torch.bool)]
    assert abs(correlation.std() * rows.shape[1] ** 0.5 - 1) < 0.05  # as of independent images
    kurtosis = (added / added.std()).pow(4).mean()
    assert abs(kurtosis - 3) < 0.05


def holes(specs, n, h, w):
    out = augmentation(specs)(torch.full((n, 1, h, w), 200, dtype=torch.uint8), torch.arange(n), 0, 0)
    assert set(out.unique().tolist()) == {0.0, 200.0}
    return out[:, 0] == 0


def test_cutout_is_a_square_cut_off_at_the_border():
    n, side = 4000, 12
    hole = holes(["cutout:0.5"], n, 24, 30)
    rows, columns = hole.any(2).sum(1), hole.any(1).sum(1)
    assert torch.equal(hole.sum((1, 2)), rows * columns)  # a rectangle
    assert rows.max() == side and columns.max() == side
    # The centre is uniform over the pixels, so each pixel's chance is the share of centres within reach.
    reach = torch.tensor([sum(0 <= c < 24 and c - 6 <= i < c + 6 for c in range(24)) / 24 for i in range(24)])
    across = torch.tensor([sum(0 <= c < 30 and c - 6 <= j < c + 6 for c in range(30)) / 30 for j in range(30)])
    assert (hole.double().mean(0) - reach[:, None] * across).abs().max() < 5 * 0.5 / n**0.5


def test_erasing_areas_and_shapes():
    n = 4000
    hole = holes(["erasing:0.6"], n, 40, 40)
    rows, columns = hole.any(2).sum(1).double(), hole.any(1).sum(1).double()
    hit = rows > 0
    assert abs(hit.double().mean() - 0.6) < 4 * (0.24 / n) ** 0.5
    area, shape = rows[hit] * columns[hit] / 1600, rows[hit] / columns[hit]
    assert area.min() > 0.01 and area.max() < 0.35
    assert abs(area.mean() - 0.175) < 0.01
    assert shape.min() < 0.4 and shape.max() > 2.6
    assert abs(shape.log().mean()) < 0.05


def test_a_draw_is_a_whole_number_in_range():
    u = torch.tensor([0.0, 0.5, 1 - 2**-24])
    assert noise.whole(u, 1_000_003).tolist() == [0, 500_001, 1_000_002]
    counts = torch.bincount(noise.whole(uniform(0, torch.arange(10_000)), 4))
    assert (counts - 2500).abs().max() < 5 * (10_000 * 3 / 16) ** 0.5
