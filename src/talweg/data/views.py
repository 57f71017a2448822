"""Several views of each image at test time, whose predictions are averaged."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from talweg.errors import UserError, require


def ten_crops(x: Tensor, size: int) -> Tensor:
    """Five windows of each image, at its corners and its centre, and the same five of its mirror image.

    Formula: views[k] = x[:, :, i : i + size, j : j + size] with (i, j) = (0, 0), (0, W - size), (H - size, 0),
    (H - size, W - size) and ((H - size) / 2, (W - size) / 2), halves rounded to even; views[5 + k] is the same window of
    the images mirrored left to right. Pixels are copied, never computed.

    Args:
        x: [N, C, H, W] of any dtype, on any device.
        size: side of the windows in pixels.

    Returns:
        [10, N, C, size, size], each view in channels_last format.

    Raises:
        UserError: x is no batch of images, or a window does not fit into them.

    Example:
        >>> x = torch.arange(16).view(1, 1, 4, 4)
        >>> views = ten_crops(x, 3)
        >>> views[0, 0, 0]                       # the upper left window
        tensor([[ 0,  1,  2],
                [ 4,  5,  6],
                [ 8,  9, 10]])
        >>> views[5, 0, 0]                       # the upper left window of the mirror image
        tensor([[ 3,  2,  1],
                [ 7,  6,  5],
                [11, 10,  9]])

    Source: A. Krizhevsky, I. Sutskever, G. Hinton, "ImageNet classification with deep convolutional neural networks",
    2012, section 4.1.
    """
    n, c, h, w = _images(x)
    require(1 <= size <= min(h, w), "size", size, f"between 1 and the shorter side of the images ({h} × {w})")
    down, right = h - size, w - size
    corners = ((0, 0), (0, right), (down, 0), (down, right), (round(down / 2), round(right / 2)))
    views = x.new_empty(10, n, size, size, c)
    for half, images in enumerate((x, x.flip(3))):
        pixels = images.permute(0, 2, 3, 1)
        for k, (i, j) in enumerate(corners):
            views[5 * half + k] = pixels[:, i : i + size, j : j + size]
    return views.permute(0, 1, 4, 2, 3)


def rescaled(x: Tensor, side: int) -> Tensor:
    """The images with their shorter side at `side` pixels and their proportions kept, as floats.

    Formula: bilinear interpolation; where images shrink, its kernel widens with the factor (antialiasing).

    Args:
        x: [N, C, H, W] of any dtype, on any device.
        side: pixels of the shorter side.

    Returns:
        [N, C, H', W'], float64 for float64 and else float32; x itself where nothing changes.

    Raises:
        UserError: x is no batch of images, or side is below 1.

    Example:
        >>> rescaled(torch.tensor([[[[0.0, 0.0, 8.0, 8.0], [0.0, 0.0, 8.0, 8.0]]]]), 1)
        tensor([[[[1.1429, 6.8571]]]])
        >>> rescaled(torch.zeros(1, 3, 300, 200), 256).shape
        torch.Size([1, 3, 384, 256])
    """
    _, _, h, w = _images(x)
    require(side >= 1, "side", side, "at least 1 pixel")
    x = x if x.is_floating_point() else x.float()
    shorter = min(h, w)
    if shorter == side:
        return x
    size = (max(side, round(h * side / shorter)), max(side, round(w * side / shorter)))
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False, antialias=True)


def multi_scale(x: Tensor, size: int, sides: Sequence[int]) -> Iterator[Tensor]:
    """The ten crops of the images at each of several scales: 10·S views, made when they are asked for.

    Args:
        x: [N, C, H, W].
        size: side of the windows in pixels, the same at each scale: the size the model was trained for.
        sides: S lengths of the shorter side, each at least `size`.

    Yields:
        [N, C, size, size], ten for each of `sides`.

    Raises:
        UserError: no sides, or a window that does not fit.

    Example:
        >>> views = list(multi_scale(torch.zeros(2, 3, 40, 50), size=28, sides=(28, 32, 36)))
        >>> len(views), views[0].shape
        (30, torch.Size([2, 3, 28, 28]))

    Source: K. Simonyan, A. Zisserman, "Very deep convolutional networks for large-scale image recognition", 2015,
    section 3.2.
    """
    require(len(sides) > 0 and min(sides) >= size, "sides", tuple(sides), f"lengths of at least size={size}")
    for side in sides:
        yield from ten_crops(rescaled(x, side), size)


def averaged(module: Callable[[Tensor], Tensor], views: Iterable[Tensor]) -> Tensor:
    """The class probabilities of each image, averaged over its views.

    Formula: p = (1/V) Σ_v softmax(module(view_v)). Probabilities are averaged and not logits, so that one view of which
    the model is sure counts no more than any other. The views pass through the model one after the other: no more
    memory than for one of them.

    Args:
        module: images [N, C, H, W] → logits [N, classes]; in evaluation mode, under `torch.no_grad`.
        views: V batches [N, C, H, W] of the same images, such as `ten_crops(x, size)` or `multi_scale(...)`.

    Returns:
        [N, classes], each row sums to 1; float64 for float64 logits and else float32. Its logarithm may stand where
        logits are expected: cross entropy and accuracy then are those of the average.

    Raises:
        UserError: there is no view, or the outputs are not [N, classes].

    Example:
        >>> brightness = lambda x: torch.stack([x.mean((1, 2, 3)), -x.mean((1, 2, 3))], 1)
        >>> views = torch.tensor([2.0, 2.0, -2.0]).view(3, 1, 1, 1, 1)     # three views of one image
        >>> averaged(brightness, views)
        tensor([[0.6607, 0.3393]])

    Source: A. Krizhevsky, I. Sutskever, G. Hinton, "ImageNet classification with deep convolutional neural networks",
    2012, section 4.1.
    """
    total: Tensor | None = None
    count = 0
    for view in views:
        logits = module(view)
        if logits.dim() != 2:
            raise UserError(f"views are averaged over logits [N, classes], received {list(logits.shape)}")
        dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
        p = logits.softmax(1, dtype=dtype)
        total = p if total is None else total + p
        count += 1
    if total is None:
        raise UserError("there is no view to average over; give at least one")
    return total / count


class Viewed(nn.Module):
    """A model that looks at each image ten times, or ten times at each of several scales, in place of a model that looks once.

    It answers with the logarithm of the averaged probabilities (see `averaged`), which stands where the model's logits
    stood: loss and metrics need not know.

    Args:
        module: images [N, C, size, size] → logits [N, classes].
        size: side of the windows in pixels.
        sides: lengths of the shorter side, for several scales (see `multi_scale`); none: the images as they are.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 6 * 6, 5))
        >>> answers = Viewed(model, size=6)(torch.randn(4, 3, 8, 8))
        >>> answers.shape, bool(torch.allclose(answers.exp().sum(1), torch.ones(4)))
        (torch.Size([4, 5]), True)
    """

    def __init__(self, module: nn.Module, size: int, sides: Sequence[int] = ()) -> None:
        super().__init__()
        self.module, self.size, self.sides = module, size, tuple(sides)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] → [N, classes]."""
        views = multi_scale(x, self.size, self.sides) if self.sides else ten_crops(x, self.size)
        p = averaged(self.module, views)
        return p.clamp_min(torch.finfo(p.dtype).tiny).log()


def _images(x: Tensor) -> tuple[int, int, int, int]:
    if x.dim() != 4:
        raise UserError(f"views are taken of images [N, C, H, W], received a batch of shape {list(x.shape)}")
    n, c, h, w = x.shape
    return n, c, h, w
