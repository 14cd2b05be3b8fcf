"""The CPU's inner loops of max pooling and unpooling, for `_njit.compiled`.

Images channels first are dense planes, [planes, H, W]; channels last they are [N, H, W, C], and a range of channels is
done at a time. A window starts at ``o * stride - padding``. An index is a flat position in the plane, -1 of a window
without pixels, or, where it is ``compact``, a position in the window.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ._njit import inlined
from ._pool_lanes import WINDOWS, check_window, gather_pairs, gather_window, put_pairs, put_window

Array = np.ndarray[Any, Any]

_NOWHERE, _BAD = -1, -2
_MOST = 2**31  # pixels of a plane that `_pool_lanes` takes
_TAPS = 32  # of a window up to which all are compared with its index


@inlined
def _side_by_side(h: int, w: int, out_h: int, out_w: int, kh: int, kw: int, sh: int, sw: int, ph: int, pw: int,
                  dh: int, dw: int) -> bool:  # fmt: skip
    """Whether windows are of 2 x 2 pixels, inside, and cover whole rows."""
    square = kh == 2 and kw == 2 and sh == 2 and sw == 2 and ph + pw == 0 and dh + dw == 2
    return square and 2 * out_h <= h and 2 * out_w == w


@inlined
def _in_pairs(h: int, w: int, out_h: int, out_w: int, kh: int, kw: int, sh: int, sw: int, ph: int, pw: int, dh: int,
              dw: int) -> bool:  # fmt: skip
    """Whether windows are for `put_pairs` and `gather_pairs`."""
    wide = out_w >= WINDOWS and h * w < _MOST
    return wide and _side_by_side(h, w, out_h, out_w, kh, kw, sh, sw, ph, pw, dh, dw)


# ---- pooling --------------------------------------------------------------------------------------------


@inlined
def _first_tap(start: int, dilation: int) -> int:
    """The first tap that is not in front of the image."""
    return 0 if start >= 0 else (dilation - 1 - start) // dilation


@inlined
def _end_tap(start: int, dilation: int, size: int, taps: int) -> int:
    """The first tap that is behind the image, or ``taps``."""
    inside = size - start
    return 0 if inside <= 0 else min(taps, (inside + dilation - 1) // dilation)


@inlined
def _take(row: Array, step: int, best: Array, tap: Array, number: int) -> None:
    """Replaces what is smaller than ``row``, or not there yet; NaN is larger than all."""
    for o in range(best.shape[0]):
        v = row[o * step]
        better = (v > best[o]) | (v != v) | (tap[o] < 0)
        best[o] = v if better else best[o]
        tap[o] = number if better else tap[o]


def _pool_row(x: Array, top: int, best: Array, tap: Array, kh: int, kw: int, sw: int, pw: int, dh: int,
              dw: int) -> None:  # fmt: skip
    """A row of maxima of a plane, and of the taps that hold them."""
    h, w, n = x.shape[0], x.shape[1], best.shape[0]
    for o in range(n):
        best[o] = -np.inf
        tap[o] = -1
    for ky in range(_first_tap(top, dh), _end_tap(top, dh, h, kh)):
        for kx in range(kw):
            left, number = kx * dw - pw, np.int32(ky * kw + kx)  # where the first window has this tap
            first = 0 if left >= 0 else (sw - 1 - left) // sw
            last = min(n, 0 if left >= w else (w - left + sw - 1) // sw)
            if first >= last:
                continue
            row = x[top + ky * dh][left + first * sw :]
            if sw == 1:
                _take(row, 1, best[first:last], tap[first:last], number)
            elif sw == 2:
                _take(row, 2, best[first:last], tap[first:last], number)
            else:
                _take(row, sw, best[first:last], tap[first:last], number)


def _pool_pairs(upper: Array, lower: Array, best: Array, tap: Array) -> None:
    """As `_pool_row`, of windows of 2 x 2 pixels side by side."""
    for o in range(best.shape[0]):
        m, t = upper[2 * o], np.int32(0)
        v = upper[2 * o + 1]
        better = (v > m) | (v != v)
        m, t = v if better else m, np.int32(1) if better else t
        v = lower[2 * o]
        better = (v > m) | (v != v)
        m, t = v if better else m, np.int32(2) if better else t
        v = lower[2 * o + 1]
        better = (v > m) | (v != v)
        best[o], tap[o] = v if better else m, np.int32(3) if better else t


@inlined
def _write(index: Array, tap: Array, compact: bool, place: Array, start: int, step: int) -> None:
    """Indices of taps; ``place[t]`` is how far tap t lies behind the window's start, which is ``start + o step``."""
    if compact:
        for o in range(tap.shape[0]):
            index[o] = max(tap[o], 0)
    else:
        for o in range(tap.shape[0]):
            t = tap[o]
            index[o] = start + o * step + place[t] if t >= 0 else _NOWHERE


def _pool(x: Array, values: Array, index: Array, tap: Array, place: Array, first: int, last: int, kh: int, kw: int,
          sh: int, sw: int, ph: int, pw: int, dh: int, dw: int, compact: bool) -> None:  # fmt: skip
    """Of some planes; ``tap`` [Wo] is work space."""
    h, w, out_h, out_w = x.shape[1], x.shape[2], values.shape[1], values.shape[2]
    pairs = _side_by_side(h, 2 * out_w, out_h, out_w, kh, kw, sh, sw, ph, pw, dh, dw) and 2 * out_w <= w
    for p in range(first, last):
        for oh in range(out_h):
            top = oh * sh - ph
            if pairs:
                _pool_pairs(x[p, top], x[p, top + 1], values[p, oh], tap)
            else:
                _pool_row(x[p], top, values[p, oh], tap, kh, kw, sw, pw, dh, dw)
            _write(index[p, oh], tap, compact, place, top * w - pw, sw)


def _pool_last(x: Array, values: Array, index: Array, tap: Array, place: Array, p: int, first: int, last: int,
               kh: int, kw: int, sh: int, sw: int, ph: int, pw: int, dh: int, dw: int,
               compact: bool) -> None:  # fmt: skip
    """Of channels ``first`` to ``last`` of image p, channels last; ``tap`` [last - first] is work space."""
    h, w = x.shape[1], x.shape[2]
    for oh in range(values.shape[1]):
        for ow in range(values.shape[2]):
            top, left = oh * sh - ph, ow * sw - pw
            best = values[p, oh, ow][first:last]
            for c in range(last - first):
                best[c] = -np.inf
                tap[c] = -1
            for ky in range(_first_tap(top, dh), _end_tap(top, dh, h, kh)):
                for kx in range(_first_tap(left, dw), _end_tap(left, dw, w, kw)):
                    row = x[p, top + ky * dh, left + kx * dw][first:last]
                    _take(row, 1, best, tap, np.int32(ky * kw + kx))
            _write(index[p, oh, ow][first:last], tap, compact, place, top * w + left, 0)


# ---- what indices point at ------------------------------------------------------------------------------


def _pixel(index: int, compact: bool, top: int, left: int, h: int, w: int, kh: int, kw: int, dh: int,
           dw: int) -> int:  # fmt: skip
    """The flat position of the pixel of a window that an index names; _NOWHERE, or _BAD for one of no window."""
    if compact:
        ky, kx = 0, index
        while kx >= kw:
            kx -= kw
            ky += 1
        if ky >= kh:
            return _BAD
        row, column = top + ky * dh, left + kx * dw
        return row * w + column if 0 <= row < h and 0 <= column < w else _NOWHERE
    for ky in range(kh):
        row = top + ky * dh
        column = index - row * w
        if 0 <= row < h and 0 <= column < w:
            offset = column - left
            inside = 0 <= offset <= (kw - 1) * dw and (dw == 1 or offset % dw == 0)
            return index if inside else _BAD
    return _NOWHERE if index == _NOWHERE else _BAD


@inlined
def _inner(compact: bool, size: int, out: int, taps: int, stride: int, padding: int, dilation: int) -> tuple[int, int]:
    """The first window of a row that is for `_quick`, and the first after it that is not."""
    if not compact:
        return 0, out
    room = size - 1 - (taps - 1) * dilation + padding
    return (padding + stride - 1) // stride, min(out, room // stride + 1) if room >= 0 else 0


@inlined
def _reciprocal(step: int, kh: int, dw: int) -> int:
    """For `_quick`: ``x * reciprocal >> 32`` is x // step where 0 <= x < kh step; 0 where it is not for `_quick`."""
    return 2**32 // step + 1 if dw == 1 and kh * step * step < 2**32 else 0


@inlined
def _quick(index: int, compact: bool, start: int, left: int, low: int, high: int, place: Array, step: int,
           reciprocal: int, w: int, kw: int) -> int:  # fmt: skip
    """As `_pixel`, without a loop; what is not decided here is _NOWHERE.

    The window's start is flat, its first column ``left``. The taps inside are those of rows ``low`` to ``high``, which
    are ``step`` apart. Where the index is compact, all columns must be inside.
    """
    if compact:
        return start + place[index] if low * kw <= index < high * kw else _NOWHERE
    offset = index - start - low * step
    column = offset - ((offset * reciprocal) >> 32) * step
    known = 0 <= offset < (high - low) * step and column < kw and 0 <= left + column < w and reciprocal > 0
    return index if known else _NOWHERE


@inlined
def _clear(part: Array) -> None:
    for k in range(part.shape[0]):
        part[k] = 0


def _scatter_inner(values: Array, index: Array, place: Array, plane: Array, start: int, left: int, sw: int, low: int,
                   high: int, step: int, reciprocal: int, w: int, kw: int, compact: bool,
                   add: bool) -> int:  # fmt: skip
    """Of windows in a row, the first at ``start``, up to one that `_quick` does not decide; returns how many."""
    for o in range(values.shape[0]):
        step_on = o * sw
        at = _quick(int(index[o]), compact, start + step_on, left + step_on, low, high, place, step, reciprocal, w, kw)
        if at < 0:
            return o
        pixel = np.uint64(at)  # unsigned, it needs no look at whether it counts from the end
        plane[pixel] = plane[pixel] + values[o] if add else values[o]
    return values.shape[0]


def _scatter(values: Array, index: Array, place: Array, out: Array, lost: Array, h: int, w: int, first: int, last: int,
             kh: int, kw: int, sh: int, sw: int, ph: int, pw: int, dh: int, dw: int, compact: bool,
             add: bool) -> int:  # fmt: skip
    """Puts, or adds, values where the indices point, windows in order; all else becomes zero.

    ``out`` [planes, H W] is cleared as windows come near, so that it goes to memory once. ``place[t]`` is how far tap t
    lies behind the window's start, ``lost`` [1] is work space. Returns -1, or where in ``index`` the first bad one is.
    """
    out_h, out_w = values.shape[1], values.shape[2]
    inner, inner_end = _inner(compact, w, out_w, kw, sw, pw, dw)
    reciprocal = _reciprocal(dh * w, kh, dw)
    pairs = _in_pairs(h, w, out_h, out_w, kh, kw, sh, sw, ph, pw, dh, dw)
    bad = -1
    for p in range(first, last):
        cleared, plane = 0, out[p]
        for oh in range(out_h):
            top = oh * sh - ph
            reach = min(h, top + (kh - 1) * dh + 1) * w
            row, places = values[p, oh], index[p, oh]
            if pairs:
                lost[0], cleared = 0, reach
                put_pairs(row, places, top * w, w, plane, lost)
                if lost[0] == 0:
                    continue
                _clear(plane[reach - 2 * w : reach])
            if cleared < reach:
                _clear(plane[cleared:reach])
                cleared = reach
            low, high = _first_tap(top, dh), _end_tap(top, dh, h, kh)
            ow = 0
            while ow < out_w:
                left = ow * sw - pw
                if inner <= ow < inner_end:
                    ow += _scatter_inner(row[ow:inner_end], places[ow:inner_end], place, plane, top * w + left,
                                         left, sw, low, high, dh * w, reciprocal, w, kw, compact, add)  # fmt: skip
                    if ow == inner_end:
                        continue
                    left = ow * sw - pw
                at = _pixel(int(places[ow]), compact, top, left, h, w, kh, kw, dh, dw)
                if at >= 0:
                    plane[at] = plane[at] + row[ow] if add else row[ow]
                elif at == _BAD and bad < 0:
                    bad = (p * out_h + oh) * out_w + ow
                ow += 1
        _clear(plane[cleared:])
    return bad


@inlined
def _put_checked(row: Array, places: Array, place: Array, plane: Array, start: int, first: int, done: int,
                 compact: bool, add: bool) -> None:  # fmt: skip
    """Puts, or adds, some channels of one window, whose indices are known to be good."""
    if compact:
        for c in range(first, done):
            at = np.uint64(start + place[places[c]])  # unsigned, it needs no look at whether it counts from the end
            plane[at, c] = plane[at, c] + row[c] if add else row[c]
    else:
        for c in range(first, done):
            at = np.uint64(places[c])
            plane[at, c] = plane[at, c] + row[c] if add else row[c]


def _scatter_last(values: Array, index: Array, place: Array, out: Array, lost: Array, h: int, w: int, p: int,
                  first: int, last: int, kh: int, kw: int, sh: int, sw: int, ph: int, pw: int, dh: int, dw: int,
                  compact: bool, add: bool) -> int:  # fmt: skip
    """As `_scatter`, channels last, ``out`` [N, H W, C]."""
    out_h, out_w, channels = values.shape[1], values.shape[2], values.shape[3]
    blocks = (last - first) // WINDOWS if h * w < _MOST and dh + dw == 2 else 0
    done = first + blocks * WINDOWS
    inside = kh == sh and kw == sw and ph + pw == 0 and out_h * sh <= h and out_w * sw <= w
    tiles = inside and blocks > 0 and kh * kw <= _TAPS
    bad, cleared, plane = -1, 0, out[p]
    for oh in range(out_h + 1):
        top = oh * sh - ph
        reach = min(h, top + (kh - 1) * dh + 1) * w if oh < out_h else h * w
        for at in range(cleared, reach):
            written = tiles and oh < out_h and at % w < out_w * sw
            _clear(plane[at][done if written else first : last])
        cleared = max(cleared, reach)
        if oh == out_h:
            break
        low, high = _first_tap(top, dh), _end_tap(top, dh, h, kh)
        for ow in range(out_w):
            left, row, places = ow * sw - pw, values[p, oh, ow], index[p, oh, ow]
            start, lost[0] = top * w + left, 0
            if tiles:
                put_window(row, places, first, blocks, start, kh, kw, w, plane, lost)
            else:
                check_window(places, first, blocks, start, low, high, _first_tap(left, dw), _end_tap(left, dw, w, kw),
                             kw, w, lost)  # fmt: skip
                if lost[0] == 0:
                    _put_checked(row, places, place, plane, start, first, done, compact, add)
            for c in range(first if lost[0] else done, last):
                at = _pixel(int(places[c]), compact, top, left, h, w, kh, kw, dh, dw)
                if at >= 0 and (c >= done or not tiles):
                    plane[at, c] = plane[at, c] + row[c] if add else row[c]
                elif at == _BAD and bad < 0:
                    bad = ((p * out_h + oh) * out_w + ow) * channels + c
    return bad


def _gather_inner(plane: Array, index: Array, place: Array, out: Array, start: int, left: int, sw: int, low: int,
                  high: int, step: int, reciprocal: int, w: int, kw: int, compact: bool) -> int:  # fmt: skip
    """The transpose of `_scatter_inner`."""
    for o in range(out.shape[0]):
        step_on = o * sw
        at = _quick(int(index[o]), compact, start + step_on, left + step_on, low, high, place, step, reciprocal, w, kw)
        if at < 0:
            return o
        out[o] = plane[np.uint64(at)]
    return out.shape[0]


def _gather(source: Array, index: Array, place: Array, out: Array, lost: Array, h: int, w: int, first: int, last: int,
            kh: int, kw: int, sh: int, sw: int, ph: int, pw: int, dh: int, dw: int, compact: bool) -> int:  # fmt: skip
    """The values of ``source`` [planes, H W] at the indices, zero where one points nowhere; returns as `_scatter`."""
    out_h, out_w = out.shape[1], out.shape[2]
    inner, inner_end = _inner(compact, w, out_w, kw, sw, pw, dw)
    reciprocal = _reciprocal(dh * w, kh, dw)
    pairs = _in_pairs(h, w, out_h, out_w, kh, kw, sh, sw, ph, pw, dh, dw)
    bad = -1
    for p in range(first, last):
        plane = source[p]
        for oh in range(out_h):
            top, row, places = oh * sh - ph, out[p, oh], index[p, oh]
            if pairs:
                lost[0] = 0
                gather_pairs(row, places, top * w, w, plane, lost)
                if lost[0] == 0:
                    continue
            low, high = _first_tap(top, dh), _end_tap(top, dh, h, kh)
            ow = 0
            while ow < out_w:
                left = ow * sw - pw
                if inner <= ow < inner_end:
                    ow += _gather_inner(plane, places[ow:inner_end], place, row[ow:inner_end], top * w + left,
                                        left, sw, low, high, dh * w, reciprocal, w, kw, compact)  # fmt: skip
                    if ow == inner_end:
                        continue
                    left = ow * sw - pw
                at = _pixel(int(places[ow]), compact, top, left, h, w, kh, kw, dh, dw)
                row[ow] = plane[max(at, 0)] if at >= 0 else 0
                if at == _BAD and bad < 0:
                    bad = (p * out_h + oh) * out_w + ow
                ow += 1
    return bad


def _gather_last(source: Array, index: Array, place: Array, out: Array, lost: Array, h: int, w: int, p: int,
                 first: int, last: int, kh: int, kw: int, sh: int, sw: int, ph: int, pw: int, dh: int, dw: int,
                 compact: bool) -> int:  # fmt: skip
    """As `_gather`, channels last, ``source`` [N, H W, C]."""
    out_h, out_w, channels = out.shape[1], out.shape[2], out.shape[3]
    blocks = (last - first) // WINDOWS if h * w < _MOST and kh * kw <= _TAPS else 0
    bad, plane = -1, source[p]
    for oh in range(out_h):
        top = oh * sh - ph
        low, high = _first_tap(top, dh), _end_tap(top, dh, h, kh)
        for ow in range(out_w):
            left, row, places = ow * sw - pw, out[p, oh, ow], index[p, oh, ow]
            left_tap, right_tap = _first_tap(left, dw), _end_tap(left, dw, w, kw)
            lost[0] = 0
            gather_window(row, places, first, blocks, top * w + left, low, high, left_tap, right_tap, kw, dh * w, dw,
                          plane, lost)  # fmt: skip
            done = first + blocks * WINDOWS
            for c in range(first if lost[0] else done, last):
                at = _pixel(int(places[c]), compact, top, left, h, w, kh, kw, dh, dw)
                if c >= done:
                    row[c] = plane[at, c] if at >= 0 else 0
                if at == _BAD and bad < 0:
                    bad = ((p * out_h + oh) * out_w + ow) * channels + c
    return bad


# For `_njit.compiled`, callees first: of planes, and of images channels last.
POOL = (
    (_side_by_side, _first_tap, _end_tap, _take, _write, _pool_row, _pool_pairs, _pool),
    (_first_tap, _end_tap, _take, _write, _pool_last),
)
_FOUND = _first_tap, _end_tap, _pixel
_ROWS = *_FOUND, _inner, _reciprocal, _quick, _side_by_side, _in_pairs
SCATTER = (
    (*_ROWS, put_pairs, _clear, _scatter_inner, _scatter),
    (*_FOUND, put_window, check_window, _put_checked, _clear, _scatter_last),
)
GATHER = (*_ROWS, gather_pairs, _gather_inner, _gather), (*_FOUND, gather_window, _gather_last)
