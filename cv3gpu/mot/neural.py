"""Offline tracking by a network that was taught which detections belong together: detections in, trajectories out."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, overload

import numpy as np

from .. import _check, _weights
from .._threads import each
from ..errors import DataFormatError
from . import _bytes, _network, _tracklets
from ._text import Rule, Text, number
from ._tracklets import Level, Rows, Tracklets
from .flow import round_trajectories
from .gaps import interpolate as fill
from .tracks import Tracks, checked, finite_numbers

__all__ = ["Linked", "Solver", "TrackInfo", "link", "load_solver", "read_camera", "scores", "steady", "track"]

Array = np.ndarray[Any, Any]

SHIPPED = Path(__file__).parent / "weights" / "mot17-motion.safetensors"
METHODS = ("exact", "greedy")
MAX_LINE = 1000  # characters of a line of the camera's motion


class LevelInfo(NamedTuple):
    """What happened at one level of the hierarchy."""

    nodes: int
    links: int  # candidates
    active: int  # after rounding
    satisfied: float  # share of the constraints that the scores alone satisfy


class TrackInfo(NamedTuple):
    """How a tracking went."""

    satisfied: float
    """Share of the constraints, at most one link out of and one into each node, that the scores alone satisfy before
    rounding, of all nodes with a link on that side whose score reaches the level's threshold; 1 where there is none."""
    levels: tuple[LevelInfo, ...]


class Solver(NamedTuple):
    """A network with the settings that it is used with; :func:`load_solver` reads one."""

    blocks: tuple[Mapping[str, Any], ...]  # weights by name, one for each level
    arguments: Mapping[str, Any]  # of `cv3gpu.nn.models.mpn_tracker`
    levels: tuple[Level, ...]
    low: float  # score below which a detection is left out
    high: float  # of a sure detection
    start: float  # that the best detection of a track has at least

    @property
    def appearance(self) -> int:
        """The length of the appearance vectors that the network was trained with; 0 for motion alone."""
        return int(self.arguments["node_features"]) - _tracklets.NODE_FEATURES


class Linked(NamedTuple):
    """The result of one level or of all."""

    label: Array  # [N], of each detection; -1 for none
    info: tuple[tuple[LevelInfo, int, int], ...]  # with the numbers of constraints and of violated ones


# ---- weights --------------------------------------------------------------------------------------------


def load_solver(path: str | os.PathLike[str]) -> Solver:
    """Reads a network that `cv3gpu train mpn` has written.

    Raises
    ------
    DataFormatError
        If the file is no safetensors file, or its network is another one; the text names what is wrong.
    """
    arrays, config = _weights.read(path)
    where = os.fspath(path)

    def wrong(what: str, got: object) -> DataFormatError:
        return DataFormatError(f"{where}: {what}, got {got}")

    if config.get("model") != "mpn_tracker":
        raise wrong("must hold a network of mpn_tracker", repr(config.get("model")))
    try:
        arguments = _network.arguments(config["arguments"])
        levels = tuple(_level(entry) for entry in config["levels"])
        low, high, start = (_check.real("", key, config[key]) for key in ("low", "high", "start"))
    except (KeyError, TypeError, ValueError) as error:
        raise wrong("must hold the settings of a tracker", str(error).removeprefix(": ")) from error
    if len(levels) != arguments["levels"]:
        raise wrong(f"must have settings for {arguments['levels']} levels", len(levels))
    if arguments["edge_features"] != _tracklets.EDGE_FEATURES + (arguments["node_features"] > _tracklets.NODE_FEATURES):
        raise wrong("must take the features of a tracker", f"{arguments['edge_features']} of each link")
    wanted = _network.shapes(arguments)
    if missing := sorted(set(wanted) ^ set(arrays)):
        raise wrong(f"must hold {len(wanted)} arrays", f"{len(arrays)}, differing in {missing[0]!r}")
    for name, shape in wanted.items():
        values = arrays[name]
        if values.shape != shape or values.dtype != np.float32:
            raise wrong(f"{name} must be float32 of shape {list(shape)}", f"{values.dtype} {list(values.shape)}")
        if not np.isfinite(values).all() or (name.endswith("_scale") and (values <= 0).any()):
            raise wrong(f"{name} must be finite{' and positive' if name.endswith('_scale') else ''}", "other numbers")
    return Solver(_network.blocks(arrays, arguments), arguments, levels, low, high, start)


def _level(entry: Mapping[str, Any]) -> Level:
    gap = _check.integer("", "gap", entry["gap"], 1, 10**6)
    return Level(
        gap,
        _check.integer("", "neighbors", entry["neighbors"], 1, 10**4),
        _check.real("", "distance", entry["distance"], positive=True),
        _check.integer("", "window", entry["window"], 2 * gap, 10**8),
        _check.flag("", "confirmed", entry["confirmed"]),
        _threshold(entry["threshold"]),
    )


def _threshold(value: Any) -> float:
    share = _check.real("", "threshold", value, positive=True)
    if share >= 1:
        _check.fail("", "threshold", "be below 1", value)
    return share


@functools.cache
def _shipped() -> Solver:
    return load_solver(SHIPPED)


# ---- levels ---------------------------------------------------------------------------------------------


def scores(solver: Solver, level: int, nodes: Tracklets, edges: Array, window: int | None = None) -> Array:
    """The probability of each link of a level, [E]: the mean over the windows that it lies in, at most a few.

    Windows begin half a window apart, so that a link lies in two of them, or in one where it is longer than half of
    one. Features are made for a window at a time: the memory of the network is bounded by it.
    """
    block = solver.blocks[level]
    begin, end = nodes.last_frame[edges[0]], nodes.frame[edges[1]]
    order = np.argsort(begin, kind="stable")
    begin, end, edges = begin[order], end[order], edges[:, order]
    size = window or solver.levels[level].window
    stride = size // 2
    total, count = np.zeros(len(begin)), np.zeros(len(begin), np.int64)
    if not len(begin):
        return total
    starts = np.unique(begin // stride)  # a window with a link begins at one of these strides, or one before
    starts = np.union1d(starts, starts - 1) * stride

    def run(first: int) -> tuple[Array, Array]:
        inside = np.arange(*np.searchsorted(begin, [first, first + size]))
        inside = inside[end[inside] < first + size]
        if not len(inside):
            return inside, np.empty(0)
        which, local = np.unique(edges[:, inside], return_inverse=True)
        part = nodes.take(which)
        local = local.reshape(2, -1)
        graph = _network.graph_of(local, len(which), part.frame, solver.arguments)
        return inside, _network.probabilities(block, *_tracklets.features(part, local), graph, solver.arguments)

    for inside, probability in each(run, [(int(first),) for first in starts]):
        total[inside] += probability
        count[inside] += 1
    mean = np.empty(len(total))
    mean[order] = total / count
    return mean


def link(solver: Solver, rows: Rows, label: Array, level: int, rounding: str = "exact") -> Linked:
    """Takes tracklets one level up: candidates, their scores, rounding, and what is joined then."""
    settings = solver.levels[level]
    if settings.confirmed:
        label = _tracklets.confirm(rows, label, solver.high)
    nodes = _tracklets.summary(rows, label)
    n = len(nodes.frame)
    edges = _tracklets.links(nodes, settings)
    probability = scores(solver, level, nodes, edges)
    odds = probability * (1 - settings.threshold)  # the threshold comes to stand at 0.5
    probability = odds / (odds + (1 - probability) * settings.threshold)
    active, _, violations = round_trajectories(edges, probability, n, method=rounding)
    likely = edges[:, probability >= 0.5]
    constraints = sum(len(np.unique(side)) for side in likely)
    satisfied = 1 - violations / max(1, constraints)
    joined = _tracklets.merge(label, edges[:, active], n)
    info = LevelInfo(n, edges.shape[1], int(active.sum()), satisfied)
    return Linked(joined, ((info, constraints, violations),))


def read_camera(path: str | os.PathLike[str], frames: int = 0) -> Array:
    """Motion of the camera from a file, for :func:`track`: a line for each frame, with at least so many ``frames``.

    A line holds the frame's number and the two rows of three numbers that take points of the frame before to this one,
    as BoT-SORT's files have them; all but the first must be invertible. The file may be gzip's.

    Raises
    ------
    DataFormatError
        If the file holds something else.
    """
    where = os.fspath(path)
    text = Text(where, _bytes.load(where))
    _, at = text.first_line(MAX_LINE)
    blocks = [np.empty((0, 2, 3))]
    for table, starts in text.tables(at, False, len(_CAMERA), MAX_LINE, _camera_line):
        rows = table[1:].T.reshape(-1, 2, 3).copy()
        if (flat := _not_invertible(rows)).any() and (len(blocks) > 1 or flat[1:].any()):
            row = int(np.flatnonzero(flat[len(blocks) == 1 :])[0]) + (len(blocks) == 1)
            raise text.error(int(starts[row]), f"motion must be invertible, got {rows[row].tolist()}")
        blocks.append(rows)
    found = np.concatenate(blocks)
    if len(found) < frames:
        raise DataFormatError(f"{where}: must hold a line for each of {frames} frames, got {len(found)}")
    return found


_CAMERA = ("frame", "first row's x", "first row's y", "shift in x", "second row's x", "second row's y", "shift in y")


def _camera_line(line: bytes) -> list[float]:
    parts = line.split()
    if len(parts) != len(_CAMERA):
        raise ValueError(f"line must have {len(_CAMERA)} columns, got {len(parts)}; blanks stand between them")
    texts = (part.decode("utf-8", errors="replace") for part in parts)
    return [number(name, text, Rule()) for name, text in zip(_CAMERA, texts, strict=True)]


def _not_invertible(motion: Array) -> Array:
    """Which motions, [F, 2, 3], have (nearly) no way back."""
    return np.abs(np.linalg.det(motion[:, :, :2])) < 1e-6


def steady(frame: Array, box: Array, camera: Array | None) -> Array:
    """Boxes as a camera that stands still would see them, in the coordinates of frame 1."""
    if camera is None or not len(frame):
        return box
    square = np.broadcast_to(np.eye(3), (len(camera), 3, 3)).copy()
    square[1:, :2] = camera[1:]
    inverse = np.linalg.inv(square)
    back = np.empty_like(inverse)
    so_far = np.eye(3)
    for place, step in enumerate(inverse):
        back[place] = so_far = so_far @ step
    move = back[frame - 1]
    size = box[:, 2:] * np.sqrt(np.abs(np.linalg.det(move[:, :2, :2])))[:, None]
    centre = np.einsum("nij,nj->ni", move[:, :2, :2], box[:, :2] + box[:, 2:] / 2) + move[:, :2, 2]
    return np.concatenate([centre - size / 2, size], 1)


# ---- tracking -------------------------------------------------------------------------------------------


@overload
def track(
    detections: Tracks, *, weights: Any = None, appearance: Any = None, camera: Any = None, levels: int | None = None,
    rounding: str = "exact", interpolate: int = 20, min_length: int = 2, low: float | None = None,
    high: float | None = None, start: float | None = None, return_info: Literal[False] = False,
) -> Tracks: ...  # fmt: skip
@overload
def track(
    detections: Tracks, *, weights: Any = None, appearance: Any = None, camera: Any = None, levels: int | None = None,
    rounding: str = "exact", interpolate: int = 20, min_length: int = 2, low: float | None = None,
    high: float | None = None, start: float | None = None, return_info: Literal[True],
) -> tuple[Tracks, TrackInfo]: ...  # fmt: skip
def track(
    detections: Tracks,
    *,
    weights: str | os.PathLike[str] | Solver | None = None,
    appearance: Any = None,
    camera: Any = None,
    levels: int | None = None,
    rounding: str = "exact",
    interpolate: int = 20,
    min_length: int = 2,
    low: float | None = None,
    high: float | None = None,
    start: float | None = None,
    return_info: bool = False,
) -> Any:
    """Links detections to trajectories, looking at the past and the future of each: offline tracking.

    A network passes messages over the graph of detections and says of each link how probable it is; rounding turns
    this into trajectories. The first level links detections in neighbouring frames, further ones the pieces of tracks
    over growing gaps, from how they move. Pictures and a network for appearance are not needed.

    Parameters
    ----------
    detections : Tracks
        Their scores count; identities don't. Classes are linked each on its own.
    weights : path or Solver, optional
        What ``cv3gpu train mpn`` has written; the network that comes with the package if left out, which was trained on
        pedestrians (MOT17), for motion alone.
    appearance : array_like, [N, D], optional
        A vector for each detection, for networks trained with such ones.
    camera : array_like, [F, 2, 3], optional
        Motion of the camera: row f - 1 takes a point from frame f - 1 to where it is seen in frame f; the first row
        does not count. Without it, the picture is taken as it is. :func:`read_camera` reads it from a file.
    levels : int, optional
        How many levels of the network are used; all if left out.
    rounding : {"exact", "greedy"}
        As :func:`round_trajectories` has it.
    interpolate : int, frames
        The longest gap that is filled by a straight line, 0 for none.
    min_length : int
        Least number of detections in a trajectory.
    low, high, start : float, optional
        Detections with a score below ``low`` are left out; those with ``high`` or more are sure ones, and a trajectory
        begins and ends with one; its best one has at least ``start``. As the network's file says if left out.
    return_info : bool

    Returns
    -------
    Tracks
        Sorted by frame, identities from 1. With the scores of the detections.
    TrackInfo
        With ``return_info``: share of constraints satisfied before rounding, nodes and links of each level.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as said above.
    DataFormatError
        If ``weights`` is no file of such a network.

    Notes
    -----
    Boxes without an area are left out. Gaps are counted in frames: the network that is shipped bridges up to 40, and
    has seen 5 to 30 frames per second. Runs on the CPU, without torch, on all cores, at some hundred frames per second.
    Each link is scored in at most two windows of frames, the mean counts. The memory of the network is bounded by a
    window, so that sequences may be of any length; what grows with the length is a few numbers for each candidate link.
    The same trajectories on every run. The share of constraints satisfied can be driven up by more cautious scores:
    read it beside IDF1.

    References
    ----------
    G. Brasó, L. Leal-Taixé, "Learning a neural solver for multiple object tracking", CVPR 2020 (the network);
    O. Cetintas, G. Brasó, L. Leal-Taixé, "Unifying short and long-term tracking with graph hierarchies", CVPR 2023;
    Y. Zhang et al., "ByteTrack", ECCV 2022 (detections with low scores).

    Examples
    --------
    >>> import numpy as np
    >>> from cv3gpu import mot
    >>> frame = np.repeat(np.arange(1, 9), 2)
    >>> left = np.where(np.arange(16) % 2, 300 - 4 * frame, 4 * frame)   # two people who walk towards each other
    >>> box = np.stack([left, left * 0 + 50, left * 0 + 30, left * 0 + 80], 1)
    >>> tracks = mot.track(mot.Tracks(frame, -np.ones(16), box))
    >>> tracks
    Tracks(16 boxes, 2 identities, frames 1 to 8)
    """
    op = "mot.track"
    given = checked(op, "detections", detections)
    _check.choice(op, "rounding", rounding, METHODS)
    gap = _check.integer(op, "interpolate", interpolate, 0)
    least = _check.integer(op, "min_length", min_length, 0)
    _check.flag(op, "return_info", return_info)
    solver = _solver(op, weights)
    if low is not None:
        solver = solver._replace(low=_check.real(op, "low", low))
    if high is not None:
        solver = solver._replace(high=_check.real(op, "high", high))
    if start is not None:
        solver = solver._replace(start=_check.real(op, "start", start))
    if levels is not None:
        solver = solver._replace(levels=solver.levels[: _check.integer(op, "levels", levels, 1, len(solver.levels))])
    looks = _looks(op, appearance, solver, len(given))
    boxes = steady(given.frame, given.box, _camera(op, camera, given))
    usable = (given.score >= solver.low) & (given.box[:, 2:] > 0).all(1)
    identity = np.zeros(len(given), np.int64)
    found: list[tuple[tuple[LevelInfo, int, int], ...]] = []
    for class_ in np.unique(given.class_[usable]):
        row = np.flatnonzero(usable & (given.class_ == class_))
        row = row[np.argsort(given.frame[row], kind="stable")]
        rows = Rows(given.frame[row], boxes[row], given.score[row], None if looks is None else looks[row])
        label, info = _trajectories(solver, rows, rounding, least)
        found.append(info)
        identity[row] = np.where(label >= 0, label + 1 + identity.max(initial=0), 0)
    kept = np.flatnonzero(identity)
    kept = kept[np.lexsort((identity[kept], given.frame[kept]))]
    tracks = Tracks.trusted(
        ignored=given.ignored, frame=given.frame[kept], id=identity[kept], box=given.box[kept],
        score=given.score[kept], class_=given.class_[kept],
    )  # fmt: skip
    tracks = fill(tracks, gap) if gap else tracks
    return (tracks, _info(found)) if return_info else tracks


def _trajectories(
    solver: Solver, rows: Rows, rounding: str, least: int
) -> tuple[Array, tuple[tuple[LevelInfo, int, int], ...]]:
    """The label of each detection, -1 for none, from all levels."""
    label = np.arange(len(rows.frame))
    info: tuple[tuple[LevelInfo, int, int], ...] = ()
    for level in range(len(solver.levels)):
        linked = link(solver, rows, label, level, rounding)
        label, info = linked.label, info + linked.info
    label = _tracklets.confirm(rows, label, solver.high, solver.start)
    count = np.bincount(label[label >= 0], minlength=1)
    return _tracklets.renumber(np.where((label >= 0) & (count[label] >= least), label, -1)), info


def _info(found: list[tuple[tuple[LevelInfo, int, int], ...]]) -> TrackInfo:
    """Of all classes together."""
    levels = []
    for parts in zip(*found, strict=True):
        nodes, links, active = (sum(int(part[0][k]) for part in parts) for k in range(3))
        constraints, violations = (sum(int(part[k]) for part in parts) for k in (1, 2))
        satisfied = 1 - violations / max(1, constraints)
        levels.append((LevelInfo(nodes, links, active, satisfied), constraints, violations))
    every = sum(x[2] for x in levels) / max(1, sum(x[1] for x in levels))
    return TrackInfo(1 - every, tuple(x[0] for x in levels))


# ---- arguments ------------------------------------------------------------------------------------------


def _solver(op: str, weights: Any) -> Solver:
    if weights is None:
        return _shipped()
    if isinstance(weights, Solver):
        return weights
    if not isinstance(weights, str | os.PathLike):
        _check.fail(op, "weights", "be a path, a Solver or None", _check.kind(weights), error=TypeError)
    return load_solver(weights)


def _looks(op: str, appearance: Any, solver: Solver, n: int) -> Array | None:
    if (appearance is None) != (not solver.appearance):
        wanted = f"have {solver.appearance} numbers for each detection" if solver.appearance else "be None"
        _check.fail(op, "appearance", f"{wanted}, as the network was trained", _check.kind(appearance))
    return None if appearance is None else finite_numbers(op, "appearance", appearance, [n, solver.appearance])


def _camera(op: str, camera: Any, given: Tracks) -> Array | None:
    if camera is None:
        return None
    values = finite_numbers(op, "camera", camera, ["F", 2, 3])
    if len(given) and (given.frame.min() < 1 or given.frame.max() > len(values)):
        frames = f"frames {given.frame.min()} to {given.frame.max()}"
        _check.fail(op, "camera", "have a row for each frame, from frame 1 on", f"{len(values)} rows for {frames}")
    flat = _not_invertible(values[1:])
    if flat.any():
        _check.fail(op, "camera", "be invertible", values[1:][flat][0].tolist())
    return values
