"""What to learn: losses and metrics against torch, and what a task refuses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from talweg import Metric, Task, UserError
from talweg.task import (
    LOSSES,
    METRICS,
    absolute_error,
    accuracy,
    binary_cross_entropy,
    class_dim,
    cross_entropy,
    mse,
)

B, C, T, H, W = 6, 5, 4, 3, 2


def logits(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def classes(*shape: int) -> Tensor:
    return torch.randint(C, shape, generator=torch.Generator().manual_seed(1))


# output, target, and the output with its classes second, as torch wants it
CASES = {
    "[B, C]": (logits(B, C), classes(B), lambda o: o),
    "[B, T, C]": (logits(B, T, C), classes(B, T), lambda o: o.transpose(1, 2)),
    "[B, C, H, W]": (logits(B, C, H, W), classes(B, H, W), lambda o: o),
    "[B, H, W, C]": (logits(B, H, W, C), classes(B, H, W), lambda o: o.permute(0, 3, 1, 2)),
    "[B, C, T]": (logits(B, C, T), classes(B, T), lambda o: o),
}


@pytest.mark.parametrize("case", CASES)
def test_classification_is_that_of_torch(case: str) -> None:
    output, target, classes_at_one = CASES[case]
    expected = classes_at_one(output)
    torch.testing.assert_close(cross_entropy(output, target), F.cross_entropy(expected, target), rtol=1e-14, atol=0)
    assert output.shape[class_dim(output, target)] == C
    hits = accuracy(output, target)
    assert hits.shape == target.shape
    assert hits.dtype == torch.bool
    assert torch.equal(hits, expected.argmax(1) == target)
    by_hand = -expected.log_softmax(1).gather(1, target.unsqueeze(1)).mean()
    torch.testing.assert_close(cross_entropy(output, target), by_hand, rtol=1e-14, atol=0)


def test_a_square_of_tokens_and_classes_reads_the_last_dimension() -> None:
    """[B, T, C] with T = C could be read both ways; a sequence model's classes come last."""
    output, target = logits(B, C, C), classes(B, C)
    assert class_dim(output, target) == -1


@pytest.mark.parametrize("shape", [(B,), (B, 1), (B, C, H)])
def test_regression_is_that_of_torch(shape: tuple[int, ...]) -> None:
    output, target = logits(*shape), 2 * logits(*shape) + 1
    assert mse(output, target).item() == F.mse_loss(output, target).item()
    assert torch.equal(absolute_error(output, target), (output - target).abs())
    bits = target > 0.5
    expected = F.binary_cross_entropy_with_logits(output, bits.double()).item()
    assert binary_cross_entropy(output, bits).item() == expected
    assert mse(output, bits).item() == F.mse_loss(output, bits.double()).item()


@pytest.mark.parametrize("function", [mse, binary_cross_entropy, absolute_error])
def test_regression_broadcasts_nothing(function: Any) -> None:
    """[B, 1] against [B] would be a [B, B] table of differences."""
    with pytest.raises(
        UserError, match=rf"{function.__name__} compares item by item.*\[6, 1\].*\[6\]; they must be equal"
    ):
        function(logits(B, 1), logits(B))


@pytest.mark.parametrize("function", [cross_entropy, accuracy])
@pytest.mark.parametrize(("output", "target"), [(logits(B, C), classes(B, 1)), (logits(B), classes(B))])
def test_classification_says_which_shapes_it_wants(function: Any, output: Tensor, target: Tensor) -> None:
    with pytest.raises(UserError, match=r"one logit a class: the output has shape .*expected \[B, classes\] and \[B\]"):
        function(output, target)


def line(**changed: Any) -> Task:
    x = torch.zeros(4, 2)
    settings = {"name": "line", "model": lambda: nn.Linear(2, 1), "train": (x, x), "loss": "mse", **changed}
    return Task(**settings)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"name": ""}, "name must be a word for reports, received ''"),
        ({"name": 3}, "name must be a word"),
        ({"model": nn.Linear(2, 1)}, r"a fresh module each time.*model=lambda: Net\(\)"),
        ({"model": "resnet8"}, "model must be a function that returns a fresh nn.Module, received 'resnet8'"),
        ({"train": None}, "train must be the training data"),
        ({"loss": "msee"}, "unknown loss 'msee': did you mean 'mse'"),
        ({"loss": 3}, "loss must be a name or a function"),
        ({"metrics": "accuracy"}, r'metrics must be a tuple, such as \("accuracy",\), received \'accuracy\''),
        ({"metrics": ("acuracy",)}, "unknown metric 'acuracy': did you mean 'accuracy'"),
        ({"metrics": (accuracy,)}, "metrics must be names or talweg.Metric objects"),
        ({"normalize": "standardise"}, "unknown normalize 'standardise': did you mean 'standardize'"),
    ],
)
def test_task_refuses(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        line(**changed)
    assert "\n" not in str(caught.value)


def test_names_and_functions_say_the_same() -> None:
    own = Metric("own", lambda output, target: (output - target).square(), higher_is_better=False)
    task = line(metrics=("absolute_error", own))
    assert task.loss_function is LOSSES["mse"] is mse
    assert task.metric_functions == (METRICS["absolute_error"], own)
    assert line(loss=mse).loss_function is mse
    assert line().metric_functions == ()


def test_tables_hold_what_their_names_say() -> None:
    assert {name: function.__name__ for name, function in LOSSES.items()} == {name: name for name in LOSSES}
    assert {name: metric.name for name, metric in METRICS.items()} == {name: name for name in METRICS}
    assert METRICS["accuracy"].higher_is_better
    assert not METRICS["absolute_error"].higher_is_better
