"""The exact Gaussian filter against the sum over all pairs in float64; its bound, its gradient, its order."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from cv3gpu import _array, _njit
from cv3gpu.crf import _pairs_loops, pairs
from cv3gpu.crf.pairs import AllPairs
from tests.tolerance import TABLE, assert_close

DATA = Path(__file__).resolve().parents[1] / ".." / "shared" / "data" / "crf" / "exact_full_china320_L21_67_3_it5.npz"


def weights(features: np.ndarray) -> np.ndarray:
    """[B, N, N], by the definition."""
    apart = features[:, :, :, None].astype(np.float64) - features[:, :, None, :]
    return np.exp(-0.5 * (apart**2).sum(1))


def brute(features: np.ndarray, values: np.ndarray) -> np.ndarray:
    b, _, n = features.shape
    return (weights(features) @ values.astype(np.float64).reshape(b, n, -1)).reshape(values.shape)


def brute_vjp(features: np.ndarray, values: np.ndarray, grad: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The gradient, and the sum of its terms' absolute values."""
    b, _, n = features.shape
    v, g = (x.astype(np.float64).reshape(b, n, -1) for x in (values, grad))
    k = weights(features)
    pull = (g @ v.transpose(0, 2, 1) + v @ g.transpose(0, 2, 1)) * k
    size = (abs(g) @ abs(v).transpose(0, 2, 1) + abs(v) @ abs(g).transpose(0, 2, 1)) * k
    apart = features[:, :, None, :].astype(np.float64) - features[:, :, :, None]
    return (pull[:, None] * apart).sum(3), (size[:, None] * abs(apart)).sum(3)


def case(b: int, d: int, n: int, c: int, dtype: str, spread: float = 5.0, seed: int = 0) -> SimpleNamespace:
    """Features with clusters and outliers, values like probabilities, gradients of either sign."""
    rng = np.random.default_rng(seed)
    centre = rng.random((b, d, 7)) * spread
    features = np.take(centre, rng.integers(0, 7, n), axis=2) + rng.standard_normal((b, d, n)) * 0.3
    return SimpleNamespace(
        features=features.astype(dtype),
        values=rng.random((b * n, c)).astype(dtype),
        grad=rng.standard_normal((b * n, c)).astype(dtype),
    )


def close(got: np.ndarray, reference: np.ndarray, scale: np.ndarray, dtype: str, points: int) -> None:
    """Rounding as the table has it, of sums of products and of the weights; and what may be left out."""
    left_out = pairs.TOLERANCE[dtype]
    terms = 4 * points  # a weight is itself a sum of squares and a polynomial: twice the growth of the plain sum
    assert_close(got, reference, dtype, terms, scale + left_out / TABLE[dtype].accumulation / 4)


# ---- the filter -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("b", "d", "n", "c", "dtype"),
    [
        *((1, d, 300, 24, "float32") for d in (2, 3, 4, 5, 6, 8)),
        *((2, 5, n, 24, "float32") for n in (1, 63, 64, 65)),
        (1, 1, 65, 20, "float32"),
        (3, 7, 64, 24, "float32"),
        (3, 5, 100, 4, "float32"),
        (1, 5, 130, 16, "float32"),
        (1, 5, 130, 28, "float32"),
        (1, 5, 130, 44, "float32"),
        (1, 5, 130, 152, "float32"),
        *((b, d, n, 24, "float64") for b, d, n in ((1, 5, 300), (2, 5, 63), (3, 8, 65), (1, 5, 1))),
        (1, 5, 70, 4, "float64"),
        (1, 5, 70, 152, "float64"),
    ],
)
def test_filter_and_gradient(path: Any, b: int, d: int, n: int, c: int, dtype: str) -> None:
    x = case(b, d, n, c, dtype)
    given = [path.array(a) for a in (x.features, x.values, x.grad)]
    filter_ = AllPairs(given[0])
    result, gradient = filter_.spread(given[1]), filter_.feature_vjp(*given[1:])
    assert _array.family(result) == _array.family(gradient) == _array.family(given[0])
    assert _array.dtype_name(result) == _array.dtype_name(gradient) == dtype
    reference = brute(x.features, x.values)
    close(path.numpy(result), reference, reference, dtype, n)
    reference, scale = brute_vjp(x.features, x.values, x.grad)
    close(path.numpy(gradient), reference, scale, dtype, n * c)
    assert 0 < filter_.kept <= 1
    again = AllPairs(given[0])
    assert np.array_equal(path.numpy(again.spread(given[1])), path.numpy(result))
    assert np.array_equal(path.numpy(again.feature_vjp(*given[1:])), path.numpy(gradient))


@pytest.mark.parametrize("shape", [(1, 3, 0), (0, 3, 70), (0, 1, 0)])
def test_no_points(path: Any, shape: tuple[int, int, int]) -> None:
    filter_ = AllPairs(path.array(np.zeros(shape, np.float32)))
    values = path.array(np.zeros((0, 8), np.float32))
    assert path.numpy(filter_.spread(values)).shape == (0, 8)
    assert path.numpy(filter_.feature_vjp(values, values)).shape == shape
    assert filter_.kept == 1.0


def test_no_channels(path: Any) -> None:
    filter_ = AllPairs(path.array(np.zeros((2, 3, 5), np.float32)))
    values = path.array(np.zeros((10, 0), np.float32))
    assert path.numpy(filter_.spread(values)).shape == (10, 0)
    assert np.array_equal(path.numpy(filter_.feature_vjp(values, values)), np.zeros((2, 3, 5)))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_without_tensor_cores(host_backend: Any, dtype: str) -> None:
    host_backend.capability = 75
    for c in (4, 24, 64):
        x = case(2, 5, 100, c, dtype)
        result = AllPairs(x.features).spread(x.values)
        reference = brute(x.features, x.values)
        close(result, reference, reference, dtype, 100)


def test_equal_points(path: Any) -> None:
    x = path.array(np.full((1, 5, 200), 3.25, np.float32))
    ones = path.array(np.ones((200, 4), np.float32))
    filter_ = AllPairs(x)
    assert np.array_equal(path.numpy(filter_.spread(ones)), np.full((200, 4), 200.0))
    assert np.array_equal(path.numpy(filter_.feature_vjp(ones, ones)), np.zeros((1, 5, 200)))
    assert filter_.kept == 1.0


def test_nan_and_infinity_end(path: Any) -> None:
    x = case(2, 5, 300, 4, "float32", spread=40.0)
    x.features[1, 2, 77] = np.nan
    result = path.numpy(AllPairs(path.array(x.features)).spread(path.array(x.values))).reshape(2, 300, 4)
    assert np.isnan(result[1]).all()
    reference = brute(x.features[:1], x.values[:300])
    close(result[0], reference, reference, "float32", 300)
    for low, high in ((-np.inf, np.nan), (np.inf, -np.inf)):
        x.features[:, 0, :100], x.features[:, 1, 50:250] = low, high
        AllPairs(path.array(x.features)).spread(path.array(x.values))


def test_order_of_points_does_not_matter(path: Any) -> None:
    x = case(1, 5, 300, 4, "float64")
    shuffled = np.random.default_rng(1).permutation(300)
    result = path.numpy(AllPairs(path.array(x.features)).spread(path.array(x.values)))
    other = AllPairs(path.array(np.ascontiguousarray(x.features[:, :, shuffled])))
    moved = path.numpy(other.spread(path.array(x.values[shuffled])))
    np.testing.assert_allclose(moved, result[shuffled], rtol=1e-12)


def test_products_keep_float32(kernel_path: Any) -> None:
    """Three TF32 products are no worse than the rounding of float32 sums; one would be off by 5e-4."""
    x = case(1, 5, 256, 24, "float32", spread=0.5)
    x.values *= np.exp2(np.random.default_rng(2).integers(-20, 20, x.values.shape[1])).astype(np.float32)
    result = kernel_path.numpy(AllPairs(kernel_path.array(x.features)).spread(kernel_path.array(x.values)))
    reference = brute(x.features, x.values)
    error = abs(result - reference) / reference
    assert error.max() < 1e-6
    assert error.mean() < 2e-7


# ---- what is left out -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_error_is_within_the_bound(path: Any, dtype: str) -> None:
    x = case(1, 5, 1100, 4, dtype, spread=10.0)
    x.values *= np.array([1, 7, 0.1, 1], dtype)
    reference = brute(x.features, x.values)
    rounding = 2 * np.finfo(dtype).eps * (2 * np.sqrt(4 * 1100) + 4) * reference
    shares, errors = [], []
    for tolerance in (None, 0.1, 10.0, 1e9):
        filter_ = AllPairs(path.array(x.features), tolerance)
        error = abs(path.numpy(filter_.spread(path.array(x.values))) - reference)
        allowed = pairs.TOLERANCE[dtype] if tolerance is None else tolerance
        assert (error <= allowed * abs(x.values).max(0) + rounding).all()
        shares.append(filter_.kept)
        errors.append((error / abs(x.values).max(0)).max())
    assert shares == sorted(shares, reverse=True)
    assert shares[0] < 0.9 and shares[-1] == 0.0
    assert errors[2] > 1e-2  # the bound is put to use
    assert AllPairs(path.array(x.features), 0.0).kept >= shares[0]


def test_tolerance_zero_keeps_all(path: Any) -> None:
    filter_ = AllPairs(path.array(case(1, 5, 500, 4, "float32", spread=1e4).features), 0.0)
    assert filter_.kept == 1.0


def test_huge_and_tiny_features(path: Any) -> None:
    for scale in (1e-30, 1e25):
        x = case(1, 5, 200, 4, "float32")
        x.features = (x.features * scale).astype(np.float32)
        result = path.numpy(AllPairs(path.array(x.features)).spread(path.array(x.values)))
        reference = brute(x.features, x.values)
        close(result, reference, reference, "float32", 200)


# ---- the gradient -----------------------------------------------------------------------------------------


def test_gradient_is_that_of_the_filter(cpu_path: Any) -> None:
    x = case(1, 5, 70, 8, "float64", spread=2.0)
    step = 1e-5
    gradient = cpu_path.numpy(
        AllPairs(cpu_path.array(x.features)).feature_vjp(cpu_path.array(x.values), cpu_path.array(x.grad))
    )
    rng = np.random.default_rng(3)
    for _ in range(8):
        d, n = rng.integers(5), rng.integers(70)
        losses = []
        for sign in (1, -1):
            moved = x.features.copy()
            moved[0, d, n] += sign * step
            result = AllPairs(cpu_path.array(moved)).spread(cpu_path.array(x.values))
            losses.append((cpu_path.numpy(result) * x.grad).sum())
        assert gradient[0, d, n] == pytest.approx((losses[0] - losses[1]) / (2 * step), rel=1e-6, abs=1e-6)


# ---- CPU path ---------------------------------------------------------------------------------------------


def test_threads_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    x = case(2, 5, 3000, 24, "float32", spread=15.0)
    found = []
    for threads in ("1", "64"):
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
        filter_ = AllPairs(x.features)
        found.append((filter_.spread(x.values), filter_.feature_vjp(x.values, x.grad)))
    for one, many in zip(*found, strict=True):
        assert np.array_equal(one, many)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_exponential(dtype: str) -> None:
    c = np.array(_pairs_loops.EXP2[dtype], dtype)
    lowest = float(c[1])
    exponent = np.concatenate([lowest * np.random.default_rng(0).random(200_000) ** 3, [0.0, 4 * lowest]])
    x = (exponent / float(c[0])).astype(dtype)
    wanted = np.exp2(np.maximum((x * c[0]).astype(np.longdouble), lowest))
    shifted = np.empty_like(x)
    bits = f"int{8 * x.itemsize}"
    _njit.compiled(_pairs_loops._exp2)(x, shifted, c)
    _njit.compiled(_pairs_loops._scale)(x.view(bits), shifted.view(bits), dtype == "float32")
    ulp = np.exp2(np.floor(np.log2(wanted))) * np.finfo(dtype).eps
    assert (abs(x - wanted) / ulp).max() < 1.3
    assert x[-2] == 1.0


def test_compiled_without_dispatcher() -> None:
    x = case(1, 5, 100, 4, "float32")
    AllPairs(x.features).feature_vjp(x.values, x.grad)
    for entry in vars(pairs).values():
        assert not getattr(entry, "refused", None)


@pytest.mark.skipif(not DATA.is_file(), reason="needs ../shared/data/crf")
def test_photo() -> None:
    with np.load(DATA) as data:
        image, sxy, srgb = data["image"], float(data["sxy_bil"]), float(data["srgb_bil"])
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    features = np.stack([x / sxy, y / sxy, *(image.transpose(2, 0, 1) / srgb)]).reshape(1, 5, -1).astype(np.float32)
    rng = np.random.default_rng(0)
    values = rng.random((features.shape[2], 24)).astype(np.float32)
    filter_ = AllPairs(features)
    assert filter_.kept < 0.11
    result = filter_.spread(values)
    points = rng.choice(features.shape[2], 200, replace=False)
    squared = np.zeros((200, features.shape[2]))
    for f in features[0].astype(np.float64):
        squared += (f[points, None] - f) ** 2
    reference = np.exp(-0.5 * squared) @ values.astype(np.float64)
    assert (abs(result[points] - reference) / reference).max() < 1e-6


@pytest.mark.parametrize(
    ("shape", "dtype", "error", "message"),
    [
        ((5, 10), "float32", ValueError, r"AllPairs: features must have shape \[B, D, N\], got \(5, 10\)"),
        ((1, 9, 10), "float32", ValueError, "AllPairs: number of features must be from 1 to 8, got 9"),
        ((1, 0, 10), "float32", ValueError, "AllPairs: number of features must be from 1 to 8, got 0"),
        ((1, 5, 10), "int32", TypeError, "AllPairs: features must have dtype float32 or float64, got int32"),
    ],
)
def test_refusals(shape: tuple[int, ...], dtype: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        AllPairs(np.zeros(shape, dtype))
