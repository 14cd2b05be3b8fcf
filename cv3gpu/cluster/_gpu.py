"""The GPU half of k-means and mean shift. The kernels are in ``kernels/kmeans.cu`` and ``kernels/mean_shift.cu``."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from .. import _array
from .._kernel import blocks, kernel
from . import _lloyd
from ._grid import CUTOFF, Grid

__all__ = ["Climb", "Points"]

Array = np.ndarray[Any, Any]

# ---- k-means --------------------------------------------------------------------------------------------------

_THREADS = 256  # of a block in kmeans.cu
_ROWS = 128  # points of a tile of kmeans_assign and kmeans_assign_mma
_TENSOR = 80  # compute capability from which tensor cores take float32 in TF32 parts
_RUN = 1024  # points that a warp counts
_TRIED = 16  # centres that kmeans_potentials compares with
_SUMS = 2048  # blocks of kmeans_sums, about
_AHEAD = 8  # iterations until the host looks
_SMALL_THREADS, _SMALL_BLOCKS, _SMALL_ROWS, _SMALL_DIMS = 64, 512, 96, 8  # of kmeans_small
_FIXED, _NEAR, _EMPTY = 1, 2, 3  # state[0]: why iterations end


class Points:
    """The points [N, D] of a problem."""

    def __init__(self, x: Any, weight: Any, mean: Array | None = None) -> None:
        self.x, self.weight = x, weight
        self._n, self._dims = (int(n) for n in x.shape)
        self._constants: dict[str, Any] = {"real": _array.dtype_name(x)}
        self.labels = _array.zeros(x, (self._n,), "int32")
        self._closest: Any = None
        if mean is not None:  # of points that have been looked at
            self.mean = mean
            return
        part = self._doubles(blocks(self._n, _lloyd.BLOCK), 2, self._dims)
        self._run("kmeans_moments", len(part), x, part, self._n, self._dims)
        offset, square = _array.to_host(part).sum(0) / self._n
        self.finite = bool(np.isfinite(square).all())
        self.spread = float(square.max())
        with np.errstate(invalid="ignore"):
            self.variance = float(np.maximum(square - offset * offset, 0).mean())
        self.mean = _array.to_host(x[0]).astype(np.float64) + offset

    def _doubles(self, *shape: int) -> Any:
        return _array.empty(self.x, shape, "float64")

    def _run(self, name: str, grid: int, *args: Any) -> None:
        kernel("kmeans.cu", name, **self._constants)((grid,), _THREADS, *args)

    def _real(self, values: Array) -> Any:
        return _array.from_host(np.ascontiguousarray(values, _array.dtype_name(self.x)), self.x)

    def rows(self, index: Any) -> Array:
        """Some points in float64, on the host."""
        return _array.to_host(self.x[_array.from_host(np.asarray(index, np.int64), self.x)]).astype(np.float64)

    # ---- iterations -------------------------------------------------------------------------------------------

    def lloyd(self, centres: Array, max_iter: int, tol: float) -> tuple[Any, Any, float, int, bool]:
        """Labels, centres, inertia, iterations, and whether the square shift of the centres came down to ``tol``.

        The host looks at every eighth iteration, and takes over where a cluster has lost all of its points.
        """
        self.labels[...] = -1
        step = _Step(self, centres)
        status = n_iter = 0
        for _ in range(max_iter):  # looks; each sees an iteration at least
            if status or n_iter >= max_iter:
                break
            for _ in range(min(_AHEAD, max_iter - n_iter)):
                step.run(tol)
            status, n_iter, _ = _array.to_host(step.state).tolist()
            if status == _EMPTY:
                before, sums = _array.to_host(step.before), _array.to_host(step.sums)
                centres = _lloyd.means(before, sums[:, :-1], sums[:, -1], functools.partial(self._farthest, step))
                status = _NEAR if ((centres - before) ** 2).sum() <= tol else 0
                step.place(centres)
            step.state[...] = _array.from_host(np.array([0, n_iter, 0], np.int32), self.x)
        if status != _FIXED:
            step.assign()
        found = step.before if status == _FIXED else step.centres
        inertia = self._inertia(found, None)
        return self.labels, _array.astype(found, _array.dtype_name(self.x)), inertia, n_iter, status > 0

    def labelled(self, centres: Array, far: Any = None) -> tuple[Any, float]:
        """Labels and inertia; square distances to ``far``, 0 of points without weight."""
        step = _Step(self, centres)
        step.assign()
        return self.labels, self._inertia(step.centres, far)

    def _inertia(self, centres: Any, far: Any) -> float:
        part = self._doubles(blocks(self._n, _THREADS))
        given = (self.x, self.weight, centres, self.labels)
        self._run("kmeans_inertia", len(part), *given, part, far, self._n, self._dims)
        return float(_array.to_host(part).sum())

    def _farthest(self, step: _Step, count: int) -> tuple[Array, ...]:
        """The points that were farthest from their centres: points, labels, weights, square distances."""
        far = self._doubles(self._n)
        self._inertia(step.before, far)
        distance = _array.to_host(far)
        first = np.argsort(-distance, kind="stable")[:count]
        index = _array.from_host(first, self.x)
        weight = np.ones(count) if self.weight is None else _array.to_host(self.weight[index]).astype(np.float64)
        return self.rows(first), _array.to_host(self.labels[index]), weight, distance[first]

    # ---- samples ----------------------------------------------------------------------------------------------

    def part(self, index: Array) -> Points:
        """Some of the points."""
        where = _array.from_host(np.asarray(index, np.int64), self.x)
        return Points(self.x[where], None if self.weight is None else self.weight[where], self.mean)

    def sums(self, centres: Array) -> tuple[Array, Array]:
        """Sums of the clusters and their mass, on the host."""
        step = _Step(self, centres)
        step.run(0.0)
        sums = _array.to_host(step.sums)
        return sums[:, :-1], sums[:, -1]

    def centres(self, centres: Array) -> Any:
        """Centres as `lloyd` gives them."""
        return self._real(centres)

    def distances(self) -> Any:
        """Space for a distance of each point."""
        return self._doubles(self._n)

    def total(self, closest: Any) -> float:
        """The weighted sum of distances."""
        return float(_array.to_host((closest if self.weight is None else closest * self.weight).sum()))

    def sampled(self, closest: Any, scale: float, seed: int) -> Array:
        """The points that are drawn, see `_sampled.oversampled`."""
        chosen, count = _array.empty(self.x, (self._n,), "int32"), _array.zeros(self.x, (1,), "int32")
        self._run("kmeans_sample", blocks(self._n, _THREADS), closest, self.weight, chosen, count, self._n, scale, seed)
        return np.sort(_array.to_host(chosen[: int(_array.to_host(count)[0])]))

    # ---- k-means++ --------------------------------------------------------------------------------------------

    def potentials(self, last: Array, tried: Array) -> Array:
        """Sums of square distances [blocks, tried], see `_lloyd.seeds`."""
        found = []
        for first in range(0, len(tried), _TRIED - 1):
            some = self._real(np.concatenate([last, tried[first : first + _TRIED - 1]]))
            part = self._doubles(blocks(self._n, _lloyd.BLOCK), len(some) - 1)
            given = (self.x, self.weight, some, self._closest)
            self._run("kmeans_potentials", len(part), *given, part, self._n, self._dims, len(some))
            found.append(_array.to_host(part))
        return np.concatenate(found, 1)

    def draw(self, last: Array, block: Array, rest: Array) -> Array:
        """Points by their square distances, see `_lloyd.seeds`."""
        out = _array.empty(self.x, (len(block),), "int64")
        self._run("kmeans_draw", len(block), self.x, self.weight, self._closest, self._real(last),
                  _array.from_host(block.astype(np.int64), self.x), _array.from_host(rest, self.x), out, self._n,
                  self._dims)  # fmt: skip
        return _array.to_host(out)

    def seeds(self, weight: Array | None, uniform: Array) -> Array:
        """Centres by k-means++, see `_lloyd.seeds`."""
        self._closest = _array.empty(self.x, (self._n,))
        self._closest[...] = np.inf
        return _lloyd.seeds(self, weight, uniform)


class _Step:
    """An iteration's memory on the device, and its launches."""

    def __init__(self, data: Points, centres: Array) -> None:
        self._data, self._count = data, len(centres)
        n, dims, count = data._n, data._dims, len(centres)
        self._small = dims <= _SMALL_DIMS and count * (dims + 1) <= _SMALL_ROWS
        tensor = data._constants["real"] == "float32" and _array.compute_capability(data.x) >= _TENSOR
        self._assign = ("kmeans_mma.cu", "kmeans_assign_mma") if tensor else ("kmeans.cu", "kmeans_assign")

        def whole(*shape: int) -> Any:
            return _array.empty(data.x, shape, "int32")

        self._pieces = min(blocks(n, _SMALL_THREADS), _SMALL_BLOCKS) if self._small else blocks(_SUMS, count)
        self._part = data._doubles(count, self._pieces, dims + 1)
        self.before, self.sums = data._doubles(count, dims), data._doubles(count, dims + 1)
        self._shift, self.state = data._doubles(count), _array.zeros(data.x, (3,), "int32")
        self._host_mean = np.zeros(dims) if self._small else data.mean
        self._mean, self._real_mean = _array.from_host(self._host_mean, data.x), data._real(self._host_mean)
        if not self._small:
            self._runs = blocks(n, _RUN)
            self._tally, self._total = whole(self._runs, count), whole(count)
            self._start, self._order = whole(count + 1), whole(n)
        self.place(centres)

    def place(self, centres: Array) -> None:
        """Puts the centres where they are told to be."""
        self.centres = _array.from_host(np.array(centres), self._data.x)
        near = np.asarray(centres - self._host_mean, _array.dtype_name(self._data.x))
        self._near, self._half = self._data._real(near), self._data._real(0.5 * (near.astype(np.float64) ** 2).sum(1))

    def assign(self) -> None:
        """Labels anew; where points are few-featured and clusters few, the parts of the sums as well."""
        data, count = self._data, self._count
        if self._small:
            shared = 8 * count * (data._dims + 1) * _SMALL_THREADS + 8 * count * data._dims
            kernel("kmeans_small.cu", "kmeans_small", **data._constants, DIMS=data._dims)(
                (self._pieces,), _SMALL_THREADS, data.x, data.weight, self._near, data.labels, self._part, self.state,
                data._n, count, shared_mem=shared,
            )  # fmt: skip
        else:
            run = kernel(*self._assign, **data._constants)
            run((blocks(data._n, _ROWS),), _THREADS, data.x, self._real_mean, self._near, self._half, data.labels,
                self.state, data._n, data._dims, count)  # fmt: skip

    def run(self, tol: float) -> None:
        """Launches one iteration."""
        data, n, runs, count = self._data, self._data._n, self._data._run, self._count
        self.assign()
        if not self._small:
            grid = blocks(self._runs, _THREADS // 32)
            runs("kmeans_count", grid, data.labels, self._tally, self.state, n, self._runs, count)
            runs("kmeans_scan", count, self._tally, self._total, self.state, self._runs, count)
            runs("kmeans_starts", 1, self._total, self._start, self.state, count)
            runs("kmeans_scatter", grid, data.labels, self._tally, self._start, self._order, self.state, n, self._runs,
                 count)  # fmt: skip
            runs("kmeans_sums", count * self._pieces, data.x, data.weight, self._order, self._start, self._part,
                 self.state, data._dims, self._pieces)  # fmt: skip
        runs("kmeans_update", count, self._part, self._mean, self.centres, self.before, self.sums, self._shift,
             self._near, self._half, self.state, data._dims, self._pieces)  # fmt: skip
        runs("kmeans_test", 1, self._shift, self.sums, self.state, tol, data._dims, count)


# ---- mean shift -----------------------------------------------------------------------------------------------

_WARPS = 8  # of a block of mean_shift_ascend
_MERGERS = 1024
_DIMS = (1, 2, 3, 4, 5, 6, 8, 16, 32)


class Climb:
    """Where points end, how many steps that took, and how many have not arrived."""

    def __init__(self, x: Any, cells: Grid, bandwidth: float, gaussian: bool, max_iter: int, tol: float) -> None:
        points, dims = (int(n) for n in x.shape)
        self._like, self._points, self._square = x, points, bandwidth * bandwidth
        width = next(n for n in _DIMS if n >= dims)
        self._constants: dict[str, Any] = {"real": _array.dtype_name(x), "DIMS": width}
        number = cells.numbers(_array.astype(x, "float64"))
        order = _array.argsort(number)
        by_dimension = _array.zeros(x, (width, points))
        self._columns = [*cells.axes.tolist(), *(d for d in range(dims) if d not in cells.axes)]  # the grid's first
        for d, column in enumerate(self._columns):
            by_dimension[d] = x[:, column][order]
        self._ends, counts = _array.zeros(x, (points, width)), _array.zeros(x, (2,), "int32")
        kernel("mean_shift.cu", "mean_shift_ascend", **self._constants)(
            (blocks(points, _WARPS),), 32 * _WARPS, by_dimension, number[order], order,
            _array.from_host(np.concatenate([cells.steps, cells.around]), x),
            _array.from_host(np.stack([cells.low, cells.width]), x), self._ends, counts, points, len(cells.axes),
            len(cells.around), int(gaussian), max_iter, self._square * CUTOFF if gaussian else self._square,
            -0.5 / self._square, (tol * bandwidth) ** 2,
        )  # fmt: skip
        self.steps, self.late = (int(n) for n in _array.to_host(counts))

    def _in_order(self, rows: Any) -> Any:
        """Rows with their columns as those of the points."""
        out = _array.empty(self._like, (len(rows), len(self._columns)))
        for d, column in enumerate(self._columns):
            out[:, column] = rows[:, d]
        return out

    def ends(self) -> Any:
        """Of all points [N, D]."""
        return self._in_order(self._ends)

    def merged(self) -> tuple[Any, Any]:
        """Labels and modes."""
        modes, count = _array.empty(self._ends, self._ends.shape), _array.zeros(self._ends, (1,), "int32")
        labels = _array.empty(self._ends, (self._points,), "int64")
        kernel("mean_shift.cu", "mean_shift_merge", **self._constants)(
            (1,), _MERGERS, self._ends, modes, labels, count, self._points, self._square / 4
        )
        return labels, self._in_order(modes[: int(_array.to_host(count)[0])])
