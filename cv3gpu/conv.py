"""2-D convolution, its two adjoints, and transposed convolution.

On a GPU one of three kernels does the work: ``conv_mma.cu`` (tensor cores, 16-bit inputs), ``conv.cu``
(ordinary cores, exact in the input's precision), ``conv_depthwise.cu`` (one input channel per group).
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from . import _check
from ._array import (
    array_op,
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
from ._kernel import MAX_GRID_YZ, blocks, kernel

__all__ = ["conv2d", "conv2d_adjoint_input", "conv2d_adjoint_weight", "conv_transpose2d"]

DTYPES = ("float16", "bfloat16", "float32", "float64")
SIXTEEN_BIT = ("float16", "bfloat16")


class Geometry(NamedTuple):
    """Which pixels a convolution relates: everything but batch and channels. Pairs are (rows, columns)."""

    input: tuple[int, int]
    output: tuple[int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int, int, int]  # top, bottom, left, right
    dilation: tuple[int, int]
    groups: int

    @property
    def taps(self) -> int:
        """Number of kernel elements."""
        return self.kernel[0] * self.kernel[1]

    def scalars(self) -> tuple[int, ...]:
        """The part that every kernel takes last: kernel, stride, padding before, dilation."""
        return (*self.kernel, *self.stride, self.padding[0], self.padding[2], *self.dilation)

    def progressions(self) -> tuple[int, int, int, int]:
        """Which taps a pixel of the transpose takes part in: steps and inverses of rows and columns, see Progression.

        Steps of 1 where a product of two would not fit 32 bits; all taps are visited then.
        """
        steps, inverses = [], []
        for stride, dilation in zip(self.stride, self.dilation, strict=True):
            common = math.gcd(stride, dilation)
            step = stride // common if stride < 1 << 15 else 1
            steps.append(step)
            inverses.append(pow(dilation // common, -1, step) if step > 1 else 0)
        return (*steps, *inverses)  # type: ignore[return-value]

    def phases(self) -> tuple[int, tuple[int, int]]:
        """Into how many phases the pixels of the transpose fall, and the rows and columns of the largest."""
        down, across = (min(step, size) for step, size in zip(self.stride, self.input, strict=True))
        return down * across, (blocks(self.input[0], down), blocks(self.input[1], across))


def output_size(
    size: Sequence[int],
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> tuple[int, int]:
    """Rows and columns of a convolution's result; ``padding`` is (top, bottom, left, right)."""
    rows = (size[0] + padding[0] + padding[1] - dilation[0] * (kernel_size[0] - 1) - 1) // stride[0] + 1
    cols = (size[1] + padding[2] + padding[3] - dilation[1] * (kernel_size[1] - 1) - 1) // stride[1] + 1
    return rows, cols


def padding_of(
    op: str,
    padding: int | Sequence[int] | str,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
) -> tuple[int, int, int, int]:
    """The argument ``padding`` as (top, bottom, left, right)."""
    if isinstance(padding, str):
        _check.choice(op, "padding", padding, ("same", "valid"))
        if padding == "valid":
            return 0, 0, 0, 0
        if tuple(stride) != (1, 1):
            _check.fail(op, "padding", "be a number where stride is not 1", "'same'")
        rows, cols = (d * (k - 1) for d, k in zip(dilation, kernel_size, strict=True))
        return rows // 2, rows - rows // 2, cols // 2, cols - cols // 2
    if type(padding) is int:
        rows, cols = _check.pair(op, "padding", padding, 0)
        return rows, rows, cols, cols
    if isinstance(padding, Sequence) and len(padding) == 4:
        top, bottom, left, right = (_check.integer(op, "padding", p, 0) for p in padding)
        return top, bottom, left, right
    if isinstance(padding, Sequence) and len(padding) != 2:
        wanted = "be an integer, a pair, (top, bottom, left, right), 'same' or 'valid'"
        _check.fail(op, "padding", wanted, repr(padding))
    rows, cols = _check.pair(op, "padding", padding, 0)
    return rows, rows, cols, cols


def _geometry(
    op: str,
    image: str,
    size: Sequence[int],
    kernel_size: Sequence[int],
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: Any,
) -> Geometry:
    """Checks the parameters of a convolution of images of ``size``, which the argument ``image`` gives."""
    steps = _check.pair(op, "stride", stride, 1)
    spread = _check.pair(op, "dilation", dilation, 1)
    count = _check.integer(op, "groups", groups, 1)
    around = padding_of(op, padding, kernel_size, steps, spread)
    out = output_size(size, kernel_size, steps, around, spread)
    padded = (size[0] + around[0] + around[1], size[1] + around[2] + around[3])
    if min(out) < 1:
        reach = tuple(d * (k - 1) + 1 for d, k in zip(spread, kernel_size, strict=True))
        _check.fail(op, image, f"be at least the dilated kernel's size {reach} with its padding", padded)
    if max(padded) >= 2**31:
        _check.fail(op, "padding", "leave the padded image under 2**31 rows and columns", padded)
    return Geometry(
        (int(size[0]), int(size[1])), out, (int(kernel_size[0]), int(kernel_size[1])), steps, around, spread, count
    )


def _check_weight(op: str, weight: Any) -> None:
    _check.dtype(op, "weight", weight, DTYPES)
    _check.ndim(op, "weight", weight, 4, "[Cout, C / groups, kh, kw]")
    if min(weight.shape[2:]) < 1 or weight.shape[0] < 1 or weight.shape[1] < 1:
        _check.fail(op, "weight", "have no empty dimension", tuple(weight.shape))


def _check_groups(op: str, groups: Any, channels: int) -> int:
    count = _check.integer(op, "groups", groups, 1)
    if channels % count:
        _check.fail(op, "groups", f"divide Cout ({channels})", count)
    return count


def _check_image(op: str, argument: str, x: Any, like: str, other: Any) -> None:
    _check.dtype(op, argument, x, DTYPES)
    if other is not None:
        _check.same_dtype(op, argument, x, like, other)


# ---- the operators --------------------------------------------------------------------------------------


@array_op("x", "weight", "bias")
def conv2d(
    x: Any,
    weight: Any,
    bias: Any = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] | str = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Any:
    r"""2-D convolution (cross-correlation, as in every network library).

    .. math:: y[n,o,p,q] = b[o] + \sum_{c,r,s} w[o,c,r,s] \; x[n, c, p s_h - p_h + r d_h, q s_w - p_w + s d_w]

    with zeros outside the image and c running over the channels of o's group.

    Parameters
    ----------
    x : array, [N, C, H, W], float16/bfloat16/float32/float64
        Images; memory by rows or channels last, other strides as they are.
    weight : array, [Cout, C / groups, kh, kw], dtype of x
    bias : array, [Cout], dtype of x, optional
    stride : int or pair (rows, columns), >= 1
    padding : int, pair (rows, columns), (top, bottom, left, right), ``"same"`` or ``"valid"``
        Zeros around the image, in pixels. ``"same"`` keeps the size (stride 1); an even kernel then has
        one more row or column after than before.
    dilation : int or pair (rows, columns), >= 1
        Distance in pixels between the kernel's taps.
    groups : int
        Divides C and Cout; ``groups == C`` is a depthwise convolution.

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
    Sums are kept in float32 (float64 for float64) and rounded once; float32 is never replaced by TF32.
    Cost: 2 N Ho Wo Cout C/groups kh kw flop; tiles whose pixels all lie in the padding of a tap skip it.
    16-bit inputs run on the tensor cores (compute capability 8.0 and up). The result is the same from run to
    run. Gradients: :func:`conv2d_adjoint_input`, :func:`conv2d_adjoint_weight`, and ``grad.sum((0, 2, 3))``.
    N = 0 gives an empty result.

    References
    ----------
    .. [1] F. Yu, V. Koltun, "Multi-scale context aggregation by dilated convolutions", ICLR 2016, eq. 2.
    .. [2] S. Chetlur et al., "cuDNN: Efficient primitives for deep learning", 2014, section 3.

    Examples
    --------
    >>> import numpy as np, cv3gpu
    >>> x = np.arange(25, dtype=np.float32).reshape(1, 1, 5, 5)
    >>> cross = np.array([[0, 1, 0], [1, -4, 1], [0, 1, 0]], np.float32).reshape(1, 1, 3, 3)
    >>> cv3gpu.conv2d(x, cross, padding="same")[0, 0, 1:4, 1:4]
    array([[0., 0., 0.],
           [0., 0., 0.],
           [0., 0., 0.]], dtype=float32)
    >>> cv3gpu.conv2d(x, cross, dilation=2).shape
    (1, 1, 1, 1)
    """
    op = "conv2d"
    _check_image(op, "x", x, "", None)
    _check.ndim(op, "x", x, 4, "[N, C, H, W]")
    _check_weight(op, weight)
    _check.same_dtype(op, "weight", weight, "x", x)
    count = _check_groups(op, groups, weight.shape[0])
    if weight.shape[1] * count != x.shape[1]:
        wanted = f"have shape [Cout, {x.shape[1] / count:g}, kh, kw] to match x {tuple(x.shape)}"
        _check.fail(op, "weight", wanted, tuple(weight.shape))
    if bias is not None:
        _check.same_dtype(op, "bias", bias, "x", x)
        _check.shape(op, "bias", bias, [weight.shape[0]])
    geometry = _geometry(op, "x", x.shape[2:], weight.shape[2:], stride, padding, dilation, groups)
    layout = "nhwc" if memory_format(x) == "nhwc" else "nchw"
    shape = (x.shape[0], weight.shape[0], *geometry.output)
    if not on_gpu(x):
        if family(x) == "torch":
            return _torch_forward(x, weight, bias, geometry, layout)
        y = empty(x, shape, layout=layout)
        y[...] = _numpy_forward(x, weight, bias, geometry)
        return y
    y = empty(x, shape, layout=layout)
    _gather(x, weight, bias, y, geometry, adjoint=False)
    return y


@array_op("grad", "weight")
def conv2d_adjoint_input(
    grad: Any,
    weight: Any,
    input_size: Sequence[int],
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] | str = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Any:
    r"""The transpose of :func:`conv2d` as a map of x: ⟨conv2d(x, w), g⟩ = ⟨x, conv2d_adjoint_input(g, w)⟩.

    .. math:: \bar x[n,c,h,w] = \sum_{o,r,s : h = p s_h - p_h + r d_h, w = q s_w - p_w + s d_w} w[o,c,r,s]\, g[n,o,p,q]

    Parameters
    ----------
    grad : array, [N, Cout, Ho, Wo], float16/bfloat16/float32/float64
    weight : array, [Cout, C / groups, kh, kw], dtype of grad
    input_size : pair (H, W)
        Size of the images that the convolution took.
    stride, padding, dilation, groups
        As the convolution had them.

    Returns
    -------
    array, [N, C, H, W], dtype and library of grad
        Channels last if grad is.

    Raises
    ------
    TypeError, ValueError
        As :func:`conv2d`.

    Notes
    -----
    A gather: each pixel sums what it gave, in a fixed order, without atomics. Same cost as the convolution.
    """
    op = "conv2d_adjoint_input"
    _check_image(op, "grad", grad, "", None)
    _check.ndim(op, "grad", grad, 4, "[N, Cout, Ho, Wo]")
    _check_weight(op, weight)
    _check.same_dtype(op, "weight", weight, "grad", grad)
    count = _check_groups(op, groups, weight.shape[0])
    size = _check.pair(op, "input_size", input_size, 1)
    geometry = _geometry(op, "input_size", size, weight.shape[2:], stride, padding, dilation, groups)
    _check.shape(op, "grad", grad, ["N", weight.shape[0], *geometry.output])
    layout = "nhwc" if memory_format(grad) == "nhwc" else "nchw"
    shape = (grad.shape[0], weight.shape[1] * count, *size)
    if not on_gpu(grad):
        if family(grad) == "torch":
            return _torch_backward(grad, None, weight, shape, geometry, layout)
        x = empty(grad, shape, layout=layout)
        x[...] = _numpy_adjoint_input(grad, weight, geometry)
        return x
    x = empty(grad, shape, layout=layout)
    _gather(grad, weight, None, x, geometry, adjoint=True)
    return x


@array_op("grad", "x")
def conv2d_adjoint_weight(
    grad: Any,
    x: Any,
    kernel_size: Sequence[int],
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] | str = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Any:
    r"""The transpose of :func:`conv2d` as a map of its weight: ⟨conv2d(x, w), g⟩ = ⟨w, conv2d_adjoint_weight(g, x)⟩.

    .. math:: \bar w[o,c,r,s] = \sum_{n,p,q} g[n,o,p,q] \; x[n, c, p s_h - p_h + r d_h, q s_w - p_w + s d_w]

    Parameters
    ----------
    grad : array, [N, Cout, Ho, Wo], float16/bfloat16/float32/float64
    x : array, [N, C, H, W], dtype of grad
    kernel_size : pair (kh, kw)
    stride, padding, dilation, groups
        As the convolution had them.

    Returns
    -------
    array, [Cout, C / groups, kh, kw], dtype and library of grad

    Raises
    ------
    TypeError, ValueError
        As :func:`conv2d`.

    Notes
    -----
    The pixels are split into shares whose number depends on the shapes alone; shares are summed in order,
    in float32 (float64 for float64): the same result on every run and GPU. N = 0 gives zeros.
    """
    op = "conv2d_adjoint_weight"
    _check_image(op, "grad", grad, "", None)
    _check.ndim(op, "grad", grad, 4, "[N, Cout, Ho, Wo]")
    _check_image(op, "x", x, "grad", grad)
    _check.ndim(op, "x", x, 4, "[N, C, H, W]")
    count = _check_groups(op, groups, grad.shape[1])
    if x.shape[1] % count:
        _check.fail(op, "groups", f"divide C ({x.shape[1]})", count)
    size = _check.pair(op, "kernel_size", kernel_size, 1)
    geometry = _geometry(op, "x", x.shape[2:], size, stride, padding, dilation, groups)
    _check.shape(op, "grad", grad, [x.shape[0], "Cout", *geometry.output])
    shape = (grad.shape[1], x.shape[1] // count, *size)
    if not on_gpu(grad):
        if family(grad) == "torch":
            return _torch_backward(grad, x, None, shape, geometry, "nchw")
        return _numpy_adjoint_weight(grad, x, geometry).astype(grad.dtype)
    weight = empty(grad, shape)
    if grad.shape[0] == 0:
        weight[...] = 0
        return weight
    _weight_gradient(grad, x, weight, geometry)
    return weight


@array_op("x", "weight", "bias")
def conv_transpose2d(
    x: Any,
    weight: Any,
    bias: Any = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    output_padding: int | Sequence[int] = 0,
    groups: int = 1,
    dilation: int | Sequence[int] = 1,
) -> Any:
    r"""Transposed convolution: FCN's and U-Net's learned upsampling, the transpose of :func:`conv2d` and a bias.

    .. math:: y[n,o,h,w] = b[o] + \sum_{c,r,s : h = p s_h - p_h + r d_h, w = q s_w - p_w + s d_w} w[c,o,r,s] x[n,c,p,q]

    Parameters
    ----------
    x : array, [N, C, H, W], float16/bfloat16/float32/float64
        Memory by rows or channels last, other strides as they are.
    weight : array, [C, Cout / groups, kh, kw], dtype of x
    bias : array, [Cout], dtype of x, optional
    stride : int or pair (rows, columns), >= 1
        Distance in pixels between what two neighbouring pixels of x give to.
    padding : int or pair (rows, columns), >= 0
        Pixels that are cut off at each side of the result.
    output_padding : int or pair (rows, columns), >= 0
        Rows and columns more at the lower and right side; less than stride or dilation.
    groups : int
        Divides C and Cout; with C groups every channel is upsampled by itself, as by FCN's bilinear weights.
    dilation : int or pair (rows, columns), >= 1

    Returns
    -------
    array, [N, Cout, Ho, Wo], dtype and library of x
        Channels last if x is; Ho = (H - 1) stride - 2 padding + dilation (kh - 1) + output_padding + 1.

    Raises
    ------
    TypeError, ValueError
        As :func:`conv2d`.

    Notes
    -----
    No zeros are inserted and none multiplied: the result falls into stride x stride phases, and the pixels of one sum
    over the few taps that reach them, in a fixed order and without atomics. Cost: 2 N H W C Cout/groups kh kw flop.
    Sums and rounding as in :func:`conv2d`. Gradients: with respect to x ``conv2d(grad, weight, ...)``, to weight
    ``conv2d_adjoint_weight(x, grad, ...)``, to bias ``grad.sum((0, 2, 3))``.

    References
    ----------
    .. [1] J. Long, E. Shelhamer, T. Darrell, "Fully convolutional networks for semantic segmentation", CVPR 2015, 3.3.

    Examples
    --------
    >>> import numpy as np, cv3gpu
    >>> x = np.array([[1.0, 2.0], [3.0, 4.0]]).reshape(1, 1, 2, 2)
    >>> cv3gpu.conv_transpose2d(x, np.ones((1, 1, 2, 2)), stride=2)[0, 0]
    array([[1., 1., 2., 2.],
           [1., 1., 2., 2.],
           [3., 3., 4., 4.],
           [3., 3., 4., 4.]])
    """
    op = "conv_transpose2d"
    _check_image(op, "x", x, "", None)
    _check.ndim(op, "x", x, 4, "[N, C, H, W]")
    _check.dtype(op, "weight", weight, DTYPES)
    _check.ndim(op, "weight", weight, 4, "[C, Cout / groups, kh, kw]")
    if 0 in weight.shape:
        _check.fail(op, "weight", "have no empty dimension", tuple(weight.shape))
    _check.same_dtype(op, "weight", weight, "x", x)
    if x.shape[1] != weight.shape[0]:
        _check.fail(op, "weight", f"have C = {x.shape[1]} first to match x {tuple(x.shape)}", tuple(weight.shape))
    count = _check.integer(op, "groups", groups, 1)
    if weight.shape[0] % count:
        _check.fail(op, "groups", f"divide C ({weight.shape[0]})", count)
    if bias is not None:
        _check.same_dtype(op, "bias", bias, "x", x)
        _check.shape(op, "bias", bias, [weight.shape[1] * count])
    geometry = _transposed_geometry(op, x, weight, stride, padding, output_padding, dilation, count)
    layout = "nhwc" if memory_format(x) == "nhwc" else "nchw"
    shape = (x.shape[0], weight.shape[1] * count, *geometry.input)
    if not on_gpu(x):
        if family(x) == "torch":
            return _torch_transposed(x, weight, bias, geometry, layout)
        y = empty(x, shape, layout=layout)
        y[...] = _numpy_adjoint_input(x, weight, geometry) + (0 if bias is None else _wide(bias)[:, None, None])
        return y
    y = empty(x, shape, layout=layout)
    _gather(x, weight, bias, y, geometry, adjoint=True)
    return y


def _transposed_geometry(
    op: str, x: Any, weight: Any, stride: Any, padding: Any, output_padding: Any, dilation: Any, groups: int
) -> Geometry:
    """Of the convolution that takes the result's pixels to x's; output_padding may leave it some that give nothing."""
    steps, spread = _check.pair(op, "stride", stride, 1), _check.pair(op, "dilation", dilation, 1)
    rows, cols = _check.pair(op, "padding", padding, 0)
    more = _check.pair(op, "output_padding", output_padding, 0)
    if any(m >= max(s, d) for m, s, d in zip(more, steps, spread, strict=True)):
        _check.fail(op, "output_padding", f"be less than stride {steps} or dilation {spread}", more)
    size, kernel_size = (int(n) for n in x.shape[2:]), (int(k) for k in weight.shape[2:])
    given, taps = tuple(size), tuple(kernel_size)
    if min(given) < 1:
        _check.fail(op, "x", "have rows and columns", tuple(x.shape))
    out = tuple(
        (n - 1) * s - 2 * p + d * (k - 1) + m + 1
        for n, s, p, d, k, m in zip(given, steps, (rows, cols), spread, taps, more, strict=True)
    )
    if min(out) < 1:
        _check.fail(op, "padding", f"leave some of the result, which has {out} rows and columns", (rows, cols))
    if max(out) + 2 * max(rows, cols) >= 2**31:
        _check.fail(op, "stride", "leave the padded result under 2**31 rows and columns", out)
    return Geometry(out, given, taps, steps, (rows, rows, cols, cols), spread, groups)  # type: ignore[arg-type]


# ---- CPU: torch -----------------------------------------------------------------------------------------


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


def _torch_forward(x: Any, weight: Any, bias: Any, geometry: Geometry, layout: str) -> Any:
    """The CPU kernels of torch itself; 16-bit inputs in float32, as not every processor sums them so."""
    torch = sys.modules["torch"]
    dtype = x.dtype
    if dtype_name(x) in SIXTEEN_BIT:
        x, weight, bias = x.float(), weight.float(), None if bias is None else bias.float()
    padded, padding = _torch_padding(x, geometry)
    y = torch.convolution(
        padded, weight, bias, geometry.stride, padding, geometry.dilation, False, [0, 0], geometry.groups
    )
    if y.dtype != dtype:
        y = y.to(dtype)
    return y.contiguous(memory_format=_torch_format(layout))


def _torch_transposed(x: Any, weight: Any, bias: Any, geometry: Geometry, layout: str) -> Any:
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


def _torch_backward(grad: Any, x: Any, weight: Any, shape: Sequence[int], geometry: Geometry, layout: str) -> Any:
    """The adjoint in whichever of x and weight is None; ``shape`` is the result's."""
    torch = sys.modules["torch"]
    dtype = grad.dtype
    if dtype_name(grad) in SIXTEEN_BIT:
        grad, x, weight = (None if t is None else t.float() for t in (grad, x, weight))
    wants_input = x is None
    if wants_input:
        x = grad.new_empty(shape)
    else:
        weight = grad.new_empty(shape)  # of real memory: an expanded one gives a wrong gradient for channels_last x
    if grad.shape[0] == 0:
        return grad.new_zeros(shape, dtype=dtype).contiguous(memory_format=_torch_format(layout))
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
    return result.to(dtype).contiguous(memory_format=_torch_format(layout))


# ---- CPU: NumPy -----------------------------------------------------------------------------------------


def _taps(geometry: Geometry) -> Iterator[tuple[int, int, tuple[slice, slice], tuple[slice, slice]]]:
    """Each tap (r, s) that meets the image, with the results that it gives to and the pixels it takes from."""

    def axis(a: int, tap: int) -> tuple[slice, slice]:
        shift = tap * geometry.dilation[a] - geometry.padding[2 * a]
        step = geometry.stride[a]
        first = max(0, -(shift // step))
        last = min(geometry.output[a], (geometry.input[a] - 1 - shift) // step + 1)
        start = first * step + shift
        return slice(first, max(first, last)), slice(start, start + (last - first) * step, step)

    for r in range(geometry.kernel[0]):
        out_rows, in_rows = axis(0, r)
        for s in range(geometry.kernel[1]):
            out_cols, in_cols = axis(1, s)
            if out_rows.stop > out_rows.start and out_cols.stop > out_cols.start:
                yield r, s, (out_rows, out_cols), (in_rows, in_cols)


def _wide(x: np.ndarray) -> np.ndarray:
    return x if x.dtype.itemsize > 2 else x.astype(np.float32)


def _grouped(x: np.ndarray, groups: int) -> np.ndarray:
    """[N, C, h, w] as [N, groups, C / groups, h * w]."""
    n, c, h, w = x.shape
    return x.reshape(n, groups, c // groups, h * w)


def _numpy_forward(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None, geometry: Geometry) -> np.ndarray:
    """One matrix product per tap, over the results that the tap reaches."""
    x, weight = _wide(x), _wide(weight)
    n, g, out = x.shape[0], geometry.groups, weight.shape[0]
    y = np.zeros((n, out, *geometry.output), x.dtype)
    if bias is not None:
        y += _wide(bias)[:, None, None]
    taps = weight.reshape(g, out // g, weight.shape[1], *geometry.kernel)
    for r, s, (rows, cols), (in_rows, in_cols) in _taps(geometry):
        part = _grouped(x[:, :, in_rows, in_cols], g)
        target = y[:, :, rows, cols]
        target += _product(taps[..., r, s], part).reshape(target.shape)
    return y


def _numpy_adjoint_input(grad: np.ndarray, weight: np.ndarray, geometry: Geometry) -> np.ndarray:
    grad, weight = _wide(grad), _wide(weight)
    n, g, out = grad.shape[0], geometry.groups, weight.shape[0]
    x = np.zeros((n, weight.shape[1] * g, *geometry.input), grad.dtype)
    taps = weight.reshape(g, out // g, weight.shape[1], *geometry.kernel).swapaxes(1, 2)
    for r, s, (rows, cols), (in_rows, in_cols) in _taps(geometry):
        part = _grouped(grad[:, :, rows, cols], g)
        target = x[:, :, in_rows, in_cols]
        target += _product(taps[..., r, s], part).reshape(target.shape)
    return x


def _numpy_adjoint_weight(grad: np.ndarray, x: np.ndarray, geometry: Geometry) -> np.ndarray:
    grad, x = _wide(grad), _wide(x)
    g, out, channels = geometry.groups, grad.shape[1], x.shape[1]
    weight = np.zeros((g, out // g, channels // g, *geometry.kernel), grad.dtype)
    for r, s, (rows, cols), (in_rows, in_cols) in _taps(geometry):
        left = _grouped(grad[:, :, rows, cols], g)
        right = _grouped(x[:, :, in_rows, in_cols], g)
        weight[..., r, s] = np.matmul(left, right.swapaxes(2, 3)).sum(axis=0)
    return weight.reshape(out, channels // g, *geometry.kernel)


def _product(matrix: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """[g, a, b] times [N, g, b, p]; an outer product where b is 1, as depthwise taps have it."""
    return matrix * columns if matrix.shape[2] == 1 else np.matmul(matrix, columns)


# ---- GPU ------------------------------------------------------------------------------------------------


def _gather(source: Any, weight: Any, bias: Any, result: Any, geometry: Geometry, *, adjoint: bool) -> None:
    """Fills ``result`` with the convolution of ``source``, or with its transpose."""
    if 0 in result.shape:
        return
    source = readable(source)
    wide, narrow = weight.shape[:2]  # Cout, and C / groups
    to, of = (narrow, wide // geometry.groups) if adjoint else (wide // geometry.groups, narrow)
    if narrow == 1 and (to == 1 or not adjoint):
        _depthwise(source, weight, bias, result, geometry, adjoint)
    elif dtype_name(source) in SIXTEEN_BIT and compute_capability(source) >= 80 and of * geometry.taps >= 16:
        _tensor_cores(source, weight, bias, result, geometry, adjoint, to, of)
    else:
        _ordinary_cores(source, weight, bias, result, geometry, adjoint, to, of)


def _sizes(geometry: Geometry, adjoint: bool) -> tuple[int, int, int, int]:
    """Rows and columns of the source, then of the result."""
    return (*geometry.output, *geometry.input) if adjoint else (*geometry.input, *geometry.output)


def _round_up(n: int, unit: int) -> int:
    return blocks(n, unit) * unit


def _pack_weight(weight: Any, groups: int, rows_are_cout: bool, pitch_unit: int) -> Any:
    """Weights as [groups, taps, a, pitch]: (Cout, C) where ``rows_are_cout``, else (C, Cout), of a group."""
    wide, narrow, kh, kw = weight.shape
    steps = strides(weight)
    per_group = wide // groups
    rows, cols = (per_group, narrow) if rows_are_cout else (narrow, per_group)
    row_step, col_step = (steps[0], steps[1]) if rows_are_cout else (steps[1], steps[0])
    pitch = _round_up(cols, pitch_unit)
    packed = empty(weight, (groups, kh * kw, rows, pitch))
    size = groups * kh * kw * rows * pitch
    launch = kernel("conv_pack.cu", "conv2d_pack_weight", real=dtype_name(weight))
    launch(
        (min(blocks(size, 256), 4096),), 256, weight, packed,
        per_group * steps[0], row_step, col_step, steps[2], steps[3], groups, kh, kw, rows, cols, pitch,
    )  # fmt: skip
    return packed


def _tile(real: str, channels: int, pixels: int, groups: int) -> int:
    """Side of the tile that a block computes: the large one where it still gives every multiprocessor a block."""
    large = real != "float64" and channels > 64 and blocks(pixels, 128) * blocks(channels, 128) * groups >= 132
    return 128 if large else 64


def _ordinary_cores(
    source: Any, weight: Any, bias: Any, result: Any, geometry: Geometry, adjoint: bool, to: int, of: int
) -> None:
    real, groups = dtype_name(source), geometry.groups
    source_rows, source_cols, rows, cols = _sizes(geometry, adjoint)
    images, (phases, plane) = result.shape[0], geometry.phases() if adjoint else (1, (rows, cols))
    pixels = images * plane[0] * plane[1]
    packed = _pack_weight(readable(weight), groups, adjoint, 4)
    tile = _tile(real, to, pixels * phases, groups)
    both_last = memory_format(source) == "nhwc" == memory_format(result)
    if both_last and of % 4 == 0 and to % 4 == 0 and pointer(source).address % 16 == 0:
        layout = 2
    else:
        packs = real in SIXTEEN_BIT and memory_format(result) == "nchw" and rows * cols % 4 == 0 and phases == 1
        layout = 1 if packs else 0
    launch = kernel("conv.cu", "conv2d_gather", real=real, ADJOINT=adjoint, LAYOUT=layout, TILE=tile)
    launch(
        (blocks(pixels, tile) * blocks(to, tile) * groups * phases,), 256,
        source, packed, bias, result, *strides(source), *strides(result),
        images, of, to, packed.shape[3], source_rows, source_cols, rows, cols, *geometry.scalars(),
        *geometry.progressions(), 1.0 / (plane[0] * plane[1]),
    )  # fmt: skip


def _pack_lines(x: Any, groups: int) -> tuple[Any, int]:
    """Images channels last, each group's channels rounded up to 8 (16 bytes); and that number. A copy where needed."""
    images, channels, rows, cols = x.shape
    pitch = _round_up(channels // groups, 8)
    if memory_format(x) == "nhwc" and pitch * groups == channels and pointer(x).address % 16 == 0:
        return x, pitch
    lines = empty(x, (images, rows * cols, groups, pitch))
    kernel("conv_pack.cu", "conv2d_pack_input", real=dtype_name(x))(
        (blocks(rows * cols, 32), blocks(pitch, 32), min(images * groups, MAX_GRID_YZ)), (32, 8),
        x, lines, *strides(x), images, groups, channels // groups, rows, cols, pitch,
    )  # fmt: skip
    return lines, pitch


def _stages(x: Any) -> int:
    """Depth of the copy pipeline: two blocks of four stages need more than 100 KiB of shared memory an SM."""
    return 4 if compute_capability(x) in (80, 87, 90, 100, 103) else 3


def _tensor_cores(
    source: Any, weight: Any, bias: Any, result: Any, geometry: Geometry, adjoint: bool, to: int, of: int
) -> None:
    real, groups = dtype_name(source), geometry.groups
    source_rows, source_cols, rows, cols = _sizes(geometry, adjoint)
    images, (phases, plane) = result.shape[0], geometry.phases() if adjoint else (1, (rows, cols))
    pixels = images * plane[0] * plane[1]
    packed = _pack_weight(readable(weight), groups, not adjoint, 8)
    lines, pitch = _pack_lines(source, groups)
    tile = 64 if to <= 64 else 128
    stages = _stages(source)
    last = memory_format(result) == "nhwc"
    launch = kernel("conv_mma.cu", "conv2d_mma", real=real, ADJOINT=adjoint, BN=tile, STAGES=stages, CHANNELS_LAST=last)
    launch(
        (blocks(pixels, 128) * blocks(to, tile) * groups * phases,), 256,
        lines, packed, bias, result, images, groups, pitch, to, source_rows, source_cols, rows, cols,
        *geometry.scalars(), *geometry.progressions(), 1.0 / (plane[0] * plane[1]),
        shared_mem=stages * (128 + tile) * 64,
    )  # fmt: skip


def _unrolled(kernel_size: tuple[int, int]) -> int:
    """The kernel sizes that are unrolled at compile time; 0 for any other."""
    return kernel_size[0] if kernel_size in ((3, 3), (5, 5)) else 0


def _depthwise(source: Any, weight: Any, bias: Any, result: Any, geometry: Geometry, adjoint: bool) -> None:
    real = dtype_name(source)
    source_rows, source_cols, rows, cols = _sizes(geometry, adjoint)
    images, channels = result.shape[:2]
    multiplier = weight.shape[0] // geometry.groups
    together = 4 if geometry.stride == (1, 1) else 1
    row_groups = blocks(rows, geometry.dilation[0] * together) * geometry.dilation[0] if together > 1 else rows
    last = memory_format(source) == "nhwc" == memory_format(result) and multiplier == 1 and channels % 4 == 0
    constants = {"real": real, "ADJOINT": adjoint, "K": _unrolled(geometry.kernel), "ROWS": together}
    weight = contiguous(weight)
    shared = geometry.taps * 128 * (8 if real == "float64" else 4)
    columns = row_groups * blocks(cols, 8)
    if last and shared <= 48 << 10 and columns <= MAX_GRID_YZ and pointer(source).address % (4 * source.itemsize) == 0:
        kernel("conv_depthwise.cu", "depthwise_channels", **constants)(
            (blocks(channels, 128), columns, min(images, MAX_GRID_YZ)), (32, 8),
            source, weight, bias, result, images, channels, source_rows, source_cols, rows, cols,
            *geometry.scalars(), *geometry.progressions(), row_groups, shared_mem=shared,
        )  # fmt: skip
        return
    across = next((n for n in (32, 64, 128) if n >= row_groups * cols), 256)
    planes = blocks(images * channels, 256 // across)
    kernel("conv_depthwise.cu", "depthwise_planes", **constants)(
        (blocks(row_groups * cols, across), min(planes, MAX_GRID_YZ)), (across, 256 // across),
        source, weight, bias, result, *strides(source), *strides(result),
        images, channels, multiplier, source_rows, source_cols, rows, cols, *geometry.scalars(),
        *geometry.progressions(), row_groups,
    )  # fmt: skip


def _shares(pixels: int, unit: int, parallel: int, largest: int) -> tuple[int, int]:
    """Into how many shares the pixels are split so that about 500 blocks run, and the pixels of each."""
    count = max(1, min(blocks(528, parallel), blocks(pixels, 8 * unit), largest))
    share = _round_up(blocks(pixels, count), unit)
    return blocks(pixels, share), share


def _weight_gradient(grad: Any, x: Any, weight: Any, geometry: Geometry) -> None:
    grad, x = readable(grad), readable(x)
    real = dtype_name(grad)
    accumulator = "float64" if real == "float64" else "float32"
    groups = geometry.groups
    images, out = grad.shape[:2]
    channels = x.shape[1]
    rows, cols = geometry.output
    pixels = images * rows * cols
    sizes = (*geometry.input, rows, cols, *geometry.scalars(), 1.0 / (rows * cols))
    last = memory_format(grad) == "nhwc" == memory_format(x)
    if channels == groups:
        unrolled = _unrolled(geometry.kernel)
        across = blocks(out, 32) if last else out
        splits, share = _shares(pixels, 256, across, 64)
        partial = empty(grad, (splits, out, geometry.taps), accumulator)
        constants = {"real": real, "K": unrolled, "CHANNELS_LAST": last}
        kernel("conv_depthwise_weight.cu", "depthwise_weight", **constants)(
            (across, splits, 1 if unrolled else geometry.taps), 256,
            grad, x, partial, *strides(grad), *strides(x), share, images, out, out // groups, *sizes,
        )  # fmt: skip
        size = out * geometry.taps
        kernel("conv_depthwise_weight.cu", "depthwise_weight_reduce", **constants)(
            (min(blocks(size, 256), 4096),), 256, partial, weight, size, splits
        )
        return
    wide, narrow = out // groups, channels // groups
    if real in SIXTEEN_BIT and compute_capability(grad) >= 80:
        tile = 64 if narrow <= 64 else 128
        tiles = groups * geometry.taps * blocks(wide, 128) * blocks(narrow, tile)
        splits, share = _shares(pixels, 32, tiles, 64)
        partial = empty(grad, (splits, groups, geometry.taps, wide, narrow), accumulator)
        (grad_lines, grad_pitch), (lines, pitch) = _pack_lines(grad, groups), _pack_lines(x, groups)
        stages = _stages(grad)
        kernel("conv_weight_mma.cu", "conv2d_weight_mma", real=real, BN=tile, STAGES=stages)(
            (tiles * splits,), 256, grad_lines, lines, partial, share, images, groups, grad_pitch, pitch, wide, narrow,
            *sizes, shared_mem=stages * (128 + tile) * 64,
        )  # fmt: skip
    else:
        tiles = groups * geometry.taps * blocks(wide, 64) * blocks(narrow, 64)
        splits, share = _shares(pixels, 16, tiles, 64)
        partial = empty(grad, (splits, groups, geometry.taps, wide, narrow), accumulator)
        kernel("conv_weight.cu", "conv2d_weight_partial", real=real, CHANNELS_LAST=last)(
            (tiles * splits,), 256,
            grad, x, partial, *strides(grad), *strides(x), share, images, groups, wide, narrow, *sizes,
        )  # fmt: skip
    kernel("conv_weight.cu", "conv2d_weight_reduce", real=real, CHANNELS_LAST=0)(
        (min(blocks(groups * geometry.taps * wide * narrow, 256), 4096),), 256,
        partial, weight, splits, groups, geometry.taps, wide, narrow,
    )  # fmt: skip
