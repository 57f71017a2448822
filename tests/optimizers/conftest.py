"""The table of the rules' contract test: one row a rule (and form of it), with its oracle and what it must reach.

An oracle is the rule again, one parameter at a time, by torch.optim or straight from the paper's equations: a function
(p, g, memory, t, weight_decay, adapted) that returns the new p and keeps what it likes in the dict `memory`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from talweg.optimizers import GD, LAMB, LARS, SGD, SGDW, Adadelta, Adagrad, Adam, AdamW, Lion, RMSprop, Rprop, Rule

Oracle = Callable[[Tensor, Tensor, dict[str, Any], int, float, bool], Tensor]


def torch_optim(cls: Any, *, l2: bool = False, **settings: Any) -> Oracle:
    """torch's own optimizer, with its own weight decay, or with λ·p added to the gradient where it has none."""

    def oracle(p: Tensor, g: Tensor, memory: dict[str, Any], t: int, wd: float, adapted: bool) -> Tensor:
        if not memory:
            decay = {} if l2 else {"weight_decay": wd}
            memory["p"] = nn.Parameter(p.clone())
            memory["optimizer"] = cls([memory["p"]], foreach=False, **settings, **decay)
        memory["p"].data.copy_(p)
        memory["p"].grad = g + wd * p if l2 else g.clone()
        memory["optimizer"].step()
        return memory["p"].detach().clone()

    return oracle


def decoupled(lr: float, oracle: Oracle) -> Oracle:
    """Loshchilov and Hutter 2019: the decay apart from an oracle that never sees it."""
    return lambda p, g, memory, t, wd, adapted: oracle(p - lr * wd * p, g, memory, t, 0.0, adapted)


def exponential(*, nesterov: bool) -> Oracle:
    """Δθ ← mΔθ + (1 − m)∇J from Δθ = 0, lr 0.1, m = 0.9."""

    def oracle(p: Tensor, g: Tensor, memory: dict[str, Any], t: int, wd: float, adapted: bool) -> Tensor:
        push = (1 - 0.9) * (g + wd * p)
        v = memory["v"] = 0.9 * memory.get("v", 0.0) + push
        return p - 0.1 * (0.9 * v + push if nesterov else v)

    return oracle


def rprop_1993(p: Tensor, g: Tensor, memory: dict[str, Any], t: int, wd: float, adapted: bool) -> Tensor:
    """Riedmiller and Braun 1993, one number at a time, with weight backtracking; lr 0.1."""
    kept, size, last = (
        memory.setdefault(name, [start] * p.numel()) for name, start in (("g", 0.0), ("d", 0.1), ("u", 0.0))
    )
    for i, slope in enumerate((g + wd * p).flatten().tolist()):
        if kept[i] * slope < 0:
            size[i], last[i], kept[i] = max(size[i] * 0.5, 1e-6), -last[i], 0.0
        else:
            size[i] = min(size[i] * 1.2, 50.0) if kept[i] * slope > 0 else size[i]
            last[i], kept[i] = -size[i] * ((slope > 0) - (slope < 0)), slope
    return p + torch.tensor(last, dtype=p.dtype).view(p.shape)


def lars_2017(m: float) -> Oracle:
    """You et al. 2017, algorithm 1, the learning rate outside of the velocity; lr 2, coefficient 0.02."""

    def oracle(p: Tensor, g: Tensor, memory: dict[str, Any], t: int, wd: float, adapted: bool) -> Tensor:
        local = 0.02 * p.norm() / (g.norm() + wd * p.norm()) if adapted else 1.0
        v = memory["v"] = m * memory.get("v", 0.0) + local * (g + wd * p)
        return p - 2.0 * v

    return oracle


def lamb_2020(p: Tensor, g: Tensor, memory: dict[str, Any], t: int, wd: float, adapted: bool) -> Tensor:
    """You et al. 2020, algorithm 2 with φ the identity; lr 0.1, ε 1e-6."""
    m = memory["m"] = 0.9 * memory.get("m", 0.0) + (1 - 0.9) * g
    v = memory["v"] = 0.999 * memory.get("v", 0.0) + (1 - 0.999) * g**2
    u = m / (1 - 0.9**t) / (torch.sqrt(v / (1 - 0.999**t)) + 1e-6) + wd * p
    return p - 0.1 * (p.norm() / u.norm() if adapted else 1.0) * u


def lion_2023(*, l2: bool) -> Oracle:
    """Chen et al. 2023, algorithm 2; lr 0.1."""

    def oracle(p: Tensor, g: Tensor, memory: dict[str, Any], t: int, wd: float, adapted: bool) -> Tensor:
        g, wd = (g + wd * p, 0.0) if l2 else (g, wd)
        m = memory.get("m", torch.zeros_like(p))
        memory["m"] = 0.99 * m + (1 - 0.99) * g
        return p - 0.1 * (torch.sign(0.9 * m + (1 - 0.9) * g) + wd * p)

    return oracle


class Row(NamedTuple):
    rule: Rule
    oracle: Oracle
    first: Callable[[Tensor], Tensor]  # the first step along g, without decay and trust ratio
    valley: tuple[float, float]  # quadratic with curvatures 1 … 10, J = 1655 at the start: lr, J after 300 updates
    banana: tuple[float, float]  # Rosenbrock's function, J = 24.2 at the start: lr, J after 3000 updates


S, O = torch.sign, torch.optim  # noqa: E741
ROWS = {
    "gd": Row(GD(lr=0.1), torch_optim(O.SGD, lr=0.1), lambda g: 0.1 * g, (0.15, 1e-15), (1e-3, 0.2)),
    "gd decoupled": Row(
        GD(lr=0.1, decay="decoupled"),
        decoupled(0.1, torch_optim(O.SGD, lr=0.1)),
        lambda g: 0.1 * g,
        (0.15, 1e-15),
        (1e-3, 0.2),
    ),
    "sgd": Row(SGD(lr=0.1), torch_optim(O.SGD, lr=0.1, momentum=0.9), lambda g: 0.1 * g, (0.05, 1e-10), (1e-3, 1e-5)),
    "sgd plain": Row(
        SGD(lr=0.1, momentum=0), torch_optim(O.SGD, lr=0.1), lambda g: 0.1 * g, (0.15, 1e-15), (1e-3, 0.2)
    ),
    "sgd nesterov": Row(
        SGD(lr=0.1, nesterov=True),
        torch_optim(O.SGD, lr=0.1, momentum=0.9, nesterov=True),
        lambda g: 0.19 * g,
        (0.05, 1e-13),
        (1e-3, 1e-5),
    ),
    "sgd exponential": Row(
        SGD(lr=0.1, form="exponential"), exponential(nesterov=False), lambda g: 0.01 * g, (0.5, 1e-10), (1e-2, 1e-5)
    ),
    "sgd exponential nesterov": Row(
        SGD(lr=0.1, form="exponential", nesterov=True),
        exponential(nesterov=True),
        lambda g: 0.019 * g,
        (0.5, 1e-13),
        (1e-2, 1e-5),
    ),
    "sgdw": Row(
        SGDW(lr=0.1),
        decoupled(0.1, torch_optim(O.SGD, lr=0.1, momentum=0.9)),
        lambda g: 0.1 * g,
        (0.05, 1e-10),
        (1e-3, 1e-5),
    ),
    "rprop": Row(Rprop(lr=0.1), torch_optim(O.Rprop, l2=True, lr=0.1), lambda g: 0.1 * S(g), (0.1, 1e-12), (0.1, 1e-4)),
    "rprop+": Row(Rprop(lr=0.1, variant="rprop+"), rprop_1993, lambda g: 0.1 * S(g), (0.1, 1e-12), (0.1, 1e-2)),
    "adagrad": Row(
        Adagrad(lr=0.1),
        torch_optim(O.Adagrad, lr=0.1),
        lambda g: 0.1 * g / (g.abs() + 1e-10),
        (3.0, 1e-20),
        (1.0, 0.05),
    ),
    "adagrad decoupled": Row(
        Adagrad(lr=0.1, decay="decoupled"),
        decoupled(0.1, torch_optim(O.Adagrad, lr=0.1)),
        lambda g: 0.1 * g / (g.abs() + 1e-10),
        (3.0, 1e-20),
        (1.0, 0.05),
    ),
    "adadelta": Row(
        Adadelta(eps=1e-3),
        torch_optim(O.Adadelta, eps=1e-3),
        lambda g: g * torch.sqrt(1e-3 / (0.1 * g**2 + 1e-3)),
        (10.0, 1e-20),
        (1.0, 0.2),
    ),
    "rmsprop": Row(
        RMSprop(lr=0.1),
        torch_optim(O.RMSprop, lr=0.1),
        lambda g: 0.1 * g / (0.1 * g.abs() + 1e-8),
        (1.0, 1e-20),
        (0.01, 1e-3),
    ),
    "rmsprop decoupled": Row(
        RMSprop(lr=0.1, decay="decoupled"),
        decoupled(0.1, torch_optim(O.RMSprop, lr=0.1)),
        lambda g: 0.1 * g / (0.1 * g.abs() + 1e-8),
        (1.0, 1e-20),
        (0.01, 1e-3),
    ),
    "adam": Row(
        Adam(lr=0.1), torch_optim(O.Adam, lr=0.1), lambda g: 0.1 * g / (g.abs() + 1e-8), (1.0, 1e-9), (0.1, 1e-9)
    ),
    "adamw": Row(
        AdamW(lr=0.1), torch_optim(O.AdamW, lr=0.1), lambda g: 0.1 * g / (g.abs() + 1e-8), (1.0, 1e-9), (0.1, 1e-9)
    ),
    "lars": Row(LARS(lr=2.0, trust_coefficient=0.02), lars_2017(0.9), lambda g: 2.0 * g, (1.5, 1e-5), (0.5, 1e-4)),
    "lars plain": Row(
        LARS(lr=2.0, trust_coefficient=0.02, momentum=0, adapt_all=True),
        lars_2017(0.0),
        lambda g: 2.0 * g,
        (2.0, 1e-2),
        (1.0, 0.1),
    ),
    "lamb": Row(LAMB(lr=0.1), lamb_2020, lambda g: 0.1 * g / (g.abs() + 1e-6), (0.1, 1e-3), (0.03, 1e-4)),
    "lamb adapt_all": Row(
        LAMB(lr=0.1, adapt_all=True), lamb_2020, lambda g: 0.1 * g / (g.abs() + 1e-6), (0.1, 1e-3), (0.03, 1e-4)
    ),
    "lion": Row(Lion(lr=0.1), lion_2023(l2=False), lambda g: 0.1 * S(g), (0.3, 1e-3), (0.01, 1e-4)),
    "lion l2": Row(Lion(lr=0.1, decay="l2"), lion_2023(l2=True), lambda g: 0.1 * S(g), (0.3, 1e-3), (0.01, 1e-4)),
}
ROWS = {name: row._replace(rule=replace(row.rule, weight_decay=0.1)) for name, row in ROWS.items()}


@pytest.fixture(params=ROWS)
def row(request: pytest.FixtureRequest) -> Row:
    """Each row in turn."""
    return ROWS[request.param]


@pytest.fixture
def rows() -> dict[str, Row]:
    """All rows."""
    return ROWS
