"""Mixed samples and soft targets: mixup, cutmix, label smoothing.

The partner of a sample comes from the whole training set and is, like the mixing weight, a function of
(seed, epoch, sample index): a batch is mixed in the same way however it is split. Who feeds the training gathers the partners
as a second batch, augments it as the first (with the partners' indices), and calls a `Mixing`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from talweg.data.augment.noise import Box, inside, whole
from talweg.errors import require
from talweg.randomness import key, uniform, uniform_bits

_QUANTILES = 1 << 16


def partners(count: int, indices: Tensor, seed: int, epoch: int) -> Tensor:
    """The sample that each sample is mixed with: uniform over the training set, a function of (seed, epoch, sample).

    Formula: ⌊count·bits(seed, epoch, index)/2³¹⌋.

    Args:
        count: samples in the training set.
        indices: [N] places in the training set.

    Returns:
        [N] places, on the same device.

    Example:
        >>> indices = torch.arange(100)
        >>> whole = partners(50_000, indices, seed=0, epoch=1)
        >>> torch.equal(whole[7:9], partners(50_000, indices[7:9], seed=0, epoch=1))
        True
    """
    return (uniform_bits(key(seed, epoch, "partner"), indices) * count) >> 31


def beta_quantiles(alpha: float) -> Tensor:
    """65,536 equally likely values of the distribution Beta(α, α), ascending: one chosen at random is a draw from it.

    Formula: F⁻¹((k + ½)/65536). The density (x(1 - x))^(α-1) is infinite at 0 for α < 1; its integral over 0 … ½ is taken
    in u = x^p with p = min(α, 1), where it is ∫ x^(α-p)·(1 - x)^(α-1) du/p, and finite. The upper half mirrors the lower.

    Args:
        alpha: 0.01 to 100. 1 is uniform; small values mix little, large ones half and half.

    Returns:
        [65536] float64 on the CPU.

    Example:
        >>> draws = beta_quantiles(0.2)
        >>> round(draws.mean().item(), 4), round(draws.var().item(), 4)          # 1/2 and 1/(4(2α + 1))
        (0.5, 0.1786)
    """
    half = _QUANTILES // 2
    p = min(alpha, 1.0)
    u = torch.linspace(0, 1, 4 * half + 1, dtype=torch.float64) * 0.5**p
    x = u ** (1 / p)
    density = x ** (alpha - p) * (1 - x) ** (alpha - 1)
    area = torch.cat([u.new_zeros(1), (density[1:] + density[:-1]).cumsum(0)])
    wanted = (torch.arange(half, dtype=torch.float64) + 0.5) / half * area[-1]
    right = torch.searchsorted(area, wanted).clamp(min=1)
    share = (wanted - area[right - 1]) / (area[right] - area[right - 1])
    low = torch.lerp(u[right - 1], u[right], share) ** (1 / p)
    return torch.cat([low, 1 - low.flip(0)])


def mixup(x: Tensor, other: Tensor, weight: Tensor) -> Tensor:
    """Adds two images: λ·x + (1 - λ)·other.

    Args:
        x, other: [N, …], of one floating dtype, or uint8.
        weight: λ [N], of the result's dtype.

    Returns:
        [N, …] floats.

    Example:
        >>> mixup(torch.tensor([[8.0]]), torch.tensor([[0.0]]), torch.tensor([0.25]))
        tensor([[2.]])

    Source: H. Zhang, M. Cisse, Y. Dauphin, D. Lopez-Paz, "mixup: beyond empirical risk minimization", 2018.
    """
    weight = weight.view(-1, *[1] * (x.dim() - 1))
    return x * weight + other * (1 - weight)


def cutmix(x: Tensor, other: Tensor, box: Box) -> Tensor:
    """Puts a box of another image into each image.

    Args:
        x, other: [N, C, H, W].
        box: of each image (see `cutmix_box`).

    Returns:
        [N, C, H, W].

    Example:
        >>> box = Box(*(torch.tensor([edge]) for edge in (0, 1, 1, 3)))
        >>> cutmix(torch.zeros(1, 1, 2, 3), torch.ones(1, 1, 2, 3), box)[0, 0]
        tensor([[0., 1., 1.],
                [0., 0., 0.]])

    Source: S. Yun, D. Han, S. Oh, S. Chun, J. Choe, Y. Yoo, "CutMix: regularization strategy to train strong classifiers
    with localizable features", 2019.
    """
    rows, columns = inside(box, x.shape[2], x.shape[3])
    return torch.where(rows[:, None, :, None] & columns[:, None, None, :], other, x)


def cutmix_box(u: Tensor, weight: Tensor, h: int, w: int) -> tuple[Box, Tensor]:
    """A box of about 1 - λ of the image about a random pixel, cut off at the border, and the λ that is left after that.

    Formula: sides ⌊H·√(1 - λ)⌋ and ⌊W·√(1 - λ)⌋; λ' = 1 - area/(H·W).

    Args:
        u: [2, N] draws on [0, 1).
        weight: λ [N].

    Example:
        >>> box, left = cutmix_box(torch.tensor([[0.5], [0.0]]), torch.tensor([0.75]), 8, 8)
        >>> [edge.item() for edge in box], left                             # half of the box lay outside
        ([2, 6, 0, 2], tensor([0.8750]))
    """
    side = (1 - weight).sqrt()
    high, wide = (h * side).long(), (w * side).long()
    top, left = whole(u[0], h) - high // 2, whole(u[1], w) - wide // 2
    box = Box(top.clamp(min=0), (top + high).clamp(max=h), left.clamp(min=0), (left + wide).clamp(max=w))
    area = (box.bottom - box.top) * (box.right - box.left)
    return box, 1 - area.to(weight.dtype) / (h * w)


def soft_targets(y: Tensor, classes: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Class numbers [N] as probabilities [N, classes]: 1 for the class, 0 for the others.

    Example:
        >>> soft_targets(torch.tensor([2, 0]), 3)
        tensor([[0., 0., 1.],
                [1., 0., 0.]])
    """
    # Compared, not scattered or one_hot: both look at the values of y, and the host would wait for the device.
    return (y[:, None] == torch.arange(classes, device=y.device)).to(dtype)


def smooth(targets: Tensor, epsilon: float) -> Tensor:
    """Label smoothing: (1 - ε)·t + ε/K for probabilities t: [N, K].

    Example:
        >>> smooth(torch.tensor([[0.0, 1.0]]), 0.1)
        tensor([[0.0500, 0.9500]])

    Source: C. Szegedy, V. Vanhoucke, S. Ioffe, J. Shlens, Z. Wojna, "Rethinking the Inception architecture for computer
    vision", 2016, section 7.
    """
    return targets * (1 - epsilon) + epsilon / targets.shape[1]


@dataclass(frozen=True, kw_only=True)
class Mixing:
    """Mixes each sample with its partner by mixup or cutmix, and makes and smooths the targets.

    With both given, a sample is mixed by the one or the other with probability ½.

    Raises:
        UserError: if a setting is out of range or none has an effect.

    Example:
        >>> x, y = torch.ones(2, 1, 4, 4), torch.tensor([0, 1])
        >>> mixing = Mixing(mixup=1.0)
        >>> mixed, targets = mixing(x, y, 0 * x, 1 - y, torch.arange(2), seed=0, epoch=0, classes=2)
        >>> torch.equal(mixed[:, 0, 0, 0], targets[[0, 1], y])                        # both hold λ
        True
    """

    mixup: float = 0.0
    """α of the weight λ ~ Beta(α, α) for mixup: 0.2 is usual (0: off)"""
    cutmix: float = 0.0
    """α for cutmix: 1 is usual (0: off)"""
    smoothing: float = 0.0
    """ε of label smoothing: 0.1 is usual (0: off)"""
    _tables: dict[tuple[str, torch.device], Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in ("mixup", "cutmix"):
            value = getattr(self, name)
            require(value == 0 or 0.01 <= value <= 100, name, value, "0.01 to 100, or 0 for none")
        require(0 <= self.smoothing < 1, "label_smoothing", self.smoothing, "at least 0 and below 1")
        require(self.mixes or self.smoothing > 0, "mixing", self, "given a mixup, cutmix or smoothing above 0")

    @property
    def mixes(self) -> bool:
        """Whether partners are needed."""
        return self.mixup > 0 or self.cutmix > 0

    def __call__(
        self,
        x: Tensor,
        y: Tensor,
        other_x: Tensor,
        other_y: Tensor,
        indices: Tensor,
        seed: int,
        epoch: int,
        classes: int,
    ) -> tuple[Tensor, Tensor]:
        """The mixed samples and their soft targets.

        Args:
            x, other_x: [N, C, H, W] the samples and their partners (`partners`), augmented.
            y, other_y: [N] their classes.
            indices: [N] places of the samples (not the partners) in the training set.
            classes: number of classes.

        Returns:
            x' [N, C, H, W] and the targets [N, classes], float32 (float64 for float64 images).
        """
        dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
        targets, others = (soft_targets(labels, classes, dtype) for labels in (y, other_y))
        if self.mixes:
            u = uniform(key(seed, epoch, "mixing"), indices * 4 + torch.arange(4, device=x.device)[:, None])  # [4, N]
            x, weight = self._mixed(x, other_x, u, dtype)
            targets = mixup(targets, others, weight)
        return x, smooth(targets, self.smoothing) if self.smoothing else targets

    def _mixed(self, x: Tensor, other: Tensor, u: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """x' and the share [N] of each sample in it."""
        n, _, h, w = x.shape
        by_cutmix = u[3] < (0.5 if self.mixup else 1.0)
        if not self.cutmix:
            weight = self._draw("mixup", u[0], dtype)
            return mixup(x.to(dtype), other.to(dtype), weight), weight
        box, left = cutmix_box(u[1:3], self._draw("cutmix", u[0], dtype), h, w)
        pasted = cutmix(x, other, box)
        if not self.mixup:
            return pasted, left
        weight = self._draw("mixup", u[0], dtype)
        added = mixup(x.to(dtype), other.to(dtype), weight)
        return torch.where(by_cutmix.view(n, 1, 1, 1), pasted.to(dtype), added), torch.where(by_cutmix, left, weight)

    def _draw(self, name: str, u: Tensor, dtype: torch.dtype) -> Tensor:
        """λ [N]: the entry of the table of quantiles that u points at."""
        if (name, u.device) not in self._tables:
            self._tables[name, u.device] = beta_quantiles(getattr(self, name)).float().to(u.device)
        return self._tables[name, u.device][whole(u, _QUANTILES)].to(dtype)
