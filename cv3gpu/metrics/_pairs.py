"""How often two label maps hold which pair of labels at a pixel: counted on the device of the maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from .. import _array, _check, _njit
from .._array import contiguous, dtype_name, empty, from_host, module, on_gpu, pointer, to_host
from .._kernel import blocks, kernel
from .._threads import cores, each
from ._loops import LABELS, NUMBERED_PAIRS, PAIRS

__all__ = [
    "BYTES",
    "CLASSES",
    "Array",
    "Pairs",
    "Window",
    "count_pairs",
    "ignored_label",
    "label_maps",
    "meeting",
]

Array = np.ndarray[Any, Any]

TYPES = ("int64", "int32", "int16", "int8", "uint8", "uint16", "bool")
DIRECT = ("int64", "int32", "uint8")  # what the loops and kernels read as it is
BYTES = {"uint8": 1, "int32": 4, "int64": 8}
CLASSES = 4096  # of a confusion matrix
TABLE = 1 << 22  # entries of a table of all pairs; rarer pairs than that are sorted
SHARED = 8192  # entries of a table that lies in shared memory
PIECE = 1 << 16  # pixels that are worth a thread


def label_maps(op: str, a: Any, b: Any, names: tuple[str, str]) -> tuple[Any, Any]:
    """Two label maps of one shape, flat and dense, of dtypes that the loops read."""
    flat = []
    for name, x in zip(names, (a, b), strict=True):
        _check.dtype(op, name, x, TYPES)
        flat.append(contiguous(x if dtype_name(x) in DIRECT else _array.astype(x, "int32")).reshape(-1))
    if tuple(a.shape) != tuple(b.shape):
        _check.fail(op, names[1], f"have the shape of {names[0]} {tuple(a.shape)}", tuple(b.shape))
    return flat[0], flat[1]


def ignored_label(op: str, argument: str, value: Any) -> int | None:
    """The label of pixels that do not count, any integer, or None."""
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


def count_pairs(pred: Any, target: Any, window: Window) -> tuple[Any, int]:
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
        return to_host(count_pairs(b, a, Window(0, 0, *shape, None))[0])
    a, b = (_array.as_numpy(x) for x in maps)
    pieces, run = _pieces(len(a)), _njit.compiled(*NUMBERED_PAIRS)
    tables = np.zeros((len(pieces), *shape), np.int64)
    each(lambda i, begin, end: run(a[begin:end], b[begin:end], *firsts, *numbers, tables[i]), pieces)
    table: Array = tables.sum(0)
    return table


def meeting(a: Any, b: Any, ignore: int | None) -> Pairs:
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
        table = to_host(count_pairs(a, b, Window(ends[1][0], ends[0][0], spans[1], spans[0], None))[0]).T
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
