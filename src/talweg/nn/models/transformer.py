"""A small Transformer language model in the manner of GPT-2."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from talweg.errors import UserError, require


class Attention(nn.Module):
    """Causal self-attention: softmax(q·kᵀ/√d + mask)·v in each head."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.head_width, self.dropout = width // heads, dropout
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, T, width] -> [B, T, width]."""
        # The rows of qkv are grouped by head (q, k, v of head 0, then of head 1, ...), so that a slice is whole heads.
        qkv = self.qkv(x).unflatten(-1, (-1, 3, self.head_width))  # [B, T, heads, 3, d]
        q, k, v = qkv.permute(3, 0, 2, 1, 4)  # each [B, heads, T, d]
        dropout = self.dropout if self.training else 0.0
        h = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=True)  # [B, heads, T, d]
        return self.out(h.transpose(1, 2).flatten(2))


class TransformerBlock(nn.Module):
    """Pre-norm: x ← x + attention(norm(x)), then x ← x + mlp(norm(x)), with four times the width inside the mlp."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads, dropout)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU("tanh"), nn.Linear(4 * width, width))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, T, width] -> [B, T, width]."""
        x = x + self.dropout(self.attention(self.norm1(x)))
        return x + self.dropout(self.mlp(self.norm2(x)))


class GPT(nn.Module):
    """Token and position embedding, pre-norm blocks, norm, head at every position; see `gpt`."""

    def __init__(
        self, vocabulary: int, context: int, width: int, heads: int, layers: int, dropout: float, tied: bool
    ) -> None:
        super().__init__()
        require(heads >= 1 and width % heads == 0, "heads", heads, f"a divisor of width {width}")
        self.context = context
        self.token = nn.Embedding(vocabulary, width)
        self.position = nn.Embedding(context, width)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.Sequential(*[TransformerBlock(width, heads, dropout) for _ in range(layers)])
        self.norm = nn.LayerNorm(width)
        # A tied head has no parameter of its own: one name for one weight survives copies, to_empty and checkpoints.
        self.head = None if tied else nn.Linear(width, vocabulary, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens: [B, T] (int64), T ≤ context -> logits: [B, T, vocabulary]."""
        length = tokens.shape[1]
        if length > self.context:
            raise UserError(f"sequence of {length} tokens is longer than context={self.context}: raise the context")
        positions = torch.arange(length, device=tokens.device)  # [T]
        h = self.dropout(self.token(tokens) + self.position(positions))  # [B, T, width]
        h = self.norm(self.blocks(h))
        return F.linear(h, self.token.weight) if self.head is None else self.head(h)


def gpt(
    vocabulary: int = 256,
    *,
    context: int = 128,
    width: int = 128,
    heads: int = 4,
    layers: int = 4,
    dropout: float = 0.0,
    tied: bool = True,
) -> GPT:
    """A Transformer language model as GPT-2: learned positions, pre-norm blocks, GELU, causal attention.

    Formula: x ← x + Attention(norm(x)); x ← x + W₂·gelu(W₁·norm(x)); logits = norm(x)·Eᵀ with the token embedding
    E when tied, else a matrix of its own.

    Args:
        vocabulary: number of different tokens (256 for bytes).
        context: longest sequence, in tokens.
        width: size of a token's vector.
        heads: attention heads, a divisor of `width`.
        layers: number of blocks.
        dropout: probability with which a value is zeroed in training (embedding, attention, both residual branches).
        tied: whether the output matrix is the token embedding.

    Returns:
        a module tokens: [B, T] -> logits: [B, T, vocabulary].

    Raises:
        UserError: `heads` that does not divide `width`; a sequence longer than `context`.

    Example:
        >>> import torch
        >>> from talweg.nn import count_parameters
        >>> gpt(width=32)(torch.zeros(5, 7, dtype=torch.int64)).shape
        torch.Size([5, 7, 256])
        >>> with torch.device("meta"):      # GPT-2 "small"
        ...     gpt2 = gpt(50257, context=1024, width=768, heads=12, layers=12)
        >>> count_parameters(gpt2)
        124439808

    GPT-2's own initial weights are N(0, 0.02²), and by 1/√(2·layers) smaller where a residual branch ends:

        >>> from functools import partial
        >>> from talweg.initialize import initialize
        >>> from talweg.nn.weights import normal
        >>> small = partial(normal, std=0.02 / (2 * 4) ** 0.5)
        >>> drawn = initialize(gpt(), "normal", 0, special={"*.attention.out.weight": small, "*.mlp.2.weight": small})
        >>> f"{drawn['blocks.0.attention.qkv.weight'].std:.4f}, {drawn['blocks.0.mlp.2.weight'].std:.4f}"
        '0.0200, 0.0071'

    Source: A. Vaswani et al., "Attention is all you need", 2017; A. Radford et al., "Language models are unsupervised
    multitask learners", 2019 (GPT-2); O. Press, L. Wolf, "Using the output embedding to improve language models", 2017.
    """
    return GPT(vocabulary, context, width, heads, layers, dropout, tied)
