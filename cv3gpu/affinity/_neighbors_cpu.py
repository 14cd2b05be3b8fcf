"""The CPU half of graphs over points: SciPy's tree for points of few features, all distances for those of many."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._njit import compiled
from .._threads import cores, each, spans
from ..cluster import _tiles
from . import _neighbors_loops

__all__ = ["nearest", "within"]

Array = np.ndarray[Any, Any]

_WORKERS = 1 << 12  # points that are worth all threads of the tree
_GROUP = 32 * _tiles.CENTRES  # points that tiles are compared with: they stay in the cache
_BLOCK = 32  # tiles that are worked at before the next block, and that are worth a thread
_SPARE = 8  # neighbours in float32 that are ranked beyond those asked for
_FARTHEST = 1e300  # square distance
_AGAIN = 1  # times that the tree is asked for twice as many


def nearest(points: Array, count: int) -> tuple[Array, Array]:
    """The square distances of the nearest points of each [N, count], ascending, and which they are: by number if tied.

    Distances are float64.
    """
    if _by_tree(*points.shape):
        return _tree(points, count)
    return _all(points, np.arange(len(points)), count)


def _by_tree(points: int, dims: int) -> bool:
    """Is the tree faster? It is from some 6,000 points of 4 features on, and from 65,000 of 8.

    All distances take 1 to 3 ns a pair on one core up to 64 features. Measured with normal points, the tree's worst.
    """
    return points >= 512 * 2.0 ** (7 * min(dims, 64) / 8)


def _ordered(square: Array, index: Array) -> tuple[Array, Array]:
    """Rows by distance, then number."""
    by_number = np.argsort(index, axis=1)
    square, index = (np.take_along_axis(a, by_number, 1) for a in (square, index))
    by_distance = np.argsort(square, axis=1, kind="stable")
    return np.take_along_axis(square, by_distance, 1), np.take_along_axis(index, by_distance, 1)


def _tree(points: Array, count: int) -> tuple[Array, Array]:
    """By SciPy's tree, which is asked for more where the last one is tied."""
    from scipy.spatial import cKDTree

    size = len(points)
    tree = cKDTree(points)
    square, index = np.empty((size, count)), np.empty((size, count), np.int64)
    rows, wanted = np.arange(size), count
    for _ in range(1 + _AGAIN):
        wanted = min(2 * wanted if wanted > count else count + 1, size)
        distance, found = tree.query(points[rows], wanted, workers=-1 if len(rows) >= _WORKERS else 1)
        distance, found = distance.reshape(len(rows), wanted), found.reshape(len(rows), wanted)
        ties = (distance[:, 1:] == distance[:, :-1]).any(1)
        distance[ties], found[ties] = _ordered(distance[ties], found[ties])
        square[rows], index[rows] = distance[:, :count] ** 2, found[:, :count]
        if wanted == size:
            return square, index
        rows = rows[distance[:, count - 1] == distance[:, -1]]  # more may be as near as these
        if not len(rows):
            return square, index
    square[rows], index[rows] = _all(points, rows, count)
    return square, index


def _all(points: Array, rows: Array, count: int) -> tuple[Array, Array]:
    """By all distances of some points.

    float32 has them to (D + 3) units of rounding: what comes out nearest is ranked in float64, and where the rest may
    be as near all are taken in float64.
    """
    single = points.dtype == np.float32
    keep = min(count + _SPARE, len(points)) if single else count
    square, found = _least(points, points[rows], keep)
    if not single:
        return square, found
    exact, index = np.full((len(rows), count), np.inf), np.full((len(rows), count), len(points))
    run = compiled(*_neighbors_loops.RANK)
    each(lambda first, last: run(points, rows, found, first, last, exact, index), spans(len(rows), cores()))
    if keep < len(points):
        rounding = 2.0**-23 * (points.shape[1] + 4)
        unsure = np.flatnonzero(exact[:, -1] >= square[:, -1].astype(np.float64) * (1 - rounding) - 1e-37)
        if unsure.size:
            exact[unsure], index[unsure] = _least(points.astype(np.float64), points[rows[unsure]], count)
    return exact, index


def _least(points: Array, queries: Array, keep: int) -> tuple[Array, Array]:
    """The least square distances of the queries to all points, in the dtype of the points, and whose they are."""
    given, others, space = _laid_out(points, queries)
    tiles, _, per = given.shape
    square = np.full((tiles * per, keep), np.inf, points.dtype)
    index = np.full((tiles * per, keep), -1)
    run = compiled(*_neighbors_loops.NEAREST)

    def work(first: int, last: int) -> None:
        limit = np.empty(per, points.dtype)
        run(given, *others, _BLOCK, first, last, space.copy(), limit, square, index)

    each(work, spans(-(-tiles // _BLOCK), cores()))
    return square[: len(queries)], index[: len(queries)]


def within(points: Array, reach: float) -> tuple[Array, Array, Array]:
    """The pairs at a distance up to ``reach``: square distances in float64, columns, starts of the rows."""
    if _by_tree(*points.shape):
        return _tree_within(points, reach)
    points = points.astype(np.float64)
    given, others, space = _laid_out(points, points)
    tiles, _, per = given.shape
    place, limit = np.zeros(tiles * per, np.int64), min(reach * reach, _FARTHEST)
    run, parts = compiled(*_neighbors_loops.WITHIN), spans(-(-tiles // _BLOCK), cores())

    def work(write: bool, columns: Array, square: Array) -> None:
        each(lambda first, last: run(given, *others, _BLOCK, limit, first, last, space.copy(), write, place,
                                     columns, square), parts)  # fmt: skip

    work(False, np.empty(0, np.int64), np.empty(0))
    start = np.zeros(len(place) + 1, np.int64)
    start[1:] = place.cumsum()
    place[:] = start[:-1]
    columns, square = np.empty(start[-1], np.int64), np.empty(start[-1])
    work(True, columns, square)
    start = start[: len(points) + 1]
    return square[: start[-1]], columns[: start[-1]], start


def _tree_within(points: Array, reach: float) -> tuple[Array, Array, Array]:
    from scipy import sparse
    from scipy.spatial import cKDTree

    pairs = cKDTree(points).query_pairs(reach, output_type="ndarray")
    apart = points[pairs[:, 0]].astype(np.float64) - points[pairs[:, 1]]
    square = np.einsum("ij,ij->i", apart, apart)
    own = np.arange(len(points))
    one, other = np.concatenate([own, *pairs.T]), np.concatenate([own, *pairs.T[::-1]])
    values = np.concatenate([np.zeros(len(points)), square, square])
    matrix = sparse.csr_array((values, (one, other)), (len(points),) * 2)
    matrix.sort_indices()
    return matrix.data, matrix.indices, matrix.indptr


def _laid_out(points: Array, queries: Array) -> tuple[Array, tuple[Array, Array], Array]:
    """Tiles of the queries [tiles, D, P], groups of all points and what is added to them, space for their distances."""
    dims, per = points.shape[1], _tiles.tile_points(points.dtype)
    tiles = -(-len(queries) // per)
    padded = np.zeros((tiles * per, dims), points.dtype)
    padded[: len(queries)] = queries
    groups = -(-len(points) // _GROUP)
    bias = np.full(groups * _GROUP, np.inf, points.dtype)
    bias[: len(points)] = 0
    packed = np.zeros((groups * _GROUP, dims), points.dtype)
    some, _ = _tiles.packed(points, points.dtype)
    packed[: len(some)] = some
    others = packed.reshape(groups, _GROUP, dims), bias.reshape(groups, _GROUP)
    given = np.ascontiguousarray(padded.reshape(tiles, per, dims).swapaxes(1, 2))
    return given, others, np.empty((_GROUP, per), points.dtype)
