"""Graphs in the orders in which the steps work at them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from .. import _check
from .._array import argsort, astype, check_beside, check_device, checked_family, from_host, module

__all__ = ["MessageGraph", "join_windows", "message_graph"]

_MOST = 2**31 - 2  # nodes, and messages
_TIMES = ("float16", "bfloat16", "float32", "float64", *(f"{u}int{n}" for u in ("", "u") for n in (8, 16, 32, 64)))


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


def _check_ends(op: str, edges: Any) -> None:
    checked_family(op, "edges", edges)
    check_device(op, "edges", edges)
    _check.dtype(op, "edges", edges, ("int32", "int64"))
    _check.shape(op, "edges", edges, [2, "E"])


def _check_nodes(op: str, argument: str, edges: Any, n: int) -> None:
    if edges.shape[1] and (int(edges.min()) < 0 or int(edges.max()) >= n):
        _check.fail(op, argument, f"have nodes from 0 to {n - 1}", f"{int(edges.min())} to {int(edges.max())}")


def _check_time(op: str, time: Any, edges: Any, n: int) -> None:
    check_beside(op, "time", time, "edges", edges)
    _check.dtype(op, "time", time, _TIMES)
    _check.shape(op, "time", time, [n], "a time for each node")
