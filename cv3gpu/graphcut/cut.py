"""Minimum cuts of pixel grids: energies of two labels, solved to proven optimality."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from .. import _array, _check
from .._array import array_op

__all__ = ["GraphCut", "graph_cut"]

OP = "graph_cut"
INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
FLOATS = ("float32", "float64")
NAMES = ("source_capacity", "sink_capacity", "neighbor_capacity")
INT32 = 2**31 - 1
MOST = 2**62  # all capacities of an image together
BITS = 60  # of an integer sum of the capacities of all edges of an image, where they were floats
LARGEST = 2.0**960  # of floats: their sums over an image stay finite
MOST_PAIRS = 32  # of opposite directions: masks of both have 64 bits


class GraphCut(NamedTuple):
    """Labels of a minimum cut, and the maximum flow, which is the cut's capacity."""

    labels: Any
    flow: Any


@array_op(*NAMES)
def graph_cut(
    source_capacity: Any,
    sink_capacity: Any,
    neighbor_capacity: Any,
    *,
    offsets: Sequence[Sequence[int]],
    minimal: bool = True,
) -> GraphCut:
    """Cut a grid of pixels or voxels in two at the least cost: a minimum cut between source and sink.

    Of all labellings x, one that minimises::

        E(x) = sum over p of (sink_capacity[p] if x[p] else source_capacity[p])
             + sum over k, p of neighbor_capacity[k, p] [x[p] = 1 and x[p + offsets[k]] = 0]

    which is the capacity of the cut between the pixels with the source, x = 1, and those with the sink, x = 0. Its
    value equals the maximum flow from source to sink. The solution is exact.

    Parameters
    ----------
    source_capacity, sink_capacity : array, [..., H, W] or [..., D, H, W], integers or float32/float64
        Cost of label 0 and of label 1, not negative. ``inf`` among floats makes a pixel a seed, that has to be 1
        (``source_capacity``) or 0 (``sink_capacity``).
    neighbor_capacity : array, [..., K, H, W] or [..., K, D, H, W], integers or float32/float64
        Capacity of the directed edge from a pixel to the one ``offsets[k]`` away, not negative and finite. An
        undirected edge is given in both directions. Edges that leave the grid are not looked at.
    offsets : sequence of K pairs (dy, dx) or triples (dz, dy, dx), int
        Steps of any length. They decide whether the grid has two or three dimensions. A step may come more than once:
        capacities add up; opposite ones, or single ones, make up to 32 pairs.
    minimal : bool
        Where several cuts are minimum, the one with the fewest 1s; else the one with the most. Both are unique.

    Returns
    -------
    labels : array, of the shape of ``source_capacity``, int64
        1 on the source's side, 0 on the sink's.
    flow : array, [...], int64 (integers) or float64 (floats)
        The maximum flow of each image, E of its labels.

    Raises
    ------
    TypeError
        If an argument is of another library, device or dtype, or if integers and floats are mixed.
    ValueError
        If shapes do not fit; if a capacity is negative, NaN, above 2**960 or (unless that of a seed) infinite, where
        beside seeds only a pixel with both above 2**960 is refused; if a pixel is a seed of both kinds; if the integer
        capacities of an image add up to more than 2**62; if an offset is zero or there are more than 32 pairs of them.

    Notes
    -----
    Integers are exact: flow and labels. Where the greatest capacities to the two neighbours of a pair add up to at most
    2**31 - 1, for every pair, the solver works in int32, else in int64, which takes longer; those of source and sink
    may be larger.

    Floats become integers in units of a power of two, chosen for each image: u = 2**-e, the largest e with a sum of
    all neighbour capacities below 2**(60 - e), so u < 2**-59 of that sum. Neighbour capacities are rounded to the
    nearest multiple of u; the difference of the two capacities of a pixel away from zero, and there it is cut to what
    the edges of the pixel can carry and u more. So the labels are a minimum cut of capacities that are off by less
    than u each, and the flow is off by less than (K + 1) N u for N pixels, besides the rounding of a float64 sum.
    Capacities that are multiples of u, such as small integers, are exact.

    On the CPU, Boykov and Kolmogorov's augmenting paths with implicit edges; images of a batch are solved in threads.
    On a GPU, push-relabel with global relabelling. Flow (of integers) and labels are the same on both, and from run
    to run. No gradient. An empty image has a flow of 0.

    References
    ----------
    Y. Boykov and V. Kolmogorov, "An experimental comparison of min-cut/max-flow algorithms for energy minimization in
    vision", IEEE Transactions on Pattern Analysis and Machine Intelligence 26(9), 2004. Y. Boykov and M.-P. Jolly,
    "Interactive graph cuts for optimal boundary and region segmentation of objects in N-D images", ICCV 2001. A. V.
    Goldberg and R. E. Tarjan, "A new approach to the maximum-flow problem", Journal of the ACM 35(4), 1988.

    Examples
    --------
    Noise in a row of five pixels; a change of label costs 3:

    >>> import numpy as np
    >>> from cv3gpu import graph_cut
    >>> source = np.array([[9, 2, 9, 1, 0]])
    >>> sink = np.array([[0, 4, 1, 7, 9]])
    >>> edges = np.full((2, 1, 5), 3)
    >>> labels, flow = graph_cut(source, sink, edges, offsets=[(0, 1), (0, -1)])
    >>> labels, int(flow)
    (array([[1, 1, 1, 0, 0]]), 9)
    """
    minimal = _check.flag(OP, "minimal", minimal)
    dims, steps = checked_offsets(OP, offsets)
    lead, shape = _sizes(source_capacity, sink_capacity, neighbor_capacity, dims, len(steps))
    batch = math.prod(lead)
    floats = _array.dtype_name(source_capacity) in FLOATS
    on_gpu = _array.on_gpu(source_capacity)
    plain = _plain if on_gpu else _array.as_numpy
    arrays = [plain(x) for x in (source_capacity, sink_capacity, neighbor_capacity)]
    source, sink = (x.reshape((batch, *shape)) for x in arrays[:2])
    neighbor = arrays[2].reshape((batch, len(steps), *shape))
    edges = edges_of(steps, shape)
    if batch * math.prod(shape) == 0:
        labels = _array.zeros(source, (batch, *shape), "uint8")
        flow = _array.zeros(source, (batch,), "float64" if floats else "int64")
    else:
        labels, flow = (_of_floats if floats else _of_integers)(source, sink, neighbor, edges, minimal, on_gpu)
    labels = _array.astype(labels, "int64")
    if not on_gpu:
        labels, flow = (_array.from_numpy(x, source_capacity) for x in (labels, flow))
    return GraphCut(labels.reshape((*lead, *shape)), flow.reshape(lead))


def _plain(x: Any) -> Any:
    """The array without gradient history, and of a dtype that its library computes with."""
    if _array.family(x) != "torch":
        return x
    return _array.astype(x.detach(), "int64") if _array.dtype_name(x) in INTEGERS[-3:] else x.detach()


# ---- checks ---------------------------------------------------------------------------------------------


def _is_list(x: Any) -> bool:
    return x.ndim > 0 if isinstance(x, np.ndarray) else isinstance(x, Sequence) and not isinstance(x, str | bytes)


def checked_offsets(op: str, offsets: Any) -> tuple[int, list[tuple[int, ...]]]:
    """Number of dimensions and the steps."""
    wanted = "be a sequence of pairs (dy, dx) or of triples (dz, dy, dx) of integers"
    if not _is_list(offsets):
        _check.fail(op, "offsets", wanted, _check.kind(offsets), error=TypeError)
    if not len(offsets):
        _check.fail(op, "offsets", "hold at least one step", "none")
    steps = []
    for k, offset in enumerate(offsets):
        name = f"offsets[{k}]"
        if not _is_list(offset):
            _check.fail(op, name, "be a pair (dy, dx) or a triple (dz, dy, dx)", repr(offset), error=TypeError)
        if len(offset) not in (2, 3) or len(offset) != len(offsets[0]):
            _check.fail(op, name, "be a pair (dy, dx) or a triple (dz, dy, dx), all alike", tuple(offset))
        step = tuple(_check.integer(op, name, o, -(2**31) + 1) for o in offset)
        if not any(step):
            _check.fail(op, name, "lead to another pixel", step)
        steps.append(step)
    pairs = len({max(step, tuple(-o for o in step)) for step in steps})
    if pairs > MOST_PAIRS:
        _check.fail(op, "offsets", f"make at most {MOST_PAIRS} pairs of opposite steps", pairs)
    return len(steps[0]), steps


def _sizes(source: Any, sink: Any, neighbor: Any, dims: int, count: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Leading dimensions and the grid's."""
    kinds = [_array.dtype_name(x) for x in (source, sink, neighbor)]
    for name, x in zip(NAMES, (source, sink, neighbor), strict=True):
        _check.dtype(OP, name, x, (*INTEGERS, *FLOATS))
    if len({kind in FLOATS for kind in kinds}) > 1:
        said = ", ".join(f"{name} is {kind}" for name, kind in zip(NAMES, kinds, strict=True))
        raise TypeError(f"{OP}: the capacities must be all integers or all floats, got {said}")
    layout = "[..., H, W]" if dims == 2 else "[..., D, H, W]"
    if source.ndim < dims:
        _check.fail(OP, NAMES[0], f"have shape {layout}", tuple(source.shape))
    whole = tuple(int(n) for n in source.shape)
    lead, shape = whole[:-dims], whole[-dims:]
    _check.shape(OP, NAMES[1], sink, whole, "one for each of source_capacity")
    _check.shape(OP, NAMES[2], neighbor, (*lead, count, *shape), "one plane for each of offsets")
    return lead, shape


# ---- edges ----------------------------------------------------------------------------------------------


class Edges(NamedTuple):
    """The directions of the grid's edges, opposite ones paired: what `neighbor` planes add to which residual plane."""

    offsets: tuple[tuple[int, ...], ...]  # [H]
    parts: tuple[tuple[int, int, tuple[slice, ...]], ...]  # plane of neighbor, residual plane, where the edges begin


def edges_of(steps: Sequence[tuple[int, ...]], shape: tuple[int, ...]) -> Edges:
    """Pairs of opposite directions; steps that leave the grid from everywhere are left out."""
    found: dict[tuple[int, ...], int] = {}
    used = [(k, s) for k, s in enumerate(steps) if all(abs(o) < n for o, n in zip(s, shape, strict=True))]
    for _, s in used:
        if tuple(-o for o in s) not in found:
            found.setdefault(s, len(found))
    parts = []
    for k, s in used:
        plane = found[s] if s in found else len(found) + found[tuple(-o for o in s)]
        begin = tuple(slice(max(0, -o), n - max(0, o)) for o, n in zip(s, shape, strict=True))
        parts.append((k, plane, begin))
    return Edges(tuple(found), tuple(parts))


def _planes(neighbor: Any, edges: Edges, dtype: str) -> Any:
    """Capacities [B, 2 H, *S]: plane h those of p -> p + offsets[h], plane h + H of p -> p - offsets[h]."""
    batch, _, *shape = neighbor.shape
    planes = _array.zeros(neighbor, (batch, 2 * len(edges.offsets), *shape), dtype)
    for k, plane, begin in edges.parts:
        planes[(slice(None), plane, *begin)] += _array.astype(neighbor[(slice(None), k, *begin)], dtype)
    return planes


def _limited(terminal: Any, planes: Any, edges: Edges) -> Any:
    """Terminals cut to one more than what the edges of a node can carry: neither the flow nor the cuts change."""
    half = len(edges.offsets)
    out = planes.sum(1)
    into = _array.zeros(planes, out.shape, "int64")
    for h, offset in enumerate(edges.offsets):
        lower = tuple(slice(max(0, -o), n - max(0, o)) for o, n in zip(offset, out.shape[1:], strict=True))
        upper = tuple(slice(max(0, o), n - max(0, -o)) for o, n in zip(offset, out.shape[1:], strict=True))
        into[(slice(None), *upper)] += planes[(slice(None), h, *lower)]
        into[(slice(None), *lower)] += planes[(slice(None), h + half, *upper)]
    library = _array.module(terminal)
    return library.maximum(library.minimum(terminal, out + 1), -into - 1)


def _solve(terminal: Any, planes: Any, edges: Edges, minimal: bool, on_gpu: bool) -> tuple[Any, Any]:
    """Labels [B, *S] and flow [B]; without any edge each pixel is its own cut."""
    if not edges.offsets:
        labels = _array.astype(terminal > 0 if minimal else terminal >= 0, "uint8")
        return labels, _array.zeros(terminal, (len(terminal),), "int64")
    if on_gpu:
        from . import _gpu

        return _gpu.solve(terminal, planes, edges.offsets, minimal)
    from . import _cpu

    return _cpu.solve(terminal, planes, edges.offsets, minimal)


def _parts(source: Any, sink: Any, neighbor: Any, edges: Edges) -> list[tuple[str, Any]]:
    """What is looked at of the three arrays, by name."""
    inside = [(NAMES[2], neighbor[(slice(None), k, *begin)]) for k, _, begin in edges.parts]
    return [(NAMES[0], source), (NAMES[1], sink), *inside]


def _extremes(parts: list[tuple[str, Any]], dtype: str) -> tuple[list[Any], list[Any]]:
    """The least and the greatest of each part, in one transfer from the device."""
    library = _array.module(parts[0][1])
    found = library.stack([_array.astype(x, dtype) for _, part in parts for x in (part.min(), part.max())])
    numbers = _array.to_host(found).tolist()
    return numbers[::2], numbers[1::2]


# ---- integers -------------------------------------------------------------------------------------------


def _of_integers(source: Any, sink: Any, neighbor: Any, edges: Edges, minimal: bool, on_gpu: bool) -> tuple[Any, Any]:
    parts = _parts(source, sink, neighbor, edges)
    most = _integer_range(parts)
    narrow = max(most[:2]) <= INT32
    source, sink = (_array.astype(x, "int32" if narrow else "int64") for x in (source, sink))
    both = _array.module(source).minimum(source, sink)
    cancelled = both.reshape((len(both), -1)).sum(1)
    terminal = source - sink
    pairs = [0] * len(edges.offsets)
    for (_, plane, _), m in zip(edges.parts, most[2:], strict=True):
        pairs[plane % len(pairs)] += m
    planes = _planes(neighbor, edges, "int32" if max(pairs, default=0) <= INT32 else "int64")
    if not narrow and _array.dtype_name(planes) == "int32" and pairs:
        terminal = _limited(terminal, planes, edges)
        narrow = int(abs(terminal).max()) <= INT32
    wide = "int64" if not narrow or _array.dtype_name(planes) == "int64" else "int32"
    labels, flow = _solve(_array.astype(terminal, wide), _array.astype(planes, wide), edges, minimal, on_gpu)
    return labels, flow + cancelled


def _integer_range(parts: list[tuple[str, Any]]) -> list[int]:
    """The greatest of each part, after a check that none is negative and that sums can't overflow.

    A uint64 beyond int64 shows as a negative number here.
    """
    least, most = _extremes(parts, "int64")
    for (name, x), low in zip(parts, least, strict=True):
        if low < 0 and _array.dtype_name(x) != "uint64":
            _check.fail(OP, name, "not be negative", low)
    if min(least + most) < 0 or sum(m * math.prod(x.shape[1:]) for m, (_, x) in zip(most, parts, strict=True)) > MOST:
        _refuse_sums(parts)
    return most


def _refuse_sums(parts: list[tuple[str, Any]]) -> None:
    """Raises an error where the capacities of an image are too large together."""
    total: Any = 0
    for _, x in parts:
        values = _array.to_host(x).reshape(len(x), -1).astype(np.uint64)
        high, low = (values >> 31).sum(1), (values & INT32).sum(1)
        total = total + high.astype(object) * 2**31 + low.astype(object)
    if max(total) > MOST:
        sums = "have a sum of at most 2**62 over each image"
        _check.fail(OP, "the capacities", sums, max(total), "scale them down")


# ---- floats ---------------------------------------------------------------------------------------------


def _of_floats(source: Any, sink: Any, neighbor: Any, edges: Edges, minimal: bool, on_gpu: bool) -> tuple[Any, Any]:
    """Edges in whole multiples of a power of two, chosen for each image; terminals in the same unit, cut to fit."""
    source, sink = (_array.astype(x, "float64") for x in (source, sink))
    _check_floats(_parts(source, sink, neighbor, edges))
    library = _array.module(source)
    cancelled = library.minimum(source, sink)
    if not math.isfinite(float(cancelled.max())):
        _check.fail(OP, "source_capacity and sink_capacity", "not both be inf at a pixel", "inf at one")
    if float(cancelled.max()) > LARGEST:  # hidden from the check above by a seed elsewhere
        wanted = "not both be above 2**960 at a pixel"
        _check.fail(OP, "source_capacity and sink_capacity", wanted, float(cancelled.max()))
    batch = len(source)
    alone = (batch,) + (1,) * (source.ndim - 1)
    planes = _planes(neighbor, edges, "float64")
    total = _array.to_host(planes.reshape((batch, -1)).sum(1))
    exponent = np.where(total > 0, BITS - np.frexp(total)[1], 0)  # total 2^exponent < 2^BITS
    # in two steps, as the power alone may overflow
    first, second = (_array.from_host(np.ldexp(1.0, e), source) for e in (exponent // 2, exponent - exponent // 2))
    planes *= first.reshape((*alone, 1))
    planes *= second.reshape((*alone, 1))
    planes = _array.astype(planes.round(), "int64")
    terminal = source - sink
    with np.errstate(over="ignore", under="ignore"):
        size = abs(terminal) * first.reshape(alone) * second.reshape(alone)
    terminal = _array.astype(library.sign(terminal) * library.ceil(library.clip(size, 1.0, 2.0 ** (BITS + 1))), "int64")
    if edges.offsets:
        terminal = _limited(terminal, planes, edges)
    labels, flow = _solve(terminal, planes, edges, minimal, on_gpu)
    flow = _array.astype(flow, "float64") / first / second
    return labels, flow + cancelled.reshape((batch, -1)).sum(1)


def _check_floats(parts: list[tuple[str, Any]]) -> None:
    for (name, _), low, high in zip(parts, *_extremes(parts, "float64"), strict=True):
        if not low >= 0:  # NaN, too: a minimum that met one is one
            _check.fail(OP, name, "not be negative or NaN", low)
        if high > LARGEST and not (name != NAMES[2] and high == math.inf):
            allowed = "be at most 2**960" + ("" if name == NAMES[2] else ", or inf")
            _check.fail(OP, name, allowed, high)
