"""Recurrent networks (LSTM) for token sequences: a language model and a classifier."""

from __future__ import annotations

from torch import Tensor, nn


class LSTMLanguageModel(nn.Module):
    """Embedding, LSTM layers, linear head at every position; see `lstm_lm`."""

    def __init__(self, vocabulary: int, width: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.dropout = nn.Dropout(dropout)
        self.lstm = nn.LSTM(width, width, layers, dropout=dropout if layers > 1 else 0.0, batch_first=True)
        self.head = nn.Linear(width, vocabulary)

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens: [B, T] (int64) -> logits: [B, T, vocabulary]; the state is zero before the first token."""
        h = self.dropout(self.embedding(tokens))  # [B, T, width]
        h, _ = self.lstm(h)  # [B, T, width]
        return self.head(self.dropout(h))


class LSTMClassifier(nn.Module):
    """Embedding, LSTM layers, linear head on the last state; see `lstm_classifier`."""

    def __init__(self, vocabulary: int, classes: int, width: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.dropout = nn.Dropout(dropout)
        self.lstm = nn.LSTM(width, width, layers, dropout=dropout if layers > 1 else 0.0, batch_first=True)
        self.head = nn.Linear(width, classes)

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens: [B, T] (int64) -> logits: [B, classes]."""
        h = self.dropout(self.embedding(tokens))  # [B, T, width]
        _, (last, _) = self.lstm(h)  # [layers, B, width]
        return self.head(self.dropout(last[-1]))


def lstm_lm(vocabulary: int = 256, *, width: int = 128, layers: int = 2, dropout: float = 0.0) -> LSTMLanguageModel:
    """An LSTM language model: at every position the scores of the next token.

    Formula: i, f, o = σ(·), g = tanh(·) of W·x_t + U·h_{t−1} + b; c_t = f∘c_{t−1} + i∘g; h_t = o∘tanh(c_t).
    Dropout acts between layers only, never along time.

    Args:
        vocabulary: number of different tokens (256 for bytes).
        width: size of embedding and state.
        layers: stacked LSTM layers.
        dropout: probability with which a value passed from layer to layer is zeroed in training.

    Returns:
        a module tokens: [B, T] -> logits: [B, T, vocabulary].

    Example:
        >>> import torch
        >>> from talweg.nn import count_parameters
        >>> lstm_lm(vocabulary=256, width=32)(torch.zeros(5, 7, dtype=torch.int64)).shape
        torch.Size([5, 7, 256])
        >>> with torch.device("meta"):      # the "large" network of Zaremba et al.: 66 M
        ...     count_parameters(lstm_lm(10_000, width=1500))
        66034000

    Source: S. Hochreiter, J. Schmidhuber, "Long short-term memory", 1997; W. Zaremba, I. Sutskever, O. Vinyals,
    "Recurrent neural network regularization", 2014 (dropout).
    """
    return LSTMLanguageModel(vocabulary, width, layers, dropout)


def lstm_classifier(
    vocabulary: int = 256, classes: int = 2, *, width: int = 128, layers: int = 1, dropout: float = 0.0
) -> LSTMClassifier:
    """An LSTM that reads a sequence and then names its class from the last state.

    Sequences of different lengths must be padded on the left, so that the last state follows the last true token.

    Args:
        vocabulary: number of different tokens (256 for bytes).
        classes: number of classes.
        width: size of embedding and state.
        layers: stacked LSTM layers.
        dropout: probability with which a value passed from layer to layer is zeroed in training.

    Returns:
        a module tokens: [B, T] -> logits: [B, classes].

    Example:
        >>> import torch
        >>> lstm_classifier(classes=3)(torch.zeros(5, 7, dtype=torch.int64)).shape
        torch.Size([5, 3])

    Source: S. Hochreiter, J. Schmidhuber, "Long short-term memory", 1997.
    """
    return LSTMClassifier(vocabulary, classes, width, layers, dropout)
