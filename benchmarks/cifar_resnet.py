"""ResNet-20 on CIFAR-10, batch 128, random crop and flip: Talweg beside a default PyTorch loop.

    python benchmarks/cifar_resnet.py --data PATH [--quick] [--json]

PATH holds train/<class>/*.jpg and test/<class>/*.jpg. Both train the same network with the same loss, learning rates,
momentum and weight decay:

- ours: `Training` with precision bf16, on a CPU with bfloat16 instructions; arrays in memory, augmented batch by batch;
- the peer: float32, contiguous, a DataLoader with 2 persistent workers that crop, flip and normalise sample by sample as
  torchvision's RandomCrop(32, padding=4), RandomHorizontalFlip, ToTensor and Normalize do (written out here with Pillow,
  because torchvision's wheel does not import beside a CPU build of torch), torch's fused SGD. Its step alone is the time
  of the same update on one batch that lies ready.

Each runs in a process of its own, in turns. An epoch is timed over a part of the training set: 20 updates, or 3 with
--quick. Ours gathers, augments and normalises in every update, so its step alone is no shorter than its epoch's.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from side_by_side import Apart, Report, Times, arguments, cpu_multiplies_bf16
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from talweg import Layout, Recipe, Task, Training, UserError
from talweg.data import load_images
from talweg.nn.models import resnet20
from talweg.optimizers import SGD
from talweg.recipe import Samples
from talweg.schedules import Cosine

BATCH, LR, MOMENTUM, DECAY = 128, 0.1, 0.9, 5e-4
SCHEDULE = Cosine(warmup=0.1)
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
WORKERS = 2
SEEDS = (0, 1, 2)
NOISE = 2.13  # Student's t, 4 degrees of freedom, 95 % one-sided


class Plan(NamedTuple):
    """How much is measured."""

    updates: int  # of an epoch that is timed
    repetitions: int
    per_class: tuple[int, int]  # images of train/ and of test/
    epochs: int  # of the comparison of accuracies
    batch: int  # there


FULL = Plan(updates=20, repetitions=7, per_class=(640, 200), epochs=8, batch=BATCH)
# Few images, and yet so many updates for the accuracy that something is learnt.
QUICK = Plan(updates=3, repetitions=3, per_class=(64, 50), epochs=1, batch=16)

Arrays = dict[str, np.ndarray]  # x: uint8 [N, 32, 32, 3], y: int64 [N] of train and test


def ours(images: Arrays) -> Callable[..., float]:
    """Talweg; see `contestant`."""
    train = (torch.from_numpy(images["x"]).permute(0, 3, 1, 2), torch.from_numpy(images["y"]))
    test = (torch.from_numpy(images["x_test"]).permute(0, 3, 1, 2), torch.from_numpy(images["y_test"]))

    def training(seed: int, epochs: float, batch: int, part: int, validation: Any) -> Training:
        cut = (train[0][:part], train[1][:part])
        task = Task(name="cifar10", model=resnet20, train=cut, validation=validation, metrics=("accuracy",))
        recipe = Recipe(
            batch=batch,
            epochs=epochs,
            seed=seed,
            precision="bf16",
            optimizer=SGD(lr=LR, momentum=MOMENTUM, weight_decay=DECAY, nesterov=True),
            schedule=SCHEDULE,
            samples=Samples(augment=("crop", "flip")),
        )
        return Training(task, recipe, Layout(device="cpu", threads=torch.get_num_threads(), compile="off"))

    running: dict[int, Any] = {}

    def epoch(updates: int) -> float:
        """Seconds an update, over one epoch."""
        if updates not in running:
            running[updates] = iter(training(0, 10_000, BATCH, updates * BATCH, None))
        start = time.perf_counter()
        for _ in range(updates):
            next(running[updates])
        return (time.perf_counter() - start) / updates

    def accuracy(seed: int, epochs: int, batch: int) -> float:
        """On the test images after the last epoch."""
        whole = training(seed, epochs, batch, len(train[0]), test)
        for _ in whole:
            pass
        assert whole.last is not None
        return whole.last["accuracy"]

    return contestant(epoch=epoch, accuracy=accuracy)


class PerSample(Dataset[tuple[Tensor, int]]):
    """One image after the other, as torchvision's CIFAR10 with its transforms."""

    def __init__(self, x: np.ndarray, y: np.ndarray) -> None:
        self.x, self.y = x, y.tolist()
        self.mean, self.std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = ImageOps.expand(Image.fromarray(self.x[index]), border=4)
        top, left = (int(torch.randint(0, 9, ())) for _ in range(2))
        image = image.crop((left, top, left + 32, top + 32))
        if torch.rand(()) < 0.5:
            image = ImageOps.mirror(image)
        x = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().float().div_(255)
        return x.sub_(self.mean).div_(self.std), self.y[index]


def peer(images: Arrays) -> Callable[..., float]:
    """The default loop; see `contestant`."""

    def start(seed: int, batch: int, part: int) -> tuple[nn.Module, torch.optim.Optimizer, DataLoader[Any]]:
        torch.manual_seed(seed)
        model = resnet20()
        decayed = [p for p in model.parameters() if p.dim() > 1]
        others = [p for p in model.parameters() if p.dim() <= 1]
        groups = [{"params": decayed, "weight_decay": DECAY}, {"params": others}]
        optimizer = torch.optim.SGD(groups, lr=LR, momentum=MOMENTUM, nesterov=True, fused=True)
        data = PerSample(images["x"][:part], images["y"][:part])
        loader = DataLoader(data, batch_size=batch, shuffle=True, num_workers=WORKERS, persistent_workers=True)
        return model, optimizer, loader

    def update(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor) -> None:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()

    running: dict[int, Any] = {}

    def epoch(updates: int) -> float:
        """Seconds an update, over one epoch."""
        if updates not in running:
            running[updates] = start(0, BATCH, updates * BATCH)
        model, optimizer, loader = running[updates]
        began = time.perf_counter()
        for x, y in loader:
            update(model, optimizer, x, y)
        return (time.perf_counter() - began) / updates

    def step(updates: int) -> float:
        """Seconds an update of one batch that lies ready."""
        if 0 not in running:
            model, optimizer, loader = start(0, BATCH, BATCH)
            running[0] = (model, optimizer, *next(iter(loader)))
        began = time.perf_counter()
        for _ in range(updates):
            update(*running[0])
        return (time.perf_counter() - began) / updates

    def accuracy(seed: int, epochs: int, batch: int) -> float:
        """On the test images after the last epoch."""
        model, optimizer, loader = start(seed, batch, len(images["y"]))
        total = epochs * len(loader)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: SCHEDULE(t / total))
        for _ in range(epochs):
            for x, y in loader:
                update(model, optimizer, x, y)
                schedule.step()
        model.eval()
        x = torch.from_numpy(images["x_test"]).permute(0, 3, 1, 2).contiguous().float().div_(255)
        x = (x - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
        with torch.no_grad():
            right = [
                (model(part).argmax(1) == y).sum() for part, y in zip(x.split(500), labels.split(500), strict=True)
            ]
        return float(sum(right)) / len(x)

    labels = torch.from_numpy(images["y_test"])
    return contestant(epoch=epoch, step=step, accuracy=accuracy)


def contestant(**functions: Callable[..., float]) -> Callable[..., float]:
    """One function that is told what to do: "epoch", "step" (the peer's) or "accuracy", on how many threads, with what."""

    def run(name: str, threads: int, *what: int) -> float:
        torch.set_num_threads(threads)
        return functions[name](*what)

    return run


def some_images(root: Path, per_class: tuple[int, int]) -> Arrays:
    """The first images of each class of train/ and test/, shuffled."""
    with tempfile.TemporaryDirectory() as folder:
        for part, most in zip(("train", "test"), per_class, strict=True):
            for source in sorted(path for path in (root / part).iterdir() if path.is_dir()):
                target = Path(folder, part, source.name)
                target.mkdir(parents=True)
                for file in sorted(source.iterdir())[:most]:
                    (target / file.name).symlink_to(file.resolve())
        sets = load_images(folder)
    found: Arrays = {}
    for end, source in (("", sets.train), ("_test", sets.validation)):
        order = np.random.default_rng(0).permutation(len(source))
        found["x" + end] = source.x.permute(0, 2, 3, 1).numpy()[order]
        found["y" + end] = source.y.numpy()[order]
    return found


def measure(report: Report, mine: Apart, theirs: Apart, threads: list[int], plan: Plan) -> None:
    """Epoch and step of both with each number of threads, in turns."""
    times: dict[tuple[str, int], Times] = {
        (what, n): {"ours": [], "peer": []} for what in ("epoch", "step") for n in threads
    }
    for repetition in range(plan.repetitions + 1):
        for n in threads:
            own = mine("epoch", n, plan.updates)
            whole, alone = theirs("epoch", n, plan.updates), theirs("step", n, plan.updates - 1)
            if repetition:  # the first round warms up
                for what, peers in (("epoch", whole), ("step", alone)):
                    times[what, n]["ours"].append(own)
                    times[what, n]["peer"].append(peers)
    for n in threads:
        report.compare(f"epoch, {n} threads", times["epoch", n], "ours", "peer", 0.5)
        report.compare(f"step, {n} threads", times["step", n], "ours", "peer", 0.62)


def compare_accuracy(report: Report, mine: Apart, theirs: Apart, threads: int, plan: Plan) -> None:
    """Validation accuracy after equal epochs; the figure is the loss against the peer in standard errors."""
    found: dict[str, list[float]] = {"ours": [], "peer": []}
    for seed in SEEDS:
        found["ours"].append(mine("accuracy", threads, seed, plan.epochs, plan.batch))
        found["peer"].append(theirs("accuracy", threads, seed, plan.epochs, plan.batch))
    means = {name: statistics.fmean(values) for name, values in found.items()}
    pooled = (sum(statistics.variance(values) for values in found.values()) / 2) ** 0.5
    error = pooled * (2 / len(SEEDS)) ** 0.5
    report.figure("accuracy lost, standard errors", (means["peer"] - means["ours"]) / max(error, 1e-9), NOISE)
    for name, values in found.items():
        report.note(f"accuracy, {name}: {means[name]:.2%} ({', '.join(f'{v:.2%}' for v in values)})")
    train, test = (10 * count for count in plan.per_class)
    report.note(
        f"after {plan.epochs} epochs of {train:,} images, batch {plan.batch}; {test:,} test images; seeds {SEEDS}"
    )


def main() -> None:
    """Measures, prints, and says whether the targets are met."""
    options = arguments("ResNet-20 on CIFAR-10 beside a default PyTorch loop", data="train/<class>/*, test/<class>/*")
    report = Report("ResNet-20, batch 128, crop + flip: seconds an update")
    if not cpu_multiplies_bf16():
        report.skip("ours in bf16", "this CPU has no bfloat16 instructions; the bounds are for one that has")
    plan = QUICK if options.quick else FULL
    try:
        images = some_images(Path(options.data), plan.per_class)
    except (OSError, UserError) as error:
        sys.exit(f"--data must hold train/<class>/* and test/<class>/* of CIFAR-10 ({error})")
    mine, theirs = Apart(ours, images), Apart(peer, images)
    cores = torch.get_num_threads()
    measure(report, mine, theirs, sorted({1, cores}), plan)
    compare_accuracy(report, mine, theirs, cores, plan)
    mine.close()
    theirs.close()
    report.finish(options.json)


if __name__ == "__main__":
    main()
