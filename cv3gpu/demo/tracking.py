"""The demo's tracking: overlaps and matchings of boxes, evaluation, and trackers."""

from __future__ import annotations

import functools
import importlib
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import cv3gpu

from .. import _array
from ._checks import CPU, Row, compare, measure
from ._inputs import SEQUENCES, load_viz, track_files
from ._references import Frames, box_overlap, clear_and_identity, hota_curve, read_tracks

__all__ = ["assignments", "evaluation", "metrics", "neural_tracking", "overlaps"]

# What py-motmetrics 1.4.0 documents for these files; its MOTP is a distance, 1 - IoU. Its conventions differ
# from TrackEval's, but not on these two sequences.
DOCUMENTED: dict[str, dict[str, float]] = {
    "TUD-Campus": {
        "IDF1": 0.558, "IDP": 0.730, "IDR": 0.451, "CLR_Re": 0.582, "CLR_Pr": 0.941, "MT": 1, "PT": 6, "ML": 1,
        "CLR_FP": 13, "CLR_FN": 150, "IDSW": 7, "Frag": 7, "MOTA": 0.526, "MOTP": 1 - 0.277,
    },
    "TUD-Stadtmitte": {
        "IDF1": 0.645, "IDP": 0.820, "IDR": 0.531, "CLR_Re": 0.609, "CLR_Pr": 0.940, "MT": 5, "PT": 4, "ML": 1,
        "CLR_FP": 45, "CLR_FN": 452, "IDSW": 7, "Frag": 6, "MOTA": 0.564, "MOTP": 1 - 0.346,
    },
}  # fmt: skip

SEED = 0
DROPPED, FALSE = 0.1, 0.08  # shares of the true boxes: how many are left out, and how many are put anywhere
LIMIT = 0.1  # of 1 - IDF1
SHOWN = (1, 20)  # frames of the graph


def _frame_batch(
    sequences: Sequence[str],
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Both sides' boxes of all frames, padded: a [F, N, 4], b [F, M, 4], their counts, and IoU [F, N, M]."""
    both = [[read_tracks(path) for path in track_files(name)] for name in sequences]
    frames = [(list(gt[f].values()), list(pred[f].values())) for gt, pred in both for f in sorted(set(gt) | set(pred))]
    sizes = np.array([[len(a), len(b)] for a, b in frames])
    a, b = (np.zeros((len(frames), n, 4)) for n in sizes.max(0))
    iou = np.zeros((len(frames), *sizes.max(0)))
    for f, (gt, pred) in enumerate(frames):
        a[f, : len(gt)], b[f, : len(pred)] = np.reshape(gt, (-1, 4)), np.reshape(pred, (-1, 4))
        for i, box in enumerate(gt):
            for j, other in enumerate(pred):
                iou[f, i, j] = box_overlap(box, other)
    return a, b, sizes[:, 0], sizes[:, 1], iou


def overlaps(out: Path) -> list[Row]:
    """All overlaps of all frames of both sequences in one call."""
    a, b, _, _, want = _frame_batch(SEQUENCES)
    words = f"both tracks, {a.shape[0]} frames x {a.shape[1]} x {b.shape[1]}"

    def call(a: Any, b: Any) -> Any:
        return cv3gpu.box_iou(a, b, format="xywh")

    return compare("box_iou", words, call, (a, b), want, "a plain loop", 1e-12)


def assignments(out: Path) -> list[Row]:
    """The best matching of each frame: a ragged batch of small problems in one call."""
    assign = importlib.import_module("scipy.optimize").linear_sum_assignment
    _, _, n_rows, n_cols, iou = _frame_batch(SEQUENCES)
    cost = 1 - iou
    want = np.array([c[:n, :m][assign(c[:n, :m])].sum() for c, n, m in zip(cost, n_rows, n_cols, strict=True)])
    words = f"both tracks, {cost.shape[0]} problems to {cost.shape[1]} x {cost.shape[2]}"

    def call(cost: Any, n_rows: Any, n_cols: Any) -> Any:
        return cv3gpu.linear_sum_assignment(cost, n_rows=n_rows, n_cols=n_cols)[2]

    return compare(
        "linear_sum_assignment", words, call, (cost, n_rows, n_cols), want, "a SciPy loop (total cost)", 1e-9
    )


def metrics(out: Path) -> list[Row]:
    """MOTA, MOTP and IDF1 of a tracker on two sequences, and where identities switch."""
    mot, viz = cv3gpu.mot, load_viz()

    def scores(gt: Any, pred: Any) -> dict[str, float]:
        return {**mot.clear(gt, pred), **mot.identity(gt, pred)}

    rows, columns = [], []
    for name in SEQUENCES:
        files = track_files(name)
        gt, pred = map(mot.read, files)
        got, milliseconds = measure(functools.partial(scores, gt, pred))
        words = f"{name}, {len(gt)} and {len(pred)} boxes"
        figures = f"MOTA {got['MOTA']:.1%}, MOTP {got['MOTP']:.1%}, IDF1 {got['IDF1']:.1%}"

        for want, said, tolerance, reference in (
            (clear_and_identity(*map(read_tracks, files)), f"{figures}: ", 1e-9, "a plain loop"),
            (DOCUMENTED[name], "", 5e-4, "py-motmetrics' documentation, three decimals"),
        ):
            error = float(max(abs(got[key] - value) for key, value in want.items()))
            agreement = f"{said}max error {error:.1e} (limit {tolerance:.0e}) vs {reference}"
            ok = error <= tolerance + 1e-12  # three decimals may be off by just this much
            rows.append(Row("mot.clear, mot.identity", words, CPU, milliseconds, agreement, error, tolerance, ok))
        label = f"{name}: {figures}, {got['IDSW']} switches"
        columns.append((label, gt, pred, mot.match(gt, pred)))
    title = f"Tracks of {' and '.join(SEQUENCES)} over time"
    viz.save(viz.tracks_figure(columns, title=title), out / "tracks.png")
    return rows


def evaluation(out: Path) -> list[Row]:
    """HOTA of both sequences, which the kernels evaluate together; its curves, and who followed whom."""
    mot, viz = cv3gpu.mot, load_viz()
    files = {name: track_files(name) for name in SEQUENCES}
    tracks = {name: tuple(map(mot.read, both)) for name, both in files.items()}
    want = np.stack([hota_curve(*map(read_tracks, both)) for both in files.values()])
    columns = []
    for side in zip(*tracks.values(), strict=True):
        columns += [np.concatenate([getattr(t, name) for t in side]) for name in ("frame", "id", "box")]
        columns.append(np.repeat(np.arange(len(side)), [len(t) for t in side]))

    def call(*arrays: Any) -> Any:
        gt, pred = (mot.Boxes(frame, ids, box, sequence=which) for frame, ids, box, which in (arrays[:4], arrays[4:]))
        found = mot.evaluate_boxes(gt, pred, metrics=("hota",), n_sequences=len(tracks))
        return _array.from_host(np.stack([figures["HOTA_alpha"] for figures in found]), arrays[0])

    words = f"both tracks, {sum(len(x) for x in columns[::4])} boxes"
    rows = [
        row._replace(agreement=row.agreement + f" (HOTA {want.mean():.1%} in the mean)")
        for row in compare("mot.evaluate_boxes", words, call, columns, want, "a plain loop", 1e-9)
    ]
    gt, pred = ({name: both[k] for name, both in tracks.items()} for k in (0, 1))
    report = mot.evaluate(gt, pred)
    curves = {name: classes["all"] for name, classes in report.sequences.items()}
    viz.save(viz.alpha_figure(curves, title="HOTA and its parts over the threshold"), out / "hota.png")
    name = SEQUENCES[-1]
    events = mot.events(gt[name], pred[name])
    viz.save(viz.identities_figure(events, title=f"{name}: who followed whom"), out / "identities.png")
    return rows


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


def neural_tracking(out: Path) -> list[Row]:
    """Links boxes without identities, with errors of a detector in them, and compares with the true identities."""
    mot, viz = cv3gpu.mot, load_viz()
    rows = []
    for name in SEQUENCES:
        file = track_files(name)[0]
        detections = _detections(mot.read(file))
        found, milliseconds = measure(functools.partial(mot.track, detections))
        got = clear_and_identity(read_tracks(file), _by_frame(found))
        error = float(1 - got["IDF1"])
        said = f"IDF1 {got['IDF1']:.1%}, MOTA {got['MOTA']:.1%} by a plain loop: error {error:.1%} (limit {LIMIT:.0%})"
        words = f"{name}, {len(detections)} boxes without identities"
        agreement = f"{said} vs true identities"
        rows.append(Row("mot.track", words, CPU, milliseconds, agreement, error, LIMIT, error <= LIMIT))
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
