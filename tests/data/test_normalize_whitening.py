"""Mean image, PCA and whitening against numpy's `eigh`; streamed in blocks and in one piece."""

import numpy as np
import pytest
import torch

from talweg.data import NORMALIZERS, PCA, ZCA, Arrays, MeanImage, PCAWhitening, load_digits, moments
from talweg.errors import UserError

RNG = np.random.default_rng(0)
MIXED = RNG.normal(size=(400, 12)) @ RNG.normal(size=(12, 12)) + 5 * RNG.normal(size=12)
IMAGES = (RNG.random((300, 2, 1, 1)) * 120 + RNG.integers(0, 100, (300, 2, 3, 4))).astype(np.uint8)

DATA = [
    ("features [N, F]", MIXED),
    ("float32 features", MIXED.astype(np.float32)),
    ("uint8 images [N, C, H, W]", IMAGES),
    ("grey images [N, H, W]", IMAGES[:, 0]),
    ("volumes [N, C, D, H, W]", RNG.normal(1, 2, (80, 2, 3, 2, 2))),
    ("numbers [N]", RNG.normal(5, 3, 50)),
    ("a large mean", 1e6 + MIXED),
]
EVERY = pytest.mark.parametrize("x", [row[1] for row in DATA], ids=[row[0] for row in DATA])
PROJECTIONS = [PCA, PCAWhitening, ZCA]


def arrays(x):
    return Arrays(x, np.zeros(len(x)))


def exact(fitted, x):
    return fitted.to("cpu", torch.float64)(torch.from_numpy(x)).numpy().reshape(len(x), -1)


def covariance(z):
    return np.cov(z.reshape(len(z), -1), rowvar=False, bias=True).reshape(z[0].size, z[0].size)


def decomposed(x):
    """Variances descending and directions, by numpy."""
    values, vectors = np.linalg.eigh(covariance(x.astype(np.float64)))
    return values[::-1], vectors[:, ::-1]


@EVERY
def test_the_mean_image_is_taken_off(x):
    fitted = MeanImage.fit(arrays(x))
    unit = 255 if x.dtype == np.uint8 else 1
    wide = x.astype(np.float64)
    np.testing.assert_allclose(fitted.mean.numpy(), wide.mean(0), rtol=1e-13)
    expected = ((wide - wide.mean(0)) / unit).reshape(len(x), -1)
    np.testing.assert_allclose(exact(fitted, x), expected, rtol=0, atol=1e-8)


@EVERY
def test_pca_decorrelates(x):
    fitted = PCA.fit(arrays(x))
    values, vectors = decomposed(x)
    z = exact(fitted, x)
    np.testing.assert_allclose(covariance(z), np.diag(values), rtol=0, atol=1e-8 * values[0])
    aligned = np.abs(np.sum(fitted.matrix.numpy().T * vectors, axis=0))  # up to the sign
    np.testing.assert_allclose(aligned, 1, atol=1e-6)
    np.testing.assert_allclose(fitted.matrix @ fitted.matrix.T, np.eye(len(values)), atol=1e-12)
    rows = fitted.matrix.numpy()
    assert (rows[np.arange(len(rows)), np.abs(rows).argmax(1)] > 0).all()


@EVERY
@pytest.mark.parametrize("kind", [PCAWhitening, ZCA])
def test_whitening_gives_the_identity(x, kind):
    z = exact(kind.fit(arrays(x)), x)
    np.testing.assert_allclose(covariance(z), np.eye(z.shape[1]), rtol=0, atol=1e-4)
    np.testing.assert_allclose(z.mean(0), 0, atol=1e-7)
    if np.abs(x).max() < 1e5:  # in float32 as well
        single = kind.fit(arrays(x))(torch.from_numpy(x)).double().numpy()
        np.testing.assert_allclose(covariance(single), np.eye(z.shape[1]), rtol=0, atol=1e-4)


@EVERY
@pytest.mark.parametrize("epsilon", [0.0, 0.1, 3.0])
def test_epsilon_regularises_as_the_formula_says(x, epsilon):
    values, vectors = decomposed(x)
    damped = values / (values + epsilon * values.mean())
    z = exact(PCAWhitening.fit(arrays(x), epsilon), x)
    np.testing.assert_allclose(covariance(z), np.diag(damped), rtol=0, atol=1e-7)
    zca = ZCA.fit(arrays(x), epsilon)
    oracle = vectors @ np.diag((values + epsilon * values.mean()) ** -0.5) @ vectors.T
    np.testing.assert_allclose(zca.matrix.numpy(), oracle, rtol=0, atol=1e-6 * np.abs(oracle).max())
    assert torch.equal(zca.matrix, zca.matrix.T)
    np.testing.assert_allclose(covariance(exact(zca, x)), vectors @ np.diag(damped) @ vectors.T, rtol=0, atol=1e-7)


@EVERY
@pytest.mark.parametrize("name", sorted(NORMALIZERS.keys() - {"scale"}))
def test_streaming_gives_what_the_whole_gives(monkeypatch, x, name):
    whole = NORMALIZERS[name].fit(arrays(x)).state()
    for rows in (1, 7, 64):
        monkeypatch.setattr(moments, "_BLOCK", rows * x[0].size)
        for key, value in NORMALIZERS[name].fit(arrays(x)).state().items():
            scale = whole[key].abs().max()
            # Directions of nearly equal variance are determined less well than the covariance is.
            tolerance = 1e-10 if key == "mean" or name == "standardize" else 1e-7
            torch.testing.assert_close(value, whole[key], rtol=0, atol=float(tolerance * scale))


@EVERY
def test_the_streamed_covariance_agrees_to_rounding(monkeypatch, x):
    values = covariance(x.astype(np.float64))
    for rows in (1, 7, 64, 10_000):
        monkeypatch.setattr(moments, "_BLOCK", rows * x[0].size)
        n, mean, products = moments.scatter(arrays(x), "test")
        assert n == len(x)
        np.testing.assert_allclose(mean, x.reshape(len(x), -1).astype(np.float64).mean(0), rtol=1e-13)
        # numpy itself has rounded deviations from a mean of 1e6.
        tolerance = 1e-10 * np.abs(values).max()
        np.testing.assert_allclose(products / n, values, rtol=0, atol=tolerance)


@pytest.mark.parametrize("kind", [PCAWhitening, ZCA])
def test_directions_without_variance_are_dropped(kind):
    """Digits have pixels that are never inked: their covariance is singular, and nothing is blown up."""
    digits = load_digits().train
    fitted = kind.fit(digits)
    x = digits.x.numpy()
    constant = x.reshape(len(x), -1).std(0) == 0
    assert constant.any()
    cov = covariance(exact(fitted, x))
    eigenvalues = np.linalg.eigvalsh(cov)
    assert (eigenvalues < 1e-12).sum() == constant.sum()
    np.testing.assert_allclose(eigenvalues[constant.sum() :], 1, atol=1e-4)
    inked = torch.from_numpy(x[:1]).clone().view(1, -1)
    inked[0, np.flatnonzero(constant)[0]] = 16
    assert torch.equal(fitted(inked.view(1, 1, 8, 8)), fitted(digits.x[:1]))


def test_fewer_samples_than_features():
    x = RNG.normal(size=(5, 20))
    z = exact(ZCA.fit(arrays(x)), x)
    np.testing.assert_allclose(np.sort(np.linalg.eigvalsh(covariance(z)))[-4:], 1, atol=1e-6)
    assert np.linalg.matrix_rank(covariance(z), tol=1e-6) == 4


def test_zca_stays_nearest_to_the_samples():
    """Of all whitenings, ZCA has the largest correlation with x: trace of W·C is Σ √λ."""
    x = MIXED
    values, _ = decomposed(x)
    cov = covariance(x)
    zca, pca = (kind.fit(arrays(x), 0.0).matrix.numpy() for kind in (ZCA, PCAWhitening))
    np.testing.assert_allclose(np.trace(zca @ cov), np.sqrt(values).sum(), rtol=1e-9)
    assert np.trace(zca @ cov) > abs(np.trace(pca @ cov))


def test_whitened_images_stay_images():
    images = torch.from_numpy(IMAGES).contiguous(memory_format=torch.channels_last)
    z = ZCA.fit(Arrays(images, torch.zeros(300)))(images)
    assert z.shape == images.shape
    assert z.is_contiguous(memory_format=torch.channels_last)
    assert PCA.fit(Arrays(images, torch.zeros(300)))(images).shape == (300, 24)


EYE, TWO = torch.eye(2), torch.ones(2)
BAD = [
    (lambda: PCA(TWO, torch.eye(3)), "matrix must be of shape [2, 2], as the mean, received [3, 3]"),
    (lambda: ZCA(TWO, EYE * float("nan")), "mean and matrix must be finite, received 'NaN or infinity'"),
    (lambda: MeanImage(TWO * float("inf"), torch.tensor(1.0)), "mean must be finite, received 'NaN or infinity'"),
    (lambda: MeanImage(TWO, torch.tensor(0.0)), "unit must be one positive number, received 0.0"),
    (
        lambda: PCA(TWO, EYE)(torch.zeros(4, 3)),
        "pca: fitted on samples of shape [2], received a batch of shape [4, 3]",
    ),
    (lambda: MeanImage(TWO, torch.tensor(1.0))(torch.zeros(4, 3)), "mean_image: fitted on samples of shape [2]"),
    (
        lambda: ZCA.fit(Arrays(torch.zeros(2, 3, 64, 64, dtype=torch.uint8), torch.zeros(2))),
        "zca: a sample has 12288 values, whose covariance would be 12288 × 12288 numbers; at most 4096 are taken: "
        "use standardize or mean_image, or smaller images",
    ),
    (lambda: ZCA.fit(Arrays(MIXED, np.zeros(400)), -1), "epsilon must be 0 or more, in units of the mean variance"),
]


@pytest.mark.parametrize(("call", "message"), BAD, ids=[row[1][:40] for row in BAD])
def test_bad_whitenings(call, message):
    with pytest.raises(UserError) as caught:
        call()
    assert str(caught.value).startswith(message)
