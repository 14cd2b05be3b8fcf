"""The torch operator of separable convolutions: registration, and no mathematics.

Its backward computes the depthwise result anew, and is made of registered operators: derivatives of any order exist.
What it keeps are its inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .. import _check, conv, separable
from ._registration import define, empty, in_front, register

__all__ = ["OPERATORS"]

_SEPARABLE_CONV2D = define(
    "separable_conv2d",
    "Tensor x, Tensor depthwise, Tensor pointwise, Tensor? bias=None, int[2] stride=1, int[2] padding=0, "
    "int[2] dilation=1, Tensor? mid_scale=None, Tensor? mid_bias=None, str? mid_activation=None, Tensor? scale=None, "
    "str? activation=None",
    separable.separable_conv2d,
)

# ---- backward -------------------------------------------------------------------------------------------


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, depthwise, pointwise, bias, *steps, mid_scale, mid_bias, mid_activation, scale, activation = inputs
    ctx.steps_and_words = *steps, mid_activation, activation
    ctx.save_for_backward(x, depthwise, pointwise, bias, mid_scale, mid_bias, scale)


def _backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    needs = (*ctx.needs_input_grad, *(False,) * 12)  # the dispatcher leaves out last arguments that are the default
    wanted = separable.SeparableGradients._make((*needs[:4], *needs[7:9], needs[10]))
    of = separable.gradients(wanted, grad, *ctx.saved_tensors, *ctx.steps_and_words)
    return *of[:4], None, None, None, of.mid_scale, of.mid_bias, None, of.scale, None


# ---- vmap -----------------------------------------------------------------------------------------------


def _vmap(info: Any, in_dims: tuple[Any, ...], x: Tensor, *rest: Any) -> tuple[Tensor, int]:
    """Samples go into the batch where they share the weights, and else one after the other."""
    n, pairs = info.batch_size, list(zip((x, *rest), in_dims, strict=True))
    if not any(isinstance(dim, int) for dim in in_dims[1:]):
        out = _SEPARABLE_CONV2D(in_front(x, in_dims[0], n).flatten(0, 1), *rest)
        return out.unflatten(0, (n, out.shape[0] // n)), 0

    def sample(i: int) -> list[Any]:
        return [a.select(dim, i) if isinstance(dim, int) else a for a, dim in pairs]

    return torch.stack([_SEPARABLE_CONV2D(*sample(i)) for i in range(n)]), 0


# ---- fake -----------------------------------------------------------------------------------------------


def _fake(
    x: Tensor,
    depthwise: Tensor,
    pointwise: Tensor,
    bias: Tensor | None = None,
    stride: Sequence[int] = (1, 1),
    padding: Sequence[int] = (0, 0),
    dilation: Sequence[int] = (1, 1),
    mid_scale: Tensor | None = None,
    mid_bias: Tensor | None = None,
    mid_activation: str | None = None,
    scale: Tensor | None = None,
    activation: str | None = None,
) -> Tensor:
    op = "separable_conv2d"
    separable.check_arrays(op, x, depthwise, pointwise, bias, mid_scale, mid_bias, scale)
    separable.check_activations(op, mid_activation, activation)
    kernel_size = depthwise.shape[2:]
    around = conv.padding_of(op, padding, kernel_size, stride, dilation)
    size = conv.output_size(x.shape[2:], kernel_size, stride, around, dilation)
    return empty(x, (x.shape[0], pointwise.shape[0], *size))


register(_SEPARABLE_CONV2D, _fake, _setup, _backward, _vmap, "lower")

# ---- what a public call with torch tensors becomes ------------------------------------------------------


def _separable_conv2d(
    x: Tensor,
    depthwise: Tensor,
    pointwise: Tensor,
    bias: Tensor | None = None,
    *,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    mid_scale: Tensor | None = None,
    mid_bias: Tensor | None = None,
    mid_activation: str | None = None,
    scale: Tensor | None = None,
    activation: str | None = None,
) -> Tensor:
    op = "separable_conv2d"
    if depthwise.ndim != 4:  # the operator says what it wants; else dtypes are checked after autocast
        separable.check_arrays(op, x, depthwise, pointwise, bias, mid_scale, mid_bias, scale)
    separable.check_activations(op, mid_activation, activation)
    steps, spread = _check.pair(op, "stride", stride, 1), _check.pair(op, "dilation", dilation, 1)
    around = conv.padding_of(op, padding, depthwise.shape[2:], steps, spread)
    between = mid_scale, mid_bias, mid_activation
    return _SEPARABLE_CONV2D(x, depthwise, pointwise, bias, steps, around, spread, *between, scale, activation)


OPERATORS: dict[str, Callable[..., Any]] = {"separable_conv2d": _separable_conv2d}
