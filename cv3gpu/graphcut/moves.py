"""Labellings of pixels by graph cuts: alpha-expansion and alpha-beta swap.

A move offers each pixel two labels and takes the better of all combinations, by a minimum cut of the pixel grid
(`_cpu.solve`, `_gpu.solve`). A descent repeats moves until none lowers the energy. Energies are whole numbers
throughout, so that whether a move lowers them is no matter of rounding, and CPU and GPU take the same moves.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from .. import _array, _check
from .._array import array_op
from .._threads import each
from ..errors import ConvergenceWarning
from . import _moves_cpu, _moves_gpu
from ._descent import NONE, Course, Move, Problem, Size
from .cut import FLOATS, INTEGERS, LARGEST, checked_offsets, edges_of

__all__ = ["Labeling", "alpha_beta_swap", "alpha_expansion"]

Array = np.ndarray[Any, Any]

_EXACT = 2.0**50  # a pixel's edges together: their terms are exact in float64
_WHOLE = 2.0**53  # a pixel's terms together, of integers: they are exact in float64
_TOTAL = 2.0**60  # an image's energy: its changes fit in int64
_NARROW = 2.0**30 - 2.0**10  # a pixel's edges together where capacities are int32
_NODES = 2**31  # of an image on a CPU, where places are int32


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


def _expansions(count: int) -> list[Move]:
    return [(a, NONE) for a in range(count)]


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
    found = _array.astype(label, "int64").reshape((*size.lead, *size.shape)), _energy(problem, label).reshape(size.lead)
    if not _array.on_gpu(unary):
        found = tuple(_array.from_numpy(np.asarray(x), unary) for x in found)
    return Labeling(*found, n_iter)


# ---- checks ---------------------------------------------------------------------------------------------


def _sizes(op: str, unary: Any, pairwise: Any, edge_weights: Any, labels: Any, steps: Sequence[Any]) -> Size:
    given = {"unary": unary, "pairwise": pairwise, "edge_weights": edge_weights}
    for name, x in given.items():
        _check.dtype(op, name, x, (*FLOATS, *INTEGERS))
    dims = len(steps[0])
    names = "H, W" if dims == 2 else "D, H, W"
    if unary.ndim < dims + 1:
        _check.fail(op, "unary", f"have shape [..., L, {names}]", tuple(unary.shape))
    *lead, count = (int(n) for n in unary.shape[:-dims])
    size = Size(tuple(lead), count, tuple(int(n) for n in unary.shape[-dims:]))
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


def _start(op: str, size: Size, labels: Any) -> Any:
    """The given labels, int32 [B, N]."""
    low, high = (int(x) for x in (labels.min(), labels.max()))
    if low < 0 or high >= size.labels:
        _check.fail(op, "labels", f"be from 0 to {size.labels - 1}", low if low < 0 else high)
    return _array.contiguous(_array.astype(labels, "int32")).reshape((size.batch, size.nodes))


# ---- the problem ----------------------------------------------------------------------------------------


def _problem(op: str, size: Size, steps: Sequence[tuple[int, ...]], table: Array, metric: bool, integers: bool,
             unary: Any, edge_weights: Any) -> Problem:  # fmt: skip
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
    return Problem(
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


def _descended(problem: Problem, moves: list[Move], start: Any, max_iter: int, fuse: bool) -> tuple[Any, int, bool]:
    """Labels [B, N], cycles of the longest descent, and whether all came to their end."""
    if _array.on_gpu(problem.unary):
        return _descended_together(problem, moves, start, max_iter, fuse)

    def one(b: int) -> tuple[Any, int, bool]:
        own = None if start is None else start[b : b + 1]
        return _descended_together(problem.image(b), moves, own, max_iter, fuse)

    labels, cycles, settled = zip(*each(one, [(b,) for b in range(problem.size.batch)]), strict=True)
    return np.concatenate(labels), max(cycles), all(settled)


def _descended_together(
    problem: Problem, moves: list[Move], start: Any, max_iter: int, fuse: bool
) -> tuple[Any, int, bool]:
    batch = problem.size.batch
    both = fuse and problem.size.labels > 2
    orders = [moves, moves[::-1]] if both else [moves]
    courses = [Course(order, 1 if both else max_iter) for order in orders for _ in range(batch)]
    machine = _machine(problem.unary)(problem, len(courses), start)
    machine.run(courses)
    cycles = max(course.cycles for course in courses)
    if both:
        pairs = [
            (b, b + batch) if courses[b].change <= courses[b + batch].change else (b + batch, b) for b in range(batch)
        ]
        better, worse = ([pair[side] for pair in pairs] for side in range(2))
        courses = [Course(moves, max_iter - 1, courses[b].settled) for b in better]
        proposal = machine.label[worse]
        machine = machine.only(better)
        machine.run(courses, proposal)
        cycles += max(course.cycles for course in courses)
    return machine.label, cycles, all(course.settled for course in courses)


def _energy(problem: Problem, label: Any) -> Any:
    """The energy of labels [B, N] of the images, [B]."""
    each_node = _machine(label).node_energies(problem, label)
    if problem.integers:
        return _array.astype(each_node, "int64").sum(-1)
    return each_node.sum(-1) / problem.scale


def _machine(like: Any) -> type[Any]:
    return _moves_gpu.Machine if _array.on_gpu(like) else _moves_cpu.Machine
