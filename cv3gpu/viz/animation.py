"""Tracks over the frames: boxes with their trails, as pictures and as an animated GIF."""

from __future__ import annotations

import functools
import importlib
import io
import os
import struct
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .. import _check, _files
from ._base import pillow
from .tracks import ALONE, CANDIDATE, Array, hues, numbered, span

if TYPE_CHECKING:
    from ..mot import Tracks

__all__ = ["track_pictures", "tracks_gif"]

TINTS, SHADES = 9, 4  # of each hue, towards white and towards black, in the palette of a GIF
CLEAR = 255  # its last colour: what was there before
OVER = 2  # pictures are drawn so many times larger, which makes lines smooth
MARGIN = 0.03  # around the boxes of a scene without a size
FAR = 1e5  # pixels; nothing beyond is drawn
MOST_FRAMES = 100_000


class _Scene(NamedTuple):
    """Which part of the plane is drawn, and how large."""

    origin: Array  # left, top
    scale: float  # pixels of the GIF to one of the scene
    width: int  # of the GIF, without the line below
    height: int


class _Boxes(NamedTuple):
    """Boxes in the order of their frames."""

    frame: Array
    box: Array
    number: Array  # of the identity, -1 for none
    name: Array  # what is written beside it


def tracks_gif(
    path: str | os.PathLike[str],
    tracks: Tracks,
    *,
    frames: tuple[int, int] | None = None,
    images: Callable[[int], Any] | None = None,
    size: tuple[int, int] | None = None,
    trail: int = 20,
    fps: float = 25.0,
    longest: int = 640,
) -> None:
    r"""Writes trajectories over the frames as an animated GIF: boxes in a colour for each identity, with their trails.

    Parameters
    ----------
    path : path of the file, which appears whole or not at all
    tracks : Tracks
        Boxes without an identity (-1) are grey; boxes without an area are left out.
    frames : (first, last), optional
        The frames that are shown, both included; if left out, from the first to the last one with a box.
    images : function, optional
        Takes the number of a frame and returns its picture, an array [H, W] or [H, W, 3] of uint8 or float 0–1, or the
        path of one: ``"MOT17-09/img1/{:06d}.jpg".format``. Pictures are shown in grey, so that the colours are those of
        the identities. White ground if left out.
    size : (width, height), pixels, optional
        Of the scene, where there are no pictures; if left out, as far as the boxes that are shown reach.
    trail : int
        Frames for which the way of a box's foot stays visible; 0 for no trails.
    fps : float, at most 50
        Frames per second.
    longest : int, pixels, 32 to 4096
        The longer side of the scene in the GIF; pictures are not enlarged. A line with the frame's number stands below.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as said above, pictures differ in shape, nothing says which frames or which part of the
        plane to show, or there are more than 100,000 frames.
    OSError
        If a picture cannot be read or the file cannot be written.

    Notes
    -----
    Frames are drawn and written one by one: memory does not grow with their number. All share one palette without
    dithering, and each holds only what has changed. The same bytes on every run. Needs Pillow.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> from cv3gpu import mot, viz
    >>> found = mot.Tracks(frame=[1, 2], id=[1, 1], box=[[0, 0, 30, 80], [9, 0, 30, 80]])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = pathlib.Path(folder) / "tracks.gif"
    ...     viz.tracks_gif(file, found, size=(160, 120))
    ...     file.read_bytes()[:6]
    b'GIF89a'
    """
    op = "tracks_gif"
    _files.path(op, "path", path)
    if _check.real(op, "fps", fps, positive=True) > 50:
        _check.fail(op, "fps", "be at most 50", fps)
    drawn = (canvas.places() for _, canvas in _canvases(op, tracks, frames, images, size, trail, longest))
    with _files.replacing(path) as unfinished, unfinished.open("wb") as file:
        file.writelines(_gif(drawn, fps))


def track_pictures(
    tracks: Tracks,
    *,
    frames: tuple[int, int] | None = None,
    images: Callable[[int], Any] | None = None,
    size: tuple[int, int] | None = None,
    trail: int = 20,
    longest: int = 640,
    every: int = 1,
) -> Iterator[tuple[str, Array]]:
    """Trajectories over the frames as pictures, one by one: those of :func:`tracks_gif`, for a page or a film.

    Parameters
    ----------
    tracks, frames, images, size, trail, longest : as for :func:`tracks_gif`
    every : int
        Only every so many-th frame is drawn, from the first one on.

    Yields
    ------
    str
        ``"frame 7"``
    array, [H, W, 3], uint8

    Raises
    ------
    TypeError, ValueError, OSError
        As :func:`tracks_gif`, when it is called, but for what is wrong with a later picture.

    Examples
    --------
    >>> from cv3gpu import mot, viz
    >>> found = mot.Tracks(frame=[1, 2], id=[1, 1], box=[[0, 0, 30, 80], [9, 0, 30, 80]])
    >>> [(label, picture.shape) for label, picture in viz.track_pictures(found, size=(320, 240))]
    [('frame 1', (502, 640, 3)), ('frame 2', (502, 640, 3))]
    """
    op = "track_pictures"
    _check.integer(op, "every", every, 1)
    canvases = _canvases(op, tracks, frames, images, size, trail, longest, every)
    table = np.frombuffer(_palette(), np.uint8).reshape(-1, 3)
    return ((f"frame {frame}", table[canvas.places()]) for frame, canvas in canvases)


def _canvases(
    op: str,
    tracks: Any,
    frames: Any,
    images: Any,
    size: Any,
    trail: int,
    longest: int,
    every: int = 1,
) -> Iterator[tuple[int, _Canvas]]:
    """What :func:`tracks_gif` shows, frame by frame; arguments are checked at once."""
    from ..mot.tracks import checked

    given = checked(op, "tracks", tracks)
    first, last = span(op, given, frames)
    if last - first >= MOST_FRAMES:
        _check.fail(op, "frames", f"be at most {MOST_FRAMES}", f"{last - first + 1}", "choose some with frames=")
    _check.integer(op, "trail", trail, 0)
    _check.integer(op, "longest", longest, 32, 4096)
    if images is not None and not callable(images):
        _check.fail(op, "images", "be a function of a frame's number", _check.kind(images), error=TypeError)
    if images is not None and size is not None:
        _check.fail(op, "size", "be None where images are given", repr(size))
    boxes = _in_order(given, first, last, trail)
    if images is not None:
        size = _picture(op, images, first).size
        longest = min(longest, max(size))
    scene = _scene(op, boxes, first, size, longest)
    grounds = _grounds(op, images, size, range(first, last + 1, every))
    return ((frame, _drawn(scene, boxes, frame, trail, ground)) for frame, ground in grounds)


def _in_order(tracks: Tracks, first: int, last: int, trail: int) -> _Boxes:
    """The boxes that some frame shows, or whose place some trail does."""
    number = numbered(tracks)
    rows = (tracks.frame >= first - trail) & (tracks.frame <= last) & (tracks.box[:, 2:] > 0).all(1)
    kept = np.flatnonzero(rows)
    kept = kept[np.argsort(tracks.frame[kept], kind="stable")]
    return _Boxes(tracks.frame[kept], tracks.box[kept], number[kept], tracks.id[kept])


def _scene(op: str, boxes: _Boxes, first: int, size: Any, longest: int) -> _Scene:
    origin = np.zeros(2)
    if size is not None:
        if not isinstance(size, tuple | list) or len(size) != 2:
            _check.fail(op, "size", "be a pair, width and height", repr(size), error=TypeError)
        extent = np.array([_check.integer(op, "size", side, 1) for side in size], float)
    else:
        inside = boxes.box[boxes.frame >= first]
        if not len(inside):
            _check.fail(op, "size", "be given where no box is shown", None)
        origin, end = inside[:, :2].min(0), (inside[:, :2] + inside[:, 2:]).max(0)
        margin = MARGIN * (end - origin).max()
        origin, extent = origin - margin, end - origin + 2 * margin
    scale = longest / float(extent.max())
    width, height = np.maximum(1, np.rint(scale * extent)).astype(int).tolist()
    return _Scene(origin, scale, width, height)


def _grounds(op: str, images: Any, size: Any, frames: range) -> Iterator[tuple[int, Any]]:
    """Each frame with its picture, or None."""
    for frame in frames:
        ground = None if images is None else _picture(op, images, frame)
        if ground is not None and ground.size != size:
            wanted, got = (f"{width} x {height}" for width, height in (size, ground.size))
            _check.fail(op, "images", "be of one size", f"{got} in frame {frame} after {wanted}")
        yield frame, ground


def _picture(op: str, images: Callable[[int], Any], frame: int) -> Any:
    """The picture of a frame in grey, as an image of Pillow."""
    given = images(frame)
    if isinstance(given, str | os.PathLike):
        with pillow().open(given) as opened:
            return opened.convert("L")
    values = np.asarray(given)
    if values.dtype != np.uint8 and values.dtype.kind != "f":
        _check.fail(op, "images", "return uint8, float or a path", values.dtype.name, error=TypeError)
    if values.ndim not in (2, 3) or values.shape[2:] not in ((), (3,)) or not values.size:
        _check.fail(op, "images", "return shape [H, W] or [H, W, 3]", values.shape)
    if values.dtype != np.uint8:
        values = np.rint(255 * np.clip(values, 0, 1)).astype(np.uint8)
    return pillow().fromarray(np.ascontiguousarray(values)).convert("L")


def _rgb(colour: str) -> tuple[int, ...]:
    return tuple(bytes.fromhex(colour[1:]))


def _mixed(colour: tuple[int, ...], share: float, ground: int = 255) -> tuple[int, ...]:
    """A colour with some of the ground in it."""
    return tuple(round(share * part + (1 - share) * ground) for part in colour)


@functools.cache
def _palette() -> bytes:
    """256 colours: each hue with tints and shades, greys from black to white, and the last for what has not changed."""
    colours: list[tuple[int, ...]] = []
    for hue in map(_rgb, hues()):
        colours += [_mixed(hue, k / TINTS) for k in range(1, TINTS + 1)]
        colours += [_mixed(hue, k / (SHADES + 1), 0) for k in range(1, SHADES + 1)]
    greys = np.rint(np.linspace(0, 255, CLEAR - len(colours))).astype(int).tolist()
    colours += [(grey,) * 3 for grey in greys]
    return bytes(part for colour in colours for part in colour) + bytes(3)


@functools.cache
def _greys() -> Array:
    """The place in the palette of each grey from 0 to 255."""
    table = np.frombuffer(_palette(), np.uint8)[: 3 * CLEAR].reshape(-1, 3)
    first = len(hues()) * (TINTS + SHADES)
    ramp = table[first:, 0].astype(int)
    return (first + np.abs(np.arange(256)[:, None] - ramp).argmin(1)).astype(np.uint8)


@functools.cache
def _palette_image() -> Any:
    image = pillow().new("P", (1, 1))
    image.putpalette(_palette()[: 3 * CLEAR] + _palette()[:3])  # the clear colour is never the nearest
    return image


class _Canvas:
    """A picture that is drawn larger than it is shown."""

    def __init__(self, scene: _Scene, ground: Any) -> None:
        image = pillow()
        self.scene, self.on_picture = scene, ground is not None
        self.letters = max(11, (scene.width + scene.height) // 80)  # the height of a line of text, pixels of the GIF
        self.font = importlib.import_module("PIL.ImageFont").load_default(OVER * self.letters)
        self.area = OVER * scene.width, OVER * scene.height
        self.image = image.new("RGB", (self.area[0], self.area[1] + OVER * (self.letters + 8)), "white")
        if ground is not None:
            self.image.paste(ground.resize(self.area, image.Resampling.BILINEAR))
        self.draw = importlib.import_module("PIL.ImageDraw").Draw(self.image)
        self.tags: list[tuple[float, float, float, float]] = []

    def place(self, points: Array) -> Array:
        """Points of the scene, [..., 2], on the canvas."""
        placed: Array = np.clip(OVER * self.scene.scale * (points - self.scene.origin), -FAR, FAR)
        return placed

    def trail(self, points: Array, age: Array, hue: tuple[int, ...]) -> None:
        """A way over the ground; ``age`` is 0 for the newest point and grows to 1."""
        for n in range(1, len(points)):
            fresh = 1 - age[n]
            ink = hue if self.on_picture else _mixed(hue, 0.2 + 0.8 * fresh)
            thick = round(OVER * (1 + 2 * fresh))
            self.draw.line([tuple(points[n - 1]), tuple(points[n])], fill=ink, width=thick)
            self.dot(points[n], thick / 2 - 0.5, ink)  # rounds the bend

    def dot(self, point: Array, radius: float, ink: tuple[int, ...]) -> None:
        """A filled circle."""
        x, y = point
        self.draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=ink)

    def tag(self, corners: Array, words: str, hue: tuple[int, ...]) -> None:
        """A name at a corner of a box where it hides no other one; none if there is no such place."""
        width, height = self.draw.textlength(words, font=self.font) + 4 * OVER, OVER * (self.letters + 3)
        left, top, right, bottom = corners
        for x, y in ((left, top - height), (right - width, top - height), (left, top), (left, bottom)):
            found = x, y, x + width, y + height
            inside = x >= 0 and y >= 0 and found[2] <= self.area[0] and found[3] <= self.area[1]
            if inside and all(
                found[2] <= other[0] or other[2] <= x or found[3] <= other[1] or other[3] <= y for other in self.tags
            ):
                self.tags.append(found)
                self.draw.rectangle(found, fill=hue)
                light = np.dot(hue, (0.299, 0.587, 0.114)) > 150
                ink = "black" if light else "white"
                self.draw.text((x + width / 2, y + height / 2), words, fill=ink, font=self.font, anchor="mm")
                return

    def line_below(self, words: str) -> None:
        """Text under the scene."""
        middle = (self.area[1] + self.image.height) / 2
        self.draw.rectangle([0, self.area[1], *self.image.size], fill="white")
        self.draw.line([0, self.area[1], self.area[0], self.area[1]], fill=CANDIDATE, width=OVER)
        self.draw.text((OVER * 6, middle), words, fill="#404040", font=self.font, anchor="lm")

    def places(self) -> Array:
        """The picture as places in the palette, [H, W], uint8."""
        small = self.image.reduce(OVER)
        found = np.array(small.quantize(palette=_palette_image(), dither=pillow().Dither.NONE))
        colour = np.asarray(small)
        grey = (colour == colour[..., :1]).all(2)  # where Pillow's choice is only near the best one
        found[grey] = _greys()[colour[grey, 0]]
        return found


def _drawn(scene: _Scene, boxes: _Boxes, frame: int, trail: int, ground: Any) -> _Canvas:
    """One frame."""
    canvas = _Canvas(scene, ground)
    wheel = [_rgb(hue) for hue in hues()]
    recent = slice(*np.searchsorted(boxes.frame, [frame - trail, frame + 1]))
    when, box, number, name = (column[recent] for column in boxes)
    corners = canvas.place(np.concatenate([box[:, :2], box[:, :2] + box[:, 2:]], 1).reshape(-1, 2, 2)).reshape(-1, 4)
    feet = np.stack([(corners[:, 0] + corners[:, 2]) / 2, corners[:, 3]], 1)
    now = np.flatnonzero(when == frame)
    now = now[np.argsort(corners[now, 3], kind="stable")]  # from the far ones to the near ones
    ink = [wheel[k % len(wheel)] if k >= 0 else _rgb(ALONE) for k in number.tolist()]
    if ground is None:
        for row in now:
            canvas.draw.rectangle(corners[row].tolist(), fill=_mixed(ink[row], 2 / TINTS))
    for identity in np.unique(number[number >= 0]) if trail else ():
        way = np.flatnonzero(number == identity)
        canvas.trail(feet[way], (frame - when[way]) / (trail + 1), ink[way[0]])
    for row in now:
        canvas.draw.rectangle(corners[row].tolist(), outline=ink[row], width=2 * OVER)
    for row in now[::-1]:
        if number[row] >= 0:
            canvas.tag(corners[row], str(name[row]), ink[row])
    canvas.line_below(f"frame {frame}")
    return canvas


# ---- the file -------------------------------------------------------------------------------------------


def _gif(pictures: Iterator[Array], fps: float) -> Iterator[bytes]:
    """The parts of a GIF file: of each picture but the first one what has changed, the rest of it being clear."""
    shown = None
    for number, picture in enumerate(pictures):
        rows = columns = (0, 1)
        if shown is None:
            rows, columns = (0, picture.shape[0]), (0, picture.shape[1])
            yield b"GIF89a" + struct.pack("<HHBBB", columns[1], rows[1], 0xF7, 0, 0) + _palette()
            yield b"!\xff\x0bNETSCAPE2.0\x03\x01\0\0\0"  # again and again
            part = picture
        else:
            changed = picture != shown
            if changed.any():
                rows, columns = (_ends(changed.any(axis)) for axis in (1, 0))
            part = np.where(changed, picture, CLEAR)[slice(*rows), slice(*columns)]
        delay = round(100 * (number + 1) / fps) - round(100 * number / fps)  # hundredths of a second
        yield b"!\xf9\x04" + struct.pack("<BHBB", 0b101, delay, CLEAR, 0)  # stays, has a clear colour
        height, width = part.shape
        yield b"," + struct.pack("<HHHHB", columns[0], rows[0], width, height, 0) + _compressed(part)
        shown = picture
    yield b";"


def _ends(some: Array) -> tuple[int, int]:
    """The first of what is true, and behind the last."""
    found = np.flatnonzero(some)
    return int(found[0]), int(found[-1]) + 1


def _compressed(part: Array) -> bytes:
    """The data of a picture as GIF packs them, which Pillow does: out of a file that holds this picture alone."""
    file = io.BytesIO()
    pillow().fromarray(np.ascontiguousarray(part, np.uint8)).save(file, format="GIF", optimize=False, interlace=False)
    packed = file.getvalue()
    at = 13 + (3 << (packed[10] & 7) + 1)  # behind the header and the palette
    while packed[at : at + 1] == b"!":  # an extension: its kind, then blocks up to an empty one
        at += 2
        while packed[at]:
            at += packed[at] + 1
        at += 1
    return packed[at + 10 : -1]
