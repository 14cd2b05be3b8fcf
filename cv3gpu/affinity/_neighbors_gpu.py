"""The GPU half of graphs over points; the kernels are in ``kernels/neighbors.cu``."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import _array
from .._kernel import Kernel, blocks, kernel

__all__ = ["all_pairs", "nearest", "within"]

_THREADS, _WARPS = 256, 8  # of a block in neighbors.cu
_QUERIES = {"float32": 64, "float64": 32}  # points of a tile
_POINTS = 64  # that they are compared with
_KEPT = 64  # neighbours that a list holds
_SHALLOW = 4  # features up to which so many are taken at a time
_BLOCKS = 2048  # of a launch, about
_LEAST = 512  # points of a part


def _kernel(name: str, x: Any) -> Kernel:
    depth = _SHALLOW if x.shape[1] <= _SHALLOW else 16
    return kernel("neighbors.cu", name, real=_array.dtype_name(x), DEPTH=depth)


def _parts(x: Any) -> tuple[int, int, int]:
    """Tiles of points, parts of those that each is compared with, points of a part."""
    points = len(x)
    tiles = blocks(points, _QUERIES[_array.dtype_name(x)])
    chunk = blocks(points, min(blocks(_BLOCKS, tiles), blocks(points, _LEAST)))
    chunk = blocks(chunk, _POINTS) * _POINTS
    return tiles, blocks(points, chunk), chunk


def nearest(x: Any, count: int) -> tuple[Any, Any]:
    """The square distances of the nearest points of each [N, count], ascending, and which they are, int32."""
    points, dims = (int(n) for n in x.shape)
    tiles, parts, chunk = _parts(x)
    distances, indices, after, after_index = [], [], None, None
    for first in range(0, count, _KEPT):
        keep = min(_KEPT, count - first)
        distance = _array.empty(x, (parts, points, keep))
        index = _array.empty(x, (parts, points, keep), "int32")
        shared = _QUERIES[_array.dtype_name(x)] * keep * (x.itemsize + 4)
        _kernel("neighbors_nearest", x)((tiles, parts), _THREADS, x, after, after_index, distance, index, points, dims,
                                        keep, chunk, shared_mem=shared)  # fmt: skip
        if parts > 1:
            part, part_index = distance, index
            distance, index = _array.empty(x, (1, points, keep)), _array.empty(x, (1, points, keep), "int32")
            _kernel("neighbors_merge", x)(
                (blocks(points, _WARPS),), _THREADS, part, part_index, distance, index, points, parts, keep
            )
        distances.append(distance[0])
        indices.append(index[0])
        after, after_index = (_array.contiguous(a[0, :, keep - 1]) for a in (distance, index))
    if len(distances) == 1:
        return distances[0], indices[0]
    join = _array.module(x).concatenate
    return join(distances, 1), join(indices, 1)


def within(x: Any, reach: float, gamma: float) -> tuple[Any, Any, Any]:
    """exp(-gamma s) of the pairs at a square distance s up to ``reach``: data, columns, starts of the rows."""
    points, dims = (int(n) for n in x.shape)
    tiles, parts, chunk = _parts(x)
    counts = _array.empty(x, (points, parts), "int64")
    _kernel("neighbors_count", x)((tiles, parts), _THREADS, x, counts, points, dims, reach, chunk)
    ends = counts.reshape(-1).cumsum(0)
    starts = _array.zeros(x, (points * parts + 1,), "int64")
    starts[1:] = ends
    edges = int(_array.to_host(starts[-1:])[0])
    columns, data = _array.empty(x, (edges,), "int64"), _array.empty(x, (edges,))
    _kernel("neighbors_fill", x)((tiles, parts), _THREADS, x, starts, columns, data, points, dims, reach, gamma, chunk)
    return data, columns, starts[::parts]


def all_pairs(x: Any, gamma: float) -> Any:
    """exp(-gamma s) of all pairs of points [N, N]."""
    points, dims = (int(n) for n in x.shape)
    out = _array.empty(x, (points, points))
    grid = blocks(points, _POINTS), blocks(points, _QUERIES[_array.dtype_name(x)])
    _kernel("neighbors_all", x)(grid, _THREADS, x, out, points, dims, gamma)
    return out


def symmetric(distance: Any, index: Any, gamma: float | None) -> tuple[Any, Any, Any]:
    """(A + A^T) / 2 without its diagonal, of the neighbours' weights A: data, columns, starts of the rows.

    s_ij and s_ji are the same bits: i is a neighbour of its neighbour j, and their weights are the same, where
    (s_ij, i) comes no later than the last one of j's.
    """
    points, count = (int(n) for n in distance.shape)
    library = _array.module(distance)
    column = _array.astype(index, "int64").reshape(-1)
    row = _array.from_host(np.repeat(np.arange(points), count), distance)
    square = distance.reshape(-1)
    last, last_index = distance[:, -1][column], index[:, -1][column]
    mutual = (square < last) | ((square == last) & (row <= last_index))
    weight = library.ones_like(square) if gamma is None else library.exp(square * -gamma)
    weight = library.where(mutual, weight, weight * 0.5)
    keep = row != column
    alone = keep & ~mutual
    key = library.concatenate(((row * points + column)[keep], (column * points + row)[alone]))
    data = library.concatenate((weight[keep], weight[alone]))
    order = _array.argsort(key)
    key = key[order]
    starts = library.searchsorted(key, _array.from_host(np.arange(points + 1) * points, distance))
    return data[order], key % points, starts
