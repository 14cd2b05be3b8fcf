"""Trajectories as flow: which links between detections hold, at the least cost and with one way in and out of each.

Both problems here are one: a link leaves the out-side of its earlier node and enters the in-side of its later one, so
that a set of links with at most one out of and one into each node is a matching of out-sides with in-sides. A node that
is not used is a link from its out-side to its own in-side. The matching of the greatest gain is found exactly, in
fractions of a second for a hundred thousand links.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .. import _array, _check, _njit
from .._array import array_op
from ._flow_loops import MATCH

__all__ = ["Flow", "Rounding", "min_cost_flow", "round_trajectories"]

Array = np.ndarray[Any, Any]

INTEGERS = ("int64", "int32")
FLOATS = ("float32", "float64")


class Rounding(NamedTuple):
    """Result of :func:`round_trajectories`."""

    active: Any  # [E] bool
    objective: float
    violations_before: int


class Flow(NamedTuple):
    """Result of :func:`min_cost_flow`."""

    active: Any  # [E] bool
    used: Any  # [N] bool
    objective: float


def _check_edges(op: str, edges: Any, n_nodes: int) -> Array:
    """The links on the host, [2, E], int64."""
    _check.dtype(op, "edges", edges, INTEGERS)
    _check.shape(op, "edges", edges, [2, "E"])
    host: Array = _array.to_host(edges).astype(np.int64)
    if host.size and (host.min() < 0 or host.max() >= n_nodes):
        wrong = host[(host < 0) | (host >= n_nodes)][0]
        _check.fail(op, "edges", f"hold nodes from 0 to {n_nodes - 1}", int(wrong))
    if (itself := np.flatnonzero(host[0] == host[1])).size:
        _check.fail(op, "edges", "link different nodes", f"node {int(host[0, itself[0]])} with itself")
    return host


def _numbers(op: str, argument: str, values: Any, count: int, name: str) -> Array:
    """A vector of finite numbers on the host, float64."""
    _check.dtype(op, argument, values, FLOATS)
    _check.shape(op, argument, values, [count], f"one number for each {name}")
    host: Array = _array.to_host(values).astype(np.float64)
    if not np.isfinite(host).all():
        _check.fail(op, argument, "be finite", host[~np.isfinite(host)][0])
    return host


def _best_matching(rows: Array, cols: Array, gain: Array, size: int) -> Array:
    """Which pairs (row, column) make the matching of the greatest total gain, as a mask of the pairs given.

    Pairs without a gain never help, and are never taken.
    """
    chosen = np.zeros(len(gain), bool)
    order = np.flatnonzero(gain > 0)
    order = order[np.argsort(rows[order], kind="stable")]
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows[order], minlength=size))])
    column, cost = cols[order], -gain[order]
    mate, other = np.empty(size, np.int64), np.empty(size, np.int64)
    u, v, distance = np.empty(size), np.empty(size), np.full(size, np.inf)
    before, seen, done = np.empty(size, np.int64), np.empty(2 * size, np.int64), np.zeros(size, np.int8)
    key, item = np.empty(len(order) + 1), np.empty(len(order) + 1, np.int64)
    _njit.compiled(*MATCH)(indptr, column, cost, u, v, other, mate, distance, before, key, item, seen, done)
    taken = np.flatnonzero(mate[rows[order]] == column)
    # Of pairs that stand twice the best counts, the first of equals.
    best = taken[np.lexsort((cost[taken], rows[order[taken]]))]
    chosen[order[best[np.unique(rows[order[best]], return_index=True)[1]]]] = True
    return chosen


@array_op("edges", "scores")
def round_trajectories(edges: Any, scores: Any, n_nodes: int, *, method: str = "exact") -> Rounding:
    r"""Turns scores of links into trajectories: at most one link out of and one into each node.

    .. math:: \min_y \sum_e y_e (1 - 2 s_e), \qquad y_e \in \{0, 1\}

    Parameters
    ----------
    edges : array, [2, E], int64/int32
        Nodes of each link, the earlier one first.
    scores : array, [E], float32/float64
        Probability that a link holds.
    n_nodes : int
    method : {"exact", "greedy"}
        The optimum, or links from the best score down, each where nothing stands against it.

    Returns
    -------
    active : array, [E], bool
        Of the library and device of ``edges``.
    objective : float
    violations_before : int
        How many nodes have more than one link of score >= 0.5 going out, plus how many have more than one coming in.

    Raises
    ------
    TypeError, ValueError
        If a link leads to itself or to no node, a score is not from 0 to 1, or an argument is not as said above.

    Notes
    -----
    Solved on the CPU; what lives on a GPU is copied. A link of score 0.5 or less is never active. Links in both
    directions between two nodes are two links. Where optima are equal, one of them, the same on every run.

    References
    ----------
    G. Brasó, L. Leal-Taixé, "Learning a neural solver for multiple object tracking", CVPR 2020, appendix B.

    Examples
    --------
    >>> import numpy as np
    >>> from cv3gpu import mot
    >>> edges = np.array([[0, 0, 1], [1, 2, 2]])
    >>> active, objective, violations = mot.round_trajectories(edges, np.array([0.9, 0.8, 0.7]), 3)
    >>> active, round(objective, 6), violations
    (array([ True, False,  True]), -1.2, 2)
    """
    op = "round_trajectories"
    n = _check.integer(op, "n_nodes", n_nodes, 0, 2**53)
    links = _check_edges(op, edges, n)
    score = _numbers(op, "scores", scores, links.shape[1], "link")
    if score.size and (score.min() < 0 or score.max() > 1):
        _check.fail(op, "scores", "be from 0 to 1", score[(score < 0) | (score > 1)][0])
    _check.choice(op, "method", method, ("exact", "greedy"))
    likely = links[:, score >= 0.5]
    before = sum(int((np.bincount(side, minlength=n) > 1).sum()) for side in likely)
    gain = 2 * score - 1
    solve = _best_matching if method == "exact" else _greedy
    active = solve(links[0], links[1], gain, n)
    objective = -float(gain[active].sum()) + 0.0
    return Rounding(_array.from_host(active, edges), objective, before)


def _greedy(rows: Array, cols: Array, gain: Array, size: int) -> Array:
    """Pairs from the greatest gain down, each whose row and column are free; of equals the first."""
    chosen = np.zeros(len(gain), bool)
    order = np.argsort(-gain, kind="stable")
    order = order[gain[order] > 0]
    row_taken, col_taken = np.zeros(size, bool), np.zeros(size, bool)
    while len(order):
        # The first pair of a row that is also the first of its column stands whatever comes: all of them at once.
        row, col = rows[order], cols[order]
        first_row, first_col = np.zeros(len(order), bool), np.zeros(len(order), bool)
        first_row[np.unique(row, return_index=True)[1]] = True
        first_col[np.unique(col, return_index=True)[1]] = True
        now = first_row & first_col
        chosen[order[now]] = True
        row_taken[row[now]], col_taken[col[now]] = True, True
        order = order[~(row_taken[row] | col_taken[col])]
    return chosen


@array_op("edges", "link_cost", "detection_cost")
def min_cost_flow(edges: Any, link_cost: Any, detection_cost: Any, *, entry_cost: Any, exit_cost: Any) -> Flow:
    """Trajectories as the minimum-cost flow through detections: any number of them, disjoint, each with entry and exit.

    Minimises the costs of used detections and active links, plus an entry and an exit cost for every trajectory.

    Parameters
    ----------
    edges : array, [2, E], int64/int32
        Detections of each link, the earlier one first: links must not close a circle.
    link_cost : array, [E], float32/float64
        -log of a link's probability, say.
    detection_cost : array, [N], float32/float64
        log((1 - p) / p) of a detection of probability p: negative for one that is wanted.
    entry_cost, exit_cost : float, or array, [N], float32/float64
        Of a trajectory that begins or ends at a detection.

    Returns
    -------
    active : array, [E], bool
    used : array, [N], bool
        Of the library and device of ``edges``. Used detections without a link are trajectories of one.
    objective : float
        0 where nothing pays.

    Raises
    ------
    TypeError, ValueError
        If links close a circle, or an argument is not as said above.

    Notes
    -----
    Exact, by one sparse assignment instead of a flow for each number of trajectories. Solved on the CPU; what lives on
    a GPU is copied. Where optima are equal, one of them, the same on every run.

    References
    ----------
    L. Zhang, Y. Li, R. Nevatia, "Global data association for multi-object tracking using network flows", CVPR 2008.

    Examples
    --------
    >>> import numpy as np
    >>> from cv3gpu import mot
    >>> edges = np.array([[0, 0, 1], [1, 2, 2]])
    >>> mot.min_cost_flow(edges, np.array([0.1, 0.3, 0.1]), np.array([-2.0, -2.0, -2.0]), entry_cost=1.0, exit_cost=1.0)
    Flow(active=array([ True, False,  True]), used=array([ True,  True,  True]), objective=-3.8)
    """
    op = "min_cost_flow"
    _check.ndim(op, "detection_cost", detection_cost, 1, "[N]")
    n = int(detection_cost.shape[0])
    detection = _numbers(op, "detection_cost", detection_cost, n, "detection")
    links = _check_edges(op, edges, n)
    link = _numbers(op, "link_cost", link_cost, links.shape[1], "link")
    ends = []
    for name, cost in (("entry_cost", entry_cost), ("exit_cost", exit_cost)):
        if _array.family(cost) is None:
            ends.append(np.full(n, _check.real(op, name, cost)))
        else:
            ends.append(_numbers(op, name, cost, n, "detection"))
    _check_order(op, links, n)
    entry, leave = ends
    # All used, and a trajectory each: a link saves an exit and an entry, a link to itself the detection as a whole.
    alone = detection + entry + leave
    itself = np.arange(n)
    rows, cols = (np.concatenate([side, itself]) for side in links)
    gain = np.concatenate([leave[links[0]] + entry[links[1]] - link, alone])
    chosen = _best_matching(rows, cols, gain, n)
    active, used = chosen[: len(link)], ~chosen[len(link) :]
    begins, finishes = used.copy(), used.copy()
    begins[links[1, active]], finishes[links[0, active]] = False, False
    objective = detection[used].sum() + link[active].sum() + entry[begins].sum() + leave[finishes].sum()
    return Flow(_array.from_host(active, edges), _array.from_host(used, edges), float(objective) + 0.0)


def _check_order(op: str, links: Array, n: int) -> None:
    """That links close no circle: a flow could go round in one for ever."""
    if not links.size or (links[0] < links[1]).all() or (links[0] > links[1]).all():
        return
    from scipy import sparse
    from scipy.sparse.csgraph import connected_components

    graph = sparse.csr_array((np.ones(links.shape[1], np.int8), (links[0], links[1])), (n, n))
    count, label = connected_components(graph, directed=True, connection="strong")
    if count < n:
        node = int(np.flatnonzero(np.bincount(label)[label] > 1)[0])
        _check.fail(op, "edges", "go forward in time", f"a circle through node {node}")
