"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

__all__ = ["replacing"]


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Gives a new name beside ``path`` to write to, and puts that file in place when the block ends well.

    An error inside the block leaves what stood at ``path`` as it was, and nothing beside it. The name keeps
    the suffix of ``path``, so that a writer that goes by it works.
    """
    target = Path(path)
    unfinished = target.with_name(f".{target.stem}-{secrets.token_hex(6)}{target.suffix}")
    try:
        yield unfinished
        os.replace(unfinished, target)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
