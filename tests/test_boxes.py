"""box_iou against plain float and exact rational arithmetic, pair by pair."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cv3gpu import box_iou
from tests.tolerance import assert_close

FORMATS = ("xyxy", "xywh")
KINDS = ("iou", "giou", "ioa")


def overlap_of_pair(a: Any, b: Any, format: str, kind: str) -> Any:
    """The definition, for numbers of any type."""
    (ax1, ay1, ax2, ay2), (bx1, by1, bx2, by2) = a, b
    if format == "xywh":
        ax2, ay2, bx2, by2 = ax1 + ax2, ay1 + ay2, bx1 + bx2, by1 + by2

    def area(x1: Any, y1: Any, x2: Any, y2: Any) -> Any:
        return max(x2 - x1, 0) * max(y2 - y1, 0)

    def quotient(part: Any, whole: Any) -> Any:
        return part / whole if whole > 0 else 0

    inter = area(max(ax1, bx1), max(ay1, by1), min(ax2, bx2), min(ay2, by2))
    union = area(ax1, ay1, ax2, ay2) + area(bx1, by1, bx2, by2) - inter
    hull = area(min(ax1, bx1), min(ay1, by1), max(ax2, bx2), max(ay2, by2))
    if kind == "ioa":
        return quotient(inter, area(ax1, ay1, ax2, ay2))
    return quotient(inter, union) - (quotient(hull - union, hull) if kind == "giou" else 0)


def reference(a: np.ndarray, b: np.ndarray, format: str, kind: str, number: type = float) -> np.ndarray:
    """Every pair of a batch of problems."""
    out = np.empty((*a.shape[:-1], b.shape[-2]))
    for where in np.ndindex(out.shape):
        box_a = [number(v) for v in a[where[:-1]].tolist()]
        box_b = [number(v) for v in b[(*where[:-2], where[-1])].tolist()]
        out[where] = float(overlap_of_pair(box_a, box_b, format, kind))
    return out


def some_boxes(shape: tuple[int, ...], format: str, seed: int) -> np.ndarray:
    """Boxes whose corners float32 holds exactly, about a third of which overlap any other; some are empty."""
    rng = np.random.default_rng(seed)
    corner = rng.integers(0, 64, (*shape, 2)) / 4
    size = rng.integers(-4, 48, (*shape, 2)) / 4
    return np.concatenate([corner, size if format == "xywh" else corner + size], axis=-1)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("kind", KINDS)
def test_random_boxes(path: Any, dtype: str, format: str, kind: str) -> None:
    # 70 rows and 33 columns reach past one tile of the kernel in both directions.
    a, b = some_boxes((2, 70), format, 1), some_boxes((2, 33), format, 2)
    got = path.numpy(box_iou(path.array(a, dtype), path.array(b, dtype), format=format, kind=kind))
    assert got.dtype == dtype
    assert_close(got, reference(a, b, format, kind), dtype, terms=4, scale=2.0)


@pytest.mark.parametrize("kind", KINDS)
def test_integer_boxes_are_correctly_rounded(cpu_path: Any, kind: str) -> None:
    rng = np.random.default_rng(3)
    a, b = (rng.integers(-50, 50, (12, 4)).astype(float) for _ in range(2))
    got = cpu_path.numpy(box_iou(cpu_path.array(a), cpu_path.array(b), kind=kind))
    exact = reference(a, b, "xyxy", kind, Fraction)
    np.testing.assert_allclose(got, exact, rtol=0, atol=2**-52 if kind == "giou" else 0)


@pytest.mark.parametrize("lead", [(), (1,), (3,), (2, 3), (0,), (2, 0)])
@pytest.mark.parametrize(("n", "m"), [(2, 3), (0, 3), (2, 0), (0, 0), (1, 1)])
def test_shapes(path: Any, lead: tuple[int, ...], n: int, m: int) -> None:
    a, b = some_boxes((*lead, n), "xyxy", 4), some_boxes((*lead, m), "xyxy", 5)
    got = path.numpy(box_iou(path.array(a), path.array(b)))
    assert got.shape == (*lead, n, m)
    assert got.dtype == "float64"
    assert_close(got, reference(a, b, "xyxy", "iou"), "float64", terms=4)


def test_memory_order_does_not_matter(path: Any) -> None:
    a, b = some_boxes((5, 4), "xyxy", 6), some_boxes((5, 3), "xyxy", 7)
    want = path.numpy(box_iou(path.array(a), path.array(b)))
    turned = path.array(np.ascontiguousarray(a.transpose(2, 1, 0)))
    turned = turned.permute(2, 1, 0) if path.library == "torch" else turned.transpose(2, 1, 0)
    np.testing.assert_array_equal(path.numpy(box_iou(turned, path.array(b))), want)
    if path.library != "torch":
        np.testing.assert_array_equal(
            path.numpy(box_iou(path.array(a)[::-1], path.array(b)[::-1])), want[::-1]
        )


def test_inputs_are_left_alone(cpu_path: Any) -> None:
    a = some_boxes((4,), "xywh", 8)
    x = cpu_path.array(a)
    box_iou(x, x, format="xywh")
    np.testing.assert_array_equal(cpu_path.numpy(x), a)


@pytest.mark.parametrize("kind", KINDS)
def test_empty_boxes(path: Any, kind: str) -> None:
    whole = [0.0, 0.0, 2.0, 2.0]
    empty = [[1.0, 1.0, 1.0, 2.0], [1.0, 1.0, 1.0, 1.0], [2.0, 2.0, 0.0, 0.0], [3.0, 3.0, 3.0, 3.0]]
    a, b = np.array([*empty, whole]), np.array([whole, *empty])
    got = path.numpy(box_iou(path.array(a), path.array(b), kind=kind))
    assert np.isfinite(got).all()
    assert_close(got, reference(a, b, "xyxy", kind), "float64", terms=4)
    if kind != "giou":
        assert np.count_nonzero(got) == 1
        assert got[4, 0] == 1.0
    else:
        assert got[1, 2] == 0.0  # two empty boxes in one place
        assert got[3, 0] == pytest.approx(-5 / 9)  # an empty box beside a whole one: -(9 - 4) / 9


def test_a_box_with_itself_is_one(path: Any) -> None:
    a = np.random.default_rng(9).normal(size=(40, 4))
    a[:, 2:] = a[:, :2] + np.abs(a[:, 2:])
    for kind in KINDS:
        got = path.numpy(box_iou(path.array(a), path.array(a), kind=kind))
        np.testing.assert_array_equal(np.diag(got), 1.0)


coordinates = st.floats(-1e3, 1e3, allow_subnormal=False)
boxes = st.integers(1, 5).flatmap(lambda n: hnp.arrays(np.float64, (n, 4), elements=coordinates))


@settings(deadline=None, max_examples=60)
@given(boxes, boxes)
def test_symmetry_and_bounds(a: np.ndarray, b: np.ndarray) -> None:
    for kind, lowest in (("iou", 0.0), ("giou", -1.0), ("ioa", 0.0)):
        got = box_iou(a, b, kind=kind)
        assert (got >= lowest - 1e-12).all()
        assert (got <= 1.0 + 1e-12).all()
    for kind in ("iou", "giou"):
        np.testing.assert_allclose(box_iou(a, b, kind=kind), box_iou(b, a, kind=kind).T, atol=1e-12)


@settings(deadline=None, max_examples=60)
@given(boxes, boxes, st.integers(-9, 9), st.sampled_from(KINDS))
def test_scale_does_not_matter(a: np.ndarray, b: np.ndarray, power: int, kind: str) -> None:
    scale = 2.0**power  # exact, so that nothing but the quotients may change, and they do not
    got = box_iou(a * scale, b * scale, kind=kind)
    tiny = np.abs(np.concatenate([a, b])).max() < 1e-100
    if not tiny:
        np.testing.assert_allclose(got, box_iou(a, b, kind=kind), atol=1e-9)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32), st.integers(-1000, 1000), st.sampled_from(KINDS), st.sampled_from(FORMATS))
def test_translation_does_not_matter(seed: int, shift: int, kind: str, format: str) -> None:
    a, b = some_boxes((4,), format, seed), some_boxes((3,), format, seed + 1)
    move = np.array([shift, shift, 0, 0] if format == "xywh" else [shift] * 4, float)
    got = box_iou(a + move, b + move, format=format, kind=kind)
    np.testing.assert_array_equal(got, box_iou(a, b, format=format, kind=kind))


BOX = np.zeros((2, 4))
BAD_INPUTS = [
    (dict(a=[[0, 0, 1, 1]]), TypeError, "box_iou: a must be a NumPy, CuPy or torch array, got list"),
    (dict(a=None), TypeError, "box_iou: a must be a NumPy, CuPy or torch array, got None"),
    (dict(b=3.0), TypeError, "box_iou: b must be a NumPy, CuPy or torch array, got float"),
    (dict(b=((0.0,) * 4,)), TypeError, "box_iou: b must be a NumPy, CuPy or torch array, got tuple"),
    (
        dict(b=np.ma.masked_array(BOX)),
        TypeError,
        "box_iou: b must be a NumPy, CuPy or torch array, got MaskedArray",
    ),
    (dict(a=BOX.astype(">f8")), TypeError, "box_iou: a must be in native byte order, got >f8"),
    (dict(a=BOX.astype(int)), TypeError, "box_iou: a must have dtype float32 or float64, got int64"),
    (dict(a=BOX.astype(np.uint8)), TypeError, "box_iou: a must have dtype float32 or float64, got uint8"),
    (dict(a=BOX.astype(bool)), TypeError, "box_iou: a must have dtype float32 or float64, got bool"),
    (dict(a=BOX.astype(np.float16)), TypeError, "box_iou: a must have dtype float32 or float64, got float16"),
    (dict(a=BOX.astype(complex)), TypeError, "box_iou: a must have dtype float32 or float64, got complex128"),
    (dict(a=BOX.astype(object)), TypeError, "box_iou: a must have dtype float32 or float64, got object"),
    (dict(b=BOX.astype(int)), TypeError, "box_iou: b must have the dtype of a (float64), got int64"),
    (dict(b=BOX.astype(np.float32)), TypeError, "box_iou: b must have the dtype of a (float64), got float32"),
    (dict(a=np.zeros(4)), ValueError, "box_iou: a must have shape [..., N, 4], got (4,)"),
    (dict(a=np.zeros(())), ValueError, "box_iou: a must have shape [..., N, 4], got ()"),
    (dict(a=np.zeros((2, 5))), ValueError, "box_iou: a must have shape [..., N, 4], got (2, 5)"),
    (dict(a=np.zeros((4, 2))), ValueError, "box_iou: a must have shape [..., N, 4], got (4, 2)"),
    (dict(a=np.zeros((2, 0))), ValueError, "box_iou: a must have shape [..., N, 4], got (2, 0)"),
    (dict(b=np.zeros(4)), ValueError, "box_iou: b must have shape [M, 4], got (4,)"),
    (dict(b=np.zeros((3, 3))), ValueError, "box_iou: b must have shape [M, 4], got (3, 3)"),
    (dict(b=np.zeros((1, 2, 4))), ValueError, "box_iou: b must have shape [M, 4], got (1, 2, 4)"),
    (dict(a=np.zeros((3, 2, 4))), ValueError, "box_iou: b must have shape [3, M, 4], got (2, 4)"),
    (
        dict(a=np.zeros((3, 2, 4)), b=np.zeros((2, 2, 4))),
        ValueError,
        "box_iou: b must have shape [3, M, 4], got (2, 2, 4); the leading dimensions are those of a",
    ),
    (dict(format="cxcywh"), ValueError, "box_iou: format must be one of 'xyxy', 'xywh', got 'cxcywh'"),
    (dict(format=None), ValueError, "box_iou: format must be one of 'xyxy', 'xywh', got None"),
    (dict(format=("xyxy",)), ValueError, "box_iou: format must be one of 'xyxy', 'xywh', got ('xyxy',)"),
    (dict(kind="diou"), ValueError, "box_iou: kind must be one of 'iou', 'giou', 'ioa', got 'diou'"),
    (dict(kind="IoU"), ValueError, "box_iou: kind must be one of 'iou', 'giou', 'ioa', got 'IoU'"),
    (dict(kind=1), ValueError, "box_iou: kind must be one of 'iou', 'giou', 'ioa', got 1"),
]


@pytest.mark.parametrize(("change", "error", "message"), BAD_INPUTS)
def test_bad_input(change: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments = {"a": BOX, "b": BOX, **change}
    with pytest.raises(error) as raised:
        box_iou(arguments.pop("a"), arguments.pop("b"), **arguments)
    assert str(raised.value).startswith(message)


def test_mixed_libraries() -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match="a is numpy on cpu, b is torch on cpu"):
        box_iou(BOX, torch.zeros(2, 4, dtype=torch.float64))
