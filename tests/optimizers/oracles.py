"""Oracles of the contract test: each rule again, one parameter at a time, straight from its paper or from torch.optim.

An oracle is called as `oracle(p, g, memory, t, weight_decay, adapted)`: it updates the parameter p in place, keeps what it
likes in the dict `memory`, and shares no code with the library.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Oracle = Callable[[Tensor, Tensor, dict[str, Any], int, float, bool], None]


def torch_optim(cls: type[torch.optim.Optimizer], **settings: Any) -> Oracle:
    """torch's own optimizer; its weight decay is l2, but for AdamW."""

    def oracle(p: Tensor, g: Tensor, memory: dict[str, Any], t: int, weight_decay: float, adapted: bool) -> None:
        if not memory:
            memory["p"] = torch.nn.Parameter(p.clone())
            memory["optimizer"] = cls([memory["p"]], **settings, foreach=False, weight_decay=weight_decay)
        memory["p"].grad = g.clone()
        memory["optimizer"].step()
        p.copy_(memory["p"].detach())

    return oracle


def l2(oracle: Oracle) -> Oracle:
    """Weight decay as a part of the gradient, for an oracle without decay."""
    return lambda p, g, memory, t, wd, adapted: oracle(p, g + wd * p, memory, t, 0.0, adapted)


def decoupled(lr: float, oracle: Oracle) -> Oracle:
    """Weight decay apart from the gradient, for an oracle without decay that takes p as it finds it."""

    def shrunk(p: Tensor, g: Tensor, memory: dict[str, Any], t: int, wd: float, adapted: bool) -> None:
        p -= lr * wd * p
        oracle(p, g, memory, t, 0.0, adapted)

    return shrunk


def rmsprop(lr: float, alpha: float, eps: float) -> Oracle:
    """Tieleman and Hinton, 2012, ε outside the root."""

    def oracle(p: Tensor, g: Tensor, memory: dict[str, Any], t: int, wd: float, adapted: bool) -> None:
        s = memory["s"] = alpha * memory.get("s", 0.0) + (1 - alpha) * g**2
        p -= lr * g / (torch.sqrt(s) + eps)

    return oracle


def adagrad(lr: float, eps: float) -> Oracle:
    """Duchi et al., 2011."""

    def oracle(p: Tensor, g: Tensor, memory: dict[str, Any], t: int, wd: float, adapted: bool) -> None:
        s = memory["s"] = memory.get("s", 0.0) + g**2
        p -= lr * g / (torch.sqrt(s) + eps)

    return oracle


def momentum(lr: float, m: float, *, exponential: bool, nesterov: bool) -> Oracle:
    """Heavy ball, or Δθ ← mΔθ + (1 − m)∇J; Nesterov uses the velocity one step ahead."""

    def oracle(p: Tensor, g: Tensor, memory: dict[str, Any], t: int, wd: float, adapted: bool) -> None:
        push = (1 - m) * g if exponential else g
        v = memory["v"] = m * memory.get("v", 0.0) + push
        p -= lr * (m * v + push if nesterov else v)

    return oracle


def lion(lr: float, beta1: float, beta2: float) -> Oracle:
    """Chen et al., 2023, algorithm 2."""

    def oracle(p: Tensor, g: Tensor, memory: dict[str, Any], t: int, wd: float, adapted: bool) -> None:
        m = memory.get("m", torch.zeros_like(p))
        p -= lr * (torch.sign(beta1 * m + (1 - beta1) * g) + wd * p)
        memory["m"] = beta2 * m + (1 - beta2) * g

    return oracle


def rprop_plus(lr: float) -> Oracle:
    """Riedmiller and Braun, 1993: one number at a time, with weight backtracking."""

    def oracle(p: Tensor, g: Tensor, memory: dict[str, Any], t: int, wd: float, adapted: bool) -> None:
        kept = memory.setdefault("g", [0.0] * p.numel())
        size = memory.setdefault("size", [lr] * p.numel())
        last = memory.setdefault("last", [0.0] * p.numel())
        flat = p.view(-1)
        for i, slope in enumerate(g.reshape(-1).tolist()):
            if kept[i] * slope > 0:
                size[i] = min(size[i] * 1.2, 50.0)
            if kept[i] * slope < 0:
                size[i] = max(size[i] * 0.5, 1e-6)
                last[i] = -last[i]
                kept[i] = 0.0
            else:
                last[i] = -size[i] * ((slope > 0) - (slope < 0))
                kept[i] = slope
            flat[i] += last[i]

    return oracle


def lars(lr: float, m: float, coefficient: float) -> Oracle:
    """You et al., 2017, algorithm 1, with the learning rate outside of the velocity."""

    def oracle(p: Tensor, g: Tensor, memory: dict[str, Any], t: int, wd: float, adapted: bool) -> None:
        local = 1.0
        if adapted and p.norm() > 0 and g.norm() > 0:
            local = coefficient * p.norm() / (g.norm() + wd * p.norm())
        v = memory["v"] = m * memory.get("v", 0.0) + local * (g + wd * p)
        p -= lr * v

    return oracle


def lamb(lr: float, beta1: float, beta2: float, eps: float) -> Oracle:
    """You et al., 2020, algorithm 2, φ the identity."""

    def oracle(p: Tensor, g: Tensor, memory: dict[str, Any], t: int, wd: float, adapted: bool) -> None:
        m = memory["m"] = beta1 * memory.get("m", 0.0) + (1 - beta1) * g
        v = memory["v"] = beta2 * memory.get("v", 0.0) + (1 - beta2) * g**2
        u = m / (1 - beta1**t) / (torch.sqrt(v / (1 - beta2**t)) + eps) + wd * p
        trust = p.norm() / u.norm() if adapted and p.norm() > 0 and u.norm() > 0 else 1.0
        p -= lr * trust * u

    return oracle
