"""Learning curves: loss, metrics and learning rate against the epoch, as one PNG or as themed SVG panels."""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from talweg.errors import UserError
from talweg.report.formats import Row, epoch_text, finite, is_share, metric, metric_names, rows_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Floats = NDArray[np.float64]

# Blue and orange differ for every kind of colour vision. The SVG panels replace each colour by its CSS variable.
INK, MUTED, GRID, PAPER = "#1f2933", "#5f6c7b", "#e4e8ee", "#fefefe"
TRAIN, VALIDATION, BEST, RATE = "#2f6db3", "#d9651f", "#11845b", "#7a4fb5"
CSS_NAMES = {
    INK: "--ink",
    MUTED: "--muted",
    GRID: "--grid",
    PAPER: "--paper",
    TRAIN: "--train",
    VALIDATION: "--validation",
    BEST: "--best",
    RATE: "--rate",
}
LOG_DECADES = 1.5
MOST_METRICS = 3
MOST_POINTS = 800

Panel = tuple[str, float, Callable[["Axes"], None]]
"""Name, relative height, and the function that draws it."""


def plot_curves(
    rows: Iterable[Row],
    path: str | PathLike[str],
    *,
    title: str,
    best_step: int | None = None,
    monitor: str | None = None,
) -> None:
    """Draws loss, metrics and learning rate over a common axis of epochs into a PNG.

    Training losses are points with their moving average (`moving_average`), validation losses a line with
    markers; the loss axis is logarithmic if it spans more than 1.5 decades. Values that are not finite are left out
    of the lines and marked at the top of the panel. At most three metrics are drawn, the monitored one first.

    Args:
        rows: rows of `history.jsonl`, of kinds "train" and "validation"; none, one or many.
        path: file to write.
        title: heading of the picture.
        best_step: step of the evaluation to mark as best, if any.
        monitor: name of the metric to draw first.

    Raises:
        UserError: the file cannot be written.

    Example:
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "curves.png"
        >>> plot_curves([{"kind": "train", "step": 1, "epoch": 0.1, "loss": 2.3, "lr": 0.01}], path, title="digits")
        >>> path.read_bytes()[1:4]
        b'PNG'
    """
    # matplotlib costs most of a second to import; runs that draw nothing need not wait for it.
    from matplotlib.figure import Figure

    panels = _panels(rows, best_step, monitor)
    heights = [height for _, height, _ in panels]
    figure = Figure(figsize=(8.0, 0.7 + sum(heights)), dpi=150, facecolor=PAPER)
    figure.set_layout_engine("constrained", h_pad=0.09)
    figure.suptitle(title, x=0.012, ha="left", fontsize=13, fontweight="bold", color=INK, parse_math=False)
    axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    for ax, (_, _, draw) in zip(axes, panels, strict=True):
        _style(ax)
        draw(ax)
    axes[-1].set_xlabel("epoch", color=MUTED, fontsize=10)
    _save(figure, path, format="png")


def svg_panels(
    rows: Iterable[Row], *, best_step: int | None = None, monitor: str | None = None
) -> list[tuple[str, str]]:
    """The panels of `plot_curves` as (name, inline SVG) pairs, coloured by CSS variables (`CSS_NAMES`).

    Example:
        >>> rows = [{"kind": "train", "step": 1, "epoch": 0.1, "loss": 2.3, "lr": 0.01}]
        >>> [name for name, svg in svg_panels(rows)], "var(--train)" in svg_panels(rows)[0][1]
        (['loss', 'learning rate'], True)
    """
    import matplotlib
    from matplotlib.figure import Figure

    panels = []
    for index, (name, _, draw) in enumerate(_panels(rows, best_step, monitor)):
        figure = Figure(figsize=(4.2, 3.0), facecolor="none", layout="constrained")
        ax = figure.subplots()
        _style(ax)
        draw(ax)
        ax.set_xlabel("epoch", color=MUTED, fontsize=10)
        buffer = io.StringIO()
        # Text stays text, and the same numbers give the same file.
        with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
            _save(figure, buffer, format="svg", metadata={"Date": None})
        panels.append((name, _themed(buffer.getvalue(), f"panel{index}-")))
    return panels


def moving_average(values: Floats, window: float) -> Floats:
    """Two-sided exponential moving average: no bias towards zero at the ends, no lag behind a falling loss.

    Formula: m_t = Σ_s β^|t−s|·x_s / Σ_s β^|t−s| with β = 1 − 1/window.

    Args:
        values: x: [n], finite.
        window: number of values averaged to each side, at least 1.

    Example:
        >>> moving_average(np.array([5.0, 4.0, 3.0, 2.0, 1.0]), window=2.0)[2]   # a straight line is not moved
        np.float64(3.0)

    Source: dividing by the sum of the weights is Adam's correction (Kingma & Ba, 2015, section 3).
    """
    beta = 1 - 1 / max(window, 1.0)

    def sums(x: Floats) -> Floats:
        """Σ_{s ≤ t} β^(t−s)·x_s for every t."""
        total, out = 0.0, np.empty_like(x)
        for t, value in enumerate(x.tolist()):
            total = beta * total + value
            out[t] = total
        return out

    def both_sides(x: Floats) -> Floats:
        return sums(x) + sums(x[::-1])[::-1] - x

    return both_sides(values) / both_sides(np.ones_like(values))


@dataclass(frozen=True, kw_only=True)
class _Series:
    """One figure against the epoch; `bad` are the epochs at which it was not finite."""

    epochs: Floats
    values: Floats
    bad: Floats

    @classmethod
    def of(cls, rows: Sequence[Row], name: str) -> _Series:
        known = [row for row in rows if row.get(name) is not None]
        points = [(epoch, row[name]) for row in known if (epoch := finite(row.get("epoch"))) is not None]
        good = [(epoch, float(value)) for epoch, value in points if finite(value) is not None]
        epochs, values = np.array(good or np.empty((0, 2)), dtype=np.float64).T
        bad = np.array([epoch for epoch, value in points if finite(value) is None], dtype=np.float64)
        return cls(epochs=epochs, values=values, bad=bad)


def _panels(rows: Iterable[Row], best_step: int | None, monitor: str | None) -> list[Panel]:
    """What there is to draw, each panel with the mark of the best evaluation."""
    rows = list(rows)
    train, validation = rows_of(rows, "train"), rows_of(rows, "validation")
    best = next((row for row in validation if row.get("step") == best_step), None) if best_step is not None else None
    end = max((epoch for row in rows if (epoch := finite(row.get("epoch"))) is not None), default=0.0)

    panels: list[Panel] = [("loss", 3.0, partial(_draw_loss, train=train, validation=validation))]
    for name in metric_names(validation, monitor)[:MOST_METRICS]:
        panels.append((name, 2.4, partial(_draw_metric, name=name, validation=validation)))
    if any(finite(row.get("lr")) is not None for row in train):
        panels.append(("learning rate", 1.7, partial(_draw_rate, train=train)))

    marked = monitor if best and finite(best.get(monitor or "")) is not None else "loss"

    def finish(ax: Axes, name: str, draw: Callable[[Axes], None]) -> None:
        draw(ax)
        if best is not None:
            _mark_best(ax, best, name if name == marked else None)
        _scale(ax, end)
        _heading(ax, name)

    return [(name, height, partial(finish, name=name, draw=draw)) for name, height, draw in panels]


def _draw_loss(ax: Axes, *, train: Sequence[Row], validation: Sequence[Row]) -> None:
    raw, held_out = _Series.of(train, "loss"), _Series.of(validation, "loss")
    count = len(raw.values)
    # Evenly thinned: a cloud of more points is a solid block, and a slow page.
    shown = slice(None, None, math.ceil(count / MOST_POINTS) or 1)
    size, alpha = (5, 0.9) if count <= 4 else (3, 0.5) if count < 200 else (3, 0.3)
    if count:
        few = "training" if count <= 4 else None  # else the line below stands for both
        ax.plot(raw.epochs[shown], raw.values[shown], "o", color=TRAIN, ms=size, mew=0, alpha=alpha, label=few)
    lines = [held_out.values]
    if count > 4:
        mean = moving_average(raw.values, count / 60)
        ax.plot(raw.epochs, mean, color=TRAIN, lw=1.6, label="training, averaged")
        lines.append(mean)
    elif count:
        lines.append(raw.values)
    if len(held_out.values):
        _line(ax, held_out, VALIDATION, "validation")
    if len(bad := np.concatenate([raw.bad, held_out.bad])):
        top = np.full_like(bad, 0.96)
        ax.plot(bad, top, "x", color=INK, ms=6, transform=ax.get_xaxis_transform(), label="not finite", clip_on=False)
    values = np.concatenate(lines)
    if len(values) and values.min() > 0 and math.log10(values.max() / values.min()) > LOG_DECADES:
        _logarithmic(ax, values)
    elif not len(values) and not len(raw.bad):
        ax.text(0.5, 0.5, "no losses recorded yet", transform=ax.transAxes, ha="center", color=MUTED, fontsize=10)
        ax.set_yticks([])


def _draw_metric(ax: Axes, *, name: str, validation: Sequence[Row]) -> None:
    from matplotlib.ticker import PercentFormatter

    _line(ax, _Series.of(validation, name), VALIDATION, "validation")
    if is_share(name):
        ax.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))


def _draw_rate(ax: Axes, *, train: Sequence[Row]) -> None:
    rate = _Series.of(train, "lr")
    ax.plot(rate.epochs, rate.values, "o-" if len(rate.values) == 1 else "-", color=RATE, lw=1.6, ms=4)
    ax.yaxis.set_major_formatter(lambda value, _: f"{value:.4g}")
    ax.set_ylim(bottom=min(0.0, rate.values.min()))


def _line(ax: Axes, series: _Series, colour: str, label: str) -> None:
    """A line with a marker at each value, the markers small where there are many."""
    size = 4.5 if len(series.values) <= 40 else 2.5 if len(series.values) <= 120 else 0
    size = size or (4.5 if len(series.values) == 1 else 0)
    ax.plot(series.epochs, series.values, "o-", color=colour, lw=1.6, ms=size, mew=0, label=label)


def _mark_best(ax: Axes, best: Row, name: str | None) -> None:
    """A vertical line at the best epoch and, in the panel of the monitored figure, a star with its value."""
    epoch = finite(best.get("epoch"))
    if epoch is None:
        return
    ax.axvline(epoch, color=BEST, lw=1, ls=(0, (4, 3)), zorder=1)
    if name is not None and (value := finite(best.get(name))) is not None:
        text = f"best: {metric(name, value)}, epoch {epoch_text(epoch)}"
        ax.plot([epoch], [value], "*", color=BEST, ms=13, mew=0, zorder=5, label=text, clip_on=False)


def _style(ax: Axes) -> None:
    """No box, a light grid behind the data."""
    ax.set_facecolor("none")
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.spines["bottom"].set_color(GRID)
    ax.grid(axis="y", color=GRID, lw=0.8)
    ax.set_axisbelow(True)
    ax.tick_params(which="both", colors=MUTED, labelsize=9, length=0)


def _scale(ax: Axes, end: float) -> None:
    """Epochs from 0 to the end, whole ticks where there are whole epochs."""
    from matplotlib.ticker import MaxNLocator

    ax.set_xlim(-0.01 * (end or 1.0), 1.02 * (end or 1.0))
    ax.xaxis.set_major_locator(MaxNLocator(nbins=10, steps=[1, 2, 5, 10], integer=end >= 3))


def _logarithmic(ax: Axes, values: Floats) -> None:
    """Log axis with plain numbers as labels; 2 and 5 are labelled too where that does not crowd the axis."""
    from matplotlib.ticker import LogLocator

    decades = math.log10(values.max() / values.min())
    ax.set_yscale("log")
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if decades < 2.5 else (1,), numticks=12))
    ax.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    ax.yaxis.set_minor_formatter(lambda value, _: "")


def _heading(ax: Axes, name: str) -> None:
    """The panel's name at the upper left and the legend under it, both above the axes, where they hide no data."""
    handles, labels = ax.get_legend_handles_labels()
    lines = 0
    if handles and labels != ["validation"]:
        narrow = ax.bbox.width < 600  # pixels: an SVG panel
        lines = 2 if narrow and sum(len(label) + 6 for label in labels) > 60 else 1
        ax.legend(
            loc="lower left",
            bbox_to_anchor=(0.0, 1.0),
            ncols=math.ceil(len(labels) / lines),
            frameon=False,
            fontsize=8.5,
            labelcolor=MUTED,
            handlelength=1.4,
            handletextpad=0.5,
            columnspacing=1.2,
            borderpad=0.0,
            borderaxespad=0.4,
        )
    short = name if len(name) <= 30 else f"{name[:29]}…"
    pad = 8 + 13 * lines
    ax.set_title(short, loc="left", fontsize=10.5, fontweight="bold", color=INK, pad=pad, parse_math=False)


def _save(figure: Any, target: Any, **options: Any) -> None:
    """Saves without a warning for every letter of a task's name that the font lacks (the letter becomes a box)."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        try:
            figure.savefig(target, **options)
        except OSError as error:
            raise UserError(f"cannot write the picture {target}: {error.strerror or error}") from error


def _themed(svg: str, prefix: str) -> str:
    """Makes matplotlib's SVG fit for a page: no header, no addresses, own ids, colours by CSS variable."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<style[^>]*>.*?</style>", "", svg, flags=re.DOTALL)  # it would hold for the whole page
    svg = re.sub(r' xmlns(:xlink)?="[^"]*"', "", svg)
    svg = re.sub(r'^<svg ([^>]*?)width="[^"]*"', r"<svg \1", svg)
    svg = re.sub(r'^<svg ([^>]*?)height="[^"]*"', r"<svg \1", svg)
    svg = (
        svg.replace(' id="', f' id="{prefix}').replace('href="#', f'href="#{prefix}').replace("url(#", f"url(#{prefix}")
    )
    for colour, variable in CSS_NAMES.items():
        svg = svg.replace(colour, f"var({variable})")
    return svg
