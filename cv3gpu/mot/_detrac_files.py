"""Files of UA-DETRAC: the annotation's XML, and the matrices in which its toolkit stores a tracker's output."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator

import numpy as np

from ..errors import DataFormatError
from ._print import printed
from ._text import Text, number
from .formats import DETRAC_CLASSES, LAYOUTS, PIXEL, SIDES, read_text
from .tracks import MAX_PIXEL, Tracks

__all__ = ["read_matrices", "read_xml", "xml_lines"]


# ---- XML ------------------------------------------------------------------------------------------------


def read_xml(name: str, data: np.ndarray) -> Tracks:
    """The tracks of an annotation; see :func:`cv3gpu.mot.read`."""
    from xml.parsers import expat

    reader = _Annotation(name)
    try:
        reader.parser.Parse(data[:-1].tobytes(), True)
    except expat.ExpatError as error:
        raise DataFormatError(f"{name}:{error.lineno}: XML is malformed: {expat.ErrorString(error.code)}") from None
    except (ValueError, LookupError) as wrong:  # the latter of an encoding that Python does not know
        raise reader.error(wrong) from None
    return reader.tracks()


class _Annotation:
    """Follows the elements of an annotation as the parser meets them, and makes each box a line of text."""

    def __init__(self, name: str) -> None:
        from xml.parsers import expat

        self.name = name
        self.around: list[str] = []  # names of the open elements
        self.frame = ""
        self.box: str | None = None
        self.rest = ""
        self.identity = ""
        self.line = 0
        self.rows: list[str] = []
        self.lines: list[int] = []
        self.regions: list[list[float]] = []
        self.parser = expat.ParserCreate()
        self.parser.StartElementHandler = self.start
        self.parser.EndElementHandler = self.end
        # Without a document type there are no entities: none that grow, none that are other files.
        self.parser.StartDoctypeDeclHandler = self.refuse

    def error(self, wrong: object) -> DataFormatError:
        """What is wrong where the parser is."""
        return DataFormatError(f"{self.name}:{self.parser.CurrentLineNumber}: {wrong}")

    def refuse(self, *_: object) -> None:
        """Meets a document type declaration."""
        raise ValueError("XML must not declare a document type or entities")

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        """Meets the start of an element."""
        parent = self.around[-1] if self.around else ""
        self.around.append(tag)
        if not parent and tag != "sequence":
            raise ValueError(f"the outermost element must be sequence, got {tag[:40]}")
        try:
            if parent == "target":
                if tag == "box":
                    self.box = _BOX_TEXT % attributes
                elif tag == "attribute":
                    kind = DETRAC_CLASSES.get(attributes.get("vehicle_type", "").lower(), -1)
                    self.rest = f"{attributes.get('truncation_ratio', '-1')},{kind}"
            elif tag == "target":
                if "frame" not in self.around:
                    raise ValueError("target must be inside a frame")
                self.identity, self.box, self.rest = attributes["id"], None, "-1,-1"
                self.line = self.parser.CurrentLineNumber
            elif tag == "frame":
                self.frame = attributes["num"]
            elif tag == "box" and parent == "ignored_region":
                self.regions.append([number(side, attributes[side].strip(), PIXEL) for side in SIDES])
        except KeyError as missing:
            raise ValueError(f"{tag} must have the attribute {missing.args[0]}") from None

    def end(self, tag: str) -> None:
        """Meets the end of an element."""
        self.around.pop()
        if tag == "target":
            if self.box is None:
                raise ValueError("target must hold a box")
            row = f"{self.frame},{self.identity},{self.box},{self.rest}"
            if "\n" in row:
                raise ValueError("an attribute must not hold a line feed")
            self.rows.append(row + "\n")
            self.lines.append(self.line)

    def tracks(self) -> Tracks:
        """All boxes."""
        data = np.frombuffer("".join(self.rows).encode() or b"\n", np.uint8)
        regions = np.array(self.regions, float).reshape(-1, 4)
        return read_text(Text(self.name, data, self.lines), LAYOUTS["detrac"], regions)


_BOX_TEXT = "%(left)s,%(top)s,%(width)s,%(height)s"


def xml_lines(sequence: str, tracks: Tracks) -> Iterator[bytes]:
    """The annotation's XML, some lines at a time."""
    name = re.sub(r"[^A-Za-z0-9_.-]", "_", sequence)
    yield f'<?xml version="1.0" encoding="utf-8"?>\n<sequence name="{name}">\n   <ignored_region>\n'.encode()
    yield from printed(f"      {_BOX}\n", list(tracks.ignored.T))
    yield b"   </ignored_region>\n"
    known = (tracks["class"] >= 1) & (tracks["class"] <= len(DETRAC_CLASSES))
    word = np.where(known, tracks["class"], 0)
    order = np.argsort(tracks.frame, kind="stable")
    frames, starts = np.unique(tracks.frame[order], return_index=True)
    for frame, rows in zip(frames.tolist(), np.split(order, starts[1:]), strict=False):
        yield f'   <frame density="{rows.size}" num="{frame}">\n      <target_list>\n'.encode()
        columns = [tracks.id[rows], *tracks.box[rows].T, tracks.truncation[rows], word[rows]]
        yield from printed(_TARGET, columns, ["unknown", *DETRAC_CLASSES], word_column=6)
        yield b"      </target_list>\n   </frame>\n"
    yield b"</sequence>\n"


_BOX = '<box left="{}" top="{}" width="{}" height="{}"/>'
_TARGET = f"""         <target id="{{}}">
            {_BOX}
            <attribute truncation_ratio="{{}}" vehicle_type="{{}}"/>
         </target>
"""


# ---- matrices -------------------------------------------------------------------------------------------


def read_matrices(name: str, data: np.ndarray, beside: Callable[[str], np.ndarray | None]) -> Tracks:
    """The tracks of a ``_LX.txt`` and the files beside it; see :func:`cv3gpu.mot.read`.

    The toolkit reads what it stored as left and top (``txt2stateInfo.m``), computes the middle of the lower
    edge of each, and takes a box to be there if that is not 0; its boxes in memory have that point as x and y.
    """
    stem, end = re.fullmatch(r"(.*)_LX(\.txt(?:\.gz)?)", name, re.S).groups()  # type: ignore[union-attr]
    sides = [_matrix(Text(name, data))]
    for suffix in ("_LY", "_W", "_H"):
        other = beside(f"{stem}{suffix}{end}")
        if other is None:
            raise DataFormatError(f"{name}: {os.path.basename(stem)}{suffix}{end} must lie beside it")
        sides.append(_matrix(Text(f"{stem}{suffix}{end}", other)))
        if sides[-1].shape != sides[0].shape:
            here, there = (" x ".join(map(str, side.shape[::-1])) for side in (sides[-1], sides[0]))
            raise DataFormatError(f"{stem}{suffix}{end}: must be {there} as {os.path.basename(name)}, got {here}")
    left, _, width, _ = sides
    frame, identity = np.nonzero((left + width / 2).T)
    regions = beside(f"{stem}_IgR{end}")
    return Tracks.trusted(
        frame=frame + 1,
        id=identity + 1,
        box=np.stack([side[identity, frame] for side in sides], axis=1),
        ignored=None if regions is None else _regions(Text(f"{stem}_IgR{end}", regions)),
    )


def _regions(text: Text) -> np.ndarray:
    regions = np.ascontiguousarray(_matrix(text).T)
    if regions.size and regions.shape[1] != 4:
        raise DataFormatError(f"{text.name}:1: line must have 4 columns, got {regions.shape[1]}")
    return regions.reshape(-1, 4)


def _matrix(text: Text) -> np.ndarray:
    """The numbers of a text, [columns, lines]."""
    longest = text.data.size
    first, at = text.first_line(longest)
    comma = b"," in first
    columns = len(first.split(b",") if comma else first.split())
    if not first:
        return np.empty((0, 0))

    def read_line(line: bytes) -> list[float]:
        parts = line.split(b",") if comma else line.split()
        if len(parts) != columns:
            raise ValueError(f"line must have {columns} columns as the lines before it, got {len(parts)}")
        return [
            number(f"column {column}", part.strip().decode("utf-8", errors="replace"), PIXEL)
            for column, part in enumerate(parts, 1)
        ]

    blocks = []
    for table, starts in text.tables(at, comma, columns, longest, read_line):
        for row in np.flatnonzero((np.abs(table) > MAX_PIXEL).any(axis=0)).tolist():
            raise text.error(int(starts[row]), f"numbers must be {PIXEL}")
        blocks.append(table.copy())
    return np.concatenate(blocks, axis=1)
