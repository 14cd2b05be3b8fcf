"""Metrics of segmentations: against brute force, scikit-image and SciPy, on every path."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cv3gpu
from cv3gpu import _array
from cv3gpu.metrics import class_accuracy, class_iou


def maps(rng: np.random.Generator, shape: tuple[int, ...], n: int) -> tuple[np.ndarray, np.ndarray]:
    """Two maps of n labels, with runs, that agree in part."""
    target = np.repeat(rng.integers(0, n, math.prod(shape)), 3)[: math.prod(shape)].reshape(shape)
    pred = np.where(rng.random(shape) < 0.3, rng.integers(0, n, shape), target)
    return pred, target


def brute_confusion(pred: np.ndarray, target: np.ndarray, n: int, ignore: int | None) -> np.ndarray:
    found = np.zeros((n, n), int)
    for p, t in zip(pred.ravel().tolist(), target.ravel().tolist(), strict=True):
        if t != ignore:
            found[t, p] += 1
    return found


# ---- confusion matrix and what follows ------------------------------------------------------------------


@pytest.mark.parametrize(("pred_type", "target_type"), list(itertools.product(("uint8", "int32", "int64"), repeat=2)))
def test_confusion_counts_pairs(path: Any, pred_type: str, target_type: str) -> None:
    rng = np.random.default_rng(3)
    for shape, n, ignore in [((2, 9, 17), 5, None), ((1, 7, 9), 21, 255), ((3,), 2, 1), ((1,), 1, None)]:
        pred, target = maps(rng, shape, n)
        if ignore == 255:
            target[..., ::4] = 255
            pred[..., ::4] = 77  # of an ignored pixel nothing is asked
        got = cv3gpu.confusion_matrix(path.array(pred, pred_type), path.array(target, target_type), n, ignore)
        assert _array.dtype_name(got) == "int64"
        np.testing.assert_array_equal(path.numpy(got), brute_confusion(pred, target, n, ignore))


def test_confusion_of_large_maps_and_many_classes(path: Any) -> None:
    rng = np.random.default_rng(0)
    pred, target = maps(rng, (1, 40, 53), 150)
    got = cv3gpu.confusion_matrix(path.array(pred, "int32"), path.array(target, "uint8"), 150)
    np.testing.assert_array_equal(path.numpy(got), brute_confusion(pred, target, 150, None))


def test_confusion_on_threads_is_that_of_one() -> None:
    rng = np.random.default_rng(1)
    pred, target = maps(rng, (700, 401), 7)
    got = cv3gpu.confusion_matrix(pred, target, 7)
    want = np.bincount(target.ravel() * 7 + pred.ravel(), minlength=49).reshape(7, 7)
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("dtype", ["int8", "int16", "uint16", "bool"])
def test_small_types_and_views(path: Any, dtype: str) -> None:
    rng = np.random.default_rng(2)
    pred, target = maps(rng, (6, 10), 2)
    wide = path.array(np.repeat(target, 2, 1), dtype)[:, ::2]
    got = cv3gpu.confusion_matrix(path.array(pred, dtype), wide, 2)
    np.testing.assert_array_equal(path.numpy(got), brute_confusion(pred, target, 2, None))


def test_empty_maps(path: Any) -> None:
    nothing = path.array(np.zeros((0, 4, 4), np.int64))
    assert not path.numpy(cv3gpu.confusion_matrix(nothing, nothing, 3)).any()
    assert math.isnan(cv3gpu.variation_of_information(nothing, nothing))
    assert math.isnan(cv3gpu.rand_index(nothing, nothing))
    assert math.isnan(cv3gpu.segmentation_covering(nothing, nothing))
    assert math.isnan(cv3gpu.boundary_f1(nothing, nothing))
    assert math.isnan(cv3gpu.panoptic_quality(nothing, nothing).pq)


def test_figures_of_a_matrix(path: Any) -> None:
    rng = np.random.default_rng(5)
    pred, target = maps(rng, (30, 31), 4)
    pred[pred == 2], target[target == 2] = 0, 0
    matrix = cv3gpu.confusion_matrix(path.array(pred), path.array(target), 5)
    iou = [
        (np.logical_and(pred == c, target == c).sum(), np.logical_or(pred == c, target == c).sum()) for c in (0, 1, 3)
    ]
    ious = [i / u for i, u in iou]
    got = path.numpy(class_iou(matrix))
    np.testing.assert_allclose(got[[0, 1, 3]], ious, rtol=1e-14)
    assert np.isnan(got[[2, 4]]).all()
    assert cv3gpu.mean_iou(matrix) == pytest.approx(np.mean(ious), rel=1e-14)
    assert cv3gpu.pixel_accuracy(matrix) == (pred == target).mean()
    recall = [(pred[target == c] == c).mean() for c in (0, 1, 3)]
    np.testing.assert_allclose(path.numpy(class_accuracy(matrix))[[0, 1, 3]], recall, rtol=1e-14)
    assert math.isnan(cv3gpu.mean_iou(matrix * 0)) and math.isnan(cv3gpu.pixel_accuracy(matrix * 0))


# ---- segments -------------------------------------------------------------------------------------------


def brute_rand(a: np.ndarray, b: np.ndarray) -> float:
    agree = [(a[i] == a[j]) == (b[i] == b[j]) for i, j in itertools.combinations(range(len(a)), 2)]
    return float(np.mean(agree))


def brute_covering(pred: np.ndarray, target: np.ndarray) -> float:
    total = 0.0
    for r in np.unique(target):
        inside = target == r
        best = max((inside & (pred == s)).sum() / (inside | (pred == s)).sum() for s in np.unique(pred))
        total += inside.sum() * best
    return total / target.size


def test_segments_against_brute_force(path: Any) -> None:
    metrics = pytest.importorskip("skimage.metrics")
    rng = np.random.default_rng(7)
    for n, far in [(3, 0), (6, 10**12), (2, -(10**9)), (1, 4)]:
        pred, target = maps(rng, (7, 11), n)
        a, b = path.array(pred * (1 + abs(far)) - far), path.array(target)  # far labels take the way of sorting
        want = sum(metrics.variation_of_information(pred, target))
        assert cv3gpu.variation_of_information(a, b) == pytest.approx(want, abs=1e-12)
        assert cv3gpu.rand_index(a, b) == pytest.approx(brute_rand(pred.ravel(), target.ravel()), rel=1e-14)
        assert cv3gpu.segmentation_covering(a, b) == pytest.approx(brute_covering(pred, target), rel=1e-14)


def test_ignored_pixels_do_not_count(path: Any) -> None:
    rng = np.random.default_rng(8)
    pred, target = maps(rng, (8, 9), 4)
    keep = target != 1
    a, b = path.array(pred), path.array(target)
    for function in (cv3gpu.variation_of_information, cv3gpu.rand_index, cv3gpu.segmentation_covering):
        want = function(path.array(pred[keep]), path.array(target[keep]))
        assert function(a, b, ignore_index=1) == want


def test_adjusted_rand_index() -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(9)
    for n in (2, 5, 30):
        pred, target = maps(rng, (300,), n)
        want = sklearn.adjusted_rand_score(target, pred)
        assert cv3gpu.rand_index(pred, target, adjusted=True) == pytest.approx(want, abs=1e-12)
    same = np.zeros(5, int)
    assert cv3gpu.rand_index(same, same, adjusted=True) == 1.0


def test_rand_index_of_a_million_pixels_is_exact() -> None:
    target = np.arange(1 << 20) >> 10
    pred = target ^ 1
    assert cv3gpu.rand_index(pred, target) == 1.0
    assert cv3gpu.variation_of_information(pred, target) == 0.0


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=2, max_size=30), st.permutations(range(7)))
def test_metrics_do_not_depend_on_names_or_order(pairs: list[tuple[int, int]], names: list[int]) -> None:
    a, b = np.array(pairs).T
    renamed = np.array(names)[a + 3] * 1000 - 5
    for function in (cv3gpu.variation_of_information, cv3gpu.rand_index, cv3gpu.segmentation_covering):
        assert function(renamed, b) == pytest.approx(function(a, b), abs=1e-12)
        assert function(a[::-1], b[::-1]) == pytest.approx(function(a, b), abs=1e-12)
    voi, rand = cv3gpu.variation_of_information(a, b), cv3gpu.rand_index(a, b)
    assert voi == pytest.approx(cv3gpu.variation_of_information(b, a), abs=1e-12) and -1e-12 <= voi <= 2 * math.log2(30)
    assert rand == cv3gpu.rand_index(b, a) and 0 <= rand <= 1
    assert cv3gpu.rand_index(a, a) == 1 == cv3gpu.segmentation_covering(a, a)


# ---- borders --------------------------------------------------------------------------------------------


def brute_f1(pred: np.ndarray, target: np.ndarray, reach: float) -> float:
    def border(x: np.ndarray) -> list[tuple[int, int]]:
        h, w = x.shape
        near = [(i, j) for i in range(h) for j in range(w)]
        return [
            (i, j) for i, j in near if (i + 1 < h and x[i, j] != x[i + 1, j]) or (j + 1 < w and x[i, j] != x[i, j + 1])
        ]

    def share(one: list[tuple[int, int]], other: list[tuple[int, int]]) -> float:
        hits = [any((i - k) ** 2 + (j - m) ** 2 <= reach**2 for k, m in other) for i, j in one]
        return float(np.mean(hits))

    p, t = border(pred), border(target)
    if not p or not t:
        return float(not p and not t)
    precision, recall = share(p, t), share(t, p)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def blobs(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    y, x = np.indices(shape)
    return sum(((y - cy) ** 2 + (x - cx) ** 2 < r * r).astype(int) for cy, cx, r in rng.uniform(2, 14, (3, 3)))


@pytest.mark.parametrize("reach", [0.0, 1.0, 1.5, 2.9, None])
def test_borders_against_brute_force(path: Any, reach: float | None) -> None:
    rng = np.random.default_rng(11)
    pred, target = (np.stack([blobs(rng, (16, 19)) for _ in range(3)]) for _ in range(2))
    pred[2], target[1], pred[1] = 1, 1, 1
    used = 0.0075 * math.hypot(16, 19) if reach is None else reach
    want = np.mean([brute_f1(a, b, used) for a, b in zip(pred, target, strict=True)])
    got = cv3gpu.boundary_f1(path.array(pred, "int32"), path.array(target), reach)
    assert got == pytest.approx(want, rel=1e-13)


def test_borders_of_classes(path: Any) -> None:
    rng = np.random.default_rng(12)
    pred, target = blobs(rng, (16, 19)), blobs(rng, (16, 19))
    pred[0, :3] = 5  # which the target lacks
    there = [c for c in range(7) if ((target == c) | (pred == c)).any()]
    want = np.mean([brute_f1(pred == c, target == c, 2.0) for c in there])
    got = cv3gpu.boundary_f1(path.array(pred), path.array(target), 2.0, n_classes=7)
    assert 5 in there and 6 not in there and got == pytest.approx(want, rel=1e-13)


def test_images_that_lack_classes(path: Any) -> None:
    plain = np.zeros((3, 8, 9), int)
    target, pred = plain.copy(), plain.copy()
    target[0, :, 4:] = pred[0, :, 4:] = 1  # found
    pred[1, 2:5, 2:5] = 1  # not there: a 0, and half of the image's mean
    got = cv3gpu.boundary_f1(path.array(pred), path.array(target), 1.0, n_classes=2)
    assert got == pytest.approx(
        (1 + 0 + 1) / 3
    )  # the border of class 0 is not there either; the third has class 0 alone
    both = path.array(np.full((1, 4, 5), 9)), path.array(np.full((1, 4, 5), 9))
    assert math.isnan(cv3gpu.boundary_f1(*both, 1.0, n_classes=2))
    more = (path.array(np.concatenate([x, np.full((1, 8, 9), 9)])) for x in (pred, target))
    assert cv3gpu.boundary_f1(*more, 1.0, n_classes=2) == got  # an image of neither does not count


# ---- panoptic -------------------------------------------------------------------------------------------


def brute_panoptic(pred: np.ndarray, target: np.ndarray, divisor: int, void: int) -> dict[int, list[float]]:
    """Kirillov et al.'s definition, segment by segment; class to [tp, fp, fn, iou]."""
    found: dict[int, list[float]] = {}
    for p_map, t_map in zip(pred, target, strict=True):
        hit_p, hit_t = set(), set()
        ids_p, ids_t = ([int(i) for i in np.unique(m) if i != void] for m in (p_map, t_map))
        for i, j in itertools.product(ids_p, ids_t):
            one, other = (p_map == i) & (t_map != void), t_map == j
            iou = (one & other).sum() / max((one | other).sum(), 1)
            if i // divisor == j // divisor and iou > 0.5:
                row = found.setdefault(i // divisor, [0, 0, 0, 0.0])
                row[0] += 1
                row[3] += iou
                hit_p.add(i)
                hit_t.add(j)
        for i in ids_p:
            if i not in hit_p and (t_map[p_map == i] == void).mean() <= 0.5:
                found.setdefault(i // divisor, [0, 0, 0, 0.0])[1] += 1
        for j in ids_t:
            if j not in hit_t:
                found.setdefault(j // divisor, [0, 0, 0, 0.0])[2] += 1
    return found


def test_panoptic_against_brute_force(path: Any) -> None:
    rng = np.random.default_rng(13)
    target = np.repeat(np.repeat(rng.choice([0, 1001, 1002, 2000, 3001], (4, 4, 5)), 4, 1), 3, 2)
    pred = np.where(rng.random(target.shape) < 0.25, rng.choice([0, 1001, 1003, 2000, 3002], target.shape), target)
    pred[0][target[0] == 1001] = 3777  # of another class
    got = cv3gpu.panoptic_quality(path.array(pred), path.array(target, "int32"), label_divisor=1000, ignore_index=0)
    want = brute_panoptic(pred, target, 1000, 0)
    assert got.classes.tolist() == sorted(want)
    rows = np.array([want[c] for c in sorted(want)])
    np.testing.assert_array_equal(np.stack([got.tp, got.fp, got.fn], 1), rows[:, :3])
    np.testing.assert_allclose(got.iou, rows[:, 3], rtol=1e-13)
    parts = rows[:, 0] + rows[:, 1] / 2 + rows[:, 2] / 2
    assert got.pq == pytest.approx(np.mean(rows[:, 3] / parts)) and got.rq == pytest.approx(np.mean(rows[:, 0] / parts))
    assert 0 < got.pq < 1 and got.tp.sum() and got.fp.sum() and got.fn.sum()


def test_panoptic_views() -> None:
    rng = np.random.default_rng(14)
    target = np.repeat(rng.integers(0, 6, (1, 10)), 12, 0)
    instance = cv3gpu.panoptic_quality(target[:, ::-1] * 7 + 1, target[:, ::-1])  # other names of the same segments
    assert instance.pq == 1 and instance.classes.tolist() == [0] and instance.tp == len(np.unique(target))
    semantic = cv3gpu.panoptic_quality(target, target, label_divisor=1)
    assert semantic.pq == semantic.sq == semantic.rq == 1 and semantic.classes.tolist() == np.unique(target).tolist()
    void = cv3gpu.panoptic_quality(target, np.full_like(target, 255), ignore_index=255)
    assert math.isnan(void.pq) and void.fp.sum() == 0  # what lies in the void is no mistake


def brute_parts(
    pred: np.ndarray, target: np.ndarray, parts: tuple[np.ndarray, np.ndarray], divisor: int, void: int,
    classes: set[int], unknown: int,
) -> dict[int, list[float]]:  # fmt: skip
    """PartPQ segment by segment, with the confusion of scikit-learn, as its authors' evaluation does it."""
    confusion_of = pytest.importorskip("sklearn.metrics").confusion_matrix
    found: dict[int, list[float]] = {}
    for p_map, t_map, p_part, t_part in zip(pred, target, *parts, strict=True):
        t_part = np.where(t_part == unknown, 0, t_part)
        in_void, done = t_map == void, set()
        real = [j for j in np.unique(t_map).tolist() if j != void]
        bare = {j for j in real if j // divisor in classes and not t_part[t_map == j].any()}
        for j in real:
            row = found.setdefault(j // divisor, [0, 0, 0, 0.0])
            if j in bare:
                continue
            crowd = np.isin(t_map, [b for b in bare if b // divisor == j // divisor])
            row[2] += 1
            for i in np.unique(p_map).tolist():
                one, other = p_map == i, t_map == j
                iou = (one & other).sum() / ((one | other).sum() - (one & in_void).sum())
                if i == void or i // divisor != j // divisor or iou <= 0.5:
                    continue
                done.add(i)
                if j // divisor in classes:
                    seen = ~(in_void | crowd | (other & (t_part == 0)))
                    ours, theirs = np.where(one, p_part, 0)[seen], np.where(other, t_part, 0)[seen]
                    table = confusion_of(theirs, ours)
                    ious = np.diagonal(table) / (table.sum(0) + table.sum(1) - np.diagonal(table))
                    names = np.unique(np.concatenate([ours, theirs]))
                    iou = ious[names != unknown].mean()
                row[0], row[2], row[3] = row[0] + 1, row[2] - 1, row[3] + iou
        for i in np.unique(p_map).tolist():
            if i != void and i not in done:
                crowd = np.isin(t_map, [b for b in bare if b // divisor == i // divisor])
                if (in_void | crowd)[p_map == i].mean() <= 0.5:
                    found.setdefault(i // divisor, [0, 0, 0, 0.0])[1] += 1
    return {c: row for c, row in found.items() if any(row)}


@pytest.mark.parametrize("given", [True, False])
def test_parts_against_brute_force(path: Any, given: bool) -> None:
    rng = np.random.default_rng(15)
    target = np.repeat(np.repeat(rng.choice([255, 2001, 2002, 3000, 4001, 4002], (6, 4, 3)), 4, 1), 5, 2)
    parts = np.repeat(np.repeat(rng.integers(0, 4, (6, 8, 5)), 2, 1), 3, 2)
    parts[target // 1000 == 3] = 0  # a class without parts
    parts[0][target[0] == 2001] = 0  # segments without, of a class that has some
    parts[3][target[3] == 4001] = 0
    parts[rng.random(parts.shape) < 0.03] = 9
    pred = np.where(rng.random(target.shape) < 0.1, rng.choice([255, 2001, 3000, 4002], target.shape), target)
    pred[0][target[0] == 2001] = 2005
    ours = np.where(rng.random(target.shape) < 0.2, rng.integers(0, 5, target.shape), parts)
    classes = {2, 4} if given else {c for c in (2, 3, 4) if ((parts > 0) & (parts != 9))[target // 1000 == c].any()}
    want = brute_parts(pred, target, (ours, parts), 1000, 255, classes, 9)
    got = cv3gpu.panoptic_quality(
        path.array(pred, "int32"), path.array(target), label_divisor=1000, ignore_index=255, ignore_part=9,
        pred_parts=path.array(ours, "uint8"), target_parts=path.array(parts, "int32"),
        part_classes=sorted(classes) if given else None,
    )  # fmt: skip
    rows = np.array([want[c] for c in sorted(want)])
    assert got.classes.tolist() == sorted(want)
    np.testing.assert_array_equal(np.stack([got.tp, got.fp, got.fn], 1), rows[:, :3])
    np.testing.assert_allclose(got.iou, rows[:, 3], rtol=1e-13)
    assert (
        got.tp.sum() > 10
        and got.fp.sum()
        and got.pq == pytest.approx(np.mean(rows[:, 3] / (rows[:, 0] + rows[:, 1] / 2 + rows[:, 2] / 2)))
    )


def test_views_of_parts() -> None:
    target = np.repeat([[1001, 1001, 1001, 1001, 2000, 2000]], 4, 0)
    parts = np.array([[1, 1, 2, 2, 0, 0]] * 4)
    same = cv3gpu.panoptic_quality(target, target, label_divisor=1000, pred_parts=parts, target_parts=parts)
    assert same.pq == same.sq == same.rq == 1
    swapped = np.array([[2, 2, 1, 1, 0, 0]] * 4)
    wrong = cv3gpu.panoptic_quality(target, target, label_divisor=1000, pred_parts=swapped, target_parts=parts)
    assert wrong.rq == 1 and wrong.iou.tolist() == [
        pytest.approx(1 / 3),
        1.0,
    ]  # what is outside is right, both parts wrong
    unsure = np.where(parts == 2, 7, parts)
    half = cv3gpu.panoptic_quality(
        target, target, label_divisor=1000, pred_parts=unsure, target_parts=parts, ignore_part=7
    )
    assert half.iou[0] == pytest.approx(2 / 3)  # 0 and 1 are right, 2 is missed
    no_parts = cv3gpu.panoptic_quality(target, target, pred_parts=parts * 0, target_parts=parts * 0)
    assert no_parts.pq == 1 and no_parts.tp == 2
    none = cv3gpu.panoptic_quality(
        *[np.zeros((0, 3, 3), int)] * 2, pred_parts=np.zeros((0, 3, 3), int), target_parts=np.zeros((0, 3, 3), int)
    )
    assert math.isnan(none.pq)


def test_few_labels_of_large_numbers(path: Any) -> None:
    rng = np.random.default_rng(16)
    pred, target = maps(rng, (20, 30), 5)
    numbers = np.array([0, 11003, 26001, 26012, 33000])
    want = cv3gpu.panoptic_quality(pred, target)
    got = cv3gpu.panoptic_quality(path.array(numbers[pred], "int32"), path.array(numbers[target]))
    assert got.pq == want.pq and got.fp == want.fp
    large = maps(rng, (700, 401), 5)  # in pieces, on the CPU's threads
    assert cv3gpu.variation_of_information(*(numbers[x] for x in large)) == cv3gpu.variation_of_information(*large)
    many = rng.permutation(5000).reshape(50, 100)  # more labels than a table takes
    assert cv3gpu.rand_index(path.array(many), path.array(many * 3)) == 1.0


# ---- refusals -------------------------------------------------------------------------------------------

MAP = np.zeros((4, 5), np.int64)
PAIR = [
    "confusion_matrix", "variation_of_information", "rand_index", "segmentation_covering", "boundary_f1", "panoptic_quality",
]  # fmt: skip


def call(name: str, *args: Any, **options: Any) -> Any:
    extra = (3,) if name == "confusion_matrix" else ()
    return getattr(cv3gpu, name)(*args, *extra, **options)


@pytest.mark.parametrize("name", PAIR)
def test_maps_that_do_not_fit(name: str) -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(ValueError, match=rf"{name}: target must have the shape of pred \(4, 5\), got \(5, 4\)"):
        call(name, MAP, MAP.T)
    with pytest.raises(TypeError, match=f"{name}: pred must have dtype int64 .* got float64"):
        call(name, MAP / 2, MAP)
    with pytest.raises(TypeError, match=f"{name}: target must have dtype int64 .* got float32"):
        call(name, MAP, MAP.astype(np.float32))
    with pytest.raises(TypeError, match=f"{name}: pred must be a NumPy, CuPy or torch array, got list"):
        call(name, MAP.tolist(), MAP)
    with pytest.raises(TypeError, match=f"{name}: all arrays must be of one library"):
        call(name, MAP, torch.from_numpy(MAP))


@pytest.mark.parametrize(
    ("error", "text", "run"),
    [
        (ValueError, r"target must hold classes from 0 to 2, got 9 at \(2, 1\)", lambda: cv3gpu.confusion_matrix(MAP, np.where(np.arange(20).reshape(4, 5) == 11, 9, 0), 3)),
        (ValueError, r"pred must hold classes from 0 to 2, got -1 at \(0, 0\); say ignore_index", lambda: cv3gpu.confusion_matrix(MAP - 1, MAP, 3)),
        (ValueError, "n_classes must be from 1 to 4096, got 0", lambda: cv3gpu.confusion_matrix(MAP, MAP, 0)),
        (TypeError, "n_classes must be an integer, got 2.5", lambda: cv3gpu.confusion_matrix(MAP, MAP, 2.5)),
        (TypeError, "ignore_index must be an integer", lambda: cv3gpu.confusion_matrix(MAP, MAP, 2, "void")),
        (TypeError, "mean_iou: confusion must be a NumPy, CuPy or torch array, got list", lambda: cv3gpu.mean_iou([[1]])),
        (ValueError, r"mean_iou: confusion must have shape \[n_classes, n_classes\], got \(2, 3\)", lambda: cv3gpu.mean_iou(np.ones((2, 3)))),
        (ValueError, "pixel_accuracy: confusion must hold counts, got -1.0", lambda: cv3gpu.pixel_accuracy(-np.ones((1, 1)))),
        (TypeError, "rand_index: adjusted must be True or False", lambda: cv3gpu.rand_index(MAP, MAP, adjusted=1)),
        (ValueError, "boundary_f1: tolerance must not be negative, got -1", lambda: cv3gpu.boundary_f1(MAP, MAP, -1)),
        (TypeError, "boundary_f1: tolerance must be a number", lambda: cv3gpu.boundary_f1(MAP, MAP, "2")),
        (ValueError, r"boundary_f1: pred must have shape \[..., H, W\]", lambda: cv3gpu.boundary_f1(MAP[0], MAP[0])),
        (ValueError, "boundary_f1: n_classes must be from 1", lambda: cv3gpu.boundary_f1(MAP, MAP, n_classes=0)),
        (ValueError, r"panoptic_quality: pred must have shape \[..., H, W\]", lambda: cv3gpu.panoptic_quality(MAP[0], MAP[0])),
        (ValueError, "panoptic_quality: label_divisor must be from 1", lambda: cv3gpu.panoptic_quality(MAP, MAP, label_divisor=0)),
        (ValueError, "panoptic_quality: pred must hold labels that are not negative, or ignore_index, got -3", lambda: cv3gpu.panoptic_quality(MAP - 3, MAP)),
        (ValueError, "panoptic_quality: target_parts must be given where the other is", lambda: cv3gpu.panoptic_quality(MAP, MAP, pred_parts=MAP)),
        (ValueError, r"panoptic_quality: pred_parts must have the shape of pred \(4, 5\), got \(5, 4\)", lambda: cv3gpu.panoptic_quality(MAP, MAP, pred_parts=MAP.T, target_parts=MAP)),
        (ValueError, "panoptic_quality: target_parts must hold parts that are not negative, got -1", lambda: cv3gpu.panoptic_quality(MAP, MAP, pred_parts=MAP, target_parts=MAP - 1)),
        (TypeError, "panoptic_quality: pred_parts must have dtype int64 .* got float64", lambda: cv3gpu.panoptic_quality(MAP, MAP, pred_parts=MAP / 1, target_parts=MAP)),
        (ValueError, "panoptic_quality: part_classes must be left out without pred_parts", lambda: cv3gpu.panoptic_quality(MAP, MAP, part_classes=[1])),
        (ValueError, "panoptic_quality: ignore_part must be left out without pred_parts", lambda: cv3gpu.panoptic_quality(MAP, MAP, ignore_part=3)),
        (TypeError, "panoptic_quality: part_classes must be a sequence of integers, got int", lambda: cv3gpu.panoptic_quality(MAP, MAP, pred_parts=MAP, target_parts=MAP, part_classes=2)),
        (ValueError, "panoptic_quality: ignore_part must be from 1", lambda: cv3gpu.panoptic_quality(MAP, MAP, pred_parts=MAP, target_parts=MAP, ignore_part=0)),
        (ValueError, "panoptic_quality: pred must hold labels below", lambda: cv3gpu.panoptic_quality(MAP + 2**61, MAP, pred_parts=MAP + 2, target_parts=MAP)),
    ],
)  # fmt: skip
def test_refusals(error: type[Exception], text: str, run: Any) -> None:
    with pytest.raises(error, match=text):
        run()


def test_kernel_finds_the_first_bad_label(kernel_path: Any) -> None:
    pred, target = np.zeros((30, 70), int), np.zeros((30, 70), int)
    pred[3, 5], target[2, 69] = 8, -2
    with pytest.raises(ValueError, match=r"target must hold classes from 0 to 7, got -2 at \(2, 69\)"):
        cv3gpu.confusion_matrix(kernel_path.array(pred), kernel_path.array(target), 8)
