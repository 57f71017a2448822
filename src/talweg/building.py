"""Builds what the loop works on from a task, a recipe and a layout, and decides what was left open."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from talweg.averaging import EMA
from talweg.data import (
    Arrays,
    Normalizer,
    Order,
    Scale,
    Source,
    as_source,
    augmentation,
    check_labels,
    parse_normalizer,
    parse_order,
    place,
)
from talweg.data.augment import Augmentation
from talweg.device import Decision, choose_device, choose_precision
from talweg.engine import OneDevice, Window, explained, loss_sums, told
from talweg.errors import UserError
from talweg.evaluating import metric_sums
from talweg.feed import Feed, identity, prepared_once
from talweg.initialize import initialize, zero_gamma
from talweg.layout import Layout
from talweg.measuring import OneWindow, choose_compile, choose_threads, untouched
from talweg.memory import keep_freed_memory
from talweg.nn import replace_noise, unkeyed_noise
from talweg.optimizers import Rule, Update
from talweg.randomness import key
from talweg.recipe import Recipe
from talweg.task import Metric, Task, class_dim
from talweg.theta import Theta

PREPARED_BYTES = 1 << 30  # arrays are normalised once, not batch by batch, up to this size


class Monitor(NamedTuple):
    """What chooses the best weights."""

    name: str
    higher_is_better: bool


@dataclass(kw_only=True)
class Built:
    """The parts of a training, ready to run."""

    module: nn.Module
    theta: Theta
    engine: OneDevice
    rule: Rule
    update: Update
    ema: EMA | None
    train: Feed
    validation: Feed | None
    normalizer: Normalizer
    monitor: Monitor
    total_steps: int
    decisions: list[Decision]


def build(task: Task, recipe: Recipe, layout: Layout, decided: Mapping[str, str]) -> Built:
    """Assembles a training.

    Args:
        task, recipe, layout: the three nouns.
        decided: automatic choices of an earlier part of the same run, by name: they are taken over.

    Raises:
        UserError: the three do not fit together.
    """
    device, device_choice = choose_device(layout.device)
    if layout.compile == "reduce-overhead" and device.type != "cuda":
        raise UserError(
            f"compile='reduce-overhead' needs CUDA graphs, which {device} does not have: use 'on' or 'auto'"
        )
    precision, precision_choice = choose_precision(decided.get("precision", recipe.precision), device)
    decisions = [device_choice, precision_choice]
    dtype = torch.float64 if precision == "float64" else torch.float32

    train = open_source(task.train, "train", layout)
    normalizer = fit_normalizer(task, train).to(device, dtype)
    x, _ = first_samples(train)
    module, how = make_model(task, recipe)
    decisions.append(how)
    noisy = replace_noise(module)
    images = x.dim() == 4 and any(isinstance(m, nn.Conv2d) for m in module.modules())
    module.to(device=device, dtype=dtype)
    if images:
        module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        decisions.append(Decision("memory", "channels_last", "convolutions on images run fastest with channels last"))
    theta = Theta(module)

    classes = probe(task, module, normalizer, train, device, "train")
    if recipe.samples.mixing() is not None and (not classes or normalizer(x.to(device)).dim() != 4):
        raise UserError("mixup, cutmix and label_smoothing are for images with loss='cross_entropy': set them to 0")
    refuse_split_statistics(module, recipe, layout)
    feed = make_feed(train, recipe, layout, normalizer, device, augment=True, noisy=bool(noisy), classes=classes)
    if len(train) < recipe.batch:
        decisions.append(Decision("batch", str(len(train)), f"there are only {len(train)} training samples"))
    validation = None
    if recipe.patience and task.validation is None:
        raise UserError(
            f"patience={recipe.patience:g} has no effect without validation data: give some, or leave it out"
        )
    if task.validation is not None:
        source = open_source(task.validation, "validation", layout)
        probe(task, module, normalizer, source, device, "validation")
        validation = make_feed(source, recipe, layout, normalizer, device, augment=False)
    total = max(1, round(recipe.epochs * feed.steps_per_epoch))

    engine = OneDevice(module, task.loss_function, theta, bf16=precision == "bf16")

    if len(train) % feed.order.batch == 1:  # the last batch of an epoch is a single sample: not every layer can take it
        with untouched(module):
            engine(*next(feed.windows(feed.steps_per_epoch - 1, feed.steps_per_epoch)))

    def one_window() -> tuple[Window, int]:
        return next(feed.windows(0, 1))

    decisions += choose_noise(engine, one_window, noisy)
    if device.type == "cpu":
        kept = keep_freed_memory()
        decisions += [kept] if kept else []
        decisions.append(choose_threads(layout.threads or int(decided.get("threads", 0)), engine, one_window))
    wanted = layout.compile if layout.compile != "auto" else decided.get("compile", "auto")
    decisions.append(choose_compile(wanted, engine, one_window, total))
    theta.grad.zero_()
    return Built(
        module=module,
        theta=theta,
        engine=engine,
        rule=recipe.optimizer,
        update=Update(theta, recipe.optimizer),
        ema=EMA(theta, module, decay=recipe.weights.ema) if recipe.weights.ema else None,
        train=feed,
        validation=validation,
        normalizer=normalizer,
        monitor=monitor(task),
        total_steps=total,
        decisions=decisions,
    )


def monitor(task: Task) -> Monitor:
    """The first metric of a task, or the loss: what chooses the best weights."""
    metrics: tuple[Metric, ...] = task.metric_functions
    return Monitor(metrics[0].name, metrics[0].higher_is_better) if metrics else Monitor("loss", False)


def make_model(task: Task, recipe: Recipe) -> tuple[nn.Module, Decision]:
    """A fresh model with the initial weights of the recipe, on the CPU, and how they were drawn."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key(recipe.seed, "model"))
        try:
            module = task.model()
        except UserError:
            raise
        except Exception as error:
            raise UserError(f"the model factory of task {task.name!r} failed{told(error)}") from error
    if not isinstance(module, nn.Module):
        raise UserError(
            f"the model factory of task {task.name!r} returned {type(module).__name__}: it must return an nn.Module"
        )
    scheme = recipe.weights.initialize
    drawn = initialize(module, scheme, recipe.seed)
    count = sum(d.scheme == scheme for d in drawn.values())
    why = f"{count} of {len(drawn)} parameters drawn by (seed, name), the others constant"
    if scheme == "model":
        why = "the model's own initial values, built under the recipe's seed"
    if recipe.weights.zero_gamma:
        why += f"; {len(zero_gamma(module))} residual blocks start as the identity"
    return module, Decision("weights", scheme, why)


def open_source(data: Any, name: str, layout: Layout) -> Source:
    """The source for a task's data, read by as many workers as the layout says."""
    in_memory = isinstance(data, Arrays | tuple | list | TensorDataset)
    return as_source(data, name, 0 if in_memory else layout.workers)


def first_samples(source: Source) -> tuple[Tensor, Tensor]:
    """The first sample or two, raw."""
    return next(iter(source.batches([range(min(2, len(source)))])))


def fit_normalizer(task: Task, train: Source) -> Normalizer:
    """The normaliser that the task asks for, fitted on its training data; token numbers are left as they are."""
    x, _ = first_samples(train)
    is_tokens = x.dtype in (torch.int64, torch.int32)
    return Scale() if is_tokens else parse_normalizer(task.normalize).fit(train)


def make_feed(
    source: Source,
    recipe: Recipe,
    layout: Layout,
    normalizer: Normalizer,
    device: torch.device,
    *,
    augment: bool,
    noisy: bool = False,
    classes: int = 0,
) -> Feed:
    """The batches of a source as the model sees them, on the device; prepared once where every batch would be the same."""
    name = recipe.samples.order if augment else "sequential"
    labels = class_numbers(source, name) if parse_order(name).ordering.needs else None
    order = Order(len(source), min(recipe.batch, len(source)), recipe.seed, name, labels=labels)
    change = augmentation(recipe.samples.augment) if augment else None
    if isinstance(change, Augmentation):
        change = change.fit(source)
    placed = place(source, device)
    mixing = recipe.samples.mixing() if augment else None
    once = prepared_once(placed, normalizer, PREPARED_BYTES) if change is None else None
    prepare = identity if once else normalizer
    return Feed(once or placed, order, prepare, change, layout.micro_batch, normalizer.dtype, noisy, mixing, classes)


def class_numbers(source: Source, order: str) -> Tensor:
    """The labels that an order by class needs: they must be at hand without reading every sample."""
    if not isinstance(source, Arrays) or source.y.dim() != 1 or source.y.is_floating_point():
        raise UserError(
            f"order {order!r} needs one class number for each sample, in memory: give arrays with integer labels"
        )
    return source.y.cpu()


def choose_noise(engine: OneDevice, one_window: OneWindow, noisy: tuple[str, ...]) -> list[Decision]:
    """Which layers' noise is a function of (seed, update, layer, sample), and which layer's is not."""
    found: list[Decision] = []
    if noisy:
        found.append(Decision("noise", "by sample", f"{len(noisy)} layers draw by seed, update, layer and sample"))
        with untouched(engine.module):
            engine(*one_window())
        for name, how in engine.misfits.items():
            found.append(Decision("noise", "by place", f"layer {name!r}: {how}"))
    x = next(iter(one_window()[0]))[0]
    with (
        untouched(engine.module),
        contextlib.suppress(ValueError, RuntimeError),
    ):  # a model that cannot take so few samples at once
        if culprit := unkeyed_noise(engine.module, x[:2]):
            why = f"layer {culprit} draws from torch's generator: its noise changes with micro_batch and layout"
            found.append(Decision("noise", "by update", why))
    return found


def probe(
    task: Task, module: nn.Module, normalizer: Normalizer, source: Source, device: torch.device, name: str
) -> int:
    """Passes the first samples through model, loss and metrics, so that a mistake shows before the training starts.

    Returns:
        The number of classes that the output tells apart; 0 where the task is no classification.
    """
    x, y = first_samples(source)
    try:
        x, y = normalizer(x.to(device)), y.to(device)
        with untouched(module), torch.no_grad():
            module.eval()
            output = module(x)
            classes = output.shape[class_dim(output, y)] if task.loss == "cross_entropy" else 0
            if classes and isinstance(source, Arrays):
                check_labels(source.y, classes, name)
            loss_sums(task.loss_function(output, y), x.shape[0])
            for metric in task.metric_functions:
                metric_sums(metric, output, y, x)
    except Exception as error:
        raise UserError(f"{name}: {str(explained(error, x)).removeprefix(f'{name}: ')}") from error
    return classes


def refuse_split_statistics(module: nn.Module, recipe: Recipe, layout: Layout) -> None:
    """Batch statistics over parts of a batch would change the result: that is refused, not done silently."""
    if not 0 < layout.micro_batch < recipe.batch:
        return
    for name, layer in module.named_modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            raise UserError(
                f"micro_batch={layout.micro_batch} would change the result: layer {name!r} ({type(layer).__name__}) takes "
                f"its statistics over the whole batch of {recipe.batch}; use micro_batch=0, or a GroupNorm"
            )
