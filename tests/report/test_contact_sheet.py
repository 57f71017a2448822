"""Contact sheets: pixels are shown as they are, words fit, statistics are those of NumPy."""

import numpy as np
import pytest
import torch
from PIL import Image

from talweg.errors import UserError
from talweg.report import contact_sheet as module
from talweg.report.contact_sheet import contact_sheet
from talweg.report.pixel_statistics import pixel_statistics

G = torch.Generator().manual_seed(0)
PAPER = tuple(int(module.PAPER[i : i + 2], 16) for i in (1, 3, 5))


def read(path):
    return np.asarray(Image.open(path).convert("RGB"))


def find(sheet, tile):
    """Where a tile lies on the sheet, pixel for pixel: (x, y), or None."""
    h, w = tile.shape[:2]
    corners = np.argwhere((sheet[: -h + 1, : -w + 1] == tile[0, 0]).all(2))
    return next(((x, y) for y, x in corners.tolist() if np.array_equal(sheet[y : y + h, x : x + w], tile)), None)


@pytest.mark.parametrize(
    ("side", "factor", "channels"),
    [(8, 12, 1), (28, 3, 1), (32, 3, 3), (64, 2, 3), (96, 1, 3), (200, 1, 3), (32, 3, 4)],
)
def test_every_image_is_shown_pixel_by_pixel(tmp_path, side, factor, channels):
    x = torch.randint(0, 256, (6, channels, side, side), dtype=torch.uint8, generator=G)
    sheet = read(contact_sheet(x, [""] * 6, tmp_path / "a.png", columns=3, limits=(0, 255)))
    places = []
    for image in x:
        pixels = image[:3].expand(3, -1, -1).permute(1, 2, 0).numpy().repeat(factor, 0).repeat(factor, 1)
        places.append(find(sheet, pixels))
    step = side * factor + 8
    left, top = places[0]
    assert places == [(left + step * (i % 3), top + step * (i // 3)) for i in range(6)]


def test_large_images_are_reduced(tmp_path):
    x = torch.full((1, 3, 448, 896), 200, dtype=torch.uint8)
    x[:, :, :, 448:] = 10
    sheet = read(contact_sheet(x, [""], tmp_path / "a.png", limits=(0, 255)))
    shown = np.repeat([[200] * 112 + [10] * 112], 112, 0)[:, :, None].repeat(3, 2).astype(np.uint8)
    assert find(sheet, shown) is not None


def test_black_and_white_are_the_smallest_and_largest_values(tmp_path):
    x = torch.tensor([-1.0, 0.0, 3.0]).view(3, 1, 1, 1).expand(3, 1, 8, 8)
    sheet = read(contact_sheet(x, [""] * 3, tmp_path / "a.png"))
    for grey in (0, 64, 255):
        assert find(sheet, np.full((96, 96, 3), grey, np.uint8)) is not None


LABELS = [
    "a",
    "a very long name of a class that cannot possibly fit below an image",
    "犬",
    "$x^2$ a_b",
    "two\nlines",
    "",
]


@pytest.mark.filterwarnings("ignore:Glyph .* missing from")
def test_words_fit(tmp_path, monkeypatch):
    """No ink touches the border of the picture, and no label reaches into the next column."""
    drawn = []
    text = module._Page.text

    def noted(self, x, y, words, width, **style):
        text(self, x, y, words, width, **style)
        drawn.append((self.figure.texts[-1].get_window_extent(self.renderer), x, width, style.get("align", "left")))

    monkeypatch.setattr(module._Page, "text", noted)
    x = torch.randint(0, 256, (6, 3, 32, 32), dtype=torch.uint8, generator=G)
    statistics = {"stored": pixel_statistics(x), "a very long name of a stage " * 3: pixel_statistics(x.float() * 1e6)}
    path = contact_sheet(
        x,
        LABELS,
        tmp_path / "a.png",
        columns=3,
        heading="one heading " * 30,
        notes=["note " * 90],
        titles=["stored", "epoch 1", "a title that is much too long"],
        statistics=statistics,
    )
    assert len(drawn) > 40
    for box, at, width, align in drawn:
        low, high = (at, at + width) if align == "left" else (at - width, at)
        assert low - 2 <= box.x0
        assert box.x1 <= high + 2
    sheet = read(path)
    for border in (sheet[:12], sheet[-12:], sheet[:, :12], sheet[:, -12:]):
        assert (border == PAPER).all()


def test_statistics_are_those_of_numpy():
    x = torch.randint(3, 200, (5, 3, 7, 6), dtype=torch.uint8, generator=G)
    for c, channel in enumerate(pixel_statistics(x)):
        values = x[:, c].numpy().astype(float)
        assert np.allclose(channel[:4], (values.mean(), values.std(), values.min(), values.max()), rtol=1e-12)
        assert channel.counts.sum() == values.size
        widths = np.diff(channel.edges)
        assert np.allclose(widths, round(widths[0]))  # a whole number of grey levels
        assert channel.levels == values.max() - values.min() + 1


def test_a_normalised_histogram_has_the_bars_of_the_stored_one():
    x = torch.randint(0, 256, (40, 1, 8, 8), dtype=torch.uint8, generator=G)
    stored = pixel_statistics(x)
    normalised = pixel_statistics((x.float() - 120.0) / 70.0, [channel.levels for channel in stored])
    assert np.array_equal(stored[0].counts, normalised[0].counts)


@pytest.mark.parametrize("value", [7, 2.5])
def test_a_constant_channel_has_statistics(tmp_path, value):
    x = torch.full((2, 1, 4, 4), value)
    found = pixel_statistics(x)
    assert found[0][:4] == (value, 0, value, value)
    assert contact_sheet(x, ["", ""], tmp_path / "a.png", statistics={"stored": found}).stat().st_size > 1000


X = torch.zeros(2, 3, 4, 4)
BAD = [
    (lambda p: contact_sheet(X, ["a", "b"], p / "a.jpg"), "the picture's path must be a file name that ends in .png"),
    (lambda p: contact_sheet(X, ["a"], p / "a.png"), "labels must be as many as there are images (2), received 1"),
    (
        lambda p: contact_sheet(X[0], [], p / "a.png"),
        "a contact sheet shows images [N, C, H, W], received shape [3, 4, 4]",
    ),
    (lambda p: contact_sheet(X[:0], [], p / "a.png"), "a contact sheet shows images [N, C, H, W], received shape [0,"),
    (
        lambda p: contact_sheet(X, ["", ""], p / "a.png", titles=["x"], columns=2),
        "titles must be one for each of the 2",
    ),
    (lambda p: contact_sheet(X, ["", ""], p / "a.png", columns=-1), "columns must be a number of images"),
    (lambda p: contact_sheet(X, ["", ""], p / "f" / "a.png"), "cannot write the picture"),
    (lambda p: pixel_statistics(X[0]), "statistics are taken of images [N, C, H, W], received shape [3, 4, 4]"),
    (lambda p: pixel_statistics(X / 0), "channel 0 of the images holds a NaN or an infinity"),
]


@pytest.mark.parametrize(("call", "start"), BAD, ids=[str(i) for i in range(len(BAD))])
def test_mistakes_are_said_in_one_line(tmp_path, call, start):
    (tmp_path / "f").write_text("a file")
    with pytest.raises(UserError) as caught:
        call(tmp_path)
    assert str(caught.value).startswith(start)
    assert "\n" not in str(caught.value)
