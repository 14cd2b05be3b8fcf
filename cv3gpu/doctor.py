"""What is installed, whether the parts fit each other, and what mends them.

``cv3gpu doctor`` prints :func:`examine`. Every check is on its own: one that fails, however it fails, is a
finding and not the end. All that a check learns of the machine comes through a :class:`Machine`, so that the
tests can show it machines that nobody has.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.metadata
import os
import platform
import re
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["Driver", "Finding", "Gpu", "Machine", "Report", "examine"]

CUPY_FLOOR = (14, 0)
NUMBA_CUDA_FLOOR = (0, 30)
DRIVER_OF_CUDA_13 = 580
NO_DEVICE = 100  # CUDA_ERROR_NO_DEVICE


class Finding(NamedTuple):
    """One thing that was looked at: ``"ok"``, a ``"note"`` or a ``"problem"``; ``mend`` is a shell line."""

    status: str
    topic: str
    what: str
    mend: str = ""

    def __str__(self) -> str:
        mend = f"\n{'':16}mend: {self.mend}" if self.mend else ""
        return f"{self.status:8}{self.topic:8}{self.what}{mend}"


class Gpu(NamedTuple):
    """A GPU as the driver names it; ``capability`` is 90 for 9.0."""

    name: str
    capability: int


class Driver(NamedTuple):
    """The NVIDIA driver: the CUDA version that it supports, its release, its GPUs, and its error code."""

    cuda: tuple[int, int]
    release: str = ""
    gpus: tuple[Gpu, ...] = ()
    error: int = 0


def query_driver() -> Driver | None:
    """Asks the driver's own library, without CuPy or torch; None where there is no driver."""
    try:
        cuda = ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
    except OSError:
        return None
    number = ctypes.c_int()
    cuda.cuDriverGetVersion(ctypes.byref(number))
    version = divmod(number.value // 10, 100)
    release = ""
    notes = Path("/proc/driver/nvidia/version")
    if notes.is_file() and (found := re.search(r"\b(\d{3,}\.[\d.]+)\b", notes.read_text())):
        release = found[1]
    if error := cuda.cuInit(0):
        return Driver(version, release, error=error)
    cuda.cuDeviceGetCount(ctypes.byref(number))
    gpus = []
    for index in range(number.value):
        device, text = ctypes.c_int(), ctypes.create_string_buffer(256)
        major, minor = ctypes.c_int(), ctypes.c_int()
        cuda.cuDeviceGet(ctypes.byref(device), index)
        cuda.cuDeviceGetName(text, 256, device)
        cuda.cuDeviceGetAttribute(ctypes.byref(major), 75, device)
        cuda.cuDeviceGetAttribute(ctypes.byref(minor), 76, device)
        gpus.append(Gpu(text.value.decode(errors="replace"), 10 * major.value + minor.value))
    return Driver(version, release, tuple(gpus))


def _installed_version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


class Machine:
    """The machine as the checks see it; ``load`` imports a module, ``version`` asks pip's records."""

    def __init__(
        self,
        load: Callable[[str], Any] = importlib.import_module,
        version: Callable[[str], str | None] = _installed_version,
        driver: Callable[[], Driver | None] = query_driver,
    ) -> None:
        self._load = load
        self._driver = driver
        self._loaded: dict[str, Any] = {}
        self.version = version

    def load(self, module: str) -> Any:
        """The module; the error of a failed import is raised again at each call."""
        if module not in self._loaded:
            try:
                self._loaded[module] = self._load(module)
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # a broken package may raise anything, SystemExit too
                self._loaded[module] = error
        found = self._loaded[module]
        if isinstance(found, BaseException):
            raise found
        return found

    def failure(self, module: str) -> BaseException | None:
        """What importing the module raises, None where it works."""
        try:
            self.load(module)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            return error
        return None

    def driver(self) -> Driver | None:
        """The driver, asked once."""
        if "driver" not in self._loaded:
            self._loaded["driver"] = self._driver()
        return self._loaded["driver"]

    def gpus(self) -> tuple[Gpu, ...]:
        """The GPUs that the driver shows; none where it can't be asked."""
        try:
            driver = self.driver()
        except Exception:  # the check of the driver reports it
            return ()
        return driver.gpus if driver else ()


class Report(NamedTuple):
    """All findings, which printing shows a line each; ``gpu`` says whether there is a GPU, ``ok`` that all is well."""

    findings: tuple[Finding, ...]
    gpu: bool

    @property
    def ok(self) -> bool:
        """Whether there is no problem."""
        return all(finding.status != "problem" for finding in self.findings)

    def __str__(self) -> str:
        return "\n".join(map(str, self.findings))


# ---- what mends what ------------------------------------------------------------------------------------

CUPY_DISTRIBUTIONS = ("cupy-cuda11x", "cupy-cuda12x", "cupy-cuda13x", "cupy", "cupy-rocm-7-0")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])


def _cuda_of_torch(machine: Machine) -> int | None:
    """The CUDA major version that torch was built for, None for a CPU build or without torch."""
    if machine.version("torch") is None or machine.failure("torch"):
        return None
    version = getattr(getattr(machine.load("torch"), "version", None), "cuda", None)
    return _numbers(version)[0] if version else None


def _wanted_extra(machine: Machine) -> str:
    """``cuda12`` or ``cuda13``: what fits the driver and torch."""
    try:
        driver = machine.driver()
    except Exception:
        driver = None
    if driver and driver.cuda[0] < 13:
        return "cuda12"
    if driver and any(gpu.capability < 75 for gpu in driver.gpus):
        return "cuda12"
    return "cuda12" if _cuda_of_torch(machine) == 12 else "cuda13"


def _install(machine: Machine, *remove: str) -> str:
    line = f"pip install 'cv3gpu[{_wanted_extra(machine)}]'"
    return f"pip uninstall -y {' '.join(remove)} && {line}" if remove else line


def _said(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__


# ---- checks ---------------------------------------------------------------------------------------------


def _python(machine: Machine) -> Iterator[Finding]:
    numpy = machine.load("numpy").__version__
    yield Finding("ok", "python", f"Python {platform.python_version()}, NumPy {numpy}, {platform.platform(terse=True)}")


def _driver(machine: Machine) -> Iterator[Finding]:
    driver = machine.driver()
    if driver is None:
        yield Finding("note", "driver", "no NVIDIA driver")
        return
    release = f"{driver.release}, " if driver.release else ""
    words = f"driver {release}CUDA {driver.cuda[0]}.{driver.cuda[1]}"
    if driver.error == NO_DEVICE or (not driver.error and not driver.gpus):
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
        why = f" (CUDA_VISIBLE_DEVICES is {hidden!r})" if hidden is not None else ""
        yield Finding("note", "driver", f"{words}; it shows no GPU{why}")
    elif driver.error:
        yield Finding(
            "problem",
            "driver",
            f"{words}; it does not start (CUDA error {driver.error})",
            "nvidia-smi  # then update or reload the driver; in a container, start it with --gpus all",
        )
    else:
        yield Finding("ok", "driver", words)
    for index, gpu in enumerate(driver.gpus):
        yield Finding("ok", "gpu", f"cuda:{index} {gpu.name}, compute capability {gpu.capability / 10:.1f}")


def _cupy(machine: Machine) -> Iterator[Finding]:
    found = {name: version for name in CUPY_DISTRIBUTIONS if (version := machine.version(name))}
    listed = ", ".join(f"{name} {version}" for name, version in found.items())
    if len(found) > 1:
        yield Finding(
            "problem",
            "cupy",
            f"several CuPy distributions overwrite each other: {listed}",
            _install(machine, *found),
        )
        return
    failure = machine.failure("cupy")
    if not found and failure:
        if machine.gpus():
            yield Finding("problem", "cupy", "not installed: kernels can't be launched", _install(machine))
        else:
            yield Finding("note", "cupy", "not installed: needed with a GPU only")
        return
    if failure:
        yield Finding("problem", "cupy", f"{listed} does not import ({_said(failure)})", _install(machine, *found))
        return
    cupy = machine.load("cupy")
    if _numbers(cupy.__version__)[:2] < CUPY_FLOOR:
        yield Finding(
            "problem",
            "cupy",
            f"CuPy {cupy.__version__} is older than {CUPY_FLOOR[0]}",
            _install(machine, *found),
        )
        return
    yield Finding("ok", "cupy", listed or f"CuPy {cupy.__version__}")
    if machine.gpus() and machine.failure("cupy_backends.cuda.libs.cublas"):
        yield Finding(
            "note",
            "cupy",
            "its cuBLAS does not load: our kernels run, CuPy's own matrix products and sparse solvers do not",
            f"pip install '{next(iter(found), 'cupy')}[ctk]'",
        )


def _cuda_of_cupy(machine: Machine) -> int | None:
    """The CUDA major version of the installed CuPy."""
    for name in CUPY_DISTRIBUTIONS:
        if machine.version(name) and (digits := re.search(r"cuda(\d+)x", name)):
            return int(digits[1])
    if machine.failure("cupy"):
        return None
    return int(machine.load("cupy").cuda.runtime.runtimeGetVersion()) // 1000


def _nvrtc(machine: Machine) -> Iterator[Finding]:
    if machine.failure("cuda.bindings.nvrtc"):
        if machine.gpus():
            yield Finding("problem", "nvrtc", "no NVRTC: kernels can't be compiled", _install(machine))
        else:
            yield Finding("note", "nvrtc", "not installed: needed with a GPU only")
        return
    kernel = machine.load("cv3gpu._kernel")
    try:
        version, known = kernel.nvrtc_version(), kernel.architectures()
    except Exception as error:
        status = "problem" if machine.gpus() else "note"
        yield Finding(status, "nvrtc", f"its library does not load ({_said(error)})", _install(machine))
        return
    words = f"NVRTC {version[0]}.{version[1]} for sm_{min(known)} to sm_{max(known)}"
    if not machine.failure("cupy"):
        runtime = int(machine.load("cupy").cuda.runtime.runtimeGetVersion())
        words += f", CUDA runtime {runtime // 1000}.{runtime % 1000 // 10}"
    driver = machine.driver()
    cupy = _cuda_of_cupy(machine)
    if driver and driver.gpus and version[0] > driver.cuda[0]:
        yield Finding(
            "problem",
            "nvrtc",
            f"{words}: too new for a driver of CUDA {driver.cuda[0]}.{driver.cuda[1]}",
            f"pip install 'cv3gpu[cuda12]'  # or a driver from {DRIVER_OF_CUDA_13} on",
        )
    elif cupy is not None and cupy != version[0]:
        yield Finding(
            "problem",
            "nvrtc",
            f"{words}: beside CuPy for CUDA {cupy}",
            f"pip install 'cv3gpu[cuda{cupy}]' 'cuda-bindings=={cupy}.*'",
        )
    else:
        yield Finding("ok", "nvrtc", words)
    for gpu in machine.gpus():
        if gpu.capability < min(known):
            yield Finding(
                "problem",
                "nvrtc",
                f"{gpu.name} (sm_{gpu.capability}) is too old for NVRTC {version[0]}",
                "pip install 'cv3gpu[cuda12]'",
            )
        elif gpu.capability > max(known):
            yield Finding(
                "note",
                "nvrtc",
                f"{gpu.name} (sm_{gpu.capability}) is newer than NVRTC {version[0]}."
                f"{version[1]}: the driver finishes the compilation",
                "pip install -U nvidia-cuda-nvrtc",
            )


def _torch(machine: Machine) -> Iterator[Finding]:
    version = machine.version("torch")
    if version is None:
        yield Finding("note", "torch", "not installed: NumPy and CuPy arrays work without it")
        return
    if failure := machine.failure("torch"):
        yield Finding(
            "problem",
            "torch",
            f"torch {version} does not import ({_said(failure)})",
            "pip install --force-reinstall torch",
        )
        return
    cuda, cupy, driver = _cuda_of_torch(machine), _cuda_of_cupy(machine), machine.driver()
    words = f"torch {version} for {f'CUDA {cuda}' if cuda else 'the CPU'}"
    if cuda and driver and driver.gpus and cuda > driver.cuda[0]:
        yield Finding(
            "problem",
            "torch",
            f"{words}: too new for a driver of CUDA {driver.cuda[0]}.{driver.cuda[1]}",
            f"pip install 'torch<2.11'  # or a driver from {DRIVER_OF_CUDA_13} on",
        )
    elif cuda and cupy and cuda > cupy:
        yield Finding(
            "problem",
            "torch",
            f"{words} beside CuPy for CUDA {cupy}: kernels compile, but CuPy's cuBLAS, "
            "cuSOLVER, cuFFT and sparse solvers do not load",
            _install(machine, f"cupy-cuda{cupy}x"),
        )
    elif cuda and cupy and cuda < cupy:
        yield Finding(
            "note",
            "torch",
            f"{words} beside CuPy for CUDA {cupy}: both work, each with its own libraries",
            _install(machine, f"cupy-cuda{cupy}x"),
        )
    elif cuda is None and machine.gpus():
        yield Finding(
            "note",
            "torch",
            f"{words}: torch tensors can't go to the GPU",
            "pip install --force-reinstall torch",
        )
    else:
        yield Finding("ok", "torch", words)


def _numba(machine: Machine) -> Iterator[Finding]:
    version, target = machine.version("numba"), machine.version("numba-cuda")
    failure = machine.failure("numba")
    if version is None and failure:
        yield Finding("problem", "numba", "not installed: the CPU paths of tracking need it", "pip install numba")
        return
    if failure:
        yield Finding(
            "problem",
            "numba",
            f"numba {version} does not import ({_said(failure)})",
            "pip install -U numba numpy",
        )
        return
    words = f"numba {version or machine.load('numba').__version__}"
    wanted = ".".join(map(str, NUMBA_CUDA_FLOOR))
    mend = f"pip install 'numba-cuda[cu{_wanted_extra(machine)[4:]}]>={wanted}'"
    if target is None:
        status = "problem" if machine.gpus() else "note"
        yield Finding(
            status,
            "numba",
            f"{words} without numba-cuda: numba's own CUDA target is deprecated and not "
            "used, so the Python kernels need numba-cuda with a GPU",
            mend,
        )
    elif _numbers(target)[:2] < NUMBA_CUDA_FLOOR:
        yield Finding("problem", "numba", f"{words}, numba-cuda {target} is older than {wanted}", mend)
    elif failure := machine.failure("numba.cuda"):
        yield Finding("problem", "numba", f"numba-cuda {target} does not import ({_said(failure)})", mend)
    else:
        yield Finding("ok", "numba", f"{words}, numba-cuda {target}")


def _cache(machine: Machine) -> Iterator[Finding]:
    folder = machine.load("cv3gpu._kernel").cache_folder()
    named = os.environ.get("CV3GPU_CACHE_DIR")
    if folder is None:
        place = named or "~/.cache/cv3gpu"
        yield Finding(
            "note",
            "cache",
            f"{place} is not a folder of ours that only we may write to: every process compiles its kernels anew",
            f"mkdir -p {place} && chmod 700 {place}",
        )
    elif not os.access(folder, os.W_OK):
        yield Finding(
            "note",
            "cache",
            f"{folder} can't be written: every process compiles its kernels anew",
            f"chmod 700 {folder}",
        )
    else:
        files = [path.stat().st_size for path in folder.glob("*.bin")]
        yield Finding(
            "ok",
            "cache",
            f"{folder}: {len(files)} compiled GPU kernel{'s' * (len(files) != 1)}, {sum(files) / 2**20:.1f} MiB",
        )
    theirs = Path(os.environ.get("CUPY_CACHE_DIR") or Path.home() / ".cupy" / "kernel_cache")
    if theirs.is_dir() and theirs.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        yield Finding(
            "note",
            "cache",
            f"CuPy's {theirs} may be written by others, whose code would run as yours",
            f"chmod go-w {theirs}",
        )


# ---- one kernel of each kind ----------------------------------------------------------------------------


def _launch_cuda(machine: Machine) -> str:
    """Runs a CUDA C++ kernel and compares it with the CPU path."""
    import numpy as np

    import cv3gpu

    cupy = machine.load("cupy")
    x = np.arange(48, dtype=np.float32).reshape(1, 3, 4, 4) / 48
    want = cv3gpu.interpolate(x, size=(7, 9), mode="bilinear", align_corners=False)
    got = cupy.asnumpy(cv3gpu.interpolate(cupy.asarray(x), size=(7, 9), mode="bilinear", align_corners=False))
    if not np.allclose(got, want, rtol=0, atol=1e-6):
        raise ArithmeticError(f"interpolate is off by {np.abs(got - want).max():.3g}")
    return "CUDA C++ kernel (interpolate)"


def _launch_numba(machine: Machine) -> str:
    """Runs a numba.cuda kernel and compares it with the CPU path."""
    import numpy as np

    import cv3gpu

    cupy = machine.load("cupy")
    cost = np.random.default_rng(0).random((4, 6, 7))
    want = cv3gpu.linear_sum_assignment(cost)[2]
    got = cupy.asnumpy(cv3gpu.linear_sum_assignment(cupy.asarray(cost))[2])
    if not np.allclose(got, want, rtol=1e-12, atol=0):
        raise ArithmeticError(f"linear_sum_assignment is off by {np.abs(got - want).max():.3g}")
    return "numba.cuda kernel (linear_sum_assignment)"


def _compile_one(machine: Machine) -> str:
    """Compiles one kernel for an H100, which needs neither driver nor GPU."""
    kernel, kernels = machine.load("cv3gpu._kernel"), machine.load("cv3gpu.kernels")
    file = min((f for f in kernels.files() if f.endswith(".cu")), key=lambda f: len(kernels.text(f)))
    binary = kernel.compile_source(kernel.specialise(file, **kernels.variants(file)[0]), file, 90).binary
    return f"{file} compiles for sm_90 ({len(binary)} bytes); nothing to launch it on"


def _kernel(machine: Machine) -> Iterator[Finding]:
    if not machine.gpus():
        if not machine.failure("cuda.bindings.nvrtc"):
            yield Finding("ok", "kernel", _compile_one(machine))
        return
    for launch in (_launch_cuda, _launch_numba):
        try:
            yield Finding("ok", "kernel", f"{launch(machine)} runs and agrees with the CPU")
        except Exception as error:
            kind = "numba.cuda" if launch is _launch_numba else "CUDA C++"
            yield Finding("problem", "kernel", f"a {kind} kernel does not run ({_said(error)})", _install(machine))


CHECKS = (_python, _driver, _cupy, _nvrtc, _torch, _numba, _cache, _kernel)


def examine(machine: Machine | None = None) -> Report:
    """Looks at the driver, the GPUs, CuPy, NVRTC, torch, numba, the cache, and runs one kernel of each kind.

    Parameters
    ----------
    machine : Machine, optional
        What to look at, default this one.

    Returns
    -------
    Report
        ``findings``, each with status (``"ok"``, ``"note"`` or ``"problem"``), topic, text and the line that
        mends it; ``gpu``, ``ok``.

    Notes
    -----
    No exception of a broken package ends it. Without a GPU what is missing for one is a note, and the last
    finding says that the CPU paths are used.
    """
    machine = machine or Machine()
    findings: list[Finding] = []
    for check in CHECKS:
        try:
            findings.extend(check(machine))
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a broken package may raise anything, SystemExit too
            topic = check.__name__.strip("_")
            mend = f"{sys.executable} -m pip check"
            findings.append(Finding("problem", topic, f"could not be examined ({_said(error)})", mend))
    if not machine.gpus():
        findings.append(Finding("note", "gpu", "no GPU: the CPU paths are used"))
    return Report(tuple(findings), bool(machine.gpus()))
