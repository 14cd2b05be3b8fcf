"""Panoptic quality: classes and segments at once, and the parts of segments."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from .. import _array, _check
from .._array import array_op
from ._pairs import Array, Pairs, ignored_label, label_maps, meeting
from ._ratios import iou_of, mean, ratio

__all__ = ["PanopticQuality", "panoptic_quality"]


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
    p, t = label_maps(op, pred, target, ("pred", "target"))
    if pred.ndim < 2:
        _check.fail(op, "pred", "have shape [..., H, W]", tuple(pred.shape))
    divisor = None if label_divisor is None else _check.integer(op, "label_divisor", label_divisor, 1)
    void = ignored_label(op, "ignore_index", ignore_index)
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
        coded = [meeting(p[a:b], t[a:b], None) for a, b in bounds]
        classes = _part_classes(op, part_classes, coded, base, divisor, void, unknown)
        for pairs in coded:
            parts = _Parts(pairs, base, classes, unknown)
            _panoptic_image(op, _of_labels(parts), divisor, void, found, parts)
    else:
        for a, b in bounds:
            _panoptic_image(op, meeting(p[a:b], t[a:b], None), divisor, void, found, None)
    names = np.array(sorted(found), np.int64)
    table = np.array([found[c] for c in names]).reshape(-1, 4)
    tp, fp, fn, iou = table.T
    recognised = tp / (tp + fp / 2 + fn / 2)
    quality = iou / (tp + fp / 2 + fn / 2)
    matched = ratio(iou, tp)
    tp, fp, fn = (x.astype(np.int64) for x in (tp, fp, fn))
    return PanopticQuality(mean(quality), mean(matched), mean(recognised), tp, fp, fn, iou, names)


def _with_parts(op: str, p: Any, t: Any, pred: Any, pred_parts: Any, target_parts: Any) -> tuple[Any, Any, int]:
    """Flat maps of labels and parts at once, and how many numbers a label stands for."""
    for name, x in (("pred_parts", pred_parts), ("target_parts", target_parts)):
        if x is None:
            _check.fail(op, name, "be given where the other is", None)
        if tuple(x.shape) != tuple(pred.shape):
            _check.fail(op, name, f"have the shape of pred {tuple(pred.shape)}", tuple(x.shape))
    parts = label_maps(op, pred_parts, target_parts, ("pred_parts", "target_parts"))
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
        overlap[k] = iou_of(table)[~np.isin(names, () if parts.unknown is None else (parts.unknown,))].mean()
    return overlap
