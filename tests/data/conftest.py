"""Small blocks for the tests of packs."""

from __future__ import annotations

import pytest

from talweg.data import pack, packing


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of 4 images, each noted at once."""
    monkeypatch.setattr(packing, "_BLOCK_IMAGES", 4)
    monkeypatch.setattr(pack, "_SAVE_SECONDS", 0.0)
