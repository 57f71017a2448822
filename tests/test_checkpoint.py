"""Checkpoints: every bit comes back, nothing in them can execute, and no failure costs the one before."""

from __future__ import annotations

import errno
import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from talweg import UserError, checkpoint
from talweg.checkpoint import KEPT, load_checkpoint, load_newest, load_weights, save_checkpoint, save_weights

FACTS = {"step": 3, "seconds": 0.1 + 0.2, "best": None, "name": "Ünïcode ✓", "list": [1, 2.5, True]}


def tensors(value: float = 1.0) -> dict[str, Tensor]:
    return {"theta/0.weight": torch.full((3, 2), value), "theta/0.bias": torch.full((2,), -value)}


def same_bits(a: Tensor, b: Tensor) -> bool:
    one, other = (t.detach().contiguous().view(-1).view(torch.uint8) for t in (a, b))
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(one, other)


SPECIAL = [0.0, -0.0, float("inf"), -float("inf"), float("nan"), 1e-45, 3.14]
BASE = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
KINDS = {
    "float64": torch.tensor(SPECIAL, dtype=torch.float64),
    "float32": torch.tensor(SPECIAL),
    "bfloat16": torch.tensor(SPECIAL, dtype=torch.bfloat16),
    "float16": torch.tensor(SPECIAL, dtype=torch.float16),
    "int64": torch.tensor([-(2**63), 2**63 - 1, 0]),
    "uint8": torch.arange(256, dtype=torch.uint8),
    "bool": torch.tensor([True, False]),
    "0-d": torch.tensor(0.1, dtype=torch.float64),
    "0-d int": torch.tensor(7),
    "empty": torch.zeros(0, 3),
    "transposed": BASE.T,
    "strided": BASE[::2, 1::3],
    "expanded": torch.ones(1).expand(5),
    "channels last": torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
    "parameter": nn.Parameter(torch.ones(2, 2)),
    "slice of a large vector": BASE.view(-1)[3:7],
}


def test_every_kind_of_tensor_comes_back_bit_for_bit(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, 3, KINDS, FACTS)
    loaded = load_checkpoint(path)
    assert loaded.tensors.keys() == KINDS.keys()
    for name, tensor in KINDS.items():
        assert same_bits(loaded.tensors[name], tensor), name
    assert loaded.facts == FACTS
    assert loaded.path == path
    save_weights(tmp_path / "model.safetensors", KINDS)
    for name, tensor in load_weights(tmp_path / "model.safetensors").items():
        assert same_bits(tensor, KINDS[name]), name


def test_tensors_that_share_memory_are_saved_each(tmp_path: Path) -> None:
    vector = torch.arange(10.0)
    shared = {"whole": vector, "again": vector, "part": vector[2:6], "reversed": vector.flip(0), "overlap": vector[4:9]}
    loaded = load_checkpoint(save_checkpoint(tmp_path, 1, shared, {})).tensors
    for name, tensor in shared.items():
        assert same_bits(loaded[name], tensor), name
    loaded["whole"].zero_()
    assert loaded["part"].tolist() == [2.0, 3.0, 4.0, 5.0]


def test_file_holds_a_text_header_and_plain_numbers_alone(tmp_path: Path) -> None:
    """safetensors: 8 bytes of length, JSON, then numbers up to the last byte; there is no place for a pickle."""
    path = save_checkpoint(tmp_path, 1, tensors(), FACTS)
    data = path.with_suffix(".safetensors").read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    spans = sorted(entry["data_offsets"] for name, entry in header.items() if name != "__metadata__")
    assert [0, *(stop for _, stop in spans)] == [*(start for start, _ in spans), len(data) - 8 - length]
    assert header.keys() - {"__metadata__"} == tensors().keys()
    with pytest.raises(pickle.UnpicklingError):
        pickle.loads(data)
    assert json.loads(path.read_text())["facts"] == FACTS


def test_the_newest_are_kept(tmp_path: Path) -> None:
    for step in (5, 20, 100, 1000):
        save_checkpoint(tmp_path, step, tensors(step), {"step": step})
    kept = sorted(path.name for path in tmp_path.iterdir())
    assert kept == [f"step-{s:08d}.{end}" for s in (100, 1000) for end in ("json", "safetensors")]
    assert len(kept) == 2 * KEPT
    newest, damaged = load_newest(tmp_path)
    assert newest is not None
    assert newest.facts == {"step": 1000}
    assert damaged == []
    save_checkpoint(tmp_path, 1000, tensors(7.0), {"step": 1000})  # the same step again
    assert len(list(tmp_path.iterdir())) == 2 * KEPT


def test_no_checkpoint_is_no_mistake(tmp_path: Path) -> None:
    assert load_newest(tmp_path) == (None, [])
    assert load_newest(tmp_path / "absent") == (None, [])


class Killed(BaseException):
    """Stands for SIGKILL: no handler of the package catches it."""


def stop_before(monkeypatch: pytest.MonkeyPatch, suffix: str, error: BaseException) -> None:
    """The next file that ends so is not put in its place."""
    replace = os.replace

    def stopped(source: Any, target: Any) -> None:
        if str(target).endswith(suffix):
            raise error
        replace(source, target)

    monkeypatch.setattr(checkpoint.os, "replace", stopped)


@pytest.mark.parametrize("suffix", [".safetensors", ".json"])
def test_a_kill_between_the_files_leaves_the_one_before(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_checkpoint(tmp_path, 10, tensors(1.0), {"step": 10})
    with monkeypatch.context() as patch:
        stop_before(patch, suffix, Killed())
        with pytest.raises(Killed):
            save_checkpoint(tmp_path, 20, tensors(2.0), {"step": 20})
    loaded, damaged = load_newest(tmp_path)
    assert loaded is not None
    assert loaded.facts == {"step": 10}
    assert loaded.tensors["theta/0.weight"][0, 0] == 1.0
    assert len(damaged) == (suffix == ".json")
    assert all("step-00000020.json is missing" in text for text in damaged)
    save_checkpoint(tmp_path, 30, tensors(3.0), {"step": 30})
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [f"step-{s:08d}.{end}" for s in (10, 30) for end in ("json", "safetensors")]


@pytest.mark.parametrize("suffix", [".safetensors", ".json"])
def test_a_kill_while_a_step_is_saved_again(suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """New tensors beside old facts are found out, and the checkpoint before is taken."""
    for step in (10, 20):
        save_checkpoint(tmp_path, step, tensors(step), {"step": step})
    with monkeypatch.context() as patch:
        stop_before(patch, suffix, Killed())
        with pytest.raises(Killed):
            save_checkpoint(tmp_path, 20, tensors(99.0), {"step": 20})
    loaded, damaged = load_newest(tmp_path)
    assert loaded is not None
    assert loaded.facts["step"] == (10 if suffix == ".json" else 20)
    assert loaded.tensors["theta/0.weight"][0, 0] == loaded.facts["step"]
    assert len(damaged) == (suffix == ".json")


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EDQUOT, "the disk quota is used up"),
        (errno.EACCES, "permission denied"),
        (errno.EROFS, "the file system is read-only"),
        (errno.EIO, "[Ii]nput/output error"),
    ],
)
@pytest.mark.parametrize("suffix", [".safetensors", ".json"])
def test_a_disk_that_refuses(
    number: int, words: str, suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_checkpoint(tmp_path, 10, tensors(), {"step": 10})
    stop_before(monkeypatch, suffix, OSError(number, os.strerror(number)))
    message = rf"cannot write .*step-00000020.*: {words}; what was saved before is untouched, choose another.*--out"
    with pytest.raises(UserError, match=message):
        save_checkpoint(tmp_path, 20, tensors(), {"step": 20})
    assert not list(tmp_path.glob(".*"))
    loaded, _ = load_newest(tmp_path)
    assert loaded is not None
    assert loaded.facts == {"step": 10}


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def damage(path: Path, how: str) -> None:
    tensors_path = path.with_suffix(".safetensors")
    record = json.loads(path.read_text())
    if how == "bit":
        flip_a_bit(tensors_path)
    elif how == "cut":
        tensors_path.write_bytes(tensors_path.read_bytes()[:-5])
    elif how == "facts":
        path.write_text(json.dumps({**record, "facts": {"step": 21}}))
    elif how == "no tensors":
        tensors_path.unlink()
    elif how == "no json":
        path.write_text("{")
    elif how == "not text":
        path.write_bytes(b"\xff\xfe\x00")
    elif how == "list":
        path.write_text("[1, 2]")
    elif how == "foreign":
        path.write_text('{"epoch": 3}')
    elif how == "newer":
        path.write_text(json.dumps({**record, "format": 2}))
    elif how == "strange":
        path.write_text(json.dumps({**record, "format": "x"}))


DAMAGE = {
    "bit": "step-00000020 is damaged: it does not have the recorded checksum",
    "cut": "step-00000020 is damaged",
    "facts": "step-00000020 is damaged",
    "no tensors": "step-00000020 is not whole: step-00000020.safetensors is missing",
    "no json": "step-00000020 cannot be read",
    "not text": "step-00000020 cannot be read",
    "list": "is not one of Talweg's: its JSON lacks format, sha256 or facts",
    "foreign": "is not one of Talweg's",
    "newer": "has format 2, this Talweg reads format 1",
    "strange": "has format 'x', this Talweg reads format 1",
}


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_checkpoint_is_named_and_passed_over(how: str, tmp_path: Path) -> None:
    for step in (10, 20):
        path = save_checkpoint(tmp_path, step, tensors(step), {"step": step})
    damage(path, how)
    with pytest.raises(UserError, match=DAMAGE[how]) as caught:
        load_checkpoint(path)
    assert "\n" not in str(caught.value)
    loaded, damaged = load_newest(tmp_path)
    assert loaded is not None
    assert loaded.facts == {"step": 10}
    assert damaged == [str(caught.value)]
    flip_a_bit(tmp_path / "step-00000010.safetensors")
    with pytest.raises(
        UserError, match=r"no whole checkpoint in .*step-00000020.*; checkpoint step-00000010 is damaged"
    ):
        load_newest(tmp_path)


def test_weights_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    with pytest.raises(UserError, match=r"no such file: .*model\.safetensors"):
        load_weights(path)
    path.write_bytes(b"no weights")
    with pytest.raises(UserError, match=r"cannot read the weights in .*model\.safetensors"):
        load_weights(path)
    with pytest.raises(UserError, match="cannot read the weights"):
        load_weights(tmp_path)
    with pytest.raises(UserError, match="cannot write"):
        save_weights(tmp_path / "absent" / "model.safetensors", tensors())


def test_writing_replaces_whole_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    checkpoint.write_atomically(path, b"old")
    with monkeypatch.context() as patch:
        stop_before(patch, "file", OSError(errno.ENOSPC, "full"))
        with pytest.raises(OSError, match="full"):
            checkpoint.write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
    checkpoint.write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
