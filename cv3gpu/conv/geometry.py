"""Which pixels a convolution relates: sizes, padding, taps, and the classes of pixels that share their taps."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from .. import _check
from .._kernel import blocks

__all__ = [
    "DTYPES",
    "PADDING_MODES",
    "SIXTEEN_BIT",
    "Geometry",
    "check_pixels",
    "geometry_of",
    "output_size",
    "padding_of",
    "tile_steps",
]

DTYPES = ("float16", "bfloat16", "float32", "float64")
SIXTEEN_BIT = ("float16", "bfloat16")

# torch's names, in the order of the kernels' numbers (kernels/conv_geometry.cuh).
PADDING_MODES = ("zeros", "reflect", "replicate", "circular")


class Geometry(NamedTuple):
    """Which pixels a convolution relates: everything but batch and channels. Pairs are (rows, columns)."""

    input: tuple[int, int]
    output: tuple[int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int, int, int]  # top, bottom, left, right
    dilation: tuple[int, int]
    groups: int
    padding_mode: str = "zeros"

    @property
    def taps(self) -> int:
        """Number of kernel elements."""
        return self.kernel[0] * self.kernel[1]

    @property
    def border(self) -> int:
        """The kernels' number of the padding mode; 0 as well where there is no padding."""
        return PADDING_MODES.index(self.padding_mode) if any(self.padding) else 0

    @property
    def padded(self) -> Geometry:
        """Of the same convolution of the image with its padding around it."""
        rows, cols = self.input
        top, bottom, left, right = self.padding
        return self._replace(input=(rows + top + bottom, cols + left + right), padding=(0, 0, 0, 0))

    @property
    def pointwise(self) -> bool:
        """Whether each result takes the one pixel at its place."""
        return self.taps == 1 and self.stride == (1, 1) and not any(self.padding)

    @property
    def mirrored(self) -> Geometry | None:
        """Of the convolution that is this one's transpose, with the kernel turned round; None where there is none."""
        reach = [d * (k - 1) for d, k in zip(self.dilation, self.kernel, strict=True)]
        top, bottom, left, right = self.padding
        around = reach[0] - top, reach[0] - bottom, reach[1] - left, reach[1] - right
        if self.stride != (1, 1) or min(around) < 0:
            return None
        return self._replace(input=self.output, output=self.input, padding=around)

    def scalars(self) -> tuple[int, ...]:
        """The part that every kernel takes last: kernel, stride, padding before, dilation."""
        return (*self.kernel, *self.stride, self.padding[0], self.padding[2], *self.dilation)

    def progressions(self) -> tuple[int, int, int, int]:
        """Which taps a pixel of the transpose takes part in: steps and inverses of rows and columns, see Progression.

        Steps of 1 where a product of two would not fit 32 bits; all taps are visited then.
        """
        steps, inverses = [], []
        for stride, dilation in zip(self.stride, self.dilation, strict=True):
            common = math.gcd(stride, dilation)
            step = stride // common if stride < 1 << 15 else 1
            steps.append(step)
            inverses.append(pow(dilation // common, -1, step) if step > 1 else 0)
        return (*steps, *inverses)  # type: ignore[return-value]

    def phases(self) -> tuple[int, tuple[int, int]]:
        """Into how many phases the pixels of the transpose fall, and the rows and columns of the largest."""
        down, across = (min(step, size) for step, size in zip(self.stride, self.input, strict=True))
        return down * across, (blocks(self.input[0], down), blocks(self.input[1], across))

    def reach(self, axis: int, tap: int) -> tuple[int, int]:
        """The first result along an axis to which a tap gives a pixel of the image, and the one after the last."""
        shift, step = tap * self.dilation[axis] - self.padding[2 * axis], self.stride[axis]
        first = max(0, -(shift // step))
        return first, max(first, min(self.output[axis], (self.input[axis] - 1 - shift) // step + 1))

    def reach_back(self, axis: int, tap: int) -> tuple[int, int]:
        """The first pixel along an axis to which a tap of the transpose (stride 1) gives, and one after the last."""
        shift = tap * self.dilation[axis] - self.padding[2 * axis]
        first = max(0, shift)
        return first, max(first, min(self.input[axis], self.output[axis] + shift))

    def taps_in_image(self) -> Iterator[tuple[int, int, tuple[slice, slice], tuple[slice, slice]]]:
        """Each tap (r, s) that meets the image, with the results that it gives to and the pixels it takes from."""

        def axis(a: int, tap: int) -> tuple[slice, slice]:
            first, last = self.reach(a, tap)
            step = self.stride[a]
            start = first * step + tap * self.dilation[a] - self.padding[2 * a]
            return slice(first, last), slice(start, start + (last - first) * step, step)

        for r in range(self.kernel[0]):
            out_rows, in_rows = axis(0, r)
            for s in range(self.kernel[1]):
                out_cols, in_cols = axis(1, s)
                if out_rows.stop > out_rows.start and out_cols.stop > out_cols.start:
                    yield r, s, (out_rows, out_cols), (in_rows, in_cols)

    def useful(self, adjoint: bool) -> float:
        """Which share of the multiplications is with pixels of the image (of the transpose: stride 1)."""
        share, reach = 1.0, self.reach_back if adjoint else self.reach
        for axis, size in enumerate(self.input if adjoint else self.output):
            ends = (reach(axis, tap) for tap in range(self.kernel[axis]))
            share *= sum(last - first for first, last in ends) / (size * self.kernel[axis])
        return share

    def runs(self, axis: int, adjoint: bool) -> tuple[int, int] | None:
        """Where the set of taps changes along an axis of the result: two places, or None where there are more."""
        reach, size = (self.reach_back, self.input[axis]) if adjoint else (self.reach, self.output[axis])
        spans = (reach(axis, tap) for tap in range(self.kernel[axis]))
        ends = {end for span in spans if span[0] < span[1] for end in span}
        inner = sorted(end for end in ends if 0 < end < size)
        return (*inner, size, size)[:2] if len(inner) <= 2 else None  # type: ignore[return-value]


@functools.lru_cache(maxsize=256)
def tile_steps(geometry: Geometry, images: int, tile: int, adjoint: bool) -> tuple[int, int]:
    """How many (tile of pixels, tap) pairs a GPU computes: pixels taken in order, and by tap class.

    A tile in order takes part in every tap that meets the image for one of its pixels. The second is 0 where
    the tap classes are no nine rectangles, or hold 2**31 pixels and more.
    """
    axes = []
    for axis in (0, 1):
        reach, size = (
            (geometry.reach_back, geometry.input[axis]) if adjoint else (geometry.reach, geometry.output[axis])
        )
        place = np.arange(size)
        spans = [reach(axis, tap) for tap in range(geometry.kernel[axis])]
        axes.append(np.array([(place >= first) & (place < last) for first, last in spans]))
    rows, cols = axes
    plane = rows.shape[1] * cols.shape[1]
    pixels = images * plane
    in_order = 0
    starts = np.arange(0, pixels, tile)
    for by_row in rows:
        for by_col in cols:
            meets = np.tile((by_row[:, None] & by_col).reshape(-1), images)
            in_order += int(np.logical_or.reduceat(meets, starts).sum())
    runs = geometry.runs(0, adjoint), geometry.runs(1, adjoint)
    if runs[0] is None or runs[1] is None or pixels >= 2**31:
        return in_order, 0
    by_class = 0
    for top, bottom in zip((0, *runs[0]), (*runs[0], rows.shape[1]), strict=True):
        for left, right in zip((0, *runs[1]), (*runs[1], cols.shape[1]), strict=True):
            if bottom > top and right > left:
                taps = int(rows[:, top].sum()) * int(cols[:, left].sum())
                by_class += taps * blocks(images * (bottom - top) * (right - left), tile)
    return in_order, by_class


def output_size(
    size: Sequence[int],
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> tuple[int, int]:
    """Rows and columns of a convolution's result; ``padding`` is (top, bottom, left, right)."""
    rows = (size[0] + padding[0] + padding[1] - dilation[0] * (kernel_size[0] - 1) - 1) // stride[0] + 1
    cols = (size[1] + padding[2] + padding[3] - dilation[1] * (kernel_size[1] - 1) - 1) // stride[1] + 1
    return rows, cols


def padding_of(
    op: str,
    padding: int | Sequence[int] | str,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
) -> tuple[int, int, int, int]:
    """The argument ``padding`` as (top, bottom, left, right)."""
    if isinstance(padding, str):
        _check.choice(op, "padding", padding, ("same", "valid"))
        if padding == "valid":
            return 0, 0, 0, 0
        if tuple(stride) != (1, 1):
            _check.fail(op, "padding", "be a number where stride is not 1", "'same'")
        rows, cols = (d * (k - 1) for d, k in zip(dilation, kernel_size, strict=True))
        return rows // 2, rows - rows // 2, cols // 2, cols - cols // 2
    if type(padding) is int:
        rows, cols = _check.pair(op, "padding", padding, 0)
        return rows, rows, cols, cols
    if isinstance(padding, Sequence) and len(padding) == 4:
        top, bottom, left, right = (_check.integer(op, "padding", p, 0) for p in padding)
        return top, bottom, left, right
    if isinstance(padding, Sequence) and len(padding) != 2:
        wanted = "be an integer, a pair, (top, bottom, left, right), 'same' or 'valid'"
        _check.fail(op, "padding", wanted, repr(padding))
    rows, cols = _check.pair(op, "padding", padding, 0)
    return rows, rows, cols, cols


def check_pixels(op: str, geometry: Geometry) -> None:
    """On a GPU an image and its result have under 2**32 pixels each: kernels count those of one in 32 bits."""
    for height, width in (geometry.input, geometry.output):
        if height * width >= 2**32:
            advice = "work on tiles (cv3gpu.scale)"
            _check.fail(op, "x", "have, and give, images of under 2**32 pixels on a GPU", (height, width), advice)


def geometry_of(
    op: str,
    image: str,
    size: Sequence[int],
    kernel_size: Sequence[int],
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: Any,
    padding_mode: Any = "zeros",
) -> Geometry:
    """Checks the parameters of a convolution of images of ``size``, which the argument ``image`` gives."""
    steps = _check.pair(op, "stride", stride, 1)
    spread = _check.pair(op, "dilation", dilation, 1)
    count = _check.integer(op, "groups", groups, 1)
    around = padding_of(op, padding, kernel_size, steps, spread)
    out = output_size(size, kernel_size, steps, around, spread)
    padded = (size[0] + around[0] + around[1], size[1] + around[2] + around[3])
    if min(out) < 1:
        reach = tuple(d * (k - 1) + 1 for d, k in zip(spread, kernel_size, strict=True))
        _check.fail(op, image, f"be at least the dilated kernel's size {reach} with its padding", padded)
    if max(padded) >= 2**31:
        _check.fail(op, "padding", "leave the padded image under 2**31 rows and columns", padded)
    mode = _check.choice(op, "padding_mode", padding_mode, PADDING_MODES)
    for n, before, after in ((size[0], *around[:2]), (size[1], *around[2:])):
        most = {"reflect": n - 1, "circular": n}.get(mode, max(before, after))
        if max(before, after) > most:
            _check.fail(op, "padding", f"be at most {most} for {n} pixels where padding_mode is {mode!r}", around)
    taps = int(kernel_size[0]), int(kernel_size[1])
    return Geometry((int(size[0]), int(size[1])), out, taps, steps, around, spread, count, mode)
