"""What one update of all parameters costs: every rule of Talweg beside torch's fused kernels, timm and pytorch_optimizer.

    python benchmarks/optimizer_step.py [--quick] [--json]

Three lists of parameters: ResNet-50 (161 tensors, 25,557,032 parameters), ResNet-56 (173 tensors, 855,770 parameters) and
an MLP (8 tensors, 9,178 parameters). Weights and gradients are random, float32; matrices and filters are decayed, biases
and the scales of norms are not, and LARS and LAMB adapt the former. One thread, its processor time. A ratio is
ours/peer; "timm's best" is the quicker of its loop and its foreach form, without timm's own gradient clipping.

Rprop and Adadelta have no fused kernel in torch: they run as blocked eager operations, and compiled with
`Update(..., compile=True)` where a host compiler is at hand. Both are shown; the target is set for the quicker one.
"""

from __future__ import annotations

import gc
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from side_by_side import Report, Times, arguments, interleave
from torch import nn

from talweg.optimizers import (
    GD,
    LAMB,
    LARS,
    SGD,
    SGDW,
    Adadelta,
    Adagrad,
    Adam,
    AdamW,
    Lion,
    RMSprop,
    Rprop,
    Rule,
    Update,
)
from talweg.theta import Theta, decays

Shapes = list[tuple[int, ...]]
Step = Callable[[], object]
LR = 1e-6  # so small that hundreds of updates along one gradient do not drive the weights anywhere

FUSED: dict[str, Rule] = {"sgd": SGD(lr=LR, weight_decay=1e-4), "adamw": AdamW(lr=LR)}
OTHERS: dict[str, Rule] = {
    "gd": GD(lr=LR, weight_decay=1e-4),
    "sgd exponential": SGD(lr=LR, weight_decay=1e-4, form="exponential"),
    "sgd exponential nesterov": SGD(lr=LR, weight_decay=1e-4, form="exponential", nesterov=True),
    "sgdw": SGDW(lr=LR, weight_decay=1e-4),
    "rprop": Rprop(lr=LR, step_min=1e-7, step_max=1e-5),
    "adagrad": Adagrad(lr=LR, weight_decay=1e-4),
    "adadelta": Adadelta(lr=LR, weight_decay=1e-4),
    "rmsprop": RMSprop(lr=LR, weight_decay=1e-4),
    "adam": Adam(lr=LR, weight_decay=1e-4),
    "lars": LARS(lr=LR, weight_decay=1e-4),
    "lion": Lion(lr=LR, weight_decay=1e-2),
}
COMPILED = ("rprop", "adadelta")


def resnet50() -> Shapes:
    """He et al. 2016: stem, 3 + 4 + 6 + 3 bottlenecks, 1000 classes."""
    shapes: Shapes = [(64, 3, 7, 7), (64,), (64,)]
    channels = 64
    for width, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for block in range(blocks):
            out = 4 * width
            shapes += [(width, channels, 1, 1), *[(width,)] * 2, (width, width, 3, 3), *[(width,)] * 2]
            shapes += [(out, width, 1, 1), *[(out,)] * 2]
            shapes += [(out, channels, 1, 1), *[(out,)] * 2] if block == 0 else []
            channels = out
    return [*shapes, (1000, 2048), (1000,)]


def resnet56() -> Shapes:
    """He et al. 2016 for CIFAR-10, with 1×1 projection shortcuts."""
    shapes: Shapes = [(16, 3, 3, 3), (16,), (16,)]
    channels = 16
    for width in (16, 32, 64):
        for _ in range(9):
            shapes += [(width, channels, 3, 3), *[(width,)] * 2, (width, width, 3, 3), *[(width,)] * 2]
            shapes += [(width, channels, 1, 1), *[(width,)] * 2] if channels != width else []
            channels = width
    return [*shapes, (10, 64), (10,)]


def mlp() -> Shapes:
    """64-64-48-32-10."""
    return [(64, 64), (64,), (48, 64), (48,), (32, 48), (32,), (10, 32), (10,)]


def parameters(shapes: Shapes) -> list[nn.Parameter]:
    """Random weights with random gradients."""
    torch.manual_seed(0)
    found = [nn.Parameter(0.05 * torch.randn(shape)) for shape in shapes]
    for p in found:
        p.grad = 1e-3 * torch.randn_like(p)
    return found


def talweg_step(theta: Theta, rule: Rule, *, compile: bool = False) -> Step:
    """One update of θ at each call."""
    update = Update(theta, rule, compile=compile)
    t = 0

    def step() -> None:
        nonlocal t
        t += 1
        update(t)

    return step


def torch_peers(groups: list[dict[str, Any]]) -> dict[str, Step]:
    """torch's own fused kernels."""
    return {
        "torch fused sgd": torch.optim.SGD(_decayed(groups, 1e-4), lr=LR, momentum=0.9, fused=True).step,
        "torch fused adamw": torch.optim.AdamW(_decayed(groups, 1e-2), lr=LR, fused=True).step,
    }


def timm_peers(groups: list[dict[str, Any]]) -> dict[str, Step]:
    """timm's LARS and LAMB, each as a loop and foreach."""
    # The released torchvision, which timm imports, fails beside a CPU build of torch unless these operators are known.
    library = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    from timm.optim import Lamb, Lars

    found: dict[str, Step] = {}
    for form, foreach in (("loop", False), ("foreach", True)):
        lars = Lars(_decayed(groups, 1e-4), lr=LR, momentum=0.9, foreach=foreach)
        lamb = Lamb(_decayed(groups, 1e-2), lr=LR, max_grad_norm=None, foreach=foreach)
        found |= {f"timm lars {form}": lars.step, f"timm lamb {form}": lamb.step}
    return found


def pytorch_optimizer_peers(groups: list[dict[str, Any]]) -> dict[str, Step]:
    """pytorch_optimizer's LARS and LAMB (which is not the paper's), each as a loop and foreach."""
    from pytorch_optimizer import LARS as Lars
    from pytorch_optimizer import Lamb

    found: dict[str, Step] = {}
    for form, foreach in (("loop", False), ("foreach", True)):
        lars = Lars(_decayed(groups, 1e-4), lr=LR, momentum=0.9, foreach=foreach)
        lamb = Lamb(_decayed(groups, 1e-2), lr=LR, max_grad_norm=0.0, foreach=foreach)
        found |= {f"pytorch_optimizer lars {form}": lars.step, f"pytorch_optimizer lamb {form}": lamb.step}
    return found


def _decayed(groups: list[dict[str, Any]], weight_decay: float) -> list[dict[str, Any]]:
    return [{"params": g["params"], "weight_decay": weight_decay if g["decays"] else 0.0} for g in groups]


def best(times: Times, *names: str) -> str | None:
    """The contestant with the smallest median."""
    present = [name for name in names if name in times]
    return min(present, key=lambda name: statistics.median(times[name])) if present else None


def measure(report: Report, name: str, shapes: Shapes, repetitions: int, calls: int) -> None:
    """All rules and peers on one list of parameters."""
    theirs = parameters(shapes)
    groups = [{"params": [p for p in theirs if decays("", p) == d], "decays": d} for d in (True, False)]
    theta = Theta((str(i), p) for i, p in enumerate(parameters(shapes)))
    small = name == "mlp"
    contestants: dict[str, Step] = {rule: talweg_step(theta, FUSED[rule]) for rule in FUSED}
    contestants |= torch_peers(groups)
    if not small:
        contestants |= {rule: talweg_step(theta, OTHERS[rule]) for rule in OTHERS}
        contestants["lamb"] = talweg_step(theta, LAMB(lr=LR))
        for rule in COMPILED:
            contestants[f"{rule} compiled"] = talweg_step(theta, OTHERS[rule], compile=True)
        for make in (timm_peers, pytorch_optimizer_peers):
            try:
                contestants |= make(groups)
            except ImportError as error:
                report.skip(
                    make.__name__.removesuffix("_peers"), f"not installed ({error}); pip install 'talweg[peers]'"
                )
    times = interleave(contestants, repetitions, calls=calls, clock=time.thread_time)  # type: ignore[arg-type]

    adamw = "torch fused adamw"
    report.compare(f"{name}: sgd vs torch fused sgd", times, "sgd", "torch fused sgd", 1.05)
    report.compare(f"{name}: adamw vs torch fused adamw", times, "adamw", adamw, 1.05)
    if small:
        return
    if peer := best(times, "timm lars loop", "timm lars foreach"):
        report.compare(f"{name}: lars vs timm's best", times, "lars", peer, 0.6)
    if peer := best(times, "timm lamb loop", "timm lamb foreach"):
        report.compare(f"{name}: lamb vs timm's best", times, "lamb", peer, 0.35)
    for rule in ("lars", "lamb"):
        if peer := best(times, f"pytorch_optimizer {rule} loop", f"pytorch_optimizer {rule} foreach"):
            report.compare(f"{name}: {rule} vs pytorch_optimizer's best", times, rule, peer)
    report.compare(f"{name}: lamb vs torch fused adamw", times, "lamb", adamw, 2.0)
    for rule in OTHERS:
        quicker = best(times, rule, f"{rule} compiled")
        report.compare(f"{name}: {rule} vs torch fused adamw", times, rule, adamw, 1.6 if quicker == rule else None)
        if rule in COMPILED:
            label = f"{name}: {rule} compiled vs torch fused adamw"
            report.compare(label, times, f"{rule} compiled", adamw, 1.6 if quicker != rule else None)


def main() -> None:
    """Measures, prints, and says whether the targets are met."""
    options = arguments("time per update of all parameters, rule by rule")
    torch.set_num_threads(1)
    report = Report("time per update of all parameters, float32")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", UserWarning)
        for name, shapes, repetitions, calls in (
            ("mlp", mlp(), 15 if options.quick else 101, 200),
            ("resnet56", resnet56(), 9 if options.quick else 41, 4),
            ("resnet50", resnet50(), 5 if options.quick else 21, 1),
        ):
            measure(report, name, shapes, repetitions, calls)
            gc.collect()
    for text in dict.fromkeys(str(w.message) for w in said if "torch.compile" in str(w.message)):
        report.note(text)
    report.note("thread time; medians of interleaved repetitions, ratios taken within each")
    report.finish(options.json)


if __name__ == "__main__":
    main()
