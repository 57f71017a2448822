"""Ordinary datasets: the same batches for any number of workers, and a bad sample is named."""

import os
import random

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from talweg.data import Loader, Order, Stream, as_source, ranges
from talweg.errors import UserError


class Pairs(Dataset):
    """Sample i is (a 2-vector of i, i mod 3); samples listed in `bad` misbehave."""

    classes = ("a", "b", "c")

    def __init__(self, bad=()):
        self.bad = dict(bad)

    def __len__(self):
        return 20

    def __getitem__(self, i):
        return self.bad[i](i) if i in self.bad else (torch.full((2,), float(i)), i % 3)


def no_sample(i):
    raise OSError("image file is truncated\n(3 bytes not processed)")


@pytest.mark.parametrize("workers", [1, 2])
def test_every_worker_count_gives_the_same_batches(workers):
    order = Order(20, 6, seed=2)
    expected = list(Loader(Pairs()).batches(order.chunks(0, 8)))
    received = list(Loader(Pairs(), workers=workers).batches(order.chunks(0, 8)))
    assert [len(y) for _, y in received] == [6, 6, 6, 2] * 2
    for (x, y), (x2, y2) in zip(expected, received, strict=True):
        assert torch.equal(x, x2)
        assert torch.equal(y, y2)


class Noisy(Dataset):
    """Sample i is drawn anew from the three global generators each time it is read."""

    def __len__(self):
        return 20

    def __getitem__(self, i):
        return torch.tensor([torch.rand(()).item(), np.random.rand(), random.random()]), i


def states():
    return torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()


def test_random_draws_inside_a_dataset_are_named():
    before = states()
    plain = torch.cat([x for x, _ in Loader(Noisy()).batches(ranges(20, 20), draw=7)])
    assert len(set(plain.flatten().tolist())) == 60
    for workers, batch in ((0, 6), (2, 3)):
        again = torch.cat([x for x, _ in Stream(Loader(Noisy(), workers=workers), "cpu").batches(ranges(20, batch), 7)])
        assert torch.equal(plain, again)
    other = torch.cat([x for x, _ in Loader(Noisy()).batches(ranges(20, 20), draw=8)])
    assert (plain != other).all()
    assert states() == before


def die(i):
    os._exit(3)


FAILING = [
    (
        {13: no_sample},
        "photos: sample 13 could not be read (OSError: image file is truncated (3 bytes not processed)); ",
    ),
    ({13: lambda i: 5}, "photos: sample 13 must be a pair (x, y), received int"),
    ({13: lambda i: (torch.zeros(3), 1)}, "photos: x of sample 13 has shape [3], that of sample 12 has [2]; "),
]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(("bad", "message"), FAILING)
def test_a_sample_that_cannot_be_used_is_named(workers, bad, message):
    source = as_source(Pairs(bad=bad), "photos", workers=workers)
    batches = source.batches(ranges(20, 4))
    assert [len(next(batches)[1]) for _ in range(3)] == [4, 4, 4]  # the batches before it come out
    with pytest.raises(UserError) as caught:
        next(batches)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_a_dead_worker_is_reported():
    source = as_source(Pairs(bad={5: die}), "photos", workers=1)
    with pytest.raises(UserError, match=r"photos: a worker process died .*; try fewer workers than 1"):
        list(source.batches(ranges(20, 4)))


def test_a_loader_knows_its_classes():
    assert as_source(Pairs(), "train").classes == ("a", "b", "c")


def test_the_global_generators_are_left_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    data = as_source(Pairs(), "train")
    list(data.batches(Order(20, 6, seed=2).chunks(0, 8)))
    list(Loader(Pairs(), workers=1).batches([range(3)]))
    assert torch.equal(before, torch.get_rng_state())
