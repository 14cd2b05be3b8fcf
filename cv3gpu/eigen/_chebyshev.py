"""Subspace iteration with Chebyshev polynomials as filters: needs products alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ._lobpcg import Found, begin, residuals, rotated
from ._operator import Operator

__all__ = ["Space", "chebyshev", "greatest", "iterate"]

Array = np.ndarray[Any, Any]

LANCZOS = 12  # steps of the bound of the spectrum
_GAIN = 5.0  # a filter raises what is wanted over what is not by about e to this
_DEGREES = (12, 200)
_PATIENCE = 20  # iterations in which the residuals must fall to a half
_SLOW = 4  # iterations without that, and the greatest degree doubles
_MOST = 3200  # it, or less for large graphs:
_WORK = 1 << 28  # products with a row that a filter may take


class Space:
    """What an iteration does with blocks [N, b], wherever they are."""

    def pairs(self, x: Any) -> tuple[Array, Any, Array]:
        """Ritz values ascending, vectors outside of the null space, residuals; x is overwritten."""
        raise NotImplementedError

    def follow(self, x: Any, centre: float, scale: float, before: float, out: Any) -> None:
        """``out`` = scale (M^-1 A - centre) x - before out."""
        raise NotImplementedError

    def empty_like(self, x: Any) -> Any:
        """A block that may hold anything."""
        raise NotImplementedError

    def greatest(self) -> float:
        """A bound of the eigenvalues."""
        raise NotImplementedError


class _Host(Space):
    """Blocks in NumPy."""

    def __init__(self, operator: Operator, null: list[Array]) -> None:
        self.operator, self.null = operator, null

    def pairs(self, x: Array) -> tuple[Array, Array, Array]:
        x, room = begin(x, self.null, self.operator.mass), np.empty_like(x)
        values = rotated(self.operator, x, room)
        return values, x, residuals(self.operator, values, x, room, room)

    def follow(self, x: Array, centre: float, scale: float, before: float, out: Array) -> None:
        self.operator.follow(x, centre, scale, before, out)

    def empty_like(self, x: Array) -> Array:
        return np.zeros_like(x)  # 0 times whatever else stood there need not be 0

    def greatest(self) -> float:
        return greatest(self.operator)


def greatest(operator: Operator) -> float:
    """A bound of the eigenvalues from some steps of Lanczos (Zhou and Li, 2011), not above the certain one."""
    rng = np.random.default_rng(0)
    root = np.sqrt(operator.mass)[:, None]
    v = rng.standard_normal((operator.size, 1))
    v /= np.linalg.norm(v)
    before, beta = np.zeros_like(v), 0.0
    steps = min(LANCZOS, operator.size)
    t = np.zeros((steps, steps))
    for j in range(steps):
        image = operator.apply(np.repeat(v / root, 4, 1))[:, :1] / root - beta * before
        t[j, j] = alpha = (v * image).sum()
        image -= alpha * v
        beta = float(np.linalg.norm(image))
        if j + 1 == steps or beta < 1e-12:
            break
        t[j, j + 1] = t[j + 1, j] = beta
        before, v = v, image / beta
    return min(operator.most, float(np.linalg.eigvalsh(t)[-1]) + beta)


def _filtered(space: Space, x: Any, degree: int, least: float, low: float, high: float) -> Any:
    """A Chebyshev polynomial of M^-1 A that is small from ``low`` to ``high``, and about 1 at ``least``, times x."""
    half, centre = (high - low) / 2, (high + low) / 2
    sigma = half / (least - centre)
    tau = 2 / sigma
    y = space.empty_like(x)
    space.follow(x, centre, sigma / half, 0.0, y)
    for _ in range(degree - 1):
        following = 1 / (tau - sigma)
        space.follow(y, centre, 2 * following / half, sigma * following, x)
        x, y, sigma = y, x, following
    return y


def chebyshev(
    operator: Operator,
    start: Array,
    null: list[Array],
    wanted: int,
    done: Callable[[Array, Array], bool],
    max_iter: int,
) -> Found:
    """The smallest pairs outside of the null space, from a start [N, b] that is overwritten; b is above ``wanted``."""
    return iterate(_Host(operator, null), start, wanted, done, max_iter)


def iterate(
    space: Space,
    start: Any,
    wanted: int,
    done: Callable[[Array, Array], bool],
    max_iter: int,
    patience: int = _PATIENCE,
) -> Found:
    """As :func:`chebyshev`; it also ends where the residuals have not halved in ``patience`` iterations."""
    high = space.greatest()
    values, x, norms = space.pairs(start)
    iteration, best, since = 0, math.inf, 0
    least, most = _DEGREES
    while True:
        worst = float(norms[:wanted].max())
        best, since = (worst, iteration) if worst < 0.5 * best else (best, since)
        if done(values, norms) or iteration == max_iter or iteration - since > patience or not math.isfinite(worst):
            return Found(values, x, norms, iteration)
        iteration += 1
        if iteration - since > _SLOW and (iteration - since) % _SLOW == 1:
            most = max(most, min(2 * most, _MOST, _WORK // len(start)))
        low = min(max(values[-1], 1e-14 * high), 0.5 * high)
        gap = max(low - values[wanted - 1], 1e-3 * low) / (high - low)
        degree = min(max(math.ceil(_GAIN / (2 * math.sqrt(gap))), least), most)
        x = _filtered(space, x, degree, min(values[0], low / 2), low, high)
        values, x, norms = space.pairs(x)
