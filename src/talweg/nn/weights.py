"""Distributions of initial weights: pure functions `(shape, generator, *, options) -> Tensor`, and their table.

A weight has shape [out, in, *kernel]; values are drawn on the CPU in float32. `talweg.initialize` applies them to
modules.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor

from talweg.errors import UserError, require, unknown

Shape = tuple[int, ...]
Draw = Callable[..., Tensor | None]

# 1/√E[f(z)²] for z ~ N(0, 1), so that gain·f(z) has second moment 1; for tanh the customary 5/3 (exact: 1.593).
GAINS = {
    "linear": 1.0,
    "sigmoid": 1.0,
    "tanh": 5 / 3,
    "relu": math.sqrt(2.0),
    "leaky_relu": math.sqrt(2.0 / (1 + 0.01**2)),
    "gelu": 1.5335304,
    "silu": 1.6765324,
}


def normal(shape: Shape, generator: Generator, *, std: float = 0.02) -> Tensor:
    """Independent normal values: w ~ N(0, std²), whatever the layer's size.

    Example:
        >>> from talweg.randomness import generator
        >>> w = normal((1000, 1000), generator(0, "w"))
        >>> f"{w.std():.4f}"
        '0.0200'

    Source: A. Radford et al., "Language models are unsupervised multitask learners" (GPT-2), 2019, for std = 0.02;
    A. Krizhevsky et al. (AlexNet, 2012) used 0.01.
    """
    _positive("std", std)
    return torch.empty(shape).normal_(0.0, std, generator=generator)


def uniform(shape: Shape, generator: Generator, *, bound: float = 0.05) -> Tensor:
    """Independent uniform values: w ~ U(−bound, bound), std = bound/√3.

    Example:
        >>> from talweg.randomness import generator
        >>> w = uniform((1000, 1000), generator(0, "w"), bound=0.3)
        >>> f"{w.std():.4f}, {w.abs().max():.4f}"
        '0.1732, 0.3000'
    """
    _positive("bound", bound)
    return torch.empty(shape).uniform_(-bound, bound, generator=generator)


def xavier_normal(shape: Shape, generator: Generator, *, gain: float | str = "linear") -> Tensor:
    """Keeps the signal's variance forward and the gradient's backward, as well as one number can: normal values.

    Formula: w ~ N(0, gain²·2/(fan_in + fan_out)), fan_in = in·∏kernel, fan_out = out·∏kernel.

    Args:
        shape: [out, in, *kernel].
        generator: source of the values, on the CPU.
        gain: a number, or the activation that precedes the layer: a name in `GAINS`.

    Raises:
        UserError: an unknown activation, a gain that is not positive, a shape with fewer than two dimensions.

    Example:
        >>> from talweg.randomness import generator
        >>> w = xavier_normal((300, 100), generator(0, "w"))
        >>> x = torch.randn(100, 4000, generator=generator(0, "x"))
        >>> f"{(w @ x).var():.1f} after a layer from 100 to 300"          # 1 where fan_in = fan_out
        '0.5 after a layer from 100 to 300'

    Source: X. Glorot, Y. Bengio, "Understanding the difficulty of training deep feedforward neural networks", 2010.
    """
    fan_in, fan_out = _fans(shape)
    return normal(shape, generator, std=_gain(gain) * math.sqrt(2.0 / (fan_in + fan_out)))


def xavier_uniform(shape: Shape, generator: Generator, *, gain: float | str = "linear") -> Tensor:
    """As `xavier_normal` with uniform values: w ~ U(±gain·√(6/(fan_in + fan_out))), of the same variance.

    Example:
        >>> from talweg.randomness import generator
        >>> w = xavier_uniform((300, 300), generator(0, "w"))
        >>> f"{w.abs().max():.3f}, {w.var() * 300:.2f}"                   # √(6/600); variance 1/300
        '0.100, 1.00'

    Source: X. Glorot, Y. Bengio, 2010, equation 16.
    """
    fan_in, fan_out = _fans(shape)
    return uniform(shape, generator, bound=_gain(gain) * math.sqrt(6.0 / (fan_in + fan_out)))


def kaiming_normal(shape: Shape, generator: Generator, *, gain: float | str = "relu", fan: str = "fan_in") -> Tensor:
    """Keeps the second moment through rectified layers, of any depth: normal values.

    Formula: w ~ N(0, gain²/fan). ReLU halves the second moment, gain² = 2 restores it.

    Args:
        shape: [out, in, *kernel].
        generator: source of the values, on the CPU.
        gain: a number, or the activation that precedes the layer: a name in `GAINS`.
        fan: "fan_in" keeps the signal forward, "fan_out" the gradient backward.

    Raises:
        UserError: an unknown activation or fan, a gain that is not positive, a shape with fewer than two dimensions.

    Example:
        >>> from talweg.randomness import generator
        >>> h = torch.randn(512, 100, generator=generator(0, "x"))
        >>> for layer in range(20):
        ...     h = torch.relu(kaiming_normal((512, 512), generator(0, layer)) @ h)
        >>> f"{h.square().mean():.1f} after 20 layers (Xavier: {2.0**-20:.6f})"
        '1.1 after 20 layers (Xavier: 0.000001)'

    Source: K. He, X. Zhang, S. Ren, J. Sun, "Delving deep into rectifiers", 2015, equations 10 and 14.
    """
    return normal(shape, generator, std=_gain(gain) / math.sqrt(_one_fan(shape, fan)))


def kaiming_uniform(shape: Shape, generator: Generator, *, gain: float | str = "relu", fan: str = "fan_in") -> Tensor:
    """As `kaiming_normal` with uniform values: w ~ U(±gain·√(3/fan)), of the same variance.

    Example:
        >>> from talweg.randomness import generator
        >>> w = kaiming_uniform((64, 32, 3, 3), generator(0, "w"))
        >>> f"{w.abs().max():.3f}, {w.var() * 32 * 9:.1f}"                # √(6/288); variance 2/288
        '0.144, 2.0'

    Source: K. He, X. Zhang, S. Ren, J. Sun, 2015.
    """
    return uniform(shape, generator, bound=_gain(gain) * math.sqrt(3.0 / _one_fan(shape, fan)))


def orthogonal(shape: Shape, generator: Generator, *, gain: float | str = "linear") -> Tensor:
    """A random rotation (rows or columns orthonormal): a linear layer keeps lengths exactly, at any depth.

    Formula: with W as a matrix [out, in·∏kernel]: W·Wᵀ = gain²·I if it is wide, Wᵀ·W = gain²·I if it is tall; W is
    Haar-distributed, from the QR decomposition of a normal matrix with the signs of diag(R) moved into Q.

    Args:
        shape: [out, in, *kernel].
        generator: source of the values, on the CPU.
        gain: a number, or the activation that precedes the layer: a name in `GAINS`.

    Raises:
        UserError: an unknown activation, a gain that is not positive, a shape with fewer than two dimensions.

    Example:
        >>> from talweg.randomness import generator
        >>> w = orthogonal((2, 2), generator(0, "w"))
        >>> (w @ w.T).round(decimals=6).abs().tolist()
        [[1.0, 0.0], [0.0, 1.0]]

    Source: A. Saxe, J. McClelland, S. Ganguli, "Exact solutions to the nonlinear dynamics of learning in deep linear
    neural networks", 2013; F. Mezzadri, "How to generate random matrices from the classical compact groups", 2007.
    """
    columns, _ = _fans(shape)
    rows = shape[0]
    scale = _gain(gain)
    # float64, so that what is left after rounding to float32 does not depend on the machine's linear algebra.
    tall = torch.empty(max(rows, columns), min(rows, columns)).normal_(generator=generator).double()
    q, r = torch.linalg.qr(tall)
    q = q * torch.where(r.diagonal() < 0, -1.0, 1.0)
    return (scale * (q if rows >= columns else q.T)).float().reshape(shape)


def torch_default(shape: Shape, generator: Generator) -> Tensor:
    """Torch's own default for linear and convolution weights: w ~ U(±1/√fan_in), variance 1/(3·fan_in).

    As the scheme "torch" of `initialize`, every other layer gets torch's default for its type too, biases included.

    Example:
        >>> from talweg.randomness import generator
        >>> w = torch_default((100, 400), generator(0, "w"))
        >>> f"{w.abs().max():.3f}"
        '0.050'

    Source: Y. LeCun, L. Bottou, G. Orr, K. Müller, "Efficient BackProp", 1998 (the same form with variance 1/fan_in).
    """
    return uniform(shape, generator, bound=1.0 / math.sqrt(_fans(shape)[0]))


def keep(shape: Shape, generator: Generator) -> None:
    """Draws nothing: the parameter keeps the value that the model gave it."""
    return None


SCHEMES: dict[str, Draw] = {
    "normal": normal,
    "uniform": uniform,
    "xavier_normal": xavier_normal,
    "xavier_uniform": xavier_uniform,
    "kaiming_normal": kaiming_normal,
    "kaiming_uniform": kaiming_uniform,
    "orthogonal": orthogonal,
    "torch": torch_default,
    "model": keep,
}


def _fans(shape: Shape) -> tuple[int, int]:
    """(fan_in, fan_out): the inputs of one output value, and the outputs that one input value reaches."""
    if len(shape) < 2:
        raise UserError(
            f"this scheme needs a weight [out, in, …], received shape {list(shape)}: use 'normal' or 'uniform'"
        )
    kernel = math.prod(shape[2:])
    return shape[1] * kernel, shape[0] * kernel


def _one_fan(shape: Shape, fan: str) -> int:
    fans = dict(zip(("fan_in", "fan_out"), _fans(shape), strict=True))
    if fan not in fans:
        raise unknown("fan", fan, fans)
    return fans[fan]


def _gain(gain: float | str) -> float:
    if isinstance(gain, str):
        if gain not in GAINS:
            raise unknown("gain", gain, GAINS)
        return GAINS[gain]
    _positive("gain", gain)
    return gain


def _positive(setting: str, value: float) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    require(number and 0 < value < math.inf, setting, value, "a positive number")
