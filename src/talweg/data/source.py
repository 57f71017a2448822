"""What training reads from: one small protocol, and the conversion of whatever the user brings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, TensorDataset

from talweg.data.arrays import Arrays
from talweg.data.loader import Loader
from talweg.data.order import Chunk
from talweg.errors import UserError

_ACCEPTED = "a pair (x, y) of tensors or numpy arrays, talweg.data.Arrays, or a map-style Dataset of (x, y) samples"


@runtime_checkable
class Source(Protocol):
    """Samples by index: anything with a length, class names, and batches for chunks of indices."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, or ()."""

    @property
    def chunk_device(self) -> torch.device:
        """The device on which `batches` wants its index chunks."""

    def __len__(self) -> int: ...

    def batches(self, chunks: Iterable[Chunk], draw: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields one (x, y) for each chunk, in order; `draw` names random draws inside the data (see `Loader`)."""


def as_source(data: object, name: str, workers: int = 0) -> Source:
    """The source for what a user brought along, checked: lengths, dtypes, and NaN or infinity by row.

    Args:
        data: a pair (x, y) of tensors or numpy arrays, `Arrays`, a map-style `Dataset` of (x, y), or a source.
        name: what messages call it, such as "train".
        workers: processes that read a `Dataset`.

    Raises:
        UserError: if the data is of another kind or does not pass the checks.

    Example:
        >>> as_source((np.zeros((3, 4)), np.array([0, 1, 0])), "train")
        Arrays(3 samples of float64 [4] on cpu)
        >>> as_source((np.array([[1.0], [np.inf]]), np.array([0, 1])), "train")
        Traceback (most recent call last):
            ...
        talweg.errors.UserError: train: x is inf at row 1, position (0,); remove or repair that sample
    """
    if isinstance(data, TensorDataset) and len(data.tensors) == 2:
        data = data.tensors
    if isinstance(data, tuple | list) and len(data) == 2 and all(isinstance(d, Tensor | np.ndarray) for d in data):
        try:
            data = Arrays(*data)
        except UserError as error:
            raise UserError(f"{name}: {str(error).removeprefix('data: ')}") from None
    if isinstance(data, Source):
        if workers and not isinstance(data, Loader):
            raise UserError(f"{name}: workers={workers} has no effect on data in memory; leave it at 0")
        return data.check(name) if isinstance(data, Arrays) else data
    if isinstance(data, IterableDataset):
        raise UserError(f"{name}: an IterableDataset has no sample indices, so no order can be kept; give {_ACCEPTED}")
    if isinstance(data, Dataset) and hasattr(data, "__len__"):
        loader = Loader(data, name, workers)
        # What is no pair is named now, not in mid-run; read by a worker where workers are asked for, because a dataset
        # may open files at its first sample that must not be shared between processes.
        next(replace(loader, workers=min(1, workers)).batches([range(1)]))
        return loader
    kind = type(data).__name__
    if isinstance(data, tuple | list):
        kind = f"{kind} of {len(data)}: ({', '.join(type(item).__name__ for item in data[:4])})"
    raise UserError(f"{name}: received {kind}; give {_ACCEPTED}")
