"""`replace_noise` on whole models: nothing changes but where the noise comes from."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from talweg.nn import Dropout, noise_context, replace_noise, unkeyed_noise
from talweg.nn.models import alexnet, gpt, lstm_classifier, lstm_lm, mlp, vgg11, wide_resnet
from talweg.nn.replacement import KEYED

IMAGES = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
TOKENS = torch.randint(0, 11, (4, 6), generator=torch.Generator().manual_seed(0))

# name: model, input, noise layers, the first layer that still draws from the global generator
MODELS: dict[str, tuple[Callable[[], nn.Module], Tensor, int, str | None]] = {
    "vgg": (lambda: vgg11(classes=7, width=4, hidden=16, dropout=0.5), IMAGES, 2, None),
    "alexnet": (lambda: alexnet(classes=7, width=4, hidden=16), torch.rand(4, 3, 63, 63), 2, None),
    "mlp": (lambda: mlp(features=3 * 32 * 32, hidden=(16, 8), dropout=0.3), IMAGES, 2, None),
    "gpt": (
        lambda: gpt(11, context=6, width=8, heads=2, layers=2, dropout=0.3),
        TOKENS,
        3,
        "blocks.0.attention (Attention)",
    ),
    "lstm": (lambda: lstm_lm(11, width=8, layers=2, dropout=0.5), TOKENS, 1, "lstm (LSTM)"),
    "lstm of one layer": (lambda: lstm_classifier(11, width=8, dropout=0.5), TOKENS, 1, None),
}


@pytest.mark.parametrize("name", MODELS)
def test_models_keep_all_but_the_origin_of_their_noise(name):
    make, x, layers, culprit = MODELS[name]
    torch.manual_seed(0)
    model = make()
    names = [n for n, _ in model.named_modules()]
    parameters, state = dict(model.named_parameters()), {k: v.clone() for k, v in model.state_dict().items()}
    text = repr(model)
    evaluated = model.eval()(x)
    torch.manual_seed(1)
    plain = model.train()(x)

    replaced = replace_noise(model)
    assert len(replaced) == layers
    assert [n for n, _ in model.named_modules()] == names
    assert repr(model) == text
    assert all(model.get_parameter(n) is p for n, p in parameters.items())
    assert model.state_dict().keys() == state.keys()
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert replace_noise(model) == replaced
    torch.manual_seed(1)
    assert torch.equal(model(x), plain)  # outside a context, as before
    assert torch.equal(model.eval()(x), evaluated)
    assert unkeyed_noise(model, x) == culprit

    model.train()
    torch.manual_seed(2)
    samples = torch.tensor([3, 70_000, 5, 1])
    outputs = []
    for cut in (4, 3, 1):
        parts = []
        for part, indices in zip(x.split(cut), samples.split(cut), strict=True):
            with noise_context(0, 0, indices) as announced:
                parts.append(model(part))
            assert not announced.misfits
        outputs.append(torch.cat(parts))
    for other in outputs[1:]:
        if culprit is None:
            torch.testing.assert_close(other, outputs[0], rtol=1e-4, atol=1e-6)
        else:
            assert not torch.allclose(other, outputs[0], rtol=1e-2)


@pytest.mark.parametrize("name", ["vgg", "mlp", "lstm of one layer"])
def test_accumulated_gradients_are_those_of_the_whole_batch(name):
    make, x, _, _ = MODELS[name]
    torch.manual_seed(0)
    model = make().double()
    replace_noise(model)
    x = x.double() if x.is_floating_point() else x
    found = []
    for cut in (4, 3, 1):
        model.zero_grad()
        for part, indices in zip(x.split(cut), torch.tensor([9, 2, 4, 7]).split(cut), strict=True):
            with noise_context(0, 5, indices):
                model(part).square().sum().backward()
        found.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=1e-10, atol=1e-12)


def test_wide_resnet_on_channels_last_images():
    model = wide_resnet(10, 1, dropout=0.3).to(memory_format=torch.channels_last)
    assert len(replace_noise(model)) == 3
    assert unkeyed_noise(model, IMAGES) is None


def test_every_layer_of_torch_that_draws_is_replaced():
    model = nn.ModuleList(
        [
            nn.Dropout(0.1, inplace=True),
            nn.Dropout1d(),
            nn.Dropout2d(),
            nn.Dropout3d(),
            nn.AlphaDropout(),
            nn.FeatureAlphaDropout(),
            nn.RReLU(0.1, 0.2),
            nn.FractionalMaxPool2d(2, output_ratio=0.5),
            nn.FractionalMaxPool3d(2, output_size=3),
        ]
    )
    before = [(type(layer), dict(vars(layer))) for layer in model]
    assert len(replace_noise(model)) == len(model) == len(KEYED)
    for layer, (kind, attributes) in zip(model, before, strict=True):
        assert type(layer) is KEYED[kind]
        assert isinstance(layer, kind)
        assert {k: v for k, v in vars(layer).items() if not k.startswith("noise_")} == attributes


def test_shared_layers_hooks_modes_and_users_own_classes_stay():
    class Loud(nn.Dropout):
        def forward(self, input: Tensor) -> Tensor:
            return input + 1

    shared, seen = nn.Dropout(0.5), []
    shared.register_forward_hook(lambda *_: seen.append(1))
    shared.eval()
    regions = nn.FractionalMaxPool2d(2, output_size=2, _random_samples=torch.rand(1, 1, 2))
    model = nn.ModuleDict({"a": shared, "b": nn.Sequential(shared), "loud": Loud(), "regions": regions})
    assert replace_noise(model) == ("a",)
    assert model["a"] is model["b"][0]
    assert type(model["a"]) is Dropout
    assert not model["a"].training
    assert type(model["loud"]) is Loud
    assert type(model["regions"]) is nn.FractionalMaxPool2d
    model["b"](torch.ones(2))
    assert seen == [1]
    alone = nn.Dropout(0.5)
    assert replace_noise(alone) == ("Dropout",)


class Functional(nn.Module):
    """Draws in its own forward method, and has running statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.drop, self.frozen = nn.BatchNorm1d(6), nn.Dropout(0.5), nn.BatchNorm1d(6).eval()

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"out": F.dropout(self.drop(self.frozen(self.norm(x))), 0.5, self.training)}


def test_the_search_for_other_noise_leaves_no_trace():
    torch.manual_seed(0)
    model = Functional()
    replace_noise(model)
    state = {k: v.clone() for k, v in model.state_dict().items()}
    modes = {n: m.training for n, m in model.named_modules()}
    generator = torch.get_rng_state()
    assert unkeyed_noise(model, torch.randn(8, 6, generator=torch.Generator().manual_seed(0))) == "(Functional)"
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert {n: m.training for n, m in model.named_modules()} == modes
    assert torch.equal(torch.get_rng_state(), generator)
    assert not any(m._forward_hooks for m in model.modules())
    assert unkeyed_noise(nn.Sequential(model.norm, model.drop), torch.randn(8, 6)) is None
