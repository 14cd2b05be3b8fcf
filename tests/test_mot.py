"""Tracks, and the CLEAR and identity metrics."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cv3gpu import mot
from cv3gpu.mot import metrics
from tests import oracles

SHARED = Path(__file__).resolve().parents[1] / ".." / "shared" / "data" / "mot"
EXPECTED = 1e-9  # figures of TrackEval, to full precision in float64

COLUMNS = ("frame", "id", "box", "score", "class", "visibility")


def tracks(*rows):
    """Tracks of (frame, id, left) or (frame, id, left, top, width, height); boxes are 10 x 10 unless said."""
    full = [(*row, 0, 10, 10) if len(row) == 3 else row for row in rows]
    table = np.array(full, float).reshape(-1, 6)
    return mot.Tracks(frame=table[:, 0], id=table[:, 1], box=table[:, 2:])


def frames(side):
    """Tracks as {frame: {id: box}}, in their order."""
    found: dict = {}
    for frame, identity, box in zip(side.frame.tolist(), side.id.tolist(), side.box.tolist(), strict=True):
        found.setdefault(frame, {})[identity] = box
    return found


def scores(gt, pred):
    return {**mot.clear(gt, pred), **mot.identity(gt, pred)}


def assert_same(got, want):
    assert len(want) > 20
    wrong = {key: (got[key], value) for key, value in want.items() if not abs(got[key] - value) <= EXPECTED}
    assert not wrong


# ---- figures of TrackEval -------------------------------------------------------------------------------


def cases():
    if not SHARED.is_dir():
        return [pytest.param("", "", marks=pytest.mark.skip(reason="needs ../shared/data/mot"))]
    found = []
    for name in ("TUD-MOT15", "SORT-MOT15"):
        expected = json.loads((SHARED / "expected" / f"{name}.json").read_text())["pedestrian"]["trackeval"]
        found += [(name, sequence) for sequence in expected if sequence != "COMBINED_SEQ"]
    return found


@pytest.mark.parametrize(("name", "sequence"), cases())
def test_figures_are_trackevals(name, sequence):
    expected = json.loads((SHARED / "expected" / f"{name}.json").read_text())["pedestrian"]["trackeval"]
    gt = mot.read(SHARED / "MOT15" / sequence / "gt" / "gt.txt")
    gt = gt[gt.score != 0]
    pred = mot.read(SHARED / "results" / name / f"{sequence}.txt")
    got = scores(gt, pred)
    of_length = {"CLR_Frames", "FP_per_frame"}  # the files that are read here don't say it
    assert_same(
        got,
        {
            k: v
            for k, v in {**expected[sequence]["CLEAR"], **expected[sequence]["Identity"]}.items()
            if k not in of_length
        },
    )
    assert_same(got, oracles.clear_and_identity(frames(gt), frames(pred)))


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/data/mot")
@pytest.mark.parametrize("sequence", ["MOT17-02-FRCNN", "MOT17-05-SDP", "MOT17-09-DPM"])
def test_crowded_sequences_are_as_the_oracle(sequence):
    gt = mot.read(SHARED / "MOT17" / sequence / "gt" / "gt.txt")
    assert set(np.unique(gt["class"])) <= set(range(1, 14))
    gt = gt[(gt["class"] == 1) & (gt.score != 0)]
    pred = mot.read(SHARED / "results" / "Lif_T-MOT17" / f"{sequence}.txt")
    assert_same(scores(gt, pred), oracles.clear_and_identity(frames(gt), frames(pred)))


# ---- cases made by hand ---------------------------------------------------------------------------------


def test_perfect():
    side = tracks((1, 4, 0), (1, 9, 50), (2, 4, 1))
    got = scores(side, side)
    assert got["MOTA"] == got["MOTP"] == got["IDF1"] == got["MTR"] == got["sMOTA"] == 1
    assert (got["CLR_TP"], got["IDTP"], got["MT"], got["IDSW"], got["Frag"]) == (3, 3, 2, 0, 0)


def test_switch():
    gt = tracks((1, 1, 0), (2, 1, 0), (3, 1, 0))
    pred = tracks((1, 5, 0), (2, 6, 0), (3, 6, 0))
    got = scores(gt, pred)
    assert (got["IDSW"], got["Frag"], got["IDTP"], got["CLR_TP"]) == (1, 0, 2, 3)
    assert mot.match(gt, pred).switched.tolist() == [False, True, False]


def test_fragmentation_and_switch_across_it():
    gt = tracks(*((f, 1, 0) for f in range(1, 6)), *((f, 2, 500) for f in range(1, 6)))
    pred = tracks((1, 5, 0), (2, 5, 0), (4, 6, 0), (5, 6, 0), *((f, 7, 500) for f in range(1, 6)))
    got = scores(gt, pred)
    assert (got["Frag"], got["IDSW"], got["CLR_FN"]) == (1, 1, 1)


def test_a_frame_empty_on_one_side_breaks_nothing():
    gt = tracks((1, 1, 0), (2, 1, 0), (3, 1, 0))
    without_pred = scores(gt, tracks((1, 5, 0), (3, 5, 0)))
    assert (without_pred["Frag"], without_pred["IDSW"], without_pred["CLR_FN"]) == (0, 0, 1)
    without_gt = scores(gt[gt.frame != 2], tracks((1, 5, 0), (2, 5, 0), (3, 5, 0)))
    assert (without_gt["Frag"], without_gt["CLR_FP"], without_gt["CLR_FN"]) == (0, 1, 0)


def test_the_pair_of_the_previous_frame_comes_first():
    # In frame 2 the prediction 6 overlaps better, and 5 is kept because it was matched in frame 1.
    gt = tracks((1, 1, 0), (2, 1, 0))
    pred = tracks((1, 5, 1), (2, 5, 2), (2, 6, 0))
    assert mot.match(gt, pred).pred.tolist() == [0, 1]
    assert mot.clear(gt, pred)["IDSW"] == 0


def test_only_the_previous_frame_is_remembered():
    gt = tracks((1, 1, 0), (2, 1, 0), (2, 2, 500), (3, 1, 0))
    pred = tracks((1, 5, 1), (2, 7, 500), (3, 5, 2), (3, 6, 0))
    assert mot.clear(gt, pred)["IDSW"] == 1


def test_two_perfect_pairs_beat_three_poor_ones():
    gt = tracks((1, 1, 0), (1, 2, 4), (1, 3, 8))
    pred = tracks((1, 1, 3), (1, 2, 4), (1, 3, 8))
    assert mot.clear(gt, pred)["CLR_TP"] == 3
    gt = tracks((1, 1, 0), (1, 2, 3), (1, 3, 6))
    pred = tracks((1, 1, 3), (1, 2, 6), (1, 3, 9))
    assert mot.clear(gt, pred)["CLR_TP"] == 2


def test_threshold_of_clear_and_of_identity():
    # 10 wide and shifted by s: IoU = (10 - s) / (10 + s), exactly 1/2 at 10/3, to within rounding.
    gt = tracks((1, 1, 0, 0, 3, 10))
    half = tracks((1, 1, 1, 0, 3, 10))
    got = scores(gt, half)
    assert (got["CLR_TP"], got["IDTP"], got["MOTP"]) == (1, 1, 0.5)
    less = scores(gt, tracks((1, 1, 1.001, 0, 3, 10)))
    assert (less["CLR_TP"], less["IDTP"]) == (0, 0)


def test_mostly_tracked_is_more_than_eighty_percent_and_lost_less_than_twenty():
    gt = tracks(*((f, 1, 0) for f in range(1, 11)), *((f, 2, 500) for f in range(1, 11)))
    assert mot.clear(gt, tracks(*((f, 1, 0) for f in range(1, 9))))["MT"] == 0
    assert mot.clear(gt, tracks(*((f, 1, 0) for f in range(1, 10))))["MT"] == 1
    assert mot.clear(gt, tracks((1, 1, 0), (2, 1, 0)))["PT"] == 1
    assert mot.clear(gt, tracks((1, 1, 0)))["ML"] == 2


@pytest.mark.parametrize("width", [0, -3])
def test_boxes_without_area_overlap_nothing(width):
    side = tracks((1, 1, 0, 0, width, 10))
    assert mot.clear(side, side)["CLR_TP"] == 0


def test_empty_sides():
    none, some = tracks(), tracks((1, 1, 0), (2, 1, 0), (2, 2, 90))
    no_pred, no_gt, neither = scores(some, none), scores(none, some), scores(none, none)
    assert (no_pred["CLR_FN"], no_pred["ML"], no_pred["MLR"], no_pred["IDFN"], no_pred["MOTA"]) == (
        3,
        2,
        1,
        3,
        0,
    )
    assert (no_gt["CLR_FP"], no_gt["ML"], no_gt["MLR"], no_gt["IDFP"], no_gt["MOTA"]) == (3, 0, 1, 3, 0)
    assert neither["MLR"] == 1 and sum(neither.values()) == 1
    assert list(no_pred) and set(no_pred) == set(no_gt) == set(neither) == set(scores(some, some))
    assert mot.match(some, none).gt.size == 0


def test_counts_are_int_and_ratios_float():
    side = tracks((1, 1, 0))
    for other in (side, tracks()):
        for key, value in scores(side, other).items():
            counts = "CLR_TP CLR_FN CLR_FP CLR_Frames IDTP IDFN IDFP IDSW MT PT ML Frag"
            whole = key in counts.split()
            assert type(value) is (int if whole else float), key


def test_identities_and_frames_may_be_large():
    side = mot.Tracks([1, 2**31 - 1], [3_000_000_000, 2**53], [[0, 0, 9, 9], [0, 0, 9, 9]])
    assert mot.identity(side, side)["IDTP"] == 2


# ---- properties -----------------------------------------------------------------------------------------


def random_tracks(rng, n_frames, n_ids, spread=25.0):
    """Boxes in a small space, so that many compete; a third is missing, the order is random."""
    rows = [
        (f, i, *rng.integers(0, spread, 2), *rng.integers(8, 14, 2))
        for f in range(1, n_frames + 1)
        for i in range(n_ids)
        if rng.random() < 0.66
    ]
    return tracks(*rng.permutation(rows)) if rows else tracks()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 12), st.integers(0, 7), st.integers(0, 7))
def test_random_tracks_are_as_the_oracle(seed, n_frames, n_gt, n_pred):
    rng = np.random.default_rng(seed)
    gt, pred = random_tracks(rng, n_frames, n_gt), random_tracks(rng, n_frames, n_pred)
    got, want = scores(gt, pred), oracles.clear_and_identity(frames(gt), frames(pred))
    if not len(gt) or not len(pred):
        want["MT"] = want["PT"] = want["MTR"] = want["PTR"] = 0
    assert_same(got, want)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_bounds_and_symmetry(seed):
    rng = np.random.default_rng(seed)
    gt, pred = random_tracks(rng, 8, 5), random_tracks(rng, 8, 5)
    got, back = scores(gt, pred), scores(pred, gt)
    assert got["CLR_TP"] + got["CLR_FN"] == len(gt) and got["CLR_TP"] + got["CLR_FP"] == len(pred)
    assert got["IDF1"] == back["IDF1"] and got["IDR"] == back["IDP"] and got["IDTP"] <= len(gt)
    assert got["MOTA"] <= got["MODA"] <= got["CLR_Re"] <= 1 and got["sMOTA"] <= got["MOTA"]
    assert got["CLR_TP"] == 0 or got["MOTP"] >= 0.5 - metrics.EPS
    assert abs(got["MTR"] + got["PTR"] + got["MLR"] - 1) < EXPECTED


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_names_of_identities_and_place_in_the_image_do_not_matter(seed):
    rng = np.random.default_rng(seed)
    gt, pred = random_tracks(rng, 8, 5), random_tracks(rng, 8, 5)
    if not len(gt) or not len(pred):
        return
    names = rng.permutation(1000)
    moved = [mot.Tracks(t.frame + 7, names[t.id], t.box + np.array([64, -32, 0, 0])) for t in (gt, pred)]
    same = {key: value for key, value in scores(gt, pred).items() if key not in {"CLR_Frames", "FP_per_frame"}}
    assert same == {key: value for key, value in scores(*moved).items() if key in same}


# ---- Tracks ---------------------------------------------------------------------------------------------


def test_columns():
    side = mot.Tracks([3, 1], [1, 2], [[0, 1, 2, 3], [4, 5, 6, 7]], class_=[1, 7])
    assert [side[name].dtype.kind for name in COLUMNS] == list("iiffif")
    assert side["class"] is side.class_ is getattr(side, "class")
    assert side.score.tolist() == [1, 1] and side.visibility.tolist() == [-1, -1]
    assert side[side.frame == 1].box.tolist() == [[4, 5, 6, 7]]
    assert side[::-1].id.tolist() == [2, 1] and side[np.array([1, 0])].id.tolist() == [2, 1]
    assert len(side) == 2 and repr(side) == "Tracks(2 boxes, 2 identities, frames 1 to 3)"
    assert repr(mot.Tracks([], [], [])) == "Tracks(empty)"


def test_rows_of_nothing():
    none = mot.Tracks([], [], [])
    for side in (none, none[:0], none[np.array([], int)], tracks((1, 1, 0))[np.array([False])]):
        assert len(side) == len(side[np.array([], int)]) == 0 and side.box.shape == (0, 4)


def test_tracks_can_not_be_changed():
    given_box = np.array([[0.0, 0, 1, 1]])
    side = mot.Tracks([1], [1], given_box)
    given_box[:] = 5
    assert side.box[0, 0] == 0
    with pytest.raises(FrozenInstanceError):
        side.id = np.array([2])
    with pytest.raises(ValueError, match=r"read-only"):
        side.box[0, 0] = 1


BOX = [[0, 0, 1, 1]]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (dict(frame=[1, 2], id=[1], box=BOX), ValueError, r"Tracks: id must have shape \[2\], got \(1,\)"),
        (
            dict(frame=[1], id=[1], box=[[0, 0, 1]]),
            ValueError,
            r"Tracks: box must have shape \[1, 4\], got \(1, 3\)",
        ),
        (dict(frame=1, id=[1], box=BOX), ValueError, r"Tracks: frame must have shape \[N\], got \(\)"),
        (dict(frame=[1.5], id=[1], box=BOX), ValueError, r"Tracks: frame must be whole numbers, got 1.5"),
        (dict(frame=[-1], id=[1], box=BOX), ValueError, r"Tracks: frame must be from 0 to .*, got -1"),
        (dict(frame=[1], id=[-2], box=BOX), ValueError, r"Tracks: id must be from -1 to .*, got -2"),
        (dict(frame=[1], id=[2.0**60], box=BOX), ValueError, r"Tracks: id must be whole numbers, got"),
        (dict(frame=[1], id=["a"], box=BOX), TypeError, r"Tracks: id must be an array of numbers, got"),
        (
            dict(frame=[1], id=[1j], box=BOX),
            TypeError,
            r"Tracks: id must be an array of numbers, got complex128",
        ),
        (dict(frame=[1], id=[True], box=BOX), TypeError, r"Tracks: id must be an array of numbers, got bool"),
        (dict(frame=[1], id=None, box=BOX), TypeError, r"Tracks: id must be an array of numbers"),
        (
            dict(frame=[1], id=[1], box=[[0, 0, np.nan, 1]]),
            ValueError,
            r"Tracks: box must be finite, got nan",
        ),
        (
            dict(frame=[1], id=[1], box=[[0, 0, 1e10, 1]]),
            ValueError,
            r"Tracks: box must be from -1e\+09 to 1e\+09",
        ),
        (
            dict(frame=[1], id=[1], box=BOX, score=[np.inf]),
            ValueError,
            r"Tracks: score must be finite, got inf",
        ),
        (
            dict(frame=[1], id=[1], box=BOX, visibility=["x"]),
            TypeError,
            r"Tracks: visibility must be an array of",
        ),
        (
            dict(frame=[7, 7], id=[3, 3], box=BOX * 2),
            ValueError,
            r"Tracks: id must be unique within a frame, got id 3 twice in frame 7",
        ),
    ],
)
def test_wrong_columns(arguments, error, message):
    with pytest.raises(error, match=message):
        mot.Tracks(**arguments)


def test_wrong_rows():
    side = tracks((1, 1, 0))
    with pytest.raises(ValueError, match=r"Tracks: column must be one of 'frame'.*got 'boxes'"):
        side["boxes"]
    with pytest.raises(TypeError, match=r"Tracks: rows must be a mask, an array of indices or a slice, got 0"):
        side[0]


@pytest.mark.parametrize("op", ["clear", "identity", "match"])
def test_wrong_arguments_of_the_metrics(op):
    call, side = getattr(mot, op), tracks((1, 1, 0))
    with pytest.raises(TypeError, match=rf"mot.{op}: gt must be Tracks, got str; read a file with mot.read"):
        call("gt.txt", side)
    with pytest.raises(TypeError, match=rf"mot.{op}: pred must be Tracks, got None"):
        call(side, None)
    with pytest.raises(ValueError, match=rf"mot.{op}: pred must have an identity .* got id -1 in frame 4"):
        call(side, tracks((3, 1, 0), (4, -1, 0)))
