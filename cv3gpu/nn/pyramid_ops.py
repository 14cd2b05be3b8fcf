"""The torch operators of PSPNet's pyramid: registration, and no mathematics.

`pyramid_pooling` and `pyramid_conv2d` are made of these operators, of convolutions and of enlargements, and so have
derivatives of any order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .. import _check, pyramid
from ._registration import define, empty, in_front, pair_of_sizes, register
from .atrous_ops import lowered, through

__all__ = ["OPERATORS"]

_POOL = define("pyramid_pool", "Tensor x, int[] bins", pyramid.pyramid_pool)
_POOL_ADJOINT = define(
    "pyramid_pool_adjoint", "Tensor grad, SymInt[2] input_size, int[] bins", pyramid.pyramid_pool_adjoint
)
_EXPAND = define(
    "pyramid_expand",
    "Tensor base, Tensor z, int[] bins, int[2] kernel_size, bool align_corners, Tensor? scale, "
    "Tensor? bias, str? activation",
    pyramid.pyramid_expand,
)
_EXPAND_ADJOINT = define(
    "pyramid_expand_adjoint",
    "Tensor grad, int[] bins, int[2] kernel_size, bool align_corners",
    pyramid.pyramid_expand_adjoint,
)

# ---- backward -------------------------------------------------------------------------------------------


def _pool_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, ctx.bins = inputs
    ctx.size = x.shape[2:]


def _pool_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    return _POOL_ADJOINT(grad, ctx.size, ctx.bins), None


def _pool_adjoint_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, _, ctx.bins = inputs


def _pool_adjoint_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    return _POOL(grad, ctx.bins), None, None


def _expand_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    base, z, *ctx.geometry, scale, _, ctx.activation = inputs
    again = scale is not None and ctx.needs_input_grad[5]
    result = None if ctx.activation is None else output
    ctx.save_for_backward(*((base, z) if again else (None, None)), scale, result)


def _expand_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    base, z, scale, y = ctx.saved_tensors
    grad = through(grad, y, ctx.activation)
    wants = ctx.needs_input_grad
    by_scale = None
    if base is not None:
        by_scale = (grad * _EXPAND(base, z, *ctx.geometry, None, None, None)).sum((0, 2, 3))
    by_bias = grad.sum((0, 2, 3)) if wants[6] else None
    if scale is not None:
        grad = grad * scale[:, None, None]
    by_z = _EXPAND_ADJOINT(grad, *ctx.geometry) if wants[1] else None
    return grad if wants[0] else None, by_z, None, None, None, by_scale, by_bias, None


def _expand_adjoint_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    grad, *ctx.geometry = inputs
    ctx.shape = grad.shape


def _expand_adjoint_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    return _EXPAND(grad.new_zeros(ctx.shape), grad, *ctx.geometry, None, None, None), None, None, None


# ---- vmap: samples go into the batch ---------------------------------------------------------------------


def _vmap(op: Any, n_tensors: int) -> Callable[..., tuple[Tensor, int]]:
    def rule(info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Tensor, int]:
        n = info.batch_size
        dims = [dim if isinstance(x, Tensor) else None for x, dim in zip(args, in_dims, strict=True)]
        if any(dim is not None for dim in dims[n_tensors:]):  # samples with factors of their own
            rows = [[x if d is None else x.select(d, i) for x, d in zip(args, dims, strict=True)] for i in range(n)]
            return torch.stack([op(*row) for row in rows]), 0
        together = (in_front(x, dim, n).flatten(0, 1) for x, dim in zip(args[:n_tensors], dims, strict=False))
        out = op(*together, *args[n_tensors:])
        return out.unflatten(0, (n, out.shape[0] // n)), 0

    return rule


# ---- fakes ----------------------------------------------------------------------------------------------


def _pool_fake(x: Tensor, bins: Sequence[int]) -> Tensor:
    _check.ndim("pyramid_pool", "x", x, 4, "[N, C, H, W]")
    return empty(x, (*x.shape[:2], pyramid.cells_of(bins), 1))


def _pool_adjoint_fake(grad: Tensor, input_size: Sequence[int], bins: Sequence[int]) -> Tensor:
    _check.ndim("pyramid_pool_adjoint", "grad", grad, 4, "[N, C, cells, 1]")
    return empty(grad, (*grad.shape[:2], *input_size))


def _expand_fake(base: Tensor, z: Tensor, *options: Any) -> Tensor:
    _check.ndim("pyramid_expand", "base", base, 4, "[N, C, H, W]")
    return empty(base, base.shape)


def _expand_adjoint_fake(grad: Tensor, bins: Sequence[int], kernel_size: Sequence[int], align_corners: bool) -> Tensor:
    _check.ndim("pyramid_expand_adjoint", "grad", grad, 4, "[N, C, H, W]")
    return grad.new_empty((*grad.shape[:2], kernel_size[0] * kernel_size[1] * pyramid.cells_of(bins)))


# ---- registration ---------------------------------------------------------------------------------------

register(_POOL, _pool_fake, _pool_setup, _pool_backward, _vmap(_POOL, 1), "keep")
register(
    _POOL_ADJOINT,
    _pool_adjoint_fake,
    _pool_adjoint_setup,
    _pool_adjoint_backward,
    _vmap(_POOL_ADJOINT, 1),
    "keep",
)
register(_EXPAND, _expand_fake, _expand_setup, _expand_backward, _vmap(_EXPAND, 2), "lower")
register(
    _EXPAND_ADJOINT,
    _expand_adjoint_fake,
    _expand_adjoint_setup,
    _expand_adjoint_backward,
    _vmap(_EXPAND_ADJOINT, 1),
    "keep",
)


# ---- what a public call with torch tensors becomes ------------------------------------------------------


def _pyramid_pool(x: Tensor, bins: Any = (1, 2, 3, 6)) -> Tensor:
    return _POOL(x, pyramid.check_bins("pyramid_pool", bins))


def _pyramid_pool_adjoint(grad: Tensor, input_size: Any, bins: Any = (1, 2, 3, 6)) -> Tensor:
    op = "pyramid_pool_adjoint"
    return _POOL_ADJOINT(grad, pair_of_sizes(op, "input_size", input_size), pyramid.check_bins(op, bins))


def _pyramid_pooling(x: Tensor, weights: Any, biases: Any = None, *, scales: Any = None, **options: Any) -> Tensor:
    x, weights, biases, scales = lowered(x, weights, biases, scales)
    return pyramid.pooled(x, weights, biases, scales=scales, **options)


def _pyramid_maps(
    x: Tensor,
    weights: Any,
    biases: Any = None,
    *,
    scales: Any = None,
    activation: Any = None,
    bins: Any = (1, 2, 3, 6),
) -> list[Tensor]:
    x, weights, biases, scales = lowered(x, weights, biases, scales)
    return pyramid.maps_of("pyramid_maps", x, weights, biases, scales, activation, bins)


def _pyramid_conv2d(
    x: Tensor, pooled_maps: Any, weight: Tensor, bias: Tensor | None = None, *, scale: Any = None, **options: Any
) -> Tensor:
    x, pooled_maps, weight, bias, scale = lowered(x, pooled_maps, weight, bias, scale)
    return pyramid.convolved(x, pooled_maps, weight, bias, scale=scale, **options)


def _pyramid_expand(
    base: Tensor,
    z: Tensor,
    bins: Any,
    kernel_size: Any = (3, 3),
    align_corners: bool = True,
    scale: Tensor | None = None,
    bias: Tensor | None = None,
    activation: str | None = None,
) -> Tensor:
    op = "pyramid_expand"
    geometry = _geometry(op, bins, kernel_size, align_corners)
    return _EXPAND(base, z, *geometry, scale, bias, pyramid.check_activation(op, "activation", activation))


def _pyramid_expand_adjoint(grad: Tensor, bins: Any, kernel_size: Any = (3, 3), align_corners: bool = True) -> Tensor:
    return _EXPAND_ADJOINT(grad, *_geometry("pyramid_expand_adjoint", bins, kernel_size, align_corners))


def _geometry(op: str, bins: Any, kernel_size: Any, align_corners: Any) -> tuple[Any, ...]:
    size = _check.pair(op, "kernel_size", kernel_size, 1)
    return pyramid.check_bins(op, bins), size, _check.flag(op, "align_corners", align_corners)


OPERATORS: dict[str, Callable[..., Any]] = {
    "pyramid_pool": _pyramid_pool,
    "pyramid_pool_adjoint": _pyramid_pool_adjoint,
    "pyramid_pooling": _pyramid_pooling,
    "pyramid_maps": _pyramid_maps,
    "pyramid_conv2d": _pyramid_conv2d,
    "pyramid_expand": _pyramid_expand,
    "pyramid_expand_adjoint": _pyramid_expand_adjoint,
}
