"""Initial weights as a function of (seed, parameter name): never of construction order, device, dtype or layout.

`initialize` walks a module, decides by layer type what each parameter is (`talweg.nn.roles`), and draws it with a
scheme (`talweg.nn.weights`) on the CPU in float32 from a generator of its own.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial

import torch
from torch import Generator, Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.parameter import UninitializedParameter

from talweg.errors import UserError, require, unknown
from talweg.nn.roles import Role, Slot, slots
from talweg.nn.weights import GAINS, SCHEMES, Shape, normal, uniform
from talweg.randomness import generator

__all__ = ["GAINS", "SCHEMES", "Drawn", "forget_gate_bias", "initialize", "zero_gamma"]

Draw = Callable[..., Tensor | None]


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """How one parameter got its initial value."""

    scheme: str
    """Name of the scheme, "constant" for biases and norms, or "model" for a value that was kept."""
    shape: Shape
    """Shape of the parameter."""
    std: float
    """Standard deviation of the values about their mean."""

    def __str__(self) -> str:
        return f"{self.scheme} {list(self.shape)} std {self.std:.3g}"


def initialize(
    module: nn.Module,
    scheme: str,
    seed: int,
    *,
    special: Mapping[str, str | Draw] | None = None,
    **options: float | str,
) -> dict[str, Drawn]:
    """Draws a module's weights anew, each from a generator keyed by (seed, parameter name).

    What a parameter is follows from the type of the layer that owns it:

    ====================================  ==================================================  ========================
    parameter                             value                                               with scheme "torch"
    ====================================  ==================================================  ========================
    weight of Linear, Bilinear, Conv*     `scheme`; each group of a grouped convolution is    U(±1/√fan_in)
                                          drawn as a layer of its own, and transposed
                                          convolutions count `in` as fan_in
    weight of LSTM, GRU, RNN (and cells)  `scheme`, each gate drawn as a layer of its own     U(±1/√hidden)
    in_proj of MultiheadAttention         `scheme`, q, k and v drawn as layers of their own   Xavier uniform
    bias of all these                     0                                                   as torch's layer
    Embedding; bias_k, bias_v             N(0, 0.02²), zero for the padding index             N(0, 1); N(0, 1/width)
    norms                                 weight 1, bias 0, running statistics reset          the same
    PReLU                                 its `init`                                          the same
    ====================================  ==================================================  ========================

    A parameter of another kind of module (a raw `nn.Parameter`) is kept if all its values are equal, for then it is a
    constant that the author chose; otherwise it must be named in `special`. Frozen parameters
    (`requires_grad=False`) are kept, as is everything with scheme "model". A tied parameter is drawn once, under the
    alphabetically first of its names, and as an embedding if one of its owners is one.

    Args:
        module: any module, on any device but meta, of any floating dtype and memory format.
        scheme: a name in `SCHEMES`.
        seed: any integer.
        special: glob pattern of parameter names -> scheme name or function `(shape, generator) -> Tensor`, for
            parameters that shall not follow the table; the first pattern that matches counts.
        options: options of the scheme, for example `std=0.01` for "normal" or `fan="fan_out"` for "kaiming_normal".

    Returns:
        for each parameter, in the module's order, how it was drawn.

    Raises:
        UserError: an unknown scheme, option or activation; a pattern without a parameter; a raw parameter that is not
            constant; parameters on the meta device or of lazy layers that have not seen data.

    Example:
        >>> from talweg.nn.models import mlp
        >>> net = mlp(features=64, classes=10, hidden=(200,))
        >>> for name, drawn in initialize(net, "kaiming_normal", seed=0).items():
        ...     print(name, drawn)
        1.weight kaiming_normal [200, 64] std 0.177
        1.bias constant [200] std 0
        head.weight kaiming_normal [10, 200] std 0.099
        head.bias constant [10] std 0
        >>> twin = mlp(features=64, classes=10, hidden=(200,)).double()      # another dtype, the same weights
        >>> _ = initialize(twin, "kaiming_normal", seed=0)
        >>> bool((twin[1].weight == net[1].weight).all())
        True
        >>> initialize(net, "kaimin_normal", seed=0)
        Traceback (most recent call last):
            ...
        talweg.errors.UserError: unknown scheme of initial weights 'kaimin_normal': did you mean 'kaiming_normal'? \
Known: kaiming_normal, kaiming_uniform, model, normal, orthogonal, torch, uniform, xavier_normal, xavier_uniform
    """
    require(isinstance(seed, int), "seed", seed, "an integer")
    draw = _with_options(scheme, options)
    found = _ready_slots(module)
    exceptions = _exceptions(special or {}, found)
    drawn = {}
    for name, slot in found.items():
        random = generator(seed, name)
        if name in exceptions:
            label, exception = exceptions[name]
            value = _in_parts(slot, exception, random)
        elif scheme == "model" or _is_kept(slot):
            label, value = "model", None
        elif slot.role.kind == "raw":
            raise UserError(
                f"parameter {name!r} {list(slot.parameter.shape)} belongs to no layer that talweg can initialize: give "
                f"its scheme with special={{{name!r}: 'normal'}}, or keep the model's own weights with scheme 'model'"
            )
        else:
            label, value = _by_role(slot, scheme, draw, random)
        if value is not None:
            with torch.no_grad():
                slot.parameter.copy_(value)
        values = slot.parameter.detach().float() if value is None else value
        drawn[name] = Drawn(scheme=label, shape=tuple(slot.parameter.shape), std=float(values.std(correction=0)))
    if scheme != "model":
        _reset_running_statistics(module)
    return drawn


def zero_gamma(module: nn.Module) -> list[str]:
    """Sets the weight γ of the last norm of each residual block to zero, so that the blocks start as the identity.

    Formula: y = relu(x + γ∘x̂ + β) with γ = 0, β = 0: the network starts as shallow as it can, which lets large batches
    take large first steps. γ itself receives its gradient through x̂ from the first step on.

    A block says which norm that is by an attribute or property `last_norm` (None: no skip connection). A norm that is
    followed by ReLU or a convolution inside the residual branch, as in pre-activation blocks, must not be named: with
    γ = 0 no gradient would ever reach it.

    Args:
        module: any module with such blocks; call this after `initialize`.

    Returns:
        the names of the parameters that are zero now.

    Raises:
        UserError: no block has a `last_norm` with a weight.

    Example:
        >>> from talweg.nn.models import resnet8
        >>> net = resnet8(in_channels=1)
        >>> zero_gamma(net)
        ['stages.0.0.norm2.weight', 'stages.1.0.norm2.weight', 'stages.2.0.norm2.weight']
        >>> block = net.stages[0][0].eval()
        >>> x = torch.rand(1, 16, 8, 8)
        >>> bool((block(x) == x).all())
        True

    Source: P. Goyal et al., "Accurate, large minibatch SGD: training ImageNet in 1 hour", 2017, section 5.1.
    """
    norms = [getattr(block, "last_norm", None) for block in module.modules()]
    weights = {id(getattr(norm, "weight", None)) for norm in norms if norm is not None} - {id(None)}
    if not weights:
        raise UserError(
            f"zero_gamma found no residual block in {type(module).__name__}: give each block a property `last_norm` "
            "that returns the norm that ends its residual branch, or leave zero_gamma out"
        )
    names = []
    for name, weight in module.named_parameters():
        if id(weight) in weights:
            with torch.no_grad():
                weight.zero_()
            names.append(name)
    return names


def forget_gate_bias(module: nn.Module, value: float = 1.0) -> list[str]:
    """Sets the bias of every LSTM's forget gate, so that the state is remembered from the start.

    Formula: f = σ(W·x + U·h + b_f) with b_f = b_ih + b_hh = value. At 0 the state halves at every step (σ(0) = 0.5); at
    1 it keeps 73 %.

    Args:
        module: any module with LSTM layers or cells; call this after `initialize`.
        value: the bias of the forget gate.

    Returns:
        the names of the parameters in which the forget gate's entries were set.

    Raises:
        UserError: there is no LSTM with a bias.

    Example:
        >>> lstm = nn.LSTM(4, 2)
        >>> _ = initialize(lstm, "xavier_uniform", seed=0)
        >>> forget_gate_bias(lstm)
        ['bias_ih_l0', 'bias_hh_l0']
        >>> lstm.bias_ih_l0.tolist()                       # gates in torch's order: input, forget, cell, output
        [0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0]

    Source: F. Gers, J. Schmidhuber, F. Cummins, "Learning to forget", 2000; R. Jozefowicz, W. Zaremba, I. Sutskever,
    "An empirical exploration of recurrent network architectures", 2015.
    """
    names = []
    for prefix, layer in module.named_modules():
        if not isinstance(layer, nn.LSTM | nn.LSTMCell):
            continue
        for name, bias in layer.named_parameters(recurse=False):
            if name.startswith("bias"):
                # Both biases are added; torch keeps two for the sake of cuDNN.
                with torch.no_grad():
                    bias[layer.hidden_size : 2 * layer.hidden_size] = value if name.startswith("bias_ih") else 0.0
                names.append(f"{prefix}.{name}" if prefix else name)
    if not names:
        raise UserError(f"forget_gate_bias found no LSTM with a bias in {type(module).__name__}: leave it out")
    return names


def _with_options(scheme: str, options: Mapping[str, float | str]) -> Draw:
    """The scheme's function with its options filled in."""
    if scheme not in SCHEMES:
        raise unknown("scheme of initial weights", scheme, SCHEMES)
    draw = SCHEMES[scheme]
    known = [name for name in inspect.signature(draw).parameters if name not in ("shape", "generator")]
    for name in options:
        if not known:
            raise UserError(f"scheme {scheme!r} has no options, received {name}={options[name]!r}: leave it out")
        if name not in known:
            raise unknown(f"option of scheme {scheme!r}", name, known)
    return partial(draw, **options)


def _ready_slots(module: nn.Module) -> dict[str, Slot]:
    for name, parameter in module.named_parameters():
        if isinstance(parameter, UninitializedParameter):
            raise UserError(f"parameter {name!r} is lazy and has no shape yet: run the module on one batch first")
        if parameter.is_meta:
            raise UserError(f"parameter {name!r} is on the meta device: call module.to_empty(device='cpu') first")
    return slots(module)


def _exceptions(special: Mapping[str, str | Draw], found: Mapping[str, Slot]) -> dict[str, tuple[str, Draw]]:
    """For each parameter that a pattern matches: the label and the function of the first such pattern."""
    exceptions: dict[str, tuple[str, Draw]] = {}
    for pattern, how in special.items():
        names = [name for name in found if fnmatchcase(name, pattern)]
        if not names:
            raise UserError(f"special: no parameter matches {pattern!r}; names look like {', '.join(list(found)[:3])}")
        entry = (how, _with_options(how, {})) if isinstance(how, str) else ("special", how)
        for name in names:
            exceptions.setdefault(name, entry)
    return exceptions


def _is_kept(slot: Slot) -> bool:
    parameter = slot.parameter
    if not parameter.requires_grad:
        return True
    return slot.role.kind == "raw" and bool((parameter == parameter.flatten()[:1]).all())


def _by_role(slot: Slot, scheme: str, draw: Draw, random: Generator) -> tuple[str, Tensor | None]:
    """The label and the value that the table in `initialize` gives to a parameter."""
    role, shape = slot.role, tuple(slot.parameter.shape)
    if role.kind == "constant":
        return "constant", torch.full(shape, role.value)
    if scheme == "torch":
        value = _torch_value(role, shape, random)
    elif role.kind == "bias":
        return "constant", torch.zeros(shape)
    elif role.kind == "embedding":
        scheme, value = "normal", normal(shape, random)
    else:
        return scheme, _in_parts(slot, draw, random)
    if role.zero_row is not None:
        value[role.zero_row] = 0.0
    return scheme, value


def _torch_value(role: Role, shape: Shape, random: Generator) -> Tensor:
    if role.torch_bound > 0:
        return uniform(shape, random, bound=role.torch_bound)
    if role.torch_std > 0:
        return normal(shape, random, std=role.torch_std)
    return torch.zeros(shape)


def _in_parts(slot: Slot, draw: Draw, random: Generator) -> Tensor | None:
    """Draws each of the weights that a parameter is made of as [out, in, *kernel], and puts them together."""
    role, shape = slot.role, tuple(slot.parameter.shape)
    if role.parts == 1 and not role.transposed:
        return _checked(draw(shape, random), shape)
    part = (shape[0] // role.parts, *shape[1:])
    if role.transposed:
        part = (part[1], part[0], *part[2:])
    pieces = []
    for _ in range(role.parts):
        piece = _checked(draw(part, random), part)
        if piece is None:
            return None
        pieces.append(piece.transpose(0, 1) if role.transposed else piece)
    return torch.cat(pieces)


def _checked(value: Tensor | None, shape: Shape) -> Tensor | None:
    if value is not None and tuple(value.shape) != shape:
        raise UserError(f"special: the function must return shape {list(shape)}, received {list(value.shape)}")
    return value


def _reset_running_statistics(module: nn.Module) -> None:
    """Puts batch norms' running mean and variance to 0 and 1, but not those of frozen layers."""
    for layer in module.modules():
        if isinstance(layer, _NormBase) and all(p.requires_grad for p in layer.parameters(recurse=False)):
            layer.reset_running_stats()
