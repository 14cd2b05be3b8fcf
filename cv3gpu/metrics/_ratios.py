"""Quotients of counts, NaN where there is nothing to count."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

__all__ = ["iou_of", "mean", "ratio"]

Array = np.ndarray[Any, Any]


def ratio(part: Array, whole: Array) -> Array:
    """The quotient, NaN where ``whole`` is 0."""
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)


def mean(values: Array) -> float:
    """The mean of what is not NaN; NaN where all is."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else math.nan


def iou_of(matrix: Array) -> Array:
    """The IoU of each class of a confusion matrix, [classes]."""
    inside = np.diagonal(matrix)
    return ratio(inside, matrix.sum(0) + matrix.sum(1) - inside)
