"""Operators on small arrays of any shape, dtype and size of number: against an oracle or by what must hold.

A draw that fits the operator must give the right result. One that does not, or hardly, may be refused too, by a
ValueError or TypeError that begins with the operator's name.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.optimize
import scipy.sparse
import scipy.sparse.csgraph
from scipy import ndimage

import cv3gpu
from cv3gpu import message, mot
from tests import oracles

from .engine import FAMILIES, Family, Wrong
from .mutate import pick

__all__ = ["OPERATORS"]

Rng = np.random.Generator
OPERATORS: dict[str, Family] = {}
NEAR = 1e-9  # of float64 results against an oracle, times the size of what is added up


def _operator(name: str) -> Callable[[Callable[[Rng], int | None]], Callable[[Rng], int | None]]:
    def known(function: Callable[[Rng], int | None]) -> Callable[[Rng], int | None]:
        OPERATORS[name] = FAMILIES[name] = Family(name, lambda rng, folder: function(rng))
        return function

    return known


def tried(call: Callable[[], Any], fits: bool) -> Any:
    """The result, or None where the call was refused as it should be."""
    try:
        return call()
    except (ValueError, TypeError) as error:
        if fits:
            raise
        if not re.match(r"[\w.]+: \S", str(error)):
            raise Wrong(f"a refusal must begin with the operator's name, got {str(error)[:300]!r}") from error
        return None


def require(holds: Any, what: str) -> None:
    """What must hold."""
    if not holds:
        raise Wrong(what)


def near(got: Any, want: Any, scale: float = 1.0, tolerance: float = NEAR) -> None:
    """Equal but for roundings of numbers of a size."""
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    require(got.shape == want.shape, f"shape must be {want.shape}, got {got.shape}")
    worst = np.abs(got - want).max(initial=0.0)
    require(worst <= tolerance * max(scale, 1e-300), f"must agree to {tolerance:g} of {scale:g}, got {worst:g}")


def numbers(rng: Rng, shape: Any, dtype: str = "float64") -> np.ndarray:
    """Numbers of one of several kinds: usual, whole, equal, large or small; sometimes in a strange memory order."""
    kind = int(rng.integers(6))
    if kind == 0:
        x = rng.integers(-3, 4, shape).astype(np.float64)
    elif kind == 1:
        x = np.full(shape, float(rng.normal()))
    elif kind == 2:
        x = rng.normal(size=shape) * 10.0 ** rng.integers(-8, 9)
    else:
        x = rng.normal(size=shape)
    x = np.asarray(x).astype(dtype)
    how = int(rng.integers(5))
    if how == 0 and x.ndim:
        return x[::-1].copy()[::-1]
    if how == 1:
        return np.asfortranarray(x)
    return x


def size_of(x: Any) -> float:
    """The largest absolute value."""
    return float(np.abs(x).max(initial=0.0))


def few(rng: Rng, low: int, high: int, count: int = 1) -> Any:
    """Some small integers, low to high."""
    values = tuple(int(v) for v in rng.integers(low, high + 1, count))
    return values[0] if count == 1 else values


# ---- boxes and assignment -------------------------------------------------------------------------------


@_operator("boxes")
def _boxes(rng: Rng) -> None:
    dtype = pick(rng, ("float64", "float32"))
    lead = pick(rng, ((), (2,), (0,), (2, 1)))
    most = 100 if dtype == "float64" else 15
    a, b = (
        (rng.normal(size=(*lead, few(rng, 0, 6), 4)) * 10.0 ** float(rng.integers(-most, most))).astype(dtype)
        for _ in range(2)
    )
    if rng.random() < 0.3 and a.size:
        b = np.concatenate([b, a], -2)
    format, kind = pick(rng, ("xyxy", "xywh")), pick(rng, ("iou", "giou", "ioa"))
    got = cv3gpu.box_iou(a, b, format=format, kind=kind)
    require(got.dtype == a.dtype and got.shape == (*lead, a.shape[-2], b.shape[-2]), f"got {got.dtype} {got.shape}")
    rounding = 64 * float(np.finfo(dtype).eps)
    low = -1.0 if kind == "giou" else 0.0
    fine = (got >= low - rounding) & (got <= 1 + rounding)
    require(fine.all(), f"must be from {low} to 1, got {got[~fine][:3]}")
    if kind != "ioa":
        other = np.swapaxes(cv3gpu.box_iou(b, a, format=format, kind=kind), -1, -2)
        near(got, other, tolerance=rounding)
    grad = rng.normal(size=got.shape).astype(dtype)
    for found, of in zip(cv3gpu.box_iou_vjp(grad, a, b, format=format, kind=kind), (a, b), strict=True):
        require(
            found.shape == of.shape and not np.isnan(found).any(), "a gradient must have its array's shape, without NaN"
        )


@_operator("assignment")
def _assignment(rng: Rng) -> None:
    n, m = few(rng, 0, 7, 2)
    cost = numbers(rng, (n, m), pick(rng, ("float64", "float32"))).astype(np.float64)
    maximize = bool(rng.integers(2))
    cost[rng.random((n, m)) < pick(rng, (0.0, 0.0, 0.3, 0.9, 1.0))] = -np.inf if maximize else np.inf
    row, col, total = cv3gpu.linear_sum_assignment(cost, maximize=maximize)
    used = row >= 0
    require(len(row) == min(n, m) and (used == (col >= 0)).all(), "rows and columns must be padded together")
    row, col = row[used], col[used]
    require((np.diff(row) > 0).all() and len(set(col.tolist())) == len(col), "rows must ascend, columns differ")
    open_pairs = np.isfinite(cost)
    require(open_pairs[row, col].all(), "a forbidden pair must not be taken")
    graph = scipy.sparse.csr_array(open_pairs.astype(np.int8))
    most = int((scipy.sparse.csgraph.maximum_bipartite_matching(graph) >= 0).sum()) if open_pairs.any() else 0
    require(len(row) == most, f"must take the most pairs, {most}, got {len(row)}")
    scale = size_of(cost[open_pairs]) * max(1, len(row))
    near(float(total), cost[row, col].sum(), scale)
    # the best with as many pairs: each forbidden pair costs more than all others together
    much = 4 * (scale + 1)
    signed = np.where(open_pairs, -cost if maximize else cost, much)
    best = scipy.optimize.linear_sum_assignment(signed)
    taken = open_pairs[best]
    want = cost[best][taken].sum()
    near(float(total), want, scale + 1)


# ---- convolution, resizing, pooling ---------------------------------------------------------------------


def _torch() -> Any:
    import torch

    torch.set_num_threads(1)
    return torch


@_operator("conv")
def _conv(rng: Rng) -> None:
    torch = _torch()
    groups = few(rng, 1, 3)
    n, c, out = few(rng, 0, 2), groups * few(rng, 1, 3), groups * few(rng, 1, 3)
    size, kernel, dilation, stride = few(rng, 1, 9, 2), few(rng, 1, 4, 2), few(rng, 1, 3, 2), few(rng, 1, 4, 2)
    padding = pick(rng, (few(rng, 0, 4, 2), "valid", "same"))
    stride = (1, 1) if padding == "same" else stride
    x, weight = numbers(rng, (n, c, *size)), numbers(rng, (out, c // groups, *kernel))
    bias = numbers(rng, out) if rng.random() < 0.5 else None
    tensors = [None if v is None else torch.from_numpy(v.copy()) for v in (x, weight, bias)]
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    try:
        want = torch.nn.functional.conv2d(*tensors, **options).numpy()
    except RuntimeError:
        want = None
    got = tried(lambda: cv3gpu.conv2d(x, weight, bias, **options), want is not None)
    require(
        (got is None) == (want is None),
        f"torch {'refuses' if want is None else 'takes'} {x.shape} {weight.shape} {options}",
    )
    if want is not None:
        scale = size_of(x) * size_of(weight) * weight[0].size + (0 if bias is None else size_of(bias))
        near(got, want, scale)
    if padding == "same":
        return
    back = {"stride": stride, "dilation": dilation, "groups": groups, "padding": 0 if padding == "valid" else padding}
    back["output_padding"] = tuple(int(rng.integers(max(s, d))) for s, d in zip(stride, dilation, strict=True))
    y = numbers(rng, (n, out, *size))
    try:
        want = torch.nn.functional.conv_transpose2d(torch.from_numpy(y.copy()), tensors[1], **back).numpy()
    except RuntimeError:
        want = None
    if want is not None and 0 in want.shape[2:]:  # torch lets it pass where the batch is empty, too
        want = None
    got = tried(lambda: cv3gpu.conv_transpose2d(y, weight, **back), want is not None)
    require(
        (got is None) == (want is None),
        f"torch {'refuses' if want is None else 'takes'} {y.shape} {weight.shape} {back}",
    )
    if want is not None:
        near(got, want, size_of(y) * size_of(weight) * out * math.prod(kernel))


@_operator("resize")
def _resize(rng: Rng) -> None:
    torch = _torch()
    x = numbers(rng, (few(rng, 0, 2), few(rng, 1, 3), *few(rng, 1, 9, 2)))
    mode = pick(rng, ("nearest", "nearest-exact", "bilinear", "bicubic"))
    smooth = mode.startswith("bi")
    options: dict[str, Any] = {"mode": mode}
    if smooth:
        options |= {"align_corners": bool(rng.integers(2)), "antialias": bool(rng.integers(2))}
    if rng.random() < 0.6:
        options["size"] = few(rng, 1, 24, 2)
    else:
        options["scale_factor"] = tuple(float(v) for v in np.exp(rng.uniform(-2, 1.5, 2)))
    tensor = torch.from_numpy(x.copy())
    try:
        want = torch.nn.functional.interpolate(tensor, **options).numpy()
    except (RuntimeError, ValueError):
        want = None
    got = tried(lambda: cv3gpu.interpolate(x, **options), want is not None)
    if want is not None and options.get("antialias") and 1 in want.shape[2:]:
        near(got.max(initial=0.0), min(got.max(initial=0.0), 2 * size_of(x)))  # torch 2.13 repeats the first row here
    elif want is not None:
        near(got, want, 4 * size_of(x), 1e-8)
    elif got is not None:
        require(x.size == 0, f"torch refuses {x.shape} {options}")


@_operator("pool")
def _pool(rng: Rng) -> None:
    torch = _torch()
    x = numbers(rng, (few(rng, 0, 2), few(rng, 1, 2), *few(rng, 1, 9, 2)))
    kernel = few(rng, 1, 4, 2)
    options = {
        "stride": pick(rng, (None, few(rng, 1, 4, 2))), "padding": tuple(int(rng.integers(k // 2 + 1)) for k in kernel),
        "dilation": few(rng, 1, 3, 2), "ceil_mode": bool(rng.integers(2)),
    }  # fmt: skip
    tensor = torch.from_numpy(x.copy())
    try:
        values, indices = (
            v.numpy() for v in torch.nn.functional.max_pool2d(tensor, kernel, return_indices=True, **options)
        )
    except RuntimeError:
        values = indices = None
    got = tried(lambda: cv3gpu.max_pool2d(x, kernel, **options), values is not None)
    if values is None:
        require(got is None or not x.size, f"torch refuses {x.shape} {kernel} {options}")
        return
    missed = np.isneginf(values)  # windows that hold padding alone: torch's index is then a place outside
    want = np.where(missed, -1, indices)
    require(np.array_equal(got[0], values) and np.array_equal(got[1], want), "must be torch's values and indices")
    if missed.any():
        return
    windows = {key: options[key] for key in ("stride", "padding", "dilation")}
    back = cv3gpu.max_unpool2d_adjoint(x, got[1], kernel, **windows)
    require(np.array_equal(back, values), "what is taken at the indices must be the values")


# ---- energies -------------------------------------------------------------------------------------------


@_operator("crf")
def _crf(rng: Rng) -> None:
    lead, labels, (h, w) = pick(rng, ((), (2,))), few(rng, 1, 5), few(rng, 1, 8, 2)
    unary = np.abs(numbers(rng, (*lead, labels, h, w)))
    unary = np.minimum(unary, 1e6)
    channels = pick(rng, (None, (), (3,)))
    image = (
        None
        if channels is None
        else rng.uniform(0, 255, (*lead, h, w, *channels)).astype(pick(rng, ("float64", "uint8")))
    )
    if image is not None and rng.random() < 0.2:
        image[:] = image.reshape(-1)[0]
    options = {
        "theta_gamma": float(10.0 ** rng.uniform(-1, 3)), "theta_alpha": float(10.0 ** rng.uniform(-1, 3)),
        "theta_beta": float(10.0 ** rng.uniform(-1, 3)), "compat_smooth": float(rng.uniform(0, 50)),
        "compat_bilateral": float(rng.uniform(0, 50)), "n_iter": few(rng, 0, 4),
        "method": pick(rng, ("lattice", "lattice_fine", "exact")), "normalization": pick(rng, ("none", "before", "after", "symmetric")),
    }  # fmt: skip
    q = tried(lambda: cv3gpu.dense_crf(unary, image, **options), False)
    if q is None:
        require(image is None or image.dtype != np.float64, f"must be taken: {unary.shape} {options}")
        return
    require(q.shape == unary.shape and np.isfinite(q).all() and (q >= 0).all(), "marginals must be probabilities")
    near(q.sum(-3), np.ones((*lead, h, w)))
    if options["n_iter"] == 0:
        near(q, oracles.softmax(-unary) if unary.ndim == 3 else np.stack([oracles.softmax(-u) for u in unary]))


@_operator("graphcut")
def _graphcut(rng: Rng) -> None:
    h, w = few(rng, 1, 6, 2)
    offsets = pick(rng, ([(0, 1), (0, -1), (1, 0), (-1, 0)], [(0, 1)], [(1, 1), (-1, -1), (0, 2)], [(1, 0), (5, 5)]))
    most = pick(rng, (1, 3, 1000, 10**6))
    source, sink = rng.integers(0, most + 1, (2, h, w))
    neighbor = rng.integers(0, most + 1, (len(offsets), h, w))
    neighbor[rng.random(neighbor.shape) < pick(rng, (0.0, 0.5, 1.0))] = 0
    flow, fewest, largest = oracles.min_cut(source, sink, neighbor, offsets)
    kind = pick(rng, ("int32", "int64", "float64"))
    arrays = [x.astype(kind) for x in (source, sink, neighbor)]
    for minimal, want in ((True, fewest), (False, largest)):
        labels, found = cv3gpu.graph_cut(*arrays, offsets=offsets, minimal=minimal)
        require(found == flow, f"flow must be {flow}, got {found}")
        require(oracles.cut_energy(labels, source, sink, neighbor, offsets) == flow, "the cut must cost the flow")
        require(np.array_equal(labels, want), f"must be the {'smallest' if minimal else 'largest'} minimum cut")


@_operator("expansion")
def _expansion(rng: Rng) -> None:
    count, (h, w) = few(rng, 1, 4), few(rng, 1, 5, 2)
    offsets = [(0, 1), (1, 0)]
    unary = rng.integers(0, 20, (count, h, w)).astype(np.float64)
    place = np.arange(count)
    pairwise = pick(rng, (1.0 - np.eye(count), np.minimum(abs(place[:, None] - place), 2).astype(np.float64)))
    weights = rng.integers(0, 10, (2, h, w)).astype(np.float64)
    start = unary.argmin(0)

    def energy(labels: np.ndarray) -> float:
        total = np.take_along_axis(unary, labels[None], 0).sum()
        for plane, offset in zip(weights, offsets, strict=True):
            begin, end = oracles.grid_edges(labels.shape, offset)
            total += (plane[begin] * pairwise[labels[begin], labels[end]]).sum()
        return float(total)

    for move in (cv3gpu.alpha_expansion, cv3gpu.alpha_beta_swap):
        labels, value, _ = move(unary, pairwise, weights, offsets=offsets)
        near(float(value), energy(labels), 1e4)
        require(energy(labels) <= energy(start) + 1e-9, "the energy must not rise")


# ---- clustering and spectra -----------------------------------------------------------------------------


@_operator("slic")
def _slic(rng: Rng) -> None:
    h, w = few(rng, 1, 20, 2)
    image = pick(
        rng, (rng.random((h, w, 3)), rng.integers(0, 256, (h, w, 3)).astype(np.uint8), np.full((h, w, 3), 0.5))
    )
    labels = cv3gpu.slic(
        image, pick(rng, (1, 2, 7, 50, 10_000)), float(10.0 ** rng.uniform(-3, 4)), few(rng, 1, 6),
        zero=bool(rng.integers(2)), sigma=pick(rng, (0.0, 1.0)),
    )  # fmt: skip
    found = np.unique(labels)
    require(
        labels.shape == (h, w) and np.array_equal(found, np.arange(len(found))), "labels must run from 0 without a gap"
    )
    require(all(ndimage.label(labels == k)[1] == 1 for k in found), "each segment must be in one piece")


@_operator("kmeans")
def _kmeans(rng: Rng) -> None:
    n, dims = few(rng, 1, 30), few(rng, 1, 4)
    x = numbers(rng, (n, dims))
    count = few(rng, 1, n)
    got = cv3gpu.kmeans(x, count, seed=few(rng, 0, 99), tol=0.0, n_init=few(rng, 1, 2))
    square = ((x[:, None] - got.centroids) ** 2).sum(2)
    scale = size_of(x) ** 2 * dims * n
    near(square[np.arange(n), got.labels], square.min(1), scale)
    near(float(got.inertia), square.min(1).sum(), scale)
    require(got.centroids.shape == (count, dims) and np.isfinite(got.centroids).all(), "centres must be finite")


@_operator("mean-shift")
def _mean_shift(rng: Rng) -> None:
    n, dims = few(rng, 0, 30), few(rng, 1, 4)
    x = (
        rng.normal(size=(n, dims)) * pick(rng, (1.0, 100.0))
        if rng.random() < 0.7
        else rng.integers(0, 3, (n, dims)) * 1.0
    )
    bandwidth = float(10.0 ** rng.uniform(-1, 2))
    labels, modes, _ = cv3gpu.mean_shift(x, bandwidth, kernel=pick(rng, ("flat", "gaussian")))
    require(labels.shape == (n,) and np.isfinite(modes).all(), "modes must be finite")
    first = [int(np.flatnonzero(labels == k)[0]) for k in np.unique(labels)]
    require(
        first == sorted(first) and len(first) == len(modes), "labels must be in the order of their first appearance"
    )
    apart = ((modes[:, None] - modes) ** 2).sum(2) + np.diag(np.full(len(modes), np.inf))
    require((apart >= bandwidth**2 / 4 * (1 - 1e-12)).all(), "modes must be half a bandwidth apart")


@_operator("affinity")
def _affinity(rng: Rng) -> None:
    h, w = few(rng, 1, 8, 2)
    image = pick(rng, (rng.random((h, w)), rng.random((h, w, 3)), np.zeros((h, w))))
    affinity = cv3gpu.pixel_affinity(
        image, radius=float(rng.uniform(0.5, 9)), inclusive=bool(rng.integers(2)), sigma_intensity=float(10.0 ** rng.uniform(-2, 2)),
        sigma_distance=float(10.0 ** rng.uniform(-1, 2)), self_weight=pick(rng, (1.0, 0.5)),
    )  # fmt: skip
    dense = affinity.tocsr().toarray()
    n = h * w
    near(affinity @ np.eye(n), dense)
    near(affinity.degree, dense.sum(1), n)
    require(
        np.array_equal(dense, dense.T) and (dense >= 0).all() and (dense <= 1).all(), "W must be symmetric, from 0 to 1"
    )
    k = few(rng, 1, min(n, 5))
    found = tried(lambda: cv3gpu.smallest_eigenpairs(affinity, k, seed=few(rng, 0, 9)), False)
    if found is None:
        return
    values, vectors = found.eigenvalues, found.eigenvectors
    require(
        (values >= -1e-9).all() and (values <= 2 + 1e-9).all() and (np.diff(values) >= -1e-12).all(), f"got {values}"
    )
    root = np.sqrt(dense.sum(1))
    want = np.linalg.eigvalsh(np.eye(n) - dense / root[:, None] / root)[:k]
    near(values, want, 1.0, 1e-5)
    near(vectors.T @ (dense.sum(1)[:, None] * vectors), np.eye(k), 1.0, 1e-6)


@_operator("graphs")
def _graphs(rng: Rng) -> None:
    """Affinities of points, their Laplacians and cuts."""
    n, dims = few(rng, 2, 20), few(rng, 1, 4)
    x = numbers(rng, (n, dims))
    x = x / max(size_of(x), 1e-3)
    made = pick(
        rng,
        (
            lambda: cv3gpu.knn_affinity(x, few(rng, 1, n)), lambda: cv3gpu.rbf_affinity(x, gamma=float(rng.uniform(0.01, 50))),
            lambda: cv3gpu.rbf_affinity(x, gamma=1.0, eps=float(rng.uniform(0.01, 3))),
        ),
    )()  # fmt: skip
    dense = np.asarray(made.todense() if hasattr(made, "todense") else made)
    require(
        np.allclose(dense, dense.T) and (dense >= 0).all() and (dense <= 1 + 1e-12).all(),
        "W must be symmetric, from 0 to 1",
    )
    own = cv3gpu.laplacian(made)
    own = np.asarray(own.todense() if hasattr(own, "todense") else own)
    near(own.sum(1), np.zeros(n), n)
    require(np.linalg.eigvalsh((own + own.T) / 2).min() >= -1e-9 * n, "a Laplacian must not be indefinite")
    labels = rng.integers(0, few(rng, 1, 4), n)
    value = tried(lambda: cv3gpu.ncut_value(made, labels), False)
    if value is not None:
        require(-1e-12 <= value <= len(np.unique(labels)) + 1e-12, f"got {value} of {len(np.unique(labels))} segments")


# ---- metrics and messages -------------------------------------------------------------------------------


@_operator("metrics")
def _metrics(rng: Rng) -> None:
    shape, classes = few(rng, 1, 9, 2), few(rng, 1, 6)
    kind = pick(rng, ("int64", "uint8", "int32"))
    pred, target = (rng.integers(0, classes, shape).astype(kind) for _ in range(2))
    found = np.asarray(cv3gpu.confusion_matrix(pred, target, classes))
    want = np.zeros((classes, classes), np.int64)
    np.add.at(want, (target.astype(int), pred.astype(int)), 1)
    require(np.array_equal(found, want), "must count (target, pred)")
    require(0 <= cv3gpu.mean_iou(found) <= 1, "mean IoU must be from 0 to 1")
    near(cv3gpu.pixel_accuracy(found), (pred == target).mean())
    rand, of_one = cv3gpu.rand_index(pred, target), cv3gpu.rand_index(pred, pred)
    require(math.isnan(rand) if pred.size < 2 else 0 <= rand <= 1 == of_one, f"Rand index, got {rand} and {of_one}")
    require(abs(cv3gpu.variation_of_information(pred, pred)) < 1e-12, "a labelling must not differ from itself")
    near(cv3gpu.variation_of_information(pred, target), cv3gpu.variation_of_information(target, pred))
    require(0 <= cv3gpu.segmentation_covering(pred, target) <= 1 + 1e-12, "covering must be from 0 to 1")
    require(0 <= cv3gpu.boundary_f1(pred, target, float(rng.uniform(0, 4))) <= 1, "F1 must be from 0 to 1")
    same = cv3gpu.panoptic_quality(pred, pred)
    require(0 <= cv3gpu.panoptic_quality(pred, target).pq <= 1 and abs(same.pq - 1) < 1e-12, "panoptic quality")


def _some_tracks(rng: Rng) -> mot.Tracks:
    rows = []
    for identity in range(few(rng, 0, 5)):
        left = rng.uniform(0, 60, 2)
        smallest = -2.0 if rng.random() < 0.1 else 5.0
        rows += [
            (frame, identity, *(left + 3 * frame + rng.normal(0, 2, 2)), *rng.uniform(smallest, 25, 2))
            for frame in range(1, few(rng, 1, 9))
            if rng.random() < 0.75
        ]
    table = np.array(rows, float).reshape(-1, 6)
    return mot.Tracks(table[:, 0], table[:, 1], table[:, 2:])


@_operator("mot-metrics")
def _mot_metrics(rng: Rng) -> None:
    gt, pred = _some_tracks(rng), _some_tracks(rng)
    if rng.random() < 0.3 and len(gt):
        pred = mot.Tracks(gt.frame, gt.id * 7 + 1, gt.box + rng.normal(0, pick(rng, (0.0, 1.0, 5.0)), gt.box.shape))

    def frames(side: mot.Tracks) -> dict[int, dict[int, list[float]]]:
        found: dict[int, dict[int, list[float]]] = {}
        for frame, identity, box in zip(side.frame.tolist(), side.id.tolist(), side.box.tolist(), strict=True):
            found.setdefault(frame, {})[identity] = box
        return found

    clear, identity, hota = mot.clear(gt, pred), mot.identity(gt, pred), mot.hota(gt, pred)
    if (gt.box[:, 2:] > 0).all() and (pred.box[:, 2:] > 0).all():
        want = oracles.clear_and_identity(frames(gt), frames(pred))
        for key in ("CLR_TP", "CLR_FN", "CLR_FP", "IDSW", "Frag", "IDTP", "IDFN", "IDFP"):
            require(
                {**clear, **identity}[key] == want[key],
                f"{key} must be {want[key]}, got {({**clear, **identity})[key]}",
            )
    for key in ("HOTA", "DetA", "AssA", "DetRe", "DetPr", "AssRe", "AssPr"):
        require(-1e-12 <= hota[key] <= 1 + 1e-12, f"{key} must be from 0 to 1, got {hota[key]}")
    require(
        clear["CLR_TP"] + clear["CLR_FN"] == len(gt) and clear["CLR_TP"] + clear["CLR_FP"] == len(pred),
        "counts must add up",
    )
    filled = mot.interpolate(gt, few(rng, 0, 9))
    require(len(filled) >= len(gt), "filling gaps must not lose boxes")
    mot.events(gt, pred)


@_operator("flow")
def _flow(rng: Rng) -> None:
    """Rounding and flows on small graphs, against all choices of edges."""
    n, count = few(rng, 1, 5), few(rng, 0, 7)
    pairs = {tuple(sorted(rng.choice(n, 2, replace=False).tolist())) for _ in range(count)} if n > 1 else set()
    edges = np.array(sorted(pairs), np.int64).reshape(-1, 2).T
    scores = pick(rng, (rng.random(edges.shape[1]), rng.integers(0, 3, edges.shape[1]) / 2))
    active, objective, _ = mot.round_trajectories(edges, scores, n)
    best = 0.0
    for bits in range(2 ** edges.shape[1]):
        chosen = np.array([bits >> k & 1 for k in range(edges.shape[1])], bool)
        if all(np.bincount(side[chosen], minlength=n).max(initial=0) <= 1 for side in edges):
            best = min(best, float((1 - 2 * scores[chosen]).sum()))
    near(float(objective), best, 10.0)
    near(float((1 - 2 * scores[active]).sum()), best, 10.0)
    link, detection = rng.normal(size=edges.shape[1]), rng.normal(size=n)
    entry, leave = rng.normal(size=2)
    found = mot.min_cost_flow(edges, link, detection, entry_cost=float(entry), exit_cost=float(leave))
    used = np.asarray(found.used)
    tails, heads = (np.bincount(side[np.asarray(found.active)], minlength=n) for side in edges)
    require(
        (tails <= used).all() and (heads <= used).all(), "a node must be left and entered once at most, and used then"
    )
    tracks = int(used.sum() - np.asarray(found.active).sum())
    near(
        float(found.objective),
        detection[used].sum() + link[np.asarray(found.active)].sum() + tracks * (entry + leave),
        100.0,
    )
    require(found.objective <= 1e-12, "nothing costs nothing, and the best must not cost more")


@_operator("message")
def _message(rng: Rng) -> None:
    nodes, count = few(rng, 1, 7), few(rng, 0, 20)
    ends = rng.integers(0, nodes, (2, count))
    ends = ends[:, ends[0] != ends[1]] if nodes > 1 else np.zeros((2, 0), np.int64)
    ends = np.unique(ends, axis=1)
    cn, ce, hidden, out = few(rng, 1, 6, 4)
    undirected = bool(rng.integers(2))
    if undirected:
        ends = np.unique(np.sort(ends, 0), axis=1)
    graph = message.message_graph(ends, nodes, undirected=undirected)
    x, e = numbers(rng, (nodes, cn)), numbers(rng, (ends.shape[1], ce))

    def weights() -> list[np.ndarray]:
        inputs = cn + ce
        return [rng.normal(size=s) for s in ((hidden, inputs), (hidden,), (out, hidden), (out,))]

    past, future = weights(), weights()
    got = tried(lambda: message.message_sums(x, e, past, future, graph), False)
    if got is None:
        return
    require(np.isfinite(got).all() and got.shape == (nodes, 2 * out), f"got {got.shape}")
    order = rng.permutation(ends.shape[1])
    other = message.message_sums(
        x, e[order], past, future, message.message_graph(ends[:, order], nodes, undirected=undirected)
    )
    near(got, other, size_of(got) + 1)
    turn = rng.permutation(nodes)
    where = np.argsort(turn)
    time = np.arange(nodes)
    renamed = message.message_graph(where[ends], nodes, undirected=undirected, time=time[turn])
    near(message.message_sums(x[turn], e, past, future, renamed), got[turn], size_of(got) + 1)
