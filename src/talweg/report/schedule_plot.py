"""A picture of a schedule before anything is trained: a PNG, or a sketch for the terminal."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from talweg.errors import UserError, require
from talweg.report.curves import GRID, INK, MUTED, PAPER, RATE
from talweg.schedules import Schedule

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_POINTS = 2000  # about one a pixel, so that a drop looks upright
# Bits of a cell of U+2800 ("Braille Patterns" of Unicode): column, then from top to bottom.
_DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))


def plot_schedule(
    schedule: Schedule,
    path: str | Path,
    *,
    lr: float = 1.0,
    epochs: float | None = None,
    title: str | None = None,
) -> Path:
    """Draws lr · schedule(p) over the training as a PNG image, with the warm-up shaded and its end marked.

    Args:
        schedule: any `Schedule`.
        path: the file to write, ending in .png; folders on the way are made.
        lr: the peak learning rate; with the default 1 the picture shows the factor.
        epochs: length of the training for the axis below; without it the axis is in per cent of the training.
        title: the line above; by default the schedule's name.

    Returns:
        The path of the image.

    Raises:
        UserError: a path that does not end in .png or cannot be written, `lr` or `epochs` not above 0.

    Example:
        >>> import tempfile
        >>> from talweg.schedules import Cosine
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     image = plot_schedule(Cosine(warmup=0.1), f"{folder}/cosine.png", lr=0.4, epochs=90)
        ...     print(image.name, image.read_bytes()[1:4])
        cosine.png b'PNG'
    """
    path = Path(path)
    require(path.suffix.lower() == ".png", "the picture's path", str(path), "a file name that ends in .png")
    require(0.0 < lr < math.inf, "lr", lr, "a number above 0")
    require(epochs is None or 0.0 < epochs < math.inf, "epochs", epochs, "a number above 0")
    figure = _draw(schedule, lr, epochs, title or _spaced(type(schedule).__name__))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format="png", dpi=150)
    except OSError as error:
        raise UserError(f"cannot write the picture {path}: {error.strerror or error}; give another path") from error
    return path


def sketch(schedule: Schedule, width: int = 60, height: int = 12) -> str:
    """The schedule drawn with braille dots, 2 × 4 in a character: the factor over the progress of the training.

    Args:
        schedule: any `Schedule`.
        width: characters in a line, 24 or more.
        height: lines of the drawing, 3 or more; the axis, its labels and a line on the warm-up come below.

    Raises:
        UserError: `width` or `height` too small.

    Example:
        >>> from talweg.schedules import WarmupStableDecay
        >>> print(sketch(WarmupStableDecay(warmup=0.1, cooldown=0.4, cooldown_shape="linear"), width=40, height=4))
        1.00 ┤   ⡼⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠢⢄⡀
             │  ⡼⠁                   ⠈⠑⠢⣀
        0.50 ┤ ⡼⠁                        ⠉⠒⢄⡀
             │⣰⠃                            ⠈⠑⠢⢄
        0.00 ┼┬───────┬───────┬────────┬───────┬
             0 %    25 %    50 %     75 %  100 %
              warm-up until 10 % of the training
    """
    require(width >= 24, "width", width, "24 or more")
    require(height >= 3, "height", height, "3 or more")
    columns = width - 6  # "1.00 ┤" stands before each line
    marks = {0: "1.00", _level(0.5, height) // 4: "0.50"}
    lines = []
    for row, dots in enumerate(_braille(schedule, columns, height)):
        lines.append(f"{marks.get(row, ''):>4} {'┤' if row in marks else '│'}{dots}".rstrip())
    ticks = {round(quarter * (columns - 1) / 4): f"{25 * quarter} %" for quarter in range(5)}
    lines.append("0.00 ┼" + "".join("┬" if column in ticks else "─" for column in range(columns)))
    labels = [" "] * width
    for column, text in ticks.items():
        start = min(6 + column - len(text) // 2, width - len(text))
        labels[start : start + len(text)] = text
    lines.append("".join(labels).rstrip())
    if schedule.warmup > 0:
        lines.append(f"      warm-up until {100 * schedule.warmup:.4g} % of the training")
    return "\n".join(lines)


def _draw(schedule: Schedule, lr: float, epochs: float | None, title: str) -> Figure:
    """The figure: a `Figure` of its own, because pyplot would keep global state."""
    from matplotlib.figure import Figure  # costs most of a second; the sketch does without it
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    span = 1.0 if epochs is None else float(epochs)
    end = schedule.warmup * span
    progress = sorted({*(k / _POINTS for k in range(_POINTS + 1)), schedule.warmup})  # with the very corner at the peak
    figure = Figure(figsize=(7.0, 3.6), facecolor=PAPER, layout="constrained")
    axes = figure.add_subplot(facecolor="none")
    axes.plot([p * span for p in progress], [lr * schedule(p) for p in progress], color=RATE, lw=2.0, clip_on=False)
    if end > 0:
        axes.axvspan(0.0, end, color=RATE, alpha=0.08, lw=0)
        axes.axvline(end, color=MUTED, lw=0.9, linestyle=(0, (4, 3)))
        where = f"{100 * schedule.warmup:.4g} %" if epochs is None else f"epoch {end:.4g}"
        side = 1 if schedule.warmup <= 0.6 else -1  # the side with room for the label
        axes.annotate(
            f"warm-up ends at {where}",
            (end, lr * 1.06),
            xytext=(6 * side, 0),
            textcoords="offset points",
            ha="left" if side > 0 else "right",
            va="center",
            color=MUTED,
            fontsize=9,
        )
    axes.set_xlim(0.0, span)
    axes.set_ylim(0.0, lr * 1.12)
    if epochs is None:
        axes.xaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
    else:
        axes.xaxis.set_major_locator(MaxNLocator(nbins=10, steps=[1, 2, 5, 10], integer=epochs >= 3))
    axes.set_xlabel("progress of the training" if epochs is None else "epochs", color=MUTED, fontsize=10)
    factor = "factor on the peak learning rate" if lr == 1.0 else "learning rate"
    axes.set_ylabel(factor, color=MUTED, fontsize=10)
    axes.set_title(title, loc="left", fontsize=12, fontweight="bold", color=INK, pad=9, parse_math=False)
    axes.grid(axis="y", color=GRID, lw=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(MUTED)
    axes.tick_params(colors=MUTED, labelsize=9, length=0, pad=6)
    return figure


def _braille(schedule: Schedule, columns: int, height: int) -> list[str]:
    """The curve as `height` lines of `columns` braille characters; spaces where there is no dot."""
    points = [x / (2 * columns - 1) for x in range(2 * columns)]
    # A sharp peak must not fall between two points.
    points[round(schedule.warmup * (len(points) - 1))] = schedule.warmup
    cells = [[0] * columns for _ in range(height)]
    last = _level(schedule(0.0), height)
    for x, progress in enumerate(points):
        y = _level(schedule(progress), height)
        # A steep part is drawn as an upright line from where the last dot was, so that the curve holds together.
        for dot in range(min(y, last), max(y, last) + 1) if abs(y - last) > 1 else (y,):
            cells[dot // 4][x // 2] |= _DOTS[x % 2][dot % 4]
        last = y
    return ["".join(chr(0x2800 + cell) if cell else " " for cell in row) for row in cells]


def _level(factor: float, height: int) -> int:
    """The row of dots, from 0 at the top, that shows a factor in a drawing of `height` lines."""
    return round((1.0 - factor) * (4 * height - 1))


def _spaced(name: str) -> str:
    """A class name as words.

    Example:
        >>> _spaced("WarmupStableDecay")
        'Warmup stable decay'
    """
    words = "".join(f" {letter.lower()}" if letter.isupper() else letter for letter in name).strip()
    return words[:1].upper() + words[1:]
