"""Small tasks, and short trainings of them, for the tests of the loop."""

import numpy as np
import torch
from torch import Tensor, nn

from talweg import Layout, Recipe, Task, Training, Weights
from talweg.data import load_digits
from talweg.nn.models import gpt, lstm_classifier, mlp, resnet8

ONE = Layout(device="cpu", threads=1, compile="off")
TOLERANCE = 1e-10


def rows(n: int = 50, features: int = 6, classes: int = 4) -> tuple[Tensor, Tensor]:
    x = torch.randn(n, features, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return x, (x[:, :classes]).argmax(1)


def tokens(n: int = 26, length: int = 7, vocabulary: int = 11) -> tuple[Tensor, Tensor]:
    x = torch.randint(vocabulary, (n, length + 1), generator=torch.Generator().manual_seed(2))
    return x[:, :-1].contiguous(), x[:, 1:].contiguous()


def group_norm_net() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.GroupNorm(2, 8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(32, 10),
    )


def digits(n: int = 70) -> tuple[Tensor, Tensor]:
    train = load_digits().train
    return train.x[:n], train.y[:n]


TASKS = {
    "dropout": lambda: Task(name="dropout", model=lambda: mlp(6, 4, hidden=(16,), dropout=0.4), train=rows()),
    "mlp": lambda: Task(name="mlp", model=lambda: mlp(6, 4, hidden=(16,)), train=rows(), metrics=("accuracy",)),
    "conv": lambda: Task(name="conv", model=group_norm_net, train=digits(), metrics=("accuracy",)),
    "lstm": lambda: Task(
        name="lstm", model=lambda: lstm_classifier(11, 4, width=8), train=(tokens()[0], tokens()[0][:, 0] % 4)
    ),
    "gpt": lambda: Task(name="gpt", model=lambda: gpt(11, context=7, width=16, heads=2, layers=1), train=tokens()),
}
BN_TASK = Task(name="bn", model=lambda: resnet8(1, 10), train=digits(200), validation=digits(90), metrics=("accuracy",))


def run(task: Task, layout: Layout = ONE, steps: int = 10, **recipe: object) -> tuple[list[float], Tensor]:
    """The losses of the first steps and θ after them."""
    settings = {"batch": 16, "epochs": 20, "precision": "float64", "weights": Weights(initialize="kaiming_normal")}
    training = Training(task, Recipe(**{**settings, **recipe}), layout)
    losses = []
    for step in training:
        losses.append(float(step.loss))
        if len(losses) == steps:
            break
    return losses, training.theta.value.clone()


def assert_equal(one: tuple[list[float], Tensor], other: tuple[list[float], Tensor]) -> None:
    np.testing.assert_allclose(one[0], other[0], rtol=TOLERANCE, atol=0)
    assert ((one[1] - other[1]).norm() / one[1].norm()).item() <= TOLERANCE


def assert_bit_equal(one: tuple[list[float], Tensor], other: tuple[list[float], Tensor]) -> None:
    assert one[0] == other[0]
    assert torch.equal(one[1], other[1])
