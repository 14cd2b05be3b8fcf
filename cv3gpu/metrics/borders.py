"""A metric of borders: how much of them lies near one of the other map."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import _array, _check, _njit
from .._array import array_op, dtype_name, empty, on_gpu, to_host
from .._kernel import MAX_GRID_YZ, blocks, kernel
from .._threads import each
from ._loops import NEAR
from ._pairs import BYTES, CLASSES, Array, label_maps
from ._ratios import mean, ratio

__all__ = ["boundary_f1"]

SHARE = 0.0075  # of an image's diagonal: how far apart borders may lie that are the same


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
    p, t = label_maps(op, pred, target, ("pred", "target"))
    if pred.ndim < 2 or 0 in pred.shape[-2:]:
        _check.fail(op, "pred", "have shape [..., H, W] with rows and columns", tuple(pred.shape))
    height, width = (int(n) for n in pred.shape[-2:])
    diagonal = math.hypot(height, width)
    reach = SHARE * diagonal if tolerance is None else min(_check.not_negative(op, "tolerance", tolerance), diagonal)
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
    return mean(np.array([mean(image) for image in scores.T]))


def _border_scores(pred: Any, target: Any, reach: float, chosen: int | None) -> Array:
    """F1 of each image, [images]; of one class alone where ``chosen``."""
    count = _borders_on_gpu if on_gpu(pred) else _borders_on_cpu
    counts = count(pred, target, reach, chosen)  # [2, images, 2]: of pred and of target, how many, and how many met
    total, met = counts[..., 0], counts[..., 1]
    precision, recall = ratio(met[0], total[0]), ratio(met[1], total[1])
    both = precision + recall
    f1 = ratio(2 * precision * recall, both)
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
