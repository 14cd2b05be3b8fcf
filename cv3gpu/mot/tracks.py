"""Tracks in memory, and the text format of MOTChallenge."""

from __future__ import annotations

import io
import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, overload

import numpy as np

from .. import _check, _files
from ..errors import DataFormatError

__all__ = ["Tracks", "read", "write"]

FORMATS = ("motchallenge",)

NO_ID = -1  # a detection that belongs to no track yet
MAX_FRAME = 2**31 - 1
MAX_ID = 2**53  # beyond, a number in a text file is not exact as float64
MAX_PIXEL = 1e9  # areas and their sums stay finite and precise

_DEFAULTS = {"score": 1.0, "class_": -1, "visibility": -1.0}
_INTEGERS = ("frame", "id", "class_")


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
        Frame number as in the file: from 1 in MOTChallenge files.
    id : array_like, [N], int64
        Identity, at least 0 and at most once in a frame; −1 for a detection without one.
    box : array_like, [N, 4], float64, pixels
        Left, top, width, height. A box whose width or height is not positive overlaps nothing.
    score : array_like, [N], float64, optional
        Confidence; in MOTChallenge's ground truth 0 marks a box to be ignored. 1 if left out.
    class_ : array_like, [N], int64, optional
        Class number, −1 (the default) for unknown.
    visibility : array_like, [N], float64, optional
        Visible share of the box, −1 (the default) for unknown.

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
    score: np.ndarray | None = None
    class_: np.ndarray | None = None
    visibility: np.ndarray | None = None

    def __post_init__(self) -> None:
        n = None
        for field in fields(self):
            given = getattr(self, field.name)
            if given is None and field.name in _DEFAULTS:
                given = np.full(n, _DEFAULTS[field.name])
            values = _column(field.name, given, n)
            n = len(values)
            object.__setattr__(self, field.name, values)
        _in_range("frame", self.frame, 0, MAX_FRAME)
        _in_range("id", self.id, NO_ID, MAX_ID)
        _in_range("box", self.box, -MAX_PIXEL, MAX_PIXEL)
        if (twice := _first_duplicate(self.frame, self.id)) is not None:
            frame, identity = int(self.frame[twice]), int(self.id[twice])
            _check.fail("Tracks", "id", "be unique within a frame", f"id {identity} twice in frame {frame}")

    def __len__(self) -> int:
        return len(self.frame)

    def __repr__(self) -> str:
        if not len(self):
            return "Tracks(empty)"
        known = np.unique(self.id[self.id != NO_ID]).size
        return (
            f"Tracks({len(self)} boxes, {known} identities, frames {self.frame.min()} to {self.frame.max()})"
        )

    @overload
    def __getitem__(self, rows: str) -> np.ndarray: ...
    @overload
    def __getitem__(self, rows: np.ndarray | slice) -> Tracks: ...
    def __getitem__(self, rows: str | np.ndarray | slice) -> np.ndarray | Tracks:
        if isinstance(rows, str):
            _check.choice("Tracks", "column", rows, [*COLUMNS, "class_"])
            return getattr(self, rows)
        if not isinstance(rows, slice) and np.ndim(rows) != 1:
            _check.fail(
                "Tracks", "rows", "be a mask, an array of indices or a slice", repr(rows), error=TypeError
            )
        return Tracks(*(getattr(self, field.name)[rows] for field in fields(self)))


COLUMNS = ("frame", "id", "box", "score", "class", "visibility")

# The contract calls the column "class", which can't be written as an attribute but can be asked for by name.
setattr(Tracks, "class", property(lambda self: self.class_))


def _column(name: str, given: Any, n: int | None) -> np.ndarray:
    """A read-only copy of a column with its dtype, its shape and (unless None) its length checked."""
    try:
        values = np.array(given, dtype=np.float64 if name not in _INTEGERS else None)
    except (TypeError, ValueError):
        _check.fail("Tracks", name, "be an array of numbers", _check.kind(given), error=TypeError)
    if not np.issubdtype(values.dtype, np.number) or np.iscomplexobj(values):
        _check.fail("Tracks", name, "be an array of numbers", values.dtype, error=TypeError)
    wanted = ["N" if n is None else n, 4] if name == "box" else ["N" if n is None else n]
    if name == "box" and n == 0 and values.size == 0:
        values = values.reshape(0, 4)
    _check.shape("Tracks", name, values, wanted)
    if not np.isfinite(values).all():
        _check.fail("Tracks", name, "be finite", values[~np.isfinite(values)][0])
    if name in _INTEGERS:
        if not (whole := _whole(values)).all():
            _check.fail("Tracks", name, "be whole numbers", values[~whole][0])
        values = values.astype(np.int64)
    values.flags.writeable = False
    return values


def _whole(values: np.ndarray) -> np.ndarray:
    return (np.abs(values) <= MAX_ID) & (values == np.floor(values))


def _in_range(name: str, values: np.ndarray, low: float, high: float) -> None:
    outside = (values < low) | (values > high)
    if outside.any():
        _check.fail("Tracks", name, f"be from {low:g} to {high:g}", values[outside][0])


def _first_duplicate(frame: np.ndarray, identity: np.ndarray) -> int | None:
    """The first row whose identity stood in its frame already, or None."""
    order = np.lexsort((identity, frame))  # stable: of two equal rows the later one comes second
    f, i = frame[order], identity[order]
    again = np.flatnonzero((f[1:] == f[:-1]) & (i[1:] == i[:-1]) & (i[1:] != NO_ID))
    return int(order[again + 1].min()) if again.size else None


# ---- MOTChallenge text ----------------------------------------------------------------------------------

MAX_LINE = 1000  # characters; the longest honest line has ten numbers
_READ = 1 << 20
_NAMES = ("frame", "id", "left", "top", "width", "height", "score", "class", "visibility", "z")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_NOT_FINITE = re.compile(r"[+-]?(nan|inf|infinity)", re.ASCII | re.I)
_WHOLE = {"frame": (1, MAX_FRAME), "id": (NO_ID, MAX_ID)}


def read(path: str | os.PathLike[str], format: str | None = None) -> Tracks:
    """Reads the tracks or detections of one sequence.

    MOTChallenge lines are ``frame, id, left, top, width, height, score[, class, visibility[, z]]``, 7 to 10
    numbers with commas (or blanks) between them; every line of a file has as many. Ten columns with a
    fraction in the eighth are MOT15's world coordinates, which are not read: class and visibility are then
    unknown (−1). Blank lines are skipped.

    Parameters
    ----------
    path : path of the file
    format : ``"motchallenge"``, or None for the same

    Returns
    -------
    Tracks
        The rows in the order of the file.

    Raises
    ------
    DataFormatError
        A malformed line: another number of columns, not a number, NaN or infinity, a frame that is not a
        whole number from 1, an identity that is not a whole number from −1 or stands twice in a frame, a
        coordinate beyond 1e9 pixels, more than 1000 characters. The text starts with ``file:line``.
    OSError
        The file can't be read.
    """
    if format is not None:
        _check.choice("mot.read", "format", format, FORMATS)
    data = _bytes(path)
    try:
        text = data.decode("utf-8-sig")
        if not text.strip():
            return _tracks(np.empty((0, 7)))
        rows = np.loadtxt(io.StringIO(text), delimiter=_delimiter(text), ndmin=2, comments=None)
        if rows.shape[1] not in range(7, 11) or not np.isfinite(rows).all() or rows[:, 0].min() < 1:
            raise ValueError("the file is not in MOTChallenge's format")
        return _tracks(rows)
    except ValueError as error:  # which UnicodeDecodeError is as well
        raise _first_error(os.fspath(path), data, error) from None


def _bytes(path: str | os.PathLike[str]) -> bytes:
    """The file's bytes; a line too long is refused before more of it is read."""
    parts = []
    done = 0  # lines that ended before this part
    open_line = 0  # bytes of the line that the previous part left open
    with open(path, "rb") as file:
        while part := file.read(_READ):
            ends = np.flatnonzero(np.frombuffer(part, np.uint8) == ord("\n"))
            lengths = np.diff(ends, prepend=-1 - open_line) - 1
            open_line = open_line + len(part) if not ends.size else len(part) - 1 - int(ends[-1])
            longest = [
                *np.flatnonzero(lengths > MAX_LINE)[:1],
                *([ends.size] if open_line > MAX_LINE else []),
            ]
            if longest:
                raise DataFormatError(
                    f"{os.fspath(path)}:{done + int(longest[0]) + 1}: "
                    f"line must have at most {MAX_LINE} characters"
                )
            done += ends.size
            parts.append(part)
    return b"".join(parts)


def _delimiter(text: str) -> str | None:
    first = text.lstrip().partition("\n")[0]
    return "," if "," in first else None


def _tracks(rows: np.ndarray) -> Tracks:
    columns = rows.shape[1]
    world = columns == 10 and not _whole(rows[:, 7]).all()
    names = columns >= 8 and not world
    return Tracks(
        frame=rows[:, 0],
        id=rows[:, 1],
        box=rows[:, 2:6],
        score=rows[:, 6],
        class_=rows[:, 7] if names else None,
        visibility=rows[:, 8] if names and columns >= 9 else None,
    )


def _first_error(path: str, data: bytes, cause: Exception) -> DataFormatError:
    """What is wrong with the first wrong line, found line by line."""
    seen: dict[tuple[int, int], int] = {}
    columns = 0
    delimiter = _delimiter(data.decode("utf-8-sig", errors="replace"))
    number = 0
    for number, line in _lines(data):
        parts = line.split(delimiter)
        columns = columns or len(parts)
        if wrong := _wrong(line, parts, columns, seen, number):
            return DataFormatError(f"{path}:{number}: {wrong}")
    return DataFormatError(f"{path}:{number}: {cause}")


def _lines(data: bytes) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        if line.strip():
            yield number, line.decode("utf-8", errors="replace").strip()


def _wrong(
    line: str, parts: list[str], columns: int, seen: dict[tuple[int, int], int], number: int
) -> str | None:
    """What is wrong with one line, or None."""
    if len(parts) not in range(7, 11):
        return f"line must have 7 to 10 columns, got {len(parts)}"
    if len(parts) != columns:
        return f"line must have {columns} columns as the lines before it, got {len(parts)}"
    values = []
    for name, part in zip(_NAMES, parts, strict=False):
        part = part.strip()
        if _NOT_FINITE.fullmatch(part):
            return f"{name} must be finite, got {part}"
        if not _NUMBER.fullmatch(part):
            return f"{name} must be a number, got {part[:40]!r}"
        value = float(part)
        values.append(value)
        if not math.isfinite(value):
            return f"{name} must be finite, got {part}"
        low, high = _WHOLE.get(name, (-math.inf, math.inf))
        if name in _WHOLE and not (value.is_integer() and low <= value <= high):
            return f"{name} must be a whole number from {low} to {high}, got {part}"
        if name in ("left", "top", "width", "height") and abs(value) > MAX_PIXEL:
            return f"{name} must be from {-MAX_PIXEL:g} to {MAX_PIXEL:g}, got {part}"
        if name == "class" and columns < 10 and not (value.is_integer() and abs(value) <= MAX_ID):
            return f"class must be a whole number, got {part}"
    key = int(values[0]), int(values[1])
    if key[1] != NO_ID and key in seen:
        got = f"id {key[1]} of frame {key[0]} again (first in line {seen[key]})"
        return f"id must be unique within a frame, got {got}"
    seen[key] = number
    return None


def write(path: str | os.PathLike[str], tracks: Tracks, format: str = "motchallenge") -> None:
    """Writes tracks so that :func:`read` gives them back exactly; the file appears whole or not at all.

    Parameters
    ----------
    path : path of the file, replaced if it is there
    tracks : Tracks, frames from 1
    format : ``"motchallenge"``: ten columns, class and visibility in the eighth and ninth, −1 in the tenth
    """
    _check.choice("mot.write", "format", format, FORMATS)
    if not isinstance(tracks, Tracks):
        _check.fail("mot.write", "tracks", "be Tracks", _check.kind(tracks), error=TypeError)
    if len(tracks) and tracks.frame.min() < 1:
        _check.fail("mot.write", "tracks", "have frames from 1 in this format", f"frame {tracks.frame.min()}")
    columns = (tracks.frame, tracks.id, *tracks.box.T, tracks.score, tracks["class"], tracks.visibility)
    with (
        _files.replacing(path) as unfinished,
        Path(unfinished).open("x", encoding="ascii", newline="\n") as file,
    ):
        for values in zip(*(column.tolist() for column in columns), strict=True):
            file.write(",".join(map(_shortest, values)) + ",-1\n")


def _shortest(value: float) -> str:
    """The shortest text that reads back as the same number."""
    text = repr(value)
    return text.removesuffix(".0")
