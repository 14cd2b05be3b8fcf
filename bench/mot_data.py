"""Tracks for the benches: real detections linked, real sequences tiled into a crowd, and walks made of random numbers.

The real ones come from ``../shared/data/mot``, which is no part of the project; without it the benches skip.
They are written as text in TrackEval's layout to a folder of the user's, and reused when they are there.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

import cv3gpu
from cv3gpu import mot

from . import peers

SOURCE = Path(__file__).resolve().parent.parent.parent / "shared" / "data" / "mot"
TRACKER = "bench"  # the name of the only tracker of a set
VERSION = 1  # to be raised with any change of what is written

GATE, PATIENCE = 0.3, 30  # the linker: least overlap, and frames for which a lost track is remembered
SHIFT = 2500  # pixels between the copies of a sequence


class Tracked(NamedTuple):
    """Where the tracks of a sequence come from: a file of tracks, or of detections with their least score.

    ``cut`` ends every track after so many frames, as a worse tracker would.
    """

    path: str
    least_score: float | None = None
    cut: int | None = None


class Tile(NamedTuple):
    """A sequence repeated in space and in time."""

    gt: str
    pred: Tracked
    copies: int
    repeats: int


_YOLOX = "MOT17-yolox/{}/det/det_yolox_x_ablation.txt"
_MPN = "results/MPNTrack-MOT20/MOT20-01.txt"
TILES = (
    Tile("MOT20/MOT20-01", Tracked(_MPN), 3, 5),
    Tile("MOT20/MOT20-01", Tracked(_MPN, cut=150), 3, 5),
    Tile("MOT17-yolox/MOT17-04", Tracked(_YOLOX.format("MOT17-04"), 0.7), 3, 2),
    Tile("MOT17-yolox/MOT17-04", Tracked(_YOLOX.format("MOT17-04"), 0.5), 3, 2),
    Tile("MOT17-yolox/MOT17-04", Tracked(_YOLOX.format("MOT17-04"), 0.3), 3, 2),
    Tile("MOT17-yolox/MOT17-02", Tracked(_YOLOX.format("MOT17-02"), 0.7), 5, 4),
    Tile("MOT17-yolox/MOT17-02", Tracked("results/Lif_T-MOT17/MOT17-02-FRCNN.txt"), 5, 4),
)


class Written(NamedTuple):
    """A set in files: ground truth as ``<seq>/gt/gt.txt``, tracks as ``<trackers>/bench/data/<seq>.txt``."""

    gt: Path
    trackers: Path
    lengths: dict[str, int]

    @property
    def pred(self) -> Path:
        return self.trackers / TRACKER / "data"

    @property
    def files(self) -> list[Path]:
        """All of its text."""
        gt = [self.gt / seq / "gt" / "gt.txt" for seq in self.lengths]
        return gt + [self.pred / f"{seq}.txt" for seq in self.lengths]


# ---- the sets -------------------------------------------------------------------------------------------


def mot17() -> Written:
    """The 7 training sequences of MOT17: their own ground truth, and YOLOX's detections linked."""
    gt = _source("MOT17-yolox")
    lengths = {source.name: source.length for source in mot.sequences.find(gt, "gt").values()}
    trackers = peers.scratch() / f"mot17-{VERSION}"
    for seq in lengths:
        with _once(trackers / TRACKER / "data" / f"{seq}.txt") as path:
            if path:
                _write_pred(path, linked(mot.read(_source(_YOLOX.format(seq))), 0.6))
    return Written(gt, trackers, lengths)  # type: ignore[arg-type]


def crowd(n_sequences: int = len(TILES)) -> Written:
    """The first of the tiled sequences: all are of MOT20's size and density, 15,390 frames, 140 pedestrians in each."""
    folder = peers.scratch() / f"crowd-{n_sequences}-{VERSION}"
    lengths = {}
    for number, tile in enumerate(TILES[:n_sequences], 1):
        seq = f"CROWD-{number:02}"
        source = _source(tile.gt)
        one = mot.sequences.find(source / "gt" / "gt.txt", "gt")[source.name]
        length = one.length or 0
        lengths[seq] = length * tile.repeats
        with _once(folder / "gt" / seq / "gt" / "gt.txt") as path:
            if path:
                _write_gt(path, tiled(one.read(), length, tile))
        with _once(folder / "trackers" / TRACKER / "data" / f"{seq}.txt") as path:
            if path:
                _write_pred(path, tiled(_tracked(tile.pred), length, tile))
        (folder / "gt" / seq / "seqinfo.ini").write_text(f"[Sequence]\nname={seq}\nseqLength={lengths[seq]}\n")
    return Written(folder / "gt", folder / "trackers", lengths)


def _tracked(pred: Tracked) -> mot.Tracks:
    tracks = mot.read(_source(pred.path))
    if pred.least_score is not None:
        tracks = linked(tracks, pred.least_score)
    if pred.cut is not None:
        part = tracks.frame // pred.cut
        tracks = mot.Tracks(tracks.frame, tracks.id * (part.max() + 1) + part, tracks.box, tracks.score)
    return tracks


def linked(detections: mot.Tracks, least_score: float) -> mot.Tracks:
    """Tracks of detections: each goes on the track whose last box it overlaps, by the best matching of a frame."""
    found = detections[detections.score >= least_score]
    found = found[np.argsort(found.frame, kind="stable")]
    identity = np.empty(len(found), np.int64)
    box, track, seen = np.empty((0, 4)), np.empty(0, np.int64), np.empty(0, np.int64)  # of what is remembered
    n_tracks = 0
    frames, starts = np.unique(found.frame, return_index=True)
    for frame, rows in zip(frames.tolist(), np.split(np.arange(len(found)), starts[1:]), strict=True):
        recent = frame - seen <= PATIENCE
        box, track, seen = box[recent], track[recent], seen[recent]
        iou = cv3gpu.box_iou(box, found.box[rows], format="xywh")
        old, new, _ = cv3gpu.linear_sum_assignment(np.where(iou >= GATE, 1 - iou, np.inf))
        old, new = old[old >= 0], new[new >= 0]
        identity[rows] = -1
        identity[rows[new]] = track[old]
        fresh = rows[identity[rows] < 0]
        identity[fresh] = n_tracks + 1 + np.arange(fresh.size)
        n_tracks += fresh.size
        lost = np.setdiff1d(np.arange(track.size), old)
        box = np.concatenate([box[lost], found.box[rows]])
        track = np.concatenate([track[lost], identity[rows]])
        seen = np.concatenate([seen[lost], np.full(rows.size, frame)])
    return mot.Tracks(found.frame, identity, found.box, found.score)


def tiled(tracks: mot.Tracks, length: int, tile: Tile) -> mot.Tracks:
    """Copies side by side, and repeats of which every second runs backwards; odd identities are new in each repeat."""
    span = int(tracks.id.max()) + 1
    frames, identities, boxes = [], [], []
    for repeat in range(tile.repeats):
        frame = tracks.frame if repeat % 2 == 0 else length + 1 - tracks.frame
        for copy in range(tile.copies):
            again = np.where(tracks.id % 2 == 1, repeat, 0)
            frames.append(frame + repeat * length)
            identities.append(tracks.id + span * (copy + tile.copies * again))
            boxes.append(tracks.box + np.array([SHIFT * copy, 0.0, 0.0, 0.0]))
    times = tile.repeats * tile.copies
    columns = [np.tile(column, times) for column in (tracks.score, tracks.class_, tracks.visibility)]
    return mot.Tracks(np.concatenate(frames), np.concatenate(identities), np.concatenate(boxes), *columns)


# ---- walks ----------------------------------------------------------------------------------------------

WIDTH, HEIGHT = 7500, 1080  # three images side by side
STAY, LOST = 500, 60  # frames for which a person stays, and for which a tracker may lose one


def walks(
    n_sequences: int, frames: int, people: int, others: int = 0, found: float = 0.75
) -> tuple[mot.Boxes, mot.Boxes]:
    """Random walkers and a tracker that sees the share ``found`` of them, as arrays for :func:`mot.evaluate_boxes`.

    ``others`` are boxes that do not count (class 7), of which the tracker sees a few. The tracker loses a walker
    for 60 frames at a time, and finds it under a new identity.
    """
    sides = [_walk(np.random.default_rng(k), k, frames, people, others, found) for k in range(n_sequences)]
    gt, pred = zip(*sides, strict=True)
    return _joined(gt), _joined(pred)


def _joined(parts: Sequence[mot.Boxes]) -> mot.Boxes:
    return mot.Boxes(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def walk_tracks(frames: int, people: int) -> tuple[mot.Tracks, mot.Tracks]:
    """The walkers of one sequence, and a tracker that sees most of them."""
    gt, pred = walks(1, frames, people)
    return mot.Tracks(gt.frame, gt.id, gt.box), mot.Tracks(pred.frame, pred.id, pred.box)


def _walk(
    rng: np.random.Generator, sequence: int, frames: int, people: int, others: int, found: float
) -> tuple[mot.Boxes, mot.Boxes]:
    n = people + others
    steps = rng.normal(0, 2, (frames, n, 2))
    steps[0] = rng.random((n, 2)) * (WIDTH, HEIGHT)
    place = np.cumsum(steps, axis=0)
    edge = np.array([WIDTH, HEIGHT], float)
    place = edge - np.abs(place % (2 * edge) - edge)  # reflected at the edges
    width = 30 + 50 * rng.random(n)
    size = np.broadcast_to(np.stack([width, 2.5 * width], -1), place.shape)
    frame, walker = np.divmod(np.arange(frames * n), n)
    counts = walker < people
    gt = mot.Boxes(
        frame + 1,
        walker + n * ((frame + 37 * walker) // STAY),
        np.concatenate([place, size], -1).reshape(-1, 4),
        counts.astype(np.float64),
        np.where(counts, 1, 7),
        np.full(frame.size, sequence),
    )
    spell = frame // LOST
    seen = rng.random((spell[-1] + 1, n)) < np.where(np.arange(n) < people, found, 0.05)
    onset = np.cumsum(np.diff(seen, axis=0, prepend=False) & seen, axis=0)
    rows = np.flatnonzero(seen[spell, walker])
    noise = rng.normal(0, 0.06, (rows.size, 4)) * gt.box[rows][:, [2, 3, 2, 3]]
    pred = mot.Boxes(
        gt.frame[rows],
        walker[rows] + n * onset[spell[rows], walker[rows]],
        gt.box[rows] + noise,
        np.ones(rows.size),
        np.ones(rows.size, np.int64),
        gt.sequence[rows],
    )
    return gt, pred


# ---- files ----------------------------------------------------------------------------------------------


def _source(name: str) -> Path:
    if not (SOURCE / name).exists():
        pytest.skip(f"needs ../shared/data/mot/{name}")
    return SOURCE / name


@contextlib.contextmanager
def _once(path: Path) -> Iterator[Path | None]:
    """Gives a path to write to, which becomes ``path`` at the end; None if that is there."""
    if path.is_file():
        yield None
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.{os.getpid()}")
    yield unfinished
    os.replace(unfinished, path)


def _write_gt(path: Path, tracks: mot.Tracks) -> None:
    order = np.lexsort((tracks.frame, tracks.id))
    columns = (tracks.frame, tracks.id, *tracks.box.T, tracks.score, tracks.class_, tracks.visibility)
    _write(path, "%d,%d,%g,%g,%g,%g,%d,%d,%g\n", columns, order)


def _write_pred(path: Path, tracks: mot.Tracks) -> None:
    order = np.lexsort((tracks.id, tracks.frame))
    columns = (tracks.frame, tracks.id, *tracks.box.T, tracks.score)
    _write(path, "%d,%d,%.2f,%.2f,%.2f,%.2f,%g,-1,-1,-1\n", columns, order)


def _write(path: Path, template: str, columns: tuple[np.ndarray, ...], order: np.ndarray) -> None:
    with path.open("w", encoding="ascii") as file:
        for rows in np.array_split(order, len(order) // 100_000 + 1):
            file.writelines(template % row for row in zip(*(column[rows].tolist() for column in columns), strict=True))
