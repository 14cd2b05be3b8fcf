"""Tables of numbers read straight from the bytes of a text.

The compiled part reads plain lines and stops at the first that it is not sure of; the caller reads that one
with Python's own ``float``, or says what is wrong with it, and goes on behind. Every number is the float64
nearest to its text, bit by bit what ``float`` makes of it:

* up to 2⁵³ times or over a power of ten up to 10²², which float64 holds exactly, takes one operation and so
  one rounding;
* any other of up to 19 digits goes by Eisel and Lemire: the digits times the 128 leading bits of the power
  of ten, of which 64 (and all of them where these leave a doubt) decide the rounding;
* longer ones and powers beyond 10^±64 are left to ``float``.

References
----------
D. Lemire, "Number parsing at a gigabyte per second", Software: Practice and Experience 51 (2021), section 5;
N. Mushtak and D. Lemire, "Fast number parsing without fallback", ibid. 53 (2023): the second step never fails.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from .. import _njit
from ..errors import DataFormatError

__all__ = ["Rule", "Text", "number", "product", "unsigned"]

MAX_POWER = 64  # powers of ten that the tables hold, either sign
_TWOS = 400  # powers of two, either sign: 19 digits times 10^±64 stay within
_BLOCK = 1 << 20  # bytes searched at a time
_NUMBERS = 1 << 15  # in a table: fits a core's cache
_MARK = b"\xef\xbb\xbf"  # UTF-8's byte order mark


@functools.cache
def _powers() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """10^0 … 10^22, the 128 leading bits of 10^-64 … 10^64 as two words, and 2^-400 … 2^400."""
    tens = np.array([10.0**power for power in range(23)])
    halves = [divmod(_leading_bits(power), 1 << 64) for power in range(-MAX_POWER, MAX_POWER + 1)]
    twos = np.array([2.0**power for power in range(-_TWOS, _TWOS + 1)])
    return tens, np.array(halves, np.uint64), twos


def _leading_bits(power: int) -> int:
    """The 128 leading bits of 5^power, rounded down; up where a product with a reciprocal can be exact."""
    five = 5 ** abs(power)
    if power >= 0:
        return five << 128 >> five.bit_length()
    return (1 << five.bit_length() + 127) // five + (power >= -27)


@functools.cache
def _words_table(words: tuple[str, ...]) -> np.ndarray:
    """The words in lower case as an array [words, longest + 1] of bytes, each ended by 0."""
    rows = [word.lower().encode() for word in words]
    table = np.zeros((len(rows), max(map(len, rows), default=0) + 1), np.uint8)
    for row, word in zip(table, rows, strict=True):
        row[: len(word)] = np.frombuffer(word, np.uint8)
    return table


def _count(data: np.ndarray) -> int:
    """Line feeds among the bytes."""
    blocks = range(0, data.size, _BLOCK)
    return sum(int(np.count_nonzero(data[at : at + _BLOCK] == _LF)) for at in blocks)


class Rule(NamedTuple):
    """What a number may be."""

    low: float = -math.inf
    high: float = math.inf
    whole: bool = False

    def __str__(self) -> str:
        kind = "a whole number" if self.whole else ""
        limits = f"from {_shown(self.low)} to {_shown(self.high)}" if math.isfinite(self.high) else ""
        return f"{kind} {limits}".strip()


def _shown(limit: float) -> str:
    return f"{limit:g}" if isinstance(limit, float) else str(limit)


_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[+-]?(nan|inf|infinity)", re.ASCII | re.I)


def number(name: str, text: str, rule: Rule) -> float:
    """A number from its text; ValueError says what is wrong with it."""
    if _NOT_FINITE.fullmatch(text):
        raise ValueError(f"{name} must be finite, got {text}")
    if not _NUMBER.fullmatch(text):
        raise ValueError(f"{name} must be a number, got {text[:40]!r}")
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{name} must be finite, got {text[:40]}")
    fits = rule.low <= value <= rule.high and (value.is_integer() or not rule.whole)
    if fits and rule.whole and abs(value) == rule.high:  # a number out of range may have been rounded to it
        from decimal import Decimal

        fits = abs(Decimal(text)) <= rule.high
    if not fits:
        raise ValueError(f"{name} must be {rule}, got {text[:40]}")
    return value


class Text(NamedTuple):
    """The bytes of a text, the last of them a line feed, and what errors call it and its lines."""

    name: str
    data: np.ndarray
    numbers: Sequence[int] | None = None  # of the lines; counted from 1 if there are none

    def line_number(self, at: int) -> int:
        """The number of the line that starts at byte ``at``."""
        before = _count(self.data[:at])
        return before + 1 if self.numbers is None else self.numbers[before]

    def error(self, at: int, wrong: object) -> DataFormatError:
        """What is wrong with the line that starts at byte ``at``."""
        return DataFormatError(f"{self.name}:{self.line_number(at)}: {wrong}")

    def count_lines(self, at: int) -> int:
        """Lines from byte ``at`` on, empty ones included."""
        return _count(self.data[at:])

    def line(self, at: int, longest: int) -> tuple[bytes, int]:
        """The line that starts at byte ``at``, without its end, and the start of the next."""
        size = 64
        while not (ends := np.flatnonzero(self.data[at : at + size] == _LF)).size and size <= longest:
            size *= 8
        if not ends.size or ends[0] > longest:
            raise self.error(at, f"line must have at most {longest} characters")
        end = at + int(ends[0])
        return self.data[at:end].tobytes().removesuffix(b"\r"), end + 1

    def first_line(self, longest: int) -> tuple[bytes, int]:
        """The first line that is not empty, and its start; nothing and the end if all are."""
        start = at = len(_MARK) if self.data[: len(_MARK)].tobytes() == _MARK else 0
        size = 64
        while at < self.data.size:
            part = self.data[at : at + size]
            ends = np.flatnonzero(part == _LF)
            full = np.flatnonzero((part != _LF) & (part != _CR) & (part != _BLANK) & (part != _TAB))
            before = ends[: np.searchsorted(ends, full[0])] if full.size else ends
            start = at + int(before[-1]) + 1 if before.size else start
            if full.size:
                return self.line(start, longest)[0], start
            at, size = at + size, _BLOCK
        return b"", self.data.size

    def tables(
        self, at: int, comma: bool, columns: int, longest: int, read_line: Callable[[bytes], list[float]],
        words: tuple[str, ...] = (),
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:  # fmt: skip
        """The lines from byte ``at`` on as tables of numbers, some lines at a time.

        Parameters
        ----------
        at : start of a line
        comma : commas between the numbers, else blanks
        columns : numbers in a line
        longest : most bytes of a line
        read_line : reads a line that is not plain, or raises ValueError saying what is wrong with it
        words : if there are any, the third column holds one of them, read as its place from 0

        Yields
        ------
        table : array, [columns, rows], float64
            The next one overwrites it.
        starts : array, [rows], int64
            The byte at which each row's line starts.
        """
        read = _njit.compiled(unsigned, _is_digit, _is_blank, _lower, product, _nearest, _read_table)
        state = np.array([at, 0], np.int64)
        size = min(_NUMBERS // columns, self.data.size // (2 * columns)) + 1
        table, starts = np.empty((columns, size)), np.empty(size, np.int64)
        while state[_AT] < self.data.size:
            rows = 0
            while rows < size and state[_AT] < self.data.size:
                rows = read(self.data, state, comma, _words_table(words), longest + 1, table, starts, rows, *_powers())
                if state[_STOPPED]:
                    starts[rows] = at = int(state[_AT])
                    line, state[_AT] = self.line(at, longest)
                    try:
                        table[:, rows] = read_line(line)
                    except ValueError as wrong:
                        if rows:
                            yield table[:, :rows], starts[:rows]  # the first error counts
                        raise self.error(at, wrong) from None
                    rows += 1
            yield table[:, :rows], starts[:rows]


_AT, _STOPPED = 0, 1  # what `state` holds: the byte to go on at, and whether the line there is not plain

# What follows is compiled: plain loops that allocate nothing. Only the outermost function sees arrays, as
# numba counts the references to an array that it passes on, which takes longer than reading a number. Indices
# are made unsigned where they are used, or numba asks each time whether it should count from the end.

_LF, _CR, _TAB, _BLANK, _COMMA, _PLUS, _MINUS, _POINT, _ZERO = b"\n\r\t ,+-.0"
_E = ord("e")
_MAX_DIGITS = 19  # fit 64 bits
_EXACT, _TOP, _LOW_HALF, _DOUBT = (np.uint64(value) for value in (2**53, 2**63, 2**32 - 1, 2**9 - 1))
_W0, _W1, _W3, _W9, _W10, _W32, _W63 = (np.uint64(value) for value in (0, 1, 3, 9, 10, 32, 63))


def unsigned(index: int) -> Any:
    return np.uint64(index)


def _is_digit(byte: int) -> bool:
    return _ZERO <= byte <= _ZERO + 9


def _is_blank(byte: int) -> bool:
    return byte in (_BLANK, _TAB)


def _lower(byte: int) -> int:
    return byte | 32 if 65 <= byte <= 90 else byte


def product(a: Any, b: Any) -> Any:
    """The high and the low half of the product of two 64-bit words."""
    a1, a0, b1, b0 = a >> _W32, a & _LOW_HALF, b >> _W32, b & _LOW_HALF
    low, cross = a0 * b0, a1 * b0
    middle = (low >> _W32) + (cross & _LOW_HALF) + a0 * b1
    return a1 * b1 + (cross >> _W32) + (middle >> _W32), (middle << _W32) | (low & _LOW_HALF)


def _nearest(digits: Any, power: int, high_bits: Any, low_bits: Any) -> Any:
    """Mantissa and exponent of two of the float64 nearest to digits × 10^power, digits > 0."""
    shift = 0
    while digits < _TOP:
        digits <<= _W1
        shift += 1
    high, low = product(digits, high_bits)
    if high & _DOUBT == _DOUBT:
        carry, _ = product(digits, low_bits)
        low += carry
        if low < carry:
            high += _W1
    drop = (high >> _W63) + _W9
    mantissa = high >> drop  # 54 bits: one more than is kept
    if low <= _W1 and -4 <= power <= 23 and mantissa & _W3 == _W1 and mantissa << drop == high:
        mantissa -= _W1  # halfway between two numbers: the even one
    mantissa = (mantissa + (mantissa & _W1)) >> _W1
    return np.int64(mantissa), ((217706 * power) >> 16) + np.int64(drop) - shift + 2


def _read_table(
    data: np.ndarray, state: np.ndarray, comma: bool, words: np.ndarray, max_line: int, table: np.ndarray,
    starts: np.ndarray, row: int, tens: np.ndarray, powers: np.ndarray, twos: np.ndarray,
) -> int:  # fmt: skip
    """Reads lines into the table from row ``row`` on, until it is full, the text ends or a line is not plain."""
    at = state[_AT]
    state[_STOPPED] = 1
    word_column = 2 if words.shape[0] > 0 else -1
    while row < starts.size:
        # Over empty lines.
        state[_AT] = at
        if at == data.size:
            break
        while _is_blank(data[unsigned(at)]):
            at += 1
        if data[unsigned(at)] == _CR:
            at += 1
        if data[unsigned(at)] == _LF:
            at += 1
            continue
        at = state[_AT]
        for column in range(table.shape[0]):
            # To the field.
            before = at
            while _is_blank(data[unsigned(at)]):
                at += 1
            if column > 0 and comma:
                if data[unsigned(at)] != _COMMA:
                    return row
                at += 1
                while _is_blank(data[unsigned(at)]):
                    at += 1
            elif column > 0 and at == before:
                return row
            # A word: the first that fits.
            if column == word_column:
                which, size = 0, 0
                while which < words.shape[0]:
                    while words[which, size] > 0 and words[which, size] == _lower(data[unsigned(at + size)]):
                        size += 1
                    if words[which, size] == 0 and _is_blank(data[unsigned(at + size)]):
                        break
                    which, size = which + 1, 0
                if which == words.shape[0]:
                    return row
                at += size
                table[unsigned(column), unsigned(row)] = which
                continue
            # A number: sign, digits, fraction, power of ten.
            negative = data[unsigned(at)] == _MINUS
            if negative or data[unsigned(at)] == _PLUS:
                at += 1
            first = at
            digits = _W0
            while _is_digit(data[unsigned(at)]):
                digits = digits * _W10 + np.uint64(data[unsigned(at)] - _ZERO)
                at += 1
            count = at - first
            power = 0
            if data[unsigned(at)] == _POINT:
                at += 1
                behind = at
                while _is_digit(data[unsigned(at)]):
                    digits = digits * _W10 + np.uint64(data[unsigned(at)] - _ZERO)
                    at += 1
                power = behind - at
                count -= power
            if count == 0:
                return row
            if count > _MAX_DIGITS:
                while data[unsigned(first)] == _ZERO or data[unsigned(first)] == _POINT:
                    count -= data[unsigned(first)] == _ZERO
                    first += 1
                if count > _MAX_DIGITS:
                    return row
            if _lower(data[unsigned(at)]) == _E:
                at += 1
                less = data[unsigned(at)] == _MINUS
                if less or data[unsigned(at)] == _PLUS:
                    at += 1
                first = at
                exponent = 0
                while _is_digit(data[unsigned(at)]) and at - first < 4:
                    exponent = 10 * exponent + data[unsigned(at)] - _ZERO
                    at += 1
                if at == first or _is_digit(data[unsigned(at)]):
                    return row
                power += -exponent if less else exponent
            value = float(np.int64(digits))
            if digits < _EXACT and -22 <= power <= 22:
                value = value / tens[unsigned(-power)] if power < 0 else value * tens[unsigned(power)]
            elif digits != _W0:
                if abs(power) > MAX_POWER:
                    return row
                ten = unsigned(power + MAX_POWER)
                mantissa, two = _nearest(digits, power, powers[ten, 0], powers[ten, 1])
                value = mantissa * twos[unsigned(two + _TWOS)]
            table[unsigned(column), unsigned(row)] = -value if negative else value
        # The end of the line.
        while _is_blank(data[unsigned(at)]):
            at += 1
        if data[unsigned(at)] == _CR:
            at += 1
        if data[unsigned(at)] != _LF or at - state[_AT] >= max_line:
            return row
        at += 1
        starts[unsigned(row)] = state[_AT]
        row += 1
    state[_AT], state[_STOPPED] = at, 0
    return row
