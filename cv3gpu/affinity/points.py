"""Graphs over points: nearest neighbours, a radius, all pairs."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import _array, _check
from .._array import array_op
from . import _neighbors_cpu, _neighbors_gpu
from ._sparse import sparse_like

__all__ = ["knn_affinity", "rbf_affinity"]

DTYPES = ("float32", "float64")
FARTHEST = {"float32": 1e38, "float64": 1e300}  # square distance


def _points(op: str, x: Any) -> Any:
    """The points, checked: on their device where kernels serve them, else in NumPy."""
    _check.dtype(op, "x", x, DTYPES)
    _check.ndim(op, "x", x, 2, "[N, D]")
    if 0 in x.shape:
        _check.fail(op, "x", "hold at least one point in at least one dimension", tuple(x.shape))
    if len(x) >= 2**31 - 1:
        _check.fail(op, "x", "have fewer than 2^31 - 1 points", len(x))
    rows = _array.contiguous(x) if _array.on_gpu(x) else np.ascontiguousarray(_array.as_numpy(x))
    low, high = (_array.to_host(getattr(_array.module(rows), name)(rows, 0)) for name in ("amin", "amax"))
    ends = np.concatenate([low, high]).astype(np.float64)
    if not np.isfinite(ends).all():
        _check.fail(op, "x", "be finite", ends[~np.isfinite(ends)][0])
    farthest = FARTHEST[_array.dtype_name(x)]
    with np.errstate(over="ignore"):
        square = float((np.diff(ends.reshape(2, -1), axis=0) ** 2).sum())
    if not square < farthest:
        _check.fail(op, "x", f"have square distances below {farthest:g}", square)
    return rows


@array_op("x")
def knn_affinity(x: Any, n_neighbors: int, *, gamma: float | None = None) -> Any:
    """The graph of the nearest neighbours of points, made symmetric: (A + A^T) / 2 with a zero diagonal.

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
        SciPy's, CuPy's or torch's, by rows, where x is.

    Raises
    ------
    TypeError, ValueError
        Where an argument is not as said above, or x is not finite or so wide that square distances overflow.

    Notes
    -----
    Of neighbours at the same distance those of lower numbers count. The CPU takes distances in float64, by SciPy's tree
    where points are many for their features, else all N^2 of them (1 to 3 ns each up to 64 features). A GPU takes all
    of them in x's dtype, (D + 3) units of rounding off at most: neighbours may differ where two distances are as close
    as that. Neither holds them in memory. The same bits on every run. There is no gradient.

    References
    ----------
    von Luxburg, "A tutorial on spectral clustering", 2007, section 2.2.

    Examples
    --------
    >>> import numpy as np
    >>> from cv3gpu import knn_affinity
    >>> knn_affinity(np.array([[0.0], [1.0], [3.0]]), 2).toarray()
    array([[0. , 1. , 0. ],
           [1. , 0. , 0.5],
           [0. , 0.5, 0. ]])
    """
    op = "knn_affinity"
    points = _points(op, x)
    count = _check.integer(op, "n_neighbors", n_neighbors, 1, len(points))
    decay = None if gamma is None else _check.not_negative(op, "gamma", gamma)
    if _array.on_gpu(x):
        return sparse_like(*_neighbors_gpu.symmetric(*_neighbors_gpu.nearest(points, count), decay), x)
    from scipy import sparse

    square, index = _neighbors_cpu.nearest(points, count)
    rows = np.broadcast_to(np.arange(len(points))[:, None], index.shape)
    keep = index != rows
    weight = np.ones(index.shape) if decay is None else np.exp(-decay * square)
    shape = (len(points),) * 2
    one = sparse.csr_array((weight[keep], (rows[keep], index[keep])), shape)
    both = ((one + one.T) / 2).tocsr()
    both.sort_indices()
    return sparse_like(both.data.astype(points.dtype), both.indices, both.indptr, x)


@array_op("x")
def rbf_affinity(x: Any, *, gamma: float, eps: float | None = None) -> Any:
    """The affinities exp(-gamma d^2) of all pairs of points, or of those at a distance of at most ``eps``.

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
        Where an argument is not as said above, or x is not finite or so wide that square distances overflow.

    Notes
    -----
    Distances are summed from differences: on the CPU in float64, on a GPU in x's dtype, where a pair may fall on the
    other side of ``eps`` if it is as close to it as (D + 3) units of rounding. The pairs within ``eps`` are found by
    SciPy's tree on the CPU where points are many for their features; else, and on a GPU, all pairs are looked at
    twice, to count edges and to write them. Without ``eps`` they are N^2 numbers. There is no gradient.

    References
    ----------
    von Luxburg, "A tutorial on spectral clustering", 2007, section 2.2.

    Examples
    --------
    >>> import numpy as np
    >>> from cv3gpu import rbf_affinity
    >>> rbf_affinity(np.array([[0.0], [1.0]]), gamma=1.0).round(4)
    array([[1.    , 0.3679],
           [0.3679, 1.    ]])
    """
    op = "rbf_affinity"
    points = _points(op, x)
    decay = _check.not_negative(op, "gamma", gamma)
    reach = None if eps is None else _check.real(op, "eps", eps, positive=True)
    if _array.on_gpu(x):
        if reach is None:
            return _neighbors_gpu.all_pairs(points, decay)
        square = min(reach * reach, FARTHEST[_array.dtype_name(x)])
        return sparse_like(*_neighbors_gpu.within(points, square, decay), x)
    if reach is None:
        from scipy.spatial.distance import cdist

        return _array.from_numpy(np.exp(-decay * cdist(points, points, "sqeuclidean")).astype(points.dtype), x)
    distance, columns, start = _neighbors_cpu.within(points, reach)
    return sparse_like(np.exp(-decay * distance).astype(points.dtype), columns, start, x)
