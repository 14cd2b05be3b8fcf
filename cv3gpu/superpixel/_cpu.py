"""SLIC on the CPU: one image at a time, its rows in threads."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .._njit import compiled
from .._threads import cores, each, spans
from . import _loops, model

__all__ = ["segment"]

Array = np.ndarray[Any, Any]

_LANES = 8  # rows are padded to a multiple of this
_PIECE = 1 << 14  # pixels that are worth a thread
_FEWEST = 3  # channels, of which some may be zeros: the loop of three is fast
_WIDE = (1 << 17) - 1  # the sum of so many colours fits in 32 bits
_KEPT = 1 << 26  # bytes of a plane that may be kept
_NOWHERE = np.empty((0, 0), np.uint8)


def _bands(height: int, width: int) -> list[tuple[int, int]]:
    """Rows of an image, for each thread."""
    return spans(height, min(cores(), height * width // _PIECE))


class _Space:
    """Work space for an image. The last one is kept: memory that is new to the process costs more than an iteration."""

    kept: list[_Space] = []

    def __init__(self, height: int, width: int, channels: int) -> None:
        self.shape = height, width, channels
        padded = -(-width // _LANES) * _LANES
        shapes = (height, max(channels, _FEWEST), padded), (height, channels, width + 1), (height, padded)
        sizes = [math.prod(shape) for shape in shapes]
        memory = np.empty(sum(sizes), np.int32)
        parts = np.split(memory, np.cumsum(sizes)[:-1])
        planes, self.before, self.labels = (x.reshape(shape) for x, shape in zip(parts, shapes, strict=True))
        self.planes = planes.view(np.float32)  # whole numbers
        self.planes[:, :, width:] = 0
        self.planes[:, channels:] = 0
        if width > _WIDE:
            self.before = np.empty(shapes[1], np.int64)
        self.labels[...] = 0

    @classmethod
    def take(cls, *shape: int) -> _Space:
        try:
            found = cls.kept.pop()
        except IndexError:
            return cls(*shape)
        return found if found.shape == shape else cls(*shape)

    def give_back(self) -> None:
        if self.before.nbytes <= _KEPT and not self.kept:
            self.kept.append(self)


def _convert(image: Array, low: np.float32, scale: np.float32, lab: bool, planes: Array, before: Array) -> None:
    """Whole numbers ``planes`` [H, C, W padded] of an image, and their sums along rows ``before`` [H, C, W + 1]."""
    height, width, _ = image.shape
    ends = low, scale

    def convert(first: int, last: int) -> None:
        if not lab:
            compiled(*_loops.PLAIN)(image, *ends, model.UNIT, first, last, planes, before)
            return
        space = np.empty((9, width), np.float32)
        given = (model.TABLE, model.XYZ, model.LAB_UNIT, first, last, planes, before, space, space.view(np.int32))
        if image.dtype == np.uint8:
            compiled(*_loops.LAB_BYTES)(image, *ends, *given, np.empty(256, np.float32))
        else:
            compiled(*_loops.LAB)(image, *ends, *given)

    each(convert, _bands(height, width))


def _smooth(sharp: Array, weights: Array, width: int, planes: Array, before: Array) -> None:
    def smooth(first: int, last: int) -> None:
        space = np.empty((2, width + len(weights) - 1), np.float32)
        compiled(*_loops.SMOOTH)(sharp, weights, width, first, last, planes, before, space)

    each(smooth, _bands(len(sharp), width))


def segment(image: Array, mask: Array | None, plan: model.Plan) -> Array:
    """Labels [H, W] of an image [H, W, C]."""
    height, width, channels = image.shape
    space = _Space.take(height, width, channels)
    planes, before, labels = space.planes, space.before, space.labels
    if plan.smoothing is None:
        _convert(image, *model.span(image, mask), plan.lab, planes, before)
    else:
        sharp = np.zeros_like(planes)
        _convert(image, *model.span(image, mask), plan.lab, sharp, before)
        _smooth(sharp, plan.smoothing, width, planes, before)
    padded = planes.shape[2]
    inside = _NOWHERE if mask is None else mask
    rows, columns = plan.rows, plan.columns
    clusters = rows * columns
    bands = _bands(height, width)
    sums = np.empty((len(bands), clusters, 3 + planes.shape[1]), np.int64)
    most = np.empty((len(bands), clusters), np.float32)
    most[...] = plan.softness
    centre = np.full((clusters, 3 + planes.shape[1]), np.inf, np.float32)
    xs, cuts = np.arange(padded, dtype=np.float32), np.empty((len(bands), width + 1), np.int32)

    def begin(part: int, first: int, last: int) -> None:
        sums[part] = 0
        compiled(*_loops.BEGIN)(inside, width, rows, columns, first, last, before, labels, cuts[part],
                                 sums[part])  # fmt: skip

    def iterate(step: int, phase: int, adding: bool, part: int, first: int, last: int) -> None:
        sums[part] = 0
        d = np.empty((2, padded), np.float32)
        compiled(*_loops.ITERATE)(
            planes, before, inside, centre, width, rows, columns, plan.block, plan.weight, plan.zero, step, phase,
            adding, first, last, xs, d, np.empty(9, np.int32), cuts[part], labels, sums[part], most[part],
        )  # fmt: skip

    pieces = [(part, *band) for part, band in enumerate(bands)]
    each(begin, pieces)
    for step, phase, adding in model.schedule(plan):
        compiled(*_loops.MEANS)(sums.sum(0), most.max(0), plan.zero, centre)
        each(iterate, [(step, phase, adding, *piece) for piece in pieces])
    out = _segments(labels, before, plan)
    space.give_back()
    return out


def _segments(labels: Array, before: Array, plan: model.Plan) -> Array:
    """Numbers what hangs together, after what is too small has joined others."""
    height, channels, width = before.shape[0], before.shape[1], before.shape[2] - 1
    runs = compiled(*_loops.COUNT_RUNS)(labels, width)
    start, head, found = np.empty(runs + 1, np.int32), np.empty(height + 1, np.int64), np.empty(runs, np.int32)
    compiled(*_loops.FIND_RUNS)(labels, width, start, head)
    out = np.empty((height, width), np.int64)
    if plan.connect:
        count = compiled(*_loops.CONNECT)(labels, width, start, head, found)
    else:
        seen = np.full(plan.rows * plan.columns, -1, np.int32)
        count = compiled(*_loops.FIRST_SEEN)(labels, start, head, seen, found)
    number = np.arange(count, dtype=np.int32)
    if plan.connect and plan.least > 1:
        sums = np.zeros((count, 1 + channels), np.int64)
        compiled(*_loops.ADD_SEGMENTS)(start, head, found, width, before, sums)
        pairs = np.empty((3 * runs, 2), np.int32)
        borders = compiled(*_loops.BORDERS)(start, head, found, width, sums, plan.least, pairs)
        if borders:
            group, best, moved = (np.empty(count, np.int32) for _ in range(3))
            near, mean = np.empty(count, np.float32), np.empty((count, channels), np.float32)
            compiled(*_loops.MERGE)(sums, pairs, borders, plan.least, group, best, near, moved, mean, number)
    compiled(*_loops.WRITE)(start, head, found, number, plan.start_label, out)
    return out
