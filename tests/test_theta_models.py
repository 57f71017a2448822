"""Every reference model computes the same through θ, bit for bit, as by itself."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from talweg import Theta
from talweg.nn.models import MODELS, wide_resnet

# Small forms of all reference models: settings, and the shape of an input (two dimensions mean tokens).
MODEL_TABLE: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {
    "linear": ({}, (3, 1, 8, 8)),
    "mlp": ({"hidden": (12, 6)}, (3, 1, 8, 8)),
    "lenet5": ({"size": 8}, (3, 1, 8, 8)),
    "resnet8": ({"width": 4}, (3, 3, 8, 8)),
    "resnet20": ({"width": 4}, (3, 3, 8, 8)),
    "resnet56": ({"width": 2}, (3, 3, 8, 8)),
    "resnet110": ({"width": 2}, (3, 3, 8, 8)),
    "resnet18": ({"width": 4}, (3, 3, 32, 32)),
    "resnet34": ({"width": 4}, (3, 3, 32, 32)),
    "resnet50": ({"width": 4}, (3, 3, 32, 32)),
    "vgg9": ({"size": 8, "width": 4}, (3, 3, 8, 8)),
    "small_vgg16": ({"width": 4}, (3, 3, 32, 32)),
    "vgg11": ({"width": 4, "hidden": 8}, (3, 3, 32, 32)),
    "vgg13": ({"width": 4, "hidden": 8}, (3, 3, 32, 32)),
    "vgg16": ({"width": 4, "hidden": 8, "norm": True}, (3, 3, 32, 32)),
    "vgg19": ({"width": 4, "hidden": 8}, (3, 3, 32, 32)),
    "alexnet": ({"width": 4, "hidden": 8}, (3, 3, 63, 63)),
    "wrn28_10": ({"depth": 10, "widen": 1}, (3, 3, 8, 8)),
    "densenet_bc": ({"depth": 16, "growth": 4}, (3, 3, 8, 8)),
    "densenet121": ({"growth": 2}, (3, 3, 32, 32)),
    "lstm_lm": ({"vocabulary": 11, "width": 8}, (3, 5)),
    "lstm_classifier": ({"vocabulary": 11, "width": 8}, (3, 5)),
    "gpt": ({"vocabulary": 11, "context": 5, "width": 8, "heads": 2, "layers": 2}, (3, 5)),
}


def test_model_table_is_complete() -> None:
    assert MODEL_TABLE.keys() == MODELS.keys()


def two_passes(net: nn.Module, x: Tensor) -> Tensor:
    torch.manual_seed(0)  # for dropout
    output = net(x)
    (output * torch.linspace(-1, 1, output.numel()).view(output.shape)).sum().backward()
    return output


@pytest.mark.parametrize("name", MODELS)
def test_models_give_the_same_bits_through_theta(name: str) -> None:
    settings, shape = MODEL_TABLE[name]
    random = torch.Generator().manual_seed(1)
    tokens = len(shape) == 2
    x = torch.randint(11, shape, generator=random) if tokens else torch.randn(shape, generator=random)
    torch.manual_seed(0)
    net = wide_resnet(10, 1) if name == "wrn28_10" else MODELS[name](**settings)
    if not tokens:
        net, x = net.to(memory_format=torch.channels_last), x.contiguous(memory_format=torch.channels_last)
    plain = copy.deepcopy(net)
    strides = [p.stride() for p in net.parameters()]
    theta = Theta(net)
    assert [p.stride() for p in net.parameters()] == strides
    assert torch.equal(two_passes(net, x), two_passes(plain, x))
    theta.check()
    gradients = theta.split(theta.grad)
    assert gradients.keys() == dict(plain.named_parameters()).keys()
    for parameter, p in plain.named_parameters():
        assert torch.equal(gradients[parameter], p.grad), parameter
