"""The built-in sets: what ships with the package, and files read from a path."""

import gzip
import hashlib
import os
import struct
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch

from talweg.data import VOCABULARY, load_cifar10, load_digits, load_mnist, load_text
from talweg.data.text import standard_library
from talweg.errors import UserError

RNG = np.random.default_rng(0)

# --- digits


def test_digits_are_the_published_ones():
    train, validation = load_digits()
    assert (len(train), len(validation)) == (1437, 360)
    assert train.x.shape[1:] == (1, 8, 8)
    assert train.x.dtype == torch.uint8
    assert train.classes == tuple("0123456789")
    both = torch.cat([train.y, validation.y])
    assert torch.bincount(both).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert torch.bincount(validation.y).tolist() == [36, 37, 35, 37, 36, 36, 36, 36, 35, 36]


def test_the_digits_file_is_the_one_described_beside_it():
    folder = files("talweg.data")
    with (folder / "digits.npz").open("rb") as file:
        stored = dict(np.load(file))
    content = stored["images"].tobytes() + stored["labels"].tobytes()
    train, validation = load_digits(flat=True)
    ours = sorted(bytes(x.tolist()) for part in (train, validation) for x in part.x)
    assert ours == sorted(bytes(x) for x in stored["images"].reshape(1797, 64).tolist())
    description = (folder / "digits.txt").read_text()
    assert hashlib.sha256(content).hexdigest() in description
    assert "CC BY 4.0" in description


def test_the_split_of_digits_is_fixed_for_good():
    flat = load_digits(flat=True)
    assert flat.train.x.shape == (1437, 64)
    assert hashlib.sha256(flat.validation.x.numpy().tobytes()).hexdigest()[:16] == "874b680b90243b85"
    assert torch.equal(flat.train.x, load_digits().train.x.flatten(1))


# --- text


def test_the_standard_library_is_a_fixed_corpus():
    stream = standard_library(300_000)
    assert len(stream) == 300_000
    assert stream == standard_library(300_000)
    first = os.path.join(os.path.dirname(os.__file__), "__future__.py")
    with open(first, "rb") as file:
        assert stream.startswith(file.read())
    assert stream.decode("utf-8", errors="replace").count("def ") > 300


def test_text_windows_predict_the_next_byte_and_do_not_overlap(tmp_path):
    content = bytes(RNG.integers(0, 256, 1003, dtype=np.uint8))
    (tmp_path / "a.txt").write_bytes(content)
    train, validation = load_text(tmp_path / "a.txt", length=10, validation=0.2)
    seen = [b"", b""]
    for part, data in enumerate((train, validation)):
        x, y = next(data.batches([range(len(data))]))
        assert x.dtype == y.dtype == torch.int64
        assert x.max() < VOCABULARY
        assert torch.equal(x.flatten()[1:], y.flatten()[:-1])
        seen[part] = bytes(x.flatten().tolist()) + bytes(y.flatten()[-1:].tolist())
        gathered = next(data.batches([torch.tensor([2, 0])]))
        assert torch.equal(gathered[0], x[[2, 0]])
        assert torch.equal(gathered[1], y[[2, 0]])
    cut = 1003 - 201
    assert seen[0] == content[:cut][: len(seen[0])]
    assert seen[1] == content[cut:][: len(seen[1])]
    assert (len(train), len(validation)) == (80, 20)
    assert train.nbytes < 2 * 1003  # stored as bytes


def test_text_limit_and_default():
    train, validation = load_text(length=100, limit=50_000, validation=0.1)
    assert (len(train), len(validation)) == (449, 49)


def test_a_text_stays_on_disk(tmp_path):
    path = tmp_path / "large.txt"
    with open(path, "wb") as file:
        file.truncate(1 << 32)  # 4 GB that take no space on the disk
        file.seek((1 << 32) - 10)
        file.write(b"0123456789")
    train, validation = load_text(path, length=1024, validation=0.5)
    assert len(train) == len(validation) == (1 << 21) - 1
    x, _ = next(validation.batches([torch.tensor([len(validation) - 1])]))
    assert not x.any()
    train, validation = load_text(path, length=1, limit=1000)
    assert (len(train), len(validation)) == (899, 99)


@pytest.mark.parametrize(
    ("content", "settings", "message"),
    [
        (b"", {}, "the text has 0 bytes, too few for windows of 128"),
        (b"short", {}, "the text has 5 bytes, too few for windows of 128 with 10% held out; shorten length or give a"),
        (None, {}, "cannot read the text"),
        (b"x" * 999, {"length": 0}, "length must be at least 1 byte, received 0"),
        (b"x" * 999, {"validation": 1.0}, "validation must be above 0 and below 1"),
        (b"x" * 999, {"limit": 0}, "limit must be at least 1 byte, received 0"),
    ],
)
def test_bad_texts(tmp_path, content, settings, message):
    if content is not None:
        (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(UserError) as caught:
        load_text(tmp_path / "a.txt", **settings)
    assert str(caught.value).startswith(message)


# --- MNIST


def idx(array, code=0x08):
    return struct.pack(">BBBB", 0, 0, code, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def mnist(folder, suffix="", sub="", n=(30, 10)):
    folder = folder / sub
    folder.mkdir(parents=True, exist_ok=True)
    parts = []
    for prefix, count in zip(("train", "t10k"), n, strict=True):
        x = RNG.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        y = RNG.integers(0, 10, count, dtype=np.uint8)
        for name, array in (("images-idx3", x), ("labels-idx1", y)):
            content = idx(array)
            (folder / f"{prefix}-{name}-ubyte{suffix}").write_bytes(gzip.compress(content) if suffix else content)
        parts.append((x, y))
    return parts


@pytest.mark.parametrize(("suffix", "sub"), [("", ""), (".gz", ""), (".gz", "MNIST/raw"), ("", "raw")])
def test_mnist_files(tmp_path, suffix, sub):
    parts = mnist(tmp_path, suffix, sub)
    for data, (x, y) in zip(load_mnist(tmp_path), parts, strict=True):
        assert np.array_equal(data.x[:, 0].numpy(), x)
        assert np.array_equal(data.y.numpy(), y)


def test_mnist_accepts_the_unpacked_spelling(tmp_path):
    mnist(tmp_path)
    for path in list(tmp_path.iterdir()):
        path.rename(path.with_name(path.name.replace("-idx", ".idx")))
    assert len(load_mnist(tmp_path).train) == 30


LABELS = "train-labels-idx1-ubyte"
BAD_MNIST = [
    (LABELS, None, "no train-labels-idx1-ubyte in", "put the four MNIST files there (train-images-idx3-ubyte"),
    (LABELS, idx(np.zeros(31, np.uint8)), "'", "has 30 images but train-labels-idx1-ubyte has 31 labels"),
    (LABELS, idx(np.full(30, 10, np.uint8)), "train: the label at row 0 is 10, but with 10 classes", ""),
    (LABELS, idx(np.zeros(30, np.uint8))[:-1], "'", "holds 29 bytes of data, its header says 30; fetch the file again"),
    (LABELS, b"PK\3\4", "'", "is not an idx file: it begins with 50 4b 03 04"),
    (LABELS, b"", "'", "is not an idx file"),
    (LABELS, gzip.compress(idx(np.zeros(30, np.uint8)))[:-9], "cannot read '", "fetch the file again"),
    (LABELS, idx(np.zeros((30, 1), np.uint8)), "'", "holds torch.uint8 of 2 dimensions, not uint8 of 1"),
    (LABELS, idx(np.zeros(30, ">f4"), 0x0D), "'", "holds torch.float32 of 1 dimensions"),
]


@pytest.mark.parametrize(("name", "content", "start", "contains"), BAD_MNIST, ids=[r[2] + r[3][:30] for r in BAD_MNIST])
def test_bad_mnist_files(tmp_path, name, content, start, contains):
    mnist(tmp_path)
    (tmp_path / name).unlink() if content is None else (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as caught:
        load_mnist(tmp_path)
    assert str(caught.value).startswith(start)
    assert contains in str(caught.value)


# --- CIFAR-10


def string(value):
    """A string as Python 2 pickled it."""
    return b"U" + bytes([len(value)]) + value if len(value) < 256 else b"T" + struct.pack("<I", len(value)) + value


def integer(value):
    return b"K" + bytes([value]) if value < 256 else b"M" + struct.pack("<H", value)


def pickled(x, y, order=b"\x89", extra=b""):
    """A batch file as published: a dictionary pickled by Python 2, protocol 2, with a numpy array inside."""
    call, obj = b"cnumpy.core.multiarray\n_reconstruct\n", b"cnumpy\nndarray\n"
    array = call + b"q\x08" + obj + b"q\x09" + integer(0) + b"\x85q\x0a" + string(b"b") + b"\x87q\x0bRq\x0c("
    array += integer(1) + integer(len(x)) + integer(3072) + b"\x86"
    array += b"cnumpy\ndtype\nq\x0d" + string(b"u1") + integer(0) + integer(1) + b"\x87q\x0eRq\x0f("
    array += integer(3) + string(b"|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xff" + integer(0) + b"tq\x10b"
    array += order + string(x.tobytes()) + b"q\x11tq\x12b"
    labels = b"]q\x05(" + b"".join(map(integer, y.tolist())) + b"e"
    names = b"]q\x13(" + b"".join(string(b"some_name_%d.png" % i) for i in range(len(x))) + b"e"
    head = b"\x80\x02}q\x01(" + string(b"batch_label") + b"q\x02" + string(b"training batch 1 of 5") + b"q\x03"
    body = string(b"labels") + b"q\x04" + labels + string(b"data") + b"q\x06" + array
    return head + extra + body + string(b"filenames") + names + b"u."


def write_python(path, x, y):
    path.write_bytes(pickled(x, y))


def write_binary(path, x, y):
    path.with_name(path.name + ".bin").write_bytes(np.concatenate([y[:, None], x], 1).astype(np.uint8).tobytes())


FORMS = {"python": (write_python, "cifar-10-batches-py"), "binary": (write_binary, "cifar-10-batches-bin")}


def cifar(folder, write):
    folder.mkdir(exist_ok=True)
    names = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
    parts = [(RNG.integers(0, 256, (7, 3072), dtype=np.uint8), RNG.integers(0, 10, 7)) for _ in names]
    for name, (x, y) in zip(names, parts, strict=True):
        write(folder / name, x, y)
    return parts


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("inside", [True, False])
def test_cifar10_files(tmp_path, form, inside):
    write, name = FORMS[form]
    parts = cifar(tmp_path / name if inside else tmp_path, write)
    train, validation = load_cifar10(tmp_path)
    assert np.array_equal(train.x.flatten(1).numpy(), np.concatenate([x for x, _ in parts[:5]]))
    assert np.array_equal(train.y.numpy(), np.concatenate([y for _, y in parts[:5]]))
    assert np.array_equal(validation.x[:, 2, 1, 5].numpy(), parts[5][0][:, 2 * 1024 + 37])  # plane, row, column
    assert train.classes[3] == "cat"
    assert next(train.batches([range(2)]))[0].is_contiguous(memory_format=torch.channels_last)


X, Y = np.zeros((7, 3072), np.uint8), np.arange(7)
CALL = b"cos\nsystem\n(" + string(b"touch HERE") + b"tR"
BAD_CIFAR = [
    ("python", pickled(X, Y, extra=CALL), "is not a published CIFAR-10 file: it holds 'os system', refused"),
    ("python", pickled(X, Y, extra=b"c__builtin__\neval\n"), "it holds '__builtin__ eval', refused"),
    ("python", pickled(X, Y, extra=b"\x8c\x02os\x8c\x06system\x93"), "refused"),
    ("python", pickled(X, Y, order=b"\x88"), "it holds 'NEWTRUE', refused"),
    ("python", pickled(X, Y)[:-30], "is damaged"),
    ("python", pickled(X, Y)[:9000], "is damaged"),
    ("python", b"", "is damaged"),
    ("python", b"<html>404</html>", "data_batch_2'"),
    ("python", pickled(X, Y[:6]), "holds 6 labels and 21504 pixel bytes, not 3072 for each label; fetch"),
    ("python", pickled(X, Y + 4), "train: the label at row 13 is 10, but with 10 classes"),
    ("binary", bytes(3073 * 7 - 1), "has 21510 bytes, not whole records of 3073; fetch the file again"),
    ("binary", b"", "has 0 bytes, not whole records"),
    ("binary", b"\x0b" + bytes(3072), "train: the label at row 7 is 11, but with 10 classes"),
    ("binary", None, "data_batch_2.bin is missing in"),
    ("python", None, "data_batch_2 is missing in"),
]


@pytest.mark.parametrize(("form", "content", "message"), BAD_CIFAR, ids=[f"{r[0]}: {r[2][:30]}" for r in BAD_CIFAR])
def test_bad_cifar10_files(tmp_path, monkeypatch, form, content, message):
    monkeypatch.chdir(tmp_path)
    cifar(tmp_path, FORMS[form][0])
    path = tmp_path / ("data_batch_2.bin" if form == "binary" else "data_batch_2")
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        load_cifar10(tmp_path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "HERE").exists()


@pytest.mark.parametrize("form", FORMS)
def test_a_file_that_may_not_be_read_is_named(tmp_path, monkeypatch, form):
    cifar(tmp_path, FORMS[form][0])

    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(UserError, match=r"cannot read '.*data_batch_1.*' \(Permission denied\)"):
        load_cifar10(tmp_path)


@pytest.mark.parametrize("load", [load_mnist, load_cifar10])
def test_a_missing_folder_says_where_to_put_what(tmp_path, load):
    with pytest.raises(UserError, match=r"no .* in '.*/away'; put .* there"):
        load(tmp_path / "away")
