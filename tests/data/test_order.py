"""The order of samples: a pure function of (seed, step) and of what it is given; one contract table."""

import itertools
from collections import Counter

import pytest
import torch

from talweg.data import parse_order
from talweg.data.order import ORDERS, Order, order, ranges
from talweg.data.orderings import class_probabilities, loss_probabilities
from talweg.errors import UserError

PERMUTATIONS = {"shuffled", "sequential", "class_spread"}


def given(name, n):
    """What an order needs, for n samples."""
    g = torch.Generator().manual_seed(n)
    return {
        "": {},
        "labels": {"labels": torch.randint(0, 4, (n,), generator=g)},
        "losses": {"losses": torch.rand(n, generator=g).square()},
        "difficulty": {"difficulty": torch.rand(n, generator=g)},
    }[ORDERS[name].needs]


def fraction_alike(labels):
    return (labels[1:] == labels[:-1]).double().mean().item()


@pytest.mark.parametrize("name", ORDERS)
@pytest.mark.parametrize("n", [1, 7, 1000])
def test_an_order_is_pure(name, n):
    data = given(name, n)
    kept = {key: value.clone() for key, value in data.items()}
    for epoch in (0, 1, 12):
        first = order(name, n, 3, epoch, **data)
        torch.manual_seed(epoch)  # the global generator plays no part
        assert torch.equal(first, order(name, n, 3, epoch, **data))
        assert first.dtype == torch.int64
        assert first.shape == (n,)
        assert first.min() >= 0
        assert first.max() < n
        if name in PERMUTATIONS:
            assert first.sort().values.tolist() == list(range(n))
    assert all(torch.equal(data[key], kept[key]) for key in data)


@pytest.mark.parametrize("name", ORDERS)
def test_an_order_differs_by_seed_and_epoch_but_for_sequential(name):
    data = given(name, 50)
    drawn = {tuple(order(name, 50, seed, epoch, **data).tolist()) for seed in range(4) for epoch in range(20, 24)}
    assert len(drawn) == (1 if name == "sequential" else 16)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("shuffled", [4, 6, 1, 0, 3, 2, 7, 5]),
        ("class_spread", [6, 1, 7, 4, 0, 5, 2, 3]),
        ("class_balanced", [1, 3, 2, 5, 0, 6, 4, 7]),
        ("loss_weighted", [5, 6, 3, 1, 4, 4, 7, 5]),
        ("curriculum", [0, 0, 5, 0, 5, 0, 5, 5]),
    ],
)
def test_orders_are_fixed_for_good(name, expected):
    data = {
        "labels": {"labels": torch.tensor([0, 0, 0, 1, 1, 2, 2, 2])},
        "losses": {"losses": torch.tensor([0.0, 1, 1, 2, 3, 5, 2, 2])},
        "difficulty": {"difficulty": torch.tensor([1.0, 8, 7, 6, 5, 2, 3, 4])},
    }.get(ORDERS[name].needs, {})
    assert order(name, 8, 0, 0, **data).tolist() == expected  # a changed order would break old runs


@pytest.mark.parametrize(("n", "batch"), [(10, 4), (12, 4), (3, 8), (5, 1), (4000, 1)])
@pytest.mark.parametrize("name", ORDERS)
def test_windows_cover_each_epoch_once(n, batch, name):
    data = given(name, n)
    run = Order(n, batch, seed=5, name=name, **data)
    steps = run.steps_per_epoch
    assert steps == -(-n // batch)
    for epoch in range(2):
        sizes = [len(run.indices(step)) for step in range(epoch * steps, (epoch + 1) * steps)]
        assert sizes[:-1] == [min(n, batch)] * (steps - 1)
        assert sizes[-1] == n - batch * (steps - 1)
        seen = torch.cat([run.indices(step) for step in range(epoch * steps, (epoch + 1) * steps)])
        assert torch.equal(seen, order(name, n, 5, epoch, **data))


@pytest.mark.parametrize("name", ORDERS)
@pytest.mark.parametrize(("n", "batch", "last"), [(10, 4, 11), (12, 4, 9), (3000, 2, 4000)])
def test_resuming_at_any_step_gives_the_tail(n, batch, last, name):
    def fresh():
        return Order(n, batch, seed=1, name=name, **given(name, n))

    whole = list(fresh().chunks(0, last))
    assert len(whole) == last
    for first in {0, 1, 2, 3, 5, last // 2, last - 1, last}:
        tail = list(fresh().chunks(first, last))
        assert len(tail) == last - first
        assert all(torch.equal(a, b) for a, b in zip(whole[first:], tail, strict=True))
    again = fresh()
    for step in (last - 1, 0, last // 2):  # in any order
        assert torch.equal(again.indices(step), whole[step])


@pytest.mark.parametrize(
    "sizes", [[100] * 10, [500] + [50] * 10, [300, 300, 200, 100, 100], [1000 // k for k in range(1, 20)], [60, 40]]
)
def test_class_spread_keeps_classes_apart(sizes):
    labels = torch.cat([torch.full((size,), c) for c, size in enumerate(sizes)])
    n = len(labels)
    unavoidable = max(0.0, (2 * max(sizes) - n - 1) / (n - 1))
    for epoch in range(5):
        spread = labels[order("class_spread", n, 0, epoch, labels=labels)]
        by_chance = fraction_alike(labels[order("shuffled", n, 0, epoch)])
        assert fraction_alike(spread) - unavoidable < 0.3 * (by_chance - unavoidable)
        # Any stretch has the classes in proportion, to a sample or two.
        for low in range(0, n - 50, 37):
            counts = torch.bincount(spread[low : low + 50], minlength=len(sizes)).double()
            assert (counts - 50 * torch.tensor(sizes) / n).abs().max() < 2


def test_class_spread_takes_turns_where_classes_are_equal():
    labels = torch.arange(60) % 6  # any integers name classes
    spread = labels[order("class_spread", 60, 0, 0, labels=10 * labels - 7)]
    assert (spread.view(10, 6) == spread[:6]).all()
    assert sorted(spread[:6].tolist()) == list(range(6))


@pytest.mark.parametrize("sizes", [[90, 9, 1], [33, 33, 34], [100], [50, 1, 1, 1, 1, 1, 45]])
def test_class_balanced_shows_each_class_equally_often(sizes):
    labels = torch.cat([torch.full((size,), c) for c, size in enumerate(sizes)])
    n, classes, epochs = len(labels), len(sizes), 60
    times = torch.zeros(n, dtype=torch.float64)
    for epoch in range(epochs):
        drawn = order("class_balanced", n, 0, epoch, labels=labels)
        per_class = torch.bincount(labels[drawn], minlength=classes)
        assert set(per_class.tolist()) <= {n // classes, -(-n // classes)}
        shown = torch.bincount(drawn, minlength=n)
        for c in range(classes):  # all of a class before any of it again
            assert shown[labels == c].max() - shown[labels == c].min() <= 1
        times += shown
    probabilities = class_probabilities(labels)
    assert abs(probabilities.sum() - 1) < 1e-12
    expected = n * probabilities
    assert ((times / epochs - expected).abs() < 5 * (expected / epochs).sqrt().clamp(max=1) + 1e-9).all()


@pytest.mark.parametrize("spec", ["loss_weighted", "loss_weighted:0.5", "loss_weighted:2,0.5", "loss_weighted:0,1"])
def test_loss_weighted_shows_samples_as_often_as_their_probability_says(spec):
    n = 200
    losses = torch.rand(n, generator=torch.Generator().manual_seed(0)).pow(3)
    losses[:5] = 0
    alpha, uniform = parse_order(spec).amounts
    share = losses.double() ** alpha
    probabilities = (1 - uniform) * share / share.sum() + uniform / n
    torch.testing.assert_close(loss_probabilities(losses, alpha, uniform), probabilities, rtol=1e-12, atol=0)
    times, epochs = torch.zeros(n, dtype=torch.float64), 100
    for epoch in range(epochs):
        shown = torch.bincount(order(spec, n, 0, epoch, losses=losses), minlength=n)
        assert (shown >= (n * probabilities - 1e-6).floor()).all()
        assert (shown <= (n * probabilities + 1e-6).ceil()).all()
        times += shown
    assert ((times / epochs - n * probabilities).abs() < 5 * 0.5 / epochs**0.5).all()


def test_systematic_draws_are_exact_in_the_mean(monkeypatch):
    """∫ (times that sample i is drawn) du = n·p_i, integrated over every u between the breakpoints."""
    from talweg.data import orderings

    n, losses = 6, torch.tensor([0.5, 0.0, 2.0, 1.0, 1.0, 3.0])
    probabilities = loss_probabilities(losses)
    breaks = torch.cat([torch.zeros(1), (probabilities.cumsum(0) * n) % 1, torch.ones(1)]).double().sort().values
    mean = torch.zeros(n, dtype=torch.float64)
    for low, high in itertools.pairwise(breaks.tolist()):
        u = torch.tensor((low + high) / 2, dtype=torch.float64)
        monkeypatch.setattr(orderings.torch, "rand", lambda *_, u=u, **__: u)
        mean += (high - low) * torch.bincount(order("loss_weighted", n, 0, 0, losses=losses), minlength=n)
    torch.testing.assert_close(mean, n * probabilities, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["loss_weighted", "loss_weighted:0.5,0.3", "class_balanced"])
def test_weights_make_the_gradient_unbiased(name):
    n = 40
    data = given(name.partition(":")[0], n)
    run = Order(n, 8, seed=0, name=name, **data)
    if "labels" in data:
        probabilities = class_probabilities(data["labels"])
    else:
        probabilities = loss_probabilities(data["losses"], *parse_order(name).amounts)
    gradients = torch.randn(n, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    weighted = (probabilities * run.importance.double()) @ gradients  # Σ p·w·g
    torch.testing.assert_close(weighted, gradients.mean(0), rtol=0, atol=1e-7)
    for step in (0, 3, 7):
        assert torch.equal(run.weights(step), run.importance[run.indices(step)])
    assert run.importance.dtype == torch.float32


def test_orders_with_equal_samples_have_no_weights():
    for name in ("shuffled", "sequential", "class_spread", "curriculum"):
        assert Order(9, 3, seed=0, name=name, **given(name, 9)).weights(1) is None


def test_equal_losses_show_every_sample_once():
    for losses in (torch.zeros(64), torch.ones(64), torch.full((64,), 1e300, dtype=torch.float64)):
        assert order("loss_weighted", 64, 0, 0, losses=losses).sort().values.tolist() == list(range(64))


def test_new_losses_count_from_then_on():
    n = 100
    run = Order(n, 10, seed=0, name="loss_weighted", losses=torch.ones(n))
    run.indices(10)
    losses = torch.ones(n)
    losses[7] = 99
    run.renew(losses)
    assert (run.permutation(1) == 7).sum() > 30
    assert torch.equal(run.permutation(1), order("loss_weighted", n, 0, 1, losses=run.given))
    assert run.weights(10).dtype == torch.float32


@pytest.mark.parametrize("n", [1, 10, 99])
def test_a_curriculum_grows_from_the_easiest_to_all(n):
    difficulty = torch.rand(n, generator=torch.Generator().manual_seed(0))
    difficulty[n // 2 :] = difficulty[n // 2]  # equal ones enter in their order
    ascending = difficulty.argsort(stable=True).tolist()
    last = 0
    for epoch in range(8):
        shown = Counter(order("curriculum:0.25,5", n, 0, epoch, difficulty=difficulty).tolist())
        pool = len(shown)
        assert pool == -(-round(n * min(1.0, 0.25 + 0.75 * epoch / 5) * 1000) // 1000)
        assert set(shown) == set(ascending[:pool])
        assert [shown[i] for i in ascending[:pool]] == [n // pool + (k < n % pool) for k in range(pool)]
        assert pool >= last
        last = pool
    assert last == n


def test_chunks_are_lazy():
    endless = Order(10, 4, seed=0).chunks(0, 10**12)
    assert [len(chunk) for chunk in itertools.islice(endless, 4)] == [4, 4, 2, 4]


def test_ranges_cover_a_pass():
    assert [i for part in ranges(11, 4) for i in part] == list(range(11))
    assert [len(part) for part in ranges(11, 4)] == [4, 4, 3]
    assert list(ranges(3, 100)) == [range(3)]


FOUR = torch.tensor([0.0, 1.0, 2.0, 3.0])
NAN = torch.tensor([0.0, 1.0, float("nan"), 3.0])
BAD = [
    ((0, 4, 0), {}, "n must be at least 1 sample, received 0"),
    ((4, 0, 0), {}, "batch must be at least 1, received 0"),
    ((4, 4, 0, "shuffeld"), {}, "unknown order 'shuffeld': did you mean 'shuffled'?"),
    ((4, 4, 0, "shuffled:1"), {}, "order 'shuffled' takes no numbers, received 'shuffled:1'"),
    (
        (4, 4, 0, "curriculum:1,2,3"),
        {"difficulty": FOUR},
        "order 'curriculum' takes curriculum:start,epochs, received 'curriculum:1,2,3'",
    ),
    (
        (4, 4, 0, "loss_weighted:-1"),
        {"losses": FOUR},
        "alpha of order 'loss_weighted' must be 0 or more, received '-1'",
    ),
    ((4, 4, 0, "loss_weighted:x"), {"losses": FOUR}, "alpha of order 'loss_weighted' must be 0 or more, received 'x'"),
    (
        (4, 4, 0, "loss_weighted:1,0"),
        {"losses": FOUR},
        "uniform of order 'loss_weighted' must be above 0 and at most 1, received '0'",
    ),
    (
        (4, 4, 0, "class_spread"),
        {},
        "order 'class_spread' needs labels: one class number for each sample, received none",
    ),
    (
        (4, 4, 0, "class_spread"),
        {"labels": torch.zeros(5).long()},
        "order 'class_spread' needs labels: one class number for each sample (a tensor [4]), received shape [5]",
    ),
    (
        (4, 4, 0, "class_balanced"),
        {"labels": FOUR},
        "order 'class_balanced' needs labels: one class number for each sample, as integers, received float32",
    ),
    ((4, 4, 0, "loss_weighted"), {}, "order 'loss_weighted' needs losses: one loss for each sample, received none"),
    (
        (4, 4, 0, "loss_weighted"),
        {"losses": -FOUR},
        "order 'loss_weighted': the loss at row 1 is -1; losses are 0 or more",
    ),
    ((4, 4, 0, "loss_weighted"), {"losses": NAN}, "order 'loss_weighted': losses is nan at row 2"),
    ((4, 4, 0, "curriculum"), {"difficulty": NAN}, "order 'curriculum': difficulty is nan at row 2"),
    (
        (4, 4, 0, "shuffled"),
        {"labels": FOUR.long()},
        "labels have no effect on order 'shuffled': leave them out, or use class_spread and class_balanced",
    ),
]


@pytest.mark.parametrize(("arguments", "data", "message"), BAD, ids=[row[2][:60] for row in BAD])
def test_bad_orders(arguments, data, message):
    with pytest.raises(UserError) as caught:
        Order(*arguments, **data)
    assert str(caught.value).startswith(message)


def test_bad_renewals():
    with pytest.raises(UserError, match="order 'shuffled' needs nothing"):
        Order(4, 2, seed=0).renew(FOUR)
    with pytest.raises(UserError, match="received shape"):
        Order(4, 2, seed=0, name="loss_weighted", losses=FOUR).renew(FOUR[:3])
    with pytest.raises(UserError):
        order("none", 3, 0, 0)
