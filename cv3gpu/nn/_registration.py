"""How an operator becomes one of torch: its kernels, fake, backward, and rules for autocast and ``torch.vmap``."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, library

from .. import _check
from .._array import memory_format

__all__ = [
    "as_under_autocast",
    "batch_vmap",
    "by_position",
    "define",
    "empty",
    "in_front",
    "is_size",
    "nothing_setup",
    "pair_of_sizes",
    "register",
]

Policy = Literal["lower", "keep", "float32"]

_LIBRARY = library.Library("cv3gpu", "DEF")
_TAGS = (torch.Tag.pt2_compliant_tag, torch.Tag.needs_exact_strides)  # the layout follows the input's
_HALVES = (torch.float16, torch.bfloat16)


def by_position(operator: Any) -> Callable[..., Any]:
    """The plain operator, which takes its keywords, too, in the order of the schema."""
    parameters = inspect.signature(operator).parameters.values()
    names = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
    first = len(parameters) - len(names)

    def plain(*args: Any) -> Any:
        return operator.plain(*args[:first], **dict(zip(names, args[first:], strict=False)))

    return plain if names else operator.plain


def define(name: str, signature: str, operator: Callable[..., Any], results: str = "Tensor") -> Any:
    """A new ``torch.ops.cv3gpu.<name>``, on CPU and GPU by an operator, or by a function in the order of the schema."""
    kernel = by_position(operator) if hasattr(operator, "plain") else operator
    _LIBRARY.define(f"{name}({signature}) -> {results}", tags=_TAGS)
    for device in ("CPU", "CUDA"):
        _LIBRARY.impl(name, kernel, device)
    return getattr(torch.ops.cv3gpu, name).default


def nothing_setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    """Of an operator without a gradient."""


def empty(like: Tensor, shape: Sequence[int], layout: str | None = None, dtype: torch.dtype | None = None) -> Tensor:
    """What `_array.empty` allocates in the memory order of ``like``, for symbolic sizes too."""
    if (layout or memory_format(like)) == "nhwc":
        n, c, h, w = shape
        return like.new_empty((n, h, w, c), dtype=dtype).permute(0, 3, 1, 2)
    return like.new_empty(shape, dtype=dtype)


def in_front(x: Tensor, dim: int | None, n: int) -> Tensor:
    """A tensor of `n` samples, the first dimension over them; shared where they have one together."""
    return x.expand(n, *x.shape) if dim is None else x.movedim(dim, 0)


def batch_vmap(op: Any) -> Callable[..., tuple[Any, Any]]:
    """Of an operator that takes any leading dimensions: one more, of all its tensors."""

    def rule(info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Any, Any]:
        n = info.batch_size
        pairs = zip(args, in_dims, strict=True)
        out = op(*(in_front(x, dim, n) if isinstance(x, Tensor) else x for x, dim in pairs))
        return out, 0 if isinstance(out, Tensor) else (0,) * len(out)

    return rule


def as_under_autocast(x: Any, policy: Policy, device: str) -> Any:
    """What an operator is given under autocast: ``"lower"`` its dtype, ``"float32"`` no 16 bits, ``"keep"`` all."""
    if isinstance(x, list | tuple):
        return [as_under_autocast(element, policy, device) for element in x]
    if policy == "keep" or not isinstance(x, Tensor) or not x.is_floating_point():
        return x
    if policy == "lower":
        return x if x.dtype == torch.float64 else x.to(torch.get_autocast_dtype(device))
    return x.float() if x.dtype in _HALVES else x


def _register_autocast(op: Any, device: str, policy: Policy) -> None:
    key = getattr(torch.DispatchKey, f"Autocast{device.upper()}")
    keys = torch._C.DispatchKeySet(key)

    def kernel(*args: Any) -> Any:
        args = tuple(as_under_autocast(x, policy, device) for x in args)
        with torch._C._ExcludeDispatchKeyGuard(keys):  # inside, nothing else may change the dtype
            return op(*args)

    _LIBRARY.impl(op._opname, kernel, key.name)


def register(
    op: Any,
    fake: Callable[..., Any],
    setup: Callable[..., None],
    backward: Callable[..., tuple[Any, ...]],
    vmap: Callable[..., tuple[Any, Any]],
    autocast: Policy,
) -> None:
    """All of an operator but its kernels."""
    name = op.name()
    library.register_fake(name, fake, lib=_LIBRARY)
    library.register_autograd(name, backward, setup_context=setup, lib=_LIBRARY)
    library.register_vmap(name, vmap, lib=_LIBRARY)
    for device in ("cpu", "cuda"):
        _register_autocast(op, device, autocast)

    # register_autograd's formula is refused inside torch.func.grad (torch 2.13); the same rules as an
    # autograd.Function are not, so a transform's front end is given that one.
    lists = [str(argument.type) == "List[Tensor]" for argument in op._schema.arguments]
    rules = {"forward": op.__call__, "setup_context": setup, "backward": backward, "vmap": vmap}
    if any(lists):
        rules = _one_by_one(rules)
    function: Any = type(op._opname, (torch.autograd.Function,), {k: staticmethod(v) for k, v in rules.items()})
    defaults = tuple(argument.default_value for argument in op._schema.arguments)

    def transformed(*args: Any) -> Any:
        args = (*args, *defaults[len(args) :])
        if not any(lists):
            return function.apply(*args)
        lengths = tuple(len(x) if many else None for x, many in zip(args, lists, strict=True))
        return function.apply(lengths, *_flat(args, lengths))

    _LIBRARY.impl(op._opname, transformed, "FuncTorchDynamicLayerFrontMode")


def _flat(args: Sequence[Any], lengths: Sequence[int | None]) -> list[Any]:
    """What is in lists one by one."""
    return [x for arg, n in zip(args, lengths, strict=True) for x in ([arg] if n is None else arg)]


def _nested(flat: Sequence[Any], lengths: Sequence[int | None]) -> list[Any]:
    """The lists again."""
    rest = iter(flat)
    return [next(rest) if n is None else [next(rest) for _ in range(n)] for n in lengths]


def _one_by_one(rules: dict[str, Callable[..., Any]]) -> dict[str, Callable[..., Any]]:
    """The rules of an operator with lists of tensors for a function without: it takes the lists' lengths first."""

    def forward(lengths: Any, *flat: Any) -> Any:
        return rules["forward"](*_nested(flat, lengths))

    def setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.lengths = inputs[0]
        rules["setup_context"](ctx, tuple(_nested(inputs[1:], ctx.lengths)), output)

    def backward(ctx: Any, *grads: Any) -> tuple[Any, ...]:
        needs = ctx.needs_input_grad
        try:
            ctx.needs_input_grad = _nested(needs[1:], ctx.lengths)
            found = rules["backward"](ctx, *grads)
        finally:
            ctx.needs_input_grad = needs
        return None, *_flat(found, ctx.lengths)

    def vmap(info: Any, in_dims: tuple[Any, ...], lengths: Any, *flat: Any) -> Any:
        return rules["vmap"](info, tuple(_nested(in_dims[1:], lengths)), *_nested(flat, lengths))

    return {"forward": forward, "setup_context": setup, "backward": backward, "vmap": vmap}


def pair_of_sizes(op: str, argument: str, value: Any) -> Sequence[int]:
    """A size in pixels, whose numbers may be symbolic."""
    if is_size(value):
        return (value, value)
    if isinstance(value, tuple | list) and len(value) == 2 and is_size(value[0]) and is_size(value[1]):
        return value
    return _check.pair(op, argument, value, -(2**31))


def is_size(n: Any) -> bool:
    """Whether the schema takes it, which cannot say what is wrong with a number of more bits."""
    if type(n) is int and not torch.compiler.is_compiling():  # there it may be symbolic, and to compare it a guard
        return -(2**31) <= n < 2**31
    return type(n) in (int, torch.SymInt)
