"""The shell commands, thin: each reads its arguments, calls the library and prints.

Exit codes: 0 ok, 1 failure, 2 usage, 3 bad data, 4 no GPU where one was required. With ``--json`` a command
prints one JSON document to standard output and nothing else; progress and errors go to standard error.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import click

from . import __version__
from .errors import BackendUnavailableError, DataFormatError, KernelCompileError, OutOfMemoryError

__all__ = ["main"]

FAILURE, BAD_DATA, NO_GPU = 1, 3, 4
EXPECTED = (BackendUnavailableError, KernelCompileError, OutOfMemoryError, OSError)


class Commands(click.Group):
    """A group that turns the library's named errors into one line and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command."""
        try:
            return super().invoke(ctx)
        except DataFormatError as error:
            _fail(error, BAD_DATA)
        except BrokenPipeError:
            raise  # the reader has gone, as in "| head": click ends quietly
        except EXPECTED as error:
            _fail(error, FAILURE)


def _fail(error: Exception, code: int) -> NoReturn:
    click.echo(f"cv3gpu: {error}".replace("cv3gpu: cv3gpu: ", "cv3gpu: "), err=True)
    raise click.exceptions.Exit(code) from error


def _json_option(function: Callable[..., Any]) -> Callable[..., Any]:
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(function)


def _print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=1, ensure_ascii=False))


def _rich() -> bool:
    return importlib.util.find_spec("rich") is not None


@contextlib.contextmanager
def _progress(label: str, total: int) -> Iterator[Callable[[str], None]]:
    """A progress bar on standard error; gives the function to call as each part begins."""
    if not sys.stderr.isatty():
        yield lambda part: None
    elif _rich():
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (
            TextColumn(label),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.description}"),
        )
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("", total=total)
            begun = iter(range(total))
            yield lambda part: bar.update(task, completed=next(begun, total), description=part)
    else:
        with click.progressbar(length=total, label=label, file=sys.stderr, item_show_func=str) as plain:
            begun = iter(range(total))
            yield lambda part: plain.update(min(1, next(begun, 0)), part)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> None:
    """Aligned columns, by rich on a terminal and as plain text elsewhere; those in ``right`` to the right."""
    if _rich() and sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, header_style="bold", pad_edge=False)
        for index, title in enumerate(header):
            table.add_column(title, justify="right" if index in right else "left", overflow="fold")
        for row in rows:
            table.add_row(*map(Text, row))
        Console().print(table)
        return
    widths = [max(len(cell) for cell in column) for column in zip(header, *rows, strict=True)]
    for row in (header, *rows):
        cells = (
            c.rjust(w) if i in right else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))
        )
        click.echo("  ".join(cells).rstrip())


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="cv3gpu")
def main() -> None:
    """GPU kernels for image segmentation and multi-object tracking, with fast CPU paths."""


# ---- demo -----------------------------------------------------------------------------------------------


@main.command(epilog="Example:  cv3gpu demo --out demo-out")
@click.option(
    "--out",
    default="demo-out",
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for the pictures.",
)
@click.option(
    "--only", multiple=True, metavar="FAMILY", help="Run this family only; may be given several times."
)
@_json_option
def demo(out: Path, only: tuple[str, ...], as_json: bool) -> None:
    """Run the operators on real input and check them.

    Every operator runs on a photograph or on real tracks and is compared with an independent reference.
    Prints operator, input, device, time and agreement, and writes pictures. Needs scikit-image, motmetrics
    and matplotlib (pip install 'cv3gpu[demo]'). Exit code 1 if anything disagrees.
    """
    from . import demo as demos

    families = sorted({entry.family for entry in demos.ENTRIES})
    if unknown := set(only) - set(families):
        raise click.UsageError(
            f"--only must be one of {', '.join(families)}, got {', '.join(sorted(unknown))}"
        )
    chosen = [entry for entry in demos.ENTRIES if not only or entry.family in only]
    with _progress("demo", len(chosen)) as begin:
        result = demos.run(out, chosen, begin)
    rows = result.rows
    if as_json:
        _print_json(
            {
                "ok": result.ok,
                "rows": [row._asdict() for row in rows],
                "pictures": list(map(str, result.pictures)),
            }
        )
    else:
        cells = [
            (r.operator, r.input, r.device, f"{r.milliseconds:.2f}", r.agreement, "ok" if r.ok else "FAILED")
            for r in rows
        ]
        _table(("operator", "input", "device", "ms", "agreement", ""), cells, right=(3,))
        click.echo(f"\n{sum(r.ok for r in rows)} of {len(rows)} agree; pictures:")
        for path in result.pictures:
            click.echo(f"  {path}")
    if not result.ok:
        raise click.exceptions.Exit(FAILURE)


# ---- doctor ---------------------------------------------------------------------------------------------


@main.command(epilog="Example:  cv3gpu doctor --require-gpu")
@click.option("--require-gpu", is_flag=True, help="Exit with 4 where there is no GPU.")
@_json_option
def doctor(require_gpu: bool, as_json: bool) -> None:
    """Say what is installed and what mends it.

    Looks at the driver, the GPUs, CuPy, NVRTC, torch, numba and the kernel cache, and runs one kernel of each
    kind. Exit code 1 if there is a problem.
    """
    from . import doctor as doctors

    report = doctors.examine()
    if as_json:
        findings = [finding._asdict() for finding in report.findings]
        _print_json({"ok": report.ok, "gpu": report.gpu, "findings": findings})
    else:
        for finding in report.findings:
            colour = {"ok": "green", "note": "yellow", "problem": "red"}[finding.status]
            click.echo(f"{click.style(finding.status.ljust(8), fg=colour)}{finding.topic:8}{finding.what}")
            if finding.mend:
                click.echo(f"{'':16}mend: {finding.mend}")
    if require_gpu and not report.gpu:
        click.echo("cv3gpu doctor: a GPU is required, and there is none", err=True)
        raise click.exceptions.Exit(NO_GPU)
    if not report.ok:
        raise click.exceptions.Exit(FAILURE)


# ---- kernels --------------------------------------------------------------------------------------------


@main.group("kernels")
def kernels_group() -> None:
    """List the GPU kernels, or compile them without a GPU."""


@kernels_group.command("list", epilog="Example:  cv3gpu kernels list")
@_json_option
def kernels_list(as_json: bool) -> None:
    """List the kernel files: kernels, variants, architectures, formula."""
    from . import _kernel, kernels

    found = []
    for file in kernels.files():
        if file.endswith(".cuh"):
            continue
        cuda = file.endswith(".cu")
        header = kernels.header(file) if cuda else {}
        found.append(
            {
                "file": file,
                "kind": "CUDA C++" if cuda else "numba.cuda",
                "kernels": list(_kernel.kernel_names(file)) if cuda else [],
                "variants": len(kernels.variants(file)) if cuda else 1,
                "arch": header.get("arch", "").split(),
                "formula": header.get("formula", ""),
            }
        )
    if as_json:
        _print_json(found)
        return
    cells = [
        (f["file"], f["kind"], str(f["variants"]), " ".join(f["arch"]), " ".join(f["kernels"])) for f in found
    ]
    _table(("file", "kind", "variants", "architectures", "kernels"), cells, right=(2,))


@kernels_group.command("compile", epilog="Example:  cv3gpu kernels compile --arch 90 resize.cu")
@click.argument("files", nargs=-1, metavar="[FILE]...")
@click.option(
    "--arch", multiple=True, metavar="ARCH", help="Compute capability, such as 90; default: all declared."
)
@_json_option
def kernels_compile(files: tuple[str, ...], arch: tuple[str, ...], as_json: bool) -> None:
    """Compile CUDA C++ kernels, and show registers and spills.

    Every variant of every FILE (default: all) is compiled. Needs NVRTC (pip install 'cv3gpu[cuda13]'), but
    neither a GPU nor a driver. Exit code 1 if anything does not compile.
    """
    from . import _report, kernels

    known = [file for file in kernels.files() if file.endswith(".cu")]
    if unknown := set(files) - set(known):
        raise click.UsageError(f"FILE must be one of {', '.join(known)}, got {', '.join(sorted(unknown))}")
    parts = [(file, a) for file in files or known for a in kernels.header(file).get("arch", "").split()]
    declared = {a for _, a in parts}
    if missing := set(arch) - declared:
        wanted = ", ".join(sorted(declared, key=lambda a: (len(a), a)))
        raise click.UsageError(f"--arch must be one of {wanted}, got {', '.join(sorted(missing))}")
    parts = [(file, a) for file, a in parts if not arch or a in arch]
    rows = []
    with _progress("compile", len(parts)) as begin:
        for file, a in parts:
            begin(f"{file} sm_{a}")
            rows += _report.compile_report([file], [a])
    failed = [row for row in rows if row.error]
    if as_json:
        _print_json({"ok": not failed, "kernels": [row._asdict() for row in rows]})
    else:
        cells = [
            (
                r.file,
                r.variant,
                f"sm_{r.arch}",
                r.kernel,
                str(r.registers),
                str(r.spill_stores + r.spill_loads),
                str(r.shared),
            )
            for r in rows
            if not r.error
        ]
        _table(
            ("file", "variant", "arch", "kernel", "registers", "spilled bytes", "shared bytes"),
            cells,
            right=(4, 5, 6),
        )
        for row in failed:
            click.echo(f"\n{row.file} {row.variant} sm_{row.arch}: {row.error}", err=True)
        click.echo(f"\n{len(cells)} kernels compiled, {len(failed)} files failed")
    if failed:
        raise click.exceptions.Exit(FAILURE)
