"""The facts of a run, gathered from its summary and its history, with None for what is not known."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from talweg.report.formats import Row, finite, is_share, rows_of


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What sentences and pages about a run are made from; `Facts.read` builds it.

    Example:
        >>> rows = [{"kind": "validation", "step": s, "loss": loss} for s, loss in [(10, 0.9), (20, 0.4), (30, 0.5)]]
        >>> facts = Facts.read({"steps": 30}, rows)
        >>> facts.name, facts.best["step"], facts.last["step"], facts.done
        ('loss', 20, 30, 30)
    """

    summary: Mapping[str, Any]
    kind: str
    """The kind of the reason why it stopped, "running" while it runs, "" if unknown."""
    train: Sequence[Row]
    """Training rows with a finite loss."""
    validation: Sequence[Row]
    name: str
    """The figure by which evaluations are compared: the monitored metric, else the loss."""
    higher: bool
    """Whether a higher value of it is better."""
    best: Row
    last: Row
    done: int | None
    """Updates made."""
    planned: int | None
    """Updates that were to be made."""

    @classmethod
    def read(cls, summary: Mapping[str, Any], rows: Iterable[Row]) -> Facts:
        """Gathers the facts; `best`, `last` and the updates made come from the rows where the summary has none.

        `steps` may be the number of updates planned or, in a run that was cut short, of those made: it counts as the
        latter where it is less than `epochs` · `steps_per_epoch`.
        """
        rows = list(rows)
        validation = rows_of(rows, "validation")
        monitor = summary.get("monitor") or {}
        name, higher = str(monitor.get("name") or "loss"), bool(monitor.get("higher_is_better"))
        if all(finite(row.get(name)) is None for row in [summary.get("best") or {}, *validation]):
            name, higher = "loss", False
        scored = [row for row in validation if finite(row.get(name)) is not None]
        sign = -1.0 if higher else 1.0
        best = summary.get("best") or min(scored, key=lambda row: sign * row[name], default={})
        last = summary.get("last") or (validation[-1] if validation else {})

        kind = kind_of(summary)
        per_epoch, epochs = finite(summary.get("steps_per_epoch")), finite(summary.get("epochs"))
        steps = finite(summary.get("steps"))
        planned = per_epoch * epochs if per_epoch and epochs else steps
        done = max([finite(row.get("step")) or 0.0 for row in [*rows, last]])
        if steps is not None and (kind == "completed" or (planned and steps < planned)):
            done = max(done, steps)
        return cls(
            summary=summary,
            kind=kind,
            train=[row for row in rows_of(rows, "train") if finite(row.get("loss")) is not None],
            validation=validation,
            name=name,
            higher=higher,
            best=best,
            last=last,
            done=int(done) if done or steps is not None else None,
            planned=int(planned) if planned else None,
        )

    @property
    def cut_short(self) -> bool:
        """Whether fewer updates were made than planned."""
        return self.done is not None and self.planned is not None and self.done < self.planned

    def losses(self, kind: str) -> list[float]:
        """The finite losses of the "train" or "validation" rows, in order."""
        rows = self.train if kind == "train" else self.validation
        return [loss for row in rows if (loss := finite(row.get("loss"))) is not None]

    def on_training_data(self) -> tuple[Row, bool]:
        """Figures on the training samples, and whether the kept weights were evaluated there (else a running mean)."""
        if self.summary.get("train"):
            return self.summary["train"], True
        at_best = [row for row in self.validation if row.get("step") == self.best.get("step")]
        return {"loss": (at_best or [self.best])[0].get("train_loss")}, False

    def samples(self, kind: str) -> int | None:
        """Number of "train" or "validation" samples."""
        count = finite((self.summary.get("samples") or {}).get(kind))
        return int(count) if count else None

    def standard_error(self, name: str | None = None) -> float | None:
        """Of the best validation accuracy p on n samples: √(p(1−p)/n), at least 1/n; None where there is none.

        Example:
            >>> facts = Facts.read({"best": {"accuracy": 0.9917}, "samples": {"validation": 360}}, [])
            >>> round(facts.standard_error("accuracy"), 4)   # 357 of 360: half a per cent up or down means nothing
            0.0048
        """
        name = name or self.name
        share, count = finite(self.best.get(name)), self.samples("validation")
        if not is_share(name) or share is None or count is None or not 0 <= share <= 1:
            return None
        return max(math.sqrt(share * (1 - share) / count), 1 / count)


def kind_of(summary: Mapping[str, Any]) -> str:
    """Why the run stopped, as one word: the reason's kind, else what the status says."""
    status = str(summary.get("status") or "")
    if status == "running":
        return status
    return str((summary.get("reason") or {}).get("kind") or {"finished": "completed"}.get(status, status))
