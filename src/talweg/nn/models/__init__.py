"""Reference models: short, readable, no parallelism inside; initial weights come from `talweg.initialize`.

Every constructor returns an `nn.Module` with torch's default weights. Image models take x: [B, in_channels, H, W],
language models tokens: [B, T]. The last layer is named `head` in all of them (None where the embedding serves as head).
"""

from collections.abc import Callable

from torch import nn

from talweg.nn.models.alexnet import alexnet
from talweg.nn.models.densenet import densenet, densenet121, densenet_bc
from talweg.nn.models.lenet import lenet5
from talweg.nn.models.linear import linear
from talweg.nn.models.lstm import lstm_classifier, lstm_lm
from talweg.nn.models.mlp import mlp
from talweg.nn.models.resnet import resnet18, resnet34, resnet50
from talweg.nn.models.small_resnet import resnet8, resnet20, resnet56, resnet110, small_resnet
from talweg.nn.models.transformer import gpt
from talweg.nn.models.vgg import small_vgg16, vgg9, vgg11, vgg13, vgg16, vgg19
from talweg.nn.models.wide_resnet import wide_resnet, wrn28_10

MODELS: dict[str, Callable[..., nn.Module]] = {
    "linear": linear,
    "mlp": mlp,
    "lenet5": lenet5,
    "resnet8": resnet8,
    "resnet20": resnet20,
    "resnet56": resnet56,
    "resnet110": resnet110,
    "resnet18": resnet18,
    "resnet34": resnet34,
    "resnet50": resnet50,
    "vgg9": vgg9,
    "small_vgg16": small_vgg16,
    "vgg11": vgg11,
    "vgg13": vgg13,
    "vgg16": vgg16,
    "vgg19": vgg19,
    "alexnet": alexnet,
    "wrn28_10": wrn28_10,
    "densenet_bc": densenet_bc,
    "densenet121": densenet121,
    "lstm_lm": lstm_lm,
    "lstm_classifier": lstm_classifier,
    "gpt": gpt,
}

__all__ = [
    "MODELS",
    "alexnet",
    "densenet",
    "densenet121",
    "densenet_bc",
    "gpt",
    "lenet5",
    "linear",
    "lstm_classifier",
    "lstm_lm",
    "mlp",
    "resnet8",
    "resnet18",
    "resnet20",
    "resnet34",
    "resnet50",
    "resnet56",
    "resnet110",
    "small_resnet",
    "small_vgg16",
    "vgg9",
    "vgg11",
    "vgg13",
    "vgg16",
    "vgg19",
    "wide_resnet",
    "wrn28_10",
]
