"""Tracks in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np

from .. import _array, _check

__all__ = ["Tracks"]

NO_ID = -1  # a detection that belongs to no track yet, or a region that is none
MAX_FRAME = 2**31 - 1
MAX_ID = 2**53  # beyond, a number in a text file is not exact as float64
MAX_PIXEL = 1e9  # areas and their sums stay finite and precise

_DEFAULTS = {
    "score": np.float64(1),
    "class_": np.int64(-1),
    "visibility": np.float64(-1),
    "truncation": np.float64(-1),
    "occlusion": np.int64(-1),
}
_INTEGERS = ("frame", "id", "class_", "occlusion")
_COLUMNS = ("frame", "id", "box", "score", "class_", "visibility", "truncation", "occlusion")


@dataclass(frozen=True, eq=False, repr=False)
class Tracks:
    """Boxes with a frame and an identity each: ground truth, a tracker's output, or detections (id −1).

    The columns are read-only NumPy arrays of one length, in the order of the file. ``tracks["box"]`` (or
    ``tracks.box``) is a column, ``tracks[mask]`` are some of the rows as new ``Tracks``, and ``len(tracks)``
    is the number of boxes. The column ``class`` is also spelled ``class_``, which Python's grammar allows
    as an argument and an attribute.

    Parameters
    ----------
    frame : array_like, [N], int64
        Frame number as in the file: from 1 in MOTChallenge files, from 0 in KITTI's.
    id : array_like, [N], int64
        Identity, at least 0 and, within a class, at most once in a frame; −1 for a box without one.
    box : array_like, [N, 4], float64, pixels
        Left, top, width, height. A box whose width or height is not positive overlaps nothing.
    score : array_like, [N], float64, optional
        Confidence; in MOTChallenge's ground truth 0 marks a box to be ignored. 1 if left out.
    class_ : array_like, [N], int64, optional
        Class number, −1 (the default) for unknown.
    visibility : array_like, [N], float64, optional
        Visible share of the box, −1 (the default) for unknown.
    truncation : array_like, [N], float64, optional
        How far the object is outside of the image, as KITTI and UA-DETRAC say it; −1 (the default) for unknown.
    occlusion : array_like, [N], int64, optional
        How much is hidden: KITTI's 0 (nothing) to 3; −1 (the default) for unknown.
    ignored : array_like, [K, 4], float64, pixels, optional
        Left, top, width, height of regions in which nothing counts, in any frame. None if left out. It is no
        column: ``tracks[mask]`` has all of them.
    corner : array_like, [N, 2], float64, pixels, optional
        Right and bottom, where a file has these: the sum of ``box`` may differ from them in the last bit, on which
        the overlap of two boxes can hang. None if left out.

    Raises
    ------
    ValueError
        A column of another length or shape, a value that is not finite or out of range, an identity twice
        in a frame.

    Examples
    --------
    >>> from cv3gpu import mot
    >>> tracks = mot.Tracks(frame=[1, 1, 2], id=[1, 2, 1], box=[[0, 0, 9, 9], [50, 0, 9, 9], [1, 0, 9, 9]])
    >>> tracks
    Tracks(3 boxes, 2 identities, frames 1 to 2)
    >>> tracks[tracks.frame == 1]["id"].tolist()
    [1, 2]
    """

    frame: np.ndarray
    id: np.ndarray
    box: np.ndarray
    score: np.ndarray = None  # type: ignore[assignment]  # None only as an argument
    class_: np.ndarray = None  # type: ignore[assignment]  # None only as an argument
    visibility: np.ndarray = None  # type: ignore[assignment]  # None only as an argument
    truncation: np.ndarray = None  # type: ignore[assignment]  # None only as an argument
    occlusion: np.ndarray = None  # type: ignore[assignment]  # None only as an argument
    ignored: np.ndarray = None  # type: ignore[assignment]  # None only as an argument
    corner: np.ndarray | None = None

    def __post_init__(self) -> None:
        columns = {name: getattr(self, name) for name in _COLUMNS}
        n = None
        for name, given in columns.items():
            if given is not None or name not in _DEFAULTS:
                columns[name] = _column(name, given, n)
                n = len(columns["frame"])
        regions = () if self.ignored is None else self.ignored
        corner = None if self.corner is None else _column("corner", self.corner, n)
        _set(self, columns, _column("ignored", regions, None if np.size(regions) else 0), corner)
        if (twice := repeated(self.frame, self.id, self.class_)) is not None:
            frame, identity = int(self.frame[twice[1]]), int(self.id[twice[1]])
            _check.fail("Tracks", "id", "be unique within a frame", f"id {identity} twice in frame {frame}")

    @classmethod
    def trusted(
        cls, ignored: np.ndarray | None = None, corner: np.ndarray | None = None, **columns: np.ndarray | None
    ) -> Tracks:
        """Tracks of arrays that are known to be right, without a check or a copy: they become read-only."""
        tracks = object.__new__(cls)
        regions = np.empty((0, 4)) if ignored is None else ignored
        _set(tracks, {name: columns.get(name) for name in _COLUMNS}, regions, corner)
        return tracks

    def corners(self) -> np.ndarray:
        """Left, top, right, bottom: [N, 4], float64, pixels."""
        low = self.box[:, :2]
        return np.concatenate([low, low + self.box[:, 2:] if self.corner is None else self.corner], axis=1)

    def __len__(self) -> int:
        return len(self.frame)

    def __repr__(self) -> str:
        if not len(self):
            return "Tracks(empty)"
        known = np.unique(self.id[self.id != NO_ID]).size
        return f"Tracks({len(self)} boxes, {known} identities, frames {self.frame.min()} to {self.frame.max()})"

    @overload
    def __getitem__(self, rows: str) -> np.ndarray: ...
    @overload
    def __getitem__(self, rows: np.ndarray | slice) -> Tracks: ...
    def __getitem__(self, rows: str | np.ndarray | slice) -> np.ndarray | Tracks:
        if isinstance(rows, str):
            _check.choice("Tracks", "column", rows, [*COLUMNS, "class_"])
            return getattr(self, rows)
        if not isinstance(rows, slice) and np.ndim(rows) != 1:
            _check.fail("Tracks", "rows", "be a mask, an array of indices or a slice", repr(rows), error=TypeError)
        once = isinstance(rows, slice) or np.asarray(rows).dtype == bool  # no row twice
        chosen = np.arange(len(self))[rows]
        columns: dict[str, Any] = {name: _taken(getattr(self, name), chosen) for name in _COLUMNS}
        columns["corner"] = None if self.corner is None else _taken(self.corner, chosen)
        return (Tracks.trusted if once else Tracks)(ignored=self.ignored, **columns)


COLUMNS = tuple(name.rstrip("_") for name in _COLUMNS)

# The contract calls the column "class", which can't be written as an attribute but can be asked for by name.
setattr(Tracks, "class", property(lambda self: self.class_))


def _taken(values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Some rows of a column; one number seen N times stays that."""
    if values.size and values.strides == (0,):
        return np.broadcast_to(values[0], rows.size)
    return values.take(rows, axis=0)


def _set(tracks: Tracks, columns: dict[str, Any], ignored: np.ndarray, corner: np.ndarray | None) -> None:
    """Puts read-only arrays in place; a column that was left out is one number seen N times."""
    n = len(columns["frame"])
    for name, values in columns.items():
        values = np.broadcast_to(_DEFAULTS[name], n) if values is None else values
        values.flags.writeable = False
        object.__setattr__(tracks, name, values)
    for name, extra in (("ignored", ignored), ("corner", corner)):
        if extra is not None:
            extra.flags.writeable = False
        object.__setattr__(tracks, name, extra)


def _column(name: str, given: Any, n: int | None) -> np.ndarray:
    """A copy of a column with its dtype, its shape, its length (unless None) and its range checked."""
    sides = {"box": 4, "ignored": 4, "corner": 2}.get(name)
    values = _array.array_like("Tracks", name, given)
    if name not in _INTEGERS:
        values = values.astype(np.float64, copy=False)
    if sides and n == 0 and values.size == 0:
        values = values.reshape(0, sides)
    rows: int | str = "N" if n is None else n
    _check.shape("Tracks", name, values, [rows, sides] if sides else [rows])
    if not values.size:
        return values.astype(np.int64 if name in _INTEGERS else np.float64)
    low, high = values.min(), values.max()  # of which one is not finite if any value is
    if not (np.isfinite(low) and np.isfinite(high)):
        _check.fail("Tracks", name, "be finite", values[~np.isfinite(values)][0])
    if name in _INTEGERS:
        whole = values.dtype.kind in "iu" or (values == np.floor(values)).all()
        if not whole or low < -MAX_ID or high > MAX_ID:
            wrong = (values != np.floor(values)) | (values < -MAX_ID) | (values > MAX_ID)
            _check.fail("Tracks", name, "be whole numbers", values[wrong][0])
        values = values.astype(np.int64, copy=False)
    least, most = _RANGES.get(name, (low, high))
    if low < least or high > most:
        wrong = (values < least) | (values > most)
        _check.fail("Tracks", name, f"be from {least:g} to {most:g}", values[wrong][0])
    return values


_RANGES: dict[str, tuple[float, float]] = {
    "frame": (0, MAX_FRAME),
    "id": (NO_ID, MAX_ID),
    "box": (-MAX_PIXEL, MAX_PIXEL),
    "ignored": (-MAX_PIXEL, MAX_PIXEL),
    "corner": (-MAX_PIXEL, MAX_PIXEL),
}


def checked(op: str, argument: str, given: Any) -> Tracks:
    """The argument, which must be Tracks."""
    if not isinstance(given, Tracks):
        _check.fail(op, argument, "be Tracks", _check.kind(given), "read a file with mot.read", error=TypeError)
    return given


def finite_numbers(op: str, argument: str, given: Any, shape: Sequence[int | str]) -> np.ndarray:
    """An array or nested lists of finite numbers as float64, in a shape in which names stand for any size."""
    values = _array.array_like(op, argument, given).astype(np.float64, copy=False)
    _check.shape(op, argument, values, shape)
    if not np.isfinite(values).all():
        _check.fail(op, argument, "be finite", values[~np.isfinite(values)][0])
    return values


def identified(op: str, argument: str, given: Any) -> Tracks:
    """The argument, which must be Tracks with an identity in every row."""
    tracks = checked(op, argument, given)
    if len(tracks) and tracks.id.min() == NO_ID:
        frame = int(tracks.frame[np.argmin(tracks.id)])
        _check.fail(op, argument, "have an identity of at least 0 in every row", f"id {NO_ID} in frame {frame}")
    return tracks


def repeated(frame: np.ndarray, identity: np.ndarray, class_: np.ndarray | None = None) -> tuple[int, int] | None:
    """The first row whose identity stood in its frame (and class) already, behind the row of that; or None."""
    rows = None
    if identity.size and identity.min() == NO_ID:
        rows = np.flatnonzero(identity != NO_ID)
        frame, identity = frame[rows], identity[rows]
    if _differ(frame, identity):
        return None
    of = np.zeros(1, np.int64) if class_ is None else class_ if rows is None else class_[rows]
    of = np.broadcast_to(of, frame.shape)
    order = np.lexsort((of, identity, frame))  # stable: of two equal rows the later one comes second
    again = np.flatnonzero(np.logical_and.reduce([x[order][1:] == x[order][:-1] for x in (frame, identity, of)]))
    if not again.size:
        return None
    second = again[np.argmin(order[again + 1])]
    found = order[[second, second + 1]]
    first, last = found if rows is None else rows[found]
    return int(first), int(last)


def _differ(frame: np.ndarray, identity: np.ndarray) -> bool:
    """Whether all pairs are known to differ: found by sorting, at most, one number for each."""
    if frame.size < 2:
        return True
    frames, identities = int(frame.max()) + 1, int(identity.max()) + 1
    if frames * identities >= 2**63:
        return False
    key = frame * identities + identity
    if (key[1:] > key[:-1]).all():
        return True
    by_identity = identity * frames + frame
    if (by_identity[1:] > by_identity[:-1]).all():
        return True
    key.sort()
    return bool((key[1:] > key[:-1]).all())
