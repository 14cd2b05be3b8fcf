"""The CPU path: nodes in matrix products, edges in compiled loops over a few rows at a time."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from .. import _njit
from .._array import as_numpy
from .._kernel import blocks
from .._threads import cores, each, product
from ..resize import _like, _values
from . import _loops
from ._layers import from_table
from .gradients import EdgeGradients, MessageGradients
from .graph import MessageGraph

__all__ = ["edge_backward", "edge_forward", "sums_backward", "sums_forward"]

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


def edge_forward(nodes: Any, initial: Any, edges: Any, weights: Sequence[Any], graph: MessageGraph) -> Any:
    h, e0, e, w1, b1, w2, b2 = (_dense(x) for x in (nodes, initial, edges, *weights))
    row, col = _dense_indices(graph.row), _dense_indices(graph.col)
    ends, of_initial, of_edges = _edge_parts(w1, h.shape[1], e0.shape[1])
    table, of_hidden = _edge_table(h, ends, b1), _transposed(w2)
    of_initial, of_edges, out = _transposed(of_initial), _transposed(of_edges), np.empty_like(e)

    def forward(first: int, last: int) -> None:
        hidden = _space(e, _loops.ROWS, len(b1))
        _njit.compiled(*_loops.EDGE_FORWARD)(
            table, row, col, e0, of_initial, e, of_edges, of_hidden, b2, out, first, last, hidden
        )

    each(forward, _ranges(len(e), min(4 * cores(), blocks(len(e), PIECE)) if cores() > 1 else 1))
    return _like(out, nodes)


def edge_backward(
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
        hidden, inner, outside = (_space(e, _loops.TILE, n) for n in (width, width, outputs))
        _njit.compiled(*_loops.EDGE_BACKWARD)(
            table, row, col, e0, of_initial, e, of_edges, y, g, w2, to_initial, to_edges, by_initial, by_edges, *sums,
            first, last, hidden, inner, outside,
        )  # fmt: skip
        return tuple(sums)

    parts = each(backward, _ranges(len(e), min(PARTS, blocks(len(e), PIECE))))
    by_table, by_of_initial, by_of_edges, by_w2, by_b2 = _added(parts)
    by_rest = np.concatenate([by_of_initial.T, by_of_edges.T], 1)
    by_nodes, *by_first = from_table(h, w1, by_table, by_rest, 2)
    found = (_like(x, nodes) for x in (by_nodes, by_initial, by_edges, *by_first, by_w2, by_b2[0]))
    by_nodes, by_initial, by_edges, *by_weights = found
    return EdgeGradients(by_nodes, by_initial, by_edges, tuple(by_weights))


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


def sums_forward(nodes: Any, edges: Any, past: Sequence[Any], future: Sequence[Any] | None, graph: MessageGraph) -> Any:
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
            hidden, message = (_space(h, _loops.ROWS, n) for n in (len(stream.b1), width))
            _njit.compiled(*_loops.SUM_FORWARD)(
                table, start, sender, edge, e, stream.of_edges, stream.of_hidden, stream.b2, sums, number, column,
                first, last, hidden, message,
            )  # fmt: skip

        each(forward, _node_ranges(start, number, min(4 * cores(), blocks(len(edge), PIECE)) if cores() > 1 else 1))
    return _like(sums, nodes)


def sums_backward(
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
            space = [_space(h, _loops.TILE, n) for n in widths]
            _njit.compiled(*_loops.SUM_BACKWARD)(
                table, start, receiver, edge, e, stream.of_edges, stream.of_hidden, stream.b2, g, to_hidden, to_edges,
                by_edges, by_table, *sums, number, column, first, last, *space,
                np.empty(_loops.TILE, np.int32),
            )  # fmt: skip
            return tuple(sums)

        parts = each(backward, _node_ranges(start, number, min(PARTS, blocks(len(edge), PIECE))))
        by_of_edges, by_w2, by_b2 = _added(parts)
        more, by_w1, by_b1 = from_table(h, stream.of_nodes, by_table, by_of_edges.T, 1)
        by_nodes += more
        found.append((by_w1, by_b1, by_w2, by_b2[0]))
    if future is None:
        found = [_added(found)]
    streams = [tuple(_like(x, nodes) for x in one) for one in found]
    return MessageGradients(
        _like(by_nodes, nodes), _like(by_edges, nodes), streams[0], None if future is None else streams[1]
    )
