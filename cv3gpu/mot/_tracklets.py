"""Pieces of tracks as the nodes of a neural solver: how they end and begin, what speaks for a link, and how they join.

Detections are rows, sorted by frame; a label says which tracklet a row belongs to, -1 that it belongs to none. A
detection on its own is a tracklet of one row, so that every level of the hierarchy sees the same kind of node.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .graph import candidate_edges, edge_features

__all__ = ["EDGE_FEATURES", "NODE_FEATURES", "Level", "Rows", "Tracklets", "confirm", "features", "links", "merge"]

Array = np.ndarray[Any, Any]

REACH = 10  # frames at each end from which its motion and its score are taken
PRIOR = 8.0  # square frames: position noise over speed variance, which draws the speed of a short tracklet to 0
NODE_FEATURES, EDGE_FEATURES = 7, 22  # without appearance, which adds its own length to the first and one to the second


class Level(NamedTuple):
    """What one level of the hierarchy links."""

    gap: int  # frames that a link may bridge
    neighbors: int  # of each node, before and after it
    distance: float  # in heights, between the two predictions half way
    window: int  # frames that the network sees at a time
    confirmed: bool = False  # whether tracklets are cut back to their sure detections first
    threshold: float = 0.5  # least score of a link


class Rows(NamedTuple):
    """Detections, sorted by frame."""

    frame: Array  # [N], int64
    box: Array  # [N, 4]: left, top, width, height; the motion of the camera taken out where it is known
    score: Array  # [N]
    appearance: Array | None = None  # [N, D]

    def take(self, rows: Array) -> Rows:
        """Some of them."""
        looks = None if self.appearance is None else self.appearance[rows]
        return Rows(self.frame[rows], self.box[rows], self.score[rows], looks)


class Tracklets(NamedTuple):
    """Tracklets by number."""

    frame: Array  # [N], the first
    last_frame: Array
    box: Array  # [N, 4]
    last_box: Array
    velocity: Array  # [N, 2], pixels per frame, of the centre near the first frame
    last_velocity: Array
    first_score: Array  # [N], means near both ends, and over all rows
    last_score: Array
    score: Array
    best: Array
    length: Array  # rows
    first_row: Array
    last_row: Array
    appearance: Array | None  # [N, D], mean

    def take(self, which: Array) -> Tracklets:
        """Some of them."""
        some: Any = (None if x is None else x[which] for x in self)
        return Tracklets(*some)


def summary(rows: Rows, label: Array) -> Tracklets:
    """The tracklets with the labels 0 to the greatest one, each of which must occur."""
    order = np.flatnonzero(label >= 0)
    order = order[np.argsort(label[order], kind="stable")]  # rows are sorted by frame
    of = label[order]
    n = int(of[-1]) + 1 if len(of) else 0
    first = np.searchsorted(of, np.arange(n))
    count = np.diff(np.append(first, len(of)))
    last = first + count - 1
    frame, box, score = rows.frame[order], rows.box[order], rows.score[order]
    centre = box[:, :2] + box[:, 2:] / 2

    def total(values: Array) -> Array:
        return np.bincount(of, values, n)

    def end(near: Array) -> tuple[Array, Array]:
        """Velocity by least squares, drawn to 0, and mean score."""
        many = total(near)
        when = (frame - (total(near * frame) / many)[of]) * near
        spread = total(when * when) + PRIOR
        return np.stack([total(when * centre[:, axis]) / spread for axis in (0, 1)], 1), total(near * score) / many

    velocity, first_score = end((frame - frame[first][of] < REACH).astype(np.float64))
    last_velocity, last_score = end((frame[last][of] - frame < REACH).astype(np.float64))
    best = np.maximum.reduceat(score, first) if n else np.empty(0)
    appearance = None
    if rows.appearance is not None:
        appearance = np.zeros((n, rows.appearance.shape[1]))
        np.add.at(appearance, of, rows.appearance[order])
        appearance /= count[:, None]
    return Tracklets(
        frame[first], frame[last], box[first], box[last], velocity, last_velocity, first_score, last_score,
        total(score) / count, best, count, order[first], order[last], appearance,
    )  # fmt: skip


def links(nodes: Tracklets, level: Level) -> Array:
    """Candidates of a level: [2, E], the earlier tracklet first, sorted by it."""
    return candidate_edges(
        nodes.frame, nodes.box, last_frame=nodes.last_frame, last_box=nodes.last_box, velocity=nodes.velocity,
        last_velocity=nodes.last_velocity, max_gap=level.gap, k=level.neighbors, max_distance=level.distance,
    )  # fmt: skip


def features(nodes: Tracklets, edges: Array) -> tuple[Array, Array]:
    """Features of nodes [N, 7] and of links [E, 22], float32; :func:`edge_features` first, and then more of motion.

    Lengths are in heights, and long ones count by their logarithm: scenes differ in scale and frame rate.
    """
    i, j = edges
    height = ((nodes.last_box[i, 3] + nodes.box[j, 3]) / 2)[:, None]
    gap = (nodes.frame[j] - nodes.last_frame[i])[:, None]
    moved = (nodes.box[j, :2] + nodes.box[j, 2:] / 2 - nodes.last_box[i, :2] - nodes.last_box[i, 2:] / 2) / height
    out, into = nodes.last_velocity[i] / height, nodes.velocity[j] / height
    published = edge_features(
        nodes.frame, nodes.box, edges, last_frame=nodes.last_frame, last_box=nodes.last_box, velocity=nodes.velocity,
        last_velocity=nodes.last_velocity, appearance=nodes.appearance,
    )  # fmt: skip
    length = np.log(nodes.length) / 3
    scores = nodes.last_score[i], nodes.first_score[j], nodes.score[i], nodes.score[j], length[i], length[j]
    of_edges = np.concatenate([
        np.arcsinh(published),
        np.log(gap),
        np.arcsinh(3 * (moved - out * gap)),
        np.arcsinh(3 * (moved - into * gap)),
        np.arcsinh(30 * out),
        np.arcsinh(30 * into),
        np.stack(scores, 1),
    ], 1, dtype=np.float32)  # fmt: skip
    speeds = (np.arcsinh(30 * v / nodes.box[:, 3:]) for v in (nodes.velocity, nodes.last_velocity))
    of_nodes = np.concatenate([np.stack([nodes.score, nodes.best, length], 1), *speeds], 1, dtype=np.float32)
    if nodes.appearance is not None:
        of_nodes = np.concatenate([of_nodes, nodes.appearance], 1, dtype=np.float32)
    return of_nodes, of_edges


def merge(label: Array, edges: Array, n: int) -> Array:
    """The labels after links, at most one out of and one into each of the n tracklets, have joined them."""
    after = np.full(n, -1)
    after[edges[0]] = edges[1]
    begins = np.ones(n, bool)
    begins[edges[1]] = False
    new, at = np.full(n, -1), np.flatnonzero(begins)
    number = np.arange(len(at))
    while len(at):
        new[at] = number
        on = after[at] >= 0
        at, number = after[at[on]], number[on]
    return np.append(new, -1)[label]


def confirm(rows: Rows, label: Array, high: float, least: float = 0.0) -> Array:
    """Labels without what is not between two sure detections of its tracklet: those with a score of ``high`` or more.

    Tracklets whose best score is less than ``least`` go as a whole; the others are numbered anew.
    """
    sure = np.flatnonzero((label >= 0) & (rows.score >= high))
    n = int(label.max(initial=-1)) + 1
    first, last, best = np.full(n + 1, len(label)), np.full(n + 1, -1), np.zeros(n + 1)  # the last one: of none
    np.minimum.at(first, label[sure], sure)
    np.maximum.at(last, label[sure], sure)
    np.maximum.at(best, label[sure], rows.score[sure])
    row = np.arange(len(label))
    kept = (label >= 0) & (row >= first[label]) & (row <= last[label]) & (best[label] >= least)
    return renumber(np.where(kept, label, -1))


def renumber(label: Array) -> Array:
    """Labels from 0 on without holes, in their order."""
    known = np.unique(label[label >= 0])
    return np.where(label >= 0, np.searchsorted(known, label), -1)
