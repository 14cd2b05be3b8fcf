"""UA-DETRAC's greedy matching, for `_njit.compiled`: plain loops over arrays that the caller made."""

from __future__ import annotations

import numpy as np

Array = np.ndarray

_LAST = 0  # rows of the memory, by ground-truth identity: the predicted identity last matched,
_MET = 1  # the number of the frame in which that was,
_SEEN = 2  # and of the last frame in which the identity was there


def _iou(a: Array, i: int, b: Array, j: int) -> float:
    w = min(a[i, 2], b[j, 2]) - max(a[i, 0], b[j, 0])
    h = min(a[i, 3], b[j, 3]) - max(a[i, 1], b[j, 1])
    if w <= 0.0 or h <= 0.0:
        return 0.0
    areas = (a[i, 2] - a[i, 0]) * (a[i, 3] - a[i, 1]) + (b[j, 2] - b[j, 0]) * (b[j, 3] - b[j, 1])
    return w * h / (areas - w * h)


def _nearest(a: Array, i: int, b: Array, first: int, last: int, taken: Array) -> tuple[float, int]:
    """The greatest IoU of box i with those of b that are free, and the first row that has it (−1 for none)."""
    best, row = 0.0, -1
    for j in range(first, last):
        if not taken[j]:
            overlap = _iou(a, i, b, j)
            if overlap > best:
                best, row = overlap, j
    return best, row


def _continue(
    frame: int, g0: int, g1: int, gt: Array, gt_identity: Array, p0: int, p1: int, pred: Array, pred_identity: Array,
    stay: float, memory: Array, position: Array, taken: Array, partner: Array, overlap: Array,
) -> None:  # fmt: skip
    """Keeps the pairs of the frame before."""
    for j in range(p0, p1):
        position[pred_identity[j]] = j
    for i in range(g0, g1):
        who = gt_identity[i]
        if memory[_MET, who] == frame - 1:
            j = position[memory[_LAST, who]]
            if j >= p0:
                iou = _iou(gt, i, pred, j)
                if iou >= stay:
                    partner[i], overlap[i], taken[j] = j, iou, True


def _pair_greedily(
    g0: int, g1: int, gt: Array, p0: int, p1: int, pred: Array, enter: float,
    taken: Array, best: Array, best_row: Array, partner: Array, overlap: Array,
) -> None:  # fmt: skip
    """Matches the pair with the greatest IoU, again and again, among boxes that are free."""
    for i in range(g0, g1):
        if partner[i] < 0:
            best[i], best_row[i] = _nearest(gt, i, pred, p0, p1, taken)
    while True:
        top = -1
        for i in range(g0, g1):
            if partner[i] < 0 and best_row[i] >= 0 and best[i] >= enter:
                if taken[best_row[i]]:
                    best[i], best_row[i] = _nearest(gt, i, pred, p0, p1, taken)
                    if best_row[i] < 0 or best[i] < enter:
                        continue
                if top < 0 or best[i] > best[top] or (best[i] == best[top] and best_row[i] < best_row[top]):
                    top = i
        if top < 0:
            return
        partner[top], overlap[top], taken[best_row[top]] = best_row[top], best[top], True


def _remember(
    frame: int, g0: int, g1: int, gt_identity: Array, pred_identity: Array,
    memory: Array, partner: Array, switched: Array,
) -> None:  # fmt: skip
    """Counts switches, and notes who was there and with whom."""
    for i in range(g0, g1):
        who = gt_identity[i]
        if partner[i] >= 0:
            now = pred_identity[partner[i]]
            before = memory[_LAST, who]
            switched[i] = before >= 0 and before != now and memory[_SEEN, who] == frame - 1
            memory[_LAST, who], memory[_MET, who] = now, frame
        memory[_SEEN, who] = frame


def _follow(
    frames: Array, gt_start: Array, gt: Array, gt_identity: Array, pred_start: Array, pred: Array, pred_identity: Array,
    enter: float, stay: float, memory: Array, position: Array, taken: Array, best: Array, best_row: Array,
    partner: Array, overlap: Array, switched: Array,
) -> None:  # fmt: skip
    for f in range(frames.size):
        frame, g0, g1, p0, p1 = frames[f], gt_start[f], gt_start[f + 1], pred_start[f], pred_start[f + 1]
        _continue(
            frame, g0, g1, gt, gt_identity, p0, p1, pred, pred_identity,
            stay, memory, position, taken, partner, overlap,
        )  # fmt: skip
        _pair_greedily(g0, g1, gt, p0, p1, pred, enter, taken, best, best_row, partner, overlap)
        _remember(frame, g0, g1, gt_identity, pred_identity, memory, partner, switched)


def _detect(
    gt_start: Array, gt: Array, start: Array, box: Array, enter: float, free: Array, taken: Array, hit: Array
) -> None:
    """Which detections, by falling score in each frame, find a box that none found before."""
    for f in range(gt_start.size - 1):
        for j in range(start[f], start[f + 1]):
            iou, i = _nearest(box, j, gt, gt_start[f], gt_start[f + 1], free)
            if iou >= enter and not taken[i]:
                taken[i], hit[j] = True, True


FOLLOW = (_iou, _nearest, _continue, _pair_greedily, _remember, _follow)
DETECT = (_iou, _nearest, _detect)
