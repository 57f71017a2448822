"""Initial weights depend on seed and name alone, and land where they should."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from talweg.errors import UserError
from talweg.initialize import SCHEMES, forget_gate_bias, initialize, zero_gamma
from talweg.nn import models
from talweg.nn.weights import normal
from talweg.randomness import generator

DRAWING = [name for name in SCHEMES if name != "model"]


def values(module: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in module.named_parameters()}


def assert_same(one: dict[str, Tensor], two: dict[str, Tensor]) -> None:
    assert set(one) == set(two)
    for name in one:
        assert torch.equal(one[name].float(), two[name].float()), name


def layers(order: str) -> nn.Module:
    """The same three layers, registered in the given order."""
    made = {"a": nn.Linear(6, 5), "b": nn.Conv2d(3, 4, 3), "c": nn.LSTM(4, 4)}
    return nn.ModuleDict({name: made[name] for name in order})


@pytest.mark.parametrize("scheme", DRAWING)
def test_order_of_registration_does_not_matter(scheme: str) -> None:
    one, two = layers("abc"), layers("cba")
    initialize(one, scheme, 3)
    initialize(two, scheme, 3)
    assert_same(values(one), values(two))


@pytest.mark.parametrize("scheme", DRAWING)
def test_neighbours_and_the_global_generator_do_not_matter(scheme: str) -> None:
    one, two = layers("b"), layers("abc")
    state = torch.get_rng_state()
    initialize(one, scheme, 3)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(7)
    initialize(two, scheme, 3)
    assert_same(values(one["b"]), values(two["b"]))


@pytest.mark.parametrize("scheme", DRAWING)
def test_seed_and_name_matter(scheme: str) -> None:
    twins = nn.ModuleDict({"a": nn.Linear(64, 64), "b": nn.Linear(64, 64)})
    initialize(twins, scheme, 0)
    a, b = twins["a"].weight.detach().clone(), twins["b"].weight.detach().clone()
    initialize(twins, scheme, 1)
    other = twins["a"].weight.detach()
    for x, y in (a, b), (a, other):
        correlation = float((x * y).mean() / (x.std() * y.std()))
        assert abs(correlation) < 5 / 64  # independent: a mean of 64·64 products


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.double(),
        lambda m: m.to(memory_format=torch.channels_last),
        lambda m: m.to("meta").to_empty(device="cpu"),
    ],
)
@pytest.mark.parametrize("scheme", DRAWING)
def test_dtype_memory_format_and_meta_do_not_matter(scheme: str, change: Any) -> None:
    one, two = models.resnet8(width=4), change(models.resnet8(width=4))
    initialize(one, scheme, 5)
    initialize(two, scheme, 5)
    assert_same(values(one), values(two))
    for (name, x), (_, y) in zip(one.named_buffers(), two.named_buffers(), strict=True):
        assert torch.equal(x.double(), y.double()), name  # running statistics


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("scheme", DRAWING)
def test_device_does_not_matter(scheme: str) -> None:
    one, two = models.resnet8(width=4), models.resnet8(width=4).cuda()
    initialize(one, scheme, 5)
    initialize(two, scheme, 5)
    assert_same(values(one), values(two.cpu()))


def test_values_reach_views_of_a_larger_vector() -> None:
    """A module whose parameters are views of one vector is drawn in place."""
    module, reference = nn.Linear(6, 5), nn.Linear(6, 5)
    vector = torch.zeros(40)
    module.weight.data, module.bias.data = vector[:30].view(5, 6), vector[32:37]
    initialize(module, "kaiming_normal", 0)
    initialize(reference, "kaiming_normal", 0)
    assert torch.equal(vector[:30].view(5, 6), reference.weight.detach())


def test_values_are_the_same_for_ever() -> None:
    """Guards runs on disk: a change of keys or of the drawing order would silently change every seeded result."""
    layer = nn.Linear(3, 1)
    initialize(layer, "normal", 0, std=1.0)
    torch.testing.assert_close(layer.weight.detach(), normal((1, 3), generator(0, "weight"), std=1.0), rtol=0, atol=0)
    torch.testing.assert_close(
        layer.weight.detach(), torch.tensor([[-0.095861, 0.115844, 2.185922]]), rtol=0, atol=1e-5
    )


def test_tied_weights_are_drawn_once_and_as_an_embedding() -> None:
    for names in ("head", "token"), ("token", "head"):
        token, head = nn.Embedding(50, 8), nn.Linear(8, 50, bias=False)
        head.weight = token.weight
        module = nn.ModuleDict({name: {"head": head, "token": token}[name] for name in names})
        drawn = initialize(module, "kaiming_normal", 0)
        assert list(drawn) == ["head.weight"]
        assert drawn["head.weight"].scheme == "normal"
        assert torch.equal(token.weight.detach(), normal((50, 8), generator(0, "head.weight")))


def test_report_says_what_was_drawn() -> None:
    drawn = initialize(models.resnet8(), "kaiming_normal", 0, fan="fan_out")
    assert list(drawn) == [name for name, _ in models.resnet8().named_parameters()]
    stem = drawn["stem.0.weight"]
    assert (stem.scheme, stem.shape) == ("kaiming_normal", (16, 3, 3, 3))
    assert stem.std == pytest.approx((2 / (16 * 9)) ** 0.5, rel=0.2)
    assert (drawn["stem.1.weight"].scheme, drawn["stem.1.weight"].std) == ("constant", 0.0)


def test_scheme_model_changes_nothing() -> None:
    module = models.resnet8(width=4)
    module(torch.randn(4, 3, 8, 8))  # gives the running statistics values
    before = {name: value.clone() for name, value in module.state_dict().items()}
    drawn = initialize(module, "model", 0)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert {entry.scheme for entry in drawn.values()} == {"model"}


def test_frozen_layers_are_kept_with_their_statistics() -> None:
    module = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 4), nn.BatchNorm1d(4))
    module(torch.randn(8, 4) + 3)
    for layer in module[0], module[1]:
        layer.requires_grad_(False)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    drawn = initialize(module, "xavier_normal", 0)
    same = {name for name, value in module.state_dict().items() if torch.equal(value, before[name])}
    assert {"0.weight", "0.bias", "1.running_mean", "1.running_var", "1.num_batches_tracked"} <= same
    assert not {"2.weight", "3.running_mean", "3.running_var"} & same
    assert drawn["0.weight"].scheme == "model"


class Patches(nn.Module):
    """Raw parameters as vision transformers have them."""

    def __init__(self) -> None:
        super().__init__()
        self.position = nn.Parameter(torch.arange(12.0).view(1, 3, 4))
        self.scale = nn.Parameter(torch.full((4,), 1e-6))
        self.linear = nn.Linear(4, 4)


def test_raw_parameters_are_kept_if_constant_and_named_otherwise() -> None:
    module = Patches()
    with pytest.raises(UserError, match=r"'position' \[1, 3, 4\].*special=\{'position': 'normal'\}"):
        initialize(module, "kaiming_normal", 0)
    drawn = initialize(module, "kaiming_normal", 0, special={"position": "normal"})
    assert {name: entry.scheme for name, entry in drawn.items()} == {
        "position": "normal",
        "scale": "model",
        "linear.weight": "kaiming_normal",
        "linear.bias": "constant",
    }
    assert torch.equal(module.position.detach(), normal((1, 3, 4), generator(0, "position")))
    assert module.scale.eq(1e-6).all()


def test_special_takes_functions_patterns_and_model() -> None:
    module = Patches()
    before = module.position.detach().clone()
    special = {"linear.*": lambda shape, random: torch.full(shape, 7.0), "*.weight": "normal", "pos*": "model"}
    drawn = initialize(module, "orthogonal", 0, special=special)
    assert module.linear.weight.eq(7).all()  # the first pattern that matches
    assert module.linear.bias.eq(7).all()
    assert torch.equal(module.position.detach(), before)
    assert (drawn["linear.weight"].scheme, drawn["position"].scheme) == ("special", "model")


@pytest.mark.parametrize("build", [models.resnet8, models.resnet20, lambda **s: models.resnet50(width=8, **s)])
def test_zero_gamma_starts_blocks_as_their_shortcuts_and_lets_them_learn(build: Any) -> None:
    module = build(classes=4)
    initialize(module, "kaiming_normal", 0)
    names = zero_gamma(module)
    blocks = [block for stage in module.stages for block in stage]
    assert len(names) == len(blocks)
    parameters = dict(module.named_parameters())
    assert all(parameters[name].eq(0).all() for name in names)
    x = torch.rand(2, 3, 32, 32)
    h = module.stem(x)
    for block in blocks:
        expected = torch.relu(block.shortcut(h))
        h = block(h)
        assert torch.equal(h, expected)
    module(x)[:, 0].sum().backward()
    assert all(parameters[name].grad.abs().sum() > 0 for name in names)


@pytest.mark.parametrize("module", [models.resnet8(skip=False), models.wide_resnet(10, 1), models.linear()])
def test_zero_gamma_refuses_networks_that_it_would_cut(module: nn.Module) -> None:
    before = values(module)
    with pytest.raises(UserError, match="found no residual block"):
        zero_gamma(module)
    assert_same(values(module), before)


@pytest.mark.parametrize("layer", [nn.LSTM(3, 5, num_layers=2, bidirectional=True), nn.LSTMCell(3, 5)])
def test_forget_gate_bias(layer: nn.Module) -> None:
    """With zero inputs, states and other biases, the forget gate is σ(value) and the cell keeps that share."""
    initialize(layer, "torch", 0)
    others = {name: value for name, value in values(layer).items() if name.startswith("bias")}
    names = forget_gate_bias(layer, 2.0)
    assert set(names) == set(others)
    for name, value in values(layer).items():
        if name.startswith("bias"):
            assert value[5:10].eq(2.0 if "_ih" in name else 0.0).all()
            assert torch.equal(value[:5], others[name][:5])
            assert torch.equal(value[10:], others[name][10:])
    cell = nn.LSTMCell(3, 5)
    for parameter in cell.parameters():
        nn.init.zeros_(parameter)
    forget_gate_bias(cell, 2.0)
    _, c = cell(torch.zeros(1, 3), (torch.zeros(1, 5), torch.ones(1, 5)))
    torch.testing.assert_close(c.detach(), torch.full((1, 5), 1 / (1 + torch.e**-2.0)))


@pytest.mark.parametrize(
    ("scheme", "options", "words"),
    [
        ("kaimin_normal", {}, "did you mean 'kaiming_normal'"),
        ("kaiming_normal", {"mode": "fan_out"}, "unknown option of scheme 'kaiming_normal' 'mode'.*Known: fan, gain"),
        ("kaiming_normal", {"fan": "fan_ot"}, "did you mean 'fan_out'"),
        ("xavier_uniform", {"gain": "rellu"}, "did you mean 'relu'"),
        ("torch", {"std": 0.1}, "scheme 'torch' has no options, received std=0.1"),
        ("model", {"std": 0.1}, "scheme 'model' has no options"),
        ("normal", {"std": 0.0}, "std must be a positive number, received 0.0"),
        ("normal", {"special": {"wieght": "normal"}}, "no parameter matches 'wieght'; names look like weight, bias"),
        ("normal", {"special": {"weight": "norml"}}, "did you mean 'normal'"),
        ("normal", {"special": {"bias": "orthogonal"}}, r"received shape \[4\]"),
        ("normal", {"special": {"bias": lambda s, g: torch.zeros(2)}}, r"must return shape \[4\], received \[2\]"),
        ("normal", {"seed": 0.5}, "seed must be an integer, received 0.5"),
    ],
)
def test_mistakes_are_named(scheme: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words) as error:
        initialize(nn.Linear(3, 4), scheme, **{"seed": 0, **options})
    assert "\n" not in str(error.value)


def test_parameters_without_values_are_refused() -> None:
    with torch.device("meta"):
        meta = nn.Linear(3, 4)
    with pytest.raises(UserError, match=r"meta device: call module\.to_empty"):
        initialize(meta, "normal", 0)
    with pytest.raises(UserError, match="is lazy"):
        initialize(nn.LazyLinear(4), "normal", 0)
    with pytest.raises(UserError, match="found no LSTM"):
        forget_gate_bias(nn.GRU(3, 4))
