"""What each parameter is to the layer that owns it: a weight, a bias, an embedding, a constant.

Torch layers share no interface for this: `in_proj_weight` of an attention layer is three weights in one tensor,
`weight_hh_l0` of an LSTM four, and a transposed convolution keeps `in` before `out`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

Kind = Literal["weight", "bias", "embedding", "constant", "raw"]

_NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)


@dataclass(frozen=True, kw_only=True)
class Role:
    """What a parameter is, and what torch's own default for it is: U(±torch_bound), or N(0, torch_std²), or 0."""

    kind: Kind
    """A "raw" parameter belongs to no layer known here."""
    parts: int = 1
    """Weights that lie stacked along dim 0: gates, groups, or q, k and v."""
    transposed: bool = False
    """Whether a weight has shape [in, out, *kernel]."""
    value: float = 0.0
    """The value of a constant."""
    zero_row: int | None = None
    """The row of an embedding that stays zero (padding)."""
    torch_bound: float = 0.0
    """Bound of torch's uniform default."""
    torch_std: float = 0.0
    """Standard deviation of torch's normal default."""


@dataclass(frozen=True, kw_only=True)
class Slot:
    """A parameter, however often it is used, with the one role that decides its initial value."""

    parameter: nn.Parameter
    role: Role


def role_of(owner: nn.Module, name: str) -> Role:
    """The role of the parameter that the module `owner` itself holds as `name`.

    Example:
        >>> role_of(nn.Linear(100, 10), "weight").torch_bound                # 1/√100
        0.1
        >>> role_of(nn.LSTM(8, 16), "weight_hh_l0").parts                    # four gates
        4
        >>> role_of(nn.LayerNorm(8), "weight").value
        1.0
    """
    if isinstance(owner, _NORMS):
        return Role(kind="constant", value=1.0 if name == "weight" else 0.0)
    if isinstance(owner, nn.PReLU):
        return Role(kind="constant", value=owner.init)
    if isinstance(owner, nn.Embedding | nn.EmbeddingBag):
        return Role(kind="embedding", zero_row=owner.padding_idx, torch_std=1.0)
    if isinstance(owner, nn.RNNBase | nn.RNNCellBase):
        bound = 1.0 / math.sqrt(owner.hidden_size)
        if name.startswith("bias"):
            return Role(kind="bias", torch_bound=bound)
        # weight_hr, which projects the state of an LSTM, has no gates.
        gates = 1 if name.startswith("weight_hr") else getattr(owner, name).shape[0] // owner.hidden_size
        return Role(kind="weight", parts=gates, torch_bound=bound)
    if isinstance(owner, nn.MultiheadAttention):
        return _attention_role(owner, name)
    if isinstance(owner, nn.Linear | nn.Bilinear | _ConvNd) and name in ("weight", "bias"):
        return _linear_role(owner, name)
    return Role(kind="raw")


def _linear_role(owner: nn.Linear | nn.Bilinear | _ConvNd, name: str) -> Role:
    shape = owner.weight.shape
    # Torch takes shape[1]·∏kernel as fan_in, in a transposed convolution too, and one input only of a bilinear layer.
    fan_in = shape[1] if isinstance(owner, nn.Bilinear) else math.prod(shape[1:])
    bound = 1.0 / math.sqrt(fan_in)
    if name == "bias":
        in_attention = isinstance(owner, NonDynamicallyQuantizableLinear)
        return Role(kind="bias", torch_bound=0.0 if in_attention else bound)
    if isinstance(owner, _ConvNd):
        return Role(kind="weight", parts=owner.groups, transposed=owner.transposed, torch_bound=bound)
    return Role(kind="weight", torch_bound=bound)


def _attention_role(owner: nn.MultiheadAttention, name: str) -> Role:
    if name == "in_proj_bias":
        return Role(kind="bias")
    if name in ("bias_k", "bias_v"):
        return Role(kind="embedding", torch_std=1.0 / math.sqrt(owner.embed_dim))
    out, width_in = getattr(owner, name).shape
    return Role(
        kind="weight", parts=3 if name == "in_proj_weight" else 1, torch_bound=math.sqrt(6.0 / (out + width_in))
    )


def slots(module: nn.Module) -> dict[str, Slot]:
    """Every parameter of a module once, in the module's order, under a name that does not depend on that order.

    A tied parameter has several names and owners: it gets the alphabetically first name, and the role of that name's
    owner, or that of an embedding if any of its owners is one.

    Example:
        >>> head, embedding = nn.Linear(8, 100, bias=False), nn.Embedding(100, 8)
        >>> embedding.weight = head.weight
        >>> {name: slot.role.kind for name, slot in slots(nn.ModuleDict({"head": head, "token": embedding})).items()}
        {'head.weight': 'embedding'}
    """
    uses: dict[nn.Parameter, list[tuple[str, Role]]] = {}
    for prefix, owner in module.named_modules(remove_duplicate=False):
        for local, parameter in owner.named_parameters(recurse=False, remove_duplicate=False):
            name = f"{prefix}.{local}" if prefix else local
            uses.setdefault(parameter, []).append((name, role_of(owner, local)))
    found = {}
    for parameter, named in uses.items():
        name, role = min(named, key=lambda use: use[0])
        role = next((other for _, other in named if other.kind == "embedding"), role)
        found[name] = Slot(parameter=parameter, role=role)
    return found
