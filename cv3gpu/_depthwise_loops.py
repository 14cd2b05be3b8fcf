"""Depthwise convolution of NumPy images: inner loops for `_njit.compiled`, and what makes them ready.

Channels first, the rows of a plane that are needed are copied between zeros, and apart by the phases of the stride:
then every tap reads at a fixed distance, and all results of a plane are one long sum of shifted rows. Channels last, a
pixel sums rows of channels, over the taps that lie in the image.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

from . import _njit
from ._njit import inlined
from ._threads import cores, each

__all__ = ["Depthwise", "forward"]

Array = np.ndarray[Any, Any]

_ENOUGH = 2**15  # results of several taps each: fewer are not worth a second thread


# ---- sums of shifted rows -------------------------------------------------------------------------------


@inlined
def _add9(out: Array, x: Array, at: Array, start: int, w: Array, t: int) -> None:
    """``out += w[t] x[start + at[t]:] + ...``, of nine taps."""
    w0, w1, w2, w3, w4 = w[t], w[t + 1], w[t + 2], w[t + 3], w[t + 4]
    w5, w6, w7, w8 = w[t + 5], w[t + 6], w[t + 7], w[t + 8]
    x0, x1, x2 = x[start + at[t] :], x[start + at[t + 1] :], x[start + at[t + 2] :]
    x3, x4, x5 = x[start + at[t + 3] :], x[start + at[t + 4] :], x[start + at[t + 5] :]
    x6, x7, x8 = x[start + at[t + 6] :], x[start + at[t + 7] :], x[start + at[t + 8] :]
    for i in range(out.shape[0]):
        upper = w0 * x0[i] + w1 * x1[i] + w2 * x2[i]
        middle = w3 * x3[i] + w4 * x4[i] + w5 * x5[i]
        lower = w6 * x6[i] + w7 * x7[i] + w8 * x8[i]
        out[i] += (upper + middle) + lower


@inlined
def _add3(out: Array, x: Array, at: Array, start: int, w: Array, t: int) -> None:
    """As `_add9`, of three taps."""
    w0, w1, w2 = w[t], w[t + 1], w[t + 2]
    x0, x1, x2 = x[start + at[t] :], x[start + at[t + 1] :], x[start + at[t + 2] :]
    for i in range(out.shape[0]):
        out[i] += w0 * x0[i] + w1 * x1[i] + w2 * x2[i]


@inlined
def _add1(out: Array, x: Array, at: Array, start: int, w: Array, t: int) -> None:
    """As `_add9`, of one tap."""
    w0, x0 = w[t], x[start + at[t] :]
    for i in range(out.shape[0]):
        out[i] += w0 * x0[i]


def _spread(x: Array, top: int, left: int, high: int, wide: int, sh: int, sw: int, pitch: int, size: int,
            space: Array) -> None:  # fmt: skip
    """Copies a plane's rows from ``top`` (may be negative) on, ``high`` of them, to where phases of the strides lie.

    Column z of the image is column z + left of ``wide``; phases have ``size`` elements, and rows of ``pitch``.
    """
    for r in range(max(0, -top), min(high, x.shape[0] - top)):
        row, to = x[top + r], (r % sh) * sw * size + r // sh * pitch
        for phase in range(sw):
            first = max(0, (left - phase + sw - 1) // sw)
            last = (min(wide, left + x.shape[1]) - phase + sw - 1) // sw
            if first >= last:
                continue
            into, source = space[to + phase * size + first :], row[phase + first * sw - left :]
            if sw == 1:
                for k in range(last - first):
                    into[k] = source[k]
            else:
                for k in range(last - first):
                    into[k] = source[k * sw]


def _planes(x: Array, w: Array, shift: Array, out: Array, space: Array, total: Array, at: Array, first: int, last: int,
            multiplier: int, top: int, left: int, rows: int, cols: int, high: int, wide: int, sh: int, sw: int,
            low: float, most: float) -> None:  # fmt: skip
    """Results [channels, rows * cols] of channels ``first`` to ``last``, from images [C, H, W].

    ``space`` and ``total`` are work space: for a plane with zeros around it, and for a plane's sums.
    """
    pitch = (wide + sw - 1) // sw
    size = (high + sh - 1) // sh * pitch
    sums = total[: (rows - 1) * pitch + cols]
    for i in range(space.shape[0]):
        space[i] = 0
    held = -1
    for c in range(first, last):
        if held != c // multiplier:
            held = c // multiplier
            _spread(x[held], top, left, high, wide, sh, sw, pitch, size, space)
        for i in range(sums.shape[0]):
            sums[i] = 0
        t = 0
        while t + 9 <= at.shape[0]:
            _add9(sums, space, at, 0, w[c], t)
            t += 9
        while t + 3 <= at.shape[0]:
            _add3(sums, space, at, 0, w[c], t)
            t += 3
        while t < at.shape[0]:
            _add1(sums, space, at, 0, w[c], t)
            t += 1
        for r in range(rows):
            source, to = sums[r * pitch :], out[c][r * cols : r * cols + cols]
            for i in range(cols):
                v = source[i] + shift[c]
                v = low if v < low else v
                to[i] = most if v > most else v


@inlined
def _rows9(out: Array, x: Array, at: Array, start: int, w: Array, t: int) -> None:
    """``out += w[t] x[start + at[t]:] + ...``, of nine taps, each with a row of weights."""
    w0, w1, w2, w3, w4 = w[t], w[t + 1], w[t + 2], w[t + 3], w[t + 4]
    w5, w6, w7, w8 = w[t + 5], w[t + 6], w[t + 7], w[t + 8]
    x0, x1, x2 = x[start + at[t] :], x[start + at[t + 1] :], x[start + at[t + 2] :]
    x3, x4, x5 = x[start + at[t + 3] :], x[start + at[t + 4] :], x[start + at[t + 5] :]
    x6, x7, x8 = x[start + at[t + 6] :], x[start + at[t + 7] :], x[start + at[t + 8] :]
    for i in range(out.shape[0]):
        upper = w0[i] * x0[i] + w1[i] * x1[i] + w2[i] * x2[i]
        middle = w3[i] * x3[i] + w4[i] * x4[i] + w5[i] * x5[i]
        lower = w6[i] * x6[i] + w7[i] * x7[i] + w8[i] * x8[i]
        out[i] += (upper + middle) + lower


@inlined
def _rows3(out: Array, x: Array, at: Array, start: int, w: Array, t: int) -> None:
    """As `_rows9`, of three taps."""
    w0, w1, w2 = w[t], w[t + 1], w[t + 2]
    x0, x1, x2 = x[start + at[t] :], x[start + at[t + 1] :], x[start + at[t + 2] :]
    for i in range(out.shape[0]):
        out[i] += w0[i] * x0[i] + w1[i] * x1[i] + w2[i] * x2[i]


@inlined
def _rows1(out: Array, x: Array, at: Array, start: int, w: Array, t: int) -> None:
    """As `_rows9`, of one tap."""
    w0, x0 = w[t], x[start + at[t] :]
    for i in range(out.shape[0]):
        out[i] += w0[i] * x0[i]


@inlined
def _first_tap(start: int, dilation: int) -> int:
    """The first tap that is not in front of the image."""
    return 0 if start >= 0 else (dilation - 1 - start) // dilation


@inlined
def _end_tap(start: int, dilation: int, size: int, taps: int) -> int:
    """The first tap that is behind the image, or ``taps``."""
    inside = size - start
    return 0 if inside <= 0 else min(taps, (inside + dilation - 1) // dilation)


def _channels(x: Array, flat: Array, w: Array, shift: Array, out: Array, at: Array, first: int, last: int, row: int,
              cols: int, kh: int, kw: int, sh: int, sw: int, pt: int, pl: int, dh: int, dw: int, low: float,
              most: float) -> None:  # fmt: skip
    """Results ``first`` to ``last`` of [pixels, C] from row ``row`` on; ``flat`` is the image x [H, W, C], flat."""
    h, width, channels = x.shape
    for p in range(first, last):
        top, left = (row + p // cols) * sh - pt, p % cols * sw - pl
        to = out[p]
        for c in range(channels):
            to[c] = shift[c]
        r0, r1 = _first_tap(top, dh), _end_tap(top, dh, h, kh)
        s0, s1 = _first_tap(left, dw), _end_tap(left, dw, width, kw)
        start = (top * width + left) * channels
        if r0 == 0 and s0 == 0 and r1 == kh and s1 == kw:
            t = 0
            while t + 9 <= kh * kw:
                _rows9(to, flat, at, start, w, t)
                t += 9
            while t + 3 <= kh * kw:
                _rows3(to, flat, at, start, w, t)
                t += 3
            while t < kh * kw:
                _rows1(to, flat, at, start, w, t)
                t += 1
        else:
            for r in range(r0, r1):
                s = s0
                while s + 3 <= s1:
                    _rows3(to, flat, at, start, w, r * kw + s)
                    s += 3
                while s < s1:
                    _rows1(to, flat, at, start, w, r * kw + s)
                    s += 1
        for c in range(channels):
            v = to[c]
            v = low if v < low else v
            to[c] = most if v > most else v


PLANES = (_add9, _add3, _add1, _spread, _planes)
CHANNELS = (_rows9, _rows3, _rows1, _first_tap, _end_tap, _channels)


# ---- what makes them ready ------------------------------------------------------------------------------


class Depthwise:
    """``clip(conv(x, weight) + bias, low, high)`` with one input channel per group, of float32 or float64 images.

    ``geometry`` is a `cv3gpu.conv.Geometry`; ``weight`` is [Cout, 1, kh, kw], ``bias`` [Cout] or None. ``last`` says
    whether images and results come channels last: then Cout is C.
    """

    def __init__(self, weight: Array, bias: Array | None, geometry: Any, *, last: bool, low: float = -math.inf,
                 high: float = math.inf) -> None:  # fmt: skip
        self.geometry, self.last, self.bounds = geometry, last, (float(low), float(high))
        taps = weight.reshape(len(weight), -1)
        self.shift = np.zeros(len(weight), weight.dtype) if bias is None else np.ascontiguousarray(bias)
        if last:
            self.weight = np.ascontiguousarray(taps.T)
        else:
            self.reached = [t for t in range(geometry.taps) if self._reaches(t)]
            self.weight = np.ascontiguousarray(taps[:, self.reached])

    def _reaches(self, tap: int) -> bool:
        """Whether the tap of some result lies in the image."""
        g = self.geometry
        for axis, k in enumerate(divmod(tap, g.kernel[1])):
            shift, step = k * g.dilation[axis] - g.padding[2 * axis], g.stride[axis]
            first = max(0, -(shift // step))  # the first result whose tap is not in front of the image
            if first >= g.output[axis] or first * step + shift >= g.input[axis]:
                return False
        return True

    def rows(self, x: Array, out: Array, first: int, count: int) -> None:
        """Writes ``count`` rows of results from row ``first`` on, on all cores.

        ``x`` [C, H, W] is dense, and ``out`` is [Cout, count * Wo]; channels last [H, W, C] and [count * Wo, C].
        """
        (_, cols), (sh, sw), (dh, dw) = self.geometry.output, self.geometry.stride, self.geometry.dilation
        (kh, kw), (pt, _, pl, _) = self.geometry.kernel, self.geometry.padding
        if self.last:
            width, channels = x.shape[1:]
            at = np.add.outer(np.arange(kh) * dh * width, np.arange(kw) * dw).ravel() * channels
            flat, run = x.reshape(-1), _njit.compiled(*CHANNELS)
            numbers = first, cols, kh, kw, sh, sw, pt, pl, dh, dw, *self.bounds

            def pixels(start: int, stop: int) -> None:
                run(x, flat, self.weight, self.shift, out, at, start, stop, *numbers)

            each(pixels, _shares(count * cols, out.size))
            return
        high, wide = (count - 1) * sh + dh * (kh - 1) + 1, (cols - 1) * sw + dw * (kw - 1) + 1
        pitch = -(-wide // sw)
        size = -(-high // sh) * pitch
        down, across = (np.array([t // kw for t in self.reached]) * dh, np.array([t % kw for t in self.reached]) * dw)
        at = (down % sh * sw + across % sw) * size + down // sh * pitch + across // sw
        at, run = at.astype(np.int64), _njit.compiled(*PLANES)
        sizes = len(out) // len(x), first * sh - pt, pl, count, cols, high, wide, sh, sw, *self.bounds

        def planes(start: int, stop: int) -> None:
            space, total = np.empty(sh * sw * size, x.dtype), np.empty(count * pitch, x.dtype)
            run(x, self.weight, self.shift, out, space, total, at, start, stop, *sizes)

        each(planes, _shares(len(out), out.size))


def forward(x: Array, weight: Array, bias: Array | None, geometry: Any, out: Array, *, low: float = -math.inf,
            high: float = math.inf) -> None:  # fmt: skip
    """Fills ``out`` [N, Cout, Ho, Wo] with ``clip(conv(x, weight) + bias, low, high)``, one input channel per group.

    All are float32 or float64; x [N, C, H, W] and out are dense by rows, or, where both are, channels last.
    """
    _, channels, rows, cols = out.shape
    last = not x.flags.c_contiguous and len(weight) == x.shape[1] and not out.flags.c_contiguous
    ready = Depthwise(weight, bias, geometry, last=last, low=low, high=high)
    for image, result in zip(x, out, strict=True):
        if last:
            into = result.transpose(1, 2, 0).reshape(rows * cols, channels)
            ready.rows(image.transpose(1, 2, 0), into, 0, rows)
        else:
            ready.rows(np.ascontiguousarray(image), result.reshape(channels, rows * cols), 0, rows)


def _shares(n: int, size: int) -> list[tuple[int, int]]:
    """Ranges of n, one for each core where there is enough to do."""
    count = min(n, cores()) if size > _ENOUGH else 1
    ends = [n * i // count for i in range(count + 1)]
    return list(itertools.pairwise(ends))
