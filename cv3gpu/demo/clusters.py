"""The demo's superpixels, clusters and normalised cuts: where k-means fails and eigenvectors do not."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np

import cv3gpu

from .._segment_cluster import lab
from ._checks import Distance, Row, compare
from ._inputs import load_viz, photograph
from ._references import colour_error, mean_shift_modes, rand_index

__all__ = ["k_means", "mean_shift", "normalized_cuts", "spectral", "superpixels"]

SEGMENTS = 300
CLUSTERS = 6
POINTS = 600  # of each part of a figure
DIFFERENT = Distance("pairs told apart otherwise", lambda got, want: 1 - rand_index(got, want), ".2%", ".1%")


def superpixels(out: Path) -> list[Row]:
    """SLIC of the photograph: how well mean colours stand for it, beside scikit-image's segments."""
    viz, image = load_viz(), photograph()
    segmentation = importlib.import_module("skimage.segmentation")
    found = {str(n): cv3gpu.slic(image, n) for n in (SEGMENTS, 4 * SEGMENTS)}
    k = int(found[str(SEGMENTS)].max()) + 1
    fewer = segmentation.slic(image, k, start_label=0).max() + 1
    want = segmentation.slic(image, k * k // fewer, start_label=0)  # about as many as ours
    relative = Distance(
        "colour error", lambda got, want: colour_error(image, got) / colour_error(image, want), ".0%", ".0%"
    )

    def call(image: Any) -> Any:
        return cv3gpu.slic(image, SEGMENTS)

    words = f"astronaut 3x512x512, {k} segments"
    reference = f"that of scikit-image's {want.max() + 1} segments"
    rows = compare("slic", words, call, (image,), want.astype(float), reference, 1.02, relative)
    found[f"{SEGMENTS}, SLIC-zero"] = cv3gpu.slic(image, SEGMENTS, zero=True)
    byte = np.rint(255 * image).astype(np.uint8)
    figure = viz.image_grid(
        [[draw(byte, labels) / 255 for labels in found.values()] for draw in (viz.boundaries, viz.mean_colours)],
        columns=[f"{labels.max() + 1} segments (asked for {n})" for n, labels in found.items()],
        rows=["boundaries", "mean colours"],
        size=4.4,
        title="slic: superpixels",
    )
    viz.save(figure, out / "superpixels.png")
    return rows


def _small() -> np.ndarray:
    """The photograph, a quarter of its size: [128, 128, 3], bytes."""
    image = photograph().reshape(128, 4, 128, 4, 3).mean((1, 3))
    return np.rint(255 * image).astype(np.uint8)


def _features(image: np.ndarray) -> np.ndarray:
    """Lab and place of each pixel, [N, 5]."""
    y, x = np.indices(image.shape[:2]) * 0.2
    return np.concatenate([lab(image), y[..., None], x[..., None]], 2).reshape(-1, 5)


def _figures(seed: int = 0) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Sets of points [N, 2] that are no round clusters, and which part each point is of."""
    rng = np.random.default_rng(seed)
    turn = np.linspace(0, 2 * np.pi, POINTS, endpoint=False)
    half, part = turn / 2, np.repeat([0, 1], POINTS)
    moons = np.concatenate([
        np.stack([np.cos(half), np.sin(half)], 1), np.stack([1 - np.cos(half), 0.5 - np.sin(half)], 1)
    ])  # fmt: skip
    ring = np.stack([np.cos(turn), np.sin(turn)], 1)
    return {
        "two moons": (moons + rng.normal(0, 0.05, moons.shape), part),
        "circles": (np.concatenate([ring, 0.45 * ring]) + rng.normal(0, 0.05, (2 * POINTS, 2)), part),
    }


def k_means(out: Path) -> list[Row]:
    """Colours and places of the photograph's pixels, from the same start as SciPy's."""
    kmeans2 = importlib.import_module("scipy.cluster.vq").kmeans2
    points = _features(_small())
    start = points[:: len(points) // CLUSTERS][:CLUSTERS].copy()
    want = kmeans2(points, start, iter=300, minit="matrix")[0]

    def call(points: Any, start: Any) -> Any:
        return cv3gpu.kmeans(points, CLUSTERS, init=start, tol=0.0)[1]

    words = f"astronaut 128x128, Lab and place, {CLUSTERS} clusters"
    return compare("kmeans", words, call, (points, start), want, "SciPy's kmeans2 (centres)", 1e-6)


def mean_shift(out: Path) -> list[Row]:
    """Modes of the colours of some pixels, and regions of the whole photograph."""
    viz, image = load_viz(), _small()
    points = np.ascontiguousarray(lab(image).reshape(-1, 3)[:: 128 * 128 // 400])
    want = mean_shift_modes(points, 15.0)

    def call(points: Any) -> Any:
        return cv3gpu.mean_shift(points, 15.0, tol=1e-6)[1]

    rows = compare("mean_shift", f"{len(points)} colours", call, (points,), want, "a plain loop (modes)", 1e-9)
    large = np.rint(255 * photograph()).astype(np.uint8)[::2, ::2]
    found = cv3gpu.mean_shift_segmentation(lab(large), 8, 16, 200, tol=1e-2)
    panels = [large / 255, viz.boundaries(large, found.labels) / 255, viz.mean_colours(large, found.labels) / 255]
    columns = ["image", f"{found.labels.max() + 1} regions", "mean colours"]
    figure = viz.image_grid([panels], columns=columns, size=4.4, title="mean_shift_segmentation")
    viz.save(figure, out / "mean_shift.png")
    return rows


def spectral(out: Path) -> list[Row]:
    """Two moons and circles: k-means cuts them through, the second eigenvector tells them apart."""
    viz, figures = load_viz(), _figures()
    rows, panels = [], []
    for name, (points, part) in figures.items():

        def call(points: Any) -> Any:
            return cv3gpu.spectral_clustering(points, 2, n_neighbors=10)

        words = f"{name}, {len(points)} points"
        reference = part.astype(float), "how they were made", 1e-3, DIFFERENT
        rows += compare("spectral_clustering", words, call, (points,), *reference)
        affinity = cv3gpu.knn_affinity(points, 10)
        second = cv3gpu.smallest_eigenpairs(affinity, 2, tol=1e-4).eigenvectors[:, 1]
        panels.append([cv3gpu.kmeans(points, 2, n_init=5).labels, second, cv3gpu.spectral_clustering(points, 2)])
    columns = ["k-means", "second eigenvector", "spectral clustering"]
    both = [points for points, _ in figures.values()]
    viz.save(viz.points_figure(both, panels, columns=columns, rows=list(figures)), out / "clusters.png")
    return rows


def normalized_cuts(out: Path) -> list[Row]:
    """The smallest eigenpairs of the photograph's graph of pixels, and the segments that they lead to."""
    viz, image = load_viz(), _small()
    sparse, linalg = (importlib.import_module(f"scipy.sparse{name}") for name in ("", ".linalg"))
    features = lab(image) / 100
    affinity = cv3gpu.pixel_affinity(features)
    matrix = affinity.tocsr()
    root = sparse.diags_array(1 / np.sqrt(matrix.sum(axis=1)))
    high = linalg.eigsh(root @ matrix @ root, 10, which="LA", return_eigenvectors=False, tol=1e-12)
    words = "astronaut 128x128, radius 5, 10 pairs"

    def values(features: Any) -> Any:
        return cv3gpu.smallest_eigenpairs(cv3gpu.pixel_affinity(features), 10)[0]

    low = 1 - np.sort(high)[::-1]
    rows = compare("smallest_eigenpairs", words, values, (features,), low, "SciPy's ARPACK", 1e-9)
    found = cv3gpu.normalized_cut(features, affinity=affinity, n_segments=8, min_size=50)
    inside = np.array([matrix[part][:, part].sum() for part in (found.labels.ravel() == k for k in range(8))])
    volume = np.bincount(found.labels.ravel(), matrix.sum(axis=1))

    def value(features: Any) -> Any:
        graph = cv3gpu.pixel_affinity(features)
        labels = cv3gpu.normalized_cut(features, affinity=graph, n_segments=8, min_size=50).labels
        return (labels * 0.0)[0, :1] + cv3gpu.ncut_value(graph, labels)

    want = np.array([((volume - inside) / volume).sum()])
    rows += compare("normalized_cut", "the same, 8 segments", value, (features,), want, "a plain sum (value)", 1e-8)
    pairs = cv3gpu.smallest_eigenpairs(affinity, 10)
    title = "smallest_eigenpairs: the second to ninth eigenvector of (D - W) y = λ D y, and cuts"
    vectors = pairs.eigenvectors.reshape(128, 128, 10)[..., 1:9]
    beside: dict[str, Any] = {"image": image, "cuts": found.labels, "title": title}
    viz.save(viz.eigenvectors_figure(pairs.eigenvalues[1:9], vectors, **beside), out / "eigenvectors.png")
    kway = cv3gpu.normalized_cut(features, affinity=affinity, n_segments=8, min_size=50, method="kway")
    panels = {"recursive": found.labels, "k-way": kway.labels}
    viz.save(viz.labels_figure(image, panels, title="normalized_cut: 8 segments"), out / "normalized_cut.png")
    return rows
