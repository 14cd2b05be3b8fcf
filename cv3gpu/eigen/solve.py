"""The smallest eigenpairs of the Laplacian of an affinity: arguments, results, and what is said of them."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import numpy as np

from .. import _array, _check
from ..affinity.matrix import Given, given
from ..errors import ConvergenceWarning
from ._lobpcg import Found, residuals
from ._operator import GridOperator, Operator, SparseOperator
from ._problem import Problem, null_space, signs

__all__ = ["Eigenpairs", "smallest_eigenpairs"]

Array = np.ndarray[Any, Any]

OP = "smallest_eigenpairs"


class Eigenpairs(NamedTuple):
    """Eigenvalues ascending [k], eigenvectors [N, k], residuals [k], iterations."""

    eigenvalues: Any
    eigenvectors: Any
    residual: Any
    n_iter: int


def smallest_eigenpairs(
    affinity: Any, k: int, *, generalized: bool = True, tol: float = 1e-6, max_iter: int = 1000, seed: int = 0
) -> Eigenpairs:
    """The k smallest eigenpairs of (D - W) y = lambda D y, or of (D - W) y = lambda y.

    The first pair is the trivial one: lambda is 0 and y is the same everywhere, as the rows of D - W sum to zero. It
    separates nothing; the second is the first that does, the relaxed solution of the normalised cut. Where the graph
    falls into c components, c eigenvalues are 0, and their eigenvectors are the same within each component: the trivial
    one, then those that set one component after another, from the largest down, against the larger ones.

    Parameters
    ----------
    affinity : PixelAffinity, sparse matrix or array, [N, N]
        W, symmetric and not negative; D holds the sums of its rows, the diagonal included.
    k : int, from 1 to N
        How many, the trivial one included.
    generalized : bool
        Shi and Malik's problem, with D on the right; else the plain Laplacian's.
    tol : float
        A pair has converged when its residual is at most tol max(lambda, the smallest nonzero lambda), or as small as
        rounding allows, 4e-15. An eigenvalue's error is about the square of its residual over the gap to the next.
    max_iter : int
        The most iterations.
    seed : int
        Of the random start, where there is one. The same seed gives the same bits with the same number of threads.

    Returns
    -------
    eigenvalues : array, [k], float64
        Ascending.
    eigenvectors : array, [N, k], of the affinity's dtype
        Orthonormal in the inner product of D (of the identity where not ``generalized``); the largest entry of each is
        positive.
    residual : array, [k], float64
        ``|(I - D^-1/2 W D^-1/2) v - lambda v|`` for the unit vector v = D^1/2 y, or ``|(D - W) y - lambda y|``.
        Computed anew from the vectors that are returned, before they are rounded to float32 where the affinity is.
    n_iter : int
        Iterations of all methods that were needed, 0 where LAPACK solves.

    Raises
    ------
    TypeError, ValueError
        Where an argument is not as said above, or a vertex has no edge at all (``generalized`` alone).

    Warns
    -----
    ConvergenceWarning
        Where a residual is above its limit, or an eigenvalue is so small that it can't be told from zero.

    Notes
    -----
    Up to about 200 neighbours: LOBPCG with a multigrid cycle as its preconditioner, on the pixel grid or, for any other
    sparse graph, on groups of vertices; some ten to twenty iterations at any size. Otherwise, or where that stalls:
    subspace iteration with Chebyshev polynomials, which needs products alone. Up to 512 vertices, and up to 2048 where
    LOBPCG stalls: LAPACK. Null spaces are found as connected components and kept apart. Vectors and small matrices are
    float64, the multigrid is float32.

    What lives on a GPU is solved there, components, multigrid and start included; the host sees Ritz values and small
    matrices alone. There, sparse graphs other than pixel grids, more neighbours than 200 and k above 14 go to the
    filters, in float32 as far as that goes where weights are stored so. Weights that are not stored are made anew in
    every product; the multigrid makes all of them once. Graphs of up to 512 vertices, and k above 30, are copied and
    solved on the CPU. Random starts differ between CPU and GPU.

    References
    ----------
    Shi and Malik, "Normalized cuts and image segmentation", PAMI 2000, equation 7. Knyazev, "Toward the optimal
    preconditioned eigensolver", SIAM J. Sci. Comput. 2001. Hetmaniuk and Lehoucq, "Basis selection in LOBPCG", J.
    Comput. Phys. 2006. Zhou, Saad, Tiago, Chelikowsky, "Self-consistent-field calculations using Chebyshev-filtered
    subspace iteration", J. Comput. Phys. 2006.

    Examples
    --------
    >>> import numpy as np
    >>> from cv3gpu import smallest_eigenpairs
    >>> path = np.diag([1.0, 1.0], 1) + np.diag([1.0, 1.0], -1)
    >>> smallest_eigenpairs(path, 3).eigenvalues.round(6) + 0.0
    array([0., 1., 2.])
    """
    generalized = _check.flag(OP, "generalized", generalized)
    tol = _check.real(OP, "tol", tol, positive=True)
    max_iter = _check.integer(OP, "max_iter", max_iter, 1)
    seed = _check.integer(OP, "seed", seed, 0)
    what = given(OP, affinity)
    k = _check.integer(OP, "k", k, 1, what.size)
    if _array.on_gpu(what.like):
        from . import _gpu

        if (there := _gpu.pairs(what, k, generalized, tol, max_iter, seed)) is not None:
            _warn(there.problem, there.values, there.norms, there.exact, there.result.n_iter)
            return there.result
    operator = _operator(what, generalized)
    null, exact = null_space(operator, k)
    problem = Problem(operator, null, k - null.shape[1], tol)
    found = problem.solve(max_iter, seed) if problem.wanted else _nothing(operator.size)
    values, vectors, norms = _joined(operator, null, found, problem.wanted)
    _warn(problem, values, norms, exact, found.n_iter)
    vectors *= signs(vectors)
    return Eigenpairs(what.back(values), what.back(vectors.astype(what.dtype)), what.back(norms), found.n_iter)


def _operator(what: Given, generalized: bool) -> Operator:
    operator: Operator
    if what.pixels is not None:
        pixels = what.pixels.host()
        operator = GridOperator(pixels.stencils()[0], pixels.self_weight, generalized)
    else:
        operator = SparseOperator(what.matrix, generalized)
    if generalized and not operator.degree.all():
        vertex = int(np.flatnonzero(operator.degree == 0)[0])
        advice = "give it a self weight, leave it out, or take generalized=False"
        _check.fail(OP, "affinity", "connect every vertex to something", f"none at vertex {vertex}", advice)
    return operator


def _nothing(size: int) -> Found:
    return Found(np.empty(0), np.empty((size, 0)), np.empty(0), 0)


# ---- results ----------------------------------------------------------------------------------------------


def _joined(operator: Operator, null: Array, found: Found, wanted: int) -> tuple[Array, Array, Array]:
    """Eigenvalues, eigenvectors and true residuals of all pairs."""
    vectors = np.concatenate([null, found.vectors[:, :wanted]], 1)
    k = vectors.shape[1]
    padded = np.zeros((len(vectors), -(-k // 4) * 4))
    padded[:, :k] = vectors
    values = np.concatenate([np.zeros(null.shape[1]), np.maximum(found.values[:wanted], 0)])
    room = np.empty_like(padded)
    norms = residuals(operator, np.append(values, np.zeros(padded.shape[1] - k)), padded, room, room)[:k]
    return values, vectors, norms


def _warn(problem: Problem, values: Array, norms: Array, exact: bool, n_iter: int) -> None:
    """Says what has not converged, and what rounding hides."""
    null = len(values) - problem.wanted
    limits = problem.limits(values[null:])
    hidden = problem.hidden(values[null:])
    late = ~(norms[null:] <= limits) & ~hidden
    if late.any():
        worst = int(np.argmax(np.where(late, norms[null:] / limits, 0)))
        text = (
            f"{int(late.sum())} of {len(norms)} pairs have not converged in {n_iter} iterations: pair {null + worst} "
            f"has a residual of {norms[null + worst]:.3g}, wanted {limits[worst]:.3g}"
        )
        warnings.warn(f"{OP}: {text}", ConvergenceWarning, stacklevel=3)
    lost = int(hidden.sum()) + (0 if exact else null - 1)
    if lost:
        text = (
            f"{lost} of {len(values)} eigenvalues are too small to be told from 0: parts of the graph are connected "
            "by weights near or below rounding, and their eigenvectors mix"
        )
        warnings.warn(f"{OP}: {text}", ConvergenceWarning, stacklevel=3)
