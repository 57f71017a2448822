"""What the loop around a small network costs: time per update of Talweg's `Training` beside four other loops.

    python benchmarks/step_overhead.py [--quick] [--json]

The work is the same everywhere: an MLP 64-128-128-10 on 1,437 digits, batch 64 (23 updates an epoch, the last one
short), shuffled anew each epoch, SGD with momentum, float32, one thread, no evaluation. Each peer is set up as lean as
its documentation allows, and gets torch's fused SGD, which is faster here than the default one. Talweg's loop
also looks at every loss (a non-finite one is stopped before its update) and records it; the others do not.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable

import torch
import torch.nn.functional as F
from side_by_side import Report, arguments, interleave, mend_torchvision
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from talweg import Layout, Recipe, Task, Training
from talweg.data import Standardize, load_digits
from talweg.nn.models import mlp
from talweg.optimizers import SGD
from talweg.schedules import Constant

BATCH, LR, MOMENTUM = 64, 0.01, 0.9
EPOCHS = 9  # in one repetition
TARGETS = {"lightning": 0.4, "accelerate": 0.55, "dataloader loop": 0.65, "bare loop": 0.95}


def network() -> nn.Module:
    """The network that every loop trains."""
    return mlp(features=64, classes=10, hidden=(128, 128))


def fused_sgd(model: nn.Module) -> torch.optim.Optimizer:
    """torch's fastest SGD for it."""
    return torch.optim.SGD(model.parameters(), lr=LR, momentum=MOMENTUM, fused=True)


def talweg() -> Callable[[], float]:
    """One `Training`, `EPOCHS` epochs further at each call."""
    sets = load_digits(flat=True)
    task = Task(name="digits", model=network, train=sets.train)
    recipe = Recipe(batch=BATCH, epochs=10_000, optimizer=SGD(lr=LR, momentum=MOMENTUM), schedule=Constant())
    training = Training(task, recipe, Layout(device="cpu", threads=1, compile="off"))
    steps = iter(training)
    updates = EPOCHS * training.steps_per_epoch

    def run() -> float:
        start = time.perf_counter()
        for _ in range(updates):
            next(steps)
        return (time.perf_counter() - start) / updates

    return run


def bare_loop(x: Tensor, y: Tensor) -> Callable[[], float]:
    """Tensors in memory, one index_select for x and one for y: what a person writes who wants it fast."""
    model = network()
    optimizer = fused_sgd(model)

    def run() -> float:
        updates = 0
        start = time.perf_counter()
        for _ in range(EPOCHS):
            for chosen in torch.randperm(len(x)).split(BATCH):
                optimizer.zero_grad()
                loss = F.cross_entropy(model(x.index_select(0, chosen)), y.index_select(0, chosen))
                loss.backward()
                optimizer.step()
                updates += 1
        return (time.perf_counter() - start) / updates

    return run


def loader_loop(x: Tensor, y: Tensor) -> Callable[[], float]:
    """The loop of torch's tutorials: a DataLoader over a TensorDataset."""
    model = network()
    optimizer = fused_sgd(model)
    loader = DataLoader(TensorDataset(x, y), batch_size=BATCH, shuffle=True)

    def run() -> float:
        start = time.perf_counter()
        for _ in range(EPOCHS):
            for xb, yb in loader:
                optimizer.zero_grad()
                loss = F.cross_entropy(model(xb), yb)
                loss.backward()
                optimizer.step()
        return (time.perf_counter() - start) / (EPOCHS * len(loader))

    return run


def accelerate_loop(x: Tensor, y: Tensor) -> Callable[[], float]:
    """The same with model, optimizer and loader prepared by Accelerate."""
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    plain = network()
    loader = DataLoader(TensorDataset(x, y), batch_size=BATCH, shuffle=True)
    model, optimizer, loader = accelerator.prepare(plain, fused_sgd(plain), loader)

    def run() -> float:
        start = time.perf_counter()
        for _ in range(EPOCHS):
            for xb, yb in loader:
                optimizer.zero_grad()
                loss = F.cross_entropy(model(xb), yb)
                accelerator.backward(loss)
                optimizer.step()
        return (time.perf_counter() - start) / (EPOCHS * len(loader))

    return run


def lightning_trainer(x: Tensor, y: Tensor) -> Callable[[], float]:
    """Lightning's Trainer in `barebones` mode, timed between its first and last hook of the training."""
    mend_torchvision()  # torchmetrics, which Lightning imports, imports it where it is installed
    from lightning.pytorch import LightningModule, Trainer

    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)

    class Digits(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = network()
            self.started = self.seconds = 0.0

        def training_step(self, batch: list[Tensor], index: int) -> Tensor:
            xb, yb = batch
            return F.cross_entropy(self.model(xb), yb)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return fused_sgd(self)

        def on_train_start(self) -> None:
            self.started = time.perf_counter()

        def on_train_end(self) -> None:
            self.seconds = time.perf_counter() - self.started

    loader = DataLoader(TensorDataset(x, y), batch_size=BATCH, shuffle=True, num_workers=0)
    module = Digits()

    def run() -> float:
        trainer = Trainer(accelerator="cpu", devices=1, max_epochs=EPOCHS, barebones=True)
        trainer.fit(module, loader)
        assert trainer.global_step == EPOCHS * len(loader)
        return module.seconds / trainer.global_step

    return run


PEERS = {
    "lightning": lightning_trainer,
    "accelerate": accelerate_loop,
    "dataloader loop": loader_loop,
    "bare loop": bare_loop,
}


def main() -> None:
    """Measures, prints, and says whether the targets are met."""
    options = arguments("time per update of a small network, beside other loops")
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")  # Lightning's about the number of workers
    train = load_digits(flat=True).train
    x, y = Standardize.fit(train)(train.x), train.y

    report = Report(
        "time per update: MLP 64-128-128-10, batch 64, SGD with momentum, float32", unit="µs", per_second=1e6
    )
    contestants: dict[str, Callable[[], float | None]] = {"talweg": talweg()}
    for name, make in PEERS.items():
        try:
            contestants[name] = make(x, y)
        except ImportError as error:
            report.skip(name, f"not installed ({error}); pip install 'talweg[peers]'")
    times = interleave(contestants, 15 if options.quick else 41)
    for name in contestants:
        if name != "talweg":
            report.compare(f"step vs {name}", times, "talweg", name, TARGETS[name])
    report.note(f"median of {len(times['talweg'])} interleaved repetitions of {EPOCHS} epochs of 23 updates")
    report.finish(options.json)


if __name__ == "__main__":
    main()
