"""Where to train: what changes the speed, never the result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from talweg.errors import require
from talweg.settings import check_types


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where to train, and how the work is cut: nothing in it changes the result.

    Example:
        >>> Layout(device="cpu", micro_batch=128).compile
        'auto'
    """

    device: str = "auto"
    """where the work is done: auto (cuda, else mps, else cpu), cpu, cuda, cuda:1, mps"""
    micro_batch: int = 0
    """most samples in memory at once; the gradient is accumulated up to the recipe's batch (0: the whole batch)"""
    compile: Literal["auto", "on", "off", "reduce-overhead"] = "auto"
    """torch.compile: auto measures a few steps and says why; reduce-overhead adds CUDA graphs"""
    threads: int = 0
    """CPU threads of this process (0: measured, one or all)"""
    workers: int = 2
    """processes that load an ordinary Dataset; arrays in memory need none"""

    def __post_init__(self) -> None:
        check_types(self)
        require(self.micro_batch >= 0, "micro_batch", self.micro_batch, "0 (the whole batch) or a positive number")
        require(self.threads >= 0, "threads", self.threads, "0 (automatic) or a positive number")
        require(self.workers >= 0, "workers", self.workers, "0 or a positive number")
