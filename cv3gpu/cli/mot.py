"""``cv3gpu mot``: the evaluation of multi-object trackers."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click

from ._shared import (
    FORMATS,
    data_errors,
    html_option,
    json_option,
    output_option,
    print_files,
    print_json,
    print_table,
    progress,
)

__all__ = ["BENCHMARKS", "METRICS", "SWITCHES", "mot_compare", "mot_eval", "mot_group"]

# The library's own lists, which a test compares: --help imports neither NumPy nor the metrics.
METRICS = ("hota", "clear", "identity", "vace", "count")
BENCHMARKS = ("MOT15", "MOT16", "MOT17", "MOT20", "KITTI", "DETRAC")
SWITCHES = 20  # identity switches that are printed; the file has all


@click.group("mot", epilog="Example:  cv3gpu mot eval MOT17/train results/MyTracker --benchmark MOT17")
def mot_group() -> None:
    """Evaluate multi-object trackers."""


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
        output_option("--csv", "csv_file", help="Write all figures to this file, in a folder that exists."),
        output_option(
            "--plot", "pictures", folder=True, help="Draw pictures into this folder, which is made in one that exists."
        ),
        html_option,
        json_option,
    )
    for option in reversed(options):
        function = option(function)
    return function


@mot_group.command("eval", epilog="Example:  cv3gpu mot eval MOT17/train results/MyTracker --benchmark MOT17")
@click.argument("gt", type=click.Path(exists=True))
@click.argument("pred", type=click.Path(exists=True))
@_evaluation_options
@output_option(
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
    from .. import mot

    asked, out = _split(options)
    logs = {}
    with data_errors():
        n = len(mot.sequences.find(gt, "gt", asked["format"]))
        with progress("evaluate", n) as begin:
            report = mot.evaluate(gt, pred, progress=begin, **asked)
        if events_file or out.pictures or out.html:
            with progress("events", n) as begin:
                logs = mot.event_logs(gt, pred, asked["benchmark"], format=asked["format"], progress=begin)
    if events_file:
        mot.logs_to_csv(logs, events_file)
    drawn = [*_draw_curves(out.pictures, {pred: report}), *_draw_logs(out.pictures, logs)] if out.pictures else []
    if out.html:
        from .. import _pages

        _pages.evaluation(f"{os.path.basename(pred)} against {os.path.basename(gt)}", report, logs).save(out.html)
    _give(report, out, drawn, events_file, logs)


@mot_group.command("compare", epilog="Example:  cv3gpu mot compare MOT17/train results/A results/B --benchmark MOT17")
@click.argument("gt", type=click.Path(exists=True))
@click.argument("preds", type=click.Path(exists=True), nargs=-1, required=True, metavar="PRED...")
@_evaluation_options
def mot_compare(gt: str, preds: tuple[str, ...], **options: Any) -> None:
    """Score several trackers side by side.

    Each PRED is as for `mot eval`; it is named by its file or folder. Prints a line for each, over all sequences,
    ratios in percent, with * behind the best of a column.
    """
    from .. import mot

    trackers = _named(preds)
    if len(trackers) < len(preds):
        raise click.UsageError(f"PRED must be different files or folders, got {', '.join(preds)}")
    asked, out = _split(options)
    with data_errors():
        n = len(mot.sequences.find(gt, "gt", asked["format"]))
        with progress("evaluate", n) as begin:
            comparison = mot.compare(gt, trackers, progress=begin, **asked)
    if out.html:
        from .. import _pages

        _pages.comparison(f"{len(trackers)} trackers on {os.path.basename(gt)}", comparison).save(out.html)
    _give(comparison, out, _draw_curves(out.pictures, comparison.reports) if out.pictures else [])


class _Out(NamedTuple):
    """Where the result goes."""

    csv_file: Path | None
    pictures: Path | None
    html: Path | None
    as_json: bool


def _split(options: dict[str, Any]) -> tuple[dict[str, Any], _Out]:
    """What the library is asked for, and what becomes of its answer."""
    out = _Out(*(options.pop(name) for name in _Out._fields))
    return options, out


def _named(paths: Sequence[str]) -> dict[str, str]:
    """Paths by the names of their files or folders, or by themselves where these are not unique."""
    names = [Path(os.path.abspath(path)).stem for path in paths]
    return {name if names.count(name) == 1 else path: path for name, path in zip(names, paths, strict=True)}


def _give(
    found: Any, out: _Out, drawn: Sequence[Path], events_file: Path | None = None, logs: Mapping[str, Any] | None = None
) -> None:
    """Writes the table of a report or a comparison and prints it, with switches if events were written, and files."""
    if out.csv_file:
        found.to_csv(out.csv_file)
    if out.as_json:
        print_json(found.to_dict())
        return
    click.echo(found.table())
    if events_file:
        _print_switches(logs or {})
    if files := [path for path in (out.csv_file, events_file, *drawn, out.html) if path]:
        click.echo()
        print_files(files)


def _print_switches(logs: Mapping[str, Any]) -> None:
    rows = []
    for sequence, classes in logs.items():
        for log in classes.values():
            switches = log.of("switch")
            columns = (switches.frame, switches.gt, switches.previous, switches.pred, switches.since)
            rows += [(sequence, *map(str, row)) for row in zip(*(c.tolist() for c in columns), strict=True)]
    click.echo(f"\nidentity switches: {len(rows)}")
    if rows:
        header = ("sequence", "frame", "identity", "followed by", "now by", "last in frame")
        print_table(header, rows[:SWITCHES], right=range(1, 6))
    if len(rows) > SWITCHES:
        click.echo(f"and {len(rows) - SWITCHES} more")


def _draw(folder: Path, name: str, figure: Any) -> Path:
    from .. import viz

    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.png"
    viz.save(figure, path)
    return path


def _draw_curves(folder: Path, reports: dict[str, Any]) -> list[Path]:
    """HOTA's curves, a picture for each class."""
    from .. import viz

    drawn = []
    for class_name, figures in next(iter(reports.values())).combined.items():
        if "HOTA" in figures:
            combined = {tracker: report.combined[class_name] for tracker, report in reports.items()}
            drawn.append(_draw(folder, f"alpha-{class_name}", viz.alpha_figure(combined, title=class_name)))
    return drawn


def _draw_logs(folder: Path, logs: dict[str, Any]) -> list[Path]:
    """Who followed whom, a picture for each sequence and class that has ground truth."""
    from .. import viz

    return [
        _draw(folder, f"identities-{sequence}-{name}", viz.identities_figure(log, title=f"{sequence}, {name}"))
        for sequence, classes in logs.items()
        for name, log in classes.items()
        if (log.gt >= 0).any()
    ]
