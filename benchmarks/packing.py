"""Packing 60,000 small JPEG files: what two processes gain over one, and what an epoch from the pack costs.

    python benchmarks/packing.py [--data PATH] [--quick] [--json]

PATH holds train/<class>/*.jpg and test/<class>/*.jpg, such as CIFAR-10 as files; without it, 32 × 32 JPEG files of about
the same length are made up. All files are read once before, so that no one waits for the disk. In turns:

- ours: `talweg.data.pack.pack` with 1 and with 2 decoding processes, from nothing to the whole pack, everything included
  (listing the files, starting the processes, waiting for the disk);
- a plain loop in one process: Pillow's decoder into one array in memory, nothing written. Nobody can decode faster with
  it, so this is the bound of one process;
- a DataLoader with 2 workers that decode file by file, its batches written into an array on disk: what one would write
  without Talweg. Its workers are forked, so that it does not pay for their start-up.

Then an epoch of shuffled batches of 128 from the pack, mapped into memory, and from the same arrays in memory.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from side_by_side import Report, arguments, interleave
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from talweg import UserError
from talweg.data import Arrays, Order
from talweg.data.decoders import cores
from talweg.data.pack import load_packed, pack
from talweg.data.tree import scan

FILES = {"full": (5000, 1000), "quick": (2000, 400)}  # of each of ten classes, to train on and to test with
BATCH = 128


def ours(root: Path, out: Path, workers: int) -> Callable[[], None]:
    """Talweg, from nothing."""

    def run() -> None:
        shutil.rmtree(out, ignore_errors=True)
        pack(root, out, workers=workers)

    return run


def plain(paths: list[str], shape: tuple[int, ...]) -> Callable[[], None]:
    """Pillow in a loop."""

    def run() -> None:
        pixels = np.empty((len(paths), *shape), np.uint8)
        for i, path in enumerate(paths):
            with Image.open(path) as image:
                pixels[i] = np.asarray(image)

    return run


class Pictures(Dataset[Tensor]):
    """A file a sample, as in torchvision's ImageFolder."""

    def __init__(self, paths: list[str]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        with Image.open(self.paths[index]) as image:
            return torch.from_numpy(np.array(image.convert("RGB")))


def loader(paths: list[str], shape: tuple[int, ...], out: Path, workers: int) -> Callable[[], None]:
    """A DataLoader that fills an array on disk."""

    def run() -> None:
        pixels = np.lib.format.open_memmap(out, "w+", np.uint8, (len(paths), *shape))
        start = 0
        for batch in DataLoader(Pictures(paths), BATCH, num_workers=workers, multiprocessing_context="fork"):
            pixels[start : start + len(batch)] = batch.numpy()
            start += len(batch)
        pixels.flush()

    return run


def epoch(data: Arrays) -> Callable[[], None]:
    """One pass in a shuffled order."""

    def run() -> None:
        order = Order(len(data), BATCH, seed=0)
        for _ in data.batches(order.chunks(0, order.steps_per_epoch)):
            pass

    return run


def in_memory(data: Arrays) -> Arrays:
    """A copy of arrays that are mapped."""
    return Arrays(data.x.clone(), data.y.clone(), data.classes)


def made_up(root: Path, counts: tuple[int, int]) -> None:
    """Ten classes of smooth pictures with some noise, 32 × 32."""
    rng = np.random.default_rng(0)
    for part, count in zip(("train", "test"), counts, strict=True):
        for label in range(10):
            folder = root / part / str(label)
            folder.mkdir(parents=True)
            for i in range(count):
                coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
                smooth = np.asarray(coarse.resize((32, 32), Image.Resampling.BICUBIC), dtype=np.int16)
                noisy = np.clip(smooth + rng.integers(-6, 7, smooth.shape), 0, 255).astype(np.uint8)
                Image.fromarray(noisy).save(folder / f"{i:04}.jpg", quality=85)


def some_files(root: Path, target: Path, counts: tuple[int, int]) -> None:
    """The first files of each class of train/ and test/, as links."""
    for part, most in zip(("train", "test"), counts, strict=True):
        for source in sorted(path for path in (root / part).iterdir() if path.is_dir()):
            (target / part / source.name).mkdir(parents=True)
            for file in sorted(source.iterdir())[:most]:
                (target / part / source.name / file.name).symlink_to(file.resolve())


def measure(report: Report, root: Path, scratch: Path, repetitions: int) -> None:
    """All contestants in turns, then the epochs."""
    tree = scan(root, 0.1)
    paths = tree.train.paths + tree.validation.paths
    for path in paths:
        Path(path).read_bytes()
    shape = np.asarray(Image.open(paths[0]).convert("RGB")).shape
    contestants: dict[str, Any] = {
        "1 process": ours(root, scratch / "one", 1),
        "2 processes": ours(root, scratch / "two", 2),
        "plain loop": plain(paths, shape),
        "DataLoader": loader(paths, shape, scratch / "loader.npy", 2),
    }
    times = interleave(contestants, repetitions, warmup=0)
    report.compare("2 processes vs 1", times, "2 processes", "1 process", 1 / 1.8)
    report.compare("1 process vs a plain loop", times, "1 process", "plain loop", 1.15)
    report.compare("2 processes vs a DataLoader, 2 workers", times, "2 processes", "DataLoader", 0.8)
    mapped = load_packed(scratch / "two").train
    epochs = {"mapped": epoch(mapped), "in memory": epoch(in_memory(mapped))}
    report.compare("epoch, mapped vs in memory", interleave(epochs, 3 * repetitions), "mapped", "in memory", 1.1)
    best = min(times["2 processes"])
    report.note(f"{len(paths):,} files: {len(paths) / best:,.0f} a second with 2 processes")
    report.note(f"an epoch from the pack: {len(mapped) / min(_seconds(epochs['mapped'], 3)):,.0f} images a second")


def _seconds(function: Callable[[], None], times: int) -> list[float]:
    found = []
    for _ in range(times):
        start = time.perf_counter()
        function()
        found.append(time.perf_counter() - start)
    return found


def main() -> None:
    """Measures, prints, and says whether the targets are met."""
    options = arguments("packing small JPEG files", data="train/<class>/*.jpg, test/<class>/*.jpg (none: made up)")
    torch.set_num_threads(1)
    report = Report("Packing small JPEG files: seconds", unit="s", per_second=1.0)
    if cores() < 2:
        report.skip("2 processes", "this machine has one core")
    counts = FILES["quick" if options.quick else "full"]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(options.data or Path(folder) / "files")
        try:
            if not options.data:
                made_up(root, counts)
            elif options.quick:
                some_files(Path(options.data), root := Path(folder) / "files", counts)
            measure(report, root, Path(folder), 3 if options.quick else 5)
        except (OSError, UserError) as error:
            sys.exit(f"--data must hold train/<class>/* and test/<class>/* ({error})")
    report.finish(options.json)


if __name__ == "__main__":
    main()
