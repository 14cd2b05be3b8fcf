"""Evaluation as the frames come in: in a training loop, and over several processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from typing import Any, NamedTuple

import numpy as np

from .. import _array, _check
from .arrays import ON_GPU, Boxes, evaluate_boxes
from .benchmarks import BENCHMARKS
from .evaluate import METRICS, UNNAMED, chosen_metrics, evaluate, known_lengths
from .metrics import combine
from .report import Report
from .tracks import COLUMNS, Tracks, checked

__all__ = ["Evaluator"]

FORMATS = ("xywh", "xyxy")
SIDES = ("gt", "pred")
PER_BOX = (*COLUMNS, "corner")


class _Frame(NamedTuple):
    """One side of a frame, where its arrays were: on the CPU or on a GPU."""

    number: int
    ids: Any
    boxes: Any
    format: str


_Sides = tuple[list[Tracks | _Frame], list[Tracks | _Frame]]


class Evaluator:
    """Collects ground truth and predictions, and scores them when asked.

    Parameters
    ----------
    metrics, benchmark, lengths : see :func:`evaluate`
        Lengths may be there of sequences that are not collected, as those of another process.

    Notes
    -----
    The figures rest on whole sequences, so that the boxes are kept until :meth:`reset`: 100 bytes each. In a
    distributed evaluation every process collects its own sequences (or frames of them), and one merges what the
    others send: an ``Evaluator`` can be pickled, and :meth:`state_dict` holds nothing but NumPy arrays. No frame
    may come twice, as it does where a sampler fills up the last batch: :meth:`compute` refuses it.

    Examples
    --------
    >>> import numpy as np
    >>> from cv3gpu import mot
    >>> evaluator = mot.Evaluator(metrics="clear")
    >>> box = np.array([[0.0, 0, 9, 9]])
    >>> for frame in range(1, 4):
    ...     evaluator.update_frame("street", frame, [1], box + frame, [7], box + frame)
    >>> evaluator.compute().combined["all"]["MOTA"]
    1.0
    """

    def __init__(
        self,
        metrics: str | Sequence[str] = METRICS,
        benchmark: str | None = None,
        lengths: Mapping[str, int | None] | None = None,
    ) -> None:
        self.metrics = chosen_metrics("mot.Evaluator", metrics)
        if benchmark is not None:
            _check.choice("mot.Evaluator", "benchmark", benchmark, list(BENCHMARKS))
        self.benchmark = benchmark
        self.lengths = known_lengths("mot.Evaluator", lengths)
        self.reset()

    def __repr__(self) -> str:
        return f"Evaluator({', '.join(self.metrics)}; {len(self._sides)} sequences)"

    def reset(self) -> None:
        """Forgets all boxes."""
        self._sides: dict[str, _Sides] = {}

    def update(self, gt: Tracks, pred: Tracks, sequence: str = UNNAMED) -> None:
        """Adds a sequence, or some frames of one.

        Parameters
        ----------
        gt, pred : Tracks
            A frame that was there before must not be there again.
        sequence : its name
        """
        op = "mot.Evaluator.update"
        _named(op, "sequence", sequence)
        for name, tracks in (("gt", gt), ("pred", pred)):
            checked(op, name, tracks)
        self._add(sequence, gt, pred)

    def update_frame(
        self,
        sequence: str,
        frame: int,
        gt_ids: Any,
        gt_boxes: Any,
        pred_ids: Any,
        pred_boxes: Any,
        *,
        format: str = "xywh",
    ) -> None:
        """Adds a frame. Arrays may be NumPy's, CuPy's or torch's, on any device; they are copied where they are.

        Parameters
        ----------
        sequence : name
        frame : int
            Number of the frame.
        gt_ids, pred_ids : array, [N] and [M], integers
        gt_boxes, pred_boxes : array, [N, 4] and [M, 4], pixels
        format : {"xywh", "xyxy"}
            Left, top, and then width, height or right, bottom.
        """
        op = "mot.Evaluator.update_frame"
        _named(op, "sequence", sequence)
        number = _check.integer(op, "frame", frame, 0)
        _check.choice(op, "format", format, FORMATS)
        sides = []
        for name, ids, boxes in (("gt", gt_ids, gt_boxes), ("pred", pred_ids, pred_boxes)):
            ids, boxes = _array.copy(ids), _array.copy(boxes)
            _check.shape(op, f"{name}_ids", ids, ["N"])
            if len(ids) or len(boxes):
                _check.shape(op, f"{name}_boxes", boxes, [len(ids), 4])
            sides.append(_Frame(number, ids, boxes, format))
        self._add(sequence, *sides)

    def _add(self, sequence: str, gt: Tracks | _Frame, pred: Tracks | _Frame) -> None:
        sides = self._sides.setdefault(sequence, ([], []))
        sides[0].append(gt)
        sides[1].append(pred)

    def compute(self, executor: Executor | None = None) -> Report:
        """The figures of all that was added, as :func:`evaluate` gives them; sequences are in the order of names.

        If all came by :meth:`update_frame` as arrays on one GPU, there is no benchmark, and the metrics are of those
        that :func:`evaluate_boxes` has there, they are computed there, with the same figures.
        """
        if self._on_gpu():
            return self._compute_on_gpu()
        gt, pred = self._tracks()
        lengths = {name: length for name, length in self.lengths.items() if name in gt}
        return evaluate(gt, pred, metrics=self.metrics, benchmark=self.benchmark, lengths=lengths, executor=executor)

    def _on_gpu(self) -> bool:
        parts = [part for sides in self._sides.values() for side in sides for part in side]
        if not parts or self.benchmark is not None or not set(self.metrics) <= set(ON_GPU):
            return False
        arrays = [x for part in parts if isinstance(part, _Frame) for x in (part.ids, part.boxes)]
        places = {(_array.family(x), _array.device_of(x)) for x in arrays}
        return len(arrays) == 2 * len(parts) and len(places) == 1 and _array.on_gpu(arrays[0])

    def _compute_on_gpu(self) -> Report:
        names = sorted(self._sides)
        gt, pred = (_gathered([self._sides[name][n] for name in names]) for n in (0, 1))
        known = [self.lengths.get(name) for name in names]
        found = evaluate_boxes(gt, pred, metrics=self.metrics, n_sequences=len(names), lengths=known)
        sequences = {name: {"all": figures} for name, figures in zip(names, found, strict=True)}
        return Report(sequences, {"all": combine(found, self.metrics)})

    def merge(self, other: Evaluator) -> None:
        """Adds what another one has collected, with the same metrics and by the same rules."""
        if not isinstance(other, Evaluator):
            _check.fail("mot.Evaluator.merge", "other", "be an Evaluator", _check.kind(other), error=TypeError)
        if (self.metrics, self.benchmark) != (other.metrics, other.benchmark):
            wanted = f"have metrics {self.metrics} and benchmark {self.benchmark}"
            _check.fail("mot.Evaluator.merge", "other", wanted, f"{other.metrics} and {other.benchmark}")
        for sequence, (gt, pred) in other._sides.items():
            sides = self._sides.setdefault(sequence, ([], []))
            sides[0].extend(gt)
            sides[1].extend(pred)
        self.lengths.update(other.lengths)

    def state_dict(self) -> dict[str, Any]:
        """What was collected: ``{sequence: {"gt": {column: array}, "pred": {column: array}}}``."""
        gt, pred = self._tracks()
        return {name: {"gt": _columns(gt[name]), "pred": _columns(pred[name])} for name in gt}

    def _tracks(self) -> tuple[dict[str, Tracks], dict[str, Tracks]]:
        """Both sides by sequence, in the order of their names."""
        gt, pred = {}, {}
        for name, sides in sorted(self._sides.items()):
            try:
                gt[name], pred[name] = map(_joined, sides)
            except ValueError as error:
                error.add_note(f"sequence {name!r} failed")
                raise
        return gt, pred

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes what :meth:`state_dict` gave, in place of what was collected."""
        op = "mot.Evaluator.load_state_dict"
        loaded: dict[str, _Sides] = {}
        if not isinstance(state, Mapping):
            _check.fail(op, "state", "be what state_dict gave", _check.kind(state), error=TypeError)
        for name, sides in state.items():
            _named(op, "name of a sequence", name)
            _holds(op, f"state[{name!r}]", sides, SIDES)
            for side, columns in sides.items():
                _holds(op, f"state[{name!r}][{side!r}]", columns, (*PER_BOX, "ignored"))
            loaded[name] = ([_of_columns(sides["gt"])], [_of_columns(sides["pred"])])
        self._sides = loaded


def _named(op: str, argument: str, name: object) -> None:
    """A sequence's name is a str."""
    if not isinstance(name, str):
        _check.fail(op, argument, "be a str", f"{name!r} ({_check.kind(name)})", error=TypeError)


def _holds(op: str, argument: str, part: object, keys: Sequence[str]) -> None:
    """A part of a state has the keys that it must have, and no other."""
    if not isinstance(part, Mapping):
        _check.fail(op, argument, "be a mapping", _check.kind(part), error=TypeError)
    if set(part) != set(keys):
        _check.fail(op, argument, f"hold {', '.join(keys)}", ", ".join(map(str, part)) or "nothing")


def _columns(tracks: Tracks) -> dict[str, np.ndarray]:
    columns = {name: tracks[name] for name in COLUMNS}
    return {**columns, "corner": tracks.corners()[:, 2:], "ignored": tracks.ignored}


def _of_columns(columns: Mapping[str, np.ndarray]) -> Tracks:
    return Tracks(**{"class_" if name == "class" else name: values for name, values in columns.items()})


def _of_frame(frame: _Frame) -> Tracks:
    ids = _array.to_host(frame.ids)
    boxes = _array.to_host(frame.boxes).astype(np.float64).reshape(len(ids), 4)
    if frame.format == "xyxy":
        boxes = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
    return Tracks(np.full(len(ids), frame.number), ids, boxes)


def _gathered(sequences: Sequence[Sequence[Any]]) -> Boxes:
    """The frames of several sequences as boxes where they are."""
    frames = [(k, frame) for k, parts in enumerate(sequences) for frame in parts]
    like = frames[0][1].ids
    lib = _array.module(like)
    counts = [len(frame.ids) for _, frame in frames]
    sequence = _array.from_host(np.repeat([k for k, _ in frames], counts).astype(np.int64), like)
    number = _array.from_host(np.repeat([frame.number for _, frame in frames], counts).astype(np.int64), like)
    return Boxes(
        number,
        lib.concatenate([frame.ids for _, frame in frames]),
        lib.concatenate([_sized(frame) for _, frame in frames]),
        sequence=sequence,
    )


def _sized(frame: _Frame) -> Any:
    boxes = frame.boxes.reshape((len(frame.ids), 4))
    if frame.format == "xywh":
        return boxes
    boxes = _array.copy(boxes)
    boxes[:, 2:] -= boxes[:, :2]
    return boxes


def _joined(parts: Sequence[Tracks | _Frame]) -> Tracks:
    """Some frames after others; the ignored regions are those of the first."""
    every = [_columns(_of_frame(part) if isinstance(part, _Frame) else part) for part in parts]
    columns = {name: np.concatenate([part[name] for part in every]) for name in PER_BOX}
    return _of_columns({**columns, "ignored": every[0]["ignored"]})
