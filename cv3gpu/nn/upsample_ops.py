"""The torch operators of enlarged logits that never exist: registration, and no mathematics.

The loss has first derivatives with respect to the logits. What a backward keeps are its inputs: the small logits, the
target and the weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor

from .. import _check, upsample
from ._registration import define, in_front, nothing_setup, pair_of_sizes, register

__all__ = ["OPERATORS"]

_LOSS = (
    "Tensor logits, Tensor target, int ignore_index=-100, bool align_corners=False, Tensor? weight=None, "
    'float label_smoothing=0.0, str reduction="mean"'
)
_ARGMAX = define(
    "upsample_argmax",
    'Tensor logits, SymInt[2] size, bool align_corners=False, str dtype="int64"',
    upsample.upsample_argmax,
)
_CROSS_ENTROPY = define("upsample_cross_entropy", _LOSS, upsample.upsample_cross_entropy)
_CROSS_ENTROPY_VJP = define("upsample_cross_entropy_vjp", f"Tensor grad, {_LOSS}", upsample.upsample_cross_entropy_vjp)

# ---- backward -------------------------------------------------------------------------------------------


def _argmax_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.mark_non_differentiable(output)


def _argmax_backward(ctx: Any, grad: Any) -> tuple[None, ...]:
    return (None,) * 4


def _cross_entropy_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    logits, target, ctx.ignore_index, ctx.align_corners, weight, *ctx.options = inputs
    ctx.save_for_backward(logits, target, weight)


def _cross_entropy_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    logits, target, weight = ctx.saved_tensors
    if weight is not None and ctx.needs_input_grad[4]:
        _no_backward("upsample_cross_entropy", "its weights have no gradient")
    options = ctx.ignore_index, ctx.align_corners, weight, *ctx.options
    return _CROSS_ENTROPY_VJP(grad, logits, target, *options), *(None,) * 6


def _cross_entropy_vjp_backward(ctx: Any, grad: Tensor) -> NoReturn:
    _no_backward("upsample_cross_entropy_vjp", "upsample_cross_entropy has first derivatives only")


def _no_backward(op: str, why: str) -> NoReturn:
    raise NotImplementedError(f"{op}: no gradient is implemented ({why})")


# ---- vmap -----------------------------------------------------------------------------------------------


def _argmax_vmap(info: Any, in_dims: tuple[Any, ...], logits: Tensor, *options: Any) -> tuple[Tensor, int]:
    labels = _ARGMAX(in_front(logits, in_dims[0], info.batch_size).flatten(0, 1), *options)
    return labels.unflatten(0, (info.batch_size, labels.shape[0] // info.batch_size)), 0


def _one_by_one(op: Any) -> Callable[..., tuple[Tensor, int]]:
    """Samples have losses of their own, and their means are not that of all."""

    def rule(info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Tensor, int]:
        def sample(i: int) -> list[Any]:
            return [x if dim is None else x.select(dim, i) for x, dim in zip(args, in_dims, strict=True)]

        return torch.stack([op(*sample(i)) for i in range(info.batch_size)]), 0

    return rule


# ---- fakes ----------------------------------------------------------------------------------------------


def _argmax_fake(logits: Tensor, size: Sequence[int], align_corners: bool = False, dtype: str = "int64") -> Tensor:
    _check.ndim("upsample_argmax", "logits", logits, 4, "[N, C, h, w]")
    return logits.new_empty((logits.shape[0], *size), dtype=getattr(torch, dtype))


def _cross_entropy_fake(
    logits: Tensor,
    target: Tensor,
    ignore_index: int = -100,
    align_corners: bool = False,
    weight: Tensor | None = None,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
) -> Tensor:
    options = ignore_index, align_corners, label_smoothing, reduction
    upsample.check_loss("upsample_cross_entropy", logits, target, weight, *options)
    return logits.new_empty(target.shape if reduction == "none" else ())


def _cross_entropy_vjp_fake(grad: Tensor, logits: Tensor, *rest: Any) -> Tensor:
    return logits.new_empty(logits.shape)


# ---- registration ---------------------------------------------------------------------------------------

register(_ARGMAX, _argmax_fake, _argmax_setup, _argmax_backward, _argmax_vmap, "keep")
register(
    _CROSS_ENTROPY,
    _cross_entropy_fake,
    _cross_entropy_setup,
    _cross_entropy_backward,
    _one_by_one(_CROSS_ENTROPY),
    "float32",
)
register(
    _CROSS_ENTROPY_VJP,
    _cross_entropy_vjp_fake,
    nothing_setup,
    _cross_entropy_vjp_backward,
    _one_by_one(_CROSS_ENTROPY_VJP),
    "float32",
)


# ---- what a public call with torch tensors becomes ------------------------------------------------------


def _argmax(logits: Tensor, size: Any, *, align_corners: bool = False, dtype: str = "int64") -> Tensor:
    op = "upsample_argmax"
    _check.choice(op, "dtype", dtype, upsample.LABELS)
    _check.flag(op, "align_corners", align_corners)
    return _ARGMAX(logits, pair_of_sizes(op, "size", size), align_corners, dtype)


def _cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    ignore_index: int = -100,
    align_corners: bool = False,
    weight: Tensor | None = None,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
) -> Tensor:
    given = ignore_index, align_corners, label_smoothing, reduction
    ignored, corners, smoothing, how = _scalars("upsample_cross_entropy", *given)
    return _CROSS_ENTROPY(logits, target, ignored, corners, weight, smoothing, how)


def _cross_entropy_vjp(
    grad: Tensor,
    logits: Tensor,
    target: Tensor,
    *,
    ignore_index: int = -100,
    align_corners: bool = False,
    weight: Tensor | None = None,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
) -> Tensor:
    given = ignore_index, align_corners, label_smoothing, reduction
    ignored, corners, smoothing, how = _scalars("upsample_cross_entropy_vjp", *given)
    return _CROSS_ENTROPY_VJP(grad, logits, target, ignored, corners, weight, smoothing, how)


def _scalars(op: str, ignore_index: Any, align_corners: Any, label_smoothing: Any, reduction: Any) -> tuple[Any, ...]:
    """Types alone: the schema would have its own words for them."""
    return (
        _check.integer(op, "ignore_index", ignore_index, -(2**31)),
        _check.flag(op, "align_corners", align_corners),
        _check.real(op, "label_smoothing", label_smoothing),
        _check.choice(op, "reduction", reduction, upsample.REDUCTIONS),
    )


OPERATORS: dict[str, Callable[..., Any]] = {
    "upsample_argmax": _argmax,
    "upsample_cross_entropy": _cross_entropy,
    "upsample_cross_entropy_vjp": _cross_entropy_vjp,
}
