"""Puts the operators of cv3gpu into a torch model that is already there, and takes them out again.

A module that is served is given another class, one of this file: a subclass of its own class with another ``forward``.
So it stays the same object, in the same place, with the same parameters, buffers, attributes and name; whoever holds
it, an optimizer, a list outside the model, sees the change. ``isinstance``, ``repr``, copies, pickles and
``torch.compile`` go by the class, and need nothing else. A ``forward`` bound to the instance would not be pickled, and
a new child module would leave the old one wherever else it is held. No class is changed: other models are not touched.
"""

from __future__ import annotations

import fnmatch
import functools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

from .. import _check
from .._table import aligned
from ..conv import DTYPES
from ..pyramid import pyramid_pooling
from ..resize import TAPS
from ..separable import separable_conv2d
from . import heads, layers

__all__ = ["OPS", "DropInReport", "DropInRow", "drop_in", "drop_out"]

OPS = (
    "aspp",
    "pyramid_pooling",
    "separable_conv2d",
    "conv2d",
    "depthwise_conv2d",
    "dilated_conv2d",
    "conv_transpose2d",
    "interpolate",
    "max_pool2d",
    "max_unpool2d",
)
SERVED = frozenset(getattr(torch, name) for name in DTYPES)
DEVICES = ("cpu", "cuda", "meta")
NOTE = (
    "Functions that a forward calls, such as torch.nn.functional.interpolate, are no modules: they are not seen, and "
    "remain torch's."
)

# ---- layers of torch that become ours -------------------------------------------------------------------


class Conv2d(layers.Conv2d):
    """What a `torch.nn.Conv2d` becomes."""


class ConvTranspose2d(layers.ConvTranspose2d):
    """What a `torch.nn.ConvTranspose2d` becomes."""


class Upsample(layers.Upsample):
    """What a `torch.nn.Upsample` becomes; torch's own for what is no batch of images of floats."""

    def forward(self, input: Tensor) -> Tensor:
        """Resizes ``input``."""
        return super().forward(input) if _images(input, 4) else nn.Upsample.forward(self, input)


class MaxPool2d(layers.MaxPool2d):
    """What a `torch.nn.MaxPool2d` becomes; torch's own for what is no image of floats."""

    compact = False  # torch's indices

    def forward(self, input: Tensor) -> Any:
        """Pools ``input``."""
        return super().forward(input) if _images(input, 3, 4) else nn.MaxPool2d.forward(self, input)


class MaxUnpool2d(layers.MaxUnpool2d):
    """What a `torch.nn.MaxUnpool2d` becomes; torch's own for what is no image of floats."""

    def forward(self, input: Tensor, indices: Tensor, output_size: Any = None) -> Tensor:
        """Unpools ``input``."""
        if _images(input, 3, 4):
            return super().forward(input, indices, output_size)
        return nn.MaxUnpool2d.forward(self, input, indices, output_size)


def _images(x: Tensor, *ndim: int) -> bool:
    return x.ndim in ndim and x.dtype in SERVED


LAYERS: Mapping[type, tuple[str, Any]] = MappingProxyType(
    {
        nn.Conv2d: ("conv2d", Conv2d),
        nn.ConvTranspose2d: ("conv_transpose2d", ConvTranspose2d),
        nn.Upsample: ("interpolate", Upsample),
        nn.MaxPool2d: ("max_pool2d", MaxPool2d),
        nn.MaxUnpool2d: ("max_unpool2d", MaxUnpool2d),
    }
)
CONVOLUTIONS = nn.Conv2d, Conv2d, layers.Conv2d
CACHES = "_looked_at", "_found_diagonal"  # what our layers note in an instance

# ---- what stands in the way -----------------------------------------------------------------------------

HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
)
STATE_HOOKS = (
    "_state_dict_hooks",
    "_state_dict_pre_hooks",
    "_load_state_dict_pre_hooks",
    "_load_state_dict_post_hooks",
)
WRAPPERS = {
    "DataParallel": "torch.nn.parallel",
    "DistributedDataParallel": "torch.nn.parallel",
    "FullyShardedDataParallel": "torch.distributed",
    "OptimizedModule": "torch._dynamo",
    "ScriptModule": "torch.jit",
}


def _hooked(module: nn.Module) -> bool:
    """Whether something else happens when a module is called."""
    state = module.__dict__
    return any(state[name] for name in HOOKS) or "forward" in state


def _wrapper(module: nn.Module) -> str | None:
    """The name of the wrapper that a module is, if it is one."""
    for kind in type(module).__mro__:
        if kind.__module__.startswith(WRAPPERS.get(kind.__name__, " ")):
            return kind.__name__
    return None


def _changed(module: nn.Module) -> str | None:
    """Why a module may not do what its class says."""
    state = module.__dict__
    if parametrize.is_parametrized(module):
        return f"has parametrizations of {', '.join(module.parametrizations)}"  # type: ignore[arg-type, union-attr]
    if any(state[name] for name in HOOKS):
        return "has hooks, as weight_norm, spectral_norm and pruning set them, too"
    if any(state[name] for name in STATE_HOOKS):
        return "has hooks of its state_dict"
    if "forward" in state:
        return "has a forward of its own"
    if state.get("_compiled_call_impl") is not None:
        return "was compiled by itself"
    if getattr(module, "qconfig", None) is not None:
        return "is prepared for quantisation"
    return None


def _parameters(module: nn.Module) -> str | None:
    """Why the parameters of a module are not served."""
    for name, p in module._parameters.items():
        if p is None:
            continue
        if is_lazy(p):
            return "is lazy: run it once first"
        if type(p) is not nn.Parameter:
            return f"has a {type(p).__name__} as its {name}"
        if p.dtype not in SERVED:
            return f"is of {_check.name_of(p.dtype)}"
        if p.device.type not in DEVICES:
            return f"is on {p.device}"
    return None


def _why_not(module: nn.Module, kind: type) -> str | None:
    """Why a layer of torch, or of a subclass, is left as it is."""
    exact, root = type(module), type(module).__module__.partition(".")[0]
    if root == __name__.partition(".")[0]:
        return "is one of cv3gpu already"
    if reason := _parameters(module) or _changed(module):
        return reason
    if exact is not kind:
        return f"is of a subclass, {exact.__module__}.{exact.__qualname__}"
    mode = getattr(module, "mode", None)
    return f"has mode {mode!r}" if kind is nn.Upsample and mode not in TAPS else None


def _said(module: nn.Module) -> str:
    """A layer in words."""
    if not isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        return ""
    size = " x ".join(map(str, module.kernel_size))
    words = [size, *(["depthwise"] if _depthwise(module) else [f"{module.groups} groups"] * (module.groups > 1))]
    words += [f"stride {max(module.stride)}"] * (max(module.stride) > 1)
    return ", ".join(words + [f"dilation {max(module.dilation)}"] * (max(module.dilation) > 1))


def _depthwise(module: Any) -> bool:
    return 1 < module.groups == module.in_channels == module.out_channels


# ---- several layers that become one operator ------------------------------------------------------------


def _aspp_dilations(module: Any) -> tuple[int, ...]:
    return tuple(branch[0].dilation[0] for branch in list(module.convs)[:-1])


def _aspp_forward(module: Any, x: Tensor) -> Any:
    """Computes the head of ``x``: in evaluation as :func:`cv3gpu.aspp`, else as its own class does."""
    if not _images(x, 4) or not heads._foldable(module) or _is_observed(module):
        return type(module).cv3gpu_original.forward(module, x)
    return heads.ASPP.forward(module, x)


def _pyramid_bins(module: Any) -> tuple[int, ...]:
    return tuple(_bin_of(branch[0]) for branch in module.features)


def _bin_of(pool: Any) -> Any:
    """The size of a square mean, or what it is instead."""
    size = pool.output_size
    return size[0] if isinstance(size, tuple) and len(set(size)) == 1 else size


def _pyramid_forward(module: Any, x: Tensor) -> Any:
    """Appends the enlarged means: in evaluation as :func:`cv3gpu.pyramid_pooling`, else as its own class does."""
    if not _images(x, 4) or not heads._foldable(module) or _is_observed(module):
        return type(module).cv3gpu_original.forward(module, x)
    return pyramid_pooling(x, **heads.PyramidPooling.folded(module), align_corners=True)


def _separable_forward(module: Any, input: Tensor) -> Any:
    """Computes the layers one after the other; what :func:`cv3gpu.separable_conv2d` does is one."""
    if not _images(input, 4) or (not torch.compiler.is_compiling() and _global_hooks()):
        return nn.Sequential.forward(module, input)
    found, at = _flat(module), 0
    while at < len(found):
        run = _run_at(found, at)
        if run is None:
            input = found[at](input)
            at += 1
        else:
            input = run(input)
            at = run.stop
    return input


def _fused_reduce(module: Any, protocol: Any) -> Any:
    """How a copy or a pickle is made of an instance, whose class stands in no file."""
    kind = type(module)
    return _fused_anew, (kind.cv3gpu_operator, kind.cv3gpu_original), module.__dict__


FUSED: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "aspp": {"forward": _aspp_forward, "dilations": property(_aspp_dilations)},
        "pyramid_pooling": {"forward": _pyramid_forward, "bins": property(_pyramid_bins)},
        "separable_conv2d": {"forward": _separable_forward},
    }
)


@functools.cache
def _fused(operator: str, theirs: Any) -> Any:
    """The class that does as ``theirs``, by one operator where that is the same; no mixin, which has another layout."""
    names = {"__module__": theirs.__module__, "__qualname__": theirs.__qualname__, "__doc__": theirs.__doc__}
    more = {"cv3gpu_operator": operator, "cv3gpu_original": theirs, "__reduce_ex__": _fused_reduce}
    return type(theirs.__name__, (theirs,), {**names, **more, **FUSED[operator]})


def _fused_anew(operator: str, theirs: Any) -> Any:
    """An instance without a state."""
    kind = _fused(operator, theirs)
    return kind.__new__(kind)


def _original(kind: Any) -> type | None:
    """The class that became ``kind``, if this file made it."""
    found = {ours: theirs for theirs, (_, ours) in LAYERS.items()}.get(kind)
    return found or vars(kind).get("cv3gpu_original")


def _global_hooks() -> bool:
    return bool(torch.nn.modules.module._has_any_global_hook())


def _is_observed(module: nn.Module) -> bool:
    """Whether a hook wants to see what happens inside a module."""
    inside = any(m is not module and _hooked(m) for m in module.modules())
    return inside or (not torch.compiler.is_compiling() and _global_hooks())


class _Run(NamedTuple):
    """A depthwise convolution, a pointwise one, and what goes with them."""

    depthwise: Any
    mid_norm: Any
    mid_activation: str | None
    pointwise: Any
    norm: Any
    activation: str | None
    stop: int  # the place after it

    def __call__(self, x: Tensor) -> Tensor:
        dtype = self.depthwise.weight.dtype
        mid_scale, mid_bias = layers.fold_batch_norm(self.mid_norm, self.depthwise.bias, dtype)
        scale, bias = layers.fold_batch_norm(self.norm, self.pointwise.bias, dtype)
        return separable_conv2d(
            x,
            self.depthwise.weight,
            self.pointwise.weight,
            bias,
            stride=self.depthwise.stride,
            padding=self.depthwise.padding,
            dilation=self.depthwise.dilation,
            mid_scale=mid_scale,
            mid_bias=mid_bias,
            mid_activation=self.mid_activation,
            scale=scale,
            activation=self.activation,
        )


def _is_plain(module: Any) -> bool:
    """Whether a module is a ``Sequential`` that does no more than that."""
    forward = type(module).forward if isinstance(module, nn.Sequential) else None
    return forward in (nn.Sequential.forward, _separable_forward) and not _hooked(module)


def _flat(module: nn.Module) -> list[nn.Module]:
    """The layers of a ``Sequential`` and of those in it, in the order of their calls."""
    found: list[nn.Module] = []
    for child in module._modules.values():
        if child is not None:
            found += _flat(child) if _is_plain(child) else [child]
    return found


def _finish(found: list[nn.Module], at: int, planned: bool) -> tuple[Any, str | None, int]:
    """The batch norm and the activation at a place, and the place after them."""

    def layer(at: int) -> Any:
        return found[at] if at < len(found) and (planned or not _hooked(found[at])) else None

    norm, activation = layer(at), None
    if type(norm) is nn.BatchNorm2d and norm.running_mean is not None and (planned or not norm.training):
        at += 1
    else:
        norm = None
    if type(layer(at)) in (nn.ReLU, nn.ReLU6):
        activation, at = ("relu" if type(layer(at)) is nn.ReLU else "relu6"), at + 1
    return norm, activation, at


def _run_at(found: list[nn.Module], at: int, planned: bool = False) -> _Run | None:
    """What begins at a place and is one operator: now, or (``planned``) without hooks and in evaluation."""
    first: Any = found[at]
    if type(first) not in CONVOLUTIONS or not _depthwise(first) or first.padding_mode != "zeros":
        return None
    mid_norm, mid_activation, at = _finish(found, at + 1, planned)
    second: Any = found[at] if at < len(found) else None
    if type(second) not in CONVOLUTIONS or second.in_channels != first.out_channels:
        return None
    if not planned and (_hooked(first) or _hooked(second)):
        return None
    steps = second.kernel_size, second.stride, second.groups
    if steps != ((1, 1), (1, 1), 1) or second.padding not in ((0, 0), "valid", "same"):
        return None
    if second.weight.dtype != first.weight.dtype or first.weight.dtype not in SERVED:
        return None
    return _Run(first, mid_norm, mid_activation, second, *_finish(found, at + 1, planned))


def _is_chain(parts: Sequence[Any], size: int, rate: int) -> bool:
    """Whether these are a convolution that keeps the size, a batch norm and a ReLU."""
    if len(parts) != 3 or type(parts[0]) not in CONVOLUTIONS:
        return False
    conv, norm, relu = parts
    around = rate * (size // 2)
    geometry = conv.kernel_size, conv.stride, conv.padding, conv.dilation, conv.groups, conv.padding_mode, conv.bias
    wanted = (size, size), (1, 1), (around, around), (rate, rate), 1, "zeros", None
    return geometry == wanted and type(norm) is nn.BatchNorm2d and type(relu) is nn.ReLU


def _is_aspp(module: Any) -> bool:
    """Whether a module named ``ASPP`` has the layers of DeepLabv3's."""
    parts: dict[str, Any] = dict(module.named_children())
    if set(parts) != {"convs", "project"} or type(parts["convs"]) is not nn.ModuleList or len(parts["convs"]) < 2:
        return False
    *branches, pooled, project = ([*part.children()] for part in (*parts["convs"], parts["project"]))
    ends = pooled[:1] + project[3:]
    if [type(m) for m in ends] != [nn.AdaptiveAvgPool2d, nn.Dropout] or _bin_of(ends[0]) != 1:
        return False
    first, *others = branches
    chains = [(first, 1, 1), (pooled[1:], 1, 1), (project[:3], 1, 1)]
    chains += [(branch, 3, getattr(branch[0], "dilation", (0,))[0]) for branch in others]
    return all(_is_chain(*chain) for chain in chains)


def _is_pyramid(module: Any) -> bool:
    """Whether a module named ``PPM`` has the layers of PSPNet's."""
    parts: dict[str, Any] = dict(module.named_children())
    if set(parts) != {"features"} or type(parts["features"]) is not nn.ModuleList or not len(parts["features"]):
        return False
    branches = [[*branch.children()] for branch in parts["features"]]
    if any(not branch or type(branch[0]) is not nn.AdaptiveAvgPool2d for branch in branches):
        return False
    bins = [_bin_of(branch[0]) for branch in branches]
    return all(type(b) is int and 1 <= b <= 32 for b in bins) and all(_is_chain(b[1:], 1, 1) for b in branches)


KNOWN = {  # classes of others whose forward is known: the operator, and what their layers must be
    "torchvision.models.segmentation.deeplabv3.ASPP": ("aspp", _is_aspp),
    "segmentation_models_pytorch.decoders.deeplabv3.decoder.ASPP": ("aspp", _is_aspp),
    "model.pspnet.PPM": ("pyramid_pooling", _is_pyramid),  # the authors' code, hszhao/semseg
}

# ---- the call -------------------------------------------------------------------------------------------


class DropInRow(NamedTuple):
    """What became of a module."""

    name: str
    class_name: str
    what: str  # the operator
    why: str  # it was left as it is, or what it computes


class _Swap(NamedTuple):
    row: DropInRow
    module: nn.Module
    kind: type  # the new class


class DropInReport:
    """What :func:`drop_in` replaced, and what it left as it was, and why.

    As a context manager it takes the operators out again at the end of the block. Printed, it is a table.

    Attributes
    ----------
    replaced, skipped : list of DropInRow
        Rows (name, class_name, what, why).
    other : dict
        How many modules of which classes are computed by torch, as no layer of cv3gpu stands for them.
    note : str
        What no report can see.
    """

    def __init__(self, swaps: list[_Swap], skipped: list[DropInRow], other: dict[str, int]) -> None:
        self.replaced = [swap.row for swap in swaps]
        self.skipped, self.other, self.note = skipped, other, NOTE
        self._swaps = swaps

    def undo(self) -> list[str]:
        """Gives every replaced module its class again; returns the names of those that had still the new one."""
        return [swap.row.name for swap in self._swaps if type(swap.module) is swap.kind and _restore(swap.module)]

    def __enter__(self) -> DropInReport:
        return self

    def __exit__(self, *error: object) -> None:
        self.undo()

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON can hold it."""
        rows = {name: [row._asdict() for row in getattr(self, name)] for name in ("replaced", "skipped")}
        return {**rows, "other": dict(self.other), "note": self.note}

    def __str__(self) -> str:
        rows = [(row.name or "(model)", row.class_name, row.what, row.why) for row in self.replaced]
        rows += [(row.name or "(model)", row.class_name, f"not {row.what}".strip(), row.why) for row in self.skipped]
        table = aligned(("module", "class", "operator", ""), rows) + "\n\n" if rows else ""
        others = ", ".join(f"{count} {name}" for name, count in self.other.items()) or "none"
        told = f"{len(self.replaced)} replaced, {len(self.skipped)} skipped; other modules: {others}"
        return f"{table}{told}\n{self.note}"

    def __repr__(self) -> str:
        return f"DropInReport({len(self.replaced)} replaced, {len(self.skipped)} skipped)"


def drop_in(model: nn.Module, ops: Any = None, exclude: Any = ()) -> DropInReport:
    """Lets the operators of cv3gpu compute those layers of a torch model that they serve, in place.

    Parameters
    ----------
    model : torch.nn.Module
        It is changed itself, this one alone.
    ops : str or sequence of str, optional
        Operators that are to be used, all unless given: ``"conv2d"``, of which ``"depthwise_conv2d"`` and
        ``"dilated_conv2d"`` are parts, ``"conv_transpose2d"``, ``"interpolate"`` (`torch.nn.Upsample`),
        ``"max_pool2d"``, ``"max_unpool2d"``, and three that take several layers at once, in evaluation:
        ``"separable_conv2d"`` (a depthwise and a pointwise convolution in a `torch.nn.Sequential`, with what follows
        each of batch norm, ReLU or ReLU6), ``"aspp"`` (``ASPP`` of torchvision and segmentation-models-pytorch) and
        ``"pyramid_pooling"`` (``PPM`` of the PSPNet in hszhao/semseg).
    exclude : str, class, function, or sequence of these
        What is left alone with all that is in it: modules of a name (``"backbone"``, or a pattern, ``"*.conv1"``), of
        a class, or for which ``function(name, module)`` is true.

    Returns
    -------
    DropInReport
        Rows of what was ``replaced`` and what was ``skipped`` with the reason, ``undo()``, ``to_dict()``. It is a
        context manager, too: ``with drop_in(model): ...``.

    Raises
    ------
    TypeError
        ``model`` is no module; an element of ``ops`` or ``exclude`` is of another type.
    ValueError
        No such operator; no module has a name of ``exclude``. The model is as it was then.

    Notes
    -----
    A module keeps its identity, its parameters, buffers and attributes, so ``state_dict`` and optimizers stay as they
    are; what changes is its class, to a subclass with another ``forward``. Copies and pickles of the model keep it (and
    need cv3gpu to be read). ``torch.compile`` and ``torch.export`` see the registered operators; for
    ``torch.jit.script`` undo it first. Calling it twice does no harm.

    Results are those of torch up to rounding. On a CPU, convolutions are torch's own kernels in the end: it is the
    fused ones and pooling that differ. On a GPU, cuDNN is hard to beat for plain dense convolutions: ``ops`` chooses.
    ``MaxUnpool2d`` raises an error for indices outside their window.

    Left alone, each with a reason in the report: modules with hooks, parametrizations (``weight_norm``,
    ``spectral_norm``), a ``forward`` of their own, or a dtype or device that is not served; subclasses, lazy modules,
    quantised ones; and wrappers (``DataParallel``, ``DistributedDataParallel``, compiled and scripted modules) with all
    that is in them: give the module before it is wrapped. A module that is used twice is replaced once. Functions that
    a ``forward`` calls, such as `torch.nn.functional.interpolate`, are no modules and are not seen.

    Examples
    --------
    >>> import torch, cv3gpu
    >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, dilation=2), torch.nn.ReLU(), torch.nn.MaxPool2d(2))
    >>> print(cv3gpu.nn.drop_in(model))  # doctest: +ELLIPSIS
    module  class      operator
    0       Conv2d     conv2d      3 x 3, dilation 2
    2       MaxPool2d  max_pool2d
    2 replaced, 0 skipped; other modules: 1 ReLU ...
    >>> cv3gpu.nn.drop_out(model)
    ['0', '2']
    """
    if not isinstance(model, nn.Module):
        _check.fail("drop_in", "model", "be a torch.nn.Module", _check.kind(model), error=TypeError)
    wanted = _wanted(ops)
    excluded = _excluded(model, exclude)
    swaps: list[_Swap] = []
    skipped: list[DropInRow] = []
    other: Counter[str] = Counter()
    for name, module in _walk("", model, set()):
        decision = _decide(name, module, wanted, excluded)
        if isinstance(decision, _Swap):
            swaps.append(decision)
        elif decision is not None:
            skipped.append(decision)
        elif not module._modules:
            other[type(module).__name__] += 1
    for swap in swaps:
        swap.module.__class__ = swap.kind
    return DropInReport(swaps, skipped, dict(sorted(other.items())))


def drop_out(model: nn.Module) -> list[str]:
    """Takes out of a model, or of a copy of it, what :func:`drop_in` put in; returns the names of the modules.

    Layers of cv3gpu that the model was made with stay.

    Raises
    ------
    TypeError
        ``model`` is no module.
    """
    if not isinstance(model, nn.Module):
        _check.fail("drop_out", "model", "be a torch.nn.Module", _check.kind(model), error=TypeError)
    return [name for name, module in model.named_modules() if _restore(module)]


def _restore(module: Any) -> bool:
    """Gives a module its class again, where :func:`drop_in` changed it."""
    theirs = _original(type(module))
    if theirs is None:
        return False
    for name in CACHES:
        module.__dict__.pop(name, None)
    module.__class__ = theirs
    return True


def _wanted(ops: Any) -> frozenset[str]:
    if ops is None:
        return frozenset(OPS)
    names = [ops] if isinstance(ops, str) else list(ops) if isinstance(ops, Iterable) else [ops]
    if not all(isinstance(op, str) for op in names):
        _check.fail("drop_in", "ops", "be names of operators", repr(ops), error=TypeError)
    return frozenset(_check.choice("drop_in", "ops", op, OPS) for op in names)


def _excluded(model: nn.Module, exclude: Any) -> frozenset[int]:
    """The ids of modules that are left alone: of what matches, and of all that is in it."""
    rules = exclude if isinstance(exclude, list | tuple | set | frozenset) else (exclude,)
    modules = list(model.named_modules(remove_duplicate=False))
    found: set[int] = set()
    for rule in rules:
        test: Callable[[str, nn.Module], Any]
        if isinstance(rule, str):
            test = functools.partial(lambda rule, name, module: fnmatch.fnmatchcase(name, rule), rule)
        elif isinstance(rule, type) and issubclass(rule, nn.Module):
            test = functools.partial(lambda rule, name, module: isinstance(module, rule), rule)
        elif callable(rule) and not isinstance(rule, type | nn.Module):
            test = rule
        else:
            wanted = "be names, classes of modules, functions of a name and a module, or several of these"
            _check.fail("drop_in", "exclude", wanted, repr(rule), error=TypeError)
        matched = [module for name, module in modules if test(name, module)]
        if isinstance(rule, str) and not matched:
            _check.fail("drop_in", "exclude", "hold names that modules of the model have", repr(rule))
        found |= {id(inner) for module in matched for inner in module.modules()}
    return frozenset(found)


def _walk(name: str, module: nn.Module, seen: set[int]) -> Iterator[tuple[str, nn.Module]]:
    """Every module once, but what is in a wrapper."""
    if id(module) in seen:
        return
    seen.add(id(module))
    yield name, module
    if _wrapper(module) is None:
        for part, child in module._modules.items():
            if child is not None:
                yield from _walk(f"{name}.{part}" if name else part, child, seen)


def _decide(name: str, module: nn.Module, wanted: frozenset[str], excluded: frozenset[int]) -> _Swap | DropInRow | None:
    """A module's new class, or a row that says why it has none, or None where there is nothing to say."""
    theirs = type(module)

    def skip(operator: str, why: str) -> DropInRow:
        return DropInRow(name, theirs.__name__, operator, why)

    if wrapper := _wrapper(module):
        return skip("", f"is a wrapper, {wrapper}: give drop_in what is in it, before it is wrapped")
    if ".quantized." in f"{theirs.__module__}." and not module._modules:
        return skip("", "is quantised")
    for kind, (operator, ours) in LAYERS.items():
        if isinstance(module, kind):
            if id(module) in excluded:
                return skip(operator, "is excluded")
            if why := _why_not(module, kind):
                return skip(operator, why)
            if not _asked(module, operator, wanted):
                return skip(operator, "is not among ops")
            return _Swap(DropInRow(name, theirs.__name__, operator, _said(module)), module, ours)
    if known := KNOWN.get(f"{theirs.__module__}.{theirs.__qualname__}"):
        return _decide_several(name, module, known[0], list(module.modules()), wanted, excluded)
    if isinstance(module, nn.Sequential) and (runs := _own_runs(module)):
        inside = [part for run in runs for part in run if isinstance(part, nn.Module)]
        return _decide_several(name, module, "separable_conv2d", [module, *inside], wanted, excluded)
    return None


def _asked(module: nn.Module, operator: str, wanted: frozenset[str]) -> bool:
    if operator in wanted or not isinstance(module, nn.Conv2d):
        return operator in wanted
    depthwise = "depthwise_conv2d" in wanted and _depthwise(module)
    return depthwise or ("dilated_conv2d" in wanted and max(module.dilation) > 1)


def _decide_several(
    name: str, module: Any, operator: str, parts: list[nn.Module], wanted: frozenset[str], excluded: frozenset[int]
) -> _Swap | DropInRow:
    """The same for a module whose parts become one operator."""
    theirs: Any = type(module)
    why = "is one of cv3gpu already" if _original(theirs) else None
    names = {id(part): inner for inner, part in module.named_modules()}
    for part in parts:
        if why is None:
            reason = "is excluded" if id(part) in excluded else _changed(part) or _parameters(part)
            inner = names[id(part)]
            why = reason and (f"{inner} {reason}" if inner else reason)
    if why is None and operator not in wanted:
        why = "is not among ops"
    known = KNOWN.get(f"{theirs.__module__}.{theirs.__qualname__}")
    if why is None and known and not known[1](module):
        why = "has other layers than those that are known"
    if why is not None:
        return DropInRow(name, theirs.__name__, operator, why)
    if operator == "aspp":
        said = f"dilations {', '.join(map(str, _aspp_dilations(module)))}; in evaluation"
    elif operator == "pyramid_pooling":
        said = f"bins {', '.join(map(str, _pyramid_bins(module)))}; in evaluation"
    else:
        said = f"{', '.join(names[id(part)] for part in parts[1:])}"
        said += "; in evaluation" if any(type(part) is nn.BatchNorm2d for part in parts) else ""
    return _Swap(DropInRow(name, theirs.__name__, operator, said), module, _fused(operator, theirs))


def _own_runs(module: nn.Module) -> list[_Run]:
    """Runs of layers of a ``Sequential`` that are one operator, but those inside one ``Sequential`` in it."""
    if type(module).forward not in (nn.Sequential.forward, _separable_forward):
        return []
    found, runs, at = _flat(module), [], 0
    inner = [{id(m) for m in child.modules()} for child in module.children() if _is_plain(child)]
    while at < len(found):
        run = _run_at(found, at, planned=True)
        at = at + 1 if run is None else run.stop
        if run is not None and not any({id(run.depthwise), id(run.pointwise)} <= ids for ids in inner):
            runs.append(run)
    return runs
