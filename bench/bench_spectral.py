"""Spectral clustering of points by their ten nearest neighbours, from points to labels, against scikit-learn's solvers.

The error of labels is one less the adjusted Rand index: with how points were drawn where clusters stand apart, with
scikit-learn's labels by ARPACK where they touch. A peer that is off by more than 0.05 is not timed, and its error says
why. ``bytes`` and ``flops`` are those of one product of the graph with four vectors. One core, and a second time all.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest

from cv3gpu.spectral import SpectralClustering, spectral_clustering

from . import peers
from .entry import Entry, Errors, Way, Work

NEIGHBOURS = 10
EDGES = 11.4  # entries of the graph for each point, about
BLOCK = 4
SOLVERS = {"arpack": "sklearn", "lobpcg": "sklearn", "amg": "pyamg"}  # and what each needs


class Picture(NamedTuple):
    """Points that scikit-learn draws."""

    draw: str
    options: dict[str, Any]
    clusters: int
    apart: bool = True


PICTURES = {
    "moons": Picture("make_moons", {"noise": 0.05}, 2),
    "circles": Picture("make_circles", {"noise": 0.04, "factor": 0.5}, 2),
    "blobs": Picture("make_blobs", {"centers": 8, "n_features": 5}, 8),
    "touching moons": Picture("make_moons", {"noise": 0.1}, 2, apart=False),
}


def points(picture: Picture, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Points and the cluster that each was drawn for."""
    datasets = pytest.importorskip("sklearn.datasets")
    x, y = getattr(datasets, picture.draw)(n, random_state=0, **picture.options)
    return x, y


def sklearn_labels(x: np.ndarray, clusters: int, solver: str) -> np.ndarray:
    """scikit-learn's labels; what it warns of is left out here, and judged by the labels."""
    cluster = pytest.importorskip("sklearn.cluster")
    model = cluster.SpectralClustering(
        clusters, affinity="nearest_neighbors", n_neighbors=NEIGHBOURS, eigen_solver=solver, random_state=0
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.asarray(model.fit_predict(x))


def label_errors(reference: np.ndarray, got: Any) -> Errors:
    """One less the adjusted Rand index, twice; infinite where ours has not converged."""
    if isinstance(got, SpectralClustering):
        if not got.converged:
            return Errors(float("inf"), float("inf"))
        got = got.labels
    off = 1 - float(pytest.importorskip("sklearn.metrics").adjusted_rand_score(reference, got))
    return Errors(off, off)


def _work(picture: Picture, n: int) -> Work:
    x, drawn = points(picture, n)
    reference = drawn if picture.apart else sklearn_labels(x, picture.clusters, "arpack")
    ours: Callable[[], Any] = functools.partial(
        spectral_clustering, x, picture.clusters, n_neighbors=NEIGHBOURS, return_info=True
    )
    work = Work(ours=peers.on_one_core(ours), errors=functools.partial(label_errors, reference))  # type: ignore[arg-type]
    for solver, module in SOLVERS.items():
        call = functools.partial(sklearn_labels, x, picture.clusters, solver)
        way: Way = peers.need(module, lambda _, call=call: call)
        work.peers[f"scikit-learn, {solver}, 1 core"] = peers.on_one_core(way)
    work.peers["ours on all cores"] = ours
    info = ours()
    work.facts = {
        "iterations": info.n_iter,
        "residual": float(info.residual.max()),
        "adjusted Rand index with how points were drawn": 1 - label_errors(drawn, info).norm,
    }
    work.limits = dict.fromkeys(("ours", *work.peers), "other rules")
    return work


def _entry(name: str, n: int, priority: int) -> Entry:
    return Entry(
        name=f"spectral_clustering {name} {n} float64 cpu",
        family="spectral",
        shape=f"{n} points, {NEIGHBOURS} neighbours, {PICTURES[name].clusters} clusters",
        device="cpu",
        dtype="float64",
        bytes=int(n * (EDGES * 12 + 2 * 8 * BLOCK)),
        flops=int(2 * n * EDGES * BLOCK),
        setup=functools.partial(_work, PICTURES[name], n),
        priority=priority,
    )


ENTRIES = [
    _entry("moons", 50_000, 0),
    _entry("touching moons", 50_000, 0),
    *(_entry(name, n, 1 + (n < 10_000)) for name in ("moons", "circles", "blobs") for n in (2_000, 10_000)),
    *(_entry(name, 50_000, 2) for name in ("circles", "blobs")),
]


@pytest.mark.parametrize("entry", ENTRIES, ids=str)
def bench_spectral(entry: Entry, measure: Any) -> None:
    measure(entry)
