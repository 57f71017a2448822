"""Maxout, activations, fractional pooling, stochastic depth and DropConnect against closed forms and torch."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from talweg.errors import UserError
from talweg.initialize import initialize
from talweg.nn import (
    ACTIVATIONS,
    DropConnect,
    FractionalMaxPool2d,
    Maxout,
    RReLU,
    StochasticDepth,
    activation,
    count_parameters,
    maxout,
    name_layers,
    noise_context,
    random_uniform,
)

X = torch.linspace(-4, 4, 33, dtype=torch.float64)


def clip(x: torch.Tensor) -> torch.Tensor:
    return x.clamp(0, 6)


# what each name computes, written out
FORMULAS = {
    "celu": lambda x: x.clamp(min=0) + (x.exp() - 1).clamp(max=0),
    "elu": lambda x: torch.where(x > 0, x, x.exp() - 1),
    "gelu": lambda x: x * 0.5 * (1 + torch.erf(x / 2**0.5)),
    "gelu_tanh": lambda x: 0.5 * x * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (x + 0.044715 * x**3))),
    "hardshrink": lambda x: x * (x.abs() > 0.5),
    "hardsigmoid": lambda x: clip(x + 3) / 6,
    "hardswish": lambda x: x * clip(x + 3) / 6,
    "hardtanh": lambda x: x.clamp(-1, 1),
    "identity": lambda x: x,
    "leaky_relu": lambda x: torch.where(x > 0, x, 0.01 * x),
    "logsigmoid": lambda x: -torch.log(1 + torch.exp(-x)),
    "mish": lambda x: x * torch.tanh(torch.log(1 + x.exp())),
    "prelu": lambda x: torch.where(x > 0, x, 0.25 * x),
    "relu": lambda x: x * (x > 0),
    "relu6": clip,
    "rrelu": lambda x: torch.where(x > 0, x, (1 / 8 + 1 / 3) / 2 * x),  # in evaluation
    "selu": lambda x: 1.0507009873554805 * torch.where(x > 0, x, 1.6732632423543772 * (x.exp() - 1)),
    "sigmoid": lambda x: 1 / (1 + torch.exp(-x)),
    "silu": lambda x: x / (1 + torch.exp(-x)),
    "softplus": lambda x: torch.log(1 + x.exp()),
    "softshrink": lambda x: x.sign() * (x.abs() - 0.5).clamp(min=0),
    "softsign": lambda x: x / (1 + x.abs()),
    "tanh": lambda x: (x.exp() - torch.exp(-x)) / (x.exp() + torch.exp(-x)),
    "tanhshrink": lambda x: x - torch.tanh(x),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_are_their_formulas(name):
    layer = activation(name).double().eval()
    torch.testing.assert_close(layer(X.view(3, 11)), FORMULAS[name](X).view(3, 11), rtol=1e-12, atol=1e-12)
    assert activation(name) is not layer


def test_activations_take_torchs_settings():
    assert activation("elu", alpha=0.5)(torch.tensor(-100.0)) == -0.5
    assert activation("prelu", num_parameters=4).weight.shape == (4,)
    assert isinstance(activation("rrelu"), RReLU)
    for call, message in (
        (lambda: activation("leaky"), "unknown activation 'leaky': did you mean 'leaky_relu'?"),
        (lambda: activation("elu", slope=1), "activation 'elu' has no setting 'slope'; it has alpha, inplace"),
        (lambda: activation("tanh", inplace=True), "activation 'tanh' has no setting 'inplace'; it has none"),
        (lambda: activation("identity", size=1), "activation 'identity' has no setting 'size'; it has none"),
    ):
        with pytest.raises(UserError) as caught:
            call()
        assert str(caught.value).startswith(message)


def test_maxout_takes_the_largest_of_each_group():
    x = torch.randn(5, 12, 4, 3, generator=torch.Generator().manual_seed(0))
    y = maxout(x, 3)
    assert y.shape == (5, 4, 4, 3)
    for j in range(4):
        assert torch.equal(y[:, j], torch.maximum(torch.maximum(x[:, 3 * j], x[:, 3 * j + 1]), x[:, 3 * j + 2]))
    assert torch.equal(maxout(x.movedim(1, -1), 3, dim=-1).movedim(-1, 1), y)
    assert torch.equal(maxout(x, 1), x)


def test_a_maxout_network_learns_and_is_initialised():
    model = nn.Sequential(nn.Linear(1, 8), Maxout(4), nn.Linear(2, 1))
    assert count_parameters(model) == 16 + 3
    initialize(model, "kaiming_normal", 0)
    x = torch.linspace(-1, 1, 64)[:, None]
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    for _ in range(300):
        optimizer.zero_grad()
        loss = F.mse_loss(model(x), x.abs())
        loss.backward()
        optimizer.step()
    assert loss < 1e-3
    channels = nn.Sequential(nn.Conv2d(3, 8, 3), Maxout(2))
    assert channels(torch.zeros(2, 3, 8, 8)).shape == (2, 4, 6, 6)


@pytest.mark.parametrize("name", ["", "layer"])
def test_pooled_regions_begin_where_the_formula_says(name):
    n, m, k = 10, 7, 2
    pool = FractionalMaxPool2d(k, output_size=m)
    x = torch.arange(n * n, dtype=torch.float64).view(1, 1, n, n).repeat(4, 3, 1, 1)
    alpha = (n - k) / (m - 1)
    if name:
        name_layers(nn.ModuleDict({name: pool}))
        with noise_context(0, 0, torch.arange(4)):
            y = pool(x)
        with noise_context(0, 0, torch.arange(4)):
            u = random_uniform(pool, x, 6).view(4, 3, 2)
    else:
        y, u = pool.eval()(x), torch.full((4, 3, 2), 0.5)
    for b in range(4):
        for c in range(3):
            # torch's first random number is that of the columns
            columns, rows = ([int((i + v) * alpha) - int(v * alpha) for i in range(m - 1)] for v in u[b, c].tolist())
            columns, rows = [*columns, n - k], [*rows, n - k]
            expected = torch.stack([torch.stack([x[b, c, i : i + k, j : j + k].max() for j in columns]) for i in rows])
            assert torch.equal(y[b, c], expected)


def test_pooling_gives_indices_and_takes_a_sample_alone():
    pool = FractionalMaxPool2d(2, output_ratio=0.6, return_indices=True).eval()
    x = torch.randn(2, 3, 10, 10, generator=torch.Generator().manual_seed(0))
    y, indices = pool(x)
    assert y.shape == indices.shape == (2, 3, 6, 6)
    assert torch.equal(x.flatten(2).gather(2, indices.flatten(2)).view_as(y), y)
    one, places = pool(x[1])
    assert torch.equal(one, y[1])
    assert torch.equal(places, indices[1])
    half = pool(x.bfloat16())[0]
    assert half.dtype == torch.bfloat16
    assert torch.equal(half, y.bfloat16())


def test_a_dropped_branch_leaves_the_sample_as_it_was():
    drop = StochasticDepth(0.4)
    name_layers(drop)
    x, branch = torch.ones(1000, 2, 3), torch.full((1000, 2, 3), 2.0)
    with noise_context(0, 0, torch.arange(1000)):
        y = x + drop(branch)
    assert sorted(y.unique().tolist()) == [1.0, pytest.approx(1 + 2 / 0.6, rel=1e-4)]
    assert (y == y[:, :1, :1]).all()


@pytest.mark.parametrize("per_sample", [True, False])
def test_dropconnect_has_the_mean_and_variance_of_the_paper(per_sample):
    """E y = W·x + c, Var y = p/(1 - p)·(W∘W)·(x∘x)."""
    p, draws = 0.25, 20_000
    layer = DropConnect(6, 4, p=p, per_sample=per_sample).double()
    name_layers(layer)
    x = torch.randn(6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        if per_sample:
            with noise_context(0, 0, torch.arange(draws)):
                y = layer(x.expand(draws, 6))
        else:
            draws = 2_000
            y = torch.empty(draws, 4, dtype=torch.float64)
            for step in range(draws):
                with noise_context(0, step, torch.tensor([0])):
                    y[step] = layer(x[None])[0]
        variance = p / (1 - p) * layer.weight.square() @ x.square()
        mean = layer.eval()(x)
    assert ((y.mean(0) - mean).abs() < 4.5 * (variance / draws).sqrt()).all()
    assert ((y.var(0) / variance - 1).abs() < 6 * (2 / draws) ** 0.5).all()


def test_dropconnect_is_a_linear_layer():
    layer = DropConnect(6, 4, p=0.3)
    assert {name: p.shape for name, p in layer.named_parameters()} == {"weight": (4, 6), "bias": (4,)}
    drawn = initialize(layer, "kaiming_uniform", 0)
    assert drawn["weight"].scheme == "kaiming_uniform"
    x = torch.randn(2, 5, 6)
    assert torch.equal(layer.eval()(x), F.linear(x, layer.weight, layer.bias))
    whole = DropConnect(6, 4, p=0.0)
    assert torch.equal(whole(x), F.linear(x, whole.weight, whole.bias))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: StochasticDepth(1.0), "p must be at least 0 and below 1, received 1.0"),
        (lambda: DropConnect(2, 2, p=-0.1), "p must be at least 0 and below 1, received -0.1"),
        (lambda: Maxout(0), "pieces must be at least 1, received 0"),
        (lambda: maxout(torch.ones(2, 7), 2), "pieces=2 does not divide the 7 features of an input [2, 7]"),
    ],
)
def test_bad_layers(call, message):
    with pytest.raises(UserError) as caught:
        call()
    assert str(caught.value) == message
