"""CIFAR-10 from its binary files or its Python files; the latter are pickles, and are read without executing them."""

from __future__ import annotations

import pickletools
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from talweg.data.arrays import Arrays
from talweg.data.checks import check_labels
from talweg.data.split import Sets
from talweg.errors import UserError

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

_PIXELS = 3 * 32 * 32
_BATCHES = [f"data_batch_{i}" for i in range(1, 6)]

# All that the published files consist of. Only the names in _GLOBALS may be referred to, and they are never looked up.
# fmt: off
_OPCODES = (
    "PROTO", "MARK", "STOP", "EMPTY_DICT", "EMPTY_LIST", "SETITEM", "SETITEMS", "APPEND", "APPENDS", "BINPUT",
    "LONG_BINPUT", "BINGET", "LONG_BINGET", "BININT", "BININT1", "BININT2", "SHORT_BINSTRING", "BINSTRING", "NONE",
    "NEWFALSE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "GLOBAL", "REDUCE", "BUILD",
)
# fmt: on
_GLOBALS = ("numpy.core.multiarray _reconstruct", "numpy ndarray", "numpy dtype")
_KEYS = ("batch_label", "labels", "data", "filenames")


def load_cifar10(folder: str | Path) -> Sets:
    """CIFAR-10: 50,000 training images and the 10,000 test images, from the files as published.

    The published test part is what `validation` holds.

    Args:
        folder: holds data_batch_1.bin … data_batch_5.bin and test_batch.bin (binary version), or the same names without
            .bin (Python version); the published folders cifar-10-batches-bin and cifar-10-batches-py are looked into.

    Returns:
        `Sets(train, validation)` of uint8 [N, 3, 32, 32] and labels 0 … 9, with the names of the classes.

    Raises:
        UserError: if files are missing (the message says where to put what), damaged or not what was published.

    Example:
        >>> load_cifar10("/nowhere")
        Traceback (most recent call last):
            ...
        talweg.errors.UserError: no CIFAR-10 in '/nowhere'; put data_batch_1.bin … data_batch_5.bin and test_batch.bin \
there (binary version), or the same names without .bin (Python version)

    Source: A. Krizhevsky, "Learning multiple layers of features from tiny images", 2009.
    """
    folder = Path(folder)
    versions: list[tuple[str, str, Callable[[Path], tuple[np.ndarray, np.ndarray]]]] = [
        ("cifar-10-batches-bin", ".bin", _read_binary),
        ("cifar-10-batches-py", "", _read_python),
    ]
    for inner, suffix, read in versions:
        for place in (folder, folder / inner):
            paths = [place / f"{name}{suffix}" for name in (*_BATCHES, "test_batch")]
            found = [path for path in paths if path.is_file()]
            if found and len(found) < len(paths):
                missing = next(path for path in paths if path not in found)
                raise UserError(f"{missing.name} is missing in {str(place)!r}; put it beside {found[0].name}")
            if found:
                return Sets(
                    _arrays([read(path) for path in paths[:-1]], "train"), _arrays([read(paths[-1])], "validation")
                )
    raise UserError(
        f"no CIFAR-10 in {str(folder)!r}; put data_batch_1.bin … data_batch_5.bin and test_batch.bin there "
        "(binary version), or the same names without .bin (Python version)"
    )


def _arrays(batches: list[tuple[np.ndarray, np.ndarray]], name: str) -> Arrays:
    pixels = np.concatenate([x for x, _ in batches]).reshape(-1, 3, 32, 32)
    labels = torch.from_numpy(np.concatenate([y for _, y in batches]))
    check_labels(labels, CLASSES, name)
    return Arrays(pixels, labels, CLASSES)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {str(path)!r} ({error.strerror}); allow it, or fetch the file again") from error


def _read_binary(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Records of one label byte and 3,072 pixel bytes (red, green, blue planes)."""
    content = np.frombuffer(_content(path), np.uint8)
    if content.size == 0 or content.size % (1 + _PIXELS):
        raise UserError(
            f"{str(path)!r} has {content.size} bytes, not whole records of {1 + _PIXELS}; fetch the file again"
        )
    records = content.reshape(-1, 1 + _PIXELS)
    return records[:, 1:], records[:, 0]


def _read_python(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The pixels and labels of a pickled batch, picked out of its opcodes: nothing in the file is executed.

    The file is a dictionary with the keys `_KEYS`. Labels are the integers that follow the key "labels", pixels the one
    long string after the key "data".
    """
    section, labels, pixels = "", [], b""
    try:
        for opcode, argument, _ in pickletools.genops(_content(path)):
            if opcode.name not in _OPCODES or (opcode.name == "GLOBAL" and argument not in _GLOBALS):
                refused = argument if opcode.name == "GLOBAL" else opcode.name
                raise UserError(f"{str(path)!r} is not a published CIFAR-10 file: it holds {refused!r}, refused")
            if isinstance(argument, str) and opcode.name != "GLOBAL":
                if argument in _KEYS:
                    section = argument
                elif section == "data" and len(argument) >= _PIXELS:
                    pixels = argument.encode("latin-1")
            elif section == "labels" and opcode.name.startswith("BININT") and isinstance(argument, int):
                labels.append(argument)
    except UserError:
        raise
    except (ValueError, struct.error, IndexError) as error:
        raise UserError(f"{str(path)!r} is damaged ({error}); fetch the file again") from error
    if not labels or len(pixels) != len(labels) * _PIXELS:
        raise UserError(
            f"{str(path)!r} holds {len(labels)} labels and {len(pixels)} pixel bytes, not {_PIXELS} for each label; "
            "fetch the file again"
        )
    return np.frombuffer(pixels, np.uint8).reshape(-1, _PIXELS), np.array(labels, np.int64)
