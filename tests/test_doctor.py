"""The doctor on machines that nobody has: fakes of the driver, of pip's records and of every import."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from cv3gpu import cli, doctor
from cv3gpu.doctor import Driver, Gpu

H100 = Gpu("NVIDIA H100", 90)
KERNELS = SimpleNamespace(files=lambda: ("a.cu",), text=lambda file: "", variants=lambda file: ({},))


def fake_cupy(version="14.2.0", runtime=13000):
    return SimpleNamespace(
        __version__=version,
        cuda=SimpleNamespace(runtime=SimpleNamespace(runtimeGetVersion=lambda: runtime)),
    )


def fake_kernel(version=(13, 0), architectures=(75, 80, 90, 120), folder=None):
    def cache_folder():
        return folder

    return SimpleNamespace(
        nvrtc_version=lambda: version,
        architectures=lambda: architectures,
        cache_folder=cache_folder,
        specialise=lambda file, **constants: "",
        compile_source=lambda *_: SimpleNamespace(binary=b"1234"),
    )


def fake_torch(cuda="13.0"):
    return SimpleNamespace(version=SimpleNamespace(cuda=cuda))


@pytest.fixture
def sound(tmp_path, monkeypatch):
    """A machine on which all is well, as three dictionaries to spoil."""
    monkeypatch.setattr(doctor, "_launch_cuda", lambda machine: "CUDA C++ kernel")
    monkeypatch.setattr(doctor, "_launch_numba", lambda machine: "numba.cuda kernel")
    monkeypatch.setenv("CUPY_CACHE_DIR", str(tmp_path / "cupy"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("CV3GPU_CACHE_DIR", raising=False)
    (tmp_path / "cupy").mkdir(mode=0o700)
    return SimpleNamespace(
        driver=Driver((13, 0), "580.65.06", (H100,)),
        versions={"cupy-cuda13x": "14.2.0", "torch": "2.13.0", "numba": "0.68.1", "numba-cuda": "0.30.4"},
        modules={
            "numpy": SimpleNamespace(__version__="2.4.6"),
            "cupy": fake_cupy(),
            "cupy_backends.cuda.libs.cublas": object(),
            "torch": fake_torch(),
            "numba": SimpleNamespace(__version__="0.68.1"),
            "numba.cuda": object(),
            "cuda.bindings.nvrtc": object(),
            "cv3gpu._kernel": fake_kernel(folder=tmp_path),
            "cv3gpu.kernels": KERNELS,
        },
        folder=tmp_path,
    )


def machine_of(setup):
    def load(name):
        if name not in setup.modules:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        found = setup.modules[name]
        if isinstance(found, BaseException):
            raise found
        return found

    def driver():
        if isinstance(setup.driver, BaseException):
            raise setup.driver
        return setup.driver

    return doctor.Machine(load, setup.versions.get, driver)


def examine(setup):
    return doctor.examine(machine_of(setup))


def found(report, status, topic):
    return [f for f in report.findings if f.status == status and f.topic == topic]


def test_a_sound_machine(sound):
    report = examine(sound)
    assert report.ok and report.gpu
    assert {f.status for f in report.findings} == {"ok"}
    assert {f.topic for f in report.findings} == {
        "python",
        "driver",
        "gpu",
        "cupy",
        "nvrtc",
        "torch",
        "numba",
        "cache",
        "kernel",
    }
    assert found(report, "ok", "gpu")[0].what == "cuda:0 NVIDIA H100, compute capability 9.0"
    assert found(report, "ok", "driver")[0].what == "driver 580.65.06, CUDA 13.0"


def no_gpu(s):
    s.driver = None
    s.versions.clear()
    for name in ("cupy", "cupy_backends.cuda.libs.cublas", "torch", "cuda.bindings.nvrtc", "numba.cuda"):
        del s.modules[name]
    s.versions["numba"] = "0.68.1"


def test_without_gpu_it_is_calm(sound):
    no_gpu(sound)
    report = examine(sound)
    assert report.ok and not report.gpu
    assert report.findings[-1] == ("note", "gpu", "no GPU: the CPU paths are used", "")
    assert {f.status for f in report.findings} == {"ok", "note"}


def two_cupys(s):
    s.versions["cupy-cuda12x"] = "14.2.0"


def cupy_12_beside_torch_13(s):
    del s.versions["cupy-cuda13x"]
    s.versions["cupy-cuda12x"] = "14.2.0"
    s.modules["cupy"] = fake_cupy(runtime=12090)
    s.modules["cv3gpu._kernel"] = fake_kernel((12, 9), folder=s.folder)


def old_driver(s):
    s.driver = Driver((12, 4), "550.54.14", (H100,))
    s.modules["torch"] = fake_torch("12.8")


def old_driver_new_torch(s):
    cupy_12_beside_torch_13(s)
    s.driver = Driver((12, 4), "550.54.14", (H100,))


def no_cupy(s):
    del s.versions["cupy-cuda13x"], s.modules["cupy"]


def broken_cupy(s):
    s.modules["cupy"] = ImportError("libnvrtc.so.13: cannot open shared object file")


def exiting_cupy(s):
    s.modules["cupy"] = SystemExit(3)


def old_cupy(s):
    s.versions["cupy-cuda13x"] = "13.6.0"
    s.modules["cupy"] = fake_cupy("13.6.0")


def no_cublas(s):
    del s.modules["cupy_backends.cuda.libs.cublas"]


def no_nvrtc(s):
    del s.modules["cuda.bindings.nvrtc"]


def nvrtc_without_library(s):
    def fails():
        raise RuntimeError("Failed to dlopen libnvrtc.so.13")

    s.modules["cv3gpu._kernel"].nvrtc_version = fails


def nvrtc_of_another_cuda(s):
    s.modules["cv3gpu._kernel"] = fake_kernel((12, 9), folder=s.folder)


def old_gpu(s):
    s.driver = Driver((13, 0), "580.65.06", (Gpu("Tesla V100", 70),))


def broken_torch(s):
    s.modules["torch"] = OSError("libtorch_cpu.so: undefined symbol")


def broken_numba(s):
    s.modules["numba"] = ImportError("Numba needs NumPy 2.3 or less. Got NumPy 2.4.")


def no_numba(s):
    for name in ("numba", "numba-cuda"):
        del s.versions[name]
    del s.modules["numba"], s.modules["numba.cuda"]


def no_numba_cuda(s):
    del s.versions["numba-cuda"]


def old_numba_cuda(s):
    s.versions["numba-cuda"] = "0.13.0"


def broken_numba_cuda(s):
    s.modules["numba.cuda"] = AttributeError("module 'numba.core' has no attribute 'x'")


def driver_does_not_start(s):
    s.driver = Driver((13, 0), "580.65.06", error=803)


def driver_raises(s):
    s.driver = RuntimeError("exotic")


def no_numpy(s):
    s.modules["numpy"] = ValueError("numpy.dtype size changed")


def kernel_module_is_broken(s):
    s.modules["cv3gpu._kernel"] = MemoryError()


EXTRA13, EXTRA12 = "pip install 'cv3gpu[cuda13]'", "pip install 'cv3gpu[cuda12]'"

BROKEN = [
    (
        two_cupys,
        "cupy",
        "several CuPy distributions overwrite each other: cupy-cuda12x 14.2.0, cupy-cuda13x",
        f"pip uninstall -y cupy-cuda12x cupy-cuda13x && {EXTRA13}",
    ),
    (
        cupy_12_beside_torch_13,
        "torch",
        "for CUDA 13 beside CuPy for CUDA 12: kernels compile, but CuPy's cuBLAS",
        f"pip uninstall -y cupy-cuda12x && {EXTRA13}",
    ),
    (old_driver, "nvrtc", "too new for a driver of CUDA 12.4", EXTRA12),
    (
        old_driver_new_torch,
        "torch",
        "for CUDA 13: too new for a driver of CUDA 12.4",
        "pip install 'torch<2.11'",
    ),
    (no_cupy, "cupy", "not installed: kernels can't be launched", EXTRA13),
    (
        broken_cupy,
        "cupy",
        "cupy-cuda13x 14.2.0 does not import (ImportError: libnvrtc.so.13: cannot open",
        f"pip uninstall -y cupy-cuda13x && {EXTRA13}",
    ),
    (exiting_cupy, "cupy", "does not import (SystemExit: 3)", f"pip uninstall -y cupy-cuda13x && {EXTRA13}"),
    (old_cupy, "cupy", "CuPy 13.6.0 is older than 14", f"pip uninstall -y cupy-cuda13x && {EXTRA13}"),
    (no_nvrtc, "nvrtc", "no NVRTC: kernels can't be compiled", EXTRA13),
    (
        nvrtc_without_library,
        "nvrtc",
        "does not load (RuntimeError: Failed to dlopen libnvrtc.so.13)",
        EXTRA13,
    ),
    (
        nvrtc_of_another_cuda,
        "nvrtc",
        "NVRTC 12.9 for sm_75 to sm_120, CUDA runtime 13.0: beside CuPy for CUDA 13",
        "pip install 'cv3gpu[cuda13]' 'cuda-bindings==13.*'",
    ),
    (old_gpu, "nvrtc", "Tesla V100 (sm_70) is too old for NVRTC 13", EXTRA12),
    (
        broken_torch,
        "torch",
        "does not import (OSError: libtorch_cpu.so",
        "pip install --force-reinstall torch",
    ),
    (
        broken_numba,
        "numba",
        "does not import (ImportError: Numba needs NumPy 2.3",
        "pip install -U numba numpy",
    ),
    (no_numba, "numba", "not installed", "pip install numba"),
    (no_numba_cuda, "numba", "numba's own CUDA target is deprecated", "pip install 'numba-cuda[cu13]>=0.30'"),
    (old_numba_cuda, "numba", "numba-cuda 0.13.0 is older than 0.30", "pip install 'numba-cuda[cu13]>=0.30'"),
    (broken_numba_cuda, "numba", "does not import (AttributeError", "pip install 'numba-cuda[cu13]>=0.30'"),
    (driver_does_not_start, "driver", "it does not start (CUDA error 803)", "nvidia-smi"),
    (driver_raises, "driver", "could not be examined (RuntimeError: exotic)", "pip check"),
    (no_numpy, "python", "could not be examined (ValueError: numpy.dtype size changed)", "pip check"),
    (kernel_module_is_broken, "cache", "could not be examined (MemoryError)", "pip check"),
]


@pytest.mark.parametrize(("spoil", "topic", "what", "mend"), BROKEN, ids=[case[0].__name__ for case in BROKEN])
def test_broken_machines(sound, spoil, topic, what, mend):
    spoil(sound)
    report = examine(sound)
    problems = found(report, "problem", topic)
    assert not report.ok and problems
    assert what in problems[0].what and mend in problems[0].mend


NOTED = [
    (no_cublas, "cupy", "its cuBLAS does not load"),
    (
        lambda s: s.modules.update(torch=fake_torch(None)),
        "torch",
        "for the CPU: torch tensors can't go to the GPU",
    ),
    (
        lambda s: s.modules.update(torch=fake_torch("12.8")),
        "torch",
        "for CUDA 12 beside CuPy for CUDA 13: both work",
    ),
    (lambda s: s.versions.pop("torch"), "torch", "not installed"),
    (
        lambda s: setattr(s, "driver", Driver((13, 0), gpus=(Gpu("next", 200),))),
        "nvrtc",
        "newer than NVRTC 13.0",
    ),
    (
        lambda s: setattr(s.modules["cv3gpu._kernel"], "cache_folder", lambda: None),
        "cache",
        "compiles its kernels",
    ),
    (lambda s: (s.folder / "cupy").chmod(0o777), "cache", "may be written by others"),
    (lambda s: setattr(s, "driver", Driver((13, 0), error=100)), "driver", "it shows no GPU"),
]


@pytest.mark.parametrize(("spoil", "topic", "what"), NOTED)
def test_notes(sound, spoil, topic, what):
    spoil(sound)
    report = examine(sound)
    assert report.ok
    assert what in found(report, "note", topic)[0].what


def test_hidden_gpus_are_explained(sound, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    sound.driver = Driver((13, 0))
    assert "(CUDA_VISIBLE_DEVICES is '')" in found(examine(sound), "note", "driver")[0].what


@pytest.mark.parametrize("kind", ["cuda", "numba"])
def test_a_kernel_that_does_not_run(sound, monkeypatch, kind):
    def fails(machine):
        raise ArithmeticError("off by 1")

    monkeypatch.setattr(doctor, f"_launch_{kind}", fails)
    (problem,) = found(examine(sound), "problem", "kernel")
    assert "kernel does not run (ArithmeticError: off by 1)" in problem.what and problem.mend == EXTRA13
    assert len(found(examine(sound), "ok", "kernel")) == 1


@pytest.mark.parametrize("error", [RuntimeError("x"), SystemExit(1), MemoryError(), AssertionError(), OSError(2, "y")])
def test_any_exception_of_any_import_is_a_finding(sound, error):
    for name in sound.modules:
        sound.modules[name] = error
    report = examine(sound)
    assert not report.ok and report.gpu
    no_gpu_at_all = doctor.examine(
        doctor.Machine(lambda name: exec("raise error", {"error": error}), lambda name: None, lambda: None)
    )
    assert not no_gpu_at_all.ok and no_gpu_at_all.findings[-1].what == "no GPU: the CPU paths are used"


def test_interrupt_is_not_swallowed(sound):
    sound.modules["numba"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        examine(sound)


@pytest.mark.parametrize(
    ("spoil", "arguments", "code"),
    [
        (None, [], 0),
        (None, ["--require-gpu"], 0),
        (two_cupys, [], 1),
        (two_cupys, ["--require-gpu"], 1),
        (no_gpu, [], 0),
        (no_gpu, ["--require-gpu"], 4),
    ],
)
def test_exit_codes(sound, monkeypatch, spoil, arguments, code):
    if spoil:
        spoil(sound)
    machine = machine_of(sound)
    monkeypatch.setattr(doctor, "Machine", lambda: machine)
    result = CliRunner().invoke(cli.main, ["doctor", *arguments])
    assert result.exit_code == code
    assert ("no GPU: the CPU paths are used" in result.stdout) == (spoil is no_gpu)
    assert ("mend: pip uninstall -y cupy-cuda12x" in result.stdout) == (spoil is two_cupys)


def test_the_real_machine():
    report = doctor.examine()
    assert {f.status for f in report.findings} <= {"ok", "note", "problem"}
    assert not any("could not be examined" in f.what for f in report.findings)


def test_a_report_prints_a_line_for_each_finding():
    report = doctor.Report(
        (doctor.Finding("ok", "numba", "numba 1"), doctor.Finding("problem", "cupy", "old", "pip")), False
    )
    assert str(report) == f"ok      numba   numba 1\nproblem cupy    old\n{'':16}mend: pip"
