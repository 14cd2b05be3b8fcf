"""One pool of threads for the CPU paths, whose loops release the GIL."""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import numpy as np

__all__ = ["cores", "each", "one_thread", "product", "spans"]

_ROWS = 256  # of a product that BLAS leaves in one thread

_lock = threading.Lock()
_pool: ThreadPoolExecutor | None = None
_worker = threading.local()


def cores() -> int:
    """How many CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def spans(count: int, most: int) -> list[tuple[int, int]]:
    """``count`` things in ``most`` equal parts, fewer where there are fewer things: (first, last) of each."""
    parts = max(1, min(count, most))
    return list(itertools.pairwise([count * k // parts for k in range(parts + 1)]))


def each(function: Callable[..., Any], pieces: Iterable[tuple[Any, ...]]) -> list[Any]:
    """``[function(*piece) for piece in pieces]``, on all cores at once; an exception in one is raised here.

    This thread does its share, and takes the next piece whenever it has done one, as the others do.
    """
    pieces = list(pieces)
    if len(pieces) < 2 or cores() < 2 or getattr(_worker, "inside", False):
        return [function(*piece) for piece in pieces]
    left = deque(range(len(pieces)))
    results: list[Any] = [None] * len(pieces)

    def work() -> None:
        while left:
            try:
                place = left.popleft()
            except IndexError:  # another was quicker
                return
            try:
                results[place] = function(*pieces[place])
            except BaseException:
                left.clear()
                raise

    others: list[Future[None]] = []
    _worker.inside = True
    try:
        pool = _the_pool()
        with contextlib.suppress(RuntimeError):  # the interpreter ends: what is left is done here
            for _ in range(min(cores(), len(pieces)) - 1):
                others.append(pool.submit(work))  # noqa: PERF401 (those before a failure count)
        work()
    finally:
        _worker.inside = False
        wait(others)  # none is left behind that still writes, whatever another has raised
    for other in others:
        other.result()
    return results


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Inside the block, :func:`each` stays in this thread: for a process that is one of many on its machine."""
    before = getattr(_worker, "inside", False)
    _worker.inside = True
    try:
        yield
    finally:
        _worker.inside = before


def product(x: Any, y: Any) -> Any:
    """``x @ y`` of matrices, x with many rows and y small; NumPy's in pieces that BLAS multiplies in one thread.

    BLAS's own threads cost more than they bring here, the more so where pieces of work run in threads already.
    """
    if not isinstance(x, np.ndarray) or len(x) <= _ROWS:
        return x @ y
    whole = len(x) // _ROWS * _ROWS
    pieces = x[:whole].reshape(-1, _ROWS, x.shape[1]) @ y
    return np.concatenate([pieces.reshape(whole, -1), x[whole:] @ y])


def _enter() -> None:
    _worker.inside = True  # what a piece starts runs in its thread: waiting for others could last for ever


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
