"""One pool of threads for the CPU paths, whose loops release the GIL."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

__all__ = ["cores", "each"]

_lock = threading.Lock()
_pool: ThreadPoolExecutor | None = None
_worker = threading.local()


def cores() -> int:
    """How many CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def each(function: Callable[..., Any], pieces: Iterable[tuple[Any, ...]]) -> list[Any]:
    """``[function(*piece) for piece in pieces]``, on all cores at once; an exception in one is raised here."""
    pieces = list(pieces)
    if len(pieces) < 2 or cores() < 2 or getattr(_worker, "inside", False):
        return [function(*piece) for piece in pieces]
    futures, pool = [], _the_pool()
    try:
        for piece in pieces:
            futures.append(pool.submit(function, *piece))  # noqa: PERF401 (those before a failure count)
    except RuntimeError:  # the interpreter ends: what is left is done here
        return [future.result() for future in futures] + [function(*piece) for piece in pieces[len(futures) :]]
    wait(futures)  # none is left behind that still writes, whatever another has raised
    return [future.result() for future in futures]


def _enter() -> None:
    _worker.inside = True  # what a worker starts runs in that worker: waiting for others could last for ever


def _the_pool() -> ThreadPoolExecutor:
    global _pool
    with _lock:
        if _pool is None:
            _pool = ThreadPoolExecutor(cores(), "cv3gpu", _enter)
        return _pool


def _renew() -> None:
    global _lock, _pool
    _lock, _pool = threading.Lock(), None


if hasattr(os, "register_at_fork"):  # threads stay in the parent
    os.register_at_fork(after_in_child=_renew)
