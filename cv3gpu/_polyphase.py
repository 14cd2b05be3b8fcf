"""A resize followed by a convolution, one axis at a time, as few small convolutions of the small image.

Along an axis both together are ``y[p] = sum_r w[r] u[p + r dilation - before]`` with ``u = A x``, zero outside: each
result takes from a few neighbours in x, with weights ``w M`` where the matrix M depends on p alone. Where the resize
has a simple factor, M repeats: the results fall into phases, and those of one phase are one convolution of x with
combined weights. At the border, where u ends and x does not, M differs: such results are phases of their own.

The transpose, from gradients at the large size to those at the small one, has the same form.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from .conv import output_size
from .resize import Axis, Sampling, _taps

__all__ = ["Options", "Piece", "Plan", "Problem", "Tap", "plan"]

STEPS = 2.0**32  # weights that differ by less than 1 / STEPS are taken for equal at first, and then compared again
MOST_PHASES = 24  # of an axis; more, and nothing is gained
MOST_NUMBERS = 2**24  # of all the matrices together, before those that are equal are found


class Tap(NamedTuple):
    """One axis of the convolution: number of taps, their distance, zeros before and behind."""

    taps: int
    dilation: int
    before: int
    behind: int


class Options(NamedTuple):
    """The options of a resize as its operators take them."""

    scale_factor: float | Sequence[float] | None
    mode: str
    align_corners: bool | None


class Problem(NamedTuple):
    """A resize and the convolution behind it."""

    sampling: Sampling
    rows: Tap
    cols: Tap
    options: Options

    @property
    def large(self) -> tuple[int, int]:
        """Rows and columns of the enlarged image."""
        return self.sampling.h.n_out, self.sampling.w.n_out

    @property
    def small(self) -> tuple[int, int]:
        """Rows and columns of the image."""
        return self.sampling.h.n_in, self.sampling.w.n_in

    @property
    def padding(self) -> tuple[int, int, int, int]:
        """Top, bottom, left, right."""
        return self.rows.before, self.rows.behind, self.cols.before, self.cols.behind

    @property
    def dilation(self) -> tuple[int, int]:
        """Of rows and columns."""
        return self.rows.dilation, self.cols.dilation

    @property
    def result(self) -> tuple[int, int]:
        """Rows and columns of the result."""
        return output_size(self.large, (self.rows.taps, self.cols.taps), (1, 1), self.padding, self.dilation)


class Piece(NamedTuple):
    """Results ``first + k step`` of one phase, k < results; they take from elements ``base + k stride`` and behind."""

    phase: int
    first: int
    step: int
    results: int
    base: int
    stride: int


@dataclass(frozen=True, eq=False)
class Plan:
    """How each result of an axis takes from its elements: result p from ``base[p]`` and behind, in phase ``kind[p]``.

    ``matrices[phase]`` is [taps, elements]: what the elements' weights are of those of the convolution. Arrays are
    not to be changed. ``held`` keeps what is made of a plan, such as its copies on a GPU, for as long as the plan.
    """

    n_in: int
    n_out: int
    base: np.ndarray
    kind: np.ndarray
    matrices: tuple[np.ndarray, ...]
    held: dict[Any, Any] = field(default_factory=dict)

    @functools.cached_property
    def work(self) -> int:
        """Elements that all results take from, together."""
        lengths = np.array([matrix.shape[1] for matrix in self.matrices])
        return int(lengths[self.kind].sum())

    @functools.cached_property
    def pieces(self) -> tuple[Piece, ...]:
        """The results of each phase as progressions."""
        return tuple(itertools.chain.from_iterable(self._progressions(k) for k in range(len(self.matrices))))

    def _progressions(self, phase: int) -> Iterator[Piece]:
        members = np.flatnonzero(self.kind == phase)
        base = self.base[members]
        start = 0
        while start < len(members):
            end = start + 1
            step, stride = 1, 1
            if end < len(members) and base[end] > base[start]:
                step, stride = int(members[end] - members[start]), int(base[end] - base[start])
                same = (np.diff(members[start:]) == step) & (np.diff(base[start:]) == stride)
                end = start + 1 + (len(same) if same.all() else int(same.argmin()))
            yield Piece(phase, int(members[start]), step, end - start, int(base[start]), stride)
            start = end


@functools.lru_cache(maxsize=64)
def plan(axis: Axis, taps: int, single: bool, tap: Tap, transposed: bool) -> Plan | None:
    """The phases of an axis whose resize has ``taps`` neighbours; None where they are too many.

    ``transposed`` gives those of the gradient, whose results are the elements of the small image.
    """
    n_out = axis.n_out + tap.before + tap.behind - tap.dilation * (tap.taps - 1)
    index, weight = _taps(axis, taps, single)
    weight = np.where(np.rint(weight * STEPS) == 0, 0.0, weight)
    at = np.arange(n_out)[:, None] + np.arange(tap.taps) * tap.dilation - tap.before
    inside = np.flatnonzero((at >= 0) & (at < axis.n_out))
    p, r = np.divmod(inside, tap.taps)
    large = at.ravel()[inside]
    found = weight[large].ravel()
    p, r = np.repeat(p, taps), np.repeat(r, taps)
    small = np.clip(index[large].ravel(), 0, axis.n_in - 1)
    kept = found != 0
    to, of, tap_of, value = p[kept], small[kept], r[kept], found[kept]
    sizes = axis.n_in, n_out
    if transposed:
        to, of, sizes = of, to, sizes[::-1]
    return _phases(to, of, tap_of, value, *sizes, tap.taps)


def _phases(
    to: np.ndarray, of: np.ndarray, tap: np.ndarray, value: np.ndarray, n_in: int, n_out: int, taps: int
) -> Plan | None:
    """The plan of a map that adds ``value`` times the weight of ``tap`` times element ``of`` to result ``to``."""
    low, high = np.full(n_out, n_in), np.full(n_out, -1)
    np.minimum.at(low, to, of)
    np.maximum.at(high, to, of)
    low[high < 0] = high[high < 0] = 0
    length = int((high - low).max()) + 1
    if n_out * length * taps > MOST_NUMBERS:
        return None
    matrix = np.zeros((n_out, taps, length))
    np.add.at(matrix, (to, tap, of - low[to]), value)
    rounded = np.rint(matrix * STEPS).astype(np.int64).reshape(n_out, -1)
    _, firsts, kind, counts = np.unique(rounded, axis=0, return_index=True, return_inverse=True, return_counts=True)
    kind = kind.ravel()
    if len(firsts) > MOST_PHASES:
        return None
    if np.abs(matrix - matrix[firsts[kind]]).max() > 2.0**-46 * max(n_in, n_out):
        return None  # factors that drift: equal at a glance, and not to all digits
    lengths = (high - low + 1)[firsts]
    base = low.copy()
    # A result at the border that lacks what lies outside may be one of a phase that takes zeros there.
    border = (low < length) | (low + length > n_in)
    order = sorted(range(len(firsts)), key=lambda k: (-counts[k], firsts[k]))
    for position, k in enumerate(order[1:], 1):
        for member in np.flatnonzero((kind == k) & border):
            for larger in order[:position]:
                shift = _fits(matrix[firsts[larger], :, : lengths[larger]], matrix[member], low[member], n_in)
                if shift is not None:
                    kind[member], base[member] = larger, shift
                    break
    left = np.unique(kind)
    matrices = tuple(np.ascontiguousarray(matrix[firsts[k], :, : lengths[k]]) for k in left)
    return Plan(n_in, n_out, base, np.searchsorted(left, kind), matrices)


def _fits(phase: np.ndarray, own: np.ndarray, low: int, n_in: int) -> int | None:
    """Where the elements of a phase would begin, if inside the array it is what a result takes; None if it is not."""
    length = phase.shape[1]
    used = np.flatnonzero(own.any(axis=0))
    count = used[-1] + 1 if len(used) else 0
    for base in range(low + count - length, low + 1):
        if base >= 0 and base + length <= n_in:
            continue  # all inside: it would have been equal
        wanted = np.zeros_like(phase)
        wanted[:, low - base : low - base + count] = own[:, :count]
        inside = slice(max(0, -base), max(0, min(length, n_in - base)))
        if np.abs(phase[:, inside] - wanted[:, inside]).max(initial=0) * STEPS < 1:
            return int(base)
    return None
