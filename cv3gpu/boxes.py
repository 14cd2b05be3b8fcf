"""Pairwise overlap of boxes. The smallest operator: start here to see how one is written, and copy it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from . import _array, _check, _kernel, _njit
from ._array import array_op

__all__ = ["box_iou", "box_iou_vjp"]

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

    Notes
    -----
    A width or height of zero or less makes the area zero, and the overlap 0. A quotient by zero is 0, so
    that ``"giou"`` of an empty box is -(C - U) / C and of two empty boxes in one place 0: never NaN for
    finite boxes. Each pair is computed on its own: deterministic. Gradient: :func:`box_iou_vjp`, of the
    first order.

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
    format, kind = check_boxes("box_iou", a, b, format, kind)

    # 2. One batch dimension inside, whatever the caller's are.
    boxes_a, boxes_b = _batched(a), _batched(b)

    # 3. The GPU path or the CPU path: the array decides.
    if _array.on_gpu(a):
        out = _iou_gpu(boxes_a, boxes_b, format, kind)
    else:
        values = _iou_cpu(_array.as_numpy(boxes_a), _array.as_numpy(boxes_b), format, kind)
        out = _array.from_numpy(values, a)
    return out.reshape((*a.shape[:-1], b.shape[-2]))


@array_op("grad", "a", "b")
def box_iou_vjp(grad: Any, a: Any, b: Any, *, format: str = "xyxy", kind: str = "iou") -> tuple[Any, Any]:
    """Gradient of :func:`box_iou` by its boxes: Σ_j grad[i, j] ∂iou[i, j] / ∂a[i], and the same for b.

    Parameters
    ----------
    grad : array, [..., N, M], float32/float64
        Gradient by the overlaps.
    a : array, [..., N, 4], dtype of ``grad``
        Boxes, as :func:`box_iou` took them.
    b : array, [..., M, 4], dtype of ``grad``
        Boxes; the same ``...`` as ``a``.
    format : {"xyxy", "xywh"}
        As :func:`box_iou` had it; the gradients are by these coordinates.
    kind : {"iou", "giou", "ioa"}
        As :func:`box_iou` had it.

    Returns
    -------
    grad_a : array, [..., N, 4], dtype of ``grad``
        Gradient by ``a``.
    grad_b : array, [..., M, 4], dtype of ``grad``
        Gradient by ``b``.

    Raises
    ------
    TypeError
        If the arrays differ in library, device or dtype, or are not of floats.
    ValueError
        If shapes do not fit, or ``format`` or ``kind`` is unknown.

    Notes
    -----
    Where the overlap has a kink, this is what torch's autograd makes of the formula written with
    ``maximum``, ``minimum`` and ``relu``: an edge that both boxes share gets half of the gradient in each;
    an area that is zero (of an empty box, or of an intersection of boxes that only touch) passes none on,
    nor does a quotient by zero. Disjoint boxes have a gradient for ``"giou"`` alone. The result is finite
    for finite boxes, if no quotient of ``grad`` and an area overflows. Each box gathers over the other set
    in a fixed order, without atomics: the same bits on every run. Cost: on a GPU ``grad`` is read twice.
    Where N or M is 0, the gradients are zero. A second derivative is not implemented.

    Examples
    --------
    >>> import numpy as np
    >>> from cv3gpu import box_iou_vjp
    >>> a, b = np.array([[0.0, 0.0, 2.0, 2.0]]), np.array([[1.0, 0.0, 3.0, 2.0]])
    >>> grad_a, grad_b = box_iou_vjp(np.ones((1, 1)), a, b)  # a shares its upper and lower edges with b
    >>> grad_a.round(3)
    array([[0.111, 0.   , 0.333, 0.   ]])
    """
    op = "box_iou_vjp"
    format, kind = check_boxes(op, a, b, format, kind)
    _check.same_dtype(op, "grad", grad, "a", a)
    _check.shape(op, "grad", grad, (*a.shape[:-1], b.shape[-2]), "one number for each pair of a and b")
    batch = math.prod(a.shape[:-2])
    boxes_a, boxes_b = _batched(a), _batched(b)
    grads = grad.reshape((batch, a.shape[-2], b.shape[-2]))
    if _array.on_gpu(a):
        by_a, by_b = _vjp_gpu(grads, boxes_a, boxes_b, format, kind)
    else:
        views = _array.as_numpy(grads), _array.as_numpy(boxes_a), _array.as_numpy(boxes_b)
        by_a, by_b = (_array.from_numpy(values, a) for values in _vjp_cpu(*views, format, kind))
    return by_a.reshape(tuple(a.shape)), by_b.reshape(tuple(b.shape))


def check_boxes(op: str, a: Any, b: Any, format: Any, kind: Any) -> tuple[str, str]:
    """Checks what :func:`box_iou` takes; sizes may be symbolic integers of torch."""
    format = _check.choice(op, "format", format, FORMATS)
    kind = _check.choice(op, "kind", kind, KINDS)
    _check.dtype(op, "a", a, ("float32", "float64"))
    _check.same_dtype(op, "b", b, "a", a)
    if a.ndim < 2 or a.shape[-1] != 4:
        _check.fail(op, "a", "have shape [..., N, 4]", tuple(a.shape))
    _check.shape(op, "b", b, (*a.shape[:-2], "M", 4), "the leading dimensions are those of a")
    return format, kind


def _batched(boxes: Any) -> Any:
    """[B, N, 4]: one batch dimension for all that the caller has."""
    return boxes.reshape((math.prod(boxes.shape[:-2]), *boxes.shape[-2:]))


# ---- GPU ------------------------------------------------------------------------------------------------


def _iou_gpu(a: Any, b: Any, format: str, kind: str) -> Any:
    # Kernels are imported here, not above: importing cv3gpu must not need numba.
    from .kernels import boxes as kernels

    (batch, n, _), m = a.shape, b.shape[1]
    out = _array.empty(a, (batch, n, m))
    launch = _kernel.numba_kernel(kernels.make_box_iou(_array.dtype_name(a), format, kind))
    grid = min(kernels.tiles(batch, n, m), _kernel.MAX_GRID_X)
    launch((grid,), (kernels.COLUMNS, kernels.LANES), _array.contiguous(a), _array.contiguous(b), out)
    return out


def _vjp_gpu(grad: Any, a: Any, b: Any, format: str, kind: str) -> tuple[Any, Any]:
    from .kernels import boxes as kernels

    grad, a, b = (_array.contiguous(x) for x in (grad, a, b))
    batch, n, m = (int(size) for size in grad.shape)
    results = []
    for side, boxes in (("a", a), ("b", b)):
        out = _array.empty(a, boxes.shape)
        if 0 in (batch, n, m):
            out[...] = 0
        else:
            launch = _kernel.numba_kernel(kernels.make_box_iou_vjp(_array.dtype_name(a), format, kind, side))
            grid = min(kernels.own_tiles(side, batch, n, m), _kernel.MAX_GRID_X)
            launch((grid,), (kernels.COLUMNS, kernels.LANES), grad, a, b, out)
        results.append(out)
    return results[0], results[1]


# ---- CPU ------------------------------------------------------------------------------------------------


def _iou_cpu(a: np.ndarray, b: np.ndarray, format: str, kind: str) -> np.ndarray:
    out = np.empty((a.shape[0], a.shape[1], b.shape[1]), a.dtype)
    if out.size:
        overlaps = _njit.compiled(_area, _quotient, _overlaps)
        overlaps(_corners(a, format), _corners(b, format), kind == "ioa", kind == "giou", a.dtype.type(0), out)
    return out


def _vjp_cpu(grad: np.ndarray, a: np.ndarray, b: np.ndarray, format: str, kind: str) -> tuple[np.ndarray, np.ndarray]:
    inward_a, inward_b = _inward(a, format), _inward(b, format)
    by_a, by_b = (np.zeros((len(x), 5, x.shape[1]), x.dtype) for x in (a, b))
    if grad.size:
        pull = _njit.compiled(_area, _quotient, _passed, _by_sides, _add, _sum, _share, _by_edge, _pull)
        one = grad.dtype.type(1)
        rows = np.empty((6, b.shape[1]), b.dtype)
        grad = np.ascontiguousarray(grad)  # what the loops are compiled for
        pull(grad, inward_a, inward_b, kind == "ioa", kind == "giou", one, rows, by_a, by_b)
    return _by_coordinates(by_a, inward_a, format), _by_coordinates(by_b, inward_b, format)


def _inward(boxes: np.ndarray, format: str) -> np.ndarray:
    """[B, 4, N], x1, y1, -x2, -y2: how far in each edge lies. The intersection's is the greater of two."""
    out = _corners(boxes, format)
    np.negative(out[:, 2:], out=out[:, 2:])
    return out


def _by_coordinates(by: np.ndarray, inward: np.ndarray, format: str) -> np.ndarray:
    """Gradient by the coordinates, [B, N, 4], of that by edges (outwards) and area, [B, 5, N]."""
    side = np.maximum(-inward[:, 2:] - inward[:, :2], 0)
    by_side = np.where(side > 0, by[:, 4:] * side[:, ::-1], 0)
    low, high = -by[:, :2] - by_side, by[:, 2:4] + by_side
    if format == "xywh":
        low += high
    return np.concatenate([low, high], axis=1).transpose(0, 2, 1).copy()


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


# The gradient, one box of `a` at a time. Short loops with few results each: those run in vector registers.


def _passed(by_side: Any, side: Any, zero: Any) -> Any:
    return by_side if side > zero else zero


def _by_sides(
    box: np.ndarray, b: np.ndarray, grad: np.ndarray, ioa: bool, giou: bool, zero: Any, rows: np.ndarray
) -> None:
    """Gradients by width and height of the intersection and of the hull, and by the union (ioa: by area)."""
    x1, y1, x2, y2 = box[0], box[1], -box[2], -box[3]
    area = _area(x1, y1, x2, y2, zero)
    for j in range(grad.size):
        w = max(min(x2, -b[2, j]) - max(x1, b[0, j]), zero)
        h = max(min(y2, -b[3, j]) - max(y1, b[1, j]), zero)
        union = area + _area(b[0, j], b[1, j], -b[2, j], -b[3, j], zero) - w * h
        whole = area if ioa else union
        ratio = _quotient(grad[j], whole, zero)
        by_whole = -ratio * _quotient(w * h, whole, zero)
        by_inter = ratio if ioa else ratio - by_whole
        if giou:
            hull_w = max(max(x2, -b[2, j]) - min(x1, b[0, j]), zero)
            hull_h = max(max(y2, -b[3, j]) - min(y1, b[1, j]), zero)
            part = _quotient(grad[j], hull_w * hull_h, zero)
            by_whole += part
            by_inter -= part
            by_hull = -part * _quotient(union, hull_w * hull_h, zero)
            rows[2, j] = _passed(by_hull * hull_h, hull_w, zero)
            rows[3, j] = _passed(by_hull * hull_w, hull_h, zero)
        rows[0, j] = _passed(by_inter * h, w, zero)
        rows[1, j] = _passed(by_inter * w, h, zero)
        rows[4, j] = by_whole


def _share(mine: Any, other: Any, half: Any, zero: Any, one: Any) -> Any:
    return one if mine > other else (half if mine == other else zero)


def _by_edge(
    mine: Any, others: np.ndarray, inter: np.ndarray, hull: np.ndarray, giou: bool, half: Any,
    by_mine: np.ndarray, by_others: np.ndarray,
) -> None:  # fmt: skip
    """Shares the gradients by a side out to the boxes whose edge it is: mine, and others[j]."""
    zero, one = half - half, half + half
    for j in range(others.size):
        share = _share(mine, others[j], half, zero, one)
        if giou:
            by_mine[j] = share * inter[j] + (one - share) * hull[j]
            by_others[j] += (one - share) * inter[j] + share * hull[j]
        else:
            by_mine[j] = share * inter[j]
            by_others[j] += (one - share) * inter[j]


def _add(x: np.ndarray, y: np.ndarray) -> None:
    for j in range(x.size):
        x[j] += y[j]


def _sum(row: np.ndarray) -> Any:
    """The sum in a fixed order: halves are added to each other, the last few by turns. Overwrites the row."""
    n = row.size
    while n > 16:
        half = (n + 1) // 2
        _add(row[: n - half], row[half:n])
        n = half
    total = row[0]
    for j in range(1, n):
        total += row[j]
    return total


def _pull(
    grad: np.ndarray, a: np.ndarray, b: np.ndarray, ioa: bool, giou: bool, one: Any,
    rows: np.ndarray, by_a: np.ndarray, by_b: np.ndarray,
) -> None:  # fmt: skip
    zero, half = one - one, one / (one + one)
    for problem in range(a.shape[0]):
        for i in range(a.shape[2]):
            _by_sides(a[problem, :, i], b[problem], grad[problem, i], ioa, giou, zero, rows)
            for edge in range(4):
                inter, hull = rows[edge % 2], rows[2 + edge % 2]
                mine, others = a[problem, edge, i], b[problem, edge]
                _by_edge(mine, others, inter, hull, giou, half, rows[5], by_b[problem, edge])
                by_a[problem, edge, i] = _sum(rows[5])
            if not ioa:
                _add(by_b[problem, 4], rows[4])
            by_a[problem, 4, i] = _sum(rows[4])
