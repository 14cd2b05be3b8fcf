"""The ``measure`` fixture, through which every bench runs: ``pytest bench/bench_*.py``.

Entries of low priority number run first. GPU entries are skipped without a GPU. A CUDA error that breaks the
context ends the session with exit status 70; with the same ``--run-id`` the next session goes on after it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from . import timing
from .entry import RESULTS, DeviceLostError, Entry, Results, facts, file_name, run

CONTEXT_LOST = 70


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("cv3gpu benches")
    group.addoption("--results", type=Path, default=RESULTS, help="folder of <device>.json")
    group.addoption("--device", choices=("cpu", "cuda"), help="only entries of this device")
    group.addoption("--priority", type=int, default=9, help="leave out entries of a higher number")
    group.addoption("--seconds", type=float, help="time for each entry, s")
    group.addoption("--stop-after", type=float, help="start no entry after so many seconds")
    group.addoption("--run-id", default="", help="skip entries that this run has already recorded")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """The project's tests skip benches (--benchmark-skip); whoever names this folder wants them."""
    config.option.benchmark_skip = False


def pytest_pycollect_makeitem(collector: Any, name: str, obj: Any) -> Any:
    """Functions named ``bench_*`` are benches."""
    if isinstance(collector, pytest.Module) and name.startswith("bench_") and callable(obj):
        return list(collector._genfunctions(name, obj))
    return None


def _entry(item: pytest.Item) -> Entry | None:
    called = getattr(item, "callspec", None)
    return called.params.get("entry") if called is not None else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    device, highest = config.getoption("--device"), config.getoption("--priority")

    def wanted(item: pytest.Item) -> bool:
        entry = _entry(item)
        return entry is None or (device in {None, entry.device} and entry.priority <= highest)

    config.hook.pytest_deselected(items=[item for item in items if not wanted(item)])
    items[:] = sorted(filter(wanted, items), key=lambda item: getattr(_entry(item), "priority", -1))


@pytest.fixture(scope="session")
def started() -> float:
    return time.monotonic()


@pytest.fixture(scope="session")
def results_of(request: pytest.FixtureRequest) -> Callable[[str], Results]:
    """The results of a device, its facts and ceilings written at the first use."""
    opened: dict[str, Results] = {}
    run_id = request.config.getoption("--run-id")

    def open_results(device: str) -> Results:
        if device not in opened:
            found = facts(device)
            name = file_name(found["device"])
            results = opened[device] = Results(request.config.getoption("--results") / name, RESULTS / name)
            if not run_id or results.data.get("run") != run_id:
                ceilings = timing.gpu_ceilings() if device == "cuda" else timing.cpu_ceilings()
                results.describe({**found, "kind": device, "ceilings": ceilings, "run": run_id})
        return opened[device]

    return open_results


@pytest.fixture
def measure(
    request: pytest.FixtureRequest, results_of: Callable[[str], Results], started: float
) -> Callable[[Entry], None]:
    """Runs one entry, keeps its outcome, and fails where the result was wrong or the call failed."""
    option = request.config.getoption

    def measured(entry: Entry) -> None:
        if entry.device == "cuda" and not gpu_is_there():
            pytest.skip("needs a CUDA GPU")
        if option("--stop-after") is not None and time.monotonic() - started > option("--stop-after"):
            pytest.skip("the time for benches is used up")
        results = results_of(entry.device)
        if results.has(entry.name, option("--run-id")):
            pytest.skip("recorded earlier in this run")
        benchmark = request.getfixturevalue("benchmark") if entry.device == "cpu" else None
        try:
            outcome = run(entry, benchmark, option("--seconds"))
        except DeviceLostError as error:
            why = f"the CUDA context broke: {error}"
            lost = {
                "status": "failed",
                "family": entry.family,
                "device": entry.device,
                "absent": {"ours": why},
            }
            results.put(entry.name, lost, option("--run-id"))
            pytest.exit(f"{entry}: {why}", returncode=CONTEXT_LOST)
        results.put(entry.name, outcome, option("--run-id"))
        if benchmark is not None:
            benchmark.extra_info.update(outcome)
        for name, figures in outcome["times"].items():
            print(f"{figures['median'] * 1e3:12.4f} ms  {name}")
        for name, why in outcome["absent"].items():
            print(f"{'—':>12}     {name}: {why}")
        assert outcome["status"] == "ok", f"{entry}: {outcome['absent'].get('ours')}"

    return measured


def gpu_is_there() -> bool:
    """Whether CuPy finds a CUDA device."""
    try:
        import cupy
    except ImportError:
        return False
    return bool(cupy.cuda.is_available())
