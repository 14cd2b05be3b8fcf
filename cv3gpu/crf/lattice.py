"""What the lattices of both halves, CPU and GPU, are made by."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

__all__ = ["constants", "padding", "phase"]


def constants(d: int, blurs: int, dilate: bool) -> tuple[float, float]:
    """How features are stretched, and alpha, what a gathered sum is multiplied by.

    The stretch is the one by which splat, blurs and gather together have the variance 1. A plain lattice has
    pydensecrf's alpha; else it is what makes the sum over a dense cloud of points the integral of the Gaussian.
    """
    stretch = (d + 1) * math.sqrt(1 / 6 + blurs / 2)
    if blurs == 1 and not dilate:
        return stretch, 1 / (1 + 2.0**-d)
    cell = (d + 1) ** (d - 0.5) / stretch**d
    return stretch, (2 * math.pi) ** (d / 2) / (cell * 2.0 ** ((d + 1) * blurs))


def phase(origin: tuple[int, int], theta: tuple[float, float], blurs: int) -> tuple[float, float]:
    """Where a pixel (x, y) of a larger image lies within a period of the lattice around that image, pixels.

    The lattice repeats itself along the first two features, which are x and y over their widths, whatever d is.
    """
    unit = math.sqrt(1 / 6 + blurs / 2)
    return origin[0] % (math.sqrt(2) / unit * theta[0]), origin[1] % (math.sqrt(6) / unit * theta[1])


def padding(images: int, d: int, points: int, blurs: int) -> np.ndarray[Any, Any]:
    """The keys [n, d + 1] of vertices that pydensecrf's lattice has besides those around its points.

    It takes four points at a time, and fills the last four up with the origin.
    """
    if points % 4 == 0 or blurs != 1:
        return np.empty((0, d + 1), np.int32)
    r, j = np.mgrid[: d + 1, :d]
    corners = np.where(j <= d - r, r, r - (d + 1))
    image = np.repeat(np.arange(images), d + 1)[:, None]
    return np.concatenate([np.tile(corners, (images, 1)), image], 1).astype(np.int32)
