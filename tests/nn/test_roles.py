"""What each parameter of torch's layers is, checked against the layers themselves."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from talweg.initialize import initialize
from talweg.nn.roles import role_of, slots

# Layers that hold parameters, in sizes that give each of them enough values to estimate a scale.
LAYERS: dict[str, Callable[[], nn.Module]] = {
    "Linear": lambda: nn.Linear(300, 200),
    "Bilinear": lambda: nn.Bilinear(20, 30, 200),
    "Conv1d": lambda: nn.Conv1d(32, 200, 5),
    "Conv2d": lambda: nn.Conv2d(32, 200, 3),
    "Conv2d groups": lambda: nn.Conv2d(64, 200, 3, groups=4),
    "Conv3d": lambda: nn.Conv3d(8, 200, 3),
    "ConvTranspose2d": lambda: nn.ConvTranspose2d(100, 200, 3),
    "ConvTranspose2d groups": lambda: nn.ConvTranspose2d(100, 200, 3, groups=2),
    "Embedding": lambda: nn.Embedding(300, 40, padding_idx=3),
    "EmbeddingBag": lambda: nn.EmbeddingBag(300, 40),
    "LSTM": lambda: nn.LSTM(50, 60, num_layers=2, bidirectional=True),
    "LSTM projection": lambda: nn.LSTM(50, 60, proj_size=40),
    "GRU": lambda: nn.GRU(50, 60),
    "RNN": lambda: nn.RNN(50, 200),
    "LSTMCell": lambda: nn.LSTMCell(50, 60),
    "MultiheadAttention": lambda: nn.MultiheadAttention(200, 4, add_bias_kv=True),
    "MultiheadAttention kdim": lambda: nn.MultiheadAttention(200, 4, kdim=100, vdim=50),
    "BatchNorm2d": lambda: nn.BatchNorm2d(50),
    "GroupNorm": lambda: nn.GroupNorm(5, 50),
    "LayerNorm": lambda: nn.LayerNorm(50),
    "RMSNorm": lambda: nn.RMSNorm(50),
    "InstanceNorm1d": lambda: nn.InstanceNorm1d(50, affine=True),
    "PReLU": lambda: nn.PReLU(50, init=0.1),
    "TransformerEncoderLayer": lambda: nn.TransformerEncoderLayer(200, 4, 300),
}


@pytest.mark.parametrize("name", LAYERS)
def test_scheme_torch_is_torchs_own_default(name: str) -> None:
    """Same mean, scale and range as a new layer has, for every parameter of every layer type."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        theirs, ours = LAYERS[name](), LAYERS[name]()
    for parameter in ours.parameters():
        nn.init.constant_(parameter, torch.nan)
    initialize(ours, "torch", 0)
    references = dict(theirs.named_parameters())
    for key, parameter in ((key, parameter.detach()) for key, parameter in ours.named_parameters()):
        reference = references[key].detach()
        assert parameter.shape == reference.shape
        if float(reference.std(correction=0)) == 0:
            assert torch.equal(parameter, reference), key
            continue
        # Two estimates of one σ from n values each differ by about σ/√n (normal) or less (uniform).
        tolerance = 5 / reference.numel() ** 0.5
        assert float(parameter.std() / reference.std()) == pytest.approx(1, abs=tolerance), key
        assert float(parameter.abs().max() / reference.abs().max()) == pytest.approx(1, abs=0.5), key
    if name == "Embedding":
        assert ours.weight[3].eq(0).all()


@pytest.mark.parametrize("name", LAYERS)
def test_other_schemes_zero_biases_and_keep_norms(name: str) -> None:
    layer = LAYERS[name]()
    drawn = initialize(layer, "kaiming_normal", 0)
    for key, slot in slots(layer).items():
        kind, value = slot.role.kind, slot.parameter.detach()
        expected = {"weight": "kaiming_normal", "embedding": "normal", "bias": "constant", "constant": "constant"}[kind]
        assert drawn[key].scheme == expected
        if kind == "bias":
            assert value.eq(0).all()
        elif kind == "constant":
            assert torch.equal(value, torch.full_like(value, slot.role.value))
        elif kind == "embedding":
            assert drawn[key].std == pytest.approx(0.02, rel=5 / value.numel() ** 0.5)


# layer, parameter, true fan_in and fan_out of one of its parts
FANS: list[tuple[str, str, int, int]] = [
    ("Linear", "weight", 300, 200),
    ("Conv2d", "weight", 32 * 9, 200 * 9),
    ("Conv2d groups", "weight", 16 * 9, 50 * 9),
    ("ConvTranspose2d", "weight", 100 * 9, 200 * 9),
    ("ConvTranspose2d groups", "weight", 50 * 9, 100 * 9),
    ("LSTM", "weight_ih_l0", 50, 60),
    ("LSTM", "weight_hh_l1_reverse", 60, 60),
    ("LSTM projection", "weight_hr_l0", 60, 40),
    ("LSTM projection", "weight_hh_l0", 40, 60),
    ("GRU", "weight_ih_l0", 50, 60),
    ("MultiheadAttention", "in_proj_weight", 200, 200),
    ("MultiheadAttention kdim", "k_proj_weight", 100, 200),
]


@pytest.mark.parametrize(("layer", "parameter", "fan_in", "fan_out"), FANS)
def test_fans_are_those_of_each_gate_group_and_projection(
    layer: str, parameter: str, fan_in: int, fan_out: int
) -> None:
    for fan, count in ("fan_in", fan_in), ("fan_out", fan_out):
        module = LAYERS[layer]()
        drawn = initialize(module, "kaiming_normal", 0, fan=fan, gain=1.0)[parameter]
        values = getattr(module, parameter).numel()
        assert drawn.std == pytest.approx(count**-0.5, rel=5 / (2 * values) ** 0.5)


def test_orthogonal_gates_groups_and_transposed_convolutions() -> None:
    lstm, conv = nn.LSTM(30, 30), nn.Conv2d(64, 32, 3, groups=4)
    transposed = nn.ConvTranspose2d(20, 10, 3, groups=2)
    for module in lstm, conv, transposed:
        initialize(module, "orthogonal", 0)
    pieces = [*lstm.weight_hh_l0.chunk(4), *conv.weight.flatten(1).chunk(4)]
    # [in, out/groups, 3, 3] -> per group [out/groups, in/groups·9]
    pieces += [part.transpose(0, 1).flatten(1) for part in transposed.weight.chunk(2)]
    for piece in pieces:
        torch.testing.assert_close(piece @ piece.T, torch.eye(len(piece)), rtol=0, atol=1e-5)


def test_unknown_parameters_are_raw() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3, 3))

    class Adapted(nn.Linear):  # a layer that adds a parameter of its own
        def __init__(self) -> None:
            super().__init__(3, 3)
            self.extra = nn.Parameter(torch.ones(3, 3))

    assert role_of(Own(), "weight").kind == "raw"
    assert role_of(Adapted(), "extra").kind == "raw"
    assert role_of(Adapted(), "weight").kind == "weight"


def test_slots_name_each_parameter_once_whatever_the_order() -> None:
    shared = nn.Linear(4, 4)
    one = nn.ModuleDict({"b": shared, "a": shared, "c": nn.Linear(2, 2)})
    two = nn.ModuleDict({"c": nn.Linear(2, 2), "a": shared, "b": shared})
    assert set(slots(one)) == set(slots(two)) == {"a.weight", "a.bias", "c.weight", "c.bias"}
