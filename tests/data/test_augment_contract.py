"""What every augmentation keeps: one row for each specification, the same contract for all."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from talweg.data import AUGMENTATIONS, Arrays, augmentation
from talweg.errors import UserError

N, H, W = 37, 13, 18
G = torch.Generator().manual_seed(0)
IMAGES = torch.randint(0, 256, (N, 3, H, W), dtype=torch.uint8, generator=G)
SET = Arrays(torch.randint(0, 256, (200, 3, H, W), dtype=torch.uint8, generator=G), torch.zeros(200))
INDICES = torch.randperm(10_000, generator=G)[:N]
ROWS = [
    *([name] for name in AUGMENTATIONS),
    ["crop:3"],
    ["jitter:0.4,0.4"],
    ["jitter:0,0,0,0.5"],
    ["jitter:0.4", "grayscale:0.5"],
    ["randaugment:14,30"],
    ["crop", "flip", "jitter"],
    ["crop", "flip", "rotate:15", "jitter:0.4,0.4,0.4,0.1"],
    ["crop", "flip", "rotate", "translate", "scale", "shear", "lens", "jitter", "noise", "cutout"],
    list(AUGMENTATIONS),
]
GATHERED = {"crop", "flip", "crop:3"}


def made(specs):
    augment = augmentation(specs)
    return augment.fit(SET) if hasattr(augment, "fit") else augment


contract = pytest.mark.parametrize("specs", ROWS, ids=" ".join)


@contract
def test_the_batch_split_does_not_matter_to_the_last_bit(specs):
    augment = made(specs)
    whole = augment(IMAGES, INDICES, 0, 2)
    for sizes in ([1] * N, [7, 9, 21], [N - 1, 1]):
        parts = [augment(x, i, 0, 2) for x, i in zip(IMAGES.split(sizes), INDICES.split(sizes), strict=True)]
        assert torch.equal(whole, torch.cat(parts))
    shuffle = torch.randperm(N, generator=torch.Generator().manual_seed(2))
    assert torch.equal(whole[shuffle], augment(IMAGES[shuffle], INDICES[shuffle], 0, 2))


@contract
def test_the_randomness_is_that_of_seed_epoch_and_sample(specs):
    augment = made(specs)
    first = augment(IMAGES, INDICES, 0, 0)
    torch.manual_seed(1)
    assert torch.equal(first, made(specs)(IMAGES, INDICES, 0, 0))
    others = [(INDICES, 1, 0), (INDICES, 0, 1), (INDICES + 10_000, 0, 0)]
    for other in others:
        assert not torch.equal(first, augment(IMAGES, *other))


@contract
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_shape_dtype_layout_and_range(specs, layout):
    x = IMAGES.contiguous(memory_format=layout)
    before = x.clone()
    out = made(specs)(x, INDICES, 0, 0)
    assert torch.equal(x, before)
    assert out.shape == x.shape
    assert out.dtype == (torch.uint8 if GATHERED.issuperset(specs) else torch.float32)
    assert out.is_contiguous(memory_format=torch.channels_last)
    assert out.min() >= 0
    assert out.max() <= 255.001  # the weights of an interpolation add up to 1 within a rounding
    assert out.float().std() > 20
    assert torch.equal(out, made(specs)(IMAGES, INDICES, 0, 0))


@contract
def test_floats_are_the_same_images_on_another_scale(specs):
    if "randaugment" in " ".join(specs):
        with pytest.raises(UserError, match="randaugment must be used with images stored as uint8"):
            made(specs)(IMAGES.float() / 255, INDICES, 0, 0)
        return
    augment, stored = made(specs), made(specs)(IMAGES, INDICES, 0, 0).double() / 255
    for dtype in (torch.float32, torch.float64):
        x = IMAGES.to(dtype) / 255
        before = x.clone()
        out = augment(x, INDICES, 0, 0)
        assert torch.equal(x, before)
        assert out.dtype == dtype
        assert (out - stored).abs().max() < 1e-4


@contract
def test_an_empty_batch(specs):
    assert made(specs)(IMAGES[:0], INDICES[:0], 0, 0).shape == (0, 3, H, W)


class NoSync(TorchDispatchMode):
    """Fails at operations that make the host wait for a device."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.__name__.split(".")[0]
        waits = ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal", "bincount", "unique")
        assert name not in waits, name
        return func(*args, **(kwargs or {}))


@contract
def test_the_host_never_waits(specs):
    augment = made(specs)
    augment(IMAGES, INDICES, 0, 0)  # tables are made once
    with NoSync():
        augment(IMAGES, INDICES, 0, 0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@contract
def test_cuda(specs):
    augment = made(specs)
    x, i = IMAGES.cuda(), INDICES.cuda()
    out = augment(x, i, 0, 0)
    assert (out.cpu().double() - augment(IMAGES, INDICES, 0, 0).double()).abs().max() < 0.05
    torch.cuda.set_sync_debug_mode("error")
    try:
        again = augment(x, i, 0, 0)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(out, again)
    for sizes in ([1] * N, [7, 9, 21]):
        assert torch.equal(
            out, torch.cat([augment(*part, 0, 0) for part in zip(x.split(sizes), i.split(sizes), strict=True)])
        )


@pytest.mark.parametrize(("channels", "specs"), [(3, ["rotate", "jitter", "noise"]), (1, ["lens", "jitter:0.4,0.4"])])
def test_large_images_in_several_blocks_and_threads(channels, specs):
    x = torch.randint(0, 256, (5, channels, 211, 190), dtype=torch.uint8, generator=G)
    augment = augmentation(specs)
    threads = torch.get_num_threads()
    try:
        outs = []
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            outs.append(augment(x, torch.arange(5), 0, 0))
            outs.append(torch.cat([augment(x[i : i + 1], torch.tensor([i]), 0, 0) for i in range(5)]))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(outs[0], out) for out in outs[1:])


def test_one_operation_more_leaves_the_draws_of_the_others_alone():
    turned = augmentation(["rotate"])(IMAGES, INDICES, 0, 0)
    noisy = augmentation(["rotate", "cutout", "grayscale:0.01"])(IMAGES, INDICES, 0, 0)
    same = (turned == noisy).flatten(1).double().mean(1)
    assert same.median() > 0.5  # all but the hole


def test_images_of_one_channel():
    grey = IMAGES[:, :1]
    for specs in (["crop", "flip"], ["rotate", "jitter:0.4,0.4"], ["noise", "cutout", "erasing"], ["randaugment"]):
        assert augmentation(specs)(grey, INDICES, 0, 0).shape == grey.shape


FLOATS = Arrays(torch.randn(5, 3, 8, 8), torch.zeros(5))
BAD = [
    (lambda: made(["jitter"])(IMAGES[:, :1], INDICES, 0, 0), "jitter must be used with 3 channels (red, green, blue)"),
    (lambda: made(["grayscale"])(IMAGES[:, :2], INDICES, 0, 0), "grayscale must be used with 3 channels"),
    (lambda: made(["noise"])(IMAGES[:, :2], INDICES, 0, 0), "noise must be used with 1 channel or 3, received '2"),
    (lambda: augmentation(["rotate"])(IMAGES[0], INDICES, 0, 0), "augmentation needs images [N, C, H, W], received"),
    (lambda: augmentation(["pca_noise"])(IMAGES, INDICES, 0, 0), "pca_noise needs the colours of the training set"),
    (lambda: augmentation(["jitter"]).fit(FLOATS), "float images whose colours change must be on 0 … 1, received"),
    (lambda: augmentation(["rotate", "crop:7"])(IMAGES, INDICES, 0, 0), "pad must be below half the image (13 × 18)"),
    (
        lambda: augmentation(["randaugment"])(IMAGES[..., :2], INDICES, 0, 0),
        "randaugment must be used with images of at",
    ),
]


@pytest.mark.parametrize(("call", "message"), BAD, ids=[row[1] for row in BAD])
def test_bad_batches(call, message):
    with pytest.raises(UserError) as caught:
        call()
    assert str(caught.value).startswith(message)


SPECS = [
    (["rotat:15"], "unknown augmentation 'rotat': did you mean 'rotate'? Known: "),
    (["rotate:fifteen"], "rotate must be DEGREES of at most 180, such as rotate:15, received 'rotate:fifteen'"),
    (["rotate:"], "rotate must be DEGREES"),
    (["rotate:0"], "rotate must be DEGREES"),
    (["rotate:200"], "rotate must be DEGREES"),
    (["rotate:1,2"], "rotate must be DEGREES"),
    (["rotate:nan"], "rotate must be DEGREES"),
    (["scale:1.2,0.8"], "scale must be least and largest FACTOR"),
    (["scale:1,1"], "scale must be least and largest FACTOR"),
    (["resized_crop:0,1"], "resized_crop must be least and largest part of the AREA"),
    (["jitter:0,0,0,0"], "jitter must be BRIGHTNESS,CONTRAST,SATURATION"),
    (["jitter:0.1,0.1,0.1,0.6"], "jitter must be BRIGHTNESS,CONTRAST,SATURATION"),
    (["randaugment:2"], "randaugment must be OPERATIONS of 1 to 14"),
    (["randaugment:1.5,9"], "randaugment must be OPERATIONS of 1 to 14"),
    (["flip:0.5"], "flip must be no amount"),
    (["crop:1.5"], "crop must be whole PIXELS"),
    (["rotate", "rotate:5"], "augment must be a list without repetitions"),
    ([15], "augment must be a list of words"),
]


@pytest.mark.parametrize(("specs", "message"), SPECS, ids=[str(row[0]) for row in SPECS])
def test_bad_specifications(specs, message):
    with pytest.raises(UserError) as caught:
        augmentation(specs)
    assert str(caught.value).startswith(message)


def test_a_name_alone_has_its_usual_amounts_and_the_order_does_not_matter():
    for name, kind in AUGMENTATIONS.items():
        assert kind.allowed(kind.usual), name
    a, b = augmentation(["jitter:0.4", "rotate"]), augmentation(["rotate:15", "jitter:0.4,0.4,0.4,0"])
    assert repr(a) == repr(b) == "Augmentation(rotate:15, jitter:0.4,0.4,0.4,0)"
