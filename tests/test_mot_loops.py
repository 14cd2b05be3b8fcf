"""HOTA, VACE, and the loops that they and CLEAR rest on, against dense oracles, SciPy and NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from cv3gpu import mot
from cv3gpu.mot import _loops, _scene, metrics
from tests import oracles
from tests.test_mot import frames, random_tracks, tracks

CLOSE = {"rtol": 1e-12, "atol": 1e-12}


def assert_hota(gt, pred):
    got, want = mot.hota(gt, pred), oracles.hota(frames(gt), frames(pred))
    np.testing.assert_array_equal(got["HOTA_TP_alpha"], want.pop("HOTA_TP"))
    for key, curve in want.items():
        np.testing.assert_allclose(got[f"{key}_alpha"], curve, **CLOSE, err_msg=key)
        np.testing.assert_allclose(got[key], curve.mean(), **CLOSE)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 8), st.integers(1, 7), st.integers(1, 9))
def test_hota_and_vace_are_as_the_oracles(seed, n_frames, n_gt, n_pred):
    rng = np.random.default_rng(seed)
    gt, pred = random_tracks(rng, n_frames, n_gt), random_tracks(rng, n_frames, n_pred)
    if len(gt) and len(pred):
        assert_hota(gt, pred)
        got, want = mot.vace(gt, pred), oracles.vace(frames(gt), frames(pred))
        np.testing.assert_allclose([got[key] for key in want], list(want.values()), **CLOSE)


def test_hota_of_frames_wider_than_a_block_of_sums():
    rng = np.random.default_rng(0)
    assert_hota(random_tracks(rng, 3, 60, 90.0), random_tracks(rng, 3, 400, 100.0))
    assert_hota(random_tracks(rng, 3, 300, 90.0), random_tracks(rng, 3, 80, 100.0))


@pytest.mark.parametrize("n", [3, 8, 9, 40, 130, 300])
def test_hota_of_frames_with_a_single_prediction(n):
    """NumPy sums a matrix of one column as a row, and ties hang on the last bit of the sum."""
    rng = np.random.default_rng(n)
    for _ in range(20):
        heights = rng.integers(7, 10, (3, n))
        gt = tracks(*((f, i, 0, 0, 20, heights[f - 1, i]) for f in (1, 2, 3) for i in range(n)))
        assert_hota(gt, tracks(*((f, 1, 0, 0, 20, 20) for f in (1, 2, 3))))


def test_perfect_and_empty():
    side, none = tracks((1, 4, 0), (1, 9, 50), (2, 4, 1)), tracks()
    best = mot.hota(side, side)
    assert best["HOTA"] == best["LocA"] == best["AssPr"] == best["HOTALocA(0)"] == 1
    assert mot.vace(side, side)["ATA"] == mot.vace(side, side)["SFDA"] == 1
    for gt, pred in ((side, none), (none, side), (none, none)):
        got = mot.hota(gt, pred)
        assert got["LocA"] == 1 and got["HOTA"] == got["DetA"] == got["AssA"] == 0
        assert got["HOTA_FN_alpha"].tolist() == [len(gt)] * 19 and got["HOTA_FP_alpha"].tolist() == [len(pred)] * 19
        assert mot.vace(gt, pred)["ATA"] == mot.vace(gt, pred)["SFDA"] == 0
    assert mot.count(side, none) == {"Dets": 0, "GT_Dets": 3, "IDs": 0, "GT_IDs": 2, "Frames": 2}


def test_combined_figures_are_those_of_one_long_sequence():
    rng = np.random.default_rng(1)
    parts = [(random_tracks(rng, 6, 5), random_tracks(rng, 6, 6)) for _ in range(3)]
    names = list(metrics.METRICS)
    combined = metrics.combine([metrics.figures("test", *part, names) for part in parts], names)

    def joined(k):
        sides = [part[k] for part in parts]
        frame = np.concatenate([side.frame + 100 * n for n, side in enumerate(sides)])
        identity = np.concatenate([side.id + 100 * n for n, side in enumerate(sides)])
        return mot.Tracks(frame, identity, np.concatenate([side.box for side in sides]))

    whole = metrics.figures("test", joined(0), joined(1), names)
    differs = {"CLR_Frames", "FP_per_frame", "Frames"}  # the joined frames have gaps
    for key in set(whole) - differs:
        np.testing.assert_allclose(combined[key], whole[key], rtol=1e-9, err_msg=key)


# ---- matching -------------------------------------------------------------------------------------------


def sparse(score):
    start = np.concatenate([[0], np.cumsum((score > 0).sum(1))])
    return start, np.nonzero(score > 0)[1].astype(np.int32), score[score > 0]


def matched(score):
    """Of one frame, the columns of its rows (−1 for none)."""
    start, pred, weight = sparse(score)
    mate = np.empty(score.shape[0], np.int64)
    workspace = _scene.Workspace.of(max(score.shape), weight.size)
    ends = (np.array([0, n]) for n in score.shape)
    _loops.program("match")(*ends, start, pred, weight, np.ones(1, np.int64), *workspace, mate)
    return mate


def by_scipy(score):
    rows, cols = linear_sum_assignment(-score)
    mate = np.full(score.shape[0], -1)
    hit = score[rows, cols] > 0
    mate[rows[hit]] = cols[hit]
    return mate


@pytest.mark.parametrize("levels", [1, 2, 3, 5, 1000])
@pytest.mark.parametrize("bonus", [0, 1000])
def test_ties_fall_as_in_scipy(levels, bonus):
    rng = np.random.default_rng(levels + bonus)
    for _ in range(150):
        score = rng.integers(0, levels + 1, rng.integers(1, 14, 2)) / levels * (rng.random() < 0.9)
        score = score * (rng.random(score.shape) < rng.uniform(0.1, 1)) + 0.0
        score += bonus * (rng.random(score.shape) < 0.2) * (score > 0)
        np.testing.assert_array_equal(matched(score), by_scipy(score))


def test_sums_are_rounded_as_numpys():
    rng = np.random.default_rng(2)
    for n in (*range(1, 40), 127, 128, 129, 137, 255, 256, 257, 300, 513, 1000, 2049):
        for density in (1.0, 0.2):
            row = rng.random(n) * (rng.random(n) < density)
            at = np.flatnonzero(row).astype(np.int32)
            got = _loops._row_sum(0, at.size, n, 7, at + 7, row[at], np.empty(_loops.PARTS))
            assert got == np.stack([row, row]).sum(1)[0], (n, density)


@pytest.mark.parametrize("shape", [(1, 1), (7, 5), (5, 9)])
def test_the_loops_run_without_numba(monkeypatch, shape):
    rng = np.random.default_rng(3)
    gt, pred = (random_tracks(rng, 4, n) for n in shape)
    want = metrics.figures("test", gt, pred, list(metrics.METRICS))
    monkeypatch.setattr(_loops, "program", lambda name: _loops._PROGRAMS[name][-1])
    got = metrics.figures("test", gt, pred, list(metrics.METRICS))
    for key, value in want.items():
        np.testing.assert_array_equal(got[key], value, err_msg=key)


def test_many_pairs_make_the_room_for_them_grow():
    n = 60
    side = mot.Tracks(np.ones(n), np.arange(n), np.tile([[0.0, 0, 9, 9]], (n, 1)))
    found = _scene.scene(side, side)
    assert found.pairs.iou.size == n * n > 8 * n + 1024 and (found.pairs.iou == 1).all()


@pytest.mark.parametrize("order", [1, -1])
def test_rows_of_pairs_are_ascending(order):
    n = 300
    box = np.column_stack([np.arange(n)[::order], np.zeros(n), np.full(n, 400.0), np.full(n, 9.0)])
    side = mot.Tracks(np.ones(n), np.arange(n), box)
    found = _scene.scene(side, side).pairs
    assert found.pred.tolist() == list(range(n)) * n and (found.iou.reshape(n, n) == found.iou.reshape(n, n).T).all()


def test_frames_and_identities_far_apart_cost_no_memory():
    side = mot.Tracks([1, 2**31 - 1], [0, 2**53], [[0, 0, 9, 9]] * 2)
    assert mot.hota(side, side)["HOTA"] == 1


def test_an_identity_may_stand_twice_in_a_frame_only_as_two_classes():
    both = mot.Tracks([1, 1], [7, 7], [[0, 0, 9, 9], [50, 0, 9, 60]], class_=[1, 4])
    with pytest.raises(ValueError, match=r"mot.hota: gt must have no identity twice in a frame, got id 7 of several"):
        mot.hota(both, both)
    report = mot.evaluate(both, both, benchmark="KITTI")
    assert [scores["CLR_TP"] for scores in report.sequences["sequence"].values()] == [1, 1]
