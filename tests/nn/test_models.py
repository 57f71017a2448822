"""One contract table for the reference models: parameters as published, shapes, gradients, dtypes, memory formats."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import nn

from talweg.errors import UserError
from talweg.initialize import initialize
from talweg.nn import count_parameters, models
from talweg.nn.models import MODELS


@dataclass(frozen=True)
class Row:
    published: int  # parameters with the settings of `default`
    shape: tuple[int, ...]  # of a tiny input; two dimensions mean tokens
    out: tuple[int, ...]
    tiny: dict[str, Any] = field(default_factory=dict)
    default: dict[str, Any] = field(default_factory=dict)


# Parameter counts are those published for the papers' networks; the small ones without are added up by hand below.
CONTRACT = {
    "linear": Row(650, (3, 1, 8, 8), (3, 10)),
    "mlp": Row(64 * 128 + 128 + 128 * 10 + 10, (3, 1, 8, 8), (3, 10), {"hidden": (12, 6), "dropout": 0.1}),
    "lenet5": Row(61_706, (3, 1, 8, 8), (3, 10), {"size": 8}),
    "resnet8": Row(78_042, (3, 1, 8, 8), (3, 10), {"in_channels": 1, "width": 4}),
    "resnet20": Row(272_474, (3, 1, 8, 8), (3, 10), {"in_channels": 1, "width": 4}),
    "resnet56": Row(855_770, (3, 1, 8, 8), (3, 10), {"in_channels": 1, "width": 2}),
    "resnet110": Row(1_730_714, (3, 3, 8, 8), (3, 10), {"width": 2}),
    "resnet18": Row(11_689_512, (3, 3, 64, 64), (3, 7), {"classes": 7, "width": 4}),
    "resnet34": Row(21_797_672, (3, 3, 64, 64), (3, 7), {"classes": 7, "width": 4}),
    "resnet50": Row(25_557_032, (3, 3, 64, 64), (3, 7), {"classes": 7, "width": 4}),
    "vgg9": Row(2_789_706, (3, 1, 8, 8), (3, 10), {"in_channels": 1, "size": 8, "width": 4}),
    "small_vgg16": Row(14_991_946, (3, 3, 32, 32), (3, 10), {"width": 4}),
    "vgg11": Row(132_863_336, (3, 3, 32, 32), (3, 7), {"classes": 7, "width": 8, "hidden": 32}),
    "vgg13": Row(133_047_848, (3, 3, 32, 32), (3, 7), {"classes": 7, "width": 8, "hidden": 32}),
    "vgg16": Row(138_357_544, (3, 3, 32, 32), (3, 7), {"classes": 7, "width": 8, "hidden": 32, "norm": True}),
    "vgg19": Row(143_667_240, (3, 3, 32, 32), (3, 7), {"classes": 7, "width": 8, "hidden": 32}),
    "alexnet": Row(61_100_840, (3, 3, 63, 63), (3, 7), {"classes": 7, "width": 8, "hidden": 32}),
    "wrn28_10": Row(36_479_194, (2, 3, 4, 4), (2, 10)),
    "densenet_bc": Row(769_162, (3, 1, 8, 8), (3, 10), {"depth": 16, "growth": 4, "in_channels": 1}),
    "densenet121": Row(7_978_856, (3, 3, 64, 64), (3, 7), {"classes": 7, "growth": 4}),
    "lstm_lm": Row(
        66_034_000, (3, 5), (3, 5, 11), {"vocabulary": 11, "width": 8}, {"vocabulary": 10_000, "width": 1500}
    ),
    "lstm_classifier": Row(165_122, (3, 5), (3, 2), {"width": 8}),
    "gpt": Row(
        124_439_808,
        (3, 5),
        (3, 5, 11),
        {"vocabulary": 11, "context": 5, "width": 8, "heads": 2, "layers": 2},
        {"vocabulary": 50_257, "context": 1024, "width": 768, "heads": 12, "layers": 12},
    ),
}
CONVOLUTIONAL = [name for name, row in CONTRACT.items() if len(row.shape) == 4 and name not in ("linear", "mlp")]


def tiny(name: str) -> nn.Module:
    """The model of the table in a small size, with initial weights that keep every path alive."""
    if name == "wrn28_10":  # the same code with fewer channels
        module: nn.Module = models.wide_resnet(10, 1, dropout=0.1)
    else:
        module = MODELS[name](**CONTRACT[name].tiny)
    initialize(module, "kaiming_normal", 0)
    return module


def example(name: str, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    row, random = CONTRACT[name], torch.Generator().manual_seed(1)
    if len(row.shape) == 2:
        return torch.randint(row.tiny.get("vocabulary", 256), row.shape, generator=random)
    return torch.randn(row.shape, generator=random).to(dtype)


def test_every_model_has_a_row() -> None:
    assert set(CONTRACT) == set(MODELS)
    assert all(getattr(models, name) is constructor for name, constructor in MODELS.items())


@pytest.mark.parametrize("name", CONTRACT)
def test_parameters_as_published(name: str) -> None:
    with torch.device("meta"):
        assert count_parameters(MODELS[name](**CONTRACT[name].default)) == CONTRACT[name].published


def test_parameters_by_hand() -> None:
    """Networks without a published count, added up layer by layer."""
    conv = lambda i, o, k=3: i * o * k * k  # noqa: E731
    with torch.device("meta"):
        resnet8 = conv(3, 16) + 32
        for i, o in (16, 16), (16, 32), (32, 64):
            resnet8 += conv(i, o) + conv(o, o) + 4 * o + (conv(i, o, 1) + 2 * o if i != o else 0)
        assert count_parameters(models.resnet8()) == resnet8 + 64 * 10 + 10
        vgg9 = 0
        for i, o in (3, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 256):
            vgg9 += conv(i, o) + o + 2 * o
        assert count_parameters(models.vgg9()) == vgg9 + (256 * 16 + 1) * 256 + 2 * 256 + 257 * 10
        lstm = 256 * 128 + 4 * 128 * (128 + 128 + 2) + 129 * 2
        assert count_parameters(models.lstm_classifier()) == lstm


@pytest.mark.parametrize(
    ("depth", "projection", "noshort"), [(20, 272_474, 269_722), (56, 855_770, 853_018), (110, 1_730_714, 1_727_962)]
)
def test_shortcuts_cost_what_the_papers_say(depth: int, projection: int, noshort: int) -> None:
    with torch.device("meta"):
        assert count_parameters(models.small_resnet(depth)) == projection
        assert count_parameters(models.small_resnet(depth, skip=False)) == noshort
        assert count_parameters(models.small_resnet(depth, shortcut="padding")) == noshort


def test_options_change_the_count() -> None:
    with torch.device("meta"):
        assert count_parameters(models.resnet18(classes=10, small_stem=True)) == 11_173_962
        assert count_parameters(models.wide_resnet(40, 4)) == 8_949_210
        assert count_parameters(models.gpt(tied=False)) - count_parameters(models.gpt()) == 256 * 128
        assert count_parameters(models.vgg16(norm=True)) - 138_357_544 == 2 * 4224  # γ and β of 4224 channels


@pytest.mark.parametrize("name", CONTRACT)
def test_forward_and_backward(name: str) -> None:
    """The output has the right shape and is finite, and a loss leaves a non-zero gradient on every parameter."""
    module, x = tiny(name), example(name)
    logits = module(x)
    assert logits.shape == CONTRACT[name].out
    assert logits.isfinite().all()
    weights = torch.randn(logits.shape, generator=torch.Generator().manual_seed(2))
    (logits.log_softmax(-1) * weights).sum().backward()
    dead = [
        n for n, p in module.named_parameters() if p.grad is None or not p.grad.isfinite().all() or p.grad.eq(0).all()
    ]
    assert dead == []


@pytest.mark.parametrize("name", CONTRACT)
def test_float64_agrees_with_float32(name: str) -> None:
    module = tiny(name).eval()
    single = module(example(name))
    double = module.double()(example(name, torch.float64))
    assert double.dtype == torch.float64
    torch.testing.assert_close(single.double(), double, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_channels_last_changes_nothing(name: str) -> None:
    module, x = tiny(name).double().eval(), example(name, torch.float64)
    expected = module(x)
    module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    torch.testing.assert_close(module(x.to(memory_format=torch.channels_last)), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("settings", [{"skip": False}, {"shortcut": "padding"}, {"in_channels": 3, "classes": 4}])
def test_small_resnet_variants_run_on_digits(settings: dict[str, Any]) -> None:
    module = models.small_resnet(14, **{"in_channels": 1, "width": 4, **settings})
    x = torch.randn(3, module.stem[0].in_channels, 8, 8)
    module(x).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in module.parameters())


def test_padding_shortcut_is_every_second_pixel_and_zeros() -> None:
    block = models.small_resnet(8, width=4, shortcut="padding").stages[1][0]
    x = torch.randn(2, 4, 8, 8)
    y = block.shortcut(x)
    assert torch.equal(y[:, :4], x[:, :, ::2, ::2])
    assert y.shape == (2, 8, 4, 4)
    assert y[:, 4:].eq(0).all()


def test_without_skips_a_dead_branch_stops_the_signal() -> None:
    """The input reaches the output of a block past a zeroed branch if there is a skip connection, and only then."""
    x = torch.rand(2, 4, 8, 8)
    for skip in True, False:
        block = models.small_resnet(8, width=4, skip=skip).stages[0][0].eval()
        nn.init.zeros_(block.conv2.weight)
        assert torch.equal(block(x), x if skip else torch.zeros_like(x))


def test_blocks_are_what_their_papers_draw() -> None:
    """Shortcut after the first norm (WRN), input kept beside new channels (DenseNet), stride on the 3×3 (ResNet-50)."""
    x = torch.randn(2, 16, 8, 8)
    wide = models.wide_resnet(10, 2).stages[0][0].eval()
    h = torch.relu(wide.norm1(x))
    y = wide.conv2(torch.relu(wide.norm2(wide.conv1(h)))) + wide.shortcut(h)
    torch.testing.assert_close(wide(x), y)
    dense = models.densenet((1, 1), growth=8).layers[0].eval()
    assert torch.equal(dense(x)[:, :16], x)
    assert dense(x).shape == (2, 24, 8, 8)
    bottleneck = models.resnet50(width=4).stages[1][0]
    assert [bottleneck.conv1.stride, bottleneck.conv2.stride, bottleneck.conv3.stride] == [(1, 1), (2, 2), (1, 1)]


@pytest.mark.parametrize("name", ["lstm_lm", "gpt"])
def test_language_models_do_not_see_the_future(name: str) -> None:
    module, tokens = tiny(name).eval(), example(name)
    changed = tokens.clone()
    changed[:, 3] = (changed[:, 3] + 1) % 11
    before, after = module(tokens), module(changed)
    torch.testing.assert_close(before[:, :3], after[:, :3])
    assert (before[:, 3] - after[:, 3]).abs().max() > 1e-4
    assert (before[:, 4] - after[:, 4]).abs().max() > 1e-6  # but the past is seen


def test_attention_is_softmax_of_scaled_products() -> None:
    """One head group at a time, by hand, in float64: rows of `qkv` are q, k, v of head 0, then of head 1."""
    attention = models.gpt(width=8, heads=2, layers=1).blocks[0].attention.double()
    x = torch.randn(2, 5, 8, dtype=torch.float64)
    heads = []
    for head in range(2):
        rows = slice(12 * head, 12 * head + 12)
        q, k, v = (x @ attention.qkv.weight[rows].T + attention.qkv.bias[rows]).split(4, dim=-1)
        scores = (q @ k.transpose(1, 2) / 2.0).masked_fill(torch.ones(5, 5).triu(1).bool(), -torch.inf)
        heads.append(scores.softmax(-1) @ v)
    torch.testing.assert_close(attention(x), attention.out(torch.cat(heads, -1)), rtol=1e-10, atol=1e-12)


def test_models_hold_no_buffers_but_norm_statistics() -> None:
    """So that a model built on the meta device needs nothing but `to_empty` and `initialize`."""
    for name in CONTRACT:
        with torch.device("meta"):
            buffers = {buffer.rsplit(".", 1)[-1] for buffer, _ in MODELS[name](**CONTRACT[name].tiny).named_buffers()}
        assert buffers <= {"running_mean", "running_var", "num_batches_tracked"}, name


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: models.small_resnet(18), "depth must be 6n \\+ 2"),
        (lambda: models.small_resnet(2), "received 2"),
        (lambda: models.small_resnet(8, shortcut="identity"), "shortcut must be"),
        (lambda: models.small_resnet(8, skip=False, shortcut="padding"), "no effect"),
        (lambda: models.wide_resnet(20, 2), "depth must be 6n \\+ 4"),
        (lambda: models.densenet_bc(20), "depth must be 6n \\+ 4"),
        (lambda: models.lenet5(size=33), "size must be"),
        (lambda: models.vgg9(size=0), "size must be"),
        (lambda: models.gpt(width=10, heads=4), "heads must be a divisor of width 10, received 4"),
        (lambda: models.gpt(context=4)(torch.zeros(1, 5, dtype=torch.int64)), "longer than context=4"),
    ],
)
def test_mistakes_are_named(build: Any, words: str) -> None:
    with pytest.raises(UserError, match=words):
        build()
