"""Cases in a row: in this process, or in another that is watched for hangs, memory and sudden death."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cv3gpu.errors import ConvergenceWarning

__all__ = ["FAMILIES", "Family", "Finding", "Tally", "Wrong", "again", "run", "supervise"]

ROOT = Path(__file__).resolve().parent.parent.parent
MEMORY = 3 << 30  # bytes that a process of cases may hold
LIMIT = 60.0  # seconds for one case, kernels compiled in it included
START = 300.0  # seconds for a process to begin
_NOT_BEGUN = -1  # the number of the case while a process begins
_SEEN = struct.Struct("<qq")  # what a worker notes before each case: its number, and how many inputs were tried


class Wrong(AssertionError):
    """What came is neither the right result nor the promised refusal."""


class Family(NamedTuple):
    """Cases of one kind: ``try_one(rng, folder)`` makes one, tries it and returns how many inputs that were."""

    name: str
    try_one: Callable[[np.random.Generator, Path], int | None]


class Finding(NamedTuple):
    """A case that went wrong."""

    family: str
    seed: int
    case: int
    what: str

    def __str__(self) -> str:
        code = f"from tests.fuzz import again; again({self.family!r}, {self.seed}, {self.case})"
        return f'{self.family}: {self.what.strip()}\n  again: python -c "{code}"'


class Tally(NamedTuple):
    """What became of a family."""

    family: str
    inputs: int
    seconds: float
    findings: list[Finding]


FAMILIES: dict[str, Family] = {}


def rng_of(family: str, seed: int, case: int) -> np.random.Generator:
    """The random numbers of a case."""
    return np.random.default_rng([seed, zlib.crc32(family.encode()), case])


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without warnings: floating point overflows and stopped iterations are expected here."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield


def _emptied(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def again(family: str, seed: int, case: int, keep: str | os.PathLike[str] | None = None) -> None:
    """Tries one case again and lets its error through; its files stay in ``keep`` if that is given."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(_quiet())
        folder = Path(keep) if keep is not None else Path(stack.enter_context(tempfile.TemporaryDirectory()))
        FAMILIES[family].try_one(rng_of(family, seed, case), _emptied(folder / "case"))


def _within(seconds: float, call: Callable[[], int | None]) -> int:
    """Runs a case; Wrong if it takes longer. Only compiled code is not interrupted: the supervisor sees to that."""

    def late(*_: object) -> None:
        raise Wrong(f"not done after {seconds:g} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        return call() or 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def run(
    name: str, seed: int, *, seconds: float = 1e9, cases: int = 10**12, first: int = 0, limit: float = LIMIT,
    note: Callable[[int, int], None] = lambda case, inputs: None, most: int = 20,
) -> Tally:  # fmt: skip
    """Tries cases in this process, until the time or the number is reached, or ``most`` were wrong."""
    family, found, inputs = FAMILIES[name], [], 0
    begun = time.monotonic()
    with _quiet(), tempfile.TemporaryDirectory() as folder:
        for case in range(first, first + cases):
            if case == first + 1:  # the first one imports and compiles
                begun = time.monotonic()
            if time.monotonic() - begun > seconds or len(found) >= most:
                break
            note(case, inputs)
            rng, place = rng_of(name, seed, case), _emptied(Path(folder) / "case")
            try:
                inputs += _within(limit, lambda: family.try_one(rng, place))  # noqa: B023 (called at once)
            except BaseException as error:  # a panic of a Rust library is no Exception
                if isinstance(error, KeyboardInterrupt | SystemExit):
                    raise
                inputs += 1
                last = "".join(traceback.format_exception(error)[-4:])
                found.append(Finding(name, seed, case, last))
        note(first + cases, inputs)
    return Tally(name, inputs, time.monotonic() - begun, found)


# ---- a process of its own -------------------------------------------------------------------------------


def worker(name: str, seed: int, seconds: float, first: int, notes: str, limit: float) -> None:
    """What the watched process does: it notes each case before it tries it, and prints what is wrong."""
    file = os.open(notes, os.O_WRONLY)
    tally = run(
        name, seed, seconds=seconds, first=first, limit=limit,
        note=lambda case, inputs: os.pwrite(file, _SEEN.pack(case, inputs), 0),
    )  # fmt: skip
    print(json.dumps({"inputs": tally.inputs, "findings": tally.findings}))


def _memory(process: int) -> int:
    """Bytes that a process holds."""
    try:
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


def _watch(process: subprocess.Popen[str], notes: Path, limit: float) -> str | None:
    """Waits for the end of a process; what it had to be ended for, if anything."""
    case, since = _NOT_BEGUN, time.monotonic()
    while process.poll() is None:
        time.sleep(0.1)
        now, _ = _SEEN.unpack(notes.read_bytes())
        if now != case:
            case, since = now, time.monotonic()
        allowed = START if case == _NOT_BEGUN else 2 * limit
        if time.monotonic() - since > allowed:
            process.kill()
            return f"hangs: not done after {allowed:g} s"
        if (held := _memory(process.pid)) > MEMORY:
            process.kill()
            return f"memory: {held >> 20} MiB held, at most {MEMORY >> 20} MiB allowed"
    return None


def supervise(name: str, seed: int, seconds: float, *, limit: float = LIMIT, most: int = 20) -> Tally:
    """Tries cases in a process of their own; one that ends it is a finding, and the next process goes on behind it."""
    begun, first, inputs = time.monotonic(), 0, 0
    found: list[Finding] = []
    with tempfile.TemporaryDirectory() as folder:
        notes = Path(folder) / "notes"
        while (left := seconds - (time.monotonic() - begun)) > 0 and len(found) < most:
            notes.write_bytes(_SEEN.pack(_NOT_BEGUN, 0))
            command = [sys.executable, "-m", "tests.fuzz", "--worker", name, str(seed), str(left), str(first)]
            with (Path(folder) / "said").open("w+") as said, (Path(folder) / "errors").open("w+") as errors:
                process = subprocess.Popen(
                    [*command, str(notes), str(limit)], cwd=ROOT, text=True, stdout=said, stderr=errors
                )
                ended = _watch(process, notes, limit)
                said.seek(0)
                errors.seek(0)
                output, complaint = said.read(), errors.read()
            case, tried = _SEEN.unpack(notes.read_bytes())
            if process.returncode == 0:
                told: dict[str, Any] = json.loads(output.splitlines()[-1])
                inputs += told["inputs"]
                found += [Finding(*finding) for finding in told["findings"]]
                break
            what = ended or f"the process ended with {process.returncode}\n{complaint[-2000:]}"
            found.append(Finding(name, seed, case, what))
            if case == _NOT_BEGUN:
                break
            inputs, first = inputs + tried + 1, case + 1
    return Tally(name, inputs, time.monotonic() - begun, found)
