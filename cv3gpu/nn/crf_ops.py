"""The torch operators of the dense CRF and of Gaussian filters: registration, and no mathematics.

First derivatives exist with respect to every floating tensor. A number that a public call is given for a width or a
compatibility becomes a float64 tensor on the CPU. The vjps return a tensor for every input, an empty one for None.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor

from .. import _array, _check
from ..crf import arguments, operators
from ._registration import as_under_autocast, batch_vmap, by_position, define, in_front, nothing_setup, register

__all__ = ["OPERATORS"]

_INPUTS = (
    "Tensor unary, Tensor? image, Tensor theta_gamma, Tensor compat_smooth, Tensor theta_alpha, Tensor theta_beta, "
    "Tensor compat_bilateral"
)
_N_INPUTS = 7
_N_ARRAYS = 2  # of the inputs: unary and image, which have the batch's dimensions

_dense_crf_plain = by_position(operators.dense_crf)
_dense_crf_vjp_plain = by_position(operators.dense_crf_vjp)
_gaussian_filter_plain = by_position(operators.gaussian_filter)
_gaussian_filter_vjp_plain = by_position(operators.gaussian_filter_vjp)


def _filled(like: Tensor, found: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
    """Gradients as the schema returns them."""
    return tuple(like.new_empty(0) if x is None else x.contiguous() for x in found)


def _dense_crf_vjp_kernel(grad: Tensor, *args: Any) -> tuple[Tensor, ...]:
    found = _dense_crf_vjp_plain(grad, *args)
    own = [None if x is None else x.clone() for x in found[_N_ARRAYS:]]  # they may be parts of one array
    return _filled(grad, [*found[:_N_ARRAYS], *own])


def _gaussian_filter_vjp_kernel(grad: Tensor, *args: Any) -> tuple[Tensor, ...]:
    return _filled(grad, _gaussian_filter_vjp_plain(grad, *args))


_DENSE_CRF = define("dense_crf", f"{_INPUTS}, int n_iter, str method, str normalization", operators.dense_crf)
_DENSE_CRF_VJP = define(
    "dense_crf_vjp",
    f"Tensor grad, {_INPUTS}, int n_iter, str method, str normalization, bool[7] needs",
    _dense_crf_vjp_kernel,
    "(Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
)
_GAUSSIAN_FILTER = define(
    "gaussian_filter",
    'Tensor values, Tensor features, str method="lattice", str normalization="symmetric"',
    operators.gaussian_filter,
)
_GAUSSIAN_FILTER_VJP = define(
    "gaussian_filter_vjp",
    "Tensor grad, Tensor values, Tensor features, str method, str normalization, bool[2] needs",
    _gaussian_filter_vjp_kernel,
    "(Tensor, Tensor)",
)

# ---- backward -------------------------------------------------------------------------------------------


def _backward_by(vjp: Any, n: int) -> tuple[Callable[..., None], Callable[..., tuple[Any, ...]]]:
    """Setup and backward of an operator whose first ``n`` inputs are tensors, by its vjp."""

    def setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:n])
        ctx.options = inputs[n:]

    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        needs = list(ctx.needs_input_grad[:n])
        found = vjp(grad, *ctx.saved_tensors, *ctx.options, needs)
        wanted = (x if want else None for x, want in zip(found, needs, strict=True))
        return *wanted, *(None for _ in ctx.options)

    return setup, backward


def _no_backward(name: str) -> Callable[..., NoReturn]:
    def backward(ctx: Any, *grads: Tensor) -> NoReturn:
        of = name.removesuffix("_vjp")
        raise NotImplementedError(f"{name}: no gradient is implemented ({of} has first derivatives only)")

    return backward


# ---- vmap -----------------------------------------------------------------------------------------------
#
# Samples become one more leading dimension. Widths and compatibilities are a batch's together, and so are their
# gradients: where samples have their own, or want their own gradient, they go one by one.


def _dense_crf_vmap(op: Any, first: int, alone: Callable[..., bool]) -> Callable[..., tuple[Any, Any]]:
    """Of an operator whose five inputs from the ``first`` on are parameters."""
    last = first + len(arguments.PARAMETERS)

    def rule(info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Any, Any]:
        n, rest = info.batch_size, args[last:]
        together = not alone(rest) and all(dim is None for dim in in_dims[first:last])
        inputs = list(args[:last])
        for k, (x, dim) in enumerate(zip(inputs, in_dims, strict=False)):
            if x is not None and (k < first or not together):
                inputs[k] = in_front(x, dim, n)
        if together:
            out = op(*inputs, *rest)
            return out, 0 if isinstance(out, Tensor) else tuple(0 if x.ndim > 1 else None for x in out)
        if n == 0:  # what the results' shapes would be
            inputs = [x if x is None else x.new_ones((1, *x.shape[1:])) for x in inputs]
        rows = [op(*(x if x is None else x[i] for x in inputs), *rest) for i in range(max(n, 1))]
        if isinstance(rows[0], Tensor):
            return torch.stack(rows)[:n], 0
        columns = tuple(torch.stack(column)[:n] for column in zip(*rows, strict=True))
        return columns, (0,) * len(columns)

    return rule


def _never(rest: tuple[Any, ...]) -> bool:
    return False


def _by_parameters(rest: tuple[Any, ...]) -> bool:
    """Whether the gradient with respect to a parameter is wanted."""
    return any(rest[-1][_N_ARRAYS:])


# ---- fakes ----------------------------------------------------------------------------------------------


def _dense_crf_fake(unary: Tensor, image: Tensor | None, *parameters_and_options: Any) -> Tensor:
    arguments.sizes("dense_crf", unary, image)
    return unary.new_empty(unary.shape)


def _dense_crf_vjp_fake(grad: Tensor, *args: Any) -> tuple[Tensor, ...]:
    needs = args[-1]
    arrays, parameters = args[:_N_ARRAYS], args[_N_ARRAYS:_N_INPUTS]
    found = [x.new_empty(x.shape) if n and _is_float(x) else None for x, n in zip(arrays, needs, strict=False)]
    for x, wanted in zip(parameters, needs[_N_ARRAYS:], strict=True):
        dtype = x.dtype if _is_float(x) else torch.float64
        found.append(x.new_empty(x.shape, dtype=dtype) if wanted else None)
    return _filled(grad, found)


def _is_float(x: Tensor | None) -> bool:
    return x is not None and x.is_floating_point()


def _gaussian_filter_fake(values: Tensor, features: Tensor, *options: Any) -> Tensor:
    op = "gaussian_filter"
    _check.dtype(op, "values", values, arguments.DTYPES)
    _check.same_dtype(op, "features", features, "values", values)
    return values.new_empty(values.shape)


def _gaussian_filter_vjp_fake(grad: Tensor, values: Tensor, features: Tensor, *options: Any) -> tuple[Tensor, ...]:
    pairs = zip((values, features), options[-1], strict=True)
    return _filled(grad, [x.new_empty(x.shape) if wanted else None for x, wanted in pairs])


# ---- registration ---------------------------------------------------------------------------------------

register(
    _DENSE_CRF,
    _dense_crf_fake,
    *_backward_by(_DENSE_CRF_VJP, _N_INPUTS),
    _dense_crf_vmap(_DENSE_CRF, _N_ARRAYS, _never),
    "float32",
)
register(
    _DENSE_CRF_VJP,
    _dense_crf_vjp_fake,
    nothing_setup,
    _no_backward("dense_crf_vjp"),
    _dense_crf_vmap(_DENSE_CRF_VJP, 1 + _N_ARRAYS, _by_parameters),
    "float32",
)
register(
    _GAUSSIAN_FILTER,
    _gaussian_filter_fake,
    *_backward_by(_GAUSSIAN_FILTER_VJP, 2),
    batch_vmap(_GAUSSIAN_FILTER),
    "float32",
)
register(
    _GAUSSIAN_FILTER_VJP,
    _gaussian_filter_vjp_fake,
    nothing_setup,
    _no_backward("gaussian_filter_vjp"),
    batch_vmap(_GAUSSIAN_FILTER_VJP),
    "float32",
)


# ---- what a public call with torch tensors becomes ------------------------------------------------------
#
# The schema takes tensors, and the dispatcher's words for anything else would hide the operator's. What the schema
# cannot take goes to the operator itself, which says what is wrong with it.


def _is_number(x: Any) -> bool:
    """Whether it is a number that a tensor can hold."""
    return type(x) is float or (type(x) is int and -(2**63) <= x < 2**63)


def _is_width(x: Any) -> bool:
    return _is_number(x) and 0 < x < math.inf


def _is_plain(x: Any) -> bool:
    """Whether it is a number, or rows of numbers."""
    return _is_number(x) or (type(x) in (tuple, list) and all(_is_plain(entry) for entry in x))


def _dtype_of(value: Any) -> torch.dtype:
    """What a NumPy array becomes; anything else is float64."""
    single = _array.family(value) is not None and _array.dtype_name(value) == "float32"
    return torch.float32 if single else torch.float64


def _widths(op: str, name: str, value: Any, count: int) -> Tensor:
    if isinstance(value, Tensor):
        return value
    dtype = torch.float64
    several = type(value) in (tuple, list)
    if not (_is_width(value) or (several and len(value) == count and all(_is_width(x) for x in value))):
        numbers = arguments.widths(op, name, value, count, "")  # torch.compile does not follow what that takes
        dtype = _dtype_of(value)
        value = numbers if isinstance(value, Sequence) or getattr(value, "ndim", 0) != 0 else numbers[0]
    return torch.tensor(value, dtype=dtype)


def _compatibility(op: str, name: str, value: Any) -> Tensor:
    if isinstance(value, Tensor):
        return value
    dtype = torch.float64
    if not _is_plain(value):
        entries = arguments.entries(op, name, value)
        dtype, value = _dtype_of(entries), entries.tolist()
    return torch.tensor(value, dtype=dtype)


def _tensors(op: str, unary: Tensor, image: Tensor | None, parameters: Sequence[Any]) -> list[Tensor]:
    """The parameters as tensors; an error where the operator has to say what is wrong."""
    channels = image.shape[-1] if image is not None and image.ndim == unary.ndim else 1
    theta_gamma, compat_smooth, theta_alpha, theta_beta, compat_bilateral = parameters
    for name, value in zip(arguments.PARAMETERS, parameters, strict=True):
        if isinstance(value, Tensor) and value.device.type not in ("cpu", unary.device.type):
            rule = f"be on unary's device ({unary.device}) or the CPU"
            _check.fail(op, name, rule, value.device, error=TypeError)
    return [
        _widths(op, "theta_gamma", theta_gamma, 2),
        _compatibility(op, "compat_smooth", compat_smooth),
        _widths(op, "theta_alpha", theta_alpha, 2),
        _widths(op, "theta_beta", theta_beta, channels),
        _compatibility(op, "compat_bilateral", compat_bilateral),
    ]


def _dense_crf(
    unary: Tensor,
    image: Tensor | None = None,
    *,
    theta_gamma: Any = 3.0,
    compat_smooth: Any = 3.0,
    theta_alpha: Any = 80.0,
    theta_beta: Any = 13.0,
    compat_bilateral: Any = 10.0,
    n_iter: int = 10,
    method: str = "lattice",
    normalization: str = "symmetric",
    return_info: bool = False,
) -> Any:
    op = "dense_crf"
    n_iter = _check.integer(op, "n_iter", n_iter, 0)
    _check.flag(op, "return_info", return_info)
    given = (theta_gamma, compat_smooth, theta_alpha, theta_beta, compat_bilateral)
    try:
        tensors = _tensors(op, unary, image, given)
        options = n_iter, *arguments.words(op, method, normalization)
    except (TypeError, ValueError):
        return _dense_crf_plain(unary, image, *given, n_iter, method, normalization)
    if return_info:
        return _with_info(unary, image, tensors, options)
    return _DENSE_CRF(unary, image, *tensors, *options)


def _with_info(unary: Tensor, image: Tensor | None, parameters: list[Tensor], options: tuple[Any, ...]) -> Any:
    """The marginals with their graph, and how it went from a run without one."""
    device = unary.device.type
    inputs: list[Any] = [unary, image, *parameters]
    if torch.is_autocast_enabled(device):
        inputs = [as_under_autocast(x, "float32", device) for x in inputs]
    q, info = _dense_crf_plain(*(x if x is None else x.detach() for x in inputs), *options, True)
    if torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in inputs):
        q = _DENSE_CRF(*inputs, *options)
    return q, info


def _dense_crf_vjp(
    grad: Tensor,
    unary: Tensor,
    image: Tensor | None = None,
    *,
    theta_gamma: Any = 3.0,
    compat_smooth: Any = 3.0,
    theta_alpha: Any = 80.0,
    theta_beta: Any = 13.0,
    compat_bilateral: Any = 10.0,
    n_iter: int = 10,
    method: str = "lattice",
    normalization: str = "symmetric",
    needs: Sequence[bool] = (True,) * _N_INPUTS,
) -> operators.DenseCRFGradients:
    op = "dense_crf_vjp"
    n_iter = _check.integer(op, "n_iter", n_iter, 0)
    given = (theta_gamma, compat_smooth, theta_alpha, theta_beta, compat_bilateral)
    try:
        tensors = _tensors(op, unary, image, given)
        wants = _wants(needs, _N_INPUTS)
        options = n_iter, *arguments.words(op, method, normalization), wants
    except (TypeError, ValueError):
        return _dense_crf_vjp_plain(grad, unary, image, *given, n_iter, method, normalization, needs)
    found = _DENSE_CRF_VJP(grad, unary, image, *tensors, *options)
    wants[1] = wants[1] and _is_float(image)
    return operators.DenseCRFGradients(*(x if want else None for x, want in zip(found, wants, strict=True)))


def _wants(needs: Any, n: int) -> list[bool]:
    wants = [bool(x) for x in needs]
    if len(wants) != n:
        raise ValueError  # the operator says it
    return wants


def _gaussian_filter(
    values: Tensor, features: Tensor, *, method: str = "lattice", normalization: str = "symmetric"
) -> Tensor:
    try:
        arguments.words("gaussian_filter", method, normalization)
    except (TypeError, ValueError):
        return _gaussian_filter_plain(values, features, method, normalization)
    return _GAUSSIAN_FILTER(values, features, method, normalization)


def _gaussian_filter_vjp(
    grad: Tensor,
    values: Tensor,
    features: Tensor,
    *,
    method: str = "lattice",
    normalization: str = "symmetric",
    needs: Sequence[bool] = (True, True),
) -> operators.GaussianFilterGradients:
    try:
        arguments.words("gaussian_filter_vjp", method, normalization)
        wants = _wants(needs, 2)
    except (TypeError, ValueError):
        return _gaussian_filter_vjp_plain(grad, values, features, method, normalization, needs)
    found = _GAUSSIAN_FILTER_VJP(grad, values, features, method, normalization, wants)
    return operators.GaussianFilterGradients(*(x if want else None for x, want in zip(found, wants, strict=True)))


OPERATORS: dict[str, Callable[..., Any]] = {
    "dense_crf": _dense_crf,
    "dense_crf_vjp": _dense_crf_vjp,
    "gaussian_filter": _gaussian_filter,
    "gaussian_filter_vjp": _gaussian_filter_vjp,
}
