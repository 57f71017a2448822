"""The picture and the sketch show the schedule that they are given."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from talweg.errors import UserError
from talweg.report.schedule_plot import plot_schedule, sketch
from talweg.schedules import SCHEDULES, Constant, Cosine, CosineRestarts, Linear, MultiStep, OneCycle

PURPLE = (122, 79, 181)  # of the curve
MADE = {name: cls(warmup=0.1) for name, cls in SCHEDULES.items()}


def purple(path: Path) -> np.ndarray:
    """Where the picture has the colour of the curve: [height, width] of bool."""
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    return (abs(pixels - PURPLE).max(axis=2) <= 12).astype(bool)


def test_picture_shows_the_curve_and_the_shape_of_a_page(tmp_path: Path) -> None:
    path = plot_schedule(Linear(), tmp_path / "made" / "linear.png", lr=0.3, epochs=20)
    assert Image.open(path).size == (1050, 540)
    rows, columns = np.nonzero(purple(path))
    line = np.polyfit(columns, rows, 1)
    assert abs(np.polyval(line, columns) - rows).max() < 6  # a straight line that falls from corner to corner
    assert line[0] > 0.3
    assert columns.max() - columns.min() > 800
    assert rows.max() - rows.min() > 300


@pytest.mark.parametrize(
    ("schedule", "options"),
    [
        (Cosine(warmup=0.1), {}),
        (OneCycle(warmup=0.95), {"lr": 3e-4, "epochs": 20}),
        (MultiStep(), {"lr": 0.4, "epochs": 90, "title": "costs $5 and more than $4"}),
        (Constant(), {"lr": 123456.0, "epochs": 0.5}),
    ],
    ids=["warm-up", "label on the left", "title", "large rate"],
)
def test_no_text_is_cut_off(tmp_path: Path, schedule: Cosine, options: dict[str, float]) -> None:
    pixels = np.asarray(Image.open(plot_schedule(schedule, tmp_path / "a.png", **options)).convert("L"))
    border = np.concatenate([pixels[:2].ravel(), pixels[-2:].ravel(), pixels[:, :2].ravel(), pixels[:, -2:].ravel()])
    assert border.min() > 240  # only paper at the edge
    assert pixels.min() < 120


def test_warmup_is_shaded_up_to_its_end(tmp_path: Path) -> None:
    with_, without = (
        np.asarray(Image.open(plot_schedule(schedule, tmp_path / "a.png", title="same")).convert("RGB")).astype(int)
        for schedule in (Constant(warmup=0.5), Constant())
    )
    low = with_.shape[0] * 3 // 4  # a line of pixels below the curve and its label
    shaded = np.nonzero(abs(with_[low] - without[low]).sum(axis=1) > 8)[0]
    axes = np.nonzero(purple(plot_schedule(Constant(), tmp_path / "b.png")).any(axis=0))[0]
    # The curve's left end is a steep rise, so the shade is measured against the axes of the plain picture.
    assert shaded.min() == pytest.approx(axes.min(), abs=6)
    assert shaded.max() == pytest.approx((axes.min() + axes.max()) / 2, abs=6)


@pytest.mark.parametrize(
    ("path", "options", "message"),
    [
        ("curve.svg", {}, "picture's path must be a file name that ends in .png"),
        ("curve.png", {"lr": 0.0}, "lr must be a number above 0"),
        ("curve.png", {"lr": float("nan")}, "lr must be a number above 0"),
        ("curve.png", {"epochs": 0}, "epochs must be a number above 0"),
        ("file/curve.png", {}, "cannot write the picture"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, path: str, options: dict[str, float], message: str) -> None:
    (tmp_path / "file").write_text("where a folder should be")
    with pytest.raises(UserError, match=message) as caught:
        plot_schedule(Cosine(), tmp_path / path, **options)
    assert "\n" not in str(caught.value)
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("name", MADE)
@pytest.mark.parametrize(("width", "height"), [(60, 12), (24, 3), (101, 21)])
def test_sketch_keeps_to_its_size_and_shows_the_peak(name: str, width: int, height: int) -> None:
    lines = sketch(MADE[name], width, height).split("\n")
    assert len(lines) == height + 3
    assert max(len(line) for line in lines[:-1]) == width
    assert lines[-1].strip() == "warm-up until 10 % of the training"
    assert lines[0].startswith("1.00 ┤")
    assert dots(lines[0][6:])[:, 0].any()  # the peak is in the uppermost row of dots
    assert sum(line.startswith("0.50 ┤") for line in lines) == 1


@pytest.mark.parametrize("schedule", [Cosine(), Linear(end=0.2), CosineRestarts(), MultiStep()], ids=repr)
def test_sketch_has_a_dot_where_the_curve_is(schedule: Cosine) -> None:
    columns, height = 54, 12
    drawing = np.stack([dots(line[6:].ljust(columns)) for line in sketch(schedule).split("\n")[:height]])
    field = drawing.transpose(0, 2, 1).reshape(4 * height, 2 * columns)  # [rows of dots, columns of dots]
    for x in range(2 * columns):
        level = (1.0 - schedule(x / (2 * columns - 1))) * (4 * height - 1)
        assert field[round(level), x]
    assert field.sum() < 6 * columns  # a line, not an area


def test_sketch_without_warmup_has_no_line_on_it() -> None:
    lines = sketch(Constant()).split("\n")
    assert len(lines) == 14
    assert lines[0] == "1.00 ┤" + "⠉" * 54
    assert [line[5:] for line in lines[1:12]] == ["│"] * 5 + ["┤"] + ["│"] * 5
    assert lines[13].split() == ["0", "%", "25", "%", "50", "%", "75", "%", "100", "%"]
    assert [lines[12][at] for at in (6, lines[13].index("25 %") + 2, 59)] == ["┬"] * 3


@pytest.mark.parametrize(("width", "height", "message"), [(23, 9, "width must be 24"), (60, 2, "height must be 3")])
def test_sketch_too_small(width: int, height: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        sketch(Cosine(), width, height)


def dots(line: str) -> np.ndarray:
    """The dots of a line of braille characters: [2 · characters, 4] of bool, from the left and from the top."""
    code = np.array([ord(letter) - 0x2800 if letter != " " else 0 for letter in line])
    bits = np.array([[0x01, 0x02, 0x04, 0x40], [0x08, 0x10, 0x20, 0x80]])
    return (code[:, None, None] & bits).astype(bool).reshape(-1, 4)
