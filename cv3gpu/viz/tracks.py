"""Figures of tracks: over time, as a graph, by identity; and what an evaluation says of them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _check
from ._arguments import listed, mapping
from ._base import COLOURS, blank, matplotlib

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..mot import Events, Matches, Tracks

__all__ = ["alpha_figure", "hues", "identities_figure", "numbered", "span", "tracking_graph_figure", "tracks_figure"]

Array = np.ndarray[Any, Any]

MATCHED, MISSED, FALSE = "#0072B2", "#D9D9D9", "#E69F00"
MORE_HUES = ("#6A3D9A", "#A6192E", "#1F4E3D")  # after COLOURS, without its grey
CANDIDATE, ALONE = "#BDBDBD", "#8A8A8A"


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
    both = np.concatenate([gt.frame, pred.frame])
    if not both.size:
        return
    frames = np.arange(both.min(), both.max() + 1)

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

    Raises
    ------
    TypeError, ValueError
        If ``sequences`` are not as said above.
    """
    from ..mot import Matches
    from ..mot.tracks import checked

    op = "tracks_figure"
    for entry in listed(op, "sequences", sequences):
        _, gt, pred, matches = listed(op, "sequences", entry, 4, ": label, gt, pred and matches")
        checked(op, "gt", gt)
        checked(op, "pred", pred)
        if not isinstance(matches, Matches):
            got = _check.kind(matches)
            _check.fail(op, "matches", "be Matches", got, "mot.match(gt, pred) gives them", error=TypeError)
    figure = blank(6.6 * len(sequences), 7.6)
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

    Raises
    ------
    TypeError, ValueError
        If ``figures`` are none, or lack those of HOTA.

    Examples
    --------
    >>> from cv3gpu import mot, viz
    >>> gt = mot.Tracks([1, 2], [1, 1], [[0, 0, 9, 9], [1, 0, 9, 9]])
    >>> report = mot.evaluate(gt, gt, metrics=["hota"])
    >>> figure = viz.alpha_figure({"perfect": report.combined["all"]})
    """
    op = "alpha_figure"
    for tracker, values in mapping(op, "figures", figures).items():
        for name in CURVES:
            if not {name, f"{name}_alpha"} <= mapping(op, "figures", values).keys():
                _check.fail(op, "figures", "have those of HOTA", f"{tracker!r} without {name}", 'metrics=["hota"]')
    if len(figures) == 1:
        ((_, only),) = figures.items()
        figure = blank(6.4, 4.6)
        panels: list[Any] = [(figure.subplots(), "", {name: (name, only) for name in CURVES})]
    else:
        figure = blank(9.6, 7.6)
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

    Raises
    ------
    TypeError, ValueError
        If an argument is not as said above.
    """
    from ..mot import Events as Log

    op = "identities_figure"
    if not isinstance(events, Log):
        _check.fail(op, "events", "be Events", _check.kind(events), "mot.events(gt, pred) gives them", error=TypeError)
    _check.integer(op, "most", most, 1)
    runs = _runs(events)
    known, first = np.unique(runs.gt, return_index=True)
    marked = np.isin(events.kind, ["switch", "fragmentation"])
    trouble = (events.gt[marked] == known[:, None]).sum(axis=1)
    shown = np.sort(np.argsort(-trouble, kind="stable")[:most])
    shown = shown[np.argsort(runs.frame[first[shown]], kind="stable")]
    place = {identity: at for at, identity in enumerate(known[shown].tolist())}
    figure = blank(11, max(2.6, 1.4 + 0.2 * shown.size))
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


def hues() -> list[str]:
    return [*COLOURS[:-1], *MORE_HUES]


def numbered(tracks: Tracks) -> Array:
    """Which of all identities of all classes each box has, from 0 on; -1 for none."""
    from ..mot.tracks import NO_ID

    number = np.full(len(tracks), -1)
    known = tracks.id != NO_ID
    pairs = np.stack([tracks.class_[known], tracks.id[known]])
    number[known] = np.unique(pairs, axis=1, return_inverse=True)[1].reshape(-1)
    return number


def span(op: str, tracks: Tracks, frames: Any) -> tuple[int, int]:
    """The first and the last frame that are shown."""
    from ..mot.tracks import MAX_FRAME

    if frames is None:
        if not len(tracks):
            _check.fail(op, "tracks", "hold a box", "none", "or say which frames are shown")
        return int(tracks.frame.min()), int(tracks.frame.max())
    if not isinstance(frames, tuple | list) or len(frames) != 2:
        _check.fail(op, "frames", "be a pair, the first and the last frame", repr(frames), error=TypeError)
    first, last = (_check.integer(op, "frames", frame, 0, MAX_FRAME) for frame in frames)
    if last < first:
        _check.fail(op, "frames", "be in order", f"{first} and {last}")
    return first, last


# ---- the graph ------------------------------------------------------------------------------------------


def tracking_graph_figure(
    tracks: Tracks, edges: Any, *, frames: tuple[int, int] | None = None, title: str = ""
) -> Figure:
    """The graph that a tracker links: detections over time, the links that were possible, and those that hold.

    Parameters
    ----------
    tracks : Tracks
        Detections with the identities that they were given, -1 for those in no trajectory.
    edges : array, [2, E], int64/int32
        Rows of ``tracks`` that may belong together, as :func:`cv3gpu.mot.candidate_edges` gives them.
    frames : (first, last), optional
        The frames that are shown, both included; all if left out. Some twenty are told apart well.
    title : text above the figure

    Returns
    -------
    matplotlib.figure.Figure
        The horizontal centre of each box against its frame. Candidates are thin and grey; trajectories, from each box
        to the next of the same identity, bold and coloured. A colour comes again after ten identities.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as said above, or there is no box to say which frames are shown.

    Examples
    --------
    >>> import numpy as np
    >>> from cv3gpu import mot, viz
    >>> box = np.array([[0, 0, 9, 9], [50, 0, 9, 9], [1, 0, 9, 9], [51, 0, 9, 9]])
    >>> found = mot.Tracks(frame=[1, 1, 2, 2], id=[1, 2, 1, 2], box=box)
    >>> edges = mot.candidate_edges(found.frame, found.box, max_gap=1, k=2)
    >>> figure = viz.tracking_graph_figure(found, edges)
    """
    from ..mot.flow import _check_edges
    from ..mot.tracks import checked

    op = "tracking_graph_figure"
    given = checked(op, "tracks", tracks)
    links = _check_edges(op, np.asarray(edges), len(given))
    first, last = span(op, given, frames)
    shown = (given.frame >= first) & (given.frame <= last)
    number = numbered(given)
    order = np.flatnonzero(shown & (number >= 0))
    order = order[np.lexsort((given.frame[order], number[order]))]
    follows = number[order][1:] == number[order][:-1]
    active = np.stack([order[:-1][follows], order[1:][follows]])
    links = links[:, shown[links].all(0)]

    place = np.stack([given.frame, given.box[:, 0] + given.box[:, 2] / 2], 1)
    wheel = np.array(hues())
    lines = matplotlib("collections").LineCollection
    figure = blank(11, 5.2)
    axis: Any = figure.subplots()
    axis.add_collection(lines(place[links.T], colors=CANDIDATE, linewidths=0.6, zorder=1, label="candidate link"))
    bold = "link of a trajectory, a colour for each"
    colours = wheel[number[active[0]] % len(wheel)]
    axis.add_collection(lines(place[active.T], colors=colours, linewidths=2.4, zorder=2, label=bold))
    alone, member = shown & (number < 0), shown & (number >= 0)
    x, y = place.T
    dots = wheel[number[member] % len(wheel)]
    axis.scatter(x[member], y[member], s=26, c=dots, edgecolors="white", linewidths=0.7, zorder=4)
    ring: dict[str, Any] = {"s": 26, "c": "white", "edgecolors": ALONE, "linewidths": 1.2}
    axis.scatter(x[alone], y[alone], **ring, zorder=3, label="detection in no trajectory")
    axis.set(xlabel="frame", ylabel="horizontal centre of the box, pixels", xlim=(first - 0.6, last + 0.6))
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.spines[["top", "right"]].set_visible(False)
    axis.set_title(title, fontsize=12)
    handles, words = axis.get_legend_handles_labels()
    kept = [k for k, some in enumerate((links.size, active.size, alone.any())) if some]
    if kept:
        figure.legend(
            [handles[k] for k in kept], [words[k] for k in kept], loc="outside lower center", ncols=3, frameon=False
        )
    return figure
