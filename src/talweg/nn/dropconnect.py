"""DropConnect: a linear layer whose weights, not its values, are dropped."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from talweg.errors import require
from talweg.nn.dropout import keep_levels
from talweg.nn.noise import LEVELS, Noisy, chosen, random_bits


class DropConnect(Noisy, nn.Linear):
    """A linear layer that zeroes each weight with probability p in training.

    Formula: y = (M ∘ W / (1 - p))·x + c in training, with M ~ Bernoulli(1 - p) for each weight; y = W·x + c in
    evaluation, which is the mean. (The paper samples a Gaussian with the same mean and variance there instead.) The
    biases c are not dropped. p is rounded to a multiple of 1/65,536.

    In the paper each sample has a mask of its own: that takes memory for B·out·in weights, so it is for small layers.
    With `per_sample=False` all samples of an update share one mask, at the cost of an ordinary linear layer.

    Inside a `noise_context` M is a function of (seed, step, layer name, place in W), and of the sample.

    Args:
        in_features, out_features, bias: see `nn.Linear`.
        p: the probability with which a weight is dropped.
        per_sample: a mask for each sample, or one for the update.

    Raises:
        UserError: p is not in [0, 1).

    Example:
        >>> import torch
        >>> from talweg.nn import DropConnect, name_layers, noise_context
        >>> layer = DropConnect(4, 3, bias=False, p=0.5)
        >>> names = name_layers(layer)
        >>> _ = nn.init.ones_(layer.weight)
        >>> with noise_context(seed=0, step=0, indices=torch.tensor([0, 1])):
        ...     layer(torch.ones(2, 4)).tolist()              # 2 × the number of weights that were kept
        [[6.0, 4.0, 4.0], [2.0, 2.0, 6.0]]

    Source: L. Wan, M. Zeiler, S. Zhang, Y. LeCun, R. Fergus, "Regularization of neural networks using DropConnect",
    2013; one mask for a batch: S. Merity, N. Keskar, R. Socher, "Regularizing and optimizing LSTM language models", 2018.
    """

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, *, p: float = 0.5, per_sample: bool = True
    ) -> None:
        super().__init__(in_features, out_features, bias)
        require(0.0 <= p < 1.0, "p", p, "at least 0 and below 1")
        self.p, self.per_sample = p, per_sample

    def forward(self, input: Tensor) -> Tensor:
        """x: [B, ..., in_features] -> y: [B, ..., out_features]."""
        levels = keep_levels(self.p)
        if not self.training or levels == LEVELS:
            return super().forward(input)
        out, into = self.weight.shape
        keep = chosen(random_bits(self, input, out * into, shared=not self.per_sample), levels, self.weight.dtype)
        weight = self.weight * keep.view(-1, out, into) * (LEVELS / levels)  # [B or 1, out, in]
        if not self.per_sample:
            return F.linear(input, weight[0], self.bias)
        x = input.reshape(len(input), -1, into)  # [B, T, in]
        y = x @ weight.mT  # [B, T, out]
        return (y if self.bias is None else y + self.bias).view(*input.shape[:-1], out)

    def extra_repr(self) -> str:
        """The sizes, p, and whose mask it is."""
        return f"{super().extra_repr()}, p={self.p}, per_sample={self.per_sample}"
