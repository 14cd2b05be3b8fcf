"""Message passing on graphs of detections: the steps of a neural solver, without an intermediate for each edge.

A step first renews the state of every edge from its two ends (:func:`edge_step`), and then that of every node from the
messages of its edges (:func:`node_step`), those from the past and those from the future each with weights of their own.
The first layer of each network is linear in what it is given side by side, so nodes are multiplied once, before they
are gathered by edges; the layers of an edge then follow one another in registers, and messages are summed as they come.

A graph is prepared once (:func:`message_graph`), for all steps and for their gradients.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from . import _check, _message_loops, _njit
from ._array import (
    argsort,
    array_op,
    as_numpy,
    astype,
    check_beside,
    check_device,
    checked_family,
    compute_capability,
    contiguous,
    copy,
    dtype_name,
    empty,
    from_host,
    module,
    on_gpu,
    zeros,
)
from ._kernel import blocks, kernel
from ._threads import cores, each, product
from .resize import _like, _values

__all__ = [
    "EdgeGradients",
    "MessageGradients",
    "MessageGraph",
    "NodeGradients",
    "edge_step",
    "edge_step_vjp",
    "join_windows",
    "message_graph",
    "message_sums",
    "message_sums_vjp",
    "node_step",
    "node_step_vjp",
]

DTYPES = ("float32", "float64", "bfloat16", "float16")


class MessageGraph(NamedTuple):
    """A graph in the orders in which it is worked at, all int32; made by :func:`message_graph`.

    A message goes along an entry: an edge, from one of its ends to the other. Entries stand twice, sorted by who
    receives and by who sends: first those whose sender is the earlier end, then those whose sender is the later one,
    and within these by node. Node i's of the first kind are those from ``start[i]`` to ``start[i + 1]``, of the second
    kind those from ``start[N + i]`` to ``start[N + i + 1]``.
    """

    row: Any  # [E], the receiving end of each edge
    col: Any  # [E], the sending end
    received_start: Any  # [2 N + 1], of the entries by receiver
    received: Any  # [M], their edges
    received_from: Any  # [M], their senders
    sent_start: Any  # [2 N + 1], of the entries by sender
    sent: Any  # [M], their edges
    sent_to: Any  # [M], their receivers

    @property
    def n_nodes(self) -> int:
        """How many nodes there are."""
        return (int(self.received_start.shape[0]) - 1) // 2

    @property
    def n_edges(self) -> int:
        """How many edges there are."""
        return int(self.row.shape[0])


class EdgeGradients(NamedTuple):
    """Gradients of :func:`edge_step`, in the shapes of its arguments."""

    nodes: Any
    initial: Any
    edges: Any
    weights: tuple[Any, ...]


class MessageGradients(NamedTuple):
    """Gradients of :func:`message_sums`, in the shapes of its arguments; None for a stream that was None."""

    nodes: Any
    edges: Any
    past: tuple[Any, ...]
    future: tuple[Any, ...] | None


class NodeGradients(NamedTuple):
    """Gradients of :func:`node_step`, in the shapes of its arguments; None for a stream that was None."""

    nodes: Any
    edges: Any
    past: tuple[Any, ...]
    future: tuple[Any, ...] | None
    update: tuple[Any, ...]


# ---- graphs ---------------------------------------------------------------------------------------------


def message_graph(edges: Any, n_nodes: int, *, undirected: bool = False, time: Any = None) -> MessageGraph:
    """Prepares a graph for steps of message passing, and for their gradients.

    Parameters
    ----------
    edges : array, [2, E], int32/int64
        The two ends of each edge: the row i that takes its messages and the col j that sends them. A network with a
        state for each direction has every pair twice, (i, j) and (j, i), in any order.
    n_nodes : int
        N. Nodes are numbered by their time, unless ``time`` is given.
    undirected : bool
        Every pair stands once, the earlier node first, and has one state, which serves the messages of both directions.
    time : array, [N], of any ordered dtype, optional
        The times of the nodes, as their frames.

    Returns
    -------
    MessageGraph
        Arrays of int32 of the library and device of edges.

    Raises
    ------
    TypeError
        edges or time is no array, of another library, device or dtype.
    ValueError
        A wrong shape; a node that is not there; ends of the same time; a later node first in an undirected graph.

    Notes
    -----
    To sort E edges twice, once for a graph. The values are checked, for which a GPU is waited for: make graphs before
    a CUDA graph is captured. The states of edges keep the order of ``edges``; the steps are fastest where that is
    sorted by row. Several windows are one graph, see :func:`join_windows`. E and N may be 0.

    Examples
    --------
    >>> import numpy as np
    >>> from cv3gpu.message import message_graph
    >>> graph = message_graph(np.array([[0, 1, 0, 2], [1, 0, 2, 0]]), 3)
    >>> graph.received_start[:4], graph.received_from[:2]  # nodes 1 and 2 have one message each from the past
    (array([0, 0, 1, 2], dtype=int32), array([0, 0], dtype=int32))
    """
    op = "message_graph"
    _check_ends(op, edges)
    n = _check.integer(op, "n_nodes", n_nodes, 0, _MOST)
    _check.flag(op, "undirected", undirected)
    row, col = astype(edges[0], "int64"), astype(edges[1], "int64")
    count = int(row.shape[0])
    if count * (2 if undirected else 1) > _MOST:
        _check.fail(op, "edges", f"have at most {_MOST} messages", count)
    _check_nodes(op, "edges", edges, n)
    if time is None:
        later, earlier = col > row, col < row
    else:
        _check_time(op, time, edges, n)
        later, earlier = time[col] > time[row], time[col] < time[row]
    if not bool((later | earlier).all()):
        _check.fail(op, "edges", "have ends of different times", f"{int((~(later | earlier)).sum())} without")
    if undirected and not bool(later.all()):
        _check.fail(op, "edges", "have the earlier node first where undirected", f"{int(earlier.sum())} others")
    number = from_host(np.arange(count), edges)
    receiver, sender = row, col
    if undirected:
        join = module(edges).concatenate
        receiver, sender = join((row, col)), join((col, row))
        later, number = join((later, earlier)), join((number, number))
    ends = from_host(np.arange(2 * n + 1), edges)

    def ordered(by: Any, second: Any) -> tuple[Any, Any]:
        key = by + n * astype(second, "int64")
        order = argsort(key)
        return module(edges).searchsorted(key[order], ends), order

    received_start, received = ordered(receiver, later)
    sent_start, sent = ordered(sender, later)
    found = row, col, received_start, number[received], sender[received], sent_start, number[sent], receiver[sent]
    return MessageGraph(*(astype(x, "int32") for x in found))


def join_windows(edges: Sequence[Any], n_nodes: Sequence[int]) -> tuple[Any, int]:
    """The edges of several windows as those of one graph, whose nodes follow one another; and how many nodes it has.

    Parameters
    ----------
    edges : sequence of array, [2, E_k], int32/int64
        The edges of each window, nodes numbered from 0.
    n_nodes : sequence of int
        How many nodes each window has.

    Returns
    -------
    (array, int)
        For :func:`message_graph`: the edges, [2, E], and the number of nodes.

    Raises
    ------
    TypeError, ValueError
        No windows, not as many numbers as windows, or no edges of such a shape and dtype.

    Examples
    --------
    >>> import numpy as np
    >>> from cv3gpu.message import join_windows
    >>> join_windows([np.array([[0], [1]]), np.array([[0], [2]])], [2, 3])
    (array([[0, 2],
           [1, 4]]), 5)
    """
    op = "join_windows"
    if not isinstance(edges, list | tuple) or not isinstance(n_nodes, list | tuple) or len(edges) != len(n_nodes):
        _check.fail(op, "n_nodes", "be a list with a number for each of edges", repr(n_nodes), error=TypeError)
    if not edges:
        _check.fail(op, "edges", "have a window", 0)
    starts = list(itertools.accumulate((_check.integer(op, "n_nodes", n, 0) for n in n_nodes), initial=0))
    for k, (window, n) in enumerate(zip(edges, n_nodes, strict=True)):
        _check_ends(op, window)
        check_beside(op, f"edges[{k}]", window, "edges[0]", edges[0])
        _check_nodes(op, f"edges[{k}]", window, n)
    moved = [astype(window, "int64") + start for window, start in zip(edges, starts, strict=False)]
    return module(edges[0]).concatenate(moved, 1), starts[-1]


_MOST = 2**31 - 2


def _check_ends(op: str, edges: Any) -> None:
    checked_family(op, "edges", edges)
    check_device(op, "edges", edges)
    _check.dtype(op, "edges", edges, ("int32", "int64"))
    _check.shape(op, "edges", edges, [2, "E"])


def _check_nodes(op: str, argument: str, edges: Any, n: int) -> None:
    if edges.shape[1] and (int(edges.min()) < 0 or int(edges.max()) >= n):
        _check.fail(op, argument, f"have nodes from 0 to {n - 1}", f"{int(edges.min())} to {int(edges.max())}")


_TIMES = ("float16", "bfloat16", "float32", "float64", *(f"{u}int{n}" for u in ("", "u") for n in (8, 16, 32, 64)))


def _check_time(op: str, time: Any, edges: Any, n: int) -> None:
    check_beside(op, "time", time, "edges", edges)
    _check.dtype(op, "time", time, _TIMES)
    _check.shape(op, "time", time, [n], "a time for each node")


# ---- checks ---------------------------------------------------------------------------------------------


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


_LAYERS = ("w1", "b1", "w2", "b2")


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
    """Shapes and dtypes; sizes may be symbolic integers of torch."""
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
    """Shapes and dtypes; sizes may be symbolic integers of torch."""
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


def check_node_step(
    op: str, nodes: Any, edges: Any, past: Any, future: Any, update: Any, graph: Any
) -> MessageGraph:
    """Shapes and dtypes; sizes may be symbolic integers of torch."""
    found = check_message_sums(op, nodes, edges, past, future, graph)
    _check_arrays(op, "update", update, ("w", "b"))
    for name, array in zip("wb", update, strict=True):
        _like_nodes(op, f"{name} of update", array, nodes)
    inputs = past[2].shape[0] * (1 if future is None else 2)
    _check.shape(op, "w of update", update[0], ["C", inputs], "its inputs are the sums of past and future side by side")
    _check.shape(op, "b of update", update[1], [update[0].shape[0]])
    return found


# ---- the operators --------------------------------------------------------------------------------------


@array_op("nodes", "initial", "edges")
def edge_step(nodes: Any, initial: Any, edges: Any, weights: Sequence[Any], graph: MessageGraph) -> Any:
    r"""The new states of all edges, each from its two ends, its initial state and its state.

    .. math:: e'_{ij} = \max(0, W_2 \max(0, W_1 [h_i, h_j, e^0_{ij}, e_{ij}] + b_1) + b_2)

    Parameters
    ----------
    nodes : array, [N, Cn], float16/bfloat16/float32/float64
        States h of the nodes.
    initial : array, [E, C0], dtype of nodes
        What is told to an edge at every step: its encoded features e^0. C0 may be 0.
    edges : array, [E, Ce], dtype of nodes
        States e of the edges; i is an edge's row in the graph and j its col.
    weights : sequence (w1, b1, w2, b2) of array, dtype of nodes
        ``w1 [H, 2 Cn + C0 + Ce]``, ``b1 [H]``, ``w2 [Ce, H]``, ``b2 [Ce]``.
    graph : MessageGraph
        From :func:`message_graph`, of the library and device of nodes.

    Returns
    -------
    array, [E, Ce], dtype and library of nodes

    Raises
    ------
    TypeError
        An argument is no array, or of another library, device or dtype than nodes; graph is no graph.
    ValueError
        A shape does not fit; the text names the argument, what was wanted and what came.

    Notes
    -----
    W_1 is cut into the parts of its inputs. Those of the nodes are multiplied once per node, [N, 2 H], and gathered;
    those of e^0 and e are multiplied in the loop over edges, where the hidden layer of a few edges stays in registers
    and the nearest memory. Nothing of size [E, H] exists. The part of e^0, though the same at all steps, is computed
    anew: its H C0 products take no longer than to read H numbers.
    Cost: 2 N Cn 2 H + 2 E H (C0 + 2 Ce) flop. Sums are kept in float32 (float64 for float64), and
    float32 is never replaced by TF32. 16-bit arrays are multiplied in float32 on a CPU; on a GPU on its tensor cores,
    with hidden units rounded to 16 bits, where widths are even, C0 + Ce is up to 64, Ce up to 32 and H up to 256. A GPU
    takes layers of which 16 rows fit in shared memory: H up to some hundreds. The same bits from run to run. NaN
    passes. Gradient: :func:`edge_step_vjp`.

    References
    ----------
    G. Braso, L. Leal-Taixe, "Learning a Neural Solver for Multiple Object Tracking", CVPR 2020, equation 2.

    Examples
    --------
    >>> import numpy as np
    >>> from cv3gpu.message import edge_step, message_graph
    >>> graph = message_graph(np.array([[0, 1], [1, 0]]), 2)
    >>> nodes, initial, edges = np.array([[1.0], [5.0]]), np.array([[0.5], [0.5]]), np.array([[2.0], [3.0]])
    >>> weights = np.array([[1.0, -0.1, 1.0, 1.0]]), np.zeros(1), np.ones((1, 1)), np.zeros(1)
    >>> edge_step(nodes, initial, edges, weights, graph)
    array([[3. ],
           [8.4]])
    """
    graph = check_edge_step("edge_step", nodes, initial, edges, weights, graph)
    if 0 in edges.shape:
        return empty(nodes, edges.shape)
    return (_edge_gpu if on_gpu(nodes) else _edge_cpu)(nodes, initial, edges, weights, graph)


@array_op("grad", "output", "nodes", "initial", "edges")
def edge_step_vjp(
    grad: Any, output: Any, nodes: Any, initial: Any, edges: Any, weights: Sequence[Any], graph: MessageGraph
) -> EdgeGradients:
    """The gradients of :func:`edge_step`, for a gradient with respect to its result.

    Parameters
    ----------
    grad : array, [E, Ce], dtype of nodes
        Gradient with respect to the result.
    output : array, [E, Ce], dtype of nodes
        The result.
    nodes, initial, edges, weights, graph
        As :func:`edge_step` was given them.

    Returns
    -------
    EdgeGradients
        A named tuple (nodes, initial, edges, weights), weights a tuple of four, each in the shape of the argument.

    Raises
    ------
    TypeError, ValueError
        As :func:`edge_step`; grad and output have the shape of the result.

    Notes
    -----
    Nothing is kept from the forward call but its result: hidden layers are computed anew, a few edges at a time. At 0
    the derivative of max(0, x) counts as 0. Cost: 2 E H (3 C0 + 5 Ce) flop and some per node; on a GPU the first terms
    come twice, as edges are gone through by row and by col. Sums over edges are made in parts of a fixed order, without
    atomics: the same bits from run to run.

    Examples
    --------
    >>> import numpy as np
    >>> from cv3gpu.message import edge_step, edge_step_vjp, message_graph
    >>> graph = message_graph(np.array([[0, 1], [1, 0]]), 2)
    >>> nodes, edges, none = np.array([[1.0], [5.0]]), np.array([[2.0], [3.0]]), np.ones((2, 0))
    >>> weights = np.array([[1.0, -0.1, 1.0]]), np.zeros(1), np.ones((1, 1)), np.zeros(1)
    >>> output = edge_step(nodes, none, edges, weights, graph)
    >>> edge_step_vjp(np.array([[1.0], [10.0]]), output, nodes, none, edges, weights, graph).nodes
    array([[0. ],
           [9.9]])
    """
    op = "edge_step_vjp"
    graph = check_edge_step(op, nodes, initial, edges, weights, graph)
    for name, array in (("grad", grad), ("output", output)):
        _check.same_dtype(op, name, array, "nodes", nodes)
        _check.shape(op, name, array, tuple(edges.shape), "that of edges")
    if 0 in edges.shape:
        none = tuple(_zeros_like(x) for x in weights)
        return EdgeGradients(_zeros_like(nodes), _zeros_like(initial), _zeros_like(edges), none)
    backward = _edge_backward_gpu if on_gpu(nodes) else _edge_backward_cpu
    return backward(grad, output, nodes, initial, edges, weights, graph)


@array_op("nodes", "edges")
def message_sums(
    nodes: Any, edges: Any, past: Sequence[Any], future: Sequence[Any] | None, graph: MessageGraph
) -> Any:
    r"""Sums over each node's messages: of those from earlier nodes, and of those from later ones.

    .. math:: m_i = \sum_{j \text{ earlier}} f_p([h_j, e_{ij}]), \qquad
              n_i = \sum_{j \text{ later}} f_f([h_j, e_{ij}])

    where each f is a network of two layers, ``max(0, W_2 max(0, W_1 x + b_1) + b_2)``.

    Parameters
    ----------
    nodes : array, [N, Cn], float16/bfloat16/float32/float64
    edges : array, [E, Ce], dtype of nodes
    past : sequence (w1, b1, w2, b2) of array, dtype of nodes
        ``w1 [H, Cn + Ce]``, ``b1 [H]``, ``w2 [S, H]``, ``b2 [S]``: of messages from earlier nodes.
    future : the same, or None
        Of messages from later nodes. None: ``past`` serves all messages, in one sum (the plain network, which does not
        tell the directions of time apart).
    graph : MessageGraph

    Returns
    -------
    array, [N, 2 S], or [N, S] without future; dtype and library of nodes
        The sums m and n side by side; 0 where no message comes.

    Raises
    ------
    TypeError, ValueError
        As :func:`node_step`.

    Notes
    -----
    Messages are added as they come, in the order of the graph's entries, and never exist together: no [E, S], no
    atomics, the same bits from run to run. Cost: 2 N Cn 2 H + 2 M H (Ce + S) flop for M messages. Gradient:
    :func:`message_sums_vjp`.

    Examples
    --------
    >>> import numpy as np
    >>> from cv3gpu.message import message_graph, message_sums
    >>> graph = message_graph(np.array([[0, 0], [1, 2]]), 3, undirected=True)
    >>> network = np.array([[1.0, 1.0]]), np.zeros(1), np.ones((1, 1)), np.zeros(1)
    >>> message_sums(np.array([[1.0], [2.0], [3.0]]), np.array([[0.5], [0.25]]), network, network, graph)
    array([[0.  , 5.75],
           [1.5 , 0.  ],
           [1.25, 0.  ]])
    """
    graph = check_message_sums("message_sums", nodes, edges, past, future, graph)
    shape = (nodes.shape[0], past[2].shape[0] * (1 if future is None else 2))
    if 0 in (nodes.shape[0], graph.received.shape[0]):
        return zeros(nodes, shape)
    return (_sums_gpu if on_gpu(nodes) else _sums_cpu)(nodes, edges, past, future, graph)


@array_op("grad", "nodes", "edges")
def message_sums_vjp(
    grad: Any, nodes: Any, edges: Any, past: Sequence[Any], future: Sequence[Any] | None, graph: MessageGraph
) -> MessageGradients:
    """The gradients of :func:`message_sums`, for a gradient with respect to its result.

    Parameters
    ----------
    grad : array, [N, 2 S] or [N, S], dtype of nodes
        Gradient with respect to the result.
    nodes, edges, past, future, graph
        As :func:`message_sums` was given them.

    Returns
    -------
    MessageGradients
        A named tuple (nodes, edges, past, future), each in the shape of the argument, None for a stream that was None.

    Raises
    ------
    TypeError, ValueError
        As :func:`message_sums`; grad has the shape of the result.

    Notes
    -----
    Nothing is kept from the forward call. Entries are gone through by their senders, whose gradients are sums over
    neighbours in memory; of the receivers only rows of grad are needed. Cost: 2 M H (3 Ce + 3 S) flop for M messages.
    The same bits from run to run.

    Examples
    --------
    >>> import numpy as np
    >>> from cv3gpu.message import message_graph, message_sums_vjp
    >>> graph = message_graph(np.array([[0, 0], [1, 2]]), 3, undirected=True)
    >>> network = np.array([[1.0, 1.0]]), np.zeros(1), np.ones((1, 1)), np.zeros(1)
    >>> nodes, edges = np.array([[1.0], [2.0], [3.0]]), np.array([[0.5], [0.25]])
    >>> message_sums_vjp(np.array([[0.0, 1.0], [10.0, 0.0], [100.0, 0.0]]), nodes, edges, network, network, graph).nodes
    array([[110.],
           [  1.],
           [  1.]])
    """
    op = "message_sums_vjp"
    graph = check_message_sums(op, nodes, edges, past, future, graph)
    _check.same_dtype(op, "grad", grad, "nodes", nodes)
    _check.shape(op, "grad", grad, [nodes.shape[0], past[2].shape[0] * (1 if future is None else 2)])
    if 0 in (nodes.shape[0], graph.received.shape[0]):
        later = None if future is None else tuple(map(_zeros_like, future))
        return MessageGradients(_zeros_like(nodes), _zeros_like(edges), tuple(map(_zeros_like, past)), later)
    return (_sums_backward_gpu if on_gpu(nodes) else _sums_backward_cpu)(grad, nodes, edges, past, future, graph)


@array_op("nodes", "edges")
def node_step(
    nodes: Any,
    edges: Any,
    past: Sequence[Any],
    future: Sequence[Any] | None,
    update: Sequence[Any],
    graph: MessageGraph,
) -> Any:
    r"""The new states of all nodes, from the messages of the past and of the future.

    .. math:: h'_i = \max(0, W [m_i, n_i] + b)

    with the sums m and n of :func:`message_sums`, or one sum over all messages where ``future`` is None.

    Parameters
    ----------
    nodes : array, [N, Cn], float16/bfloat16/float32/float64
        States of the nodes.
    edges : array, [E, Ce], dtype of nodes
        States of the edges: the new ones, of :func:`edge_step`.
    past : sequence (w1, b1, w2, b2) of array, dtype of nodes
        ``w1 [H, Cn + Ce]``, ``b1 [H]``, ``w2 [S, H]``, ``b2 [S]``: of messages from earlier nodes.
    future : the same, or None
        Of messages from later nodes; None gives the network that does not tell the directions of time apart.
    update : sequence (w, b) of array, dtype of nodes
        ``w [C, 2 S]`` (``[C, S]`` without future) and ``b [C]``.
    graph : MessageGraph
        From :func:`message_graph`, of the library and device of nodes.

    Returns
    -------
    array, [N, C], dtype and library of nodes

    Raises
    ------
    TypeError
        An argument is no array, or of another library, device or dtype than nodes; graph is no graph.
    ValueError
        A shape does not fit; the text names the argument, what was wanted and what came.

    Notes
    -----
    As for :func:`message_sums`. Gradient: :func:`node_step_vjp`.

    References
    ----------
    G. Braso, L. Leal-Taixe, "Learning a Neural Solver for Multiple Object Tracking", CVPR 2020, section 4.2.

    Examples
    --------
    >>> import numpy as np
    >>> from cv3gpu.message import message_graph, node_step
    >>> graph = message_graph(np.array([[0, 0], [1, 2]]), 3, undirected=True)
    >>> network = np.array([[1.0, 1.0]]), np.zeros(1), np.ones((1, 1)), np.zeros(1)
    >>> nodes, edges = np.array([[1.0], [2.0], [3.0]]), np.array([[0.5], [0.25]])
    >>> node_step(nodes, edges, network, network, (np.array([[1.0, -1.0]]), np.ones(1)), graph)
    array([[0.  ],
           [2.5 ],
           [2.25]])
    """
    op = "node_step"
    graph = check_node_step(op, nodes, edges, past, future, update, graph)
    return _relu(_linear(message_sums(nodes, edges, past, future, graph), *update))


@array_op("grad", "output", "nodes", "edges")
def node_step_vjp(
    grad: Any,
    output: Any,
    nodes: Any,
    edges: Any,
    past: Sequence[Any],
    future: Sequence[Any] | None,
    update: Sequence[Any],
    graph: MessageGraph,
) -> NodeGradients:
    """The gradients of :func:`node_step`, for a gradient with respect to its result.

    Parameters
    ----------
    grad : array, [N, C], dtype of nodes
        Gradient with respect to the result.
    output : array, [N, C], dtype of nodes
        The result.
    nodes, edges, past, future, update, graph
        As :func:`node_step` was given them.

    Returns
    -------
    NodeGradients
        A named tuple (nodes, edges, past, future, update), each in the shape of the argument, None for a stream that
        was None.

    Raises
    ------
    TypeError, ValueError
        As :func:`node_step`; grad and output have the shape of the result.

    Notes
    -----
    The sums of messages are computed anew; the gradient of torch keeps them, [N, 2 S].

    Examples
    --------
    >>> import numpy as np
    >>> from cv3gpu.message import message_graph, node_step, node_step_vjp
    >>> graph = message_graph(np.array([[0, 0], [1, 2]]), 3, undirected=True)
    >>> network = np.array([[1.0, 1.0]]), np.zeros(1), np.ones((1, 1)), np.zeros(1)
    >>> nodes, edges, update = np.ones((3, 1)), np.ones((2, 1)), (np.array([[1.0, 2.0]]), np.ones(1))
    >>> output = node_step(nodes, edges, network, network, update, graph)
    >>> node_step_vjp(np.ones((3, 1)), output, nodes, edges, network, network, update, graph).edges
    array([[3.],
           [3.]])
    """
    op = "node_step_vjp"
    graph = check_node_step(op, nodes, edges, past, future, update, graph)
    for name, array in (("grad", grad), ("output", output)):
        _check.same_dtype(op, name, array, "nodes", nodes)
        _check.shape(op, name, array, [nodes.shape[0], update[0].shape[0]])
    grad = _where_positive(output, grad)
    sums = message_sums(nodes, edges, past, future, graph)
    inner = message_sums_vjp(_product(grad, update[0]), nodes, edges, past, future, graph)
    return NodeGradients(*inner, (_product(grad.T, sums), _total(grad)))


# ---- layers of nodes ------------------------------------------------------------------------------------
#
# Their rows are as few as the nodes, so each library's own products serve; of 16-bit numbers in float32.


def _wide(x: Any) -> Any:
    """The array with sums in mind: float32 in place of 16 bits."""
    return x if dtype_name(x) in ("float32", "float64") else astype(x, "float32")


def _product(x: Any, y: Any) -> Any:
    return astype(product(_wide(x), _wide(y)), dtype_name(x))


def _linear(x: Any, weight: Any, bias: Any) -> Any:
    return astype(product(_wide(x), _wide(weight).T) + _wide(bias), dtype_name(x))


def _total(x: Any) -> Any:
    return astype(_wide(x).sum(0), dtype_name(x))


def _relu(x: Any) -> Any:
    return module(x).where(x < 0, zeros(x, ()), x)  # NaN stays


def _where_positive(x: Any, y: Any) -> Any:
    return module(x).where(x > 0, y, zeros(y, ()))


def _zeros_like(x: Any) -> Any:
    return zeros(x, tuple(x.shape))


# ---- CPU path -------------------------------------------------------------------------------------------

PIECE = 2**13  # edges of a piece: their work is a hundred times what it costs to wake a thread
PARTS = 4  # of a gradient's sum over edges: as many threads can work at it, whatever their number


def _dense(x: Any) -> np.ndarray:
    """NumPy's view, or a dense copy; of 16-bit floats in float32."""
    return np.ascontiguousarray(_values(x))


def _space(x: np.ndarray, *shape: int) -> np.ndarray:
    return np.empty(shape, x.dtype)


def _ranges(n: int, parts: int) -> list[tuple[int, int]]:
    """0 to n in parts of equal size."""
    return [(n * p // parts, n * (p + 1) // parts) for p in range(parts)]


def _node_ranges(start: np.ndarray, stream: int, parts: int) -> list[tuple[int, int]]:
    """The nodes in parts with about as many entries of a stream."""
    n = len(start) // 2
    own = start[stream * n : stream * n + n + 1]
    wanted = own[0] + (own[-1] - own[0]) * np.arange(1, parts) / parts
    ends = [0, *np.searchsorted(own, wanted).tolist(), n]
    return list(itertools.pairwise(ends))


def _edge_parts(w1: np.ndarray, nodes: int, initial: int) -> tuple[np.ndarray, ...]:
    """What multiplies both ends [2 H, Cn], the initial state [H, C0] and the state [H, Ce] of an edge."""
    row, col, of_initial, of_edges = np.split(w1, [nodes, 2 * nodes, 2 * nodes + initial], 1)
    return np.concatenate([row, col]), of_initial, of_edges


def _edge_table(nodes: np.ndarray, ends: np.ndarray, b1: np.ndarray) -> np.ndarray:
    """Each node's part of the hidden layer, [N, 2 H]: as row with the bias, then as col."""
    table = product(nodes, ends.T)
    table[:, : len(b1)] += b1
    return table


def _transposed(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(x.T)


def _edge_cpu(nodes: Any, initial: Any, edges: Any, weights: Sequence[Any], graph: MessageGraph) -> Any:
    h, e0, e, w1, b1, w2, b2 = (_dense(x) for x in (nodes, initial, edges, *weights))
    row, col = _dense_indices(graph.row), _dense_indices(graph.col)
    ends, of_initial, of_edges = _edge_parts(w1, h.shape[1], e0.shape[1])
    table, of_hidden = _edge_table(h, ends, b1), _transposed(w2)
    of_initial, of_edges, out = _transposed(of_initial), _transposed(of_edges), np.empty_like(e)

    def forward(first: int, last: int) -> None:
        hidden = _space(e, _message_loops.ROWS, len(b1))
        _njit.compiled(*_message_loops.EDGE_FORWARD)(
            table, row, col, e0, of_initial, e, of_edges, of_hidden, b2, out, first, last, hidden
        )

    each(forward, _ranges(len(e), min(4 * cores(), blocks(len(e), PIECE)) if cores() > 1 else 1))
    return _like(out, nodes)


def _edge_backward_cpu(
    grad: Any, output: Any, nodes: Any, initial: Any, edges: Any, weights: Sequence[Any], graph: MessageGraph
) -> EdgeGradients:
    given = grad, output, nodes, initial, edges, *weights
    g, y, h, e0, e, w1, b1, w2, _ = (_dense(x) for x in given)
    row, col = _dense_indices(graph.row), _dense_indices(graph.col)
    ends, to_initial, to_edges = _edge_parts(w1, h.shape[1], e0.shape[1])
    to_initial, to_edges = np.ascontiguousarray(to_initial), np.ascontiguousarray(to_edges)
    table, of_initial, of_edges = _edge_table(h, ends, b1), _transposed(to_initial), _transposed(to_edges)
    by_initial, by_edges = np.empty_like(e0), np.empty_like(e)
    width, outputs = len(b1), len(w2)

    def backward(first: int, last: int) -> tuple[np.ndarray, ...]:
        sums = [np.zeros_like(x) for x in (table, of_initial, of_edges, w2)] + [np.zeros((1, outputs), e.dtype)]
        hidden, inner, outside = (_space(e, _message_loops.TILE, n) for n in (width, width, outputs))
        _njit.compiled(*_message_loops.EDGE_BACKWARD)(
            table, row, col, e0, of_initial, e, of_edges, y, g, w2, to_initial, to_edges, by_initial, by_edges, *sums,
            first, last, hidden, inner, outside,
        )  # fmt: skip
        return tuple(sums)

    parts = each(backward, _ranges(len(e), min(PARTS, blocks(len(e), PIECE))))
    by_table, by_of_initial, by_of_edges, by_w2, by_b2 = _added(parts)
    by_rest = np.concatenate([by_of_initial.T, by_of_edges.T], 1)
    by_nodes, *by_first = _by_table(h, w1, by_table, by_rest, 2)
    found = (_like(x, nodes) for x in (by_nodes, by_initial, by_edges, *by_first, by_w2, by_b2[0]))
    by_nodes, by_initial, by_edges, *by_weights = found
    return EdgeGradients(by_nodes, by_initial, by_edges, tuple(by_weights))


def _by_table(nodes: Any, w1: Any, by_table: Any, by_rest: Any, parts: int) -> tuple[Any, Any, Any]:
    """Gradients of nodes, w1 and b1 by those of a table [N, parts H] and of w1's columns beyond the nodes'."""
    width, channels = w1.shape[0], nodes.shape[1]
    pieces = [by_table[:, p * width : (p + 1) * width] for p in range(parts)]
    by_w1 = module(nodes).concatenate([*(piece.T @ nodes for piece in pieces), by_rest], 1)
    terms = [piece @ w1[:, p * channels : (p + 1) * channels] for p, piece in enumerate(pieces)]
    return (terms[0] + terms[1] if parts == 2 else terms[0]), by_w1, pieces[0].sum(0)


def _added(parts: list[tuple[np.ndarray, ...]]) -> tuple[np.ndarray, ...]:
    """Sums of what the parts have, in their order."""
    total = parts[0]
    for part in parts[1:]:
        for one, other in zip(total, part, strict=True):
            one += other
    return total


def _dense_indices(x: Any) -> np.ndarray:
    return np.ascontiguousarray(as_numpy(x))


class _Stream(NamedTuple):
    """Weights of a stream as the loops want them."""

    of_nodes: np.ndarray  # [H, Cn]
    of_edges: np.ndarray  # [Ce, H]
    of_hidden: np.ndarray  # [H, S]
    b1: np.ndarray
    b2: np.ndarray

    def table(self, nodes: np.ndarray) -> np.ndarray:
        """Each node's part of the hidden layer, [N, H]."""
        return product(nodes, self.of_nodes.T) + self.b1


def _stream(weights: Sequence[Any], channels: int) -> _Stream:
    w1, b1, w2, b2 = (_dense(x) for x in weights)
    return _Stream(w1[:, :channels], _transposed(w1[:, channels:]), _transposed(w2), b1, b2)


def _sums_cpu(nodes: Any, edges: Any, past: Sequence[Any], future: Sequence[Any] | None, graph: MessageGraph) -> Any:
    h, e = _dense(nodes), _dense(edges)
    start, edge, sender = (_dense_indices(x) for x in (graph.received_start, graph.received, graph.received_from))
    width = int(past[2].shape[0])
    sums = np.zeros((len(h), width * (1 if future is None else 2)), h.dtype)
    for number in range(2):
        if number == 0 or future is not None:
            stream = _stream(past if number == 0 else future, h.shape[1])  # type: ignore[arg-type]
            table = stream.table(h)
        column = 0 if future is None else number * width

        def forward(first: int, last: int, stream: _Stream = stream, table: np.ndarray = table, number: int = number,
                    column: int = column) -> None:  # fmt: skip
            hidden, message = (_space(h, _message_loops.ROWS, n) for n in (len(stream.b1), width))
            _njit.compiled(*_message_loops.SUM_FORWARD)(
                table, start, sender, edge, e, stream.of_edges, stream.of_hidden, stream.b2, sums, number, column,
                first, last, hidden, message,
            )  # fmt: skip

        each(forward, _node_ranges(start, number, min(4 * cores(), blocks(len(edge), PIECE)) if cores() > 1 else 1))
    return _like(sums, nodes)


def _sums_backward_cpu(
    grad: Any, nodes: Any, edges: Any, past: Sequence[Any], future: Sequence[Any] | None, graph: MessageGraph
) -> MessageGradients:
    g, h, e = _dense(grad), _dense(nodes), _dense(edges)
    start, edge, receiver = (_dense_indices(x) for x in (graph.sent_start, graph.sent, graph.sent_to))
    by_nodes, by_edges = np.zeros_like(h), np.zeros_like(e)
    found: list[tuple[np.ndarray, ...]] = []
    for number in range(2):
        stream = _stream(future if number and future is not None else past, h.shape[1])
        table, width = stream.table(h), len(stream.b2)
        to_hidden, to_edges = _transposed(stream.of_hidden), _transposed(stream.of_edges)
        by_table, column = np.zeros_like(table), 0 if future is None else number * width

        def backward(first: int, last: int, stream: _Stream = stream, table: np.ndarray = table, number: int = number,
                     to_hidden: np.ndarray = to_hidden, to_edges: np.ndarray = to_edges,
                     by_table: np.ndarray = by_table, column: int = column) -> tuple[np.ndarray, ...]:  # fmt: skip
            sums = [np.zeros_like(stream.of_edges), np.zeros_like(to_hidden), np.zeros((1, len(stream.b2)), h.dtype)]
            outputs, channels = len(stream.b2), e.shape[1]
            widths = len(stream.b1), len(stream.b1), outputs, outputs, channels, channels
            space = [_space(h, _message_loops.TILE, n) for n in widths]
            _njit.compiled(*_message_loops.SUM_BACKWARD)(
                table, start, receiver, edge, e, stream.of_edges, stream.of_hidden, stream.b2, g, to_hidden, to_edges,
                by_edges, by_table, *sums, number, column, first, last, *space,
                np.empty(_message_loops.TILE, np.int32),
            )  # fmt: skip
            return tuple(sums)

        parts = each(backward, _node_ranges(start, number, min(PARTS, blocks(len(edge), PIECE))))
        by_of_edges, by_w2, by_b2 = _added(parts)
        more, by_w1, by_b1 = _by_table(h, stream.of_nodes, by_table, by_of_edges.T, 1)
        by_nodes += more
        found.append((by_w1, by_b1, by_w2, by_b2[0]))
    if future is None:
        found = [_added(found)]
    streams = [tuple(_like(x, nodes) for x in one) for one in found]
    return MessageGradients(
        _like(by_nodes, nodes), _like(by_edges, nodes), streams[0], None if future is None else streams[1]
    )


# ---- GPU path -------------------------------------------------------------------------------------------

WEIGHTS = 16 * 81  # numbers of shared memory for weights, as in kernels/message.cuh
MOST_NODES, MOST_SUMS = 32, 2048  # of a block: nodes, and numbers that are summed for them
TENSOR_ROWS, TENSOR_BLOCKS = 128, 1024  # of kernels/message_mma.cu: rows of a tile, and blocks that share the edges
MOST_BLOCKS = 512  # of a gradient: as many parts of a sum over edges


class _Launch(NamedTuple):
    """How the kernels of a call run."""

    real: str
    total: str  # the dtype of sums
    tile: int  # rows of a tile
    nodes: int  # that a block does
    shared: int  # bytes

    def __call__(self, name: str, grid: int | tuple[int, ...], *args: Any) -> None:
        run = kernel("message.cu", name, real=self.real, TILE=self.tile)
        run((grid,) if isinstance(grid, int) else grid, 4 * self.tile, *args, shared_mem=self.shared)


def _launch(op: str, x: Any, rows: int, graph: MessageGraph, per_row: int = 0, per_node: int = 0) -> _Launch:
    """For tiles of so many ``rows`` (by columns), and numbers for each row and each node of a block beyond them."""
    total = "float64" if dtype_name(x) == "float64" else "float32"
    size, most = np.dtype(total).itemsize, 96 * 1024 if compute_capability(x) >= 80 else 64 * 1024
    for tile in (64, 16):
        nodes = _nodes_of_a_block(graph, tile, per_node)
        shared = size * (rows * (tile + 4) + WEIGHTS + per_row * tile + per_node * nodes) + 12 * tile
        if shared <= most:
            return _Launch(dtype_name(x), total, tile, nodes, shared)
    return _check.fail(op, "weights", f"be of layers whose tile of 16 rows fits in {most} bytes on a GPU", shared)


def _nodes_of_a_block(graph: MessageGraph, tile: int, per_node: int) -> int:
    """As many as have two tiles of entries, and not too many sums."""
    entries = int(graph.received.shape[0]) / max(2 * graph.n_nodes, 1)  # of a node and stream
    return max(1, min(MOST_NODES, int(2 * tile / max(entries, 1)), MOST_SUMS // max(per_node, 1)))


class _TensorCores(NamedTuple):
    """How the kernels of message_mma.cu run."""

    real: str
    steps: int  # of 16 inputs
    parts: int  # of 8 results
    shared: int  # bytes of weights

    def run(self, name: str, grid: tuple[int, ...], more: int, *args: Any) -> None:
        """With so many bytes of shared memory ``more``."""
        launch = kernel("message_mma.cu", name, real=self.real, STEPS=self.steps, PARTS=self.parts)
        launch(grid, 256, *args, shared_mem=self.shared + more)


def _tensor_cores(x: Any, even: Sequence[int], inputs: int, width: int, outputs: int) -> _TensorCores | None:
    """For 16-bit states of such widths, where there are tensor cores for them; None otherwise."""
    fits = inputs <= 64 and outputs <= 32 and width <= 256 and all(int(k) % 2 == 0 for k in (*even, outputs))
    if x.itemsize != 2 or not fits or compute_capability(x) < 80:
        return None
    steps, parts = next(s for s in (1, 2, 4) if inputs <= 16 * s), 2 if outputs <= 16 else 4
    padded = blocks(width, 16) * 16
    return _TensorCores(dtype_name(x), steps, parts, 2 * (padded * (16 * steps + 8) + 8 * parts * (padded + 8)))


def _table_gpu(op: str, nodes: Any, graph: MessageGraph, parts: list[tuple[Any, Any, int]]) -> Any:
    """Each node's part of hidden layers, [N, parts, H]: by weights, bias or None, and the first column of weights."""
    n, channels = (int(k) for k in nodes.shape)
    width, inputs = (int(k) for k in parts[0][0].shape)
    run = _launch(op, nodes, channels, graph)
    table = empty(nodes, (n, len(parts) * width), run.total)
    (weight, bias, offset), (weight_1, bias_1, offset_1) = parts[0], parts[-1]
    grid = blocks(n, run.tile), len(parts)
    run("message_table", grid, nodes, weight, weight_1, bias, bias_1, table, n, channels, width, inputs, offset,
        offset_1)  # fmt: skip
    return table


def _edge_table_gpu(op: str, nodes: Any, w1: Any, b1: Any, graph: MessageGraph) -> Any:
    return _table_gpu(op, nodes, graph, [(w1, b1, 0), (w1, None, int(nodes.shape[1]))])


def _edge_gpu(nodes: Any, initial: Any, edges: Any, weights: Sequence[Any], graph: MessageGraph) -> Any:
    op = "edge_step"
    nodes, initial, edges, w1, b1, w2, b2 = map(contiguous, (nodes, initial, edges, *weights))
    graph = MessageGraph(*map(contiguous, graph))
    (count, ce), c0, width = edges.shape, int(initial.shape[1]), int(w1.shape[0])
    table, out = _edge_table_gpu(op, nodes, w1, b1, graph), empty(edges, (count, ce))
    if tensor := _tensor_cores(nodes, [nodes.shape[1], c0, ce, width], c0 + ce, width, ce):
        grid = min(blocks(count, TENSOR_ROWS), TENSOR_BLOCKS)
        tensor.run("message_edge_mma", (grid,), 0, table, graph.row, graph.col, initial, edges, w1, w2, b2, out, count,
                   nodes.shape[1], c0, ce, width)  # fmt: skip
        return out
    run = _launch(op, nodes, c0 + ce + width, graph)
    run("message_edge", blocks(count, run.tile), table, graph.row, graph.col, initial, edges, w1, w2, b2, out, count,
        nodes.shape[1], c0, ce, width)  # fmt: skip
    return out


def _edge_backward_gpu(
    grad: Any, output: Any, nodes: Any, initial: Any, edges: Any, weights: Sequence[Any], graph: MessageGraph
) -> EdgeGradients:
    op = "edge_step_vjp"
    given = map(contiguous, (grad, output, nodes, initial, edges, *weights))
    grad, output, nodes, initial, edges, w1, b1, w2, _ = given
    graph = MessageGraph(*map(contiguous, graph))
    n, c0, ce, width = int(nodes.shape[0]), int(initial.shape[1]), int(edges.shape[1]), int(w1.shape[0])
    table = _edge_table_gpu(op, nodes, w1, b1, graph)
    run = _launch(op, nodes, c0 + 2 * ce + 2 * width, graph, per_node=width)
    count = min(blocks(n, run.nodes), MOST_BLOCKS)
    by_initial, by_edges = empty(initial, initial.shape), empty(edges, edges.shape)
    by_table, rest = empty(nodes, (n, 2 * width), run.total), width * (c0 + ce)
    part = empty(nodes, (count, rest + ce * width + ce), run.total)
    undirected = int(graph.received.shape[0] == 2 * edges.shape[0])  # then each row is the earlier end
    by_row, by_col = (graph.received_start, graph.received), (graph.sent_start, graph.sent)
    for number, (start, order) in enumerate((by_row, by_col)):
        run("message_edge_backward", count, table, graph.row, graph.col, start, order, initial, edges, output, grad, w1,
            w2, by_initial, by_edges, by_table, part, n, run.nodes, nodes.shape[1], c0, ce, width, undirected,
            number)  # fmt: skip
    sums = _reduced(run, part)
    by_rest, by_w2, by_b2 = sums[:rest].reshape(width, c0 + ce), sums[rest:-ce].reshape(ce, width), sums[-ce:]
    by_nodes, *by_first = _by_table(_wide(nodes), _wide(w1), by_table, by_rest, 2)
    by_nodes, *by_weights = (astype(x, run.real) for x in (by_nodes, *by_first, copy(by_w2), copy(by_b2)))
    return EdgeGradients(by_nodes, by_initial, by_edges, tuple(by_weights))


def _reduced(run: _Launch, part: Any) -> Any:
    """The sum over the blocks' parts."""
    count, size = (int(k) for k in part.shape)
    out = empty(part, (size,))
    run("message_reduce", blocks(size, 4 * run.tile), part, out, count, size)
    return out


def _sum_tables(op: str, nodes: Any, streams: list[Sequence[Any]], graph: MessageGraph) -> Any:
    return _table_gpu(op, nodes, graph, [(w1, b1, 0) for w1, b1, *_ in streams])


def _streams(past: Sequence[Any], future: Sequence[Any] | None) -> list[Sequence[Any]]:
    return [tuple(map(contiguous, given)) for given in (past, future) if given is not None]


def _sums_gpu(nodes: Any, edges: Any, past: Sequence[Any], future: Sequence[Any] | None, graph: MessageGraph) -> Any:
    op = "message_sums"
    nodes, edges, streams = contiguous(nodes), contiguous(edges), _streams(past, future)
    graph = MessageGraph(*map(contiguous, graph))
    n, ce, (outputs, width) = int(nodes.shape[0]), int(edges.shape[1]), (int(k) for k in past[2].shape)
    table = _sum_tables(op, nodes, streams, graph)
    sums, together = empty(nodes, (n, len(streams) * outputs)), int(future is None)
    weights = [x for w1, _, w2, b2 in (streams[0], streams[-1]) for x in (w1, w2, b2)]
    given = (table, graph.received_start, graph.received, graph.received_from, edges, *weights, sums, n)
    sizes = nodes.shape[1], ce, width, outputs, together
    if tensor := _tensor_cores(nodes, [nodes.shape[1], ce, width], ce, width, outputs):
        each_block = _nodes_of_a_block(graph, TENSOR_ROWS, outputs)
        numbers = TENSOR_ROWS * outputs + blocks(each_block * outputs, 4) * 4
        grid = blocks(n, each_block), len(streams)
        tensor.run("message_sum_mma", grid, 4 * numbers, *given, each_block, *sizes)
        return sums
    run = _launch(op, nodes, ce + width, graph, outputs, outputs)
    run("message_sum", (blocks(n, run.nodes), len(streams)), *given, run.nodes, *sizes)
    return sums


def _sums_backward_gpu(
    grad: Any, nodes: Any, edges: Any, past: Sequence[Any], future: Sequence[Any] | None, graph: MessageGraph
) -> MessageGradients:
    op = "message_sums_vjp"
    grad, nodes, edges, streams = *map(contiguous, (grad, nodes, edges)), _streams(past, future)
    graph = MessageGraph(*map(contiguous, graph))
    n, ce, (outputs, width) = int(nodes.shape[0]), int(edges.shape[1]), (int(k) for k in past[2].shape)
    table = _sum_tables(op, nodes, streams, graph)
    run = _launch(op, nodes, ce + 2 * width + outputs, graph, per_node=width)
    count, rest = min(blocks(n, run.nodes), MOST_BLOCKS), width * ce
    by_table = [empty(nodes, (n, width), run.total) for _ in range(2)]
    part = [empty(nodes, (count, rest + outputs * width + outputs), run.total) for _ in range(2)]
    by_edges = empty(edges, edges.shape)
    both = int(graph.received.shape[0] == 2 * edges.shape[0])  # an edge has a message of each stream
    for stream in range(2):
        which = min(stream, len(streams) - 1)
        w1, _, w2, b2 = streams[which]
        run("message_sum_backward", count, table, graph.sent_start, graph.sent, graph.sent_to, edges, grad, w1, w2, b2,
            by_edges, by_table[stream], part[stream], n, run.nodes, nodes.shape[1], ce, width, outputs, stream, which,
            len(streams), stream * both)  # fmt: skip
    if future is None:
        by_table, part = [by_table[0] + by_table[1]], [part[0] + part[1]]
    by_nodes, found = None, []
    for (w1, *_), through, own in zip(streams, by_table, part, strict=True):
        sums = _reduced(run, own)
        more, *by_first = _by_table(_wide(nodes), _wide(w1), through, sums[:rest].reshape(width, ce), 1)
        by_nodes = more if by_nodes is None else by_nodes + more
        last = copy(sums[rest:-outputs].reshape(outputs, width)), copy(sums[-outputs:])
        found.append(tuple(astype(x, run.real) for x in (*by_first, *last)))
    by_nodes = astype(by_nodes, run.real)
    return MessageGradients(by_nodes, by_edges, found[0], None if future is None else found[1])
