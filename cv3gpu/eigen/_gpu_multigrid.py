"""The multigrid of `_multigrid`, made and run on the device. The kernels are in ``kernels/eigen_multigrid.cu``."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from .. import _array
from .._kernel import blocks, kernel
from ..affinity import _gpu as affinity_gpu
from ..affinity._gpu import Stencil
from ._chebyshev import LANCZOS, iterate
from ._gpu import _Device, _Matrix, _Pixels
from ._multigrid import ALONE, EVERY, SMOOTHED

__all__ = ["Cycle"]

_BLOCK = 256  # as in eigen_multigrid.cu
_COARSEST = 64  # points that the host inverts
_STEPS = 6  # of Lanczos' bound on coarser levels
_STARTS = 4000  # points of the level that the start comes from, at most
_NEAR = 0.3  # residual of the start, relative to the largest eigenvalue wanted


class _Coarse(_Matrix):
    """The operator of a level, with any mass."""

    def __init__(self, stencil: Stencil, diagonal: Any, mass: Any) -> None:
        self.stencil = stencil
        super().__init__(
            _array.astype(mass, "float64"), _array.astype(diagonal, "float64"), True, stencil.source, "float32"
        )

    def step(self, x: Any, out: Any, inverse: Any, centre: float, scale: float, before: float) -> Any:
        diagonal = self.sides(_array.dtype_name(x))[0]
        return self.stencil.step(x, out, diagonal, inverse, centre=centre, scale=scale, before=before)


class _Level(NamedTuple):
    """A level of the grid: its operator diagonal - W in float32."""

    stencil: Stencil
    diagonal: Any  # [N], as the smoother and the way down take it
    inverse: Any
    own: Any  # [N]: the operator's diagonal
    mass: Any
    most: float  # no eigenvalue of inverse A is above it
    share: Any  # P [S S, N] to the next level, None of the last one

    @property
    def size(self) -> int:
        """Number of points."""
        return self.stencil.grid[0] * self.stencil.grid[1]


class Cycle:
    """The levels, from the image on, and the cycle."""

    def __init__(self, matrix: _Pixels, flat: Any, offsets: tuple[tuple[int, int], ...], seed: int) -> None:
        self.seed, self.reach = seed, matrix.stencil.reach
        flat = _array.astype(flat, "float32")
        stored = affinity_gpu.of_planes(flat, offsets, int(flat.shape[1]) // len(offsets), matrix.stencil.grid)
        fine = matrix.stencil
        if fine.features:
            fine = fine._replace(source=_array.astype(fine.source, "float32"),
                                 distance=_array.astype(fine.distance, "float32"))  # fmt: skip
        else:
            fine = stored
        own, _, mass = matrix.sides("float32")
        degree = _array.astype(matrix.degree, "float32")
        bound = self._bound(fine, own, degree, LANCZOS)
        self.levels = [_Level(fine, degree, 1 / degree, own, mass, bound, None)]
        inside: Any = None  # a point's weight with itself
        while self.levels[-1].size > _COARSEST:
            level = self.levels[-1]
            share = self._share(stored, inside)
            self.levels[-1] = level._replace(share=share)
            stored, own = self._coarser(stored, level.own, share)
            degree, mass = self._lumped(degree, mass, share, level.stencil.grid, stored.grid)
            inside = degree - own
            largest = float(own.max())
            alone = _array.astype(own <= ALONE * largest, "float32")
            safe = own + alone * largest
            bound = self._bound(stored, own, safe, _STEPS)
            self.levels.append(_Level(stored, safe, (1 - alone) / safe, own, mass, bound, None))
        self._inverse = self._solved(self.levels[-1])

    def _bound(self, stencil: Stencil, own: Any, mass: Any, steps: int) -> float:
        """Of the eigenvalues of mass^-1 A."""
        matrix = _Coarse(stencil, own, mass)
        matrix.most = math.inf  # weights of coarser levels may be negative
        return _Device(matrix, _array.zeros(mass, (matrix.size, 4)), "float32", self.seed).bound(steps)

    def _run(self, name: str, grid: tuple[int, ...], *args: Any) -> None:
        kernel("eigen_multigrid.cu", name)(grid, _BLOCK, *args)

    # ---- coarser levels -----------------------------------------------------------------------------------

    def _share(self, stencil: Stencil, inside: Any) -> Any:
        """P [S S, N]."""
        height, width = stencil.grid
        share = _array.empty(stencil.source, ((2 * self.reach // EVERY + 1) ** 2, height * width))
        self._run("grid_interpolation", (blocks(height * width, _BLOCK),), stencil.source, stencil.table, inside, share,
                  height, width, stencil.plane, self.reach)  # fmt: skip
        return share

    def _coarser(self, stencil: Stencil, own: Any, share: Any) -> tuple[Stencil, Any]:
        """P^T A P: its weights and diagonal."""
        (height, width), reach = stencil.grid, self.reach
        rows, columns = blocks(height, EVERY), blocks(width, EVERY)
        slots = (4 * reach // EVERY + 1) ** 2
        image = _array.empty(share, (slots, height * width))
        self._run("grid_image", (blocks(height * width, _BLOCK), slots), stencil.source, stencil.table, own, share,
                  image, height, width, stencil.plane, reach)  # fmt: skip
        around = range(-reach, reach + 1)
        offsets = tuple((dy, dx) for dy in around for dx in around if (dy, dx) > (0, 0))
        pairs = _array.from_host(np.array([*offsets, (0, 0)], np.int32), share)
        points = rows * columns
        flat, diagonal = _array.zeros(share, (1, len(offsets) * points)), _array.empty(share, (points,))
        self._run("grid_coarse", (blocks(points, _BLOCK), len(offsets) + 1), share, image, pairs, flat, diagonal,
                  height, width, rows, columns, len(offsets), points, reach)  # fmt: skip
        return affinity_gpu.of_planes(flat, offsets, points, (rows, columns)), diagonal

    def _lumped(self, degree: Any, mass: Any, share: Any, fine: tuple[int, int], grid: tuple[int, int]) -> Any:
        """P^T degree, P^T mass."""
        both = _array.zeros(degree, (int(degree.shape[0]), 4))
        both[:, 0], both[:, 1] = degree, mass
        out = self._down(share, both, None, None, fine, grid)
        return _array.contiguous(out[:, 0]), _array.contiguous(out[:, 1])

    def _solved(self, level: _Level) -> Any:
        """(inverse A)^-1 of the last level, on the space where it has one."""
        n = level.size
        unit = _array.from_host(np.eye(n, blocks(n, 4) * 4, dtype=np.float32), level.own)
        matrix = _array.to_host(_Coarse(level.stencil, level.own, level.diagonal).apply(unit))[:, :n].astype(float)
        root = np.sqrt(_array.to_host(level.diagonal).astype(float))
        scaled = matrix / root[:, None] / root
        if not np.isfinite(scaled).all():
            return _array.zeros(level.own, (n, n))
        values, vectors = np.linalg.eigh((scaled + scaled.T) / 2)
        keep = values > 1e-6 * values[-1]
        found = (vectors[:, keep] / values[keep]) @ vectors[:, keep].T / root[:, None] * root
        return _array.from_host(found.astype(np.float32), level.own)

    # ---- the cycle ----------------------------------------------------------------------------------------

    def _down(self, share: Any, x: Any, by: Any, inverse: Any, fine: tuple[int, int], grid: tuple[int, int]) -> Any:
        """P^T (by x), times inverse."""
        out = _array.empty(x, (grid[0] * grid[1], int(x.shape[1])))
        vectors = int(x.shape[1]) // 4
        self._run("grid_restrict", (blocks(len(out) * vectors, _BLOCK),), share, x, by, inverse, out, *fine, *grid,
                  vectors, self.reach)  # fmt: skip
        return out

    def _up(self, depth: int, coarse: Any, x: Any) -> Any:
        """P coarse, from the level below ``depth``; x += that, where x is given."""
        level, below = self.levels[depth], self.levels[depth + 1]
        out = _array.empty(coarse, (level.size, int(coarse.shape[1])))
        vectors = int(coarse.shape[1]) // 4
        self._run("grid_prolong", (blocks(level.size * vectors, _BLOCK),), level.share, coarse, out, x,
                  *level.stencil.grid, *below.stencil.grid, vectors, self.reach)  # fmt: skip
        return out

    def __call__(self, residual: Any, depth: int = 0) -> Any:
        """About A^-1 D residual, of residuals [N, b] that are scaled by D^-1, in float32, and are overwritten."""
        level = self.levels[depth]
        if level.share is None:
            return self._inverse @ residual
        low, high = level.most / SMOOTHED, level.most
        centre, radius = (high + low) / 2, (high - low) / 2
        first = radius / centre
        second = 1 / (2 / first - first)
        ahead, by = second * first, 2 * second / radius
        moved, x = _array.empty(residual, residual.shape), _array.empty(residual, residual.shape)

        def move(keep: float, rate: float, begin: bool = False) -> None:
            pieces = math.prod(residual.shape) // 4
            self._run("grid_move", (blocks(pieces, _BLOCK),), moved, residual, x, pieces, keep, rate, begin)

        def leave(step: Any) -> None:
            level.stencil.step(step, residual, level.own, level.inverse, scale=-1.0, before=-1.0)

        move(0.0, 1 / centre, True)
        leave(moved)
        move(ahead, by)
        leave(moved)
        below = self.levels[depth + 1]
        down = self._down(level.share, residual, level.diagonal, below.inverse, level.stencil.grid, below.stencil.grid)
        leave(self._up(depth, self(down, depth + 1), x))
        move(0.0, 1 / centre)
        leave(moved)
        move(ahead, by)
        return x

    # ---- the start ----------------------------------------------------------------------------------------

    def start(self, width: int, wanted: int) -> Any:
        """The smallest vectors of a coarse level on the finest, [N, width] in float32; None where none serves."""
        depth = next((d for d, level in enumerate(self.levels) if d > 0 and level.size <= _STARTS), 0)
        level = self.levels[depth]
        if depth == 0 or level.size < 4 * width:
            return None
        null = _array.zeros(level.mass, (level.size, 4))
        null[:, 0] = level.mass.sum() ** -0.5
        space = _Device(_Coarse(level.stencil, level.own, level.mass), null, "float32", self.seed)

        def done(values: np.ndarray[Any, Any], norms: np.ndarray[Any, Any]) -> bool:
            return bool(norms[:wanted].max() <= _NEAR * values[wanted - 1])

        x = iterate(space, space.scattered(width), wanted, done, 10, 2).vectors
        for above in reversed(range(depth)):
            x = self._up(above, x, None)
        return x
