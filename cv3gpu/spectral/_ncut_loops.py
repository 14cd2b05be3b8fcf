"""The CPU's inner loops of normalised cuts, for `_njit.compiled`: parts of a graph, and all thresholds of a vector.

The cut of a threshold is a prefix sum of differences: an edge adds its weight where the first of its vertices comes
over to the other side, and takes it away where the second one does. What is left of large sums can be a tiny cut, so
all sums are kept in two numbers, the second of which collects what rounding takes from the first (Neumaier's
summation): they end with an error of about 1e-32 of the largest of them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .._njit import inlined

__all__ = ["CROP", "GRID_DIFFERENCES", "GRID_ROWS", "ROWS_DIFFERENCES", "SOME_ROWS", "SWEEP"]

Array = np.ndarray[Any, Any]


# ---- parts of a graph -------------------------------------------------------------------------------------


def _crop(weight: Array, plane: int, dy: Array, dx: Array, inside: Array, top: int, left: int, out: Array,
          out_plane: int, height: int, width: int) -> None:  # fmt: skip
    """The half stencil of a rectangle, with the weights between pixels that are ``inside`` [H, W] alone."""
    whole = inside.shape[1]
    for h in range(dy.shape[0]):
        for y in range(height):
            from_row, to_row = h * plane + (top + y) * whole + left, h * out_plane + y * width
            begin, end = max(0, -dx[h]), min(width, width - dx[h])
            if y + dy[h] >= height or begin >= end:
                begin, end = width, width
            for x in range(begin):
                out[to_row + x] = 0
            for x in range(end, width):
                out[to_row + x] = 0
            for x in range(begin, end):
                both = inside[top + y, left + x] & inside[top + y + dy[h], left + x + dx[h]]
                out[to_row + x] = weight[from_row + x] if both else 0


CROP = (_crop,)


def _grid_rows(weight: Array, plane: int, dy: Array, dx: Array, height: int, width: int, own: float, vertices: Array,
               place: Array, start: Array, index: Array, data: Array) -> int:  # fmt: skip
    """The part's matrix by rows, of a half stencil; ``own`` is its diagonal. Returns the number of entries.

    ``place`` [N] is the number of a vertex in the part, -1 outside of it.
    """
    count = 0
    for i in range(vertices.shape[0]):
        start[i] = count
        v = vertices[i]
        y, x = v // width, v % width
        if own != 0:
            index[count], data[count] = i, own
            count += 1
        for h in range(dy.shape[0]):
            away = dy[h] * width + dx[h]
            if y + dy[h] < height and 0 <= x + dx[h] < width and place[v + away] >= 0:
                w = weight[h * plane + v]
                if w != 0:
                    index[count], data[count] = place[v + away], w
                    count += 1
            if y - dy[h] >= 0 and 0 <= x - dx[h] < width and place[v - away] >= 0:
                w = weight[h * plane + v - away]
                if w != 0:
                    index[count], data[count] = place[v - away], w
                    count += 1
    start[vertices.shape[0]] = count
    return count


GRID_ROWS = (_grid_rows,)


def _some_rows(from_start: Array, from_index: Array, from_data: Array, vertices: Array, place: Array, start: Array,
               index: Array, data: Array) -> int:  # fmt: skip
    """As `_grid_rows`, of a sparse matrix by rows."""
    count = 0
    for i in range(vertices.shape[0]):
        start[i] = count
        for k in range(from_start[vertices[i]], from_start[vertices[i] + 1]):
            if place[from_index[k]] >= 0:
                index[count], data[count] = place[from_index[k]], from_data[k]
                count += 1
    start[vertices.shape[0]] = count
    return count


SOME_ROWS = (_some_rows,)


# ---- all thresholds ---------------------------------------------------------------------------------------


@inlined
def _add(high: float, low: float, term: float) -> tuple[float, float]:
    """The sum ``high + low`` and a term more."""
    total = high + term
    back = total - high
    return total, low + ((high - (total - back)) + (term - back))


def _grid_differences(weight: Array, plane: int, dy: Array, dx: Array, height: int, width: int, rank: Array,
                      high: Array, low: Array) -> None:  # fmt: skip
    """How much more the cut is after each pixel than before it, [N]: its edges up the order, less those down."""
    for p in range(height * width):
        high[p], low[p] = 0.0, 0.0
    for h in range(dy.shape[0]):
        begin, end = max(0, -dx[h]), min(width, width - dx[h])
        for y in range(height - dy[h]):
            for x in range(begin, end):
                p = y * width + x
                w = np.float64(weight[h * plane + p])
                if w != 0:
                    q = p + dy[h] * width + dx[h]
                    if rank[p] > rank[q]:
                        w = -w
                    high[p], low[p] = _add(high[p], low[p], w)
                    high[q], low[q] = _add(high[q], low[q], -w)


GRID_DIFFERENCES = (_add, _grid_differences)


def _rows_differences(start: Array, index: Array, data: Array, rank: Array, high: Array, low: Array) -> None:
    """As `_grid_differences`, of a sparse matrix by rows."""
    for p in range(rank.shape[0]):
        total, rest = 0.0, 0.0
        for k in range(start[p], start[p + 1]):
            q = index[k]
            if rank[p] < rank[q]:
                total, rest = _add(total, rest, data[k])
            elif rank[p] > rank[q]:
                total, rest = _add(total, rest, -data[k])
        high[p], low[p] = total, rest


ROWS_DIFFERENCES = (_add, _rows_differences)


def _sweep(order: Array, vector: Array, high: Array, low: Array, degree: Array, least: int, found: Array) -> int:
    """The best of all thresholds: how many vertices are not above it, 0 where there is no threshold.

    ``order`` sorts the vertices, and ``vector`` [N]. At least so many vertices are on each side. ``found[0]`` is the
    normalised cut. Of equal ones the first wins.
    """
    n = order.shape[0]
    whole, rest = 0.0, 0.0
    for i in range(n):
        whole, rest = _add(whole, rest, degree[order[i]])
    cut, cut_rest, volume, volume_rest = 0.0, 0.0, 0.0, 0.0
    best, place = np.inf, 0
    for i in range(n - 1):
        v = order[i]
        cut, cut_rest = _add(cut, cut_rest, high[v])
        cut_rest += low[v]
        volume, volume_rest = _add(volume, volume_rest, degree[v])
        if i + 1 >= least and n - i - 1 >= least and vector[v] < vector[order[i + 1]]:
            below = volume + volume_rest
            above = (whole - volume) + (rest - volume_rest)
            between = max(cut + cut_rest, 0.0)
            value = 0.0
            if between > 0 and below > 0 and above > 0:
                value = between / below + between / above
            if value < best:
                best, place = value, i + 1
    found[0] = best
    return place


SWEEP = (_add, _sweep)
