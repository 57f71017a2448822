"""Randomness as a function of names and indices: the same numbers everywhere, and random enough."""

from __future__ import annotations

import math

import pytest
import torch

from talweg.randomness import generator, key, uniform, uniform_bits


def splitmix(seed: int, index: int) -> int:
    """Steele, Lea, Flood 2014, in Python's integers: output `index` of SplitMix64 started at `seed`, upper 31 bits."""
    mask = (1 << 64) - 1
    z = (seed + (index + 1) * 0x9E3779B97F4A7C15) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return (z ^ (z >> 31)) >> 33


def test_keys_never_change() -> None:
    """Runs of the past are repeated only as long as these numbers stay, in every process and on every machine."""
    assert key(0, "conv1.weight") == 1733135554116464211
    assert key(7, 3, "order") == 1806790065380859280
    assert generator(0, "order").initial_seed() == key(0, "order")
    assert torch.rand(2, generator=generator(1, "a")).tolist() == torch.rand(2, generator=generator(1, "a")).tolist()


def test_different_names_give_different_keys() -> None:
    names = [(seed, place) for seed in range(30) for place in ("order", "noise", "model", "order1", "1order")]
    names += [(1, 2), (12,), (2, 1), ("1", "2", ""), ("",)]
    keys = {key(*name) for name in names}
    assert len(keys) == len(names)
    assert all(0 <= k < 2**63 for k in keys)


@pytest.mark.parametrize("seed", [0, 1, 2**63 - 1, key("a")])
def test_bits_are_those_of_splitmix(seed: int) -> None:
    index = torch.tensor([0, 1, 2, 12345, 2**31, 2**40 + 1])
    assert uniform_bits(seed, index).tolist() == [splitmix(seed, i) for i in index.tolist()]


def test_bits_depend_on_the_index_alone() -> None:
    index = torch.arange(1000)
    bits = uniform_bits(5, index)
    order = torch.randperm(1000, generator=generator("permutation"))
    assert torch.equal(uniform_bits(5, index[order]), bits[order])
    assert torch.equal(uniform_bits(5, index.view(10, 100)), bits.view(10, 100))
    assert torch.equal(uniform_bits(5, index[17:18]), bits[17:18])
    assert bits.dtype == torch.int64
    assert 0 <= int(bits.min()) < int(bits.max()) < 2**31


def test_uniform_is_uniform() -> None:
    """Chi-square over 100 bins, mean, and no correlation between neighbours, seeds, or the two halves of the bits."""
    n = 100_000
    x = uniform(key("test"), torch.arange(n))
    assert x.dtype == torch.float32
    assert 0.0 <= float(x.min()) < float(x.max()) < 1.0
    counts = torch.histc(x, 100, 0, 1)
    chi_square = float(((counts - n / 100) ** 2 / (n / 100)).sum())
    assert abs(chi_square - 99) < 4 * math.sqrt(2 * 99)
    assert abs(float(x.mean()) - 0.5) < 4 / math.sqrt(12 * n)
    other = uniform(key("test") + 1, torch.arange(n))
    for a, b in ((x[1:], x[:-1]), (x, other)):
        assert abs(float(torch.corrcoef(torch.stack([a, b]))[0, 1])) < 4 / math.sqrt(n)
