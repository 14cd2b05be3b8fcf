"""What the demo's results are compared with: plain loops and SciPy, which share no code with the operators."""

from __future__ import annotations

import importlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

__all__ = [
    "Box",
    "Frames",
    "all_pairs",
    "bilinear",
    "box_overlap",
    "clear_and_identity",
    "colour_error",
    "grid_weights",
    "hota_curve",
    "maximum_flow",
    "mean_field",
    "mean_field_step",
    "mean_shift_modes",
    "point_features",
    "rand_index",
    "read_tracks",
]

Box = tuple[float, float, float, float]  # left, top, width, height
Frames = dict[int, dict[int, Box]]  # by frame, then by identity


def bilinear(image: np.ndarray, size: tuple[int, int], align_corners: bool) -> np.ndarray:
    """Bilinear resize [H, W, C] by SciPy's spline sampler of order 1, in float64."""
    ndimage = importlib.import_module("scipy.ndimage")

    def positions(large: int, n: int) -> np.ndarray:
        target = np.arange(n, dtype=np.float64)
        return target * (large - 1) / (n - 1) if align_corners else (target + 0.5) * large / n - 0.5

    grid = np.meshgrid(*(positions(a, b) for a, b in zip(image.shape[:2], size, strict=True)), indexing="ij")
    channels = (image[..., c].astype(np.float64) for c in range(image.shape[2]))
    return np.stack([ndimage.map_coordinates(c, grid, order=1, mode="nearest") for c in channels])[None]


# ---- dense CRF ------------------------------------------------------------------------------------------


def point_features(image: np.ndarray, position: float, colour: float) -> np.ndarray:
    """Positions and colours over their widths, [5, N] or [2, N], float64."""
    y, x = np.indices(image.shape[:2]) / position
    planes = [x, y, *(image.transpose(2, 0, 1) / colour)] if colour else [x, y]
    return np.stack([plane.ravel() for plane in planes])


def all_pairs(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The weights of all pairs of points [D, M] and [D, N]: [M, N]."""
    return np.exp(-0.5 * sum(np.subtract.outer(x, y) ** 2 for x, y in zip(a, b, strict=True)))


def _softmax(logits: np.ndarray) -> np.ndarray:
    e = np.exp(logits - logits.max(0))
    return e / e.sum(0)


def _kernels(image: np.ndarray, widths: Mapping[str, float]) -> list[tuple[float, np.ndarray]]:
    """Weight and points of the smoothness and of the appearance kernel, with the default weights of the operator."""
    return [
        (3.0, point_features(image, widths["theta_gamma"], 0)),
        (10.0, point_features(image, widths["theta_alpha"], widths["theta_beta"])),
    ]


def mean_field(unary: np.ndarray, image: np.ndarray, n_iter: int, widths: Mapping[str, float]) -> np.ndarray:
    """Q [L, N] of a small image, by the matrices of all pairs; ``widths`` are named as those of the operator."""
    unary = unary.reshape(len(unary), -1).astype(np.float64)
    both = []
    for weight, features in _kernels(image, widths):
        k = all_pairs(features, features)
        root = k.sum(0) ** -0.5
        both.append(weight * root * k * root[:, None])
    q = _softmax(-unary)
    for _ in range(n_iter):
        q = _softmax(q @ sum(both) - unary)
    return q


def mean_field_step(unary: np.ndarray, image: np.ndarray, at: np.ndarray, widths: Mapping[str, float]) -> np.ndarray:
    """Q [L, M] of some pixels after one iteration, kernels divided by their sums, by all pairs with these pixels."""
    unary = unary.reshape(len(unary), -1).astype(np.float64)
    q, logits = _softmax(-unary), -unary[:, at]
    for weight, features in _kernels(image, widths):
        for m, pixel in enumerate(at):
            k = all_pairs(features[:, pixel : pixel + 1], features)[0]
            logits[:, m] += weight * (q @ k) / k.sum()
    return _softmax(logits)


# ---- graph cuts, regions, clusters ----------------------------------------------------------------------


def grid_weights(image: np.ndarray, sigma: float, offsets: Sequence[tuple[int, int]]) -> np.ndarray:
    """exp(-d / 2 sigma^2) / distance to the neighbours at offsets, [K, H, W]; 0 where there is none."""
    height, width = image.shape[:2]
    weights = np.zeros((len(offsets), height, width))
    for k, (dy, dx) in enumerate(offsets):
        here = np.s_[max(-dy, 0) : height - max(dy, 0), max(-dx, 0) : width - max(dx, 0)]
        there = np.s_[max(dy, 0) : height - max(-dy, 0), max(dx, 0) : width - max(-dx, 0)]
        difference = ((image[here] - image[there]) ** 2).sum(-1)
        weights[k][here] = np.exp(-difference / (2 * sigma**2)) / np.hypot(dy, dx)
    return weights


def maximum_flow(source: np.ndarray, sink: np.ndarray, weights: np.ndarray, offsets: Sequence[tuple[int, int]]) -> int:
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


def colour_error(image: np.ndarray, labels: np.ndarray) -> float:
    """The root mean squared difference of an image [H, W, C] from its segments' mean colours."""
    flat, count = labels.ravel().astype(int), np.bincount(labels.ravel().astype(int))
    errors = [c - (np.bincount(flat, c) / np.maximum(count, 1))[flat] for c in image.reshape(flat.size, -1).T]
    return float(np.sqrt(np.mean(np.square(errors))))


def mean_shift_modes(points: np.ndarray, bandwidth: float) -> np.ndarray:
    """Where each point climbs to: means of those within the bandwidth, again and again."""
    at = points.copy()
    for _ in range(300):
        near = ((at[:, None] - points) ** 2).sum(2) <= bandwidth**2
        at = near @ points / near.sum(1, keepdims=True)
    modes: list[np.ndarray] = []
    for end in at:
        if all(np.linalg.norm(end - mode) >= bandwidth / 2 for mode in modes):
            modes.append(end)
    return np.array(modes)


def rand_index(got: np.ndarray, want: np.ndarray) -> float:
    """The Rand index, by all pairs of some points."""
    some = np.linspace(0, len(got) - 1, 400).astype(int)
    together = [labels[some][:, None] == labels[some] for labels in (got, want)]
    return float((together[0] == together[1]).mean())


# ---- tracks ---------------------------------------------------------------------------------------------


def read_tracks(path: Path) -> Frames:
    """Boxes by frame and identity, read by hand."""
    frames: Frames = defaultdict(dict)
    for line in path.read_text().split():
        frame, identity, *box = line.split(",")[:6]
        frames[int(frame)][int(identity)] = tuple(map(float, box))  # type: ignore[assignment]
    return frames


def box_overlap(a: Box, b: Box) -> float:
    """Intersection over union."""
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    shared = max(width, 0.0) * max(height, 0.0)
    return shared / (a[2] * a[3] + b[2] * b[3] - shared)


def clear_and_identity(gt: Frames, pred: Frames) -> dict[str, float]:
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
                if (iou := box_overlap(box, other)) >= 0.5:
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


def hota_curve(gt: Frames, pred: Frames) -> np.ndarray:
    """HOTA's curve over its 19 thresholds by dictionaries and SciPy's assignment: matches, then their identities."""
    assign = importlib.import_module("scipy.optimize").linear_sum_assignment
    levels = np.arange(1, 20) * 0.05 - 1e-9
    n_gt, n_pred = ({i: sum(i in boxes for boxes in side.values()) for boxes in side.values() for i in boxes}
                    for side in (gt, pred))  # fmt: skip
    frames = sorted(set(gt) & set(pred))
    overlap = {f: np.array([[box_overlap(a, b) for b in pred[f].values()] for a in gt[f].values()]) for f in frames}
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
