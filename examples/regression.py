"""Regression, from Python: train, look at the result, and use the model.

    python examples/regression.py

The data are Friedman's test function plus noise of variance 1, so no model gets a validation loss (mean squared error)
far below 1. Prints the epoch table, the verdict, and at the end

    best validation loss 1.14 (the noise alone: 1.0), from epoch 37
    at x = (0.5, 0.5, ...): predicted 14.44, true 14.57

Takes about 6 s on one CPU thread. Source: J. Friedman, "Multivariate adaptive regression splines", 1991.
"""

import math

import torch
from torch import Tensor, nn

import talweg
from talweg.optimizers import AdamW


def friedman(x: Tensor) -> Tensor:
    """y = 10·sin(π·x1·x2) + 20·(x3 − 1/2)² + 10·x4 + 5·x5, and five features that say nothing: [N, 10] → [N, 1]"""
    x1, x2, x3, x4, x5 = x[:, :5].split(1, dim=1)
    return 10 * torch.sin(math.pi * x1 * x2) + 20 * (x3 - 0.5) ** 2 + 10 * x4 + 5 * x5


def data(samples: int, seed: int) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    x = torch.rand(samples, 10, generator=random)
    return x, friedman(x) + torch.randn(samples, 1, generator=random)


def main() -> None:
    task = talweg.Task(
        name="friedman",
        model=lambda: nn.Sequential(nn.Linear(10, 64), nn.GELU(), nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 1)),
        train=data(4000, seed=0),
        validation=data(1000, seed=1),
        loss="mse",
    )
    run = talweg.train(task, talweg.Recipe(epochs=40, optimizer=AdamW(lr=5e-3)))
    best = run.summary["best"]
    print(f"best validation loss {best['loss']:.2f} (the noise alone: 1.0), from epoch {best['epoch']:.0f}")

    model = talweg.load_model(run.folder, task)  # the best weights; it standardises new data as the training data were
    x = torch.full((1, 10), 0.5)
    with torch.no_grad():
        predicted = model(x)
    print(f"at x = (0.5, 0.5, ...): predicted {predicted.item():.2f}, true {friedman(x).item():.2f}")


if __name__ == "__main__":
    main()
