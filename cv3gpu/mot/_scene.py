"""One sequence made ready for the metrics: both sides sorted by frame, and the pairs that overlap."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from . import _loops
from .tracks import Tracks

__all__ = ["Pairs", "Scene", "Side", "Workspace", "scene"]

Array = np.ndarray

EPS = float(np.finfo(np.float64).eps)
SPREAD = 4  # values that span at most so many times their number are sorted by counting


class Side(NamedTuple):
    """Boxes [N] in the order of frames."""

    box: Array  # [N, 4] corners
    identity: Array  # [N] from 0
    row: Array  # [N] in the tracks that they came from
    start: Array  # [F + 1] of each frame
    n_identities: int
    own_start: Array  # [identities + 1]
    own_row: Array  # [N] rows of each identity, by frame

    @property
    def per_frame(self) -> Array:
        return np.diff(self.start)

    @property
    def per_identity(self) -> Array:
        return np.diff(self.own_start)


class Pairs(NamedTuple):
    """The overlapping pairs, a sparse matrix by ground-truth row."""

    start: Array
    pred: Array
    iou: Array

    def of_mates(self, mate: Array) -> Array:
        """Which entries are those of the rows' mates, [entries] bool."""
        return self.pred == np.repeat(mate, np.diff(self.start))


class Workspace(NamedTuple):
    """What matching problems of up to ``size`` rows and columns and ``entries`` entries need."""

    lists: Array
    value: Array
    integers: Array
    reals: Array

    @classmethod
    def of(cls, size: int, entries: int) -> Workspace:
        return cls(
            np.empty((_loops.LISTS, max(entries, 1)), np.int64),
            np.empty((2, max(entries, 1))),
            np.empty((_loops.INTEGERS, size + 2), np.int64),
            np.empty((_loops.REALS, size + 2)),
        )


class Scene(NamedTuple):
    """A sequence."""

    gt: Side
    pred: Side
    pairs: Pairs

    def frame_workspace(self) -> Workspace:
        """For one frame at a time."""
        frames = self.gt.start
        entries = np.diff(self.pairs.start[frames])
        size = max((int(side.per_frame.max(initial=0)) for side in (self.gt, self.pred)), default=0)
        return Workspace.of(size, int(entries.max(initial=0)))


def _compact(values: Array) -> tuple[Array, int]:
    """Labels from 0 in ascending order of value, and how many there are."""
    if not values.size:
        return np.empty(0, np.int64), 0
    low, high = int(values.min()), int(values.max())
    if high - low >= SPREAD * values.size + 1024:
        known, labels = np.unique(values, return_inverse=True)
        return labels.reshape(-1), known.size
    labels = np.empty(values.size, np.int64)
    table = np.empty(high - low + 1, np.int64)
    return labels, _loops.program("compact")(values, low, table, labels)


def _sorted(keys: Array, n: int) -> tuple[Array, Array]:
    """(start [n + 1], order): stable."""
    start, order = np.empty(n + 1, np.int64), np.empty(keys.size, np.int64)
    _loops.program("sort")(keys, start, order)
    return start, order


def _side(tracks: Tracks, frame: Array, n_frames: int) -> Side:
    start, row = _sorted(frame, n_frames)
    identity, n_identities = _compact(tracks.id)
    identity = identity.take(row)
    own_start, own_row = _sorted(identity, n_identities)
    if tracks.corner is None:
        box = np.empty(tracks.box.shape)
        _loops.program("corners")(tracks.box, row, box)
    else:
        box = tracks.corners().take(row, axis=0)
    return Side(box, identity, row, start, n_identities, own_start, own_row)


def scene(gt: Tracks, pred: Tracks) -> Scene:
    """The two sides and their overlapping pairs."""
    frame, n_frames = _compact(np.concatenate([gt.frame, pred.frame]))
    g, p = _side(gt, frame[: len(gt)], n_frames), _side(pred, frame[len(gt) :], n_frames)
    return Scene(g, p, _overlaps(g, p))


def _overlaps(gt: Side, pred: Side) -> Pairs:
    room = 8 * gt.row.size + 1024
    order, reach = np.empty(pred.row.size, np.int64), np.empty(pred.row.size)
    start = np.empty(gt.row.size + 1, np.int64)
    while True:
        found, iou = np.empty(room, np.int32), np.empty(room)
        n = _loops.program("overlap")(gt.box, gt.start, pred.box, pred.start, EPS, order, reach, start, found, iou)
        if n <= room:
            return Pairs(start, found[:n], iou[:n])
        room = n
