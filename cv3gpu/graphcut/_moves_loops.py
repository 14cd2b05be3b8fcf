"""The CPU's inner loops of expansion, swap and fusion moves, for `_njit.compiled`.

A move offers nodes two labels, ``zero`` and ``one``; a cut takes one of them. Terms of the energy are whole numbers:
``weight * table`` and ``unary * scale``, rounded. Nodes are numbered by rows; the edge k of a node leads ``step[k]``
nodes further, and has no weight where it would leave the grid. Direction d < K is that of edge d, d + K its opposite.

The work is with the nodes that might change, the candidates: ``node`` lists them, ``slot[p]`` is 1 + the place of node
p in that list, or 0. A node whose own cost of changing is at least what its edges could bring is none, nor is then a
neighbour which that leaves with too little. Of what is left, a component of the graph without a node that gains by
itself keeps its labels, a single node decides alone, and the others are moved next to one another onto a small grid,
where a minimum cut is looked for.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .._njit import inlined

Array = np.ndarray[Any, Any]

_OPEN, _KEEPS, _CHANGES, _PLACED = 0, 1, 2, 3  # of a candidate: undecided, takes `zero`, takes `one`, the cut decides
_SLACK = 3.0  # what rounding adds to what an edge can bring

# ---- energies ---------------------------------------------------------------------------------------------


@inlined
def _whole(x: float) -> Any:
    return np.int64(np.rint(x))


@inlined
def _cost(unary: Array, label: int, p: int, scale: float, forbidden: float) -> Any:
    """The unary term of a node; +inf counts as ``forbidden``."""
    return np.int64(np.rint(min(np.float64(unary[label, p]) * scale, forbidden)))


def _cheapest(unary: Array, cost: Array, label: Array) -> None:
    """The label of the least unary at each node, the first among equals, and that unary."""
    for p in range(label.shape[0]):
        cost[p] = unary[0, p]
        label[p] = 0
    for a in range(1, unary.shape[0]):
        for p in range(label.shape[0]):
            less = unary[a, p] < cost[p]
            cost[p] = unary[a, p] if less else cost[p]
            label[p] = a if less else label[p]


def _node_energies(unary: Array, scale: float, weight: Array, table: Array, step: Array, label: Array,
                   out: Array) -> None:  # fmt: skip
    """The unary term of each node, and the terms of the edges that begin there, times scale."""
    for p in range(label.shape[0]):
        out[p] = np.float64(unary[label[p], p]) * scale
    for k in range(step.shape[0]):
        for p in range(label.shape[0]):
            w = weight[k, p]
            if w != 0:
                out[p] += w * table[label[p], label[p + step[k]]]


def _prepare(unary: Array, weight: Array, table: Array, step: Array, label: Array, cost: Array, total: Array,
             paid: Array) -> None:  # fmt: skip
    """The unary of each node's label, the weight of its edges together, and what each edge costs now."""
    n = label.shape[0]
    for p in range(n):
        cost[p] = unary[label[p], p]
        total[p] = 0.0
    for k in range(step.shape[0]):
        for p in range(n):
            w = weight[k, p]
            paid[k, p] = 0.0
            if w != 0:
                total[p] += w
                total[p + step[k]] += w
                paid[k, p] = w * table[label[p], label[p + step[k]]]


# ---- candidates -------------------------------------------------------------------------------------------


def _of_expansion(unary: Array, scale: float, weight: Array, step: Array, column: Array, label: Array, cost: Array,
                  total: Array, paid: Array, alpha: int, to_alpha: Array, capacity: Array, short: Array, node: Array,
                  slot: Array, stack: Array) -> int:  # fmt: skip
    """The candidates of an expansion where ``pairwise``, of which ``column`` is that of alpha, is a metric; how many.

    ``short[p]`` is what a change of node p costs by itself, less what its edges bring if its neighbours change with it.
    Where a neighbour keeps its label, they bring less by the whole ``capacity`` of the edge between the two.
    """
    n, pairs = label.shape[0], step.shape[0]
    slack = _SLACK * (2 * pairs + 1)
    for p in range(n):
        to_alpha[p] = column[label[p]]
        own = (np.float64(unary[alpha, p]) - np.float64(cost[p])) * scale
        short[p] = 0.0 if label[p] == alpha else own - total[p] * to_alpha[p] - slack
    for k in range(pairs):
        ahead = step[k]
        low, high = max(0, -ahead), n - max(0, ahead)
        for p in range(low):
            capacity[k, p] = 0.0
        for p in range(low, high):
            capacity[k, p] = weight[k, p] * (to_alpha[p] + to_alpha[p + ahead]) - paid[k, p]
        for p in range(high, n):
            capacity[k, p] = 0.0
    top = 0
    for p in range(n):
        stack[top] = p
        top += 1 if short[p] >= 0 else 0
    while top > 0:
        top -= 1
        keeps = np.int64(stack[top])
        for k in range(pairs):
            if capacity[k, keeps] > 0:
                q = keeps + step[k]
                if short[q] < 0:
                    short[q] += capacity[k, keeps]
                    stack[top] = q
                    top += 1 if short[q] >= 0 else 0
            q = keeps - step[k]
            if 0 <= q < n and capacity[k, q] > 0 and short[q] < 0:
                short[q] += capacity[k, q]
                stack[top] = q
                top += 1 if short[q] >= 0 else 0
    count = 0
    for p in range(n):
        node[count] = p
        if not short[p] >= 0:
            count += 1
            slot[p] = count
    return count


def _of_fusion(unary: Array, scale: float, step: Array, spread: float, label: Array, one: Array, cost: Array,
               total: Array, node: Array, slot: Array) -> int:  # fmt: skip
    """The candidates of a fusion with the labels ``one``, or of any expansion; how many.

    ``spread`` is between the most and the least that an edge of weight 1 can cost.
    """
    slack = _SLACK * (2 * step.shape[0] + 1)
    count = 0
    for p in range(label.shape[0]):
        own = (np.float64(unary[one[p], p]) - np.float64(cost[p])) * scale
        node[count] = p
        if label[p] != one[p] and not own >= total[p] * spread + slack:
            count += 1
            slot[p] = count
    return count


def _of_pair(label: Array, alpha: int, beta: int, zero: Array, one: Array, node: Array, slot: Array) -> int:
    """The candidates of a swap, which have one of its labels, and what nodes are offered; how many."""
    count = 0
    for p in range(label.shape[0]):
        inside = label[p] == alpha or label[p] == beta
        zero[p] = beta if inside else label[p]
        one[p] = alpha if inside else label[p]
        node[count] = p
        if inside:
            count += 1
            slot[p] = count
    return count


# ---- the graph of a move ----------------------------------------------------------------------------------


@inlined
def _edge(w: float, table: Array, a: int, b: int, c: int, d: int) -> tuple[int, int, int]:
    """E10 - E00, E11 - E10 and E01 + E10 - E00 - E11 of an edge between a node offered a, b and one offered c, d.

    Where the last one is negative, E01 and E10 are raised until it is 0.
    """
    e00, e10 = table[a, c], table[b, c]
    e01, e11 = table[a, d], table[b, d]
    here, there = _whole(w * (e10 - e00)), _whole(w * (e11 - e10))
    both = _whole(w * (e01 + e10 - e00 - e11))
    if both < 0:
        here -= both >> 1
        there += both >> 1
        both = 0
    return here, there, both


def _edges(unary: Array, scale: float, forbidden: float, weight: Array, table: Array, step: Array, zero: Array,
           one: Array, node: Array, slot: Array, count: int, gain: Array, inflow: Array,
           arc: Array) -> None:  # fmt: skip
    """What candidates gain by ``one``, the capacities of the edges between them, and what may flow to each.

    E(x, y) = E00 + (E10 - E00 - back) x + (E11 - E10 + back) y + back x (1 - y) + ahead (1 - x) y (Kolmogorov and
    Zabih), with ahead + back = E01 + E10 - E00 - E11, an equal share each. What is no candidate takes ``zero``.
    """
    n, pairs = slot.shape[0], step.shape[0]
    for i in range(count):
        p = np.int64(node[i])
        gain[i] = _cost(unary, zero[p], p, scale, forbidden) - _cost(unary, one[p], p, scale, forbidden)
        inflow[i] = 0
        for d in range(2 * pairs):
            arc[i * 2 * pairs + d] = 0
    for i in range(count):
        p = np.int64(node[i])
        for k in range(pairs):
            w = weight[k, p]
            if w != 0:
                q = p + step[k]
                here, there, both = _edge(w, table, zero[p], one[p], zero[q], one[q])
                j = np.int64(slot[q]) - 1
                if j < 0:
                    gain[i] -= here
                else:
                    back = both >> 1
                    gain[i] -= here - back
                    gain[j] -= there + back
                    arc[i * 2 * pairs + k] = back
                    arc[j * 2 * pairs + k + pairs] = both - back
                    inflow[i] += both - back
                    inflow[j] += back
            q = p - step[k]
            if 0 <= q < n and slot[q] == 0 and weight[k, q] != 0:
                here, there, both = _edge(weight[k, q], table, zero[q], one[q], zero[p], one[p])
                gain[i] -= there + both


def _keep(step: Array, node: Array, slot: Array, count: int, gain: Array, inflow: Array, arc: Array, state: Array,
          stack: Array) -> None:  # fmt: skip
    """Candidates that lose by ``one`` at least what may flow to them keep ``zero`` in the minimal cut.

    What flows to such a node is lost: each edge to it makes its neighbour lose as much, which may then keep ``zero``
    as well.
    """
    n, pairs = slot.shape[0], step.shape[0]
    top = 0
    for first in range(count):
        state[first] = _OPEN
    for first in range(count):
        if state[first] == _OPEN and gain[first] + inflow[first] <= 0:
            state[first] = _KEEPS
            stack[0] = first
            top = 1
        while top > 0:
            top -= 1
            i = np.int64(stack[top])
            p = np.int64(node[i])
            for d in range(2 * pairs):
                q = p + step[d] if d < pairs else p - step[d - pairs]
                if q < 0 or q >= n or slot[q] == 0:
                    continue
                j = np.int64(slot[q]) - 1
                here, there = i * 2 * pairs + d, j * 2 * pairs + (d + pairs if d < pairs else d - pairs)
                if state[j] != _OPEN or (arc[here] == 0 and arc[there] == 0):
                    continue
                gain[j] -= arc[there]
                inflow[j] -= arc[here]
                arc[here] = 0
                arc[there] = 0
                if gain[j] + inflow[j] <= 0:
                    state[j] = _KEEPS
                    stack[top] = j
                    top += 1


def _components(size: Array, step: Array, node: Array, slot: Array, count: int, gain: Array, arc: Array, state: Array,
                stack: Array, stamp: Array, since: int, member: Array, box: Array) -> int:  # fmt: skip
    """The components that a cut must decide, each with its bounding box; how many.

    The same expansion found the best labels when the clock (of ``stamp``, when nodes changed last) stood at ``since``.
    So a component in which, and next to which, nothing has changed keeps its labels.

    ``member[i]`` is the candidate's component, ``box`` [N, 9] the first and last z, y, x, and room for a place.
    """
    n, pairs = slot.shape[0], step.shape[0]
    found = 0
    for first in range(count):
        if state[first] != _OPEN:
            continue
        state[first] = _PLACED
        stack[0] = first
        top, done, sources, recent = 1, 0, 0, 0
        while done < top:
            i = np.int64(stack[done])
            done += 1
            p = np.int64(node[i])
            sources += 1 if gain[i] > 0 else 0
            recent += 1 if stamp[p] > since else 0
            for d in range(2 * pairs):
                q = p + step[d] if d < pairs else p - step[d - pairs]
                if q < 0 or q >= n:
                    continue
                recent += 1 if stamp[q] > since else 0
                if slot[q] == 0:
                    continue
                j = np.int64(slot[q]) - 1
                there = j * 2 * pairs + (d + pairs if d < pairs else d - pairs)
                if state[j] == _OPEN and (arc[i * 2 * pairs + d] > 0 or arc[there] > 0):
                    state[j] = _PLACED
                    stack[top] = j
                    top += 1
        sources = sources if recent > 0 else 0
        if sources == 0 or top == 1:
            for t in range(top):
                state[stack[t]] = _CHANGES if sources > 0 else _KEEPS
            continue
        for c in range(3):
            box[found, c] = size[c]
            box[found, 3 + c] = 0
        for t in range(top):
            i = np.int64(stack[t])
            p = np.int64(node[i])
            member[i] = found
            for c in range(2, -1, -1):
                x = p % size[c]
                p //= size[c]
                box[found, c] = min(box[found, c], x)
                box[found, 3 + c] = max(box[found, 3 + c], x)
        found += 1
    return found


def _arrange(box: Array, found: int, size: Array, small: Array) -> None:
    """Puts the boxes side by side in rows of a grid of the size ``small``, the given grid if that is no larger."""
    area, widest, small[0] = 0, 0, 0
    for b in range(found):
        high, wide = box[b, 4] - box[b, 1] + 1, box[b, 5] - box[b, 2] + 1
        area += high * wide
        widest = max(widest, wide)
        small[0] = max(small[0], box[b, 3] - box[b, 0] + 1)
    small[2] = max(widest, int(np.sqrt(area)))
    y, x, row = 0, 0, 0
    for b in range(found):
        high, wide = box[b, 4] - box[b, 1] + 1, box[b, 5] - box[b, 2] + 1
        if x + wide > small[2]:
            y, x, row = y + row, 0, 0
        box[b, 6], box[b, 7], box[b, 8] = -box[b, 0], y - box[b, 1], x - box[b, 2]
        x += wide
        row = max(row, high)
    small[1] = y + row
    if small[0] * small[1] * small[2] > size[0] * size[1] * size[2]:
        for c in range(3):
            small[c] = size[c]
            for b in range(found):
                box[b, 6 + c] = 0


def _graph(unary: Array, scale: float, forbidden: float, weight: Array, table: Array, step: Array, size: Array,
           zero: Array, one: Array, node: Array, slot: Array, count: int, gain: Array, inflow: Array, arc: Array,
           state: Array, stack: Array, stamp: Array, since: int, member: Array, box: Array,
           small: Array) -> int:  # fmt: skip
    """The graph of a move; how large the grid ``small`` is in which a cut must decide."""
    _edges(unary, scale, forbidden, weight, table, step, zero, one, node, slot, count, gain, inflow, arc)
    _keep(step, node, slot, count, gain, inflow, arc, state, stack)
    found = _components(size, step, node, slot, count, gain, arc, state, stack, stamp, since, member, box)
    _arrange(box, found, size, small)
    return small[0] * small[1] * small[2] if found > 0 else 0


def _place(size: Array, small: Array, node: Array, count: int, gain: Array, inflow: Array, arc: Array, state: Array,
           member: Array, box: Array, terminal: Array, residual: Array) -> None:  # fmt: skip
    """Terminals [N'] and residual planes [2 K, N'] of the small grid; ``member`` becomes the place there."""
    dirs = residual.shape[0]
    for v in range(terminal.shape[0]):
        terminal[v] = 0
    for d in range(dirs):
        for v in range(terminal.shape[0]):
            residual[d, v] = 0
    for i in range(count):
        if state[i] != _PLACED:
            continue
        p, b = np.int64(node[i]), np.int64(member[i])
        x = p % size[2] + box[b, 8]
        y = p // size[2] % size[1] + box[b, 7]
        z = p // (size[2] * size[1]) + box[b, 6]
        v = (z * small[1] + y) * small[2] + x
        member[i] = v
        most = inflow[i] + dirs + 1  # more than may leave the node
        terminal[v] = max(-most, min(most, gain[i]))
        for d in range(dirs):
            residual[d, v] = arc[i * dirs + d]


# ---- its outcome ------------------------------------------------------------------------------------------


@inlined
def _chosen(p: int, zero: Array, one: Array, slot: Array, state: Array, label: Array) -> Any:
    """The label of a node after the move."""
    i = np.int64(slot[p]) - 1
    if i < 0:
        return np.int64(label[p])
    return np.int64(one[p] if state[i] == _CHANGES else zero[p])


def _take(unary: Array, scale: float, forbidden: float, weight: Array, table: Array, step: Array, zero: Array,
          one: Array, node: Array, slot: Array, count: int, state: Array, stack: Array, member: Array, cut: Array,
          cost: Array, paid: Array, label: Array, stamp: Array, clock: int) -> int:  # fmt: skip
    """Takes what was chosen if it lowers the energy; the change of the energy, 0 if it was not taken."""
    n, pairs = slot.shape[0], step.shape[0]
    for i in range(count):
        if state[i] == _PLACED:
            state[i] = _CHANGES if cut[member[i]] else _KEEPS
    change, moved = 0, 0
    for i in range(count):
        p = np.int64(node[i])
        old, new = np.int64(label[p]), _chosen(p, zero, one, slot, state, label)
        if old == new:
            continue
        stack[moved] = p
        moved += 1
        change += _cost(unary, new, p, scale, forbidden) - _cost(unary, old, p, scale, forbidden)
        for k in range(pairs):
            w = weight[k, p]
            if w != 0:
                q = p + step[k]
                after = _chosen(q, zero, one, slot, state, label)
                change += _whole(w * table[new, after]) - _whole(w * table[old, label[q]])
            q = p - step[k]
            if 0 <= q < n and weight[k, q] != 0 and _chosen(q, zero, one, slot, state, label) == label[q]:
                w = weight[k, q]  # a neighbour that changes counts the edge itself
                change += _whole(w * table[label[q], new]) - _whole(w * table[label[q], old])
    if change < 0:
        for t in range(moved):
            p = np.int64(stack[t])
            label[p] = _chosen(p, zero, one, slot, state, label)
            cost[p] = unary[label[p], p]
            stamp[p] = clock
        for t in range(moved):
            p = np.int64(stack[t])
            for k in range(pairs):
                if weight[k, p] != 0:
                    paid[k, p] = weight[k, p] * table[label[p], label[p + step[k]]]
                q = p - step[k]
                if 0 <= q < n and weight[k, q] != 0:
                    paid[k, q] = weight[k, q] * table[label[q], label[p]]
    for i in range(count):
        slot[node[i]] = 0
    return change if change < 0 else 0


GRAPH = (_whole, _cost, _edge, _edges, _keep, _components, _arrange, _graph)
TAKE = (_whole, _cost, _chosen, _take)
