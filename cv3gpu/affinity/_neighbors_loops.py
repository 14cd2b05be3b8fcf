"""The CPU's inner loops of graphs over points, for `_njit.compiled`: all distances, and which of them count."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._njit import inlined
from ..cluster._tiles import square_distances

__all__ = ["NEAREST", "RANK", "WITHIN"]

Array = np.ndarray[Any, Any]


@inlined
def _insert(square: Array, index: Array, row: int, count: int, v: float, j: int) -> None:
    """Puts a pair into a sorted list that is full, behind those that are not farther."""
    at = count - 1
    while at > 0 and square[row, at - 1] > v:
        square[row, at] = square[row, at - 1]
        index[row, at] = index[row, at - 1]
        at -= 1
    square[row, at] = v
    index[row, at] = j


def _nearest(tiles: Array, others: Array, bias: Array, block: int, first: int, last: int, space: Array, limit: Array,
             square: Array, index: Array) -> None:  # fmt: skip
    """The nearest of all other points to the points of some blocks of tiles [tiles, D, P], by distance, then number.

    ``others`` [groups, G, D], packed, with ``bias`` [groups, G] (inf past the last one). ``square`` and ``index``
    [tiles P, K]: ascending, begun with inf. ``space`` [G, P] and ``limit`` [P]: work space.
    """
    per, group, keep = tiles.shape[2], others.shape[1], square.shape[1]
    for b in range(first, last):
        for g in range(others.shape[0]):
            for t in range(b * block, min((b + 1) * block, tiles.shape[0])):
                square_distances(tiles[t], others[g], bias[g], space)
                base = t * per
                for p in range(per):
                    limit[p] = square[base + p, keep - 1]
                for k in range(group):
                    some = 0
                    for p in range(per):
                        some += space[k, p] < limit[p]
                    if some > 0:
                        for p in range(per):
                            v = space[k, p]
                            if v < limit[p]:
                                _insert(square, index, base + p, keep, v, g * group + k)
                                limit[p] = square[base + p, keep - 1]


def _rank(x: Array, rows: Array, found: Array, first: int, last: int, square: Array, index: Array) -> None:
    """The nearest of the points ``found`` [M, F] for the points ``rows`` [M], by distances in float64, then number.

    ``square`` and ``index`` [M, K], begun with inf.
    """
    keep = square.shape[1]
    for i in range(first, last):
        for f in range(found.shape[1]):
            j = found[i, f]
            total = 0.0
            for d in range(x.shape[1]):
                off = np.float64(x[rows[i], d]) - np.float64(x[j, d])
                total += off * off
            at = keep - 1
            if total < square[i, at] or (total == square[i, at] and j < index[i, at]):
                while at > 0 and (square[i, at - 1] > total or (square[i, at - 1] == total and index[i, at - 1] > j)):
                    square[i, at] = square[i, at - 1]
                    index[i, at] = index[i, at - 1]
                    at -= 1
                square[i, at] = total
                index[i, at] = j


def _within(tiles: Array, others: Array, bias: Array, block: int, reach: float, first: int, last: int, space: Array,
            write: bool, place: Array, columns: Array, square: Array) -> None:  # fmt: skip
    """The other points at a square distance up to ``reach``, as of `_nearest`: counts, or where they are written.

    ``place`` [tiles P] counts up from where a point's edges begin in ``columns`` and ``square``; by number.
    """
    per, group = tiles.shape[2], others.shape[1]
    for b in range(first, last):
        for g in range(others.shape[0]):
            for t in range(b * block, min((b + 1) * block, tiles.shape[0])):
                square_distances(tiles[t], others[g], bias[g], space)
                for k in range(group):
                    some = 0
                    for p in range(per):
                        some += space[k, p] <= reach
                    if some > 0:
                        for p in range(per):
                            if space[k, p] <= reach:
                                at = t * per + p
                                if write:
                                    columns[place[at]] = g * group + k
                                    square[place[at]] = space[k, p]
                                place[at] += 1


NEAREST = (square_distances, _insert, _nearest)
WITHIN = (square_distances, _within)
RANK = (_rank,)
