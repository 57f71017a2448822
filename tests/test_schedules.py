"""One table for all schedules: every row must keep the family's contract."""

from __future__ import annotations

import inspect
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch.optim import lr_scheduler

from talweg.errors import UserError
from talweg.schedules import SCHEDULES, Schedule

N = 210  # updates in a training; divisible by 2, 3, 5 and 7, so that jumps fall on updates
GRID = [k / N for k in range(N + 1)]
Oracle = Callable[[torch.optim.Optimizer], lr_scheduler.LRScheduler]


@dataclass(frozen=True)
class Row:
    """A schedule, where it ends, whether it only falls, and torch's schedule for the same curve over N updates."""

    name: str
    settings: dict[str, object]
    end: float
    falls: bool = True
    oracle: Oracle | None = None


TABLE = [
    Row("constant", {}, 1.0, oracle=lambda o: lr_scheduler.ConstantLR(o, factor=1.0)),
    Row("time-based", {"rate": 9.0}, 0.1, oracle=lambda o: lr_scheduler.LambdaLR(o, lambda k: 1 / (1 + 9 * k / N))),
    Row("step", {"drops": 2}, 0.01, oracle=lambda o: lr_scheduler.StepLR(o, N // 3, gamma=0.1)),
    Row("step", {"drops": 6, "gamma": 0.5}, 2**-6, oracle=lambda o: lr_scheduler.StepLR(o, N // 7, gamma=0.5)),
    Row(
        "multistep",
        {"milestones": (0.3, 0.6, 0.9), "gamma": 0.2},
        0.008,
        oracle=lambda o: lr_scheduler.MultiStepLR(o, [63, 126, 189], gamma=0.2),
    ),
    Row("exponential", {}, 0.01, oracle=lambda o: lr_scheduler.ExponentialLR(o, gamma=0.01 ** (1 / N))),
    Row("cosine", {}, 0.0, oracle=lambda o: lr_scheduler.CosineAnnealingLR(o, N)),
    Row("cosine", {"end": 0.1}, 0.1, oracle=lambda o: lr_scheduler.CosineAnnealingLR(o, N, eta_min=0.1)),
    Row(
        "cosine-restarts",
        {"cycles": 3, "t_mult": 2},
        0.0,
        falls=False,
        oracle=lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, N // 7, T_mult=2),
    ),
    Row(
        "cosine-restarts",
        {"cycles": 5, "t_mult": 1, "end": 0.05},
        0.05,
        falls=False,
        oracle=lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, N // 5, eta_min=0.05),
    ),
    Row("linear", {}, 0.0, oracle=lambda o: lr_scheduler.LinearLR(o, 1.0, 0.0, total_iters=N)),
    Row("linear", {"end": 0.2}, 0.2, oracle=lambda o: lr_scheduler.LinearLR(o, 1.0, 0.2, total_iters=N)),
    Row("inverse-sqrt", {"warmup": 0.1}, math.sqrt(0.1)),
    Row("polynomial", {"power": 2.0}, 0.0, oracle=lambda o: lr_scheduler.PolynomialLR(o, N, power=2.0)),
    Row("polynomial", {"power": 0.9}, 0.0, oracle=lambda o: lr_scheduler.PolynomialLR(o, N, power=0.9)),
    Row("one-cycle", {}, 4e-6),
    Row("wsd", {"cooldown": 0.2, "cooldown_shape": "linear"}, 0.0),
    Row("wsd", {"cooldown": 0.1, "cooldown_shape": "sqrt"}, 0.0),
    Row("wsd", {"cooldown": 1.0, "cooldown_shape": "cosine", "end": 0.1}, 0.1),
]
ON_THE_WHOLE = (
    "inverse-sqrt",
    "multistep",
    "wsd",
)  # curves with times of the whole training
WARMUPS = [0.0, 0.05, 0.3]


def make(row: Row, **settings: object) -> Schedule:
    return SCHEDULES[row.name](**{**row.settings, **settings})


def with_warmup(row: Row, warmup: float, shape: str = "linear", start: float = 0.02) -> Schedule:
    """The row with a warm-up; with room for it in a decay that takes the whole training."""
    fitted = {"cooldown": 1.0 - warmup} if row.name == "wsd" and row.settings["cooldown"] == 1.0 else {}
    return make(row, warmup=warmup, warmup_shape=shape, warmup_start=start, **fitted)


def label(row: object) -> str | None:
    return " ".join([row.name, *map(str, row.settings.values())]) if isinstance(row, Row) else None


each_row = pytest.mark.parametrize("row", TABLE, ids=label)
each_warmup = pytest.mark.parametrize("warmup", [0.05, 0.1, 1 / 7, 0.25])


def test_every_schedule_has_a_row() -> None:
    assert {row.name for row in TABLE} == set(SCHEDULES)


@each_row
def test_values_are_in_0_1_and_reach_1(row: Row) -> None:
    values = [make(row)(p) for p in GRID]
    assert all(type(value) is float for value in values)
    assert min(values) >= 0.0
    assert max(values) == 1.0


@each_row
def test_pure_in_any_order_and_no_state(row: Row) -> None:
    schedule, again = make(row), make(row)
    there = [schedule(p) for p in GRID]
    back = [schedule(p) for p in reversed(GRID)]
    assert there == back[::-1] == [again(p) for p in GRID]
    assert schedule == again
    assert hash(schedule) == hash(again)


@each_row
def test_end_is_the_documented_one(row: Row) -> None:
    assert make(row)(1.0) == pytest.approx(row.end, rel=1e-14, abs=0.0)


@each_row
@pytest.mark.parametrize("progress", [-1e-9, 1.0 + 1e-9, 3, float("nan"), float("inf")])
def test_progress_outside_the_training_is_an_error(row: Row, progress: float) -> None:
    with pytest.raises(UserError, match="progress must be the fraction"):
        make(row)(progress)


@each_row
def test_falls_where_promised(row: Row) -> None:
    schedule = make(row)
    main = [schedule(p) for p in GRID if p >= schedule.warmup]
    falls = all(a >= b for a, b in itertools.pairwise(main))
    assert falls == row.falls


@each_row
@each_warmup
@pytest.mark.parametrize("shape", ["linear", "cosine"])
def test_warmup_rises_from_its_start_to_exactly_1(row: Row, warmup: float, shape: str) -> None:
    schedule = with_warmup(row, warmup, shape)
    rise = [schedule(warmup * k / 50) for k in range(50)]
    assert rise[0] == 0.02
    assert schedule(warmup) == 1.0
    assert all(a < b for a, b in itertools.pairwise([*rise, 1.0]))
    assert schedule(math.nextafter(warmup, 0.0)) == pytest.approx(1.0, abs=1e-12)  # continuous
    straight = shape == "linear"
    assert schedule(warmup / 4) == pytest.approx(0.02 + 0.98 * (0.25 if straight else (1 - math.sqrt(0.5)) / 2))
    assert all(0.0 <= schedule(p) <= 1.0 for p in GRID)


@pytest.mark.parametrize("row", [row for row in TABLE if row.name not in ON_THE_WHOLE], ids=label)
@each_warmup
def test_warmup_does_not_cut_into_the_main_curve(row: Row, warmup: float) -> None:
    warm, plain = with_warmup(row, warmup), make(row, warmup=0.0)
    for u in (0.0, 0.11, 0.345, 0.5, 0.789, 1.0):
        assert warm(min(warmup + u * (1.0 - warmup), 1.0)) == pytest.approx(plain(u), rel=1e-12, abs=1e-15)


@each_row
def test_every_update_of_a_training_counts(row: Row) -> None:
    schedule = with_warmup(row, 0.1)
    assert min(schedule(step / N) for step in range(N)) > 0.0


@pytest.mark.parametrize("row", [row for row in TABLE if row.oracle], ids=label)
def test_same_curve_as_torch(row: Row) -> None:
    assert row.oracle is not None
    schedule = make(row)
    assert [schedule(p) for p in GRID[:N]] == pytest.approx(torch_curve(row.oracle, N), rel=0, abs=1e-12)


@pytest.mark.parametrize(("rise", "div", "final_div"), [(0.3, 25.0, 1e4), (0.1, 10.0, 50.0)])
def test_one_cycle_is_torchs(rise: float, div: float, final_div: float) -> None:
    # OneCycleLR counts the steps of both phases between updates: N − 1 in all, and rise·N − 1 up.
    oracle = torch_curve(
        lambda o: lr_scheduler.OneCycleLR(
            o, 1.0, total_steps=N, pct_start=rise, div_factor=div, final_div_factor=final_div, cycle_momentum=False
        ),
        N,
    )
    warmup = (rise * N - 1) / (N - 1)
    schedule = SCHEDULES["one-cycle"](warmup=warmup, warmup_start=1 / div, end=1 / (div * final_div))
    assert [schedule(k / (N - 1)) for k in range(N)] == pytest.approx(oracle, rel=0, abs=1e-12)


def test_warmup_then_cosine_is_torchs_sequence() -> None:
    def oracle(optimizer: torch.optim.Optimizer) -> lr_scheduler.LRScheduler:
        rise = lr_scheduler.LinearLR(optimizer, 0.02, 1.0, total_iters=21)
        return lr_scheduler.SequentialLR(
            optimizer, [rise, lr_scheduler.CosineAnnealingLR(optimizer, N - 21)], milestones=[21]
        )

    schedule = SCHEDULES["cosine"](warmup=0.1, warmup_start=0.02)
    assert [schedule(p) for p in GRID[:N]] == pytest.approx(torch_curve(oracle, N), rel=0, abs=1e-12)


def torch_curve(make_oracle: Oracle, updates: int) -> list[float]:
    """The learning rate of each update, with peak 1, when torch's scheduler is stepped after each one."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler, rates = make_oracle(optimizer), []
    for _ in range(updates):
        rates.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize("updates", [30, 90, 300, 999, 123_450])
@pytest.mark.parametrize("drops", [1, 2, 4, 8])
def test_steps_fall_on_the_update_and_not_one_late(updates: int, drops: int) -> None:
    schedule = SCHEDULES["step"](drops=drops, gamma=0.5)
    for drop in range(1, drops + 1):
        first = math.ceil(drop * updates / (drops + 1))
        assert schedule(first / updates) == 0.5**drop
        assert schedule((first - 1) / updates) == 0.5 ** (drop - 1)


@pytest.mark.parametrize("warmup", WARMUPS)
def test_milestones_stay_where_they_are_under_a_warmup(warmup: float) -> None:
    schedule = SCHEDULES["multistep"](milestones=[1 / 3, 2 / 3, 8 / 9], warmup=warmup)  # 30, 60, 80 of 90 epochs
    falls = [k for k in range(90) if k / 90 > warmup and schedule(k / 90) < schedule((k - 1) / 90)]
    assert falls == [30, 60, 80]


@pytest.mark.parametrize("warmup", WARMUPS)
def test_cooldown_of_wsd_is_the_last_part_of_the_whole_training(warmup: float) -> None:
    schedule = SCHEDULES["wsd"](warmup=warmup, cooldown=0.2, cooldown_shape="linear")
    assert {schedule(k / 100) for k in range(math.ceil(warmup * 100), 81)} == {1.0}
    assert [schedule(p) for p in (0.85, 0.9, 0.95)] == pytest.approx([0.75, 0.5, 0.25])


@pytest.mark.parametrize("peak", [20, 400])
def test_inverse_sqrt_is_that_of_the_transformer(peak: int) -> None:
    schedule = SCHEDULES["inverse-sqrt"](warmup=peak / 1000)
    paper = [min(k**-0.5, k * peak**-1.5) * peak**0.5 for k in range(1, 1000)]
    after = slice(peak - 1, None)
    assert [schedule(k / 1000) for k in range(1, 1000)][after] == pytest.approx(paper[after], rel=1e-13)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("cosine", {"warmup": 1.0}, r"warmup must be a number in \[0, 1\), received 1.0"),
        ("cosine", {"warmup": 500}, "warmup must be"),
        ("cosine", {"warmup": None}, "warmup must be"),
        ("linear", {"warmup": 0.1, "warmup_start": 0.0}, r"warmup_start must be a number in \(0, 1\]"),
        ("linear", {"warmup": 0.1, "warmup_shape": "sqrt"}, "warmup_shape must be 'linear' or 'cosine'"),
        ("linear", {"warmup_shape": "cosine"}, "has no effect without a warm-up"),
        ("one-cycle", {"warmup": 0, "warmup_start": 0.1}, "has no effect without a warm-up"),
        ("cosine", {"end": -0.1}, "end must be"),
        ("cosine", {"end": "0"}, "end must be"),
        ("cosine", {"end": float("nan")}, "end must be"),
        ("exponential", {"end": 0.0}, r"end must be a number in \(0, 1\)"),
        ("time-based", {"rate": float("inf")}, "rate must be"),
        ("step", {"drops": 0}, r"drops must be a whole number in \[1, 100\]"),
        ("step", {"drops": 2.5}, "drops must be a whole number"),
        ("step", {"drops": True}, "drops must be a whole number"),
        ("step", {"gamma": 10}, "gamma must be"),
        ("multistep", {"milestones": ()}, "milestones must be a list"),
        ("multistep", {"milestones": 0.5}, "milestones must be a list"),
        ("multistep", {"milestones": (30, 60)}, "each milestone"),
        ("multistep", {"milestones": (0.6, 0.3)}, r"must be a number in \(0.6, 1\), received 0.3"),
        ("multistep", {"milestones": (0.1, "x")}, "each milestone"),
        ("multistep", {"milestones": (0.1,), "warmup": 0.2}, "each milestone"),
        ("cosine-restarts", {"cycles": 0}, "cycles must be"),
        ("cosine-restarts", {"t_mult": 0.5}, "t_mult must be"),
        ("inverse-sqrt", {"warmup": 0}, "warmup of an inverse square root schedule"),
        ("polynomial", {"power": 0}, "power must be"),
        ("wsd", {"warmup": 0.5, "cooldown": 0.6}, "overlap"),
        ("wsd", {"cooldown_shape": "step"}, "cooldown_shape must be"),
    ],
)
def test_settings_out_of_range_are_named(name: str, settings: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        SCHEDULES[name](**settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("cls", SCHEDULES.values())
def test_every_schedule_says_its_formula_source_and_end(cls: type[Schedule]) -> None:
    text = inspect.getdoc(cls) or ""
    assert all(part in text for part in ("Example:", "Source:", "nds at "))
