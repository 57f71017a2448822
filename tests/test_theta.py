"""The network as one vector: where segments lie, that module and vector are one memory, and what breaks that."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from talweg import Layout, Recipe, Task, Theta, Training, UserError, Weights
from talweg.nn.models import gpt, resnet8
from talweg.optimizers import RULES
from talweg.theta import ALIGNMENT


def odd_net() -> nn.Sequential:
    """Sizes that leave a gap after every segment."""
    return nn.Sequential(nn.Linear(6, 5), nn.LayerNorm(5), nn.ReLU(), nn.Linear(5, 3, bias=False))


def in_gaps(theta: Theta) -> Tensor:
    """True where a vector holds no parameter, [l]."""
    gaps = torch.ones(len(theta.value), dtype=torch.bool)
    for s in theta.segments:
        gaps[s.start : s.stop] = False
    return gaps


def test_segments_are_aligned_in_order_and_separate() -> None:
    theta = Theta(odd_net())
    assert [(s.name, s.shape, s.decay) for s in theta.segments] == [
        ("0.weight", (5, 6), True),
        ("3.weight", (3, 5), True),
        ("0.bias", (5,), False),
        ("1.weight", (5,), False),
        ("1.bias", (5,), False),
    ]
    assert [(s.start, s.stop) for s in theta.segments] == [(0, 30), (32, 47), (48, 53), (64, 69), (80, 85)]
    assert all(s.start % ALIGNMENT == 0 for s in theta.segments)
    assert len(theta.value) == len(theta.grad) == 96
    assert theta.numel == 60
    assert in_gaps(theta).sum() == 36
    assert not theta.value[in_gaps(theta)].any()
    assert theta.value.data_ptr() % 64 == 0


def test_groups_are_slices_decayed_first_then_by_multiplier() -> None:
    theta = Theta(odd_net(), lr_scale=lambda name, p: 0.1 if name.startswith("0.") else 1.0)
    assert [(g.decay, g.lr_scale, g.start, g.stop) for g in theta.groups] == [
        (True, 0.1, 0, 32),
        (True, 1.0, 32, 48),
        (False, 0.1, 48, 64),
        (False, 1.0, 64, 96),
    ]
    spans = [span for group in theta.groups for span in group.spans]
    assert spans == [(s.start, s.stop) for s in theta.segments]
    only = Theta(odd_net(), decay=lambda name, p: name == "3.weight")
    assert [s.name for s in only.segments if s.decay] == ["3.weight"]
    assert only.segments[0].name == "3.weight"


def test_module_and_vector_are_one_memory() -> None:
    net = odd_net()
    kept = {name: p.detach().clone() for name, p in net.named_parameters()}
    theta = Theta(net)
    for name, p in net.named_parameters():
        assert torch.equal(p, kept[name])
        assert torch.equal(theta[name], kept[name])
    x = torch.randn(4, 6)
    before = net(x)
    theta.value.mul_(-2.0)
    assert not torch.allclose(net(x), before)
    assert torch.equal(net[3].weight, -2.0 * kept["3.weight"])
    with torch.no_grad():
        net[0].bias.fill_(7.0)
    assert theta["0.bias"].tolist() == theta.value[48:53].tolist() == [7.0] * 5


def test_gradient_accumulates_in_place() -> None:
    net, x = odd_net(), torch.randn(4, 6)
    plain = copy.deepcopy(net)
    theta = Theta(net)
    pointer = theta.grad.data_ptr()
    for passes in (1, 2):
        net(x).square().sum().backward()
        plain(x).square().sum().backward()
        for name, p in plain.named_parameters():
            assert torch.equal(theta.split(theta.grad)[name], p.grad), (name, passes)
    theta.check()
    assert theta.grad.data_ptr() == pointer
    assert not theta.grad[in_gaps(theta)].any()
    theta.grad.zero_()
    assert not net[0].weight.grad.any()


@pytest.mark.parametrize("name", RULES)
def test_gaps_stay_zero_through_training(name: str) -> None:
    x = torch.randn(64, 6, generator=torch.Generator().manual_seed(0))
    task = Task(name="t", model=odd_net, train=(x, x[:, :3].argmax(1)))
    rule = RULES[name](lr=0.01, weight_decay=0.1)
    recipe = Recipe(batch=16, epochs=2, clip=1.0, optimizer=rule, weights=Weights(ema=0.5))
    training = Training(task, recipe, Layout(device="cpu", threads=1, compile="off"))
    start, gaps = training.theta.value.clone(), in_gaps(training.theta)
    for _ in training:
        assert not training.theta.value[gaps].any()
        assert not training.theta.grad[gaps].any()
    assert (training.theta.value != start)[~gaps].any()
    assert training.built.ema is not None
    assert not training.built.ema.vectors()["value"][gaps].any()


def test_channels_last_filters_keep_their_strides() -> None:
    net = nn.Conv2d(3, 8, 3).to(memory_format=torch.channels_last)
    theta = Theta(net)
    assert net.weight.is_contiguous(memory_format=torch.channels_last)
    assert theta["weight"].stride() == net.weight.stride() == net.weight.grad.stride() == (27, 1, 9, 3)
    both = torch.arange(2.0 * len(theta.value)).view(2, -1)  # [K, l]
    assert torch.equal(theta.split(both)["weight"][1], theta.split(both[1])["weight"])


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 4)
        self.head = nn.Linear(4, 7, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.embedding(tokens))


def test_tied_weights_count_once() -> None:
    net = Tied()
    theta = Theta(net)
    assert [s.name for s in theta.segments] == ["embedding.weight"]
    assert theta.numel == 28
    net(torch.tensor([[1, 2]])).sum().backward()
    assert net.head.weight.data_ptr() == theta.value.data_ptr()
    assert set(net.state_dict()) == {"embedding.weight", "head.weight"}
    pairs = [("a", net.head.weight), ("b", net.embedding.weight)]
    assert [s.name for s in Theta(pairs).segments] == ["a"]
    language = gpt(vocabulary=50, context=8, width=16, heads=2, layers=1)
    names = [s.name for s in Theta(language).segments]
    assert names.count("token.weight") == 1
    assert not any("head" in name for name in names)


def test_frozen_parameters_are_left_out() -> None:
    net = odd_net()
    net[0].weight.requires_grad_(False)
    pointer = net[0].weight.data_ptr()
    theta = Theta(net)
    assert "0.weight" not in theta.split(theta.value)
    assert theta.numel == 30
    net(torch.randn(2, 6)).sum().backward()
    theta.check()
    assert net[0].weight.grad is None
    assert net[0].weight.data_ptr() == pointer
    with pytest.raises(UserError, match=r"unknown parameter '3\.weigth': did you mean '3\.weight'"):
        theta["3.weigth"]


def test_state_dict_and_load_state_dict_work() -> None:
    net, other = resnet8(in_channels=1), resnet8(in_channels=1)
    theta = Theta(net)
    state = net.state_dict()
    assert state.keys() == other.state_dict().keys()
    net.load_state_dict(other.state_dict())
    theta.check()
    for name, p in other.named_parameters():
        assert torch.equal(theta[name], p)
    other.load_state_dict(net.state_dict())
    x = torch.randn(2, 1, 8, 8)
    assert torch.equal(net(x), other(x))


def test_deep_copy_is_independent() -> None:
    net = odd_net()
    theta = Theta(net)
    twin, kept = copy.deepcopy(net), theta.value.clone()
    with torch.no_grad():
        for p in twin.parameters():
            p.zero_()
    twin(torch.ones(1, 6)).sum().backward()
    assert torch.equal(theta.value, kept)
    assert not theta.grad.any()
    theta.check()
    assert Theta(twin).value.data_ptr() != theta.value.data_ptr()


def test_lstm_follows_the_vector() -> None:
    net = nn.LSTM(3, 4, num_layers=2, batch_first=True)
    theta, x = Theta(net), torch.randn(2, 5, 3)
    net(x)[0].sum().backward()
    theta.check()
    assert all(p.grad.any() for p in net.parameters())
    theta.value.zero_()
    assert not net(x)[0].any()


def test_moved_module_is_noticed_and_gathered_again() -> None:
    net = odd_net()
    theta = Theta(net)
    net(torch.ones(2, 6)).square().sum().backward()
    value, grad = theta.value.clone(), theta.grad.clone()
    assert theta.attached
    assert not theta.reattach()
    net.double()
    assert not theta.attached
    with pytest.raises(UserError, match=r"parameter '0\.weight' was moved.*call theta\.reattach\(\)"):
        theta.check()
    assert theta.reattach()
    assert theta.value.dtype == theta.grad.dtype == torch.float64
    assert torch.equal(theta.value, value.double())
    assert torch.equal(theta.grad, grad.double())
    net(torch.ones(2, 6, dtype=torch.float64)).square().sum().backward()
    theta.check()
    torch.testing.assert_close(theta.grad, 2 * grad.double(), rtol=1e-5, atol=1e-6)
    net.to(torch.float32)
    assert theta.reattach()
    assert torch.equal(theta.value, value)


def set_to_none(net: nn.Sequential) -> None:
    net.zero_grad(set_to_none=True)


def assign_last(net: nn.Sequential) -> None:
    net[3].weight.grad = torch.ones_like(net[3].weight)


def move_last(net: nn.Sequential) -> None:
    net[3].weight.data = net[3].weight.data.clone()


@pytest.mark.parametrize(
    ("interfere", "message"),
    [
        (set_to_none, r"gradient of '0\.weight' was replaced.*theta\.grad\.zero_\(\)"),
        (assign_last, r"gradient of '3\.weight' was replaced"),
        (move_last, r"parameter '3\.weight' was moved"),
    ],
)
def test_what_leaves_the_vector_is_named(interfere: Callable[[nn.Sequential], None], message: str) -> None:
    net = odd_net()
    theta = Theta(net)
    interfere(net)
    with pytest.raises(UserError, match=message):
        theta.check()


def test_changing_gradients_in_place_is_allowed() -> None:
    net = odd_net()
    theta = Theta(net)
    net(torch.ones(2, 6)).square().sum().backward()
    nn.utils.clip_grad_norm_(net.parameters(), 0.01)
    theta.check()
    assert torch.linalg.vector_norm(theta.grad) <= 0.01 + 1e-6
    net.zero_grad(set_to_none=False)
    theta.check()
    assert not theta.grad.any()


@pytest.mark.parametrize("lead", [(), (3,), (2, 3)])
def test_segment_norms_are_those_of_the_parameters(lead: tuple[int, ...]) -> None:
    theta = Theta(resnet8(in_channels=1, width=4).double())
    vector = torch.randn(*lead, len(theta.value), dtype=torch.float64)
    norms = theta.segment_norms(vector)
    assert norms.shape == (*lead, len(theta.segments))
    for i, view in enumerate(theta.split(vector).values()):
        expected = torch.linalg.vector_norm(view.flatten(len(lead)), dim=-1)
        torch.testing.assert_close(norms[..., i], expected, rtol=1e-14, atol=0)


@pytest.mark.parametrize("lead", [(), (3,)])
def test_split_and_join_are_inverse(lead: tuple[int, ...]) -> None:
    theta = Theta(resnet8(in_channels=1, width=4).to(memory_format=torch.channels_last))
    vector = torch.randn(*lead, len(theta.value)).masked_fill_(in_gaps(theta), 0.0)
    parts = theta.split(vector)
    assert {name: part.shape for name, part in parts.items()} == {s.name: (*lead, *s.shape) for s in theta.segments}
    copies = {name: part.contiguous().clone() for name, part in parts.items()}
    assert torch.equal(theta.join(copies, torch.zeros_like(vector)), vector)
    parts["head.bias"].fill_(5.0)  # views, not copies
    last = theta.segments[[s.name for s in theta.segments].index("head.bias")]
    assert (vector[..., last.start : last.stop] == 5.0).all()


def test_views_of_a_column_are_right() -> None:
    """A vector whose elements are not neighbours, such as one column of a matrix of trajectories [l, T]."""
    theta = Theta(odd_net())
    columns = torch.randn(len(theta.value), 4)
    for name, part in theta.split(columns[:, 2]).items():
        assert torch.equal(part, theta.split(columns[:, 2].contiguous())[name])
    assert torch.equal(theta.split(columns.T)["0.weight"][2], theta.split(columns[:, 2])["0.weight"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda parts: parts | {"extra": torch.zeros(1)}, "unknown parameter 'extra'"),
        (lambda parts: {n: p for n, p in parts.items() if n != "0.bias"}, r"'0\.bias' is missing"),
        (lambda parts: parts | {"0.bias": torch.zeros(6)}, r"'0\.bias' has shape \[6\], the model expects \[5\]"),
    ],
)
def test_join_refuses_weights_of_another_model(change: Callable[[Any], Any], message: str) -> None:
    theta = Theta(odd_net())
    with pytest.raises(UserError, match=message):
        theta.join(change(theta.split(theta.value)), torch.zeros_like(theta.value))


def frozen() -> nn.Module:
    return nn.Linear(2, 2).requires_grad_(False)


def mixed() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2).double())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (nn.ReLU, "no trainable parameter"),
        (frozen, "are all of them frozen"),
        (lambda: nn.LazyLinear(3), "'weight' is lazy"),
        (mixed, r"'1\.weight' is torch.float64 on cpu, '0\.weight' is torch.float32 on cpu"),
        (lambda: nn.Linear(2, 2, dtype=torch.complex64), "only floating-point parameters"),
        (
            lambda: [("a", nn.Parameter(torch.ones(1))), ("a", nn.Parameter(torch.ones(1)))],
            "2 parameters are called 'a'",
        ),
    ],
)
def test_models_that_cannot_be_trained_are_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Theta(make())


def test_unusual_shapes() -> None:
    """A single number, nothing at all, and memory that is not dense."""
    shared = nn.Parameter(torch.ones(1).expand(5))
    pairs = [("scalar", nn.Parameter(torch.tensor(2.0))), ("none", nn.Parameter(torch.zeros(0, 3))), ("shared", shared)]
    theta = Theta(pairs)
    assert theta["scalar"].item() == 2.0
    assert theta["none"].shape == (0, 3)
    assert theta.numel == 6
    (shared * torch.arange(5.0)).sum().backward()
    theta.check()
    assert theta.split(theta.grad)["shared"].tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert theta.segment_norms(theta.value)[[s.name for s in theta.segments].index("none")] == 0.0


def test_layout_is_known_without_memory() -> None:
    with torch.device("meta"):
        theta = Theta(odd_net())
    assert theta.value.is_meta
    assert [s.start for s in theta.segments] == [s.start for s in Theta(odd_net()).segments]
