"""Every example runs, prints what it promises, and stays short."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

from talweg import cli

FOLDER = Path(__file__).parent.parent / "examples"

# For each example: a pattern of what it prints, and the least and most that the number in it may be.
EXAMPLES = {
    "own_model.py": (r"highest validation\s+accuracy\s+was\s+([\d.]+) %", 96.5, 100.0),
    "dataset.py": (r"highest validation\s+accuracy\s+was\s+([\d.]+) %", 99.0, 100.0),
    "own_loop.py": (r"kept the best weights, those of epoch \d+: ([\d.]+) %", 97.0, 100.0),
    "optimizer_in_your_loop.py": (r"talweg LAMB +([\d.]+) %", 94.0, 100.0),
    "regression.py": (r"at x = .*: predicted ([\d.]+), true 14.57", 13.6, 15.6),
}


def test_every_example_is_here() -> None:
    assert {path.name for path in FOLDER.glob("*.py")} == EXAMPLES.keys()


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_prints_what_it_promises(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (FOLDER / name).read_text()
    assert text.count("\n") < 60
    command = re.search(r'\A"""[^\n]+\n\n    (?:python|talweg train) (\S+) ?(.*)\n', text)
    assert command, "an example opens with its command"
    assert re.search(r"Takes about \d+ s on one CPU thread", text)
    path, _, task = command[1].partition(":")
    assert path == f"examples/{name}"
    monkeypatch.chdir(tmp_path)
    if task:
        with pytest.raises(SystemExit) as end:
            cli.main(["train", f"{FOLDER / name}:{task}", *command[2].split()])
        assert end.value.code == 0
    else:
        runpy.run_path(str(FOLDER / name), run_name="__main__")
    pattern, least, most = EXAMPLES[name]
    found = re.search(pattern, capsys.readouterr().out)
    assert found, f"{pattern} is not printed"
    assert least <= float(found[1]) <= most
