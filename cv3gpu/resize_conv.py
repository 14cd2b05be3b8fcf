"""Resize-convolution: an image is enlarged and convolved, and the enlarged image never exists.

Where the factor is simple, resize and convolution together are a few small convolutions of the small image with
combined weights (`_polyphase`). Otherwise the enlarged image is computed in parts: on a GPU by the block that needs
them (``resize_conv.cu``, ``resize_conv_mma.cu``), on a CPU in bands of rows.
"""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from . import _check, _resize_conv_gpu
from ._array import array_op, astype, dtype_name, empty, family, from_host, memory_format, on_gpu, zeros
from ._polyphase import Options, Piece, Plan, Problem, Tap, plan
from ._threads import each
from .conv import SIXTEEN_BIT, conv2d, conv2d_adjoint_input, conv2d_adjoint_weight, padding_of
from .resize import (
    DTYPES,
    SMOOTH,
    Sampling,
    _along,
    _matrix,
    _pieces,
    _positive_pair,
    _sampling,
    _values,
    interpolate,
    interpolate_adjoint,
)

__all__ = ["resize_conv2d", "resize_conv2d_adjoint_input", "resize_conv2d_adjoint_weight"]

BAND = 2**19  # elements of the enlarged image that exist at a time on a CPU, or a few rows more than taps reach
SLICE = {False: 2**21, True: 2**26}  # of its gradient, on a CPU and on a GPU
PIECE = 2**13  # what a piece costs beyond its products, in multiply-adds of one pair of channels, on a CPU
BLENDING = 12  # what an enlarged element costs, in multiply-adds, on a CPU
GATHERING = 1.3  # a product of the fused gather in products of a phase, on a GPU
MOST_PIECES = 40  # of a weight's gradient on a GPU, where each is some launches

# ---- checks ---------------------------------------------------------------------------------------------


def _corners(op: str, mode: Any, align_corners: Any) -> bool | None:
    """``align_corners`` as `interpolate` has it: None for the modes that do not know it."""
    if _check.flag(op, "align_corners", align_corners) and mode not in SMOOTH:
        _check.fail(op, "align_corners", f"be False for mode {mode!r}", align_corners)
    return align_corners if mode in SMOOTH else None


def _check_weight(op: str, weight: Any, like: str, x: Any) -> None:
    _check.dtype(op, "weight", weight, DTYPES)
    _check.ndim(op, "weight", weight, 4, "[Cout, C, kh, kw]")
    if 0 in weight.shape:
        _check.fail(op, "weight", "have no empty dimension", tuple(weight.shape))
    _check.same_dtype(op, "weight", weight, like, x)


def _problem(
    op: str, sampling: Sampling, kernel_size: Sequence[int], padding: Any, dilation: Any, options: Options
) -> Problem:
    spread = _check.pair(op, "dilation", dilation, 1)
    around = padding_of(op, padding, kernel_size, (1, 1), spread)
    rows, cols = (
        Tap(int(k), d, before, behind)
        for k, d, before, behind in zip(kernel_size, spread, around[::2], around[1::2], strict=True)
    )
    problem = Problem(sampling, rows, cols, options)
    padded = tuple(n + tap.before + tap.behind for n, tap in zip(problem.large, (rows, cols), strict=True))
    if min(problem.result) < 1:
        reach = tuple(d * (k - 1) + 1 for d, k in zip(spread, kernel_size, strict=True))
        _check.fail(op, "size", f"give, with its padding, at least the dilated kernel's size {reach}", padded)
    if max(padded) >= 2**31:
        _check.fail(op, "padding", "leave the padded image under 2**31 rows and columns", padded)
    return problem


def _of_gradient(
    op: str,
    grad: Any,
    argument: str,
    size: Any,
    kernel_size: Sequence[int],
    padding: Any,
    dilation: Any,
    options: Options,
) -> Problem:
    """The problem on images of ``size``, known from ``argument``, whose result has the gradient's size; checked."""
    spread = _check.pair(op, "dilation", dilation, 1)
    around = padding_of(op, padding, kernel_size, (1, 1), spread)
    large = None
    if options.scale_factor is None:
        large = tuple(
            int(n) + d * (int(k) - 1) - sum(pads)
            for n, d, k, pads in zip(grad.shape[2:], spread, kernel_size, (around[:2], around[2:]), strict=True)
        )
        if min(large) < 1:
            _check.fail(op, "grad", "have the size of a result", tuple(grad.shape[2:]))
    sampling = _sampling(op, argument, size, large, *options, False)
    problem = _problem(op, sampling, kernel_size, around, spread, options)
    _check.shape(op, "grad", grad, [grad.shape[0], grad.shape[1], *problem.result])
    return problem


def _layout(x: Any) -> str:
    return "nhwc" if memory_format(x) == "nhwc" else "nchw"


# ---- the operators --------------------------------------------------------------------------------------


@array_op("x", "weight", "bias")
def resize_conv2d(
    x: Any,
    weight: Any,
    bias: Any = None,
    *,
    size: int | tuple[int, int] | None = None,
    scale_factor: float | tuple[float, float] | None = None,
    mode: str = "bilinear",
    align_corners: bool = False,
    padding: int | Sequence[int] | str = "same",
    dilation: int | Sequence[int] = 1,
) -> Any:
    r"""Convolution of an enlarged image, which never exists: ``conv2d(interpolate(x, ...), weight, bias, ...)``.

    .. math:: y[n,o,p,q] = b[o] + \sum_{c,r,s} w[o,c,r,s] \, u[n, c, p - p_h + r d_h, q - p_w + s d_w], \quad
        u[n, c] = A_h \, x[n, c] \, A_w^T

    with zeros outside u, and the matrices A of :func:`interpolate`. Learned upsampling without the checkerboard of a
    transposed convolution.

    Parameters
    ----------
    x : array, [N, C, h, w], float16/bfloat16/float32/float64
        Images; memory by rows or channels last, other strides as they are.
    weight : array, [Cout, C, kh, kw], dtype of x
    bias : array, [Cout], dtype of x, optional
    size : int or pair of int, pixels, optional
        Rows H and columns W of u. Exactly one of ``size`` and ``scale_factor`` is given.
    scale_factor : float or pair of float, optional
        As for :func:`interpolate`.
    mode : {"bilinear", "nearest", "nearest-exact", "bicubic"}
        As for :func:`interpolate`.
    align_corners : bool
        As for :func:`interpolate`; of ``"bilinear"`` and ``"bicubic"`` only.
    padding : int, pair (rows, columns), (top, bottom, left, right), ``"same"`` or ``"valid"``
        Zeros around u, in its pixels, as for :func:`conv2d`.
    dilation : int or pair (rows, columns), >= 1
        Distance in pixels of u between the kernel's taps.

    Returns
    -------
    array, [N, Cout, Ho, Wo], dtype and library of x
        Channels last if x is; Ho = H + top + bottom - dh (kh - 1). N = 0 gives an empty result.

    Raises
    ------
    TypeError
        An argument is no array, or of another library, device or dtype than x, or an option is of the wrong type.
    ValueError
        A shape or a value does not fit; the text names the argument, what was wanted and what came.

    Notes
    -----
    Two ways, chosen by the number of their multiply-adds. *Phases*: with a simple factor the results fall into few
    kinds, each a small convolution of x with combined weights, with kinds of their own along the border, where u ends
    in zeros and x does not; nearest x2 with 3 x 3 taps needs 4 products where there were 9. *Parts*: u is made where
    it is needed: by a block of threads, or in bands of rows on a CPU (2^19 elements at a time, or some rows).

    Sums are in float32 (float64 for float64) and rounded once, but what is combined first is rounded, too: weights of
    phases to the dtype of the sums, off by some units of its last place. On tensor cores (16-bit inputs, compute
    capability 8.0 and up) combined weights, or else the parts of u, are rounded to 16 bits. The same bits from run to
    run. Gradients: :func:`resize_conv2d_adjoint_input`, :func:`resize_conv2d_adjoint_weight`,
    ``grad.sum((0, 2, 3))``.

    References
    ----------
    .. [1] A. Odena, V. Dumoulin, C. Olah, "Deconvolution and checkerboard artifacts", Distill, 2016.
    .. [2] W. Shi et al., "Is the deconvolution layer the same as a convolutional layer?", 2016 (phases).

    Examples
    --------
    >>> import numpy as np, cv3gpu
    >>> x = np.array([[[[0.0, 4.0]]]])
    >>> cv3gpu.resize_conv2d(x, np.ones((1, 1, 1, 3)), scale_factor=(1, 2), mode="nearest")
    array([[[[0., 4., 8., 8.]]]])
    """
    op = "resize_conv2d"
    _check.dtype(op, "x", x, DTYPES)
    _check.ndim(op, "x", x, 4, "[N, C, h, w]")
    _check_weight(op, weight, "x", x)
    if weight.shape[1] != x.shape[1]:
        wanted = f"have shape [Cout, {x.shape[1]}, kh, kw] to match x {tuple(x.shape)}"
        _check.fail(op, "weight", wanted, tuple(weight.shape))
    if bias is not None:
        _check.same_dtype(op, "bias", bias, "x", x)
        _check.shape(op, "bias", bias, [weight.shape[0]])
    small = int(x.shape[2]), int(x.shape[3])
    options = Options(scale_factor, mode, _corners(op, mode, align_corners))
    sampling = _sampling(op, "x", small, size, *options, False)
    problem = _problem(op, sampling, weight.shape[2:], padding, dilation, options)
    y = empty(x, (x.shape[0], weight.shape[0], *problem.result), layout=_layout(x))
    if x.shape[0] == 0:
        return y
    plans = _plans(x, problem, False)
    if on_gpu(x):
        _resize_conv_gpu.forward(x, weight, bias, y, problem, plans)
        return y
    x, weight, bias = (None if a is None else _wide(a) for a in (x, weight, bias))
    if plans:
        _phases(x, weight, bias, y, *plans)
    else:
        _bands(x, weight, bias, y, problem)
    return y


@array_op("grad", "weight")
def resize_conv2d_adjoint_input(
    grad: Any,
    weight: Any,
    input_size: tuple[int, int],
    *,
    scale_factor: float | tuple[float, float] | None = None,
    mode: str = "bilinear",
    align_corners: bool = False,
    padding: int | Sequence[int] | str = "same",
    dilation: int | Sequence[int] = 1,
) -> Any:
    """The transpose of :func:`resize_conv2d` as a map of x: the gradient with respect to its images.

    Parameters
    ----------
    grad : array, [N, Cout, Ho, Wo], float16/bfloat16/float32/float64
        Gradient with respect to the result.
    weight : array, [Cout, C, kh, kw], dtype of grad
    input_size : pair of int, pixels
        Rows and columns of the images.
    scale_factor : float or pair of float, optional
        As it was given to :func:`resize_conv2d`; None where ``size`` was given.
    mode, align_corners, padding, dilation
        As they were given.

    Returns
    -------
    array, [N, C, h, w], dtype and library of grad
        Channels last if grad is.

    Raises
    ------
    TypeError, ValueError
        As :func:`resize_conv2d`.

    Notes
    -----
    Phases transpose to phases: with a simple factor this is a strided convolution of grad with combined weights, and
    no gradient of the enlarged image exists. Otherwise it does, in slices of channels (2^21 elements on a CPU, 2^26
    on a GPU, or one channel), in the dtype of grad on a GPU. Gathers in a fixed order: the same bits from run to run.

    Examples
    --------
    >>> import numpy as np, cv3gpu
    >>> grad = np.array([[[[1.0, 0.0, 0.0, 0.0]]]])
    >>> cv3gpu.resize_conv2d_adjoint_input(grad, np.ones((1, 1, 1, 3)), (1, 2), mode="nearest")
    array([[[[2., 0.]]]])
    """
    op = "resize_conv2d_adjoint_input"
    _check.dtype(op, "grad", grad, DTYPES)
    _check.ndim(op, "grad", grad, 4, "[N, Cout, Ho, Wo]")
    _check_weight(op, weight, "grad", grad)
    if weight.shape[0] != grad.shape[1]:
        _check.fail(op, "grad", f"have shape [N, {weight.shape[0]}, Ho, Wo]", tuple(grad.shape))
    small = _positive_pair(op, "input_size", input_size)
    options = Options(scale_factor, mode, _corners(op, mode, align_corners))
    problem = _of_gradient(op, grad, "input_size", small, weight.shape[2:], padding, dilation, options)
    x = empty(grad, (grad.shape[0], weight.shape[1], *small), layout=_layout(grad))
    if grad.shape[0] == 0:
        return x
    plans = _plans(grad, problem, True)
    if on_gpu(grad) and plans:
        _resize_conv_gpu.forward(grad, weight.swapaxes(0, 1), None, x, problem, plans)
        return x
    if not on_gpu(grad):
        grad, weight = _wide(grad), _wide(weight)
    if plans:
        _phases(grad, weight.swapaxes(0, 1), None, x, *plans)
    else:
        _slices_of_input(grad, weight, x, problem)
    return x


@array_op("grad", "x")
def resize_conv2d_adjoint_weight(
    grad: Any,
    x: Any,
    kernel_size: tuple[int, int],
    *,
    scale_factor: float | tuple[float, float] | None = None,
    mode: str = "bilinear",
    align_corners: bool = False,
    padding: int | Sequence[int] | str = "same",
    dilation: int | Sequence[int] = 1,
) -> Any:
    """The transpose of :func:`resize_conv2d` as a map of its weight.

    Parameters
    ----------
    grad : array, [N, Cout, Ho, Wo], float16/bfloat16/float32/float64
        Gradient with respect to the result.
    x : array, [N, C, h, w], dtype of grad
    kernel_size : pair (kh, kw)
    scale_factor : float or pair of float, optional
        As it was given to :func:`resize_conv2d`; None where ``size`` was given.
    mode, align_corners, padding, dilation
        As they were given.

    Returns
    -------
    array, [Cout, C, kh, kw], dtype and library of grad
        Zeros where N = 0.

    Raises
    ------
    TypeError, ValueError
        As :func:`resize_conv2d`.

    Notes
    -----
    With a simple factor the gradient of each phase's combined weights is a weight gradient of a small convolution,
    and what they were combined of is had back by the transposed combination: no enlarged image exists. On a GPU
    the phases of 16-bit arrays are rounded to 16 bits before they are summed in float32, and more than 40 phases are
    too many. Otherwise the enlarged image exists in slices of channels, as for :func:`resize_conv2d_adjoint_input`.
    The same bits from run to run.

    Examples
    --------
    >>> import numpy as np, cv3gpu
    >>> grad, x = np.array([[[[1.0, 0.0, 0.0, 0.0]]]]), np.array([[[[3.0, 5.0]]]])
    >>> cv3gpu.resize_conv2d_adjoint_weight(grad, x, (1, 3), mode="nearest")
    array([[[[0., 3., 3.]]]])
    """
    op = "resize_conv2d_adjoint_weight"
    _check.dtype(op, "grad", grad, DTYPES)
    _check.ndim(op, "grad", grad, 4, "[N, Cout, Ho, Wo]")
    _check.dtype(op, "x", x, DTYPES)
    _check.same_dtype(op, "x", x, "grad", grad)
    _check.ndim(op, "x", x, 4, "[N, C, h, w]")
    if x.shape[0] != grad.shape[0]:
        _check.fail(op, "x", f"have shape [{grad.shape[0]}, C, h, w]", tuple(x.shape))
    kernel = _check.pair(op, "kernel_size", kernel_size, 1)
    options = Options(scale_factor, mode, _corners(op, mode, align_corners))
    small = int(x.shape[2]), int(x.shape[3])
    problem = _of_gradient(op, grad, "x", small, kernel, padding, dilation, options)
    shape = grad.shape[1], x.shape[1], *kernel
    if 0 in (*grad.shape, *x.shape):
        return zeros(grad, shape)
    plans = _plans(grad, problem, False)
    if plans and on_gpu(grad) and len(plans[0].pieces) * len(plans[1].pieces) > MOST_PIECES:
        plans = None
    dtype = dtype_name(grad)
    if not on_gpu(grad):
        grad, x = _wide(grad), _wide(x)
    weight = zeros(grad, shape, "float64" if dtype == "float64" else "float32")
    if plans:
        _phases_of_weight(grad, x, weight, *plans)
    else:
        _slices_of_weight(grad, x, weight, problem)
    return astype(weight, dtype)


# ---- by phases ------------------------------------------------------------------------------------------


def _plans(x: Any, problem: Problem, transposed: bool) -> tuple[Plan, Plan] | None:
    """The phases of rows and of columns, where they are less work than the enlarged image."""
    sampling, single = problem.sampling, dtype_name(x) != "float64"
    axes = (sampling.h, problem.rows), (sampling.w, problem.cols)
    found = [plan(axis, sampling.taps, single, tap, transposed) for axis, tap in axes]
    rows, cols = found
    if rows is None or cols is None:
        return None
    images = int(x.shape[0])
    phased = rows.work * cols.work * images
    taps = problem.rows.taps * problem.cols.taps
    whole = math.prod(problem.result) * taps * images
    kinds = sum(matrix.shape[1] for matrix in rows.matrices) * sum(matrix.shape[1] for matrix in cols.matrices)
    phased += kinds * taps
    if on_gpu(x):
        return (rows, cols) if phased <= GATHERING * whole else None
    phased += PIECE * len(rows.pieces) * len(cols.pieces)
    whole += math.prod(problem.large) * images * BLENDING
    return (rows, cols) if phased <= whole else None


def _window(x: Any, rows: Piece, cols: Piece, size: tuple[int, int]) -> tuple[Any, tuple[int, ...]] | None:
    """The elements that a piece of the results takes, and the zeros around them; None where it is all zeros."""
    cuts, pads = [], []
    for piece, length, n in zip((rows, cols), size, x.shape[2:], strict=True):
        low, high = piece.base, piece.base + (piece.results - 1) * piece.stride + length
        first, last = max(low, 0), min(high, int(n))
        if last <= first:
            return None
        cuts.append(slice(first, last))
        pads += [first - low, high - last]
    part = x[:, :, cuts[0], cuts[1]]
    if family(x) == "torch" and memory_format(x) == "nhwc":
        part = part.contiguous(memory_format=sys.modules["torch"].channels_last)
    return part, tuple(pads)


def _place(piece: Piece) -> slice:
    return slice(piece.first, piece.first + (piece.results - 1) * piece.step + 1, piece.step)


def _matrices(like: Any, axis: Plan) -> list[Any]:
    """The matrices of a plan as arrays of the library, device and dtype of the weights' sums; kept with the plan."""
    dtype = "float64" if dtype_name(like) == "float64" else "float32"
    key = family(like), str(getattr(like, "device", "")), dtype
    if key not in axis.held:
        axis.held[key] = [from_host(matrix.astype(dtype), like) for matrix in axis.matrices]
    return list(axis.held[key])


def _combined(weight: Any, rows: Any, cols: Any) -> Any:
    """The weights of a phase, [o, c, elements of rows, elements of columns]."""
    o, c, high, wide = weight.shape
    across = (weight.reshape(-1, wide) @ cols).reshape(o, c, high, -1).swapaxes(2, 3)
    return (across.reshape(-1, high) @ rows).reshape(o, c, cols.shape[1], -1).swapaxes(2, 3)


def _phases(x: Any, weight: Any, bias: Any, y: Any, rows: Plan, cols: Plan) -> None:
    """Each piece of ``y`` as a convolution of its part of ``x``."""
    down, across = _matrices(weight, rows), _matrices(weight, cols)
    combined: dict[tuple[int, int], Any] = {}
    for a, b in itertools.product(rows.pieces, cols.pieces):
        if (a.phase, b.phase) not in combined:
            combined[a.phase, b.phase] = _combined(weight, down[a.phase], across[b.phase])
        taps = combined[a.phase, b.phase]
        target = y[:, :, _place(a), _place(b)]
        window = _window(x, a, b, taps.shape[2:])
        if window is None:
            target[...] = 0 if bias is None else bias[:, None, None]
            continue
        part, pads = window
        target[...] = conv2d.plain(part, taps, bias, (a.stride, b.stride), pads)  # type: ignore[attr-defined]


def _phases_of_weight(grad: Any, x: Any, weight: Any, rows: Plan, cols: Plan) -> None:
    down, across = _matrices(weight, rows), _matrices(weight, cols)
    o, c, high, wide = weight.shape
    adjoint = conv2d_adjoint_weight.plain  # type: ignore[attr-defined]
    for a, b in itertools.product(rows.pieces, cols.pieces):
        m, k = down[a.phase], across[b.phase]
        window = _window(x, a, b, (m.shape[1], k.shape[1]))
        if window is None:
            continue
        part, pads = window
        found = adjoint(grad[:, :, _place(a), _place(b)], part, (m.shape[1], k.shape[1]), (a.stride, b.stride), pads)
        found = astype(found, dtype_name(weight)).swapaxes(2, 3).reshape(-1, m.shape[1]) @ m.swapaxes(0, 1)
        found = found.reshape(o, c, k.shape[1], high).swapaxes(2, 3).reshape(-1, k.shape[1]) @ k.swapaxes(0, 1)
        weight += found.reshape(o, c, high, wide)


# ---- in parts -------------------------------------------------------------------------------------------


def _wide(x: Any) -> Any:
    """16-bit arrays in float32."""
    return astype(x, "float32") if dtype_name(x) in SIXTEEN_BIT else x


def _bands(x: Any, weight: Any, bias: Any, y: Any, problem: Problem) -> None:
    """Rows of ``y`` from as many rows of the enlarged image as they need."""
    tap, (height, width) = problem.rows, problem.large
    reach = tap.dilation * (tap.taps - 1)
    step = max(4 * (reach + 1), BAND // (int(x.shape[1]) * width))
    columns = problem.cols.before, problem.cols.behind
    for n in range(int(x.shape[0])):
        for first in range(0, int(y.shape[2]), step):
            last = min(first + step, int(y.shape[2]))
            low, high = first - tap.before, last - tap.before + reach
            top, bottom = min(max(low, 0), height), min(max(high, 0), height)
            target = y[n : n + 1, :, first:last]
            if top == bottom:
                target[...] = 0 if bias is None else bias[:, None, None]
                continue
            part = _enlarged(x[n : n + 1], problem.sampling, top, bottom)
            pads = top - low, high - bottom, *columns
            target[...] = conv2d.plain(part, weight, bias, 1, pads, problem.dilation)  # type: ignore[attr-defined]


def _enlarged(x: Any, sampling: Sampling, top: int, bottom: int) -> Any:
    """Rows ``top`` to ``bottom`` of the enlarged image, as `interpolate` has them on a CPU."""
    values = _values(x)
    single, layout = values.dtype == np.float32, _layout(x)
    w = _matrix(sampling.w, sampling.taps, False, single, False)
    h = _matrix(sampling.h, sampling.taps, False, single, False)[top:bottom]
    first, last = int(h.indices.min()), int(h.indices.max()) + 1
    h, values = h[:, first:last], values[:, :, first:last]
    out = empty(values, (*values.shape[:2], bottom - top, sampling.w.n_out), layout=layout)
    h_axis = 1 if layout == "nchw" else 0

    def enlarge(part: np.ndarray, target: np.ndarray) -> None:
        target[...] = _along(h, _along(w, part, h_axis + 1), h_axis)

    each(enlarge, _pieces(values if layout == "nhwc" else np.ascontiguousarray(values), out, layout))
    return from_host(out, x)


def _slices(channels: int, like: Any, problem: Problem) -> Iterator[slice]:
    """Channels of the enlarged image that may exist at a time."""
    step = max(1, SLICE[on_gpu(like)] // max(1, int(like.shape[0]) * math.prod(problem.large)))
    for first in range(0, channels, step):
        yield slice(first, min(first + step, channels))


def _slices_of_input(grad: Any, weight: Any, x: Any, problem: Problem) -> None:
    """The gradient of the enlarged image, some channels at a time."""
    adjoint, resize = conv2d_adjoint_input.plain, interpolate_adjoint.plain  # type: ignore[attr-defined]
    for part in _slices(int(weight.shape[1]), grad, problem):
        large = adjoint(grad, weight[:, part], problem.large, 1, problem.padding, problem.dilation)
        x[:, part] = resize(large, problem.small, *problem.options)


def _slices_of_weight(grad: Any, x: Any, weight: Any, problem: Problem) -> None:
    adjoint, resize = conv2d_adjoint_weight.plain, interpolate.plain  # type: ignore[attr-defined]
    size = None if problem.options.scale_factor is not None else problem.large
    kernel = problem.rows.taps, problem.cols.taps
    for part in _slices(int(x.shape[1]), grad, problem):
        large = resize(x[:, part], size, *problem.options)
        weight[:, part] = adjoint(grad, large, kernel, 1, problem.padding, problem.dilation)
