"""Settings that make no sense are refused in one line that names the setting, what was received and what to do."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from talweg.errors import UserError
from talweg.optimizers import GD, LAMB, LARS, RULES, SGD, SGDW, Adagrad, Adam, AdamW, RMSprop, Rprop


@pytest.mark.parametrize(
    ("rule", "settings", "words"),
    [
        (GD, {"lr": -0.1}, r"lr must be a number above 0, received -0.1"),
        (GD, {"lr": 0.0}, r"lr must be a number above 0, received 0.0"),
        (GD, {"lr": float("nan")}, r"lr must be a number above 0, received nan"),
        (GD, {"lr": float("inf")}, r"lr must be a number above 0, received inf"),
        (GD, {"lr": "fast"}, r"lr must be a number above 0, received 'fast'"),
        (GD, {"lr": True}, r"lr must be a number above 0, received True"),
        (GD, {"weight_decay": -1e-4}, r"weight_decay must be a number of at least 0, received -0.0001"),
        (GD, {"decay": "L2"}, r"unknown decay 'L2': did you mean 'l2'\? Known: decoupled, l2"),
        (GD, {"lr": torch.tensor([[0.1], [-0.1]])}, r"lr must be a number above 0, received \[\[0.1"),
        (SGD, {"momentum": 1.0}, r"momentum must be a number of at least 0 and below 1, received 1.0"),
        (SGD, {"momentum": 0.0, "nesterov": True}, r"nesterov=True has no effect with momentum=0"),
        (SGD, {"momentum": 0.0, "form": "exponential"}, r"form='exponential' has no effect with momentum=0"),
        (SGD, {"form": "exp"}, r"unknown form 'exp': Known: exponential, heavy_ball"),
        (SGDW, {"decay": "l2"}, r"decay='l2' does not go with SGDW: use sgd for l2"),
        (Adam, {"beta1": 1.5}, r"beta1 must be a number of at least 0 and below 1, received 1.5"),
        (Adam, {"eps": 0.0}, r"eps must be a number above 0, received 0.0"),
        (AdamW, {"decay": "l2"}, r"decay='l2' does not go with AdamW: use adam for l2"),
        (Adagrad, {"eps": -1}, r"eps must be a number above 0, received -1"),
        (RMSprop, {"alpha": 1}, r"alpha must be a number of at least 0 and below 1, received 1"),
        (Rprop, {"variant": "irprop"}, r"unknown variant 'irprop': did you mean 'irprop-'\?"),
        (Rprop, {"grow": 1.0}, r"grow must be a number above 1, received 1.0"),
        (Rprop, {"shrink": 0.0}, r"shrink must be a number above 0 and below 1, received 0.0"),
        (Rprop, {"lr": 100.0}, r"lr=100.0, the first step, must lie between step_min=1e-06 and step_max=50.0"),
        (
            LARS,
            {"decay": "decoupled"},
            r"decay='decoupled' does not go with LARS: its decay is part of the trust ratio",
        ),
        (LARS, {"trust_coefficient": 0.0}, r"trust_coefficient must be a number above 0, received 0.0"),
        (LAMB, {"decay": "l2"}, r"decay='l2' does not go with LAMB: its decay is part of the trust ratio"),
    ],
)
def test_refused(rule: Any, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words) as error:
        rule(**settings)
    assert "\n" not in str(error.value)


def test_defaults() -> None:
    rules = {name: rule() for name, rule in RULES.items()}
    assert rules["sgd"].momentum == 0.9
    assert {name for name, rule in rules.items() if rule.weight_decay} == {"adamw", "lamb", "sgdw"}
    assert rules["adamw"].weight_decay == 0.01
    assert {name for name, rule in rules.items() if rule.decay == "decoupled"} == {"adamw", "lamb", "lion", "sgdw"}
