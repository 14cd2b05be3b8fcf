"""The main job on real input: every operator on a photograph and on real tracks, checked and timed.

An entry is a function under :func:`demo` that returns rows and writes its pictures into the folder that it is
given. What an operator returns is always compared with a reference that shares no code with it: SciPy's, or
a plain loop in this file.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import importlib.util
import itertools
import os
import shutil
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import cv3gpu

from . import _array
from .errors import BackendUnavailableError

__all__ = ["ENTRIES", "Device", "Distance", "Entry", "Result", "Row", "compare", "demo", "devices", "run"]

HINT = "pip install 'cv3gpu[demo]'"
RUNS = 5
LONG = 1.0  # seconds: no further run of one operator after this


class Row(NamedTuple):
    """One comparison: ``error`` is the largest difference from the reference, None if there is no result."""

    operator: str
    input: str
    device: str
    milliseconds: float
    agreement: str
    error: float | None
    tolerance: float
    ok: bool


class Entry(NamedTuple):
    """A registered part of the demo."""

    name: str
    family: str
    function: Callable[[Path], list[Row]]


class Result(NamedTuple):
    """What :func:`run` did."""

    rows: list[Row]
    pictures: list[Path]

    @property
    def ok(self) -> bool:
        """Whether everything agreed."""
        return all(row.ok for row in self.rows)


ENTRIES: list[Entry] = []


def demo(name: str, *, family: str) -> Callable[[Callable[[Path], list[Row]]], Callable[[Path], list[Row]]]:
    """Registers a function of the output folder that returns rows."""

    def register(function: Callable[[Path], list[Row]]) -> Callable[[Path], list[Row]]:
        ENTRIES.append(Entry(name, family, function))
        return function

    return register


def run(
    out: str | os.PathLike[str],
    entries: Sequence[Entry] | None = None,
    begin: Callable[[str], None] = lambda name: None,
) -> Result:
    """Runs entries of the demo.

    Parameters
    ----------
    out : folder of the pictures, made where it is missing; a picture of the same name is replaced
    entries : Entry, default all
    begin : called with the name of each entry as it begins

    Returns
    -------
    Result
        ``rows``, ``pictures``, ``ok``. An entry that raises gives one row that is not ok.

    Raises
    ------
    BackendUnavailableError
        scikit-image, motmetrics or matplotlib is missing; nothing was written.
    """
    target = Path(out)
    target.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    unfinished = Path(tempfile.mkdtemp(prefix=".demo-", dir=target))
    try:
        for entry in ENTRIES if entries is None else entries:
            begin(entry.name)
            try:
                rows += entry.function(unfinished)
            except BackendUnavailableError:
                raise
            except Exception as error:
                rows.append(
                    Row(entry.name, "", "", 0.0, f"{type(error).__name__}: {error}", None, 0.0, False)
                )
        pictures = []
        for path in sorted(unfinished.iterdir()):
            os.replace(path, target / path.name)
            pictures.append(target / path.name)
    finally:
        shutil.rmtree(unfinished)
    return Result(rows, pictures)


# ---- devices, time, agreement ---------------------------------------------------------------------------


class Device(NamedTuple):
    """Where an operator is tried: how a NumPy array gets there and back, and what waits for the work."""

    name: str
    put: Callable[[np.ndarray], Any]
    get: Callable[[Any], np.ndarray]
    wait: Callable[[], None]


def devices() -> list[Device]:
    """The CPU with NumPy and torch, and the GPU with CuPy and torch, as far as they are there."""
    found = [Device("cpu (numpy)", lambda x: x, lambda x: x, lambda: None)]
    torch, cupy = _optional("torch"), _optional("cupy")
    if torch is not None:
        found.append(Device("cpu (torch)", torch.from_numpy, lambda x: x.numpy(), lambda: None))
    if cupy is not None and cupy.cuda.is_available():
        found.append(Device("cuda:0 (cupy)", cupy.asarray, cupy.asnumpy, cupy.cuda.runtime.deviceSynchronize))
        if torch is not None and torch.cuda.is_available():
            found.append(
                Device(
                    "cuda:0 (torch)",
                    lambda x: torch.from_numpy(x).cuda(),
                    lambda x: x.cpu().numpy(),
                    torch.cuda.synchronize,
                )
            )
    return found


def _optional(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except Exception:
        return None  # missing or broken: cv3gpu doctor says more


def measure(call: Callable[[], Any], wait: Callable[[], None] = lambda: None) -> tuple[Any, float]:
    """The result of a call and its median time in milliseconds, after one run that is not counted."""
    result = call()
    wait()
    seconds: list[float] = []
    while len(seconds) < RUNS and sum(seconds) < LONG:
        start = time.perf_counter()
        call()
        wait()
        seconds.append(time.perf_counter() - start)
    return result, 1e3 * statistics.median(seconds)


class Distance(NamedTuple):
    """How a result is compared: a function of it and the reference, and how that number is said."""

    words: str
    between: Callable[[np.ndarray, np.ndarray], Any]
    number: str
    limit: str


LARGEST = Distance("max error", lambda got, want: np.abs(got - want).max(), ".1e", ".0e")
LABELS = Distance("labels that differ", lambda got, want: (got != want).mean(), ".2%", ".0%")
RELATIVE = Distance("error", lambda got, want: np.linalg.norm(got - want) / np.linalg.norm(want), ".1%", ".0%")


def compare(
    operator: str,
    input: str,
    call: Callable[..., Any],
    arrays: Sequence[np.ndarray],
    want: np.ndarray,
    reference: str,
    tolerance: float,
    distance: Distance = LARGEST,
) -> list[Row]:
    """Calls an operator on every device and compares with a float64 reference.

    Parameters
    ----------
    operator, input, reference : words for the table
    call : function of ``arrays`` in the device's library, returns one array
    arrays : NumPy arrays
    want : array, float64, or labels
    tolerance : largest distance that is ok
    distance : what the distance is, by default the largest absolute difference
    """
    rows = []
    for device in devices():
        there = [device.put(x) for x in arrays]
        result, milliseconds = measure(functools.partial(call, *there), device.wait)
        got = device.get(result)
        error = float(distance.between(got.astype(np.float64), want)) if got.shape == want.shape else None
        ok = error is not None and error <= tolerance  # NaN is not
        said = f"shape {got.shape}"
        if error is not None:
            said = f"{distance.words} {error:{distance.number}} (limit {tolerance:{distance.limit}})"
        rows.append(
            Row(operator, input, device.name, milliseconds, f"{said} vs {reference}", error, tolerance, ok)
        )
    return rows


# ---- inputs ---------------------------------------------------------------------------------------------


def photograph() -> np.ndarray:
    """The portrait of Eileen Collins that ships inside scikit-image: [512, 512, 3], float32, 0–1."""
    try:
        image = importlib.import_module("skimage.data").astronaut()
    except ImportError as error:
        raise BackendUnavailableError(f"demo: the photograph needs scikit-image ({error}); {HINT}") from error
    return np.asarray(image, np.float32) / 255


def track_files(sequence: str) -> tuple[Path, Path]:
    """Ground truth and prediction inside the motmetrics wheel, which is not imported (it needs NumPy 1)."""
    try:
        distribution = importlib.metadata.distribution("motmetrics")
    except importlib.metadata.PackageNotFoundError as error:
        raise BackendUnavailableError(f"demo: the tracks need the files of motmetrics; {HINT}") from error
    folder = f"motmetrics/data/{sequence}"
    gt, pred = (Path(str(distribution.locate_file(f"{folder}/{name}.txt"))) for name in ("gt", "test"))
    if not (gt.is_file() and pred.is_file()):
        raise BackendUnavailableError(f"demo: motmetrics {distribution.version} has no {folder}; {HINT}")
    return gt, pred


def _viz() -> Any:
    if importlib.util.find_spec("matplotlib") is None:
        raise BackendUnavailableError(f"demo: the pictures need matplotlib; {HINT}")
    return importlib.import_module("cv3gpu.viz")


# ---- dense prediction -----------------------------------------------------------------------------------

LUMA = np.array([0.299, 0.587, 0.114])
FILTERS = {
    "horizontal derivative": np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]) / 8,
    "vertical derivative": np.array([[-1, -2, -1], [0, 0, 0], [1, 2, 1]]) / 8,
    "Laplacian": np.array([[0, 1, 0], [1, -4, 1], [0, 1, 0]]) / 4,
    "3 x 3 mean": np.full((3, 3), 1 / 9),
}
RATES = (1, 2, 4, 8)


@demo("dilated convolution", family="conv")
def convolution(out: Path) -> list[Row]:
    """A bank of edge and smoothing filters at four rates on the photograph's brightness."""
    viz, image = _viz(), photograph()
    ndimage = importlib.import_module("scipy.ndimage")
    x = np.ascontiguousarray(image.transpose(2, 0, 1))[None]
    bank = np.stack(list(FILTERS.values()))
    weight = (bank[:, None] * LUMA[:, None, None]).astype(np.float32)
    rows, sheet = [], []
    for rate in RATES:
        wide = np.zeros((len(bank), 2 * rate + 1, 2 * rate + 1))
        wide[:, ::rate, ::rate] = bank
        want = np.stack(
            [ndimage.correlate(image.astype(np.float64) @ LUMA, f, mode="constant") for f in wide]
        )[None]

        def call(x: Any, weight: Any, rate: int = rate) -> Any:
            return cv3gpu.conv2d(x, weight, padding=rate, dilation=rate)

        rows += compare(
            "conv2d",
            f"astronaut 3x512x512, {len(bank)} filters 3x3, rate {rate}",
            call,
            (x, weight),
            want,
            "scipy.ndimage",
            2e-6,
        )
        dx, dy, laplacian, mean = call(x, weight)[0]
        sheet.append([mean, np.hypot(dx, dy), laplacian])
    figure = viz.image_grid(
        sheet,
        columns=["3 x 3 mean", "gradient magnitude", "Laplacian"],
        signed=["Laplacian"],
        rows=[f"rate {rate}" for rate in RATES],
        title="conv2d: the same 3 x 3 filters at growing dilation",
    )
    viz.save(figure, out / "dilated_convolution.png")
    return rows


def _bilinear(image: np.ndarray, size: tuple[int, int], align_corners: bool) -> np.ndarray:
    """Bilinear resize [H, W, C] by SciPy's spline sampler of order 1, in float64."""
    ndimage = importlib.import_module("scipy.ndimage")

    def positions(large: int, n: int) -> np.ndarray:
        target = np.arange(n, dtype=np.float64)
        return target * (large - 1) / (n - 1) if align_corners else (target + 0.5) * large / n - 0.5

    grid = np.meshgrid(*(positions(a, b) for a, b in zip(image.shape[:2], size, strict=True)), indexing="ij")
    channels = (image[..., c].astype(np.float64) for c in range(image.shape[2]))
    return np.stack([ndimage.map_coordinates(c, grid, order=1, mode="nearest") for c in channels])[None]


SIZES = ((171, 203), (1024, 1150))
EYES = (slice(86, 140), slice(186, 267))  # rows and columns of the photograph
ZOOM = 8


@demo("bilinear resize", family="resize")
def resize(out: Path) -> list[Row]:
    """Down and up, with the corners aligned and with half-pixel centres."""
    viz, image = _viz(), photograph()
    x = np.ascontiguousarray(image.transpose(2, 0, 1))[None]
    rows = []
    for size in SIZES:
        for align_corners in (False, True):

            def call(x: Any, size: tuple[int, int] = size, align_corners: bool = align_corners) -> Any:
                return cv3gpu.interpolate(x, size=size, mode="bilinear", align_corners=align_corners)

            words = f"astronaut 3x512x512 to {size[0]}x{size[1]}, align_corners={align_corners}"
            want = _bilinear(image, size, align_corners)
            rows += compare("interpolate", words, call, (x,), want, "scipy.ndimage", 1e-6)
    crop = np.ascontiguousarray(x[:, :, EYES[0], EYES[1]])
    size = (ZOOM * crop.shape[2], ZOOM * crop.shape[3])
    panels = {
        "nearest": cv3gpu.interpolate(crop, size=size, mode="nearest"),
        "bilinear": cv3gpu.interpolate(crop, size=size, mode="bilinear", align_corners=False),
        "bilinear, align_corners": cv3gpu.interpolate(crop, size=size, mode="bilinear", align_corners=True),
    }
    figure = viz.image_grid(
        [[p[0].transpose(1, 2, 0) for p in panels.values()]],
        columns=list(panels),
        size=4.2,
        title=f"interpolate: {crop.shape[3]} x {crop.shape[2]} pixels enlarged {ZOOM} times",
    )
    viz.save(figure, out / "resize.png")
    return rows


# ---- energy-based segmentation --------------------------------------------------------------------------

# What is to be seen in the photograph before the background, by rough outlines: x, y, x, y ...
OUTLINES = {
    "head": (155, 60, 165, 130, 180, 135, 188, 175, 255, 178, 262, 135, 290, 120, 302, 85, 285, 45, 230, 15, 180, 30),
    "suit": (120, 170, 150, 150, 186, 155, 190, 185, 254, 185, 300, 225, 350, 270, 362, 350, 330, 360, 300, 400,
             280, 511, 22, 511, 20, 400, 35, 320, 50, 260, 110, 215),
    "helmet": (300, 380, 330, 355, 390, 345, 450, 355, 490, 420, 508, 470, 511, 511, 278, 511),
    "flag": (0, 0, 48, 0, 62, 85, 95, 215, 55, 250, 30, 330, 20, 400, 22, 511, 0, 511),
    "shuttle": (395, 20, 410, 0, 435, 20, 455, 100, 455, 230, 465, 270, 370, 280, 375, 225, 357, 220, 385, 150,
                383, 60),
}  # fmt: skip
NAMES = ("background", *OUTLINES)
COARSE = 16  # pixels of a score
CROP = (slice(120, 168), slice(150, 198))  # hair, face, collar and wall
WIDTHS: dict[str, Any] = {"theta_gamma": 3.0, "theta_alpha": 60.0, "theta_beta": 10.0}
STEPS = (0, 1, 2, 5, 10)


def coarse_scores() -> np.ndarray:
    """-log p of a poor classifier of the photograph's pixels: [6, 512, 512], float32.

    The outlines on a grid of 16 pixels, one score in eight of another label, noise, enlarged, and noise on each pixel.
    """
    polygon = importlib.import_module("skimage.draw").polygon
    labels = np.zeros((512, 512), int)
    for label, outline in enumerate(OUTLINES.values(), 1):
        labels[polygon(outline[1::2], outline[::2], labels.shape)] = label
    n, side, rng = len(NAMES), 512 // COARSE, np.random.default_rng(0)
    share = np.eye(n)[labels].reshape(side, COARSE, side, COARSE, n).mean((1, 3))
    wrong = rng.random((side, side)) < 1 / 8
    share[wrong] = np.eye(n)[rng.integers(0, n, wrong.sum())]
    score = 4 * share + rng.standard_normal(share.shape)
    score = _bilinear(score, labels.shape, False)[0] + 0.8 * rng.standard_normal((n, *labels.shape))
    return (np.log(np.exp(score).sum(0)) - score).astype(np.float32)


def _features(image: np.ndarray, position: float, colour: float) -> np.ndarray:
    """Positions and colours over their widths, [5, N] or [2, N], float64."""
    y, x = np.indices(image.shape[:2]) / position
    planes = [x, y, *(image.transpose(2, 0, 1) / colour)] if colour else [x, y]
    return np.stack([plane.ravel() for plane in planes])


def _all_pairs(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The weights of all pairs of points [D, M] and [D, N]: [M, N]."""
    return np.exp(-0.5 * sum(np.subtract.outer(x, y) ** 2 for x, y in zip(a, b, strict=True)))


def _softmax(logits: np.ndarray) -> np.ndarray:
    e = np.exp(logits - logits.max(0))
    return e / e.sum(0)


def _plain_mean_field(unary: np.ndarray, image: np.ndarray, n_iter: int) -> np.ndarray:
    """Q [L, N] of a small image, by the matrices of all pairs."""
    unary = unary.reshape(len(unary), -1).astype(np.float64)
    both = []
    for weight, features in (
        (3.0, _features(image, WIDTHS["theta_gamma"], 0)),
        (10.0, _features(image, WIDTHS["theta_alpha"], WIDTHS["theta_beta"])),
    ):
        k = _all_pairs(features, features)
        root = k.sum(0) ** -0.5
        both.append(weight * root * k * root[:, None])
    q = _softmax(-unary)
    for _ in range(n_iter):
        q = _softmax(q @ sum(both) - unary)
    return q


def _plain_step(unary: np.ndarray, image: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Q [L, M] of some pixels after one iteration, kernels divided by their sums, by all pairs with these pixels."""
    unary = unary.reshape(len(unary), -1).astype(np.float64)
    q, logits = _softmax(-unary), -unary[:, at]
    for weight, features in (
        (3.0, _features(image, WIDTHS["theta_gamma"], 0)),
        (10.0, _features(image, WIDTHS["theta_alpha"], WIDTHS["theta_beta"])),
    ):
        for m, pixel in enumerate(at):
            k = _all_pairs(features[:, pixel : pixel + 1], features)[0]
            logits[:, m] += weight * (q @ k) / k.sum()
    return _softmax(logits)


@demo("dense CRF", family="crf")
def crf(out: Path) -> list[Row]:
    """Labels of the photograph from coarse, noisy scores; the lattice and all pairs against plain matrices."""
    densecrf, viz = cv3gpu.densecrf, _viz()
    image = np.rint(255 * photograph()).astype(np.uint8)
    unary = coarse_scores()
    small, part = np.ascontiguousarray(unary[:, *CROP]), np.ascontiguousarray(image[CROP])
    want = _plain_mean_field(small, part, 5).reshape(small.shape)
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

    step, words = _plain_step(unary, image, at).argmax(0), f"astronaut {len(unary)} labels x 512x512, 1 iteration"
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


@demo("Gaussian filter", family="crf")
def filtering(out: Path) -> list[Row]:
    """Bilateral filtering of a part of the photograph: five dimensions, all pairs in matrices as the reference."""
    image = photograph()[CROP]
    features = _features(image, 10.0, 0.1)
    values = image.reshape(-1, 3).T
    k = _all_pairs(features, features)
    want = values @ k / k.sum(0)
    arrays = [np.ascontiguousarray(x, np.float32) for x in (values, features)]
    rows = []
    for method, tolerance, distance in (("exact", 1e-5, LARGEST), ("lattice", 0.05, RELATIVE)):

        def call(values: Any, features: Any, method: str = method) -> Any:
            return cv3gpu.gaussian_filter(values, features, method=method, normalization="after")

        words = f"astronaut {image.shape[0]}x{image.shape[1]}, colour and position"
        rows += compare(f"gaussian_filter, {method}", words, call, arrays, want, "all pairs", tolerance, distance)
    return rows


# Strokes on the photograph: x, y, x, y ...
ON_HER = ((222, 60, 205, 110, 228, 160), (222, 190, 215, 260, 130, 330, 110, 470), (300, 260, 270, 330, 230, 430))
BEHIND_HER = ((110, 40, 110, 150, 60, 300), (330, 60, 340, 230, 400, 320, 490, 340), (30, 60, 60, 200),
              (420, 60, 415, 240), (380, 430, 470, 470), (10, 400, 12, 490))  # fmt: skip
FRAME = (20, 20, 340, 490)  # around her: x, y, width, height
FACE = (slice(60, 124), slice(140, 204))  # hair, face and wall
EIGHT = ((0, 1), (1, 0), (1, 1), (1, -1), (0, -1), (-1, 0), (-1, -1), (-1, 1))


def scribbles(strokes: Sequence[Sequence[int]]) -> np.ndarray:
    """Strokes of nine pixels' width: [512, 512], bool."""
    line, ndimage = importlib.import_module("skimage.draw").line, importlib.import_module("scipy.ndimage")
    drawn = np.zeros((512, 512), bool)
    for stroke in strokes:
        points = list(zip(stroke[::2], stroke[1::2], strict=True))
        for (x, y), (to_x, to_y) in itertools.pairwise(points):
            drawn[line(y, x, to_y, to_x)] = True
    return ndimage.binary_dilation(drawn, iterations=4)


def _weights(image: np.ndarray, sigma: float, offsets: Sequence[tuple[int, int]]) -> np.ndarray:
    """exp(-d / 2 sigma^2) / distance to the neighbours at offsets, [K, H, W]; 0 where there is none."""
    height, width = image.shape[:2]
    weights = np.zeros((len(offsets), height, width))
    for k, (dy, dx) in enumerate(offsets):
        here = np.s_[max(-dy, 0) : height - max(dy, 0), max(-dx, 0) : width - max(dx, 0)]
        there = np.s_[max(dy, 0) : height - max(-dy, 0), max(dx, 0) : width - max(-dx, 0)]
        difference = ((image[here] - image[there]) ** 2).sum(-1)
        weights[k][here] = np.exp(-difference / (2 * sigma**2)) / np.hypot(dy, dx)
    return weights


def _plain_flow(source: np.ndarray, sink: np.ndarray, weights: np.ndarray, offsets: Sequence[tuple[int, int]]) -> int:
    """The maximum flow by SciPy, of int32 capacities as :func:`cv3gpu.graph_cut` takes them."""
    sparse, graph = (importlib.import_module(f"scipy.sparse{part}") for part in ("", ".csgraph"))
    n, inside = source.size, np.arange(source.size).reshape(source.shape)
    edges = [(np.full(n, n), inside.ravel(), source.ravel()), (inside.ravel(), np.full(n, n + 1), sink.ravel())]
    for (dy, dx), plane in zip(offsets, weights, strict=True):
        y, x = plane.nonzero()
        edges.append((inside[y, x], inside[y + dy, x + dx], plane[y, x]))
    begin, end, capacity = map(np.concatenate, zip(*edges, strict=True))
    network = sparse.csr_matrix((capacity, (begin, end)), shape=(n + 2, n + 2))
    return int(graph.maximum_flow(network, n, n + 1).flow_value)


@demo("graph cut", family="graphcut")
def cuts(out: Path) -> list[Row]:
    """The person in the photograph, cut out from some strokes; flows against SciPy's maximum flow."""
    viz, image = _viz(), np.rint(255 * photograph()).astype(np.uint8)
    seeds = scribbles(ON_HER), scribbles(BEHIND_HER)
    part = np.ascontiguousarray(image[FACE])
    marks = [np.zeros(part.shape[:2], bool) for _ in seeds]
    marks[0][28:36, 36:52] = marks[1][:2] = marks[1][:, :2] = True
    lam, sigma, unit = 10.0, 0.1, 2**20
    weights = np.rint(lam * unit * _weights(part / 255, sigma, EIGHT)).astype(np.int32)
    source, sink = (np.where(mark, 2**31 - 1, 0).astype(np.int32) for mark in marks)
    flow = _plain_flow(source, sink, weights, EIGHT)
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
    coarse = np.rint(3 * _weights(image / 255, 0.08, EIGHT)).astype(np.int32)
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


@demo("GrabCut", family="graphcut")
def grab_cut(out: Path) -> list[Row]:
    """The person from a rectangle around her, by GrabCut, against a rough outline; its iterations."""
    viz = _viz()
    half = np.ascontiguousarray(np.rint(255 * photograph()[::2, ::2]).astype(np.uint8))
    polygon = importlib.import_module("skimage.draw").polygon
    outline = np.zeros((512, 512), bool)
    for name in ("head", "suit"):
        outline[polygon(OUTLINES[name][1::2], OUTLINES[name][::2], outline.shape)] = True
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


# ---- superpixels ----------------------------------------------------------------------------------------

SEGMENTS = 300


def _loss(image: np.ndarray, labels: np.ndarray) -> float:
    """The root mean squared difference of an image [H, W, C] from its segments' mean colours."""
    flat, count = labels.ravel().astype(int), np.bincount(labels.ravel().astype(int))
    errors = [c - (np.bincount(flat, c) / np.maximum(count, 1))[flat] for c in image.reshape(flat.size, -1).T]
    return float(np.sqrt(np.mean(np.square(errors))))


@demo("superpixels", family="superpixel")
def superpixels(out: Path) -> list[Row]:
    """SLIC of the photograph: how well mean colours stand for it, beside scikit-image's segments."""
    viz, image = _viz(), photograph()
    segmentation = importlib.import_module("skimage.segmentation")
    found = {str(n): cv3gpu.slic(image, n) for n in (SEGMENTS, 4 * SEGMENTS)}
    k = int(found[str(SEGMENTS)].max()) + 1
    fewer = segmentation.slic(image, k, start_label=0).max() + 1
    want = segmentation.slic(image, k * k // fewer, start_label=0)  # about as many as ours
    relative = Distance("colour error", lambda got, want: _loss(image, got) / _loss(image, want), ".0%", ".0%")

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


# ---- tracking -------------------------------------------------------------------------------------------

SEQUENCES = ("TUD-Campus", "TUD-Stadtmitte")

# What py-motmetrics 1.4.0 documents for these files; its MOTP is a distance, 1 - IoU. Its conventions differ
# from TrackEval's, but not on these two sequences.
DOCUMENTED = {
    "TUD-Campus": {
        "IDF1": 0.558,
        "IDP": 0.730,
        "IDR": 0.451,
        "CLR_Re": 0.582,
        "CLR_Pr": 0.941,
        "MT": 1,
        "PT": 6,
        "ML": 1,
        "CLR_FP": 13,
        "CLR_FN": 150,
        "IDSW": 7,
        "Frag": 7,
        "MOTA": 0.526,
        "MOTP": 1 - 0.277,
    },
    "TUD-Stadtmitte": {
        "IDF1": 0.645,
        "IDP": 0.820,
        "IDR": 0.531,
        "CLR_Re": 0.609,
        "CLR_Pr": 0.940,
        "MT": 5,
        "PT": 4,
        "ML": 1,
        "CLR_FP": 45,
        "CLR_FN": 452,
        "IDSW": 7,
        "Frag": 6,
        "MOTA": 0.564,
        "MOTP": 1 - 0.346,
    },
}

Box = tuple[float, float, float, float]
Frames = dict[int, dict[int, Box]]


def _plain_tracks(path: Path) -> Frames:
    """Boxes by frame and identity, read by hand."""
    frames: Frames = defaultdict(dict)
    for line in path.read_text().split():
        frame, identity, *box = line.split(",")[:6]
        frames[int(frame)][int(identity)] = tuple(map(float, box))  # type: ignore[assignment]
    return frames


def _plain_iou(a: Box, b: Box) -> float:
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    shared = max(width, 0.0) * max(height, 0.0)
    return shared / (a[2] * a[3] + b[2] * b[3] - shared)


def _plain_scores(gt: Frames, pred: Frames) -> dict[str, float]:
    """MOTA, MOTP, IDF1 and their counts by dictionaries and SciPy's assignment, frame after frame."""
    assign = importlib.import_module("scipy.optimize").linear_sum_assignment
    n_gt, n_pred = (sum(len(boxes) for boxes in side.values()) for side in (gt, pred))
    matches, switches, overlap = 0, 0, 0.0
    current: dict[int, int] = {}
    last: dict[int, int] = {}
    together: dict[tuple[int, int], int] = defaultdict(int)
    for frame in sorted(set(gt) & set(pred)):
        score = np.zeros((len(gt[frame]), len(pred[frame])))
        for i, (g, box) in enumerate(gt[frame].items()):
            for j, (p, other) in enumerate(pred[frame].items()):
                if (iou := _plain_iou(box, other)) >= 0.5:
                    together[g, p] += 1
                    score[i, j] = iou + (1000 if current.get(g) == p else 0)
        known, given = list(gt[frame]), list(pred[frame])
        pairs = [(i, j) for i, j in zip(*assign(score, maximize=True), strict=True) if score[i, j] > 0]
        current = {known[i]: given[j] for i, j in pairs}
        matches += len(pairs)
        overlap += sum(score[i, j] % 1000 for i, j in pairs)
        switches += sum(last.get(g, p) != p for g, p in current.items())
        last.update(current)
    rows, cols = sorted({g for g, _ in together}), sorted({p for _, p in together})
    count = np.array([[together.get((g, p), 0) for p in cols] for g in rows])
    idtp = int(count[assign(count, maximize=True)].sum())
    return {
        "MOTA": 1 - (n_gt - matches + n_pred - matches + switches) / n_gt,
        "MOTP": overlap / matches,
        "IDF1": 2 * idtp / (n_gt + n_pred),
        "CLR_TP": matches,
        "CLR_FN": n_gt - matches,
        "CLR_FP": n_pred - matches,
        "IDSW": switches,
        "IDTP": idtp,
    }


def _frame_batch(
    sequences: Sequence[str],
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Both sides' boxes of all frames, padded: a [F, N, 4], b [F, M, 4], their counts, and IoU [F, N, M]."""
    both = [[_plain_tracks(path) for path in track_files(name)] for name in sequences]
    frames = [
        (list(gt[f].values()), list(pred[f].values()))
        for gt, pred in both
        for f in sorted(set(gt) | set(pred))
    ]
    sizes = np.array([[len(a), len(b)] for a, b in frames])
    a, b = (np.zeros((len(frames), n, 4)) for n in sizes.max(0))
    iou = np.zeros((len(frames), *sizes.max(0)))
    for f, (gt, pred) in enumerate(frames):
        a[f, : len(gt)], b[f, : len(pred)] = np.reshape(gt, (-1, 4)), np.reshape(pred, (-1, 4))
        for i, box in enumerate(gt):
            for j, other in enumerate(pred):
                iou[f, i, j] = _plain_iou(box, other)
    return a, b, sizes[:, 0], sizes[:, 1], iou


@demo("box overlaps", family="boxes")
def overlaps(out: Path) -> list[Row]:
    """All overlaps of all frames of both sequences in one call."""
    a, b, _, _, want = _frame_batch(SEQUENCES)
    words = f"both tracks, {a.shape[0]} frames x {a.shape[1]} x {b.shape[1]}"

    def call(a: Any, b: Any) -> Any:
        return cv3gpu.box_iou(a, b, format="xywh")

    return compare("box_iou", words, call, (a, b), want, "a plain loop", 1e-12)


@demo("batched assignment", family="assignment")
def assignments(out: Path) -> list[Row]:
    """The best matching of each frame: a ragged batch of small problems in one call."""
    assign = importlib.import_module("scipy.optimize").linear_sum_assignment
    _, _, n_rows, n_cols, iou = _frame_batch(SEQUENCES)
    cost = 1 - iou
    want = np.array(
        [c[:n, :m][assign(c[:n, :m])].sum() for c, n, m in zip(cost, n_rows, n_cols, strict=True)]
    )
    words = f"both tracks, {cost.shape[0]} problems to {cost.shape[1]} x {cost.shape[2]}"

    def call(cost: Any, n_rows: Any, n_cols: Any) -> Any:
        return cv3gpu.linear_sum_assignment(cost, n_rows=n_rows, n_cols=n_cols)[2]

    return compare(
        "linear_sum_assignment", words, call, (cost, n_rows, n_cols), want, "a SciPy loop (total cost)", 1e-9
    )


@demo("tracking metrics", family="mot")
def tracking(out: Path) -> list[Row]:
    """MOTA, MOTP and IDF1 of a tracker on two sequences, and where identities switch."""
    mot, viz = cv3gpu.mot, _viz()

    def scores(gt: Any, pred: Any) -> dict[str, float]:
        return {**mot.clear(gt, pred), **mot.identity(gt, pred)}

    rows, columns = [], []
    for name in SEQUENCES:
        files = track_files(name)
        gt, pred = map(mot.read, files)
        got, milliseconds = measure(functools.partial(scores, gt, pred))
        words = f"{name}, {len(gt)} and {len(pred)} boxes"
        figures = f"MOTA {got['MOTA']:.1%}, MOTP {got['MOTP']:.1%}, IDF1 {got['IDF1']:.1%}"

        want = _plain_scores(*map(_plain_tracks, files))
        error = float(max(abs(got[key] - value) for key, value in want.items()))
        rows.append(
            Row(
                "mot.clear, mot.identity",
                words,
                "cpu (numpy)",
                milliseconds,
                f"{figures}: max error {error:.1e} (limit 1e-09) vs a plain loop",
                error,
                1e-9,
                error <= 1e-9,
            )
        )
        error = float(max(abs(got[key] - value) for key, value in DOCUMENTED[name].items()))
        rows.append(
            Row(
                "mot.clear, mot.identity",
                words,
                "cpu (numpy)",
                milliseconds,
                f"{len(DOCUMENTED[name])} figures documented by py-motmetrics: max error {error:.1e} "
                "(rounded to 5e-04)",
                error,
                5e-4,
                error <= 5e-4 + 1e-12,
            )
        )
        label = f"{name}: {figures}, {got['IDSW']} switches"
        columns.append((label, gt, pred, mot.match(gt, pred)))
    viz.save(
        viz.tracks_figure(columns, title="Tracks of TUD-Campus and TUD-Stadtmitte over time"),
        out / "tracks.png",
    )
    return rows


def _plain_hota(gt: Frames, pred: Frames) -> np.ndarray:
    """HOTA's curve over its 19 thresholds by dictionaries and SciPy's assignment: matches, then their identities."""
    assign = importlib.import_module("scipy.optimize").linear_sum_assignment
    levels = np.arange(1, 20) * 0.05 - 1e-9
    n_gt, n_pred = ({i: sum(i in boxes for boxes in side.values()) for boxes in side.values() for i in boxes}
                    for side in (gt, pred))  # fmt: skip
    frames = sorted(set(gt) & set(pred))
    overlap = {
        f: np.array([[_plain_iou(a, b) for b in pred[f].values()] for a in gt[f].values()]) for f in frames
    }
    shared: dict[tuple[int, int], float] = defaultdict(float)
    for f in frames:
        every = overlap[f].sum(0) + overlap[f].sum(1)[:, None] - overlap[f]
        for i, g in enumerate(gt[f]):
            for j, p in enumerate(pred[f]):
                shared[g, p] += overlap[f][i, j] / every[i, j] if every[i, j] else 0.0
    matched: dict[tuple[int, int], np.ndarray] = defaultdict(lambda: np.zeros(levels.size))
    for f in frames:
        agreed = np.array([[shared[g, p] / (n_gt[g] + n_pred[p] - shared[g, p]) for p in pred[f]] for g in gt[f]])
        for i, j in zip(*assign(agreed * overlap[f], maximize=True), strict=True):
            matched[list(gt[f])[i], list(pred[f])[j]] += overlap[f][i, j] >= levels
    tp = sum(matched.values())
    union = sum(n_gt.values()) + sum(n_pred.values()) - tp
    association = sum(c * c / (n_gt[g] + n_pred[p] - c) for (g, p), c in matched.items()) / np.maximum(tp, 1)
    return np.sqrt(tp / union * association)


@demo("tracking evaluation", family="mot")
def evaluation(out: Path) -> list[Row]:
    """HOTA of both sequences, which the kernels evaluate together; its curves, and who followed whom."""
    mot, viz = cv3gpu.mot, _viz()
    files = {name: track_files(name) for name in SEQUENCES}
    tracks = {name: tuple(map(mot.read, both)) for name, both in files.items()}
    want = np.stack([_plain_hota(*map(_plain_tracks, both)) for both in files.values()])
    columns = []
    for side in zip(*tracks.values(), strict=True):
        columns += [np.concatenate([getattr(t, name) for t in side]) for name in ("frame", "id", "box")]
        columns.append(np.repeat(np.arange(len(side)), [len(t) for t in side]))

    def call(*arrays: Any) -> Any:
        gt, pred = (mot.Boxes(frame, ids, box, sequence=which) for frame, ids, box, which in (arrays[:4], arrays[4:]))
        found = mot.evaluate_boxes(gt, pred, metrics=("hota",), n_sequences=len(tracks))
        return _array.from_host(np.stack([figures["HOTA_alpha"] for figures in found]), arrays[0])

    words = f"both tracks, {sum(len(x) for x in columns[::4])} boxes"
    rows = [
        row._replace(agreement=row.agreement + f" (HOTA {want.mean():.1%} in the mean)")
        for row in compare("mot.evaluate_boxes", words, call, columns, want, "a plain loop", 1e-9)
    ]
    gt, pred = ({name: both[k] for name, both in tracks.items()} for k in (0, 1))
    report = mot.evaluate(gt, pred)
    curves = {name: classes["all"] for name, classes in report.sequences.items()}
    viz.save(viz.alpha_figure(curves, title="HOTA and its parts over the threshold"), out / "hota.png")
    name = SEQUENCES[-1]
    events = mot.events(gt[name], pred[name])
    viz.save(viz.identities_figure(events, title=f"{name}: who followed whom"), out / "identities.png")
    return rows


from . import _demo_clusters as _demo_clusters  # noqa: E402  (registers its entries, after those above)
from . import _demo_tracks as _demo_tracks  # noqa: E402
