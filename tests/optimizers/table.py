"""The table of the contract test: one row for each rule (and form of it), with its oracle and what it must reach."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import oracles
import torch
from oracles import Oracle, decoupled, l2, torch_optim
from torch import Tensor

from talweg.optimizers import (
    GD,
    LAMB,
    LARS,
    SGD,
    SGDW,
    Adadelta,
    Adagrad,
    Adam,
    AdamW,
    Lion,
    RMSprop,
    Rprop,
    Rule,
)


class Row(NamedTuple):
    """A rule, its oracle, its first step from w along g (no decay, no trust ratio), and settings that descend."""

    rule: Rule
    oracle: Oracle
    first: Callable[[Tensor, Tensor], Tensor]
    valley: tuple[float, int, float]
    """quadratic with curvatures 1 to 10: lr, updates, bound on J (1000 at the start)"""
    banana: tuple[float, int, float]
    """Rosenbrock's function from (−1.2, 1): lr, updates, bound on J (24.2 at the start)"""


def _sgd(**settings: object) -> Oracle:
    return torch_optim(torch.optim.SGD, lr=0.1, **settings)


ROWS = {
    "gd": Row(GD(lr=0.1, weight_decay=0.1), _sgd(), lambda w, g: w - 0.1 * g, (0.1, 300, 1e-12), (1e-3, 5000, 0.05)),
    "gd decoupled": Row(
        GD(lr=0.1, weight_decay=0.1, decay="decoupled"),
        decoupled(0.1, _sgd()),
        lambda w, g: w - 0.1 * g,
        (0.1, 300, 1e-12),
        (1e-3, 5000, 0.05),
    ),
    "sgd": Row(
        SGD(lr=0.1, weight_decay=0.1),
        _sgd(momentum=0.9),
        lambda w, g: w - 0.1 * g,
        (0.05, 400, 1e-12),
        (3e-4, 3000, 1e-2),
    ),
    "sgd plain": Row(
        SGD(lr=0.1, momentum=0.0, weight_decay=0.1),
        _sgd(),
        lambda w, g: w - 0.1 * g,
        (0.1, 300, 1e-12),
        (1e-3, 5000, 0.05),
    ),
    "sgd nesterov": Row(
        SGD(lr=0.1, nesterov=True, weight_decay=0.1),
        _sgd(momentum=0.9, nesterov=True),
        lambda w, g: w - 0.19 * g,
        (0.05, 400, 1e-12),
        (3e-4, 3000, 1e-2),
    ),
    "sgd exponential": Row(
        SGD(lr=0.1, form="exponential", weight_decay=0.1),
        l2(oracles.momentum(0.1, 0.9, exponential=True, nesterov=False)),
        lambda w, g: w - 0.01 * g,
        (0.5, 400, 1e-12),
        (3e-3, 3000, 1e-2),
    ),
    "sgd exponential nesterov": Row(
        SGD(lr=0.1, form="exponential", nesterov=True, weight_decay=0.1),
        l2(oracles.momentum(0.1, 0.9, exponential=True, nesterov=True)),
        lambda w, g: w - 0.019 * g,
        (0.5, 400, 1e-12),
        (3e-3, 3000, 1e-2),
    ),
    "sgdw": Row(
        SGDW(lr=0.1, weight_decay=0.1),
        decoupled(0.1, _sgd(momentum=0.9)),
        lambda w, g: w - 0.1 * g,
        (0.05, 400, 1e-12),
        (3e-4, 3000, 1e-2),
    ),
    "rprop": Row(
        Rprop(lr=0.1, weight_decay=0.1),
        l2(lambda *a: torch_optim_plain(torch.optim.Rprop, lr=0.1)(*a)),
        lambda w, g: w - 0.1 * g.sign(),
        (0.1, 100, 1e-6),
        (0.1, 500, 1e-2),
    ),
}
