"""A sheet of sample images with their labels, and what their pixels are like before and after normalisation."""

from __future__ import annotations

import bisect
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from talweg.errors import UserError, require
from talweg.report.curves import GRID, INK, MUTED, PAPER
from talweg.report.pixel_statistics import Channel

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DPI = 100
_TILE = 96  # pixels that small images are enlarged to, by a whole factor
_LARGEST = 224  # larger images are reduced to this
_GAP, _MARGIN, _LINE = 8, 24, 19
_WIDEST, _NARROWEST = 1100, 560  # pixels of the whole sheet, where the images leave the choice
_PANEL, _ABOVE, _HISTOGRAM = 250, 30, 110  # of one panel of statistics: least width, height above and of the histogram
_CHANNELS = {1: (("values", INK),), 3: (("red", "#c0392b"), ("green", "#1e8449"), ("blue", "#2f6db3"))}
_OTHERS = ("#2f6db3", "#d9651f", "#11845b", "#7a4fb5")
_SHOWN = 4  # channels in the statistics, at most


def contact_sheet(
    images: Tensor,
    labels: Sequence[str],
    path: str | Path,
    *,
    heading: str = "",
    notes: Sequence[str] = (),
    titles: Sequence[str] = (),
    columns: int = 0,
    limits: tuple[float, float] | None = None,
    statistics: Mapping[str, Sequence[Channel]] | None = None,
) -> Path:
    """Draws images in a grid, each over its label, as a PNG; below them the statistics of their pixels.

    Small images are enlarged by a whole factor without interpolation (every pixel is a square), images above 224 pixels
    are reduced. Of more than 3 channels the first 3 are shown, of 2 the first.

    Args:
        images: [N, C, H, W] of any dtype, row by row.
        labels: N words, or nothing for an image that needs none.
        path: the file to write, ending in .png; folders on the way are made.
        heading: the line above all.
        notes: lines under the heading.
        titles: words over the columns.
        columns: images in a row; 0: as many as fit.
        limits: the values that are black and white; by default the smallest and largest of the images.
        statistics: for each stage, such as "stored" and "normalised", the `pixel_statistics` there.

    Returns:
        The path of the image.

    Raises:
        UserError: no images, numbers that do not fit together, or a path that cannot be written.

    Example:
        >>> import tempfile, torch
        >>> from talweg.report.pixel_statistics import pixel_statistics
        >>> x = torch.randint(0, 256, (6, 3, 8, 8), dtype=torch.uint8)
        >>> sheet = contact_sheet(x, list("abcdef"), Path(tempfile.mkdtemp(), "sheet.png"), columns=3,
        ...                       statistics={"stored": pixel_statistics(x)})
        >>> sheet.read_bytes()[1:4]
        b'PNG'
    """
    path = Path(path)
    require(path.suffix.lower() == ".png", "the picture's path", str(path), "a file name that ends in .png")
    if images.dim() != 4 or not len(images):
        raise UserError(f"a contact sheet shows images [N, C, H, W], received shape {list(images.shape)}")
    require(len(labels) == len(images), "labels", len(labels), f"as many as there are images ({len(images)})")
    require(columns >= 0, "columns", columns, "a number of images, or 0 for as many as fit")
    tiles = _tiles(images, limits)
    width = tiles.shape[2]
    columns = min(columns or max(1, (_WIDEST - 2 * _MARGIN) // (width + _GAP)), len(tiles))
    require(len(titles) in (0, columns), "titles", len(titles), f"one for each of the {columns} columns")
    figure = _draw(tiles, labels, heading, notes, titles, columns, statistics or {})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph .* missing from")  # the letter becomes a box
            figure.savefig(path, format="png", dpi=_DPI)
    except OSError as error:
        raise UserError(f"cannot write the picture {path}: {error.strerror or error}; give another path") from error
    return path


def _tiles(images: Tensor, limits: tuple[float, float] | None) -> np.ndarray:
    """The images as they are drawn: uint8 [N, h, w, 3]."""
    x = images.detach().cpu().double().numpy()
    low, high = limits or (x.min(), x.max())
    x = (x[:, :3] if x.shape[1] >= 3 else x[:, :1]).transpose(0, 2, 3, 1)
    pixels = np.clip(np.round((x - low) * (255 / max(high - low, 1e-12))), 0, 255).astype(np.uint8)
    pixels = np.broadcast_to(pixels, (*pixels.shape[:3], 3))
    side = max(pixels.shape[1:3])
    if side > _LARGEST:
        from PIL import Image

        scale = _LARGEST / side
        h, w = (max(1, round(length * scale)) for length in pixels.shape[1:3])
        reduced = [Image.fromarray(np.ascontiguousarray(tile)).resize((w, h), Image.Resampling.BOX) for tile in pixels]
        return np.stack([np.asarray(tile) for tile in reduced])
    factor = max(1, round(_TILE / side))
    return pixels.repeat(factor, 1).repeat(factor, 2)


def _draw(
    tiles: np.ndarray,
    labels: Sequence[str],
    heading: str,
    notes: Sequence[str],
    titles: Sequence[str],
    columns: int,
    statistics: Mapping[str, Sequence[Channel]],
) -> Figure:
    """The figure: laid out in pixels from the top, so that a pixel of a tile is a pixel of the picture."""
    from matplotlib.figure import Figure  # costs most of a second

    height, width = tiles.shape[1:3]
    rows = -(-len(tiles) // columns)
    captioned = [any(labels[columns * row : columns * (row + 1)]) for row in range(rows)]
    grid = columns * (width + _GAP) - _GAP
    panels = len(statistics) * (_PANEL + 3 * _GAP) - 3 * _GAP
    total = max(grid, panels, _NARROWEST) + 2 * _MARGIN
    top = _MARGIN + (26 if heading else 0) + _LINE * len(notes) + (_LINE if titles else 0) + _GAP
    table = max((min(len(found), _SHOWN + 1) for found in statistics.values()), default=0)
    below = _ABOVE + _HISTOGRAM + _LINE * (table + 3) if statistics else 0
    end = top + rows * (height + _GAP) + _LINE * sum(captioned)
    canvas = np.empty((end + below + _MARGIN, total, 3), np.uint8)
    canvas[:] = [int(PAPER[i : i + 2], 16) for i in (1, 3, 5)]
    figure = Figure(figsize=(total / _DPI, len(canvas) / _DPI), dpi=_DPI, facecolor=PAPER)
    page = _Page(figure, total, len(canvas))

    y = _MARGIN
    if heading:
        page.text(_MARGIN, y + 8, heading, total - 2 * _MARGIN, size=13, weight="bold")
        y += 26
    for note in notes:
        page.text(_MARGIN, y + 6, note, total - 2 * _MARGIN, colour=MUTED)
        y += _LINE
    for column, title in enumerate(titles):
        page.text(_MARGIN + column * (width + _GAP), top - 11, title, width, colour=MUTED)
    y = top
    for row in range(rows):
        for column in range(columns):
            if (i := row * columns + column) < len(tiles):
                x = _MARGIN + column * (width + _GAP)
                canvas[y : y + height, x : x + width] = tiles[i]
                page.text(x, y + height + 10, labels[i], width)
        y += height + _GAP + _LINE * captioned[row]
    for place, (stage, channels) in enumerate(statistics.items()):
        share = (total - 2 * _MARGIN + 3 * _GAP) / len(statistics)
        _panel(page, _MARGIN + place * share, y + _LINE, share - 3 * _GAP, stage, channels)
    figure.figimage(canvas, 0, 0, zorder=-1)
    return figure


def _panel(page: _Page, x: float, y: float, width: float, stage: str, channels: Sequence[Channel]) -> None:
    """One stage: its name, the histogram, and a table with a line for each channel."""
    names = _CHANNELS.get(len(channels)) or [(f"ch. {c}", _OTHERS[c % 4]) for c in range(len(channels))]
    page.text(x, y, stage, width, weight="bold")
    axes = page.axes(x, y + _ABOVE, width, _HISTOGRAM)
    shown = list(zip(channels, names, strict=True))[:_SHOWN]
    for channel, (_, colour) in shown:
        axes.stairs(channel.counts, channel.edges, color=colour, lw=1.2, fill=len(channels) == 1, alpha=0.85)
    # Black, white and padding pile up in the outermost bars: these are cut off and say their share, so that the others
    # can be seen.
    inner = max((channel.counts[1:-1].max() for channel, _ in shown if len(channel.counts) > 2), default=0)
    axes.set_ylim(0, 1.25 * inner or None)
    for bar, side in ((0, "left"), (-1, "right")):
        if 0 < 1.25 * inner < max(channel.counts[bar] for channel, _ in shown):
            share = np.mean([channel.counts[bar] / channel.counts.sum() for channel, _ in shown])
            place = x + 14 if side == "left" else x + width - 14
            page.text(place, y + 20, f"{share:.0%}", width, colour=MUTED, size=8, align=side)
    axes.set_yticks([])
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(GRID)
    axes.tick_params(colors=MUTED, labelsize=8, length=0, pad=4)
    axes.set_facecolor("none")
    ends = [x + width * (0.18 + 0.205 * (k + 1)) for k in range(4)]  # where the columns of numbers end
    y += _ABOVE + _HISTOGRAM + 30
    for end, word in zip(ends, ("mean", "std", "min", "max"), strict=True):
        page.text(end, y, word, width, colour=MUTED, align="right")
    for channel, (name, colour) in shown:
        y += _LINE
        page.text(x, y, name, width * 0.2, colour=colour)
        for end, value in zip(ends, (channel.mean, channel.std, channel.min, channel.max), strict=True):
            page.text(end, y, _number(value), width, align="right")
    if len(channels) > _SHOWN:
        page.text(x, y + _LINE, f"… and {len(channels) - _SHOWN} channels more", width, colour=MUTED)


def _number(value: float) -> str:
    """Four digits, of which at most three stand behind the point.

    Example:
        >>> [_number(v) for v in (125.2688, 62.534, -0.00004, 1234567.0)]
        ['125.3', '62.53', '0', '1.235e+06']
    """
    return f"{round(value, 3) + 0.0:.4g}"


class _Page:
    """A figure whose places are pixels from the upper left corner, and whose text is shortened to fit."""

    def __init__(self, figure: Figure, width: int, height: int) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg

        self.figure, self.width, self.height = figure, width, height
        self.renderer = FigureCanvasAgg(figure).get_renderer()

    def text(
        self,
        x: float,
        y: float,
        words: str,
        width: float,
        *,
        colour: str = INK,
        size: float = 9.5,
        weight: str = "normal",
        align: str = "left",
    ) -> None:
        """A line of text with its middle at height y."""
        words = self._shortened(" ".join(words.split()), width, size, weight)
        self.figure.text(
            x / self.width,
            1 - y / self.height,
            words,
            color=colour,
            fontsize=size,
            fontweight=weight,
            ha=align,
            va="center_baseline",
            parse_math=False,
        )

    def axes(self, x: float, y: float, width: float, height: float) -> Axes:
        """Axes in a rectangle whose upper left corner is (x, y)."""
        place = (x / self.width, 1 - (y + height) / self.height, width / self.width, height / self.height)
        return self.figure.add_axes(place)

    def _shortened(self, words: str, width: float, size: float, weight: str) -> str:
        from matplotlib.font_manager import FontProperties

        font = FontProperties(size=size, weight=weight)

        def pixels(text: str) -> float:
            return self.renderer.get_text_width_height_descent(text, font, ismath=False)[0]

        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph .* missing from")
            if pixels(words) <= width:
                return words
            most = bisect.bisect_right(range(len(words)), width, key=lambda n: pixels(f"{words[:n]}…"))
        return f"{words[: max(0, most - 1)].rstrip()}…"
