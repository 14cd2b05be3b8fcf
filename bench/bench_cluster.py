"""k-means and mean shift: against scikit-learn and FAISS.

k-means has twenty iterations from the same start, so results differ by rounding alone: inertia must be that of a Lloyd
in NumPy to 1e-4, as ways that rounding has parted go on apart. Mini-batches, 256 of 1,024 points that each library
draws in its own way, must come within a tenth of that. Mean shift is of every pixel of a photograph (Lab and place,
bandwidth 8), without bins. scikit-learn merges modes by another rule: its centres must be among ours. All have all
cores.

``bytes`` of k-means are the points once and the labels once in each iteration (of mini-batches: of the points drawn,
and at the end), ``flops`` 2 N K D; those of mean shift depend on the photograph, and are the points and labels once,
and none.
"""

from __future__ import annotations

import functools
import time
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest

from cv3gpu import ConvergenceWarning
from cv3gpu.cluster import kmeans, mean_shift

from . import peers
from .entry import Entry, Errors, Way, Work

EXACT, WRONG = Errors(0.0, 0.0), Errors(float("inf"), float("inf"))
ITERATIONS = 20
SAME = 1e-4  # what inertia may be off
BATCHES, BATCH, NEAR = 256, 1024, 0.1  # mini-batches, their points, and how much more inertia they may leave
BANDWIDTH = 8.0
BLOCK = 1 << 14  # points that the reference takes at a time


class Points(NamedTuple):
    """A problem for k-means."""

    points: int
    features: int
    clusters: int

    def __str__(self) -> str:
        return f"{self.points:,} x {self.features}, k = {self.clusters}"


PROBLEMS = {"pixels": Points(262_144, 5, 8), "descriptors": Points(1_000_000, 64, 256)}
IMAGES = {"100x120": (100, 120), "256x256": (256, 256)}


@functools.lru_cache(maxsize=1)
def points(key: str) -> np.ndarray:
    """Normal points around others, float32."""
    size = PROBLEMS[key]
    rng = np.random.default_rng(0)
    around = 2 * rng.standard_normal((size.clusters, size.features), np.float32)
    own = rng.integers(size.clusters, size=size.points)
    return around[own] + rng.standard_normal((size.points, size.features), np.float32)


@functools.lru_cache(maxsize=2)
def reference(key: str) -> float:
    """Inertia after the iterations, by matrix products."""
    x, count = points(key), PROBLEMS[key].clusters
    centres = x[:count]
    for step in range(ITERATIONS + 1):
        half = 0.5 * (centres**2).sum(1)
        parts = [(half - x[at : at + BLOCK] @ centres.T).argmin(1) for at in range(0, len(x), BLOCK)]
        labels = np.concatenate(parts)
        if step < ITERATIONS:
            order = labels.argsort(kind="stable")
            present, first = np.unique(labels[order], return_index=True)
            assert len(present) == count
            sums = np.add.reduceat(x[order].astype(np.float64), first, axis=0)
            centres = (sums / np.bincount(labels)[:, None]).astype(np.float32)
    return float(((x - centres[labels]).astype(np.float64) ** 2).sum())


def inertia_errors(wanted: float, got: Any) -> Errors:
    """Of a result or an estimator."""
    found = float(got.inertia if hasattr(got, "inertia") else got.inertia_)
    return EXACT if abs(found - wanted) <= SAME * wanted else WRONG


def batch_errors(wanted: float, got: Any) -> Errors:
    """As `inertia_errors`, of mini-batches."""
    found = float(got.inertia if hasattr(got, "inertia") else got.inertia_)
    return EXACT if found <= (1 + NEAR) * wanted else WRONG


def _quiet(call: Callable[[], Any]) -> Callable[[], Any]:
    """Without the warning that twenty iterations are not enough."""

    def way() -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            warnings.filterwarnings("ignore", module="sklearn")
            return call()

    return way


class _Inertia(NamedTuple):
    inertia: float


def _faiss(x: np.ndarray, count: int) -> Way:
    def make(module: Any) -> Way:
        def way() -> Any:
            options = {"niter": ITERATIONS, "min_points_per_centroid": 1, "max_points_per_centroid": len(x)}
            clusters = module.Kmeans(x.shape[1], count, **options)
            clusters.train(x, init_centroids=x[:count])
            off, _ = clusters.index.search(x, 1)
            return _Inertia(float(off.sum(dtype=np.float64)))

        return way

    return peers.need("faiss", make)


def _on(device: str, x: np.ndarray) -> Any:
    return x if device == "cpu" else pytest.importorskip("torch").from_numpy(x).cuda()


def _kmeans(key: str, device: str) -> Work:
    x, count = points(key), PROBLEMS[key].clusters
    near = _on(device, x)
    options = {"init": x[:count], "tol": 0, "max_iter": ITERATIONS, "n_init": 1, "algorithm": "lloyd"}
    found: dict[str, Way] = {
        "scikit-learn": peers.need("sklearn.cluster", lambda m: _quiet(lambda: m.KMeans(count, **options).fit(x))),
        "FAISS": _faiss(x, count),
    }
    work = Work(
        ours=_quiet(lambda: kmeans(near, count, init=near[:count], tol=0.0, max_iter=ITERATIONS)),
        errors=functools.partial(inertia_errors, reference(key)),
    )
    if device == "cpu":
        work.peers = found
    else:
        work.host_peers = found
    return work


def _batches(key: str, device: str) -> Work:
    x, count = points(key), PROBLEMS[key].clusters
    near = _on(device, x)
    options = {"init": x[:count], "batch_size": BATCH, "max_iter": 1, "n_init": 1, "max_no_improvement": None,
               "reassignment_ratio": 0.0}  # fmt: skip
    found: dict[str, Way] = {
        "scikit-learn": peers.need(
            "sklearn.cluster", lambda m: _quiet(lambda: m.MiniBatchKMeans(count, **options).fit(x))
        )
    }
    work = Work(
        ours=_quiet(lambda: kmeans(near, count, init=near[:count], batch_size=BATCH, max_iter=BATCHES, tol=0.0)),
        errors=functools.partial(batch_errors, reference(key)),
    )
    if device == "cpu":
        work.peers = found
    else:
        work.host_peers = found
    return work


# ---- mean shift -----------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=2)
def features(key: str) -> np.ndarray:
    """Lab and place of the pixels of a photograph [N, 5]."""
    photographs, color = pytest.importorskip("skimage.data"), pytest.importorskip("skimage.color")
    transform = pytest.importorskip("skimage.transform")
    height, width = IMAGES[key]
    image = transform.resize(photographs.coffee() / 255, (height, width), anti_aliasing=True)
    y, x = np.indices((height, width))
    return np.dstack([color.rgb2lab(image), y, x]).reshape(-1, 5)


def mode_errors(labels: np.ndarray, modes: np.ndarray, got: Any) -> Errors:
    """Labels must be the same; an estimator's centres must be modes."""
    if hasattr(got, "cluster_centers_"):
        off = ((got.cluster_centers_[:, None] - modes) ** 2).sum(2).min(1)
        return EXACT if np.sqrt(off.max()) <= BANDWIDTH / 2 else WRONG
    found = got.labels.cpu().numpy() if hasattr(got.labels, "cpu") else got.labels
    return EXACT if (found == labels).all() else WRONG


def _estimator(x: np.ndarray, module: Any) -> tuple[Any, float]:
    started = time.perf_counter()
    return module.MeanShift(bandwidth=BANDWIDTH).fit(x), time.perf_counter() - started


def _mean_shift(key: str, device: str) -> Work:
    x = features(key)
    host = functools.partial(mean_shift, x, BANDWIDTH)
    wanted = host()
    near = _on(device, x)
    work = Work(ours=lambda: mean_shift(near, BANDWIDTH), errors=functools.partial(mode_errors, *wanted[:2]))
    module = peers.installed("sklearn.cluster")
    if device == "cuda":
        work.host_peers = {"ours on the CPU": host}
    elif module is not None and key == "100x120":  # takes minutes
        work.once["scikit-learn, once"] = functools.partial(_estimator, x, module)
    return work


# ---- entries --------------------------------------------------------------------------------------------


def _kmeans_entry(key: str, device: str) -> Entry:
    size = PROBLEMS[key]
    return Entry(
        name=f"kmeans {size} {device}",
        family="cluster",
        shape=f"{size}, {ITERATIONS} iterations",
        device=device,
        dtype="float32",
        bytes=ITERATIONS * size.points * 4 * (size.features + 1),
        flops=ITERATIONS * 2 * size.points * size.features * size.clusters,
        setup=functools.partial(_kmeans, key, device),
        priority=0,
    )


def _batches_entry(key: str, device: str) -> Entry:
    size = PROBLEMS[key]
    moved = size.points + BATCHES * BATCH
    return Entry(
        name=f"kmeans mini-batches {size} {device}",
        family="cluster",
        shape=f"{size}, {BATCHES} batches of {BATCH:,}",
        device=device,
        dtype="float32",
        bytes=moved * 4 * (size.features + 1),
        flops=2 * moved * size.features * size.clusters,
        setup=functools.partial(_batches, key, device),
    )


def _mean_shift_entry(key: str, device: str) -> Entry:
    height, width = IMAGES[key]
    return Entry(
        name=f"mean_shift {key} {device}",
        family="cluster",
        shape=f"{width}x{height}, Lab and place, bandwidth {BANDWIDTH:g}, flat",
        device=device,
        dtype="float64",
        bytes=height * width * 48,
        flops=0,
        setup=functools.partial(_mean_shift, key, device),
        priority=0 if key == "256x256" else 1,
    )


ENTRIES = [
    entry
    for device in ("cuda", "cpu")
    for entry in (
        *(_kmeans_entry(key, device) for key in PROBLEMS),
        _batches_entry("pixels", device),
        *(_mean_shift_entry(key, device) for key in IMAGES),
    )
]


@pytest.mark.parametrize("entry", ENTRIES, ids=str)
def bench_cluster(entry: Entry, measure: Any) -> None:
    """Runs one entry."""
    measure(entry)
