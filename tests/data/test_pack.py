"""Packs: what `load_images` gives, on disk; refused where something is wrong; never in memory as a whole."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tests.helpers.packs import contents, harmed, samples
from tests.helpers.pictures import picture, tree

from talweg.data import decode, load_images, packing
from talweg.data import pack as pack_module
from talweg.data.pack import is_packed, load_packed, pack
from talweg.errors import UserError

# how the tree is made, settings
TREES = [
    (lambda r: (tree(r / "train", 9), tree(r / "validation", 3)), {}),
    (lambda r: (tree(r / "train", 5, shape=(4, 4, 1)), tree(r / "test", 3, shape=(4, 4, 1))), {}),
    (lambda r: tree(r / "train", 12), {"validation": 0.25}),
    (lambda r: tree(r, 10), {}),
    (lambda r: (tree(r, 4), picture(r / "cat" / "big.jpg", (90, 70, 3))), {"size": 8}),
    (lambda r: (tree(r, 4), picture(r / "cat" / "grey.png", (6, 5, 1))), {"channels": 1}),
    (lambda r: tree(r, 3, classes=("a b", "ü", "0")), {}),
]


@pytest.mark.parametrize(("make", "settings"), TREES)
def test_a_pack_holds_what_load_images_gives(tmp_path, small_blocks, make, settings):
    make(tmp_path / "files")
    packed = pack(tmp_path / "files", tmp_path / "out", workers=1, **settings)
    sets = load_packed(tmp_path / "out")
    assert samples(sets) == samples(load_images(tmp_path / "files", **settings))
    assert packed.images == {"train": len(sets.train), "validation": len(sets.validation)}
    assert packed.shape == (*sets.train.x.shape[2:], sets.train.x.shape[1])
    assert packed.nbytes == sum(part.x.numel() for part in sets)
    x = sets.train.x.double()
    assert np.allclose(packed.mean, x.mean((0, 2, 3)), rtol=1e-12)
    assert np.allclose(packed.std, x.std((0, 2, 3), correction=0), rtol=1e-12)


def test_the_files_can_be_read_without_talweg(tmp_path):
    pictures = tree(tmp_path / "files" / "train", 5)
    tree(tmp_path / "files" / "val", 2)
    pack(tmp_path / "files", tmp_path / "out", workers=1)
    pixels = np.load(tmp_path / "out" / "train.npy")
    labels = np.load(tmp_path / "out" / "train-labels.npy")
    names = (tmp_path / "out" / "train-files.txt").read_text().splitlines()
    assert [names[0], names[-1]] == [os.path.join("cat", "000.png"), os.path.join("emu", "004.png")]
    assert labels.tolist() == [0] * 5 + [1] * 5 + [2] * 5
    assert np.array_equal(pixels, np.stack([p for c in pictures.values() for p in c]))
    index = json.loads((tmp_path / "out" / "index.json").read_text())
    assert (index["format"], index["classes"], index["shape"]) == (1, ["cat", "dog", "emu"], [6, 5, 3])


def test_a_pack_stays_on_disk_and_is_gathered_as_channels_last(tmp_path):
    tree(tmp_path / "files", 8)
    pack(tmp_path / "files", tmp_path / "out", workers=1)
    train, _ = load_packed(tmp_path / "out")
    with open("/proc/self/maps") as maps:
        mapped = [line for line in maps if str(tmp_path / "out" / "train.npy") in line]
    low, high = (int(end, 16) for end in mapped[0].split()[0].split("-"))
    assert low <= train.x.data_ptr() < high
    for chunk in (torch.tensor([3, 1]), range(2, 5)):
        x, _ = next(train.batches([chunk]))
        assert x.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(x, train.x[torch.as_tensor(chunk)])


def test_the_number_of_processes_does_not_matter(tmp_path, small_blocks):
    tree(tmp_path / "files", 20)
    for workers in (1, 3):
        pack(tmp_path / "files", tmp_path / str(workers), workers=workers)
    assert contents(tmp_path / "1") == contents(tmp_path / "3")


def test_progress_counts_every_image(tmp_path, small_blocks):
    tree(tmp_path / "files", 6)
    seen = []
    pack(tmp_path / "files", tmp_path / "out", workers=2, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(0, 18), (4, 18), (8, 18), (12, 18), (16, 18), (18, 18)]


# --- files that cannot be read


def test_corrupt_files_are_refused_and_the_first_is_named(tmp_path, small_blocks):
    bad = harmed(tmp_path / "files")
    for path in bad:
        with pytest.raises(UserError) as caught:
            pack(tmp_path / "files", tmp_path / "out", workers=2)
        assert path in str(caught.value)
        assert "repair or remove the file, or leave such files out with on_corrupt='skip'" in str(caught.value)
        assert not is_packed(tmp_path / "out")
        Path(path).unlink()
    assert pack(tmp_path / "files", tmp_path / "out", workers=2).images == {"train": 18, "validation": 6}


def test_corrupt_files_are_skipped_and_listed(tmp_path, small_blocks):
    bad = harmed(tmp_path / "files")
    packed = pack(tmp_path / "files", tmp_path / "out", workers=2, on_corrupt="skip")
    assert len(packed.skipped) == 4
    assert packed.words().splitlines()[2:] == ["left out, for they cannot be read: 4 files", *packed.skipped]
    assert all(path in why for path, why in zip(bad, packed.skipped, strict=True))
    assert packed.images == {"train": 18, "validation": 6}
    train, _ = load_packed(tmp_path / "out")
    names = (tmp_path / "out" / "train-files.txt").read_text().splitlines()
    assert sorted(names) == [f"{c}/{i:03}.png" for c, some in (("cat", range(1, 10)), ("dog", range(9))) for i in some]
    for i, name in enumerate(names):
        expected = decode.read(str(tmp_path / "files" / "train" / name))
        assert np.array_equal(train.x[i].permute(1, 2, 0).numpy(), expected)
        assert train.classes[train.y[i]] == name.split("/")[0]
    assert np.allclose(packed.mean, train.x.double().mean((0, 2, 3)), rtol=1e-12)
    assert (tmp_path / "out" / "train.npy").stat().st_size == 128 + 18 * 6 * 5 * 3
    with pytest.raises(UserError, match=r"cannot read image .*000.png.*on_corrupt='skip'"):
        pack(tmp_path / "files", tmp_path / "out", workers=1)  # the pack that is there lacks files


def test_many_skipped_files_are_told_of_in_short():
    about = {"folder": Path("p"), "shape": (2, 2, 1), "classes": ("a", "b"), "images": {"train": 3, "validation": 1}}
    packed = pack_module.Packed(**about, mean=(1.0,), std=(0.5,), skipped=tuple(f"why {i}" for i in range(12)))
    lines = packed.words().splitlines()
    assert lines[0] == "4 images of 2 × 2 × 1 in p (0.0 MB): 3 for train, 1 for validation; 2 classes"
    assert lines[-2:] == ["why 9", "… and 2 more, all in p/index.json"]


def test_a_class_of_which_nothing_can_be_read_is_refused(tmp_path):
    tree(tmp_path / "files" / "train", 3)
    tree(tmp_path / "files" / "val", 1)
    (tmp_path / "files" / "val" / "dog" / "000.png").write_bytes(b"")
    assert pack(tmp_path / "files", tmp_path / "1", workers=1, on_corrupt="skip").images["validation"] == 2
    for path in (tmp_path / "files" / "train" / "dog").iterdir():
        path.write_bytes(b"")
    with pytest.raises(UserError, match=r"no image of class 'dog' can be read for train: cannot read .*dog/000.png"):
        pack(tmp_path / "files", tmp_path / "2", workers=1, on_corrupt="skip")
    for path in (tmp_path / "files" / "train").glob("*/*"):
        path.write_bytes(b"")
    with pytest.raises(UserError, match=r"no image in '.*train' can be read: cannot read .*cat/000.png"):
        pack(tmp_path / "files", tmp_path / "3", workers=1, on_corrupt="skip")


# what is done to a good tree, settings, how the message begins (with {root}), what it must also say
BAD = [
    (lambda r: picture(r / "dog" / "x.png", (7, 5, 3)), {}, "images differ: '{root}/cat/000.png' has 6 × 5", "size="),
    (lambda r: picture(r / "dog" / "x.png", (6, 5, 1)), {"on_corrupt": "skip"}, "images differ: ", "has 3 channels, "),
    (lambda r: (r / "yak").mkdir(), {}, "class folder '{root}/yak' holds no images (.png", "fill it or remove it"),
    (lambda r: picture(r / "dog" / "a\nb.png"), {}, "the name of a file must be of one line, received 'dog/a\\nb.png'", ""),
    (lambda r: None, {"workers": -1}, "workers must be a number of processes, or 0 for one on each core, received -1", ""),
    (lambda r: None, {"on_corrupt": "skp"}, "unknown on_corrupt 'skp': did you mean 'skip'? Known: refuse, skip", ""),
    (lambda r: None, {"size": 0}, "size must be at least 1 pixel, received 0", ""),
    (lambda r: None, {"out": "dog/../packed"}, "the pack '{root}/dog/../packed' would lie among", "outside"),
    (lambda r: None, {"out": "dog/000.png"}, "cannot write {root}/dog/000.png: ", "--out"),
]  # fmt: skip


@pytest.mark.parametrize(("harm", "settings", "start", "contains"), BAD, ids=[row[2][:40] for row in BAD])
def test_what_cannot_be_packed_is_named_in_one_line(tmp_path, harm, settings, start, contains):
    tree(tmp_path / "files", 4)
    harm(tmp_path / "files")
    out = tmp_path / "files" / settings.pop("out") if "out" in settings else tmp_path / "out"
    with pytest.raises(UserError) as caught:
        pack(tmp_path / "files", out, **{"workers": 1, **settings})
    assert str(caught.value).startswith(start.format(root=tmp_path / "files"))
    assert contains in str(caught.value)
    assert "\n" not in str(caught.value)


# --- disks and processes that fail


def test_a_disk_that_is_too_small_is_refused_at_once(tmp_path, monkeypatch):
    tree(tmp_path / "files", 4)
    monkeypatch.setattr(pack_module.shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(
        UserError, match=r"needs 0.0 GB more, only 0.0 GB are free; choose another folder, or a smaller"
    ):
        pack(tmp_path / "files", tmp_path / "out", workers=1)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_disk_that_fills_up_is_named(tmp_path, monkeypatch):
    tree(tmp_path / "files", 4)
    job = packing.Block.job
    monkeypatch.setattr(packing.Block, "job", lambda block: {**job(block), "file": "/dev/full"})
    with pytest.raises(UserError, match=r"cannot write .*train.npy: the disk is full"):
        pack(tmp_path / "files", tmp_path / "out", workers=1)
    monkeypatch.undo()
    assert pack(tmp_path / "files", tmp_path / "out", workers=1).images["train"] == 11


def test_a_decoding_process_that_dies_is_named_with_its_files(tmp_path, monkeypatch, small_blocks):
    tree(tmp_path / "files", 10)
    (tmp_path / "dies.py").write_text("import sys\nsys.stdin.readline()\nsys.exit(3)\n")
    monkeypatch.setattr(decode, "__file__", str(tmp_path / "dies.py"))
    with pytest.raises(UserError, match=r"a decoding process ended \(exit code 3\) between 'cat/000.png' and 'cat/"):
        pack(tmp_path / "files", tmp_path / "out", workers=2)


# --- packs that are damaged


def shorter(path):
    os.truncate(path, path.stat().st_size - 1)


def other_index(folder, **changes):
    index = json.loads((folder / "index.json").read_text())
    (folder / "index.json").write_text(json.dumps({**index, **changes}))


# what is done to a good pack, what the message must say
DAMAGE = [
    (lambda f: (f / "train.npy").unlink(), "is damaged ([Errno 2] No such file"),
    (lambda f: shorter(f / "train.npy"), "is damaged (mmap length is greater than file size)"),
    (lambda f: (f / "train.npy").write_bytes(b"\0" * 4000), "is damaged ("),
    (lambda f: shorter(f / "validation-labels.npy"), "is damaged ("),
    (lambda f: np.save(f / "train-labels.npy", np.zeros(3, np.int64)), "train.npy and its labels do not hold what index"),
    (lambda f: np.save(f / "train.npy", np.zeros((27, 6, 5, 1), np.uint8)), "do not hold what index.json says"),
    (lambda f: np.save(f / "train-labels.npy", np.full(27, 3)), "the label at row 0 is 3, but with 3 classes"),
    (lambda f: (f / "index.json").write_text("{"), "is damaged (index.json cannot be read"),
    (lambda f: (f / "index.json").write_text("[]"), "is damaged (index.json cannot be read"),
    (lambda f: other_index(f, format=2), "must be 1; pack the images again, received 2"),
    (lambda f: other_index(f, parts={}), "is damaged (index.json lacks 'train'"),
    (lambda f: other_index(f, shape=[6, 5]), "is damaged (index.json lacks"),
    (lambda f: (f / "index.json").unlink(), "no pack in "),
]  # fmt: skip


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A good pack."""
    folder = tmp_path_factory.mktemp("good")
    tree(folder / "files", 10)
    pack(folder / "files", folder / "pack", workers=1)
    return folder / "pack"


@pytest.mark.parametrize(("harm", "message"), DAMAGE, ids=[str(i) for i in range(len(DAMAGE))])
def test_a_damaged_pack_is_refused(good, tmp_path, harm, message):
    shutil.copytree(good, tmp_path / "out")
    harm(tmp_path / "out")
    with pytest.raises(UserError) as caught:
        load_packed(tmp_path / "out")
    assert message in str(caught.value)
    assert str(tmp_path / "out") in str(caught.value)


# --- larger than memory

TRAINS = """
import resource, sys
import torch
from torch import nn
torch.set_num_threads(1)
from talweg import Layout, Recipe, Task, Training, building
from talweg.data.pack import load_packed
from talweg.recipe import Samples

building.PREPARED_BYTES = 1 << 20
with open("/proc/self/status") as status:
    used = next(int(line.split()[1]) for line in status if line.startswith("VmData")) << 10
resource.setrlimit(resource.RLIMIT_DATA, (used + int(sys.argv[2]), resource.RLIM_INFINITY))
sets = load_packed(sys.argv[1])
model = lambda: nn.Sequential(nn.AvgPool2d(16), nn.Flatten(), nn.Linear(3 * 4 * 4, 2))
task = Task(name="big", model=model, train=sets.train, validation=sets.validation)
for augment in ((), ("flip",)):
    recipe = Recipe(batch=64, epochs=0.05, samples=Samples(augment=augment))
    for step in Training(task, recipe, Layout(device="cpu", threads=1, compile="off")):
        pass
    print("trained", step.index, step.loss)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs limits on memory")
def test_a_pack_larger_than_memory_can_be_trained_on(tmp_path):
    tree(tmp_path / "files", 2, ("a", "b"), shape=(64, 64, 3))
    pack(tmp_path / "files", tmp_path / "out", workers=1, validation=0.5)
    n = 12288  # made longer by hand: 151 MB of zeros that take no space on the disk
    with open(tmp_path / "out" / "train.npy", "r+b") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": (n, 64, 64, 3)}
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(128 + n * 64 * 64 * 3)
    np.save(tmp_path / "out" / "train-labels.npy", np.arange(n) % 2)
    facts = json.loads((tmp_path / "out" / "index.json").read_text())["parts"]
    other_index(tmp_path / "out", parts={**facts, "train": {**facts["train"], "images": n}})
    words = [sys.executable, "-c", TRAINS, str(tmp_path / "out"), str(100 << 20)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    ran = subprocess.run(words, env=environment, capture_output=True, text=True)
    assert ran.stdout.count("trained") == 2, ran.stderr
