"""Normalisers against numpy, in every shape and dtype, streamed in small blocks."""

import numpy as np
import pytest
import torch

from talweg.data import NORMALIZERS, Arrays, Loader, MeanPixel, Scale, Standardize, moments, parse_normalizer
from talweg.errors import UserError

RNG = np.random.default_rng(0)
U8 = RNG.integers(0, 256, (50, 3, 6, 5), dtype=np.uint8)

# name, data, the axes that one mean is taken over
SHAPES = [
    ("features [N, F]", RNG.normal(3, 2, (50, 7)), (0,)),
    ("uint8 features", RNG.integers(0, 17, (50, 7), dtype=np.uint8), (0,)),
    ("float32 features", RNG.normal(3, 2, (50, 7)).astype(np.float32), (0,)),
    ("images [N, C, H, W]", U8, (0, 2, 3)),
    ("float images", U8.astype(np.float64) * np.array([1, 10, 0.1]).reshape(3, 1, 1), (0, 2, 3)),
    ("grey [N, H, W]", U8[:, 0], (0, 1, 2)),
    ("volumes [N, C, D, H, W]", RNG.normal(1, 2, (50, 2, 3, 4, 2)), (0, 2, 3, 4)),
    ("numbers [N]", RNG.normal(5, 3, 50), (0,)),
    ("a large mean", 1e9 + RNG.normal(0, 1, (50, 2)), (0,)),
]


@pytest.mark.parametrize(("x", "axes"), [row[1:] for row in SHAPES], ids=[row[0] for row in SHAPES])
@pytest.mark.parametrize("block", [1, 200, 1 << 20])
def test_standardize_agrees_with_numpy(monkeypatch, x, axes, block):
    monkeypatch.setattr(moments, "_BLOCK", block)
    fitted = Standardize.fit(Arrays(x, np.zeros(len(x))))
    mean, std = x.astype(np.float64).mean(axes), x.astype(np.float64).std(axes)
    np.testing.assert_allclose(fitted.mean.numpy(), mean, rtol=1e-13)
    # At a mean of 1e9 the deviations themselves are rounded to 1e-7; E[x²] - mean² would have no correct digit there.
    np.testing.assert_allclose(fitted.std.numpy(), std, rtol=1e-8 if mean.max() > 1e8 else 1e-12)

    keep = [1] * x.ndim
    if mean.ndim:
        keep[1] = len(mean)
    expected = (x.astype(np.float64) - mean.reshape(keep)) / std.reshape(keep)
    exact = fitted.to("cpu", torch.float64)(torch.from_numpy(x))
    assert exact.dtype == torch.float64
    np.testing.assert_allclose(exact.numpy(), expected, rtol=0, atol=1e-6 if mean.max() > 1e8 else 1e-12)
    if mean.max() < 1e8 and x.dtype != np.float64:
        z = fitted(torch.from_numpy(x))
        assert z.dtype == torch.float32
        np.testing.assert_allclose(z.numpy(), expected, rtol=0, atol=2e-6)


FLAT = {"pca", "pca_whitening"}  # images come out as components [N, F]
PRODUCTS = {*FLAT, "zca"}  # products of matrices


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("name", NORMALIZERS)
def test_images_keep_channels_last(name, layout):
    x = torch.from_numpy(U8).contiguous(memory_format=layout)
    fitted = NORMALIZERS[name].fit(Arrays(x, torch.zeros(50)))
    z = fitted(x)
    if name in FLAT:
        assert z.shape == (50, 90)
    else:
        assert z.shape == x.shape
        if layout is torch.channels_last:
            assert z.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(z, fitted(x.contiguous()))


@pytest.mark.parametrize("name", NORMALIZERS)
def test_the_contract_of_normalisers(name):
    data = Arrays(U8, np.zeros(50))
    fitted = NORMALIZERS[name].fit(data)
    x = data.x[:4]
    state = fitted.state()
    assert all(value.dtype == torch.float64 and value.device.type == "cpu" for value in state.values())
    again = NORMALIZERS[name].from_state({key: value.clone() for key, value in state.items()})
    assert torch.equal(fitted(x), again(x))
    z, one_by_one = fitted(x), torch.cat([fitted(x[:1]), fitted(x[1:])])
    rounding = {"rtol": 0, "atol": 1e-5 * float(z.abs().max())}
    if name in PRODUCTS:  # which are summed in another order in another batch
        torch.testing.assert_close(z, one_by_one, **rounding)
    else:
        assert torch.equal(z, one_by_one)
    wide = fitted.to("cpu", torch.float64)
    assert wide.dtype == wide(x).dtype == torch.float64
    assert fitted.dtype == fitted(x).dtype == torch.float32
    torch.testing.assert_close(wide(x).float(), z, **rounding)
    assert x.dtype == torch.uint8
    for tokens in (torch.tensor([[3, 1]]), torch.tensor([[3, 1]], dtype=torch.int32)):
        assert fitted(tokens) is tokens


def test_scale_divides_by_255():
    x = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(Scale()(x), x.float() * torch.tensor(1 / 255))
    np.testing.assert_allclose(Scale(dtype=torch.float64)(x), np.arange(256) / 255, rtol=1e-15)
    half = torch.tensor([0.25], dtype=torch.float16)
    assert Scale()(half).dtype == torch.float32
    floats = torch.tensor([3.0])
    assert Scale()(floats) is floats


@pytest.mark.parametrize("value", [0.0, 0.1, 1e7 + 0.3, -255.0])
def test_constant_features_keep_their_scale(value):
    x = torch.full((1000, 2), value, dtype=torch.float64)
    x[:, 1] = torch.arange(1000)
    fitted = Standardize.fit(Arrays(x, torch.zeros(1000)))
    assert fitted.std[0] == 1
    assert fitted.to("cpu", torch.float64)(x)[:, 0].abs().max() < 1e-6


def test_a_dataset_is_fitted_like_its_arrays():
    class Images(torch.utils.data.Dataset):
        def __len__(self):
            return 50

        def __getitem__(self, i):
            return U8[i], 0

    a, b = Standardize.fit(Loader(Images())), Standardize.fit(Arrays(U8, np.zeros(50)))
    assert torch.equal(a.mean, b.mean)
    assert torch.equal(a.std, b.std)


@pytest.mark.parametrize(("x", "axes"), [row[1:] for row in SHAPES], ids=[row[0] for row in SHAPES])
def test_mean_pixel_takes_off_the_mean_alone(x, axes):
    fitted = MeanPixel.fit(Arrays(x, np.zeros(len(x))))
    unit = 255 if x.dtype == np.uint8 else 1
    expected = (x.astype(np.float64) - x.astype(np.float64).mean(axes, keepdims=True)) / unit
    z = fitted.to("cpu", torch.float64)(torch.from_numpy(x))
    np.testing.assert_allclose(z.numpy(), expected, rtol=0, atol=1e-6 if x.max() > 1e8 else 1e-11)
    assert type(fitted.to("cpu")) is MeanPixel


@pytest.mark.parametrize("name", sorted(NORMALIZERS.keys() - {"scale"}))
@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_a_value_that_is_no_number_is_named_by_its_row(monkeypatch, name, value):
    monkeypatch.setattr(moments, "_BLOCK", 12)  # blocks of 4 rows
    x = RNG.normal(size=(10, 3))
    x[6, 1] = value

    class Rows(torch.utils.data.Dataset):
        def __len__(self):
            return 10

        def __getitem__(self, i):
            return x[i], 0

    with pytest.raises(UserError) as caught:
        NORMALIZERS[name].fit(Loader(Rows()))
    assert str(caught.value) == f"{name}: x is {value} at row 6, position (1,); remove or repair that sample"


def test_names_with_numbers():
    assert parse_normalizer("pca_whitening:1e-3")[::2] == ("pca_whitening", {"epsilon": 1e-3})
    data = Arrays(U8, np.zeros(50))
    for name, kind in NORMALIZERS.items():
        assert type(parse_normalizer(name).fit(data)) is kind
    strong, weak = (parse_normalizer(f"zca:{epsilon}").fit(data) for epsilon in (10, 0))
    assert strong(data.x).var() < 0.3 * weak(data.x).var()


ONE = torch.ones(3)
BAD = [
    (lambda: Standardize(ONE, torch.ones(2)), "mean and std must be scalars, or both of shape [C], received [2]"),
    (
        lambda: Standardize(ONE, torch.tensor([1.0, 0.0, 1.0])),
        "std must be positive and finite, received [1.0, 0.0, 1.0]",
    ),
    (lambda: Standardize(ONE * float("nan"), ONE), "mean must be finite"),
    (
        lambda: Standardize(ONE, ONE)(torch.zeros(4, 5)),
        "standardize: fitted on 3 features or channels, received a batch",
    ),
    (lambda: Standardize(ONE, ONE)(torch.zeros(4, 5, 2, 2)), "standardize: fitted on 3 features or channels"),
    (lambda: Standardize(ONE, ONE)(torch.zeros(4, 3, 2)), "standardize: fitted on 3 features or channels"),
    *[
        (
            lambda kind=kind: kind.fit(Arrays(torch.ones(3, 2).long(), ONE)),
            f"{name}: the data are integers (token numbers)",
        )
        for name, kind in NORMALIZERS.items()
        if name != "scale"
    ],
    (lambda: MeanPixel(ONE, ONE)(torch.zeros(4, 5)), "mean_pixel: fitted on 3 features or channels, received a batch"),
    (lambda: parse_normalizer("zac"), "unknown normalize 'zac': did you mean 'zca'?"),
    (lambda: parse_normalizer("pca:0.1"), "normalize='pca' takes no number, received 'pca:0.1'"),
    (
        lambda: parse_normalizer("zca:-1"),
        "epsilon of normalize='zca' must be 0 or more, in units of the mean variance, received '-1'",
    ),
    (lambda: parse_normalizer("zca:x"), "epsilon of normalize='zca' must be 0 or more"),
]


@pytest.mark.parametrize(("call", "message"), BAD, ids=[row[1][:50] for row in BAD])
def test_bad_normalisers(call, message):
    with pytest.raises(UserError) as caught:
        call()
    assert str(caught.value).startswith(message)
