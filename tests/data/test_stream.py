"""Placement: resident or streamed, a device sees the batches that the CPU sees."""

import pytest
import torch
from torch.utils.data import Dataset

from talweg.data import Arrays, Loader, Order, Stream, as_source, place

X, Y = torch.arange(40.0).view(20, 2), torch.arange(20)
IMAGES = torch.randint(0, 256, (20, 3, 6, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


class Numbers(Dataset):
    def __len__(self):
        return 20

    def __getitem__(self, i):
        return X[i], i


def test_on_the_cpu_nothing_moves():
    for source in (Arrays(X, Y), Loader(Numbers())):
        assert place(source, "cpu") is source
    assert Arrays(X, Y).fits("cpu")


def test_arrays_that_do_not_fit_are_streamed():
    stream = place(Arrays(X, Y, ("a",)), "meta")  # a device of which nothing is known
    assert isinstance(stream, Stream)
    assert (len(stream), stream.classes, stream.chunk_device.type) == (20, ("a",), "cpu")
    x, y = next(stream.batches([torch.tensor([4, 2])]))
    assert (x.device.type, x.shape, y.device.type) == ("meta", (2, 2), "meta")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("data", [(X, Y), (IMAGES, Y), Numbers()], ids=["features", "images", "dataset"])
@pytest.mark.parametrize("resident", [True, False])
def test_cuda_batches_equal_those_of_the_cpu(data, resident):
    source = as_source(data, "train")
    placed = place(source, "cuda") if resident else Stream(source, "cuda")
    order = Order(20, 6, seed=0)
    expected = list(source.batches(order.chunks(0, 9)))
    received = placed.batches(order.chunks(0, 9, placed.chunk_device))
    for (x, y), (xd, yd) in zip(expected, received, strict=True):
        assert xd.is_cuda
        assert torch.equal(xd.cpu(), x)
        assert torch.equal(yd.cpu(), y)
        assert xd.stride() == x.stride()
