"""What ``cv3gpu bench`` measures, without the shell: the entries of the checkout's bench folder."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .errors import BackendUnavailableError

__all__ = ["Measured", "duration", "entries", "measure"]

ROOT = Path(__file__).resolve().parent.parent


class Measured(NamedTuple):
    """An entry's outcome: medians in seconds by name, ours first; ``why`` says what stands in the way."""

    name: str
    shape: str
    status: str
    times: dict[str, float]
    why: dict[str, str]


def _module(name: str) -> Any:
    if not (ROOT / "bench" / "entry.py").is_file():
        raise BackendUnavailableError("bench: the measurements are in the source checkout, not in the package")
    if str(ROOT) not in sys.path:
        sys.path.append(str(ROOT))
    try:
        return importlib.import_module(f"bench.{name}")
    except ImportError as error:
        raise BackendUnavailableError(f"bench: {error}; pip install 'cv3gpu[bench]'") from error


def entries(device: str, words: Sequence[str]) -> list[Any]:
    """Those of a device whose names hold one of the words, or, without words, those that the README shows."""
    every = [entry for module in _module("table").benches() for entry in module.ENTRIES if entry.device == device]
    if not words:
        return [entry for entry in every if entry.priority == 0]
    return [entry for entry in every if any(word.casefold() in entry.name.casefold() for word in words)]


def measure(chosen: Sequence[Any], seconds: float | None, progress: Callable[[str], None]) -> list[Measured]:
    """Compares each with its reference, then times it and its peers; nothing is kept."""
    run, found = _module("entry").run, []
    for entry in chosen:
        progress(entry.name)
        outcome = run(entry, seconds=seconds)
        times = {name: float(figures["median"]) for name, figures in outcome["times"].items()}
        found.append(Measured(entry.name, entry.shape, outcome["status"], times, dict(outcome["absent"])))
    return found


def duration(seconds: float) -> str:
    """As the README has it."""
    return str(_module("table").duration(seconds))
