"""``seqinfo.ini``: what MOTChallenge's folders say of a sequence beside its tracks."""

from __future__ import annotations

import re

from ..errors import DataFormatError
from .tracks import MAX_FRAME

__all__ = ["MAX_BYTES", "NAME", "decoded", "frame_rate", "length"]

NAME = "seqinfo.ini"
MAX_BYTES = 1 << 20  # that are read of a file that describes sequences

_RATE = re.compile(r"\d{1,4}(\.\d{1,9})?")


def decoded(data: bytes) -> str:
    """The text of such a file."""
    return data.decode("utf-8-sig", errors="replace")


def length(name: str, text: str) -> int | None:
    """``seqLength`` in the text of the file ``name``, frames; None where it is not there."""
    found = _entry(text, "seqLength")
    if found is None:
        return None
    said, line = found
    if not re.fullmatch(r"[0-9]{1,10}", said) or int(said) > MAX_FRAME:
        wrong = f"seqLength must be a whole number from 0 to {MAX_FRAME}, got {said[:40]!r}"
        raise DataFormatError(f"{name}:{line}: {wrong}")
    return int(said)


def frame_rate(name: str, text: str) -> float | None:
    """``frameRate`` in the text of the file ``name``, frames per second; None where it is not there."""
    found = _entry(text, "frameRate")
    if found is None:
        return None
    said, line = found
    if not _RATE.fullmatch(said) or float(said) <= 0:
        raise DataFormatError(f"{name}:{line}: frameRate must be a positive number, got {said[:40]!r}")
    return float(said)


def _entry(text: str, key: str) -> tuple[str, int] | None:
    """What stands behind a key, and in which line."""
    found = re.search(rf"^[ \t]*{key}[ \t]*[=:](.*)$", text, re.I | re.M)
    if found is None:
        return None
    return found[1].strip(), text.count("\n", 0, found.start(1)) + 1
