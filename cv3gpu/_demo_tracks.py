"""The demo's tracker: boxes of people without their identities, which the network finds again."""

from __future__ import annotations

import functools
import importlib
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

import cv3gpu

from . import _array
from .demo import SEQUENCES, Frames, Row, _plain_scores, _plain_tracks, _viz, compare, demo, measure, track_files

__all__: list[str] = []

SEED = 0
DROPPED, FALSE = 0.1, 0.08  # shares of the true boxes: how many are left out, and how many are put anywhere
LIMIT = 0.1  # of 1 - IDF1
SHOWN = (1, 20)  # frames of the graph


def _detections(gt: Any) -> Any:
    """The boxes of people as a detector that errs gives them: some missing, some of nothing, and no identities."""
    rng = np.random.default_rng(SEED)
    seen = np.flatnonzero(rng.random(len(gt)) >= DROPPED)
    like = rng.integers(0, len(gt), round(FALSE * len(gt)))  # false ones have the frame and the size of true ones
    false = gt.box[like]
    false[:, 0] = rng.uniform(0, gt.corners()[:, 2].max(), len(like))
    frame = np.concatenate([gt.frame[seen], gt.frame[like]])
    score = np.concatenate([rng.uniform(0.7, 1, len(seen)), rng.uniform(0.1, 0.6, len(like))])
    return cv3gpu.mot.Tracks(frame, np.full(frame.size, -1), np.concatenate([gt.box[seen], false]), score)


def _by_frame(tracks: Any) -> Frames:
    frames: Frames = defaultdict(dict)
    for frame, identity, box in zip(tracks.frame.tolist(), tracks.id.tolist(), tracks.box.tolist(), strict=True):
        frames[frame][identity] = tuple(box)
    return frames


def _named(detections: Any, found: Any) -> Any:
    """The detections with the identities of the tracks that their boxes are in, -1 where there is none."""
    boxes = {(frame, box): name for frame, known in _by_frame(found).items() for name, box in known.items()}
    pairs = zip(detections.frame.tolist(), detections.box.tolist(), strict=True)
    names = np.array([boxes.get((frame, tuple(box)), -1) for frame, box in pairs])
    return cv3gpu.mot.Tracks(detections.frame, names, detections.box)


def _rounding(name: str, detections: Any, edges: np.ndarray) -> list[Row]:
    """Trajectories from links that are the likelier the nearer their boxes are, and SciPy's optimum."""
    assign = importlib.import_module("scipy.optimize").linear_sum_assignment
    box = detections.box
    moved = np.linalg.norm(box[edges[1], :2] - box[edges[0], :2], axis=1)
    likely = np.exp(-moved / (0.3 * box[edges[0], 3]))
    gain = np.zeros((len(box), len(box)))
    gain[edges[0], edges[1]] = np.maximum(2 * likely - 1, 0)
    want = np.array([-gain[assign(gain, maximize=True)].sum()])

    def call(edges: Any, likely: Any) -> Any:
        objective = cv3gpu.mot.round_trajectories(edges, likely, len(box)).objective
        return _array.from_host(np.array([objective]), edges)

    words = f"{name}, {len(box)} boxes, {edges.shape[1]} links"
    reference = "SciPy's assignment (objective)"
    return compare("mot.round_trajectories", words, call, (edges, likely), want, reference, 1e-9)


@demo("neural tracking", family="mot")
def neural_tracking(out: Path) -> list[Row]:
    """Links boxes without identities, with errors of a detector in them, and compares with the true identities."""
    mot, viz = cv3gpu.mot, _viz()
    rows = []
    for name in SEQUENCES:
        file = track_files(name)[0]
        detections = _detections(mot.read(file))
        found, milliseconds = measure(functools.partial(mot.track, detections))
        got = _plain_scores(_plain_tracks(file), _by_frame(found))
        error = float(1 - got["IDF1"])
        said = f"IDF1 {got['IDF1']:.1%}, MOTA {got['MOTA']:.1%} by a plain loop: error {error:.1%} (limit {LIMIT:.0%})"
        words = f"{name}, {len(detections)} boxes without identities"
        rows.append(
            Row("mot.track", words, "cpu (numpy)", milliseconds, f"{said} vs true identities", error, LIMIT,
                error <= LIMIT)
        )  # fmt: skip
        near: dict[str, Any] = {"max_gap": 2, "k": 10, "max_distance": 2.0, "reciprocal": False}
        edges = mot.candidate_edges(detections.frame, detections.box, **near)
        rows += _rounding(name, detections, edges)
        if name == SEQUENCES[0]:
            linked = _named(detections, mot.track(detections, interpolate=0))
            title = f"mot.track on {name}: which of the possible links hold, frames {SHOWN[0]} to {SHOWN[1]}"
            figure = viz.tracking_graph_figure(linked, edges, frames=SHOWN, title=title)
            viz.save(figure, out / "tracking_graph.png")
            viz.tracks_gif(out / "trajectories.gif", found, size=(640, 480), longest=480)
    return rows
