"""What the CPU and the GPU share of the filter over all pairs: tiles of points, and what a tile far away can weigh."""

from __future__ import annotations

import numpy as np

__all__ = ["BINS", "LINES", "PER_UNIT", "TILE", "WEIGHT"]

TILE = 64  # points of a tile; the kernels' figure as well
LINES = TILE + 2  # of a tile's features in the kernels: with its middle, and what float32 lacks of that
BINS = 512  # of half the squared distance of two boxes, PER_UNIT of them for each unit
PER_UNIT = 8

# The most that a tile in each bin can weigh, rounded up, and a little more for the rounding of a sum of them.
WEIGHT = TILE * np.exp(-np.arange(BINS) / PER_UNIT) * (1 + 1e-12)
