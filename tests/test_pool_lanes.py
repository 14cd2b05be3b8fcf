"""Windows in vectors: the vector code against what the functions say in Python, with indices good and bad."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cv3gpu._njit import compiled
from cv3gpu._pool_lanes import check_window, gather_pairs, gather_window, put_pairs, put_window

DTYPES = ("float32", "float64")
OPERATIONS = put_window, check_window, gather_window


def _pairs(x: Any, index: Any, plane: Any, out: Any, put_lost: Any, gather_lost: Any) -> None:
    width = 2 * x.shape[1]
    for row in range(x.shape[0]):
        put_pairs(x[row], index[row], 2 * row * width, width, plane, put_lost[row])
        gather_pairs(out[row], index[row], 2 * row * width, width, plane, gather_lost[row])


def _windows(x: Any, index: Any, plane: Any, source: Any, out: Any, put_lost: Any, check_lost: Any,
             gather_lost: Any, bounds: Any) -> None:  # fmt: skip
    rows, columns, step, first, blocks = bounds[0], bounds[1], bounds[2], bounds[3], bounds[4]
    top, bottom, left, right, spread = bounds[5], bounds[6], bounds[7], bounds[8], bounds[9]
    for k in range(x.shape[0]):
        start = k * columns
        put_window(x[k], index[k], first, blocks, start, rows, columns, step, plane, put_lost[k])
        check_window(index[k], first, blocks, start, top, bottom, left, right, columns, step, check_lost[k])
        gather_window(out[k], index[k], first, blocks, start, top, bottom, left, right, columns, step, spread, source,
                      gather_lost[k])  # fmt: skip


def same(entry: Any, python: Any, *arrays: np.ndarray, flags: bool = False) -> list[np.ndarray]:
    """Both on copies of the arrays, whose bits must then be equal; those of flags alone, if so.

    What is written for an index of more than 32 bits is not said, only that there is one.
    """
    ours, wanted = [a.copy() for a in arrays], [a.copy() for a in arrays]
    entry(*ours)
    assert not entry.refused
    python(*wanted)
    for place, (a, b) in enumerate(zip(ours, wanted, strict=True)):
        if not flags or a.dtype == np.int64:
            np.testing.assert_array_equal(a, b, err_msg=f"array {place}")
    return ours


@pytest.mark.parametrize(
    ("index", "bad"), [("uint8", None), ("uint8", 4), *(("int64", bad) for bad in (None, 4, -1, 2**32, -(2**40)))]
)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [8, 9, 15, 16, 30])
def test_pairs(n: int, dtype: str, index: str, bad: int | None) -> None:
    rng = np.random.default_rng(n)
    x, tap = rng.standard_normal((3, n)).astype(dtype), rng.integers(0, 4, (3, n))
    x[0, 0] = np.nan
    places = tap
    if index == "int64":
        row, o = np.ogrid[:3, :n]
        places = 2 * (row * 2 * n + o) + (tap >= 2) * 2 * n + tap % 2
    places = places.copy()
    if bad is not None:
        places[1, n - 2] = bad if index == "uint8" else places[1, n - 2] + (bad if abs(bad) > 4 else bad * n)
    arrays = x, places.astype(index), np.full(12 * n, 7, dtype), np.full((3, n), 7, dtype)
    lost = np.zeros((3, 1), np.int64)
    got = same(compiled(put_pairs, gather_pairs, _pairs), _pairs, *arrays, lost, lost, flags=abs(bad or 0) >= 2**32)
    for found in got[4:]:
        assert (found[:, 0] != 0).tolist() == [False, bad is not None, False]
    if bad is None:
        np.testing.assert_array_equal(got[3], x)
        assert np.count_nonzero(got[2]) == 3 * n


@pytest.mark.parametrize(
    ("index", "bad"),
    [("uint8", None), ("uint8", "behind"), *(("int64", bad) for bad in (None, "before", "behind", "high"))],
)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(2, 2, 8, 0), (2, 3, 24, 8), (3, 2, 19, 3)], ids=str)
def test_windows(shape: tuple[int, int, int, int], dtype: str, index: str, bad: str | None) -> None:
    rows, columns, channels, first = shape
    n, blocks = 4, (channels - first) // 8
    step, last = n * columns, first + 8 * blocks
    rng = np.random.default_rng(channels)
    x, source = rng.standard_normal((n, channels)).astype(dtype), rng.standard_normal((rows * step, channels))
    row, column = rng.integers(0, rows, (n, channels)), rng.integers(0, columns, (n, channels))
    places = row * columns + column
    if index == "int64":
        places = np.arange(n)[:, None] * columns + row * step + column
    if bad is not None:
        past = rows * columns if index == "uint8" else 2 * columns + rows * step
        places[2, last - 1] = {"before": 2 * columns - 1, "behind": past, "high": places[2, last - 1] + 2**32}[bad]
    bounds = np.array([rows, columns, step, first, blocks, 0, rows, 0, columns, 1])
    lost = np.zeros((n, 1), np.int64)
    plane = np.full((rows * step, channels), 7, dtype)
    arrays = x, places.astype(index), plane, source.astype(dtype), np.full_like(x, 7), lost, lost, lost, bounds
    got = same(compiled(*OPERATIONS, _windows), _windows, *arrays, flags=bad == "high")
    for found in got[5:8]:
        assert (found[:, 0] != 0).tolist() == [False, False, bad is not None, False]
    assert (got[2][:, :first] == 7).all() and (got[2][:, last:] == 7).all()  # other channels are not touched


def test_taps_outside_of_the_image_are_named_by_nobody() -> None:
    index = np.zeros((1, 8), np.uint8)  # the first of 2 x 2 taps, in front of the image
    x, lost = np.ones((1, 8), np.float32), np.zeros((1, 1), np.int64)
    bounds = np.array([0, 2, 4, 0, 1, 1, 2, 1, 2, 1])
    arrays = x, index, np.zeros((8, 8), np.float32), np.ones((8, 8), np.float32), np.full_like(x, 7), lost, lost, lost
    got = same(compiled(*OPERATIONS, _windows), _windows, *arrays, bounds)
    assert got[6][0, 0] and got[7][0, 0] and (got[4] == 0).all()
