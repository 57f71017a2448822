"""The rules beside other libraries' implementations, where these happen to be installed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from talweg.optimizers import LAMB, LARS, Lion, TorchOptimizer


def _lars(params: Any) -> torch.optim.Optimizer:
    library = pytest.importorskip("pytorch_optimizer")
    return library.LARS(params, lr=0.5, momentum=0.9, weight_decay=0.1, trust_coefficient=0.02)


def _lion(params: Any) -> torch.optim.Optimizer:
    return pytest.importorskip("pytorch_optimizer").Lion(params, lr=0.1, betas=(0.9, 0.99), weight_decay=0.1)


def _lamb(params: Any) -> torch.optim.Optimizer:
    try:
        from timm.optim import Lamb
    except (ImportError, RuntimeError) as error:  # timm needs a torchvision that fits torch
        pytest.skip(f"no timm: {error}")
    return Lamb(params, lr=0.1, eps=1e-6, weight_decay=0.1, max_grad_norm=None, always_adapt=True)


@pytest.mark.parametrize(
    ("rule", "peer"),
    [
        (LARS(lr=0.5, weight_decay=0.1, trust_coefficient=0.02), _lars),
        (LAMB(lr=0.1, weight_decay=0.1, adapt_all=True), _lamb),
        (Lion(lr=0.1, weight_decay=0.1), _lion),
    ],
)
def test_equals_the_other_library(rule: Any, peer: Any) -> None:
    random = torch.Generator().manual_seed(0)
    start = [torch.randn(shape, generator=random, dtype=torch.float64) for shape in ((8, 6), (8,), (5, 8), (5,))]
    ours, theirs = ([nn.Parameter(p.clone()) for p in start] for _ in range(2))
    for params, make in ((theirs, peer), (ours, lambda groups: TorchOptimizer(groups, rule))):
        optimizer = make([{"params": params[::2]}, {"params": params[1::2], "weight_decay": 0.0}])
        for t in range(1, 11):
            for i, p in enumerate(params):
                p.grad = (torch.sin(3 * p + i + 0.1 * t) + 0.3 * p).detach()
            optimizer.step()
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=1e-12)
