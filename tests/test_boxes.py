"""box_iou against plain float and exact rational arithmetic, pair by pair; its gradient against autograd."""

from __future__ import annotations

from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cv3gpu import _array, _kernel, box_iou, box_iou_vjp
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
    turned = path.permuted(turned, 2, 1, 0)
    np.testing.assert_array_equal(path.numpy(box_iou(turned, path.array(b))), want)
    if path.library != "torch":
        np.testing.assert_array_equal(path.numpy(box_iou(path.array(a)[::-1], path.array(b)[::-1])), want[::-1])


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
        # A GPU may fuse a product into the difference hull - union, whose rounding then is left over.
        np.testing.assert_allclose(np.diag(got), 1.0, rtol=0, atol=2**-52 if path.runs_kernels else 0)


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


# ---- gradient -------------------------------------------------------------------------------------------


def differentiable(a: Any, b: Any, format: str, kind: str) -> Any:
    """The formula in torch, of pairs [..., 4]; its autograd defines the gradient at kinks."""
    import torch

    def corners(boxes: Any) -> tuple[Any, Any]:
        low, high = boxes[..., :2], boxes[..., 2:]
        return low, low + high if format == "xywh" else high

    def area(low: Any, high: Any) -> Any:
        width, height = torch.relu(high - low).unbind(-1)
        return width * height

    def quotient(part: Any, whole: Any) -> Any:
        return torch.where(whole > 0, part / torch.where(whole > 0, whole, 1), 0)

    low_a, high_a = corners(a)
    low_b, high_b = corners(b)
    inter = area(torch.maximum(low_a, low_b), torch.minimum(high_a, high_b))
    if kind == "ioa":
        return quotient(inter, area(low_a, high_a))
    union = area(low_a, high_a) + area(low_b, high_b) - inter
    hull = area(torch.minimum(low_a, low_b), torch.maximum(high_a, high_b))
    return quotient(inter, union) - (quotient(hull - union, hull) if kind == "giou" else 0)


def autograd_of(
    grad: np.ndarray, a: np.ndarray, b: np.ndarray, format: str, kind: str
) -> list[tuple[np.ndarray, float]]:
    """The gradients by a and by b, and the largest sum of their absolute terms; in float64."""
    torch = pytest.importorskip("torch")
    pairs = np.broadcast_arrays(a[..., :, None, :], b[..., None, :, :])
    leaves = [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in pairs]
    out = differentiable(*leaves, format, kind)
    found = torch.autograd.grad(out, leaves, torch.tensor(grad, dtype=torch.float64))
    terms = [(x.numpy(), axis) for x, axis in zip(found, (-2, -3), strict=True)]
    return [(x.sum(axis), np.abs(x).sum(axis).max(initial=0)) for x, axis in terms]


def assert_gradients(path: Any, grad: np.ndarray, a: np.ndarray, b: np.ndarray, dtype: str, **how: str) -> None:
    """box_iou_vjp on a path against autograd, and that it is the same a second time."""
    arrays = [path.array(x, dtype) for x in (grad, a, b)]
    got = [path.numpy(x) for x in box_iou_vjp(*arrays, **how)]
    again = [path.numpy(x) for x in box_iou_vjp(*arrays, **how)]
    wanted = autograd_of(grad, a, b, how["format"], how["kind"])
    for x, y, (want, size) in zip(got, again, wanted, strict=True):
        assert x.dtype == dtype
        np.testing.assert_array_equal(x, y)
        # Each term is itself a sum of what intersection, areas and hull give, which partly cancel.
        assert_close(x, want, dtype, max(grad.shape[-2:]), 8 * size)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("kind", KINDS)
def test_gradient_is_that_of_autograd(kind: str, format: str) -> None:
    """150 problems a format. In half of them coordinates are few: edges, corners and whole boxes coincide."""
    rng = np.random.default_rng(11)
    numpy_path = SimpleNamespace(array=lambda x, dtype: x.astype(dtype), numpy=lambda x: x)
    for seed in range(150):
        corner, size = rng.integers(0, 6, (16, 2)) / 2, rng.integers(-1, 6, (16, 2)) / 2
        if seed % 2:
            corner, size = rng.uniform(0, 3, (16, 2)), rng.uniform(0.25, 3, (16, 2))
        boxes = np.concatenate([corner, size if format == "xywh" else corner + size], axis=-1)
        n = int(rng.integers(1, 10))
        a, b = boxes[:n], boxes[n:]
        grad = rng.normal(size=(len(a), len(b)))
        assert_gradients(numpy_path, grad, a, b, "float64", format=format, kind=kind)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("kind", KINDS)
def test_gradient_on_every_path(path: Any, dtype: str, format: str, kind: str) -> None:
    if path.name == "host" and (dtype == "float64") != (format == "xyxy"):
        pytest.skip("compiling a kernel takes seconds: of four one for each format and dtype")
    # 19 and 37 boxes reach past one group of the kernel on either side.
    a, b = some_boxes((2, 19), format, 12), some_boxes((2, 37), format, 13)
    grad = np.random.default_rng(14).integers(-8, 9, (2, 19, 37)) / 8
    assert_gradients(path, grad, a, b, dtype, format=format, kind=kind)


@pytest.mark.parametrize("kind", KINDS)
def test_kernel_of_the_gradient_gives_what_the_cpu_gives(kernel_path: Any, kind: str) -> None:
    format = "xyxy"
    a, b = some_boxes((3, 9), format, 15), some_boxes((3, 70), format, 16)
    grad = np.random.default_rng(17).normal(size=(3, 9, 70))
    token = _array.host_backend.set(None)
    wanted = box_iou_vjp(grad, a, b, format=format, kind=kind)
    _array.host_backend.reset(token)
    got = box_iou_vjp(*map(kernel_path.array, (grad, a, b)), format=format, kind=kind)
    for x, want in zip(got, wanted, strict=True):
        assert_close(kernel_path.numpy(x), want, "float64", 70, 64.0)


def test_blocks_take_several_tiles(host_backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_kernel, "MAX_GRID_X", 2)
    a, b = some_boxes((3, 70), "xyxy", 18), some_boxes((3, 40), "xyxy", 19)
    grad = np.random.default_rng(20).normal(size=(3, 70, 40))
    assert_close(box_iou(a, b), reference(a, b, "xyxy", "iou"), "float64", terms=4, scale=2.0)
    for got, (want, size) in zip(box_iou_vjp(grad, a, b), autograd_of(grad, a, b, "xyxy", "iou"), strict=True):
        assert_close(got, want, "float64", 70, 8 * size)


@pytest.mark.parametrize("lead", [(), (1,), (2, 3), (0,)])
@pytest.mark.parametrize(("n", "m"), [(2, 3), (0, 3), (2, 0), (0, 0)])
def test_shapes_of_the_gradient(path: Any, lead: tuple[int, ...], n: int, m: int) -> None:
    a, b = some_boxes((*lead, n), "xyxy", 4), some_boxes((*lead, m), "xyxy", 5)
    by_a, by_b = box_iou_vjp(path.array(np.ones((*lead, n, m))), path.array(a), path.array(b))
    wanted = autograd_of(np.ones((*lead, n, m)), a, b, "xyxy", "iou")
    for got, (want, _) in zip((by_a, by_b), wanted, strict=True):
        assert path.numpy(got).dtype == "float64"
        assert_close(path.numpy(got), want, "float64", 16, 16.0)


def test_gradient_at_kinks(path: Any) -> None:
    def by_a(a: list[float], b: list[float], **how: Any) -> list[float]:
        ones, a, b = (path.array(x) for x in (np.ones((1, 1)), np.array([a]), np.array([b])))
        found, _ = box_iou_vjp(ones, a, b, **how)
        return path.numpy(found)[0].tolist()

    unit, beside = [0.0, 0.0, 1.0, 1.0], [1.0, 0.0, 2.0, 1.0]
    for kind in ("iou", "ioa"):
        assert by_a(unit, beside, kind=kind) == [0.0] * 4  # they touch: the intersection has no area
        assert by_a(unit, [3.0, 3.0, 4.0, 4.0], kind=kind) == [0.0] * 4
        assert by_a([0.5, 0.5, 0.5, 0.7], unit, kind=kind) == [0.0] * 4  # a has no area
    # Of two equal boxes each edge is half the intersection's: union = 2 areas - intersection.
    assert by_a(unit, unit) == [0.0] * 4
    assert by_a(unit, unit, kind="ioa") == [0.5, 0.5, -0.5, -0.5]
    assert by_a([0.0] * 4, [0.0] * 4, kind="giou") == [0.0] * 4
    # giou pulls disjoint boxes together: union / hull = 2 / (x2 of b - x1 of a), its y edges shared.
    assert by_a(unit, [3.0, 0.0, 4.0, 1.0], kind="giou") == pytest.approx([-1 / 8, 0.0, 1 / 4, 0.0])


def test_memory_order_of_the_gradient_does_not_matter(path: Any) -> None:
    a, b = some_boxes((5, 4), "xyxy", 6), some_boxes((5, 3), "xyxy", 7)
    grad = np.random.default_rng(8).normal(size=(5, 4, 3))
    want = box_iou_vjp(*map(path.array, (grad, a, b)))
    turned = [path.array(np.ascontiguousarray(x.transpose(2, 1, 0))) for x in (grad, a, b)]
    turned = [path.permuted(x, 2, 1, 0) for x in turned]
    for got, x in zip(box_iou_vjp(*turned), want, strict=True):
        np.testing.assert_array_equal(path.numpy(got), path.numpy(x))


def test_gradient_leaves_its_inputs_alone_and_takes_what_cannot_be_written() -> None:
    a, b = some_boxes((4,), "xywh", 8), some_boxes((3,), "xywh", 9)
    grad = np.broadcast_to(np.float64(1), (4, 3))
    kept = a.copy(), b.copy()
    wanted = box_iou_vjp(np.ones((4, 3)), a, b, format="xywh")
    for x in (a, b):
        x.flags.writeable = False
    for got, want in zip(box_iou_vjp(grad, a, b, format="xywh"), wanted, strict=True):
        np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal((a, b)[0], kept[0])
    np.testing.assert_array_equal((a, b)[1], kept[1])


# ---- refusals -------------------------------------------------------------------------------------------

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


def _fits_torch(x: Any) -> bool:
    return type(x) is not np.ma.MaskedArray and (not isinstance(x, np.ndarray) or x.dtype.isnative)


PAIRS = np.zeros((2, 3))
BAD_GRADIENTS = [
    (dict(grad=[[0.0]]), TypeError, "box_iou_vjp: grad must be a NumPy, CuPy or torch array, got list"),
    (dict(grad=None), TypeError, "box_iou_vjp: grad must be a NumPy, CuPy or torch array, got None"),
    (dict(grad=1.0), TypeError, "box_iou_vjp: grad must be a NumPy, CuPy or torch array, got float"),
    (dict(a=[[0, 0, 1, 1]]), TypeError, "box_iou_vjp: a must be a NumPy, CuPy or torch array, got list"),
    (dict(a=None), TypeError, "box_iou_vjp: a must be a NumPy, CuPy or torch array, got None"),
    (dict(b="boxes"), TypeError, "box_iou_vjp: b must be a NumPy, CuPy or torch array, got str"),
    (
        dict(grad=np.ma.masked_array(PAIRS)),
        TypeError,
        "box_iou_vjp: grad must be a NumPy, CuPy or torch array, got MaskedArray",
    ),
    (dict(grad=PAIRS.astype(">f8")), TypeError, "box_iou_vjp: grad must be in native byte order, got >f8"),
    (dict(b=np.zeros((3, 4), ">f8")), TypeError, "box_iou_vjp: b must be in native byte order, got >f8"),
    (
        dict(grad=PAIRS.astype(np.float32)),
        TypeError,
        "box_iou_vjp: grad must have the dtype of a (float64), got float32",
    ),
    (
        dict(grad=PAIRS.astype(int)),
        TypeError,
        "box_iou_vjp: grad must have the dtype of a (float64), got int64",
    ),
    (dict(a=BOX.astype(int)), TypeError, "box_iou_vjp: a must have dtype float32 or float64, got int64"),
    (
        dict(a=BOX.astype(np.float16)),
        TypeError,
        "box_iou_vjp: a must have dtype float32 or float64, got float16",
    ),
    (
        dict(a=BOX.astype(complex)),
        TypeError,
        "box_iou_vjp: a must have dtype float32 or float64, got complex128",
    ),
    (
        dict(b=np.zeros((3, 4), np.float32)),
        TypeError,
        "box_iou_vjp: b must have the dtype of a (float64), got float32",
    ),
    (dict(a=np.zeros(4)), ValueError, "box_iou_vjp: a must have shape [..., N, 4], got (4,)"),
    (dict(a=np.zeros((2, 5))), ValueError, "box_iou_vjp: a must have shape [..., N, 4], got (2, 5)"),
    (dict(b=np.zeros((3, 3))), ValueError, "box_iou_vjp: b must have shape [M, 4], got (3, 3)"),
    (dict(b=np.zeros((1, 3, 4))), ValueError, "box_iou_vjp: b must have shape [M, 4], got (1, 3, 4)"),
    (dict(a=np.zeros((5, 2, 4))), ValueError, "box_iou_vjp: b must have shape [5, M, 4], got (3, 4)"),
    (
        dict(grad=np.zeros((3, 2))),
        ValueError,
        "box_iou_vjp: grad must have shape [2, 3], got (3, 2); one number for each pair of a and b",
    ),
    (dict(grad=np.zeros(6)), ValueError, "box_iou_vjp: grad must have shape [2, 3], got (6,)"),
    (dict(grad=np.zeros(())), ValueError, "box_iou_vjp: grad must have shape [2, 3], got ()"),
    (dict(grad=np.zeros((1, 2, 3))), ValueError, "box_iou_vjp: grad must have shape [2, 3], got (1, 2, 3)"),
    (
        dict(grad=np.zeros((7, 2, 3)), a=np.zeros((5, 2, 4)), b=np.zeros((5, 3, 4))),
        ValueError,
        "box_iou_vjp: grad must have shape [5, 2, 3], got (7, 2, 3)",
    ),
    (dict(format="cxcywh"), ValueError, "box_iou_vjp: format must be one of 'xyxy', 'xywh', got 'cxcywh'"),
    (dict(format=None), ValueError, "box_iou_vjp: format must be one of 'xyxy', 'xywh', got None"),
    (dict(kind="diou"), ValueError, "box_iou_vjp: kind must be one of 'iou', 'giou', 'ioa', got 'diou'"),
    (dict(kind=1), ValueError, "box_iou_vjp: kind must be one of 'iou', 'giou', 'ioa', got 1"),
]


@pytest.mark.parametrize(("change", "error", "message"), BAD_GRADIENTS)
def test_bad_input_of_the_gradient(change: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments = {"grad": PAIRS, "a": BOX, "b": np.zeros((3, 4)), **change}
    with pytest.raises(error) as raised:
        box_iou_vjp(arguments.pop("grad"), arguments.pop("a"), arguments.pop("b"), **arguments)
    assert str(raised.value).startswith(message)


@pytest.mark.parametrize(
    ("change", "error", "message"), [b for b in BAD_GRADIENTS if all(_fits_torch(x) for x in b[0].values())]
)
def test_torch_is_refused_in_the_same_words(change: dict[str, Any], error: type[Exception], message: str) -> None:
    torch = pytest.importorskip("torch")
    arguments = {"grad": PAIRS, "a": BOX, "b": np.zeros((3, 4)), **change}
    arguments = {k: torch.from_numpy(x) if isinstance(x, np.ndarray) else x for k, x in arguments.items()}
    with pytest.raises(error) as raised:
        box_iou_vjp(arguments.pop("grad"), arguments.pop("a"), arguments.pop("b"), **arguments)
    assert str(raised.value).startswith(message)


def test_mixed_libraries() -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match="a is numpy on cpu, b is torch on cpu"):
        box_iou(BOX, torch.zeros(2, 4, dtype=torch.float64))
    with pytest.raises(TypeError, match="grad is torch on cpu, a is numpy on cpu, b is numpy on cpu"):
        box_iou_vjp(torch.zeros(2, 2, dtype=torch.float64), BOX, BOX)
