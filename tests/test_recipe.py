"""The recipe: what it refuses, that it is a value, and the ones that come with Talweg."""

from __future__ import annotations

import dataclasses
from importlib.resources import files
from typing import Any

import pytest

from talweg import Recipe, Samples, UserError, Weights
from talweg.optimizers import SGD, AdamW
from talweg.schedules import Cosine
from talweg.tasks import TASKS, built_in_recipe

FILES = sorted(entry.name for entry in files("talweg.recipes").iterdir() if entry.name.endswith(".toml"))


def test_defaults() -> None:
    recipe = Recipe()
    assert isinstance(recipe.optimizer, AdamW)
    assert recipe.schedule == Cosine(warmup=0.05)
    assert Recipe.from_table({}) == recipe == Recipe.from_toml_text("")


def test_recipe_is_a_value() -> None:
    recipe = Recipe(optimizer=SGD(lr=0.2))
    assert recipe == Recipe(optimizer=SGD(lr=0.2))
    assert recipe != Recipe(optimizer=SGD(lr=0.3))
    assert len({recipe, Recipe(optimizer=SGD(lr=0.2))}) == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        recipe.batch = 3  # type: ignore[misc]
    with pytest.raises(TypeError):
        Recipe(64)  # type: ignore[misc]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch": 0}, "batch must be at least 1, received 0"),
        ({"batch": -3}, "batch must be at least 1"),
        ({"batch": True}, "batch must be a whole number"),
        ({"epochs": 0}, "epochs must be a positive number"),
        ({"epochs": float("inf")}, "epochs must be a positive number, received inf"),
        ({"epochs": float("nan")}, "epochs must be a number, not NaN"),
        ({"seed": -1}, "seed must be a whole number of at least 0"),
        ({"seed": 2**63}, "seed must be a whole number"),
        ({"seed": 1.5}, r"seed must be a whole number, received 1\.5"),
        ({"clip": -0.1}, "clip must be positive, or 0 for no clipping"),
        ({"patience": -1}, "patience must be positive, or 0"),
        ({"precision": "fp16"}, "unknown precision 'fp16'"),
        ({"optimizer": "sgd"}, "optimizer must be an object of class Rule, received 'sgd'"),
        ({"schedule": None}, "schedule must be an object of class Schedule, received None"),
        ({"samples": {}}, "samples must be an object of class Samples"),
    ],
)
def test_recipe_refuses(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Recipe(**settings)


@pytest.mark.parametrize(
    ("cls", "settings", "message"),
    [
        (Samples, {"order": "shuffeld"}, "unknown order 'shuffeld': did you mean 'shuffled'"),
        (Samples, {"augment": ("flop",)}, "unknown augmentation 'flop': did you mean 'flip'"),
        (Samples, {"augment": ["flip"]}, r"augment must be a tuple, received \['flip'\]"),
        (Samples, {"augment": "flip"}, "augment must be a list, received 'flip'"),
        (Weights, {"initialize": "kaiming"}, "unknown initialize 'kaiming': did you mean 'kaiming_"),
        (Weights, {"zero_gamma": 1}, "zero_gamma must be true or false, received 1"),
        (Weights, {"ema": 1.0}, "ema must be at least 0 and below 1"),
        (Weights, {"ema": -0.1}, "ema must be at least 0 and below 1"),
    ],
)
def test_parts_refuse(cls: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        cls(**settings)


def test_a_recipe_belongs_to_every_built_in_task() -> None:
    assert {name.removesuffix(".toml") for name in FILES} == TASKS.keys()


@pytest.mark.parametrize("name", TASKS)
def test_built_in_recipes_read_like_written_ones(name: str) -> None:
    """Same settings, same doc lines, in the same order as `to_toml` writes them; a comment says where they come from."""
    recipe = built_in_recipe(name)
    text = (files("talweg.recipes") / f"{name}.toml").read_text(encoding="utf-8")
    comment, rest = text.split("\n", 1)
    assert comment.startswith("# ")
    assert [line.split() for line in rest.splitlines()] == [line.split() for line in recipe.to_toml().splitlines()]
    assert Recipe.from_toml_text(text) == recipe
