"""Compiled CPU loops: what runs from an object file, what falls back to numba's dispatcher, and what the file depends on."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cv3gpu import _kernel, _njit

ROOT = Path(__file__).resolve().parent.parent
SCALE = 3.0
OFFSETS = (1, 20)
SHIFT: Any = np.float32(0.5)
TABLE = np.array([2.0, 7.0])
linux = pytest.mark.skipif(sys.platform != "linux", reason="object files are used on Linux alone")


# ---- functions to compile -------------------------------------------------------------------------------


def _spread(row: np.ndarray) -> tuple[Any, Any]:
    low, high = row[0], row[0]
    for x in row:
        low, high = min(low, x), max(high, x)
    return low, high


def _weighted(a: np.ndarray, weight: np.ndarray, twice: bool, out: np.ndarray) -> float:
    total = 0.0
    for i in range(a.shape[0]):
        low, high = _spread(a[i])
        out[i] = (high - low) * weight[i] + OFFSETS[1]
        for j in range(a.shape[1]):
            total += a[i, j] * SCALE * (2 if twice else 1)
    return total


def _ends(a: np.ndarray, up: bool, n: int, x: float) -> float:
    return (a[0] if up else a[-1]) + n * x


def _any_positive(a: np.ndarray) -> bool:
    found = False
    for x in a:
        found |= x > 0
    return found


def _count(a: np.ndarray, least: int) -> int:
    n = 0
    for i in range(a.shape[0]):
        for j in range(a.shape[1]):
            for k in range(a.shape[2]):
                n += 1 if a[i, j, k] >= least else 0
    return n


def _logarithm(a: np.ndarray, out: np.ndarray) -> None:
    for i in range(a.size):
        out[i] = np.log(a[i]) + TABLE[1] + SHIFT


def _only(a: np.ndarray) -> None:
    a[()] += 1


def _cleared(a: np.ndarray) -> None:
    a[...] = 0


def _squares(n: int) -> int:
    values = np.empty(n, np.int64)
    for i in range(n):
        values[i] = i * i
    return values.sum()


def _refuses(n: int) -> int:
    if n < 0:
        raise ValueError("n must not be negative")
    return n


def _twin(a: np.ndarray) -> np.ndarray:
    return a


def _plus(a: Any, b: Any) -> Any:
    return a + b


def _rise(a: np.ndarray, times: int) -> None:
    for _ in range(times):
        for i in range(a.size):
            a[i] += 1


# ---- the same as Python ---------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder."""
    monkeypatch.setenv("CV3GPU_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(params=["object file", "dispatcher"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(_njit, "_use_objects", request.param == "object file")
    return request.param


def fresh(*functions: Callable[..., Any]) -> Any:
    """As in a process that has not called it yet."""
    return _njit.Entry(functions)


def arrays(dtype: str) -> list[np.ndarray]:
    a = (np.random.default_rng(5).random((6, 8)) * 100).astype(dtype)
    return [a, a.T, a[::2, ::-3], np.asfortranarray(a), a[:1], np.broadcast_to(a[:, :1], a.shape)]


@pytest.mark.parametrize("dtype", ["float64", "float32", "int32", "uint8", "int64"])
def test_answers_are_those_of_python(dtype: str, folder: Path, way: str) -> None:
    entry = fresh(_spread, _weighted)
    for a in arrays(dtype):
        weight = np.linspace(0, 1, 2 * len(a))[::2]
        for twice in (False, True):
            ours, wanted = np.full(len(a), np.nan), np.full(len(a), np.nan)
            assert entry(a, weight, twice, ours) == pytest.approx(_weighted(a, weight, twice, wanted), rel=1e-6)
            np.testing.assert_allclose(ours, wanted, rtol=1e-6)
    assert bool(entry.refused) == (way == "dispatcher")


@_njit.inlined
def _doubled(x: np.ndarray, i: int) -> Any:
    return 2 * x[i]


def _sum_of_doubled(x: np.ndarray) -> float:
    total = 0.0
    for i in range(x.shape[0]):
        total += _doubled(x, i)
    return total


def test_an_inlined_helper_gives_the_same_and_another_key(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    functions = _doubled, _sum_of_doubled
    assert fresh(*functions)(np.arange(5.0)) == 20.0
    keys = [_njit._key(functions, ())]
    monkeypatch.setattr(_njit, "_inlined", set())
    keys.append(_njit._key(functions, ()))
    assert len(set(keys)) == 2


@pytest.mark.parametrize("up", [True, np.bool_(False)])
@pytest.mark.parametrize("n", [3, -3, np.int64(-4), np.int32(-5), np.uint8(200)])
@pytest.mark.parametrize("x", [0.5, np.float32(0.25), np.float64(1e300), 7])
def test_numbers_of_every_kind(up: Any, n: Any, x: Any, folder: Path) -> None:
    entry = fresh(_ends)
    a = np.array([2.5, 1.0, 8.0], np.float32)
    result = entry(a, up, n, x)
    assert type(result) is float
    assert result == pytest.approx(float(a[0] if up else a[-1]) + float(n) * float(x))
    assert not entry.refused


def test_results_of_every_kind(folder: Path) -> None:
    entry = fresh(_any_positive)
    assert entry(np.array([-1.0, 2.0])) is True
    assert entry(np.array([-1.0, -2.0])) is False
    counted = fresh(_count)
    a = np.arange(24).reshape(2, 3, 4)
    assert (counted(a, 5), counted(a[:, ::-1, 1:3], 5), counted(a[:0], 5)) == (19, 10, 0)
    assert type(counted(a, 5)) is int
    added = fresh(_plus)
    assert added(2, 3) == 5
    assert added(2**62, 5) == 2**62 + 5
    assert added(0.0, 0.0) == 0.0
    assert added(np.float32(0.1), np.float32(0.2)) == np.float32(0.1) + np.float32(0.2)
    assert not (entry.refused or counted.refused or added.refused)


def test_arrays_of_no_dimension_and_of_no_element(folder: Path) -> None:
    zero = np.array(4.0)
    entry = fresh(_only)
    assert entry(zero) is None
    assert zero == 5
    fresh(_logarithm)(np.empty(0), np.empty(0))


def test_constants_and_the_mathematics_library(folder: Path) -> None:
    a, out = np.linspace(1, 9, 5), np.empty(5)
    fresh(_logarithm)(a, out)
    np.testing.assert_allclose(out, np.log(a) + 7.5, rtol=1e-14)


def test_read_only_arrays_are_read(folder: Path) -> None:
    a = np.arange(4.0)
    a.flags.writeable = False
    assert fresh(_any_positive)(a) is True


def test_whole_arrays_may_be_set(folder: Path) -> None:
    entry, a = fresh(_cleared), np.ones((2, 3))
    entry(a)
    assert not a.any() and not entry.refused


def test_wrong_calls_are_refused(folder: Path) -> None:
    entry = fresh(_ends)
    a = np.ones(3)
    for args in ((), (a, True, 1), (a, True, 1, 1.0, 1)):
        with pytest.raises(TypeError, match=f"_ends: takes 4 arguments, got {len(args)}"):
            entry(*args)
    unaligned = np.frombuffer(b"\0" * 25, np.uint8)[1:].view(np.float64)
    for array in (unaligned, a.astype(a.dtype.newbyteorder())):
        with pytest.raises(TypeError, match="_ends: a must be aligned and of native byte order"):
            entry(array, True, 1, 1.0)
    with pytest.raises(OverflowError, match=f"_ends: an integer must fit in 64 bits, got {2**63}"):
        entry(a, True, 2**63, 1.0)


# ---- what needs numba's dispatcher ----------------------------------------------------------------------


@linux
def test_what_allocates_runs_and_is_remembered(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = fresh(_squares)
    assert first(10) == 285
    assert "nopython" in first.refused[(int,)]
    monkeypatch.setattr(_njit, "_compile", lambda *_: pytest.fail("compiled to see it again"))
    second = fresh(_squares)
    assert second(10) == 285
    assert second.refused == first.refused


def test_what_can_not_cross_the_bridge_takes_the_dispatcher(folder: Path) -> None:
    a = np.ones(3)
    twin = fresh(_twin)
    np.testing.assert_array_equal(twin(a), a)
    assert twin.refused
    added = fresh(_plus)
    assert added(1j, 2j) == 3j
    assert added(1, 2) == 3
    assert list(added.refused) == [(complex, complex)]


@linux
def test_an_exception_has_no_text(folder: Path) -> None:
    entry = fresh(_refuses)
    assert entry(4) == 4
    with pytest.raises(RuntimeError, match="_refuses: the compiled function raised an exception"):
        entry(-1)


def test_a_failure_on_the_way_takes_the_dispatcher(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_njit, "_bridge", lambda *_: "this is not LLVM code")
    entry = fresh(_plus)
    assert entry(1, 2) == 3
    assert "RuntimeError" in entry.refused[int, int]
    assert not list(folder.glob("*.obj"))


@pytest.mark.parametrize("what", ["NRT_Allocate", "PyErr_Clear", "no_such_function_anywhere"])
def test_a_symbol_that_is_not_there_is_found_before_it_is_asked_for(
    what: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_njit, "_undefined", lambda elf: iter([what]))
    entry = fresh(_plus)
    assert entry(1, 2) == 3
    assert entry.refused == ({(int, int): f"it calls {what}"} if sys.platform == "linux" else entry.refused)


def test_another_calling_convention_is_noticed() -> None:
    parameters = (_njit._Parameter("float64", 1, True), _njit._Parameter("int64"))
    module = type("Module", (), {"triple": "", "data_layout": ""})
    known = ["ptr", "ptr", "ptr", "ptr", "i64", "i64", "double*", "i64", "i64", "i64"]
    assert _njit._ENTRY in _njit._bridge("f", known, parameters, "none", module)
    for other in (known[:-1], [*known, "i64"], [*known[:-1], "i32"], ["i64", *known[1:]]):
        with pytest.raises(_njit._Refused, match="numba's function takes"):
            _njit._bridge("f", other, parameters, "none", module)


# ---- files ----------------------------------------------------------------------------------------------

MODULE = """
    import numpy as np

    STEP = 2
    PAIR = (1, np.float32(0.5))

    def helper(x):
        return x * STEP + PAIR[0]

    def entry(a):
        total = 0.0
        for i in range(a.size):
            total += helper(a[i])
        return total
"""

CALL = """
    import sys
    import numpy as np
    import loops
    from cv3gpu import _njit
    entry = _njit.compiled(loops.helper, loops.entry)
    print(entry(np.arange(4.0)), sorted({"numba"} & set(sys.modules)), len(entry.refused))
"""


class Program:
    """A module with loops, and a process of its own for each call."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cache = folder / "cache"
        self.write(MODULE)

    def write(self, text: str) -> None:
        (self.folder / "loops.py").write_text(textwrap.dedent(text))

    def __call__(self, call: str = CALL, **environment: str) -> str:
        path = os.pathsep.join([str(ROOT), str(self.folder)])
        settings = {"PYTHONPATH": path, "CV3GPU_CACHE_DIR": str(self.cache), "PYTHONDONTWRITEBYTECODE": "1"}
        command = [sys.executable, "-c", textwrap.dedent(call)]
        done = subprocess.run(
            command, env=os.environ | settings | environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    @property
    def objects(self) -> list[Path]:
        return sorted(self.cache.glob("entry-cpu-*.obj"))


@pytest.fixture
def program(tmp_path: Path) -> Program:
    return Program(tmp_path)


@linux
def test_a_fresh_process_does_not_import_numba(program: Program) -> None:
    assert program() == "16.0 ['numba'] 0"
    assert program() == "16.0 [] 0"
    assert len(program.objects) == 1
    assert program.cache.stat().st_mode & 0o777 == 0o700


@linux
@pytest.mark.parametrize(
    ("before", "after", "wanted"),
    [
        ("STEP = 2", "STEP = 3", "22.0"),
        ("STEP = 2", "STEP = 2.0", "16.0"),
        ("PAIR = (1,", "PAIR = (5,", "32.0"),
        ("x * STEP", "x - STEP", "2.0"),
        ("range(a.size)", "range(1, a.size)", "15.0"),
    ],
)
def test_what_changes_is_compiled_anew(before: str, after: str, wanted: str, program: Program) -> None:
    assert program() == "16.0 ['numba'] 0"
    program.write(MODULE.replace(before, after))
    assert program() == f"{wanted} ['numba'] 0"
    assert program() == f"{wanted} [] 0"
    assert len(program.objects) == 2


@linux
def test_a_comment_is_not_compiled(program: Program) -> None:
    program()
    program.write(MODULE.replace("    def helper", "    # Twice, and one.\n\n\n    def helper"))
    assert program() == "16.0 [] 0"


@linux
def test_the_dispatcher_sees_changed_constants(program: Program) -> None:
    call = CALL.replace("entry = ", "_njit._use_objects = False; entry = ")
    assert program(call) == "16.0 ['numba'] 1"
    stamp = (program.folder / "loops.py").stat()
    program.write(MODULE.replace("STEP = 2", "STEP = 3"))
    os.utime(program.folder / "loops.py", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert program(call) == "22.0 ['numba'] 1"


@linux
def test_settings_of_numba_are_kept_apart(program: Program) -> None:
    program()
    assert program(NUMBA_BOUNDSCHECK="1") == "16.0 ['numba'] 0"
    assert len(program.objects) == 2


@linux
@pytest.mark.parametrize("damage", ["torn", "empty", "foreign", "flipped", "renamed", "folder"])
def test_a_damaged_file_is_made_anew(damage: str, program: Program) -> None:
    assert program() == "16.0 ['numba'] 0"
    (path,) = program.objects
    content = path.read_bytes()
    path.unlink()
    if damage == "folder":
        path.mkdir()
    elif damage == "renamed":  # a file of another function under this name
        program.write(MODULE.replace("STEP = 2", "STEP = 3"))
        program()
        program.objects[0].replace(path)
        program.write(MODULE)
    else:
        flipped = bytearray(content)
        flipped[len(content) // 2] ^= 1
        path.write_bytes({"torn": content[:-100], "empty": b"", "foreign": b"x" * 500, "flipped": flipped}[damage])
    assert program() == "16.0 ['numba'] 0"
    assert program() == f"16.0 {['numba'] if damage == 'folder' else []} 0"


@linux
def test_a_file_that_does_not_load_is_made_anew(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The digest is right, and LLVM refuses what it protects."""
    assert fresh(_plus)(1, 2) == 3
    (path,) = folder.iterdir()
    key = _njit._key((_plus,), (_njit._Parameter("int64"),) * 2)
    assert key[:32] in path.name
    _njit._write(path, key, _njit._Object(b"not an object file", "int64"))
    entry = fresh(_plus)
    assert entry(1, 2) == 3
    assert not entry.refused
    assert _njit._read(path, key).binary.startswith(b"\x7fELF")  # type: ignore[union-attr]


def test_without_a_folder_everything_stays_in_memory(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CV3GPU_CACHE_DIR", str(tmp_path / "file"))
    (tmp_path / "file").write_text("")
    assert _kernel.cache_folder() is None
    assert fresh(_plus)(1, 2) == 3
    assert fresh(_squares)(10) == 285
    assert not folder.exists()


@linux
def test_what_has_no_description_is_not_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "SCALE", object())
    assert _njit._key((_spread, _weighted), ()) == ""
    monkeypatch.setitem(globals(), "SCALE", float("nan"))
    assert _njit._key((_spread, _weighted), ()) == _njit._key((_spread, _weighted), ()) != ""


# ---- threads and processes ------------------------------------------------------------------------------


def test_threads_that_call_first_together(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    compile_ = _njit._compile
    monkeypatch.setattr(_njit, "_compile", lambda *args: made.append(args) or compile_(*args))
    entry = fresh(_spread, _weighted)
    start = threading.Barrier(8)
    results: list[float] = []

    def call() -> None:
        a, out = np.ones((4, 4)), np.empty(4)
        start.wait()
        results.append(entry(a, a[0], False, out))

    threads = [threading.Thread(target=call) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [48.0] * 8
    assert len(made) == (1 if sys.platform == "linux" else 0)


def test_the_call_releases_the_gil(folder: Path) -> None:
    entry = fresh(_rise)
    a = np.zeros(1000)
    entry(a, 1)
    thread = threading.Thread(target=entry, args=(a, 2_000_000))
    start = time.perf_counter()
    thread.start()
    ticks = 0
    while thread.is_alive():
        ticks += 1
        time.sleep(0.001)
    taken = time.perf_counter() - start
    assert ticks > 20 * taken  # a few a second, if the loop held the GIL


FORK = """
    import os, threading
    import numpy as np
    import loops
    from cv3gpu import _njit
    entry = _njit.compiled(loops.helper, loops.entry)
    held = threading.Event()
    def hold():
        with _njit._lock:
            held.set()
            threading.Event().wait(60)
    def ask(x):
        child = os.fork()
        if not child:
            os._exit(0 if entry(x) == 16 else 1)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    {first}
    threading.Thread(target=hold, daemon=True).start()
    held.wait()
    print(ask(np.arange(4.0)), ask(np.arange(4)))
"""


@linux
@pytest.mark.parametrize("first", ["", "entry(np.arange(4.0))"])
def test_a_forked_child_can_call(first: str, program: Program) -> None:
    assert program(FORK.format(first=first)) == "0 0"


def test_every_shipped_loop_runs_without_numba(folder: Path) -> None:
    call = """
        import sys
        import numpy as np
        import cv3gpu
        for dtype in (np.float32, np.float64):
            boxes = np.ones((3, 4), dtype)
            cv3gpu.box_iou(boxes, boxes)
            cv3gpu.box_iou_vjp(np.ones((3, 3), dtype), boxes, boxes)
            cv3gpu.linear_sum_assignment(np.ones((3, 4), dtype))
        print("numba" in sys.modules)
    """
    program = Program(folder.parent)
    program(call)
    assert program(call) == str(sys.platform != "linux")


@linux
def test_the_loops_of_the_crf_run_without_numba() -> None:
    call = """
        import sys
        import numpy as np
        import cv3gpu
        u, image = np.ones((2, 9, 9), np.float32), np.zeros((9, 9, 3), np.float32)
        for method in ("lattice", "lattice_fine", "exact"):
            cv3gpu.dense_crf(u, image, method=method, n_iter=1)
            cv3gpu.dense_crf_vjp(u, u, image, method=method, n_iter=1)
        print("numba" in sys.modules)
    """
    code = [sys.executable, "-c", textwrap.dedent(call)]
    subprocess.run(code, cwd=ROOT, check=True, timeout=300)  # compiles what this machine has not compiled yet
    assert subprocess.run(code, cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip() == "False"
