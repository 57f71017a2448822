"""The picture: it can be opened, shows what there is, clips nothing, and changes no global state."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from talweg.errors import UserError
from talweg.report.curves import BEST, PAPER, RATE, TRAIN, VALIDATION, moving_average, plot_curves, svg_panels


def colours(path) -> set[tuple[int, ...]]:
    return {colour for _, colour in Image.open(path).convert("RGB").getcolors(1 << 24)}


def rgb(colour: str) -> tuple[int, ...]:
    return tuple(bytes.fromhex(colour[1:]))


def test_the_picture_shows_every_series(story, tmp_path):
    summary, rows = story()
    path = tmp_path / "curves.png"
    plot_curves(rows, path, title="digits", best_step=summary["best"]["step"], monitor="accuracy")
    image = Image.open(path)
    assert image.format == "PNG"
    assert image.width == 1200
    assert {rgb(c) for c in (PAPER, TRAIN, VALIDATION, BEST, RATE)} <= colours(path)


def broken(story):
    rows = story()[1]
    for row in rows[::3]:
        row["loss"] = math.nan
    for row in rows[1::3]:
        row["loss"] = math.inf
    rows[-1].update(accuracy=math.nan, epoch=None)
    return rows


HISTORIES = {
    "none": lambda story: [],
    "one row": lambda story: story()[1][:1],
    "one evaluation": lambda story: story(epochs=1)[1][-1:],
    "no validation": lambda story: story(validation=None, accuracy=None)[1],
    "validation only": lambda story: [row for row in story()[1] if row["kind"] == "validation"],
    "not finite": broken,
    "all nan": lambda story: [{**row, "loss": math.nan, "lr": math.nan, "accuracy": math.nan} for row in story()[1]],
    "zeros": lambda story: [{**row, "loss": 0.0, "lr": 0.0} for row in story()[1]],
    "negative": lambda story: story(train=lambda e: -e, validation=lambda e: -2 * e)[1],
    "huge": lambda story: story(train=lambda e: 1e30 * math.exp(-9 * e), validation=lambda e: 1e-30)[1],
    "many metrics": lambda story: [{**row, **{f"metric_{i}": i for i in range(9)}} for row in story(epochs=2)[1]],
    "long": lambda story: story(epochs=200, per_epoch=60)[1],
}


@pytest.mark.parametrize("name", HISTORIES)
def test_any_history_gives_a_picture_with_a_clean_margin(story, tmp_path, name):
    rows = HISTORIES[name](story)
    path = tmp_path / "curves.png"
    title = "a task $x_1 with <b>any</b> name \\frac"
    plot_curves(rows, path, title=title, best_step=rows[-1]["step"] if rows else None, monitor="accuracy")
    pixels = np.asarray(Image.open(path).convert("RGB"))
    assert len(colours(path)) > 20, "blank"
    margin = np.concatenate([pixels[:2].reshape(-1, 3), pixels[-2:].reshape(-1, 3), pixels[:, :2].reshape(-1, 3)])
    assert (margin == rgb(PAPER)).all(), "something is clipped at the border"


def labels(svg: str) -> list[str]:
    return [line.split(">")[1].split("<")[0] for line in svg.splitlines() if "<text" in line]


@pytest.mark.parametrize(("decades", "logarithmic"), [(1.3, False), (1.7, True)])
def test_the_loss_axis_is_logarithmic_above_one_and_a_half_decades(decades, logarithmic):
    rows = [
        {"kind": "validation", "step": step, "epoch": step, "loss": 10 ** (-decades * step / 20)} for step in range(21)
    ]
    axis = [float(label) for label in labels(svg_panels(rows)[0][1])[-20:] if label.replace(".", "").isdigit()]
    assert (0.1 in axis and 0.5 in axis and 0.6 not in axis) == logarithmic


def test_panels_are_the_monitored_metric_first_and_at_most_three(story):
    rows = [{**row, "b": 1.0, "c": 2.0, "d": 3.0} for row in story(epochs=2)[1]]
    names = [name for name, _ in svg_panels(rows, monitor="c")]
    assert names == ["loss", "c", "accuracy", "b", "learning rate"]


def test_panels_name_the_best_and_mark_what_is_not_finite(story):
    summary, rows = story()
    rows[10]["loss"] = math.nan
    panels = dict(svg_panels(rows, best_step=summary["best"]["step"], monitor="accuracy"))
    assert "best: 99.17 %, epoch 20" in labels(panels["accuracy"])
    assert "not finite" in labels(panels["loss"])
    assert "not finite" not in labels(dict(svg_panels(story()[1]))["loss"])


def test_panels_are_themed_and_have_ids_of_their_own(story):
    svgs = [svg for _, svg in svg_panels(story(epochs=2)[1])]
    for index, svg in enumerate(svgs):
        assert "#2f6db3" not in svg
        assert "http" not in svg
        assert "<style" not in svg
        assert f'id="panel{index}-' in svg
    assert svgs == [svg for _, svg in svg_panels(story(epochs=2)[1])], "the same numbers give the same file"


def test_moving_average_is_the_weighted_mean_of_its_formula():
    x, window = np.random.default_rng(0).normal(size=30), 4.0
    distance = np.abs(np.arange(30)[:, None] - np.arange(30))
    weights = (1 - 1 / window) ** distance
    expected = (weights * x).sum(1) / weights.sum(1)
    np.testing.assert_allclose(moving_average(x, window), expected, rtol=1e-12)
    np.testing.assert_array_equal(moving_average(x, 1.0), x)


def test_a_folder_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(UserError, match="cannot write the picture"):
        plot_curves([], tmp_path / "missing" / "curves.png", title="")


def test_no_matplotlib_before_it_is_needed_and_no_pyplot_ever(tmp_path):
    code = f"""
import sys
import talweg.report
assert "matplotlib" not in sys.modules
import matplotlib
before = dict(matplotlib.rcParams)
talweg.report.plot_curves([], {str(tmp_path / "a.png")!r}, title="")
assert "matplotlib.pyplot" not in sys.modules
assert dict(matplotlib.rcParams) == before
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
