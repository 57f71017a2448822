"""How a formula becomes fast: torch's fused kernels where they exist, blocks that stay in the cache everywhere else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

# Elements a block: small enough that a block of every vector of a rule stays in a core's cache, large enough that the
# cost of starting an operation (1-2 µs) does not show. Measured on the ResNet-50 list; see benchmarks/optimizer_step.py.
BLOCK = 65536


def blocks(*vectors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Equal views of equal slices [n], block by block; the whole slices on accelerators and for populations.

    A formula of many operations reads every vector from memory once per operation. On a CPU, doing all of them on one
    block before the next costs the memory traffic of one fused kernel. A GPU wants few and long operations instead.

    Example:
        >>> [w.numel() for w, g in blocks(torch.zeros(150_000), torch.zeros(150_000))]
        [65536, 65536, 18928]
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
