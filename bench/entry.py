"""A bench entry is data; :func:`run` is the one runner of all of them.

The runner compares first and times afterwards: an entry whose result is off is recorded as wrong, with its
errors and without a time, and so is a peer.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import importlib
import importlib.metadata
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from . import timing

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
NOT_INSTALLED = "not installed"


class Errors(NamedTuple):
    """Relative errors against the float64 reference: of the whole (2-norm), and of the worst element."""

    norm: float
    largest: float


LIMITS = {
    "float64": Errors(1e-13, 1e-11),
    "float32": Errors(2e-5, 5e-4),
    "tf32": Errors(2e-3, 2e-2),
    "float16": Errors(1e-3, 1e-2),
    "bfloat16": Errors(5e-3, 3e-2),
    "other rules": Errors(0.05, 0.2),  # a peer that means to compute the same and does not quite
}
CEILING = {"float64": "fp64", "float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}

Way = Callable[[], Any] | str  # a call, or why there is none


@dataclass
class Work:
    """The prepared calls of an entry; inputs are made once, and every call returns its result.

    ``errors`` compares a result with the reference. ``peers`` run on the entry's device, ``host_peers`` on
    the CPU. Peers that take too long to be repeated stand in ``once``: each gives its result and its time, s.
    ``limits`` names a row of LIMITS for peers that compute in another precision. ``facts`` are other figures,
    such as the memory taken; they are kept with the times.
    """

    ours: Callable[[], Any]
    errors: Callable[[Any], Errors]
    peers: dict[str, Way] = field(default_factory=dict)
    host_peers: dict[str, Way] = field(default_factory=dict)
    once: dict[str, Callable[[], tuple[Any, float]]] = field(default_factory=dict)
    limits: dict[str, str] = field(default_factory=dict)
    facts: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Entry:
    """One thing to time. ``bytes`` is what must be moved at least, ``flops`` what is to be computed."""

    name: str
    family: str
    shape: str
    device: str  # "cpu" or "cuda"
    dtype: str
    bytes: int
    flops: int
    setup: Callable[[], Work]
    priority: int = 1  # 0 stands in the README; lower runs first

    def __str__(self) -> str:
        return self.name.replace(" ", "-")


def dense_errors(reference: Any, got: Any) -> Errors:
    """Errors of an array against a float64 array; infinite where shapes differ, or on NaN."""
    if tuple(got.shape) != tuple(reference.shape):
        return Errors(float("inf"), float("inf"))
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(reference, torch.Tensor):
        off = torch.as_tensor(got).to(reference.device).double() - reference
        norms = [v.item() for v in (off.norm(), reference.norm(), off.abs().max(), reference.abs().max())]
    else:
        host = got.get() if hasattr(got, "get") else np.asarray(got)
        off = host.astype(np.float64) - reference
        norms = [np.linalg.norm(off), np.linalg.norm(reference), np.abs(off).max(), np.abs(reference).max()]
    found = Errors(float(norms[0] / max(norms[1], 1e-300)), float(norms[2] / max(norms[3], 1e-300)))
    return Errors(*(v if v == v else float("inf") for v in found))


class DeviceLostError(RuntimeError):
    """The CUDA context is broken; every later call in this process would fail."""


def _still_there(device: str) -> None:
    if device == "cuda":
        try:
            importlib.import_module("cupy").cuda.Stream.null.synchronize()
        except Exception as error:
            raise DeviceLostError(str(error)) from error


def _checked(name: str, way: Way, work: Work, dtype: str, outcome: dict[str, Any], device: str) -> bool:
    """Whether a way may be timed; writes its errors, or why not, into the outcome."""
    if isinstance(way, str):
        outcome["absent"][name] = way
        return False
    try:
        errors = work.errors(way())
    except Exception as error:
        _still_there(device)
        outcome["absent"][name] = f"{type(error).__name__}: {error}"[:300]
        return False
    limits = LIMITS[work.limits.get(name, dtype)]
    outcome["errors"][name] = list(errors)
    right = errors.norm <= limits.norm and errors.largest <= limits.largest
    if not right:
        outcome["absent"][name] = f"wrong by {errors.norm:.1e} (norm), {errors.largest:.1e} (largest)"
    return right


def _noted(name: str, way: Callable[[], tuple[Any, float]], single: dict[str, float]) -> Any:
    """The result of a way that gives its time with it."""
    result, single[name] = way()
    return result


def run(entry: Entry, benchmark: Any = None, seconds: float | None = None) -> dict[str, Any]:
    """Compares, then times ours and the peers in turns; returns what is to be kept.

    ``status`` is ``"ok"``, ``"wrong"`` (compared and off: not timed) or ``"failed"`` (did not run).
    """
    kept = ("family", "shape", "device", "dtype", "bytes", "flops", "priority")
    outcome: dict[str, Any] = {name: getattr(entry, name) for name in kept}
    outcome |= {
        "status": "failed",
        "errors": {},
        "absent": {},
        "times": {},
        "commit": commit(),
        "date": _now(),
    }
    try:
        work = entry.setup()
    except Exception as error:
        _still_there(entry.device)
        outcome["absent"]["ours"] = f"{type(error).__name__}: {error}"[:300]
        return outcome
    if not _checked("ours", work.ours, work, entry.dtype, outcome, entry.device):
        outcome["status"] = "wrong" if "ours" in outcome["errors"] else "failed"
        return outcome
    sides: dict[str, Way] = {**work.peers, **work.host_peers}
    right = {n: w for n, w in sides.items() if _checked(n, w, work, entry.dtype, outcome, entry.device)}
    single: dict[str, float] = {}
    for name, way in work.once.items():
        _checked(name, functools.partial(_noted, name, way, single), work, entry.dtype, outcome, entry.device)
    near = {"ours": work.ours, **{n: w for n, w in right.items() if n in work.peers}}
    far = {n: w for n, w in right.items() if n in work.host_peers}
    try:
        if entry.device == "cuda":
            samples, host = timing.gpu_times(near, seconds or 0.3)  # type: ignore[arg-type]
        else:
            samples, host = timing.cpu_times(near, seconds or 2.0, benchmark), {}  # type: ignore[arg-type]
        if far:
            samples |= timing.cpu_times(far, seconds or 0.5)  # type: ignore[arg-type]
    except Exception as error:
        _still_there(entry.device)
        outcome["absent"]["ours"] = f"while timed: {type(error).__name__}: {error}"[:300]
        return outcome
    samples |= {name: [t] for name, t in single.items() if name not in outcome["absent"]}
    outcome["times"] = {name: timing.summary(values) for name, values in samples.items()}
    outcome["facts"] = dict(work.facts)
    for name, t in host.items():
        outcome["times"][name]["host"] = t
    outcome["status"] = "ok"
    return outcome


# ---- where results are kept -----------------------------------------------------------------------------


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@functools.cache
def commit() -> str:
    """The checkout's commit, with ``+`` where files differ from it; empty outside of git."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        git = ["git", "-C", str(HERE)]
        head = subprocess.check_output([*git, "rev-parse", "--short=12", "HEAD"], text=True, stderr=subprocess.DEVNULL)
        changed = subprocess.check_output([*git, "status", "--porcelain"], text=True)
        return head.strip() + ("+" if changed.strip() else "")
    return ""


@functools.cache
def cpu_name() -> str:
    """The processor's name and how many cores this process may use."""
    name = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        if found := re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text()):
            name = found[1]
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{name}, {usable} cores"


_PACKAGES = (
    "numpy",
    "scipy",
    "torch",
    "torchvision",
    "pydensecrf2",
    "PyMaxflow",
    "gco-wrapper",
    "cupy-cuda12x",
    "cupy-cuda13x",
    "numba",
    "numba-cuda",
    "scikit-image",
    "scikit-learn",
    "pulp",
    "pyamg",
    "lapx",
    "trackeval",
    "motrics",
)


def facts(device: str) -> dict[str, Any]:
    """What a reader of the figures needs to know of the machine and its software."""
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    found: dict[str, Any] = {"device": cpu_name(), "cpu": cpu_name(), "versions": versions}
    with contextlib.suppress(ImportError):
        torch = importlib.import_module("torch")
        found["torch_threads"] = torch.get_num_threads()
        versions["cudnn"] = torch.backends.cudnn.version()
    if device == "cuda":
        runtime = importlib.import_module("cupy").cuda.runtime
        found["device"] = runtime.getDeviceProperties(runtime.getDevice())["name"].decode()
        found["driver"] = runtime.driverGetVersion()
    return found


def file_name(device_name: str) -> str:
    """``NVIDIA H100 80GB HBM3`` → ``nvidia-h100-80gb-hbm3.json``."""
    return re.sub(r"[^a-z0-9]+", "-", device_name.lower()).strip("-") + ".json"


class Results:
    """The kept results of one device; each entry is saved as soon as it is there, by an atomic rename."""

    def __init__(self, path: Path, older: Path | None = None) -> None:
        """Goes on with ``path``, or with ``older`` where there is no such file yet."""
        self.path = path
        self.data: dict[str, Any] = {"entries": {}}
        for candidate in (path, older):
            if candidate is not None and candidate.is_file():
                self.data = json.loads(candidate.read_text(encoding="utf-8"))
                break

    def describe(self, described: Mapping[str, Any]) -> None:
        """Sets facts of the device, keeping those that are not named."""
        self.data |= {"commit": commit(), "date": _now(), **described}
        self._save()

    def put(self, name: str, outcome: Mapping[str, Any], run_id: str = "") -> None:
        """Keeps an entry's outcome in place of an older one."""
        self.data["entries"][name] = {**outcome, "run": run_id}
        self._save()

    def has(self, name: str, run_id: str) -> bool:
        """Whether this very run has already recorded the entry."""
        return bool(run_id) and self.data["entries"].get(name, {}).get("run") == run_id

    def _save(self) -> None:
        self.data["entries"] = dict(sorted(self.data["entries"].items()))
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=self.path.parent, delete=False, encoding="utf-8") as out:
            json.dump(self.data, out, indent=1)
            out.write("\n")
        os.chmod(out.name, 0o644)
        os.replace(out.name, self.path)
