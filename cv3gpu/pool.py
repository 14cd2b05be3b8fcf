"""Max pooling with the places of the maxima, unpooling, and the transposed maps of both.

An index names the pixel of a window, in one of two forms: flat in the plane, int64, as torch has it, or, for windows of
up to 256 pixels, as the position in the window, uint8, which is an eighth of the memory. What takes indices tells the
form by the dtype.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from . import _check, _njit, _pool_loops
from ._array import array_op, contiguous, dtype_name, empty, family, from_numpy, memory_format, on_gpu, pointer
from ._kernel import MAX_GRID_YZ, blocks, kernel
from ._threads import cores, each
from .resize import DTYPES, _like, _positive_pair, _values

__all__ = ["max_pool2d", "max_pool2d_adjoint", "max_unpool2d", "max_unpool2d_adjoint"]

INDICES = ("int64", "uint8")


class Window(NamedTuple):
    """Size, stride, padding and dilation of the windows, rows before columns."""

    kh: int
    kw: int
    sh: int
    sw: int
    ph: int
    pw: int
    dh: int
    dw: int


# ---- sizes and checks -----------------------------------------------------------------------------------


def window_of(op: str, kernel_size: Any, stride: Any, padding: Any, dilation: Any = 1) -> Window:
    """The windows of checked parameters."""
    size = _check.pair(op, "kernel_size", kernel_size, 1)
    steps = size if stride is None else _check.pair(op, "stride", stride, 1)
    around, spread = _check.pair(op, "padding", padding, 0), _check.pair(op, "dilation", dilation, 1)
    if around[0] > size[0] // 2 or around[1] > size[1] // 2:
        _check.fail(op, "padding", f"be at most half of kernel_size {size}", around)
    return Window(*size, *steps, *around, *spread)


def pooled_size(h: Any, w: Any, window: Window, ceil_mode: bool) -> tuple[Any, Any]:
    """Height and width of the maxima; the sizes may be symbolic integers of torch."""
    kh, kw, sh, sw, ph, pw, dh, dw = window

    def size(n: Any, k: int, s: int, p: int, d: int) -> Any:
        room = n + 2 * p - d * (k - 1) - 1
        out = (room + (s - 1 if ceil_mode else 0)) // s + 1
        return out - 1 if ceil_mode and (out - 1) * s >= n + p else out  # a window starts inside, or in front

    return size(h, kh, sh, ph, dh), size(w, kw, sw, pw, dw)


def unpooled_size(h: Any, w: Any, window: Window) -> tuple[Any, Any]:
    """Height and width that unpooling gives unasked."""
    return (h - 1) * window.sh - 2 * window.ph + window.kh, (w - 1) * window.sw - 2 * window.pw + window.kw


def _check_indices(op: str, x: Any, name: str, indices: Any, window: Window) -> None:
    _check.dtype(op, "indices", indices, INDICES)
    _check.shape(op, "indices", indices, tuple(x.shape), f"one for each element of {name}")
    if dtype_name(indices) == "uint8":
        _check_compact(op, "indices", "be int64", window)


def _check_compact(op: str, argument: str, requirement: str, window: Window) -> None:
    if window.kh * window.kw > 256:
        got = f"{window.kh} x {window.kw}"
        _check.fail(op, argument, f"{requirement} for windows of more than 256 pixels", got)


def _pooled_window(
    op: str,
    name: str,
    pooled: Any,
    input_size: tuple[int, int],
    kernel_size: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
) -> Window:
    """The windows over an image that gave as many maxima as ``pooled`` has elements, with or without ceil_mode."""
    window = window_of(op, kernel_size, stride, padding, dilation)
    sizes = {pooled_size(*input_size, window, ceil_mode) for ceil_mode in (False, True)}
    found = int(pooled.shape[2]), int(pooled.shape[3])
    if found not in {(a[0], b[1]) for a in sizes for b in sizes}:
        wanted = " or ".join(f"[N, C, {h}, {w}]" for h, w in sorted(sizes))
        _check.fail(op, name, f"have shape {wanted} for input_size {input_size}", tuple(pooled.shape))
    return window


# ---- the operators --------------------------------------------------------------------------------------


@array_op("x")
def max_pool2d(
    x: Any,
    kernel_size: int | tuple[int, int],
    stride: int | tuple[int, int] | None = None,
    padding: int | tuple[int, int] = 0,
    dilation: int | tuple[int, int] = 1,
    ceil_mode: bool = False,
    *,
    compact: bool = False,
) -> tuple[Any, Any]:
    """Largest value of each window, and where it is.

    ``values[n, c, i, j] = max over k, l of x[n, c, i s - p + k d, j s - p + l d]``, of stride s, padding p, dilation d,
    as :func:`torch.nn.functional.max_pool2d` has it, always with indices.

    Parameters
    ----------
    x : array, [N, C, H, W], float16/bfloat16/float32/float64
        Images, in either memory order.
    kernel_size : int or pair of int, pixels
        Height and width of the windows.
    stride : int or pair of int, pixels, optional
        Distance of the windows; None is ``kernel_size``.
    padding : int or pair of int, pixels
        By how much the first window reaches out of the image, at most half of ``kernel_size``.
    dilation : int or pair of int, pixels
        Distance of the elements of a window.
    ceil_mode : bool
        Whether a last window that reaches out of the padded image counts, if it starts in the image or in front of it.
    compact : bool
        Whether indices are positions in the window, ``k * kernel width + l``, as uint8: for windows of at most 256
        pixels. The operators that take indices know both forms by their dtype.

    Returns
    -------
    values : array, [N, C, Ho, Wo]
        Of x's dtype; channels-last in memory where x is.
    indices : array, [N, C, Ho, Wo], int64 or, if ``compact``, uint8
        ``row * W + column`` of the maximum in its plane; in the memory order of ``values``.

    Raises
    ------
    TypeError
        x is no array of these dtypes, or an option is of the wrong type.
    ValueError
        A wrong shape or option; an image too small for a window.

    Notes
    -----
    Of equal values the first counts, by rows; NaN is larger than every number, and the last NaN counts. What is outside
    of the image never does: a window that misses all pixels, which a dilation can make, has value -inf and index -1
    (``compact``: 0).
    Cost: x is read once, and the results are written. The same bits from run to run. The gradient is
    :func:`max_pool2d_adjoint`.

    References
    ----------
    V. Badrinarayanan et al., "SegNet: A Deep Convolutional Encoder-Decoder Architecture for Image Segmentation", TPAMI
    2017, section 3.

    Examples
    --------
    >>> import numpy as np
    >>> from cv3gpu.pool import max_pool2d
    >>> x = np.array([[[[1.0, 5.0, 2.0, 0.0], [3.0, 4.0, 8.0, 8.0]]]])
    >>> values, indices = max_pool2d(x, 2)
    >>> values, indices
    (array([[[[5., 8.]]]]), array([[[[1, 6]]]]))
    >>> max_pool2d(x, 2, compact=True)[1]
    array([[[[1, 2]]]], dtype=uint8)
    """
    op = "max_pool2d"
    _check.dtype(op, "x", x, DTYPES)
    _check.ndim(op, "x", x, 4, "[N, C, H, W]")
    window = window_of(op, kernel_size, stride, padding, dilation)
    _check.flag(op, "ceil_mode", ceil_mode)
    if _check.flag(op, "compact", compact):
        _check_compact(op, "compact", "be False", window)
    n, c, h, w = (int(k) for k in x.shape)
    if min(h, w) < 1:
        _check.fail(op, "x", "have positive height and width", (h, w))
    shape = (n, c, *pooled_size(h, w, window, ceil_mode))
    if min(shape[2:]) < 1:
        reach = (window.dh * (window.kh - 1) + 1, window.dw * (window.kw - 1) + 1)
        _check.fail(op, "x", f"have room for a window of {reach} with padding {window[4:6]}", (h, w))
    layout = _layout(x)
    dtype = "uint8" if compact else "int64"
    if 0 in shape:
        return empty(x, shape, layout=layout), empty(x, shape, dtype, layout)
    if on_gpu(x):
        x = _dense(x)
        values, indices = empty(x, shape, layout=layout), empty(x, shape, dtype, layout)
        _launch_pool(x, values, indices, window)
        return values, indices
    if family(x) == "torch" and layout == "nhwc" and not compact and window[6:] == (1, 1):
        functional = importlib.import_module("torch.nn.functional")  # the fastest channels last
        size, steps, around = window[:2], window[2:4], window[4:6]
        found = functional.max_pool2d(x.detach(), size, steps, around, 1, ceil_mode, return_indices=True)
        return found[0], found[1]
    source = _planes(_values(x), layout)
    values = np.empty(_planes_shape(shape, layout), source.dtype)
    indices = np.empty(values.shape, dtype)
    place = _taps(window, w)

    def pool(*piece: int) -> None:
        lanes = piece[-1] - piece[-2] if layout == "nhwc" else shape[3]
        tap = np.empty(lanes, np.int32)
        _compiled(_pool_loops.POOL, layout)(source, values, indices, tap, place, *piece, *window, compact)

    each(pool, _pieces(values.shape, layout))
    return _like(_images(values, shape, layout), x), from_numpy(_images(indices, shape, layout), x)


@array_op("grad", "indices")
def max_pool2d_adjoint(
    grad: Any,
    indices: Any,
    input_size: int | tuple[int, int],
    kernel_size: int | tuple[int, int],
    stride: int | tuple[int, int] | None = None,
    padding: int | tuple[int, int] = 0,
    dilation: int | tuple[int, int] = 1,
) -> Any:
    """The gradient of :func:`max_pool2d` with respect to its images.

    ``gx[n, c, p] = sum over the windows o with indices[n, c, o] = p of grad[n, c, o]``.

    Parameters
    ----------
    grad : array, [N, C, Ho, Wo], float16/bfloat16/float32/float64
        Gradient with respect to the values.
    indices : array, [N, C, Ho, Wo], int64 or uint8
        As :func:`max_pool2d` gave them, in either form.
    input_size : int or pair of int, pixels
        Height and width of the images.
    kernel_size, stride, padding, dilation
        As they were given to :func:`max_pool2d`.

    Returns
    -------
    array, [N, C, H, W]
        Of grad's dtype; channels-last in memory where grad is.

    Raises
    ------
    TypeError
        grad or indices is no array of these dtypes, or an option is of the wrong type.
    ValueError
        A wrong shape or option; on a CPU, an index that is not in its window.

    Notes
    -----
    A gather on a GPU: each pixel looks at the windows that cover it, in order, without atomics, so that the bits are
    the same from run to run. There, an index that is not in its window gives its gradient to no pixel. Sums are in
    float32 for 16-bit arrays. The map is linear in grad: its gradient is :func:`max_unpool2d_adjoint`.

    Examples
    --------
    >>> import numpy as np
    >>> from cv3gpu.pool import max_pool2d, max_pool2d_adjoint
    >>> values, indices = max_pool2d(np.array([[[[1.0, 5.0, 2.0]]]]), (1, 2), 1)
    >>> max_pool2d_adjoint(np.array([[[[1.0, 10.0]]]]), indices, (1, 3), (1, 2), 1)
    array([[[[ 0., 11.,  0.]]]])
    """
    op = "max_pool2d_adjoint"
    _check.dtype(op, "grad", grad, DTYPES)
    _check.ndim(op, "grad", grad, 4, "[N, C, Ho, Wo]")
    into = _positive_pair(op, "input_size", input_size)
    window = _pooled_window(op, "grad", grad, into, kernel_size, stride, padding, dilation)
    _check_indices(op, grad, "grad", indices, window)
    return _scattered(op, grad, indices, into, window, add=True)


@array_op("x", "indices")
def max_unpool2d(
    x: Any,
    indices: Any,
    kernel_size: int | tuple[int, int],
    stride: int | tuple[int, int] | None = None,
    padding: int | tuple[int, int] = 0,
    output_size: tuple[int, int] | None = None,
) -> Any:
    """Puts values back where :func:`max_pool2d` found them, and zeros elsewhere.

    Parameters
    ----------
    x : array, [N, C, Ho, Wo], float16/bfloat16/float32/float64
        Values, one for each window.
    indices : array, [N, C, Ho, Wo], int64 or uint8
        Where they go: the indices of :func:`max_pool2d`, in either form.
    kernel_size, stride, padding
        As they were given to :func:`max_pool2d`; there was no dilation.
    output_size : pair of int, pixels, optional
        Height H and width W of the result, less than a stride from the default, which is
        ``(Ho - 1) stride - 2 padding + kernel_size``. Pooling of sizes that are no multiple of the stride needs it.

    Returns
    -------
    array, [N, C, H, W]
        Of x's dtype; channels-last in memory where x is.

    Raises
    ------
    TypeError
        x or indices is no array of these dtypes, or an option is of the wrong type.
    ValueError
        A wrong shape or option; on a CPU, an index that is not in its window.

    Notes
    -----
    An index must lie in its own window (-1: nowhere). An index of an image of another width does not, and is refused
    here, where torch puts the value at a wrong place. On a GPU, which would have to wait for the answer, such a value
    is left out.
    Where windows overlap and several name one pixel, it takes the value of the last of them, by rows: as in torch on a
    CPU. On a GPU each pixel looks at the windows that cover it and is written once. The same bits from run to run.
    The gradient is :func:`max_unpool2d_adjoint`: each of the windows gets that of its pixel, as in torch.

    References
    ----------
    V. Badrinarayanan et al., "SegNet: A Deep Convolutional Encoder-Decoder Architecture for Image Segmentation", TPAMI
    2017, section 3 and figure 3.

    Examples
    --------
    >>> import numpy as np
    >>> from cv3gpu.pool import max_pool2d, max_unpool2d
    >>> values, indices = max_pool2d(np.array([[[[1.0, 5.0, 2.0], [3.0, 4.0, 8.0]]]]), 2)
    >>> max_unpool2d(values, indices, 2, output_size=(2, 3))
    array([[[[0., 5., 0.],
             [0., 0., 0.]]]])
    """
    op = "max_unpool2d"
    _check.dtype(op, "x", x, DTYPES)
    _check.ndim(op, "x", x, 4, "[N, C, Ho, Wo]")
    window = window_of(op, kernel_size, stride, padding)
    _check_indices(op, x, "x", indices, window)
    into = unpooled_size(int(x.shape[2]), int(x.shape[3]), window)
    if output_size is not None:
        given = _positive_pair(op, "output_size", output_size)
        if any(abs(a - b) >= s for a, b, s in zip(given, into, window[2:4], strict=True)):
            _check.fail(op, "output_size", f"be less than a stride {window[2:4]} from {into}", given)
        into = given
    if min(into) < 1 or min(x.shape[2:]) < 1:
        _check.fail(op, "x", "give an image with pixels", f"{tuple(x.shape)} for windows of {window[:2]}")
    return _scattered(op, x, indices, into, window, add=False)


@array_op("grad", "indices")
def max_unpool2d_adjoint(
    grad: Any,
    indices: Any,
    kernel_size: int | tuple[int, int],
    stride: int | tuple[int, int] | None = None,
    padding: int | tuple[int, int] = 0,
    dilation: int | tuple[int, int] = 1,
) -> Any:
    """Takes values from where indices point: ``y[n, c, o] = grad[n, c, indices[n, c, o]]``.

    The gradient of :func:`max_unpool2d` with respect to its values, and the transpose of :func:`max_pool2d_adjoint`.

    Parameters
    ----------
    grad : array, [N, C, H, W], float16/bfloat16/float32/float64
        Gradient with respect to the images.
    indices : array, [N, C, Ho, Wo], int64 or uint8
        As :func:`max_pool2d` gave them, in either form.
    kernel_size, stride, padding, dilation
        As they were given to the operator whose gradient this is.

    Returns
    -------
    array, [N, C, Ho, Wo]
        Of grad's dtype; channels-last in memory where grad is. Zero where an index is -1.

    Raises
    ------
    TypeError
        grad or indices is no array of these dtypes, or an option is of the wrong type.
    ValueError
        A wrong shape or option; on a CPU, an index that is not in its window (on a GPU it gives zero).

    Examples
    --------
    >>> import numpy as np
    >>> from cv3gpu.pool import max_unpool2d_adjoint
    >>> max_unpool2d_adjoint(np.array([[[[3.0, 4.0, 5.0, 6.0]]]]), np.array([[[[1, 2]]]]), (1, 2))
    array([[[[4., 5.]]]])
    """
    op = "max_unpool2d_adjoint"
    _check.dtype(op, "grad", grad, DTYPES)
    _check.ndim(op, "grad", grad, 4, "[N, C, H, W]")
    _check.dtype(op, "indices", indices, INDICES)
    n, c, h, w = (int(k) for k in grad.shape)
    _check.shape(op, "indices", indices, [n, c, "Ho", "Wo"], "the batch and channels of grad")
    window = window_of(op, kernel_size, stride, padding, dilation)
    _check_indices(op, indices, "indices", indices, window)
    shape, layout = tuple(int(k) for k in indices.shape), _layout(grad)
    if 0 in shape:
        return empty(grad, shape, layout=layout)
    if min(h, w) < 1:
        _check.fail(op, "grad", "have positive height and width", (h, w))
    if on_gpu(grad):
        grad, indices = _dense(grad), _as_layout(indices, layout)
        out = empty(grad, shape, layout=layout)
        _launch_gather(grad, indices, out, window)
        return out
    source, given = _planes(_values(grad), layout), _planes(_values_of_indices(indices), layout)
    values = np.empty(_planes_shape(shape, layout), source.dtype)
    flat = source.reshape(source.shape[0], h * w, *source.shape[3:])
    compact, place = given.dtype == np.uint8, _taps(window, w)

    def gather(*piece: int) -> int:
        lost = np.empty(1, np.int64)
        return _compiled(_pool_loops.GATHER, layout)(flat, given, place, values, lost, h, w, *piece, *window, compact)

    _refuse_bad(op, given, each(gather, _pieces(values.shape, layout)), (h, w), window)
    return _like(_images(values, shape, layout), grad)


def _scattered(op: str, x: Any, indices: Any, into: tuple[int, int], window: Window, add: bool) -> Any:
    shape, layout = (int(x.shape[0]), int(x.shape[1]), *into), _layout(x)
    if 0 in shape:
        return empty(x, shape, layout=layout)
    if on_gpu(x):
        x, indices = _dense(x), _as_layout(indices, layout)
        out = empty(x, shape, layout=layout)
        _launch_scatter(x, indices, out, window, add)
        return out
    source, given = _planes(_values(x), layout), _planes(_values_of_indices(indices), layout)
    out = np.empty(_planes_shape(shape, layout), source.dtype)
    flat = out.reshape(out.shape[0], into[0] * into[1], *out.shape[3:])
    compact, place = given.dtype == np.uint8, _taps(window, into[1])

    def scatter(*piece: int) -> int:
        options, lost = (*window, compact, add), np.empty(1, np.int64)
        return _compiled(_pool_loops.SCATTER, layout)(source, given, place, flat, lost, *into, *piece, *options)

    _refuse_bad(op, given, each(scatter, _pieces(source.shape, layout)), into, window)
    return _like(_images(out, shape, layout), x)


def _refuse_bad(op: str, indices: np.ndarray, found: list[int], size: tuple[int, int], window: Window) -> None:
    bad = [place for place in found if place >= 0]
    if bad:
        wanted = f"point into their windows of {window[:2]} in an image of {size}"
        _check.fail(op, "indices", wanted, indices.reshape(-1)[min(bad)], "is the size of the image another one?")


# ---- layouts --------------------------------------------------------------------------------------------


def _layout(x: Any) -> str:
    return "nhwc" if memory_format(x) == "nhwc" else "nchw"


def _dense(x: Any) -> Any:
    return contiguous(x) if memory_format(x) == "strided" else x


def _as_layout(x: Any, layout: str) -> Any:
    """The array dense in that memory order; itself where it is."""
    found = memory_format(x)
    if found == layout:
        return x
    if layout == "nchw":
        return contiguous(x)
    to, back = (0, 2, 3, 1), (0, 3, 1, 2)
    torch_like = family(x) == "torch"
    flat = contiguous(x.permute(*to) if torch_like else x.transpose(*to))
    return flat.permute(*back) if torch_like else flat.transpose(*back)


# ---- CPU path -------------------------------------------------------------------------------------------

PIECE = 2**19  # windows of a piece: their work, about a millisecond, is several times what it costs to wake a thread


def _compiled(loops: tuple[Any, Any], layout: str) -> Callable[..., Any]:
    return _njit.compiled(*loops[layout == "nhwc"])


def _values_of_indices(indices: Any) -> np.ndarray:
    return indices.detach().numpy() if family(indices) == "torch" else indices


def _taps(window: Window, width: int) -> np.ndarray:
    """How far each tap lies behind the start of its window, flat in the plane."""
    return np.add.outer(np.arange(window.kh) * window.dh * width, np.arange(window.kw) * window.dw).ravel()


def _planes(x: np.ndarray, layout: str) -> np.ndarray:
    """Dense, [N C, H, W] or [N, H, W, C]."""
    if layout == "nhwc":
        return np.ascontiguousarray(x.transpose(0, 2, 3, 1))
    return np.ascontiguousarray(x).reshape(-1, *x.shape[2:])


def _planes_shape(shape: tuple[int, ...], layout: str) -> tuple[int, ...]:
    n, c, h, w = shape
    return (n, h, w, c) if layout == "nhwc" else (n * c, h, w)


def _images(planes: np.ndarray, shape: tuple[int, ...], layout: str) -> np.ndarray:
    """What `_planes` came from."""
    return planes.transpose(0, 3, 1, 2) if layout == "nhwc" else planes.reshape(shape)


def _pieces(shape: tuple[int, ...], layout: str) -> Iterator[tuple[int, ...]]:
    """Ranges of planes, or an image and a range of its channels, that threads can do on their own."""
    if layout == "nchw":
        planes, count = shape[0], min(4 * cores(), blocks(math.prod(shape), PIECE))
        if count > 1:
            count = cores() * blocks(count, cores())  # all have the same to do
        step = blocks(planes, min(planes, count))
        for first in range(0, planes, step):
            yield first, min(planes, first + step)
        return
    n, *_, c = shape
    step = c if n >= cores() or c < 32 * cores() else 16 * blocks(c, 16 * cores())
    for image in range(n):
        for first in range(0, c, step):
            yield image, first, min(c, first + step)


# ---- GPU path -------------------------------------------------------------------------------------------

BLOCK = 256
ENOUGH_BLOCKS = 2**14  # more of them than this, and each does several planes instead


def _planes_and_channels(shape: tuple[int, ...], layout: str) -> tuple[int, int]:
    n, c = shape[:2]
    return (n, c) if layout == "nhwc" else (n * c, 1)


def _size(x: Any) -> tuple[int, int]:
    return int(x.shape[2]), int(x.shape[3])


def _kernel_of(name: str, x: Any, indices: Any) -> Any:
    return kernel("pool.cu", name, real=dtype_name(x), INDEX=indices.itemsize)


def _grid(lanes: int, planes: int) -> tuple[int, int]:
    across = blocks(lanes, BLOCK)
    return across, min(planes, MAX_GRID_YZ, max(1, ENOUGH_BLOCKS // across))


def _side_by_side(window: Window, image: tuple[int, int], pooled: tuple[int, int]) -> bool:
    """Whether windows are 2 x 2 pixels, side by side and inside, and whole rows can move in vectors."""
    inside = 2 * pooled[0] <= image[0] and 2 * pooled[1] == image[1]
    return window == (2, 2, 2, 2, 0, 0, 1, 1) and inside


def _moves(x: Any, row: int, elements: int) -> bool:
    """Whether rows, or channels, can move so many elements at a time, in accesses of up to 16 bytes."""
    return row % elements == 0 and pointer(x).address % min(16, elements * x.itemsize) == 0


def _ways(name: str, layout: str, image: Any, pooled: Any, indices: Any, window: Window) -> tuple[str, int, int]:
    """The kernel for arrays of a layout, how many planes they have, and channels, or vectors of them."""
    wide = 16 // image.itemsize
    planes, channels = _planes_and_channels(tuple(image.shape), layout)
    if channels > 1:
        vectors = all(_moves(x, channels, wide) for x in (image, pooled, indices))
        return (f"{name}_wide", planes, channels // wide) if vectors else (name, planes, channels)
    size, small = _size(image), _size(pooled)
    halves = all(_moves(x, small[1], wide // 2) for x in (pooled, indices))
    pairs = halves and _moves(image, size[1], wide) and _side_by_side(window, size, small)
    return (f"{name}_pairs" if pairs else name), planes, 1


def _launch_pool(x: Any, values: Any, indices: Any, window: Window) -> None:
    name, planes, channels = _ways("max_pool", _layout(x), x, values, indices, window)
    (h, w), (out_h, out_w) = _size(x), _size(values)
    lanes = out_h * (w * x.itemsize // 16 if name.endswith("pairs") else out_w * channels)
    launch = _kernel_of(name, x, indices)
    launch(_grid(lanes, planes), BLOCK, x, values, indices, planes, channels, h, w, out_h, out_w, *window)


def _launch_scatter(x: Any, indices: Any, out: Any, window: Window, add: bool) -> None:
    name, planes, channels = _ways("max_unpool", _layout(x), out, x, indices, window)
    (h, w), (out_h, out_w) = _size(out), _size(x)
    if add and not name.endswith("pairs"):
        name = name.replace("max_unpool", "max_pool_adjoint")
    lanes = blocks(h, 2) * (w * x.itemsize // 16) if name.endswith("pairs") else h * w * channels
    launch = _kernel_of(name, x, indices)
    launch(_grid(lanes, planes), BLOCK, x, indices, out, planes, channels, h, w, out_h, out_w, *window)


def _launch_gather(grad: Any, indices: Any, out: Any, window: Window) -> None:
    planes, channels = _planes_and_channels(tuple(grad.shape), _layout(grad))
    (h, w), (out_h, out_w) = _size(grad), _size(out)
    launch = _kernel_of("max_unpool_adjoint", grad, indices)
    grid = _grid(out_h * out_w * channels, planes)
    launch(grid, BLOCK, grad, indices, out, planes, channels, h, w, out_h, out_w, *window)
