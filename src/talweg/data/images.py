"""Image files in class folders, decoded once into memory."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from talweg.data.arrays import Arrays
from talweg.data.split import Sets, hold_out
from talweg.errors import UserError, require

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")

_VALIDATION = ("validation", "val", "test")
_TASK = 64  # files decoded by one job of the pool: small enough to spread, large enough to be worth a job
_BANDS = {"1": "L", "P": "RGB", "CMYK": "RGB", "YCbCr": "RGB"}  # modes that are converted without loss of meaning

Progress = Callable[[int, int], None]


def load_images(
    root: str | Path,
    size: int | None = None,
    channels: int | None = None,
    validation: float = 0.1,
    progress: Progress | None = None,
) -> Sets:
    """A tree with one folder of images for each class, decoded to uint8 in memory.

    Either root/train/<class>/*.png with root/validation (or val, or test)/<class>/*.png, or root/<class>/*.png, of
    which a fraction is then held out, the same images each time. Classes are numbered by the alphabet.

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
    root = Path(root)
    require(size is None or size >= 1, "size", size, "at least 1 pixel")
    require(channels in (None, 1, 3), "channels", channels, "1, 3 or nothing")
    if not root.is_dir():
        raise UserError(
            f"no folder {str(root)!r}; put images into {root}/train/<class>/ and {root}/validation/<class>/, "
            f"or into {root}/<class>/"
        )
    train = root / "train"
    held = next((root / name for name in _VALIDATION if (root / name).is_dir()), None) if train.is_dir() else None
    parts = [_scan(train if train.is_dir() else root)]
    if held is not None:
        parts.append(_scan(held))
        if parts[0].keys() != parts[1].keys():
            odd = sorted(parts[0].keys() ^ parts[1].keys())[0]
            raise UserError(
                f"class folder {odd!r} is in only one of {str(train)!r} and {str(held)!r}; give both the same"
            )
    paths = [path for part in parts for files in part.values() for path in files]
    labels = np.array([label for part in parts for label, files in enumerate(part.values()) for _ in files])
    pixels = _decode(paths, size, channels, progress).transpose(0, 3, 1, 2)
    classes = tuple(parts[0])
    if held is None:
        return hold_out(Arrays(pixels, labels, classes), validation, "images", "split")
    cut = sum(map(len, parts[0].values()))
    return Sets(Arrays(pixels[:cut], labels[:cut], classes), Arrays(pixels[cut:], labels[cut:], classes))


def _scan(folder: Path) -> dict[str, list[Path]]:
    """The image files of each class folder, both in alphabetical order."""
    names = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if len(names) < 2:
        found = f"only {names[0]!r}" if names else "none"
        raise UserError(f"{str(folder)!r} must hold one folder of images for each class, at least two; found {found}")
    tree = {}
    for name in names:
        files = sorted(p for p in (folder / name).iterdir() if p.suffix.lower() in SUFFIXES and p.name[0] != ".")
        if not files:
            raise UserError(
                f"class folder {str(folder / name)!r} holds no images ({', '.join(SUFFIXES)}); fill it or remove it"
            )
        tree[name] = files
    return tree


def _decode(paths: list[Path], size: int | None, channels: int | None, progress: Progress | None) -> np.ndarray:
    """Decodes all files into one uint8 array [N, H, W, C], which is how `Arrays` stores images: no copy is made."""
    first = _read(paths[0], size, channels)
    pixels = np.empty((len(paths), *first.shape), np.uint8)

    def job(start: int) -> int:
        """Decodes _TASK files from `start`; returns how many files are then done, if all before it are."""
        stop = min(start + _TASK, len(paths))
        for i in range(start, stop):
            image = _read(paths[i], size, channels)
            if image.shape != first.shape:
                raise _mixed(paths[0], first, paths[i], image)
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


def _read(path: Path, size: int | None, channels: int | None) -> np.ndarray:
    """One file as uint8 [H, W, C]."""
    try:
        with Image.open(path) as opened:
            image = opened.convert({1: "L", 3: "RGB"}[channels]) if channels else opened
            image = image.convert(_BANDS.get(image.mode, image.mode))
            if size is not None:
                image = ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC)
            pixels = np.asarray(image)
    except Exception as error:  # Pillow's decoders raise many kinds; each means that the file cannot be used
        reason = " ".join(str(error).split())
        raise UserError(f"cannot read image {str(path)!r} ({reason}); repair or remove the file") from error
    if pixels.dtype != np.uint8:
        raise UserError(
            f"image {str(path)!r} has pixels of mode {image.mode}, not 8 bits; convert it, or pass channels=3"
        )
    return pixels if pixels.ndim == 3 else pixels[:, :, None]


def _mixed(path: Path, image: np.ndarray, other_path: Path, other: np.ndarray) -> UserError:
    """The error for two images that do not fit into one array."""
    if image.shape[2] != other.shape[2]:
        what, a, b = "channels", image.shape[2], other.shape[2]
        advice = "pass channels=3 (or 1) to convert all"
    else:
        what, advice = "pixels", "pass size= to resize all"
        a, b = (" × ".join(map(str, pixels.shape[:2])) for pixels in (image, other))
    return UserError(f"images differ: {str(path)!r} has {a} {what}, {str(other_path)!r} has {b}; {advice}")
