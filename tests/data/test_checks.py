"""Labels are checked by row and value."""

import pytest
import torch

from talweg.data import check_labels
from talweg.errors import UserError


@pytest.mark.parametrize(
    ("y", "classes", "message"),
    [
        ([0, 1, -1], 3, "train: the label at row 2 is -1, but with 3 classes labels lie in 0..2;"),
        ([0, 3], ("a", "b", "c"), "train: the label at row 1 is 3, but with 3 classes"),
        ([[0, 1], [0, 300]], 256, "train: the label at row 1 is 300, but with 256"),
        ([0.0, 1.0], 2, "train: class labels must be integers, received float32; convert them"),
        ([0.0, float("nan")], 2, "train: the label is nan at row 1;"),
    ],
)
def test_bad_labels_are_named_by_row_and_value(y, classes, message):
    with pytest.raises(UserError) as caught:
        check_labels(torch.tensor(y), classes, "train")
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
def test_good_labels_pass(dtype):
    check_labels(torch.tensor([0, 1, 2], dtype=dtype), 3)
    check_labels(torch.tensor([[0, 255]], dtype=dtype), 256)
