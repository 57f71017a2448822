"""Softmax regression: the network without a hidden layer."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn


def linear(features: int = 64, classes: int = 10) -> nn.Sequential:
    """Softmax regression: one linear map from the flattened input to the class scores.

    Formula: logits = W·vec(x) + b, with W ∈ R^{classes × features}. With a cross-entropy loss J is convex in (W, b), so
    this model is the yardstick that every deeper one must beat.

    Args:
        features: values per sample after flattening (64 for the 8×8 digits, 784 for MNIST, 3072 for CIFAR-10).
        classes: number of classes.

    Returns:
        a module x: [B, *] -> logits: [B, classes], where * has `features` values.

    Example:
        >>> import torch
        >>> from talweg.nn import count_parameters
        >>> model = linear(features=64, classes=10)
        >>> model(torch.zeros(5, 1, 8, 8)).shape
        torch.Size([5, 10])
        >>> count_parameters(model)     # 64·10 + 10
        650

    Source: D. R. Cox, "The regression analysis of binary sequences", 1958.
    """
    return nn.Sequential(OrderedDict(flatten=nn.Flatten(), head=nn.Linear(features, classes)))
