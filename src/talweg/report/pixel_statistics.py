"""Mean, deviation, range and histogram of each channel of a batch of images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from talweg.errors import UserError

_BARS = 64  # most bars of a histogram


class Channel(NamedTuple):
    """What the pixels of one channel are like."""

    mean: float
    std: float
    min: float
    max: float
    counts: np.ndarray
    """[B] pixels in each bar of the histogram"""
    edges: np.ndarray
    """[B + 1] where the bars begin and end"""
    levels: int
    """whole numbers from min to max; 0: the values are no whole numbers"""


def pixel_statistics(x: Tensor, levels: Sequence[int] = ()) -> list[Channel]:
    """The statistics of each channel, in float64.

    The bars of the histogram are as wide as a whole number of grey levels: with any other width some bars would hold
    more levels than others, and the picture would show teeth that are not in the data.

    Args:
        x: [N, C, H, W] of any dtype.
        levels: `levels` of each channel before it was normalised, where x is normalised.

    Raises:
        UserError: x is no batch of images, or holds a NaN or an infinity.

    Example:
        >>> channel = pixel_statistics(torch.tensor([[[[0, 1], [1, 2]]]], dtype=torch.uint8))[0]
        >>> channel.mean, channel.max, channel.counts.tolist(), channel.edges.tolist()
        (1.0, 2.0, [1, 2, 1], [-0.5, 0.5, 1.5, 2.5])
    """
    if x.dim() != 4 or x.numel() == 0:
        raise UserError(f"statistics are taken of images [N, C, H, W], received shape {list(x.shape)}")
    found = []
    for c in range(x.shape[1]):
        values = x[:, c].reshape(-1).double()
        std, mean = torch.std_mean(values, correction=0)
        low, high = (float(v) for v in values.aminmax())
        if not np.isfinite([low, high]).all():
            raise UserError(f"channel {c} of the images holds a NaN or an infinity; remove or repair these samples")
        count = levels[c] if levels else 0 if x.is_floating_point() else int(high - low) + 1
        edges = _edges(low, high, count)
        counts = np.histogram(values.numpy(), edges)[0]
        found.append(Channel(float(mean), float(std), low, high, counts, edges, count))
    return found


def _edges(low: float, high: float, levels: int) -> np.ndarray:
    """Edges of at most `_BARS` bars of equal width over [low, high]."""
    if high <= low:
        return np.array([low - 0.5, low + 0.5])
    if levels < 2:
        return np.linspace(low, high, _BARS + 1)
    unit = (high - low) / (levels - 1)
    width = -(-levels // _BARS)  # levels in a bar
    bars = -(-levels // width)
    return low + unit * (width * np.arange(bars + 1) - 0.5)
