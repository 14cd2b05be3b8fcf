"""Evaluation by the rules of the UA-DETRAC toolkit: ignored regions, greedy matching, figures along the PR curve.

>>> from cv3gpu import mot
>>> from cv3gpu.mot import detrac
>>> gt = mot.Tracks([1, 2, 3], [1, 1, 1], [[100, 100, 10, 10]] * 3)
>>> pred = mot.Tracks([1, 2, 3], [7, 7, 8], [[100, 100, 10, 10], [102, 100, 10, 10], [102, 100, 10, 10]])
>>> figures = detrac.clear(*detrac.prepare(gt, pred))
>>> figures["CLR_TP"], figures["CLR_FP"], figures["IDSW"]  # an IoU of 2/3 continues a pair and starts none
(2, 1, 0)
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from .. import _array, _check, _njit
from ._detrac_loops import DETECT, FOLLOW
from .metrics import CLEAR_COUNTS
from .tracks import Tracks, checked, finite_numbers, identified

__all__ = ["along_curve", "clear", "combine", "inside_ignored", "pr_mota", "precision_recall", "prepare"]

Array = np.ndarray
Figures = dict[str, Any]

SIZE = (960, 540)  # width and height of every image of the benchmark
THRESHOLD = 0.7  # the IoU that a pair needs
CONTINUED = 0.8  # the share of it that is enough for the pair of the frame before
INSIDE = 0.5  # the share of a box in ignored regions from which on it is dropped
TINY = 1e-9  # pixels: a region's last pixel isn't lost to rounding

PR_FIGURES = {
    "PR-MOTA": "MOTA", "PR-MOTP": "MOTP", "PR-MT": "MTR", "PR-PT": "PTR", "PR-ML": "MLR",
    "PR-IDS": "IDSW", "PR-FRAG": "Frag", "PR-FP": "CLR_FP", "PR-FN": "CLR_FN",
}  # fmt: skip


def _share(op: str, name: str, value: Any) -> float:
    value = _check.real(op, name, value)
    if not 0 < value <= 1:
        _check.fail(op, name, "be above 0 and at most 1", value)
    return value


# ---- ignored regions ------------------------------------------------------------------------------------


def _boxes(op: str, name: str, given: Any) -> Array:
    boxes = _array.array_like(op, name, given)
    return finite_numbers(op, name, boxes, ["N", 4]) if boxes.size else np.empty((0, 4))


def _rows(op: str, figures: Any, keys: Iterable[str]) -> list[Figures]:
    """Figures of several sequences, each with all of some keys."""
    rows = list(figures) if isinstance(figures, Iterable) else [figures]
    for row in rows:
        if not isinstance(row, Mapping):
            _check.fail(op, "figures", "hold what mot.detrac.clear returns", _check.kind(row), error=TypeError)
        if missing := [key for key in keys if key not in row]:
            _check.fail(op, "figures", f"have {missing[0]}", ", ".join(map(str, row)) or "nothing")
    return rows


def _rounded(x: Any) -> Any:
    """The nearest whole number, halves away from zero."""
    return np.copysign(np.floor(np.abs(x) + 0.5), x)


def _span(start: float, length: float, size: int) -> slice:
    """The pixels that a region covers on one axis: ``start``, ``start + 1``, … to its end, each rounded."""
    steps = math.floor(min(size, start + length) - start + TINY)
    return slice(max(1, int(_rounded(start))) - 1, max(0, int(_rounded(start + steps))))


def _integral(ignored: Array, width: int, height: int) -> Array:
    """How many pixels of the union lie at or before [y, x], int64."""
    union = np.zeros((height, width), bool)
    for left, top, w, h in ignored.tolist():
        union[_span(top, h, height), _span(left, w, width)] = True
    return union.cumsum(axis=0).cumsum(axis=1)


def inside_ignored(box: Any, ignored: Any, size: tuple[int, int] | None = None) -> Array:
    """Share of each box that lies in the union of the ignored regions, on the pixel grid of the toolkit.

    Parameters
    ----------
    box : array_like, [N, 4], pixels
        Left, top, width, height.
    ignored : array_like, [K, 4], pixels
        Left, top, width, height. Regions may overlap.
    size : (int, int), optional
        Width and height of the image; (960, 540) if left out.

    Returns
    -------
    array, [N], float64
        (Pixels of the box in the union) / (w h), in [0, 1].

    Raises
    ------
    ValueError
        An array of another shape, or a size below 1.

    Notes
    -----
    Pixels count from 1. A region covers the pixels left, left + 1, … up to left + width *inclusive* (no
    further than the image), each rounded to the nearest, so a whole-numbered region is one pixel wider and
    higher than its box. A box is rounded, halves away from zero: its width and height w, h, then the corner
    x = round(centre − w / 2), y = round(bottom − h); it covers x + 1 … x + w and y + 1 … y + h, both ends moved
    into the image first, while the divisor stays w h. A box whose rounded width or height is 0 (or less) has
    the share 0. Cost: one pass over the image and one over the boxes.

    References
    ----------
    Wen et al.: UA-DETRAC: a new benchmark and protocol for multi-object detection and tracking, CVIU 2020,
    arXiv:1511.04136, and its toolkit's ``dropTracks``.

    Examples
    --------
    >>> from cv3gpu.mot import detrac
    >>> detrac.inside_ignored([[10, 10, 20, 20], [30, 10, 20, 20]], [[0, 0, 30, 540], [0, 0, 40, 540]])
    array([1. , 0.5])
    """
    op = "mot.detrac.inside_ignored"
    box, ignored = _boxes(op, "box", box), _boxes(op, "ignored", ignored)
    width, height = _check.pair(op, "size", SIZE if size is None else size, 1)
    if not len(ignored):
        return np.zeros(len(box))
    count = _integral(ignored, width, height)

    left, top, w, h = box.T
    w_whole, h_whole = _rounded(w), _rounded(h)
    x = _rounded(left + w / 2 - w_whole / 2)
    y = _rounded(top + h - h_whole / 2 - h_whole / 2)
    x1, x2 = (np.clip(edge, 1, width).astype(np.int64) - 1 for edge in (x, x + w_whole))
    y1, y2 = (np.clip(edge, 1, height).astype(np.int64) - 1 for edge in (y, y + h_whole))
    covered = count[y2, x2] + count[y1, x1] - count[y1, x2] - count[y2, x1]
    real = (w_whole > 0) & (h_whole > 0)
    return np.where(real, covered / np.where(real, w_whole * h_whole, 1), 0.0)


def prepare(gt: Tracks, pred: Tracks, *, size: tuple[int, int] | None = None) -> tuple[Tracks, Tracks]:
    """Ground truth and prediction as the toolkit compares them: whole pixels, and nothing in ignored regions.

    Parameters
    ----------
    gt : Tracks
        Ground truth; its ``ignored`` regions hold for both sides.
    pred : Tracks
        A tracker's output, or detections.
    size : (int, int), optional
        Width and height of the image; (960, 540) if left out.

    Returns
    -------
    gt : Tracks
        Boxes rounded to whole pixels of at least 1, each trajectory cut to what lies between its first and
        its last box that is less than half inside (:func:`inside_ignored`): what it does between stays.
    pred : Tracks
        The boxes that are less than half inside, each judged on its own; they are not rounded.

    Raises
    ------
    TypeError
        An argument is not ``Tracks``.
    ValueError
        A row of ``gt`` without an identity, or a size below 1.

    References
    ----------
    The toolkit's ``parseGT`` and ``dropTracks`` (arXiv:1511.04136).

    Examples
    --------
    >>> from cv3gpu import mot
    >>> from cv3gpu.mot import detrac
    >>> gt, pred = detrac.prepare(mot.Tracks([1], [1], [[9.6, 20, 30.5, 8]]), mot.Tracks([], [], []))
    >>> gt.box.tolist()
    [[10.0, 20.0, 31.0, 8.0]]
    """
    op = "mot.detrac.prepare"
    gt, pred = identified(op, "gt", gt), checked(op, "pred", pred)
    gt = dataclasses.replace(gt, box=np.maximum(1.0, _rounded(gt.box)))
    outside = inside_ignored(gt.box, gt.ignored, size) < INSIDE
    return gt[_between(gt, outside)], pred[inside_ignored(pred.box, gt.ignored, size) < INSIDE]


def _between(tracks: Tracks, chosen: Array) -> Array:
    """Which rows lie between the first and the last chosen frame of their identity, [N] bool."""
    known, identity = np.unique(tracks.id, return_inverse=True)
    first = np.full(known.size, np.iinfo(np.int64).max)
    last = np.full(known.size, -1)
    np.minimum.at(first, identity[chosen], tracks.frame[chosen])
    np.maximum.at(last, identity[chosen], tracks.frame[chosen])
    return (tracks.frame >= first[identity]) & (tracks.frame <= last[identity])


# ---- CLEAR ----------------------------------------------------------------------------------------------


class _Side(NamedTuple):
    """Boxes in the order of frames."""

    box: Array  # [N, 4] corners
    identity: Array  # [N] from 0
    row: Array  # [N] in the tracks that they came from
    start: Array  # [F + 1] of each frame
    n_identities: int


def _side(tracks: Tracks, frames: Array, within: Array) -> _Side:
    """The rows by frame, and those of one frame by the values of ``within``."""
    row = np.lexsort((within, tracks.frame))
    box = tracks.box[row]
    box[:, 2:] += box[:, :2]
    known, identity = np.unique(tracks.id[row], return_inverse=True)
    start = np.append(np.searchsorted(tracks.frame[row], frames), len(tracks))
    return _Side(box, identity.reshape(-1), row, start, known.size)


def _match(gt: _Side, pred: _Side, frames: Array, threshold: float) -> tuple[Array, Array, Array]:
    """For each ground-truth box its partner's row (−1 for none), their IoU, and whether the identity switches."""
    partner, overlap, switched = np.full(len(gt.box), -1), np.zeros(len(gt.box)), np.zeros(len(gt.box), bool)
    memory = np.full((3, gt.n_identities), -2)
    position, taken = np.full(pred.n_identities, -1), np.zeros(len(pred.box), bool)
    best, best_row = np.zeros(len(gt.box)), np.full(len(gt.box), -1)
    compiled = _njit.compiled(*FOLLOW)
    compiled(
        frames, gt.start, gt.box, gt.identity, pred.start, pred.box, pred.identity, threshold, threshold * CONTINUED,
        memory, position, taken, best, best_row, partner, overlap, switched,
    )  # fmt: skip
    return partner, overlap, switched


def clear(gt: Tracks, pred: Tracks, *, threshold: float = THRESHOLD) -> Figures:
    """CLEAR metrics of one sequence by the rules of the UA-DETRAC toolkit.

    MOTA = 1 − (FN + FP + IDSW) / (TP + FN). In every frame the pairs of the frame before stay together as long
    as both boxes are there and their IoU is at least 0.8 ``threshold``; of the other boxes the pair with the
    greatest IoU is matched, then the next, down to ``threshold``.

    Parameters
    ----------
    gt, pred : Tracks
        Ground truth and prediction of one sequence, compared as they are: see :func:`prepare`.
    threshold : float, (0, 1]
        The IoU that a new pair needs.

    Returns
    -------
    dict of str to int or float
        Under TrackEval's names: counts ``CLR_TP CLR_FN CLR_FP IDSW MT PT ML Frag``, the number of frames
        ``CLR_Frames`` (the last frame seen in either), the sum of overlaps ``MOTP_sum``; ratios ``MOTA MODA
        MOTP CLR_Re CLR_Pr MTR PTR MLR`` (:func:`combine` states them).

    Raises
    ------
    TypeError
        An argument is not ``Tracks``.
    ValueError
        A row without an identity, or a threshold out of range.

    Notes
    -----
    A switch is counted where a ground-truth box is matched to another identity than when it was last matched,
    however long ago, provided that it was there in the frame before (matched or not). The frame before is the
    one with the number one less. Mostly tracked is more than 80 %, mostly lost less than 20 % of an identity's
    boxes. Frag counts the times an identity was matched, then not for a frame or more (also where it was not
    there), and then again. Ties between equal IoUs: the smaller predicted identity, then the smaller
    ground-truth identity. Empty sides give zero counts, and ratios with nothing to divide by are 0.

    Three oversights of the toolkit's script are not repeated: once a box has its partner, its other overlaps
    stay in the script's table, and it may be given to the next best box after all; after a pair whose IoU
    *equals* the threshold no other is sought in the frame; and MOTP adds up only overlaps from the threshold
    on, but divides by all true positives.

    Cost: linear in frames; in a frame, boxes times boxes. Deterministic.

    References
    ----------
    Wen et al.: UA-DETRAC: a new benchmark and protocol for multi-object detection and tracking, CVIU 2020,
    arXiv:1511.04136, and its toolkit's ``CLEAR_MOT``.

    Examples
    --------
    >>> from cv3gpu import mot
    >>> from cv3gpu.mot import detrac
    >>> gt = mot.Tracks([1, 2], [1, 1], [[0, 0, 9, 9], [1, 0, 9, 9]])
    >>> figures = detrac.clear(gt, gt)
    >>> figures["MOTA"], figures["CLR_TP"], figures["MT"]
    (1.0, 2, 1)
    """
    op = "mot.detrac.clear"
    gt, pred = identified(op, "gt", gt), identified(op, "pred", pred)
    threshold = _share(op, "threshold", threshold)
    frames = np.unique(np.concatenate([gt.frame, pred.frame]))
    g, p = _side(gt, frames, gt.id), _side(pred, frames, pred.id)
    partner, overlap, switched = _match(g, p, frames, threshold)
    matched = partner >= 0
    tp = int(matched.sum())
    tracked = np.bincount(g.identity[matched], minlength=g.n_identities) / np.bincount(g.identity)
    mt, lost = int((tracked > 0.8).sum()), int((tracked < 0.2).sum())
    counts = {
        "CLR_TP": tp,
        "CLR_FN": len(gt) - tp,
        "CLR_FP": len(pred) - tp,
        "IDSW": int(switched.sum()),
        "MT": mt,
        "PT": g.n_identities - mt - lost,
        "ML": lost,
        "Frag": _interruptions(g.identity[matched], gt.frame[g.row[matched]]),
        "CLR_Frames": int(frames.max(initial=0)),
        "MOTP_sum": float(overlap[matched].sum()),
    }
    return _with_ratios(counts)


def _interruptions(identity: Array, frame: Array) -> int:
    """How often an identity's frames, given in their order, leave one out or more."""
    order = np.argsort(identity, kind="stable")
    return int(((np.diff(identity[order]) == 0) & (np.diff(frame[order]) > 1)).sum())


def _with_ratios(counts: Figures) -> Figures:
    tp, fn, fp = counts["CLR_TP"], counts["CLR_FN"], counts["CLR_FP"]
    boxes, tracks = max(1, tp + fn), max(1, counts["MT"] + counts["PT"] + counts["ML"])
    present = tp + fn > 0
    return {
        "MOTA": (tp - fp - counts["IDSW"]) / boxes if present else 0.0,
        "MODA": (tp - fp) / boxes if present else 0.0,
        "MOTP": counts["MOTP_sum"] / max(1, tp),
        "CLR_Re": tp / boxes,
        "CLR_Pr": tp / max(1, tp + fp),
        "MTR": counts["MT"] / tracks,
        "PTR": counts["PT"] / tracks,
        "MLR": counts["ML"] / tracks,
        **counts,
    }


def combine(figures: Iterable[Figures]) -> Figures:
    """Figures of several sequences as one: counts add up, ratios follow from the sums.

    MOTA = (TP − FP − IDSW) / (TP + FN), MODA = (TP − FP) / (TP + FN), MOTP = MOTP_sum / TP, CLR_Re = TP / (TP + FN),
    CLR_Pr = TP / (TP + FP); MTR, PTR and MLR are shares of MT + PT + ML. A quotient by zero is 0, and so are MOTA
    and MODA without ground truth.

    Parameters
    ----------
    figures : iterable of dict
        What :func:`clear` returned for each sequence.

    Returns
    -------
    dict of str to int or float
        The same keys.

    Examples
    --------
    >>> from cv3gpu import mot
    >>> from cv3gpu.mot import detrac
    >>> gt, none = mot.Tracks([1], [1], [[0, 0, 9, 9]]), mot.Tracks([], [], [])
    >>> detrac.combine([detrac.clear(gt, gt), detrac.clear(gt, none)])["MOTA"]
    0.5
    """
    rows = _rows("mot.detrac.combine", figures, CLEAR_COUNTS)
    return _with_ratios({name: sum(row[name] for row in rows) for name in CLEAR_COUNTS})


# ---- along the detector's PR curve ----------------------------------------------------------------------


class _Found(NamedTuple):
    """What a detector found in one sequence."""

    hits: Array  # scores of the true positives, ascending
    scores: Array  # of all detections, ascending
    n_gt: int


def _found(gt: Tracks, detections: Tracks, overlap: float) -> _Found:
    frames = np.unique(np.concatenate([gt.frame, detections.frame]))
    score = detections["score"]
    g, d = _side(gt, frames, gt.id), _side(detections, frames, -score)
    free, taken, hit = np.zeros(len(gt), bool), np.zeros(len(gt), bool), np.zeros(len(detections), bool)
    _njit.compiled(*DETECT)(g.start, g.box, d.start, d.box, overlap, free, taken, hit)
    return _Found(np.sort(score[d.row[hit]]), np.sort(score), len(gt))


def _point(found: Sequence[_Found], threshold: float) -> tuple[float, float]:
    """Precision and recall of the detections with at least this score, of all sequences together."""
    tp = sum(one.hits.size - int(np.searchsorted(one.hits, threshold)) for one in found)
    n = sum(one.scores.size - int(np.searchsorted(one.scores, threshold)) for one in found)
    return (tp / n if n else 1.0), tp / max(1, sum(one.n_gt for one in found))


def precision_recall(
    gt: Tracks, detections: Tracks, threshold: float, *, overlap: float = THRESHOLD
) -> tuple[float, float]:
    """Precision and recall of the detections whose score is at least a threshold: a point of the PR curve.

    Detections of a frame are taken by falling score; each one is right if the ground-truth box that it overlaps
    most has an IoU of at least ``overlap`` with it and was not found before.

    Parameters
    ----------
    gt : Tracks
        Ground truth of one sequence.
    detections : Tracks
        Detections with their scores; identities play no part.
    threshold : float
        The least score.
    overlap : float, (0, 1]
        The least IoU.

    Returns
    -------
    precision, recall : float
        TP / detections (1 if there are none, as in the toolkit's files) and TP / ground-truth boxes (0 if there
        are none).

    Raises
    ------
    TypeError
        An argument is not ``Tracks``.
    ValueError
        A number out of range.

    Notes
    -----
    The program that makes the toolkit's curves is not published; this is the matching of PASCAL VOC, which its
    manual refers to. Ties: the earlier row among equal scores, the smaller identity among equal IoUs.

    Examples
    --------
    >>> from cv3gpu import mot
    >>> from cv3gpu.mot import detrac
    >>> box = [[10, 10, 20, 20], [60, 10, 20, 20]]
    >>> gt = mot.Tracks([1, 1], [1, 2], box)
    >>> detrac.precision_recall(gt, mot.Tracks([1, 1], [-1, -1], box, score=[0.9, 0.3]), 0.5)
    (1.0, 0.5)
    """
    op = "mot.detrac.precision_recall"
    gt, detections = checked(op, "gt", gt), checked(op, "detections", detections)
    found = _found(gt, detections, _share(op, "overlap", overlap))
    return _point([found], _check.real(op, "threshold", threshold))


def along_curve(precision: Sequence[float], recall: Sequence[float], figures: Sequence[Figures]) -> dict[str, float]:
    """Figures of a tracker averaged along the PR curve C of its detector: PR-ψ = 1/2 ∫_C ψ(p, r) ds.

    Parameters
    ----------
    precision, recall : sequence of float, [T]
        The points of the curve by rising threshold of the detection score.
    figures : sequence of dict, [T]
        The tracker's figures (:func:`combine`) from the detections at each point.

    Returns
    -------
    dict of str to float
        ``PR-MOTA PR-MOTP PR-MT PR-PT PR-ML`` (of the ratios: 0.3 where the benchmark's tables say 30 %) and
        ``PR-IDS PR-FRAG PR-FP PR-FN`` (of the counts).

    Raises
    ------
    ValueError
        If the lengths differ.

    Notes
    -----
    The curve is the chain of straight lines between its points, with no point added at its ends, and ψ is
    linear on each of them: ``PR-ψ = Σ_i (ψ_i + ψ_i+1) / 4 · |C_i+1 − C_i|``. Fewer than two points give 0.

    The program that prints the toolkit's row is not published, and its rule differs a little: a run of GOG on
    R-CNN detections, whose eleven points give PR-MOTA 29.3831 by this rule, has 29.7705 in its own table.

    References
    ----------
    Wen et al., CVIU 2020, arXiv:1511.04136, section on the evaluation protocol of MOT systems.

    Examples
    --------
    >>> from cv3gpu import mot
    >>> from cv3gpu.mot import detrac
    >>> gt = mot.Tracks([1], [1], [[0, 0, 9, 9]])
    >>> perfect = detrac.clear(gt, gt)
    >>> detrac.along_curve([0.4, 1.0], [1.0, 0.2], [perfect, perfect])["PR-MOTA"]
    0.5
    """
    op = "mot.detrac.along_curve"
    points = [finite_numbers(op, name, x, ["T"]) for name, x in (("precision", precision), ("recall", recall))]
    figures = _rows(op, figures, PR_FIGURES.values())
    if not len(points[0]) == len(points[1]) == len(figures):
        got = f"{len(points[0])}, {len(points[1])} and {len(figures)}"
        _check.fail(op, "precision, recall and figures", "be of one length", got)
    length = np.hypot(*map(np.diff, points))
    psi = np.array([[row[name] for row in figures] for name in PR_FIGURES.values()], float)
    integral = ((psi[:, :-1] + psi[:, 1:]) * length).sum(axis=1) / 4
    return dict(zip(PR_FIGURES, integral.tolist(), strict=True))


def pr_mota(
    gt: Mapping[str, Tracks],
    preds: Mapping[float, Mapping[str, Tracks]],
    detections: Mapping[str, Tracks],
    *,
    threshold: float = THRESHOLD,
) -> dict[str, float]:
    """PR-MOTA and its companions: a tracker's figures along the precision-recall curve of its detector.

    Parameters
    ----------
    gt : mapping of sequence to Tracks
        Ground truth, compared as it is: see :func:`prepare`.
    preds : mapping of score threshold to mapping of sequence to Tracks
        What the tracker made of the detections with at least this score, for the thresholds 0, 0.1, … 1 in the
        benchmark.
    detections : mapping of sequence to Tracks
        All detections with their scores.
    threshold : float, (0, 1]
        The IoU that a new pair of boxes needs, in the tracker's figures and in the detector's curve.

    Returns
    -------
    dict of str to float
        As :func:`along_curve`, with the figures of all sequences together at each threshold.

    Raises
    ------
    TypeError
        A sequence is not ``Tracks``.
    ValueError
        Sequences that are not those of ``gt``, a number out of range.

    References
    ----------
    Wen et al., CVIU 2020, arXiv:1511.04136, section on the evaluation protocol of MOT systems.

    Examples
    --------
    >>> from cv3gpu import mot
    >>> from cv3gpu.mot import detrac
    >>> box = [[10, 10, 20, 20], [60, 10, 20, 20]]
    >>> found = mot.Tracks([1, 1], [1, 2], box, score=[0.9, 0.3])
    >>> runs = {at: {"street": found[found.score >= at]} for at in (0.0, 0.5, 1.0)}
    >>> figures = detrac.pr_mota({"street": found}, runs, {"street": found})
    >>> figures["PR-MOTA"], figures["PR-FN"]  # precision 1, recall 1, 1/2 and 0; MOTA the same
    (0.25, 0.5)
    """
    op = "mot.detrac.pr_mota"
    given: Any
    for name, given in (("gt", gt), ("detections", detections), ("preds", preds)):
        if not isinstance(given, Mapping):
            _check.fail(op, name, "be a mapping", _check.kind(given), error=TypeError)
    for at, run in preds.items():
        if not isinstance(run, Mapping):
            _check.fail(op, f"preds[{at}]", "be a mapping", _check.kind(run), error=TypeError)
    for name, given in (("detections", detections), *((f"preds[{at}]", run) for at, run in preds.items())):
        if set(given) != set(gt):
            _check.fail(op, name, "have the sequences of gt", sorted(given))
    truth = {name: identified(op, f"gt[{name!r}]", tracks) for name, tracks in gt.items()}
    threshold = _share(op, "threshold", threshold)
    found = [_found(truth[name], checked(op, f"detections[{name!r}]", detections[name]), threshold) for name in gt]
    steps = sorted(preds)
    curve = [_point(found, _check.real(op, "preds", at)) for at in steps]
    runs = [combine(clear(truth[name], preds[at][name], threshold=threshold) for name in gt) for at in steps]
    return along_curve([p for p, _ in curve], [r for _, r in curve], runs)
