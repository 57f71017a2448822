"""How a formula becomes fast: torch's fused kernels, blocks that stay in the cache, or a kernel compiled from it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

# Elements a block: small enough that a block of every vector of a rule stays in the cache, large enough that the cost of
# starting an operation (1-2 µs) does not show and that 8 threads share one. On the ResNet-50 list, blocks of 2¹⁴, 2¹⁶, 2¹⁷
# and 2¹⁸ elements take Lion 32, 25, 22 and 21 ms.
BLOCK = 262144


def blocks(*vectors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Equal views of equal slices [n], block by block; the whole slices on accelerators and for populations.

    A formula of many operations reads every vector from memory once per operation. On a CPU, doing all of them on one
    block before the next costs the memory traffic of one fused kernel. A GPU wants few and long operations instead.

    Example:
        >>> [w.numel() for w, g in blocks(torch.zeros(300_000), torch.zeros(300_000))]
        [262144, 37856]
    """
    first = vectors[0]
    if first.device.type != "cpu" or first.dim() != 1:
        return iter([vectors])
    return zip(*(v.split(BLOCK) for v in vectors), strict=True)


def fused(name: str, w: Tensor, *settings: object) -> Callable[..., Any] | None:
    """torch's fused kernel `name`, or None where it cannot serve: the caller then uses the formula.

    The kernels are private to torch, so nothing is taken for granted: the kernel must exist for the device of w, w must
    be float32 or float64 and contiguous, and all settings must be numbers (tensors are a population's).

    Example:
        >>> fused("_fused_sgd_", torch.zeros(3), 0.1, 0.9) is None, fused("_fused_cake_", torch.zeros(3)) is None
        (False, True)
    """
    kernel = getattr(torch, name, None)
    known = getattr(torch._C, "_dispatch_has_kernel_for_dispatch_key", None)
    if kernel is None or known is None or any(isinstance(s, Tensor) for s in settings):
        return None
    if w.dtype not in (torch.float32, torch.float64) or not w.is_contiguous():
        return None
    if w.device.type not in ("cpu", "cuda") or not known(f"aten::{name}", w.device.type.upper()):
        return None
    return kernel


def bound_adam(
    kernel: Callable[..., Any], w: Tensor, g: Tensor, mean: Tensor, square: Tensor, number: Tensor, **settings: object
) -> Callable[..., Any]:
    """torch's fused Adam or AdamW on given vectors, to be called with lr and found_inf; `number`: t, 0-d float32."""
    return partial(kernel, [w], [g], [mean], [square], [], [number], amsgrad=False, maximize=False, **settings)


def shrink_first(
    kernel: Callable[..., Callable[..., Any]], weight_decay: float | Tensor, w: Tensor, g: Tensor, *state: Tensor
) -> Callable[..., None]:
    """Decoupled decay and then a fused kernel, as (lr, t, skip), block by block: the kernel finds w in the cache.

    `kernel(w, g, *state)` binds the kernel to a block; it is then called with lr and found_inf.
    """
    parts = [(block[0], kernel(*block)) for block in blocks(w, g, *state)]

    def run(lr: float, t: int, skip: Tensor | None) -> None:
        shrink = lr * weight_decay if skip is None else lr * weight_decay * (1.0 - skip)
        for w, call in parts:
            w.mul_(1.0 - shrink)
            call(lr=lr, found_inf=skip)

    return run


def compiled(formula: Callable[..., None], device: torch.device, otherwise: Callable[..., None]) -> Callable[..., None]:
    """`formula(lr, t, skip)` as one kernel made by `torch.compile`; without a compiler, `otherwise`, with a warning.

    lr and t are passed in tensors, so that no change of them compiles anew. Compiling takes seconds, in the first call.
    """
    kind = torch.float32 if device.type == "mps" else torch.float64
    lr_now, t_now = (torch.zeros((), dtype=kind, device=device) for _ in range(2))
    kernel: Callable[..., None] | None = torch.compile(formula)
    first = True

    def run(lr: float, t: int, skip: Tensor | None) -> None:
        nonlocal kernel, first
        if kernel is None:
            otherwise(lr, t, skip)
            return
        lr_now.fill_(lr)
        t_now.fill_(t)
        try:
            kernel(lr_now, t_now, skip)
        except Exception as error:
            if not first:
                raise
            kernel = None  # compiling failed, before anything was computed
            warnings.warn(f"the update rule runs without torch.compile: {str(error).splitlines()[0]}", stacklevel=2)
            otherwise(lr, t, skip)
        first = False

    return run
