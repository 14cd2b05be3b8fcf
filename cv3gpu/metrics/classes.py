"""Metrics of classes: the confusion matrix, and what follows from it."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import _array, _check
from .._array import array_op, dtype_name, from_host
from ._pairs import CLASSES, Array, Window, count_pairs, ignored_label, label_maps
from ._ratios import iou_of, mean, ratio

__all__ = ["class_accuracy", "class_iou", "confusion_matrix", "mean_iou", "pixel_accuracy"]


@array_op("pred", "target")
def confusion_matrix(pred: Any, target: Any, n_classes: int, ignore_index: int | None = None) -> Any:
    """How often a pixel of class i (rows, the target) was given class j (columns).

    Parameters
    ----------
    pred : array, any shape, int64/int32/int16/int8/uint8/uint16/bool
        Classes 0 to n_classes - 1.
    target : array, shape of ``pred``, of these dtypes
        The true classes, or ``ignore_index``.
    n_classes : int, 1 to 4096
    ignore_index : int, optional
        Pixels of this target are left out, whatever ``pred`` says there.

    Returns
    -------
    array, [n_classes, n_classes], int64
        Matrices of several images add up.

    Raises
    ------
    TypeError
        If the arrays differ in library or device, or are not of these dtypes.
    ValueError
        If shapes differ, or a label is neither a class nor ``ignore_index``.

    Notes
    -----
    Cost: both maps are read once. Integers are counted: the same on every run. On a GPU the check of the labels waits
    for the count. No gradient. Empty maps give zeros.

    Examples
    --------
    >>> import numpy as np, cv3gpu
    >>> cv3gpu.confusion_matrix(np.array([0, 1, 1, 1]), np.array([0, 0, 1, 255]), 2, ignore_index=255)
    array([[1, 1],
           [0, 1]])
    """
    op = "confusion_matrix"
    p, t = label_maps(op, pred, target, ("pred", "target"))
    n = _check.integer(op, "n_classes", n_classes, 1, CLASSES)
    ignore = ignored_label(op, "ignore_index", ignore_index)
    table, bad = count_pairs(p, t, Window(0, 0, n, n, ignore))
    if bad >= 0:
        advice = "say ignore_index for pixels that are not to count"
        for name, x in (("target", t), ("pred", p)):
            if not 0 <= (value := int(x[bad])) < n:
                at = tuple(int(i) for i in np.unravel_index(bad, tuple(pred.shape)))
                _check.fail(op, name, f"hold classes from 0 to {n - 1}", f"{value} at {at}", advice)
    return table


def _matrix(op: str, confusion: Any) -> Array:
    """The matrix on the host, float64, checked."""
    values = _array.host_values(op, "confusion", confusion)
    if values.dtype.kind not in "fiu":
        _check.fail(op, "confusion", "be of integers or floats", dtype_name(confusion), error=TypeError)
    _check.ndim(op, "confusion", confusion, 2, "[n_classes, n_classes]")
    if confusion.shape[0] != confusion.shape[1] or confusion.shape[0] < 1:
        _check.fail(op, "confusion", "have shape [n_classes, n_classes]", tuple(confusion.shape))
    matrix: Array = values.astype(np.float64)
    if not (np.isfinite(matrix).all() and (matrix >= 0).all()):
        _check.fail(op, "confusion", "hold counts", matrix[~(matrix >= 0) | ~np.isfinite(matrix)][0])
    return matrix


def class_iou(confusion: Any) -> Any:
    """Intersection over union of each class: TP / (TP + FP + FN).

    Parameters
    ----------
    confusion : array, [n_classes, n_classes]
        Rows: target.

    Returns
    -------
    array, [n_classes], float64
        NaN for a class that neither map holds.

    Raises
    ------
    TypeError, ValueError
        If ``confusion`` is not a square matrix of counts.

    Examples
    --------
    >>> import numpy as np
    >>> from cv3gpu.metrics import class_iou
    >>> class_iou(np.array([[3, 1], [0, 4]]))
    array([0.75, 0.8 ])
    """
    return from_host(iou_of(_matrix("class_iou", confusion)), confusion)


def mean_iou(confusion: Any) -> float:
    """Mean over classes of the intersection over union, :func:`class_iou`.

    Classes that neither prediction nor target holds are left out of the mean; NaN where that is all of them.

    Parameters
    ----------
    confusion : array, [n_classes, n_classes]
        Rows: target.

    Returns
    -------
    float

    Raises
    ------
    TypeError, ValueError
        If ``confusion`` is not a square matrix of counts.

    References
    ----------
    M. Everingham et al., "The PASCAL Visual Object Classes Challenge", IJCV 2015, section 4.

    Examples
    --------
    >>> import numpy as np, cv3gpu
    >>> round(cv3gpu.mean_iou(np.array([[3, 1, 0], [0, 4, 0], [0, 0, 0]])), 3)
    0.775
    """
    return mean(iou_of(_matrix("mean_iou", confusion)))


def pixel_accuracy(confusion: Any) -> float:
    """Share of the pixels whose class is right; NaN of no pixels.

    Parameters
    ----------
    confusion : array, [n_classes, n_classes]
        Rows: target.

    Returns
    -------
    float

    Raises
    ------
    TypeError, ValueError
        If ``confusion`` is not a square matrix of counts.

    Examples
    --------
    >>> import numpy as np, cv3gpu
    >>> cv3gpu.pixel_accuracy(np.array([[3, 1], [0, 4]]))
    0.875
    """
    matrix = _matrix("pixel_accuracy", confusion)
    return float(ratio(np.trace(matrix)[None], matrix.sum()[None])[0])


def class_accuracy(confusion: Any) -> Any:
    """Share of each class's pixels that were given it, TP / (TP + FN); its mean is the class-average accuracy.

    Parameters
    ----------
    confusion : array, [n_classes, n_classes]
        Rows: target.

    Returns
    -------
    array, [n_classes], float64
        NaN for a class that the target does not hold.

    Raises
    ------
    TypeError, ValueError
        If ``confusion`` is not a square matrix of counts.

    Examples
    --------
    >>> import numpy as np
    >>> from cv3gpu.metrics import class_accuracy
    >>> class_accuracy(np.array([[3, 1], [0, 4]]))
    array([0.75, 1.  ])
    """
    matrix = _matrix("class_accuracy", confusion)
    return from_host(ratio(np.diagonal(matrix), matrix.sum(1)), confusion)
