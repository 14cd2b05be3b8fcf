"""The shell commands, thin: each reads its arguments, calls the library and prints.

Exit codes: 0 ok, 1 failure, 2 usage, 3 bad data, 4 no GPU where one was required. With ``--json`` a command
prints one JSON document to standard output and nothing else; progress and errors go to standard error.
"""

from __future__ import annotations

import click

from .. import __version__
from . import clusters, mot, segment, system, track, train
from ._shared import Commands

__all__ = ["main"]


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Example:  cv3gpu demo --out demo-out",
)
@click.version_option(__version__, prog_name="cv3gpu")
def main() -> None:
    """GPU kernels for image segmentation and multi-object tracking, with fast CPU paths."""


for command in (
    system.bench,
    system.demo,
    system.doctor,
    system.kernels_group,
    mot.mot_group,
    segment.segment_group,
    track.track,
    train.train_group,
):
    main.add_command(command)
for command in (
    clusters.segment_kmeans,
    clusters.segment_meanshift,
    clusters.segment_ncut,
    clusters.segment_spectral,
):
    segment.segment_group.add_command(command)
