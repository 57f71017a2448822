"""Evaluation: every sample counts once, sums are divided at the end."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from talweg.engine import OneDevice, explained, loss_sums
from talweg.errors import UserError
from talweg.task import Metric


def evaluate_module(
    module: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    engine: OneDevice,
    metrics: tuple[Metric, ...],
) -> dict[str, float]:
    """Mean loss and metrics of a module in evaluation mode.

    Formula: Σ over all items / number of items, for the loss and for each metric; the sums stay on the device (in
    float64 where the device has it) and are fetched once.

    Returns:
        {"loss": ..., metric name: ...}

    Raises:
        UserError: there is no sample, or a metric does not return one value an item.
    """
    was_training = module.training
    module.eval()
    totals: list[Tensor] = []
    counts: list[Tensor | int] = []
    try:
        with torch.no_grad(), engine.autocast():
            for x, y in batches:
                try:
                    output = module(x)
                    pairs = [loss_sums(engine.loss(output, y), x.shape[0])]
                except Exception as error:
                    raise explained(error, x) from error
                pairs += [metric_sums(metric, output, y, x) for metric in metrics]
                wide = torch.float32 if x.device.type == "mps" else torch.float64
                totals.append(torch.stack([s.detach().to(wide) for s, _ in pairs]))
                counts = [n for _, n in pairs] if not counts else [a + b[1] for a, b in zip(counts, pairs, strict=True)]
    finally:
        module.train(was_training)
    if not totals:
        raise UserError("there is no sample to evaluate")
    sums = torch.stack(totals).sum(0).tolist()
    names = ["loss", *(metric.name for metric in metrics)]
    return {name: value / float(count) for name, value, count in zip(names, sums, counts, strict=True)}


def metric_sums(metric: Metric, output: Any, target: Tensor, x: Tensor) -> tuple[Tensor, int]:
    """(Σ values, their number) of a metric on one batch.

    Raises:
        UserError: the metric fails, or does not return one value an item.
    """
    try:
        values = metric.function(output, target)
    except Exception as error:
        raise explained(error, x, f"metric {metric.name!r}") from error
    if not isinstance(values, Tensor) or values.dim() == 0:
        kind = "a mean" if isinstance(values, Tensor) else type(values).__name__
        raise UserError(
            f"metric {metric.name!r} must return one value an item, a tensor [B] or [B, ...], not {kind}: Talweg "
            "takes the mean over all samples"
        )
    return values.sum(), values.numel()
