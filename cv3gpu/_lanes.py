"""Operations on rows of numbers for the CPU's vector registers, called from loops that `_njit` compiles.

LLVM makes poor code of many short loops over channels: it looks for arrays that overlap at every row, and leaves the
registers half empty where the number of channels is no multiple of several. These few operations are therefore
written in LLVM's own language of vectors: sums stay in registers, a row is read and written once. Each is given as a
plain Python function too, which says what it does, and does it in a debugger.

Rows are dense and have a number of channels that is 4 or a multiple of 8. float32 and float64.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ._njit import lowered

__all__ = [
    "REGISTER",
    "STENCIL",
    "Lanes",
    "Rows",
    "Writer",
    "blur_row",
    "operation",
    "prefetch",
    "softmax_row",
    "stencil_row",
    "stencil_rows",
    "subtract_row",
    "subtract_sum",
    "sum_rows",
]

Array = np.ndarray[Any, Any]

REGISTER = 256  # bits; LLVM makes two of one where registers are shorter
_AT_ONCE = 3  # registers that a loop over terms sums up
_FAR = 16  # weights that a stencil asks the memory for ahead of time: more streams than the hardware keeps track of
STENCIL = 4  # points that `stencil_rows` works at together: their sums keep all registers busy

# exp(x) = 2^n exp(f), |f| <= log(2) / 2, for x <= 0: by the Taylor polynomial, and n added to the exponent's bits.
# Of each type: the number that rounds to a whole one when it is added, log(2) in two parts, the least x (what is below
# counts as that), the digits of the mantissa, the terms of the polynomial.
_EXP = {
    32: (1.5 * 2.0**23, 0.693359375, -2.12194440e-4, -80.0, 23, 8),
    64: (1.5 * 2.0**52, 6.93147180369123816e-01, 1.90821492927058770e-10, -690.0, 52, 15),
}


class Lanes:
    """The numbers of one register, and what can be done with them. ``a * b + c`` becomes one instruction."""

    def __init__(self, to: Writer, value: Any) -> None:
        self.to, self.value = to, value

    def __add__(self, other: Lanes) -> Lanes:
        return Lanes(self.to, self.to.builder.fadd(self.value, other.value, flags=("contract",)))

    def __sub__(self, other: Lanes) -> Lanes:
        return Lanes(self.to, self.to.builder.fsub(self.value, other.value, flags=("contract",)))

    def __mul__(self, other: Lanes) -> Lanes:
        return Lanes(self.to, self.to.builder.fmul(self.value, other.value, flags=("contract",)))

    def where(self, comparison: str, bound: Lanes, other: Lanes) -> Lanes:
        """These numbers where they compare so with the bound (never for a NaN), elsewhere the others."""
        holds = self.to.builder.fcmp_ordered(comparison, self.value, bound.value)
        return Lanes(self.to, self.to.builder.select(holds, self.value, other.value))


class Rows:
    """An array argument."""

    def __init__(self, builder: Any, data: Any, shape: list[Any]) -> None:
        self.builder, self.data, self.shape = builder, data, shape

    def number(self, at: Any) -> Any:
        return self.builder.load(self.builder.gep(self.data, [at]))


class Writer:
    """Writes the LLVM code of one operation."""

    def __init__(self, builder: Any, real: Any) -> None:
        from llvmlite import ir
        from numba.core import cgutils

        self.ir, self.tools, self.builder, self.real = ir, cgutils, builder, real
        self.word = ir.IntType(64)
        self.bits = 32 if isinstance(real, ir.FloatType) else 64

    def variable(self, value: Any) -> Any:
        """A place for a value that changes; LLVM keeps it in a register."""
        return self.tools.alloca_once_value(self.builder, value)

    @contextlib.contextmanager
    def range(self, first: Any, last: Any) -> Iterator[Any]:
        with self.tools.for_range(self.builder, last, first, intp=self.word) as loop:
            yield loop.index

    def vector(self, lanes: int) -> Any:
        return self.ir.VectorType(self.real, lanes)

    def constant(self, value: float, lanes: int) -> Lanes:
        return Lanes(self, self.ir.Constant(self.vector(lanes), [value] * lanes))

    def everywhere(self, number: Any, lanes: int) -> Lanes:
        """A number in all lanes."""
        one = self.ir.Constant(self.vector(lanes), self.ir.Undefined)
        one = self.builder.insert_element(one, number, self.ir.IntType(32)(0))
        mask = self.ir.Constant(self.ir.VectorType(self.ir.IntType(32), lanes), [0] * lanes)
        return Lanes(self, self.builder.shuffle_vector(one, one, mask))

    def _place(self, rows: Rows, at: Any, lanes: int) -> Any:
        return self.builder.bitcast(self.builder.gep(rows.data, [at]), self.vector(lanes).as_pointer())

    def load(self, rows: Rows, at: Any, lanes: int) -> Lanes:
        return Lanes(self, self.builder.load(self._place(rows, at, lanes), align=self.bits // 8))

    def store(self, x: Lanes, rows: Rows, at: Any) -> None:
        self.builder.store(x.value, self._place(rows, at, x.value.type.count), align=self.bits // 8)

    def channels(self, width: Any, body: Callable[..., None], blocks: Any = None) -> None:
        """Calls ``body(channel, lanes, registers)`` for blocks that cover a row.

        ``blocks``, where given, says the lanes of their registers, the widest first: ``body(channel, block)``.
        """
        b, full = self.builder, REGISTER // self.bits
        channel = self.variable(self.word(0))
        for given in dict.fromkeys(blocks or [(full, _AT_ONCE), (full, 1), (4, 1)]):
            step = self.word(sum(given) if blocks else math.prod(given))
            test, block, after = (b.append_basic_block() for _ in range(3))
            b.branch(test)
            b.position_at_end(test)
            now = b.load(channel)
            b.cbranch(b.icmp_signed("<=", b.add(now, step), width), block, after)
            b.position_at_end(block)
            body(now, *([given] if blocks else given))
            b.store(b.add(now, step), channel)
            b.branch(test)
            b.position_at_end(after)

    def offset(self, base: Any, register: int, lanes: int) -> Any:
        return self.builder.add(base, self.word(register * lanes))

    def at(self, row: Any, width: Any, channel: Any) -> Any:
        return self.builder.add(self.builder.mul(row, width), channel)

    def prefetch(self, rows: Rows, at: Any) -> None:
        i8, i32 = self.ir.IntType(8).as_pointer(), self.ir.IntType(32)
        kind = self.ir.FunctionType(self.ir.VoidType(), [i8, *[i32] * 3])
        fetch = self.builder.module.declare_intrinsic("llvm.prefetch", [i8], kind)
        place = self.builder.bitcast(self.builder.gep(rows.data, [at]), i8)
        self.builder.call(fetch, [place, i32(0), i32(3), i32(1)])  # to read, to be kept, data

    def number(self, x: Any) -> Any:
        """A number in the type of the rows; it may come in the other one."""
        if x.type == self.real:
            return x
        return self.builder.fpext(x, self.real) if self.bits == 64 else self.builder.fptrunc(x, self.real)

    def integer(self, x: Any) -> Any:
        return self.builder.sext(x, self.word) if x.type.width < 64 else x

    def over_lanes(self, x: Lanes, function: Callable[[Lanes, Lanes], Lanes]) -> Any:
        """The lanes reduced to one number."""
        lanes = x.value.type.count
        while lanes > 1:
            lanes //= 2
            halves = (
                self.ir.Constant(self.ir.VectorType(self.ir.IntType(32), lanes), [*range(first, first + lanes)])
                for first in (0, lanes)
            )
            x = function(*(Lanes(self, self.builder.shuffle_vector(x.value, x.value, half)) for half in halves))
        return self.builder.extract_element(x.value, self.ir.IntType(32)(0))

    def exp(self, x: Lanes) -> Lanes:
        """Of numbers that are not positive. Zero far below; NaN stays NaN: nothing is added to its bits."""
        magic, high, low, least, digits, terms = _EXP[self.bits]
        lanes = x.value.type.count
        zero = self.constant(0.0, lanes)
        inside = x.where(">=", self.constant(least, lanes), zero)
        shift = self.constant(magic, lanes)
        whole = inside * self.constant(math.log2(math.e), lanes) + shift
        n = whole - shift
        f = (x - n * self.constant(high, lanes)) - n * self.constant(low, lanes)
        power = self.constant(1 / math.factorial(terms - 1), lanes)
        for k in reversed(range(terms - 1)):
            power = power * f + self.constant(1 / math.factorial(k), lanes)
        integers = self.ir.VectorType(self.ir.IntType(self.bits), lanes)
        b, by = self.builder, self.ir.Constant(integers, [digits] * lanes)
        exponent = b.shl(b.bitcast(whole.value, integers), by)
        bits = b.add(b.bitcast(power.value, integers), exponent)
        below = b.fcmp_ordered("<", x.value, self.constant(least, lanes).value)
        return Lanes(self, b.select(below, zero.value, b.bitcast(bits, self.vector(lanes))))


def operation(body: Callable[..., None]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Marks a function whose LLVM code is what ``body(writer, *arguments)`` writes."""

    def write(builder: Any, real: Any, *arguments: Any) -> None:
        body(Writer(builder, real), *(Rows(builder, *x) if isinstance(x, tuple) else x for x in arguments))

    return lowered(write, body.__code__.co_filename, __file__)


def _total(w: Writer, x: Rows, index: Rows, weight: Rows, first: Any, last: Any, channel: Any, lanes: int,
           registers: int) -> list[Lanes]:  # fmt: skip
    """The sum of weighted rows, of one block of channels."""
    b, width = w.builder, x.shape[1]
    zero = w.constant(0.0, lanes)
    sums = [w.variable(zero.value) for _ in range(registers)]
    with w.range(first, last) as k:
        factor = w.everywhere(weight.number(k), lanes)
        at = w.at(w.integer(index.number(k)), width, channel)
        for register, place in enumerate(sums):
            term = factor * w.load(x, w.offset(at, register, lanes), lanes)
            b.store((term + Lanes(w, b.load(place))).value, place)
    return [Lanes(w, b.load(place)) for place in sums]


def _lower_sum_rows(w: Writer, x: Rows, index: Rows, weight: Rows, first: Any, last: Any, out: Rows,
                    row: Any) -> None:  # fmt: skip
    def block(channel: Any, lanes: int, registers: int) -> None:
        to = w.at(row, x.shape[1], channel)
        for register, total in enumerate(_total(w, x, index, weight, first, last, channel, lanes, registers)):
            w.store(total, out, w.offset(to, register, lanes))

    w.channels(x.shape[1], block)


@operation(_lower_sum_rows)
def sum_rows(x: Array, index: Array, weight: Array, first: int, last: int, out: Array, row: int) -> None:
    """``out[row]`` = the sum of ``weight[k] x[index[k]]``, k from ``first`` to ``last``."""
    out[row] = 0
    for k in range(first, last):
        out[row] += weight[k] * x[index[k]]


def _lower_subtract_sum(w: Writer, factor: Rows, x: Rows, index: Rows, weight: Rows, first: Any, last: Any,
                        out: Rows, row: Any) -> None:  # fmt: skip
    def block(channel: Any, lanes: int, registers: int) -> None:
        to = w.at(row, x.shape[1], channel)
        for register, total in enumerate(_total(w, x, index, weight, first, last, channel, lanes, registers)):
            place = w.offset(to, register, lanes)
            by = w.load(factor, w.offset(channel, register, lanes), lanes)
            w.store(w.load(out, place, lanes) - by * total, out, place)

    w.channels(x.shape[1], block)


@operation(_lower_subtract_sum)
def subtract_sum(factor: Array, x: Array, index: Array, weight: Array, first: int, last: int, out: Array,
                 row: int) -> None:  # fmt: skip
    """``out[row] -= factor[0]`` times the sum of ``weight[k] x[index[k]]``, k from ``first`` to ``last``."""
    for k in range(first, last):
        out[row] -= factor[0] * (weight[k] * x[index[k]])


def _lower_stencil(points: int) -> Callable[..., None]:
    """The code of `stencil_rows` and `stencil_row`, for so many points."""

    def lower(w: Writer, x: Rows, step: Rows, place: Rows, terms: Any, weight: Rows, diagonal: Rows,
              factor: Rows, point: Any, out: Rows, row: Any) -> None:  # fmt: skip
        b, width, full = w.builder, x.shape[1], REGISTER // w.bits
        start = w.at(point, width, w.word(0))

        def block(channel: Any, parts: tuple[int, ...]) -> None:
            """The sums of one block of channels, whose registers have so many lanes."""
            firsts = [b.add(channel, w.word(sum(parts[:i]))) for i in range(len(parts))]
            sums = [[w.variable(w.constant(0.0, lanes).value) for lanes in parts] for _ in range(points)]
            with w.range(w.word(0), terms) as k:
                source = b.add(start, b.mul(w.integer(step.number(k)), width))
                weights = b.add(w.integer(place.number(k)), point)
                w.prefetch(weight, b.add(weights, w.word(_FAR)))
                for p, totals in enumerate(sums):
                    number = w.number(weight.number(b.add(weights, w.word(p))))
                    here = b.add(source, b.mul(w.word(p), width))
                    for first, lanes, total in zip(firsts, parts, totals, strict=True):
                        term = w.everywhere(number, lanes) * w.load(x, b.add(here, first), lanes)
                        b.store((term + Lanes(w, b.load(total))).value, total)
            many = b.icmp_signed(">", factor.shape[0], w.word(1))
            for p, totals in enumerate(sums):
                one, to = b.add(point, w.word(p)), b.add(row, w.word(p))
                own, scale = diagonal.number(one), factor.number(b.select(many, one, w.word(0)))
                for first, lanes, total in zip(firsts, parts, totals, strict=True):
                    centre = w.everywhere(own, lanes) * w.load(x, w.at(one, width, first), lanes)
                    result = w.everywhere(scale, lanes) * Lanes(w, b.load(total)) + centre
                    w.store(result, out, w.at(to, width, first))

        w.channels(width, block, [(full,) * 3, (full,) * 2, (full, 4), (full,), (4,)])

    return lower


@operation(_lower_stencil(STENCIL))
def stencil_rows(x: Array, step: Array, place: Array, terms: int, weight: Array, diagonal: Array, factor: Array,
                 point: int, out: Array, row: int) -> None:  # fmt: skip
    """``out[row + p] = diagonal[q] x[q] + factor[q] sum``, of the points q = ``point + p``, p < STENCIL.

    The sum goes over ``terms`` neighbours k, and is of ``weight[place[k] + q] x[q + step[k]]``; ``weight`` may be of
    the other type of float. A single factor is that of all points.
    """
    for p in range(STENCIL):
        stencil_row(x, step, place, terms, weight, diagonal, factor, point + p, out, row + p)


@operation(_lower_stencil(1))
def stencil_row(x: Array, step: Array, place: Array, terms: int, weight: Array, diagonal: Array, factor: Array,
                point: int, out: Array, row: int) -> None:  # fmt: skip
    """As `stencil_rows`, of one point."""
    total = np.zeros_like(x[0])
    for k in range(terms):
        total += weight[place[k] + point] * x[point + step[k]]
    out[row] = diagonal[point] * x[point] + factor[point if len(factor) > 1 else 0] * total


def _lower_subtract_row(w: Writer, x: Rows, y: Rows, source: Any, out: Rows, row: Any) -> None:
    width = y.shape[1]

    def block(channel: Any, lanes: int, registers: int) -> None:
        of, to = w.at(source, width, channel), w.at(row, width, channel)
        for register in range(registers):
            less = w.load(y, w.offset(of, register, lanes), lanes)
            w.store(w.load(x, w.offset(channel, register, lanes), lanes) - less, out, w.offset(to, register, lanes))

    w.channels(width, block)


@operation(_lower_subtract_row)
def subtract_row(x: Array, y: Array, source: int, out: Array, row: int) -> None:
    """``out[row] = x[0] - y[source]``."""
    out[row] = x[0] - y[source]


def _lower_blur_row(w: Writer, x: Rows, row: Any, one: Any, other: Any, out: Rows) -> None:
    width = x.shape[1]

    def block(channel: Any, lanes: int, registers: int) -> None:
        here, left, right = (w.at(w.integer(place), width, channel) for place in (row, one, other))
        half = w.constant(0.5, lanes)
        for register in range(registers):
            centre, a, b = (w.load(x, w.offset(place, register, lanes), lanes) for place in (here, left, right))
            w.store(centre + half * (a + b), out, w.offset(here, register, lanes))

    w.channels(width, block)


@operation(_lower_blur_row)
def blur_row(x: Array, row: int, one: int, other: int, out: Array) -> None:
    """``out[row] = x[row] + (x[one] + x[other]) / 2``."""
    out[row] = x[row] + (x[one] + x[other]) / 2


def _lower_softmax_row(w: Writer, x: Rows, out: Rows, row: Any) -> None:
    b, width, full = w.builder, out.shape[1], REGISTER // w.bits

    def reduced(start: float, function: Callable[[Lanes, Lanes], Lanes], term: Callable[..., Lanes]) -> Any:
        """Over all channels of ``term(channel, lanes)``."""
        kept = {lanes: w.variable(w.constant(start, lanes).value) for lanes in {full, 4}}

        def block(channel: Any, lanes: int, registers: int) -> None:
            total = Lanes(w, b.load(kept[lanes]))
            for register in range(registers):
                total = function(total, term(w.offset(channel, register, lanes), lanes))
            b.store(total.value, kept[lanes])

        w.channels(width, block)
        ends = [w.over_lanes(Lanes(w, b.load(place)), function) for place in kept.values()]
        return w.over_lanes(_pair(ends), function) if len(ends) > 1 else ends[0]

    def _pair(ends: list[Any]) -> Lanes:
        both = w.ir.Constant(w.vector(2), w.ir.Undefined)
        for place, end in enumerate(ends):
            both = b.insert_element(both, end, w.ir.IntType(32)(place))
        return Lanes(w, both)

    def greater(one: Lanes, other: Lanes) -> Lanes:
        return one.where(">", other, other)

    most = reduced(-math.inf, greater, lambda channel, lanes: w.load(x, channel, lanes))

    def power(channel: Any, lanes: int) -> Lanes:
        term = w.exp(w.load(x, channel, lanes) - w.everywhere(most, lanes))
        w.store(term, out, w.at(row, width, channel))
        return term

    inverse = b.fdiv(w.real(1.0), reduced(0.0, lambda one, other: one + other, power))

    def scale(channel: Any, lanes: int, registers: int) -> None:
        for register in range(registers):
            to = w.at(row, width, w.offset(channel, register, lanes))
            w.store(w.load(out, to, lanes) * w.everywhere(inverse, lanes), out, to)

    w.channels(width, scale)


@operation(_lower_softmax_row)
def softmax_row(x: Array, out: Array, row: int) -> None:
    """``out[row]`` = softmax of ``x[0]``."""
    power = np.exp(x[0] - x[0].max())
    out[row] = power / power.sum()


def _lower_prefetch(w: Writer, x: Rows, at: Any) -> None:
    w.prefetch(x, at)


@operation(_lower_prefetch)
def prefetch(x: Array, at: int) -> None:
    """Has the element of a flat array loaded into the cache; nothing else."""
