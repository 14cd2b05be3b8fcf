"""What a colour costs in a region: histograms of seeds, and mixtures of Gaussians.

Colours are 8-bit levels, 0 to 255, in float64, a row for each channel. Sums of the levels of an 8-bit image and of
their products are integers below 2^53: they are exact in any order, so that every device finds the same model.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from .. import _array

__all__ = ["NOISE", "cost", "fit", "histogram_cost", "mixture_cost", "products", "refit", "start"]

Array = np.ndarray[Any, Any]

NOISE = 1 / 12  # the variance of a level's rounding: that of a uniform distribution of width 1
SWEEPS = 20  # assignments of pixels to Gaussians at most, for a model of seeds


# ---- histogram ------------------------------------------------------------------------------------------


def histogram_cost(levels: Any, seeds: Any, bins: int, smoothing: float) -> Any:
    """-log p of each pixel's cell, [N], by the joint histogram of the pixels that are seeds.

    Parameters
    ----------
    levels : array, [C, N], float64
    seeds : array, [N], bool
    bins : of each channel, each 256 / bins levels wide
    smoothing : seeds that each of the bins^C cells has beforehand
    """
    xp = _array.module(levels)
    cell = _array.astype(xp.floor(levels[0] * (bins / 256)), "int64")
    for row in levels[1:]:
        cell = cell * bins + _array.astype(xp.floor(row * (bins / 256)), "int64")
    cells = bins ** len(levels)
    count = _array.astype(xp.bincount(cell[seeds], minlength=cells), "float64")
    total = count.sum() + smoothing * cells
    return -xp.log((count + smoothing) / total)[cell]


# ---- Gaussian mixture -----------------------------------------------------------------------------------
#
# All is said in the products 1, z_c and z_c z_d (c <= d) of a colour's channels, F rows: the moments of Gaussians are
# products times who belongs to whom, and the costs of pixels are coefficients times products. Two matrix products, on
# any device; the model itself is some dozen numbers, on the host.


def products(levels: Any) -> Any:
    """1, the channels, and their products: [F, N] of levels [C, N]."""
    channels = len(levels)
    out = _array.empty(levels, (1 + channels + channels * (channels + 1) // 2, levels.shape[1]))
    out[0] = 1
    out[1 : 1 + channels] = levels
    row = 1 + channels
    for c in range(channels):
        for d in range(c, channels):
            out[row] = levels[c] * levels[d]
            row += 1
    return out


def moments(rows: Any, component: Any, n: int) -> Array:
    """The sums of products [F, N] over each component's pixels: [n, F], on the host."""
    member = _array.empty(rows, (n, rows.shape[1]))
    for k in range(n):
        member[k] = component == k
    return np.array(_array.to_host(member @ rows.T))


class _Gaussian(NamedTuple):
    """The mean [C] and the covariance [C, C] of some pixels, and how many they are."""

    weight: float
    mean: Array
    covariance: Array


def _gaussian(sums: Array) -> _Gaussian:
    """From sums of products [F]."""
    channels = round(math.sqrt(2 * len(sums) + 0.25) - 1.5)  # F = (C + 1) (C + 2) / 2
    mean = sums[1 : 1 + channels] / sums[0]
    covariance = np.zeros((channels, channels))
    covariance[np.triu_indices(channels)] = sums[1 + channels :] / sums[0]
    covariance = covariance + np.triu(covariance, 1).T - np.outer(mean, mean)
    return _Gaussian(float(sums[0]), mean, covariance)


def fit(sums: Array) -> Array:
    """Coefficients [K', F] of a mixture, from sums of products [K, F]; components without pixels are left out.

    The cost of a colour z in a component with the share pi is -log of pi N(z; mu, S), in the mean over the noise of
    rounding, of variance e: ``-log pi + (log det 2 pi S + e tr S^-1 + (z - mu)^T S^-1 (z - mu)) / 2``. The S that
    makes it least over the component's pixels is their covariance plus e I. No cost is negative: no eigenvalue of S
    is below e = 1/12, where log (2 pi e) + 1 is positive.
    """
    total = sums[:, 0].sum()
    found = []
    for row in sums[sums[:, 0] > 0]:
        weight, mean, covariance = _gaussian(row)
        wide = covariance + NOISE * np.eye(len(mean))
        precision = np.linalg.inv(wide)
        precision = (precision + precision.T) / 2
        constant = np.linalg.slogdet(2 * math.pi * wide)[1] + NOISE * np.trace(precision) + mean @ precision @ mean
        pairs = precision - np.diag(np.diag(precision)) / 2  # unequal channels stand twice in the quadratic form
        first = constant / 2 - math.log(weight / total)
        found.append([first, *-(precision @ mean), *pairs[np.triu_indices(len(mean))]])
    return np.array(found)


def cost(rows: Any, coefficients: Array) -> Any:
    """The least cost of pixels, [N], given by their products [F, N], over the components of a mixture [K, F]."""
    return _array.module(rows).amin(_each(rows, coefficients), 0)


def _each(rows: Any, coefficients: Array) -> Any:
    """The costs of pixels in each component, [K, N]."""
    return _array.from_host(coefficients, rows) @ rows


def split(rows: Any, levels: Any, n: int) -> Any:
    """The components [N], int64, of pixels by binary splits: those with most scatter along a line, at their mean.

    At most ``n``; fewer where the pixels have fewer colours. Orchard and Bouman 1991.
    """
    component = _array.zeros(rows, (rows.shape[1],), "int64")
    for new in range(1, n):
        parts = [_gaussian(sums) for sums in moments(rows, component, new)]
        lines = [np.linalg.eigh(part.covariance) for part in parts]
        scatter = [part.weight * line[0][-1] for part, line in zip(parts, lines, strict=True)]
        k = int(np.argmax(scatter))
        if not lines[k][0][-1] > NOISE:
            break
        axis = lines[k][1][:, -1]
        axis = axis * np.sign(axis[np.argmax(abs(axis))])
        place = sum(float(a) * row for a, row in zip(axis, levels, strict=True))
        component[(component == k) & (place > float(axis @ parts[k].mean))] = new
    return component


def start(rows: Any, levels: Any, n: int) -> Array:
    """The mixture of at most ``n`` components that binary splits of the pixels give."""
    return fit(moments(rows, split(rows, levels, n), n))


def refit(rows: Any, coefficients: Array) -> Array:
    """A mixture after each pixel has gone to the component where it costs least."""
    return fit(moments(rows, _each(rows, coefficients).argmin(0), len(coefficients)))


def mixture_cost(rows: Any, levels: Any, seeds: Any, n: int) -> Any:
    """The cost of each pixel, [N], in a mixture of at most ``n`` Gaussians of the pixels that are seeds.

    Starts with binary splits, and fits anew until the costs of the seeds stay, or for a bounded number of times.
    """
    own = rows[:, seeds]
    model = start(own, levels[:, seeds], n)
    for _ in range(SWEEPS):
        before, model = model, refit(own, model)
        if np.array_equal(before, model):
            break
    return cost(rows, model)
