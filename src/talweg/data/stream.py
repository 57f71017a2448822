"""Where a source's batches live: on the device as a whole, or copied there one batch ahead of the training."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from talweg.data.arrays import Arrays
from talweg.data.loader import Loader
from talweg.data.order import Chunk
from talweg.data.source import Source


def place(source: Source, device: torch.device | str) -> Source:
    """A source whose batches come out on the device, by the cheapest way that there is.

    Arrays that fit (`Arrays.fits`) move there as a whole; everything else is copied batch by batch (`Stream`).
    On the CPU the source is returned as it is.

    Args:
        source: see `as_source`.
        device: where the model is.

    Example:
        >>> data = Arrays(torch.zeros(4, 2), torch.zeros(4))
        >>> place(data, "cpu") is data
        True
    """
    device = torch.device(device)
    if device.type == "cpu":
        return source
    if isinstance(source, Arrays) and (source.chunk_device == device or source.fits(device)):
        return source.to(device)
    return Stream(source, device)


class Stream:
    """Copies the batches of a source on the host to a device; on CUDA asynchronously, one batch ahead.

    While a step runs, the next batch is gathered into pinned memory and copied on a stream of its own; the training
    stream waits for the copy's event, the host for nothing. On other devices each batch is simply copied.

    Args:
        source: a source whose batches are on the CPU.
        device: where they must go.

    Example:
        >>> source = Arrays(torch.arange(4.0), torch.zeros(4))
        >>> [x.tolist() for x, _ in Stream(source, "cpu").batches([torch.tensor([3, 1]), torch.tensor([0])])]
        [[3.0, 1.0], [0.0]]
    """

    def __init__(self, source: Source, device: torch.device | str) -> None:
        self.device = torch.device(device)
        if isinstance(source, Loader) and self.device.type == "cuda":
            source = replace(source, pin=True)
        self.source = source
        self.classes = source.classes

    def __len__(self) -> int:
        return len(self.source)

    @property
    def chunk_device(self) -> torch.device:
        """Where index chunks must lie: where the wrapped source wants them."""
        return self.source.chunk_device

    def batches(self, chunks: Iterable[Chunk], draw: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields (x, y) on the device for each chunk."""
        if self.device.type == "cuda":
            return self._ahead(self.source.batches(chunks, draw))
        return ((x.to(self.device), y.to(self.device)) for x, y in self.source.batches(chunks, draw))

    def _ahead(self, batches: Iterator[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
        """Keeps one copy in flight: the copy of batch k + 1 is issued before batch k is handed out."""
        stream = torch.cuda.Stream(self.device)
        waiting: tuple[Tensor, Tensor, torch.cuda.Event] | None = None
        for x, y in batches:
            with torch.cuda.stream(stream):
                copied = _copy(x, self.device), _copy(y, self.device), stream.record_event()
            if waiting is not None:
                yield self._ready(*waiting)
            waiting = copied
        if waiting is not None:
            yield self._ready(*waiting)

    def _ready(self, x: Tensor, y: Tensor, event: torch.cuda.Event) -> tuple[Tensor, Tensor]:
        """Orders the training stream behind the copy, and keeps the allocator from reusing the memory too early."""
        current = torch.cuda.current_stream(self.device)
        current.wait_event(event)
        x.record_stream(current)
        y.record_stream(current)
        return x, y


def _copy(value: Tensor, device: torch.device) -> Tensor:
    pinned = value if value.is_pinned() else value.pin_memory()
    return pinned.to(device, non_blocking=True)
