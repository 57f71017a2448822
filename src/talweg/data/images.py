"""Image files in class folders, decoded once into memory."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from talweg.data.arrays import Arrays
from talweg.data.decode import ImageError, read
from talweg.data.split import Sets
from talweg.data.tree import scan
from talweg.errors import UserError, require

_TASK = 64  # files decoded by one job of the pool: small enough to spread, large enough to be worth a job

Progress = Callable[[int, int], None]
"""Called with (images done, images in all) from time to time."""


def load_images(
    root: str | Path,
    size: int | None = None,
    channels: int | None = None,
    validation: float = 0.1,
    progress: Progress | None = None,
) -> Sets:
    """A tree with one folder of images for each class, decoded to uint8 in memory.

    Either root/train/<class>/*.png with root/validation (or val, or test)/<class>/*.png, or root/<class>/*.png, of
    which a fraction is then held out, the same images each time. Classes are numbered by the alphabet. To decode once
    and for all, see `talweg.data.pack`.

    Args:
        root: the tree; files that are no images (by suffix) and hidden files are passed over.
        size: side in pixels; images are resized to cover the square and cut at the centre. None: all images must
            already have one size.
        channels: 1 (grey) or 3 (colour) converts all images; None: all must have the same number.
        validation: fraction held out, if the tree has no folder for it.
        progress: called with (images done, images in all) from time to time.

    Returns:
        `Sets(train, validation)` of uint8 [N, C, H, W], labels, and the folders' names as classes.

    Raises:
        UserError: naming the file or folder: nothing found, an empty class, an image that cannot be decoded, sizes or
            channels that differ, classes that differ between the parts.

    Example:
        >>> load_images("/nowhere")
        Traceback (most recent call last):
            ...
        talweg.errors.UserError: no folder '/nowhere'; put images into /nowhere/train/<class>/ and \
/nowhere/validation/<class>/, or into /nowhere/<class>/
    """
    check_settings(size, channels, validation)
    tree = scan(root, validation)
    paths = tree.train.paths + tree.validation.paths
    pixels = _decode(paths, size, channels, progress).transpose(0, 3, 1, 2)
    cut = len(tree.train.names)
    return Sets(
        Arrays(pixels[:cut], tree.train.labels, tree.classes),
        Arrays(pixels[cut:], tree.validation.labels, tree.classes),
    )


def check_settings(size: int | None, channels: int | None, validation: float) -> None:
    """Raises a `UserError` for settings with which no image can be read."""
    require(size is None or size >= 1, "size", size, "at least 1 pixel")
    require(channels in (None, 1, 3), "channels", channels, "1, 3 or nothing")
    require(0 < validation < 1, "validation", validation, "above 0 and below 1")


def mixed(path: str, shape: tuple[int, ...], other_path: str, other: tuple[int, ...]) -> UserError:
    """The error for two images [H, W, C] that do not fit into one array."""
    if shape[2] != other[2]:
        what, a, b = "channels", str(shape[2]), str(other[2])
        advice = "pass channels=3 (or 1) to convert all"
    else:
        what, advice = "pixels", "pass size= to resize all"
        a, b = (" × ".join(map(str, sides[:2])) for sides in (shape, other))
    return UserError(f"images differ: {path!r} has {a} {what}, {other_path!r} has {b}; {advice}")


def _decode(paths: list[str], size: int | None, channels: int | None, progress: Progress | None) -> np.ndarray:
    """Decodes all files into one uint8 array [N, H, W, C], which is how `Arrays` stores images: no copy is made."""
    first = _read(paths[0], size, channels)
    pixels = np.empty((len(paths), *first.shape), np.uint8)

    def job(start: int) -> int:
        """Decodes _TASK files from `start`; returns how many files are then done, if all before it are."""
        stop = min(start + _TASK, len(paths))
        for i in range(start, stop):
            image = _read(paths[i], size, channels)
            if image.shape != first.shape:
                raise mixed(paths[0], first.shape, paths[i], image.shape)
            pixels[i] = image
        return stop

    pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1))
    try:
        for done in pool.map(job, range(0, len(paths), _TASK)):  # in order, so the first bad file is the one named
            if progress is not None:
                progress(done, len(paths))
    finally:
        pool.shutdown(cancel_futures=True)
    return pixels


def _read(path: str, size: int | None, channels: int | None) -> np.ndarray:
    """One file as uint8 [H, W, C]."""
    try:
        return read(path, size, channels)
    except ImageError as error:
        raise UserError(f"{error}; repair or remove the file") from error
