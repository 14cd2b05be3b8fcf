"""Graphs for tracking against all pairs in NumPy and torch, and the trackers' frames per second.

A crowd of people walks on straight lines and is detected with noise, with as many misses. Links must be those that all
pairs in float64 give for a sample of the detections, but for 1 in 1,000, as ways that round part where two distances
are close. Features are compared as a whole. The trackers have no peer here; their entries check that they follow the
crowd (IDF1 of 0.8 and more) and keep ``frames per second`` as a fact.

``candidate_edges``: ``bytes`` are boxes and frames once and the links, ``flops`` 12 a pair in reach, once. The peer is
the way of the published code: distances of all pairs, sorted whole by rows. ``edge_features``: 64 bytes of boxes and
the features a link, 40 flops. Trackers: the boxes, in and out; 30 flops a pair of boxes in a frame.

``round_trajectories``: links as candidate_edges gives them, with scores between those of a network that knows and of
one that guesses; the error is that of the objective, against SciPy's HiGHS. The peers solve the same linear program of
the links above one half: PuLP with CBC as the published code has it, and HiGHS, both once. ``bytes`` are links and
scores in and the result, ``flops`` one for each link.
"""

from __future__ import annotations

import functools
import importlib
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest

from cv3gpu import mot

from . import peers
from .entry import NOT_INSTALLED, Entry, Errors, Way, Work, dense_errors

EXACT, WRONG = Errors(0.0, 0.0), Errors(float("inf"), float("inf"))
SAME = 1e-3  # of the links that may be others
SAMPLE = 100  # detections whose links the reference looks at
NEIGHBORS = 50
FPS = 30.0
FOLLOWED = 0.8  # IDF1


class Crowd(NamedTuple):
    """People and frames; a link leads over up to ``gap`` frames."""

    people: int
    frames: int
    gap: int

    @property
    def detections(self) -> int:
        """About."""
        return int(0.9 * self.people * self.frames)

    def __str__(self) -> str:
        return f"{self.detections:,} detections, gap {self.gap}"


# A window of the published network, a large one, and a sequence like the second half of MOT17-04.
CROWDS = {"window": Crowd(37, 15, 14), "large": Crowd(133, 25, 24), "sequence": Crowd(50, 525, 50)}


@functools.lru_cache(maxsize=3)
def crowd(key: str) -> tuple[mot.Tracks, mot.Tracks]:
    """Detections, and who they are."""
    size = CROWDS[key]
    rng = np.random.default_rng(0)
    frame, who = (x.reshape(-1) for x in np.meshgrid(np.arange(size.frames), np.arange(size.people), indexing="ij"))
    height = rng.uniform(60, 160, size.people)
    place = rng.uniform((0, 0), (1920, 1080), (size.people, 2))
    speed = rng.uniform(-2, 2, (size.people, 2))
    corner = place[who] + speed[who] * frame[:, None]
    box = np.concatenate([corner, 0.4 * height[who, None], height[who, None]], 1)
    seen = rng.random(len(who)) < 0.9
    noisy = box[seen] + rng.normal(0, 1, (seen.sum(), 4))
    score = rng.uniform(0.5, 1, seen.sum())
    found = mot.Tracks(frame=frame[seen] + 1, id=np.full(seen.sum(), -1), box=noisy, score=score)
    return found, mot.Tracks(frame=frame + 1, id=who, box=box)


def given(key: str) -> tuple[np.ndarray, np.ndarray]:
    """Frames and boxes, float32."""
    found, _ = crowd(key)
    return found.frame.copy(), found.box.astype(np.float32)


def feet(box: np.ndarray) -> np.ndarray:
    """Middle of the lower edge."""
    return np.stack([box[:, 0] + box[:, 2] / 2, box[:, 1] + box[:, 3]], 1)


# ---- links ----------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=1)
def reference(key: str) -> tuple[np.ndarray, np.ndarray]:
    """Some detections, and the links [L] that have one of them as an end: earlier N + later."""
    frame, box = given(key)
    gap = CROWDS[key].gap
    low, height = feet(box.astype(np.float64)), box[:, 3].astype(np.float64)

    @functools.cache
    def nearest(i: int) -> frozenset[int]:
        apart = np.abs(frame - frame[i])
        far = np.linalg.norm(low - low[i], axis=1) / ((height + height[i]) / 2)
        far[(apart == 0) | (apart > gap)] = np.inf
        order = np.argsort(far, kind="stable")[:NEIGHBORS]
        return frozenset(order[np.isfinite(far[order])].tolist())

    some = np.random.default_rng(1).choice(len(frame), min(SAMPLE, len(frame)), replace=False)
    pairs = {(i, j) if frame[i] < frame[j] else (j, i) for i in some.tolist() for j in nearest(i) if i in nearest(j)}
    return some, np.array([i * len(frame) + j for i, j in pairs])


def link_errors(key: str, got: Any) -> Errors:
    """Of links [2, E]."""
    some, wanted = reference(key)
    edges = np.asarray(got.cpu() if hasattr(got, "cpu") else got.get() if hasattr(got, "get") else got)
    mine = edges[:, np.isin(edges, some).any(0)]
    n = len(crowd(key)[0])
    off = np.setxor1d(mine[0] * n + mine[1], wanted).size
    return EXACT if off <= SAME * len(wanted) else WRONG


def _all_pairs(library: Any, frame: Any, box: Any, gap: int) -> Any:
    """All distances, sorted whole by rows: as published, on arrays of NumPy or torch."""
    x, y, height = box[:, 0] + box[:, 2] / 2, box[:, 1] + box[:, 3], box[:, 3]
    dx, dy = x[:, None] - x[None], y[:, None] - y[None]
    far = (dx * dx + dy * dy) / ((height[:, None] + height[None]) / 2) ** 2
    apart = library.abs(frame[:, None] - frame[None])
    far = library.where((apart == 0) | (apart > gap), float("inf"), far)
    order = library.argsort(far, 1)[:, :NEIGHBORS]
    near = library.zeros_like(far, dtype=bool if library is np else library.bool)
    place = {} if library is np else {"device": far.device}
    near[library.arange(len(frame), **place)[:, None], order] = True
    near &= far < float("inf")
    linked = near & near.T & (frame[:, None] < frame[None])
    return library.stack(np.nonzero(linked) if library is np else library.nonzero(linked, as_tuple=True))


def _edges(key: str, device: str) -> Work:
    frame, box = given(key)
    gap = CROWDS[key].gap
    dense = len(frame) <= 5000  # the others would need tens of GB
    too_large: Way = "N x N numbers do not fit"
    work = Work(ours=lambda: None, errors=functools.partial(link_errors, key))
    in_numpy = functools.partial(_all_pairs, np, frame, box, gap) if dense else too_large
    if device == "cpu":
        work.ours = functools.partial(mot.candidate_edges, frame, box, max_gap=gap, k=NEIGHBORS)
        work.peers["NumPy, all pairs"] = in_numpy

    def in_torch(torch: Any) -> Way:
        where = "cpu" if device == "cpu" else "cuda"
        near = torch.from_numpy(frame).to(where), torch.from_numpy(box).to(where)
        if device != "cpu":
            work.ours = functools.partial(mot.candidate_edges, *near, max_gap=gap, k=NEIGHBORS)
        return functools.partial(_all_pairs, torch, *near, gap) if dense else too_large

    work.peers["torch, all pairs"] = peers.need("torch", in_torch)
    if device != "cpu":
        work.host_peers["NumPy, all pairs"] = in_numpy
    return work


# ---- features -------------------------------------------------------------------------------------------


def _features(key: str, device: str) -> Work:
    frame, box = given(key)
    velocity = np.random.default_rng(2).normal(0, 2, (len(frame), 2)).astype(np.float32)
    edges = mot.candidate_edges(frame, box, max_gap=CROWDS[key].gap, k=NEIGHBORS)
    wanted = _by_formula(np, frame, box.astype(np.float64), velocity.astype(np.float64), edges)
    work = Work(ours=lambda: None, errors=functools.partial(dense_errors, wanted))
    if device == "cpu":
        work.ours = functools.partial(mot.edge_features, frame, box, edges, fps=FPS, velocity=velocity)
        work.peers["NumPy"] = functools.partial(_by_formula, np, frame, box, velocity, edges)

    def in_torch(torch: Any) -> Way:
        where = "cpu" if device == "cpu" else "cuda"
        near = [torch.from_numpy(x).to(where) for x in (frame, box, edges, velocity)]
        if device != "cpu":
            work.ours = functools.partial(mot.edge_features, *near[:3], fps=FPS, velocity=near[3])
            work.errors = functools.partial(dense_errors, torch.from_numpy(wanted).to(where))
        return functools.partial(_by_formula, torch, *near[:2], near[3], near[2])

    work.peers["torch"] = peers.need("torch", in_torch)
    return work


def _by_formula(library: Any, frame: Any, box: Any, velocity: Any, edges: Any) -> Any:
    """Column by column, on arrays of NumPy or torch."""
    one, other = box[edges[0]], box[edges[1]]
    gap = frame[edges[1]] - frame[edges[0]]
    height = (one[:, 3] + other[:, 3]) / 2
    dx = (other[:, 0] + other[:, 2] / 2 - one[:, 0] - one[:, 2] / 2) / height
    dy = (other[:, 1] + other[:, 3] - one[:, 1] - one[:, 3]) / height
    half = (gap / 2)[:, None]
    a, b = one[:, :2] + velocity[edges[0]] * half, other[:, :2] - velocity[edges[1]] * half
    a2, b2 = a + one[:, 2:], b + other[:, 2:]
    common = (library.minimum(a2, b2) - library.maximum(a, b)).clip(0).prod(1)
    whole = one[:, 2:].prod(1) + other[:, 2:].prod(1) - common
    hull = (library.maximum(a2, b2) - library.minimum(a, b)).prod(1)
    sizes = library.log(other[:, 3] / one[:, 3]), library.log(other[:, 2] / one[:, 2])
    iou = common / whole
    return library.stack([gap / FPS, dx, dy, *sizes, iou, iou - (hull - whole) / hull], 1)


# ---- rounding -------------------------------------------------------------------------------------------

OF_ROUNDING = "sequence", "large"


def scored(key: str) -> tuple[np.ndarray, np.ndarray, int]:
    """Links, their scores and the number of detections."""
    frame, box = given(key)
    found, gt = crowd(key)
    edges = mot.candidate_edges(frame, box, max_gap=CROWDS[key].gap, k=NEIGHBORS)
    true = mot.label_edges(mot.match_detections(found, gt), edges, frame)
    doubt = np.random.default_rng(3).normal(0, 2, edges.shape[1])
    return edges, 1 / (1 + np.exp(-(5.0 * true - 3.5 + doubt))), len(frame)


def objective_errors(edges: np.ndarray, scores: np.ndarray, n: int, wanted: float, got: np.ndarray) -> Errors:
    """Of the links that are active; infinite where one node has two of a side."""
    if max(np.bincount(side[got], minlength=n).max() for side in edges) > 1:
        return WRONG
    off = abs(float((1 - 2 * scores[got]).sum()) - wanted) / max(1.0, abs(wanted))
    return Errors(off, off)


def by_highs(edges: np.ndarray, scores: np.ndarray, n: int) -> np.ndarray:
    """The linear program by SciPy's HiGHS."""
    sparse, optimize = pytest.importorskip("scipy.sparse"), pytest.importorskip("scipy.optimize")
    likely = np.flatnonzero(scores > 0.5)
    rows = np.concatenate([edges[0, likely], n + edges[1, likely]])
    columns = np.tile(np.arange(len(likely)), 2)
    sides = sparse.csr_array((np.ones(len(rows)), (rows, columns)), (2 * n, len(likely)))
    found = optimize.linprog(1 - 2 * scores[likely], A_ub=sides, b_ub=np.ones(2 * n), bounds=(0, 1), method="highs")
    active = np.zeros(len(scores), bool)
    active[likely[found.x > 0.5]] = True
    return active


def by_pulp(edges: np.ndarray, scores: np.ndarray, n: int) -> np.ndarray:
    """The linear program by PuLP and CBC."""
    pulp = importlib.import_module("pulp")
    problem = pulp.LpProblem("rounding", pulp.LpMinimize)
    likely = np.flatnonzero(scores > 0.5)
    held = [pulp.LpVariable(f"y{e}", 0, 1) for e in likely.tolist()]
    problem += pulp.lpSum((1 - 2 * scores[e]) * y for e, y in zip(likely.tolist(), held, strict=True))
    for side in edges[:, likely].tolist():
        of_node: dict[int, list[Any]] = {}
        for node, y in zip(side, held, strict=True):
            of_node.setdefault(node, []).append(y)
        for together in of_node.values():
            problem += pulp.lpSum(together) <= 1
    problem.solve(pulp.PULP_CBC_CMD(msg=False))
    active = np.zeros(len(scores), bool)
    active[likely[[y.value() > 0.5 for y in held]]] = True
    return active


def _rounding(key: str) -> Work:
    edges, scores, n = scored(key)
    wanted = float((1 - 2 * scores[by_highs(edges, scores, n)]).sum())

    def ours() -> np.ndarray:
        return np.asarray(mot.round_trajectories(edges, scores, n).active)

    work = Work(ours=ours, errors=functools.partial(objective_errors, edges, scores, n, wanted))
    work.once["HiGHS, once"] = functools.partial(peers.timed, functools.partial(by_highs, edges, scores, n))
    if peers.installed("pulp") is not None:
        work.once["PuLP and CBC, once"] = functools.partial(peers.timed, functools.partial(by_pulp, edges, scores, n))
    else:
        work.peers["PuLP and CBC, once"] = NOT_INSTALLED
    work.facts["links"] = edges.shape[1]
    work.facts["violated constraints"] = mot.round_trajectories(edges, scores, n).violations_before
    return work


# ---- trackers -------------------------------------------------------------------------------------------

TRACKERS: dict[str, Callable[[mot.Tracks], mot.Tracks]] = {
    "sort": functools.partial(mot.sort, max_age=30),
    "byte_track": mot.byte_track,
    "flow_tracker": mot.flow_tracker,
    "track": lambda found: mot.track(found, interpolate=0),
}


def _track(name: str) -> Work:
    found, gt = crowd("sequence")

    def errors(got: mot.Tracks) -> Errors:
        return EXACT if mot.identity(gt, got)["IDF1"] >= FOLLOWED else WRONG

    TRACKERS[name](found)  # compiled
    begun = time.perf_counter()
    TRACKERS[name](found)
    fps = CROWDS["sequence"].frames / (time.perf_counter() - begun)
    return Work(ours=functools.partial(TRACKERS[name], found), errors=errors, facts={"frames per second": round(fps)})


# ---- entries --------------------------------------------------------------------------------------------


def _entry(name: str, key: str, device: str) -> Entry:
    size = CROWDS[key]
    n = size.detections
    pairs = n * size.people * min(size.gap, size.frames)
    links = n * NEIGHBORS // 2
    edges = name == "candidate_edges"
    return Entry(
        name=f"{name} {size} {device}",
        family="tracking",
        shape=str(size),
        device=device,
        dtype="float32",
        bytes=24 * n + 16 * links if edges else (64 + 16 + 28) * links,
        flops=12 * pairs if edges else 40 * links,
        setup=functools.partial(_edges if edges else _features, key, device),
        priority=0 if (name, key) == ("candidate_edges", "large") else 1,
    )


def _tracker_entry(name: str) -> Entry:
    size = CROWDS["sequence"]
    return Entry(
        name=f"mot.{name} {size.frames} frames of {size.people} cpu",
        family="tracking",
        shape=f"{size.frames} frames of {size.people} people",
        device="cpu",
        dtype="float64",
        bytes=2 * 48 * size.detections,
        flops=30 * size.detections * size.people,
        setup=functools.partial(_track, name),
    )


def _rounding_entry(key: str) -> Entry:
    size = CROWDS[key]
    links = NEIGHBORS * size.detections // 2
    return Entry(
        name=f"round_trajectories {size} cpu",
        family="tracking",
        shape=str(size),
        device="cpu",
        dtype="float64",
        bytes=25 * links,
        flops=links,
        setup=functools.partial(_rounding, key),
        priority=0 if key == "sequence" else 1,
    )


ENTRIES = [
    *map(_rounding_entry, OF_ROUNDING),
    *(
        _entry(name, key, device)
        for device in ("cuda", "cpu")
        for name in ("candidate_edges", "edge_features")
        for key in CROWDS
    ),
    *map(_tracker_entry, TRACKERS),
]


@pytest.mark.parametrize("entry", ENTRIES, ids=str)
def bench_tracking(entry: Entry, measure: Any) -> None:
    """Runs one entry."""
    measure(entry)
