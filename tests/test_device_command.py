"""The one device command, with stages that need no GPU: order, time limits, partial results, exit status."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bench import device, sanitize
from bench.device import Stage
from cv3gpu import _array


def stage(name: str, code: str, limit: float = 20.0, **options: object) -> Stage:
    return Stage(name, "tests", (sys.executable, "-c", code), limit, f"{name}.log", **options)  # type: ignore[arg-type]


def gone(process: int) -> bool:
    """Whether a process ended (or waits to be collected) within two seconds."""
    for _ in range(40):
        status = Path(f"/proc/{process}/stat")
        try:
            if status.read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.05)
    return False


def test_stages_run_in_order_and_are_summed_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = [
        stage("one", "print('first'); print('===== 3 passed =====')"),
        stage("two", "import sys; print('second'); sys.exit(1)"),
        stage("three", "print('third')"),
    ]
    ended = device.run_all(plan, tmp_path, 60)
    assert [(e.name, e.state, e.status) for e in ended] == [
        ("one", "ok", 0),
        ("two", "failed", 1),
        ("three", "ok", 0),
    ]
    assert ended[0].said == "3 passed"
    assert device.exit_status(ended) == device.FAILED
    assert [e["name"] for e in json.loads((tmp_path / "summary.json").read_text())["stages"]] == [
        "one",
        "two",
        "three",
    ]
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["one", "two", "three"]
    assert device.exit_status(device.run_all(plan[:1], tmp_path, 60)) == 0


def test_overrun_is_interrupted_keeps_its_output_and_the_rest_goes_on(tmp_path: Path) -> None:
    slow = """
import time
print("partial")
try:
    time.sleep(60)
except KeyboardInterrupt:
    print("saved")
"""
    plan = [stage("slow", slow, limit=6.0), stage("next", "print('went on')")]
    ended = device.run_all(plan, tmp_path, 60)
    assert [e.state for e in ended] == ["timed out", "ok"]
    assert (tmp_path / "slow.log").read_text().split() == ["partial", "saved"]
    assert device.exit_status(ended) == device.TIMED_OUT


def test_stubborn_grandchildren_are_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "GRACE", 0.3)
    child = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); time.sleep(60)"
    parent = (
        "import signal, subprocess, sys, time; signal.signal(signal.SIGINT, signal.SIG_IGN);"
        f"print(subprocess.Popen([sys.executable, '-c', {child!r}]).pid, flush=True); time.sleep(60)"
    )
    started = time.monotonic()
    (ended,) = device.run_all([stage("stubborn", parent, limit=2.0)], tmp_path, 60)
    assert ended.state == "timed out"
    assert time.monotonic() - started < 30
    assert gone(int((tmp_path / "stubborn.log").read_text()))


def test_what_a_finished_stage_left_running_is_killed(tmp_path: Path) -> None:
    leaves = "import subprocess; print(subprocess.Popen(['sleep', '60']).pid)"
    (ended,) = device.run_all([stage("leaves", leaves)], tmp_path, 60)
    assert ended.state == "ok"
    assert gone(int((tmp_path / "leaves.log").read_text()))


def test_budget_bounds_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "GRACE", 0.3)
    plan = [
        stage("long", "import time; time.sleep(60)", limit=60),
        stage("never", "print()"),
        stage("last", "print()"),
    ]
    ended = device.run_all(plan, tmp_path, 2.0)
    assert [e.state for e in ended][:2] == ["timed out", "no time left"]
    assert device.exit_status(ended) == device.TIMED_OUT
    assert len(json.loads((tmp_path / "summary.json").read_text())["stages"]) == 3


def test_lost_context_goes_on_in_a_new_process(tmp_path: Path) -> None:
    counts = f"""
import sys, pathlib
path = pathlib.Path({str(tmp_path / "count")!r})
n = int(path.read_text()) if path.exists() else 0
path.write_text(str(n + 1))
print("run", n, "may take", "{{limit}}")
sys.exit(70 if n < 2 else 0)
"""
    (ended,) = device.run_all([stage("benches", counts, again=70)], tmp_path, 60)
    assert (ended.state, (tmp_path / "count").read_text()) == ("ok", "3")
    assert "{limit}" not in ended.said


def test_long_logs_keep_head_and_tail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "LOG_LIMIT", 1000)
    (ended,) = device.run_all([stage("loud", "print('head'); print('x' * 5000); print('tail')")], tmp_path, 60)
    kept = (tmp_path / "loud.log").read_text()
    assert len(kept) < 1100 and kept.startswith("head") and kept.endswith("tail\n") and "cut" in kept
    assert ended.said == "tail"


def test_plan_keeps_to_eight_files_and_the_budget(tmp_path: Path) -> None:
    plan = device.stages(tmp_path, 540)
    assert [s.group for s in plan] == [
        "environment",
        "environment",
        "tests",
        *["sanitize"] * 4,
        "bench",
        "table",
    ]
    files = {s.log for s in plan} | {"summary.json", "tests.xml", "<device>.json"}
    assert len(files) <= 8
    assert sum(s.limit for s in plan if s.group in {"tests", "sanitize"}) < 0.75 * 540


def test_dry_run_starts_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert device.main(["--dry-run", "--only", "tests,bench", "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert [line.split()[0] for line in said.splitlines()] == ["tests", "benches"]
    assert not (tmp_path / "out").exists()


def test_unknown_stage_is_a_usage_error() -> None:
    with pytest.raises(SystemExit) as stopped:
        device.main(["--only", "lunch"])
    assert stopped.value.code == 2


def test_no_gpu_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(device, "gpu_is_there", lambda: False)
    assert device.main(["--out", str(tmp_path)]) == device.NO_GPU
    assert "needs a CUDA GPU" in capsys.readouterr().err


class NoLaunch:
    """Stands in for the CPU runner and runs nothing."""

    def cuda_kernel(self, source: str, name: str) -> Callable[..., None]:
        return lambda *args: None

    numba_kernel = staticmethod(lambda function: lambda *args: None)


def test_sanitizer_cases_reach_every_kernel(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch")
    token = _array.host_backend.set(NoLaunch())
    try:
        status = sanitize.launch_all(["numpy", "torch"])
    finally:
        _array.host_backend.reset(token)
    assert status == 0, capsys.readouterr().out


def test_missing_sanitizer_is_a_failure(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sanitize.shutil, "which", lambda name: None)
    assert sanitize.main([]) == sanitize.NO_TOOL
    assert "compute-sanitizer" in capsys.readouterr().out


@pytest.mark.skipif(os.name == "nt", reason="a shell script stands in for the sanitizer")
@pytest.mark.parametrize(("planted", "kernels", "status"), [(86, 0, 0), (0, 0, 1), (86, 86, 1), (86, 1, 1)])
def test_sanitizer_must_find_the_planted_bug_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, planted: int, kernels: int, status: int
) -> None:
    fake = tmp_path / "compute-sanitizer"
    fake.write_text(f'#!/bin/sh\ncase "$*" in *--planted*) exit {planted};; *) exit {kernels};; esac\n')
    fake.chmod(0o755)
    monkeypatch.setattr(sanitize.shutil, "which", lambda name: str(fake))
    assert sanitize.main(["--tools", "memcheck", "racecheck"]) == status
