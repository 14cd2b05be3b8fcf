"""A function over the items of a data set."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .. import _array, _check, _files, _tasks

__all__ = ["Mapped", "map_items"]

OP = "map_items"
LONGEST = 200  # characters of an item in an error


class Mapped(NamedTuple):
    """What came of the items."""

    values: list[Any]  # of each item: the function's result, or the path of its file; None where it failed
    failures: dict[int, Exception]  # by the item's place
    made: int  # how many were computed now; the others failed, or had their file already


def map_items(
    function: Callable[[Any], Any],
    items: Iterable[Any],
    *,
    executor: Executor | None = None,
    output: Callable[[Any], str | os.PathLike[str]] | None = None,
    save: Callable[[str, Any], Any] | None = None,
    on_error: str = "raise",
    progress: Callable[[int, int], None] | None = None,
) -> Mapped:
    """Applies a function to each item of a data set, on all cores, on processes or on a cluster.

    Parameters
    ----------
    function : callable, item -> result
        For an image: reads the file that it is given, and calls an operator. For processes it must pickle: a function
        at the top of a module, or a :func:`functools.partial` of one. Dask takes lambdas, too.
    items : iterable
        Paths, or anything else that is small: an item travels to its worker, and pixels should be read there.
    executor : concurrent.futures.Executor, optional
        Threads, processes, or Dask's ``client.get_executor()``. Without one, as many threads as cores.
    output : callable, item -> path, optional
        Where the result of an item is written, by the worker; the path is then the item's value, and results do not
        travel. A file appears whole or not at all. An item whose file is there already is not computed: a run that was
        ended goes on where it was.
    save : callable, (path, result), optional
        Writes a result. Left out, arrays are written as ``.npy``.
    on_error : {"raise", "keep"}
        What becomes of items that fail: an error once all others are done, or ``failures`` in the result.
    progress : callable, (done, all), optional
        Called as items end, in their order, with how many have.

    Returns
    -------
    Mapped
        ``values`` in the order of the items, ``failures`` by place, ``made``.

    Raises
    ------
    Exception
        With ``on_error="raise"``, that of the first item that failed. Its notes name every such item (the first 20) and
        say how many went well, and its attribute ``mapped`` is the :class:`Mapped` of all. One from another process has
        its traceback there as its cause.
    TypeError
        A function that can't be called, or can't travel to another process; another argument of the wrong kind.
    ValueError
        Two items with one output; an output that is not ``.npy`` without ``save``.

    Notes
    -----
    Items go to processes in tasks of about half a second, by the time that the first ones took; an item is computed in
    one thread there, so that as many processes as cores fill a machine. Results do not depend on the executor.
    Where a process dies, a pool of the standard library is lost with all that was not done; Dask starts another worker,
    and only the item that kills its worker again and again fails.

    Examples
    --------
    >>> import numpy as np, cv3gpu
    >>> from cv3gpu.scale import map_items
    >>> def enlarge(value):
    ...     return cv3gpu.interpolate(np.full((1, 1, 2, 2), value), scale_factor=2).sum()
    >>> found = map_items(enlarge, [1.0, 2.0, "three"], on_error="keep")
    >>> [float(value) for value in found.values[:2]], list(found.failures)
    ([16.0, 32.0], [2])
    """
    _tasks.check_executor(OP, executor)
    _tasks.check_function(OP, function, executor)
    _check.choice(OP, "on_error", on_error, ("raise", "keep"))
    for name, given in (("output", output), ("save", save), ("progress", progress)):
        if given is not None and not callable(given):
            _check.fail(OP, name, "be a function", _check.kind(given), error=TypeError)
    if isinstance(items, str | bytes) or not isinstance(items, Iterable):
        _check.fail(OP, "items", "be an iterable of items", _check.kind(items), error=TypeError)
    if save is not None and output is None:
        _check.fail(OP, "save", "be given with output only", "no output")
    every = list(items)
    paths = None if output is None else _paths(every, output, save)
    values: list[Any] = [None] * len(every) if paths is None else list(paths)
    left = [i for i in range(len(every)) if paths is None or not os.path.isfile(paths[i])]
    if paths is None:
        found = _tasks.outcomes(function, [every[i] for i in left], executor)
    else:
        work = _Written(function, save or _save_array)
        _tasks.check_function(OP, work, executor)
        found = _tasks.outcomes(work, [(every[i], paths[i]) for i in left], executor)
    failures: dict[int, Exception] = {}
    begun = len(every) - len(left)
    if progress is not None and begun:
        progress(begun, len(every))
    for done, (i, outcome) in enumerate(zip(left, found, strict=True), begun + 1):
        if outcome.error is None:
            values[i] = outcome.value
        else:
            values[i], failures[i] = None, outcome.error
        if progress is not None:
            progress(done, len(every))
    mapped = Mapped(values, failures, len(left) - len(failures))
    if failures and on_error == "raise":
        raise _told(every, mapped)
    return mapped


def _paths(items: list[Any], output: Callable[[Any], Any], save: Any) -> list[str]:
    paths: list[str] = []
    for item in items:
        path = output(item)
        _files.path(OP, "output", path)
        if save is None and Path(path).suffix != ".npy":
            _check.fail(OP, "output", "end in .npy where there is no save", repr(os.fspath(path)))
        paths.append(os.fspath(path))
    seen: set[str] = set()
    for path in paths:
        if path in seen:
            _check.fail(OP, "output", "be another path for each item", f"{path!r} twice")
        seen.add(path)
    return paths


@dataclass(frozen=True)
class _Written:
    """The function with its result in a file."""

    function: Callable[[Any], Any]
    save: Callable[[str, Any], Any]

    def __call__(self, pair: tuple[Any, str]) -> str:
        item, path = pair
        if not os.path.isfile(path):  # a task that was begun by a worker that has died
            result = self.function(item)
            with _files.replacing(path) as unfinished:
                self.save(os.fspath(unfinished), result)
        return path


def _save_array(path: str, result: Any) -> None:
    if _array.family(result) is None:
        advice = "give save for other results"
        _check.fail(OP, "function", "return an array to be written as .npy", _check.kind(result), advice, TypeError)
    np.save(path, _array.to_host(result), allow_pickle=False)


def _told(items: list[Any], mapped: Mapped) -> Exception:
    """The first error, which tells of all."""
    error = next(iter(mapped.failures.values()))
    for count, (i, other) in enumerate(mapped.failures.items()):
        if count == 20:
            error.add_note(f"and {len(mapped.failures) - count} more items failed")
            break
        text = repr(items[i])
        shown = text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
        error.add_note(f"item {i}, {shown}, failed" + (f": {other}" if other is not error else ""))
    well = len(items) - len(mapped.failures)
    error.add_note(f"{well} of {len(items)} items went well; the error's attribute mapped has what came of them")
    error.mapped = mapped  # type: ignore[attr-defined]
    return error
