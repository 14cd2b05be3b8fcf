"""The exact Gaussian on the pixel grid against the full matrix of pair weights and against SciPy's filter."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
from scipy import ndimage

from cv3gpu import _array, _threads
from cv3gpu.crf import grid
from cv3gpu.crf.grid import GridGaussian
from tests.conftest import PATHS, Path
from tests.tolerance import assert_close

DTYPES = ("float32", "float64")


class Case(NamedTuple):
    """Images of a shape [B, H, W, C] and a width (x, y)."""

    shape: tuple[int, int, int, int]
    theta: tuple[float, float]


CASES = [
    Case((1, 1, 1, 4), (3.0, 3.0)),
    Case((2, 1, 61, 8), (3.0, 0.7)),  # several stretches along x, the last one not full
    Case((1, 67, 1, 4), (2.0, 4.0)),
    Case((3, 7, 13, 8), (1.5, 0.4)),
    Case((1, 9, 5, 152), (0.05, 50.0)),  # spans of channels, on both sides of the rounding
    Case((2, 12, 24, 24), (3.0, 3.0)),  # whole stretches
    Case((1, 37, 29, 24), (1.0, 6.0)),
    Case((1, 50, 3, 12), (0.3, 50.0)),  # a radius of the whole image
    Case((1, 2, 75, 4), (50.0, 0.2)),
    Case((1, 5, 4, 44), (0.01, 0.17)),  # the pixel alone
]


def pair_weights(case: Case, by: str = "") -> np.ndarray:
    """The weights of all pairs of pixels of an image, or their derivative by theta ``by``."""
    _, height, width, _ = case.shape
    y, x = (index.ravel() for index in np.indices((height, width)))
    dx2, dy2 = np.subtract.outer(x, x) ** 2, np.subtract.outer(y, y) ** 2
    theta_x, theta_y = case.theta
    weights = np.exp(-0.5 * (dx2 / theta_x**2 + dy2 / theta_y**2))
    slope = {"": 1.0, "x": dx2 / theta_x**3, "y": dy2 / theta_y**3}
    return weights * slope[by]


def summed(case: Case, values: np.ndarray, by: str = "") -> np.ndarray:
    """All pairs, in float64."""
    images = values.astype(np.float64).reshape(case.shape[0], -1, case.shape[3])
    return (pair_weights(case, by) @ images).reshape(values.shape)


def random_rows(case: Case, dtype: str, seed: int = 0) -> np.ndarray:
    """Values of both signs, one row a pixel."""
    batch, height, width, channels = case.shape
    rng = np.random.default_rng(seed)
    return rng.standard_normal((batch * height * width, channels)).astype(dtype)


def gaussian(path: Path, case: Case, dtype: str) -> tuple[GridGaussian, Any, np.ndarray]:
    """The operator, its values on the path, and in NumPy."""
    values = random_rows(case, dtype)
    there = path.array(values)
    return GridGaussian(there, case.shape[:3], case.theta), there, values


@contextlib.contextmanager
def without_kernels() -> Iterator[None]:
    """NumPy arrays take the CPU path, whatever runner is there."""
    token = _array.host_backend.set(None)
    try:
        yield
    finally:
        _array.host_backend.reset(token)


def terms(case: Case) -> int:
    """How many numbers a sum has."""
    return case.shape[1] + case.shape[2]


# ---- values ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_spread_is_the_sum_over_all_pairs(path: Path, case: Case, dtype: str) -> None:
    smooth, there, values = gaussian(path, case, dtype)
    result = smooth.spread(there)
    assert type(result) is type(there) and result.dtype == there.dtype
    scale = summed(case, np.abs(values))
    assert_close(path.numpy(result), summed(case, values), dtype, terms(case), scale)
    assert np.array_equal(path.numpy(there), values)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_theta_vjp_is_the_derivative_over_all_pairs(path: Path, case: Case, dtype: str) -> None:
    smooth, there, values = gaussian(path, case, dtype)
    grad = random_rows(case, dtype, seed=1)
    result = smooth.theta_vjp(there, path.array(grad))
    assert type(result) is type(there) and str(result.dtype).endswith("float64") and tuple(result.shape) == (2,)
    for got, by in zip(path.numpy(result), "xy", strict=True):
        wanted = np.sum(grad * summed(case, values, by))
        scale = np.sum(np.abs(grad) * summed(case, np.abs(values), by))
        tiny = 1e-30 if dtype == "float32" else 0.0  # weights below the least float32
        assert_close(np.array([got]), np.array([wanted]), dtype, terms(case), np.array([scale + tiny]))


@pytest.mark.parametrize("by", [0, 1])
def test_theta_vjp_is_the_slope_of_the_sum(cpu_path: Path, by: int) -> None:
    case = Case((2, 9, 11, 4), (1.7, 2.3))
    smooth, there, _ = gaussian(cpu_path, case, "float64")
    grad = random_rows(case, "float64", seed=1)
    step = 1e-5
    sums = []
    for change in (-step, step):
        theta = [*case.theta]
        theta[by] += change
        moved = GridGaussian(there, case.shape[:3], (theta[0], theta[1])).spread(there)
        sums.append(np.sum(grad * cpu_path.numpy(moved)))
    slope = (sums[1] - sums[0]) / (2 * step)
    result = cpu_path.numpy(smooth.theta_vjp(there, cpu_path.array(grad)))
    assert result[by] == pytest.approx(slope, rel=1e-7)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("theta", [(3.0, 3.0), (0.8, 5.0), (12.0, 1.0), (40.0, 30.0)])
def test_spread_is_scipys_filter(cpu_path: Path, theta: tuple[float, float], dtype: str) -> None:
    case = Case((2, 150, 171, 4), theta)
    smooth, there, values = gaussian(cpu_path, case, dtype)
    images = values.astype(np.float64).reshape(case.shape)
    reach, wanted, scale = 9.0, images, np.abs(images)
    for axis, t in ((2, theta[0]), (1, theta[1])):
        radius = np.arange(-int(reach * t + 0.5), int(reach * t + 0.5) + 1)
        norm = np.exp(-0.5 * (radius / t) ** 2).sum()
        wanted, scale = (
            norm * ndimage.gaussian_filter1d(x, t, axis, mode="constant", truncate=reach) for x in (wanted, scale)
        )
    result = cpu_path.numpy(smooth.spread(there)).reshape(case.shape)
    assert_close(result, wanted, dtype, terms(case), scale)


@pytest.mark.parametrize("dtype", DTYPES)
def test_products_and_loops_agree(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case((2, 140, 133, 8), (7.0, 20.0))
    smooth, there, values = gaussian(PATHS["numpy"], case, dtype)
    loops = smooth.spread(there)
    monkeypatch.setattr(grid, "LOOPS", 0)
    products = smooth.spread(there)
    scale = smooth.spread(np.abs(values)).astype(np.float64)
    assert not np.array_equal(loops, products)
    assert_close(products, loops.astype(np.float64), dtype, 2 * terms(case), scale)


@pytest.mark.parametrize("dtype", DTYPES)
def test_kernels_agree_with_the_cpu(kernel_path: Path, dtype: str) -> None:
    case = Case((2, 40, 53, 12), (3.0, 2.0))
    values, grad = random_rows(case, dtype), random_rows(case, dtype, seed=1)
    smooth, there, _ = gaussian(kernel_path, case, dtype)
    result = kernel_path.numpy(smooth.spread(there))
    slopes = kernel_path.numpy(smooth.theta_vjp(there, kernel_path.array(grad)))
    with without_kernels():
        plain = GridGaussian(values, case.shape[:3], case.theta)
        wanted, scale = plain.spread(values), plain.spread(np.abs(values))
        wanted_slopes, slope_scale = plain.theta_vjp(values, grad), plain.theta_vjp(np.abs(values), np.abs(grad))
    assert_close(result, wanted.astype(np.float64), dtype, terms(case), scale.astype(np.float64))
    assert_close(slopes, wanted_slopes, dtype, terms(case), slope_scale)


# ---- properties -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(0, 4, 5, 8), (2, 0, 5, 4), (1, 3, 0, 4), (2, 3, 4, 0)])
def test_nothing_gives_nothing(path: Path, shape: tuple[int, int, int, int]) -> None:
    smooth, there, _ = gaussian(path, Case(shape, (3.0, 3.0)), "float32")
    assert tuple(smooth.spread(there).shape) == tuple(there.shape)
    assert np.array_equal(path.numpy(smooth.theta_vjp(there, there)), [0.0, 0.0])


@pytest.mark.parametrize("dtype", DTYPES)
def test_repeated_runs_are_equal_to_the_bit(path: Path, dtype: str) -> None:
    case = Case((2, 31, 26, 8), (3.0, 1.0))
    smooth, there, _ = gaussian(path, case, dtype)
    grad = path.array(random_rows(case, dtype, seed=1))
    first, slopes = path.numpy(smooth.spread(there)), path.numpy(smooth.theta_vjp(there, grad))
    for _ in range(2):
        assert np.array_equal(path.numpy(smooth.spread(there)), first)
        assert np.array_equal(path.numpy(smooth.theta_vjp(there, grad)), slopes)


def test_threads_do_not_change_a_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case((1, 301, 40, 8), (3.0, 2.0))
    smooth, there, _ = gaussian(PATHS["numpy"], case, "float32")
    results = []
    for cores in (1, 3, 64):
        monkeypatch.setattr(grid, "cores", lambda cores=cores: cores)
        monkeypatch.setattr(_threads, "cores", lambda cores=cores: cores)
        results.append(smooth.spread(there))
    assert np.array_equal(results[0], results[1]) and np.array_equal(results[0], results[2])


def test_images_of_a_batch_do_not_mix(path: Path) -> None:
    case = Case((3, 5, 6, 4), (50.0, 50.0))
    smooth, there, values = gaussian(path, case, "float32")
    together = path.numpy(smooth.spread(there)).reshape(case.shape)
    one = Case((1, *case.shape[1:]), case.theta)
    for image in range(3):
        rows = path.array(np.ascontiguousarray(values.reshape(3, -1, 4)[image]))
        alone = path.numpy(GridGaussian(rows, one.shape[:3], one.theta).spread(rows))
        assert np.array_equal(alone.reshape(case.shape[1:]), together[image])


def test_a_narrow_gaussian_is_the_identity(path: Path) -> None:
    smooth, there, values = gaussian(path, Case((1, 4, 7, 8), (0.01, 1e-200)), "float64")
    assert np.array_equal(path.numpy(smooth.spread(there)), values)
    assert np.array_equal(path.numpy(smooth.theta_vjp(there, there)), [0.0, 0.0])


def test_an_endless_gaussian_is_the_sum(path: Path) -> None:
    case = Case((2, 4, 7, 8), (1e200, 1e12))
    smooth, there, values = gaussian(path, case, "float64")
    total = np.broadcast_to(values.reshape(2, 28, 8).sum(axis=1, keepdims=True), (2, 28, 8)).reshape(56, 8)
    scale = np.broadcast_to(np.abs(values).reshape(2, 28, 8).sum(axis=1, keepdims=True), (2, 28, 8)).reshape(56, 8)
    assert_close(path.numpy(smooth.spread(there)), total, "float64", 28, scale)


def test_k_is_symmetric(path: Path) -> None:
    case = Case((1, 13, 17, 8), (2.0, 4.0))
    smooth, there, values = gaussian(path, case, "float64")
    other = random_rows(case, "float64", seed=1)
    forth = np.sum(other * path.numpy(smooth.spread(there)))
    back = np.sum(values * path.numpy(smooth.spread(path.array(other), transposed=True)))
    assert forth == pytest.approx(back, rel=1e-12)


def test_rows_belong_to_pixels() -> None:
    smooth = GridGaussian(np.zeros((6, 4)), (1, 2, 3), (1.0, 1.0))
    assert smooth.entries == 1
