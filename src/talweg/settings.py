"""Settings as frozen dataclasses, and their way to and from TOML.

A settings object is a frozen dataclass whose fields are numbers, words, lists of them, or other settings. Where a field
may hold one of several classes (an optimizer, a schedule), a table names them and `name = "..."` in TOML picks one.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import itertools
import math
import textwrap
import tomllib
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from talweg.errors import UserError, require, unknown

Tables = Mapping[Any, Mapping[str, Any]]  # base class → {name: class}


def check_types(settings: Any) -> None:
    """Raises a `UserError` naming the first field whose value does not fit its type; call it in `__post_init__`."""
    hints = get_type_hints(type(settings))
    for field in dataclasses.fields(settings):
        _fit(field.name, getattr(settings, field.name), hints[field.name])


def to_table(settings: Any, tables: Tables) -> dict[str, Any]:
    """A settings object as nested plain values, with `name` where a table names its class.

    Example:
        >>> from talweg.layout import Layout
        >>> to_table(Layout(device="cpu"), {})["device"]
        'cpu'
    """
    table: dict[str, Any] = {}
    for base, named in tables.items():
        if isinstance(settings, base):
            table["name"] = next(name for name, cls in named.items() if cls is type(settings))
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if dataclasses.is_dataclass(value):
            value = to_table(value, tables)
        table[field.name] = list(value) if isinstance(value, tuple) else value
    return table


def from_table(cls: type, table: Mapping[str, Any], tables: Tables, where: str = "") -> Any:
    """The settings object of class `cls` (or of the class that `name` picks) from nested plain values.

    Raises:
        UserError: an unknown setting or name (with the nearest known one), or a value of the wrong type; `where` is
            put before the setting's name.
    """
    values = dict(table)
    if cls in tables:
        if "name" not in values:
            raise UserError(f"{where.rstrip('.')} has no name: say name = one of {', '.join(sorted(tables[cls]))}")
        name = values.pop("name")
        require(isinstance(name, str), f"{where}name", name, "a word in quotes")
        if name not in tables[cls]:
            raise unknown(where.rstrip("."), name, tables[cls])
        cls = tables[cls][name]
    hints = get_type_hints(cls)
    known = [field.name for field in dataclasses.fields(cls)]
    for key, value in values.items():
        if key not in known:
            raise unknown("setting", where + key, [where + k for k in known])
        if isinstance(hints[key], type) and dataclasses.is_dataclass(hints[key]):
            require(isinstance(value, Mapping), where + key, value, f"a table ([{where}{key}])")
            values[key] = from_table(hints[key], value, tables, f"{where}{key}.")
        else:
            values[key] = _fit(where + key, tuple(value) if isinstance(value, list) else value, hints[key])
    return cls(**values)


def to_toml(settings: Any, tables: Tables) -> str:
    """A settings object as TOML text, every value followed by its doc line."""
    return "\n".join(_lines(settings, tables, "")).strip() + "\n"


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file as nested plain values.

    Raises:
        UserError: no such file, not a file, not UTF-8, or not TOML; with the line where reading stopped.
    """
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"no such file: {path}") from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}; give a TOML file") from error
    except UnicodeDecodeError as error:
        raise UserError(f"cannot read {path}: it is not UTF-8 text ({error.reason} at byte {error.start})") from error
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{path} is not valid TOML: {error}") from error


def docs(cls: Any) -> dict[str, str]:
    """The doc line of each field: the string literal that follows it in the source, base classes included."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if base is object:
            continue
        try:
            body = typing.cast(ast.ClassDef, ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]).body
        except (OSError, TypeError):  # a class typed into a shell has no source: it has no doc lines either
            continue
        for field, doc in itertools.pairwise(body):
            if isinstance(field, ast.AnnAssign) and isinstance(doc, ast.Expr) and isinstance(doc.value, ast.Constant):
                found[typing.cast(ast.Name, field.target).id] = " ".join(str(doc.value.value).split())
    return found


def _lines(settings: Any, tables: Tables, path: str) -> list[str]:
    lines: list[str] = []
    own = docs(type(settings))
    nested = []
    for key, value in to_table(settings, tables).items():
        if isinstance(value, dict):
            nested.append(key)
            continue
        text = f"{key} = {_toml(value)}"
        lines.append(f"{text:<28}  # {own[key]}" if key in own else text)
    for key in nested:
        lines += ["", f"[{path}{key}]", *_lines(getattr(settings, key), tables, f"{path}{key}.")]
    return lines


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")
        return f'"{escaped}"'
    if isinstance(value, list):
        return "[" + ", ".join(_toml(v) for v in value) + "]"
    return repr(float(value) if isinstance(value, float) else value)  # numpy's float64 is a float with another repr


def _fit(name: str, value: Any, hint: Any) -> Any:
    """`value`, as the type `hint` wants it (an int where a float is wanted becomes one), or a `UserError`."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Literal:
        if value not in inner:
            raise unknown(name, value, [str(choice) for choice in inner])
    elif origin in (types.UnionType, typing.Union):
        if any(_fits(value, option) for option in inner):
            return value
        raise UserError(f"{name} must be {hint}, received {value!r}")
    elif origin is tuple:
        require(isinstance(value, tuple), name, value, "a tuple" if isinstance(value, list) else "a list")
        return tuple(_fit(f"{name}[{i}]", v, inner[0] if inner[-1] is ... else inner[i]) for i, v in enumerate(value))
    elif hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    elif not _fits(value, hint):
        word = {int: "a whole number", float: "a number", str: "a word in quotes", bool: "true or false"}
        expected = word.get(hint) or f"an object of class {hint.__name__}"
        raise UserError(f"{name} must be {expected}, received {value!r}")
    elif isinstance(value, float):
        require(not math.isnan(value), name, value, "a number, not NaN")
    return value


def _fits(value: Any, hint: Any) -> bool:
    if hint in (int, float) and isinstance(value, bool):
        return False
    return isinstance(value, hint) if isinstance(hint, type) else True
