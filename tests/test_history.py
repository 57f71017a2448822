"""The losses of a run as rows: few, exact, and the same after going on from a state."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch

from talweg.history import FETCH_EVERY, ROWS, History


def fill(history: History, first: int, last: int, tensors: bool = False) -> None:
    """Losses 1/step of updates first … last, with lr = step/10 and 8 samples each."""
    for step in range(first, last + 1):
        loss = torch.tensor(1 / step, dtype=torch.float64) if tensors else 1 / step
        if history.add(step, loss, step / 10, 8):
            history.fetch()


@pytest.mark.parametrize("tensors", [False, True])
def test_short_run_has_a_row_an_update(tensors: bool) -> None:
    history = History(total_steps=10, steps_per_epoch=4)
    fill(history, 1, 10, tensors)
    assert history.fetch() is None
    assert [row["step"] for row in history.rows] == list(range(1, 11))
    expected = {"kind": "train", "step": 3, "epoch": 0.75, "lr": 0.3, "loss": 1 / 3}
    assert history.rows[2] == expected
    assert json.loads(json.dumps(history.rows)) == history.rows


def test_long_run_has_rows_of_means() -> None:
    total = 3 * ROWS
    history = History(total, steps_per_epoch=100)
    fill(history, 1, total)
    history.fetch()
    assert len(history.rows) == ROWS
    for row in (history.rows[0], history.rows[700], history.rows[-1]):
        step = row["step"]
        assert step % 3 == 0
        assert row["loss"] == pytest.approx(sum(1 / k for k in (step - 2, step - 1, step)) / 3, rel=1e-14)
        assert row["lr"] == step / 10


@pytest.mark.parametrize("total", [1, ROWS, ROWS + 1, 10 * ROWS - 1, 123_457])
def test_rows_never_exceed_their_bound(total: int) -> None:
    history = History(total, 10)
    fill(history, 1, min(total, 4000))
    history.fetch()
    per_row = math.ceil(total / ROWS)
    assert len(history.rows) == min(total, 4000) // per_row
    assert total // per_row <= ROWS


def test_losses_wait_until_enough_of_them_are_there() -> None:
    history = History(1000, 100)
    asked = [history.add(step, torch.tensor(1.0), 0.1, 8) for step in range(1, FETCH_EVERY + 1)]
    assert asked == [False] * (FETCH_EVERY - 1) + [True]
    assert history.rows == []
    history.fetch()
    assert len(history.rows) == FETCH_EVERY
    assert history.fetch() is None
    assert len(history.rows) == FETCH_EVERY


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("tensors", [False, True])
def test_first_bad_loss_is_named_and_what_follows_is_dropped(bad: float, tensors: bool) -> None:
    history = History(10, 5)
    losses = [1.0, 2.0, bad, 4.0, math.nan]
    for step, loss in enumerate(losses, 1):
        history.add(step, torch.tensor(loss) if tensors else loss, 0.1, 8)
    assert history.fetch() == 3
    assert [row["loss"] for row in history.rows] == [1.0, 2.0]
    assert history.end_epoch() == 1.5


def test_mean_of_an_epoch_weighs_samples() -> None:
    history = History(4, 2)
    history.add(1, 1.0, 0.1, 30)
    history.add(2, 4.0, 0.1, 10)
    history.fetch()
    assert history.end_epoch() == (30 * 1.0 + 10 * 4.0) / 40
    history.add(3, 7.0, 0.1, 30)
    history.fetch()
    assert history.end_epoch() == 7.0


@pytest.mark.parametrize("at", [1, 64, 100, 2501, 4999])
def test_going_on_from_a_state_gives_the_same_rows(at: int) -> None:
    """Also inside an epoch and inside a row; rows written after the state are dropped."""
    total = 5000
    straight, stopped = History(total, 100), History(total, 100)
    fill(straight, 1, at)
    straight.fetch()
    state: dict[str, Any] = json.loads(json.dumps(straight.state()))
    fill(straight, at + 1, total)
    straight.fetch()
    stopped.load(state, json.loads(json.dumps(straight.rows)))
    fill(stopped, at + 1, total)
    stopped.fetch()
    assert stopped.rows == straight.rows
    assert stopped.end_epoch() == straight.end_epoch()
