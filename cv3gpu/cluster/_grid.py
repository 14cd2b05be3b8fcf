"""What the CPU and the GPU share of mean shift: the grid over the points."""

from __future__ import annotations

import itertools
import math
from typing import Any, NamedTuple

import numpy as np

from .. import _array

__all__ = ["CUTOFF", "Grid", "grid"]

Array = np.ndarray[Any, Any]

CUTOFF = 18.0  # square distance, in bandwidths, from where the Gaussian kernel is 0
_AXES = 3
_CELLS = 2.0**20  # along an axis, at most
_SLACK = 1 + 2.0**-20  # cells are wider than the kernel by more than rounding


class Grid(NamedTuple):
    """Cells over some dimensions, at least as wide as the kernel."""

    axes: Array  # [A], int64: the dimensions
    low: Array  # [A], float64: where cells begin
    width: Array  # [A], float64
    steps: Array  # [A], int64: from a cell's number to that of the next one
    around: Array  # [3^(A - 1)], int64: from a cell's number to those of the middle ones of the rows around it

    def numbers(self, x: Any) -> Any:
        """The cells of points [N, D] in float64, of any library."""
        floor = _array.module(x).floor
        total: Any = 0
        for axis, low, width, step in zip(self.axes, self.low, self.width, self.steps, strict=True):
            total = total + _array.astype(floor((x[:, int(axis)] - float(low)) / float(width)), "int64") * int(step)
        return total


def grid(low: Array, high: Array, reach: float) -> Grid:
    """Cells of the dimensions in which points are spread widest; ``low`` and ``high`` [D] are their bounds."""
    extent = high - low
    axes = [int(a) for a in np.argsort(-extent, kind="stable")[:_AXES] if extent[a] > reach] or [0]
    axes.reverse()  # most cells along the last
    width = np.array([max(reach * _SLACK, extent[a] / _CELLS) for a in axes])
    cells = [int(extent[a] / size) + 4 for a, size in zip(axes, width, strict=True)]  # with borders
    steps = [math.prod(cells[k + 1 :]) for k in range(len(axes))]
    rows = itertools.product((-1, 0, 1), repeat=len(axes) - 1)
    around = sorted(sum(s * r for s, r in zip(steps, row, strict=False)) for row in rows)
    return Grid(np.array(axes), low[axes].astype(np.float64), width, np.array(steps), np.array(around))
