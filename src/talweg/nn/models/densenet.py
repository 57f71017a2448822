"""Densely connected networks: each layer sees the outputs of all layers before it in its block."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from talweg.errors import require


class DenseLayer(nn.Module):
    """Norm, ReLU, 1×1 convolution to 4·growth channels, norm, ReLU, 3×3 convolution to `growth` new channels."""

    def __init__(self, c_in: int, growth: int) -> None:
        super().__init__()
        self.norm1, self.relu1 = nn.BatchNorm2d(c_in), nn.ReLU()
        self.conv1 = nn.Conv2d(c_in, 4 * growth, kernel_size=1, bias=False)
        self.norm2, self.relu2 = nn.BatchNorm2d(4 * growth), nn.ReLU()
        self.conv2 = nn.Conv2d(4 * growth, growth, kernel_size=3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, c_in, H, W] -> [B, c_in + growth, H, W]."""
        h = self.conv1(self.relu1(self.norm1(x)))
        h = self.conv2(self.relu2(self.norm2(h)))
        return torch.cat([x, h], dim=1)


class DenseNet(nn.Module):
    """Stem, dense blocks with halving transitions between them, norm, global average, linear head; see `densenet`."""

    def __init__(self, blocks: Sequence[int], growth: int, in_channels: int, classes: int, small_stem: bool) -> None:
        super().__init__()
        channels = 2 * growth
        if small_stem:
            self.stem = nn.Sequential(nn.Conv2d(in_channels, channels, kernel_size=3, padding=1, bias=False))
        else:
            self.stem = nn.Sequential(
                nn.Conv2d(in_channels, channels, kernel_size=7, stride=2, padding=3, bias=False),
                nn.BatchNorm2d(channels),
                nn.ReLU(),
                nn.MaxPool2d(kernel_size=3, stride=2, padding=1),
            )
        layers: list[nn.Module] = []
        for i, depth in enumerate(blocks):
            for _ in range(depth):
                layers.append(DenseLayer(channels, growth))
                channels += growth
            if i < len(blocks) - 1:  # a transition halves channels and image
                conv = nn.Conv2d(channels, channels // 2, kernel_size=1, bias=False)
                layers.append(nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(), conv, nn.AvgPool2d(2)))
                channels //= 2
        self.layers = nn.Sequential(*layers)
        self.norm, self.relu = nn.BatchNorm2d(channels), nn.ReLU()
        self.head = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, in_channels, H, W] -> logits: [B, classes]."""
        h = self.stem(x)  # [B, 2·growth, H/4, W/4], or [B, 2·growth, H, W] with the small stem
        h = self.layers(h)  # [B, channels, H/32, W/32], or H/4 with three blocks and the small stem
        h = self.relu(self.norm(h))
        return self.head(h.mean(dim=(2, 3)))


def densenet(
    blocks: Sequence[int],
    growth: int,
    in_channels: int = 3,
    classes: int = 10,
    *,
    small_stem: bool = True,
) -> DenseNet:
    """DenseNet-BC: bottleneck layers ("B"), and transitions that halve the channels ("C").

    Formula: xᵢ = Hᵢ([x₀, x₁, …, xᵢ₋₁]), the concatenation of all earlier outputs of the block; Hᵢ adds `growth`
    channels.

    Args:
        blocks: layers in each dense block.
        growth: channels that a layer adds.
        in_channels: image channels.
        classes: number of classes.
        small_stem: a 3×3 convolution for small images; otherwise a 7×7 one with pooling for images of 224×224 pixels.

    Returns:
        a module x: [B, in_channels, H, W] -> logits: [B, classes]; H and W of 4 and more with the small stem and three
        blocks, of 32 and more with the large stem and four.

    Example:
        >>> import torch
        >>> model = densenet(blocks=(2, 2), growth=4, in_channels=1)
        >>> model(torch.zeros(5, 1, 8, 8)).shape, model.head.in_features      # (8 + 2·4) / 2 + 2·4 channels at the end
        (torch.Size([5, 10]), 16)

    Source: G. Huang, Z. Liu, L. van der Maaten, K. Weinberger, "Densely connected convolutional networks", 2016.
    """
    return DenseNet(blocks, growth, in_channels, classes, small_stem)


def densenet_bc(depth: int = 100, growth: int = 12, in_channels: int = 3, classes: int = 10) -> DenseNet:
    """DenseNet-BC of `depth` layers for small images: three equal blocks, `densenet_bc(100, 12)` is BC-100-12.

    Args:
        depth: number of weighted layers, 6n + 4.
        growth: channels that a layer adds.
        in_channels: image channels.
        classes: number of classes.

    Raises:
        UserError: a depth that is not 6n + 4.

    Example:
        >>> import torch
        >>> from talweg.nn import count_parameters
        >>> with torch.device("meta"):                     # table 2 of the paper: 0.8 M
        ...     count_parameters(densenet_bc(100, 12))
        769162

    Source: G. Huang et al., 2016, section 4.
    """
    require(depth >= 10 and depth % 6 == 4, "depth", depth, "6n + 4 with n ≥ 1: 10, 16, 22, 40, 100, …")
    return densenet([(depth - 4) // 6] * 3, growth, in_channels, classes)


def densenet121(in_channels: int = 3, classes: int = 1000, *, growth: int = 32) -> DenseNet:
    """DenseNet-121 for images of about 224×224 pixels: blocks of 6, 12, 24 and 16 layers (Huang et al., table 1).

    Example:
        >>> import torch
        >>> from talweg.nn import count_parameters
        >>> with torch.device("meta"):
        ...     count_parameters(densenet121())
        7978856
    """
    return densenet((6, 12, 24, 16), growth, in_channels, classes, small_stem=False)
