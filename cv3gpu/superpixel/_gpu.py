"""SLIC on the GPU: a batch of images of one grid; the kernels are in ``kernels/superpixel.cu``."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import _array
from .._kernel import MAX_GRID_YZ, blocks, kernel
from . import model

__all__ = ["segment"]

_THREADS = 256  # as THREADS, TILE and DEEP in superpixel.cu
_TILE = 32
_DEEP = 8
_MERGING = 1024
_SHARED = 48 << 10  # bytes that every GPU grants without being asked
_RANGE_BLOCKS = 256  # for an image
_PLAIN = {"CHANNELS": 1, "BYTES": 0, "ZERO": 0}  # of kernels whose text depends on none of these


def _slots(plan: model.Plan, height: int, width: int, step: int, channels: int) -> tuple[int, int, int]:
    """Rows and columns of clusters that a block of slic_assign can reach, and their bytes; zeros if too many."""
    rows = min(plan.rows, (_TILE - 1) * step * plan.rows // height + 4)
    columns = min(plan.columns, (_TILE - 1 + plan.block) * plan.columns // width + 5)
    nbytes = 4 * rows * columns * (channels + 4)
    return (rows, columns, nbytes) if nbytes <= _SHARED else (0, 0, 0)


def _run(name: str, threads: int, *args: Any, constants: dict[str, int] = _PLAIN) -> None:
    """A kernel with a thread for each of so many things."""
    kernel("superpixel.cu", name, **constants)((blocks(threads, _THREADS),), _THREADS, *args)


def segment(image: Any, mask: Any, plan: model.Plan) -> Any:
    """Labels [B, H, W] of images [B, H, W, C]; ``mask`` [B, H, W] of bytes, or None."""
    images, height, width, channels = (int(n) for n in image.shape)
    pixels, clusters = height * width, plan.rows * plan.columns
    reading = {**_PLAIN, "BYTES": _array.dtype_name(image) == "uint8"}
    iterating = {**_PLAIN, "CHANNELS": channels if channels in (1, 3) else 0, "ZERO": plan.zero}

    def empty(*shape: int, dtype: str = "int32") -> Any:
        return _array.empty(image, shape, dtype)

    fields = 3 + channels
    ends, most = empty(images, 2), empty(images, clusters)
    centre, sums = empty(images, clusters, fields, dtype="float32"), empty(images, clusters, fields, dtype="int64")
    planes, labels = empty(images, channels, pixels, dtype="int16"), empty(images, pixels)
    cells = empty(height + 2 * width)
    _run("slic_clear", max(images * clusters * fields, height + width), ends, centre, sums, most, cells, images,
         clusters, channels, plan.softness, height, width, plan.rows, plan.columns, plan.block)  # fmt: skip
    grid = min(_RANGE_BLOCKS, blocks(pixels * channels, _THREADS)), min(images, MAX_GRID_YZ)
    kernel("superpixel.cu", "slic_range", **reading)(grid, _THREADS, image, mask, ends, images, pixels, channels)
    table = _array.from_host(np.concatenate([model.TABLE, model.XYZ.ravel()]), image) if plan.lab else None
    _run("slic_convert", images * pixels, image, ends, table, planes, images, pixels, channels, constants=reading)
    if plan.smoothing is not None:
        between, weights = empty(images, channels, pixels, dtype="float32"), _array.from_host(plan.smoothing, image)
        for along in (False, True):
            _run("slic_smooth", images * channels * pixels, planes, between, weights, images * channels, height, width,
                len(plan.smoothing) // 2, along)  # fmt: skip

    def assign(step: int, phase: int, first: bool, adding: bool) -> None:
        rows, columns, nbytes = _slots(plan, height, width, step, channels)
        visited = blocks(height - phase, step)
        kernel("superpixel.cu", "slic_assign", **iterating)(
            (blocks(width, _TILE) * blocks(visited, _TILE), min(images, MAX_GRID_YZ)), (_TILE, _TILE // _DEEP),
            planes, mask, centre, None if adding else labels, sums if adding else None, most, cells, images, channels,
            height, width, plan.rows, plan.columns, plan.weight, step, phase, first, rows, columns,
            shared_mem=nbytes,
        )  # fmt: skip

    assign(1, 0, True, True)
    for step, phase, adding in model.schedule(plan):
        _run("slic_means", images * clusters, sums, most, centre, images * clusters, channels, constants=iterating)
        assign(step, phase, False, adding)
    return _segments(planes, labels, plan, images, channels, height, width)


def _segments(planes: Any, labels: Any, plan: model.Plan, images: int, channels: int, height: int, width: int) -> Any:
    """Numbers what hangs together, after what is too small has joined others."""

    def empty(*shape: int, dtype: str = "int32") -> Any:
        return _array.empty(planes, shape, dtype)

    pixels, clusters = height * width, plan.rows * plan.columns
    total, size = images * pixels, (images, pixels)
    root, flag, segment = empty(*size), empty(*size), empty(*size)
    parent = first = None
    if plan.connect:
        parent = empty(*size)
        _run("slic_link", total, labels, parent, *size, width)
        _run("slic_union", total, labels, parent, *size, width)
    else:
        first = empty(images, clusters)
        first[...] = pixels
        _run("slic_first", total, labels, first, *size, clusters)
    _run("slic_roots", total, labels, parent, first, root, flag, *size, clusters)
    rank = flag.cumsum(1, dtype=flag.dtype)
    number = None
    if plan.connect and plan.least > 1:
        sums, pairs = empty(*size, 1 + channels, dtype="int64"), empty(images)
        pair, best = empty(images, 2 * pixels, 2), empty(*size, dtype="int64")
        number, following, spare = empty(*size), empty(*size), empty(*size)
        _run("slic_number", total, root, rank, segment, sums, pairs, *size, channels)
        _run("slic_add", images * blocks(height, _DEEP) * width, planes, segment, sums, images, channels, height, width)
        _run("slic_borders", total, segment, sums, pairs, pair, *size, width, channels, plan.least)
        kernel("superpixel.cu", "slic_merge", **_PLAIN)(
            (images,), _MERGING, rank, sums, pairs, pair, best, number, following, spare, pixels, channels, plan.least
        )
    else:
        _run("slic_number", total, root, rank, segment, None, None, *size, channels)
    out = empty(images, height, width, dtype="int64")
    _run("slic_write", total, segment, number, out, *size, plan.start_label)
    return out
