"""Pictures: labelled grids of images, label maps, tracks over time, metrics. matplotlib, loaded when a picture is made.

The functions return matplotlib figures that belong to no window; :func:`save` writes one. Colours are those
of Okabe and Ito, which people with any colour vision tell apart. :func:`save_labels` and :func:`save_image` write
pictures without frame or title, a pixel for each pixel, by Pillow; :func:`tracks_gif` writes an animation.
"""

from __future__ import annotations

import colorsys
import importlib
import itertools
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from . import _files
from ._viz_tracks import tracking_graph_figure, tracks_gif
from .errors import BackendUnavailableError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .checkerboard import Trial
    from .mot import Events, Matches, Tracks

__all__ = [
    "COLOURS",
    "alpha_figure",
    "boundaries",
    "checkerboard_figure",
    "curves_figure",
    "cutout",
    "identities_figure",
    "image_grid",
    "iterations_figure",
    "label_colours",
    "labels_figure",
    "mean_colours",
    "overlay",
    "points_figure",
    "save",
    "save_image",
    "save_labels",
    "tracking_graph_figure",
    "tracks_figure",
    "tracks_gif",
]

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#8C6D1F", "#7F7F7F")
MATCHED, MISSED, FALSE = "#0072B2", "#D9D9D9", "#E69F00"
DPI = 130


def _matplotlib(module: str) -> Any:
    try:
        return importlib.import_module(f"matplotlib.{module}")
    except ImportError as error:
        raise BackendUnavailableError(f"viz: pictures need matplotlib ({error}); pip install 'cv3gpu[viz]'") from error


def pillow() -> Any:
    """Pillow's module of images."""
    try:
        return importlib.import_module("PIL.Image")
    except ImportError as error:
        raise BackendUnavailableError(f"viz: images need Pillow ({error}); pip install 'cv3gpu[viz]'") from error


def require() -> None:
    """Raises what a picture would raise where matplotlib or Pillow is missing: to know before the work."""
    _matplotlib("figure")
    pillow()


def _figure(width: float, height: float) -> Figure:
    return _matplotlib("figure").Figure(figsize=(width, height), dpi=DPI, layout="constrained")


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


def eigenvectors_figure(values: np.ndarray, vectors: np.ndarray, *, title: str = "", first: int = 2) -> Figure:
    """Eigenvectors of a graph of pixels as grey images, as in Shi and Malik's figures.

    Parameters
    ----------
    values : array, [k]
        Eigenvalues.
    vectors : array, [H, W, k]
        Each is stretched from its 1st to its 99th percentile.
    title : text above the figure
    first : the number of the first one; the trivial one is 1

    Returns
    -------
    matplotlib.figure.Figure
    """
    vectors = np.stack(_thin(*np.moveaxis(np.asarray(vectors), -1, 0)), -1)
    height, width, count = vectors.shape
    columns = min(count, 3)
    rows = -(-count // columns)
    size = 3.0 * min(1.0, (width / height) ** 0.5)
    figure = _figure(size * columns, (size * height / width + 0.35) * rows + 0.4 * bool(title))
    if title:
        figure.suptitle(title, fontsize=12)
    axes = figure.subplots(rows, columns, squeeze=False)
    for k, axis in enumerate(axes.flat):
        axis.set(xticks=[], yticks=[])
        if k >= count:
            axis.set_visible(False)
            continue
        low, high = np.percentile(vectors[..., k], [1, 99])
        axis.imshow(vectors[..., k], cmap="gray", vmin=low, vmax=max(high, low + 1e-300), interpolation="antialiased")
        axis.set_title(f"{first + k}: λ = {values[k]:.3g}", fontsize=10)
    return figure


# ---- label maps -----------------------------------------------------------------------------------------

# Label 0, by custom the background, is grey.
LABELS = ("#7F7F7F", "#E69F00", "#0072B2", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#F0E442")
GOLDEN = 0.618034  # of the circle of hues from one further colour to the next
LONG_SIDE = 900  # pixels of an image in a figure
LEGEND = 24  # labels


def label_colours(n: int) -> np.ndarray:
    """Colours for labels.

    Parameters
    ----------
    n : int
        How many; the first eight are Okabe's and Ito's, 0 being grey.

    Returns
    -------
    array, [n, 3], uint8

    Examples
    --------
    >>> label_colours(2).tolist()
    [[127, 127, 127], [230, 159, 0]]
    """
    known = [bytes.fromhex(colour[1:]) for colour in LABELS[:n]]
    more = [
        colorsys.hsv_to_rgb(k * GOLDEN % 1, (0.9, 0.5, 0.7)[k % 3], (0.9, 0.65, 0.45)[k // 3 % 3])
        for k in range(n - len(known))
    ]
    wheel = np.rint(255 * np.reshape(more, (-1, 3))).astype(np.uint8)
    return np.concatenate([np.frombuffer(b"".join(known), np.uint8).reshape(-1, 3), wheel])


def overlay(
    image: np.ndarray,
    labels: np.ndarray,
    *,
    colours: np.ndarray | None = None,
    opacity: float = 0.6,
    border: bool = False,
) -> np.ndarray:
    """An image under the colours of its labels.

    Parameters
    ----------
    image : array, [H, W, 3] or [H, W], uint8 or float 0–1
    labels : array, [H, W], integers from 0; below 0 there is no colour
    colours : array, [n, 3], uint8, default :func:`label_colours`
    opacity : 0 for the image, 1 for the colours alone
    border : whether pixels to the left of another label, or above one, are white

    Returns
    -------
    array, [H, W, 3], uint8
    """
    colours = label_colours(int(labels.max(initial=0)) + 1) if colours is None else colours
    share = np.where(labels < 0, 0, opacity)[..., None]
    mixed = (1 - share) * _plain(image) + share * colours[labels]
    if border:
        mixed[_edge(labels)] = 255
    return np.rint(mixed).astype(np.uint8)


def _plain(image: np.ndarray) -> np.ndarray:
    """An image [H, W, 3] or [H, W, 1], 0 to 255."""
    plain = image if image.dtype == np.uint8 else np.clip(image, 0, 1) * 255
    return plain[..., None] if plain.ndim == 2 else plain


def _edge(labels: np.ndarray) -> np.ndarray:
    """Where pixels are to the left of another label, or above one: [H, W], bool."""
    edge = np.zeros(labels.shape, bool)
    edge[:-1] |= labels[:-1] != labels[1:]
    edge[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    return edge


def boundaries(image: np.ndarray, labels: np.ndarray, *, colour: tuple[int, int, int] = (255, 225, 0)) -> np.ndarray:
    """An image with the boundaries of its segments.

    Parameters
    ----------
    image : array, [H, W, 3] or [H, W], uint8 or float 0–1
    labels : array, [H, W], integers
    colour : of pixels to the left of another label, or above one; 0 to 255

    Returns
    -------
    array, [H, W, 3], uint8
    """
    drawn = np.empty((*labels.shape, 3), np.uint8)
    drawn[...] = np.rint(_plain(image))
    drawn[_edge(labels)] = colour
    return drawn


def mean_colours(image: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Each segment in its mean colour.

    Parameters
    ----------
    image : array, [H, W, C] or [H, W], uint8 or float 0–1
    labels : array, [H, W], integers from 0; below 0 the image stays

    Returns
    -------
    array, [H, W, C], or [H, W, 1] of a grey image, uint8
    """
    plain, flat = _plain(image), labels.ravel()
    inside = flat >= 0
    count = np.maximum(np.bincount(flat[inside]), 1)
    mixed = plain.reshape(flat.size, -1).astype(np.float64)
    for channel in mixed.T:
        channel[inside] = (np.bincount(flat[inside], channel[inside]) / count)[flat[inside]]
    return np.rint(mixed).astype(np.uint8).reshape(plain.shape)


def cutout(
    image: np.ndarray,
    labels: np.ndarray,
    *,
    foreground: np.ndarray | None = None,
    background: np.ndarray | None = None,
    rect: tuple[int, int, int, int] | None = None,
    dimmed: float = 0.7,
) -> np.ndarray:
    """An image whose background is dark, with a white border between the two, and the seeds in orange and blue.

    Parameters
    ----------
    image : array, [H, W, 3] or [H, W], uint8 or float 0–1
    labels : array, [H, W], 1 in the foreground and 0 in the background
    foreground, background : array, [H, W], bool, optional
        Seeds.
    rect : (x, y, width, height), optional
        A frame to draw, in the background's colour.
    dimmed : how dark the background is, 0 as it is, 1 black

    Returns
    -------
    array, [H, W, 3], uint8
    """
    shade = np.where(labels > 0, -1, 0)
    drawn = overlay(image, shade, colours=np.zeros((1, 3), np.uint8), opacity=dimmed, border=True)
    _, orange, blue = label_colours(3)
    if rect is not None:
        x, y, width, height = rect
        frame = np.zeros(labels.shape, bool)
        frame[y : y + height, x : x + width] = True
        thick = max(1, max(labels.shape) // 400)
        frame[y + thick : y + height - thick, x + thick : x + width - thick] = False
        drawn[frame] = blue
    for seeds, colour in ((background, blue), (foreground, orange)):
        if seeds is not None:
            drawn[seeds] = colour
    return drawn


def save_image(image: np.ndarray, path: str | os.PathLike[str]) -> None:
    """Writes an image, [H, W, 3] or [H, W], uint8; the format goes by the suffix. It appears whole or not at all."""
    picture = pillow().fromarray(np.ascontiguousarray(image))
    with _files.replacing(path) as unfinished:
        picture.save(unfinished)


def save_labels(labels: np.ndarray, path: str | os.PathLike[str], colours: np.ndarray | None = None) -> None:
    """Writes a map of labels as a PNG file whose values are the labels.

    Parameters
    ----------
    labels : array, [H, W], integers, 0 to 65535
        Up to 255 the file is indexed, one byte a pixel with a palette; otherwise grey, two bytes a pixel.
    path : path of the file, which appears whole or not at all
    colours : array, [n, 3], uint8, default :func:`label_colours`
        The palette: the colour of label i is ``colours[i]``.
    """
    low, high = int(labels.min(initial=0)), int(labels.max(initial=0))
    if low < 0 or high > 65535:
        raise ValueError(f"viz: labels must be from 0 to 65535, got {low} to {high}")
    if high > 255:
        save_image(labels.astype(np.uint16), path)
        return
    picture = pillow().fromarray(labels.astype(np.uint8)).convert("L")
    picture.putpalette((label_colours(256) if colours is None else colours)[:256].tobytes())
    with _files.replacing(path) as unfinished:
        picture.save(unfinished, format="PNG")


def _thin(*images: np.ndarray) -> list[np.ndarray]:
    """Every so many-th pixel of large images: more than a figure shows only costs time."""
    step = max(1, max(images[0].shape[:2]) // LONG_SIDE)
    return [image[::step, ::step] for image in images]


class _Sheet:
    """Rows of panels of one shape above a legend of the labels that occur; a tall image gets narrow panels."""

    def __init__(self, image: np.ndarray, maps: Sequence[np.ndarray], colours: Any, names: Any, title: str) -> None:
        present = np.unique(np.concatenate([[-1], *(np.unique(labels) for labels in maps)]))
        self.labels = present[present >= 0].tolist()
        self.names = names
        self.colours = label_colours(max(self.labels, default=0) + 1) if colours is None else colours
        self.aspect, self.title = image.shape[1] / image.shape[0], title

    def axes(self, rows: int, columns: int, size: float, beside: float = 0.0) -> tuple[Figure, Any]:
        """A figure with so many panels, ``size`` inches wide at most, and room beside them."""
        words = [self.names[k] if self.names else str(k) for k in self.labels[:LEGEND]]
        more = [f"and {len(self.labels) - LEGEND} more"] if len(self.labels) > LEGEND else []
        width = max(1.9, size * min(1, self.aspect**0.5))
        across = columns * width + beside
        room = [0.7 + 0.1 * len(word) for word in (*words, *more)]
        fitting = len(room) if sum(room) < across else max(1, int(across / max(room)))
        legend = -(-len(room) // max(fitting, 1))
        figure = _figure(across, rows * width / self.aspect + 0.5 + 0.3 * bool(self.title) + 0.26 * legend)
        if self.title:
            figure.suptitle(self.title, fontsize=15)
        patch = _matplotlib("patches").Patch
        handles = [patch(color=self.colours[k] / 255, label=word) for k, word in zip(self.labels, words, strict=False)]
        handles += [patch(color="none", label=word) for word in more]
        if handles:
            fitting = min(fitting, len(handles))
            figure.legend(handles=handles, loc="outside lower center", ncols=fitting, frameon=False, fontsize=12)
        axes = figure.subplots(rows, columns, squeeze=False)
        for axis in axes.flat:
            axis.set(xticks=[], yticks=[])
        return figure, axes


def labels_figure(
    image: np.ndarray,
    panels: Mapping[str, np.ndarray | None],
    *,
    colours: np.ndarray | None = None,
    names: Sequence[str] | None = None,
    title: str = "",
    opacity: float = 0.6,
    size: float = 3.4,
) -> Figure:
    """Label maps of one image side by side, with a legend of the labels.

    Parameters
    ----------
    image : array, [H, W, 3] or [H, W], uint8 or float 0–1
    panels : mapping of title to labels [H, W] as for :func:`overlay`, or to None for the image itself
    colours : array, [n, 3], uint8, default :func:`label_colours`
    names : names of the labels, default their numbers
    title : text above the figure
    opacity : of the colours over the image
    size : width of one panel, inches

    Returns
    -------
    matplotlib.figure.Figure
    """
    maps = {heading: None if labels is None else _thin(labels)[0] for heading, labels in panels.items()}
    (image,) = _thin(image)
    sheet = _Sheet(image, [labels for labels in maps.values() if labels is not None], colours, names, title)
    figure, axes = sheet.axes(1, len(maps), size)
    for axis, (heading, labels) in zip(axes[0], maps.items(), strict=True):
        picture = image if labels is None else overlay(image, labels, colours=sheet.colours, opacity=opacity)
        axis.imshow(picture, cmap="gray")
        axis.set_title(heading, fontsize=14)
    return figure


def points_figure(
    points: Sequence[np.ndarray],
    values: Sequence[Sequence[np.ndarray]],
    *,
    columns: Sequence[str],
    rows: Sequence[str] | None = None,
    title: str = "",
    size: float = 2.8,
) -> Figure:
    """Sets of points in the plane, coloured by labels or by numbers.

    Parameters
    ----------
    points : for each row, array, [N, 2]
    values : for each row and column, array, [N]
        Integers are labels, from 0; real numbers go from blue below zero to red above.
    columns, rows : labels above the first row and left of the first column
    title : text above the sheet
    size : width of one panel, inches

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure = _figure(size * len(columns) + 0.5, 0.8 * size * len(points) + 0.35 + 0.4 * bool(title))
    axes = figure.subplots(len(points), len(columns), squeeze=False)
    if title:
        figure.suptitle(title, fontsize=12)
    for r, (place, row) in enumerate(zip(points, values, strict=True)):
        for axis, value in zip(axes[r], row, strict=True):
            dot = min(12.0, 9000 / max(1, len(place)))
            if np.issubdtype(value.dtype, np.integer):
                shade = label_colours(int(value.max(initial=0)) + 2)[1 + value] / 255  # none is grey
                axis.scatter(*place.T, s=dot, c=shade, linewidths=0)
            else:
                top = float(np.abs(value).max(initial=0))
                axis.scatter(*place.T, s=dot, c=value, cmap="RdBu_r", vmin=-top, vmax=top, linewidths=0)
            axis.set(xticks=[], yticks=[], aspect="equal")
        if rows:
            axes[r][0].set_ylabel(rows[r], fontsize=10)
    for axis, label in zip(axes[0], columns, strict=True):
        axis.set_title(label, fontsize=10)
    return figure


def iterations_figure(
    image: np.ndarray,
    steps: Mapping[int, tuple[np.ndarray, np.ndarray]],
    *,
    marginal: str,
    colours: np.ndarray | None = None,
    names: Sequence[str] | None = None,
    title: str = "",
    opacity: float = 0.6,
    size: float = 2.7,
) -> Figure:
    """Mean field as it goes on: the best labels above, the marginals of one label below.

    Parameters
    ----------
    image : array, [H, W, 3] or [H, W], uint8 or float 0–1
    steps : mapping of the number of iterations to labels [H, W] and marginals [H, W], 0–1
    marginal : what the marginals are of, such as the label's name
    colours, names, title, opacity, size : as for :func:`labels_figure`

    Returns
    -------
    matplotlib.figure.Figure
    """
    maps = {n: _thin(*both) for n, both in steps.items()}
    (image,) = _thin(image)
    sheet = _Sheet(image, [labels for labels, _ in maps.values()], colours, names, title)
    figure, axes = sheet.axes(2, len(maps), size, beside=1.1)
    for (above, below), (n, (labels, marginals)) in zip(axes.T, maps.items(), strict=True):
        above.imshow(overlay(image, labels, colours=sheet.colours, opacity=opacity))
        belief = below.imshow(marginals, cmap="viridis", vmin=0, vmax=1)
        above.set_title(("start (unary)", "1 iteration")[n] if n < 2 else f"{n} iterations", fontsize=14)
    axes[0, 0].set_ylabel("best labels", fontsize=13)
    axes[1, 0].set_ylabel(f"Q of {marginal}", fontsize=13)
    bar = figure.colorbar(belief, ax=axes.ravel().tolist(), pad=0.01, aspect=16, shrink=0.46, anchor=(0, 0))
    bar.ax.tick_params(labelsize=11)
    return figure


# ---- upsampling layers ------------------------------------------------------------------------------------


def _power(image: np.ndarray) -> np.ndarray:
    """Energy by frequency, decibels below the largest, zero frequency in the middle; the mean does not count."""
    window = np.outer(np.hanning(image.shape[0]), np.hanning(image.shape[1]))
    energy = np.square(np.abs(np.fft.fftshift(np.fft.fft2((image - image.mean()) * window))))
    return 10 * np.log10(np.maximum(energy, 1e-30) / max(energy.max(), 1e-30))


def checkerboard_figure(trials: Sequence[Trial], *, title: str = "") -> Figure:
    """What upsampling layers make of a constant and of a smooth image, before and after training.

    Parameters
    ----------
    trials : what :func:`cv3gpu.checkerboard.checkerboard_study` returns
    title : text above the sheet

    Returns
    -------
    matplotlib.figure.Figure
        A row for each layer: the taps that reach a pixel; the image made of a constant one; those made of a smooth one,
        with their spectra, 0 to -80 dB, at the start and after training. Under each image stands how strong the
        pattern of the stride's period is in all channels.
    """
    columns = ("taps", "of a constant image", "of a smooth image", "its spectrum", "after training", "its spectrum")
    figure = _figure(2.1 * len(columns), 2.3 * len(trials) + 0.4 * bool(title))
    axes = figure.subplots(len(trials), len(columns), squeeze=False)
    if title:
        figure.suptitle(title, fontsize=12)
    for row, trial in zip(axes, trials, strict=True):
        for axis in row:
            axis.set(xticks=[], yticks=[])
        row[0].set_ylabel(trial.name, fontsize=9)
        if trial.overlap is None:
            row[0].set_box_aspect(1)
            row[0].text(0.5, 0.5, "all alike", ha="center", va="center", transform=row[0].transAxes, fontsize=9)
        else:
            taps = trial.overlap.taps
            row[0].imshow(np.tile(taps, (3, 3)), cmap="gray", vmin=0, interpolation="nearest")
            row[0].set_xlabel(f"{trial.overlap.minimum} to {trial.overlap.maximum}", fontsize=8)
        shown = (
            (1, trial.constant, trial.constant_amplitude),
            (2, trial.start, trial.start_amplitude),
            (4, trial.trained, trial.trained_amplitude),
        )
        for place, image, amplitude in shown:
            spread = max(float(np.abs(image - image.mean()).max()), 1e-6 * max(float(np.abs(image).max()), 1e-30))
            limits = {"vmin": image.mean() - spread, "vmax": image.mean() + spread}
            row[place].imshow(image, cmap="gray", interpolation="nearest", **limits)
            row[place].set_xlabel(f"pattern {amplitude:.2g}", fontsize=8)
            if place > 1:
                row[place + 1].imshow(_power(image), cmap="gray", vmin=-80, vmax=0, interpolation="nearest")
    for axis, label in zip(axes[0], columns, strict=True):
        axis.set_title(label, fontsize=10)
    return figure


# ---- tracks ---------------------------------------------------------------------------------------------


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


def curves_figure(
    rows: Sequence[Mapping[str, float]], panels: Mapping[str, Sequence[str]], *, x: str = "epoch", title: str = ""
) -> Figure:
    """How figures change in the course of a training.

    Parameters
    ----------
    rows : sequence of mapping of name to number
        As a metrics file has them; what is not finite leaves a gap.
    panels : mapping of heading to names
        The lines of each panel, side by side.
    x : name of the axis that all share
    title : text above the figure

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure = _figure(4.6 * len(panels), 3.8)
    along = [row[x] for row in rows]
    for axis, (heading, names) in zip(figure.subplots(1, len(panels), squeeze=False).flat, panels.items(), strict=True):
        for n, name in enumerate(names):
            style = {"color": COLOURS[n % len(COLOURS)], "ms": 3.0, "lw": 1.6, "label": name}
            axis.plot(along, [row[name] for row in rows], "o-", **style)
        axis.set_title(heading, fontsize=11)
        axis.set_xlabel(x)
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(color="#E5E5E5", lw=0.6)
        if len(names) > 1:
            axis.legend(frameon=False, fontsize=9)
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
