"""How a training ends: whole, early, on request, or before an update that would spoil θ."""

import numpy as np
import pytest
import torch
from tests.helpers.trainings import BN_TASK, ONE, TASKS, TOLERANCE, rows
from torch import Tensor, nn

from talweg import Metric, Recipe, Samples, StopKind, Task, Training, Weights
from talweg.optimizers import LAMB, RULES, SGD, AdamW, Rule
from talweg.schedules import Constant


class Rising(nn.Module):
    """Its accuracy rises and falls with the number of updates: best is known beforehand."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.w.expand(len(x), 1)


def rising(patience: float, epochs: float = 12) -> Training:
    """w rises by 1 an update (one an epoch); the metric is best at w = 4."""
    closeness = Metric("closeness", lambda output, target: -(output - 4.0).abs())
    x = torch.zeros(8, 1)
    task = Task(
        name="rising", model=Rising, train=(x, x), validation=(x, x), metrics=(closeness,), normalize="scale",
        loss=lambda output, target: -output.mean(),
    )  # fmt: skip
    recipe = Recipe(
        batch=8,
        epochs=epochs,
        patience=patience,
        optimizer=SGD(lr=1.0, momentum=0.0, weight_decay=0.0),
        schedule=Constant(),
    )
    return Training(task, recipe, ONE)


def test_the_best_is_kept() -> None:
    """Invariant 7."""
    training = rising(patience=0)
    marks = [step.is_best for step in training]
    assert marks == [True] * 4 + [False] * 8
    assert training.best is not None
    assert training.best["step"] == 4
    assert training.theta["w"].item() == 4.0
    assert training.stop is not None
    assert training.stop.kind is StopKind.COMPLETED


def test_early_stopping_says_why_and_returns_the_best() -> None:
    training = rising(patience=3)
    assert len(list(training)) == 7
    assert training.stop is not None
    assert training.stop.kind is StopKind.EARLY
    assert "closeness" in training.stop.text
    assert "3 epochs" in training.stop.text
    assert training.theta["w"].item() == 4.0


def test_without_validation_the_last_weights_are_kept() -> None:
    training = Training(TASKS["mlp"](), Recipe(batch=16, epochs=2, weights=Weights(ema=0.5)), ONE)
    for _ in training:
        last = training.theta.value.clone()
    assert training.best is None
    assert training.built.ema is not None
    assert torch.equal(training.theta.value, training.built.ema.vectors()["value"])
    assert not torch.equal(training.theta.value, last)


class Explodes(nn.Module):
    """Gives an infinity from the batch on in which a sample is larger than 2."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        return self.second(h / 0.0 if x.max() > 2.0 else h)


def test_non_finite_loss_stops_before_the_update_and_names_the_layer() -> None:
    x, y = rows(64)
    x = x.clamp(-1.9, 1.9)
    x[40, 2] = 3.0  # sample 40 is in the third batch of 16
    task = Task(name="t", model=Explodes, train=(x, y), normalize="scale")
    training = Training(task, Recipe(batch=16, samples=Samples(order="sequential")), ONE)
    steps = [(step.index, training.theta.value.clone()) for step in training]
    assert [index for index, _ in steps] == [1, 2]
    assert training.stop is not None
    assert training.stop.kind is StopKind.NON_FINITE
    assert "update 3" in training.stop.text
    assert "'second' (Linear)" in training.stop.text
    assert torch.equal(training.theta.value, steps[-1][1])


@pytest.mark.parametrize("clip", [0.0, 1.0])
def test_non_finite_gradient_stops_too(clip: float) -> None:
    """√|w| has an infinite slope at 0: the loss is finite, its gradient is not."""

    class Kink(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.zeros(1))

        def forward(self, x: Tensor) -> Tensor:
            return (self.w.abs() + 0 * x).sqrt()

    x = torch.ones(8, 1)
    task = Task(name="t", model=Kink, train=(x, x), loss="mse", normalize="scale")
    training = Training(task, Recipe(batch=8, epochs=2, clip=clip), ONE)
    assert list(training) == []
    assert training.stop is not None
    assert training.stop.kind is StopKind.NON_FINITE
    assert "the gradient of update 1 is not finite (first in the gradient of 'w'" in training.stop.text
    assert bool(training.theta.value.isfinite().all())


def test_stop_request_ends_after_the_update() -> None:
    training = Training(TASKS["mlp"](), Recipe(batch=16, epochs=4), ONE)
    for step in training:
        if step.index == 3:
            training.request_stop("enough")
    assert step.index == 4
    assert training.stop == (StopKind.INTERRUPTED, "enough")


def without_host(training: Training) -> Training:
    """The training as on an accelerator, where the host never waits for a loss; its tensors stay on the CPU."""
    training._halt = torch.zeros(())
    return training


@pytest.mark.parametrize("rule", [SGD(lr=0.05), AdamW(lr=1e-3), LAMB(lr=1e-2)], ids=lambda r: type(r).__name__)
def test_the_loop_without_host_is_the_same_loop(rule: Rule) -> None:
    weights = Weights(initialize="kaiming_normal")
    recipe = Recipe(batch=16, epochs=2, clip=1.0, precision="float64", optimizer=rule, weights=weights)
    one, other = Training(BN_TASK, recipe, ONE), without_host(Training(BN_TASK, recipe, ONE))
    losses = [[float(step.loss) for step in training] for training in (one, other)]
    np.testing.assert_allclose(losses[0], losses[1], rtol=TOLERANCE)
    torch.testing.assert_close(one.theta.value, other.theta.value, rtol=TOLERANCE, atol=TOLERANCE)
    assert len(one.history.rows) == len(other.history.rows)


@pytest.mark.parametrize("name", RULES)
def test_without_host_the_first_bad_update_is_not_done_either(name: str) -> None:
    """It is found some updates later; until then a flag on the device keeps θ as it was."""
    x, y = rows(64)
    x = x.clamp(-1.9, 1.9)
    x[40, 2] = 3.0
    task = Task(name="t", model=Explodes, train=(x, y), normalize="scale")
    recipe = Recipe(batch=16, samples=Samples(order="sequential"), optimizer=RULES[name](lr=0.01))
    training = without_host(Training(task, recipe, ONE))
    values = [training.theta.value.clone() for _ in training]
    assert training.stop is not None
    assert training.stop.kind is StopKind.NON_FINITE
    assert "update 3" in training.stop.text
    assert training.step == 2
    assert torch.equal(training.theta.value, values[1])
    assert bool(training.theta.value.isfinite().all())
