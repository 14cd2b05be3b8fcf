"""Graphs over points: nearest neighbours, a radius, all pairs."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import _array, _check
from .._array import array_op
from ._sparse import sparse_like

__all__ = ["knn_affinity", "rbf_affinity"]

DTYPES = ("float32", "float64")
_WORKERS = 1 << 12  # points that are worth all threads


def _points(op: str, x: Any) -> np.ndarray:
    """The points on the host, checked."""
    _check.dtype(op, "x", x, DTYPES)
    _check.ndim(op, "x", x, 2, "[N, D]")
    if 0 in x.shape:
        _check.fail(op, "x", "hold at least one point in at least one dimension", tuple(x.shape))
    points = np.ascontiguousarray(_array.to_host(x))
    if not np.isfinite(points).all():
        _check.fail(op, "x", "be finite", points[~np.isfinite(points)][0])
    return points


def _gamma(op: str, gamma: Any) -> float:
    value = _check.real(op, "gamma", gamma)
    if value < 0:
        _check.fail(op, "gamma", "not be negative", gamma)
    return value


@array_op("x")
def knn_affinity(x: Any, n_neighbors: int, *, gamma: float | None = None) -> Any:
    """The graph of the nearest neighbours of points, made symmetric: (A + A^T) / 2 with a zero diagonal.

    >>> import numpy as np
    >>> from cv3gpu import knn_affinity
    >>> knn_affinity(np.array([[0.0], [1.0], [3.0]]), 2).toarray()
    array([[0. , 1. , 0. ],
           [1. , 0. , 0.5],
           [0. , 0.5, 0. ]])

    Parameters
    ----------
    x : array, [N, D], float32 or float64
    n_neighbors : int, up to N
        The point itself is counted, as scikit-learn does.
    gamma : float or None
        Weights are exp(-gamma d^2), d the distance; 1 where None.

    Returns
    -------
    sparse matrix, [N, N], of x's dtype
        SciPy's, CuPy's or torch's, by rows.

    Raises
    ------
    TypeError, ValueError
        Where an argument is not as said above.

    Notes
    -----
    The neighbours are found on the CPU, by SciPy's tree; arrays of a GPU are copied there and the graph is copied back.
    Of neighbours at the same distance the tree takes some, the same from run to run. There is no gradient.

    References
    ----------
    von Luxburg, "A tutorial on spectral clustering", 2007, section 2.2.
    """
    op = "knn_affinity"
    points = _points(op, x)
    count = _check.integer(op, "n_neighbors", n_neighbors, 1, len(points))
    decay = None if gamma is None else _gamma(op, gamma)
    from scipy import sparse
    from scipy.spatial import cKDTree

    distance, index = cKDTree(points).query(points, count, workers=-1 if len(points) >= _WORKERS else 1)
    distance, index = distance.reshape(len(points), count), index.reshape(len(points), count)
    rows = np.broadcast_to(np.arange(len(points))[:, None], index.shape)
    keep = index != rows
    weight = np.ones(index.shape) if decay is None else np.exp(-decay * distance**2)
    shape = (len(points),) * 2
    one = sparse.csr_array((weight[keep], (rows[keep], index[keep])), shape)
    both = ((one + one.T) / 2).tocsr()
    both.sort_indices()
    return sparse_like(both.data.astype(points.dtype), both.indices, both.indptr, x)


@array_op("x")
def rbf_affinity(x: Any, *, gamma: float, eps: float | None = None) -> Any:
    """The affinities exp(-gamma d^2) of all pairs of points, or of those at a distance of at most ``eps``.

    >>> import numpy as np
    >>> from cv3gpu import rbf_affinity
    >>> rbf_affinity(np.array([[0.0], [1.0]]), gamma=1.0).round(4)
    array([[1.    , 0.3679],
           [0.3679, 1.    ]])

    Parameters
    ----------
    x : array, [N, D], float32 or float64
    gamma : float, not negative
        0 gives all edges the weight 1.
    eps : float or None
        The greatest distance of two points that are connected.

    Returns
    -------
    array, [N, N], or a sparse matrix, [N, N], with ``eps``
        Of x's dtype. The diagonal is 1, as the formula has it.

    Raises
    ------
    TypeError, ValueError
        Where an argument is not as said above.

    Notes
    -----
    All pairs are summed from differences, on the device of x, N^2 numbers. The pairs within ``eps`` are found on the
    CPU, by SciPy's tree. There is no gradient.

    References
    ----------
    von Luxburg, "A tutorial on spectral clustering", 2007, section 2.2.
    """
    op = "rbf_affinity"
    points = _points(op, x)
    decay = _gamma(op, gamma)
    if eps is None:
        return _all_pairs(x, points, decay)
    reach = _check.real(op, "eps", eps, positive=True)
    from scipy import sparse
    from scipy.spatial import cKDTree

    pairs = cKDTree(points).query_pairs(reach, output_type="ndarray")
    apart = points[pairs[:, 0]].astype(np.float64) - points[pairs[:, 1]]
    weight = np.exp(-decay * np.einsum("ij,ij->i", apart, apart))
    own = np.arange(len(points))
    one, other = np.concatenate([own, *pairs.T]), np.concatenate([own, *pairs.T[::-1]])
    values = np.concatenate([np.ones(len(points)), weight, weight])
    matrix = sparse.csr_array((values, (one, other)), (len(points),) * 2)
    matrix.sort_indices()
    return sparse_like(matrix.data.astype(points.dtype), matrix.indices, matrix.indptr, x)


def _all_pairs(x: Any, points: np.ndarray, decay: float) -> Any:
    if _array.family(x) == "numpy" or _array.device_of(x) == "cpu":
        from scipy.spatial.distance import cdist

        return _array.from_numpy(np.exp(-decay * cdist(points, points, "sqeuclidean")).astype(points.dtype), x)
    out = _array.empty(x, (len(points), len(points)))
    rows = max(1, (1 << 24) // math.prod(points.shape))
    for first in range(0, len(points), rows):
        apart = x[first : first + rows, None] - x[None]
        out[first : first + rows] = _array.module(x).exp(-decay * (apart * apart).sum(2))
    return out
