"""Trees of random image files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

RNG = np.random.default_rng(0)


def picture(path: Path, shape: tuple[int, int, int] = (6, 5, 3), **settings: Any) -> np.ndarray:
    """Writes a random image of [H, W, C]; returns its pixels."""
    pixels = RNG.integers(0, 256, shape, dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.squeeze(2) if shape[2] == 1 else pixels).save(path, **settings)
    return pixels


def tree(root: Path, n: int = 10, classes: tuple[str, ...] = ("cat", "dog", "emu"), **settings: Any) -> dict[str, Any]:
    """Writes root/<class>/000.png, …; returns the pixels, class by class."""
    return {c: [picture(root / c / f"{i:03}.png", **settings) for i in range(n)] for c in classes}


def truncate(path: Path) -> None:
    """Writes an image file that breaks off."""
    picture(path, (40, 40, 3), quality=95)
    path.write_bytes(path.read_bytes()[:600])


def deep(path: Path) -> None:
    """Writes an image of 16 bits a pixel."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(RNG.integers(0, 60000, (6, 5), dtype=np.uint16)).save(path)
