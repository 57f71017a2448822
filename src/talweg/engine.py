"""The gradient engine of one device: (θ, batch) → loss, with ∇J left in `theta.grad`.

Every kind of parallelism is another object with the same call. The loop, the update rules, schedules and averaging see
only θ, its gradient and the counts.
"""

from __future__ import annotations

import contextlib
import sys
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from talweg.errors import UserError
from talweg.task import Loss
from talweg.theta import Theta

Noise = contextlib.AbstractContextManager[Any]  # inside it, noise layers draw for the samples of a micro-batch
Window = Iterable[tuple[Tensor, Tensor, Noise]]
_LIBRARIES = tuple(str(Path(found.__file__).parent) for found in (torch, sys.modules["talweg"]) if found.__file__)


class Engine(Protocol):
    """Computes J and ∇J of one global batch."""

    def __call__(self, window: Window, samples: int) -> tuple[Tensor, Tensor | int]:
        """Leaves ∇J in θ's gradient vector and returns the mean loss (0-d, detached) and the weight it is a mean over.

        Args:
            window: the micro-batches (x, y, noise) that make up one global batch, in order.
            samples: the number of samples in the whole window.
        """


class OneDevice:
    """The engine of one device, with exact accumulation over micro-batches.

    J = Σ_i loss_i / count over the global batch, whatever the cut into micro-batches, the short last window included:
    a scalar mean of n samples enters with weight n/N; sums and counts are added up, and ∇J is divided once by the count.

    Args:
        module: the model, whose parameters are views of `theta`.
        loss: see `talweg.task.Loss`.
        theta: the module's parameters as one vector.
        bf16: compute the layers in bfloat16 (autocast), weights and sums stay float32.
        compile_mode: how `torch.compile` is asked for: "off", "on" or "reduce-overhead" (CUDA graphs).
    """

    def __init__(self, module: nn.Module, loss: Loss, theta: Theta, *, bf16: bool, compile_mode: str = "off") -> None:
        self.module, self.loss, self.theta, self.bf16 = module, loss, theta, bf16
        self.device_type = theta.value.device.type
        self.forward: Callable[[Tensor, Tensor], Any] = self._forward
        self.misfits: dict[str, str] = {}
        self.compile(compile_mode)

    def compile(self, mode: str) -> None:
        """Compiles the forward pass and the loss ("on", "reduce-overhead"), or not ("off")."""
        self.mode = mode
        if mode == "off":
            self.forward = self._forward
        elif mode == "on":
            self.forward = torch.compile(self._forward, dynamic=False)
        else:
            self.forward = torch.compile(self._forward, dynamic=False, mode=mode)

    def __call__(self, window: Window, samples: int) -> tuple[Tensor, Tensor | int]:
        """See `Engine`."""
        self.theta.grad.zero_()
        total: Tensor | None = None
        count: Tensor | int = samples
        for x, y, noise in window:
            try:
                with noise as announced:  # the backward pass inside: it may compute activations anew
                    found = self.forward(x, y)
                    if is_mean := isinstance(found, Tensor) and found.dim() == 0:
                        part = found if x.shape[0] == samples else found * (x.shape[0] / samples)
                    else:  # sums and counts: the divisor is known at the window's end
                        part, items = loss_sums(found, samples)
                        count = items if total is None else count + items
                    part.backward()
                if announced is not None:
                    self.misfits |= announced.misfits
            except Exception as error:
                raise explained(error, x) from error
            part = part.detach()
            if self.mode == "reduce-overhead":
                part = part.clone()  # the next replay of the CUDA graph overwrites its outputs
            total = part if total is None else total + part
        assert total is not None, "an empty window"
        if not is_mean:
            self.theta.grad.div_(count)
            total = total / count
        return total, count

    def autocast(self) -> contextlib.AbstractContextManager:
        """bfloat16 autocast where the recipe asks for it."""
        return torch.autocast(self.device_type, torch.bfloat16) if self.bf16 else contextlib.nullcontext()

    def _forward(self, x: Tensor, y: Tensor) -> Any:
        if not self.bf16:
            return self.loss(self.module(x), y)
        with torch.autocast(self.device_type, torch.bfloat16):
            return self.loss(self.module(x), y)


def explained(error: Exception, x: Tensor, what: str = "model or loss") -> UserError:
    """A failure of the user's code on a batch in one line: what was fed, what torch said, and where it was."""
    if isinstance(error, UserError):
        return error
    if isinstance(error, torch.OutOfMemoryError):
        return UserError(
            f"the device ran out of memory on {x.shape[0]} samples at once: set micro_batch to {max(1, x.shape[0] // 2)} "
            "or less (the result stays the same)"
        )
    if "more than 1 value per channel" in str(error):
        return UserError(
            f"a batch norm has no statistics of a batch of shape {list(x.shape)}: choose a batch that leaves more than one "
            "sample for the last batch of an epoch"
        )
    if "does not require grad" in str(error):
        return UserError(
            "the loss does not depend on the model's parameters: compute it from the output with torch operations, "
            "without detach(), item() or numpy"
        )
    kind = str(x.dtype).removeprefix("torch.")
    return UserError(f"{what} failed on a batch of shape {list(x.shape)}, {kind}{told(error)}")


def told(error: Exception) -> str:
    """What an error in the user's code says, in one line, and the last place in that code that it went through."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(_LIBRARIES)]
    place = f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
    return f"{place}: {type(error).__name__}: {' '.join(str(error).split())}"


def loss_sums(found: Any, samples: int) -> tuple[Tensor, Tensor | int]:
    """(Σ loss, count) of whichever of the three forms a loss returned.

    Raises:
        UserError: it is none of them.
    """
    if isinstance(found, tuple) and len(found) == 2 and isinstance(found[0], Tensor):
        return found
    if isinstance(found, Tensor):
        return (found.sum(), found.numel()) if found.dim() else (found * samples, samples)
    raise UserError(
        f"the loss must return a scalar mean, a tensor of one loss an item, or a pair (sum, count); it returned "
        f"{type(found).__name__}"
    )
