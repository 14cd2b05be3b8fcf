"""Evaluation of boxes that are arrays of any library: on the GPU where they are there, without leaving it.

All sequences are one set of frames and one set of identities to the kernels (``kernels/mot_pairs.cu``,
``kernels/mot_match.cu``); what comes back to the host are sizes, and the counts at the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from .. import _array, _check, _kernel
from ..assignment import linear_sum_assignment
from . import benchmarks
from . import metrics as families
from ._scene import EPS
from .evaluate import chosen_metrics
from .metrics import LEVELS, THRESHOLD, ClearCounts, Figures, Sizes
from .tracks import Tracks

__all__ = ["ON_GPU", "Boxes", "evaluate_boxes"]

OP = "mot.evaluate_boxes"
ON_GPU = ("clear", "identity", "hota", "count")
RULES = ("MOT15", "MOT16", "MOT17", "MOT20")

_BLOCK = 256  # threads of a block in mot_pairs.cu
_WARPS = 8  # and its warps
_MOST_BLOCKS = 2048
_WORKSPACE = 1 << 27  # bytes at most for the rows of sums of all warps
_SHARED = 48 << 10  # bytes of shared memory that every GPU grants without being asked
_MATCH_WARPS = (4, 2, 1)  # a block of mot_match has as many as fit
_GLOBAL_BLOCKS = 512  # blocks at most, where each has its scratch in global memory


class Boxes(NamedTuple):
    """One side of an evaluation: boxes as arrays of one library, in any order.

    ``frame``, ``id`` and, for several sequences, ``sequence`` (from 0) are int64 [N]; ``box`` [N, 4] holds left,
    top, width, height in pixels, float32 or float64; ``score`` [N] and ``class_`` [N] are for benchmarks alone.
    """

    frame: Any
    id: Any
    box: Any
    score: Any = None
    class_: Any = None
    sequence: Any = None


def evaluate_boxes(
    gt: Boxes,
    pred: Boxes,
    *,
    metrics: Sequence[str] = ("clear", "identity", "hota"),
    benchmark: str | None = None,
    n_sequences: int = 1,
    lengths: Sequence[int | None] | None = None,
) -> list[Figures]:
    """The figures of each sequence, of boxes in NumPy, CuPy or torch arrays.

    On CuPy and torch-CUDA arrays everything runs there: overlaps, preprocessing, matching and sums, over all frames
    of all sequences at once. It is what a training loop calls between two epochs.

    Parameters
    ----------
    gt, pred : Boxes
        Ground truth and prediction; all arrays of one library on one device.
    metrics : sequence of str
        Of ``"clear"``, ``"identity"``, ``"hota"``, ``"count"``; on the CPU also ``"vace"``.
    benchmark : str, optional
        ``"MOT15"``, ``"MOT16"``, ``"MOT17"`` or ``"MOT20"``: their rules are applied first (:func:`prepare`), for
        which both sides need ``score`` and ``class_``. Other benchmarks: prepare tracks on the CPU.
    n_sequences : int
        How many sequences there are.
    lengths : sequence of int or None, optional
        Frames of each sequence; up to the last frame seen where left out.

    Returns
    -------
    list of dict
        For each sequence what :func:`clear`, :func:`identity` and :func:`hota` return, in one dictionary.

    Raises
    ------
    TypeError
        Arrays of another library, device or dtype.
    ValueError
        Shapes that do not fit; a benchmark or metric that is not served.

    Notes
    -----
    The integers are those of the CPU path and of TrackEval. On a GPU values are not checked: an identity must stand
    once in a frame, and coordinates must be finite. The host waits for the device a dozen times, for sizes of 8
    bytes and for the counts. Memory beside the input: 28 bytes for each overlapping pair of boxes, and for identity
    8 bytes for each pair of identities of the largest sequence, times the number of sequences.

    Examples
    --------
    >>> import numpy as np
    >>> from cv3gpu import mot
    >>> box = np.array([[0.0, 0, 9, 9], [1, 0, 9, 9]])
    >>> gt = mot.Boxes(np.array([1, 2]), np.array([1, 1]), box)
    >>> pred = mot.Boxes(np.array([1, 2]), np.array([5, 6]), box)
    >>> scores, = mot.evaluate_boxes(gt, pred)
    >>> scores["IDSW"], scores["IDTP"]
    (1, 1)
    """
    _check.integer(OP, "n_sequences", n_sequences, 1)
    names = chosen_metrics(OP, metrics)
    if benchmark is not None:
        _check.choice(OP, "benchmark", benchmark, RULES)
    _check_sides(gt, pred, benchmark, n_sequences)
    on_gpu = _array.on_gpu(gt.box)
    if on_gpu and (missing := [name for name in names if name not in ON_GPU]):
        _check.fail(OP, "metrics", f"be of {', '.join(ON_GPU)} on a GPU", missing[0])
    known = [None] * n_sequences if lengths is None else list(lengths)
    if len(known) != n_sequences:
        _check.fail(OP, "lengths", f"have a number for each of {n_sequences} sequences", len(known))
    for length in known:
        if length is not None:
            _check.integer(OP, "lengths", length, 0)
    return (_on_device if on_gpu else _on_cpu)(gt, pred, names, benchmark, known)


def _check_sides(gt: Boxes, pred: Boxes, benchmark: str | None, n_sequences: int) -> None:
    first = None
    for side, boxes in (("gt", gt), ("pred", pred)):
        if not isinstance(boxes, Boxes):
            _check.fail(OP, side, "be mot.Boxes", _check.kind(boxes), error=TypeError)
        for name, x in zip(Boxes._fields, boxes, strict=True):
            argument = f"{side}.{name}"
            if x is None and name in {"score", "class_"} and benchmark is not None:
                _check.fail(OP, argument, f"be given for {benchmark}", "None")
            if x is None and name in {"score", "class_", "sequence"}:
                continue
            if _array.family(x) is None:
                _check.fail(OP, argument, "be a NumPy, CuPy or torch array", _check.kind(x), error=TypeError)
            place = _array.family(x), _array.device_of(x)
            first = first or place
            if place != first:
                wanted = f"be where gt.frame is ({first[0]} on {first[1]})"
                _check.fail(OP, argument, wanted, f"{place[0]} on {place[1]}", error=TypeError)
            real = name in {"box", "score"}
            _check.dtype(OP, argument, x, ("float32", "float64") if real else ("int32", "int64"))
            n = int(boxes.frame.shape[0]) if len(boxes.frame.shape) else "N"
            _check.shape(OP, argument, x, [n, 4] if name == "box" else [n])
        if boxes.sequence is not None and n:  # a wrong one would be an address out of bounds
            least, most = int(boxes.sequence.min()), int(boxes.sequence.max())
            if least < 0 or most >= n_sequences:
                wrong = least if least < 0 else most
                _check.fail(OP, f"{side}.sequence", f"be from 0 to {n_sequences - 1}", wrong)


Lengths = Sequence[int | None]


def _on_cpu(gt: Boxes, pred: Boxes, names: Sequence[str], benchmark: str | None, lengths: Lengths) -> list[Figures]:
    found = []
    for k, length in enumerate(lengths):
        sides = _tracks("gt", gt, k), _tracks("pred", pred, k)
        n_frames = _length(k, length, families.length(*sides))
        if benchmark is not None:
            sides = benchmarks.prepare(*sides, benchmark)
        found.append(families.figures(OP, *sides, names, n_frames))
    return found


def _length(sequence: int, said: int | None, seen: int) -> int:
    """The number of frames of a sequence, where ``seen`` of them hold something before a benchmark's rules."""
    if said is None:
        return seen
    if seen > said:
        _check.fail(OP, "lengths", f"be at least {seen}, the frames of sequence {sequence}", said)
    return said


def _tracks(side: str, boxes: Boxes, sequence: int) -> Tracks:
    frame, identity, box, score, class_, which = (None if x is None else _array.to_host(x) for x in boxes)
    rows: Any = slice(None) if which is None else which == sequence
    columns: dict[str, Any] = {"frame": frame, "id": identity, "box": box, "score": score, "class_": class_}
    try:
        return Tracks(**{name: x[rows] for name, x in columns.items() if x is not None})
    except ValueError as error:  # which names a column of its own
        raise ValueError(str(error).replace("Tracks: ", f"{OP}: {side}.", 1)) from None


# ---- on the device: what is where -----------------------------------------------------------------------


class _Numbers(NamedTuple):
    """What frames and identities are called in the kernels: numbers from 0, those of a sequence in a row."""

    label: Any  # of each row
    total: int
    sequence: Any  # of each number


class _Side(NamedTuple):
    """Boxes in the order of frames, as `_scene.Side`, of all sequences."""

    box: Any
    frame: Any
    identity: Any
    row: Any
    start: Any
    own_start: Any
    own_row: Any
    own_sequence: Any
    first: Any  # [S + 1] identities of each sequence
    identities: np.ndarray  # [S] how many, on the host


class _Scene(NamedTuple):
    gt: _Side
    pred: _Side
    frame_start: Any  # [S + 1] frames of each sequence
    length: np.ndarray  # [S] frames up to the last that is seen, on the host
    pair_start: Any
    pair_pred: Any
    pair_iou: Any

    @property
    def pairs(self) -> tuple[Any, Any, Any]:
        return self.pair_start, self.pair_pred, self.pair_iou


def _numbers(sequence: Any, value: Any) -> _Numbers:
    """Numbers the pairs (sequence, value) in ascending order."""
    values = _numbered(value)
    keys = sequence * values[1] + values[0]
    label, count = _numbered(keys)
    of = _array.empty(sequence, (count,), "int64")
    of[label] = sequence
    return _Numbers(label, count, of)


def _numbered(values: Any) -> tuple[Any, int]:
    """Labels from 0 in ascending order of value, and how many there are."""
    order = _array.argsort(values)
    ordered = values[order]
    label = _array.zeros(values, tuple(values.shape), "int64")
    if not label.shape[0]:
        return label, 0
    new = _array.zeros(values, tuple(values.shape), "int64")
    new[1:] = ordered[1:] != ordered[:-1]
    steps = new.cumsum(0)
    label[order] = steps
    return label, int(steps[-1]) + 1


def _starts(ordered: Any, count: int) -> Any:
    """Where each number's rows begin, [count + 1], of numbers in ascending order."""
    lib = _array.module(ordered)
    wanted = _array.zeros(ordered, (count + 1,), "int64")
    wanted[1:] = 1
    return _array.contiguous(lib.searchsorted(ordered, wanted.cumsum(0)))


def _side(boxes: Boxes, frame: Any, sequence: Any, n_frames: int, n_sequences: int) -> _Side:
    row = _array.argsort(frame)
    frame = _array.contiguous(frame[row])
    ids = _numbers(sequence[row], _array.astype(boxes.id, "int64")[row])
    own_row = _array.argsort(ids.label)
    box = _array.contiguous(_array.astype(boxes.box, "float64")[row])
    box[:, 2:] += box[:, :2]
    own_start = _starts(ids.label[own_row], ids.total)
    first = _starts(ids.sequence, n_sequences)
    identities = np.diff(_array.to_host(first))
    start = _starts(frame, n_frames)
    return _Side(box, frame, ids.label, row, start, own_start, own_row, ids.sequence, first, identities)


def _scene(gt: Boxes, pred: Boxes, n_sequences: int) -> _Scene:
    lib = _array.module(gt.box)
    of = [
        _array.zeros(s.frame, s.frame.shape, "int64") if s.sequence is None else _array.astype(s.sequence, "int64")
        for s in (gt, pred)
    ]
    frame, sequence = (
        lib.concatenate([_array.astype(gt.frame, "int64"), _array.astype(pred.frame, "int64")]),
        lib.concatenate(of),
    )
    frames = _numbers(sequence, frame)
    n_gt = int(gt.frame.shape[0])
    g = _side(gt, frames.label[:n_gt], of[0], frames.total, n_sequences)
    p = _side(pred, frames.label[n_gt:], of[1], frames.total, n_sequences)
    number = _array.zeros(frame, (frames.total,), "int64")
    number[frames.label] = frame
    frame_start = _starts(frames.sequence, n_sequences)
    edges, number = _array.to_host(frame_start), _array.to_host(number)
    spans = zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)
    length = np.array([number[b - 1] + (number[a] == 0) if b > a else 0 for a, b in spans], np.int64)
    return _Scene(g, p, frame_start, length, *_pairs(g, p))


def _grid(n: int, per_block: int) -> tuple[int]:
    return (min(_kernel.blocks(n, per_block), _MOST_BLOCKS),)


def _pairs(gt: _Side, pred: _Side) -> tuple[Any, Any, Any]:
    rows = int(gt.row.shape[0])
    start = _array.zeros(gt.row, (rows + 1,), "int64")
    launch = _kernel.kernel("mot_pairs.cu", "mot_overlap")
    grid = _grid(rows, _WARPS)
    launch(grid, _BLOCK, gt.box, gt.frame, pred.box, pred.start, start, None, None, rows, EPS)
    start = start.cumsum(0)
    n = int(start[-1])
    found, iou = _array.empty(gt.box, (n,), "int32"), _array.empty(gt.box, (n,))
    launch(grid, _BLOCK, gt.box, gt.frame, pred.box, pred.start, start, found, iou, rows, EPS)
    return start, found, iou


# ---- on the device: the metrics -------------------------------------------------------------------------


class _Scratch(NamedTuple):
    """The scratch of mot_match.cu: its words a warp, how many warps a block, and where it lies."""

    words: int
    warps: int
    blocks: int
    workspace: Any
    shared: int


def _scratch(s: _Scene, tasks: int, most_warps: int) -> _Scratch:
    """For the largest frame there is."""
    sizes = [side.start[1:] - side.start[:-1] for side in (s.gt, s.pred)]
    width, lines = 1, 1
    if sizes[0].shape[0]:
        lib = _array.module(sizes[0])
        width = max(int(lib.maximum(*sizes).max()), 1)
        lines = max(int(lib.minimum(*sizes).max()), 1)
    words = 3 * width + lines + (4 * width + 2 * lines + 1) // 2
    for warps in _MATCH_WARPS:
        if warps <= most_warps and 8 * words * warps <= _SHARED:
            blocks = min(_kernel.blocks(tasks, warps), 65535)
            return _Scratch(words, warps, blocks, None, 8 * words * warps)
    blocks = min(_kernel.blocks(tasks, most_warps), _GLOBAL_BLOCKS)
    return _Scratch(words, most_warps, blocks, _array.empty(s.gt.box, (blocks * most_warps * words,)), 0)


def _match(s: _Scene, weight: Any) -> tuple[Any, Any]:
    """(mate, overlap) of each ground-truth row: a predicted row or -1."""
    rows, frames = int(s.gt.row.shape[0]), int(s.gt.start.shape[0]) - 1
    mate, iou = _array.empty(s.gt.row, (rows,), "int64"), _array.empty(s.gt.box, (rows,))
    scratch = _scratch(s, frames, _MATCH_WARPS[0])
    _kernel.kernel("mot_match.cu", "mot_match")(
        (scratch.blocks,), (32, scratch.warps), s.gt.start, s.pred.start, *s.pairs, weight, mate, iou,
        scratch.workspace, frames, scratch.words, shared_mem=scratch.shared,
    )  # fmt: skip
    return mate, iou


def _clear(s: _Scene, sizes: Sequence[Sizes]) -> list[Figures]:
    rows, identities, n = int(s.gt.row.shape[0]), int(s.gt.own_sequence.shape[0]), len(sizes)
    weight = _array.empty(s.gt.box, tuple(s.pair_iou.shape))
    track = _array.empty(s.gt.row, (5, identities), "int64")
    mate, switched = (_array.empty(s.gt.row, (rows,), "int64") for _ in range(2))
    counts, overlap = _array.empty(s.gt.row, (n, 6), "int64"), _array.empty(s.gt.box, (n,))
    scratch = _scratch(s, n, 1)
    _kernel.kernel("mot_match.cu", "mot_clear")(
        (scratch.blocks,), (32,), s.frame_start, s.gt.first, s.gt.start, s.gt.identity, s.pred.start, s.pred.identity,
        *s.pairs, weight, track, mate, switched, counts, overlap, scratch.workspace,
        n, identities, scratch.words, THRESHOLD - EPS, shared_mem=scratch.shared,
    )  # fmt: skip
    found = _array.to_host(counts).tolist(), _array.to_host(overlap).tolist()
    return [
        families.clear_figures(size, ClearCounts(tp, switches, again, mostly, partly, overlap))
        for size, (tp, switches, again, mostly, partly, _), overlap in zip(sizes, *found, strict=True)
    ]


def _warp_rows(s: _Scene, dtype: str, columns: int) -> tuple[tuple[int], Any, int]:
    """(grid, rows, pitch): a row of zeros for each warp, with ``columns`` for each predicted identity of a sequence."""
    pitch = max(int(s.pred.identities.max()), 1)
    identities = int(s.gt.own_sequence.shape[0])
    fits = max(_WORKSPACE // (_WARPS * pitch * columns * np.dtype(dtype).itemsize), 1)
    blocks = min(_grid(identities, _WARPS)[0], fits)
    return (blocks,), _array.zeros(s.gt.box, (blocks * _WARPS * pitch * columns,), dtype), pitch


def _identity(s: _Scene, sizes: Sequence[Sizes]) -> list[Figures]:
    identities = int(s.gt.own_sequence.shape[0])
    most = int(s.gt.identities.max()), int(s.pred.identities.max())
    count = _array.zeros(s.gt.box, (len(sizes), *most))
    _kernel.kernel("mot_pairs.cu", "mot_cooccur")(
        _grid(identities, _WARPS), _BLOCK, s.gt.own_start, s.gt.own_row, s.gt.own_sequence, s.pred.identity,
        s.gt.first, s.pred.first, *s.pairs, count, identities, *most, THRESHOLD,
    )  # fmt: skip
    ends = (side.first[1:] - side.first[:-1] for side in (s.gt, s.pred))
    n_rows, n_cols = ends
    best = linear_sum_assignment(count, maximize=True, n_rows=n_rows, n_cols=n_cols).total
    return [families.identity_figures(*pair) for pair in zip(sizes, _array.to_host(best).tolist(), strict=True)]


def _hota(s: _Scene, sizes: Sequence[Sizes]) -> list[Figures]:
    rows, identities = int(s.gt.row.shape[0]), int(s.gt.own_sequence.shape[0])
    n_pred, levels = int(s.pred.row.shape[0]), LEVELS.size
    column = _array.empty(s.gt.box, (n_pred,))
    weight = _array.empty(s.gt.box, tuple(s.pair_iou.shape))
    pred_count = s.pred.own_start[1:] - s.pred.own_start[:-1]
    _kernel.kernel("mot_pairs.cu", "mot_columns")(
        _grid(n_pred, _WARPS), _BLOCK, s.gt.box, s.gt.start, s.pred.box, s.pred.frame, s.pred.start,
        s.pair_start, s.pair_iou, column, n_pred, EPS,
    )  # fmt: skip
    _kernel.kernel("mot_pairs.cu", "mot_share")(
        _grid(rows, _BLOCK), _BLOCK, s.gt.frame, s.pred.start, *s.pairs, column, weight, rows, EPS
    )
    owned = s.gt.own_start, s.gt.own_row, s.gt.own_sequence, s.pred.identity, pred_count, s.pred.first
    grid, workspace, pitch = _warp_rows(s, "float64", 1)
    _kernel.kernel("mot_pairs.cu", "mot_align")(grid, _BLOCK, *owned, *s.pairs, weight, workspace, identities, pitch)
    mate, iou = _match(s, weight)
    sums = _array.empty(s.gt.box, (identities, 5, levels))
    total = _array.empty(s.gt.box, (len(sizes), 5, levels))
    level = _array.from_host(LEVELS, s.gt.box)
    grid, workspace, pitch = _warp_rows(s, "int32", levels)
    _kernel.kernel("mot_pairs.cu", "mot_associate")(
        grid, _BLOCK, *owned, mate, iou, level, workspace, sums, identities, pitch, levels
    )
    _kernel.kernel("mot_pairs.cu", "mot_total")((len(sizes),), _BLOCK, sums, s.gt.first, total, 5 * levels)
    return [families.hota_figures(*pair) for pair in zip(sizes, _array.to_host(total), strict=True)]


def _count(s: _Scene, sizes: Sequence[Sizes]) -> list[Figures]:
    return [families.count_figures(size) for size in sizes]


_FAMILIES = {"clear": _clear, "identity": _identity, "hota": _hota, "count": _count}


def _sizes(s: _Scene, lengths: Sequence[int]) -> list[Sizes]:
    """Of each sequence."""
    edges = _array.to_host(s.frame_start)
    boxes = [np.diff(_array.to_host(side.start)[edges]).tolist() for side in (s.gt, s.pred)]
    identities = [side.identities.tolist() for side in (s.gt, s.pred)]
    return [Sizes(*values) for values in zip(*boxes, *identities, lengths, strict=True)]


def _on_device(gt: Boxes, pred: Boxes, names: Sequence[str], benchmark: str | None, lengths: Lengths) -> list[Figures]:
    s = _scene(gt, pred, len(lengths))
    n_frames = [_length(k, *both) for k, both in enumerate(zip(lengths, s.length.tolist(), strict=True))]
    if benchmark is not None:
        s = _scene(*_prepare(gt, pred, s, benchmark), len(lengths))
    sizes = _sizes(s, n_frames)
    parts = [_FAMILIES[name](s, sizes) for name in names]
    return [{key: value for part in of for key, value in part.items()} for of in zip(*parts, strict=True)]


def _some(boxes: Boxes, keep: Any) -> Boxes:
    return Boxes(*(None if x is None else x[keep] for x in boxes))


def _prepare(gt: Boxes, pred: Boxes, s: _Scene, benchmark: str) -> tuple[Boxes, Boxes]:
    """What `benchmarks.prepare` does, on the device, with all boxes as a scene."""
    scored = abs(gt.score) >= 1
    if benchmark == "MOT15":
        return _some(gt, scored), pred
    lib = _array.module(gt.box)
    mate, _ = _match(s, lib.where(s.pair_iou >= THRESHOLD - EPS, s.pair_iou, 0.0 * s.pair_iou))
    distractor = gt.class_ == benchmarks.DISTRACTORS[benchmark][0]
    for number in benchmarks.DISTRACTORS[benchmark][1:]:
        distractor = distractor | (gt.class_ == number)
    keep = _array.zeros(pred.box, pred.frame.shape, "int64") == 0
    keep[s.pred.row[mate[distractor[s.gt.row] & (mate >= 0)]]] = False
    return _some(gt, scored & (gt.class_ == benchmarks.PEDESTRIAN)), _some(pred, keep)
