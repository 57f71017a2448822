"""All augmentations of a recipe as one callable: one interpolation, then in-place passes over blocks that stay in cache."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Self

import torch
from torch import Tensor

import talweg.data.augment.colour as colour
import talweg.data.augment.geometry as geometry
import talweg.data.augment.policy as policy
import talweg.data.augment.sampling as sampling
from talweg.data.augment.crop_flip import CropFlip, require_images
from talweg.data.augment.moves import MOVES, centred
from talweg.data.augment.noise import normal_table
from talweg.data.augment.spec import Op, parse
from talweg.data.augment.stages import DRAWS, stages
from talweg.data.source import Source
from talweg.errors import UserError, require
from talweg.randomness import key, uniform

_BLOCK = 1 << 17  # pixels that one core of a CPU works on at once: three planes of them in float32 are 1.5 MB
_DRAWS = {"randaugment": policy.DRAWS, "lens": 1, **DRAWS, **{name: move.draws for name, move in MOVES.items()}}
_ANY_IMAGE = {"flip", "crop", "lens", "cutout", "erasing", *MOVES}  # any number of channels, any values
_COLOURS = {"grayscale", "pca_noise"}  # red, green and blue


class Augmentation:
    """Random changes to each image of a batch: a function of (seed, epoch, the sample's index) and of nothing else.

    The operations act in this order, whatever their order in a recipe: randaugment; flip, crop, resized_crop, scale,
    translate, rotate, stretch, shear, perspective, lens; brightness, contrast, saturation (none for the images that
    grayscale chose), hue; pca_noise; noise; cutout; erasing. All that moves pixels is composed, and each image is
    interpolated once; with flip and crop alone, pixels are only gathered.

    Args:
        ops: what to do (see `parse`).
        axes: [3, 3] the colour axes of the training set, for pca_noise; `fit` finds them.

    Example:
        >>> augment = Augmentation(parse(["rotate:30", "jitter:0.4"]))
        >>> x = torch.arange(12, dtype=torch.uint8).view(1, 3, 2, 2).repeat(3, 1, 1, 1)
        >>> batch = augment(x, torch.tensor([7, 8, 9]), seed=0, epoch=0)
        >>> alone = augment(x[:1], torch.tensor([8]), seed=0, epoch=0)
        >>> torch.equal(batch[1], alone[0]), batch.dtype                 # sample 8 does not see its neighbours
        (True, torch.float32)
    """

    def __init__(self, ops: Sequence[Op], axes: Tensor | None = None) -> None:
        self.ops, self.axes = tuple(ops), axes
        self._amounts = {op.name: op.amounts for op in ops}
        self._crop_flip = crop_flip(ops)
        self._warps = any(name in ("lens", "randaugment", *MOVES) for name in self._amounts)
        self._affine = "lens" not in self._amounts and "perspective" not in self._amounts
        self._draws = [(name, i) for name in self._amounts for i in range(_DRAWS.get(name, 0))]
        self._tables: dict[object, Tensor] = {}  # made once, on the device of the batches

    def __repr__(self) -> str:
        return f"Augmentation({', '.join(map(str, self.ops))})"

    def fit(self, source: Source) -> Self:
        """The same augmentation with what it must know of the training set; says early if it does not suit the images.

        Args:
            source: the training set.

        Raises:
            UserError: the samples are no images, their channels or dtype do not suit, or floats are not on 0 … 1.
        """
        x, _ = next(iter(source.batches([range(min(len(source), 64))])))
        self._check(x)
        if x.is_floating_point() and not _ANY_IMAGE.issuperset(self._amounts):
            low, high = x.min().item(), x.max().item()
            require(low >= 0 and high <= 1, "float images whose colours change", f"{low:g} … {high:g}", "on 0 … 1")
        if "pca_noise" not in self._amounts:
            return self
        return type(self)(self.ops, colour.colour_axes(source, _top(x)))

    def __call__(self, x: Tensor, indices: Tensor, seed: int, epoch: int) -> Tensor:
        """The augmented batch.

        Args:
            x: [N, C, H, W] as stored: uint8 on 0 … 255, or floats (on 0 … 1 where colours change), on any device.
            indices: [N] the samples' places in the data set, on the same device.
            seed: the run's seed.
            epoch: counted from 0.

        Returns:
            [N, C, H, W] floats on the same scale, in channels_last format: float64 for float64, else float32. With flip
            and crop alone, x's dtype.

        Raises:
            UserError: the batch is no images, or their channels or dtype do not suit; pca_noise was not fitted.
        """
        self._check(x)
        n, c, h, w = x.shape
        dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
        u = self._uniform(indices, seed, epoch)
        choice = policy.choose(u["randaugment"], *self._amounts["randaugment"]) if "randaugment" in u else None
        if self._warps:
            matrix, lens = self._sampling(u, choice, indices, seed, epoch, h, w)
            rays = sampling.rays(matrix, h, w, dtype, lens, affine=self._affine)
        elif self._crop_flip:
            x = self._crop_flip(x, indices, seed, epoch)
        changes = list(stages(u, self._amounts, self._fitted(x, dtype, seed), x.shape, dtype, _top(x)))
        if not self._warps and not changes:
            return x

        result = torch.empty((n, c, h, w), dtype=dtype, device=x.device, memory_format=torch.channels_last)
        block = max(1, _BLOCK * torch.get_num_threads() // (h * w)) if x.device.type == "cpu" else max(1, n)
        for part in (slice(start, start + block) for start in range(0, n, block)):
            y = x[part]
            if choice is not None:
                y = policy.toned(y, choice.part(part), dtype)
            if self._warps:
                y = sampling.warp(y.to(dtype), sampling.sampling_grid(*rays.part(part)))
            else:
                y = y.contiguous().to(dtype, copy=True)  # as planes, and not in the caller's memory
            if choice is not None:
                policy.coloured_(y, choice.part(part), _top(x))
            for change in changes:
                change(y, part)
            result[part] = y
        return result

    def _check(self, x: Tensor) -> None:
        """Raises a `UserError` where the batch does not suit the operations."""
        require_images(x)
        channels = f"{x.shape[1]} channels"
        for name, amounts in self._amounts.items():
            if name in _COLOURS or (name == "jitter" and any(amounts[2:])):
                hint = "; jitter:0.4,0.4 changes brightness and contrast only" if name == "jitter" else ""
                require(x.shape[1] == 3, name, channels, f"used with 3 channels (red, green, blue){hint}")
            elif name not in _ANY_IMAGE:
                require(x.shape[1] in (1, 3), name, channels, "used with 1 channel or 3")
        if "randaugment" in self._amounts:
            require(x.dtype == torch.uint8, "randaugment", x.dtype, "used with images stored as uint8")
            require(min(x.shape[2:]) >= 3, "randaugment", list(x.shape), "used with images of at least 3 × 3")

    def _uniform(self, indices: Tensor, seed: int, epoch: int) -> dict[str, Tensor]:
        """All draws of a batch at once, [k, N] by name. Each is named: an operation more leaves the others' alone."""
        device = indices.device
        offsets = self._kept(("offsets", device), lambda: _offsets(self._draws).to(device))
        kind = torch.float32 if device.type == "mps" else torch.float64
        u = uniform(key(seed, epoch, "augmentation"), indices + offsets).to(kind)
        return {name: u[at : at + _DRAWS[name]] for at, (name, i) in enumerate(self._draws) if i == 0}

    def _sampling(
        self,
        u: Mapping[str, Tensor],
        choice: policy.Choice | None,
        indices: Tensor,
        seed: int,
        epoch: int,
        h: int,
        w: int,
    ) -> tuple[Tensor, Tensor | None]:
        """Everything that moves pixels: sampling matrices [N, 3, 3], and the strengths [N] of the lens."""
        kind = next(iter(u.values())).dtype
        matrices = [policy.moved(choice, h, w)] if choice is not None else []
        if self._crop_flip:
            pad, dy, dx, mirrored = self._crop_flip.draw(h, w, indices, seed, epoch)
            matrices.append(geometry.reflection(*(value.to(kind) for value in (mirrored, pad - dx, pad - dy))))
        matrices += [move.matrix(u[name], self._amounts[name], h, w) for name, move in MOVES.items() if name in u]
        lens = centred(u["lens"][0], self._amounts["lens"][0]) if "lens" in u else None
        if not matrices:
            matrices.append(torch.eye(3, dtype=kind, device=indices.device).expand(len(indices), 3, 3))
        return geometry.compose(matrices), lens

    def _fitted(self, x: Tensor, dtype: torch.dtype, seed: int) -> dict[str, Tensor]:
        """The tables that operations need, on the device."""
        tables = {}
        if "pca_noise" in self._amounts:
            if self.axes is None:
                raise UserError("pca_noise needs the colours of the training set: use augmentation(…).fit(source)")
            axes = self.axes
            tables["axes"] = self._kept(("axes", dtype, x.device), lambda: axes.to(dtype).to(x.device))
        if "noise" in self._amounts:
            size, sigma = math.prod(x.shape[1:]), self._amounts["noise"][0] * _top(x)
            tables["normals"] = self._kept(
                ("normals", dtype, x.device, seed, size, sigma),
                lambda: (normal_table(seed, size) * sigma).to(dtype).to(x.device),
            )
        return tables

    def _kept(self, name: object, make: Callable[[], Tensor]) -> Tensor:
        if name not in self._tables:
            self._tables[name] = make()
        return self._tables[name]


def augmentation(specs: Sequence[str]) -> CropFlip | Augmentation | None:
    """The augmentation that a recipe's specifications ask for, as one callable (x, indices, seed, epoch) → x'.

    Args:
        specs: `name` or `name:amount[,amount…]` (see `parse` and `AUGMENTATIONS`).

    Returns:
        None for no specifications, a `CropFlip` for crop and flip alone, else an `Augmentation` (which wants to be fitted).

    Raises:
        UserError: if a name is unknown or given twice, or an amount is out of range.

    Example:
        >>> augmentation(["crop", "flip"])
        CropFlip(pad=None, flip=True)
        >>> augmentation(["flip"])
        CropFlip(pad=0, flip=True)
        >>> augmentation(["jitter:0.4", "crop:4", "rotate:15"])
        Augmentation(crop:4, rotate:15, jitter:0.4,0.4,0.4,0)
        >>> augmentation(["filp"])                                                     # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        talweg.errors.UserError: unknown augmentation 'filp': did you mean 'flip'? Known: ...
    """
    ops = parse(specs)
    if all(op.name in ("crop", "flip") for op in ops):
        return crop_flip(ops)
    return Augmentation(ops)


def crop_flip(ops: Sequence[Op]) -> CropFlip | None:
    """The crop and the flip among the operations, if there are any."""
    amounts = {op.name: op.amounts for op in ops}
    pad = 0 if "crop" not in amounts else int(amounts["crop"][0]) if amounts["crop"] else None
    return CropFlip(pad=pad, flip="flip" in amounts) if "crop" in amounts or "flip" in amounts else None


def _offsets(draws: Sequence[tuple[str, int]]) -> Tensor:
    """For each draw a number of its own [k, 1]: added to a sample's index, it leads to another place of the hash."""
    return torch.tensor([key("augmentation", name, i) for name, i in draws], dtype=torch.int64).view(-1, 1)


def _top(x: Tensor) -> float:
    """The value of white: 255 for stored bytes, 1 for floats."""
    return 1.0 if x.is_floating_point() else 255.0
