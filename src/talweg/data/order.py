"""Stateless sample order: the batch of a step is a pure function of (seed, step), so a run resumes from one integer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from talweg.errors import require, unknown
from talweg.randomness import generator

Chunk: TypeAlias = Tensor | range
"""The samples of one batch: a LongTensor of indices, or a `range` of successive samples (sliced, not copied)."""

_VIEWS = 1024  # views of a permutation made at once: amortises the call without holding a million views


class Window(NamedTuple):
    """Where a step reads: places `start` to `stop` (exclusive) of the order of `epoch`."""

    epoch: int
    start: int
    stop: int


def shuffled(n: int, seed: int, epoch: int) -> Tensor:
    """A permutation of 0..n-1, drawn anew for each (seed, epoch)."""
    return torch.randperm(n, generator=generator(seed, epoch, "order"))


def sequential(n: int, seed: int, epoch: int) -> Tensor:
    """0, 1, …, n-1 in every epoch."""
    return torch.arange(n)


ORDERS: dict[str, Callable[[int, int, int], Tensor]] = {"shuffled": shuffled, "sequential": sequential}


def order(name: str, n: int, seed: int, epoch: int) -> Tensor:
    """The order in which an epoch shows its samples, a function of its arguments alone.

    Args:
        name: a name in `ORDERS`: "shuffled" or "sequential".
        n: number of samples.
        seed: the run's seed.
        epoch: counted from 0.

    Returns:
        LongTensor [n] on the CPU, so that every device sees the same order.

    Raises:
        UserError: if the name is unknown.

    Example:
        >>> order("sequential", 4, seed=0, epoch=3).tolist()
        [0, 1, 2, 3]
        >>> a, b = order("shuffled", 100, seed=0, epoch=0), order("shuffled", 100, seed=0, epoch=1)
        >>> bool((a == b).all()), bool((a.sort().values == b.sort().values).all())   # reshuffled, nothing lost
        (False, True)
    """
    if name not in ORDERS:
        raise unknown("order", name, ORDERS)
    return ORDERS[name](n, seed, epoch)


def ranges(n: int, batch: int) -> Iterator[range]:
    """One sequential pass over n samples, as ranges: each sample once, no index tensor, no copy.

    Example:
        >>> list(ranges(10, 4))
        [range(0, 4), range(4, 8), range(8, 10)]
    """
    return (range(start, min(start + batch, n)) for start in range(0, n, batch))


class Order:
    """The batches of a run: step k shows window k mod S of epoch k div S, with S = ceil(n / batch) steps an epoch.

    The last window of an epoch is short if the batch does not divide n; no window spans two epochs.

    Args:
        n: number of samples.
        batch: samples of one update (the global batch).
        seed: the run's seed.
        name: a name in `ORDERS`.

    Raises:
        UserError: if n or batch is below 1 or the name is unknown.

    Example:
        >>> run = Order(10, batch=4, seed=0)
        >>> run.steps_per_epoch, run.window(5)          # step 5 is the third of epoch 1, and short
        (3, Window(epoch=1, start=8, stop=10))
        >>> tail = list(run.chunks(3, 6))               # resumed at step 3: the same as the run never stopped
        >>> all(torch.equal(chunk, run.indices(step)) for step, chunk in enumerate(tail, start=3))
        True
    """

    def __init__(self, n: int, batch: int, seed: int, name: str = "shuffled") -> None:
        require(n >= 1, "n", n, "at least 1 sample")
        require(batch >= 1, "batch", batch, "at least 1")
        if name not in ORDERS:
            raise unknown("order", name, ORDERS)
        self.n, self.batch, self.seed, self.name = n, batch, seed, name
        self._cached: tuple[int, Tensor] | None = None

    @property
    def steps_per_epoch(self) -> int:
        """ceil(n / batch)."""
        return -(-self.n // self.batch)

    def window(self, step: int) -> Window:
        """The epoch of a global step (counted from 0) and the places it reads there."""
        epoch, position = divmod(step, self.steps_per_epoch)
        start = position * self.batch
        return Window(epoch, start, min(start + self.batch, self.n))

    def permutation(self, epoch: int) -> Tensor:
        """The order of an epoch, LongTensor [n] on the CPU; the latest one is kept."""
        if self._cached is None or self._cached[0] != epoch:
            self._cached = (epoch, order(self.name, self.n, self.seed, epoch))
        return self._cached[1]

    def indices(self, step: int) -> Tensor:
        """The samples of a global step: LongTensor [≤ batch] on the CPU."""
        epoch, start, stop = self.window(step)
        return self.permutation(epoch)[start:stop]

    def chunks(self, first_step: int, last_step: int, device: torch.device | str = "cpu") -> Iterator[Tensor]:
        """The samples of the steps first_step, …, last_step - 1, on a device.

        Each epoch's order is moved to the device once; a step costs one view and no host synchronisation.
        """
        step = first_step
        while step < last_step:
            epoch, start, _ = self.window(step)
            until = min(last_step, (epoch + 1) * self.steps_per_epoch)
            stop = self.window(until - 1).stop
            places = _move(self.permutation(epoch), torch.device(device))
            for low in range(start, stop, _VIEWS * self.batch):
                yield from places[low : min(low + _VIEWS * self.batch, stop)].split(self.batch)
            step = until


def _move(places: Tensor, device: torch.device) -> Tensor:
    """Copies an order to a device; from pinned memory to CUDA, because a pageable copy would wait for the stream."""
    if device.type == "cuda":
        return places.pin_memory().to(device, non_blocking=True)
    return places.to(device)
