"""An average of the weights along the training, kept beside θ and evaluated in its place.

An averager keeps θ̄, and an average of the module's floating-point buffers, because batch statistics that belong to θ do
not fit θ̄. It has four verbs: `update(step)` after each update of θ, `swapped()` to evaluate, `vectors()` and
`restore(vectors)` for checkpoints. The step is given, not counted, so the vectors are the whole state.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from talweg.errors import UserError, require


class HasValue(Protocol):
    """What an averager needs of θ."""

    @property
    def value(self) -> Tensor:
        """All parameters, [l] or [K, l]; written in place only."""


def ema_decay(step: int, decay: float) -> float:
    """The decay β of update `step` (0, 1, …) with warm-up: β_t = min(decay, (1 + t)/(10 + t)).

    Without it θ̄ would keep the initial weights for the first 1/(1 − decay) steps. With it, the weights in θ̄ are on
    average a tenth of the steps so far old, until `decay` is reached at step 9/(1 − decay).

    Example:
        >>> [round(ema_decay(step, 0.999), 3) for step in (0, 9, 90, 890, 8990)]
        [0.1, 0.526, 0.91, 0.99, 0.999]

    Source: `tf.train.ExponentialMovingAverage` with `num_updates` (TensorFlow, 2015).
    """
    return min(decay, (1 + step) / (10 + step))


class EMA:
    """The exponential moving average of θ: θ̄ ← βθ̄ + (1 − β)θ, one operation on the vector, for all of a population too.

    In closed form, with θ_0 … θ_T the weights after each update and θ_init those at construction:
    θ̄ = θ_init·∏β_t + Σ_t (1 − β_t)·θ_t·∏_{s>t} β_s, a mean over about the last 1/(1 − β) steps.

    Floating-point buffers that a checkpoint of the module would hold are averaged in the same way. Counters (integers)
    are not, nor are buffers with an infinity, such as an attention mask: the module's own are used for these.

    Args:
        theta: object whose `value` is the vector, [l] or [K, l], on any device.
        module: the module whose buffers belong to these weights.
        decay: β, in [0, 1), per step: 0.999 averages about 1,000 steps. Keep it well below 1 − 1/(steps in training).
        warmup: β_t = `ema_decay(t, decay)`, the default; without it β_t = decay from the first step.

    Raises:
        UserError: `decay` out of range; vectors that do not fit, in `restore`.

    Example:
        >>> from types import SimpleNamespace
        >>> theta = SimpleNamespace(value=torch.tensor([0.0]))
        >>> ema = EMA(theta, nn.Identity(), decay=0.9)
        >>> for step in range(200):  # weights that jump between 0 and 2, as SGD does across a valley
        ...     _ = theta.value.fill_(2.0 * (step % 2))
        ...     ema.update(step)
        >>> with ema.swapped():
        ...     print(theta.value)  # the average is near the bottom, at 1
        tensor([1.0526])
        >>> theta.value
        tensor([2.])

    Source: B. Polyak, A. Juditsky, "Acceleration of stochastic approximation by averaging", 1992, for averaging;
    T. Salimans et al., "Improved techniques for training GANs", 2016, for this form on network weights.
    """

    def __init__(self, theta: HasValue, module: nn.Module, *, decay: float = 0.999, warmup: bool = True) -> None:
        require(isinstance(decay, int | float) and 0.0 <= decay < 1.0, "decay of the average", decay, "in [0, 1)")
        self.decay = decay
        self.warmup = warmup
        self._theta = theta
        self._owners = _averaged_buffers(module)
        self._value = theta.value.detach().clone()
        self._buffers = {name: buffer.detach().clone() for name, buffer in self._live_buffers().items()}

    def update(self, step: int) -> None:
        """Takes the weights after update `step` (0, 1, …) of the training into the average; no host synchronisation."""
        weight = 1.0 - (ema_decay(step, self.decay) if self.warmup else self.decay)
        self._value.lerp_(self._theta.value.detach(), weight)
        if self._buffers:
            with torch.no_grad():
                torch._foreach_lerp_(list(self._buffers.values()), list(self._live_buffers().values()), weight)

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """Puts the averaged weights and buffers into the module; on leaving, its own are back bit for bit."""
        live = [self._theta.value, *self._live_buffers().values()]
        with torch.no_grad():
            kept = [tensor.clone() for tensor in live]
            _copy(live, [self._value, *self._buffers.values()])
        try:
            yield
        finally:
            with torch.no_grad():
                _copy(live, kept)

    def vectors(self) -> dict[str, Tensor]:
        """The state, not copied: `value` (θ̄, shaped like θ) and `buffer.NAME` for each averaged buffer."""
        return {"value": self._value, **{f"buffer.{name}": buffer for name, buffer in self._buffers.items()}}

    @torch.no_grad()
    def restore(self, vectors: Mapping[str, Tensor]) -> None:
        """Takes over the state that `vectors()` gave, bit for bit."""
        own = self.vectors()
        if odd := sorted(own.keys() ^ vectors.keys()):
            fault = "has no" if odd[0] in own else "has an unknown"
            raise UserError(f"the checkpoint {fault} averaged {odd[0]!r}: resume with the model it was made of")
        for name, tensor in own.items():
            received, expected = [(tuple(t.shape), t.dtype) for t in (vectors[name], tensor)]
            require(received == expected, f"shape and type of the averaged {name!r}", received, f"{expected}")
        _copy(list(own.values()), [vectors[name] for name in own])

    def _live_buffers(self) -> dict[str, Tensor]:
        """The module's buffers now: looked up each time, because a module may put a new tensor in the place of one."""
        return {name: owner[attribute] for name, (owner, attribute) in self._owners.items()}


def _averaged_buffers(module: nn.Module) -> dict[str, tuple[dict[str, Any], str]]:
    """The buffers to average: name -> (the table of buffers of the submodule that owns it, its name there)."""
    saved = module.state_dict().keys()  # without the buffers that are only a cache (persistent=False)
    owners = {}
    for name, buffer in module.named_buffers():
        # β·inf + (1 − β)·inf is computed as inf + (inf − inf) = NaN, so masks with infinities must stay out.
        if name in saved and buffer.is_floating_point() and bool(buffer.isfinite().all()):
            path, _, attribute = name.rpartition(".")
            # `Module.__getattr__` would take five times as long, for each buffer in each step.
            owners[name] = (module.get_submodule(path)._buffers, attribute)
    return owners


def _copy(targets: list[Tensor], sources: list[Tensor]) -> None:
    for target, source in zip(targets, sources, strict=True):
        target.copy_(source)
