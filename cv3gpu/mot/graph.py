"""Graphs for tracking: which detections, or pieces of tracks, may belong together, and what speaks for it.

Nodes are detections, or tracklets, which have a last box beside the first one. A link leads from a node to one that
begins after the first has ended. Ragged frames need no padding: nodes are sorted by time, so that the candidates of
each are a range.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from .. import _array, _check, _njit
from .._array import array_op
from .._kernel import blocks, kernel
from .._threads import cores, each, spans
from ..assignment import linear_sum_assignment
from ..boxes import box_iou
from . import _graph_loops
from .tracks import MAX_FRAME, NO_ID, Tracks, checked

__all__ = ["candidate_edges", "edge_features", "label_edges", "match_detections"]

Array = np.ndarray[Any, Any]

INTEGERS = ("int64", "int32")
FLOATS = ("float32", "float64")
FAR = {"float32": 3e38, "float64": 1e300}  # square distance

_THREADS, _NODES = 256, 32  # of a block in tracking_graph.cu
_KEPT = 64  # neighbours that a list there holds
_BLOCK = 64  # nodes whose distances by appearance the CPU takes at a time
_PAIRS = 1 << 20  # of boxes that are matched at a time


class _Nodes(NamedTuple):
    """What links are made of, as arrays of one library: where tracklets are detections, both ends are one array."""

    frame: Any  # [N], int64
    box: Any  # [N, 4]
    last_frame: Any
    last_box: Any
    velocity: Any  # [N, 2] or None
    last_velocity: Any
    appearance: Any  # [N, D] or None


def _nodes(op: str, frame: Any, box: Any, last_frame: Any, last_box: Any, velocity: Any, last_velocity: Any,
           appearance: Any) -> _Nodes:  # fmt: skip
    """The nodes, with dtypes and shapes checked; NumPy on the CPU."""
    _check.dtype(op, "frame", frame, INTEGERS)
    _check.ndim(op, "frame", frame, 1, "[N]")
    n = int(frame.shape[0])
    _check.dtype(op, "box", box, FLOATS)
    _check.shape(op, "box", box, [n, 4], "a box for each frame number")
    if (last_frame is None) != (last_box is None):
        missing, given = ("last_frame", "last_box") if last_frame is None else ("last_box", "last_frame")
        _check.fail(op, missing, f"come with {given}", None)
    if last_frame is not None:
        _check.dtype(op, "last_frame", last_frame, INTEGERS)
        _check.shape(op, "last_frame", last_frame, [n])
        _check.same_dtype(op, "last_box", last_box, "box", box)
        _check.shape(op, "last_box", last_box, [n, 4])
    if velocity is None and last_velocity is not None:
        _check.fail(op, "velocity", "come with last_velocity", None)
    for name, values in (("velocity", velocity), ("last_velocity", last_velocity)):
        if values is not None:
            _check.same_dtype(op, name, values, "box", box)
            _check.shape(op, name, values, [n, 2])
    if appearance is not None:
        _check.same_dtype(op, "appearance", appearance, "box", box)
        _check.shape(op, "appearance", appearance, [n, "D"])

    def ready(x: Any, dtype: str | None = None) -> Any:
        if x is None:
            return None
        values = x if _array.on_gpu(x) else _array.as_numpy(x)
        return _array.contiguous(values if dtype is None else _array.astype(values, dtype))

    frame, box, velocity = ready(frame, "int64"), ready(box), ready(velocity)
    last = (frame, box) if last_frame is None else (ready(last_frame, "int64"), ready(last_box))
    last_velocity = velocity if last_velocity is None else ready(last_velocity)
    return _Nodes(frame, box, *last, velocity, last_velocity, ready(appearance))


def _check_values(op: str, nodes: _Nodes) -> None:
    """Frames in range and in order, boxes with an area, all finite: a wait for the device where they are on one."""
    if not len(nodes.frame):
        return

    def first(wrong: Any, values: Any) -> Any:
        return _array.to_host(values[wrong][:1])[0]

    for name in ("frame", "last_frame"):
        values = getattr(nodes, name)
        wrong = (values < 0) | (values > MAX_FRAME)
        if bool(wrong.any()):
            _check.fail(op, name, f"be from 0 to {MAX_FRAME}", first(wrong, values))
    backwards = nodes.last_frame < nodes.frame
    if bool(backwards.any()):
        frames = int(first(backwards, nodes.last_frame)), int(first(backwards, nodes.frame))
        _check.fail(op, "last_frame", "not be before frame", f"{frames[0]} before {frames[1]}")
    for name in ("box", "last_box", "velocity", "last_velocity", "appearance"):
        values = getattr(nodes, name)
        if values is not None and not bool((finite := _array.module(values).isfinite(values)).all()):
            _check.fail(op, name, "be finite", first(~finite, values))
    for name in ("box", "last_box"):
        sides = getattr(nodes, name)[:, 2:]
        if bool((sides <= 0).any()):
            _check.fail(op, name, "have a positive width and height", first(sides <= 0, sides))


@array_op("frame", "box", "last_frame", "last_box", "velocity", "last_velocity", "appearance")
def candidate_edges(
    frame: Any,
    box: Any,
    *,
    max_gap: int,
    k: int,
    last_frame: Any = None,
    last_box: Any = None,
    velocity: Any = None,
    last_velocity: Any = None,
    appearance: Any = None,
    max_distance: float | None = None,
    reciprocal: bool = True,
) -> Any:
    r"""Links between nodes that may belong to one object: near in time, and among each other's k nearest.

    .. math:: s_{ij} = \frac{\| f_j - f_i - (v_i + v_j) (t_j - t_i) / 2 \|}{(h_i + h_j) / 2}

    with the feet f (the middle of a box's lower edge), height h, velocity v and frame t of node i when it ends and of
    node j when it begins: the distance of the two straight predictions half way. With ``appearance``,
    :math:`s_{ij} = \|a_i - a_j\|`.

    Parameters
    ----------
    frame : array, [N], int64/int32
        Frame of each detection, or the first one of each tracklet. In any order.
    box : array, [N, 4], float32/float64, pixels
        Left, top, width, height in that frame.
    max_gap : int, frames, at least 1
        A link joins a node that ends in frame t to those that begin in frames t + 1 to t + max_gap.
    k : int, at least 1
        Neighbours that each node has, before and after it taken together.
    last_frame, last_box : arrays, [N] and [N, 4], optional
        The same when tracklets end. Left out for detections.
    velocity, last_velocity : array, [N, 2], pixels per frame, optional
        Of the box's centre when a node begins and when it ends (left out: the same one); none if both are left out.
    appearance : array, [N, D], optional
    max_distance : float, optional
        Nodes that are farther from each other than this are not linked.
    reciprocal : bool
        Whether a link needs each end among the other's neighbours, or only one of them among the other's.

    Returns
    -------
    array, [2, E], int64
        Nodes of each link, the earlier one first; sorted by that one, then by the other; each link once.

    Raises
    ------
    TypeError, ValueError
        If a box has no area, a tracklet ends before it begins, a number is not finite, or an argument is not as said
        above.

    Notes
    -----
    Of neighbours at the same distance those before a node come first, and of those the ones nearest in time. Distances
    are taken in the dtype of ``box``; CPU and GPU may choose differently where two are as close as rounding. Memory
    grows with N k, and time with the pairs in reach: no N x N matrix is made or sorted. 27,960 detections with 71
    million pairs and k = 50 take less than a second of one core. The same links on every run. No gradient.

    References
    ----------
    G. Brasó, L. Leal-Taixé, "Learning a neural solver for multiple object tracking", CVPR 2020; O. Cetintas,
    G. Brasó, L. Leal-Taixé, "Unifying short and long-term tracking with graph hierarchies", CVPR 2023 (tracklets).

    Examples
    --------
    >>> import numpy as np
    >>> from cv3gpu import mot
    >>> frame = np.array([1, 1, 2, 2, 3])
    >>> box = np.array([[0, 0, 9, 9], [50, 0, 9, 9], [1, 0, 9, 9], [51, 0, 9, 9], [2, 0, 9, 9.0]])
    >>> mot.candidate_edges(frame, box, max_gap=2, k=2)
    array([[0, 0, 1, 2],
           [2, 4, 3, 4]])
    """
    op = "candidate_edges"
    nodes = _nodes(op, frame, box, last_frame, last_box, velocity, last_velocity, appearance)
    _check.integer(op, "max_gap", max_gap, 1)
    _check.integer(op, "k", k, 1)
    _check.flag(op, "reciprocal", reciprocal)
    reach = FAR[_array.dtype_name(box)]
    if max_distance is not None:
        _check.not_negative(op, "max_distance", max_distance)
        kind = np.dtype(_array.dtype_name(box)).type
        reach = min(reach, float(np.nextafter(kind(max_distance) ** 2, kind(np.inf))))  # a distance is less than that
    _check_values(op, nodes)
    n = len(nodes.frame)
    if n < 2:
        return _array.empty(frame, (2, 0), "int64")
    ready = _in_time(nodes, max_gap)
    if _array.on_gpu(box):
        return _linked(_nearest_gpu(ready, min(k, n - 1), reach), n, reciprocal)
    most = int((ready.spans[1] - ready.spans[0] + ready.spans[3] - ready.spans[2]).max())
    keys = (_nearest_cpu if appearance is None else _nearest_looks_cpu)(ready, min(k, most), reach)
    return _array.from_numpy(_linked(keys, n, reciprocal), box)


class _InTime(NamedTuple):
    """Nodes in the order of first frames, and once more from the last frame back; see kernels/tracking_graph.cu.

    From any node the first candidates are the nearest in time, and mostly in space: those after them seldom count.
    """

    node: Any  # [N], int64: which node stands where
    past_node: Any
    begin: Any  # [5, N]: feet x, y, height, velocity x, y
    end: Any
    past: Any
    begin_frame: Any  # [N]
    end_frame: Any
    past_frame: Any
    appearance: Any  # [N, D] or None
    past_appearance: Any
    spans: Any  # [4, N], int64


def _in_time(nodes: _Nodes, max_gap: int) -> _InTime:
    library = _array.module(nodes.box)
    node, past_node = _array.argsort(nodes.frame), _array.argsort(-nodes.last_frame)

    def states(box: Any, velocity: Any, order: Any) -> Any:
        some = box[order]
        moved = library.zeros_like(some[:, :2]) if velocity is None else velocity[order]
        feet = some[:, :1] + some[:, 2:3] / 2, some[:, 1:2] + some[:, 3:]
        return _array.contiguous(library.concatenate((*feet, some[:, 3:], moved), 1).T)

    begin = states(nodes.box, nodes.velocity, node)
    alike = nodes.last_box is nodes.box and nodes.last_velocity is nodes.velocity
    end = begin if alike else states(nodes.last_box, nodes.last_velocity, node)
    past = states(nodes.last_box, nodes.last_velocity, past_node)
    begin_frame, end_frame, past_frame = nodes.frame[node], nodes.last_frame[node], nodes.last_frame[past_node]
    spans = library.stack((
        library.searchsorted(-past_frame, -begin_frame, side="right"),
        library.searchsorted(-past_frame, max_gap - begin_frame, side="right"),
        library.searchsorted(begin_frame, end_frame, side="right"),
        library.searchsorted(begin_frame, end_frame + max_gap, side="right"),
    ))  # fmt: skip
    looks, past_looks = (None if nodes.appearance is None else nodes.appearance[order] for order in (node, past_node))
    return _InTime(node, past_node, begin, end, past, begin_frame, end_frame, past_frame, looks, past_looks,
                   _array.astype(spans, "int64"))  # fmt: skip


def _linked(keys: Any, n: int, reciprocal: bool) -> Any:
    """The links of all lists of neighbours, each given as earlier node x N + later node or -1, that count."""
    library = _array.module(keys)
    found = library.sort(keys.reshape(-1))
    if _array.family(keys) == "torch":
        found = found.values
    found = found[found >= 0]
    twice = found[1:] == found[:-1]  # a link is in the lists of both its ends
    found = found[1:][twice] if reciprocal else library.concatenate((found[:1], found[1:][~twice]))
    return library.stack((found // n, found % n))


def _spans(count: int) -> list[tuple[int, int]]:
    """Nodes or links for each thread."""
    return spans(count, min(cores(), count >> 8))


def _nearest_cpu(x: _InTime, keep: int, reach: float) -> Array:
    """The lists of neighbours by their feet: keys [N, keep]."""
    n, real = len(x.node), x.begin.dtype
    keys = np.empty((n, keep), np.int64)
    if not keep:
        return keys
    run = _njit.compiled(*_graph_loops.NEAREST)
    start = x.begin_frame[0]
    times = [(frames - start).astype(real) for frames in (x.begin_frame, x.end_frame, x.past_frame)]
    most = int(max((x.spans[1] - x.spans[0]).max(), (x.spans[3] - x.spans[2]).max()))

    def work(first: int, last: int) -> None:
        run(x.begin, times[0], x.end, times[1], x.past, times[2], x.spans, x.node, x.past_node, real.type(0.5),
            real.type(reach), first, last, np.empty(most, real), np.empty(keep, real), np.empty(keep, np.int64),
            keys)  # fmt: skip

    each(work, _spans(n))
    return keys


def _nearest_looks_cpu(x: _InTime, keep: int, reach: float) -> Array:
    """The lists of neighbours by appearance: square distances of a few nodes at a time, as a matrix product."""
    n, real = len(x.node), x.begin.dtype
    keys = np.empty((n, keep), np.int64)
    if not keep:
        return keys
    run = _njit.compiled(*_graph_loops.SELECT)
    sides = x.past_appearance, x.appearance
    lengths = [np.einsum("ij,ij->i", looks, looks) for looks in sides]
    for first in range(0, n, _BLOCK):
        some = slice(first, min(first + _BLOCK, n))
        distance = np.full((some.stop - first, keep), reach, real)
        place = np.full(distance.shape, -1)
        for side, looks in enumerate(sides):
            low, high = int(x.spans[2 * side, some].min()), int(x.spans[2 * side + 1, some].max())
            square = x.appearance[some] @ looks[low:high].T
            square *= -2
            square += lengths[1][some, None]
            square += lengths[side][None, low:high]
            np.maximum(square, 0, out=square)
            run(square, low, x.spans, side, x.node, x.past_node, first, distance, place, keys[some])
    return keys


def _nearest_gpu(x: _InTime, keep: int, reach: float) -> Any:
    n, real = len(x.node), _array.dtype_name(x.begin)
    launch = kernel("tracking_graph.cu", "tracking_nearest", real=real, APPEARANCE=x.appearance is not None)
    looks = [None if a is None else _array.contiguous(a.T) for a in (x.appearance, x.past_appearance)]
    frames = [_array.astype(f, "int32") for f in (x.begin_frame, x.end_frame, x.past_frame)]
    after, after_scan = _array.empty(x.begin, (n,)), _array.empty(x.begin, (n,), "int32")
    lists = []
    for first in range(0, keep, _KEPT):
        count = min(_KEPT, keep - first)
        keys = _array.empty(x.begin, (n, count), "int64")
        launch((blocks(n, _NODES),), _THREADS, x.begin, frames[0], x.end, frames[1], x.past, frames[2], *looks, x.spans,
               x.node, x.past_node, after, after_scan, keys, n, 0 if looks[0] is None else len(looks[0]), count, reach,
               first == 0)  # fmt: skip
        lists.append(keys)
    return lists[0] if len(lists) == 1 else _array.module(lists[0]).concatenate(lists, 1)


@array_op("frame", "box", "edges", "last_frame", "last_box", "velocity", "last_velocity", "appearance")
def edge_features(
    frame: Any,
    box: Any,
    edges: Any,
    *,
    fps: float = 30.0,
    last_frame: Any = None,
    last_box: Any = None,
    velocity: Any = None,
    last_velocity: Any = None,
    appearance: Any = None,
) -> Any:
    """What speaks for each link: time, relative position and size, appearance, overlap of motion predictions.

    Parameters
    ----------
    frame, box, last_frame, last_box, velocity, last_velocity, appearance : arrays
        Nodes as :func:`candidate_edges` takes them.
    edges : array, [2, E], int64
        Nodes of each link, the earlier one first.
    fps : float, frames per second

    Returns
    -------
    array, [E, F], float32
        Of the link from i, when it ends, to j, when it begins, with the mean height h of the two boxes:

        * seconds from i to j
        * how far the feet of j are to the right of those of i, and below, in units of h
        * the logarithms of the quotients of heights and of widths, j's by i's
        * with ``appearance``: the distance of the two vectors
        * with ``velocity``: IoU and GIoU of the two boxes where straight motion puts their centres half way

    Raises
    ------
    TypeError, ValueError
        If, on the CPU, a link leads to no node or not forward in time, or a box has no area; if an argument is not as
        said above.

    Notes
    -----
    Values are not checked on a GPU, where nothing waits for the host. Time and memory grow with E. The same bits on
    every run. No gradient.

    References
    ----------
    G. Brasó, L. Leal-Taixé, CVPR 2020, section 4.1; O. Cetintas, G. Brasó, L. Leal-Taixé, CVPR 2023, section 3.4.

    Examples
    --------
    >>> import numpy as np
    >>> from cv3gpu import mot
    >>> frame, box = np.array([1, 4]), np.array([[0, 0, 10, 20], [30, 0, 10, 20.0]])
    >>> mot.edge_features(frame, box, np.array([[0], [1]]), fps=10).tolist()
    [[0.30000001192092896, 1.5, 0.0, 0.0, 0.0]]
    >>> mot.edge_features(frame, box, np.array([[0], [1]]), velocity=np.array([[10.0, 0], [10, 0]]))[0, 5:]
    array([1., 1.], dtype=float32)
    """
    op = "edge_features"
    nodes = _nodes(op, frame, box, last_frame, last_box, velocity, last_velocity, appearance)
    _check.dtype(op, "edges", edges, ("int64",))
    _check.shape(op, "edges", edges, [2, "E"])
    rate = _check.real(op, "fps", fps, positive=True)
    count = int(edges.shape[1])
    dims = 0 if nodes.appearance is None else int(nodes.appearance.shape[1])
    n_features = 5 + (nodes.appearance is not None) + 2 * (nodes.velocity is not None)
    features = _array.empty(frame, (count, n_features), "float32")
    if _array.on_gpu(box):
        real = _array.dtype_name(box)
        launch = kernel("tracking_graph.cu", "tracking_features", real=real, APPEARANCE=nodes.appearance is not None)
        launch((blocks(count, _THREADS),), _THREADS, nodes.box, nodes.frame, nodes.last_box, nodes.last_frame,
               nodes.velocity, nodes.last_velocity, nodes.appearance, _array.contiguous(edges), features, count, dims,
               n_features, rate)  # fmt: skip
        return features
    _check_values(op, nodes)
    links = np.ascontiguousarray(_array.as_numpy(edges))
    if links.size:
        if links.min() < 0 or links.max() >= len(nodes.frame):
            wrong = links[(links < 0) | (links >= len(nodes.frame))][0]
            _check.fail(op, "edges", f"hold nodes from 0 to {len(nodes.frame) - 1}", int(wrong))
        late = np.flatnonzero(nodes.frame[links[1]] <= nodes.last_frame[links[0]])
        if late.size:
            _check.fail(op, "edges", "lead forward in time", f"{links[0, late[0]]} to {links[1, late[0]]}")
    none = np.empty((0, 2), nodes.box.dtype)
    moved, last_moved = (none if v is None else v for v in (nodes.velocity, nodes.last_velocity))
    looks = none if nodes.appearance is None else nodes.appearance
    run = _njit.compiled(*_graph_loops.FEATURES)
    out = _array.as_numpy(features)
    each(lambda first, last: run(nodes.box, nodes.frame, nodes.last_box, nodes.last_frame, moved, last_moved, looks,
                                 links, rate, first, last, out), _spans(count))  # fmt: skip
    return features


@array_op("ids", "edges", "frame", "last_frame")
def label_edges(ids: Any, edges: Any, frame: Any, last_frame: Any = None) -> Any:
    """Which links are true: those to the next node of the same identity, of the links that there are.

    Parameters
    ----------
    ids : array, [N], int64
        Identity of each node, -1 for a node without one.
    edges : array, [2, E], int64
        Nodes of each link, the earlier one first.
    frame, last_frame : array, [N], int64/int32
        As :func:`candidate_edges` takes them.

    Returns
    -------
    array, [E], bool
        Whether both ends have one identity, and no other link of the first leads to an earlier node of that identity,
        or no other link into the second comes from a later one.

    Raises
    ------
    TypeError, ValueError
        If a link leads to no node, or an argument is not as said above.

    Notes
    -----
    Solved on the CPU; what lives on a GPU is copied. Time grows with E.

    References
    ----------
    G. Brasó, L. Leal-Taixé, CVPR 2020, section 3.1: the flow formulation.

    Examples
    --------
    >>> import numpy as np
    >>> from cv3gpu import mot
    >>> edges = np.array([[0, 0, 1], [1, 2, 2]])
    >>> mot.label_edges(np.array([5, 5, 5]), edges, np.array([1, 2, 3]))
    array([ True, False,  True])
    """
    op = "label_edges"
    _check.dtype(op, "ids", ids, ("int64",))
    _check.ndim(op, "ids", ids, 1, "[N]")
    n = int(ids.shape[0])
    _check.dtype(op, "edges", edges, ("int64",))
    _check.shape(op, "edges", edges, [2, "E"])
    for name, frames in (("frame", frame), ("last_frame", last_frame)):
        if frames is not None:
            _check.dtype(op, name, frames, INTEGERS)
            _check.shape(op, name, frames, [n], "one for each identity")
    identity, links, begin = (_array.to_host(x) for x in (ids, edges, frame))
    end = begin if last_frame is None else _array.to_host(last_frame)
    if links.size and (links.min() < 0 or links.max() >= n):
        _check.fail(op, "edges", f"hold nodes from 0 to {n - 1}", int(links[(links < 0) | (links >= n)][0]))
    same = np.flatnonzero((identity[links[0]] == identity[links[1]]) & (identity[links[0]] > NO_ID))
    i, j = links[:, same]
    gap = begin[j].astype(np.int64) - end[i]
    active = np.zeros(links.shape[1], bool)
    for side in (i, j):
        least = np.full(n, np.iinfo(np.int64).max)
        np.minimum.at(least, side, gap)
        active[same] |= gap == least[side]
    return _array.from_host(active, ids)


def match_detections(detections: Tracks, gt: Tracks, *, min_iou: float = 0.5) -> Array:
    """The identity of each detection: that of the ground truth box it is matched to.

    In each frame the matching of the most pairs that overlap by ``min_iou`` or more, of those the one of the greatest
    overlaps.

    Parameters
    ----------
    detections : Tracks
    gt : Tracks
        With an identity in every row; what is to be ignored must be taken out before (:func:`cv3gpu.mot.prepare`).
    min_iou : float, above 0 and up to 1

    Returns
    -------
    array, [N], int64
        -1 for a detection without a partner.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as said above.

    References
    ----------
    G. Brasó, L. Leal-Taixé, CVPR 2020, section 4.3.

    Examples
    --------
    >>> from cv3gpu import mot
    >>> gt = mot.Tracks(frame=[1, 1], id=[7, 8], box=[[0, 0, 9, 9], [50, 0, 9, 9]])
    >>> found = mot.Tracks(frame=[1, 1, 1], id=[-1, -1, -1], box=[[51, 0, 9, 9], [0, 0, 9, 8], [20, 0, 9, 9]])
    >>> mot.match_detections(found, gt)
    array([ 8,  7, -1])
    """
    op = "mot.match_detections"
    found, truth = checked(op, "detections", detections), checked(op, "gt", gt)
    least = _check.real(op, "min_iou", min_iou, positive=True)
    if least > 1:
        _check.fail(op, "min_iou", "be above 0 and up to 1", min_iou)
    ids = np.full(len(found), NO_ID)
    frames = np.intersect1d(found.frame, truth.frame)
    if not len(frames):
        return ids
    sides = []
    for side in (found, truth):
        order = np.argsort(side.frame, kind="stable")
        sides.append((order, *(np.searchsorted(side.frame[order], frames, s) for s in ("left", "right"))))
    widest = max(math.prod(int((last - first).max()) for _, first, last in sides), 1)
    step = max(1, _PAIRS // widest)
    for at in range(0, len(frames), step):
        rows, boxes, sizes = [], [], []
        for (order, first, last), side in zip(sides, (found, truth), strict=True):
            begin, size = first[at : at + step], (last - first)[at : at + step]
            place = np.minimum(begin[:, None] + np.arange(size.max()), len(order) - 1)
            rows.append(order[place])
            boxes.append(side.box[rows[-1]])
            sizes.append(size)
        iou = box_iou(*boxes, format="xywh")
        cost = np.where(iou >= least, 1 - iou, np.inf)
        one, other, _ = linear_sum_assignment(cost, n_rows=sizes[0], n_cols=sizes[1])
        which, pair = np.nonzero(one >= 0)
        matched = rows[0][which, one[which, pair]], rows[1][which, other[which, pair]]
        ids[matched[0]] = truth.id[matched[1]]
    return ids
