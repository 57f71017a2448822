"""Crop and flip: right pixels, the same for a sample whatever the batch, never a word with the host."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from talweg.data import CropFlip, augmentation
from talweg.errors import UserError
from talweg.randomness import key, uniform_bits

G = torch.Generator().manual_seed(0)
COLOUR = torch.randint(0, 256, (40, 3, 12, 9), dtype=torch.uint8, generator=G)
ROWS = [
    CropFlip(),
    CropFlip(pad=2),
    CropFlip(pad=3, flip=False),
    CropFlip(pad=0),
]


def one_by_one(augment, x, indices, seed, epoch):
    """The same by the definition, image by image."""
    pad = min(x.shape[2:]) // 8 if augment.pad is None else augment.pad
    bits = uniform_bits(key(seed, epoch, "crop and flip"), indices).tolist()
    out = []
    for image, draw in zip(x, bits, strict=True):
        image = image.flip(2) if augment.flip and draw >> 30 else image
        dy, dx = (((draw >> by) % 2**15) * (2 * pad + 1) // 2**15 for by in (0, 15))
        out.append(F.pad(image, (pad,) * 4)[:, dy : dy + x.shape[2], dx : dx + x.shape[3]])
    return torch.stack(out)


@pytest.mark.parametrize("augment", ROWS)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_each_pixel_by_the_definition(augment, channels, dtype, layout):
    x = COLOUR[:, :channels].to(dtype).contiguous(memory_format=layout)
    indices = torch.randperm(1000, generator=torch.Generator().manual_seed(1))[:40]
    before = x.clone()
    out = augment(x, indices, 3, 5)
    assert torch.equal(out, one_by_one(augment, x, indices, 3, 5))
    assert out.dtype == dtype
    assert out.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(x, before)


@pytest.mark.parametrize("augment", ROWS)
def test_the_batch_split_does_not_matter(augment):
    indices = torch.arange(100, 140)
    whole = augment(COLOUR, indices, 0, 2)
    parts = [augment(x, i, 0, 2) for x, i in zip(COLOUR.split([7, 9, 24]), indices.split([7, 9, 24]), strict=True)]
    assert torch.equal(whole, torch.cat(parts))
    shuffle = torch.randperm(40, generator=torch.Generator().manual_seed(2))
    assert torch.equal(whole[shuffle], augment(COLOUR[shuffle], indices[shuffle], 0, 2))


@pytest.mark.parametrize("augment", ROWS)
def test_the_randomness_is_that_of_seed_epoch_and_sample(augment):
    indices = torch.arange(40)
    first = augment(COLOUR, indices, 0, 0)
    torch.manual_seed(1)
    assert torch.equal(first, augment(COLOUR, indices, 0, 0))
    for other in (augment(COLOUR, indices, 1, 0), augment(COLOUR, indices, 0, 1), augment(COLOUR, indices + 40, 0, 0)):
        assert not torch.equal(first, other)


def test_shifts_are_uniform_and_half_are_flipped():
    n, pad = 20000, 2
    x = torch.zeros(n, 1, 9, 9, dtype=torch.uint8)
    x[:, :, 4, 4] = 1  # a dot in the middle shows the shift
    dots = CropFlip(pad=pad, flip=False)(x, torch.arange(n), 0, 0).nonzero()[:, 2:]
    counts = torch.bincount((dots[:, 0] - 2) * 5 + dots[:, 1] - 2, minlength=25).double()
    chi = ((counts - n / 25).square() / (n / 25)).sum()
    assert len(counts) == 25
    assert chi < 52  # χ² with 24 degrees of freedom: exceeded once in 1000 times
    x[:, :, 4, 0] = 1
    flipped = CropFlip(pad=0)(x, torch.arange(n), 0, 0)[:, 0, 4, 8].double().mean()
    assert abs(flipped - 0.5) < 4 * 0.5 / n**0.5


def test_default_padding_is_an_eighth():
    x = torch.ones(500, 1, 32, 40, dtype=torch.uint8)
    out = CropFlip(flip=False)(x, torch.arange(500), 0, 0)
    assert torch.equal(out, CropFlip(pad=4, flip=False)(x, torch.arange(500), 0, 0))
    assert (out[:, 0, :, 20] == 0).sum(1).max() == 4  # black, at most 4 rows of it


class NoSync(TorchDispatchMode):
    """Fails at operations that make the host wait for a device."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.__name__.split(".")[0]
        assert name not in ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal"), name
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("augment", ROWS)
def test_the_host_never_waits(augment):
    with NoSync():
        augment(COLOUR, torch.arange(40), 0, 0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("augment", ROWS)
def test_cuda_gives_the_same_pixels(augment):
    indices = torch.arange(40)
    x, i = COLOUR.cuda(), indices.cuda()
    out = augment(x, i, 0, 0)
    assert torch.equal(out.cpu(), augment(COLOUR, indices, 0, 0))
    torch.cuda.set_sync_debug_mode("error")
    try:
        augment(x, i, 0, 1)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_names_combine_into_one_operation():
    assert augmentation([]) is None
    assert augmentation(["crop"]) == CropFlip(pad=None, flip=False)
    assert augmentation(("flip", "crop")) == CropFlip(pad=None, flip=True)
    for name in ("crop", "flip"):
        assert not torch.equal(augmentation([name])(COLOUR, torch.arange(40), 0, 0), COLOUR)


BAD = [
    (lambda: CropFlip(pad=-1), "pad must be 0 or more pixels, received -1"),
    (lambda: CropFlip(pad=0, flip=False), "flip must be true when pad is 0"),
    (lambda: CropFlip(pad=5)(COLOUR, torch.arange(40), 0, 0), "pad must be below half the image (12 × 9), received 5"),
    (lambda: CropFlip(flip=False)(COLOUR[:, :, :7], torch.arange(40), 0, 0), "pad must be given for images of 7 × 9"),
    (lambda: CropFlip()(COLOUR[:, 0], torch.arange(40), 0, 0), "augmentation needs images [N, C, H, W], received"),
    (lambda: augmentation(["flop"]), "unknown augmentation 'flop': did you mean 'flip'?"),
    (lambda: augmentation(["flip", "flip"]), "augment must be a list without repetitions"),
]


@pytest.mark.parametrize(("call", "message"), BAD, ids=[row[1] for row in BAD])
def test_bad_settings(call, message):
    with pytest.raises(UserError) as caught:
        call()
    assert str(caught.value).startswith(message)
