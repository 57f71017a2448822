"""Reference models, the layers that torch lacks, and noise as a function of names and indices."""

from talweg.nn.activations import ACTIVATIONS, RReLU, activation
from talweg.nn.count import count_parameters
from talweg.nn.dropconnect import DropConnect
from talweg.nn.dropout import AlphaDropout, Dropout, Dropout1d, Dropout2d, Dropout3d, FeatureAlphaDropout
from talweg.nn.maxout import Maxout, maxout
from talweg.nn.noise import Noisy, name_layers, noise_context, random_bits, random_uniform
from talweg.nn.pooling import FractionalMaxPool2d, FractionalMaxPool3d
from talweg.nn.replacement import replace_noise, unkeyed_noise
from talweg.nn.stochastic_depth import StochasticDepth

__all__ = [
    "ACTIVATIONS",
    "AlphaDropout",
    "DropConnect",
    "Dropout",
    "Dropout1d",
    "Dropout2d",
    "Dropout3d",
    "FeatureAlphaDropout",
    "FractionalMaxPool2d",
    "FractionalMaxPool3d",
    "Maxout",
    "Noisy",
    "RReLU",
    "StochasticDepth",
    "activation",
    "count_parameters",
    "maxout",
    "name_layers",
    "noise_context",
    "random_bits",
    "random_uniform",
    "replace_noise",
    "unkeyed_noise",
]
