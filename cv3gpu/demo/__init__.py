"""The main job on real input: every operator on a photograph and on real tracks, checked and timed.

An entry is a function of the folder for its pictures that returns rows. What an operator returns is always compared
with a reference that shares no code with it.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from ..errors import BackendUnavailableError
from . import clusters, dense, energies, tracking
from ._checks import Device, Distance, Row, compare, devices

__all__ = ["ENTRIES", "Device", "Distance", "Entry", "Result", "Row", "compare", "devices", "run"]


class Entry(NamedTuple):
    """A part of the demo; ``family`` is what ``cv3gpu demo --only`` picks."""

    name: str
    family: str
    function: Callable[[Path], list[Row]]


ENTRIES = [
    Entry("dilated convolution", "conv", dense.convolution),
    Entry("bilinear resize", "resize", dense.resize),
    Entry("dense CRF", "crf", energies.crf),
    Entry("Gaussian filter", "crf", energies.filtering),
    Entry("graph cut", "graphcut", energies.cuts),
    Entry("GrabCut", "graphcut", energies.grab_cut),
    Entry("superpixels", "superpixel", clusters.superpixels),
    Entry("box overlaps", "boxes", tracking.overlaps),
    Entry("batched assignment", "assignment", tracking.assignments),
    Entry("tracking metrics", "mot", tracking.metrics),
    Entry("tracking evaluation", "mot", tracking.evaluation),
    Entry("k-means", "cluster", clusters.k_means),
    Entry("mean shift", "cluster", clusters.mean_shift),
    Entry("spectral clustering", "spectral", clusters.spectral),
    Entry("eigenvectors and normalised cuts", "spectral", clusters.normalized_cuts),
    Entry("neural tracking", "mot", tracking.neural_tracking),
]


class Result(NamedTuple):
    """What :func:`run` did."""

    rows: list[Row]
    pictures: list[Path]

    @property
    def ok(self) -> bool:
        """Whether everything agreed."""
        return all(row.ok for row in self.rows)


def run(
    out: str | os.PathLike[str],
    entries: Sequence[Entry] | None = None,
    begin: Callable[[str], None] = lambda name: None,
) -> Result:
    """Runs entries of the demo.

    Parameters
    ----------
    out : path of a folder
        For the pictures, made where it is missing; a picture of the same name is replaced.
    entries : sequence of Entry, optional
        What is run, by default `ENTRIES`.
    begin : callable, optional
        Is called with the name of each entry as it begins.

    Returns
    -------
    Result
        ``rows``, ``pictures``, ``ok``. An entry that raises gives one row that is not ok.

    Raises
    ------
    BackendUnavailableError
        If scikit-image, motmetrics or matplotlib is missing; no picture was written.
    """
    target = Path(out)
    target.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix=".demo-", dir=target) as name:
        unfinished = Path(name)
        for entry in ENTRIES if entries is None else entries:
            begin(entry.name)
            try:
                rows += entry.function(unfinished)
            except BackendUnavailableError:
                raise
            except Exception as error:
                rows.append(Row(entry.name, "", "", 0.0, f"{type(error).__name__}: {error}", None, 0.0, False))
        pictures = []
        for path in sorted(unfinished.iterdir()):
            os.replace(path, target / path.name)
            pictures.append(target / path.name)
    return Result(rows, pictures)
