"""A tree of image files, decoded once into arrays on disk, which training maps into memory from then on."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from talweg.checkpoint import cannot_write, write_atomically
from talweg.data.arrays import Arrays
from talweg.data.checks import check_labels
from talweg.data.decode import ImageError, read
from talweg.data.decoders import Decoders, cores
from talweg.data.images import Progress, check_settings, mixed
from talweg.data.packing import Block, Done, Journal, Part, Settings, alone, fingerprint
from talweg.data.split import Sets
from talweg.data.tree import Tree, scan
from talweg.errors import UserError, require, unknown

FORMAT = 1
INDEX, JOURNAL = "index.json", "progress.jsonl"

_ON_CORRUPT = ("refuse", "skip")
_LISTED = 10  # unreadable files that are told of by name
_SAVE_SECONDS = 2.0  # a pack that is killed loses at most so much work


@dataclass(frozen=True, kw_only=True)
class Packed:
    """What a pack holds."""

    folder: Path
    """where it lies"""
    shape: tuple[int, int, int]
    """(H, W, C) of every image"""
    classes: tuple[str, ...]
    """their names, in the order of the labels"""
    images: dict[str, int]
    """number of images of each part, "train" and "validation" """
    mean: tuple[float, ...]
    """of each channel over the training images, 0 … 255"""
    std: tuple[float, ...]
    """of each channel over the training images"""
    skipped: tuple[str, ...]
    """why, for each file that was left out"""

    @property
    def nbytes(self) -> int:
        """Bytes of all pixels."""
        return sum(self.images.values()) * int(np.prod(self.shape))

    def words(self) -> str:
        """What is in it, in a few lines."""
        height, width, channels = self.shape
        count = ", ".join(f"{images:,} for {part}" for part, images in self.images.items())
        lines = [
            f"{sum(self.images.values()):,} images of {height} × {width} × {channels} in {self.folder} "
            f"({self.nbytes / 1e6:,.1f} MB): {count}; {len(self.classes)} classes",
            f"mean of each channel {_figures(self.mean)}, standard deviation {_figures(self.std)} (of 0 … 255)",
        ]
        if self.skipped:
            lines += [f"left out, for they cannot be read: {len(self.skipped):,} files", *self.skipped[:_LISTED]]
        if len(self.skipped) > _LISTED:
            lines.append(f"… and {len(self.skipped) - _LISTED:,} more, all in {self.folder / INDEX}")
        return "\n".join(lines)


def pack(
    root: str | Path,
    out: str | Path,
    *,
    size: int | None = None,
    channels: int | None = None,
    validation: float = 0.1,
    workers: int = 0,
    on_corrupt: str = "refuse",
    progress: Progress | None = None,
) -> Packed:
    """Decodes a tree with one folder of images for each class into uint8 arrays on disk, by several processes.

    The trees, and the files held out, are those of `load_images`. The folder `out` then holds, for each part ("train",
    "validation"), `PART.npy` (the pixels [N, H, W, C]), `PART-labels.npy` (int64 [N]) and `PART-files.txt` (line i names
    the file of image i), and `index.json`, written last: without it a pack is not whole. A pack that was killed goes on
    with the blocks of images that are missing, if it is called again; a whole pack of the same files is left as it is.
    If another process packs into the same folder, this one waits and then finds the pack there.

    Args:
        root: the tree.
        out: the folder of the pack, made where it is missing.
        size: side in pixels; images are resized to cover the square and cut at the centre. None: all images must
            already have one size.
        channels: 1 (grey) or 3 (colour) converts all images; None: all must have the same number.
        validation: fraction held out, if the tree has no folder for it.
        workers: decoding processes; 0: one for each processor core.
        on_corrupt: "refuse" stops at a file that cannot be read; "skip" leaves it out (an image from the end takes its
            place), and lists it in `skipped`.
        progress: called with (images done, images in all) from time to time.

    Raises:
        UserError: naming the file or folder: nothing found, an empty class, an image that cannot be read, sizes or
            channels that differ, no space, or a pack of other files or settings in `out`.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> folder = Path(tempfile.mkdtemp())
        >>> for name, grey in (("day", 200), ("night", 20)):
        ...     (folder / "files" / name).mkdir(parents=True)
        ...     for i in range(10):
        ...         Image.new("L", (8, 8), grey + i).save(folder / "files" / name / f"{i}.png")
        >>> packed = pack(folder / "files", folder / "packed", workers=1)
        >>> packed.images, packed.shape, packed.classes
        ({'train': 18, 'validation': 2}, (8, 8, 1), ('day', 'night'))
        >>> load_packed(folder / "packed").train
        Arrays(18 samples of uint8 [1, 8, 8] on cpu)
    """
    check_settings(size, channels, validation)
    require(workers >= 0, "workers", workers, "a number of processes, or 0 for one on each core")
    if on_corrupt not in _ON_CORRUPT:
        raise unknown("on_corrupt", on_corrupt, _ON_CORRUPT)
    root, out, settings, skip = Path(root), Path(out), Settings(size, channels), on_corrupt == "skip"
    _refuse_inside(root, out)
    tree = scan(root, validation)
    odd = next((name for files in tree[:2] for name in files.names if "\n" in name), None)
    require(odd is None, "the name of a file", odd, "of one line")
    try:
        out.mkdir(parents=True, exist_ok=True)
        with alone(out):
            if is_packed(out):
                return _again(tree, out, settings, skip)
            first, shape = _first(tree, settings, skip)
            parts, journal = _parts(tree, out, settings, shape), Journal(out / JOURNAL)
            try:
                _decode(parts, journal, first, workers or cores(), skip, progress)
            finally:
                journal.save(parts)
            return _finish(parts, journal, tree.classes)
    except OSError as error:
        raise cannot_write(out, error) from error


def load_packed(folder: str | Path) -> Sets:
    """The images of a pack, mapped into memory: only what a batch touches is read from the disk.

    Args:
        folder: what was `out` of `pack`.

    Returns:
        `Sets(train, validation)` of uint8 [N, C, H, W], labels, and the names of the classes.

    Raises:
        UserError: there is no pack, it is not whole, or it is damaged.

    Example:
        >>> load_packed("/nowhere")
        Traceback (most recent call last):
            ...
        talweg.errors.UserError: no pack in '/nowhere' (it has no index.json); make one with talweg pack
    """
    folder = Path(folder)
    packed = _open(folder)
    sets = {}
    for part, count in packed.images.items():
        path = folder / f"{part}.npy"
        try:
            pixels = np.load(path, mmap_mode="r", allow_pickle=False)  # [N, H, W, C]
            labels = np.load(folder / f"{part}-labels.npy", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise _damaged(folder, " ".join(str(error).split())) from error
        if pixels.shape != (count, *packed.shape) or pixels.dtype != np.uint8 or labels.shape != (count,):
            raise _damaged(folder, f"{path.name} and its labels do not hold what {INDEX} says")
        sets[part] = Arrays(pixels.transpose(0, 3, 1, 2), labels, packed.classes)
        check_labels(sets[part].y, packed.classes, f"{part} in {str(folder)!r}")
    return Sets(**sets)


def is_packed(folder: str | Path) -> bool:
    """Whether a folder holds a whole pack."""
    return (Path(folder) / INDEX).is_file()


def _parts(tree: Tree, out: Path, settings: Settings, shape: tuple[int, ...]) -> list[Part]:
    return [
        Part(out, "train", tree.train, settings, shape),
        Part(out, "validation", tree.validation, settings, shape),
    ]


def _decode(
    parts: Sequence[Part], journal: Journal, first: str, workers: int, skip: bool, progress: Progress | None
) -> None:
    """Decodes the blocks that are missing; `first` is the file that every image must be like."""
    blocks = [block for part in parts for block in part.blocks]
    lengths = {part.name: part.reserve() for part in parts}
    journal.take_over(block for block in blocks if block.end <= lengths[block.part.name])
    todo = [block for block in blocks if block.name not in journal.done]
    total = sum(map(len, blocks))
    done = total - sum(map(len, todo))
    _refuse_full_disk(parts[0].out, sum(len(block) * block.part.row_bytes for block in todo))
    if progress is not None:
        progress(done, total)
    saved = time.monotonic()
    with Decoders(max(1, min(workers, len(todo)))) as decoders:
        for block, answer in zip(todo, decoders.map(Block.job, todo), strict=True):
            _take(block, answer, journal, first, skip)
            done += len(block)
            if time.monotonic() - saved >= _SAVE_SECONDS:
                journal.save(parts)
                saved = time.monotonic()
            if progress is not None:
                progress(done, total)


def _take(block: Block, answer: dict[str, Any], journal: Journal, first: str, skip: bool) -> None:
    """Notes what became of a block."""
    if "failed" in answer:
        raise cannot_write(block.part.pixels, OSError(answer["errno"], answer["failed"]))
    if answer["bad"] and not skip:
        raise _refused(answer["bad"][0][1])
    if answer["odd"]:
        row, shape = answer["odd"]
        path = f"{block.part.files.folder}{os.sep}{block.names[row]}"
        raise mixed(first, block.part.shape, path, shape)
    block.part.bad.update({block.start + row: why for row, why in answer["bad"]})
    journal.add(block, Done(answer["key"], answer["sums"], answer["squares"]))


def _finish(parts: Sequence[Part], journal: Journal, classes: Sequence[str]) -> Packed:
    """Makes a pack of what is decoded: it is one from the moment when the index is there."""
    facts = {part.name: part.finish([journal.done[b.name] for b in part.blocks], classes) for part in parts}
    index = {
        "format": FORMAT,
        "shape": parts[0].shape,
        "classes": classes,
        "parts": facts,
        "skipped": [part.bad[row] for part in parts for row in sorted(part.bad)],
        "settings": parts[0].settings._asdict(),
        "fingerprint": fingerprint(journal.done[block.name].key for part in parts for block in part.blocks),
    }
    out = parts[0].out
    write_atomically(out / INDEX, json.dumps(index, indent=1).encode())
    journal.path.unlink()
    for part in parts:
        part.trim(facts[part.name]["images"])
    return _open(out)


def _open(folder: Path) -> Packed:
    """What the index of a pack says."""
    if not is_packed(folder):
        if (folder / JOURNAL).exists():
            raise UserError(
                f"the pack in {str(folder)!r} is not whole: call talweg pack again, it goes on where it was"
            )
        raise UserError(f"no pack in {str(folder)!r} (it has no {INDEX}); make one with talweg pack")
    index = _index(folder)
    try:
        height, width, channels = index["shape"]
        return Packed(
            folder=folder,
            shape=(height, width, channels),
            classes=tuple(index["classes"]),
            images={part: facts["images"] for part, facts in index["parts"].items()},
            mean=tuple(index["parts"]["train"]["mean"]),
            std=tuple(index["parts"]["train"]["std"]),
            skipped=tuple(index["skipped"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _damaged(folder, f"{INDEX} lacks {error}") from error


def _index(folder: Path) -> dict[str, Any]:
    try:
        index: dict[str, Any] = json.loads((folder / INDEX).read_bytes())
        found = index["format"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(folder, f"{INDEX} cannot be read: {error}") from error
    require(found == FORMAT, f"the format of the pack in {str(folder)!r}", found, f"{FORMAT}; pack the images again")
    return index


def _again(tree: Tree, out: Path, settings: Settings, skip: bool) -> Packed:
    """The whole pack that is there already, if it is the one asked for."""
    packed, index = _open(out), _index(out)
    parts = _parts(tree, out, settings, packed.shape)
    if index.get("fingerprint") != fingerprint(block.key() for part in parts for block in part.blocks):
        said = ", ".join(f"{name}={value}" for name, value in index.get("settings", {}).items())
        raise UserError(
            f"{str(out)!r} holds a pack of other files or settings (made with {said}, or the files have changed since): "
            "remove it, or choose another folder"
        )
    if packed.skipped and not skip:
        raise _refused(packed.skipped[0])
    return packed


def _first(tree: Tree, settings: Settings, skip: bool) -> tuple[str, tuple[int, ...]]:
    """The first file that can be read, and the shape [H, W, C] of its image."""
    why = ""
    for path in tree.train.paths:
        try:
            return path, read(path, *settings).shape
        except ImageError as error:
            if not skip:
                raise _refused(str(error)) from error
            why = why or str(error)
    raise UserError(f"no image in {str(tree.train.folder)!r} can be read: {why}")


def _refuse_inside(root: Path, out: Path) -> None:
    """A pack among the class folders would be taken for a class."""
    train = root / "train"
    if out.resolve().parent == (train if train.is_dir() else root).resolve():
        raise UserError(f"the pack {str(out)!r} would lie among the class folders; choose a folder outside of {root}")


def _refuse_full_disk(out: Path, needed: int) -> None:
    free = shutil.disk_usage(out).free
    if needed > free:
        raise UserError(
            f"the pack in {str(out)!r} needs {needed / 1e9:.1f} GB more, only {free / 1e9:.1f} GB are free; "
            "choose another folder, or a smaller size"
        )


def _figures(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.2f}" for value in values)


def _refused(why: str) -> UserError:
    return UserError(f"{why}; repair or remove the file, or leave such files out with on_corrupt='skip'")


def _damaged(folder: Path, why: str) -> UserError:
    return UserError(f"the pack in {str(folder)!r} is damaged ({why}); remove it and pack the images again")
