"""The CPU's inner loops of the maximum flow on a grid, for `_njit.compiled`.

Boykov and Kolmogorov's augmenting paths: a forest S grows from the nodes with excess, a forest T from those with a
deficit. Where they meet, flow goes from a root of S to a root of T; nodes that this cuts off (orphans) look for
another parent in their forest, or leave it. Time stamps and distances, kept from earlier searches for a root, make
that search short and the forests flat.

Nodes are numbered in tiles of 64, so that neighbours lie near in memory: the bytes of a tile's parents are one cache
line. What is behind a node in some direction is a table of its place in the tile; the tiles at the rim are filled
up by nodes without edges, and so is the memory in front of and behind all tiles. An edge that leaves the grid has
no capacity, and its reverse neither: a step out of a row of tiles, into the next one, reads a capacity of zero, and
no bounds are checked. Direction 2 h is that of offset h, 2 h + 1 its opposite. ``residual[p * dirs + d]`` is what may
still go from p in direction d.

``code`` is the forest (upper bit: T) and the direction of the parent of a node, ``up`` that parent, ``mark`` when its
root was last seen (upper half) and how far away it was (lower half).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .._njit import inlined

Array = np.ndarray[Any, Any]

TILE = 64  # nodes
_T = 128  # in a code: the forest is T
_DIRECTION = 127  # of a code: the direction of the parent, of which there are at most 64, or one of
_ROOT = 125
_ORPHAN = 126
_FREE = 255  # a code: in no forest
_NOWHERE = 1 << 40  # a distance: there is no root
_HEAD, _TAIL, _QUEUED = 0, 1, 2  # of the ring of active nodes, in `state`
_TIME, _ORPHANS = 3, 4  # augmentations, and orphans that wait
STATE = 5  # numbers

# ---- layouts ----------------------------------------------------------------------------------------------


@inlined
def _row(z: int, y: int, shifts: Array, tiles: Array) -> int:
    """The node at (z, y, 0)."""
    tile = ((z >> shifts[0]) * tiles[1] + (y >> shifts[1])) * tiles[2]
    inside = ((z & ((1 << shifts[0]) - 1)) << (shifts[1] + shifts[2])) + ((y & ((1 << shifts[1]) - 1)) << shifts[2])
    return tile * TILE + inside


@inlined
def _column(x: int, shift: int) -> int:
    return ((x >> shift) << 6) + (x & ((1 << shift) - 1))


def _load(terminal: Array, planes: Array, shifts: Array, tiles: Array, first: int, excess: Array,
          residual: Array) -> None:  # fmt: skip
    """Terminals [D, H, W] and residual planes [2 H, D, H, W] to tiles, that of (0, 0, 0) being node ``first``."""
    pairs = planes.shape[0] // 2
    dirs = 2 * pairs
    depth, height, width = terminal.shape
    for z in range(depth):
        for y in range(height):
            row = first + _row(z, y, shifts, tiles)
            for x in range(width):
                excess[row + _column(x, shifts[2])] = terminal[z, y, x]
            for h in range(pairs):
                for x in range(width):
                    at = (row + _column(x, shifts[2])) * dirs + 2 * h
                    residual[at] = planes[h, z, y, x]
                    residual[at + 1] = planes[pairs + h, z, y, x]


def _store(code: Array, shifts: Array, tiles: Array, first: int, minimal: bool, labels: Array) -> None:
    """Labels [D, H, W] from the forests."""
    depth, height, width = labels.shape
    for z in range(depth):
        for y in range(height):
            row = first + _row(z, y, shifts, tiles)
            for x in range(width):
                c = code[row + _column(x, shifts[2])]
                labels[z, y, x] = 1 if (c < _T or (c == _FREE and not minimal)) else 0


# ---- forests ----------------------------------------------------------------------------------------------


@inlined
def _side(code: int) -> int:
    """1 in S, -1 in T, 0 outside."""
    return 1 if code < _T else (0 if code == _FREE else -1)


@inlined
def _behind(v: int, d: int, step: Array, dirs: int) -> int:
    """The node that lies in direction d."""
    return v + step[(v & (TILE - 1)) * dirs + d]


@inlined
def _edge(side: int, u: int, v: int, d: int, dirs: int) -> int:
    """The edge between u and v, in direction d of u, that leads away from u (side 1, as in S) or to it (side -1)."""
    return u * dirs + d if side > 0 else v * dirs + (d ^ 1)


@inlined
def _activate(v: int, active: Array, queue: Array, state: Array) -> None:
    if active[v] == 0:
        active[v] = 1
        tail = state[_TAIL]
        queue[tail] = v
        state[_TAIL] = tail + 1 if tail + 1 < queue.shape[0] else 0
        state[_QUEUED] += 1


@inlined
def _climb(side: int, v: Any, room: Any, n: int, excess: Array, residual: Array, code: Array, up: Array, dirs: int,
           forward: Array, backward: Array) -> tuple[int, int, int]:  # fmt: skip
    """The edges between v and its root, noted from place ``n`` on: (number noted, what they carry, root)."""
    d = np.int64(code[v]) & _DIRECTION
    while d != _ROOT:
        u = np.int64(up[v])
        e = _edge(side, u, v, d ^ 1, dirs)
        forward[n] = e
        backward[n] = _edge(-side, u, v, d ^ 1, dirs)
        room = min(room, np.int64(residual[e]))
        n += 1
        v = u
        d = np.int64(code[v]) & _DIRECTION
    return n, min(room, side * np.int64(excess[v])), v


@inlined
def _cut_off(side: int, v: int, code: Array, orphans: Array, state: Array) -> None:
    code[v] = _ORPHAN if side > 0 else _ORPHAN | _T
    orphans[state[_ORPHANS]] = v
    state[_ORPHANS] += 1


@inlined
def _send(side: int, begin: int, end: int, root: int, amount: int, excess: Array, residual: Array, code: Array,
          dirs: int, forward: Array, backward: Array, orphans: Array, state: Array) -> None:  # fmt: skip
    """Flow over the edges noted from ``begin`` to ``end``, the root's first; what they no longer hold is cut off."""
    excess[root] -= side * amount
    if excess[root] == 0:
        _cut_off(side, root, code, orphans, state)
    for i in range(end - 1, begin - 1, -1):
        e, back = forward[i], backward[i]
        residual[back] += amount
        left = residual[e] - amount
        residual[e] = left
        if left == 0:
            _cut_off(side, (back if side > 0 else e) // dirs, code, orphans, state)


@inlined
def _distance(u: Any, time: int, code: Array, up: Array, mark: Array) -> int:
    """Distance of u from its root, noted in the marks on the way; `_NOWHERE` if it hangs on an orphan."""
    k = 0
    j = u
    while True:
        m = mark[j]
        if m >> 32 == time:
            k += m & 0xFFFFFFFF
            break
        d = np.int64(code[j]) & _DIRECTION
        if d == _ROOT:
            mark[j] = (time << 32) + 1
            k += 1
            break
        if d == _ORPHAN:
            return _NOWHERE
        k += 1
        j = np.int64(up[j])
    near = k
    while mark[u] >> 32 != time:
        mark[u] = (time << 32) + near
        near -= 1
        u = np.int64(up[u])
    return k


@inlined
def _adopt(residual: Array, code: Array, up: Array, mark: Array, step: Array, dirs: int, active: Array, queue: Array,
           orphans: Array, state: Array) -> None:  # fmt: skip
    """New parents for the orphans, those nearest to a root; nodes without one leave their forest."""
    time = state[_TIME]
    i = 0
    while i < state[_ORPHANS]:
        v = np.int64(orphans[i])
        i += 1
        side = _side(code[v])
        forest = 0 if side > 0 else _T
        best, nearest = -1, _NOWHERE
        for d in range(dirs):
            u = _behind(v, d, step, dirs)
            if _side(code[u]) == side and residual[_edge(side, u, v, d ^ 1, dirs)] > 0:
                k = _distance(u, time, code, up, mark)
                if k < nearest:
                    best, nearest = d, k
        if best >= 0:
            code[v] = forest | best
            up[v] = _behind(v, best, step, dirs)
            mark[v] = (time << 32) + nearest + 1
            continue
        for d in range(dirs):
            u = _behind(v, d, step, dirs)
            c = np.int64(code[u])
            if _side(c) == side:
                if residual[_edge(side, u, v, d ^ 1, dirs)] > 0:
                    _activate(u, active, queue, state)
                if c == forest | (d ^ 1):
                    _cut_off(side, u, code, orphans, state)
        code[v] = _FREE
    state[_ORPHANS] = 0


# ---- the search -------------------------------------------------------------------------------------------


@inlined
def _cancel(excess: Array, residual: Array, step: Array, dirs: int, first: int, last: int) -> None:
    """Sends what it can from nodes with excess straight to neighbours with a deficit."""
    for p in range(first, last):
        if excess[p] > 0:
            for d in range(dirs):
                q = _behind(p, d, step, dirs)
                if excess[q] < 0:
                    amount = min(excess[p], min(-excess[q], residual[p * dirs + d]))
                    excess[p] -= amount
                    excess[q] += amount
                    residual[p * dirs + d] -= amount
                    residual[q * dirs + (d ^ 1)] += amount


@inlined
def _plant(excess: Array, residual: Array, code: Array, mark: Array, step: Array, dirs: int, first: int, last: int,
           active: Array, queue: Array, state: Array) -> None:  # fmt: skip
    """The roots; active are those that have something to grow to."""
    for p in range(code.shape[0]):
        active[p] = 0
        code[p] = _FREE
    for p in range(first, last):
        mark[p] = 1
        if excess[p] != 0:
            code[p] = _ROOT if excess[p] > 0 else _ROOT | _T
    for p in range(first, last):
        side = _side(code[p])
        if side != 0:
            for d in range(dirs):
                q = _behind(p, d, step, dirs)
                if code[q] != code[p] and residual[_edge(side, p, q, d, dirs)] > 0:
                    _activate(p, active, queue, state)
                    break


def _solve(excess: Array, residual: Array, code: Array, up: Array, mark: Array, step: Array, first: int, last: int,
           active: Array, queue: Array, orphans: Array, forward: Array, backward: Array,
           state: Array) -> int:  # fmt: skip
    """The maximum flow among the nodes ``first`` to ``last``.

    After it S holds all that can be reached from excess, T all that can reach a deficit. ``queue``, ``orphans``,
    ``forward`` and ``backward`` have room for each node once.
    """
    dirs = step.shape[0] // TILE
    flow = 0
    for p in range(first, last):
        flow += max(excess[p], 0)
    for i in range(state.shape[0]):
        state[i] = 0
    _cancel(excess, residual, step, dirs, first, last)
    _plant(excess, residual, code, mark, step, dirs, first, last, active, queue, state)
    while state[_QUEUED] > 0:
        head = state[_HEAD]
        v = np.int64(queue[head])
        state[_HEAD] = head + 1 if head + 1 < queue.shape[0] else 0
        state[_QUEUED] -= 1
        active[v] = 0
        side = _side(code[v])
        forest = 0 if side > 0 else _T
        d = 0 if side != 0 else dirs
        while d < dirs:
            w = _behind(v, d, step, dirs)
            other = _side(code[w])
            e = _edge(side, v, w, d, dirs)
            if other == side:
                near, far = mark[v], mark[w]
                if far >> 32 <= near >> 32 and far & 0xFFFFFFFF > near & 0xFFFFFFFF and residual[e] > 0:
                    code[w] = forest | (d ^ 1)
                    up[w] = v
                    mark[w] = near + 1
                d += 1
            elif residual[e] == 0:
                d += 1
            elif other == 0:
                code[w] = forest | (d ^ 1)
                up[w] = v
                mark[w] = mark[v] + 1
                _activate(w, active, queue, state)
                d += 1
            else:
                room = np.int64(residual[e])
                middle, room, near = _climb(side, v, room, 0, excess, residual, code, up, dirs, forward, backward)
                end, room, far = _climb(-side, w, room, middle, excess, residual, code, up, dirs, forward, backward)
                residual[e] -= room
                residual[_edge(-side, v, w, d, dirs)] += room
                state[_TIME] += 1
                _send(side, 0, middle, near, room, excess, residual, code, dirs, forward, backward, orphans, state)
                _send(-side, middle, end, far, room, excess, residual, code, dirs, forward, backward, orphans, state)
                _adopt(residual, code, up, mark, step, dirs, active, queue, orphans, state)
                if _side(code[v]) != side:
                    break
    for p in range(first, last):
        flow -= max(excess[p], 0)
    return flow


LOAD = (_row, _column, _load)
STORE = (_row, _column, _store)
SOLVE = (_side, _behind, _edge, _activate, _climb, _cut_off, _send, _distance, _adopt, _cancel, _plant, _solve)
