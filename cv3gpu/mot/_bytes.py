"""The bytes of files and of what is packed in them, within limits on how much may come out."""

from __future__ import annotations

import errno
import io
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from ..errors import DataFormatError

if TYPE_CHECKING:
    from zipfile import ZipFile, ZipInfo

__all__ = ["is_link", "is_zip", "load", "load_member", "members", "open_zip", "refuse_twins"]

MAX_INFLATED = 4 << 30  # bytes
MAX_RATIO = 1000  # bytes that may come of a packed one; deflate itself can reach 1032
_ALWAYS = 1 << 20  # bytes that may come of any file
_PART = 1 << 20
_GZIP, _ZIP, _EMPTY_ZIP = b"\x1f\x8b", b"PK\3\4", b"PK\5\6"


def load(path: str | os.PathLike[str]) -> np.ndarray:
    """A file's bytes as an array of uint8, inflated if they are gzip's, with a line feed added."""
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        data = np.empty(size + 1, np.uint8)
        size = file.readinto(data[:size].data)
        rest = bytearray()  # of a pipe, or of a file that grows
        while part := file.read(_PART):
            rest += part
            if len(rest) > MAX_INFLATED:  # a device may never end
                raise DataFormatError(f"{os.fsdecode(path)}: must have at most {MAX_INFLATED} bytes, got more")
    if rest:
        data = np.concatenate([data[:size], np.frombuffer(rest + b"\n", np.uint8)])
    else:
        data = data[: size + 1]
        data[size] = ord("\n")
    return _inflated(os.fsdecode(path), data)


def load_member(path: str, member: str) -> np.ndarray:
    """The bytes of a member of a zip archive, as :func:`load` gives those of a file."""
    with open_zip(path) as archive:
        data = _member(path, archive, archive.getinfo(member))
    return _inflated(f"{path}/{member}", data)


def is_zip(path: str | os.PathLike[str]) -> bool:
    """Whether a file starts as a zip archive does."""
    with open(path, "rb") as file:
        return file.read(4) in (_ZIP, _EMPTY_ZIP)


@contextmanager
def open_zip(path: str) -> Iterator[ZipFile]:
    """A zip archive whose names stay inside it and differ; whatever is wrong with it is a DataFormatError."""
    import struct
    import zipfile
    import zlib

    damage = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OverflowError, RuntimeError, ValueError)
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            for name in (entry.filename for entry in entries):
                if re.match(r"[/\\]|[A-Za-z]:", name) or ".." in re.split(r"[/\\]", name):
                    raise DataFormatError(f"{path}: names in an archive must stay inside it, got {name[:200]!r}")
            refuse_twins(path, entries)
            yield archive
    except DataFormatError:
        raise
    except damage as error:
        raise DataFormatError(f"{path}: not a readable zip archive: {error}") from None
    except OSError as error:
        if error.errno != errno.EINVAL:  # a place before the start or far behind the end
            raise
        raise DataFormatError(f"{path}: not a readable zip archive: {error}") from None


def refuse_twins(path: str | os.PathLike[str], entries: Iterable[ZipInfo]) -> None:
    """Members without a name or of one name, and members that share their bytes, are a DataFormatError."""
    entries = list(entries)
    seen = set()
    for name in (entry.filename for entry in entries):
        if not name:
            raise DataFormatError(f"{path}: names in an archive must not be empty")
        if name in seen:
            raise DataFormatError(f"{path}: names in an archive must differ, got {name[:200]!r} twice")
        seen.add(name)
    packed, size = sum(entry.compress_size for entry in entries), os.path.getsize(path)
    if packed > size:  # a bomb lets many members start in the same bytes
        raise DataFormatError(f"{path}: members must not overlap, got {packed} bytes packed in a file of {size}")


def members(path: str) -> list[str]:
    """The names of the files in a zip archive."""
    with open_zip(path) as archive:
        return [info.filename for info in archive.infolist() if not info.is_dir()]


def _member(path: str, archive: ZipFile, info: ZipInfo) -> np.ndarray:
    name = f"{path}/{info.filename}"
    if info.flag_bits & 1:
        raise DataFormatError(f"{name}: a member must not be encrypted")
    if is_link(info):
        raise DataFormatError(f"{name}: a member must be a regular file, got a symbolic link")
    if info.compress_type not in (0, 8):  # others inflate what they are given without a limit
        raise DataFormatError(f"{name}: a member must be stored or deflated, got method {info.compress_type}")
    with archive.open(info) as file:
        return _read(name, file.read, info.compress_size, info.file_size)


def is_link(info: ZipInfo) -> bool:
    """Whether a member stands for a symbolic link."""
    return stat.S_ISLNK(info.external_attr >> 16)


def _inflated(name: str, data: np.ndarray) -> np.ndarray:
    """The data, or what is in them if they are gzip's."""
    if data[:2].tobytes() != _GZIP:
        return data
    import gzip
    import zlib

    packed = data[:-1].tobytes()
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(packed)) as file:
            return _read(name, file.read, len(packed))
    except (OSError, EOFError, zlib.error) as error:
        raise DataFormatError(f"{name}: not a readable gzip file: {error}") from None


def _read(name: str, read: Callable[[int], bytes], packed: int, announced: int = 0) -> np.ndarray:
    """All that a packed file gives, and a line feed, unless that is too much."""
    limit = min(MAX_INFLATED, max(MAX_RATIO * packed, _ALWAYS))
    data = bytearray()
    while announced <= limit and len(data) <= limit:
        if not (part := read(_PART)):
            data += b"\n"
            return np.frombuffer(data, np.uint8)
        data += part
    got = f"{max(announced, len(data))} or more from {packed}"
    raise DataFormatError(
        f"{name}: must inflate to at most {MAX_RATIO} times its size and {MAX_INFLATED} bytes, got {got}"
    )
