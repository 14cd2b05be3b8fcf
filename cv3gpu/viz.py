"""Pictures: labelled grids of images, tracks over time, metrics. matplotlib, loaded when a picture is made.

The functions return matplotlib figures that belong to no window; :func:`save` writes one. Colours are those
of Okabe and Ito, which people with any colour vision tell apart.
"""

from __future__ import annotations

import importlib
import itertools
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from . import _files
from .errors import BackendUnavailableError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .mot import Events, Matches, Tracks

__all__ = ["COLOURS", "alpha_figure", "identities_figure", "image_grid", "save", "tracks_figure"]

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#8C6D1F", "#7F7F7F")
MATCHED, MISSED, FALSE = "#0072B2", "#D9D9D9", "#E69F00"
DPI = 130


def _figure(width: float, height: float) -> Figure:
    try:
        figure = importlib.import_module("matplotlib.figure").Figure
    except ImportError as error:
        raise BackendUnavailableError(f"viz: pictures need matplotlib ({error}); pip install 'cv3gpu[viz]'") from error
    return figure(figsize=(width, height), dpi=DPI, layout="constrained")


def save(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Writes a figure; the format goes by the suffix, and the file appears whole or not at all."""
    with _files.replacing(path) as unfinished:
        figure.savefig(unfinished, bbox_inches="tight", pad_inches=0.08)


def image_grid(
    images: Sequence[Sequence[np.ndarray]],
    *,
    columns: Sequence[str],
    rows: Sequence[str] | None = None,
    title: str = "",
    signed: Sequence[str] = (),
    size: float = 2.6,
) -> Figure:
    """A sheet of labelled images.

    Parameters
    ----------
    images : rows of arrays, [H, W] or [H, W, 3]
        Grey images are stretched from 0 to their 99.5th percentile; RGB is shown as it is, 0–1.
    columns, rows : labels above the first row and left of the first column
    title : text above the sheet
    signed : the columns whose grey images have both signs: blue below, white at, red above zero
    size : width of one image, inches

    Returns
    -------
    matplotlib.figure.Figure
    """
    height, width = np.shape(images[0][0])[:2]
    figure = _figure(size * len(columns) + 0.5, size * height / width * len(images) + 0.35 + 0.4 * bool(title))
    axes = figure.subplots(len(images), len(columns), squeeze=False)
    if title:
        figure.suptitle(title, fontsize=12)
    for c, label in enumerate(columns):
        for r, row in enumerate(images):
            image, axis = row[c], axes[r][c]
            top = float(np.percentile(np.abs(image), 99.5))
            if image.ndim == 3:
                axis.imshow(np.clip(image, 0, 1), interpolation="nearest")
            elif label in signed:
                axis.imshow(image, cmap="RdBu_r", vmin=-top, vmax=top, interpolation="antialiased")
            else:
                axis.imshow(image, cmap="gray", vmin=0, vmax=top, interpolation="antialiased")
            axis.set(xticks=[], yticks=[])
            if r == 0:
                axis.set_title(label, fontsize=10)
            if c == 0 and rows:
                axis.set_ylabel(rows[r], fontsize=10)
    return figure


def _broken(frame: np.ndarray, value: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A line's points with a NaN wherever a frame is missing, so that it is not drawn through."""
    order = np.argsort(frame, kind="stable")
    frame, value = frame[order].astype(float), value[order]
    gaps = np.flatnonzero(np.diff(frame) > 1) + 1
    return np.insert(frame, gaps, np.nan), np.insert(value, gaps, np.nan)


def _draw_tracks(axis: Any, gt: Tracks, pred: Tracks, matches: Matches) -> None:
    def centre(tracks: Tracks) -> np.ndarray:
        return tracks.box[:, 0] + tracks.box[:, 2] / 2

    gt_x, pred_x = centre(gt), centre(pred)
    for n, identity in enumerate(np.unique(gt.id)):
        own = gt.id == identity
        axis.plot(
            *_broken(gt.frame[own], gt_x[own]),
            color="#CFCFCF",
            lw=5,
            solid_capstyle="round",
            label="ground truth" if n == 0 else None,
        )
    for n, identity in enumerate(np.unique(pred.id)):
        own = pred.id == identity
        axis.plot(
            *_broken(pred.frame[own], pred_x[own]),
            color=COLOURS[n % len(COLOURS)],
            lw=1.6,
            label="prediction, a colour for each identity" if n == 0 else None,
        )
    false = np.ones(len(pred), bool)
    false[matches.pred] = False
    axis.plot(pred.frame[false], pred_x[false], "x", color="black", ms=4, mew=0.9, label="unmatched prediction")
    switched = matches.pred[matches.switched]
    axis.plot(
        pred.frame[switched],
        pred_x[switched],
        "o",
        color="black",
        ms=9,
        mfc="none",
        mew=1.6,
        label="identity switch",
    )


def _draw_counts(axis: Any, gt: Tracks, pred: Tracks, matches: Matches) -> None:
    frames = np.arange(min(gt.frame.min(), pred.frame.min()), max(gt.frame.max(), pred.frame.max()) + 1)

    def per_frame(frame: np.ndarray) -> np.ndarray:
        return np.bincount(frame - frames[0], minlength=frames.size)

    hits, wanted, given = per_frame(gt.frame[matches.gt]), per_frame(gt.frame), per_frame(pred.frame)
    bottom = np.zeros(frames.size, int)
    parts = (
        ("matched", hits, MATCHED),
        ("missed", wanted - hits, MISSED),
        ("false positive", given - hits, FALSE),
    )
    for label, count, colour in parts:
        axis.bar(frames, count, 1.0, bottom=bottom, color=colour, label=label)
        bottom = bottom + count
    axis.yaxis.get_major_locator().set_params(integer=True)


def tracks_figure(sequences: Sequence[tuple[str, Tracks, Tracks, Matches]], *, title: str = "") -> Figure:
    """Trajectories over time with identity switches marked, and what was matched in each frame.

    Parameters
    ----------
    sequences : of (label, gt, pred, matches), one column each
        ``matches`` as :func:`cv3gpu.mot.match` gives them.
    title : text above the figure

    Returns
    -------
    matplotlib.figure.Figure
        Above, the horizontal centre of each box against the frame; below, boxes of each frame.
    """
    figure = _figure(6.6 * len(sequences), 7.6)
    axes = figure.subplots(2, len(sequences), squeeze=False, sharex="col", height_ratios=(3, 1))
    if title:
        figure.suptitle(title, fontsize=13)
    for c, (label, gt, pred, matches) in enumerate(sequences):
        tracks, counts = axes[0][c], axes[1][c]
        _draw_tracks(tracks, gt, pred, matches)
        _draw_counts(counts, gt, pred, matches)
        tracks.set_title(label, fontsize=11)
        counts.set_xlabel("frame")
        counts.margins(x=0.01)
        if c == 0:
            tracks.set_ylabel("horizontal centre of the box, pixels")
            counts.set_ylabel("boxes")
    both = [axis.get_legend_handles_labels() for axis in axes[:, 0]]
    handles, labels = (list(itertools.chain(*part)) for part in zip(*both, strict=True))
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False, fontsize=9)
    return figure


# ---- evaluation -----------------------------------------------------------------------------------------

CURVES = {
    "HOTA": "HOTA: both together",
    "DetA": "DetA: detection",
    "AssA": "AssA: association",
    "LocA": "LocA: localisation",
}


def alpha_figure(figures: Mapping[str, Mapping[str, Any]], *, title: str = "") -> Figure:
    """HOTA and its parts against the localisation threshold α.

    Parameters
    ----------
    figures : mapping of tracker to its figures, as ``Report.combined[class]``
        With one tracker all curves share one picture, else each has its own with a line for each tracker.
    title : text above the figure

    Returns
    -------
    matplotlib.figure.Figure
    """
    if len(figures) == 1:
        ((_, only),) = figures.items()
        figure = _figure(6.4, 4.6)
        panels: list[Any] = [(figure.subplots(), "", {name: (name, only) for name in CURVES})]
    else:
        figure = _figure(9.6, 7.6)
        axes = figure.subplots(2, 2, sharex=True).flat
        lines = {name: {tracker: (name, values) for tracker, values in figures.items()} for name in CURVES}
        panels = [(axis, CURVES[name], lines[name]) for axis, name in zip(axes, CURVES, strict=True)]
    for axis, heading, curves in panels:
        for n, (label, (name, values)) in enumerate(curves.items()):
            curve = np.asarray(values[f"{name}_alpha"])
            alpha = 0.05 * np.arange(1, curve.size + 1)
            colour = COLOURS[n % len(COLOURS)]
            axis.plot(alpha, curve, "o-", color=colour, ms=3.5, lw=1.6, label=f"{label}  {100 * values[name]:.1f}")
        axis.set(title=heading, xlim=(0, 1), ylim=(0, 1.02))
        axis.title.set_fontsize(11)
        axis.grid(color="#E5E5E5", lw=0.6)
        axis.legend(frameon=False, fontsize=9, title="mean over α, %", title_fontsize=8)
        if axis.get_subplotspec().is_last_row():
            axis.set_xlabel("localisation threshold α")
    if title:
        figure.suptitle(title, fontsize=13)
    return figure


def _runs(events: Events) -> Events:
    """The first of the matches and misses of each ground-truth identity that have one fate; ``since`` is the last."""
    boxes = events.of("match", "miss")
    order = np.lexsort((boxes.frame, boxes.gt))
    frame, gt, pred = boxes.frame[order], boxes.gt[order], boxes.pred[order]
    begins = (np.diff(gt) != 0) | (np.diff(pred) != 0) | (np.diff(frame) > 1)
    first = np.flatnonzero(np.append(True, begins)) if frame.size else np.empty(0, int)
    last = np.append(first[1:], frame.size)[: first.size] - 1
    return type(events)(*(column[order][first] for column in boxes))._replace(since=frame[last])


def _colours(runs: Events) -> list[str]:
    """A colour for each run; another one than the run's before, unless its prediction has that one already."""
    wheel = itertools.cycle(COLOURS[:-1])  # without grey
    known: dict[int, str] = {}
    found: list[str] = []
    last: dict[int, str] = {}
    for gt, pred in zip(runs.gt.tolist(), runs.pred.tolist(), strict=True):
        if pred >= 0:
            if pred not in known:
                known[pred] = next(colour for colour in wheel if colour != last.get(gt))
            last[gt] = known[pred]
        found.append(known.get(pred, MISSED))
    return found


def identities_figure(events: Events, *, title: str = "", most: int = 60) -> Figure:
    """Who followed whom: a bar for each ground-truth identity over time, with a colour for each predicted one.

    Parameters
    ----------
    events : Events, as :func:`cv3gpu.mot.events` gives them
    title : text above the figure
    most : how many identities are shown: those with the most switches and fragmentations

    Returns
    -------
    matplotlib.figure.Figure
        Identities in the order in which they appear, from the top; thin where they are missed.
    """
    runs = _runs(events)
    known, first = np.unique(runs.gt, return_index=True)
    marked = np.isin(events.kind, ["switch", "fragmentation"])
    trouble = (events.gt[marked] == known[:, None]).sum(axis=1)
    shown = np.sort(np.argsort(-trouble, kind="stable")[:most])
    shown = shown[np.argsort(runs.frame[first[shown]], kind="stable")]
    place = {identity: at for at, identity in enumerate(known[shown].tolist())}
    figure = _figure(11, max(2.6, 1.4 + 0.2 * shown.size))
    axis = figure.subplots()
    colours, length = np.array(_colours(runs)), runs.since - runs.frame + 1
    for identity, at in place.items():
        for missed, height in ((True, 0.22), (False, 0.72)):
            own = (runs.gt == identity) & ((runs.pred < 0) == missed)
            spans = list(zip(runs.frame[own] - 0.5, length[own], strict=True))
            axis.broken_barh(spans, (at - height / 2, height), facecolors=colours[own], lw=0)
    marks = (("switch", "v", "identity switch", "black", 0.3), ("fragmentation", "o", "tracked again", "white", 0.0))
    for kind, marker, label, face, above in marks:
        at_place = [(f - 0.5, place[i] - above) for f, i in zip(*_listed(events.of(kind)), strict=True) if i in place]
        x, y = zip(*at_place, strict=True) if at_place else ((), ())
        axis.plot(x, y, marker, color="black", mfc=face, ms=5, mew=1.1, ls="", label=label)
    axis.plot([], [], "-", color=MISSED, lw=2.5, label="missed")
    predictions = np.unique(runs.pred[runs.pred >= 0]).size
    axis.plot([], [], "s", color=COLOURS[0], ms=8, label=f"matched, a colour for each of {predictions} predictions")
    axis.set(xlabel="frame", ylabel="ground-truth identity", ylim=(shown.size - 0.4, -0.6))
    axis.set_yticks(range(shown.size), list(place), fontsize=7)
    axis.margins(x=0.005)
    axis.spines[["top", "right"]].set_visible(False)
    few = f" ({shown.size} of {known.size} identities)" if shown.size < known.size else ""
    axis.set_title(title + few, fontsize=12)
    figure.legend(loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    return figure


def _listed(events: Events) -> tuple[list[int], list[int]]:
    return events.frame.tolist(), events.gt.tolist()
