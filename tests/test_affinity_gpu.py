"""The kernels of pixel affinities, against the CPU path."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from cv3gpu import _array
from cv3gpu.affinity import _gpu, knn_affinity, laplacian, ncut_value, pixel_affinity, rbf_affinity
from cv3gpu.affinity.pixel import PixelAffinity
from cv3gpu.eigen import smallest_eigenpairs
from tests.conftest import Path
from tests.tolerance import assert_close

DTYPES = ("float32", "float64")
# shape of the images, radius, inclusive
CASES = [
    ((1, 1, 1, 1), 5, False),
    ((2, 9, 35, 2), 3, True),  # several tiles, not full
    ((1, 3, 70, 1), 2.5, False),
    ((1, 17, 5, 3), 5, False),
    ((1, 4, 4, 1), 1, False),  # no neighbour
    ((1, 6, 7, 1), 12, False),  # everything is near
]
OPTIONS = {"sigma_intensity": 0.5, "self_weight": 0.7}


@contextlib.contextmanager
def without_kernels() -> Iterator[None]:
    """NumPy arrays take the CPU path, whatever runner is there."""
    token = _array.host_backend.set(None)
    try:
        yield
    finally:
        _array.host_backend.reset(token)


def both(path: Path, image: np.ndarray, **options: Any) -> tuple[PixelAffinity, PixelAffinity, np.ndarray]:
    """The affinity by the kernels, by the CPU path, and what that is in float64 as a matrix."""
    there = pixel_affinity(path.array(image), **OPTIONS, **options)
    with without_kernels():
        here = pixel_affinity(image, **OPTIONS, **options)
        exact = pixel_affinity(image.astype(np.float64), **OPTIONS, **options)
        images = range(len(exact)) if len(exact.shape) == 3 else [None]
        dense = np.stack([(exact if i is None else exact[i]).tocsr().toarray() for i in images])
    return there, here, dense if len(exact.shape) == 3 else dense[0]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("shape", "radius", "inclusive"), CASES, ids=str)
def test_gaussian_weights_and_degrees(
    kernel_path: Path, shape: Any, radius: float, inclusive: bool, dtype: str
) -> None:
    image = np.random.default_rng(0).random(shape).astype(dtype)
    there, here, dense = both(kernel_path, image, radius=radius, inclusive=inclusive)
    assert there.shape == here.shape and there.offsets == here.offsets
    with without_kernels():
        wanted = pixel_affinity(image.astype(np.float64), radius=radius, inclusive=inclusive, **OPTIONS).weights
    assert_close(kernel_path.numpy(there.weights), wanted, dtype, terms=100)
    assert_close(kernel_path.numpy(there.degree), dense.sum(-1), dtype, terms=100)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("shape", "radius"), [((9, 35), 5), ((2, 7, 6), 3), ((1, 9), 4)], ids=str)
def test_contour_weights(kernel_path: Path, shape: Any, radius: float, dtype: str) -> None:
    edge = np.random.default_rng(0).random(shape).astype(dtype)
    there, _, _ = both(kernel_path, edge, radius=radius, inclusive=True, kind="intervening_contour")
    with without_kernels():
        exact = pixel_affinity(edge.astype(np.float64), radius=radius, inclusive=True, kind="intervening_contour",
                               **OPTIONS)  # fmt: skip
    assert_close(kernel_path.numpy(there.weights), exact.weights, dtype, terms=16)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [1, 4, 8, 20])
@pytest.mark.parametrize(("shape", "radius", "inclusive"), CASES, ids=str)
def test_product(kernel_path: Path, shape: Any, radius: float, inclusive: bool, width: int, dtype: str) -> None:
    rng = np.random.default_rng(0)
    image = rng.random(shape).astype(dtype)
    there, _, dense = both(kernel_path, image, radius=radius, inclusive=inclusive)
    x = rng.standard_normal((shape[0], shape[1] * shape[2], width)).astype(dtype)
    got = kernel_path.numpy(there @ kernel_path.array(x))
    scale = np.abs(dense) @ np.abs(x.astype(np.float64))
    assert_close(got, dense @ x.astype(np.float64), dtype, terms=100, scale=scale)


@pytest.mark.parametrize("limit", [0, 60_000, 1 << 20])
def test_product_with_tiles_of_every_size(kernel_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    if limit == 1 << 20 and kernel_path.name != "host":
        limit = 1 << 16
    monkeypatch.setattr(_gpu, "_room", lambda x: limit)
    rng = np.random.default_rng(0)
    image = rng.random((1, 11, 37, 1)).astype("float32")
    there, _, dense = both(kernel_path, image, radius=4)
    x = rng.standard_normal((1, 407, 16)).astype("float32")
    assert_close(kernel_path.numpy(there @ kernel_path.array(x)), dense @ x, "float32", 100, np.abs(dense) @ np.abs(x))


def test_batches_are_taken_apart(kernel_path: Path) -> None:
    images = np.random.default_rng(0).random((3, 5, 6, 2))
    batch = pixel_affinity(kernel_path.array(images), radius=3)
    with without_kernels():
        here = pixel_affinity(images, radius=3)
    for i in range(3):
        np.testing.assert_allclose(kernel_path.numpy(batch[i].weights), here.weights[i], rtol=1e-12)
        np.testing.assert_allclose(kernel_path.numpy(batch[i].degree), here[i].degree, rtol=1e-12)


def test_eigenpairs_and_cuts_of_what_lives_on_the_device(kernel_path: Path) -> None:
    image = np.random.default_rng(0).random((26, 27))
    there = pixel_affinity(kernel_path.array(image), sigma_intensity=0.4)
    labels = np.arange(26 * 27) % 3
    found, cut = smallest_eigenpairs(there, 4, tol=1e-9), ncut_value(there, kernel_path.array(labels))
    matrix = laplacian(there)
    with without_kernels():
        here = pixel_affinity(image, sigma_intensity=0.4)
        wanted = smallest_eigenpairs(here, 4, tol=1e-9)
        assert cut == pytest.approx(ncut_value(here, labels), rel=1e-12)
    assert type(found.eigenvalues) is type(kernel_path.array(image))
    np.testing.assert_allclose(kernel_path.numpy(found.eigenvalues), wanted.eigenvalues, rtol=1e-10, atol=1e-15)
    np.testing.assert_allclose(kernel_path.numpy(found.eigenvectors), wanted.eigenvectors, atol=1e-6)
    assert tuple(matrix.shape) == (702, 702)


def test_graphs_of_points_on_the_device(kernel_path: Path) -> None:
    x = np.random.default_rng(0).random((30, 2))
    pairs = rbf_affinity(kernel_path.array(x), gamma=2.0)
    wanted = np.exp(-2.0 * ((x[:, None] - x) ** 2).sum(2))
    np.testing.assert_allclose(kernel_path.numpy(pairs), wanted, rtol=1e-12)
    assert tuple(knn_affinity(kernel_path.array(x), 3).shape) == (30, 30)
    assert tuple(rbf_affinity(kernel_path.array(x), gamma=2.0, eps=0.2).shape) == (30, 30)
