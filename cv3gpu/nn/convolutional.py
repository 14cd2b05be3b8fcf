"""Classifiers made fully convolutional."""

from __future__ import annotations

import copy
import math
import operator
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx
from torch.func import functional_call
from torch.nn import functional

from .. import _check
from .layers import Conv2d
from .receptive import evaluating, first_channels

__all__ = ["fully_convolutional"]

_POINTWISE_MODULES: tuple[type, ...] = (
    torch.nn.Identity,
    torch.nn.Dropout,
    torch.nn.AlphaDropout,
    torch.nn.ReLU,
    torch.nn.ReLU6,
    torch.nn.LeakyReLU,
    torch.nn.ELU,
    torch.nn.GELU,
    torch.nn.SiLU,
    torch.nn.Hardswish,
    torch.nn.Hardsigmoid,
    torch.nn.Sigmoid,
    torch.nn.Tanh,
    torch.nn.Hardtanh,
)
_POINTWISE_FUNCTIONS: frozenset[Any] = frozenset(
    {
        *(torch.relu, torch.sigmoid, torch.tanh, torch.add, torch.mul, operator.add, operator.mul),
        *(functional.relu, functional.relu6, functional.leaky_relu, functional.elu, functional.gelu),
        *(functional.silu, functional.hardswish, functional.dropout, functional.sigmoid, functional.tanh),
    }
)
_POINTWISE_METHODS = frozenset({"relu", "relu_", "sigmoid", "tanh", "contiguous", "clone", "detach", "add", "mul"})
_SOFTMAXES: frozenset[Any] = frozenset(
    {functional.softmax, functional.log_softmax, torch.softmax, torch.log_softmax, "softmax", "log_softmax"}
)
_OP = "fully_convolutional"


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: torch.nn.Module, module_qualified_name: str) -> bool:
        """Whether a module is one node: torch's, and ours."""
        ours = type(m).__module__.startswith("cv3gpu.") and not isinstance(m, torch.nn.Sequential)
        return ours or super().is_leaf_module(m, module_qualified_name)


class _Map(NamedTuple):
    """What a flattened value was: channels, rows, columns; rows and columns as they are at the traced size."""

    channels: int
    rows: int
    columns: int


def fully_convolutional(classifier: torch.nn.Module, size: int | Sequence[int] | None = None) -> fx.GraphModule:
    """A classifier with its fully connected layers as convolutions: a map of scores for an image of any larger size.

    A linear layer on a flattened map [C, h, w] is a convolution with a kernel of h x w; one that follows it is a 1 x 1
    convolution. This is the step from VGG-16 to FCN.

    Parameters
    ----------
    classifier : torch.nn.Module
        Convolutions and pools, then a flattening and linear layers, with activations, dropout and batch norms in
        between: AlexNet, VGG, ResNet and the like, ``torch.nn.Sequential`` included. It stays as it is.
    size : int or pair (rows, columns), pixels, optional
        Of the images that it was trained for. Unless given 224; the maps in front of a linear layer are square where
        that does not fit.

    Returns
    -------
    torch.fx.GraphModule
        With copies of the parameters, under the same names; weights of former linear layers have shape
        [out, C, h, w]. An image of the training size gives [N, num_classes, 1, 1], equal up to rounding to what the
        classifier gives; a larger one [N, num_classes, h', w'].

    Raises
    ------
    TypeError
        The classifier is no `torch.nn.Module`.
    ValueError
        It has no linear layer behind a map, or something in between that has no convolutional form.

    Notes
    -----
    An adaptive mean in front of the flattening is left out where it changes nothing at the training size (VGG,
    AlexNet), and is a mean over a window of its size there elsewhere: with stride 1 if the result was one pixel
    (ResNet). With padded convolutions a map differs from the scores of cut-out windows, which see zeros around them.
    The forward is traced by `torch.fx`: it must not depend on values.

    References
    ----------
    J. Long, E. Shelhamer, T. Darrell, Fully convolutional networks for semantic segmentation, CVPR 2015, section 3.1.

    Examples
    --------
    >>> import torch, cv3gpu
    >>> features = [torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.MaxPool2d(4)]
    >>> classifier = torch.nn.Sequential(*features, torch.nn.Flatten(), torch.nn.Linear(4 * 8 * 8, 10))
    >>> network = cv3gpu.nn.fully_convolutional(classifier, size=32)
    >>> network(torch.zeros(1, 3, 32, 32)).shape, network(torch.zeros(1, 3, 64, 96)).shape
    (torch.Size([1, 10, 1, 1]), torch.Size([1, 10, 9, 17]))
    """
    if not isinstance(classifier, torch.nn.Module):
        _check.fail(_OP, "classifier", "be a torch.nn.Module", _check.kind(classifier), error=TypeError)
    h, w = (224, 224) if size is None else _check.pair(_OP, "size", size, 1)
    root = copy.deepcopy(classifier)
    try:
        graph = _Tracer().trace(root)
    except Exception as error:
        raise ValueError(_check.message(_OP, "classifier", "be traceable by torch.fx", str(error))) from error
    found = _Conversion(root, graph, given=size is not None)
    found.run((h, w))
    graph.lint()
    result = fx.GraphModule(root, graph, type(classifier).__name__)
    result.graph.eliminate_dead_code()  # sizes that were asked for the flattening
    result.recompile()
    result.training = classifier.training
    return result


class _Conversion:
    """Walks a graph once: values before the flattening are computed without memory, those after it are known by map."""

    def __init__(self, root: torch.nn.Module, graph: fx.Graph, given: bool) -> None:
        self.root, self.graph, self.given = root, graph, given
        self.values: dict[fx.Node, Any] = {}
        self.maps: dict[fx.Node, _Map] = {}
        self.n_linear = 0
        self.seen: set[str] = set()

    def run(self, size: tuple[int, int]) -> None:
        for node in list(self.graph.nodes):
            if node.op == "placeholder":
                channels = first_channels(_OP, "classifier", self.root)
                dtype = next(p.dtype for p in self.root.parameters() if p.is_floating_point())
                self.values[node] = torch.empty((1, channels, *size), device="meta", dtype=dtype)
            elif node.op == "output":
                break
            elif any(n in self.maps for n in node.all_input_nodes):
                self._flat(node)
            elif not self._flattens(node):
                self._compute(node)
        if not self.n_linear:
            _check.fail(_OP, "classifier", "have a linear layer behind a map that is flattened", "none")

    def _module(self, node: fx.Node) -> Any:
        return self.root.get_submodule(str(node.target)) if node.op == "call_module" else None

    def _compute(self, node: fx.Node) -> None:
        args = fx.map_arg(node.args, lambda n: self.values[n])
        kwargs = fx.map_arg(node.kwargs, lambda n: self.values[n])
        try:
            with torch.no_grad(), torch.device("meta"):
                if node.op == "call_module":
                    value = _on_meta(self._module(node), *args, **kwargs)
                elif node.op == "call_function":
                    value = node.target(*args, **kwargs)  # type: ignore[operator]
                elif node.op == "call_method":
                    value = getattr(args[0], str(node.target))(*args[1:], **kwargs)
                else:
                    value = operator.attrgetter(str(node.target))(self.root).to("meta")
        except (RuntimeError, TypeError, ValueError) as error:
            text = f"{node.name}: {str(error).splitlines()[0]}"
            raise ValueError(_check.message(_OP, "classifier", "take images of the size", text)) from error
        self.values[node] = value

    # ---- where maps end ---------------------------------------------------------------------------------

    def _flattens(self, node: fx.Node) -> bool:
        """Whether the node makes a map flat; then it is taken out."""
        source = node.args[0] if node.args else None
        value = self.values.get(source) if isinstance(source, fx.Node) else None
        if not isinstance(source, fx.Node) or not isinstance(value, Tensor) or value.ndim != 4:
            return False
        _, channels, rows, columns = value.shape
        if _is_mean(node):
            self._window(node, source, (1, 1), value)
            self.maps[node] = _Map(channels, 1, 1)
            return True
        if not _is_flattening(node, self._module(node)):
            return False
        self.maps[source] = found = _Map(channels, rows, columns)
        node.replace_all_uses_with(source)
        self.graph.erase_node(node)
        self._pooled(source, found)
        return True

    def _pooled(self, source: fx.Node, found: _Map) -> None:
        """Looks behind pointwise layers for an adaptive mean, and replaces it or takes it out."""
        node = source
        while _is_pointwise(node, self._module(node)) and len(node.all_input_nodes) == 1:
            node = node.all_input_nodes[0]
        wanted = _adaptive(node, self._module(node))
        if wanted is None:
            return
        (before,) = node.all_input_nodes
        value = self.values[before]
        rows, columns = (n if want is None else want for want, n in zip(wanted, value.shape[2:], strict=True))
        if (rows, columns) != tuple(value.shape[2:]):
            self._window(node, before, (rows, columns), value)
            return
        node.replace_all_uses_with(before)
        self.graph.erase_node(node)
        if node is source:
            self.maps[before] = found

    def _window(self, node: fx.Node, before: fx.Node, wanted: tuple[int, int], value: Tensor) -> None:
        """Puts a mean over windows in the place of an adaptive one."""
        rows, columns = value.shape[2:]
        if rows % wanted[0] or columns % wanted[1]:
            text = f"{wanted[0]} x {wanted[1]} means of a map of {rows} x {columns}"
            _check.fail(_OP, "classifier", "pool equal windows at the size", text, "give size")
        kernel = rows // wanted[0], columns // wanted[1]
        stride = (1, 1) if wanted == (1, 1) else kernel
        node.op, node.target = "call_function", functional.avg_pool2d
        node.args, node.kwargs = (before, kernel, stride), {}

    # ---- what comes after -------------------------------------------------------------------------------

    def _flat(self, node: fx.Node) -> None:
        module, inputs = self._module(node), [self.maps[n] for n in node.all_input_nodes if n in self.maps]
        if node.op == "call_module" and str(node.target) in self.seen:
            _check.fail(_OP, "classifier", "use each layer once after its flattening", f"{node.target} again")
        if isinstance(module, torch.nn.Linear):
            self._linear(node, module, inputs[0])
        elif isinstance(module, torch.nn.BatchNorm1d) and inputs[0][1:] == (1, 1):
            norm = torch.nn.BatchNorm2d(1)
            norm.__dict__.update(module.__dict__)
            self._replace(node, norm)
            self.maps[node] = inputs[0]
        elif isinstance(module, torch.nn.Softmax | torch.nn.LogSoftmax) and module.dim in (1, -1):
            module.dim = 1
            self.maps[node] = inputs[0]
        elif node.target in _SOFTMAXES and (node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")) in (1, -1):
            if len(node.args) > 1:
                node.update_arg(1, 1)
            else:
                node.update_kwarg("dim", 1)
            self.maps[node] = inputs[0]
        elif _is_pointwise(node, module) and len(inputs) == len(node.all_input_nodes) and len(set(inputs)) == 1:
            self.maps[node] = inputs[0]
        elif _is_flattening(node, module):  # of what is flat already
            (source,) = (n for n in node.all_input_nodes if n in self.maps)
            node.replace_all_uses_with(source)
            self.graph.erase_node(node)
        else:
            wanted = "have only linear layers, norms and pointwise layers after its flattening"
            _check.fail(_OP, "classifier", wanted, node.format_node() or node.name)

    def _linear(self, node: fx.Node, linear: torch.nn.Linear, found: _Map) -> None:
        channels, rows, columns = found
        if channels * rows * columns != linear.in_features:
            side = math.isqrt(linear.in_features // channels)
            if self.given or channels * side * side != linear.in_features:
                text = f"{channels} x {rows} x {columns} in front of {node.target} with {linear.in_features}"
                _check.fail(_OP, "classifier", "have maps that fit its linear layers", text, "give another size")
            rows = columns = side
        weight = linear.weight.detach()
        conv = Conv2d(channels, linear.out_features, (rows, columns), bias=linear.bias is not None, device="meta")
        shape = (linear.out_features, channels, rows, columns)
        conv.weight = torch.nn.Parameter(weight.reshape(shape), linear.weight.requires_grad)
        conv.bias = linear.bias
        self._replace(node, conv.train(linear.training))
        self.maps[node] = _Map(linear.out_features, 1, 1)
        self.n_linear += 1

    def _replace(self, node: fx.Node, module: torch.nn.Module) -> None:
        name = str(node.target)
        self.seen.add(name)
        parent, _, last = name.rpartition(".")
        setattr(self.root.get_submodule(parent), last, module)


def _on_meta(module: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
    """What a module gives in evaluation, without memory."""
    state = {name: t.to("meta") for name, t in (*module.named_parameters(), *module.named_buffers())}
    with evaluating(module):
        return functional_call(module, state, args, kwargs)


def _is_pointwise(node: fx.Node, module: Any) -> bool:
    if node.op == "call_module":
        return type(module) in _POINTWISE_MODULES or isinstance(module, torch.nn.modules.dropout._DropoutNd)
    if node.op == "call_function":
        return node.target in _POINTWISE_FUNCTIONS
    return node.op == "call_method" and node.target in _POINTWISE_METHODS


def _is_flattening(node: fx.Node, module: Any) -> bool:
    """Whether the node makes [N, C, h, w] [N, C h w]."""
    if module is not None:
        return isinstance(module, torch.nn.Flatten) and module.start_dim == 1 and module.end_dim in (-1, 3)
    rest = [*node.args[1:], *node.kwargs.values()]
    if node.target in (torch.flatten, "flatten"):
        return rest in ([1], [1, -1], [1, 3])
    if node.target in (torch.reshape, "view", "reshape"):
        shape = rest[0] if len(rest) == 1 and isinstance(rest[0], tuple | list) else rest
        return len(shape) == 2
    return False


def _is_mean(node: fx.Node) -> bool:
    """Whether the node is a mean over rows and columns that leaves [N, C]."""
    if node.target not in (torch.mean, "mean"):
        return False
    dims = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
    keeps = node.args[2] if len(node.args) > 2 else node.kwargs.get("keepdim", False)
    return isinstance(dims, tuple | list) and {int(d) % 4 for d in dims if isinstance(d, int)} == {2, 3} and not keeps


def _adaptive(node: fx.Node, module: Any) -> tuple[int | None, int | None] | None:
    """The size that an adaptive mean gives, or None for another node."""
    if isinstance(module, torch.nn.AdaptiveAvgPool2d):
        size: Any = module.output_size
    elif node.target is functional.adaptive_avg_pool2d:
        size = node.args[1] if len(node.args) > 1 else node.kwargs["output_size"]
    else:
        return None
    return tuple(size) if isinstance(size, tuple | list) else (size, size)
