"""What ``cv3gpu segment`` reads, and what ``cv3gpu segment crf`` infers and draws, without the shell."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from . import _array, _files, _pictures, densecrf, viz
from .crf.arguments import MOST_LABELS, NORMALIZATIONS
from .errors import DataFormatError

__all__ = [
    "Row",
    "Run",
    "dense_crf",
    "opened",
    "read_image",
    "read_labels",
    "read_unary",
    "write_crf",
]

Array = np.ndarray[Any, Any]

DRAWN = (0, 1, 2, 5, 10)  # iterations in the picture
NEAR = 1e-3, 1e-2  # how far a probability may lie outside 0–1, and their sum from 1: 16-bit numbers do

# ---- files ----------------------------------------------------------------------------------------------


def opened(path: Path, size: Sequence[int] | None = None) -> Any:
    """A picture by Pillow, read; of the size (rows, columns) where that is given."""
    with open(path, "rb") as file:
        picture = _pictures.begun(viz.pillow(), file, str(path))
        if size is not None and picture.size != tuple(size[::-1]):
            wanted, got = (" x ".join(map(str, both)) for both in (size[::-1], picture.size))
            raise DataFormatError(f"{path}: must have the size of the image, {wanted}, got {got}")
        return _pictures.decoded(picture, str(path))


def read_image(path: Path) -> Array:
    """An image as RGB, [H, W, 3], uint8."""
    picture = opened(path)
    if picture.mode in ("I", "F") or picture.mode.startswith("I;"):
        raise DataFormatError(f"{path}: must have 8 bits a channel, got Pillow's mode {picture.mode}")
    return np.array(_pictures.converted(picture, "RGB", str(path)))


def read_labels(path: Path, size: Sequence[int], confidence: float, unsure: int | None) -> tuple[Array, list[int]]:
    """Energies [L, N] of the labels that occur in an indexed or grey image, and these labels.

    A label is right with the probability ``confidence``; where it is ``unsure``, it may be any.
    """
    picture = opened(path, size)
    if len(picture.getbands()) != 1 or picture.mode == "F":
        wanted = "must be an indexed or grey image whose values are the labels"
        raise DataFormatError(f"{path}: {wanted}, got Pillow's mode {picture.mode}")
    labels = np.array(picture).astype(np.int64)
    values = [value for value in np.unique(labels).tolist() if value != unsure]
    if not 2 <= len(values) <= MOST_LABELS or values[0] < 0 or values[-1] > 65535:
        got = ", ".join(map(str, values[:3])) + (f" … {values[-1]} ({len(values)})" if len(values) > 3 else "")
        raise DataFormatError(f"{path}: must have 2 to {MOST_LABELS} labels from 0 to 65535, got {got or 'none'}")
    place = np.searchsorted(values, labels) + 1
    if unsure is not None:
        place[labels == unsure] = 0
    return densecrf.unary_from_labels(place, len(values), confidence), values


def _announced(file: Any) -> int:
    """The bytes that the header of an .npy file says are in its array; 0 where it is none, which is found later."""
    try:
        version = np.lib.format.read_magic(file)
        read = {(1, 0): np.lib.format.read_array_header_1_0}.get(version, np.lib.format.read_array_header_2_0)
        shape, _, dtype = read(file)
    except Exception:  # as below
        return 0
    return math.prod(shape) * dtype.itemsize


def _array_in(path: Path, name: str | None, most_bytes: int) -> Array:
    """The array in an .npy file, or the one of a name in an .npz file, of which at most so many bytes come out."""

    def limit(announced: int) -> None:
        if announced > most_bytes:
            raise DataFormatError(f"{path}: must have at most {most_bytes} bytes for this image, got {announced}")

    try:
        with open(path, "rb") as file:
            limit(_announced(file))
        found = np.load(path, allow_pickle=False)
        if not isinstance(found, np.ndarray | np.lib.npyio.NpzFile):
            raise DataFormatError(f"{path}: must be an .npy or .npz file of numbers, got {type(found).__name__}")
        if isinstance(found, np.ndarray):
            if name is not None:
                raise DataFormatError(f"{path}: must be an .npz file for --array {name}, got one array")
            return found
        with found:
            there = ", ".join(found.files) or "none"
            if name is None and len(found.files) != 1:
                raise DataFormatError(f"{path}: must hold one array, or --array name one of them, got {there}")
            if name is not None and name not in found.files:
                raise DataFormatError(f"{path}: must hold an array {name}, got {there}")
            member = name or found.files[0]
            archive: Any = found.zip
            for entry in archive.infolist():
                if entry.filename in (member, f"{member}.npy"):
                    limit(entry.file_size)
                    with archive.open(entry) as inner:
                        limit(_announced(inner))
            inside = found[member]
            if not isinstance(inside, np.ndarray):
                raise DataFormatError(f"{path}: must hold arrays, got something else as {name or there}")
            return inside
    except (DataFormatError, FileNotFoundError, PermissionError, IsADirectoryError):
        raise
    except Exception as error:  # a damaged file raises whatever its damage leads to
        raise DataFormatError(f"{path}: must be an .npy or .npz file of numbers, got {error}") from error


def read_unary(path: Path, size: Sequence[int], name: str | None, layout: str, kind: str) -> Array:
    """Energies [L, N], float32, from a file of probabilities, energies or logits [L, H, W] or [H, W, L]."""
    # complex128 has the widest numbers; a header is a little more
    x = _array_in(path, name, 16 * MOST_LABELS * size[0] * size[1] + (1 << 16))
    if x.dtype.kind not in ("f" if kind == "probability" else "fiu"):
        raise DataFormatError(f"{path}: must hold real numbers (--kind {kind}), got {x.dtype}")
    fits = {"lhw": x.shape[1:] == tuple(size), "hwl": x.shape[:2] == tuple(size)}
    if x.ndim != 3 or not fits[layout]:
        (other,) = fits.keys() - {layout}
        advice = f"; --layout {other} fits" if x.ndim == 3 and fits[other] else ""
        wanted = ["L", *map(str, size)] if layout == "lhw" else [*map(str, size), "L"]
        raise DataFormatError(f"{path}: must have shape [{', '.join(wanted)}] as the image, got {x.shape}{advice}")
    x = np.ascontiguousarray(x if layout == "lhw" else x.transpose(2, 0, 1), dtype=np.float32)
    if not 1 <= len(x) <= MOST_LABELS:
        raise DataFormatError(f"{path}: must have 1 to {MOST_LABELS} labels, got {len(x)}")
    if kind == "probability":
        _refuse(path, "hold probabilities, from 0 to 1", x, ~((x >= -NEAR[0]) & (x <= 1 + NEAR[0])))
        total = x.sum(0, dtype=np.float64)[None]
        _refuse(path, "hold probabilities that sum to 1 over the labels", total, abs(total - 1) > NEAR[1])
        return densecrf.unary_from_softmax(x)
    energies = x if kind == "energy" else -x
    never = "inf" if kind == "energy" else "-inf"
    _refuse(path, f"hold numbers, or {never} for a label that can't be", x, np.isnan(x) | np.isneginf(energies))
    _refuse(path, "allow some label everywhere", x, np.isinf(energies).all(0)[None])
    return energies.reshape(len(x), -1)


def _refuse(path: Path, rule: str, x: Array, wrong: Array) -> None:
    """An error that names the first place [label, row, column] where something is wrong."""
    if wrong.any():
        label, row, column = (int(n[0]) for n in wrong.nonzero())
        of = f"label {label}, " if len(wrong) > 1 else ""
        count = int(wrong.sum())
        got = f"{x[label, row, column]:.6g} at {of}row {row}, column {column}"
        raise DataFormatError(f"{path}: must {rule}, got {got}" + (f" and {count - 1} more" if count > 1 else ""))


# ---- dense CRF ------------------------------------------------------------------------------------------


class Row(NamedTuple):
    """How mean field stands after some iterations; the last two are None at the start."""

    iteration: int
    objective: float
    energy: float
    change: float | None  # the largest, of Q
    relabelled: float | None  # the share of pixels whose best label is another one


class Run(NamedTuple):
    """What became of a dense CRF."""

    rows: list[Row]
    labels: Array  # [H, W]
    smooth: Array  # [H, W], without the appearance kernel
    marginals: Array  # [L, H, W]
    steps: dict[int, tuple[Array, Array]]  # after some iterations the labels, -1 if unsure; the marginals of one
    followed: int  # that label


def dense_crf(
    image: Array,
    energies: Array,
    options: Mapping[str, Any],
    put: Callable[[Array], Any] = lambda x: x,
    begin: Callable[[str], None] = lambda part: None,
    kept: int = 0,
) -> Run:
    """Mean field step by step.

    Parameters
    ----------
    image : array, [H, W, 3], uint8
    energies : array, [L, N], float32
    options : the arguments of :func:`cv3gpu.dense_crf`, n_iter being ``iterations``
    put : what puts an array on the device
    begin : called with the name of each part as it begins; two more parts than iterations
    kept : of about how many iterations the steps are kept, besides those that are drawn
    """
    (height, width), n, n_iter = image.shape[:2], len(energies), options["iterations"]
    word = densecrf.NormalizationType(NORMALIZATIONS.index(options["normalization"]))

    def flat(x: Any) -> Array:
        return _array.to_host(x).reshape(height, width)

    unsure = flat((energies == energies[:1]).all(0)) & (n > 1)

    begin("smoothness")
    crf = densecrf.DenseCRF2D(width, height, n, method=options["method"])
    crf.setUnaryEnergy(put(energies))
    crf.addPairwiseGaussian(options["theta_gamma"], options["compat_smooth"], normalization=word)
    smooth = flat(crf.inference(n_iter).argmax(0))
    begin("appearance")
    crf.addPairwiseBilateral(
        options["theta_alpha"], options["theta_beta"], put(image), options["compat_bilateral"], normalization=word
    )
    field = crf.meanField()
    q, labels = field.q[0], smooth
    doubt = _array.to_host((q * (1 - q)).sum(1))
    followed = int(doubt[1:].argmax()) + 1 if n > 1 else 0  # not the first, which tends to be the background
    rows, steps = [], {}
    for k in range(n_iter + 1):
        change, old = None, labels
        if k:
            begin(f"iteration {k}")
            before = field.rows
            field.step()
            change, q = float(abs(field.rows - before).max()), field.q[0]
        labels = flat(q.argmax(0))
        relabelled = float((labels != old).mean()) if k else None
        rows.append(Row(k, float(field.divergence()[0]), float(field.energy()[0]), change, relabelled))
        if k in (*DRAWN, n_iter) or (kept and k % -(-n_iter // kept) == 0):
            steps[k] = labels if k else np.where(unsure, -1, labels), flat(q[followed]).copy()
    return Run(rows, labels, smooth, _array.to_host(q).reshape(n, height, width), steps, followed)


def write_crf(
    folder: Path,
    title: str,
    image: Array,
    run: Run,
    values: Sequence[int],
    names: Sequence[str],
    marginals: bool = False,
) -> list[Path]:
    """Writes labels.png, overlay.png, iterations.png, triptych.png and, where asked for, marginals.npy.

    ``values`` are what the labels are called in labels.png, ``names`` what they are called in the pictures.
    """
    colours = viz.label_colours(len(values))
    palette = viz.label_colours(max(256, max(values) + 1))
    palette[list(values)] = colours
    style: dict[str, Any] = {"colours": colours, "names": names}
    drawn = {k: run.steps[k] for k in run.steps if k in (*DRAWN, len(run.rows) - 1)}
    iterations = viz.iterations_figure(
        image, drawn, marginal=names[run.followed], title=f"{title}: mean field of a dense CRF", **style
    )
    panels = {
        "image": None,
        "unary: best labels": run.steps[0][0],
        "smoothness only": run.smooth,
        "dense CRF": run.labels,
    }
    triptych = viz.labels_figure(image, panels, title=title, **style)
    folder.mkdir(exist_ok=True)
    files = [folder / name for name in ("labels.png", "overlay.png", "iterations.png", "triptych.png")]
    viz.save_labels(np.array(values)[run.labels], files[0], palette)
    viz.save_image(viz.overlay(image, run.labels, colours=colours, border=True), files[1])
    viz.save(iterations, files[2])
    viz.save(triptych, files[3])
    if marginals:
        files.append(folder / "marginals.npy")
        with _files.replacing(files[-1]) as unfinished:
            np.save(unfinished, run.marginals)
    return files
