"""Metrics of segments without classes: which number a segment has does not matter."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import _check
from .._array import array_op
from ._pairs import Array, Pairs, ignored_label, label_maps, meeting

__all__ = ["rand_index", "segmentation_covering", "variation_of_information"]


def _met(op: str, pred: Any, target: Any, ignore_index: int | None) -> Pairs:
    """The pairs of segments that meet."""
    maps = label_maps(op, pred, target, ("pred", "target"))
    return meeting(*maps, ignored_label(op, "ignore_index", ignore_index))


@array_op("pred", "target")
def variation_of_information(pred: Any, target: Any, *, ignore_index: int | None = None) -> float:
    """Information that one segmentation lacks of the other, both ways: H(pred | target) + H(target | pred), in bits.

    Parameters
    ----------
    pred, target : array, one shape, int64/int32/int16/int8/uint8/uint16/bool
        Segment labels, any integers; which is which number does not matter.
    ignore_index : int, optional
        Pixels of this target are left out.

    Returns
    -------
    float, bits
        0 for equal segmentations; NaN of no pixels.

    Raises
    ------
    TypeError, ValueError
        If the maps differ in library, device or shape, or are not of integers.

    References
    ----------
    M. Meilă, "Comparing clusterings", COLT 2003.

    Examples
    --------
    >>> import numpy as np, cv3gpu
    >>> cv3gpu.variation_of_information(np.array([0, 0, 1, 1]), np.array([0, 0, 0, 0]))
    1.0
    """
    op = "variation_of_information"
    pairs = _met(op, pred, target, ignore_index)
    if not len(pairs.number):
        return math.nan
    share = pairs.number / pairs.pixels
    both = np.log2(pairs.of_a[pairs.a] / pairs.number) + np.log2(pairs.of_b[pairs.b] / pairs.number)
    return float(share @ both)


@array_op("pred", "target")
def rand_index(pred: Any, target: Any, *, adjusted: bool = False, ignore_index: int | None = None) -> float:
    """Share of all pairs of pixels about which two segmentations agree: in one segment in both, or in two in both.

    The probabilistic Rand index of a segmentation is the mean over its human segmentations.

    Parameters
    ----------
    pred, target : array, one shape, int64/int32/int16/int8/uint8/uint16/bool
        Segment labels, any integers.
    adjusted : bool
        For chance (Hubert and Arabie): 1 for equal segmentations, 0 expected of random ones.
    ignore_index : int, optional
        Pixels of this target are left out.

    Returns
    -------
    float
        NaN of less than two pixels.

    Raises
    ------
    TypeError, ValueError
        If the maps differ in library, device or shape, or are not of integers.

    References
    ----------
    W. Rand, "Objective criteria for the evaluation of clustering methods", JASA 1971. R. Unnikrishnan, C. Pantofaru,
    M. Hebert, "Toward objective evaluation of image segmentation algorithms", PAMI 2007. L. Hubert, P. Arabie,
    "Comparing partitions", Journal of Classification 1985.

    Examples
    --------
    >>> import numpy as np, cv3gpu
    >>> round(cv3gpu.rand_index(np.array([0, 0, 1, 1]), np.array([5, 5, 7, 8])), 3)
    0.833
    """
    op = "rand_index"
    _check.flag(op, "adjusted", adjusted)
    pairs = _met(op, pred, target, ignore_index)
    n = round(pairs.pixels)
    if n < 2:
        return math.nan

    def within(sizes: Array) -> int:
        """Pairs of pixels that share a segment, exactly."""
        return sum(k * (k - 1) // 2 for k in map(int, sizes))

    together, of_a, of_b, everything = within(pairs.number), within(pairs.of_a), within(pairs.of_b), n * (n - 1) // 2
    if not adjusted:
        return (everything + 2 * together - of_a - of_b) / everything
    half = of_a + of_b
    # (together - chance) / (half / 2 - chance) with chance = of_a of_b / everything, in integers
    numerator, denominator = 2 * (together * everything - of_a * of_b), half * everything - 2 * of_a * of_b
    return numerator / denominator if denominator else 1.0


@array_op("pred", "target")
def segmentation_covering(pred: Any, target: Any, *, ignore_index: int | None = None) -> float:
    """How well ``pred`` covers the segments of ``target``: the mean over pixels of their segment's best overlap.

    The overlap of a segment R of the target is the largest of ``|R & S| / |R or S|`` over segments S of ``pred``.

    Parameters
    ----------
    pred, target : array, one shape, int64/int32/int16/int8/uint8/uint16/bool
        Segment labels, any integers.
    ignore_index : int, optional
        Pixels of this target are left out.

    Returns
    -------
    float
        1 for equal segmentations; NaN of no pixels.

    Raises
    ------
    TypeError, ValueError
        If the maps differ in library, device or shape, or are not of integers.

    References
    ----------
    P. Arbelaez, M. Maire, C. Fowlkes, J. Malik, "Contour detection and hierarchical image segmentation", PAMI 2011,
    equation 8.

    Examples
    --------
    >>> import numpy as np, cv3gpu
    >>> cv3gpu.segmentation_covering(np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1]))
    0.5833333333333333
    """
    op = "segmentation_covering"
    pairs = _met(op, pred, target, ignore_index)
    if not len(pairs.number):
        return math.nan
    overlap = pairs.number / (pairs.of_a[pairs.a] + pairs.of_b[pairs.b] - pairs.number)
    best = np.zeros(len(pairs.of_b))
    np.maximum.at(best, pairs.b, overlap)
    return float(best @ pairs.of_b / pairs.pixels)
