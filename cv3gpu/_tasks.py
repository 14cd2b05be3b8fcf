"""A function over many items on any executor: in their order, small ones together, each with an error of its own."""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
import pickle
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from typing import Any, NamedTuple

import numpy as np

from . import _check
from ._threads import cores, one_thread

__all__ = [
    "ElsewhereError",
    "Outcome",
    "aligned",
    "check_executor",
    "check_function",
    "in_processes",
    "outcomes",
    "worker",
]

SECONDS = 0.5  # of work in a task: shipping one costs some milliseconds
SCHEDULING = 1e-3  # seconds that a task costs Dask's scheduler: with many workers tasks must be longer
LEAST = 0.05  # towards the end, where tasks become smaller so that all workers finish together
AHEAD = 3  # tasks for each worker, done or waiting
REFRESH = 5.0  # seconds between two looks at how many workers a cluster has
NOT_BACK = "the task did not come back: what it takes or gives does not pickle, or its process has ended"


class ElsewhereError(Exception):
    """The traceback of an error in another process, as text: the cause of that error here."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


class Outcome(NamedTuple):
    """What came of an item."""

    value: Any
    error: Exception | None
    seconds: float = 0.0
    trace: str = ""  # of the error, where that has travelled


class _Task(NamedTuple):
    """What travels to a worker."""

    function: Callable[[Any], Any]
    items: tuple[Any, ...]
    apart: bool  # whether the worker is another process
    stamp: str  # differs from run to run: Dask answers a task that it has seen from memory


def check_executor(op: str, executor: Any) -> None:
    """The argument is an executor, or None."""
    if executor is not None and (isinstance(executor, type) or not hasattr(executor, "submit")):
        _check.fail(op, "executor", "be a concurrent.futures.Executor", repr(executor), error=TypeError)


def in_processes(executor: Executor | None) -> bool:
    """Whether tasks leave this process."""
    return executor is not None and not isinstance(executor, ThreadPoolExecutor)


def check_function(op: str, function: Any, executor: Executor | None) -> None:
    """The function can be called, and can travel to where the executor runs it."""
    if not callable(function):
        _check.fail(op, "function", "be a function", _check.kind(function), error=TypeError)
    if in_processes(executor) and (reason := _stays(function, _dask(executor) is not None)):
        advice = "define it at the top of a module that workers can import, or make a functools.partial of such a one"
        _check.fail(op, "function", "pickle to travel to another process", reason, advice, error=TypeError)


def outcomes(
    function: Callable[[Any], Any],
    items: Sequence[Any],
    executor: Executor | None = None,
    weight: Callable[[Any], float] | None = None,
) -> Iterator[Outcome]:
    """``function(item)`` of each item, in their order.

    Without an executor, on as many threads as cores. On workers in other processes, an item computes in one thread, and
    items go together in tasks of about half a second: the first tasks hold one item, and how long these take, relative
    to ``weight`` (1 if left out), tells how many go into the next ones. A task that fails as a whole, because something
    does not pickle or a worker has died, is tried again item by item, so that the others are not lost with one.
    """
    if executor is None and min(len(items), cores()) < 2:
        yield from (_attempt(function, item) for item in items)
        return
    with ThreadPoolExecutor(cores()) if executor is None else contextlib.nullcontext(executor) as pool:
        yield from _Stream(function, items, pool, weight).in_order()


# ---- what a worker does -----------------------------------------------------------------------------------


def _work(task: _Task) -> list[Outcome]:
    """The outcomes of a task's items."""
    if not task.apart:
        return [_attempt(task.function, item) for item in task.items]
    with worker():
        return [_packed(_attempt(task.function, aligned(item))) for item in task.items]


@contextlib.contextmanager
def worker() -> Iterator[None]:
    """Inside the block, operators stay in this thread, and the memory of their temporaries in this process."""
    with one_thread(), _heap:
        yield


class _Heap:
    """A block in which freed memory is used again where it would go back to the system at once.

    Dask starts its workers with MALLOC_TRIM_THRESHOLD_ = 65536. To glibc that says more than Dask means: every array
    above 128 kB, a constant from then on, is mapped anew and unmapped when it is freed, and each of its pages is a
    fault. That was a third to a half of the time of a task. What a task keeps goes back by the first large array that
    is freed after it. Where the variable is not set glibc learns the sizes by itself.
    """

    TRIM, MAP = -1, -3  # mallopt's names of the two thresholds
    KEEP, LARGEST = 2**31 - 1, 32 << 20  # free memory that stays; larger arrays are mapped, as glibc would at most
    DEFAULT = 128 << 10

    def __init__(self) -> None:
        self._lock, self._inside = threading.Lock(), 0

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                self._set(self.KEEP, self.LARGEST)

    def __exit__(self, *failure: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._set(None, self.DEFAULT)

    def _set(self, trim: int | None, largest: int) -> None:
        given = os.environ.get("MALLOC_TRIM_THRESHOLD_", "")
        if not given.isdecimal() or "MALLOC_MMAP_THRESHOLD_" in os.environ or sys.platform != "linux":
            return
        if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):
            mallopt(self.TRIM, min(self.KEEP, int(given)) if trim is None else trim)
            mallopt(self.MAP, largest)


_heap = _Heap()


def aligned(x: Any) -> Any:
    """A NumPy array as the operators take it: one that has come through Dask lies wherever its message had it."""
    return np.require(x, requirements="A") if isinstance(x, np.ndarray) else x


def _attempt(function: Callable[[Any], Any], item: Any) -> Outcome:
    begun = time.perf_counter()
    value, failed = None, None
    try:
        value = function(item)
    except Exception as error:
        failed = error
    return Outcome(value, failed, time.perf_counter() - begun)


def _packed(found: Outcome) -> Outcome:
    """The outcome as it can travel: what does not pickle is an error, and an error that does not a RuntimeError."""
    if found.error is None:
        if not (reason := _stays(found.value, "cloudpickle" in sys.modules)):
            return found
        text = f"a result must pickle to leave its process, got {_check.kind(found.value)} ({reason})"
        return Outcome(None, TypeError(text), found.seconds)
    trace = "".join(traceback.format_exception(found.error)).rstrip()
    try:
        error = pickle.loads(pickle.dumps(found.error))
        same = type(error) is type(found.error) and str(error) == str(found.error)
    except Exception:  # an exception's class may do anything there
        same = False
    error = found.error if same else RuntimeError(f"{type(found.error).__name__}: {found.error}")
    return Outcome(None, error, found.seconds, trace)


def _stays(value: Any, cloud: bool) -> str:
    """Why a value does not pickle; nothing if it does. Large buffers are not copied for it."""
    try:
        pickle.Pickler(io.BytesIO(), 5, buffer_callback=lambda buffer: None).dump(value)
        return ""
    except Exception as error:
        if cloud:  # Dask's way, which takes functions by value
            import cloudpickle

            with contextlib.suppress(Exception):
                cloudpickle.dumps(value)
                return ""
        return f"{type(error).__name__}: {error}"


# ---- what the caller's process does -----------------------------------------------------------------------


def _dask(executor: Any) -> Any:
    """Dask's client behind an executor, or None."""
    client = getattr(executor, "_client", None)
    return client if hasattr(client, "nthreads") else None


class _Stream:
    """A run: some tasks are out, and the next ones are cut by what is known of the items' times."""

    def __init__(
        self,
        function: Callable[[Any], Any],
        items: Sequence[Any],
        pool: Executor,
        weight: Callable[[Any], float] | None,
    ) -> None:
        self.function, self.items, self.pool = function, items, pool
        self.apart, self.stamp = in_processes(pool), os.urandom(8).hex()
        self.workers, self.asked = self._count(), time.monotonic()
        together = self.apart and self.workers is not None
        self.weights = [max(1e-9, float(weight(x))) if weight else 1.0 for x in items] if together else None
        self.unsent = sum(self.weights or ())
        self.rate: float | None = None  # seconds for a unit of weight
        self.first = 0  # of those that were never sent
        self.again: deque[range] = deque()
        self.out: dict[Future[list[Outcome]], range] = {}
        self.found: dict[int, Outcome] = {}

    def in_order(self) -> Iterator[Outcome]:
        """The outcomes, each as soon as it and those before it are there."""
        try:
            for index in range(len(self.items)):
                self._send()
                while index not in self.found:
                    self._receive()
                    self._send()
                yield self.found.pop(index)
        finally:
            for future in self.out:
                future.cancel()

    def _count(self) -> int | None:
        """How many items can be worked at at once; None where the executor does not say."""
        if client := _dask(self.pool):
            return max(1, sum(client.nthreads().values()))
        known = getattr(self.pool, "_max_workers", None)  # the standard library's and loky's have it, under this name
        return known if isinstance(known, int) else None

    def _send(self) -> None:
        if _dask(self.pool) and time.monotonic() - self.asked > REFRESH:  # a cluster may grow
            self.workers, self.asked = self._count(), time.monotonic()
        most = len(self.items) if self.workers is None else AHEAD * self.workers
        while len(self.out) < most and (self.again or self.first < len(self.items)):
            span = self.again.popleft() if self.again else self._cut()
            task = _Task(self.function, tuple(self.items[i] for i in span), self.apart, self.stamp)
            try:
                self.out[self.pool.submit(_work, task)] = span
            except Exception as error:
                self._lost(span, error)

    def _cut(self) -> range:
        """The items of the next task."""
        start, stop = self.first, self.first + 1
        if self.weights is not None:
            size = self.weights[start]
            if self.rate is not None and self.workers is not None:
                wanted = max(SECONDS, SCHEDULING * self.workers)
                limit = max(LEAST, min(wanted, self.unsent * self.rate / (2 * self.workers)))
                while stop < len(self.items) and (size + self.weights[stop]) * self.rate <= limit:
                    size += self.weights[stop]
                    stop += 1
            self.unsent -= size
        self.first = stop
        return range(start, stop)

    def _receive(self) -> None:
        for future in wait(self.out, return_when=FIRST_COMPLETED).done:
            span = self.out.pop(future)
            try:
                done = future.result()
            except Exception as error:
                self._lost(span, error)
                continue
            self.found.update(zip(span, map(_unpacked, done), strict=True))
            if self.weights is not None:
                rate = sum(one.seconds for one in done) / sum(self.weights[i] for i in span)
                self.rate = rate if self.rate is None else (self.rate + rate) / 2

    def _lost(self, span: range, error: Exception) -> None:
        """A task that failed as a whole: its items one by one, or the error of its only one."""
        if len(span) > 1:
            self.again.extend(range(i, i + 1) for i in span)
        else:
            error.add_note(NOT_BACK)
            self.found[span.start] = Outcome(None, error)


def _unpacked(found: Outcome) -> Outcome:
    if found.error is not None and found.trace:
        found.error.__cause__ = ElsewhereError(found.trace)
    return found._replace(value=aligned(found.value))
