"""Runs every kernel once on small inputs, under compute-sanitizer: ``python -m bench.sanitize``.

Each of the four tools runs twice: over a planted bug that it must find, and over all kernels, where it must
find nothing. Memory pools are off, so that every array has bounds of its own. ``--launch`` only launches.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from unittest import mock

import numpy as np

import cv3gpu
from cv3gpu import _array, _kernel, kernels, message, mot, pyramid
from cv3gpu.errors import ConvergenceWarning

FOUND = 86  # exit status that the sanitizer gives where a tool found errors
NO_TOOL = 5

PLANTED = {
    "memcheck": "x[(1 << 20) + threadIdx.x] = 1;",
    "racecheck": "__shared__ int s[1]; s[0] = threadIdx.x; x[threadIdx.x] = s[0];",
    "initcheck": "x[threadIdx.x] = x[threadIdx.x + 64] + 1;",
    "synccheck": "if (threadIdx.x % 32 < 16) __syncthreads(); x[threadIdx.x] = 1;",
}

Make = Callable[[Sequence[int], str, str], Any]
Case = tuple[str, Callable[[], Any]]


def maker(library: str) -> Make:
    """``make(shape, dtype, layout)``: random arrays of a library on its GPU (``"numpy"``: on the CPU)."""
    rng = np.random.default_rng(0)

    def make(shape: Sequence[int], dtype: str, layout: str = "nchw") -> Any:
        values = rng.random(tuple(shape))
        if library == "torch":
            torch = importlib.import_module("torch")
            device = "cpu" if _array.host_backend.get() else "cuda"
            tensor = torch.from_numpy(values).to(device, getattr(torch, dtype))
            return tensor.contiguous(memory_format=torch.channels_last) if layout == "nhwc" else tensor
        dense = values if layout == "nchw" else np.ascontiguousarray(values.transpose(0, 2, 3, 1))
        array = importlib.import_module(library).asarray(dense.astype(dtype))
        return array if layout == "nchw" else array.transpose(0, 3, 1, 2)

    return make


# Channels, output channels, groups, side, kernel, stride, dilation: odd sizes, and sizes that vectors fit.
CONVOLUTIONS = (
    (3, 5, 1, 9, 3, 1, 2),
    (16, 32, 1, 12, 3, 1, 1),
    (64, 64, 1, 8, 1, 1, 1),
    (40, 72, 1, 11, 3, 2, 1),
    (4, 6, 2, 7, 3, 1, 1),
    (6, 6, 6, 11, 3, 1, 2),
    (32, 32, 32, 16, 3, 1, 1),
    (32, 32, 32, 16, 5, 2, 1),
    (4, 8, 4, 9, 5, 1, 1),
)


def _conv_cases(make: Make, dtype: str, layout: str) -> Iterator[Case]:
    for cin, cout, groups, side, size, stride, dilation in CONVOLUTIONS:
        padding = dilation * (size // 2)
        geometry = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
        x = make((2, cin, side, side), dtype, layout)
        weight = make((cout, cin // groups, size, size), dtype, layout)
        bias = make((cout,), dtype, "nchw")
        rows = (side + 2 * padding - dilation * (size - 1) - 1) // stride + 1
        grad = make((2, cout, rows, rows), dtype, layout)
        name = f"{cin}->{cout} groups {groups} @{side} k{size} s{stride} d{dilation} {dtype} {layout}"
        yield f"conv2d {name}", functools.partial(cv3gpu.conv2d, x, weight, bias, **geometry)
        adjoint = functools.partial(cv3gpu.conv2d_adjoint_input, grad, weight, (side, side), **geometry)
        yield f"conv2d_adjoint_input {name}", adjoint
        adjoint = functools.partial(cv3gpu.conv2d_adjoint_weight, grad, x, (size, size), **geometry)
        yield f"conv2d_adjoint_weight {name}", adjoint
        transposed = functools.partial(cv3gpu.conv_transpose2d, grad, weight, **geometry)
        yield f"conv_transpose2d {name}", transposed
    bordered = ("reflect", 20, 7, 1, 2), ("replicate", 8, 8, 8, 9), ("circular", 6, 4, 2, 8)
    for mode, cin, cout, groups, padding in bordered:
        x, weight = make((2, cin, 8, 9), dtype, layout), make((cout, cin // groups, 3, 3), dtype, layout)
        vector = make((cout,), dtype, "nchw")
        around = {"padding": padding, "groups": groups, "padding_mode": mode}
        name = f"{mode} {cin}->{cout} {dtype} {layout}"
        fused = {**around, "scale": vector, "activation": "relu6", "allow_tf32": dtype == "float32"}
        yield f"conv2d {name}", functools.partial(cv3gpu.conv2d, x, weight, vector, **fused)
        side = 8 + 2 * padding - 2, 9 + 2 * padding - 2
        grad = make((2, cout, *side), dtype, layout)
        adjoint = functools.partial(cv3gpu.conv2d_adjoint_input, grad, weight, (8, 9), **around)
        yield f"conv2d_adjoint_input {name}", adjoint
        adjoint = functools.partial(cv3gpu.conv2d_adjoint_weight, grad, x, (3, 3), **around)
        yield f"conv2d_adjoint_weight {name}", adjoint
    x, weight = make((2, 16, 24, 21), dtype, layout), make((8, 16, 3, 3), dtype, layout)
    far = {"padding": (18, 15), "dilation": (18, 15), "allow_tf32": dtype == "float32"}
    yield f"conv2d by tap class {dtype} {layout}", functools.partial(cv3gpu.conv2d, x, weight, **far)


RESIZES = (
    {"mode": "nearest"},
    {"mode": "nearest-exact"},
    {"mode": "bilinear", "align_corners": False},
    {"mode": "bilinear", "align_corners": True},
    {"mode": "bicubic", "align_corners": False},
    {"mode": "bilinear", "align_corners": False, "antialias": True},
    {"mode": "bicubic", "align_corners": True, "antialias": True},
)


def _resize_cases(make: Make, dtype: str, layout: str) -> Iterator[Case]:
    for options in RESIZES:
        for channels, before, after in ((3, 5, 13), (16, 8, 16), (8, 12, 5)):
            x = make((2, channels, before, before), dtype, layout)
            grad = make((2, channels, after, after), dtype, layout)
            name = f"{' '.join(map(str, options.values()))} {channels} ch {before}->{after} {dtype} {layout}"
            forward = functools.partial(cv3gpu.interpolate, x, size=(after, after), **options)
            yield f"interpolate {name}", forward
            adjoint = functools.partial(cv3gpu.interpolate_adjoint, grad, (before, before), **options)
            yield f"interpolate_adjoint {name}", adjoint


# Factor or size, and mode: phases that write between each other's columns, and the enlarged image in parts.
ENLARGED: tuple[dict[str, Any], ...] = (
    {"scale_factor": 2, "mode": "nearest"},
    {"scale_factor": (1, 5), "mode": "nearest"},
    {"size": (11, 17), "mode": "nearest-exact"},
    {"size": (11, 17), "mode": "bilinear"},
    {"size": (11, 17), "mode": "bicubic"},
)


def _resize_conv_cases(make: Make, dtype: str, layout: str) -> Iterator[Case]:
    for options in ENLARGED:
        for cin, cout in ((3, 5), (24, 72)):
            x, weight = make((2, cin, 6, 7), dtype, layout), make((cout, cin, 3, 3), dtype, layout)
            given, bias = {"padding": (1, 0, 2, 1), **options}, make((cout,), dtype, "nchw")
            name = f"{' '.join(map(str, options.values()))} {cin}->{cout} {dtype} {layout}"
            yield f"resize_conv2d {name}", functools.partial(cv3gpu.resize_conv2d, x, weight, bias, **given)
            grad = cv3gpu.resize_conv2d(x, weight, bias, **given)
            given.pop("size", None)
            adjoint = functools.partial(cv3gpu.resize_conv2d_adjoint_input, grad, weight, (6, 7), **given)
            yield f"resize_conv2d_adjoint_input {name}", adjoint
            adjoint = functools.partial(cv3gpu.resize_conv2d_adjoint_weight, grad, x, (3, 3), **given)
            yield f"resize_conv2d_adjoint_weight {name}", adjoint


# Channels, output channels, side, kernel, stride, dilation: each tile, rows together and not, unrolled and any.
SEPARABLE = ((6, 5, 8, 3, 1, 1), (70, 72, 9, 3, 1, 2), (5, 130, 11, 4, 2, 1))


def _separable_cases(make: Make, dtype: str, layout: str) -> Iterator[Case]:
    for cin, cout, side, size, stride, dilation in SEPARABLE:
        x, depthwise = make((2, cin, side, side), dtype, layout), make((cin, 1, size, size), dtype)
        given: dict[str, Any] = {"stride": stride, "dilation": dilation, "padding": (1, 2, 0, 3)}
        given |= {"mid_scale": make((cin,), dtype), "mid_bias": make((cin,), dtype), "mid_activation": "relu"}
        call = functools.partial(cv3gpu.separable_conv2d, x, depthwise, make((cout, cin, 1, 1), dtype), **given)
        yield f"separable_conv2d {cin}->{cout} @{side} k{size} s{stride} d{dilation} {dtype} {layout}", call


# Shape of the unaries and channels of the image: a tile of pairs and several, a batch, rows of one to many vectors.
FIELDS = (((2, 3, 5, 7), 3), ((21, 9, 11), 1), ((150, 4, 5), None))


def _crf_cases(make: Make, dtype: str) -> Iterator[Case]:
    """Gradients, on whose way everything is computed that results need; a matrix and a vector in one of the fields."""
    for shape, channels in FIELDS:
        *lead, labels, height, width = shape
        unary = make(shape, dtype)
        image = None if channels is None else make((*lead, height, width, channels), dtype)
        options: dict[str, Any] = {"theta_gamma": 1.5, "theta_alpha": 3.0, "theta_beta": 0.2, "n_iter": 1}
        if labels == 21:
            options |= {"compat_smooth": make((labels, labels), dtype), "compat_bilateral": make((labels,), dtype)}
        for method in ("lattice", "lattice_fine", "exact"):
            call = functools.partial(cv3gpu.dense_crf_vjp, unary, unary, image, **options, method=method)
            yield f"dense_crf_vjp {method} {labels} labels {channels} channels {dtype}", call
    for features, points in ((1, 9), (5, 150), (8, 70)):
        values, place = make((3, points), dtype), make((features, points), dtype)
        for method in ("lattice", "lattice_fine", "exact"):
            call = functools.partial(cv3gpu.gaussian_filter_vjp, values, values, place, method=method)
            yield f"gaussian_filter_vjp {method} {features} features {dtype}", call


# Grids and steps: one tile and several, a batch, a volume, steps that no tile has a place for, no way back.
GRIDS: tuple[tuple[tuple[int, ...], tuple[tuple[int, ...], ...]], ...] = (
    ((5, 6), ((0, 1), (0, -1), (1, 0), (-1, 0))),
    ((2, 40, 70), ((0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (-1, -1), (1, -1), (-1, 1))),
    ((3, 9, 10), ((0, 0, 1), (0, 0, -1), (0, 1, 0), (1, 0, 0), (-1, 0, 0))),
    ((30, 41), ((0, 17), (9, -3), (-9, 3))),
)


def _cut_cases(make: Make) -> Iterator[Case]:
    for shape, offsets in GRIDS:
        lead = shape[: -len(offsets[0])]
        source, sink = make(shape, "float32"), make(shape, "float32")
        edges = make((*lead, len(offsets), *shape[len(lead) :]), "float32")
        for minimal in (True, False):
            call = functools.partial(cv3gpu.graph_cut, source, sink, edges, offsets=offsets, minimal=minimal)
            yield f"graph_cut {shape} {len(offsets)} steps, {minimal=}", call
    unary, edges, potts = make((4, 12, 13), "float32"), make((2, 12, 13), "float32"), make((4, 4), "float32")
    potts[...] = 1
    for label in range(4):
        potts[label, label] = 0
    for move in (cv3gpu.alpha_expansion, cv3gpu.alpha_beta_swap):
        call = functools.partial(move, unary, potts, edges, offsets=((0, 1), (1, 0)), max_iter=20)
        yield f"{move.__name__} 4 labels", call


def _slic_cases(make: Make) -> Iterator[Case]:
    for channels in (1, 3, 5):
        image = make((2, 33, 47, channels), "float32")
        for options in ({}, {"zero": True}, {"sigma": 1.0}, {"enforce_connectivity": False}):
            name = " ".join(f"{k}={v}" for k, v in options.items())
            yield f"slic {channels} channels {name}", functools.partial(cv3gpu.slic, image, 12, **options)
    mask = make((33, 47), "float32") > 0.2
    yield "slic with a mask", functools.partial(cv3gpu.slic, make((33, 47, 3), "float32"), 12, mask=mask)


# Windows of pooling: unrolled and any, with gaps, over each other, past the border.
WINDOWS: tuple[dict[str, Any], ...] = (
    {"kernel_size": 2},
    {"kernel_size": 3, "stride": 2, "padding": 1},
    {"kernel_size": (3, 2), "stride": 1, "dilation": 2},
    {"kernel_size": 2, "stride": 3},
)


def _pool_cases(make: Make, dtype: str, layout: str) -> Iterator[Case]:
    for channels, side in ((3, 9), (8, 12)):
        x = make((2, channels, side, side + 4), dtype, layout)
        for window in WINDOWS:
            for compact in (False, True):
                values, indices = cv3gpu.max_pool2d(x, **window, compact=compact)
                name = f"{window} {compact=} {channels} ch {side} {dtype} {layout}"
                yield f"max_pool2d {name}", functools.partial(cv3gpu.max_pool2d, x, **window, compact=compact)
                call = functools.partial(cv3gpu.max_pool2d_adjoint, values, indices, x.shape[2:], **window)
                yield f"max_pool2d_adjoint {name}", call
                call = functools.partial(cv3gpu.max_unpool2d_adjoint, x, indices, **window)
                yield f"max_unpool2d_adjoint {name}", call
                if "dilation" not in window:
                    call = functools.partial(cv3gpu.max_unpool2d, values, indices, **window, output_size=x.shape[2:])
                    yield f"max_unpool2d {name}", call


def _head_cases(make: Make, dtype: str, layout: str) -> Iterator[Case]:
    for classes, side, size in ((3, 5, 17), (21, 9, 33)):
        logits, target = make((2, classes, side, side), dtype, layout), make((2, size, size), "float32")
        labels = _array.astype(target * classes, "int64")
        name = f"{classes} classes {side}->{size} {dtype} {layout}"
        yield f"upsample_argmax {name}", functools.partial(cv3gpu.upsample_argmax, logits, size)
        for options in ({}, {"label_smoothing": 0.1, "align_corners": True}, {"weight": make((classes,), dtype)}):
            call = functools.partial(cv3gpu.upsample_cross_entropy, logits, labels, **options)
            yield f"upsample_cross_entropy {' '.join(options)} {name}", call
            grad = make((), dtype)
            call = functools.partial(cv3gpu.upsample_cross_entropy_vjp, grad, logits, labels, **options)
            yield f"upsample_cross_entropy_vjp {' '.join(options)} {name}", call


def _few_iterations(*args: Any, **options: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return cv3gpu.kmeans(*args, **options, max_iter=3)


def _cluster_cases(make: Make, dtype: str) -> Iterator[Case]:
    for points, features, clusters in ((70, 2, 3), (300, 5, 8), (300, 20, 70)):
        x = make((points, features), dtype)
        for options in ({}, {"sample_weight": make((points,), dtype)}, {"init": "k-means||", "batch_size": 50}):
            call = functools.partial(_few_iterations, x, clusters, **options)
            yield f"kmeans {points}x{features} {clusters} {' '.join(options)} {dtype}", call
    for features in (2, 5):
        for kernel in ("flat", "gaussian"):
            call = functools.partial(cv3gpu.mean_shift, make((90, features), dtype), 0.3, kernel=kernel)
            yield f"mean_shift {features} features {kernel} {dtype}", call


def _affinity_cases(make: Make, dtype: str) -> Iterator[Case]:
    def product(kind: str, radius: float, columns: int) -> Any:
        image = make((11, 40, 3) if kind == "gaussian" else (11, 40), dtype)
        affinity = cv3gpu.pixel_affinity(image, radius=radius, kind=kind)
        return affinity @ make((11 * 40, columns), dtype), affinity.degree

    for kind, radius, columns in (("gaussian", 3, 1), ("gaussian", 5, 8), ("intervening_contour", 3, 5)):
        name = f"pixel_affinity {kind} radius {radius} {columns} columns {dtype}"
        yield name, functools.partial(product, kind, radius, columns)


def _metric_cases(make: Make) -> Iterator[Case]:
    pred, target = (_array.astype(make((2, 9, 21), "float32") * 4, "int64") for _ in range(2))
    for dtype in ("uint8", "int32", "int64"):
        a, b = _array.astype(pred, dtype), _array.astype(target, dtype)
        for classes in (5, 100):
            call = functools.partial(cv3gpu.confusion_matrix, a, target, classes)
            yield f"confusion_matrix {classes} {dtype}", call
        yield f"boundary_f1 {dtype}", functools.partial(cv3gpu.boundary_f1, a, b, 2.0)


def _graph_cases(make: Make, dtype: str) -> Iterator[Case]:
    """Points of one part and of two, of few features and many; lists of one pass and of two."""
    for points, features, neighbors in ((70, 20, 5), (600, 2, 70)):
        x = make((points, features), dtype)
        name = f"{points}x{features} {dtype}"
        yield f"knn_affinity {name}", functools.partial(cv3gpu.knn_affinity, x, neighbors)
        for eps in (None, 0.2):
            yield f"rbf_affinity {eps=} {name}", functools.partial(cv3gpu.rbf_affinity, x, gamma=1.0, eps=eps)


def _threshold_cases(make: Make, dtype: str) -> Iterator[Case]:
    """One tile of ranks and several, of half stencils and of a matrix by rows."""
    for height, width in ((9, 11), (40, 41)):
        affinity = cv3gpu.pixel_affinity(make((2, height, width, 1), dtype), radius=3)
        vector = make((2, height * width), dtype)
        call = functools.partial(cv3gpu.spectral.best_threshold, affinity, vector, min_size=2)
        yield f"best_threshold {height}x{width} {dtype}", call
    column = make((70, 1), dtype)
    call = functools.partial(cv3gpu.spectral.best_threshold, column * column.T, make((70,), dtype))
    yield f"best_threshold of a matrix {dtype}", call


def _eigen_cases(make: Make, dtype: str) -> Iterator[Case]:
    """Images by the multigrid and by filters, with weights that are stored and not; a matrix by rows."""
    from cv3gpu.eigen import _gpu, _gpu_lobpcg, _gpu_multigrid

    def pairs(affinity: Any, k: int) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            return cv3gpu.smallest_eigenpairs(affinity, k, tol=1e-3, max_iter=2)

    def iteration(affinity: Any) -> Any:
        """A cycle, and a step of LOBPCG: what a solver that finds no numbers does not come to."""
        matrix = _gpu._Pixels(affinity, True)
        space = _gpu._Device(matrix, make((len(affinity), 4), "float64"), "float64", 0)
        here = _gpu_lobpcg._Blocks(space, 4)
        here.renew(space.scattered(4))
        here.step(space.scattered(4))
        return _gpu_multigrid.Cycle(matrix, affinity.flat, affinity.offsets, 0)(make((len(affinity), 4), "float32"))

    for features, stored in ((1, True), (1, False), (3, False)):  # self weights: degrees are positive in any case
        affinity = cv3gpu.pixel_affinity(make((24, 23, features), dtype), radius=3, self_weight=3.0, stored=stored)
        for k in (3, 25):
            yield f"smallest_eigenpairs {k} {features=} {stored=} {dtype}", functools.partial(pairs, affinity, k)
        yield f"an iteration {features=} {stored=} {dtype}", functools.partial(iteration, affinity)
    column = make((520, 1), dtype)
    yield f"smallest_eigenpairs of a matrix {dtype}", functools.partial(pairs, column * column.T, 3)


# Height, width and bins: one tile and several, bins that do not divide, more of them than a launch takes.
PYRAMIDS = ((9, 13, (1, 2, 3, 6)), (70, 3, (1, 4)), (6, 261, (2,)), (8, 9, (1, 2, 3, 4, 5, 6, 7, 8, 9, 2)))


def _pyramid_cases(make: Make, dtype: str, layout: str) -> Iterator[Case]:
    for height, width, bins in PYRAMIDS:
        x, vector = make((2, 5, height, width), dtype, layout), make((6,), dtype)
        maps, weight = [make((2, 3, b, b), dtype) for b in bins], make((6, 5 + 3 * len(bins), 3, 3), dtype)
        name = f"{height}x{width} {len(bins)} bins {dtype} {layout}"
        yield f"pyramid_pool {name}", functools.partial(pyramid.pyramid_pool, x, bins)
        cells = make((2, 5, pyramid.cells_of(bins), 1), dtype, layout)
        call = functools.partial(pyramid.pyramid_pool_adjoint, cells, (height, width), bins)
        yield f"pyramid_pool_adjoint {name}", call
        finish = {"scale": vector, "activation": "relu"}
        call = functools.partial(cv3gpu.pyramid_conv2d, x, maps, weight, vector, **finish)
        yield f"pyramid_conv2d {name}", call
    x, vectors = make((2, 20, 9, 8), dtype, layout), [make((k,), dtype) for k in (24, 7)]
    weights = [make((24, 20, 3, 3), dtype), make((7, 20, 1, 1), dtype)]
    ends = {"image_pooling": (make((3, 20, 1, 1), dtype),), "project": (make((9, 34, 1, 1), dtype),)}
    call = functools.partial(cv3gpu.aspp, x, weights, vectors, dilations=(6, 1), scales=vectors, **ends)
    yield f"aspp {dtype} {layout}", call


def cases(library: str) -> Iterator[Case]:
    """Named calls that launch every kernel at least once, over dtypes, layouts and branches."""
    make = maker(library)
    floats = ("float32", "float64") if library != "torch" else ("float32", "float16", "bfloat16")
    for dtype in floats:
        for layout in ("nchw", "nhwc"):
            yield from _conv_cases(make, dtype, layout)
            yield from _resize_cases(make, dtype, layout)
            yield from _resize_conv_cases(make, dtype, layout)
            yield from _separable_cases(make, dtype, layout)
            yield from _pool_cases(make, dtype, layout)
            yield from _head_cases(make, dtype, layout)
            yield from _pyramid_cases(make, dtype, layout)
    yield from _metric_cases(make)
    for dtype in ("float32", "float64"):
        boxes = [make((2, n, 4), dtype, "nchw") for n in (5, 33)]
        for kind in ("iou", "giou", "ioa"):
            call = functools.partial(cv3gpu.box_iou, *boxes, format="xywh", kind=kind)
            yield f"box_iou {kind} {dtype}", call
            grad = make((2, 5, 33), dtype, "nchw")
            gradient = functools.partial(cv3gpu.box_iou_vjp, grad, *boxes, format="xywh", kind=kind)
            yield f"box_iou_vjp {kind} {dtype}", gradient
        for rows, cols in ((7, 7), (5, 40), (70, 33)):
            cost = make((3, rows, cols), dtype, "nchw")
            solve = functools.partial(cv3gpu.linear_sum_assignment, cost)
            yield f"linear_sum_assignment {rows}x{cols} {dtype}", solve
        yield from _crf_cases(make, dtype)
        yield from _cluster_cases(make, dtype)
        yield from _affinity_cases(make, dtype)
        yield from _graph_cases(make, dtype)
        yield from _threshold_cases(make, dtype)
        yield from _eigen_cases(make, dtype)
        yield from _tracking_cases(make, dtype)
        yield from _message_cases(make, dtype)
    if library == "torch":
        yield from _message_cases(make, "bfloat16")  # the tensor cores' kernels
    yield from _cut_cases(make)
    yield from _slic_cases(make)
    yield from _mot_cases(library)


def _tracking_cases(make: Make, dtype: str) -> Iterator[Case]:
    """Detections that move, and tracklets with a look; lists of one pass and of two."""

    def linked(nodes: int, k: int, **more: Any) -> Any:
        frame, box = _array.astype(make((nodes,), "float32") * 9, "int64"), make((nodes, 4), dtype)
        if more.pop("tracklets", False):
            more |= {"last_frame": frame + 1, "last_box": box}
        edges = mot.candidate_edges(frame, box, max_gap=4, k=k, **more)
        return mot.edge_features(frame, box, edges, **more)

    yield f"edges of detections {dtype}", functools.partial(linked, 45, 5, velocity=make((45, 2), dtype))
    look = make((150, 7), dtype)
    yield f"edges of tracklets {dtype}", functools.partial(linked, 150, 70, appearance=look, tracklets=True)


def _message_cases(make: Make, dtype: str) -> Iterator[Case]:
    """A step and its gradients: states of edges by direction and by pair, one network and two, a layer too wide."""
    ends = np.array([(i, j) for i in range(9) for j in range(i + 1, 11, 2)]).T

    def step(undirected: bool, plain: bool, hidden: int) -> None:
        both = ends if undirected else np.concatenate([ends, ends[::-1]], 1)
        count, sums = both.shape[1], 4 if plain else 8
        nodes, initial, edges = (make((n, k), dtype) for n, k in ((11, 4), (count, 2), (count, 6)))
        graph = message.message_graph(_array.from_host(np.ascontiguousarray(both), nodes), 11, undirected=undirected)
        weights = [make(shape, dtype) for shape in ((hidden, 16), (hidden,), (6, hidden), (6,))]
        past = [make(shape, dtype) for shape in ((hidden, 10), (hidden,), (4, hidden), (4,))]
        streams = past, None if plain else past
        update = make((4, sums), dtype), make((4,), dtype)
        out = message.edge_step(nodes, initial, edges, weights, graph)
        new = message.node_step(nodes, out, *streams, update, graph)
        message.node_step_vjp(new, new, nodes, out, *streams, update, graph)
        message.edge_step_vjp(out, out, nodes, initial, edges, weights, graph)

    for undirected, plain, hidden in ((False, False, 8), (True, True, 7), (False, False, 200)):
        name = f"{'pairs' if undirected else 'directed'}, {1 if plain else 2} networks, {hidden} hidden units"
        yield f"message passing, {name} {dtype}", functools.partial(step, undirected, plain, hidden)


def _mot_cases(library: str) -> Iterator[Case]:
    """Walkers of two sequences, and a frame so full that its scratch does not fit shared memory."""
    from . import mot_data

    def given(side: mot.Boxes, dtype: str) -> mot.Boxes:
        columns = [x.astype(dtype) if x.dtype.kind == "f" else x for x in side]
        if library != "torch":
            return mot.Boxes(*map(importlib.import_module(library).asarray, columns))
        torch = importlib.import_module("torch")
        device = "cpu" if _array.host_backend.get() else "cuda"
        return mot.Boxes(*(torch.from_numpy(x).to(device) for x in columns))

    for sequences, frames, people in ((2, 65, 9), (1, 1, 900)):
        sides = mot_data.walks(sequences, frames, people, 3)
        for dtype in ("float32", "float64"):
            boxes = [given(side, dtype) for side in sides]
            call = functools.partial(mot.evaluate_boxes, *boxes, benchmark="MOT17", n_sequences=sequences)
            yield f"mot.evaluate_boxes {sequences} x {frames} frames of {people} {dtype}", call


@contextlib.contextmanager
def launches() -> Iterator[set[tuple[str, str]]]:
    """The (file, kernel) pairs that are launched inside; numba kernels by (module, function)."""
    seen: set[tuple[str, str]] = set()
    plain = _kernel.Kernel.__call__

    def recorded(self: _kernel.Kernel, *args: Any, **kwargs: Any) -> None:
        seen.add((self.file, self.name))
        plain(self, *args, **kwargs)

    _kernel.Kernel.__call__ = recorded  # type: ignore[method-assign]
    try:
        yield seen
    finally:
        _kernel.Kernel.__call__ = plain  # type: ignore[method-assign]


def never_launched(seen: set[tuple[str, str]]) -> list[str]:
    """CUDA kernels that no case launched."""
    every = {(f, name) for f in kernels.files() if f.endswith(".cu") for name in _kernel.kernel_names(f)}
    return sorted(f"{name} ({file})" for file, name in every - seen)


@contextlib.contextmanager
def _filled() -> Iterator[None]:
    """Ones in new arrays where something stands in for the GPU: it may compute nothing, and what was there remains.

    A size that the host reads back is then not zero, after which nothing more would be launched.
    """
    empty = _array.empty

    def ones(*args: Any, **options: Any) -> Any:
        made = empty(*args, **options)
        made[...] = 1
        return made

    with mock.patch.object(_array, "empty", ones) if _array.host_backend.get() else contextlib.nullcontext():
        yield


def launch_all(libraries: Sequence[str]) -> int:
    """Launches every case; 1 where one failed or a kernel was left out."""
    failed = 0
    with launches() as seen, _filled():
        for library in libraries:
            for name, call in cases(library):
                try:
                    call()
                    if _array.host_backend.get() is None:
                        importlib.import_module("cupy").cuda.Stream.null.synchronize()
                except Exception as error:
                    failed += 1
                    print(f"{library} {name}: {type(error).__name__}: {error}", flush=True)
    missing = never_launched(seen)
    left = ", ".join(missing) or "none"
    print(f"{len(seen)} kernels launched, {failed} calls failed; never launched: {left}")
    return 1 if failed or missing else 0


def launch_planted(tool: str) -> int:
    """Launches the bug that ``tool`` is to find; 0 whatever the launch said, since the tool is the judge."""
    cupy = importlib.import_module("cupy")
    text = f'extern "C" __global__ void planted(int* x) {{ {PLANTED[tool]} }}\n'
    cupy.cuda.set_allocator(None)
    device = int(cupy.cuda.Device().compute_capability)
    module = cupy.cuda.function.Module()
    module.load(_kernel.compile_source(text, "planted.cu", device).binary)
    with contextlib.suppress(Exception):
        x = cupy.empty(128, cupy.int32)
        module.get_function("planted")((1,), (64,), (x,))
        cupy.cuda.Stream.null.synchronize()
    return 0


def sanitized(program: str, tool: str, *arguments: str) -> int:
    """Exit status of this module under a tool: 0 clean, FOUND where it found errors."""
    command = [program, "--tool", tool, "--error-exitcode", str(FOUND), "--print-limit", "20"]
    if tool == "memcheck":  # a refused call raises in Python; libraries probe with calls that may fail
        command += ["--report-api-errors", "no"]
    command += ["--target-processes", "all", sys.executable, "-m", "bench.sanitize", *arguments]
    environment = {**os.environ, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    return subprocess.run(command, env=environment, check=False).returncode


def main(arguments: Sequence[str] | None = None) -> int:
    """0 clean; 1 something was found, missed or failed; 5 no compute-sanitizer."""
    parser = argparse.ArgumentParser(prog="python -m bench.sanitize", description=__doc__)
    parser.add_argument("--tools", nargs="+", choices=tuple(PLANTED), default=list(PLANTED))
    parser.add_argument("--libraries", nargs="+", choices=("cupy", "torch", "numpy"), default=["cupy", "torch"])
    parser.add_argument("--launch", action="store_true", help="only launch every case")
    parser.add_argument("--planted", choices=tuple(PLANTED), help="only launch the planted bug of a tool")
    chosen = parser.parse_args(arguments)
    program = shutil.which("compute-sanitizer")
    if chosen.launch or chosen.planted:
        if chosen.libraries != ["numpy"]:
            importlib.import_module("cupy").cuda.set_allocator(None)
        return launch_planted(chosen.planted) if chosen.planted else launch_all(chosen.libraries)
    if program is None:
        print("bench.sanitize: compute-sanitizer is not on the PATH; it comes with the CUDA toolkit")
        return NO_TOOL
    bad = 0
    for tool in chosen.tools:
        planted = sanitized(program, tool, "--planted", tool)
        status = sanitized(program, tool, "--launch", "--libraries", *chosen.libraries)
        verdict = {0: "clean", FOUND: "FOUND ERRORS"}.get(status, f"FAILED ({status})")
        found = "found" if planted == FOUND else f"MISSED ({planted})"
        bad += planted != FOUND or status != 0
        print(f"{tool}: planted bug {found}; kernels {verdict}", flush=True)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
