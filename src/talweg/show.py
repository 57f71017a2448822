"""Look before you train: a sheet of training samples as the model will see them, and what normalisation does to them."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from talweg.building import fit_normalizer, open_source
from talweg.data import Source, augmentation
from talweg.errors import UserError
from talweg.layout import Layout
from talweg.recipe import Recipe
from talweg.report.contact_sheet import contact_sheet
from talweg.report.pixel_statistics import pixel_statistics
from talweg.task import Task

_SAMPLES, _VALUES = 2048, 1 << 24  # most samples, and most numbers, that the statistics are taken over
_SMALL = 112  # pixels, up to which more images have room
_ROWS, _EPOCHS, _PLAIN = (10, 6), (7, 4), (80, 24)
"""For small and for other images: with augmentation, a row for a sample and a column for an epoch; without, samples."""


def show(task: Task, recipe: Recipe, out: str | Path, *, workers: int = 0) -> Path:
    """Writes a PNG of training samples of all classes, stored and as augmented in the first epochs, with statistics.

    A row is a sample: as it is stored, then as epochs 1, 2, … will show it to the model (before normalisation, which
    would change the colours only). Below are mean, standard deviation, range and histogram of each channel as stored,
    normalised, and augmented and normalised, over up to 2,048 samples spread over the whole set.

    Args:
        task: what is to be learnt, from images.
        recipe: its augmentation and its seed.
        out: the file to write, ending in .png.
        workers: processes that read a `Dataset`.

    Raises:
        UserError: the task's samples are no images, or the file cannot be written.

    Example:
        >>> import tempfile
        >>> from talweg.recipe import Samples
        >>> from talweg.tasks import TaskSource, load_task
        >>> digits = load_task(TaskSource(name="digits")).task
        >>> path = show(digits, Recipe(samples=Samples(augment=("crop",))), Path(tempfile.mkdtemp()) / "digits.png")
        >>> path.name, path.read_bytes()[1:4]
        ('digits.png', b'PNG')
    """
    source = open_source(task.train, "train", Layout(workers=workers))
    indices, x, y = _spread(source, task.name)
    normalizer = fit_normalizer(task, source)
    augment, seed = augmentation(recipe.samples.augment), recipe.seed
    stored = pixel_statistics(x)
    levels = [channel.levels for channel in stored]
    stages = {"stored": stored, "normalised": pixel_statistics(normalizer(x), levels)}
    n, c, h, w = x.shape
    place = 0 if max(h, w) <= _SMALL else 1
    chosen = _chosen(y, (_PLAIN if augment is None else _ROWS)[place])
    rows = [x[chosen].float()]
    titles: tuple[str, ...] = ()
    if augment is not None:
        changed = normalizer(augment(x, indices, seed, 0))
        stages["augmented, normalised"] = pixel_statistics(changed, levels)
        epochs = range(_EPOCHS[place])
        rows += [augment(x[chosen], indices[chosen], seed, epoch).float() for epoch in epochs]
        titles = ("stored", *(f"epoch {epoch + 1}" for epoch in epochs))
    images = torch.stack(rows, 1).flatten(0, 1)  # row by row: a sample, then its changes
    words = [_label(y[i], source.classes) for i in chosen.tolist()]
    labels = [word for name in words for word in (name, *[""] * (len(rows) - 1))]
    names = ", ".join(recipe.samples.augment) or "none"
    low, high = min(channel.min for channel in stored), max(channel.max for channel in stored)
    if x.dtype == torch.uint8 and high > 127:
        low, high = 0.0, 255.0
    return contact_sheet(
        images,
        labels,
        out,
        heading=f"{task.name}: {len(source):,} training samples of {c} × {h} × {w}, {_kind(x)}",
        notes=(
            f"augmentation: {names}; seed {seed}; black is {low:g}, white is {high:g}",
            f"statistics over {n:,} samples, normalised by {task.normalize!r}",
        ),
        titles=titles,
        columns=len(titles),
        limits=(low, high),
        statistics=stages,
    )


def _spread(source: Source, name: str) -> tuple[Tensor, Tensor, Tensor]:
    """(indices, x, y) of samples at equal distances over the whole set."""
    first, _ = next(iter(source.batches([range(1)])))
    if first.dim() != 4:
        raise UserError(
            f"talweg show needs images [N, C, H, W]; the samples of task {name!r} are {list(first.shape[1:])} of "
            f"{_kind(first)}"
        )
    most = max(1, min(len(source), _SAMPLES, _VALUES // first.numel()))
    indices = torch.arange(most) * len(source) // most
    parts = list(source.batches(part.to(source.chunk_device) for part in indices.split(256)))
    return indices, torch.cat([x.cpu() for x, _ in parts]), torch.cat([y.cpu() for _, y in parts])


def _chosen(y: Tensor, most: int) -> Tensor:
    """Places of samples to look at: the first of each class, then the second of each, and so on."""
    if y.dim() != 1 or y.is_floating_point():
        return torch.arange(min(most, len(y)))
    turn = torch.zeros_like(y)  # how many of its class stand before a sample
    for label in y.unique():
        mine = y == label
        turn[mine] = torch.arange(int(mine.sum()))
    order = torch.argsort(turn * (int(y.max()) + 1) + y, stable=True)
    return order[:most]


def _label(y: Tensor, classes: tuple[str, ...]) -> str:
    if y.dim():
        return ""
    if y.is_floating_point():
        return f"{y.item():.4g}"
    return classes[int(y)] if int(y) < len(classes) else str(int(y))


def _kind(x: Tensor) -> str:
    return str(x.dtype).removeprefix("torch.")
