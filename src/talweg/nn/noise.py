"""Noise inside a network as a function of (seed, step, layer, sample, position), however the samples are batched.

The training loop announces which samples a forward pass sees; a layer that knows its own name draws from that:

    replace_noise(model)                            once: torch's noise layers become ours, and know their names
    with noise_context(seed, step, indices):        for each micro-batch, its backward pass included
        loss(model(x), y).backward()

Outside such a block the same layers draw from torch's global generator, as torch's own do.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from talweg.errors import UserError
from talweg.randomness import _GOLDEN, _MIX1, _MIX2, _shift, key

LEVELS = 1 << 16
"""Probabilities are rounded to multiples of 1/65,536, so that one hash of 64 bits decides for four values."""

_CALL = 0x2545F4914F6CDD1D  # any large odd number: keeps the streams of one layer's calls apart
_INT63 = (1 << 63) - 1


class Noisy:
    """What makes a module a noise layer: it has a name that its draws are keyed by, set by `name_layers`."""

    noise_name: str = ""
    noise_key: int = 0


@dataclass(eq=False)
class Announced:
    """What the training loop announced: the samples of one forward pass.

    Attributes:
        rows: [B] int64, the hashes of (seed, step, sample index).
        shared: [1] int64, the hash of (seed, step), for noise that is not a sample's own.
        misfits: what was made of inputs whose first dimension does not count the samples, by the name of the layer.
    """

    rows: Tensor
    shared: Tensor
    misfits: dict[str, str] = field(default_factory=dict)
    thread: int = field(default_factory=threading.get_ident)
    calls: dict[str, list[int]] = field(default_factory=dict)

    def call(self, name: str) -> int:
        """The number of this call of a layer within the pass: 0, 1, …

        A layer may be used at several places, or a model be called twice; then the draws must differ. But where
        activations are recomputed in the backward pass (`torch.utils.checkpoint`), they must be those of the first
        time. Recomputing restores torch's global generator, so a number drawn there in the first pass comes again, and
        tells which call is repeated. Nothing else depends on that number.
        """
        seen = self.calls.setdefault(name, [])
        if torch.compiler.is_compiling():  # a compiled graph recomputes inside itself and calls no layer again
            token = len(seen)
        else:
            token = int(torch.randint(1 << 62, (), device="cpu"))
        if token not in seen:
            seen.append(token)
        return seen.index(token)


class _Current:
    """The announcement in force; of all threads, because autograd recomputes activations in threads of its own."""

    announced: Announced | None = None


_CURRENT = _Current()


@contextmanager
def noise_context(seed: int, step: int, indices: Tensor) -> Iterator[Announced]:
    """Inside, noise layers draw as a function of (seed, step, their name, sample, position).

    The backward pass belongs inside as well, where activations are recomputed in it.

    Args:
        seed: the run's seed.
        step: the number of the update.
        indices: [B] the samples' places in the data set, on the model's device.

    Yields:
        the announcement; after the pass its `misfits` name the layers whose input was not [B, ...].

    Raises:
        UserError: indices is not a vector of integers, or another thread has announced its samples.

    Example:
        >>> from talweg.nn import Dropout, name_layers, noise_context
        >>> layer = Dropout(0.5)
        >>> names = name_layers(nn.Sequential(layer))
        >>> with noise_context(0, 7, torch.tensor([4, 9])):
        ...     both = layer(torch.ones(2, 6))
        >>> with noise_context(0, 7, torch.tensor([9])):       # sample 9 alone
        ...     one = layer(torch.ones(1, 6))
        >>> both[1].tolist() == one[0].tolist()
        True

    Source: the hash is that of G. Steele, D. Lea, C. Flood, "Fast splittable pseudorandom number generators", 2014;
    each layer starts a stream of its own for each sample.
    """
    if indices.dim() != 1 or indices.is_floating_point():
        raise UserError(f"indices must be sample numbers [B], received {indices.dtype} of shape {list(indices.shape)}")
    outer = _CURRENT.announced
    if outer is not None and outer.thread != threading.get_ident():
        raise UserError("another thread of this process is training with announced noise; train one after the other")
    places = F.pad(indices.long(), (1, 0), value=-1)  # -1: no sample
    hashed = _mix(places * _GOLDEN + key(seed, step, "noise"))
    _CURRENT.announced = announced = Announced(hashed[1:], hashed[:1])
    try:
        yield announced
    finally:
        _CURRENT.announced = outer


def is_announced() -> bool:
    """Whether a `noise_context` is open."""
    return _CURRENT.announced is not None


def name_layers(module: nn.Module) -> tuple[str, ...]:
    """Tells each noise layer of a module its own name, once and before the module is wrapped, and returns the names.

    Example:
        >>> from talweg.nn import Dropout, name_layers, noise_context
        >>> name_layers(nn.Sequential(nn.Linear(2, 2), Dropout(0.1)))
        ('1',)
    """
    names = []
    for name, layer in module.named_modules():
        if isinstance(layer, Noisy):
            layer.noise_name = name or type(layer).__name__
            layer.noise_key = key(layer.noise_name, "layer")
            names.append(layer.noise_name)
    return tuple(names)


def random_bits(layer: Noisy, x: Tensor, count: int, *, shared: bool = False) -> Tensor:
    """Random int16 numbers, uniform on -32768 … 32767: `count` for each row of x, or `count` in all (`shared`).

    Formula: bits[b, i] = the (i mod 4)-th 16 bits of mix(row_b + layer + ⌊i/4⌋·golden), where row_b is the hash of
    (seed, step, sample b), `layer` that of (name, call) and mix the finaliser of SplitMix64.

    Args:
        layer: the layer that draws.
        x: [B, ...] its input, the announced samples in their order. If it has k·B rows, each sample has k of them in
            succession. If it has any other number of rows, they are no samples, and the noise is a function of (seed,
            step, layer, position) alone. Both are noted as misfits.
        count: numbers for each row.

    Returns:
        [rows of x, count], or [1, count]; outside a `noise_context` from torch's global generator.

    Raises:
        UserError: the layer has no name (see `name_layers`).
    """
    samples = 1 if shared or not x.dim() else x.shape[0]
    announced = _CURRENT.announced
    if announced is None:
        return torch.randint(-LEVELS // 2, LEVELS // 2, (samples, count), dtype=torch.int16, device=x.device)
    rows = announced.shared if shared else _rows(layer, samples, announced)
    total = samples * count // len(rows)
    bits = _stream(layer, rows.to(x.device), -(-total // 4), announced).view(torch.int16)
    return bits[:, :total].reshape(samples, count)


def bits_like(layer: Noisy, x: Tensor) -> Tensor:
    """`random_bits` of x's shape, one number for each value.

    Positions are counted with the channels last for images (x.dim() ≥ 4), whatever the memory format of x is.
    """
    if x.dim() < 4:
        return random_bits(layer, x, x.shape[1:].numel()).view(x.shape)
    shape = (x.shape[0], *x.shape[2:], x.shape[1])
    return random_bits(layer, x, x.shape[1:].numel()).view(shape).movedim(-1, 1)


def chosen(bits: Tensor, levels: int, dtype: torch.dtype) -> Tensor:
    """1 where a random number is among the lowest `levels` of 65,536, else 0; in the bits' shape.

    In `dtype` on the CPU, where products with booleans are 5 times slower, else boolean, which takes less memory.
    """
    if bits.device.type != "cpu":
        return bits < levels - LEVELS // 2
    return torch.lt(bits, levels - LEVELS // 2, out=torch.empty_like(bits, dtype=dtype))


def random_uniform(layer: Noisy, x: Tensor, count: int) -> Tensor:
    """Uniform float32 numbers on [0, 1): `count` for each row of x, see `random_bits`; [rows of x, count]."""
    announced = _CURRENT.announced
    if announced is None:
        return torch.rand(x.shape[0], count, device=x.device)
    rows = _rows(layer, x.shape[0], announced)
    bits = _stream(layer, rows.to(x.device), x.shape[0] * count // len(rows), announced)
    return (_shift(bits, 40).to(torch.float32) * 2.0**-24).reshape(x.shape[0], count)


def _rows(layer: Noisy, received: int, announced: Announced) -> Tensor:
    """The hashes that the rows of a layer's input are drawn from: those of the samples, where the rows are theirs."""
    rows = announced.rows
    if received == len(rows):
        return rows
    found = f"its input has {received} rows for {len(rows)} samples"
    if received % len(rows) == 0:
        announced.misfits[layer.noise_name] = f"{found}, taken as {received // len(rows)} in succession for each"
        return rows
    announced.misfits[layer.noise_name] = f"{found}, so its noise is drawn by position and not by sample"
    return announced.shared


def _stream(layer: Noisy, rows: Tensor, length: int, announced: Announced) -> Tensor:
    """The first numbers of the streams that begin at (row, layer, call): int64 [len(rows), length]."""
    if not layer.noise_name:
        raise UserError(f"a {type(layer).__name__} layer has no name to draw noise by: call name_layers(model) once")
    start = (layer.noise_key + announced.call(layer.noise_name) * _CALL) & _INT63
    steps = torch.arange(length, device=rows.device) * _GOLDEN + start
    return _mix(rows[:, None] + steps)


def _mix(z: Tensor) -> Tensor:
    """SplitMix64's finaliser, in place: every bit of z changes every bit of the result, and no two z have the same."""
    for by, factor in ((30, _MIX1), (27, _MIX2)):
        z.bitwise_xor_(_shift(z, by)).mul_(factor)
    return z.bitwise_xor_(_shift(z, 31))
