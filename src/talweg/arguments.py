"""Words of a command line: parsed by tyro from the dataclasses, mistakes said in one line."""

from __future__ import annotations

import contextlib
import difflib
import io
import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path

import tyro

from talweg.errors import UserError, unknown
from talweg.optimizers import RULES
from talweg.recipe import Recipe
from talweg.schedules import SCHEDULES
from talweg.tasks import TASKS, Loaded, TaskSource, built_in_recipe, load_task

_UNKNOWN = "Unrecognized options: "


def run_command(name: str, command: Callable[..., Callable[[], int]], words: Sequence[str]) -> int:
    """Parses `words` into the arguments of `command`, and runs what it returns; the exit code.

    Parsing and running are apart, so that only the parser's own messages are turned into one line.

    Raises:
        UserError: an unknown or missing argument, or a value of the wrong type.
    """
    said = io.StringIO()

    def parse(words: Sequence[str]) -> Callable[[], int]:
        return tyro.cli(command, args=list(words), prog=f"talweg {name}", config=(tyro.conf.OmitArgPrefixes,))

    try:
        with contextlib.redirect_stderr(said):
            action = parse(words)
    except SystemExit as end:
        if not end.code:  # --help
            return 0
        text = one_line(said.getvalue())
        with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()) as page:
            parse(["--help"])
        flags = re.findall(r"--[a-z][a-z0-9-]*", page.getvalue())
        # The parser takes all that follows an unknown option for its value, and then misses what comes later.
        options = [word.split("=")[0].replace("_", "-") for word in words if word.startswith("--")]
        strange = [option for option in options if option not in flags]
        if strange or text.startswith(_UNKNOWN):
            text = unknown_option(", ".join(strange) or text.removeprefix(_UNKNOWN), words, flags)
        raise UserError(f"{text} (see talweg {name} --help)") from None
    return action()


def one_line(box: str) -> str:
    """The sense of one of tyro's error boxes: its text up to the first rule, without frame, line breaks and ceremony.

    Example:
        >>> print(one_line("╭─ Value error ──╮\\n│ Error parsing --batch: bad  │\\n│ ────── │\\n│ Argument helptext: │\\n"))
        --batch: bad
    """
    lines = [line.strip("│ ").strip() for line in box.splitlines() if not line.startswith(("╭", "╰"))]
    if not box.startswith("╭"):  # on an output that cannot show frames, the title is a line of its own, over a rule
        lines = lines[2:]
    words = itertools.takewhile(lambda line: not re.fullmatch("[─-]+", line), lines)
    text = re.sub(r"^Error parsing (settings[.\w]*: |layout: )?", "", " ".join(filter(None, words)))
    return re.sub(r"^Missing from talweg \w+: (\w+) (.*) \(required\)$", r"\1 is missing: \2", text)


def unknown_option(found: str, words: Sequence[str], flags: Sequence[str]) -> str:
    """What to say of words that no flag of a command takes: whose setting it is, or which flag was meant.

    Args:
        found: the words, separated by commas.
        words: the whole command line.
        flags: the flags of the command.

    Example:
        >>> unknown_option("--rho, 0.9", ["digits", "--optimizer", "adam", "--rho", "0.9"], ["--lr", "--optimizer"])
        '--rho is a setting of adadelta, not of adam: choose with --optimizer'
        >>> unknown_option("--learning-rate, 0.1", [], ["--lr", "--batch"])
        'unknown option --learning-rate: did you mean --lr?'
    """
    option = found.split(",")[0].split("=")[0].replace("_", "-")
    if not option.startswith("--"):
        return f"unexpected {found.split(',')[0]!r}"
    setting = option[2:].replace("-", "_")
    for kind, table in (("optimizer", RULES), ("schedule", SCHEDULES)):
        owners = [name for name, cls in table.items() if setting in {field.name for field in fields(cls)}]
        if owners and f"--{kind}" in flags:
            chosen = peek(words, kind) or name_of(getattr(default_recipe(words), kind), table)
            return f"{option} is a setting of {', '.join(owners)}, not of {chosen}: choose with --{kind}"
    near = [
        flag for flag in flags if flag[2:] in (*option[2:].split("-"), initials(option)) or initials(flag) == option[2:]
    ]
    near = near or difflib.get_close_matches(option, flags, n=1, cutoff=0.7)
    return f"unknown option {option}" + (f": did you mean {near[0]}?" if near else "")


def initials(flag: str) -> str:
    """The first letters of a flag's words: "wd" of "--weight-decay"."""
    return "".join(word[0] for word in flag.strip("-").split("-") if word)


def file_task(words: Sequence[str]) -> Loaded | None:
    """The task of a Python file that `train` is asked for, loaded once: its recipe is needed before its flags."""
    name = next((word for word in words if ".py:" in word and not word.startswith("-")), "")
    return load_task(TaskSource(name=name, data=peek(words, "data"), model=peek(words, "model"))) if name else None


def default_recipe(words: Sequence[str], own: Recipe | None = None) -> Recipe:
    """The recipe whose values the flags of `train` start from.

    `--recipe FILE`, else the one of the task (`own`, of a file; or the built-in one), else `Recipe()`; then
    `--optimizer` and `--schedule`, when they name another class than the recipe has, bring it with its own defaults.
    """
    path = peek(words, "recipe")
    texts = {f"--{flag}" for flag in ("data", "model", "recipe", "out")}  # a folder may be called like a task
    task = next(
        (word for word, before in zip(words, ["", *words], strict=False) if word in TASKS and before not in texts), ""
    )
    if path:
        recipe = Recipe.read(Path(path))
    else:
        recipe = own or (built_in_recipe(task) if task else Recipe())
    changed = {}
    for kind, table in (("optimizer", RULES), ("schedule", SCHEDULES)):
        name = peek(words, kind)
        if name and name not in table:
            raise unknown(kind, name, table)
        if name and type(getattr(recipe, kind)) is not table[name]:
            changed[kind] = {"name": name}
    return Recipe.from_table({**recipe.to_table(), **changed}) if changed else recipe


def positional(words: Sequence[str]) -> str:
    """The first word that is neither a flag nor the value of one, or ""; for commands whose only switch is --quiet.

    Example:
        >>> positional(["--device", "cpu", "--quiet", "runs/digits-1"])
        'runs/digits-1'
    """
    for word, before in zip(words, ["", *words], strict=False):
        takes_value = before.startswith("--") and "=" not in before and before not in ("--quiet", "--no-quiet")
        if not word.startswith("-") and not takes_value:
            return word
    return ""


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
