"""From samples to what the model sees: gathered in a stateless order, augmented, normalised, cut into micro-batches."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from talweg.data import Arrays, Order, Source, ranges
from talweg.data.augment import Mixing, partners
from talweg.engine import Noise, Window
from talweg.nn.noise import noise_context
from talweg.randomness import key

_QUIET = contextlib.nullcontext()

Augment = Callable[[Tensor, Tensor, int, int], Tensor]  # (x, sample indices, seed, epoch) → x


class Feed:
    """The batches of a training, or of an evaluation, as the model sees them.

    Args:
        source: samples whose batches lie on the training's device.
        order: which samples each update sees.
        prepare: raw features → normalised features in the dtype of the training.
        augment: random changes to the raw features, before `prepare`.
        micro_batch: most samples at once (0: the whole batch).
        noisy: whether the model has noise layers, which want to know the samples of each micro-batch.
        mixing: blends samples with partners from the whole source and softens their targets, one of `classes` each.
        dtype: of the training; targets that are not whole numbers are converted to it.

    Example:
        >>> from talweg.data import as_source
        >>> source = as_source((torch.arange(5.0), torch.zeros(5)), "train")
        >>> feed = Feed(source, Order(5, 4, seed=0, name="sequential"), prepare=lambda x: x * 10, micro_batch=3)
        >>> [[x.tolist() for x, _, _ in window] for window, samples in feed.windows(0, 2)]
        [[[0.0, 10.0, 20.0], [30.0]], [[40.0]]]
    """

    def __init__(
        self,
        source: Source,
        order: Order,
        prepare: Callable[[Tensor], Tensor],
        augment: Augment | None = None,
        micro_batch: int = 0,
        dtype: torch.dtype = torch.float32,
        noisy: bool = False,
        mixing: Mixing | None = None,
        classes: int = 0,
    ) -> None:
        self.noisy, self.mixing, self.classes = noisy, mixing, classes
        self.source, self.order, self.prepare, self.augment, self.dtype = source, order, prepare, augment, dtype
        self.micro_batch = micro_batch if 0 < micro_batch < order.batch else 0

    def __len__(self) -> int:
        return len(self.source)

    @property
    def steps_per_epoch(self) -> int:
        """Updates in one epoch."""
        return self.order.steps_per_epoch

    def windows(self, first_step: int, last_step: int) -> Iterator[tuple[Window, int]]:
        """For each update of one epoch: its micro-batches (x, y, noise), and the number of samples in all of them.

        Args:
            first_step: counted from 0 over the whole run.
            last_step: exclusive; in the same epoch.
        """
        chunks = self.order.chunks(first_step, last_step, self.source.chunk_device)
        epoch = self.order.window(first_step).epoch
        if not self.micro_batch:
            for step, (x, y, samples) in enumerate(self._prepared(chunks, epoch), first_step):
                yield ((x, y, self._noise(step, samples, x)),), x.shape[0]
            return
        pieces = (piece for chunk in chunks for piece in chunk.split(self.micro_batch))
        stream = self._prepared(pieces, epoch)
        for step in range(first_step, last_step):
            _, start, stop = self.order.window(step)
            parts = itertools.islice(stream, -(-(stop - start) // self.micro_batch))
            yield ((x, y, self._noise(step, samples, x)) for x, y, samples in parts), stop - start

    def batches(self, limit: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Every sample once, in order, without augmentation; or the first `limit`."""
        size = self.micro_batch or max(self.order.batch, 256)
        for x, y in self.source.batches(ranges(limit or len(self.source), size)):
            yield self.prepare(x), y.to(self.dtype) if y.is_floating_point() else y

    def _noise(self, step: int, samples: Tensor, x: Tensor) -> Noise:
        """Announces the samples of a micro-batch of an update to the noise layers of the model, if it has any."""
        if not self.noisy:
            return _QUIET
        return noise_context(self.order.seed, step, samples.to(x.device, non_blocking=True))

    def _prepared(self, chunks: Iterator[Tensor], epoch: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        prepare, augment, seed, dtype = self.prepare, self.augment, self.order.seed, self.dtype
        draw = key(seed, epoch, "dataset")  # random transforms inside a user's Dataset: a function of (draw, sample)
        used, kept, others = itertools.tee(chunks, 3)  # a source may read ahead, so the indices are kept beside it
        mixes = self.mixing is not None and self.mixing.mixes
        pairs = self._partners(others, epoch, draw) if mixes else itertools.repeat((None, None))
        batches = zip(kept, self.source.batches(used, draw), strict=True)
        for (indices, (x, y)), (other_x, other_y) in zip(batches, pairs, strict=False):
            if augment is not None:
                x = augment(x, indices.to(x.device, non_blocking=True), seed, epoch)
            if self.mixing is not None:
                places = indices.to(x.device, non_blocking=True)
                other_x, other_y = (x, y) if other_x is None else (other_x, other_y)
                x, y = self.mixing(x, y, other_x, other_y, places, seed, epoch, self.classes)
            yield prepare(x), y.to(dtype) if y.is_floating_point() else y, indices

    def _partners(self, chunks: Iterator[Tensor], epoch: int, draw: int) -> Iterator[tuple[Any, Any]]:
        """What each sample is blended with: samples of the whole source, a function of (seed, epoch, sample)."""
        seed = self.order.seed
        used, kept = itertools.tee(partners(len(self.source), chunk, seed, epoch) for chunk in chunks)
        for indices, (x, y) in zip(kept, self.source.batches(used, draw), strict=True):
            yield (self.augment(x, indices.to(x.device), seed, epoch) if self.augment is not None else x), y


def prepared_once(source: Source, prepare: Callable[[Tensor], Tensor], most_bytes: int) -> Source | None:
    """The arrays of a source already prepared, so that no batch pays for it; None where that is not worth the memory."""
    if not isinstance(source, Arrays) or not len(source):
        return None
    with torch.no_grad():
        one = prepare(source.x[:1])
        if one.nbytes * len(source) > most_bytes or source.x.is_meta:
            return None
        return Arrays(
            torch.cat([prepare(x) for x, _ in source.batches(ranges(len(source), 4096))]), source.y, source.classes
        )


def identity(x: Tensor) -> Tensor:
    """x, unchanged."""
    return x
