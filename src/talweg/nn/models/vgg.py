"""VGG: 3×3 convolutions and pooling, nothing else; for large and for small images."""

from __future__ import annotations

from torch import Tensor, nn

from talweg.errors import require

# Convolutions before each of the pooling layers; stage i has width·min(2ⁱ, 8) channels.
_STAGES = {
    9: (2, 2, 3),
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}


def _features(stages: tuple[int, ...], in_channels: int, width: int, norm: bool) -> tuple[nn.Sequential, int]:
    """The convolutions, and the number of channels they end with; sizes are halved and rounded up by each stage."""
    layers: list[nn.Module] = []
    c_in = width_out = in_channels
    for stage, convolutions in enumerate(stages):
        width_out = width * min(2**stage, 8)
        for _ in range(convolutions):
            layers.append(nn.Conv2d(c_in, width_out, kernel_size=3, padding=1))
            if norm:
                layers.append(nn.BatchNorm2d(width_out))
            layers.append(nn.ReLU())
            c_in = width_out
        layers.append(nn.MaxPool2d(2, ceil_mode=True))
    return nn.Sequential(*layers), width_out


class VGG(nn.Module):
    """Convolutions, pooling to 7×7, two hidden linear layers with dropout, linear head; see `vgg16`."""

    def __init__(
        self, depth: int, in_channels: int, classes: int, width: int, hidden: int, norm: bool, dropout: float
    ) -> None:
        super().__init__()
        self.features, c_out = _features(_STAGES[depth], in_channels, width, norm)
        self.pool = nn.AdaptiveAvgPool2d(7)  # the identity for images of 224×224 pixels
        self.hidden = nn.Sequential(
            nn.Linear(c_out * 7 * 7, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
        )
        self.head = nn.Linear(hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, in_channels, H, W] -> logits: [B, classes]."""
        h = self.features(x)  # [B, 8·width, H/32, W/32]
        h = self.pool(h)  # [B, 8·width, 7, 7]
        h = self.hidden(h.flatten(1))  # [B, hidden]
        return self.head(h)


class SmallVGG(nn.Module):
    """Convolutions with batch norm, one hidden linear layer with batch norm, linear head; see `vgg9`."""

    def __init__(self, depth: int, in_channels: int, classes: int, size: int, width: int) -> None:
        super().__init__()
        require(size >= 1, "size", size, "a positive number of pixels")
        self.features, c_out = _features(_STAGES[depth], in_channels, width, norm=True)
        side = -(-size // 2 ** len(_STAGES[depth]))
        self.hidden = nn.Sequential(nn.Linear(c_out * side * side, c_out), nn.BatchNorm1d(c_out), nn.ReLU())
        self.head = nn.Linear(c_out, classes)

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, in_channels, size, size] -> logits: [B, classes]."""
        h = self.features(x)  # [B, c_out, side, side]
        h = self.hidden(h.flatten(1))  # [B, c_out]
        return self.head(h)


def vgg11(
    in_channels: int = 3,
    classes: int = 1000,
    *,
    width: int = 64,
    hidden: int = 4096,
    norm: bool = False,
    dropout: float = 0.5,
) -> VGG:
    """VGG-11 (configuration A): 8 convolutions, arguments as for `vgg16`.

    Example:
        >>> import torch
        >>> from talweg.nn import count_parameters
        >>> with torch.device("meta"):
        ...     count_parameters(vgg11())      # table 2 of the paper: 133 million
        132863336
    """
    return VGG(11, in_channels, classes, width, hidden, norm, dropout)


def vgg13(
    in_channels: int = 3,
    classes: int = 1000,
    *,
    width: int = 64,
    hidden: int = 4096,
    norm: bool = False,
    dropout: float = 0.5,
) -> VGG:
    """VGG-13 (configuration B): 10 convolutions, arguments as for `vgg16`.

    Example:
        >>> import torch
        >>> from talweg.nn import count_parameters
        >>> with torch.device("meta"):
        ...     count_parameters(vgg13())
        133047848
    """
    return VGG(13, in_channels, classes, width, hidden, norm, dropout)


def vgg16(
    in_channels: int = 3,
    classes: int = 1000,
    *,
    width: int = 64,
    hidden: int = 4096,
    norm: bool = False,
    dropout: float = 0.5,
) -> VGG:
    """VGG-16 (configuration D): 13 convolutions and three linear layers, the first with 74 % of all parameters.

    The paper's networks have no normalisation, so that they train only from well-scaled initial weights
    (`initialize(model, "kaiming_normal", …)`); `norm=True` puts batch norm after each convolution.

    Args:
        in_channels: image channels.
        classes: number of classes.
        width: channels of the first stage; it doubles in each following one up to 8 times.
        hidden: width of the two hidden linear layers.
        norm: whether each convolution is followed by batch norm.
        dropout: probability with which a value of a hidden linear layer is zeroed in training.

    Returns:
        a module x: [B, in_channels, H, W] -> logits: [B, classes], made for H = W = 224; other sizes are pooled.

    Example:
        >>> import torch
        >>> from talweg.nn import count_parameters
        >>> with torch.device("meta"):
        ...     model = vgg16()
        >>> count_parameters(model), model.hidden[0].weight.numel()
        (138357544, 102760448)

    Source: K. Simonyan, A. Zisserman, "Very deep convolutional networks for large-scale image recognition", 2014.
    """
    return VGG(16, in_channels, classes, width, hidden, norm, dropout)


def vgg19(
    in_channels: int = 3,
    classes: int = 1000,
    *,
    width: int = 64,
    hidden: int = 4096,
    norm: bool = False,
    dropout: float = 0.5,
) -> VGG:
    """VGG-19 (configuration E): 16 convolutions, arguments as for `vgg16`.

    Example:
        >>> import torch
        >>> from talweg.nn import count_parameters
        >>> with torch.device("meta"):
        ...     count_parameters(vgg19())
        143667240
    """
    return VGG(19, in_channels, classes, width, hidden, norm, dropout)


def vgg9(in_channels: int = 3, classes: int = 10, *, size: int = 32, width: int = 64) -> SmallVGG:
    """VGG-9 for small images: the first seven convolutions of VGG-16, one hidden linear layer, batch norm throughout.

    It is the network without skip connections of Li et al.'s loss-landscape study.

    Args:
        in_channels: image channels.
        classes: number of classes.
        size: image height and width in pixels.
        width: channels of the first stage; it doubles in each following one up to 8 times.

    Returns:
        a module x: [B, in_channels, size, size] -> logits: [B, classes].

    Raises:
        UserError: a `size` below 1.

    Example:
        >>> import torch
        >>> from talweg.nn import count_parameters
        >>> vgg9(in_channels=1, size=8, width=8)(torch.zeros(5, 1, 8, 8)).shape
        torch.Size([5, 10])
        >>> with torch.device("meta"):
        ...     count_parameters(vgg9())
        2789706

    Source: H. Li et al., "Visualizing the loss landscape of neural nets", 2018, appendix.
    """
    return SmallVGG(9, in_channels, classes, size, width)


def small_vgg16(in_channels: int = 3, classes: int = 10, *, size: int = 32, width: int = 64) -> SmallVGG:
    """VGG-16's 13 convolutions for small images, with batch norm and one hidden layer; arguments as for `vgg9`.

    Example:
        >>> import torch
        >>> from talweg.nn import count_parameters
        >>> with torch.device("meta"):
        ...     count_parameters(small_vgg16())      # a ninth of VGG-16
        14991946
    """
    return SmallVGG(16, in_channels, classes, size, width)
