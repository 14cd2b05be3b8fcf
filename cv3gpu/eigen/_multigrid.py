"""A multigrid cycle for (D - W) z = r on a pixel grid, in float32: the preconditioner of the eigensolver.

The coarse points are every f-th pixel. A pixel takes its value from the coarse points around it, in shares as its
weights to them are (so no value crosses an edge of the image), and the coarse operators are P^T (D - W) P: small
stencils on every level. Chebyshev polynomials of degree 2 smooth. All levels are scaled to a unit diagonal, more or
less, as D^-1/2 (D - W) D^-1/2 is.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .._njit import compiled
from .._threads import each
from ..affinity import _cpu
from ..affinity._cpu import Stencil
from ..affinity._loops import TILE
from . import _loops

__all__ = ["Multigrid", "sparse_bands", "sparse_product"]

Array = np.ndarray[Any, Any]

_EVERY = 3  # pixels from one coarse point to the next
_COARSEST = 600  # points that are solved for directly
_SMOOTHED = 6.0  # the smoother damps the part of the spectrum above the greatest eigenvalue divided by this
_POWER = 15  # steps of the estimate of the greatest eigenvalue
_SAFETY = 1.1
_ALONE = 1e-12  # share of the greatest diagonal: a coarse point with less is connected to nothing
_ROWS = 1 << 11  # rows of a sparse matrix that are worth a thread
_LANES = 4  # the width of a block is a multiple


def sparse_bands(rows: int) -> list[tuple[int, int]]:
    """Rows of a sparse matrix, for each thread."""
    return _cpu.bands(rows, 1) if rows >= _ROWS else [(0, rows)]


def sparse_product(matrix: Any, x: Array, out: Array) -> Array:
    """``out`` = A x of a SciPy matrix by rows."""
    run = compiled(*_loops.GATHER)
    each(lambda *rows: run(x, matrix.indptr, matrix.indices, matrix.data, *rows, out), sparse_bands(len(out)))
    return out


class _Level:
    """A level: its operator, in one of two forms, and the way to the next one."""

    size: int
    to_coarse: Any  # P^T and P, scaled as the levels are
    to_fine: Any
    most: float  # no eigenvalue is above it

    def smooth(self, moved: Array, residual: Array, ahead: float, by: float, following: Array, x: Array) -> None:
        """In turn, residual -= A moved, following = ahead moved + by residual, x += following; the first if by is 0."""
        raise NotImplementedError

    def estimate(self) -> None:
        """Sets ``most``, by powers of the operator."""
        rng = np.random.default_rng(0)
        x = rng.standard_normal((self.size, _LANES)).astype(np.float32)
        largest = np.float32(1)
        for _ in range(_POWER):
            product = np.zeros_like(x)
            self.smooth(x, product, 0.0, 0.0, x, x)
            norm = np.sqrt(np.einsum("ij,ij->j", product, product))
            largest = norm.max()
            if not largest > 0:
                largest = np.float32(1)
                break
            x = product / np.maximum(norm, np.float32(1e-30))
        self.most = float(largest) * _SAFETY


class _Grid(_Level):
    """The finest level: a stencil."""

    def __init__(self, stencil: Stencil, degree: Array, diagonal: Array) -> None:
        height, width = stencil.height, stencil.width
        self.size = stencil.size
        scale = (1 / np.sqrt(degree)).reshape(height, width)
        self.stencil = _cpu.empty(height, width, stencil.dy, stencil.dx, np.float32)
        run = compiled(*_loops.SCALED)

        def part(first: int, last: int) -> None:
            run(stencil.flat, stencil.plane, stencil.dy, stencil.dx, scale, first, last, self.stencil.flat,
                self.stencil.plane)  # fmt: skip

        each(part, _cpu.bands(height, width))
        self.diagonal = (diagonal / degree).astype(np.float32)
        self.minus = np.array([-1], np.float32)

    def smooth(self, moved: Array, residual: Array, ahead: float, by: float, following: Array, x: Array) -> None:
        s, run = self.stencil, compiled(*_loops.SMOOTH)

        def part(first: int, last: int) -> None:
            buffer = np.empty((TILE, moved.shape[1]), np.float32)
            run(moved, s.flat, s.dy, s.dx, s.plane, self.diagonal, self.minus, s.height, s.width, first, last,
                *s.work(), buffer, buffer.ravel(), moved.ravel(), residual.ravel(), ahead, by, following.ravel(),
                x.ravel())  # fmt: skip

        each(part, _cpu.bands(s.height, s.width))


class _Sparse(_Level):
    """A coarser level: a sparse matrix."""

    def __init__(self, matrix: Any, scale: Array) -> None:
        self.size = matrix.shape[0]
        scaled = matrix.copy()
        rows = np.repeat(np.arange(self.size), np.diff(matrix.indptr))
        scaled.data = (matrix.data * scale[rows] * scale[matrix.indices]).astype(np.float32)
        self.matrix = scaled

    def smooth(self, moved: Array, residual: Array, ahead: float, by: float, following: Array, x: Array) -> None:
        product = sparse_product(self.matrix, moved, np.empty_like(moved))
        residual -= product
        if by:
            np.multiply(moved, np.float32(ahead), out=following)
            np.multiply(residual, np.float32(by), out=product)
            following += product
            x += following


class Multigrid:
    """The levels, and the cycle."""

    def __init__(self, stencil: Stencil, degree: Array, diagonal: Array, mass: Array) -> None:
        from scipy import sparse

        self.scale = 1 / np.sqrt(degree)
        self.levels: list[_Level] = [_Grid(stencil, degree, diagonal)]
        self.levels[0].estimate()
        share, matrix = _first_coarse(stencil, diagonal)
        degree, mass = share.T @ degree, share.T @ mass
        self._shares = [share]
        own = 1 / self.scale
        shape = -(-stencil.height // _EVERY), -(-stencil.width // _EVERY)
        while True:
            scale = _inverse_root(matrix.diagonal())
            down = sparse.diags_array(scale) @ share.T @ sparse.diags_array(own)
            level = self.levels[-1]
            level.to_coarse, level.to_fine = (_narrow(part) for part in (down, down.T))
            if matrix.shape[0] <= _COARSEST:
                break
            level = _Sparse(matrix, scale)
            level.estimate()
            self.levels.append(level)
            share, matrix, shape, degree, mass = _next_coarse(matrix, shape, degree, mass)
            self._shares.append(share)
            own = np.divide(1, scale, out=np.zeros_like(scale), where=scale > 0)
        dense = matrix.toarray() * scale[:, None] * scale
        values, vectors = np.linalg.eigh((dense + dense.T) / 2)
        keep = values > 1e-6 * values[-1]
        self._inverse = ((vectors[:, keep] / values[keep]) @ vectors[:, keep].T).astype(np.float32)
        self._coarsest = matrix.toarray(), mass

    def start(self, count: int) -> Array:
        """Up to ``count`` vectors [N, c], float64: the smallest eigenvectors of the coarsest level, on the finest.

        Can be asked for once: what it takes is large, and is given up.
        """
        matrix, mass = self._coarsest
        root = np.sqrt(np.maximum(mass, 1e-12 * mass.max()))
        scaled = matrix / root[:, None] / root
        _, vectors = np.linalg.eigh((scaled + scaled.T) / 2)
        x = vectors[:, :count] / root[:, None]
        while self._shares:
            x = self._shares.pop() @ x
        return x

    def __call__(self, residual: Array) -> Array:
        """One cycle: about (D - W)^-1 times rows [N, b] of float64, as float32."""
        r = np.empty(residual.shape, np.float32)
        np.multiply(residual, self.scale[:, None], out=r, casting="same_kind")
        x = self._cycle(0, r)
        x *= self.scale.astype(np.float32)[:, None]
        return x

    def _cycle(self, depth: int, residual: Array) -> Array:
        """The result for a scaled residual, which is overwritten."""
        level = self.levels[depth]
        low, high = level.most / _SMOOTHED, level.most
        centre, radius = (high + low) / 2, (high - low) / 2
        first = radius / centre
        second = 1 / (2 / first - first)
        ahead, by = second * first, 2 * second / radius
        moved = residual * np.float32(1 / centre)
        x = moved.copy()
        following = np.empty_like(x)
        level.smooth(moved, residual, ahead, by, following, x)
        level.smooth(following, residual, 0.0, 0.0, following, x)
        coarse = sparse_product(level.to_coarse, residual, _rows(level.to_coarse, x))
        below = self._cycle(depth + 1, coarse) if depth + 1 < len(self.levels) else self._inverse @ coarse
        sparse_product(level.to_fine, below, moved)
        x += moved
        level.smooth(moved, residual, 0.0, 1 / centre, following, x)
        level.smooth(following, residual, ahead, by, moved, x)
        return x


def _inverse_root(diagonal: Array) -> Array:
    """1 / sqrt; 0 for points that nothing is connected to."""
    there = diagonal > _ALONE * diagonal.max()
    return np.divide(1, np.sqrt(np.maximum(diagonal, 0)), out=np.zeros_like(diagonal), where=there)


def _rows(matrix: Any, like: Array) -> Array:
    return np.empty((matrix.shape[0], like.shape[1]), like.dtype)


def _narrow(matrix: Any) -> Any:
    """A matrix by rows, in float32 and with short indices."""
    matrix = matrix.tocsr().astype(np.float32)
    matrix.indices, matrix.indptr = matrix.indices.astype(np.int32), matrix.indptr.astype(np.int64)
    return matrix


def _first_coarse(stencil: Stencil, degree: Array) -> tuple[Any, Any]:
    """P and P^T (D - W) P of a stencil, sparse; ``degree`` is without self weights."""
    from scipy import sparse

    height, width = stencil.height, stencil.width
    reach = int(max(stencil.dy.max(initial=0), abs(stencil.dx).max(initial=0)))
    slots, spread, wide = 2 * reach // _EVERY + 1, 4 * reach // _EVERY + 1, 3 * reach // _EVERY
    share = np.empty((height, width, slots, slots))
    given = stencil.flat, stencil.plane, stencil.dy, stencil.dx
    compiled(*_loops.INTERPOLATION)(*given, height, width, _EVERY, reach, share)
    rows, columns = -(-height // _EVERY), -(-width // _EVERY)
    found = np.zeros((rows, columns, 2 * wide + 1, 2 * wide + 1))
    compiled(*_loops.GALERKIN)(
        *given, degree.reshape(height, width), share, _EVERY, reach, wide, 0, height, np.empty((spread, spread)), found
    )
    points = rows * columns
    at, a, b = _entries(found)
    to = at + (a - wide) * columns + b - wide
    matrix = sparse.csr_array((found[found != 0], (at, to)), (points, points))
    at, a, b = _entries(share)
    y, x = np.divmod(at, np.int32(width))
    to = (a - (reach - y) // _EVERY) * columns + b - (reach - x) // _EVERY
    parts = sparse.csr_array((share[share != 0], (at, to)), (height * width, points))
    return parts, matrix


def _entries(x: Array) -> tuple[Array, Array, Array]:
    """Of what is not zero in an array [h, w, s, t]: the number of the place, and the two slots."""
    place, slot = np.divmod(np.flatnonzero(x), x.shape[2] * x.shape[3])
    a, b = np.divmod(slot.astype(np.int32), np.int32(x.shape[3]))
    return place.astype(np.int32), a, b


def _next_coarse(
    matrix: Any, shape: tuple[int, int], degree: Array, mass: Array
) -> tuple[Any, Any, tuple[int, int], Array, Array]:
    """P, P^T A P, and the shape, degrees and masses of the level below."""
    from scipy import sparse

    weight = sparse.diags_array(degree) - matrix
    weight = weight.tocsr()
    weight.data = np.maximum(weight.data, 0)
    grid = np.zeros(shape, bool)
    grid[::_EVERY, ::_EVERY] = True
    share = weight[:, np.flatnonzero(grid)]
    total = np.asarray(share.sum(axis=1)).ravel()
    share = (sparse.diags_array(1 / np.where(total > 0, total, 1)) @ share).tocsr()
    share.eliminate_zeros()
    coarser = (share.T @ matrix @ share).tocsr()
    small = -(-shape[0] // _EVERY), -(-shape[1] // _EVERY)
    return share, (coarser + coarser.T) / 2, small, share.T @ degree, share.T @ mass
