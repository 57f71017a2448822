"""The contract that every update rule keeps; the table of rules, oracles and bounds stands in `conftest.py`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from talweg.optimizers import RULES, Rule, Update
from talweg.theta import Theta


def layout(
    dtype: torch.dtype = torch.float64, *shapes: tuple[int, ...], scale: dict[str, float] | None = None
) -> Theta:
    """A few parameters with gaps between them, two of them not decayed."""
    random = torch.Generator().manual_seed(1)
    named = {f"p{i}": torch.randn(s, generator=random) for i, s in enumerate(shapes or ((8, 6), (8,), (5, 8), (5,)))}
    pairs = [(name, nn.Parameter(p.to(dtype))) for name, p in named.items()]
    return Theta(pairs, lr_scale=lambda name, p: (scale or {}).get(name, 1.0))


def slopes(theta: Theta, t: int) -> None:
    """A gradient that is a deterministic, non-quadratic function of the parameters."""
    for i, (value, grad) in enumerate(
        zip(theta.split(theta.value).values(), theta.split(theta.grad).values(), strict=True)
    ):
        grad.copy_(torch.sin(3 * value + i + 0.1 * t) + 0.3 * value)


class Formula:
    """The driver without fast paths: `rule.step`, group by group."""

    def __init__(self, theta: Theta, rule: Rule) -> None:
        self.theta, self.rule, self.vectors = theta, rule, rule.init(theta.value)

    def __call__(self, t: int, factor: float = 1.0, skip: Tensor | None = None) -> None:
        for group in self.theta.groups:
            cut = slice(group.start, group.stop)
            spans = tuple((a - group.start, b - group.start) for a, b in group.spans)
            self.rule.step(
                self.theta.value[cut],
                self.theta.grad[cut],
                {name: v[cut] for name, v in self.vectors.items()},
                self.rule.lr * factor * group.lr_scale,
                t,
                self.rule.weight_decay if group.decay else 0.0,
                spans if self.rule.adapts(group.decay) else (),
                skip,
            )


def descend(rule: Rule, w: Tensor, slope: Callable[[Tensor], Tensor], updates: int) -> Tensor:
    """`updates` updates without weight decay, the learning rate falling linearly to 0."""
    state, spans = rule.init(w), ((0, len(w)),) if rule.adapts(True) else ()
    step = rule.bind(w, g := torch.zeros_like(w), state, 0.0, spans)
    for t in range(updates):
        g.copy_(slope(w))
        step(rule.lr * (1 - t / updates), t + 1, None)
    return w


@pytest.mark.parametrize("driver", [Update, Formula])
def test_agrees_with_the_oracle(row: Any, driver: Any) -> None:
    theta = layout()
    update = driver(theta, row.rule)
    expected = {name: p.clone() for name, p in theta.split(theta.value).items()}
    memories: dict[str, dict[str, Any]] = {name: {} for name in expected}
    for t in range(1, 11):
        slopes(theta, t)
        before = theta.grad.clone()
        for s in theta.segments:
            wd = row.rule.weight_decay if s.decay else 0.0
            g = theta.split(theta.grad)[s.name].clone()
            expected[s.name] = row.oracle(expected[s.name], g, memories[s.name], t, wd, row.rule.adapts(s.decay))
        update(t)
        assert torch.equal(theta.grad, before)
    for name, p in theta.split(theta.value).items():
        torch.testing.assert_close(p, expected[name], rtol=0, atol=1e-12)


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
def test_fast_path_equals_the_formula(row: Any, dtype: torch.dtype, bound: float) -> None:
    shapes = ((900, 700), (300,), (40, 30), (7, 5, 3), (20,))  # the first is longer than two blocks
    fast, plain = layout(dtype, *shapes), layout(dtype, *shapes)
    update, formula = Update(fast, row.rule), Formula(plain, row.rule)
    for t in (1, 2, 3):
        slopes(fast, t)
        plain.grad.copy_(fast.grad)  # the same gradients: a sign that rounding flips is not the fast path's doing
        update(t)
        formula(t)
    for ours, reference in [
        (fast.value, plain.value),
        *zip(update.vectors.values(), formula.vectors.values(), strict=True),
    ]:
        assert (ours - reference).norm() <= bound * reference.norm()


def test_first_step_has_its_closed_form(row: Any) -> None:
    w, g = torch.linspace(-1, 1, 7).double(), torch.logspace(-3, 3, 7).double() * torch.tensor([1, -1, 1, -1, 1, -1, 1])
    moved = w.clone()
    row.rule.step(moved, g, row.rule.init(w), row.rule.lr, 1, weight_decay=0.0)
    torch.testing.assert_close(w - moved, row.first(g), rtol=1e-9, atol=1e-12)


def test_descends_a_quadratic(row: Any) -> None:
    lr, bound = row.valley
    curvature = torch.logspace(0, 1, 8, dtype=torch.float64)
    w = descend(replace(row.rule, lr=lr), torch.full((8,), 11.0).double(), lambda w: curvature * (w - 1), 300)
    assert (curvature * (w - 1) ** 2).sum() / 2 < bound


def test_descends_rosenbrocks_function(row: Any) -> None:
    def slope(w: Tensor) -> Tensor:
        x, y = w.tolist()
        return torch.tensor([-400 * x * (y - x * x) - 2 * (1 - x), 200 * (y - x * x)], dtype=torch.float64)

    lr, bound = row.banana
    x, y = descend(replace(row.rule, lr=lr), torch.tensor([-1.2, 1.0]).double(), slope, 3000).tolist()
    assert 100 * (y - x * x) ** 2 + (1 - x) ** 2 < bound


def test_state_goes_round_bit_for_bit(row: Any) -> None:
    theta = layout(torch.float32)
    update = Update(theta, row.rule)
    for t in range(1, 6):
        slopes(theta, t)
        update(t)
    saved = [v.clone() for v in (theta.value, *update.vectors.values())]
    other = layout(torch.float32)
    resumed = Update(other, row.rule)
    for own, old in zip((other.value, *resumed.vectors.values()), saved, strict=True):
        own.copy_(old)
    for t in range(6, 11):
        slopes(theta, t)
        update(t)
        slopes(other, t)
        resumed(t)
    assert torch.equal(theta.value, other.value)
    assert all(torch.equal(update.vectors[name], resumed.vectors[name]) for name in update.vectors)


def test_decay_and_multiplier_go_by_group_and_gaps_stay_zero(row: Any) -> None:
    theta = layout(scale={"p0": 0.0, "p3": 0.5})
    update = Update(theta, replace(row.rule, weight_decay=0.0))
    before = {name: p.clone() for name, p in theta.split(theta.value).items()}
    slopes(theta, 1)
    update(1)
    same = layout()
    slopes(same, 1)
    Update(same, replace(row.rule, weight_decay=0.0))(1)
    for name, part in {"p0": 0.0, "p1": 1.0, "p2": 1.0, "p3": 0.5}.items():
        torch.testing.assert_close(
            theta[name] - before[name], part * (same[name] - before[name]), rtol=1e-9, atol=1e-12
        )

    theta = layout()
    before = {name: p.clone() for name, p in theta.split(theta.value).items()}
    update = Update(theta, row.rule)
    for t in (1, 2, 3):  # no gradient: weight decay alone
        update(t)
    assert all(torch.equal(theta[s.name], before[s.name]) != s.decay for s in theta.segments)
    gaps = torch.ones_like(theta.value, dtype=torch.bool)
    for s in theta.segments:
        gaps[s.start : s.stop] = False
    assert gaps.any()
    assert not theta.value[gaps].any()


def test_population_equals_its_members(row: Any) -> None:
    members, n = 3, 24
    random = torch.Generator().manual_seed(2)
    w = torch.randn(members, n, generator=random, dtype=torch.float64)
    factor = torch.tensor([[1.0], [0.5], [0.9]], dtype=torch.float64)
    varied = [
        f.name
        for f in fields(row.rule)
        if f.name in ("momentum", "beta1", "alpha", "rho") and getattr(row.rule, f.name)
    ]
    many = replace(row.rule, **{name: getattr(row.rule, name) * factor for name in ("lr", "weight_decay", *varied)})
    spans = ((0, 10), (10, 23)) if row.rule.adapts(True) else ()
    state, whole = many.init(w), w.clone()
    gradients = [torch.randn(members, n, generator=random, dtype=torch.float64) for _ in range(3)]
    bound = many.bind(whole, g := torch.zeros_like(w), state, many.weight_decay, spans)
    for t, new in enumerate(gradients, 1):
        g.copy_(new)
        bound(many.lr, t, None)
    for k in range(members):
        one = replace(row.rule, **{s: getattr(many, s)[k].item() for s in ("lr", "weight_decay", *varied)})
        single, own = w[k].clone(), one.init(w[k])
        for t, new in enumerate(gradients, 1):
            one.step(single, new[k], own, one.lr, t, one.weight_decay, spans)
        torch.testing.assert_close(whole[k], single, rtol=0, atol=1e-12)


@pytest.mark.parametrize("driver", [Update, Formula])
def test_skip_leaves_everything_as_it_is(row: Any, driver: Any) -> None:
    theta = layout(torch.float32)
    update = driver(theta, row.rule)
    slopes(theta, 1)
    update(1)
    before = [v.clone() for v in (theta.value, *update.vectors.values())]
    theta.grad.fill_(math.nan)
    update(2, skip=torch.ones(()))
    assert all(torch.equal(v, old) for v, old in zip((theta.value, *update.vectors.values()), before, strict=True))
    theta.grad.fill_(0.5)
    update(2, skip=torch.zeros(()))
    assert not torch.equal(theta.value, before[0])


def test_every_rule_of_the_registry_has_a_row(rows: dict[str, Any]) -> None:
    assert {type(row.rule) for row in rows.values()} == set(RULES.values())
