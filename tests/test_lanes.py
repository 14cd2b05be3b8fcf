"""Operations on rows: the vector code against what the functions say in Python."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cv3gpu import _lanes
from cv3gpu._lanes import blur_row, prefetch, softmax_row, subtract_row, subtract_sum, sum_rows
from cv3gpu._njit import compiled

WIDTHS = (4, 8, 16, 24, 32, 56, 152)  # every number of whole blocks, single registers and halves
EPS = {"float32": 2.0**-23, "float64": 2.0**-52}


def _every_operation(x: Any, y: Any, index: Any, weight: Any, sums: Any, less: Any, lessened: Any, blurred: Any,
                     soft: Any) -> None:  # fmt: skip
    terms = index.shape[0]
    for row in range(sums.shape[0]):
        first, last = min(3 * row, terms), min(7 * row, terms)  # the first is empty
        prefetch(weight, first)
        sum_rows(x, index, weight, first, last, sums, row)
        subtract_sum(y, x, index, weight, first, last, less, row)
        subtract_row(y, x, row, lessened, row)
        blur_row(x, row, index[row], index[row + 1], blurred)
    for row in range(soft.shape[0]):
        softmax_row(y, soft, row)


OPERATIONS = (prefetch, sum_rows, subtract_sum, subtract_row, blur_row, softmax_row, _every_operation)


def outcome(run: Any, width: int, dtype: str, index: str = "int32") -> list[np.ndarray]:
    rng = np.random.default_rng(width)
    numbers = rng.standard_normal((9, width)), 20 * rng.standard_normal((1, width)), rng.random(40)
    x, y, weight = (n.astype("float32").astype(dtype) for n in numbers)
    rows = rng.integers(0, 9, 40).astype(index)
    out = [np.full((8, width), 7, dtype) for _ in range(4)] + [np.full((2, width), 7, dtype)]
    run(x, y, rows, weight, *out)
    return out


@pytest.mark.parametrize("dtype", EPS)
@pytest.mark.parametrize("width", WIDTHS)
def test_vectors_do_what_python_says(width: int, dtype: str) -> None:
    entry = compiled(*OPERATIONS)
    got, wanted = outcome(entry, width, dtype), outcome(_every_operation, width, "float64")
    assert not entry.refused
    for name, g, w in zip(("sums", "less", "lessened", "blurred", "soft"), got, wanted, strict=True):
        size = 40 * 80 if name == "less" else 40
        np.testing.assert_allclose(g, w, rtol=0, atol=size * EPS[dtype], err_msg=name)
    assert (got[4] > 0).any(axis=1).all()


def test_indices_of_64_bits(width: int = 24) -> None:
    entry = compiled(*OPERATIONS)
    for short, long in zip(outcome(entry, width, "float32"), outcome(entry, width, "float32", "int64"), strict=True):
        np.testing.assert_array_equal(short, long)


@pytest.mark.parametrize("dtype", EPS)
def test_softmax_of_what_is_far_below_forbidden_or_not_a_number(dtype: str) -> None:
    entry = compiled(softmax_row, _soft)
    least = {"float32": -80.0, "float64": -690.0}[dtype]
    x = np.array([[0, -np.inf, least * 1.01, least * 0.99, -1e30, -1, 0, 0]], dtype)
    out = np.empty((1, 8), dtype)
    entry(x, out)
    with np.errstate(under="ignore"):
        wanted = np.exp(x[0].astype(np.float64))
    wanted[2] = 0
    np.testing.assert_allclose(out[0], wanted / wanted.sum(), rtol=8 * EPS[dtype])
    assert out[0, 1] == out[0, 2] == out[0, 4] == 0 < out[0, 3]
    for bad in (np.nan, -np.nan, np.inf):
        x[0, 5] = bad
        entry(x, out)
        assert np.isnan(out[0, 5])


def _soft(x: Any, out: Any) -> None:
    softmax_row(x, out, 0)


def test_rows_with_gaps_are_refused_and_not_misread() -> None:
    entry = compiled(softmax_row, _soft)
    with pytest.raises(Exception, match="dense"):
        entry(np.zeros((1, 16), np.float32)[:, ::2], np.empty((1, 8), np.float32))


def test_the_code_of_an_operation_is_part_of_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    from cv3gpu import _njit

    before = _njit._key((softmax_row, _soft), ())
    monkeypatch.delitem(_njit._lowered, _lanes.softmax_row)
    assert _njit._key((softmax_row, _soft), ()) != before
