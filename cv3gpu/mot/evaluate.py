"""From files or tracks to a report: sequences are paired, read, scored side by side, and combined."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from typing import Any, NamedTuple, Protocol

from .. import _check, _tasks
from . import benchmarks, detrac, formats, sequences
from . import metrics as families
from .report import ByClass, Comparison, Figures, Report
from .tracks import MAX_FRAME, Tracks

__all__ = ["METRICS", "Held", "Pair", "compare", "evaluate", "pairs"]

METRICS = ("clear", "identity", "hota")
UNNAMED = "sequence"
EMPTY = "a sequence in which nothing was found has an empty file"

LINE, OPENING = 40, 20_000  # bytes of a line, and as many as opening the files of a sequence takes time for

# Of the files of each benchmark; DETRAC's say it themselves, as trackers' results may be text.
FORMATS = {**dict.fromkeys(("MOT15", "MOT16", "MOT17", "MOT20"), "motchallenge"), "KITTI": "kitti"}

TracksLike = str | os.PathLike[str] | Tracks | Mapping[str, Tracks]


class Source(Protocol):
    """Where the tracks of a sequence come from: something that can travel to another process."""

    @property
    def name(self) -> str: ...
    @property
    def length(self) -> int | None: ...
    def read(self) -> Tracks: ...


def evaluate(
    gt: TracksLike,
    pred: TracksLike,
    *,
    metrics: str | Sequence[str] = METRICS,
    benchmark: str | None = None,
    executor: Executor | None = None,
    format: str | None = None,
    lengths: Mapping[str, int | None] | None = None,
    progress: Callable[[str], None] | None = None,
    on_error: str = "raise",
) -> Report:
    """Scores a tracker's output against ground truth, sequence by sequence and all together.

    Parameters
    ----------
    gt, pred : path, Tracks, or mapping of sequence to Tracks
        Ground truth and prediction. A path is a file, a folder or a zip archive: ``<seq>/gt/gt.txt`` or
        ``<seq>.txt`` for ground truth, ``<seq>.txt`` for predictions. Sequences are paired by name; but if one
        side is ``Tracks`` or a single file, and the other has one sequence, these two are a pair whatever they are
        called.
    metrics : str or sequence of str
        Of ``"clear"``, ``"identity"``, ``"hota"``, ``"vace"``, ``"count"``.
    benchmark : str, optional
        Whose rules apply: ``"MOT15"``, ``"MOT16"``, ``"MOT17"``, ``"MOT20"``, ``"KITTI"`` or ``"DETRAC"``
        (:func:`prepare`). Without one, everything counts, as one class ``"all"``.
    executor : concurrent.futures.Executor, optional
        Scores the sequences: threads, processes, or Dask's ``client.get_executor()``. What is given as a path is
        read by the worker; processes get small sequences several at a time. Without one, as many threads as cores.
    format : str, optional
        Format of the files. If left out it is the benchmark's, ``"motchallenge"`` for MOT15 to MOT20 and ``"kitti"``
        for KITTI; for DETRAC and without a benchmark it is found out for each file (:func:`read`).
    lengths : mapping of sequence to int, optional
        Numbers of frames. Of a sequence that is not here, or is None, the files say it (seqinfo, seqmap), or it
        reaches to the last frame seen on either side.
    progress : callable, optional
        Called with the name of each sequence, in their order, once those before it are done.
    on_error : {"raise", "keep"}
        What becomes of sequences that fail: an error once the others are done, or a report without them, whose
        ``failures`` has their errors and which has no ``combined``.

    Returns
    -------
    Report
        ``sequences``, ``combined``, ``failures``, ``to_dict()``, ``to_json()``, ``to_csv()``; printed, it is a table.

    Raises
    ------
    DataFormatError
        A malformed file, or one of another format than the benchmark's.
    ValueError
        A sequence of ``gt`` without prediction (an empty file is one); a frame beyond the length of its
        sequence; a length of a sequence that there is not; what :func:`prepare` and the metrics refuse.
    TypeError
        A side that is neither a path nor ``Tracks`` nor a mapping of names to ``Tracks``; an argument of another
        kind.

    Notes
    -----
    A sequence without prediction is an error, because leaving it out would flatter the tracker. Predictions
    without ground truth are left out with a warning: folders of results often hold the test sequences as well.

    If a sequence fails, the others are finished first. The error raised is that of the first sequence that
    failed; its notes name every one that did, and say how many went well; its attribute ``report`` is the report of
    these alone (None if there are none).

    Frames count from 0 for KITTI, and wherever a frame 0 occurs, else from 1. For DETRAC, CLEAR follows the
    toolkit's rules (:mod:`cv3gpu.mot.detrac`); the toolkit has neither identity metrics nor HOTA, and these are
    TrackEval's on the boxes that the toolkit counts. The figures don't depend on the executor.

    References
    ----------
    Luiten, Hoffhues: TrackEval, https://github.com/JonathonLuiten/TrackEval, whose figures these are.

    Examples
    --------
    >>> from cv3gpu import mot
    >>> gt = mot.Tracks([1, 2], [1, 1], [[0, 0, 9, 9], [1, 0, 9, 9]])
    >>> report = mot.evaluate({"street": gt, "yard": gt}, {"street": gt, "yard": mot.Tracks([], [], [])})
    >>> report.sequences["street"]["all"]["MOTA"], report.combined["all"]["CLR_FN"]
    (1.0, 2)
    """
    op = "mot.evaluate"
    _check.choice(op, "on_error", on_error, ("raise", "keep"))
    found = pairs(op, gt, {"": pred}, benchmark, format)
    plan = _plan(op, found, metrics, benchmark, lengths)
    return plan.run(executor, progress, lambda reports: reports[""], keep=on_error == "keep")


def compare(
    gt: TracksLike,
    preds: Mapping[str, TracksLike],
    *,
    metrics: str | Sequence[str] = METRICS,
    benchmark: str | None = None,
    executor: Executor | None = None,
    format: str | None = None,
    lengths: Mapping[str, int | None] | None = None,
    progress: Callable[[str], None] | None = None,
) -> Comparison:
    """Scores several trackers side by side; the ground truth is read once.

    Parameters
    ----------
    gt : path, Tracks, or mapping of sequence to Tracks
    preds : mapping of tracker to what :func:`evaluate` takes
    metrics, benchmark, executor, format, lengths, progress : see :func:`evaluate`

    Returns
    -------
    Comparison
        ``reports`` by tracker, ``best(class)``, ``to_dict()``, ``to_json()``, ``to_csv()``; printed, it is a table.

    Raises
    ------
    DataFormatError, ValueError, TypeError
        As :func:`evaluate`; a sequence that fails for one tracker is left out of the error's ``report`` for all.

    Examples
    --------
    >>> from cv3gpu import mot
    >>> gt = mot.Tracks([1, 2], [1, 1], [[0, 0, 9, 9], [1, 0, 9, 9]])
    >>> comparison = mot.compare(gt, {"all": gt, "half": gt[:1]}, metrics="clear")
    >>> comparison.reports["half"].combined["all"]["MOTA"], comparison.best("all")["MOTA"]
    (0.5, ['all'])
    """
    op = "mot.compare"
    if not isinstance(preds, Mapping) or not preds or not all(isinstance(name, str) for name in preds):
        _check.fail(op, "preds", "be a mapping of at least one tracker", repr(preds), error=TypeError)
    found = pairs(op, gt, preds, benchmark, format)
    return _plan(op, found, metrics, benchmark, lengths).run(executor, progress, Comparison)


# ---- which sequences ------------------------------------------------------------------------------------


class Held(NamedTuple):
    """A sequence in memory, as :class:`cv3gpu.mot.sequences.Source` is one in a file."""

    name: str
    tracks: Tracks
    length: int | None = None

    def read(self) -> Tracks:
        """The tracks."""
        return self.tracks


class Pair(NamedTuple):
    """Both sides of a sequence."""

    name: str
    gt: Source
    pred: Source


class _Side(NamedTuple):
    argument: str  # as errors call it
    sources: Mapping[str, Source]
    alone: bool  # a sequence that its name does not tie to another
    named: bool = True


def pairs(
    op: str, gt: TracksLike, preds: Mapping[str, TracksLike], benchmark: str | None, format: str | None
) -> dict[str, list[Pair]]:
    """The sequences of both sides by tracker, paired and of the format that :func:`evaluate` says.

    A tracker without a name is the argument ``pred``.
    """
    if benchmark is not None:
        _check.choice(op, "benchmark", benchmark, list(benchmarks.BENCHMARKS))
    if format is None:
        format = FORMATS.get(benchmark or "")
    else:
        _check.choice(op, "format", format, formats.FORMATS)
    truth, found = _sources(op, "gt", "gt", gt, format), {}
    for tracker, pred in preds.items():
        argument = f"preds[{tracker!r}]" if tracker else "pred"
        found[tracker] = _paired(op, truth, _sources(op, "pred", argument, pred, format))
    return found


def _sources(op: str, side: str, argument: str, given: TracksLike, format: str | None) -> _Side:
    if isinstance(given, Tracks):
        return _Side(argument, {UNNAMED: Held(UNNAMED, given)}, alone=True, named=False)
    if isinstance(given, str | os.PathLike):
        found = sequences.find(given, side, format)
        alone = any((one.path, one.member) == (os.fspath(given), None) for one in found.values())
        return _Side(argument, found, alone)
    fits = isinstance(given, Mapping) and all(
        isinstance(name, str) and isinstance(tracks, Tracks) for name, tracks in given.items()
    )
    if not fits:
        wanted = "be a path, Tracks, or a mapping of sequences to Tracks"
        _check.fail(op, argument, wanted, _check.kind(given), error=TypeError)
    return _Side(argument, {name: Held(name, tracks) for name, tracks in given.items()}, alone=False)


def _paired(op: str, gt: _Side, pred: _Side) -> list[Pair]:
    if not gt.sources:
        _check.fail(op, "gt", "have at least one sequence", "none")
    if (gt.alone or pred.alone) and len(gt.sources) == len(pred.sources) == 1:
        ((gt_name, truth),), ((pred_name, given),) = gt.sources.items(), pred.sources.items()
        by_gt = not gt.alone or not pred.named
        return [Pair(gt_name if by_gt else pred_name, truth, given)]
    if missing := [name for name in gt.sources if name not in pred.sources]:
        _check.fail(op, pred.argument, "have every sequence of gt", f"none named {', '.join(missing)}", EMPTY)
    if extra := [name for name in pred.sources if name not in gt.sources]:
        text = f"{op}: predictions without ground truth are left out: {', '.join(extra)}"
        warnings.warn(text, UserWarning, stacklevel=4)  # whoever called evaluate, compare or event_logs
    return [Pair(name, source, pred.sources[name]) for name, source in gt.sources.items()]


# ---- the work -------------------------------------------------------------------------------------------


class _Job(NamedTuple):
    """A sequence of all trackers: what travels to a worker."""

    op: str
    name: str
    gt: Source
    preds: Mapping[str, Source]
    metrics: Sequence[str]
    benchmark: str | None
    length: int | None


Scores = dict[str, ByClass]  # by tracker


def _score(job: _Job) -> Scores:
    """The figures of one sequence."""
    gt, found = job.gt.read(), {}
    for tracker, source in job.preds.items():
        try:
            found[tracker] = _score_one(job, gt, source.read())
        except Exception as error:
            if tracker:
                error.add_note(f"while scoring tracker {tracker!r}")
            raise
    return found


def _weight(job: _Job) -> float:
    """About how long a sequence takes, in bytes of text."""
    return OPENING + sum(map(_size, (job.gt, *job.preds.values())))


def _size(source: Source) -> float:
    if isinstance(source, Held):
        return float(LINE * len(source.tracks))
    if not isinstance(source, sequences.Source) or source.member is not None:
        return 0.0  # an archive says it only to who opens it
    try:
        return float(os.path.getsize(source.path))
    except OSError:  # told by the worker
        return 0.0


def _score_one(job: _Job, gt: Tracks, pred: Tracks) -> ByClass:
    n_frames = _length(job, gt, pred)
    found = {}
    for name in benchmarks.classes(job.benchmark):
        sides = (gt, pred) if job.benchmark is None else benchmarks.prepare(gt, pred, job.benchmark, name)
        found[name] = _figures(job, *sides, n_frames)
    return found


def _length(job: _Job, gt: Tracks, pred: Tracks) -> int:
    """The number of frames, after a look whether those of both sides are within."""
    first = 0 if job.benchmark == "KITTI" else families.first_frame(gt, pred)
    if job.length is None:
        return families.length(gt, pred, first)
    last = job.length + first - 1
    for name, tracks in (("gt", gt), ("pred", pred)):
        if (tracks.frame > last).any():
            wanted = f"have frames from {first} to {last} in sequence {job.name!r} of {job.length} frames"
            _check.fail(job.op, name, wanted, f"frame {tracks.frame.max()}")
    return job.length


def _figures(job: _Job, gt: Tracks, pred: Tracks, n_frames: int) -> Figures:
    if job.benchmark != "DETRAC" or "clear" not in job.metrics:
        return families.figures(job.op, gt, pred, job.metrics, n_frames)
    others = [name for name in job.metrics if name != "clear"]
    clear = {**detrac.clear(gt, pred), "CLR_Frames": n_frames}
    return {**clear, **(families.figures(job.op, gt, pred, others, n_frames) if others else {})}


def _combine(parts: Sequence[Figures], metrics: Sequence[str], benchmark: str | None) -> Figures:
    if benchmark != "DETRAC" or "clear" not in metrics:
        return families.combine(parts, metrics)
    others = [name for name in metrics if name != "clear"]
    return {**detrac.combine(parts), **families.combine(parts, others)}


class _Plan(NamedTuple):
    """What is to be scored: a job for each sequence."""

    jobs: list[_Job]
    trackers: list[str]

    def run(
        self,
        executor: Executor | None,
        progress: Callable[[str], None] | None,
        finish: Callable[[dict[str, Report]], Any],
        keep: bool = False,
    ) -> Any:
        """Scores all sequences, and gives the reports to ``finish``; with failures in them if they are to be kept."""
        op = self.jobs[0].op
        _tasks.check_executor(op, executor)
        scores, failed = _run(self.jobs, executor, teller(op, progress))
        if keep and failed:
            partial = {tracker: {name: found[tracker] for name, found in scores.items()} for tracker in self.trackers}
            return finish({tracker: Report.partial(of, failed) for tracker, of in partial.items()})
        found = finish(self._reports(scores)) if scores else None
        if failed:
            error = next(iter(failed.values()))
            for name, other in failed.items():
                error.add_note(f"sequence {name!r} failed" + (f": {other}" if other is not error else ""))
            if scores:
                error.add_note(f"{len(scores)} of {len(scores) + len(failed)} sequences went well")
            error.report = found  # type: ignore[attr-defined]
            raise error
        return found

    def _reports(self, scores: dict[str, Scores]) -> dict[str, Report]:
        job = self.jobs[0]
        reports = {}
        for tracker in self.trackers:
            of = {name: found[tracker] for name, found in scores.items()}
            combined = {
                name: _combine([classes[name] for classes in of.values()], job.metrics, job.benchmark)
                for name in benchmarks.classes(job.benchmark)
            }
            reports[tracker] = Report(of, combined)
        return reports


def _plan(
    op: str,
    found: Mapping[str, list[Pair]],
    metrics: str | Sequence[str],
    benchmark: str | None,
    lengths: Mapping[str, int | None] | None,
) -> _Plan:
    names = chosen_metrics(op, metrics)
    known = known_lengths(op, lengths)
    present = {pair.name for pair in next(iter(found.values()))}
    if unknown := [name for name in known if name not in present]:
        _check.fail(op, "lengths", "name sequences of gt", ", ".join(map(repr, unknown)))
    jobs = []
    for same in zip(*found.values(), strict=True):
        name, source, _ = same[0]
        length = known.get(name, source.length)
        sides = dict(zip(found, (pair.pred for pair in same), strict=True))
        jobs.append(_Job(op, name, source, sides, names, benchmark, length))
    return _Plan(jobs, list(found))


def chosen_metrics(op: str, metrics: str | Sequence[str]) -> tuple[str, ...]:
    """The families of metrics, each once."""
    if not isinstance(metrics, Iterable):
        _check.fail(op, "metrics", "be a name or a sequence of names", _check.kind(metrics), error=TypeError)
    names = [metrics] if isinstance(metrics, str) else list(metrics)
    for name in names:
        _check.choice(op, "metrics", name, list(families.METRICS))
    if not names:
        _check.fail(op, "metrics", "name at least one family", "none")
    return tuple(dict.fromkeys(names))


def known_lengths(op: str, lengths: Mapping[str, int | None] | None) -> dict[str, int]:
    """Numbers of frames by sequence, of those that are known."""
    if lengths is None:
        return {}
    if not isinstance(lengths, Mapping):
        _check.fail(op, "lengths", "be a mapping of sequences to integers", _check.kind(lengths), error=TypeError)
    return {
        name: _check.integer(op, f"lengths[{name!r}]", length, 1, MAX_FRAME)
        for name, length in lengths.items()
        if length is not None
    }


def teller(op: str, progress: Callable[[str], None] | None) -> Callable[[str], None]:
    """What is told of each sequence as it begins."""
    if progress is None:
        return lambda name: None
    if not callable(progress):
        _check.fail(op, "progress", "be a function", _check.kind(progress), error=TypeError)
    return progress


def _run(
    jobs: Sequence[_Job], executor: Executor | None, progress: Callable[[str], None]
) -> tuple[dict[str, Scores], dict[str, Exception]]:
    """The scores of the sequences that went well, and the errors of the others."""
    scores, failed = {}, {}
    found = _tasks.outcomes(_score, jobs, executor, _weight)
    for job in jobs:
        progress(job.name)
        outcome = next(found)
        if outcome.error is None:
            scores[job.name] = outcome.value
        else:
            failed[job.name] = outcome.error
    return scores, failed
