"""Batched rectangular linear sum assignment: many small matching problems in one call.

The CPU solver is Jonker and Volgenant's: dual variables from the column minima (square problems), one
pass of augmenting row reduction, then a shortest augmenting path for every row still free. Its functions
are plain Python; `_njit` hands them to numba at the first call, so that importing this module needs NumPy
alone.

Two things make the inner loops fast. They are branch-free over contiguous, padded arrays, and they
compare int64 keys in place of float64 values (see `_two_best`), because LLVM vectorises an integer
minimum and not a floating-point one.
"""

from __future__ import annotations

import itertools
import math
import numbers
from typing import Any, NamedTuple

import numpy as np

from . import _array, _check, _kernel, _njit
from ._array import array_op
from ._threads import cores, each

__all__ = ["Assignment", "linear_sum_assignment"]

Array = np.ndarray
OP = "linear_sum_assignment"

_GPU_WARPS = ((128, 1), (1024, 4))  # up to so many columns: warps per problem
_GPU_MOST_WARPS = 16
_GPU_PROBLEMS = 4  # problems per block, where a problem has one warp
_GPU_SHARED = 48 << 10  # bytes of shared memory that every GPU grants without being asked
_GPU_BLOCKS = 1024  # blocks at most, where each has its own workspace in global memory


class Assignment(NamedTuple):
    """Matched pairs, sorted by row and padded with -1 at the end, and the sum of their costs."""

    row_ind: Any
    col_ind: Any
    total: Any


@array_op("cost")
def linear_sum_assignment(
    cost: Any,
    *,
    maximize: bool = False,
    n_rows: Any = None,
    n_cols: Any = None,
) -> Assignment:
    """Match rows to columns, one to one, at the least total cost, for each problem of a batch.

    Among the matchings with the most pairs of finite cost, the one that minimises the sum of ``cost[i,
    j]`` over its pairs. Where every row (or every column, if there are fewer) can be matched this is
    SciPy's problem.

    Parameters
    ----------
    cost : array, [..., N, M], float32/float64, or any integer or bool
        Costs. A pair that must not be matched is ``inf`` (``-inf`` if ``maximize``). Integers are
        converted to float64.
    maximize : bool
        Look for the greatest total.
    n_rows, n_cols : array, [...], integer, or int, optional
        The valid part ``cost[..., :n_rows, :n_cols]`` of each problem; what lies outside is not looked at.

    Returns
    -------
    row_ind, col_ind : array, [..., min(N, M)], int64
        The pairs of each problem, sorted by row, followed by -1.
    total : array, [...], float64
        The sum of their costs, in row order, in float64 for every dtype of ``cost``; 0 where nothing is
        matched.

    Raises
    ------
    TypeError
        If an argument is of another library, device or dtype.
    ValueError
        If shapes do not fit, or, on the CPU, if a valid cost is NaN or an infinity of the wrong sign or a
        size is out of range.

    Notes
    -----
    On a GPU nothing is copied to the host, so values are not checked: NaN and the wrong infinity count as
    forbidden, sizes are cut to their range. Among matchings of equal total, which one is returned is not
    specified, but is the same on every run; CPU and GPU may differ. Differences of costs must not overflow
    float64. No gradient: the results never require one, ``total`` included; to let it flow, sum the costs
    of the pairs.

    Time is O(min(N, M)² max(N, M)) per problem, in practice far less. The CPU solves parts of the batch
    in threads.

    References
    ----------
    R. Jonker and A. Volgenant, "A shortest augmenting path algorithm for dense and sparse linear
    assignment problems", Computing 38, 1987. D. F. Crouse, "On implementing 2D rectangular assignment
    algorithms", IEEE Transactions on Aerospace and Electronic Systems 52(4), 2016. A. L. Dulmage and N. S.
    Mendelsohn, "Coverings of bipartite graphs", Canadian Journal of Mathematics 10, 1958 (problems without
    a full matching).

    Examples
    --------
    >>> import numpy as np
    >>> from cv3gpu import linear_sum_assignment
    >>> cost = np.array([[4.0, 1.0, 3.0], [2.0, 0.0, 5.0], [3.0, 2.0, 2.0]])
    >>> row_ind, col_ind, total = linear_sum_assignment(cost)
    >>> col_ind, float(total)
    (array([1, 0, 2]), 5.0)

    A gate that leaves the last row without a partner:

    >>> cost[2] = np.inf
    >>> linear_sum_assignment(cost).col_ind
    array([ 1,  0, -1])
    """
    check_cost(cost)
    maximize = _check.flag(OP, "maximize", maximize)
    lead, n, m = tuple(cost.shape[:-2]), int(cost.shape[-2]), int(cost.shape[-1])
    batch = math.prod(lead)
    if _array.dtype_name(cost) not in _FLOATS:
        cost = _array.astype(cost, "float64")
    problems = cost.reshape((batch, n, m))
    on_gpu = _array.on_gpu(cost)
    rows = _sizes("n_rows", n_rows, cost, lead, n, check_values=not on_gpu)
    cols = _sizes("n_cols", n_cols, cost, lead, m, check_values=not on_gpu)
    found: tuple[Any, ...]
    if on_gpu:
        found = _solve_gpu(problems, rows, cols, maximize)
    else:
        solved = _solve_cpu(_array.as_numpy(problems), rows, cols, maximize)
        found = tuple(_array.from_numpy(x, cost) for x in solved)
    row_ind, col_ind = (x.reshape((*lead, min(n, m))) for x in found[:2])
    return Assignment(row_ind, col_ind, found[2].reshape(lead))


_FLOATS = ("float32", "float64")
_INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")


def check_cost(cost: Any) -> None:
    """Checks the costs; sizes may be symbolic integers of torch."""
    _check.dtype(OP, "cost", cost, (*_FLOATS, *_INTEGERS, "bool"))
    if cost.ndim < 2:
        _check.fail(OP, "cost", "have shape [..., N, M]", tuple(cost.shape))


def _sizes(argument: str, sizes: Any, cost: Any, lead: tuple[int, ...], most: int, check_values: bool) -> Any:
    """The valid size of each problem: int64 [B], in NumPy on the CPU path, else where `cost` is."""
    if sizes is None:
        sizes = most
    if isinstance(sizes, numbers.Integral) and not isinstance(sizes, bool):
        sizes = _check.integer(OP, argument, sizes, 0, most)
        full = _array.empty(cost, (math.prod(lead),), "int64")
        full[...] = sizes
        return _array.as_numpy(full) if check_values else full
    if _array.family(sizes) is None:
        wanted = "be an array of integers or an integer"
        _check.fail(OP, argument, wanted, _check.kind(sizes), error=TypeError)
    places = [(_array.family(x), _array.device_of(x)) for x in (cost, sizes)]
    if places[0] != places[1]:
        where = [f"{family} on {device}" for family, device in places]
        _check.fail(OP, argument, f"be where cost is ({where[0]})", where[1], error=TypeError)
    _check.dtype(OP, argument, sizes, _INTEGERS)
    _check.shape(OP, argument, sizes, lead, "one size per problem")
    if not check_values:
        sizes = _array.astype(sizes, "int64")
        return _array.contiguous(sizes.reshape((math.prod(lead),)))
    flat = _array.as_numpy(sizes).reshape(-1)
    wrong = (flat < 0) | (flat > most)
    if wrong.any():
        _check.fail(OP, argument, f"be from 0 to {most}", int(flat[wrong][0]))
    return np.ascontiguousarray(flat.astype(np.int64))


# ---- GPU ------------------------------------------------------------------------------------------------


def _solve_gpu(cost: Any, n_rows: Any, n_cols: Any, maximize: bool) -> tuple[Any, Any, Any]:
    from .kernels import assignment as kernels

    batch, n, m = (int(size) for size in cost.shape)
    short, long = min(n, m), max(n, m)
    row_ind, col_ind = (_array.empty(cost, (batch, short), "int64") for _ in range(2))
    total = _array.empty(cost, (batch,), "float64")
    warps = next((w for most, w in _GPU_WARPS if long <= most), _GPU_MOST_WARPS)
    problems = _GPU_PROBLEMS if warps == 1 else 1
    words = kernels.state_words(short, long, warps)
    shared = 8 * problems * words
    in_shared = shared <= _GPU_SHARED
    grid = _kernel.blocks(batch, problems)
    if not in_shared:
        grid = min(grid, _GPU_BLOCKS)
    workspace = _array.empty(cost, (1 if in_shared else grid * problems * words,), "float64")
    launch = _kernel.numba_kernel(kernels.make_assignment(warps, problems, in_shared))
    launch(
        (grid,),
        (32, warps * problems),
        _array.contiguous(cost).reshape((batch * n * m,)),
        np.int64(batch),
        np.int64(n),
        np.int64(m),
        np.int64(words),
        np.float64(-1.0 if maximize else 1.0),
        n_rows,
        n_cols,
        row_ind,
        col_ind,
        total,
        workspace,
        shared_mem=shared if in_shared else 0,
    )
    return row_ind, col_ind, total


# ---- CPU ------------------------------------------------------------------------------------------------

# Nothing is allocated below (see `_njit`). The work space of a problem is rows as wide as the widest problem
# needs; `width` is how much of them this one uses. Its scratch is some of those rows, `f` as float64 and `k`
# the same memory as int64. By column:
_V = 0  # f: column duals; -inf shuts a column
_OPEN = 1  # f: the duals during one search, -inf where the column was already scanned
_VALUE = 2  # f: reduced costs of one row
_NEAR: Any = np.int64(3)  # k: keys of the distances before a row is scanned, and after (they swap).
_NEXT: Any = np.int64(4)  # Typed, as Python literals would have the callees compiled once per value.
_RANK = 5  # k: order among equal keys: free columns first, then by index
_ROW_OF_COL = 6  # k: -1 where free
# By row (there are at most as many rows as columns):
_U = 7  # f: row duals
_COL_OF_ROW = 8  # k: -1 where free
# By step of one search:
_STEP_ROW = 9  # k: the row scanned
_STEP_COL = 10  # k: the column by which it was reached
_STEP_DIST = 11  # f: its distance from the root
# What is solved apart, see `_shut`:
_ROW_SHUT, _COL_SHUT = 12, 13  # k: 0 or 1
_SCRATCH_ROWS = 14

_INF = np.inf
_ZERO: Any = np.int64(0)
_INF_KEY: Any = np.int64(0x7FF0000000000000)  # the bits of +inf; every other key is smaller
_MAGNITUDE: Any = np.int64(0x7FFFFFFFFFFFFFFF)
_LANES = 8  # rows are padded with +inf to a multiple of this, so that no loop has a scalar tail
_RETRIES = 1  # augmenting row reduction re-examines at most this many displaced rows per row
_PARALLEL_WORK = 1 << 18  # cost entries below which threads cost more than they save
_PIECES_PER_THREAD = 4
_PIECE = 1 << 17  # cost entries that one thread takes at a time: a float64 copy of them stays in its cache


def _padded(m: int) -> int:
    return (max(m, 1) + _LANES - 1) // _LANES * _LANES


def _load(cost: Array, n_rows: int, n_cols: int, sign: float, out: Array, width: int) -> int:
    """Copy sign * cost[:n_rows, :n_cols], lying down (rows <= columns); count what is not finite or +inf."""
    bad = 0
    if n_rows <= n_cols:
        for i in range(n_rows):
            for j in range(n_cols):
                x = sign * np.float64(cost[i, j])
                bad += 0 if x > -_INF else 1
                out[i, j] = x
            for j in range(n_cols, width):
                out[i, j] = _INF
    else:
        for j in range(n_cols):
            for i in range(n_rows):
                x = sign * np.float64(cost[i, j])
                bad += 0 if x > -_INF else 1
                out[j, i] = x
            for i in range(n_rows, width):
                out[j, i] = _INF
    return bad


def _find(k: Array, keys: int, low: int, width: int) -> int:
    """The column whose key is `low`; among several the one of the lowest rank."""
    taken = k.shape[1]  # what a taken column's rank lies above its index
    none = 2 * taken
    best = none
    for j in range(width):
        best = min(best, k[_RANK, j] if k[keys, j] == low else none)
    return best if best < taken else best - taken


def _two_best(cost: Array, row: int, f: Array, k: Array, width: int) -> tuple[int, int]:
    """Reduced costs of a row: (best column, key of the second-best). The costs are left in _VALUE.

    Positive doubles order like their bits do as integers; negative ones too, once their magnitude is
    complemented.
    """
    for j in range(width):
        f[_VALUE, j] = cost[row, j] - f[_V, j]
    low = _INF_KEY
    for j in range(width):
        x = k[_VALUE, j]
        x = x ^ (_MAGNITUDE if x < 0 else _ZERO)
        k[_NEAR, j] = x
        low = min(low, x)
    taken = k.shape[1]
    none = 2 * taken
    best, second, ties = none, _INF_KEY, 0
    for j in range(width):
        x = k[_NEAR, j]
        best = min(best, k[_RANK, j] if x == low else none)
        second = min(second, _INF_KEY if x == low else x)
        ties += 1 if x == low else 0
    return best if best < taken else best - taken, low if ties > 1 else second


def _relax(
    cost: Array, row: int, f: Array, k: Array, width: int, offset: float, floor: int, before: int, after: int
) -> int:
    """Row `after` = min(before, max(cost - dual + offset, floor)), in keys (all >= 0); returns the least.

    The floor, the distance of the row being scanned, keeps rounding from making a distance fall along a
    path. `after` is another row than `before` because a minimum in place would compile to slow masked
    stores.
    """
    for j in range(width):
        f[_VALUE, j] = cost[row, j] - f[_OPEN, j] + offset
    low = _INF_KEY
    for j in range(width):
        x = min(max(k[_VALUE, j], floor), k[before, j])
        k[after, j] = x
        low = min(low, x)
    return low


def _reset(n: int, f: Array, k: Array, width: int) -> None:
    for j in range(width):
        f[_V, j] = 0.0
        k[_RANK, j] = j
        k[_ROW_OF_COL, j] = -1
        k[_COL_SHUT, j] = 0
    for i in range(n):
        k[_COL_OF_ROW, i] = -1
        k[_ROW_SHUT, i] = 0


def _pair(k: Array, row: int, col: int) -> None:
    if k[_ROW_OF_COL, col] < 0:
        k[_RANK, col] += k.shape[1]
    k[_ROW_OF_COL, col] = row
    k[_COL_OF_ROW, row] = col


def _column_minima(cost: Array, f: Array, width: int, m: int) -> bool:
    """Column duals = column minima: a valid start where every column gets matched. False if one can't be."""
    for j in range(width):
        f[_OPEN, j] = cost[0, j]
    before, after = _OPEN, _VALUE
    for i in range(1, cost.shape[0]):
        for j in range(width):
            f[after, j] = min(cost[i, j], f[before, j])
        before, after = after, before
    finite = 0
    for j in range(m):
        f[_V, j] = f[before, j]
        finite += 1 if f[before, j] < _INF else 0
    return finite == m


def _row_reduction(cost: Array, f: Array, k: Array, width: int) -> None:
    """Give each row its cheapest column, and lower that column's dual to the row's second choice.

    (One round of an auction.) A row displaced on the way chooses again at once, up to a limit; `_match`
    serves those left over.
    """
    retries = _RETRIES * cost.shape[0]
    for first in range(cost.shape[0]):
        row = first
        while row >= 0:
            col, second = _two_best(cost, row, f, k, width)
            if second == _INF_KEY:
                break  # at most one choice: its dual has no finite bound, leave the row to the search
            k[_STEP_DIST, 0] = second ^ (_MAGNITUDE if second < 0 else _ZERO)
            step = f[_STEP_DIST, 0] - f[_VALUE, col]
            displaced = k[_ROW_OF_COL, col]
            if step == 0.0 and displaced >= 0:
                break  # a tie between taken columns: nothing to gain
            f[_U, row] = f[_STEP_DIST, 0]
            f[_V, col] -= step
            _pair(k, row, col)
            row = displaced
            if displaced >= 0:
                k[_COL_OF_ROW, displaced] = -1
                retries -= 1
                if retries < 0:
                    row = -1


def _search(cost: Array, root: int, f: Array, k: Array, width: int) -> tuple[int, int, float]:
    """Dijkstra from a free row to the nearest free column: (steps, column or -1, its distance)."""
    col, _ = _two_best(cost, root, f, k, width)
    k[_STEP_ROW, 0] = root
    if f[_VALUE, col] == _INF:
        return 1, -1, 0.0
    f[_U, root] = f[_VALUE, col]
    for j in range(width):
        f[_OPEN, j] = f[_V, j]
        k[_NEAR, j] = _INF_KEY
    before, after = _NEAR, _NEXT
    row, dist, low = root, 0.0, _ZERO
    step = 0
    while True:
        k[_STEP_ROW, step] = row
        f[_STEP_DIST, step] = dist
        step += 1
        low = _relax(cost, row, f, k, width, dist - f[_U, row], low, before, after)
        if low == _INF_KEY:
            return step, -1, 0.0
        col = _find(k, after, low, width)
        dist = f[after, col]
        row = k[_ROW_OF_COL, col]
        if row < 0:
            return step, col, dist
        k[_STEP_COL, step] = col
        f[_OPEN, col] = -_INF
        k[after, col] = _INF_KEY
        before, after = after, before


def _predecessor(cost: Array, col: int, f: Array, k: Array, steps: int) -> int:
    """The step, among the first `steps`, from which the search reached this column."""
    best, found = _INF, 0
    for t in range(steps):
        row = k[_STEP_ROW, t]
        dist = max(cost[row, col] - f[_V, col] + (f[_STEP_DIST, t] - f[_U, row]), f[_STEP_DIST, t])
        if dist < best:
            best, found = dist, t
    return found


def _augment(cost: Array, f: Array, k: Array, steps: int, sink: int, dist: float) -> None:
    """Flip the path that ends at `sink`, then move the duals so that every pair on it is tight."""
    col, step = sink, steps
    while step > 0:
        step = _predecessor(cost, col, f, k, step)
        _pair(k, k[_STEP_ROW, step], col)
        col = k[_STEP_COL, step]
    for t in range(steps):
        rise = dist - f[_STEP_DIST, t]
        f[_U, k[_STEP_ROW, t]] += rise
        if t > 0:
            f[_V, k[_STEP_COL, t]] -= rise


def _shut(f: Array, k: Array, steps: int) -> None:
    """Set aside the rows and columns of a search that found no free column.

    The rows reach no other column, and each of the columns is needed by one of them: the two sets form a
    problem of their own, to be solved apart, and the rest has no use for these columns. (Dulmage and
    Mendelsohn's decomposition.)
    """
    for t in range(steps):
        k[_ROW_SHUT, k[_STEP_ROW, t]] = 1
        if t > 0:
            k[_COL_SHUT, k[_STEP_COL, t]] = 1
            f[_V, k[_STEP_COL, t]] = -_INF


def _match(cost: Array, f: Array, k: Array, width: int, m: int, square: bool) -> int:
    """Match the rows that can be; returns how many could not, at the first of them if the problem is square.

    The start from the column minima holds only where all of a square problem can be matched.
    """
    _reset(cost.shape[0], f, k, width)
    if square and not _column_minima(cost, f, width, m):
        return 1
    _row_reduction(cost, f, k, width)
    left = 0
    for root in range(cost.shape[0]):
        if k[_COL_OF_ROW, root] < 0:
            steps, sink, dist = _search(cost, root, f, k, width)
            if sink >= 0:
                _augment(cost, f, k, steps, sink, dist)
            else:
                left += 1
                if square:
                    break
                _shut(f, k, steps)
    return left


def _apart(cost: Array, k: Array, width: int, rows: Array, out: Array) -> tuple[int, int]:
    """Puts the problem set aside by `_shut` into `out`, lying down: its columns as rows, of which there are fewer.

    Returns its size; `rows` are the rows of `cost` that became its columns.
    """
    count = 0
    for i in range(cost.shape[0]):
        if k[_ROW_SHUT, i]:
            rows[count] = i
            count += 1
    n = 0
    for j in range(width):
        if k[_COL_SHUT, j]:
            for i in range(count):
                out[n, i] = cost[rows[i], j]
            for i in range(count, _padded(count)):
                out[n, i] = _INF
            n += 1
    return n, count


def _rejoin(rows: Array, k: Array, width: int, solved: Array) -> None:
    """Take over the pairs of the problem that was solved apart."""
    for t in range(rows.size):
        k[_COL_OF_ROW, rows[t]] = -1
    t = 0
    for j in range(width):
        if k[_COL_SHUT, j]:
            k[_COL_OF_ROW, rows[solved[_COL_OF_ROW, t]]] = j
            t += 1


def _write(cost: Array, k: Array, width: int, flipped: bool, sign: float, row_ind: Array, col_ind: Array) -> float:
    """Pairs sorted by row, padded with -1; returns the sum of their costs."""
    for i in range(row_ind.size):
        row_ind[i], col_ind[i] = -1, -1
    n = cost.shape[0]
    count, total = 0, 0.0
    for j in range(width):
        k[_ROW_OF_COL, j] = -1
    for i in range(n):
        j = k[_COL_OF_ROW, i]
        if j >= 0:
            k[_ROW_OF_COL, j] = i
    for i in range(width if flipped else n):
        j = k[_ROW_OF_COL, i] if flipped else k[_COL_OF_ROW, i]
        if j >= 0:
            row_ind[count], col_ind[count] = i, j
            total += cost[j, i] if flipped else cost[i, j]
            count += 1
    return sign * total


def _solve_batch(
    cost: Array, n_rows: Array, n_cols: Array, sign: float, row_ind: Array, col_ind: Array, total: Array,
    space: Array, space_k: Array,
) -> int:  # fmt: skip
    """All problems of a batch; returns the first that holds a NaN or a wrong infinity, or -1.

    The work space is `space`, and `space_k` the same memory as int64. Row by row: a problem's costs, its
    scratch, and for what is solved apart a row of indices, scratch and costs.
    """
    for b in range(cost.shape[0]):
        n, m = min(n_rows[b], n_cols[b]), max(n_rows[b], n_cols[b])
        width = _padded(m)
        end = n + _SCRATCH_ROWS
        work, f, k = space[:n], space[n:end], space_k[n:end]
        if _load(cost[b], n_rows[b], n_cols[b], sign, work, width) > 0:
            return b
        square = n == m
        left = _match(work, f, k, width, m, square)
        if left > 0 and square:
            square = False
            left = _match(work, f, k, width, m, square)
        if left > 0:
            rows = space_k[end]
            start, end = end + 1, end + 1 + _SCRATCH_ROWS
            g, solved = space[start:end], space_k[start:end]
            height, count = _apart(work, k, width, rows, space[end:])
            _match(space[end : end + height], g, solved, _padded(count), count, square)
            _rejoin(rows[:count], k, width, solved)
        total[b] = _write(work, k, width, n_rows[b] > n_cols[b], sign, row_ind[b], col_ind[b])
    return -1


_CPU_FUNCTIONS = (
    *(_padded, _load, _find, _two_best, _relax, _reset, _pair, _column_minima, _row_reduction, _search),
    *(_predecessor, _augment, _shut, _match, _apart, _rejoin, _write, _solve_batch),
)


def _work_space(n: int, m: int) -> tuple[Array, Array]:
    """What `_solve_batch` needs for n rows and m columns at most; rows begin on a cache line, for speed."""
    shape = 2 * (n + _SCRATCH_ROWS) + 1, _padded(m)
    memory = np.empty(math.prod(shape) + _LANES)
    start = -memory.ctypes.data % (8 * _LANES) // 8
    space = memory[start : start + math.prod(shape)].reshape(shape)
    return space, space.view(np.int64)


def _solve_cpu(cost: Array, n_rows: Array, n_cols: Array, maximize: bool) -> tuple[Array, Array, Array]:
    """(row_ind [B, K], col_ind [B, K], total [B]) of cost [B, N, M] of floats; sizes are int64 [B]."""
    batch, k = cost.shape[0], min(cost.shape[1:])
    row_ind, col_ind = np.empty((batch, k), np.int64), np.empty((batch, k), np.int64)
    total = np.empty(batch)
    solve = _njit.compiled(*_CPU_FUNCTIONS)

    def part(start: int, stop: int) -> int:
        piece = slice(start, stop)
        values = np.ascontiguousarray(cost[piece])
        sizes, results = (n_rows[piece], n_cols[piece]), (row_ind[piece], col_ind[piece], total[piece])
        space = spaces.pop()
        bad = solve(values, *sizes, -1.0 if maximize else 1.0, *results, *space)
        spaces.append(space)
        return start + bad if bad >= 0 else batch

    threads = min(batch, cores()) if cost.size >= _PARALLEL_WORK else 1
    pieces = max(threads * _PIECES_PER_THREAD, cost.size // _PIECE) if cost.size >= _PIECE else 1
    spaces = [_work_space(k, max(cost.shape[1:])) for _ in range(max(threads, 1))]
    edges = np.linspace(0, batch, min(batch, pieces) + 1).astype(int).tolist() if batch else [0]
    parts = list(itertools.pairwise(edges))
    bad = each(part, parts) if threads > 1 else [part(*p) for p in parts]
    first = min(bad, default=batch)
    if first < batch:
        _refuse_values(cost[first, : n_rows[first], : n_cols[first]], first, maximize)
    return row_ind, col_ind, total


def _refuse_values(cost: Array, problem: int, maximize: bool) -> None:
    row, col = np.argwhere(~(cost < np.inf if maximize else cost > -np.inf))[0].tolist()
    forbidden = "-inf" if maximize else "inf"
    got = f"{cost[row, col]} at problem {problem}, row {row}, column {col}"
    _check.fail(OP, "cost", f"be finite, or {forbidden} for a forbidden pair", got)
