"""The 8 × 8 handwritten digits that come with the package: 1,797 images, no network needed."""

from __future__ import annotations

from importlib.resources import files

import numpy as np
import torch

from talweg.data.arrays import Arrays
from talweg.data.split import Sets, stratified

CLASSES = tuple("0123456789")


def load_digits(flat: bool = False) -> Sets:
    """The digits, split once and for all into 1,437 training and 360 validation images, stratified by class.

    The images are the test part of the UCI set "Optical Recognition of Handwritten Digits" (CC BY 4.0, see `digits.txt`
    beside this file). The same writers occur in both parts of the split.

    Args:
        flat: features [N, 64] in place of images [N, 1, 8, 8].

    Returns:
        `Sets(train, validation)` of uint8 grey levels 0 … 16 and labels 0 … 9.

    Example:
        >>> digits = load_digits()
        >>> digits.train, digits.validation
        (Arrays(1437 samples of uint8 [1, 8, 8] on cpu), Arrays(360 samples of uint8 [1, 8, 8] on cpu))
        >>> print("\\n".join("".join("·.:-=+*#%@"[v * 9 // 16] for v in row) for row in digits.train.x[0, 0].tolist()))
        ··:#+···
        ··#%+%:·
        ·.%.·*=·
        ·:*··==·
        ·:=··+=·
        ·:*··*-·
        ·.#:+*··
        ··-#+···

    Source: E. Alpaydin, C. Kaynak, "Cascading classifiers", Kybernetika, 1998.
    """
    with (files("talweg.data") / "digits.npz").open("rb") as file, np.load(file, allow_pickle=False) as stored:
        x, y = torch.from_numpy(stored["images"]), torch.from_numpy(stored["labels"])
    data = Arrays(x.flatten(1) if flat else x.unsqueeze(1), y, CLASSES)
    kept, held = stratified(data.y, 360, "digits", "split")
    return Sets(data.subset(kept), data.subset(held))
