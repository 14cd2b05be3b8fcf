"""Depthwise separable convolution in one: a depthwise convolution, what lies between, and a 1x1 convolution.

On a GPU a block computes the depthwise result of some pixels a slice of channels at a time, in shared memory, and
multiplies it there: ``separable_mma.cu`` (tensor cores, 16-bit) and ``separable.cu`` (exact). On a CPU, NumPy arrays
are done by bands of rows, so that no large intermediate exists.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from . import _check, conv
from ._array import (
    array_op,
    as_numpy,
    astype,
    compute_capability,
    contiguous,
    dtype_name,
    empty,
    family,
    memory_format,
    on_gpu,
    pointer,
    readable,
    strides,
)
from ._depthwise_loops import Depthwise, forward
from ._kernel import blocks, kernel
from .conv import DTYPES, SIXTEEN_BIT, Geometry, conv2d, conv2d_adjoint_input, conv2d_adjoint_weight

__all__ = ["SeparableGradients", "separable_conv2d", "separable_conv2d_vjp"]

# What is done to a sum, by its bounds.
ACTIVATIONS: dict[str | None, tuple[float, float]] = {
    None: (-math.inf, math.inf),
    "relu": (0.0, math.inf),
    "relu6": (0.0, 6.0),
}


class SeparableGradients(NamedTuple):
    """Gradients of :func:`separable_conv2d` with respect to its arrays; None of those that were not given."""

    x: Any
    depthwise: Any
    pointwise: Any
    bias: Any
    mid_scale: Any
    mid_bias: Any
    scale: Any


# ---- checks ---------------------------------------------------------------------------------------------


def check_arrays(
    op: str, x: Any, depthwise: Any, pointwise: Any, bias: Any, mid_scale: Any, mid_bias: Any, scale: Any
) -> None:
    """Shapes and dtypes; sizes may be symbolic integers of torch."""
    _check.dtype(op, "x", x, DTYPES)
    _check.ndim(op, "x", x, 4, "[N, C, H, W]")
    for name, weight in (("depthwise", depthwise), ("pointwise", pointwise)):
        _check.same_dtype(op, name, weight, "x", x)
    channels = x.shape[1]
    _check.shape(op, "depthwise", depthwise, [channels, 1, "kh", "kw"], "C is the number of channels of x")
    _check.shape(op, "pointwise", pointwise, ["Cout", channels, 1, 1], "C is the number of channels of x")
    for name, weight in (("depthwise", depthwise), ("pointwise", pointwise)):
        if any(n < 1 for n in weight.shape):
            _check.fail(op, name, "have no empty dimension", tuple(weight.shape))
    inner = (("mid_scale", mid_scale, channels), ("mid_bias", mid_bias, channels))
    outer = (("bias", bias, pointwise.shape[0]), ("scale", scale, pointwise.shape[0]))
    for name, vector, size in (*inner, *outer):
        if vector is not None:
            _check.same_dtype(op, name, vector, "x", x)
            _check.shape(op, name, vector, [size])


def check_activations(op: str, mid_activation: Any, activation: Any) -> None:
    """Both are words that are known, or None."""
    for name, value in (("mid_activation", mid_activation), ("activation", activation)):
        if value is not None:
            _check.choice(op, name, value, tuple(word for word in ACTIVATIONS if word))


def _checked(
    op: str, arrays: tuple[Any, ...], stride: Any, padding: Any, dilation: Any, mid_activation: Any, activation: Any
) -> Geometry:
    check_arrays(op, *arrays)
    check_activations(op, mid_activation, activation)
    x, depthwise = arrays[:2]
    return conv.geometry_of(op, "x", x.shape[2:], depthwise.shape[2:], stride, padding, dilation, int(x.shape[1]))


# ---- the operators --------------------------------------------------------------------------------------


@array_op("x", "depthwise", "pointwise", "bias", "mid_scale", "mid_bias", "scale")
def separable_conv2d(
    x: Any,
    depthwise: Any,
    pointwise: Any,
    bias: Any = None,
    *,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] | str = 0,
    dilation: int | Sequence[int] = 1,
    mid_scale: Any = None,
    mid_bias: Any = None,
    mid_activation: str | None = None,
    scale: Any = None,
    activation: str | None = None,
) -> Any:
    r"""Depthwise separable convolution: one filter per channel, then a 1x1 convolution.

    .. math::
        m[n,c,p,q] &= a_1\Big(u[c] \sum_{r,s} d[c,0,r,s] x[n, c, p s_h - p_h + r d_h, q s_w - p_w + s d_w] + v[c]\Big)

        y[n,o,p,q] &= a_2\Big(z[o] \sum_c w[o,c,0,0] \; m[n,c,p,q] + b[o]\Big)

    with ``mid_scale`` u, ``mid_bias`` v, ``mid_activation`` a_1 in between (a folded batch normalisation, as Xception
    and MobileNetV2 have it), and ``scale`` z, ``bias`` b, ``activation`` a_2 after.

    Parameters
    ----------
    x : array, [N, C, H, W], float16/bfloat16/float32/float64
        Images; memory by rows or channels last, other strides as they are.
    depthwise : array, [C, 1, kh, kw], dtype of x
    pointwise : array, [Cout, C, 1, 1], dtype of x
    bias : array, [Cout], dtype of x, optional
    stride : int or pair (rows, columns), >= 1
        Of the depthwise part, as are padding and dilation.
    padding : int, pair (rows, columns), (top, bottom, left, right), ``"same"`` or ``"valid"``
        Zeros around the image, in pixels, as for :func:`cv3gpu.conv2d`.
    dilation : int or pair (rows, columns), >= 1
    mid_scale, mid_bias : array, [C], dtype of x, optional
        Factor and summand of the depthwise result.
    mid_activation, activation : {None, "relu", "relu6"}
    scale : array, [Cout], dtype of x, optional
        Factor of the result, before the bias.

    Returns
    -------
    array, [N, Cout, Ho, Wo], dtype and library of x
        Channels last if x is; Ho = (H + top + bottom - dh (kh - 1) - 1) // stride + 1.

    Raises
    ------
    TypeError
        An argument is no array, or of another library, device or dtype than x.
    ValueError
        A shape or a value does not fit; the text names the argument, what was wanted and what came.

    Notes
    -----
    The depthwise result m never exists as a whole, which saves up to half of the memory traffic. On a GPU,
    where Cout needs several tiles, each tile computes m anew. If that takes longer than m's way through the memory, two
    kernels are launched instead (by a count of both), and so they are for 16-bit arrays before compute capability 8.0
    and for kernels of more than 32 taps. On a CPU torch's own kernels serve tensors, but for a padding beyond their
    fast ones.

    Sums are kept in float32 (float64 for float64); float32 is never replaced by TF32. Of 16-bit arrays m is rounded to
    16 bits on a GPU, and not on a CPU. Cost: 2 N Ho Wo C (kh kw + Cout) flop. The result is the same from run to run.
    Gradients: :func:`separable_conv2d_vjp`. NaN passes the activations. N = 0 gives an empty result.

    References
    ----------
    .. [1] F. Chollet, "Xception: Deep learning with depthwise separable convolutions", CVPR 2017, section 2.
    .. [2] L.-C. Chen et al., "Encoder-decoder with atrous separable convolution for semantic image segmentation",
       ECCV 2018, section 3.1.
    .. [3] M. Sandler et al., "MobileNetV2: Inverted residuals and linear bottlenecks", CVPR 2018, section 3.

    Examples
    --------
    >>> import numpy as np, cv3gpu
    >>> x = np.arange(18, dtype=np.float32).reshape(1, 2, 3, 3)
    >>> sums, mean = np.ones((2, 1, 3, 3), np.float32), np.full((1, 2, 1, 1), 0.5, np.float32)
    >>> cv3gpu.separable_conv2d(x, sums, mean)
    array([[[[76.5]]]], dtype=float32)
    >>> cv3gpu.separable_conv2d(x, sums, mean, padding="same", mid_activation="relu6")[0, 0]
    array([[6., 6., 6.],
           [6., 6., 6.],
           [6., 6., 6.]], dtype=float32)
    """
    op = "separable_conv2d"
    arrays = x, depthwise, pointwise, bias, mid_scale, mid_bias, scale
    geometry = _checked(op, arrays, stride, padding, dilation, mid_activation, activation)
    layout = "nhwc" if memory_format(x) == "nhwc" else "nchw"
    shape = (int(x.shape[0]), int(pointwise.shape[0]), *geometry.output)
    mid = _Epilogue(mid_scale, mid_bias, mid_activation)
    last = _Epilogue(scale, bias, activation)
    if 0 in shape:
        return empty(x, shape, layout=layout)
    if on_gpu(x):
        if recomputes(shape, x, geometry):
            return _two_launches(x, depthwise, pointwise, geometry, mid, last)
        y = empty(x, shape, layout=layout)
        _launch(x, depthwise, pointwise, y, geometry, mid, last)
        return y
    if family(x) == "torch":
        return _torch_forward(x, depthwise, pointwise, geometry, mid, last, layout)
    y = empty(x, shape, layout=layout)
    _numpy_forward(x, depthwise, pointwise, y, geometry, mid, last)
    return y


@array_op("grad", "x", "depthwise", "pointwise", "bias", "mid_scale", "mid_bias", "scale")
def separable_conv2d_vjp(
    grad: Any,
    x: Any,
    depthwise: Any,
    pointwise: Any,
    bias: Any = None,
    *,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] | str = 0,
    dilation: int | Sequence[int] = 1,
    mid_scale: Any = None,
    mid_bias: Any = None,
    mid_activation: str | None = None,
    scale: Any = None,
    activation: str | None = None,
) -> SeparableGradients:
    """The gradients of :func:`separable_conv2d`, for a gradient with respect to its result.

    Parameters
    ----------
    grad : array, [N, Cout, Ho, Wo], float16/bfloat16/float32/float64
        Gradient with respect to the result.
    x, depthwise, pointwise, bias, stride, padding, dilation, mid_scale, mid_bias, mid_activation, scale, activation
        As :func:`separable_conv2d` was given them.

    Returns
    -------
    SeparableGradients
        A named tuple (x, depthwise, pointwise, bias, mid_scale, mid_bias, scale), each in the shape of the argument,
        None for an argument that was None; x's in the memory format of grad.

    Raises
    ------
    TypeError, ValueError
        As :func:`separable_conv2d`; grad has the shape of the result.

    Notes
    -----
    Nothing needs to be kept from the forward call: the depthwise result m is computed anew. At the peak m, its gradient
    and their copies before an activation exist, [N, C, Ho, Wo] each, and the result, if it has an activation or a
    scale. Cost: the depthwise convolution once more, and two products of the size of each half. At 0, and at 6 for
    ``"relu6"``, the derivative of an activation counts as 0. Made of :func:`cv3gpu.conv2d` and its adjoints, so for
    torch tensors derivatives of any order exist. The same bits from run to run.

    Examples
    --------
    >>> import numpy as np, cv3gpu
    >>> x, ones = np.ones((1, 1, 3, 3)), np.ones((1, 1, 3, 3))
    >>> gradients = cv3gpu.separable_conv2d_vjp(np.ones((1, 1, 1, 1)), x, ones, np.full((1, 1, 1, 1), 2.0))
    >>> gradients.depthwise[0, 0]
    array([[2., 2., 2.],
           [2., 2., 2.],
           [2., 2., 2.]])
    >>> gradients.pointwise
    array([[[[9.]]]])
    """
    op = "separable_conv2d_vjp"
    arrays = x, depthwise, pointwise, bias, mid_scale, mid_bias, scale
    geometry = _checked(op, arrays, stride, padding, dilation, mid_activation, activation)
    _check.same_dtype(op, "grad", grad, "x", x)
    _check.shape(op, "grad", grad, [x.shape[0], pointwise.shape[0], *geometry.output])
    wanted = SeparableGradients(*(array is not None for array in arrays))
    steps = geometry.stride, geometry.padding, geometry.dilation
    return gradients(wanted, grad, *arrays, *steps, mid_activation, activation)


def gradients(
    wanted: SeparableGradients,
    grad: Any,
    x: Any,
    depthwise: Any,
    pointwise: Any,
    bias: Any,
    mid_scale: Any,
    mid_bias: Any,
    scale: Any,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    mid_activation: str | None,
    activation: str | None,
) -> SeparableGradients:
    """Those ``wanted`` (True) of checked arguments, by the operators of the two halves; None of the others."""
    steps = stride, padding, dilation, int(x.shape[1])
    found: dict[str, Any] = dict.fromkeys(SeparableGradients._fields)
    plain = conv2d(x, depthwise, None, *steps)
    before = _affine(plain, mid_scale, mid_bias)
    mid = _activated(before, mid_activation)
    if activation is not None or wanted.scale:
        result = conv2d(mid, pointwise)
        grad = _through(grad, _affine(result, scale, bias), activation)
        found["scale"] = _sum(grad * result) if wanted.scale else None
    if wanted.bias:
        found["bias"] = _sum(grad)
    grad = _affine(grad, scale, None)
    if wanted.pointwise:
        found["pointwise"] = conv2d_adjoint_weight(grad, mid, (1, 1))
    if wanted.x or wanted.depthwise or wanted.mid_scale or wanted.mid_bias:
        grad = _through(conv2d_adjoint_input(grad, pointwise, mid.shape[2:]), before, mid_activation)
        found["mid_scale"] = _sum(grad * plain) if wanted.mid_scale else None
        found["mid_bias"] = _sum(grad) if wanted.mid_bias else None
        grad = _affine(grad, mid_scale, None)
        found["x"] = conv2d_adjoint_input(grad, depthwise, x.shape[2:], *steps) if wanted.x else None
        if wanted.depthwise:
            found["depthwise"] = conv2d_adjoint_weight(grad, x, depthwise.shape[2:], *steps)
    return SeparableGradients(**found)


def _affine(x: Any, scale: Any, shift: Any) -> Any:
    if scale is not None:
        x = x * scale[:, None, None]
    return x if shift is None else x + shift[:, None, None]


def _activated(x: Any, activation: str | None) -> Any:
    if activation is None:
        return x
    ends = (None if math.isinf(end) else end for end in ACTIVATIONS[activation])
    return astype(x.clip(*ends), dtype_name(x))  # NumPy widens bfloat16


def _through(grad: Any, x: Any, activation: str | None) -> Any:
    """The gradient with respect to what was activated, x."""
    if activation is None:
        return grad
    low, high = ACTIVATIONS[activation]
    return grad * astype((x > low) & (x < high), dtype_name(grad))


def _sum(x: Any) -> Any:
    """By channel; 16 bits in float32."""
    if family(x) == "torch" or dtype_name(x) not in SIXTEEN_BIT:
        return x.sum((0, 2, 3))
    return astype(astype(x, "float32").sum((0, 2, 3)), x.dtype)


class _Epilogue(NamedTuple):
    """What is done to the sums of one half: scaled, shifted, clipped."""

    scale: Any
    shift: Any
    activation: str | None

    def astype(self, dtype: str) -> _Epilogue:
        scale, shift = (None if v is None else astype(v, dtype) for v in self[:2])
        return _Epilogue(scale, shift, self.activation)

    @property
    def bounds(self) -> tuple[float, float]:
        return ACTIVATIONS[self.activation]


# ---- CPU: torch -----------------------------------------------------------------------------------------

_TORCH_PADDING = 4  # beyond it torch (oneDNN) leaves its fast kernels, and takes 3 to 25 times as long as our loops


def _torch_forward(
    x: Any, depthwise: Any, pointwise: Any, geometry: Geometry, mid: _Epilogue, last: _Epilogue, layout: str
) -> Any:
    """Torch's own kernels, with the factors folded into the weights; 16-bit inputs in float32."""
    torch = sys.modules["torch"]
    given = dtype_name(x)
    wide = "float32" if given in SIXTEEN_BIT else given
    x, depthwise, pointwise = (astype(a, wide) for a in (x, depthwise, pointwise))
    mid, last = mid.astype(wide), last.astype(wide)
    filters = _scaled(depthwise, mid.scale)
    if max(geometry.padding) > _TORCH_PADDING:
        order = conv._torch_format(layout)
        m = torch.empty((*x.shape[:2], *geometry.output), dtype=x.dtype, memory_format=order)
        given_x, shift = x.contiguous(memory_format=order), None if mid.shift is None else as_numpy(mid.shift)
        low, high = mid.bounds
        forward(as_numpy(given_x), as_numpy(filters), shift, geometry, as_numpy(m), low=low, high=high)
    else:
        m = _clipped(conv.torch_forward(x, filters, mid.shift, geometry, layout), mid)
    y = torch.convolution(m, _scaled(pointwise, last.scale), last.shift, (1, 1), (0, 0), (1, 1), False, (0, 0), 1)
    return astype(_clipped(y, last), given).contiguous(memory_format=conv._torch_format(layout))


def _scaled(weight: Any, scale: Any) -> Any:
    return weight if scale is None else weight * scale[:, None, None, None]


def _clipped(x: Any, half: _Epilogue) -> Any:
    """The activation of a fresh tensor."""
    return x if half.activation is None else x.clamp_(*half.bounds)


# ---- CPU: NumPy -----------------------------------------------------------------------------------------

_BAND = 2**22  # numbers of the depthwise result that exist at a time; products of much fewer pixels are slower
_FEWEST = 256  # pixels that a product needs to run at full speed


def _numpy_forward(
    x: np.ndarray,
    depthwise: np.ndarray,
    pointwise: np.ndarray,
    y: np.ndarray,
    geometry: Geometry,
    mid: _Epilogue,
    last: _Epilogue,
) -> None:
    """By bands of rows: the depthwise part by loops of our own, the rest a matrix product."""
    given = (*mid[:2], *last[:2])
    factor, shift, scale, bias = (None if a is None else conv.wide(a) for a in given)
    depthwise, pointwise = conv.wide(depthwise), conv.wide(pointwise)
    channels_last = memory_format(y) == "nhwc"
    matrix = _scaled(pointwise, scale).reshape(pointwise.shape[:2])
    low, high = mid.bounds
    first = Depthwise(_scaled(depthwise, factor), shift, geometry, last=channels_last, low=low, high=high)
    rows, cols = geometry.output
    channels, out = x.shape[1], y.shape[1]
    count = min(rows, blocks(max(_FEWEST, _BAND // channels), cols))
    bounds = [end if math.isfinite(end) else None for end in last.bounds]
    same = y.dtype == matrix.dtype
    middle = np.empty(channels * count * cols, matrix.dtype)
    space = None if same else np.empty(out * count * cols, matrix.dtype)
    for image, result in zip(x, y, strict=True):
        wide = conv.wide(image)
        source = np.ascontiguousarray(wide.transpose(1, 2, 0) if channels_last else wide)
        for row in range(0, rows, count):
            n = min(count, rows - row)
            pixels, part = n * cols, result[:, row : row + n]
            between = middle[: channels * pixels]
            if channels_last:
                between = between.reshape(pixels, channels)
                product, target = (between, matrix.T), part.transpose(1, 2, 0).reshape(pixels, out)
            else:
                between = between.reshape(channels, pixels)
                product, target = (matrix, between), part.reshape(out, pixels)
            first.rows(source, between, row, n)
            into = target if space is None else space[: out * pixels].reshape(target.shape)
            np.matmul(*product, out=into)
            if bias is not None:
                into += bias if channels_last else bias[:, None]
            if last.activation is not None:
                np.clip(into, *bounds, out=into)
            if into is not target:
                target[...] = into


# ---- GPU ------------------------------------------------------------------------------------------------

MOST_TAPS = 32  # whose weights fit beside the tiles into the shared memory of every GPU, 99 KiB
# What a GPU of the H100's size does, for the choice between one kernel and two: bytes a second through the memory, flop
# a second of a depthwise sum inside a fused kernel (loads included), and seconds that one more launch takes.
_MEMORY, _DEPTHWISE, _LAUNCH = 2.5e12, 15e12, 3e-6


def _tile(real: str, out: int) -> tuple[int, int]:
    """Pixels and output channels that a block computes."""
    if real in SIXTEEN_BIT:
        return (128, 64 if out <= 64 else 128) if out <= 128 else (64, 256)
    return 64, 128 if real == "float32" and out > 64 else 64


def recomputes(shape: Sequence[int], x: Any, geometry: Geometry) -> bool:
    """Whether two kernels take less time than one, which makes the depthwise result again for each tile of channels."""
    real = dtype_name(x)
    if geometry.taps > MOST_TAPS or (real in SIXTEEN_BIT and compute_capability(x) < 80):
        return True
    again = blocks(shape[1], _tile(real, shape[1])[1]) - 1
    numbers = shape[0] * int(x.shape[1]) * shape[2] * shape[3]
    return again * 2 * geometry.taps * numbers / _DEPTHWISE > 2 * x.itemsize * numbers / _MEMORY + _LAUNCH


def _two_launches(x: Any, depthwise: Any, pointwise: Any, geometry: Geometry, mid: _Epilogue, last: _Epilogue) -> Any:
    plain: Any = conv2d.plain  # type: ignore[attr-defined]
    steps = geometry.stride, geometry.padding, geometry.dilation, int(x.shape[1])
    m = plain(x, depthwise, mid.shift, *steps, scale=mid.scale, activation=mid.activation)
    return plain(m, pointwise, last.shift, scale=last.scale, activation=last.activation)


def _together(rows: int, geometry: Geometry) -> tuple[int, int]:
    """How many results of a column a thread makes, and into how many groups of such the rows fall."""
    groups = blocks(rows, geometry.dilation[0] * 4) * geometry.dilation[0]
    if geometry.stride == (1, 1) and 4 * groups <= 1.5 * rows:
        return 4, groups
    return 1, rows


def _columns(pointwise: Any, sixteen: bool) -> tuple[Any, int]:
    """The 1x1 weights as the kernels read them, and their pitch: as they are where they lie so."""
    channels = int(pointwise.shape[1])
    if sixteen and channels % 8 == 0 and memory_format(pointwise) != "strided" and pointer(pointwise).address % 16 == 0:
        return pointwise, channels
    packed = conv._pack_weight(readable(pointwise), 1, sixteen, 8 if sixteen else 4)
    return packed, int(packed.shape[-1])


def _launch(
    x: Any, depthwise: Any, pointwise: Any, y: Any, geometry: Geometry, mid: _Epilogue, last: _Epilogue
) -> None:
    x, real, out = readable(x), dtype_name(x), int(y.shape[1])
    images, channels = (int(n) for n in x.shape[:2])
    rows, cols = geometry.output
    pixels, tile = _tile(real, out)
    together, row_groups = _together(rows, geometry)
    runs = blocks(images * row_groups * cols, pixels // together)
    sixteen, both_last = real in SIXTEEN_BIT, memory_format(x) == "nhwc" == memory_format(y)
    conv.check_pixels("separable_conv2d", geometry)
    constants: dict[str, Any] = {"real": real, "BN": tile, "K": conv._unrolled(geometry.kernel), "ROWS": together}
    if sixteen:
        constants |= {"BM": pixels, "CHANNELS_LAST": both_last and channels % 2 == 0 and pointer(x).address % 4 == 0}
        name, threads, depth = "separable_mma", 512, 64
        lines, length = (pixels, tile) if constants["CHANNELS_LAST"] else (tile, pixels)
        space = 2 * max(2 * (pixels + tile) * depth, lines * (length + 8))
    else:
        constants |= {"LANES": both_last}
        name, threads, depth = "separable", 256, 16
        lines, length = (pixels, tile) if both_last else (tile, pixels)
        space = x.itemsize * max(2 * depth * (pixels + 4 + tile), lines * (length + 4))
    weights = 2 * (geometry.taps + 2) * depth * max(4, x.itemsize)
    packed, pitch = _columns(pointwise, sixteen)
    vectors = [None if v is None else contiguous(v) for v in (mid.scale, mid.shift, last.scale, last.shift)]
    kernel(f"{name}.cu", name, **constants)(
        (runs * blocks(out, tile),), threads, x, contiguous(depthwise), *vectors[:2], packed, *vectors[2:], y,
        *strides(x), *strides(y), images, channels, pitch, out, *geometry.input, rows, cols,
        *geometry.scalars(), row_groups, 1.0 / (row_groups * cols), *mid.bounds, *last.bounds,
        shared_mem=space + weights,
    )  # fmt: skip
