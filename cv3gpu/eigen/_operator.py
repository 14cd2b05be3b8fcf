"""The matrix of an eigenproblem on the CPU: A = D - W as a stencil or a sparse matrix, and the mass M, a diagonal."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from .._njit import compiled
from .._threads import each
from ..affinity import _cpu
from ..affinity._cpu import Stencil
from ..affinity._loops import TILE
from . import _loops
from ._multigrid import sparse_bands, sparse_product

__all__ = ["GridOperator", "Operator", "SparseOperator"]

Array = np.ndarray[Any, Any]


class Operator:
    """A y = lambda M y. ``diagonal`` is A's, ``mass`` M's [N], float64; ``most`` bounds the eigenvalues."""

    def __init__(self, degree: Array, diagonal: Array, generalized: bool) -> None:
        self.size = len(degree)
        self.degree, self.diagonal = degree, diagonal
        self.mass = degree if generalized else np.ones_like(degree)
        # W's row sums bound it, without the self weights: |x - y|^2 <= 2 (|x|^2 + |y|^2)
        share = np.divide(diagonal, self.mass, out=np.zeros_like(degree), where=self.mass > 0)
        self.most = 2 * float(share.max(initial=0))

    def apply(self, x: Array) -> Array:
        """A x of rows [N, b], b a multiple of 4."""
        out = np.empty_like(x)
        self.product(x, out)
        return out

    def product(self, x: Array, out: Array) -> None:
        """``out`` = A x."""
        raise NotImplementedError

    def follow(self, x: Array, centre: float, scale: float, before: float, out: Array) -> None:
        """``out`` = scale (M^-1 A - centre) x - before out: a step of a recurrence."""
        raise NotImplementedError

    def components(self, share: float) -> Array:
        """The connected component of each vertex [N], from 0, by weights above a share of the smaller degree."""
        raise NotImplementedError

    def dense(self) -> Array:
        """A [N, N]."""
        padded = -(-self.size // 4) * 4
        return self.apply(np.eye(self.size, padded))[:, : self.size]


class GridOperator(Operator):
    """Of a pixel affinity."""

    def __init__(self, stencil: Stencil, self_weight: float, generalized: bool) -> None:
        sums = stencil.sums()
        super().__init__(sums + self_weight, sums, generalized)
        self.stencil = stencil

    def product(self, x: Array, out: Array) -> None:
        self.stencil.product(x, self.diagonal, -1.0, out)

    def follow(self, x: Array, centre: float, scale: float, before: float, out: Array) -> None:
        s, run = self.stencil, compiled(*_loops.FOLLOW)
        minus = np.array([-1], x.dtype)

        def part(first: int, last: int) -> None:
            buffer = np.empty((TILE, x.shape[1]), x.dtype)
            run(x, s.flat, s.dy, s.dx, s.plane, self.diagonal, minus, s.height, s.width, first, last, *s.work(), buffer,
                self.mass, centre, scale, before, out)  # fmt: skip

        each(part, _cpu.bands(s.height, s.width))

    def components(self, share: float) -> Array:
        s, parent = self.stencil, np.empty(self.size, np.int64)
        compiled(*_loops.COMPONENTS)(s.flat, s.plane, s.dy, s.dx, s.height, s.width, self.degree, share, parent)
        return np.unique(parent, return_inverse=True)[1]


class SparseOperator(Operator):
    """Of any symmetric affinity, a SciPy matrix by rows in float64."""

    def __init__(self, affinity: Any, generalized: bool) -> None:
        from scipy import sparse

        own = affinity.diagonal()
        degree = np.asarray(affinity.sum(axis=1)).ravel()
        super().__init__(degree, degree - own, generalized)
        matrix = (sparse.diags_array(degree) - affinity).tocsr()
        matrix.indptr = matrix.indptr.astype(np.int64)
        self.matrix = matrix
        self._affinity = affinity

    def product(self, x: Array, out: Array) -> None:
        sparse_product(self.matrix, x, out)

    def follow(self, x: Array, centre: float, scale: float, before: float, out: Array) -> None:
        product = self.apply(x)
        run = compiled(*_loops.RECUR)
        each(lambda *rows: run(x, product, self.mass, centre, scale, before, *rows, out), sparse_bands(self.size))

    @functools.cached_property
    def _parts(self) -> Array:
        from scipy.sparse import csgraph

        return np.asarray(csgraph.connected_components(self._affinity, directed=False)[1])

    def components(self, share: float) -> Array:
        from scipy.sparse import csgraph

        w = self._affinity
        count = np.diff(w.indptr)
        keep = w.data > share * np.minimum(np.repeat(self.degree, count), self.degree[w.indices])
        if keep.all():
            return self._parts
        graph = w.copy()
        graph.data = keep.astype(np.int8)
        graph.eliminate_zeros()
        return np.asarray(csgraph.connected_components(graph, directed=False)[1])
