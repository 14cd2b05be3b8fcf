"""The torch operators ``torch.ops.cv3gpu.*``: registration, and no mathematics.

Each operator has kernels for CPU and CUDA (both call the plain operator, which asks the tensor where it
lives), a fake for tracing (shape, dtype and strides of the eager result), a backward made of registered
operators (of linear operators derivatives of any order exist; of `box_iou` and the dense CRF the first; of
`linear_sum_assignment` none), and rules for autocast and ``torch.vmap``. `OPERATORS` holds the functions to
which a public operator hands over when it is called with torch tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor

from .. import _check, assignment, boxes, conv, resize
from . import atrous_ops, crf_ops, message_ops, pool_ops, pyramid_ops, resize_conv_ops, separable_ops, upsample_ops
from ._registration import batch_vmap, define, empty, in_front, is_size, nothing_setup, pair_of_sizes, register

__all__ = ["OPERATORS"]

_GEOMETRY = "int[2] stride=1, int[2] padding=0, int[2] dilation=1, SymInt groups=1"
_SAMPLING = 'float[2]? scale_factor=None, str mode="nearest", bool? align_corners=None, bool antialias=False'
_OVERLAP = 'str format="xyxy", str kind="iou"'

_CONV2D = define(
    "conv2d",
    f'Tensor x, Tensor weight, Tensor? bias=None, {_GEOMETRY}, str padding_mode="zeros", Tensor? scale=None, '
    "str? activation=None, bool allow_tf32=False",
    conv.conv2d,
)
_CONV2D_ADJOINT_INPUT = define(
    "conv2d_adjoint_input",
    f'Tensor grad, Tensor weight, SymInt[2] input_size, {_GEOMETRY}, str padding_mode="zeros", bool allow_tf32=False',
    conv.conv2d_adjoint_input,
)
_CONV2D_ADJOINT_WEIGHT = define(
    "conv2d_adjoint_weight",
    f'Tensor grad, Tensor x, SymInt[2] kernel_size, {_GEOMETRY}, str padding_mode="zeros"',
    conv.conv2d_adjoint_weight,
)
_CONV_TRANSPOSE2D = define(
    "conv_transpose2d",
    "Tensor x, Tensor weight, Tensor? bias=None, int[2] stride=1, int[2] padding=0, int[2] output_padding=0, "
    "SymInt groups=1, int[2] dilation=1",
    conv.conv_transpose2d,
)
_INTERPOLATE = define("interpolate", f"Tensor x, SymInt[2]? size=None, {_SAMPLING}", resize.interpolate)
_INTERPOLATE_ADJOINT = define(
    "interpolate_adjoint", f"Tensor grad, SymInt[2] input_size, {_SAMPLING}", resize.interpolate_adjoint
)
_BOX_IOU = define("box_iou", f"Tensor a, Tensor b, {_OVERLAP}", boxes.box_iou)
_BOX_IOU_VJP = define(
    "box_iou_vjp", f"Tensor grad, Tensor a, Tensor b, {_OVERLAP}", boxes.box_iou_vjp, "(Tensor, Tensor)"
)
_LINEAR_SUM_ASSIGNMENT = define(
    "linear_sum_assignment",
    "Tensor cost, bool maximize=False, Tensor? n_rows=None, Tensor? n_cols=None",
    assignment.linear_sum_assignment,
    "(Tensor row_ind, Tensor col_ind, Tensor total)",
)


# ---- backward -------------------------------------------------------------------------------------------
#
# The sums of conv2d are linear in x and in weight, so the three operators are closed under differentiation; a resize
# is linear in x alone. Every setup keeps only the tensors that a wanted gradient needs.


def _bilinear_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    first, second, _, *ctx.geometry = inputs
    wants_first, wants_second = ctx.needs_input_grad[:2]
    ctx.save_for_backward(first if wants_second else None, second if wants_first else None)
    ctx.first_size, ctx.second_size = first.shape[2:], second.shape[2:]


def _wanted(ctx: Any) -> tuple[bool, bool, bool, bool]:
    """Whether gradients of x, weight, bias and scale are wanted; arguments that were left out are not counted."""
    needs = (*ctx.needs_input_grad, *(False,) * 9)
    return needs[0], needs[1], needs[2], needs[8]


def _conv2d_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, _, *ctx.steps, ctx.padding_mode, scale, ctx.activation, ctx.allow_tf32 = inputs
    wants_x, wants_weight, _, wants_scale = _wanted(ctx)
    ctx.save_for_backward(
        x if wants_weight or wants_scale else None,
        weight if wants_x or wants_scale else None,
        scale if wants_x or wants_weight else None,
        output if ctx.activation else None,
    )
    ctx.first_size, ctx.second_size = x.shape[2:], weight.shape[2:]


def _conv2d_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    x, weight, scale, output = ctx.saved_tensors
    wants_x, wants_weight, wants_bias, wants_scale = _wanted(ctx)
    mode, tf32 = ctx.padding_mode, ctx.allow_tf32
    if output is not None and ctx.activation == "relu":
        grad = torch.ops.aten.threshold_backward(grad, output, 0)
    elif output is not None:
        grad = torch.ops.aten.hardtanh_backward(grad, output, 0, 6)
    inner = grad if scale is None else grad * scale[:, None, None]
    sums = _CONV2D(x, weight, None, *ctx.steps, mode, None, None, tf32) if wants_scale else None
    return (
        _CONV2D_ADJOINT_INPUT(inner, weight, ctx.first_size, *ctx.steps, mode, tf32) if wants_x else None,
        _CONV2D_ADJOINT_WEIGHT(inner, x, ctx.second_size, *ctx.steps, mode) if wants_weight else None,
        grad.sum((0, 2, 3)) if wants_bias else None,
        *(None,) * 5,
        None if sums is None else (grad * sums).sum((0, 2, 3)),
        None,
        None,
    )


def _conv2d_adjoint_input_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    inner, weight = ctx.saved_tensors
    *steps, mode, tf32 = ctx.geometry
    return (
        None if weight is None else _CONV2D(grad, weight, None, *steps, mode, None, None, tf32),
        None if inner is None else _CONV2D_ADJOINT_WEIGHT(inner, grad, ctx.second_size, *steps, mode),
        *(None,) * 7,
    )


def _conv2d_adjoint_weight_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    inner, x = ctx.saved_tensors
    return (
        None if x is None else _CONV2D(x, grad, None, *ctx.geometry),
        None if inner is None else _CONV2D_ADJOINT_INPUT(inner, grad, ctx.second_size, *ctx.geometry),
        *(None,) * 6,
    )


def _conv_transpose2d_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, _, ctx.stride, ctx.padding, ctx.output_padding, ctx.groups, ctx.dilation = inputs
    wants_x, wants_weight = ctx.needs_input_grad[:2]
    ctx.save_for_backward(x if wants_weight else None, weight if wants_x else None)
    ctx.size, ctx.kernel_size = x.shape[2:], weight.shape[2:]


def _conv_transpose2d_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    x, weight = ctx.saved_tensors
    reached, padding = grad, ctx.padding
    if any(more >= step for more, step in zip(ctx.output_padding, ctx.stride, strict=True)):
        reached, padding = _what_is_reached(ctx, grad)
    geometry = ctx.stride, padding, ctx.dilation, ctx.groups
    return (
        None if weight is None else _CONV2D(reached, weight, None, *geometry),
        None if x is None else _CONV2D_ADJOINT_WEIGHT(x, reached, ctx.kernel_size, *geometry),
        grad.sum((0, 2, 3)) if ctx.needs_input_grad[2] else None,
        *(None,) * 5,
    )


def _what_is_reached(ctx: Any, grad: Tensor) -> tuple[Tensor, list[int]]:
    """The part of a gradient that some pixel of x reached, and the padding with which a convolution is of x's size."""
    padding, sizes = [], []
    numbers = zip(grad.shape[2:], ctx.size, ctx.stride, ctx.padding, ctx.dilation, ctx.kernel_size, strict=True)
    for out, n, step, before, dilation, taps in numbers:
        size = torch.sym_min(out, n * step - before + dilation * (taps - 1))
        after = torch.sym_max(0, (n - 1) * step + dilation * (taps - 1) + 1 - before - size)
        padding += [before, after]
        sizes.append(size)
    return grad[:, :, : sizes[0], : sizes[1]], padding


def _resize_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, _, *ctx.sampling = inputs
    ctx.size = x.shape[2:]


def _interpolate_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    return _INTERPOLATE_ADJOINT(grad, ctx.size, *ctx.sampling), *(None,) * 5


def _interpolate_adjoint_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    by_factor = ctx.sampling[0] is not None
    return _INTERPOLATE(grad, None if by_factor else ctx.size, *ctx.sampling), *(None,) * 5


def _box_iou_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    a, b, *ctx.options = inputs
    ctx.save_for_backward(a, b)


def _box_iou_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    by_a, by_b = _BOX_IOU_VJP(grad, *ctx.saved_tensors, *ctx.options)
    wants_a, wants_b = ctx.needs_input_grad[:2]
    return by_a if wants_a else None, by_b if wants_b else None, None, None


def _box_iou_vjp_backward(ctx: Any, *grads: Tensor) -> NoReturn:
    raise NotImplementedError("box_iou_vjp: no gradient is implemented (box_iou has first derivatives only)")


def _linear_sum_assignment_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.mark_non_differentiable(*output)


def _linear_sum_assignment_backward(ctx: Any, *grads: Any) -> tuple[None, ...]:
    return (None,) * 4


# ---- vmap -----------------------------------------------------------------------------------------------
#
# Samples go side by side into the batch where they share the weight, and into the groups where they do not.


def _as_groups(x: Tensor, dim: int | None, n: int) -> Tensor:
    return in_front(x, dim, n).transpose(0, 1).flatten(1, 2)


def _split(x: Tensor, axis: int, n: int) -> tuple[Tensor, int]:
    return x.unflatten(axis, (n, x.shape[axis] // n)), axis


def _conv2d_vmap(
    info: Any, in_dims: tuple[Any, ...], x: Tensor, weight: Tensor, bias: Tensor | None, *given: Any
) -> tuple[Tensor, int]:
    n, (x_dim, weight_dim, bias_dim, *others) = info.batch_size, in_dims
    *geometry, mode, scale, activation, tf32 = given
    more = mode, None, None, tf32
    out, axis = _linear_vmap(_CONV2D, n, x, x_dim, weight, weight_dim, None, geometry, more)
    if scale is not None:
        out, axis = out.movedim(axis, 0) * _per_channel(scale, others[5]), 0
    out, axis = _with_bias(out, axis, bias, bias_dim)
    return out if activation is None else out.clamp(0, None if activation == "relu" else 6), axis


def _per_channel(x: Tensor, dim: int | None) -> Tensor:
    """To go with samples of images: one value a channel, of each sample or of all."""
    return (x if dim is None else x.movedim(dim, 0)[:, None])[..., None, None]


def _with_bias(out: Tensor, axis: int, bias: Tensor | None, bias_dim: int | None) -> tuple[Tensor, int]:
    if bias is not None:
        out, axis = out.movedim(axis, 0) + _per_channel(bias, bias_dim), 0
    return out, axis


def _conv2d_adjoint_input_vmap(
    info: Any, in_dims: tuple[Any, ...], grad: Tensor, weight: Tensor, size: Sequence[int], *given: Any
) -> tuple[Tensor, int]:
    n, (grad_dim, weight_dim, *_), geometry, more = info.batch_size, in_dims, given[:4], given[4:]
    return _linear_vmap(_CONV2D_ADJOINT_INPUT, n, grad, grad_dim, weight, weight_dim, size, geometry, more)


def _linear_vmap(
    op: Any,
    n: int,
    x: Tensor,
    x_dim: int | None,
    weight: Tensor,
    weight_dim: int | None,
    third: Any,
    geometry: Sequence[Any],
    more: Sequence[Any],
) -> tuple[Tensor, int]:
    if weight_dim is None:
        return _split(op(in_front(x, x_dim, n).flatten(0, 1), weight, third, *geometry, *more), 0, n)
    *steps, groups = geometry
    weights = weight.movedim(weight_dim, 0).flatten(0, 1)
    return _split(op(_as_groups(x, x_dim, n), weights, third, *steps, groups * n, *more), 1, n)


def _conv2d_adjoint_weight_vmap(
    info: Any, in_dims: tuple[Any, ...], grad: Tensor, x: Tensor, size: Sequence[int], *given: Any
) -> tuple[Tensor, int]:
    n, (grad_dim, x_dim, *_) = info.batch_size, in_dims
    *steps, groups, mode = given
    grads, images = _as_groups(grad, grad_dim, n), _as_groups(x, x_dim, n)
    return _split(_CONV2D_ADJOINT_WEIGHT(grads, images, size, *steps, groups * n, mode), 0, n)


def _conv_transpose2d_vmap(
    info: Any, in_dims: tuple[Any, ...], x: Tensor, weight: Tensor, bias: Tensor | None, *geometry: Any
) -> tuple[Tensor, int]:
    n, (x_dim, weight_dim, bias_dim, *_) = info.batch_size, in_dims
    if weight_dim is None:
        together = in_front(x, x_dim, n).flatten(0, 1)
        out, axis = _split(_CONV_TRANSPOSE2D(together, weight, None, *geometry), 0, n)
    else:
        *before, groups, dilation = geometry
        weights = weight.movedim(weight_dim, 0).flatten(0, 1)
        apart = _as_groups(x, x_dim, n)
        out, axis = _split(_CONV_TRANSPOSE2D(apart, weights, None, *before, groups * n, dilation), 1, n)
    return _with_bias(out, axis, bias, bias_dim)


def _resize_vmap(op: Any) -> Callable[..., tuple[Tensor, int]]:
    def rule(info: Any, in_dims: tuple[Any, ...], x: Tensor, *sampling: Any) -> tuple[Tensor, int]:
        return _split(op(x.movedim(in_dims[0], 0).flatten(0, 1), *sampling), 0, info.batch_size)

    return rule


# ---- fakes ----------------------------------------------------------------------------------------------


def _conv2d_fake(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sequence[int] = (1, 1),
    padding: Sequence[int] = (0, 0),
    dilation: Sequence[int] = (1, 1),
    groups: int = 1,
    padding_mode: str = "zeros",
    scale: Tensor | None = None,
    activation: str | None = None,
    allow_tf32: bool = False,
) -> Tensor:
    op = "conv2d"
    _check.ndim(op, "x", x, 4, "[N, C, H, W]")
    _check.ndim(op, "weight", weight, 4, "[Cout, C / groups, kh, kw]")
    _check.same_dtype(op, "weight", weight, "x", x)
    if type(groups) is int:
        _check.integer(op, "groups", groups, 1)
    if weight.shape[1] * groups != x.shape[1]:
        wanted = f"[Cout, {int(x.shape[1]) / int(groups):g}, kh, kw]"
        _check.fail(op, "weight", f"have shape {wanted} to match x {tuple(x.shape)}", tuple(weight.shape))
    for name, vector in (("bias", bias), ("scale", scale)):
        if vector is not None:
            _check.same_dtype(op, name, vector, "x", x)
            _check.shape(op, name, vector, [weight.shape[0]])
    kernel_size = weight.shape[2:]
    around = conv.padding_of(op, padding, kernel_size, stride, dilation)
    size = conv.output_size(x.shape[2:], kernel_size, stride, around, dilation)
    return empty(x, (x.shape[0], weight.shape[0], *size))


def _conv2d_adjoint_input_fake(grad: Tensor, weight: Tensor, input_size: Sequence[int], *geometry: Any) -> Tensor:
    _check.ndim("conv2d_adjoint_input", "grad", grad, 4, "[N, Cout, Ho, Wo]")
    groups = geometry[3] if len(geometry) > 3 else 1
    return empty(grad, (grad.shape[0], weight.shape[1] * groups, *input_size))


def _conv2d_adjoint_weight_fake(grad: Tensor, x: Tensor, kernel_size: Sequence[int], *geometry: Any) -> Tensor:
    _check.ndim("conv2d_adjoint_weight", "grad", grad, 4, "[N, Cout, Ho, Wo]")
    groups = geometry[3] if len(geometry) > 3 else 1
    return empty(grad, (grad.shape[1], x.shape[1] // groups, *kernel_size), "nchw")


def _conv_transpose2d_fake(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sequence[int] = (1, 1),
    padding: Sequence[int] = (0, 0),
    output_padding: Sequence[int] = (0, 0),
    groups: int = 1,
    dilation: Sequence[int] = (1, 1),
) -> Tensor:
    op = "conv_transpose2d"
    _check.ndim(op, "x", x, 4, "[N, C, H, W]")
    _check.ndim(op, "weight", weight, 4, "[C, Cout / groups, kh, kw]")
    _check.same_dtype(op, "weight", weight, "x", x)
    if bias is not None:
        _check.same_dtype(op, "bias", bias, "x", x)
        _check.shape(op, "bias", bias, [weight.shape[1] * groups])
    numbers = zip(x.shape[2:], stride, padding, output_padding, dilation, weight.shape[2:], strict=True)
    size = ((n - 1) * s - 2 * p + d * (k - 1) + m + 1 for n, s, p, m, d, k in numbers)
    return empty(x, (x.shape[0], weight.shape[1] * groups, *size))


def _interpolate_fake(
    x: Tensor, size: Sequence[int] | None = None, scale_factor: Sequence[float] | None = None, *sampling: Any
) -> Tensor:
    op = "interpolate"
    _check.ndim(op, "x", x, 4, "[N, C, H, W]")
    n, c, h, w = x.shape
    return empty(x, (n, c, *resize.output_size(op, h, w, size, scale_factor)))


def _interpolate_adjoint_fake(grad: Tensor, input_size: Sequence[int], *sampling: Any) -> Tensor:
    _check.ndim("interpolate_adjoint", "grad", grad, 4, "[N, C, Ho, Wo]")
    return empty(grad, (*grad.shape[:2], *input_size))


def _box_iou_fake(a: Tensor, b: Tensor, format: str = "xyxy", kind: str = "iou") -> Tensor:
    boxes.check_boxes("box_iou", a, b, format, kind)
    return a.new_empty((*a.shape[:-1], b.shape[-2]))


def _box_iou_vjp_fake(grad: Tensor, a: Tensor, b: Tensor, *options: str) -> tuple[Tensor, Tensor]:
    return a.new_empty(a.shape), b.new_empty(b.shape)


def _linear_sum_assignment_fake(cost: Tensor, *options: Any) -> tuple[Tensor, Tensor, Tensor]:
    assignment.check_cost(cost)
    *lead, n, m = cost.shape
    pairs = (*lead, torch.sym_min(n, m))
    row_ind, col_ind = (cost.new_empty(pairs, dtype=torch.int64) for _ in range(2))
    return row_ind, col_ind, cost.new_empty(lead, dtype=torch.float64)


# ---- registration ---------------------------------------------------------------------------------------


register(_CONV2D, _conv2d_fake, _conv2d_setup, _conv2d_backward, _conv2d_vmap, "lower")
register(
    _CONV2D_ADJOINT_INPUT,
    _conv2d_adjoint_input_fake,
    _bilinear_setup,
    _conv2d_adjoint_input_backward,
    _conv2d_adjoint_input_vmap,
    "lower",
)
register(
    _CONV2D_ADJOINT_WEIGHT,
    _conv2d_adjoint_weight_fake,
    _bilinear_setup,
    _conv2d_adjoint_weight_backward,
    _conv2d_adjoint_weight_vmap,
    "lower",
)
register(
    _CONV_TRANSPOSE2D,
    _conv_transpose2d_fake,
    _conv_transpose2d_setup,
    _conv_transpose2d_backward,
    _conv_transpose2d_vmap,
    "lower",
)
register(_INTERPOLATE, _interpolate_fake, _resize_setup, _interpolate_backward, _resize_vmap(_INTERPOLATE), "keep")
register(
    _INTERPOLATE_ADJOINT,
    _interpolate_adjoint_fake,
    _resize_setup,
    _interpolate_adjoint_backward,
    _resize_vmap(_INTERPOLATE_ADJOINT),
    "keep",
)
register(_BOX_IOU, _box_iou_fake, _box_iou_setup, _box_iou_backward, batch_vmap(_BOX_IOU), "keep")
register(_BOX_IOU_VJP, _box_iou_vjp_fake, nothing_setup, _box_iou_vjp_backward, batch_vmap(_BOX_IOU_VJP), "keep")
register(
    _LINEAR_SUM_ASSIGNMENT,
    _linear_sum_assignment_fake,
    _linear_sum_assignment_setup,
    _linear_sum_assignment_backward,
    batch_vmap(_LINEAR_SUM_ASSIGNMENT),
    "keep",
)


# ---- what a public call with torch tensors becomes ------------------------------------------------------
#
# The dispatcher's own words for an argument of a wrong type would hide the operator's: so types are checked
# here, and values where the operator checks them. The dispatcher makes a pair of an integer on its own.


def _steps(op: str, argument: str, value: Any) -> Any:
    return value if is_size(value) else _check.pair(op, argument, value, 1)


def _geometry(op: str, kernel_size: Sequence[int], stride: Any, padding: Any, dilation: Any, groups: Any) -> Any:
    stride, dilation = _steps(op, "stride", stride), _steps(op, "dilation", dilation)
    if not is_size(padding):
        pairs = _check.pair(op, "stride", stride, 1), _check.pair(op, "dilation", dilation, 1)
        padding = conv.padding_of(op, padding, kernel_size, *pairs)
    if not is_size(groups):
        groups = _check.integer(op, "groups", groups, 1)
    return stride, padding, dilation, groups


def _kernel_size(op: str, weight: Tensor) -> Sequence[int]:
    _check.ndim(op, "weight", weight, 4, "[Cout, C / groups, kh, kw]")
    return weight.shape[2:]


def _sampling(op: str, scale_factor: Any, mode: Any, align_corners: Any, antialias: Any) -> Any:
    if scale_factor is not None:
        pair = scale_factor if isinstance(scale_factor, Sequence) else (scale_factor, scale_factor)
        if len(pair) != 2 or isinstance(pair, str):
            _check.fail(op, "scale_factor", "be a number or a pair of numbers", repr(scale_factor))
        scale_factor = tuple(_check.real(op, "scale_factor", factor, positive=True) for factor in pair)
    _check.choice(op, "mode", mode, tuple(resize.TAPS))
    if align_corners is not None:
        _check.flag(op, "align_corners", align_corners)
    return scale_factor, mode, align_corners, _check.flag(op, "antialias", antialias)


def _conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    *,
    padding_mode: str = "zeros",
    scale: Tensor | None = None,
    activation: str | None = None,
    allow_tf32: bool = False,
) -> Tensor:
    op = "conv2d"
    geometry = _geometry(op, _kernel_size(op, weight), stride, padding, dilation, groups)
    mode = _check.choice(op, "padding_mode", padding_mode, conv.PADDING_MODES)
    if activation is not None:
        _check.choice(op, "activation", activation, conv.ACTIVATIONS)
    return _CONV2D(x, weight, bias, *geometry, mode, scale, activation, _check.flag(op, "allow_tf32", allow_tf32))


def _conv2d_adjoint_input(
    grad: Tensor,
    weight: Tensor,
    input_size: Any,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    *,
    padding_mode: str = "zeros",
    allow_tf32: bool = False,
) -> Tensor:
    op = "conv2d_adjoint_input"
    geometry = _geometry(op, _kernel_size(op, weight), stride, padding, dilation, groups)
    mode = _check.choice(op, "padding_mode", padding_mode, conv.PADDING_MODES)
    tf32 = _check.flag(op, "allow_tf32", allow_tf32)
    return _CONV2D_ADJOINT_INPUT(grad, weight, pair_of_sizes(op, "input_size", input_size), *geometry, mode, tf32)


def _conv2d_adjoint_weight(
    grad: Tensor,
    x: Tensor,
    kernel_size: Any,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    *,
    padding_mode: str = "zeros",
) -> Tensor:
    op = "conv2d_adjoint_weight"
    size = pair_of_sizes(op, "kernel_size", kernel_size)
    geometry = _geometry(op, size, stride, padding, dilation, groups)
    mode = _check.choice(op, "padding_mode", padding_mode, conv.PADDING_MODES)
    return _CONV2D_ADJOINT_WEIGHT(grad, x, size, *geometry, mode)


def _conv_transpose2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
    *,
    diagonal: bool = False,
) -> Tensor:
    op = "conv_transpose2d"
    named = {"stride": stride, "padding": padding, "output_padding": output_padding, "dilation": dilation}
    least = {"stride": 1, "dilation": 1}
    *before, dilation = (_check.pair(op, name, x, least.get(name, 0)) for name, x in named.items())
    if not is_size(groups):
        groups = _check.integer(op, "groups", groups, 1)
    if _check.flag(op, "diagonal", diagonal):
        weight, groups = conv.diagonal_of(op, weight, groups)
    return _CONV_TRANSPOSE2D(x, weight, bias, *before, groups, dilation)


def _interpolate(
    x: Tensor,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    antialias: bool = False,
) -> Tensor:
    op = "interpolate"
    size = None if size is None else pair_of_sizes(op, "size", size)
    return _INTERPOLATE(x, size, *_sampling(op, scale_factor, mode, align_corners, antialias))


def _interpolate_adjoint(
    grad: Tensor,
    input_size: Any,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    antialias: bool = False,
) -> Tensor:
    op = "interpolate_adjoint"
    sampling = _sampling(op, scale_factor, mode, align_corners, antialias)
    return _INTERPOLATE_ADJOINT(grad, pair_of_sizes(op, "input_size", input_size), *sampling)


def _box_iou(a: Tensor, b: Tensor, *, format: str = "xyxy", kind: str = "iou") -> Tensor:
    op = "box_iou"
    _check.choice(op, "format", format, boxes.FORMATS)
    _check.choice(op, "kind", kind, boxes.KINDS)
    return _BOX_IOU(a, b, format, kind)


def _box_iou_vjp(
    grad: Tensor, a: Tensor, b: Tensor, *, format: str = "xyxy", kind: str = "iou"
) -> tuple[Tensor, Tensor]:
    op = "box_iou_vjp"
    _check.choice(op, "format", format, boxes.FORMATS)
    _check.choice(op, "kind", kind, boxes.KINDS)
    return _BOX_IOU_VJP(grad, a, b, format, kind)


def _linear_sum_assignment(
    cost: Tensor, *, maximize: bool = False, n_rows: Any = None, n_cols: Any = None
) -> assignment.Assignment:
    if type(maximize) is not bool or cost.ndim < 2:
        return _refused_assignment(cost, maximize, n_rows, n_cols)
    sizes: list[Tensor | None] = []
    for size, most in ((n_rows, cost.shape[-2]), (n_cols, cost.shape[-1])):
        if type(size) in (int, torch.SymInt) and 0 <= size <= most:
            sizes.append(cost.new_full(cost.shape[:-2], size, dtype=torch.int64))
        elif size is None or (isinstance(size, Tensor) and size.device == cost.device):
            sizes.append(size)
        else:
            return _refused_assignment(cost, maximize, n_rows, n_cols)
    return assignment.Assignment(*_LINEAR_SUM_ASSIGNMENT(cost, maximize, *sizes))


def _refused_assignment(cost: Tensor, maximize: Any, n_rows: Any, n_cols: Any) -> Any:
    """What the schema does not take: the operator itself says what is wrong with it."""
    operator: Any = assignment.linear_sum_assignment
    return operator.plain(cost, maximize=maximize, n_rows=n_rows, n_cols=n_cols)


OPERATORS: dict[str, Callable[..., Any]] = {
    "conv2d": _conv2d,
    "conv2d_adjoint_input": _conv2d_adjoint_input,
    "conv2d_adjoint_weight": _conv2d_adjoint_weight,
    "conv_transpose2d": _conv_transpose2d,
    "interpolate": _interpolate,
    "interpolate_adjoint": _interpolate_adjoint,
    "box_iou": _box_iou,
    "box_iou_vjp": _box_iou_vjp,
    "linear_sum_assignment": _linear_sum_assignment,
    **atrous_ops.OPERATORS,
    **crf_ops.OPERATORS,
    **message_ops.OPERATORS,
    **pool_ops.OPERATORS,
    **pyramid_ops.OPERATORS,
    **resize_conv_ops.OPERATORS,
    **separable_ops.OPERATORS,
    **upsample_ops.OPERATORS,
}
