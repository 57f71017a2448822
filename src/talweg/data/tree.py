"""Trees of files with one folder for each class: which files there are, and what their labels are."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from talweg.data.split import stratified
from talweg.errors import UserError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")

_VALIDATION = ("validation", "val", "test")


class Files(NamedTuple):
    """The files of one part of a data set."""

    folder: Path
    names: list[str]
    """[N] of the files, relative to the folder, such as cat/0001.png"""
    labels: np.ndarray
    """[N] int64"""

    @property
    def paths(self) -> list[str]:
        """[N] the files."""
        folder = f"{self.folder}{os.sep}"
        return [folder + name for name in self.names]

    def subset(self, indices: np.ndarray) -> Files:
        """The files at the given places."""
        return Files(self.folder, [self.names[i] for i in indices.tolist()], self.labels[indices])


class Tree(NamedTuple):
    """A data set in files: what to learn from, what to validate on, and the names of the classes."""

    train: Files
    validation: Files
    classes: tuple[str, ...]


def scan(root: str | Path, validation: float) -> Tree:
    """The image files of a tree.

    Either root/train/<class>/*.png with root/validation (or val, or test)/<class>/*.png, or root/<class>/*.png (or
    root/train/<class>/*.png alone), of which a fraction of each class is held out, the same files each time. Classes and
    files are taken in the order of the alphabet.

    Args:
        root: the tree; files that are no images (by suffix) and hidden files are passed over.
        validation: fraction held out, if the tree has no folder for it.

    Raises:
        UserError: nothing found, an empty class, classes that differ between the parts; the message names the folder.

    Example:
        >>> scan("/nowhere", 0.1)
        Traceback (most recent call last):
            ...
        talweg.errors.UserError: no folder '/nowhere'; put images into /nowhere/train/<class>/ and \
/nowhere/validation/<class>/, or into /nowhere/<class>/
    """
    root = Path(root)
    if not root.is_dir():
        raise UserError(
            f"no folder {str(root)!r}; put images into {root}/train/<class>/ and {root}/validation/<class>/, "
            f"or into {root}/<class>/"
        )
    inner = root / "train"
    train, classes = _files(inner if inner.is_dir() else root)
    held = next((root / name for name in _VALIDATION if (root / name).is_dir()), None) if inner.is_dir() else None
    if held is None:
        return Tree(*_hold_out(train, validation), classes)
    others, their_classes = _files(held)
    if classes != their_classes:
        odd = sorted(set(classes) ^ set(their_classes))[0]
        raise UserError(f"class folder {odd!r} is in only one of {str(inner)!r} and {str(held)!r}; give both the same")
    return Tree(train, others, classes)


def _files(folder: Path) -> tuple[Files, tuple[str, ...]]:
    """The image files of each class folder, both in the order of the alphabet, and the names of the classes."""
    classes = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if len(classes) < 2:
        found = f"only {classes[0]!r}" if classes else "none"
        raise UserError(f"{str(folder)!r} must hold one folder of images for each class, at least two; found {found}")
    names: list[str] = []
    counts = []
    for name in classes:
        files = sorted(f for f in os.listdir(folder / name) if f.lower().endswith(SUFFIXES) and f[0] != ".")
        if not files:
            raise UserError(
                f"class folder {str(folder / name)!r} holds no images ({', '.join(SUFFIXES)}); fill it or remove it"
            )
        names += [f"{name}{os.sep}{file}" for file in files]
        counts.append(len(files))
    return Files(folder, names, np.repeat(np.arange(len(classes)), counts)), tuple(classes)


def _hold_out(files: Files, fraction: float) -> tuple[Files, Files]:
    """Holds a fraction of the files out, in the class proportions of the whole; a function of the labels alone."""
    n = len(files.names)
    held = min(n - 1, max(1, round(fraction * n)))
    kept, out = stratified(torch.from_numpy(files.labels), held, "images", "split")
    return files.subset(kept.numpy()), files.subset(out.numpy())
