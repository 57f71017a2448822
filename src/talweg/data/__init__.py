"""Data made ready: sources and their order, normalisation, augmentation, and the built-in sets."""

from talweg.data.arrays import Arrays
from talweg.data.augment import AUGMENTATIONS, CropFlip, augmentation
from talweg.data.checks import check_labels
from talweg.data.cifar import load_cifar10
from talweg.data.digits import load_digits
from talweg.data.images import load_images
from talweg.data.loader import Loader
from talweg.data.mnist import load_mnist
from talweg.data.normalize import NORMALIZERS, MeanPixel, Normalizer, Scale, Standardize, parse_normalizer
from talweg.data.order import Chunk, Order, ranges
from talweg.data.orderings import ORDERS, parse_order
from talweg.data.source import Source, as_source
from talweg.data.split import Sets, hold_out
from talweg.data.stream import Stream, place
from talweg.data.text import VOCABULARY, load_text
from talweg.data.whitening import PCA, ZCA, MeanImage, PCAWhitening

__all__ = [
    "AUGMENTATIONS",
    "NORMALIZERS",
    "ORDERS",
    "PCA",
    "VOCABULARY",
    "ZCA",
    "Arrays",
    "Chunk",
    "CropFlip",
    "Loader",
    "MeanImage",
    "MeanPixel",
    "Normalizer",
    "Order",
    "PCAWhitening",
    "Scale",
    "Sets",
    "Source",
    "Standardize",
    "Stream",
    "as_source",
    "augmentation",
    "check_labels",
    "hold_out",
    "load_cifar10",
    "load_digits",
    "load_images",
    "load_mnist",
    "load_text",
    "parse_normalizer",
    "parse_order",
    "place",
    "ranges",
]
