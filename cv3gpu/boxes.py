"""Pairwise overlap of boxes. The smallest operator: start here to see how one is written, and copy it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from . import _array, _check, _kernel, _njit
from ._array import array_op

__all__ = ["box_iou"]

FORMATS = ("xyxy", "xywh")
KINDS = ("iou", "giou", "ioa")


@array_op("a", "b")
def box_iou(a: Any, b: Any, *, format: str = "xyxy", kind: str = "iou") -> Any:
    """Overlap of every box of ``a`` with every box of ``b``.

    With the intersection I, the union U and the smallest enclosing box C (as areas): ``"iou"`` is I / U,
    ``"giou"`` is I / U - (C - U) / C, ``"ioa"`` is I / area(a).

    Parameters
    ----------
    a : array, [..., N, 4], float32/float64
        Boxes, in any unit; coordinates are not rounded and have no "+ 1".
    b : array, [..., M, 4], dtype of ``a``
        Boxes; the same ``...`` as ``a``.
    format : {"xyxy", "xywh"}
        Two opposite corners, or the upper left corner, width and height.
    kind : {"iou", "giou", "ioa"}
        What to compute.

    Returns
    -------
    array, [..., N, M], dtype of ``a``
        In [0, 1]; ``"giou"`` in [-1, 1].

    Raises
    ------
    TypeError
        If the arrays differ in library, device or dtype, or are not of floats.
    ValueError
        If shapes do not fit, or ``format`` or ``kind`` is unknown.

    Notes ----- A width or height of zero or less makes the area zero, and the overlap 0. A quotient by
    zero is 0, so that ``"giou"`` of an empty box is -(C - U) / C and of two empty boxes in one place 0:
    never NaN for finite boxes. Each pair is computed on its own: deterministic. No gradient.

    References
    ----------
    H. Rezatofighi et al., "Generalized Intersection over Union", CVPR 2019, equation 5 (``"giou"``).

    Examples
    --------
    >>> import numpy as np
    >>> from cv3gpu import box_iou
    >>> a = np.array([[0.0, 0.0, 2.0, 2.0]])
    >>> b = np.array([[0.0, 0.0, 2.0, 2.0], [1.0, 0.0, 3.0, 2.0], [5.0, 5.0, 6.0, 6.0]])
    >>> box_iou(a, b).round(3)
    array([[1.   , 0.333, 0.   ]])
    """
    # 1. All checks, before any work.
    op = "box_iou"
    format = _check.choice(op, "format", format, FORMATS)
    kind = _check.choice(op, "kind", kind, KINDS)
    _check.dtype(op, "a", a, ("float32", "float64"))
    _check.same_dtype(op, "b", b, "a", a)
    if a.ndim < 2 or a.shape[-1] != 4:
        _check.fail(op, "a", "have shape [..., N, 4]", tuple(a.shape))
    _check.shape(op, "b", b, (*a.shape[:-2], "M", 4), "the leading dimensions are those of a")

    # 2. One batch dimension inside, whatever the caller's are.
    lead, n, m = tuple(a.shape[:-2]), int(a.shape[-2]), int(b.shape[-2])
    batch = math.prod(lead)
    boxes_a, boxes_b = a.reshape((batch, n, 4)), b.reshape((batch, m, 4))

    # 3. The GPU path or the CPU path: the array decides.
    if _array.on_gpu(a):
        out = _iou_gpu(boxes_a, boxes_b, format, kind)
    else:
        values = _iou_cpu(_array.as_numpy(boxes_a), _array.as_numpy(boxes_b), format, kind)
        out = _array.from_numpy(values, a)
    return out.reshape((*lead, n, m))


def _iou_gpu(a: Any, b: Any, format: str, kind: str) -> Any:
    # Kernels are imported here, not above: importing cv3gpu must not need numba.
    from .kernels import boxes as kernels

    (batch, n, _), m = a.shape, b.shape[1]
    out = _array.empty(a, (batch, n, m))
    launch = _kernel.numba_kernel(kernels.make_box_iou(_array.dtype_name(a), format, kind))
    grid = min(kernels.tiles(batch, n, m), _kernel.MAX_GRID_X)
    launch((grid,), (kernels.COLUMNS, kernels.LANES), _array.contiguous(a), _array.contiguous(b), out)
    return out


def _iou_cpu(a: np.ndarray, b: np.ndarray, format: str, kind: str) -> np.ndarray:
    out = np.empty((a.shape[0], a.shape[1], b.shape[1]), a.dtype)
    if out.size:
        overlaps = _njit.compiled(_area, _quotient, _overlaps)
        overlaps(
            _corners(a, format), _corners(b, format), kind == "ioa", kind == "giou", a.dtype.type(0), out
        )
    return out


def _corners(boxes: np.ndarray, format: str) -> np.ndarray:
    """[B, 4, N], x1, y1, x2, y2: contiguous over boxes, so that the loop runs in vector registers."""
    out = np.array(boxes.transpose(0, 2, 1), order="C")
    if format == "xywh":
        out[:, 2:] += out[:, :2]
    return out


# What follows is compiled by numba: plain loops, no objects. `zero` has the boxes' dtype; a literal 0.0
# would turn the arithmetic into float64.


def _area(x1: Any, y1: Any, x2: Any, y2: Any, zero: Any) -> Any:
    return max(x2 - x1, zero) * max(y2 - y1, zero)


def _quotient(part: Any, whole: Any, zero: Any) -> Any:
    ratio = part / whole  # before the choice, not inside: that keeps branches out of the loop
    return ratio if whole > zero else zero


def _overlaps(a: np.ndarray, b: np.ndarray, ioa: bool, giou: bool, zero: Any, out: np.ndarray) -> None:
    for problem in range(a.shape[0]):
        bx1, by1, bx2, by2 = b[problem, 0], b[problem, 1], b[problem, 2], b[problem, 3]
        for i in range(a.shape[2]):
            ax1, ay1, ax2, ay2 = a[problem, 0, i], a[problem, 1, i], a[problem, 2, i], a[problem, 3, i]
            area = _area(ax1, ay1, ax2, ay2, zero)
            row = out[problem, i]
            for j in range(row.size):
                inter = _area(max(ax1, bx1[j]), max(ay1, by1[j]), min(ax2, bx2[j]), min(ay2, by2[j]), zero)
                union = area + _area(bx1[j], by1[j], bx2[j], by2[j], zero) - inter
                row[j] = _quotient(inter, area if ioa else union, zero)
                if giou:
                    hull = _area(min(ax1, bx1[j]), min(ay1, by1[j]), max(ax2, bx2[j]), max(ay2, by2[j]), zero)
                    row[j] -= _quotient(hull - union, hull, zero)
