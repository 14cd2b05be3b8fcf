"""The CPU's inner loops of graphs over detections or tracklets, for `_njit.compiled`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .._njit import inlined

__all__ = ["FEATURES", "NEAREST", "SELECT"]

Array = np.ndarray[Any, Any]

_GROUP = 32  # distances that are looked at one by one only where one of them counts


@inlined
def _after(distance: Array, place: Array, one: int, other: int) -> bool:
    return distance[one] > distance[other] or (distance[one] == distance[other] and place[one] > place[other])


@inlined
def _replace(distance: Array, place: Array, v: Any, p: int) -> None:
    """Puts a number into a heap in place of the last of all, which stands in front."""
    at, child = 0, 1
    while child < distance.size:
        if child + 1 < distance.size and _after(distance, place, child + 1, child):
            child += 1
        if distance[child] < v or (distance[child] == v and place[child] < p):
            break
        distance[at] = distance[child]
        place[at] = place[child]
        at, child = child, 2 * child + 1
    distance[at] = v
    place[at] = p


@inlined
def _take(space: Array, first: int, distance: Array, place: Array) -> None:
    """Takes the least of some numbers, whose places count from ``first``, into a heap; of equal ones the first."""
    bound = distance[0]
    for group in range(0, space.size, _GROUP):
        last = min(group + _GROUP, space.size)
        some = 0
        for c in range(group, last):
            some += space[c] < bound
        if some > 0:
            for c in range(group, last):
                if space[c] < bound:
                    _replace(distance, place, space[c], first + c)
                    bound = distance[0]


@inlined
def _write(place: Array, spans: Array, q: int, node: Array, past_node: Array, key: Array) -> None:
    """The keys of a node's neighbours, by their places: those before it, then those after it."""
    before = spans[1, q] - spans[0, q]
    for c in range(place.size):
        p = place[c]
        if p < 0:
            key[c] = -1
        elif p < before:
            key[c] = past_node[spans[0, q] + p] * node.size + node[q]
        else:
            key[c] = node[q] * node.size + node[spans[2, q] + p - before]


def _feet_distances(
    own: Array, q: int, time: Any, others: Array, times: Array, low: int, high: int, half: Any, space: Array
) -> None:
    """Square distances of a node's feet to those of some others, half way in time, in mean heights.

    Roles do not matter: the order in time turns the sign of the velocities.
    """
    x, y, height, vx, vy = own[0, q], own[1, q], own[2, q], own[3, q], own[4, q]
    xs, ys, heights, when = others[0][low:high], others[1][low:high], others[2][low:high], times[low:high]
    vxs, vys = others[3][low:high], others[4][low:high]
    for c in range(high - low):
        away = (when[c] - time) * half
        dx = (xs[c] - x) - (vx + vxs[c]) * away
        dy = (ys[c] - y) - (vy + vys[c]) * away
        mean = half * (height + heights[c])
        space[c] = (dx * dx + dy * dy) / (mean * mean)


def _nearest(begin: Array, begin_time: Array, end: Array, end_time: Array, past: Array, past_time: Array, spans: Array,
             node: Array, past_node: Array, half: Any, reach: Any, first: int, last: int, space: Array, distance: Array,
             place: Array, key: Array) -> None:  # fmt: skip
    """The nearest nodes before and after some nodes, by the distance of their feet; see kernels/tracking_graph.cu.

    ``spans`` [4, N], ``key`` [N, keep]. ``space`` [most candidates], ``distance`` and ``place`` [keep] are work space.
    Distances below ``reach`` count.
    """
    for q in range(first, last):
        for c in range(place.size):
            distance[c] = reach
            place[c] = -1
        low, high = spans[0, q], spans[1, q]
        _feet_distances(begin, q, begin_time[q], past, past_time, low, high, half, space)
        _take(space[: high - low], 0, distance, place)
        before = high - low
        low, high = spans[2, q], spans[3, q]
        _feet_distances(end, q, end_time[q], begin, begin_time, low, high, half, space)
        _take(space[: high - low], before, distance, place)
        _write(place, spans, q, node, past_node, key[q])


def _select(square: Array, low: int, spans: Array, side: int, node: Array, past_node: Array, first: int,
            distance: Array, place: Array, key: Array) -> None:  # fmt: skip
    """As `_nearest`, for nodes from ``first`` on, of distances [nodes, candidates from ``low`` on] that are known.

    Side 0 takes those before, and then side 1 those after. ``distance`` and ``place`` [nodes, keep] begin with the
    reach and -1, and go on from side to side; ``key`` [nodes, keep] is written by the second.
    """
    for r in range(square.shape[0]):
        q = first + r
        one, end = spans[2 * side, q] - low, spans[2 * side + 1, q] - low
        _take(square[r, one:end], side * (spans[1, q] - spans[0, q]), distance[r], place[r])
        if side == 1:
            _write(place[r], spans, q, node, past_node, key[r])


@inlined
def _overlap(low: Any, high: Any, other_low: Any, other_high: Any) -> Any:
    return max(min(high, other_high) - max(low, other_low), 0.0)


def _features(box: Array, frame: Array, last_box: Array, last_frame: Array, velocity: Array, last_velocity: Array,
              appearance: Array, edges: Array, fps: float, first: int, last: int, features: Array) -> None:  # fmt: skip
    """Features [E, F] of some links; what there is no array for (of no rows) is left out."""
    for e in range(first, last):
        i, j = edges[0, e], edges[1, e]
        gap = float(frame[j] - last_frame[i])
        x, y, w, h = last_box[i, 0], last_box[i, 1], last_box[i, 2], last_box[i, 3]
        x2, y2, w2, h2 = box[j, 0], box[j, 1], box[j, 2], box[j, 3]
        height = 0.5 * (h + h2)
        features[e, 0] = gap / fps
        features[e, 1] = ((x2 + 0.5 * w2) - (x + 0.5 * w)) / height
        features[e, 2] = ((y2 + h2) - (y + h)) / height
        features[e, 3] = math.log(h2 / h)
        features[e, 4] = math.log(w2 / w)
        at = 5
        if appearance.shape[0] > 0:
            square = 0.0
            for d in range(appearance.shape[1]):
                off = np.float64(appearance[j, d]) - np.float64(appearance[i, d])
                square += off * off
            features[e, at] = math.sqrt(square)
            at += 1
        if velocity.shape[0] > 0:
            half = 0.5 * gap
            x, y = x + half * last_velocity[i, 0], y + half * last_velocity[i, 1]
            x2, y2 = x2 - half * velocity[j, 0], y2 - half * velocity[j, 1]
            common = _overlap(x, x + w, x2, x2 + w2) * _overlap(y, y + h, y2, y2 + h2)
            whole = w * h + w2 * h2 - common
            hull = (max(x + w, x2 + w2) - min(x, x2)) * (max(y + h, y2 + h2) - min(y, y2))
            features[e, at] = common / whole
            features[e, at + 1] = common / whole - (hull - whole) / hull


_LISTS = (_after, _replace, _take, _write)
NEAREST = (*_LISTS, _feet_distances, _nearest)
SELECT = (*_LISTS, _select)
FEATURES = (_overlap, _features)
