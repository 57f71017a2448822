"""A trained model ready for use: raw data in, the model's output out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from talweg.checkpoint import load_weights
from talweg.data import NORMALIZERS
from talweg.errors import UserError
from talweg.run import NORMALIZER, WEIGHTS, Run
from talweg.task import Task
from talweg.tasks import TaskSource, load_task


class Predictor(nn.Module):
    """The model of a run behind the normalisation of its training data, in evaluation mode.

    Args:
        module: the model with its best weights.
        prepare: raw features → normalised features, as fitted on the training data.
    """

    def __init__(self, module: nn.Module, prepare: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.module, self.prepare = module.eval(), prepare

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, ...] as the task's data hold it (uint8 images, raw features) → the model's output."""
        return self.module(self.prepare(x))


def load_model(folder: str | Path, task: Task | None = None) -> Predictor:
    """The best weights of a run in a model that takes raw data, on the CPU.

    Args:
        folder: the run folder.
        task: what was learnt; needed for a task that was made in Python, found by name for others.

    Raises:
        UserError: no run there, or it has no weights yet, or they are not the model's.

    Example:
        >>> import tempfile, talweg
        >>> recipe = talweg.Recipe(epochs=1, batch=256)
        >>> run = talweg.train("digits", recipe, talweg.Layout(device="cpu"), out=tempfile.mkdtemp(), quiet=True)
        >>> images = talweg.load_task("digits").task.validation.x[:5]      # raw: uint8 [5, 1, 8, 8]
        >>> load_model(run.folder)(images).shape
        torch.Size([5, 10])
    """
    run = Run.open(folder)
    weights = run_weights(run)
    module = (task or task_of(run)).model()
    fit_weights(module, weights, run)
    dtype = next((t.dtype for t in weights.values() if t.is_floating_point()), torch.float32)
    name = run.summary["normalize"]
    normalizer = NORMALIZERS[name].from_state(load_weights(run.path(NORMALIZER)))
    return Predictor(module.to(dtype), normalizer.to("cpu", dtype))


def task_of(run: Run) -> Task:
    """The task of a run, found by its name.

    Raises:
        UserError: it was made in Python and has no name to be found by.
    """
    source = run.summary["source"]
    if not source:
        raise UserError(f"the task of {run.folder} was made in Python, so it cannot be found by name: give it as task=")
    return load_task(TaskSource(**source)).task


def run_weights(run: Run) -> dict[str, Tensor]:
    """The tensors of a run's `model.safetensors`.

    Raises:
        UserError: the run was stopped before there were any, or the file is damaged.
    """
    if not run.path(WEIGHTS).exists():
        status = run.summary["status"]
        raise UserError(f"{run.folder} has no {WEIGHTS} yet: the run is {status}; talweg resume {run.folder} ends it")
    return load_weights(run.path(WEIGHTS))


def fit_weights(module: nn.Module, weights: dict[str, Tensor], run: Run) -> None:
    """Puts weights into a model.

    Raises:
        UserError: names or shapes differ: they are another model's.
    """
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        said = " ".join(str(error).split())
        raise UserError(f"{run.path(WEIGHTS)} does not fit the task's model: {said}") from error
