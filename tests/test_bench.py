"""The bench runner on tiny CPU entries: compare before timing, keep what was found, make the table. No timing decides."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import cv3gpu
from bench import (
    bench_assignment,
    bench_boxes,
    bench_conv,
    bench_crf,
    bench_graphcut,
    bench_graphcut_moves,
    bench_mot,
    bench_resize,
    bench_superpixel,
    coverage,
    mot_data,
    mot_peers,
    peers,
    table,
    timing,
)
from bench.entry import NOT_INSTALLED, Entry, Errors, Results, Work, dense_errors, file_name, run
from cv3gpu import mot

VALUES = np.linspace(1.0, 2.0, 64)


def entry(ours: Callable[[], Any], peer: Any = NOT_INSTALLED, **fields: Any) -> Entry:
    work = Work(ours=ours, errors=functools.partial(dense_errors, 2 * VALUES), peers={"peer": peer})
    whole = {
        "name": "double 64 float64 cpu",
        "family": "double",
        "shape": "64",
        "device": "cpu",
        "dtype": "float64",
        "bytes": 1024,
        "flops": 64,
        "setup": lambda: work,
        "priority": 0,
    }
    return Entry(**whole | fields)


class Counted:
    """A call that counts how often it was made."""

    def __init__(self, result: np.ndarray) -> None:
        self.result = result
        self.calls = 0

    def __call__(self) -> np.ndarray:
        self.calls += 1
        return self.result


def test_right_results_are_timed_in_turns() -> None:
    ours, peer = Counted(2 * VALUES), Counted(VALUES + VALUES)
    outcome = run(entry(ours, peer), seconds=0.01)
    assert outcome["status"] == "ok"
    assert set(outcome["times"]) == {"ours", "peer"}
    assert set(outcome["times"]["ours"]) >= {"median", "p20", "p80", "rounds"}
    assert outcome["errors"] == {"ours": [0.0, 0.0], "peer": [0.0, 0.0]}
    assert ours.calls > 3 and peer.calls > 3


def test_wrong_result_is_not_timed() -> None:
    ours, peer = Counted(2 * VALUES + 1e-6), Counted(2 * VALUES)
    outcome = run(entry(ours, peer), seconds=0.01)
    assert (outcome["status"], outcome["times"]) == ("wrong", {})
    assert (ours.calls, peer.calls) == (1, 0)
    assert outcome["absent"]["ours"].startswith("wrong by")


def test_wrong_peer_is_not_timed() -> None:
    peer = Counted(3 * VALUES)
    outcome = run(entry(Counted(2 * VALUES), peer), seconds=0.01)
    assert (outcome["status"], set(outcome["times"]), peer.calls) == ("ok", {"ours"}, 1)
    assert "wrong" in outcome["absent"]["peer"]


@pytest.mark.parametrize("bad", [VALUES[:3], np.full(64, np.nan)])
def test_shape_and_nan_are_wrong(bad: np.ndarray) -> None:
    assert run(entry(Counted(bad)), seconds=0.01)["status"] == "wrong"


def test_failures_are_kept_as_failures() -> None:
    def broken() -> Any:
        raise MemoryError("too large")

    assert run(entry(broken), seconds=0.01)["absent"]["ours"] == "MemoryError: too large"
    outcome = run(entry(Counted(2 * VALUES), broken), seconds=0.01)
    assert (outcome["status"], outcome["absent"]) == ("ok", {"peer": "MemoryError: too large"})
    assert run(entry(Counted(VALUES), setup=broken))["status"] == "failed"


def test_missing_peer_is_named() -> None:
    assert run(entry(Counted(2 * VALUES)), seconds=0.01)["absent"] == {"peer": NOT_INSTALLED}
    assert peers.need("a_module_that_nobody_has", lambda m: m) == NOT_INSTALLED


def test_slow_peers_run_once_and_give_their_time() -> None:
    calls = {"slow": 0, "off": 0}

    def once(name: str, result: np.ndarray) -> tuple[np.ndarray, float]:
        calls[name] += 1
        return result, 77.0

    work = Work(
        ours=lambda: 2 * VALUES,
        errors=functools.partial(dense_errors, 2 * VALUES),
        once={"slow": lambda: once("slow", 2 * VALUES), "off": lambda: once("off", VALUES)},
        facts={"peak memory, MB": 5},
    )
    outcome = run(entry(Counted(VALUES), setup=lambda: work), seconds=0.01)
    assert calls == {"slow": 1, "off": 1}
    assert outcome["times"]["slow"]["median"] == 77.0 and outcome["times"]["slow"]["rounds"] == 1
    assert "off" not in outcome["times"] and outcome["absent"]["off"].startswith("wrong by")
    assert outcome["facts"] == {"peak memory, MB": 5}


def test_a_command_runs_in_a_process_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CV3GPU_BENCH_DATA", str(tmp_path))
    cores = "import os; print(len(os.sched_getaffinity(0)))"
    assert peers.command("-c", cores, one_core=True)() == 1
    assert peers.on_one_core(lambda: len(os.sched_getaffinity(0)))() == 1  # type: ignore[operator]
    assert peers.command("-c", cores)() == len(os.sched_getaffinity(0))
    with pytest.raises(RuntimeError, match="exit status 1: ValueError: no"):
        peers.command("-c", "raise ValueError('no')")()


class FakeBenchmark:
    """What of pytest-benchmark's fixture is used; the fixture itself is skipped in tests."""

    def pedantic(self, target: Callable[[], None], setup: Callable[[], None], rounds: int, iterations: int) -> None:
        assert iterations == 1
        for _ in range(rounds):
            setup()
            target()
        self.stats = SimpleNamespace(stats=SimpleNamespace(data=[1.0] * rounds))


def test_pytest_benchmark_times_ours_and_peers_take_turns() -> None:
    benchmark = FakeBenchmark()
    order: list[str] = []
    calls = {"ours": lambda: order.append("ours"), "peer": lambda: order.append("peer")}
    samples = timing.cpu_times(calls, 0.005, benchmark)
    assert len(samples["ours"]) == len(samples["peer"]) >= 3
    turns = [name for i, name in enumerate(order) if i == 0 or order[i - 1] != name]
    assert turns[-4:] in (["peer", "ours"] * 2, ["ours", "peer"] * 2)


def test_summary_is_median_and_percentiles() -> None:
    assert timing.summary([1.0, 2.0, 3.0, 4.0, 100.0]) == pytest.approx(
        {"median": 3.0, "p20": 1.8, "p80": 23.2, "rounds": 5}
    )


def test_errors_are_relative() -> None:
    found = dense_errors(np.array([3.0, 4.0]), np.array([3.0, 4.5]))
    assert found == pytest.approx(Errors(0.1, 0.125))


def test_matching_errors_see_repeated_columns_and_misstated_totals() -> None:
    cost = np.array([[[1.0, 2.0], [3.0, 5.0]]])
    rows, right = np.array([[0, 1]]), np.array([[1, 0]])
    best = np.array([5.0])
    errors = bench_assignment.matching_errors
    assert errors(cost, best, (rows, right, best)) == Errors(0.0, 0.0)
    assert errors(cost, best, (rows, rows, None)).largest == pytest.approx(0.2)
    assert errors(cost, best, (rows, right, np.array([6.0]))).largest == pytest.approx(0.2)
    assert errors(cost, best, (rows, np.zeros_like(rows), best)).largest == float("inf")


# ---- the entries ----------------------------------------------------------------------------------------


def test_names_are_unique_and_every_entry_counts_its_bytes() -> None:
    entries = [e for module in table.benches() for e in module.ENTRIES]
    assert len({e.name for e in entries}) == len(entries)
    assert all(e.bytes > 0 and e.device in {"cpu", "cuda"} for e in entries)
    assert {e.device for e in entries if e.priority == 0} == {"cpu", "cuda"}


def test_roofline_of_a_known_shape() -> None:
    (d1,) = [e for e in bench_conv.ENTRIES if e.name == "conv2d forward D1 batch 8 bfloat16 channels_last cuda"]
    assert d1.flops == pytest.approx(39.9e9, rel=1e-2)
    assert d1.bytes == pytest.approx(35.8e6, rel=1e-2)


@pytest.mark.parametrize("operation", bench_conv.OPERATIONS)
@pytest.mark.parametrize("groups", [1, 4])
def test_conv_entry_runs(operation: str, groups: int) -> None:
    shape = bench_conv.Shape("tiny", 4, 4, 7, 3, 2, groups)
    outcome = run(bench_conv._entry("tiny", shape, 2, "float32", "NCHW", operation, "cpu"), seconds=0.01)
    assert outcome["status"] == "ok", outcome
    assert {"torch NCHW", "torch channels_last", "ours on NumPy arrays"} <= set(outcome["times"])


def test_epilogue_entry_runs() -> None:
    shape = bench_conv.Shape("tiny", 4, 4, 7, 3, 2, 2)
    outcome = run(bench_conv._epilogue_entry("tiny", shape, 2, "float32", "channels_last", "cpu"), seconds=0.01)
    assert outcome["status"] == "ok", outcome
    assert len(outcome["times"]) == 5  # ours, and two ways of torch in two memory formats


@pytest.mark.parametrize("operation", ["forward", "adjoint"])
def test_resize_entry_runs(operation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(bench_resize.SHAPES, "tiny", bench_resize.Shape("tiny", 3, 5, 11))
    outcome = run(bench_resize._entry("tiny", 2, "float32", "NCHW", operation, "cpu"), seconds=0.01)
    assert outcome["status"] == "ok", outcome
    if operation == "forward":
        assert {"scipy.ndimage.zoom", "skimage resize"} <= {*outcome["times"], *outcome["absent"]}
        assert not any("wrong" in why for why in outcome["absent"].values()), outcome["absent"]


def test_box_entry_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(bench_boxes.SHAPES, "tiny", (2, 5, 3))
    outcome = run(bench_boxes._entry("tiny", "cpu"), seconds=0.01)
    assert outcome["status"] == "ok", outcome
    assert "NumPy, frame by frame" in outcome["times"]


def test_assignment_entry_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(bench_assignment.SHAPES, "tiny", bench_assignment.Shape(3, 4, 6))
    outcome = run(bench_assignment._entry("tiny", "cpu"), seconds=0.01)
    assert outcome["status"] == "ok", outcome
    assert {"SciPy loop, 1 core", "ours on all cores"} <= set(outcome["times"])
    assert not any("wrong" in why for why in outcome["absent"].values()), outcome["absent"]


def test_gated_batches_have_a_full_matching_and_shut_ones_do_not() -> None:
    gated = bench_assignment.costs(bench_assignment.Shape(50, 9, 20, gated=0.8))
    assert 0.6 < np.isinf(gated).mean() < 0.8
    assert (bench_assignment.best_totals(gated)[1] == 9).all()
    shut = bench_assignment.costs(bench_assignment.Shape(50, 9, 20, gated=0.8, shut=5))
    best, pairs = bench_assignment.best_totals(shut)
    assert (pairs[:5] == 8).all() and (pairs[5:] == 9).all()
    found = cv3gpu.linear_sum_assignment(shut)
    assert bench_assignment.matching_errors(shut, best, found, pairs).largest < 1e-12
    assert bench_assignment.matching_errors(shut, best, found).largest == float("inf")


# ---- graph cuts and superpixels -------------------------------------------------------------------------


SMALL = {
    "graph_cut": lambda: bench_graphcut._entry("tiny", "cpu"),
    "expansion": lambda: bench_graphcut_moves._entry(bench_graphcut_moves.Scene("coffee", 20, 24, 3), False, "cpu"),
    "swap": lambda: bench_graphcut_moves._entry(bench_graphcut_moves.Scene("", 16, 24, 4), True, "cpu"),
    "slic": lambda: bench_superpixel._entry("tiny", "cpu"),
}


@pytest.mark.parametrize("name", SMALL)
def test_entry_of_labels_runs(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    pytest.importorskip("skimage.data")
    monkeypatch.setitem(bench_graphcut.SCENES, "tiny", bench_graphcut.Scene((40, 48), 8, 5.0, True))
    monkeypatch.setitem(bench_superpixel.SCENES, "tiny", bench_superpixel.Scene("coffee", 40, 50, 20))
    outcome = run(SMALL[name](), seconds=0.01)
    assert outcome["status"] == "ok", outcome
    assert not any("wrong" in why or "Error" in why for why in outcome["absent"].values()), outcome["absent"]


# ---- dense CRF ------------------------------------------------------------------------------------------


@pytest.fixture
def tiny_scenes(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("skimage.data")
    monkeypatch.setitem(bench_crf.SCENES, "tiny", bench_crf.Scene("coffee", 45, 50, 3))
    monkeypatch.setitem(bench_crf.SCENES, "batch of tiny", bench_crf.Scene("coffee", 24, 40, 3, batch=2))
    monkeypatch.setitem(bench_crf.KEPT, ("tiny", "80/13"), 1.0)
    monkeypatch.setattr(bench_crf, "SAMPLES", 50)
    monkeypatch.setattr(bench_crf, "ITERATIONS", 2)
    monkeypatch.setattr(bench_crf, "POINTS", 400)


CRF = {
    "lattice": lambda: bench_crf._lattice_entry("tiny", "67/3", 5, "cpu"),
    "batch": lambda: bench_crf._lattice_entry("batch of tiny", "80/13", 2, "cpu"),
    "fine": lambda: bench_crf._pairs_entry("tiny", "80/13", "lattice_fine", "cpu"),
    "exact": lambda: bench_crf._pairs_entry("tiny", "80/13", "exact", "cpu"),
    "gradient": lambda: bench_crf._gradient_entry("tiny", "80/13", "cpu"),
    "filter": lambda: bench_crf._filter_entry(5, "cpu"),
    "filter of 8 features": lambda: bench_crf._filter_entry(8, "cpu"),
}


@pytest.mark.parametrize("name", CRF)
def test_crf_entry_runs(tiny_scenes: None, name: str) -> None:
    bench_crf.points.cache_clear()
    outcome = run(CRF[name](), seconds=0.01)
    bench_crf.points.cache_clear()
    assert outcome["status"] == "ok", outcome
    assert not any("wrong" in why or "Error" in why for why in outcome["absent"].values()), outcome["absent"]
    others = "ours an iteration of it" if name in ("fine", "exact") else "ours on all cores"
    assert others in outcome["times"] and outcome["bytes"] > 0 < outcome["flops"]


def test_unaries_are_seeded_and_honest(tiny_scenes: None) -> None:
    image = bench_crf.data("tiny")[1]
    unary = bench_crf.noisy_unaries(image, 3, 0)
    assert np.array_equal(unary, bench_crf.noisy_unaries(image, 3, 0))
    assert not np.array_equal(unary, bench_crf.noisy_unaries(image, 3, 1))
    p = np.exp(-unary.astype(np.float64))
    np.testing.assert_allclose(p.sum(0), 1, rtol=1e-5)
    assert 0.4 < p.max(0).mean() < 0.9


def test_marginals_are_compared_by_the_contract() -> None:
    reference = np.array([0.7, 0.5004, 0.3, 0.4996]).reshape(2, 1, 2)
    got = reference.astype(np.float32)
    errors = bench_crf.marginal_errors
    assert errors(reference, got).largest < 1e-7
    assert errors(reference, got[:, :, ::-1]) == bench_crf.WRONG
    assert errors(reference, got + np.float32(2e-4)) == bench_crf.WRONG
    assert errors(reference, got + np.float32([[[9e-5, 0.0]]])).largest < 2e-4
    assert errors(reference, got * np.float32("nan")) == bench_crf.WRONG
    fine = functools.partial(bench_crf.sampled_errors, reference[:, 0], np.array([0, 1]), True)
    assert fine(got) == Errors(0.0, 0.0) and fine(got[::-1]) == bench_crf.WRONG


def test_all_pairs_by_blocks() -> None:
    torch = pytest.importorskip("torch")
    features, values = torch.rand((300, 5), dtype=torch.float64), torch.rand((300, 2), dtype=torch.float64)
    rows = torch.tensor([3, 299])
    k = torch.exp(-0.5 * ((features[:, None] - features[None]) ** 2).sum(2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(bench_crf.BLOCK, "cpu", (128, 70))
        assert torch.allclose(bench_crf.over_pairs(features, values), k @ values, rtol=1e-12)
        assert torch.allclose(bench_crf.over_pairs(features, values, rows), k[rows] @ values, rtol=1e-12)


# ---- tracking -------------------------------------------------------------------------------------------


def test_walks_are_seeded_and_dense() -> None:
    gt, pred = mot_data.walks(2, 200, 30, 5)
    again, _ = mot_data.walks(2, 200, 30, 5)
    assert all(np.array_equal(a, b) for a, b in zip(gt, again, strict=True))
    assert len(gt.frame) == 2 * 200 * 35 and 0.6 < len(pred.frame) / (2 * 200 * 30) < 0.9
    for side in (gt, pred):
        keys = np.stack([side.sequence, side.frame, side.id])
        assert np.unique(keys, axis=1).shape == keys.shape
    (scores,) = mot.evaluate_boxes(*mot_data.walks(1, 200, 30, 5), benchmark="MOT17")
    assert 0.6 < scores["MOTA"] < 0.9 and scores["IDSW"] > 0


def test_linker_follows_boxes_and_forgets_them() -> None:
    frame = np.array([1, 1, 2, 2, 3, 3 + mot_data.PATIENCE + 2])
    left = np.array([0.0, 500, 501, 2, 4, 4])
    box = np.column_stack([left, np.zeros(6), np.full(6, 50), np.full(6, 100)])
    tracks = mot_data.linked(mot.Tracks(frame, [-1] * 6, box, score=[0.9] * 6), 0.5)
    by_row = dict(
        zip(zip(tracks.frame.tolist(), tracks.box[:, 0].tolist(), strict=True), tracks.id.tolist(), strict=True)
    )
    assert by_row[1, 0.0] == by_row[2, 2.0] == by_row[3, 4.0] != by_row[frame[-1], 4.0]
    assert by_row[1, 500.0] == by_row[2, 501.0] != by_row[1, 0.0]


def test_tiles_stand_apart_and_score_alike() -> None:
    gt, pred = mot_data.walk_tracks(80, 6)
    tile = mot_data.Tile("", mot_data.Tracked(""), copies=3, repeats=2)
    narrow = [mot.Tracks(t.frame, t.id, t.box * [0.2, 1, 0.2, 1], t.score, np.ones(len(t))) for t in (gt, pred)]
    # A fifth of the walkers' width, so that a copy does not reach into the next.
    one, many = (mot.clear(*sides) for sides in (narrow, [mot_data.tiled(t, 80, tile) for t in narrow]))
    assert many["CLR_TP"] == 6 * one["CLR_TP"] and many["CLR_FP"] == 6 * one["CLR_FP"]


def test_figures_are_compared_by_sequence() -> None:
    reference = {"a": {"MOTA": 0.5, "IDSW": 0.0}, "COMBINED": {"MOTA": 0.5, "IDSW": 4.0}}
    errors = bench_mot.figure_errors
    assert errors(reference, reference) == Errors(0.0, 0.0)
    assert errors(reference, {"COMBINED": reference["COMBINED"]}) == Errors(0.0, 0.0)
    assert errors(reference, {**reference, "COMBINED": {"IDSW": 5.0}}).largest == pytest.approx(0.25)
    assert errors(reference, {"a": reference["a"]}) == bench_mot.WRONG
    assert errors(reference, {**reference, "a": {"MOTA": float("nan")}}) == bench_mot.WRONG


def test_array_entry_runs_and_sees_a_wrong_integer() -> None:
    outcome = run(bench_mot._array_entry("small", "cpu", 1), seconds=0.01)
    assert outcome["status"] == "ok", outcome
    scores = [{"IDSW": 3, "MOTA": 0.5}]
    assert bench_mot.array_errors(scores, scores) == Errors(0.0, 0.0)
    assert bench_mot.array_errors(scores, [{"IDSW": 4, "MOTA": 0.5}]) == bench_mot.WRONG


def test_long_entry_states_its_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CV3GPU_BENCH_DATA", str(tmp_path))
    outcome = run(bench_mot._long_entry(50), seconds=0.01)
    assert outcome["status"] == "ok", outcome
    assert outcome["facts"]["peak memory, MB"] > 10


@pytest.mark.skipif(not mot_data.SOURCE.is_dir(), reason="needs ../shared/data/mot")
def test_tools_agree_on_written_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small tiled set: ours from the shell against TrackEval, and motrics by its looser limits."""
    pytest.importorskip("trackeval")
    monkeypatch.setenv("CV3GPU_BENCH_DATA", str(tmp_path))
    monkeypatch.setattr(mot_data, "TILES", (mot_data.Tile("MOT20/MOT20-01", mot_data.Tracked(mot_data._MPN), 1, 1),))
    given = mot_data.crowd(1)
    assert given.lengths == {"CROWD-01": 429} and mot_data.crowd(1) == given
    monkeypatch.setitem(bench_mot.SETS, "tiny", lambda: given)
    outcome = run(bench_mot._entry("tiny", "", 1, lambda: bench_mot._process("tiny", True)), seconds=0.01)
    assert outcome["status"] == "ok" and "TrackEval" in outcome["times"], outcome
    assert outcome["facts"]["peak memory, MB"] > 10
    answer = mot_peers.trackeval(str(given.gt), str(given.trackers), "MOT17")
    assert {"load", "IoU", "preprocessing", "HOTA", "CLEAR", "Identity"} <= set(answer["stages"])


def test_data_sets_skip_without_their_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mot_data, "SOURCE", tmp_path / "none")
    with pytest.raises(pytest.skip.Exception, match=r"needs ../shared/data/mot"):
        mot_data.mot17()


# ---- what is kept, and the table ------------------------------------------------------------------------


def test_results_are_merged_by_entry_and_saved_at_once(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    results = Results(path)
    results.describe({"device": "X", "kind": "cpu"})
    results.put("b", {"status": "ok"}, "run 1")
    results.put("a", {"status": "wrong"}, "run 1")
    again = Results(path)
    assert again.has("a", "run 1") and not again.has("a", "run 2") and not again.has("a", "")
    again.put("a", {"status": "ok"}, "run 2")
    kept = json.loads(path.read_text())
    assert [*kept["entries"]] == ["a", "b"]
    assert kept["entries"]["a"] == {"status": "ok", "run": "run 2"}
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]
    assert Results(tmp_path / "new.json", older=path).data["device"] == "X"


def test_file_name() -> None:
    assert file_name("NVIDIA H100 80GB HBM3") == "nvidia-h100-80gb-hbm3.json"


def outcome(median: float, **fields: Any) -> dict[str, Any]:
    return {
        "family": "f",
        "shape": "8x8",
        "device": "cuda",
        "dtype": "float32",
        "bytes": 3_000_000,
        "flops": 0,
        "priority": 0,
        "status": "ok",
        "errors": {},
        "absent": {"lapx": NOT_INSTALLED},
        "times": {
            "ours": {"median": median},
            "torch": {"median": 2 * median},
            "slow": {"median": 9 * median},
        },
    } | fields


DATA = {
    "device": "Test GPU",
    "kind": "cuda",
    "date": "2024-05-06T07:08:09Z",
    "commit": "abc",
    "versions": {"torch": "2.0"},
    "ceilings": {"copy": 3e12, "fp32": 5e13},
    "entries": {
        "op one": outcome(2e-6),
        "op two": outcome(1.0, status="wrong", absent={"ours": "wrong by 1"}),
    },
}
NAMES = {"cuda": ["op one", "op two", "op three"], "cpu": ["op four"]}


def test_table_says_what_was_measured_and_what_was_not() -> None:
    text = table.make([DATA], NAMES)
    one, two, three = (next(line for line in text.splitlines() if f"op {n}" in line) for n in ("one", "two", "three"))
    assert "2 µs | 1.5e+03 GB/s, 50% of copy | torch 4 µs (2.00x) | slow 18 µs (9.00x); lapx: not installed" in one
    assert "wrong: not timed" in two and "wrong by 1" in two
    assert table.NOT_MEASURED in three
    assert f"CPU: {table.NOT_MEASURED}" in text and "op four" not in text
    assert "Test GPU" in text and "2024-05-06" in text


def test_readme_table_is_idempotent_and_checked(tmp_path: Path) -> None:
    results, readme = tmp_path / "results", tmp_path / "README.md"
    results.mkdir()
    (results / "gpu.json").write_text(json.dumps(DATA))
    (results / "other.json").write_text("{}")
    readme.write_text(f"# Title\n\n{table.BEGIN}\nold\n{table.END}\n\nThe end.\n")
    arguments = ["--results", str(results), "--readme", str(readme)]
    assert table.main([*arguments, "--check"]) == 1
    assert "old" in readme.read_text()
    assert table.main(arguments) == 0
    first = readme.read_text()
    assert first.startswith("# Title\n\n") and first.endswith("\n\nThe end.\n") and "Test GPU" in first
    assert table.main(arguments) == 0 and readme.read_text() == first
    assert table.main([*arguments, "--check"]) == 0


@pytest.mark.parametrize("text", ["nothing", f"{table.END} {table.BEGIN}", table.BEGIN])
def test_readme_without_markers_is_refused(tmp_path: Path, text: str) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(text)
    assert table.main(["--results", str(tmp_path), "--readme", str(readme)]) == 2
    assert readme.read_text() == text


@pytest.mark.parametrize(("seconds", "said"), [(1.5, "1.5 s"), (2e-3, "2 ms"), (3.14159e-6, "3.14 µs"), (5e-9, "5 ns")])
def test_durations(seconds: float, said: str) -> None:
    assert table.duration(seconds) == said


def test_every_headline_begins_an_entry() -> None:
    names = [name for of_kind in table.headline_names().values() for name in of_kind]
    assert [start for start in table.HEADLINES if not any(name.startswith(start) for name in names)] == []


def test_coverage_leaves_out_what_numba_compiles() -> None:
    """Functions in tuples, in calls, and under njit; lines that ran and did not are counted apart from those."""
    source = """\
from numba import njit
def plain(x):
    return x
def helper(x):
    return x + 1
def entry(x):
    return helper(x)
LOOP = (helper, entry)
@njit
def fast(x):
    return x
def apart(x):
    return x
RUN = plain(3)
run = compiled(apart)
"""
    assert coverage.compiled_lines(source) == {5, 7, 11, 13}
    name = "bench/coverage.py"
    lines = {"executed_lines": [1, 2, 3], "missing_lines": [4]}
    branches = {"executed_branches": [[1, 2], [1, 4]], "missing_branches": [[2, -1], [2, 4]]}
    percent, missing = coverage.share({"files": {name: {**lines, **branches}}})
    assert percent == pytest.approx(100 * 5 / 8)
    assert missing == [(3, name, "4 2->-1")]
