"""The multi-layer perceptron."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn


def mlp(
    features: int = 64,
    classes: int = 10,
    hidden: Sequence[int] = (128,),
    *,
    activation: Callable[[], nn.Module] = nn.ReLU,
    dropout: float = 0.0,
) -> nn.Sequential:
    """A multi-layer perceptron: linear maps with an activation between them.

    Formula: h₀ = vec(x), hᵢ = f(Wᵢ·hᵢ₋₁ + bᵢ), logits = W·h + b; dropout acts on each hᵢ.

    Args:
        features: values per sample after flattening (64 for the 8×8 digits).
        classes: number of classes, or outputs of a regression.
        hidden: widths of the hidden layers; `()` leaves softmax regression.
        activation: makes the activation module f: `nn.ReLU`, `nn.Tanh`, ….
        dropout: probability with which a hidden value is zeroed in training, in [0, 1].

    Returns:
        a module x: [B, *] -> logits: [B, classes], where * has `features` values.

    Example:
        >>> import torch
        >>> from talweg.nn import count_parameters
        >>> model = mlp(features=64, classes=10, hidden=(128, 128))
        >>> model(torch.zeros(5, 1, 8, 8)).shape
        torch.Size([5, 10])
        >>> count_parameters(model)     # 64·128+128 + 128·128+128 + 128·10+10
        26122

    Source: D. Rumelhart, G. Hinton, R. Williams, "Learning representations by back-propagating errors", 1986.
    """
    model = nn.Sequential(nn.Flatten())
    width_in = features
    for width in hidden:
        model.extend([nn.Linear(width_in, width), activation()])
        if dropout > 0:
            model.append(nn.Dropout(dropout))
        width_in = width
    model.add_module("head", nn.Linear(width_in, classes))
    return model
