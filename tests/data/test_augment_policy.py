"""RandAugment and the changes of tone that it needs, against hand-written ones and Pillow's."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps

from talweg.data import augmentation
from talweg.data.augment import policy, tone

G = torch.Generator().manual_seed(0)
# Noise, a narrow range, two values, one value, a gradient: [5, 3, 12, 16]
X = torch.randint(0, 256, (5, 3, 12, 16), dtype=torch.uint8, generator=G)
X[1] = X[1] // 8 + 60
X[2] = X[2] // 128 * 90 + 20
X[3] = 77
X[4] = torch.arange(192, dtype=torch.uint8).view(12, 16) // torch.tensor([1, 2, 3], dtype=torch.uint8).view(3, 1, 1)
ONE = torch.ones(5)


def pillow(function):
    images = [function(Image.fromarray(image.permute(1, 2, 0).numpy())) for image in X]
    return torch.stack([torch.from_numpy(np.array(image)).permute(2, 0, 1) for image in images])


def by_curve(change):
    counts = tone.histogram(X)
    return tone.look_up(X, change(tone.identity_curve(counts, torch.float32), counts))


TONES = {
    "equalize": (lambda v, n: tone.equalize(v, n, ONE), ImageOps.equalize, 0),
    "autocontrast": (lambda v, n: tone.autocontrast(v, n, ONE), ImageOps.autocontrast, 1),
    "posterize": (lambda v, n: tone.posterize(v, 3 * ONE.long()), lambda i: ImageOps.posterize(i, 3), 0),
    "solarize": (lambda v, n: tone.solarize(v, 100 * ONE), lambda i: ImageOps.solarize(i, 100), 0),
    "brightness": (lambda v, n: tone.scale_tones(v, 1.7 * ONE), lambda i: ImageEnhance.Brightness(i).enhance(1.7), 1),
    "contrast": (
        lambda v, n: tone.stretch_tones(v, n, 0.3 * ONE),
        lambda i: ImageEnhance.Contrast(i).enhance(0.3),
        1.7,
    ),
}


@pytest.mark.parametrize("name", TONES)
def test_pillow_does_the_same(name):
    ours, theirs, rounding = TONES[name]
    assert (by_curve(ours) - pillow(theirs)).abs().max() <= rounding


def test_sharpness_is_pillows():
    for factor in (0.0, 0.4, 1.9):
        out = tone.sharpness_(X.float(), factor * ONE, 255.0)
        assert (out - pillow(lambda i, f=factor: ImageEnhance.Sharpness(i).enhance(f))).abs().max() <= 1 + 0.5 * factor


def test_what_was_not_chosen_is_not_changed():
    none = torch.zeros(5)
    counts = tone.histogram(X)
    curve = tone.identity_curve(counts, torch.float32)
    for changed in (
        tone.equalize(curve, counts, none),
        tone.autocontrast(curve, counts, none),
        tone.posterize(curve, 8 * ONE.long()),
        tone.solarize(curve, 256 * ONE),
        tone.scale_tones(curve, ONE),
        tone.stretch_tones(curve, counts, ONE),
    ):
        assert torch.equal(changed, curve)
    assert torch.allclose(tone.sharpness_(X.float(), ONE, 255.0), X.float())


def test_histogram_counts():
    counts = tone.histogram(X)
    assert torch.equal(
        counts, torch.stack([torch.bincount(c.flatten(), minlength=256) for c in X.flatten(0, 1)]).view(5, 3, -1)
    )


def test_each_image_gets_so_many_operations_and_all_occur_equally_often():
    n = 7000
    choice = policy.choose(torch.rand(policy.DRAWS, n, generator=G), 3, 9.0)
    signs = torch.stack(list(choice.sign.values()))
    assert torch.equal(signs.abs().sum(0), torch.full((n,), 3.0))
    expected = n * 3 / 14
    assert (signs.abs().sum(1) - expected).abs().max() < 4.5 * expected**0.5
    assert signs.sum(1).abs().max() < 4.5 * expected**0.5  # both directions
    assert choice.strength == 9 / 30
    assert choice.factor("contrast").unique().tolist() == pytest.approx([0.73, 1.0, 1.27])


def test_an_image_for_which_identity_was_chosen_stays_as_it_is():
    n = 400
    x = torch.randint(0, 256, (n, 3, 8, 8), dtype=torch.uint8, generator=G)
    augment = augmentation(["randaugment:1,9"])
    out = augment(x, torch.arange(n), 0, 0)
    choice = policy.choose(augment._uniform(torch.arange(n), 0, 0)["randaugment"], 1, 9)
    same = (out - x).abs().amax((1, 2, 3)) < 1e-2
    assert same[choice.sign["identity"] != 0].all()
    assert 0.7 < (~same).double().mean() < 0.97


def test_one_operation_at_a_time_is_that_operation():
    n = 500
    x = X[:1].expand(n, 3, 12, 16)
    augment = augmentation(["randaugment:1,20"])
    out = augment(x, torch.arange(n), 0, 0)
    choice = policy.choose(augment._uniform(torch.arange(n), 0, 0)["randaugment"], 1, 20)
    solarized, equalized = choice.sign["solarize"] != 0, choice.sign["equalize"] != 0
    bright = x[solarized].float()
    threshold = 255 - 255 * 20 / 30
    expected = torch.where(bright >= threshold, 255 - bright, bright)
    assert solarized.any() and (out[solarized] - expected).abs().max() < 1e-2
    assert equalized.any() and (out[equalized] - pillow(ImageOps.equalize)[0]).abs().max() < 1e-2
