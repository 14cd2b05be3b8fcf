"""From eigenvectors to labels: the rounding step of spectral clustering. NumPy arrays in and out, all on the CPU.

The eigenvectors solve a relaxed problem. Its solutions are the indicator vectors of the clusters only up to a rotation
and some noise; each function here finds clusters in the rows [N, k] in its own way.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import _check
from ..cluster import kmeans

__all__ = ["cluster_qr", "discretize", "in_order", "kmeans_rows", "unit_rows"]

Array = np.ndarray[Any, Any]

_STARTS = 4  # of the alternation, the best one counts
_TINY = 1e-12  # of the longest row: shorter ones have no direction


def _rows(op: str, vectors: Any) -> Array:
    """The vectors in float64, checked."""
    if not isinstance(vectors, np.ndarray):
        _check.fail(op, "vectors", "be a NumPy array", _check.kind(vectors), error=TypeError)
    _check.dtype(op, "vectors", vectors, ("float32", "float64"))
    if vectors.ndim != 2 or vectors.shape[1] < 1:
        _check.fail(op, "vectors", "have shape [N, k] with k at least 1", vectors.shape)
    if not np.isfinite(vectors).all():
        _check.fail(op, "vectors", "be finite", vectors[~np.isfinite(vectors)][0])
    return np.ascontiguousarray(vectors, np.float64)


def unit_rows(vectors: Array) -> Array:
    """The rows at length 1; those without a direction become zero."""
    length = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
    there = length > _TINY * length.max(initial=0)
    return vectors * np.divide(1, length, out=np.zeros_like(length), where=there)[:, None]


def in_order(labels: Array) -> Array:
    """The same clusters [N], int64, numbered from 0 without gaps by their first members."""
    _, first, place = np.unique(labels, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[place]


def kmeans_rows(vectors: Array, n_clusters: int, *, seed: int = 0, normalize: bool = False, n_init: int = 10) -> Array:
    """Labels [N], int64, by k-means on the rows (at length 1 with ``normalize``), the best of ``n_init`` runs."""
    rows = _rows("kmeans_rows", vectors)
    return np.asarray(kmeans(unit_rows(rows) if normalize else rows, n_clusters, n_init=n_init, seed=seed).labels)


def _polar(matrix: Array) -> tuple[Array, float]:
    """The rotation Q for which trace(Q^T M) is greatest, and this trace."""
    u, sizes, v = np.linalg.svd(matrix)
    return u @ v, float(sizes.sum())


def _farthest(rows: Array, first: int) -> Array:
    """A matrix [k, k] whose columns are rows that stand as squarely to each other as can be found one by one."""
    k = rows.shape[1]
    columns = np.empty((k, k))
    columns[:, 0] = rows[first]
    along = np.zeros(len(rows))
    for j in range(1, k):
        along += abs(rows @ columns[:, j - 1])
        columns[:, j] = rows[np.argmin(along)]
    return columns


def discretize(vectors: Array, *, seed: int = 0, max_iter: int = 100) -> Array:
    """Labels [N], int64, from 0 to k - 1, by the rotation of k eigenvectors that comes nearest to indicator vectors.

    Rows are brought to length 1. Then in turn: each row goes to its greatest coordinate after the rotation
    (non-maximum suppression), and the rotation becomes the best one for these labels, by an SVD [k, k]. This ends when
    no label changes, or after ``max_iter`` turns. It starts from rows that stand squarely to each other, the first
    drawn at random; of four starts the one with the least distance counts. The same seed gives the same labels. A
    label may stay without rows. Rows of zeros get the label 0. Cost: N k^2 a turn.

    References
    ----------
    Yu and Shi, "Multiclass spectral clustering", ICCV 2003, equations 13 to 22.
    """
    op = "discretize"
    rows = unit_rows(_rows(op, vectors))
    seed, max_iter = _check.integer(op, "seed", seed, 0), _check.integer(op, "max_iter", max_iter, 1)
    k = rows.shape[1]
    labels = np.zeros(len(rows), np.int64)
    directed = rows[rows.any(axis=1)]
    if k == 1 or not len(directed):
        return labels
    firsts = np.random.default_rng(seed).choice(len(directed), min(_STARTS, len(directed)), replace=False)
    best, greatest = labels, -np.inf
    for first in firsts:
        rotation = _polar(_farthest(directed, int(first)))[0]
        before = None
        for _ in range(max_iter):
            labels = np.argmax(rows @ rotation, axis=1)
            rotation, trace = _polar(np.stack([np.bincount(labels, column, k) for column in rows.T]))
            if before is not None and np.array_equal(before, labels):
                break
            before = labels
        if trace > greatest:
            best, greatest = labels, trace
    return best


def cluster_qr(vectors: Array) -> Array:
    """Labels [N], int64, from 0 to k - 1, by one QR decomposition with column pivoting of the k vectors, transposed.

    Its first k pivots are rows that stand for one cluster each; the rotation nearest to them turns the vectors into
    indicators, and each row goes to its greatest coordinate. No seed and no iteration. A label may stay without rows.
    Cost: N k^2, once.

    References
    ----------
    Damle, Minden and Ying, "Simple, direct and efficient multi-way spectral clustering", Information and Inference
    2019, algorithm 1.
    """
    from scipy.linalg import qr

    rows = _rows("cluster_qr", vectors)
    k = rows.shape[1]
    if len(rows) < k:
        _check.fail("cluster_qr", "vectors", f"have at least as many rows as columns ({k})", rows.shape)
    _, pivots = qr(rows.T, mode="r", pivoting=True)
    rotation = _polar(rows[pivots[:k]].T)[0]
    return np.argmax(abs(rows @ rotation), axis=1)
