"""One paragraph about a run: what was trained, why it stopped, how good it is, and one thing to try next."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from talweg.report.facts import Facts
from talweg.report.formats import Row, counted, duration, epoch_text, finite, metric, number
from talweg.report.reading import read


def verdict(summary: Mapping[str, Any], rows: Iterable[Row]) -> str:
    """One paragraph in plain English on a run; whatever is missing from the data is left out of the text.

    It says what was trained and for how long, why it stopped, the best evaluation, which weights were kept if these
    are not the last, the gap between training and validation with what it means, and one next step. The thresholds
    for overfitting, underfitting and the rest stand in `talweg.report.reading.read`.

    Args:
        summary: the content of `summary.json`; any entry may be missing or null.
        rows: the rows of `history.jsonl`, of kinds "train" and "validation".

    Example:
        >>> summary = {"task": "digits", "parameters": 650, "epochs": 1, "steps": 23, "status": "finished"}
        >>> for sentence in verdict(summary, []).split(". "):
        ...     print(sentence)
        A model with 650 parameters was trained on digits: 1 epoch (23 updates)
        It ran to its end
        There are no validation results, so nothing can be said about new samples
        Next: hold out validation data.
    """
    facts = Facts.read(summary, rows)
    reading, meaning = read(facts)
    parts = [_trained(facts), _stopped(facts), _best(facts), _kept(facts), meaning, _next_step(facts, reading)]
    return " ".join(part for part in parts if part)


def _trained(facts: Facts) -> str:
    """What was trained, on how much, for how long."""
    summary = facts.summary
    parameters = finite(summary.get("parameters"))
    model = "A model" + (f" with {counted(parameters, 'parameter')}" if parameters else "")
    samples, held_out, batch = facts.samples("train"), facts.samples("validation"), finite(summary.get("batch"))
    pieces = []
    if samples:
        pieces.append(counted(samples, "sample") + (f" in batches of {number(int(batch))}" if batch else ""))
    elif batch:
        pieces.append(f"batches of {number(int(batch))}")
    pieces += _length(facts)
    details = f": {', '.join(pieces)}" if pieces else ""
    if finite(summary.get("seconds")) is not None:
        details += f" in {duration(summary['seconds'])}"
    were = "was" if held_out == 1 else "were"
    validation = f" {counted(held_out, 'sample')} {were} held out for validation." if held_out else ""
    return f"{model} was trained on {str(summary.get('task') or '').strip() or 'an unnamed task'}{details}.{validation}"


def _length(facts: Facts) -> list[str]:
    """The epochs and updates, those made and, where it was cut short, those planned."""
    epochs, done, planned = finite(facts.summary.get("epochs")), facts.done, facts.planned
    if done is None:
        return [counted(epochs, "epoch")] if epochs else []
    if not facts.cut_short or planned is None:
        updates = counted(done, "update")
        return [f"{counted(epochs, 'epoch')} ({updates})" if epochs else updates]
    updates = f"{number(done)} of {counted(planned, 'update')}"
    return [f"{epoch_text(epochs * done / planned)} of {counted(epochs, 'epoch')} ({updates})" if epochs else updates]


def _stopped(facts: Facts) -> str:
    """Why the training stopped."""
    text = str((facts.summary.get("reason") or {}).get("text") or "").strip().rstrip(".")
    if facts.kind == "running":
        return "It is still running."
    told = {
        "completed": "It ran to its end",
        "early_stop": "It was stopped early",
        "interrupted": "It was interrupted",
        "failed": "It failed",
    }.get(facts.kind, "It stopped")
    why = text or ("the loss was no longer finite" if facts.kind == "non_finite" else "")
    if told == "It stopped" and not why:
        return f"It stopped: {facts.kind}." if facts.kind else ""
    return f"{told}: {why}." if why else f"{told}."


def _best(facts: Facts) -> str:
    """The best evaluation: value, step, epoch."""
    value = finite(facts.best.get(facts.name))
    if value is None:
        return ""
    so_far = " so far" if facts.kind == "running" else ""
    loss = finite(facts.best.get("loss")) if facts.name != "loss" else None
    beside = f", with a validation loss of {number(loss)}" if loss is not None else ""
    subject = f"The {'highest' if facts.higher else 'lowest'} validation {facts.name}{so_far}"
    return f"{subject} was {metric(facts.name, value)}{_where(facts.best)}{beside}."


def _kept(facts: Facts) -> str:
    """A sentence where the best weights are not the last ones; a run that is to go on has not chosen yet."""
    step, last = facts.best.get("step"), facts.last.get("step")
    if step is None or last is None or step == last or facts.kind in ("running", "interrupted", "failed"):
        return ""
    value = finite(facts.last.get(facts.name))
    there = f", which gave {metric(facts.name, value)}" if value is not None else ""
    error, best = facts.standard_error(), finite(facts.best.get(facts.name))
    if error is not None and value is not None and best is not None and abs(best - value) < error:
        there += ", less than one standard error away"
    return f"The weights kept are those of step {number(step)}, not of the last evaluation, step {number(last)}{there}."


def _next_step(facts: Facts, reading: str) -> str:
    """One suggestion, from the numbers of this run."""
    if facts.kind == "running":
        return ""
    rates = [rate for row in facts.train if (rate := finite(row.get("lr")))]
    if facts.kind == "non_finite" or reading == "diverged":
        lower = f", for example from {number(max(rates))} to {number(max(rates) / 3)}" if rates else ""
        return f"Next: lower the learning rate{lower}; a longer warm-up or gradient clipping may do as well."
    if facts.kind == "failed":
        return "Next: remove the cause of the failure, then continue with `talweg resume`."
    if facts.kind == "interrupted":
        left = (facts.planned or 0) - (facts.done or 0)
        to_go = f" ({counted(left, 'update')} to go)" if left > 0 else ""
        return f"Next: continue with `talweg resume`{to_go}."
    advice = {
        "blind": lambda: "hold out validation data",
        "overfit": lambda: _against_overfitting(facts),
        "improving": lambda: _longer(facts),
        "underfit": lambda: _against_underfitting(facts, rates),
        "fine": lambda: _repeat(facts),
    }
    return f"Next: {advice[reading]()}."


def _against_overfitting(facts: Facts) -> str:
    epochs, best = finite(facts.summary.get("epochs")), finite(facts.best.get("epoch"))
    advice = "more data, augmentation or weight decay"
    if facts.kind == "early_stop" or not epochs or not best or best > 0.8 * epochs:
        return advice
    return f"{advice}; without them, a schedule of about {counted(math.ceil(best), 'epoch')} is long enough"


def _longer(facts: Facts) -> str:
    epochs = finite(facts.summary.get("epochs"))
    return "train longer" + (f", for example {counted(math.ceil(1.5 * epochs), 'epoch')}" if epochs else "")


def _against_underfitting(facts: Facts, rates: list[float]) -> str:
    epochs = finite(facts.summary.get("epochs"))
    rate = f"learning rates around {max(rates):.2g}, a factor of 3 apart" if rates else "other learning rates"
    longer = f"{counted(2 * epochs, 'epoch')}" if epochs else "a longer training"
    return f"try {rate}; if none fits the training samples better, a larger model or {longer}"


def _repeat(facts: Facts) -> str:
    """For a run without a fault: a shorter schedule if best and lowest loss came early, else the spread."""
    epochs, best = finite(facts.summary.get("epochs")), finite(facts.best.get("epoch"))
    by_loss = [(loss, finite(row.get("epoch"))) for row in facts.validation if (loss := finite(row.get("loss")))]
    lowest = min(by_loss, key=lambda pair: pair[0])[1] if by_loss else best
    if facts.kind == "completed" and epochs and best and lowest and max(best, lowest) <= 0.5 * epochs:
        enough = counted(math.ceil(1.2 * max(best, lowest)), "epoch")
        return f"try a schedule of {enough}; nothing was gained after epoch {epoch_text(max(best, lowest))}"
    advice = "repeat with other seeds before comparing recipes"
    if (error := facts.standard_error()) is None:
        return advice
    samples = counted(facts.samples("validation") or 0, "validation sample")
    if error > 0.05:
        return f"hold out more than {samples}: one standard error of the {facts.name} is {100 * error:.0f} points"
    return f"{advice}; with {samples}, a difference below {200 * error:.1f} points (two standard errors) may be chance"


def _where(row: Row) -> str:
    """At which step and epoch."""
    step, epoch = row.get("step"), row.get("epoch")
    inside = f"epoch {epoch_text(epoch)}" if epoch is not None else ""
    if step is None:
        return f" in {inside}" if inside else ""
    return f" at step {number(step)}" + (f" ({inside})" if inside else "")
