"""The number l in θ ∈ Rˡ, for any module."""

from __future__ import annotations

from torch import nn


def count_parameters(module: nn.Module) -> int:
    """The number of trainable values: the length l of the parameter vector θ, without padding.

    A parameter that is used in two places (tied) counts once, a frozen one (`requires_grad=False`) not at all. No value
    is read, so a module on the meta device will do.

    Example:
        >>> import torch
        >>> layer = nn.Linear(64, 10)                 # 64·10 weights and 10 biases
        >>> count_parameters(layer)
        650
        >>> count_parameters(nn.ModuleList([layer, layer]))
        650
        >>> with torch.device("meta"):                # 4 TB of weights that are never allocated
        ...     count_parameters(nn.Linear(1_000_000, 1_000_000, bias=False))
        1000000000000
    """
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
