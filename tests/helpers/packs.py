"""What the tests of packs share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.helpers.pictures import deep, tree, truncate

from talweg.data import Sets


def contents(folder: Path) -> dict[str, bytes]:
    """Every file by name."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def samples(sets: Sets) -> list[Any]:
    """Pixels, labels and classes of both parts, to be compared."""
    return [(part.x.numpy().tobytes(), part.y.tolist(), part.classes) for part in sets]


def harmed(root: Path) -> list[str]:
    """Writes a tree of which four files cannot be read: at the start, two in a row, and at the end; returns these."""
    tree(root / "train", 10, ("cat", "dog"))
    tree(root / "val", 3, ("cat", "dog"))
    (root / "train" / "cat" / "000.png").write_bytes(b"")
    truncate(root / "train" / "cat" / "007x.jpg")
    deep(root / "train" / "cat" / "007y.png")
    (root / "train" / "dog" / "009.png").write_text("<html>")
    return [str(root / "train" / name) for name in ("cat/000.png", "cat/007x.jpg", "cat/007y.png", "dog/009.png")]
