"""Checkpoints: tensors in safetensors, facts in JSON; written atomically, checksummed, the previous one kept.

A checkpoint is two files, `step-00000460.safetensors` and `step-00000460.json`. The JSON file is written last and holds
the checksum of both: a checkpoint is whole when both are there and agree. Nothing in it can execute.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from talweg.errors import UserError

FORMAT = 1
KEPT = 2  # the newest and the one before it: a damaged newest one costs some steps, never the run


class Checkpoint(NamedTuple):
    """What was saved: tensors by name, facts as plain values."""

    tensors: dict[str, Tensor]
    facts: dict[str, Any]
    path: Path


def save_checkpoint(folder: Path, step: int, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> Path:
    """Writes a whole checkpoint, then removes all but the newest `KEPT`, and what a kill left half done.

    Args:
        folder: made when it is missing.
        step: updates done so far; the files are named after it.
        tensors: by name, on any device; views are copied.
        facts: values that JSON can hold.

    Returns:
        The path of the JSON file.

    Raises:
        UserError: the folder cannot be written or the disk is full; what was there before is untouched.
    """
    path = Path(folder) / f"step-{step:08d}.json"
    owned = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
    data = save(owned)
    record = {"format": FORMAT, "sha256": _checksum(data, dict(facts)), "facts": dict(facts)}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path.with_suffix(".safetensors"), data)
        write_atomically(path, json.dumps(record).encode())
        _tidy(path.parent)
    except OSError as error:
        raise cannot_write(path, error) from error
    return path


def load_newest(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest whole checkpoint in a folder (None: there is none), and one sentence for each damaged one passed over.

    Raises:
        UserError: there are checkpoints, but every one is damaged.
    """
    damaged: list[str] = []
    paths = sorted({path.with_suffix(".json") for path in Path(folder).glob("step-*")}, reverse=True)
    for path in paths:
        try:
            return load_checkpoint(path), damaged
        except UserError as error:
            damaged.append(str(error))
    if any(path.exists() for path in paths):
        raise UserError(
            f"no whole checkpoint in {folder}: {'; '.join(damaged)}; put a copy in its place, or move the folder away "
            "to start from the beginning"
        )
    return None, damaged  # tensors alone are what a kill leaves in the middle of the first checkpoint


def load_checkpoint(path: Path) -> Checkpoint:
    """The checkpoint of a JSON file.

    Raises:
        UserError: a file is missing, damaged (checksum), or of another format.
    """
    path = Path(path)
    try:
        record = json.loads(path.read_bytes())
        data = path.with_suffix(".safetensors").read_bytes()
    except FileNotFoundError as error:
        raise UserError(f"checkpoint {path.stem} is not whole: {Path(error.filename).name} is missing") from error
    except (OSError, ValueError) as error:
        raise UserError(f"checkpoint {path.stem} cannot be read: {error}") from error
    if not isinstance(record, dict) or not {"format", "sha256", "facts"} <= record.keys():
        raise UserError(f"checkpoint {path.stem} is not one of Talweg's: its JSON lacks format, sha256 or facts")
    if record["format"] != FORMAT:
        raise UserError(f"checkpoint {path.stem} has format {record['format']!r}, this Talweg reads format {FORMAT}")
    if _checksum(data, record["facts"]) != record["sha256"]:
        raise UserError(f"checkpoint {path.stem} is damaged: it does not have the recorded checksum")
    try:
        return Checkpoint(load(data), record["facts"], path)
    except SafetensorError as error:
        raise UserError(f"checkpoint {path.stem} is damaged: {error}") from error


def save_weights(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Writes a module's `state_dict` as one safetensors file, atomically; tied tensors are stored once a name."""
    try:
        write_atomically(Path(path), save({n: t.detach().cpu().contiguous().clone() for n, t in tensors.items()}))
    except OSError as error:
        raise cannot_write(path, error) from error


def load_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Raises:
        UserError: the file is missing or not whole.
    """
    try:
        return load(Path(path).read_bytes())
    except FileNotFoundError as error:
        raise UserError(f"no such file: {path}") from error
    except (OSError, SafetensorError) as error:
        raise UserError(f"cannot read the weights in {path}: {error}") from error


def write_atomically(path: Path, data: bytes) -> None:
    """Writes a file so that, whatever happens, a reader finds the old content or the whole new one."""
    temporary = path.with_name(f".{path.name}.tmp")  # one name: what a kill leaves is overwritten the next time
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the rename itself must survive a power cut
    finally:
        os.close(folder)


def cannot_write(path: Path, error: OSError) -> UserError:
    """The error for a file that could not be written, in words."""
    reason = {
        errno.ENOSPC: "the disk is full",
        errno.EDQUOT: "the disk quota is used up",
        errno.EACCES: "permission denied",
        errno.EROFS: "the file system is read-only",
        errno.EEXIST: "something that is no folder is in its place",
    }.get(error.errno or 0, error.strerror or str(error))
    return UserError(
        f"cannot write {path}: {reason}; what was saved before is untouched, choose another place with --out"
    )


def _checksum(data: bytes, facts: dict[str, Any]) -> str:
    """SHA-256 of the tensors' file and of the facts as JSON, which come out of a file as they went in."""
    digest = hashlib.sha256(data)
    digest.update(json.dumps(facts).encode())
    return digest.hexdigest()


def _tidy(folder: Path) -> None:
    """Removes all checkpoints but the newest `KEPT`, tensors without JSON, and temporary files."""
    whole = sorted(folder.glob("step-*.json"))
    for old in whole[:-KEPT]:
        old.unlink()  # the JSON file first: without it the tensors are no checkpoint
    kept = {path.stem for path in whole[-KEPT:]}
    for path in (*folder.glob("step-*.safetensors"), *folder.glob(".step-*.tmp")):
        if path.stem not in kept:
            path.unlink()
