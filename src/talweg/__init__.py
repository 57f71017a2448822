"""Talweg trains deep networks to the bottom of the valley: on one device, then on many, with the same result."""

from talweg.data import Arrays
from talweg.errors import UserError
from talweg.layout import Layout
from talweg.predictor import load_model
from talweg.recipe import Recipe, Samples, Weights
from talweg.run import Run
from talweg.task import Metric, Task
from talweg.tasks import load_task
from talweg.theta import Theta
from talweg.training import Step, Stop, StopKind, Training
from talweg.verbs import evaluate, resume, train
from talweg.version import VERSION as __version__

__all__ = [
    "Arrays",
    "Layout",
    "Metric",
    "Recipe",
    "Run",
    "Samples",
    "Step",
    "Stop",
    "StopKind",
    "Task",
    "Theta",
    "Training",
    "UserError",
    "Weights",
    "__version__",
    "evaluate",
    "load_model",
    "load_task",
    "resume",
    "train",
]
