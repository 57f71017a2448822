"""Random augmentation of a batch: Talweg beside kornia, torchvision and albumentations; and an epoch of CIFAR-10 through it.

    python benchmarks/augmentation.py [--quick] [--json] [--data PATH]

Two stacks, on random uint8 images, a fresh draw for every image, one thread, thread time (what the batch costs a core):

    basic   crop (zero padding of an eighth), flip, rotation by ±15°, colour jitter 0.4, 0.4, 0.4, 0.1
    full    the basic one, and shift by 0.1, scale 0.8 … 1.2, shear 10°, a lens, Gaussian noise 0.05, a hole of a quarter of
            the side (for the lens: torchvision has none, and gets its perspective of 0.2; kornia its fisheye)

Everybody begins with uint8 images in the layout that suits him best and ends with one float batch in torch's layout
channels_last (ours on 0 … 255, which the normaliser that follows takes, the others' on 0 … 1). Ours interpolates once; the
others once for each operation that moves pixels. torchvision draws once for a batch, so it works image by image: on float
tensors, to which the bound refers, and on Pillow images, shown as well. All run under the same allocator settings, those of
Talweg's training.

The epoch: samples a second of 50,000 images of 32 × 32 (CIFAR-10 as published or as pictures in class folders if --data
names them, else random ones: it makes no difference to the time) through Talweg's feed with the basic stack and
standardised, beside torchvision's transforms on Pillow images behind a DataLoader with 2 workers, batches of 256, both
feeding a model that does nothing; wall time. Ours stays on one thread.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from side_by_side import Report, Times, arguments, interleave
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from talweg.data import Arrays, Order, Standardize, augmentation, load_cifar10, load_images
from talweg.feed import Feed
from talweg.memory import keep_freed_memory

BASIC = ["crop", "flip", "rotate:15", "jitter:0.4,0.4,0.4,0.1"]
FULL = [*BASIC, "translate:0.1", "scale:0.8,1.2", "shear:10", "lens:0.2", "noise:0.05", "cutout:0.25"]
STACKS = {"basic": BASIC, "full": FULL}
SIZES = {32: 256, 224: 64}  # side of the images: images in a batch
SMALL = {"kornia": 0.25, "torchvision": 0.05, "albumentations": 0.15}
LARGE = {"kornia": 0.35, "torchvision": 0.4}
TARGETS = {("basic", 32): SMALL, ("full", 32): {"kornia": 0.3}, ("basic", 224): LARGE, ("full", 224): LARGE}
EPOCH = 0.1  # ten times the samples a second
LONG = 0.1  # seconds of thread time in which a contestant is timed at least
WORKERS, BATCH = 2, 256

Run = Callable[[], Any]


def talweg(specs: list[str], x: Tensor) -> Run:
    """Ours, a new epoch at each call; x: uint8 [N, 3, H, W] with its channels last."""
    augment = augmentation(specs)
    assert augment is not None
    indices, epoch = torch.arange(len(x)), iter(range(1 << 30))
    return lambda: augment(x, indices, 0, next(epoch))


def kornia(full: bool, x: Tensor) -> Run:
    """kornia: batched, a draw for each image; x: uint8 [N, 3, H, W], contiguous."""
    import kornia.augmentation as K

    h, w = x.shape[2:]
    stack = [
        K.RandomCrop((h, w), padding=h // 8),
        K.RandomHorizontalFlip(p=0.5),
        K.RandomRotation(15.0, p=1.0),
    ]
    if full:
        stack += [
            K.RandomAffine(0.0, translate=(0.1, 0.1), scale=(0.8, 1.2), shear=10.0, p=1.0),
            K.RandomFisheye(torch.tensor([-0.1, 0.1]), torch.tensor([-0.1, 0.1]), torch.tensor([0.9, 1.1]), p=1.0),
        ]
    stack.append(K.ColorJitter(0.4, 0.4, 0.4, 0.1, p=1.0))
    if full:
        stack += [
            K.RandomGaussianNoise(std=0.05, p=1.0),
            K.RandomErasing(scale=(1 / 16, 1 / 16), ratio=(1.0, 1.0), p=1.0),
        ]
    pipeline = torch.nn.Sequential(*stack)
    return lambda: pipeline(x.float() / 255).contiguous(memory_format=torch.channels_last)


def torchvision_stack(full: bool, side: int) -> tuple[Callable[[Any], Any], Callable[[Tensor], Tensor]]:
    """torchvision's transforms for an image (Pillow or float tensor), and those that want a tensor."""
    from torchvision.transforms import InterpolationMode, v2

    bilinear = InterpolationMode.BILINEAR
    stack: list[Any] = [
        v2.RandomCrop(side, padding=side // 8),
        v2.RandomHorizontalFlip(),
        v2.RandomRotation(15, bilinear),
    ]
    tail: list[Any] = [v2.Identity()]
    if full:
        stack += [
            v2.RandomAffine(0, translate=(0.1, 0.1), scale=(0.8, 1.2), shear=10, interpolation=bilinear),
            v2.RandomPerspective(0.2, p=1.0, interpolation=bilinear),
        ]
        tail = [v2.GaussianNoise(sigma=0.05), v2.RandomErasing(p=1.0, scale=(1 / 16, 1 / 16), ratio=(1.0, 1.0))]
    return v2.Compose([*stack, v2.ColorJitter(0.4, 0.4, 0.4, 0.1)]), v2.Compose(tail)


def torchvision_tensors(full: bool, x: Tensor) -> Run:
    """torchvision, image by image, on float tensors; x: uint8 [N, 3, H, W], contiguous."""
    transform, tail = torchvision_stack(full, x.shape[2])

    def run() -> Tensor:
        return torch.stack([tail(transform(image)) for image in x.float() / 255]).contiguous(
            memory_format=torch.channels_last
        )

    return run


def torchvision_pillow(full: bool, x: Tensor) -> Run:
    """torchvision, image by image, on Pillow images, which lie ready."""
    from PIL import Image

    images = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in x]
    transform, tail = torchvision_stack(full, x.shape[2])

    def run() -> Tensor:
        batch = np.stack([np.asarray(transform(image)) for image in images])
        floats = torch.from_numpy(batch).permute(0, 3, 1, 2).float() / 255
        if not full:
            return floats
        return torch.stack([tail(image) for image in floats.contiguous()]).contiguous(memory_format=torch.channels_last)

    return run


def albumentations(full: bool, x: Tensor) -> Run:
    """albumentations, image by image, on uint8 arrays."""
    import albumentations as A
    import cv2

    cv2.setNumThreads(0)
    images = list(x.permute(0, 2, 3, 1).contiguous().numpy())
    side = x.shape[2]
    padded = side + 2 * (side // 8)
    stack = [
        A.PadIfNeeded(padded, padded, border_mode=cv2.BORDER_CONSTANT, fill=0),
        A.RandomCrop(side, side),
        A.HorizontalFlip(p=0.5),
        A.Rotate(limit=15, border_mode=cv2.BORDER_CONSTANT, p=1.0),
    ]
    if full:
        stack += [
            A.Affine(translate_percent=(-0.1, 0.1), scale=(0.8, 1.2), shear={"x": (-10, 10), "y": 0}, p=1.0),
            A.OpticalDistortion(distort_limit=0.2, p=1.0),
        ]
    stack.append(A.ColorJitter((0.6, 1.4), (0.6, 1.4), (0.6, 1.4), (-0.1, 0.1), p=1.0))
    if full:
        stack += [
            A.GaussNoise(std_range=(0.05, 0.05), p=1.0),
            A.CoarseDropout((1, 1), (0.25, 0.25), (0.25, 0.25), p=1.0),
        ]
    transform = A.Compose(stack)

    def run() -> Tensor:
        batch = np.stack([transform(image=image)["image"] for image in images])
        return torch.from_numpy(batch).permute(0, 3, 1, 2).float() / 255

    return run


PEERS = {
    "kornia": kornia,
    "torchvision": torchvision_tensors,
    "torchvision on Pillow images": torchvision_pillow,
    "albumentations": albumentations,
}


def torchvision_operators() -> torch.library.Library:
    """Declares the two operators that a torchvision built for another kind of device asks for when imported."""
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library


def importable(report: Report) -> dict[str, Callable[[bool, Tensor], Run]]:
    """The peers that are there; the others are named in the report."""
    found = {}
    for name, make in PEERS.items():
        try:
            make(False, torch.zeros(1, 3, 16, 16, dtype=torch.uint8))()
            found[name] = make
        except (ImportError, RuntimeError) as error:
            report.skip(name, f"not installed ({str(error).splitlines()[0]})")
    return found


def sustained(run: Run) -> Callable[[], float]:
    """Seconds a batch when batches follow each other: mean over as many as fill 0.1 s, so that all are timed alike long."""

    def seconds() -> float:
        start, calls = time.thread_time(), 0
        while (elapsed := time.thread_time() - start) < LONG:
            run()
            calls += 1
        return elapsed / calls

    return seconds


def batches(report: Report, peers: dict[str, Callable[[bool, Tensor], Run]], quick: bool) -> None:
    """Both stacks at both sizes."""
    rounds = {32: 3 if quick else 15, 224: 1 if quick else 5}
    for side, count in SIZES.items():
        x = torch.randint(0, 256, (count, side, side, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
        planes = x.contiguous()
        for stack, specs in STACKS.items():
            contestants = {"talweg": talweg(specs, x)}
            contestants |= {name: make(stack == "full", planes) for name, make in peers.items()}
            times = interleave({name: sustained(run) for name, run in contestants.items()}, rounds[side])
            for name in peers:
                bound = TARGETS[stack, side].get(name)
                report.compare(f"{stack}, {side} px vs {name}", times, "talweg", name, bound)


class Pictures(Dataset[Any]):
    """CIFAR-10 as torchvision gives it: Pillow images, transformed one by one."""

    def __init__(self, x: np.ndarray, y: np.ndarray, mean: list[float], std: list[float]) -> None:
        from torchvision.transforms import v2

        self.x, self.y = x, y
        stack, _ = torchvision_stack(False, 32)
        self.transform = v2.Compose(
            [stack, v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std)]
        )

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        from PIL import Image

        return self.transform(Image.fromarray(self.x[index])), int(self.y[index])


def training_set(folder: str) -> Arrays:
    """CIFAR-10's training images, or random ones."""
    if not folder:
        g = torch.Generator().manual_seed(0)
        x = torch.randint(0, 256, (50_000, 32, 32, 3), dtype=torch.uint8, generator=g)
        return Arrays(x.permute(0, 3, 1, 2), torch.arange(50_000) % 10)
    path = Path(folder)
    source = (load_images(path) if (path / "train").is_dir() else load_cifar10(path)).train
    assert isinstance(source, Arrays)
    return source


def timed(epoch: Callable[[], Iterator[int]]) -> Callable[[], float]:
    """Seconds for a sample of an epoch, whose batches go to a model that does nothing."""

    def run() -> float:
        start = time.perf_counter()
        samples = sum(epoch())
        return (time.perf_counter() - start) / samples

    return run


def epochs(report: Report, source: Arrays, quick: bool) -> None:
    """A whole epoch through the feed, beside a part of it through a DataLoader."""
    normalizer = Standardize.fit(source)
    order = Order(len(source), BATCH, seed=0)
    feed = Feed(source, order, normalizer, augmentation(BASIC))
    numbers = iter(range(1 << 30))

    def ours() -> Iterator[int]:
        first = next(numbers) * order.steps_per_epoch
        for window, samples in feed.windows(first, first + order.steps_per_epoch):
            for x, *_ in window:
                assert len(x) == samples
            yield samples

    part = 4_000 if quick else 50_000
    x = source.x[:part].permute(0, 2, 3, 1).contiguous().numpy()
    mean, std = ((value / 255).tolist() for value in (normalizer.mean, normalizer.std))
    pictures = Pictures(x, source.y[:part].numpy(), mean, std)
    loader = DataLoader(pictures, BATCH, shuffle=True, num_workers=WORKERS, persistent_workers=True)

    def theirs() -> Iterator[int]:
        for batch, _ in loader:
            yield len(batch)

    times: Times = interleave({"talweg": timed(ours), "DataLoader": timed(theirs)}, 2 if quick else 5)
    report.compare("epoch, a sample vs DataLoader", times, "talweg", "DataLoader", EPOCH)


def main() -> None:
    """Measures, prints, and says whether the targets are met."""
    options = arguments("random augmentation of batches", data="CIFAR-10, as published or as class folders of images")
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    torch.manual_seed(0)
    warnings.filterwarnings("ignore")
    keep_freed_memory()
    library = torchvision_operators()
    report = Report("random augmentation: a batch of 256 × 32² or 64 × 224² images; an epoch of CIFAR-10, each sample")
    peers = importable(report)
    batches(report, peers, options.quick)
    if "torchvision on Pillow images" in peers:
        epochs(report, training_set(options.data), options.quick)
    report.note("a ratio below 1 is in our favour; rows without a target are shown for completeness")
    report.finish(options.json)
    del library


if __name__ == "__main__":
    main()
