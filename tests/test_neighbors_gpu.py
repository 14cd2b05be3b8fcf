"""The kernels of graphs over points against sorted distances, scikit-learn and the CPU path."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from cv3gpu import _array
from cv3gpu.affinity import _neighbors_cpu, _neighbors_gpu, knn_affinity, rbf_affinity
from tests.conftest import Path
from tests.tolerance import assert_close

DTYPES = ("float32", "float64")


def points(count: int, dims: int, dtype: str = "float64", seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, dims)).astype(dtype)


def lattice(count: int, dims: int, dtype: str = "float64", seed: int = 0) -> np.ndarray:
    """Whole numbers: many distances are the same, and none is rounded."""
    return np.random.default_rng(seed).integers(0, 3, (count, dims)).astype(dtype)


def sorted_pairs(x: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Square distances of the nearest, and which they are: by distance, then number."""
    square = cdist(x.astype(np.float64), x.astype(np.float64), "sqeuclidean")
    index = np.argsort(square, axis=1, kind="stable")[:, :count]
    return np.take_along_axis(square, index, 1), index


def dense(matrix: Any) -> np.ndarray:
    return matrix.to_dense().cpu().numpy() if hasattr(matrix, "to_dense") else matrix.toarray()


def knn(x: np.ndarray, count: int, gamma: float | None) -> np.ndarray:
    square, index = sorted_pairs(x, count)
    a = np.zeros((len(x), len(x)))
    np.put_along_axis(a, index, 1.0 if gamma is None else np.exp(-gamma * square), 1)
    np.fill_diagonal(a, 0)
    return (a + a.T) / 2


# ---- the nearest ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("count", "dims", "wanted"),
    [(1, 1, 1), (5, 2, 5), (64, 4, 10), (65, 5, 33), (97, 17, 64), (130, 3, 100)],
)
def test_nearest_is_by_distance_and_then_by_number(
    kernel_path: Path, count: int, dims: int, wanted: int, dtype: str
) -> None:
    """One tile and several, one pass and several; ties everywhere."""
    x = lattice(count, dims, dtype)
    square, index = _neighbors_gpu.nearest(kernel_path.array(x), wanted)
    exact, order = sorted_pairs(x, wanted)
    np.testing.assert_array_equal(kernel_path.numpy(index), order)
    np.testing.assert_array_equal(kernel_path.numpy(square), exact)


@pytest.mark.parametrize(("count", "wanted"), [(150, 5), (100, 70)])
def test_parts_of_the_points_are_merged(
    kernel_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, wanted: int
) -> None:
    monkeypatch.setattr(_neighbors_gpu, "_LEAST", 64)
    x = kernel_path.array(lattice(count, 2))
    assert _neighbors_gpu._parts(x)[1] > 1
    _, index = _neighbors_gpu.nearest(x, wanted)
    np.testing.assert_array_equal(kernel_path.numpy(index), sorted_pairs(kernel_path.numpy(x), wanted)[1])
    square = cdist(kernel_path.numpy(x), kernel_path.numpy(x), "sqeuclidean")
    np.testing.assert_array_equal(dense(rbf_affinity(x, gamma=0.0, eps=1.0)), square <= 1)


@pytest.mark.parametrize("dtype", DTYPES)
def test_distances_are_as_exact_as_said(kernel_path: Path, dtype: str) -> None:
    x = points(150, 40, dtype) + 100  # an offset costs nothing: differences are squared
    square, index = (kernel_path.numpy(a) for a in _neighbors_gpu.nearest(kernel_path.array(x), 20))
    exact, _ = sorted_pairs(x, 150)
    own = np.take_along_axis(cdist(x.astype(np.float64), x.astype(np.float64), "sqeuclidean"), index.astype(int), 1)
    np.testing.assert_allclose(square, own, rtol=43 * np.finfo(dtype).eps / 2)
    np.testing.assert_allclose(np.sort(own, 1), exact[:, :20], rtol=43 * np.finfo(dtype).eps)


def test_lists_of_the_worst_order(kernel_path: Path) -> None:
    """Points that come nearer and nearer to the first one: each goes to the front of its list."""
    x = np.concatenate([[0.0], np.arange(130.0, 0.0, -1.0)])[:, None]
    _, index = _neighbors_gpu.nearest(kernel_path.array(x), 40)
    np.testing.assert_array_equal(kernel_path.numpy(index), sorted_pairs(x, 40)[1])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("gamma", [None, 0.3])
@pytest.mark.parametrize(("make", "count", "dims", "wanted"), [(points, 90, 6, 5), (lattice, 120, 2, 9)])
def test_graph_is_the_symmetric_one(
    kernel_path: Path, make: Any, count: int, dims: int, wanted: int, gamma: float | None, dtype: str
) -> None:
    x = make(count, dims, dtype)
    got = knn_affinity(kernel_path.array(x), wanted, gamma=gamma)
    assert str(got.dtype).endswith(dtype) and (kernel_path.is_torch == hasattr(got, "to_dense"))
    matrix = dense(got)
    assert_close(matrix, knn(x, wanted, gamma), dtype, terms=30)
    np.testing.assert_array_equal(matrix, matrix.T)
    if not kernel_path.is_torch:
        assert (np.diff(kernel_path.numpy(got.indptr)) == (matrix != 0).sum(1)).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_graph_is_that_of_scikit_learn(kernel_path: Path, dtype: str) -> None:
    neighbors = pytest.importorskip("sklearn.neighbors")
    x = points(140, 7, dtype, 3)
    a = neighbors.kneighbors_graph(x, 11, include_self=True).toarray()
    np.fill_diagonal(a, 0)
    np.testing.assert_array_equal(dense(knn_affinity(kernel_path.array(x), 11)), (a + a.T) / 2)


def test_equal_points(kernel_path: Path) -> None:
    """More of them than neighbours: the lowest numbers are the neighbours of all, and not always the point itself."""
    x = np.full((70, 3), 2.5)
    np.testing.assert_array_equal(dense(knn_affinity(kernel_path.array(x), 4)), knn(x, 4, None))


@settings(max_examples=12, deadline=None, derandomize=True)
@given(st.integers(1, 150), st.integers(1, 20), st.booleans(), st.booleans(), st.data())
def test_any_points(count: int, dims: int, single: bool, ties: bool, data: st.DataObject) -> None:
    """The CPU's two ways and the kernels find the same."""
    from tests.hostrun import HostBackend

    wanted = data.draw(st.integers(1, count))
    x = (lattice if ties else points)(count, dims, "float32" if single else "float64", count)
    order = sorted_pairs(x, wanted)[1]
    np.testing.assert_array_equal(_neighbors_cpu._all(x, np.arange(count), wanted)[1], order)
    np.testing.assert_array_equal(_neighbors_cpu._tree(x, wanted)[1], order)
    token = _array.host_backend.set(HostBackend(mode="check", order="random", seed=count))
    try:
        np.testing.assert_array_equal(_neighbors_gpu.nearest(x, wanted)[1], order)
    finally:
        _array.host_backend.reset(token)


# ---- a radius, all pairs --------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("count", "dims", "eps"), [(1, 1, 1.0), (66, 2, 1.0), (130, 18, 4.5), (40, 2, 1e-3)])
def test_edges_are_those_within_the_radius(kernel_path: Path, count: int, dims: int, eps: float, dtype: str) -> None:
    x = points(count, dims, dtype)
    square = cdist(x.astype(np.float64), x.astype(np.float64), "sqeuclidean")
    got = rbf_affinity(kernel_path.array(x), gamma=0.7, eps=eps)
    assert_close(dense(got), np.exp(-0.7 * square) * (square <= eps * eps), dtype, terms=400)


def test_the_radius_itself_counts_and_columns_ascend(kernel_path: Path) -> None:
    x = lattice(100, 2)
    got = rbf_affinity(kernel_path.array(x), gamma=0.0, eps=2.0)
    square = cdist(x, x, "sqeuclidean")
    np.testing.assert_array_equal(dense(got), square <= 4)
    columns = got.col_indices() if kernel_path.is_torch else got.indices
    np.testing.assert_array_equal(kernel_path.numpy(columns), np.nonzero(square <= 4)[1])


def test_a_radius_beyond_all_numbers_connects_all(kernel_path: Path) -> None:
    x = points(30, 2, "float32")
    assert (dense(rbf_affinity(kernel_path.array(x), gamma=0.0, eps=1e30)) == 1).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("count", "dims"), [(1, 1), (64, 3), (67, 21), (131, 2)])
def test_all_pairs(kernel_path: Path, count: int, dims: int, dtype: str) -> None:
    x = points(count, dims, dtype)
    got = kernel_path.numpy(rbf_affinity(kernel_path.array(x), gamma=0.2))
    wanted = np.exp(-0.2 * cdist(x.astype(np.float64), x.astype(np.float64), "sqeuclidean"))
    assert_close(got, wanted, dtype, terms=400)
    np.testing.assert_array_equal(got, got.T)


def test_strided_points_are_as_dense_ones(kernel_path: Path) -> None:
    wide = points(80, 8)
    one = knn_affinity(kernel_path.array(wide)[::2, ::2], 5)
    np.testing.assert_array_equal(dense(one), knn(wide[::2, ::2], 5, None))


def test_bits_repeat(kernel_path: Path) -> None:
    x = kernel_path.array(points(90, 9, "float32"))
    for call in (lambda: knn_affinity(x, 8, gamma=0.5), lambda: rbf_affinity(x, gamma=0.5, eps=3.0)):
        np.testing.assert_array_equal(dense(call()), dense(call()))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused(kernel_path: Path, bad: float) -> None:
    x = points(20, 3)
    x[7, 1] = bad
    with pytest.raises(ValueError, match=r"^knn_affinity: x must be finite, got"):
        knn_affinity(kernel_path.array(x), 3)
    with pytest.raises(ValueError, match=r"^rbf_affinity: x must be finite, got"):
        rbf_affinity(kernel_path.array(x), gamma=1.0, eps=1.0)


def test_distances_that_overflow_are_refused(kernel_path: Path) -> None:
    x = np.array([[0.0], [2e19]], "float32")
    with pytest.raises(ValueError, match=r"^knn_affinity: x must have square distances below 1e\+38, got"):
        knn_affinity(kernel_path.array(x), 1)
