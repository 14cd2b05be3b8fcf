"""Spectral clustering, its rounding step, the eigengap, new points and landmarks: against scikit-learn and SciPy."""

from __future__ import annotations

import itertools
import warnings
from pathlib import Path as File
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import linalg, sparse

from cv3gpu import viz
from cv3gpu.affinity import knn_affinity, pixel_affinity, rbf_affinity
from cv3gpu.eigen import smallest_eigenpairs
from cv3gpu.errors import ConvergenceWarning
from cv3gpu.spectral import SpectralClustering, eigengap, nystrom, spectral_clustering
from cv3gpu.spectral._rounding import cluster_qr, discretize, kmeans_rows, unit_rows
from tests.conftest import Path

torch = pytest.importorskip("torch")
datasets = pytest.importorskip("sklearn.datasets")
metrics = pytest.importorskip("sklearn.metrics")
peers = pytest.importorskip("sklearn.cluster._spectral")

DATA = File(__file__).resolve().parents[1] / ".." / "shared" / "data" / "spectral"
NORMALIZATIONS = [None, "random_walk", "symmetric"]
ASSIGN = ["kmeans", "discretize", "cluster_qr"]


def agreement(one: Any, other: Any) -> float:
    """The adjusted Rand index."""
    return float(metrics.adjusted_rand_score(np.asarray(one), np.asarray(other)))


def moons(n: int, noise: float = 0.05) -> tuple[np.ndarray, np.ndarray]:
    return datasets.make_moons(n, noise=noise, random_state=0)


def heaps(n: int = 240, k: int = 4, dims: int = 2, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Points around corners that are far apart."""
    rng = np.random.default_rng(seed)
    label = np.arange(n) % k
    centre = 6.0 * np.array(list(itertools.product([0, 1], repeat=dims)))[:k]
    return centre[label] + rng.standard_normal((n, dims)) * 0.6, label


# ---- against outside figures ----------------------------------------------------------------------------


@pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data/spectral")
@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("name", ["S01", "S02", "S03", "S04"])
def test_stored_cases(name: str, normalization: str | None) -> None:
    path = DATA / f"spectral_{name}.npz"
    if not path.exists():
        pytest.skip(f"no case {name}")
    with np.load(path) as file:
        x, y, wanted = file["X"], file["y"], float(file["ari"])
        graph = sparse.csr_array((file["A_data"], file["A_indices"], file["A_indptr"]), (len(x), len(x)))
        values = file["lam_unnorm" if normalization is None else "lam_sym"]
    result = spectral_clustering(x, 2, normalization=normalization, tol=1e-10, return_info=True)
    assert agreement(y, result.labels) >= wanted - 0.01
    assert result.converged and result.residual.max() <= max(1e-10 * values[2], 1e-13)
    np.testing.assert_allclose(result.eigenvalues, values[:2], atol=1e-8 * values[2])
    given_graph = spectral_clustering(graph, 2, normalization=normalization)
    assert agreement(given_graph, result.labels) > 0.995
    six = spectral_clustering(graph, 6, normalization=normalization, tol=1e-6, return_info=True)
    np.testing.assert_allclose(six.eigenvalues, values[:6], atol=1e-8 * values[5])


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("assign", ASSIGN)
@pytest.mark.parametrize("shape", ["moons", "circles"])
def test_bent_clusters(shape: str, assign: str, normalization: str | None) -> None:
    x, y = moons(1500) if shape == "moons" else datasets.make_circles(1500, noise=0.04, factor=0.5, random_state=0)
    assert agreement(y, spectral_clustering(x, 2, assign=assign, normalization=normalization)) == 1


@pytest.mark.parametrize("noise", [0.1, 0.12])
def test_as_scikit_learn_where_clusters_touch(noise: float) -> None:
    x, _ = moons(1200, noise)
    graph = knn_affinity(x, 10)
    narrow = sparse.csr_array((graph.data, graph.indices.astype(np.int32), graph.indptr.astype(np.int32)), graph.shape)
    peer = peers.spectral_clustering(narrow, n_clusters=2, eigen_solver="arpack", random_state=0)
    assert (
        agreement(peer, spectral_clustering(graph, 2)) > 0.95
    )  # k-means has minima that differ by 1e-4 of the inertia


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("assign", ASSIGN)
@pytest.mark.parametrize("affinity", ["nearest_neighbors", "rbf", "precomputed"])
def test_heaps(affinity: str, assign: str, normalization: str | None) -> None:
    x, y = heaps()
    given: Any = rbf_affinity(x, gamma=0.5) if affinity == "precomputed" else x
    options: Any = {"affinity": affinity, "assign": assign, "normalization": normalization, "gamma": 0.5}
    labels = spectral_clustering(given, 4, **options)
    assert labels.dtype == np.int64 and agreement(y, labels) == 1


def test_fifty_thousand_moons() -> None:
    x, y = moons(50_000)
    result = spectral_clustering(x, 2, return_info=True)
    assert agreement(y, result.labels) >= 0.999 and result.converged


def test_a_graph_of_edges_within_a_radius() -> None:
    x, y = moons(600)
    assert agreement(y, spectral_clustering(x, 2, affinity="rbf", gamma=30.0, eps=0.3)) == 1


def test_pixels() -> None:
    rng = np.random.default_rng(0)
    truth = np.zeros((24, 30), np.int64)
    truth[:, 12:] = 1
    truth[8:16, 18:26] = 2
    affinity = pixel_affinity(truth / 2 + 0.03 * rng.standard_normal(truth.shape), radius=3, sigma_intensity=0.2)
    labels = spectral_clustering(affinity, 3, assign="discretize")
    assert agreement(truth.ravel(), labels) > 0.95


@pytest.mark.parametrize("affinity", ["nearest_neighbors", "rbf"])
def test_libraries_and_devices(path: Path, affinity: str) -> None:
    x, y = heaps(60, 3)
    info = spectral_clustering(
        path.array(x), 3, n_neighbors=8, affinity=affinity, gamma=0.2, n_init=2, return_info=True
    )
    labels = path.numpy(info.labels)
    assert agreement(y, labels) == 1 and labels.dtype == np.int64
    assert (path.numpy(info.predict(path.array(x))) == labels).all()
    assert path.numpy(nystrom(path.array(x), 3, gamma=0.2).eigenvectors).shape == (60, 3)
    assert eigengap(path.array(np.array([0, 0.1, 0.5, 0.6]))) == 2


# ---- what results are -----------------------------------------------------------------------------------


def test_info_is_what_the_eigensolver_says() -> None:
    x, _ = moons(700, 0.1)
    info = spectral_clustering(x, 3, return_info=True)
    assert isinstance(info, SpectralClustering) and info.converged
    pairs = smallest_eigenpairs(knn_affinity(x, 10), 3, tol=1e-4)
    for one, other in zip(info[1:5], pairs, strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(info.labels, spectral_clustering(x, 3))
    np.testing.assert_array_equal(info.embedding.rows, pairs.eigenvectors)


def test_rows_of_the_symmetric_kind_are_unit_vectors_of_ng_jordan_weiss() -> None:
    x, _ = heaps(k=3)
    w = rbf_affinity(x, gamma=0.1)
    root = np.sqrt(w.sum(1))
    _, v = linalg.eigh(w / root[:, None] / root, subset_by_index=[len(w) - 3, len(w) - 1])
    wanted = v[:, ::-1] / np.linalg.norm(v, axis=1)[:, None]
    rows = spectral_clustering(w, 3, affinity="precomputed", normalization="symmetric", return_info=True).embedding.rows
    turn, _ = linalg.orthogonal_procrustes(rows, wanted)
    np.testing.assert_allclose(rows @ turn, wanted, atol=1e-6)


@pytest.mark.parametrize("assign", ASSIGN)
def test_the_same_seed_gives_the_same_labels(assign: str) -> None:
    x, _ = moons(900, 0.12)
    one, same = (spectral_clustering(x, 5, seed=3, assign=assign) for _ in range(2))
    np.testing.assert_array_equal(one, same)
    first = np.unique(one, return_index=True)[1]
    assert (np.diff(first) > 0).all() and one[0] == 0  # in the order of first vertices


def test_what_has_not_converged_says_so() -> None:
    x, _ = moons(1500, 0.1)
    with pytest.warns(ConvergenceWarning, match="have not converged in 1 iterations"):
        info = spectral_clustering(x, 3, max_iter=1, return_info=True)
    assert not info.converged and info.n_iter == 1 and len(info.labels) == 1500


@pytest.mark.parametrize("kind", ["torch points", "torch csr", "torch dense", "csc", "float32", "dense"])
def test_forms(kind: str) -> None:
    x, y = heaps(120, 3)
    graph = knn_affinity(x, 8)
    parts = [torch.from_numpy(np.array(part)) for part in (graph.indptr, graph.indices, graph.data)]
    form: Any = {
        "torch points": lambda: torch.from_numpy(x).requires_grad_(),
        "torch csr": lambda: torch.sparse_csr_tensor(*parts, size=graph.shape, check_invariants=True),
        "torch dense": lambda: torch.from_numpy(graph.toarray()),
        "csc": graph.tocsc,
        "float32": lambda: x.astype(np.float32),
        "dense": graph.toarray,
    }[kind]()
    given = {"affinity": "precomputed"} if kind in ("dense", "torch dense") else {"n_neighbors": 8}
    labels = spectral_clustering(form, 3, **given)
    assert isinstance(labels, torch.Tensor) == kind.startswith("torch")
    assert agreement(y, labels) == 1
    assert labels.dtype in (np.int64, torch.int64)


# ---- at the edges ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("assign", ASSIGN)
def test_more_parts_than_clusters(assign: str, normalization: str | None) -> None:
    """Each cluster is a union of parts, and the largest parts are told apart."""
    sizes = (40, 30, 6, 5)
    w = linalg.block_diag(*(np.ones((n, n)) for n in sizes))
    part = np.repeat(np.arange(4), sizes)
    options: Any = {"affinity": "precomputed", "assign": assign, "normalization": normalization}
    with pytest.warns(UserWarning, match="falls into 4 parts, more than 2 clusters"):
        labels = spectral_clustering(w, 2, **options)
    assert all(np.ptp(labels[part == p]) == 0 for p in range(4)) and labels[0] != labels[45]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert agreement(part, spectral_clustering(w, 4, **options)) == 1


def test_vertices_without_edges() -> None:
    w = np.zeros((6, 6))
    w[:3, :3] = w[3:5, 3:5] = 1
    labels = spectral_clustering(w, 3, affinity="precomputed", normalization=None)
    assert labels.tolist() == [0, 0, 0, 1, 1, 2]
    with pytest.raises(ValueError, match="x must connect every vertex to something, got none at vertex 5; give it"):
        spectral_clustering(w, 3, affinity="precomputed")


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("n", [1, 2, 5])
def test_as_many_clusters_as_points(n: int, normalization: str | None) -> None:
    x = np.arange(n, dtype=np.float64)[:, None] ** 1.5
    for affinity in ("nearest_neighbors", "rbf"):
        options: Any = {"affinity": affinity, "n_neighbors": 2, "gamma": 0.2, "normalization": normalization}
        assert spectral_clustering(x, n, **options).tolist() == list(range(n))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            assert not spectral_clustering(x, 1, **options).any()


def test_points_at_one_place() -> None:
    x = np.repeat([[0.0, 0.0], [5.0, 5.0]], 20, axis=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        labels = spectral_clustering(x, 2, affinity="rbf", gamma=1.0)
    assert labels.tolist() == [0] * 20 + [1] * 20


# ---- the rounding step ----------------------------------------------------------------------------------


@pytest.mark.parametrize("round_rows", [discretize, cluster_qr, lambda v: kmeans_rows(v, v.shape[1], normalize=True)])
@settings(max_examples=15, deadline=None, derandomize=True)
@given(st.integers(1, 6), st.integers(0, 40), st.floats(0, 0.1), st.integers(0, 2**31 - 1))
def test_turned_indicators_are_found(round_rows: Any, k: int, more: int, noise: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = rng.permutation(np.concatenate([np.repeat(np.arange(k), 4), rng.integers(0, k, more)]))
    turn = np.linalg.qr(rng.standard_normal((k, k)))[0]
    rows = (np.eye(k)[truth] + noise * rng.standard_normal((len(truth), k))) @ turn
    assert agreement(truth, round_rows(rows)) == 1


def test_cluster_qr_is_scikit_learns() -> None:
    v = np.linalg.qr(np.random.default_rng(0).standard_normal((300, 5)))[0]
    np.testing.assert_array_equal(cluster_qr(v), peers.cluster_qr(v))


@pytest.mark.parametrize("seed", range(4))
def test_discretize_comes_at_least_as_near_to_indicators_as_scikit_learn(seed: int) -> None:
    x, _ = datasets.make_blobs(300, centers=6, cluster_std=1.5, random_state=seed)
    w = rbf_affinity(x, gamma=0.5)
    v = smallest_eigenpairs(w, 6).eigenvectors * np.sqrt(w.sum(1))[:, None]

    def nearness(labels: np.ndarray) -> float:
        """The trace of the best rotation times the indicators: what the alternation raises."""
        return float(np.linalg.svd(unit_rows(v).T @ np.eye(6)[labels], compute_uv=False).sum())

    assert nearness(discretize(v)) >= nearness(peers.discretize(v.copy(), random_state=0)) - 1e-6


@pytest.mark.parametrize("round_rows", [discretize, cluster_qr])
def test_rows_that_say_nothing(round_rows: Any) -> None:
    rng = np.random.default_rng(0)
    one = rng.standard_normal((20, 1))
    for rows in (np.zeros((5, 3)), np.ones((5, 3)), one @ np.ones((1, 4)), -np.ones((7, 1))):
        labels = round_rows(rows)
        assert labels.dtype == np.int64 and labels.shape == (len(rows),)
        assert labels.min() >= 0 and labels.max() < rows.shape[1]
    mixed = np.concatenate([np.zeros((3, 2)), np.tile(np.eye(2), (4, 1)) @ [[0.6, 0.8], [0.8, -0.6]]])
    labels = round_rows(mixed)
    assert not labels[:3].any() and agreement(labels[3:], [0, 1] * 4) == 1


def test_signs_and_lengths_of_rows_change_nothing_for_the_rotation() -> None:
    x, y = heaps(150, 3)
    w = rbf_affinity(x, gamma=0.2)
    v = smallest_eigenpairs(w, 3).eigenvectors
    scale = np.random.default_rng(0).uniform(0.1, 10, (len(v), 1))
    for rows in (v, scale * v, v * [-1, 1, -1]):
        assert agreement(y, discretize(rows)) == 1


def test_no_rows() -> None:
    assert discretize(np.zeros((0, 3))).shape == (0,) and unit_rows(np.zeros((0, 3))).shape == (0, 3)


@pytest.mark.parametrize("round_rows", [discretize, cluster_qr, lambda v: kmeans_rows(v, 2)])
@pytest.mark.parametrize(
    ("rows", "error", "text"),
    [
        ([[1.0]], TypeError, "vectors must be a NumPy array, got list"),
        (np.ones((3, 2), int), TypeError, "vectors must have dtype float32 or float64, got int64"),
        (np.ones(3), ValueError, r"vectors must have shape \[N, k\] with k at least 1, got \(3,\)"),
        (np.ones((3, 0)), ValueError, r"vectors must have shape \[N, k\]"),
        (np.full((3, 2), np.nan), ValueError, "vectors must be finite, got nan"),
    ],
    ids=["list", "integers", "vector", "no columns", "nan"],
)
def test_refusals_of_rounding(round_rows: Any, rows: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        round_rows(rows)


def test_fewer_rows_than_clusters() -> None:
    with pytest.raises(ValueError, match=r"^cluster_qr: vectors must have at least as many rows as columns \(3\)"):
        cluster_qr(np.ones((2, 3)))


# ---- the eigengap ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "relative", "absolute"),
    [
        ([0, 0.01, 0.02, 0.6, 0.9], 3, 3),
        ([0, 0, 0, 0.4, 0.5], 3, 3),
        ([0, 1e-17, 0.001, 0.004, 0.009, 0.016], 2, 5),
        ([0, 0.001, 0.004, 0.009, 0.016, 0.3], 5, 5),
        ([0, 0.5, 0.9, 1.0], 2, 1),
        ([0, 0, 0, 0], 2, 1),
    ],
)
def test_eigengap(values: list[float], relative: int, absolute: int) -> None:
    for same in (np.array(values, np.float64), torch.tensor(values, dtype=torch.float64)):
        assert eigengap(same) == relative
        assert eigengap(same, gap="absolute") == absolute
    assert eigengap(torch.tensor(values, dtype=torch.float64), max_clusters=2) == 2


@pytest.mark.parametrize("n_clusters", [None, "eigengap"])
@pytest.mark.parametrize("k", [2, 3, 4])
def test_the_number_of_clusters_is_found(k: int, n_clusters: str | None) -> None:
    x, y = heaps(200, k)
    for options in ({"affinity": "rbf", "gamma": 0.2}, {"n_neighbors": 30}):
        result = spectral_clustering(x, n_clusters, return_info=True, **options)
        assert agreement(y, result.labels) == 1
        assert result.eigenvectors.shape == (200, 11) and result.embedding.rows.shape == (200, k)
    assert spectral_clustering(x, n_clusters, affinity="rbf", gamma=0.2, max_clusters=2).max() == 1


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"eigenvalues": [0.0, 1, 2]}, TypeError, "eigenvalues must be a NumPy"),
        ({"eigenvalues": np.arange(4)}, TypeError, "eigenvalues must have dtype"),
        ({"eigenvalues": np.zeros((3, 3))}, ValueError, r"eigenvalues must have shape \[n\] with n at least 3"),
        ({"eigenvalues": np.zeros(2)}, ValueError, r"eigenvalues must have shape \[n\] with n at least 3"),
        ({"eigenvalues": np.array([0, 2.0, 1])}, ValueError, "eigenvalues must be finite, ascending"),
        ({"eigenvalues": np.array([0, 1, np.nan])}, ValueError, "eigenvalues must be finite, ascending"),
        ({"eigenvalues": np.array([-1.0, 0, 1])}, ValueError, "eigenvalues must be finite, ascending and not negative"),
        ({"max_clusters": 1}, ValueError, "max_clusters must be from 2 to 3, got 1"),
        ({"max_clusters": 4}, ValueError, "max_clusters must be from 2 to 3, got 4"),
        ({"max_clusters": 2.0}, TypeError, "max_clusters must be an integer"),
        ({"gap": "widest"}, ValueError, "gap must be one of"),
        ({"gap": None}, (TypeError, ValueError), "gap must be one of"),
    ],
    ids=str,
)
def test_refusals_of_the_eigengap(options: Any, error: Any, text: str) -> None:
    with pytest.raises(error, match=f"^eigengap: {text}"):
        eigengap(**{"eigenvalues": np.arange(4.0), **options})


# ---- new points -----------------------------------------------------------------------------------------

GRAPHS: dict[str, Any] = {
    "nearest": {"n_neighbors": 10},
    "rbf": {"affinity": "rbf", "gamma": 15.0},
    "radius": {"affinity": "rbf", "gamma": 5.0, "eps": 0.5},
}


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("assign", ASSIGN)
def test_points_that_were_there_keep_their_places(graph: str, normalization: str | None, assign: str) -> None:
    x, _ = moons(500, 0.1)
    info = spectral_clustering(x, 4, normalization=normalization, assign=assign, return_info=True, **GRAPHS[graph])
    rows = info.embedding.rows
    np.testing.assert_allclose(info.embedding.extend(x), rows, atol=1e-4 * abs(rows).max())
    assert (info.predict(x) == info.labels).mean() >= 0.98


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("graph", GRAPHS)
def test_new_points_get_the_label_of_their_moon(graph: str, normalization: str | None) -> None:
    x, y = moons(1000)
    info = spectral_clustering(x[::2], 2, normalization=normalization, return_info=True, **GRAPHS[graph])
    labels = info.predict(x[1::2])
    assert labels.dtype == np.int64 and agreement(y[1::2], labels) == 1


def test_a_new_point_has_the_edges_that_it_would_have_in_the_graph() -> None:
    x, _ = moons(300, 0.1)
    new = np.random.default_rng(0).uniform(-1, 2, (6, 2))
    info = spectral_clustering(x, 2, return_info=True)
    weights = info.embedding.graph.weights(new, True).toarray()
    distance = np.linalg.norm(new[:, None] - x, axis=2)
    among = np.linalg.norm(x[:, None] - x, axis=2)
    last = np.sort(among, axis=1)[:, 9]  # the point itself is the first
    theirs = distance <= np.sort(distance, axis=1)[:, 8:9]  # nine others, and itself
    np.testing.assert_allclose(weights, (theirs + 1.0 * (distance <= last)) / 2)


def test_far_points_go_by_ratios_of_weights() -> None:
    x, y = heaps(60, 2)
    info = spectral_clustering(x, 2, affinity="rbf", gamma=0.2, return_info=True)
    far = np.array([[-100.0, 3.0], [3.0, 200.0]]) + x[y == 1].mean(0)
    with np.errstate(all="raise", under="ignore"):
        assert np.isfinite(info.embedding.extend(far)).all()


@pytest.mark.parametrize("form", ["dense", "sparse", "torch"])
def test_weights_to_a_given_graph(form: str) -> None:
    x, y = heaps(160, 4)
    old, new = x[:100], x[100:]
    info = spectral_clustering(rbf_affinity(old, gamma=0.5), 4, affinity="precomputed", return_info=True)
    weights: Any = np.exp(-0.5 * ((new[:, None] - old) ** 2).sum(2))
    given = {"dense": lambda: weights, "sparse": lambda: sparse.csr_array(weights)}.get(
        form, lambda: torch.from_numpy(weights)
    )()
    labels = info.predict(given)
    assert isinstance(labels, torch.Tensor) == (form == "torch")
    truth = y[:100][[int(np.flatnonzero(info.labels == label)[0]) for label in labels]]
    np.testing.assert_array_equal(truth, y[100:])


def test_torch_points_and_no_points() -> None:
    x, _ = moons(200)
    info = spectral_clustering(torch.from_numpy(x), 2, return_info=True)
    assert torch.equal(info.predict(torch.from_numpy(x)), info.labels)
    for options in GRAPHS.values():
        assert spectral_clustering(x, 2, return_info=True, **options).predict(x[:0]).shape == (0,)


X20 = heaps(20, 2)[0]


@pytest.mark.parametrize(
    ("kind", "new", "error", "text"),
    [
        ("nearest", [[0.0, 0.0]], TypeError, "x_new must be a NumPy, CuPy or torch array, got list"),
        ("nearest", X20[0], ValueError, r"x_new must have shape \[N, 2\]"),
        ("nearest", X20[:, :1], ValueError, r"x_new must have shape \[N, 2\]"),
        ("nearest", X20.astype(int), TypeError, "x_new must have dtype"),
        ("nearest", X20 * np.nan, ValueError, "x_new must be finite, got nan"),
        ("radius", X20 + 1e3, ValueError, "x_new must have edges to the old vertices, got 0 in row 0"),
        ("plain", X20 + 1e3, ValueError, "x_new must have degrees above the eigenvalues, got 0 in row 0; take a norm"),
        ("given", X20, ValueError, r"x_new must have shape \[M, 20\], got \(20, 2\); it holds weights"),
        ("given", -np.ones((1, 20)), ValueError, "x_new must be finite and not negative"),
        ("given", np.full((1, 20), np.inf), ValueError, "x_new must be finite and not negative"),
        ("given", np.zeros((2, 20)), ValueError, "x_new must have edges to the old vertices, got 0 in row 0"),
        ("given", "ones", TypeError, "x_new must be a SciPy sparse matrix or an array, got str"),
        ("given", np.ones((2, 20), int), TypeError, "x_new must have dtype"),
    ],
)
def test_refusals_of_new_points(kind: str, new: Any, error: type[Exception], text: str) -> None:
    options: Any = {
        "nearest": {"n_neighbors": 5},
        "radius": {"affinity": "rbf", "gamma": 0.05, "eps": 9.0},
        "plain": {"affinity": "rbf", "gamma": 0.05, "normalization": None},
        "given": {"affinity": "precomputed"},
    }[kind]
    info = spectral_clustering(
        rbf_affinity(X20, gamma=0.05) if kind == "given" else X20, 2, return_info=True, **options
    )
    with pytest.raises(error, match=f"^predict: {text}"):
        info.predict(new)


def test_eigenvalues_of_one_say_nothing_of_new_points() -> None:
    star = np.zeros((9, 9))
    star[0, 1:] = star[1:, 0] = 1
    info = spectral_clustering(star, 3, affinity="precomputed", return_info=True)
    with pytest.raises(ValueError, match=r"^predict: eigenvalues must be other than 1, got 1; take fewer clusters"):
        info.predict(np.ones((1, 9)))


# ---- landmarks ------------------------------------------------------------------------------------------


def test_all_points_as_landmarks_give_the_exact_pairs() -> None:
    x = np.random.default_rng(0).random((80, 2))
    exact = smallest_eigenpairs(rbf_affinity(x, gamma=20.0), 5, tol=1e-10)
    values, vectors, landmarks = nystrom(x, 5, gamma=20.0)
    np.testing.assert_array_equal(landmarks, np.arange(80))
    np.testing.assert_allclose(values, exact.eigenvalues, atol=1e-9)
    np.testing.assert_allclose(vectors, exact.eigenvectors, atol=1e-6 * abs(exact.eigenvectors).max())


def test_it_is_the_one_shot_method() -> None:
    """Fowlkes and others, written down: eigenvectors of S = A + A^-1/2 B B^T A^-1/2."""
    x, _ = heaps(60, 3)
    found = nystrom(x, 3, gamma=0.3, n_landmarks=15, seed=2)
    m = found.landmarks
    rest = np.setdiff1d(np.arange(60), m)
    w = rbf_affinity(x, gamma=0.3)
    a, b = w[np.ix_(m, m)], w[np.ix_(m, rest)]
    d1 = a.sum(1) + b.sum(1)
    d2 = b.sum(0) + b.T @ np.linalg.solve(a, b.sum(1))
    a, b = a / np.sqrt(np.outer(d1, d1)), b / np.sqrt(np.outer(d1, d2))
    half = linalg.inv(linalg.sqrtm(a).real)
    values, u = linalg.eigh(a + half @ b @ b.T @ half)
    v = np.concatenate([a, b.T]) @ half @ u[:, ::-1][:, :3] / np.sqrt(values[::-1][:3])
    y = np.empty((60, 3))
    y[np.concatenate([m, rest])] = v / np.sqrt(np.concatenate([d1, d2]))[:, None]
    np.testing.assert_allclose(found.eigenvalues, np.maximum(1 - values[::-1][:3], 0), atol=1e-8)
    np.testing.assert_allclose(abs(found.eigenvectors), abs(y), atol=1e-5 * abs(y).max())
    assert (found.eigenvectors.max(0) >= -found.eigenvectors.min(0)).all()


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_few_landmarks_of_many_points(dtype: str) -> None:
    x, y = heaps(1500, 4)
    values, vectors, landmarks = nystrom(torch.from_numpy(x.astype(dtype)), 4, gamma=0.3, n_landmarks=60)
    assert vectors.dtype == getattr(torch, dtype) and values.dtype == torch.float64 and landmarks.dtype == torch.int64
    assert agreement(y, kmeans_rows(vectors.numpy(), 4)) == 1
    exact = smallest_eigenpairs(rbf_affinity(x, gamma=0.3), 4).eigenvalues
    np.testing.assert_allclose(values.numpy(), exact, atol=0.02)
    again = nystrom(torch.from_numpy(x.astype(dtype)), 4, gamma=0.3, n_landmarks=60)
    assert torch.equal(vectors, again.eigenvectors)
    given = nystrom(torch.from_numpy(x.astype(dtype)), 4, gamma=0.3, landmarks=landmarks)
    assert torch.equal(vectors, given.eigenvectors)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"x": [[1.0]]}, TypeError, "x must be a NumPy, CuPy or torch array, got list"),
        ({"x": X20.astype(int)}, TypeError, "x must have dtype"),
        ({"x": X20[0]}, ValueError, r"x must have shape \[N, D\]"),
        ({"x": X20[:0]}, ValueError, "x must hold at least one point"),
        ({"x": X20 * np.inf}, ValueError, "x must be finite"),
        ({"k": 0}, ValueError, "k must be from 1 to 20, got 0"),
        ({"k": 6, "n_landmarks": 5}, ValueError, "k must be from 1 to 5, got 6"),
        ({"k": 1.0}, TypeError, "k must be an integer"),
        ({"gamma": -1.0}, ValueError, "gamma must not be negative, got -1"),
        ({"gamma": np.nan}, ValueError, "gamma must be finite"),
        ({"n_landmarks": 21}, ValueError, "n_landmarks must be from 1 to 20, got 21"),
        ({"n_landmarks": 0}, ValueError, "n_landmarks must be from 1 to 20, got 0"),
        ({"seed": -1}, ValueError, "seed must be from 0"),
        ({"landmarks": [1, 2]}, TypeError, "landmarks must be a NumPy"),
        ({"landmarks": np.array([1.0, 2.0])}, TypeError, "landmarks must have dtype int64"),
        ({"landmarks": np.array([1, 1, 2])}, ValueError, "landmarks must be distinct, from 0 to 19"),
        ({"landmarks": np.array([1, 20])}, ValueError, "landmarks must be distinct, from 0 to 19"),
        ({"landmarks": np.array([1, 2]), "n_landmarks": 2}, ValueError, "n_landmarks must be None where landmarks"),
        ({"x": np.zeros((9, 1)), "k": 2}, ValueError, "landmarks must have affinities of rank 2 at least, got 1"),
    ],
)
def test_refusals_of_landmarks(options: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=f"^nystrom: {text}"):
        nystrom(**{"x": X20, "k": 2, "gamma": 1.0, **options})


def test_a_picture_of_points() -> None:
    pytest.importorskip("matplotlib")
    x, y = moons(50)
    figure = viz.points_figure([x, x[:40]], [[y, x[:, 0]], [y[:40], x[:40, 1]]], columns=["a", "b"], rows=["c", "d"])
    axes = figure.axes
    assert [axis.get_title() for axis in axes[:2]] == ["a", "b"] and [axes[k].get_ylabel() for k in (0, 2)] == [
        "c",
        "d",
    ]
    np.testing.assert_array_equal(axes[2].collections[0].get_offsets(), x[:40])
    shades = axes[0].collections[0].get_facecolor()[:, :3]
    np.testing.assert_allclose(shades, viz.label_colours(3)[1 + y] / 255)


# ---- refusals -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"x": [[1.0]]}, TypeError, "x must be a NumPy, CuPy or torch array, got list"),
        ({"x": X20.astype(int)}, TypeError, "x must have dtype float32 or float64, got int64"),
        ({"x": X20[0]}, ValueError, r"x must have shape \[N, D\], got \(2,\)"),
        ({"x": X20[:0]}, ValueError, "x must hold at least one point"),
        ({"x": X20[:, :0]}, ValueError, "x must hold at least one point"),
        ({"x": X20 * np.nan}, ValueError, "x must be finite, got nan"),
        ({"x": X20, "affinity": "precomputed"}, ValueError, r"affinity must have shape \[N, N\], got \(20, 2\)"),
        ({"x": np.triu(np.ones((4, 4))), "affinity": "precomputed"}, ValueError, "affinity must be symmetric"),
        ({"x": sparse.csr_array(-np.eye(4))}, ValueError, "affinity must not be negative"),
        (
            {"x": sparse.csr_array(np.diag([1.0, 0, 1]))},
            ValueError,
            "x must connect every vertex to something, got none at",
        ),
        ({"x": sparse.csr_array((0, 0))}, ValueError, "x must have at least one vertex"),
        ({"n_clusters": 0}, ValueError, "n_clusters must be from 1 to 20, got 0"),
        ({"n_clusters": 21}, ValueError, "n_clusters must be from 1 to 20, got 21"),
        ({"n_clusters": 2.0}, TypeError, "n_clusters must be an integer"),
        ({"n_clusters": "auto"}, TypeError, "n_clusters must be an integer, \"eigengap\" or None, got 'auto'"),
        ({"n_clusters": None, "max_clusters": 1}, ValueError, "max_clusters must be from 2"),
        ({"n_clusters": None, "x": X20[:2], "n_neighbors": 2}, ValueError, "x must have at least 3 vertices"),
        ({"affinity": "cosine"}, ValueError, "affinity must be one of"),
        ({"normalization": "unit"}, ValueError, "normalization must be one of"),
        ({"assign": "vote"}, ValueError, "assign must be one of"),
        ({"n_neighbors": 1}, ValueError, "n_neighbors must be from 2 to 20, got 1"),
        ({"n_neighbors": 21}, ValueError, "n_neighbors must be from 2 to 20, got 21"),
        ({"n_neighbors": 2.5}, TypeError, "n_neighbors must be an integer"),
        ({"eps": 1.0}, ValueError, 'eps must be None but for affinity="rbf", got 1.0'),
        ({"affinity": "rbf", "eps": 0.0}, ValueError, "eps must be finite and positive"),
        ({"affinity": "rbf", "gamma": -1}, ValueError, "gamma must not be negative"),
        ({"affinity": "rbf", "gamma": "wide"}, TypeError, "gamma must be a number"),
        ({"tol": 0.0}, ValueError, "tol must be finite and positive"),
        ({"max_iter": 0}, ValueError, "max_iter must be from 1"),
        ({"n_init": 0}, ValueError, "n_init must be from 1"),
        ({"seed": -1}, ValueError, "seed must be from 0"),
        ({"return_info": 1}, TypeError, "return_info must be True or False"),
    ],
)
def test_refusals(options: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=f"^spectral_clustering: {text}"):
        spectral_clustering(**{"x": X20, "n_clusters": 2, **options})
