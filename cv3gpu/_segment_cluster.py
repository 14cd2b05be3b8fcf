"""What ``cv3gpu segment kmeans``, ``meanshift``, ``spectral`` and ``ncut`` find and draw, without the shell."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from . import _array, _segment_slic, viz
from .errors import ConvergenceWarning
from .superpixel.model import XYZ, linear

__all__ = [
    "Course",
    "Found",
    "edges",
    "k_means",
    "lab",
    "mean_shift",
    "normalized_cut",
    "pictures",
    "spectral",
    "stages",
    "write",
]

Array = np.ndarray[Any, Any]
Put = Callable[[Array], Any]

DRAWN = 9  # eigenvectors in the picture
SMALL = (6 / 29) ** 3  # below, Lab is linear in the light
STEPS = 8  # pictures of a course


class Course(NamedTuple):
    """How iterations went, for a page: what it is called, what is said below, and what makes the pictures by name."""

    title: str
    note: str
    pictures: Callable[[], dict[str, Array]]  # [H, W, 3], uint8


class Found(NamedTuple):
    """A segmentation, what is said of it, and what else is drawn."""

    labels: Array  # [H, W]
    facts: dict[str, Any]
    eigenvalues: Array | None = None  # [k]
    eigenvectors: Array | None = None  # [H, W, k]
    filtered: Array | None = None  # [H, W, 3], Lab
    cuts: tuple[Sequence[Any], Sequence[int]] = ((), ())  # the two-way cuts, and each segment's node among them
    course: Course | None = None


def lab(image: Array) -> Array:
    """CIE L*a*b* (D65) of sRGB bytes, [H, W, 3], float64: L from 0 to 100."""
    xyz = linear(image / 255.0) @ XYZ.astype(np.float64).T
    f = np.where(xyz > SMALL, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = np.moveaxis(f, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -1)


def rgb(colours: Array) -> Array:
    """The sRGB bytes of CIE L*a*b*."""
    y = (colours[..., 0] + 16) / 116
    f = np.stack([y + colours[..., 1] / 500, y, y - colours[..., 2] / 200], -1)
    xyz = np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29))
    light = np.clip(xyz @ np.linalg.inv(XYZ.astype(np.float64)).T, 0, 1)
    values = np.where(light > 0.0031308, 1.055 * light ** (1 / 2.4) - 0.055, 12.92 * light)
    return np.rint(255 * values).astype(np.uint8)


def k_means(image: Array, options: Mapping[str, Any], put: Put) -> Found:
    """Clusters of colour and place."""
    import cv3gpu

    y, x = np.indices(image.shape[:2]) * options["nearness"]
    points = put(np.concatenate([lab(image), y[..., None], x[..., None]], 2).reshape(-1, 5))
    count, seed, starts = options["clusters"], options["seed"], options["starts"]
    found = cv3gpu.kmeans(points, count, n_init=starts, seed=seed)

    def pictures() -> dict[str, Array]:
        """Of the first run: what begins with the centroids of an iteration goes on as it would have."""
        course, done, begin = {}, 0, "k-means++"
        for k in _some(cv3gpu.kmeans(points, count, seed=seed).n_iter):
            here = cv3gpu.kmeans(points, count, init=begin, max_iter=k - done, seed=seed)
            done, begin = k, here.centroids
            labels = _array.to_host(here.labels).reshape(image.shape[:2])
            course[f"iteration {k}"] = viz.mean_colours(image, labels)
        return course

    note = f"The first of {starts} runs, of which the best counts." if starts > 1 else ""
    return Found(
        _array.to_host(found.labels).reshape(image.shape[:2]),
        {"inertia": float(found.inertia), "iterations": int(found.n_iter)},
        course=Course("k-means, iteration by iteration", f"Each cluster in its mean colour. {note}".strip(), pictures),
    )


def _some(last: int) -> list[int]:
    """Some of the iterations from 1 to the last one, close together at first."""
    return np.unique(np.rint(np.geomspace(1, max(last, 1), STEPS)).astype(int)).tolist()


def mean_shift(image: Array, options: Mapping[str, Any], put: Put) -> Found:
    """Regions whose pixels climb to modes near one another."""
    from .cluster import mean_shift_filter, mean_shift_segmentation

    given = put(lab(image)), options["spatial"], options["range"]
    how = {name: options[name] for name in ("kernel", "tol")}
    found = mean_shift_segmentation(*given, options["min_size"], **how)

    def pictures() -> dict[str, Array]:
        course = {"start": image}
        for k in _some(found.n_iter):
            course[f"step {k}"] = rgb(_array.to_host(mean_shift_filter(*given, max_iter=k, **how)))
        return course

    labels, colours = _array.to_host(found.labels), _array.to_host(found.colors)
    course = Course("Mean shift, step by step", "Each pixel in the colour that it has climbed to.", pictures)
    return Found(labels, {"iterations": int(found.n_iter)}, filtered=colours[labels], course=course)


def _affinity(image: Array, options: Mapping[str, Any], put: Put) -> Any:
    """Of pixels: colours are Lab in units of L's range, edge strengths those of its gradient."""
    import cv3gpu

    widths = {name: options[name] for name in ("radius", "sigma_intensity", "sigma_distance")}
    shown = lab(image) / 100
    if options["kind"] == "contour":
        return cv3gpu.pixel_affinity(put(edges(shown)), kind="intervening_contour", **widths)
    return cv3gpu.pixel_affinity(put(shown), **widths)


def edges(colours: Array) -> Array:
    """Strength of edges, about 0 to 1: the gradient of the smoothed colours."""
    from scipy import ndimage

    parts = [ndimage.gaussian_gradient_magnitude(plane, 1.5, mode="nearest") for plane in np.moveaxis(colours, -1, 0)]
    return np.asarray(5 * np.sqrt(np.sum(np.square(parts), 0)))


def spectral(image: Array, options: Mapping[str, Any], put: Put) -> Found:
    """Spectral clustering of pixels."""
    import cv3gpu

    found = cv3gpu.spectral_clustering(
        _affinity(image, options, put), options["segments"] or "eigengap", normalization=options["normalization"],
        assign=options["assign"], seed=options["seed"], return_info=True,
    )  # fmt: skip
    vectors = _array.to_host(found.eigenvectors).reshape(*image.shape[:2], -1)
    values = _array.to_host(found.eigenvalues)
    facts = {"eigenvalues": values.tolist(), "iterations": int(found.n_iter), "converged": bool(found.converged)}
    return Found(_array.to_host(found.labels).reshape(image.shape[:2]), facts, values, vectors)


def normalized_cut(image: Array, options: Mapping[str, Any], put: Put) -> Found:
    """Normalised cuts of pixels, or of superpixels."""
    import cv3gpu

    rule = {name: options[name] for name in ("max_ncut", "min_size", "method", "seed")}
    count = options["segments"]
    if options["superpixels"]:
        regions = cv3gpu.slic(put(image), options["superpixels"])
        sigma = 100 * options["sigma_intensity"]
        graph = cv3gpu.region_affinity(put(lab(image)), regions, sigma=sigma * sigma)
        count = count and min(count, int(regions.max()) + 1)
        found = cv3gpu.normalized_cut(
            None, affinity=graph, superpixels=regions, n_segments=count, return_info=True, **rule
        )
        facts = {"superpixels": int(regions.max()) + 1}
        return Found(_array.to_host(found.labels), facts | _of_cut(found), cuts=_tree(found))
    graph = _affinity(image, options, put)
    found = cv3gpu.normalized_cut(put(lab(image)), affinity=graph, n_segments=count, return_info=True, **rule)
    values, vectors, *_ = cv3gpu.smallest_eigenpairs(graph, min(DRAWN + 1, graph.shape[0]), tol=1e-3)
    pictures = _array.to_host(vectors).reshape(*image.shape[:2], -1)
    labels = _array.to_host(found.labels)
    return Found(labels, _of_cut(found), _array.to_host(values), pictures, cuts=_tree(found))


def _of_cut(found: Any) -> dict[str, Any]:
    facts = {"ncut": float(found.ncut), "iterations": int(found.n_iter), "converged": bool(found.converged)}
    cuts = [{"ncut": float(split.ncut), "sizes": [int(n) for n in split.sizes]} for split in found.splits]
    return facts | {"cuts": cuts}


def _tree(found: Any) -> tuple[Sequence[Any], Sequence[int]]:
    return found.splits, found.leaves


def stages(found: Found) -> list[Array]:
    """The labels before the first two-way cut, and after each: nodes that are cut later are still whole."""
    splits, leaves = found.cuts
    maps = []
    for count in range(len(splits) + 1 if splits else 0):
        place = []
        for leaf in leaves:
            node = leaf
            while node > 2 * count:  # made by a later cut
                node = splits[(node - 1) // 2].node
            place.append(node)
        maps.append(np.unique(place, return_inverse=True)[1][found.labels])
    return maps


def pictures(course: Course) -> dict[str, Array]:
    """The pictures of a course, which ends before its iterations do."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return course.pictures()


def write(folder: Path, title: str, image: Array, found: Found) -> list[Path]:
    """Writes labels.png, boundaries.png, mean_colours.png, and eigenvectors.png or filtered.png."""
    files = _segment_slic.write_superpixels(folder, image, found.labels)
    if found.eigenvectors is not None and found.eigenvalues is not None and len(found.eigenvalues) > 1:
        files.append(folder / "eigenvectors.png")
        shown = slice(1, DRAWN + 1)  # the first is the same everywhere
        values, vectors = found.eigenvalues[shown], found.eigenvectors[..., shown]
        viz.save(viz.eigenvectors_figure(values, vectors, title=title), files[-1])
    if found.filtered is not None:
        files.append(folder / "filtered.png")
        viz.save_image(rgb(found.filtered), files[-1])
    return files
