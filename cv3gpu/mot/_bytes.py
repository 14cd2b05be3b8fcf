"""The bytes of files and of what is packed in them, within limits on how much may come out."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from ..errors import DataFormatError

if TYPE_CHECKING:
    from zipfile import ZipFile, ZipInfo

__all__ = ["is_zip", "load", "load_member", "members", "open_zip"]

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
        rest = file.read()  # of a pipe, or of a file that grows
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
    """A zip archive whose names stay inside it; whatever is wrong with it is a DataFormatError."""
    import zipfile
    import zlib

    try:
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                if re.match(r"[/\\]|[A-Za-z]:", name) or ".." in re.split(r"[/\\]", name):
                    raise DataFormatError(f"{path}: names in an archive must stay inside it, got {name[:200]!r}")
            yield archive
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise DataFormatError(f"{path}: not a readable zip archive: {error}") from None


def members(path: str) -> list[str]:
    """The names of the files in a zip archive."""
    with open_zip(path) as archive:
        return [info.filename for info in archive.infolist() if not info.is_dir()]


def _member(path: str, archive: ZipFile, info: ZipInfo) -> np.ndarray:
    name = f"{path}/{info.filename}"
    if info.flag_bits & 1:
        raise DataFormatError(f"{name}: a member must not be encrypted")
    if info.compress_type not in (0, 8):  # others inflate what they are given without a limit
        raise DataFormatError(f"{name}: a member must be stored or deflated, got method {info.compress_type}")
    with archive.open(info) as file:
        return _read(name, file.read, info.compress_size, info.file_size)


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
