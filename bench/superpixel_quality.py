"""How well superpixels keep to the borders that people drew: ``python -m bench.superpixel_quality --data DIR``.

DIR is a folder, or a zip file, of photographs ``<id>.jpg`` and human segmentations ``<id>.npz`` (``segmentations``
[annotators, H, W]), as those of BSDS500. For each way of segmenting and each number of superpixels asked for the table
shows, as means over annotators and images,

* boundary recall: the share of the annotator's border pixels within ``TOLERANCE`` pixels (Chebyshev) of a superpixel's;
* under-segmentation error (Neubert and Protzel): sum over superpixels P and regions S of min(|P & S|, |P - S|), by
  the number of pixels;
* how many superpixels there were.
"""

from __future__ import annotations

import argparse
import io
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

import cv3gpu

TOLERANCE = 2  # pixels
COUNTS = (100, 200, 400, 600, 1000)

Labels = np.ndarray
Way = Callable[[np.ndarray, int], Labels]


def borders(labels: Labels) -> np.ndarray:
    """Pixels whose right or lower neighbour has another label, as bools [H, W]."""
    found = np.zeros(labels.shape, bool)
    found[:, :-1] |= labels[:, 1:] != labels[:, :-1]
    found[:-1] |= labels[1:] != labels[:-1]
    return found


def boundary_recall(labels: Labels, truth: Labels, tolerance: int = TOLERANCE) -> float:
    """Share of the border pixels of ``truth`` with one of ``labels`` at most ``tolerance`` rows and columns away."""
    from scipy import ndimage

    near = ndimage.maximum_filter(borders(labels).astype(np.uint8), 2 * tolerance + 1) > 0
    wanted = borders(truth)
    return float(near[wanted].mean()) if wanted.any() else 1.0


def undersegmentation(labels: Labels, truth: Labels) -> float:
    """Sum over pairs of a superpixel P and a region S of min(pixels in both, pixels of P elsewhere), by all pixels."""
    _, p = np.unique(labels, return_inverse=True)
    _, s = np.unique(truth, return_inverse=True)
    p, s = p.reshape(-1), s.reshape(-1)
    both = np.bincount(p * (s.max() + 1) + s, minlength=(p.max() + 1) * (s.max() + 1)).reshape(p.max() + 1, -1)
    return float(np.minimum(both, both.sum(1, keepdims=True) - both).sum() / labels.size)


class Score(NamedTuple):
    """Means over annotators and images."""

    recall: float
    undersegmentation: float
    count: float


def score(way: Way, n_segments: int, photographs: list[tuple[np.ndarray, np.ndarray]]) -> Score:
    """Of one way of segmenting, at one number of superpixels asked for."""
    rows = []
    for image, truths in photographs:
        labels = np.asarray(way(image, n_segments))
        both = [(boundary_recall(labels, t), undersegmentation(labels, t)) for t in truths]
        rows.append((*np.mean(both, axis=0), len(np.unique(labels))))
    return Score(*np.mean(rows, axis=0))


def photographs(data: Path) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Image and human segmentations of each photograph of a zip file or a folder."""
    from PIL import Image

    root = data if data.is_dir() else zipfile.Path(data)
    for item in sorted(root.iterdir(), key=lambda path: path.name):
        if item.name.endswith(".npz"):
            with np.load(io.BytesIO(item.read_bytes())) as found:
                truths = found["segmentations"]
            picture = Image.open(io.BytesIO((root / f"{item.name[:-4]}.jpg").read_bytes()))
            yield np.asarray(picture.convert("RGB")), truths


def ours(**options: object) -> Way:
    """:func:`cv3gpu.slic` with options."""
    return lambda image, n: cv3gpu.slic(image, n, **options)  # type: ignore[arg-type]


def scikit_image(**options: object) -> Way:
    """scikit-image's ``slic`` with options."""
    from skimage.segmentation import slic

    return lambda image, n: slic(image, n, start_label=0, **options)


def at_equal_count(scores: list[Score], count: float) -> Score:
    """Between the two scores around ``count`` superpixels, over its logarithm."""
    known = np.log([s.count for s in scores])
    at = np.log(count)
    columns = [float(np.interp(at, known, [s[k] for s in scores])) for k in range(2)]
    return Score(columns[0], columns[1], count)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="zip file or folder of <id>.npz")
    parser.add_argument("--images", type=int, help="only the first so many")
    given = parser.parse_args()
    found = list(photographs(given.data))[: given.images]
    ways = {
        "scikit-image": scikit_image(),
        "ours": ours(),
        "scikit-image, sigma 1": scikit_image(sigma=1),
        "ours, sigma 1": ours(sigma=1.0),
        "scikit-image, zero": scikit_image(slic_zero=True),
        "ours, zero": ours(zero=True),
    }
    print(f"{len(found)} photographs; boundary recall / under-segmentation error / superpixels\n")
    print(f"{'':24}" + "".join(f"{f'n = {n}':>22}" for n in COUNTS))
    curves = {}
    for name, way in ways.items():
        curves[name] = [score(way, n, found) for n in COUNTS]
        cells = [f"{s.recall:.3f} / {s.undersegmentation:.3f} / {s.count:.0f}" for s in curves[name]]
        print(f"{name:24}" + "".join(f"{cell:>22}" for cell in cells))
    print("\nours less the peer's, at the peer's number of superpixels: recall, error")
    for peer in [name for name in ways if name.startswith("scikit-image")]:
        mine = curves[peer.replace("scikit-image", "ours")]
        inside = [s for s in curves[peer] if mine[0].count <= s.count <= mine[-1].count]
        cells = []
        for s in inside:
            recall, error, _ = np.subtract(at_equal_count(mine, s.count), s)
            cells.append(f"K {s.count:.0f}: {recall:+.3f}, {error:+.3f}")
        print(f"{peer:24}" + "".join(f"{cell:>26}" for cell in cells))


if __name__ == "__main__":
    main()
