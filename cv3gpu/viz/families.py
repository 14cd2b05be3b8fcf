"""Figures of the operators: sheets of images, label maps, points, eigenvectors, iterations, layers, training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _check
from ._arguments import colours_of, finite, image_of, labels_of, listed, mapping, numbers, words
from ._base import COLOURS, blank, matplotlib
from .images import boundaries, label_colours, overlay

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..checkerboard import Trial

__all__ = [
    "checkerboard_figure",
    "curves_figure",
    "eigenvectors_figure",
    "image_grid",
    "iterations_figure",
    "labels_figure",
    "points_figure",
    "stretched",
]

LONG_SIDE = 900  # pixels of an image in a figure
LEGEND = 24  # labels


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
        Grey images are stretched from 0 to their 99.5th percentile; RGB is shown as it is, uint8 or 0–1.
    columns, rows : labels above the first row and left of the first column
    title : text above the sheet
    signed : the columns whose grey images have both signs: blue below, white at, red above zero
    size : width of one image, inches

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    TypeError, ValueError
        If an argument is not as said above, an image is empty, or labels are fewer or more than images.
    """
    op = "image_grid"
    across = len(words(op, "columns", columns))
    for row in listed(op, "images", images):
        for image in listed(op, "images", row, across, ", one for each column"):
            _shown(op, "images", image)
    if rows is not None:
        words(op, "rows", rows, len(images), ", one for each row of images")
    _check.real(op, "size", size, positive=True)
    height, width = images[0][0].shape[:2]
    figure = blank(size * len(columns) + 0.5, size * height / width * len(images) + 0.35 + 0.4 * bool(title))
    axes = figure.subplots(len(images), len(columns), squeeze=False)
    if title:
        figure.suptitle(title, fontsize=12)
    for c, label in enumerate(columns):
        for r, row in enumerate(images):
            image, axis = row[c], axes[r][c]
            top = float(np.percentile(np.abs(image), 99.5))
            if image.ndim == 3:
                axis.imshow(image if image.dtype == np.uint8 else np.clip(image, 0, 1), interpolation="nearest")
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


def _shown(op: str, argument: str, image: Any) -> None:
    """An image that is not empty, of any numbers."""
    if not isinstance(image, np.ndarray):
        _check.fail(op, argument, "be NumPy arrays", _check.kind(image), error=TypeError)
    if image.dtype.kind not in "biuf":
        _check.fail(op, argument, "hold real numbers", image.dtype.name, error=TypeError)
    if image.ndim not in (2, 3) or image.shape[2:] not in ((), (3,)) or not image.size:
        _check.fail(op, argument, "have shape [H, W] or [H, W, 3] with a pixel", image.shape)
    finite(op, argument, image)


# ---- label maps -----------------------------------------------------------------------------------------


def _thin(*images: np.ndarray) -> list[np.ndarray]:
    """Every so many-th pixel of large images: more than a figure shows only costs time."""
    step = max(1, max(images[0].shape[:2]) // LONG_SIDE)
    return [image[::step, ::step] for image in images]


class _Sheet:
    """Rows of panels of one shape above a legend of the labels that occur; a tall image gets narrow panels."""

    def __init__(
        self, op: str, image: np.ndarray, maps: Sequence[np.ndarray], colours: Any, names: Any, title: str
    ) -> None:
        present = np.unique(np.concatenate([[-1], *(np.unique(labels) for labels in maps)]))
        self.labels = present[present >= 0].tolist()
        count = max(self.labels, default=0) + 1
        self.names = names
        if names is not None and len(words(op, "names", names)) < (count if self.labels else 0):
            _check.fail(op, "names", f"name each of {count} labels", len(names))
        self.colours = label_colours(count) if colours is None else colours_of(op, colours, count)
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
        figure = blank(across, rows * width / self.aspect + 0.5 + 0.3 * bool(self.title) + 0.26 * legend)
        if self.title:
            figure.suptitle(self.title, fontsize=15)
        patch = matplotlib("patches").Patch
        handles = [patch(color=self.colours[k] / 255, label=word) for k, word in zip(self.labels, words, strict=False)]
        handles += [patch(color="none", label=word) for word in more]
        if handles:
            fitting = min(fitting, len(handles))
            figure.legend(handles=handles, loc="outside lower center", ncols=fitting, frameon=False, fontsize=12)
        axes = figure.subplots(rows, columns, squeeze=False)
        for axis in axes.flat:
            axis.set(xticks=[], yticks=[])
        return figure, axes


def _picture(op: str, image: Any) -> None:
    """An image with a pixel."""
    if not image_of(op, "image", image).size:
        _check.fail(op, "image", "have a pixel", image.shape)


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

    Raises
    ------
    TypeError, ValueError
        If an argument is not as said above, sizes differ, or a label has no name or colour.
    """
    op = "labels_figure"
    _picture(op, image)
    for heading, labels in mapping(op, "panels", panels).items():
        if labels is not None:
            labels_of(op, f"panels[{heading!r}]", labels, image, whole=True)
    _check.fraction(op, "opacity", opacity)
    _check.real(op, "size", size, positive=True)
    maps = {heading: None if labels is None else _thin(labels)[0] for heading, labels in panels.items()}
    (image,) = _thin(image)
    sheet = _Sheet(op, image, [labels for labels in maps.values() if labels is not None], colours, names, title)
    figure, axes = sheet.axes(1, len(maps), size)
    for axis, (heading, labels) in zip(axes[0], maps.items(), strict=True):
        picture = image if labels is None else overlay(image, labels, colours=sheet.colours, opacity=opacity)
        axis.imshow(picture, cmap="gray", vmin=0, vmax=255 if picture.dtype == np.uint8 else 1)
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

    Raises
    ------
    TypeError, ValueError
        If an argument is not as said above, or lengths differ.
    """
    op = "points_figure"
    across = len(words(op, "columns", columns))
    listed(op, "points", points)
    listed(op, "values", values, len(points), ", one for each set of points")
    if rows is not None:
        words(op, "rows", rows, len(points), ", one for each set of points")
    _check.real(op, "size", size, positive=True)
    for place, row in zip(points, values, strict=True):
        numbers(op, "points", place, ["N", 2])
        for value in listed(op, "values", row, across, ", one for each column"):
            numbers(op, "values", value, [len(place)])
    figure = blank(size * len(columns) + 0.5, 0.8 * size * len(points) + 0.35 + 0.4 * bool(title))
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

    Raises
    ------
    TypeError, ValueError
        If an argument is not as said above, sizes differ, or a label has no name or colour.
    """
    op = "iterations_figure"
    _picture(op, image)
    for n, both in mapping(op, "steps", steps).items():
        _check.integer(op, "steps", n, 0)
        labels, marginals = listed(op, f"steps[{n}]", both, 2, ", labels and marginals")
        labels_of(op, f"labels of steps[{n}]", labels, image, whole=True)
        numbers(op, f"marginals of steps[{n}]", marginals, labels.shape)
    _check.fraction(op, "opacity", opacity)
    _check.real(op, "size", size, positive=True)
    maps = {n: _thin(*both) for n, both in steps.items()}
    (image,) = _thin(image)
    sheet = _Sheet(op, image, [labels for labels, _ in maps.values()], colours, names, title)
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


# ---- eigenvectors -----------------------------------------------------------------------------------------


def eigenvectors_figure(
    values: np.ndarray,
    vectors: np.ndarray,
    *,
    image: np.ndarray | None = None,
    cuts: np.ndarray | None = None,
    title: str = "",
    first: int = 2,
) -> Figure:
    """Eigenvectors of a graph of pixels as grey images, as in Shi and Malik's figures.

    Parameters
    ----------
    values : array, [k]
        Eigenvalues.
    vectors : array, [H, W, k]
        Each is stretched from its 1st to its 99th percentile.
    image : array, [H, W, 3] or [H, W], uint8 or float 0–1, optional
        Stands in front of them.
    cuts : array, [H, W], integers, optional
        Labels, whose boundaries are drawn on the image, or on the last of the eigenvectors, behind them.
    title : text above the figure
    first : the number of the first one; the trivial one is 1

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    TypeError, ValueError
        If an argument is not as said above, or sizes differ.

    Examples
    --------
    Image, second to ninth eigenvector and cut of a graph of pixels:

    >>> import numpy as np, cv3gpu
    >>> from cv3gpu import viz
    >>> image = np.zeros((12, 16))
    >>> image[:, 8:] = 1
    >>> graph = cv3gpu.pixel_affinity(image[..., None], radius=2, sigma_intensity=0.3, sigma_distance=4)
    >>> pairs = cv3gpu.smallest_eigenpairs(graph, 9)
    >>> vectors = pairs.eigenvectors.reshape(12, 16, 9)
    >>> cut = (vectors[..., 1] > 0).astype(int)
    >>> figure = viz.eigenvectors_figure(pairs.eigenvalues[1:], vectors[..., 1:], image=image, cuts=cut)
    >>> len(figure.axes)
    10
    """
    op = "eigenvectors_figure"
    vectors = numbers(op, "vectors", vectors, ["H", "W", "k"])
    if not vectors.size:
        _check.fail(op, "vectors", "have a pixel and a vector", vectors.shape)
    values = numbers(op, "values", values, [vectors.shape[2]])
    for name, given in (("image", image), ("cuts", cuts)):
        if (
            given is not None
            and (image_of if name == "image" else labels_of)(op, name, given).shape[:2] != vectors.shape[:2]
        ):
            _check.fail(op, name, f"have the size of the vectors, {vectors.shape[:2]}", given.shape)
    _check.integer(op, "first", first, 1)
    panels = []
    if image is not None:
        panels.append(("image", _thin(image)[0]))
    for k, vector in enumerate(np.moveaxis(vectors, -1, 0)):
        panels.append((f"{first + k}: λ = {values[k]:.3g}", stretched(*_thin(vector))))
    if cuts is not None:
        ground = panels[0 if image is not None else -1][1]
        panels.append((f"{np.unique(cuts).size} segments", boundaries(ground, _thin(cuts)[0])))
    height, width = panels[0][1].shape[:2]
    columns = _columns(len(panels))
    rows = -(-len(panels) // columns)
    size = 3.0 * min(1.0, (width / height) ** 0.5)
    figure = blank(size * columns, (size * height / width + 0.35) * rows + 0.4 * bool(title))
    if title:
        figure.suptitle(title, fontsize=12)
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis, (heading, picture) in zip(axes.flat, panels, strict=False):
        axis.imshow(
            picture, cmap="gray", vmin=0, vmax=255 if picture.dtype == np.uint8 else 1, interpolation="antialiased"
        )
        axis.set_title(heading, fontsize=10)
    for k, axis in enumerate(axes.flat):
        axis.set(xticks=[], yticks=[])
        axis.set_visible(k < len(panels))
    return figure


def stretched(vector: np.ndarray) -> np.ndarray:
    """Grey values, 0 to 1, of a vector's values from the 1st to the 99th percentile."""
    low, high = np.percentile(vector, [1, 99])
    return np.asarray(np.clip((vector - low) / max(high - low, 1e-300), 0, 1))


def _columns(count: int) -> int:
    """Of a sheet: three, or up to five where they leave no gap or a smaller one."""
    return min(count, min((3, 4, 5), key=lambda n: (-count % n, n))) if count > 3 else count


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

    Raises
    ------
    TypeError, ValueError
        If ``trials`` are none, or something else.
    """
    from ..checkerboard import Trial

    op = "checkerboard_figure"
    for trial in listed(op, "trials", trials):
        if not isinstance(trial, Trial):
            _check.fail(op, "trials", "hold results of checkerboard_study", _check.kind(trial), error=TypeError)
    columns = ("taps", "of a constant image", "of a smooth image", "its spectrum", "after training", "its spectrum")
    figure = blank(2.1 * len(columns), 2.3 * len(trials) + 0.4 * bool(title))
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


# ---- training -----------------------------------------------------------------------------------------------


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

    Raises
    ------
    TypeError, ValueError
        If an argument is not as said above, or a row lacks a name.
    """
    op = "curves_figure"
    for row in listed(op, "rows", rows):
        mapping(op, "rows", row)
        for name in (
            x,
            *(name for names in mapping(op, "panels", panels).values() for name in words(op, "panels", names)),
        ):
            if name not in row:
                _check.fail(op, "rows", f"have {name!r}", ", ".join(map(repr, row)))
    figure = blank(4.6 * len(panels), 3.8)
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
