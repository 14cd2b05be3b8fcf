"""The demo's dense prediction: filters of several dilations, and resizing."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np

import cv3gpu

from ._checks import Row, compare
from ._inputs import load_viz, photograph
from ._references import bilinear

__all__ = ["convolution", "resize"]

LUMA = np.array([0.299, 0.587, 0.114])
FILTERS = {
    "horizontal derivative": np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]) / 8,
    "vertical derivative": np.array([[-1, -2, -1], [0, 0, 0], [1, 2, 1]]) / 8,
    "Laplacian": np.array([[0, 1, 0], [1, -4, 1], [0, 1, 0]]) / 4,
    "3 x 3 mean": np.full((3, 3), 1 / 9),
}
RATES = (1, 2, 4, 8)
SIZES = ((171, 203), (1024, 1150))
EYES = (slice(86, 140), slice(186, 267))  # rows and columns of the photograph
ZOOM = 8


def convolution(out: Path) -> list[Row]:
    """A bank of edge and smoothing filters at four rates on the photograph's brightness."""
    viz, image = load_viz(), photograph()
    ndimage = importlib.import_module("scipy.ndimage")
    x = np.ascontiguousarray(image.transpose(2, 0, 1))[None]
    bank = np.stack(list(FILTERS.values()))
    weight = (bank[:, None] * LUMA[:, None, None]).astype(np.float32)
    rows, sheet = [], []
    for rate in RATES:
        wide = np.zeros((len(bank), 2 * rate + 1, 2 * rate + 1))
        wide[:, ::rate, ::rate] = bank
        want = np.stack([ndimage.correlate(image.astype(np.float64) @ LUMA, f, mode="constant") for f in wide])[None]

        def call(x: Any, weight: Any, rate: int = rate) -> Any:
            return cv3gpu.conv2d(x, weight, padding=rate, dilation=rate)

        rows += compare(
            "conv2d",
            f"astronaut 3x512x512, {len(bank)} filters 3x3, rate {rate}",
            call,
            (x, weight),
            want,
            "scipy.ndimage",
            2e-6,
        )
        dx, dy, laplacian, mean = call(x, weight)[0]
        sheet.append([mean, np.hypot(dx, dy), laplacian])
    figure = viz.image_grid(
        sheet,
        columns=["3 x 3 mean", "gradient magnitude", "Laplacian"],
        signed=["Laplacian"],
        rows=[f"rate {rate}" for rate in RATES],
        title="conv2d: the same 3 x 3 filters at growing dilation",
    )
    viz.save(figure, out / "dilated_convolution.png")
    return rows


def resize(out: Path) -> list[Row]:
    """Down and up, with the corners aligned and with half-pixel centres."""
    viz, image = load_viz(), photograph()
    x = np.ascontiguousarray(image.transpose(2, 0, 1))[None]
    rows = []
    for size in SIZES:
        for align_corners in (False, True):

            def call(x: Any, size: tuple[int, int] = size, align_corners: bool = align_corners) -> Any:
                return cv3gpu.interpolate(x, size=size, mode="bilinear", align_corners=align_corners)

            words = f"astronaut 3x512x512 to {size[0]}x{size[1]}, align_corners={align_corners}"
            want = bilinear(image, size, align_corners)
            rows += compare("interpolate", words, call, (x,), want, "scipy.ndimage", 1e-6)
    crop = np.ascontiguousarray(x[:, :, EYES[0], EYES[1]])
    size = (ZOOM * crop.shape[2], ZOOM * crop.shape[3])
    panels = {
        "nearest": cv3gpu.interpolate(crop, size=size, mode="nearest"),
        "bilinear": cv3gpu.interpolate(crop, size=size, mode="bilinear", align_corners=False),
        "bilinear, align_corners": cv3gpu.interpolate(crop, size=size, mode="bilinear", align_corners=True),
    }
    figure = viz.image_grid(
        [[p[0].transpose(1, 2, 0) for p in panels.values()]],
        columns=list(panels),
        size=4.2,
        title=f"interpolate: {crop.shape[3]} x {crop.shape[2]} pixels enlarged {ZOOM} times",
    )
    viz.save(figure, out / "resize.png")
    return rows
