"""The network as a function of one vector θ.

`Theta` lays a module's trainable parameters out in one contiguous buffer, decayed segments first, and re-points every
`nn.Parameter` and its `.grad` at a view of it. The module keeps working as before (forward, `state_dict`,
`load_state_dict`, tied weights), and every method becomes an operation on two vectors, `theta.value` and `theta.grad`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from talweg.errors import UserError, unknown

# Segments start at multiples of 16 elements: 64 bytes in float32, a cache line and the width of an AVX-512 register.
ALIGNMENT = 16


@dataclass(frozen=True)
class Segment:
    """One parameter's place in θ: `theta.value[..., start:stop]`, read with `shape` and `stride`."""

    name: str
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    start: int
    stop: int
    decay: bool
    lr_scale: float

    def view(self, vector: Tensor) -> Tensor:
        """The segment of `vector` [..., l] as a view [..., *shape], in the parameter's own memory format."""
        *ahead, unit = vector.stride()
        shape, stride = (*vector.shape[:-1], *self.shape), (*ahead, *(unit * step for step in self.stride))
        return vector.as_strided(shape, stride, vector.storage_offset() + unit * self.start)


@dataclass(frozen=True)
class Group:
    """Neighbouring segments that share their weight decay and learning-rate multiplier: one slice of θ, one kernel."""

    start: int
    stop: int
    decay: bool
    lr_scale: float
    spans: tuple[tuple[int, int], ...]


def decays(name: str, parameter: Tensor) -> bool:
    """Whether weight decay applies: to matrices and filters, not to biases and the scales of norms (fewer than 2 dims).

    Source: P. Goyal et al., "Accurate, large minibatch SGD", 2017, §5.1; T. He et al., "Bag of tricks", 2019, §3.1.
    """
    return parameter.dim() >= 2


class Theta:
    """The trainable parameters of a module as one vector, their gradients as another.

    Args:
        parameters: a module, or (name, parameter) pairs. Frozen parameters are left out, tied ones count once.
        decay: says of a (name, parameter) whether weight decay applies; by default see `decays`.
        lr_scale: says of a (name, parameter) by how much its learning rate is multiplied; by default 1.

    Attributes:
        value: θ, a tensor [l]. l counts the alignment gaps between segments, which are 0 and stay 0.
        grad: ∇J, a tensor [l]; every parameter's `.grad` is a view of it, so a backward pass adds into it.
        segments: one `Segment` a parameter, in the order of their place in θ.
        groups: slices of θ with the same decay and learning-rate multiplier, decayed ones first.
        numel: the number of trainable parameters, without the gaps.

    Raises:
        UserError: nothing is trainable, parameters differ in dtype or device, or a lazy parameter has no shape yet.

    Example:
        >>> net = nn.Linear(3, 2)
        >>> theta = Theta(net)
        >>> [(s.name, s.start, s.stop, s.decay) for s in theta.segments]
        [('weight', 0, 6, True), ('bias', 16, 18, False)]
        >>> _ = theta.value.zero_()          # one operation on θ ...
        >>> net(torch.ones(3)).tolist()      # ... is one on the module
        [0.0, 0.0]
        >>> net(torch.ones(3)).sum().backward()
        >>> theta["weight"].shape, theta.split(theta.grad)["bias"].tolist()
        (torch.Size([2, 3]), [1.0, 1.0])
    """

    def __init__(
        self,
        parameters: nn.Module | Iterable[tuple[str, nn.Parameter]],
        *,
        decay: Callable[[str, Tensor], bool] = decays,
        lr_scale: Callable[[str, Tensor], float] = lambda name, parameter: 1.0,
    ) -> None:
        pairs = parameters.named_parameters() if isinstance(parameters, nn.Module) else parameters
        unique = {id(p): (name, p) for name, p in reversed(list(pairs)) if p.requires_grad}
        named = list(reversed(unique.values()))
        _refuse(named)
        keys = [(decay(name, p), float(lr_scale(name, p))) for name, p in named]
        order = sorted(dict.fromkeys(keys), key=lambda key: not key[0])
        self._names: dict[str, int] = {}
        self._parameters: list[nn.Parameter] = []
        segments: list[Segment] = []
        groups: list[Group] = []
        stop = 0
        for key in order:
            first, spans = stop, []
            for (name, p), own in zip(named, keys, strict=True):
                if own == key:
                    begin, end = stop, stop + p.numel()
                    segments.append(Segment(name, tuple(p.shape), _dense_stride(p), begin, end, *key))
                    spans.append((begin, end))
                    self._parameters.append(p)
                    stop = math.ceil(end / ALIGNMENT) * ALIGNMENT
            groups.append(Group(first, stop, *key, tuple(spans)))
        self.segments = tuple(segments)
        self.groups = tuple(groups)
        self.numel = sum(p.numel() for p in self._parameters)
        self._names = {s.name: i for i, s in enumerate(segments)}
        self._length = stop
        self._attach()

    def __getitem__(self, name: str) -> Tensor:
        """The parameter called `name`, as a view of θ."""
        if name not in self._names:
            raise unknown("parameter", name, self._names)
        return self.segments[self._names[name]].view(self.value)

    def split(self, vector: Tensor) -> dict[str, Tensor]:
        """The segments of any vector laid out like θ, by name: [..., l] → {name: view [..., *shape]}."""
        return {s.name: s.view(vector) for s in self.segments}

    def join(self, tensors: Mapping[str, Tensor], out: Tensor) -> Tensor:
        """Copies tensors by name into the vector `out` [l]: the inverse of `split`.

        Raises:
            UserError: a name is missing or too many, or a shape differs.
        """
        for name in tensors:
            if name not in self._names:
                raise unknown("parameter", name, self._names)
        for name, view in self.split(out).items():
            if name not in tensors:
                raise UserError(f"parameter {name!r} is missing: the weights belong to another model")
            if tensors[name].shape != view.shape:
                raise UserError(
                    f"parameter {name!r} has shape {list(tensors[name].shape)}, the model expects {list(view.shape)}"
                )
            view.copy_(tensors[name])
        return out

    def segment_norms(self, vector: Tensor) -> Tensor:
        """The 2-norm of every segment in one call: [..., l] → [..., S], in the order of `segments`.

        Example:
            >>> theta = Theta(nn.Linear(3, 2))
            >>> theta.segment_norms(torch.ones_like(theta.value)).tolist()   # √6, √2
            [2.4494898319244385, 1.4142135381698608]
        """
        # On the CPU torch sums the squares of float32 one after the other, and is 0.1 % off at 25 million: float64 is not.
        exact = torch.float64 if vector.device.type == "cpu" else vector.dtype
        parts = [vector[..., s.start : s.stop] for s in self.segments]
        norms = [torch.linalg.vector_norm(p, dim=-1, dtype=exact) for p in parts]
        return torch.stack(norms, dim=-1).to(vector.dtype)

    @property
    def attached(self) -> bool:
        """Whether every parameter still is a view of θ; `module.to(...)` gives parameters memory of their own."""
        return all(p.data_ptr() == pointer for p, _, pointer in self._bound)

    def reattach(self) -> bool:
        """Gathers parameters that were moved (`module.to(device)`, `.double()`) into a new θ; True when it had to.

        Vectors beside θ (an optimizer's) belong to the old one and must be moved by their owner.
        """
        if self.attached:
            return False
        _refuse([(s.name, p) for s, p in zip(self.segments, self._parameters, strict=True)])
        self._attach()
        return True

    def check(self) -> None:
        """Makes sure that the gradients of the pass just made lie in `grad`; cheap enough for every step.

        Raises:
            UserError: some code replaced a parameter's `.grad` or moved a parameter out of θ; the parameter is named.
        """
        for i, (p, grad, pointer) in enumerate(self._bound):
            if p.data_ptr() != pointer:
                raise UserError(
                    f"parameter {self.segments[i].name!r} was moved out of the weight vector (.to, .cuda, .double, "
                    ".data = ...): call theta.reattach() before the next step"
                )
            if p.grad is not grad:
                raise UserError(
                    f"the gradient of {self.segments[i].name!r} was replaced (for example by "
                    "zero_grad(set_to_none=True)) and no longer lies in the gradient vector: change gradients in "
                    "place, or zero them with theta.grad.zero_()"
                )

    def _attach(self) -> None:
        first = self._parameters[0]
        self.value = torch.zeros(self._length, dtype=first.dtype, device=first.device)
        self.grad = torch.zeros_like(self.value)
        self._bound: list[tuple[nn.Parameter, Tensor, int]] = []
        for segment, p in zip(self.segments, self._parameters, strict=True):
            view, grad = segment.view(self.value), segment.view(self.grad)
            view.copy_(p.data)
            if p.grad is not None:
                grad.copy_(p.grad)
            p.grad = None  # a gradient of another dtype or device would refuse the new data
            p.data = view
            p.grad = grad
            self._bound.append((p, grad, p.data_ptr()))


def _dense_stride(p: Tensor) -> tuple[int, ...]:
    """The parameter's own strides where they fill memory without gaps (contiguous, channels-last), else contiguous."""
    if p.dim() == 4 and p.is_contiguous(memory_format=torch.channels_last):
        return p.stride()
    return torch.empty(p.shape, device="meta").stride()


def _refuse(named: list[tuple[str, nn.Parameter]]) -> None:
    if not named:
        raise UserError("the model has no trainable parameter: nothing to learn (are all of them frozen?)")
    for name, count in Counter(name for name, _ in named).items():
        if count > 1:
            raise UserError(f"{count} parameters are called {name!r}: give every one a name of its own")
    for name, p in named:
        if isinstance(p, nn.parameter.UninitializedParameter):
            raise UserError(f"parameter {name!r} is lazy and has no shape yet: pass one batch through the model first")
        if not p.is_floating_point():
            raise UserError(f"parameter {name!r} is {p.dtype}; only floating-point parameters can be trained")
    first_name, first = named[0]
    for name, p in named:
        if (p.dtype, p.device) != (first.dtype, first.device):
            raise UserError(
                f"parameter {name!r} is {p.dtype} on {p.device}, {first_name!r} is {first.dtype} on {first.device}: "
                "a model must have one dtype and one device (use precision='bf16' for mixed precision)"
            )
