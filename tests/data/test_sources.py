"""What users bring: accepted and gathered without superfluous work, or refused with the row named."""

import warnings

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import Dataset, IterableDataset, TensorDataset

from talweg.data import Arrays, Order, Source, as_source, checks, ranges
from talweg.errors import UserError


class Pairs(Dataset):
    """Sample i is (a 2-vector of i, i mod 3); samples listed in `bad` misbehave."""

    classes = ("a", "b", "c")

    def __init__(self, n=20, bad=()):
        self.n, self.bad = n, dict(bad)

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        return self.bad[i](i) if i in self.bad else (torch.full((2,), float(i)), i % 3)


class Ops(TorchDispatchMode):
    """Records the names of the operations that are run."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func.__name__.split(".")[0])
        return func(*args, **(kwargs or {}))


def images(n=20, c=3, dtype=torch.uint8):
    g = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, c, 6, 5), dtype=torch.uint8, generator=g).to(dtype)


X, Y = torch.arange(40.0).view(20, 2), torch.arange(20)

# name, what a user brings, the features and targets that must come out
ACCEPTED = [
    ("tensors", (X, Y), X, Y),
    ("list", [X, Y], X, Y),
    ("numpy float64 stays float64", (X.double().numpy(), Y.numpy()), X.double(), Y),
    ("float16", (X.half(), Y), X.half(), Y),
    ("small integers become int64 labels", (X, Y.to(torch.int8)), X, Y),
    ("regression targets keep their dtype", (X, X.double()), X, X.double()),
    ("uint8 masks become int64", (X, torch.ones(20, 3, dtype=torch.uint8)), X, torch.ones(20, 3, dtype=torch.int64)),
    ("big-endian numpy", (X.numpy().astype(">f4"), Y.numpy()), X, Y),
    ("reversed numpy", (X.numpy()[::-1], Y.numpy()), X.flip(0), Y),
    ("strided tensor", (torch.arange(80.0).view(20, 4)[:, ::2], Y), torch.arange(80.0).view(20, 4)[:, ::2], Y),
    ("uint8 images", (images(), Y), images(), Y),
    ("float images", (images(dtype=torch.float64), Y), images(dtype=torch.float64), Y),
    ("numpy images", (images().numpy(), Y.numpy()), images(), Y),
    ("tokens", (Y.view(20, 1).int(), Y), Y.view(20, 1).int(), Y),
    ("compact tokens", Arrays(Y.view(20, 1).to(torch.uint8), Y, tokens=True), Y.view(20, 1), Y),
    ("needing a gradient", (X.clone().requires_grad_(), Y), X, Y),
    ("TensorDataset", TensorDataset(X, Y), X, Y),
    ("Dataset", Pairs(), torch.arange(20.0).view(20, 1).expand(20, 2), Y % 3),
]


@pytest.mark.parametrize(("data", "x", "y"), [row[1:] for row in ACCEPTED], ids=[row[0] for row in ACCEPTED])
def test_every_kind_of_data_gives_the_samples_asked_for(data, x, y):
    source = as_source(data, "train")
    assert isinstance(source, Source)
    assert len(source) == 20
    chunks = [torch.tensor([3, 0, 19, 3]), torch.tensor([7]), *ranges(20, 9), range(1, 20, 3)]
    batches = list(source.batches(iter(chunks)))
    assert len(batches) == len(chunks)
    for chunk, (xb, yb) in zip(chunks, batches, strict=True):
        index = torch.as_tensor(chunk)
        assert xb.dtype == x.dtype
        assert yb.dtype == y.dtype
        assert torch.equal(xb, x[index])
        assert torch.equal(yb, y[index])
        assert not xb.requires_grad
        if xb.dim() == 4 and getattr(chunk, "step", 1) == 1:
            assert xb.is_contiguous(memory_format=torch.channels_last)


def no_sample(i):
    raise OSError("image file is truncated\n(3 bytes not processed)")


def rows(*values):
    return torch.tensor(values).view(len(values), -1)


class NoLength(Dataset):
    def __getitem__(self, i):
        return 0.0, 0


class Endless(IterableDataset):
    def __iter__(self):
        return iter([(0.0, 0)])


# what a user brings, how the message begins, what it must also say
REFUSED = [
    ((X, Y[:7]), "train: x has 20 samples but y has 7", "one target for each"),
    ((X[:0], Y[:0]), "train: the data is empty", "at least one"),
    ((torch.zeros(3, 0), Y[:3]), "train: the data is empty", "[3, 0]"),
    ((rows(0.0, 1.0, float("nan")), Y[:3]), "train: x is nan at row 2, position (0,)", "remove or repair"),
    ((rows(float("-inf"), 1.0), Y[:2]), "train: x is -inf at row 0", "remove or repair"),
    (
        (images(4, dtype=torch.float32).index_fill(3, torch.tensor(2), float("nan")), Y[:4]),
        "train: x is nan at row 0",
        "",
    ),
    ((X[:3], torch.tensor([0.0, float("nan"), 1.0])), "train: y is nan at row 1;", "remove or repair"),
    ((X > 3, Y), "train: x has dtype bool", "use float32/float64, uint8"),
    ((X.to(torch.complex64), Y), "train: x has dtype complex64", "use float32"),
    ((X, Y > 3), "train: y has dtype bool", "int64 for class labels"),
    ((X.to_sparse(), Y), "train: x has dtype sparse_coo", "use float32"),
    ((np.array([["a"], ["b"]]), np.array([0, 1])), "train: x has dtype <U1", "convert it to numbers"),
    ((np.zeros(2), np.array(["cat", "dog"], dtype=object)), "train: y has dtype object", "convert it to numbers"),
    ((torch.tensor(1.0), Y), "train: x is a single number", "count the samples"),
    ("digits", "train: received str", "give a pair (x, y) of tensors"),
    (X, "train: received Tensor", "give a pair"),
    ((X, Y, Y), "train: received tuple of 3: (Tensor, Tensor, Tensor)", "give a pair"),
    ((X.tolist(), Y.tolist()), "train: received tuple of 2: (list, list)", "give a pair"),
    ({"x": X}, "train: received dict", "give a pair"),
    (NoLength(), "train: received NoLength", "map-style Dataset"),
    (Endless(), "train: an IterableDataset has no sample indices", "give a pair"),
    (Pairs(0), "train: the dataset is empty", "at least one"),
    (
        Pairs(bad={0: no_sample}),
        "train: sample 0 could not be read (OSError: image file is truncated (3 bytes",
        "repair",
    ),
    (Pairs(bad={0: lambda i: {"x": 1}}), "train: sample 0 must be a pair (x, y), received dict", ""),
    (
        Pairs(bad={0: lambda i: (1, 2, 3)}),
        "train: sample 0 must be a pair (x, y), received tuple of 3: (int, int, int)",
        "",
    ),
    (Pairs(bad={0: lambda i: (X, "cat")}), "train: sample 0 must be two arrays or numbers", "str"),
    (Pairs(bad={0: lambda i: (object(), 1)}), "train: samples 0, … cannot be stacked", "object"),
]


@pytest.mark.parametrize(("data", "start", "contains"), REFUSED, ids=[row[1][7:40] for row in REFUSED])
def test_bad_data_is_refused_in_one_line(data, start, contains):
    with pytest.raises(UserError) as caught:
        as_source(data, "train")
    message = str(caught.value)
    assert message.startswith(start)
    assert contains in message
    assert "\n" not in message


def test_a_bad_row_is_found_in_any_block_and_looked_for_only_once(monkeypatch):
    monkeypatch.setattr(checks, "_BLOCK", 8)
    x = torch.zeros(100, 3)
    x[77, 2] = float("inf")
    with pytest.raises(UserError, match=r"x is inf at row 77, position \(2,\)"):
        as_source((x, torch.zeros(100)), "train")
    data = Arrays(torch.zeros(100, 3), torch.zeros(100))
    with Ops() as ops:
        as_source(data, "train")
        once = len(ops.names)
        as_source(data, "again")
    assert once > 10
    assert len(ops.names) == once


def test_workers_for_arrays_have_no_effect_and_say_so():
    with pytest.raises(UserError, match="workers=2 has no effect on data in memory"):
        as_source((X, Y), "train", workers=2)
    with pytest.raises(UserError, match="workers must be 0 or a number of processes, received -1"):
        as_source(Pairs(), "train", workers=-1)


@pytest.mark.parametrize(
    ("x", "expected"),
    [(X, ["index_select", "index_select"]), (images(), ["index_select", "index_select", "permute"])],
)
def test_a_batch_is_two_gathers_and_nothing_else(x, expected):
    data = Arrays(x, Y)
    chunks = list(Order(20, 8, seed=0).chunks(0, 3))
    with Ops() as ops:
        list(data.batches(chunks))
    assert ops.names == expected * 3


def test_memory_is_shared_where_it_can_be():
    array = np.zeros((6, 4), np.float32)
    data = Arrays(array, np.zeros(6))
    assert data.x.data_ptr() == array.ctypes.data
    x, _ = next(data.batches([range(2, 5)]))
    assert x.data_ptr() == array[2:].ctypes.data  # a slice, not a copy
    last = images().to(memory_format=torch.channels_last)
    assert Arrays(last, Y).x.data_ptr() == last.data_ptr()


@pytest.mark.parametrize("form", ["features", "NCHW", "NHWC"])
def test_memory_mapped_arrays_stay_on_disk(tmp_path, form):
    shape = (30, 5) if form == "features" else (30, 3, 4, 2) if form == "NCHW" else (30, 4, 2, 3)
    values = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    np.save(tmp_path / "x.npy", values)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    seen = mapped.transpose(0, 3, 1, 2) if form == "NHWC" else mapped
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = as_source((seen, np.arange(30)), "train")
    assert data.x.data_ptr() == mapped.ctypes.data
    index = torch.tensor([29, 3, 3])
    for chunk in (index, range(4, 9)):
        x, y = next(data.batches([chunk]))
        assert np.array_equal(x.numpy(), seen[chunk.numpy() if isinstance(chunk, torch.Tensor) else chunk])
        assert torch.equal(y, torch.as_tensor(chunk))
        assert x.dim() == 2 or x.is_contiguous(memory_format=torch.channels_last)


def test_classes_default_to_none():
    assert as_source((X, Y), "train").classes == ()


def test_subset_and_repr_and_size():
    data = Arrays(images(), Y, classes=[str(i) for i in range(20)])
    part = data.subset(torch.tensor([5, 2]))
    assert torch.equal(part.x, images()[[5, 2]])
    assert part.y.tolist() == [5, 2]
    assert part.classes == data.classes
    assert repr(part) == "Arrays(2 samples of uint8 [3, 6, 5] on cpu)"
    assert data.nbytes == 20 * 90 + 20 * 8
