"""Residual networks for small images (8×8 digits to 32×32 CIFAR), with and without skip connections."""

from __future__ import annotations

from torch import Tensor, nn

from talweg.errors import require
from talweg.nn.models.resnet import BasicBlock, Shortcut, conv_norm


class SmallResNet(nn.Module):
    """Stem, three stages of n basic blocks, global average, linear head; see `small_resnet`."""

    def __init__(self, depth: int, in_channels: int, classes: int, width: int, skip: bool, shortcut: Shortcut) -> None:
        super().__init__()
        require(depth >= 8 and depth % 6 == 2, "depth", depth, "6n + 2 with n ≥ 1: 8, 14, 20, 32, 44, 56, 110, …")
        require(shortcut in ("projection", "padding"), "shortcut", shortcut, "'projection' or 'padding'")
        require(skip or shortcut == "projection", "shortcut", shortcut, "left out with skip=False (it has no effect)")
        self.stem = nn.Sequential(*conv_norm(in_channels, width, 3), nn.ReLU())
        stages: list[nn.Module] = []
        c_in = width
        for stage in range(3):
            c_out = width * 2**stage
            blocks: list[nn.Module] = []
            for i in range((depth - 2) // 6):
                stride = 2 if stage > 0 and i == 0 else 1
                blocks.append(BasicBlock(c_in, c_out, stride, skip=skip, shortcut=shortcut))
                c_in = c_out
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.Sequential(*stages)
        self.head = nn.Linear(c_in, classes)

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, in_channels, H, W] -> logits: [B, classes]."""
        h = self.stem(x)  # [B, width, H, W]
        h = self.stages(h)  # [B, 4·width, H/4, W/4]
        return self.head(h.mean(dim=(2, 3)))


def small_resnet(
    depth: int,
    in_channels: int = 3,
    classes: int = 10,
    *,
    width: int = 16,
    skip: bool = True,
    shortcut: Shortcut = "projection",
) -> SmallResNet:
    """A ResNet of 6n + 2 layers for small images; with `skip=False` the same network without skip connections.

    Formula: y = relu(F(x) + s(x)) in each block, where s is the identity, and between stages a 1×1 convolution
    ("projection", option B) or subsampling with zeros in the new channels ("padding", option A of the paper, no
    parameters). Without skips y = relu(F(x)): from about 50 layers on its surface has sharp, non-convex regions where
    the residual one has none (Li et al.).

    Args:
        depth: number of weighted layers, 6n + 2.
        in_channels: image channels (1 for the digits, 3 for CIFAR).
        classes: number of classes.
        width: channels of the first stage; it doubles in the second and third.
        skip: whether blocks have skip connections.
        shortcut: the shortcut between stages, "projection" or "padding".

    Returns:
        a module x: [B, in_channels, H, W] -> logits: [B, classes], for H and W of 4 and more.

    Raises:
        UserError: a depth that is not 6n + 2, an unknown shortcut, or a shortcut chosen without skips.

    Example:
        >>> import torch
        >>> from talweg.nn import count_parameters
        >>> with torch.device("meta"):
        ...     for settings in {"skip": True}, {"shortcut": "padding"}, {"skip": False}:
        ...         print(settings, count_parameters(small_resnet(20, **settings)))
        {'skip': True} 272474
        {'shortcut': 'padding'} 269722
        {'skip': False} 269722

    Source: K. He, X. Zhang, S. Ren, J. Sun, "Deep residual learning for image recognition", 2015, section 4.2;
    H. Li et al., "Visualizing the loss landscape of neural nets", 2018 (without skips).
    """
    return SmallResNet(depth, in_channels, classes, width, skip, shortcut)


def resnet8(
    in_channels: int = 3,
    classes: int = 10,
    *,
    width: int = 16,
    skip: bool = True,
    shortcut: Shortcut = "projection",
) -> SmallResNet:
    """ResNet-8, one block a stage: `small_resnet(8, …)`.

    Example:
        >>> import torch
        >>> resnet8(in_channels=1)(torch.zeros(5, 1, 8, 8)).shape      # the 8×8 digits
        torch.Size([5, 10])
    """
    return small_resnet(8, in_channels, classes, width=width, skip=skip, shortcut=shortcut)


def resnet20(
    in_channels: int = 3,
    classes: int = 10,
    *,
    width: int = 16,
    skip: bool = True,
    shortcut: Shortcut = "projection",
) -> SmallResNet:
    """ResNet-20, three blocks a stage: `small_resnet(20, …)`.

    Example:
        >>> from talweg.nn import count_parameters
        >>> count_parameters(resnet20())
        272474
    """
    return small_resnet(20, in_channels, classes, width=width, skip=skip, shortcut=shortcut)


def resnet56(
    in_channels: int = 3,
    classes: int = 10,
    *,
    width: int = 16,
    skip: bool = True,
    shortcut: Shortcut = "projection",
) -> SmallResNet:
    """ResNet-56, nine blocks a stage: `small_resnet(56, …)`.

    Example:
        >>> from talweg.nn import count_parameters
        >>> count_parameters(resnet56(skip=False))
        853018
    """
    return small_resnet(56, in_channels, classes, width=width, skip=skip, shortcut=shortcut)


def resnet110(
    in_channels: int = 3,
    classes: int = 10,
    *,
    width: int = 16,
    skip: bool = True,
    shortcut: Shortcut = "projection",
) -> SmallResNet:
    """ResNet-110, eighteen blocks a stage: `small_resnet(110, …)`.

    Example:
        >>> from talweg.nn import count_parameters
        >>> count_parameters(resnet110(shortcut="padding"))      # the paper's 1.7 M
        1727962
    """
    return small_resnet(110, in_channels, classes, width=width, skip=skip, shortcut=shortcut)
