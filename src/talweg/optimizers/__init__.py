"""Update rules on θ: one family a file, a registry by name, the driver `Update`, and a face for torch's own loops."""

from __future__ import annotations

from talweg.optimizers.adadelta import Adadelta
from talweg.optimizers.adagrad import Adagrad
from talweg.optimizers.adam import Adam, AdamW
from talweg.optimizers.lamb import LAMB
from talweg.optimizers.lars import LARS
from talweg.optimizers.lion import Lion
from talweg.optimizers.rmsprop import RMSprop
from talweg.optimizers.rprop import Rprop
from talweg.optimizers.rule import Rule
from talweg.optimizers.sgd import GD, SGD, SGDW
from talweg.optimizers.torch_face import TorchOptimizer
from talweg.optimizers.update import Update

RULES: dict[str, type[Rule]] = {
    "gd": GD,
    "sgd": SGD,
    "sgdw": SGDW,
    "rprop": Rprop,
    "adagrad": Adagrad,
    "adadelta": Adadelta,
    "rmsprop": RMSprop,
    "adam": Adam,
    "adamw": AdamW,
    "lars": LARS,
    "lamb": LAMB,
    "lion": Lion,
}

__all__ = [
    "GD",
    "LAMB",
    "LARS",
    "RULES",
    "SGD",
    "SGDW",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Lion",
    "RMSprop",
    "Rprop",
    "Rule",
    "TorchOptimizer",
    "Update",
]
