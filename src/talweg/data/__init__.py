"""Data made ready: sources and their order, normalisation, augmentation, and the built-in sets."""

from talweg.data.arrays import Arrays
from talweg.data.augment import AUGMENTATIONS, CropFlip, augmentation
from talweg.data.checks import check_labels
from talweg.data.cifar import load_cifar10
from talweg.data.digits import load_digits
from talweg.data.images import load_images
from talweg.data.loader import Loader
from talweg.data.mnist import load_mnist
from talweg.data.normalize import NORMALIZERS, Normalizer, Scale, Standardize
from talweg.data.order import ORDERS, Chunk, Order, ranges
from talweg.data.source import Source, as_source
from talweg.data.split import Sets, hold_out
from talweg.data.stream import Stream, place
from talweg.data.text import VOCABULARY, load_text

__all__ = [
    "AUGMENTATIONS",
    "NORMALIZERS",
    "ORDERS",
    "VOCABULARY",
    "Arrays",
    "Chunk",
    "CropFlip",
    "Loader",
    "Normalizer",
    "Order",
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
    "place",
    "ranges",
]
