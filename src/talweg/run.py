"""What a training leaves on disk, and how to read it back."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from talweg.checkpoint import cannot_write, write_atomically
from talweg.errors import UserError
from talweg.layout import Layout
from talweg.recipe import Recipe
from talweg.settings import from_table

WEIGHTS, NORMALIZER = "model.safetensors", "normalize.safetensors"


@dataclass(frozen=True)
class Run:
    """A run folder.

    | file | what |
    |---|---|
    | `recipe.toml` | how it was trained |
    | `history.jsonl` | losses and evaluations, a row each |
    | `summary.json` | task, layout, automatic decisions, best result, why it stopped, the verdict in words |
    | `checkpoints/` | the two newest states, to go on from |
    | `model.safetensors` | the best weights, under the names of the model's `state_dict` |
    | `normalize.safetensors` | what was fitted on the training data to normalise with |
    | `curves.png`, `report.html` | the picture and the page |

    Example:
        >>> import tempfile
        >>> run = Run(Path(tempfile.mkdtemp()))
        >>> run.write_summary({"task": "digits"})
        >>> run.summary["task"]
        'digits'
    """

    folder: Path

    @classmethod
    def new(cls, root: str | Path, name: str) -> Run:
        """Makes a new folder `root/name-1`, `name-2`, …: a run never overwrites another.

        Raises:
            UserError: the folder cannot be made.
        """
        try:
            Path(root).mkdir(parents=True, exist_ok=True)  # a link to nowhere exists, too, and fails here
            for number in range(1, 1_000_000):
                folder = Path(root) / f"{name}-{number}"
                with contextlib.suppress(FileExistsError):
                    folder.mkdir(parents=True)
                    return cls(folder)
        except OSError as error:
            raise cannot_write(Path(root), error) from error
        raise UserError(f"a million runs named {name!r} lie in {root}: choose another place with --out")

    @classmethod
    def open(cls, folder: str | Path) -> Run:
        """An existing run folder.

        Raises:
            UserError: there is no run in it, or its summary is damaged.
        """
        run = cls(Path(folder))
        if not run.path("summary.json").is_file():
            raise UserError(
                f"{folder} is not a run folder: it has no summary.json (a run prints its folder when it ends)"
            )
        facts = run.summary
        if not isinstance(facts, dict) or not {"status", "reason", "source", "layout", "decisions"} <= facts.keys():
            raise UserError(f"{run.path('summary.json')} is not the summary of a run: give the folder of another run")
        return run

    def path(self, name: str) -> Path:
        """A file of the run."""
        return self.folder / name

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.folder / "checkpoints"

    @property
    def recipe(self) -> Recipe:
        """How it was trained."""
        return Recipe.read(self.path("recipe.toml"))

    @property
    def layout(self) -> Layout:
        """Where it was trained."""
        return from_table(Layout, self.summary["layout"], {}, "layout.")

    @property
    def summary(self) -> dict[str, Any]:
        """The facts of `summary.json`."""
        try:
            return json.loads(self.path("summary.json").read_text())
        except (OSError, ValueError) as error:
            raise UserError(f"cannot read {self.path('summary.json')}: {error}") from error

    @property
    def history(self) -> list[dict[str, Any]]:
        """The rows of `history.jsonl`; a last line that a kill cut short is left out."""
        try:
            lines = self.path("history.jsonl").read_text().splitlines()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise UserError(f"cannot read {self.path('history.jsonl')}: {error}") from error
        rows = []
        for line in lines:
            try:
                rows.append(json.loads(line))
            except ValueError:
                break
        return rows

    def write_summary(self, facts: Mapping[str, Any]) -> None:
        """Writes `summary.json`."""
        self.write_text("summary.json", json.dumps(dict(facts), indent=2) + "\n")

    def write_history(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Writes `history.jsonl` whole: a run leaves a few thousand rows at the most."""
        self.write_text("history.jsonl", "".join(json.dumps(row) + "\n" for row in rows))

    def write_text(self, name: str, text: str) -> None:
        """Writes a text file atomically.

        Raises:
            UserError: it cannot be written.
        """
        try:
            write_atomically(self.path(name), text.encode())
        except OSError as error:
            raise cannot_write(self.path(name), error) from error
