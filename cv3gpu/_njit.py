"""CPU kernels: plain Python functions of a module, compiled together by numba at their first use.

A module writes its inner loops as ordinary module-level functions that call one another, and asks for the
outermost one compiled::

    solve = _njit.compiled(helper, other_helper, _solve)      # callees first, the entry last

Importing the module then needs NumPy alone, and the functions can be stepped through in a debugger. The
machine code is kept on disk, in the same private folder as the GPU kernels, because numba unpickles what
it finds there.
"""

from __future__ import annotations

import functools
import importlib
import threading
import types
from collections.abc import Callable
from typing import Any

from . import _kernel

__all__ = ["compiled"]

_configuring = threading.Lock()


@functools.cache
def compiled(*functions: Callable[..., Any]) -> Callable[..., Any]:
    """The last of ``functions`` as machine code that releases the GIL; it calls the others, compiled."""
    numba = importlib.import_module("numba")
    scope = dict(functions[-1].__globals__)
    for function in functions:
        inner = function is not functions[-1]  # leave out what only a call from Python needs
        jit = numba.njit(nogil=True, error_model="numpy", no_cpython_wrapper=inner, no_cfunc_wrapper=True)
        scope[function.__name__] = jit(types.FunctionType(function.__code__, scope, function.__name__))
    entry = scope[functions[-1].__name__]
    folder = _kernel.cache_folder()
    if folder is not None:
        config: Any = importlib.import_module("numba.core.config")
        with _configuring:
            before, config.CACHE_DIR = config.CACHE_DIR, str(folder / "numba")
            try:
                entry.enable_caching()
            except (OSError, RuntimeError):
                pass  # a folder that can't be written costs a compile next time, nothing else
            finally:
                config.CACHE_DIR = before
    return entry
