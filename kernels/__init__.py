"""The GPU kernels as source text: CUDA C++ (``.cu``, ``.cuh``) and numba.cuda (``.py``).

Nothing here imports cv3gpu, CuPy or CUDA, so the sources can be read on any machine:

>>> from cv3gpu import kernels
>>> "resize.cu" in kernels.files()
True
>>> kernels.header("resize.cu")["arch"]
'75 80 86 89 90 100 120'

Each CUDA file opens with a comment of fixed fields: formula, layout, launch, cost, order, measured,
source, arch (the compute capabilities that it is compiled for) and specialise (the constants that the
launcher pastes in front, with every value that they may take).
"""

from __future__ import annotations

import functools
import itertools
import re
from pathlib import Path

__all__ = ["files", "header", "inlined", "text", "variants"]

_HERE = Path(__file__).resolve().parent
_FIELD = re.compile(r"^ \* (\w+)[ \t]+(.*)$")
_INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]+"([\w.]+)"[^\n]*$', re.M)


@functools.cache
def files() -> tuple[str, ...]:
    """Names of all kernel files: CUDA sources, shared headers and numba.cuda modules."""
    names = (p.name for p in _HERE.iterdir() if p.suffix in {".cu", ".cuh", ".py"})
    return tuple(sorted(name for name in names if not name.startswith("_")))


@functools.cache
def text(name: str) -> str:
    """The text of one kernel file."""
    if name not in files():
        raise ValueError(f"kernels.text: name must be one of {', '.join(files())}, got {name!r}")
    return (_HERE / name).read_text(encoding="utf-8")


@functools.cache
def header(name: str) -> dict[str, str]:
    """The fields of a CUDA file's opening comment, by name; continuation lines are joined."""
    comment = re.match(r"/\*(.*?)\*/", text(name), re.S)
    fields: dict[str, str] = {}
    last = ""
    for line in comment[1].splitlines() if comment else ():
        if field := _FIELD.match(line):
            last = field[1]
            joiner = "\n" if last in fields else ""
            fields[last] = fields.get(last, "") + joiner + field[2].strip()
        elif last and line.startswith(" *  "):
            fields[last] += " " + line[2:].strip()
    return fields


@functools.cache
def variants(name: str) -> tuple[dict[str, str], ...]:
    """Every specialisation that a CUDA file declares.

    A ``specialise`` field reads ``real = float32 float64; TAPS = 3 5`` and stands for the product of its
    choices; several fields stand for the union of theirs. Values are strings, as written.
    """
    found = []
    for line in header(name).get("specialise", "").splitlines():
        choices = dict(part.split("=") for part in line.split(";"))
        keys = [key.strip() for key in choices]
        values = [value.split() for value in choices.values()]
        found += [dict(zip(keys, combination, strict=True)) for combination in itertools.product(*values)]
    return tuple(found) or ({},)


def inlined(name: str, _seen: set[str] | None = None) -> str:
    """The text of a CUDA file with its own headers pasted in once each, under ``#line`` directives.

    One self-contained text is what the compiler's messages, the cache key and the CPU runner need.
    """
    seen = {name} if _seen is None else _seen

    def paste(match: re.Match[str]) -> str:
        included = match[1]
        if included in seen:
            return ""
        seen.add(included)
        following = match.string.count("\n", 0, match.end()) + 2
        return f'{inlined(included, seen)}\n#line {following} "{name}"'

    body = _INCLUDE.sub(paste, text(name).replace("#pragma once\n", "\n"))
    return f'#line 1 "{name}"\n{body}'
