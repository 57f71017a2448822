"""Tasks by name: the built-in ones, and those in anybody's Python file."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tests.helpers.runs import environment, write_tasks

from talweg import UserError
from talweg.recipe import Recipe
from talweg.tasks import TASKS, TaskSource, built_in_recipe, load_task

TASK_FILE = """
import torch
from talweg import Task
from neighbour_of_tasks import WIDTH

x = torch.zeros(4, WIDTH)
ready = Task(name="ready", model=lambda: torch.nn.Linear(WIDTH, 1), train=(x, x[:, :1]), loss="mse")

def made():
    return Task(name="made", model=lambda: torch.nn.Linear(WIDTH, 1), train=(x, x[:, :1]), loss="mse")

def broken():
    return helper() + 1

def helper():
    return 1 / 0

def refuses():
    return Task(name="", model=made, train=(x, x))

def needs(argument):
    return made()

def other():
    return "no task"

number = 3
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder with a task file and its neighbour; what loading them leaves in `sys` goes away again."""
    (tmp_path / "neighbour_of_tasks.py").write_text("WIDTH = 3\n")
    (tmp_path / "mine.py").write_text(TASK_FILE)
    path, modules = list(sys.path), set(sys.modules)
    yield tmp_path
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        del sys.modules[name]


@pytest.mark.parametrize("name", ["ready", "made"])
def test_a_task_or_a_function_in_a_file(name: str, folder: Path) -> None:
    source = TaskSource(name=f"{folder}/mine.py:{name}")
    loaded = load_task(source)
    assert loaded.task.name == name
    assert loaded.recipe == Recipe()
    assert loaded.source == source
    assert loaded.task.model()(torch.zeros(1, 3)).shape == (1, 1)


def test_relative_path(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert load_task(TaskSource(name="mine.py:ready")).task.name == "ready"


LINE = TASK_FILE.splitlines().index("    return 1 / 0") + 1


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mine.py:broken", rf"mine\.py:{LINE} failed: ZeroDivisionError: division by zero"),
        ("mine.py:redy", r"unknown task in .*mine\.py 'redy': did you mean 'ready'"),
        ("mine.py:other", r"mine\.py:other must be a talweg.Task or a function that returns one, not str"),
        ("mine.py:number", r"mine\.py:number must be a talweg.Task or a function that returns one, not int"),
        ("mine.py:needs", r"mine\.py.*needs\(\) missing 1 required positional argument: 'argument'"),
        ("mine.py:refuses", r"^name must be a word for reports"),
        ("mine.py", r"mine\.py is a file: say which task in it, .*mine\.py:NAME"),
        ("absent.py:task", r"no such file: .*absent\.py"),
        ("syntax.py:task", r"syntax\.py.* failed: SyntaxError: .*line 2"),
        ("imports.py:task", r"imports\.py:1 failed: ModuleNotFoundError: No module named 'nobody_has_this'"),
    ],
)
def test_mistakes_in_files(name: str, message: str, folder: Path) -> None:
    (folder / "syntax.py").write_text("x = 1\ndef f(:\n")
    (folder / "imports.py").write_text("import nobody_has_this\n")
    with pytest.raises(UserError, match=message) as caught:
        load_task(TaskSource(name=f"{folder}/{name}"))
    assert "\n" not in str(caught.value)


def test_mistakes_are_located_by_a_relative_path_too(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    with pytest.raises(UserError, match=rf"mine\.py:{LINE} failed"):
        load_task(TaskSource(name="mine.py:broken"))


def test_a_file_that_exits_is_a_mistake(folder: Path) -> None:
    (folder / "exits.py").write_text("import sys\nsys.exit(3)\n")
    with pytest.raises(UserError, match=r"exits\.py:2 failed: SystemExit"):
        load_task(TaskSource(name=f"{folder}/exits.py:task"))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (TaskSource(name="digit"), "unknown task 'digit': did you mean 'digits'"),
        (TaskSource(name="digits", data="x"), "task 'digits' brings its own data: leave --data out"),
        (TaskSource(name="digits", model="resnet9"), "unknown model 'resnet9': did you mean 'resnet"),
        (TaskSource(name="bytes", model="gpt"), "task 'bytes' has one model.*leave --model out"),
        (TaskSource(name="mnist"), "task 'mnist' needs data: give --data PATH, the folder of the four MNIST idx files"),
        (TaskSource(name="images"), "task 'images' needs data"),
        (TaskSource(name="cifar10", data="/nowhere"), "/nowhere"),
        (TaskSource(name="mine.py:task", data="x"), "--data and --model belong to built-in tasks"),
        (TaskSource(name=""), "unknown task ''"),
    ],
)
def test_mistakes_about_built_in_tasks(source: TaskSource, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_task(source)


@pytest.mark.parametrize("model", ["", "linear", "mlp", "resnet20"])
def test_digits_with_another_model(model: str) -> None:
    loaded = load_task(TaskSource(name="digits", model=model))
    assert loaded.recipe == built_in_recipe("digits")
    x, y = loaded.task.train.x, loaded.task.train.y
    assert loaded.task.model()(x[:2].float()).shape == (2, 10)
    assert len(x) == len(y) == 1437
    assert loaded.task.model() is not loaded.task.model()


def test_a_model_that_is_not_for_images_is_refused() -> None:
    with pytest.raises(UserError, match="model 'gpt' is not for images: choose another one for task 'digits'"):
        load_task(TaskSource(name="digits", model="gpt")).task.model()


def test_bytes_of_own_text(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_bytes(bytes(range(256)) * 200)
    task = load_task(TaskSource(name="bytes", data=str(tmp_path / "text.txt"))).task
    assert task.name == "bytes"
    assert task.metric_functions[0].name == "accuracy"


def test_every_task_says_what_it_is() -> None:
    for task in TASKS.values():
        assert len(task.about) > 20
        assert "\n" not in task.about + task.needs


@pytest.mark.parametrize("name", ["my_tasks.py", "json.py", "my-tasks.py"])
def test_a_file_may_have_any_name(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", sys.path[:])
    path = write_tasks(tmp_path).rename(tmp_path / name)
    for _ in range(2):
        assert load_task(TaskSource(name=f"{path}:mlp")).task.name == "mlp"
    assert sys.modules["json"] is json


@pytest.mark.slow
def test_a_worker_process_finds_the_dataset_of_a_file(tmp_path: Path) -> None:
    """Where workers are not forked (macOS, Windows, Python 3.14), they get the path, and classes by name."""
    path = write_tasks(tmp_path).rename(tmp_path / "read_by_workers.py")
    data = load_task(TaskSource(name=f"{path}:drawn")).task.train
    code = "import pickle, sys; sys.path[:] = pickle.load(sys.stdin.buffer); print(len(pickle.load(sys.stdin.buffer)))"
    worker = subprocess.run(
        [sys.executable, "-c", code],
        input=pickle.dumps(sys.path) + pickle.dumps(data),
        capture_output=True,
        env=environment(),
        check=False,
    )
    assert worker.stdout == b"200\n", worker.stderr.decode()
