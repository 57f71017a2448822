"""The report of a run as one HTML file that needs neither a network nor a script."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from os import PathLike
from pathlib import Path
from typing import Any

from talweg.errors import UserError
from talweg.report.curves import svg_panels
from talweg.report.facts import Facts
from talweg.report.formats import (
    MISSING,
    Row,
    clock,
    counted,
    duration,
    epoch_text,
    finite,
    fixed,
    metric,
    metric_names,
    number,
    unbroken,
)
from talweg.report.words import verdict

STYLE = """
:root { color-scheme: light dark; --paper: #fefefe; --card: #f4f6f9; --ink: #1f2933; --muted: #5f6c7b; --grid: #dfe4eb;
  --train: #2f6db3; --validation: #d9651f; --best: #0f7a54; --rate: #7a4fb5; --mark: #e7f5ee; }
@media (prefers-color-scheme: dark) { :root { --paper: #14181d; --card: #1d232b; --ink: #e6eaef; --muted: #9aa7b5;
  --grid: #323b46; --train: #6ea8e8; --validation: #f0925a; --best: #4fc795; --rate: #b090e6; --mark: #1b3329; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.55 system-ui, sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 2rem 1.25rem 3rem; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.05rem; margin: 2.4rem 0 .7rem; }
header { display: flex; flex-wrap: wrap; gap: .4rem .9rem; align-items: baseline; margin-bottom: 1.1rem; }
.status { color: var(--muted); border: 1px solid var(--grid); border-radius: 1rem; font-size: .85rem; padding: 0 .7rem }
.verdict { max-width: 46rem; font-size: 1.05rem; margin: 0; overflow-wrap: anywhere; }
.numbers { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .7rem; margin: 1.6rem 0 0 }
.numbers div { background: var(--card); border-radius: .5rem; padding: .7rem .9rem; }
.numbers dt { color: var(--muted); font-size: .82rem; }
.numbers dd { margin: 0; font-size: 1.3rem; font-weight: 600; font-variant-numeric: tabular-nums; }
.numbers small { display: block; color: var(--muted); font-size: .78rem; font-weight: 400; }
.panels { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 21rem), 1fr)); gap: 1.2rem; }
.panels svg { display: block; width: 100%; height: auto; }
.panels text { font-family: inherit !important; }
.scroll { overflow: auto; max-height: 36rem; border: 1px solid var(--grid); border-radius: .5rem; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .4rem .7rem; text-align: left; vertical-align: top; border-bottom: 1px solid var(--grid); }
tr:last-child > * { border-bottom: 0; }
thead th { position: sticky; top: 0; background: var(--card); color: var(--muted); white-space: nowrap; }
tbody th { font-weight: 600; }
.figures th, .figures td { text-align: right; white-space: nowrap; }
.best > * { background: var(--mark); } .best .star { color: var(--best); font-weight: 700; }
.about th, .about td { min-width: 6rem; }
.about th { white-space: nowrap; }
.about td:last-child { width: 100%; overflow-wrap: anywhere; }
pre { background: var(--card); border-radius: .5rem; padding: 1rem; margin: 0; overflow: auto; user-select: all;
  font: .85rem/1.5 ui-monospace, monospace; }
a { color: var(--train); } footer, .note { color: var(--muted); font-size: .85rem; } footer { margin-top: 2.5rem; }
:focus-visible { outline: 2px solid var(--train); outline-offset: 2px; }
"""


def write_page(
    summary: Mapping[str, Any],
    rows: Iterable[Row],
    recipe_toml: str,
    path: str | PathLike[str],
    curves_png: str | PathLike[str] | None = None,
) -> None:
    """Writes the report of a run: verdict, key numbers, curves, decisions, evaluations and recipe, in one HTML file.

    The curves are inline SVG in the reader's light or dark colours; the PNG is embedded as a download beside them.

    Args:
        summary: the content of `summary.json`; any entry may be missing or null.
        rows: the rows of `history.jsonl`.
        recipe_toml: the recipe as text.
        path: file to write.
        curves_png: the picture made by `plot_curves`; a missing file is left out.

    Raises:
        UserError: the page cannot be written.

    Example:
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "report.html"
        >>> write_page({"task": "<digits>"}, [], 'optimizer = "sgd"', path)
        >>> "<h1>&lt;digits&gt;</h1>" in path.read_text(encoding="utf-8")   # a name is text, never markup
        True
    """
    rows = list(rows)
    facts = Facts.read(summary, rows)
    task = escape(str(summary.get("task") or "unnamed task"))
    sections = [
        f"<header><h1>{task}</h1>{_status(facts)}</header>",
        f'<p class="verdict">{escape(unbroken(verdict(summary, rows)))}</p>',
        _numbers(facts),
        _curves(facts, rows, curves_png),
        _evaluations(facts),
        _decisions(summary.get("decisions") or []),
        _settings(facts),
        f'<h2 id="recipe">Recipe</h2>\n<pre tabindex="0" aria-labelledby="recipe">{escape(recipe_toml.strip())}</pre>',
        f"<footer>Talweg {escape(str(summary.get('talweg') or ''))}</footer>",
    ]
    text = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{task} · Talweg</title>
<link rel="icon" href="data:,">
<style>{STYLE}</style>
</head>
<body>
<main>
{chr(10).join(section for section in sections if section)}
</main>
</body>
</html>
"""
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write the report {path}: {error.strerror or error}") from error


def _status(facts: Facts) -> str:
    status = str(facts.summary.get("status") or "")
    kind = facts.kind.replace("_", " ")
    shown = f"{status}: {kind}" if status and kind and kind != status else status or kind
    return f'<span class="status">{escape(shown)}</span>' if shown else ""


def _numbers(facts: Facts) -> str:
    """The figures that one looks for first, each with a line of context."""
    summary, best = facts.summary, facts.best
    where = f"epoch {epoch_text(best.get('epoch'))}, step {number(best.get('step'))}" if best else ""
    there, evaluated = facts.on_training_data()
    cards = []
    if facts.name != "loss" and finite(best.get(facts.name)) is not None:
        cards.append((f"best validation {facts.name}", metric(facts.name, best[facts.name]), where))
        if finite(there.get(facts.name)) is not None:
            cards.append((f"training {facts.name}", metric(facts.name, there[facts.name]), "with the kept weights"))
    if finite(best.get("loss")) is not None:
        cards.append(("validation loss", number(best["loss"]), where))
    if finite(there.get("loss")) is not None:
        cards.append(("training loss", number(there["loss"]), "with the kept weights" if evaluated else "epoch mean"))
    if finite(summary.get("seconds")) is not None:
        updates = counted(facts.done, "update") if facts.done else ""
        cards.append(("time", duration(summary["seconds"]), updates))
    if finite(summary.get("parameters")) is not None:
        cards.append(("parameters", number(summary["parameters"]), ""))
    items = "\n".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}<small>{escape(context)}</small></dd></div>"
        for name, value, context in cards
    )
    return f'<dl class="numbers">\n{items}\n</dl>' if cards else ""


def _curves(facts: Facts, rows: Sequence[Row], curves_png: str | PathLike[str] | None) -> str:
    """The panels as labelled SVG images, and the PNG to take away."""
    step, best = facts.best.get("step"), facts.best
    figures = []
    for name, svg in svg_panels(rows, best_step=step, monitor=facts.name):
        value = f"; best {metric(name, best[name])} at epoch {epoch_text(best.get('epoch'))}" if name in best else ""
        label = escape(f"Chart of the {name} against the epoch{value}. The evaluations table holds the numbers.")
        figures.append(svg.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1))
    take = ""
    if curves_png is not None and Path(curves_png).is_file():
        data = base64.b64encode(Path(curves_png).read_bytes()).decode()
        take = f'<p class="note"><a download="curves.png" href="data:image/png;base64,{data}">curves.png</a></p>'
    note = '<p class="note">Points are training losses as recorded, the line through them is their moving average.</p>'
    return f'<h2>Curves</h2>\n<div class="panels">\n{"".join(figures)}</div>\n{note}\n{take}'


def _evaluations(facts: Facts) -> str:
    """One row for each evaluation, the best marked by a star, a word and a colour."""
    if not facts.validation:
        return ""
    names = metric_names(facts.validation, facts.name)
    heads = ["epoch", *names, "validation loss", "train loss", "step", "time"]
    lines = []
    for row in facts.validation:
        is_best = row.get("step") is not None and row.get("step") == facts.best.get("step")
        cells = [metric(name, row.get(name)) for name in names]
        cells += [fixed(row.get("loss")), fixed(row.get("train_loss")), number(row.get("step"))]
        cells += [clock(row.get("seconds"))]
        star = '<span class="star">★ best</span> ' if is_best else ""
        lines.append(
            f'<tr{" class=best" if is_best else ""}><th scope="row">{star}{epoch_text(row.get("epoch"))}</th>'
            + "".join(f"<td>{escape(cell)}</td>" for cell in cells)
            + "</tr>"
        )
    return _table("Evaluations", heads, lines, kind="figures")


def _decisions(decisions: Sequence[Mapping[str, Any]]) -> str:
    """What was decided automatically, and why."""
    lines = []
    for decision in decisions:
        name, value, why = (_text(decision.get(key)) for key in ("name", "value", "why"))
        lines.append(f'<tr><th scope="row">{name}</th><td>{value}</td><td>{why}</td></tr>')
    return _table("Decisions", ["what", "value", "why"], lines, kind="about") if lines else ""


def _settings(facts: Facts) -> str:
    """The remaining facts of the summary."""
    summary = facts.summary
    samples = [f"{number(count)} {kind}" for kind, count in (summary.get("samples") or {}).items() if count is not None]
    layout = [f"{key} = {value}" for key, value in (summary.get("layout") or {}).items()]
    per_epoch = summary.get("steps_per_epoch")
    known = {
        "samples": ", ".join(samples),
        "batch": number(summary["batch"]) if summary.get("batch") else "",
        "epochs": number(summary["epochs"]) if summary.get("epochs") else "",
        "updates": f"{number(facts.done)} of {number(facts.planned)}" if facts.planned else number(facts.done),
        "updates in an epoch": number(per_epoch) if per_epoch else "",
        "seed": str(summary["seed"]) if summary.get("seed") is not None else "",
        "layout": ", ".join(layout),
        "stopped": str((summary.get("reason") or {}).get("text") or ""),
    }
    lines = [
        f'<tr><th scope="row">{name}</th><td>{escape(value)}</td></tr>'
        for name, value in known.items()
        if value and value != MISSING
    ]
    return _table("Run", ["what", "value"], lines, kind="about") if lines else ""


def _table(title: str, heads: Sequence[str], lines: Sequence[str], *, kind: str) -> str:
    """A table that scrolls by itself, reachable by keyboard and named for screen readers."""
    name = title.lower()
    columns = "".join(f'<th scope="col">{escape(head)}</th>' for head in heads)
    return (
        f'<h2 id="{name}">{title}</h2>\n<div class="scroll" tabindex="0" role="region" aria-labelledby="{name}">\n'
        f'<table class="{kind}">\n<thead><tr>{columns}</tr></thead>\n<tbody>\n{chr(10).join(lines)}\n</tbody>\n'
        "</table>\n</div>"
    )


def _text(value: object) -> str:
    return escape(str(value)) if value is not None else MISSING
