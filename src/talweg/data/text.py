"""Text as a stream of bytes, cut into windows: the standard library's own source, or any file."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from talweg.data.arrays import Arrays
from talweg.data.split import Sets
from talweg.errors import UserError, require

VOCABULARY = 256
"""Number of different tokens: a token is a byte."""


_LIBRARY = 4 << 20  # bytes of the standard library that are enough to learn from


def load_text(
    path: str | Path | None = None, length: int = 128, limit: int | None = None, validation: float = 0.1
) -> Sets:
    """Windows of a byte stream, to predict each byte from those before it.

    The stream is cut in two by position, then each part into windows that do not overlap: window i has
    x = s[i·T : i·T + T] and y = s[i·T + 1 : i·T + T + 1]. No byte of the validation part is ever trained on. A file is
    mapped into memory, so it may be larger than that; it must not be cut short while it is in use.

    Args:
        path: a text file; none: the source of the Python standard library (`standard_library`).
        length: T, bytes in a window.
        limit: at most this many bytes are used; none: the whole file, or 4 MB of the standard library.
        validation: fraction of the stream, at its end, that is held out.

    Returns:
        `Sets(train, validation)` whose batches are int64 tokens x, y: [B, T] in 0 … 255; stored as bytes.

    Raises:
        UserError: if the file is missing, or too short for a window in each part.

    Example:
        >>> text = load_text(length=64, limit=100_000)
        >>> x, y = next(text.train.batches([range(2)]))
        >>> x.shape, x.dtype, bool((x[:, 1:] == y[:, :-1]).all())
        (torch.Size([2, 64]), torch.int64, True)
    """
    require(length >= 1, "length", length, "at least 1 byte")
    require(limit is None or limit >= 1, "limit", limit, "at least 1 byte")
    require(0 < validation < 1, "validation", validation, "above 0 and below 1")
    if path is None:
        stream = np.frombuffer(standard_library(limit or _LIBRARY), np.uint8)
    else:
        stream = _map(Path(path), limit)
    cut = len(stream) - round(len(stream) * validation)
    if min(cut, len(stream) - cut) < length + 1:
        raise UserError(
            f"the text has {len(stream)} bytes, too few for windows of {length} with {validation:.0%} held out; "
            "shorten length or give a longer text"
        )
    return Sets(_windows(stream[:cut], length), _windows(stream[cut:], length))


def standard_library(limit: int) -> bytes:
    """The first bytes of the standard library's modules, joined in the order of their file names.

    A function of the installed Python alone: a few MB of text that every machine has.

    Example:
        >>> standard_library(40)[3:]        # __future__.py comes first
        b'Record of phased-in incompatible lang'
    """
    folder = Path(os.__file__).parent
    paths = sorted(folder.glob("*.py"), key=lambda path: path.name)
    stream = bytearray()
    for path in paths:
        if len(stream) >= limit:
            break
        stream += path.read_bytes()
    if not stream:
        raise UserError(f"no standard library source in {str(folder)!r}; give the path of a text file instead")
    return bytes(stream[:limit])


def _map(path: Path, limit: int | None) -> np.ndarray:
    """The bytes of a file: uint8 [S], mapped into memory."""
    try:
        return np.memmap(path, np.uint8, mode="r")[:limit] if path.stat().st_size else np.empty(0, np.uint8)
    except OSError as error:
        reason = error.strerror
        raise UserError(f"cannot read the text {str(path)!r} ({reason}); give the path of a text file") from error


def _windows(tokens: np.ndarray, length: int) -> Arrays:
    """[S] -> N = ⌊(S - 1) / T⌋ windows x, y: [N, T], as views."""
    n = (len(tokens) - 1) // length
    x, y = tokens[: n * length], tokens[1 : n * length + 1]
    return Arrays(x.reshape(n, length), y.reshape(n, length), tokens=True)
