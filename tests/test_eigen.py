"""The smallest eigenpairs of Laplacians, against LAPACK, SciPy's Lanczos and stored cases."""

from __future__ import annotations

import json
import warnings
from pathlib import Path as File
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import linalg, ndimage, sparse
from scipy.sparse.linalg import eigsh

from cv3gpu.affinity import knn_affinity, pixel_affinity, rbf_affinity
from cv3gpu.eigen import _chebyshev, _lobpcg, _multigrid, _operator, _problem, smallest_eigenpairs
from cv3gpu.errors import ConvergenceWarning

torch = pytest.importorskip("torch")

DATA = File(__file__).resolve().parents[1] / ".." / "shared" / "data" / "spectral"


@pytest.fixture(autouse=True)
def warnings_are_errors(request: pytest.FixtureRequest) -> Any:
    """A solver that has not converged fails the test that does not expect it."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        yield


def photograph(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Some regions with edges and noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    image = 0.3 * (x + 0.3 * y > 0.6 * width) + 0.2 * ((y - height / 3) ** 2 + (x - width / 3) ** 2 < width * 2)
    return image + 0.05 * rng.standard_normal((height, width))


def dense(affinity: Any) -> np.ndarray:
    matrix = affinity.tocsr() if hasattr(affinity, "tocsr") else affinity
    return matrix.toarray() if sparse.issparse(matrix) else np.asarray(matrix)


def check(affinity: Any, k: int, result: Any, *, generalized: bool = True, tol: float = 1e-6) -> None:
    """The pairs are what LAPACK finds, and all that is said of them is true."""
    w = dense(affinity).astype(np.float64)
    degree = w.sum(1)
    mass = degree if generalized else np.ones_like(degree)
    values, vectors, residual, _ = (np.asarray(part) for part in result)
    exact = linalg.eigh(np.diag(degree) - w, np.diag(mass), eigvals_only=True)
    assert vectors.shape == (len(w), k) and values.dtype == residual.dtype == np.float64
    np.testing.assert_allclose(values, exact[:k], atol=1e-8 * exact[k - 1] + 1e-14 * exact[-1])
    assert (np.diff(values) >= -1e-15).all()
    np.testing.assert_allclose(vectors.T @ (mass[:, None] * vectors), np.eye(k), atol=1e-10)
    v = vectors * np.sqrt(mass)[:, None]
    a = (np.diag(degree) - w) / np.sqrt(mass)[:, None] / np.sqrt(mass)
    np.testing.assert_allclose(residual, np.linalg.norm(a @ v - v * values, axis=0), rtol=1e-3, atol=3e-14 * exact[-1])
    positive = values[values > 1e-12 * exact[-1]]
    least = positive.min(initial=np.inf) if len(positive) else 0.0
    assert (residual <= np.maximum(tol * np.maximum(values, least), 1e-14 * exact[-1])).all()
    assert (vectors.max(0) >= -vectors.min(0)).all()
    assert np.ptp(vectors[:, 0]) <= 1e-12 * vectors[0, 0]  # the trivial one


# ---- against LAPACK -------------------------------------------------------------------------------------


@pytest.mark.parametrize("generalized", [True, False])
@pytest.mark.parametrize(
    ("shape", "radius", "k"), [((30, 40), 5, 10), ((41, 23), 2.5, 4), ((2, 400), 3, 3), ((28, 31), 10, 6)], ids=str
)
def test_pixels(shape: Any, radius: float, k: int, generalized: bool) -> None:
    affinity = pixel_affinity(photograph(*shape), radius=radius)
    check(affinity, k, smallest_eigenpairs(affinity, k, generalized=generalized), generalized=generalized)


@pytest.mark.parametrize("generalized", [True, False])
def test_points(generalized: bool) -> None:
    affinity = knn_affinity(np.random.default_rng(0).random((900, 2)), 12)
    check(affinity, 7, smallest_eigenpairs(affinity, 7, generalized=generalized), generalized=generalized)


@pytest.mark.parametrize(("n", "k"), [(1, 1), (2, 2), (9, 9), (60, 5), (511, 3)])
def test_small_graphs(n: int, k: int) -> None:
    affinity = rbf_affinity(np.random.default_rng(n).random((n, 2)), gamma=5.0)
    result = smallest_eigenpairs(affinity, k, tol=1e-10)
    assert result.n_iter == 0
    check(affinity, k, result, tol=1e-10)


def test_large_k_of_a_large_graph() -> None:
    affinity = knn_affinity(np.random.default_rng(0).random((700, 2)), 10)
    check(affinity, 300, smallest_eigenpairs(affinity, 300))


@pytest.mark.parametrize("tol", [1e-2, 1e-10])
def test_tolerance_is_kept(tol: float) -> None:
    affinity = pixel_affinity(photograph(30, 30))
    result = smallest_eigenpairs(affinity, 6, tol=tol)
    limit = max(tol * result.eigenvalues[1], 4e-15)
    assert (result.residual <= np.maximum(limit, tol * result.eigenvalues)).all()


def test_a_looser_tolerance_takes_fewer_iterations() -> None:
    affinity = pixel_affinity(photograph(40, 40))
    loose, tight = (smallest_eigenpairs(affinity, 5, tol=tol).n_iter for tol in (1e-2, 1e-8))
    assert 0 < loose < tight < 60


def test_edges_of_an_intervening_contour() -> None:
    edge = np.zeros((30, 32))
    edge[:, 16] = 0.4
    affinity = pixel_affinity(edge, kind="intervening_contour")
    result = smallest_eigenpairs(affinity, 2)
    check(affinity, 2, result)
    side = result.eigenvectors[:, 1].reshape(30, 32) > 0
    assert (side[:, :16] != side[:, 17:18]).all()


@settings(max_examples=8, deadline=None)
@given(st.integers(24, 40), st.integers(24, 40), st.integers(1, 7), st.floats(1.5, 6), st.integers(0, 2**31 - 1))
def test_any_image(height: int, width: int, k: int, radius: float, seed: int) -> None:
    affinity = pixel_affinity(photograph(height, width, seed), radius=radius, sigma_intensity=0.2)
    check(affinity, k, smallest_eigenpairs(affinity, k, seed=seed))


# ---- against SciPy's Lanczos ----------------------------------------------------------------------------


def test_lanczos_finds_the_same_on_a_larger_image() -> None:
    affinity = pixel_affinity(photograph(90, 110))
    w = affinity.tocsr()
    root = 1 / np.sqrt(affinity.degree)
    wanted = 1 - eigsh(w * root[:, None] * root, 6, which="LA", return_eigenvectors=False, tol=1e-12)[::-1]
    result = smallest_eigenpairs(affinity, 6, tol=1e-8)
    np.testing.assert_allclose(result.eigenvalues, wanted, atol=1e-10 * wanted[-1] + 1e-14)
    assert result.n_iter < 40


def test_methods_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    affinity = pixel_affinity(photograph(40, 50))
    multigrid = smallest_eigenpairs(affinity, 6, tol=1e-9)
    monkeypatch.setattr(_problem, "NEIGHBOURS", 0)
    plain = smallest_eigenpairs(affinity, 6, tol=1e-9)
    matrix = smallest_eigenpairs(affinity.tocsr(), 6, tol=1e-9)
    for other in (plain, matrix):
        np.testing.assert_allclose(multigrid.eigenvalues, other.eigenvalues, rtol=1e-12, atol=1e-15)
        np.testing.assert_allclose(multigrid.eigenvectors, other.eigenvectors, atol=1e-7)


@pytest.mark.parametrize("stalled", [0, _problem.STALLED])
def test_a_preconditioner_that_fails_is_followed_by_another_method(
    stalled: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    affinity = pixel_affinity(photograph(30, 40))
    monkeypatch.setattr(_problem, "STALLED", stalled)
    monkeypatch.setattr(_multigrid.Multigrid, "__call__", lambda self, residual, work: np.ones_like(residual))
    check(affinity, 4, smallest_eigenpairs(affinity, 4))


def test_small_graphs_on_which_iterations_stall_are_solved_by_lapack() -> None:
    edge = ndimage.gaussian_gradient_magnitude(np.random.default_rng(1).random((20, 27)), np.sqrt(2))
    affinity = pixel_affinity(edge, kind="intervening_contour", sigma_intensity=0.004)
    result = smallest_eigenpairs(affinity, 4, tol=1e-3)
    w = dense(affinity)
    exact = linalg.eigh(np.diag(w.sum(1)) - w, np.diag(w.sum(1)), eigvals_only=True)[:4]
    assert result.n_iter > 20 and 1e-10 < exact[1] < exact[3] < 1e-7
    np.testing.assert_allclose(result.eigenvalues[1:], exact[1:], rtol=1e-4)


class Diagonal(_chebyshev.Space):
    """A is diagonal, and M the identity."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values[:, None]

    def pairs(self, x: np.ndarray) -> Any:
        x = np.linalg.qr(x)[0]
        ritz, turn = np.linalg.eigh(x.T @ (self.values * x))
        x = x @ turn
        return ritz, x, np.linalg.norm(self.values * x - ritz * x, axis=0)

    def follow(self, x: np.ndarray, centre: float, scale: float, before: float, out: np.ndarray) -> None:
        out[...] = scale * (self.values - centre) * x - before * out

    def empty_like(self, x: np.ndarray) -> np.ndarray:
        return np.zeros_like(x)

    def greatest(self) -> float:
        return float(self.values.max())


def test_filters_of_higher_degree_tell_tiny_eigenvalues_apart() -> None:
    small = 1e-8 * np.arange(1, 13)
    space = Diagonal(np.concatenate([small, np.linspace(0.1, 1, 20)]))
    start = np.random.default_rng(0).standard_normal((32, 4))
    found = _chebyshev.iterate(space, start, 3, lambda values, norms: norms[:3].max() <= 1e-3 * small[0], 1000)
    np.testing.assert_allclose(found.values[:3], small[:3], rtol=1e-5)
    assert found.residual[:3].max() <= 1e-3 * small[0]


# ---- null spaces ----------------------------------------------------------------------------------------


def blocks(*sizes: int, bridge: float = 0.0) -> np.ndarray:
    """Cliques, side by side, with a bridge from each to the next."""
    w = linalg.block_diag(*(np.ones((n, n)) for n in sizes))
    for end in np.cumsum(sizes)[:-1]:
        w[end - 1, end] = w[end, end - 1] = bridge
    return w


@pytest.mark.parametrize("generalized", [True, False])
@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_components(k: int, generalized: bool) -> None:
    w = blocks(30, 200, 400)
    result = smallest_eigenpairs(w, k, generalized=generalized)
    check(w, k, result, generalized=generalized)
    assert (abs(result.eigenvalues[:3]) < 1e-12).all() and (k < 4 or result.eigenvalues[3] > 0.5)
    label = np.repeat([0, 1, 2], [30, 200, 400])
    null = result.eigenvectors[:, :3]
    for part in range(3):
        assert np.ptp(null[label == part], axis=0).max() < 1e-12
    if k > 1:  # the largest two are told apart first
        assert null[label == 1, 1].mean() * null[label == 2, 1].mean() < 0


def test_components_of_an_image() -> None:
    image = np.zeros((30, 40))
    image[:, 20:] = 100.0
    image[3, 3] = -100.0
    affinity = pixel_affinity(image)
    result = smallest_eigenpairs(affinity, 5)
    check(affinity, 5, result)
    assert (result.eigenvalues[:3] == 0).all() and result.eigenvalues[3] > 1e-4


def test_many_isolated_pixels() -> None:
    image = np.where(np.indices((30, 30)).sum(0) % 2, 1000.0 * np.arange(900).reshape(30, 30), 0.0)
    result = smallest_eigenpairs(pixel_affinity(image), 8)
    assert (abs(result.eigenvalues) < 1e-15).all() and result.n_iter == 0


@pytest.mark.parametrize("bridge", [1e-6, 1e-3])
def test_weakly_connected_parts_are_resolved(bridge: float) -> None:
    w = blocks(300, 300, 300, bridge=bridge)
    result = smallest_eigenpairs(w, 4, tol=1e-3)
    small = np.array([0, 1, 3]) * bridge / 300**2
    np.testing.assert_allclose(result.eigenvalues[:3], small, rtol=1e-3, atol=1e-14)


def test_vectors_are_orthonormal_where_all_weights_are_near_rounding() -> None:
    """Components come from edges above a share of the degrees; the weaker ones are large beside such weights."""
    w = np.eye(12)
    for i in range(11):
        w[i, i + 1] = w[i + 1, i] = 9e-18 if i % 4 == 3 else 1e-14 * (1 + i % 4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        vectors = smallest_eigenpairs(sparse.csr_array(w), 5).eigenvectors
    np.testing.assert_allclose(vectors.T @ (w.sum(1)[:, None] * vectors), np.eye(5), atol=1e-12)


@pytest.mark.parametrize("bridge", [1e-9, 1e-17])
def test_what_rounding_hides_is_warned_of(bridge: float) -> None:
    w = blocks(300, 300, 300, bridge=bridge)
    with pytest.warns(ConvergenceWarning, match="2 of 4 eigenvalues are too small"):
        result = smallest_eigenpairs(w, 4)
    assert (abs(result.eigenvalues[:3]) < 1e-12).all() and np.isfinite(result.eigenvectors).all()


# ---- forms and types ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["csr", "csc", "dense", "torch csr", "torch dense", "torch pixels"])
def test_forms(kind: str) -> None:
    image = photograph(25, 30)
    affinity = pixel_affinity(image)
    matrix = affinity.tocsr()
    parts = [torch.from_numpy(np.array(part)) for part in (matrix.indptr, matrix.indices, matrix.data)]
    form: Any = {
        "csr": lambda: matrix,
        "csc": lambda: matrix.tocsc(),
        "dense": lambda: matrix.toarray(),
        "torch csr": lambda: torch.sparse_csr_tensor(*parts, size=matrix.shape),
        "torch dense": lambda: torch.from_numpy(matrix.toarray()),
        "torch pixels": lambda: pixel_affinity(torch.from_numpy(image)),
    }[kind]()
    result, wanted = smallest_eigenpairs(form, 4, tol=1e-9), smallest_eigenpairs(affinity, 4, tol=1e-9)
    for part in result[:3]:
        assert isinstance(part, torch.Tensor) == kind.startswith("torch")
    np.testing.assert_allclose(np.asarray(result.eigenvalues), wanted.eigenvalues, atol=1e-14)
    np.testing.assert_allclose(np.asarray(result.eigenvectors), wanted.eigenvectors, atol=1e-6)


@pytest.mark.parametrize("form", ["pixels", "csr"])
def test_float32_weights(form: str) -> None:
    image = photograph(40, 45)
    affinity = pixel_affinity(image.astype("float32"))
    result = smallest_eigenpairs(affinity if form == "pixels" else affinity.tocsr(), 5)
    exact = smallest_eigenpairs(pixel_affinity(image), 5)
    assert result.eigenvectors.dtype == np.float32
    np.testing.assert_allclose(result.eigenvalues, exact.eigenvalues, atol=1e-5 * exact.eigenvalues[-1])
    np.testing.assert_allclose(result.eigenvectors, exact.eigenvectors, atol=1e-4)


@pytest.mark.parametrize("form", ["pixels", "csr"])
def test_the_same_seed_gives_the_same_bits(form: str) -> None:
    affinity: Any = pixel_affinity(photograph(50, 45))
    if form == "csr":
        affinity = affinity.tocsr()
    one, same, other = (smallest_eigenpairs(affinity, 4, seed=seed) for seed in (3, 3, 4))
    for a, b in zip(one, same, strict=True):
        assert np.array_equal(a, b)
    np.testing.assert_allclose(one.eigenvalues, other.eigenvalues, rtol=1e-9, atol=1e-14)


def test_too_few_iterations_are_told() -> None:
    affinity = pixel_affinity(photograph(40, 40))
    with pytest.warns(
        ConvergenceWarning, match=r"of 5 pairs have not converged in 1 iterations: pair \d has a residual"
    ):
        result = smallest_eigenpairs(affinity, 5, max_iter=1)
    assert result.n_iter == 1 and result.residual.max() > 1e-6 * result.eigenvalues[1]


# ---- stored cases ---------------------------------------------------------------------------------------


@pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data/spectral")
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", ["O01", "O02", "O03", "O04", "O05", "O06", "O07"])
def test_stored_cases(name: str, dtype: str) -> None:
    path = DATA / f"ncut_{name}.npz"
    if not path.exists():
        pytest.skip(f"no case {name}")
    if name in ("O04", "O07") and dtype == "float32":
        pytest.skip("seconds on a CPU, and kept in float64")
    with np.load(path) as file:
        meta = json.loads(str(file["meta"]))
        image = file["pb"] if meta["kind"] == "ic" else file["feature"]
        wanted, y = file["eigenvalues"], file["y"]
    options = {"radius": meta["r"], "inclusive": meta["rule"] == "le", "sigma_intensity": meta["sigma_I"]}
    if meta["kind"] == "ic":
        options["kind"] = "intervening_contour"
    else:
        options["sigma_distance"] = meta["sigma_X"]
    affinity = pixel_affinity(image.astype(dtype), self_weight=meta["self_weight"], **options)
    if name == "O06":  # numerically in pieces
        with pytest.warns(ConvergenceWarning):
            result = smallest_eigenpairs(affinity, 10, tol=1e-10)
        assert (result.eigenvalues < 1e-8).all() and np.isfinite(result.eigenvectors).all()
        return
    result = smallest_eigenpairs(affinity, 10, tol=1e-10)
    limit = 1e-8 if dtype == "float64" else 1e-5
    np.testing.assert_allclose(result.eigenvalues, wanted, atol=limit * wanted[-1])
    y = y.reshape(-1, y.shape[-1]) if y.shape[-1] <= 10 else y.reshape(y.shape[0], -1).T
    first = slice(1, min(4, y.shape[1]))
    apart = np.diff(wanted)[: first.stop] > 1e-3 * wanted[-1]
    for j in range(1, first.stop):
        if apart[j - 1] and apart[j]:
            np.testing.assert_allclose(abs(result.eigenvectors[:, j]), abs(y[:, j]), atol=2e-4 * abs(y[:, j]).max())


@pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data/spectral")
@pytest.mark.parametrize("name", ["S01", "S02", "S04"])
def test_stored_graphs_of_points(name: str) -> None:
    path = DATA / f"spectral_{name}.npz"
    if not path.exists():
        pytest.skip(f"no case {name}")
    with np.load(path) as file:
        x, wanted = file["X"], {True: file["lam_sym"][:4], False: file["lam_unnorm"][:4]}
    affinity = knn_affinity(x, 10)
    for generalized, values in wanted.items():
        result = smallest_eigenpairs(affinity, 4, generalized=generalized)
        np.testing.assert_allclose(result.eigenvalues, values, atol=1e-8 * values[-1] + 1e-14)
        assert (result.eigenvalues[: 1 if name == "S04" else 2] == 0).all()


# ---- refusals -------------------------------------------------------------------------------------------

GRAPH = np.ones((6, 6))


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"affinity": [[1.0]]}, TypeError, "affinity must be a pixel affinity, .*, got list"),
        ({"affinity": np.ones((2, 3))}, ValueError, "affinity must have shape \\[N, N\\]"),
        ({"affinity": np.triu(GRAPH)}, ValueError, "affinity must be symmetric, got entries that differ by 1"),
        ({"affinity": -GRAPH}, ValueError, "affinity must not be negative, got -1"),
        ({"affinity": GRAPH * np.nan}, ValueError, "affinity must be finite, got nan"),
        ({"affinity": GRAPH.astype(complex)}, TypeError, "affinity must be of real numbers"),
        ({"affinity": pixel_affinity(np.zeros((2, 3, 3, 1)))}, ValueError, "affinity must be of one image"),
        (
            {"affinity": np.diag([1.0, 1, 0])},
            ValueError,
            "affinity must connect every vertex to something, got none at vertex 2",
        ),
        ({"k": 0}, ValueError, "k must be from 1 to 6, got 0"),
        ({"k": 7}, ValueError, "k must be from 1 to 6, got 7"),
        ({"k": 2.0}, TypeError, "k must be an integer"),
        ({"generalized": 1}, TypeError, "generalized must be True or False"),
        ({"tol": 0.0}, ValueError, "tol must be finite and positive"),
        ({"tol": np.nan}, ValueError, "tol must be finite and positive"),
        ({"tol": "small"}, TypeError, "tol must be a number"),
        ({"max_iter": 0}, ValueError, "max_iter must be from 1"),
        ({"max_iter": 1.5}, TypeError, "max_iter must be an integer"),
        ({"seed": -1}, ValueError, "seed must be from 0"),
        ({"seed": None}, TypeError, "seed must be an integer"),
    ],
    ids=str,
)
def test_refusals(options: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=f"^smallest_eigenpairs: {text}"):
        smallest_eigenpairs(**{"affinity": GRAPH, "k": 2, **options})


def test_a_vertex_alone_is_a_component_of_the_plain_laplacian() -> None:
    result = smallest_eigenpairs(np.diag([1.0, 1, 0]), 3, generalized=False)
    assert (result.eigenvalues == 0).all()


# ---- parts ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("generalized", [True, False])
def test_operators_are_the_same_matrix(generalized: bool) -> None:
    affinity = pixel_affinity(photograph(9, 13), radius=3, self_weight=0.4)
    matrix = affinity.tocsr()
    grid = _operator.GridOperator(affinity.stencils()[0], 0.4, generalized)
    other = _operator.SparseOperator(matrix, generalized)
    laplacian = np.diag(affinity.degree) - matrix.toarray()
    rng = np.random.default_rng(0)
    x, before = rng.standard_normal((2, 117, 8))
    step = 0.7 * (laplacian @ x / other.mass[:, None] - 0.2 * x) - 0.3 * before
    for operator in (grid, other):
        np.testing.assert_allclose(operator.apply(x), laplacian @ x, atol=1e-12)
        np.testing.assert_allclose(operator.dense(), laplacian, atol=1e-12)
        out = before.copy()
        operator.follow(x, 0.2, 0.7, 0.3, out)
        np.testing.assert_allclose(out, step, atol=1e-12)
        scaled = laplacian / np.sqrt(operator.mass)[:, None] / np.sqrt(operator.mass)
        assert operator.most >= np.linalg.eigvalsh(scaled)[-1]


def test_the_multigrid_cycle_is_symmetric_and_contracts() -> None:
    affinity = pixel_affinity(photograph(70, 60))
    operator = _operator.GridOperator(affinity.stencils()[0], 1.0, True)
    cycle = _multigrid.Multigrid(operator.stencil, operator.degree, operator.diagonal, operator.mass)
    assert len(cycle.levels) >= 1
    x, y = np.random.default_rng(0).standard_normal((2, 4200, 4))
    x, y = operator.apply(x), operator.apply(y)
    assert (x * cycle(y)).sum() == pytest.approx((y * cycle(x)).sum(), rel=1e-3)
    solved = np.zeros_like(x)
    for _ in range(3):
        solved += cycle(x - operator.apply(solved))
    left = (x - operator.apply(solved)) / np.sqrt(operator.mass)[:, None]
    assert np.linalg.norm(left) < 1e-2 * np.linalg.norm(x / np.sqrt(operator.mass)[:, None])


@pytest.mark.parametrize("width", [4, 12, 20, 24])
def test_products_of_tall_blocks(width: int) -> None:
    rng = np.random.default_rng(0)
    x, p, w = rng.standard_normal((3, 8195, width))
    mass, odd = rng.random(8195), rng.standard_normal((8195, 7))
    to_x, to_p = rng.standard_normal((2, 3, width, width))
    np.testing.assert_allclose(_lobpcg._gram(odd, x, mass), odd.T @ (mass[:, None] * x), atol=1e-10)
    np.testing.assert_allclose(_lobpcg._gram(x, w, None), x.T @ w, atol=1e-10)
    sums = [sum(block @ by for block, by in zip((x, p, w), to, strict=True)) for to in (to_x, to_p)]
    _lobpcg._combine(x, p, w, to_x, to_p)
    np.testing.assert_allclose(x, sums[0], atol=1e-12)
    np.testing.assert_allclose(p, sums[1], atol=1e-12)
    less = w - odd @ (odd.T @ (mass[:, None] * w))
    _lobpcg._project(w, [odd], mass)
    np.testing.assert_allclose(w, less, rtol=1e-9, atol=1e-9)
    turned = x @ to_x[0]
    _lobpcg._turn(x, to_x[0])
    np.testing.assert_allclose(x, turned, atol=1e-11)


@pytest.mark.parametrize(("shape", "radius"), [((20, 17), 5), ((13, 31), 2.5), ((8, 9), 7), ((2, 40), 1.5)], ids=str)
def test_coarse_operators_are_galerkins(shape: tuple[int, int], radius: float) -> None:
    affinity = pixel_affinity(photograph(*shape), radius=radius)
    matrix = affinity.tocsr().toarray()
    np.fill_diagonal(matrix, 0)
    degree = matrix.sum(1)
    between = _multigrid._Interpolation(affinity.stencils()[0])
    share = between @ np.eye(between.rows * between.columns)
    kept = np.zeros(shape, bool)
    kept[::3, ::3] = True
    weight = (matrix + np.eye(len(matrix)))[:, kept.ravel()]
    total = weight.sum(1, keepdims=True)
    np.testing.assert_allclose(share, weight / np.where(total > 0, total, 1), atol=1e-6)
    stencil = between.galerkin(affinity.stencils()[0], degree)
    coarse = _multigrid._compressed(stencil).toarray()
    np.testing.assert_allclose(coarse, share.T @ (np.diag(degree) - matrix) @ share, atol=1e-6 * degree.max())
    scale = np.linspace(0.5, 2, len(coarse))
    level, x = _multigrid._below_grid(stencil, scale), np.eye(len(coarse), dtype=np.float32)
    x = np.pad(x, ((0, 0), (0, -len(x) % 4)))
    product = np.zeros_like(x)
    level.smooth(x, product, 0.0, 0.0, x, x)
    wanted = -scale[:, None] * coarse * scale
    np.testing.assert_allclose(product[:, : len(coarse)], wanted, atol=4e-6 * degree.max())
    vectors = np.random.default_rng(0).standard_normal((2, len(matrix)))
    for found, vector in zip(between.sums(*vectors), vectors, strict=True):
        np.testing.assert_allclose(found, share.T @ vector, atol=1e-5)
