"""What the demo works on, and the libraries that it needs beside cv3gpu's own."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import BackendUnavailableError

__all__ = ["OUTLINES", "SEQUENCES", "load_viz", "outline_mask", "photograph", "track_files"]

HINT = "pip install 'cv3gpu[demo]'"
SEQUENCES = ("TUD-Campus", "TUD-Stadtmitte")

# What is to be seen in the photograph before the background, by rough outlines: x, y, x, y ...
OUTLINES = {
    "head": (155, 60, 165, 130, 180, 135, 188, 175, 255, 178, 262, 135, 290, 120, 302, 85, 285, 45, 230, 15, 180, 30),
    "suit": (120, 170, 150, 150, 186, 155, 190, 185, 254, 185, 300, 225, 350, 270, 362, 350, 330, 360, 300, 400,
             280, 511, 22, 511, 20, 400, 35, 320, 50, 260, 110, 215),
    "helmet": (300, 380, 330, 355, 390, 345, 450, 355, 490, 420, 508, 470, 511, 511, 278, 511),
    "flag": (0, 0, 48, 0, 62, 85, 95, 215, 55, 250, 30, 330, 20, 400, 22, 511, 0, 511),
    "shuttle": (395, 20, 410, 0, 435, 20, 455, 100, 455, 230, 465, 270, 370, 280, 375, 225, 357, 220, 385, 150,
                383, 60),
}  # fmt: skip


def photograph() -> np.ndarray:
    """The portrait of Eileen Collins that ships inside scikit-image: [512, 512, 3], float32, 0–1."""
    try:
        image = importlib.import_module("skimage.data").astronaut()
    except ImportError as error:
        raise BackendUnavailableError(f"demo: the photograph needs scikit-image ({error}); {HINT}") from error
    return np.asarray(image, np.float32) / 255


def outline_mask(name: str) -> np.ndarray:
    """Where something of `OUTLINES` is in the photograph: [512, 512], bool."""
    polygon = importlib.import_module("skimage.draw").polygon
    mask = np.zeros((512, 512), bool)
    outline = OUTLINES[name]
    mask[polygon(outline[1::2], outline[::2], mask.shape)] = True
    return mask


def track_files(sequence: str) -> tuple[Path, Path]:
    """Ground truth and prediction inside the motmetrics wheel, which is not imported (it needs NumPy 1)."""
    try:
        distribution = importlib.metadata.distribution("motmetrics")
    except importlib.metadata.PackageNotFoundError as error:
        raise BackendUnavailableError(f"demo: the tracks need the files of motmetrics; {HINT}") from error
    folder = f"motmetrics/data/{sequence}"
    gt, pred = (Path(str(distribution.locate_file(f"{folder}/{name}.txt"))) for name in ("gt", "test"))
    if not (gt.is_file() and pred.is_file()):
        raise BackendUnavailableError(f"demo: motmetrics {distribution.version} has no {folder}; {HINT}")
    return gt, pred


def load_viz() -> Any:
    """:mod:`cv3gpu.viz`, if there is matplotlib for it to draw with."""
    if importlib.util.find_spec("matplotlib") is None:
        raise BackendUnavailableError(f"demo: the pictures need matplotlib; {HINT}")
    return importlib.import_module("cv3gpu.viz")
