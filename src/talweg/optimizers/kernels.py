"""How a formula becomes fast: torch's fused kernels, blocks that stay in the cache, or a kernel compiled from it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

# Elements a block: small enough that a block of every vector of a rule stays in a core's cache, large enough that the
# cost of starting an operation (1-2 µs) does not show. With blocks of 2¹⁴, 2¹⁶, 2¹⁷ and 2¹⁸ elements, Lion takes
# 32, 25, 22 and 22 ms on the ResNet-50 list.
BLOCK = 131072


def blocks(*vectors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Equal views of equal slices [n], block by block; the whole slices on accelerators and for populations.

    A formula of many operations reads every vector from memory once per operation. On a CPU, doing all of them on one
    block before the next costs the memory traffic of one fused kernel. A GPU wants few and long operations instead.

    Example:
        >>> [w.numel() for w, g in blocks(torch.zeros(150_000), torch.zeros(150_000))]
        [131072, 18928]
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
