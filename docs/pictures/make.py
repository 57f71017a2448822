"""Draws the pictures of these pages anew, with Talweg alone: `python docs/pictures/make.py [FOLDER]`."""

import sys
from pathlib import Path

from matplotlib.figure import Figure

from talweg.schedules import SCHEDULES

INK, MUTED, GRID, BLUE, POINTS = "#1f2933", "#5f6c7b", "#e4e8ee", "#2563eb", 1000


def schedules(path: Path) -> None:
    """Every schedule with its default settings: the factor on the peak learning rate over the training."""
    figure = Figure(figsize=(9.0, 6.0), facecolor="white", layout="constrained")
    progress = [k / POINTS for k in range(POINTS + 1)]
    for axes, (name, schedule) in zip(
        figure.subplots(3, 4, sharex=True, sharey=True).flat, SCHEDULES.items(), strict=True
    ):
        axes.plot(progress, [schedule()(p) for p in progress], color=BLUE, lw=1.8, clip_on=False)
        axes.set_title(name, loc="left", fontsize=10, color=INK, fontweight="bold")
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1.05)
        axes.set_xticks([0, 0.5, 1], ["0", "progress", "1"])
        axes.set_yticks([0, 0.5, 1])
        axes.grid(axis="y", color=GRID, lw=0.8)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.spines["bottom"].set_color(MUTED)
        axes.tick_params(colors=MUTED, labelsize=8, length=0)
    figure.savefig(path, dpi=110)


def main(folder: Path) -> None:
    schedules(folder / "schedules.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
