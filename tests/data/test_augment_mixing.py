"""Partners, weights, mixed images and soft targets."""

import pytest
import scipy.stats
import torch

from talweg.data.augment import Mixing, mixing, partners
from talweg.data.augment.noise import Box
from talweg.errors import UserError

N, CLASSES = 4000, 7
G = torch.Generator().manual_seed(0)
X = torch.randint(0, 256, (N, 3, 8, 10), dtype=torch.uint8, generator=G).contiguous(memory_format=torch.channels_last)
OTHER = X.roll(1, 0)
Y = torch.randint(0, CLASSES, (N,), generator=G)
INDICES = torch.randperm(50_000, generator=G)[:N]
ROWS = [
    Mixing(mixup=0.2),
    Mixing(cutmix=1.0),
    Mixing(mixup=0.5, cutmix=1.0, smoothing=0.1),
    Mixing(smoothing=0.1),
]


def mixed(row, part=slice(None), seed=0, epoch=0, x=X):
    y = Y.roll(1)
    return row(x[part], Y[part], x.roll(1, 0)[part], y[part], INDICES[part], seed, epoch, CLASSES)


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_a_function_of_seed_epoch_and_sample(row):
    x, t = mixed(row)
    for start, stop in ((0, 1), (5, 70), (70, N)):
        part = mixed(row, slice(start, stop))
        assert torch.equal(x[start:stop], part[0]) and torch.equal(t[start:stop], part[1])
    if row.mixes:
        assert not torch.equal(x, mixed(row, epoch=1)[0]) and not torch.equal(x, mixed(row, seed=1)[0])


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_targets_are_probabilities(row):
    x, t = mixed(row)
    assert t.shape == (N, CLASSES) and t.dtype == torch.float32
    assert torch.allclose(t.sum(1), torch.ones(N))
    assert t.min() >= row.smoothing / CLASSES - 1e-7
    assert x.is_contiguous(memory_format=torch.channels_last)
    assert x.dtype == (torch.float32 if row.mixup else torch.uint8)
    assert mixed(row, x=X.double())[1].dtype == torch.float64


def test_mixup_images_and_targets_have_the_same_weight():
    x, t = mixed(ROWS[0])
    different = Y.roll(1) != Y
    weight = t[torch.arange(N), Y]
    expected = weight.view(-1, 1, 1, 1) * X + (1 - weight.view(-1, 1, 1, 1)) * OTHER
    assert (x - expected)[different].abs().max() < 1e-3
    weight = weight[different].double()
    assert scipy.stats.kstest(weight.numpy(), scipy.stats.beta(0.2, 0.2).cdf).pvalue > 1e-3


def test_cutmix_pastes_a_box_and_counts_its_pixels():
    x, t = mixed(ROWS[1])
    pasted, kept = (x == OTHER).all(1), (x == X).all(1)
    assert (pasted | kept).all()
    different = Y.roll(1) != Y
    share = t[torch.arange(N), Y][different]
    changed = (~kept).sum((1, 2))[different] / 80
    assert (1 - share - changed).abs().max() < 0.03  # a pixel may be equal in both by chance
    assert (~kept).any((1, 2)).double().mean() > 0.8


def test_with_both_a_sample_is_mixed_by_one_of_them():
    x, _ = mixed(ROWS[2])
    either = ((x == OTHER) | (x == X)).flatten(1).all(1)  # pasted
    assert abs(either.double().mean() - 0.5) < 0.05


def test_smoothing_moves_epsilon_to_all_classes():
    _, t = mixed(ROWS[3])
    assert torch.allclose(t[torch.arange(N), Y], torch.tensor(0.9 + 0.1 / CLASSES))
    cross_entropy = torch.nn.functional.cross_entropy
    output = torch.randn(N, CLASSES, generator=G)
    assert torch.allclose(cross_entropy(output, t), cross_entropy(output, Y, label_smoothing=0.1))


@pytest.mark.parametrize("alpha", [0.01, 0.1, 0.2, 0.5, 1.0, 2.0, 10.0, 100.0])
def test_beta_quantiles(alpha):
    ours = mixing.beta_quantiles(alpha)
    theirs = torch.from_numpy(scipy.stats.beta(alpha, alpha).ppf((torch.arange(65536).double() + 0.5).numpy() / 65536))
    assert (ours - theirs).abs().max() < 2e-4
    assert (ours.diff() >= 0).all()
    assert abs(ours.mean() - 0.5) < 1e-12


def test_partners_are_uniform_over_the_training_set():
    count = 50
    chosen = partners(count, torch.arange(20_000), 0, 0)
    counts = torch.bincount(chosen, minlength=count).double()
    assert len(counts) == count
    assert ((counts - 400).square() / 400).sum() < 90  # χ² with 49 degrees of freedom
    assert torch.equal(chosen[100:103], partners(count, torch.arange(100, 103), 0, 0))
    assert not torch.equal(chosen, partners(count, torch.arange(20_000), 0, 1))


def test_the_box_of_cutmix_has_the_area_of_its_weight():
    weight = torch.rand(N, generator=G)
    u = torch.rand(2, N, generator=G)
    box, left = mixing.cutmix_box(u, weight, 20, 30)
    assert box.top.min() >= 0 and box.bottom.max() <= 20 and box.left.min() >= 0 and box.right.max() <= 30
    pasted = mixing.cutmix(torch.zeros(N, 1, 20, 30), torch.ones(N, 1, 20, 30), Box(*box))
    assert torch.allclose(pasted.mean((1, 2, 3)), 1 - left)
    assert (left >= weight - 1e-6).all()  # cut off at the border, rounded down
    inside = (u[0] > 0.45) & (u[0] < 0.55) & (u[1] > 0.45) & (u[1] < 0.55) & (weight > 0.2)
    assert (left - weight)[inside].abs().max() < 0.1


BAD = [
    (lambda: Mixing(), "mixing must be given a mixup, cutmix or smoothing above 0"),
    (lambda: Mixing(mixup=-1.0), "mixup must be 0.01 to 100, or 0 for none, received -1.0"),
    (lambda: Mixing(cutmix=1e-3), "cutmix must be 0.01 to 100"),
    (lambda: Mixing(smoothing=1.0), "label_smoothing must be at least 0 and below 1"),
]


@pytest.mark.parametrize(("call", "message"), BAD, ids=[row[1] for row in BAD])
def test_bad_settings(call, message):
    with pytest.raises(UserError) as caught:
        call()
    assert str(caught.value).startswith(message)
