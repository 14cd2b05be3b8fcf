"""Graphs over points: against scikit-learn, and FAISS on the host.

Graphs of the ten nearest neighbours must hold the edges from a thousand points, by distances in float64, but for 1 in
1,000, as ways that round part where two distances are close; and as many edges as all points have. All have all cores.

``bytes`` are the points and the edges once, ``flops`` 3 N^2 D, of all distances.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np
import pytest

from cv3gpu.affinity import knn_affinity

from . import peers
from .entry import Entry, Errors, Way, Work

EXACT, WRONG = Errors(0.0, 0.0), Errors(float("inf"), float("inf"))
NEIGHBORS = 10
SAME = 1e-3  # of the edges that may be others
SAMPLE = 1000  # points that the reference looks at


class Points(NamedTuple):
    """A graph's points: normal ones, or two moons."""

    points: int
    features: int

    def __str__(self) -> str:
        return f"{self.points:,} x {self.features}"


PROBLEMS = {"moons": Points(50_000, 2), "features": Points(20_000, 64), "descriptors": Points(20_000, 128)}


@functools.lru_cache(maxsize=1)
def points(key: str) -> np.ndarray:
    """Two moons with noise, or normal points; float32."""
    size = PROBLEMS[key]
    rng = np.random.default_rng(0)
    if key != "moons":
        return rng.standard_normal((size.points, size.features), np.float32)
    angle = np.linspace(0, np.pi, size.points // 2)
    upper, lower = np.stack([np.cos(angle), np.sin(angle)], 1), np.stack([1 - np.cos(angle), 0.5 - np.sin(angle)], 1)
    return (np.concatenate([upper, lower]) + 0.05 * rng.standard_normal((size.points, 2))).astype(np.float32)


@functools.lru_cache(maxsize=1)
def reference(key: str) -> np.ndarray:
    """The edges from some points, as numbers: row N + column."""
    x = points(key).astype(np.float64)
    rows = np.random.default_rng(1).choice(len(x), SAMPLE, replace=False)
    column = np.stack([((x - x[i]) ** 2).sum(1).argsort()[1:NEIGHBORS] for i in rows])
    return (rows[:, None] * len(x) + column).ravel()


def graph_errors(wanted: np.ndarray, got: Any) -> Errors:
    """Of a graph: SciPy's, CuPy's or torch's."""
    if hasattr(got, "crow_indices"):
        start, column = (a.cpu().numpy() for a in (got.crow_indices(), got.col_indices()))
    else:
        start, column = got.indptr, got.indices
    count = len(start) - 1
    edges = np.repeat(np.arange(count), np.diff(start)) * count + column
    many = (NEIGHBORS - 1) * count <= len(edges) <= 2 * (NEIGHBORS - 1) * count
    return EXACT if many and np.isin(wanted, edges, invert=True).sum() <= SAME * len(wanted) else WRONG


def _symmetric(one: Any) -> Any:
    one.setdiag(0)
    one.eliminate_zeros()
    return ((one + one.T) / 2).tocsr()


def _scikit_learn(x: np.ndarray) -> Way:
    return peers.need(
        "sklearn.neighbors",
        lambda m: lambda: _symmetric(m.kneighbors_graph(x, NEIGHBORS, include_self=True, n_jobs=-1)),
    )


def _faiss(x: np.ndarray) -> Way:
    def make(module: Any) -> Way:
        from scipy import sparse

        def way() -> Any:
            index = module.IndexFlatL2(x.shape[1])
            index.add(x)
            column = index.search(x, NEIGHBORS)[1].ravel()
            start = np.arange(len(x) + 1) * NEIGHBORS
            return _symmetric(sparse.csr_matrix((np.ones(len(column), np.float32), column, start), (len(x),) * 2))

        return way

    return peers.need("faiss", make)


def _graph(key: str, device: str) -> Work:
    x = points(key)
    near = x if device == "cpu" else pytest.importorskip("torch").from_numpy(x).cuda()
    found = {"scikit-learn": _scikit_learn(x), "FAISS": _faiss(x)}
    work = Work(
        ours=lambda: knn_affinity(near, NEIGHBORS),
        errors=functools.partial(graph_errors, reference(key)),
    )
    if device == "cpu":
        work.peers = found
    else:
        work.host_peers = found
    return work


def _entry(key: str, device: str) -> Entry:
    size = PROBLEMS[key]
    return Entry(
        name=f"knn_affinity {size} {device}",
        family="affinity",
        shape=f"{size}, {NEIGHBORS} neighbours",
        device=device,
        dtype="float32",
        bytes=size.points * (4 * size.features + 12 * 2 * NEIGHBORS),
        flops=3 * size.points**2 * size.features,
        setup=functools.partial(_graph, key, device),
        priority=0 if key == "features" else 1,
    )


ENTRIES = [_entry(key, device) for device in ("cuda", "cpu") for key in PROBLEMS]


@pytest.mark.parametrize("entry", ENTRIES, ids=str)
def bench_neighbors(entry: Entry, measure: Any) -> None:
    """Runs one entry."""
    measure(entry)
