"""PSPNet's pyramid: means of an image over bins, small maps of them, and the convolution of the enlarged maps.

The maps are tiny, and bilinear enlargement is linear and has no say in the channels. So the convolution of image and
enlarged maps side by side is that of the image plus a product of small matrices, and the enlarged maps never exist.
"""

from __future__ import annotations

import functools
import itertools
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from . import _check, conv
from ._array import (
    array_op,
    check_beside,
    contiguous,
    device_of,
    dtype_name,
    empty,
    family,
    from_host,
    memory_format,
    module,
    on_gpu,
    strides,
)
from ._kernel import MAX_GRID_YZ, blocks, kernel
from ._threads import each
from .resize import _axis, _like, _matrix, _positive_pair, _values, interpolate

__all__ = [
    "Pointwise",
    "pyramid_conv2d",
    "pyramid_expand",
    "pyramid_expand_adjoint",
    "pyramid_maps",
    "pyramid_pool",
    "pyramid_pool_adjoint",
    "pyramid_pooling",
]

LARGEST_BIN = 32
LARGEST_KERNEL = 7


class Pointwise(NamedTuple):
    """A 1 x 1 convolution and what follows: ``activation(scale * (weight x) + bias)``, all but the weight optional."""

    weight: Any  # [Cout, C, 1, 1]
    scale: Any = None  # [Cout]
    bias: Any = None  # [Cout]
    activation: str | None = None


# ---- checks ---------------------------------------------------------------------------------------------


def check_like(op: str, argument: str, value: Any, x: Any) -> None:
    """An array of x's library, device and dtype."""
    check_beside(op, argument, value, "x", x)
    _check.same_dtype(op, argument, value, "x", x)


def listed(op: str, argument: str, values: Any, count: int | None, each: str) -> list[Any]:
    """A sequence of one element for each of something, as a list."""
    if not isinstance(values, Sequence) or isinstance(values, str):
        _check.fail(op, argument, f"be a list, one element for each {each}", _check.kind(values), error=TypeError)
    if not values or count not in (None, len(values)):
        wanted = "not be empty" if count is None else f"have {count} elements, one for each {each}"
        _check.fail(op, argument, wanted, len(values))
    return list(values)


def check_vectors(op: str, argument: str, values: Any, x: Any, weights: list[Any]) -> list[Any]:
    """One vector [Cout] for each weight; none of them where None is given."""
    if values is None:
        return []
    found = listed(op, argument, values, len(weights), "weight")
    for i, (value, weight) in enumerate(zip(found, weights, strict=True)):
        check_like(op, f"{argument}[{i}]", value, x)
        _check.shape(op, f"{argument}[{i}]", value, [weight.shape[0]])
    return found


def check_activation(op: str, argument: str, activation: Any) -> str | None:
    """The name of an activation, or None."""
    return None if activation is None else _check.choice(op, argument, activation, conv.ACTIVATIONS)


def check_image(op: str, argument: str, x: Any) -> None:
    """Images with channels and pixels."""
    _check.dtype(op, argument, x, conv.DTYPES)
    _check.ndim(op, argument, x, 4, "[N, C, H, W]")
    if min(x.shape[1:]) < 1:
        _check.fail(op, argument, "have channels, rows and columns", tuple(x.shape))


def check_bins(op: str, bins: Any) -> tuple[int, ...]:
    """Sizes of bins."""
    return tuple(_check.integer(op, "bins", b, 1, LARGEST_BIN) for b in listed(op, "bins", bins, None, "bin"))


def cells_of(bins: Sequence[int]) -> int:
    """How many cells the bins have."""
    return sum(b * b for b in bins)


def _check_kernel_size(op: str, argument: str, size: Sequence[int]) -> tuple[int, int]:
    rows, cols = (int(k) for k in size)
    if min(rows, cols) < 1 or max(rows, cols) > LARGEST_KERNEL or rows % 2 == 0 or cols % 2 == 0:
        _check.fail(op, argument, f"have an odd height and width of at most {LARGEST_KERNEL}", (rows, cols))
    return rows, cols


# ---- means over bins ------------------------------------------------------------------------------------


@array_op("x")
def pyramid_pool(x: Any, bins: Sequence[int] = (1, 2, 3, 6)) -> Any:
    """Means of an image over the cells of several bins, all in one pass.

    Bin b has b x b cells; cell (i, j) has rows ``floor(i H / b)`` to ``ceil((i + 1) H / b) - 1`` and columns likewise,
    as :func:`torch.nn.functional.adaptive_avg_pool2d` has them.

    Parameters
    ----------
    x : array, [N, C, H, W], float16/bfloat16/float32/float64
        Images, in either memory order.
    bins : sequence of int, 1 to 32
        Sizes of the bins.

    Returns
    -------
    array, [N, C, sum(b * b), 1], dtype and library of x
        The bins one after the other, each by rows; channels last if x is.

    Raises
    ------
    TypeError
        x is no array of these dtypes, or bins are no integers.
    ValueError
        A wrong shape, an image without pixels, a bin of another size.

    Notes
    -----
    Cost: x is read once, whatever the number of bins: the edges of all bins cut it into rectangles, and cells are
    sums of these. Sums are in float32 (float64 for float64), in a fixed order: the same bits from run to run. The
    gradient is :func:`pyramid_pool_adjoint`.

    Examples
    --------
    >>> import numpy as np
    >>> from cv3gpu.pyramid import pyramid_pool
    >>> pyramid_pool(np.arange(9.0).reshape(1, 1, 3, 3), (1, 2)).ravel()
    array([4., 2., 3., 5., 6.])
    """
    op = "pyramid_pool"
    check_image(op, "x", x)
    bins = check_bins(op, bins)
    n, c, h, w = (int(k) for k in x.shape)
    layout = "nhwc" if memory_format(x) == "nhwc" else "nchw"
    out = empty(x, (n, c, cells_of(bins), 1), layout=layout)
    if n == 0:
        return out
    if on_gpu(x):
        _launch_pool(x, out, bins, layout)
        return out
    values = _values(x)
    found = empty(values, (n, c, cells_of(bins), 1), layout=layout)
    rows, cols = _edges(h, bins), _edges(w, bins)

    def pool(image: int) -> None:
        a = 1 if layout == "nchw" else 0  # the axis of rows; a plane's pixels stay as they are in memory
        source = values[image] if layout == "nchw" else values[image].transpose(1, 2, 0)
        target = found[image, :, :, 0] if layout == "nchw" else found[image, :, :, 0].T
        parts = _sums(_sums(source, rows, a), cols, a + 1)
        for place, (top, bottom), (left, right) in _cells(bins, h, w):
            r0, r1, c0, c1 = (edges.index(v) for edges, v in ((rows, top), (rows, bottom), (cols, left), (cols, right)))
            cell = (slice(None),) * a + (slice(r0, r1), slice(c0, c1))
            mean = parts[cell].sum((a, a + 1)) / ((bottom - top) * (right - left))
            target[(slice(None),) * a + (place,)] = mean

    each(pool, ((image,) for image in range(n)))
    return _like(found, x)


@array_op("grad")
def pyramid_pool_adjoint(grad: Any, input_size: int | tuple[int, int], bins: Sequence[int] = (1, 2, 3, 6)) -> Any:
    """The transpose of :func:`pyramid_pool`: the gradient with respect to its images.

    Parameters
    ----------
    grad : array, [N, C, sum(b * b), 1], float16/bfloat16/float32/float64
        Gradient with respect to the means.
    input_size : int or pair of int, pixels
        Height and width of the images.
    bins : sequence of int
        As it was given to :func:`pyramid_pool`.

    Returns
    -------
    array, [N, C, H, W], dtype and library of grad
        Channels last if grad is.

    Raises
    ------
    TypeError, ValueError
        As :func:`pyramid_pool`, and where grad does not fit.

    Notes
    -----
    Each pixel takes from the cells that it is in, without atomics: the same bits from run to run. The map is linear:
    its gradient is :func:`pyramid_pool`.

    Examples
    --------
    >>> import numpy as np
    >>> from cv3gpu.pyramid import pyramid_pool_adjoint
    >>> pyramid_pool_adjoint(np.ones((1, 1, 5, 1)), (3, 3), (1, 2)).sum()
    np.float64(5.0)
    """
    op = "pyramid_pool_adjoint"
    _check.dtype(op, "grad", grad, conv.DTYPES)
    bins = check_bins(op, bins)
    _check.shape(op, "grad", grad, ["N", "C", cells_of(bins), 1])
    h, w = _positive_pair(op, "input_size", input_size)
    n, c = (int(k) for k in grad.shape[:2])
    layout = "nhwc" if memory_format(grad) == "nhwc" else "nchw"
    if 0 in (n, c):
        return empty(grad, (n, c, h, w), layout=layout)
    if on_gpu(grad):
        out = empty(grad, (n, c, h, w), layout=layout)
        _launch_pool_adjoint(grad, out, bins, layout)
        return out
    values = _values(grad)
    found = empty(values, (n, c, h, w), layout=layout)
    rows, cols = _edges(h, bins), _edges(w, bins)
    parts = np.zeros((n, c, len(rows) - 1, len(cols) - 1), values.dtype)
    for place, (top, bottom), (left, right) in _cells(bins, h, w):
        r0, r1, c0, c1 = rows.index(top), rows.index(bottom), cols.index(left), cols.index(right)
        parts[:, :, r0:r1, c0:c1] += values[:, :, place, :, None] / ((bottom - top) * (right - left))
    for i, (top, bottom) in enumerate(itertools.pairwise(rows)):
        found[:, :, top:bottom] = np.repeat(parts[:, :, i], np.diff(cols), axis=2)[:, :, None]
    return _like(found, grad)


def _edges(n: int, bins: Sequence[int]) -> list[int]:
    """Where some cell of an axis of n pixels begins or ends."""
    return sorted({(i * n + up) // b for b in bins for i in range(b + 1) for up in (0, b - 1)})


def _cells(bins: Sequence[int], h: int, w: int) -> Iterator[tuple[int, tuple[int, int], tuple[int, int]]]:
    """Each cell's place, rows and columns."""
    place = 0
    for b in bins:
        for i in range(b):
            for j in range(b):
                yield place, (i * h // b, -(-(i + 1) * h // b)), (j * w // b, -(-(j + 1) * w // b))
                place += 1


def _sums(x: np.ndarray, edges: list[int], axis: int) -> np.ndarray:
    """Sums between the edges of one axis."""
    before = (slice(None),) * axis
    parts = [x[(*before, slice(a, b))].sum(axis) for a, b in itertools.pairwise(edges)]
    return np.stack(parts, axis)


# ---- the pyramid ----------------------------------------------------------------------------------------


@array_op("x")
def pyramid_pooling(
    x: Any,
    weights: Sequence[Any],
    biases: Sequence[Any] | None = None,
    *,
    scales: Sequence[Any] | None = None,
    activation: str | None = None,
    bins: Sequence[int] = (1, 2, 3, 6),
    align_corners: bool = True,
) -> Any:
    r"""PSPNet's pyramid pooling: x, and maps of its means over bins, enlarged to its size, as further channels.

    .. math:: y = [x, U_1 f(s_1 \cdot (w_1 P_1 x) + b_1), U_2 f(s_2 \cdot (w_2 P_2 x) + b_2), \ldots]

    with the means P of :func:`pyramid_pool` and bilinear enlargement U.

    Parameters
    ----------
    x : array, [N, C, H, W], float16/bfloat16/float32/float64
        Images, in either memory order.
    weights : sequence of array, [K, C, 1, 1], dtype of x
        One for each bin; K may differ.
    biases, scales : sequence of array, [K], dtype of x, optional
        Together a folded batch norm.
    activation : {"relu", "relu6"}, optional
        f; the identity by default.
    bins : sequence of int, 1 to 32
        Sizes of the bins.
    align_corners : bool
        As for :func:`interpolate`.

    Returns
    -------
    array, [N, C + sum(K), H, W], dtype and library of x
        Channels last if x is.

    Raises
    ------
    TypeError
        An argument is no array or list, or of another library, device or dtype than x.
    ValueError
        A shape or a value does not fit.

    Notes
    -----
    For a convolution of the result :func:`pyramid_conv2d` of :func:`pyramid_maps` gives the same without the enlarged
    maps: for PSPNet's last one, 3 x 3 of 4096 channels, with half of the work. Gradients are those of torch, made of
    operators of this library. The same bits from run to run.

    References
    ----------
    .. [1] H. Zhao et al., "Pyramid scene parsing network", CVPR 2017, section 3.2.

    Examples
    --------
    >>> import numpy as np, cv3gpu
    >>> x = np.array([[[[0.0, 1.0, 2.0, 3.0]]]])
    >>> cv3gpu.pyramid_pooling(x, [np.array([[[[6.0]]]])], bins=(2,))[0, :, 0]
    array([[ 0.,  1.,  2.,  3.],
           [ 3.,  7., 11., 15.]])
    """
    return pooled(x, weights, biases, scales=scales, activation=activation, bins=bins, align_corners=align_corners)


def pooled(
    x: Any,
    weights: Any,
    biases: Any = None,
    *,
    scales: Any = None,
    activation: Any = None,
    bins: Any = (1, 2, 3, 6),
    align_corners: Any = True,
) -> Any:
    """What :func:`pyramid_pooling` is made of: in torch, operators with gradients."""
    op = "pyramid_pooling"
    _check.flag(op, "align_corners", align_corners)
    small = maps_of(op, x, weights, biases, scales, activation, bins)
    size = x.shape[2], x.shape[3]
    options = {"mode": "bilinear", "align_corners": align_corners}
    if family(x) == "torch":
        y = concatenated([x, *(interpolate(m, size, **options) for m in small)], 1)
        return y.contiguous(memory_format=conv._torch_format(_layout(x)))
    n, c, h, w = x.shape
    out = empty(x, (n, c + sum(m.shape[1] for m in small), h, w), layout=_layout(x))
    out[:, :c] = x
    for m in small:
        out[:, c : c + m.shape[1]] = interpolate(m, size, **options)
        c += m.shape[1]
    return out


@array_op("x")
def pyramid_maps(
    x: Any,
    weights: Sequence[Any],
    biases: Sequence[Any] | None = None,
    *,
    scales: Sequence[Any] | None = None,
    activation: str | None = None,
    bins: Sequence[int] = (1, 2, 3, 6),
) -> list[Any]:
    """The small maps of :func:`pyramid_pooling`: ``f(scale * (weight P x) + bias)`` of each bin.

    Parameters
    ----------
    x, weights, biases, scales, activation, bins
        As for :func:`pyramid_pooling`.

    Returns
    -------
    list of array, [N, K, b, b], dtype and library of x
        One for each bin.

    Raises
    ------
    TypeError, ValueError
        As :func:`pyramid_pooling`.

    Examples
    --------
    >>> import numpy as np
    >>> from cv3gpu.pyramid import pyramid_maps
    >>> x = np.array([[[[0.0, 1.0, 2.0, 3.0]]]])
    >>> [m.tolist() for m in pyramid_maps(x, [np.array([[[[10.0]]]])] * 2, bins=(1, 2))]
    [[[[[15.0]]]], [[[[5.0, 25.0], [5.0, 25.0]]]]]
    """
    return maps_of("pyramid_maps", x, weights, biases, scales, activation, bins)


def maps_of(op: str, x: Any, weights: Any, biases: Any, scales: Any, activation: Any, bins: Any) -> list[Any]:
    """What :func:`pyramid_maps` is made of: in torch, operators with gradients."""
    check_image(op, "x", x)
    sizes = check_bins(op, bins)
    found = listed(op, "weights", weights, len(sizes), "bin")
    for i, weight in enumerate(found):
        check_like(op, f"weights[{i}]", weight, x)
        _check.shape(op, f"weights[{i}]", weight, ["K", x.shape[1], 1, 1], "C as x has it")
    shifts = check_vectors(op, "biases", biases, x, found) or [None] * len(sizes)
    factors = check_vectors(op, "scales", scales, x, found) or [None] * len(sizes)
    check_activation(op, "activation", activation)
    means, n, maps, first = pyramid_pool(x, sizes), x.shape[0], [], 0
    for b, weight, factor, shift in zip(sizes, found, factors, shifts, strict=True):
        cells = channels_dense(means[:, :, first : first + b * b].reshape(n, x.shape[1], b, b))
        maps.append(pointwise(cells, Pointwise(weight, factor, shift, activation)))
        first += b * b
    return maps


def channels_dense(x: Any) -> Any:
    """A part of an array whose channels are last as an array of that kind; any other as it is."""
    if strides(x)[1] != 1 or memory_format(x) != "strided":
        return x
    if family(x) == "torch":
        return x.contiguous(memory_format=conv._torch_format("nhwc"))
    return contiguous(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)


def pointwise(x: Any, layer: Pointwise) -> Any:
    """A 1 x 1 convolution and what follows of an image of few pixels."""
    return conv.conv2d(x, layer.weight, layer.bias, scale=layer.scale, activation=layer.activation)


def concatenated(arrays: list[Any], axis: int) -> Any:
    """The arrays one after the other; torch.compile follows this, and not importlib."""
    if family(arrays[0]) == "torch":
        return sys.modules["torch"].cat(arrays, axis)
    return module(arrays[0]).concatenate(arrays, axis)


def _layout(x: Any) -> str:
    return "nhwc" if memory_format(x) == "nhwc" else "nchw"


# ---- the convolution of image and enlarged maps -----------------------------------------------------------


@array_op("x", "weight", "bias", "scale")
def pyramid_conv2d(
    x: Any,
    pooled_maps: Sequence[Any],
    weight: Any,
    bias: Any = None,
    *,
    align_corners: bool = True,
    scale: Any = None,
    activation: str | None = None,
) -> Any:
    r"""Convolution of an image and of enlarged maps, side by side, without the enlarged maps.

    .. math:: y = f(s \cdot \mathrm{conv2d}([x, U_1 m_1, U_2 m_2, \ldots], w) + b), \quad
        \mathrm{conv2d}(U m, w)[p, q] = \sum_{r, t} (U (w_{rt} m))[p + r - R/2, q + t - T/2]

    with zeros around the large image: each tap's weight is applied to the small map, and what is enlarged is the
    product, at each pixel where it is needed.

    Parameters
    ----------
    x : array, [N, C, H, W], float16/bfloat16/float32/float64
        Images, in either memory order.
    pooled_maps : sequence of array, [N, K, b, b], dtype of x
        Small square maps, b from 1 to 32, as :func:`pyramid_maps` gives them.
    weight : array, [Cout, C + sum(K), kh, kw], dtype of x
        Height and width odd, at most 7; padding keeps the size.
    bias, scale : array, [Cout], dtype of x, optional
        Together a folded batch norm.
    align_corners : bool
        As for :func:`interpolate`.
    activation : {"relu", "relu6"}, optional
        f; the identity by default.

    Returns
    -------
    array, [N, Cout, H, W], dtype and library of x
        Channels last if x is.

    Raises
    ------
    TypeError
        An argument is no array or list, or of another library, device or dtype than x.
    ValueError
        A shape or a value does not fit.

    Notes
    -----
    Cost: 2 N H W Cout C kh kw flop for x, 2 N Cout K b^2 kh kw for a map of b x b, and 4 kh for each map at each
    element of the result: of PSPNet's last convolution (4096 channels, of which 2048 enlarged), half of the work.
    Exact but for rounding; 16-bit arrays are rounded after the convolution of x, after the products with the maps,
    and at the end. Gradients are those of torch, made of operators of this library. The same bits from run to run.

    References
    ----------
    .. [1] H. Zhao et al., "Pyramid scene parsing network", CVPR 2017, section 3.2.

    Examples
    --------
    >>> import numpy as np, cv3gpu
    >>> x, maps = np.zeros((1, 1, 1, 5)), [np.array([[[[4.0]]]])]
    >>> cv3gpu.pyramid_conv2d(x, maps, np.ones((1, 2, 1, 3)))
    array([[[[ 8., 12., 12., 12.,  8.]]]])
    """
    return convolved(x, pooled_maps, weight, bias, align_corners=align_corners, scale=scale, activation=activation)


def convolved(
    x: Any,
    pooled_maps: Any,
    weight: Any,
    bias: Any = None,
    *,
    align_corners: Any = True,
    scale: Any = None,
    activation: Any = None,
) -> Any:
    """What :func:`pyramid_conv2d` is made of: in torch, operators with gradients."""
    op = "pyramid_conv2d"
    check_image(op, "x", x)
    n, channels = x.shape[:2]
    maps = listed(op, "pooled_maps", pooled_maps, None, "bin")
    for i, m in enumerate(maps):
        check_like(op, f"pooled_maps[{i}]", m, x)
        _check.shape(op, f"pooled_maps[{i}]", m, [n, "K", "b", "b"])
        if m.shape[2] != m.shape[3] or not 1 <= m.shape[2] <= LARGEST_BIN:
            _check.fail(op, f"pooled_maps[{i}]", f"be square, of 1 to {LARGEST_BIN} pixels a side", tuple(m.shape))
    check_like(op, "weight", weight, x)
    _check.shape(op, "weight", weight, ["Cout", channels + sum(m.shape[1] for m in maps), "kh", "kw"])
    size = _check_kernel_size(op, "weight", weight.shape[2:])
    _check.flag(op, "align_corners", align_corners)
    _check_finish(op, x, scale, bias, activation, weight.shape[0])
    rows, cols = size
    out, products, first = weight.shape[0], [], channels
    for m in maps:
        part = _moved(weight[:, first : first + m.shape[1]], (0, 2, 3, 1)).reshape(out * rows * cols, m.shape[1], 1, 1)
        products.append(conv.conv2d(m, part).reshape(n, out, rows * cols * m.shape[2] * m.shape[3]))
        first += m.shape[1]
    z = concatenated(products, 2)
    y = conv.conv2d(x, weight[:, :channels], None, 1, (rows // 2, cols // 2))
    bins = [int(m.shape[2]) for m in maps]
    return pyramid_expand(y, z, bins, size, align_corners, scale, bias, activation)


def _moved(x: Any, order: tuple[int, ...]) -> Any:
    return x.permute(order) if family(x) == "torch" else x.transpose(order)


def _check_finish(op: str, x: Any, scale: Any, bias: Any, activation: Any, channels: Any) -> None:
    for name, vector in (("scale", scale), ("bias", bias)):
        if vector is not None:
            check_like(op, name, vector, x)
            _check.shape(op, name, vector, [channels])
    check_activation(op, "activation", activation)


@array_op("base", "z", "scale", "bias")
def pyramid_expand(
    base: Any,
    z: Any,
    bins: Sequence[int],
    kernel_size: tuple[int, int] = (3, 3),
    align_corners: bool = True,
    scale: Any = None,
    bias: Any = None,
    activation: str | None = None,
) -> Any:
    """Adds to an image what the taps of a convolution read of enlarged maps: the last step of :func:`pyramid_conv2d`.

    ``y[p, q] = f(scale * (base[p, q] + sum of U z_rt at (p + r - R / 2, q + t - T / 2) over taps and maps) + bias)``.

    Parameters
    ----------
    base : array, [N, C, H, W], float16/bfloat16/float32/float64
        Images, in either memory order.
    z : array, [N, C, kh * kw * sum(b * b)], dtype of base
        The maps of all taps, [kh, kw, b, b] of each bin, bins one after the other.
    bins : sequence of int, 1 to 32
        Sizes of the maps.
    kernel_size : pair of int
        kh and kw, odd, at most 7.
    align_corners : bool
        As for :func:`interpolate`.
    scale, bias : array, [C], dtype of base, optional
    activation : {"relu", "relu6"}, optional

    Returns
    -------
    array, [N, C, H, W], dtype and library of base
        Channels last if base is.

    Raises
    ------
    TypeError, ValueError
        As :func:`pyramid_conv2d`.

    Notes
    -----
    Cost: base is read once and the result written once. Sums are in float32 (float64 for float64), in a fixed order.
    Gradients: :func:`pyramid_expand_adjoint`.

    Examples
    --------
    >>> import numpy as np
    >>> from cv3gpu.pyramid import pyramid_expand
    >>> pyramid_expand(np.zeros((1, 1, 1, 3)), np.array([[[0.0, 2.0, 0.0, 2.0]]]), (2,), (1, 1))
    array([[[[0., 1., 2.]]]])
    """
    op = "pyramid_expand"
    check_image(op, "base", base)
    bins = check_bins(op, bins)
    size = _check_kernel_size(op, "kernel_size", _check.pair(op, "kernel_size", kernel_size, 1))
    n, c, h, w = (int(k) for k in base.shape)
    _check.same_dtype(op, "z", z, "base", base)
    _check.shape(op, "z", z, [n, c, size[0] * size[1] * cells_of(bins)])
    _check.flag(op, "align_corners", align_corners)
    _check_finish(op, base, scale, bias, activation, c)
    layout = _layout(base)
    if n == 0:
        return empty(base, base.shape, layout=layout)
    if on_gpu(base):
        out = empty(base, (n, c, h, w), layout=layout)
        _launch_expand(base, z, out, bins, size, align_corners, scale, bias, activation, layout)
        return out
    values, maps = _values(base), np.ascontiguousarray(_values(z))
    found = empty(values, (n, c, h, w), layout=layout)
    pieces = list(_matrices(bins, size, (h, w), align_corners, values.dtype == np.float32))
    down = np.concatenate([rows for rows, _ in pieces], 1)
    factor, shift = (None if v is None else _values(v)[:, None, None] for v in (scale, bias))

    def expand(image: int) -> None:
        across, first = [], 0
        for rows, cols in pieces:
            z_map = maps[image, :, first : first + rows.shape[1] * cols.shape[1]]
            b = rows.shape[1] // size[0]
            z_map = z_map.reshape(c, *size, b, b).transpose(0, 1, 3, 2, 4).reshape(c, rows.shape[1], cols.shape[1])
            across.append(z_map @ cols.T)
            first += rows.shape[1] * cols.shape[1]
        y = down @ np.concatenate(across, 1)
        y += values[image]
        if factor is not None:
            y *= factor
        if shift is not None:
            y += shift
        found[image] = y if activation is None else np.clip(y, 0, 6 if activation == "relu6" else None, out=y)

    each(expand, ((image,) for image in range(n)))
    return _like(found, base)


@array_op("grad")
def pyramid_expand_adjoint(
    grad: Any, bins: Sequence[int], kernel_size: tuple[int, int] = (3, 3), align_corners: bool = True
) -> Any:
    """The transpose of :func:`pyramid_expand` without options as a map of z: the gradient with respect to z.

    Parameters
    ----------
    grad : array, [N, C, H, W], float16/bfloat16/float32/float64
        Gradient with respect to the result.
    bins, kernel_size, align_corners
        As they were given to :func:`pyramid_expand`.

    Returns
    -------
    array, [N, C, kh * kw * sum(b * b)], dtype and library of grad

    Raises
    ------
    TypeError, ValueError
        As :func:`pyramid_expand`.

    Notes
    -----
    Two products of small matrices for each plane, by the array's own library, in float32 (float64 for float64). The map
    is linear: its gradient is :func:`pyramid_expand` of an image of zeros.

    Examples
    --------
    >>> import numpy as np
    >>> from cv3gpu.pyramid import pyramid_expand_adjoint
    >>> pyramid_expand_adjoint(np.array([[[[1.0, 10.0, 100.0]]]]), (2,), (1, 1))
    array([[[  6., 105.,   0.,   0.]]])
    """
    op = "pyramid_expand_adjoint"
    check_image(op, "grad", grad)
    bins = check_bins(op, bins)
    size = _check_kernel_size(op, "kernel_size", _check.pair(op, "kernel_size", kernel_size, 1))
    _check.flag(op, "align_corners", align_corners)
    n, c, h, w = (int(k) for k in grad.shape)
    out = empty(grad, (n, c, size[0] * size[1] * cells_of(bins)))
    if n == 0:
        return out
    wide = grad
    if dtype_name(grad) in conv.SIXTEEN_BIT:
        wide = grad.float() if family(grad) == "torch" else grad.astype(np.float32)
    first = 0
    matrices = _matrices(bins, size, (h, w), align_corners, dtype_name(grad) != "float64")
    for b, (rows, cols) in zip(bins, matrices, strict=True):
        z = _placed(rows.T, wide) @ (wide @ _placed(cols, wide))
        z = _moved(z.reshape(n, c, size[0], b, size[1], b), (0, 1, 2, 4, 3, 5))
        out[:, :, first : first + rows.shape[1] * cols.shape[1]] = z.reshape(n, c, -1)
        first += rows.shape[1] * cols.shape[1]
    return out


def _matrices(
    bins: Sequence[int], kernel_size: Sequence[int], size: tuple[int, int], align_corners: bool, single: bool
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """For each bin, [H, kh * b] and [W, kw * b]: what an output row or column takes of each tap's map."""
    for b in bins:
        rows, cols = (_reads(b, n, taps, align_corners, single) for n, taps in zip(size, kernel_size, strict=True))
        yield rows, cols


@functools.lru_cache(maxsize=64)
def _reads(b: int, n: int, taps: int, align_corners: bool, single: bool) -> np.ndarray:
    """[n, taps * b]: tap t of pixel p reads pixel p + t - taps / 2 of the enlarged axis, if there is one."""
    enlarged = _matrix(_axis(b, n, None, "bilinear", align_corners, False), 2, False, single, False).toarray()
    padded = np.pad(enlarged, ((taps // 2, taps // 2), (0, 0)))
    return np.concatenate([padded[t : t + n] for t in range(taps)], 1)


@functools.lru_cache(maxsize=64)
def _kept(values: bytes, shape: tuple[int, ...], dtype: str, library: str, device: str) -> list[Any]:
    """Where a constant matrix is kept on its device, so that it goes there once."""
    return []


def _placed(matrix: np.ndarray, like: Any) -> Any:
    """A constant matrix in the library and on the device of an array."""
    if family(like) == "numpy":
        return matrix
    kept = _kept(matrix.tobytes(), matrix.shape, matrix.dtype.str, str(family(like)), device_of(like))
    if not kept:
        kept.append(from_host(np.ascontiguousarray(matrix), like))
    return kept[0]


# ---- GPU ------------------------------------------------------------------------------------------------

THREADS = 256
WARPS = 8  # of the kernels whose lanes are channels
ROWS = 64  # rows that a block of pyramid_expand_planes does
COLUMNS = 64  # pixels that a block of pyramid_expand_channels does
MOST_BINS = 8  # of a launch
SHARED = 48 << 10  # bytes of shared memory that every GPU gives a block unasked
ENOUGH_BLOCKS = 2**11  # more of them than this, and each does several planes instead


def _groups(bins: Sequence[int], fits: Any) -> Iterator[tuple[int, tuple[int, ...]]]:
    """The bins in runs that one launch can do, each with the first of its cells."""
    first = 0
    run: list[int] = []
    for b in bins:
        if run and (len(run) == MOST_BINS or not fits((*run, b))):
            yield first, tuple(run)
            first += cells_of(run)
            run = []
        run.append(b)
    yield first, tuple(run)


def _sum_size(x: Any) -> int:
    return 8 if dtype_name(x) == "float64" else 4


def _table(bins: Sequence[int], rows: int, cols: int) -> int:
    """Bytes of shared memory that make_bins fills."""
    return 4 * (MOST_BINS + 4 * (sum(bins) + len(bins)) + rows + cols + 2 + 4 * sum(bins))


def _eight(bins: Sequence[int]) -> list[int]:
    return [*bins, *[0] * (MOST_BINS - len(bins))]


def _atoms(bins: Sequence[int], size: Sequence[int]) -> tuple[int, int]:
    rows, cols = (len(_edges(int(n), bins)) - 1 for n in size)
    return rows, cols


def _dense(x: Any, layout: str) -> Any:
    """The array densely in its memory order: kernels take no other strides."""
    return x if layout == "nhwc" or memory_format(x) == "nchw" else contiguous(x)


def _by_rows(x: Any) -> Any:
    """An array of its own, densely by rows."""
    out = empty(x, x.shape)
    out[...] = x
    return out


def _launch_pool(x: Any, out: Any, bins: tuple[int, ...], layout: str) -> None:
    n, c, h, w = (int(k) for k in x.shape)
    unit, cells = _sum_size(x), cells_of(bins)
    if layout == "nhwc":

        def shared(run: Sequence[int]) -> int:
            rows, cols = _atoms(run, (h, w))
            return rows * cols * 32 * unit + _table(run, rows, cols)

        if max(shared((b,)) for b in bins) > SHARED:  # too many cells for that: by planes
            by_planes = empty(x, out.shape)
            _launch_pool(_by_rows(x), by_planes, bins, "nchw")
            out[...] = by_planes
            return
        launch = kernel("pyramid.cu", "pyramid_pool_channels", real=dtype_name(x), TAPS=2)
        for first, run in _groups(bins, lambda run: shared(run) <= SHARED):
            sizes = (n, c, h, w, *_atoms(run, (h, w)), first, cells_of(run), cells)
            grid = min(blocks(c, 32) * n, ENOUGH_BLOCKS)
            launch((grid,), (32, WARPS), x, out, *sizes, *_eight(run), shared_mem=shared(run))
        return
    x = _dense(x, layout)
    launch = kernel("pyramid.cu", "pyramid_pool_planes", real=dtype_name(x), TAPS=2)

    def room(run: Sequence[int], threads: int) -> int:
        rows, cols = _atoms(run, (h, w))
        return (rows * threads + max(1, threads // w) * rows * cols) * unit + _table(run, rows, cols)

    for first, run in _groups(bins, lambda run: room(run, 32) <= SHARED):
        threads = next((t for t in (256, 128, 64) if room(run, t) <= SHARED), 32)
        group = max(1, threads // w)
        sizes = (n * c, h, w, *_atoms(run, (h, w)), group, first, cells_of(run), cells)
        grid = min(blocks(n * c, group), ENOUGH_BLOCKS)
        launch((grid,), threads, x, out, *sizes, *_eight(run), shared_mem=room(run, threads))


def _launch_pool_adjoint(grad: Any, out: Any, bins: tuple[int, ...], layout: str) -> None:
    n, c, h, w = (int(k) for k in out.shape)
    unit, cells, grad = _sum_size(grad), cells_of(bins), _dense(grad, layout)
    last = layout == "nhwc"

    def room(run: Sequence[int], group: int) -> int:
        rows, cols = _atoms(run, (h, w))
        return group * rows * cols * unit + _table(run, rows, cols)

    for first, run in _groups(bins, lambda run: room(run, 0 if last else 1) <= SHARED):
        name = "pyramid_pool_adjoint_channels" if last else "pyramid_pool_adjoint_planes"
        launch = kernel("pyramid.cu", name, real=dtype_name(grad), TAPS=2)
        sizes = (h, w, *_atoms(run, (h, w)))
        tail = (first, cells, first > 0, *_eight(run))
        if last:
            grid = min(blocks(c, 32) * n, ENOUGH_BLOCKS)
            launch((grid,), (32, WARPS), grad, out, n, c, *sizes, *tail, shared_mem=room(run, 0))
            continue
        group = max(1, THREADS // w)
        while group > 1 and room(run, group) > SHARED:
            group //= 2
        grid = min(blocks(n * c, group), ENOUGH_BLOCKS)
        launch((grid,), THREADS, grad, out, n * c, *sizes, group, *tail, shared_mem=room(run, group))


def _launch_expand(
    base: Any,
    z: Any,
    out: Any,
    bins: tuple[int, ...],
    kernel_size: tuple[int, int],
    align_corners: bool,
    scale: Any,
    bias: Any,
    activation: str | None,
    layout: str,
) -> None:
    n, c, h, w = (int(k) for k in base.shape)
    unit, (kh, kw) = _sum_size(base), kernel_size
    pair = 2 * 4 + 2 * unit
    base, scale, bias = _dense(base, layout), *(None if v is None else contiguous(v) for v in (scale, bias))
    z = contiguous(z if layout == "nchw" else _moved(z, (0, 2, 1)))
    total = kh * kw * cells_of(bins)
    last = 1 + conv.ACTIVATIONS.index(activation) if activation else 0

    def room(run: Sequence[int], threads: int) -> int:
        if layout == "nhwc":
            return len(run) * (kh + COLUMNS + kw - 1) * pair + kw * sum(run) * 32 * unit
        wide = min(w, threads // max(1, threads // w))
        return len(run) * (ROWS + kh - 1 + wide + kw - 1) * pair + kh * sum(run) * threads * unit

    runs = list(_groups(bins, lambda run: room(run, 32) <= SHARED))
    for i, (first, run) in enumerate(runs):
        finish = i + 1 == len(runs)
        ends = (scale, bias) if finish else (None, None)
        options = (h, w, kh, kw, align_corners, last if finish else 0)
        name = "pyramid_expand_planes" if layout == "nchw" else "pyramid_expand_channels"
        launch = kernel("pyramid.cu", name, real=dtype_name(base), TAPS=2)
        tail = (kh * kw * first, total, *_eight(run))
        if layout == "nchw":
            threads = next((t for t in (256, 128, 64) if room(run, t) <= SHARED), 32)
            group = max(1, threads // w)
            across = blocks(w, min(w, threads // group)) * blocks(h, ROWS)
            down = min(blocks(n * c, group), MAX_GRID_YZ, max(1, ENOUGH_BLOCKS // across))
            launch(
                (across, down), threads, base, z, *ends, out, n * c, c, *options, group, *tail,
                shared_mem=room(run, threads),
            )  # fmt: skip
        else:
            grid = min(n * h * blocks(w, COLUMNS) * blocks(c, 32), 8 * ENOUGH_BLOCKS)
            launch((grid,), (32, WARPS), base, z, *ends, out, n, c, *options, *tail, shared_mem=room(run, 32))
        base = out
