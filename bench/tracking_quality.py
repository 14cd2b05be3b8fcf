"""How well the trackers follow people: ``python -m bench.tracking_quality --data DIR``.

DIR is a folder of sequences ``<seq>/gt/gt.txt`` with detections in ``<seq>/det`` (one .txt file) and a
``seqinfo.ini``, as MOTChallenge's; or a folder with ``MOT17-yolox`` in it. Every tracker gets the same detections. The
figures are of the second halves, frames f > N // 2 + 1 counted from 1 again, because detectors and networks were
trained, and costs chosen, on the first ones; ``--whole`` takes the sequences as they are. Each tracker is scored with
and without gaps of up to ``GAP`` frames filled. Ratios are percentages. ``constraints`` is the share of the
constraints, at most one link out of and one into each node, that a network's scores satisfy before rounding. ``fps``
counts the tracker alone, not files, scoring or interpolation.

``--weights`` gives networks to compare, such as of several seeds; a folder holds one for each sequence,
``<seq>.safetensors``, as leave-one-out has them. Without it the one that comes with the package is taken.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cv3gpu import _track, mot

from .entry import RESULTS

GAP = 18  # frames, as in ByteTrack's scripts: boxes less than 20 frames apart
SCORE = 0.6  # least one of a detection for SORT, as ByteTrack's authors run it
AGE = 30  # frames that SORT remembers a lost track, likewise
RATIOS = ("HOTA", "DetA", "AssA", "MOTA", "IDF1")
COUNTS = ("CLR_FP", "CLR_FN", "IDSW", "Frag")


class Part(NamedTuple):
    """A sequence, or half of one."""

    detections: mot.Tracks
    gt: mot.Tracks
    fps: float
    length: int


class Row(NamedTuple):
    """Figures of a tracker over all sequences."""

    tracker: str
    figures: dict[str, float]
    satisfied: float | None
    fps: float | None


Run = Callable[[str, Part], tuple[mot.Tracks, float | None]]


def _from(tracks: mot.Tracks, first: int) -> mot.Tracks:
    """The rows after frame ``first``, whose frames count from 1 again."""
    some = tracks[tracks.frame > first]
    columns = {name: getattr(some, name) for name in ("id", "box", "score", "class_", "visibility")}
    return mot.Tracks(frame=some.frame - first, **columns)


def load(data: Path, half: str = "second") -> dict[str, Part]:
    """The sequences of a folder: their second or first halves, or ``"whole"``."""
    folder = data / "MOT17-yolox" if (data / "MOT17-yolox").is_dir() else data
    parts = {}
    for sequence in _track.find(folder):
        detections, gt = mot.read(sequence.path), mot.read(sequence.path.parent.parent / "gt" / "gt.txt")
        length = sequence.length or int(max(detections.frame.max(), gt.frame.max()))
        middle = 0 if half == "whole" else length // 2 + 1
        if half == "first":
            some = [tracks[tracks.frame <= middle] for tracks in (detections, gt)]
            parts[sequence.name] = Part(*some, sequence.fps, middle)
        else:
            parts[sequence.name] = Part(_from(detections, middle), _from(gt, middle), sequence.fps, length - middle)
    return parts


def _network(levels: int | None, weights: Path | None) -> Run:
    def run(name: str, part: Part) -> tuple[mot.Tracks, float | None]:
        file = weights / f"{name}.safetensors" if weights is not None and weights.is_dir() else weights
        found, info = mot.track(part.detections, weights=file, levels=levels, interpolate=0, return_info=True)
        return found, info.satisfied

    return run


def trackers(weights: Sequence[Path | None]) -> dict[str, Run]:
    """Those of the table."""
    runs: dict[str, Run] = {
        "SORT": lambda name, part: (mot.sort(part.detections, min_score=SCORE, max_age=AGE), None),
        "ByteTrack": lambda name, part: (mot.byte_track(part.detections), None),
        "min-cost flow": lambda name, part: (mot.flow_tracker(part.detections), None),
    }
    for file in weights:
        suffix = f" ({file.name})" if file is not None else ""
        runs[f"MPN, one level{suffix}"] = _network(1, file)
        runs[f"MPN, hierarchy{suffix}"] = _network(None, file)
    return runs


def figures(parts: dict[str, Part], found: dict[str, mot.Tracks], benchmark: str) -> dict[str, float]:
    """Of all sequences together."""
    lengths = {name: part.length for name, part in parts.items()}
    gt = {name: part.gt for name, part in parts.items()}
    (of_class,) = mot.evaluate(gt, found, benchmark=benchmark, lengths=lengths).combined.values()
    return {name: float(np.mean(of_class[name])) for name in (*RATIOS, *COUNTS)}


def score(tracker: str, run: Run, parts: dict[str, Part], benchmark: str = "MOT17", gap: int = GAP) -> list[Row]:
    """A tracker without and with interpolation."""
    found, satisfied, seconds = {}, {}, 0.0
    for name, part in parts.items():
        begun = time.perf_counter()
        found[name], share = run(name, part)
        seconds += time.perf_counter() - begun
        if share is not None:
            satisfied[name] = share
    weight = [len(parts[name].detections) for name in satisfied]
    share = float(np.average(list(satisfied.values()), weights=weight)) if satisfied else None
    fps = sum(part.length for part in parts.values()) / seconds
    filled = {name: mot.interpolate(tracks, gap) for name, tracks in found.items()}
    return [
        Row(tracker, figures(parts, found, benchmark), share, fps),
        Row(f"{tracker} + interpolation", figures(parts, filled, benchmark), None, None),
    ]


def cells(row: Row) -> list[str]:
    """A line of the table, as text."""
    ratios = [f"{100 * row.figures[name]:.2f}" for name in RATIOS]
    counts = [f"{row.figures[name]:.0f}" for name in COUNTS]
    share = "" if row.satisfied is None else f"{100 * row.satisfied:.2f}"
    return [row.tracker, *ratios, *counts, share, "" if row.fps is None else f"{row.fps:.0f}"]


HEADER = ["tracker", *RATIOS, "FP", "FN", "IDSW", "Frag", "constraints", "fps"]


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """The table."""
    lines = [HEADER, ["---"] + ["---:"] * (len(HEADER) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table and writes it as CSV."""
    parser = argparse.ArgumentParser(prog="python -m bench.tracking_quality", description=__doc__.splitlines()[0])
    option = parser.add_argument
    option("--data", type=Path, required=True, help="folder of sequences")
    option("--only", nargs="+", metavar="WORD", help="only trackers whose names hold one of these")
    option("--weights", type=Path, nargs="+", default=[None], help="networks, or folders of <seq>.safetensors")
    option("--whole", action="store_true", help="whole sequences, not second halves")
    option("--benchmark", default="MOT17", choices=("MOT15", "MOT16", "MOT17", "MOT20"), help="whose rules")
    option("--csv", type=Path, default=RESULTS / "tracking.csv", help="file to write")
    chosen: Any = parser.parse_args(arguments)
    parts = load(chosen.data, "whole" if chosen.whole else "second")
    rows = []
    for name, run in trackers(chosen.weights).items():
        if chosen.only is None or any(word.lower() in name.lower() for word in chosen.only):
            found = score(name, run, parts, chosen.benchmark)
            rows += map(cells, found)
            print(*markdown(rows[-2:]).splitlines()[-2:], sep="\n", file=sys.stderr, flush=True)
    with chosen.csv.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([HEADER, *rows])
    print(markdown(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
