"""``cv3gpu track``: detections in, tracks out."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

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
    writable,
)

__all__ = ["track"]


@click.command("track", epilog="Example:  cv3gpu track MOT17/train --method byte --out tracks")
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
    "--format",
    type=click.Choice(FORMATS),
    default="motchallenge",
    show_default=True,
    help="Format of the tracks; kitti needs classes.",
)
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    callback=writable,
    help="File for the tracks of one sequence, or folder for <seq>.txt; in a folder that exists.",
)
@output_option("--gif", help="Draw the tracks of one sequence into this animated GIF.")
@html_option
@json_option
def track(detections: Path, out: Path, gif: Path | None, html: Path | None, as_json: bool, **options: Any) -> None:
    """Link DETECTIONS over the frames: boxes in, tracks out.

    DETECTIONS is a file in MOTChallenge's or KITTI's format, a folder with det/det.txt (or one other .txt file in det),
    or one with such folders or with files <seq>.txt. Boxes may be of anything; classes are tracked separately. The
    frame rate comes from seqinfo.ini beside det, else it is 30. --method mpn goes by the motion of the camera, where
    there is a gmc.txt beside det.

    Prints a line for each sequence, with the tracker's frames per second; for --method mpn also the share of the
    constraints (at most one link into a detection and one out of it) that its scores satisfy before rounding.

    --gif and --html draw on the pictures of img1 beside det, 000001.jpg and so on, where they are there, else on a
    white ground; they need Pillow.

    Exit code 3 if a file is malformed or there are no sequences, or no track to draw.
    """
    from .. import _pages, _track

    method = options.pop("method")
    if options["weights"] is not None and method != "mpn":
        raise click.UsageError("--weights goes with --method mpn alone.")
    if options["score"] is not None and not math.isfinite(options["score"]):
        raise click.UsageError(f"--score must be finite, got {options['score']}.")
    with data_errors():
        sequences = _track.find(detections)
        if len(sequences) > 1 and out.is_file():
            raise click.UsageError(f"--out must be a folder for {len(sequences)} sequences, {str(out)!r} is a file.")
        if gif is not None and len(sequences) > 1:
            raise click.UsageError(f"--gif goes with one sequence, got {len(sequences)}.")
        if gif is not None or html is not None:
            _track.can_animate()
        with progress("track", len(sequences)) as begin:
            done = _track.track(sequences, method, out, progress=begin, **options)
        if gif is not None:
            _track.animate(sequences[0], done[sequences[0].name].file, gif)
        if html is not None:
            _pages.tracks(sequences, done, method).save(html)
    if as_json:
        told = {name: {**found._asdict(), "file": str(found.file), "fps": found.fps} for name, found in done.items()}
        drawn = {name: str(path) for name, path in (("gif", gif), ("html", html)) if path is not None}
        print_json({"method": method, "sequences": told, **drawn})
        return
    header = ["sequence", "frames", "detections", "tracks", "boxes", "fps"]
    rows = [
        [name, str(found.frames), str(found.detections), str(found.tracks), str(found.boxes), f"{found.fps:.0f}"]
        for name, found in done.items()
    ]
    if method == "mpn":
        header.append("constraints")
        rows = [[*row, f"{100 * (found.satisfied or 0):.2f} %"] for row, found in zip(rows, done.values(), strict=True)]
    print_table(header, rows, right=range(1, len(header)))
    print_files([*(found.file for found in done.values()), *(path for path in (gif, html) if path is not None)])
