"""What ``cv3gpu track`` does: finds detections, links them by one of the trackers, writes the tracks."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from . import mot, viz
from .errors import DataFormatError
from .mot import _seqinfo

__all__ = ["METHODS", "Sequence", "Tracked", "animate", "can_animate", "find", "images_of", "link", "track"]

METHODS = ("mpn", "flow", "byte", "sort")
FPS = 30.0  # where nothing says it


class Sequence(NamedTuple):
    """Detections of one sequence, and what its seqinfo.ini says."""

    name: str
    path: Path
    fps: float = FPS
    length: int | None = None  # frames
    camera: Path | None = None  # file with its motion


class Tracked(NamedTuple):
    """What came of a sequence."""

    file: Path
    frames: int
    detections: int
    tracks: int
    boxes: int
    seconds: float  # of the tracker, without reading and writing
    satisfied: float | None  # share of the constraints before rounding, of a network

    @property
    def fps(self) -> float:
        """Frames per second."""
        return self.frames / self.seconds if self.seconds > 0 else 0.0


def find(path: Path) -> list[Sequence]:
    """The sequences in a file, or in a folder as <seq>/det/det.txt or <seq>.txt; by name.

    Raises
    ------
    DataFormatError
        If there are none, or several files in a folder ``det``; if a ``seqinfo.ini`` has a rate or a length that is
        none.
    """
    if path.is_file():
        inside = path.parent.name == "det"
        return [_of(path, path.absolute().parent.parent) if inside else Sequence(path.name.split(".")[0], path)]
    folders = [path] if (path / "det").is_dir() else sorted(p for p in path.iterdir() if (p / "det").is_dir())
    if folders:
        return [_of(_in(folder / "det"), folder) for folder in folders]
    if files := sorted(path.glob("*.txt")):
        return [Sequence(file.stem, file) for file in files]
    seen = ", ".join(sorted(p.name for p in path.iterdir())[:8]) or "nothing"
    raise DataFormatError(f"{path}: must hold detections as <seq>/det/det.txt or <seq>.txt, got {seen}")


def _in(folder: Path) -> Path:
    files = [folder / "det.txt"] if (folder / "det.txt").is_file() else sorted(folder.glob("*.txt"))
    if len(files) != 1:
        got = ", ".join(file.name for file in files) or "no .txt file"
        raise DataFormatError(f"{folder}: must hold det.txt or one other .txt file, got {got}")
    return files[0]


def _of(file: Path, folder: Path) -> Sequence:
    """The sequence of a file of detections in ``folder``, with what lies beside it there."""
    info, motion = folder / _seqinfo.NAME, folder / "gmc.txt"
    camera = motion if motion.is_file() else None
    if not info.is_file():
        return Sequence(folder.absolute().name, file, camera=camera)
    with info.open("rb") as opened:
        text = _seqinfo.decoded(opened.read(_seqinfo.MAX_BYTES))
    rate, length = _seqinfo.frame_rate(str(info), text), _seqinfo.length(str(info), text)
    return Sequence(folder.absolute().name, file, rate or FPS, length, camera)


def link(
    detections: mot.Tracks,
    method: str,
    *,
    fps: float = FPS,
    interpolate: int = 0,
    min_length: int = 1,
    weights: Any = None,
    camera: Any = None,
) -> tuple[mot.Tracks, float | None]:
    """The tracks of detections, and of a network the share of constraints satisfied before rounding."""
    if method == "mpn":
        found, info = mot.track(
            detections, weights=weights, camera=camera, interpolate=interpolate, min_length=min_length, return_info=True
        )
        return found, info.satisfied
    run: dict[str, Callable[[], mot.Tracks]] = {
        "flow": lambda: mot.flow_tracker(detections),
        "byte": lambda: mot.byte_track(detections, max_age=round(fps)),
        "sort": lambda: mot.sort(detections),
    }
    return mot.interpolate(mot.drop_short(run[method](), min_length), interpolate), None


def track(
    sequences: list[Sequence], method: str, out: Path, *, score: float | None = None, format: str = "motchallenge",
    progress: Callable[[str], None] = lambda name: None, **options: Any,
) -> Mapping[str, Tracked]:  # fmt: skip
    """Links the detections of each sequence and writes ``out/<seq>.txt``, or ``out`` for one that is no folder."""
    whole = len(sequences) > 1 or out.is_dir()
    if whole:
        out.mkdir(exist_ok=True)
    done = {}
    for sequence in sequences:
        progress(sequence.name)
        detections = mot.read(sequence.path)
        if score is not None:
            detections = detections[detections.score >= score]
        last = int(detections.frame.max()) if len(detections) else 0
        camera = mot.neural.read_camera(sequence.camera, last) if sequence.camera and method == "mpn" else None
        begun = time.perf_counter()
        found, satisfied = link(detections, method, fps=sequence.fps, camera=camera, **options)
        seconds = time.perf_counter() - begun
        file = out / f"{sequence.name}.{'xml' if format == 'detrac' else 'txt'}" if whole else out
        mot.write(file, found, format)
        tracks = len(set(zip(found.id.tolist(), found["class"].tolist(), strict=True)))
        done[sequence.name] = Tracked(
            file, sequence.length or last, len(detections), tracks, len(found), seconds, satisfied
        )
    return done


def can_animate() -> None:
    """Raises what :func:`animate` would raise where Pillow is missing: to know before the work."""
    viz.pillow()


def images_of(sequence: Sequence) -> Callable[[int], Path] | None:
    """The path of a frame's picture in a folder img1 beside det, or None where there are none."""
    pictures = sequence.path.absolute().parent.parent / "img1"
    shown = sequence.path.parent.name == "det" and (pictures / "000001.jpg").is_file()
    return (lambda frame: pictures / f"{frame:06d}.jpg") if shown else None


def animate(sequence: Sequence, tracks: Path, out: Path) -> None:
    """Draws a file of tracks as an animated GIF, on the pictures of a folder img1 beside det where they are there.

    Raises
    ------
    DataFormatError
        If there is no track, or they cannot be drawn: too many frames, or pictures of several sizes.
    """
    try:
        viz.tracks_gif(out, mot.read(tracks), images=images_of(sequence), fps=min(sequence.fps, 50.0))
    except ValueError as error:
        raise DataFormatError(f"{sequence.path}: cannot be drawn, {error}") from error
