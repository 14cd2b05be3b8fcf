"""The CPU half of k-means and mean shift, on NumPy arrays."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from .._njit import compiled
from .._threads import cores, each, spans
from . import _lloyd, _loops, _tiles
from ._grid import CUTOFF, Grid

__all__ = ["Climb", "Points"]

Array = np.ndarray[Any, Any]

_PIECE = 8192  # points that are worth a thread
_EXPANDED = 16  # features from which distances are taken by products
_CHUNKS = 64  # partial sums, at most
_NONE = np.empty(0)


class Points:
    """The points [N, D] of a problem, laid out for distances to many centres."""

    def __init__(self, x: Array, weight: Array | None) -> None:
        self.x, self.weight = np.ascontiguousarray(x), _NONE if weight is None else np.ascontiguousarray(weight)
        count, dims = self.x.shape
        self.per = _tiles.tile_points(x.dtype)
        tiles = -(-count // self.per)
        self._expanded = dims >= _EXPANDED
        self._shift = self.x[0] if self._expanded else np.zeros(dims, x.dtype)  # near the others, if these are far off
        self.tiles = np.empty((tiles, dims, self.per), x.dtype)
        self._chunk = -(-max(_PIECE, -(-count // _CHUNKS)) // self.per)  # in tiles
        self._chunks = -(-tiles // self._chunk)
        run = compiled(*_loops.PACK)
        moments = np.zeros((self._chunks, 2, dims))
        finite = each(
            lambda c: run(
                self.x, self._shift, c * self._chunk, min((c + 1) * self._chunk, tiles), self.tiles, moments[c]
            ),
            [(c,) for c in range(self._chunks)],
        )
        self.finite = all(finite)
        mean, square = moments.sum(0) / count
        self.spread = float(square.max())  # of the mean square differences to the first point
        self.variance = float(np.maximum(square - mean * mean, 0).mean())
        self.labels = np.full(count, -1, np.int32)
        self._sums: Array = _NONE
        self._mass: Array = _NONE
        self._closest: Array = _NONE

    def _packed(self, centres: Array, halves: bool = False) -> tuple[Array, Array]:
        return _tiles.packed(centres - self._shift.astype(np.float64), self.x.dtype, halves)

    def assign(self, centres: Array) -> tuple[int, Array, Array]:
        """Labels anew: how many have changed, the sums of the clusters and their mass."""
        count, dims = centres.shape
        if len(self._mass) != self._chunks * count:
            self._mass = np.empty(self._chunks * count)
            self._sums = np.empty((self._chunks * count, -(-dims // _tiles.ROW) * _tiles.ROW))
        near = np.dtype(f"int{8 * self.x.itemsize}")
        run, given = compiled(*_loops.ASSIGN), self._packed(centres, self._expanded)

        def work(first: int, last: int) -> int:
            space = np.empty(self.per, self.x.dtype), np.empty(self.per, near)
            return run(self.x, self.weight, self.tiles, *given, *space, self._expanded, self._chunk, count, first,
                       last, self.labels, self._sums, self._mass)  # fmt: skip

        changed = sum(each(work, spans(self._chunks, cores())))
        sums = self._sums.reshape(self._chunks, count, -1).sum(0)
        return changed, sums[:, :dims], self._mass.reshape(-1, count).sum(0)

    def sums(self, centres: Array) -> tuple[Array, Array]:
        """Sums of the clusters and their mass."""
        return self.assign(centres)[1:]

    def labelled(self, centres: Array, far: Array = _NONE) -> tuple[Array, float]:
        """Labels and inertia; square distances to ``far``."""
        self.assign(centres)
        return self.labels, self.inertia(centres, far)

    def inertia(self, centres: Array, far: Array = _NONE) -> float:
        """The weighted sum of the square distances to the centres of the labels; they themselves go to ``far``."""
        part, run = np.empty(self._chunks), compiled(*_loops.INERTIA)
        given, chunk = (self.x, self.weight, np.ascontiguousarray(centres), self.labels), self._chunk * self.per
        each(lambda first, last: run(*given, chunk, first, last, part, far), spans(self._chunks, cores()))
        return float(part.sum())

    def _farthest(self, centres: Array, count: int) -> tuple[Array, Array, Array, Array]:
        """The points that are farthest from their centres: points, labels, weights, square distances."""
        far = np.empty(len(self.x))
        self.inertia(centres, far)
        if self.weight.size:
            far[self.weight == 0] = 0
        first = np.argsort(-far, kind="stable")[:count]
        weight = self.weight[first] if self.weight.size else np.ones(count)
        return self.x[first].astype(np.float64), self.labels[first], weight.astype(np.float64), far[first]

    def lloyd(self, centres: Array, max_iter: int, tol: float) -> tuple[Array, Array, float, int, bool]:
        """Labels, centres, inertia, iterations, and whether the square shift of the centres came down to ``tol``."""
        self.labels[:] = -1
        settled, n_iter = False, 0
        while n_iter < max_iter and not settled:
            n_iter += 1
            changed, sums, mass = self.assign(centres)
            if changed == 0:
                return self.labels, centres, self.inertia(centres), n_iter, True
            means = _lloyd.means(centres, sums, mass, functools.partial(self._farthest, centres))
            settled = bool(((means - centres) ** 2).sum() <= tol)
            centres = means
        labels, inertia = self.labelled(centres)
        return labels, centres, inertia, n_iter, settled

    def rows(self, index: Any) -> Array:
        """Some points in float64."""
        return self.x[index].astype(np.float64)

    # ---- samples --------------------------------------------------------------------------------------------

    def part(self, index: Array) -> Points:
        """Some of the points."""
        return Points(self.x[index], self.weight[index] if self.weight.size else None)

    @staticmethod
    def centres(centres: Array) -> Array:
        """Centres as `lloyd` gives them."""
        return centres

    def distances(self) -> Array:
        """Space for a distance of each point."""
        return np.empty(len(self.x))

    def total(self, closest: Array) -> float:
        """The weighted sum of distances."""
        return float((closest * self.weight if self.weight.size else closest).sum())

    def sampled(self, closest: Array, scale: float, seed: int) -> Array:
        """The points that are drawn, see `_sampled.oversampled`."""
        chosen = np.empty(len(self.x), np.int64)
        return chosen[: compiled(*_loops.SAMPLE)(closest, self.weight, scale, seed, chosen)].copy()

    # ---- k-means++ ------------------------------------------------------------------------------------------

    def potentials(self, last: Array, tried: Array) -> Array:
        """Sums of square distances [blocks, tried], see `_lloyd.seeds`."""
        block = _lloyd.BLOCK // self.per
        part = np.empty((-(-len(self.tiles) // block), len(tried)))
        packed, bias = self._packed(np.concatenate([last, tried]))
        run = compiled(*_loops.POTENTIALS)

        def work(first: int, end: int) -> None:
            space = np.empty((len(bias), self.per), self.x.dtype)
            run(self.weight, len(self.x), self.tiles, packed, bias, len(tried), space, block, first, end, self._closest,
                part)  # fmt: skip

        each(work, spans(len(part), min(cores(), len(self.x) // _PIECE)))
        return part

    def draw(self, last: Array, block: Array, rest: Array) -> list[int]:
        """Points by their square distances, see `_lloyd.seeds`."""
        run, given = compiled(*_loops.DRAW), (self.x, self.weight, self._closest.reshape(-1), last)
        first = block * _lloyd.BLOCK
        where = zip(first.tolist(), (first + _lloyd.BLOCK).clip(max=len(self.x)).tolist(), rest.tolist(), strict=True)
        return [run(*given, *span) for span in where]

    def seeds(self, weight: Array | None, uniform: Array) -> Array:
        """Centres by k-means++, see `_lloyd.seeds`."""
        self._closest = np.full((len(self.tiles), self.per), np.inf, self.x.dtype)
        return _lloyd.seeds(self, weight, uniform)


# ---- mean shift -----------------------------------------------------------------------------------------------

_SLOTS = 1 << 12  # positions that are remembered
_ASCENTS = 512  # points that are worth a call


class Climb:
    """Where points end, how many steps that took, and how many have not arrived."""

    def __init__(self, x: Array, cells: Grid, bandwidth: float, gaussian: bool, max_iter: int, tol: float) -> None:
        points, dims = x.shape
        x = x.astype(np.float64)
        self._square = square = bandwidth * bandwidth
        reach = square * CUTOFF if gaussian else square
        number = cells.numbers(x)
        order = np.argsort(number, kind="stable")
        given = (np.ascontiguousarray(x[order].T), number[order], cells.around, cells.axes, cells.low, cells.width,
                 cells.steps, square, gaussian, reach, max_iter, (tol * bandwidth) ** 2)  # fmt: skip
        modes = np.empty((points, dims))
        root, iters = np.empty(points, np.int64), np.empty(points, np.int64)

        def work(first: int, last: int) -> int:
            near, weight = np.empty((dims, points + 7)), np.empty(points + 7)
            sums, y = np.empty(dims + 1), np.empty(dims)
            seen, owner, when = np.empty((_SLOTS, dims)), np.empty(_SLOTS, np.int64), np.empty(_SLOTS, np.int64)
            return compiled(*_loops.ASCEND)(
                *given, first, last, near, weight, sums, y, y.view(np.int64), seen, owner, when, modes, root, iters
            )

        self.late = sum(each(work, spans(points, min(4 * cores(), points // _ASCENTS))))
        self.steps = int(np.abs(iters).max())
        self._modes, self._root, self._place = modes, root, np.empty(points, np.int64)
        self._place[order] = np.arange(points)

    def ends(self) -> Array:
        """Of all points [N, D]."""
        return self._modes[self._place]

    def merged(self) -> tuple[Array, Array]:
        """Labels and modes."""
        points = len(self._root)
        found, far = np.empty_like(self._modes), np.empty(points)
        labels, best, asked = np.empty(points, np.int64), np.empty(points, np.int64), np.zeros(points, np.int64)
        count = compiled(*_loops.MERGE)(self._modes, self._root, self._place, self._square / 4, found, best, far, asked,
                                        labels)  # fmt: skip
        return labels, found[:count].copy()
