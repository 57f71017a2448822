"""How to learn: everything that changes the result, in one object and one TOML file."""

from __future__ import annotations

import math
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from talweg.data import ORDERS, augmentation
from talweg.data.augment import Mixing
from talweg.errors import UserError, require, unknown
from talweg.initialize import SCHEMES
from talweg.optimizers import RULES, AdamW, Rule
from talweg.schedules import SCHEDULES, Cosine, Schedule
from talweg.settings import Tables, check_types, from_table, read_toml, to_table, to_toml

TABLES: Tables = {Rule: RULES, Schedule: SCHEDULES}


@dataclass(frozen=True, kw_only=True)
class Samples:
    """How the training samples are shown."""

    order: str = "shuffled"
    """the order of an epoch: shuffled, sequential, class_spread (neighbours differ in class), class_balanced"""
    augment: tuple[str, ...] = ()
    """random changes to each image: crop, flip, rotate:15, scale:0.8,1.2, jitter:0.4, cutout, randaugment:2,9; see talweg show"""
    mixup: float = 0.0
    """blend each image and its target with another's, by a weight drawn from Beta(mixup, mixup): 0.2 is usual (0: off)"""
    cutmix: float = 0.0
    """paste a rectangle of another image into each, its share drawn from Beta(cutmix, cutmix): 1 is usual (0: off)"""
    label_smoothing: float = 0.0
    """part of each target that is spread over all classes: 0.1 is usual (0: off)"""

    def __post_init__(self) -> None:
        check_types(self)
        known = [name for name, order in ORDERS.items() if order.needs in ("", "labels")]
        if self.order not in known:
            raise unknown("order", self.order, known)
        augmentation(self.augment)
        self.mixing()

    def mixing(self) -> Mixing | None:
        """What blends samples and softens targets; None where nothing does."""
        if not (self.mixup or self.cutmix or self.label_smoothing):
            return None
        return Mixing(mixup=self.mixup, cutmix=self.cutmix, smoothing=self.label_smoothing)


@dataclass(frozen=True, kw_only=True)
class Weights:
    """How the weights start and how they are averaged."""

    initialize: str = "model"
    """initial weights, drawn by (seed, parameter name): kaiming_normal, orthogonal, ...; model keeps the model's own"""
    zero_gamma: bool = False
    """start residual blocks as the identity: the last norm's scale is 0"""
    ema: float = 0.0
    """decay of the moving average of the weights, which is then evaluated and kept (0: no averaging)"""

    def __post_init__(self) -> None:
        check_types(self)
        if self.initialize not in SCHEMES:
            raise unknown("initialize", self.initialize, SCHEMES)
        require(0.0 <= self.ema < 1.0, "ema", self.ema, "at least 0 and below 1, such as 0.999")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to learn: everything that changes the result and nothing else. All quantities are global, on any layout.

    Example:
        >>> recipe = Recipe(batch=128, epochs=5)
        >>> Recipe.from_toml_text(recipe.to_toml()) == recipe
        True
    """

    batch: int = 64
    """samples per update, on any number of devices"""
    epochs: float = 10.0
    """passes over the training data"""
    seed: int = 0
    """initial weights, order, augmentation and noise are functions of it"""
    clip: float = 0.0
    """largest norm of the gradient; larger ones are scaled down to it (0: no clipping)"""
    patience: float = 0.0
    """stop after this many epochs without a better validation result (0: never)"""
    precision: Literal["auto", "float32", "bf16", "float64"] = "auto"
    """arithmetic; bf16 computes layers in bfloat16 and keeps float32 weights (auto: bf16 on CUDA, else float32)"""
    optimizer: Rule = field(default_factory=AdamW)
    """the update rule"""
    schedule: Schedule = field(default_factory=lambda: Cosine(warmup=0.05))
    """the learning rate over the training"""
    samples: Samples = Samples()
    """how the training samples are shown"""
    weights: Weights = Weights()
    """how the weights start and how they are averaged"""

    def __post_init__(self) -> None:
        check_types(self)
        require(self.batch >= 1, "batch", self.batch, "at least 1")
        require(0 < self.epochs < math.inf, "epochs", self.epochs, "a positive number")
        require(0 <= self.seed < 2**63, "seed", self.seed, "a whole number of at least 0")
        require(0 <= self.clip < math.inf, "clip", self.clip, "positive, or 0 for no clipping")
        require(0 <= self.patience < math.inf, "patience", self.patience, "positive, or 0 to never stop early")

    def to_toml(self) -> str:
        """The recipe as TOML text, every value with its doc line."""
        return to_toml(self, TABLES)

    def to_table(self) -> dict[str, Any]:
        """The recipe as nested plain values."""
        return to_table(self, TABLES)

    @classmethod
    def from_table(cls, table: dict[str, Any]) -> Recipe:
        """The recipe of nested plain values; unknown names raise a `UserError` with the nearest known one."""
        return from_table(cls, table, TABLES)

    @classmethod
    def from_toml_text(cls, text: str) -> Recipe:
        """The recipe in TOML text (see `to_toml`)."""
        try:
            return cls.from_table(tomllib.loads(text))
        except tomllib.TOMLDecodeError as error:
            raise UserError(f"the recipe is not valid TOML: {error}") from error

    @classmethod
    def read(cls, path: str | Path) -> Recipe:
        """The recipe in a TOML file.

        Raises:
            UserError: the file cannot be read, is not TOML, or holds an unknown setting or a wrong value.
        """
        table = read_toml(Path(path))
        try:
            return cls.from_table(table)
        except UserError as error:
            raise UserError(f"{path}: {error}") from error
