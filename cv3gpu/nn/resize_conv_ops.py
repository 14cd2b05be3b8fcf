"""The torch operators of resize-convolution: registration, and no mathematics.

The map is linear in x and in weight, so the three operators are closed under differentiation: derivatives of any order
exist. A backward keeps x and weight, where a wanted gradient needs them, and nothing of the enlarged size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .. import _check, conv, resize, resize_conv
from ._registration import define, empty, in_front, pair_of_sizes, register

__all__ = ["OPERATORS"]

_OPTIONS = (
    'float[2]? scale_factor=None, str mode="bilinear", bool align_corners=False, int[4]? padding=None, '
    "int[2] dilation=1"
)


def _forward(
    x: Tensor, weight: Tensor, bias: Any = None, size: Any = None, scale_factor: Any = None, *options: Any
) -> Tensor:
    run: Any = resize_conv.resize_conv2d
    return run.plain(x, weight, bias, size=size, scale_factor=scale_factor, **_named(options))


def _adjoint(operator: Any) -> Callable[..., Tensor]:
    def run(grad: Tensor, other: Tensor, size: Any, scale_factor: Any = None, *options: Any) -> Tensor:
        return operator.plain(grad, other, tuple(size), scale_factor=scale_factor, **_named(options))

    return run


def _named(options: Sequence[Any]) -> dict[str, Any]:
    """Mode, align_corners, padding and dilation by name, as far as they are given; a padding of None is "same"."""
    named = dict(zip(("mode", "align_corners", "padding", "dilation"), options, strict=False))
    if named.get("padding") is None:
        named["padding"] = "same"
    return named


_RESIZE_CONV2D = define(
    "resize_conv2d", f"Tensor x, Tensor weight, Tensor? bias=None, SymInt[2]? size=None, {_OPTIONS}", _forward
)
_ADJOINT_INPUT = define(
    "resize_conv2d_adjoint_input",
    f"Tensor grad, Tensor weight, SymInt[2] input_size, {_OPTIONS}",
    _adjoint(resize_conv.resize_conv2d_adjoint_input),
)
_ADJOINT_WEIGHT = define(
    "resize_conv2d_adjoint_weight",
    f"Tensor grad, Tensor x, SymInt[2] kernel_size, {_OPTIONS}",
    _adjoint(resize_conv.resize_conv2d_adjoint_weight),
)

# ---- backward -------------------------------------------------------------------------------------------


def _forward_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, _, ctx.size, *ctx.options = inputs
    wants_x, wants_weight = ctx.needs_input_grad[:2]
    ctx.save_for_backward(x if wants_weight else None, weight if wants_x else None)
    ctx.x_size, ctx.kernel_size = x.shape[2:], weight.shape[2:]


def _forward_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    x, weight = ctx.saved_tensors
    return (
        None if weight is None else _ADJOINT_INPUT(grad, weight, ctx.x_size, *ctx.options),
        None if x is None else _ADJOINT_WEIGHT(grad, x, ctx.kernel_size, *ctx.options),
        grad.sum((0, 2, 3)) if ctx.needs_input_grad[2] else None,
        *(None,) * 6,
    )


def _adjoint_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    grad, other, given_size, *ctx.options = inputs
    wants_grad, wants_other = ctx.needs_input_grad[:2]
    ctx.save_for_backward(grad if wants_other else None, other if wants_grad else None)
    ctx.given_size, ctx.other_size, ctx.grad_size = given_size, other.shape[2:], grad.shape[2:]


def _enlarged(ctx: Any, kernel_size: Sequence[int]) -> list[int] | None:
    """The size of the enlarged image, where no factor gives it: what a result of the gradient's size came from."""
    scale_factor, _, _, padding, dilation = ctx.options
    if scale_factor is not None:
        return None
    around = conv.padding_of("resize_conv2d", "same" if padding is None else padding, kernel_size, (1, 1), dilation)
    numbers = zip(ctx.grad_size, kernel_size, dilation, (around[:2], around[2:]), strict=True)
    return [n + d * (k - 1) - sum(pads) for n, k, d, pads in numbers]


def _adjoint_input_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    inner, weight = ctx.saved_tensors
    size = _enlarged(ctx, ctx.other_size)
    return (
        None if weight is None else _RESIZE_CONV2D(grad, weight, None, size, *ctx.options),
        None if inner is None else _ADJOINT_WEIGHT(inner, grad, ctx.other_size, *ctx.options),
        *(None,) * 6,
    )


def _adjoint_weight_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    inner, x = ctx.saved_tensors
    size = _enlarged(ctx, ctx.given_size)
    return (
        None if x is None else _RESIZE_CONV2D(x, grad, None, size, *ctx.options),
        None if inner is None else _ADJOINT_INPUT(inner, grad, ctx.other_size, *ctx.options),
        *(None,) * 6,
    )


# ---- vmap -----------------------------------------------------------------------------------------------


def _vmap(op: Any, *, shared: bool) -> Callable[..., tuple[Tensor, int]]:
    """Samples that share the weight (and a bias, if any) may go into the batch; else they go one by one."""

    def rule(info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Tensor, int]:
        n = info.batch_size
        dims = [dim if isinstance(x, Tensor) else None for x, dim in zip(args, in_dims, strict=True)]
        if shared and dims[1] is dims[2] is None:
            out = op(in_front(args[0], dims[0], n).flatten(0, 1), *args[1:])
            return out.unflatten(0, (n, out.shape[0] // n)), 0

        def sample(i: int) -> list[Any]:
            return [x if dim is None else x.select(dim, i) for x, dim in zip(args, dims, strict=True)]

        return torch.stack([op(*sample(i)) for i in range(n)]), 0

    return rule


# ---- fakes ----------------------------------------------------------------------------------------------


def _forward_fake(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    size: Sequence[int] | None = None,
    scale_factor: Sequence[float] | None = None,
    mode: str = "bilinear",
    align_corners: bool = False,
    padding: Sequence[int] | None = None,
    dilation: Sequence[int] = (1, 1),
) -> Tensor:
    op = "resize_conv2d"
    _check.ndim(op, "x", x, 4, "[N, C, h, w]")
    _check.ndim(op, "weight", weight, 4, "[Cout, C, kh, kw]")
    _check.same_dtype(op, "weight", weight, "x", x)
    if weight.shape[1] != x.shape[1]:
        wanted = f"have shape [Cout, {x.shape[1]}, kh, kw] to match x {tuple(x.shape)}"
        _check.fail(op, "weight", wanted, tuple(weight.shape))
    if bias is not None:
        _check.same_dtype(op, "bias", bias, "x", x)
        _check.shape(op, "bias", bias, [weight.shape[0]])
    large = resize.output_size(op, x.shape[2], x.shape[3], size, scale_factor)
    kernel_size = weight.shape[2:]
    around = conv.padding_of(op, "same" if padding is None else padding, kernel_size, (1, 1), dilation)
    rows, cols = conv.output_size(large, kernel_size, (1, 1), around, dilation)
    return empty(x, (x.shape[0], weight.shape[0], rows, cols))


def _adjoint_input_fake(grad: Tensor, weight: Tensor, input_size: Sequence[int], *options: Any) -> Tensor:
    _check.ndim("resize_conv2d_adjoint_input", "grad", grad, 4, "[N, Cout, Ho, Wo]")
    return empty(grad, (grad.shape[0], weight.shape[1], *input_size))


def _adjoint_weight_fake(grad: Tensor, x: Tensor, kernel_size: Sequence[int], *options: Any) -> Tensor:
    _check.ndim("resize_conv2d_adjoint_weight", "grad", grad, 4, "[N, Cout, Ho, Wo]")
    return empty(grad, (grad.shape[1], x.shape[1], *kernel_size), "nchw")


# ---- registration ---------------------------------------------------------------------------------------

register(
    _RESIZE_CONV2D,
    _forward_fake,
    _forward_setup,
    _forward_backward,
    _vmap(_RESIZE_CONV2D, shared=True),
    "lower",
)
register(
    _ADJOINT_INPUT,
    _adjoint_input_fake,
    _adjoint_setup,
    _adjoint_input_backward,
    _vmap(_ADJOINT_INPUT, shared=True),
    "lower",
)
register(
    _ADJOINT_WEIGHT,
    _adjoint_weight_fake,
    _adjoint_setup,
    _adjoint_weight_backward,
    _vmap(_ADJOINT_WEIGHT, shared=False),
    "lower",
)


# ---- what a public call with torch tensors becomes ------------------------------------------------------


def _checked(
    op: str, kernel_size: Sequence[int], scale_factor: Any, mode: Any, align_corners: Any, padding: Any, dilation: Any
) -> tuple[Any, ...]:
    """Types alone: the schema would have its own words for them."""
    if scale_factor is not None:
        pair = scale_factor if isinstance(scale_factor, Sequence) else (scale_factor, scale_factor)
        if len(pair) != 2 or isinstance(pair, str):
            _check.fail(op, "scale_factor", "be a number or a pair of numbers", repr(scale_factor))
        scale_factor = tuple(_check.real(op, "scale_factor", factor, positive=True) for factor in pair)
    _check.choice(op, "mode", mode, tuple(resize.TAPS))
    corners = _check.flag(op, "align_corners", align_corners)
    spread = _check.pair(op, "dilation", dilation, 1)
    return scale_factor, mode, corners, conv.padding_of(op, padding, kernel_size, (1, 1), spread), spread


def _resize_conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "bilinear",
    align_corners: bool = False,
    padding: Any = "same",
    dilation: Any = 1,
) -> Tensor:
    op = "resize_conv2d"
    _check.ndim(op, "weight", weight, 4, "[Cout, C, kh, kw]")
    size = None if size is None else pair_of_sizes(op, "size", size)
    options = _checked(op, weight.shape[2:], scale_factor, mode, align_corners, padding, dilation)
    return _RESIZE_CONV2D(x, weight, bias, size, *options)


def _adjoint_input(
    grad: Tensor,
    weight: Tensor,
    input_size: Any,
    *,
    scale_factor: Any = None,
    mode: str = "bilinear",
    align_corners: bool = False,
    padding: Any = "same",
    dilation: Any = 1,
) -> Tensor:
    op = "resize_conv2d_adjoint_input"
    _check.ndim(op, "weight", weight, 4, "[Cout, C, kh, kw]")
    options = _checked(op, weight.shape[2:], scale_factor, mode, align_corners, padding, dilation)
    return _ADJOINT_INPUT(grad, weight, pair_of_sizes(op, "input_size", input_size), *options)


def _adjoint_weight(
    grad: Tensor,
    x: Tensor,
    kernel_size: Any,
    *,
    scale_factor: Any = None,
    mode: str = "bilinear",
    align_corners: bool = False,
    padding: Any = "same",
    dilation: Any = 1,
) -> Tensor:
    op = "resize_conv2d_adjoint_weight"
    size = pair_of_sizes(op, "kernel_size", kernel_size)
    options = _checked(op, size, scale_factor, mode, align_corners, padding, dilation)
    return _ADJOINT_WEIGHT(grad, x, size, *options)


OPERATORS: dict[str, Callable[..., Any]] = {
    "resize_conv2d": _resize_conv2d,
    "resize_conv2d_adjoint_input": _adjoint_input,
    "resize_conv2d_adjoint_weight": _adjoint_weight,
}
