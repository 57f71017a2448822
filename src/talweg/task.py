"""What to learn: a model, data, a loss and metrics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from talweg.data import parse_normalizer
from talweg.errors import UserError, require, unknown

# A loss takes the model's output and the target and returns one of three forms:
#   a scalar: the mean over the samples of the batch;
#   a tensor of one loss an item (sample, token, pixel): Talweg sums and counts them;
#   a pair (sum, count): for losses that leave items out (masks, padding).
Loss = Callable[[Any, Any], Tensor | tuple[Tensor, Tensor]]


def cross_entropy(output: Tensor, target: Tensor) -> Tensor:
    """Mean of −log softmax(output)[target] over all items of the batch.

    Args:
        output: logits [B, C], [B, T, C] (a sequence) or [B, C, H, W] (pixels).
        target: class numbers [B], [B, T] or [B, H, W]; or probabilities [B, C] (mixed samples, smoothed labels).

    Example:
        >>> import torch
        >>> round(float(cross_entropy(torch.zeros(4, 10), torch.tensor([3, 1, 4, 1]))), 4)   # log 10: knows nothing
        2.3026
    """
    if target.is_floating_point() and target.shape == output.shape:
        return F.cross_entropy(output, target)
    if class_dim(output, target) == -1 and target.dim() > 1:  # as rows: torch wants the classes second, but contiguous
        return F.cross_entropy(output.flatten(0, -2), target.flatten())
    return F.cross_entropy(output, target)


def mse(output: Tensor, target: Tensor) -> Tensor:
    """Mean of (output − target)² over all items; the shapes must agree, nothing is broadcast.

    Example:
        >>> import torch
        >>> float(mse(torch.tensor([[1.0], [3.0]]), torch.tensor([[0.0], [0.0]])))
        5.0
    """
    _same_shape("mse", output, target)
    return F.mse_loss(output, target.to(output.dtype))


def binary_cross_entropy(output: Tensor, target: Tensor) -> Tensor:
    """Mean of −t·log σ(o) − (1 − t)·log(1 − σ(o)) over all items; `output` holds logits.

    Example:
        >>> import torch
        >>> round(float(binary_cross_entropy(torch.zeros(2, 1), torch.tensor([[0.0], [1.0]]))), 4)   # log 2
        0.6931
    """
    _same_shape("binary_cross_entropy", output, target)
    return F.binary_cross_entropy_with_logits(output, target.to(output.dtype))


@dataclass(frozen=True)
class Metric:
    """A number people read: `function(output, target)` gives one value an item, and their mean is reported."""

    name: str
    function: Callable[[Any, Any], Tensor]
    higher_is_better: bool = True


def accuracy(output: Tensor, target: Tensor) -> Tensor:
    """1 where the largest logit is the target's, else 0; shapes as in `cross_entropy`.

    Example:
        >>> import torch
        >>> accuracy(torch.tensor([[0.1, 0.9], [0.8, 0.2]]), torch.tensor([1, 1])).tolist()
        [True, False]
    """
    return output.argmax(class_dim(output, target)) == target


def absolute_error(output: Tensor, target: Tensor) -> Tensor:
    """|output − target|, item by item."""
    _same_shape("absolute_error", output, target)
    return (output - target).abs()


LOSSES: dict[str, Loss] = {"cross_entropy": cross_entropy, "mse": mse, "binary_cross_entropy": binary_cross_entropy}
METRICS: dict[str, Metric] = {
    "accuracy": Metric("accuracy", accuracy),
    "absolute_error": Metric("absolute_error", absolute_error, higher_is_better=False),
}


@dataclass(frozen=True, kw_only=True)
class Task:
    """What to learn: a model factory, data, loss and metrics. It never says how or where.

    Args:
        name: what reports call it.
        model: makes a fresh `nn.Module`, called without arguments.
        train: training data: a pair (x, y) of tensors or arrays, `talweg.data.Arrays`, or any map-style `Dataset`.
        validation: data of the same form that chooses the best weights; without it the last weights are kept.
        test: data of the same form, looked at by `evaluate` only.
        loss: a name in `LOSSES`, or a function (output, target) → scalar mean, one loss an item, or (sum, count).
        metrics: names in `METRICS`, or `Metric` objects; the first one chooses the best weights (none: the loss does).
        normalize: "standardize" (mean 0, variance 1), "mean_pixel", "mean_image", "pca", "pca_whitening", "zca", all
            fitted on the training data; or "scale" (uint8 becomes x / 255, floats are taken as they are). Token numbers
            are never touched.

    Raises:
        UserError: an unknown name, or something that is not what it must be.

    Example:
        >>> import torch
        >>> x = torch.randn(100, 3)
        >>> line = Task(name="line", model=lambda: nn.Linear(3, 1), train=(x, x.sum(1, keepdim=True)), loss="mse")
        >>> line.loss_function(torch.ones(2, 1), torch.zeros(2, 1)).item()
        1.0
    """

    name: str
    model: Callable[[], nn.Module]
    train: Any
    validation: Any = None
    test: Any = None
    loss: str | Loss = "cross_entropy"
    metrics: tuple[str | Metric, ...] = ()
    normalize: str = "standardize"

    def __post_init__(self) -> None:
        require(isinstance(self.name, str) and bool(self.name), "name", self.name, "a word for reports")
        if isinstance(self.model, nn.Module):
            raise UserError(
                "model must make a fresh module each time it is called: pass the class or a function "
                "(model=lambda: Net()), not a module"
            )
        require(callable(self.model), "model", self.model, "a function that returns a fresh nn.Module")
        require(self.train is not None, "train", self.train, "the training data")
        if isinstance(self.loss, str) and self.loss not in LOSSES:
            raise unknown("loss", self.loss, LOSSES)
        require(isinstance(self.loss, str) or callable(self.loss), "loss", self.loss, "a name or a function")
        require(isinstance(self.metrics, tuple), "metrics", self.metrics, 'a tuple, such as ("accuracy",)')
        for metric in self.metrics:
            if isinstance(metric, str) and metric not in METRICS:
                raise unknown("metric", metric, METRICS)
            require(isinstance(metric, str | Metric), "metrics", metric, "names or talweg.Metric objects")
        parse_normalizer(self.normalize)

    @property
    def loss_function(self) -> Loss:
        """The loss as a function."""
        return LOSSES[self.loss] if isinstance(self.loss, str) else self.loss

    @property
    def metric_functions(self) -> tuple[Metric, ...]:
        """The metrics as objects."""
        return tuple(METRICS[m] if isinstance(m, str) else m for m in self.metrics)


def class_dim(output: Tensor, target: Tensor) -> int:
    """The dimension of the logits that counts the classes: the last for sequences [B, T, C], else the second.

    Raises:
        UserError: the shapes do not go together.
    """
    if output.dim() != target.dim() + 1:
        raise UserError(
            f"class numbers need one logit a class: the output has shape {list(output.shape)}, "
            f"the target {list(target.shape)}; expected [B, classes] and [B]"
        )
    return -1 if output.shape[:-1] == target.shape else 1


def _same_shape(name: str, output: Tensor, target: Tensor) -> None:
    if output.shape != target.shape:
        raise UserError(
            f"{name} compares item by item: the output has shape {list(output.shape)}, "
            f"the target {list(target.shape)}; they must be equal"
        )
