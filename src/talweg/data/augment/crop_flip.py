"""Random crop and flip of a batch of images as one gather; randomness by (seed, epoch, sample index)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from talweg.errors import UserError, require
from talweg.randomness import key, uniform_bits


@dataclass(frozen=True, kw_only=True)
class CropFlip:
    """Pads each image with zeros, cuts a window of the original size at a random place, and mirrors half of them.

    Formula: out[n, :, i, j] = padded[n, :, i + dy, j' + dx] with dy, dx uniform on 0 … 2·pad and j' = j, or its mirror
    image W - 1 - j for one half of the samples. The shifts and the flip of a sample are a function of
    (seed, epoch, its index in the data set): the same in any batch, on any device.

    The padding is 0 in the domain in which images are *stored* (black, for uint8), before normalisation, as is usual
    for CIFAR: after standardising, the border has the value -mean/std and not 0.

    Raises:
        UserError: if pad is negative or not below half the image, nothing is to be done, or the batch is no images.

    Example:
        >>> x = torch.arange(1, 26, dtype=torch.uint8).view(1, 1, 5, 5)
        >>> CropFlip(pad=1)(x, torch.tensor([1]), seed=0, epoch=0)[0, 0]      # shifted up, mirrored
        tensor([[10,  9,  8,  7,  6],
                [15, 14, 13, 12, 11],
                [20, 19, 18, 17, 16],
                [25, 24, 23, 22, 21],
                [ 0,  0,  0,  0,  0]], dtype=torch.uint8)

    Source: K. He, X. Zhang, S. Ren, J. Sun, "Deep residual learning for image recognition", 2016, section 4.2.
    """

    pad: int | None = None
    """Pixels of padding on each side; none: an eighth of the shorter side (4 for 32 × 32)."""
    flip: bool = True
    """Mirror one half of the images left to right."""

    def __post_init__(self) -> None:
        require(self.pad is None or self.pad >= 0, "pad", self.pad, "0 or more pixels")
        require(self.pad != 0 or self.flip, "flip", self.flip, "true when pad is 0, else nothing is augmented")

    def __call__(self, x: Tensor, indices: Tensor, seed: int, epoch: int) -> Tensor:
        """The augmented batch.

        Args:
            x: [N, C, H, W] of any dtype, on any device.
            indices: [N] the samples' places in the data set, on the same device.
            seed: the run's seed.
            epoch: counted from 0.

        Returns:
            [N, C, H, W] of x's dtype, in channels_last format.
        """
        require_images(x)
        n, c, h, w = x.shape
        pad, dy, dx, mirrored = self.draw(h, w, indices, seed, epoch)
        if n == 0:
            return x
        high, wide = h + 2 * pad, w + 2 * pad

        # All padded pixels in memory order: [the images, their mirror images], each [N, high, wide, C].
        canvas = x.new_zeros(1 + self.flip, n, high, wide, c)
        inside = canvas[:, :, pad : pad + h, pad : pad + w]
        pixels = x.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1)
        inside[0] = pixels
        if self.flip:
            inside[1] = pixels.flip(2)

        image = torch.arange(n, device=x.device)
        if self.flip:
            image = image + mirrored * n
        corner = (image * high + dy) * wide + dx  # [N] the pixel where each window begins
        starts = corner[:, None] + torch.arange(
            0, h * wide, wide, device=x.device
        )  # [N, H] and where each of its rows does

        # Every run of W pixels, as overlapping rows [.., W·C] of the same memory: a window is H of them.
        runs = canvas.view(-1).unfold(0, w * c, c)
        return runs.index_select(0, starts.view(-1)).view(n, h, w, c).permute(0, 3, 1, 2)

    def draw(self, h: int, w: int, indices: Tensor, seed: int, epoch: int) -> tuple[int, Tensor, Tensor, Tensor]:
        """The padding in pixels, and for each sample dy and dx on 0 … 2·pad and whether it is mirrored (0 or 1): [N]."""
        pad = min(h, w) // 8 if self.pad is None else self.pad
        require(2 * pad < min(h, w), "pad", pad, f"below half the image ({h} × {w})")
        require(pad > 0 or self.flip, "pad", pad, f"given for images of {h} × {w}, an eighth of which is no pixel")
        # One draw for a sample: its top bit flips, the two groups of 15 bits below it shift. A shift's probability is
        # then off by less than 2⁻¹⁵, and "flip" alone flips the samples that "crop" and "flip" together do.
        bits = uniform_bits(key(seed, epoch, "crop and flip"), indices)
        dy = ((bits & 0x7FFF) * (2 * pad + 1)) >> 15
        dx = ((bits >> 15 & 0x7FFF) * (2 * pad + 1)) >> 15
        return pad, dy, dx, (bits >> 30) * self.flip


def require_images(x: Tensor) -> None:
    """Raises a `UserError` unless x is a batch of images [N, C, H, W]."""
    if x.dim() != 4:
        raise UserError(f"augmentation needs images [N, C, H, W], received a batch of shape {list(x.shape)}")
