"""The order of samples: a pure function of (seed, step), each sample once an epoch."""

import itertools

import pytest
import torch

from talweg.data.order import ORDERS, Order, order, ranges
from talweg.errors import UserError


@pytest.mark.parametrize("name", ORDERS)
@pytest.mark.parametrize("n", [1, 7, 1000])
def test_an_order_is_a_pure_permutation(name, n):
    for epoch in (0, 1, 12):
        first = order(name, n, 3, epoch)
        torch.manual_seed(epoch)  # the global generator plays no part
        assert torch.equal(first, order(name, n, 3, epoch))
        assert first.dtype == torch.int64
        assert first.sort().values.tolist() == list(range(n))


def test_shuffled_differs_by_seed_and_epoch_and_sequential_does_not():
    drawn = {tuple(order("shuffled", 50, seed, epoch).tolist()) for seed in range(4) for epoch in range(4)}
    assert len(drawn) == 16
    assert torch.equal(order("sequential", 50, 1, 2), torch.arange(50))


def test_the_shuffled_order_is_fixed_for_good():
    assert order("shuffled", 8, 0, 0).tolist() == [4, 6, 1, 0, 3, 2, 7, 5]  # a changed order would break old runs


@pytest.mark.parametrize(("n", "batch"), [(10, 4), (12, 4), (3, 8), (5, 1), (4000, 1)])
@pytest.mark.parametrize("name", ORDERS)
def test_windows_cover_each_epoch_once(n, batch, name):
    run = Order(n, batch, seed=5, name=name)
    steps = run.steps_per_epoch
    assert steps == -(-n // batch)
    for epoch in range(2):
        sizes = [len(run.indices(step)) for step in range(epoch * steps, (epoch + 1) * steps)]
        assert sizes[:-1] == [min(n, batch)] * (steps - 1)
        assert sizes[-1] == n - batch * (steps - 1)
        seen = torch.cat([run.indices(step) for step in range(epoch * steps, (epoch + 1) * steps)])
        assert torch.equal(seen, order(name, n, 5, epoch))


@pytest.mark.parametrize(("n", "batch", "last"), [(10, 4, 11), (12, 4, 9), (3000, 2, 4000)])
def test_resuming_at_any_step_gives_the_tail(n, batch, last):
    whole = list(Order(n, batch, seed=1).chunks(0, last))
    assert len(whole) == last
    for first in {0, 1, 2, 3, 5, last // 2, last - 1, last}:
        tail = list(Order(n, batch, seed=1).chunks(first, last))
        assert len(tail) == last - first
        assert all(torch.equal(a, b) for a, b in zip(whole[first:], tail, strict=True))
    fresh = Order(n, batch, seed=1)
    for step in (last - 1, 0, last // 2):  # in any order
        assert torch.equal(fresh.indices(step), whole[step])


def test_chunks_are_lazy():
    endless = Order(10, 4, seed=0).chunks(0, 10**12)
    assert [len(chunk) for chunk in itertools.islice(endless, 4)] == [4, 4, 2, 4]


def test_ranges_cover_a_pass():
    assert [i for part in ranges(11, 4) for i in part] == list(range(11))
    assert [len(part) for part in ranges(11, 4)] == [4, 4, 3]
    assert list(ranges(3, 100)) == [range(3)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 4, 0), "n must be at least 1 sample, received 0"),
        ((4, 0, 0), "batch must be at least 1, received 0"),
        ((4, 4, 0, "shuffeld"), "unknown order 'shuffeld': did you mean 'shuffled'?"),
    ],
)
def test_bad_orders(arguments, message):
    with pytest.raises(UserError) as caught:
        Order(*arguments)
    assert str(caught.value).startswith(message)
    with pytest.raises(UserError):
        order("none", 3, 0, 0)
