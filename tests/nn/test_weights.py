"""One contract table for the schemes: moments within χ² bounds, and agreement with torch.nn.init."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from scipy import integrate, stats
from torch import Tensor, nn

from talweg.errors import UserError
from talweg.nn.weights import (
    GAINS,
    SCHEMES,
    kaiming_normal,
    kaiming_uniform,
    orthogonal,
    uniform,
    xavier_normal,
    xavier_uniform,
)
from talweg.randomness import generator

SHAPES = [(300, 200), (64, 32, 3, 3), (48, 64, 11)]


def fans(shape: tuple[int, ...]) -> tuple[int, int]:
    kernel = math.prod(shape[2:])
    return shape[1] * kernel, shape[0] * kernel


# scheme, options, variance of (fan_in, fan_out), whether uniform
CONTRACT: list[tuple[str, dict[str, Any], Callable[[int, int], float], bool]] = [
    ("normal", {}, lambda i, o: 0.02**2, False),
    ("normal", {"std": 0.3}, lambda i, o: 0.09, False),
    ("uniform", {}, lambda i, o: 0.05**2 / 3, True),
    ("uniform", {"bound": 0.6}, lambda i, o: 0.12, True),
    ("xavier_normal", {}, lambda i, o: 2 / (i + o), False),
    ("xavier_normal", {"gain": "tanh"}, lambda i, o: 25 / 9 * 2 / (i + o), False),
    ("xavier_uniform", {}, lambda i, o: 2 / (i + o), True),
    ("xavier_uniform", {"gain": 3.0}, lambda i, o: 18 / (i + o), True),
    ("kaiming_normal", {}, lambda i, o: 2 / i, False),
    ("kaiming_normal", {"fan": "fan_out"}, lambda i, o: 2 / o, False),
    ("kaiming_normal", {"gain": "linear"}, lambda i, o: 1 / i, False),
    ("kaiming_uniform", {}, lambda i, o: 2 / i, True),
    ("kaiming_uniform", {"fan": "fan_out", "gain": "leaky_relu"}, lambda i, o: 2 / 1.0001 / o, True),
    ("torch", {}, lambda i, o: 1 / (3 * i), True),
]


def test_every_scheme_that_draws_independent_values_has_a_row() -> None:
    assert {name for name, *_ in CONTRACT} == set(SCHEMES) - {"orthogonal", "model"}


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("name", "options", "variance", "flat"), CONTRACT)
def test_moments(
    name: str, options: dict[str, Any], variance: Callable[[int, int], float], flat: bool, shape: tuple[int, ...]
) -> None:
    w = SCHEMES[name](shape, generator(0, name, shape), **options)
    assert w is not None
    assert w.shape == shape
    assert w.dtype == torch.float32
    sigma2, n = variance(*fans(shape)), w.numel()
    z = (w.double() / math.sqrt(sigma2)).flatten()
    assert abs(float(z.mean())) < 5 / math.sqrt(n)
    if flat:
        # Σz² of a uniform variable: mean n, variance n·(E[z⁴] − 1) = 0.8·n.
        assert abs(float(z.square().sum()) - n) < 5 * math.sqrt(0.8 * n)
        assert 0.999 * math.sqrt(3) < float(z.abs().max()) <= math.sqrt(3) * (1 + 1e-6)
    else:
        low, high = stats.chi2.ppf([3e-7, 1 - 3e-7], n)
        assert low < float(z.square().sum()) < high
        assert abs(float(z.pow(4).mean()) - 3) < 5 * math.sqrt(96 / n)  # the kurtosis of a normal variable


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (xavier_normal, nn.init.xavier_normal_),
        (xavier_uniform, nn.init.xavier_uniform_),
        (kaiming_normal, lambda w: nn.init.kaiming_normal_(w, nonlinearity="relu")),
        (kaiming_uniform, lambda w: nn.init.kaiming_uniform_(w, nonlinearity="relu")),
        (
            lambda s, g: kaiming_normal(s, g, fan="fan_out", gain="tanh"),
            lambda w: nn.init.kaiming_normal_(w, mode="fan_out", nonlinearity="tanh"),
        ),
        (lambda s, g: xavier_uniform(s, g, gain=2.0), lambda w: nn.init.xavier_uniform_(w, gain=2.0)),
    ],
)
def test_scale_agrees_with_torch(ours: Any, theirs: Callable[[Tensor], Tensor], shape: tuple[int, ...]) -> None:
    """Same generator, same shape: torch's values are ours up to rounding, if the formulas are the same."""
    w = ours(shape, generator(0, "w"))
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(generator(0, "w").get_state())
        reference = theirs(torch.empty(shape))
    torch.testing.assert_close(w, reference, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", ["linear", "sigmoid", "tanh", "relu", "leaky_relu"])
def test_gains_agree_with_torch(name: str) -> None:
    assert GAINS[name] == pytest.approx(nn.init.calculate_gain(name), rel=1e-12)


@pytest.mark.parametrize("name", ["linear", "relu", "leaky_relu", "gelu", "silu"])
def test_gains_restore_the_second_moment(name: str) -> None:
    activation = (lambda z: z) if name == "linear" else getattr(nn.functional, name)

    def integrand(z: float) -> float:
        return float(activation(torch.tensor(z, dtype=torch.float64))) ** 2 * stats.norm.pdf(z)

    moment = integrate.quad(integrand, -10, 0)[0] + integrate.quad(integrand, 0, 10)[0]
    assert GAINS[name] == pytest.approx(1 / math.sqrt(moment), rel=1e-6)


@pytest.mark.parametrize("shape", [(40, 40), (20, 60), (60, 20), (8, 4, 3, 3), (50, 2, 3, 3)], ids=str)
def test_orthogonal(shape: tuple[int, ...]) -> None:
    w = orthogonal(shape, generator(0, "w"), gain=2.0)
    assert w.shape == shape
    matrix = w.flatten(1).double()
    gram = matrix @ matrix.T if shape[0] <= matrix.shape[1] else matrix.T @ matrix
    torch.testing.assert_close(gram, 4.0 * torch.eye(len(gram), dtype=torch.float64), rtol=0, atol=1e-5)


def test_orthogonal_is_haar_distributed() -> None:
    """QR alone leaves signs that are not random; a Haar matrix has entries of either sign and E[trace²] = 1."""
    draws = torch.stack([orthogonal((4, 4), generator(seed, "w")) for seed in range(400)])
    assert abs(int((draws[:, 0, 0] > 0).sum()) - 200) < 50
    traces = draws.diagonal(dim1=1, dim2=2).sum(-1)
    assert abs(float(traces.mean())) < 0.25
    assert abs(float(traces.square().mean()) - 1) < 0.35


def test_xavier_loses_half_the_second_moment_in_each_relu_layer_and_kaiming_keeps_it() -> None:
    """30 layers of width 512: ReLU halves E[h²] (He et al. 2015), so Xavier ends at 2⁻³⁰ of it.

    A layer of n random rows multiplies E[h²] by a factor with relative standard deviation √(5/n); over 30 layers log₂
    of the product has one of √(30·5/n)/ln 2 = 0.78 for n = 512, or 0.39 for the mean of 4 nets.
    """
    losses = {}
    for scheme, draw in {"xavier": xavier_normal, "kaiming": kaiming_normal}.items():
        logs = []
        for net in range(4):
            h = torch.randn(512, 64, generator=generator(net, "x"))  # [width, samples]
            for layer in range(30):
                h = torch.relu(draw((512, 512), generator(net, layer)) @ h)
            logs.append(float(h.square().mean().log2()))
        losses[scheme] = sum(logs) / len(logs)
    assert losses["xavier"] == pytest.approx(-30, abs=1.6)
    assert losses["kaiming"] == pytest.approx(0, abs=1.6)


def test_kaiming_fan_out_keeps_the_gradient() -> None:
    """Backward through ReLU layers that widen by two: fan_out keeps E[g²], fan_in doubles it in each."""
    for fan, expected in ("fan_out", 0.0), ("fan_in", 4.0):
        g = torch.randn(4096, 32, generator=generator("g"))
        for layer in range(4):  # widths 4096 <- 2048 <- 1024 <- 512 <- 256
            width = 4096 >> layer
            mask = torch.rand(width, 32, generator=generator("mask", layer)) < 0.5
            g = kaiming_normal((width, width // 2), generator("w", layer), fan=fan).T @ (g * mask)
        assert float(g.square().mean().log2()) == pytest.approx(expected, abs=0.6)


@pytest.mark.parametrize(
    ("draw", "words"),
    [
        (lambda g: xavier_normal((3, 3), g, gain="rleu"), "did you mean 'relu'"),
        (lambda g: kaiming_normal((3, 3), g, fan="fanin"), "did you mean 'fan_in'"),
        (lambda g: kaiming_normal((3,), g), r"received shape \[3\]"),
        (lambda g: orthogonal((3,), g), "use 'normal' or 'uniform'"),
        (lambda g: orthogonal((3, 3), g, gain=0.0), "gain must be a positive number, received 0.0"),
        (lambda g: SCHEMES["normal"]((3, 3), g, std=-1), "std must be a positive number, received -1"),
        (lambda g: SCHEMES["normal"]((3, 3), g, std=math.nan), "std must be a positive number, received nan"),
        (lambda g: uniform((3, 3), g, bound="0.1"), "bound must be a positive number, received '0.1'"),  # type: ignore[arg-type]
    ],
)
def test_mistakes_are_named(draw: Any, words: str) -> None:
    with pytest.raises(UserError, match=words):
        draw(generator(0))
