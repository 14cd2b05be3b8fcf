"""The matching of rows with columns of the greatest gain, over a sparse list of pairs, for `_njit.compiled`.

Shortest augmenting paths with potentials (Jonker and Volgenant), where a row may also stay alone: costs are negative
gains, staying alone costs nothing. Reduced costs ``cost - u[row] - v[col]`` are never negative, u is never positive, v
is 0 for a free column. A search touches what lies nearer than its end alone, so that a problem of many small conflicts
takes time in proportion to its size.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def _push(key: Array, item: Array, size: int, distance: float, column: int) -> None:
    """Adds to a binary heap of ``size`` entries."""
    at = size
    while at > 0:
        above = (at - 1) >> 1
        if key[above] <= distance:
            break
        key[at], item[at] = key[above], item[above]
        at = above
    key[at], item[at] = distance, column


def _pop(key: Array, item: Array, size: int) -> None:
    """Takes the least of ``size`` entries off."""
    last_key, last_item = key[size - 1], item[size - 1]
    at = 0
    while True:
        below = 2 * at + 1
        if below >= size - 1:
            break
        if below + 1 < size - 1 and key[below + 1] < key[below]:
            below += 1
        if key[below] >= last_key:
            break
        key[at], item[at] = key[below], item[below]
        at = below
    key[at], item[at] = last_key, last_item


def _start(indptr: Array, column: Array, cost: Array, u: Array, v: Array, row_of: Array, col_of: Array) -> None:
    """Potentials of the rows, and each row with its cheapest column where that is free."""
    for j in range(len(row_of)):
        row_of[j], v[j] = -1, 0.0
    for i in range(len(col_of)):
        col_of[i] = -1
        best, at = 0.0, -1
        for e in range(indptr[i], indptr[i + 1]):
            if cost[e] < best:
                best, at = cost[e], column[e]
        u[i] = best
        if at >= 0 and row_of[at] < 0:
            row_of[at], col_of[i] = i, at


def _augment(
    root: int, indptr: Array, column: Array, cost: Array, u: Array, v: Array, row_of: Array, col_of: Array,
    distance: Array, before: Array, key: Array, item: Array, seen: Array, done: Array,
) -> None:  # fmt: skip
    """Matches a row, or leaves one alone: the cheapest way to do so."""
    row, here = root, 0.0  # the row that the search stands at, and its distance
    lonely, lonely_at = -u[root], root  # the nearest row that could stay alone
    touched, closed, size, end = 0, 0, 0, -1
    while True:
        for e in range(indptr[row], indptr[row + 1]):
            j = column[e]
            far = here + cost[e] - u[row] - v[j]
            if done[j] == 0 and far < distance[j] and far < lonely:
                if distance[j] == np.inf:
                    seen[touched] = j
                    touched += 1
                distance[j], before[j] = far, row
                _push(key, item, size, far, j)
                size += 1
        end = -1
        while size > 0:
            far, j = key[0], item[0]
            _pop(key, item, size)
            size -= 1
            if far == distance[j] and done[j] == 0:
                end = j
                break
        if end < 0 or distance[end] >= lonely:
            end = -1
            break
        if row_of[end] < 0:
            break
        done[end] = 1
        seen[len(row_of) + closed] = end
        closed += 1
        row, here = row_of[end], distance[end]
        if here - u[row] < lonely:
            lonely, lonely_at = here - u[row], row
    length = distance[end] if end >= 0 else lonely
    # Potentials of all that lies nearer than the end.
    u[root] += length
    for t in range(closed):
        j = seen[len(row_of) + t]
        u[row_of[j]] += length - distance[j]
        v[j] -= length - distance[j]
    # Turn the path round.
    if end >= 0:
        j = end
    else:
        j = col_of[lonely_at]
        col_of[lonely_at] = -1
    while j >= 0:
        row = before[j]
        row_of[j], col_of[row], j = row, j, col_of[row]
        if row == root:
            break
    for t in range(touched):
        distance[seen[t]], done[seen[t]] = np.inf, 0


def _match(
    indptr: Array, column: Array, cost: Array, u: Array, v: Array, row_of: Array, col_of: Array,
    distance: Array, before: Array, key: Array, item: Array, seen: Array, done: Array,
) -> None:  # fmt: skip
    """The column of each row, or -1, into ``col_of``.

    ``distance`` comes as inf and ``done`` as 0; ``seen`` is twice as long as these, the heap as the list of pairs.
    """
    _start(indptr, column, cost, u, v, row_of, col_of)
    for i in range(len(col_of)):
        if col_of[i] < 0 and u[i] < 0:
            _augment(i, indptr, column, cost, u, v, row_of, col_of, distance, before, key, item, seen, done)


MATCH = (_push, _pop, _start, _augment, _match)
