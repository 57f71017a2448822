"""AlexNet, the network that won ImageNet 2012, in its one-tower form."""

from __future__ import annotations

from torch import Tensor, nn


class AlexNet(nn.Module):
    """Five convolutions, two hidden linear layers with dropout, linear head; see `alexnet`."""

    def __init__(self, in_channels: int, classes: int, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.features = nn.Sequential(  # sizes for images of 224×224 pixels
            nn.Conv2d(in_channels, width, kernel_size=11, stride=4, padding=2),  # [B, width, 55, 55]
            nn.ReLU(),
            nn.MaxPool2d(kernel_size=3, stride=2),  # [B, width, 27, 27]
            nn.Conv2d(width, 3 * width, kernel_size=5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(kernel_size=3, stride=2),  # [B, 3·width, 13, 13]
            nn.Conv2d(3 * width, 6 * width, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.Conv2d(6 * width, 4 * width, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.Conv2d(4 * width, 4 * width, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(kernel_size=3, stride=2),  # [B, 4·width, 6, 6]
        )
        self.pool = nn.AdaptiveAvgPool2d(6)  # the identity for images of 224×224 pixels
        self.hidden = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(4 * width * 6 * 6, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
        )
        self.head = nn.Linear(hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, in_channels, H, W] -> logits: [B, classes]."""
        h = self.features(x)  # [B, 4·width, 6, 6] for 224×224 pixels
        h = self.pool(h)  # [B, 4·width, 6, 6]
        h = self.hidden(h.flatten(1))  # [B, hidden]
        return self.head(h)


def alexnet(
    in_channels: int = 3, classes: int = 1000, *, width: int = 64, hidden: int = 4096, dropout: float = 0.5
) -> AlexNet:
    """AlexNet on one device: 64, 192, 384, 256, 256 channels, no local response normalisation.

    The paper's network of 2012 was cut into two towers to fit two cards of 3 GB; the one-tower form of 2014 has become
    the usual reading of the name.

    Args:
        in_channels: image channels.
        classes: number of classes.
        width: channels of the first convolution; the others have 3, 6, 4 and 4 times as many.
        hidden: width of the two hidden linear layers.
        dropout: probability with which an input of a hidden linear layer is zeroed in training.

    Returns:
        a module x: [B, in_channels, H, W] -> logits: [B, classes], made for H = W = 224, at least 63.

    Example:
        >>> import torch
        >>> from talweg.nn import count_parameters
        >>> with torch.device("meta"):
        ...     model = alexnet()
        >>> total = count_parameters(model)
        >>> linear = sum(p.numel() for p in [*model.hidden.parameters(), *model.head.parameters()])
        >>> total, f"{linear / total:.0%} in the linear layers"
        (61100840, '96% in the linear layers')

    Source: A. Krizhevsky, I. Sutskever, G. Hinton, "ImageNet classification with deep convolutional neural networks",
    2012; A. Krizhevsky, "One weird trick for parallelizing convolutional neural networks", 2014 (one tower).
    """
    return AlexNet(in_channels, classes, width, hidden, dropout)
