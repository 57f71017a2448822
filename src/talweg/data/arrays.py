"""Samples in memory: a batch is one index_select on the device where the arrays live."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from talweg.data.checks import check_finite, check_pair
from talweg.data.order import Chunk
from talweg.errors import UserError, require

Array = Tensor | np.ndarray


class Arrays:
    """Features and targets held in memory, gathered batch by batch.

    Nothing is converted that need not be: uint8 images stay uint8 and float64 stays float64. Images [N, C, H, W] are
    stored with their channels last, so that the pixels of an image are gathered as one piece and a batch comes out in
    torch's `channels_last` format. Integer targets come out as int64. A memory-mapped numpy array stays on disk.

    Args:
        x: [N, ...] features, tensor or numpy array; images as [N, C, H, W].
        y: [N, ...] targets: integers for classes, floats for regression.
        classes: the names of the classes, if the targets are classes.
        tokens: x holds token numbers: its batches come out as int64, however compactly they are stored.

    Raises:
        UserError: if the lengths differ, the data is empty or a dtype cannot be trained on.

    Example:
        >>> data = Arrays(torch.zeros(5, 3, 8, 8, dtype=torch.uint8), torch.tensor([0, 1, 2, 3, 4]))
        >>> x, y = next(data.batches([torch.tensor([4, 2])]))
        >>> x.shape, x.dtype, x.is_contiguous(memory_format=torch.channels_last), y
        (torch.Size([2, 3, 8, 8]), torch.uint8, True, tensor([4, 2]))
    """

    def __init__(self, x: Array, y: Array, classes: Sequence[str] = (), tokens: bool = False) -> None:
        mapped = isinstance(x, np.memmap)
        x, y = _tensor(x, "x"), _tensor(y, "y")
        check_pair(x, y, "data")
        require(not tokens or not x.is_floating_point(), "tokens=True", x.dtype, "used with integer features")
        self.classes = tuple(classes)
        # Integer labels of one dimension are small: converted once, so that no batch pays for it.
        self._y = y.long() if y.dim() == 1 and not y.is_floating_point() else y
        self._last = x.dim() == 4 and (not mapped or x.permute(0, 2, 3, 1).is_contiguous())
        rows = x.permute(0, 2, 3, 1) if self._last else x
        self._x = rows.contiguous()  # [N, H, W, C] or as given
        self._relayout = x.dim() == 4 and not self._last  # images mapped as [N, C, H, W]: each batch is turned
        self._x_long = tokens and x.dtype != torch.int64
        self._y_long = not self._y.is_floating_point() and self._y.dtype != torch.int64
        self._checked = False

    def __len__(self) -> int:
        return len(self._x)

    @property
    def x(self) -> Tensor:
        """All features, [N, C, H, W] for images: a view of what is stored."""
        return self._x.permute(0, 3, 1, 2) if self._last else self._x

    @property
    def y(self) -> Tensor:
        """All targets, [N, ...]."""
        return self._y

    @property
    def chunk_device(self) -> torch.device:
        """Where index chunks must lie: where the arrays are."""
        return self._x.device

    @property
    def nbytes(self) -> int:
        """Bytes that the arrays take up."""
        return self._x.nbytes + self._y.nbytes

    def check(self, name: str) -> Arrays:
        """Raises a `UserError` naming the row of the first NaN or infinity; looks only once."""
        if not self._checked:
            check_finite(self.x, f"{name}: x")
            check_finite(self._y, f"{name}: y")
            self._checked = True
        return self

    def to(self, device: torch.device | str) -> Arrays:
        """The same arrays on another device."""
        return self._with(self._x.to(device), self._y.to(device))

    def subset(self, indices: Tensor) -> Arrays:
        """The samples at the given indices, copied."""
        return self._with(self._x.index_select(0, indices), self._y.index_select(0, indices))

    def fits(self, device: torch.device | str) -> bool:
        """Whether the arrays should live on the device: nbytes ≤ half of its free memory (always true on the CPU)."""
        device = torch.device(device)
        if device.type == "cpu":
            return True
        if device.type == "cuda":
            free = torch.cuda.mem_get_info(device)[0]
        elif device.type == "mps":
            free = torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
        else:
            return False
        return 2 * self.nbytes <= free

    def batches(self, chunks: Iterable[Chunk], draw: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields (x, y) for each chunk: gathered for a tensor of indices, sliced without a copy for a range.

        Args:
            chunks: LongTensors on `chunk_device`, or ranges.
            draw: of no meaning here: nothing in arrays is random.
        """
        x, y = self._x, self._y
        last, relayout, x_long, y_long = self._last, self._relayout, self._x_long, self._y_long
        for chunk in chunks:
            if isinstance(chunk, range):
                part = slice(chunk.start, chunk.stop, chunk.step)
                xb, yb = x[part], y[part]
            else:
                xb, yb = x.index_select(0, chunk), y.index_select(0, chunk)
            if last:
                xb = xb.permute(0, 3, 1, 2)
            elif relayout:
                xb = xb.contiguous(memory_format=torch.channels_last)
            elif x_long:
                xb = xb.long()
            if y_long:
                yb = yb.long()
            yield xb, yb

    def _with(self, x: Tensor, y: Tensor) -> Arrays:
        other = copy.copy(self)
        other._x, other._y = x, y
        return other

    def __repr__(self) -> str:
        kind = str(self._x.dtype).removeprefix("torch.")
        return f"Arrays({len(self)} samples of {kind} {list(self.x.shape[1:])} on {self.chunk_device})"


def _tensor(value: Array, what: str) -> Tensor:
    """A tensor over the same memory, where the array's layout allows it."""
    if isinstance(value, Tensor):
        return value.detach()
    if not isinstance(value, np.ndarray):
        raise UserError(f"{what} must be a tensor or a numpy array, received {type(value).__name__}")
    if not value.dtype.isnative or any(stride < 0 for stride in value.strides):
        value = value.astype(value.dtype.newbyteorder("="), order="C")
    try:
        with warnings.catch_warnings():  # batches are only read from, so a read-only map is fine
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            return torch.from_numpy(value)
    except TypeError:
        raise UserError(f"{what} has dtype {value.dtype}, which cannot be trained on; convert it to numbers") from None
