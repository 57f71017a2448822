"""The run folder: numbered, read back as written, and refused in words where it is none."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from talweg import Layout, Recipe, Run, UserError
from talweg.optimizers import SGD

SUMMARY = {
    "status": "finished",
    "reason": None,
    "source": None,
    "decisions": [],
    "layout": {"device": "cpu", "threads": 2},
}
ROWS = [{"kind": "train", "step": k, "loss": 1 / (k + 1), "lr": 1e-5} for k in range(5)]


def test_runs_are_numbered_and_never_overwrite(tmp_path: Path) -> None:
    root = tmp_path / "deep" / "runs"
    runs = [Run.new(root, "digits") for _ in range(3)]
    assert [run.folder.name for run in runs] == ["digits-1", "digits-2", "digits-3"]
    (root / "digits-2").rmdir()
    (root / "digits-4").write_text("a file in the way")
    assert Run.new(root, "digits").folder.name == "digits-2"
    assert Run.new(root, "digits").folder.name == "digits-5"
    assert Run.new(root, "other").folder.name == "other-1"


@pytest.mark.parametrize(("number", "words"), [(errno.EACCES, "permission denied"), (errno.EROFS, "is read-only")])
def test_a_folder_that_may_not_be_written(
    number: int, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(UserError, match=rf"cannot write .*: .*{words}.*choose another place with --out"):
        Run.new(tmp_path, "digits")


def test_a_file_in_place_of_the_root(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    with pytest.raises(UserError, match=r"runs: something that is no folder is in its place; .*--out"):
        Run.new(tmp_path / "runs", "digits")
    with pytest.raises(UserError, match="Not a directory"):
        Run.new(tmp_path / "runs" / "deeper", "digits")


def test_a_link_to_a_disk_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "runs").symlink_to(tmp_path / "unmounted" / "runs")
    with pytest.raises(UserError, match=r"runs: something that is no folder is in its place; .*--out"):
        Run.new(tmp_path / "runs", "digits")


def test_what_is_written_is_read(tmp_path: Path) -> None:
    run = Run.new(tmp_path, "x")
    recipe = Recipe(batch=3, optimizer=SGD(lr=0.25))
    run.write_text("recipe.toml", recipe.to_toml())
    run.write_summary({**SUMMARY, "words": "Größe ≥ 98 %"})
    run.write_history(ROWS)
    again = Run.open(run.folder)
    assert again == run
    assert again.recipe == recipe
    assert again.layout == Layout(device="cpu", threads=2)
    assert again.summary == {**SUMMARY, "words": "Größe ≥ 98 %"}
    assert again.history == ROWS
    assert again.checkpoints == run.folder / "checkpoints"
    run.write_history(ROWS[:2])
    assert again.history == ROWS[:2]


def test_no_history_yet(tmp_path: Path) -> None:
    assert Run(tmp_path).history == []


@pytest.mark.parametrize("cut", [1, 10, 30])
def test_a_last_line_that_was_cut_short_is_left_out(cut: int, tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.write_history(ROWS)
    path = run.path("history.jsonl")
    path.write_text(path.read_text()[:-1][:-cut])
    assert run.history == ROWS[:-1]


@pytest.mark.parametrize(
    ("summary", "message"),
    [
        (None, "is not a run folder: it has no summary.json"),
        ("{", r"cannot read .*summary\.json"),
        ("[]", r"summary\.json is not the summary of a run"),
        ('{"status": "finished"}', r"summary\.json is not the summary of a run"),
    ],
)
def test_not_a_run_folder(summary: str | None, message: str, tmp_path: Path) -> None:
    if summary is not None:
        (tmp_path / "summary.json").write_text(summary)
    with pytest.raises(UserError, match=message) as caught:
        Run.open(tmp_path)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="not a run folder"):
        Run.open(tmp_path / "absent")


def test_damaged_layout_and_history_are_named(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.write_summary({**SUMMARY, "layout": {"devise": "cpu"}})
    with pytest.raises(UserError, match=r"unknown setting 'layout\.devise': did you mean 'layout\.device'"):
        _ = run.layout
    run.path("history.jsonl").mkdir()
    with pytest.raises(UserError, match=r"cannot read .*history\.jsonl"):
        _ = run.history


def test_summary_is_readable_by_people_and_programs(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.write_summary(SUMMARY)
    text = run.path("summary.json").read_text()
    assert json.loads(text) == SUMMARY
    assert text.startswith('{\n  "status": "finished",\n')
    assert text.endswith("}\n")
