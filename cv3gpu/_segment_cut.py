"""What ``cv3gpu segment graphcut`` reads, infers and draws, without the shell."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from . import _array, _pictures, viz
from ._segment import opened
from .errors import DataFormatError
from .graphcut import seeds

__all__ = ["Row", "Run", "Seeds", "graph_cut", "read_seeds", "write_cut"]

Array = np.ndarray[Any, Any]
Rect = tuple[int, int, int, int]

RED, BLUE = (255, 0, 0), (0, 0, 255)  # foreground and background in a picture of scribbles


class Seeds(NamedTuple):
    """What is known of an image: pixels [H, W] of the foreground and the background, and a rectangle around both."""

    foreground: Array
    background: Array
    rect: Rect | None

    def inside(self) -> Array:
        """What the rectangle leaves open, [H, W]."""
        open_to = np.ones(self.foreground.shape, bool)
        if self.rect is not None:
            x, y, width, height = self.rect
            open_to[...] = False
            open_to[y : y + height, x : x + width] = True
        return open_to


class Row(NamedTuple):
    """An iteration of GrabCut: the energy, the share of the foreground, and how many labels are new."""

    iteration: int
    energy: float
    foreground: float
    changed: int


class Run(NamedTuple):
    """What became of a segmentation."""

    labels: Array  # [H, W], 1 = foreground
    energy: float
    rows: list[Row]  # of GrabCut
    steps: Sequence[Array] = ()  # [H, W], the labels after each of them


# ---- files ----------------------------------------------------------------------------------------------


def _read_mask(path: Path, size: tuple[int, int]) -> Array:
    """Where an indexed or grey image is not 0."""
    picture = opened(path, size)
    if len(picture.getbands()) != 1:
        wanted = "must be an indexed or grey image that is not 0 at seeds"
        raise DataFormatError(f"{path}: {wanted}, got Pillow's mode {picture.mode}")
    return np.array(picture) != 0


def _read_scribbles(path: Path, size: tuple[int, int]) -> tuple[Array, Array]:
    """Where an image is purely red, and purely blue; transparent pixels are neither."""
    colours = np.array(_pictures.converted(opened(path, size), "RGBA", str(path)))
    visible = colours[..., 3] > 0
    red, blue = ((colours[..., :3] == colour).all(-1) & visible for colour in (RED, BLUE))
    if not (red.any() or blue.any()):
        wanted = f"must have foreground in red {RED} or background in blue {BLUE}, these very colours"
        raise DataFormatError(f"{path}: {wanted}, got neither")
    return red, blue


def read_seeds(
    size: tuple[int, int], fg: Path | None, bg: Path | None, scribbles: Path | None, rect: Rect | None
) -> Seeds:
    """The seeds in files, together."""
    foreground, background = np.zeros((2, *size), bool)
    for path, mask in ((fg, foreground), (bg, background)):
        if path is not None:
            mask |= _read_mask(path, size)
    if scribbles is not None:
        red, blue = _read_scribbles(scribbles, size)
        foreground |= red
        background |= blue
    found = Seeds(foreground, background, rect)
    for rule, wrong in (
        ("seeds must be of the foreground or of the background, got both", foreground & background),
        ("seeds of the foreground must lie in the rectangle, got one outside", foreground & ~found.inside()),
    ):
        if wrong.any():
            y, x = (int(n[0]) for n in wrong.nonzero())
            more = f" and {wrong.sum() - 1} more" if wrong.sum() > 1 else ""
            raise DataFormatError(f"segment graphcut: {rule} at row {y}, column {x}{more}")
    return found


# ---- cuts -----------------------------------------------------------------------------------------------


def graph_cut(
    image: Array,
    known: Seeds,
    options: Mapping[str, Any],
    put: Callable[[Array], Any] = lambda x: x,
    begin: Callable[[str], None] = lambda part: None,
) -> Run:
    """One cut from seeds, or GrabCut.

    Parameters
    ----------
    image : array, [H, W, 3], uint8
    known : Seeds
    options : lam, sigma, region ("none", "histogram" or "gmm"), connectivity; grabcut, whether to go on with its
        gamma, components and at most so many iterations
    put : what puts an array on the device
    begin : called with the name of each part as it begins
    """
    there, inside = put(image), known.inside()
    outside, start = known.background | ~inside, inside
    if not options["grabcut"] or known.rect is None:
        begin("cut")
        shape = {name: options[name] for name in ("lam", "sigma", "connectivity")}
        region = None if options["region"] == "none" else options["region"]
        labels, flow = seeds.boykov_jolly(there, put(known.foreground), put(outside), region=region, **shape)
        start = _array.to_host(labels) > 0
    if not options["grabcut"]:
        return Run(start.astype(np.uint8), float(flow), [])
    mask = np.where(start, seeds.PROBABLE_FOREGROUND, seeds.PROBABLE_BACKGROUND).astype(np.uint8)
    mask[outside], mask[known.foreground] = seeds.BACKGROUND, seeds.FOREGROUND
    steps = seeds.grab_cut_steps(
        there,
        mask=put(mask),
        n_components=options["components"],
        gamma=options["gamma"],
        connectivity=options["connectivity"],
    )
    rows: list[Row] = []
    masks: list[Array] = []
    for k in range(1, options["iterations"] + 1):
        begin(f"iteration {k}")
        step = next(steps)
        rows.append(Row(k, step.energy, float((step.labels != 0).mean()), step.changed))
        masks.append(_array.to_host(step.labels))
        if not step.changed:
            break
    return Run(masks[-1], step.energy, rows, masks)


def write_cut(folder: Path, image: Array, known: Seeds, run: Run) -> list[Path]:
    """Writes mask.png, 255 in the foreground, and overlay.png."""
    folder.mkdir(exist_ok=True)
    files = [folder / name for name in ("mask.png", "overlay.png")]
    viz.save_image((255 * run.labels).astype(np.uint8), files[0])
    picture = viz.cutout(image, run.labels, foreground=known.foreground, background=known.background, rect=known.rect)
    viz.save_image(picture, files[1])
    return files
