"""Settings to TOML and back, their types, their doc lines, and the surface they make up together."""

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from talweg import Layout, Recipe, Samples, UserError, Weights
from talweg.optimizers import (
    GD,
    LAMB,
    LARS,
    RULES,
    SGD,
    SGDW,
    Adadelta,
    Adagrad,
    Adam,
    AdamW,
    Lion,
    RMSprop,
    Rprop,
    Rule,
)
from talweg.recipe import TABLES
from talweg.schedules import (
    SCHEDULES,
    Constant,
    Cosine,
    CosineRestarts,
    Exponential,
    InverseSqrt,
    Linear,
    MultiStep,
    OneCycle,
    Polynomial,
    Schedule,
    Step,
    TimeBased,
    WarmupStableDecay,
)
from talweg.settings import docs, from_table, read_toml, to_table, to_toml

# Every setting away from its default, where the class leaves a choice.
CHANGED_RULES: dict[str, Rule] = {
    "gd": GD(lr=0.3, weight_decay=1e-4, decay="decoupled"),
    "sgd": SGD(lr=0.3, weight_decay=1e-4, decay="decoupled", momentum=0.8, form="exponential", nesterov=True),
    "sgdw": SGDW(lr=0.3, weight_decay=1e-4, momentum=0.8, form="exponential", nesterov=True),
    "rprop": Rprop(
        lr=0.3,
        weight_decay=1e-4,
        decay="decoupled",
        variant="rprop+",
        grow=1.3,
        shrink=0.4,
        step_min=1e-7,
        step_max=40.0,
    ),
    "adagrad": Adagrad(lr=0.3, weight_decay=1e-4, decay="decoupled", eps=1e-9),
    "adadelta": Adadelta(lr=0.3, weight_decay=1e-4, decay="decoupled", rho=0.8, eps=1e-5),
    "rmsprop": RMSprop(lr=0.3, weight_decay=1e-4, decay="decoupled", alpha=0.8, eps=1e-7),
    "adam": Adam(lr=0.3, weight_decay=1e-4, decay="decoupled", beta1=0.8, beta2=0.99, eps=1e-7),
    "adamw": AdamW(lr=0.3, weight_decay=1e-4, beta1=0.8, beta2=0.99, eps=1e-7),
    "lars": LARS(lr=0.3, weight_decay=1e-4, momentum=0.8, trust_coefficient=0.01, adapt_all=True),
    "lamb": LAMB(lr=0.3, weight_decay=1e-4, beta1=0.8, beta2=0.99, eps=1e-7, adapt_all=True),
    "lion": Lion(lr=0.3, weight_decay=1e-4, decay="l2", beta1=0.8, beta2=0.98),
}
WARM: dict[str, Any] = {"warmup": 0.07, "warmup_shape": "cosine", "warmup_start": 0.02}
CHANGED_SCHEDULES: dict[str, Schedule] = {
    "constant": Constant(**WARM),
    "time-based": TimeBased(**WARM, rate=3.5),
    "step": Step(**WARM, drops=4, gamma=0.3),
    "multistep": MultiStep(**WARM, milestones=(0.2, 0.6, 0.9), gamma=0.3),
    "exponential": Exponential(**WARM, end=0.03),
    "cosine": Cosine(**WARM, end=0.03),
    "cosine-restarts": CosineRestarts(**WARM, cycles=5, t_mult=1.5, end=0.03),
    "linear": Linear(**WARM, end=0.03),
    "inverse-sqrt": InverseSqrt(**WARM),
    "polynomial": Polynomial(**WARM, power=0.9, end=0.03),
    "one-cycle": OneCycle(warmup=0.2, warmup_shape="linear", warmup_start=0.1, end=0.03),
    "wsd": WarmupStableDecay(**WARM, cooldown=0.4, cooldown_shape="linear", end=0.03),
}
ONLY_ONE_DECAY = {"sgdw", "adamw", "lars", "lamb"}

# The surface a user learns. A new setting is a conscious change of this table.
SURFACE: dict[type, str] = {
    Recipe: "batch epochs seed clip patience precision optimizer schedule samples weights",
    Samples: "order augment mixup cutmix label_smoothing",
    Weights: "initialize zero_gamma ema",
    Layout: "device micro_batch compile threads workers",
    GD: "lr weight_decay decay",
    SGD: "lr weight_decay decay momentum form nesterov",
    SGDW: "lr weight_decay decay momentum form nesterov",
    Rprop: "lr weight_decay decay variant grow shrink step_min step_max",
    Adagrad: "lr weight_decay decay eps",
    Adadelta: "lr weight_decay decay rho eps",
    RMSprop: "lr weight_decay decay alpha eps",
    Adam: "lr weight_decay decay beta1 beta2 eps",
    AdamW: "lr weight_decay decay beta1 beta2 eps",
    LARS: "lr weight_decay decay momentum trust_coefficient adapt_all",
    LAMB: "lr weight_decay decay beta1 beta2 eps adapt_all",
    Lion: "lr weight_decay decay beta1 beta2",
    Constant: "warmup warmup_shape warmup_start",
    TimeBased: "warmup warmup_shape warmup_start rate",
    Step: "warmup warmup_shape warmup_start drops gamma",
    MultiStep: "warmup warmup_shape warmup_start milestones gamma",
    Exponential: "warmup warmup_shape warmup_start end",
    Cosine: "warmup warmup_shape warmup_start end",
    CosineRestarts: "warmup warmup_shape warmup_start cycles t_mult end",
    Linear: "warmup warmup_shape warmup_start end",
    InverseSqrt: "warmup warmup_shape warmup_start",
    Polynomial: "warmup warmup_shape warmup_start power end",
    OneCycle: "warmup warmup_shape warmup_start end",
    WarmupStableDecay: "warmup warmup_shape warmup_start cooldown cooldown_shape end",
}


def names(cls: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(cls)]


def test_tables_are_complete() -> None:
    assert CHANGED_RULES.keys() == RULES.keys()
    assert CHANGED_SCHEDULES.keys() == SCHEDULES.keys()
    assert SURFACE.keys() == {Recipe, Samples, Weights, Layout, *RULES.values(), *SCHEDULES.values()}


@pytest.mark.parametrize("cls", SURFACE, ids=lambda cls: cls.__name__)
def test_surface_is_small_known_and_documented(cls: type) -> None:
    assert sorted(names(cls)) == sorted(SURFACE[cls].split())
    assert len(names(cls)) <= 12
    for name in names(cls):
        assert 10 < len(docs(cls)[name]) < 130, name
        assert not docs(cls)[name].endswith("."), name


@pytest.mark.parametrize(
    "settings", [*CHANGED_RULES.values(), *CHANGED_SCHEDULES.values()], ids=lambda s: type(s).__name__
)
def test_changed_settings_differ_from_the_defaults(settings: Any) -> None:
    """The tables above do what they say, so that the round trip below covers every setting."""
    default = type(settings)()
    name = next(name for table in (RULES, SCHEDULES) for name, cls in table.items() if cls is type(settings))
    same = {field for field in names(settings) if getattr(settings, field) == getattr(default, field)}
    assert same == ({"decay"} if name in ONLY_ONE_DECAY else set())


@pytest.mark.parametrize(
    "recipe",
    [Recipe(optimizer=rule) for rule in CHANGED_RULES.values()]
    + [Recipe(schedule=schedule) for schedule in CHANGED_SCHEDULES.values()],
    ids=[*CHANGED_RULES, *CHANGED_SCHEDULES],
)
def test_toml_round_trip(recipe: Recipe, tmp_path: Path) -> None:
    text = recipe.to_toml()
    path = tmp_path / "recipe.toml"
    path.write_text(text, encoding="utf-8")
    again = Recipe.read(path)
    assert again == recipe
    assert type(again.optimizer) is type(recipe.optimizer)
    assert again.to_toml() == text
    assert tomllib.loads(text) == recipe.to_table()


def test_toml_keeps_every_bit_of_a_number() -> None:
    numbers = [0.1 + 0.2, 1e-300, 5e-324, 1.7976931348623157e308, 123456789.12345679, 1e22, 3.0]
    for number in numbers:
        recipe = Recipe(clip=number)
        assert Recipe.from_toml_text(recipe.to_toml()).clip == number
    assert Recipe.from_toml_text(Recipe(seed=2**63 - 1).to_toml()).seed == 2**63 - 1


def test_numbers_of_numpy_are_numbers() -> None:
    for lr in np.logspace(-3, -1, 3):
        recipe = Recipe(optimizer=SGD(lr=lr))
        assert Recipe.from_toml_text(recipe.to_toml()).optimizer == SGD(lr=float(lr))


def test_text_keeps_its_quotes() -> None:
    layout = Layout(device='a "b" \\ c\td\ne')
    assert from_table(Layout, tomllib.loads(to_toml(layout, {})), {}) == layout


def test_every_line_of_toml_says_what_it_is() -> None:
    for line in Recipe().to_toml().splitlines():
        if line and not line.startswith(("[", "name = ")):
            name, comment = line.split(" = ")[0], line.split("  # ", 1)[1]
            holders = [Recipe, Samples, Weights, AdamW, Cosine]
            assert comment in [docs(cls).get(name) for cls in holders]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"batsh": 3}, r"unknown setting 'batsh': did you mean 'batch'\? Known: batch, clip"),
        ({"optimizer": {"name": "sgd", "momentm": 0.9}}, r"'optimizer\.momentm': did you mean 'optimizer\.momentum'"),
        ({"optimizer": {"name": "adagrat"}}, r"unknown optimizer 'adagrat': did you mean 'adagrad'\?"),
        ({"optimizer": {"lr": 0.1}}, r"optimizer has no name: say name = one of adadelta, adagrad"),
        ({"optimizer": {"name": ["sgd"]}}, r"optimizer\.name must be a word in quotes, received \['sgd'\]"),
        ({"optimizer": "sgd"}, r"optimizer must be a table \(\[optimizer\]\), received 'sgd'"),
        ({"samples": ["crop"]}, r"samples must be a table \(\[samples\]\), received \['crop'\]"),
        ({"schedule": {"name": "cosin"}}, r"unknown schedule 'cosin': did you mean 'cosine'\?"),
        ({"schedule": {"name": "cosine", "gamma": 1}}, r"unknown setting 'schedule\.gamma'"),
        ({"samples": {"augmant": []}}, r"'samples\.augmant': did you mean 'samples\.augment'"),
        ({"weights": {"emma": 0.9}}, r"'weights\.emma': did you mean 'weights\.ema'"),
        ({"batch": "64"}, r"batch must be a whole number, received '64'"),
        ({"batch": 64.0}, r"batch must be a whole number, received 64\.0"),
        ({"batch": True}, r"batch must be a whole number, received True"),
        ({"epochs": True}, r"epochs must be a number, received True"),
        ({"epochs": "ten"}, r"epochs must be a number, received 'ten'"),
        ({"epochs": float("nan")}, r"epochs must be a number, not NaN"),
        ({"optimizer": {"name": "sgd", "lr": float("nan")}}, r"optimizer\.lr must be a number, not NaN"),
        ({"optimizer": {"name": "sgd", "nesterov": 1}}, r"optimizer\.nesterov must be true or false, received 1"),
        (
            {"optimizer": {"name": "sgd", "form": "heavy"}},
            r"unknown optimizer\.form 'heavy': did you mean 'heavy_ball'",
        ),
        ({"precision": "bf61"}, r"unknown precision 'bf61': did you mean 'bf16'"),
        ({"samples": {"augment": "crop"}}, r"samples\.augment must be a list, received 'crop'"),
        ({"samples": {"augment": ["crop", 1]}}, r"samples\.augment\[1\] must be a word in quotes, received 1"),
        ({"schedule": {"name": "multistep", "milestones": [0.5, "x"]}}, r"schedule\.milestones\[1\] must be a number"),
    ],
)
def test_mistakes_are_named_with_their_whole_path(table: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        Recipe.from_table(table)
    assert "\n" not in str(caught.value)


def test_whole_numbers_become_floats_where_floats_are_wanted() -> None:
    recipe = Recipe.from_table({"epochs": 3, "optimizer": {"name": "adam", "lr": 1}})
    assert isinstance(recipe.epochs, float)
    assert isinstance(recipe.optimizer.lr, float)
    milestones = Recipe.from_table({"schedule": {"name": "multistep", "milestones": [0.25, 0.5]}}).schedule
    assert milestones == MultiStep(milestones=(0.25, 0.5))


def test_table_is_not_changed_by_reading_it() -> None:
    table = {"optimizer": {"name": "sgd", "lr": 1}, "samples": {"augment": ["flip"]}}
    first, second = Recipe.from_table(table), Recipe.from_table(table)
    assert first == second
    assert table == {"optimizer": {"name": "sgd", "lr": 1}, "samples": {"augment": ["flip"]}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"batch = \n", r"recipe\.toml is not valid TOML: .*line 1"),
        (b"batch = 1\nbatch = 2\n", r"is not valid TOML: .*line 2"),
        (b"\xff\xfe", r"cannot read .*recipe\.toml"),
        (None, r"no such file: .*recipe\.toml"),
    ],
)
def test_files_that_are_no_toml(content: bytes | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_toml(path)
    with pytest.raises(UserError, match="cannot read"):
        read_toml(tmp_path)


def test_table_names_the_class_of_a_choice() -> None:
    table = to_table(Recipe(), TABLES)
    assert table["optimizer"]["name"] == "adamw"
    assert table["schedule"]["name"] == "cosine"
    assert "name" not in table["samples"]
