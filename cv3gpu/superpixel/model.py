"""What the CPU and the GPU share of SLIC: the grid, the scales, the constants of the colour space."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

__all__ = [
    "LAB_UNIT",
    "STEPS",
    "TABLE",
    "UNIT",
    "XYZ",
    "Plan",
    "gaussian",
    "grid",
    "linear",
    "plan",
    "schedule",
    "span",
]

Array = np.ndarray[Any, Any]

LAB_UNIT = np.float32(64)  # steps of one unit of Lab: components are whole numbers below 2^14
UNIT = np.float32(16384)  # steps of the range of an image that is not converted
STEPS = 4096  # of the table of sRGB's curve
_FULL = 2  # iterations at the end that look at all rows
_ROWS = 4  # of a cell that an iteration looks at, at least
_BLOCK = 8  # pixels beside one another that share their candidates, where cells are at least as wide


def linear(v: Array) -> Array:
    """Linear light of sRGB values in 0-1 (IEC 61966-2-1)."""
    return np.where(v > 0.04045, ((v + 0.055) / 1.055) ** 2.4, v / 12.92)


TABLE = linear(np.arange(STEPS + 1) / STEPS).astype(np.float32)
_WHITE = np.array([0.95047, 1.0, 1.08883])  # D65, 2 degrees
XYZ = (
    np.array([[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]])
    / _WHITE[:, None]
).astype(np.float32)


class Plan(NamedTuple):
    """The parameters of a segmentation as its loops take them."""

    rows: int  # of the grid of cells in which clusters begin
    columns: int
    block: int
    weight: np.float32  # of square distances in the image
    zero: bool
    softness: np.float32  # with `zero`: the least of the largest square colour distances
    max_iter: int
    row_step: int
    lab: bool
    connect: bool
    least: int  # pixels of a segment
    start_label: int
    smoothing: Array | None  # weights of a Gaussian


def grid(height: int, width: int, cells: float) -> tuple[int, int]:
    """Rows and columns of about ``cells`` cells, nearly square; as many as asked for comes first."""
    cells = min(max(cells, 1.0), float(height * width))
    ideal = math.sqrt(cells * height / width)
    found = []
    for rows in {math.floor(ideal), math.ceil(ideal)}:
        rows = min(max(rows, 1), height, max(1, round(cells)))  # of a narrow image each may be a row of cells
        for columns in {math.floor(cells / rows), math.ceil(cells / rows)}:
            columns = min(max(columns, 1), width)
            oblong = abs(math.log(height * columns / (width * rows)))
            found.append((abs(math.log(rows * columns / cells)) + 0.1 * oblong, rows, columns))
    _, rows, columns = min(found)
    return rows, columns


def plan(height: int, width: int, share: float, lab: bool, n_segments: int, compactness: float, max_iter: int,
         row_step: int, zero: bool, connect: bool, min_size_factor: float, start_label: int,
         sigma: float = 0.0) -> Plan:  # fmt: skip
    """``share``: the part of the image that the mask leaves."""
    rows, columns = grid(height, width, n_segments / share)
    step = max(height / rows, width / columns)
    unit = float(LAB_UNIT if lab else UNIT)
    return Plan(
        rows=rows,
        columns=columns,
        block=_BLOCK if width >= _BLOCK * columns else 1,
        weight=np.float32((1.0 if zero else compactness * unit) ** 2 / step**2),
        zero=zero,
        softness=np.float32((compactness * unit) ** 2),
        max_iter=max_iter,
        row_step=max(1, min(row_step, height // (_ROWS * rows))),
        lab=lab,
        connect=connect,
        least=math.ceil(min(min_size_factor * height * width / (rows * columns), height * width)),
        start_label=start_label,
        smoothing=gaussian(sigma) if sigma > 0 else None,
    )


def gaussian(sigma: float) -> Array:
    """Weights of a Gaussian up to four times its width."""
    x = np.arange(-int(4 * sigma + 0.5), int(4 * sigma + 0.5) + 1)
    weights = np.exp(-0.5 * (x / sigma) ** 2)
    return (weights / weights.sum()).astype(np.float32)


def schedule(plan: Plan) -> Iterator[tuple[int, int, bool]]:
    """Of each iteration: every how many-th row it looks at, from which on, and whether another one follows."""
    for i in range(plan.max_iter):
        step = plan.row_step if i < plan.max_iter - _FULL else 1
        yield step, i % step, i + 1 < plan.max_iter


def span(image: Array, mask: Array | None) -> tuple[np.float32, np.float32]:
    """The least value inside the mask and one over the range of the values there; 1 where that is zero."""
    values = image if mask is None else image[mask != 0]
    low, high = (np.float32(values.min()), np.float32(values.max())) if values.size else (np.float32(0),) * 2
    with np.errstate(over="ignore"):  # of a range of denormal numbers: they are then at its ends
        return low, np.float32(1 / (high - low)) if high > low else np.float32(1)
