"""The demo's energies: a dense CRF and its filter, graph cuts from strokes and from a rectangle."""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import cv3gpu

from ._checks import LABELS, LARGEST, RELATIVE, Row, compare
from ._inputs import OUTLINES, load_viz, outline_mask, photograph
from ._references import all_pairs, bilinear, grid_weights, maximum_flow, mean_field, mean_field_step, point_features

__all__ = ["crf", "cuts", "filtering", "grab_cut"]

NAMES = ("background", *OUTLINES)
COARSE = 16  # pixels of a score
CROP = (slice(120, 168), slice(150, 198))  # hair, face, collar and wall
WIDTHS: dict[str, Any] = {"theta_gamma": 3.0, "theta_alpha": 60.0, "theta_beta": 10.0}
STEPS = (0, 1, 2, 5, 10)

# Strokes on the photograph: x, y, x, y ...
ON_HER = ((222, 60, 205, 110, 228, 160), (222, 190, 215, 260, 130, 330, 110, 470), (300, 260, 270, 330, 230, 430))
BEHIND_HER = ((110, 40, 110, 150, 60, 300), (330, 60, 340, 230, 400, 320, 490, 340), (30, 60, 60, 200),
              (420, 60, 415, 240), (380, 430, 470, 470), (10, 400, 12, 490))  # fmt: skip
FRAME = (20, 20, 340, 490)  # around her: x, y, width, height
FACE = (slice(60, 124), slice(140, 204))  # hair, face and wall
EIGHT = ((0, 1), (1, 0), (1, 1), (1, -1), (0, -1), (-1, 0), (-1, -1), (-1, 1))


def coarse_scores() -> np.ndarray:
    """-log p of a poor classifier of the photograph's pixels: [6, 512, 512], float32.

    The outlines on a grid of 16 pixels, one score in eight of another label, noise, enlarged, and noise on each pixel.
    """
    labels = np.zeros((512, 512), int)
    for label, name in enumerate(OUTLINES, 1):
        labels[outline_mask(name)] = label
    n, side, rng = len(NAMES), 512 // COARSE, np.random.default_rng(0)
    share = np.eye(n)[labels].reshape(side, COARSE, side, COARSE, n).mean((1, 3))
    wrong = rng.random((side, side)) < 1 / 8
    share[wrong] = np.eye(n)[rng.integers(0, n, wrong.sum())]
    score = 4 * share + rng.standard_normal(share.shape)
    score = bilinear(score, labels.shape, False)[0] + 0.8 * rng.standard_normal((n, *labels.shape))
    return (np.log(np.exp(score).sum(0)) - score).astype(np.float32)


def crf(out: Path) -> list[Row]:
    """Labels of the photograph from coarse, noisy scores; the lattice and all pairs against plain matrices."""
    densecrf, viz = cv3gpu.densecrf, load_viz()
    image = np.rint(255 * photograph()).astype(np.uint8)
    unary = coarse_scores()
    small, part = np.ascontiguousarray(unary[:, *CROP]), np.ascontiguousarray(image[CROP])
    want = mean_field(small, part, 5, WIDTHS).reshape(small.shape)
    words = f"astronaut {len(unary)} labels x {small.shape[1]}x{small.shape[2]}, 5 iterations"
    rows = []
    for method, tolerance in (("exact", 1e-4), ("lattice", 0.02), ("lattice_fine", 0.01)):

        def call(unary: Any, image: Any, method: str = method) -> Any:
            q = cv3gpu.dense_crf(unary, image, n_iter=5, method=method, **WIDTHS)
            return q if method == "exact" else q.argmax(0)

        exact = method == "exact"
        reference, distance = (want, LARGEST) if exact else (want.argmax(0), LABELS)
        rows += compare(f"dense_crf, {method}", words, call, (small, part), reference, "all pairs", tolerance, distance)
    at = np.random.default_rng(1).choice(unary[0].size, 100, replace=False)

    def whole(unary: Any, image: Any) -> Any:
        q = cv3gpu.dense_crf(unary, image, n_iter=1, normalization="after", **WIDTHS)
        return q.argmax(0).reshape(-1)[at.tolist()]

    step, words = (
        mean_field_step(unary, image, at, WIDTHS).argmax(0),
        f"astronaut {len(unary)} labels x 512x512, 1 iteration",
    )
    every = f"all pairs with {len(at)} pixels"
    rows += compare("dense_crf, lattice", words, whole, (unary, image), step, every, 0.03, LABELS)
    picture = densecrf.DenseCRF2D(512, 512, len(unary))
    picture.setUnaryEnergy(unary.reshape(len(unary), -1))
    picture.addPairwiseGaussian(WIDTHS["theta_gamma"], 3.0)
    smooth = picture.inference(STEPS[-1]).argmax(0).reshape(512, 512)
    picture.addPairwiseBilateral(WIDTHS["theta_alpha"], WIDTHS["theta_beta"], image, 10.0)
    shown = NAMES.index("suit")
    q, *_ = picture.startInference()
    steps = {}
    for n in range(STEPS[-1] + 1):
        if n:
            picture.stepInference(q)
        if n in STEPS:
            steps[n] = q.argmax(0).reshape(512, 512), q[shown].reshape(512, 512).copy()
    title = "dense_crf: mean field from coarse, noisy scores"
    figure = viz.iterations_figure(image, steps, marginal="“suit”", names=NAMES, title=title)
    viz.save(figure, out / "crf_iterations.png")
    panels = {
        "image": None,
        "unary: best labels": steps[0][0],
        "smoothness only": smooth,
        "smoothness and appearance": steps[STEPS[-1]][0],
    }
    figure = viz.labels_figure(image, panels, names=NAMES, title="dense_crf: what each kernel does to noisy scores")
    viz.save(figure, out / "crf_triptych.png")
    return rows


def filtering(out: Path) -> list[Row]:
    """Bilateral filtering of a part of the photograph: five dimensions, all pairs in matrices as the reference."""
    image = photograph()[CROP]
    features = point_features(image, 10.0, 0.1)
    values = image.reshape(-1, 3).T
    k = all_pairs(features, features)
    want = values @ k / k.sum(0)
    arrays = [np.ascontiguousarray(x, np.float32) for x in (values, features)]
    rows = []
    for method, tolerance, distance in (("exact", 1e-5, LARGEST), ("lattice", 0.05, RELATIVE)):

        def call(values: Any, features: Any, method: str = method) -> Any:
            return cv3gpu.gaussian_filter(values, features, method=method, normalization="after")

        words = f"astronaut {image.shape[0]}x{image.shape[1]}, colour and position"
        rows += compare(f"gaussian_filter, {method}", words, call, arrays, want, "all pairs", tolerance, distance)
    return rows


def scribbles(strokes: Sequence[Sequence[int]]) -> np.ndarray:
    """Strokes of nine pixels' width: [512, 512], bool."""
    line, ndimage = importlib.import_module("skimage.draw").line, importlib.import_module("scipy.ndimage")
    drawn = np.zeros((512, 512), bool)
    for stroke in strokes:
        points = list(zip(stroke[::2], stroke[1::2], strict=True))
        for (x, y), (to_x, to_y) in itertools.pairwise(points):
            drawn[line(y, x, to_y, to_x)] = True
    return ndimage.binary_dilation(drawn, iterations=4)


def cuts(out: Path) -> list[Row]:
    """The person in the photograph, cut out from some strokes; flows against SciPy's maximum flow."""
    viz, image = load_viz(), np.rint(255 * photograph()).astype(np.uint8)
    seeds = scribbles(ON_HER), scribbles(BEHIND_HER)
    part = np.ascontiguousarray(image[FACE])
    marks = [np.zeros(part.shape[:2], bool) for _ in seeds]
    marks[0][28:36, 36:52] = marks[1][:2] = marks[1][:, :2] = True
    lam, sigma, unit = 10.0, 0.1, 2**20
    weights = np.rint(lam * unit * grid_weights(part / 255, sigma, EIGHT)).astype(np.int32)
    source, sink = (np.where(mark, 2**31 - 1, 0).astype(np.int32) for mark in marks)
    flow = maximum_flow(source, sink, weights, EIGHT)
    words, scipy = f"astronaut {part.shape[0]}x{part.shape[1]}, 8 neighbours", "SciPy's maximum flow"

    def whole(source: Any, sink: Any, weights: Any) -> Any:
        return cv3gpu.graph_cut(source, sink, weights, offsets=EIGHT).flow.reshape(1)

    def seeded(image: Any, foreground: Any, background: Any) -> Any:
        return cv3gpu.boykov_jolly(image, foreground, background, lam=lam, sigma=sigma).flow.reshape(1)

    rows = compare("graph_cut", words, whole, (source, sink, weights), np.array([float(flow)]), scipy, 0.0)
    rows += compare("boykov_jolly", words, seeded, (part, *marks), np.array([flow / unit]), scipy, 1e-3)
    found = {"strokes": np.full(seeds[0].shape, 1)}
    headings = {None: "strokes alone", "histogram": "with histograms", "gmm": "with Gaussian mixtures"}
    for region, heading in headings.items():
        found[heading] = cv3gpu.boykov_jolly(image, *seeds, lam=50, sigma=None, region=region).labels
    figure = viz.image_grid(
        [[viz.cutout(image, labels, foreground=seeds[0], background=seeds[1]) / 255 for labels in found.values()]],
        columns=list(found),
        size=3.6,
        title="boykov_jolly: the least energy that agrees with the strokes, by what it knows of their colours",
    )
    viz.save(figure, out / "graph_cut.png")
    coarse = np.rint(3 * grid_weights(image / 255, 0.08, EIGHT)).astype(np.int32)
    source, sink = (np.where(seed, 1000, 0) for seed in seeds)
    least, most = (cv3gpu.graph_cut(source, sink, coarse, offsets=EIGHT, minimal=minimal) for minimal in (True, False))
    panels = {
        "strokes": np.where(seeds[0], 2, np.where(seeds[1], 0, -1)),
        "minimal cut": 2 * least.labels,
        "maximal cut": 2 * most.labels,
        "all minimum cuts": least.labels + most.labels,
    }
    names = ("background", "either", "foreground")
    title = f"graph_cut: edges of 0 to 3, flow {int(least.flow)} both ways"
    viz.save(viz.labels_figure(image, panels, names=names, title=title), out / "graph_cut_minimal_maximal.png")
    return rows


def grab_cut(out: Path) -> list[Row]:
    """The person from a rectangle around her, by GrabCut, against a rough outline; its iterations."""
    viz = load_viz()
    half = np.ascontiguousarray(np.rint(255 * photograph()[::2, ::2]).astype(np.uint8))
    outline = outline_mask("head") | outline_mask("suit")
    rect = tuple(side // 2 for side in FRAME)

    def call(image: Any) -> Any:
        return cv3gpu.grab_cut(image, rect).labels

    words = f"astronaut 3x{half.shape[0]}x{half.shape[1]}, a rectangle"
    rows = compare("grab_cut", words, call, (half,), outline[::2, ::2].astype(float), "a rough outline", 0.15, LABELS)
    steps = list(cv3gpu.graphcut.seeds.grab_cut_steps(half, rect))
    start = np.zeros(half.shape[:2], np.uint8)
    start[rect[1] : rect[1] + rect[3], rect[0] : rect[0] + rect[2]] = 1
    panels = {"rectangle": viz.cutout(half, start, rect=rect)}
    for k in sorted({1, 2, 5, len(steps)} & set(range(len(steps) + 1))):
        heading = f"{k} iteration{'s' * (k > 1)}, E = {steps[k - 1].energy:,.0f}"
        panels[heading] = viz.cutout(half, steps[k - 1].labels, rect=rect)
    figure = viz.image_grid(
        [[picture / 255 for picture in panels.values()]],
        columns=list(panels),
        size=3.2,
        title="grab_cut: from a rectangle, until no label changes",
    )
    viz.save(figure, out / "grab_cut.png")
    return rows
