"""The UA-DETRAC toolkit's rules: ignored regions, greedy matching, figures along the PR curve."""

from __future__ import annotations

import dataclasses
import math
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cv3gpu import mot
from cv3gpu.mot import detrac

SHARED = Path(__file__).resolve().parents[1] / ".." / "shared" / "data" / "mot" / "DETRAC"
SMALL = (60, 40)  # width and height of an image in which an oracle can count pixels

real_data = pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/data/mot/DETRAC")


def tracks(*rows, score=None):
    """Tracks of (frame, id, left) or (frame, id, left, top, width, height); boxes are 100 x 10 unless said."""
    full = [(*row, 1, 100, 10) if len(row) == 3 else row for row in rows]
    table = np.array(full, float).reshape(-1, 6)
    return mot.Tracks(frame=table[:, 0], id=table[:, 1], box=table[:, 2:], score=score)


def ignoring(side, regions):
    return dataclasses.replace(side, ignored=regions)


# ---- oracles: plain loops over frames, boxes and pixels ----------------------------------------------------


def iou(a, b):
    x = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    y = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    if min(a[2], a[3], b[2], b[3], x, y) <= 0:
        return 0.0
    return x * y / (a[2] * a[3] + b[2] * b[3] - x * y)


def by_frame(side):
    found: dict = {}
    for frame, identity, box in zip(side.frame.tolist(), side.id.tolist(), side.box.tolist(), strict=True):
        found.setdefault(frame, {})[identity] = box
    return found


def slow_clear(gt, pred, threshold=0.7):
    gt, pred = by_frame(gt), by_frame(pred)
    last_frame = max([0, *gt, *pred])
    mapped = {frame: {} for frame in range(-1, last_frame + 1)}
    idsw = fp = fn = 0
    overlap = 0.0
    for frame in range(last_frame + 1):
        g, p, now = gt.get(frame, {}), pred.get(frame, {}), mapped[frame]
        for i, j in mapped[frame - 1].items():
            if i in g and j in p and iou(g[i], p[j]) >= threshold * 0.8:
                now[i] = j
        while True:
            pairs = [(iou(g[i], p[j]), -j, -i) for i in g if i not in now for j in p if j not in now.values()]
            if not pairs or max(pairs)[0] < threshold:
                break
            _, j, i = max(pairs)
            now[-i] = -j
        for i, j in now.items():
            before = [mapped[t][i] for t in range(frame) if i in mapped[t]]
            idsw += bool(before) and i in gt.get(frame - 1, {}) and before[-1] != j
            overlap += iou(g[i], p[j])
        fp += len(p) - len(now)
        fn += len(g) - len(now)
    ids = {i for boxes in gt.values() for i in boxes}
    classes = {"MT": 0, "PT": 0, "ML": 0}
    frag = 0
    for i in ids:
        share = sum(i in now for now in mapped.values()) / sum(i in boxes for boxes in gt.values())
        classes["ML" if share < 0.2 else "PT" if share <= 0.8 else "MT"] += 1
        followed = "".join("x" if i in mapped[t] else " " for t in range(last_frame + 1)).strip()
        frag += followed.count("x ")
    tp, total = sum(map(len, mapped.values())), sum(map(len, gt.values()))
    return {
        "CLR_TP": tp, "CLR_FN": fn, "CLR_FP": fp, "IDSW": idsw, "Frag": frag, **classes,
        "CLR_Frames": last_frame, "MOTP_sum": overlap,
        "MOTA": 1 - (fn + fp + idsw) / total if total else 0, "MODA": 1 - (fn + fp) / total if total else 0,
        "MOTP": overlap / max(1, tp), "CLR_Re": tp / max(1, total), "CLR_Pr": tp / max(1, tp + fp),
        "MTR": classes["MT"] / max(1, len(ids)), "PTR": classes["PT"] / max(1, len(ids)),
        "MLR": classes["ML"] / max(1, len(ids)),
    }  # fmt: skip


def half_up(x):
    return math.floor(abs(x) + 0.5) * (1 if x >= 0 else -1)


def region_pixels(regions, size):
    """Pixels from 1 in the union of regions: MATLAB's a, a + 1, ... up to the end, each rounded as an index."""
    covered = set()
    for left, top, w, h in regions:
        axes = []
        for start, length, most in ((left, w, size[0]), (top, h, size[1])):
            steps = int((min(most, start + length) - start + 1e-9) // 1)
            axes.append({half_up(start + k) for k in range(steps + 1)})
        covered |= {(x, y) for x in axes[0] for y in axes[1] if 1 <= x <= size[0] and 1 <= y <= size[1]}
    return covered


def slow_share(box, regions, size):
    left, top, w, h = box
    w_whole, h_whole = half_up(w), half_up(h)
    if w_whole <= 0 or h_whole <= 0:
        return 0.0
    x = half_up(left + w / 2 - w_whole / 2)
    y = half_up(top + h - h_whole)
    first_x, last_x = (min(max(v, 1), size[0]) for v in (x, x + w_whole))
    first_y, last_y = (min(max(v, 1), size[1]) for v in (y, y + h_whole))
    pixels = {(a, b) for a in range(first_x + 1, last_x + 1) for b in range(first_y + 1, last_y + 1)}
    return len(pixels & region_pixels(regions, size)) / (w_whole * h_whole)


def assert_same(got, want):
    assert set(got) == set(want)
    wrong = {key: (value, want[key]) for key, value in got.items() if not abs(value - want[key]) <= 1e-12}
    assert not wrong


# ---- CLEAR --------------------------------------------------------------------------------------------------


@st.composite
def scenes(draw):
    """A few boxes that wander by whole pixels, so that overlaps are often equal or exactly at a threshold."""
    step = st.integers(-3, 3)

    def side():
        found: list = []
        for identity in range(draw(st.integers(0, 3))):
            frames = draw(st.lists(st.integers(0, 7), unique=True))
            found += [(f, identity, 10 * draw(step), 5 * draw(st.integers(0, 1)), 100, 20) for f in frames]
        return tracks(*draw(st.permutations(found)))

    return side(), side()


@settings(max_examples=400, deadline=None)
@given(scenes(), st.sampled_from([0.7, 0.5, 1.0]))
def test_figures_are_the_oracles(scene, threshold):
    assert_same(detrac.clear(*scene, threshold=threshold), slow_clear(*scene, threshold))


@pytest.mark.parametrize("seed", range(5))
def test_figures_of_a_crowd_are_the_oracles(seed):
    rng = np.random.default_rng(seed)
    start = rng.uniform(0, 300, (25, 2))
    rows = [(f, i, *(start[i] + 2 * f), 60, 40) for f in range(1, 31) for i in range(25) if rng.random() < 0.9]
    guess = [
        (f, 100 + (i + f // 12) % 25, *(np.array(box) + rng.normal(0, 3, 4)))
        for f, i, *box in rows
        if rng.random() < 0.9
    ]
    gt, pred = tracks(*rows), tracks(*guess)
    got = detrac.clear(gt, pred)
    assert_same(got, slow_clear(gt, pred))
    assert min(got["IDSW"], got["Frag"], got["PT"], got["CLR_FP"]) > 0


def test_a_pair_starts_at_the_threshold_and_continues_at_eight_tenths_of_it():
    # A shift of s pixels leaves an IoU of (100 - s) / (100 + s): 0.72 at 16, 0.57 at 27, 0.55 at 29.
    gt = tracks((1, 1, 0), (2, 1, 0), (3, 1, 0))
    assert detrac.clear(gt, tracks((1, 5, 16), (2, 5, 27), (3, 5, 29)))["CLR_TP"] == 2
    assert detrac.clear(gt, tracks((1, 5, 27), (2, 5, 16), (3, 5, 27)))["CLR_TP"] == 2
    assert detrac.clear(gt, tracks((1, 5, 27), (2, 5, 27), (3, 5, 27)))["CLR_TP"] == 0


def test_exactly_the_threshold_is_enough():
    gt = tracks((1, 1, 0, 0, 10, 1), (2, 1, 0, 0, 25, 1))
    assert detrac.clear(gt, tracks((1, 5, 0, 0, 7, 1), (2, 5, 0, 0, 14, 1)))["CLR_TP"] == 2
    both = tracks((1, 1, 0, 0, 10, 1), (1, 2, 50, 0, 10, 1))
    assert detrac.clear(both, tracks((1, 5, 0, 0, 7, 1), (1, 6, 50, 0, 7, 1)))["CLR_TP"] == 2


def test_a_pair_continues_only_from_the_frame_before():
    gt = tracks((1, 1, 0), (3, 1, 0))
    assert detrac.clear(gt, tracks((1, 5, 0), (3, 5, 20)))["CLR_TP"] == 1
    assert detrac.clear(tracks((1, 1, 0), (2, 1, 0)), tracks((1, 5, 0), (2, 5, 20)))["CLR_TP"] == 2


def test_a_pair_that_continues_keeps_better_boxes_away():
    gt = tracks((1, 1, 0), (2, 1, 0))
    got = detrac.clear(gt, tracks((1, 5, 0), (2, 5, 25), (2, 6, 0)))
    assert (got["CLR_TP"], got["CLR_FP"], got["IDSW"], got["MOTP"]) == (2, 1, 0, (1 + 0.6) / 2)


def test_matching_is_greedy():
    # The best pair (0.90) leaves the others without a partner; the best sum would be two pairs of 0.75 and 0.74.
    gt = tracks((1, 1, 0), (1, 2, 20))
    pred = tracks((1, 5, 5), (1, 6, -14))
    assert detrac.clear(gt, pred)["CLR_TP"] == 1
    assert mot.clear(gt, pred)["CLR_TP"] == 2


def test_ties_go_to_the_smaller_predicted_identity_then_to_the_smaller_true_one():
    gt = tracks((1, 1, 0), (2, 1, 0))
    pred = tracks((1, 6, 5), (1, 5, -5), (2, 5, 5), (2, 6, -5))
    assert detrac.clear(gt, pred)["IDSW"] == 0
    # 8 has an equal overlap with 1 and 2, and 9 fits 2 alone: 1 must get 8 for both to be matched.
    assert detrac.clear(tracks((1, 2, 10), (1, 1, -10)), tracks((1, 8, 0), (1, 9, 25)))["CLR_TP"] == 2


def test_a_switch_needs_the_object_in_the_frame_before():
    pred = tracks((1, 5, 0), (3, 6, 0))
    there, gone = tracks((1, 1, 0), (2, 1, 0), (3, 1, 0)), tracks((1, 1, 0), (3, 1, 0))
    assert detrac.clear(there, pred)["IDSW"] == 1  # missed in frame 2, but there
    assert detrac.clear(gone, pred)["IDSW"] == 0
    assert detrac.clear(there, tracks((1, 5, 0), (3, 5, 0)))["IDSW"] == 0


def test_a_switch_that_was_not_counted_is_not_counted_later():
    gt = tracks((1, 1, 0), (3, 1, 0), (4, 1, 0))
    assert detrac.clear(gt, tracks((1, 5, 0), (3, 6, 0), (4, 6, 0)))["IDSW"] == 0


def test_fragments():
    gt = tracks(*((f, 1, 0) for f in (1, 2, 3, 4, 6, 7, 8)))
    assert detrac.clear(gt, tracks(*((f, 5, 0) for f in (2, 4, 6, 8))))["Frag"] == 3
    assert detrac.clear(gt, tracks(*((f, 5, 0) for f in (4, 6))))["Frag"] == 1  # not there in frame 5
    assert detrac.clear(gt, tracks(*((f, f, 0) for f in (2, 3, 4))))["Frag"] == 0


def test_mostly_tracked_is_more_than_eighty_percent_and_lost_less_than_twenty():
    gt = tracks(*((f, 1, 0) for f in range(1, 11)))
    for n, name in ((1, "ML"), (2, "PT"), (8, "PT"), (9, "MT")):
        got = detrac.clear(gt, tracks(*((f, 5, 0) for f in range(1, n + 1))))
        assert (got["MT"] + got["PT"] + got["ML"], got[name], got[f"{name}R"]) == (1, 1, 1.0)


def test_empty_sides():
    none, some = tracks(), tracks((1, 1, 0), (4, 1, 0), (4, 2, 500))
    for gt, pred in ((none, none), (none, some), (some, none)):
        assert_same(detrac.clear(gt, pred), slow_clear(gt, pred))
    assert detrac.clear(some, none)["MLR"] == 1
    assert detrac.clear(none, some)["CLR_FP"] == 3
    assert detrac.combine([]) == detrac.clear(none, none)


@pytest.mark.parametrize("width", [0, -5])
def test_boxes_without_area_overlap_nothing(width):
    side = tracks((1, 1, 0, 0, width, 10))
    assert detrac.clear(side, side)["CLR_TP"] == 0


def test_identities_and_frames_may_be_large():
    side = mot.Tracks([2**31 - 2, 2**31 - 1], [2**53, 2**53], [[0, 0, 9, 9], [0, 0, 9, 9]])
    got = detrac.clear(side, side)
    assert (got["CLR_TP"], got["IDSW"], got["Frag"]) == (2, 0, 0)


def test_counts_are_int_and_ratios_float():
    side = tracks((1, 1, 0))
    for figures in (detrac.clear(side, side), detrac.clear(side, tracks()), detrac.clear(tracks(), tracks())):
        for both in (figures, detrac.combine([figures, figures])):
            assert {k for k, v in both.items() if type(v) is int} == set(detrac.CLEAR_COUNTS) - {"MOTP_sum"}
            assert {type(v) for v in both.values()} == {int, float}


def test_combined_ratios_follow_from_the_sums():
    gt = tracks(*((f, i, 500 * i) for f in range(1, 5) for i in range(3)))
    poor, good = detrac.clear(gt, tracks((1, 1, 515), (1, 2, 800))), detrac.clear(gt, gt)
    got = detrac.combine([poor, good])
    assert (got["CLR_TP"], got["CLR_FN"], got["CLR_FP"], got["CLR_Frames"]) == (13, 11, 1, 8)
    assert (got["MT"], got["PT"], got["ML"]) == (3, 1, 2)
    assert got["MOTA"] == got["MODA"] == (13 - 1) / 24
    assert got["MOTP"] == pytest.approx((12 + 85 / 115) / 13)
    assert (got["CLR_Re"], got["CLR_Pr"], got["MTR"]) == (13 / 24, 13 / 14, 1 / 2)
    assert detrac.combine([poor]) == poor


def test_refusals():
    side, unnamed = tracks((1, 1, 0)), tracks((1, -1, 0))
    for call in (detrac.clear, detrac.prepare, lambda gt, pred: detrac.precision_recall(gt, pred, 0.5)):
        with pytest.raises(TypeError, match="must be Tracks"):
            call(side, side.box)
    for gt, pred in ((unnamed, side), (side, unnamed)):
        with pytest.raises(ValueError, match="identity of at least 0 in every row, got id -1 in frame 1"):
            detrac.clear(gt, pred)
    for threshold in (0, -1, 1.5, math.nan):
        with pytest.raises(ValueError, match=r"mot\.detrac\.clear: threshold must"):
            detrac.clear(side, side, threshold=threshold)


# ---- ignored regions ----------------------------------------------------------------------------------------


def boxes(low=-20, high=70):
    coordinate = st.one_of(st.integers(low, high), st.integers(4 * low, 4 * high).map(lambda n: n / 4))
    length = st.one_of(st.integers(0, 40), st.integers(0, 160).map(lambda n: n / 4))
    return st.tuples(coordinate, coordinate, length, length)


@settings(max_examples=300, deadline=None)
@given(st.lists(boxes(), max_size=4), st.lists(boxes(), max_size=3))
def test_shares_are_the_oracles(box, regions):
    got = detrac.inside_ignored(box, regions, SMALL)
    assert got.dtype == np.float64
    assert got.tolist() == [slow_share(one, regions, SMALL) for one in box]


def test_a_region_is_one_pixel_wider_than_its_box():
    # Pixels 10 ... 20 are ignored; the box covers x + 1 ... x + w.
    region = [[10, 1, 10, 539]]
    shares = detrac.inside_ignored([[9, 100, 11, 10], [9, 100, 22, 10], [20, 100, 10, 10]], region)
    assert shares.tolist() == [1.0, 0.5, 0.0]


def test_regions_that_overlap_count_once():
    box = [[10, 10, 20, 20]]
    assert detrac.inside_ignored(box, [[1, 1, 17, 100]]).tolist() == [0.4]
    assert detrac.inside_ignored(box, [[1, 1, 17, 100], [1, 1, 17, 90], [11, 11, 7, 50]]).tolist() == [0.4]


def test_regions_with_quarters_cover_the_nearest_pixels():
    # 778.75, 779.75, ... 959.75 are rounded to 779 ... 960; 0.5, 1.5, ... to 1 ...
    right = [[778.75, 24.75, 181.75, 63.5]]
    assert detrac.inside_ignored([[777, 30, 2, 10], [776, 30, 2, 10]], right).tolist() == [0.5, 0]
    assert detrac.inside_ignored([[87, 300, 4, 10]], [[0.5, 231.75, 88.75, 121.5]]).tolist() == [0.5]


def test_the_part_of_a_box_beyond_the_image_is_not_ignored():
    assert detrac.inside_ignored([[950, 100, 20, 10], [945, 100, 20, 10]], [[1, 1, 959, 539]]).tolist() == [0.5, 0.75]
    assert detrac.inside_ignored([[950, 100, 20, 10]], [[1, 1, 999, 539]], size=(1000, 540)).tolist() == [1.0]
    assert detrac.inside_ignored([[-15, 100, 20, 10]], [[1, 1, 959, 539]]).tolist() == [4 / 20]


def test_half_inside_is_dropped_on_both_sides():
    region = [[1, 1, 110, 539]]  # pixels 1 ... 111
    for width, kept in ((21, 1), (20, 0), (19, 0)):  # 101 + 1 ... 101 + width, ten of them inside
        side = tracks((1, 1, 101, 100, width, 10))
        gt, pred = detrac.prepare(ignoring(side, region), side)
        assert (len(gt), len(pred)) == (kept, kept)


def test_a_trajectory_is_cut_at_its_ends_and_a_prediction_in_the_middle():
    inside, outside = (1, 100, 20, 10), (400, 100, 20, 10)
    places = (inside, outside, inside, outside, inside, inside)
    rows = [(f, 1, *place) for f, place in enumerate(places, 1)] + [(f, 2, *inside) for f in (1, 2)]
    side = tracks(*rows)
    gt, pred = detrac.prepare(ignoring(side, [[1, 90, 60, 60]]), side)
    assert (gt.frame.tolist(), gt.id.tolist()) == ([2, 3, 4], [1, 1, 1])
    assert pred.frame.tolist() == [2, 4]
    shuffled = np.random.default_rng(0).permutation(len(side))
    gt, _ = detrac.prepare(ignoring(side[shuffled], [[1, 90, 60, 60]]), side)
    assert sorted(gt.frame.tolist()) == [2, 3, 4]


def test_ground_truth_is_rounded_and_the_prediction_is_not():
    side = mot.Tracks([1], [1], [[592.5, -3.2, 0.2, 162.2]], score=[0.25], class_=[3], visibility=[0.5])
    gt, pred = detrac.prepare(side, side)
    assert gt.box.tolist() == [[593, 1, 1, 162]]
    assert (gt.score.tolist(), gt["class"].tolist(), gt.visibility.tolist()) == ([0.25], [3], [0.5])
    assert pred.box.tolist() == side.box.tolist()


def test_nothing_to_prepare():
    gt, pred = detrac.prepare(ignoring(tracks(), [[1, 1, 5, 5]]), tracks())
    assert len(gt) == len(pred) == 0
    assert detrac.inside_ignored([], [[1, 1, 5, 5]]).shape == (0,)


def test_refusals_of_regions():
    with pytest.raises(ValueError, match=r"ignored must have shape \[N, 4\], got \(1, 3\)"):
        detrac.inside_ignored([[1, 1, 5, 5]], [[1, 1, 5]])
    with pytest.raises(ValueError, match="box must be finite, got nan"):
        detrac.inside_ignored([[1, 1, 5, math.nan]], [])
    with pytest.raises(ValueError, match="size"):
        detrac.inside_ignored([[1, 1, 5, 5]], [], size=(0, 5))


@real_data
def test_regions_of_a_real_sequence():
    root = ET.parse(SHARED / "MVI_20011.xml").getroot()
    parse = lambda node: [float(node.get(side)) for side in ("left", "top", "width", "height")]  # noqa: E731
    regions = [parse(box) for box in root.find("ignored_region")]
    rows = [
        (int(frame.get("num")), int(target.get("id")), *parse(target.find("box")))
        for frame in root.iter("frame")
        for target in frame.iter("target")
    ]
    listed = np.loadtxt(SHARED / "MVI_20011_IgR.txt", delimiter=",")
    assert regions == listed.tolist()
    side = tracks(*rows)
    size = (960, 540)
    grid = [[x, y, 30, 25] for x in range(-10, 960, 97) for y in range(-10, 540, 83)]
    covered = region_pixels(regions, size)
    shares = detrac.inside_ignored(grid, regions)
    assert 0 < (shares >= 0.5).sum() < (shares > 0).sum() < len(grid)
    for (x, y, w, h), share in zip(grid, shares.tolist(), strict=True):
        columns, rows_ = range(max(x, 1) + 1, min(x + w, 960) + 1), range(max(y, 1) + 1, min(y + h, 540) + 1)
        assert share == sum((a, b) in covered for a in columns for b in rows_) / (w * h)
    gt, pred = detrac.prepare(ignoring(side, regions), side)
    assert len(gt) == len(pred) == len(side)
    got = detrac.clear(gt, pred)
    assert_same(got, slow_clear(gt, pred))
    assert got["MOTA"] == 1 and 0.95 < got["MOTP"] < 1  # one side is rounded


# ---- along the PR curve -------------------------------------------------------------------------------------


def slow_precision_recall(gt, detections, threshold, overlap=0.7):
    found, used, tp = by_frame(gt), set(), 0
    order = np.argsort(-detections.score, kind="stable")
    chosen = [n for n in order.tolist() if detections.score[n] >= threshold]
    for n in chosen:
        frame, box = int(detections.frame[n]), detections.box[n].tolist()
        near = [(iou(box, other), -i) for i, other in found.get(frame, {}).items()]
        if near and max(near)[0] >= overlap and (frame, max(near)[1]) not in used:
            used.add((frame, max(near)[1]))
            tp += 1
    return tp / len(chosen) if chosen else 1.0, tp / max(1, len(gt))


@settings(max_examples=200, deadline=None)
@given(scenes(), st.lists(st.integers(0, 4), min_size=32, max_size=32), st.integers(0, 5))
def test_precision_and_recall_are_the_oracles(scene, scores, threshold):
    gt, found = scene
    score = np.array(scores)[: len(found)] / 4
    found = mot.Tracks(found.frame, np.full(len(found), -1), found.box, score=score)
    for overlap in (0.7, 0.4):
        got = detrac.precision_recall(gt, found, threshold / 4, overlap=overlap)
        assert got == slow_precision_recall(gt, found, threshold / 4, overlap)


def test_a_second_detection_of_an_object_is_wrong():
    gt = tracks((1, 1, 0), (1, 2, 500))
    found = tracks((1, -1, 0), (1, -1, 2), (1, -1, 540), score=[0.5, 0.75, 0.25])
    assert detrac.precision_recall(gt, found, 0.0) == (1 / 3, 1 / 2)
    assert detrac.precision_recall(gt, found, 0.5) == (1 / 2, 1 / 2)
    assert detrac.precision_recall(gt, found, 0.51) == (1, 1 / 2)
    assert detrac.precision_recall(gt, found, 0.76) == (1, 0)
    assert detrac.precision_recall(tracks(), found, 0) == (0, 0)


def by_hand():
    """One object for ten frames; a false detection of score 0.4, and right ones of which half have 0.9, half 0.6."""
    gt = tracks(*((f, 1, 0) for f in range(1, 11)))
    rows = [(f, 1, 0) for f in range(1, 11)] + [(f, 2, 500) for f in range(1, 11)]
    score = [0.9] * 5 + [0.6] * 5 + [0.4] * 10
    return gt, tracks(*rows, score=score)


def test_pr_mota_by_hand():
    gt, found = by_hand()
    runs = {at: {"a": found[found.score >= at]} for at in (1.0, 0.0, 0.5, 0.8)}  # in no order
    got = detrac.pr_mota({"a": gt}, runs, {"a": found})
    # threshold   precision  recall  MOTA  MT PT ML  FP  FN
    #   0.0          1/2       1       0    1  0  0  10   0
    #   0.5           1        1       1    1  0  0   0   0
    #   0.8           1       1/2     1/2   0  1  0   0   5
    #   1.0           1        0       0    0  0  1   0  10
    # All three pieces are 1/2 long, and so each adds 1/8 of the figures at its two ends.
    want = {
        "PR-MOTA": (0 + 1 + 1 + 0.5 + 0.5 + 0) / 8, "PR-MOTP": (1 + 1 + 1 + 1 + 1 + 0) / 8,
        "PR-MT": (1 + 1 + 1 + 0) / 8, "PR-PT": (1 + 1) / 8, "PR-ML": 1 / 8,
        "PR-IDS": 0, "PR-FRAG": 0, "PR-FP": 10 / 8, "PR-FN": (5 + 5 + 10) / 8,
    }  # fmt: skip
    assert got == pytest.approx(want, abs=1e-12)
    assert list(got) == list(want)


def test_pr_mota_pools_sequences():
    gt, found = by_hand()
    steps = (0.0, 0.5, 0.8, 1.0)
    runs = {at: {name: found[found.score >= at] for name in ("a", "b")} for at in steps}
    one = detrac.pr_mota({"a": gt}, {at: {"a": runs[at]["a"]} for at in steps}, {"a": found})
    two = detrac.pr_mota({"b": gt, "a": gt}, runs, {"a": found, "b": found})
    ratios = [name for name in one if name not in ("PR-FP", "PR-FN")]
    assert {name: two[name] for name in ratios} == pytest.approx({name: one[name] for name in ratios})
    assert (two["PR-FP"], two["PR-FN"]) == pytest.approx((2 * one["PR-FP"], 2 * one["PR-FN"]))


def test_thresholds_at_which_nothing_changes_add_nothing():
    gt, found = by_hand()
    few, many = [0.0, 0.5, 0.8, 1.0], np.linspace(0, 1, 11).tolist()
    runs = [{t: {"a": found[found.score >= t]} for t in steps} for steps in (few, many)]
    got = [detrac.pr_mota({"a": gt}, run, {"a": found}) for run in runs]
    assert got[0] == pytest.approx(got[1], abs=1e-12)
    assert set(detrac.along_curve([], [], []).values()) == {0.0}


def test_refusals_of_curves():
    gt, found = by_hand()
    with pytest.raises(ValueError, match=r"detections must have the sequences of gt, got \['b'\]"):
        detrac.pr_mota({"a": gt}, {0.0: {"a": found}}, {"b": found})
    with pytest.raises(ValueError, match=r"preds\[0.5\] must have the sequences of gt, got \[\]"):
        detrac.pr_mota({"a": gt}, {0.5: {}}, {"a": found})
    with pytest.raises(ValueError, match="be of one length, got 1, 2 and 0"):
        detrac.along_curve([1.0], [1.0, 0.5], [])
