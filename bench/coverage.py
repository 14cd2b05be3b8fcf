"""Branch coverage of the package's Python by its tests: ``python -m bench.coverage [PYTEST ARGUMENTS]``.

Needs ``pip install pytest-cov``. Functions that numba compiles run as machine code, where nothing can be traced: they
and the modules that hold nothing else are left out, found by their place in what is given to ``compiled``. So is what
runs on a GPU alone. Tests of the compiled functions compare them with outside oracles, input by input.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
COMPILED = ("*_loops.py", "_lanes.py")  # modules of compiled functions alone
GPU = ("_gpu*.py", "*_gpu.py")
WANTED = 95.0
MAKERS = {"compiled", "_compiled", "inlined", "lowered", "njit", "jit"}


def _named(node: ast.AST) -> Iterator[str]:
    for part in ast.walk(node):
        if isinstance(part, ast.Name):
            yield part.id


def compiled_lines(source: str) -> set[int]:
    """The lines of the functions of a module that run as machine code: those in tuples of functions, and in calls."""
    tree = ast.parse(source)
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    given: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in MAKERS:
                given.update(name for part in node.args for name in _named(part))
    for statement in tree.body:
        if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Tuple):
            given.update(_named(statement.value))
        if isinstance(statement, ast.FunctionDef) and any(MAKERS & set(_named(d)) for d in statement.decorator_list):
            given.add(statement.name)
    lines: set[int] = set()
    for name in given & set(functions):
        node = functions[name]
        lines.update(range(node.lineno + 1, (node.end_lineno or node.lineno) + 1))
    return lines


def share(report: dict[str, Any]) -> tuple[float, list[tuple[int, str, str]]]:
    """Per cent of lines and branches that ran, and what did not: count, file and lines."""
    ran = there = 0
    missing = []
    for name, found in report["files"].items():
        path = ROOT / name
        if any(path.match(pattern) for pattern in (*COMPILED, *GPU)) or "kernels" in path.parts:
            continue
        out = compiled_lines(path.read_text(encoding="utf-8"))
        lost = [line for line in found["missing_lines"] if line not in out]
        good = [line for line in found["executed_lines"] if line not in out]
        branches = [[b for b in found[f"{kind}_branches"] if b[0] not in out] for kind in ("executed", "missing")]
        ran += len(good) + len(branches[0])
        there += len(good) + len(lost) + len(branches[0]) + len(branches[1])
        gone = len(lost) + len(branches[1])
        if gone:
            arrows = [f"{a}->{b}" for a, b in branches[1] if a not in lost and abs(b) not in lost]
            missing.append((gone, name, " ".join([*map(str, lost), *arrows])))
    return 100.0 * ran / max(there, 1), sorted(missing, reverse=True)


def main(arguments: list[str]) -> int:
    """Runs the tests and prints what they leave out, most first; 1 where the share is below the wanted one."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "coverage.json"
        tests = [sys.executable, "-m", "pytest", "-q", "--cov=cv3gpu", "--cov-branch", f"--cov-report=json:{file}"]
        failed = subprocess.run([*tests, *arguments], cwd=ROOT).returncode
        percent, missing = share(json.loads(file.read_text()))
    for count, name, lines in missing:
        print(f"{count:5d}  {name}  {lines}")
    print(f"{percent:.1f} % of lines and branches")
    return int(bool(failed) or percent < WANTED)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
