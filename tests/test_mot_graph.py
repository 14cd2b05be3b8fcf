"""Graphs for tracking against all pairs in NumPy, brute-force matchings, and the formulas written out."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from cv3gpu import box_iou, mot
from cv3gpu.mot import graph
from tests.tolerance import assert_close

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "mot"
DTYPES = ("float32", "float64")


def scene(rng: np.random.Generator, n: int, frames: int, *, tracklets: bool = False, moving: bool = False,
          looks: int = 0, dtype: str = "float64") -> dict[str, np.ndarray]:  # fmt: skip
    """Nodes in no order of time."""
    box = np.concatenate([rng.random((n, 2)) * 100, rng.random((n, 2)) * 20 + 5], 1).astype(dtype)
    nodes = {"frame": rng.integers(0, frames, n), "box": box}
    if tracklets:
        nodes["last_frame"] = nodes["frame"] + rng.integers(0, 4, n)
        nodes["last_box"] = (box + rng.random((n, 4))).astype(dtype)
    if moving:
        nodes["velocity"] = rng.standard_normal((n, 2)).astype(dtype)
    if moving and tracklets:
        nodes["last_velocity"] = rng.standard_normal((n, 2)).astype(dtype)
    if looks:
        nodes["appearance"] = rng.standard_normal((n, looks)).astype(dtype)
    return nodes


def feet(box: np.ndarray) -> np.ndarray:
    return np.stack([box[:, 0] + box[:, 2] / 2, box[:, 1] + box[:, 3]], 1)


def ends(nodes: dict[str, np.ndarray]) -> tuple[np.ndarray, ...]:
    """Last frames, last boxes, velocities at the beginning and at the end, in float64."""
    still = np.zeros((len(nodes["frame"]), 2))
    velocity = nodes.get("velocity", still)
    last = nodes.get("last_frame", nodes["frame"]), nodes.get("last_box", nodes["box"]).astype(float)
    return *last, velocity.astype(float), nodes.get("last_velocity", velocity).astype(float)


def all_distances(nodes: dict[str, np.ndarray], max_gap: int) -> np.ndarray:
    """[N, N], from the earlier node to the later one; inf where there can be no link."""
    last_frame, last_box, velocity, last_velocity = ends(nodes)
    gap = nodes["frame"][None] - last_frame[:, None]
    half = gap[..., None] / 2
    one = feet(last_box)[:, None] + last_velocity[:, None] * half
    other = feet(nodes["box"].astype(float))[None] - velocity[None] * half
    distance = np.linalg.norm(other - one, axis=2) / ((last_box[:, None, 3] + nodes["box"][None, :, 3]) / 2)
    if "appearance" in nodes:
        look = nodes["appearance"].astype(float)
        distance = np.linalg.norm(look[:, None] - look[None], axis=2)
    return np.where((gap > 0) & (gap <= max_gap), distance, np.inf)


def by_all_pairs(
    nodes: dict[str, np.ndarray], max_gap: int, k: int, most: float = np.inf, both: bool = True
) -> np.ndarray:
    distance = all_distances(nodes, max_gap)
    distance[distance > most] = np.inf
    either = np.minimum(distance, distance.T)
    near = np.zeros(distance.shape, bool)
    for i, row in enumerate(either):
        chosen = np.argsort(row, kind="stable")[:k]
        near[i, chosen[np.isfinite(row[chosen])]] = True
    linked = near & near.T if both else near | near.T
    return np.stack(np.nonzero(linked & np.isfinite(distance)))


def edges_of(path: Any, nodes: dict[str, np.ndarray], **options: Any) -> np.ndarray:
    given = {name: path.array(values) for name, values in nodes.items()}
    found = path.numpy(mot.candidate_edges(given.pop("frame"), given.pop("box"), **given, **options))
    assert found.dtype == np.int64
    return found


# ---- candidates -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("tracklets", [False, True])
@pytest.mark.parametrize("moving", [False, True])
@pytest.mark.parametrize("both", [True, False])
def test_links_are_the_nearest_of_all_pairs(path: Any, dtype: str, tracklets: bool, moving: bool, both: bool) -> None:
    rng = np.random.default_rng(3)
    for n, k, gap in ((2, 1, 3), (37, 4, 5), (90, 12, 8)):
        nodes = scene(rng, n, 12, tracklets=tracklets, moving=moving, dtype=dtype)
        found = edges_of(path, nodes, max_gap=gap, k=k, reciprocal=both)
        np.testing.assert_array_equal(found, by_all_pairs(nodes, gap, k, both=both))


@pytest.mark.parametrize("tracklets", [False, True])
def test_links_by_appearance(path: Any, tracklets: bool) -> None:
    rng = np.random.default_rng(4)
    for n, looks in ((5, 1), (80, 19)):
        nodes = scene(rng, n, 9, tracklets=tracklets, looks=looks)
        np.testing.assert_array_equal(edges_of(path, nodes, max_gap=4, k=6), by_all_pairs(nodes, 4, 6))


def test_longer_lists_than_a_warp_holds(path: Any) -> None:
    """More than 64 neighbours: found in passes."""
    nodes = scene(np.random.default_rng(5), 150, 4, moving=True)
    for k in (33, 64, 65, 140):
        np.testing.assert_array_equal(edges_of(path, nodes, max_gap=3, k=k), by_all_pairs(nodes, 3, k))


def test_nearer_than_the_limit(path: Any) -> None:
    nodes = scene(np.random.default_rng(6), 60, 10)
    np.testing.assert_array_equal(
        edges_of(path, nodes, max_gap=9, k=60, max_distance=1.5), by_all_pairs(nodes, 9, 60, most=1.5)
    )
    two = {"frame": np.array([1, 2]), "box": np.array([[0.0, 0, 10, 10], [30, 0, 10, 10]])}  # a distance of 3
    assert edges_of(path, two, max_gap=1, k=1, max_distance=3).shape == (2, 1)
    assert edges_of(path, two, max_gap=1, k=1, max_distance=2.99).shape == (2, 0)
    assert edges_of(path, two, max_gap=1, k=1, max_distance=0).shape == (2, 0)


def test_ties_go_to_the_one_before_and_the_nearest_in_time(path: Any) -> None:
    """Five boxes in one place: equal distances, and only the order in time decides."""
    nodes = {"frame": np.array([3, 1, 5, 2, 4]), "box": np.tile([5.0, 5, 10, 10], (5, 1))}
    found = edges_of(path, nodes, max_gap=4, k=1, reciprocal=False)
    frames = [tuple(nodes["frame"][e]) for e in found.T]
    assert sorted(frames) == [(1, 2), (2, 3), (3, 4), (4, 5)]


@pytest.mark.parametrize("frames", [[], [3], [3, 3, 3], [1, 100, 200]])
def test_nothing_to_link(path: Any, frames: list[int]) -> None:
    nodes = {"frame": np.array(frames, np.int64), "box": np.ones((len(frames), 4))}
    assert edges_of(path, nodes, max_gap=5, k=3).shape == (2, 0)


def test_one_node_far_after_the_others(path: Any) -> None:
    """Frames without nodes, and a node without a candidate among nodes with some."""
    rng = np.random.default_rng(8)
    nodes = scene(rng, 40, 5)
    nodes["frame"][7] = 1000
    found = edges_of(path, nodes, max_gap=3, k=5)
    assert not (found == 7).any() and found.shape[1]
    np.testing.assert_array_equal(found, by_all_pairs(nodes, 3, 5))


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    st.integers(0, 2**32 - 1), st.integers(0, 50), st.integers(1, 9), st.integers(1, 20), st.booleans(), st.booleans()
)
def test_properties_of_links(seed: int, n: int, gap: int, k: int, tracklets: bool, both: bool) -> None:
    nodes = scene(np.random.default_rng(seed), n, 12, tracklets=tracklets, moving=True)
    found = mot.candidate_edges(**nodes, max_gap=gap, k=k, reciprocal=both)
    between = nodes["frame"][found[1]] - nodes.get("last_frame", nodes["frame"])[found[0]]
    assert ((between > 0) & (between <= gap)).all()
    assert (np.diff(found[0] * n + found[1]) > 0).all()
    if both:
        assert (np.bincount(found.reshape(-1), minlength=n) <= k).all()
        wider = mot.candidate_edges(**nodes, max_gap=gap, k=k, reciprocal=False)
        assert set(zip(*found.tolist(), strict=True)) <= set(zip(*wider.tolist(), strict=True))
    turn = np.random.default_rng(seed).permutation(n)
    again = turn[mot.candidate_edges(**{name: x[turn] for name, x in nodes.items()}, max_gap=gap, k=k, reciprocal=both)]
    np.testing.assert_array_equal(found, again[:, np.lexsort(again[::-1])])


def test_the_same_links_in_any_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = scene(np.random.default_rng(9), 1200, 60, moving=True)
    whole = mot.candidate_edges(**nodes, max_gap=20, k=10)
    monkeypatch.setattr(graph, "_spans", lambda count: list(itertools.pairwise(range(0, count + 1, count // 3))))
    np.testing.assert_array_equal(mot.candidate_edges(**nodes, max_gap=20, k=10), whole)


# ---- features -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("tracklets", [False, True])
@pytest.mark.parametrize("moving", [False, True])
@pytest.mark.parametrize("looks", [0, 11])
def test_features_are_the_formulas(path: Any, dtype: str, tracklets: bool, moving: bool, looks: int) -> None:
    nodes = scene(np.random.default_rng(1), 40, 9, tracklets=tracklets, moving=moving, looks=looks, dtype=dtype)
    edges = mot.candidate_edges(**nodes, max_gap=6, k=9)
    given = {name: path.array(values) for name, values in nodes.items()}
    got = mot.edge_features(given.pop("frame"), given.pop("box"), path.array(edges), fps=25, **given)
    found = path.numpy(got)
    last_frame, last_box, velocity, last_velocity = ends(nodes)
    i, j = edges
    one, other = last_box[i], nodes["box"].astype(float)[j]
    gap = (nodes["frame"][j] - last_frame[i]).astype(float)
    away = (feet(other) - feet(one)) / ((one[:, 3:] + other[:, 3:]) / 2)
    columns = [gap / 25, *away.T, *np.log(other[:, :1:-1] / one[:, :1:-1]).T]
    if looks:
        look = nodes["appearance"].astype(float)
        columns.append(np.linalg.norm(look[i] - look[j], axis=1))
    if moving:
        one[:, :2] += last_velocity[i] * gap[:, None] / 2
        other[:, :2] -= velocity[j] * gap[:, None] / 2
        pairs = one[:, None], other[:, None]
        columns += [box_iou(*pairs, format="xywh", kind=kind)[:, 0, 0] for kind in ("iou", "giou")]
    assert found.dtype == np.float32 and found.shape == (len(i), len(columns))
    # Differences of pixels up to 120 over heights from 5: their rounding is not relative to the difference.
    assert_close(found, np.stack(columns, 1), "float32", terms=20, scale=120 / 5 if dtype == "float32" else 1)


def test_features_of_no_links(path: Any) -> None:
    nodes = scene(np.random.default_rng(1), 3, 9, moving=True)
    none = path.array(np.empty((2, 0), np.int64))
    found = mot.edge_features(
        path.array(nodes["frame"]), path.array(nodes["box"]), none, velocity=path.array(nodes["velocity"])
    )
    assert tuple(found.shape) == (0, 7)


# ---- labels ---------------------------------------------------------------------------------------------


def by_loop(ids: np.ndarray, edges: np.ndarray, frame: np.ndarray, last_frame: np.ndarray) -> np.ndarray:
    active = []
    for i, j in edges.T:
        out = [frame[b] - last_frame[a] for a, b in edges.T if a == i and ids[a] == ids[b]]
        into = [frame[b] - last_frame[a] for a, b in edges.T if b == j and ids[a] == ids[b]]
        gap = frame[j] - last_frame[i]
        active.append(ids[i] == ids[j] >= 0 and (gap == min(out) or gap == min(into)))
    return np.array(active, bool)


@pytest.mark.parametrize("tracklets", [False, True])
def test_true_links_lead_to_the_next_of_an_identity(path: Any, tracklets: bool) -> None:
    rng = np.random.default_rng(2)
    for n in (3, 30):
        nodes = scene(rng, n, 15, tracklets=tracklets)
        edges = mot.candidate_edges(**nodes, max_gap=8, k=6, reciprocal=False)
        ids, last = rng.integers(-1, 4, n), nodes.get("last_frame", nodes["frame"])
        ends = () if not tracklets else (path.array(last),)
        found = path.numpy(mot.label_edges(path.array(ids), path.array(edges), path.array(nodes["frame"]), *ends))
        np.testing.assert_array_equal(found, by_loop(ids, edges, nodes["frame"], last))


def test_a_missed_detection_is_bridged() -> None:
    """Of the links that there are: where the next detection is not linked, the one after it is the next."""
    frame, ids = np.array([1, 2, 3]), np.array([4, 4, 4])
    assert mot.label_edges(ids, np.array([[0, 1], [2, 2]]), frame).tolist() == [True, True]
    assert mot.label_edges(ids, np.array([[0, 0, 1], [1, 2, 2]]), frame).tolist() == [True, False, True]
    assert mot.label_edges(np.array([4, -1, -1]), np.array([[0, 1], [2, 2]]), frame).tolist() == [False, False]


# ---- detections and ground truth ------------------------------------------------------------------------


def tracks(rng: np.random.Generator, n: int, frames: int) -> mot.Tracks:
    frame = rng.integers(1, frames, n)
    box = np.concatenate([rng.integers(0, 4, (n, 2)) * 4.0 + rng.random((n, 2)) * 3, np.full((n, 2), 9.0)], 1)
    return mot.Tracks(frame=frame, id=np.arange(n), box=box)


@pytest.mark.parametrize("pairs", [graph._PAIRS, 40])
def test_detections_take_the_best_matching(monkeypatch: pytest.MonkeyPatch, pairs: int) -> None:
    monkeypatch.setattr(graph, "_PAIRS", pairs)
    rng = np.random.default_rng(11)
    found, gt = tracks(rng, 60, 9), tracks(rng, 50, 11)
    ids = mot.match_detections(found, gt)
    for frame in range(12):
        a, b = np.flatnonzero(found.frame == frame), np.flatnonzero(gt.frame == frame)
        iou = box_iou(found.box[a], gt.box[b], format="xywh")
        cost = np.where(iou >= 0.5, 1 - iou, 1000)
        row, col = linear_sum_assignment(cost)
        matched = ids[a] >= 0
        assert matched.sum() == (cost[row, col] < 1000).sum()
        mates = np.searchsorted(gt.id[b], ids[a][matched])
        np.testing.assert_array_equal(gt.id[b][mates], ids[a][matched])
        best = cost[row, col][cost[row, col] < 1000].sum()
        assert cost[np.flatnonzero(matched), mates].sum() == pytest.approx(best)


def test_nothing_to_match() -> None:
    gt = mot.Tracks(frame=[1], id=[3], box=[[0, 0, 9, 9]])
    none, later = gt[:0], mot.Tracks(frame=[2], id=[-1], box=[[0, 0, 9, 9]])
    assert mot.match_detections(none, gt).shape == (0,)
    assert mot.match_detections(later, gt).tolist() == [-1] == mot.match_detections(later, none).tolist()
    assert mot.match_detections(gt, gt, min_iou=1).tolist() == [3]


@pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data/mot")
def test_graph_of_a_real_sequence_reaches_the_true_links() -> None:
    """TUD-Campus: nearly every next detection of a person is among the candidates."""
    found, gt = (mot.read(DATA / "MOT15" / "TUD-Campus" / file) for file in ("det/det.txt", "gt/gt.txt"))
    ids = mot.match_detections(found, gt)
    assert (ids >= 0).mean() > 0.8
    edges = mot.candidate_edges(found.frame, found.box, max_gap=5, k=20)
    active = mot.label_edges(ids, edges, found.frame)
    known = np.flatnonzero(ids >= 0)
    order = known[np.lexsort((found.frame[known], ids[known]))]
    following = (ids[order][1:] == ids[order][:-1]) & (np.diff(found.frame[order]) <= 5)
    true = set(zip(order[:-1][following].tolist(), order[1:][following].tolist(), strict=True))
    linked = set(zip(*edges[:, active].tolist(), strict=True))
    assert len(true & linked) > 0.98 * len(true)


# ---- refusals -------------------------------------------------------------------------------------------

FRAME, BOX = np.array([1, 2, 3]), np.array([[0.0, 0, 9, 9]] * 3)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"frame": [1, 2, 3]}, TypeError, "frame must be a NumPy, CuPy or torch array"),
        ({"frame": FRAME.astype(float)}, TypeError, "frame must have dtype int64 or int32, got float64"),
        ({"frame": FRAME[None]}, ValueError, r"frame must have shape \[N\]"),
        ({"frame": FRAME - 5}, ValueError, "frame must be from 0 to 2147483647, got -4"),
        ({"box": BOX.astype(int)}, TypeError, "box must have dtype float32 or float64"),
        ({"box": BOX[:2]}, ValueError, r"box must have shape \[3, 4\]"),
        ({"box": BOX * np.nan}, ValueError, "box must be finite, got nan"),
        ({"box": BOX * 0}, ValueError, "box must have a positive width and height, got 0"),
        ({"last_frame": FRAME}, ValueError, "last_box must come with last_frame"),
        ({"last_box": BOX}, ValueError, "last_frame must come with last_box"),
        ({"last_frame": FRAME - 1, "last_box": BOX}, ValueError, "last_frame must not be before frame, got 0 before 1"),
        ({"last_frame": FRAME, "last_box": BOX.astype("float32")}, TypeError, "last_box must have the dtype of box"),
        ({"last_velocity": BOX[:, :2]}, ValueError, "velocity must come with last_velocity"),
        ({"velocity": BOX}, ValueError, r"velocity must have shape \[3, 2\]"),
        ({"velocity": BOX[:, :2] + np.inf}, ValueError, "velocity must be finite, got inf"),
        ({"appearance": BOX[:2]}, ValueError, r"appearance must have shape \[3, D\]"),
        ({"max_gap": 0}, ValueError, "max_gap must be from 1"),
        ({"max_gap": 1.5}, TypeError, "max_gap must be an integer"),
        ({"k": 0}, ValueError, "k must be from 1"),
        ({"max_distance": -1.0}, ValueError, "max_distance must not be negative"),
        ({"max_distance": np.inf}, ValueError, "max_distance must be finite"),
        ({"reciprocal": 1}, TypeError, "reciprocal must be True or False"),
    ],
)
def test_candidates_refuse(change: dict[str, Any], error: type[Exception], message: str) -> None:
    given = {"frame": FRAME, "box": BOX, "max_gap": 1, "k": 2} | change
    with pytest.raises(error, match=f"candidate_edges: {message}"):
        mot.candidate_edges(**given)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"frame": FRAME[:2]}, ValueError, r"box must have shape \[2, 4\]"),
        ({"frame": FRAME.astype("int8")}, TypeError, "frame must have dtype"),
        ({"box": -BOX}, ValueError, "box must have a positive width and height"),
        ({"edges": [[0], [1]]}, TypeError, "edges must be a NumPy, CuPy or torch array"),
        ({"edges": np.array([[0.0], [1]])}, TypeError, "edges must have dtype int64"),
        ({"edges": np.array([0, 1])}, ValueError, r"edges must have shape \[2, E\]"),
        ({"edges": np.array([[0], [3]])}, ValueError, "edges must hold nodes from 0 to 2, got 3"),
        ({"edges": np.array([[-1], [1]])}, ValueError, "edges must hold nodes from 0 to 2, got -1"),
        ({"edges": np.array([[1], [0]])}, ValueError, "edges must lead forward in time, got 1 to 0"),
        ({"edges": np.array([[1], [1]])}, ValueError, "edges must lead forward in time, got 1 to 1"),
        ({"fps": 0}, ValueError, "fps must be finite and positive"),
        ({"fps": "30"}, TypeError, "fps must be a number"),
        ({"last_box": BOX}, ValueError, "last_frame must come with last_box"),
        ({"appearance": BOX[0]}, ValueError, r"appearance must have shape \[3, D\]"),
    ],
)
def test_features_refuse(change: dict[str, Any], error: type[Exception], message: str) -> None:
    given = {"frame": FRAME, "box": BOX, "edges": np.array([[0], [1]])} | change
    with pytest.raises(error, match=f"edge_features: {message}"):
        mot.edge_features(**given)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"ids": [1, 1, 1]}, TypeError, "ids must be a NumPy, CuPy or torch array"),
        ({"ids": FRAME.astype("int32")}, TypeError, "ids must have dtype int64"),
        ({"ids": FRAME[None]}, ValueError, r"ids must have shape \[N\]"),
        ({"edges": np.array([[0], [3]])}, ValueError, "edges must hold nodes from 0 to 2, got 3"),
        ({"edges": np.array([[0], [1]], "int32")}, TypeError, "edges must have dtype int64"),
        ({"edges": np.array([[0, 1]])}, ValueError, r"edges must have shape \[2, E\]"),
        ({"frame": FRAME[:2]}, ValueError, r"frame must have shape \[3\]"),
        ({"frame": FRAME.astype(float)}, TypeError, "frame must have dtype"),
        ({"last_frame": FRAME[:2]}, ValueError, r"last_frame must have shape \[3\]"),
    ],
)
def test_labels_refuse(change: dict[str, Any], error: type[Exception], message: str) -> None:
    given = {"ids": FRAME, "edges": np.array([[0], [1]]), "frame": FRAME} | change
    with pytest.raises(error, match=f"label_edges: {message}"):
        mot.label_edges(**given)


def test_matching_refuses() -> None:
    some = mot.Tracks(frame=[1], id=[3], box=[[0, 0, 9, 9]])
    with pytest.raises(TypeError, match="match_detections: detections must be Tracks, got list"):
        mot.match_detections([], some)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="match_detections: gt must be Tracks"):
        mot.match_detections(some, None)  # type: ignore[arg-type]
    for value in (0, -1, np.nan):
        with pytest.raises(ValueError, match="match_detections: min_iou must be finite and positive"):
            mot.match_detections(some, some, min_iou=value)
    with pytest.raises(ValueError, match=r"match_detections: min_iou must be above 0 and up to 1, got 1\.5"):
        mot.match_detections(some, some, min_iou=1.5)
