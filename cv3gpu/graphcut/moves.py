"""Labellings of pixels by graph cuts: alpha-expansion and alpha-beta swap.

A move offers each pixel two labels and takes the better of all combinations, by a minimum cut of the pixel grid
(`_cpu.solve`, `_gpu.solve`). A descent repeats moves until none lowers the energy. Energies are whole numbers
throughout, so that whether a move lowers them is no matter of rounding, and CPU and GPU take the same moves.
"""

from __future__ import annotations

import copy
import itertools
import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from .. import _array, _check
from .._array import array_op
from .._kernel import MAX_GRID_YZ, blocks, kernel
from .._njit import compiled
from .._threads import each
from ..errors import ConvergenceWarning
from . import _moves_loops
from .cut import FLOATS, INTEGERS, LARGEST, Edges, checked_offsets, edges_of

__all__ = ["Labeling", "alpha_beta_swap", "alpha_expansion"]

Array = np.ndarray[Any, Any]

_THREADS = 256  # of a block in graphcut_moves.cu
_EXACT = 2.0**50  # a pixel's edges together: their terms are exact in float64
_WHOLE = 2.0**53  # a pixel's terms together, of integers: they are exact in float64
_TOTAL = 2.0**60  # an image's energy: its changes fit in int64
_NARROW = 2.0**30 - 2.0**10  # a pixel's edges together where capacities are int32
_NODES = 2**31  # of an image on a CPU, where places are int32
_NONE = -1  # as a label of a move
_NO_CUT = np.zeros(1, np.uint8)


class Labeling(NamedTuple):
    """Labels, their energy, and in how many cycles over all moves the descent came to its end."""

    labels: Any
    energy: Any
    n_iter: int


@array_op("unary", "pairwise", "edge_weights", "labels")
def alpha_expansion(
    unary: Any,
    pairwise: Any,
    edge_weights: Any,
    *,
    offsets: Sequence[Sequence[int]],
    max_iter: int = 10,
    labels: Any = None,
    fuse: bool = True,
    truncate: bool = False,
) -> Labeling:
    """Label pixels so that ``E = sum_p unary[l_p, p] + sum_pq w_pq pairwise[l_p, l_q]`` is low, by expansion moves.

    An expansion of a label lets any set of pixels change to it, and takes the best of all such sets. Labels take
    turns, from the first to the last, until none of them changes anything: the energy is then at most twice the least
    there is for Potts' model (in general, twice the ratio of the largest to the smallest non-zero ``pairwise``).

    Parameters
    ----------
    unary : array, [..., L, H, W] or [..., L, D, H, W], float32/float64 or any integer
        Cost of each of L labels at each pixel. +inf forbids a label.
    pairwise : array, [L, L], float32/float64 or any integer
        Cost of a pair of labels at neighbours, a metric: symmetric, zero on the diagonal and nowhere negative, and
        ``pairwise[a, b] <= pairwise[a, c] + pairwise[c, b]``. Potts' model and truncated linear differences are such.
    edge_weights : array, [..., K, H, W] or [..., K, D, H, W], float32/float64 or any integer
        Weights, at least 0: element ``[k, y, x]`` belongs to the edge between (y, x) and (y, x) + ``offsets[k]``. Each
        edge is given once, or its parts are added. What belongs to edges that leave the image is not looked at.
    offsets : sequence of K pairs (dy, dx) or triples (dz, dy, dx)
        Steps to the neighbours.
    max_iter : int
        Cycles at most.
    labels : array, [..., H, W], any integer, optional
        Where to start. By default each pixel's cheapest label, the lowest among equals.
    fuse : bool
        Make the first cycle a second time with the labels in reverse order, and fuse the two results: a cut chooses,
        pixel by pixel, between them. The descent goes on from there, and mostly ends lower, by some 0.1 %. Without
        effect for two labels, where expansions find the minimum.
    truncate : bool
        Take a ``pairwise`` that is symmetric and no more: pairs of labels that break the inequality are made dearer
        within the move they would break (Rother et al. 2005), so that no move raises the energy, but moves are not
        optimal.

    Returns
    -------
    labels : array, [..., H, W], int64
        The labels.
    energy : array, [...], int64 where all arguments are integers, else float64
        E of the labels, from the given numbers.
    n_iter : int
        Cycles, the last perhaps in part, that the longest descent took until no move could change anything.

    Raises
    ------
    TypeError
        An array of the wrong library or dtype, or an option of the wrong type.
    ValueError
        Shapes that do not fit, a ``pairwise`` that is no metric (the error names the entries), a negative weight, NaN,
        a pixel without an allowed label, floats whose energies may pass 2^960 in an image, or integers too large for
        exact arithmetic: a pixel's edges together beyond 2^50, all terms of a pixel beyond 2^53, or an image's energy
        beyond 2^60.

    Warns
    -----
    ConvergenceWarning
        If the last of ``max_iter`` cycles still lowered the energy.

    Notes
    -----
    Integers are exact. Floats are rounded to whole multiples of a power of two u, at most 2^-28 of
    ``2 sum_k max(edge_weights[k]) max(pairwise)`` where unaries leave that much room, which are rounded to 50 bits, and
    an image's energy, to 60. A term is off by u / 2 at most, so a move may miss the best one by 2 u times the number
    of pixels and edges; ``energy`` is that of the numbers as given. All images of a batch have the same u, by the
    largest numbers of any: images of very different magnitudes belong in calls of their own.

    A move is taken only if it lowers the energy. Of the best ones it is the one with the fewest changes (of swaps, to
    the pair's first label), so results do not depend on the solver, on threads or on the device.

    On a CPU, images and the two first cycles run in threads. A GPU takes one move of all of them at a time, and the
    host reads 8 bytes a problem after each. No gradient.

    References
    ----------
    Y. Boykov, O. Veksler, R. Zabih, Fast approximate energy minimization via graph cuts, 2001. V. Kolmogorov, R. Zabih,
    What energy functions can be minimized via graph cuts?, 2004, section 4.1. C. Rother, S. Kumar, V. Kolmogorov,
    A. Blake, Digital tapestry, 2005 (truncation). V. Lempitsky, C. Rother, S. Roth, A. Blake, Fusion moves for Markov
    random field optimization, 2010.

    Examples
    --------
    >>> import numpy as np, cv3gpu
    >>> unary = np.array([[[0, 4, 0, 9, 9]], [[5, 3, 5, 9, 0]], [[9, 9, 9, 0, 3]]])  # 3 labels, a row of 5 pixels
    >>> potts = 1 - np.eye(3, dtype=int)
    >>> cv3gpu.alpha_expansion(unary, potts, np.full((1, 1, 5), 2), offsets=[(0, 1)])
    Labeling(labels=array([[0, 0, 0, 2, 1]]), energy=array(8), n_iter=1)
    """
    options = _Options("alpha_expansion", max_iter, fuse, truncate)
    return _minimised(options, _expansions, unary, pairwise, edge_weights, offsets, labels)


@array_op("unary", "pairwise", "edge_weights", "labels")
def alpha_beta_swap(
    unary: Any,
    pairwise: Any,
    edge_weights: Any,
    *,
    offsets: Sequence[Sequence[int]],
    max_iter: int = 10,
    labels: Any = None,
    fuse: bool = False,
    truncate: bool = False,
) -> Labeling:
    """Label pixels so that ``E = sum_p unary[l_p, p] + sum_pq w_pq pairwise[l_p, l_q]`` is low, by swap moves.

    A swap of two labels lets any pixels that have one of them change to the other. Pairs of labels take turns, from
    (0, 1) to (L - 2, L - 1), until a whole cycle changes nothing. Where ``pairwise`` is a metric,
    :func:`alpha_expansion` needs L moves a cycle instead of L (L - 1) / 2, and mostly finds lower energies.

    Parameters
    ----------
    unary, edge_weights, offsets, max_iter, labels
        As in :func:`alpha_expansion`.
    pairwise : array, [L, L], float32/float64 or any integer
        Cost of a pair of labels at neighbours, a semi-metric: symmetric, zero on the diagonal and nowhere negative.
    fuse : bool
        Make the first cycle a second time with the pairs in reverse order, and fuse the two results.
    truncate : bool
        Take a ``pairwise`` that is symmetric and no more, see :func:`alpha_expansion`.

    Returns
    -------
    labels, energy, n_iter
        As of :func:`alpha_expansion`.

    Raises
    ------
    TypeError, ValueError
        As :func:`alpha_expansion`, without the triangle inequality.

    Warns
    -----
    ConvergenceWarning
        If the last of ``max_iter`` cycles still lowered the energy.

    Notes
    -----
    As of :func:`alpha_expansion`.

    References
    ----------
    Y. Boykov, O. Veksler, R. Zabih, Fast approximate energy minimization via graph cuts, 2001, section 3.

    Examples
    --------
    Squared differences are no metric, but a semi-metric:

    >>> import numpy as np, cv3gpu
    >>> unary = np.array([[[0, 4, 9, 9, 9]], [[5, 3, 0, 4, 9]], [[9, 9, 4, 0, 0]]])
    >>> squares = np.subtract.outer(np.arange(3), np.arange(3)) ** 2
    >>> cv3gpu.alpha_beta_swap(unary, squares, np.full((1, 1, 5), 2), offsets=[(0, 1)])
    Labeling(labels=array([[0, 1, 1, 2, 2]]), energy=array(7), n_iter=1)
    """
    options = _Options("alpha_beta_swap", max_iter, fuse, truncate)
    return _minimised(options, _swaps, unary, pairwise, edge_weights, offsets, labels)


Move = tuple[int, int]  # labels: of an expansion and _NONE, or of a swap


def _expansions(count: int) -> list[Move]:
    return [(a, _NONE) for a in range(count)]


def _swaps(count: int) -> list[Move]:
    return list(itertools.combinations(range(count), 2))


class _Options(NamedTuple):
    op: str
    max_iter: Any
    fuse: Any
    truncate: Any


def _minimised(options: _Options, moves_of: Callable[[int], list[Move]], unary: Any, pairwise: Any, edge_weights: Any,
               offsets: Any, labels: Any) -> Labeling:  # fmt: skip
    op = options.op
    max_iter = _check.integer(op, "max_iter", options.max_iter, 1)
    fuse = _check.flag(op, "fuse", options.fuse)
    truncate = _check.flag(op, "truncate", options.truncate)
    _, steps = checked_offsets(op, offsets)
    size = _sizes(op, unary, pairwise, edge_weights, labels, steps)
    table = _table(op, pairwise, None if truncate else moves_of is _expansions)
    integers = all(_array.dtype_name(x) in INTEGERS for x in (unary, pairwise, edge_weights))
    if size.batch * size.nodes == 0:
        none = _array.zeros(unary, (*size.lead, *size.shape), "int64")
        return Labeling(none, _array.zeros(unary, size.lead, "int64" if integers else "float64"), 0)
    arrays: tuple[Any, ...] = unary, edge_weights, labels
    if not _array.on_gpu(unary):
        if size.nodes >= _NODES:
            _check.fail(op, "unary", "have fewer than 2^31 pixels an image on a CPU", size.nodes)
        arrays = tuple(x if x is None else _array.as_numpy(x) for x in arrays)
    elif _array.family(unary) == "torch":
        arrays = tuple(x if x is None else x.detach() for x in arrays)
    metric = moves_of is _expansions and not truncate
    problem = _problem(op, size, steps, table, metric, integers, *arrays[:2])
    start = None if labels is None else _start(op, size, arrays[2])
    label, n_iter, settled = _descended(problem, moves_of(size.labels), start, max_iter, fuse)
    if not settled:
        warnings.warn(f"{op}: the last of {max_iter} cycles still lowered the energy; raise max_iter",
                      ConvergenceWarning, stacklevel=5)  # fmt: skip
    found = _array.astype(label, "int64").reshape((*size.lead, *size.shape)), problem.energy(label).reshape(size.lead)
    if not _array.on_gpu(unary):
        found = tuple(_array.from_numpy(np.asarray(x), unary) for x in found)
    return Labeling(*found, n_iter)


# ---- checks ---------------------------------------------------------------------------------------------


class _Size(NamedTuple):
    """The sizes of the images."""

    lead: tuple[int, ...]
    labels: int
    shape: tuple[int, ...]

    @property
    def batch(self) -> int:
        return math.prod(self.lead)

    @property
    def nodes(self) -> int:
        return math.prod(self.shape)

    @property
    def volume(self) -> tuple[int, int, int]:
        """Depth, height, width."""
        return (1, *self.shape)[-3:]  # type: ignore[return-value]


def _sizes(op: str, unary: Any, pairwise: Any, edge_weights: Any, labels: Any, steps: Sequence[Any]) -> _Size:
    given = {"unary": unary, "pairwise": pairwise, "edge_weights": edge_weights}
    for name, x in given.items():
        _check.dtype(op, name, x, (*FLOATS, *INTEGERS))
    dims = len(steps[0])
    names = "H, W" if dims == 2 else "D, H, W"
    if unary.ndim < dims + 1:
        _check.fail(op, "unary", f"have shape [..., L, {names}]", tuple(unary.shape))
    *lead, count = (int(n) for n in unary.shape[:-dims])
    size = _Size(tuple(lead), count, tuple(int(n) for n in unary.shape[-dims:]))
    if count < 1:
        _check.fail(op, "unary", f"have a label at least (axis {-dims - 1})", tuple(unary.shape))
    _check.shape(op, "pairwise", pairwise, (count, count), "one entry for each pair of unary's labels")
    _check.shape(op, "edge_weights", edge_weights, (*lead, len(steps), *size.shape), "one plane for each of offsets")
    if labels is not None:
        _check.dtype(op, "labels", labels, INTEGERS)
        _check.shape(op, "labels", labels, (*lead, *size.shape), "one for each pixel of unary")
    return size


def _table(op: str, pairwise: Any, metric: bool | None) -> Array:
    """The pairwise costs in float64 on the host; a metric, a semi-metric (False), or symmetric (None)."""
    given = _array.to_host(pairwise)
    table = given.astype(np.float64)
    if not np.isfinite(table).all():
        _check.fail(op, "pairwise", "be finite", table[~np.isfinite(table)][0])
    entry = "pairwise[{}, {}] = {}".format

    def refuse(wrong: Array, rule: str, advice: str = "") -> None:
        if wrong.any():
            a, b = np.argwhere(wrong)[0].tolist()
            _check.fail(op, "pairwise", rule, f"{entry(a, b, given[a, b])}, {entry(b, a, given[b, a])}", advice)

    refuse(table != table.T, "be symmetric")
    if metric is None:
        return table
    refuse(table < 0, "not be negative", "truncate=True takes any symmetric costs")
    refuse(np.diag(np.diag(table) != 0), "be zero on the diagonal", "truncate=True takes any symmetric costs")
    if metric:
        slack = 0.0 if given.dtype.kind in "iu" else 8 * np.finfo(given.dtype).eps * table.max()
        for c in range(len(table)):
            around = table[:, c, None] + table[c]
            if (table > around + slack).any():
                a, b = np.argwhere(table > around + slack)[0].tolist()
                said = f"{entry(a, b, given[a, b])} > {entry(a, c, given[a, c])} + {entry(c, b, given[c, b])}"
                advice = "alpha_beta_swap needs no triangle inequality, truncate=True takes any symmetric costs"
                _check.fail(op, "pairwise", "be a metric", said, advice)
    return table


def _start(op: str, size: _Size, labels: Any) -> Any:
    """The given labels, int32 [B, N]."""
    low, high = (int(x) for x in (labels.min(), labels.max()))
    if low < 0 or high >= size.labels:
        _check.fail(op, "labels", f"be from 0 to {size.labels - 1}", low if low < 0 else high)
    return _array.contiguous(_array.astype(labels, "int32")).reshape((size.batch, size.nodes))


# ---- the problem ----------------------------------------------------------------------------------------


class _Problem(NamedTuple):
    """Images and their terms; a term is ``rint(unary * scale)`` or ``rint(weight * table)``."""

    size: _Size
    edges: Edges
    integers: bool  # all arguments were
    unary: Any  # [B, L, N], float32 or float64
    weight: Any  # [B, K, N], float64, times scale
    table: Array  # [L, L], float64, on the host
    metric: bool
    steps: Array  # [K], int64, on the host: how many nodes further each edge leads
    scale: float  # a power of two
    forbidden: float  # what +inf counts as
    wide: bool  # whether capacities need int64

    def image(self, b: int) -> _Problem:
        """The problem of one image."""
        size = self.size._replace(lead=())
        return self._replace(size=size, unary=self.unary[b : b + 1], weight=self.weight[b : b + 1])

    def energy(self, label: Any) -> Any:
        """The energy of labels [B, N] of the images."""
        each_node = _machine(label).node_energies(self, label)
        if self.integers:
            return _array.astype(each_node, "int64").sum(-1)
        return each_node.sum(-1) / self.scale


def _problem(op: str, size: _Size, steps: Sequence[tuple[int, ...]], table: Array, metric: bool, integers: bool,
             unary: Any, edge_weights: Any) -> _Problem:  # fmt: skip
    batch, nodes = size.batch, size.nodes
    edges = edges_of(steps, size.shape)
    half = len(edges.offsets)
    given = edge_weights.reshape((batch, len(steps), *size.shape))
    weight = _array.zeros(given, (batch, half, *size.shape), "float64")
    largest = 0.0
    for k, plane, begin in edges.parts:
        part = _array.astype(given[(slice(None), k, *begin)], "float64")
        low, high = (float(x) for x in (part.min(), part.max()))
        if not 0 <= low <= high < math.inf:
            _check.fail(op, "edge_weights", "be finite and not negative", high if low >= 0 else low)
        largest += high
        if plane >= half:  # the same edge, seen from its other end
            begin = tuple(slice(s.start + o, s.stop + o) for s, o in zip(begin, steps[k], strict=True))
        weight[(slice(None), plane % half, *begin)] += part
    unary = unary.reshape((batch, size.labels, nodes))
    unary, most, span, any_forbidden = _costs(op, unary)
    # at least what the edges of a node can bring it, and what they can carry
    reach = 2 * largest * float(abs(table).max()) * (2 if table.min() < 0 else 1)
    span += 2 * reach if any_forbidden else 0.0
    energy = nodes * (span + reach)
    if not integers and not energy <= LARGEST:
        _check.fail(op, "unary, pairwise and edge_weights", "have energies of at most 2^960 in an image",
                    f"up to {energy:.3g}", "scale them down")  # fmt: skip
    scale = 1.0 if integers else _scale(reach, span, nodes)
    if integers:
        for most_energy, bound, beyond in (
            (energy, _TOTAL, "2^60 in an image"),
            (reach, _EXACT, "2^50 at a pixel's edges together"),
            (span + reach, _WHOLE - 1, "2^53 at a pixel"),  # 2^53 may be a rounded sum
        ):
            if most_energy > bound:
                _check.fail(op, "unary, pairwise and edge_weights", f"have energies of less than {beyond}",
                            f"up to {most_energy:.3g}", "scale them down")  # fmt: skip
    weight *= scale
    return _Problem(
        size,
        edges,
        integers,
        unary,
        weight.reshape((batch, half, nodes)),
        table,
        metric,
        np.array([_ahead(offset, size.shape) for offset in edges.offsets], np.int64),
        scale,
        math.ceil((most + 2 * reach) * scale) + 1.0 if any_forbidden else math.inf,
        reach * scale > _NARROW,
    )


def _ahead(offset: Sequence[int], shape: Sequence[int]) -> int:
    """How many nodes further an edge leads."""
    return sum(o * math.prod(shape[d + 1 :]) for d, o in enumerate(offset))


def _costs(op: str, unary: Any) -> tuple[Any, float, float, bool]:
    """Unaries as float32 or float64, the greatest one and magnitude that are finite, and whether some are inf."""
    if _array.dtype_name(unary) in ("int8", "uint8", "int16", "uint16"):
        unary = _array.astype(unary, "float32")
    floats = _array.dtype_name(unary) in FLOATS
    if not floats:
        unary = _array.astype(unary, "float64")
    low, high = (float(x) for x in (unary.min(), unary.max()))
    if math.isnan(low) or math.isnan(high) or low == -math.inf:
        _check.fail(op, "unary", "hold no NaN and no -inf", "-inf" if low == -math.inf else "NaN")
    some = high == math.inf
    if some:
        forbidden = unary == math.inf
        if bool(forbidden.all(1).any()):
            _check.fail(op, "unary", "allow each pixel a label", "inf for all labels at a pixel")
        high = float(_array.module(unary).where(forbidden, low, unary).max())
    span = max(abs(low), abs(high))
    if not floats and span <= 2.0**24:
        unary = _array.astype(unary, "float32")
    return _array.contiguous(unary), high, span, some


def _scale(reach: float, span: float, nodes: int) -> float:
    """The power of two that brings energies of floats within their bounds."""
    bounds = [(_NARROW, reach), (_EXACT, span), (_TOTAL / nodes, span + reach)]
    ratio = min((most / x for most, x in bounds if x > 0), default=1.0)
    return math.ldexp(0.5, min(1020, math.frexp(ratio)[1]))


# ---- descents -------------------------------------------------------------------------------------------


class _Course:
    """How far a descent has come: it ends once no move can change anything, or after ``max_iter`` cycles."""

    def __init__(self, moves: Sequence[Move], max_iter: int, ended: bool = False) -> None:
        """``ended``: it starts where a descent by these moves has ended."""
        self.moves, self.most, self.ended = moves, max_iter * len(moves), ended
        self.count = self.quiet = 0  # moves made; those that have changed nothing since, and need not be made again
        self.change = 0  # of the energy

    @property
    def settled(self) -> bool:
        return self.quiet >= len(self.moves)

    @property
    def cycles(self) -> int:
        return -(-self.count // max(1, len(self.moves)))

    def next(self) -> Move:
        if self.settled or self.count == self.most:
            return _NONE, _NONE
        return self.moves[self.count % len(self.moves)]

    def tell(self, change: int) -> None:
        """The outcome of a move: one that has just been made is the best of its kind."""
        self.count += 1
        self.quiet = 1 if change < 0 else self.quiet + 1
        self.change += change

    def tell_fused(self, change: int) -> None:
        """The outcome of a fusion before the first move."""
        self.change += change
        if self.ended and not change:
            self.quiet = len(self.moves)


def _descend(machine: Any, courses: Sequence[_Course], proposal: Any = None) -> None:
    """Fuses with a proposal, if there is one; then one move of each problem at a time, until all have ended."""
    if proposal is not None:
        for course, change in zip(courses, machine.fuse(proposal), strict=True):
            course.tell_fused(change)
    while True:
        moves = [course.next() for course in courses]
        if all(move[0] == _NONE for move in moves):
            return
        changes = machine.move(moves)
        for course, move, change in zip(courses, moves, changes, strict=True):
            if move[0] != _NONE:
                course.tell(change)


def _descended(problem: _Problem, moves: list[Move], start: Any, max_iter: int, fuse: bool) -> tuple[Any, int, bool]:
    """Labels [B, N], cycles of the longest descent, and whether all came to their end."""
    if _array.on_gpu(problem.unary):
        return _descended_together(problem, moves, start, max_iter, fuse)

    def one(b: int) -> tuple[Any, int, bool]:
        own = None if start is None else start[b : b + 1]
        return _descended_together(problem.image(b), moves, own, max_iter, fuse)

    labels, cycles, settled = zip(*each(one, [(b,) for b in range(problem.size.batch)]), strict=True)
    return np.concatenate(labels), max(cycles), all(settled)


def _descended_together(
    problem: _Problem, moves: list[Move], start: Any, max_iter: int, fuse: bool
) -> tuple[Any, int, bool]:
    batch = problem.size.batch
    both = fuse and problem.size.labels > 2
    orders = [moves, moves[::-1]] if both else [moves]
    courses = [_Course(order, 1 if both else max_iter) for order in orders for _ in range(batch)]
    machine = _machine(problem.unary)(problem, len(courses), start)
    machine.run(courses)
    cycles = max(course.cycles for course in courses)
    if both:
        pairs = [
            (b, b + batch) if courses[b].change <= courses[b + batch].change else (b + batch, b) for b in range(batch)
        ]
        better, worse = ([pair[side] for pair in pairs] for side in range(2))
        courses = [_Course(moves, max_iter - 1, courses[b].settled) for b in better]
        proposal = machine.label[worse]
        machine = machine.only(better)
        machine.run(courses, proposal)
        cycles += max(course.cycles for course in courses)
    return machine.label, cycles, all(course.settled for course in courses)


class _CPU:
    """Problems on the CPU, each in a thread: problem p is of image p % B."""

    def __init__(self, problem: _Problem, count: int, start: Array | None) -> None:
        batch, nodes = problem.size.batch, problem.size.nodes
        if start is None:
            start, cost = np.empty((batch, nodes), np.int32), np.empty(nodes, problem.unary.dtype)
            for b in range(batch):
                compiled(_moves_loops._cheapest)(problem.unary[b], cost, start[b])
        self._movers = [_Mover(problem, p % batch, start[p % batch].copy()) for p in range(count)]

    @property
    def label(self) -> Array:
        """Labels [P, N]."""
        return np.stack([mover.label for mover in self._movers])

    def only(self, problems: Sequence[int]) -> _CPU:
        """Some of the problems, as they stand."""
        some = copy.copy(self)
        some._movers = [self._movers[p] for p in problems]
        return some

    def run(self, courses: Sequence[_Course], proposal: Array | None = None) -> None:
        """Descends in all problems."""

        def one(p: int) -> None:
            _descend(self._movers[p], courses[p : p + 1], None if proposal is None else proposal[p : p + 1])

        each(one, [(p,) for p in range(len(courses))])

    @staticmethod
    def node_energies(problem: _Problem, label: Array) -> Array:
        """The unary term of each node of labels [B, N], and the terms of the edges that begin there, times scale."""
        out, run = np.empty(label.shape), compiled(_moves_loops._node_energies)
        for b in range(len(label)):
            run(problem.unary[b], problem.scale, problem.weight[b], problem.table, problem.steps, label[b], out[b])
        return out


class _Mover:
    """Moves of one problem on the CPU, in the labels that it is given.

    A clock counts the moves that changed something. It says of each node when it changed last, and of each expansion
    when it was made last: where nothing has changed since, it can't change anything.
    """

    def __init__(self, problem: _Problem, image: int, label: Array) -> None:
        nodes, half = problem.size.nodes, len(problem.steps)
        self.label = label
        self._problem = problem
        self._unary, self._weight = problem.unary[image], problem.weight[image]
        self._size = np.array(problem.size.volume, np.int64)
        self._zero, self._one, self._node, self._stack, self._member = np.empty((5, nodes), np.int32)
        self._slot, self._stamp = np.zeros((2, nodes), np.int32)
        gain, inflow = np.empty((2, nodes), np.int64)
        self._flows = gain, inflow, np.empty(nodes * 2 * half, np.int64), np.empty(nodes, np.uint8)
        self._box, self._small = np.empty((nodes // 2 + 1, 9), np.int64), np.empty(3, np.int64)
        self._clock = 0
        self._made: dict[int, int] = {}  # expansions, and when
        self._cost, self._total = np.empty(nodes, problem.unary.dtype), np.empty(nodes)
        self._paid, self._capacity = np.empty((2, half, nodes))
        self._short, self._to_alpha = np.empty((2, nodes))
        compiled(_moves_loops._prepare)(self._unary, self._weight, problem.table, problem.steps, label, self._cost,
                                        self._total, self._paid)  # fmt: skip

    def move(self, moves: Sequence[Move]) -> list[int]:
        """An expansion or a swap; the change of the energy."""
        ((alpha, beta),) = moves
        if beta != _NONE:
            offer = self._zero, self._one
            count = compiled(_moves_loops._of_pair)(self.label, alpha, beta, *offer, self._node, self._slot)
            return [self._choose(*offer, count)]
        since = self._made.get(alpha, _NONE)
        if since == self._clock:
            return [0]
        self._one[:] = alpha
        change = self._choose(self.label, self._one, self._of_expansion(alpha), since)
        self._made[alpha] = self._clock
        return [change]

    def fuse(self, proposal: Array) -> list[int]:
        """Fuses the labels with others; the change of the energy."""
        return [self._choose(self.label, proposal[0], self._of_fusion(proposal[0]))]

    def _of_expansion(self, alpha: int) -> int:
        """Lists the candidates; how many."""
        problem = self._problem
        if not problem.metric:
            return self._of_fusion(self._one)
        return int(compiled(_moves_loops._of_expansion)(
            self._unary, problem.scale, self._weight, problem.steps, problem.table[alpha], self.label, self._cost,
            self._total, self._paid, alpha, self._to_alpha, self._capacity, self._short, self._node, self._slot,
            self._stack,
        ))  # fmt: skip

    def _of_fusion(self, one: Array) -> int:
        """Lists the candidates; how many."""
        problem = self._problem
        spread = float(problem.table.max() - problem.table.min())
        return int(compiled(_moves_loops._of_fusion)(
            self._unary, problem.scale, problem.steps, spread, self.label, one, self._cost, self._total, self._node,
            self._slot,
        ))  # fmt: skip

    def _choose(self, zero: Array, one: Array, count: int, since: int = _NONE) -> int:
        """Gives each candidate the better of two labels, if that lowers the energy; the change of the energy."""
        if not count:
            return 0
        problem = self._problem
        terms = self._unary, problem.scale, problem.forbidden, self._weight, problem.table, problem.steps
        size = compiled(*_moves_loops.GRAPH)(
            *terms, self._size, zero, one, self._node, self._slot, count, *self._flows, self._stack, self._stamp, since,
            self._member, self._box, self._small,
        )  # fmt: skip
        cut = self._cut(size, count) if size else _NO_CUT
        change = int(compiled(*_moves_loops.TAKE)(
            *terms, zero, one, self._node, self._slot, count, self._flows[-1], self._stack, self._member, cut,
            self._cost, self._paid, self.label, self._stamp, self._clock + 1,
        ))  # fmt: skip
        self._clock += change < 0
        return change

    def _cut(self, size: int, count: int) -> Array:
        from . import _cpu

        problem, kind = self._problem, np.int64 if self._problem.wide else np.int32
        terminal, residual = np.empty(size, kind), np.empty((2 * len(problem.steps), size), kind)
        compiled(_moves_loops._place)(self._size, self._small, self._node, count, *self._flows, self._member, self._box,
                                      terminal, residual)  # fmt: skip
        shape = self._small[3 - len(problem.size.shape) :].tolist()
        graph = terminal.reshape(1, *shape), residual.reshape(1, -1, *shape)
        return _cpu.solve(*graph, problem.edges.offsets, True)[0].reshape(-1)


class _GPU:
    """Problems on a GPU, all of them at a time: problem p is of image p % B."""

    def __init__(self, problem: _Problem, count: int, start: Any) -> None:
        unary = problem.unary
        self.problem = problem
        self.label = _array.empty(unary, (count, problem.size.nodes), "int32")
        if start is None:
            self._launch("moves_start", unary, self.label, problem.size.nodes, count, len(unary), problem.size.labels)
        else:
            self.label.reshape((-1, *start.shape))[...] = start
        self._constants = [_array.from_host(x, unary) for x in (problem.table, problem.steps)]

    def only(self, problems: Sequence[int]) -> _GPU:
        """Some of the problems, as they stand."""
        return _GPU(self.problem, len(problems), self.label[problems])

    def run(self, courses: Sequence[_Course], proposal: Any = None) -> None:
        """Descends in all problems."""
        _descend(self, courses, proposal)

    def move(self, moves: Sequence[Move]) -> list[int]:
        """A move of each problem; the changes of the energies."""
        return self._choose(None, *(np.array(side, np.int32) for side in zip(*moves, strict=True)))

    def fuse(self, proposal: Any) -> list[int]:
        """Fuses the labels with others; the changes of the energies."""
        none = np.full(len(proposal), _NONE, np.int32)
        return self._choose(_array.contiguous(proposal), none, none)

    def _choose(self, proposal: Any, first: Array, second: Array) -> list[int]:
        problem, size = self.problem, self.problem.size
        count, half = len(self.label), len(problem.steps)
        kind = "int64" if problem.wide else "int32"
        terminal = _array.empty(self.label, (count, *size.shape), kind)
        residual = _array.empty(self.label, (count, 2 * half, *size.shape), kind)
        change = _array.zeros(self.label, (count,), "int64")
        offer = (self.label, proposal, *(_array.from_host(x, self.label) for x in (first, second)))
        terms = problem.unary, problem.weight, *self._constants
        sizes = size.nodes, count, size.batch, size.labels, half, problem.scale, problem.forbidden
        self._launch("moves_build", *terms, *offer, terminal, residual, *sizes)
        cut = self._cut(terminal, residual)
        self._launch("moves_gain", *terms, *offer, cut, change, *sizes)
        self._launch("moves_take", *offer, cut, change, size.nodes, count)
        return [min(0, int(x)) for x in _array.to_host(change)]

    def _cut(self, terminal: Any, residual: Any) -> Any:
        if not self.problem.edges.offsets:
            return _array.astype(terminal > 0, "uint8")
        from . import _gpu

        return _gpu.solve(terminal, residual, self.problem.edges.offsets, True)[0]

    def _launch(self, name: str, *args: Any) -> None:
        """A kernel of graphcut_moves.cu with a thread for each node of each problem."""
        grid = blocks(self.problem.size.nodes, _THREADS), min(len(self.label), MAX_GRID_YZ)
        real, wide = _array.dtype_name(self.problem.unary), self.problem.wide
        kernel("graphcut_moves.cu", name, real=real, WIDE=wide)(grid, _THREADS, *args)

    @staticmethod
    def node_energies(problem: _Problem, label: Any) -> Any:
        """The unary term of each node of labels [B, N], and the terms of the edges that begin there, times scale."""
        machine = _GPU(problem, len(label), label)
        out = _array.empty(label, tuple(label.shape), "float64")
        size = problem.size
        machine._launch("moves_energy", problem.unary, problem.weight, *machine._constants, label, out, size.nodes,
                        len(label), size.batch, size.labels, len(problem.steps), problem.scale)  # fmt: skip
        return out


def _machine(like: Any) -> type[Any]:
    return _GPU if _array.on_gpu(like) else _CPU
