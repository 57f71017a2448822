"""The rules as `torch.optim` optimizers, for anybody's training loop."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from typing import Any

import torch
from torch import nn

from talweg.errors import UserError
from talweg.optimizers.rule import Rule, State, Step
from talweg.optimizers.update import Piece, bind_piece, merge
from talweg.theta import Theta


class TorchOptimizer(torch.optim.Optimizer):
    """A rule as a `torch.optim.Optimizer`: param groups, schedulers, closures and `state_dict` work as in torch.

    Each param group is laid out as one vector: its parameters become views of it, and one kernel updates all of them.
    The settings of the rule stand in the param groups by name (`group["lr"]`, `group["momentum"]`, ...), where a
    scheduler or you may change them.

    As in torch, weight decay applies to every parameter of a group, and a parameter whose `.grad` is None is left as it
    is, decay and momentum included. LARS and LAMB give a trust ratio to parameters of two or more dims (to all with
    `adapt_all`). `zero_grad(set_to_none=False)` keeps the gradients in the vector and is the fast way; after
    `zero_grad()` autograd makes new ones, and `step` copies them into the vector.

    Move the module to its device before this, as with any optimizer.

    Args:
        params: parameters, (name, parameter) pairs, or dicts of them with settings of their own, as in torch.
        rule: the update rule with the settings of all groups that do not say otherwise.

    Raises:
        UserError: a setting is out of range, a group mixes dtypes or devices, a gradient is sparse, or a loaded state
            belongs to another rule.

    Example:
        >>> from talweg.optimizers import SGD
        >>> net = torch.nn.Linear(2, 1)
        >>> groups = [{"params": [net.weight]}, {"params": [net.bias], "lr": 0.01, "momentum": 0.0}]
        >>> optimizer = TorchOptimizer(groups, SGD(lr=0.1, momentum=0.9))
        >>> scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
        >>> for _ in range(2):
        ...     optimizer.zero_grad()
        ...     net(torch.ones(1, 2)).sum().backward()
        ...     optimizer.step()
        ...     scheduler.step()
        >>> [(group["lr"], group["momentum"]) for group in optimizer.param_groups]
        [(0.025, 0.9), (0.0025, 0.0)]
    """

    def __init__(self, params: Iterable[Any], rule: Rule) -> None:
        self.rule = rule
        self._layouts: list[_Layout] = []
        super().__init__(params, {f.name: getattr(rule, f.name) for f in fields(rule)})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds parameters with settings of their own; see `torch.optim.Optimizer.add_param_group`."""
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        try:
            layout = _Layout(group, replace(self.rule, **{f.name: group[f.name] for f in fields(self.rule)}))
        except UserError:
            self.param_groups.pop()
            raise
        self._layouts.append(layout)
        self.state.update(zip(group["params"], layout.states, strict=True))

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update; with a closure, after calling it (with gradients enabled), and returning what it returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for layout in self._layouts:
            layout.step()
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes over settings and state, bit for bit; the parameters themselves are the module's to load."""
        for layout, group in zip(self._layouts, state_dict["param_groups"], strict=False):  # torch compares the lengths
            layout.check(group, [state_dict["state"].get(i, {}) for i in group["params"]])
        super().load_state_dict(state_dict)
        for layout, group in zip(self._layouts, self.param_groups, strict=True):
            layout.restore(group, [self.state[p] for p in group["params"]])
            self.state.update(zip(group["params"], layout.states, strict=True))


class _Layout:
    """One param group as vectors: the parameters, their gradients, and the state."""

    def __init__(self, group: dict[str, Any], rule: Rule) -> None:
        self.group, self.rule = group, rule
        self.names = [f.name for f in fields(rule) if f.name != "lr"]
        parameters: list[nn.Parameter] = group["params"]
        frozen = [p for p in parameters if not p.requires_grad]
        with _missing_gradients_kept(parameters):
            for p in frozen:  # Theta leaves frozen parameters out, but who passes one here may thaw it later
                p.requires_grad_(True)
            self.theta = Theta((str(i), p) for i, p in enumerate(parameters))
            for p in frozen:
                p.requires_grad_(False)
        self.segments = sorted(self.theta.segments, key=lambda s: int(s.name))  # in the order of the group
        self.states: list[dict[str, Any]] = [{"step": 0} for _ in parameters]
        self.vectors: State = {}
        self.cut(rule.init(self.theta.value))

    def cut(self, vectors: State) -> None:
        """Takes over state vectors and gives every parameter its views of them, and of the gradient vector."""
        for state, s in zip(self.states, self.segments, strict=True):
            for name in self.vectors:
                del state[name]
            state |= {name: s.view(v) for name, v in vectors.items()}
        self.vectors = vectors
        self.grads = [s.view(self.theta.grad) for s in self.segments]
        self._bound_for: object = None

    def check(self, group: dict[str, Any], loaded: list[dict[str, Any]]) -> None:
        """Raises a `UserError` when a group to be loaded was saved by another rule."""
        for own, other in zip(self.states, loaded, strict=False):
            if own.keys() != other.keys() or not group.keys() >= set(self.names):
                raise UserError(
                    f"the state does not belong to {type(self.rule).__name__}: it holds {sorted(other)}, not "
                    f"{sorted(own)}; load it into the optimizer that saved it"
                )

    def restore(self, group: dict[str, Any], loaded: list[dict[str, Any]]) -> None:
        """Takes over a loaded group, and copies loaded states into the vectors."""
        for own, other in zip(self.states, loaded, strict=True):
            own["step"] = int(other["step"])
            for name in self.vectors:
                own[name].copy_(other[name])
        self.group = group
        self._bound_for = None

    def step(self) -> None:
        """One update of the parameters that have a gradient."""
        if not self.theta.attached:
            with _missing_gradients_kept(self.group["params"]):
                self.theta.reattach()
            self.cut({name: v.to(self.theta.value) for name, v in self.vectors.items()})
        active = self._gather()
        settings = tuple(self.group[name] for name in self.names)
        if self._bound_for != (active, settings):
            self._bind(active, settings)
        lr = float(self.group["lr"])
        for state, step in self._steps:
            step(lr, state["step"] + 1, None)
        for state in self._active:
            state["step"] += 1

    def _gather(self) -> list[bool]:
        """Brings all gradients into the vector; says which parameters have one."""
        active, new, places = [], [], []
        for p, own in zip(self.group["params"], self.grads, strict=True):
            grad = p.grad
            active.append(grad is not None)
            if grad is not None and grad is not own:
                if grad.layout is not torch.strided:
                    raise UserError(
                        "a gradient is sparse, the rules need dense ones: build the layer with sparse=False"
                    )
                new.append(grad)
                places.append(own)
                p.grad = own
        if new:
            torch._foreach_copy_(places, new)
        return active

    def _bind(self, active: list[bool], settings: tuple[Any, ...]) -> None:
        """Binds the rule to runs of neighbours that have a gradient and have been updated equally often."""
        rule = replace(self.rule, **dict(zip(self.names, settings, strict=True)))
        wanted = rule.init(self.theta.value)
        if wanted.keys() != self.vectors.keys():  # a momentum was set to or from 0
            self.cut({name: self.vectors.get(name, v) for name, v in wanted.items()})
        pieces = []
        ends = [*(s.start for s in self.theta.segments[1:]), len(self.theta.value)]
        for s, end in zip(self.theta.segments, ends, strict=True):
            i = int(s.name)
            if active[i]:
                pieces.append(Piece(s.start, end, ((s.start, s.stop),), (self.states[i]["step"], rule.adapts(s.decay))))
        first = {s.start: self.states[int(s.name)] for s in self.theta.segments}
        self._steps: list[tuple[dict[str, Any], Step]] = []
        for piece in merge(pieces):
            step = bind_piece(
                rule, piece, self.theta.value, self.theta.grad, self.vectors, rule.weight_decay, piece.alike[1]
            )
            self._steps.append((first[piece.start], step))
        self._active = [state for state, on in zip(self.states, active, strict=True) if on]
        self._bound_for = (active, settings)


@contextmanager
def _missing_gradients_kept(parameters: list[nn.Parameter]) -> Iterator[None]:
    """Theta gives every parameter a gradient; here one that had None has None again, which means: leave me out."""
    without = [p for p in parameters if p.grad is None]
    yield
    for p in without:
        p.grad = None
