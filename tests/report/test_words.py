"""The verdict: what it says of each kind of run, and that it is good English whatever is missing."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest

from talweg.report.facts import Facts
from talweg.report.reading import read
from talweg.report.words import verdict


def falling(rate: float, floor: float):
    return lambda e: 2.3 * math.exp(-rate * e) + floor


# What happens in the run, how it must be read, and what the text must say.
READINGS: dict[str, tuple[dict[str, Any], str, list[str]]] = {
    "fine": (
        {},
        "fine",
        [
            "A model with 78,042 parameters was trained on digits: 1,437 samples in batches of 64, "
            "20 epochs (460 updates) in 31.2 s.",
            "360 samples were held out for validation.",
            "It ran to its end: all 20 epochs are done.",
            "The highest validation accuracy was 99.17 % at step 460 (epoch 20), with a validation loss of 0.05.",
            "Training accuracy is 100.00 % against 99.17 % in validation, a gap of 0.83 points "
            "(standard error 0.48). That is no sign of overfitting.",
            "with 360 validation samples, a difference below 1.0 points (two standard errors) may be chance.",
        ],
    ),
    "best came early": (
        {
            "accuracy": lambda e: 0.99 - 0.002 * abs(e - 6),
            "validation": lambda e: 2.3 * math.exp(-2 * e) + 0.05 + 0.001 * abs(e - 7),
        },
        "fine",
        [
            "was 99.00 % at step 138 (epoch 6)",
            "not of the last evaluation, step 460, which gave 96.20 %. ",
            "Next: try a schedule of 9 epochs; nothing was gained after epoch 7.",
        ],
    ),
    "best by chance": (
        {"accuracy": lambda e: 0.99 - 0.0001 * abs(e - 6)},
        "fine",
        ["step 460, which gave 98.86 %, less than one standard error away. ", "Next: repeat with other seeds"],
    ),
    "overfit: the loss rises": (
        {"validation": lambda e: 2.3 * math.exp(-0.7 * e) + 0.05 + 0.04 * max(0, e - 8), "accuracy": None},
        "overfit",
        [
            "After epoch 8 the validation loss rose from 0.05851 to 0.49 while the training loss went from 0.01851 to",
            "from there on it was overfitting.",
            "The weights kept are those of step 184, not of the last evaluation, step 460, which gave 0.53.",
            "a schedule of about 8 epochs is long enough",
        ],
    ),
    "overfit: a gap": (
        {"accuracy": lambda e: 0.88 - 0.5 * math.exp(-e)},
        "overfit",
        [
            "against 88.00 % in validation, a gap of 12.00 points",
            "suggests overfitting",
            "augmentation or weight decay",
        ],
    ),
    "a gap of loss alone": (
        {"accuracy": None, "validation": falling(0.9, 0.9)},
        "overfit",
        ["The training loss is 0.01 (a mean over the epoch) against 0.9 in validation", "suggests overfitting"],
    ),
    "improving": (
        {
            "train": falling(0.1, 0),
            "validation": falling(0.1, 0.02),
            "accuracy": lambda e: 0.04 * e,
            "changes": {"train": {"loss": 0.31, "accuracy": 0.82}},
        },
        "improving",
        [
            "still falling, from 0.5332 to 0.3313 over the last 5 evaluations",
            "Next: train longer, for example 30 epochs.",
        ],
    ),
    "underfit": (
        {
            "train": falling(2, 1.5),
            "validation": falling(2, 1.5),
            "accuracy": lambda e: 0.45,
            "changes": {"train": {"loss": 1.5, "accuracy": 0.46}},
        },
        "underfit",
        ["it does not fit even the samples that it was trained on", "learning rates around 0.01", "or 40 epochs"],
    ),
    "underfit by loss": (
        {"train": falling(2, 2.0), "validation": falling(2, 2.0), "accuracy": None},
        "underfit",
        ["It underfits: the training loss fell only from"],
    ),
    "diverged": (
        {"train": lambda e: 1 + e, "validation": lambda e: 1 + e, "accuracy": None},
        "diverged",
        [
            "The training loss ended at",
            "above its start at",
            "Next: lower the learning rate, for example from 0.01 to 0.003333",
        ],
    ),
    "validation is easier": (
        {"changes": {"train": {"loss": 0.2, "accuracy": 0.95}}},
        "fine",
        ["Training accuracy is 95.00 % against 99.17 % in validation, 4.17 points lower"],
    ),
    "no validation": (
        {"validation": None, "accuracy": None, "changes": {"samples": {"train": 1437, "validation": 0}}},
        "blind",
        ["There are no validation results", "Next: hold out validation data."],
    ),
    "early stop": (
        {
            "stop_after": 12,
            "accuracy": lambda e: 0.985 - 0.001 * abs(e - 7),
            "changes": {"reason": {"kind": "early_stop", "text": "no better accuracy for 5 epochs"}},
        },
        "fine",
        [
            "12 of 20 epochs (276 of 460 updates)",
            "It was stopped early: no better accuracy for 5 epochs.",
            "The weights kept are those of step 161, not of the last evaluation, step 276, which gave 98.00 %",
        ],
    ),
    "interrupted": (
        {
            "stop_after": 5,
            "changes": {"status": "interrupted", "reason": {"kind": "interrupted", "text": "stopped by SIGINT"}},
        },
        "improving",
        [
            "5 of 20 epochs (115 of 460 updates)",
            "It was interrupted: stopped by SIGINT.",
            "Next: continue with `talweg resume` (345 updates to go).",
        ],
    ),
    "non-finite": (
        {
            "stop_after": 3,
            "changes": {"status": "failed", "reason": {"kind": "non_finite", "text": "the loss of update 70 is nan"}},
        },
        "fine",
        [
            "It stopped: the loss of update 70 is nan.",
            "Next: lower the learning rate, for example from 0.01 to 0.003333",
        ],
    ),
    "failed": (
        {"stop_after": 3, "changes": {"status": "failed", "reason": {"kind": "failed", "text": "the disk is full"}}},
        "fine",
        ["It failed: the disk is full.", "Next: remove the cause of the failure"],
    ),
    "running": (
        {"stop_after": 3, "changes": {"status": "running", "reason": None}},
        "fine",
        ["It is still running.", "The highest validation accuracy so far was"],
    ),
}


@pytest.mark.parametrize("name", READINGS)
def test_what_a_verdict_says(story, name):
    curves, reading, sentences = READINGS[name]
    summary, rows = story(**{k: v for k, v in curves.items() if k != "changes"})
    summary |= curves.get("changes", {})
    assert read(Facts.read(summary, rows))[0] == reading
    text = verdict(summary, rows)
    for sentence in sentences:
        assert sentence in text, text
    assert text.count("Next:") == (name != "running")
    english(text)


def english(text: str) -> None:
    """Whole sentences, single spaces, no value of the program's own, singular after 1."""
    assert text.endswith(".")
    assert not re.search(r"\s{2}|\.\.|[:,]\.|None|\bnan\b(?<!is nan)|–| ,|\(\)", text), text
    assert not re.search(r"(?<![\d.,])1 (epochs|updates|samples|parameters|batches)", text), text


@pytest.mark.parametrize(
    "key", ["", *["task", "status", "reason", "parameters", "samples", "batch", "epochs", "steps", "steps_per_epoch"]]
)
@pytest.mark.parametrize("also", ["", *["seconds", "monitor", "best", "last", "train"]])
def test_any_piece_may_be_missing(story, key, also):
    summary, rows = story(epochs=4)
    for name in (key, also):
        summary.pop(name, None)
    english(verdict(summary, rows))
    english(verdict({**summary, key: None, also: None}, []))


def test_nothing_is_known():
    assert verdict({}, []) == (
        "A model was trained on an unnamed task. There are no validation results, so nothing can be said about new "
        "samples. Next: hold out validation data."
    )


def test_one_of_everything(story):
    summary, rows = story(epochs=1, per_epoch=1, parameters=1, samples={"train": 1, "validation": 1}, batch=1)
    summary["reason"]["text"] = ""
    text = verdict(summary, rows)
    assert "with 1 parameter was trained on digits: 1 sample in batches of 1, 1 epoch (1 update)" in text
    assert "1 sample was held out" in text
    assert "a gap of 50.22 points (standard error 100.00). With so few validation samples that may be" in text
    assert "Next: hold out more than 1 validation sample: one standard error of the accuracy is 100 points." in text
    english(text)


def test_the_best_comes_from_the_rows_where_the_summary_has_none(story):
    summary, rows = story(accuracy=lambda e: 0.9 - 0.01 * abs(e - 12), best=None, last=None)
    assert "The highest validation accuracy was 90.00 % at step 276 (epoch 12)" in verdict(summary, rows)
    assert "not of the last evaluation, step 460, which gave 82.00 %" in verdict(summary, rows)


def test_values_that_are_not_finite_are_no_evidence(story):
    summary, rows = story()
    for row in rows[::4]:
        row["loss"] = math.nan
    for row in [row for row in rows if row["kind"] == "validation"][:5]:
        row["loss"] = row["accuracy"] = math.inf
    assert read(Facts.read(summary, rows))[0] == "fine"
    english(verdict(summary, rows))


def test_a_gap_within_two_standard_errors_is_not_called_overfitting(story):
    small = {"train": 100, "validation": 20}
    summary, rows = story(accuracy=lambda e: 0.92, samples=small)  # a gap of 8 points, standard error 6.1
    assert read(Facts.read(summary, rows))[0] != "overfit"
    summary, rows = story(accuracy=lambda e: 0.92)  # standard error 1.4
    assert read(Facts.read(summary, rows))[0] == "overfit"
