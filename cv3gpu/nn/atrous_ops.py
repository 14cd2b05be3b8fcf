"""The torch operators of atrous spatial pyramid pooling: registration, and no mathematics.

`aspp` is made of `atrous_branches` and of operators for its pooled branch, and so has derivatives of any order. What a
backward keeps are the images and the weights and, with an activation, the result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .. import _check, atrous
from ._registration import as_under_autocast, define, empty, in_front, register

__all__ = ["OPERATORS"]

_BRANCHES = define(
    "atrous_branches",
    "Tensor x, Tensor[] weights, Tensor[] scales, Tensor[] biases, Tensor? image_bias, Tensor? constant, "
    "int[] dilations, str? activation",
    atrous.atrous_branches,
)

# ---- backward -------------------------------------------------------------------------------------------


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weights, scales, ctx.biases, _, _, ctx.dilations, ctx.activation = inputs
    ctx.branches, ctx.biases = len(weights), len(ctx.biases)
    ctx.save_for_backward(x, None if ctx.activation is None else output, *weights, *scales)


def _backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    x, y, *rest = ctx.saved_tensors
    weights, scales = rest[: ctx.branches], rest[ctx.branches :]
    wants_x, wants_weights, wants_scales, wants_biases, wants_shift, wants_constant = ctx.needs_input_grad[:6]
    total = sum(w.shape[0] for w in weights)
    constant = grad[:, total:].sum((2, 3)) if wants_constant else None
    grad = through(grad[:, :total], None if y is None else y[:, :total], ctx.activation)
    by_x = None
    by_weights: list[Tensor | None] = [None] * len(weights)
    by_scales: list[Tensor | None] = [None] * len(scales)
    by_biases: list[Tensor | None] = [None] * ctx.biases
    for i, (part, piece) in enumerate(atrous.pieces(grad, weights, ctx.dilations)):
        factor = scales[i][:, None, None, None] if scales else None
        if wants_x:
            weight = part.weight if factor is None else part.weight * factor
            more = atrous.input_gradient(piece, weight, part.dilation, x)
            by_x = more if by_x is None else by_x + more
        if wants_weights[i] or (scales and wants_scales[i]):
            unscaled = atrous.weight_gradient(piece, x, part.weight, part.dilation)
            by_weights[i] = unscaled if factor is None else unscaled * factor
            if scales:
                by_scales[i] = (unscaled * part.weight).sum((1, 2, 3))
        if ctx.biases and wants_biases[i]:
            by_biases[i] = piece.sum((0, 2, 3))
    shift = grad.sum((2, 3)) if wants_shift else None
    return by_x, by_weights, by_scales, by_biases, shift, constant, None, None


def through(grad: Tensor, y: Tensor | None, activation: str | None) -> Tensor:
    """The gradient in front of an activation whose result is y."""
    if activation is None or y is None:
        return grad
    inside = y > 0 if activation == "relu" else (y > 0) & (y < 6)
    return torch.where(inside, grad, 0)


# ---- vmap -----------------------------------------------------------------------------------------------


def _vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Tensor, int]:
    n = info.batch_size
    if all(dim is None for dims in in_dims[1:4] for dim in dims):  # samples go into the batch
        x, *_, shift, constant = in_dims[:6]

        def front(k: int, dim: int | None) -> Any:
            return None if args[k] is None else in_front(args[k], dim, n).flatten(0, 1)

        out = _BRANCHES(front(0, x), *args[1:4], front(4, shift), front(5, constant), *args[6:])
        return out.unflatten(0, (n, out.shape[0] // n)), 0

    def sample(x: Any, dim: Any, i: int) -> Any:
        if isinstance(dim, list | tuple):
            return [sample(a, d, i) for a, d in zip(x, dim, strict=True)]
        return x if dim is None else x.select(dim, i)

    pairs = list(zip(args, (*in_dims[:6], None, None), strict=True))
    return torch.stack([_BRANCHES(*(sample(x, dim, i) for x, dim in pairs)) for i in range(n)]), 0


# ---- fake, registration -----------------------------------------------------------------------------------


def _fake(
    x: Tensor,
    weights: Sequence[Tensor],
    scales: Sequence[Tensor],
    biases: Sequence[Tensor],
    image_bias: Tensor | None,
    constant: Tensor | None,
    *options: Any,
) -> Tensor:
    _check.ndim("atrous_branches", "x", x, 4, "[N, C, H, W]")
    channels = sum(w.shape[0] for w in weights) + (0 if constant is None else constant.shape[1])
    return empty(x, (x.shape[0], channels, *x.shape[2:]))


register(_BRANCHES, _fake, _setup, _backward, _vmap, "lower")


# ---- what a public call with torch tensors becomes ------------------------------------------------------


def lowered(x: Tensor, *values: Any) -> tuple[Any, ...]:
    """The image and all that goes with it, in the dtype of autocast where that is on: checks want one dtype."""
    device = x.device.type
    if device == "meta" or not torch.is_autocast_enabled(device):
        return x, *values
    return tuple(as_under_autocast(value, "lower", device) for value in (x, *values))


def _aspp(
    x: Tensor,
    weights: Any,
    biases: Any = None,
    *,
    dilations: Any,
    scales: Any = None,
    activation: Any = None,
    image_pooling: Any = None,
    project: Any = None,
) -> Tensor:
    x, weights, biases, scales = lowered(x, weights, biases, scales)
    pooling, last = (tuple(lowered(x, *p)[1:]) if isinstance(p, tuple) else p for p in (image_pooling, project))
    return atrous.composed(_BRANCHES, x, weights, biases, dilations, scales, activation, pooling, last)


def _aspp_vjp(grad: Tensor, x: Tensor, weights: Any, *, dilations: Any) -> atrous.AsppGradients:
    return atrous.gradients(grad, x, weights, dilations)


def _atrous_branches(
    x: Tensor,
    weights: Any,
    scales: Any = (),
    biases: Any = (),
    image_bias: Tensor | None = None,
    constant: Tensor | None = None,
    dilations: Any = (1,),
    activation: str | None = None,
) -> Tensor:
    x, weights, scales, biases, image_bias, constant = lowered(x, weights, scales, biases, image_bias, constant)
    given = x, weights, scales or None, biases or None, dilations, activation
    kernels, factors, shifts, rates = atrous.check_branches("atrous_branches", *given)
    return _BRANCHES(x, kernels, factors, shifts, image_bias, constant, rates, activation)


OPERATORS: dict[str, Callable[..., Any]] = {
    "aspp": _aspp,
    "aspp_vjp": _aspp_vjp,
    "atrous_branches": _atrous_branches,
}
