"""Maxout: the largest of k linear functions."""

from __future__ import annotations

from torch import Tensor, nn

from talweg.errors import UserError, require


def maxout(x: Tensor, pieces: int, dim: int = 1) -> Tensor:
    """The largest of every `pieces` successive features.

    Formula: yⱼ = max over i = 0 … k - 1 of x_{j·k + i}, with k = pieces.

    Args:
        x: [B, m·k, ...] features or channels.
        pieces: k.
        dim: the dimension of the features; -1 for sequences [B, T, m·k].

    Returns:
        [B, m, ...].

    Raises:
        UserError: pieces is below 1 or does not divide the number of features.

    Example:
        >>> import torch
        >>> maxout(torch.tensor([[1.0, 5.0, -2.0, -3.0]]), pieces=2)
        tensor([[ 5., -2.]])

    Source: I. Goodfellow, D. Warde-Farley, M. Mirza, A. Courville, Y. Bengio, "Maxout networks", 2013.
    """
    require(pieces >= 1, "pieces", pieces, "at least 1")
    if x.shape[dim] % pieces:
        raise UserError(f"pieces={pieces} does not divide the {x.shape[dim]} features of an input {list(x.shape)}")
    dim %= x.dim()
    return x.unflatten(dim, (-1, pieces)).amax(dim + 1)


class Maxout(nn.Module):
    """`maxout` as a layer, to stand after a linear layer or a convolution with k times as many outputs.

    The layer before it may be any: k linear functions of x and their maximum are one convex, piecewise linear
    activation that is learned.

    Example:
        >>> import torch
        >>> layer = nn.Sequential(nn.Linear(1, 2, bias=False), Maxout(2))
        >>> layer[0].weight.data = torch.tensor([[1.0], [-1.0]])
        >>> layer(torch.tensor([[-3.0], [2.0]])).tolist()                # two pieces can learn |x|
        [[3.0], [2.0]]
    """

    def __init__(self, pieces: int, dim: int = 1) -> None:
        super().__init__()
        require(pieces >= 1, "pieces", pieces, "at least 1")
        self.pieces, self.dim = pieces, dim

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, m·pieces, ...] -> [B, m, ...]."""
        return maxout(x, self.pieces, self.dim)

    def extra_repr(self) -> str:
        """pieces and dim."""
        return f"pieces={self.pieces}, dim={self.dim}"
