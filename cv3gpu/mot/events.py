"""The event log: what happened to whom, and when."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from .. import _check
from . import benchmarks
from .evaluate import TracksLike, pairs, teller
from .metrics import match
from .report import csv_text, written
from .tracks import Tracks, checked

__all__ = ["KINDS", "Events", "event_logs", "events", "logs_to_csv"]

Array = np.ndarray

MATCH, MISS, FALSE_POSITIVE = "match", "miss", "false positive"
SWITCH, FRAGMENTATION, TRANSFER = "switch", "fragmentation", "transfer"
KINDS = (MATCH, MISS, FALSE_POSITIVE, SWITCH, FRAGMENTATION, TRANSFER)

NOBODY = -1


class Events(NamedTuple):
    """What happened in a sequence: columns of one length, by frame.

    A ``"match"``, ``"miss"`` or ``"false positive"`` for every box; and beside its match, with the same
    identities, for a box that is also a

    * ``"switch"``: the ground-truth identity was last matched to another prediction, ``previous``, in frame
      ``since``;
    * ``"fragmentation"``: it is tracked again, after frame ``since``, and was not in between;
    * ``"transfer"``: the predicted identity was last matched to other ground truth, ``previous``, in frame
      ``since``.

    Attributes
    ----------
    frame : array, [N], int64
    kind : array, [N], str
    gt, pred : array, [N], int64
        Identities, −1 for none.
    iou : array, [N], float64
        Overlap of the two boxes, 0 for one alone.
    previous, since : array, [N], int64
        An identity and a frame, −1 for none.
    """

    frame: Array
    kind: Array
    gt: Array
    pred: Array
    iou: Array
    previous: Array
    since: Array

    def of(self, *kinds: str) -> Events:
        """The events of some kinds (of :data:`KINDS`)."""
        for kind in kinds:
            _check.choice("mot.Events.of", "kinds", kind, KINDS)
        return self._at(np.isin(self.kind, kinds))

    def counts(self) -> dict[str, int]:
        """How many events there are of each kind: CLEAR's TP, FN, FP, IDSW and Frag, and the transfers."""
        return {kind: int((self.kind == kind).sum()) for kind in KINDS}

    def to_csv(self, path: str | os.PathLike[str] | None = None) -> str:
        """A line for each event; a file at ``path`` appears whole or not at all."""
        return written(csv_text(self._fields, zip(*(column.tolist() for column in self), strict=True)), path)

    def _at(self, rows: Array) -> Events:
        return Events(*(column[rows] for column in self))


def events(gt: Tracks, pred: Tracks, benchmark: str | None = None, class_name: str | None = None) -> Events:
    """The event log of one sequence: what CLEAR counts, by frame and identity.

    Parameters
    ----------
    gt, pred : Tracks
        Ground truth and prediction.
    benchmark, class_name : str, optional
        Only the boxes that the benchmark counts (:func:`prepare`). Without a benchmark the one class is ``"all"``.

    Returns
    -------
    Events
        ``(frame, kind, gt, pred, iou, previous, since)``. There are as many matches, misses, false positives,
        switches and fragmentations as :func:`clear` counts ``CLR_TP``, ``CLR_FN``, ``CLR_FP``, ``IDSW`` and
        ``Frag``.

    Raises
    ------
    TypeError
        An argument is not ``Tracks``.
    ValueError
        A row without an identity; a class that is not the benchmark's; what :func:`prepare` refuses.

    Notes
    -----
    The matching is :func:`match`'s for all benchmarks, which for DETRAC is not that of its toolkit. Frames without
    boxes on one side interrupt nothing, as in :func:`clear`.

    Examples
    --------
    >>> from cv3gpu import mot
    >>> box = [[0, 0, 9, 9]] * 4
    >>> gt = mot.Tracks([1, 2, 3, 4], [1, 1, 1, 1], box)
    >>> log = mot.events(gt, mot.Tracks([1, 2, 3, 4], [5, 6, 6, 6], box))
    >>> log.counts()["switch"]
    1
    >>> print(log.of("switch").to_csv())
    frame,kind,gt,pred,iou,previous,since
    2,switch,1,6,1.0,5,1
    """
    op = "mot.events"
    for name, tracks in (("gt", gt), ("pred", pred)):
        checked(op, name, tracks)
    if benchmark is not None:
        _check.choice(op, "benchmark", benchmark, list(benchmarks.BENCHMARKS))
        gt, pred = benchmarks.prepare(gt, pred, benchmark, class_name)
    elif class_name is not None:
        _check.choice(op, "class_name", class_name, benchmarks.classes(None))
    found = match(gt, pred)
    nobody = np.full(found.gt.size, NOBODY)
    kind = np.full(found.gt.size, MATCH)
    matches = Events(gt.frame[found.gt], kind, gt.id[found.gt], pred.id[found.pred], found.iou, nobody, nobody)
    by_gt, by_pred = _before(matches.gt), _before(matches.pred)
    switched = _beside(matches, SWITCH, found.switched, matches.pred, by_gt)
    met = np.intersect1d(gt.frame, pred.frame)  # the frames that can interrupt
    order = np.searchsorted(met, matches.frame)
    resumed = (by_gt != NOBODY) & (order - order[by_gt] > 1)
    moved = (by_pred != NOBODY) & (matches.gt != matches.gt[by_pred])
    parts = [
        matches,
        _boxes(gt, MISS, found.gt),
        _boxes(pred, FALSE_POSITIVE, found.pred),
        switched,
        _beside(matches, FRAGMENTATION, resumed, None, by_gt),
        _beside(matches, TRANSFER, moved, matches.gt, by_pred),
    ]
    every = Events(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
    return every._at(np.argsort(every.frame, kind="stable"))


def _boxes(tracks: Tracks, kind: str, matched: Array) -> Events:
    """The boxes that are not matched."""
    rest = np.ones(len(tracks), bool)
    rest[matched] = False
    nobody = np.full(int(rest.sum()), NOBODY)
    identity = tracks.id[rest]
    gt, pred = (identity, nobody) if kind == MISS else (nobody, identity)
    return Events(tracks.frame[rest], np.full(nobody.size, kind), gt, pred, np.zeros(nobody.size), nobody, nobody)


def _beside(matches: Events, kind: str, rows: Array, other: Array | None, before: Array) -> Events:
    """Further events at some of the matches, with the identity ``other`` and the frame of the match before."""
    at = matches._at(rows)
    last = before[rows]
    previous = at.previous if other is None else other[last]
    return at._replace(kind=np.full(last.size, kind), previous=previous, since=matches.frame[last])


def _before(identity: Array) -> Array:
    """For each of the matches, which are by frame, the one before it of the same identity, or −1."""
    order = np.argsort(identity, kind="stable")
    before = np.full(identity.size, NOBODY)
    again = identity[order][1:] == identity[order][:-1]
    before[order[1:][again]] = order[:-1][again]
    return before


# ---- many sequences -------------------------------------------------------------------------------------


def event_logs(
    gt: TracksLike,
    pred: TracksLike,
    benchmark: str | None = None,
    *,
    format: str | None = None,
    progress: Callable[[str], None] | None = None,
) -> dict[str, dict[str, Events]]:
    """The event logs of all sequences and classes.

    Parameters
    ----------
    gt, pred, benchmark, format, progress : see :func:`evaluate`

    Returns
    -------
    dict of sequence to dict of class to Events

    Raises
    ------
    DataFormatError, ValueError, TypeError
        As :func:`evaluate`, but at the first sequence that fails; the error's notes name it.

    Examples
    --------
    >>> from cv3gpu import mot
    >>> gt = mot.Tracks([1, 2], [1, 1], [[0, 0, 9, 9], [1, 0, 9, 9]])
    >>> mot.event_logs({"street": gt}, {"street": gt})["street"]["all"].counts()["match"]
    2
    """
    op = "mot.event_logs"
    tell, found = teller(op, progress), {}
    for name, gt_source, pred_source in pairs(op, gt, {"": pred}, benchmark, format)[""]:
        tell(name)
        try:
            sides = gt_source.read(), pred_source.read()
            found[name] = {
                class_name: events(*sides, benchmark, class_name) for class_name in benchmarks.classes(benchmark)
            }
        except Exception as error:
            error.add_note(f"sequence {name!r} failed")
            raise
    return found


def logs_to_csv(logs: Mapping[str, Mapping[str, Events]], path: str | os.PathLike[str] | None = None) -> str:
    """A line for each event with its sequence and class; a file at ``path`` appears whole or not at all."""
    fits = isinstance(logs, Mapping) and all(
        isinstance(classes, Mapping) and all(isinstance(log, Events) for log in classes.values())
        for classes in logs.values()
    )
    if not fits:
        wanted = "be a mapping of sequences to mappings of classes to Events"
        _check.fail("mot.logs_to_csv", "logs", wanted, _check.kind(logs), error=TypeError)
    rows = (
        (sequence, class_name, *event)
        for sequence, classes in logs.items()
        for class_name, log in classes.items()
        for event in zip(*(column.tolist() for column in log), strict=True)
    )
    return written(csv_text(("sequence", "class", *Events._fields), rows), path)
