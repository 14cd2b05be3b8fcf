"""How far and how densely a network looks at an image: receptive fields and output strides."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from .. import _check
from ..resize import output_size

__all__ = ["ReceptiveField", "evaluating", "first_channels", "output_stride", "reach_of", "receptive_field"]

# Every map carries, for each of its rows and of its columns, the first and the last row or column of the image that it
# depends on. Each operator turns its inputs' into its own: exactly, holes of dilated kernels apart.


class ReceptiveField(NamedTuple):
    """What a pixel of a map sees; all fields are pairs (rows, columns), in pixels of the image."""

    size: tuple[float, float]
    stride: tuple[float, float]
    offset: tuple[float, float]


class _Axis(NamedTuple):
    """Along one axis, what each place depends on (first and last; nothing: inf and -inf), and the step between them."""

    first: np.ndarray
    last: np.ndarray
    step: Fraction | None  # None: not a grid of the image any more
    coarsest: Fraction


def _taken(axis: _Axis, taps: np.ndarray, factor: Fraction | None) -> _Axis:
    """An axis each place of which depends on the places ``taps`` [n, size] of another one; those outside are none."""
    n = len(axis.first)
    inside = (taps >= 0) & (taps < n)
    index = np.clip(taps, 0, max(n - 1, 0))
    first = np.where(inside, axis.first[index], np.inf).min(0)
    last = np.where(inside, axis.last[index], -np.inf).max(0)
    step = None if axis.step is None or factor is None else axis.step * factor
    return _Axis(first, last, step, axis.coarsest if step is None else max(axis.coarsest, step))


def _everywhere(axis: _Axis, size: int) -> _Axis:
    """An axis each place of which depends on all of another one."""
    first, last = (np.full(size, f) for f in (axis.first.min(initial=np.inf), axis.last.max(initial=-np.inf)))
    return _Axis(first, last, None, axis.coarsest)


def _union(axes: Sequence[_Axis]) -> _Axis:
    """An axis that depends on all of several; those of one place are spread."""
    first, last = axes[0].first, axes[0].last
    for axis in axes[1:]:
        first, last = np.minimum(first, axis.first), np.maximum(last, axis.last)
    steps = [axis.step for axis in axes if axis.step is not None and len(axis.first) == len(first)]
    return _Axis(first, last, max(steps, default=None), max(axis.coarsest for axis in axes))


_Reach = tuple[_Axis, _Axis]


def _window_taps(size: int, kernel: int, stride: int, before: int, dilation: int) -> np.ndarray:
    return np.arange(size) * stride - before + dilation * np.arange(kernel)[:, None]


def _both(value: Any, default: Any = None) -> Sequence[Any]:
    """A number or a list of one or two as a pair."""
    if value is None or (isinstance(value, list | tuple) and not value):
        value = default
    return (value, value) if not isinstance(value, list | tuple) else (value[0], value[-1])


def _convolved(
    reach: _Reach, sizes: Sequence[int], kernel: Any, stride: Any = 1, padding: Any = 0, dilation: Any = 1
) -> _Reach:
    padding = [padding[0], padding[2]] if isinstance(padding, list | tuple) and len(padding) == 4 else padding
    numbers = zip(*(_both(v) for v in (kernel, stride, padding, dilation)), strict=True)
    found = [
        _taken(axis, _window_taps(size, k, s, p, d), Fraction(s))
        for axis, size, (k, s, p, d) in zip(reach, sizes, numbers, strict=True)
    ]
    return found[0], found[1]


def _spread(reach: _Reach, out: Tensor, kernel: Any, stride: Any, padding: Any, dilation: Any = 1) -> _Reach:
    """Of a transposed convolution, or an unpooling."""
    found = []
    numbers = zip(*(_both(v) for v in (kernel, stride, padding, dilation)), strict=True)
    for axis, size, (k, s, p, d) in zip(reach, out.shape[2:], numbers, strict=True):
        source = np.arange(size) + p - d * np.arange(k)[:, None]
        found.append(_taken(axis, np.where(source % s, -1, source // s), Fraction(1, s)))
    return found[0], found[1]


def _resized(
    reach: _Reach, sizes: Sequence[int], mode: str, corners: bool, factors: Any, antialias: bool = False
) -> _Reach:
    found = []
    for axis, size, factor in zip(reach, sizes, _both(factors), strict=True):
        n = len(axis.first)
        if corners:
            scale = (n - 1) / (size - 1) if size > 1 else 0.0
        else:
            scale = 1 / factor if factor else n / size
        place = np.arange(size)
        centre = place * scale if corners else (place + 0.5) * scale - 0.5
        if mode == "nearest":
            taps = np.floor(place * scale)[None]
        elif mode == "nearest-exact":
            taps = np.floor((place + 0.5) * scale)[None]
        else:
            support = (1 if mode == "bilinear" else 2) * (max(scale, 1.0) if antialias else 1)
            if mode == "bilinear" and not antialias:
                centre = np.maximum(centre, 0.0)
            low = np.floor(centre - support).astype(int)
            taps = low + np.arange(int(2 * support) + 3)[:, None]
            taps = np.where(np.abs(taps - centre) < support, np.clip(taps, 0, n - 1), -1)
        exact = Fraction(n, size) if not factor or corners else 1 / Fraction(factor).limit_denominator(1 << 20)
        found.append(_taken(axis, np.minimum(taps, n - 1).astype(int), exact))
    return found[0], found[1]


def _adaptively(reach: _Reach, out: Tensor) -> _Reach:
    found = []
    for axis, size in zip(reach, out.shape[-2:], strict=True):
        n = len(axis.first)
        if size == n:
            found.append(axis)
            continue
        begin, end = np.arange(size) * n // size, -(-(np.arange(size) + 1) * n // size)
        taps = begin + np.arange(max((end - begin).max(initial=1), 1))[:, None]
        found.append(_taken(axis, np.where(taps < end, taps, -1), None))
    return found[0], found[1]


_BATCH_NORMS = ("_native_batch_norm_legit_no_training", "native_batch_norm", "cudnn_batch_norm", "batch_norm")
_KEEPING = (
    *("clone", "detach", "alias", "_to_copy", "contiguous", "lift_fresh", "dropout", "native_dropout", "copy"),
    *("expand", "unsqueeze", "squeeze", "view", "_unsafe_view", "reshape", "_reshape_alias"),
)
_POINTWISE = (  # those that carry no tag
    *("hardswish", "hardsigmoid", "hardtanh", "silu", "mish", "gelu", "elu", "celu", "leaky_relu", "softplus"),
    *("_prelu_kernel", "log_sigmoid_forward", "rrelu_with_noise_functional"),
)
_REDUCTIONS = ("mean", "sum", "amax", "amin", "var", "std", "var_mean", "max", "min", "argmax", "argmin", "any", "all")
_STAYING = frozenset({*_BATCH_NORMS, *_KEEPING, *_POINTWISE})
_PRODUCTS = ("addmm", "mm", "bmm", "matmul", "linear", "baddbmm", "t", "einsum")


def _plain_name(func: Any) -> str:
    return func._schema.name.split("::")[1]


class _Reaching(TorchDispatchMode):
    """Follows what depends on one tensor, operator by operator."""

    def __init__(self, op: str, image: Tensor) -> None:
        super().__init__()
        self.op = op
        self.known: dict[int, tuple[Tensor, _Reach]] = {}  # the tensor itself, so that no other takes its id
        one = Fraction(1)
        axes = [_Axis(np.arange(float(n)), np.arange(float(n)), one, one) for n in image.shape[2:]]
        self.set(image, (axes[0], axes[1]))

    def set(self, x: Tensor, reach: _Reach) -> None:
        self.known[id(x)] = x, reach

    def get(self, x: Any) -> _Reach | None:
        found = self.known.get(id(x)) if isinstance(x, Tensor) else None
        return None if found is None else found[1]

    def __torch_dispatch__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        names = [argument.name for argument in func._schema.arguments]
        defaults = {a.name: a.default_value for a in func._schema.arguments if a.has_default_value()}
        given = {**defaults, **dict(zip(names, args, strict=False)), **kwargs, "_name": _plain_name(func)}
        inputs = [x for x in tree_leaves((args, kwargs)) if self.get(x) is not None]
        results = [y for y in tree_leaves(out) if isinstance(y, Tensor)]
        if inputs and results:
            for y, reach in zip(results, self._reaches(func, given, inputs, results), strict=True):
                self.set(y, reach)
        return out

    def _reaches(
        self, func: Any, given: dict[str, Any], inputs: list[Tensor], results: list[Tensor]
    ) -> Sequence[_Reach]:
        name = given["_name"]
        rules = _OURS if func.namespace == "cv3gpu" else _ATEN
        if name in rules:
            return rules[name](self, given, inputs, results)
        stays = torch.Tag.pointwise in func.tags or name.removesuffix("_") in _STAYING
        if func.namespace == "aten" and stays:
            return [self._together(inputs, y) for y in results]
        if func.namespace == "aten" and (name in _REDUCTIONS or name in _PRODUCTS):
            return [self._reduced(given, inputs, y) for y in results]
        _check.fail(self.op, "model", "be of operators whose receptive field is known", f"{func.namespace}::{name}")

    def reaches(self, tensors: Sequence[Any]) -> list[_Reach]:
        """Of those that depend on the image."""
        return [found for found in map(self.get, tensors) if found is not None]

    def _together(self, inputs: Sequence[Tensor], out: Tensor) -> _Reach:
        """Of a pointwise operator, and of another view: places stay where the sizes are the same."""
        sizes = _sizes(out)
        reaches = self.reaches(inputs)
        rows = _union([_fitted(r, sizes[0]) for r, _ in reaches])
        return rows, _union([_fitted(c, sizes[1]) for _, c in reaches])

    def _reduced(self, given: dict[str, Any], inputs: Sequence[Tensor], out: Tensor) -> _Reach:
        """Of sums over some dimensions, and of matrix products."""
        x, dims = inputs[0], given.get("dim")
        rows, columns = self._together(inputs, x) if len(inputs) == 1 else (None, None)
        if rows is not None and columns is not None and dims is not None and x.ndim == 4:
            over = {d % 4 for d in (dims if isinstance(dims, list | tuple) else [dims])}
            if out.ndim == 4 or over == {1}:  # the other dimensions are where they were
                return _summed(rows, 2 in over), _summed(columns, 3 in over)
        sizes = _sizes(out)
        reaches = self.reaches(inputs)
        rows = _union([_everywhere(r, sizes[0]) for r, _ in reaches])
        return rows, _union([_everywhere(c, sizes[1]) for _, c in reaches])


def _summed(axis: _Axis, over: bool) -> _Axis:
    return _everywhere(axis, 1) if over else axis


def _fitted(axis: _Axis, size: int) -> _Axis:
    return axis if len(axis.first) == size else _everywhere(axis, size)


def _sizes(x: Tensor) -> tuple[int, int]:
    """Rows and columns of a map; one place for what is none."""
    return (x.shape[-2], x.shape[-1]) if x.ndim >= 4 else (1, 1)


# ---- rules of operators ---------------------------------------------------------------------------------
#
# Each takes the mode, the arguments by name, the tensors that depend on the image, and the results.

_Rule = Callable[[_Reaching, dict[str, Any], list[Tensor], list[Tensor]], list[_Reach]]


def _same(mode: _Reaching, g: dict[str, Any], inputs: list[Tensor], results: list[Tensor]) -> list[_Reach]:
    return [mode._together(inputs, y) for y in results]


def _convolution(mode: _Reaching, g: dict[str, Any], inputs: list[Tensor], results: list[Tensor]) -> list[_Reach]:
    (out,), reach = results, mode.reaches([g.get("input", g.get("x"))])[0]
    kernel = g["weight"].shape[2:]
    if g.get("transposed"):
        return [_spread(reach, out, kernel, g["stride"], g["padding"], g["dilation"])]
    return [_convolved(reach, out.shape[2:], kernel, g["stride"], g["padding"], g["dilation"])]


def _transposed(mode: _Reaching, g: dict[str, Any], inputs: list[Tensor], results: list[Tensor]) -> list[_Reach]:
    reach = mode.reaches([g["x"]])[0]
    return [_spread(reach, results[0], g["weight"].shape[2:], g["stride"], g["padding"], g["dilation"])]


def _separable(mode: _Reaching, g: dict[str, Any], inputs: list[Tensor], results: list[Tensor]) -> list[_Reach]:
    steps = g["stride"], g["padding"], g["dilation"]
    return [_convolved(mode.reaches([g["x"]])[0], results[0].shape[2:], g["depthwise"].shape[2:], *steps)]


def _pooling(mode: _Reaching, g: dict[str, Any], inputs: list[Tensor], results: list[Tensor]) -> list[_Reach]:
    stride = _both(g["stride"], g["kernel_size"])
    steps = g["kernel_size"], stride, g["padding"], g.get("dilation", 1)
    return [_convolved(mode.reaches(inputs)[0], results[0].shape[-2:], *steps)] * len(results)


def _unpooling(mode: _Reaching, g: dict[str, Any], inputs: list[Tensor], results: list[Tensor]) -> list[_Reach]:
    kernel, stride = g["kernel_size"], _both(g["stride"], g["kernel_size"])
    reaches = [_spread(reach, results[0], kernel, stride, g["padding"]) for reach in mode.reaches(inputs)]
    return [(_union([r for r, _ in reaches]), _union([c for _, c in reaches]))]


def _adaptive_pooling(mode: _Reaching, g: dict[str, Any], inputs: list[Tensor], results: list[Tensor]) -> list[_Reach]:
    return [_adaptively(mode.reaches(inputs)[0], results[0])] * len(results)


def _resizing(name: str) -> _Rule:
    def rule(mode: _Reaching, g: dict[str, Any], inputs: list[Tensor], results: list[Tensor]) -> list[_Reach]:
        factors = g.get("scale_factors", g.get("scales"))
        if factors is None and g.get("scales_h") is not None:
            factors = (g["scales_h"], g["scales_w"])
        corners, smooth = bool(g.get("align_corners", False)), name.endswith("_aa")
        sizes, kind = results[0].shape[2:], name.removesuffix("_aa")
        return [_resized(mode.reaches(inputs)[0], sizes, kind, corners, factors, smooth)]

    return rule


def _our_resizing(mode: _Reaching, g: dict[str, Any], inputs: list[Tensor], results: list[Tensor]) -> list[_Reach]:
    options = bool(g.get("align_corners")), g.get("scale_factor"), bool(g.get("antialias"))
    return [_resized(mode.reaches([g["x"]])[0], results[0].shape[2:], g["mode"], *options)]


def _resized_and_convolved(
    mode: _Reaching, g: dict[str, Any], inputs: list[Tensor], results: list[Tensor]
) -> list[_Reach]:
    kernel, dilation, padding = g["weight"].shape[2:], _both(g["dilation"]), g["padding"]
    if padding is None:  # "same"
        padding = [d * (k - 1) // 2 for k, d in zip(kernel, dilation, strict=True)]
    h, w = g["x"].shape[2:]
    sizes = output_size("resize_conv2d", h, w, g["size"], g["scale_factor"])
    enlarged = _resized(mode.reaches([g["x"]])[0], sizes, g["mode"], bool(g["align_corners"]), g["scale_factor"])
    return [_convolved(enlarged, results[0].shape[2:], kernel, 1, padding, dilation)]


def _branches(mode: _Reaching, g: dict[str, Any], inputs: list[Tensor], results: list[Tensor]) -> list[_Reach]:
    """Of atrous branches, and of what was pooled beside them."""
    (out,) = results
    reach, found = mode.reaches([g["x"]])[0], []
    for weight, dilation in zip(g["weights"], g["dilations"], strict=True):
        kernel = weight.shape[2:]
        padding = [d * (k // 2) for k, d in zip(kernel, _both(dilation), strict=True)]
        found.append(_convolved(reach, out.shape[2:], kernel, 1, padding, dilation))
    vectors = [x for x in inputs if x is not g["x"]]
    found += [mode._together([x], out) for x in vectors]
    return [(_union([r for r, _ in found]), _union([c for _, c in found]))]


def _whole(mode: _Reaching, g: dict[str, Any], inputs: list[Tensor], results: list[Tensor]) -> list[_Reach]:
    """Each result depends on all that came in."""
    reaches, found = mode.reaches(inputs), []
    for out in results:
        h, w = _sizes(out)
        rows, columns = ([_everywhere(reach[i], n) for reach in reaches] for i, n in enumerate((h, w)))
        found.append((_union(rows), _union(columns)))
    return found


def _border(mode: _Reaching, g: dict[str, Any], inputs: list[Tensor], results: list[Tensor]) -> list[_Reach]:
    pad = [*g.get("pad", g.get("padding", ())), 0, 0, 0, 0]
    reach, kind, found = mode.reaches(inputs)[0], g["_name"], []
    for axis, before, size in zip(reach, (pad[2], pad[0]), results[0].shape[-2:], strict=True):
        n, place = len(axis.first), np.arange(size) - before
        if kind == "reflection_pad2d":
            place = n - 1 - np.abs(n - 1 - np.abs(place))
        elif kind == "replication_pad2d":
            place = np.clip(place, 0, n - 1)
        found.append(_taken(axis, place[None], Fraction(1)))
    return [(found[0], found[1])]


def _part(mode: _Reaching, g: dict[str, Any], inputs: list[Tensor], results: list[Tensor]) -> list[_Reach]:
    """Of slices, and of what falls into parts along a dimension."""
    x, reach = inputs[0], list(mode.reaches(inputs)[0])
    dim = g["dim"] % x.ndim
    if x.ndim < 4 or dim < x.ndim - 2:
        return [mode._together(inputs, y) for y in results]
    which, begin, found = dim - (x.ndim - 2), g.get("start") or 0, []
    begin = begin + x.shape[dim] if begin < 0 else begin
    for y in results:
        step = g.get("step", 1)
        axes = list(reach)
        axes[which] = _taken(reach[which], begin + step * np.arange(y.shape[dim])[None], Fraction(step))
        found.append((axes[0], axes[1]))
        begin += y.shape[dim]
    return found


def _side_by_side(mode: _Reaching, g: dict[str, Any], inputs: list[Tensor], results: list[Tensor]) -> list[_Reach]:
    (out,) = results
    dim = g["dim"] % out.ndim
    if out.ndim < 4 or dim < out.ndim - 2:
        return [mode._together(inputs, out)]
    which, first = dim - (out.ndim - 2), mode.reaches(inputs)[0]
    parts, others = [], []
    for x in g["tensors"]:
        reach, n = mode.get(x), x.shape[dim]
        if reach is None:
            parts.append(_Axis(np.full(n, np.inf), np.full(n, -np.inf), None, Fraction(0)))
        else:
            parts.append(reach[which])
            others.append(reach[1 - which])
    steps = {part.step for part in parts}
    joined = _Axis(
        np.concatenate([part.first for part in parts]),
        np.concatenate([part.last for part in parts]),
        first[which].step if len(steps) == 1 else None,
        max(part.coarsest for part in parts),
    )
    other = _union(others)
    return [(joined, other) if which == 0 else (other, joined)]


def _reordered(mode: _Reaching, g: dict[str, Any], inputs: list[Tensor], results: list[Tensor]) -> list[_Reach]:
    x, (out,) = inputs[0], results
    n = x.ndim
    if "dims" in g:
        order = [d % n for d in g["dims"]]
    else:
        order = list(range(n))
        a, b = g["dim0"] % n, g["dim1"] % n
        order[a], order[b] = b, a
    if n < 4 or order[-2:] == [n - 2, n - 1]:
        return [mode._together(inputs, out)]
    return _whole(mode, g, inputs, results)


def _selected(mode: _Reaching, g: dict[str, Any], inputs: list[Tensor], results: list[Tensor]) -> list[_Reach]:
    n = inputs[0].ndim
    kept = results[0].ndim < 4 or (n > 4 and g["dim"] % n < n - 2)
    return (_same if kept else _whole)(mode, g, inputs, results)


def _softmax(mode: _Reaching, g: dict[str, Any], inputs: list[Tensor], results: list[Tensor]) -> list[_Reach]:
    n = inputs[0].ndim
    over = n >= 4 and g["dim"] % n >= n - 2
    return (_whole if over else _same)(mode, g, inputs, results)


def _pixel_shuffle(mode: _Reaching, g: dict[str, Any], inputs: list[Tensor], results: list[Tensor]) -> list[_Reach]:
    r, reach = g["upscale_factor"], mode.reaches(inputs)[0]
    sizes = results[0].shape[-2:]
    rows, columns = (_taken(a, np.arange(n)[None] // r, Fraction(1, r)) for a, n in zip(reach, sizes, strict=True))
    return [(rows, columns)]


def _pixel_unshuffle(mode: _Reaching, g: dict[str, Any], inputs: list[Tensor], results: list[Tensor]) -> list[_Reach]:
    r = g["downscale_factor"]
    return [_convolved(mode.reaches(inputs)[0], results[0].shape[-2:], r, r)]


_ATEN: dict[str, _Rule] = {
    "convolution": _convolution,
    "max_pool2d_with_indices": _pooling,
    "avg_pool2d": _pooling,
    "max_unpool2d": _whole,
    "_adaptive_avg_pool2d": _adaptive_pooling,
    "adaptive_avg_pool2d": _adaptive_pooling,
    "adaptive_max_pool2d": _adaptive_pooling,
    "upsample_nearest2d": _resizing("nearest"),
    "_upsample_nearest_exact2d": _resizing("nearest-exact"),
    "upsample_bilinear2d": _resizing("bilinear"),
    "upsample_bicubic2d": _resizing("bicubic"),
    "_upsample_bilinear2d_aa": _resizing("bilinear_aa"),
    "_upsample_bicubic2d_aa": _resizing("bicubic_aa"),
    "constant_pad_nd": _border,
    "reflection_pad2d": _border,
    "replication_pad2d": _border,
    "select": _selected,
    "unbind": _selected,
    "slice": _part,
    "split": _part,
    "split_with_sizes": _part,
    "cat": _side_by_side,
    "permute": _reordered,
    "transpose": _reordered,
    "_softmax": _softmax,
    "_log_softmax": _softmax,
    "pixel_shuffle": _pixel_shuffle,
    "pixel_unshuffle": _pixel_unshuffle,
    "native_group_norm": _whole,
    "native_layer_norm": _whole,
}
_OURS: dict[str, _Rule] = {
    "conv2d": _convolution,
    "conv_transpose2d": _transposed,
    "separable_conv2d": _separable,
    "max_pool2d": _pooling,
    "max_unpool2d": _unpooling,
    "interpolate": _our_resizing,
    "resize_conv2d": _resized_and_convolved,
    "atrous_branches": _branches,
    "pyramid_pool": _whole,
    "dense_crf": _whole,
    "pyramid_expand": _same,
}


# ---- what is asked --------------------------------------------------------------------------------------


@contextmanager
def evaluating(model: torch.nn.Module) -> Iterator[None]:
    """Inside, the model and its parts are in evaluation; then as they were."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def first_channels(op: str, argument: str, model: torch.nn.Module) -> int:
    """The channels that the first convolution takes."""
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d):
            return module.in_channels
    _check.fail(op, argument, "have a convolution", "none")


def _first_tensor(value: Any) -> Any:
    return next((leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)), None)


def reach_of(op: str, model: torch.nn.Module, size: tuple[int, int], layer: str | None, channels: int) -> _Reach:
    """What the result of a model, or of one of its layers, depends on in an image of a size."""
    state = {name: t.to("meta") for name, t in (*model.named_parameters(), *model.named_buffers())}
    dtype = next((t.dtype for t in state.values() if t.is_floating_point()), torch.float32)
    image = torch.empty((1, channels, *size), device="meta", dtype=dtype)
    seen: list[Any] = []
    hook = None
    if layer is not None:
        hook = model.get_submodule(layer).register_forward_hook(lambda module, args, out: seen.append(out))
    mode = _Reaching(op, image)
    try:
        with evaluating(model), torch.no_grad(), mode:
            out = functional_call(model, state, (image,))
    finally:
        if hook is not None:
            hook.remove()
    if layer is not None:
        out = seen[0] if seen else None
    found = _first_tensor(out)
    reach = mode.get(found)
    if reach is None:
        wanted = "give a tensor that depends on the image"
        _check.fail(op, "model" if layer is None else "layer", wanted, _check.kind(out) if found is None else "another")
    return reach


def _asked(
    op: str, model: Any, layer: Any, size: Any, in_channels: Any
) -> tuple[str | None, tuple[int, int] | None, int]:
    if not isinstance(model, torch.nn.Module):
        _check.fail(op, "model", "be a torch.nn.Module", _check.kind(model), error=TypeError)
    if layer is not None and (not isinstance(layer, str) or layer not in dict(model.named_modules())):
        _check.fail(op, "layer", "be the name of a module of the model", repr(layer))
    if in_channels is None:
        in_channels = first_channels(op, "model", model)
    channels = _check.integer(op, "in_channels", in_channels, 1)
    return layer, None if size is None else _check.pair(op, "size", size, 1), channels


_SIZES = (512, 2048, 16384)


def receptive_field(
    model: torch.nn.Module,
    layer: str | None = None,
    *,
    size: int | Sequence[int] | None = None,
    in_channels: int | None = None,
) -> ReceptiveField:
    """How much of the image a pixel of a network's result sees, and how far apart neighbours look.

    Parameters
    ----------
    model : torch.nn.Module
        It takes images [1, C, H, W]; of what it returns the first tensor counts.
    layer : str, optional
        Name of the module whose result is meant, as in ``model.named_modules()``; the model's own unless given.
    size : int or pair (rows, columns), pixels, optional
        Of the image, for a network that takes one size only. Unless given images grow until their border plays no
        part.
    in_channels : int, optional
        Of the images; those of the first convolution unless given.

    Returns
    -------
    ReceptiveField
        (size, stride, offset), each a pair (rows, columns) in pixels of the image: the extent of what a pixel of the
        result depends on, the distance between neighbours' centres, and the centre of pixel (0, 0), where the image's
        own pixels have their centres at whole numbers. Infinite where all of an image of any size counts; where pixels
        of a result differ (upsampling), the largest size, and the mean of the rest.

    Raises
    ------
    TypeError, ValueError
        The model is none, has no such layer, or has an operator whose field is not known.

    Notes
    -----
    The network runs in evaluation on tensors without memory. Every operator of torch or of ours that it meets, in any
    order and with any branches, says which rows and columns of its inputs each of its own needs; so the result is
    exact for the operators as called, not for weights that happen to be zero. Holes inside a dilated kernel count as
    seen.

    References
    ----------
    A. Araujo, W. Norris, J. Sim, Computing receptive fields of convolutional neural networks, Distill 2019.

    Examples
    --------
    >>> import torch, cv3gpu
    >>> layers = [torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.MaxPool2d(2), torch.nn.Conv2d(8, 8, 3, dilation=2)]
    >>> cv3gpu.nn.receptive_field(torch.nn.Sequential(*layers))
    ReceptiveField(size=(12, 12), stride=(2, 2), offset=(4.5, 4.5))
    """
    op = "receptive_field"
    layer, given, channels = _asked(op, model, layer, size, in_channels)
    for side in _SIZES if given is None else (given,):
        extent = (side, side) if isinstance(side, int) else side
        reach = reach_of(op, model, extent, layer, channels)
        fields = [_field(axis, n, given is not None) for axis, n in zip(reach, extent, strict=True)]
        if all(math.isfinite(found[0]) for found in fields):
            break
    (h, sy, y), (w, sx, x) = fields
    return ReceptiveField((h, w), (sy, sx), (y, x))


def _field(axis: _Axis, n: int, whole: bool) -> tuple[float, float, float]:
    """Size, stride and offset along an axis, of all of the map or of its middle."""
    at = np.flatnonzero(np.isfinite(axis.first))
    count, n_seen = len(axis.first), len(at)
    if not whole:  # in the middle, where nothing of the border is seen
        at = at[(4 * at >= count) & (4 * at < 3 * count)]
    extent = axis.last[at] - axis.first[at] + 1
    stride = float(axis.step) if axis.step is not None else n / max(count, 1)
    largest = float(extent.max(initial=0))
    if not n_seen or (not whole and (not len(at) or 4 * largest > n)):
        return math.inf, _whole_number(stride), math.nan
    centres = (axis.first[at] + axis.last[at]) / 2 - at * stride
    return _whole_number(largest), _whole_number(stride), _whole_number(round(float(centres.mean()), 6))


def _whole_number(x: float) -> float:
    """The number as an integer where it is one."""
    return int(x) if math.isfinite(x) and x == int(x) else x


def output_stride(
    model: torch.nn.Module,
    layer: str | None = None,
    *,
    size: int | Sequence[int] | None = None,
    in_channels: int | None = None,
) -> Any:
    """How many pixels of the image lie between those of a network's coarsest map.

    Parameters
    ----------
    model, layer, size, in_channels
        As for :func:`receptive_field`; 224 x 224 pixels unless ``size`` is given.

    Returns
    -------
    int or pair (rows, columns)
        The largest stride of the maps that the result depends on: that of the result of a backbone, and DeepLab's
        output stride of a network which enlarges its scores. One number where both are the same.

    Raises
    ------
    TypeError, ValueError
        As :func:`receptive_field`.

    Notes
    -----
    Strides of convolutions and pools multiply, transposed convolutions, unpooling and enlargement divide. What adaptive
    pooling gives is no grid of the image any more, and does not count.

    References
    ----------
    L.-C. Chen et al., Rethinking atrous convolution for semantic image segmentation, 2017, section 3.1.

    Examples
    --------
    >>> import cv3gpu.nn.models
    >>> network = cv3gpu.nn.models.deeplabv3(21, backbone="resnet18", base_channels=4, output_stride=16)
    >>> cv3gpu.nn.output_stride(network), cv3gpu.nn.output_stride(network, "backbone.layer2")
    (16, 8)
    """
    op = "output_stride"
    layer, given, channels = _asked(op, model, layer, size, in_channels)
    reach = reach_of(op, model, given or (224, 224), layer, channels)
    rows, columns = (_whole_number(float(axis.coarsest)) for axis in reach)
    return rows if rows == columns else (rows, columns)
