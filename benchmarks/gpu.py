"""Talweg on a CUDA device: the loop, the update, whole networks, and CIFAR-10 to 94 %.

    python benchmarks/gpu.py [--data PATH] [--quick] [--json]

Without a CUDA device it says so and measures nothing. This script and cifar10_94.toml have not been run on one yet: their
logic was tried on a CPU, no figure of theirs is known, and the recipe's settings are an estimate.

1. step: an MLP 64-128-128-10, batch 64, beside a bare loop (tensors on the device, index_select, torch's fused SGD);
   also with `compile="reduce-overhead"`, which replays a CUDA graph.
2. update: SGD and AdamW on the parameters of ResNet-50 beside torch's fused optimizers.
3. networks: ResNet-18 and ResNet-50, 224 × 224, beside a tuned plain loop: channels_last, bf16 autocast, fused SGD, data
   on the device, cuDNN's benchmark mode.
4. CIFAR-10 (--data: as for `talweg train cifar10`): seconds of training, evaluations included, until 94 % of the test
   images are right, by the recipe in cifar10_94.toml. Reference: airbench, 2.6 s on an A100 (K. Jordan, 2024).

Contestants of 1 and 3 run in processes of their own, in turns. Times are taken from an idle device to an idle device.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from side_by_side import Apart, Report, Times, arguments, interleave
from torch import Tensor, nn

from talweg import Layout, Recipe, Task, Training
from talweg.nn.models import MODELS, mlp, resnet18, resnet50
from talweg.optimizers import SGD, AdamW, Rule, Update
from talweg.schedules import Constant
from talweg.tasks import TaskSource, load_task
from talweg.theta import Theta

LR, MOMENTUM = 0.01, 0.9
RECIPE = Path(__file__).parent / "cifar10_94.toml"


def seconds(device: str, updates: int, run: Callable[[], object]) -> float:
    """Seconds an update of `run`, which makes `updates` of them, from an idle device to an idle device."""
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    if device == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / updates


def network(name: str) -> nn.Module:
    """The MLP, or a ResNet by name."""
    return mlp(features=64, classes=10, hidden=(128, 128)) if name == "mlp" else MODELS[name](classes=1000)


def samples(name: str, count: int, side: int) -> tuple[Tensor, Tensor]:
    """Random features [count, 64] for the MLP, or images [count, 3, side, side], with labels."""
    draw = torch.Generator().manual_seed(0)
    if name == "mlp":
        return torch.randn(count, 64, generator=draw), torch.randint(0, 10, (count,), generator=draw)
    x = torch.randint(0, 256, (count, 3, side, side), generator=draw, dtype=torch.uint8)
    return x, torch.randint(0, 1000, (count,), generator=draw)


def ours(
    device: str, name: str, batch: int, count: int = 1024, side: int = 224, compiled: str = "off"
) -> Callable[[int], float]:
    """Talweg: seconds an update, over a number of them."""
    task = Task(name=name, model=partial(network, name), train=samples(name, count, side))
    recipe = Recipe(
        batch=batch,
        epochs=1_000_000,
        precision="float32" if name == "mlp" else "bf16",
        optimizer=SGD(lr=LR, momentum=MOMENTUM),
        schedule=Constant(),
    )
    steps = iter(Training(task, recipe, Layout(device=device, compile=compiled)))  # type: ignore[arg-type]

    def advance(updates: int) -> None:
        for _ in range(updates):
            next(steps)

    return lambda updates: seconds(device, updates, lambda: advance(updates))


def plain(device: str, name: str, batch: int, count: int = 1024, side: int = 224) -> Callable[[int], float]:
    """The loop that a person writes who wants it fast: seconds an update, over a number of them."""
    images = name != "mlp"
    torch.backends.cudnn.benchmark = True
    x, y = (t.to(device) for t in samples(name, count, side))
    model = network(name).to(device)
    if images:
        x = x.float().sub_(127.5).div_(73.9).contiguous(memory_format=torch.channels_last)
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(model.parameters(), lr=LR, momentum=MOMENTUM, fused=True)

    def batches() -> Iterator[Tensor]:
        while True:
            yield from torch.randperm(count, device=device).split(batch)

    chosen = batches()

    def advance(updates: int) -> None:
        for _ in range(updates):
            rows = next(chosen)
            optimizer.zero_grad()
            with torch.autocast(device, torch.bfloat16, enabled=images):
                loss = F.cross_entropy(model(x.index_select(0, rows)), y.index_select(0, rows))
            loss.backward()
            optimizer.step()

    return lambda updates: seconds(device, updates, lambda: advance(updates))


def turns(contestants: dict[str, Apart], updates: int, repetitions: int) -> Times:
    """Seconds an update of each, in turns, after 3 rounds that warm up."""
    run: dict[str, Callable[[], float | None]] = {name: partial(who, updates) for name, who in contestants.items()}
    times = interleave(run, repetitions, warmup=3)
    for who in contestants.values():
        who.close()
    return times


def step_overhead(report: Report, device: str, repetitions: int, updates: int = 500) -> None:
    """1: the loop around a small network."""
    contestants = {
        "ours": Apart(ours, device, "mlp", 64),
        "ours, CUDA graph": Apart(ours, device, "mlp", 64, 1024, 0, "reduce-overhead"),
        "bare loop": Apart(plain, device, "mlp", 64),
    }
    times = turns(contestants, updates, repetitions)
    report.compare("step vs bare loop", times, "ours", "bare loop", 0.95)
    report.compare("step vs bare loop, CUDA graph", times, "ours, CUDA graph", "bare loop")


def optimizer_step(report: Report, device: str, repetitions: int, calls: int = 50) -> None:
    """2: the update of all parameters of ResNet-50."""
    rules: dict[str, tuple[Rule, Callable[..., torch.optim.Optimizer]]] = {
        "sgd": (SGD(lr=1e-6, momentum=MOMENTUM), partial(torch.optim.SGD, lr=1e-6, momentum=MOMENTUM, fused=True)),
        "adamw": (AdamW(lr=1e-6), partial(torch.optim.AdamW, lr=1e-6, fused=True)),
    }
    for name, (rule, make) in rules.items():
        theta, model = Theta(resnet50().to(device)), resnet50().to(device)
        theta.grad.normal_(std=1e-3)
        for p in model.parameters():
            p.grad = torch.randn_like(p) * 1e-3
        update, peer = Update(theta, rule), make(model.parameters())
        count = iter(range(1, 1 << 40))

        def mine(update: Update = update, count: Iterator[int] = count) -> float:
            return seconds(device, calls, lambda: [update(next(count)) for _ in range(calls)])

        def theirs(peer: torch.optim.Optimizer = peer) -> float:
            return seconds(device, calls, lambda: [peer.step() for _ in range(calls)])

        times = interleave({"ours": mine, "torch fused": theirs}, repetitions, warmup=2)
        report.compare(f"{name} update vs torch fused", times, "ours", "torch fused", 1.05)


def networks(report: Report, device: str, repetitions: int, batch: int = 128, updates: int = 32) -> None:
    """3: whole networks on images."""
    for name in ("resnet18", "resnet50"):
        contestants = {"ours": Apart(ours, device, name, batch), "plain loop": Apart(plain, device, name, batch)}
        times = turns(contestants, updates, repetitions)
        report.compare(f"{name} vs plain loop", times, "ours", "plain loop", 1.02)
        fastest = {who: batch / sorted(found)[len(found) // 2] for who, found in times.items()}
        report.note(f"{name}, images/s: " + ", ".join(f"{who} {rate:,.0f}" for who, rate in fastest.items()))


def smooth_cross_entropy(output: Tensor, target: Tensor) -> Tensor:
    """Cross entropy with a tenth of the target spread over all classes (Szegedy et al., 2016)."""
    return F.cross_entropy(output, target, label_smoothing=0.1)


def cifar10_to_94(report: Report, device: str, data: str, recipe: Recipe, model: Callable[[], nn.Module]) -> None:
    """4: training time until 94 % of the test images are right."""
    found = load_task(TaskSource(name="cifar10", data=data)).task
    task = Task(
        name="cifar10",
        model=model,
        train=found.train,
        validation=found.validation,
        loss=smooth_cross_entropy,
        metrics=("accuracy",),
    )
    for warm in (True, False):
        training = Training(task, recipe, Layout(device=device, compile="off"))
        steps = iter(training)
        if warm:  # kernels are loaded and memory is reserved by the first epoch of another training
            for _ in range(training.steps_per_epoch):
                next(steps)
            continue
        best = reached = 0.0
        start = time.perf_counter()  # an evaluation has been read by the host: the device is idle
        for step in steps:
            if step.validation:
                best = max(best, step.validation["accuracy"])
                if best >= 0.94:
                    reached = time.perf_counter() - start
                    break
        took = f"{reached:.1f} s" if reached else "not reached"
        report.note(f"CIFAR-10 to 94 %: {took}; best {best:.2%} after {training.epoch:g} of {recipe.epochs:g} epochs")
        report.figure("cifar10 error", 1 - best, 0.06)
        if reached:
            report.figure("cifar10 seconds to 94 %", reached)


def main() -> None:
    """Measures what there is to measure, prints, and says whether the targets are met."""
    options = arguments("Talweg on a CUDA device", data="the folder of the CIFAR-10 files, or of train/<class>/")
    report = Report("on a CUDA device: time per update")
    if not torch.cuda.is_available():
        report.skip("everything", "there is no CUDA device here")
        report.finish(options.json)
        return
    repetitions = 7 if options.quick else 15
    step_overhead(report, "cuda", repetitions)
    optimizer_step(report, "cuda", repetitions)
    networks(report, "cuda", repetitions)
    if options.data:
        cifar10_to_94(report, "cuda", options.data, Recipe.read(RECIPE), partial(resnet18, classes=10, small_stem=True))
    else:
        report.skip("CIFAR-10 to 94 %", "give --data PATH")
    report.finish(options.json)


if __name__ == "__main__":
    main()
