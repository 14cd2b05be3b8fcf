"""Images and maps of labels as arrays of bytes, a pixel for each pixel; their files."""

from __future__ import annotations

import colorsys
import os

import numpy as np

from .. import _check, _files
from ._arguments import colours_of, image_of, labels_of
from ._base import pillow

__all__ = [
    "boundaries",
    "cutout",
    "label_colours",
    "mean_colours",
    "overlay",
    "save_image",
    "save_labels",
]

# Label 0, by custom the background, is grey.
LABELS = ("#7F7F7F", "#E69F00", "#0072B2", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#F0E442")
MOST_COLOURS = 1 << 20
GOLDEN = 0.618034  # of the circle of hues from one further colour to the next


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
    _check.integer("label_colours", "n", n, 0, MOST_COLOURS)
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
        A row for each label.
    opacity : 0 for the image, 1 for the colours alone
    border : whether pixels to the left of another label, or above one, are white

    Returns
    -------
    array, [H, W, 3], uint8

    Raises
    ------
    TypeError, ValueError
        If an argument is not as said above, or the labels do not have the image's size.

    Examples
    --------
    >>> import numpy as np
    >>> from cv3gpu import viz
    >>> image, labels = np.full((1, 3), 100, np.uint8), np.array([[-1, 0, 1]])
    >>> viz.overlay(image, labels, opacity=0.5)[0].tolist()
    [[100, 100, 100], [114, 114, 114], [165, 130, 50]]
    """
    op = "overlay"
    image_of(op, "image", image)
    labels_of(op, "labels", labels, image, whole=True)
    _check.fraction(op, "opacity", opacity)
    count = int(labels.max(initial=0)) + 1
    if colours is None:
        if count > MOST_COLOURS:
            _check.fail(op, "labels", f"be below {MOST_COLOURS} where no colours are given", count - 1)
        colours = label_colours(count)
    colours_of(op, colours, count)
    share = np.where(labels < 0, 0, opacity)[..., None]
    mixed = (1 - share) * _plain(image) + share * colours[np.maximum(labels, 0)]
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

    Raises
    ------
    TypeError, ValueError
        If an argument is not as said above, or the labels do not have the image's size.

    Examples
    --------
    >>> import numpy as np
    >>> from cv3gpu import viz
    >>> image, labels = np.zeros((1, 3), np.uint8), np.array([[4, 4, 7]])
    >>> viz.boundaries(image, labels)[0].tolist()
    [[0, 0, 0], [255, 225, 0], [0, 0, 0]]
    """
    op = "boundaries"
    image_of(op, "image", image)
    labels_of(op, "labels", labels, image)
    if not isinstance(colour, tuple | list) or len(colour) != 3:
        _check.fail(op, "colour", "be three numbers", repr(colour), error=TypeError)
    for part in colour:
        _check.integer(op, "colour", part, 0, 255)
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

    Raises
    ------
    TypeError, ValueError
        If an argument is not as said above, or the labels do not have the image's size.

    Examples
    --------
    >>> import numpy as np
    >>> from cv3gpu import viz
    >>> image, labels = np.array([[10, 20, 90]], np.uint8), np.array([[0, 0, 1]])
    >>> viz.mean_colours(image, labels)[0].tolist()
    [[15], [15], [90]]
    """
    image_of("mean_colours", "image", image, channels=())
    labels_of("mean_colours", "labels", labels, image, whole=True)
    plain, flat = _plain(image), labels.ravel()
    inside = flat >= 0
    part = np.unique(flat[inside], return_inverse=True)[1]  # labels may be few and large
    count = np.bincount(part)
    mixed = plain.reshape(flat.size, plain.shape[2]).astype(np.float64)
    for channel in mixed.T:
        channel[inside] = (np.bincount(part, channel[inside]) / count)[part]
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

    Raises
    ------
    TypeError, ValueError
        If an argument is not as said above, or sizes differ.
    """
    op = "cutout"
    image_of(op, "image", image)
    labels_of(op, "labels", labels, image)
    _check.fraction(op, "dimmed", dimmed)
    for name, seeds in (("foreground", foreground), ("background", background)):
        if seeds is not None and labels_of(op, name, seeds, image).dtype != bool:
            _check.fail(op, name, "have dtype bool", seeds.dtype.name, error=TypeError)
    if rect is not None and (not isinstance(rect, tuple | list) or len(rect) != 4):
        _check.fail(op, "rect", "be four numbers, x, y, width and height", repr(rect), error=TypeError)
    shade = np.where(labels > 0, -1, 0)
    drawn = overlay(image, shade, colours=np.zeros((1, 3), np.uint8), opacity=dimmed, border=True)
    _, orange, blue = label_colours(3)
    if rect is not None:
        x, y, width, height = (_check.integer(op, "rect", n, 0) for n in rect)
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
    op = "save_image"
    _files.path(op, "path", path)
    image_of(op, "image", image)
    _check.dtype(op, "image", image, ["uint8"])
    _some(op, "image", image)
    _written(image, path)


def _some(op: str, argument: str, x: np.ndarray) -> None:
    if not x.size:
        _check.fail(op, argument, "have a pixel", x.shape)


def _written(image: np.ndarray, path: str | os.PathLike[str]) -> None:
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

    Raises
    ------
    TypeError, ValueError
        If an argument is not as said above, or there is no pixel.
    """
    op = "save_labels"
    _files.path(op, "path", path)
    labels_of(op, "labels", labels)
    _some(op, "labels", labels)
    if colours is not None:
        colours_of(op, colours, 0)
    low, high = int(labels.min(initial=0)), int(labels.max(initial=0))
    if low < 0 or high > 65535:
        _check.fail(op, "labels", "be from 0 to 65535", f"{low} to {high}")
    if high > 255:
        _written(labels.astype(np.uint16), path)
        return
    picture = pillow().fromarray(labels.astype(np.uint8)).convert("L")
    picture.putpalette((label_colours(256) if colours is None else colours)[:256].tobytes())
    with _files.replacing(path) as unfinished:
        picture.save(unfinished, format="PNG")
