"""Figures of measurements: time against size, rates against a device's ceilings, and ratios to others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .. import _check
from ._arguments import listed, mapping, numbers
from ._base import COLOURS, blank, matplotlib

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["roofline_figure", "scaling_figure", "speedup_figure"]

Array = np.ndarray[Any, Any]

MARKERS = "osD^vPX*"
# The ceiling that an entry's arithmetic has, by its dtype.
CEILING = {"float64": "fp64", "float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}
LINE = "#303030"
ROOM = 34  # rows of a figure of bars


# ---- scaling ----------------------------------------------------------------------------------------------


def _slope(sizes: Array, times: Array) -> tuple[float, float]:
    """Exponent and factor of the power of the size that fits best, by least squares of logarithms."""
    x, y = np.log(sizes), np.log(times)
    x = x - (shift := x.mean())
    slope = float((x * y).sum() / (x * x).sum())
    return slope, float(np.exp(y.mean() - slope * shift))


def scaling_figure(
    series: Mapping[str, Sequence[Any]],
    *,
    xlabel: str = "size",
    ylabel: str = "seconds",
    title: str = "",
) -> Figure:
    """Time against size, both on logarithmic axes, with the power of the size that fits.

    Parameters
    ----------
    series : mapping of name to (sizes, times) or (sizes, times, low, high)
        Arrays [n] of positive numbers; ``low`` and ``high`` are drawn as bars, as of the 20th and 80th percentile.
    xlabel, ylabel : names of the axes
    title : text above the figure

    Returns
    -------
    matplotlib.figure.Figure
        A line for each name; where it has two sizes or more, the fitted power, dashed, and its exponent in the legend.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as said above.

    Examples
    --------
    >>> from cv3gpu import viz
    >>> figure = viz.scaling_figure({"sort": ([10, 100, 1000], [1e-6, 1e-5, 1e-4])}, xlabel="points")
    >>> [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    ['sort: size^1.00']
    """
    op = "scaling_figure"
    lines = {}
    for name, given in mapping(op, "series", series).items():
        columns = [numbers(op, f"series[{name!r}]", column, ["n"]) for column in listed(op, "series", given)]
        if len(columns) not in (2, 4):
            _check.fail(op, f"series[{name!r}]", "be sizes and times, or these with low and high", len(columns))
        for column in columns:
            _check.shape(op, f"series[{name!r}]", column, [len(columns[0])])
            if not column.size or column.min() <= 0:
                _check.fail(op, f"series[{name!r}]", "hold positive numbers", column.min(initial=0))
        order = np.argsort(columns[0], kind="stable")
        lines[name] = [column[order].astype(np.float64) for column in columns]
    figure = blank(6.8, 4.8)
    axis = figure.subplots()
    axis.set(xscale="log", yscale="log", xlabel=xlabel, ylabel=ylabel)
    for n, (name, (sizes, times, *ends)) in enumerate(lines.items()):
        colour = COLOURS[n % len(COLOURS)]
        label = str(name)
        if sizes[0] < sizes[-1]:
            slope, factor = _slope(sizes, times)
            label += f": size^{slope:.2f}"
            reach = sizes[[0, -1]]
            axis.plot(reach, factor * reach**slope, "--", color=colour, lw=1.0, alpha=0.6)
        bars = [times - np.minimum(ends[0], times), np.maximum(ends[1], times) - times] if ends else None
        style: dict[str, Any] = {"fmt": f"{MARKERS[n % len(MARKERS)]}-", "ms": 5, "lw": 1.6, "capsize": 2.5}
        axis.errorbar(sizes, times, yerr=bars, color=colour, label=label, **style)
    axis.grid(color="#E5E5E5", lw=0.6, which="major")
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, fontsize=9)
    axis.set_title(title, fontsize=12)
    return figure


# ---- entries of result files ------------------------------------------------------------------------------


class _Entry(NamedTuple):
    """What a result file says of a measurement."""

    name: str
    family: str
    bytes: float
    flops: float
    ceiling: str
    times: Mapping[str, Mapping[str, float]]

    @property
    def seconds(self) -> float:
        return float(self.times["ours"]["median"])


def _entries(op: str, given: Any) -> list[_Entry]:
    """Those that were measured."""
    found = []
    for name, entry in mapping(op, "entries", given).items():
        known = mapping(op, f"entries[{name!r}]", entry)
        for key in ("bytes", "flops", "dtype", "times"):
            if key not in known:
                _check.fail(op, f"entries[{name!r}]", f"have {key!r}", ", ".join(map(repr, known)))
        if "median" not in known["times"].get("ours", ()):
            continue  # it was not timed
        for key in ("bytes", "flops"):
            if _check.real(op, f"{key} of {name!r}", known[key]) < 0:
                _check.fail(op, f"{key} of {name!r}", "not be negative", known[key])
        _check.real(op, f"median of {name!r}", known["times"]["ours"]["median"], positive=True)
        ceiling = CEILING.get(known["dtype"], "")
        found.append(
            _Entry(str(name), str(known.get("family", "")), known["bytes"], known["flops"], ceiling, known["times"])
        )
    if not found:
        _check.fail(op, "entries", "have one that was timed", "none")
    return found


def roofline_figure(
    entries: Mapping[str, Mapping[str, Any]],
    ceilings: Mapping[str, float],
    *,
    title: str = "",
    names: bool | None = None,
) -> Figure:
    """Operations a second against operations per byte, under a device's ceilings.

    Parameters
    ----------
    entries : mapping of name to entry, as in bench/results/<device>.json
        Of an entry ``family``, ``bytes``, ``flops``, ``dtype`` and ``times["ours"]["median"]``, seconds, count. Those
        without operations stand at the left, by their bytes a second alone; those that were not timed are left out.
    ceilings : mapping, as there
        ``copy``, bytes a second, and ``fp32`` and the like, operations a second.
    title : text above the figure
    names : bool, optional
        Whether points have numbers, and a list beside them says which is which; default: where there are at most 16.

    Returns
    -------
    matplotlib.figure.Figure
        The slanted line is what memory allows, the level ones what arithmetic does. A point above them works out of
        a cache, or needs fewer operations than were counted. A colour and a shape for each family.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as said above.

    Notes
    -----
    The model of Williams, Waterman and Patterson ("Roofline", 2009). Bytes are those that the operator must move at
    least, each input and output once; operations likewise.

    Examples
    --------
    >>> from cv3gpu import viz
    >>> entry = {"bytes": 2**20, "flops": 2**30, "dtype": "float32", "times": {"ours": {"median": 0.02}}}
    >>> figure = viz.roofline_figure({"conv2d": entry}, {"copy": 1e10, "fp32": 9e10})
    """
    op = "roofline_figure"
    found = _entries(op, entries)
    for name, value in mapping(op, "ceilings", ceilings).items():
        _check.real(op, f"ceilings[{name!r}]", value, positive=True)
    if "copy" not in ceilings:
        _check.fail(op, "ceilings", "have 'copy'", ", ".join(map(repr, ceilings)))
    if names is not None:
        _check.flag(op, "names", names)
    counted = [entry for entry in found if entry.flops and entry.bytes]
    moved = [entry for entry in found if entry.bytes and not entry.flops]
    families = {entry.family: None for entry in (*moved, *counted)}
    style = {
        family: {"color": COLOURS[n % len(COLOURS)], "marker": MARKERS[(n + n // len(COLOURS)) % len(MARKERS)]}
        for n, family in enumerate(families)
    }
    figure = blank(11.0, 5.6)
    parts = {"moved": 1.0, "counted": 4.2} if moved and counted else {"moved" if moved else "counted": 1.0}
    axes = figure.subplot_mosaic([list(parts)], width_ratios=list(parts.values()))
    points: list[Any] = []
    if moved:
        points += _bytes_alone(axes["moved"], moved, ceilings["copy"])
    if counted:
        points += _under_ceilings(axes["counted"], counted, ceilings)
    numbered = len(points) <= 16 if names is None else names
    for n, (axis, at, entry) in enumerate(points, 1):
        axis.plot(*at, ls="", ms=6.5, alpha=0.85, mew=0, **style[entry.family])
        if numbered:
            axis.annotate(str(n), at, xytext=(5, 3), textcoords="offset points", fontsize=8)
    for axis in axes.values():
        axis.grid(color="#E5E5E5", lw=0.6)
        axis.spines[["top", "right"]].set_visible(False)
    line = matplotlib("lines").Line2D
    handles = [line([], [], ls="", ms=7, mew=0, label=family or "all", **style[family]) for family in families]
    if len(families) > 1 or not numbered:
        columns = min(9, len(handles))
        figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False, fontsize=9)
    if numbered:
        known = [line([], [], ls="", label=f"{n}  {entry.name}") for n, (_, _, entry) in enumerate(points, 1)]
        style_of_list: dict[str, Any] = {"frameon": False, "fontsize": 8, "handlelength": 0, "handletextpad": 0}
        figure.legend(handles=known, loc="outside right center", **style_of_list)
    if title:
        figure.suptitle(title, fontsize=13)
    return figure


def _bytes_alone(axis: Any, moved: Sequence[_Entry], copy: float) -> list[Any]:
    """Points for bytes a second of what has no operations to count, from left to right in the entries' order."""
    across = np.linspace(0, 1, len(moved) + 2)[1:-1]
    axis.axhline(copy / 1e9, color=LINE, lw=1.6)
    axis.annotate(f"{copy / 1e9:.3g} GB/s", (0.02, copy / 1e9), xytext=(0, 3), textcoords="offset points", fontsize=9)
    axis.set(yscale="log", xlim=(0, 1), xticks=[], ylabel="GB/s", title="moving data")
    return [(axis, (x, entry.bytes / entry.seconds / 1e9), entry) for x, entry in zip(across, moved, strict=True)]


def _under_ceilings(axis: Any, counted: Sequence[_Entry], ceilings: Mapping[str, float]) -> list[Any]:
    """The roofs, and points for operations a second against operations per byte."""
    copy = ceilings["copy"]
    level = {name: value for name, value in ceilings.items() if name != "copy"}
    intensity = [entry.flops / entry.bytes for entry in counted]
    ridges = [value / copy for value in level.values()]
    low, high = 0.4 * min(*intensity, *ridges, 1.0), 2.5 * max(*intensity, *ridges, 1.0)
    top = max(level.values(), default=high * copy)
    ridge = top / copy
    axis.plot([low, ridge, high], np.array([low * copy, top, top]) / 1e9, color=LINE, lw=1.6)
    axis.set(xscale="log", yscale="log", xlim=(low, high), title="computing")
    axis.set(xlabel="operations per byte", ylabel="GFLOP/s")
    begin = low * 1.15
    turned: dict[str, Any] = {"rotation": np.degrees(np.arctan(1.25 * copy / 1e9)), "transform_rotates_text": True}
    axis.text(begin, 1.25 * begin * copy / 1e9, f"{copy / 1e9:.3g} GB/s", fontsize=9, rotation_mode="anchor", **turned)
    for name, value in level.items():
        axis.hlines(value / 1e9, value / copy, high, color=LINE, lw=1.0 if value < top else 1.6)
        words = f" {name}: {_operations(value)}"
        axis.annotate(words, (high, value / 1e9), va="center", fontsize=9, annotation_clip=False)
    return [(axis, (x, entry.flops / entry.seconds / 1e9), entry) for x, entry in zip(intensity, counted, strict=True)]


def _operations(value: float) -> str:
    return f"{value / 1e12:.3g} TFLOP/s" if value >= 1e12 else f"{value / 1e9:.3g} GFLOP/s"


def speedup_figure(entries: Mapping[str, Mapping[str, Any]], *, title: str = "", most: int = ROOM) -> Figure:
    """How many times as long as ours the nearest of the others takes, a bar for each measurement.

    Parameters
    ----------
    entries : mapping of name to entry, as in bench/results/<device>.json
        Of an entry ``times``, with ``median``, and where they are known ``p20`` and ``p80``, of each name, count. Other
        ways of ours, whose names begin with "ours", are no peers. Entries without a peer are left out.
    title : text above the figure
    most : how many bars there are at most; those in the middle go first, and the figure says how many

    Returns
    -------
    matplotlib.figure.Figure
        From the largest ratio to the smallest. Above 1 ours is faster. The lines at a bar's end go from p20 of the peer
        over p80 of ours to the reverse.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as said above, or no entry has a peer.

    Examples
    --------
    >>> from cv3gpu import viz
    >>> times = {"ours": {"median": 1.0}, "SciPy": {"median": 3.0}}
    >>> figure = viz.speedup_figure({"sort": {"bytes": 8, "flops": 0, "dtype": "float64", "times": times}})
    >>> [text.get_text() for text in figure.axes[0].get_yticklabels()]
    ['sort']
    """
    op = "speedup_figure"
    _check.integer(op, "most", most, 2)
    found = []
    for entry in _entries(op, entries):
        peers = {name: times for name, times in entry.times.items() if not name.startswith("ours")}
        if peers:
            peer = min(peers, key=lambda name: peers[name]["median"])
            ours, theirs = entry.times["ours"], peers[peer]
            ratio = theirs["median"] / ours["median"]
            low = theirs.get("p20", theirs["median"]) / ours.get("p80", ours["median"])
            high = theirs.get("p80", theirs["median"]) / ours.get("p20", ours["median"])
            found.append((ratio, min(low, ratio), max(high, ratio), entry.name, peer))
    if not found:
        _check.fail(op, "entries", "have one with a peer", "none")
    found.sort(key=lambda row: (-row[0], row[3]))
    count = len(found)
    if count > most:
        found = [*found[: -(-most // 2)], *found[count - most // 2 :]]
    ratios, least, largest = (np.array([row[k] for row in found]) for k in range(3))
    at = np.arange(len(found)) + (np.arange(len(found)) >= -(-most // 2)) * (0.8 * (count > most))
    figure = blank(11.0, 1.4 + 0.235 * len(found) + 0.3 * bool(title))
    axis = figure.subplots()
    colours = [COLOURS[0] if ratio >= 1 else COLOURS[1] for ratio in ratios]
    axis.barh(at, ratios - 1, 0.72, left=1, color=colours)
    ends: dict[str, Any] = {"fmt": "none", "ecolor": LINE, "elinewidth": 1, "capsize": 2}
    axis.errorbar(ratios, at, xerr=[ratios - least, largest - ratios], **ends)
    beside = axis.get_yaxis_transform()
    for y, (ratio, _, _, _, peer) in zip(at, found, strict=True):
        words = f"{ratio:.0f}x" if ratio >= 100 else f"{ratio:.3g}x"
        axis.text(1.02, y, f"{words}  {peer}", transform=beside, va="center", fontsize=8)
    axis.axvline(1, color=LINE, lw=1)
    axis.set_xscale("log")
    axis.set_xlim(min(least.min(), 1 / 1.5) / 1.15, max(largest.max(), 1.5) * 1.15)
    axis.set_yticks(at, [row[3] for row in found], fontsize=8)
    axis.set_ylim(at[-1] + 0.7, -0.7)
    few = f"; {count - len(found)} in the middle are left out" if count > len(found) else ""
    axis.set_xlabel(f"time of the nearest peer / ours (above 1: ours is faster{few})")
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.tick_params(axis="y", length=0)
    if title:
        axis.set_title(title, fontsize=12)
    return figure
