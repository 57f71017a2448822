"""Stochastic depth: whole residual branches dropped, sample by sample."""

from __future__ import annotations

from torch import Tensor, nn

from talweg.errors import require
from talweg.nn.dropout import keep_levels
from talweg.nn.noise import LEVELS, Noisy, chosen, random_bits


class StochasticDepth(Noisy, nn.Module):
    """Drops the residual branch of a sample with probability p: write `x + drop(branch(x))`.

    Formula: y = b·x / (1 - p) in training, with one b ~ Bernoulli(1 - p) for each sample; y = x in evaluation. The paper
    draws one b for the whole batch and scales by 1 - p in evaluation; one b a sample has the same mean and less
    variance. p is rounded to a multiple of 1/65,536. Inside a `noise_context` b is a function of (seed, step, layer
    name, sample).

    Args:
        p: the probability with which a branch is dropped; the paper lets it rise linearly from 0 at the first block to
            0.5 at the last.

    Raises:
        UserError: p is not in [0, 1).

    Example:
        >>> import torch
        >>> from talweg.nn import StochasticDepth, name_layers, noise_context
        >>> drop = StochasticDepth(0.5)
        >>> names = name_layers(drop)
        >>> with noise_context(seed=0, step=1, indices=torch.arange(5)):
        ...     drop(torch.ones(5, 2)).tolist()
        [[0.0, 0.0], [0.0, 0.0], [2.0, 2.0], [2.0, 2.0], [0.0, 0.0]]

    Source: G. Huang, Y. Sun, Z. Liu, D. Sedra, K. Weinberger, "Deep networks with stochastic depth", 2016.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        require(0.0 <= p < 1.0, "p", p, "at least 0 and below 1")
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, ...] -> y of the same shape."""
        levels = keep_levels(self.p)
        if not self.training or levels == LEVELS:
            return x
        keep = chosen(random_bits(self, x, 1), levels, x.dtype)  # [B, 1]
        return x * keep.view(-1, *[1] * (x.dim() - 1)) * (LEVELS / levels)

    def extra_repr(self) -> str:
        """p."""
        return f"p={self.p}"
