"""The training loop: an iterator that yields one `Step` per update.

    for step in Training(task, recipe):        one pass of the loop is one update of θ
        ...                                    look, stop, or change course

In pseudo-code, the whole of it:

    θ ← initial weights (seed, names)
    for each update t = 0 … N−1:
        batch ← the samples of update t (seed, t), augmented (seed, epoch, sample), normalised
        loss, g ← engine(θ, batch)             ∇J of the whole batch, accumulated if need be
        stop here if the loss is not finite    θ is still good; the first bad layer is named
        g ← clip(g)
        θ ← update rule(θ, g, lr · schedule(t / N))
        average θ                              if the recipe says so
        at the end of an epoch: evaluate, keep the best θ, stop early?
        yield Step
    θ ← the best θ
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from talweg.buffers import Kept
from talweg.building import Built, build
from talweg.diagnose.nonfinite import first_bad_gradient, first_bad_layer
from talweg.engine import Window
from talweg.errors import UserError
from talweg.evaluating import evaluate_module
from talweg.feed import Feed
from talweg.history import History
from talweg.layout import Layout
from talweg.measuring import untouched
from talweg.optimizers.segments import norm
from talweg.randomness import key
from talweg.recipe import Recipe
from talweg.task import Task


class StopKind(StrEnum):
    """Why a training ended."""

    COMPLETED = "completed"
    EARLY = "early_stop"
    NON_FINITE = "non_finite"
    INTERRUPTED = "interrupted"


class Stop(NamedTuple):
    """Why a training ended, for programs (`kind`) and for people (`text`)."""

    kind: StopKind
    text: str


@dataclass(slots=True)
class Step:
    """One update: its number (from 1), epochs done after it, learning rate and loss; at an epoch's end, the evaluation.

    `loss` is the mean over the global batch before the update, a float on the CPU and a 0-d tensor on an accelerator:
    looking at it there waits for the device.
    """

    index: int
    epoch: float
    lr: float
    loss: float | Tensor
    validation: dict[str, float] | None = None
    is_best: bool = False


class Training:
    """Trains a task by a recipe on a layout; iterate it.

    Args:
        task: what to learn.
        recipe: how.
        layout: where.
        decisions: automatic choices of an earlier part of the same run (`resume`), taken over instead of made anew.

    Attributes:
        step, total_steps: updates done, and in all.
        theta, module: the weights as one vector, and the model that views them.
        history: losses and evaluations as rows, see `History`.
        decisions: every automatic choice, with its reason.
        best, last: the best and the newest evaluation, with their step and epoch; None before the first one.
        stop: why the training ended; None while it runs.
        schedule: progress in [0, 1] → factor on the learning rate; whoever iterates may put another function in its place.

    Raises:
        UserError: the task, recipe and layout do not fit together; the text says which setting to change.

    Example:
        >>> x = torch.randn(256, 4, generator=torch.Generator().manual_seed(0))
        >>> task = Task(name="sum", model=lambda: torch.nn.Linear(4, 1), train=(x, x.sum(1, keepdim=True)), loss="mse")
        >>> losses = [float(step.loss) for step in Training(task, Recipe(epochs=30, batch=32), Layout(device="cpu"))]
        >>> len(losses), losses[-1] < losses[0]
        (240, True)
    """

    def __init__(
        self,
        task: Task,
        recipe: Recipe | None = None,
        layout: Layout | None = None,
        *,
        decisions: Mapping[str, str] | None = None,
    ) -> None:
        if not isinstance(task, Task):
            raise UserError(
                f"task must be a talweg.Task, received {task!r}; talweg.load_task('digits') gives a built-in one"
            )
        self.task, self.recipe, self.layout = task, recipe or Recipe(), layout or Layout()
        self.built: Built = build(task, self.recipe, self.layout, decisions or {})
        self.theta, self.module, self.decisions = self.built.theta, self.built.module, self.built.decisions
        self.steps_per_epoch = self.built.train.steps_per_epoch
        self.total_steps = self.built.total_steps
        self.step = 0
        self.seconds = 0.0
        self.history = History(self.total_steps, self.steps_per_epoch)
        self.best: dict[str, float] | None = None
        self.last: dict[str, float] | None = None
        self.stop: Stop | None = None
        self.schedule = self.recipe.schedule
        self._best_weights: dict[str, Tensor] = {}
        self._has_best = False  # whether the model holds them
        self._interrupted: str | None = None
        self._noise = key(self.recipe.seed, "noise") >> 1
        device = self.theta.value.device
        # On an accelerator the host does not wait for the loss: this flag turns 1 with the first bad one and stays 1,
        # and every update from then on leaves θ as it is.
        self._halt = None if device.type == "cpu" else torch.zeros((), device=device)
        # Running statistics change in the pass before its loss is known. On the CPU they are kept before every update;
        # on an accelerator with every look at the losses, and the average with them, for both go on until then.
        ema = self.built.ema
        self._kept = Kept(self.module, ema.vectors().values() if ema is not None and self._halt is not None else ())

    @property
    def epoch(self) -> float:
        """Epochs done."""
        return self.step / self.steps_per_epoch

    def request_stop(self, why: str) -> None:
        """Asks the loop to end after the update in progress (a signal handler may call it)."""
        self._interrupted = why

    def __iter__(self) -> Iterator[Step]:
        """Goes on from `step` to the end; a second iteration continues where the first was left."""
        started = time.perf_counter() - self.seconds
        self.module.train()
        while self.stop is None and self.step < self.total_steps:
            last = min((self.step // self.steps_per_epoch + 1) * self.steps_per_epoch, self.total_steps)
            for window, samples in self.built.train.windows(self.step, last):
                step = self._update(window, samples)
                if self.stop is None and self.step == last:
                    self._end_epoch(step, started)
                if self._interrupted and self.stop is None and self.step < self.total_steps:
                    self.stop = Stop(StopKind.INTERRUPTED, self._interrupted)
                if self.stop is None or self.stop.kind is not StopKind.NON_FINITE:
                    yield step
                if self.stop is not None:
                    break
        self.seconds = time.perf_counter() - started
        if self.stop is None:
            epochs = self.recipe.epochs
            self.stop = Stop(
                StopKind.COMPLETED,
                f"all {epochs:g} epochs are done" if epochs > 1 else f"its length, {epochs:g} epoch, is done",
            )
        if self.stop.kind in (StopKind.COMPLETED, StopKind.EARLY):
            self.keep_best()

    def _update(self, window: Window, samples: int) -> Step:
        """One update of θ; the hot path."""
        built, clip, t = self.built, self.recipe.clip, self.step
        if self._halt is None:
            self._kept.keep()
        seed_noise(self._noise + t, self._halt is None)  # dropout of update t is a function of (seed, t)
        loss, _ = built.engine(window, samples)
        self.theta.check()
        factor = self.schedule(t / self.total_steps)
        lr = built.rule.lr * factor
        # One number that is not finite when an element of g is not; the norm is needed anyway where g is clipped.
        size = grad_norm(self.theta.grad) if clip else self.theta.grad.sum()
        value: float | Tensor = loss
        if self._halt is None:
            value = loss.item()
            if not (math.isfinite(value) and math.isfinite(size)):
                self._stop_non_finite(t, "gradient" if math.isfinite(value) else "loss")
                return Step(t, t / self.steps_per_epoch, lr, value)
        else:
            bad = ~(loss.isfinite() & size.isfinite())
            torch.maximum(self._halt, bad.to(self._halt.dtype), out=self._halt)
            value = torch.where(bad, torch.nan, loss)
        if clip:
            self.theta.grad.mul_((clip / (size + 1e-12)).clamp_(max=1.0))
        built.update(t + 1, factor, self._halt)
        self.step = t = t + 1
        if built.ema is not None:
            built.ema.update(t - 1)
        if self.history.add(t, value, lr, samples):
            self._fetch()
        return Step(t, t / self.steps_per_epoch, lr, value)

    def _fetch(self) -> None:
        """Reads the losses that wait on the device; a non-finite one takes the loop back to before its update."""
        bad = self.history.fetch()
        if bad is not None:
            self.step = bad - 1
            self._stop_non_finite(bad - 1, "loss or gradient")
        elif self._halt is not None:
            self._kept.keep()

    def _stop_non_finite(self, t: int, what: str) -> None:
        """Ends the training before update t + 1, and says where the first non-finite number arose."""
        windows, engine = self.built.train.windows, self.built.engine
        self._kept.restore()
        seed_noise(self._noise + t, self._halt is None)
        with untouched(self.module):
            engine(*next(windows(t, t + 1)))
            place = first_bad_gradient(self.module) if what == "gradient" else None
            with engine.autocast():
                place = place or first_bad_layer(self.module, next(windows(t, t + 1))[0])
        lr = self.built.rule.lr * self.schedule(t / self.total_steps)
        self.stop = Stop(
            StopKind.NON_FINITE,
            f"the {what} of update {t + 1} is not finite ({place}; learning rate {lr:.3g}); that update was not done",
        )

    def _end_epoch(self, step: Step, started: float) -> None:
        """Evaluates, keeps the best weights, decides whether to stop early, and notes it all in the epoch's last step."""
        self._fetch()
        if self.stop is not None:
            return
        train_loss = self.history.end_epoch()
        if self.built.validation is None:
            self.seconds = time.perf_counter() - started
            place = {"step": self.step, "epoch": self.epoch, "seconds": round(self.seconds, 3)}
            self.history.rows.append({"kind": "epoch", **place, "train_loss": train_loss})
            return
        step.validation = values = self.evaluate(self.built.validation)
        place = {"step": self.step, "epoch": self.epoch}
        self.last = {**place, **values}
        if self.best is None or self._rank(self.last) > self._rank(self.best):
            step.is_best = True
            self.best = self.last
            with self._averaged():
                self._best_weights = {name: t.detach().clone() for name, t in self._weights().items()}
        self.seconds = time.perf_counter() - started
        row = {"kind": "validation", **place, **values, "train_loss": train_loss, "seconds": round(self.seconds, 3)}
        self.history.rows.append(row)
        assert self.best is not None
        waited = self.epoch - self.best["epoch"]
        if 0 < self.recipe.patience <= waited and self.step < self.total_steps:
            self.stop = Stop(
                StopKind.EARLY,
                f"{self.built.monitor.name} did not get better for {waited:g} epochs (patience {self.recipe.patience:g})",
            )

    def evaluate(self, feed: Feed) -> dict[str, float]:
        """Loss and metrics on the samples of a feed, with the averaged weights where the recipe averages."""
        with self._averaged():
            return evaluate_module(self.module, feed.batches(), self.built.engine, self.task.metric_functions)

    def keep_best(self) -> None:
        """Puts the best weights (without validation data: the averaged or last ones) into the model."""
        weights = self._best_weights
        if not weights:
            with self._averaged():
                weights = {name: t.detach().clone() for name, t in self._weights().items()}
        for name, tensor in self._weights().items():
            tensor.copy_(weights[name])
        self._has_best = True

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Everything that going on needs: tensors named `kind/name` (views, not copies) and plain facts."""
        self._fetch()
        tensors = {f"buffer/{name}": t for name, t in extras(self.module).items()}
        for kind, vector in self._vectors().items():
            tensors |= {f"{kind}/{name}": t for name, t in self.theta.split(vector).items()}
        tensors |= {f"ema_buffer/{name}": t for name, t in self._averaged_buffers().items()}
        tensors |= {f"best/{name}": t for name, t in self._best_weights.items()}
        facts = {
            "step": self.step,
            "seconds": self.seconds,
            "best": self.best,
            "last": self.last,
            "stop": list(self.stop) if self.stop and self.stop.kind is StopKind.EARLY else None,
            "history": self.history.state(),
            "decisions": {d.name: d.value for d in self.decisions},
        }
        return tensors, facts

    def load(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any], rows: list[dict[str, Any]]) -> None:
        """Goes back to a saved `state`; `rows` are the history written so far, those after the state are dropped.

        Raises:
            UserError: the state belongs to another model, optimizer or averaging.
        """
        kinds: dict[str, dict[str, Tensor]] = {}
        for path, tensor in tensors.items():
            kind, name = path.split("/", 1)
            kinds.setdefault(kind, {})[name] = tensor
        for kind, vector in self._vectors().items():
            if kind not in kinds:
                raise UserError(f"the checkpoint has no {kind!r}: it was made with another optimizer or averaging")
            self.theta.join(kinds[kind], vector)
        for kind, own in (("buffer", extras(self.module)), ("ema_buffer", self._averaged_buffers())):
            for name, tensor in own.items():
                if name not in kinds.get(kind, {}):
                    raise UserError(f"the checkpoint has no {kind} {name!r}: it belongs to another model")
                tensor.copy_(kinds[kind][name])
        self._best_weights = {name: t.to(self.theta.value.device) for name, t in kinds.get("best", {}).items()}
        self.step, self.seconds = facts["step"], facts["seconds"]
        self.best, self.last = facts["best"], facts["last"]
        self.stop = Stop(StopKind(facts["stop"][0]), facts["stop"][1]) if facts["stop"] else None
        self.history.load(facts["history"], rows)
        self._kept.keep()

    def _vectors(self) -> dict[str, Tensor]:
        """Every vector laid out like θ that a checkpoint needs, by kind."""
        vectors = {"theta": self.theta.value}
        vectors |= {f"optimizer.{name}": v for name, v in self.built.update.vectors.items()}
        if self.built.ema is not None:
            vectors["ema"] = self.built.ema.vectors()["value"]
        return vectors

    def _averaged_buffers(self) -> dict[str, Tensor]:
        vectors = self.built.ema.vectors() if self.built.ema is not None else {}
        return {name.removeprefix("buffer."): v for name, v in vectors.items() if name.startswith("buffer.")}

    def _weights(self) -> dict[str, Tensor]:
        """What makes up the model now: the parameters in θ, and what else it holds."""
        return {**self.theta.split(self.theta.value), **extras(self.module)}

    def _averaged(self) -> contextlib.AbstractContextManager[None]:
        """Inside, the model has its averaged weights, where the recipe averages and until the best are put into it."""
        average = self.built.ema if not self._has_best else None
        return average.swapped() if average is not None else contextlib.nullcontext()

    def _rank(self, values: Mapping[str, float]) -> tuple[float, float]:
        """Higher is better; equal metrics are told apart by the loss, and NaN comes last."""
        name, higher = self.built.monitor
        pair = (values[name] if higher else -values[name], -values["loss"])
        return (-math.inf if math.isnan(pair[0]) else pair[0], -math.inf if math.isnan(pair[1]) else pair[1])


def grad_norm(g: Tensor) -> Tensor:
    """‖g‖ as a 0-d tensor; on the CPU from dot products of blocks, for torch's float32 norm of 25 million is 0.1 % off."""
    return g.new_tensor(norm(g)) if g.device.type == "cpu" else torch.linalg.vector_norm(g)


def extras(module: nn.Module) -> dict[str, Tensor]:
    """What a module holds beside θ: its buffers and its frozen parameters, by name."""
    frozen = {name: p.data for name, p in module.named_parameters() if not p.requires_grad}
    return {**dict(module.named_buffers()), **frozen}


def seed_noise(seed: int, host: bool) -> None:
    """Makes the noise of an update (dropout) a function of `seed`; the CPU's generator is 10 times cheaper to seed alone."""
    if host:
        torch.default_generator.manual_seed(seed)
    else:
        torch.manual_seed(seed)
