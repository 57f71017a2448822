"""Where to train: the layout's settings, and the device and precision that follow from them."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from talweg import Layout, UserError
from talweg.device import choose_device, choose_precision

CPU, CUDA, MPS = torch.device("cpu"), torch.device("cuda"), torch.device("mps")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"device": 0}, "device must be a word in quotes, received 0"),
        ({"micro_batch": -1}, r"micro_batch must be 0 \(the whole batch\) or a positive number"),
        ({"micro_batch": 1.5}, "micro_batch must be a whole number"),
        ({"compile": "yes"}, "unknown compile 'yes': "),
        ({"compile": True}, "unknown compile True"),
        ({"threads": -1}, "threads must be 0 "),
        ({"workers": -1}, "workers must be 0 or a positive number"),
        ({"workers": True}, "workers must be a whole number"),
    ],
)
def test_layout_refuses(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Layout(**settings)


def test_layout_is_a_value() -> None:
    assert Layout() == Layout(device="auto")
    assert hash(Layout(threads=1)) == hash(Layout(threads=1))
    with pytest.raises(dataclasses.FrozenInstanceError):
        Layout().threads = 2  # type: ignore[misc]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Says which accelerators this machine has: machine(cuda=2, mps=False, capability=(8, 0))."""

    def has(cuda: int = 0, mps: bool = False, capability: tuple[int, int] = (8, 0)) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
        monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a card")
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)

    return has


@pytest.mark.parametrize(
    ("has", "device", "why"),
    [
        ({}, "cpu", "found no CUDA or Apple GPU"),
        ({"cuda": 2}, "cuda:0", "found a card"),
        ({"mps": True}, "mps", "found an Apple GPU"),
        ({"cuda": 1, "mps": True}, "cuda:0", "found a card"),
    ],
)
def test_auto_takes_the_best_device(has: dict[str, Any], device: str, why: str, machine: Any) -> None:
    machine(**has)
    chosen, decision = choose_device("auto")
    assert chosen == torch.device(device)
    assert decision == ("device", chosen.type, why)


@pytest.mark.parametrize(
    ("wanted", "has"),
    [("cpu", {}), ("cpu", {"cuda": 1}), ("cuda", {"cuda": 1}), ("cuda:1", {"cuda": 2}), ("mps", {"mps": True})],
)
def test_a_device_as_asked(wanted: str, has: dict[str, Any], machine: Any) -> None:
    machine(**has)
    assert choose_device(wanted) == (torch.device(wanted), ("device", wanted, "as asked"))


@pytest.mark.parametrize(
    ("wanted", "has", "message"),
    [
        ("cuda", {}, r"device 'cuda' is not there: this machine has 0 CUDA devices \(device='auto' picks\)"),
        ("cuda:2", {"cuda": 2}, "device 'cuda:2' is not there: this machine has 2 CUDA devices"),
        ("mps", {}, "device 'mps' is not there: this machine has no Apple GPU"),
        ("tpu", {}, "device must be auto, cpu, cuda, cuda:<number> or mps, received 'tpu'"),
        ("", {}, "device must be auto, cpu"),
        ("meta", {}, "device must be auto, cpu.*received 'meta'"),
        ("cuda:x", {"cuda": 1}, "device must be auto, cpu.*received 'cuda:x'"),
    ],
)
def test_a_device_that_is_not_there(wanted: str, has: dict[str, Any], message: str, machine: Any) -> None:
    machine(**has)
    with pytest.raises(UserError, match=message):
        choose_device(wanted)


@pytest.mark.parametrize(
    ("wanted", "device", "capability", "expected", "why"),
    [
        ("auto", CPU, (0, 0), "float32", "the exact choice on cpu"),
        ("auto", MPS, (0, 0), "float32", "the exact choice on mps"),
        ("auto", CUDA, (7, 5), "float32", "the exact choice on cuda"),
        ("auto", CUDA, (8, 0), "bf16", "this GPU multiplies bfloat16 fastest"),
        ("auto", CUDA, (9, 0), "bf16", "weights stay float32"),
        ("float32", CUDA, (9, 0), "float32", "as asked"),
        ("bf16", CPU, (0, 0), "bf16", "as asked"),
        ("float64", CPU, (0, 0), "float64", "as asked"),
    ],
)
def test_precision(
    wanted: str, device: torch.device, capability: tuple[int, int], expected: str, why: str, machine: Any
) -> None:
    machine(capability=capability)
    precision, decision = choose_precision(wanted, device)
    assert precision == decision.value == expected
    assert decision.name == "precision"
    assert why in decision.why


def test_float64_does_not_exist_on_apple_gpus() -> None:
    with pytest.raises(UserError, match="precision 'float64' does not exist on mps: use float32, or device='cpu'"):
        choose_precision("float64", MPS)
