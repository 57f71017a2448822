"""Randomness as a function of names and indices, never of call order.

Two tools. `key` and `generator` turn names into a seed, for the few large draws (initial weights, an epoch's order).
`uniform_bits` hashes integer tensors, for the many small draws that must not depend on how samples are batched
(a sample's augmentation is a function of seed, epoch and sample index).
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

# Multipliers of SplitMix64 (Steele, Lea, Flood 2014), as signed 64-bit integers because torch has no uint64 arithmetic.
_GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)
_MIX1 = 0xBF58476D1CE4E5B9 - (1 << 64)
_MIX2 = 0x94D049BB133111EB - (1 << 64)


def key(*names: object) -> int:
    """A 63-bit seed that is a function of the names alone: the same in every process, on every machine.

    Example:
        >>> key(0, "conv1.weight") == key(0, "conv1.weight"), key(0, "a") == key(1, "a")
        (True, False)
    """
    text = "\x1f".join(str(name) for name in names)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def generator(*names: object) -> torch.Generator:
    """A CPU random generator seeded by `key(*names)`; draw on the CPU so that every device gets the same numbers."""
    return torch.Generator().manual_seed(key(*names))


def uniform_bits(seed: int, index: Tensor) -> Tensor:
    """31 random bits for each index: `bits[i]` depends on `seed` and `index[i]` only.

    Formula: SplitMix64's finaliser applied to seed + index·golden (wrapping 64-bit arithmetic), upper bits.

    Args:
        seed: any integer, usually `key(seed, epoch, "what for")`.
        index: integer tensor of any shape, on any device.

    Returns:
        int64 tensor of the same shape, uniform on [0, 2³¹).

    Example:
        >>> a, b = torch.arange(4), torch.tensor([2])
        >>> bool(uniform_bits(7, a)[2] == uniform_bits(7, b)[0])   # the same sample in another batch
        True

    Source: G. Steele, D. Lea, C. Flood, "Fast splittable pseudorandom number generators", 2014.
    """
    z = (index + 1) * _GOLDEN + (seed & 0x7FFFFFFFFFFFFFFF)
    z = (z ^ _shift(z, 30)) * _MIX1
    z = (z ^ _shift(z, 27)) * _MIX2
    return _shift(z ^ _shift(z, 31), 33)


def uniform(seed: int, index: Tensor) -> Tensor:
    """Uniform float32 numbers on [0, 1), one for each index (see `uniform_bits`)."""
    return (uniform_bits(seed, index) >> 7).to(torch.float32) * (1.0 / (1 << 24))


def _shift(z: Tensor, by: int) -> Tensor:
    """Logical (not sign-extending) shift to the right."""
    return (z >> by) & ((1 << (64 - by)) - 1)
