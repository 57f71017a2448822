"""Look before you train: a sheet of training samples as the model will see them, and what normalisation does to them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from talweg.building import fit_normalizer, open_source
from talweg.data import Source, augmentation
from talweg.data.augment import Augmentation
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
    change = _change(source, recipe)
    stored = pixel_statistics(x)
    levels = [channel.levels for channel in stored]
    stages = {"stored": stored, "normalised": pixel_statistics(_planes(normalizer(x)), levels)}
    n, c, h, w = x.shape
    place = 0 if max(h, w) <= _SMALL else 1
    chosen = _chosen(y, (_PLAIN if change is None else _ROWS)[place])
    columns, titles = [(x[chosen], y[chosen])], ["stored"]
    if change is not None:
        changed, _ = change(x, y, indices, 0)
        stages["augmented, normalised"] = pixel_statistics(_planes(normalizer(changed)), levels)
        for epoch in range(_EPOCHS[place]):
            columns.append(change(x[chosen], y[chosen], indices[chosen], epoch))
            titles.append(f"epoch {epoch + 1}")
    images = torch.stack([images.double() for images, _ in columns], 1).flatten(
        0, 1
    )  # sample by sample, with its changes
    words = [[_label(y, source.classes) for y in labels] for _, labels in columns]
    for later in words[1:]:  # one label is enough for a row in which all are the same
        later[:] = ["" if word == first else word for word, first in zip(later, words[0], strict=True)]
    low, high = min(channel.min for channel in stored), max(channel.max for channel in stored)
    if x.dtype == torch.uint8 and high > 127:
        low, high = 0.0, 255.0
    return contact_sheet(
        images,
        [word for row in zip(*words, strict=True) for word in row],
        out,
        heading=f"{task.name}: {len(source):,} training samples of {c} × {h} × {w}, {_kind(x)}",
        notes=(
            f"augmentation: {', '.join(recipe.samples.augment) or 'none'}; seed {recipe.seed}; "
            f"black is {low:g}, white is {high:g}",
            f"statistics over {n:,} samples, normalised by {task.normalize!r}",
        ),
        titles=titles if change else (),
        columns=len(titles) if change else 0,
        limits=(low, high),
        statistics=stages,
    )


def _change(source: Source, recipe: Recipe) -> Callable[[Tensor, Tensor, Tensor, int], tuple[Tensor, Tensor]] | None:
    """What an epoch of the recipe makes of stored samples: (x, y, indices, epoch) → (x', y'); None: nothing."""
    augment = augmentation(recipe.samples.augment)
    if isinstance(augment, Augmentation):
        augment = augment.fit(source)
    if augment is None:
        return None
    return lambda x, y, indices, epoch: (augment(x, indices, recipe.seed, epoch), y)


def _spread(source: Source, name: str) -> tuple[Tensor, Tensor, Tensor]:
    """(indices, x, y) of samples at equal distances over the whole set."""
    first, _ = next(iter(source.batches([range(1)])))
    if first.dim() != 4:
        raise UserError(
            f"only images [N, C, H, W] can be shown; the samples of task {name!r} are {list(first.shape[1:])} of "
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
    """A target in words: the class, the two largest shares of a mixed one, or the number."""
    if y.dim() == 1 and y.is_floating_point() and len(y) == len(classes):
        shares, places = y.topk(min(2, len(y)))
        pairs = zip(shares.tolist(), places.tolist(), strict=True)
        return ", ".join(f"{classes[k]} {share:.2f}" for share, k in pairs if share >= 0.01)
    if y.dim():
        return ""
    if y.is_floating_point():
        return f"{y.item():.4g}"
    return classes[int(y)] if int(y) < len(classes) else str(int(y))


def _planes(z: Tensor) -> Tensor:
    """Normalised images; features that are no images any more, as those of PCA, as one channel."""
    return z if z.dim() == 4 else z.flatten(1)[:, None, None]


def _kind(x: Tensor) -> str:
    return str(x.dtype).removeprefix("torch.")
