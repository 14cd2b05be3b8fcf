"""What the steps take: shapes and dtypes. Sizes may be symbolic integers of torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .. import _check
from .._array import check_beside, checked_family
from .graph import MessageGraph

__all__ = ["check_edge_step", "check_message_sums", "check_node_step", "check_sequences"]

DTYPES = ("float32", "float64", "bfloat16", "float16")
_LAYERS = ("w1", "b1", "w2", "b2")


def _like_nodes(op: str, argument: str, value: Any, nodes: Any) -> None:
    """An array of the library, device and dtype of nodes."""
    check_beside(op, argument, value, "nodes", nodes)
    _check.same_dtype(op, argument, value, "nodes", nodes)


def _check_arrays(op: str, argument: str, given: Any, names: Sequence[str]) -> None:
    """A sequence of as many arrays."""
    if not isinstance(given, Sequence) or isinstance(given, str) or len(given) != len(names):
        listed = isinstance(given, Sequence) and not isinstance(given, str)
        got = f"{len(given)} elements" if listed else _check.kind(given)
        _check.fail(op, argument, f"be a sequence of arrays ({', '.join(names)})", got, error=TypeError)
    for name, array in zip(names, given, strict=True):
        checked_family(op, f"{name} of {argument}", array)


def check_sequences(op: str, nodes: Any, graph: Any, **layers: Any) -> None:
    """The graph and weights of two layers are made of as many arrays as they should be, which are where nodes is."""
    for argument, given in layers.items():
        _check_arrays(op, argument, given, _LAYERS)
        for name, array in zip(_LAYERS, given, strict=True):
            check_beside(op, f"{name} of {argument}", array, "nodes", nodes)
    if not isinstance(graph, tuple | list) or len(graph) != len(MessageGraph._fields):
        _check.fail(op, "graph", "be made by message_graph", _check.kind(graph), error=TypeError)
    _check_arrays(op, "graph", graph, MessageGraph._fields)
    for name, array in zip(MessageGraph._fields, graph, strict=True):
        check_beside(op, f"{name} of graph", array, "nodes", nodes)


def _layers(op: str, argument: str, given: Any, nodes: Any, inputs: Any, outputs: int | None = None) -> None:
    """Weights of two layers: [H, inputs], [H], [outputs, H], [outputs]."""
    for name, array in zip(_LAYERS, given, strict=True):
        _check.same_dtype(op, f"{name} of {argument}", array, "nodes", nodes)
    w1, b1, w2, b2 = given
    _check.shape(op, f"w1 of {argument}", w1, ["H", inputs], "its inputs are the channels side by side")
    _check.shape(op, f"b1 of {argument}", b1, [w1.shape[0]])
    _check.shape(op, f"w2 of {argument}", w2, ["O" if outputs is None else outputs, w1.shape[0]])
    _check.shape(op, f"b2 of {argument}", b2, [w2.shape[0]])
    if w1.shape[0] < 1 or w2.shape[0] < 1:
        _check.fail(op, argument, "have hidden units and outputs", (tuple(w1.shape), tuple(w2.shape)))


def _check_graph(op: str, graph: Any, nodes: Any, edges: Any) -> MessageGraph:
    """The graph, which may come as a plain sequence of its arrays."""
    found = MessageGraph(*graph)
    for name, array in zip(MessageGraph._fields, found, strict=True):
        _check.dtype(op, f"{name} of graph", array, ("int32",))
    if found.received_start.shape[0] != 2 * nodes.shape[0] + 1:
        _check.fail(op, "nodes", f"have a row for each of the graph's {found.n_nodes} nodes", tuple(nodes.shape))
    if found.row.shape[0] != edges.shape[0]:
        _check.fail(op, "edges", f"have a row for each of the graph's {found.n_edges} edges", tuple(edges.shape))
    return found


def check_edge_step(op: str, nodes: Any, initial: Any, edges: Any, weights: Any, graph: Any) -> MessageGraph:
    """What :func:`edge_step` takes; gives the graph."""
    check_sequences(op, nodes, graph, weights=weights)
    _check.dtype(op, "nodes", nodes, DTYPES)
    _check.ndim(op, "nodes", nodes, 2, "[N, Cn]")
    for name, array in (("initial", initial), ("edges", edges)):
        _check.same_dtype(op, name, array, "nodes", nodes)
    _check.ndim(op, "edges", edges, 2, "[E, Ce]")
    _check.shape(op, "initial", initial, [edges.shape[0], "C0"], "one row for each of edges")
    inputs = 2 * nodes.shape[1] + initial.shape[1] + edges.shape[1]
    _layers(op, "weights", weights, nodes, inputs, edges.shape[1])
    return _check_graph(op, graph, nodes, edges)


def check_message_sums(op: str, nodes: Any, edges: Any, past: Any, future: Any, graph: Any) -> MessageGraph:
    """What :func:`message_sums` takes; gives the graph."""
    check_sequences(op, nodes, graph, **({"past": past} if future is None else {"past": past, "future": future}))
    _check.dtype(op, "nodes", nodes, DTYPES)
    _check.ndim(op, "nodes", nodes, 2, "[N, Cn]")
    _check.same_dtype(op, "edges", edges, "nodes", nodes)
    _check.ndim(op, "edges", edges, 2, "[E, Ce]")
    inputs = nodes.shape[1] + edges.shape[1]
    _layers(op, "past", past, nodes, inputs)
    if future is not None:
        _layers(op, "future", future, nodes, inputs, past[2].shape[0])
        if future[0].shape[0] != past[0].shape[0]:
            _check.fail(op, "w1 of future", f"have past's {past[0].shape[0]} hidden units", tuple(future[0].shape))
    return _check_graph(op, graph, nodes, edges)


def check_node_step(op: str, nodes: Any, edges: Any, past: Any, future: Any, update: Any, graph: Any) -> MessageGraph:
    """What :func:`node_step` takes; gives the graph."""
    found = check_message_sums(op, nodes, edges, past, future, graph)
    _check_arrays(op, "update", update, ("w", "b"))
    for name, array in zip("wb", update, strict=True):
        _like_nodes(op, f"{name} of update", array, nodes)
    inputs = past[2].shape[0] * (1 if future is None else 2)
    _check.shape(op, "w of update", update[0], ["C", inputs], "its inputs are the sums of past and future side by side")
    _check.shape(op, "b of update", update[1], [update[0].shape[0]])
    return found
