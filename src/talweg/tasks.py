"""Tasks by name: the built-in ones, and those in anybody's Python file."""

from __future__ import annotations

import contextlib
import importlib.util
import random
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from talweg.data import Sets, load_cifar10, load_digits, load_images, load_mnist, load_text
from talweg.data.pack import is_packed, load_packed
from talweg.errors import UserError, unknown
from talweg.nn.models import MODELS, gpt
from talweg.recipe import Recipe
from talweg.settings import read_toml
from talweg.task import Task


@dataclass(frozen=True, kw_only=True)
class TaskSource:
    """Where a task comes from, in words that fit in a run folder."""

    name: str
    """a built-in task (see `talweg tasks`), or path/to/file.py:name"""
    data: str = ""
    """folder or file of the data, for tasks that do not bring their own"""
    model: str = ""
    """another model than the task's own, by name, such as resnet56"""


class BuiltIn(NamedTuple):
    """A task that comes with Talweg."""

    make: Callable[[TaskSource], Task]
    about: str
    needs: str


class Loaded(NamedTuple):
    """A task, the recipe that belongs to it, and where it comes from."""

    task: Task
    recipe: Recipe
    source: TaskSource


def load_task(source: TaskSource | str) -> Loaded:
    """The task that a name stands for.

    Raises:
        UserError: no such task, file, or name in the file; the file fails; data or model missing or unknown.

    Example:
        >>> load_task("digits").task.name
        'digits'
        >>> load_task("digit")
        Traceback (most recent call last):
            ...
        talweg.errors.UserError: unknown task 'digit': did you mean 'digits'? Known: bytes, cifar10, digits, images, mnist
    """
    source = TaskSource(name=source) if isinstance(source, str) else source
    path, colon, attribute = source.name.rpartition(":")
    if path.endswith(".py") and colon:
        return _from_file(Path(path), attribute, source)
    if source.name.endswith(".py"):
        raise UserError(f"{source.name} is a file: say which task in it, {source.name}:NAME")
    if source.name not in TASKS:
        raise unknown("task", source.name, TASKS)
    built_in = TASKS[source.name]
    if built_in.needs and not source.data:
        raise UserError(f"task {source.name!r} needs data: give --data PATH, {built_in.needs}")
    return Loaded(built_in.make(source), built_in_recipe(source.name), source)


def built_in_recipe(name: str) -> Recipe:
    """The recipe that comes with a built-in task."""
    return Recipe.from_table(read_toml(Path(str(files("talweg.recipes") / f"{name}.toml"))))


def _digits(source: TaskSource) -> Task:
    if source.data:
        raise UserError("task 'digits' brings its own data: leave --data out")
    return _images("digits", load_digits(), source.model or "resnet8")


def _mnist(source: TaskSource) -> Task:
    return _images("mnist", load_mnist(source.data), source.model or "resnet8")


def _cifar10(source: TaskSource) -> Task:
    path = Path(source.data)
    sets = _folder_sets(path) if is_packed(path) or (path / "train").is_dir() else load_cifar10(path)
    return _images("cifar10", sets, source.model or "resnet20")


def _folder(source: TaskSource) -> Task:
    return _images("images", _folder_sets(Path(source.data)), source.model or "resnet20")


def _folder_sets(path: Path) -> Sets:
    """Images of a pack, or decoded into memory from a tree with one folder a class."""
    return load_packed(path) if is_packed(path) else load_images(path)


def _bytes(source: TaskSource) -> Task:
    sets = load_text(source.data or None)
    if source.model:
        raise UserError("task 'bytes' has one model, a small Transformer: leave --model out")
    model = partial(gpt, width=64, layers=2)  # an epoch in minutes on two cores
    return Task(name="bytes", model=model, train=sets.train, validation=sets.validation, metrics=("accuracy",))


def _images(name: str, sets: Sets, model: str) -> Task:
    """An image classification with a model that fits the images' channels and classes."""
    if model not in MODELS:
        raise unknown("model", model, MODELS)
    _, channels, height, width = sets.train.x.shape
    classes = len(sets.train.classes) or int(sets.train.y.max()) + 1

    def make() -> nn.Module:
        if model in ("linear", "mlp"):
            return MODELS[model](features=channels * height * width, classes=classes)
        try:
            return MODELS[model](in_channels=channels, classes=classes)
        except TypeError as error:
            raise UserError(f"model {model!r} is not for images: choose another one for task {name!r}") from error

    return Task(name=name, model=make, train=sets.train, validation=sets.validation, metrics=("accuracy",))


def _from_file(path: Path, attribute: str, source: TaskSource) -> Loaded:
    """The task called `attribute` in a Python file: a `Task`, or a function without arguments that returns one.

    Where the file has a `Recipe` called `recipe`, that is the task's.
    """
    if source.data or source.model:
        raise UserError(
            "--data and --model belong to built-in tasks: leave them out, a task in a file says what it uses"
        )
    if not path.is_file():
        raise UserError(f"no such file: {path}")
    name = _module_name(path)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # worker processes and dataclasses look a module up by its name
    if (folder := str(path.resolve().parent)) not in sys.path:
        sys.path.insert(0, folder)  # the file may import its neighbours, and worker processes import the file
    try:
        with seeded():
            spec.loader.exec_module(module)
        if not hasattr(module, attribute):
            own = [n for n, v in vars(module).items() if isinstance(v, Task) or getattr(v, "__module__", "") == name]
            raise unknown(f"task in {path}", attribute, own)
        found = getattr(module, attribute)
        with seeded():
            task = found() if callable(found) else found
        recipe = getattr(module, "recipe", None)
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        frame = error.__traceback__
        line = None
        while frame is not None:
            if frame.tb_frame.f_code.co_filename == spec.origin:
                line = frame.tb_lineno
            frame = frame.tb_next
        place = f"{path}:{line or attribute}"
        raise UserError(f"{place} failed: {type(error).__name__}: {' '.join(str(error).split())}") from error
    if not isinstance(task, Task):
        raise UserError(
            f"{path}:{attribute} must be a talweg.Task or a function that returns one, not {type(task).__name__}"
        )
    return Loaded(task, recipe if isinstance(recipe, Recipe) else Recipe(), source)


@contextlib.contextmanager
def seeded() -> Iterator[None]:
    """Inside, torch, NumPy and `random` draw from fixed seeds: a task file that makes up data makes the same again.

    A run is resumed and evaluated by running its task file a second time.
    """
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    torch.default_generator.manual_seed(0)
    np.random.seed(0)  # the global state, because that is what the user's code draws from
    random.seed(0)
    try:
        yield
    finally:
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])
        random.setstate(states[2])


def _module_name(path: Path) -> str:
    """The file's own name, by which worker processes can import it; another one where that name is taken."""
    name = path.stem
    known = sys.modules.get(name) or (importlib.util.find_spec(name) if name.isidentifier() else None)
    origin = getattr(known, "__file__", None) or getattr(known, "origin", None)
    is_free = name.isidentifier() and (known is None or (origin and Path(origin).resolve() == path.resolve()))
    return name if is_free else f"talweg_task_{name}"


TASKS: dict[str, BuiltIn] = {
    "digits": BuiltIn(_digits, "8×8 handwritten digits, 1,797 images, shipped; a small ResNet", ""),
    "bytes": BuiltIn(
        _bytes, "the next byte of the Python standard library's source, or of --data; a small Transformer", ""
    ),
    "mnist": BuiltIn(_mnist, "28×28 handwritten digits", "the folder of the four MNIST idx files"),
    "cifar10": BuiltIn(
        _cifar10, "32×32 photographs, 10 classes", "the folder of the CIFAR-10 files, or of train/<class>/"
    ),
    "images": BuiltIn(
        _folder,
        "any folder of images, one folder a class",
        "the folder that holds <class>/*.jpg or png, or what `talweg pack` made of it",
    ),
}
