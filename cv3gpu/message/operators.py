"""The steps and their gradients: checks, then the CPU path or the GPU path."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .. import _check
from .._array import array_op, empty, on_gpu, zeros
from . import _cpu, _gpu
from ._layers import linear, narrow_product, relu, total, where_positive, zeros_like
from .checks import check_edge_step, check_message_sums, check_node_step
from .gradients import EdgeGradients, MessageGradients, NodeGradients
from .graph import MessageGraph

__all__ = ["edge_step", "edge_step_vjp", "message_sums", "message_sums_vjp", "node_step", "node_step_vjp"]


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
    G. Brasó, L. Leal-Taixé, "Learning a Neural Solver for Multiple Object Tracking", CVPR 2020, equation 2.

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
    return (_gpu if on_gpu(nodes) else _cpu).edge_forward(nodes, initial, edges, weights, graph)


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
        none = tuple(zeros_like(x) for x in weights)
        return EdgeGradients(zeros_like(nodes), zeros_like(initial), zeros_like(edges), none)
    backward = (_gpu if on_gpu(nodes) else _cpu).edge_backward
    return backward(grad, output, nodes, initial, edges, weights, graph)


@array_op("nodes", "edges")
def message_sums(nodes: Any, edges: Any, past: Sequence[Any], future: Sequence[Any] | None, graph: MessageGraph) -> Any:
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
    return (_gpu if on_gpu(nodes) else _cpu).sums_forward(nodes, edges, past, future, graph)


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
        later = None if future is None else tuple(map(zeros_like, future))
        return MessageGradients(zeros_like(nodes), zeros_like(edges), tuple(map(zeros_like, past)), later)
    return (_gpu if on_gpu(nodes) else _cpu).sums_backward(grad, nodes, edges, past, future, graph)


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
    G. Brasó, L. Leal-Taixé, "Learning a Neural Solver for Multiple Object Tracking", CVPR 2020, section 4.2.

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
    return relu(linear(message_sums(nodes, edges, past, future, graph), *update))


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
    grad = where_positive(output, grad)
    sums = message_sums(nodes, edges, past, future, graph)
    inner = message_sums_vjp(narrow_product(grad, update[0]), nodes, edges, past, future, graph)
    return NodeGradients(*inner, (narrow_product(grad.T, sums), total(grad)))
