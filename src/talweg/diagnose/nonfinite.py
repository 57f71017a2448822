"""Where the first non-finite number of a forward pass arose."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle


def first_bad_layer(module: nn.Module, window: Iterable[tuple[Tensor, Tensor, Any]]) -> str:
    """Repeats a forward pass and says in words which layer first gave a NaN or an infinity.

    Looks, in the order of computation, at the input, at each layer's own weights before it computes, and at its output
    afterwards. Buffers (running statistics) are put back, so the pass leaves no trace.

    Args:
        module: the model, in the mode in which it failed.
        window: the micro-batches (x, y, noise) of the update that failed.

    Example:
        >>> from contextlib import nullcontext
        >>> net = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
        >>> _ = net[0].weight.data.fill_(float("inf"))
        >>> first_bad_layer(net, [(torch.ones(1, 2), torch.zeros(1), nullcontext())])
        "first in the weights of layer '0' (Linear)"
    """
    found: list[str] = []

    def watch(name: str, layer: nn.Module) -> list[RemovableHandle]:
        described = f"layer {name or 'model'!r} ({type(layer).__name__})"

        def before(_: nn.Module, inputs: Any) -> None:
            if not found and any(_bad(p) for p in layer.parameters(recurse=False)):
                found.append(f"first in the weights of {described}")

        def after(_: nn.Module, inputs: Any, output: Any) -> None:
            if not found and _bad(output):
                found.append(f"first in the output of {described}")

        handles = [layer.register_forward_pre_hook(before)]
        if name or next(layer.children(), None) is None:  # what the model adds to its layers is told apart below
            handles.append(layer.register_forward_hook(after))
        return handles

    buffers = {name: buffer.clone() for name, buffer in module.named_buffers()}
    handles = [handle for name, layer in module.named_modules() for handle in watch(name, layer)]
    try:
        with torch.no_grad():
            for x, y, noise in window:
                if _bad(x):
                    return "first in the input of the model"
                with noise:
                    output = module(x)
                if found:
                    return found[0]
                if _bad(output):
                    return "first in the model's output, between its layers"
                if _bad(y):
                    return "first in the target"
    finally:
        for handle in handles:
            handle.remove()
        for name, buffer in module.named_buffers():
            buffer.copy_(buffers[name])
    return "the model's output is finite, so first in the loss function or its sum"


def first_bad_gradient(module: nn.Module) -> str | None:
    """The parameter nearest to the output whose gradient is not finite, in words; None where all are finite.

    A backward pass goes from the output to the input, so what spoilt it lies at that parameter or behind it.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
        >>> for p in net.parameters():
        ...     p.grad = torch.zeros_like(p)
        >>> net[0].bias.grad[1] = float("nan")
        >>> first_bad_gradient(net)
        "first in the gradient of '0.bias'"
    """
    for name, p in reversed(list(module.named_parameters())):
        if p.grad is not None and _bad(p.grad):
            return f"first in the gradient of {name!r}"
    return None


def _bad(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.is_floating_point() and not bool(value.isfinite().all())
    if isinstance(value, Mapping):
        return any(_bad(v) for v in value.values())
    return any(_bad(v) for v in value) if isinstance(value, tuple | list) else False
