"""The rules as torch.optim optimizers, beside torch's own in the same loops."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from talweg.errors import UserError
from talweg.optimizers import LAMB, LARS, RULES, SGD, Adam, AdamW, Rprop, TorchOptimizer

X = torch.linspace(-1, 1, 24, dtype=torch.float64).view(6, 4)


class Network(nn.Module):
    """A layer that every pass uses, a layer that only some passes use, and one that none uses."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.always, self.sometimes, self.never = (nn.Linear(4, 4, dtype=torch.float64) for _ in range(3))

    def forward(self, x: Tensor, both: bool) -> Tensor:
        x = torch.tanh(self.always(x))
        return self.sometimes(x) if both else x


def train(net: Network, optimizer: Any, passes: range, *, set_to_none: bool = True, scheduler: Any = None) -> None:
    for i in passes:
        optimizer.zero_grad(set_to_none=set_to_none)
        (net(X, both=i % 3 != 0) - 1).square().mean().backward()
        optimizer.step()
        if scheduler is not None:
            scheduler.step()


def distance(a: nn.Module, b: nn.Module) -> float:
    """The largest difference between the parameters of two networks."""
    return max((p - q).abs().max().item() for p, q in zip(a.parameters(), b.parameters(), strict=True))


PAIRS = {
    "sgd": (SGD(lr=0.1, weight_decay=0.01), lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01)),
    "adam": (Adam(lr=0.1, weight_decay=0.01), lambda p: torch.optim.Adam(p, lr=0.1, weight_decay=0.01)),
    "adamw": (AdamW(lr=0.1), lambda p: torch.optim.AdamW(p, lr=0.1)),
    "rprop": (Rprop(lr=0.1), lambda p: torch.optim.Rprop(p, lr=0.1)),
}


@pytest.mark.parametrize("set_to_none", [True, False])
@pytest.mark.parametrize("name", PAIRS)
def test_equals_torch_in_an_ordinary_loop(name: str, set_to_none: bool) -> None:
    rule, theirs = PAIRS[name]
    ours, peer = Network(), Network()
    train(ours, TorchOptimizer(ours.parameters(), rule), range(1, 12), set_to_none=set_to_none)
    train(peer, theirs(peer.parameters()), range(1, 12), set_to_none=set_to_none)
    assert distance(ours, peer) <= 1e-12
    assert torch.equal(ours.never.weight, Network().never.weight)


def test_groups_and_schedulers_equal_torchs() -> None:
    ours, peer = Network(), Network()
    for net, make in ((ours, lambda g: TorchOptimizer(g, SGD(lr=0.1))), (peer, lambda g: torch.optim.SGD(g, 0.1, 0.9))):
        groups = [
            {"params": [net.always.weight, net.sometimes.weight], "weight_decay": 0.1},
            {"params": [net.always.bias, net.sometimes.bias], "lr": 0.01},
        ]
        optimizer = make(groups)
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, [0.2, 0.02], 12)  # cycles the momentum, too
        train(net, optimizer, range(1, 6), scheduler=scheduler)
        optimizer.add_param_group({"params": [net.never.weight], "momentum": 0.5})
        optimizer.param_groups[0]["weight_decay"] = 0.0
        train(net, optimizer, range(6, 9))
    assert distance(ours, peer) <= 1e-12


def test_momentum_may_be_switched_on_and_off() -> None:
    ours, peer = Network(), Network()
    for net, make in ((ours, lambda p: TorchOptimizer(p, SGD(lr=0.1))), (peer, lambda p: torch.optim.SGD(p, 0.1, 0.9))):
        optimizer = make(net.parameters())
        train(net, optimizer, range(1, 4))
        optimizer.param_groups[0]["momentum"] = 0.0
        train(net, optimizer, range(4, 6))
    assert distance(ours, peer) <= 1e-12


@pytest.mark.parametrize("name", RULES)
def test_state_dict_goes_round_mid_run_bit_for_bit(name: str) -> None:
    straight = Network()
    optimizer = TorchOptimizer(straight.parameters(), RULES[name]())
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2)
    train(straight, optimizer, range(1, 6), scheduler=scheduler)
    file = io.BytesIO()
    torch.save([straight.state_dict(), optimizer.state_dict(), scheduler.state_dict()], file)
    train(straight, optimizer, range(6, 12), scheduler=scheduler)

    file.seek(0)
    weights, state, schedule = torch.load(file, weights_only=True)
    resumed = Network()
    resumed.load_state_dict(weights)
    optimizer = TorchOptimizer(resumed.parameters(), RULES[name]())
    optimizer.load_state_dict(state)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2)
    scheduler.load_state_dict(schedule)
    train(resumed, optimizer, range(6, 12), scheduler=scheduler)
    assert all(torch.equal(p, q) for p, q in zip(straight.parameters(), resumed.parameters(), strict=True))


def test_a_state_of_another_rule_is_refused() -> None:
    net = Network()
    state = TorchOptimizer(net.parameters(), Adam()).state_dict()
    optimizer = TorchOptimizer(net.parameters(), SGD())
    with pytest.raises(UserError, match=r"does not belong to SGD: it holds \['mean', 'square', 'step'\]"):
        optimizer.load_state_dict(state)
    train(net, optimizer, range(1, 3))  # as good as before
    assert set(optimizer.state[net.always.weight]) == {"step", "velocity"}


def test_closure() -> None:
    net = Network()
    optimizer = TorchOptimizer(net.parameters(), SGD(lr=0.1))

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = (net(X, both=True) - 1).square().mean()
        loss.backward()
        return loss

    losses = [optimizer.step(closure).item() for _ in range(20)]
    assert losses[-1] < 0.5 * losses[0]


def _user_gradient(net: Network, optimizer: TorchOptimizer) -> None:
    for p in net.parameters():
        p.grad = torch.ones_like(p)


def _clipped(net: Network, optimizer: TorchOptimizer) -> None:
    net(X, both=True).sum().backward()
    nn.utils.clip_grad_norm_(net.parameters(), 0.1)


def _moved(net: Network, optimizer: TorchOptimizer) -> None:
    net(X, both=True).sum().backward()
    net.float().double()  # parameters with memory of their own


def _replaced(net: Network, optimizer: TorchOptimizer) -> None:
    net.always.weight.data = torch.ones(4, 4, dtype=torch.float64)
    net(X, both=True).sum().backward()


@pytest.mark.parametrize("interfere", [_user_gradient, _clipped, _moved, _replaced])
def test_gradients_and_parameters_that_others_touched(interfere: Callable[..., None]) -> None:
    ours, peer = Network(), Network()
    for net, make in ((ours, lambda p: TorchOptimizer(p, Adam(lr=0.1))), (peer, lambda p: torch.optim.Adam(p, lr=0.1))):
        optimizer = make(net.parameters())
        for set_to_none in (True, False):
            train(net, optimizer, range(1, 4), set_to_none=set_to_none)
            interfere(net, optimizer)
            optimizer.step()
    assert distance(ours, peer) <= 1e-12


def test_a_frozen_parameter_trains_from_when_it_is_thawed() -> None:
    net = Network()
    net.always.requires_grad_(False)
    start = net.always.weight.clone()
    optimizer = TorchOptimizer(net.parameters(), SGD(lr=0.1))
    assert not net.always.weight.requires_grad
    train(net, optimizer, range(1, 3))
    assert torch.equal(net.always.weight, start)
    net.always.requires_grad_(True)
    train(net, optimizer, range(1, 3))
    assert not torch.equal(net.always.weight, start)


@pytest.mark.parametrize("rule", [LARS(), LAMB()])
def test_only_matrices_get_a_trust_ratio(rule: Any) -> None:
    moved = {}
    for size in (1.0, 10.0):
        net = nn.Linear(3, 3)
        for p in net.parameters():
            nn.init.constant_(p, size)
        optimizer = TorchOptimizer([{"params": net.parameters(), "weight_decay": 0.0}], rule)
        _ = [setattr(p, "grad", torch.ones_like(p)) for p in net.parameters()]
        optimizer.step()
        moved[size] = size - torch.stack([net.weight[0, 0], net.bias[0]]).detach()
    # a weight moves by a fraction of its own norm, a bias by the gradient alone
    torch.testing.assert_close(moved[10.0] / moved[1.0], torch.tensor([10.0, 1.0]), rtol=1e-2, atol=0)


def test_bad_settings_and_sparse_gradients_are_refused() -> None:
    net = Network()
    with pytest.raises(UserError, match="weight_decay must be a number of at least 0, received -1"):
        TorchOptimizer([{"params": net.parameters(), "weight_decay": -1}], SGD())
    with pytest.raises(UserError, match="lr must be a number above 0"):
        TorchOptimizer([{"params": net.parameters(), "lr": 0}], SGD())
    optimizer = TorchOptimizer(net.always.parameters(), SGD())
    with pytest.raises(UserError, match="momentum must be"):
        optimizer.add_param_group({"params": net.never.parameters(), "momentum": 2})
    assert len(optimizer.param_groups) == 1
    table = nn.Embedding(5, 2, sparse=True)
    optimizer = TorchOptimizer(table.parameters(), SGD())
    optimizer.zero_grad()
    table(torch.tensor([1])).sum().backward()
    with pytest.raises(UserError, match="a gradient is sparse"):
        optimizer.step()
