"""2-D convolution, its two adjoints, and transposed convolution: what is asked, checked, and handed on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .. import _check
from .._array import array_op, empty, family, memory_format, on_gpu
from . import _cpu, _gpu
from ._gpu import ACTIVATIONS, Epilogue
from .geometry import DTYPES, Geometry, geometry_of

__all__ = ["conv2d", "conv2d_adjoint_input", "conv2d_adjoint_weight", "conv_transpose2d"]


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


@array_op("x", "weight", "bias", "scale")
def conv2d(
    x: Any,
    weight: Any,
    bias: Any = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] | str = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    *,
    padding_mode: str = "zeros",
    scale: Any = None,
    activation: str | None = None,
    allow_tf32: bool = False,
) -> Any:
    r"""2-D convolution (cross-correlation, as in every network library).

    .. math:: y[n,o,p,q] = f(a[o] \sum_{c,r,s} w[o,c,r,s] \; x[n, c, p s_h - p_h + r d_h, q s_w - p_w + s d_w] + b[o])

    with zeros outside the image (or what ``padding_mode`` puts there), c running over the channels of o's group, the
    factor a (``scale``) and the activation f where they are given.

    Parameters
    ----------
    x : array, [N, C, H, W], float16/bfloat16/float32/float64
        Images; memory by rows or channels last, other strides as they are.
    weight : array, [Cout, C / groups, kh, kw], dtype of x
    bias : array, [Cout], dtype of x, optional
    stride : int or pair (rows, columns), >= 1
    padding : int, pair (rows, columns), (top, bottom, left, right), ``"same"`` or ``"valid"``
        Pixels around the image. ``"same"`` keeps the size (stride 1); an even kernel then has one more row or
        column after than before.
    dilation : int or pair (rows, columns), >= 1
        Distance in pixels between the kernel's taps.
    groups : int
        Divides C and Cout; ``groups == C`` is a depthwise convolution.
    padding_mode : {"zeros", "reflect", "replicate", "circular"}
        What the pixels around the image hold, as `torch.nn.Conv2d` has it: zeros, the image mirrored at its outermost
        pixels (padding less than the image), those pixels again, or the opposite side (padding at most the image).
    scale : array, [Cout], dtype of x, optional
        Factor of the sums, before the bias: that of a batch norm in use (:func:`cv3gpu.nn.fold_batch_norm`).
    activation : {"relu", "relu6"}, optional
        max(y, 0), or min(max(y, 0), 6).
    allow_tf32 : bool
        Whether float32 inputs may be rounded to TF32 on a GPU's tensor cores (see Notes); nothing else asks for it.

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
    Sums are kept in float32 (float64 for float64), scaled, biased and clipped there, and rounded once. Cost:
    2 N Ho Wo Cout C/groups kh kw flop, less the taps in the padding: for a large dilation pixels are taken by tap
    class, in nine rectangles, so that none of it is multiplied. Padding modes read the image itself, no padded copy is
    made on a GPU. 16-bit inputs run on the tensor cores (compute capability 8.0 and up). The result is the same from
    run to run.

    With ``allow_tf32``, products on a GPU (8.0 and up) keep 10 bits of mantissa: an error of up to 2^-10 of the sum of
    the absolute products, 0.1 %, where float32 has 2^-23 or so. Without it float32 is never replaced. CPU paths and
    depthwise convolutions do not use it; torch's own ``allow_tf32`` flags are not read.

    Gradients: :func:`conv2d_adjoint_input`, :func:`conv2d_adjoint_weight`, and ``grad.sum((0, 2, 3))``; in torch of any
    order, scale and activation included. N = 0 gives an empty result.

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
    if scale is not None:
        _check.same_dtype(op, "scale", scale, "x", x)
        _check.shape(op, "scale", scale, [weight.shape[0]])
    if activation is not None:
        _check.choice(op, "activation", activation, ACTIVATIONS)
    _check.flag(op, "allow_tf32", allow_tf32)
    steps = stride, padding, dilation, groups, padding_mode
    geometry = geometry_of(op, "x", x.shape[2:], weight.shape[2:], *steps)
    epilogue = Epilogue(scale, bias, None, activation)
    layout = "nhwc" if memory_format(x) == "nhwc" else "nchw"
    shape = (x.shape[0], weight.shape[0], *geometry.output)
    if not on_gpu(x):
        if family(x) == "torch":
            return _cpu.torch_forward(x, weight, bias, geometry, layout, epilogue)
        y = empty(x, shape, layout=layout)
        _cpu.numpy_forward(x, weight, y, geometry, epilogue)
        return y
    y = empty(x, shape, layout=layout)
    _gpu.gather(x, weight, _gpu.whole(y, layout), geometry, epilogue, adjoint=False, tf32=allow_tf32)
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
    *,
    padding_mode: str = "zeros",
    allow_tf32: bool = False,
) -> Any:
    r"""The transpose of :func:`conv2d` as a map of x: ⟨conv2d(x, w), g⟩ = ⟨x, conv2d_adjoint_input(g, w)⟩.

    .. math:: \bar x[n,c,h,w] = \sum_{o,r,s : h = p s_h - p_h + r d_h, w = q s_w - p_w + s d_w} w[o,c,r,s]\, g[n,o,p,q]

    Parameters
    ----------
    grad : array, [N, Cout, Ho, Wo], float16/bfloat16/float32/float64
    weight : array, [Cout, C / groups, kh, kw], dtype of grad
    input_size : pair (H, W)
        Size of the images that the convolution took.
    stride, padding, dilation, groups, padding_mode, allow_tf32
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
    A gather: each pixel sums what it gave, in a fixed order, without atomics. Same cost as the convolution. With a
    ``padding_mode`` other than zeros the gradient of the padded image is made first, in the precision of the sums, and
    each pixel then adds up the places at which it stands.
    """
    op = "conv2d_adjoint_input"
    _check_image(op, "grad", grad, "", None)
    _check.ndim(op, "grad", grad, 4, "[N, Cout, Ho, Wo]")
    _check_weight(op, weight)
    _check.same_dtype(op, "weight", weight, "grad", grad)
    count = _check_groups(op, groups, weight.shape[0])
    size = _check.pair(op, "input_size", input_size, 1)
    _check.flag(op, "allow_tf32", allow_tf32)
    geometry = geometry_of(op, "input_size", size, weight.shape[2:], stride, padding, dilation, groups, padding_mode)
    _check.shape(op, "grad", grad, ["N", weight.shape[0], *geometry.output])
    layout = "nhwc" if memory_format(grad) == "nhwc" else "nchw"
    shape = (grad.shape[0], weight.shape[1] * count, *size)
    if not on_gpu(grad):
        if family(grad) == "torch":
            return _cpu.torch_backward(grad, None, weight, shape, geometry, layout)
        x = empty(grad, shape, layout=layout)
        x[...] = _cpu.numpy_adjoint_input(grad, weight, geometry)
        return x
    x = empty(grad, shape, layout=layout)
    _gpu.adjoint_input(grad, weight, _gpu.whole(x, layout), geometry, tf32=allow_tf32)
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
    *,
    padding_mode: str = "zeros",
) -> Any:
    r"""The transpose of :func:`conv2d` as a map of its weight: ⟨conv2d(x, w), g⟩ = ⟨w, conv2d_adjoint_weight(g, x)⟩.

    .. math:: \bar w[o,c,r,s] = \sum_{n,p,q} g[n,o,p,q] \; x[n, c, p s_h - p_h + r d_h, q s_w - p_w + s d_w]

    Parameters
    ----------
    grad : array, [N, Cout, Ho, Wo], float16/bfloat16/float32/float64
    x : array, [N, C, H, W], dtype of grad
    kernel_size : pair (kh, kw)
    stride, padding, dilation, groups, padding_mode
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
    in float32 (float64 for float64): the same result on every run and GPU. TF32 is never used. N = 0 gives zeros.
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
    geometry = geometry_of(op, "x", x.shape[2:], size, stride, padding, dilation, groups, padding_mode)
    _check.shape(op, "grad", grad, [x.shape[0], "Cout", *geometry.output])
    shape = (grad.shape[1], x.shape[1] // count, *size)
    if 0 in shape:
        return empty(grad, shape)
    if not on_gpu(grad):
        if family(grad) == "torch":
            return _cpu.torch_backward(grad, x, None, shape, geometry, "nchw")
        return _cpu.numpy_adjoint_weight(grad, x, geometry).astype(grad.dtype)
    weight = empty(grad, shape)
    if grad.shape[0] == 0:
        weight[...] = 0
        return weight
    _gpu.weight_gradient(grad, x, weight, geometry)
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
    *,
    diagonal: bool = False,
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
    diagonal : bool
        Whether only ``weight[c, c]`` is read, and every channel upsampled by itself, as FCN's bilinear weights have it
        (C = Cout, groups 1).

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
    Sums and rounding as in :func:`conv2d`. A diagonal weight takes 1 / C of that: on a CPU it is
    recognised; on a GPU the test would wait for the device, and ``diagonal=True`` says it
    (:class:`cv3gpu.nn.ConvTranspose2d` finds out once, in eval mode). Zeros that are left out make no NaN of infinities
    in x. Gradients: with respect to x ``conv2d(grad, weight, ...)``, to weight
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
    if _check.flag(op, "diagonal", diagonal) or (not on_gpu(x) and count == 1 and _cpu.is_diagonal(weight)):
        weight, count = diagonal_of(op, weight, count)
        geometry = geometry._replace(groups=count)
    layout = "nhwc" if memory_format(x) == "nhwc" else "nchw"
    shape = (x.shape[0], weight.shape[1] * count, *geometry.input)
    if not on_gpu(x):
        if family(x) == "torch":
            return _cpu.torch_transposed(x, weight, bias, geometry, layout)
        y = empty(x, shape, layout=layout)
        sums = _cpu.numpy_adjoint_input(x, weight, geometry)
        y[...] = sums if bias is None else sums + _cpu.wide(bias)[:, None, None]
        return y
    y = empty(x, shape, layout=layout)
    epilogue = Epilogue(bias=bias)
    _gpu.gather(x, weight, _gpu.whole(y, layout), geometry, epilogue, adjoint=True, tf32=False)
    return y


def diagonal_of(op: str, weight: Any, groups: int) -> tuple[Any, int]:
    """A view of weight[c, c] as [C, 1, kh, kw], and its groups."""
    if weight.ndim != 4 or groups != 1 or weight.shape[0] != weight.shape[1]:
        wanted = "have shape [C, C, kh, kw] and groups be 1 where diagonal is True"
        _check.fail(op, "weight", wanted, f"{tuple(weight.shape)} with {groups} groups")
    picked = weight.diagonal(0, 0, 1)  # of all libraries: [kh, kw, C]
    order = (2, 0, 1)
    return (picked.permute(order) if family(weight) == "torch" else picked.transpose(order))[:, None], weight.shape[0]


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
