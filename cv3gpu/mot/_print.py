"""Rows of numbers as text, each number as the shortest decimal that reads back as the same float64.

The digits are those of Python's ``repr``, found by Schubfach: of the decimals 10^k apart that lie in the
interval of the reals which round to the number, where k is the largest for which there is one, the nearest. The
interval's ends and the number, times 10^-k, come from products with 128 bits of that power.

References
----------
R. Giulietti, "The Schubfach way to render doubles" (2020), figure 4.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from .. import _njit
from ._text import product, unsigned

__all__ = ["printed"]

_ROWS = 1 << 12  # made at a time
_LONGEST = 25  # bytes of a number
_LEAST_POWER, _GREATEST_POWER = -292, 324


@functools.cache
def _powers() -> np.ndarray:
    """The 128 leading bits of the powers of ten, rounded up, as two words each."""
    halves = []
    for power in range(_LEAST_POWER, _GREATEST_POWER + 1):
        five = 5 ** abs(power)
        size = five.bit_length()
        up = -(-(five << 128) >> size) if power >= 0 else (1 << size + 127) // five + 1
        halves.append(divmod(up, 1 << 64))
    return np.array(halves, np.uint64)


def printed(
    template: str, columns: Sequence[np.ndarray], words: Sequence[str] = (), word_column: int = -1
) -> Iterator[bytes]:
    """The rows of some columns as text, some rows at a time.

    Parameters
    ----------
    template : text of a row, with ``{}`` where a number stands
        Whole numbers have no point.
    columns : arrays, [N], in the order of the template
        Integers are at most 2^53.
    words : ASCII words
    word_column : column that holds places of words, from 0, in place of numbers
    """
    pieces, lengths = _bytes(template.split("{}"))
    spellings, sizes = _bytes(words)
    write = _njit.compiled(unsigned, product, _odd, _shortest, _write_rows)
    row_size = sum(map(len, template.split("{}"))) + len(columns) * _LONGEST + spellings.shape[1]
    text = np.empty(min(len(columns[0]), _ROWS) * row_size, np.uint8)
    for start in range(0, len(columns[0]), _ROWS):
        table = np.array([column[start : start + _ROWS] for column in columns], np.float64)
        size = write(table.view(np.uint64), pieces, lengths, spellings, sizes, word_column, text, _powers())
        yield text[:size].tobytes()


def _bytes(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """The texts as an array [texts, longest] of bytes, and their lengths."""
    coded = [text.encode("ascii") for text in texts]
    lengths = np.array([len(text) for text in coded], np.int64)
    table = np.zeros((len(coded), max(map(len, coded), default=0)), np.uint8)
    for row, text in zip(table, coded, strict=True):
        row[: len(text)] = np.frombuffer(text, np.uint8)
    return table, lengths


# What follows is compiled, by the rules of `_text`.

_ZERO, _POINT, _MINUS, _PLUS, _E = b"0.-+e"
_FRACTION = 52  # bits
_W0, _W1, _W2, _W3, _W4, _W10, _W40 = (np.uint64(value) for value in (0, 1, 2, 3, 4, 10, 40))
_HIDDEN, _SIGN = np.uint64(2**52), np.uint64(2**63)


def _odd(high: Any, low: Any, factor: Any) -> Any:
    """The product with a power of ten, without its fraction; but odd if there is one."""
    carried, _ = product(low, factor)
    whole, rest = product(high, factor)
    rest += carried
    if rest < carried:
        whole += _W1
    return whole | _W1 if rest > _W1 else whole


def _shortest(fraction: Any, power: int, closer: Any, k: int, high: Any, low: Any) -> Any:
    """The digits of fraction × 2^power, and by how much their power of ten is more than k."""
    shift = np.uint64(power + ((-k * 1741647) >> 19) + 1)
    open_end = fraction & _W1  # an odd number does not own the ends of its interval
    lower = _odd(high, low, (_W4 * fraction - _W2 + closer) << shift) + open_end
    value = _odd(high, low, (_W4 * fraction) << shift)
    upper = _odd(high, low, (_W4 * fraction + _W2) << shift) - open_end
    digits = value // _W4
    tenth = digits // _W10
    below, above = lower <= _W40 * tenth, _W40 * tenth + _W40 <= upper
    if digits >= _W10 and below != above:
        return tenth + _W1 if above else tenth, 1
    below, above = lower <= _W4 * digits, _W4 * digits + _W4 <= upper
    if below == above:
        middle = _W4 * digits + _W2
        above = value > middle or (value == middle and digits & _W1 == _W1)
    return digits + _W1 if above else digits, 0


def _write_rows(
    table: np.ndarray, pieces: np.ndarray, lengths: np.ndarray, words: np.ndarray, sizes: np.ndarray,
    word_column: int, text: np.ndarray, powers: np.ndarray,
) -> int:  # fmt: skip
    """Writes the rows of a table, [columns, rows], of the bits of float64; how many bytes of the text that takes."""
    at = 0
    for row in range(table.shape[1]):
        for column in range(pieces.shape[0]):
            for i in range(lengths[unsigned(column)]):
                text[unsigned(at + i)] = pieces[unsigned(column), unsigned(i)]
            at += lengths[unsigned(column)]
            if column == table.shape[0]:
                break
            bits = table[unsigned(column), unsigned(row)]
            if bits & _SIGN != _W0:
                text[unsigned(at)] = _MINUS
                at += 1
            # The number as fraction × 2^power, then as digits × 10^k.
            exponent = np.int64((bits & ~_SIGN) >> np.uint64(_FRACTION))
            fraction = bits & (_HIDDEN - _W1)
            closer = _W1 if fraction == _W0 and exponent > 1 else _W0  # the next smaller number is
            if exponent > 0:
                fraction |= _HIDDEN
            power: Any = (exponent if exponent > 0 else 1) - 1023 - _FRACTION
            k: Any = 0
            if fraction == _W0:
                digits = _W0
            elif -_FRACTION <= power <= 0 and fraction & ((_W1 << np.uint64(-power)) - _W1) == _W0:
                digits = fraction >> np.uint64(-power)
            else:
                k = (power * 1262611 - (524031 if closer == _W1 else 0)) >> 22
                entry = unsigned(-k - _LEAST_POWER)
                digits, more = _shortest(fraction, power, closer, k, powers[entry, _W0], powers[entry, _W1])
                k += more
            if column == word_column:
                for i in range(sizes[digits]):
                    text[unsigned(at + i)] = words[digits, unsigned(i)]
                at += sizes[digits]
                continue
            # Without zeros at the end; the point stands before the digit number `point`.
            while digits != _W0 and digits % _W10 == _W0:
                digits //= _W10
                k += 1
            count = 1
            limit = _W10
            while count < 17 and digits >= limit:
                limit *= _W10
                count += 1
            point = count + k
            scientific = not -4 < point <= 16
            if scientific:
                point = 1
            if point <= 0:
                text[unsigned(at)], text[unsigned(at + 1)] = _ZERO, _POINT
                for i in range(-point):
                    text[unsigned(at + 2 + i)] = _ZERO
                at += 2 - point
            for i in range(count, point):
                text[unsigned(at + i)] = _ZERO
            if 0 < point < count:
                text[unsigned(at + point)] = _POINT
            for i in range(count - 1, -1, -1):
                text[unsigned(at + i + (1 if 0 < point <= i else 0))] = _ZERO + np.int64(digits % _W10)
                digits //= _W10
            at += max(count + (1 if 0 < point < count else 0), point)
            if scientific:
                ten = count + k - 1
                text[unsigned(at)], text[unsigned(at + 1)] = _E, _MINUS if ten < 0 else _PLUS
                at += 2
                ten = abs(ten)
                if ten >= 100:
                    text[unsigned(at)] = _ZERO + ten // 100
                    at += 1
                text[unsigned(at)], text[unsigned(at + 1)] = _ZERO + ten // 10 % 10, _ZERO + ten % 10
                at += 2
    return at
