"""Views at test time: copied bit by bit, and averaged as probabilities."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from talweg.data.views import Viewed, averaged, multi_scale, rescaled, ten_crops
from talweg.errors import UserError

G = torch.Generator().manual_seed(0)


# height, width, size, upper left corner of the central window
@pytest.mark.parametrize(
    ("h", "w", "size", "centre"),
    [
        (8, 8, 7, (0, 0)),
        (8, 8, 6, (1, 1)),
        (9, 12, 6, (2, 3)),
        (8, 11, 3, (2, 4)),
        (5, 7, 5, (0, 1)),
        (6, 6, 6, (0, 0)),
    ],
)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64])
def test_ten_crops_are_copied_bit_by_bit(h, w, size, centre, dtype):
    x = torch.randint(0, 256, (3, 2, h, w), generator=G).to(dtype)
    views = ten_crops(x, size)
    assert views.dtype == dtype
    pixels = x.numpy()
    for half, images in enumerate((pixels, pixels[..., ::-1])):
        for k, (i, j) in enumerate([(0, 0), (0, w - size), (h - size, 0), (h - size, w - size), centre]):
            expected = images[..., i : i + size, j : j + size]
            assert np.array_equal(views[5 * half + k].numpy(), expected)
            assert views[5 * half + k].is_contiguous(memory_format=torch.channels_last)


def test_a_mirrored_image_has_the_same_ten_views():
    x = torch.rand(2, 3, 6, 6, generator=G)
    ours, mirrored = ({view.numpy().tobytes() for view in ten_crops(images, 4)} for images in (x, x.flip(3)))
    assert ours == mirrored
    assert len(ours) == 10


@pytest.mark.parametrize(("h", "w", "side", "size"), [(20, 30, 10, (10, 15)), (9, 7, 20, (26, 20)), (12, 8, 5, (8, 5))])
def test_rescaling_is_that_of_pillow(h, w, side, size):
    x = torch.rand(1, 1, h, w, generator=G) * 255
    image = Image.fromarray(x[0, 0].numpy()).resize(size[::-1], Image.Resampling.BILINEAR)
    found = rescaled(x, side)
    assert found.shape[2:] == size
    assert torch.allclose(found[0, 0], torch.from_numpy(np.array(image)), atol=1e-3)


def test_rescaling_keeps_what_has_the_size():
    x = torch.rand(1, 3, 8, 9, generator=G)
    assert rescaled(x, 8) is x
    assert torch.equal(rescaled((x * 255).byte(), 8), (x * 255).byte().float())
    assert rescaled(x.double(), 4).dtype == torch.float64


def test_scales_are_made_one_by_one():
    x = torch.rand(2, 3, 8, 8, generator=G)
    views = list(multi_scale(x, 6, (6, 8, 10)))
    assert len(views) == 30
    for start, side in ((0, 6), (10, 8), (20, 10)):
        expected = ten_crops(rescaled(x, side), 6)
        assert all(torch.equal(a, b) for a, b in zip(views[start : start + 10], expected, strict=True))
    seen = []
    averaged(lambda view: torch.zeros(2, 4), (seen.append(1) or view for view in multi_scale(x, 6, (6, 8))))
    assert len(seen) == 20


@pytest.mark.parametrize(
    ("dtype", "result"),
    [(torch.float64, torch.float64), (torch.float32, torch.float32), (torch.bfloat16, torch.float32)],
)
def test_probabilities_are_averaged_and_not_logits(dtype, result):
    logits = torch.randn(7, 5, 3, generator=G).to(dtype)
    turn = iter(logits)
    p = averaged(lambda view: next(turn), torch.zeros(7, 5, 1, 2, 2))
    assert p.dtype == result
    values = logits.double().numpy()
    shares = np.exp(values) / np.exp(values).sum(2, keepdims=True)
    assert np.allclose(p.numpy(), shares.mean(0), atol=1e-12 if result == torch.float64 else 1e-6)
    assert torch.allclose(p.sum(1), torch.ones(5, dtype=result))


def test_the_logarithm_of_the_average_may_stand_for_logits():
    logits = torch.randn(10, 4, 3, generator=G, dtype=torch.float64)
    turn, y = iter(logits), torch.tensor([0, 2, 1, 1])
    p = averaged(lambda view: next(turn), torch.zeros(10, 4, 1, 2, 2))
    loss = torch.nn.functional.cross_entropy(p.log(), y)
    assert torch.allclose(loss, -p[torch.arange(4), y].log().mean())


@pytest.mark.parametrize("sides", [(), (6, 9)])
def test_a_viewed_model_stands_where_the_model_stood(sides):
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.9), nn.Linear(3 * 5 * 5, 4))
    viewed = Viewed(model, 5, sides)
    x = torch.rand(6, 3, 8, 8, generator=G)
    viewed.eval()
    with torch.no_grad():
        expected = averaged(model, multi_scale(x, 5, sides) if sides else ten_crops(x, 5))
        assert torch.allclose(viewed(x).exp(), expected)
        model[2].weight.mul_(1e6)
        assert torch.isfinite(viewed(x)).all()  # where a probability is 0


BAD = [
    (
        lambda: ten_crops(torch.zeros(2, 3, 4, 4), 5),
        "size must be between 1 and the shorter side of the images (4 × 4)",
    ),
    (lambda: ten_crops(torch.zeros(2, 3, 4, 4), 0), "size must be between 1 and"),
    (lambda: ten_crops(torch.zeros(3, 4, 4), 2), "views are taken of images [N, C, H, W], received a batch of shape"),
    (lambda: rescaled(torch.zeros(4), 2), "views are taken of images"),
    (lambda: rescaled(torch.zeros(1, 1, 4, 4), 0), "side must be at least 1 pixel, received 0"),
    (
        lambda: list(multi_scale(torch.zeros(1, 1, 4, 4), 3, ())),
        "sides must be lengths of at least size=3, received ()",
    ),
    (lambda: list(multi_scale(torch.zeros(1, 1, 4, 4), 3, (4, 2))), "sides must be lengths of at least size=3"),
    (lambda: averaged(lambda x: x, []), "there is no view to average over"),
    (
        lambda: averaged(lambda x: x, torch.zeros(2, 3, 1, 4, 4)),
        "views are averaged over logits [N, classes], received",
    ),
]


@pytest.mark.parametrize(("call", "start"), BAD, ids=[str(i) for i in range(len(BAD))])
def test_what_has_no_views_is_said_in_one_line(call, start):
    with pytest.raises(UserError) as caught:
        call()
    assert str(caught.value).startswith(start)
    assert "\n" not in str(caught.value)
