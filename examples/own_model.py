"""Train your own `nn.Module` with the `talweg` command.

    talweg train examples/own_model.py:task

Prints an epoch table that ends near 98 % validation accuracy, one paragraph of words, and the folder of the run
(runs/own_model-1). Takes about 4 s on one CPU thread. Try also:

    talweg train examples/own_model.py:task --optimizer sgd --lr 0.05 --epochs 20
"""

import torch
from torch import Tensor, nn

from talweg import Task
from talweg.data import load_digits


class SmallNet(nn.Module):
    """Two convolutions and a linear layer: an ordinary PyTorch model that knows nothing of Talweg."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(2 * width)
        self.head = nn.Linear(2 * width * 4 * 4, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.conv1(x))  # [B, 1, 8, 8] → [B, width, 8, 8]
        x = torch.relu(self.norm(self.conv2(x)))  # → [B, 2·width, 4, 4]
        return self.head(x.flatten(1))  # → logits [B, 10]


digits = load_digits()  # 1,437 images to learn from, 360 to validate on, uint8 [N, 1, 8, 8]

task = Task(
    name="own_model",
    model=SmallNet,  # the class, not a module: every training starts from a fresh one
    train=digits.train,
    validation=digits.validation,
    loss="cross_entropy",
    metrics=("accuracy",),
)
