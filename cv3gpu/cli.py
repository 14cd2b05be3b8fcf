"""The shell commands, thin: each reads its arguments, calls the library and prints.

Exit codes: 0 ok, 1 failure, 2 usage, 3 bad data, 4 no GPU where one was required. With ``--json`` a command
prints one JSON document to standard output and nothing else; progress and errors go to standard error.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import math
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import click

from . import __version__
from ._table import aligned
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
    for note in getattr(error, "__notes__", ()):
        click.echo(f"  {note}", err=True)
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
    click.echo(aligned(header, rows, right))


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
@click.option("--only", multiple=True, metavar="FAMILY", help="Run this family only; may be given several times.")
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
        raise click.UsageError(f"--only must be one of {', '.join(families)}, got {', '.join(sorted(unknown))}")
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
    cells = [(f["file"], f["kind"], str(f["variants"]), " ".join(f["arch"]), " ".join(f["kernels"])) for f in found]
    _table(("file", "kind", "variants", "architectures", "kernels"), cells, right=(2,))


@kernels_group.command("compile", epilog="Example:  cv3gpu kernels compile --arch 90 resize.cu")
@click.argument("files", nargs=-1, metavar="[FILE]...")
@click.option("--arch", multiple=True, metavar="ARCH", help="Compute capability, such as 90; default: all declared.")
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


# ---- mot ------------------------------------------------------------------------------------------------

# The library's own lists, which a test compares: --help imports neither NumPy nor the metrics.
METRICS = ("hota", "clear", "identity", "vace", "count")
BENCHMARKS = ("MOT15", "MOT16", "MOT17", "MOT20", "KITTI", "DETRAC")
FORMATS = ("motchallenge", "kitti", "detrac")
COMPILING = "cv3gpu: compiling the CPU kernels, which takes some seconds; they are kept for the next time"
SWITCHES = 20  # identity switches that are printed; the file has all


@main.group("mot")
def mot_group() -> None:
    """Evaluate multi-object trackers."""


def _writable(context: click.Context, parameter: click.Parameter, path: Path | None) -> Path | None:
    """A path to write to, whose folder is there: looked at before the work, not after it."""
    if path is not None and not path.absolute().parent.is_dir():
        raise click.BadParameter(f"the folder of {str(path)!r} must exist.")
    return path


def _output_option(*names: str, help: str, folder: bool = False) -> Callable[..., Any]:
    """An option that names a file to write, or a folder for files."""
    kind = click.Path(file_okay=not folder, dir_okay=folder, path_type=Path)
    return click.option(*names, type=kind, callback=_writable, help=help)


def _evaluation_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """What `mot eval` and `mot compare` share."""
    options = (
        click.option("--benchmark", type=click.Choice(BENCHMARKS), help="Whose rules apply; default: none."),
        click.option(
            "--metrics",
            multiple=True,
            type=click.Choice(METRICS),
            default=("clear", "identity", "hota"),
            help="May be given several times; default: clear, identity and hota.",
        ),
        click.option(
            "--format", type=click.Choice(FORMATS), help="Format of the files; default: the benchmark's, or found out."
        ),
        _output_option("--csv", "csv_file", help="Write all figures to this file, in a folder that exists."),
        _output_option(
            "--plot", "pictures", folder=True, help="Draw pictures into this folder, which is made in one that exists."
        ),
        _json_option,
    )
    for option in reversed(options):
        function = option(function)
    return function


@contextlib.contextmanager
def _data_errors() -> Iterator[None]:
    """Turns what is wrong with the data into an error line and exit code 3, and warnings into lines."""
    from . import _njit

    _njit.before_compiling[:] = [lambda: click.echo(COMPILING, err=True)]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        try:
            yield
        except ValueError as error:
            _fail(error, BAD_DATA)
        finally:
            for text in dict.fromkeys(str(warning.message) for warning in caught):
                click.echo(f"cv3gpu: {text}", err=True)


@mot_group.command("eval", epilog="Example:  cv3gpu mot eval MOT17/train results/MyTracker --benchmark MOT17")
@click.argument("gt", type=click.Path(exists=True))
@click.argument("pred", type=click.Path(exists=True))
@_evaluation_options
@_output_option(
    "--events",
    "events_file",
    help="Write matches, misses, false positives, switches, fragmentations to this CSV file.",
)
def mot_eval(gt: str, pred: str, events_file: Path | None, **options: Any) -> None:
    """Score the tracks in PRED against the ground truth in GT.

    Both are a file, a folder or a zip archive: <seq>/gt/gt.txt or <seq>.txt for ground truth, <seq>.txt for
    tracks; also KITTI's and UA-DETRAC's layouts. Prints a line for each sequence and one for all, ratios in
    percent. Exit code 3 if a file is malformed or a sequence has no tracks.
    """
    from . import mot

    asked, out = _split(options)
    logs = {}
    with _data_errors():
        n = len(mot.sequences.find(gt, "gt", asked["format"]))
        with _progress("evaluate", n) as begin:
            report = mot.evaluate(gt, pred, progress=begin, **asked)
        if events_file or out.pictures:
            with _progress("events", n) as begin:
                logs = mot.event_logs(gt, pred, asked["benchmark"], format=asked["format"], progress=begin)
    if events_file:
        mot.logs_to_csv(logs, events_file)
    drawn = [*_draw_curves(out.pictures, {pred: report}), *_draw_logs(out.pictures, logs)] if out.pictures else []
    _give(report, out, drawn)
    if events_file and not out.as_json:
        _print_switches(logs, events_file)


@mot_group.command("compare", epilog="Example:  cv3gpu mot compare MOT17/train results/A results/B --benchmark MOT17")
@click.argument("gt", type=click.Path(exists=True))
@click.argument("preds", type=click.Path(exists=True), nargs=-1, required=True, metavar="PRED...")
@_evaluation_options
def mot_compare(gt: str, preds: tuple[str, ...], **options: Any) -> None:
    """Score several trackers side by side.

    Each PRED is as for `mot eval`; it is named by its file or folder. Prints a line for each, over all sequences,
    ratios in percent, with * behind the best of a column.
    """
    from . import mot

    trackers = _named(preds)
    if len(trackers) < len(preds):
        raise click.UsageError(f"PRED must be different files or folders, got {', '.join(preds)}")
    asked, out = _split(options)
    with _data_errors():
        n = len(mot.sequences.find(gt, "gt", asked["format"]))
        with _progress("evaluate", n) as begin:
            comparison = mot.compare(gt, trackers, progress=begin, **asked)
    _give(comparison, out, _draw_curves(out.pictures, comparison.reports) if out.pictures else [])


class _Out(NamedTuple):
    """Where the result goes."""

    csv_file: Path | None
    pictures: Path | None
    as_json: bool


def _split(options: dict[str, Any]) -> tuple[dict[str, Any], _Out]:
    """What the library is asked for, and what becomes of its answer."""
    out = _Out(*(options.pop(name) for name in _Out._fields))
    return options, out


def _named(paths: Sequence[str]) -> dict[str, str]:
    """Paths by the names of their files or folders, or by themselves where these are not unique."""
    names = [Path(os.path.abspath(path)).stem for path in paths]
    return {name if names.count(name) == 1 else path: path for name, path in zip(names, paths, strict=True)}


def _give(found: Any, out: _Out, drawn: Sequence[Path]) -> None:
    """Prints a report or a comparison, and writes its table."""
    if out.csv_file:
        found.to_csv(out.csv_file)
    if out.as_json:
        _print_json(found.to_dict())
        return
    click.echo(found.table())
    for number, path in enumerate(drawn):
        click.echo(f"  {path}" if number else f"\npictures:\n  {path}")


def _print_switches(logs: dict[str, Any], file: Path) -> None:
    rows = []
    for sequence, classes in logs.items():
        for log in classes.values():
            switches = log.of("switch")
            columns = (switches.frame, switches.gt, switches.previous, switches.pred, switches.since)
            rows += [(sequence, *map(str, row)) for row in zip(*(c.tolist() for c in columns), strict=True)]
    click.echo(f"\n{len(rows)} switches; all events are in {file}")
    if rows:
        header = ("sequence", "frame", "identity", "followed by", "now by", "last in frame")
        _table(header, rows[:SWITCHES], right=range(1, 6))
    if len(rows) > SWITCHES:
        click.echo(f"and {len(rows) - SWITCHES} more")


def _draw(folder: Path, name: str, figure: Any) -> Path:
    from . import viz

    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.png"
    viz.save(figure, path)
    return path


def _draw_curves(folder: Path, reports: dict[str, Any]) -> list[Path]:
    """HOTA's curves, a picture for each class."""
    from . import viz

    drawn = []
    for class_name, figures in next(iter(reports.values())).combined.items():
        if "HOTA" in figures:
            combined = {tracker: report.combined[class_name] for tracker, report in reports.items()}
            drawn.append(_draw(folder, f"alpha-{class_name}", viz.alpha_figure(combined, title=class_name)))
    return drawn


def _draw_logs(folder: Path, logs: dict[str, Any]) -> list[Path]:
    """Who followed whom, a picture for each sequence and class that has ground truth."""
    from . import viz

    return [
        _draw(folder, f"identities-{sequence}-{name}", viz.identities_figure(log, title=f"{sequence}, {name}"))
        for sequence, classes in logs.items()
        for name, log in classes.items()
        if (log.gt >= 0).any()
    ]



# ---- bench ----------------------------------------------------------------------------------------------


@main.command("bench", epilog="Example:  cv3gpu bench box_iou")
@click.argument("words", nargs=-1, metavar="[WORD]...")
@click.option(
    "--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True, help="Where the operators run."
)
@click.option("--list", "listed", is_flag=True, help="Print the names of the measurements, and measure nothing.")
@click.option("--seconds", type=click.FloatRange(0, min_open=True), help="How long each is repeated; default: seconds.")
@_json_option
def bench(words: tuple[str, ...], device: str, listed: bool, seconds: float | None, as_json: bool) -> None:
    """Measure operators against other libraries, in a source checkout.

    Each WORD picks the measurements whose names hold it; default: those of the README's table, which takes minutes.
    Every result is compared with a float64 reference before it is timed. Prints medians, and how many times as long
    each of the others takes. Exit code 1 if a result is off, 4 if --device cuda finds no GPU.
    """
    from . import _bench

    chosen = _bench.entries(device, words)
    if not chosen:
        raise click.UsageError(f"WORD must be in the name of a measurement, got {', '.join(words)}; see --list.")
    if listed:
        rows = [{"name": entry.name, "shape": entry.shape, "family": entry.family} for entry in chosen]
        if as_json:
            _print_json(rows)
        else:
            _table(("measurement", "what"), [(row["name"], row["shape"]) for row in rows])
        return
    if device == "cuda":
        _on_device(device, "bench")
    with _progress("bench", len(chosen)) as begin:
        found = _bench.measure(chosen, seconds, begin)
    if as_json:
        _print_json([measured._asdict() for measured in found])
    else:
        cells = []
        for name, _, status, times, why in found:
            ours = times.pop("ours", None)
            said = [f"{peer} {_bench.duration(t)} ({t / ours:.2f}x)" for peer, t in times.items() if ours]
            said += [f"{peer}: {reason}" for peer, reason in why.items()]
            cells.append((name, _bench.duration(ours) if ours else status, "; ".join(said)))
        _table(("measurement", "ours", "others"), cells, right=(1,))
    if any(measured.status != "ok" for measured in found):
        raise click.exceptions.Exit(FAILURE)


# ---- track ----------------------------------------------------------------------------------------------


@main.command("track", epilog="Example:  cv3gpu track MOT17/train --method byte --out tracks")
@click.argument("detections", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--method",
    type=click.Choice(["mpn", "flow", "byte", "sort"]),
    default="mpn",
    show_default=True,
    help="A network over past and future, the minimum-cost flow of all frames, or ByteTrack or SORT frame by frame.",
)
@click.option(
    "--weights",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A network from `cv3gpu train mpn`, for --method mpn; default: the one for pedestrians that comes along.",
)
@click.option(
    "--interpolate",
    type=click.IntRange(0),
    default=20,
    show_default=True,
    metavar="GAP",
    help="Fill gaps of up to so many frames.",
)
@click.option(
    "--min-length",
    type=click.IntRange(0),
    default=2,
    show_default=True,
    help="Leave out tracks of fewer detections.",
)
@click.option("--score", type=float, help="Leave out detections of lower scores.")
@click.option(
    "--format", type=click.Choice(FORMATS), default="motchallenge", show_default=True, help="Format of the tracks."
)
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    callback=_writable,
    help="File for the tracks of one sequence, or folder for <seq>.txt; in a folder that exists.",
)
@_output_option("--gif", help="Draw the tracks of one sequence into this animated GIF.")
@_json_option
def track(detections: Path, out: Path, gif: Path | None, as_json: bool, **options: Any) -> None:
    """Link DETECTIONS over the frames: boxes in, tracks out.

    DETECTIONS is a file in MOTChallenge's or KITTI's format, a folder with det/det.txt (or one other .txt file in det),
    or one with such folders or with files <seq>.txt. Boxes may be of anything; classes are tracked separately. The
    frame rate comes from seqinfo.ini beside det, else it is 30. --method mpn goes by the motion of the camera, where
    there is a gmc.txt beside det.

    Prints a line for each sequence, with the tracker's frames per second. --gif draws on the pictures of img1 beside
    det, 000001.jpg and so on, where they are there, else on a white ground; it needs Pillow.

    Exit code 3 if a file is malformed or there are no sequences, or no track to draw.
    """
    from . import _track

    method = options.pop("method")
    if options["weights"] is not None and method != "mpn":
        raise click.UsageError("--weights goes with --method mpn alone.")
    if options["score"] is not None and not math.isfinite(options["score"]):
        raise click.UsageError(f"--score must be finite, got {options['score']}.")
    with _data_errors():
        sequences = _track.find(detections)
        if len(sequences) > 1 and out.is_file():
            raise click.UsageError(f"--out must be a folder for {len(sequences)} sequences, {str(out)!r} is a file.")
        if gif is not None and len(sequences) > 1:
            raise click.UsageError(f"--gif goes with one sequence, got {len(sequences)}.")
        if gif is not None:
            _track.can_animate()
        with _progress("track", len(sequences)) as begin:
            done = _track.track(sequences, method, out, progress=begin, **options)
        if gif is not None:
            _track.animate(sequences[0], done[sequences[0].name].file, gif)
    if as_json:
        told = {name: {**found._asdict(), "file": str(found.file), "fps": found.fps} for name, found in done.items()}
        _print_json({"method": method, "sequences": told, **({"gif": str(gif)} if gif else {})})
        return
    header = ["sequence", "frames", "detections", "tracks", "boxes", "fps"]
    rows = [
        [name, str(found.frames), str(found.detections), str(found.tracks), str(found.boxes), f"{found.fps:.0f}"]
        for name, found in done.items()
    ]
    if method == "mpn":
        header.append("constraints")
        rows = [[*row, f"{100 * (found.satisfied or 0):.2f} %"] for row, found in zip(rows, done.values(), strict=True)]
    _table(header, rows, right=range(1, len(header)))
    _print_files([*(found.file for found in done.values()), *([gif] if gif else [])])


# ---- segment --------------------------------------------------------------------------------------------

METHODS = ("lattice", "lattice_fine", "exact")
NORMALIZATIONS = ("none", "before", "after", "symmetric")
SHARES = 8  # labels whose shares are printed; the JSON has all


@main.group("segment")
def segment_group() -> None:
    """Segment an image."""


class Numbers(click.ParamType):
    """A positive number, or several between commas."""

    name = "numbers"

    def __init__(self, count: int) -> None:
        self.count = count

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The number, or a tuple of them."""
        if not isinstance(value, str):
            return value
        try:
            numbers = tuple(map(float, value.split(",")))
        except ValueError:
            numbers = ()
        if len(numbers) not in (1, self.count) or not all(0 < x < math.inf for x in numbers):
            self.fail(f"{value!r} is neither a positive number nor {self.count} of them between commas.", param, ctx)
        return numbers[0] if len(numbers) == 1 else numbers


def _finite(context: click.Context, parameter: click.Parameter, value: float) -> float:
    if not math.isfinite(value):
        raise click.BadParameter(f"{value} is not finite.")
    return value


def _inside(context: click.Context, parameter: click.Parameter, value: float) -> float:
    if not 0 < value < 1:
        raise click.BadParameter(f"{value} is not between 0 and 1.")
    return value


def _not_negative(context: click.Context, parameter: click.Parameter, value: float) -> float:
    if not 0 <= value < math.inf:
        raise click.BadParameter(f"{value} is not a number from 0 on.")
    return value


def _positive(context: click.Context, parameter: click.Parameter, value: float | None) -> float | None:
    if value is not None and not 0 < value < math.inf:
        raise click.BadParameter(f"{value} is not a positive number.")
    return value


class Rectangle(click.ParamType):
    """A rectangle of pixels, x,y,width,height."""

    name = "rectangle"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The four numbers."""
        try:
            numbers = tuple(map(int, value.split(",")))
        except ValueError:
            numbers = ()
        if len(numbers) != 4 or min(numbers[:2]) < 0 or min(numbers[2:]) < 1:
            self.fail(f"{value!r} is not a rectangle: four whole numbers x,y,width,height.", param, ctx)
        return numbers


def _folder_option(default: str) -> Callable[..., Any]:
    """Where the results go."""
    return click.option(
        "--out",
        type=click.Path(file_okay=False, path_type=Path),
        callback=_writable,
        default=default,
        show_default=True,
        help="Folder for the results, which is made in one that exists.",
    )


def _device_option(function: Callable[..., Any]) -> Callable[..., Any]:
    device = click.Choice(["cpu", "cuda"])
    return click.option("--device", type=device, default="cpu", show_default=True, help="Where it runs.")(function)


FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
OF_UNARY, OF_LABELS = ("array", "layout", "kind"), ("confidence", "unsure")
KERNELS = ("theta_gamma", "compat_smooth", "theta_alpha", "theta_beta", "compat_bilateral")
ASKED = ("method", "normalization", "device", *KERNELS)  # what the JSON repeats


def _kernel_options(gamma: float, smooth: float, alpha: float, beta: float, bilateral: float) -> Callable[..., Any]:
    """The kernels of a dense CRF, with these defaults."""

    def width(name: str, default: float, count: int, form: str, text: str) -> Callable[..., Any]:
        return click.option(name, type=Numbers(count), default=default, show_default=True, metavar=form, help=text)

    def weight(name: str, default: float, text: str) -> Callable[..., Any]:
        return click.option(name, type=float, callback=_finite, default=default, show_default=True, help=text)

    options = (
        width("--theta-gamma", gamma, 2, "N|X,Y", "Width of the smoothness kernel, pixels."),
        weight("--compat-smooth", smooth, "Potts weight of smoothness."),
        width("--theta-alpha", alpha, 2, "N|X,Y", "Width of the appearance kernel, pixels."),
        width("--theta-beta", beta, 3, "N|R,G,B", "Width of the appearance kernel in colour, 0 to 255."),
        weight("--compat-bilateral", bilateral, "Potts weight of appearance."),
    )

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


@segment_group.command("crf", epilog="Example:  cv3gpu segment crf photo.jpg --unary softmax.npy --out crf-out")
@click.argument("image", type=FILE)
@click.option("--unary", type=FILE, help="What a classifier says of each pixel: an .npy or .npz file.")
@click.option("--array", metavar="NAME", help="Which array of --unary FILE.npz; needed where it has several.")
@click.option("--layout", type=click.Choice(["lhw", "hwl"]), default="lhw", show_default=True, help="Axes of --unary.")
@click.option(
    "--kind",
    type=click.Choice(["probability", "energy", "logits"]),
    default="probability",
    show_default=True,
    help="Numbers in --unary; an energy is -log p.",
)
@click.option("--labels", type=FILE, help="Instead of --unary: a map of labels, an indexed or grey PNG file.")
@click.option(
    "--confidence",
    type=float,
    callback=_inside,
    default=0.7,
    show_default=True,
    help="Probability that a label of --labels is right.",
)
@click.option(
    "--unsure",
    type=click.IntRange(0, 65535),
    metavar="VALUE",
    help="Value in --labels that means any label, such as 255.",
)
@click.option("--iterations", type=click.IntRange(0), default=10, show_default=True, help="Of mean field.")
@click.option(
    "--method", type=click.Choice(METHODS), default="lattice", show_default=True, help="How kernels are applied."
)
@click.option(
    "--normalization",
    type=click.Choice(NORMALIZATIONS),
    default="symmetric",
    show_default=True,
    help="How kernels are normalised.",
)
@_kernel_options(3.0, 3.0, 80.0, 13.0, 10.0)
@click.option("--names", metavar="A,B,...", help="Names of the labels, between commas, for the pictures.")
@_folder_option("crf-out")
@click.option("--marginals", is_flag=True, help="Write marginals.npy as well: Q [L, H, W], float32.")
@_device_option
@_json_option
@click.pass_context
def segment_crf(context: click.Context, image: Path, unary: Path | None, labels: Path | None, **options: Any) -> None:
    """Refine the labels of IMAGE with a dense CRF.

    Unary potentials come from a classifier (--unary) or from labels (--labels). The CRF is that of Kraehenbuehl and
    Koltun, its defaults those of pydensecrf's example. IMAGE is taken as RGB.

    Writes labels.png (indexed; the values of --labels, or the places in --unary), overlay.png, iterations.png (the
    labels as mean field goes on) and triptych.png (unaries, smoothness only, dense CRF). Prints for each iteration
    the objective, the energy of the best labels, the largest change of Q, and the pixels with another label.

    Exit code 3 if a file is malformed or does not fit the image, 4 if --device cuda finds no GPU.
    """
    if (unary is None) == (labels is None):
        raise click.UsageError("Give either --unary or --labels.")
    for name in OF_LABELS if labels is None else OF_UNARY:
        if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
            raise click.UsageError(f"--{name} needs {'--labels' if labels is None else '--unary'}.")
    put = _on_device(options["device"])
    from . import _segment, viz

    viz.require()
    with _data_errors():
        picture = _segment.read_image(image)
        if unary is not None:
            energies = _segment.read_unary(unary, picture.shape[:2], *(options[name] for name in OF_UNARY))
            values = list(range(len(energies)))
        else:
            assert labels is not None
            energies, values = _segment.read_labels(labels, picture.shape[:2], *(options[name] for name in OF_LABELS))
        names = _label_names(options["names"], values)
        with _progress("crf", options["iterations"] + 3) as begin:
            run = _segment.dense_crf(picture, energies, options, put, begin)
            begin("pictures")
            where = options["out"], image.name
            files = _segment.write_crf(*where, picture, run, values, names, options["marginals"])
    share = {name: float((run.labels == k).mean()) for k, name in enumerate(names)}
    if options["as_json"]:
        asked = {name: value for name, value in options.items() if name in ASKED}
        size = {"height": picture.shape[0], "width": picture.shape[1]}
        rows = [row._asdict() for row in run.rows]
        found = {"iterations": rows, "share": share, "files": list(map(str, files))}
        _print_json({"image": str(image), **size, **asked, **found})
    else:
        _print_crf(run.rows, share, files)


def _print_crf(rows: Sequence[Any], share: dict[str, float], files: Sequence[Path]) -> None:
    cells = [
        (
            str(row.iteration),
            f"{row.objective:.1f}",
            f"{row.energy:.1f}",
            "" if row.change is None else f"{row.change:.1e}",
            "" if row.relabelled is None else f"{row.relabelled:.2%}",
        )
        for row in rows
    ]
    _table(("iteration", "objective", "energy", "largest change", "relabelled"), cells, right=range(5))
    largest = sorted(share.items(), key=lambda item: -item[1])
    said = [f"{name} {part:.1%}" for name, part in largest[:SHARES]]
    said += [f"and {len(largest) - SHARES} more"] if len(largest) > SHARES else []
    click.echo(f"\nlabels: {', '.join(said)}")
    _print_files(files)


def _print_files(files: Sequence[Path]) -> None:
    click.echo("files:")
    for path in files:
        click.echo(f"  {path}")


def _label_names(given: str | None, values: Sequence[int]) -> list[str]:
    """The labels' names, by default their numbers."""
    names = given.split(",") if given else list(map(str, values))
    if len(names) != len(values) or len(set(names)) < len(names):
        raise click.UsageError(f"--names must be {len(values)} different names, got {given!r}.")
    return names


def _on_device(device: str, command: str = "segment") -> Callable[[Any], Any]:
    """What puts an array there."""
    if device == "cpu":
        return lambda x: x
    with contextlib.suppress(Exception):  # missing or broken: cv3gpu doctor says more
        cupy = importlib.import_module("cupy")
        if cupy.cuda.is_available():
            return cupy.asarray
    click.echo(f"cv3gpu {command}: --device cuda needs a GPU and CuPy, and there is none; see cv3gpu doctor", err=True)
    raise click.exceptions.Exit(NO_GPU)


REGIONS = ("none", "histogram", "gmm")
OF_GRABCUT, OF_CUT = ("gamma", "components", "iterations"), ("lam", "sigma", "region")
ASKED_OF_CUT = (*OF_CUT, "connectivity", "rect", "grabcut", "gamma", "components", "device")  # what the JSON repeats


@segment_group.command(
    "graphcut",
    epilog="Example:  cv3gpu segment graphcut photo.jpg --fg object.png --bg rest.png --out graphcut-out\n\n"
    "Example:  cv3gpu segment graphcut photo.jpg --grabcut --rect 40,30,200,150",
)
@click.argument("image", type=FILE)
@click.option("--fg", type=FILE, help="Seeds of the foreground: an indexed or grey image that is not 0 there.")
@click.option("--bg", type=FILE, help="Seeds of the background, likewise.")
@click.option("--scribbles", type=FILE, help="Both: a PNG file with pure red on the foreground, pure blue behind it.")
@click.option("--rect", type=Rectangle(), metavar="X,Y,W,H", help="Rectangle around the object, pixels.")
@click.option("--lam", type=float, callback=_not_negative, default=50.0, show_default=True, help="Weight of edges.")
@click.option(
    "--sigma",
    type=float,
    callback=_positive,
    help="Difference of neighbours inside a region, 0 to 1; default: estimated from the image.",
)
@click.option(
    "--region", type=click.Choice(REGIONS), default="none", show_default=True, help="Model of the seeds' colours."
)
@click.option("--connectivity", type=click.Choice(["4", "8"]), default="8", show_default=True, help="Neighbours.")
@click.option("--grabcut", is_flag=True, help="Cut again and again, with colour models of both regions (GrabCut).")
@click.option(
    "--gamma", type=float, callback=_not_negative, default=50.0, show_default=True, help="Weight of edges in GrabCut."
)
@click.option(
    "--components", type=click.IntRange(1, 64), default=5, show_default=True, help="Gaussians of each model in GrabCut."
)
@click.option("--iterations", type=click.IntRange(1), default=50, show_default=True, help="Of GrabCut, at most.")
@_folder_option("graphcut-out")
@_device_option
@_json_option
@click.pass_context
def segment_graphcut(context: click.Context, image: Path, **options: Any) -> None:
    """Cut an object out of IMAGE.

    Seeds are masks (--fg, --bg) or a picture of scribbles; what is outside of --rect is background as well. The cut
    is that of Boykov and Jolly, the best of all segmentations that agree with the seeds. With --grabcut it is followed
    by those of GrabCut, which needs nothing but --rect, and starts with that where it is given. IMAGE is taken as RGB.

    Writes mask.png (255 on the object) and overlay.png (the rest dark, seeds in orange and blue). Prints the energy,
    which is the flow, and areas; with --grabcut the energy of each iteration.

    Exit code 3 if a file is malformed or does not fit the image, 4 if --device cuda finds no GPU.
    """
    grabcut, rect = options["grabcut"], options["rect"]
    if not (options["scribbles"] or (options["fg"] and (options["bg"] or rect)) or (grabcut and rect)):
        raise click.UsageError("Give seeds: --fg and --bg, or --scribbles; --rect is enough with --grabcut.")
    for name in OF_GRABCUT if not grabcut else OF_CUT if rect else ():
        if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
            why = "needs --grabcut" if not grabcut else "has no effect with --grabcut and --rect"
            raise click.UsageError(f"--{name} {why}.")
    options["connectivity"] = int(options["connectivity"])
    put = _on_device(options["device"])
    from . import _segment, _segment_cut, viz

    viz.require()
    with _data_errors():
        picture = _segment.read_image(image)
        height, width = picture.shape[:2]
        if rect and (rect[0] + rect[2] > width or rect[1] + rect[3] > height):
            asked = ",".join(map(str, rect))
            raise click.UsageError(f"--rect must lie in the image of {width} x {height} pixels, got {asked}.")
        known = _segment_cut.read_seeds((height, width), *(options[name] for name in ("fg", "bg", "scribbles", "rect")))
        with _progress("graphcut", 2 + grabcut * options["iterations"]) as begin:
            run = _segment_cut.graph_cut(picture, known, options, put, begin)
            begin("pictures")
            files = _segment_cut.write_cut(options["out"], picture, known, run)
    object_size, pixels = int(run.labels.sum()), height * width
    converged = not (run.rows and run.rows[-1].changed)
    if options["as_json"]:
        _print_json(
            {
                "image": str(image),
                "height": height,
                "width": width,
                **{name: options[name] for name in ASKED_OF_CUT},
                "seeds": {"foreground": int(known.foreground.sum()), "background": int(known.background.sum())},
                "iterations": [row._asdict() for row in run.rows],
                "converged": converged,
                "energy": run.energy,
                "area": {"foreground": object_size, "background": pixels - object_size},
                "files": list(map(str, files)),
            }
        )
        return
    if run.rows:
        cells = [(str(r.iteration), f"{r.energy:.1f}", f"{r.foreground:.2%}", str(r.changed)) for r in run.rows]
        _table(("iteration", "energy", "foreground", "changed"), cells, right=range(4))
        click.echo("" if converged else f"not converged after {len(run.rows)} iterations\n")
    click.echo(f"energy (flow): {run.energy:.6g}")
    click.echo(f"foreground: {object_size} of {pixels} pixels ({object_size / pixels:.1%})")
    _print_files(files)


@segment_group.command("slic", epilog="Example:  cv3gpu segment slic photo.jpg --segments 400 --out slic-out")
@click.argument("image", type=FILE)
@click.option("--segments", type=click.IntRange(1), default=400, show_default=True, help="How many, about.")
@click.option(
    "--compactness",
    type=float,
    callback=_positive,
    default=10.0,
    show_default=True,
    help="Weight of nearness against colour.",
)
@click.option("--zero", is_flag=True, help="Adapt the compactness to each segment (SLIC-zero).")
@click.option(
    "--sigma",
    type=float,
    callback=_not_negative,
    default=0.0,
    show_default=True,
    help="Width of a Gaussian that smooths IMAGE first, pixels.",
)
@click.option("--iterations", type=click.IntRange(1), default=10, show_default=True, help="Of assignment and update.")
@_folder_option("slic-out")
@_device_option
@_json_option
def segment_slic(image: Path, out: Path, device: str, as_json: bool, **options: Any) -> None:
    """Divide IMAGE into superpixels.

    They are SLIC's: pixels of like colour (in Lab) and place, each segment in one piece. IMAGE is taken as RGB.

    Writes labels.png (16 bits, 8 for up to 256 segments; labels.npy above 65536), boundaries.png and
    mean_colours.png. Prints how many there are and their sizes.

    Exit code 3 if IMAGE is malformed, 4 if --device cuda finds no GPU.
    """
    put = _on_device(device)
    import cv3gpu

    from . import _array, _segment, _segment_slic, viz

    viz.require()
    with _data_errors():
        picture = _segment.read_image(image)
        with _progress("slic", 2) as begin:
            begin("superpixels")
            sizes = (options[name] for name in ("segments", "compactness", "iterations"))
            labels = _array.to_host(cv3gpu.slic(put(picture), *sizes, zero=options["zero"], sigma=options["sigma"]))
            begin("pictures")
            files = _segment_slic.write_superpixels(out, picture, labels)
    pixels = _segment_slic.sizes(labels)
    if as_json:
        size = {"height": picture.shape[0], "width": picture.shape[1]}
        told = {"found": pixels.pop("count"), "pixels": pixels, "files": list(map(str, files))}
        _print_json({"image": str(image), **size, **options, "device": device, **told})
        return
    click.echo(f"segments: {pixels['count']}")
    click.echo(f"pixels: {pixels['least']} to {pixels['most']}, median {pixels['median']}")
    _print_files(files)


class Size(click.ParamType):
    """Rows and columns, ``180x240``."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        """The two numbers."""
        rows, _, columns = str(value).lower().partition("x")
        if not (rows.isdigit() and columns.isdigit() and 0 < int(rows) <= 65536 and 0 < int(columns) <= 65536):
            self.fail(f"{value!r} is not a size: rows x columns, such as 180x240.", param, ctx)
        return int(rows), int(columns)


@segment_group.command("net", epilog="Example:  cv3gpu segment net photo.jpg --weights best.safetensors --crf")
@click.argument("image", type=FILE)
@click.option("--weights", type=FILE, required=True, help="Weights of a network, as 'cv3gpu train seg' writes them.")
@click.option("--model", metavar="NAME", help="The network, where --weights does not say it: unet, deeplabv3, ...")
@click.option("--classes", metavar="A,B,...", help="Names of the classes, where --weights does not say them.")
@click.option("--size", type=Size(), metavar="HxW", help="What the network sees; default: as in training.")
@click.option("--crf", is_flag=True, help="Refine by a dense CRF, whose kernels the next options say.")
@click.option("--iterations", type=click.IntRange(0), default=10, show_default=True, help="Of mean field.")
@_kernel_options(1.0, 3.0, 67.0, 3.0, 4.0)  # usual after DeepLab's networks
@click.option("--probabilities", is_flag=True, help="Write probabilities.npy as well: [L, H, W], float32.")
@_folder_option("net-out")
@_device_option
@_json_option
@click.pass_context
def segment_net(context: click.Context, image: Path, weights: Path, out: Path, **options: Any) -> None:
    """Label IMAGE by a trained network.

    IMAGE is taken as RGB. The probabilities of the classes are enlarged to its size; --crf refines them there.

    Writes labels.png (indexed; the values are the classes), overlay.png and legend.png. Prints for each class its share
    of the pixels, and how probable it is on average where it was chosen.

    Exit code 3 if a file is malformed or the weights do not fit the network, 4 if --device cuda finds no GPU.
    """
    for name in ("iterations", *KERNELS) if not options["crf"] else ():
        if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
            raise click.UsageError(f"--{name.replace('_', '-')} needs --crf.")
    names = options["classes"].split(",") if options["classes"] else None
    if names and len(set(names)) < len(names):
        raise click.UsageError(f"--classes must be different names, got {options['classes']!r}.")
    from . import _segment, _segment_net, viz

    viz.require()
    nets = _segment_net.postprocess()
    if options["device"] == "cuda" and not nets.cuda_is_there():
        click.echo("cv3gpu segment net: --device cuda needs a GPU and a torch for it; see cv3gpu doctor", err=True)
        raise click.exceptions.Exit(NO_GPU)
    with _data_errors(), _progress("net", 3) as begin:
        begin("weights")
        picture = _segment.read_image(image)
        network, config = nets.load_network(weights, options["model"], names)
        begin("labels")
        size = options["size"] or _segment_net.shown_size(picture.shape[:2], config["size"])
        how = {"size": size, "mean": config["mean"], "std": config["std"], "device": options["device"]}
        kernels = {"n_iter": options["iterations"], **{name: options[name] for name in KERNELS}}
        found = nets.predict(network, picture, **how, crf=kernels if options["crf"] else None)
        begin("pictures")
        files = _segment_net.write(out, image.name, picture, found, config, options["probabilities"])
    labels = found.labels if found.refined is None else found.refined
    rows = _segment_net.shares(labels, found.probabilities, config["names"])
    if options["as_json"]:
        used = ("device", "crf", "iterations", *KERNELS) if options["crf"] else ("device", "crf")
        told = {name: options[name] for name in used}
        size_of = {"height": picture.shape[0], "width": picture.shape[1], "shown": list(size)}
        classes = [row._asdict() for row in rows]
        _print_json(
            {"image": str(image), "weights": str(weights), "model": config["model"], **size_of, **told,
             "classes": classes, "files": list(map(str, files))}
        )  # fmt: skip
        return
    cells = [
        (row.name, str(row.pixels), f"{row.share:.1%}", "" if row.confidence is None else f"{row.confidence:.2f}")
        for row in sorted(rows, key=lambda row: -row.pixels)
    ]
    _table(("class", "pixels", "share", "mean probability"), cells, right=range(1, 4))
    click.echo()
    _print_files(files)


# ---- segment: clusters and spectra ----------------------------------------------------------------------


def _number(name: str, default: float, text: str, check: Callable[..., Any] = _positive) -> Callable[..., Any]:
    """An option that takes a number."""
    return click.option(name, type=float, callback=check, default=default, show_default=True, help=text)


def _min_size_option(default: int) -> Callable[..., Any]:
    text = "Pixels of a segment, at least."
    return click.option("--min-size", type=click.IntRange(1), default=default, show_default=True, help=text)


def _seed_option(function: Callable[..., Any]) -> Callable[..., Any]:
    seed = click.IntRange(0, 2**31 - 1)
    return click.option("--seed", type=seed, default=0, show_default=True, help="Of random starts.")(function)


def _affinity_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """How pixels are connected."""
    for option in (
        _number("--sigma-distance", 4.0, "Width of the affinity in place, pixels; not of contours."),
        _number("--sigma-intensity", 0.1, "Width of the affinity in colour, or in edge strength; black to white is 1."),
        _number("--radius", 5.0, "Pixels nearer than that are connected."),
        click.option(
            "--kind",
            type=click.Choice(["colour", "contour"]),
            default="colour",
            show_default=True,
            help="Alike pixels belong together, or those with no edge between them (intervening contours).",
        ),
    ):
        function = option(function)
    return function


def _segment_clusters(name: str, image: Path, options: dict[str, Any]) -> None:
    """Runs one of the four, writes its files, prints what it found."""
    out, as_json = options.pop("out"), options.pop("as_json")
    put = _on_device(options["device"])
    from . import _segment, _segment_cluster, _segment_slic, viz

    viz.require()
    with _data_errors():
        picture = _segment.read_image(image)
        with _progress(name, 2) as begin, _warnings_said():
            begin("segments")
            found = getattr(_segment_cluster, name)(picture, options, put)
            begin("pictures")
            files = _segment_cluster.write(out, image.name, picture, found)
    pixels = _segment_slic.sizes(found.labels)
    if as_json:
        size = {"height": picture.shape[0], "width": picture.shape[1]}
        told = {"found": pixels.pop("count"), "pixels": pixels, **found.facts, "files": list(map(str, files))}
        _print_json({"image": str(image), **size, **options, **told})
        return
    cuts = found.facts.pop("cuts", [])
    if cuts:
        cells = [(str(k + 1), f"{cut['ncut']:.4g}", " | ".join(map(str, cut["sizes"]))) for k, cut in enumerate(cuts)]
        _table(("cut", "ncut", "sizes"), cells, right=range(2))
        click.echo()
    click.echo(f"segments: {pixels['count']}")
    click.echo(f"pixels: {pixels['least']} to {pixels['most']}, median {pixels['median']}")
    for fact, value in found.facts.items():
        shown = ", ".join(f"{v:.3g}" for v in value) if isinstance(value, list) else value
        click.echo(f"{fact}: {f'{shown:.6g}' if isinstance(shown, float) else shown}")
    _print_files(files)


@contextlib.contextmanager
def _warnings_said() -> Iterator[None]:
    """Warnings of the library as plain lines on stderr."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", UserWarning)
        yield
    for text in dict.fromkeys(str(one.message) for one in said):
        click.echo(f"cv3gpu segment: {text}", err=True)


@segment_group.command("kmeans", epilog="Example:  cv3gpu segment kmeans photo.jpg --clusters 8 --out kmeans-out")
@click.argument("image", type=FILE)
@click.option("--clusters", type=click.IntRange(1, 4096), default=8, show_default=True, help="How many.")
@_number("--nearness", 0.2, "Weight of a pixel's distance against a unit of Lab; 0 for colour alone.", _not_negative)
@click.option("--starts", type=click.IntRange(1, 1000), default=3, show_default=True, help="The best of so many runs.")
@_seed_option
@_folder_option("kmeans-out")
@_device_option
@_json_option
def segment_kmeans(image: Path, **options: Any) -> None:
    """Cluster the pixels of IMAGE by colour and place.

    k-means over (L, a, b, row, column), begun by k-means++. A cluster need not be in one piece. IMAGE is taken as RGB.

    Writes labels.png, boundaries.png and mean_colours.png. Prints the inertia and the sizes.

    Exit code 3 if IMAGE is malformed, 4 if --device cuda finds no GPU.
    """
    _segment_clusters("k_means", image, options)


@segment_group.command("meanshift", epilog="Example:  cv3gpu segment meanshift photo.jpg --range 12 --out shifted")
@click.argument("image", type=FILE)
@_number("--spatial", 8.0, "Bandwidth in place, pixels.")
@_number("--range", 16.0, "Bandwidth in colour, units of Lab.")
@_min_size_option(200)
@click.option(
    "--kernel", type=click.Choice(["flat", "gaussian"]), default="flat", show_default=True, help="Weight of neighbours."
)
@_number("--tol", 0.01, "A point has arrived when it moves less, in bandwidths.")
@_folder_option("meanshift-out")
@_device_option
@_json_option
def segment_meanshift(image: Path, **options: Any) -> None:
    """Segment IMAGE by mean shift, without a number of segments.

    Every pixel climbs to a mode of the density of colour and place; pixels side by side whose modes are near form a
    region (Comaniciu and Meer). IMAGE is taken as RGB.

    Writes labels.png, boundaries.png, mean_colours.png and filtered.png. Prints how many regions there are.

    Exit code 3 if IMAGE is malformed, 4 if --device cuda finds no GPU.
    """
    _segment_clusters("mean_shift", image, options)


@segment_group.command("spectral", epilog="Example:  cv3gpu segment spectral photo.jpg --segments 6 --out parts")
@click.argument("image", type=FILE)
@click.option("--segments", type=click.IntRange(1, 1000), help="How many; default: where eigenvalues have a gap.")
@_affinity_options
@click.option(
    "--normalization",
    type=click.Choice(["random_walk", "symmetric"]),
    default="random_walk",
    show_default=True,
    help="Shi and Malik's, or Ng, Jordan and Weiss's.",
)
@click.option(
    "--assign",
    type=click.Choice(["kmeans", "discretize", "cluster_qr"]),
    default="kmeans",
    show_default=True,
    help="How eigenvectors become labels.",
)
@_seed_option
@_folder_option("spectral-out")
@_device_option
@_json_option
def segment_spectral(image: Path, **options: Any) -> None:
    """Segment IMAGE by spectral clustering of its pixels.

    Pixels within --radius are connected by their likeness; the first eigenvectors of the graph's Laplacian are the
    features that are clustered. The first one is the same everywhere, the second sets the two sides of the best cut
    apart. IMAGE is taken as RGB.

    Writes labels.png, boundaries.png, mean_colours.png and eigenvectors.png. Prints the eigenvalues.

    Exit code 3 if IMAGE is malformed, 4 if --device cuda finds no GPU.
    """
    _segment_clusters("spectral", image, options)


@segment_group.command("ncut", epilog="Example:  cv3gpu segment ncut photo.jpg --segments 8 --out ncut-out")
@click.argument("image", type=FILE)
@click.option("--segments", type=click.IntRange(1), help="The most segments; needed with --method kway.")
@click.option(
    "--max-ncut", type=click.FloatRange(0, 2), help="The greatest cut that is made; default 0.04 without --segments."
)
@_min_size_option(50)
@click.option(
    "--method",
    type=click.Choice(["recursive", "kway"]),
    default="recursive",
    show_default=True,
    help="Two parts again and again, or all at once.",
)
@click.option(
    "--superpixels", type=click.IntRange(1), help="Cut the graph of so many superpixels; --min-size then counts these."
)
@_affinity_options
@_seed_option
@_folder_option("ncut-out")
@_device_option
@_json_option
@click.pass_context
def segment_ncut(context: click.Context, image: Path, **options: Any) -> None:
    """Segment IMAGE by normalised cuts.

    Shi and Malik's: a cut is good where little weight crosses it, measured by all the weight that its sides have.
    IMAGE is taken as RGB.

    Writes labels.png, boundaries.png and mean_colours.png, and of pixels eigenvectors.png. Prints the cuts.

    Exit code 3 if IMAGE is malformed, 4 if --device cuda finds no GPU.
    """
    if options["method"] == "kway":
        if options["segments"] is None:
            raise click.UsageError("--method kway needs --segments.")
        if options["max_ncut"] is not None:
            raise click.UsageError("--max-ncut goes with --method recursive.")
    if options["superpixels"]:
        source = context.get_parameter_source
        for name in ("kind", "radius", "sigma_distance"):
            if source(name) is click.core.ParameterSource.COMMANDLINE:
                raise click.UsageError(f"--{name.replace('_', '-')} is of pixels: leave it out with --superpixels.")
        if source("min_size") is not click.core.ParameterSource.COMMANDLINE:
            options["min_size"] = 1
    _segment_clusters("normalized_cut", image, options)


# ---- train ----------------------------------------------------------------------------------------------

NETWORKS = (  # the library's own list, which a test compares
    "deeplabv1",
    "deeplabv2",
    "deeplabv3",
    "deeplabv3plus",
    "fcn16s",
    "fcn32s",
    "fcn8s",
    "fcn_resnet",
    "pspnet",
    "refinenet",
    "segnet",
    "unet",
)
ASKED_OF_TRAINING = ("epochs", "batch", "accumulate", "optimizer", "lr", "weight_decay", "warmup", "seed", "precision")


@main.group("train")
def train_group() -> None:
    """Train networks."""


def _need_torch() -> None:
    if importlib.util.find_spec("torch") is None:
        raise BackendUnavailableError("train: training needs torch; pip install 'cv3gpu[torch]'")


def _torch_device(device: str) -> None:
    """Ends the command with 4 where torch sees no such device."""
    if device == "cuda" and not importlib.import_module("torch").cuda.is_available():
        click.echo("cv3gpu train: --device cuda needs a GPU that torch sees, and there is none", err=True)
        raise click.exceptions.Exit(NO_GPU)


@contextlib.contextmanager
def _usage_errors() -> Iterator[None]:
    """Turns what is wrong with the arguments, and not with the data, into an error of usage."""
    try:
        yield
    except DataFormatError:
        raise
    except (TypeError, ValueError) as error:
        raise click.UsageError(str(error)) from error


def _arguments(context: click.Context, parameter: click.Parameter, given: tuple[str, ...]) -> dict[str, Any]:
    """``NAME=VALUE`` as a mapping; a value that is no JSON is a word."""
    found = {}
    for one in given:
        name, equals, value = one.partition("=")
        if not equals or not name.isidentifier():
            raise click.BadParameter(f"{one!r} is not NAME=VALUE.")
        try:
            found[name] = json.loads(value)
        except json.JSONDecodeError:
            found[name] = value
    return found


@train_group.command(
    "seg", epilog="Example:  cv3gpu train seg --data CamVid.zip --ignore 11 --model unet --width 16 --out unet-out"
)
@click.option(
    "--data", required=True, type=click.Path(exists=True, path_type=Path), help="Folder or zip file in CamVid's layout."
)
@click.option("--model", type=click.Choice(NETWORKS), default="unet", show_default=True, help="The network.")
@click.option("--width", type=click.IntRange(4), help="Channels of its first layer; default: the published width.")
@click.option(
    "--argument",
    "arguments",
    multiple=True,
    callback=_arguments,
    metavar="NAME=VALUE",
    help="Another argument of the network, such as output_stride=8; may be given several times.",
)
@click.option("--size", type=Size(), default="180x240", show_default=True, metavar="HxW", help="Images are resized to.")
@click.option("--classes", type=click.IntRange(1, 256), help="How many; default: those of the training labels.")
@click.option("--ignore", type=click.IntRange(0, 255), default=255, show_default=True, help="Label that is no class.")
@click.option("--names", metavar="A,B,...", help="Names of the classes, between commas.")
@click.option("--epochs", type=click.IntRange(1), default=60, show_default=True, help="How often each image is shown.")
@click.option("--batch", type=click.IntRange(1), default=8, show_default=True, help="Images at a time.")
@click.option("--accumulate", type=click.IntRange(1), default=1, show_default=True, help="Batches of a step.")
@click.option("--optimizer", type=click.Choice(["sgd", "adam"]), default="sgd", show_default=True, help="The steps.")
@_number("--lr", 0.05, "Learning rate at its highest; it falls to 0 by the poly schedule.")
@_number("--weight-decay", 5e-4, "Of weights, not of biases and norms.", _not_negative)
@click.option("--warmup", type=click.IntRange(0), default=20, show_default=True, help="Steps in which the rate rises.")
@click.option("--class-weights", is_flag=True, help="Weigh classes in the loss by median frequency.")
@click.option(
    "--precision",
    type=click.Choice(["float32", "bfloat16", "float16"]),
    default="float32",
    show_default=True,
    help="Of autocast; float16 on a GPU only.",
)
@click.option(
    "--batch-norm",
    type=click.Choice(["local", "frozen", "sync"]),
    default="local",
    show_default=True,
    help="Statistics of a process's batch, the running ones, or those of all processes (GPUs).",
)
@click.option(
    "--backend",
    type=click.Choice(["cv3gpu", "torch"]),
    default="cv3gpu",
    show_default=True,
    help="Our kernels, or torch's own, to compare.",
)
@click.option("--init-from", type=FILE, help="Weights to begin with, by name: FCN-32s's for FCN-16s.")
@click.option("--resume", is_flag=True, help="Go on with the training in --out, if there is one.")
@_seed_option
@click.option("--workers", type=click.IntRange(0), default=0, show_default=True, help="Processes that read images.")
@_folder_option("train-out")
@_device_option
@_json_option
def train_seg(data: Path, out: Path, **options: Any) -> None:
    """Train a segmentation network.

    DATA holds folders train, val and test of images, and trainannot, valannot and testannot of label pictures of the
    same names. Writes best.safetensors (weights of the epoch with the best mIoU on val; `cv3gpu segment net` reads
    them), last.safetensors, metrics.csv, curves.png and state.pt. Prints the figures of each epoch and, where there is
    a folder test, those of the best weights on it, at the size of its labels.

    Ctrl-C saves the state; --resume goes on from it, with the same bits on a CPU with one thread. Several processes
    start with torchrun: torchrun --nproc-per-node 2 -m cv3gpu train seg ...

    Exit code 1 if the loss is no longer finite or the training was stopped, 3 if a file is malformed, 4 if --device
    cuda finds no GPU.
    """
    _need_torch()
    from . import viz
    from .nn import _training, segmentation_data, train_seg

    viz.require()
    _torch_device(options["device"])
    arguments = options["arguments"] | ({"base_channels": options["width"]} if options["width"] else {})
    names = [name.strip() for name in options["names"].split(",")] if options["names"] else None
    recipe = train_seg.Recipe(
        model=options["model"],
        arguments=arguments,
        size=options["size"],
        num_classes=options["classes"],
        ignore_index=options["ignore"],
        names=names,
        class_weights=options["class_weights"],
        batch_norm=options["batch_norm"],
        backend=options["backend"],
        **{name: options[name] for name in ASKED_OF_TRAINING},
    )
    where = {name: options[name] for name in ("init_from", "resume", "device", "workers")}
    try:
        with _data_errors(), _usage_errors(), _progress("train", recipe.epochs) as begin:
            result = train_seg.train(data, out, recipe, begin=begin, **where)
            scores, first = None, os.environ.get("RANK", "0") == "0"
            if first and segmentation_data.opened(data).names("test"):
                choices: dict[str, Any] = {"backend": recipe.backend, "batch": recipe.batch}
                scores, _ = train_seg.score(data, result.weights, device=options["device"], **choices)
    except (_training.Interrupted, _training.DivergedError) as error:
        _fail(error, FAILURE)
    if not first:
        return
    panels = {"loss": ["loss"], "validation": ["mIoU", "pixel_accuracy", "class_accuracy"], "learning rate": ["lr"]}
    viz.save(viz.curves_figure(result.rows, panels, title=recipe.model), out / "curves.png")
    files = [out / name for name in ("best.safetensors", "last.safetensors", "metrics.csv", "curves.png", "state.pt")]
    if options["as_json"]:
        told = {"best_epoch": result.best_epoch, "taken": len(result.taken), "rows": _plain(result.rows)}
        test = None if scores is None else _plain(scores._asdict())
        _print_json({"settings": recipe.settings(), **told, "test": test, "files": list(map(str, files))})
        return
    cells = [[f"{v:.4g}" if isinstance(v, float) else str(v) for v in row.values()] for row in result.rows]
    _table(list(result.rows[0]), cells, right=range(len(result.rows[0])))
    click.echo(f"\nbest epoch: {result.best_epoch}")
    if scores is not None:
        of_all = f"mIoU {scores.mean_iou:.4f}, pixels {scores.pixel_accuracy:.4f}, classes {scores.class_accuracy:.4f}"
        click.echo(f"test: {of_all}")
    _print_files(files)


@train_group.command("mpn", epilog="Example:  cv3gpu train mpn --data MOT17/train --part first --out mpn-out")
@click.option(
    "--data", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path), help="Folder of sequences."
)
@click.option(
    "--part",
    type=click.Choice(["all", "first", "second"]),
    default="all",
    show_default=True,
    help="Frames to learn from: all, or one half of each sequence.",
)
@click.option("--detections", metavar="NAME", help="Name of the file in det; default: the only one.")
@click.option("--copies", type=click.IntRange(0), default=14, show_default=True, help="Changed copies of each one.")
@click.option(
    "--epochs", type=click.IntRange(1), multiple=True, help="For all levels, or given once for each of the three."
)
@click.option("--batch", type=click.IntRange(1), default=6000, show_default=True, help="Links at a time, at least.")
@_number("--lr", 2e-3, "Learning rate at its highest.")
@_number("--pos-weight", 3.0, "Weight of links that hold.")
@_number("--focal", 0.0, "Exponent of the focal loss; 0 for cross-entropy.", _not_negative)
@click.option("--resume", is_flag=True, help="Go on with the training in --out, if there is one.")
@_seed_option
@_folder_option("train-out")
@_json_option
def train_mpn(data: Path, out: Path, epochs: tuple[int, ...], **options: Any) -> None:
    """Train the neural solver for tracking.

    DATA holds sequences as MOTChallenge has them: <seq>/gt/gt.txt, detections in <seq>/det/*.txt (without them the
    boxes of the ground truth are learned from), and the motion of the camera in <seq>/gmc.txt where it is known.
    Writes model.safetensors, which `cv3gpu track --weights` reads, curves.csv, curves.png and state.pt. Prints loss,
    precision and recall of each level's last epoch.

    Ctrl-C saves the state; --resume goes on from it.

    Exit code 1 if the loss is no longer finite or the training was stopped, 3 if a file is malformed.
    """
    _need_torch()
    from . import viz
    from .nn import _training, train_mpn

    viz.require()
    as_json = options.pop("as_json")
    if epochs:
        options["epochs"] = epochs[0] if len(epochs) == 1 else epochs
    try:
        with _data_errors(), _usage_errors(), _progress("train", train_mpn.total_epochs(epochs)) as begin:
            result = train_mpn.train(data, out, progress=begin, **options)
    except (_training.Interrupted, _training.DivergedError) as error:
        _fail(error, FAILURE)
    rows = [{"step": number + 1, **row} for number, row in enumerate(result.curves)]
    panels = {"loss": ["loss"], "links": ["precision", "recall"]}
    viz.save(viz.curves_figure(rows, panels, x="step", title="epochs of all levels"), out / "curves.png")
    files = [out / name for name in ("model.safetensors", "curves.csv", "curves.png", "state.pt")]
    if as_json:
        _print_json({"rows": _plain(rows), "files": list(map(str, files))})
        return
    last = list({row["level"]: row for row in result.curves}.values())
    cells = [[f"{v:.4g}" if isinstance(v, float) else str(v) for v in row.values()] for row in last]
    _table(list(last[0]), cells, right=range(len(last[0])))
    _print_files(files)


def _plain(value: Any) -> Any:
    """For JSON, which has no NaN: what is not finite is null."""
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
