"""Pages to look at in a browser: one file each, with pictures inside, that needs no network."""

from __future__ import annotations

import base64
import hashlib
import html
import io
import itertools
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .. import __version__, _check, _files
from ._arguments import listed, mapping, words
from ._base import matplotlib, pillow

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    Picture = np.ndarray[Any, Any] | Figure | str | os.PathLike[str]

__all__ = ["LONGEST", "MOST_BYTES", "MOST_FRAMES", "Page"]

LONGEST = 1024  # pixels of the longer side of a picture; of a scrubber's frames 640
MOST_FRAMES = 240  # of a scrubber
MOST_BYTES = 64 << 20  # of a page
MOST_ROWS = 5000  # of a table
SMALL = 360  # pixels of the longer side, below which a picture is enlarged
TINY = 128  # pixels, below which each of them is to be seen
FILES = {b"\x89PNG\r\n\x1a\n": "png", b"\xff\xd8\xff": "jpeg", b"GIF87a": "gif", b"GIF89a": "gif"}
FEW_STEPS = 12  # all of these are printed, else the one that is shown
LONG_CELL = 60  # characters, after which a cell of a table may break


class _Image(NamedTuple):
    """A picture as the page holds it."""

    data: str  # a data URI
    size: tuple[int, int]  # width and height as they are shown
    look: str  # the classes of the element
    note: str  # what was done to it, "" for nothing


class Page:
    """A page with pictures and tables, to move through with mouse or keyboard; one file, which holds everything.

    Each method adds a part and returns the page. Pictures are arrays [H, W] or [H, W, 3] of uint8 or float 0–1, or
    matplotlib figures, or paths of PNG, JPEG or GIF files. Larger arrays than 1024 pixels (frames: 640) are shown
    smaller, and the page says so. It works from a disk, loads nothing, and prints; without scripts it shows all
    pictures.

    Parameters
    ----------
    title : str
        The heading, and the window's name.
    note : str
        A sentence below it.

    Raises
    ------
    TypeError, ValueError
        By all methods, where an argument is not as said there. By :meth:`save`, for a page of more than 64 MiB.

    Notes
    -----
    All texts are shown as they are, whatever they hold. The same parts give the same bytes on every run, as far as
    Pillow's and matplotlib's versions are the same.

    Examples
    --------
    >>> import numpy as np, tempfile, pathlib
    >>> from cv3gpu import viz
    >>> image = np.linspace(0, 1, 64 * 48).reshape(48, 64)
    >>> page = viz.Page("Thresholds").slider({f"above {t}": 1.0 * (image > t) for t in (0.2, 0.5, 0.8)})
    >>> page = page.swipe(image, 1 - image, names=("image", "negative")).table(["level", "pixels"], [["0.5", 1536]])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     page.save(pathlib.Path(folder) / "thresholds.html")
    """

    def __init__(self, title: str, *, note: str = "") -> None:
        self._title = _text("Page", "title", title)
        self._note = _text("Page", "note", note)
        self._parts: list[str] = []

    def text(self, words: str, *, title: str = "") -> Page:
        """A paragraph.

        Parameters
        ----------
        words : what it says
        title : heading above it
        """
        op = "Page.text"
        said = _text(op, "words", words)
        return self._add(op, "", title, "", [f"<p>{said}</p>"])

    def figure(self, picture: Picture, *, title: str = "", note: str = "", longest: int = LONGEST) -> Page:
        """One picture.

        Parameters
        ----------
        picture : see above
        title, note : heading above it, sentence below it
        longest : int, pixels
            The longer side of an array; a larger one is made smaller.
        """
        op = "Page.figure"
        _text(op, "title", title)
        image = _image(op, "picture", picture, longest)
        return self._add(op, "", title, note, [_tag(image, title)], [image])

    def slider(
        self, steps: Mapping[str, Picture], *, title: str = "", note: str = "", start: int = -1, longest: int = LONGEST
    ) -> Page:
        """Pictures of a course, such as iterations, of which a slider shows one.

        Parameters
        ----------
        steps : mapping of label to picture
        title, note : heading above it, sentence below it
        start : which one is shown first; negative numbers count from the last one
        longest : int, pixels
            The longer side of an array; larger ones are made smaller.
        """
        op = "Page.slider"
        images = _labelled(op, "steps", steps, longest)
        _check.integer(op, "start", start, -len(images), len(images) - 1)
        body = _steps(images, range(len(images))[start], "")
        many = " many" if len(images) > FEW_STEPS else ""
        return self._add(op, f'class="steps{many}"', title, note, body, images.values())

    def scrubber(
        self,
        frames: Mapping[str, Picture] | Iterable[tuple[str, Picture]],
        *,
        fps: float = 25.0,
        title: str = "",
        note: str = "",
        count: int | None = None,
        most: int = MOST_FRAMES,
        longest: int = 640,
    ) -> Page:
        """Pictures of a film, with a slider and a button that plays them.

        Parameters
        ----------
        frames : mapping of label to picture, or pairs of these
            Pairs may come one by one, as from :func:`cv3gpu.viz.track_pictures`: only one at a time is in memory.
        fps : float, at most 60
            Frames per second.
        title, note : heading above it, sentence below it
        count : int, optional
            How many pairs will come, where nothing says that.
        most : int, up to 1000
            Of more frames every second, third and so on is shown, and the page says so.
        longest : int, pixels
            The longer side of an array; larger ones are made smaller.
        """
        op = "Page.scrubber"
        if _check.real(op, "fps", fps, positive=True) > 60:
            _check.fail(op, "fps", "be at most 60", fps)
        _check.integer(op, "most", most, 1, 1000)
        pairs: Any = frames.items() if isinstance(frames, Mapping) else frames
        if not isinstance(pairs, Iterable) or isinstance(pairs, str | bytes | np.ndarray):
            _check.fail(op, "frames", "be a mapping or pairs", _check.kind(frames), error=TypeError)
        if count is None and not hasattr(pairs, "__len__"):
            pairs = list(pairs)
        count = len(pairs) if count is None else _check.integer(op, "count", count, 1)
        every = max(1, math.ceil(count / most))
        images: dict[str, _Image] = {}
        for pair in itertools.islice(pairs, 0, None, every):
            label, picture = listed(op, "frames", pair, 2, ", label and picture")
            if label in images:
                _check.fail(op, "frames", "have different labels", f"{label!r} twice")
            images[label] = _image(op, "frames", picture, longest)
            if len(images) > most:
                _check.fail(op, "frames", f"be {count} as count says", "more")
        _alike(op, "frames", images)
        few = f"Every {_ordinal(every)} of {count} frames is shown." if every > 1 else ""
        body = _steps(images, 0, "Play")
        attributes = f'class="steps many" data-fps="{fps / every:g}"'
        return self._add(op, attributes, title, note, body, images.values(), few)

    def swipe(
        self,
        before: Picture,
        after: Picture,
        *,
        names: tuple[str, str] = ("before", "after"),
        title: str = "",
        note: str = "",
        longest: int = LONGEST,
    ) -> Page:
        """Two pictures of one size, of which an edge that follows the pointer parts one from the other.

        Parameters
        ----------
        before, after : pictures to the left and to the right of the edge
        names : what they are called
        title, note : heading above them, sentence below them
        longest : int, pixels
            The longer side of an array; larger ones are made smaller.
        """
        op = "Page.swipe"
        left, right = words(op, "names", names, 2)
        images = {left: _image(op, "before", before, longest), f"{right}\0": _image(op, "after", after, longest)}
        _alike(op, "after", images)
        figures = [_figure(image, name.rstrip("\0")) for name, image in images.items()]
        label = html.escape(f"share of {left} against {right}")
        body = [
            f'<div class="fit"><div class="sheet">{"".join(figures)}<div class="edge"></div></div>',
            f'<div class="controls"><input type="range" min="0" max="100" value="50" aria-label="{label}"></div></div>',
        ]
        return self._add(op, 'class="swipe"', title, note, body, images.values())

    def montage(
        self, pictures: Mapping[str, Picture], *, title: str = "", note: str = "", longest: int = LONGEST
    ) -> Page:
        """Small pictures side by side, which a click enlarges.

        Parameters
        ----------
        pictures : mapping of label to picture
        title, note : heading above them, sentence below them
        longest : int, pixels
            The longer side of an array; larger ones are made smaller.
        """
        op = "Page.montage"
        images = {
            _label(op, "pictures", label): _image(op, "pictures", picture, longest)
            for label, picture in mapping(op, "pictures", pictures).items()
        }
        buttons = [
            f'<button type="button">{_tag(image, label)}<span>{html.escape(label)}</span></button>'
            for label, image in images.items()
        ]
        wide = all(image.size[0] > 1.5 * image.size[1] > 300 for image in images.values())
        ways = "".join(f'<button type="button">{word}</button>' for word in ("Back", "Next", "Close"))
        body = [
            f'<div class="montage{" wide" * wide}">{"".join(buttons)}</div>',
            f'<dialog aria-label="enlarged picture"><img alt=""><p></p><div>{ways}</div></dialog>',
        ]
        return self._add(op, 'class="gallery"', title, note, body, images.values())

    def table(
        self,
        header: Sequence[str],
        rows: Sequence[Sequence[Any]],
        *,
        foot: Sequence[Sequence[Any]] = (),
        show: Callable[[Any], str] | None = None,
        title: str = "",
        note: str = "",
    ) -> Page:
        """A table that a click on a heading sorts.

        Parameters
        ----------
        header : names of the columns
        rows : sequence of rows of text, numbers, or None for nothing
            At most 5000. Columns of numbers are set to the right and begin with the largest when they are sorted.
        foot : rows that stay below, such as a sum
        show : function, optional
            What a number looks like; default: at most six digits.
        title, note : heading above it, sentence below it
        """
        op = "Page.table"
        count = len(words(op, "header", header))
        if len(rows) > MOST_ROWS:
            _check.fail(op, "rows", f"be at most {MOST_ROWS}", len(rows))
        for row in (*rows, *foot):
            for cell in listed(op, "rows", row, count, ", one for each column"):
                if cell is not None and not isinstance(cell, str | int | float | np.number):
                    _check.fail(op, "rows", "hold text, numbers or None", _check.kind(cell), error=TypeError)
        numeric = [
            any(_is_number(row[k]) for row in (*rows, *foot))
            and not any(isinstance(row[k], str) for row in (*rows, *foot))
            for k in range(count)
        ]
        headings = (
            f'<th scope="col" aria-sort="none"{_right(right)}><button type="button">{html.escape(name)}</button></th>'
            for name, right in zip(header, numeric, strict=True)
        )
        lines = [_row(row, numeric, show) for row in rows]
        below = f"<tfoot>{''.join(_row(row, numeric, show) for row in foot)}</tfoot>" if len(foot) else ""
        inside = f"<thead><tr>{''.join(headings)}</tr></thead><tbody>{''.join(lines)}</tbody>{below}"
        return self._add(op, "", title, note, [f'<div class="scroll"><table>{inside}</table></div>'])

    def html(self) -> str:
        """The whole page.

        Returns
        -------
        str
        """
        folder = resources.files(__package__)
        style, script = ((folder / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
        policy = f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}"
        note = f"<p>{self._note}</p>\n" if self._note else ""
        return (
            f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
            f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{self._title}</title>\n'
            f"<style>{style}</style>\n</head>\n<body>\n<h1>{self._title}</h1>\n{note}"
            + "".join(self._parts)
            + f"<footer>cv3gpu {__version__}</footer>\n<script>{script}</script>\n</body>\n</html>\n"
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the page.

        Parameters
        ----------
        path : path of the file, which appears whole or not at all
        """
        op = "Page.save"
        _files.path(op, "path", path)
        data = self.html().encode("utf-8", "backslashreplace")
        if len(data) > MOST_BYTES:
            advice = "show fewer or smaller pictures"
            _check.fail(op, "page", f"be at most {MOST_BYTES >> 20} MiB", f"{len(data) / (1 << 20):.1f} MiB", advice)
        with _files.replacing(path) as unfinished:
            Path(unfinished).write_bytes(data)

    def _add(
        self,
        op: str,
        attributes: str,
        title: Any,
        note: Any,
        body: Sequence[str],
        images: Iterable[_Image] = (),
        few: str = "",
    ) -> Page:
        heading = f"<h2>{title}</h2>\n" if (title := _text(op, "title", title)) else ""
        said = [_text(op, "note", note), few, *dict.fromkeys(image.note for image in images)]
        below = f'\n<p class="note">{" ".join(filter(None, said))}</p>' if any(said) else ""
        inside = "\n".join(body)
        self._parts.append(f"<section{' ' * bool(attributes)}{attributes}>\n{heading}{inside}{below}\n</section>\n")
        return self


# ---- text -------------------------------------------------------------------------------------------------


def _text(op: str, argument: str, value: Any) -> str:
    """Text as it stands in a page."""
    if not isinstance(value, str):
        _check.fail(op, argument, "be text", _check.kind(value), error=TypeError)
    return html.escape(value)


def _label(op: str, argument: str, value: Any) -> str:
    if not isinstance(value, str):
        _check.fail(op, argument, "have text as labels", _check.kind(value), error=TypeError)
    return value


def _hash(source: str) -> str:
    """What allows this very text in a content security policy."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}'"


def _ordinal(n: int) -> str:
    ends = {1: "st", 2: "nd", 3: "rd"}
    return f"{n}{'th' if n % 100 in (11, 12, 13) else ends.get(n % 10, 'th')}"


def _is_number(cell: Any) -> bool:
    return isinstance(cell, int | float | np.number) and not isinstance(cell, bool)


def _right(right: bool) -> str:
    return ' class="number"' if right else ""


def _row(row: Sequence[Any], numeric: Sequence[bool], show: Callable[[Any], str] | None) -> str:
    cells = []
    for cell, right in zip(row, numeric, strict=True):
        if _is_number(cell):
            plain = str(cell) if isinstance(cell, int | np.integer) else f"{cell:.6g}"
            said = show(cell) if show is not None else plain
            value = f' data-value="{float(cell)!r}"' if math.isfinite(cell) else ""
        else:
            said, value = "" if cell is None else str(cell), ""
        look = _right(right) or (' class="wide"' if len(said) > LONG_CELL else "")
        cells.append(f"<td{look}{value}>{html.escape(said)}</td>")
    return f"<tr>{''.join(cells)}</tr>\n"


# ---- pictures ---------------------------------------------------------------------------------------------


def _tag(image: _Image, words: str) -> str:
    width, height = image.size
    look = f' class="{image.look}"' if image.look else ""
    return f'<img src="{image.data}" width="{width}" height="{height}" alt="{html.escape(words)}"{look}>'


def _figure(image: _Image, label: str, shown: bool = False) -> str:
    look = ' class="shown"' if shown else ""
    return f"<figure{look}>{_tag(image, label)}<figcaption>{html.escape(label)}</figcaption></figure>\n"


def _steps(images: Mapping[str, _Image], start: int, play: str) -> list[str]:
    """Pictures and what moves through them."""
    figures = [_figure(image, label, k == start) for k, (label, image) in enumerate(images.items())]
    button = f'<button type="button">{play}</button>' if play else ""
    slider = f'<input type="range" min="0" max="{len(images) - 1}" value="{start}" aria-label="which picture">'
    return [
        f'<div class="fit"><div class="sheet">\n{"".join(figures)}</div>',
        f'<div class="controls">{button}{slider}<output></output></div></div>',
    ]


def _labelled(op: str, argument: str, given: Any, longest: int) -> dict[str, _Image]:
    images = {
        _label(op, argument, label): _image(op, argument, picture, longest)
        for label, picture in mapping(op, argument, given).items()
    }
    _alike(op, argument, images)
    return images


def _alike(op: str, argument: str, images: Mapping[str, _Image]) -> None:
    """The pictures have one size."""
    if not images:
        _check.fail(op, argument, "have an entry", "none")
    sizes = list(dict.fromkeys(image.size for image in images.values()))
    if len(sizes) > 1:
        (a, b), (c, d), *_ = sizes
        _check.fail(op, argument, "be of one size", f"{c} x {d} after {a} x {b}")


def _image(op: str, argument: str, picture: Any, longest: int) -> _Image:
    """A picture of any kind as the page holds it."""
    _check.integer(op, "longest", longest, 16, 4096)
    if isinstance(picture, str | os.PathLike):
        return _of_file(op, argument, Path(picture))
    if isinstance(picture, np.ndarray):
        return _of_array(op, argument, picture, longest)
    if hasattr(picture, "savefig") and isinstance(picture, matplotlib("figure").Figure):
        return _of_figure(picture)
    wanted = "be a NumPy array, a matplotlib figure or a path"
    _check.fail(op, argument, wanted, _check.kind(picture), error=TypeError)


def _uri(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _of_file(op: str, argument: str, path: Path) -> _Image:
    data = path.read_bytes()
    kind = next((kind for head, kind in FILES.items() if data.startswith(head)), None)
    if kind is None:
        _check.fail(op, argument, "be a PNG, JPEG or GIF file", repr(str(path)))
    try:
        size = pillow().open(io.BytesIO(data)).size
    except OSError as error:
        _check.fail(op, argument, "be a PNG, JPEG or GIF file", f"{str(path)!r}, {error}")
    return _Image(_uri(kind, data), size, "paper" if kind == "png" else "", "")


def _of_figure(figure: Any) -> _Image:
    file = io.BytesIO()
    figure.savefig(file, format="png", bbox_inches="tight", pad_inches=0.08, metadata={"Software": None})
    return _Image(_uri("png", file.getvalue()), pillow().open(file).size, "paper", "")


def _of_array(op: str, argument: str, values: Any, longest: int) -> _Image:
    if values.dtype != np.uint8 and values.dtype.kind != "f":
        _check.fail(op, argument, "have dtype uint8 or float", values.dtype.name, error=TypeError)
    if values.ndim not in (2, 3) or values.shape[2:] not in ((), (3,)) or not values.size:
        _check.fail(op, argument, "have shape [H, W] or [H, W, 3] with a pixel", values.shape)
    if values.dtype != np.uint8:
        if not np.isfinite(values).all():
            _check.fail(op, argument, "be finite", f"{values[~np.isfinite(values)][0]}")
        values = np.rint(255 * np.clip(values, 0, 1)).astype(np.uint8)
    module = pillow()
    image, note, look = module.fromarray(np.ascontiguousarray(values)), "", ""
    width, height = shown = image.size
    if max(shown) > longest:
        shown = (max(1, round(width * longest / max(shown))), max(1, round(height * longest / max(shown))))
        image = image.resize(shown, module.Resampling.BOX, reducing_gap=None)
        note = f"Shown at {shown[0]} x {shown[1]} of {width} x {height} pixels."
    elif max(shown) < SMALL:
        times = -(-SMALL // max(shown))
        shown, look = (width * times, height * times), "pixels" if max(shown) < TINY else ""
    return _Image(_packed(image), shown, look, note)


def _packed(image: Any) -> str:
    """Few colours as PNG, or as JPEG where that is smaller; many as JPEG, unless the picture is tiny."""
    table = _by_palette(image)
    files = {}
    if table is not None or max(image.size) < TINY:
        files["png"] = io.BytesIO()
        (image if table is None else table).save(files["png"], format="PNG", compress_level=6)
    if max(image.size) >= TINY:
        files["jpeg"] = io.BytesIO()
        image.save(files["jpeg"], format="JPEG", quality=88, subsampling=0)
    kind = min(files, key=lambda name: len(files[name].getvalue()))
    return _uri(kind, files[kind].getvalue())


def _by_palette(image: Any) -> Any:
    """The same picture with at most 256 colours in a table, or None if it has more."""
    colours = image.getcolors(256)
    if image.mode != "RGB" or colours is None:
        return image if image.mode == "L" else None
    known = np.sort([red << 16 | green << 8 | blue for _, (red, green, blue) in colours])
    parts = np.asarray(image).astype(np.int64)
    place = np.searchsorted(known, parts[..., 0] << 16 | parts[..., 1] << 8 | parts[..., 2]).astype(np.uint8)
    table = pillow().fromarray(place).convert("L")
    table.putpalette(np.stack([known >> 16, known >> 8 & 255, known & 255], 1).astype(np.uint8).tobytes())
    return table
