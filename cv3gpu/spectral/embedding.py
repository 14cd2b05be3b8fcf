"""The rows that spectral clustering works on: of a graph's vertices, of points that came later, of many points by few.

An eigenvector has a value at each vertex. The eigen-equation says what this value is in terms of those of the
neighbours, and so what it would be at a point that was not there: a mean of its neighbours' values, in shares as the
weights of its edges, made larger by 1 / (1 - lambda) (Bengio and others, 2004; the Nystrom formula). The same formula
with few landmarks in place of all points gives approximate eigenvectors of graphs that are too large to be stored.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from .. import _array, _check
from .._array import array_op
from ..eigen._problem import signs
from ._rounding import unit_rows

__all__ = ["Embedding", "Graph", "Nystrom", "nystrom"]

Array = np.ndarray[Any, Any]

POINTS = ("float32", "float64")
LANDMARKS = 500
_PAIRS = 1 << 22  # distances that are held at once
_PLACE = 1e-12  # relative: distances that differ by less are the same
_POLE = 1e-6  # eigenvalues nearer to 1 than this say nothing of new points
_RANK = 1e-10  # of the greatest eigenvalue of the landmarks' affinities: smaller ones are noise


def host_points(op: str, name: str, x: Any, dims: int | None = None) -> Array:
    """Points [N, D] on the host in float64, checked."""
    values = _array.host_values(op, name, x)
    _check.dtype(op, name, x, POINTS)
    _check.shape(op, name, x, ("N", "D" if dims is None else dims))
    points = np.ascontiguousarray(values, np.float64)
    if not np.isfinite(points).all():
        _check.fail(op, name, "be finite", points[~np.isfinite(points)][0])
    return points


# ---- new points -----------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Graph:
    """How a graph was made, so that weights of edges to new points can be: ``points`` is None where it was given."""

    size: int
    points: Array | None = None
    n_neighbors: int | None = None  # the nearest neighbours' graph; else all pairs, or those within eps
    gamma: float = 1.0
    eps: float | None = None

    @functools.cached_property
    def _tree(self) -> Any:
        from scipy.spatial import cKDTree

        return cKDTree(self.points)

    @functools.cached_property
    def _reach(self) -> Array:
        """How far the last of its neighbours is from each point."""
        return np.asarray(self._tree.query(self.points, [self.n_neighbors])[0][:, 0])

    def weights(self, points: Array, relative: bool) -> Any:
        """Weights [M, N] of edges from new points; with ``relative``, each row may have a factor of its own."""
        if self.n_neighbors is not None:
            return self._neighbors(points)
        from scipy.spatial.distance import cdist

        square = cdist(points, self.points, "sqeuclidean")  # type: ignore[arg-type]
        far = None if self.eps is None else square > self.eps * self.eps
        if relative:  # keeps the weights of points that are far from all others above zero
            square -= square.min(axis=1, keepdims=True, initial=np.inf)
        weight = np.exp(-self.gamma * square)
        if far is not None:
            weight[far] = 0
        return weight

    def _neighbors(self, points: Array) -> Any:
        """Half a weight for those that a point would have as neighbours, half for those that would have it."""
        from scipy import sparse
        from scipy.spatial import cKDTree

        count = int(self.n_neighbors or 0)
        shape = len(points), self.size
        if not len(points):
            return sparse.csr_array(shape)
        distance, near = self._tree.query(points, np.arange(1, count + 1))
        twin = np.where(distance[:, 0] == 0, near[:, 0], -1)  # a point that is there already is no neighbour of its own
        own = np.take_along_axis(near, np.arange(count - 1) + (twin >= 0)[:, None], 1)
        back = cKDTree(points).query_ball_point(self.points, self._reach * (1 + _PLACE))
        i = np.concatenate([np.repeat(np.arange(len(points)), count - 1), *back]).astype(np.int64)
        j = np.concatenate([own.ravel(), np.repeat(np.arange(self.size), [len(one) for one in back])])
        keep = j != twin[i]
        return sparse.csr_array((np.full(int(keep.sum()), 0.5), (i[keep], j[keep])), shape)


@dataclass(frozen=True, eq=False)
class Embedding:
    """The eigenvectors of a graph as coordinates of its vertices, and of vertices that come later.

    Attributes
    ----------
    graph : Graph
    generalized : bool
        Whether the pairs are of (D - W) y = lambda D y; else of (D - W) y = lambda y.
    unit : bool
        Whether coordinates are brought to length 1.
    eigenvalues : NumPy array, [k], float64
    eigenvectors : NumPy array, [N, k], float64
    """

    graph: Graph
    generalized: bool
    unit: bool
    eigenvalues: Array
    eigenvectors: Array

    @property
    def rows(self) -> Array:
        """The coordinates [N, k]: the eigenvectors' rows, at length 1 where ``unit``."""
        return unit_rows(self.eigenvectors) if self.unit else self.eigenvectors

    def extend(self, x_new: Any, op: str = "extend") -> Array:
        """Coordinates [M, k] of new vertices, see :meth:`SpectralClustering.predict`; float64, on the host."""
        rows = self._extended(op, x_new)
        return unit_rows(rows) if self.unit else rows

    def _extended(self, op: str, x_new: Any) -> Array:
        if self.generalized and (pole := abs(1 - self.eigenvalues) < _POLE).any():
            advice = "take fewer clusters"
            _check.fail(op, "eigenvalues", "be other than 1", f"{self.eigenvalues[pole][0]:g}", advice)
        if self.graph.points is None:
            return self._from_weights(op, self._given(op, x_new))
        points = host_points(op, "x_new", x_new, self.graph.points.shape[1])
        if self.graph.n_neighbors is not None:
            return self._from_weights(op, self.graph.weights(points, self.generalized))
        out = np.empty((len(points), len(self.eigenvalues)))
        step = max(1, _PAIRS // self.graph.size)
        for first in range(0, len(points), step):
            part = slice(first, first + step)
            out[part] = self._from_weights(op, self.graph.weights(points[part], self.generalized), first)
        return out

    def _given(self, op: str, weights: Any) -> Any:
        """Weights [M, N] that a caller gives, checked."""
        from scipy import sparse

        if sparse.issparse(weights):
            weights = sparse.csr_array(weights)
        elif _array.family(weights) is None:
            _check.fail(op, "x_new", "be a SciPy sparse matrix or an array", _check.kind(weights), error=TypeError)
        _check.dtype(op, "x_new", weights, POINTS)
        _check.shape(op, "x_new", weights, ("M", self.graph.size), "it holds weights of edges to the old vertices")
        weights = weights if sparse.issparse(weights) else _array.to_host(weights)
        values = weights.data if sparse.issparse(weights) else weights
        if not np.isfinite(values).all() or values.min(initial=0) < 0:
            _check.fail(op, "x_new", "be finite and not negative", "other values")
        return weights

    def _from_weights(self, op: str, weights: Any, first: int = 0) -> Array:
        degree = np.asarray(weights.sum(axis=1), np.float64).ravel()[:, None]
        below = degree * (1 - self.eigenvalues) if self.generalized else degree - self.eigenvalues
        above = degree if self.generalized else below - _POLE * degree
        if (bad := ~(above.min(axis=1) > 0)).any():
            wanted = "have edges to the old vertices" if self.generalized else "have degrees above the eigenvalues"
            advice = "" if self.generalized else "take a normalization"
            _check.fail(op, "x_new", wanted, f"{degree[bad][0, 0]:g} in row {first + int(np.argmax(bad))}", advice)
        return np.asarray(weights @ self.eigenvectors) / below


# ---- landmarks ------------------------------------------------------------------------------------------


class Nystrom(NamedTuple):
    """Approximate eigenpairs, see :func:`nystrom`."""

    eigenvalues: Any  # [k], float64
    eigenvectors: Any  # [N, k]
    landmarks: Any  # [m], int64


@array_op("x", "landmarks")
def nystrom(
    x: Any, k: int, *, gamma: float, n_landmarks: int | None = None, landmarks: Any = None, seed: int = 0
) -> Nystrom:
    """Approximate smallest eigenpairs of (D - W) y = lambda D y for W = exp(-gamma d^2) of all pairs of points.

    Only the columns W[:, m] of some points, the landmarks, are computed. With A the part of W between landmarks and B
    that from landmarks to the others, W is replaced by ``[A, B]^T A^-1 [A, B]``, whose eigenvectors are found in one
    shot from an eigenproblem of the size of A, exactly orthonormal in the inner product of its own degrees. With all
    points as landmarks they are the exact ones.

    Parameters
    ----------
    x : array, [N, D], float32 or float64
    k : int, from 1 to the number of landmarks
        How many, the trivial one included.
    gamma : float, not negative
    n_landmarks : int, from 1 to N, or None
        Drawn at random; None: 500, or N where that is less.
    landmarks : array, [m], int64, or None
        The landmarks themselves, distinct; ``n_landmarks`` is None then.
    seed : int
        Of the random numbers. The same seed gives the same landmarks.

    Returns
    -------
    eigenvalues : array, [k], float64
        Ascending.
    eigenvectors : array, [N, k], of the dtype of ``x``
        The largest entry of each is positive.
    landmarks : array, [m], int64

    Raises
    ------
    TypeError, ValueError
        Where an argument is not as said above, or where the approximation is so bad that degrees are not positive.

    Notes
    -----
    Time N m^2 and memory N m, on the CPU; arrays of a GPU are copied. There is no gradient, and no residual: that
    would take all of W. How good the result is depends on the spectrum of W: with m landmarks it has at most rank m.

    References
    ----------
    Fowlkes, Belongie, Chung and Malik, "Spectral grouping using the Nystrom method", PAMI 2004, section 3.

    Examples
    --------
    >>> import numpy as np
    >>> from cv3gpu.spectral import nystrom
    >>> x = np.array([[0.0], [0.1], [0.2], [3.0], [3.1]])
    >>> nystrom(x, 2, gamma=1.0, landmarks=np.array([1, 4])).eigenvectors[:, 1] > 0
    array([False, False, False,  True,  True])
    """
    op = "nystrom"
    points = host_points(op, "x", x)
    n = len(points)
    decay = _check.not_negative(op, "gamma", gamma)
    if not n:
        _check.fail(op, "x", "hold at least one point", tuple(x.shape))
    seed = _check.integer(op, "seed", seed, 0)
    if landmarks is None:
        count = min(LANDMARKS, n) if n_landmarks is None else _check.integer(op, "n_landmarks", n_landmarks, 1, n)
        chosen = np.sort(np.random.default_rng(seed).permutation(n)[:count])
    elif n_landmarks is not None:
        _check.fail(op, "n_landmarks", "be None where landmarks are given", n_landmarks)
    else:
        chosen = _chosen(op, landmarks, n)
    k = _check.integer(op, "k", k, 1, len(chosen))
    values, vectors = _one_shot(op, points, chosen, k, decay)
    vectors *= signs(vectors)
    dtype = _array.dtype_name(x)
    return Nystrom(*(_array.from_host(part, x) for part in (values, vectors.astype(dtype, copy=False), chosen)))


def _chosen(op: str, landmarks: Any, n: int) -> Array:
    _check.dtype(op, "landmarks", landmarks, ("int64",))
    _check.ndim(op, "landmarks", landmarks, 1, "[m]")
    chosen = np.array(_array.to_host(landmarks))
    if not len(chosen) or chosen.min() < 0 or chosen.max() >= n or len(np.unique(chosen)) < len(chosen):
        _check.fail(op, "landmarks", f"be distinct, from 0 to {n - 1}, and at least one", "other values")
    return chosen


def _one_shot(op: str, points: Array, chosen: Array, k: int, gamma: float) -> tuple[Array, Array]:
    """Eigenvalues [k] and D-orthonormal eigenvectors [N, k]."""
    from scipy.linalg import eigh
    from scipy.spatial.distance import cdist

    columns = cdist(points, points[chosen], "sqeuclidean")  # [N, m]
    columns *= -gamma
    np.exp(columns, out=columns)
    values, vectors = eigh(columns[chosen])
    keep = values > _RANK * values[-1]
    if keep.sum() < k:
        advice = "take other landmarks or a larger gamma"
        _check.fail(op, "landmarks", f"have affinities of rank {k} at least", int(keep.sum()), advice)
    half = vectors[:, keep] / np.sqrt(values[keep])  # A^-1/2, up to a rotation from the right
    factor = columns @ half  # W is about factor factor^T
    degree = factor @ factor.sum(axis=0)
    if not degree.min() > 0:
        advice = "take more landmarks or a smaller gamma"
        _check.fail(op, "n_landmarks", "give positive degrees to all points", f"{degree.min():.3g}", advice)
    factor /= np.sqrt(degree)[:, None]
    small, mixes = eigh(factor.T @ factor)
    small, mixes = small[::-1][:k], mixes[:, ::-1][:, :k]
    found = factor @ (mixes / np.sqrt(small)) / np.sqrt(degree)[:, None]
    return np.maximum(1 - small, 0.0), found
