"""Stateless sample order: the batch of a step is a pure function of (seed, step), so a run resumes from one integer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from talweg.data.orderings import ORDERS, Chosen, check_given, parse_order
from talweg.errors import UserError, require

Chunk: TypeAlias = Tensor | range
"""The samples of one batch: a LongTensor of indices, or a `range` of successive samples (sliced, not copied)."""

_VIEWS = 1024  # views of a permutation made at once: amortises the call without holding a million views


class Window(NamedTuple):
    """Where a step reads: places `start` to `stop` (exclusive) of the order of `epoch`."""

    epoch: int
    start: int
    stop: int


def order(
    name: str,
    n: int,
    seed: int,
    epoch: int,
    *,
    labels: Tensor | None = None,
    losses: Tensor | None = None,
    difficulty: Tensor | None = None,
) -> Tensor:
    """The order in which an epoch shows its samples, a function of its arguments alone.

    Args:
        name: a name in `ORDERS`, with its numbers if they are to be others: "shuffled", "loss_weighted:0.5,0.2".
        n: number of samples.
        seed: the run's seed.
        epoch: counted from 0.
        labels: [n] class numbers, for class_spread and class_balanced.
        losses: [n] the latest loss of each sample, for loss_weighted.
        difficulty: [n] a score for each sample, for curriculum.

    Returns:
        LongTensor [n] on the CPU, so that every device sees the same order.

    Raises:
        UserError: if the name is unknown, or what it needs is missing or wrong, or it is given what it does not need.

    Example:
        >>> order("sequential", 4, seed=0, epoch=3).tolist()
        [0, 1, 2, 3]
        >>> a, b = order("shuffled", 100, seed=0, epoch=0), order("shuffled", 100, seed=0, epoch=1)
        >>> bool((a == b).all()), bool((a.sort().values == b.sort().values).all())   # reshuffled, nothing lost
        (False, True)
    """
    chosen = parse_order(name)
    given = _given(chosen, n, labels, losses, difficulty)
    return _draw(chosen, n, seed, epoch, given)


def ranges(n: int, batch: int) -> Iterator[range]:
    """One sequential pass over n samples, as ranges: each sample once, no index tensor, no copy.

    Example:
        >>> list(ranges(10, 4))
        [range(0, 4), range(4, 8), range(8, 10)]
    """
    return (range(start, min(start + batch, n)) for start in range(0, n, batch))


class Order:
    """The batches of a run: step k shows window k mod S of epoch k div S, with S = ceil(n / batch) steps an epoch.

    The last window of an epoch is short if the batch does not divide n; no window spans two epochs. Every order shows n
    samples an epoch.

    Args:
        n: number of samples.
        batch: samples of one update (the global batch).
        seed: the run's seed.
        name: a name in `ORDERS`, with its numbers if they are to be others: "loss_weighted:0.5,0.2".
        labels, losses, difficulty: [n] what the order needs (see `order`).

    Attributes:
        given: what the order was given, on the CPU, or None. Losses change from epoch to epoch (`renew`): a run that is
            to be resumed keeps them beside its step.
        importance: 1 / (n·p_i) of every sample, float32 [n] on the CPU; None for orders in which all samples are equal.

    Raises:
        UserError: if n or batch is below 1, the name is unknown, what it needs is missing or wrong, or it is given what
            it does not need.

    Example:
        >>> run = Order(10, batch=4, seed=0)
        >>> run.steps_per_epoch, run.window(5)          # step 5 is the third of epoch 1, and short
        (3, Window(epoch=1, start=8, stop=10))
        >>> tail = list(run.chunks(3, 6))               # resumed at step 3: the same as the run never stopped
        >>> all(torch.equal(chunk, run.indices(step)) for step, chunk in enumerate(tail, start=3))
        True

    Samples that are shown more often than others weigh less, where the gradient is to stay unbiased:

        >>> run = Order(4, batch=4, seed=0, name="loss_weighted", losses=torch.tensor([0.0, 1.0, 1.0, 6.0]))
        >>> for sample, weight in zip(run.indices(0).tolist(), run.weights(0).tolist()):
        ...     print(sample, round(weight, 3))
        1 1.818
        3 0.357
        3 0.357
        3 0.357
    """

    def __init__(
        self,
        n: int,
        batch: int,
        seed: int,
        name: str = "shuffled",
        *,
        labels: Tensor | None = None,
        losses: Tensor | None = None,
        difficulty: Tensor | None = None,
    ) -> None:
        require(n >= 1, "n", n, "at least 1 sample")
        require(batch >= 1, "batch", batch, "at least 1")
        self._chosen = parse_order(name)
        self.n, self.batch, self.seed, self.name = n, batch, seed, name
        self._cached: tuple[int, Tensor] | None = None
        self._take(_given(self._chosen, n, labels, losses, difficulty))

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
            self._cached = (epoch, _draw(self._chosen, self.n, self.seed, epoch, self.given))
        return self._cached[1]

    def indices(self, step: int) -> Tensor:
        """The samples of a global step: LongTensor [≤ batch] on the CPU."""
        epoch, start, stop = self.window(step)
        return self.permutation(epoch)[start:stop]

    def renew(self, values: Tensor) -> None:
        """Takes new labels, losses or difficulties, before an epoch begins.

        Raises:
            UserError: the order needs none, or they are wrong.
        """
        if not self._chosen.ordering.needs:
            raise UserError(f"order {self.name!r} needs nothing to be given but the seed")
        self._take(check_given(self._chosen, self.n, values))

    def weights(self, step: int) -> Tensor | None:
        """What the samples of a global step count in an unbiased gradient (1/B)·Σ w·g: float32 [≤ batch], or None."""
        return None if self.importance is None else self.importance[self.indices(step)]

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

    def _take(self, given: Tensor | None) -> None:
        """Keeps what the order was given, and what follows from it."""
        probabilities = self._chosen.ordering.probabilities
        weights = (1.0 / (self.n * probabilities(given, *self._chosen.amounts))).float() if probabilities else None
        self.given, self.importance, self._cached = given, weights, None


def _given(
    chosen: Chosen, n: int, labels: Tensor | None, losses: Tensor | None, difficulty: Tensor | None
) -> Tensor | None:
    """The one thing that an order needs, checked; None if it needs nothing."""
    needs = chosen.ordering.needs
    offered = {"labels": labels, "losses": losses, "difficulty": difficulty}
    for what, values in offered.items():
        if values is not None and what != needs:
            users = " and ".join(name for name, ordering in ORDERS.items() if ordering.needs == what)
            raise UserError(f"{what} have no effect on order {chosen.name!r}: leave them out, or use {users}")
    return check_given(chosen, n, offered[needs]) if needs else None


def _draw(chosen: Chosen, n: int, seed: int, epoch: int, given: Tensor | None) -> Tensor:
    beside = () if given is None else (given,)
    return chosen.ordering.draw(n, seed, epoch, *beside, *chosen.amounts)


def _move(places: Tensor, device: torch.device) -> Tensor:
    """Copies an order to a device; from pinned memory to CUDA, because a pageable copy would wait for the stream."""
    if device.type == "cuda":
        return places.pin_memory().to(device, non_blocking=True)
    return places.to(device)
