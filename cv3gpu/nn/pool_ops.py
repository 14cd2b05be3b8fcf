"""The torch operators of max pooling and unpooling: registration, and no mathematics.

The values are linear in the images once the places of the maxima are known, so `max_pool2d_adjoint` and
`max_unpool2d_adjoint` are each other's gradients, and derivatives of any order exist. A backward keeps the indices
alone: in their compact form one byte for each window.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .. import _check, pool
from ._registration import define, empty, in_front, pair_of_sizes, register

__all__ = ["OPERATORS"]

_STEPS = "int[2] kernel_size, int[2]? stride=None, int[2] padding=0"
_WINDOW = f"{_STEPS}, int[2] dilation=1"

_MAX_POOL2D = define(
    "max_pool2d",
    f"Tensor x, {_WINDOW}, bool ceil_mode=False, bool compact=False",
    pool.max_pool2d,
    "(Tensor values, Tensor indices)",
)
_MAX_POOL2D_ADJOINT = define(
    "max_pool2d_adjoint", f"Tensor grad, Tensor indices, SymInt[2] input_size, {_WINDOW}", pool.max_pool2d_adjoint
)
_MAX_UNPOOL2D = define(
    "max_unpool2d", f"Tensor x, Tensor indices, {_STEPS}, SymInt[2]? output_size=None", pool.max_unpool2d
)
_MAX_UNPOOL2D_ADJOINT = define(
    "max_unpool2d_adjoint", f"Tensor grad, Tensor indices, {_WINDOW}", pool.max_unpool2d_adjoint
)

# ---- backward -------------------------------------------------------------------------------------------


def _max_pool2d_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, *window, _, _ = inputs
    ctx.window, ctx.size = window, x.shape[2:]
    ctx.save_for_backward(output[1])
    ctx.mark_non_differentiable(output[1])


def _max_pool2d_backward(ctx: Any, grad: Tensor, _: Any) -> tuple[Any, ...]:
    return _MAX_POOL2D_ADJOINT(grad, *ctx.saved_tensors, ctx.size, *ctx.window), *(None,) * 6


def _indices_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, indices, *ctx.options = inputs
    ctx.size = x.shape[2:]
    ctx.save_for_backward(indices)


def _max_pool2d_adjoint_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    _, *window = ctx.options
    return _MAX_UNPOOL2D_ADJOINT(grad, *ctx.saved_tensors, *window), *(None,) * 6


def _max_unpool2d_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    *steps, _ = ctx.options
    return _MAX_UNPOOL2D_ADJOINT(grad, *ctx.saved_tensors, *steps, (1, 1)), *(None,) * 5


def _max_unpool2d_adjoint_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    return _MAX_POOL2D_ADJOINT(grad, *ctx.saved_tensors, ctx.size, *ctx.options), *(None,) * 5


# ---- vmap: samples go into the batch ---------------------------------------------------------------------


def _vmap(op: Any, n_tensors: int) -> Callable[..., tuple[Any, Any]]:
    def rule(info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Any, Any]:
        n = info.batch_size
        pairs = zip(args[:n_tensors], in_dims, strict=False)
        out = op(*(in_front(x, dim, n).flatten(0, 1) for x, dim in pairs), *args[n_tensors:])

        def split(x: Tensor) -> Tensor:
            return x.unflatten(0, (n, x.shape[0] // n))

        return (split(out), 0) if isinstance(out, Tensor) else (tuple(map(split, out)), (0,) * len(out))

    return rule


# ---- fakes ----------------------------------------------------------------------------------------------


def _max_pool2d_fake(
    x: Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int] | None = None,
    padding: Sequence[int] = (0, 0),
    dilation: Sequence[int] = (1, 1),
    ceil_mode: bool = False,
    compact: bool = False,
) -> tuple[Tensor, Tensor]:
    op = "max_pool2d"
    _check.dtype(op, "x", x, pool.DTYPES)
    _check.ndim(op, "x", x, 4, "[N, C, H, W]")
    n, c, h, w = x.shape
    window = pool.window_of(op, kernel_size, stride, padding, dilation)
    shape = (n, c, *pool.pooled_size(h, w, window, ceil_mode))
    return empty(x, shape), empty(x, shape, dtype=torch.uint8 if compact else torch.int64)


def _max_pool2d_adjoint_fake(grad: Tensor, indices: Tensor, input_size: Sequence[int], *window: Any) -> Tensor:
    _check.ndim("max_pool2d_adjoint", "grad", grad, 4, "[N, C, Ho, Wo]")
    return empty(grad, (*grad.shape[:2], *input_size))


def _max_unpool2d_fake(
    x: Tensor,
    indices: Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int] | None = None,
    padding: Sequence[int] = (0, 0),
    output_size: Sequence[int] | None = None,
) -> Tensor:
    op = "max_unpool2d"
    _check.ndim(op, "x", x, 4, "[N, C, Ho, Wo]")
    n, c, h, w = x.shape
    size = output_size or pool.unpooled_size(h, w, pool.window_of(op, kernel_size, stride, padding))
    return empty(x, (n, c, *size))


def _max_unpool2d_adjoint_fake(grad: Tensor, indices: Tensor, *window: Any) -> Tensor:
    _check.ndim("max_unpool2d_adjoint", "grad", grad, 4, "[N, C, H, W]")
    return empty(grad, indices.shape)


# ---- registration ---------------------------------------------------------------------------------------

register(_MAX_POOL2D, _max_pool2d_fake, _max_pool2d_setup, _max_pool2d_backward, _vmap(_MAX_POOL2D, 1), "keep")
register(
    _MAX_POOL2D_ADJOINT,
    _max_pool2d_adjoint_fake,
    _indices_setup,
    _max_pool2d_adjoint_backward,
    _vmap(_MAX_POOL2D_ADJOINT, 2),
    "keep",
)
register(_MAX_UNPOOL2D, _max_unpool2d_fake, _indices_setup, _max_unpool2d_backward, _vmap(_MAX_UNPOOL2D, 2), "keep")
register(
    _MAX_UNPOOL2D_ADJOINT,
    _max_unpool2d_adjoint_fake,
    _indices_setup,
    _max_unpool2d_adjoint_backward,
    _vmap(_MAX_UNPOOL2D_ADJOINT, 2),
    "keep",
)


# ---- what a public call with torch tensors becomes ------------------------------------------------------


def _pairs(op: str, kernel_size: Any, stride: Any, padding: Any, dilation: Any = 1) -> tuple[Any, ...]:
    window = pool.window_of(op, kernel_size, stride, padding, dilation)
    return window[:2], window[2:4], window[4:6], window[6:]


def _max_pool2d(
    x: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    *,
    compact: bool = False,
) -> tuple[Tensor, Tensor]:
    op = "max_pool2d"
    window = _pairs(op, kernel_size, stride, padding, dilation)
    return _MAX_POOL2D(x, *window, _check.flag(op, "ceil_mode", ceil_mode), _check.flag(op, "compact", compact))


def _max_pool2d_adjoint(
    grad: Tensor,
    indices: Tensor,
    input_size: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
) -> Tensor:
    op = "max_pool2d_adjoint"
    window = _pairs(op, kernel_size, stride, padding, dilation)
    return _MAX_POOL2D_ADJOINT(grad, indices, pair_of_sizes(op, "input_size", input_size), *window)


def _max_unpool2d(
    x: Tensor, indices: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, output_size: Any = None
) -> Tensor:
    op = "max_unpool2d"
    *steps, _ = _pairs(op, kernel_size, stride, padding)
    size = None if output_size is None else pair_of_sizes(op, "output_size", output_size)
    return _MAX_UNPOOL2D(x, indices, *steps, size)


def _max_unpool2d_adjoint(
    grad: Tensor, indices: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1
) -> Tensor:
    window = _pairs("max_unpool2d_adjoint", kernel_size, stride, padding, dilation)
    return _MAX_UNPOOL2D_ADJOINT(grad, indices, *window)


OPERATORS: dict[str, Callable[..., Any]] = {
    "max_pool2d": _max_pool2d,
    "max_pool2d_adjoint": _max_pool2d_adjoint,
    "max_unpool2d": _max_unpool2d,
    "max_unpool2d_adjoint": _max_unpool2d_adjoint,
}
