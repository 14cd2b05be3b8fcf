"""Recursive two-way cuts on the CPU: parts of a graph, their second eigenvectors and thresholds, which goes first."""

from __future__ import annotations

import heapq
import math
from typing import Any, NamedTuple

import numpy as np

from .._njit import compiled
from ..affinity import _cpu
from ..affinity._cpu import Stencil
from ..affinity.matrix import Given
from ..eigen._operator import GridOperator, Operator, SparseOperator
from ..eigen._problem import CUT, Problem, signs
from . import _ncut_loops as _loops
from ._rounding import in_order

__all__ = ["Best", "Graph", "Pieces", "Plan", "Rule", "Second", "Split", "Tree", "grow"]

Array = np.ndarray[Any, Any]

SMALL, FILLED = 5000, 0.25  # vertices, and share of its rectangle: a part of a grid with less is taken as a matrix
APART = 1.25  # eigenvalue of pixels outside of a part: the second one is at most n / (n - 1), as all sum to n at most
BINS = 32  # of the histogram of an eigenvector


class Best(NamedTuple):
    """A vector's best threshold: vertices that are not above it, its value and its normalised cut; 0 where none is."""

    below: int
    threshold: float
    ncut: float


class Split(NamedTuple):
    """One two-way cut of a recursion.

    The root is node 0; the k-th cut makes the nodes 2k + 1 (where the eigenvector is not above the threshold) and
    2k + 2. Where a graph falls apart there is no eigenvector: the eigenvalue is 0, the threshold nan.
    """

    node: int
    children: tuple[int, int]
    sizes: tuple[int, int]
    ncut: float
    threshold: float
    eigenvalue: float
    residual: float
    n_iter: int
    converged: bool


class Rule(NamedTuple):
    """When cutting ends."""

    n_segments: int | None
    max_ncut: float
    min_size: int
    max_stability: float | None
    max_depth: int | None


class Tree(NamedTuple):
    """Labels [N] by the order of the segments' first vertices, the node of each segment, and the cuts."""

    labels: Array
    leaves: tuple[int, ...]
    splits: tuple[Split, ...]
    mixed: bool  # whether a segment holds parts between which there are only weights below rounding


# ---- parts ------------------------------------------------------------------------------------------------


class _Masked(GridOperator):
    """Of the pixels of a rectangle that are inside; those outside are alone, with an eigenvalue that none wants."""

    def __init__(self, stencil: Stencil, self_weight: float, inside: Array) -> None:
        super().__init__(stencil, self_weight, True)
        self.inside, outside = inside, ~inside
        self.degree[outside] = 1.0  # the mass is the same array
        self.diagonal[outside] = APART
        self.most = max(self.most, APART)

    def components(self, share: float) -> Array:
        label = super().components(share)
        label[~self.inside] = label.max() + 1
        return np.unique(label, return_inverse=True)[1]


class Second(NamedTuple):
    """A second eigenvector [n], its eigenvalue and residual, and how it was found."""

    vector: Array
    eigenvalue: float
    residual: float
    n_iter: int
    converged: bool


class Part:
    """Some vertices of a graph with the edges between them."""

    def __init__(self, vertices: Array, operator: Operator, places: Array | None) -> None:
        self.vertices, self.operator = vertices, operator
        self.places = places  # of the vertices in the operator's numbering; None where they are all
        self.degree: Array = operator.degree if places is None else operator.degree[places]

    def components(self) -> tuple[list[Array], bool]:
        """The vertices of each connected component, the largest first, and whether these share no weight at all."""
        label = self._own(self.operator.components(CUT))
        if not (label != label[0]).any():
            return [self.vertices], True
        _, label = np.unique(label, return_inverse=True)
        size = np.bincount(label)
        grouped = np.split(self.vertices[np.argsort(label, kind="stable")], np.cumsum(size)[:-1])
        whole = self._own(self.operator.components(0.0))
        return [grouped[k] for k in np.argsort(-size, kind="stable")], len(np.unique(whole)) == len(size)

    def _own(self, values: Array) -> Array:
        return values if self.places is None else values[self.places]

    def second(self, tol: float, max_iter: int, seed: int) -> Second:
        """Of a connected part; the largest entry is positive."""
        operator = self.operator
        constant = np.zeros((operator.size, 1))
        constant[slice(None) if self.places is None else self.places] = 1 / math.sqrt(self.degree.sum())
        problem = Problem(operator, constant, 1, tol)
        found = problem.solve(max_iter, seed)
        done = problem.done(found.values, found.residual)
        vector = self._own(found.vectors)
        vector = (vector * signs(vector))[:, 0]
        return Second(vector, float(found.values[0]), float(found.residual[0]), found.n_iter, done)

    def best(self, vector: Array, least: int) -> tuple[Best, Array]:
        """The best threshold of a vector [n], and the order of the vertices by it."""
        order = np.argsort(vector, kind="stable")
        rank = np.full(self.operator.size, -1, np.int64)
        rank[order if self.places is None else self.places[order]] = np.arange(len(order))
        high, low = self._differences(rank)
        ncut = np.empty(1)
        below = compiled(*_loops.SWEEP)(order, vector, high, low, self.degree, least, ncut)
        return Best(below, float(vector[order[below - 1]]) if below else math.nan, float(ncut[0])), order

    def _differences(self, rank: Array) -> tuple[Array, Array]:
        """Of the cut at each vertex [n], in two numbers."""
        high, low = np.empty(len(rank)), np.empty(len(rank))
        operator = self.operator
        if isinstance(operator, GridOperator):
            s = operator.stencil
            compiled(*_loops.GRID_DIFFERENCES)(
                s.flat, s.plane, s.dy, s.dx, s.height, s.width, rank, high, low
            )  # fmt: skip
        else:
            assert isinstance(operator, SparseOperator)
            w = operator.matrix  # D - W: what is beside the diagonal is -W
            compiled(*_loops.ROWS_DIFFERENCES)(w.indptr, w.indices, w.data, rank, high, low)
            high, low = -high, -low
        return self._own(high), self._own(low)


class Graph:
    """An affinity on the host, out of which parts are taken."""

    def __init__(self, what: Given) -> None:
        self.size = what.size
        self._own = 0.0
        self._stencil: Stencil | None = None
        if what.pixels is not None:
            pixels = what.pixels.host()
            self._stencil, self._own = pixels.stencils()[0], pixels.self_weight
        else:
            self._matrix = what.matrix
        self._place = np.full(self.size, -1, np.int64)

    def part(self, vertices: Array) -> Part:
        """The part of some vertices, ascending."""
        stencil = self._stencil
        if stencil is None:
            whole = len(vertices) == self.size
            return Part(vertices, SparseOperator(self._matrix if whole else self._rows(vertices), True), None)
        if len(vertices) == self.size:
            return Part(vertices, GridOperator(stencil, self._own, True), None)
        y, x = np.divmod(vertices, stencil.width)
        top, left = int(y[0]), int(x.min())
        height, width = int(y[-1]) - top + 1, int(x.max()) - left + 1
        if len(vertices) < max(SMALL, FILLED * height * width):
            return Part(vertices, SparseOperator(self._rows(vertices), True), None)
        inside = np.zeros((stencil.height, stencil.width), bool)
        inside.ravel()[vertices] = True
        box = _cpu.empty(height, width, stencil.dy, stencil.dx, stencil.flat.dtype)
        compiled(*_loops.CROP)(
            stencil.flat, stencil.plane, stencil.dy, stencil.dx, inside, top, left, box.flat, box.plane, height, width
        )
        rectangle = inside[top : top + height, left : left + width].ravel()
        return Part(vertices, _Masked(box, self._own, rectangle), np.flatnonzero(rectangle))

    def _rows(self, vertices: Array) -> Any:
        """The matrix of a part, by rows."""
        from scipy import sparse

        n = len(vertices)
        self._place[vertices] = np.arange(n)
        s = self._stencil
        most = n * (2 * len(s.dy) + 1) if s is not None else int(np.diff(self._matrix.indptr)[vertices].sum())
        start, index, data = np.empty(n + 1, np.int64), np.empty(most, np.int64), np.empty(most)
        if s is not None:
            count = compiled(*_loops.GRID_ROWS)(
                s.flat, s.plane, s.dy, s.dx, s.height, s.width, self._own, vertices, self._place, start, index, data
            )
        else:
            w = self._matrix
            count = compiled(*_loops.SOME_ROWS)(
                w.indptr, w.indices, w.data, vertices, self._place, start, index, data
            )  # fmt: skip
        self._place[vertices] = -1
        return sparse.csr_array((data[:count], index[:count], start), (n, n))


# ---- one cut ----------------------------------------------------------------------------------------------


class Pieces(NamedTuple):
    """The vertices of a node: some of a list of connected components, the largest first, or one piece of any kind."""

    every: list[Array]
    before: Array  # how many vertices the components before each one have
    first: int
    last: int

    @classmethod
    def of(cls, pieces: list[Array]) -> Pieces:
        """All of a list."""
        return cls(pieces, np.cumsum([0, *map(len, pieces)]), 0, len(pieces))

    @property
    def size(self) -> int:
        """How many vertices there are."""
        return int(self.before[self.last] - self.before[self.first])

    @property
    def here(self) -> list[Array]:
        """The pieces."""
        return self.every[self.first : self.last]

    def apart(self, least: int) -> tuple[Pieces, Pieces] | None:
        """Two sides, no smaller than the least size: as few pieces in the first one as are enough."""
        middle = int(np.searchsorted(self.before, self.before[self.first] + least))
        if middle >= self.last or self.before[self.last] - self.before[middle] < least:
            return None
        return self._replace(last=middle), self._replace(first=middle)


class Plan(NamedTuple):
    """The best cut of a node, not made yet."""

    ncut: float
    sides: tuple[Pieces, Pieces]
    threshold: float = math.nan
    solved: Second | None = None


def stability(vector: Array) -> float:
    """The emptiest bin of the histogram over the fullest one: near 0 where a vector takes few values."""
    count = np.histogram(vector, BINS)[0]
    return float(count.min() / count.max())


class _Grower:
    """The state of a recursion."""

    def __init__(self, graph: Graph, rule: Rule, tol: float, max_iter: int, seed: int) -> None:
        self.graph, self.rule = graph, rule
        self._solver = tol, max_iter, seed
        self.loose = False

    def plan(self, pieces: Pieces, depth: int) -> Plan | None:
        """The best cut of a node, None where there is none that the rule allows."""
        rule = self.rule
        if pieces.size < 2 * rule.min_size or (rule.max_depth is not None and depth >= rule.max_depth):
            return None
        here = pieces.here if pieces.last - pieces.first == 1 else None
        if here is None:
            if sides := pieces.apart(rule.min_size):
                return Plan(0.0, sides)
            here = [np.sort(np.concatenate(pieces.here))]
        part = self.graph.part(here[0])
        components, exact = part.components()
        self.loose |= not exact
        if sides := Pieces.of(components).apart(rule.min_size):
            return Plan(0.0, sides)
        return self._by_eigenvector(part, components)

    def _by_eigenvector(self, part: Part, components: list[Array]) -> Plan | None:
        """By the second eigenvector of the largest component; it is 0 on others, too small to be cut off."""
        if len(components[0]) < 2:
            return None
        core = part if len(components) == 1 else self.graph.part(components[0])
        solved = core.second(*self._solver)
        if self.rule.max_stability is not None and stability(solved.vector) > self.rule.max_stability:
            return None
        vector = solved.vector
        if core is not part:
            vector = np.zeros(len(part.vertices))
            vector[np.searchsorted(part.vertices, components[0])] = solved.vector
        best, order = part.best(vector, self.rule.min_size)
        if not best.below:
            return None
        sides = (Pieces.of([np.sort(part.vertices[side])]) for side in (order[: best.below], order[best.below :]))
        return Plan(best.ncut, (next(sides), next(sides)), best.threshold, solved)


def grow(graph: Graph, rule: Rule, tol: float, max_iter: int, seed: int, root: Plan | None = None) -> Tree:
    """Cuts the node of the least normalised cut, again and again, until the rule says no. ``root`` is the first cut."""
    grower = _Grower(graph, rule, tol, max_iter, seed)
    nodes = {0: Pieces.of([np.arange(graph.size)])}
    depth = {0: 0}
    plans: dict[int, Plan] = {}
    waiting: list[tuple[float, int]] = []
    splits: list[Split] = []
    new = [0]
    while rule.n_segments is None or len(nodes) < rule.n_segments:
        for node in new:
            plan = root if node == 0 and root is not None else grower.plan(nodes[node], depth[node])
            if plan is not None and plan.ncut <= rule.max_ncut:
                plans[node] = plan
                heapq.heappush(waiting, (plan.ncut, node))
        if not waiting:
            break
        _, node = heapq.heappop(waiting)
        plan = plans.pop(node)
        new = [2 * len(splits) + 1, 2 * len(splits) + 2]
        del nodes[node]
        nodes.update(zip(new, plan.sides, strict=True))
        depth.update(dict.fromkeys(new, depth[node] + 1))
        splits.append(_split(node, new, plan))
    leaves = sorted(nodes, key=lambda node: min(int(piece[0]) for piece in nodes[node].here))
    labels = np.empty(graph.size, np.int64)
    for label, node in enumerate(leaves):
        for piece in nodes[node].here:
            labels[piece] = label
    mixed = any(node.last - node.first > 1 for node in nodes.values()) or any(p.solved is None for p in plans.values())
    return Tree(labels, tuple(leaves), tuple(splits), mixed and grower.loose)


def _split(node: int, new: list[int], plan: Plan) -> Split:
    sizes, solved = tuple(side.size for side in plan.sides), plan.solved
    given = (0.0, 0.0, 0, True) if solved is None else solved[1:]
    eigenvalue, residual, n_iter, converged = given
    return Split(node, (new[0], new[1]), (sizes[0], sizes[1]), plan.ncut, plan.threshold, eigenvalue, residual, n_iter,
                 converged)  # fmt: skip


# ---- labels -----------------------------------------------------------------------------------------------


def merged(what: Given, labels: Array, least: int) -> Array:
    """Joins segments of fewer vertices, the smallest first, to those that they share the most weight with."""
    segment = in_order(labels)
    size = np.bincount(segment)
    shared = _shared(what, segment, len(size))
    np.fill_diagonal(shared, -1.0)
    into = np.arange(len(size))
    for _ in range(len(size) - 1):
        small = int(np.argmin(np.where(size > 0, size, len(segment) + 1)))
        if size[small] >= least:
            break
        to = int(np.argmax(shared[small]))
        into[into == small] = to
        size[to], size[small] = size[to] + size[small], 0
        shared[to] += shared[small]
        shared[:, to] += shared[:, small]
        shared[:, small] = shared[small] = shared[to, to] = -1.0
    return into[segment]


def _shared(what: Given, segment: Array, count: int) -> Array:
    """The weight between each two segments, [count, count]."""
    total = np.zeros(count * count)
    if what.pixels is None:
        w = what.matrix.tocoo()
        i, j = w.coords
        total += np.bincount(segment[i] * count + segment[j], w.data, count * count)
        return total.reshape(count, count)
    pixels = what.pixels.host()
    for one, other, weights in pixels.neighbours(segment.reshape(pixels.grid)):
        total += np.bincount((one * count + other).ravel(), weights.ravel(), count * count)
    half = total.reshape(count, count)
    return half + half.T
