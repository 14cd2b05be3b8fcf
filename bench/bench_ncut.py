"""Normalised cuts of photographs, against the plain way with SciPy and NumPy, scikit-learn and scikit-image.

Pixels: from an affinity that is there to labels. The plain two-way cut takes the second eigenvector from ARPACK, asked
for a residual of 1e-6, and tries all thresholds by sorting and cumulative sums of a matrix by rows. scikit-learn cuts
in k by its discretisation. Superpixels: from an image and its regions to labels, the region adjacency graph included,
with scikit-image's weights; ours is asked for as many segments as scikit-image ends with. Peers have one core, ours has
one as well and a second time all.

What is compared is the normalised cut: a peer may be up to 5 % worse than ours, or it is left out; with superpixels,
where scikit-image tries ten thresholds of another vector, its cut is a figure beside ours.

``bytes`` are the half stencil once for each product that a solver needs at least, ten times, and the labels; ``flops``
those of ten products with four vectors. Of superpixels, the image and the labels once.
"""

from __future__ import annotations

import functools
import warnings
from typing import Any

import numpy as np
import pytest

from cv3gpu import ncut_value, normalized_cut, region_affinity, slic
from cv3gpu.affinity import PixelAffinity

from . import peers
from .bench_eigen import NEIGHBOURS, affinity_of, normalised
from .entry import Entry, Errors, Way, Work

WRONG = Errors(float("inf"), float("inf"))
PRODUCTS, VECTORS = 10, 4
RESIDUAL = 1e-6
SIGMA = 255.0  # scikit-image's, for levels of 0-255
SUPERPIXELS = 400
SIZES = (128, 256, 512)


def cut_errors(affinity: Any, reference: float, got: Any) -> Errors:
    """By how much a cut is worse than the reference, as a share of it; nought where it is better."""
    labels = got.labels if hasattr(got, "labels") else got
    if len(np.unique(labels)) < 2:
        return WRONG
    worse = max(ncut_value(affinity, np.asarray(labels, np.int64).ravel()) / reference - 1, 0.0)
    return Errors(worse, worse)


# ---- pixels -----------------------------------------------------------------------------------------------


def plain_two_way(affinity: PixelAffinity, matrix: Any, scaled: Any) -> np.ndarray:
    """Shi and Malik's cut with what SciPy and NumPy have."""
    linalg = pytest.importorskip("scipy.sparse.linalg")
    start = np.random.default_rng(0).standard_normal(matrix.shape[0])
    _, vectors = linalg.eigsh(scaled, 2, which="LA", tol=RESIDUAL, v0=start)
    degree = affinity.degree
    y = vectors[:, 0] / np.sqrt(degree)
    order = np.argsort(y)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    rows = np.repeat(rank, np.diff(matrix.indptr))
    sign = np.sign(rank[matrix.indices] - rows)
    cut = np.cumsum(np.bincount(rows, sign * matrix.data, len(order)))[:-1]
    volume = np.cumsum(degree[order])
    best = int(np.argmin(cut / volume[:-1] + cut / (volume[-1] - volume[:-1])))
    return (rank > best).astype(np.int64)


def scikit_learn(matrix: Any, count: int) -> Way:
    """Its k-way cut of a graph, by discretisation."""

    def make(cluster: Any) -> Way:
        def way() -> Any:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return cluster.spectral_clustering(
                    matrix, n_clusters=count, assign_labels="discretize", random_state=0, eigen_tol=RESIDUAL
                )

        return way

    return peers.need("sklearn.cluster", make)


def _pixels(size: int, count: int, method: str) -> Work:
    affinity = affinity_of(size, "float64")
    ours = functools.partial(normalized_cut, None, affinity=affinity, n_segments=count, method=method)
    value = ours().ncut
    errors = functools.partial(cut_errors, affinity, value)
    work = Work(ours=peers.on_one_core(ours), errors=errors)  # type: ignore[arg-type]
    matrix = affinity.tocsr()
    if count == 2:
        plain = functools.partial(plain_two_way, affinity, matrix, normalised(affinity))
        work.peers["SciPy's ARPACK and NumPy, 1 core"] = peers.on_one_core(plain)
    elif method == "kway":
        work.peers["scikit-learn, 1 core"] = peers.on_one_core(scikit_learn(matrix, count))
    work.limits = dict.fromkeys(work.peers, "other rules")
    work.peers["ours on all cores"] = ours
    work.facts["ncut"] = value
    return work


# ---- superpixels ------------------------------------------------------------------------------------------


def coloured(size: int) -> np.ndarray:
    """The astronaut, [size, size, 3] of 0-255."""
    whole = pytest.importorskip("skimage.data").astronaut()
    step = len(whole) // size
    return whole.reshape(size, step, size, step, 3).mean((1, 3))


def scikit_image(image: np.ndarray, regions: np.ndarray) -> Way:
    """Its region adjacency graph and normalised cut."""

    def make(graph: Any) -> Way:
        def way() -> Any:
            rag = graph.rag_mean_color(image, regions, connectivity=2, mode="similarity", sigma=SIGMA)
            return graph.cut_normalized(regions, rag, rng=0)

        return way

    return peers.need("skimage.graph", make)


def _superpixels(size: int) -> Work:
    image = coloured(size)
    regions = slic(image.astype(np.uint8), SUPERPIXELS)
    graph = region_affinity(image, regions, sigma=SIGMA)
    first = np.unique(regions, return_index=True)[1]
    theirs = scikit_image(image, regions)
    found = None if isinstance(theirs, str) else theirs()
    count = 8 if found is None else len(np.unique(found))

    def ours() -> Any:
        own = region_affinity(image, regions, sigma=SIGMA)
        return normalized_cut(None, affinity=own, superpixels=regions, n_segments=count)

    def errors(got: Any) -> Errors:
        labels = got.labels if hasattr(got, "labels") else got
        return cut_errors(graph, np.inf, labels.ravel()[first])

    work = Work(ours=peers.on_one_core(ours), errors=errors)  # type: ignore[arg-type]
    work.peers = {"scikit-image, 1 core": peers.on_one_core(theirs), "ours on all cores": ours}
    work.facts = {"superpixels": float(len(first)), "segments": float(count), "ncut": ours().ncut}
    if found is not None:
        work.facts["ncut of scikit-image"] = ncut_value(graph, found.ravel()[first].astype(np.int64))
    return work


# ---- entries ----------------------------------------------------------------------------------------------


def _pixel_entry(size: int, count: int, method: str, priority: int) -> Entry:
    pixels = size * size
    return Entry(
        name=f"normalized_cut {method} {count} segments {size}x{size} float64 cpu",
        family="ncut",
        shape=f"radius 5, {count} segments, {method}",
        device="cpu",
        dtype="float64",
        bytes=pixels * 8 * (PRODUCTS * NEIGHBOURS // 2 + 1),
        flops=PRODUCTS * 2 * pixels * NEIGHBOURS * VECTORS,
        setup=functools.partial(_pixels, size, count, method),
        priority=priority,
    )


def _superpixel_entry(size: int) -> Entry:
    return Entry(
        name=f"normalized_cut of {SUPERPIXELS} superpixels {size}x{size} float64 cpu",
        family="ncut",
        shape=f"{SUPERPIXELS} superpixels",
        device="cpu",
        dtype="float64",
        bytes=size * size * (24 + 16),
        flops=size * size * 3,
        setup=functools.partial(_superpixels, size),
        priority=0,
    )


ENTRIES = [
    *(_pixel_entry(size, 2, "recursive", 2 * (size > 256)) for size in SIZES),
    *(_pixel_entry(256, 8, method, 1) for method in ("recursive", "kway")),
    *(_superpixel_entry(size) for size in (256, 512)),
]


@pytest.mark.parametrize("entry", ENTRIES, ids=str)
def bench_ncut(entry: Entry, measure: Any) -> None:
    """Runs one entry."""
    measure(entry)
