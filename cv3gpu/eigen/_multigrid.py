"""A multigrid cycle for (D - W) z = r on a pixel grid, in float32: the preconditioner of the eigensolver.

The coarse points are every f-th pixel. A pixel takes its value from the coarse points around it, in shares as its
weights to them are (so no value crosses an edge of the image), and the coarse operators are P^T (D - W) P: small
stencils on every level. Chebyshev polynomials of degree 2 smooth. The finest level is D^-1 (D - W), by the weights of
the affinity itself; the others are scaled from both sides to a unit diagonal, more or less.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .._njit import compiled
from .._shared_loops import MULTIPLY
from .._threads import each
from ..affinity import _cpu
from ..affinity._cpu import Stencil
from ..affinity._loops import TILE
from . import _loops

__all__ = [
    "ALONE",
    "EVERY",
    "SMOOTHED",
    "Multigrid",
    "SparseLevel",
    "inverse_root",
    "narrow",
    "sparse_bands",
    "sparse_product",
]

Array = np.ndarray[Any, Any]

EVERY = 3  # pixels from one coarse point to the next
_COARSEST = 600  # points that are solved for directly
SMOOTHED = 6.0  # the smoother damps the part of the spectrum above the greatest eigenvalue divided by this
_POWER = 15  # steps of the estimate of the greatest eigenvalue
_SAFETY = 1.1
ALONE = 1e-12  # share of the greatest diagonal: a coarse point with less is connected to nothing
_ROWS = 1 << 11  # rows of a sparse matrix that are worth a thread
_LANES = 4  # the width of a block is a multiple


def sparse_bands(rows: int) -> list[tuple[int, int]]:
    """Rows of a sparse matrix, for each thread."""
    return _cpu.bands(rows, 1) if rows >= _ROWS else [(0, rows)]


def sparse_product(matrix: Any, x: Array, out: Array) -> Array:
    """``out`` = A x of a SciPy matrix by rows."""
    run = compiled(*MULTIPLY)
    each(lambda *rows: run(x, matrix.indptr, matrix.indices, matrix.data, *rows, out), sparse_bands(len(out)))
    return out


class _Level:
    """A level: its operator, in one of two forms, and the way to the next one."""

    size: int
    to_coarse: Any  # P^T and P, scaled as the levels are
    to_fine: Any
    most: float  # no eigenvalue is above it

    def enter(self, residual: Array, out: Array, rows: slice) -> None:
        """Rows of ``out``: the level's own right side for a residual."""
        raise NotImplementedError

    def leave(self, x: Array, rows: slice) -> None:
        """Makes rows of what the level found the solution."""
        raise NotImplementedError

    def restrict(self, x: Array) -> Array:
        """P^T x, in the first part of [4, points of the next level, b]."""
        below = np.empty((4, self.to_coarse.shape[0], x.shape[1]), np.float32)
        sparse_product(self.to_coarse, x, below[0])
        return below

    def prolong(self, x: Array, out: Array) -> None:
        """``out`` = P x."""
        sparse_product(self.to_fine, x, out)

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


class _Interpolation:
    """P: from every f-th pixel of a grid to all of them."""

    def __init__(self, stencil: Stencil) -> None:
        self.height, self.width = stencil.height, stencil.width
        self.reach = reach = int(max(stencil.dy.max(initial=0), abs(stencil.dx).max(initial=0)))
        self.rows, self.columns = -(-self.height // EVERY), -(-self.width // EVERY)
        slots = 2 * reach // EVERY + 1
        self.share = np.empty((self.height, self.width, slots, slots), np.float32)
        run = compiled(*_loops.INTERPOLATION)
        given = stencil.flat, stencil.plane, stencil.dy, stencil.dx, self.height, self.width, EVERY, reach
        each(lambda *rows: run(*given, *rows, self.share), _cpu.bands(self.height, self.width))

    def galerkin(self, stencil: Stencil, degree: Array) -> Array:
        """P^T (D - W) P, in float64, [rows, columns, S, S]: of each coarse point, those around it.

        ``degree`` is without self weights.
        """
        spread, wide = 4 * self.reach // EVERY + 1, 3 * self.reach // EVERY
        found = np.zeros((self.rows, self.columns, 2 * wide + 1, 2 * wide + 1))
        given = stencil.flat, stencil.plane, stencil.dy, stencil.dx, degree.reshape(self.height, self.width), self.share
        run = compiled(*_loops.GALERKIN)

        def part(first: int, last: int) -> None:
            run(*given, EVERY, self.reach, wide, first, last, np.empty((spread, spread)), found)

        each(part, _cpu.bands(self.rows, EVERY * self.width))
        return found

    def restrict(self, x: Array, before: Array, scale: Array, out: Array) -> None:
        """``out`` = scale P^T (x / before), of rows [N, b] of float32, b a multiple of 4."""
        around, run = (2 * self.reach + 1) ** 2, compiled(*_loops.RESTRICT)
        given = x, self.share, before, scale, *self._sizes
        each(lambda *rows: run(*given, *rows, *_work(around), out), self._bands(self.rows))

    def prolong(self, x: Array, scale: Array, out: Array) -> None:
        """``out`` = P scale x."""
        around, run = self.share[0, 0].size, compiled(*_loops.PROLONG)
        given = x, self.share, scale, *self._sizes
        each(lambda *rows: run(*given, *rows, *_work(around), out), self._bands(self.height))

    @property
    def _sizes(self) -> tuple[int, ...]:
        return self.width, EVERY, self.reach, self.columns

    def _bands(self, rows: int) -> list[tuple[int, int]]:
        return _cpu.bands(rows, self.height * self.width // rows)

    def sums(self, *x: Array) -> list[Array]:
        """P^T of vectors, in float64."""
        block = np.zeros((self.height * self.width, _LANES), np.float32)
        out = np.empty((self.rows * self.columns, _LANES), np.float32)
        for column, vector in enumerate(x):
            block[:, column] = vector
        self.restrict(block, np.ones(len(block), np.float32), np.ones(len(out), np.float32), out)
        return [out[:, column].astype(np.float64) for column in range(len(x))]

    def __matmul__(self, x: Array) -> Array:
        """P x of any columns, in float64."""
        wide = -(-x.shape[1] // _LANES) * _LANES
        block, out = np.zeros((len(x), wide), np.float32), np.empty((self.height * self.width, wide), np.float32)
        block[:, : x.shape[1]] = x
        self.prolong(block, np.ones(len(x), np.float32), out)
        return out[:, : x.shape[1]].astype(np.float64)


def _work(count: int) -> tuple[Array, Array]:
    """Space for a row of P or of P^T."""
    return np.empty(count, np.int32), np.empty(count, np.float32)


def _compressed(found: Array) -> Any:
    """What `_Interpolation.galerkin` finds, by rows."""
    from scipy import sparse

    points, wide = len(found) * found.shape[1], found.shape[2] // 2
    start, run = np.zeros(points + 1, np.int64), compiled(*_loops.COMPRESSED)
    run(found, wide, start, np.empty(0, np.int32), np.empty(0))
    index, data = np.empty(start[-1], np.int32), np.empty(start[-1])
    run(found, wide, start, index, data)
    return sparse.csr_array((data, index, start), (points, points))


class _StencilLevel(_Level):
    """A level that is a stencil: ``diagonal`` + ``factor`` W."""

    def __init__(self, stencil: Stencil, diagonal: Array, factor: Array) -> None:
        self.size = stencil.size
        self.stencil, self.diagonal, self.factor = stencil, diagonal.astype(np.float32), factor.astype(np.float32)

    def smooth(self, moved: Array, residual: Array, ahead: float, by: float, following: Array, x: Array) -> None:
        s, run = self.stencil, compiled(*_loops.SMOOTH)

        def part(first: int, last: int) -> None:
            buffer = np.empty((TILE, moved.shape[1]), np.float32)
            run(moved, s.flat, s.dy, s.dx, s.plane, self.diagonal, self.factor, s.height, s.width, first, last,
                *s.work(), buffer, buffer.ravel(), moved.ravel(), residual.ravel(), ahead, by, following.ravel(),
                x.ravel())  # fmt: skip

        each(part, _cpu.bands(s.height, s.width))


class _Grid(_StencilLevel):
    """The finest level: D^-1 (D - W). It keeps -D^-1 alone: its right sides and what it finds have the other sign."""

    def __init__(self, stencil: Stencil, degree: Array, diagonal: Array) -> None:
        super().__init__(stencil, diagonal / degree, -1 / degree)
        self.interpolation = _Interpolation(stencil)
        self.below = np.empty(0, np.float32)

    def enter(self, residual: Array, out: Array, rows: slice) -> None:
        np.multiply(residual[rows], self.factor[rows, None], out=out[rows])

    def leave(self, x: Array, rows: slice) -> None:
        np.negative(x[rows], out=x[rows])

    def restrict(self, x: Array) -> Array:
        below = np.empty((4, len(self.below), x.shape[1]), np.float32)
        self.interpolation.restrict(x, self.factor, -self.below, below[0])
        return below

    def prolong(self, x: Array, out: Array) -> None:
        self.interpolation.prolong(x, self.below, out)


def _below_grid(found: Array, scale: Array) -> _StencilLevel:
    """The level that P^T (D - W) P is, as `_Interpolation.galerkin` finds it, scaled from both sides."""
    rows, columns, side = found.shape[:3]
    wide = side // 2
    dy, dx = np.divmod(np.arange(found[0, 0].size // 2 + 1, found[0, 0].size), side)
    stencil = _cpu.empty(rows, columns, dy - wide, dx - wide, np.float32)
    scale = scale.reshape(rows, columns)
    for plane, y, x in zip(stencil.planes(), stencil.dy.tolist(), stencil.dx.tolist(), strict=True):
        plane[...] = 0
        here = slice(max(0, rows - y)), slice(max(0, -x), max(0, min(columns, columns - x)))
        there = slice(y, None), slice(max(0, x), max(0, min(columns, columns + x)))
        plane[here] = found[:, :, wide + y, wide + x][here] * scale[here] * scale[there]
    diagonal = found[:, :, wide, wide] * scale**2
    return _StencilLevel(stencil, diagonal.ravel(), np.ones(1))


class SparseLevel(_Level):
    """A level that is a sparse matrix."""

    def __init__(self, matrix: Any, scale: Array) -> None:
        from scipy import sparse

        self.size = matrix.shape[0]
        self.scale = short = scale.astype(np.float32)
        data = matrix.data * np.repeat(short, np.diff(matrix.indptr))
        data *= short[matrix.indices]
        self.matrix = sparse.csr_array((data.astype(np.float32), matrix.indices, matrix.indptr), matrix.shape)

    def enter(self, residual: Array, out: Array, rows: slice) -> None:
        np.multiply(residual[rows], self.scale[rows, None], out=out[rows])

    def leave(self, x: Array, rows: slice) -> None:
        np.multiply(x[rows], self.scale[rows, None], out=x[rows])

    def smooth(self, moved: Array, residual: Array, ahead: float, by: float, following: Array, x: Array) -> None:
        a, run = self.matrix, compiled(*_loops.RELAX)

        def part(first: int, last: int) -> None:
            buffer = np.empty((1, moved.shape[1]), np.float32)
            run(moved, a.indptr, a.indices, a.data, first, last, buffer, residual, ahead, by, following, x)

        each(part, sparse_bands(self.size))


class Multigrid:
    """The levels, and the cycle."""

    def __init__(self, stencil: Stencil, degree: Array, diagonal: Array, mass: Array) -> None:
        from scipy import sparse

        grid = _Grid(stencil, degree, diagonal)
        grid.estimate()
        found = grid.interpolation.galerkin(stencil, diagonal)
        matrix = _compressed(found)
        degree, mass = grid.interpolation.sums(degree, mass)
        scale = inverse_root(matrix.diagonal())
        grid.below = scale.astype(np.float32)
        self.levels: list[_Level] = [grid]
        self._shares: list[Any] = [grid.interpolation]
        shape = grid.interpolation.rows, grid.interpolation.columns
        while matrix.shape[0] > _COARSEST:
            level = _below_grid(found, scale) if len(self.levels) == 1 else SparseLevel(matrix, scale)
            level.estimate()
            self.levels.append(level)
            own = np.divide(1, scale, out=np.zeros_like(scale), where=scale > 0)
            share, matrix, shape, degree, mass = _next_coarse(matrix, shape, degree, mass)
            self._shares.append(share)
            scale = inverse_root(matrix.diagonal())
            down = sparse.diags_array(scale) @ share.T @ sparse.diags_array(own)
            level.to_coarse, level.to_fine = (narrow(part) for part in (down, down.T))
        self._solve_coarsest(matrix, scale, mass)

    def _solve_coarsest(self, matrix: Any, scale: Array, mass: Array) -> None:
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

    def __call__(self, residual: Array, work: Array | None = None) -> Array:
        """One cycle: about (D - W)^-1 times rows [N, b], in float32.

        It works in ``work`` [4, N, b] of float32, where that is given, whose first part ``residual`` may be, and
        returns the last.
        """
        work = np.empty((4, *residual.shape), np.float32) if work is None else work
        finest, r = self.levels[0], work[0]
        _rowwise(len(r), lambda rows: finest.enter(residual, r, rows))
        x = self._cycle(0, work)
        _rowwise(len(x), lambda rows: finest.leave(x, rows))
        return x

    def _cycle(self, depth: int, work: Array) -> Array:
        """The last part of ``work`` [4, N, b]: the result for the scaled residual that the first part was."""
        level, (residual, moved, following, x) = self.levels[depth], work
        low, high = level.most / SMOOTHED, level.most
        centre, radius = (high + low) / 2, (high - low) / 2
        first = radius / centre
        second = 1 / (2 / first - first)
        ahead, by = second * first, 2 * second / radius

        def begin(rows: slice) -> None:
            np.multiply(residual[rows], np.float32(1 / centre), out=moved[rows])
            x[rows] = moved[rows]

        _rowwise(level.size, begin)
        level.smooth(moved, residual, ahead, by, following, x)
        level.smooth(following, residual, 0.0, 0.0, following, x)
        below = level.restrict(residual)
        found = self._cycle(depth + 1, below) if depth + 1 < len(self.levels) else self._inverse @ below[0]
        level.prolong(found, moved)
        _rowwise(level.size, lambda rows: np.add(x[rows], moved[rows], out=x[rows]))
        level.smooth(moved, residual, 0.0, 1 / centre, following, x)
        level.smooth(following, residual, ahead, by, moved, x)
        return x


def _rowwise(size: int, part: Callable[[slice], Any]) -> None:
    """``part`` of all rows, by slices in threads."""
    each(lambda first, last: part(slice(first, last)), sparse_bands(size))


def inverse_root(diagonal: Array) -> Array:
    """1 / sqrt; 0 for points that nothing is connected to."""
    there = diagonal > ALONE * diagonal.max()
    return np.divide(1, np.sqrt(np.maximum(diagonal, 0)), out=np.zeros_like(diagonal), where=there)


def narrow(matrix: Any) -> Any:
    """A matrix by rows, in float32 and with short indices."""
    matrix = matrix.tocsr().astype(np.float32)
    matrix.indices, matrix.indptr = matrix.indices.astype(np.int32), matrix.indptr.astype(np.int64)
    return matrix


def _next_coarse(
    matrix: Any, shape: tuple[int, int], degree: Array, mass: Array
) -> tuple[Any, Any, tuple[int, int], Array, Array]:
    """P, P^T A P, and the shape, degrees and masses of the level below."""
    from scipy import sparse

    grid = np.zeros(shape, bool)
    grid[::EVERY, ::EVERY] = True
    kept = np.flatnonzero(grid)
    own = sparse.csr_array((degree[kept], (kept, np.arange(len(kept)))), (len(degree), len(kept)))
    share = (own - matrix[:, kept]).tocsr()  # of the weights D - A
    share.data = np.maximum(share.data, 0)
    total = np.asarray(share.sum(axis=1)).ravel()
    share = (sparse.diags_array(1 / np.where(total > 0, total, 1)) @ share).tocsr()
    share.eliminate_zeros()
    coarser = (share.T @ matrix @ share).tocsr()
    small = -(-shape[0] // EVERY), -(-shape[1] // EVERY)
    return share, (coarser + coarser.T) / 2, small, share.T @ degree, share.T @ mass
