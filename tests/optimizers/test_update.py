"""The driver: how θ is cut into calls, how it follows a moved module, and the compiled form."""

from __future__ import annotations

import functools
import types
import warnings
from typing import Any

import pytest
import torch
from torch import nn

from talweg.errors import UserError
from talweg.optimizers import LAMB, LARS, SGD, Adadelta, Adam, Rprop, Update
from talweg.optimizers.kernels import fused
from talweg.theta import Theta


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))


def backward(net: nn.Module, theta: Theta) -> None:
    theta.grad.zero_()
    x = torch.linspace(-1, 1, 12, dtype=theta.value.dtype).view(3, 4)
    net(x).square().sum().backward()


@pytest.mark.parametrize(
    ("rule", "calls"),
    [
        (SGD(), 1),  # all alike
        (SGD(weight_decay=0.1), 2),  # decayed, not decayed
        (LARS(), 2),  # adapted, not adapted
        (LARS(adapt_all=True), 1),
        (LARS(adapt_all=True, weight_decay=0.1), 2),
    ],
)
def test_neighbours_that_get_the_same_are_one_call(rule: Any, calls: int) -> None:
    assert len(Update(Theta(network()), rule)._steps) == calls


def test_multiplier_of_the_schedule_and_of_the_group() -> None:
    theta = Theta(network(), lr_scale=lambda name, p: 0.5 if name == "0.bias" else 1.0)
    theta.value.zero_()
    theta.grad.fill_(1.0)
    Update(theta, SGD(lr=0.4, momentum=0.0))(1, factor=0.5)
    assert theta["0.weight"].unique().tolist() == [pytest.approx(-0.2)]
    assert theta["0.bias"].unique().tolist() == [pytest.approx(-0.1)]


@pytest.mark.parametrize("say_so", [True, False])
def test_follows_a_module_that_was_moved(say_so: bool) -> None:
    net = network()
    theta = Theta(net)
    update = Update(theta, Adam(lr=0.1))
    still = network()
    theta_still = Theta(still)
    update_still = Update(theta_still, Adam(lr=0.1))
    for t in range(1, 7):
        if t == 4:
            net.double()
            assert theta.reattach()
            if say_so:
                update.rebind()
        backward(net, theta)
        update(t)
        backward(still, theta_still)
        update_still(t)
    assert update.vectors["mean"].dtype == torch.float64
    torch.testing.assert_close(theta["0.weight"].float(), theta_still["0.weight"], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["_fused_sgd_", "_fused_adam_", "_fused_adamw_", "_fused_adagrad_"])
def test_fused_kernels_are_found_and_never_taken_for_granted(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    w = torch.zeros(4)
    assert fused(name, w) is not None
    assert fused(name, w, torch.ones(3, 1)) is None  # a population's settings
    assert fused(name, w.half()) is None
    assert fused(name, torch.zeros(4, 2)[:, 0]) is None
    assert fused(name, w.to("meta")) is None
    monkeypatch.delattr(torch, name)
    assert fused(name, w) is None


@pytest.mark.parametrize("rule", [SGD(), SGD(weight_decay=0.1, decay="decoupled"), Adam(), LARS(), LAMB()])
def test_works_without_private_kernels(rule: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = []
    for missing in ([], ["_fused_sgd_", "_fused_adam_", "_fused_adamw_"]):
        for name in missing:
            monkeypatch.delattr(torch, name)
        net = network().double()
        theta = Theta(net)
        update = Update(theta, rule)
        for t in (1, 2, 3):
            backward(net, theta)
            update(t)
        ended.append(theta.value)
    torch.testing.assert_close(ended[0], ended[1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("rule", [Rprop(), Adadelta(weight_decay=0.1), Adam(weight_decay=0.1)])
def test_compiled_equals_the_formula(rule: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    # traced and functionalised as for a real compiler, but without needing one
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    ended = []
    for compile in (False, True):
        net = network()
        theta = Theta(net)
        update = Update(theta, rule, compile=compile)
        for t in (1, 2, 3):
            backward(net, theta)
            update(t, factor=1 / t)
        ended.append(theta.value)
    torch.testing.assert_close(ended[0], ended[1], rtol=1e-6, atol=1e-7)


def test_goes_on_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_compiler(*_: Any) -> None:
        raise RuntimeError("no C++ compiler found\nlong story")

    monkeypatch.setattr(torch, "compile", lambda formula: no_compiler)
    theta = Theta(network())
    update = Update(theta, SGD(lr=1.0, momentum=0.0), compile=True)
    before = theta.value.clone()
    theta.grad.fill_(1.0)
    with pytest.warns(UserWarning, match="without torch.compile: no C"):
        update(1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # said once
        update(2)
    assert torch.equal(theta.value, before - 1.0 - 1.0)


def test_compile_is_refused_where_it_has_no_effect() -> None:
    with pytest.raises(UserError, match="LARS cannot be compiled"):
        Update(Theta(network()), LARS(), compile=True)


def test_a_population_has_its_own_rates() -> None:
    single = Theta(network().double())
    single.grad.copy_(torch.sin(torch.arange(len(single.grad))) * (single.value != 0))
    rates, members = (0.1, 0.3), []
    for lr in rates:
        one = Theta(network().double())
        one.grad.copy_(single.grad)
        update = Update(one, LAMB(lr=lr))
        for t in (1, 2, 3):
            update(t, factor=0.5)
        members.append(one.value)
    value, grad = (torch.stack([v, v]) for v in (Theta(network().double()).value, single.grad))
    population: Any = types.SimpleNamespace(value=value, grad=grad, groups=single.groups)
    update = Update(population, LAMB(lr=torch.tensor(rates, dtype=torch.float64).view(2, 1)))  # type: ignore[arg-type]
    for t in (1, 2, 3):
        update(t, factor=0.5)
    torch.testing.assert_close(value, torch.stack(members), rtol=0, atol=1e-12)


@pytest.mark.parametrize("weight_decay", [0.0, 1e-9, 0.1])
@pytest.mark.parametrize("rule", [LARS, LAMB])
def test_a_layer_of_zeros_leaves_zero_at_ratio_one(rule: Any, weight_decay: float) -> None:
    theta = Theta(network().double())
    theta["0.weight"].zero_()
    theta.grad.copy_(torch.sin(torch.arange(len(theta.grad)) + 1.0))
    theta["2.weight"].fill_(0.5)
    w, g, group = theta.value.clone(), theta.grad.clone(), theta.groups[0]
    made = rule(lr=0.1, weight_decay=weight_decay)
    Update(theta, made)(1)
    cut = slice(group.start, group.stop)
    made.step(w[cut], g[cut], made.init(w[cut]), 0.1, 1, weight_decay, group.spans)
    torch.testing.assert_close(theta.value[cut], w[cut], rtol=0, atol=1e-12)
    first = {LARS: 0.1 * g[:32], LAMB: 0.1 * g[:32].sign()}[rule]
    torch.testing.assert_close(theta["0.weight"].flatten(), -first, rtol=1e-3, atol=1e-4)
