"""A rule at work on a network: learning-rate multipliers and weight decay by group, one call a run of neighbours."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from torch import Tensor

from talweg.errors import UserError
from talweg.optimizers.kernels import compiled
from talweg.optimizers.rule import Elementwise, Number, Rule, Spans, State, Step, is_zero
from talweg.theta import Theta


class Update:
    """Applies a rule to θ: `update(t, factor)` is one update of all parameters.

    Formula: for each group of θ, `rule.step` with η = rule.lr · factor · lr_scale, and λ = rule.weight_decay where the
    group is decayed, else 0. Neighbouring groups that get the same are updated in one call.

    Args:
        theta: the network as one vector; its gradient must lie in `theta.grad`.
        rule: the update rule.
        compile: run the rule's formula as one kernel made by `torch.compile` (elementwise rules; needs a host compiler
            on a CPU, goes on without where there is none). Worth it for rules that torch has no fused kernel for, on
            accelerators and for vectors of millions of elements: Rprop and Adadelta get three times faster.

    Attributes:
        vectors: the rule's state by name, each shaped like `theta.value` (to save; to restore, copy into them).

    Raises:
        UserError: `compile` with a rule that works on whole segments (LARS, LAMB).

    Example:
        >>> import torch
        >>> from talweg.optimizers import SGD
        >>> theta = Theta(torch.nn.Linear(2, 1))
        >>> update = Update(theta, SGD(lr=0.5, momentum=0.9))
        >>> _ = theta.value.fill_(1.0), theta.grad.fill_(1.0)
        >>> update(t=1, factor=0.5)
        >>> theta["bias"].item(), list(update.vectors)
        (0.75, ['velocity'])
    """

    def __init__(self, theta: Theta, rule: Rule, *, compile: bool = False) -> None:
        if compile and not isinstance(rule, Elementwise):
            raise UserError(f"{type(rule).__name__} cannot be compiled, it works on whole segments: leave compile out")
        self.theta = theta
        self.rule = rule
        self.compile = compile
        self.vectors: State = rule.init(theta.value)
        self.rebind()

    def rebind(self) -> None:
        """Makes the update follow θ after `theta.reattach()`, on a new device or dtype; the state vectors move along.

        The first call after θ was laid out anew does this by itself.
        """
        value, grad, rule = self.theta.value, self.theta.grad, self.rule
        self.vectors = {name: v.to(value) for name, v in self.vectors.items()}
        never_decays = is_zero(rule.weight_decay)
        pieces = [
            Piece(g.start, g.stop, g.spans, (g.lr_scale, g.decay and not never_decays, rule.adapts(g.decay)))
            for g in self.theta.groups
        ]
        self._steps: list[tuple[float, Step]] = []
        for piece in merge(pieces):
            lr_scale, decayed, adapted = piece.alike
            weight_decay = rule.weight_decay if decayed else 0.0
            step = bind_piece(rule, piece, value, grad, self.vectors, weight_decay, adapted, self.compile)
            self._steps.append((lr_scale, step))
        self._value = value

    def __call__(self, t: int, factor: float = 1.0, skip: Tensor | None = None) -> None:
        """One update of θ and the state vectors, in place.

        Args:
            t: the number of this update, 1 for the first.
            factor: of the schedule, multiplies the learning rate.
            skip: a 0-d tensor on the device of θ; 1 leaves everything as it is, without the host knowing.
        """
        if self.theta.value is not self._value:
            self.rebind()
        lr = self.rule.lr * factor
        for lr_scale, step in self._steps:
            step(lr * lr_scale, t, skip)


class Piece(NamedTuple):
    """A slice of θ, the (start, stop) of the segments in it (counted from the start of θ), and what marks it."""

    start: int
    stop: int
    spans: Spans
    alike: Any


def merge(pieces: Iterable[Piece]) -> list[Piece]:
    """Joins neighbours that are alike.

    Example:
        >>> merge([Piece(0, 4, ((0, 3),), ("a",)), Piece(4, 8, ((4, 8),), ("a",)), Piece(8, 9, ((8, 9),), ("b",))])[0]
        Piece(start=0, stop=8, spans=((0, 3), (4, 8)), alike=('a',))
    """
    merged: list[Piece] = []
    for piece in pieces:
        last = merged[-1] if merged else None
        if last is not None and last.stop == piece.start and last.alike == piece.alike:
            merged[-1] = Piece(last.start, piece.stop, last.spans + piece.spans, piece.alike)
        else:
            merged.append(piece)
    return merged


def bind_piece(
    rule: Rule,
    piece: Piece,
    value: Tensor,
    grad: Tensor,
    vectors: State,
    weight_decay: Number,
    adapted: bool,
    compile: bool = False,
) -> Step:
    """`rule.bind` for a slice of θ and of the vectors beside it; `adapted`: its segments get a trust ratio each."""
    spans = tuple((start - piece.start, stop - piece.start) for start, stop in piece.spans) if adapted else ()
    cut = slice(piece.start, piece.stop)
    w, g, state = value[..., cut], grad[..., cut], {name: v[..., cut] for name, v in vectors.items()}
    bound = rule.bind(w, g, state, weight_decay, spans)
    if not compile:
        return bound
    return compiled(lambda lr, t, skip: rule.step(w, g, state, lr, t, weight_decay, spans, skip), w.device, bound)
