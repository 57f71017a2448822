"""Brings a user's model under the invariant: noise is a function of names and indices, never of call order."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

import talweg.nn.dropout as dropout
from talweg.nn.activations import RReLU
from talweg.nn.noise import name_layers, noise_context
from talweg.nn.pooling import FractionalMaxPool2d, FractionalMaxPool3d

KEYED: Mapping[type[nn.Module], type[nn.Module]] = MappingProxyType(
    {
        nn.Dropout: dropout.Dropout,
        nn.Dropout1d: dropout.Dropout1d,
        nn.Dropout2d: dropout.Dropout2d,
        nn.Dropout3d: dropout.Dropout3d,
        nn.AlphaDropout: dropout.AlphaDropout,
        nn.FeatureAlphaDropout: dropout.FeatureAlphaDropout,
        nn.RReLU: RReLU,
        nn.FractionalMaxPool2d: FractionalMaxPool2d,
        nn.FractionalMaxPool3d: FractionalMaxPool3d,
    }
)
"""torch's noise layers, and the subclass of each that draws by sample."""


def replace_noise(module: nn.Module) -> tuple[str, ...]:
    """Turns torch's noise layers in a module into ours, tells all noise layers their names, and returns the names.

    Nothing else changes: parameters, buffers, hooks, the names in the state dict, and `isinstance(layer, nn.Dropout)`.
    Call it once, before the module is compiled or wrapped. Fractional pooling with regions of its own is left alone.

    Example:
        >>> from talweg.nn import replace_noise
        >>> model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.1), nn.ReLU(), nn.Dropout(0.5))
        >>> replace_noise(model)
        ('1', '3')
        >>> model[1]
        Dropout(p=0.1, inplace=False)
    """
    for layer in module.modules():
        ours = KEYED.get(type(layer))  # not for a user's own subclass, which may do something else
        if ours is not None and getattr(layer, "_random_samples", None) is None:
            # The same object with another class: whoever else holds it (a second place in the model, hooks) still does.
            layer.__class__ = ours
    return name_layers(module)


def unkeyed_noise(module: nn.Module, x: Tensor) -> str | None:
    """The innermost layer whose output in training depends on torch's global generator, the first of them, or None.

    Such noise (`nn.LSTM` and `nn.MultiheadAttention` with dropout, `F.dropout` or `torch.rand` in a forward method) changes
    with the layout and the micro-batch. It is found by passing x through the model twice, with the same announcement and
    two states of the generator. Buffers, modes and the generator are left as they were.

    Args:
        module: after `replace_noise`.
        x: a few samples, as the model takes them.

    Example:
        >>> from talweg.nn import replace_noise, unkeyed_noise
        >>> class Net(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.body = nn.Sequential(nn.Linear(2, 8), nn.Dropout(0.5))
        ...         self.rnn = nn.LSTM(8, 8, num_layers=2, dropout=0.5)
        ...     def forward(self, x):
        ...         return self.rnn(self.body(x))[0]
        >>> net = Net()
        >>> names = replace_noise(net)
        >>> unkeyed_noise(net, torch.ones(4, 2))
        'rnn (LSTM)'
    """
    first, second = (_passed(module, x, seed) for seed in (0, 1))
    for (label, taken, given), (_, taken_again, given_again) in zip(first, second, strict=False):
        if _same(taken, taken_again) and not _same(given, given_again):
            return label
    return None


def _passed(module: nn.Module, x: Tensor, seed: int) -> list[tuple[str, Any, Any]]:
    """What every layer takes and gives, in the order in which they finish: a layer before those that contain it."""
    found: list[tuple[str, Any, Any]] = []

    def hook(label: str) -> Callable[..., None]:
        return lambda layer, args, kwargs, output: found.append((label, _kept((args, kwargs)), _kept(output)))

    layers = [(f"{name} ({type(layer).__name__})".lstrip(), layer) for name, layer in module.named_modules()]
    handles = [layer.register_forward_hook(hook(label), with_kwargs=True) for label, layer in layers]
    modes = {layer: layer.training for _, layer in layers}
    buffers = {name: buffer.clone() for name, buffer in module.named_buffers()}
    samples = torch.arange(x.shape[0], device=x.device)
    try:
        module.train()
        with torch.no_grad(), torch.random.fork_rng([x.device] if x.is_cuda else []), noise_context(0, 0, samples):
            torch.manual_seed(seed)
            torch.func.functional_call(module, buffers, (x,))
    finally:
        for handle in handles:
            handle.remove()
        for layer, mode in modes.items():
            layer.training = mode
    return found


def _kept(value: Any) -> Any:
    """A copy that later in-place operations do not reach."""
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, tuple | list):
        return [_kept(item) for item in value]
    return {key: _kept(item) for key, item in value.items()} if isinstance(value, Mapping) else value


def _same(a: Any, b: Any) -> bool:
    """Whether two kept values agree up to rounding (sums on an accelerator have no fixed order)."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.shape == b.shape and torch.allclose(a, b, rtol=1e-3, atol=1e-5, equal_nan=True)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(a[k], b[k]) for k in a)
    return True
