"""What ``cv3gpu segment slic`` draws, without the shell."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from . import _files, viz

__all__ = ["sizes", "write_superpixels"]

Array = np.ndarray[Any, Any]

MOST_LABELS = 65536  # of a PNG file


def sizes(labels: Array) -> dict[str, int]:
    """How many segments there are, and the least, median and most pixels of one."""
    pixels = np.sort(np.unique(labels[labels >= 0], return_counts=True)[1])
    least, median, most = (int(pixels[k]) for k in (0, len(pixels) // 2, -1))
    return {"count": len(pixels), "least": least, "median": median, "most": most}


def write_superpixels(folder: Path, image: Array, labels: Array) -> list[Path]:
    """Writes labels.png (labels.npy where there are too many), boundaries.png and mean_colours.png."""
    folder.mkdir(exist_ok=True)
    few = int(labels.max(initial=0)) < MOST_LABELS
    files = [folder / name for name in ("labels.png" if few else "labels.npy", "boundaries.png", "mean_colours.png")]
    if few:
        viz.save_labels(labels, files[0])
    else:
        with _files.replacing(files[0]) as unfinished:
            np.save(unfinished, labels)
    viz.save_image(viz.boundaries(image, labels), files[1])
    viz.save_image(viz.mean_colours(image, labels), files[2])
    return files
