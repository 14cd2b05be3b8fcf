"""Subspace iteration with Chebyshev polynomials as filters, in float64: needs products alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ._lobpcg import Found, begin, residuals, rotated
from ._operator import Operator

__all__ = ["chebyshev", "greatest"]

Array = np.ndarray[Any, Any]

_LANCZOS = 12  # steps of the bound of the spectrum
_GAIN = 5.0  # a filter raises what is wanted over what is not by about e to this
_DEGREES = (12, 200)
_PATIENCE = 20  # iterations in which the residuals must fall to a half


def greatest(operator: Operator) -> float:
    """A bound of the eigenvalues from some steps of Lanczos (Zhou and Li, 2011), not above the certain one."""
    rng = np.random.default_rng(0)
    root = np.sqrt(operator.mass)[:, None]
    v = rng.standard_normal((operator.size, 1))
    v /= np.linalg.norm(v)
    before, beta = np.zeros_like(v), 0.0
    steps = min(_LANCZOS, operator.size)
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


def _filtered(operator: Operator, x: Array, degree: int, least: float, low: float, high: float) -> Array:
    """A Chebyshev polynomial of M^-1 A that is small from ``low`` to ``high``, and about 1 at ``least``, times x."""
    half, centre = (high - low) / 2, (high + low) / 2
    sigma = half / (least - centre)
    tau = 2 / sigma
    y = np.zeros_like(x)
    operator.follow(x, centre, sigma / half, 0.0, y)
    for _ in range(degree - 1):
        following = 1 / (tau - sigma)
        operator.follow(y, centre, 2 * following / half, sigma * following, x)
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
    high = greatest(operator)
    values, x, ax = rotated(operator, begin(start, null, operator.mass))
    w = np.empty_like(x)
    iteration, best, since = 0, math.inf, 0
    while True:
        norms = residuals(operator, values, x, ax, w)
        worst = float(norms[:wanted].max())
        best, since = (worst, iteration) if worst < 0.5 * best else (best, since)
        if done(values, norms) or iteration == max_iter or iteration - since > _PATIENCE:
            return Found(values, x, norms, iteration)
        iteration += 1
        low = min(max(values[-1], 1e-14 * high), 0.5 * high)
        gap = max(low - values[wanted - 1], 1e-3 * low) / (high - low)
        least, most = _DEGREES
        degree = min(max(math.ceil(_GAIN / (2 * math.sqrt(gap))), least), most)
        x = _filtered(operator, x, degree, min(values[0], low / 2), low, high)
        values, x, ax = rotated(operator, begin(x, null, operator.mass))
