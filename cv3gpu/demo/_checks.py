"""How an operator of the demo is tried: on every device there is, timed, and compared with a reference."""

from __future__ import annotations

import functools
import importlib
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

__all__ = ["CPU", "LABELS", "LARGEST", "RELATIVE", "RUNS", "Device", "Distance", "Row", "compare", "devices", "measure"]

CPU = "cpu (numpy)"
RUNS = 5  # of one operator on one device
LONG = 1.0  # seconds: no further run of one operator after this


class Row(NamedTuple):
    """One comparison: ``error`` is the largest difference from the reference, None if there is no result."""

    operator: str
    input: str
    device: str
    milliseconds: float
    agreement: str
    error: float | None
    tolerance: float
    ok: bool


class Device(NamedTuple):
    """Where an operator is tried: how a NumPy array gets there and back, and what waits for the work."""

    name: str
    put: Callable[[np.ndarray], Any]
    get: Callable[[Any], np.ndarray]
    wait: Callable[[], None]


def devices() -> list[Device]:
    """The CPU with NumPy and torch, and the GPU with CuPy and torch, as far as they are there."""
    found = [Device(CPU, lambda x: x, lambda x: x, lambda: None)]
    torch, cupy = _optional("torch"), _optional("cupy")
    if torch is not None:
        found.append(Device("cpu (torch)", torch.from_numpy, lambda x: x.numpy(), lambda: None))
    if cupy is not None and cupy.cuda.is_available():
        found.append(Device("cuda:0 (cupy)", cupy.asarray, cupy.asnumpy, cupy.cuda.runtime.deviceSynchronize))
        if torch is not None and torch.cuda.is_available():
            found.append(
                Device(
                    "cuda:0 (torch)",
                    lambda x: torch.from_numpy(x).cuda(),
                    lambda x: x.cpu().numpy(),
                    torch.cuda.synchronize,
                )
            )
    return found


def _optional(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except Exception:
        return None  # missing or broken: cv3gpu doctor says more


def measure(call: Callable[[], Any], wait: Callable[[], None] = lambda: None) -> tuple[Any, float]:
    """The result of a call and its median time in milliseconds, after one run that is not counted."""
    result = call()
    wait()
    seconds: list[float] = []
    while len(seconds) < RUNS and sum(seconds) < LONG:
        start = time.perf_counter()
        call()
        wait()
        seconds.append(time.perf_counter() - start)
    return result, 1e3 * statistics.median(seconds)


class Distance(NamedTuple):
    """How a result is compared: a function of it and the reference, and how that number is said."""

    words: str
    between: Callable[[np.ndarray, np.ndarray], Any]
    number: str
    limit: str


LARGEST = Distance("max error", lambda got, want: np.abs(got - want).max(), ".1e", ".0e")
LABELS = Distance("labels that differ", lambda got, want: (got != want).mean(), ".2%", ".0%")
RELATIVE = Distance("error", lambda got, want: np.linalg.norm(got - want) / np.linalg.norm(want), ".1%", ".0%")


def compare(
    operator: str,
    input: str,
    call: Callable[..., Any],
    arrays: Sequence[np.ndarray],
    want: np.ndarray,
    reference: str,
    tolerance: float,
    distance: Distance = LARGEST,
) -> list[Row]:
    """Calls an operator on every device and compares with a float64 reference.

    Parameters
    ----------
    operator, input, reference : words for the table
    call : function of ``arrays`` in the device's library, returns one array
    arrays : NumPy arrays
    want : array, float64, or labels
    tolerance : largest distance that is ok
    distance : what the distance is, by default the largest absolute difference
    """
    rows = []
    for device in devices():
        there = [device.put(x) for x in arrays]
        result, milliseconds = measure(functools.partial(call, *there), device.wait)
        got = device.get(result)
        error = float(distance.between(got.astype(np.float64), want)) if got.shape == want.shape else None
        ok = error is not None and error <= tolerance  # NaN is not
        said = f"shape {got.shape}"
        if error is not None:
            said = f"{distance.words} {error:{distance.number}} (limit {tolerance:{distance.limit}})"
        rows.append(Row(operator, input, device.name, milliseconds, f"{said} vs {reference}", error, tolerance, ok))
    return rows
