"""The moving average: its closed form, its way into the module and back, its way through a checkpoint."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from talweg.averaging import EMA, ema_decay
from talweg.errors import UserError


class Network(nn.Module):
    """A linear layer and batch normalisation, with the kinds of buffer that must not be averaged."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)
        self.norm = nn.BatchNorm1d(3)
        self.register_buffer("mask", torch.full((3, 3), float("-inf")).triu(1))
        self.register_buffer("cache", torch.arange(3.0), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.linear(x))


def on_one_vector(module: nn.Module) -> SimpleNamespace:
    """θ as the averager sees it: `value`, of which the module's parameters are views."""
    value = torch.cat([p.detach().reshape(-1) for p in module.parameters()])
    start = 0
    for parameter in module.parameters():
        parameter.data = value[start : start + parameter.numel()].view(parameter.shape)
        start += parameter.numel()
    return SimpleNamespace(value=value)


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def network() -> tuple[Network, SimpleNamespace]:
    module = Network()
    return module, on_one_vector(module)


def walk(module: Network, theta: SimpleNamespace, step: int) -> None:
    """Something that changes every weight and the batch statistics, as a training step does."""
    theta.value.add_(draw(theta.value.numel(), seed=step).float(), alpha=0.1)
    module.train()(draw(8, 4, seed=100 + step).float())


@pytest.mark.parametrize("shape", [(7,), (3, 7)], ids=["one network", "population of 3"])
@pytest.mark.parametrize("warmup", [True, False])
def test_average_is_the_closed_form(shape: tuple[int, ...], warmup: bool) -> None:
    theta = SimpleNamespace(value=draw(*shape, seed=0))
    ema, path = EMA(theta, nn.Identity(), decay=0.8, warmup=warmup), [theta.value.clone()]
    for step in range(60):
        theta.value.copy_(draw(*shape, seed=step + 1))
        ema.update(step)
        path.append(theta.value.clone())
    beta = [min(0.8, (1 + t) / (10 + t)) if warmup else 0.8 for t in range(60)]
    beta_after = [float(torch.tensor(beta[s:], dtype=torch.float64).prod()) for s in range(61)]
    expected = path[0] * beta_after[0] + sum((1 - beta[t]) * beta_after[t + 1] * path[t + 1] for t in range(60))
    torch.testing.assert_close(ema.vectors()["value"], expected, rtol=1e-13, atol=1e-14)


def test_warmup_of_the_decay_rises_to_it_and_stays() -> None:
    decays = [ema_decay(step, 0.9) for step in range(200)]
    assert decays == sorted(decays)
    assert (decays[0], decays[80], decays[81], decays[199]) == (0.1, 0.9, 0.9, 0.9)
    assert decays[79] < 0.9


def test_a_population_is_averaged_as_its_members_are() -> None:
    together = SimpleNamespace(value=draw(3, 5, seed=0))
    alone = [SimpleNamespace(value=row.clone()) for row in together.value]
    averages = [EMA(theta, nn.Identity(), decay=0.9) for theta in (together, *alone)]
    for step in range(20):
        together.value.copy_(draw(3, 5, seed=step + 1))
        for member, row in zip(alone, together.value, strict=True):
            member.value.copy_(row)
        for average in averages:
            average.update(step)
    assert torch.equal(averages[0].vectors()["value"], torch.stack([a.vectors()["value"] for a in averages[1:]]))


def test_float_buffers_are_averaged_and_others_left_alone(network: tuple[Network, SimpleNamespace]) -> None:
    module, theta = network
    ema = EMA(theta, module, decay=0.8, warmup=False)
    assert set(ema.vectors()) == {"value", "buffer.norm.running_mean", "buffer.norm.running_var"}
    expected = module.norm.running_mean.clone()
    for step in range(10):
        walk(module, theta, step)
        ema.update(step)
        expected = 0.8 * expected + 0.2 * module.norm.running_mean
    assert not torch.allclose(expected, module.norm.running_mean, atol=1e-4)
    with ema.swapped():
        torch.testing.assert_close(module.norm.running_mean, expected)
        assert int(module.norm.num_batches_tracked) == 10
        assert torch.equal(module.mask, Network().mask)


def test_a_buffer_that_the_module_replaces_is_followed() -> None:
    module = nn.Module()
    module.register_buffer("centre", torch.zeros(2))
    ema = EMA(SimpleNamespace(value=torch.zeros(1)), module, decay=0.5, warmup=False)
    module.centre = torch.ones(2)  # a new tensor, not the old one written in place
    ema.update(0)
    assert ema.vectors()["buffer.centre"].tolist() == [0.5, 0.5]
    with ema.swapped():
        assert module.centre.tolist() == [0.5, 0.5]
    assert module.centre.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("fails", [False, True], ids=["normal end", "evaluation raises"])
def test_swap_shows_the_average_and_restores_bit_for_bit(network: tuple[Network, SimpleNamespace], fails: bool) -> None:
    module, theta = network
    ema = EMA(theta, module)
    for step in range(5):
        walk(module, theta, step)
        ema.update(step)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    average = {name: tensor.clone() for name, tensor in ema.vectors().items()}
    pointers = [p.data_ptr() for p in module.parameters()]
    try:
        with ema.swapped():
            assert torch.equal(theta.value, average["value"])
            assert torch.equal(module.linear.weight.flatten(), average["value"][:12])
            assert torch.equal(module.norm.running_var, average["buffer.norm.running_var"])
            assert not torch.equal(theta.value[:12], before["linear.weight"].flatten())
            if fails:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        assert fails
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    assert all(torch.equal(tensor, average[name]) for name, tensor in ema.vectors().items())
    assert [p.data_ptr() for p in module.parameters()] == pointers


def test_restored_in_the_middle_of_a_run_it_goes_on_bit_for_bit(network: tuple[Network, SimpleNamespace]) -> None:
    module, theta = network
    whole = EMA(theta, module, decay=0.9)
    for step in range(6):
        walk(module, theta, step)
        whole.update(step)
    saved = {name: tensor.clone() for name, tensor in whole.vectors().items()}
    resumed = EMA(theta, module, decay=0.9)
    resumed.restore(saved)
    for step in range(6, 12):
        walk(module, theta, step)
        whole.update(step)
        resumed.update(step)
    assert all(torch.equal(resumed.vectors()[name], tensor) for name, tensor in whole.vectors().items())
    assert not torch.equal(saved["value"], whole.vectors()["value"])


def test_padding_stays_zero() -> None:
    theta = SimpleNamespace(value=torch.zeros(8))
    ema = EMA(theta, nn.Identity())
    for step in range(3):
        theta.value[:5] = draw(5, seed=step).float()
        ema.update(step)
    assert torch.equal(ema.vectors()["value"][5:], torch.zeros(3))


@pytest.mark.parametrize("decay", [-0.1, 1.0, 2, float("nan"), "0.9"])
def test_decay_out_of_range(decay: float) -> None:
    with pytest.raises(UserError, match=r"decay of the average must be in \[0, 1\)"):
        EMA(SimpleNamespace(value=torch.zeros(1)), nn.Identity(), decay=decay)


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        ({}, "has no averaged 'value'"),
        ({"value": torch.zeros(2), "buffer.x": torch.zeros(1)}, "has an unknown averaged 'buffer.x'"),
        ({"value": torch.zeros(3)}, "shape and type"),
        ({"value": torch.zeros(2, dtype=torch.float64)}, "shape and type"),
    ],
)
def test_vectors_that_do_not_fit(vectors: dict[str, Tensor], message: str) -> None:
    ema = EMA(SimpleNamespace(value=torch.ones(2)), nn.Identity())
    with pytest.raises(UserError, match=message):
        ema.restore(vectors)
    assert ema.vectors()["value"].tolist() == [1.0, 1.0]
