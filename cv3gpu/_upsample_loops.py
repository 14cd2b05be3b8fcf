"""The CPU's inner loops of the heads that enlarge logits bilinearly, for `_njit.compiled`.

Logits [N, C, H, W] are dense. Output row y is ``a[y, 0] * row r[y] + a[y, 1] * row r[y] + 1``, and so are columns, with
weights ``b`` and first neighbours ``s``; a weight of zero takes nothing. Columns are done ``LANES`` at a time over all
rows: the rows of logits that are already interpolated along w, and the enlarged logits of one row, [C, LANES], stay in
the nearest caches. ``space`` is work space, [C, LANES] for each of these; ``held`` [2] says which rows it holds.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ._lanes import Rows, Writer, operation
from ._njit import inlined

Array = np.ndarray[Any, Any]

LANES = 128  # columns that are done together

# ---- operations on rows ---------------------------------------------------------------------------------


def _lower_exp_less(w: Writer, x: Rows, row: Any, most: Rows, total: Rows) -> None:
    width = x.shape[1]

    def block(channel: Any, lanes: int, registers: int) -> None:
        for register in range(registers):
            here = w.offset(channel, register, lanes)
            at = w.at(w.integer(row), width, here)
            term = w.exp(w.load(x, at, lanes) - w.load(most, here, lanes))
            w.store(term, x, at)
            w.store(w.load(total, here, lanes) + term, total, here)

    w.channels(width, block)


@operation(_lower_exp_less)
def exp_less(x: Array, row: int, most: Array, total: Array) -> None:
    """``x[row] = exp(x[row] - most[0])``, and is added to ``total[0]``; ``most`` must not be smaller."""
    x[row] = np.exp(x[row] - most[0])
    total[0] += x[row]


@inlined
def _mix(x: Array, y: Array, of_x: Any, of_y: Any, out: Array) -> None:
    """``out = of_x x + of_y y``."""
    if of_y == 0:
        for i in range(out.shape[0]):
            out[i] = of_x * x[i]
    else:
        for i in range(out.shape[0]):
            out[i] = of_x * x[i] + of_y * y[i]


@inlined
def _widen(x: Array, s: Array, b: Array, first: int, n: int, out: Array) -> None:
    """Columns ``first`` to ``first + n`` of an enlarged row; those behind are zero."""
    last = x.shape[0] - 1
    for i in range(n):
        k, of_left, of_right = s[first + i], b[first + i, 0], b[first + i, 1]
        v = of_left * x[k]
        out[i] = v + of_right * x[min(k + 1, last)] if of_right != 0 else v
    for i in range(n, out.shape[0]):
        out[i] = 0


# ---- enlarged logits ------------------------------------------------------------------------------------


def _enlarge(x: Array, y: int, r: Array, a: Array, s: Array, b: Array, first: int, n: int, held: Array, even: Array,
             odd: Array, out: Array) -> None:  # fmt: skip
    """Columns ``first`` to ``first + n`` of row y of an image, [C, LANES].

    ``even`` and ``odd`` hold the rows of logits ``held``, interpolated along w.
    """
    top = r[y]
    for row in range(top, min(top + 2, x.shape[1])):
        if held[row & 1] != row:
            held[row & 1] = row
            into = odd if row & 1 else even
            for c in range(x.shape[0]):
                _widen(x[c, row], s, b, first, n, into[c])
    upper, lower = (odd, even) if top & 1 else (even, odd)
    for c in range(x.shape[0]):
        _mix(upper[c], lower[c], a[y, 0], a[y, 1], out[c])


def _enlarge_down(x: Array, y: int, r: Array, a: Array, s: Array, b: Array, first: int, n: int, row: Array,
                  out: Array) -> None:  # fmt: skip
    """The same, with the sums along h done first; ``row`` [W] is work space."""
    top = r[y]
    for c in range(x.shape[0]):
        _mix(x[c, top], x[c, min(top + 1, x.shape[1] - 1)], a[y, 0], a[y, 1], row)
        _widen(row, s, b, first, n, out[c])


# ---- argmax ---------------------------------------------------------------------------------------------


@inlined
def _largest(x: Array, best: Array, label: Array) -> None:
    """The first of the largest of each column; NaN is larger than all."""
    for i in range(best.shape[0]):
        best[i] = x[0, i]
        label[i] = 0
    for c in range(1, x.shape[0]):
        row, number = x[c], np.int32(c)
        for i in range(best.shape[0]):
            v, m = row[i], best[i]
            better = (v > m) | ((v != v) & (m == m))
            best[i] = v if better else m
            label[i] = number if better else label[i]


def _argmax(x: Array, r: Array, a: Array, s: Array, b: Array, down: bool, labels: Array, image: int, y_first: int,
            y_last: int, space: Array, held: Array, row: Array, best: Array, label: Array) -> None:  # fmt: skip
    """Labels of some rows of an image; ``space`` [3, C, LANES], ``row`` [W], ``best`` and ``label`` [LANES]."""
    even, odd, values = space[0], space[1], space[2]
    width = labels.shape[2]
    for first in range(0, width, LANES):
        n = min(LANES, width - first)
        held[0] = held[1] = -1
        for y in range(y_first, y_last):
            if down:
                _enlarge_down(x[image], y, r, a, s, b, first, n, row, values)
            else:
                _enlarge(x[image], y, r, a, s, b, first, n, held, even, odd, values)
            _largest(values, best, label)
            out = labels[image, y]
            for i in range(n):
                out[first + i] = label[i]


# ---- cross entropy --------------------------------------------------------------------------------------


@inlined
def _exponentials(values: Array, most: Array, total: Array) -> None:
    """Values become exp(value - most) of each column, and ``total`` [1, LANES] their sum."""
    m, t = most[0], total[0]
    for i in range(m.shape[0]):
        m[i] = values[0, i]
        t[i] = 0
    for c in range(1, values.shape[0]):
        row = values[c]
        for i in range(m.shape[0]):
            v = row[i]
            m[i] = v if (v > m[i]) | (v != v) else m[i]
    for c in range(values.shape[0]):
        exp_less(values, c, most, total)


@inlined
def _add_times(factor: Any, x: Array, out: Array) -> None:
    for i in range(out.shape[0]):
        out[i] += factor * x[i]


@inlined
def _clear(x: Array) -> None:
    for c in range(x.shape[0]):
        row = x[c]
        for i in range(row.shape[0]):
            row[i] = 0


def _entropy(x: Array, r: Array, a: Array, s: Array, b: Array, target: Array, weight: Array, ignore: int,
             smoothing: float, losses: Array, sums: Array, image: int, y_first: int, y_last: int, space: Array,
             held: Array, most: Array, total: Array, lanes: Array) -> int:  # fmt: skip
    """Losses of some rows of an image, and each row's sums of losses and of weights.

    ``losses`` is [N, H, W], or empty where they are not wanted; ``sums`` [N, H, 2] starts from zero; ``space``
    [3, C, LANES], ``lanes`` [2, LANES]. Returns -1, or the first place of ``target`` that holds no class.
    """
    even, odd, values = space[0], space[1], space[2]
    of_target, of_all = lanes[0], lanes[1]
    classes, height, width = x.shape[1], target.shape[1], target.shape[2]
    weights, bad, wanted = 0.0, -1, losses.shape[0] > 0
    for c in range(classes):
        weights += weight[c]
    for first in range(0, width, LANES):
        n = min(LANES, width - first)
        held[0] = held[1] = -1
        for y in range(y_first, y_last):
            _enlarge(x[image], y, r, a, s, b, first, n, held, even, odd, values)
            for i in range(n):
                t = int(target[image, y, first + i])
                if t != ignore:
                    if 0 <= t < classes:
                        of_target[i] = values[t, i]
                    elif bad < 0:
                        bad = (image * height + y) * width + first + i
            if smoothing != 0:
                for i in range(LANES):
                    of_all[i] = 0
                for c in range(classes):
                    _add_times(weight[c], values[c], of_all)
            _exponentials(values, most, total)
            for i in range(n):
                t = int(target[image, y, first + i])
                loss = 0.0
                if t != ignore and 0 <= t < classes:
                    entropy = most[0, i] + np.log(total[0, i])
                    loss = weight[t] * (entropy - of_target[i])
                    if smoothing != 0:
                        loss = (1 - smoothing) * loss + smoothing / classes * (weights * entropy - of_all[i])
                    sums[image, y, 0] += loss
                    sums[image, y, 1] += weight[t]
                if wanted:
                    losses[image, y, first + i] = loss
    return bad


@inlined
def _gather_columns(x: Array, s: Array, b: Array, begin: Array, first: int, n: int, out: Array) -> None:
    """Adds to each column of logits what it gives to the enlarged columns ``first`` to ``first + n``."""
    for k in range(s[first], min(s[first + n - 1] + 2, out.shape[0])):
        total = out[k]
        for i in range(max(begin[max(k - 1, 0)], first), min(begin[k + 1], first + n)):
            factor = b[i, 0] if s[i] == k else b[i, 1]
            if factor != 0:
                total += factor * x[i - first]
        out[k] = total


def _entropy_vjp(x: Array, r: Array, a: Array, s: Array, b: Array, r_begin: Array, s_begin: Array, target: Array,
                 weight: Array, ignore: int, smoothing: float, factor: float, grad: Array, out: Array, image: int,
                 k_first: int, k_last: int, space: Array, held: Array, most: Array, total: Array,
                 lanes: Array) -> int:  # fmt: skip
    """The gradient by rows ``k_first`` to ``k_last`` of the logits of an image; ``out`` [N, C, H, W] starts from zero.

    ``r_begin[k]`` and ``s_begin[k]`` are the first enlarged row and column whose first neighbour is k or behind. The
    gradient by a loss is ``factor``, times ``grad`` [N, H, W] unless that is empty. ``space`` [5, C, LANES], ``lanes``
    [3, LANES]. Returns as `_entropy`.
    """
    even, odd, values = space[0], space[1], space[2]
    of_target, of_each, of_all = lanes[0], lanes[1], lanes[2]
    classes, height, width = x.shape[1], target.shape[1], target.shape[2]
    weights, bad, scaled = 0.0, -1, grad.shape[0] > 0
    for c in range(classes):
        weights += weight[c]
    for first in range(0, width, LANES):
        n = min(LANES, width - first)
        held[0] = held[1] = -1
        for i in range(n, LANES):
            of_each[i] = of_all[i] = 0
        start = max(k_first - 1, 0)  # its rows have row k_first as their second neighbour
        _clear(space[3 + (start & 1)])
        for k in range(start, k_last):
            upper, lower = space[3 + (k & 1)], space[4 - (k & 1)]  # what rows k and k + 1 of the logits get
            _clear(lower)
            for y in range(r_begin[k], r_begin[k + 1]):
                _enlarge(x[image], y, r, a, s, b, first, n, held, even, odd, values)
                _exponentials(values, most, total)
                for i in range(n):
                    t = int(target[image, y, first + i])
                    of_target[i] = of_each[i] = of_all[i] = 0
                    if t != ignore:
                        if 0 <= t < classes:
                            g = factor * grad[image, y, first + i] if scaled else factor
                            of_target[i] = (1 - smoothing) * g * weight[t]
                            of_all[i] = smoothing / classes * g
                            of_each[i] = (of_target[i] + of_all[i] * weights) / total[0, i]
                        elif bad < 0:
                            bad = (image * height + y) * width + first + i
                for c in range(classes):
                    row, own = values[c], weight[c]
                    for i in range(LANES):
                        row[i] = row[i] * of_each[i] - of_all[i] * own if of_each[i] != 0 else 0
                for i in range(n):
                    if of_target[i] != 0:
                        t = int(target[image, y, first + i])
                        values[t, i] -= of_target[i]
                for c in range(classes):
                    _add_times(a[y, 0], values[c], upper[c])
                if a[y, 1] != 0:
                    for c in range(classes):
                        _add_times(a[y, 1], values[c], lower[c])
            if k >= k_first:
                for c in range(classes):
                    _gather_columns(upper[c], s, b, s_begin, first, n, out[image, c, k])
    return bad


# For `_njit.compiled`: callees first.
ARGMAX = (_mix, _widen, _enlarge, _enlarge_down, _largest, _argmax)
ENTROPY = (exp_less, _mix, _widen, _enlarge, _exponentials, _add_times, _entropy)
ENTROPY_VJP = (
    exp_less, _mix, _widen, _enlarge, _exponentials, _add_times, _clear, _gather_columns, _entropy_vjp,
)  # fmt: skip
