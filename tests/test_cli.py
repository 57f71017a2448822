"""The command line: every command and flag, a whole run, and mistakes in one line."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from talweg import Layout, Recipe, Run, Samples, Weights, evaluate
from talweg.arguments import default_recipe
from talweg.cli import COMMANDS, main
from talweg.optimizers import RULES, SGD, Adam, AdamW
from talweg.schedules import SCHEDULES, Constant, Cosine
from talweg.tasks import TASKS, built_in_recipe
from talweg.version import VERSION

FAST = ["--device", "cpu", "--threads", "1", "--compile", "off"]
OWN_FLAGS = ["data", "model", "recipe", "optimizer", "schedule", "out", "quiet"]  # of train, beside the settings


def call(*words: str) -> int:
    """The exit code of a command in this process."""
    with pytest.raises(SystemExit) as end:
        main(words)
    assert isinstance(end.value.code, int)
    return end.value.code


def flags(*classes: Any) -> list[str]:
    """The flags of settings classes; fields that hold settings of their own have none."""
    fields = [field for cls in classes for field in dataclasses.fields(cls)]
    nested = ("optimizer", "schedule", "samples", "weights")
    return [field.name.replace("_", "-") for field in fields if field.name not in nested]


@pytest.mark.parametrize("rule", RULES)
def test_help_of_train_shows_every_flag_of_every_choice(rule: str, capsys: pytest.CaptureFixture[str]) -> None:
    """No two settings share a flag, whichever optimizer and schedule are chosen."""
    for schedule in SCHEDULES:
        expected = [*OWN_FLAGS, *flags(Recipe, Samples, Weights, Layout, RULES[rule], SCHEDULES[schedule])]
        assert len(set(expected)) == len(expected)
        assert call("train", "digits", "--optimizer", rule, "--schedule", schedule, "--help") == 0
        shown = re.findall(r"^[│ ]{2}--([a-z][a-z0-9-]*)", capsys.readouterr().out, re.MULTILINE)
        assert sorted(shown) == sorted(expected)


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("train", ["TASK", *(f"--{flag}" for flag in OWN_FLAGS), "--batch", "--lr", "--warmup"]),
        ("resume", ["RUN", "--quiet", *(f"--{flag}" for flag in flags(Layout))]),
        ("evaluate", ["RUN", "--data {validation,test,train}"]),
        ("schedule", ["SCHEDULE", "--lr", "--epochs", "--plot", *(f"--{flag}" for flag in flags(Cosine)), *SCHEDULES]),
        ("tasks", ["List the built-in tasks."]),
    ],
)
def test_help_of_every_command(command: str, expected: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert call(command, "--help") == 0
    said = capsys.readouterr()
    assert said.err == ""
    for text in (f"usage: talweg {command} ", *expected):
        assert text in said.out


def test_help_lists_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--help") == call("help") == call("-h") == 0
    text = capsys.readouterr().out
    for name in COMMANDS:
        assert re.search(rf"^  {name} +\w+", text, re.MULTILINE)
    assert call() == 2
    assert "usage: talweg COMMAND" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--version") == call("-V") == 0
    assert capsys.readouterr().out == 2 * f"talweg {VERSION}\n"


def test_tasks_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("tasks") == 0
    text = capsys.readouterr().out
    for name, task in TASKS.items():
        assert re.search(rf"^{name} +{re.escape(task.about)}$", text, re.MULTILINE)
        assert task.needs in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("trian digits", "unknown command 'trian': did you mean 'train'"),
        ("train", "TASK is missing"),
        ("train --epochs 3", "TASK is missing"),
        ("train digit", "unknown task 'digit': did you mean 'digits'"),
        ("train digits mnist", "unexpected 'mnist'"),
        ("train digits --epochs", "--epochs"),
        ("train digits --epochs x", "--epochs: could not convert string to float: 'x'"),
        ("train digits --batch 1.5", "--batch: invalid literal for int.*'1.5'"),
        ("train digits --epoch 3", "unknown option --epoch: did you mean --epochs"),
        ("train --momentum 0.9 digits --optimizer adam", "--momentum is a setting of sgd, sgdw, lars, not of adam"),
        ("train --optimizer=adam --momentum=0.9 digits", "--momentum is a setting of sgd, sgdw, lars, not of adam"),
        ("train digits --optimizer sdg", "unknown optimizer 'sdg': did you mean 'sgd'"),
        ("train digits --schedule cosin", "unknown schedule 'cosin': did you mean 'cosine'"),
        ("train digits --lr -1", "^talweg: lr must be a number above 0, received -1.0"),
        ("train digits --augment crop flop", "unknown augmentation 'flop': did you mean 'flip'"),
        ("train digits --recipe absent.toml", "no such file: absent.toml"),
        ("train digits --device tpu", "device must be auto, cpu, cuda"),
        ("train digits --data x", "task 'digits' brings its own data"),
        ("evaluate", "RUN is missing"),
        ("evaluate absent", "absent is not a run folder"),
        ("resume --device cpu absent", "absent is not a run folder"),
        ("resume", "RUN is missing"),
        ("schedule --lr 2", "SCHEDULE is missing"),
        ("schedule cosin", "unknown schedule 'cosin': did you mean 'cosine'"),
        ("schedule cosine --warmup 2", "warmup must be a number in"),
        ("tasks digits", "unexpected 'digits'"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(words: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(*words.split()) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("talweg: ")
    assert said.err.count("\n") == 1
    assert re.search(message, said.err)


def test_traceback_on_demand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TALWEG_TRACEBACK", "1")
    with pytest.raises(ValueError, match="unknown command"):
        main(["trian"])


@pytest.mark.parametrize("words", [["train", "--help"], ["tasks"], ["--version"]])
def test_a_pipe_closed_early_is_no_error(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As in `talweg train --help | head -1`, where the reader has gone before all is written."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as pipe:  # closing it writes what is held back, which must not fail either
        monkeypatch.setattr(sys, "stdout", pipe)
        assert call(*words) == 0
    assert capsys.readouterr().err == ""


def test_output_that_cannot_hold_every_letter(monkeypatch: pytest.MonkeyPatch) -> None:
    said = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", said)
    assert call("train", "--help") == 0
    said.seek(0)
    assert "learning rate ?, the peak of the schedule" in said.read()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("cosine", Cosine()),
        ("--warmup 0.1 cosine", Cosine(warmup=0.1)),
        ("--warmup=0.3 --warmup-shape cosine constant", Constant(warmup=0.3, warmup_shape="cosine")),
        ("constant --lr 0.5", Constant()),
    ],
)
def test_schedule_is_drawn(words: str, expected: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    monkeypatch.setattr("talweg.cli.sketch", lambda schedule: drawn.append(schedule) or "")
    assert call("schedule", *words.split()) == 0
    assert drawn == [expected]


def test_schedule_as_a_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "schedule.png"
    assert call("schedule", "one-cycle", "--lr", "0.4", "--epochs", "3", "--plot", str(path)) == 0
    assert str(path) in capsys.readouterr().out
    assert Image.open(path).width > 300


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("digits", built_in_recipe("digits")),
        ("--epochs 1 digits", built_in_recipe("digits")),
        ("--quiet --augment crop --out x digits", built_in_recipe("digits")),
        ("--data images --model mnist bytes", built_in_recipe("bytes")),
        ("--data=images bytes", built_in_recipe("bytes")),
        ("my.py:task", Recipe()),
        ("my.py:task --out digits", Recipe()),
        ("my.py:task --optimizer adam", Recipe(optimizer=Adam())),
        ("my.py:task --optimizer=adamw", Recipe()),
        ("my.py:task --schedule constant", Recipe(schedule=Constant())),
        ("digits --optimizer sgd", built_in_recipe("digits")),
        ("digits --optimizer adamw", dataclasses.replace(built_in_recipe("digits"), optimizer=AdamW())),
        ("", Recipe()),
    ],
)
def test_what_the_flags_start_from(words: str, expected: Recipe) -> None:
    assert default_recipe(words.split()) == expected


def recipe_of(tmp_path: Path, *words: str) -> Recipe:
    """The recipe that `train` hands on for these words."""
    out = tmp_path / "runs"
    assert call("train", "--epochs", "0.05", *FAST, "--out", str(out), "--quiet", *words) == 0
    return Run(out / "digits-1").recipe


def test_a_flag_wins_over_the_recipe_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    written = Recipe(batch=100, seed=5, optimizer=SGD(lr=0.07, momentum=0.8), schedule=Constant(), epochs=3.0)
    path.write_text(written.to_toml())
    found = recipe_of(tmp_path, "--recipe", str(path), "--batch", "128", "--momentum", "0.5", "digits")
    expected = dataclasses.replace(written, batch=128, optimizer=SGD(lr=0.07, momentum=0.5), epochs=0.05)
    assert found == expected


def test_another_optimizer_brings_its_own_defaults(tmp_path: Path) -> None:
    found = recipe_of(tmp_path, "digits", "--optimizer", "adam", "--beta1", "0.8", "--no-zero-gamma", "--augment")
    assert found.optimizer == Adam(beta1=0.8)
    assert found.schedule == built_in_recipe("digits").schedule
    assert found.samples.augment == ()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, str]:
    """A whole run of one epoch, flags before the task, and what it printed."""
    out, said = tmp_path_factory.mktemp("runs"), io.StringIO()
    with contextlib.redirect_stdout(said):
        assert call("train", "--epochs", "1", *FAST, "--out", str(out), "digits") == 0
    return Run.open(out / "digits-1"), said.getvalue()


def test_run_leaves_every_file(trained: tuple[Run, str]) -> None:
    run, said = trained
    names = sorted(path.name for path in run.folder.iterdir())
    assert names == sorted(
        [
            "recipe.toml",
            "history.jsonl",
            "summary.json",
            "checkpoints",
            "curves.png",
            "report.html",
            "normalize.safetensors",
            "model.safetensors",
        ]
    )
    assert str(run.folder) in said.replace("\n", "")
    assert "report.html" in said


def test_run_takes_the_recipe_of_its_task(trained: tuple[Run, str]) -> None:
    run, _ = trained
    assert run.recipe == dataclasses.replace(built_in_recipe("digits"), epochs=1.0)
    assert run.layout == Layout(device="cpu", threads=1, compile="off")


def test_summary_is_valid_and_whole(trained: tuple[Run, str]) -> None:
    run, said = trained

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    summary = json.loads(run.path("summary.json").read_text(), parse_constant=refuse)
    assert summary["status"] == "finished"
    assert summary["reason"]["kind"] == "completed"
    assert summary["task"] == "digits"
    assert summary["samples"] == {"train": 1437, "validation": 360}
    assert summary["steps"] == summary["steps_per_epoch"] == 23
    assert summary["best"]["step"] == 23
    assert summary["best"]["accuracy"] > 0.5
    assert {d["name"] for d in summary["decisions"]} >= {"device", "precision", "threads", "compile"}
    assert summary["words"][:40] in " ".join(said.split())
    assert len(run.history) == 24
    assert run.history[-1]["accuracy"] == summary["best"]["accuracy"]


def test_picture_opens_and_page_stands_alone(trained: tuple[Run, str]) -> None:
    run, _ = trained
    with Image.open(run.path("curves.png")) as image:
        image.verify()
        assert image.format == "PNG"
        assert image.width > 500
    page = run.path("report.html").read_text(encoding="utf-8")
    assert page.startswith("<!DOCTYPE html>") or page.startswith("<!doctype html>")
    loads = re.findall(r"""(?:src|href|action)\s*=\s*["']?([^"'\s>]+)|url\(([^)]+)\)|@import\s+(\S+)""", page)
    outside = [link for found in loads for link in found if link and not link.strip("\"'").startswith(("data:", "#"))]
    assert outside == []
    assert "http" not in page.replace("http://www.w3.org", "")


def test_evaluate_gives_the_best_value_again(trained: tuple[Run, str], capsys: pytest.CaptureFixture[str]) -> None:
    run, _ = trained
    best = {name: value for name, value in run.summary["best"].items() if name in ("loss", "accuracy")}
    assert evaluate(run.folder) == best
    assert call("evaluate", str(run.folder)) == 0
    said = capsys.readouterr().out
    assert said == f"validation: loss {best['loss']:.6g}  accuracy {best['accuracy']:.6g}\n"
    assert call("evaluate", str(run.folder), "--data", "train") == 0
    assert capsys.readouterr().out.startswith("train: loss ")
    assert call("evaluate", str(run.folder), "--data", "test") == 2
    assert "task 'digits' has no test data" in capsys.readouterr().err


def test_resume_of_a_finished_run_is_refused(trained: tuple[Run, str], capsys: pytest.CaptureFixture[str]) -> None:
    run, _ = trained
    assert call("resume", str(run.folder)) == 2
    assert "is finished (its length, 1 epoch, is done): there is nothing to resume" in capsys.readouterr().err
