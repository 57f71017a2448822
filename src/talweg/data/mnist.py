"""MNIST and sets of its form (Fashion-MNIST, KMNIST) from idx files in a folder."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from talweg.data.arrays import Arrays
from talweg.data.checks import check_labels
from talweg.data.split import Sets
from talweg.errors import UserError

_FILES = {"train": "train", "validation": "t10k"}


def load_mnist(folder: str | Path) -> Sets:
    """MNIST from its idx files, as published or unpacked: 60,000 training images and the 10,000 test images.

    The published test part is what `validation` holds.

    Args:
        folder: holds train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and
            t10k-labels-idx1-ubyte, each plain or with .gz; a sub-folder raw or MNIST/raw is looked into as well.

    Returns:
        `Sets(train, validation)` of uint8 [N, 1, 28, 28] and labels 0 … 9.

    Raises:
        UserError: if a file is missing (the message says where to put what), damaged, or does not fit the others.

    Example:
        >>> load_mnist("/nowhere")
        Traceback (most recent call last):
            ...
        talweg.errors.UserError: no train-images-idx3-ubyte in '/nowhere'; put the four MNIST files there \
(train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte, t10k-labels-idx1-ubyte, plain or with .gz)

    Source: Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, "Gradient-based learning applied to document recognition", 1998.
    """
    parts = {}
    for part, prefix in _FILES.items():
        paths = [_find(Path(folder), f"{prefix}-{kind}-ubyte") for kind in ("images-idx3", "labels-idx1")]
        images, labels = (read_idx(path) for path in paths)
        for path, array, dims in zip(paths, (images, labels), (3, 1), strict=True):
            if array.dtype != torch.uint8 or array.dim() != dims:
                raise UserError(f"{str(path)!r} holds {array.dtype} of {array.dim()} dimensions, not uint8 of {dims}")
        if len(images) != len(labels):
            raise UserError(f"{str(paths[0])!r} has {len(images)} images but {paths[1].name} has {len(labels)} labels")
        check_labels(labels, 10, part)
        parts[part] = Arrays(images.unsqueeze(1), labels, tuple("0123456789"))
    return Sets(**parts)


def read_idx(path: str | Path) -> Tensor:
    """Reads an idx file, plain or gzipped: a header (type, sizes), then the numbers, most significant byte first.

    Raises:
        UserError: if the file cannot be read, is no idx file, or is cut short.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
        content = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"cannot read {str(path)!r} ({error}); fetch the file again") from error
    types = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in types:
        raise UserError(
            f"{str(path)!r} is not an idx file: it begins with {content[:4].hex(' ')}; fetch the file again"
        )
    dtype, dims = np.dtype(types[content[2]]), content[3]
    shape = [int.from_bytes(content[4 + 4 * i : 8 + 4 * i], "big") for i in range(dims)]
    expected, received = math.prod(shape) * dtype.itemsize, len(content) - 4 - 4 * dims
    if received != expected:
        raise UserError(
            f"{str(path)!r} holds {received} bytes of data, its header says {expected}; fetch the file again"
        )
    array = np.frombuffer(content, dtype, offset=4 + 4 * dims).reshape(shape)
    return torch.from_numpy(array.astype(dtype.newbyteorder("=")))


def _find(folder: Path, name: str) -> Path:
    for place in (folder, folder / "raw", folder / "MNIST" / "raw"):
        for path in (place / name, place / f"{name}.gz", place / name.replace("-idx", ".idx")):
            if path.is_file():
                return path
    names = ", ".join(f"{prefix}-{kind}-ubyte" for prefix in _FILES.values() for kind in ("images-idx3", "labels-idx1"))
    raise UserError(f"no {name} in {str(folder)!r}; put the four MNIST files there ({names}, plain or with .gz)")
