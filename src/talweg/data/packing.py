"""The inside of a pack: where each image lies, what is already there, and what a whole one is made of."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from talweg.checkpoint import write_atomically
from talweg.data.decode import block_key
from talweg.data.tree import Files
from talweg.errors import UserError

HEADER = 128  # bytes of a .npy header, which stands before the pixels

_BLOCK_BYTES, _BLOCK_IMAGES = 16 << 20, 256  # what a process decodes before it writes


class Settings(NamedTuple):
    """What the pixels of a file become, beside the file (see `talweg.data.decode.read`)."""

    size: int | None
    channels: int | None


class Done(NamedTuple):
    """A block that is on the disk: the fingerprint of its files, Σ v and Σ v² of each channel."""

    key: str
    sums: list[int]
    squares: list[int]


@dataclass(frozen=True)
class Block:
    """Files that are decoded together, into successive rows."""

    part: Part
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    @property
    def name(self) -> str:
        """Which block it is."""
        return f"{self.part.name} {self.start}"

    @property
    def offset(self) -> int:
        """Where its bytes begin in the file."""
        return HEADER + self.start * self.part.row_bytes

    @property
    def end(self) -> int:
        """Where they end."""
        return HEADER + self.stop * self.part.row_bytes

    @property
    def names(self) -> list[str]:
        """The files, relative to the part's folder."""
        return self.part.files.names[self.start : self.stop]

    @property
    def about(self) -> str:
        """What the rows are a function of, beside the files."""
        return json.dumps([self.name, self.part.shape, self.part.settings])

    def key(self) -> str:
        """The fingerprint of the files as they are now."""
        return block_key(self.about, str(self.part.files.folder), self.names)

    def job(self) -> dict[str, Any]:
        """What a decoding process is told (see `talweg.data.decode.decode_block`)."""
        files = {"folder": str(self.part.files.folder), "names": self.names, "about": self.about}
        place = {"file": str(self.part.pixels), "offset": self.offset, "shape": self.part.shape}
        return {**files, **place, **self.part.settings._asdict()}


@dataclass
class Part:
    """One part of a data set while it is packed: `name`.npy grows block by block.

    Args:
        out: the folder of the pack.
        name: "train" or "validation".
        files: what goes in.
        settings: what the pixels become.
        shape: (H, W, C) of every image.
    """

    out: Path
    name: str
    files: Files
    settings: Settings
    shape: tuple[int, ...]
    bad: dict[int, str] = field(default_factory=dict)
    """row → why, of the files that could not be read"""

    @property
    def pixels(self) -> Path:
        """The file of the images."""
        return self.out / f"{self.name}.npy"

    @cached_property
    def row_bytes(self) -> int:
        """Bytes of one image."""
        return int(np.prod(self.shape))

    @cached_property
    def blocks(self) -> list[Block]:
        """The files in blocks, each a few MB of pixels."""
        step = max(1, min(_BLOCK_IMAGES, _BLOCK_BYTES // self.row_bytes))
        n = len(self.files.names)
        return [Block(self, start, min(start + step, n)) for start in range(0, n, step)]

    def reserve(self) -> int:
        """Gives the file its full length, and returns the length that it had."""
        had = self.pixels.stat().st_size if self.pixels.exists() else 0
        with open(self.pixels, "r+b" if had else "wb") as file:
            file.truncate(HEADER + len(self.files.names) * self.row_bytes)
        return had

    def sync(self) -> None:
        """Waits until what was written is on the disk."""
        with open(self.pixels, "r+b") as file:
            os.fsync(file.fileno())

    def finish(self, done: Sequence[Done], classes: Sequence[str]) -> dict[str, Any]:
        """Closes the gaps that unreadable files left, writes header, labels and names, and returns the part's facts.

        An image from the end takes the place of each unreadable file. Nothing that is read here is overwritten, so that
        this can be broken off and done again.

        Raises:
            UserError: no image of a class could be read.
        """
        n, good = len(self.files.names), len(self.files.names) - len(self.bad)
        gaps = [row for row in sorted(self.bad) if row < good]
        movers = [row for row in range(good, n) if row not in self.bad]
        rows = np.arange(n)
        rows[gaps] = movers
        kept = self.files.subset(rows[:good])
        counts = np.bincount(kept.labels, minlength=len(classes))
        if not counts.all() and (self.name == "train" or not good):  # a class may lack images to validate on
            row = next(row for row in sorted(self.bad) if not counts[self.files.labels[row]])
            lost = classes[self.files.labels[row]]
            raise UserError(
                f"no image of class {lost!r} can be read for {self.name}: {self.bad[row]}; repair the files"
            )
        with open(self.pixels, "r+b") as file:
            for gap, mover in zip(gaps, movers, strict=True):
                file.seek(HEADER + mover * self.row_bytes)
                pixels = file.read(self.row_bytes)
                file.seek(HEADER + gap * self.row_bytes)
                file.write(pixels)
            file.seek(0)
            header = {"descr": "|u1", "fortran_order": False, "shape": (good, *self.shape)}
            np.lib.format.write_array_header_1_0(file, header)
            assert file.tell() == HEADER
        self.sync()
        labels = io.BytesIO()
        np.save(labels, kept.labels, allow_pickle=False)
        write_atomically(self.out / f"{self.name}-labels.npy", labels.getvalue())
        names = "".join(name + "\n" for name in kept.names)
        write_atomically(self.out / f"{self.name}-files.txt", names.encode("utf-8", "surrogateescape"))
        mean, std = _mean_std(done, good * self.shape[0] * self.shape[1])
        return {"images": good, "of_each_class": counts.tolist(), "mean": mean, "std": std}

    def trim(self, images: int) -> None:
        """Cuts off what lies behind the last image, once the pack is whole."""
        os.truncate(self.pixels, HEADER + images * self.row_bytes)


class Journal:
    """The blocks that are on the disk, a line of JSON each: what a pack that was killed need not do again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.done: dict[str, Done] = {}
        self._new: list[str] = []

    def take_over(self, blocks: Iterable[Block]) -> None:
        """Keeps what an earlier pack has done of these blocks; its other lines go, for their rows will be overwritten."""
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        found = {}
        for line in lines:
            try:
                name, *done = json.loads(line)
            except ValueError:  # the last line of a process that was killed
                continue
            found[name] = Done(*done)
        for block in blocks:
            if block.name in found and found[block.name].key == block.key():
                self.done[block.name] = found[block.name]
        write_atomically(self.path, "".join(_line(name, done) for name, done in self.done.items()).encode())

    def add(self, block: Block, done: Done) -> None:
        """Notes a block. One with unreadable files is tried again, should this pack be killed."""
        self.done[block.name] = done
        if not any(row in block.part.bad for row in range(block.start, block.stop)):
            self._new.append(_line(block.name, done))

    def save(self, parts: Sequence[Part]) -> None:
        """Writes what was noted, once the pixels are on the disk."""
        if self._new:
            for part in parts:
                part.sync()
            with open(self.path, "a") as file:
                file.writelines(self._new)
                file.flush()
                os.fsync(file.fileno())
            self._new = []


def fingerprint(keys: Iterable[str]) -> str:
    """What a whole pack is a function of, from the fingerprints of its blocks."""
    return hashlib.sha256("\n".join(keys).encode()).hexdigest()


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Waits until no other process packs into a folder, and keeps others waiting."""
    try:
        import fcntl
    except ImportError:  # no such locks on Windows
        yield
        return
    place = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(place, fcntl.LOCK_EX)
        yield
    finally:
        os.close(place)


def _line(name: str, done: Done) -> str:
    return json.dumps([name, *done]) + "\n"


def _mean_std(done: Sequence[Done], count: int) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel over `count` values, from exact sums."""
    sums = [sum(channel) for channel in zip(*(block.sums for block in done), strict=True)]
    squares = [sum(channel) for channel in zip(*(block.squares for block in done), strict=True)]
    std = [(count * q - s**2) ** 0.5 / count for s, q in zip(sums, squares, strict=True)]
    return [s / count for s in sums], std
