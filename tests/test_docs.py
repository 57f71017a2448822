"""The pages of docs/ are true: their code and commands run, their tables are complete, their links lead somewhere.

How a page is read, block by block, in a folder of its own and in the order of the page:

    ```python       is executed, all blocks of a page in one namespace; `# name.py` in its first line also writes that file
    ```python peer  is compiled only: it needs a library that Talweg does not need
    ```toml         is written to the file that its first line names: `# name.toml`
    ```console      each `$ talweg …` runs; what is shown under it must be what is printed: a mistake word for word, other
                    output up to numbers and small differences between machines; a line `...` stands for any lines
    ```sh           each `talweg …` is parsed, so that its flags exist, but not run
    <!-- run        is executed like a python block, and not shown to the reader: what the page takes for granted
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import io
import re
import runpy
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from talweg import cli, verbs
from talweg.optimizers import RULES
from talweg.schedules import SCHEDULES

ROOT = Path(__file__).parent.parent
PAGES = sorted((ROOT / "docs").glob("*.md"))
WORDS = [*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
BLOCK = re.compile(
    r"^```(?P<kind>[\w ]+)\n(?P<text>.*?)^```$|^<!-- run\n(?P<hidden>.*?)^-->$", re.MULTILINE | re.DOTALL
)
ALIKE = 0.8  # how much of what is printed must be as shown, once numbers are masked
LONG = ("train",)  # pages whose commands take more than a few seconds
MISTAKE = 2  # exit code of a command whose page shows "talweg: …" under it


class Block(NamedTuple):
    """A fenced block: its info string, text, and the line of the page where the text begins."""

    kind: str
    text: str
    line: int


class Ran(NamedTuple):
    """What a command printed, and its exit code."""

    text: str
    code: int


def blocks(path: Path) -> Iterator[Block]:
    page = path.read_text()
    for found in BLOCK.finditer(page):
        group = "hidden" if found["hidden"] is not None else "text"
        yield Block(found["kind"] or "python", found[group], page.count("\n", 0, found.start(group)) + 1)


def commands(text: str, prompt: str) -> Iterator[tuple[list[str], str]]:
    """The words of each `talweg` command after a prompt, and what is shown under it."""
    for part in re.split(f"^{re.escape(prompt)}(?=talweg )", text.replace("\\\n", " "), flags=re.MULTILINE)[1:]:
        command, _, shown = part.partition("\n")
        yield shlex.split(command, comments=True)[1:], shown.strip("\n")


def run(words: list[str]) -> Ran:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        try:
            cli.main(words)
        except SystemExit as end:
            return Ran(printed.getvalue(), int(end.code or 0))
    return Ran(printed.getvalue(), 0)


def masked(text: str) -> list[str]:
    """The words and marks of every line, without what differs from run to run: numbers and ★."""
    plain = re.sub(r"★|\b\d[\d,.]*(e[+-]?\d+)?\b", "#", text)
    return [" ".join(line.replace("# #", "#").split()) for line in plain.splitlines() if line.strip()]


def agrees(shown: str, printed: str) -> bool:
    """Whether what a page shows is what was printed."""
    if shown.startswith("talweg: "):
        return shown == printed.strip()
    if "..." not in [line.strip() for line in shown.splitlines()]:
        return difflib.SequenceMatcher(None, masked(shown), masked(printed), autojunk=False).ratio() >= ALIKE
    have = masked(printed)
    wanted = [line for line in masked(shown) if line != "..."]
    return sum(bool(difflib.get_close_matches(line, have, n=1, cutoff=ALIKE)) for line in wanted) >= ALIKE * len(wanted)


@pytest.mark.parametrize(
    "path", [pytest.param(p, marks=[pytest.mark.slow] if p.stem in LONG else [], id=p.stem) for p in WORDS]
)
def test_code_and_commands_of_a_page_run(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)  # the pages show what a CPU does
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    names: dict[str, Any] = {"__name__": path.stem}
    for block in blocks(path):
        where = f"{path.name}, line {block.line}"
        if block.kind.startswith("python"):
            code = compile("\n" * (block.line - 1) + block.text, str(path), "exec")
            if file := re.match(r"# ([\w/]+\.py)\n", block.text):
                Path(file[1]).write_text(block.text)
            if block.kind == "python":
                exec(code, names)
        elif block.kind == "toml":
            file = re.match(r"# ([\w/-]+\.toml)\n", block.text)
            assert file, f"{where}: the first line must name the file"
            Path(file[1]).write_text(block.text)
        elif block.kind == "console":
            for words, shown in commands(block.text, "$ "):
                ran = run(words)
                expected = MISTAKE if shown.startswith("talweg: ") else 0
                assert ran.code == expected, f"{where}: talweg {shlex.join(words)}\n{ran.text}"
                assert not shown or agrees(shown, ran.text), f"{where}: talweg {shlex.join(words)} prints\n{ran.text}"
        elif block.kind == "sh":
            for words, _ in commands(block.text, ""):
                with monkeypatch.context() as patch:
                    for verb in ("train", "resume", "evaluate"):
                        patch.setattr(verbs, verb, _parsed)
                    patch.setattr("talweg.cli.file_task", lambda words: None)  # such a file reads data that is not here
                    ran = run(words)
                assert ran.code in (0, PARSED), f"{where}: talweg {shlex.join(words)}\n{ran.text}"


PARSED = 77


def _parsed(*arguments: Any, **settings: Any) -> Any:
    raise SystemExit(PARSED)


@pytest.mark.parametrize("path", WORDS, ids=lambda p: p.stem)
def test_links_lead_somewhere(path: Path) -> None:
    text = re.sub(r"^```.*?^```$|`[^`\n]*`", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?://", target):
            continue
        file, _, anchor = target.partition("#")
        there = (path.parent / file).resolve() if file else path
        assert there.exists(), f"{path.name} links to {target}"
        if anchor:
            assert anchor in {_anchor(title) for title in _titles(there)}, f"{path.name} links to {target}"


def _titles(path: Path) -> list[str]:
    return re.findall(
        r"^#+ (.+)$", re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.MULTILINE | re.DOTALL), re.MULTILINE
    )


def _anchor(title: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def test_every_page_is_on_the_map() -> None:
    index = (ROOT / "docs" / "index.md").read_text()
    for path in PAGES:
        assert path.name == "index.md" or f"]({path.name})" in index, path.name


@pytest.mark.parametrize("verb", cli.COMMANDS)
def test_every_command_has_a_page(verb: str) -> None:
    page = (ROOT / "docs" / f"{verb}.md").read_text()
    assert page.startswith(f"# talweg {verb}\n")
    assert f"talweg {verb}" in page


@pytest.mark.parametrize("name", RULES)
def test_every_rule_has_a_row_with_its_defaults(name: str) -> None:
    row = next((line for line in _rows("optimizers.md") if line.startswith(f"| `{name}`")), "")
    for setting in dataclasses.fields(RULES[name]):
        assert f"{setting.name}={setting.default!r}".replace("'", '"') in row, f"{name}: {setting.name} in {row!r}"
    assert f"`{RULES[name].__name__}`" in row


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_has_a_row_with_its_defaults(name: str) -> None:
    row = next((line for line in _rows("schedules.md") if line.startswith(f"| `{name}`")), "")
    common = {"warmup": 0.0, "warmup_shape": "linear", "warmup_start": 0.01}
    for setting in dataclasses.fields(SCHEDULES[name]):
        if setting.name not in common or common[setting.name] != setting.default:
            assert f"{setting.name}={setting.default!r}".replace("'", '"') in row, f"{name}: {setting.name} in {row!r}"
    assert f"`{SCHEDULES[name].__name__}`" in row


def _rows(page: str) -> list[str]:
    return [line for line in (ROOT / "docs" / page).read_text().splitlines() if line.startswith("|")]


def test_every_guarantee_names_a_test_that_exists() -> None:
    page = (ROOT / "docs" / "guarantees.md").read_text()
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", page)
    assert len(named) >= 10
    for file, function in named:
        assert (ROOT / file).is_file(), file
        assert not function or f"def {function}(" in (ROOT / file).read_text(), f"{file}::{function}"


def test_the_pictures_can_be_drawn_anew(tmp_path: Path) -> None:
    runpy.run_path(str(ROOT / "docs" / "pictures" / "make.py"))["main"](tmp_path)
    assert (tmp_path / "schedules.png").read_bytes().startswith(b"\x89PNG")


def test_what_is_shown_is_compared() -> None:
    """The comparison above can fail: it forgives numbers, not words."""
    shown = "   epoch  val loss\n       1    1.2878 ★"
    assert agrees(shown, "   epoch  val loss\n       1    0.3001")
    assert not agrees(shown, "no such file: x")
    assert not agrees("talweg: unknown task 'a'", "talweg: unknown task 'b'\n")
    assert not agrees("...\nRun folder: x", "something else")
