"""The sequences in a file, a folder or a zip archive."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from .. import _check, _files
from ..errors import DataFormatError
from . import _bytes, _seqinfo, formats
from .tracks import MAX_FRAME, Tracks

__all__ = ["Source", "find"]

SIDES = ("gt", "pred")
LAYOUTS = {
    "gt": "<seq>/gt/gt.txt, <seq>.txt, <seq>.xml, <seq>_LX.txt, label_02/<seq>.txt",
    "pred": "<seq>.txt, data/<seq>.txt, <seq>.xml, <seq>_LX.txt, <seq>/gt/gt.txt",
}

_FOLDERS = {"gt": ("label_02", "training/label_02", ""), "pred": ("data", "")}
_MOST_WRAPPINGS = 3  # folders that hold nothing but one other

_TRACKS = re.compile(r"(?P<seq>.+?)(?P<matrix>_LX)?(\.txt|\.txt\.gz|\.xml|\.xml\.gz)", re.I)
_NOT_TRACKS = re.compile(
    r"[._].*|readme.*|licen[cs]e.*|seqmap.*|seqinfo.*|requirements.*|det\.txt|gt\.txt|gmc\.txt"
    r"|.*_(LY|W|H|IgR|speed|summary|detailed)\.(txt|txt\.gz)",
    re.I,
)


class Source(NamedTuple):
    """Where the tracks of one sequence are, to be read here or in another process.

    ``path`` is a file, of which ``member`` is a part if it is a zip archive; ``format`` is as
    :func:`cv3gpu.mot.read` takes it; ``length`` is the sequence's number of frames where that is known.
    """

    name: str
    path: str
    member: str | None = None
    format: str | None = None
    length: int | None = None

    def read(self) -> Tracks:
        """The tracks."""
        if self.member is None:
            return formats.read(self.path, self.format)
        prefix = f"{self.path}/"

        def beside(name: str) -> np.ndarray | None:
            try:
                return _bytes.load_member(self.path, name.removeprefix(prefix))
            except KeyError:
                return None

        data = _bytes.load_member(self.path, self.member)
        return formats.parse(prefix + self.member, data, self.format, beside)


def find(path: str | os.PathLike[str], side: str, format: str | None = None) -> dict[str, Source]:
    """The sequences in a file, a folder or a zip archive, by name.

    Parameters
    ----------
    path : path of a file, a folder or a zip archive
    side : {"gt", "pred"}
        Whether they are ground truth or predictions.
    format : {"motchallenge", "kitti", "detrac"}, optional
        As :func:`cv3gpu.mot.read` takes it.

    Returns
    -------
    dict
        Sources by the sequences' names, in the order of these.

    Raises
    ------
    DataFormatError
        Nothing was found; two files of one sequence; an archive that is damaged or not safe to read; a
        ``seqinfo.ini`` with a length that is none.
    OSError
        The path is not there, or can't be read.

    Notes
    -----
    A file is one sequence, named by the file without its ending, or for ``<seq>/gt/gt.txt`` by the folder.

    In a folder or an archive, ground truth is looked for in ``label_02``, in ``training/label_02`` and in itself: as
    ``<seq>/gt/gt.txt``, or else as ``<seq>.txt``, ``<seq>.xml`` or ``<seq>_LX.txt``. Predictions are looked for in
    ``data``, as TrackEval has them, and in itself: as ``<seq>.txt`` and so on, or else as ``<seq>/gt/gt.txt``. The
    files may be gzip's. Where there is nothing but another folder, it is looked for in that one.
    Detections (``det.txt``), hidden files and other known ones are passed over.

    The length of a ground truth's sequence is ``seqLength`` of ``<seq>/seqinfo.ini``, or stands in KITTI's
    ``evaluate_tracking.seqmap.training`` (or another but the test's) beside the files or above them.
    """
    op = "mot.sequences.find"
    _files.path(op, "path", path)
    _check.choice(op, "side", side, SIDES)
    if format is not None:
        _check.choice(op, "format", format, formats.FORMATS)
    name = os.fsdecode(path)
    if stat.S_ISDIR(os.stat(name).st_mode):
        tree: _Folder | _Zip = _Folder(name)
    elif _bytes.is_zip(name):
        tree = _Zip(name)
    else:
        return _single(name, side, format)
    base = ""
    for _ in range(_MOST_WRAPPINGS + 1):
        for folder in _FOLDERS[side]:
            if found := _sequences(tree, _join(base, folder), side, format):
                return dict(sorted(found.items()))
        inner = [folder for folder in tree.folders(base) if not _hidden(folder)]
        if len(inner) != 1:
            break
        base = _join(base, inner[0])
    raise DataFormatError(
        f"{name}: must hold {'ground truth' if side == 'gt' else 'predictions'} as {LAYOUTS[side]}, "
        f"got {_seen(tree, base)}"
    )


def _single(name: str, side: str, format: str | None) -> dict[str, Source]:
    folder, file = os.path.split(os.path.abspath(name))
    parent, inner = os.path.split(folder)
    if file == "gt.txt" and inner == "gt":
        tree = _Folder(parent)
        source = Source(os.path.basename(parent), name, None, format, _seq_length(tree, "") if side == "gt" else None)
    else:
        match = _TRACKS.fullmatch(file)
        seq = match["seq"] if match else os.path.splitext(file)[0]
        length = _seqmap(_Folder(folder), "").get(seq) if side == "gt" else None
        source = Source(seq, name, None, format, length)
    return {source.name: source}


def _sequences(tree: _Folder | _Zip, base: str, side: str, format: str | None) -> dict[str, Source]:
    """The sequences in a folder of the tree, or none."""
    gt = side == "gt"
    nested = {
        _last(folder) or tree.name: _join(folder, "gt/gt.txt")
        for folder in (base, *(_join(base, inner) for inner in tree.folders(base) if not _hidden(inner)))
        if tree.has(_join(folder, "gt/gt.txt"))
    }
    if (gt and nested) or not (flat := _flat(tree, base)):
        lengths = {seq: _seq_length(tree, file.removesuffix("gt/gt.txt")) for seq, file in nested.items() if gt}
        return {seq: tree.source(seq, file, format, lengths.get(seq)) for seq, file in nested.items()}
    seqmap = _seqmap(tree, base) if gt else {}
    return {seq: tree.source(seq, file, format, seqmap.get(seq)) for seq, file in flat.items()}


def _flat(tree: _Folder | _Zip, base: str) -> dict[str, str]:
    """Files of tracks that lie in a folder, by sequence."""
    found: dict[str, str] = {}
    for file in tree.files(base):
        match = _TRACKS.fullmatch(file)
        if not match or _NOT_TRACKS.fullmatch(file):
            continue
        seq = match["seq"]
        if seq in found:
            both = f"{found[seq]} and {_join(base, file)}"
            raise DataFormatError(f"{tree.path}: a sequence must have one file, got {both}")
        found[seq] = _join(base, file)
    return found


def _seq_length(tree: _Folder | _Zip, folder: str) -> int | None:
    file = _join(folder, _seqinfo.NAME)
    return _seqinfo.length(f"{tree.path}/{file}", tree.text(file))


def _seqmap(tree: _Folder | _Zip, base: str) -> dict[str, int]:
    """Lengths by the seqmaps of KITTI in a folder and in the two above it; the training one counts most."""
    above = [base, os.path.dirname(base), os.path.dirname(os.path.dirname(base))] if base else [""]
    if isinstance(tree, _Folder):
        above += [".."]
    lengths: dict[str, int] = {}
    for folder in dict.fromkeys(above):
        for suffix in (".training", "", ".trainval", ".val"):
            text = tree.text(_join(folder, f"evaluate_tracking.seqmap{suffix}"))
            for number, parts in enumerate(map(str.split, text.split("\n")), 1):
                if len(parts) == 4 and re.fullmatch(r"[0-9]{1,10}", parts[3]):
                    if int(parts[3]) > MAX_FRAME:
                        where = f"{tree.path}/{_join(folder, f'evaluate_tracking.seqmap{suffix}')}:{number}"
                        raise DataFormatError(f"{where}: length must be from 0 to {MAX_FRAME}, got {parts[3]}")
                    lengths.setdefault(parts[0], int(parts[3]))
    return lengths


def _seen(tree: _Folder | _Zip, base: str) -> str:
    """Some of what lies in a folder, for an error."""
    names = sorted([f"{folder}/" for folder in tree.folders(base)] + tree.files(base))
    some = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    return (some or "nothing") + (f" in {base}" if base else "")


def _hidden(name: str) -> bool:
    return name.startswith((".", "__MACOSX"))


def _join(folder: str, name: str) -> str:
    return f"{folder.rstrip('/')}/{name}" if folder and name else folder or name


def _last(folder: str) -> str:
    return folder.rpartition("/")[2]


class _Folder:
    """A folder of the file system; names inside it are relative to it. Only what is asked for is looked at."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.name = os.path.basename(os.path.abspath(path))

    def _entries(self, folder: str) -> Iterator[os.DirEntry[str]]:
        try:
            with os.scandir(os.path.join(self.path, folder)) as entries:
                yield from sorted(entries, key=lambda entry: entry.name)
        except (FileNotFoundError, NotADirectoryError):
            return

    def files(self, folder: str) -> list[str]:
        return [entry.name for entry in self._entries(folder) if entry.is_file()]

    def folders(self, folder: str) -> list[str]:
        return [entry.name for entry in self._entries(folder) if entry.is_dir()]

    def has(self, file: str) -> bool:
        return os.path.isfile(os.path.join(self.path, file))

    def text(self, file: str) -> str:
        """The start of a text file, nothing if it is not there."""
        if not self.has(file):
            return ""
        with open(os.path.join(self.path, file), "rb") as opened:
            return _seqinfo.decoded(opened.read(_seqinfo.MAX_BYTES))

    def source(self, name: str, file: str, format: str | None, length: int | None) -> Source:
        return Source(name, os.path.join(self.path, file), None, format, length)


class _Zip:
    """A zip archive, asked like a :class:`_Folder`."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.name = re.sub(r"\.zip$", "", os.path.basename(path), flags=re.I)
        self.members = set(_bytes.members(path))
        self.inside: dict[str, tuple[set[str], set[str]]] = {}  # files and folders of each folder
        for member in self.members:
            folder, _, file = member.rpartition("/")
            self.inside.setdefault(folder, (set(), set()))[0].add(file)
            while folder:
                inner, (folder, _, _) = folder, folder.rpartition("/")
                self.inside.setdefault(folder, (set(), set()))[1].add(_last(inner))

    def files(self, folder: str) -> list[str]:
        return sorted(self.inside.get(folder, (set(), set()))[0])

    def folders(self, folder: str) -> list[str]:
        return sorted(self.inside.get(folder, (set(), set()))[1])

    def has(self, file: str) -> bool:
        return file in self.members

    def text(self, file: str) -> str:
        if not self.has(file):
            return ""
        return _seqinfo.decoded(_bytes.load_member(self.path, file)[: _seqinfo.MAX_BYTES].tobytes())

    def source(self, name: str, file: str, format: str | None, length: int | None) -> Source:
        return Source(name, self.path, file, format, length)
