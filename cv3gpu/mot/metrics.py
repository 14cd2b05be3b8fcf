"""CLEAR, identity, HOTA, VACE and counts of one sequence or many, by TrackEval's conventions to the last digit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from .. import _check
from . import _loops
from ._scene import EPS, Scene, Workspace, scene
from .tracks import Tracks, identified, repeated

__all__ = [
    "ALPHAS",
    "CLEAR_COUNTS",
    "METRICS",
    "Matches",
    "clear",
    "combine",
    "count",
    "figures",
    "hota",
    "identity",
    "match",
    "vace",
]

Array = np.ndarray
Figures = dict[str, Any]

THRESHOLD = 0.5
ALPHAS = np.arange(0.05, 0.99, 0.05)  # HOTA's thresholds, rounded as TrackEval's are
LEVELS = ALPHAS - EPS  # CLEAR and HOTA admit an overlap this much below a threshold, identity does not


class Matches(NamedTuple):
    """The pairs of boxes that CLEAR counts as true positives, in the order of frames.

    ``gt`` and ``pred`` are rows of the two tracks, ``iou`` the pairs' overlaps, and ``switched`` says where
    the ground-truth identity was last matched to another predicted one.
    """

    gt: Array
    pred: Array
    iou: Array
    switched: Array


def _scene(op: str, gt: Any, pred: Any) -> Scene:
    for name, tracks in (("gt", gt), ("pred", pred)):
        identified(op, name, tracks)
        classes_differ = (tracks.class_ != tracks.class_[:1]).any()  # else tracks have no identity twice
        if classes_differ and (twice := repeated(tracks.frame, tracks.id)) is not None:
            got = f"id {tracks.id[twice[1]]} of several classes in frame {tracks.frame[twice[1]]}"
            _check.fail(op, name, "have no identity twice in a frame", got, "evaluate each class by itself")
    return scene(gt, pred)


def first_frame(gt: Tracks, pred: Tracks) -> int:
    """The number of a sequence's first frame: 1, or 0 if that is there."""
    return 0 if any(tracks.frame.min() == 0 for tracks in (gt, pred) if len(tracks)) else 1


def length(gt: Tracks, pred: Tracks, first: int | None = None) -> int:
    """How many frames there are up to the last one seen on either side, from frame ``first`` (:func:`first_frame`)."""
    first = first_frame(gt, pred) if first is None else first
    last = max((int(tracks.frame.max()) for tracks in (gt, pred) if len(tracks)), default=first - 1)
    return last - first + 1


# ---- CLEAR ----------------------------------------------------------------------------------------------


class _Clear(NamedTuple):
    """CLEAR's matching: what `clear` counts and `match` shows."""

    overlap: float
    mate: Array  # [gt rows]: row of the prediction or -1
    switched: Array
    track: Array  # [5, identities], see `_loops._clear`


def _match_clear(s: Scene) -> _Clear:
    rows, identities = s.gt.row.size, s.gt.n_identities
    mate, switched = np.empty(rows, np.int64), np.empty(rows, np.int64)
    track = np.zeros((5, identities), np.int64)
    track[2], track[3] = -1, -2
    weight = np.empty(s.pairs.iou.size)
    sides = s.gt.start, s.gt.identity, s.pred.start, s.pred.identity
    overlap = _loops.program("clear")(
        *sides, *s.pairs, THRESHOLD - EPS, weight, *s.frame_workspace(), track, mate, switched
    )
    return _Clear(overlap, mate, switched.astype(bool), track)


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
    s = _scene("mot.match", gt, pred)
    found = _match_clear(s)
    g = np.flatnonzero(found.mate >= 0)
    p = found.mate[g]
    of_mate = s.pairs.of_mates(found.mate)
    return Matches(s.gt.row[g], s.pred.row[p], s.pairs.iou[of_mate], found.switched[g])


def clear(gt: Tracks, pred: Tracks) -> Figures:
    """CLEAR metrics of one sequence.

    MOTA = (TP − FP − IDSW) / (TP + FN). Boxes are matched frame by frame where they overlap by at least one
    half: pairs matched in the previous frame first, then the matching with the greatest sum of overlaps.

    Parameters
    ----------
    gt, pred : Tracks
        Ground truth and prediction of one sequence, compared as they are: boxes that a benchmark ignores
        must be taken out before (:func:`prepare`).

    Returns
    -------
    dict of str to int or float
        TrackEval's keys: counts ``CLR_TP CLR_FN CLR_FP IDSW MT PT ML Frag CLR_Frames``; ratios ``MOTA MODA
        sMOTA MOTAL MOTP CLR_Re CLR_Pr CLR_F1 MTR PTR MLR FP_per_frame``, and ``MOTP_sum``. MOTP is the mean
        overlap of the true positives (0 if there are none).

    Raises
    ------
    TypeError
        An argument is not ``Tracks``.
    ValueError
        A row without an identity.

    Notes
    -----
    TrackEval's rules where others differ: only the previous frame with boxes on both sides is remembered (a
    frame without boxes on one side is skipped and breaks nothing); a switch is counted against the last
    identity that the ground truth was matched to, however long ago; mostly tracked is more than 80 %, mostly
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
    >>> scores = mot.clear(gt, gt)
    >>> scores["MOTA"], scores["CLR_TP"]
    (1.0, 2)
    """
    return _clear(_scene("mot.clear", gt, pred), length(gt, pred))


CLEAR_COUNTS = ("CLR_TP", "CLR_FN", "CLR_FP", "IDSW", "MT", "PT", "ML", "Frag", "CLR_Frames", "MOTP_sum")


class Sizes(NamedTuple):
    """How much there is of a sequence."""

    gt: int
    pred: int
    gt_identities: int
    pred_identities: int
    frames: int


def _sizes(s: Scene, n_frames: int) -> Sizes:
    return Sizes(s.gt.row.size, s.pred.row.size, s.gt.n_identities, s.pred.n_identities, n_frames)


def _clear(s: Scene, n_frames: int) -> Figures:
    size = _sizes(s, n_frames)
    if not size.gt or not size.pred:
        return clear_figures(size, ClearCounts(0, 0, 0, 0, 0, 0.0))
    found = _match_clear(s)
    boxes, matched, _, _, begun = found.track
    tracked = matched / boxes
    again = np.maximum(begun - 1, 0).sum()
    mostly, partly = (tracked > 0.8).sum(), (tracked >= 0.2).sum()
    tp, switches = matched.sum(), found.switched.sum()
    counts = ClearCounts(int(tp), int(switches), int(again), int(mostly), int(partly), found.overlap)
    return clear_figures(size, counts)


class ClearCounts(NamedTuple):
    """What CLEAR counts of a sequence with boxes on both sides."""

    tp: int
    switches: int
    again: int  # times that tracking of an identity began again
    mostly: int  # identities tracked in more than 80 % of their frames,
    partly: int  # and in at least 20 %
    overlap: float


def clear_figures(size: Sizes, found: ClearCounts) -> Figures:
    """CLEAR's figures from its counts."""
    counts = {
        "CLR_TP": found.tp,
        "CLR_FN": size.gt - found.tp,
        "CLR_FP": size.pred - found.tp,
        "IDSW": found.switches,
        "MT": found.mostly,
        "PT": found.partly - found.mostly,
        "ML": size.gt_identities - found.partly,
        "Frag": found.again,
        "CLR_Frames": size.frames,
        "MOTP_sum": found.overlap,
    }
    if size.gt and size.pred:
        return _finish_clear(counts)
    return {**dict.fromkeys(_finish_clear(counts), 0.0), **counts, "CLR_Frames": 0, "MLR": 1.0}


def _finish_clear(c: Figures) -> Figures:
    tp, fn, fp, idsw = (c[key] for key in ("CLR_TP", "CLR_FN", "CLR_FP", "IDSW"))
    boxes, identities = max(1, tp + fn), max(1, c["MT"] + c["PT"] + c["ML"])
    return {
        "MOTA": (tp - fp - idsw) / boxes,
        "MOTP": c["MOTP_sum"] / max(1, tp),
        "MODA": (tp - fp) / boxes,
        "CLR_Re": tp / boxes,
        "CLR_Pr": tp / max(1, tp + fp),
        "MTR": c["MT"] / identities,
        "PTR": c["PT"] / identities,
        "MLR": c["ML"] / identities,
        "sMOTA": (c["MOTP_sum"] - fp - idsw) / boxes,
        "CLR_F1": tp / max(1.0, tp + 0.5 * fn + 0.5 * fp),
        "FP_per_frame": fp / max(1, c["CLR_Frames"]),
        "MOTAL": (tp - fp - (float(np.log10(idsw)) if idsw else 0)) / boxes,
        **c,
    }


# ---- identity -------------------------------------------------------------------------------------------


def identity(gt: Tracks, pred: Tracks) -> Figures:
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
    return _identity(_scene("mot.identity", gt, pred), 0)


class _Both(NamedTuple):
    """In how many frames two identities overlap by the threshold: a sparse matrix by ground-truth identity."""

    start: Array
    pred: Array
    frames: Array


def _cooccur(s: Scene) -> _Both:
    n_gt, n_pred, n = s.gt.n_identities, s.pred.n_identities, s.pairs.iou.size
    both = _Both(np.empty(n_gt + 1, np.int64), np.empty(n, np.int32), np.empty(n))
    workspace = np.zeros(n_pred), np.empty(n_pred, np.int64)
    _loops.program("cooccur")(s.gt.own_start, s.gt.own_row, s.pred.identity, *s.pairs, THRESHOLD, *workspace, *both)
    n = int(both.start[-1])
    return _Both(both.start, both.pred[:n], both.frames[:n])


def _best_pairing(s: Scene, both: _Both, weight: Array) -> float:
    """The greatest total weight of a one-to-one pairing of identities."""
    n_gt, n_pred = s.gt.n_identities, s.pred.n_identities
    workspace = Workspace.of(max(n_gt, n_pred), weight.size)
    return _loops.program("identity")(n_gt, n_pred, both.start, both.pred, weight, *workspace)


def _identity(s: Scene, n_frames: int) -> Figures:
    both = _cooccur(s)
    return identity_figures(_sizes(s, n_frames), _best_pairing(s, both, both.frames))


def identity_figures(size: Sizes, idtp: float) -> Figures:
    """The identity figures from the number of frames that the best pairing of identities covers."""
    tp = round(idtp)
    return _finish_identity({"IDTP": tp, "IDFN": size.gt - tp, "IDFP": size.pred - tp})


def _finish_identity(c: Figures) -> Figures:
    tp, fn, fp = c["IDTP"], c["IDFN"], c["IDFP"]
    return {
        "IDF1": tp / max(1.0, tp + 0.5 * fp + 0.5 * fn),
        "IDR": tp / max(1, tp + fn),
        "IDP": tp / max(1, tp + fp),
        **c,
    }


# ---- HOTA -----------------------------------------------------------------------------------------------


def hota(gt: Tracks, pred: Tracks) -> Figures:
    """HOTA metrics of one sequence.

    HOTA_α = √(DetA_α · AssA_α) for 19 thresholds α = 0.05, 0.10 … 0.95, and the mean over them. DetA is the
    Jaccard index of detection, AssA the mean over the true positives of the Jaccard index of their two
    identities.

    Parameters
    ----------
    gt, pred : Tracks
        Ground truth and prediction of one sequence, compared as they are (see :func:`clear`).

    Returns
    -------
    dict of str to float or array
        ``HOTA DetA AssA DetRe DetPr AssRe AssPr LocA OWTA``: means over α, and each also as an array [19] under
        its name with ``_alpha`` behind; the counts ``HOTA_TP_alpha HOTA_FN_alpha HOTA_FP_alpha`` [19]; and
        ``HOTA(0) LocA(0) HOTALocA(0)``, the values at α = 0.05.

    Raises
    ------
    TypeError
        An argument is not ``Tracks``.
    ValueError
        A row without an identity.

    Notes
    -----
    A frame is matched once for all α: by the overlap of two boxes times the agreement of their identities over
    the whole sequence. Where one side is empty, LocA is 1 and the rest 0.

    References
    ----------
    Luiten et al.: HOTA: a higher order metric for evaluating multi-object tracking, IJCV 2021, equations 5, 12,
    16 to 20.

    Examples
    --------
    >>> from cv3gpu import mot
    >>> gt = mot.Tracks([1, 2], [1, 1], [[0, 0, 9, 9], [1, 0, 9, 9]])
    >>> round(mot.hota(gt, mot.Tracks([1, 2], [5, 6], gt.box))["HOTA"], 4)
    0.7071
    """
    return _hota(_scene("mot.hota", gt, pred), 0)


_HOTA_CURVES = ("HOTA", "DetA", "AssA", "DetRe", "DetPr", "AssRe", "AssPr", "LocA", "OWTA")
_ASSOCIATION = ("AssA", "AssRe", "AssPr")


def _hota(s: Scene, n_frames: int) -> Figures:
    size = _sizes(s, n_frames)
    sums = np.zeros((5, ALPHAS.size))
    if size.gt and size.pred:
        _hota_sums(s, sums)
    return hota_figures(size, sums)


def hota_figures(size: Sizes, sums: Array) -> Figures:
    """HOTA's figures from its sums [5, 19] (see `_loops._associate`)."""
    tp = sums[0]
    located = np.maximum(1e-10, sums[1]) / np.maximum(1e-10, tp)
    associated = dict(zip(_ASSOCIATION, sums[2:] / np.maximum(1, tp), strict=True))
    return _finish_hota({"TP": tp, "FN": size.gt - tp, "FP": size.pred - tp}, associated, located)


def _hota_sums(s: Scene, sums: Array) -> None:
    pred_count = s.pred.per_identity
    n_pred, most = s.pred.n_identities, int(s.gt.per_frame.max())
    weight = np.empty(s.pairs.iou.size)
    _loops.program("align")(
        s.gt.start, s.pred.start, s.pred.identity, pred_count, s.gt.own_start, s.gt.own_row, *s.pairs, EPS,
        np.zeros(s.pred.row.size), np.empty(most, np.int32), np.empty(most), np.empty(_loops.PARTS),
        np.zeros(n_pred), weight,
    )  # fmt: skip
    mate = match_frames(s, weight, np.ones(s.gt.start.size - 1, np.int64))
    _loops.program("associate")(
        s.gt.own_start, s.gt.own_row, s.pred.identity, pred_count, *s.pairs, mate, LEVELS,
        np.zeros((n_pred, LEVELS.size)), np.empty(n_pred, np.int64), sums,
    )  # fmt: skip


def match_frames(s: Scene, weight: Array, wanted: Array) -> Array:
    """The mate of each ground-truth row, a row of the prediction or -1."""
    mate = np.empty(s.gt.row.size, np.int64)
    _loops.program("match")(
        s.gt.start, s.pred.start, s.pairs.start, s.pairs.pred, weight, wanted, *s.frame_workspace(), mate
    )
    return mate


def _finish_hota(counts: dict[str, Array], associated: dict[str, Array], located: Array) -> Figures:
    tp, fn, fp = counts["TP"], counts["FN"], counts["FP"]
    curves = {
        "DetRe": tp / np.maximum(1, tp + fn),
        "DetPr": tp / np.maximum(1, tp + fp),
        "DetA": tp / np.maximum(1, tp + fn + fp),
        **associated,
        "LocA": located,
    }
    curves["HOTA"] = np.sqrt(curves["DetA"] * curves["AssA"])
    curves["OWTA"] = np.sqrt(curves["DetRe"] * curves["AssA"])
    first = float(curves["HOTA"][0]), float(curves["LocA"][0])
    return {
        **{name: float(np.mean(curves[name])) for name in _HOTA_CURVES},
        "HOTA(0)": first[0],
        "LocA(0)": first[1],
        "HOTALocA(0)": first[0] * first[1],
        **{f"{name}_alpha": curves[name] for name in _HOTA_CURVES},
        **{f"HOTA_{name}_alpha": values for name, values in counts.items()},
    }


def _combine_hota(parts: Sequence[Figures]) -> Figures:
    counts = {name: sum(part[f"HOTA_{name}_alpha"] for part in parts) for name in ("TP", "FN", "FP")}

    def weighted(name: str) -> Array:
        return sum(part[f"{name}_alpha"] * part["HOTA_TP_alpha"] for part in parts)  # type: ignore[return-value]

    tp = counts["TP"]
    associated = {name: weighted(name) / np.maximum(1, tp) for name in _ASSOCIATION}
    return _finish_hota(counts, associated, np.maximum(1e-10, weighted("LocA")) / np.maximum(1e-10, tp))


# ---- VACE and counts ------------------------------------------------------------------------------------


def vace(gt: Tracks, pred: Tracks) -> Figures:
    """VACE metrics of one sequence: tracking accuracy over identities (ATA), detection accuracy over frames (SFDA).

    Parameters
    ----------
    gt, pred : Tracks
        Ground truth and prediction of one sequence, compared as they are (see :func:`clear`).

    Returns
    -------
    dict of str to int or float
        TrackEval's keys: ``ATA SFDA STDA FDA VACE_IDs VACE_GT_IDs num_non_empty_timesteps``; ATA and SFDA are 0
        where both sides are empty (there TrackEval has NaN).

    References
    ----------
    Kasturi et al.: Framework for performance evaluation of face, text, and vehicle detection and tracking in
    video, 2009.
    """
    return _vace(_scene("mot.vace", gt, pred), 0)


_VACE_SUMS = ("STDA", "FDA", "VACE_IDs", "VACE_GT_IDs", "num_non_empty_timesteps")


def _vace(s: Scene, n_frames: int) -> Figures:
    both = _cooccur(s)
    together = np.empty(both.frames.size)
    frames = [np.repeat(np.arange(side.start.size - 1), side.per_frame)[side.own_row] for side in (s.gt, s.pred)]
    _loops.program("together")(s.gt.own_start, frames[0], s.pred.own_start, frames[1], both.start, both.pred, together)
    own = np.repeat(s.gt.per_identity, np.diff(both.start))
    union = own + s.pred.per_identity[both.pred] - together
    per_frame = s.gt.per_frame + s.pred.per_frame
    mate = match_frames(s, s.pairs.iou, np.ones(per_frame.size, np.int64))
    of_mate = s.pairs.of_mates(mate)
    matched = np.add.reduceat(np.append(np.where(of_mate, s.pairs.iou, 0.0), 0.0), s.pairs.start[s.gt.start[:-1]])
    matched = np.where(np.diff(s.pairs.start[s.gt.start]) > 0, matched, 0.0) if matched.size else matched
    return _finish_vace(
        {
            "STDA": _best_pairing(s, both, both.frames / union),
            "FDA": float((matched / (0.5 * np.maximum(1, per_frame))).sum()),
            "VACE_IDs": s.pred.n_identities,
            "VACE_GT_IDs": s.gt.n_identities,
            "num_non_empty_timesteps": int((per_frame > 0).sum()),
        }
    )


def _finish_vace(c: Figures) -> Figures:
    identities, frames = c["VACE_IDs"] + c["VACE_GT_IDs"], c["num_non_empty_timesteps"]
    ata = c["STDA"] / (0.5 * identities) if identities else 0.0
    return {"ATA": ata, "SFDA": c["FDA"] / frames if frames else 0.0, **c}


def count(gt: Tracks, pred: Tracks) -> Figures:
    """How many boxes and identities there are: TrackEval's keys ``Dets GT_Dets IDs GT_IDs Frames``."""
    return _count(_scene("mot.count", gt, pred), length(gt, pred))


_COUNTS = ("Dets", "GT_Dets", "IDs", "GT_IDs", "Frames")


def _count(s: Scene, n_frames: int) -> Figures:
    return count_figures(_sizes(s, n_frames))


def count_figures(size: Sizes) -> Figures:
    """The counts as figures."""
    return dict(zip(_COUNTS, (size.pred, size.gt, size.pred_identities, size.gt_identities, size.frames), strict=True))


# ---- one sequence, and many -----------------------------------------------------------------------------


class _Metric(NamedTuple):
    """A family of metrics: of a scene, and of the figures of several sequences."""

    of_scene: Callable[[Scene, int], Figures]
    combine: Callable[[Sequence[Figures]], Figures]


def _summed(keys: Sequence[str], finish: Callable[[Figures], Figures]) -> Callable[[Sequence[Figures]], Figures]:
    return lambda parts: finish({key: sum(part[key] for part in parts) for key in keys})


METRICS: Mapping[str, _Metric] = {
    "hota": _Metric(_hota, _combine_hota),
    "clear": _Metric(_clear, _summed(CLEAR_COUNTS, _finish_clear)),
    "identity": _Metric(_identity, _summed(("IDTP", "IDFN", "IDFP"), _finish_identity)),
    "vace": _Metric(_vace, _summed(_VACE_SUMS, _finish_vace)),
    "count": _Metric(_count, _summed(_COUNTS, dict)),
}


def figures(op: str, gt: Tracks, pred: Tracks, metrics: Sequence[str], n_frames: int | None = None) -> Figures:
    """The figures of several families for one sequence, which has ``n_frames`` or as many as are seen."""
    s = _scene(op, gt, pred)
    n_frames = length(gt, pred) if n_frames is None else n_frames
    return {key: value for name in metrics for key, value in METRICS[name].of_scene(s, n_frames).items()}


def combine(parts: Sequence[Figures], metrics: Sequence[str]) -> Figures:
    """The figures of several sequences as one: counts are summed and ratios formed anew."""
    return {key: value for name in metrics for key, value in METRICS[name].combine(parts).items()}
