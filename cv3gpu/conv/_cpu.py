"""The convolutions on a CPU: torch's own kernels for torch, a matrix product per tap (BLAS) for NumPy."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import _depthwise_loops
from .._array import dtype_name, empty, memory_format, module
from ._gpu import NO_EPILOGUE, Epilogue
from .geometry import SIXTEEN_BIT, Geometry

__all__ = [
    "is_diagonal",
    "numpy_adjoint_input",
    "numpy_adjoint_weight",
    "numpy_forward",
    "torch_backward",
    "torch_forward",
    "torch_transposed",
    "wide",
]


# ---- borders --------------------------------------------------------------------------------------------


def _bordered(x: Any, geometry: Geometry) -> Any:
    """The image with the pixels that stand around it, where there are such; of NumPy or torch."""
    if not geometry.border:
        return x
    top, bottom, left, right = geometry.padding
    if isinstance(x, np.ndarray):
        mode: Any = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}[geometry.padding_mode]
        return np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)), mode)
    if 0 in x.shape:
        return x.new_empty((*x.shape[:2], *geometry.padded.input))
    return sys.modules["torch"].nn.functional.pad(x, (left, right, top, bottom), geometry.padding_mode)


def _without_border(geometry: Geometry) -> Geometry:
    return geometry.padded if geometry.border else geometry


def _folded(padded: Any, geometry: Geometry) -> Any:
    """The transpose of :func:`_bordered`: what the padding holds, added to the pixels that stand there."""
    if not geometry.border:
        return padded
    for axis in (2, 3):
        before, after = geometry.padding[2 * axis - 4 : 2 * axis - 2]
        n = geometry.input[axis - 2]

        def part(start: int, stop: int, padded: Any = padded, axis: int = axis) -> Any:
            return padded[:, :, start:stop] if axis == 2 else padded[:, :, :, start:stop]

        inner, low, high = part(before, before + n), part(0, before), part(before + n, before + n + after)
        if geometry.padding_mode == "replicate":
            part(before, before + 1)[...] += low.sum(axis, keepdims=True)
            part(before + n - 1, before + n)[...] += high.sum(axis, keepdims=True)
        elif geometry.padding_mode == "reflect":
            flip = module(padded).flip
            part(before + 1, 2 * before + 1)[...] += flip(low, (axis,))
            part(before + n - 1 - after, before + n - 1)[...] += flip(high, (axis,))
        else:
            part(n, n + before)[...] += low
            part(before, before + after)[...] += high
        padded = inner
    return padded


def _activate(y: Any, activation: str | None) -> Any:
    """In place: NaN stays NaN."""
    if activation is None:
        return y
    most = None if activation == "relu" else 6
    return np.clip(y, 0, most, out=y) if isinstance(y, np.ndarray) else y.clamp_(0, most)


def is_diagonal(weight: Any) -> bool:
    """Whether weight[a, b] is zero for all a != b: a look at each number once."""
    if weight.shape[0] != weight.shape[1] or weight.shape[0] < 2:
        return False
    found = weight.nonzero()
    both = (found[:, 0], found[:, 1]) if not isinstance(weight, np.ndarray) else found[:2]
    return bool((both[0] == both[1]).all())


def _scaled(weight: Any, scale: Any) -> Any:
    """The weights with the factor of each result's channel, in the precision of the sums."""
    return weight if scale is None else weight * scale[:, None, None, None]


# ---- torch ----------------------------------------------------------------------------------------------


def _torch_format(layout: str) -> Any:
    torch = sys.modules["torch"]
    return torch.channels_last if layout == "nhwc" else torch.contiguous_format


def _torch_padding(x: Any, geometry: Geometry) -> tuple[Any, list[int]]:
    """The image and the symmetric padding left to do, after what is asymmetric was added."""
    top, bottom, left, right = geometry.padding
    if top == bottom and left == right:
        return x, [top, left]
    rows, cols = min(top, bottom), min(left, right)
    extra = (left - cols, right - cols, top - rows, bottom - rows)
    return sys.modules["torch"].nn.functional.pad(x, extra), [rows, cols]


def torch_forward(
    x: Any, weight: Any, bias: Any, geometry: Geometry, layout: str, epilogue: Epilogue = NO_EPILOGUE
) -> Any:
    """The CPU kernels of torch itself; 16-bit inputs in float32, as not every processor sums them so."""
    torch = sys.modules["torch"]
    dtype = x.dtype
    if dtype_name(x) in SIXTEEN_BIT:
        x, weight, bias = x.float(), weight.float(), None if bias is None else bias.float()
    weight = _scaled(weight, None if epilogue.scale is None else epilogue.scale.to(weight.dtype))
    x, geometry = _bordered(x, geometry), _without_border(geometry)
    padded, padding = _torch_padding(x, geometry)
    y = torch.convolution(
        padded, weight, bias, geometry.stride, padding, geometry.dilation, False, [0, 0], geometry.groups
    )
    y = _activate(y, epilogue.activation)
    if y.dtype != dtype:
        y = y.to(dtype)
    return y.contiguous(memory_format=_torch_format(layout))


def torch_transposed(x: Any, weight: Any, bias: Any, geometry: Geometry, layout: str) -> Any:
    torch = sys.modules["torch"]
    dtype = x.dtype
    if dtype_name(x) in SIXTEEN_BIT:
        x, weight, bias = x.float(), weight.float(), None if bias is None else bias.float()
    pads = geometry.padding[::2]
    reach = (
        (n - 1) * s - 2 * p + d * (k - 1) + 1
        for n, s, p, d, k in zip(
            geometry.output, geometry.stride, pads, geometry.dilation, geometry.kernel, strict=True
        )
    )
    more = [size - r for size, r in zip(geometry.input, reach, strict=True)]
    y = torch.convolution(x, weight, bias, geometry.stride, pads, geometry.dilation, True, more, geometry.groups)
    return y.to(dtype).contiguous(memory_format=_torch_format(layout))


def torch_backward(grad: Any, x: Any, weight: Any, shape: Sequence[int], geometry: Geometry, layout: str) -> Any:
    """The adjoint in whichever of x and weight is None; ``shape`` is the result's."""
    torch = sys.modules["torch"]
    dtype = grad.dtype
    if dtype_name(grad) in SIXTEEN_BIT:
        grad, x, weight = (None if t is None else t.float() for t in (grad, x, weight))
    wants_input = x is None
    # Of what is wanted torch takes the size, and makes a copy of it in the memory order in which it works. It is of
    # real memory: an expanded weight gives a wrong gradient for channels_last x.
    if not wants_input:
        last = memory_format(x) == "nhwc" and memory_format(grad) == "nhwc"
        weight = empty(grad, shape, layout="nhwc" if last else "nchw")
    if grad.shape[0] == 0:
        return grad.new_zeros(shape, dtype=dtype).contiguous(memory_format=_torch_format(layout))
    border, geometry = geometry, _without_border(geometry)
    x = empty(grad, (*shape[:2], *geometry.input), layout=layout) if wants_input else _bordered(x, border)
    padded, padding = _torch_padding(x, geometry)
    stride = geometry.stride
    if geometry.taps == 1 and not wants_input:
        # torch 2.13 writes past its buffers for a strided 1 x 1 kernel on channels_last: take the pixels out first.
        rows, cols = padding
        padded = torch.nn.functional.pad(padded, (cols, cols, rows, rows))[:, :, :: stride[0], :: stride[1]]
        stride, padding = (1, 1), [0, 0]
    mask = [wants_input, not wants_input, False]
    results = torch.ops.aten.convolution_backward(
        grad, padded, weight, None, stride, padding, geometry.dilation, False, [0, 0], geometry.groups, mask
    )
    result = results[0] if wants_input else results[1]
    if wants_input and padded.shape != x.shape:
        top, left = geometry.padding[0] - padding[0], geometry.padding[2] - padding[1]
        result = result[:, :, top : top + shape[2], left : left + shape[3]]
    if wants_input:
        result = _folded(result, border)
    return result.to(dtype).contiguous(memory_format=_torch_format(layout))


# ---- NumPy ----------------------------------------------------------------------------------------------


def wide(x: np.ndarray) -> np.ndarray:
    """The values in the type in which sums are kept."""
    return x if x.dtype.itemsize > 2 else x.astype(np.float32)


def _grouped(x: np.ndarray, groups: int) -> np.ndarray:
    """[N, C, h, w] as [N, groups, C / groups, h * w]."""
    n, c, h, w = x.shape
    return x.reshape(n, groups, c // groups, h * w)


def numpy_forward(
    x: np.ndarray, weight: np.ndarray, y: np.ndarray, geometry: Geometry, epilogue: Epilogue = NO_EPILOGUE
) -> None:
    """Fills ``y``: one matrix product per tap, over the results that the tap reaches; with one tap one product."""
    x, weight = _bordered(wide(x), geometry), np.ascontiguousarray(wide(weight))
    weight = _scaled(weight, None if epilogue.scale is None else wide(epilogue.scale))
    bias = None if epilogue.bias is None else wide(epilogue.bias)
    one_product = geometry.pointwise and geometry.groups == 1
    depthwise = weight.shape[1] == 1 and not one_product
    in_place = one_product or y.flags.c_contiguous or (depthwise and _both_channels_last(x, weight, y))
    sums = y if y.dtype == x.dtype and in_place else np.empty(y.shape, x.dtype)
    inner = _without_border(geometry)
    if one_product:
        _pointwise(x, weight[:, :, 0, 0], sums)
        if bias is not None:
            sums += bias[:, None, None]
    elif depthwise:
        _depthwise_loops.forward(x, weight, bias, inner, sums)
    else:
        _per_tap(x, weight, bias, sums, inner)
    _activate(sums, epilogue.activation)
    if sums is not y:
        y[...] = sums


def _both_channels_last(x: np.ndarray, weight: np.ndarray, y: np.ndarray) -> bool:
    """Whether the depthwise loops take images and results as they are, channels last."""
    dense = x.transpose(0, 2, 3, 1).flags.c_contiguous and y.transpose(0, 2, 3, 1).flags.c_contiguous
    return dense and len(weight) == x.shape[1] and not x.flags.c_contiguous and not y.flags.c_contiguous


def _per_tap(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None, y: np.ndarray, geometry: Geometry) -> None:
    g, out = geometry.groups, weight.shape[0]
    y[...] = 0 if bias is None else bias[:, None, None]
    taps = weight.reshape(g, out // g, weight.shape[1], *geometry.kernel)
    for r, s, (rows, cols), (in_rows, in_cols) in geometry.taps_in_image():
        part = _grouped(x[:, :, in_rows, in_cols], g)
        target = y[:, :, rows, cols]
        target += _product(taps[..., r, s], part).reshape(target.shape)


def _pointwise(x: np.ndarray, matrix: np.ndarray, y: np.ndarray) -> None:
    """A 1 x 1 convolution, without a copy where the memory of both lies by planes, or of both by pixels."""
    (n, channels, h, w), out = x.shape, y.shape[1]
    x_last, y_last = x.transpose(0, 2, 3, 1), y.transpose(0, 2, 3, 1)
    if x_last.flags.c_contiguous and y_last.flags.c_contiguous:
        np.matmul(x_last.reshape(n * h * w, channels), matrix.T, out=y_last.reshape(n * h * w, out))
    elif y.flags.c_contiguous:
        np.matmul(matrix, x.reshape(n, channels, h * w), out=y.reshape(n, out, h * w))
    else:
        y[...] = np.matmul(matrix, x.reshape(n, channels, h * w)).reshape(y.shape)


def numpy_adjoint_input(grad: np.ndarray, weight: np.ndarray, border: Geometry) -> np.ndarray:
    """The transpose, a matrix product per tap, in the precision of the sums."""
    grad, weight, geometry = wide(grad), np.ascontiguousarray(wide(weight)), _without_border(border)
    if weight.shape[1] == 1 and weight.shape[0] == geometry.groups > 1 and (mirrored := geometry.mirrored) is not None:
        x = np.empty((*grad.shape[:2], *geometry.input), grad.dtype)
        turned = weight[:, :, ::-1, ::-1]
        _depthwise_loops.forward(np.ascontiguousarray(grad), turned, None, mirrored, x)
        return _folded(x, border)
    n, g, out = grad.shape[0], geometry.groups, weight.shape[0]
    x = np.zeros((n, weight.shape[1] * g, *geometry.input), grad.dtype)
    taps = weight.reshape(g, out // g, weight.shape[1], *geometry.kernel).swapaxes(1, 2)
    for r, s, (rows, cols), (in_rows, in_cols) in geometry.taps_in_image():
        part = _grouped(grad[:, :, rows, cols], g)
        target = x[:, :, in_rows, in_cols]
        target += _product(taps[..., r, s], part).reshape(target.shape)
    return _folded(x, border)


def numpy_adjoint_weight(grad: np.ndarray, x: np.ndarray, geometry: Geometry) -> np.ndarray:
    """The gradient of the weights, a matrix product per tap, in the precision of the sums."""
    grad, x, geometry = wide(grad), _bordered(wide(x), geometry), _without_border(geometry)
    g, out, channels = geometry.groups, grad.shape[1], x.shape[1]
    weight = np.zeros((g, out // g, channels // g, *geometry.kernel), grad.dtype)
    for r, s, (rows, cols), (in_rows, in_cols) in geometry.taps_in_image():
        left = _grouped(grad[:, :, rows, cols], g)
        right = _grouped(x[:, :, in_rows, in_cols], g)
        weight[..., r, s] = np.matmul(left, right.swapaxes(2, 3)).sum(axis=0)
    return weight.reshape(out, channels // g, *geometry.kernel)


def _product(matrix: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """[g, a, b] times [N, g, b, p]; an outer product where b is 1, as depthwise taps have it."""
    return matrix * columns if matrix.shape[2] == 1 else np.matmul(matrix, columns)
