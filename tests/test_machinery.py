"""What lies under every operator: kernels' texts, caches, threads, forked processes, memory."""

from __future__ import annotations

import ast
import ctypes
import gc
import inspect
import json
import os
import pickle
import re
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import cv3gpu
from cv3gpu import _array, _kernel, kernels
from cv3gpu.errors import BackendUnavailableError, KernelCompileError, OutOfMemoryError
from tests.calls import bits, calls
from tests.test_kernel import FakeCupyArray

ROOT = Path(__file__).resolve().parent.parent
NAMES = sorted(calls("numpy"))
posix = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a POSIX system")
linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, or uses object files")


def program(code: str, cache: Path | None = None, *, limit: float = 120.0) -> subprocess.Popen[str]:
    """A process of its own that runs the code in this checkout."""
    settings = {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1"}
    if cache is not None:
        settings["CV3GPU_CACHE_DIR"] = str(cache)
    guard = f"import signal; signal.alarm({int(limit)})\n"
    command = [sys.executable, "-c", guard + textwrap.dedent(code)]
    return subprocess.Popen(command, env=os.environ | settings, text=True, stdout=-1, stderr=-1)


def said(process: subprocess.Popen[str]) -> Any:
    """What it printed, as JSON."""
    out, error = process.communicate()
    assert process.returncode == 0, error
    return json.loads(out)


# ---- no string of a caller's in a kernel's text --------------------------------------------------------------

MARK = "cv3_hostile_text"
HOSTILE = (f'float32; #include "/{MARK}"', f'nearest"\n#error {MARK}', f"../{MARK}.cu", f"{MARK}\0")


class EqualToAll(str):
    """Passes for whatever it is compared with."""

    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        return True


class Recorder:
    """Stands in for the CPU runner: keeps the texts that would be compiled, and runs nothing."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def cuda_kernel(self, source: str, name: str) -> Callable[..., None]:
        self.texts += [source, name]
        return lambda *args: None

    def numba_kernel(self, function: Callable[..., Any]) -> Callable[..., None]:
        return lambda *args: None


def strings(call: Any) -> list[str]:
    """The parameters of a call that are, or may be, a string."""
    given = inspect.signature(call.func).parameters.values()
    texts = [p.name for p in given if isinstance(call.keywords.get(p.name, p.default), str)]
    return texts + [p.name for p in given if p.name in ("activation", "region") and p.name not in texts]


@pytest.mark.parametrize("name", [name for name in NAMES if strings(calls("numpy")[name])])
def test_hostile_strings_are_refused_before_any_text(name: str) -> None:
    call = calls("numpy")[name]
    recorder = Recorder()
    token = _array.host_backend.set(recorder)
    try:
        for parameter in strings(call):
            for text in HOSTILE:
                with pytest.raises((ValueError, TypeError), match=f"{name.rpartition('.')[2]}: "):
                    call.func(*call.args, **call.keywords | {parameter: text})
            try:
                call.func(*call.args, **call.keywords | {parameter: EqualToAll(MARK)})
            except Exception as error:  # whatever it does, the text stays outside
                assert not isinstance(error, KernelCompileError)
    finally:
        _array.host_backend.reset(token)
    assert not any(MARK in text for text in recorder.texts)


def test_every_text_that_can_be_compiled_is_known_beforehand() -> None:
    for file in (f for f in kernels.files() if f.endswith(".cu")):
        for variant in kernels.variants(file):
            for constant, value in variant.items():
                assert constant.isidentifier(), (file, constant)
                assert value in _kernel.C_TYPES or value.lstrip("-").isdigit(), (file, value)


@pytest.mark.parametrize("value", [*HOSTILE, EqualToAll(MARK)])
def test_constants_take_no_text(value: str) -> None:
    with pytest.raises(ValueError, match="constants must be among those declared"):
        _kernel.specialise("resize.cu", real=value, TAPS=2)
    with pytest.raises(ValueError, match="constants must be among those declared"):
        _kernel.specialise("resize.cu", real="float32", TAPS=value)


def test_a_long_log_is_cut() -> None:
    pytest.importorskip("cuda.bindings.nvrtc")
    text = "\n".join(f"int x{k} = {'y' * 300}{k};" for k in range(90))
    with pytest.raises(KernelCompileError, match=r"kernel long\.cu does not compile for sm_90") as raised:
        _kernel.compile_source(text, "long.cu", 90)
    assert 4000 < len(str(raised.value)) < 8200


def test_nothing_is_unpickled_from_a_file() -> None:
    """`torch.load` of weights alone; NumPy's files without objects; pickles of this process's own."""
    risky = re.compile(r"\b(load|loads|Unpickler|eval|exec)\(")
    for path in sorted((ROOT / "cv3gpu").rglob("*.py")):
        text = path.read_text()
        nodes = ast.walk(ast.parse(text)) if risky.search(text) else ()
        for node in (n for n in nodes if isinstance(n, ast.Call)):
            called, options = ast.unparse(node.func), {k.arg: ast.unparse(k.value) for k in node.keywords}
            if called == "torch.load":
                assert options.get("weights_only") == "True", (path.name, node.lineno)
            if called in ("np.load", "numpy.load"):
                assert options.get("allow_pickle", "False") == "False", (path.name, node.lineno)
            if called == "pickle.loads":
                assert ast.unparse(node.args[0]).startswith("pickle.dumps("), (path.name, node.lineno)
            assert called not in ("pickle.load", "pickle.Unpickler", "joblib.load", "eval", "exec"), (path.name, called)


# ---- the cache of compiled kernels ---------------------------------------------------------------------------

KEY = "0123456789abcdef" * 4


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh cache folder."""
    monkeypatch.setenv("CV3GPU_CACHE_DIR", str(tmp_path / "cache"))
    folder = _kernel.cache_folder()
    assert folder is not None
    return folder


def test_what_is_kept_comes_back_under_its_key(cache: Path) -> None:
    path = cache / f"scale-sm90-{KEY[:32]}.bin"
    assert _kernel.kept(path, KEY) is None
    _kernel.keep(path, KEY, b"content")
    assert _kernel.kept(path, KEY) == b"content"
    assert _kernel.kept(path, KEY[::-1]) is None
    assert path.stat().st_mode & 0o777 == 0o600
    assert [p.name for p in cache.iterdir()] == [path.name]
    path.write_bytes(path.read_bytes()[:-1])
    assert _kernel.kept(path, KEY) is None


@posix
@pytest.mark.parametrize("change", ["link", "group", "others", "owner", "folder"])
def test_a_file_that_others_may_have_written_is_not_read(
    change: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, elsewhere = cache / f"scale-sm90-{KEY[:32]}.bin", cache / "elsewhere"
    _kernel.keep(path, KEY, b"content")
    if change in ("link", "folder"):
        path.replace(elsewhere)
    match change:
        case "link":
            path.symlink_to(elsewhere)
        case "folder":
            path.mkdir()
        case "group":
            path.chmod(0o620)
        case "others":
            path.chmod(0o602)
        case "owner":
            mine = os.getuid()
            monkeypatch.setattr(os, "getuid", lambda: mine + 1)
    assert _kernel.kept(path, KEY) is None
    if change in ("link", "folder"):
        before = elsewhere.read_bytes()
        _kernel.keep(path, KEY, b"other content")
        assert elsewhere.read_bytes() == before


def test_without_a_private_folder_kernels_stay_in_memory(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    monkeypatch.setattr(_kernel, "nvrtc_version", lambda: (13, 0))
    monkeypatch.setattr(_kernel, "compile_source", lambda *a: made.append(1) or _kernel.Compiled(b"cubin", ""))
    for _ in range(2):
        assert _kernel._binary("text", "scale.cu", 90) == b"cubin"
    assert len(made) == len(list(cache.iterdir())) == 1
    cache.chmod(0o777)
    for _ in range(2):
        assert _kernel._binary("text", "scale.cu", 90) == b"cubin"
    assert len(made) == 3
    assert len(list(cache.iterdir())) == 1


def aged(path: Path, days: float, size: int = 100) -> Path:
    """A file of a size that was last used some days ago."""
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_bytes(b"x" * size)
    os.utime(path, (time.time() - 86400 * days,) * 2)
    return path


def test_the_cache_is_bounded(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was used longest ago goes first; what is in use and what is not ours stays."""
    monkeypatch.setattr(_kernel, "CACHE_BYTES", 1000)
    old = [aged(cache / f"conv-sm90-{k:032x}.bin", 30 - k) for k in range(6)]
    recent = [aged(cache / f"_gather-cpu-{k:032x}.obj", 0.1) for k in range(3)]
    unfinished = aged(cache / f".conv-sm90-{7:032x}-0123456789ab.bin", 40)
    numba = aged(cache / "numba" / f"{8:032x}" / "loops.entry.nbc", 35)
    others = [aged(cache / name, 400, 5000) for name in ("photo.jpg", "notes.bin", "thesis-cpu.obj")]
    outside = aged(cache.parent / f"conv-sm90-{9:032x}.bin", 400)
    (cache / f"link-sm90-{9:032x}.bin").symlink_to(outside)
    _kernel.keep(cache / f"new-sm90-{KEY[:32]}.bin", KEY, b"y" * 68)
    assert not unfinished.exists()
    assert not numba.exists()
    assert [path.exists() for path in old] == [False] * 3 + [True] * 3  # 1,200 bytes came down to 750 at most
    assert all(path.exists() for path in [*recent, *others, outside])
    monkeypatch.setattr(_kernel, "CACHE_BYTES", 10)
    _kernel.keep(cache / f"newer-sm90-{KEY[:32]}.bin", KEY, b"y")
    assert [path.exists() for path in old] == [False] * 6
    assert all(path.exists() for path in [*recent, *others, outside])


def test_a_use_is_remembered(cache: Path) -> None:
    path = cache / f"scale-sm90-{KEY[:32]}.bin"
    _kernel.keep(path, KEY, b"content")
    os.utime(path, (time.time() - 86400 * 30,) * 2)
    assert _kernel.kept(path, KEY) == b"content"
    assert time.time() - path.stat().st_mtime < 60


def test_processes_that_clean_up_together_do_not_hinder_each_other(cache: Path) -> None:
    for k in range(300):
        aged(cache / f"conv-sm90-{k:032x}.bin", 30)
    code = f"""
        import json
        from pathlib import Path
        from cv3gpu import _kernel
        _kernel.CACHE_BYTES = 1000
        for k in range(40):
            path = Path({str(cache)!r}) / f"new-sm90-{{k:032x}}.bin"
            _kernel.keep(path, "key", b"content")
            assert _kernel.kept(path, "key") == b"content"
        print(json.dumps(True))
    """
    assert all(said(p) for p in [program(code, cache) for _ in range(2)])
    assert sorted(p.name for p in cache.iterdir()) == [f"new-sm90-{k:032x}.bin" for k in range(40)]


# ---- threads and processes -----------------------------------------------------------------------------------

FAMILIES = (
    "box_iou",
    "confusion_matrix",
    "conv2d",
    "dense_crf",
    "graph_cut",
    "interpolate",
    "kmeans",
    "linear_sum_assignment",
    "max_pool2d",
    "mean_shift",
    "message.edge_step",
    "mot.evaluate_boxes",
    "pixel_affinity",
    "slic",
    "smallest_eigenpairs",
    "upsample_argmax",
)


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_eight_threads_of_a_hundred_calls(library: str) -> None:
    if library == "torch":
        pytest.importorskip("torch")
    work = [calls(library)[name] for name in FAMILIES]
    want = [bits(call()) for call in work]
    start, wrong = threading.Barrier(8), []

    def run(thread: int) -> None:
        start.wait()
        for turn in range(100):
            at = (thread * 2 + turn) % len(work)
            try:
                if bits(work[at]()) != want[at]:
                    wrong.append((FAMILIES[at], "another result"))
            except Exception as error:
                wrong.append((FAMILIES[at], repr(error)))

    threads = [threading.Thread(target=run, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


FIRST_CALLS = """
    import collections, json, threading, time
    import numpy as np
    import cv3gpu
    from cv3gpu import _njit
    made = []
    compile_ = _njit._compile
    _njit._compile = lambda functions, parameters: made.append(_njit._key(functions, parameters)) or compile_(functions, parameters)
    rng = np.random.default_rng(0)
    boxes = rng.random((9, 4), np.float32)
    want, start, found = [], threading.Barrier(8), []
    def run():
        start.wait()
        for _ in range(3):
            found.append([cv3gpu.box_iou(x, x).tobytes() for x in (boxes, boxes.astype(np.float64))])
    threads = [threading.Thread(target=run) for _ in range(8)]
    [t.start() for t in threads], [t.join() for t in threads]
    print(json.dumps([len(found), all(f == found[0] for f in found), max(collections.Counter(made).values(), default=0),
                      len(made), found[0][0].hex()]))
"""


@linux
def test_first_calls_of_threads_and_processes_in_a_fresh_cache(cache: Path) -> None:
    """Two processes of eight threads each: a thread compiles for all of its process, and files are never torn."""
    both = [said(p) for p in [program(FIRST_CALLS, cache) for _ in range(2)]]
    for count, alike, most, made, _ in both:
        assert (count, alike, most) == (24, True, 1)
        assert made > 0
    assert both[0][4] == both[1][4]
    names = sorted(p.name for p in cache.iterdir())
    assert all(name.endswith(".obj") and not name.startswith(".") for name in names)
    third = said(program(FIRST_CALLS, cache))
    assert third[:4] == [24, True, 0, 0]  # every file is whole
    assert third[4] == both[0][4]
    assert sorted(p.name for p in cache.iterdir()) == names


def test_first_launches_compile_and_load_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, with a driver that only counts: also where two threads get two objects of one kernel."""
    compiled, loaded, shared = [], [], []

    class Module:
        def load(self, binary: bytes) -> None:
            loaded.append(binary)

        def get_function(self, name: str) -> Any:
            return SimpleNamespace(ptr=name)

    def binary(*args: Any) -> bytes:
        compiled.append(args[1:])
        time.sleep(0.02)
        return b"cubin"

    driver = SimpleNamespace(
        CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES=8, funcSetAttribute=lambda *a: shared.append(a[2])
    )
    runtime = SimpleNamespace(getDevice=lambda: 0)
    cupy = SimpleNamespace(
        cuda=SimpleNamespace(runtime=runtime, driver=driver, function=SimpleNamespace(Module=Module))
    )
    monkeypatch.setattr(_kernel, "_cupy", lambda: cupy)
    monkeypatch.setattr(_kernel, "_binary", binary)
    monkeypatch.setattr(_kernel, "_loaded", {})
    monkeypatch.setattr(_array, "compute_capability", lambda x: 90)
    start, functions = threading.Barrier(8), []

    def run(bytes_: int) -> None:
        start.wait()
        launcher = _kernel.Kernel("resize.cu", "resize", real="float32", TAPS=2)
        functions.append(launcher._function(None, bytes_))

    threads = [threading.Thread(target=run, args=(k * 1000,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(compiled) == len(loaded) == 1
    assert len({id(f) for f in functions}) == 1
    assert shared == sorted(shared)  # never less than what another was promised
    assert shared[-1] == 7000


@posix
def test_forked_workers_of_a_data_loader(tmp_path: Path) -> None:
    """The pool of threads was in use in the parent, and every worker has one of its own."""
    pytest.importorskip("torch")
    code = """
        import json
        import numpy as np, torch
        from torch.utils.data import DataLoader
        import cv3gpu
        from cv3gpu import _threads
        from tests.calls import bits, calls
        _threads.cores = lambda: 2
        names = ["conv2d", "dense_crf", "box_iou", "interpolate", "slic", "kmeans", "graph_cut", "max_pool2d"]
        class Results(torch.utils.data.Dataset):
            def __len__(self):
                return 2 * len(names)
            def __getitem__(self, i):
                return i, bits(calls("numpy" if i % 2 else "torch")[names[i // 2]]())
        here = dict(Results()[i] for i in range(len(Results())))
        assert _threads._pool is not None
        loader = DataLoader(Results(), num_workers=2, multiprocessing_context="fork", batch_size=None, timeout=60)
        print(json.dumps({str(i): got == here[i] for i, got in loader}))
    """
    found = said(program(code))
    assert len(found) == 16
    assert all(found.values()), found


# ---- CUDA in a forked process --------------------------------------------------------------------------------

SPAWN = r"CUDA can't be used in a process that was forked .* 'spawn'.*multiprocessing_context='spawn'"


@pytest.fixture
def cuda_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_array, "_cuda_process", 0)


def test_the_first_process_keeps_cuda(cuda_process: None) -> None:
    _array.claim_cuda("conv2d")
    _array.claim_cuda("conv2d")
    assert _array._cuda_process == os.getpid()


@posix
def test_a_forked_child_is_told_to_spawn(cuda_process: None) -> None:
    """Both ways to a launch: through an operator, before its device is asked for anything, and directly."""
    code = """
        import json, os
        import numpy as np
        import cv3gpu
        from cv3gpu import _array, _kernel
        from tests.test_kernel import FakeCupyArray
        _array.claim_cuda("box_iou")
        def refusal(call):
            try:
                call()
            except cv3gpu.BackendUnavailableError as error:
                return str(error)
        direct = _kernel.Kernel("resize.cu", "resize", real="float32", TAPS=2)
        numbers = [1] * 6 + [1.0] * 4 + [1, 1]
        receive, send = os.pipe()
        child = os.fork()
        if child:
            os.close(send)
        else:
            x = FakeCupyArray()
            told = [refusal(lambda: cv3gpu.interpolate(x, 3)), refusal(lambda: direct((1,), 32, x, x, *numbers))]
            cv3gpu.box_iou(np.ones((2, 4)), np.ones((2, 4)))  # the CPU path works on
            os.write(send, json.dumps(told).encode())
            os._exit(0)
        os.waitpid(child, 0)
        print(os.read(receive, 9999).decode())
    """
    operator, kernel = said(program(code))
    assert re.match(f"interpolate: {SPAWN}", operator)
    assert re.match(f"kernel resize: {SPAWN}", kernel)


def test_numba_kernels_refuse_as_well(cuda_process: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_array, "_cuda_process", os.getpid() + 1)

    def scale(x: Any) -> None: ...

    with pytest.raises(BackendUnavailableError, match=f"kernel scale: {SPAWN}"):
        _kernel.NumbaKernel(scale)((1,), 32, FakeCupyArray())


# ---- numbers of a launch -------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [2**31, -(2**31) - 1, np.int64(2**31), np.uint64(2**63)])
def test_numbers_of_a_launch_do_not_wrap_round(value: Any) -> None:
    token = _array.host_backend.set(Recorder())
    try:
        launch = _kernel.Kernel(
            "eigen_components.cu", _kernel.kernel_names("eigen_components.cu")[0], stored="float32", FEATURES=0
        )
        given = [np.ones(4, np.float32) if p.scalar is None else 1 for p in launch.parameters]
        launch((1,), 32, *given)
        place = next(i for i, p in enumerate(launch.parameters) if p.scalar is np.int32)
        given[place] = value
        name = launch.parameters[place].name
        with pytest.raises(
            ValueError, match=rf"kernel {launch.name}: numbers must fit their types, got .*{name}={value}"
        ):
            launch((1,), 32, *given)
    finally:
        _array.host_backend.reset(token)


# ---- memory --------------------------------------------------------------------------------------------------


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def growth(call: Callable[[], Any], times: int) -> tuple[int, int]:
    """Bytes and Python's objects that some calls leave behind.

    Memory that was freed goes back to the system before and after: else a leak would first fill what others have left.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's

    def settle() -> None:
        gc.collect()
        if trim is not None:
            trim(0)

    settle()
    before = resident(), sys.getallocatedblocks()
    for _ in range(times):
        call()
    settle()
    return resident() - before[0], sys.getallocatedblocks() - before[1]


def left(call: Callable[[], Any]) -> tuple[int, int]:
    """What 200 calls leave behind, bytes and objects, in the round that leaves least; few of both end the rounds.

    A leak comes again in every round. What an allocator keeps for the next call comes once, and what the interpreter
    keeps on its free lists for threads that happen to meet comes ever more seldom: 200 objects at first, 5 in the end.
    """
    rounds = []
    for _ in range(8):
        rounds.append(growth(call, 200))
        nbytes, blocks = (min(column) for column in zip(*rounds, strict=True))
        if nbytes < MOST_BYTES and blocks < MOST_OBJECTS:
            break
    return nbytes, blocks


MOST_BYTES, MOST_OBJECTS = 1 << 20, 100


@linux
@pytest.mark.parametrize("name", NAMES)
def test_two_hundred_calls_leave_nothing(name: str) -> None:
    call = calls("numpy")[name]
    for _ in range(10):
        call()
    nbytes, blocks = left(call)
    if nbytes >= MOST_BYTES or blocks >= MOST_OBJECTS:
        pytest.fail(f"{name}: 200 calls leave {nbytes} bytes and {blocks} objects")


@linux
def test_a_leak_is_seen() -> None:
    held: list[Any] = []
    assert left(lambda: held.append(np.ones(4096)))[0] > 1 << 20
    assert left(lambda: held.append(object()))[1] >= 200


# ---- out of memory -------------------------------------------------------------------------------------------


class FakeTorchOutOfMemoryError(RuntimeError):
    """As torch.OutOfMemoryError, and torch's CPU allocator."""


TORCH = "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 79.10 GiB of which 512.00 MiB is free."
FAILURES = {
    "numpy": (lambda: np.empty((1 << 22, 1 << 22), np.float32), 1 << 46),
    "python": (lambda: bytearray(1 << 50), None),
    "cupy": (MemoryError("Out of memory allocating 1,234,567,424 bytes (allocated so far: 0 bytes)."), 1_234_567_424),
    "torch": (FakeTorchOutOfMemoryError(TORCH), 20 << 30),
    "torch cpu": (
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory: you tried to "
                     "allocate 70368744177664 bytes. Error code 12 (Cannot allocate memory)"),
        1 << 46,
    ),
    "runtime": (RuntimeError("cudaErrorMemoryAllocation: out of memory"), None),
    "driver": (RuntimeError("CUDA_ERROR_OUT_OF_MEMORY: out of memory"), None),
}  # fmt: skip


@pytest.mark.parametrize("which", list(FAILURES))
def test_missing_memory_has_one_name(which: str) -> None:
    failure, asked = FAILURES[which]

    @_array.array_op("x")
    def enlarge(x: Any) -> Any:
        if callable(failure):
            return failure()
        raise failure

    @_array.array_op("x")
    def outer(x: Any) -> Any:
        return enlarge(x)

    for call in (enlarge, outer):
        with pytest.raises(
            OutOfMemoryError, match=r"^enlarge: out of memory on cpu.*tiles \(cv3gpu\.scale\)$"
        ) as raised:
            call(np.ones(3))
        error = raised.value
        assert isinstance(error, MemoryError)
        assert isinstance(error.__cause__, MemoryError | RuntimeError)
        assert not isinstance(error.__cause__, OutOfMemoryError)
        assert error.asked == asked
        assert (" bytes asked" in str(error)) == (asked is not None)
        if sys.platform == "linux":
            assert error.free is not None
            assert f"{error.free:,} bytes free" in str(error)


def test_other_errors_stay_what_they_are() -> None:
    for wrong in (RuntimeError("no such mode"), ValueError("out of memory"), RecursionError("too deep")):

        @_array.array_op("x")
        def enlarge(x: Any, wrong: Exception = wrong) -> Any:
            raise wrong

        with pytest.raises(type(wrong)) as raised:
            enlarge(np.ones(3))
        assert raised.value is wrong


def test_the_handler_has_the_room_of_the_failed_call() -> None:
    held: list[Any] = []

    @_array.array_op("x")
    def enlarge(x: Any) -> Any:
        workspace = np.ones(1000)
        held.append(weakref.ref(workspace))
        return workspace + np.empty((1 << 22, 1 << 22))

    x = np.ones(3)
    try:
        enlarge(x)
    except OutOfMemoryError:
        assert held[0]() is None
    assert (x == 1).all()


def test_the_error_travels() -> None:
    error = pickle.loads(pickle.dumps(OutOfMemoryError("conv2d: out of memory", 12, 3)))
    assert (str(error), error.asked, error.free) == ("conv2d: out of memory", 12, 3)


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_a_result_that_no_memory_holds(library: str) -> None:
    if library == "torch":
        pytest.importorskip("torch")
    x = calls(library)["interpolate"].args[0]
    before, want = bits(x), bits(cv3gpu.interpolate(x, 17))
    with pytest.raises(OutOfMemoryError, match=r"^interpolate: out of memory on cpu: [\d,]+ bytes asked") as raised:
        cv3gpu.interpolate(x, 1 << 21)
    elements = x.shape[0] * x.shape[1] << 42
    assert raised.value.asked == pytest.approx(4 * elements, rel=0.01)
    assert bits(x) == before
    assert bits(cv3gpu.interpolate(x, 17)) == want


@linux
def test_a_process_at_its_limit_goes_on() -> None:
    """Work space that does not fit: the error names the operator, and the next, smaller call has the memory."""
    code = """
        import json, resource
        import numpy as np
        import cv3gpu
        rng = np.random.default_rng(0)
        x, weight = rng.random((1, 8, 640, 640), np.float32), rng.random((64, 8, 3, 3), np.float32)
        small = x[..., :40, :40]
        want = cv3gpu.conv2d(small, weight, padding=1)
        cv3gpu.gaussian_filter(x[0, :, :9, 0], x[0, :, :9, 1])
        used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + (60 << 20),) * 2)
        found = []
        for _ in range(3):
            try:
                cv3gpu.conv2d(x, weight, padding=1)
            except cv3gpu.OutOfMemoryError as error:
                found.append([str(error), error.asked, bool((cv3gpu.conv2d(small, weight, padding=1) == want).all())])
        print(json.dumps(found))
    """
    found = said(program(code))
    assert len(found) == 3
    for text, asked, right in found:
        assert text.startswith("conv2d: out of memory on cpu: ")
        assert asked is None or asked > 1 << 20
        assert right


@pytest.mark.parametrize("name", ["conv2d", "dense_crf", "max_pool2d", "slic", "kmeans", "pixel_affinity", "graph_cut"])
def test_each_family_survives_a_failing_allocator(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One allocation of the call fails, the first, the second …; inputs stay, and the next call is right."""
    call = calls("numpy")[name]
    want, given, plain = bits(call()), bits(list(call.args)), np.empty
    for fails_at in range(6):
        left = [fails_at]

        def empty(*args: Any, left: list[int] = left, **options: Any) -> Any:
            left[0] -= 1
            if left[0] < 0:
                return plain((1 << 22, 1 << 22))
            return plain(*args, **options)

        with monkeypatch.context() as patched:
            patched.setattr(np, "empty", empty)
            try:
                call()
            except OutOfMemoryError as error:
                assert error.asked == 1 << 47
            else:
                assert left[0] >= 0  # it allocates less often
        assert bits(list(call.args)) == given
        assert bits(call()) == want
