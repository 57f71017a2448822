"""Residual networks for images of about 224×224 pixels, and the blocks that the small ones share.

A block with a skip connection has the property `last_norm`: the normalisation that ends its residual branch.
`talweg.initialize.zero_gamma` looks for that name; any model may follow the convention.
"""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

Shortcut = Literal["projection", "padding"]


def conv_norm(c_in: int, c_out: int, kernel: int, stride: int = 1) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    """A convolution that keeps the image size (divided by the stride), and the batch norm that replaces its bias."""
    conv = nn.Conv2d(c_in, c_out, kernel, stride=stride, padding=kernel // 2, bias=False)
    return conv, nn.BatchNorm2d(c_out)


class PaddingShortcut(nn.Module):
    """The parameter-free shortcut between stages: every second pixel, and zeros in the new channels (option A)."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.stride, self.new_channels = stride, c_out - c_in

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, c_in, H, W] -> [B, c_out, H/stride, W/stride]."""
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.new_channels))


def make_shortcut(c_in: int, c_out: int, stride: int, kind: Shortcut) -> nn.Module:
    """The identity where the shapes agree, else a 1×1 projection (option B) or zero padding (option A)."""
    if c_in == c_out and stride == 1:
        return nn.Identity()
    if kind == "padding":
        return PaddingShortcut(c_in, c_out, stride)
    return nn.Sequential(*conv_norm(c_in, c_out, 1, stride))


class BasicBlock(nn.Module):
    """Two 3×3 convolutions: y = relu(x + F(x)), or y = relu(F(x)) without the skip connection."""

    expansion = 1

    def __init__(
        self, c_in: int, width: int, stride: int, *, skip: bool = True, shortcut: Shortcut = "projection"
    ) -> None:
        super().__init__()
        self.conv1, self.norm1 = conv_norm(c_in, width, 3, stride)
        self.relu1 = nn.ReLU()
        self.conv2, self.norm2 = conv_norm(width, width, 3)
        self.shortcut = make_shortcut(c_in, width, stride, shortcut) if skip else None
        self.relu2 = nn.ReLU()

    @property
    def last_norm(self) -> nn.Module | None:
        """The norm that ends the residual branch; None without a skip, where a zero γ would cut the network."""
        return None if self.shortcut is None else self.norm2

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, c_in, H, W] -> [B, width, H/stride, W/stride]."""
        h = self.relu1(self.norm1(self.conv1(x)))
        h = self.norm2(self.conv2(h))
        if self.shortcut is not None:
            h = h + self.shortcut(x)
        return self.relu2(h)


class Bottleneck(nn.Module):
    """1×1, 3×3, 1×1 convolutions: the 3×3 one works on a quarter of the channels and carries the stride."""

    expansion = 4

    def __init__(self, c_in: int, width: int, stride: int) -> None:
        super().__init__()
        c_out = width * self.expansion
        self.conv1, self.norm1 = conv_norm(c_in, width, 1)
        self.relu1 = nn.ReLU()
        self.conv2, self.norm2 = conv_norm(width, width, 3, stride)
        self.relu2 = nn.ReLU()
        self.conv3, self.norm3 = conv_norm(width, c_out, 1)
        self.shortcut = make_shortcut(c_in, c_out, stride, "projection")
        self.relu3 = nn.ReLU()

    @property
    def last_norm(self) -> nn.Module:
        """The norm that ends the residual branch."""
        return self.norm3

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, c_in, H, W] -> [B, 4·width, H/stride, W/stride]."""
        h = self.relu1(self.norm1(self.conv1(x)))
        h = self.relu2(self.norm2(self.conv2(h)))
        h = self.norm3(self.conv3(h))
        return self.relu3(h + self.shortcut(x))


class ResNet(nn.Module):
    """Stem, four stages of residual blocks, global average, linear head; see `resnet18`, `resnet34`, `resnet50`."""

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        blocks: tuple[int, int, int, int],
        in_channels: int,
        classes: int,
        width: int,
        small_stem: bool,
    ) -> None:
        super().__init__()
        conv, norm = conv_norm(in_channels, width, 3) if small_stem else conv_norm(in_channels, width, 7, stride=2)
        self.stem = nn.Sequential(conv, norm, nn.ReLU())
        if not small_stem:
            self.stem.append(nn.MaxPool2d(kernel_size=3, stride=2, padding=1))
        stages: list[nn.Module] = []
        c_in = width
        for stage, depth in enumerate(blocks):
            stage_width = width * 2**stage
            layers: list[nn.Module] = []
            for i in range(depth):
                layers.append(block(c_in, stage_width, stride=2 if stage > 0 and i == 0 else 1))
                c_in = stage_width * block.expansion
            stages.append(nn.Sequential(*layers))
        self.stages = nn.Sequential(*stages)
        self.head = nn.Linear(c_in, classes)

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, in_channels, H, W] -> logits: [B, classes]."""
        h = self.stem(x)  # [B, width, H/4, W/4], or [B, width, H, W] with the small stem
        h = self.stages(h)  # [B, 8·width·expansion, H/32, W/32], or H/8 with the small stem
        return self.head(h.mean(dim=(2, 3)))


def resnet18(in_channels: int = 3, classes: int = 1000, *, width: int = 64, small_stem: bool = False) -> ResNet:
    """ResNet-18: 2+2+2+2 basic blocks.

    Formula: y = relu(x + F(x)) in each block; a block starts near the identity, so depth costs no signal.

    Args:
        in_channels: image channels.
        classes: number of classes.
        width: channels of the first stage; it doubles in each of the three following ones.
        small_stem: a 3×3 convolution in place of the 7×7 one with pooling, for images of 32×32 to 64×64 pixels.

    Returns:
        a module x: [B, in_channels, H, W] -> logits: [B, classes], for any H and W.

    Example:
        >>> import torch
        >>> from talweg.nn import count_parameters
        >>> with torch.device("meta"):
        ...     model, small = resnet18(), resnet18(classes=10, small_stem=True)
        >>> count_parameters(model), count_parameters(small)
        (11689512, 11173962)

    Source: K. He, X. Zhang, S. Ren, J. Sun, "Deep residual learning for image recognition", 2015, table 1.
    """
    return ResNet(BasicBlock, (2, 2, 2, 2), in_channels, classes, width, small_stem)


def resnet34(in_channels: int = 3, classes: int = 1000, *, width: int = 64, small_stem: bool = False) -> ResNet:
    """ResNet-34: 3+4+6+3 basic blocks, arguments as for `resnet18` (He et al. 2015, table 1).

    Example:
        >>> import torch
        >>> from talweg.nn import count_parameters
        >>> with torch.device("meta"):
        ...     count_parameters(resnet34())
        21797672
    """
    return ResNet(BasicBlock, (3, 4, 6, 3), in_channels, classes, width, small_stem)


def resnet50(in_channels: int = 3, classes: int = 1000, *, width: int = 64, small_stem: bool = False) -> ResNet:
    """ResNet-50: 3+4+6+3 bottleneck blocks, arguments as for `resnet18`; the stride stands on the 3×3 convolution.

    He et al. put the stride on the first 1×1 convolution, which skips three quarters of its input; all large-batch
    results since Goyal et al. (2017) use the form built here. The parameters are the same in number.

    Example:
        >>> import torch
        >>> from talweg.nn import count_parameters
        >>> with torch.device("meta"):
        ...     count_parameters(resnet50())
        25557032

    Source: K. He et al., 2015, table 1; P. Goyal et al., "Accurate, large minibatch SGD", 2017, section 5.1.
    """
    return ResNet(Bottleneck, (3, 4, 6, 3), in_channels, classes, width, small_stem)
