"""Reference models, and the layers that torch lacks."""

from talweg.nn.count import count_parameters

__all__ = ["count_parameters"]
