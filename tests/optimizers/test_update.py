"""The driver: how θ is cut into calls, how it follows a moved module, and the compiled form."""

from __future__ import annotations

import functools
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
