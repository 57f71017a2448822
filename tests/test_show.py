"""`show`: the samples of all classes as the training will see them, and the statistics that belong to them."""

import pytest
import torch
from torch import nn
from torch.utils.data import Dataset

from talweg import Recipe, Task, UserError
from talweg import show as module
from talweg.data import Arrays, augmentation
from talweg.recipe import Samples
from talweg.show import show

G = torch.Generator().manual_seed(0)
X = torch.randint(0, 256, (300, 3, 16, 16), dtype=torch.uint8, generator=G)
Y = torch.arange(300) // 100  # sorted by class
NAMES = ("cat", "dog", "emu")


@pytest.fixture
def drawn(monkeypatch):
    """What `contact_sheet` is given."""
    seen = {}

    def sheet(images, labels, path, **settings):
        seen.update(images=images, labels=labels, path=path, **settings)
        return path

    monkeypatch.setattr(module, "contact_sheet", sheet)
    return seen


def task(x=X, y=Y, **settings):
    return Task(name="pets", model=nn.Identity, train=Arrays(x, y, NAMES), **settings)


def test_a_row_is_a_sample_stored_and_in_its_epochs(drawn):
    show(task(), Recipe(seed=3, samples=Samples(augment=("crop", "flip"))), "a.png")
    columns = drawn["columns"]
    assert drawn["titles"][:2] == ["stored", "epoch 1"]
    assert len(drawn["titles"]) == columns
    rows = drawn["images"].unflatten(0, (-1, columns))
    labels = [drawn["labels"][i] for i in range(0, len(drawn["labels"]), columns)]
    assert labels[:5] == ["cat", "dog", "emu", "cat", "dog"]
    assert set(drawn["labels"]) == {*NAMES, ""}
    augment = augmentation(("crop", "flip"))
    for row, label in zip(rows, labels, strict=True):
        index = next(i for i in range(300) if torch.equal(X[i].float(), row[0]))
        assert NAMES[Y[index]] == label
        for epoch in range(columns - 1):
            expected = augment(X[index : index + 1], torch.tensor([index]), 3, epoch)[0]
            assert torch.equal(row[1 + epoch], expected.float())


def test_without_augmentation_there_are_more_samples(drawn):
    show(task(), Recipe(), "a.png")
    assert len(drawn["images"]) == len(drawn["labels"]) == 80
    assert drawn["labels"].count("emu") == 26
    assert list(drawn["statistics"]) == ["stored", "normalised"]


def test_statistics_before_and_after(drawn):
    show(task(), Recipe(samples=Samples(augment=("crop",))), "a.png")
    stored, normalised, augmented = drawn["statistics"].values()
    for c in range(3):
        assert stored[c].mean == pytest.approx(X[:, c].double().mean().item())
        assert normalised[c].mean == pytest.approx(0, abs=1e-5)
        assert normalised[c].std == pytest.approx(1, abs=1e-5)
        assert augmented[c].mean < -0.05  # the black border
    assert drawn["limits"] == (0.0, 255.0)


@pytest.mark.parametrize(
    ("x", "limits"), [(X // 16, (0, 15)), (X.float() / 255 - 0.5, (-0.5, 0.5)), (X // 2 + 100, (0, 255))]
)
def test_the_range_of_grey_is_that_of_the_data(drawn, x, limits):
    show(task(x), Recipe(), "a.png")
    assert drawn["limits"] == limits


class Pictures(Dataset):
    classes = ("a", "b")

    def __len__(self):
        return 12

    def __getitem__(self, i):
        return X[i], i % 2


@pytest.mark.parametrize(
    ("data", "labels"),
    [
        (Pictures(), ["a", "b"] * 6),
        ((X[:4], torch.tensor([0.5, 1.0, 2.0, 1e6])), ["0.5", "1", "2", "1e+06"]),
        ((X[:2], torch.zeros(2, 5)), ["", ""]),
        ((X[:3], torch.tensor([7, 0, 7])), ["0", "7", "7"]),
        (Arrays(X[:2], torch.tensor([[0.7, 0.3, 0.0], [0.0, 0.0, 1.0]]), NAMES), ["cat 0.70, dog 0.30", "emu 1.00"]),
    ],
)
def test_any_images_can_be_shown(drawn, data, labels):
    show(Task(name="any", model=nn.Identity, train=data, loss="mse"), Recipe(), "a.png")
    assert drawn["labels"] == labels


def test_many_samples_are_looked_at_over_the_whole_set(drawn, monkeypatch):
    monkeypatch.setattr(module, "_VALUES", 30 * X[0].numel())
    show(task(), Recipe(), "a.png")
    assert drawn["labels"] == ["cat", "dog", "emu"] * 10


def test_what_is_no_image_is_refused():
    rows = Task(name="rows", model=nn.Identity, train=(torch.zeros(5, 4), torch.zeros(5)))
    with pytest.raises(
        UserError, match=r"only images \[N, C, H, W\] can be shown; the samples of task 'rows' are \[4\]"
    ):
        show(rows, Recipe(), "a.png")
