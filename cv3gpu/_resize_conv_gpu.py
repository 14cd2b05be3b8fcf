"""Launches of a resize-convolution: tables of the axes, combined weights, and the kernel that fits."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ._array import (
    compute_capability,
    contiguous,
    dtype_name,
    empty,
    family,
    from_host,
    readable,
    strides,
    to_host,
)
from ._kernel import MAX_GRID_YZ, blocks, kernel
from ._polyphase import Plan, Problem
from .conv import SIXTEEN_BIT, _pack_lines
from .resize import _taps

__all__ = ["forward"]

LONGEST_PERIOD = 16
TILE = 64  # places of a block on the ordinary cores, and channels of any block
LINES = 128  # places of a block on the tensor cores
STAGES = 3
PIXELS = 8, 16  # rows and columns of a tile whose region of the enlarged image is made
LARGE_SHARED = (80, 87, 90, 100, 103)  # compute capabilities with more than 100 KiB of shared memory for a block


class Tables(NamedTuple):
    """The device's copy of what describes both axes; see ``resize_conv.cuh``."""

    integers: Any
    jobs: int
    tiles: int
    kinds: tuple[int, int]
    longest: tuple[int, int]  # elements of the longest kinds
    step: tuple[int, int]
    together: int  # columns that leave a block together, at most
    row_matrix: Any
    col_matrix: Any
    index: Any
    weight: Any


class _Axis(NamedTuple):
    """An axis on the host."""

    base: np.ndarray
    kind: np.ndarray
    matrices: tuple[np.ndarray, ...]
    step: int


_gathers: dict[Any, dict[Any, Tables]] = {}  # tables of problems without phases; as few as `plan` keeps
MOST_GATHERS = 64


def forward(x: Any, weight: Any, bias: Any, y: Any, problem: Problem, plans: tuple[Plan, Plan] | None) -> None:
    """Fills ``y``: by phases where there are ``plans``, else by parts of the enlarged image."""
    if 0 in y.shape:
        return
    x = readable(x)
    tensor_cores = dtype_name(x) in SIXTEEN_BIT and compute_capability(x) >= 80 and int(x.shape[1]) >= 16
    roomy = compute_capability(x) in LARGE_SHARED
    if plans is None and _region(problem) > (64 if roomy else 40) << 10:
        tensor_cores = False
    tile = LINES if tensor_cores else TILE
    together = 4 if roomy else 2
    if dtype_name(x) == "float64":
        together //= 2
    tables = _tables(x, problem, plans, tile, together)
    weight, bias = readable(weight), None if bias is None else contiguous(bias)
    if not tensor_cores:
        taps, inner = (0, x.shape[2:]) if plans else (problem.sampling.taps, problem.large)
        _ordinary_cores(x, weight, bias, y, tables, taps, inner)
    elif plans:
        _tensor_cores(x, weight, bias, y, tables)
    else:
        _regions(x, weight, bias, y, tables, problem)


# ---- tables ---------------------------------------------------------------------------------------------


def _tables(x: Any, problem: Problem, plans: tuple[Plan, Plan] | None, tile: int, together: int) -> Tables:
    """Made once for each device, and kept: a copy from the host may not be captured into a graph."""
    sums = "float64" if dtype_name(x) == "float64" else "float32"
    key: tuple[Any, ...] = (family(x), str(getattr(x, "device", "")), sums, tile, together)
    if plans:
        held, key = plans[0].held, (*key, plans[1])
    else:
        axes = problem.sampling, problem.rows, problem.cols
        held = _gathers.setdefault(axes, {})
        if len(_gathers) > MOST_GATHERS:
            del _gathers[next(iter(_gathers))]
    if key not in held:
        held[key] = _new_tables(x, problem, plans, tile, together, sums)
    return held[key]


def _new_tables(
    x: Any, problem: Problem, plans: tuple[Plan, Plan] | None, tile: int, together: int, sums: str
) -> Tables:
    index = weight = None
    if plans:
        rows, cols = (_Axis(plan.base, plan.kind, plan.matrices, 1) for plan in plans)
    else:
        result, sampling = problem.result, problem.sampling
        rows, cols = (
            _Axis(np.arange(n) - tap.before, np.zeros(n, int), (np.eye(tap.taps),), tap.dilation)
            for n, tap in zip(result, (problem.rows, problem.cols), strict=True)
        )
        found = [_taps(axis, sampling.taps, sums == "float32") for axis in (sampling.h, sampling.w)]
        clipped = (np.clip(k, 0, axis.n_in - 1) for (k, _), axis in zip(found, sampling[:2], strict=True))
        index = _held(np.concatenate([k.ravel() for k in clipped]).astype(np.int32), x)
        weight = _held(np.concatenate([w.ravel() for _, w in found]).astype(sums), x)
    jobs, tiles = _jobs(rows.kind, cols.kind, tile, together)
    order = np.argsort(rows.kind, kind="stable")
    lengths = [np.array([m.shape[1] for m in axis.matrices]) for axis in (rows, cols)]
    integers = np.concatenate([jobs.ravel(), order, rows.base, cols.base, cols.kind, *lengths]).astype(np.int32)
    longest = int(lengths[0].max()), int(lengths[1].max())
    matrices = [_held(_stacked(a.matrices, n).astype(sums), x) for a, n in zip((rows, cols), longest, strict=True)]
    return Tables(
        _held(integers, x),
        len(jobs),
        tiles,
        (len(lengths[0]), len(lengths[1])),
        longest,
        (rows.step, cols.step),
        int(jobs[:, -1].max()),
        matrices[0],
        matrices[1],
        index,
        weight,
    )


def _held(values: np.ndarray, like: Any) -> Any:
    """A copy on the device, there before this returns: any stream may be the next to read it."""
    copy = from_host(values, like)
    to_host(copy[:1])
    return copy


def _stacked(matrices: tuple[np.ndarray, ...], longest: int) -> np.ndarray:
    """[kinds, elements, taps], zeros where a kind has fewer elements."""
    found = np.zeros((len(matrices), longest, matrices[0].shape[0]))
    for to, matrix in zip(found, matrices, strict=True):
        to[: matrix.shape[1]] = matrix.T
    return found


def _runs(kind: np.ndarray) -> list[tuple[int, int, int]]:
    """The columns as runs (first, period, repeats) over which kinds repeat."""
    found, first, n = [], 0, len(kind)
    while first < n:
        best = (1, 1)
        for period in range(1, min(LONGEST_PERIOD, (n - first) // 2) + 1):
            same = kind[first + period :] == kind[first : n - period]
            repeats = 1 + (len(same) if same.all() else int(same.argmin())) // period
            if repeats > 1 and period * repeats > best[0] * best[1]:
                best = period, repeats
        found.append((first, *best))
        first += best[0] * best[1]
    return found


def _jobs(row_kind: np.ndarray, col_kind: np.ndarray, tile: int, together: int) -> tuple[np.ndarray, int]:
    """Jobs as ``resize_conv.cuh`` has them, and the tiles of all."""
    counts = np.bincount(row_kind)
    begins = np.concatenate([[0], np.cumsum(counts)])
    jobs, tiles = [], 0
    for (first, period, repeats), (kind, count) in itertools.product(_runs(col_kind), enumerate(counts)):
        for i in range(0, period, together):
            some = min(together, period - i)
            jobs.append((tiles, begins[kind], count, kind, first + i, period, repeats, some))
            tiles += blocks(int(count) * repeats, tile)
    return np.array(jobs), tiles


# ---- launches -------------------------------------------------------------------------------------------


def _combined(weight: Any, tables: Tables, pitch_unit: int, wide: bool) -> Any:
    """Weights of all phases, in the order in which a kernel reads them."""
    channels, source_channels, *kernel_size = (int(n) for n in weight.shape)
    real = dtype_name(weight)
    lines, columns = (source_channels, channels) if wide else (channels, source_channels)
    pitch = blocks(columns, pitch_unit) * pitch_unit
    (a, b), (high, across) = tables.kinds, tables.longest
    dtype = ("float64" if real == "float64" else "float32") if wide else real
    packed = empty(weight, (a * b, high * across, lines, pitch), dtype)
    size = a * b * high * across * lines * pitch
    kernel("resize_conv.cu", "resize_conv_combine", real=real, TAPS=0, WIDE=wide)(
        (min(blocks(size, 256), 4096),), 256, weight, tables.row_matrix, tables.col_matrix, packed, *strides(weight),
        a, b, high, across, *kernel_size, source_channels, channels, pitch,
    )  # fmt: skip
    return packed


def _ordinary_cores(x: Any, weight: Any, bias: Any, y: Any, tables: Tables, taps: int, inner: Sequence[int]) -> None:
    real = dtype_name(x)
    packed = _combined(weight, tables, 4, True)
    images, channels, rows, cols = (int(n) for n in y.shape)
    kernel("resize_conv.cu", "resize_conv", real=real, TAPS=taps, WIDE=True)(
        (tables.tiles * blocks(channels, TILE), min(images, MAX_GRID_YZ)), 256,
        x, packed, bias, y, tables.integers, tables.index, tables.weight, *strides(x), *strides(y),
        images, x.shape[1], channels, packed.shape[3], *inner, rows, cols, tables.jobs,
        *tables.kinds, *tables.longest, *tables.step,
        shared_mem=TILE * (TILE * tables.together + 2) * y.itemsize,
    )  # fmt: skip


def _tensor_cores(x: Any, weight: Any, bias: Any, y: Any, tables: Tables) -> None:
    packed = _combined(weight, tables, 8, False)
    lines, pitch = _pack_lines(x, 1)
    images, channels, rows, cols = (int(n) for n in y.shape)
    operands = STAGES * (LINES + TILE) * 64
    kernel("resize_conv_mma.cu", "resize_conv_mma", real=dtype_name(x), TAPS=0)(
        (tables.tiles * blocks(channels, TILE), min(images, MAX_GRID_YZ)), 256,
        lines, packed, bias, y, tables.integers, *strides(y),
        images, pitch, channels, *x.shape[2:], rows, cols, tables.jobs, *tables.kinds, *tables.longest,
        shared_mem=operands + TILE * (LINES * tables.together + 2) * y.itemsize,
    )  # fmt: skip


def _region(problem: Problem) -> int:
    """Bytes of a region of the enlarged image, or of the results that take its place."""
    high, wide = (n + t.dilation * (t.taps - 1) for n, t in zip(PIXELS, (problem.rows, problem.cols), strict=True))
    return max(64 * high * wide, 2 * TILE * (LINES + 2))


def _regions(x: Any, weight: Any, bias: Any, y: Any, tables: Tables, problem: Problem) -> None:
    packed = _combined(weight, tables, 8, False)
    lines, pitch = _pack_lines(x, 1)
    images, channels, rows, cols = (int(n) for n in y.shape)
    tiles = blocks(rows, PIXELS[0]) * blocks(cols, PIXELS[1])
    kernel("resize_conv_region.cu", "resize_conv_region", real=dtype_name(x), TAPS=problem.sampling.taps)(
        (tiles * blocks(channels, TILE), min(images, MAX_GRID_YZ)), 256,
        lines, packed, bias, y, tables.index, tables.weight, *strides(y),
        images, pitch, channels, *x.shape[2:], *problem.large, rows, cols, *tables.longest,
        problem.rows.before, problem.cols.before, *problem.dilation,
        shared_mem=_region(problem) + 2 * TILE * 64,
    )  # fmt: skip
