"""What each benchmark leaves out before it counts: preprocessing for MOTChallenge and KITTI, as TrackEval does it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, NoReturn

import numpy as np

from .. import _check
from . import detrac
from ._scene import EPS, Scene, scene
from .metrics import THRESHOLD, match_frames
from .tracks import NO_ID, Tracks, checked

__all__ = ["BENCHMARKS", "classes", "prepare"]

Array = np.ndarray
OP = "mot.prepare"

# MOTChallenge's class numbers.
PEDESTRIAN = 1
MOT_CLASSES = 13
DISTRACTORS = {"MOT16": (2, 7, 8, 12), "MOT17": (2, 7, 8, 12), "MOT20": (2, 6, 7, 8, 12)}

# KITTI's, and what TrackEval's rules say of them.
KITTI = {"car": 1, "pedestrian": 4}
KITTI_DISTRACTOR = {"car": 2, "pedestrian": 5}  # van; person sitting
DONT_CARE = 9
MIN_HEIGHT = 25.0  # pixels: an unmatched box must be higher to count as wrong
INSIDE = 0.5  # an unmatched box of which more lies in one region is left out


def prepare(gt: Tracks, pred: Tracks, benchmark: str, class_name: str | None = None) -> tuple[Tracks, Tracks]:
    """The boxes that a benchmark counts, of those in its files.

    Parameters
    ----------
    gt, pred : Tracks
        Ground truth and prediction of one sequence, as read from the files.
    benchmark : str
        ``"MOT15"``, ``"MOT16"``, ``"MOT17"``, ``"MOT20"``, ``"KITTI"`` or ``"DETRAC"``.
    class_name : str, optional
        One of the benchmark's classes: ``"pedestrian"``; for KITTI also ``"car"``, its default; for DETRAC
        ``"vehicle"``.

    Returns
    -------
    gt, pred : Tracks
        Some of the rows of each, in their order.

    Raises
    ------
    TypeError
        A side is not ``Tracks``.
    ValueError
        An unknown benchmark or class; a class number that the benchmark does not have.

    Notes
    -----
    MOT15 drops ground truth whose score, cut to a whole number, is 0. MOT16, MOT17 and MOT20 match predictions
    with all ground truth (overlap at least one half), drop those matched to a distractor (person on vehicle,
    static person, distractor, reflection; for MOT20 also a vehicle), and keep pedestrians with a score. KITTI
    matches with the class and its look-alike (van for car, a person sitting for pedestrian), drops predictions
    matched to a look-alike or to a box that is truncated or more than largely occluded, and of those matched to
    nothing the ones up to 25 pixels high or more than half inside a DontCare region. DETRAC: see
    :mod:`cv3gpu.mot.detrac`.

    References
    ----------
    Milan et al.: MOT16: a benchmark for multi-object tracking, 2016. Dendorfer et al.: MOT20, 2020. Geiger et
    al.: Are we ready for autonomous driving? The KITTI vision benchmark suite, 2012.
    """
    _check.choice(OP, "benchmark", benchmark, list(BENCHMARKS))
    names = classes(benchmark)
    name = names[0] if class_name is None else _check.choice(OP, "class_name", class_name, names)
    for side, tracks in (("gt", gt), ("pred", pred)):
        checked(OP, side, tracks)
    return BENCHMARKS[benchmark].prepare(gt, pred, benchmark, name)


def classes(benchmark: str | None) -> tuple[str, ...]:
    """The classes that a benchmark evaluates, ``("all",)`` without one."""
    if benchmark is None:
        return ("all",)
    return BENCHMARKS[_check.choice("mot.benchmarks.classes", "benchmark", benchmark, list(BENCHMARKS))].classes


def _refuse_class(side: str, wanted: str, tracks: Tracks, wrong: Array) -> NoReturn:
    row = int(np.flatnonzero(wrong)[0])
    got = f"class {tracks.class_[row]} in frame {tracks.frame[row]}"  # type: ignore[index]
    _check.fail(OP, side, wanted, got)


def _mates(s: Scene, wanted: Array) -> Array:
    """Ground-truth rows' mates by the greatest sum of overlaps of at least one half, in the frames ``wanted``."""
    weight = np.where(s.pairs.iou >= THRESHOLD - EPS, s.pairs.iou, 0.0)
    return match_frames(s, weight, wanted)


# ---- MOTChallenge ---------------------------------------------------------------------------------------


def _mot_challenge(gt: Tracks, pred: Tracks, benchmark: str, class_name: str) -> tuple[Tracks, Tracks]:
    if (other := pred.class_ > PEDESTRIAN).any():
        _refuse_class("pred", f"have pedestrians only (class 1, or none) for {benchmark}", pred, other)
    scored = np.trunc(gt.score) != 0
    if benchmark == "MOT15":
        return gt[scored], pred
    if len(gt) and (gt.class_ == -1).all():
        _check.fail(OP, "gt", f"have a column of classes for {benchmark}", "none", "MOT15's rules need none")
    if (unknown := (gt.class_ < 1) | (gt.class_ > MOT_CLASSES)).any():
        _refuse_class("gt", f"have classes from 1 to {MOT_CLASSES} for {benchmark}", gt, unknown)
    distractor = np.isin(gt.class_, DISTRACTORS[benchmark])
    keep = np.ones(len(pred), bool)
    if distractor.any() and len(pred):
        s = scene(gt, pred)
        near = np.zeros(len(gt), np.int64)  # distractors that a prediction might be matched to
        near[np.repeat(np.arange(len(gt)), np.diff(s.pairs.start))[s.pairs.iou >= THRESHOLD - EPS]] = 1
        near &= distractor[s.gt.row]
        wanted = np.zeros(s.gt.start.size - 1, np.int64)
        wanted[np.searchsorted(s.gt.start, np.flatnonzero(near), side="right") - 1] = 1
        mate = _mates(s, wanted)
        taken = mate[(mate >= 0) & distractor[s.gt.row]]
        keep[s.pred.row[taken]] = False
    return gt[scored & (gt.class_ == PEDESTRIAN)], pred[keep]


# ---- KITTI ----------------------------------------------------------------------------------------------


def _kitti(gt: Tracks, pred: Tracks, benchmark: str, class_name: str) -> tuple[Tracks, Tracks]:
    regions = gt[gt.class_ == DONT_CARE]
    number, look_alike = KITTI[class_name], KITTI_DISTRACTOR[class_name]
    gt = gt[((gt.class_ == number) | (gt.class_ == look_alike)) & (gt.id != NO_ID)]
    pred = pred[(pred.class_ == number) & (pred.id != NO_ID)]
    aside = (gt.class_ == look_alike) | (gt.occlusion > 2) | (np.trunc(gt.truncation) > 0)
    s = scene(gt, pred)
    mate = _mates(s, np.ones(s.gt.start.size - 1, np.int64))
    matched = np.zeros(len(pred), bool)
    matched[s.pred.row[mate[mate >= 0]]] = True
    _, top, _, bottom = pred.corners().T
    drop = ~matched & ((bottom - top <= MIN_HEIGHT + EPS) | _inside(pred, regions))
    drop[s.pred.row[mate[(mate >= 0) & aside[s.gt.row]]]] = True
    return gt[~aside], pred[~drop]


def _inside(pred: Tracks, regions: Tracks) -> Array:
    """Which boxes lie more than half inside one of their frame's regions."""
    inside = np.zeros(len(pred), bool)
    low, high = np.split(pred.corners(), 2, axis=1)
    region_corners = regions.corners()
    area = np.prod(high - low, axis=1)
    order = np.argsort(regions.frame, kind="stable")
    first = np.searchsorted(regions.frame[order], pred.frame, side="left")
    last = np.searchsorted(regions.frame[order], pred.frame, side="right")
    for k in range(int((last - first).max(initial=0))):  # the k-th region of each box's frame
        has = np.flatnonzero((first + k < last) & (area > EPS))
        region = region_corners[order[first[has] + k]]
        shared = np.minimum(high[has], region[:, 2:]) - np.maximum(low[has], region[:, :2])
        inside[has] |= np.prod(np.maximum(shared, 0), axis=1) / area[has] > INSIDE + EPS
    return inside


# ---- the list -------------------------------------------------------------------------------------------


def _detrac(gt: Tracks, pred: Tracks, benchmark: str, class_name: str) -> tuple[Tracks, Tracks]:
    return detrac.prepare(gt, pred)


class _Benchmark(NamedTuple):
    classes: tuple[str, ...]
    prepare: Callable[[Tracks, Tracks, str, str], tuple[Tracks, Tracks]]


BENCHMARKS: Mapping[str, Any] = {
    **{name: _Benchmark(("pedestrian",), _mot_challenge) for name in ("MOT15", "MOT16", "MOT17", "MOT20")},
    "KITTI": _Benchmark(tuple(KITTI), _kitti),
    "DETRAC": _Benchmark(("vehicle",), _detrac),
}
