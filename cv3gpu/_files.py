"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from . import _check

__all__ = ["path", "replacing"]


def path(op: str, argument: str, value: object) -> None:
    """The argument is a path."""
    if not isinstance(value, str | os.PathLike):
        _check.fail(op, argument, "be a path", _check.kind(value), error=TypeError)


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Gives a new name beside ``path`` to write to, and puts that file in place when the block ends well.

    An error inside the block leaves what stood at ``path`` as it was, and nothing beside it. The name keeps
    the suffix of ``path``, so that a writer that goes by it works. A link stays, and the file that it leads to is
    replaced; what is there and is no file, such as a device, is refused. An OSError names ``path``, not the new name.
    """
    if os.path.exists(path) and not os.path.isfile(path):
        raise OSError(errno.EINVAL, "must be a regular file or not be there", os.fspath(path))
    target = Path(os.path.realpath(path))
    if target.is_symlink():  # links that lead in a circle
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), os.fspath(path))
    unfinished = target.with_name(f".{target.stem}-{secrets.token_hex(6)}{target.suffix}")
    try:
        yield unfinished
        os.replace(unfinished, target)
    except BaseException as error:
        with contextlib.suppress(OSError):  # it was never there, or its folder is not
            unfinished.unlink()
        if isinstance(error, OSError) and error.filename == os.fspath(unfinished):
            error.filename = os.fspath(path)
        raise
