"""Files of tracks: MOTChallenge's and KITTI's text, UA-DETRAC's XML and matrices."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .. import _check, _files
from ..errors import DataFormatError
from . import _bytes
from ._print import printed
from ._text import Rule, Text, number
from .tracks import MAX_FRAME, MAX_ID, MAX_PIXEL, NO_ID, Tracks, checked, repeated

__all__ = ["DETRAC_CLASSES", "FORMATS", "KITTI_CLASSES", "read", "write"]

FORMATS = ("motchallenge", "kitti", "detrac")

KITTI_CLASSES = {
    "Car": 1,
    "Van": 2,
    "Truck": 3,
    "Pedestrian": 4,
    "Person": 5,
    "Person_sitting": 5,
    "Cyclist": 6,
    "Tram": 7,
    "Misc": 8,
    "DontCare": 9,
}
DETRAC_CLASSES = {"car": 1, "van": 2, "bus": 3, "others": 4}

MAX_LINE = 1000  # characters; the longest honest line has eighteen numbers
DONT_CARE = KITTI_CLASSES["DontCare"]

SIDES = ("left", "top", "width", "height")
PIXEL = Rule(-MAX_PIXEL, MAX_PIXEL)
_WHOLE = Rule(-MAX_ID, MAX_ID, whole=True)


def read(path: str | os.PathLike[str], format: str | None = None) -> Tracks:
    r"""Reads the tracks or detections of one sequence.

    Parameters
    ----------
    path : path of the file
        It may be gzip's.
    format : {"motchallenge", "kitti", "detrac"}, optional
        If left out, the file's content says it: XML is UA-DETRAC's; blanks between the numbers and a word in
        the third column are KITTI's; other text is MOTChallenge's, unless the name ends in ``_LX.txt``.

    Returns
    -------
    Tracks
        The rows in the order of the file.

    Raises
    ------
    DataFormatError
        A malformed file; the text starts with ``file:line`` where there is a line to name.
    OSError
        The file can't be read.

    Notes
    -----
    Text is ASCII, with or without UTF-8's byte order mark, in lines that end in ``\n`` or ``\r\n``; the last
    may lack its end, and empty ones are skipped. Every line has as many columns as the first, at most 1000
    characters, and stands for one box. A number is written as in ``-12``, ``1.50``, ``.5`` or ``1e3``; it is
    read as the float64 nearest to it. Refused are NaN and infinity, a frame, identity or class that is not a
    whole number, an identity twice in a frame (for KITTI: of one class), coordinates beyond 1e9 pixels, frames
    beyond 2³¹ − 1, identities beyond 2⁵³.

    ``motchallenge``: ``frame, id, left, top, width, height, score[, class, visibility[, z]]``, 7 to 10 numbers
    with commas (or blanks) between them; frames from 1, identities from −1. Ten columns with a fraction in
    the eighth are MOT15's world coordinates, which are not read: class and visibility are then unknown (−1).

    ``kitti``: ``frame id class truncation occlusion alpha left top right bottom height width length x y z
    rotation [score]``, 17 or 18 columns with blanks between them; frames from 0. The class is a word of
    ``KITTI_CLASSES``, in capitals or not. A negative identity, and any of DontCare, is read as −1. The
    numbers in three dimensions are not kept.

    ``detrac``: UA-DETRAC's annotation in XML: boxes, identities, ``vehicle_type`` (of ``DETRAC_CLASSES``,
    another word is −1), ``truncation_ratio``, and the ignored regions; frames from 0. A document type or an entity is
    refused. Or, by a name that ends in ``_LX.txt``, a tracker's output as the toolkit stores it: matrices with
    a row for each frame and a column for each identity (both counted from 1) of the left edge, and beside it
    ``_LY.txt``, ``_W.txt`` and ``_H.txt`` with top, width and height; zeros where there is no box. Lines ``left,
    top, width, height`` of a ``_IgR.txt`` beside them are the ignored regions.
    """
    _files.path("mot.read", "path", path)
    if format is not None:
        _check.choice("mot.read", "format", format, FORMATS)
    name = os.fsdecode(path)
    return parse(name, _bytes.load(path), format, lambda other: _bytes.load(other) if os.path.exists(other) else None)


def parse(name: str, data: np.ndarray, format: str | None, beside: Callable[[str], np.ndarray | None]) -> Tracks:
    """The tracks in a file's bytes, of which the last is a line feed.

    Parameters
    ----------
    name : the file's, for errors and its end
    data : array, [bytes], uint8
    format : as :func:`read` takes it
    beside : gives the bytes of another file by its name, None if there is none
    """
    if format in (None, "detrac") and re.search(r"_LX\.txt(\.gz)?$", name):
        from . import _detrac_files

        return _detrac_files.read_matrices(name, data, beside)
    is_xml = _is_xml(name, data)
    if is_xml if format is None else format == "detrac":
        from . import _detrac_files

        return _detrac_files.read_xml(name, data)
    text = Text(name, data)
    if format is None:
        line, _ = text.first_line(MAX_LINE)
        format = "kitti" if _is_kitti(line) else "motchallenge"
    return read_text(text, LAYOUTS[format])


def _is_xml(name: str, data: np.ndarray) -> bool:
    head = data[:64].tobytes()
    if head[:2] in (b"\xff\xfe", b"\xfe\xff") and b"<" not in head[:4]:
        raise DataFormatError(f"{name}:1: text must be ASCII or UTF-8, got UTF-16's byte order mark")
    if head[:4] in (b"PK\3\4", b"PK\5\6"):
        raise DataFormatError(f"{name}: a zip archive holds files of several sequences; mot.evaluate takes it")
    return head.removeprefix(b"\xef\xbb\xbf").replace(b"\0", b"").lstrip(b"\xff\xfe \t\r\n").startswith(b"<")


def _is_kitti(line: bytes) -> bool:
    parts = [] if b"," in line else line.split()
    return len(parts) > 2 and re.fullmatch(rb"(?!nan$|inf)[A-Za-z_]+", parts[2], re.I) is not None


# ---- text -----------------------------------------------------------------------------------------------


def read_text(text: Text, layout: Layout, ignored: np.ndarray | None = None) -> Tracks:
    """The tracks in a text, all of whose lines have the columns of the layout; ``ignored`` regions go with them."""
    first, at = text.first_line(MAX_LINE)
    if not first:
        return Tracks([], [], [], ignored=ignored)  # type: ignore[arg-type]
    comma = layout.comma and b"," in first
    columns = len(_split(first, comma))
    if not layout.fewest <= columns <= len(layout.names):
        raise text.error(at, _wrong_columns(layout, columns))

    def read_line(line: bytes) -> list[float]:
        return _numbers(line, layout, comma, columns)

    def tables() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        return text.tables(at, comma, columns, MAX_LINE, read_line, layout.words)

    rules = [layout.rule(column, columns) for column in range(columns)]
    gathered = layout.gather(text.count_lines(at), columns)
    for table, starts in tables():
        for row in np.flatnonzero(_suspect(table, rules)).tolist():
            line, _ = text.line(int(starts[row]), MAX_LINE)
            try:
                read_line(line)
            except ValueError as wrong:
                raise text.error(int(starts[row]), wrong) from None
        gathered.add(table)
    tracks = gathered.tracks(ignored)
    if (twice := repeated(tracks.frame, tracks.id, tracks.class_ if layout.id_of_class else None)) is not None:
        before, again = (_start_of_row(row, tables()) for row in twice)
        frame, identity = int(tracks.frame[twice[1]]), int(tracks.id[twice[1]])
        got = f"id {identity} of frame {frame} again (first in line {text.line_number(before)})"
        raise text.error(again, f"id must be unique within a frame, got {got}")
    return tracks


def _split(line: bytes, comma: bool) -> list[bytes]:
    return line.split(b",") if comma else line.split()


def _wrong_columns(layout: Layout, columns: int) -> str:
    most = len(layout.names)
    some = {0: "", 1: f"{layout.fewest} or "}.get(most - layout.fewest, f"{layout.fewest} to ")
    between = "" if layout.comma else "; blanks stand between them"
    return f"line must have {some}{most} columns, got {columns}{between}"


def _numbers(line: bytes, layout: Layout, comma: bool, columns: int) -> list[float]:
    """The numbers of a line; ValueError says what is wrong with it."""
    parts = _split(line, comma)
    if b"\r" in line.rstrip():
        raise ValueError("line must end in a line feed, got a carriage return alone")
    if not layout.fewest <= len(parts) <= len(layout.names):
        raise ValueError(_wrong_columns(layout, len(parts)))
    if len(parts) != columns:
        raise ValueError(f"line must have {columns} columns as the lines before it, got {len(parts)}")
    values: list[float] = []
    for column, part in enumerate(parts):
        text = part.strip().decode("utf-8", errors="replace")
        if layout.words and column == 2:
            values.append(_word(layout.words, text))
        else:
            values.append(number(layout.names[column], text, layout.rule(column, columns)))
    return values


def _word(words: tuple[str, ...], text: str) -> int:
    lower = [word.lower() for word in words]
    if text.lower() not in lower:
        raise ValueError(f"class must be one of {', '.join(words)}, got {text[:40]!r}")
    return lower.index(text.lower())


def _suspect(table: np.ndarray, rules: list[Rule]) -> np.ndarray:
    """Rows with a number that breaks its rule, or may have been rounded to fit."""
    suspect = np.zeros(table.shape[1], bool)
    for values, rule in zip(table, rules, strict=True):
        if rule.whole:
            suspect |= (values < rule.low) | (values >= rule.high) | (values != np.floor(values))
        elif rule is PIXEL:
            suspect |= np.abs(values) > rule.high
    return suspect


def _start_of_row(row: int, tables: Iterator[tuple[np.ndarray, np.ndarray]]) -> int:
    for _, starts in tables:
        if row < starts.size:
            return int(starts[row])
        row -= starts.size
    raise IndexError(row)


class _Gathered:
    """The columns that all formats have, filled table by table."""

    def __init__(self, most: int, columns: int) -> None:
        self.rows = 0
        self.n_columns = columns
        self.frame, self.id, self.class_ = (np.empty(most, np.int64) for _ in range(3))
        self.box, self.score = np.empty((most, 4)), np.empty(most)

    def add(self, table: np.ndarray) -> None:
        """Appends the rows of a table, [columns, rows]."""
        new = slice(self.rows, self.rows + table.shape[1])
        self.rows = new.stop
        self.put(table, new)

    def put(self, table: np.ndarray, new: slice) -> None:
        """Writes a table to the rows ``new``."""
        raise NotImplementedError

    def names(self) -> list[str]:
        """The columns that the file has."""
        raise NotImplementedError

    def tracks(self, ignored: np.ndarray | None) -> Tracks:
        """All rows."""
        return Tracks.trusted(ignored, **{name: getattr(self, name)[: self.rows] for name in self.names()})


class _MotChallenge(_Gathered):
    def __init__(self, most: int, columns: int) -> None:
        super().__init__(most, columns)
        self.visibility = np.empty(most)
        self.has_classes = columns > 7

    def put(self, table: np.ndarray, new: slice) -> None:
        self.frame[new], self.id[new] = table[:2]
        self.box[new] = table[2:6].T
        self.score[new] = table[6]
        if self.n_columns == 10:
            self.has_classes &= bool(((table[7] == np.floor(table[7])) & (np.abs(table[7]) <= MAX_ID)).all())
        if self.has_classes:
            self.class_[new] = table[7]
        if self.n_columns > 8:
            self.visibility[new] = table[8]

    def names(self) -> list[str]:
        more = ["class_", "visibility"][: self.n_columns - 7] if self.has_classes else []
        return ["frame", "id", "box", "score", *more]


class _Kitti(_Gathered):
    def __init__(self, most: int, columns: int) -> None:
        super().__init__(most, columns)
        self.truncation, self.occlusion = np.empty(most), np.empty(most, np.int64)
        self.corner = np.empty((most, 2))
        self.numbers = np.array(list(KITTI_CLASSES.values()))

    def put(self, table: np.ndarray, new: slice) -> None:
        self.frame[new] = table[0]
        self.class_[new] = self.numbers[table[2].astype(np.int64)]
        self.id[new] = np.where(self.class_[new] == DONT_CARE, NO_ID, np.maximum(table[1], NO_ID))
        self.truncation[new], self.occlusion[new] = table[3:5]
        self.box[new, :2] = table[6:8].T
        self.corner[new] = table[8:10].T
        self.box[new, 2:] = (table[8:10] - table[6:8]).T
        if self.n_columns == 18:
            self.score[new] = table[17]

    def names(self) -> list[str]:
        more = ["score"] if self.n_columns == 18 else []
        return ["frame", "id", "box", "class_", "truncation", "occlusion", "corner", *more]


class _Detrac(_Gathered):
    """What the XML reader makes of an annotation: a line for each box."""

    def __init__(self, most: int, columns: int) -> None:
        super().__init__(most, columns)
        self.truncation = np.empty(most)

    def put(self, table: np.ndarray, new: slice) -> None:
        self.frame[new], self.id[new] = table[:2]
        self.box[new] = table[2:6].T
        self.truncation[new], self.class_[new] = table[6:]

    def names(self) -> list[str]:
        return ["frame", "id", "box", "class_", "truncation"]


# ---- layouts --------------------------------------------------------------------------------------------


class Layout(NamedTuple):
    """The columns of a text: their names, the fewest there may be, and what they may hold."""

    names: tuple[str, ...]
    fewest: int
    rules: dict[str, Rule]
    gather: type[_Gathered]
    comma: bool = True  # may stand between the numbers
    id_of_class: bool = False  # objects of two classes may have one identity
    words: tuple[str, ...] = ()  # of the third column

    def rule(self, column: int, columns: int) -> Rule:
        """What a column may hold in a text of so many."""
        name = self.names[column]
        if name == "class" and columns == 10:  # of MOT15 it may be a world coordinate
            return Rule()
        return self.rules.get(name, Rule())


_BOX_RULES = dict.fromkeys(("left", "top", "width", "height", "right", "bottom"), PIXEL)
LAYOUTS = {
    "motchallenge": Layout(
        ("frame", "id", *SIDES, "score", "class", "visibility", "z"),
        7,
        {"frame": Rule(1, MAX_FRAME, whole=True), "id": Rule(NO_ID, MAX_ID, whole=True), "class": _WHOLE, **_BOX_RULES},
        _MotChallenge,
    ),
    "kitti": Layout(
        (
            *("frame", "id", "class", "truncation", "occlusion", "alpha", "left", "top", "right", "bottom"),
            *("3D height", "3D width", "3D length", "x", "y", "z", "rotation", "score"),
        ),
        17,
        {"frame": Rule(0, MAX_FRAME, whole=True), "id": _WHOLE, "occlusion": _WHOLE, **_BOX_RULES},
        _Kitti,
        comma=False,
        id_of_class=True,
        words=tuple(KITTI_CLASSES),
    ),
    "detrac": Layout(
        ("frame", "id", *SIDES, "truncation_ratio", "class"),
        8,
        {"frame": Rule(0, MAX_FRAME, whole=True), "id": Rule(NO_ID, MAX_ID, whole=True), **_BOX_RULES},
        _Detrac,
    ),
}


# ---- writing --------------------------------------------------------------------------------------------


def write(path: str | os.PathLike[str], tracks: Tracks, format: str = "motchallenge") -> None:
    """Writes tracks so that :func:`read` gives them back; the file appears whole or not at all.

    Parameters
    ----------
    path : path of the file, replaced if it is there (for a link, the file that it leads to)
    tracks : Tracks
    format : {"motchallenge", "kitti", "detrac"}

    Raises
    ------
    TypeError
        ``path`` is no path, or ``tracks`` are something else.
    ValueError
        The tracks do not fit the format.
    OSError
        The file can't be written; what is at ``path`` is no file.

    Notes
    -----
    Numbers are written as the shortest text that reads back as the same float64. What a format has no place
    for is left out:

    ``motchallenge``: frames from 1; ten columns, class and visibility in the eighth and ninth, −1 in the tenth.
    Truncation, occlusion and ignored regions have no place.

    ``kitti``: classes of ``KITTI_CLASSES``; 17 columns, and the score in an eighteenth if one is not 1. What is
    known of neither side has KITTI's placeholders. The file holds right and bottom, which come back exactly, and
    width and height within their rounding. Visibility and ignored regions have no place.

    ``detrac``: the annotation's XML, the rows by frame. Score, visibility and occlusion have no place.
    """
    _files.path("mot.write", "path", path)
    _check.choice("mot.write", "format", format, FORMATS)
    checked("mot.write", "tracks", tracks)
    if format == "detrac":
        from . import _detrac_files

        lines = _detrac_files.xml_lines(Path(path).stem, tracks)
    else:
        lines = (_motchallenge_lines if format == "motchallenge" else _kitti_lines)(tracks)
    with _files.replacing(path) as unfinished, Path(unfinished).open("xb") as file:
        file.writelines(lines)


def _motchallenge_lines(tracks: Tracks) -> Iterator[bytes]:
    if len(tracks) and tracks.frame.min() < 1:
        _check.fail("mot.write", "tracks", "have frames from 1 in this format", f"frame {tracks.frame.min()}")
    columns = [tracks.frame, tracks.id, *tracks.box.T, tracks.score, tracks["class"], tracks.visibility]
    return printed("{},{},{},{},{},{},{},{},{},-1\n", columns)


def _kitti_lines(tracks: Tracks) -> Iterator[bytes]:
    if (wrong := (tracks["class"] < 1) | (tracks["class"] > DONT_CARE)).any():
        got = tracks["class"][wrong][0]
        advice = "" if got > 0 else "the other formats take tracks without a class"
        _check.fail("mot.write", "tracks", f"have classes from 1 to {DONT_CARE} in this format", got, advice)
    words = {number: word for word, number in reversed(KITTI_CLASSES.items())}
    columns = [tracks.frame, tracks.id, tracks["class"] - 1, tracks.truncation, tracks.occlusion, *tracks.corners().T]
    template = "{} {} {} {} {} -10 {} {} {} {} -1 -1 -1 -1000 -1000 -1000 -10"
    if (tracks.score != 1).any():
        template += " {}"
        columns.append(tracks.score)
    return printed(template + "\n", columns, [words[number] for number in sorted(words)], word_column=2)
