"""The device and precision a run uses: every automatic choice is a `Decision` that says why."""

from __future__ import annotations

from typing import NamedTuple

import torch

from talweg.errors import UserError


class Decision(NamedTuple):
    """An automatic choice: printed at the start and stored in the run."""

    name: str
    value: str
    why: str


def choose_device(wanted: str) -> tuple[torch.device, Decision]:
    """The device for `wanted` (auto, cpu, cuda, cuda:1, mps).

    Raises:
        UserError: the device does not exist here.
    """
    if wanted == "auto":
        if torch.cuda.is_available():
            name = torch.cuda.get_device_name()
            return torch.device("cuda", torch.cuda.current_device()), Decision("device", "cuda", f"found {name}")
        if torch.backends.mps.is_available():
            return torch.device("mps"), Decision("device", "mps", "found an Apple GPU")
        return torch.device("cpu"), Decision("device", "cpu", "found no CUDA or Apple GPU")
    try:
        device = torch.device(wanted)
    except RuntimeError as error:
        raise UserError(f"device must be auto, cpu, cuda, cuda:<number> or mps, received {wanted!r}") from error
    if device.type == "cuda":
        count = torch.cuda.device_count()
        if not torch.cuda.is_available() or (device.index or 0) >= count:
            raise UserError(
                f"device {wanted!r} is not there: this machine has {count} CUDA devices (device='auto' picks)"
            )
    elif device.type == "mps":
        if not torch.backends.mps.is_available():
            raise UserError("device 'mps' is not there: this machine has no Apple GPU (device='auto' picks)")
    elif device.type != "cpu" or device.index:
        raise UserError(f"device must be auto, cpu, cuda, cuda:<number> or mps, received {wanted!r}")
    return device, Decision("device", str(device), "as asked")


def choose_precision(wanted: str, device: torch.device) -> tuple[str, Decision]:
    """float32, bf16 or float64 for `wanted`; auto is bf16 on a CUDA device that computes in it, else float32.

    Raises:
        UserError: the device cannot compute in the wanted precision.
    """
    if wanted == "auto":
        if device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0):
            return "bf16", Decision("precision", "bf16", "this GPU multiplies bfloat16 fastest; weights stay float32")
        return "float32", Decision("precision", "float32", f"the exact choice on {device.type}")
    if wanted == "float64" and device.type == "mps":
        raise UserError("precision 'float64' does not exist on mps: use float32, or device='cpu'")
    return wanted, Decision("precision", wanted, "as asked")
