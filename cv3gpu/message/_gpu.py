"""The GPU path: ``message.cu``, and ``message_mma.cu`` for 16-bit states of even widths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from .. import _check
from .._array import astype, compute_capability, contiguous, copy, dtype_name, empty
from .._kernel import blocks, kernel
from ._layers import from_table, wide
from .gradients import EdgeGradients, MessageGradients
from .graph import MessageGraph

__all__ = ["edge_backward", "edge_forward", "sums_backward", "sums_forward"]

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


def edge_forward(nodes: Any, initial: Any, edges: Any, weights: Sequence[Any], graph: MessageGraph) -> Any:
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


def edge_backward(
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
    by_nodes, *by_first = from_table(wide(nodes), wide(w1), by_table, by_rest, 2)
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


def sums_forward(nodes: Any, edges: Any, past: Sequence[Any], future: Sequence[Any] | None, graph: MessageGraph) -> Any:
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


def sums_backward(
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
        more, *by_first = from_table(wide(nodes), wide(w1), through, sums[:rest].reshape(width, ce), 1)
        by_nodes = more if by_nodes is None else by_nodes + more
        last = copy(sums[rest:-outputs].reshape(outputs, width)), copy(sums[-outputs:])
        found.append(tuple(astype(x, run.real) for x in (*by_first, *last)))
    by_nodes = astype(by_nodes, run.real)
    return MessageGradients(by_nodes, by_edges, found[0], None if future is None else found[1])
