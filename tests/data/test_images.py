"""Trees of image files: decoded as they are, or refused with the file named."""

import numpy as np
import pytest
import torch
from PIL import Image
from tests.helpers.pictures import deep, picture, tree, truncate

from talweg.data import load_images
from talweg.errors import UserError


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("held", ["validation", "val", "test"])
def test_a_tree_with_two_parts(tmp_path, channels, held):
    parts = [tree(tmp_path / part, n, shape=(6, 5, channels)) for part, n in (("train", 10), (held, 4))]
    for data, part in zip(load_images(tmp_path), parts, strict=True):
        expected = np.stack([p for pictures in part.values() for p in pictures]).transpose(0, 3, 1, 2)
        assert np.array_equal(data.x.numpy(), expected)
        assert data.y.tolist() == [label for label, pictures in enumerate(part.values()) for _ in pictures]
        assert data.classes == ("cat", "dog", "emu")
        assert next(data.batches([range(2)]))[0].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("inner", ["", "train"])
def test_a_tree_of_one_part_is_split_the_same_way_each_time(tmp_path, inner):
    pictures = tree(tmp_path / inner, 20)
    first, again = load_images(tmp_path, validation=0.2), load_images(tmp_path, validation=0.2)
    assert torch.bincount(first.validation.y).tolist() == [4, 4, 4]
    assert torch.equal(first.validation.x, again.validation.x)
    together = {x.numpy().tobytes() for part in first for x in part.x.permute(0, 2, 3, 1).contiguous()}
    assert together == {p.tobytes() for c in pictures.values() for p in c}


def test_other_files_are_passed_over_and_suffixes_are_not_case_sensitive(tmp_path):
    tree(tmp_path, 3)
    (tmp_path / "README.txt").write_text("about")
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "cat" / "Thumbs.db").write_bytes(b"?")
    (tmp_path / "cat" / "._000.png").write_bytes(b"?")
    picture(tmp_path / "cat" / "X.JPG")
    train, validation = load_images(tmp_path)
    assert len(train) + len(validation) == 10


def test_size_covers_the_square_and_keeps_the_proportions(tmp_path):
    for c in "ab":
        (tmp_path / c).mkdir()
        wide = np.zeros((8, 24, 3), np.uint8)
        wide[:, 8:16] = 200  # the middle third is what remains
        Image.fromarray(wide).save(tmp_path / c / "0.png")
        picture(tmp_path / c / "1.png", (9, 4, 3))
    train, validation = load_images(tmp_path, size=8, validation=0.5)
    both = torch.cat([train.x, validation.x])
    assert both.shape == (4, 3, 8, 8)
    assert ((both == 200).flatten(1).all(1)).sum() == 2


def test_channels_converts_all(tmp_path):
    grey = picture(tmp_path / "a" / "0.png", (4, 4, 1))
    Image.fromarray(grey.squeeze(2)).convert("P").save(tmp_path / "a" / "1.png")
    picture(tmp_path / "b" / "0.png", (4, 4, 4))
    picture(tmp_path / "b" / "1.png", (4, 4, 3))
    sets = load_images(tmp_path, channels=3, validation=0.5)
    assert torch.cat([part.x for part in sets]).shape == (4, 3, 4, 4)
    assert load_images(tmp_path, channels=1, validation=0.5).train.x.shape == (2, 1, 4, 4)


def test_progress_ends_at_the_last_image(tmp_path):
    tree(tmp_path, 50, classes=("a", "b", "c"))
    seen = []
    load_images(tmp_path, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(64, 150), (128, 150), (150, 150)]


# what is done to a good tree, settings, how the message begins (with {root}), what it must also say
BAD = [
    (lambda r: truncate(r / "cat" / "004.jpg"), {}, "cannot read image '{root}/cat/004.jpg' (", "repair or remove"),
    (
        lambda r: (r / "dog" / "0.png").write_bytes(b""),
        {},
        "cannot read image '{root}/dog/0.png' (",
        "repair or remove",
    ),
    (
        lambda r: (r / "dog" / "0.png").write_text("<html>"),
        {},
        "cannot read image '{root}/dog/0.png' (cannot identify",
        "",
    ),
    (lambda r: (r / "dog" / "0.png").mkdir(), {}, "cannot read image '{root}/dog/0.png' (", "repair or remove"),
    (
        lambda r: picture(r / "dog" / "x.png", (7, 5, 3)),
        {},
        "images differ: '{root}/cat/000.png' has 6 × 5 pixels, ",
        "size=",
    ),
    (
        lambda r: picture(r / "dog" / "x.png", (6, 5, 1)),
        {},
        "images differ: '{root}/cat/000.png' has 3 channels",
        "channels=3",
    ),
    (
        lambda r: picture(r / "dog" / "x.png", (6, 5, 4)),
        {},
        "images differ: '{root}/cat/000.png' has 3 channels",
        "has 4;",
    ),
    (lambda r: deep(r / "dog" / "x.png"), {}, "image '{root}/dog/x.png' has pixels of mode I;16, not 8 bits", ""),
    (lambda r: (r / "yak").mkdir(), {}, "class folder '{root}/yak' holds no images (.png", "fill it or remove it"),
    (
        lambda r: tree(r / "train", 2, ("cat",)),
        {},
        "'{root}/train' must hold one folder of images for each class",
        "'cat'",
    ),
    (lambda r: (tree(r / "train", 2), (r / "test").mkdir()), {}, "'{root}/test' must hold one folder", "found none"),
    (
        lambda r: (tree(r / "train", 2), tree(r / "test", 2, ("cat", "dog"))),
        {},
        "class folder 'emu' is in only one of '{root}/train' and '{root}/test'",
        "give both the same",
    ),
    (lambda r: None, {"size": 0}, "size must be at least 1 pixel, received 0", ""),
    (lambda r: None, {"channels": 2}, "channels must be 1, 3 or nothing, received 2", ""),
    (lambda r: None, {"validation": 0.0}, "validation must be above 0 and below 1, received 0.0", ""),
]


@pytest.mark.parametrize(("harm", "settings", "start", "contains"), BAD, ids=[row[2][:40] for row in BAD])
def test_bad_trees_name_the_file(tmp_path, harm, settings, start, contains):
    tree(tmp_path, 4)
    harm(tmp_path)
    with pytest.raises(UserError) as caught:
        load_images(tmp_path, **settings)
    assert str(caught.value).startswith(start.format(root=tmp_path))
    assert contains in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_tree_says_where_to_put_what(tmp_path):
    with pytest.raises(UserError, match=r"no folder '.*away'; put images into .*away/train/<class>/"):
        load_images(tmp_path / "away")
    picture(tmp_path / "flat" / "0.png")
    with pytest.raises(
        UserError, match=r"'.*flat' must hold one folder of images for each class, at least two; found none"
    ):
        load_images(tmp_path / "flat")
