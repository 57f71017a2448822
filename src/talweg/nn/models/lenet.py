"""LeNet-5, the first convolutional network that read cheques."""

from __future__ import annotations

from torch import Tensor, nn

from talweg.errors import require


class LeNet5(nn.Module):
    """Two convolutions with pooling, then three linear layers; see `lenet5`."""

    def __init__(self, in_channels: int, classes: int, size: int) -> None:
        super().__init__()
        require(size % 2 == 0 and 2 <= size <= 32, "size", size, "an even number of pixels, at most 32")
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, 6, kernel_size=5, padding=(32 - size) // 2),  # [B, 6, 28, 28]
            nn.ReLU(),
            nn.MaxPool2d(2),  # [B, 6, 14, 14]
            nn.Conv2d(6, 16, kernel_size=5),  # [B, 16, 10, 10]
            nn.ReLU(),
            nn.MaxPool2d(2),  # [B, 16, 5, 5]
        )
        self.hidden = nn.Sequential(nn.Linear(16 * 5 * 5, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU())
        self.head = nn.Linear(84, classes)

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, in_channels, size, size] -> logits: [B, classes]."""
        h = self.features(x)  # [B, 16, 5, 5]
        h = self.hidden(h.flatten(1))  # [B, 84]
        return self.head(h)


def lenet5(in_channels: int = 1, classes: int = 10, *, size: int = 28) -> LeNet5:
    """LeNet-5 in today's form: every map connected, ReLU, max pooling, softmax output.

    The paper pads MNIST's 28×28 pixels to 32×32; smaller images are zero-padded to 32×32 in the same way. The paper's
    partly connected second convolution, trainable pooling and radial-basis output are left out, as is usual now.

    Args:
        in_channels: image channels (1 for MNIST, 3 for CIFAR-10).
        classes: number of classes.
        size: image height and width in pixels, even, at most 32.

    Returns:
        a module x: [B, in_channels, size, size] -> logits: [B, classes].

    Raises:
        UserError: a `size` that is odd or above 32.

    Example:
        >>> import torch
        >>> from talweg.nn import count_parameters
        >>> model = lenet5()
        >>> model(torch.zeros(5, 1, 28, 28)).shape
        torch.Size([5, 10])
        >>> count_parameters(model)     # the paper's 60 000, and the missing connections
        61706

    Source: Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, "Gradient-based learning applied to document recognition", 1998.
    """
    return LeNet5(in_channels, classes, size)
