"""Everything that needs a GPU, in one command: ``python -m bench.device``.

The most important first: what the machine is, the GPU tests, compute-sanitizer, benches, a table. Each stage
is a process group of its own with a time limit; what it wrote so far is kept when it is stopped. Run it from
the checkout's root; nothing has to be installed from there.

Exit status: 0 all done, 1 something failed, 3 something ran out of time, 4 there is no GPU.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
FAILED, TIMED_OUT, NO_GPU = 1, 3, 4
CONTEXT_LOST = 70  # bench/conftest.py: the rest of the benches needs a new process
LOG_LIMIT = 12 << 20  # bytes of a log file that are kept
GRACE = 8.0  # seconds between the polite and the final signal
RESERVE = 10.0  # seconds kept for the table


@dataclass(frozen=True)
class Stage:
    """One command. ``limit`` is the most it may take, s; ``{limit}`` in its words becomes what it is given.

    ``again`` is an exit status after which the command goes on in a new process, at most three times.
    """

    name: str
    group: str
    command: tuple[str, ...]
    limit: float
    log: str
    environment: dict[str, str] = field(default_factory=dict)
    again: int | None = None


@dataclass
class Ended:
    """How a stage ended: ``ok``, ``failed``, ``timed out`` or ``no time left``; its last line of output."""

    name: str
    state: str
    seconds: float = 0.0
    status: int | None = None
    said: str = ""


def stages(out: Path, budget: float) -> list[Stage]:
    """The plan, most important first; limits are shares of the budget, and the benches get what is left."""
    python, run_id = sys.executable, datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%S")
    quiet = ("-p", "no:cacheprovider", "--tb=short")
    tests = (
        python,
        "-m",
        "pytest",
        "tests",
        "-v",
        *quiet,
        "-k",
        "gpu or cuda",
        *(("-n", "8") if importlib.util.find_spec("xdist") else ()),  # the host's share of a test is the larger one
        f"--junitxml={out / 'tests.xml'}",
    )
    files = tuple(str(path) for path in sorted((ROOT / "bench").glob("bench_*.py")))
    benches = (
        python,
        "-m",
        "pytest",
        *files,
        "-v",
        "-s",
        *quiet,
        "--device",
        "cuda",
        "--results",
        str(out),
        "--run-id",
        run_id,
        "--stop-after",
        "{limit}",
    )
    plan = [
        Stage(
            "environment",
            "environment",
            (python, "-m", "bench.device", "--environment"),
            60,
            "environment.json",
        ),
        Stage("compile", "environment", (python, "-m", "bench.device", "--compile"), 0.15 * budget, "tests.log"),
        Stage("tests", "tests", tests, 0.3 * budget, "tests.log", {"CV3GPU_REQUIRE_GPU": "1"}),
    ]
    plan += [
        Stage(tool, "sanitize", (python, "-m", "bench.sanitize", "--tools", tool), 0.1 * budget, "sanitize.log")
        for tool in ("memcheck", "racecheck", "initcheck", "synccheck")
    ]
    plan += [
        Stage("benches", "bench", benches, budget, "bench.log", again=CONTEXT_LOST),
        Stage("table", "table", (python, "-m", "bench.table", "--all", "--results", str(out)), 60, "table.md"),
    ]
    return plan


# ---- one stage ------------------------------------------------------------------------------------------


def _signal_group(process: subprocess.Popen[bytes], number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def run_limited(command: Sequence[str], log: Path, limit: float, environment: dict[str, str]) -> int | None:
    """Runs a command as a process group, its output appended to ``log``; its exit status, None where stopped.

    A group that overruns gets an interrupt, so that it can save and sum up, and is killed ``GRACE`` later;
    what it left running is killed in any case.
    """
    with log.open("ab") as out:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            return process.wait(timeout=limit)
        except subprocess.TimeoutExpired:
            _signal_group(process, signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=GRACE)
            return None
        finally:
            _signal_group(process, signal.SIGKILL)
            process.wait()


def trim(log: Path) -> None:
    """Keeps the head and the tail of a log that is too long."""
    if log.stat().st_size > LOG_LIMIT:
        with log.open("rb") as file:
            head = file.read(LOG_LIMIT // 2)
            file.seek(-LOG_LIMIT // 2, os.SEEK_END)
            tail = file.read()
        log.write_bytes(head + b"\n[... cut ...]\n" + tail)


def last_line(log: Path) -> str:
    """The last line with something in it, without pytest's frame."""
    with log.open("rb") as file:
        file.seek(max(log.stat().st_size - 4096, 0))
        lines = [line.strip() for line in file.read().decode(errors="replace").splitlines()]
    return next((line.strip("= ")[:200] for line in reversed(lines) if line.strip("=- ")), "")


def _toolkit() -> str | None:
    """The CUDA toolkit's folder: numba finds libnvvm there where no pip package holds it, and only if it is named."""
    nvcc = shutil.which("nvcc")
    folder = Path(nvcc).resolve().parent.parent if nvcc else Path("/usr/local/cuda")
    return str(folder) if (folder / "nvvm").is_dir() and "CUDA_PATH" not in os.environ else None


def run_stage(stage: Stage, out: Path, left: float) -> Ended:
    """Runs a stage within its limit and the time that is left."""
    if left <= 0:
        return Ended(stage.name, "no time left")
    limit = min(stage.limit, left)
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", **stage.environment}
    if toolkit := _toolkit():
        environment.setdefault("CUDA_HOME", toolkit)
        environment["PATH"] = os.pathsep.join([os.environ.get("PATH", os.defpath), str(Path(toolkit, "bin"))])
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    log = out / stage.log
    started = time.monotonic()
    status: int | None = None
    for _ in range(4):
        rest = limit - (time.monotonic() - started)
        words = [word.replace("{limit}", f"{max(rest - 15, 1):.0f}") for word in stage.command]
        status = run_limited(words, log, rest, environment) if rest > 0 else None
        if status is None or status != stage.again:
            break
    seconds = time.monotonic() - started
    trim(log)
    state = "timed out" if status is None else "ok" if status == 0 else "failed"
    return Ended(stage.name, state, round(seconds, 1), status, last_line(log))


# ---- the whole ------------------------------------------------------------------------------------------


def save(path: Path, data: Any) -> None:
    """Writes JSON by an atomic rename."""
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    unfinished.replace(path)


def run_all(plan: Sequence[Stage], out: Path, budget: float) -> list[Ended]:
    """Runs stages in order within the budget, s; summary.json is rewritten after each."""
    out.mkdir(parents=True, exist_ok=True)
    for log in {stage.log for stage in plan}:
        (out / log).unlink(missing_ok=True)
    started = time.monotonic()
    ended: list[Ended] = []
    for stage in plan:
        reserve = 0.0 if stage is plan[-1] else min(RESERVE, 0.1 * budget)
        end = run_stage(stage, out, budget - (time.monotonic() - started) - reserve)
        ended.append(end)
        print(f"{end.name:12} {end.state:12} {end.seconds:7.1f} s  {end.said}", flush=True)
        save(out / "summary.json", {"budget": budget, "stages": [asdict(e) for e in ended]})
    return ended


def exit_status(ended: Sequence[Ended]) -> int:
    """Failures before time-outs; 0 where every stage went well."""
    states = {end.state for end in ended}
    if "failed" in states:
        return FAILED
    return TIMED_OUT if states & {"timed out", "no time left"} else 0


def gpu_is_there() -> bool:
    """Asks CuPy in a process of its own, so that this one holds no CUDA context."""
    asked = "import sys, cupy; sys.exit(not cupy.cuda.is_available())"
    with contextlib.suppress(subprocess.TimeoutExpired):
        found = subprocess.run([sys.executable, "-c", asked], capture_output=True, timeout=120, check=False)
        return found.returncode == 0
    return False


def print_environment() -> None:
    """What the machine is, as JSON: device, versions, and what ``cv3gpu doctor`` finds."""
    from .entry import commit, facts

    found: dict[str, Any] = {"commit": commit(), **facts("cuda")}
    try:
        from cv3gpu import doctor

        found["doctor"] = [finding._asdict() for finding in doctor.examine().findings]
    except Exception as error:
        found["doctor"] = f"{type(error).__name__}: {error}"
    print(json.dumps(found, indent=1, default=str))


def compile_kernels() -> None:
    """Puts every variant of every kernel for this GPU into the cache, so that later stages only load."""
    import cupy

    from cv3gpu import _kernel, _report

    capability = str(cupy.cuda.Device().compute_capability)
    jobs = _report.plan(archs=[capability])
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        sizes = list(pool.map(lambda job: len(_kernel._binary(job.text, job.file, int(capability))), jobs))
    print(f"{len(sizes)} texts compiled for sm_{capability}, {sum(sizes) >> 10} KiB")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the plan, or the chosen part of it."""
    groups = ("environment", "tests", "sanitize", "bench", "table")
    parser = argparse.ArgumentParser(prog="python -m bench.device", description=__doc__.partition("\n")[0])
    parser.add_argument("--budget", type=float, default=540, help="seconds for everything (default 540)")
    parser.add_argument("--out", type=Path, help="folder of logs and results (default bench/results)")
    parser.add_argument("--only", help=f"stages, separated by commas, of: {', '.join(groups)}")
    parser.add_argument("--dry-run", action="store_true", help="print the plan and do nothing")
    parser.add_argument("--environment", action="store_true", help="only print what the machine is")
    parser.add_argument("--compile", action="store_true", help="only compile every kernel for this GPU")
    chosen = parser.parse_args(arguments)
    if chosen.environment or chosen.compile:
        print_environment() if chosen.environment else compile_kernels()
        return 0
    only = chosen.only.split(",") if chosen.only else list(groups)
    if unknown := set(only) - set(groups):
        parser.error(f"--only must name stages among {', '.join(groups)}, got {', '.join(sorted(unknown))}")
    out = (chosen.out or ROOT / "bench" / "results").resolve()
    plan = [stage for stage in stages(out, chosen.budget) if stage.group in only]
    if chosen.only:  # what was asked for alone shares the whole budget
        plan = [replace(stage, limit=max(stage.limit, chosen.budget / len(plan))) for stage in plan]
    if chosen.dry_run:
        for stage in plan:
            print(f"{stage.name:12} at most {stage.limit:4.0f} s  {' '.join(stage.command)}")
        return 0
    if not gpu_is_there():
        said = "bench.device: needs a CUDA GPU that CuPy can use, got none; look with: python -m cv3gpu doctor"
        print(said, file=sys.stderr)
        return NO_GPU
    ended = run_all(plan, out, chosen.budget)
    print(f"\n{'stage':12} {'state':12} {'seconds':>7}  last line")
    for end in ended:
        print(f"{end.name:12} {end.state:12} {end.seconds:7.1f}  {end.said}")
    print(f"kept in {out}")
    return exit_status(ended)


if __name__ == "__main__":
    sys.exit(main())
