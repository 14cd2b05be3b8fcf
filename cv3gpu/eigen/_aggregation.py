"""A multigrid cycle for (D - W) z = r on any sparse graph: the preconditioner of the eigensolver off the pixel grid.

Smoothed aggregation: vertices that strong edges join become one vertex of a smaller graph, and so on, until LAPACK
can solve. The functions that are constant on such a group are smoothed by one step of Jacobi's method, so that they
change over an edge as much as its weight lets them. Constant vectors stay exact on every level.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .._njit import compiled
from ._multigrid import Multigrid, SparseLevel, inverse_root, narrow

__all__ = ["AGGREGATE", "Aggregation"]

Array = np.ndarray[Any, Any]

_STRONG = 0.25  # of the greatest weight at one end of an edge
_DENSER = 0.7  # of a level's entries: where the next one had more, functions are not smoothed
_SMALLER = 0.7  # of a level's vertices, at most, the next one has
_COARSEST = 200  # vertices that LAPACK solves for
_ZERO = 1e-8  # eigenvalues of the coarsest level, of 2 at most, that are components'
_EASY = 0.05  # and where the first of the others is above this, plain products are faster
_MOST = 1000  # where groups can't be made any more


def _strong(weight: float, one: float, other: float) -> bool:
    return weight > 0 and weight >= _STRONG * min(one, other)


def _aggregate(start: Array, columns: Array, entry: Array, top: Array, group: Array) -> int:
    """The number of groups; ``group`` [N] is each vertex's, -1 for those without edges.

    A vertex none of whose neighbours is taken takes them all; the others join the group of their strongest edge.
    ``entry`` are those of D - W, ``top`` [N] becomes the greatest weight of each row, and is 0 before.
    """
    size, count = len(start) - 1, 0
    group[...] = -1
    for i in range(size):
        for p in range(start[i], start[i + 1]):
            top[i] = max(top[i], -entry[p]) if columns[p] != i else top[i]
    for i in range(size):
        free = group[i] < 0 and top[i] > 0
        for p in range(start[i], start[i + 1]):
            j = columns[p]
            if j != i and group[j] >= 0 and _strong(-entry[p], top[i], top[j]):
                free = False
        if free:
            group[i] = count
            for p in range(start[i], start[i + 1]):
                j = columns[p]
                if j != i and _strong(-entry[p], top[i], top[j]):
                    group[j] = count
            count += 1
    for i in range(size):
        if group[i] == -1:
            best = 0.0
            for p in range(start[i], start[i + 1]):
                j = columns[p]
                if j != i and group[j] >= 0 and -entry[p] > best and _strong(-entry[p], top[i], top[j]):
                    best = -entry[p]
                    group[i] = -2 - group[j]  # taken, but not to be followed in this pass
    for i in range(size):
        if group[i] < -1:
            group[i] = -2 - group[i]
    return count


AGGREGATE = (_strong, _aggregate)


class Aggregation(Multigrid):
    """The levels of a sparse D - W. They are for use where ``ready``: they became small, and are worth their cost."""

    def __init__(self, matrix: Any, mass: Array) -> None:
        from scipy import sparse

        self.levels, self._shares = [], []
        degree = matrix.diagonal()
        scale = inverse_root(degree)
        while True:
            level = SparseLevel(matrix, scale)
            level.estimate()
            share, coarser = _next(matrix, level.most)
            fewer = 0 < coarser.shape[0] <= _SMALLER * matrix.shape[0]
            self.ready = fewer or 0 < coarser.shape[0] <= _MOST
            if not self.ready:
                return
            self.levels.append(level)
            self._shares.append(share)
            degree, mass = share.T @ degree, share.T @ mass
            own = np.divide(1, scale, out=np.zeros_like(scale), where=scale > 0)
            matrix, scale = coarser, inverse_root(coarser.diagonal())
            down = sparse.diags_array(scale) @ share.T @ sparse.diags_array(own)
            level.to_coarse, level.to_fine = narrow(down), narrow(down.T)
            if matrix.shape[0] <= _COARSEST or not fewer:
                break
        root = np.sqrt(np.maximum(degree, _ZERO * degree.max()))
        values = np.linalg.eigvalsh(matrix.toarray() / root[:, None] / root)
        first = values[values > _ZERO][:1]
        self.ready = not (first > _EASY).any()
        if self.ready:
            self._solve_coarsest(matrix, scale, mass)


def _next(matrix: Any, most: float) -> tuple[Any, Any]:
    """P, and P^T A P: smoothed where that stays sparse."""
    from scipy import sparse

    size = matrix.shape[0]
    group = np.empty(size, np.int64)
    count = compiled(*AGGREGATE)(matrix.indptr, matrix.indices, matrix.data, np.zeros(size), group)
    there = np.flatnonzero(group >= 0)
    plain = sparse.csr_array((np.ones(len(there)), (there, group[there])), (size, count))
    diagonal = matrix.diagonal()
    step = 4 / (3 * most) * np.divide(1, diagonal, out=np.zeros_like(diagonal), where=diagonal > 0)
    share = (plain - sparse.diags_array(step) @ (matrix @ plain)).tocsr()
    coarser = _product(share, matrix)
    if coarser.nnz > _DENSER * matrix.nnz:
        share, coarser = plain, _product(plain, matrix)
    return share, coarser


def _product(share: Any, matrix: Any) -> Any:
    """P^T A P, symmetric to the last bit, by rows."""
    coarser = share.T @ (matrix @ share)
    coarser = ((coarser + coarser.T) / 2).tocsr()
    coarser.indptr = coarser.indptr.astype(np.int64)
    return coarser
