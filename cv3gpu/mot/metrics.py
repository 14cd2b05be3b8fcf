"""CLEAR and identity metrics of one sequence, by TrackEval's conventions.

Both start from the same list of candidates: the pairs of a ground-truth and a predicted box of one frame that
overlap by at least half. It is found by one batched :func:`cv3gpu.box_iou` over many frames at a time, each
frame padded to the largest.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .. import _check
from ..assignment import linear_sum_assignment
from ..boxes import box_iou
from .tracks import NO_ID, Tracks

__all__ = ["Matches", "clear", "identity", "match"]

THRESHOLD = 0.5
EPS = np.finfo(np.float64).eps  # CLEAR admits an overlap this much below the threshold, identity does not
CONTINUED = 1000.0  # what a pair that was matched in the previous frame is worth beyond its overlap
MAX_BATCH = 1 << 22  # overlaps computed at a time: 32 MiB


class Matches(NamedTuple):
    """The pairs of boxes that CLEAR counts as true positives, in the order of frames.

    ``gt`` and ``pred`` are rows of the two tracks, ``iou`` the pairs' overlaps, and ``switched`` says where
    the ground-truth identity was last matched to another predicted one.
    """

    gt: np.ndarray
    pred: np.ndarray
    iou: np.ndarray
    switched: np.ndarray


class _Side(NamedTuple):
    """Tracks sorted by frame: rows in the file's numbering, and identities from 0."""

    row: np.ndarray
    identity: np.ndarray
    n_identities: int
    start: np.ndarray  # of each frame that either side has, and the end


class _Pairs(NamedTuple):
    """Candidates as positions in the two sides, by frame and then by ground-truth position."""

    gt: np.ndarray
    pred: np.ndarray
    iou: np.ndarray
    start: np.ndarray


def _refuse(op: str, gt: Any, pred: Any) -> None:
    for name, tracks in (("gt", gt), ("pred", pred)):
        if not isinstance(tracks, Tracks):
            _check.fail(
                op, name, "be Tracks", _check.kind(tracks), "read a file with mot.read", error=TypeError
            )
        if len(tracks) and tracks.id.min() == NO_ID:
            frame = int(tracks.frame[np.argmin(tracks.id)])
            _check.fail(
                op, name, "have an identity of at least 0 in every row", f"id {NO_ID} in frame {frame}"
            )


def _sides(gt: Tracks, pred: Tracks) -> tuple[_Side, _Side]:
    frames = np.unique(np.concatenate([gt.frame, pred.frame]))

    def side(tracks: Tracks) -> _Side:
        row = np.argsort(tracks.frame, kind="stable")
        known, identity = np.unique(tracks.id[row], return_inverse=True)
        start = np.searchsorted(tracks.frame[row], frames)
        return _Side(row, identity.reshape(-1), known.size, np.append(start, len(tracks)))

    return side(gt), side(pred)


def _padded(box: np.ndarray, side: _Side, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Boxes [F, most in a frame, 4] of some frames as left, top, right, bottom, and how many are real."""
    counts = side.start[frames + 1] - side.start[frames]
    slot = np.arange(counts.max())
    real = slot < counts[:, None]
    position = np.where(real, side.start[frames][:, None] + slot, 0)
    corners = box[side.row[position]]
    corners[..., 2:] += corners[..., :2]
    return np.where(real[..., None], corners, 0.0), counts


def _candidates(gt: Tracks, pred: Tracks, sides: tuple[_Side, _Side]) -> _Pairs:
    """All pairs of one frame whose IoU is at least the threshold, to within eps."""
    g, p = sides
    n_gt, n_pred = np.diff(g.start), np.diff(p.start)
    shared = np.flatnonzero((n_gt > 0) & (n_pred > 0))
    found = []
    for frames in _batches(shared, n_gt, n_pred):
        a, gt_counts = _padded(gt.box, g, frames)
        b, pred_counts = _padded(pred.box, p, frames)
        iou = box_iou(a, b, format="xyxy")
        f, i, j = np.nonzero(iou >= THRESHOLD - EPS)
        real = (i < gt_counts[f]) & (j < pred_counts[f])
        f, i, j = f[real], i[real], j[real]
        found.append((frames[f], g.start[frames[f]] + i, p.start[frames[f]] + j, iou[f, i, j]))
    if not found:
        found.append((np.empty(0, np.int64),) * 3 + (np.empty(0),))
    frame, i, j, iou = (np.concatenate(part) for part in zip(*found, strict=True))
    return _Pairs(i, j, iou, np.searchsorted(frame, np.arange(n_gt.size + 1)))


def _batches(frames: np.ndarray, n_gt: np.ndarray, n_pred: np.ndarray) -> list[np.ndarray]:
    """Runs of frames whose padded overlaps fit MAX_BATCH."""
    if not frames.size:
        return []
    largest = int(n_gt[frames].max()) * int(n_pred[frames].max())
    return np.array_split(frames, -(-frames.size // max(1, MAX_BATCH // largest)))


# ---- CLEAR ----------------------------------------------------------------------------------------------


def _solve(score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The assignment of the greatest total, by SciPy as in TrackEval: a tie then falls the same way."""
    from scipy.optimize import linear_sum_assignment as scipy_assignment

    return scipy_assignment(-score)


def _match(gt: _Side, pred: _Side, pairs: _Pairs) -> np.ndarray:
    """Which candidates are matched, [len(pairs)] bool.

    A frame whose candidates share no box keeps them all: that is the only optimum, whatever was before. In
    the others the pairs matched in the previous frame (of those with boxes on both sides) come first, then
    the sum of overlaps is maximised.
    """
    rivals = np.bincount(pairs.gt, minlength=gt.row.size)[pairs.gt] > 1
    rivals |= np.bincount(pairs.pred, minlength=pred.row.size)[pairs.pred] > 1
    matched = ~rivals
    n_gt, n_pred = np.diff(gt.start), np.diff(pred.start)
    scored = np.flatnonzero((n_gt > 0) & (n_pred > 0))
    previous = np.append(-1, scored[:-1])
    contested = (
        np.logical_or.reduceat(np.append(rivals, False), pairs.start[scored]) if scored.size else scored
    )
    contested &= pairs.start[scored + 1] > pairs.start[scored]
    for frame, before in zip(scored[contested].tolist(), previous[contested].tolist(), strict=True):
        own = slice(pairs.start[frame], pairs.start[frame + 1])
        i, j = pairs.gt[own], pairs.pred[own]
        score = np.zeros((n_gt[frame], n_pred[frame]))
        row, col = i - gt.start[frame], j - pred.start[frame]
        score[row, col] = pairs.iou[own]
        if before >= 0:
            kept = slice(pairs.start[before], pairs.start[before + 1])
            kept_gt = gt.identity[pairs.gt[kept][matched[kept]]]
            kept_pred = pred.identity[pairs.pred[kept][matched[kept]]]
            continued = np.isin(_key(gt.identity[i], pred.identity[j], pred), _key(kept_gt, kept_pred, pred))
            score[row[continued], col[continued]] += CONTINUED
        chosen = np.full(n_gt[frame], -1)
        rows, cols = _solve(score)
        chosen[rows] = cols
        matched[own] = chosen[row] == col
    return matched


def _key(gt_identity: np.ndarray, pred_identity: np.ndarray, pred: _Side) -> np.ndarray:
    """One number for a pair of identities."""
    return gt_identity * pred.n_identities + pred_identity


class _Chains(NamedTuple):
    """The matched pairs sorted by ground-truth identity, then frame."""

    order: np.ndarray
    same: np.ndarray  # [len - 1]: the pair and the one after it are of one ground-truth identity
    switched: np.ndarray  # [len - 1]: and of two predicted ones


def _chains(gt_identity: np.ndarray, pred_identity: np.ndarray) -> _Chains:
    order = np.argsort(gt_identity, kind="stable")
    same = np.diff(gt_identity[order]) == 0
    return _Chains(order, same, same & (np.diff(pred_identity[order]) != 0))


def match(gt: Tracks, pred: Tracks) -> Matches:
    """The matching behind :func:`clear`: which boxes are true positives, and where identities switch.

    Parameters
    ----------
    gt, pred : Tracks
        Ground truth and prediction of one sequence.

    Returns
    -------
    Matches
        ``(gt, pred, iou, switched)``, one entry for each true positive.

    Examples
    --------
    >>> from cv3gpu import mot
    >>> box = [[0, 0, 9, 9], [1, 0, 9, 9]]
    >>> found = mot.match(mot.Tracks([1, 2], [1, 1], box), mot.Tracks([1, 2], [5, 6], box))
    >>> found.switched.tolist()
    [False, True]
    """
    _refuse("mot.match", gt, pred)
    g, p = _sides(gt, pred)
    pairs = _candidates(gt, pred, (g, p))
    matched = _match(g, p, pairs)
    i, j = pairs.gt[matched], pairs.pred[matched]
    chains = _chains(g.identity[i], p.identity[j])
    switched = np.zeros(i.size, bool)
    switched[chains.order[1:]] = chains.switched
    return Matches(g.row[i], p.row[j], pairs.iou[matched], switched)


def clear(gt: Tracks, pred: Tracks) -> dict[str, float]:
    """CLEAR metrics of one sequence.

    MOTA = (TP − FP − IDSW) / (TP + FN). Boxes are matched frame by frame where they overlap by at least one
    half: pairs matched in the previous frame first, then the matching with the greatest sum of overlaps.

    Parameters
    ----------
    gt, pred : Tracks
        Ground truth and prediction of one sequence, compared as they are: boxes that a benchmark ignores
        must be taken out before, for example ``gt[gt.score != 0]`` for MOT15.

    Returns
    -------
    dict of str to int or float
        TrackEval's keys: counts ``CLR_TP CLR_FN CLR_FP IDSW MT PT ML Frag``; ratios ``MOTA MODA sMOTA MOTP
        CLR_Re CLR_Pr MTR PTR MLR``. MOTP is the mean overlap of the true positives (0 if there are none).

    Raises
    ------
    TypeError
        An argument is not ``Tracks``.
    ValueError
        A row without an identity.

    Notes
    -----
    TrackEval's rules where others differ: only the previous frame with boxes on both sides is remembered (a
    frame without boxes on one side is skipped and breaks nothing); mostly tracked is more than 80 %, mostly
    lost less than 20 % of the frames of an identity; Frag counts how often an identity is matched again after
    a frame in which it was not. Where one side is empty all ratios are 0, but MLR is 1. Among optimal
    matchings of one score the choice is SciPy's.

    References
    ----------
    Bernardin, Stiefelhagen: Evaluating multiple object tracking performance: the CLEAR MOT metrics, 2008.

    Examples
    --------
    >>> from cv3gpu import mot
    >>> gt = mot.Tracks([1, 2], [1, 1], [[0, 0, 9, 9], [1, 0, 9, 9]])
    >>> figures = mot.clear(gt, gt)
    >>> figures["MOTA"], figures["CLR_TP"]
    (1.0, 2)
    """
    _refuse("mot.clear", gt, pred)
    g, p = _sides(gt, pred)
    counts = {"CLR_TP": 0, "CLR_FN": len(gt), "CLR_FP": len(pred), "IDSW": 0}
    if not len(gt) or not len(pred):
        lengths = {"MT": 0, "PT": 0, "ML": g.n_identities if not len(pred) else 0, "Frag": 0}
        ratios = dict.fromkeys(("MOTA", "MODA", "sMOTA", "MOTP", "CLR_Re", "CLR_Pr", "MTR", "PTR"), 0.0)
        return {**ratios, "MLR": 1.0, **counts, **lengths}

    pairs = _candidates(gt, pred, (g, p))
    matched = _match(g, p, pairs)
    i, j = pairs.gt[matched], pairs.pred[matched]
    chains = _chains(g.identity[i], p.identity[j])
    n_gt, n_pred = np.diff(g.start), np.diff(p.start)
    scored = np.cumsum((n_gt > 0) & (n_pred > 0))  # frames with boxes on both sides, counted
    when = scored[np.searchsorted(g.start, i[chains.order], side="right") - 1]

    tp, overlap = i.size, float(pairs.iou[matched].sum())
    fn, fp, idsw = len(gt) - tp, len(pred) - tp, int(chains.switched.sum())
    tracked = np.bincount(g.identity[i], minlength=g.n_identities) / np.bincount(g.identity)
    mt, not_lost = int((tracked > 0.8).sum()), int((tracked >= 0.2).sum())
    return {
        "MOTA": (tp - fp - idsw) / len(gt),
        "MODA": (tp - fp) / len(gt),
        "sMOTA": (overlap - fp - idsw) / len(gt),
        "MOTP": overlap / max(1, tp),
        "CLR_Re": tp / len(gt),
        "CLR_Pr": tp / len(pred),
        "MTR": mt / g.n_identities,
        "PTR": (not_lost - mt) / g.n_identities,
        "MLR": (g.n_identities - not_lost) / g.n_identities,
        "CLR_TP": tp,
        "CLR_FN": fn,
        "CLR_FP": fp,
        "IDSW": idsw,
        "MT": mt,
        "PT": not_lost - mt,
        "ML": g.n_identities - not_lost,
        "Frag": int((chains.same & (np.diff(when) > 1)).sum()),
    }


# ---- identity -------------------------------------------------------------------------------------------


def identity(gt: Tracks, pred: Tracks) -> dict[str, float]:
    """Identity metrics of one sequence.

    IDF1 = 2 IDTP / (2 IDTP + IDFP + IDFN), where IDTP counts the frames in which the two identities of a pair
    overlap by at least one half, under the one-to-one pairing of identities that makes it largest.

    Parameters
    ----------
    gt, pred : Tracks
        Ground truth and prediction of one sequence, compared as they are (see :func:`clear`).

    Returns
    -------
    dict of str to int or float
        TrackEval's keys: ``IDF1 IDR IDP IDTP IDFN IDFP``; 0 where a side is empty.

    Raises
    ------
    TypeError
        An argument is not ``Tracks``.
    ValueError
        A row without an identity.

    References
    ----------
    Ristani et al.: Performance measures and a data set for multi-target, multi-camera tracking, 2016.

    Examples
    --------
    >>> from cv3gpu import mot
    >>> gt = mot.Tracks([1, 2], [1, 1], [[0, 0, 9, 9], [1, 0, 9, 9]])
    >>> mot.identity(gt, mot.Tracks([1, 2], [5, 6], gt.box))["IDF1"]
    0.5
    """
    _refuse("mot.identity", gt, pred)
    g, p = _sides(gt, pred)
    pairs = _candidates(gt, pred, (g, p))
    sure = pairs.iou >= THRESHOLD
    together = _key(g.identity[pairs.gt[sure]], p.identity[pairs.pred[sure]], p)
    frames = np.bincount(together, minlength=g.n_identities * p.n_identities).astype(np.float64)
    idtp = 0
    if frames.size:
        idtp = round(float(linear_sum_assignment(frames.reshape(g.n_identities, -1), maximize=True)[2]))
    return {
        "IDF1": 2 * idtp / max(1, len(gt) + len(pred)),
        "IDR": idtp / max(1, len(gt)),
        "IDP": idtp / max(1, len(pred)),
        "IDTP": idtp,
        "IDFN": len(gt) - idtp,
        "IDFP": len(pred) - idtp,
    }
