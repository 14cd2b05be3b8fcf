"""Windows of pooling and unpooling for the CPU's vector registers, called from the loops in `_pool_loops`.

A window has one index, so that no pixel need be looked up: the pixels of all taps are compared with it, several windows
or channels at a time, and what is equal takes part. Each operation sets ``lost[0]`` where a window has no such pixel,
because its index points out of it, or nowhere. Planes have fewer than 2^31 pixels; 32 bits of an index are compared,
and one that has more sets ``lost[0]``, too, whatever was written for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ._lanes import Lanes, Rows, Writer, operation

__all__ = ["WINDOWS", "check_window", "gather_pairs", "gather_window", "put_pairs", "put_window"]

Array = np.ndarray[Any, Any]

WINDOWS = 8  # or channels, that are done at a time


class _Indices:
    """Counts what meets its index, and looks at the bits of indices that a comparison in 32 of them leaves out."""

    def __init__(self, w: Writer, index: Rows, lanes: int) -> None:
        self.w, self.index = w, index
        self.small, self.kind = w.ir.IntType(32), index.data.type.pointee
        self.compact = self.kind.width == 8
        self.high = w.variable(self.vector(self.kind, 0).type(None))
        self.met = w.variable(self.vector(self.small, 0, lanes).type(None))

    def vector(self, kind: Any, value: int, lanes: int = WINDOWS) -> Any:
        return self.w.ir.Constant(self.w.ir.VectorType(kind, lanes), [value] * lanes)

    def load(self, at: Any) -> Any:
        """Indices in 32 bits."""
        b, kind = self.w.builder, self.w.ir.VectorType(self.kind, WINDOWS)
        place = b.bitcast(b.gep(self.index.data, [at]), kind.as_pointer())
        found = b.load(place, align=self.kind.width // 8)
        if self.compact:
            return b.zext(found, self.w.ir.VectorType(self.small, WINDOWS))
        b.store(b.or_(b.load(self.high), found), self.high)
        return b.trunc(found, self.w.ir.VectorType(self.small, WINDOWS))

    def everywhere(self, number: Any, lanes: int) -> Any:
        """A word in all lanes, in 32 bits."""
        b = self.w.builder
        one = b.insert_element(self.vector(self.small, 0, lanes), b.trunc(number, self.small), self.small(0))
        return b.shuffle_vector(one, one, self.vector(self.small, 0, lanes))

    def count(self, equal: Any) -> None:
        b = self.w.builder
        b.store(b.sub(b.load(self.met), b.sext(equal, b.load(self.met).type)), self.met)

    def finish(self, times: Any, lost: Rows) -> None:
        """Sets ``lost`` unless each lane has met its index so many times."""
        w, b = self.w, self.w.builder
        met = b.load(self.met)
        if met.type.count > WINDOWS:  # pixels side by side, of one window
            met = b.add(*(b.shuffle_vector(met, met, side) for side in _sides(w)))
        wrong = b.icmp_signed("!=", met, self.everywhere(times, WINDOWS))
        if not self.compact:
            long = b.icmp_unsigned(">", b.load(self.high), self.vector(self.kind, 2**32 - 1))
            wrong = b.or_(wrong, long)
        any_wrong = b.icmp_unsigned("!=", b.bitcast(wrong, w.ir.IntType(WINDOWS)), w.ir.IntType(WINDOWS)(0))
        place = b.gep(lost.data, [w.word(0)])
        b.store(b.or_(b.load(place), b.zext(any_wrong, w.word)), place)


def _sides(w: Writer) -> list[Any]:
    """Which lanes are the left pixels of windows side by side, and which the right ones."""
    kind = w.ir.VectorType(w.ir.IntType(32), WINDOWS)
    return [w.ir.Constant(kind, list(range(side, 2 * WINDOWS, 2))) for side in (0, 1)]


def _twice(w: Writer, x: Any) -> Any:
    """Each lane twice, side by side."""
    mask = w.ir.Constant(w.ir.VectorType(w.ir.IntType(32), 2 * WINDOWS), [k // 2 for k in range(2 * WINDOWS)])
    return w.builder.shuffle_vector(x, x, mask)


def _pairs(w: Writer, index: Rows, start: Any, width: Any, lost: Rows, body: Callable[..., None]) -> None:
    """Calls ``body(at, upper, lower)`` for runs of windows: which of their pixels the indices name, in both rows.

    The last run reaches back to be whole.
    """
    b, lanes = w.builder, 2 * WINDOWS
    indices = _Indices(w, index, lanes)
    small, n = indices.small, index.shape[0]
    runs = b.sdiv(b.add(n, w.word(WINDOWS - 1)), w.word(WINDOWS))
    with w.range(w.word(0), runs) as run:
        first, last = b.mul(run, w.word(WINDOWS)), b.sub(n, w.word(WINDOWS))
        at = b.select(b.icmp_signed("<", first, last), first, last)
        found = _twice(w, indices.load(at))
        if indices.compact:
            upper = w.ir.Constant(w.ir.VectorType(small, lanes), [k % 2 for k in range(lanes)])
            lower = w.ir.Constant(w.ir.VectorType(small, lanes), [2 + k % 2 for k in range(lanes)])
        else:
            place = indices.everywhere(b.add(start, b.mul(at, w.word(2))), lanes)
            upper = b.add(place, w.ir.Constant(w.ir.VectorType(small, lanes), list(range(lanes))))
            lower = b.add(upper, indices.everywhere(width, lanes))
        upper, lower = (b.icmp_signed("==", found, wanted) for wanted in (upper, lower))
        indices.count(b.or_(upper, lower))
        body(at, upper, lower)
    indices.finish(runs, lost)


def _pixels(w: Writer, at: Any, start: Any, width: Any) -> tuple[Any, Any]:
    """Where the pixels of window ``at`` begin in both rows."""
    upper = w.builder.add(start, w.builder.mul(at, w.word(2)))
    return upper, w.builder.add(upper, width)


def _lower_put_pairs(w: Writer, x: Rows, index: Rows, start: Any, width: Any, plane: Rows, lost: Rows) -> None:
    zero = w.constant(0.0, 2 * WINDOWS)

    def put(at: Any, *named: Any) -> None:
        values = _twice(w, w.load(x, at, WINDOWS).value)
        for equal, pixel in zip(named, _pixels(w, at, start, width), strict=True):
            w.store(Lanes(w, w.builder.select(equal, values, zero.value)), plane, pixel)

    _pairs(w, index, start, width, lost, put)


@operation(_lower_put_pairs)
def put_pairs(x: Array, index: Array, start: int, width: int, plane: Array, lost: Array) -> None:
    """Writes two rows of a plane, from ``start``: values where the indices of their 2 x 2 windows point, and zeros.

    At least `WINDOWS` windows, side by side. A compact index is 0 to 3.
    """
    for o in range(len(x)):
        pixels = [start + 2 * o, start + 2 * o + 1, start + width + 2 * o, start + width + 2 * o + 1]
        named = [k if index.dtype == np.uint8 else pixel for k, pixel in enumerate(pixels)]
        for pixel, name in zip(pixels, named, strict=True):
            plane[pixel] = x[o] if index[o] == name else 0
        lost[0] |= index[o] not in named


def _lower_gather_pairs(w: Writer, out: Rows, index: Rows, start: Any, width: Any, plane: Rows, lost: Rows) -> None:
    b, ir = w.builder, w.ir
    whole = ir.VectorType(ir.IntType(w.bits), 2 * WINDOWS)

    def gather(at: Any, *named: Any) -> None:
        bits: Any = ir.Constant(whole, None)  # one pixel of a window is named: the others add no bits
        for equal, pixel in zip(named, _pixels(w, at, start, width), strict=True):
            row = b.bitcast(w.load(plane, pixel, 2 * WINDOWS).value, whole)
            bits = b.or_(bits, b.select(equal, row, ir.Constant(whole, None)))
        left, right = (b.shuffle_vector(bits, bits, side) for side in _sides(w))
        found = b.bitcast(b.or_(left, right), w.vector(WINDOWS))
        w.store(Lanes(w, found), out, at)

    _pairs(w, index, start, width, lost, gather)


@operation(_lower_gather_pairs)
def gather_pairs(out: Array, index: Array, start: int, width: int, plane: Array, lost: Array) -> None:
    """The transpose of `put_pairs`: ``out`` takes the values of a plane at the indices, zero where there is none."""
    for o in range(len(out)):
        pixels = [start + 2 * o, start + 2 * o + 1, start + width + 2 * o, start + width + 2 * o + 1]
        named = [k if index.dtype == np.uint8 else pixel for k, pixel in enumerate(pixels)]
        found = [plane[pixel] for pixel, name in zip(pixels, named, strict=True) if index[o] == name]
        out[o] = found[0] if found else 0
        lost[0] |= not found


# ---- channels last --------------------------------------------------------------------------------------


def _window(w: Writer, index: Rows, first: Any, blocks: Any, start: Any, taps: tuple[Any, ...], lost: Rows,
            begin: Callable[..., Any], tap: Callable[..., None], end: Callable[..., None]) -> None:  # fmt: skip
    """Goes through the taps of a window that are in the image, for each block of channels.

    ``begin(channel)`` gives what ``tap(it, channel, pixel, equal)`` and ``end(it, channel)`` are given.
    """
    b, (top, bottom, left, right, columns, step, spread) = w.builder, taps
    indices = _Indices(w, index, WINDOWS)
    with w.range(w.word(0), blocks) as block:
        channel = b.add(first, b.mul(block, w.word(WINDOWS)))
        found, it = indices.load(channel), begin(channel)
        with w.range(top, bottom) as row, w.range(left, right) as column:
            pixel = b.add(b.add(start, b.mul(row, step)), b.mul(column, spread))
            number = b.add(b.mul(row, columns), column) if indices.compact else pixel
            equal = b.icmp_signed("==", found, indices.everywhere(number, WINDOWS))
            indices.count(equal)
            tap(it, channel, pixel, equal)
        end(it, channel)
    indices.finish(blocks, lost)


def _lower_put_window(w: Writer, x: Rows, index: Rows, first: Any, blocks: Any, start: Any, rows: Any, columns: Any,
                      step: Any, plane: Rows, lost: Rows) -> None:  # fmt: skip
    zero = w.constant(0.0, WINDOWS)

    def put(values: Any, channel: Any, pixel: Any, equal: Any) -> None:
        new = w.builder.select(equal, values.value, zero.value)
        w.store(Lanes(w, new), plane, w.at(pixel, plane.shape[1], channel))

    taps = w.word(0), rows, w.word(0), columns, columns, step, w.word(1)
    _window(w, index, first, blocks, start, taps, lost, lambda channel: w.load(x, channel, WINDOWS), put,
            lambda values, channel: None)  # fmt: skip


@operation(_lower_put_window)
def put_window(x: Array, index: Array, first: int, blocks: int, start: int, rows: int, columns: int, step: int,
               plane: Array, lost: Array) -> None:  # fmt: skip
    """Writes all pixels of one window in ``plane`` [pixels, C]: values where its indices point, and zeros.

    Of so many blocks of `WINDOWS` channels from ``first`` on. The window begins at the pixel ``start``, its rows are
    ``step`` apart. A compact index is ``row * columns + column``.
    """
    for c in range(first, first + blocks * WINDOWS):
        met = False
        for row in range(rows):
            for column in range(columns):
                pixel = start + row * step + column
                equal = index[c] == (row * columns + column if index.dtype == np.uint8 else pixel)
                plane[pixel, c] = x[c] if equal else 0
                met = met or equal
        lost[0] |= not met


def _lower_check_window(w: Writer, index: Rows, first: Any, blocks: Any, start: Any, top: Any, bottom: Any, left: Any,
                        right: Any, columns: Any, step: Any, lost: Rows) -> None:  # fmt: skip
    b = w.builder
    indices = _Indices(w, index, WINDOWS)
    length = indices.everywhere(b.sub(right, left), WINDOWS)
    with w.range(w.word(0), blocks) as block:
        found = indices.load(b.add(first, b.mul(block, w.word(WINDOWS))))
        with w.range(top, bottom) as row:
            begin = b.add(left, b.mul(row, columns) if indices.compact else b.add(start, b.mul(row, step)))
            behind = b.sub(found, indices.everywhere(begin, WINDOWS))
            indices.count(b.icmp_unsigned("<", behind, length))
    indices.finish(blocks, lost)


@operation(_lower_check_window)
def check_window(index: Array, first: int, blocks: int, start: int, top: int, bottom: int, left: int, right: int,
                 columns: int, step: int, lost: Array) -> None:  # fmt: skip
    """Whether the indices of one window, without dilation, name taps that are in the image.

    Of so many blocks of `WINDOWS` channels from ``first`` on. The taps in the image are those of rows ``top`` to
    ``bottom`` and columns ``left`` to ``right``; ``start`` is the pixel of tap 0, rows of taps lie ``step`` apart. A
    compact index is ``row * columns + column``.
    """
    for c in range(first, first + blocks * WINDOWS):
        met = False
        for row in range(top, bottom):
            begin = left + (row * columns if index.dtype == np.uint8 else start + row * step)
            met = met or 0 <= int(index[c]) - begin < right - left
        lost[0] |= not met


def _lower_gather_window(w: Writer, out: Rows, index: Rows, first: Any, blocks: Any, start: Any, top: Any,
                         bottom: Any, left: Any, right: Any, columns: Any, step: Any, spread: Any, plane: Rows,
                         lost: Rows) -> None:  # fmt: skip
    b, zero = w.builder, w.constant(0.0, WINDOWS)

    def begin(channel: Any) -> Any:
        return w.variable(zero.value)

    def take(found: Any, channel: Any, pixel: Any, equal: Any) -> None:
        held = w.load(plane, w.at(pixel, plane.shape[1], channel), WINDOWS)
        b.store(b.select(equal, held.value, b.load(found)), found)

    def end(found: Any, channel: Any) -> None:
        w.store(Lanes(w, b.load(found)), out, channel)

    taps = top, bottom, left, right, columns, step, spread
    _window(w, index, first, blocks, start, taps, lost, begin, take, end)


@operation(_lower_gather_window)
def gather_window(out: Array, index: Array, first: int, blocks: int, start: int, top: int, bottom: int, left: int,
                  right: int, columns: int, step: int, spread: int, plane: Array, lost: Array) -> None:  # fmt: skip
    """Takes the values of ``plane`` [pixels, C] at the indices of one window, zero where one names no tap.

    As `check_window`, and the columns of taps lie ``spread`` apart.
    """
    for c in range(first, first + blocks * WINDOWS):
        found = []
        for row in range(top, bottom):
            for column in range(left, right):
                pixel = start + row * step + column * spread
                if index[c] == (row * columns + column if index.dtype == np.uint8 else pixel):
                    found.append(plane[pixel, c])
        out[c] = found[0] if found else 0
        lost[0] |= not found
