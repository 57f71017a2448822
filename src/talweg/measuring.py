"""Choices that only a measurement can make: CPU threads and `torch.compile`."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from talweg.device import Decision
from talweg.engine import OneDevice, Window

MEASURED = 5  # updates timed each way
COMPILE_SECONDS = 60.0  # what compiling a small network costs, about; a larger one costs more

OneWindow = Callable[[], tuple[Window, int]]


def choose_threads(wanted: int, engine: OneDevice, one_window: OneWindow) -> Decision:
    """Sets the number of CPU threads as asked, as OMP_NUM_THREADS says, or by timing one against all.

    Small networks run faster on one thread, because handing out work costs more than it saves.

    Args:
        wanted: a number, or 0 to measure.
        engine: the engine on the CPU.
        one_window: gives the micro-batches of an update and their number of samples.
    """
    if wanted:
        torch.set_num_threads(wanted)
        return Decision("threads", str(wanted), "as asked")
    every = torch.get_num_threads()
    if every == 1 or os.environ.get("OMP_NUM_THREADS"):
        return Decision("threads", str(every), "OMP_NUM_THREADS says so" if every > 1 else "there is one")
    with untouched(engine.module):
        torch.set_num_threads(1)
        one = _seconds(engine, one_window)
        torch.set_num_threads(every)
        many = _seconds(engine, one_window, most=10 * MEASURED * one)
    best = 1 if one < many else every
    torch.set_num_threads(best)
    return Decision("threads", str(best), f"measured {_ms(one)} an update with 1, {_ms(many)} with {every}")


def choose_compile(wanted: str, engine: OneDevice, one_window: OneWindow, steps: int) -> Decision:
    """Sets the engine's compile mode as asked, or by measurement ("auto"), and says why.

    Auto times `MEASURED` forward and backward passes as they are. If the whole run would not take ten times what
    compiling costs, it stays off; else it compiles, times again, and keeps what is faster by 5 %. Weights and buffers
    are as before afterwards.

    Args:
        wanted: "auto", "on", "off" or "reduce-overhead".
        engine: the engine, not compiled yet.
        one_window: gives the micro-batches of an update and their number of samples.
        steps: updates of the whole run.
    """
    if wanted != "auto":
        engine.compile(wanted)
        return Decision("compile", wanted, "as asked")
    with untouched(engine.module):
        plain = _seconds(engine, one_window)
        if plain * steps < 10 * COMPILE_SECONDS:
            text = f"{steps} updates of {_ms(plain)} are done before compiling would have paid"
            return Decision("compile", "off", text)
        try:
            engine.compile("on")
            compiled = _seconds(engine, one_window)
        except Exception as error:  # no host compiler, an operator it cannot handle: training goes on without
            engine.compile("off")
            reason = str(error).splitlines()[0][:120] if str(error) else ""
            return Decision("compile", "off", f"compiling failed: {type(error).__name__}: {reason}")
    text = f"measured {_ms(compiled)} an update compiled, {_ms(plain)} as it is"
    if compiled < 0.95 * plain:
        return Decision("compile", "on", text)
    engine.compile("off")
    return Decision("compile", "off", text)


@contextmanager
def untouched(module: nn.Module) -> Iterator[None]:
    """Puts a module's buffers and mode back when the block ends: passes made inside leave no trace."""
    kept = {name: buffer.clone() for name, buffer in module.named_buffers()}
    mode = module.training
    try:
        yield
    finally:
        module.train(mode)
        with torch.no_grad():
            for name, buffer in module.named_buffers():
                buffer.copy_(kept[name])


def _seconds(engine: OneDevice, one_window: OneWindow, most: float = math.inf) -> float:
    """The shortest time of an engine call, after one that warms up: disturbances only ever add.

    It gives up measuring after `most` seconds: threads that compete for busy cores can take a hundred times longer.
    """
    times = []
    for _ in range(MEASURED + 1):
        window = one_window()
        start = time.perf_counter()
        engine(*window)
        if engine.theta.value.is_cuda:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
        if sum(times) > most:
            break
    return min(times[1:] or times)


def _ms(seconds: float) -> str:
    return f"{seconds:.2g} s" if seconds >= 1 else f"{seconds * 1e3:.3g} ms"
