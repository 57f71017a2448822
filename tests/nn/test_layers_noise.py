"""Noise layers: one contract table. A sample's noise is a function of (seed, step, layer, sample, position) alone."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from talweg.errors import UserError
from talweg.nn import (
    AlphaDropout,
    DropConnect,
    Dropout,
    Dropout1d,
    Dropout2d,
    Dropout3d,
    FeatureAlphaDropout,
    FractionalMaxPool2d,
    FractionalMaxPool3d,
    RReLU,
    StochasticDepth,
    name_layers,
    noise_context,
    random_bits,
    random_uniform,
)


@dataclass(frozen=True)
class Row:
    make: Callable[[], nn.Module]
    shape: tuple[int, ...]  # of one sample
    torch: Callable[[], nn.Module] | None = None  # torch's own layer
    identity: bool = True  # in evaluation
    shared: bool = False  # all samples of an update have the same noise
    keeps_format: bool = True  # torch's fractional pooling gives contiguous images, whatever it gets


CONTRACT = {
    "dropout": Row(lambda: Dropout(0.3), (10,), lambda: nn.Dropout(0.3)),
    "dropout of images": Row(lambda: Dropout(0.5), (3, 5, 7), lambda: nn.Dropout(0.5)),
    "dropout in place": Row(lambda: Dropout(0.5, inplace=True), (9,), lambda: nn.Dropout(0.5, inplace=True)),
    "dropout1d": Row(lambda: Dropout1d(0.5), (6, 5), lambda: nn.Dropout1d(0.5)),
    "dropout2d": Row(lambda: Dropout2d(0.5), (6, 4, 5), lambda: nn.Dropout2d(0.5)),
    "dropout3d": Row(lambda: Dropout3d(0.5), (6, 2, 3, 2), lambda: nn.Dropout3d(0.5)),
    "alpha": Row(lambda: AlphaDropout(0.2), (10,), lambda: nn.AlphaDropout(0.2)),
    "feature alpha": Row(lambda: FeatureAlphaDropout(0.5), (6, 3), lambda: nn.FeatureAlphaDropout(0.5)),
    "rrelu": Row(lambda: RReLU(), (4, 3, 3), lambda: nn.RReLU(), identity=False),
    "rrelu in place": Row(lambda: RReLU(inplace=True), (12,), lambda: nn.RReLU(inplace=True), identity=False),
    "pooling": Row(lambda: FractionalMaxPool2d(2, output_ratio=0.7), (3, 8, 7), identity=False, keeps_format=False),
    "pooling 3d": Row(lambda: FractionalMaxPool3d(2, output_size=(3, 3, 2)), (2, 5, 6, 4), identity=False),
    "stochastic depth": Row(lambda: StochasticDepth(0.5), (2, 3, 3)),
    "dropconnect": Row(lambda: DropConnect(7, 5, p=0.5), (4, 7), identity=False),
    "dropconnect, one mask": Row(lambda: DropConnect(7, 5, p=0.5, per_sample=False), (7,), identity=False, shared=True),
}
ROWS = pytest.mark.parametrize("row", CONTRACT.values(), ids=CONTRACT)


def made(row: Row, dtype: torch.dtype = torch.float64) -> nn.Module:
    """The layer, named, with small whole numbers for weights: sums of them have no rounding."""
    layer = row.make().to(dtype)
    name_layers(nn.ModuleDict({"layer": layer}))
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(numbers(*parameter.shape))
    return layer


def numbers(*shape: int) -> Tensor:
    return torch.randint(-4, 5, shape, generator=torch.Generator().manual_seed(0)).double()


def drawn(layer: nn.Module, x: Tensor, samples: Tensor, seed: int = 0, step: int = 3) -> Tensor:
    with noise_context(seed, step, samples):
        return layer(x.clone())


SAMPLES = torch.tensor([5, 0, 60_000, 17, 123_456_789_012, 3, 8])


@ROWS
def test_the_noise_of_a_sample_is_the_same_in_any_batch(row):
    layer, x = made(row), numbers(len(SAMPLES), *row.shape)
    whole = drawn(layer, x, SAMPLES)
    for cut in (1, 2, 3, 6):
        parts = [drawn(layer, a, i) for a, i in zip(x.split(cut), SAMPLES.split(cut), strict=True)]
        assert torch.equal(torch.cat(parts), whole)
    mixed = torch.tensor([3, 6, 0, 1, 5, 4, 2])
    torch.manual_seed(1)  # the global generator plays no part
    assert torch.equal(drawn(layer, x[mixed], SAMPLES[mixed]), whole[mixed])


@ROWS
def test_the_noise_differs_by_seed_step_layer_call_and_sample(row):
    layer, x = made(row), numbers(1, *row.shape).expand(64, *row.shape)
    samples = torch.arange(64)
    first = drawn(layer, x, samples)
    others = [drawn(layer, x, samples, seed=1), drawn(layer, x, samples, step=4)]
    with noise_context(0, 3, samples):
        assert torch.equal(layer(x.clone()), first)
        others.append(layer(x.clone()))  # the same layer at a second place of the model
    layer.noise_name = ""
    name_layers(nn.ModuleDict({"other": layer}))
    others.append(drawn(layer, x, samples))
    assert not any(torch.equal(first, other) for other in others)
    assert torch.equal(first, first[:1].expand_as(first)) == row.shared


@ROWS
def test_evaluation_has_no_noise(row):
    layer, x = made(row).eval(), numbers(4, *row.shape)
    y = layer(x.clone())
    assert torch.equal(drawn(layer, x, torch.arange(4)), y)
    assert torch.equal(layer(x.clone()), y)
    assert torch.equal(y, x) == row.identity
    assert not layer.state_dict().keys() - {"weight", "bias"}


@ROWS
def test_outside_a_context_torch_draws(row):
    layer, x = made(row), numbers(40, *row.shape)
    ys = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        ys.append(layer(x.clone()))
    assert torch.equal(ys[0], ys[1])
    assert not torch.equal(ys[0], ys[2])
    if row.torch is not None:
        torch.manual_seed(0)
        assert torch.equal(row.torch()(x.clone()), ys[0])


@ROWS
def test_gradients(row):
    layer = made(row)
    shape = (3, *row.shape)
    # All values differ, so that no maximum is a tie; and none is near 0, where rrelu has a kink.
    order = torch.randperm(torch.Size(shape).numel(), generator=torch.Generator().manual_seed(1)).double()
    x = (order - order.numel() // 2 + 0.5).view(shape).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: drawn(layer, x, SAMPLES[:3]), x)


@ROWS
def test_memory_format_and_precision_change_nothing(row):
    layer, x = made(row), numbers(6, *row.shape)
    y = drawn(layer, x, SAMPLES[:6])
    if x.dim() == 4:
        last = x.contiguous(memory_format=torch.channels_last)
        z = drawn(layer, last, SAMPLES[:6])
        assert torch.equal(z, y)
        assert z.is_contiguous(memory_format=torch.channels_last) == row.keeps_format
    for dtype, tolerance in ((torch.float32, 1e-6), (torch.bfloat16, 0.02)):
        z = drawn(made(row, dtype), x.to(dtype), SAMPLES[:6])
        assert z.dtype == dtype
        torch.testing.assert_close(z.double(), y, rtol=tolerance, atol=10 * tolerance)


@ROWS
def test_a_copy_draws_the_same(row):
    layer, x = made(row), numbers(4, *row.shape)
    assert torch.equal(drawn(copy.deepcopy(layer), x, SAMPLES[:4]), drawn(layer, x, SAMPLES[:4]))


# probabilities, and how many of them in 65,536 keep a value
@pytest.mark.parametrize("p", [0.5, 0.1, 0.9, 1 / 3, 1e-3])
@pytest.mark.parametrize("kind", [Dropout, Dropout2d, StochasticDepth])
def test_rates_and_scales(kind, p):
    shape = {Dropout: (400, 250), Dropout2d: (400, 250, 1, 2), StochasticDepth: (100_000, 2)}[kind]
    layer = kind(p)
    name_layers(layer)
    y = drawn(layer, torch.ones(shape, dtype=torch.float64), torch.arange(shape[0]))
    draws = y.view(shape[0], -1)[:, ::2].flatten() if kind is not Dropout else y.flatten()
    keep = round((1 - p) * 65536) / 65536
    assert y.unique().tolist() == [0.0, 1 / keep]
    error = (draws > 0).double().mean().item() - keep
    assert abs(error) < 4 * (keep * (1 - keep) / len(draws)) ** 0.5
    if kind is not Dropout:
        assert torch.equal(y.flatten()[::2], y.flatten()[1::2])  # whole channels, whole samples


def test_masks_are_independent():
    """Correlations between neighbours in position, sample, step, call and layer are those of chance."""
    layers = nn.ModuleList([Dropout(0.5), Dropout(0.5)])
    name_layers(layers)
    n, width = 512, 512

    def signs(layer: nn.Module, step: int = 0, first: int = 0) -> Tensor:
        y = drawn(layer, torch.ones(n, width), torch.arange(first, first + n), step=step)
        return y - 1  # ±1

    a = signs(layers[0])
    pairs = [(a[:, lag:], a[:, :-lag]) for lag in (1, 2, 3, 4, 8)] + [(a[lag:], a[:-lag]) for lag in (1, 2, 16)]
    pairs += [(a, signs(layers[0], step)) for step in (1, 2, 1000)] + [(a, signs(layers[1]))]
    pairs += [(a, signs(layers[0], first=n)), (a, a.roll((1, 1), (0, 1)))]
    for x, y in pairs:
        assert abs((x * y).sum().item()) < 4.5 * x.numel() ** 0.5
    assert torch.equal(a[1:], signs(layers[0], first=1)[:-1])
    for sums, expected in ((a.sum(1), width), (a.sum(0), n)):
        assert abs(sums.var().item() / expected - 1) < 5 * (2 / n) ** 0.5


def test_uniform_numbers_are_uniform():
    layer = Dropout()
    name_layers(layer)
    with noise_context(0, 0, torch.arange(1000)):
        u = random_uniform(layer, torch.empty(1000), 1000).double()
        bits = random_bits(layer, torch.empty(1000), 1000)
    assert abs(u.mean() - 0.5) < 5 / (12e6) ** 0.5
    assert 0 <= u.min() < 1e-5
    assert 1 - 1e-5 < u.max() < 1
    counts = torch.bincount((bits.flatten().long() + 32768) >> 8, minlength=256).double()
    assert ((counts - 1e6 / 256) ** 2 / (1e6 / 256)).sum() < 255 + 5 * (2 * 255) ** 0.5


def test_alpha_dropout_keeps_mean_and_variance():
    layer = AlphaDropout(0.3)
    name_layers(layer)
    x = torch.randn(1000, 200, generator=torch.Generator().manual_seed(0))
    y = drawn(layer, x, torch.arange(1000))
    assert abs(y.mean()) < 0.01
    assert abs(y.var() - 1) < 0.01


class Block(nn.Module):
    """A layer that uses its dropout twice, as many models do."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.dropout = nn.Linear(8, 8), Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(torch.tanh(self.linear(self.dropout(x))))


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("passes", [1, 2])
def test_recomputed_activations_have_the_noise_of_the_first_time(reentrant, passes):
    """Gradients with activation checkpointing are those without: blocks, shared blocks and repeated passes."""
    torch.manual_seed(0)
    blocks = nn.ModuleList([Block(), Block()]).double()
    name_layers(blocks)
    x = torch.randn(6, 8, dtype=torch.float64, requires_grad=True)

    def gradients(run: Callable[[nn.Module, Tensor], Tensor]) -> list[Tensor]:
        with noise_context(0, 0, torch.arange(6)):
            total = x.new_zeros(())
            for _ in range(passes):
                h = x
                for block in (blocks[0], blocks[1], blocks[0]):  # one block at two depths
                    h = run(block, h)
                total = total + h.square().sum()
            return list(torch.autograd.grad(total, list(blocks.parameters()))) if not reentrant else swept(total)

    def swept(total: Tensor) -> list[Tensor]:
        blocks.zero_grad()
        total.backward()
        return [p.grad.clone() for p in blocks.parameters()]

    plain = gradients(lambda block, h: block(h))
    again = gradients(lambda block, h: checkpoint(block, h, use_reentrant=reentrant))
    assert all(torch.equal(a, b) for a, b in zip(plain, again, strict=True))


def test_compiled_layers_draw_the_same_and_compile_once():
    torch._dynamo.reset()
    model = nn.Sequential(Block(), Dropout2d(0.5), StochasticDepth(0.3), DropConnect(8, 4))
    name_layers(model)
    compiled = torch.compile(model, backend="aot_eager", dynamic=False)
    x = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    with torch._dynamo.config.patch(error_on_recompile=True):
        for step in range(3):
            samples = torch.arange(4) + 10 * step
            assert torch.equal(drawn(compiled, x, samples, step=step), drawn(model, x, samples, step=step))


def test_rows_that_are_not_samples_are_noted():
    model = nn.ModuleDict({"folded": Dropout(0.5), "common": Dropout(0.5), "own": Dropout(0.5), "scalar": Dropout(0.5)})
    name_layers(model)
    samples = torch.tensor([4, 9])
    with noise_context(0, 0, samples) as announced:
        tokens = model["folded"](torch.ones(6, 5))  # [B·T, F]
        position = model["common"](torch.ones(1, 5))
        model["scalar"](torch.ones(()))
        model["own"](torch.ones(2, 5))
    assert announced.misfits == {
        "folded": "its input has 6 rows for 2 samples, taken as 3 in succession for each",
        "common": "its input has 1 rows for 2 samples, so its noise is drawn by position and not by sample",
        "scalar": "its input has 1 rows for 2 samples, so its noise is drawn by position and not by sample",
    }
    with noise_context(0, 0, samples[1:]):
        assert torch.equal(model["folded"](torch.ones(3, 5)), tokens[3:])
    with noise_context(0, 0, torch.arange(7)):
        assert torch.equal(model["common"](torch.ones(1, 5)), position)  # common to the update, however it is cut


def test_contexts_nest_and_end():
    layer = Dropout(0.5)
    name_layers(layer)
    x = torch.ones(1, 64)
    with noise_context(0, 0, torch.tensor([1])):
        outer = layer(x)
        with noise_context(0, 0, torch.tensor([2])):
            inner = layer(x)
    assert torch.equal(outer, drawn(layer, x, torch.tensor([1]), step=0))
    assert torch.equal(inner, drawn(layer, x, torch.tensor([2]), step=0))
    with pytest.raises(KeyError), noise_context(0, 0, torch.tensor([1])):
        raise KeyError
    torch.manual_seed(0)
    expected = nn.Dropout(0.5)(x)
    torch.manual_seed(0)
    assert torch.equal(layer(x), expected)


def test_certain_probabilities():
    x = torch.ones(3, 4)
    for p, expected in ((0.0, 1.0), (1.0, 0.0)):
        layer = Dropout(p)
        name_layers(layer)
        assert torch.equal(drawn(layer, x, torch.arange(3)), x * expected)


def test_bad_announcements():
    for indices in (torch.zeros(2), torch.zeros(2, 2, dtype=torch.int64)):
        with pytest.raises(UserError, match="indices must be sample numbers"), noise_context(0, 0, indices):
            pass
    with (
        noise_context(0, 0, torch.arange(3)),
        pytest.raises(UserError, match="a Dropout layer has no name to draw noise by: call name_layers"),
    ):
        Dropout(0.5)(torch.ones(3, 2))
    caught = []

    def other() -> None:
        with pytest.raises(UserError) as error, noise_context(0, 0, torch.arange(3)):
            pass
        caught.append(str(error.value))

    with noise_context(0, 0, torch.arange(3)):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert caught[0].startswith("another thread of this process is training with announced noise")
