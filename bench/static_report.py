"""What the compiler makes of the kernels, as two tables: ``python -m bench.static_report``.

It needs NVRTC and no GPU. Without an option it compiles and prints every variant on every architecture;
``--sass`` prints the instruction mix as well (where nvdisasm is installed). ``--write`` rewrites the kept
tables, ``--check`` compares them:

* registers.csv: registers, spills and shared memory of every kernel, of a few variants for each architecture,
  chosen so that every value of every constant occurs and that the architectures differ in their variants.
* sass.csv: the hot kernels on an H100, in one variant for each type: their tensor instructions, and the
  accesses to memory by width, as nvdisasm has them. Counts are of the program's text, not of what runs: they
  tell whether a loop uses the tensor cores and moves 16 bytes at a time. Bytes and flops of a call belong to a
  shape; the bench's entries have them, beside the roofline.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import json
import os
import re
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from cv3gpu import _kernel, _report, kernels
from cv3gpu._report import Job, Row, compile_jobs, plan

TABLE = Path(__file__).resolve().parent / "results" / "registers.csv"
SASS_TABLE = TABLE.with_name("sass.csv")
COLUMNS = Row._fields[: Row._fields.index("error")]
Key = tuple[str, str, str, str]


def nvrtc_name() -> str:
    """The loaded NVRTC, as the table's first line names it."""
    return ".".join(map(str, _kernel.nvrtc_version()))


def cache() -> Path | None:
    """Where the rows of texts that were compiled before are kept, beside the compiled kernels."""
    folder = _kernel.cache_folder()
    if folder is not None:
        folder = folder / "reports"
        folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def to_csv(rows: Sequence[Row]) -> str:
    """The kept table: one line a kernel, variant and architecture, sizes in bytes."""
    return _csv("sizes in bytes", COLUMNS, (row[: len(COLUMNS)] for row in rows))


def _csv(note: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    out = io.StringIO()
    out.write(f"# NVRTC {nvrtc_name()}; {note}; written by: python -m bench.static_report --write\n")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return out.getvalue()


class Table(NamedTuple):
    """A kept table: the NVRTC that it was made with, and figures by (file, variant, arch, kernel)."""

    nvrtc: str
    figures: dict[Key, dict[str, float]]


def read_table(text: str) -> Table:
    """Reads what :func:`to_csv` wrote."""
    nvrtc, lines = _read_csv(TABLE.name, text)
    figures = {}
    for line in lines:
        key = (line.pop("file"), line.pop("variant"), line.pop("arch"), line.pop("kernel"))
        figures[key] = {name: float(value) for name, value in line.items()}
    return Table(nvrtc, figures)


def _read_csv(name: str, text: str) -> tuple[str, list[dict[str, str]]]:
    """The NVRTC that a table names, and its lines."""
    first, _, rest = text.partition("\n")
    named = re.match(r"# NVRTC ([\d.]+)", first)
    if named is None:
        raise ValueError(f"{name}:1: must name the NVRTC version, got {first!r}")
    return named[1], list(csv.DictReader(io.StringIO(rest)))


def differences(rows: Sequence[Row], table: Table, slack: int = 8) -> list[str]:
    """How a covering report differs from the kept table, in words.

    Another NVRTC than the table's may use up to ``slack`` more registers, and spill differently.
    """
    same = table.nvrtc == nvrtc_name()
    left = dict(table.figures)
    said = []
    for row in rows:
        kept = left.pop((row.file, row.variant, row.arch, row.kernel), None)
        name = f"{row.kernel} ({row.file} {row.variant}, sm_{row.arch})"
        if kept is None:
            said.append(f"{name}: not in the table")
        elif not same and row.registers > kept["registers"] + slack:
            said.append(f"{name}: registers {row.registers}, NVRTC {table.nvrtc} {kept['registers']:g}")
        elif same:
            said += [
                f"{name}: {figure} {getattr(row, figure):g}, table {value:g}"
                for figure, value in kept.items()
                if getattr(row, figure) != value
            ]
    return said + [f"{key[3]} ({key[0]} {key[1]}, sm_{key[2]}): only in the table" for key in left]


def to_text(rows: Sequence[Row]) -> str:
    """The report for a reader."""
    lines = []
    for row in rows:
        if row.error:
            lines.append(f"{row.file} {row.variant} sm_{row.arch}: ERROR\n{row.error}")
            continue
        mix = " ".join(f"{name}:{count}" for name, count in row.mix.items())
        lines.append(
            f"{row.kernel:24} {row.variant:28} sm_{row.arch:4} regs {row.registers:3} stack {row.stack:4} "
            f"spill {row.spill_stores}/{row.spill_loads} smem {row.shared:6} threads {row.threads:4} "
            f"occupancy {row.occupancy:4.0%} {mix}".rstrip()
        )
    return "\n".join(lines)


# ---- hot kernels, as machine code -----------------------------------------------------------------------

SASS_ARCH = "90"
# Of the variants of a type, the one with most of these: what networks call, in the layout that suits the kernel; and
# for the dense CRF the five features of its bilateral term (a lattice point of each pixel has six corners).
USUAL = {"CHANNELS_LAST": "1", "LAYOUT": "2", "K": "3", "ROWS": "4", "BN": "128", "TAPS": "2"}
USUAL |= {"DIM": "5", "ENTRIES": "6", "FEATURES": "3", "DIMS": "3"}


class Sass(NamedTuple):
    """A hot kernel: figures as in `Row`, and counts of its instructions.

    ``mma`` has the tensor instructions by shape. Loads and stores are by width, ``bits:count`` for what a thread
    moves at a time (``ldsm``: 8 x 8 matrices for a warp). ``spilled`` counts bytes of spills and of local memory.
    """

    file: str
    variant: str
    kernel: str
    registers: int
    spilled: int
    shared: int
    threads: int
    occupancy: float
    instructions: int
    mma: str
    ffma: int
    dfma: int
    mufu: int
    ldg: str
    ldgsts: str
    stg: str
    lds: str
    ldsm: str
    sts: str
    atomics: int
    barriers: int


SassKey = tuple[str, str, str]
_TENSOR = re.compile(r"([A-Z]?MMA|[HIQ]GMMA|UTC\w*MMA)$")


def _bits(modifiers: Sequence[str]) -> int:
    """How much an access moves for a thread, by its opcode's modifiers: 32 unless they say."""
    return next((int(found[1]) for word in modifiers if (found := re.fullmatch(r"[US]?(8|16|64|128)", word))), 32)


def _by_width(opcodes: Counter[str], name: str) -> str:
    """The accesses of a name by width, widest first."""
    widths: Counter[int] = Counter()
    for opcode, count in opcodes.items():
        head, *modifiers = opcode.split(".")
        if head == name:
            widths[int(modifiers[-1]) if name == "LDSM" else _bits(modifiers)] += count
    return " ".join(f"{width}:{widths[width]}" for width in sorted(widths, reverse=True))


def counts(opcodes: Counter[str]) -> dict[str, int | str]:
    """The columns of `Sass` that count instructions, of a kernel's opcodes with their modifiers."""
    heads: Counter[str] = Counter()
    tensor: Counter[str] = Counter()
    for opcode, count in opcodes.items():
        head, *rest = opcode.split(".")
        heads[head] += count
        if _TENSOR.match(head):
            tensor[".".join([head, *rest])] += count
    return {
        "instructions": opcodes.total(),
        "mma": " ".join(f"{name}:{tensor[name]}" for name in sorted(tensor)),
        **{name.lower(): heads[name] for name in ("FFMA", "DFMA", "MUFU")},
        **{name.lower(): _by_width(opcodes, name) for name in ("LDG", "LDGSTS", "STG", "LDS", "LDSM", "STS")},
        "atomics": sum(count for head, count in heads.items() if re.match("ATOM|RED(G|$)", head)),
        "barriers": heads["BAR"],
    }


def sass_plan(files: Iterable[str] | None = None) -> list[Job]:
    """What the table of hot kernels holds: of each type of a file (default all) its most usual variant."""
    jobs = []
    for file in kernels.files() if files is None else files:
        if not (file.endswith(".cu") and _report.hot_kernels(file)):
            continue
        best: dict[str, dict[str, str]] = {}
        for constants in kernels.variants(file):
            real = constants.get("real", "")
            kept = best.setdefault(real, constants)
            if len(constants.items() & USUAL.items()) > len(kept.items() & USUAL.items()):
                best[real] = constants
        for constants in best.values():
            variant = " ".join(f"{name}={value}" for name, value in constants.items())
            jobs.append(Job(file, variant, SASS_ARCH, _kernel.specialise(file, **constants)))
    return jobs


def _sass(job: Job) -> list[dict[str, Any]]:
    if _report.disassembler() is None:
        raise FileNotFoundError("the table of hot kernels needs the pip package nvidia-cuda-nvdisasm")
    compiled = _kernel.compile_source(job.text, job.file, int(job.arch))
    opcodes, bounds = _report.opcodes_of(compiled.binary), _report.launch_bounds(compiled.binary)
    found = []
    for name, figures in sorted(_report.kernel_figures(compiled.log).items()):
        if name in _report.hot_kernels(job.file):
            registers, shared, threads = figures["registers"], figures.get("shared", 0), bounds.get(name, 0)
            found.append(
                {
                    "kernel": name,
                    "registers": registers,
                    "spilled": sum(figures[k] for k in ("stack", "spill_stores", "spill_loads")),
                    "shared": shared,
                    "threads": threads,
                    "occupancy": round(_report.occupancy(job.arch, registers, shared, threads), 3),
                    **counts(opcodes[name]),
                }
            )
    return found


def _kept_sass(job: Job) -> list[Sass]:
    """The rows of a text, from the cache where it was compiled before."""
    folder = cache()
    key = repr((job.code, _report.hot_kernels(job.file), job.arch, _kernel.nvrtc_version(), Sass._fields))
    path = folder and folder / f"sass-{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"
    if path and path.is_file():
        found = json.loads(path.read_text())
    else:
        found = _sass(job)
        if path:
            unfinished = path.with_suffix(f".{os.getpid()}")
            unfinished.write_text(json.dumps(found))
            unfinished.replace(path)
    return [Sass(file=job.file, variant=job.variant, **values) for values in found]


def sass_rows(jobs: Iterable[Job]) -> list[Sass]:
    """Compiles and disassembles, on all cores."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return [row for part in pool.map(_kept_sass, jobs) for row in part]


def sass_to_csv(rows: Sequence[Sass]) -> str:
    """The table of hot kernels."""
    note = f"sm_{SASS_ARCH}; shared memory that the launch asks for is not in shared and occupancy"
    return _csv(note, Sass._fields, rows)


class SassTable(NamedTuple):
    """The kept table of hot kernels: the NVRTC that it was made with, and cells by (file, variant, kernel)."""

    nvrtc: str
    cells: dict[SassKey, dict[str, str]]


def read_sass(text: str) -> SassTable:
    """Reads what :func:`sass_to_csv` wrote."""
    nvrtc, lines = _read_csv(SASS_TABLE.name, text)
    return SassTable(nvrtc, {(c.pop("file"), c.pop("variant"), c.pop("kernel")): c for c in lines})


def _essence(cells: dict[str, str]) -> dict[str, str]:
    """What any compiler must make of a kernel: which tensor instructions, and how wide the widest access to memory."""
    kinds = " ".join(cell.split(":")[0] for cell in cells["mma"].split())
    return {"mma": kinds, **{name: cells[name].split(":")[0] for name in ("ldg", "ldgsts", "stg")}}


def sass_differences(rows: Sequence[Sass], table: SassTable) -> list[str]:
    """How hot kernels differ from the kept table, in words; of another NVRTC than the table's in essence alone."""
    left = dict(table.cells)
    said = []
    for row in rows:
        name = f"{row.kernel} ({row.file} {row.variant}, sm_{SASS_ARCH})"
        kept = left.pop((row.file, row.variant, row.kernel), None)
        if kept is None:
            said.append(f"{name}: not in the table")
            continue
        found = {column: str(getattr(row, column)) for column in kept}
        if table.nvrtc != nvrtc_name():
            found, kept = _essence(found), _essence(kept)
        said += [f"{name}: {c} {found[c] or 'none'}, table {kept[c] or 'none'}" for c in kept if found[c] != kept[c]]
    return said + [f"{key[2]} ({key[0]} {key[1]}, sm_{SASS_ARCH}): only in the table" for key in left]


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 0, or 1 where a kernel does not compile or the kept table differs."""
    parser = argparse.ArgumentParser(prog="python -m bench.static_report", description=__doc__)
    parser.add_argument("files", nargs="*", help="CUDA files, default all")
    parser.add_argument("--arch", nargs="+", help="only these compute capabilities, such as 80 90")
    parser.add_argument("--sass", action="store_true", help="the instruction mix as well")
    parser.add_argument("--table", type=Path, default=TABLE, help="the kept table; that of hot kernels lies beside it")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--write", action="store_true", help="rewrite the kept tables")
    how.add_argument("--check", action="store_true", help="compare with the kept tables")
    chosen = parser.parse_args(arguments)
    if (chosen.write or chosen.check) and (chosen.files or chosen.arch):
        parser.error("--write and --check are for all files and architectures")
    jobs = plan(chosen.files or None, chosen.arch, covering=chosen.write or chosen.check)
    rows = compile_jobs(jobs, sass=chosen.sass, cache=cache())
    failed = [row for row in rows if row.error]
    if failed or not (chosen.write or chosen.check):
        print(to_text(failed if chosen.write or chosen.check else rows))
        return 1 if failed else 0
    hot, hot_table = sass_rows(sass_plan()), chosen.table.with_name(SASS_TABLE.name)
    if chosen.write:
        chosen.table.parent.mkdir(parents=True, exist_ok=True)
        chosen.table.write_text(to_csv(rows), encoding="utf-8")
        hot_table.write_text(sass_to_csv(hot), encoding="utf-8")
        print(f"{chosen.table}: {len(rows)} rows, {hot_table}: {len(hot)} rows, NVRTC {nvrtc_name()}")
        return 0
    kept = read_sass(hot_table.read_text(encoding="utf-8"))
    said = differences(rows, read_table(chosen.table.read_text(encoding="utf-8"))) + sass_differences(hot, kept)
    print("\n".join(said) or f"{chosen.table} and {hot_table}: up to date")
    return 1 if said else 0


if __name__ == "__main__":
    sys.exit(main())
