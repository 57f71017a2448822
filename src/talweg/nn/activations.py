"""The common activations by name: torch's, and the randomised one keyed by sample."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from talweg.errors import UserError, unknown
from talweg.nn.noise import LEVELS, Noisy, bits_like, is_announced


class RReLU(Noisy, nn.RReLU):
    """Randomised leaky ReLU, whose slopes for a sample are the same in any batch.

    Formula: y = x for x ≥ 0, a·x for x < 0; a ~ U(lower, upper) for each value in training, (lower + upper)/2 in
    evaluation. Inside a `noise_context` a is a function of (seed, step, layer name, sample, position); outside, this is
    `nn.RReLU`.

    Args:
        lower, upper: the bounds of the slopes.
        inplace: overwrite x.

    Example:
        >>> from talweg.nn import RReLU, name_layers, noise_context
        >>> layer = RReLU(0.1, 0.3)
        >>> names = name_layers(layer)
        >>> with noise_context(seed=0, step=0, indices=torch.arange(1000)):
        ...     y = layer(-torch.ones(1000, 10))
        >>> f"slopes from {-y.max():.2f} to {-y.min():.2f}, {-y.mean():.2f} on average"
        'slopes from 0.10 to 0.30, 0.20 on average'

    Source: B. Xu, N. Wang, T. Chen, M. Li, "Empirical evaluation of rectified activations in convolutional network",
    2015.
    """

    def forward(self, input: Tensor) -> Tensor:
        """x: [B, ...] -> y of the same shape."""
        if not self.training or not is_announced():
            return super().forward(input)
        share = (bits_like(self, input).to(input.dtype) + LEVELS / 2) * (1 / LEVELS)  # on [0, 1)
        slope = self.lower + (self.upper - self.lower) * share
        y = torch.where(input < 0, slope * input, input)
        return input.copy_(y) if self.inplace else y


ACTIVATIONS: Mapping[str, Callable[..., nn.Module]] = MappingProxyType(
    {
        "celu": nn.CELU,
        "elu": nn.ELU,
        "gelu": nn.GELU,
        "gelu_tanh": partial(nn.GELU, approximate="tanh"),
        "hardshrink": nn.Hardshrink,
        "hardsigmoid": nn.Hardsigmoid,
        "hardswish": nn.Hardswish,
        "hardtanh": nn.Hardtanh,
        "identity": nn.Identity,
        "leaky_relu": nn.LeakyReLU,
        "logsigmoid": nn.LogSigmoid,
        "mish": nn.Mish,
        "prelu": nn.PReLU,
        "relu": nn.ReLU,
        "relu6": nn.ReLU6,
        "rrelu": RReLU,
        "selu": nn.SELU,
        "sigmoid": nn.Sigmoid,
        "silu": nn.SiLU,
        "softplus": nn.Softplus,
        "softshrink": nn.Softshrink,
        "softsign": nn.Softsign,
        "tanh": nn.Tanh,
        "tanhshrink": nn.Tanhshrink,
    }
)
"""Activations x -> y of the same shape, by name: what makes a fresh module of each."""


def activation(name: str, **settings: Any) -> nn.Module:
    """A fresh activation by name.

    Args:
        name: a name in `ACTIVATIONS`.
        settings: those of torch's module, such as `negative_slope` of leaky_relu or `alpha` of elu.

    Raises:
        UserError: the name is unknown, or the activation has no such setting.

    Example:
        >>> x = torch.tensor([-2.0, 0.0, 2.0])
        >>> for name in ("relu", "leaky_relu", "elu", "gelu", "silu"):
        ...     print(name, [round(y, 2) for y in activation(name)(x).tolist()])
        relu [0.0, 0.0, 2.0]
        leaky_relu [-0.02, 0.0, 2.0]
        elu [-0.86, 0.0, 2.0]
        gelu [-0.05, 0.0, 1.95]
        silu [-0.24, 0.0, 1.76]
        >>> activation("leaky_relu", negative_slope=0.2)(x).tolist()
        [-0.4000000059604645, 0.0, 2.0]
        >>> activation("swisch")
        Traceback (most recent call last):
            ...
        talweg.errors.UserError: unknown activation 'swisch': did you mean 'hardswish'? Known: celu, elu, gelu, gelu_tanh, \
hardshrink, hardsigmoid, hardswish, hardtanh, identity, leaky_relu, logsigmoid, mish, prelu, relu, relu6, rrelu, selu, \
sigmoid, silu, softplus, softshrink, softsign, tanh, tanhshrink

    Source: ELU: D.-A. Clevert, T. Unterthiner, S. Hochreiter, 2016; SELU: G. Klambauer et al., 2017; GELU: D. Hendrycks,
    K. Gimpel, 2016; SiLU: S. Elfwing, E. Uchibe, K. Doya, 2018; PReLU: K. He et al., 2015; Mish: D. Misra, 2020; hard
    swish: A. Howard et al., 2019; leaky ReLU: A. Maas, A. Hannun, A. Ng, 2013.
    """
    if name not in ACTIVATIONS:
        raise unknown("activation", name, ACTIVATIONS)
    make = ACTIVATIONS[name]
    known = set(inspect.signature(make).parameters) - {"args", "kwargs"}
    for setting in settings:
        if setting not in known:
            raise UserError(
                f"activation {name!r} has no setting {setting!r}; it has {', '.join(sorted(known)) or 'none'}"
            )
    return make(**settings)
