"""The first non-finite number is found where it arose, and the search leaves no trace."""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from talweg.diagnose.nonfinite import first_bad_gradient, first_bad_layer

QUIET = contextlib.nullcontext()
X, Y = torch.ones(4, 3), torch.zeros(4, 1)


class Net(nn.Module):
    """A raw parameter, a container, a layer used twice, and outputs of several kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(3))
        self.body = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.ReLU())
        self.cell = nn.LSTM(3, 3, batch_first=True)
        self.attention = nn.MultiheadAttention(3, 1, batch_first=True)
        self.head = nn.Linear(3, 1)
        self.divisor = 1.0

    def forward(self, x: Tensor) -> Tensor:
        h = self.body(self.body(x + self.shift))
        h, _ = self.cell(h.unsqueeze(1))
        h, _ = self.attention(h, h, h)
        return self.head(h.squeeze(1)) / self.divisor


def spoil(name: str, value: float = math.nan) -> Callable[[Net], None]:
    def change(net: Net) -> None:
        net.get_parameter(name).data.view(-1)[-1] = value

    return change


def overflow(net: Net) -> None:
    net.body[0].weight.data.fill_(3e38)


def divide(net: Net) -> None:
    net.divisor = 0.0


@pytest.mark.parametrize(
    ("change", "where"),
    [
        (spoil("shift"), "first in the weights of layer 'model' (Net)"),
        (spoil("body.0.bias"), "first in the weights of layer 'body.0' (Linear)"),
        (spoil("body.1.weight", math.inf), "first in the weights of layer 'body.1' (BatchNorm1d)"),
        (spoil("cell.weight_hh_l0", -math.inf), "first in the weights of layer 'cell' (LSTM)"),
        (spoil("attention.in_proj_weight"), "first in the weights of layer 'attention' (MultiheadAttention)"),
        (spoil("attention.out_proj.weight"), "first in the output of layer 'attention' (MultiheadAttention)"),
        (spoil("head.weight"), "first in the weights of layer 'head' (Linear)"),
        (overflow, "first in the output of layer 'body.0' (Linear)"),
        (divide, "first in the model's output, between its layers"),
        (lambda net: None, "the model's output is finite, so first in the loss function or its sum"),
    ],
)
def test_where_it_arose(change: Callable[[Net], None], where: str) -> None:
    torch.manual_seed(0)
    net = Net()
    change(net)
    assert first_bad_layer(net, [(X, Y, QUIET)]) == where


def test_the_earlier_of_two_is_named() -> None:
    net = Net()
    spoil("head.weight")(net)
    spoil("body.0.bias")(net)
    assert "'body.0'" in first_bad_layer(net, [(X, Y, QUIET)])


@pytest.mark.parametrize(
    ("window", "where"),
    [
        ([(X.clone().fill_(math.nan), Y)], "first in the input of the model"),
        ([(X, Y), (X.clone().fill_(-math.inf), Y)], "first in the input of the model"),
        ([(X, Y), (X, Y.clone().fill_(math.nan))], "first in the target"),
        ([], "the model's output is finite, so first in the loss function or its sum"),
    ],
)
def test_data_at_fault(window: list[tuple[Tensor, Tensor]], where: str) -> None:
    assert first_bad_layer(Net(), [(x, y, QUIET) for x, y in window]) == where


def test_model_of_one_layer() -> None:
    net = nn.Linear(3, 1)
    net.weight.data.fill_(3e38)
    assert first_bad_layer(net, [(X, Y, QUIET)]) == "first in the output of layer 'model' (Linear)"


class Branches(nn.Module):
    def __init__(self, output: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.output = output

    def forward(self, x: Tensor) -> Any:
        return self.output(x / 0)


@pytest.mark.parametrize("output", [lambda h: {"h": h}, lambda h: [1, (None, h)], lambda h: (h.long() * 0, h)])
def test_outputs_of_any_kind_are_looked_into(output: Callable[[Tensor], Any]) -> None:
    assert first_bad_layer(Branches(output), [(X, Y, QUIET)]) == "first in the output of layer 'model' (Branches)"


def test_the_search_leaves_no_trace() -> None:
    net = Net()
    spoil("head.weight")(net)
    before, keys = copy.deepcopy(net.state_dict()), set(vars(net.head))
    first_bad_layer(net, [(X, Y, QUIET), (2 * X, Y, QUIET)])
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor.nan_to_num(5.0), before[name].nan_to_num(5.0)), name
    assert net.training
    assert set(vars(net.head)) == keys
    assert all(not layer._forward_hooks and not layer._forward_pre_hooks for layer in net.modules())
    assert all(p.grad is None for p in net.parameters())


def test_hooks_go_when_the_model_fails() -> None:
    net = Net()
    with pytest.raises(RuntimeError, match="must match the size"):
        first_bad_layer(net, [(torch.ones(4, 5), Y, QUIET)])
    assert all(not layer._forward_hooks for layer in net.modules())


def test_gradient_nearest_to_the_output() -> None:
    net = Net()
    assert first_bad_gradient(net) is None
    for p in net.parameters():
        p.grad = torch.zeros_like(p)
    assert first_bad_gradient(net) is None
    for name in ("body.0.weight", "body.1.bias", "shift"):
        net.get_parameter(name).grad.view(-1)[0] = math.inf
    assert first_bad_gradient(net) == "first in the gradient of 'body.1.bias'"
