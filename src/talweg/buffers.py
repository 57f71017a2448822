"""Running statistics, kept so that a pass through the module can be taken back."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


class Kept:
    """Copies of the buffers that a checkpoint of a module holds, to go back to after a pass that spoilt them.

    Args:
        module: the module; buffers that are only a cache (persistent=False) are left alone.
        also: further tensors, changed in place only, that are kept and put back with the buffers.

    Example:
        >>> norm = nn.BatchNorm1d(2)
        >>> kept = Kept(norm)
        >>> _ = norm(torch.full((4, 2), float("inf")))
        >>> norm.running_mean.tolist()
        [inf, inf]
        >>> kept.restore()
        >>> norm.running_mean.tolist()
        [0.0, 0.0]
    """

    def __init__(self, module: nn.Module, also: Iterable[Tensor] = ()) -> None:
        # The places, not the tensors: a module may put a new tensor in the place of one.
        self._places = [
            (m._buffers, name)
            for m in module.modules()
            for name, buffer in m._buffers.items()
            if buffer is not None and name not in m._non_persistent_buffers_set
        ]
        self._also = list(also)
        self._copies = [tensor.detach().clone() for tensor in self._now()]

    def keep(self) -> None:
        """Copies the tensors as they are now; some microseconds, and no host synchronisation."""
        if self._copies:
            torch._foreach_copy_(self._copies, self._now())

    def restore(self) -> None:
        """Puts the tensors back as they were kept the last time."""
        with torch.no_grad():
            for tensor, copy in zip(self._now(), self._copies, strict=True):
                tensor.copy_(copy)

    def _now(self) -> list[Tensor]:
        return [*(table[name] for table, name in self._places), *self._also]  # type: ignore[list-item]
