"""Random changes to images: what moves pixels as one interpolation, colours, noise, holes, mixing, RandAugment."""

from talweg.data.augment.crop_flip import CropFlip
from talweg.data.augment.mixing import Mixing, partners
from talweg.data.augment.pipeline import Augmentation, augmentation
from talweg.data.augment.spec import AUGMENTATIONS, parse

__all__ = ["AUGMENTATIONS", "Augmentation", "CropFlip", "Mixing", "augmentation", "parse", "partners"]
