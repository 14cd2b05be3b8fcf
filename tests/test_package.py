"""The package as users get it: what an import costs, which way imports run, what wheel and sdist hold."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

import cv3gpu

ROOT = Path(__file__).resolve().parent.parent
HEAVY = {"torch", "cupy", "numba", "matplotlib", "scipy", "click", "rich", "skimage", "PIL"}

# Each layer may import from those before it. One step back is allowed: when a torch tensor arrives, `_array` hands over
# to the registered operators.
LAYERS = [
    {"errors", "kernels", "_check", "_lazy", "_table", "__version__"},
    {"_array"},
    {"_kernel", "_njit", "_files", "_pictures", "_threads", "_tasks", "_determinism"},
    {"_lanes", "_weights"},
    {"_pool_lanes", "_shared_loops"},
    {"_depthwise_loops", "_pool_loops", "_upsample_loops"},
    {
        "conv",
        "resize",
        "boxes",
        "assignment",
        "crf",
        "graphcut",
        "superpixel",
        "pool",
        "upsample",
        "metrics",
        "message",
    },
    {"_polyphase", "_resize_conv_gpu", "resize_conv", "separable", "atrous", "pyramid"},
    {"checkerboard"},
    {"affinity", "cluster"},
    {"eigen"},
    {"spectral"},
    {"scale"},
    {"mot", "densecrf"},
    {"nn"},
    {"viz", "_report"},
    {"_segment_slic", "_segment", "_segment_cut", "_segment_cluster", "_segment_net", "_track"},
    {"_bench"},
    {"demo", "doctor"},
    {"_pages"},
    {"cli"},
    {"__main__"},
]


STEPS_BACK = {("_array", "nn")}


def run(*command: str | Path, cwd: Path | None = None, **environment: str) -> str:
    clean = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [str(c) for c in command], cwd=cwd, env=clean | environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_import_takes_numpy_and_nothing_heavier() -> None:
    code = "import sys, json, cv3gpu; print(json.dumps(sorted({m.split('.')[0] for m in sys.modules})))"
    loaded = set(json.loads(run(sys.executable, "-c", code, PYTHONPATH=str(ROOT))))
    assert "cv3gpu" in loaded
    assert not loaded & HEAVY


def test_every_public_name_resolves() -> None:
    for name in cv3gpu.__all__:
        assert getattr(cv3gpu, name) is not None
        assert name in dir(cv3gpu)
    with pytest.raises(AttributeError, match="has no attribute 'conv3d'"):
        _ = cv3gpu.conv3d


def test_version_is_the_metadata_of_the_checkout() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == cv3gpu.__version__
    assert f"## {cv3gpu.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def modules_imported_by(path: Path, package: str) -> set[str]:
    """First-level cv3gpu modules that a file imports, whether at the top or inside a function."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package.split(".")[: len(package.split(".")) - node.level + 1]
            targets = [node.module] if node.module else [alias.name for alias in node.names]
            found |= {".".join([*base, target]).split(".")[1] for target in targets}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("cv3gpu."):
            found.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("cv3gpu.")}
    return found


def test_imports_run_one_way() -> None:
    rank = {name: level for level, names in enumerate(LAYERS) for name in names}
    for path in sorted((ROOT / "cv3gpu").rglob("*.py")):
        parts = path.relative_to(ROOT / "cv3gpu").with_suffix("").parts
        if parts == ("__init__",):
            continue
        package = ".".join(["cv3gpu", *parts[:-1]])
        for target in modules_imported_by(path, package) - {parts[0]}:
            assert target in rank, f"{path.name} imports {target}: give it a place in LAYERS"
            back = rank[target] > rank[parts[0]]
            assert not back or (parts[0], target) in STEPS_BACK, f"{'.'.join(parts)} may not import {target}"


def test_kernels_import_nothing_of_the_package() -> None:
    for path in (ROOT / "kernels").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            names += [a.name for a in node.names] if isinstance(node, ast.Import) else []
            assert not any(name.split(".")[0] == "cv3gpu" for name in names), path.name


def test_torch_is_imported_in_nn_alone() -> None:
    for path in (ROOT / "cv3gpu").rglob("*.py"):
        if "nn" in path.relative_to(ROOT).parts or path.name == "doctor.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [a.name for a in node.names] if isinstance(node, ast.Import) else []
            assert not any(name.split(".")[0] == "torch" for name in names), path.name


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wheel and sdist, built from a copy of the tracked files with the setuptools of this environment."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in ("cv3gpu", "kernels", "setup.cfg", "pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md"):
        origin = ROOT / name
        if origin.is_dir():
            import shutil

            shutil.copytree(origin, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            (source / name).write_bytes(origin.read_bytes())
    run(sys.executable, "-m", "build", "--outdir", out, source)
    return out


def test_wheel_holds_the_package_the_kernels_and_nothing_else(distributions: Path) -> None:
    wheel = next(distributions.glob("*.whl"))
    names = zipfile.ZipFile(wheel).namelist()
    shipped = {n for n in names if ".dist-info/" not in n}
    assert all(n.startswith("cv3gpu/") for n in shipped)
    for source in (ROOT / "kernels").iterdir():
        if source.suffix in {".cu", ".cuh", ".py"}:
            assert f"cv3gpu/kernels/{source.name}" in shipped
    for source in (ROOT / "cv3gpu").rglob("*.py"):
        assert str(source.relative_to(ROOT)) in shipped
    assert "cv3gpu/py.typed" in shipped
    assert any(n.endswith("licenses/LICENSE") for n in names)


def test_sdist_builds_the_same_wheel(distributions: Path) -> None:
    archive = next(distributions.glob("*.tar.gz"))
    with tarfile.open(archive) as tar:
        inside = {"/".join(n.split("/")[1:]) for n in tar.getnames()}
    assert {"setup.cfg", "pyproject.toml", "kernels/conv.cu", "kernels/ptx.cuh", "cv3gpu/_kernel.py"} <= inside


CHECK = """
import cv3gpu, numpy as np
from cv3gpu import kernels
import cv3gpu.kernels.boxes
assert "conv.cu" in kernels.files() and "#line" in kernels.inlined("conv.cu")
print(cv3gpu.conv2d(np.ones((1, 1, 3, 3), np.float32), np.ones((1, 1, 3, 3), np.float32))[0, 0, 0, 0])
"""


@pytest.mark.parametrize("how", ["wheel", "editable", "checkout"])
def test_installed_every_way(distributions: Path, tmp_path: Path, how: str) -> None:
    """From a wheel, as an editable install, and as a plain checkout on PYTHONPATH, each in a process of its own."""
    if how == "checkout":
        assert run(sys.executable, "-c", CHECK, cwd=tmp_path, PYTHONPATH=str(ROOT)).strip() == "9.0"
        return
    venv.create(tmp_path / "venv", system_site_packages=False, with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    site = next((tmp_path / "venv" / "lib").glob("python*")) / "site-packages"
    # The dependencies come from this environment; only the package itself is installed.
    import numpy

    site.joinpath("here.pth").write_text(str(Path(numpy.__file__).parent.parent) + "\n")
    target = next(distributions.glob("*.whl")) if how == "wheel" else ROOT
    flags = ["--no-deps", "-e"] if how == "editable" else ["--no-deps", "--no-index"]
    run(python, "-m", "pip", "install", "-q", *flags, target, cwd=tmp_path)
    assert run(python, "-c", CHECK, cwd=tmp_path).strip() == "9.0"
    assert "usage" in run(tmp_path / "venv" / "bin" / "cv3gpu", "--help", cwd=tmp_path).lower()


TYPED = """
import numpy as np

import cv3gpu
from cv3gpu import mot

x = np.zeros((10, 2))
labels, centroids, inertia, n_iter = cv3gpu.kmeans(x, 3, init="random")
n_iter + 1
found = cv3gpu.linear_sum_assignment(np.eye(3), maximize=True)
found.row_ind, found.total
cv3gpu.cluster.assign(x, x), cv3gpu.message.message_graph(np.zeros((2, 3), int), 3)
try:
    mot.evaluate("gt", "tracks", benchmark="MOT17").combined["pedestrian"]["HOTA"]
except cv3gpu.DataFormatError:
    pass
"""
WRONG = {  # a line, and what mypy calls it
    'cv3gpu.kmeans(x, "three")': "arg-type",
    "cv3gpu.kmean(x, 3)": "attr-defined",
    "cv3gpu.box_iou(x)": "call-arg",
    "cv3gpu.dense_crf(x, None, n_iterations=3)": "call-arg",
    "found.rows": "attr-defined",
}


def test_types_are_seen_from_outside(distributions: Path, tmp_path: Path) -> None:
    """mypy, in its strict mode, over a script that uses the installed wheel."""
    pytest.importorskip("mypy")
    import numpy

    venv.create(tmp_path / "venv", with_pip=False)
    site = next((tmp_path / "venv" / "lib").glob("python*")) / "site-packages"
    with zipfile.ZipFile(next(distributions.glob("*.whl"))) as wheel:
        wheel.extractall(site)
    site.joinpath("here.pth").write_text(str(Path(numpy.__file__).parent.parent) + "\n")
    settings = tmp_path / "mypy.ini"
    settings.write_text("[mypy]\nstrict = true\n[mypy-torch.*]\nfollow_imports = skip\n")
    script = tmp_path / "script.py"
    script.write_text(TYPED + "\n".join(WRONG) + "\n")
    python = tmp_path / "venv" / "bin" / "python"
    command = [sys.executable, "-m", "mypy", "--config-file", settings, "--python-executable", python, "script.py"]
    done = subprocess.run(list(map(str, command)), cwd=tmp_path, capture_output=True, text=True)
    said = [line for line in done.stdout.splitlines() if ": error:" in line]
    first = TYPED.count("\n") + 1
    assert len(said) == len(WRONG), done.stdout + done.stderr
    for line, (number, name) in zip(said, enumerate(WRONG.values(), first), strict=True):
        assert line.startswith(f"script.py:{number}: ") and line.endswith(f"[{name}]"), line
