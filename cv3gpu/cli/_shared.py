"""What the commands share: exit codes, options and their types, output, progress and errors."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import math
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import click

from .._table import aligned
from ..errors import BackendUnavailableError, DataFormatError, KernelCompileError, OutOfMemoryError

__all__ = [
    "BAD_DATA",
    "COMPILING",
    "EXPECTED",
    "FAILURE",
    "FILE",
    "FORMATS",
    "NO_GPU",
    "Commands",
    "Size",
    "data_errors",
    "device_option",
    "fail",
    "folder_option",
    "html_option",
    "json_option",
    "not_negative",
    "number_option",
    "on_device",
    "output_option",
    "positive",
    "print_files",
    "print_json",
    "print_table",
    "progress",
    "seed_option",
    "writable",
]

FAILURE, BAD_DATA, NO_GPU = 1, 3, 4
EXPECTED = (BackendUnavailableError, KernelCompileError, OutOfMemoryError, OSError)
COMPILING = "cv3gpu: compiling the CPU kernels, which takes some seconds; they are kept for the next time"
FORMATS = ("motchallenge", "kitti", "detrac")  # the library's own list, which a test compares
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


# ---- errors ---------------------------------------------------------------------------------------------


class Commands(click.Group):
    """A group that turns the library's named errors into one line and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command."""
        try:
            return super().invoke(ctx)
        except DataFormatError as error:
            fail(error, BAD_DATA)
        except BrokenPipeError:
            raise  # the reader has gone, as in "| head": click ends quietly
        except EXPECTED as error:
            fail(error, FAILURE)


def fail(error: Exception, code: int) -> NoReturn:
    """Ends the command with this exit code and the error in a line, its notes below it."""
    click.echo(f"cv3gpu: {error}".replace("cv3gpu: cv3gpu: ", "cv3gpu: "), err=True)
    for note in getattr(error, "__notes__", ()):
        click.echo(f"  {note}", err=True)
    raise click.exceptions.Exit(code) from error


@contextlib.contextmanager
def data_errors() -> Iterator[None]:
    """Turns what is wrong with the data into an error line and exit code 3, and warnings into lines."""
    from .. import _njit

    _njit.before_compiling[:] = [lambda: click.echo(COMPILING, err=True)]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        try:
            yield
        except ValueError as error:
            fail(error, BAD_DATA)
        finally:
            for text in dict.fromkeys(str(warning.message) for warning in caught):
                click.echo(f"cv3gpu: {text}", err=True)


# ---- output ---------------------------------------------------------------------------------------------


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    click.echo(json.dumps(value, indent=1, ensure_ascii=False))


def _rich() -> bool:
    return importlib.util.find_spec("rich") is not None


@contextlib.contextmanager
def progress(label: str, total: int) -> Iterator[Callable[[str], None]]:
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


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> None:
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
    click.echo(aligned(header, rows, right))


def print_files(files: Sequence[Path]) -> None:
    """The files that were written, a line for each."""
    click.echo("files:")
    for path in files:
        click.echo(f"  {path}")


# ---- options --------------------------------------------------------------------------------------------


def writable(context: click.Context, parameter: click.Parameter, path: Path | None) -> Path | None:
    """A path to write to, whose folder is there: looked at before the work, not after it."""
    if path is not None and not path.absolute().parent.is_dir():
        raise click.BadParameter(f"the folder of {str(path)!r} must exist.")
    return path


def positive(context: click.Context, parameter: click.Parameter, value: float | None) -> float | None:
    """A finite number above 0, or none."""
    if value is not None and not 0 < value < math.inf:
        raise click.BadParameter(f"{value} is not a positive number.")
    return value


def not_negative(context: click.Context, parameter: click.Parameter, value: float) -> float:
    """A finite number from 0 on."""
    if not 0 <= value < math.inf:
        raise click.BadParameter(f"{value} is not a number from 0 on.")
    return value


class Size(click.ParamType):
    """Rows and columns, ``180x240``."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        """The two numbers."""
        rows, _, columns = str(value).lower().partition("x")
        if not (rows.isdigit() and columns.isdigit() and 0 < int(rows) <= 65536 and 0 < int(columns) <= 65536):
            self.fail(f"{value!r} is not a size: rows x columns, such as 180x240.", param, ctx)
        return int(rows), int(columns)


def json_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Whether the command prints JSON."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(function)


def output_option(*names: str, help: str, folder: bool = False) -> Callable[..., Any]:
    """An option that names a file to write, or a folder for files."""
    kind = click.Path(file_okay=not folder, dir_okay=folder, path_type=Path)
    return click.option(*names, type=kind, callback=writable, help=help)


def folder_option(default: str) -> Callable[..., Any]:
    """Where the results go."""
    return click.option(
        "--out",
        type=click.Path(file_okay=False, path_type=Path),
        callback=writable,
        default=default,
        show_default=True,
        help="Folder for the results, which is made in one that exists.",
    )


def html_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """A page for the browser."""
    text = "Write a page for the browser as well: one file with sliders, pictures and tables, in a folder that exists."
    return output_option("--html", help=text)(function)


def device_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Where the command runs."""
    device = click.Choice(["cpu", "cuda"])
    return click.option("--device", type=device, default="cpu", show_default=True, help="Where it runs.")(function)


def seed_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Where random starts begin."""
    seed = click.IntRange(0, 2**31 - 1)
    return click.option("--seed", type=seed, default=0, show_default=True, help="Of random starts.")(function)


def number_option(name: str, default: float, text: str, check: Callable[..., Any] = positive) -> Callable[..., Any]:
    """An option that takes a number."""
    return click.option(name, type=float, callback=check, default=default, show_default=True, help=text)


# ---- devices --------------------------------------------------------------------------------------------


def on_device(device: str, command: str = "segment") -> Callable[[Any], Any]:
    """What puts an array there."""
    if device == "cpu":
        return lambda x: x
    with contextlib.suppress(Exception):  # missing or broken: cv3gpu doctor says more
        cupy = importlib.import_module("cupy")
        if cupy.cuda.is_available():
            return cupy.asarray
    click.echo(f"cv3gpu {command}: --device cuda needs a GPU and CuPy, and there is none; see cv3gpu doctor", err=True)
    raise click.exceptions.Exit(NO_GPU)
