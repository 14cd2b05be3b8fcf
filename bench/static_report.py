"""The table of registers, spills and shared memory of every kernel: ``python -m bench.static_report``.

It needs NVRTC and no GPU. Without an option it compiles and prints every variant on every architecture. The
kept table holds a few variants for each architecture, chosen so that every value of every constant occurs and
that the architectures differ in their variants: ``--write`` rewrites it, ``--check`` compares it. ``--sass``
prints the instruction mix as well (where nvdisasm is installed).
"""

from __future__ import annotations

import argparse
import csv
import io
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from cv3gpu import _kernel
from cv3gpu._report import Row, compile_jobs, plan

TABLE = Path(__file__).resolve().parent / "results" / "registers.csv"
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
    out = io.StringIO()
    out.write(f"# NVRTC {nvrtc_name()}; sizes in bytes; written by: python -m bench.static_report --write\n")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(row[: len(COLUMNS)] for row in rows)
    return out.getvalue()


class Table(NamedTuple):
    """A kept table: the NVRTC that it was made with, and figures by (file, variant, arch, kernel)."""

    nvrtc: str
    figures: dict[Key, dict[str, float]]


def read_table(text: str) -> Table:
    """Reads what :func:`to_csv` wrote."""
    first, _, rest = text.partition("\n")
    named = re.match(r"# NVRTC ([\d.]+)", first)
    if named is None:
        raise ValueError(f"{TABLE.name}:1: must name the NVRTC version, got {first!r}")
    figures = {}
    for line in csv.DictReader(io.StringIO(rest)):
        key = (line.pop("file"), line.pop("variant"), line.pop("arch"), line.pop("kernel"))
        figures[key] = {name: float(value) for name, value in line.items()}
    return Table(named[1], figures)


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


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 0, or 1 where a kernel does not compile or the kept table differs."""
    parser = argparse.ArgumentParser(prog="python -m bench.static_report", description=__doc__)
    parser.add_argument("files", nargs="*", help="CUDA files, default all")
    parser.add_argument("--arch", nargs="+", help="only these compute capabilities, such as 80 90")
    parser.add_argument("--sass", action="store_true", help="the instruction mix as well")
    parser.add_argument("--table", type=Path, default=TABLE, help="the kept table")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--write", action="store_true", help="rewrite the kept table")
    how.add_argument("--check", action="store_true", help="compare with the kept table")
    chosen = parser.parse_args(arguments)
    if (chosen.write or chosen.check) and (chosen.files or chosen.arch):
        parser.error("--write and --check are for all files and architectures")
    jobs = plan(chosen.files or None, chosen.arch, covering=chosen.write or chosen.check)
    rows = compile_jobs(jobs, sass=chosen.sass, cache=cache())
    failed = [row for row in rows if row.error]
    if failed or not (chosen.write or chosen.check):
        print(to_text(failed if chosen.write or chosen.check else rows))
        return 1 if failed else 0
    if chosen.write:
        chosen.table.parent.mkdir(parents=True, exist_ok=True)
        chosen.table.write_text(to_csv(rows), encoding="utf-8")
        print(f"{chosen.table}: {len(rows)} rows, NVRTC {nvrtc_name()}")
        return 0
    table = read_table(chosen.table.read_text(encoding="utf-8"))
    said = differences(rows, table)
    print("\n".join(said) or f"{chosen.table}: up to date")
    return 1 if said else 0


if __name__ == "__main__":
    sys.exit(main())
