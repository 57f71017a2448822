"""How a run is to be read: diverged, overfitting, still improving, underfitting, fine, or blind (no validation)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from talweg.report.facts import Facts
from talweg.report.formats import epoch_text, finite, is_share, metric, metric_names, number

GAP_POINTS = 0.05  # accuracies: training minus validation, as a difference of shares
GAP_FALL = 0.20  # losses: validation minus training, as a part of the loss's fall
RISE_FALL = 0.10  # validation loss at the end above its minimum, as a part of its fall
STILL_FALLING = 0.02  # gain of the last quarter of the evaluations, as a part of the fall
DIVERGED = 0.10  # training loss at the end above its start, as a part of the start
UNDERFIT_SHARE = 0.90  # training accuracy below this, with a small gap
UNDERFIT_LOSS = 0.50  # training loss above this part of the first loss, where there is no accuracy


def read(facts: Facts) -> tuple[str, str]:
    """A word for how the run is to be read, and the sentences that say so with their numbers.

    L is the loss, t training, v validation; fall = (the larger of the first L_t and the first L_v) − min L_v.

    - "diverged": the end of L_t (median of the last three) lies ≥ 10 % above its first value;
    - "overfit": the end of L_v lies ≥ 10 % of the fall above min L_v while L_t did not rise; or training accuracy −
      validation accuracy ≥ 5 points and ≥ 2 standard errors; for tasks without accuracy, L_v − L_t ≥ 20 % of the fall;
    - "improving": the last quarter of the evaluations lowered min L_v by ≥ 2 % of the fall;
    - "underfit": none of these, and training accuracy < 90 %; without accuracy, L_t > 50 % of the first loss;
    - "blind": there was no validation;  "fine": otherwise.

    Example:
        >>> rows = [{"kind": "validation", "step": s, "epoch": s, "loss": loss, "train_loss": 1 / s}
        ...         for s, loss in enumerate([2.0, 1.0, 0.6, 0.8, 1.0, 1.2], start=1)]
        >>> read(Facts.read({}, rows))[0]
        'overfit'

    Source: the questions are those of the "Deep Learning Tuning Playbook" (Godbole et al., 2023); thresholds are ours.
    """
    validation, train = facts.losses("validation"), facts.losses("train")
    if len(train) > 1 and _end(train) > train[0] + DIVERGED * abs(train[0]):
        return "diverged", f"The training loss ended at {number(_end(train))}, above its start at {number(train[0])}."
    if not validation and not facts.best:
        return "blind", "There are no validation results, so nothing can be said about new samples."
    first = max([*train[:1], *validation[:1]], default=math.nan)
    fall = first - min(validation, default=math.nan)

    gap, size = _gap(facts, fall)
    if rise := _rise(facts, fall):
        return "overfit", f"{gap} {rise}".strip()
    if falling := _falling(validation, fall):
        return "improving", f"{gap} {falling}".strip()
    if size == "large":
        return "overfit", f"{gap} This much suggests overfitting: it fits its own samples better than new ones."
    if underfit := _underfit(facts, first):
        return "underfit", f"{gap} {underfit}".strip()
    return "fine", f"{gap} That is no sign of overfitting." if size == "small" else gap


def _gap(facts: Facts, fall: float) -> tuple[str, str]:
    """The sentence on training against validation, and whether the gap is "large", "small" or "unknown"."""
    there, evaluated = facts.on_training_data()
    names = [name for name in metric_names([there], facts.name) if is_share(name)]
    for name in names:
        ours, theirs = finite(there[name]), finite(facts.best.get(name))
        if ours is None or theirs is None:
            continue
        gap, error = ours - theirs, facts.standard_error(name)
        known = f" (standard error {100 * error:.2f})" if error else ""
        text = f"Training {name} is {metric(name, ours)} against {metric(name, theirs)} in validation, "
        if gap < 0:
            return f"{text}{-100 * gap:.2f} points lower{known}.", "small"
        text = f"{text}a gap of {100 * gap:.2f} points{known}."
        if gap < GAP_POINTS:
            return text, "small"
        if gap < 2 * (error or 0.0):
            return f"{text} With so few validation samples that may be chance.", "unknown"
        return text, "large"
    ours, theirs = finite(there.get("loss")), finite(facts.best.get("loss"))
    if ours is None or theirs is None:
        return "", "unknown"
    during = "" if evaluated else " (a mean over the epoch)"
    text = f"The training loss is {number(ours)}{during} against {number(theirs)} in validation"
    if theirs <= ours:
        return f"{text}.", "small"
    if not fall > 0:
        return f"{text}.", "unknown"
    share = (theirs - ours) / fall
    return (
        f"{text}, a gap of {100 * share:.1f} % of the loss's fall from its start.",
        "large" if share >= GAP_FALL else "small",
    )


def _rise(facts: Facts, fall: float) -> str:
    """The sentence on a validation loss that rises while the training loss does not; empty where it does not rise."""
    rows = [row for row in facts.validation if finite(row.get("loss")) is not None]
    losses = [row["loss"] for row in rows]
    bottom = losses.index(min(losses)) if losses else 0
    if len(losses) - bottom < 3 or not fall > 0:
        return ""
    end = _end(losses[bottom + 1 :])
    then, now = finite(rows[bottom].get("train_loss")), finite(rows[-1].get("train_loss"))
    known = then is not None and now is not None
    if end - losses[bottom] < RISE_FALL * fall or (known and now > then):  # type: ignore[operator]
        return ""
    train = f" while the training loss went from {number(then)} to {number(now)}" if known else ""
    return (
        f"After epoch {epoch_text(rows[bottom].get('epoch'))} the validation loss rose from {number(losses[bottom])} "
        f"to {number(end)}{train}: from there on it was overfitting."
    )


def _falling(losses: Sequence[float], fall: float) -> str:
    """The sentence on a validation loss that still fell in the last quarter; empty where it did not."""
    quarter = len(losses) // 4
    if quarter == 0 or not fall > 0:
        return ""
    before, after = min(losses[:-quarter]), min(losses[-quarter:])
    if before - after < STILL_FALLING * fall:
        return ""
    last = "in the last evaluation" if quarter == 1 else f"over the last {quarter} evaluations"
    return f"The validation loss was still falling, from {number(before)} to {number(after)} {last}."


def _underfit(facts: Facts, first: float) -> str:
    """The sentence on a model that does not fit its training samples; empty where it does, or one cannot tell."""
    there, _ = facts.on_training_data()
    for name in metric_names([there], facts.name):
        share = finite(there[name])
        if is_share(name) and share is not None:
            low = share < UNDERFIT_SHARE
            return "It underfits: it does not fit even the samples that it was trained on." if low else ""
    loss = finite(there.get("loss"))
    if loss is None or not first > 0 or loss <= UNDERFIT_LOSS * first:
        return ""
    return f"It underfits: the training loss fell only from {number(first)} to {number(loss)}."


def _end(losses: Sequence[float]) -> float:
    """The median of the last three, or the larger middle one of fewer."""
    last = sorted(losses[-3:])
    return last[len(last) // 2]
