"""Wide residual networks: few layers, many channels, for small images."""

from __future__ import annotations

from torch import Tensor, nn

from talweg.errors import require


class WideBlock(nn.Module):
    """Norm and ReLU before each 3×3 convolution ("pre-activation"): y = x + F(x).

    It has no `last_norm`: the last norm is followed by ReLU and a convolution, so a zero γ would also stop that
    convolution's gradient, and its own (relu′(0) = 0), for good.
    """

    def __init__(self, c_in: int, c_out: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.norm1, self.relu1 = nn.BatchNorm2d(c_in), nn.ReLU()
        self.conv1 = nn.Conv2d(c_in, c_out, kernel_size=3, stride=stride, padding=1, bias=False)
        self.norm2, self.relu2 = nn.BatchNorm2d(c_out), nn.ReLU()
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(c_out, c_out, kernel_size=3, padding=1, bias=False)
        same = c_in == c_out and stride == 1
        self.shortcut = None if same else nn.Conv2d(c_in, c_out, kernel_size=1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, c_in, H, W] -> [B, c_out, H/stride, W/stride]."""
        h = self.relu1(self.norm1(x))
        shortcut = x if self.shortcut is None else self.shortcut(h)
        h = self.conv1(h)
        h = self.conv2(self.dropout(self.relu2(self.norm2(h))))
        return shortcut + h


class WideResNet(nn.Module):
    """Stem, three stages of n wide blocks, norm, global average, linear head; see `wide_resnet`."""

    def __init__(self, depth: int, widen: int, in_channels: int, classes: int, dropout: float) -> None:
        super().__init__()
        require(depth >= 10 and depth % 6 == 4, "depth", depth, "6n + 4 with n ≥ 1: 10, 16, 22, 28, 40, …")
        self.stem = nn.Conv2d(in_channels, 16, kernel_size=3, padding=1, bias=False)
        stages: list[nn.Module] = []
        c_in = 16
        for stage in range(3):
            c_out = 16 * widen * 2**stage
            blocks: list[nn.Module] = []
            for i in range((depth - 4) // 6):
                blocks.append(WideBlock(c_in, c_out, stride=2 if stage > 0 and i == 0 else 1, dropout=dropout))
                c_in = c_out
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.Sequential(*stages)
        self.norm, self.relu = nn.BatchNorm2d(c_in), nn.ReLU()
        self.head = nn.Linear(c_in, classes)

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, in_channels, H, W] -> logits: [B, classes]."""
        h = self.stem(x)  # [B, 16, H, W]
        h = self.stages(h)  # [B, 64·widen, H/4, W/4]
        h = self.relu(self.norm(h))
        return self.head(h.mean(dim=(2, 3)))


def wide_resnet(depth: int, widen: int, in_channels: int = 3, classes: int = 10, *, dropout: float = 0.0) -> WideResNet:
    """WRN-depth-widen: a pre-activation residual network with `widen` times the channels.

    Formula: y = s(x) + W₂·relu(norm(W₁·relu(norm(x)))), with dropout before W₂; s is the identity or a 1×1 convolution.

    Args:
        depth: number of weighted layers, 6n + 4.
        widen: factor on the 16, 32 and 64 channels of the three stages.
        in_channels: image channels.
        classes: number of classes.
        dropout: probability with which a value between the two convolutions of a block is zeroed in training.

    Returns:
        a module x: [B, in_channels, H, W] -> logits: [B, classes].

    Raises:
        UserError: a depth that is not 6n + 4.

    Example:
        >>> import torch
        >>> from talweg.nn import count_parameters
        >>> with torch.device("meta"):                     # table 4 of the paper: 8.9 M and 36.5 M
        ...     [count_parameters(wide_resnet(*size)) for size in ((40, 4), (28, 10))]
        [8949210, 36479194]

    Source: S. Zagoruyko, N. Komodakis, "Wide residual networks", 2016.
    """
    return WideResNet(depth, widen, in_channels, classes, dropout)


def wrn28_10(in_channels: int = 3, classes: int = 10, *, dropout: float = 0.0) -> WideResNet:
    """WRN-28-10: `wide_resnet(28, 10, …)`, 36.5 M parameters for CIFAR-10.

    Example:
        >>> import torch
        >>> with torch.device("meta"):
        ...     wrn28_10(classes=100)(torch.zeros(5, 3, 32, 32)).shape
        torch.Size([5, 100])
    """
    return wide_resnet(28, 10, in_channels, classes, dropout=dropout)
