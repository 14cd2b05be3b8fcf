"""The CPU's inner loops of segmentation metrics, for `_njit.compiled`."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._njit import inlined

Array = np.ndarray[Any, Any]


def _pairs(pred: Array, target: Array, pred_first: int, target_first: int, ignore: int, has_ignore: bool,
           table: Array) -> int:  # fmt: skip
    """Counts pairs of labels into table [rows, cols]; the first pixel whose label is outside, or -1."""
    rows, cols = table.shape
    last_p, last_t, run = 0, 0, 0
    for i in range(pred.shape[0]):
        p, t = int(pred[i]), int(target[i])
        if run and p == last_p and t == last_t:
            run += 1  # neighbours mostly agree, and a sum in memory would wait for the one before
            continue
        if has_ignore and t == ignore:
            continue
        if run:
            table[last_t - target_first, last_p - pred_first] += run
            run = 0
        if t < target_first or t - target_first >= rows or p < pred_first or p - pred_first >= cols:
            return i
        last_p, last_t, run = p, t, 1
    if run:
        table[last_t - target_first, last_p - pred_first] += run
    return -1


def _labels(labels: Array, first: int, there: Array) -> None:
    """Marks in ``there`` the labels that a flat map holds."""
    last = first - 1
    for i in range(labels.shape[0]):
        label = int(labels[i])
        if label != last:
            there[label - first] = 1
            last = label


def _numbered_pairs(a: Array, b: Array, a_first: int, b_first: int, a_number: Array, b_number: Array,
                    table: Array) -> None:  # fmt: skip
    """Counts pairs of labels into table [a, b] by the number that each has."""
    last_a, last_b, run = a_first, b_first, 0
    for i in range(a.shape[0]):
        label_a, label_b = int(a[i]), int(b[i])
        if label_a == last_a and label_b == last_b:
            run += 1
            continue
        table[a_number[last_a - a_first], b_number[last_b - b_first]] += run
        last_a, last_b, run = label_a, label_b, 1
    table[a_number[last_a - a_first], b_number[last_b - b_first]] += run


@inlined
def _meets(distance: Array, x: int, rows: int, square: float) -> bool:
    """Whether a border passes pixel x of a row, whose distances along columns these are, near enough."""
    for k in range(rows + 1):
        left = square - k * k
        if x >= k and distance[x - k] * distance[x - k] <= left:
            return True
        if x + k < distance.shape[0] and distance[x + k] * distance[x + k] <= left:
            return True
    return False


def _near(own: Array, other: Array, reach: float, distance: Array) -> int:
    """How many pixels of ``own`` [H, W] have one of ``other`` within reach; ``distance`` [H, W] is work space."""
    height, width = own.shape
    rows, square = int(reach), reach * reach
    far = rows + 1
    for x in range(width):
        distance[0, x] = 0 if other[0, x] else far
    for y in range(1, height):
        above, here = distance[y - 1], distance[y]
        for x in range(width):
            here[x] = 0 if other[y, x] else min(above[x] + 1, far)
    for y in range(height - 2, -1, -1):
        below, here = distance[y + 1], distance[y]
        for x in range(width):
            here[x] = min(here[x], below[x] + 1)
    met = 0
    for y in range(height):
        row = distance[y]
        for x in range(width):
            if own[y, x] and _meets(row, x, rows, square):
                met += 1
    return met


PAIRS = (_pairs,)
LABELS = (_labels,)
NUMBERED_PAIRS = (_numbered_pairs,)
NEAR = (_meets, _near)
