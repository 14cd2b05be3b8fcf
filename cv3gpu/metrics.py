"""Metrics of segmentations: classes, segments without classes, borders, and both at once (panoptic).

All start from how often two label maps hold which pair of labels at a pixel. That table is counted on the device of the
maps; what follows from it is a few numbers, and is computed on the CPU in float64.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from . import _array, _check, _njit
from ._array import array_op, contiguous, dtype_name, empty, from_host, module, on_gpu, pointer, to_host
from ._kernel import MAX_GRID_YZ, blocks, kernel
from ._metrics_loops import LABELS, NEAR, NUMBERED_PAIRS, PAIRS
from ._threads import cores, each

__all__ = [
    "PanopticQuality",
    "boundary_f1",
    "class_accuracy",
    "class_iou",
    "confusion_matrix",
    "mean_iou",
    "panoptic_quality",
    "pixel_accuracy",
    "rand_index",
    "segmentation_covering",
    "variation_of_information",
]

Array = np.ndarray[Any, Any]

TYPES = ("int64", "int32", "int16", "int8", "uint8", "uint16", "bool")
DIRECT = ("int64", "int32", "uint8")  # what the loops and kernels read as it is
BYTES = {"uint8": 1, "int32": 4, "int64": 8}
CLASSES = 4096  # of a confusion matrix
TABLE = 1 << 22  # entries of a table of all pairs; rarer pairs than that are sorted
SHARED = 8192  # entries of a table that lies in shared memory
PIECE = 1 << 16  # pixels that are worth a thread
SHARE = 0.0075  # of an image's diagonal: how far apart borders may lie that are the same


# ---- pairs of labels ------------------------------------------------------------------------------------


def _maps(op: str, a: Any, b: Any, names: tuple[str, str]) -> tuple[Any, Any]:
    """Two label maps of one shape, flat and dense, of dtypes that the loops read."""
    flat = []
    for name, x in zip(names, (a, b), strict=True):
        _check.dtype(op, name, x, TYPES)
        flat.append(contiguous(x if dtype_name(x) in DIRECT else _array.astype(x, "int32")).reshape(-1))
    if tuple(a.shape) != tuple(b.shape):
        _check.fail(op, names[1], f"have the shape of {names[0]} {tuple(a.shape)}", tuple(b.shape))
    return flat[0], flat[1]


def _ignored(op: str, argument: str, value: Any) -> int | None:
    return None if value is None else _check.integer(op, argument, value, -(2**63), 2**63 - 1)


class Window(NamedTuple):
    """Labels of a table: the first row's and column's, how many of each, and the target that is left out."""

    target_first: int
    pred_first: int
    rows: int
    cols: int
    ignore: int | None


def _pieces(pixels: int) -> list[tuple[int, int, int]]:
    """What each thread takes of a flat map: its number, the first pixel, and the one after the last."""
    count = max(1, min(cores(), pixels // PIECE))
    return [(i, pixels * i // count, pixels * (i + 1) // count) for i in range(count)]


def _count(pred: Any, target: Any, window: Window) -> tuple[Any, int]:
    """Pairs [rows, cols], int64, and the first pixel whose label is outside, or -1. Flat maps."""
    shape = window.rows, window.cols
    if on_gpu(pred):
        return _count_on_gpu(pred, target, window)
    p, t = _array.as_numpy(pred), _array.as_numpy(target)
    pieces = _pieces(len(p))
    tables = np.zeros((len(pieces), *shape), np.int64)
    run = _njit.compiled(*PAIRS)
    skip = window.ignore is not None, 0 if window.ignore is None else window.ignore

    def part(i: int, first: int, last: int) -> int:
        at = run(p[first:last], t[first:last], window.pred_first, window.target_first, skip[1], skip[0], tables[i])
        return -1 if at < 0 else first + at

    bad = [at for at in each(part, pieces) if at >= 0]
    return _array.from_numpy(tables.sum(0), pred), min(bad, default=-1)


def _count_on_gpu(pred: Any, target: Any, window: Window) -> tuple[Any, int]:
    table, bad = _array.zeros(pred, (window.rows, window.cols), "int64"), empty(pred, (2,), "int64")
    bad[...] = -1
    bins = window.rows * window.cols
    bins = bins if bins <= SHARED else 0
    wide = all(pointer(x).address % 16 == 0 for x in (pred, target))
    run = kernel("metrics.cu", "metrics_pairs", PRED=BYTES[dtype_name(pred)], TARGET=BYTES[dtype_name(target)])
    run(
        (max(1, min(blocks(len(pred), 8 * 256), 1024)),), 256,
        pred, target, table, bad, len(pred), window.pred_first, window.target_first, window.rows, window.cols,
        window.ignore or 0, window.ignore is not None, bins, wide, shared_mem=4 * bins,
    )  # fmt: skip
    first = to_host(bad).astype(np.uint64)
    return table, int(first.min()) - 1 if first.min() < 2**63 else -1


class Pairs(NamedTuple):
    """Pairs of labels that occur in two maps, how many pixels each has, and how many each label of a map has."""

    a: Array  # [P], numbers from 0
    b: Array
    number: Array  # [P], pixels, float64
    of_a: Array  # [labels of a], pixels
    of_b: Array
    labels_a: Array  # [labels of a], the labels themselves
    labels_b: Array

    @property
    def pixels(self) -> float:
        """Of all pairs."""
        return float(self.number.sum())


def _labels(x: Any, first: int, last: int) -> Array:
    """The labels from ``first`` to ``last`` that a flat map holds, ascending."""
    if on_gpu(x):
        there = _array.zeros(x, (last - first + 1,), "int64")
        there[_array.astype(x, "int64") - first] = 1
        return np.flatnonzero(to_host(there)) + first
    values, run = _array.as_numpy(x), _njit.compiled(*LABELS)
    pieces = _pieces(len(values))
    found = np.zeros((len(pieces), last - first + 1), np.uint8)
    each(lambda i, begin, end: run(values[begin:end], first, found[i]), pieces)
    return np.flatnonzero(found.any(0)) + first


def _table(maps: Sequence[Any], labels: Sequence[Array], firsts: Sequence[int]) -> Array:
    """How often labels of two flat maps meet, [labels of a, labels of b]."""
    numbers = []
    for values, first in zip(labels, firsts, strict=True):
        number = np.zeros(values[-1] - first + 1, np.int64)
        number[values - first] = np.arange(len(values))
        numbers.append(number)
    shape = len(labels[0]), len(labels[1])
    if on_gpu(maps[0]):
        a, b = (
            from_host(number, x)[_array.astype(x, "int64") - first]
            for x, number, first in zip(maps, numbers, firsts, strict=True)
        )
        return to_host(_count(b, a, Window(0, 0, *shape, None))[0])
    a, b = (_array.as_numpy(x) for x in maps)
    pieces, run = _pieces(len(a)), _njit.compiled(*NUMBERED_PAIRS)
    tables = np.zeros((len(pieces), *shape), np.int64)
    each(lambda i, begin, end: run(a[begin:end], b[begin:end], *firsts, *numbers, tables[i]), pieces)
    table: Array = tables.sum(0)
    return table


def _pairs(a: Any, b: Any, ignore: int | None) -> Pairs:
    """Which labels meet in two flat maps, but at pixels where b is ``ignore``."""
    if ignore is not None and len(a):
        keep = b != ignore
        a, b = a[keep], b[keep]
    if len(a) == 0:
        nothing, none = np.zeros(0), np.zeros(0, np.int64)
        return Pairs(none, none, nothing, nothing, nothing, none, none)
    ends = [(int(x.min()), int(x.max())) for x in (a, b)]
    spans = [last - first + 1 for first, last in ends]
    labels: list[Array] = []
    table: Array | None = None
    if spans[0] * spans[1] <= TABLE:
        table = to_host(_count(a, b, Window(ends[1][0], ends[0][0], spans[1], spans[0], None))[0]).T
        rows, cols = np.flatnonzero(table.any(1)), np.flatnonzero(table.any(0))
        table, labels = table[rows[:, None], cols], [rows + ends[0][0], cols + ends[1][0]]
    elif max(spans) <= TABLE:  # large numbers, but maybe of few labels
        labels = [_labels(x, *end) for x, end in zip((a, b), ends, strict=True)]
        if len(labels[0]) * len(labels[1]) <= TABLE:
            table = _table((a, b), labels, (ends[0][0], ends[1][0]))
    if table is not None:
        labels_a, labels_b = labels
        i, j = np.nonzero(table)
        count = table[i, j].astype(np.float64)
    else:
        xp = module(a)
        (labels_a, i), (labels_b, j) = xp.unique(a, return_inverse=True), xp.unique(b, return_inverse=True)
        code, count = xp.unique(_array.astype(i, "int64") * len(labels_b) + j, return_counts=True)
        code, count = to_host(code), to_host(count).astype(np.float64)
        i, j = np.divmod(code, len(labels_b))
        labels_a, labels_b = to_host(labels_a), to_host(labels_b)
    of_a, of_b = np.bincount(i, count, len(labels_a)), np.bincount(j, count, len(labels_b))
    return Pairs(i, j, count, of_a, of_b, labels_a, labels_b)


# ---- classes --------------------------------------------------------------------------------------------


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
    p, t = _maps(op, pred, target, ("pred", "target"))
    n = _check.integer(op, "n_classes", n_classes, 1, CLASSES)
    ignore = _ignored(op, "ignore_index", ignore_index)
    table, bad = _count(p, t, Window(0, 0, n, n, ignore))
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


def _ratio(part: Array, whole: Array) -> Array:
    """NaN where nothing was to be found."""
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)


def _mean(values: Array) -> float:
    """Over what is not NaN; NaN where all is."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else math.nan


def _iou(matrix: Array) -> Array:
    inside = np.diagonal(matrix)
    return _ratio(inside, matrix.sum(0) + matrix.sum(1) - inside)


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
    return from_host(_iou(_matrix("class_iou", confusion)), confusion)


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
    return _mean(_iou(_matrix("mean_iou", confusion)))


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
    return float(_ratio(np.trace(matrix)[None], matrix.sum()[None])[0])


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
    return from_host(_ratio(np.diagonal(matrix), matrix.sum(1)), confusion)


# ---- segments without classes ---------------------------------------------------------------------------


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
    pairs = _pairs(*_maps(op, pred, target, ("pred", "target")), _ignored(op, "ignore_index", ignore_index))
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
    pairs = _pairs(*_maps(op, pred, target, ("pred", "target")), _ignored(op, "ignore_index", ignore_index))
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
    pairs = _pairs(*_maps(op, pred, target, ("pred", "target")), _ignored(op, "ignore_index", ignore_index))
    if not len(pairs.number):
        return math.nan
    overlap = pairs.number / (pairs.of_a[pairs.a] + pairs.of_b[pairs.b] - pairs.number)
    best = np.zeros(len(pairs.of_b))
    np.maximum.at(best, pairs.b, overlap)
    return float(best @ pairs.of_b / pairs.pixels)


# ---- borders --------------------------------------------------------------------------------------------


@array_op("pred", "target")
def boundary_f1(pred: Any, target: Any, tolerance: float | None = None, *, n_classes: int | None = None) -> float:
    """F1 of borders: 2 P R / (P + R), where P is the share of the borders of ``pred`` that lie near one of ``target``.

    R is the share of the borders of ``target`` near one of ``pred``. A pixel belongs to a border where its right or its
    lower neighbour has another label.

    Parameters
    ----------
    pred, target : array, [..., H, W], int64/int32/int16/int8/uint8/uint16/bool
        Labels; leading dimensions are images.
    tolerance : float, pixels, optional
        The greatest Euclidean distance of borders that are the same; 0.75 % of the image's diagonal by default.
    n_classes : int, 1 to 4096, optional
        Compares the borders of each class by itself: an image's score is the mean over those classes from 0 to
        n_classes - 1 that it holds in ``pred`` or ``target``. A class that only one of them holds is a 0, a class that
        fills both a 1. Without it, borders between any labels.

    Returns
    -------
    float
        Mean over images; an image without borders in both is a 1, in one of them a 0. With ``n_classes``, an image
        that holds none of the classes does not count. NaN of no images.

    Raises
    ------
    TypeError, ValueError
        If the maps differ in library, device or shape, or are not of integers, or have no rows or columns.

    References
    ----------
    G. Csurka, D. Larlus, F. Perronnin, "What is a good evaluation measure for semantic segmentation?", BMVC 2013
    (classes). D. Martin, C. Fowlkes, J. Malik, "Learning to detect natural image boundaries", PAMI 2004 (0.75 %).

    Examples
    --------
    >>> import numpy as np, cv3gpu
    >>> a, b = np.zeros((2, 20, 20), int)
    >>> a[:, 10:], b[:, 12:] = 1, 1
    >>> cv3gpu.boundary_f1(a, b, tolerance=1), cv3gpu.boundary_f1(a, b, tolerance=2)
    (0.0, 1.0)
    """
    op = "boundary_f1"
    p, t = _maps(op, pred, target, ("pred", "target"))
    if pred.ndim < 2 or 0 in pred.shape[-2:]:
        _check.fail(op, "pred", "have shape [..., H, W] with rows and columns", tuple(pred.shape))
    height, width = (int(n) for n in pred.shape[-2:])
    reach = SHARE * math.hypot(height, width) if tolerance is None else _check.real(op, "tolerance", tolerance)
    if reach < 0:
        _check.fail(op, "tolerance", "not be negative", tolerance)
    reach = min(reach, math.hypot(height, width))
    shape = math.prod(pred.shape[:-2]), height, width
    if shape[0] == 0:
        return math.nan
    p, t = p.reshape(shape), t.reshape(shape)
    if n_classes is None:
        return float(_border_scores(p, t, reach, None).mean())
    n = _check.integer(op, "n_classes", n_classes, 1, CLASSES)
    scores = np.full((n, shape[0]), np.nan)
    for c in range(n):
        there = to_host(((t == c) | (p == c)).reshape(shape[0], -1).any(1))
        if there.any():
            scores[c, there] = _border_scores(p, t, reach, c)[there]
    return _mean(np.array([_mean(image) for image in scores.T]))


def _border_scores(pred: Any, target: Any, reach: float, chosen: int | None) -> Array:
    """F1 of each image, [images]; of one class alone where ``chosen``."""
    count = _borders_on_gpu if on_gpu(pred) else _borders_on_cpu
    counts = count(pred, target, reach, chosen)  # [2, images, 2]: of pred and of target, how many, and how many met
    total, met = counts[..., 0], counts[..., 1]
    precision, recall = _ratio(met[0], total[0]), _ratio(met[1], total[1])
    both = precision + recall
    f1 = _ratio(2 * precision * recall, both)
    f1[np.isnan(f1)] = 0  # borders in one of them alone, or none that meet
    f1[(total == 0).all(0)] = 1
    return f1


def _borders(labels: Array, chosen: int | None) -> Array:
    """Pixels whose right or lower neighbour has another label, bool."""
    if chosen is not None:
        labels = labels == chosen
    found = np.zeros(labels.shape, bool)
    found[..., :-1] |= labels[..., 1:] != labels[..., :-1]
    found[..., :-1, :] |= labels[..., 1:, :] != labels[..., :-1, :]
    return found


def _borders_on_cpu(pred: Any, target: Any, reach: float, chosen: int | None) -> Array:
    maps = [_borders(_array.as_numpy(x), chosen) for x in (pred, target)]
    counts = np.zeros((2, len(maps[0]), 2))
    run = _njit.compiled(*NEAR)

    def image(i: int, side: int) -> None:
        own, other = maps[side][i], maps[1 - side][i]
        counts[side, i] = own.sum(), run(own, other, reach, np.empty(own.shape, np.int32))

    each(image, [(i, side) for i in range(len(maps[0])) for side in range(2)])
    return counts


def _borders_on_gpu(pred: Any, target: Any, reach: float, chosen: int | None) -> Array:
    images, height, width = (int(n) for n in pred.shape)
    grid = (blocks(height * width, 256), min(images, MAX_GRID_YZ))
    borders = []
    for x in (pred, target):
        border = empty(x, (images, height, width), "uint8")
        run = kernel("metrics.cu", "metrics_borders", PRED=BYTES[dtype_name(x)], TARGET=1)
        run(grid, 256, x, border, height, width, images, chosen or 0, chosen is not None)
        borders.append(border)
    counts = _array.zeros(pred, (2, images, 2), "int64")
    run = kernel("metrics.cu", "metrics_near", PRED=1, TARGET=1)
    for side in range(2):
        run(grid, 256, borders[side], borders[1 - side], counts[side], height, width, images, reach)
    return to_host(counts).astype(np.float64)


# ---- panoptic -------------------------------------------------------------------------------------------


class PanopticQuality(NamedTuple):
    """Means over classes, and what they come from, per class; counts of several calls add up."""

    pq: float
    sq: float
    rq: float
    tp: Array  # [classes]
    fp: Array
    fn: Array
    iou: Array  # [classes], sum over true positives
    classes: Array  # [classes]


class _Parts(NamedTuple):
    """Pairs of labels and parts at once, in which a label stands for ``base`` numbers, one for each part."""

    pairs: Pairs
    base: int
    classes: frozenset[int]  # that have parts
    unknown: int | None  # the part of which nothing is known

    def split(self) -> tuple[Array, Array, Array, Array]:
        """Of each pair the label and the part of pred, and those of target."""
        (label_a, part_a), (label_b, part_b) = (np.divmod(labels, self.base) for labels in self.pairs[5:])
        i, j = self.pairs.a, self.pairs.b
        if self.unknown is not None:
            part_b = np.where(part_b == self.unknown, 0, part_b)
        return label_a[i], part_a[i], label_b[j], part_b[j]


def _of_labels(parts: _Parts) -> Pairs:
    """The pairs of labels alone."""
    pairs, base = parts.pairs, parts.base
    labels_a, a = np.unique(pairs.labels_a // base, return_inverse=True)
    labels_b, b = np.unique(pairs.labels_b // base, return_inverse=True)
    code, at = np.unique(a[pairs.a] * len(labels_b) + b[pairs.b], return_inverse=True)
    number = np.bincount(at, pairs.number)
    i, j = np.divmod(code, max(len(labels_b), 1))
    of_a, of_b = np.bincount(i, number, len(labels_a)), np.bincount(j, number, len(labels_b))
    return Pairs(i, j, number, of_a, of_b, labels_a, labels_b)


@array_op("pred", "target", "pred_parts", "target_parts")
def panoptic_quality(
    pred: Any,
    target: Any,
    *,
    label_divisor: int | None = None,
    ignore_index: int | None = None,
    pred_parts: Any = None,
    target_parts: Any = None,
    part_classes: Sequence[int] | None = None,
    ignore_part: int | None = None,
) -> PanopticQuality:
    """Panoptic quality: sum of IoU over true positives / (TP + FP / 2 + FN / 2), the mean over classes.

    A segment of ``pred`` and one of ``target`` of the same class are a true positive where their IoU is above 0.5;
    there is at most one such partner. There are four views of it:

    * semantic: class maps and ``label_divisor=1``, every class is one segment of its image;
    * instance: maps of instances without ``label_divisor``, all of one class;
    * panoptic: labels that hold both, and ``label_divisor``;
    * part: any of these with ``pred_parts`` and ``target_parts``: PartPQ, in which a true positive of a class with
      parts counts the mean IoU of its parts.

    Parameters
    ----------
    pred, target : array, [..., H, W], int64/int32/int16/int8/uint8/uint16/bool
        Segment labels; leading dimensions are images, whose segments are never the same.
    label_divisor : int, optional
        Labels are class * label_divisor + instance (Cityscapes and DeepLab: 1000). Without it every label is a segment,
        and all are of one class, 0.
    ignore_index : int, optional
        The label of no segment. Its pixels in ``target`` count in no union, and a segment of ``pred`` that lies there
        by more than a half is no false positive.
    pred_parts, target_parts : array, shape of ``pred``, of these dtypes, optional
        The part of its segment that a pixel is, from 1, or 0 for none.
    part_classes : sequence of int, optional
        Classes with parts; those that have some in ``target_parts`` unless given.
    ignore_part : int, optional
        The part of pixels of which it is unknown: in ``target_parts`` these count as 0, in ``pred_parts`` they are
        missed, and not wrong.

    Returns
    -------
    pq, sq, rq : float
        Means over the classes that occur; sq is the mean IoU of true positives, rq their F1; NaN where none occurs.
    tp, fp, fn : array, [classes], int64
    iou : array, [classes], float64
        Sum over true positives; of their parts where the class has parts.
    classes : array, [classes], int64
        Those that occur, ascending. All of them NumPy arrays.

    Raises
    ------
    TypeError, ValueError
        If the maps differ in library, device or shape, or are not of integers, or a label or part is negative; or
        one map of parts is given alone, or options of parts without them.

    Notes
    -----
    Parts follow the evaluation of the metric's authors. Of a true positive the confusion of the parts is counted over
    the image, what is outside a segment being 0; the IoU is the mean over the parts that either has, 0 included. Pixels
    of the segment without a part in ``target_parts`` are left out, as are ignored ones. A segment of ``target`` of a
    class with parts that has none is left out, and ``pred`` may find it.

    Cost: each map is read a few times; what follows is in the number of pairs of segments that meet. No gradient.

    References
    ----------
    A. Kirillov, K. He, R. Girshick, C. Rother, P. Dollár, "Panoptic segmentation", CVPR 2019, equation 1, section 4.1.
    D. de Geus, P. Meletis, C. Lu, X. Wen, G. Dubbelman, "Part-aware panoptic segmentation", CVPR 2021, section 3.2.

    Examples
    --------
    >>> import numpy as np, cv3gpu
    >>> target = np.repeat([[1001, 1002, 2000]], 4, axis=0)
    >>> pred = np.repeat([[1001, 1001, 2000]], 4, axis=0)
    >>> found = cv3gpu.panoptic_quality(pred, target, label_divisor=1000)
    >>> found.pq, found.tp, found.fp, found.fn
    (0.5, array([0, 1]), array([1, 0]), array([2, 0]))
    """
    op = "panoptic_quality"
    p, t = _maps(op, pred, target, ("pred", "target"))
    if pred.ndim < 2:
        _check.fail(op, "pred", "have shape [..., H, W]", tuple(pred.shape))
    divisor = None if label_divisor is None else _check.integer(op, "label_divisor", label_divisor, 1)
    void = _ignored(op, "ignore_index", ignore_index)
    images, plane = math.prod(pred.shape[:-2]), math.prod(pred.shape[-2:])
    bounds = [(i * plane, (i + 1) * plane) for i in range(images if plane else 0)]
    has_parts = pred_parts is not None or target_parts is not None
    for argument, value in (("part_classes", part_classes), ("ignore_part", ignore_part)):
        if value is not None and not has_parts:
            _check.fail(op, argument, "be left out without pred_parts and target_parts", repr(value))
    found: dict[int, list[float]] = {}
    if has_parts:
        p, t, base = _with_parts(op, p, t, pred, pred_parts, target_parts)
        unknown = None if ignore_part is None else _check.integer(op, "ignore_part", ignore_part, 1)
        coded = [_pairs(p[a:b], t[a:b], None) for a, b in bounds]
        classes = _part_classes(op, part_classes, coded, base, divisor, void, unknown)
        for pairs in coded:
            parts = _Parts(pairs, base, classes, unknown)
            _panoptic_image(op, _of_labels(parts), divisor, void, found, parts)
    else:
        for a, b in bounds:
            _panoptic_image(op, _pairs(p[a:b], t[a:b], None), divisor, void, found, None)
    names = np.array(sorted(found), np.int64)
    table = np.array([found[c] for c in names]).reshape(-1, 4)
    tp, fp, fn, iou = table.T
    recognised = tp / (tp + fp / 2 + fn / 2)
    quality = iou / (tp + fp / 2 + fn / 2)
    matched = _ratio(iou, tp)
    tp, fp, fn = (x.astype(np.int64) for x in (tp, fp, fn))
    return PanopticQuality(_mean(quality), _mean(matched), _mean(recognised), tp, fp, fn, iou, names)


def _with_parts(op: str, p: Any, t: Any, pred: Any, pred_parts: Any, target_parts: Any) -> tuple[Any, Any, int]:
    """Flat maps of labels and parts at once, and how many numbers a label stands for."""
    for name, x in (("pred_parts", pred_parts), ("target_parts", target_parts)):
        if x is None:
            _check.fail(op, name, "be given where the other is", None)
        if tuple(x.shape) != tuple(pred.shape):
            _check.fail(op, name, f"have the shape of pred {tuple(pred.shape)}", tuple(x.shape))
    parts = _maps(op, pred_parts, target_parts, ("pred_parts", "target_parts"))
    base = 1
    for name, x in zip(("pred_parts", "target_parts"), parts, strict=True):
        if len(x):
            if (least := int(x.min())) < 0:
                _check.fail(op, name, "hold parts that are not negative", least)
            base = max(base, int(x.max()) + 1)
    for name, x in (("pred", p), ("target", t)):
        if len(x) and max(abs(int(x.min())), abs(int(x.max()))) >= 2**62 // base:
            _check.fail(op, name, f"hold labels below {2**62 // base} where there are {base - 1} parts", int(x.max()))
    p, t = (_array.astype(x, "int64") * base + y for x, y in zip((p, t), parts, strict=True))
    return p, t, base


def _part_classes(
    op: str, given: Any, coded: list[Pairs], base: int, divisor: int | None, void: int | None, unknown: int | None
) -> frozenset[int]:
    """Classes with parts."""
    if given is not None:
        if not isinstance(given, Sequence) or isinstance(given, str):
            _check.fail(op, "part_classes", "be a sequence of integers", _check.kind(given), error=TypeError)
        return frozenset(_check.integer(op, "part_classes", c, 0, 2**63 - 1) for c in given)
    found: set[int] = set()
    for pairs in coded:
        labels, parts = np.divmod(pairs.labels_b, base)
        real = (parts > 0) & (labels >= 0) & ~np.isin(parts, () if unknown is None else (unknown,))
        labels = labels[real & ~np.isin(labels, () if void is None else (void,))]
        found |= {0} if divisor is None and len(labels) else set((labels // (divisor or 1)).tolist())
    return frozenset(found)


def _panoptic_image(
    op: str,
    pairs: Pairs,
    divisor: int | None,
    void: int | None,
    found: dict[int, list[float]],
    parts: _Parts | None,
) -> None:
    """Adds an image's true and false positives, false negatives and IoU to those of its classes."""
    kinds = []
    for name, labels in (("pred", pairs.labels_a), ("target", pairs.labels_b)):
        real = labels if void is None else labels[labels != void]
        if len(real) and real.min() < 0:
            _check.fail(op, name, "hold labels that are not negative, or ignore_index", int(real.min()))
        kind = np.zeros(len(labels), np.int64) if divisor is None else labels // divisor
        kinds.append(np.where(labels == void, -1, kind) if void is not None else kind)
    of_pred, of_target = kinds
    in_void = np.zeros(len(of_pred))
    lost = of_target[pairs.b] == -1
    in_void[pairs.a[lost]] = pairs.number[lost]
    hidden = _without_parts(pairs, of_target, parts)
    union = pairs.of_a[pairs.a] - in_void[pairs.a] + pairs.of_b[pairs.b] - pairs.number
    same = (of_pred[pairs.a] == of_target[pairs.b]) & ~lost & (of_pred[pairs.a] >= 0)
    overlap = np.where(same & ~hidden[pairs.b], pairs.number / np.where(same, union, 1), 0)
    match = overlap > 0.5
    hit_pred, hit_target = np.zeros(len(of_pred), bool), np.zeros(len(of_target), bool)
    hit_pred[pairs.a[match]], hit_target[pairs.b[match]] = True, True
    there = same & hidden[pairs.b]
    excused = in_void + np.bincount(pairs.a[there], pairs.number[there], len(of_pred))
    extra = (of_pred >= 0) & ~hit_pred & (excused <= 0.5 * pairs.of_a)
    missed = (of_target >= 0) & ~hit_target & ~hidden
    if parts is not None:
        overlap = _part_overlap(pairs, of_target, hidden, match, overlap, parts)
    for c in {*of_pred[extra], *of_target[missed], *of_pred[pairs.a[match]]}:
        row = found.setdefault(int(c), [0.0, 0.0, 0.0, 0.0])
        mine = match & (of_pred[pairs.a] == c)
        sums = mine.sum(), (extra & (of_pred == c)).sum(), (missed & (of_target == c)).sum(), overlap[mine].sum()
        for k, more in enumerate(sums):
            row[k] += float(more)


def _without_parts(pairs: Pairs, of_target: Array, parts: _Parts | None) -> Array:
    """Which segments of the target have no part, though their class has parts."""
    if parts is None:
        return np.zeros(len(of_target), bool)
    _, _, label, part = parts.split()
    return np.isin(of_target, list(parts.classes)) & ~np.isin(pairs.labels_b, label[part > 0])


def _part_overlap(pairs: Pairs, of_target: Array, hidden: Array, match: Array, overlap: Array, parts: _Parts) -> Array:
    """The IoU of true positives, where their class has parts the mean of the parts' IoU."""
    label_p, part_p, label_t, part_t = parts.split()
    kind_t = of_target[np.searchsorted(pairs.labels_b, label_t)]
    hidden_t = hidden[np.searchsorted(pairs.labels_b, label_t)]
    overlap = overlap.copy()
    for k in np.flatnonzero(match & np.isin(of_target[pairs.b], list(parts.classes))):
        one, other = pairs.labels_a[pairs.a[k]], pairs.labels_b[pairs.b[k]]
        left_out = (kind_t == -1) | ((label_t == other) & (part_t == 0))
        left_out |= hidden_t & (kind_t == of_target[pairs.b[k]])
        ours = np.where(label_p == one, part_p, 0)[~left_out]
        theirs = np.where(label_t == other, part_t, 0)[~left_out]
        names, places = np.unique(np.concatenate([ours, theirs]), return_inverse=True)
        n, (i, j) = len(names), places.reshape(2, -1)
        table = np.bincount(j * n + i, parts.pairs.number[~left_out], n * n).reshape(n, n)
        overlap[k] = _iou(table)[~np.isin(names, () if parts.unknown is None else (parts.unknown,))].mean()
    return overlap
