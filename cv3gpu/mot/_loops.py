"""The loops over boxes and frames behind the metrics, for the CPU: compiled by `_njit`, so they allocate nothing.

Boxes of a side are rows sorted by frame. The overlapping pairs are a sparse matrix by rows: those of ground-truth
row g are the entries ``pair_start[g]`` to ``pair_start[g + 1]``, each a row of the prediction (ascending) and an
IoU above zero.

Matching a frame means: the assignment of the greatest total weight, and among equals the one that SciPy's
``linear_sum_assignment`` finds on the frame's full score matrix (zero where there is no entry), because that is
what the published figures rest on. Hardly any frame needs that search:

* A pair that outweighs the best rival of its row and of its column together is in every optimal assignment:
  without it, at most those two would have to give way. Taking such pairs, again and again, settles most frames.
* What is left is solved apart, twice: the second time with every pair of the solution made a little cheaper.
  If the same pairs win again, no other assignment comes near, and the first solution is the only optimum.
* Otherwise the frame is solved as SciPy would, step by step: Crouse's form of Jonker and Volgenant's algorithm.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .. import _njit

__all__ = ["program"]

Array = np.ndarray

RELATIVE = 1e-9  # how clear a decision must be to count as the only one: share of the weight,
ABSOLUTE = 1e-13  # and at least this much, which is beyond the rounding of sums of a frame
CONTINUED = 1000.0  # what a pair that was matched in the previous frame is worth beyond its overlap
BLOCK = 128  # NumPy sums up to so many numbers in eight interleaved parts
PARTS = 8 + 2 * 64  # what the sum of a row needs

# Rows of the integer workspace, by row or column of the problem at hand.
_ROW_COL = 0  # the best entry's column
_COL_ROW = 1
_ROW_OUT = 2  # settled
_COL_OUT = 3
_ROW_MAP = 4  # number in the part that is left
_COL_MAP = 5
_COL4ROW = 6
_ROW4COL = 7
_PATH = 8
_REMAINING = 9
_ROW_SEEN = 10
_COL_SEEN = 11
_START = 12  # of each row's entries in the lists below
_FOUND = 13
INTEGERS = 14
# Rows of the real workspace.
_ROW_BEST = 0
_ROW_NEXT = 1
_COL_BEST = 2
_COL_NEXT = 3
_U = 4
_V = 5
_DIST = 6
_LINE = 7
REALS = 8
# Lists of the entries of a frame.
_ENTRY = 0
_ENTRY_ROW = 1
_COLUMN = 2
_TURNED = 3
LISTS = 4
# Columns of what CLEAR knows of an identity.
_BOXES = 0
_MATCHED = 1
_LAST_MATE = 2
_LAST_SEEN = 3
_BEGUN = 4


# ---- order ----------------------------------------------------------------------------------------------


def _sort(key: Array, start: Array, order: Array) -> None:
    """Stable counting sort: ``order`` lists the rows by key, ``start`` [keys + 1] where each key's begin."""
    for k in range(start.size):
        start[k] = 0
    for i in range(key.size):
        start[key[i] + 1] += 1
    for k in range(1, start.size):
        start[k] += start[k - 1]
    for i in range(key.size):  # start runs ahead by one key's length and is put back below
        order[start[key[i]]] = i
        start[key[i]] += 1
    for k in range(start.size - 1, 0, -1):
        start[k] = start[k - 1]
    start[0] = 0


def _compact(values: Array, low: int, table: Array, labels: Array) -> int:
    """Labels from 0 in ascending order of value; ``table`` [range of the values] is workspace."""
    for k in range(table.size):
        table[k] = 0
    for i in range(values.size):
        table[values[i] - low] = 1
    n = 0
    for k in range(table.size):
        if table[k]:
            table[k] = n
            n += 1
    for i in range(values.size):
        labels[i] = table[values[i] - low]
    return n


def _corners(sized: Array, row: Array, out: Array) -> None:
    """Boxes as corners, in the order of ``row``."""
    for i in range(row.size):
        r = row[i]
        out[i, 0] = sized[r, 0]
        out[i, 1] = sized[r, 1]
        out[i, 2] = sized[r, 0] + sized[r, 2]
        out[i, 3] = sized[r, 1] + sized[r, 3]


# ---- pairs ----------------------------------------------------------------------------------------------


def _sort_by_left(box: Array, first: int, last: int, order: Array) -> None:
    """Shell sort of the boxes first to last by their left edge."""
    for i in range(first, last):
        order[i] = i
    gap = 1
    while gap < (last - first) // 3:
        gap = 3 * gap + 1
    while gap > 0:
        for i in range(first + gap, last):
            row = order[i]
            j = i
            while j >= first + gap and box[order[j - gap], 0] > box[row, 0]:
                order[j] = order[j - gap]
                j -= gap
            order[j] = row
        gap //= 3


def _sort_row(first: int, last: int, pred: Array, iou: Array) -> None:
    """Shell sort of a row's entries by prediction."""
    gap = 1
    while gap < (last - first) // 3:
        gap = 3 * gap + 1
    while gap > 0:
        for i in range(first + gap, last):
            p, value = pred[i], iou[i]
            j = i
            while j >= first + gap and pred[j - gap] > p:
                pred[j] = pred[j - gap]
                iou[j] = iou[j - gap]
                j -= gap
            pred[j] = p
            iou[j] = value
        gap //= 3


def _iou(a: Array, i: int, b: Array, j: int, eps: float) -> float:
    """IoU of corner boxes; 0 where an area is not positive."""
    width = min(a[i, 2], b[j, 2]) - max(a[i, 0], b[j, 0])
    height = min(a[i, 3], b[j, 3]) - max(a[i, 1], b[j, 1])
    if not (width > 0.0 and height > 0.0):
        return 0.0
    area_a = (a[i, 2] - a[i, 0]) * (a[i, 3] - a[i, 1])
    area_b = (b[j, 2] - b[j, 0]) * (b[j, 3] - b[j, 1])
    inter = width * height
    union = area_a + area_b - inter
    if area_a <= eps or area_b <= eps or union <= eps:
        return 0.0
    return inter / union


def _overlap(
    gt_box: Array,
    gt_start: Array,
    pred_box: Array,
    pred_start: Array,
    eps: float,
    order: Array,
    reach: Array,
    pair_start: Array,
    pair_pred: Array,
    pair_iou: Array,
) -> int:
    """Fill the pairs; returns how many there are, of which those that fit are written.

    In every frame the predictions are walked by their left edges; ``reach`` is how far right those up to one
    extend, so that each ground-truth box meets only those that can touch it.
    """
    n = 0
    room = pair_pred.size
    pair_start[0] = 0
    for frame in range(gt_start.size - 1):
        first, last = pred_start[frame], pred_start[frame + 1]
        if gt_start[frame] < gt_start[frame + 1]:
            _sort_by_left(pred_box, first, last, order)
            far = -np.inf
            for i in range(first, last):
                far = max(far, pred_box[order[i], 2])
                reach[i] = far
        for g in range(gt_start[frame], gt_start[frame + 1]):
            low, high = first, last
            while low < high:  # the first that extends beyond this box's left edge
                middle = (low + high) // 2
                if reach[middle] > gt_box[g, 0]:
                    high = middle
                else:
                    low = middle + 1
            for i in range(low, last):
                p = order[i]
                if pred_box[p, 0] >= gt_box[g, 2]:
                    break
                iou = _iou(gt_box, g, pred_box, p, eps)
                if iou > 0.0:
                    if n < room:
                        pair_pred[n] = p
                        pair_iou[n] = iou
                    n += 1
            pair_start[g + 1] = n
            if n <= room:
                _sort_row(pair_start[g], n, pair_pred, pair_iou)
    return n


def _interleaved(first: int, last: int, low: int, n: int, base: int, pred: Array, iou: Array, part: Array) -> float:
    """The sum of up to BLOCK numbers as NumPy rounds it: columns ``low`` to ``low + n``, given by their entries."""
    if n < 8:
        total = 0.0
        for e in range(first, last):
            total += iou[e]
        return total
    for r in range(8):
        part[r] = 0.0
    even = n - n % 8
    e = first
    while e < last and pred[e] - base - low < even:
        part[(pred[e] - base - low) & 7] += iou[e]
        e += 1
    total = ((part[0] + part[1]) + (part[2] + part[3])) + ((part[4] + part[5]) + (part[6] + part[7]))
    while e < last:
        total += iou[e]
        e += 1
    return total


def _row_sum(first: int, last: int, n: int, base: int, pred: Array, iou: Array, part: Array) -> float:
    """The sum of a row of n columns, given by its entries, rounded as ``numpy.sum`` rounds it.

    NumPy halves long rows, at multiples of eight, until a block fits, and adds halves pairwise. ``part`` holds
    the eight parts of a block and then the stack of halves that wait for the other: depth and sum.
    """
    if n <= BLOCK:
        return _interleaved(first, last, 0, n, base, pred, iou, part)
    top = low = 0
    begin = first
    while low < n:
        start, size, depth = 0, n, 0
        while size > BLOCK:
            half = size // 2
            half -= half % 8
            depth += 1
            if low >= start + half:
                start += half
                size -= half
            else:
                size = half
        end = begin
        while end < last and pred[end] - base < low + size:
            end += 1
        total = _interleaved(begin, end, low, size, base, pred, iou, part)
        begin = end
        low += size
        while top > 0 and part[6 + 2 * top] == depth:
            top -= 1
            total = part[9 + 2 * top] + total
            depth -= 1
        part[8 + 2 * top] = depth
        part[9 + 2 * top] = total
        top += 1
    return part[9]


# ---- matching -------------------------------------------------------------------------------------------


def _beats(weight: float, rivals: float) -> bool:
    return weight - rivals > max(RELATIVE * weight, ABSOLUTE)


def _settle(n: int, lists: Array, value: Array, k: Array, f: Array) -> int:
    """Take the pairs that outweigh their rivals until there is none; returns how many entries are left."""
    while n > 0:
        for t in range(n):
            row, col = lists[_ENTRY_ROW, t], lists[_COLUMN, t]
            f[_ROW_BEST, row] = 0.0
            f[_ROW_NEXT, row] = 0.0
            f[_COL_BEST, col] = 0.0
            f[_COL_NEXT, col] = 0.0
        for t in range(n):
            row, col, w = lists[_ENTRY_ROW, t], lists[_COLUMN, t], value[0, t]
            if w > f[_ROW_BEST, row]:
                f[_ROW_NEXT, row] = f[_ROW_BEST, row]
                f[_ROW_BEST, row] = w
                k[_ROW_COL, row] = col
            elif w > f[_ROW_NEXT, row]:
                f[_ROW_NEXT, row] = w
            if w > f[_COL_BEST, col]:
                f[_COL_NEXT, col] = f[_COL_BEST, col]
                f[_COL_BEST, col] = w
                k[_COL_ROW, col] = row
            elif w > f[_COL_NEXT, col]:
                f[_COL_NEXT, col] = w
        taken = 0
        for t in range(n):
            row, col = lists[_ENTRY_ROW, t], lists[_COLUMN, t]
            best = k[_ROW_COL, row] == col and k[_COL_ROW, col] == row
            if best and _beats(value[0, t], f[_ROW_NEXT, row] + f[_COL_NEXT, col]):
                k[_FOUND, row] = col
                k[_ROW_OUT, row] = 1
                k[_COL_OUT, col] = 1
                taken += 1
        if taken == 0:
            return n
        kept = 0
        for t in range(n):
            row, col = lists[_ENTRY_ROW, t], lists[_COLUMN, t]
            if not k[_ROW_OUT, row] and not k[_COL_OUT, col]:
                lists[_ENTRY, kept] = lists[_ENTRY, t]
                lists[_ENTRY_ROW, kept] = row
                lists[_COLUMN, kept] = col
                value[0, kept] = value[0, t]
                kept += 1
        n = kept
    return 0


def _shortest_path(row: int, cols: int, column: Array, value: Array, k: Array, f: Array) -> int:
    """Dijkstra from a free row to a free column, in SciPy's order; the distance is left in ``f[_DIST, cols]``."""
    reached = 0.0
    left = cols
    for t in range(cols):
        k[_REMAINING, t] = cols - t - 1
        k[_COL_SEEN, t] = 0
        f[_DIST, t] = np.inf
    while True:
        k[_ROW_SEEN, row] = 1
        for e in range(k[_START, row], k[_START, row + 1]):
            f[_LINE, column[e]] = -value[e]
        best = -1
        lowest = np.inf
        for t in range(left):
            col = k[_REMAINING, t]
            there = reached + f[_LINE, col] - f[_U, row] - f[_V, col]
            if there < f[_DIST, col]:
                k[_PATH, col] = row
                f[_DIST, col] = there
            if f[_DIST, col] < lowest or (f[_DIST, col] == lowest and k[_ROW4COL, col] < 0):
                lowest = f[_DIST, col]
                best = t
        for e in range(k[_START, row], k[_START, row + 1]):
            f[_LINE, column[e]] = 0.0
        reached = lowest
        col = k[_REMAINING, best]
        k[_COL_SEEN, col] = 1
        left -= 1
        k[_REMAINING, best] = k[_REMAINING, left]
        if k[_ROW4COL, col] < 0:
            f[_DIST, cols] = reached
            return col
        row = k[_ROW4COL, col]


def _solve(rows: int, cols: int, column: Array, value: Array, k: Array, f: Array) -> None:
    """The assignment of all rows (no more than columns) of greatest total, as SciPy finds it.

    The entries of row i are ``k[_START, i]`` to ``k[_START, i + 1]``; all other values are 0.
    """
    for i in range(rows):
        k[_COL4ROW, i] = -1
        f[_U, i] = 0.0
    for j in range(cols):
        k[_ROW4COL, j] = -1
        f[_V, j] = 0.0
        f[_LINE, j] = 0.0
    for root in range(rows):
        for i in range(rows):
            k[_ROW_SEEN, i] = 0
        col = _shortest_path(root, cols, column, value, k, f)
        reached = f[_DIST, cols]
        f[_U, root] += reached
        for i in range(rows):
            if k[_ROW_SEEN, i] and i != root:
                f[_U, i] += reached - f[_DIST, k[_COL4ROW, i]]
        for j in range(cols):
            if k[_COL_SEEN, j]:
                f[_V, j] -= reached - f[_DIST, j]
        while True:
            row = k[_PATH, col]
            k[_ROW4COL, col] = row
            col, k[_COL4ROW, row] = k[_COL4ROW, row], col
            if row == root:
                break


def _list(
    rows: int, first: int, base: int, start: Array, pred: Array, weight: Array, lists: Array, value: Array
) -> int:
    """The entries of positive weight of rows ``first`` on, by row; columns count from ``base``."""
    n = 0
    for row in range(rows):
        for e in range(start[first + row], start[first + row + 1]):
            if weight[e] > 0.0:
                lists[_ENTRY, n] = e
                lists[_ENTRY_ROW, n] = row
                lists[_COLUMN, n] = pred[e] - base
                value[0, n] = weight[e]
                n += 1
    return n


def _solve_rest(n: int, lists: Array, value: Array, k: Array, f: Array, certify: bool) -> bool:
    """Solve the entries left by `_settle`; False if ``certify`` and another assignment comes as near.

    Rows and columns are numbered anew by their entries, and a row may stay alone in a column of its own.
    """
    for t in range(n):
        k[_ROW_MAP, lists[_ENTRY_ROW, t]] = -1
        k[_COL_MAP, lists[_COLUMN, t]] = -1
    rows = cols = 0
    most = 0.0
    for t in range(n):
        row, col = lists[_ENTRY_ROW, t], lists[_COLUMN, t]
        if k[_ROW_MAP, row] < 0:
            k[_ROW_MAP, row] = rows
            k[_START, rows] = t
            rows += 1
        if k[_COL_MAP, col] < 0:
            k[_COL_MAP, col] = cols
            cols += 1
        lists[_ENTRY, t] = k[_COL_MAP, col]
        most = max(most, value[0, t])
    k[_START, rows] = n
    width = max(rows, cols)
    _solve(rows, width, lists[_ENTRY], value[0], k, f)
    for t in range(n):
        row = lists[_ENTRY_ROW, t]
        if k[_COL4ROW, k[_ROW_MAP, row]] == lists[_ENTRY, t]:
            k[_FOUND, row] = lists[_COLUMN, t]
    if not certify:
        return True
    handicap = max(RELATIVE * most, ABSOLUTE)
    for t in range(n):
        if k[_FOUND, lists[_ENTRY_ROW, t]] == lists[_COLUMN, t]:
            value[0, t] -= handicap
            if value[0, t] <= 0.0:
                return False
    _solve(rows, width, lists[_ENTRY], value[0], k, f)
    for t in range(n):
        row = lists[_ENTRY_ROW, t]
        again = k[_COL4ROW, k[_ROW_MAP, row]] == lists[_ENTRY, t]
        if again != (k[_FOUND, row] == lists[_COLUMN, t]):
            return False
    return True


def _solve_whole(rows: int, cols: int, n: int, lists: Array, value: Array, k: Array, f: Array) -> None:
    """Solve the full matrix, given by its entries by row, as SciPy does, which lays it down if it stands."""
    standing = rows > cols
    line = lists[_COLUMN] if standing else lists[_ENTRY_ROW]
    for i in range(min(rows, cols) + 1):
        k[_START, i] = 0
    for t in range(n):
        k[_START, line[t] + 1] += 1
    for i in range(min(rows, cols)):
        k[_START, i + 1] += k[_START, i]
        k[_PATH, i] = k[_START, i]
    for t in range(n):
        at = k[_PATH, line[t]]
        k[_PATH, line[t]] += 1
        lists[_TURNED, at] = lists[_ENTRY_ROW, t] if standing else lists[_COLUMN, t]
        value[1, at] = value[0, t]
    _solve(min(rows, cols), max(rows, cols), lists[_TURNED], value[1], k, f)
    for row in range(rows):
        k[_FOUND, row] = -1
    for t in range(n):
        row, col = lists[_ENTRY_ROW, t], lists[_COLUMN, t]
        if (k[_COL4ROW, col] == row) if standing else (k[_COL4ROW, row] == col):
            k[_FOUND, row] = col


def _assign(
    rows: int,
    cols: int,
    first: int,
    base: int,
    start: Array,
    pred: Array,
    weight: Array,
    as_scipy: bool,
    lists: Array,
    value: Array,
    k: Array,
    f: Array,
) -> None:
    """The best assignment of rows ``first`` on to columns ``base`` on: ``k[_FOUND]``, -1 for none.

    Without ``as_scipy`` any of the best ones will do.
    """
    for row in range(rows):
        k[_FOUND, row] = -1
        k[_ROW_OUT, row] = 0
    for col in range(cols):
        k[_COL_OUT, col] = 0
    n = _list(rows, first, base, start, pred, weight, lists, value)
    n = _settle(n, lists, value, k, f)
    if n > 0 and not _solve_rest(n, lists, value, k, f, as_scipy):
        n = _list(rows, first, base, start, pred, weight, lists, value)
        _solve_whole(rows, cols, n, lists, value, k, f)


def _match(
    gt_start: Array,
    pred_start: Array,
    pair_start: Array,
    pair_pred: Array,
    weight: Array,
    wanted: Array,
    lists: Array,
    value: Array,
    k: Array,
    f: Array,
    mate: Array,
) -> None:
    """The mate of each ground-truth row, a row of the prediction or -1, in the frames that are ``wanted``."""
    for frame in range(gt_start.size - 1):
        first, base = gt_start[frame], pred_start[frame]
        rows, cols = gt_start[frame + 1] - first, pred_start[frame + 1] - base
        if not wanted[frame] or rows == 0 or cols == 0:
            for row in range(rows):
                mate[first + row] = -1
            continue
        _assign(rows, cols, first, base, pair_start, pair_pred, weight, True, lists, value, k, f)
        for row in range(rows):
            mate[first + row] = base + k[_FOUND, row] if k[_FOUND, row] >= 0 else -1


# ---- CLEAR ----------------------------------------------------------------------------------------------


def _clear(
    gt_start: Array,
    gt_id: Array,
    pred_start: Array,
    pred_id: Array,
    pair_start: Array,
    pair_pred: Array,
    pair_iou: Array,
    threshold: float,
    weight: Array,
    lists: Array,
    value: Array,
    k: Array,
    f: Array,
    track: Array,
    mate: Array,
    switched: Array,
) -> float:
    """Match frame after frame, with the memory of the previous one; returns the sum of the matched overlaps.

    ``track`` [5, identities]: boxes, matched boxes, last mate, frame (of those with boxes on both sides) of the
    last match, and how often tracking began. All but the boxes start at 0, 0, -1, -2, 0 and are left filled.
    """
    overlap = 0.0
    scored = 0
    for frame in range(gt_start.size - 1):
        first, base = gt_start[frame], pred_start[frame]
        rows, cols = gt_start[frame + 1] - first, pred_start[frame + 1] - base
        for g in range(first, first + rows):
            track[_BOXES, gt_id[g]] += 1
            mate[g] = -1
            switched[g] = 0
        if rows == 0 or cols == 0:
            continue
        for g in range(first, first + rows):
            identity = gt_id[g]
            before = track[_LAST_MATE, identity] if track[_LAST_SEEN, identity] == scored - 1 else -1
            for e in range(pair_start[g], pair_start[g + 1]):
                if pair_iou[e] < threshold:
                    weight[e] = 0.0
                elif pred_id[pair_pred[e]] == before:
                    weight[e] = CONTINUED + pair_iou[e]
                else:
                    weight[e] = pair_iou[e]
        _assign(rows, cols, first, base, pair_start, pair_pred, weight, True, lists, value, k, f)
        for row in range(rows):
            if k[_FOUND, row] >= 0:
                g = first + row
                identity = gt_id[g]
                mate[g] = base + k[_FOUND, row]
                found = pred_id[mate[g]]
                for e in range(pair_start[g], pair_start[g + 1]):
                    if pair_pred[e] == mate[g]:
                        overlap += pair_iou[e]
                if track[_LAST_MATE, identity] >= 0 and track[_LAST_MATE, identity] != found:
                    switched[g] = 1
                if track[_LAST_SEEN, identity] != scored - 1:
                    track[_BEGUN, identity] += 1
                track[_MATCHED, identity] += 1
                track[_LAST_MATE, identity] = found
                track[_LAST_SEEN, identity] = scored
        scored += 1
    return overlap


# ---- identity and HOTA: one ground-truth identity after another -----------------------------------------


def _cooccur(
    own_start: Array,
    own_row: Array,
    pred_id: Array,
    pair_start: Array,
    pair_pred: Array,
    pair_iou: Array,
    threshold: float,
    count: Array,
    touched: Array,
    both_start: Array,
    both_pred: Array,
    both_count: Array,
) -> None:
    """In how many frames two identities overlap by ``threshold``: a sparse matrix by ground-truth identity.

    ``count`` [identities of the prediction] is 0 and left so; ``touched`` is as long.
    """
    n = 0
    both_start[0] = 0
    for identity in range(own_start.size - 1):
        m = 0
        for i in range(own_start[identity], own_start[identity + 1]):
            g = own_row[i]
            for e in range(pair_start[g], pair_start[g + 1]):
                if pair_iou[e] >= threshold:
                    p = pred_id[pair_pred[e]]
                    if count[p] == 0.0:
                        touched[m] = p
                        m += 1
                    count[p] += 1.0
        for t in range(m):
            both_pred[n] = touched[t]
            both_count[n] = count[touched[t]]
            count[touched[t]] = 0.0
            n += 1
        both_start[identity + 1] = n


def _identity(
    n_gt: int, n_pred: int, both_start: Array, both_pred: Array, both_count: Array, lists: Array, value: Array,
    k: Array, f: Array,
) -> float:  # fmt: skip
    """The greatest total of a one-to-one pairing of identities."""
    _assign(n_gt, n_pred, 0, 0, both_start, both_pred, both_count, False, lists, value, k, f)
    total = 0.0
    for row in range(n_gt):
        for e in range(both_start[row], both_start[row + 1]):
            if both_pred[e] == k[_FOUND, row]:
                total += both_count[e]
    return total


def _together(
    gt_start: Array, gt_frame: Array, pred_start: Array, pred_frame: Array, both_start: Array, both_pred: Array,
    together: Array,
) -> None:  # fmt: skip
    """In how many frames both identities of a pair are present; their frames are ascending."""
    for identity in range(both_start.size - 1):
        for e in range(both_start[identity], both_start[identity + 1]):
            i, j = gt_start[identity], pred_start[both_pred[e]]
            n = 0
            while i < gt_start[identity + 1] and j < pred_start[both_pred[e] + 1]:
                a, b = gt_frame[i], pred_frame[j]
                n += 1 if a == b else 0
                i += 1 if a <= b else 0
                j += 1 if b <= a else 0
            together[e] = n


def _align(
    gt_start: Array,
    pred_start: Array,
    pred_id: Array,
    pred_count: Array,
    own_start: Array,
    own_row: Array,
    pair_start: Array,
    pair_pred: Array,
    pair_iou: Array,
    eps: float,
    column: Array,
    place: Array,
    value: Array,
    part: Array,
    potential: Array,
    weight: Array,
) -> None:
    """HOTA's weight of each pair: its overlap times how well its two identities agree over the sequence.

    The agreement is the Jaccard index of the two identities, where a pair counts by the share that its overlap
    has in all overlaps of its two boxes. ``column`` [rows of the prediction] and ``potential`` [identities of
    the prediction] are 0; the latter is left so. ``place`` and ``value`` are as long as a frame has rows at most.
    """
    for frame in range(gt_start.size - 1):
        base = pred_start[frame]
        cols = pred_start[frame + 1] - base
        if cols == 1:  # a matrix of one column is a row to NumPy
            n = 0
            for g in range(gt_start[frame], gt_start[frame + 1]):
                if pair_start[g] < pair_start[g + 1]:
                    place[n] = g - gt_start[frame]
                    value[n] = pair_iou[pair_start[g]]
                    n += 1
            column[base] = _row_sum(0, n, gt_start[frame + 1] - gt_start[frame], 0, place, value, part)
        else:
            for e in range(pair_start[gt_start[frame]], pair_start[gt_start[frame + 1]]):
                column[pair_pred[e]] += pair_iou[e]
        for g in range(gt_start[frame], gt_start[frame + 1]):
            first, last = pair_start[g], pair_start[g + 1]
            row = _row_sum(first, last, cols, base, pair_pred, pair_iou, part)
            for e in range(first, last):
                every = column[pair_pred[e]] + row - pair_iou[e]
                weight[e] = pair_iou[e] / every if every > eps else 0.0
    for identity in range(own_start.size - 1):
        first, last = own_start[identity], own_start[identity + 1]
        for i in range(first, last):
            for e in range(pair_start[own_row[i]], pair_start[own_row[i] + 1]):
                potential[pred_id[pair_pred[e]]] += weight[e]
        for i in range(first, last):
            for e in range(pair_start[own_row[i]], pair_start[own_row[i] + 1]):
                p = pred_id[pair_pred[e]]
                agreed = potential[p] / (float(last - first) + pred_count[p] - potential[p])
                weight[e] = agreed * pair_iou[e]
        for i in range(first, last):
            for e in range(pair_start[own_row[i]], pair_start[own_row[i] + 1]):
                potential[pred_id[pair_pred[e]]] = 0.0


def _associate(
    own_start: Array,
    own_row: Array,
    pred_id: Array,
    pred_count: Array,
    pair_start: Array,
    pair_pred: Array,
    pair_iou: Array,
    mate: Array,
    level: Array,
    count: Array,
    touched: Array,
    sums: Array,
) -> None:
    """HOTA's sums over the matched pairs, for each threshold ``level`` [A] (ascending).

    ``sums`` [5, A], 0 at first: true positives, their overlaps, and over the true positives the association
    Jaccard index, recall and precision of their two identities. ``count`` [identities of the prediction, A] is
    0 and left so.
    """
    levels = level.size
    for identity in range(own_start.size - 1):
        first, last = own_start[identity], own_start[identity + 1]
        m = 0
        for i in range(first, last):
            g = own_row[i]
            if mate[g] < 0:
                continue
            iou = 0.0
            for e in range(pair_start[g], pair_start[g + 1]):
                if pair_pred[e] == mate[g]:
                    iou = pair_iou[e]
            p = pred_id[mate[g]]
            for a in range(levels):
                if iou < level[a]:
                    break
                if a == 0 and count[p, 0] == 0.0:
                    touched[m] = p
                    m += 1
                count[p, a] += 1.0
                sums[0, a] += 1.0
                sums[1, a] += iou
        for t in range(m):
            p = touched[t]
            for a in range(levels):
                c = count[p, a]
                if c > 0.0:
                    sums[2, a] += c * (c / max(1.0, float(last - first) + pred_count[p] - c))
                    sums[3, a] += c * (c / max(1.0, float(last - first)))
                    sums[4, a] += c * (c / max(1.0, float(pred_count[p])))
                    count[p, a] = 0.0


# ---- compiled -------------------------------------------------------------------------------------------

_ASSIGN = (_beats, _settle, _shortest_path, _solve, _list, _solve_rest, _solve_whole, _assign)

_PROGRAMS = {
    "sort": (_sort,),
    "compact": (_compact,),
    "corners": (_corners,),
    "overlap": (_sort_by_left, _sort_row, _iou, _overlap),
    "match": (*_ASSIGN, _match),
    "clear": (*_ASSIGN, _clear),
    "cooccur": (_cooccur,),
    "identity": (*_ASSIGN, _identity),
    "together": (_together,),
    "align": (_interleaved, _row_sum, _align),
    "associate": (_associate,),
}


def program(name: str) -> Callable[..., Any]:
    """One of the loops, compiled."""
    return _njit.compiled(*_PROGRAMS[name])
