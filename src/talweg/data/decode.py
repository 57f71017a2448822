"""Image files to uint8 pixels: one in this process, or blocks of them by a process that writes them into a file.

Imports neither torch nor the rest of Talweg: a decoding process runs this file as a script, and so starts in a tenth of
a second, wherever it is started from.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
from typing import IO, Any

import numpy as np
from PIL import Image, ImageOps

_BANDS = {"1": "L", "P": "RGB", "CMYK": "RGB", "YCbCr": "RGB"}  # modes that are converted without loss of meaning
_MODES = {1: "L", 3: "RGB"}


class ImageError(ValueError):
    """An image file that cannot be used; the message names it."""


def read(path: str, size: int | None = None, channels: int | None = None) -> np.ndarray:
    """One file as uint8 [H, W, C].

    Args:
        path: of the file.
        size: side in pixels of the square that the image is resized to cover, and cut to at its centre; none: as it is.
        channels: 1 (grey) or 3 (colour); none: as in the file.

    Raises:
        ImageError: the file cannot be decoded, or its pixels have more than 8 bits.

    Example:
        >>> read("/nowhere/cat.png")
        Traceback (most recent call last):
            ...
        talweg.data.decode.ImageError: cannot read image '/nowhere/cat.png' (No such file or directory)
    """
    try:
        with Image.open(path) as opened:
            if size is not None:
                opened.draft(None, (2 * size, 2 * size))  # a large JPEG is decoded at 1/2, 1/4 or 1/8 of its size
            mode = _MODES[channels] if channels else _BANDS.get(opened.mode, opened.mode)
            image = opened if opened.mode == mode else opened.convert(mode)
            if size is not None and image.size != (size, size):
                image = ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC)
            pixels = np.asarray(image)
    except Exception as error:  # Pillow's decoders raise many kinds; each means that the file cannot be used
        said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ImageError(f"cannot read image {path!r} ({' '.join(said.split())})") from error
    if pixels.dtype != np.uint8:
        raise ImageError(f"image {path!r} has pixels of mode {image.mode}, not 8 bits; convert it, or pass channels=3")
    return pixels if pixels.ndim == 3 else pixels[:, :, None]


def block_key(about: str, folder: str, names: list[str]) -> str:
    """A fingerprint of files: of their names, sizes and times of change, and of what shall be done with them.

    Example:
        >>> block_key("at 32 pixels", "/nowhere", ["a.png"]) == block_key("at 64 pixels", "/nowhere", ["a.png"])
        False
    """
    found = hashlib.sha256(about.encode())
    for name in names:
        try:
            status = os.stat(os.path.join(folder, name))
            line = f"\0{name}\0{status.st_size}\0{status.st_mtime_ns}"
        except OSError:  # such as a broken link: decoding will say it
            line = f"\0{name}\0none"
        found.update(line.encode("utf-8", "surrogateescape"))
    return found.hexdigest()[:32]


def decode_block(job: dict[str, Any]) -> dict[str, Any]:
    """Decodes files into successive rows of an array on disk.

    Args:
        job: `folder` and `names` of the files; `size` and `channels` (see `read`); `shape` [H, W, C] that every image
            must have; the `file` of the array, and the `offset` in bytes of the first row there; `about` (see
            `block_key`).

    Returns:
        `key`: the fingerprint of the files, taken before they are read; `bad`: (row in the block, why) of each file that
        cannot be used; `odd`: (row, shape) of the first image of another shape, or none; `sums` and `squares`: Σ v and
        Σ v² of each channel over the good images, exactly. Where the array cannot be written: `errno` and `failed`.
    """
    shape, folder, names = tuple(job["shape"]), job["folder"], job["names"]
    key = block_key(job["about"], folder, names)
    block = np.zeros((len(names), *shape), np.uint8)
    bad: list[tuple[int, str]] = []
    for row, name in enumerate(names):
        try:
            pixels = read(os.path.join(folder, name), job["size"], job["channels"])
        except ImageError as error:
            bad.append((row, str(error)))
            continue
        if pixels.shape != shape:
            return {"bad": bad, "odd": (row, pixels.shape)}
        block[row] = pixels
    try:
        with open(job["file"], "r+b") as file:
            file.seek(job["offset"])
            file.write(block.data)
    except OSError as error:
        return {"errno": error.errno, "failed": error.strerror}
    sums, squares = moments(block)  # a bad row is 0 and adds nothing
    return {"key": key, "bad": bad, "odd": None, "sums": sums, "squares": squares}


def moments(block: np.ndarray) -> tuple[list[int], list[int]]:
    """Σ v and Σ v² of each channel of uint8 images [N, H, W, C], as exact integers.

    Example:
        >>> moments(np.array([[[[1, 2]], [[3, 4]]]], np.uint8))
        ([4, 6], [10, 20])
    """
    channels = block.shape[-1]
    rows = block.reshape(-1, block.shape[2] * channels)  # long rows are added several times faster than pixels of 3
    sums = rows.sum(0, dtype=np.uint64)
    squares = np.multiply(rows, rows, dtype=np.uint16).sum(0, dtype=np.uint64)
    first, second = (found.reshape(-1, channels).sum(0).tolist() for found in (sums, squares))
    return first, second


def serve(jobs: IO[str], answers: IO[str]) -> None:
    """Answers each job, a line of JSON, with a line of JSON (see `decode_block`), until there are no more."""
    for line in jobs:
        answers.write(json.dumps(decode_block(json.loads(line))) + "\n")
        answers.flush()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends Ctrl-C to this process too: its parent ends it
    serve(sys.stdin, sys.stdout)
