"""What the CPU and the GPU share of k-means: which points k-means++ takes, and what becomes of empty clusters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = ["BLOCK", "drawn", "means", "seeds"]

Array = np.ndarray[Any, Any]

BLOCK = 1024  # points between which k-means++ draws
_REST = 1e-12  # of a cluster's mass is rounding, and no point


def means(centres: Array, sums: Array, mass: Array, farthest: Callable[[int], tuple[Array, ...]]) -> Array:
    """Where the centres move to; a cluster without points gets one of those farthest from their centres.

    ``farthest(count)`` gives such points, farthest first: coordinates, labels, weights, square distances.
    """
    empty = np.flatnonzero(mass == 0)
    if empty.size:
        for k, point, label, weight, off in zip(empty, *farthest(len(empty)), strict=True):
            if off == 0:
                break
            sums[label] -= weight * point
            mass[label] = 0 if mass[label] - weight <= _REST * mass[label] else mass[label] - weight
            sums[k], mass[k] = weight * point, weight
    filled = mass > 0
    return np.where(filled[:, None], sums / np.where(filled, mass, 1)[:, None], centres)


def _first(u: float, points: int, weight: Array | None) -> int:
    """A point by its weight."""
    if weight is None:
        return min(int(u * points), points - 1)
    total = weight.cumsum()
    return min(int(np.searchsorted(total, u * total[-1], side="right")), points - 1)


def drawn(points: int, weight: Array | None, count: int, rng: np.random.Generator) -> Array:
    """Different points, by their weights (the largest log(u) / w, Efraimidis and Spirakis); those without come last."""
    if weight is None:
        return rng.choice(points, count, replace=False)
    with np.errstate(divide="ignore"):
        keys = np.log(-np.log(rng.random(points))) - np.log(weight)
    return np.argsort(keys, kind="stable")[:count]


def seeds(data: Any, weight: Array | None, uniform: Array) -> Array:
    """Centres by greedy k-means++; ``uniform`` [centres, trials] in [0, 1).

    ``data.potentials(last, tried)`` gives what the square distances to the nearest centre would sum up to with each of
    the tried ones, by blocks of points [blocks, tried], once ``last`` [1, D] is a centre. ``data.draw(last, block,
    rest)`` gives the points at which their running sums in these blocks exceed ``rest``.
    """
    points = len(data.x)
    chosen = [data.rows([_first(uniform[0, 0], points, weight)])]
    total = data.potentials(chosen[0], chosen[0]).sum(1).cumsum() if len(uniform) > 1 else np.zeros(1)
    for row in uniform[1:]:
        last = chosen[-1]
        if total[-1] > 0:
            targets = row * total[-1]
            block = np.searchsorted(total, targets, side="right").clip(max=len(total) - 1)
            found = data.draw(last, block, targets - np.concatenate([[0.0], total])[block])
        else:  # all points are centres already
            found = [_first(u, points, weight) for u in row]
        tried = data.rows(found)
        part = data.potentials(last, tried)
        best = int(part.sum(0).argmin())
        chosen.append(tried[best : best + 1])
        total = part[:, best].cumsum()
    return np.concatenate(chosen)
