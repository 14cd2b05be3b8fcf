"""The multigrid by aggregation that preconditions the eigensolver on sparse graphs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import linalg, sparse

from cv3gpu._njit import compiled
from cv3gpu.affinity import knn_affinity, rbf_affinity
from cv3gpu.eigen import _problem, smallest_eigenpairs
from cv3gpu.eigen._aggregation import AGGREGATE, Aggregation
from cv3gpu.eigen._operator import SparseOperator


def square(n: int, neighbours: int = 8) -> Any:
    """A graph of points in a square."""
    return knn_affinity(np.random.default_rng(n).random((n, 2)), neighbours)


def pieces(*parts: Any) -> Any:
    return sparse.csr_array(sparse.block_diag(parts))


def path(n: int) -> Any:
    return sparse.csr_array(sparse.diags_array([np.ones(n - 1), np.ones(n - 1)], offsets=[1, -1]))


GRAPHS = {
    "square": lambda: square(1200),
    "path": lambda: path(1500),
    "unequal weights": lambda: rbf_affinity(np.random.default_rng(0).random((900, 2)), gamma=3000.0, eps=0.12),
    "pieces": lambda: pieces(square(700), path(400), square(300)),
    "more pieces than the coarsest level has points": lambda: pieces(*[square(20, 6)] * 40, path(300)),
    "no structure": lambda: knn_affinity(np.random.default_rng(0).standard_normal((900, 40)), 8),
}


@pytest.mark.parametrize("generalized", [True, False])
@pytest.mark.parametrize("name", GRAPHS)
def test_against_lapack(name: str, generalized: bool) -> None:
    affinity = GRAPHS[name]()
    w = affinity.toarray()
    degree = w.sum(1)
    mass = degree if generalized else np.ones_like(degree)
    k = 45 if name.startswith("more") else 7
    exact = linalg.eigh(np.diag(degree) - w, np.diag(mass), eigvals_only=True, subset_by_index=[0, k - 1])
    result = smallest_eigenpairs(affinity, k, generalized=generalized)
    np.testing.assert_allclose(result.eigenvalues, exact, atol=1e-8 * exact[-1])
    y = result.eigenvectors
    np.testing.assert_allclose(y.T @ (mass[:, None] * y), np.eye(k), atol=1e-10)
    assert result.n_iter <= 40


@pytest.mark.parametrize("n", [2000, 8000])
def test_iterations_do_not_grow_with_the_graph(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_problem, "chebyshev", None)  # not to be needed
    assert 0 < smallest_eigenpairs(square(n), 4, tol=1e-4).n_iter <= 14


def test_the_cycle_is_symmetric_and_contracts() -> None:
    operator = SparseOperator(square(4000), True)
    cycle = Aggregation(operator.matrix, operator.mass)
    assert cycle.ready and len(cycle.levels) >= 2
    x, y = np.random.default_rng(0).standard_normal((2, 4000, 4))
    x, y = operator.apply(x), operator.apply(y)
    assert (x * cycle(y)).sum() == pytest.approx((y * cycle(x)).sum(), rel=1e-3)
    solved = np.zeros_like(x)
    for _ in range(6):
        solved += cycle(x - operator.apply(solved))
    left = (x - operator.apply(solved)) / np.sqrt(operator.mass)[:, None]
    assert np.linalg.norm(left) < 0.05 * np.linalg.norm(x / np.sqrt(operator.mass)[:, None])


def test_constants_stay_exact_on_every_level() -> None:
    operator = SparseOperator(square(4000), True)
    cycle = Aggregation(operator.matrix, operator.mass)
    x = np.ones(cycle._coarsest[0].shape[0])
    np.testing.assert_allclose(cycle._coarsest[0] @ x, 0, atol=1e-10)
    for share in reversed(cycle._shares):
        x = share @ x
        np.testing.assert_allclose(x, 1, atol=1e-12)


def test_where_eigenvalues_are_large_there_is_no_multigrid() -> None:
    operator = SparseOperator(GRAPHS["no structure"](), True)
    assert not Aggregation(operator.matrix, operator.mass).ready


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.integers(2, 60), st.floats(0.01, 0.3), st.integers(0, 2**31 - 1))
def test_groups(n: int, density: float, seed: int) -> None:
    """Each vertex with an edge is in one group, groups are connected, and no group is of one vertex alone."""
    rng = np.random.default_rng(seed)
    w = np.triu(rng.random((n, n)) * (rng.random((n, n)) < density), 1)
    w += w.T
    matrix = sparse.csr_array(np.diag(w.sum(1)) - w)
    group, top = np.empty(n, np.int64), np.zeros(n)
    count = compiled(*AGGREGATE)(matrix.indptr, matrix.indices, matrix.data, top, group)
    np.testing.assert_array_equal(top, w.max(1))
    np.testing.assert_array_equal(group >= 0, w.any(1))
    assert set(group[group >= 0].tolist()) == set(range(count))
    for g in range(count):
        inside = w[np.ix_(group == g, group == g)]
        assert len(inside) > 1
        assert sparse.csgraph.connected_components(sparse.csr_array(inside), directed=False)[0] == 1


def test_a_graph_of_more_pieces_than_vertices_with_edges() -> None:
    affinity = pieces(square(900), sparse.csr_array((500, 500)))
    result = smallest_eigenpairs(affinity, 503, generalized=False)
    assert (result.eigenvalues[:501] == 0).all()
    alone = smallest_eigenpairs(square(900), 3, generalized=False)
    np.testing.assert_allclose(result.eigenvalues[501:], alone.eigenvalues[1:], rtol=1e-8)
