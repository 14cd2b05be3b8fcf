"""Resizing of images, and the transposed map that carries its gradient back.

Every mode is one sparse matrix per axis, ``y = A_h x A_w^T`` for each plane. The CPU path builds the two
matrices; the kernels of ``resize.cu`` compute their rows where they need them.
"""

from __future__ import annotations

import functools
import importlib
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from . import _check
from ._array import (
    array_op,
    as_numpy,
    astype,
    contiguous,
    dtype_name,
    empty,
    family,
    from_host,
    from_numpy,
    memory_format,
    module,
    on_gpu,
    pointer,
)
from ._kernel import MAX_GRID_X, MAX_GRID_YZ, blocks, kernel
from ._threads import each

__all__ = ["interpolate", "interpolate_adjoint", "output_size"]

DTYPES = ("float16", "bfloat16", "float32", "float64")
TAPS = {"nearest": 1, "nearest-exact": 1, "bilinear": 2, "bicubic": 4}
SMOOTH = ("bilinear", "bicubic")  # the modes with align_corners and antialias


class Axis(NamedTuple):
    """One axis of a resize: output o lies at scale * (o + center) - center of the input.

    Of a part of an image, inputs and outputs count from where they begin in the whole.
    """

    n_in: int
    n_out: int
    scale: float
    center: float
    in_start: int = 0
    out_start: int = 0


class Sampling(NamedTuple):
    """A resize of a plane; with ``dtype`` it fixes both matrices."""

    h: Axis
    w: Axis
    taps: int
    antialias: bool


# ---- sizes and checks -----------------------------------------------------------------------------------


def _pair(value: Any) -> tuple[Any, Any]:
    return (value[0], value[1]) if isinstance(value, Sequence) else (value, value)


def output_size(op: str, h: Any, w: Any, size: Any, scale_factor: Any) -> tuple[Any, Any]:
    """Height and width of the result for checked arguments; the sizes may be symbolic integers of torch."""
    if (size is None) == (scale_factor is None):
        got = "neither" if size is None else "both"
        _check.fail(op, "size", "be given where scale_factor is not, and only there", got)
    if size is not None:
        return _pair(size)
    factor_h, factor_w = _pair(scale_factor)
    return math.floor(h * factor_h), math.floor(w * factor_w)


def _factors(op: str, scale_factor: Any) -> tuple[float, float]:
    if isinstance(scale_factor, Sequence) and (isinstance(scale_factor, str) or len(scale_factor) != 2):
        _check.fail(op, "scale_factor", "be a number or a pair of numbers", repr(scale_factor))
    first, second = (_check.real(op, "scale_factor", f, positive=True) for f in _pair(scale_factor))
    return first, second


def _positive_pair(op: str, argument: str, value: Any) -> tuple[int, int]:
    size = _check.pair(op, argument, value, -(2**31))
    if min(size) < 1:
        _check.fail(op, argument, "be positive", size)
    return size


def _axis(n_in: int, n_out: int, factor: float | None, mode: str, corners: bool, antialias: bool) -> Axis:
    if corners:
        scale = (n_in - 1) / (n_out - 1) if n_out > 1 else 0.0
    elif n_in == n_out and (mode in ("nearest", "bilinear") or antialias):
        scale, corners = 1.0, True  # an axis that keeps its size is left alone, whatever the factor says
    elif mode == "nearest" and n_out == 2 * n_in:
        scale = 0.5  # as in torch, also for a factor of 2.01
    else:
        scale = 1.0 / factor if factor else n_in / n_out
    center = 0.5 if antialias or not (corners or mode == "nearest") else 0.0
    return Axis(n_in, n_out, scale, center)


def _sampling(
    op: str,
    argument: str,
    input_size: tuple[int, int],
    size: Any,
    scale_factor: Any,
    mode: Any,
    align_corners: Any,
    antialias: Any,
) -> Sampling:
    """Checks the parameters of a resize of an image of ``input_size``, which came as ``argument``."""
    _check.choice(op, "mode", mode, tuple(TAPS))
    if align_corners is not None:
        _check.flag(op, "align_corners", align_corners)
        if mode not in SMOOTH:
            _check.fail(op, "align_corners", f"be None for mode {mode!r}", align_corners)
    if _check.flag(op, "antialias", antialias) and mode not in SMOOTH:
        _check.fail(op, "antialias", f"be False for mode {mode!r}", antialias)
    factors = (None, None) if scale_factor is None else _factors(op, scale_factor)
    wanted = None if size is None else _positive_pair(op, "size", size)
    if min(input_size) < 1:
        _check.fail(op, argument, "have positive height and width", input_size)
    out = output_size(op, *input_size, wanted, None if scale_factor is None else factors)
    if not 1 <= min(out) <= max(out) < 2**31:
        _check.fail(op, "scale_factor", f"give a size from 1 to 2^31 - 1 for the input's {input_size}", out)
    h, w = (
        _axis(n, m, factor, mode, bool(align_corners), antialias)
        for n, m, factor in zip(input_size, out, factors, strict=True)
    )
    return Sampling(h, w, TAPS[mode], antialias)


# ---- the operators --------------------------------------------------------------------------------------


@array_op("x")
def interpolate(
    x: Any,
    size: int | tuple[int, int] | None = None,
    scale_factor: float | tuple[float, float] | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    antialias: bool = False,
) -> Any:
    """Resizes images as :func:`torch.nn.functional.interpolate` does.

    ``y[n, c, i, j] = sum_k sum_l A_h[i, k] A_w[j, l] x[n, c, k, l]``, where row i of ``A`` holds the weights
    of the neighbours of the source coordinate ``s = scale * (i + 1/2) - 1/2`` (with ``align_corners``
    ``s = scale * i``).

    Parameters
    ----------
    x : array, [N, C, H, W], float16/bfloat16/float32/float64
        Images, in either memory order.
    size : int or pair of int, pixels, optional
        Height and width of the result. Exactly one of ``size`` and ``scale_factor`` is given.
    scale_factor : float or pair of float, optional
        The result has ``floor(H * scale_factor)`` rows, and ``scale`` is ``1 / scale_factor`` as given, not
        the ratio of the sizes.
    mode : {"nearest", "nearest-exact", "bilinear", "bicubic"}
        ``"nearest"`` takes pixel ``floor(scale * i)``, ``"nearest-exact"`` the one whose centre is nearest;
        ``"bicubic"`` is Keys' filter with a = -0.75 (with ``antialias`` -0.5).
    align_corners : bool, optional
        Whether the centres of the corner pixels stay in place (``"bilinear"`` and ``"bicubic"`` only).
    antialias : bool
        Whether the filter is widened to the output's pixel where the image shrinks (the same two modes).

    Returns
    -------
    array, [N, C, Ho, Wo]
        Of x's dtype; channels-last in memory where x is. N = 0 or C = 0 gives an empty result.

    Raises
    ------
    TypeError
        x is no array of these dtypes, or an option is of the wrong type.
    ValueError
        A wrong shape or option; an input or output without pixels.

    Notes
    -----
    Cost: x is read and the result written once; about 4 flops an element (bilinear). Coordinates are computed
    in float64, so that float32 results are right at any size; which pixel is nearest is decided in float32
    for all but float64 images, as torch does. 16-bit images are summed in float32. A weight of zero takes
    nothing, not even of an infinity. The same bits from run to run.
    The gradient is :func:`interpolate_adjoint`.

    References
    ----------
    R. G. Keys, Cubic convolution interpolation for digital image processing, 1981, eq. 15.

    Examples
    --------
    >>> import numpy as np, cv3gpu
    >>> x = np.array([[[[0.0, 1.0]]]])
    >>> cv3gpu.interpolate(x, size=(1, 4), mode="bilinear")
    array([[[[0.  , 0.25, 0.75, 1.  ]]]])
    """
    op = "interpolate"
    sampling = checked_sampling(op, x, size, scale_factor, mode, align_corners, antialias)
    return _resized(x, (*x.shape[:2], sampling.h.n_out, sampling.w.n_out), sampling, adjoint=False)


def checked_sampling(
    op: str, x: Any, size: Any, scale_factor: Any, mode: Any, align_corners: Any, antialias: Any
) -> Sampling:
    """What :func:`interpolate` is to do with these arguments, or what is wrong with them."""
    _check.dtype(op, "x", x, DTYPES)
    _check.ndim(op, "x", x, 4, "[N, C, H, W]")
    h, w = map(int, x.shape[2:])
    return _sampling(op, "x", (h, w), size, scale_factor, mode, align_corners, antialias)


def resized_part(x: Any, sampling: Sampling, h: Axis, w: Axis) -> Any:
    """Some rows and columns of what :func:`interpolate` makes of an image, from the part of it that they depend on.

    ``sampling`` is the whole image's; ``h`` and ``w`` are its axes with the sizes and the beginnings of the part.
    Coordinates and weights are the whole image's, to the bit. On a GPU each tap is a gather of its own: the kernels
    know no beginnings.
    """
    part, shape = sampling._replace(h=h, w=w), (*x.shape[:2], h.n_out, w.n_out)
    rows_first = _rows_first((sampling.h.n_out, sampling.h.n_in), (sampling.w.n_out, sampling.w.n_in))
    layout = "nhwc" if memory_format(x) == "nhwc" else "nchw"
    if 0 in shape:
        return empty(x, shape, layout=layout)
    return _gathered(x, part, rows_first) if on_gpu(x) else _on_cpu(x, shape, part, False, layout, rows_first)


@array_op("grad")
def interpolate_adjoint(
    grad: Any,
    input_size: tuple[int, int],
    scale_factor: float | tuple[float, float] | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    antialias: bool = False,
) -> Any:
    """The transpose of :func:`interpolate`: the gradient with respect to its images.

    ``gx[n, c, k, l] = sum_i sum_j A_h[i, k] A_w[j, l] grad[n, c, i, j]``.

    Parameters
    ----------
    grad : array, [N, C, Ho, Wo], float16/bfloat16/float32/float64
        Gradient with respect to the result of :func:`interpolate`.
    input_size : pair of int, pixels
        Height and width of the images that were resized.
    scale_factor : float or pair of float, optional
        As it was given to :func:`interpolate`; None where ``size`` was given.
    mode, align_corners, antialias
        As they were given to :func:`interpolate`.

    Returns
    -------
    array, [N, C, H, W]
        Of grad's dtype; channels-last in memory where grad is.

    Raises
    ------
    TypeError
        grad is no array of these dtypes, or an option is of the wrong type.
    ValueError
        A wrong shape or option; a grad whose size is not that of the result.

    Notes
    -----
    Cost: grad is read and the result written once. A gather: each element of the result is one sum in a fixed
    order, without atomics, so that the bits are the same from run to run. Sums are in float32 for 16-bit
    arrays. The map is linear: its gradient is :func:`interpolate`. With ``antialias`` and a ``scale_factor``
    that keeps the size of an axis, torch's backward is not the transpose of its forward; this one is.

    Examples
    --------
    >>> import numpy as np, cv3gpu
    >>> cv3gpu.interpolate_adjoint(np.ones((1, 1, 1, 4)), (1, 2), mode="bilinear")
    array([[[[2., 2.]]]])
    """
    op = "interpolate_adjoint"
    _check.dtype(op, "grad", grad, DTYPES)
    _check.ndim(op, "grad", grad, 4, "[N, C, Ho, Wo]")
    n, c, *out = (int(k) for k in grad.shape)
    into = _positive_pair(op, "input_size", input_size)
    if min(out) < 1:
        _check.fail(op, "grad", "have positive height and width", (out[0], out[1]))
    size = tuple(out) if scale_factor is None else None
    sampling = _sampling(op, "input_size", into, size, scale_factor, mode, align_corners, antialias)
    _check.shape(op, "grad", grad, ["N", "C", sampling.h.n_out, sampling.w.n_out])
    return _resized(grad, (n, c, *into), sampling, adjoint=True)


def _resized(x: Any, shape: tuple[int, ...], sampling: Sampling, adjoint: bool) -> Any:
    layout = "nhwc" if memory_format(x) == "nhwc" else "nchw"
    if 0 in shape:
        return empty(x, shape, layout=layout)
    if not on_gpu(x):
        return _on_cpu(x, shape, sampling, adjoint, layout)
    x = contiguous(x) if memory_format(x) == "strided" else x
    y = empty(x, shape, layout=layout)
    n, c = shape[:2]
    planes, channels = (n, c) if layout == "nhwc" else (n * c, 1)
    if sampling.antialias:
        _launch_antialias(x, y, planes, channels, sampling, adjoint)
    elif adjoint:
        _launch_adjoint(x, y, planes, channels, sampling)
    else:
        _launch(x, y, planes, channels, sampling)
    return y


# ---- CPU path -------------------------------------------------------------------------------------------


def _taps(axis: Axis, taps: int, single: bool) -> tuple[np.ndarray, np.ndarray]:
    """Indices and weights, both [n_out, taps]."""
    o = np.arange(axis.out_start, axis.out_start + axis.n_out, dtype=np.float64) + axis.center
    start, last = axis.in_start, axis.in_start + axis.n_in - 1
    if taps == 1:
        kind = np.float32 if single else np.float64  # the roundings that decide between two pixels
        s = (np.float64(kind(axis.scale)) * o - axis.center).astype(kind)
        s = np.maximum(s, 0) + kind(axis.center)
        return np.floor(s.astype(np.float32)).astype(np.int64)[:, None] - start, np.ones((axis.n_out, 1))
    s = axis.scale * o - axis.center
    if taps == 2:
        s = np.clip(s, start, last)
        first = np.floor(s)
        d = s - first
        return first.astype(np.int64)[:, None] - start + [0, 1], np.stack([1 - d, d], axis=1)
    first = np.floor(s)
    distance = np.abs((s - first)[:, None] - [-1, 0, 1, 2])
    return first.astype(np.int64)[:, None] - start + [-1, 0, 1, 2], _cubic(distance, -0.75)


def _cubic(d: np.ndarray, a: float) -> np.ndarray:
    """Keys' filter at distances ``d``, eq. 15."""
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((d - 5) * d + 8) * d * a - 4 * a
    return np.where(d < 1, near, np.where(d < 2, far, 0.0))


def _antialias_taps(axis: Axis, taps: int) -> tuple[np.ndarray, np.ndarray]:
    """The same with the filter stretched by the scale; outside the image, weights are zero."""
    stretch = max(axis.scale, 1.0)
    center = axis.scale * (np.arange(axis.out_start, axis.out_start + axis.n_out) + 0.5)
    first = np.maximum((center - 0.5 * taps * stretch + 0.5).astype(np.int64), axis.in_start)
    end = np.minimum((center + 0.5 * taps * stretch + 0.5).astype(np.int64), axis.in_start + axis.n_in)
    index = first[:, None] + np.arange((end - first).max())
    distance = np.abs(index - center[:, None] + 0.5) / stretch
    weight = _cubic(distance, -0.5) if taps == 4 else np.maximum(1 - distance, 0)
    weight[index >= end[:, None]] = 0
    return index - axis.in_start, weight / weight.sum(axis=1, keepdims=True)


@functools.lru_cache(maxsize=32)
def _matrix(axis: Axis, taps: int, antialias: bool, single: bool, adjoint: bool) -> Any:
    """The sparse matrix of one axis, [n_out, n_in] or its transpose. Zero weights are left out."""
    sparse = importlib.import_module("scipy.sparse")
    index, weight = _antialias_taps(axis, taps) if antialias else _taps(axis, taps, single)
    weight = weight.astype(np.float32 if single else np.float64)
    rows = np.arange(axis.n_out + 1) * index.shape[1]
    columns = np.clip(index, 0, axis.n_in - 1).ravel()
    matrix = sparse.csr_array((weight.ravel(), columns, rows), shape=(axis.n_out, axis.n_in))
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    return matrix.T.tocsr() if adjoint else matrix


def _along(matrix: Any, x: np.ndarray, axis: int) -> np.ndarray:
    """``matrix`` applied along one axis."""
    moved = np.moveaxis(x, axis, 0)
    out = matrix @ moved.reshape(moved.shape[0], -1)
    return np.moveaxis(out.reshape(-1, *moved.shape[1:]), 0, axis)


def _rows_first(h: tuple[int, int], w: tuple[int, int]) -> bool:
    """Whether rows shrink more, from (sizes after, before) of both axes: after that one less is left for the other."""
    return h[0] * w[1] < w[0] * h[1]


def _pieces(x: np.ndarray, out: np.ndarray, layout: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Matching views [planes, H, W] or [H, W, channels] of both, small enough for the second-level cache."""
    step = max(1, 2**18 // max(math.prod(x.shape[2:]), math.prod(out.shape[2:])))
    if layout == "nchw":
        x, out = (a.reshape(1, -1, *a.shape[2:]) for a in (x, out))
    for a, b in zip(x, out, strict=True):
        for k in range(0, len(a), step):
            piece = a[k : k + step], b[k : k + step]
            yield piece if layout == "nchw" else (piece[0].transpose(1, 2, 0), piece[1].transpose(1, 2, 0))


def _on_cpu(
    x: Any, shape: tuple[int, ...], sampling: Sampling, adjoint: bool, layout: str, rows_first: bool | None = None
) -> Any:
    values = _values(x)
    out = empty(values, shape, layout=layout)
    h_axis = 1 if layout == "nchw" else 0
    single = values.dtype == np.float32
    h, w = (_matrix(axis, sampling.taps, sampling.antialias, single, adjoint) for axis in (sampling.h, sampling.w))
    order = [(w, h_axis + 1), (h, h_axis)]
    if _rows_first(h.shape, w.shape) if rows_first is None else rows_first:
        order.reverse()

    def resize(source: np.ndarray, target: np.ndarray) -> None:
        for matrix, axis in order:
            source = _along(matrix, source, axis)
        target[...] = source

    values = values if layout == "nhwc" else np.ascontiguousarray(values)
    each(resize, _pieces(values, out, layout))
    return _like(out, x)


def _values(x: Any) -> np.ndarray:
    """NumPy's view of a CPU array; of 16-bit floats a float32 copy."""
    if dtype_name(x) in ("float32", "float64"):
        return as_numpy(x)
    return as_numpy(x.float()) if family(x) == "torch" else x.astype(np.float32)


def _like(values: np.ndarray, x: Any) -> Any:
    """A NumPy result with the library and dtype of ``x``."""
    out = from_numpy(values, x)
    if out.dtype == x.dtype:
        return out
    return out.to(x.dtype) if family(x) == "torch" else out.astype(x.dtype)


# ---- GPU path -------------------------------------------------------------------------------------------


def _gathered(x: Any, sampling: Sampling, rows_first: bool) -> Any:
    """The same by whole-array operations, one tap of one axis at a time."""
    xp, sums = module(x), "float64" if dtype_name(x) == "float64" else "float32"
    y = astype(x, sums)
    for place in (2, 3) if rows_first else (3, 2):
        axis = sampling.h if place == 2 else sampling.w
        index, weight = (
            _antialias_taps(axis, sampling.taps)
            if sampling.antialias
            else _taps(axis, sampling.taps, sums == "float32")
        )
        index = np.clip(index, 0, axis.n_in - 1)
        line = tuple(-1 if k == place else 1 for k in range(4))
        total = 0.0
        for k in range(index.shape[1]):
            share = from_host(weight[:, k].astype(sums).reshape(line), x)
            total = total + xp.where(share == 0, 0.0, share * y.take(from_host(index[:, k], x), place))
        y = total
    return astype(y, dtype_name(x))


BLOCK = 256
ROWS = 4  # rows of the result that a block of the adjoint owns
TABLE = 64  # rows that a block of the forward kernel may do
ENOUGH_BLOCKS = 2**14  # more of them than this, and each does several planes instead


def _vector(x: Any, y: Any, channels: int, elements: int) -> bool:
    """Whether channels can move in vectors of so many elements."""
    size = elements * x.itemsize
    return channels % elements == 0 and pointer(x).address % size == 0 and pointer(y).address % size == 0


def _warps(threads: int) -> int:
    return 32 * blocks(threads, 32)


def _scalars(sampling: Sampling) -> tuple[float, ...]:
    h, w = sampling.h, sampling.w
    return (h.n_in, w.n_in, h.n_out, w.n_out, h.scale, h.center, w.scale, w.center)


def _launch(x: Any, y: Any, planes: int, channels: int, sampling: Sampling) -> None:
    name, wide = "resize", 16 // x.itemsize
    if channels > 1 and _vector(x, y, channels, wide):
        name, channels = "resize_wide", channels // wide
    lanes = sampling.w.n_out * channels
    group = min(planes, max(1, BLOCK // lanes))  # narrow planes go side by side in a block
    tiles, steps = blocks(lanes, BLOCK), blocks(planes, group)
    rows = min(TABLE, sampling.h.n_out)
    while rows > 4 and tiles * blocks(sampling.h.n_out, rows) * steps < 2048:
        rows = blocks(rows, 2)
    across = tiles * blocks(sampling.h.n_out, rows)
    down = min(steps, MAX_GRID_YZ, max(1, ENOUGH_BLOCKS // across))
    threads = BLOCK if lanes >= BLOCK else _warps(lanes * group)
    launch = kernel("resize.cu", name, real=dtype_name(x), TAPS=sampling.taps)
    launch((across, down), threads, x, y, planes, channels, *_scalars(sampling), rows, group)


def _launch_adjoint(grad: Any, y: Any, planes: int, channels: int, sampling: Sampling) -> None:
    name, wide = "resize_adjoint", 2 if dtype_name(grad) == "float64" else 4
    h, w = sampling.h, sampling.w
    deep = min(channels, 32)
    if channels > 1 and _vector(grad, y, channels, wide):
        name, channels = "resize_adjoint_wide", channels // wide
        deep = min(channels, 8)
    width = BLOCK // deep  # columns of grad, or of the result, that fit a block
    others = blocks(channels, deep) * blocks(h.n_in, ROWS) * planes
    cols = min(w.n_in, width)
    while cols > 4 and blocks(w.n_in, cols) * others < 2048:
        cols = blocks(cols, 2)
    cols = blocks(w.n_in, blocks(w.n_in, cols))
    region = min(w.n_out, math.ceil((cols + sampling.taps) * w.n_out / w.n_in) + 2)
    chunk = blocks(region, blocks(region, width))
    group = min(planes, max(1, width // max(cols, chunk)))
    across = blocks(w.n_in, cols) * blocks(channels, deep) * blocks(h.n_in, ROWS)
    down = min(blocks(planes, group), MAX_GRID_YZ, max(1, ENOUGH_BLOCKS // across))
    threads = _warps(group * max(cols, chunk) * deep)
    launch = kernel("resize.cu", name, real=dtype_name(grad), TAPS=sampling.taps)
    launch((across, down), threads, grad, y, planes, channels, *_scalars(sampling), cols, chunk, deep, group)


def _launch_antialias(x: Any, y: Any, planes: int, channels: int, sampling: Sampling, adjoint: bool) -> None:
    """One axis at a time; the sums between the two stay in the accumulation type."""
    h, w = sampling.h, sampling.w
    constants = {"real": dtype_name(x), "TAPS": sampling.taps}
    sums = "float64" if dtype_name(x) == "float64" else "float32"
    between = empty(x, (planes, h.n_in, w.n_out, channels), sums)
    if adjoint:
        passes = [("first", x, between, h, w.n_out * channels), ("second", between, y, w, channels)]
    else:
        passes = [("first", x, between, w, channels), ("second", between, y, h, w.n_out * channels)]
    for which, source, target, axis, inner in passes:
        size = math.prod(target.shape)
        grid = (min(blocks(size, BLOCK), MAX_GRID_X),)
        scalars = (size, inner, axis.n_in, axis.n_out, axis.scale)
        if adjoint:
            total = empty(x, (axis.n_out,), sums)
            launch = kernel("resize.cu", "antialias_totals", **constants)
            launch((blocks(axis.n_out, BLOCK),), BLOCK, total, axis.n_in, axis.n_out, axis.scale)
            launch = kernel("resize.cu", f"antialias_adjoint_{which}", **constants)
            launch(grid, BLOCK, source, target, total, *scalars)
        else:
            kernel("resize.cu", f"antialias_{which}", **constants)(grid, BLOCK, source, target, *scalars)
