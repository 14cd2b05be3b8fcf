"""How near unsupervised segmentations come to people's: ``python -m bench.segmentation_quality --data DIR``.

DIR is a folder, or a zip file, of photographs ``<id>.jpg`` and human segmentations ``<id>.npz`` (``segmentations``
[annotators, H, W]), as those of BSDS500. Photographs and segmentations are halved in size. Each way has one fixed set
of parameters. Means over annotators, then over photographs, of

* covering: of each human segmentation by the result (Arbelaez et al. 2011);
* PRI, the probabilistic Rand index;
* VoI, the variation of information, bits: less is better.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

import cv3gpu
from cv3gpu._segment_cluster import edges

from .superpixel_quality import photographs

Labels = np.ndarray
Way = Callable[[np.ndarray], Labels]


class Quality(NamedTuple):
    """Means over annotators and photographs, and seconds a photograph."""

    covering: float
    pri: float
    voi: float
    segments: float
    seconds: float


def halved(image: np.ndarray, truths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """RGB [h, w, 3], float 0-1, means of 2 x 2 pixels; labels [annotators, h, w]."""
    height, width = image.shape[0] // 2 * 2, image.shape[1] // 2 * 2
    parts = image[:height, :width].astype(np.float64).reshape(height // 2, 2, width // 2, 2, 3)
    return np.ascontiguousarray(parts.mean((1, 3)) / 255), truths[:, :height:2, :width:2]


def lab(image: np.ndarray) -> np.ndarray:
    """CIE L*a*b* of RGB in 0-1."""
    from skimage.color import rgb2lab

    return np.ascontiguousarray(rgb2lab(image))


def score(way: Way, data: list[tuple[np.ndarray, np.ndarray]]) -> Quality:
    """Of one way over halved photographs."""
    rows = []
    for image, truths in data:
        begun = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            labels = np.asarray(way(image))
        seconds = time.perf_counter() - begun
        figures = (cv3gpu.segmentation_covering, cv3gpu.rand_index, cv3gpu.variation_of_information)
        found = [np.mean([figure(labels, np.ascontiguousarray(t)) for t in truths]) for figure in figures]
        rows.append((*found, len(np.unique(labels)), seconds))
    return Quality(*np.mean(rows, axis=0))


# ---- ways -----------------------------------------------------------------------------------------------


def k_means(clusters: int, nearness: float) -> Way:
    """k-means of colour and place."""

    def way(image: np.ndarray) -> Labels:
        y, x = np.indices(image.shape[:2], float) * nearness
        points = np.concatenate([lab(image), y[..., None], x[..., None]], 2).reshape(-1, 5)
        return cv3gpu.kmeans(points, clusters, n_init=3).labels.reshape(image.shape[:2])

    return way


def mean_shift(spatial: float, colour: float, min_size: int) -> Way:
    """Mean shift of place and colour, small regions merged."""
    return lambda image: cv3gpu.mean_shift_segmentation(lab(image), spatial, colour, min_size, tol=1e-2).labels


def merged(superpixels: Way, sigma: float, segments: int) -> Way:
    """Normalised cuts of the adjacency graph of superpixels, whose edges count by the length of the border."""

    def way(image: np.ndarray) -> Labels:
        regions = np.ascontiguousarray(superpixels(image))
        affinity = cv3gpu.region_affinity(lab(image) / 100, regions, sigma=sigma, boundary=True)
        count = min(segments, int(regions.max()) + 1)
        return cv3gpu.normalized_cut(None, affinity=affinity, superpixels=regions, n_segments=count).labels

    return way


def slic(n: int) -> Way:
    """SLIC's superpixels."""
    return lambda image: cv3gpu.slic(image, n)


def pixel_cut(segments: int, **options: object) -> Way:
    """Shi and Malik's normalised cut of pixels, by colour or by contours between them."""

    def way(image: np.ndarray) -> Labels:
        shown = edges(lab(image) / 100) if options.get("kind") == "intervening_contour" else lab(image) / 100
        affinity = cv3gpu.pixel_affinity(shown, **options)  # type: ignore[arg-type]
        return cv3gpu.normalized_cut(image, affinity=affinity, n_segments=segments, method="kway", min_size=50).labels

    return way


def felzenszwalb(scale: float) -> Way:
    """scikit-image's graph-based merging."""
    from skimage.segmentation import felzenszwalb as function

    return lambda image: function(image, scale=scale, sigma=0.8, min_size=100)


def scikit_image_cut(n: int) -> Way:
    """scikit-image's SLIC and normalised cut, as its gallery has them."""
    from skimage import graph
    from skimage.segmentation import slic as superpixels

    def way(image: np.ndarray) -> Labels:
        regions = superpixels(image, compactness=30, n_segments=n, start_label=1)
        adjacency = graph.rag_mean_color(image * 255, regions, mode="similarity")
        return graph.cut_normalized(regions, adjacency)

    return way


CONTOURS = {"kind": "intervening_contour", "radius": 5, "sigma_intensity": 0.1}
WAYS: dict[str, Callable[[], Way]] = {
    "k-means, 8 clusters": lambda: k_means(8, 0.2),
    "mean shift": lambda: mean_shift(8, 28, 800),
    "mean shift, normalised cut of 8 regions": lambda: merged(mean_shift(8, 8, 50), 0.02, 8),
    "SLIC, normalised cut of superpixels, 8 segments": lambda: merged(slic(150), 0.02, 8),
    "normalised cut of pixels, 8 segments": lambda: pixel_cut(8),
    "normalised cut of pixels by contours, 8 segments": lambda: pixel_cut(8, **CONTOURS),
    "scikit-image, felzenszwalb": lambda: felzenszwalb(100),
    "scikit-image, SLIC and normalised cut": lambda: scikit_image_cut(400),
}


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="zip file or folder of <id>.npz")
    parser.add_argument("--images", type=int, help="only the first so many")
    given = parser.parse_args()
    data = [halved(*one) for one in list(photographs(given.data))[: given.images]]
    print(f"{len(data)} photographs of half size\n")
    print("| method | covering | PRI | VoI | segments | seconds |\n|---|---|---|---|---|---|")
    for name, make in WAYS.items():
        found = score(make(), data)
        print(
            f"| {name} | {found.covering:.3f} | {found.pri:.3f} | {found.voi:.2f} | {found.segments:.0f} | "
            f"{found.seconds:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
