"""What k-means does with samples of the points: k-means||, mini-batches. The same for the CPU and the GPU."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import _array
from . import _cpu, _lloyd

__all__ = ["minibatch", "oversampled", "plus_plus"]

Array = np.ndarray[Any, Any]

_ROUNDS = 5
_SHARE = 2  # points that a round draws, of the number of clusters
_REFINE = 10  # iterations of Lloyd over the points drawn
_START = 3  # batches, or centres, among which mini-batches begin


def plus_plus(data: Any, weight: Array | None, clusters: int, rng: np.random.Generator) -> Array:
    """Centres by greedy k-means++."""
    trials = 2 + int(math.log(clusters))
    return data.seeds(weight, rng.random((clusters, trials)))


def oversampled(data: Any, weight: Array | None, clusters: int, rng: np.random.Generator) -> Array:
    """Centres by k-means||: rounds that draw many points at once, k-means++ and some of Lloyd's iterations over those.

    ``data.labelled(centres, far)`` gives labels, and square distances to ``far``; ``data.sampled(closest, scale,
    seed)`` the points that are drawn with the probability ``scale w closest``.
    """
    points = len(data.x)
    chosen = data.rows(_lloyd.drawn(points, weight, 1, rng))
    closest = data.distances()
    owner = _array.copy(data.labelled(chosen, closest)[0])
    library = _array.module(closest)
    for _ in range(_ROUNDS):
        total = data.total(closest)
        if not total > 0:
            break
        drawn = data.sampled(closest, _SHARE * clusters / total, int(rng.integers(2**63)))
        if not len(drawn):
            continue
        new, far = data.rows(drawn), data.distances()
        label, _ = data.labelled(new, far)
        nearer = far < closest
        owner = library.where(nearer, label + len(chosen), owner)
        closest = library.where(nearer, far, closest)
        chosen = np.concatenate([chosen, new])
    mass = np.bincount(_array.to_host(owner), weight, len(chosen)).astype(np.float64)
    chosen, mass = chosen[mass > 0], mass[mass > 0]
    if (short := clusters - len(chosen)) >= 0:  # hardly more different points than that
        return np.concatenate([chosen, data.rows(_lloyd.drawn(points, weight, short, rng))]) if short else chosen
    few = _cpu.Points(chosen, mass)
    return few.lloyd(plus_plus(few, mass, clusters, rng), _REFINE, 0.0)[1]


def start(data: Any, weight: Array | None, size: int, clusters: int, rng: np.random.Generator) -> Any:
    """The points among which centres of mini-batches begin, and their weights on the host."""
    count = _START * max(size, clusters)
    if count >= len(data.x):
        return data, weight
    index = np.sort(_lloyd.drawn(len(data.x), weight, count, rng))
    return data.part(index), None if weight is None else weight[index]


def minibatch(
    data: Any, centres: Array, size: int, max_iter: int, tol: float, rng: np.random.Generator
) -> tuple[Any, Any, float, int, bool]:
    """Labels, centres, inertia, batches, and whether the mean square shift of the centres came down to ``tol``.

    A centre is the mean of all points that batches have given to it so far: the rate of its steps is one over their
    number, as in Sculley's algorithm. Shifts are averaged over about half of the points.
    """
    points, mass = len(data.x), np.zeros(len(centres))
    memory, mean, n_iter, settled = min(1.0, 2 * size / (points + 1)), math.inf, 0, False
    while n_iter < max_iter and not settled:
        n_iter += 1
        sums, weight = data.part(rng.integers(points, size=size)).sums(centres)
        mass += weight
        step = (sums - weight[:, None] * centres) / np.where(mass > 0, mass, 1)[:, None]
        centres = centres + step
        shift = float((step**2).sum())
        mean = shift if n_iter == 1 else mean + memory * (shift - mean)
        settled = tol > 0 and mean <= tol
    labels, inertia = data.labelled(centres)
    return labels, data.centres(centres), inertia, n_iter, settled or tol == 0
