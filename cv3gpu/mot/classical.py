"""Trackers without learning: SORT and ByteTrack, which go frame by frame, and the minimum-cost flow of all frames."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from .. import _check
from ..assignment import linear_sum_assignment
from ..boxes import box_iou
from ._kalman import Kalman
from .flow import Flow, min_cost_flow
from .graph import candidate_edges, edge_features
from .tracks import Tracks, checked, identified

__all__ = ["byte_track", "drop_short", "flow_tracker", "sort"]

Array = np.ndarray[Any, Any]

# ByteTrack's noises, in heights: of a position, and of its velocity per frame. Aspect ratios have their own.
_POSITION, _VELOCITY = 1 / 20, 1 / 160
_DUPLICATE = 0.85  # overlap from which on a lost track and a live one are the same


def _detections(op: str, detections: Any) -> Tracks:
    """Tracks whose boxes have an area."""
    found = checked(op, "detections", detections)
    if len(found) and found.box[:, 2:].min() <= 0:
        frame = int(found.frame[(found.box[:, 2:] <= 0).any(1)][0])
        _check.fail(op, "detections", "have boxes with a positive width and height", f"another one in frame {frame}")
    return found


def _by_class(found: Tracks, run: Callable[[Tracks], tuple[Array, Array, Array]]) -> Tracks:
    """The tracks of each class on its own, by ``run``, which says (identity, row, box) of what it has tracked."""
    identity, row, box, known = [], [], [], 0
    for kind in np.unique(found.class_):
        rows = np.flatnonzero(found.class_ == kind)
        mine, which, where = run(found[rows])
        names, numbers = np.unique(mine, return_inverse=True)  # 1, 2, 3 ... without holes
        identity.append(numbers + known + 1)
        row.append(rows[which])
        box.append(where)
        known += len(names)
    if not identity:
        return found[:0]
    ids, rows, boxes = (np.concatenate(part) for part in (identity, row, box))
    order = np.lexsort((ids, found.frame[rows]))
    rows = rows[order]
    columns = {name: getattr(found, name)[rows] for name in ("frame", "score", "class_")}
    return Tracks(id=ids[order], box=boxes[order], ignored=found.ignored, **columns)


def _frames(found: Tracks, alive: Callable[[], bool]) -> Iterator[tuple[int, Array]]:
    """Frame after frame and the rows in it; frames without boxes too, as long as anything is ``alive``."""
    order = np.argsort(found.frame, kind="stable")
    frames, start = np.unique(found.frame[order], return_index=True)
    last = None
    for frame, rows in zip(frames.tolist(), np.split(order, start[1:]), strict=True):
        if last is not None:
            for between in range(last + 1, frame):
                if not alive():
                    break
                yield between, order[:0]
        yield frame, rows
        last = frame


def _pairs(gain: Array) -> tuple[Array, Array]:
    """The matching of the greatest total gain; pairs without a gain are not matched."""
    row, col, _ = linear_sum_assignment(np.maximum(gain, 0), maximize=True)
    good = gain[row, col] > 0
    return row[good], col[good]


def _others(count: int, taken: Array) -> Array:
    """The numbers up to ``count`` that are not taken."""
    left = np.ones(count, bool)
    left[taken] = False
    return np.flatnonzero(left)


# ---- SORT -----------------------------------------------------------------------------------------------

# Centre, area, aspect ratio: noises of measurement and motion, and the variances to begin with.
_SORT_MEASURED = np.array([1.0, 1.0, 10.0, 10.0])
_SORT_MOVED, _SORT_SPEED = 1.0, np.array([1e-2, 1e-2, 1e-4, 0.0])
_SORT_BEGIN, _SORT_BEGIN_SPEED = 10.0, np.array([1e4, 1e4, 1e4, 0.0])


def sort(detections: Tracks, *, max_age: int = 1, min_hits: int = 3, min_iou: float = 0.3,
         min_score: float | None = None) -> Tracks:  # fmt: skip
    """SORT: boxes moved on by Kalman filters of constant velocity, matched to those of the next frame by their overlap.

    Parameters
    ----------
    detections : Tracks
        Identities are not looked at. Classes are tracked separately.
    max_age : int, frames, at least 0
        For how long a track lives on without a detection.
    min_hits : int, at least 0
        Detections in a row after the first one from which on a track is given out; in the first ``min_hits`` frames all
        are.
    min_iou : float, 0 to 1
        Least overlap of a match.
    min_score : float, optional
        Detections of lower scores are left out.

    Returns
    -------
    Tracks
        Filtered boxes in frames with a detection, with its score and class; identities from 1. Sorted by frame, then
        identity.

    Raises
    ------
    TypeError, ValueError
        If a box has no area, or an argument is not as said above.

    Notes
    -----
    On the detections of its authors the figures are theirs. Memory of one frame; hundreds of frames per second. The
    same tracks on every run.

    References
    ----------
    A. Bewley, Z. Ge, L. Ott, F. Ramos, B. Upcroft, "Simple online and realtime tracking", ICIP 2016.

    Examples
    --------
    >>> from cv3gpu import mot
    >>> box = [[10 * t, 0, 20, 40] for t in range(5)] + [[300 - 9 * t, 5, 20, 40] for t in range(5)]
    >>> found = mot.Tracks(frame=[1, 2, 3, 4, 5] * 2, id=[-1] * 10, box=box)
    >>> mot.sort(found)
    Tracks(10 boxes, 2 identities, frames 1 to 5)
    """
    op = "mot.sort"
    found = _detections(op, detections)
    age, hits = _check.integer(op, "max_age", max_age, 0), _check.integer(op, "min_hits", min_hits, 0)
    least = _check.fraction(op, "min_iou", min_iou)
    if min_score is not None:
        found = found[found.score >= _check.real(op, "min_score", min_score)]
    return _by_class(found, lambda some: _sort(some, age, hits, least))


def _sort(found: Tracks, max_age: int, min_hits: int, min_iou: float) -> tuple[Array, Array, Array]:
    filters = Kalman()
    identity = missed = streak = np.empty(0, np.int64)
    known, begun = 0, int(found.frame.min())
    given: list[tuple[Array, Array, Array]] = []
    size = found.box[:, 2:]
    area, aspect = size[:, :1] * size[:, 1:], size[:, :1] / size[:, 1:]
    measured = np.concatenate([found.box[:, :2] + size / 2, area, aspect], 1)
    for frame, rows in _frames(found, lambda: len(filters.position) > 0):
        shrinking = filters.position[:, 2] + filters.velocity[:, 2] <= 0
        filters.velocity[shrinking, 2] = 0
        filters.predict(np.ones(len(identity), bool), _SORT_MOVED, _SORT_SPEED)
        streak = np.where(missed > 0, 0, streak)
        missed = missed + 1
        # An area that is none has no box: the track ends.
        alive = np.logical_and(*(filters.position[:, 2:] > 0).T)
        filters.keep(alive)
        identity, missed, streak = identity[alive], missed[alive], streak[alive]
        iou = box_iou(found.box[rows], _sort_boxes(filters.position), format="xywh")
        one, other = _sort_pairs(iou, min_iou)
        filters.update(other, measured[rows[one]], _SORT_MEASURED)
        missed[other] = 0
        streak[other] += 1
        new = _others(len(rows), one)
        filters.begin(measured[rows[new]], _SORT_BEGIN, _SORT_BEGIN_SPEED)
        identity = np.concatenate([identity, np.arange(known, known + len(new))])
        missed, streak = (np.concatenate([x, np.zeros(len(new), np.int64)]) for x in (missed, streak))
        known += len(new)
        row = np.full(len(identity), -1)
        row[other] = rows[one]
        row[len(identity) - len(new) :] = rows[new]
        out = (missed < 1) & ((streak >= min_hits) | (frame - begun < min_hits)) & (filters.position[:, 2] > 0)
        given.append((identity[out], row[out], _sort_boxes(filters.position[out])))
        young = missed <= max_age
        filters.keep(young)
        identity, missed, streak = identity[young], missed[young], streak[young]
    ids, which, box = (np.concatenate(part) for part in zip(*given, strict=True))
    return ids, which, box


def _sort_boxes(position: Array) -> Array:
    """Left, top, width, height of centre, area, aspect ratio."""
    width = np.sqrt(position[:, 2] * position[:, 3])
    size = np.stack([width, position[:, 2] / width], 1)
    return np.concatenate([position[:, :2] - size / 2, size], 1)


def _sort_pairs(iou: Array, min_iou: float) -> tuple[Array, Array]:
    """The matching of the greatest total overlap, without the pairs that overlap too little."""
    near = iou > min_iou
    if near.size and near.sum(1).max() == 1 and near.sum(0).max() == 1:
        one, other = near.nonzero()
    else:
        one, other, _ = linear_sum_assignment(iou, maximize=True)
    good = iou[one, other] >= max(min_iou, np.finfo(np.float64).tiny)  # 0: any overlap, but some
    return one[good], other[good]


# ---- ByteTrack ------------------------------------------------------------------------------------------

_NEW, _LIVE, _LOST = 0, 1, 2


def byte_track(detections: Tracks, *, high_score: float = 0.6, low_score: float = 0.1, new_score: float | None = None,
               max_age: int = 30, max_cost: float = 0.9) -> Tracks:  # fmt: skip
    """ByteTrack: tracks are matched to the detections of high scores first, and what is left to those of low ones.

    Parameters
    ----------
    detections : Tracks
        Scores from 0 to 1. Identities are not looked at. Classes are tracked separately.
    high_score, low_score : float, 0 to 1
        Above the one a detection is matched first and may begin a track; above the other it may go on one.
    new_score : float, 0 to 1, optional
        From which on a detection may begin a track; ``high_score`` + 0.1 if left out.
    max_age : int, frames, at least 0
        For how long a lost track may be found again. ByteTrack takes about a second.
    max_cost : float, 0 to 1
        Of a first match: 1 - overlap x score is less than this.

    Returns
    -------
    Tracks
        Filtered boxes in frames with a detection, with its score and class; identities from 1. Sorted by frame, then
        identity. :func:`interpolate` fills the gaps.

    Raises
    ------
    TypeError, ValueError
        If a box has no area, or an argument is not as said above.

    Notes
    -----
    The released code, without its filter of wide and small boxes, and but for scores that are just ``high_score``:
    they count as low ones here, and are passed over there. A track that is not matched in its second frame ends, if it
    did not begin in the first frame of all. Memory of one frame; hundreds of frames per second. The same tracks on
    every run.

    References
    ----------
    Y. Zhang, P. Sun, Y. Jiang, D. Yu, F. Weng, Z. Yuan, P. Luo, W. Liu, X. Wang, "ByteTrack: multi-object tracking by
    associating every detection box", ECCV 2022.

    Examples
    --------
    >>> from cv3gpu import mot
    >>> box = [[3 * t, 0, 20, 40] for t in range(5)]
    >>> found = mot.Tracks(frame=range(1, 6), id=[-1] * 5, box=box, score=[0.9, 0.9, 0.3, 0.2, 0.9])
    >>> mot.byte_track(found)
    Tracks(5 boxes, 1 identities, frames 1 to 5)
    """
    op = "mot.byte_track"
    found = _detections(op, detections)
    high, low = _check.fraction(op, "high_score", high_score), _check.fraction(op, "low_score", low_score)
    if low > high:
        _check.fail(op, "low_score", f"not be above high_score ({high:g})", low_score)
    begin = high + 0.1 if new_score is None else _check.fraction(op, "new_score", new_score)
    age, cost = _check.integer(op, "max_age", max_age, 0), _check.fraction(op, "max_cost", max_cost)
    return _by_class(found[found.score > low], lambda some: _byte_track(some, high, begin, age, cost))


def _byte_track(found: Tracks, high: float, begin: float, max_age: int, max_cost: float) -> tuple[Array, Array, Array]:
    filters = Kalman()
    identity = state = started = updated = np.empty(0, np.int64)
    known, first = 0, int(found.frame.min())
    given: list[tuple[Array, Array, Array]] = []
    box = found.box
    measured = np.concatenate([box[:, :2] + box[:, 2:] / 2, box[:, 2:3] / box[:, 3:], box[:, 3:]], 1)
    for frame, rows in _frames(found, lambda: len(filters.position) > 0):
        score = found.score[rows]
        strong, weak = rows[score > high], rows[score <= high]
        filters.velocity[state == _LOST, 3] = 0
        height = filters.position[:, 3:]
        old = state != _NEW
        noises = _noise(height[old], _POSITION, 1e-2), _noise(height[old], _VELOCITY, 1e-5)
        filters.predict(old, *noises)
        where = _byte_boxes(filters.position)
        row = np.full(len(identity), -1)
        # Known tracks and strong detections; then live ones that are left, and weak detections; then new tracks.
        pool = np.flatnonzero(old)
        one, other = _pairs(_overlap(where[pool], box[strong]) * found.score[strong] - (1 - max_cost))
        row[pool[one]] = strong[other]
        strong = strong[_others(len(strong), other)]
        left = np.flatnonzero((state == _LIVE) & (row < 0))
        one, other = _pairs(_overlap(where[left], box[weak]) - 0.5)
        row[left[one]] = weak[other]
        fresh = np.flatnonzero(state == _NEW)
        one, other = _pairs(_overlap(where[fresh], box[strong]) * found.score[strong] - 0.3)
        row[fresh[one]] = strong[other]
        strong = strong[_others(len(strong), other)]

        seen = np.flatnonzero(row >= 0)
        filters.update(seen, measured[row[seen]], _noise(filters.position[seen, 3:], _POSITION, 1e-1))
        updated[seen] = frame
        keep = (row >= 0) | ((state == _LIVE) | ((state == _LOST) & (frame - updated <= max_age)))
        state = np.where(row >= 0, _LIVE, _LOST)
        new = strong[found.score[strong] >= begin]
        scale = measured[new, 3:]
        filters.begin(measured[new], _noise(2 * scale, _POSITION, 1e-2), _noise(10 * scale, _VELOCITY, 1e-5))
        identity = np.concatenate([identity, np.arange(known, known + len(new))])
        started, updated = (np.concatenate([x, np.full(len(new), frame)]) for x in (started, updated))
        state = np.concatenate([state, np.full(len(new), _LIVE if frame == first else _NEW)])
        row, keep = np.concatenate([row, new]), np.concatenate([keep, np.ones(len(new), bool)])
        known += len(new)
        where = _byte_boxes(filters.position)
        keep[_duplicates(where, np.flatnonzero(keep & (state != _LOST)), np.flatnonzero(keep & (state == _LOST)),
                         updated - started)] = False  # fmt: skip
        out = keep & (state == _LIVE)
        given.append((identity[out], row[out], where[out]))
        filters.keep(keep)
        identity, state, started, updated = identity[keep], state[keep], started[keep], updated[keep]
    ids, which, boxes = (np.concatenate(part) for part in zip(*given, strict=True))
    return ids, which, boxes


def _noise(height: Array, share: float, aspect: float) -> Array:
    """Variances of centre, aspect ratio and height, of heights [T, 1]."""
    noise = np.repeat((share * height) ** 2, 4, 1)
    noise[:, 2] = aspect**2
    return noise


def _byte_boxes(position: Array) -> Array:
    """Left, top, width, height of centre, aspect ratio, height."""
    size = np.stack([position[:, 2] * position[:, 3], position[:, 3]], 1)
    return np.concatenate([position[:, :2] - size / 2, size], 1)


def _overlap(a: Array, b: Array) -> Array:
    """IoU as ByteTrack has it: of boxes of whole pixels, both ends included."""
    more = np.array([0.0, 0.0, 1.0, 1.0])
    return box_iou(a + more, b + more, format="xywh")


def _duplicates(box: Array, live: Array, lost: Array, age: Array) -> Array:
    """Of a live track and a lost one in one place, the younger one."""
    one, other = (_overlap(box[live], box[lost]) > _DUPLICATE).nonzero()
    one, other = live[one], lost[other]
    return np.where(age[one] > age[other], other, one)


# ---- minimum-cost flow ----------------------------------------------------------------------------------


class _Costs(NamedTuple):
    """Of a flow, in units of a log-likelihood."""

    max_gap: int  # frames
    min_iou: float  # of linked boxes
    max_distance: float  # of their feet, in heights
    overlap: float  # times -log(IoU)
    missed: float  # for each frame without a detection
    gap: float  # times log(frames)
    score: float  # times log((1 - p) / p) of a detection with the score p
    detection: float
    end: float  # of entry and exit


# Chosen on the first halves of MOT17's training sequences, with YOLOX's detections, for HOTA.
_STILL = _Costs(8, 0.3, 1.0, overlap=1.37, missed=1.23, gap=0.0, score=0.58, detection=-0.5, end=5.0)
_MOVING = _Costs(30, 0.06, 0.5, overlap=1.56, missed=0.084, gap=0.63, score=0.55, detection=-0.67, end=1.8)
_NEIGHBORS = 2  # candidates for each frame in reach: a detection has one of its own in each, before and after
_REACH = 8  # frames before and after a detection, from which its motion is taken
_PROBABILITY = 0.01  # that scores stay away from 0 and 1


def flow_tracker(detections: Tracks, *, max_gap: int = 30, min_score: float = 0.1, end_cost: float | None = None,
                 window: int = 1000) -> Tracks:  # fmt: skip
    r"""Tracks as the minimum-cost flow through the detections of all frames, with linear motion.

    A link over t frames costs :math:`-\alpha \log \mathrm{IoU} + \beta (t - 1) + \gamma \log t`, a detection of score p
    costs :math:`\delta \log \frac{1 - p}{p} + \epsilon`, and a track what its two ends cost. The flow is solved twice:
    at first boxes overlap as they stand, over short gaps; its tracks tell how each detection moves, and then boxes
    overlap where straight motion puts them half way.

    Parameters
    ----------
    detections : Tracks
        Scores from 0 to 1. Identities are not looked at. Classes are tracked separately.
    max_gap : int, frames, at least 1
        The longest step from a detection to the next.
    min_score : float, 0 to 1
        Detections of lower scores are left out.
    end_cost : float, at least 0, optional
        Of each end of a track: more of it makes fewer and longer tracks. As chosen on MOT17 if left out.
    window : int, frames, at least 1
        How many frames are solved at once, with some more on both sides, so that memory is bounded by these.

    Returns
    -------
    Tracks
        The boxes of detections as they are, with their scores and classes; identities from 1. Sorted by frame, then
        identity. :func:`interpolate` fills the gaps.

    Raises
    ------
    TypeError, ValueError
        If a box has no area, or an argument is not as said above.

    Notes
    -----
    The optimum of each window; where windows meet, the links into a frame are those of the window that it lies in the
    middle of. Costs were chosen on the first halves of MOT17's training sequences. About a thousand frames per second
    for scenes of twenty people. The same tracks on every run.

    References
    ----------
    L. Zhang, Y. Li, R. Nevatia, "Global data association for multi-object tracking using network flows", CVPR 2008.

    Examples
    --------
    >>> from cv3gpu import mot
    >>> box = [[3 * t, 0, 20, 40] for t in range(6)]
    >>> found = mot.Tracks(frame=[1, 2, 3, 6, 7, 8], id=[-1] * 6, box=box, score=[0.9, 0.9, 0.4, 0.9, 0.9, 0.9])
    >>> mot.flow_tracker(found)
    Tracks(6 boxes, 1 identities, frames 1 to 8)
    """
    op = "mot.flow_tracker"
    found = _detections(op, detections)
    least, step = _check.fraction(op, "min_score", min_score), _check.integer(op, "max_gap", max_gap, 1)
    still, moving = _STILL._replace(max_gap=min(step, _STILL.max_gap)), _MOVING._replace(max_gap=step)
    if end_cost is not None:
        end = _check.not_negative(op, "end_cost", end_cost)
        still, moving = still._replace(end=end), moving._replace(end=end)
    frames = _check.integer(op, "window", window, 1)

    def run(some: Tracks) -> tuple[Array, Array, Array]:
        order = np.argsort(some.frame, kind="stable")
        nodes = some[order]
        first = _flow(nodes, np.zeros((len(nodes), 2)), still, frames)
        identity = _flow(nodes, _speeds(nodes, first), moving, frames)
        row = np.flatnonzero(identity >= 0)
        return identity[row], order[row], nodes.box[row]

    return _by_class(found[found.score >= least], run)


def _flow(nodes: Tracks, velocity: Array, costs: _Costs, window: int) -> Array:
    """The identities [N] of detections sorted by frame, -1 for those that are not used: window by window."""
    frame = nodes.frame
    before, followed, used = np.full(len(nodes), -1), np.zeros(len(nodes), bool), np.zeros(len(nodes), bool)
    for start in frame[0] + np.unique((frame - frame[0]) // window) * window if len(frame) else ():
        last = start + window
        low, high = np.searchsorted(frame, (start - 2 * costs.max_gap, last + 2 * costs.max_gap))
        one, end = np.searchsorted(frame, (start, last))
        links, flow = _solve(nodes[low:high], velocity[low:high], costs)
        used[one:end] |= flow.used[one - low : end - low]
        i, j = links[:, flow.active] + low
        mine = (j >= one) & (j < end) & ~followed[i]
        before[j[mine]] = i[mine]
        followed[i[mine]] = True
    linked = np.flatnonzero(before >= 0)
    used[linked] = used[before[linked]] = True
    first = np.arange(len(nodes))
    first[linked] = before[linked]
    while (first != first[first]).any():
        first = first[first]
    return np.where(used, first, -1)


def _solve(nodes: Tracks, velocity: Array, costs: _Costs) -> tuple[Array, Flow]:
    """The links between some detections, and which of them the flow takes."""
    links = candidate_edges(
        nodes.frame, nodes.box, max_gap=costs.max_gap, k=_NEIGHBORS * costs.max_gap + _NEIGHBORS, velocity=velocity,
        max_distance=costs.max_distance,
    )  # fmt: skip
    found = edge_features(nodes.frame, nodes.box, links, fps=1, velocity=velocity)
    near = found[:, -2] >= costs.min_iou
    links, gap, iou = links[:, near], found[near, 0].astype(np.float64), found[near, -2].astype(np.float64)
    score = np.clip(nodes.score, _PROBABILITY, 1 - _PROBABILITY)
    return links, min_cost_flow(
        links, costs.missed * (gap - 1) + costs.gap * np.log(gap) - costs.overlap * np.log(iou),
        costs.score * np.log((1 - score) / score) + costs.detection, entry_cost=costs.end, exit_cost=costs.end,
    )  # fmt: skip


def _speeds(nodes: Tracks, identity: Array) -> Array:
    """The motion of each detection's centre [N, 2], pixels per frame: the slope of its track's near frames."""
    order = np.lexsort((nodes.frame, identity))
    of, time = identity[order], nodes.frame[order].astype(np.float64)
    centre = (nodes.box[:, :2] + nodes.box[:, 2:] / 2)[order]
    count, t, tt = np.ones(len(of)), np.zeros(len(of)), np.zeros(len(of))
    p, tp = np.zeros((len(of), 2)), np.zeros((len(of), 2))
    for apart in range(1, min(_REACH, len(of) - 1) + 1):  # rows that are so many apart, and in reach in time
        one, other = slice(None, -apart), slice(apart, None)
        near = (of[one] == of[other]) & (of[one] >= 0) & (time[other] - time[one] <= _REACH)
        later = np.where(near, time[other] - time[one], 0)
        moved = np.where(near[:, None], centre[other] - centre[one], 0)
        for mine, sign in ((one, 1), (other, -1)):
            count[mine] += near
            t[mine] += sign * later
            tt[mine] += later**2
            p[mine] += sign * moved
            tp[mine] += later[:, None] * moved
    spread = tt - t * t / count
    speeds = np.zeros((len(of), 2))
    some = spread > 0
    speeds[order[some]] = (tp - t[:, None] * p / count[:, None])[some] / spread[some, None]
    return speeds


# ---- after tracking -------------------------------------------------------------------------------------


def drop_short(tracks: Tracks, min_length: int) -> Tracks:
    """Leaves out trajectories of few boxes.

    Parameters
    ----------
    tracks : Tracks
        With an identity in every row.
    min_length : int, boxes, at least 0

    Returns
    -------
    Tracks
        The rows of trajectories of so many boxes or more. A trajectory is an identity of one class.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as said above.

    Examples
    --------
    >>> from cv3gpu import mot
    >>> tracks = mot.Tracks(frame=[1, 1, 2], id=[1, 2, 1], box=[[0, 0, 9, 9]] * 3)
    >>> mot.drop_short(tracks, 2)
    Tracks(2 boxes, 1 identities, frames 1 to 2)
    """
    op = "mot.drop_short"
    given = identified(op, "tracks", tracks)
    least = _check.integer(op, "min_length", min_length, 0)
    _, which, count = np.unique(np.stack([given.id, given.class_]), axis=1, return_inverse=True, return_counts=True)
    return given[count[which] >= least]
