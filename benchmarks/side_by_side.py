"""What every benchmark here shares: interleaved timings, paired ratios, a table for people and a line for programs.

    report = Report("what is measured")
    times = interleave({"talweg": ours, "torch": theirs}, repetitions=7)
    report.compare("step vs torch", times, "talweg", "torch", target=0.95)
    report.finish(arguments.json)

A ratio is ours/peer, taken within each repetition and then the median of those: what disturbs the machine for a while
disturbs both. The spread is the smallest and largest of them.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

import torch

Times = dict[str, list[float]]


def arguments(description: str, *, data: str = "") -> argparse.Namespace:
    """The options that all benchmarks have: --quick, --json, and --data where `data` says what it is.

    Args:
        description: the benchmark in one line.
        data: what must lie at --data; empty for a benchmark that brings its own.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="ends within 50 s: fewer repetitions, the same bounds")
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object")
    parser.add_argument("--data", default="", help=data or "not used here")
    return parser.parse_args()


def interleave(
    contestants: Mapping[str, Callable[[], float | None]],
    repetitions: int,
    *,
    calls: int = 1,
    warmup: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> Times:
    """Seconds a call for each contestant, in rounds: everyone once, then everyone again, every second round backwards.

    Args:
        contestants: functions by name. One that returns a number has timed itself (seconds a unit of its work).
        repetitions: rounds that count.
        calls: calls timed together in a round.
        warmup: calls of each before the first round.
        clock: `time.perf_counter`, or `time.thread_time` for work on one thread of a machine that others use too.
    """
    times: Times = {name: [] for name in contestants}
    for run in contestants.values():
        for _ in range(warmup):
            run()
    for repetition in range(repetitions):
        names = list(contestants)[:: -1 if repetition % 2 else 1]
        for name in names:
            run = contestants[name]
            own = []
            start = clock()
            for _ in range(calls):
                own.append(run())
            elapsed = (clock() - start) / calls
            said = [seconds for seconds in own if seconds is not None]
            times[name].append(statistics.fmean(said) if said else elapsed)
    return times


class Apart:
    """A contestant in a process of its own: its threads, memory allocator and loader workers do not touch the others'.

    `make(*settings)` runs there and returns a function; calling the object calls that function there and waits.
    """

    def __init__(self, make: Callable[..., Callable[..., Any]], *settings: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        usual = multiprocessing.get_start_method()
        self._process = context.Process(target=_serve, args=(theirs, usual, make, settings))
        self._process.start()
        theirs.close()

    def __call__(self, *what: Any) -> Any:
        """The function's answer to `what`; a failure there is raised here."""
        self._pipe.send(what)
        answer = self._pipe.recv()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def close(self) -> None:
        """Ends the process."""
        self._pipe.close()
        self._process.join()


def _serve(pipe: Connection, usual: str, make: Callable[..., Callable[..., Any]], settings: tuple[Any, ...]) -> None:
    multiprocessing.set_start_method(usual, force=True)  # loader workers start as they do in a script of their own
    try:
        function = make(*settings)
    except Exception as error:
        pipe.send(error)
        return
    while True:
        try:
            what = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send(function(*what))
        except Exception as error:
            pipe.send(error)


def mend_torchvision() -> None:
    """Makes torchvision importable beside a CPU build of torch: several peers import it without need.

    Its released wheel is a CUDA build, whose operators are then missing; two of them must at least be known by name.
    """
    try:
        import torchvision  # noqa: F401
    except ImportError:
        return
    except RuntimeError:
        library = torch.library.Library("torchvision", "DEF")
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _LIBRARIES.append(library)  # what it defines is forgotten with it


_LIBRARIES: list[torch.library.Library] = []


def machine() -> str:
    """The machine in words: processor features that matter, threads and torch's version; no names of hosts."""
    if torch.cuda.is_available():
        device = torch.cuda.get_device_name()
    else:
        found = [f for f in ("AVX512", "AVX2") if f in torch.backends.cpu.get_cpu_capability()]
        bf16 = ", bf16 instructions" if cpu_multiplies_bf16() else ""
        device = f"CPU ({found[0] if found else 'no AVX'}{bf16})"
    return f"{device}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def cpu_multiplies_bf16() -> bool:
    """Whether this CPU has instructions that multiply bfloat16 (avx512_bf16 or AMX)."""
    asked = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(asked and asked())


@dataclass
class Report:
    """Rows of a comparison; `finish` prints them, and whether every target was met."""

    title: str
    unit: str = "ms"
    per_second: float = 1e3
    rows: list[tuple[str, ...]] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)
    targets: dict[str, float] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def compare(self, name: str, times: Times, ours: str, peer: str, target: float | None = None) -> float:
        """A figure: the median over repetitions of ours/peer; with a target, the largest value that meets it."""
        pairs = [a / b for a, b in zip(times[ours], times[peer], strict=True)]
        figure = statistics.median(pairs)
        mine, theirs = (statistics.median(times[who]) * self.per_second for who in (ours, peer))
        spread = f"{min(pairs):.3f} … {max(pairs):.3f}"
        self.rows.append(
            (name, f"{mine:.4g}", f"{theirs:.4g}", f"{figure:.3f}", spread, *self._verdict(figure, target))
        )
        self._keep(name, figure, target)
        return figure

    def figure(self, name: str, value: float, target: float | None = None, spread: str = "") -> None:
        """A figure that is no ratio of two timings; with a target, the largest value that meets it."""
        self.rows.append((name, "", "", f"{value:.4g}", spread, *self._verdict(value, target)))
        self._keep(name, value, target)

    def skip(self, peer: str, why: str) -> None:
        """A peer or a measurement that could not be made: it is named, and the targets count as not met."""
        self.missing.append(f"{peer}: {why}")

    def note(self, text: str) -> None:
        """A line under the table."""
        self.notes.append(text)

    @property
    def met(self) -> bool:
        """Whether nothing was skipped and no figure is above its target."""
        return not self.missing and all(self.figures[name] <= bound for name, bound in self.targets.items())

    def finish(self, as_json: bool) -> None:
        """Prints the table, what was skipped, the notes, and with --json the line for programs."""
        head = ("", f"ours {self.unit}", f"peer {self.unit}", "ratio", "spread", "target", "")
        columns = list(zip(head, *self.rows, strict=True))
        padded = [[cell.rjust(max(map(len, column))) for cell in column] for column in columns]
        padded[0] = [cell.ljust(max(map(len, columns[0]))) for cell in columns[0]]
        print(f"{self.title}\n{machine()}\n")
        if self.rows:
            for row in zip(*padded, strict=True):
                print("  ".join(row).rstrip())
        for text in self.missing:
            print(f"skipped: {text}")
        for text in self.notes:
            print(text)
        print("every target is met" if self.met else "not every target is met")
        if as_json:
            figures = {name: round(value, 5) for name, value in self.figures.items()}
            line: dict[str, object] = {"figures": figures, "targets": self.targets, "met": self.met}
            if self.missing:
                line["skipped"] = self.missing
            print(json.dumps(line))
        sys.stdout.flush()

    def _keep(self, name: str, value: float, target: float | None) -> None:
        self.figures[name] = value
        if target is not None:
            self.targets[name] = target

    @staticmethod
    def _verdict(value: float, target: float | None) -> tuple[str, str]:
        if target is None:
            return "", ""
        return f"≤ {target:g}", "met" if value <= target else "missed"
