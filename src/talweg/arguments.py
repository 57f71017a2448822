"""Words of a command line: parsed by tyro from the dataclasses, mistakes said in one line."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import tyro

from talweg.errors import UserError, unknown
from talweg.optimizers import RULES
from talweg.recipe import Recipe
from talweg.schedules import SCHEDULES
from talweg.tasks import TASKS, built_in_recipe


def run_command(name: str, command: Callable[..., Callable[[], int]], words: Sequence[str]) -> int:
    """Parses `words` into the arguments of `command`, and runs what it returns; the exit code.

    Parsing and running are apart, so that only the parser's own messages are turned into one line.

    Raises:
        UserError: an unknown or missing argument, or a value of the wrong type.
    """
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            action = tyro.cli(command, args=list(words), prog=f"talweg {name}", config=(tyro.conf.OmitArgPrefixes,))
    except SystemExit as end:
        if not end.code:  # --help
            return 0
        raise UserError(f"{one_line(said.getvalue())} (see talweg {name} --help)") from None
    return action()


def one_line(box: str) -> str:
    """The sense of one of tyro's error boxes: its text up to the second rule, without frame and line breaks.

    Example:
        >>> print(one_line("╭─ Value error ──╮\\n│ Error parsing --batch: bad  │\\n│ ────── │\\n│ Argument helptext: │\\n"))
        Error parsing --batch: bad
    """
    lines = [line.strip("│ ").strip() for line in box.splitlines() if not line.startswith(("╭", "╰"))]
    parts: list[list[str]] = [[]]
    for line in lines:
        if re.fullmatch("─+", line):
            parts.append([])
        elif line:
            parts[-1].append(line)
    text = " ".join(parts[0])
    if len(parts) > 1 and parts[1][:1] == ["Perhaps you meant:"]:
        text += f"; perhaps you meant {parts[1][1].split()[0]}"
    return text


def default_recipe(words: Sequence[str]) -> Recipe:
    """The recipe whose values the flags of `train` start from.

    `--recipe FILE`, else the one of the built-in task, else `Recipe()`; then `--optimizer` and `--schedule`, when they
    name another class than the recipe has, bring that class with its own defaults.
    """
    path = peek(words, "recipe")
    texts = {f"--{flag}" for flag in ("data", "model", "recipe", "out")}  # a folder may be called like a task
    task = next(
        (word for word, before in zip(words, ["", *words], strict=False) if word in TASKS and before not in texts), ""
    )
    if path:
        recipe = Recipe.read(Path(path))
    else:
        recipe = built_in_recipe(task) if task else Recipe()
    changed = {}
    for kind, table in (("optimizer", RULES), ("schedule", SCHEDULES)):
        name = peek(words, kind)
        if name and name not in table:
            raise unknown(kind, name, table)
        if name and type(getattr(recipe, kind)) is not table[name]:
            changed[kind] = {"name": name}
    return Recipe.from_table({**recipe.to_table(), **changed}) if changed else recipe


def peek(words: Sequence[str], flag: str) -> str:
    """The value of `--flag value` or `--flag=value` among the words, or ""."""
    for word, following in zip(words, [*words[1:], ""], strict=False):
        if word == f"--{flag}":
            return following
        if word.startswith(f"--{flag}="):
            return word.split("=", 1)[1]
    return ""


def name_of(settings: object, table: dict[str, type]) -> str:
    """The name under which a table has the class of `settings`."""
    return next(name for name, cls in table.items() if cls is type(settings))
