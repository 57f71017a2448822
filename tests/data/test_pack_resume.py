"""Packs that were broken off: at any point, they go on and end as if they had not been."""

from __future__ import annotations

import os
import signal
import threading

import pytest
from tests.helpers.packs import contents, harmed, samples
from tests.helpers.pictures import picture, tree

from talweg.data import load_images, packing
from talweg.data.pack import is_packed, load_packed, pack
from talweg.errors import UserError

KILLS = [f"block {n}" for n in (0, 1, 5, 8)] + [f"replace {n}" for n in range(6)] + [f"truncate {n}" for n in range(2)]


def killed_at(place, root, out, **settings):
    """Packs in a forked process that kills itself at the nth block, or before the nth replacement or cut of a file."""
    kind, nth = place.split()
    left = [int(nth)]

    def reach():
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left[0] -= 1

    def trapped(function):
        return lambda *arguments: (reach(), function(*arguments))[1]

    if (child := os.fork()) == 0:
        try:
            if kind == "block":
                settings["progress"] = lambda done, total: reach()
            else:
                setattr(os, kind, trapped(getattr(os, kind)))
            pack(root, out, workers=2, **settings)
        finally:
            os._exit(0)
    return os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A tree with unreadable files, and the pack of it that was never broken off."""
    folder = tmp_path_factory.mktemp("files")
    harmed(folder / "files")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "_BLOCK_IMAGES", 4)
        pack(folder / "files", folder / "whole", workers=1, on_corrupt="skip")
    return folder / "files", folder / "whole"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("place", KILLS)
def test_a_pack_that_is_killed_goes_on_and_ends_as_if_it_were_not(files, tmp_path, small_blocks, place):
    root, whole = files
    out = tmp_path / "out"
    assert killed_at(place, root, out, on_corrupt="skip")
    if not is_packed(out):
        with pytest.raises(UserError, match=r"is not whole: call talweg pack again|no pack in"):
            load_packed(out)
    seen = []
    pack(root, out, workers=1, on_corrupt="skip", progress=lambda done, total: seen.append(done))
    assert samples(load_packed(out)) == samples(load_packed(whole))
    again = contents(out)
    again.pop("progress.jsonl", None)  # the kill came between the index and the tidying up
    for name, data in contents(whole).items():
        assert again[name][: len(data)] == data
    if place == "block 5":
        assert seen[0] >= 12  # three blocks or more were taken over


def test_only_what_has_changed_is_decoded_again(tmp_path, small_blocks, monkeypatch):
    root, out = tmp_path / "files", tmp_path / "out"
    tree(root / "train", 10)
    tree(root / "val", 2)
    (root / "val" / "emu" / "001.png").write_bytes(b"")
    jobs = []
    job = packing.Block.job
    monkeypatch.setattr(packing.Block, "job", lambda block: (jobs.append(block.name), job(block))[1])
    with pytest.raises(UserError, match=r"001\.png"):
        pack(root, out, workers=1)
    jobs.clear()
    picture(root / "val" / "emu" / "001.png")  # repaired
    picture(root / "train" / "cat" / "005.png")  # and another one exchanged
    pack(root, out, workers=1)
    assert jobs == ["train 4", "validation 4"]
    assert samples(load_packed(out)) == samples(load_images(root))
    (tmp_path / "out" / "index.json").rename(tmp_path / "index.json")
    jobs.clear()
    pack(root, out, workers=1)  # without a journal nothing is taken on trust
    assert len(jobs) == 10


def test_pixels_that_were_lost_are_decoded_again(tmp_path, small_blocks):
    root, out = tmp_path / "files", tmp_path / "out"
    tree(root, 10)
    assert killed_at("block 6", root, out)
    os.truncate(out / "train.npy", 128 + 8 * 90)
    pack(root, out, workers=1)
    assert samples(load_packed(out)) == samples(load_images(root))


def test_a_whole_pack_is_left_alone_and_another_one_not_overwritten(tmp_path):
    root, out = tmp_path / "files", tmp_path / "out"
    tree(root, 10)
    first = pack(root, out, workers=1)
    before = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    seen = []
    assert pack(root, out, workers=1, progress=lambda done, total: seen.append(done)) == first
    assert {path.name: path.stat().st_mtime_ns for path in out.iterdir()} == before
    assert not seen
    with pytest.raises(
        UserError, match=r"holds a pack of other files or settings \(made with size=None, channels=None"
    ):
        pack(root, out, workers=1, size=8)
    picture(root / "cat" / "new.png")
    with pytest.raises(UserError, match="or the files have changed since"):
        pack(root, out, workers=1)


def test_two_processes_do_not_pack_into_one_folder_at_once(tmp_path, small_blocks):
    tree(tmp_path / "files", 12)
    seen, made = [], []

    def one(number):
        made.append(pack(tmp_path / "files", tmp_path / "out", workers=1, progress=lambda *at: seen.append(number)))

    threads = [threading.Thread(target=one, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(seen)) == 1  # the others waited, and found the pack there
    assert made[0] == made[1] == made[2]
