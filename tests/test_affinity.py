"""Affinities of pixels and points, Laplacians and cut values, against sums over all pairs."""

from __future__ import annotations

import json
from pathlib import Path as File
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from scipy.spatial.distance import cdist

from cv3gpu import _njit
from cv3gpu.affinity import (
    _loops,
    _neighbors_cpu,
    _neighbors_loops,
    knn_affinity,
    laplacian,
    ncut_value,
    pixel_affinity,
    rbf_affinity,
)
from tests.conftest import Path
from tests.tolerance import assert_close

torch = pytest.importorskip("torch")

DATA = File(__file__).resolve().parents[1] / ".." / "shared" / "data" / "spectral"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data/spectral")
DTYPES = ("float32", "float64")
SHAPES = [(1, 1, 1), (1, 7, 1), (9, 1, 2), (3, 4, 1), (6, 23, 3), (17, 12, 1), (2, 300, 1)]
WIDTHS = (1, 3, 4, 12, 16, 28)


def pairs(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """The places of all pixels, and their squared distances."""
    place = np.stack(np.meshgrid(np.arange(height), np.arange(width), indexing="ij"), -1).reshape(-1, 2)
    return place, cdist(place, place, "sqeuclidean")


def gaussian(image: np.ndarray, radius: float, inclusive: bool, sigma: float, width: float, own: float) -> np.ndarray:
    _, square = pairs(*image.shape[:2])
    features = image.reshape(len(square), -1).astype(np.float64)
    near = square <= radius**2 if inclusive else square < radius**2
    w = np.exp(-cdist(features, features, "sqeuclidean") / sigma**2 - square / width**2) * near
    np.fill_diagonal(w, own)
    return w


def contour(edge: np.ndarray, radius: float, inclusive: bool, sigma: float, own: float) -> np.ndarray:
    place, square = pairs(*edge.shape)
    w = np.zeros_like(square)
    for i, (y, x) in enumerate(place):
        for j in range(i + 1, len(place)):  # i is the upper pixel, or the left one
            if square[i, j] < radius**2 or (inclusive and square[i, j] == radius**2):
                dy, dx = place[j] - place[i]
                n = max(abs(dy), abs(dx))
                line = [
                    (y + int(np.floor(dy * t / n + 0.5)), x + int(np.floor(dx * t / n + 0.5))) for t in range(n + 1)
                ]
                w[i, j] = w[j, i] = np.exp(-max(float(edge[at]) for at in line) / sigma)
    np.fill_diagonal(w, own)
    return w


def dense(matrix: Any) -> np.ndarray:
    return matrix.to_dense().numpy() if isinstance(matrix, torch.Tensor) else matrix.toarray()


def image_of(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(shape)


# ---- pixels ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("radius", "inclusive", "own"), [(5, False, 1.0), (2, True, 0.0), (3.3, False, 0.5)], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_gaussian_is_that_of_all_pairs(
    cpu_path: Path, shape: Any, radius: float, inclusive: bool, own: float, dtype: str
) -> None:
    image = image_of(shape).astype(dtype)
    given = image[:, :, 0] if shape[2] == 1 else image
    affinity = pixel_affinity(cpu_path.array(given), radius=radius, inclusive=inclusive, sigma_intensity=0.4,
                              sigma_distance=3.0, self_weight=own)  # fmt: skip
    wanted = gaussian(image, radius, inclusive, 0.4, 3.0, own)
    matrix = affinity.tocsr()
    assert isinstance(matrix, torch.Tensor) == cpu_path.is_torch and affinity.shape == wanted.shape
    got = dense(matrix)
    assert got.dtype == dtype and str(affinity.dtype).endswith(dtype)
    assert np.array_equal(got, got.T)
    assert_close(got, wanted, dtype, terms=400)  # the exponent is up to 20
    assert_close(cpu_path.numpy(affinity.degree), wanted.sum(1), dtype, terms=100)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("radius", "inclusive"), [(5, False), (3, True)], ids=str)
@pytest.mark.parametrize("shape", [(1, 6), (8, 1), (9, 11)], ids=str)
def test_contour_is_the_greatest_edge_on_the_line(
    cpu_path: Path, shape: Any, radius: float, inclusive: bool, dtype: str
) -> None:
    edge = image_of(shape).astype(dtype)
    affinity = pixel_affinity(cpu_path.array(edge), radius=radius, inclusive=inclusive, sigma_intensity=0.2,
                              kind="intervening_contour")  # fmt: skip
    assert_close(dense(affinity.tocsr()), contour(edge, radius, inclusive, 0.2, 1.0), dtype, terms=16)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_product_is_the_matrix_times_the_block(cpu_path: Path, shape: Any, width: int, dtype: str) -> None:
    image = image_of(shape).astype(dtype)
    affinity = pixel_affinity(cpu_path.array(image), radius=4, sigma_intensity=0.5)
    matrix = dense(affinity.tocsr()).astype(np.float64)
    x = np.random.default_rng(1).standard_normal((len(matrix), width)).astype(dtype)
    got = affinity @ cpu_path.array(x)
    assert str(got.dtype).endswith(dtype) and isinstance(got, torch.Tensor) == cpu_path.is_torch
    assert_close(cpu_path.numpy(got), matrix @ x, dtype, terms=50, scale=np.abs(matrix) @ np.abs(x))
    assert np.array_equal(cpu_path.numpy(affinity @ cpu_path.array(x[:, 0].copy())), cpu_path.numpy(got)[:, 0])


def test_product_of_no_vectors_is_empty() -> None:
    affinity = pixel_affinity(image_of((3, 4)))
    assert (affinity @ np.empty((12, 0))).shape == (12, 0)


def test_product_is_symmetric_and_repeats_bit_by_bit() -> None:
    affinity = pixel_affinity(image_of((70, 90)))  # rows in several threads, where there are
    x, y = np.random.default_rng(0).standard_normal((2, 6300, 8))
    product = affinity @ x
    np.testing.assert_allclose((y * product).sum(), (x * (affinity @ y)).sum(), rtol=1e-11)
    assert np.array_equal(product, affinity @ x)


@pytest.mark.parametrize("weights", DTYPES)
@pytest.mark.parametrize("width", [4, 8, 12, 16, 20, 28])
def test_compiled_product_does_what_python_says(width: int, weights: str) -> None:
    rng = np.random.default_rng(0)
    (stencil,) = pixel_affinity(rng.random((5, 14)).astype(weights), radius=3).stencils()
    x, diagonal, factor = rng.standard_normal((70, width)), rng.standard_normal(70), np.array([-0.7])
    found = []
    for run in (_njit.compiled(*_loops.PRODUCT), _loops.PRODUCT[-1]):
        out = np.full((70, width), np.nan)
        run(x, stencil.flat, stencil.dy, stencil.dx, stencil.plane, diagonal, factor, 5, 14, 0, 5, *stencil.work(), out)
        found.append(out)
    assert not _njit.compiled(*_loops.PRODUCT).refused
    np.testing.assert_allclose(found[0], found[1], rtol=0, atol=1e-13)


@settings(max_examples=20, deadline=None)
@given(
    st.integers(1, 9), st.integers(1, 9), st.integers(1, 3), st.floats(0.5, 12), st.booleans(), st.integers(0, 2**31)
)
def test_any_image(height: int, width: int, channels: int, radius: float, inclusive: bool, seed: int) -> None:
    image = image_of((height, width, channels), seed)
    affinity = pixel_affinity(image, radius=radius, inclusive=inclusive, sigma_intensity=0.7)
    wanted = gaussian(image, radius, inclusive, 0.7, 4.0, 1.0)
    np.testing.assert_allclose(affinity.tocsr().toarray(), wanted, rtol=1e-12)
    np.testing.assert_allclose(affinity @ np.eye(height * width), wanted, rtol=1e-12)


def test_batch_is_its_images(cpu_path: Path) -> None:
    images = image_of((3, 5, 8, 2))
    batch = pixel_affinity(cpu_path.array(images), radius=3)
    x = image_of((3, 40, 5), 1)
    product, degree = cpu_path.numpy(batch @ cpu_path.array(x)), cpu_path.numpy(batch.degree)
    assert batch.shape == (3, 40, 40) and len(batch) == 3 and tuple(batch.weights.shape) == (3, 12, 5, 8)
    for i, image in enumerate(images):
        alone = pixel_affinity(cpu_path.array(image), radius=3)
        assert np.array_equal(dense(batch[i].tocsr()), dense(alone.tocsr()))
        assert np.array_equal(cpu_path.numpy(alone @ cpu_path.array(x[i])), product[i])
        assert np.array_equal(cpu_path.numpy(alone.degree), degree[i])
    assert np.array_equal(dense(batch[-1].tocsr()), dense(batch[2].tocsr()))


def test_weights_and_offsets_say_the_same_as_the_matrix() -> None:
    affinity = pixel_affinity(image_of((6, 7)), radius=5)
    assert len(affinity.offsets) == 34 and affinity.grid == (6, 7) and "68" in repr(affinity)
    matrix = affinity.tocsr()
    for (dy, dx), plane in zip(affinity.offsets, affinity.weights, strict=True):
        for (y, x), w in np.ndenumerate(plane):
            inside = y + dy < 6 and 0 <= x + dx < 7
            assert w == (matrix[y * 7 + x, (y + dy) * 7 + x + dx] if inside else 0)
    assert matrix.has_sorted_indices and matrix.nnz == (matrix.toarray() > 0).sum()


@pytest.mark.parametrize(
    ("radius", "inclusive", "neighbours"),
    [(5, False, 68), (5, True, 80), (10, False, 304), (10, True, 316), (1, False, 0)],
)
def test_number_of_neighbours(radius: int, inclusive: bool, neighbours: int) -> None:
    affinity = pixel_affinity(image_of((2, 2)), radius=radius, inclusive=inclusive)
    assert 2 * len(affinity.offsets) == neighbours
    assert affinity.tocsr().shape == (4, 4) and (affinity @ np.ones(4)).shape == (4,)


def test_strided_images_are_as_dense_ones() -> None:
    image = image_of((10, 18, 2))
    assert np.array_equal(
        pixel_affinity(image[::2, ::-3]).weights, pixel_affinity(np.ascontiguousarray(image[::2, ::-3])).weights
    )


# ---- points ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("gamma", [None, 0.7])
def test_knn_is_the_symmetric_graph_of_sorted_distances(cpu_path: Path, gamma: float | None, dtype: str) -> None:
    x = image_of((60, 3)).astype(dtype)
    square = cdist(x, x, "sqeuclidean")
    a = np.zeros_like(square)
    for i, row in enumerate(square):
        nearest = np.argsort(row)[:7]
        a[i, nearest] = 1 if gamma is None else np.exp(-gamma * row[nearest])
    np.fill_diagonal(a, 0)
    got = knn_affinity(cpu_path.array(x), 7, gamma=gamma)
    assert isinstance(got, torch.Tensor) == cpu_path.is_torch and str(got.dtype).endswith(dtype)
    assert_close(dense(got), (a + a.T) / 2, dtype, terms=4)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("count", "dims", "wanted"), [(400, 2, 9), (300, 40, 6), (50, 3, 50)])
def test_ties_go_to_the_lowest_numbers(count: int, dims: int, wanted: int, dtype: str) -> None:
    """Whole numbers, of which many are as far; by the tree and by all distances."""
    x = np.random.default_rng(0).integers(0, 3, (count, dims)).astype(dtype)
    order = np.argsort(cdist(x, x, "sqeuclidean"), axis=1, kind="stable")[:, :wanted]
    for square, index in (_neighbors_cpu._tree(x, wanted), _neighbors_cpu._all(x, np.arange(count), wanted)):
        np.testing.assert_array_equal(index, order)
        np.testing.assert_allclose(square, np.take_along_axis(cdist(x, x, "sqeuclidean"), order, 1), rtol=1e-15)


def test_neighbours_in_float32_are_ranked_in_float64() -> None:
    """Distances of a point that are the same in float32, more of them than are spare, and not in float64."""
    x = np.zeros((60, 12), "float32")
    x[1:, 0] = 1
    x[1:, 1] = 3e-6 * np.random.default_rng(0).permutation(59)
    square = cdist(x.astype(float), x.astype(float), "sqeuclidean")
    assert len(set(np.float32(square[0, 1:]))) == 1 and len(set(square[0, 1:])) == 59
    found, index = _neighbors_cpu._all(x, np.arange(60), 6)
    np.testing.assert_array_equal(index, np.argsort(square, axis=1, kind="stable")[:, :6])
    np.testing.assert_allclose(found, np.sort(square, 1)[:, :6], rtol=1e-14)


def test_the_tree_takes_many_points_of_few_features() -> None:
    assert [_neighbors_cpu._by_tree(*s) for s in ((3000, 2), (1000, 2), (10**5, 8), (10**4, 8), (10**6, 64))] == [
        True, False, True, False, False,
    ]  # fmt: skip
    x = image_of((3500, 2))
    graph = knn_affinity(x, 5)
    square, index = _neighbors_cpu._all(x, np.arange(3500), 5)
    assert np.array_equal(_neighbors_cpu._tree(x, 5)[1], index) and np.all(square[:, 0] == 0)
    assert graph.nnz == len({(min(i, j), max(i, j)) for i, row in enumerate(index.tolist()) for j in row if i != j}) * 2


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("count", "dims", "eps"), [(1, 1, 1.0), (230, 2, 2.0), (300, 20, 4.0), (50, 3, 0.5), (40, 2, 1e200)]
)
def test_edges_within_a_radius_by_the_tree_and_by_all_distances(count: int, dims: int, eps: float, dtype: str) -> None:
    x = np.random.default_rng(0).integers(0, 3, (count, dims)).astype(dtype)  # many at exactly the radius
    square = cdist(x, x, "sqeuclidean")
    rows, wanted = np.nonzero(square <= eps * eps)
    for distance, columns, start in (_neighbors_cpu._tree_within(x, eps), _neighbors_cpu.within(x, eps)):
        np.testing.assert_array_equal(columns, wanted)
        np.testing.assert_array_equal(start, np.searchsorted(rows, np.arange(count + 1)))
        np.testing.assert_array_equal(distance, square[rows, wanted])


def test_compiled_neighbours_are_what_python_says() -> None:
    x = image_of((20, 3)).astype("float32")
    _neighbors_cpu._all(x, np.arange(20), 4)
    found = np.argsort(cdist(x, x), axis=1)[:, :9]
    results = []
    for run in (_njit.compiled(*_neighbors_loops.RANK), _neighbors_loops.RANK[-1]):
        square, index = np.full((20, 4), np.inf), np.full((20, 4), 20)
        run(x, np.arange(20), found, 0, 20, square, index)
        results.append((square, index))
    _neighbors_cpu.within(x, 0.5)
    for entry in (_neighbors_loops.NEAREST, _neighbors_loops.RANK, _neighbors_loops.WITHIN):
        assert not _njit.compiled(*entry).refused
    np.testing.assert_allclose(results[0][0], results[1][0], rtol=1e-14)
    assert np.array_equal(results[0][1], results[1][1])


@needs_data
@pytest.mark.parametrize("name", ["S01", "S02", "S03", "S04"])
def test_knn_is_the_graph_of_the_stored_cases(name: str) -> None:
    path = DATA / f"spectral_{name}.npz"
    if not path.exists():
        pytest.skip(f"no case {name}")
    with np.load(path) as file:
        parts = tuple(file[key] for key in ("A_data", "A_indices", "A_indptr"))
        got = knn_affinity(file["X"], 10)
    assert abs(got - sparse.csr_array(parts, got.shape)).max() == 0


@pytest.mark.parametrize("dtype", DTYPES)
def test_rbf_is_the_formula_with_and_without_a_radius(cpu_path: Path, dtype: str) -> None:
    x = image_of((40, 2)).astype(dtype)
    square = cdist(x, x, "sqeuclidean")
    wanted = np.exp(-2.0 * square)
    assert_close(cpu_path.numpy(rbf_affinity(cpu_path.array(x), gamma=2.0)), wanted, dtype, terms=16)
    near = rbf_affinity(cpu_path.array(x), gamma=2.0, eps=0.25)
    assert_close(dense(near), wanted * (square <= 0.25**2), dtype, terms=16)


# ---- Laplacians and cuts --------------------------------------------------------------------------------


def kinds(affinity: Any) -> dict[str, Any]:
    """An affinity in every form that is taken."""
    matrix = affinity.tocsr()
    parts = [torch.from_numpy(np.array(part)) for part in (matrix.indptr, matrix.indices, matrix.data)]
    return {
        "pixels": affinity,
        "csr": matrix,
        "coo matrix": sparse.coo_matrix(matrix),
        "dense": matrix.toarray(),
        "torch csr": torch.sparse_csr_tensor(*parts, size=matrix.shape),
        "torch dense": torch.from_numpy(matrix.toarray()),
    }


@pytest.mark.parametrize("kind", ["pixels", "csr", "coo matrix", "dense", "torch csr", "torch dense"])
def test_laplacian_of_every_form(kind: str) -> None:
    affinity = kinds(pixel_affinity(image_of((5, 6)), radius=2, self_weight=0.3))[kind]
    w = gaussian(image_of((5, 6)), 2, False, 0.1, 4.0, 0.3)
    degree = w.sum(1)
    plain = np.diag(degree) - w
    for normalization, wanted in {
        None: plain,
        "symmetric": plain / np.sqrt(degree)[:, None] / np.sqrt(degree),
        "random_walk": plain / degree[:, None],
    }.items():
        got = laplacian(affinity, normalization=normalization)
        assert isinstance(got, torch.Tensor) == kind.startswith("torch")
        np.testing.assert_allclose(dense(got), wanted, atol=1e-14)


def test_laplacian_of_a_vertex_alone_is_zero() -> None:
    w = np.array([[0.0, 1, 0], [1, 0, 0], [0, 0, 0]])
    for normalization in (None, "symmetric", "random_walk"):
        got = laplacian(w, normalization=normalization).toarray()
        assert not got[2].any() and not got[:, 2].any() and got[0, 0] == 1 and got[0, 1] == -1


def test_laplacian_keeps_float32() -> None:
    assert laplacian(pixel_affinity(image_of((3, 3)).astype("float32"))).dtype == np.float32


@pytest.mark.parametrize("kind", ["pixels", "csr", "coo matrix", "dense", "torch csr", "torch dense"])
def test_ncut_value_is_the_sum_of_cuts_over_volumes(kind: str) -> None:
    affinity = pixel_affinity(image_of((5, 6)), radius=3, sigma_intensity=1.0)
    w = affinity.tocsr().toarray()
    labels = np.random.default_rng(0).integers(-1, 3, 30)
    wanted = 0.0
    for label in np.unique(labels):
        inside = labels == label
        wanted += w[np.ix_(inside, ~inside)].sum() / w[inside].sum()
    given_labels = torch.from_numpy(labels) if kind.startswith("torch") else labels
    assert ncut_value(kinds(affinity)[kind], given_labels) == pytest.approx(wanted, rel=1e-13)
    assert ncut_value(affinity, labels.reshape(5, 6)) == pytest.approx(wanted, rel=1e-13)
    assert ncut_value(kinds(affinity)[kind], np.zeros(30, int)) == 0


def test_ncut_value_of_a_tiny_cut_keeps_its_digits() -> None:
    w = np.kron(np.eye(2), np.ones((50, 50)))
    w[0, 50] = w[50, 0] = 1e-18  # sums of degrees, less sums within, would lose it
    labels = np.repeat([0, 1], 50)
    assert ncut_value(w, labels) == pytest.approx(2 * 1e-18 / 2500, rel=1e-12)


@settings(max_examples=15, deadline=None)
@given(st.integers(2, 20), st.integers(1, 5), st.integers(0, 2**31))
def test_ncut_value_is_between_zero_and_the_number_of_segments(n: int, segments: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    w = rng.random((n, n))
    labels = rng.integers(0, segments, n)
    value = ncut_value(w + w.T, labels)
    assert 0 <= value <= len(np.unique(labels))
    assert ncut_value(w + w.T, labels.max() - labels) == pytest.approx(value)


@needs_data
@pytest.mark.parametrize("name", ["O01", "O02", "O04", "O05", "O07", "absent"])
def test_stored_cases_degrees_and_cut(name: str) -> None:
    path = DATA / f"ncut_{name}.npz"
    if not path.exists():
        pytest.skip(f"no case {name}")
    with np.load(path) as file:
        meta = json.loads(str(file["meta"]))
        image = file["pb"] if meta["kind"] == "ic" else file["feature"]
        degree, mask = file["degree"].ravel(), np.unpackbits(file["mask"])
    options = {"radius": meta["r"], "inclusive": meta["rule"] == "le", "sigma_intensity": meta["sigma_I"]}
    if meta["kind"] == "ic":
        affinity = pixel_affinity(image, kind="intervening_contour", self_weight=meta["self_weight"], **options)
    else:
        affinity = pixel_affinity(image, sigma_distance=meta["sigma_X"], self_weight=meta["self_weight"], **options)
    np.testing.assert_allclose(affinity.degree, degree, rtol=1e-12)
    cut = ncut_value(affinity, mask[: len(degree)].astype(int))
    np.testing.assert_allclose(cut, meta["ncut_best_exact"], rtol=1e-9)


# ---- refusals -------------------------------------------------------------------------------------------

IMAGE = np.zeros((4, 5))
PIXEL_REFUSALS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"image": [[0.0]]}, TypeError, "image must be a NumPy, CuPy or torch array, got list"),
    ({"image": np.zeros((4, 5), np.uint8)}, TypeError, "image must have dtype float32 or float64, got uint8"),
    ({"image": np.zeros((4, 5), np.float16)}, TypeError, "image must have dtype float32 or float64, got float16"),
    ({"image": np.zeros(4)}, ValueError, "image must have shape"),
    ({"image": np.zeros((2, 3, 4, 5, 6))}, ValueError, "image must have shape"),
    ({"image": np.zeros((2, 3, 4, 1)), "kind": "intervening_contour"}, ValueError, "image must have shape"),
    ({"image": np.zeros((0, 5))}, ValueError, "image must not be empty"),
    ({"image": np.full((2, 2), np.nan)}, ValueError, "image must be finite, got nan"),
    ({"image": np.full((2, 2), -np.inf)}, ValueError, "image must be finite, got -inf"),
    ({"image": -np.ones((2, 2)), "kind": "intervening_contour"}, ValueError, "image must not be negative"),
    ({"radius": 0}, ValueError, "radius must be finite and positive"),
    ({"radius": "5"}, TypeError, "radius must be a number"),
    ({"radius": 65}, ValueError, "radius must be at most 64"),
    ({"inclusive": 1}, TypeError, "inclusive must be True or False"),
    ({"sigma_intensity": 0.0}, ValueError, "sigma_intensity must be finite and positive"),
    ({"sigma_distance": -1.0}, ValueError, "sigma_distance must be finite and positive"),
    ({"self_weight": -0.1}, ValueError, "self_weight must not be negative"),
    ({"self_weight": np.inf}, ValueError, "self_weight must be finite"),
    ({"kind": "euclid"}, ValueError, "kind must be one of 'gaussian', 'intervening_contour'"),
]


@pytest.mark.parametrize(("options", "error", "text"), PIXEL_REFUSALS)
def test_pixel_affinity_refuses(options: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=f"^pixel_affinity: {text}"):
        pixel_affinity(**{"image": IMAGE, **options})


@pytest.mark.parametrize(
    ("x", "error", "text"),
    [
        ([1.0] * 20, TypeError, "x must be a NumPy, CuPy or torch array, got list"),
        (torch.zeros(20, dtype=torch.float64), TypeError, "x must be, like the affinity, of numpy on cpu"),
        (np.zeros(20, np.float32), TypeError, "x must have the dtype of the affinity \\(float64\\), got float32"),
        (np.zeros(19), ValueError, "x must have shape \\[20\\] or \\[20, b\\], got \\(19,\\)"),
        (np.zeros((2, 20)), ValueError, "x must have shape"),
        (np.zeros((20, 2, 2)), ValueError, "x must have shape"),
    ],
)
def test_product_refuses(x: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        pixel_affinity(IMAGE) @ x


def test_batches_are_refused_where_one_image_is_wanted() -> None:
    batch = pixel_affinity(np.zeros((2, 3, 4, 1)))
    for call in (lambda: laplacian(batch), lambda: ncut_value(batch, np.zeros(12, int)), batch.tocsr):
        with pytest.raises(ValueError, match="of one image, got a batch of 2; take"):
            call()
    with pytest.raises(TypeError, match="of one image"):
        batch[0][0]
    with pytest.raises(ValueError, match="image must be from -2 to 1, got 2"):
        batch[2]


POINTS = np.zeros((4, 2))
WIDE = np.array([[0.0], [1e160]])


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: knn_affinity([[0.0]], 1), TypeError, "knn_affinity: x must be a NumPy"),
        (lambda: knn_affinity(POINTS.astype(int), 1), TypeError, "knn_affinity: x must have dtype float32 or float64"),
        (lambda: knn_affinity(POINTS[0], 1), ValueError, "knn_affinity: x must have shape"),
        (lambda: knn_affinity(POINTS[:0], 1), ValueError, "knn_affinity: x must hold at least one point"),
        (lambda: knn_affinity(POINTS + np.inf, 1), ValueError, "knn_affinity: x must be finite"),
        (lambda: knn_affinity(POINTS, 0), ValueError, "n_neighbors must be from 1 to 4, got 0"),
        (lambda: knn_affinity(POINTS, 5), ValueError, "n_neighbors must be from 1 to 4, got 5"),
        (lambda: knn_affinity(POINTS, 2.0), TypeError, "n_neighbors must be an integer"),
        (lambda: knn_affinity(POINTS, 2, gamma=-1), ValueError, "gamma must not be negative"),
        (lambda: knn_affinity(POINTS, 2, gamma="a"), TypeError, "gamma must be a number"),
        (lambda: rbf_affinity(POINTS, gamma=None), TypeError, "rbf_affinity: gamma must be a number"),
        (lambda: rbf_affinity(POINTS, gamma=np.nan), ValueError, "rbf_affinity: gamma must be finite"),
        (lambda: rbf_affinity(POINTS, gamma=1, eps=0), ValueError, "eps must be finite and positive"),
        (lambda: rbf_affinity(POINTS, gamma=1, eps="x"), TypeError, "eps must be a number"),
        (lambda: rbf_affinity(POINTS * np.nan, gamma=1), ValueError, "rbf_affinity: x must be finite, got nan"),
        (lambda: rbf_affinity(torch.zeros(3), gamma=1), ValueError, "rbf_affinity: x must have shape"),
        (lambda: knn_affinity(POINTS[:, :0], 1), ValueError, "knn_affinity: x must hold at least one point"),
        (lambda: knn_affinity(WIDE, 1), ValueError, r"knn_affinity: x must have square distances below 1e\+300"),
        (lambda: knn_affinity(POINTS, True), TypeError, "n_neighbors must be an integer"),
        (lambda: knn_affinity(POINTS, 2, gamma=np.inf), ValueError, "knn_affinity: gamma must be finite"),
        (lambda: rbf_affinity([[0.0]], gamma=1), TypeError, "rbf_affinity: x must be a NumPy"),
        (lambda: rbf_affinity(POINTS.astype("float16"), gamma=1), TypeError, "rbf_affinity: x must have dtype float32"),
        (lambda: rbf_affinity(POINTS[:0], gamma=1), ValueError, "rbf_affinity: x must hold at least one point"),
        (lambda: rbf_affinity(POINTS, gamma=-0.5), ValueError, "rbf_affinity: gamma must not be negative, got -0.5"),
        (lambda: rbf_affinity(POINTS, gamma=1, eps=np.inf), ValueError, "eps must be finite and positive, got inf"),
        (lambda: rbf_affinity(WIDE * 1e30, gamma=1), ValueError, "x must have square distances below"),
    ],
)
def test_points_refuse(call: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        call()


BAD_MATRICES: list[tuple[Any, type[Exception], str]] = [
    ("w", TypeError, "affinity must be a pixel affinity, .*, got str"),
    (None, TypeError, "affinity must be a pixel affinity, .*, got None"),
    (np.zeros(3), ValueError, "affinity must have shape \\[N, N\\]"),
    (np.zeros((3, 4)), ValueError, "affinity must have shape \\[N, N\\], got \\(3, 4\\)"),
    (sparse.csr_array((3, 4)), ValueError, "affinity must have shape \\[N, N\\], got \\(3, 4\\)"),
    (np.zeros((2, 2), complex), TypeError, "affinity must be of real numbers, float32 or float64, got complex128"),
    (np.zeros((2, 2), np.float16), TypeError, "affinity must be of real numbers"),
    (np.array([[0, -1.0], [-1, 0]]), ValueError, "affinity must not be negative, got -1"),
    (np.array([[0, np.nan], [1, 0]]), ValueError, "affinity must be finite, got nan"),
    (np.array([[0, 1.0], [0.5, 0]]), ValueError, "affinity must be symmetric, got entries that differ by 0.5"),
    (sparse.csr_array(np.array([[0, 1.0], [0, 0]])), ValueError, "affinity must be symmetric"),
    (
        torch.zeros(2, 2).to_sparse_coo(),
        TypeError,
        "affinity must be .*, got a torch tensor of layout torch.sparse_coo",
    ),
]


@pytest.mark.parametrize(("matrix", "error", "text"), BAD_MATRICES)
def test_laplacian_and_ncut_value_refuse(matrix: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=f"^laplacian: {text}"):
        laplacian(matrix)
    with pytest.raises(error, match=f"^ncut_value: {text}"):
        ncut_value(matrix, np.zeros(2, int))


def test_laplacian_refuses_a_normalization() -> None:
    with pytest.raises(ValueError, match="normalization must be one of 'symmetric', 'random_walk', got 'sym'"):
        laplacian(np.zeros((2, 2)), normalization="sym")


@pytest.mark.parametrize(
    ("labels", "error", "text"),
    [
        ([0, 1], TypeError, "labels must be a NumPy, CuPy or torch array, got list"),
        (np.zeros(2), TypeError, "labels must be integers, got float64"),
        (np.zeros(2, bool), TypeError, "labels must be integers, got bool"),
        (np.zeros(3, int), ValueError, "labels must have shape \\[2\\], got \\(3,\\)"),
        (np.zeros((1, 2), int), ValueError, "labels must have shape \\[2\\]"),
    ],
)
def test_ncut_value_refuses_labels(labels: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        ncut_value(np.ones((2, 2)), labels)
