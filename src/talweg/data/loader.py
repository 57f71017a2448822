"""Ordinary datasets through torch's DataLoader, in our order: the same sample for an index, whatever the workers."""

from __future__ import annotations

import random
import signal
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from talweg.data.order import Chunk
from talweg.errors import UserError, require
from talweg.randomness import generator, key


@dataclass(frozen=True, eq=False)
class Loader:
    """A map-style `Dataset` of (x, y) samples, read by worker processes and collated by `default_collate`.

    Random transforms inside the dataset are reproducible as well, if they draw from the global generators of torch,
    numpy or `random`: these are seeded for each sample by (draw, sample index), and put back afterwards. A sample is
    then the same in any batch, for any number of workers.

    Args:
        dataset: has `__len__` and `__getitem__(i) -> (x, y)`.
        name: what messages call it, such as "train".
        workers: processes that read samples; 0 reads in the training process.
        pin: collate into pinned memory, for asynchronous copies to CUDA (see `talweg.data.stream`).

    Raises:
        UserError: if the dataset is empty, workers is negative, or, when batches are read, a sample cannot be read or
            stacked; the message names the sample.

    Example:
        >>> class Squares(Dataset):
        ...     def __len__(self): return 10
        ...     def __getitem__(self, i): return torch.tensor([float(i)]), i * i
        >>> x, y = next(Loader(Squares()).batches([torch.tensor([3, 1])]))
        >>> x.tolist(), y
        ([[3.0], [1.0]], tensor([9, 1]))
    """

    dataset: Dataset[Any]
    name: str = "data"
    workers: int = 0
    pin: bool = False

    def __post_init__(self) -> None:
        require(self.workers >= 0, "workers", self.workers, "0 or a number of processes")
        if len(self) == 0:
            raise UserError(f"{self.name}: the dataset is empty; give at least one sample")

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    @property
    def classes(self) -> tuple[str, ...]:
        """The dataset's `classes`, if it has them."""
        return tuple(str(name) for name in getattr(self.dataset, "classes", ()))

    @property
    def chunk_device(self) -> torch.device:
        """Where index chunks must lie: on the CPU."""
        return torch.device("cpu")

    def batches(self, chunks: Iterable[Chunk], draw: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields the collated (x, y) for each chunk, in the order of the chunks; workers read a few chunks ahead.

        Args:
            chunks: LongTensors on the CPU, or ranges.
            draw: names the random draws inside the dataset, such as `key(seed, epoch)`.
        """
        loader: DataLoader[Any] = DataLoader(
            _Guarded(self.dataset, draw),
            batch_sampler=_Lists(chunks),
            num_workers=self.workers,
            collate_fn=_collate,
            pin_memory=self.pin,
            worker_init_fn=_deaf,
            generator=generator("workers", draw),  # without one, torch would draw from the global generator
        )
        try:
            for batch in loader:
                if isinstance(batch, _Failure):
                    raise UserError(f"{self.name}: {batch.text}")
                yield batch
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            reason = str(error).splitlines()[0]
            raise UserError(
                f"{self.name}: a worker process died ({reason}); try fewer workers than {self.workers}"
            ) from error


def _deaf(worker: int) -> None:
    """Makes a worker process deaf to Ctrl-C, which a terminal sends to it too: its training will end it in order."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@dataclass(frozen=True)
class _Failure:
    """What went wrong while a sample was read: travels from a worker as a value, so that the message stays one line."""

    text: str


class _Guarded(Dataset[Any]):
    """The dataset, with an error replaced by a `_Failure` that names the sample, and with its random draws named."""

    def __init__(self, dataset: Dataset[Any], draw: int) -> None:
        self.dataset, self.draw = dataset, draw

    def __getitems__(self, indices: list[int]) -> list[Any]:
        states = torch.get_rng_state(), np.random.get_state(), random.getstate()
        try:
            return [self._read(index) for index in indices]
        finally:
            torch.set_rng_state(states[0])
            np.random.set_state(states[1])
            random.setstate(states[2])

    def _read(self, index: int) -> Any:
        seed = key(self.draw, index)
        torch.default_generator.manual_seed(seed)
        np.random.seed(seed % 2**32)
        random.seed(seed)
        try:
            sample = self.dataset[index]
        except Exception as error:
            reason = " ".join(str(error).split())
            return _Failure(f"sample {index} could not be read ({type(error).__name__}: {reason}); repair or remove it")
        if not isinstance(sample, tuple | list) or len(sample) != 2:
            return _Failure(f"sample {index} must be a pair (x, y), received {_describe(sample)}")
        return sample[0], sample[1], index


class _Lists:
    """Chunks as the lists of integers that a DataLoader's batch sampler must give."""

    def __init__(self, chunks: Iterable[Chunk]) -> None:
        self.chunks = chunks

    def __iter__(self) -> Iterator[list[int]]:
        return (list(chunk) if isinstance(chunk, range) else chunk.tolist() for chunk in self.chunks)


def _collate(samples: list[Any]) -> tuple[Tensor, Tensor] | _Failure:
    """`default_collate` of x and of y, or the first failure among the samples."""
    for sample in samples:
        if isinstance(sample, _Failure):
            return sample
    xs, ys, indices = zip(*samples, strict=True)
    for what, values in (("x", xs), ("y", ys)):
        for index, value in zip(indices, values, strict=True):
            if getattr(value, "shape", None) != getattr(values[0], "shape", None):
                return _Failure(
                    f"{what} of sample {index} has shape {list(value.shape)}, that of sample {indices[0]} has "
                    f"{list(values[0].shape)}; samples of a batch must have one shape"
                )
    try:
        x, y = default_collate(list(xs)), default_collate(list(ys))
    except (TypeError, RuntimeError) as error:
        return _Failure(f"samples {indices[0]}, … cannot be stacked into a batch ({str(error).splitlines()[0]})")
    if not isinstance(x, Tensor) or not isinstance(y, Tensor):
        return _Failure(f"sample {indices[0]} must be two arrays or numbers, received {_describe((xs[0], ys[0]))}")
    return x, y


def _describe(value: object) -> str:
    if isinstance(value, tuple | list):
        return f"{type(value).__name__} of {len(value)}: ({', '.join(type(item).__name__ for item in value)})"
    return type(value).__name__
