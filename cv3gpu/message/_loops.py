"""The CPU's inner loops of message passing, for `_njit.compiled`.

Small networks are applied to a few rows at a time: a block of their sums, ``ROWS`` by two registers, stays in registers
over all terms, and each weight that is loaded serves all of the rows. Hidden layers are work space of a few rows, in
the nearest cache. Weights are [inputs, outputs], so that outputs lie side by side in a register.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .._lanes import REGISTER, Lanes, Rows, Writer, operation

Array = np.ndarray[Any, Any]

ROWS = 6  # with two registers each, their sums fill all but a few of 16 registers
COLUMNS = 4  # the same of a product over rows
TILE = 48  # rows over which weights' gradients are summed before they go back to memory

# ---- operations on rows ---------------------------------------------------------------------------------


def _blocks(w: Writer) -> list[tuple[int, ...]]:
    """Registers that cover any width."""
    full = REGISTER // w.bits
    return [(full, full), (full,), (4,), (1,)]


def _parts(w: Writer, channel: Any, lanes: tuple[int, ...]) -> list[tuple[Any, int]]:
    """First channel and lanes of each register of a block."""
    return [(w.builder.add(channel, w.word(sum(lanes[:i]))), n) for i, n in enumerate(lanes)]


def _add_products(w: Writer, sums: list[list[Any]], first: list[Any], x: Rows, weight: Rows,
                  parts: list[tuple[Any, int]]) -> None:  # fmt: skip
    """Adds to each row's sums the numbers of x from ``first`` on, times the rows of a weight."""
    b = w.builder
    with w.range(w.word(0), weight.shape[0]) as k:
        at = b.mul(k, weight.shape[1])
        factors = [w.load(weight, b.add(at, channel), lanes) for channel, lanes in parts]
        for place, totals in zip(first, sums, strict=True):
            number = x.number(b.add(place, k))
            for factor, total, (_, lanes) in zip(factors, totals, parts, strict=True):
                b.store((w.everywhere(number, lanes) * factor + Lanes(w, b.load(total))).value, total)


def _store(w: Writer, sums: list[list[Any]], parts: list[tuple[Any, int]], out: Rows, to: Any, relu: bool) -> None:
    """Writes each row's sums, or what of them is positive."""
    for p, totals in enumerate(sums):
        at = w.builder.mul(w.builder.add(to, w.word(p)), out.shape[1])
        for (channel, lanes), total in zip(parts, totals, strict=True):
            x = Lanes(w, w.builder.load(total))
            if relu:
                x = w.constant(0.0, lanes).where(">", x, x)  # NaN stays
            w.store(x, out, w.builder.add(at, channel))


def _lower_edge_hidden(rows: int) -> Callable[..., None]:
    """The code of `edge_hidden` and `edge_hidden_one`."""

    def lower(w: Writer, table: Rows, row: Rows, col: Rows, initial: Rows, of_initial: Rows, edges: Rows,
              of_edges: Rows, edge: Any, hidden: Rows, to: Any) -> None:  # fmt: skip
        b, width = w.builder, hidden.shape[1]
        each = [b.add(edge, w.word(p)) for p in range(rows)]
        ends = [[b.mul(w.integer(of.number(k)), table.shape[1]) for of in (row, col)] for k in each]
        starts = [[b.mul(k, x.shape[1]) for k in each] for x in (initial, edges)]

        def block(channel: Any, lanes: tuple[int, ...]) -> None:
            parts, sums = _parts(w, channel, lanes), []
            for one, other in ends:
                left = [w.load(table, b.add(one, c), n) for c, n in parts]
                right = [w.load(table, b.add(b.add(other, width), c), n) for c, n in parts]
                sums.append([w.variable((x + y).value) for x, y in zip(left, right, strict=True)])
            _add_products(w, sums, starts[0], initial, of_initial, parts)
            _add_products(w, sums, starts[1], edges, of_edges, parts)
            _store(w, sums, parts, hidden, to, relu=True)

        w.channels(width, block, _blocks(w))

    return lower


@operation(_lower_edge_hidden(ROWS))
def edge_hidden(table: Array, row: Array, col: Array, initial: Array, of_initial: Array, edges: Array, of_edges: Array,
                edge: int, hidden: Array, to: int) -> None:  # fmt: skip
    """As `edge_hidden_one`, of ROWS edges and into as many rows."""
    for p in range(ROWS):
        edge_hidden_one(table, row, col, initial, of_initial, edges, of_edges, edge + p, hidden, to + p)


@operation(_lower_edge_hidden(1))
def edge_hidden_one(table: Array, row: Array, col: Array, initial: Array, of_initial: Array, edges: Array,
                    of_edges: Array, edge: int, hidden: Array, to: int) -> None:  # fmt: skip
    """``hidden[to]`` = the hidden layer of an edge; ``table`` [N, 2 H] has each node's part as row, then as col."""
    width = hidden.shape[1]
    ends = table[row[edge], :width] + table[col[edge], width:]
    hidden[to] = np.maximum(ends + initial[edge] @ of_initial + edges[edge] @ of_edges, 0)


def _lower_entry_hidden(rows: int) -> Callable[..., None]:
    """The code of `entry_hidden` and `entry_hidden_one`."""

    def lower(w: Writer, table: Rows, sender: Rows, at: Any, edges: Rows, of_edges: Rows, edge: Rows, entry: Any,
              hidden: Rows, to: Any) -> None:  # fmt: skip
        b, width = w.builder, hidden.shape[1]

        def numbers(of: Rows, first: Any, step: Any) -> list[Any]:
            return [b.mul(w.integer(of.number(b.add(first, w.word(p)))), step) for p in range(rows)]

        nodes, starts = numbers(sender, at, table.shape[1]), numbers(edge, entry, edges.shape[1])

        def block(channel: Any, lanes: tuple[int, ...]) -> None:
            parts = _parts(w, channel, lanes)
            sums = [[w.variable(w.load(table, b.add(node, c), n).value) for c, n in parts] for node in nodes]
            _add_products(w, sums, starts, edges, of_edges, parts)
            _store(w, sums, parts, hidden, to, relu=True)

        w.channels(width, block, _blocks(w))

    return lower


@operation(_lower_entry_hidden(ROWS))
def entry_hidden(table: Array, sender: Array, at: int, edges: Array, of_edges: Array, edge: Array, entry: int,
                 hidden: Array, to: int) -> None:  # fmt: skip
    """As `entry_hidden_one`, of ROWS entries and into as many rows."""
    for p in range(ROWS):
        entry_hidden_one(table, sender, at + p, edges, of_edges, edge, entry + p, hidden, to + p)


@operation(_lower_entry_hidden(1))
def entry_hidden_one(table: Array, sender: Array, at: int, edges: Array, of_edges: Array, edge: Array, entry: int,
                     hidden: Array, to: int) -> None:  # fmt: skip
    """``hidden[to]`` = the hidden layer of the message from node ``sender[at]`` along ``edge[entry]``."""
    hidden[to] = np.maximum(table[sender[at]] + edges[edge[entry]] @ of_edges, 0)


def _lower_layer(rows: int) -> Callable[..., None]:
    """The code of `layer` and `layer_one`."""

    def lower(w: Writer, x: Rows, of: Any, weight: Rows, bias: Rows, out: Rows, to: Any) -> None:
        b, width = w.builder, out.shape[1]
        starts = [b.mul(b.add(of, w.word(p)), x.shape[1]) for p in range(rows)]

        def block(channel: Any, lanes: tuple[int, ...]) -> None:
            parts = _parts(w, channel, lanes)
            sums = [[w.variable(w.load(bias, c, n).value) for c, n in parts] for _ in range(rows)]
            _add_products(w, sums, starts, x, weight, parts)
            _store(w, sums, parts, out, to, relu=True)

        w.channels(width, block, _blocks(w))

    return lower


@operation(_lower_layer(ROWS))
def layer(x: Array, of: int, weight: Array, bias: Array, out: Array, to: int) -> None:
    """As `layer_one`, of ROWS rows."""
    for p in range(ROWS):
        layer_one(x, of + p, weight, bias, out, to + p)


@operation(_lower_layer(1))
def layer_one(x: Array, of: int, weight: Array, bias: Array, out: Array, to: int) -> None:
    """``out[to] = relu(x[of] weight + bias)``."""
    out[to] = np.maximum(x[of] @ weight + bias, 0)


def _lower_product(rows: int) -> Callable[..., None]:
    """The code of `product` and `product_one`."""

    def lower(w: Writer, x: Rows, of: Any, weight: Rows, out: Rows, to: Any) -> None:
        b, width = w.builder, out.shape[1]
        starts = [b.mul(b.add(of, w.word(p)), x.shape[1]) for p in range(rows)]

        def block(channel: Any, lanes: tuple[int, ...]) -> None:
            parts = _parts(w, channel, lanes)
            sums = [[w.variable(w.constant(0.0, n).value) for _, n in parts] for _ in range(rows)]
            _add_products(w, sums, starts, x, weight, parts)
            _store(w, sums, parts, out, to, relu=False)

        w.channels(width, block, _blocks(w))

    return lower


@operation(_lower_product(ROWS))
def product(x: Array, of: int, weight: Array, out: Array, to: int) -> None:
    """As `product_one`, of ROWS rows."""
    for p in range(ROWS):
        product_one(x, of + p, weight, out, to + p)


@operation(_lower_product(1))
def product_one(x: Array, of: int, weight: Array, out: Array, to: int) -> None:
    """``out[to] = x[of] weight``."""
    out[to] = x[of] @ weight


def _lower_outer(columns: int) -> Callable[..., None]:
    """The code of `outer` and `outer_one`."""

    def lower(w: Writer, x: Rows, of: Any, y: Rows, count: Any, out: Rows, column: Any) -> None:
        b, width = w.builder, out.shape[1]

        def block(channel: Any, lanes: tuple[int, ...]) -> None:
            parts = _parts(w, channel, lanes)
            places = [[w.at(b.add(column, w.word(p)), width, c) for c, _ in parts] for p in range(columns)]
            sums = [
                [w.variable(w.load(out, at, n).value) for at, (_, n) in zip(row, parts, strict=True)] for row in places
            ]
            with w.range(w.word(0), count) as k:
                values = [w.load(y, w.at(k, width, c), n) for c, n in parts]
                first = b.add(b.mul(b.add(of, k), x.shape[1]), column)
                for p, totals in enumerate(sums):
                    number = x.number(b.add(first, w.word(p)))
                    for value, total, (_, n) in zip(values, totals, parts, strict=True):
                        b.store((w.everywhere(number, n) * value + Lanes(w, b.load(total))).value, total)
            for row, totals in zip(places, sums, strict=True):
                for at, total in zip(row, totals, strict=True):
                    w.store(Lanes(w, b.load(total)), out, at)

        w.channels(width, block, _blocks(w))

    return lower


@operation(_lower_outer(COLUMNS))
def outer(x: Array, of: int, y: Array, count: int, out: Array, column: int) -> None:
    """As `outer_one`, of COLUMNS columns."""
    for p in range(COLUMNS):
        outer_one(x, of, y, count, out, column + p)


@operation(_lower_outer(1))
def outer_one(x: Array, of: int, y: Array, count: int, out: Array, column: int) -> None:
    """``out[column]`` += the sum of ``x[of + k, column] y[k]``, k < ``count``."""
    for k in range(count):
        out[column] += x[of + k, column] * y[k]


def _lower_add_row(w: Writer, x: Rows, of: Any, out: Rows, to: Any, first: Any) -> None:
    b = w.builder
    at, into = b.mul(of, x.shape[1]), w.at(to, out.shape[1], first)

    def block(channel: Any, lanes: tuple[int, ...]) -> None:
        for c, n in _parts(w, channel, lanes):
            place = b.add(into, c)
            w.store(w.load(out, place, n) + w.load(x, b.add(at, c), n), out, place)

    w.channels(x.shape[1], block, _blocks(w))


@operation(_lower_add_row)
def add_row(x: Array, of: int, out: Array, to: int, first: int) -> None:
    """``out[to]`` += ``x[of]``, from column ``first`` on."""
    out[to, first : first + x.shape[1]] += x[of]


def _lower_keep(w: Writer, x: Rows, of: Any, where: Rows, row: Any, out: Rows, to: Any) -> None:
    b, width = w.builder, out.shape[1]

    def block(channel: Any, lanes: tuple[int, ...]) -> None:
        for c, n in _parts(w, channel, lanes):
            value, mask = w.load(x, w.at(of, width, c), n), w.load(where, w.at(row, width, c), n)
            zero = w.constant(0.0, n)
            holds = b.fcmp_ordered(">", mask.value, zero.value)
            w.store(Lanes(w, b.select(holds, value.value, zero.value)), out, w.at(to, width, c))

    w.channels(width, block, _blocks(w))


@operation(_lower_keep)
def keep(x: Array, of: int, where: Array, row: int, out: Array, to: int) -> None:
    """``out[to]`` = ``x[of]`` where ``where[row]`` is positive, else 0."""
    out[to] = np.where(where[row] > 0, x[of], 0)


# ---- forward --------------------------------------------------------------------------------------------


def _edge_forward(table: Array, row: Array, col: Array, initial: Array, of_initial: Array, edges: Array,
                  of_edges: Array, of_hidden: Array, bias: Array, out: Array, first: int, last: int,
                  hidden: Array) -> None:  # fmt: skip
    """New states of the edges from ``first`` to ``last``; ``hidden`` [ROWS, H] is work space."""
    edge = first
    while edge + ROWS <= last:
        edge_hidden(table, row, col, initial, of_initial, edges, of_edges, edge, hidden, 0)
        layer(hidden, 0, of_hidden, bias, out, edge)
        edge += ROWS
    while edge < last:
        edge_hidden_one(table, row, col, initial, of_initial, edges, of_edges, edge, hidden, 0)
        layer_one(hidden, 0, of_hidden, bias, out, edge)
        edge += 1


def _sum_forward(table: Array, start: Array, sender: Array, edge: Array, edges: Array, of_edges: Array,
                 of_hidden: Array, bias: Array, sums: Array, stream: int, column: int, first: int, last: int,
                 hidden: Array, message: Array) -> None:  # fmt: skip
    """Adds to the sums of nodes from ``first`` to ``last`` their messages of a stream, from ``column`` on."""
    offset = stream * (start.shape[0] // 2)
    entry, end, node = int(start[offset + first]), int(start[offset + last]), first
    while entry < end:
        n = ROWS if entry + ROWS <= end else 1
        if n == ROWS:
            entry_hidden(table, sender, entry, edges, of_edges, edge, entry, hidden, 0)
            layer(hidden, 0, of_hidden, bias, message, 0)
        else:
            entry_hidden_one(table, sender, entry, edges, of_edges, edge, entry, hidden, 0)
            layer_one(hidden, 0, of_hidden, bias, message, 0)
        for p in range(n):
            while entry + p >= start[offset + node + 1]:
                node += 1
            add_row(message, p, sums, node, column)
        entry += n


# ---- gradients ------------------------------------------------------------------------------------------


def _add_outer(x: Array, of: int, y: Array, count: int, out: Array) -> None:
    """``out`` += the product of ``count`` rows of x, from ``of`` on and transposed, with the first rows of y."""
    column = 0
    while column + COLUMNS <= out.shape[0]:
        outer(x, of, y, count, out, column)
        column += COLUMNS
    while column < out.shape[0]:
        outer_one(x, of, y, count, out, column)
        column += 1


def _products(x: Array, count: int, weight: Array, out: Array, to: int) -> None:
    """``count`` rows of ``x weight``."""
    k = 0
    while k + ROWS <= count:
        product(x, k, weight, out, to + k)
        k += ROWS
    while k < count:
        product_one(x, k, weight, out, to + k)
        k += 1


def _edge_backward(table: Array, row: Array, col: Array, initial: Array, of_initial: Array, edges: Array,
                   of_edges: Array, output: Array, grad: Array, to_hidden: Array, to_initial: Array, to_edges: Array,
                   by_initial: Array, by_edges: Array, by_table: Array, by_of_initial: Array, by_of_edges: Array,
                   by_of_hidden: Array, by_bias: Array, first: int, last: int, hidden: Array, inner: Array,
                   outside: Array) -> None:  # fmt: skip
    """What the edges from ``first`` to ``last`` give to all gradients.

    Each ``by_`` is added to, but those of edges. ``hidden`` and ``inner`` [TILE, H], ``outside`` [TILE, Ce].
    """
    width = hidden.shape[1]
    for tile in range(first, last, TILE):
        n = min(TILE, last - tile)
        k = 0
        while k + ROWS <= n:
            edge_hidden(table, row, col, initial, of_initial, edges, of_edges, tile + k, hidden, k)
            k += ROWS
        while k < n:
            edge_hidden_one(table, row, col, initial, of_initial, edges, of_edges, tile + k, hidden, k)
            k += 1
        for k in range(n):
            keep(grad, tile + k, output, tile + k, outside, k)
            add_row(outside, k, by_bias, 0, 0)
        _products(outside, n, to_hidden, inner, 0)
        for k in range(n):
            keep(inner, k, hidden, k, inner, k)
            add_row(inner, k, by_table, int(row[tile + k]), 0)
            add_row(inner, k, by_table, int(col[tile + k]), width)
        _products(inner, n, to_initial, by_initial, tile)
        _products(inner, n, to_edges, by_edges, tile)
        _add_outer(outside, 0, hidden, n, by_of_hidden)
        _add_outer(initial, tile, inner, n, by_of_initial)
        _add_outer(edges, tile, inner, n, by_of_edges)


def _sum_backward(table: Array, start: Array, receiver: Array, edge: Array, edges: Array, of_edges: Array,
                  of_hidden: Array, bias: Array, grad: Array, to_hidden: Array, to_edges: Array, by_edges: Array,
                  by_table: Array, by_of_edges: Array, by_of_hidden: Array, by_bias: Array, stream: int, column: int,
                  first: int, last: int, hidden: Array, inner: Array, message: Array, outside: Array, state: Array,
                  by_state: Array, node: Array) -> None:  # fmt: skip
    """What the messages of a stream that nodes from ``first`` to ``last`` send give to all gradients.

    Each ``by_`` is added to. ``grad`` [N, S] and, from ``column`` on, ``hidden`` and ``inner`` [TILE, H], ``message``
    and ``outside`` [TILE, S], ``state`` and ``by_state`` [TILE, Ce], ``node`` [TILE] are work space.
    """
    offset = stream * (start.shape[0] // 2)
    begin, end, sender = int(start[offset + first]), int(start[offset + last]), first
    for tile in range(begin, end, TILE):
        n = min(TILE, end - tile)
        for k in range(n):
            while tile + k >= start[offset + sender + 1]:
                sender += 1
            node[k] = sender
        k = 0
        while k + ROWS <= n:
            entry_hidden(table, node, k, edges, of_edges, edge, tile + k, hidden, k)
            layer(hidden, k, of_hidden, bias, message, k)
            k += ROWS
        while k < n:
            entry_hidden_one(table, node, k, edges, of_edges, edge, tile + k, hidden, k)
            layer_one(hidden, k, of_hidden, bias, message, k)
            k += 1
        for k in range(n):
            source, given = grad[receiver[tile + k]], outside[k]
            for c in range(given.shape[0]):
                given[c] = source[column + c] if message[k, c] > 0 else 0
            add_row(outside, k, by_bias, 0, 0)
            source, given = edges[edge[tile + k]], state[k]
            for c in range(given.shape[0]):
                given[c] = source[c]
        _products(outside, n, to_hidden, inner, 0)
        for k in range(n):
            keep(inner, k, hidden, k, inner, k)
            add_row(inner, k, by_table, int(node[k]), 0)
        _products(inner, n, to_edges, by_state, 0)
        for k in range(n):
            add_row(by_state, k, by_edges, int(edge[tile + k]), 0)
        _add_outer(outside, 0, hidden, n, by_of_hidden)
        _add_outer(state, 0, inner, n, by_of_edges)


# For `_njit.compiled`: callees first.
EDGE_FORWARD = edge_hidden, edge_hidden_one, layer, layer_one, _edge_forward
SUM_FORWARD = entry_hidden, entry_hidden_one, layer, layer_one, add_row, _sum_forward
_BACKWARD = product, product_one, outer, outer_one, add_row, keep, _add_outer, _products
EDGE_BACKWARD = edge_hidden, edge_hidden_one, *_BACKWARD, _edge_backward
SUM_BACKWARD = entry_hidden, entry_hidden_one, layer, layer_one, *_BACKWARD, _sum_backward
