"""Whole evaluations: files and tracks in, reports, comparisons and event logs out; in threads, processes, ranks."""

from __future__ import annotations

import csv
import io
import json
import multiprocessing
import pickle
import shutil
import warnings
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cv3gpu import DataFormatError, mot
from tests import oracles
from tests.test_mot import EXPECTED, frames, random_tracks, tracks

SHARED = Path(__file__).resolve().parents[1] / ".." / "shared" / "data" / "mot"
needs_data = pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/data/mot")

SETS = {
    "TUD-MOT15": "MOT15",
    "SORT-MOT15": "MOT15",
    "Lif_T-MOT17": "MOT17",
    "MPNTrack-MOT20": "MOT20",
    "SORT-KITTI": "KITTI",
    "CasTrack-KITTI": "KITTI",
}
ALL = ("clear", "identity", "hota", "count")


def plain(report):
    """A report as text: equal if and only if all figures are."""
    return report.to_json()


def sides(name):
    """Ground truth and prediction of a published tracker as mappings of Tracks, and the lengths."""
    results = SHARED / "results" / name
    pred = mot.sequences.find(results, "pred")
    gt = {seq: source for seq, source in mot.sequences.find(SHARED / SETS[name], "gt").items() if seq in pred}
    lengths = {seq: source.length for seq, source in gt.items()}
    return *({seq: source.read() for seq, source in side.items()} for side in (gt, pred)), lengths


@pytest.fixture
def folders(tmp_path):
    """The two sequences of TUD as folders that users have: <seq>/gt/gt.txt with seqinfo.ini, and <seq>.txt."""
    if not SHARED.is_dir():
        pytest.skip("needs ../shared/data/mot")
    for seq in ("TUD-Campus", "TUD-Stadtmitte"):
        shutil.copytree(SHARED / "MOT15" / seq, tmp_path / "gt" / seq)
    shutil.copytree(SHARED / "results" / "TUD-MOT15", tmp_path / "pred")
    return tmp_path / "gt", tmp_path / "pred"


# ---- TrackEval's figures --------------------------------------------------------------------------------


@needs_data
@pytest.mark.parametrize("name", SETS)
def test_figures_are_trackevals(name):
    gt, pred, lengths = sides(name)
    report = mot.evaluate(gt, pred, benchmark=SETS[name], metrics=ALL, lengths=lengths)
    expected = json.loads((SHARED / "expected" / f"{name}.json").read_text())
    compared = 0
    for class_name in report.combined:
        for sequence, groups in expected.get(class_name, {}).get("trackeval", {}).items():
            combined = sequence == "COMBINED_SEQ"
            got = report.combined[class_name] if combined else report.sequences[sequence][class_name]
            for key, value in [item for group in groups.values() for item in group.items()]:
                compared += 1
                if isinstance(value, list):
                    np.testing.assert_allclose(got[f"{key}_alpha"], value, rtol=0, atol=EXPECTED, err_msg=key)
                elif isinstance(value, int):
                    assert got[key] == value, (sequence, key)
                else:
                    assert abs(got[key] - value) <= EXPECTED, (sequence, key)
    assert compared >= 40 * len(gt)


@needs_data
def test_a_folder_is_as_its_tracks():
    with pytest.raises(ValueError, match=r"pred must have every sequence of gt, got none named ADL-Rundle-8, ETH"):
        mot.evaluate(SHARED / "MOT15", SHARED / "results" / "SORT-MOT15", benchmark="MOT15")
    for name in ("Lif_T-MOT17", "MPNTrack-MOT20", "SORT-KITTI"):
        gt, pred, lengths = sides(name)
        files = mot.evaluate(SHARED / SETS[name], str(SHARED / "results" / name), benchmark=SETS[name], metrics=ALL)
        held = mot.evaluate(gt, pred, benchmark=SETS[name], metrics=ALL, lengths=lengths)
        assert plain(files) == plain(held)


@needs_data
def test_detrac_has_the_rules_of_its_toolkit():
    gt = mot.read(SHARED / "DETRAC" / "MVI_20011.xml")
    pred = gt[gt.frame % 7 != 0]
    report = mot.evaluate(gt, pred, benchmark="DETRAC")
    prepared = mot.prepare(gt, pred, "DETRAC")
    got = report.combined["vehicle"]
    assert {key: got[key] for key in mot.metrics.CLEAR_COUNTS} == {
        key: value for key, value in mot.detrac.clear(*prepared).items() if key in mot.metrics.CLEAR_COUNTS
    }
    assert got["IDTP"] == mot.identity(*prepared)["IDTP"] and got["HOTA"] == mot.hota(*prepared)["HOTA"]
    only = mot.evaluate(gt, pred, benchmark="DETRAC", metrics="clear").combined["vehicle"]
    assert only == {key: got[key] for key in only}


# ---- which sequences ------------------------------------------------------------------------------------


def write(folder, **side):
    folder.mkdir(exist_ok=True)
    for name, rows in side.items():
        mot.write(folder / f"{name}.txt", rows)
    return folder


SOME, MORE = tracks((1, 1, 0), (2, 1, 0)), tracks((1, 1, 0), (2, 2, 0), (3, 3, 0))


def test_tracks_alone_are_one_sequence():
    report = mot.evaluate(SOME, MORE)
    assert list(report.sequences) == ["sequence"] and list(report.combined) == ["all"]
    assert repr(report) == "Report(1 sequences, all)"


def test_single_files_are_a_pair_whatever_their_names(tmp_path):
    gt, pred = write(tmp_path / "gt", truth=SOME), write(tmp_path / "pred", mine=MORE)
    files = gt / "truth.txt", pred / "mine.txt"
    assert list(mot.evaluate(*files).sequences) == ["mine"]
    assert list(mot.evaluate(files[0], MORE).sequences) == ["truth"]
    assert list(mot.evaluate(SOME, files[1]).sequences) == ["mine"]
    assert list(mot.evaluate(gt, files[1]).sequences) == ["truth"]
    assert list(mot.evaluate({"street": SOME}, files[1]).sequences) == ["street"]
    assert plain(mot.evaluate(*files)) == plain(mot.evaluate({"mine": SOME}, {"mine": MORE}))
    with pytest.raises(ValueError, match=r"got none named truth; a sequence in which nothing was found has an empty"):
        mot.evaluate(gt, pred)


def test_archives_are_as_their_folders(folders):
    zips = [shutil.make_archive(str(folder), "zip", folder) for folder in folders]
    assert plain(mot.evaluate(*zips, benchmark="MOT15")) == plain(mot.evaluate(*folders, benchmark="MOT15"))


def test_every_sequence_needs_a_prediction(tmp_path):
    gt = write(tmp_path / "gt", a=SOME, b=SOME, c=SOME)
    pred = write(tmp_path / "pred", b=SOME)
    with pytest.raises(ValueError, match=r"mot.evaluate: pred must have every sequence of gt, got none named a, c;"):
        mot.evaluate(gt, pred)
    for name in "ac":
        (pred / f"{name}.txt").touch()
    found = mot.evaluate(gt, pred).sequences
    assert found["a"]["all"]["CLR_FN"] == 2 and found["b"]["all"]["MOTA"] == 1


def test_predictions_without_ground_truth_are_left_out_with_a_warning():
    with pytest.warns(UserWarning, match=r"mot.evaluate: predictions without ground truth are left out: b, c") as seen:
        report = mot.evaluate({"a": SOME}, {"a": SOME, "b": SOME, "c": SOME})
    assert list(report.sequences) == ["a"] and seen[0].filename == __file__


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((None, SOME), TypeError, r"mot.evaluate: gt must be a path, Tracks, or a mapping of sequences to Tracks, got"),
        ((SOME, {"a": 1}), TypeError, r"mot.evaluate: pred must be a path, Tracks, or a mapping"),
        (({1: SOME}, SOME), TypeError, r"mot.evaluate: gt must be a path, Tracks, or a mapping"),
        (({}, {}), ValueError, r"mot.evaluate: gt must have at least one sequence, got none"),
        ((SOME, tracks((1, -1, 0))), ValueError, r"mot.evaluate: pred must have an identity .* got id -1 in frame 1"),
    ],
)
def test_wrong_sides(arguments, error, message):
    with pytest.raises(error, match=message):
        mot.evaluate(*arguments)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (dict(metrics="mota"), ValueError, r"metrics must be one of 'hota', 'clear', .*, got 'mota'"),
        (dict(metrics=[]), ValueError, r"metrics must name at least one family, got none"),
        (dict(benchmark="MOT18"), ValueError, r"benchmark must be one of 'MOT15', .*, got 'MOT18'"),
        (dict(metrics=None), TypeError, r"metrics must be a name or a sequence of names, got None"),
        (dict(metrics=3), TypeError, r"metrics must be a name or a sequence of names, got int"),
        (dict(metrics=[["clear"]]), ValueError, r"metrics must be one of 'hota', .*, got \['clear'\]"),
        (dict(format="csv"), ValueError, r"format must be one of 'motchallenge', .*, got 'csv'"),
        (dict(executor=3), TypeError, r"executor must be a concurrent.futures.Executor, got 3"),
        (
            dict(executor=ThreadPoolExecutor),
            TypeError,
            r"executor must be a .*Executor, got <class '.*ThreadPoolExecutor'>",
        ),
        (dict(progress=3), TypeError, r"progress must be a function, got int"),
        (dict(lengths=5), TypeError, r"lengths must be a mapping of sequences to integers, got int"),
        (dict(lengths=[5]), TypeError, r"lengths must be a mapping of sequences to integers, got list"),
        (dict(lengths={"sequence": 1.5}), TypeError, r"lengths\['sequence'\] must be an integer, got 1.5"),
        (dict(lengths={"sequence": 0}), ValueError, r"lengths\['sequence'\] must be from 1 to 2147483647, got 0"),
        (dict(lengths={"sequence": -3}), ValueError, r"lengths\['sequence'\] must be from 1 to 2147483647, got -3"),
        (dict(lengths={"sequence": 3, "b": 3, "c": 3}), ValueError, r"lengths must name sequences of gt, got 'b', 'c'"),
    ],
)
def test_wrong_options(options, error, message):
    with pytest.raises(error, match=rf"mot.evaluate: {message}"):
        mot.evaluate(SOME, MORE, **options)
    with pytest.raises(error, match=rf"mot.compare: {message}"):
        mot.compare(SOME, {"mine": MORE}, **options)


def test_what_is_wrong_with_a_tracker_is_said_with_its_name():
    with pytest.raises(TypeError, match=r"mot.compare: preds\['a'\] must be a path, Tracks, or a mapping .*, got int"):
        mot.compare(SOME, {"b": SOME, "a": 3})
    with pytest.raises(ValueError, match=r"mot.compare: preds\['a'\] must have every sequence of gt, got none named s"):
        mot.compare({"s": SOME}, {"a": {"t": SOME}})
    with pytest.raises(TypeError, match=r"mot.compare: preds must be a mapping of at least one tracker, got \{1: "):
        mot.compare(SOME, {1: SOME})
    with pytest.raises(ValueError, match="got id -1") as caught:
        mot.compare({"s": SOME}, {"b": {"s": SOME}, "a": {"s": tracks((1, -1, 0))}})
    assert caught.value.__notes__ == ["while scoring tracker 'a'", "sequence 's' failed"]


def written(path, tracks, format):
    mot.write(path, tracks, format)
    return path


@pytest.mark.parametrize("run", ["evaluate", "compare", "event_logs"])
def test_a_benchmark_fixes_the_format(tmp_path, run):
    rows = [1, 2], [1, 1], [[0, 0, 9, 40], [1, 0, 9, 40]]
    cars = mot.Tracks(*rows, class_=[1, 1])
    text, kitti = (written(tmp_path / f"{format}.txt", cars, format) for format in ("motchallenge", "kitti"))
    xml = written(tmp_path / "a.xml", cars, "detrac")

    def score(path, benchmark, format=None):
        pred = {"a": path} if run == "compare" else path
        return getattr(mot, run)(path, pred, benchmark=benchmark, format=format)

    for path, benchmark in ((text, "MOT15"), (text, "MOT17"), (kitti, "KITTI"), (xml, "DETRAC"), (text, "DETRAC")):
        score(path, benchmark)
    with pytest.raises(
        DataFormatError, match=r"motchallenge.txt:1: line must have 17 or 18 columns, got 1; blanks stand"
    ):
        score(text, "KITTI")
    for path in (kitti, xml):
        with pytest.raises(DataFormatError, match=rf"{path.name}:1: line must have 7 to 10 columns"):
            score(path, "MOT20")
    score(text, "KITTI", format="motchallenge")
    kitti.write_text(kitti.read_text().replace("Car", "Lorry"))
    with pytest.raises(DataFormatError, match=r"kitti.txt:1: class must be one of Car, Van, .*, got 'Lorry'"):
        score(kitti, "KITTI")


def test_families_can_be_chosen():
    assert list(mot.evaluate(SOME, MORE, metrics="identity").combined["all"]) == list(mot.identity(SOME, MORE))
    both = mot.evaluate(SOME, MORE, metrics=["count", "vace", "count"]).combined["all"]
    assert both == {**mot.count(SOME, MORE), **mot.vace(SOME, MORE)}


# ---- lengths --------------------------------------------------------------------------------------------


def n_frames(gt, pred, **options):
    return mot.evaluate(gt, pred, metrics="count", **options).combined


def test_length_is_the_last_frame_seen_or_what_is_said():
    assert n_frames(SOME, MORE)["all"]["Frames"] == 3
    assert n_frames(SOME, MORE, lengths={"sequence": 9})["all"]["Frames"] == 9
    assert n_frames(SOME, MORE, lengths={"sequence": None})["all"]["Frames"] == 3
    none = tracks()
    assert n_frames(none, none)["all"]["Frames"] == 0
    from_0 = tracks((0, 1, 0), (4, 1, 0))
    assert n_frames(from_0, SOME)["all"]["Frames"] == 5


def test_kitti_counts_from_0():
    assert n_frames(SOME, MORE, benchmark="KITTI")["car"]["Frames"] == 4
    with pytest.raises(ValueError, match=r"pred must have frames from 0 to 2 in sequence 'sequence' of 3 .* frame 3"):
        n_frames(SOME, MORE, benchmark="KITTI", lengths={"sequence": 3})


@pytest.mark.parametrize("side", ["gt", "pred"])
def test_frames_beyond_the_length_are_refused(tmp_path, side):
    for name in ("gt", "pred"):
        write(tmp_path / name, a=SOME)
    shutil.rmtree(tmp_path / "gt")
    (tmp_path / "gt" / "a" / "gt").mkdir(parents=True)
    mot.write(tmp_path / "gt" / "a" / "gt" / "gt.txt", SOME)
    (tmp_path / "gt" / "a" / "seqinfo.ini").write_text("[Sequence]\nname=a\nseqLength=2\n")
    assert mot.evaluate(tmp_path / "gt", tmp_path / "pred").combined["all"]["CLR_Frames"] == 2
    mot.write(tmp_path / "gt" / "a" / "gt" / "gt.txt" if side == "gt" else tmp_path / "pred" / "a.txt", MORE)
    wanted = rf"mot.evaluate: {side} must have frames from 1 to 2 in sequence 'a' of 2 frames, got frame 3"
    with pytest.raises(ValueError, match=wanted):
        mot.evaluate(tmp_path / "gt", tmp_path / "pred")


# ---- where it runs --------------------------------------------------------------------------------------


def run_with(executor, folders, **options):
    with executor:
        return plain(mot.evaluate(*folders, benchmark="MOT15", executor=executor, **options))


def test_executors_do_not_matter(folders, monkeypatch):
    want = plain(mot.evaluate(*folders, benchmark="MOT15"))
    assert run_with(ThreadPoolExecutor(3), folders) == want
    spawned = ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn"))
    assert run_with(spawned, folders) == want
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0}, raising=False)
    assert plain(mot.evaluate(*folders, benchmark="MOT15")) == want
    held = [{seq: s.read() for seq, s in mot.sequences.find(f, "gt").items()} for f in folders]
    assert plain(mot.evaluate(*held, benchmark="MOT15")) == want


def test_dask_does_not_matter(folders):
    distributed = pytest.importorskip("distributed", reason="needs distributed")
    want = plain(mot.evaluate(*folders, benchmark="MOT15"))
    with (
        distributed.LocalCluster(n_workers=2, processes=True, threads_per_worker=1, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        assert plain(mot.evaluate(*folders, benchmark="MOT15", executor=client.get_executor())) == want
        (folders[1] / "TUD-Campus.txt").write_text("1,1,0,0,9\n")
        with pytest.raises(DataFormatError, match=r"TUD-Campus.txt:1: line must have 7 to 10 columns") as caught:
            mot.evaluate(*folders, benchmark="MOT15", executor=client.get_executor())
    assert list(caught.value.report.sequences) == ["TUD-Stadtmitte"]


class Recorder:
    """An executor that keeps what it is given."""

    def __init__(self):
        self.sent = []

    def submit(self, function, task):
        self.sent.append(pickle.dumps((function, task)))
        future = Future()
        future.set_result(function(task))
        return future


def test_paths_travel_and_arrays_stay(folders):
    recorder = Recorder()
    for _ in range(2):
        mot.evaluate(*folders, benchmark="MOT15", executor=recorder)
    assert len(set(recorder.sent)) == 4 and max(map(len, recorder.sent)) < 2000


def test_one_failing_sequence_loses_nothing_of_the_others():
    wrong = tracks((1, -1, 0))
    for executor in (None, ThreadPoolExecutor(2)):
        with pytest.raises(ValueError, match=r"got id -1 in frame 1") as caught:
            mot.evaluate(dict.fromkeys("abcd", SOME), {"a": SOME, "b": wrong, "c": MORE, "d": wrong}, executor=executor)
        notes = caught.value.__notes__
        assert notes[0] == "sequence 'b' failed" and notes[1].startswith("sequence 'd' failed: mot.evaluate: pred must")
        assert notes[2] == "2 of 4 sequences went well"
        assert plain(caught.value.report) == plain(mot.evaluate({"a": SOME, "c": SOME}, {"a": SOME, "c": MORE}))
    with pytest.raises(ValueError, match="got id -1") as caught:
        mot.evaluate(SOME, wrong)
    assert caught.value.report is None


def test_a_file_with_a_duplicate_is_named_with_its_line(tmp_path):
    gt, pred = write(tmp_path / "gt", a=SOME, b=SOME), write(tmp_path / "pred", a=SOME, b=SOME)
    (pred / "b.txt").write_text("1,1,0,0,9,9,1\n2,1,0,0,9,9,1\n1,1,0,0,9,9,1\n")
    with pytest.raises(DataFormatError, match=r"b.txt:3: id must be unique within a frame, got id 1") as caught:
        mot.evaluate(gt, pred)
    assert caught.value.__notes__[0] == "sequence 'b' failed" and list(caught.value.report.sequences) == ["a"]


def test_progress_is_told_in_order():
    told = []
    mot.evaluate(dict.fromkeys("cab", SOME), dict.fromkeys("abc", SOME), progress=told.append)
    assert told == ["c", "a", "b"]


# ---- reports --------------------------------------------------------------------------------------------


CONTRACT = """HOTA DetA AssA DetRe DetPr AssRe AssPr LocA MOTA MOTP MODA CLR_Re CLR_Pr MTR PTR MLR CLR_TP CLR_FN CLR_FP
    IDSW MT PT ML Frag sMOTA IDF1 IDR IDP IDTP IDFN IDFP"""


def leaves(value):
    if isinstance(value, dict):
        return [leaf for entry in value.values() for leaf in leaves(entry)]
    return [leaf for entry in value for leaf in leaves(entry)] if isinstance(value, list) else [value]


def test_to_dict_is_what_the_contract_says():
    report = mot.evaluate({"a": SOME, "b": MORE}, {"a": MORE, "b": SOME})
    found = report.to_dict()
    assert list(found) == ["sequences", "combined"] and list(found["sequences"]) == ["a", "b"]
    assert {type(leaf) for leaf in leaves(found)} == {int, float}
    figures = found["combined"]["all"]
    assert set(CONTRACT.split()) <= set(figures)
    for name in CONTRACT.split()[:8]:
        assert len(figures[f"{name}_alpha"]) == 19 and abs(np.mean(figures[f"{name}_alpha"]) - figures[name]) < EXPECTED
    assert json.loads(report.to_json()) == found


def test_files_are_read_back(tmp_path):
    report = mot.evaluate({"a, or b": SOME, "c": MORE}, {"a, or b": MORE, "c": SOME})
    text = report.to_csv(tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text() == text == report.to_csv()
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [(row["sequence"], row["class"]) for row in rows] == [("a, or b", "all"), ("c", "all"), ("COMBINED", "all")]
    want = [report.sequences["a, or b"]["all"], report.sequences["c"]["all"], report.combined["all"]]
    for row, figures in zip(rows, want, strict=True):
        got = {key: type(figures[key])(value) for key, value in row.items() if key not in ("sequence", "class")}
        assert got == {key: value for key, value in figures.items() if not np.ndim(value)}
    report.to_json(tmp_path / "out.json")
    assert json.loads((tmp_path / "out.json").read_text()) == report.to_dict()
    with pytest.raises(FileNotFoundError) as caught:
        report.to_csv(tmp_path / "nowhere" / "out.csv")
    assert caught.value.filename == str(tmp_path / "nowhere" / "out.csv")


def test_table():
    report = mot.evaluate({"a": SOME, "long name": MORE}, {"a": SOME, "long name": SOME})
    lines = str(report).splitlines()
    assert " ".join(lines[0].split()) == "sequence HOTA DetA AssA MOTA IDF1 MOTP IDSW Frag FP FN MT PT ML"
    assert lines[1].split() == ["a", *["100.00"] * 6, "0", "0", "0", "0", "1", "0", "0"]
    assert lines[3].startswith("COMBINED ") and len({len(line) for line in lines}) == 1
    two = mot.evaluate(SOME, MORE, benchmark="KITTI", metrics="count").table().splitlines()
    assert (
        two[0] == "car"
        and two[4] == ""
        and two[5] == "pedestrian"
        and two[1].split() == ["sequence", "Dets", "GT_Dets", "IDs", "GT_IDs"]
    )


def test_comparison(tmp_path):
    gt = {"a": SOME, "b": MORE}
    trackers = {"good": gt, "same": gt, "poor": {"a": MORE, "b": tracks()}}
    comparison = mot.compare(gt, trackers)
    assert repr(comparison) == "Comparison(good, same, poor)"
    for name, pred in trackers.items():
        assert plain(comparison.reports[name]) == plain(mot.evaluate(gt, pred))
    best = comparison.best("all")
    assert best["MOTA"] == best["IDSW"] == ["good", "same"] and "PT" not in best
    poor = next(line for line in str(comparison).splitlines() if line.startswith("poor"))
    assert "*" not in poor and str(comparison).count("100.00*") >= 8
    assert comparison.to_dict() == {name: report.to_dict() for name, report in comparison.reports.items()}
    assert json.loads(comparison.to_json()) == comparison.to_dict()
    rows = list(csv.DictReader(io.StringIO(comparison.to_csv(tmp_path / "out.csv"))))
    assert [row["tracker"] for row in rows] == ["good"] * 3 + ["same"] * 3 + ["poor"] * 3
    assert str(mot.compare(SOME, {"one": SOME})).count("*") == 0
    with pytest.raises(ValueError, match=r"mot.Comparison.best: class_name must be one of 'all', got 'x'"):
        comparison.best("x")
    with pytest.raises(TypeError, match=r"mot.compare: preds must be a mapping of at least one tracker, got \{\}"):
        mot.compare(SOME, {})
    with pytest.raises(ValueError, match="got id -1") as caught:
        mot.compare(gt, {"good": gt, "wrong": {"a": SOME, "b": tracks((1, -1, 0))}})
    assert list(caught.value.report.reports["good"].sequences) == ["a"]


# ---- events ---------------------------------------------------------------------------------------------


def counted(gt, pred):
    found = mot.clear(gt, pred)
    names = ("CLR_TP", "CLR_FN", "CLR_FP", "IDSW", "Frag")
    return dict(
        zip(("match", "miss", "false positive", "switch", "fragmentation"), (found[n] for n in names), strict=True)
    )


def assert_log_agrees(gt, pred):
    log = mot.events(gt, pred)
    counts = log.counts()
    assert {kind: counts[kind] for kind in counted(gt, pred)} == counted(gt, pred)
    assert (np.diff(log.frame) >= 0).all() and len({column.size for column in log}) == 1
    return log


@needs_data
@pytest.mark.parametrize("name", SETS)
def test_events_of_real_trackers_are_counted_by_clear(name):
    gts, preds, _ = sides(name)
    for sequence, gt in gts.items():
        for class_name in mot.benchmarks.classes(SETS[name]):
            log = assert_log_agrees(*mot.prepare(gt, preds[sequence], SETS[name], class_name))
            again = mot.events(gt, preds[sequence], SETS[name], class_name)
            assert all((a == b).all() for a, b in zip(log, again, strict=True)), sequence


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 12), st.integers(0, 6))
def test_events_are_what_a_loop_finds(seed, n, ids):
    rng = np.random.default_rng(seed)
    gt, pred = random_tracks(rng, n, ids), random_tracks(rng, n, ids)
    log = assert_log_agrees(gt, pred)
    matches = log.of("match")
    partner, owner, moved, switched = {}, {}, [], []
    for frame, g, p in zip(matches.frame.tolist(), matches.gt.tolist(), matches.pred.tolist(), strict=True):
        if partner.get(g, (p,))[0] != p:
            switched.append((frame, g, p, *partner[g]))
        if owner.get(p, (g,))[0] != g:
            moved.append((frame, g, p, *owner[p]))
        partner[g], owner[p] = (p, frame), (g, frame)
    for kind, want in (("switch", switched), ("transfer", moved)):
        found = log.of(kind)
        columns = found.frame, found.gt, found.pred, found.previous, found.since
        assert sorted(zip(*(c.tolist() for c in columns), strict=True)) == sorted(want)


# The figure on identity switches of Milan et al., MOT16: one target, tracked by two or three hypotheses. A row is
# drawn beside the ground truth where it follows it, far away where it does not.
NEAR, AWAY = 1, 500


def follow(**spans):
    """Hypotheses of one target that stands still: {id: frames}."""
    rows = [(frame, int(name[1:]), NEAR) for name, present in spans.items() for frame in present]
    return tracks(*rows)


def test_a_switch_without_a_fragmentation():
    gt = tracks(*((f, 1, 0) for f in range(1, 7)))
    log = assert_log_agrees(gt, follow(h1=range(1, 4), h2=range(4, 7)))
    assert (log.counts()["switch"], log.counts()["fragmentation"]) == (1, 0)
    at = log.of("switch")
    assert [column.tolist() for column in at] == [[4], ["switch"], [1], [2], [pytest.approx(9 / 11)], [1], [3]]


def test_a_switch_and_a_fragmentation():
    gt = tracks(*((f, 1, 0) for f in range(1, 7)), *((f, 2, AWAY) for f in range(1, 7)))
    pred = follow(h1=range(1, 3), h2=range(5, 7))
    other = tracks(*((f, 9, AWAY) for f in range(1, 7)))
    both = mot.Tracks(*(np.concatenate([getattr(pred, c), getattr(other, c)]) for c in ("frame", "id", "box")))
    log = assert_log_agrees(gt, both)
    assert (log.counts()["switch"], log.counts()["fragmentation"], log.counts()["miss"]) == (1, 1, 2)
    again = log.of("fragmentation")
    assert (again.frame.tolist(), again.since.tolist(), again.pred.tolist()) == ([5], [2], [2])


def test_the_matching_that_keeps_an_identity_is_preferred():
    # The second hypothesis comes nearer while the first still follows: no switch as long as it does.
    gt = tracks(*((f, 1, 0) for f in range(1, 7)))
    pred = tracks(*((f, 1, 2) for f in range(1, 7)), *((f, 2, 0) for f in range(3, 7)))
    log = assert_log_agrees(gt, pred)
    assert (log.counts()["switch"], log.counts()["fragmentation"], log.counts()["false positive"]) == (0, 0, 4)
    assert set(log.of("match").pred.tolist()) == {1}


def test_transfer_and_csv(tmp_path):
    gt = tracks((1, 1, 0), (2, 2, 0))
    pred = tracks((1, 7, 0), (2, 7, 0))
    log = mot.events(gt, pred)
    assert log.counts() == {"match": 2, "miss": 0, "false positive": 0, "switch": 0, "fragmentation": 0, "transfer": 1}
    assert log.of("transfer").to_csv() == "frame,kind,gt,pred,iou,previous,since\n2,transfer,2,7,1.0,1,1\n"
    logs = mot.event_logs({"a": gt, "b": gt}, {"a": pred, "b": tracks()})
    text = mot.logs_to_csv(logs, tmp_path / "events.csv")
    assert (tmp_path / "events.csv").read_text() == text
    rows = list(csv.reader(io.StringIO(text)))
    assert rows[0] == ["sequence", "class", *log._fields] and [row[0] for row in rows[1:]] == ["a"] * 3 + ["b"] * 2
    assert [row[3] for row in rows[4:]] == ["miss", "miss"]
    assert mot.events(tracks(), tracks()).frame.size == 0


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: mot.event_logs(SOME, SOME, "X"), ValueError, r"mot.event_logs: benchmark must be one of .*, got 'X'"),
        (lambda: mot.event_logs(SOME, SOME, progress=3), TypeError, r"mot.event_logs: progress must be a function"),
        (lambda: mot.event_logs(SOME, 3), TypeError, r"mot.event_logs: pred must be a path, Tracks, or a mapping"),
        (lambda: mot.event_logs(SOME, SOME, format="x"), ValueError, r"mot.event_logs: format must be one of"),
        (lambda: mot.logs_to_csv(3), TypeError, r"mot.logs_to_csv: logs must be a mapping of .* to Events, got int"),
        (lambda: mot.logs_to_csv({"a": 3}), TypeError, r"mot.logs_to_csv: logs must be a mapping"),
        (lambda: mot.logs_to_csv({"a": {"all": 3}}), TypeError, r"mot.logs_to_csv: logs must be a mapping"),
        (
            lambda: mot.events(SOME, SOME).of("swich"),
            ValueError,
            r"mot.Events.of: kinds must be one of .*, got 'swich'",
        ),
        (
            lambda: mot.events(SOME, SOME, class_name="dog"),
            ValueError,
            r"mot.events: class_name must be one of 'all', got",
        ),
    ],
)
def test_wrong_events(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_the_log_of_the_one_class_and_of_a_sequence_that_fails():
    assert mot.events(SOME, MORE, class_name="all").counts() == mot.events(SOME, MORE).counts()
    with pytest.raises(ValueError, match="got id -1") as caught:
        mot.event_logs({"a": SOME, "b": SOME}, {"a": SOME, "b": tracks((1, -1, 0))})
    assert caught.value.__notes__ == ["sequence 'b' failed"]


# ---- accumulators ---------------------------------------------------------------------------------------


def by_frame(evaluator, sequence, gt, pred, wrap, chosen=lambda frame: True, **options):
    """Feeds a sequence frame by frame."""

    def arrays(side, frame):
        rows = side.frame == frame
        box = side.box[rows].copy()
        if options:
            box[:, 2:] += box[:, :2]
        return wrap(side.id[rows]), wrap(box)

    for frame in np.union1d(gt.frame, pred.frame).tolist():
        if chosen(frame):
            evaluator.update_frame(sequence, frame, *arrays(gt, frame), *arrays(pred, frame), **options)


def whole(n=2, seed=0):
    rng = np.random.default_rng(seed)
    return {f"s{k}": (random_tracks(rng, 12, 5), random_tracks(rng, 12, 5)) for k in range(n)}


def as_report(given):
    return mot.evaluate({k: g for k, (g, _) in given.items()}, {k: p for k, (_, p) in given.items()})


def to_torch(x):
    torch = pytest.importorskip("torch")
    return torch.from_numpy(np.ascontiguousarray(x)).requires_grad_(x.dtype == np.float64)


@pytest.mark.parametrize("wrap", [np.asarray, np.ndarray.tolist, to_torch], ids=["numpy", "lists", "torch"])
@pytest.mark.parametrize("options", [{}, {"format": "xyxy"}])
def test_frames_give_the_report_of_the_whole(wrap, options):
    given = whole()
    evaluator = mot.Evaluator()
    for name, (gt, pred) in given.items():
        by_frame(evaluator, name, gt, pred, wrap, **options)
    assert plain(evaluator.compute()) == plain(as_report(given))
    evaluator.reset()
    evaluator.update(*given["s0"], "s0")
    evaluator.update(*given["s1"], sequence="s1")
    assert plain(evaluator.compute()) == plain(as_report(given))
    assert repr(evaluator) == "Evaluator(clear, identity, hota; 2 sequences)"


def test_arrays_may_be_used_again():
    evaluator, box = mot.Evaluator(), np.array([[0.0, 0, 9, 9]])
    for frame in (1, 2):
        evaluator.update_frame("a", frame, [1], box, [1], box)
        box += 1
    assert evaluator.compute().combined["all"]["CLR_TP"] == 2


def test_merged_ranks_are_one_process():
    given = whole(3)
    ranks = [mot.Evaluator(), mot.Evaluator()]
    ranks[0].update(*given["s0"], "s0")
    by_frame(ranks[1], "s1", *given["s1"], np.asarray)
    for n, rank in enumerate(ranks):
        by_frame(rank, "s2", *given["s2"], np.asarray, chosen=lambda frame, n=n: frame % 2 == n)
    for travelled in (pickle.loads(pickle.dumps(ranks[1])), restored(ranks[1].state_dict())):
        total = restored(ranks[0].state_dict())
        total.merge(travelled)
        assert plain(total.compute()) == plain(as_report(given))


def restored(state):
    evaluator = mot.Evaluator()
    evaluator.load_state_dict(pickle.loads(pickle.dumps(state)))
    return evaluator


def test_state_is_plain_arrays():
    gt = mot.Tracks([1], [2], [[0, 0, 9, 9]], [0.5], [3], ignored=[[0, 0, 5, 5]])
    evaluator = mot.Evaluator()
    evaluator.update(gt, tracks(), "a")
    state = evaluator.state_dict()
    assert list(state) == ["a"] and list(state["a"]) == ["gt", "pred"]
    assert all(type(array) is np.ndarray for side in state["a"].values() for array in side.values())
    again = restored(state).state_dict()
    for side in ("gt", "pred"):
        for column, array in state["a"][side].items():
            np.testing.assert_array_equal(again["a"][side][column], array)
    assert state["a"]["gt"]["score"].tolist() == [0.5] and state["a"]["gt"]["ignored"].shape == (1, 4)


def test_wrong_updates():
    evaluator = mot.Evaluator(benchmark="MOT17")
    box = [[0, 0, 9, 9]]
    with pytest.raises(TypeError, match=r"mot.Evaluator.update: pred must be Tracks, got None"):
        evaluator.update(SOME, None)
    with pytest.raises(ValueError, match=r"update_frame: pred_boxes must have shape \[2, 4\], got \(1, 4\)"):
        evaluator.update_frame("a", 1, [1], box, [1, 2], box)
    with pytest.raises(ValueError, match=r"update_frame: gt_ids must have shape \[N\], got \(1, 1\)"):
        evaluator.update_frame("a", 1, [[1]], box, [], [])
    with pytest.raises(ValueError, match=r"update_frame: format must be one of 'xywh', 'xyxy', got 'cxcywh'"):
        evaluator.update_frame("a", 1, [1], box, [1], box, format="cxcywh")
    with pytest.raises(ValueError, match=r"merge: other must have metrics .* and benchmark MOT17, got .* and None"):
        evaluator.merge(mot.Evaluator())
    with pytest.raises(TypeError, match=r"merge: other must be an Evaluator, got dict"):
        evaluator.merge({})
    with pytest.raises(ValueError, match=r"mot.Evaluator: metrics must be one of"):
        mot.Evaluator("accuracy")
    with pytest.raises(ValueError, match=r"mot.Evaluator: benchmark must be one of"):
        mot.Evaluator(benchmark="MOT18")
    twice = mot.Evaluator()
    for _ in range(2):
        twice.update_frame("a", 1, [1], box, [1], box)
    with pytest.raises(
        ValueError, match=r"Tracks: id must be unique within a frame, got id 1 twice in frame 1"
    ) as caught:
        twice.compute()
    assert caught.value.__notes__ == ["sequence 'a' failed"]


def test_lengths_may_be_of_sequences_of_another_process():
    evaluator = mot.Evaluator("count", lengths={"a": 9, "b": 7, "c": None})
    evaluator.update(SOME, SOME, "a")
    assert evaluator.compute().combined["all"]["Frames"] == 9
    with pytest.raises(TypeError, match=r"mot.Evaluator: lengths must be a mapping of sequences to integers, got int"):
        mot.Evaluator(lengths=5)


def test_names_of_sequences_are_words():
    evaluator, box = mot.Evaluator(), [[0, 0, 9, 9]]
    with pytest.raises(TypeError, match=r"mot.Evaluator.update: sequence must be a str, got None"):
        evaluator.update(SOME, SOME, None)
    with pytest.raises(TypeError, match=r"mot.Evaluator.update_frame: sequence must be a str, got 1 \(int\)"):
        evaluator.update_frame(1, 1, [1], box, [1], box)


def state(**changed):
    evaluator = mot.Evaluator()
    evaluator.update(SOME, MORE, "a")
    side = evaluator.state_dict()["a"]
    return {"a": {**side, "gt": {**side["gt"], **changed}}}


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (3, TypeError, r"state must be what state_dict gave, got int"),
        ({"a": {}}, ValueError, r"state\['a'\] must hold gt, pred, got nothing"),
        ({"a": 3}, TypeError, r"state\['a'\] must be a mapping, got int"),
        ({"a": {"gt": 3, "pred": 3}}, TypeError, r"state\['a'\]\['gt'\] must be a mapping, got int"),
        (state(colour=[1]), ValueError, r"state\['a'\]\['gt'\] must hold frame, id, box, .*, got .*colour"),
        ({None: state()["a"]}, TypeError, r"name of a sequence must be a str, got None"),
    ],
)
def test_wrong_states(wrong, error, message):
    evaluator = mot.Evaluator()
    evaluator.update(SOME, SOME, "kept")
    with pytest.raises(error, match=rf"mot.Evaluator.load_state_dict: {message}"):
        evaluator.load_state_dict(wrong)
    assert list(evaluator.state_dict()) == ["kept"]


def test_an_evaluator_keeps_right_and_bottom(tmp_path):
    line = "0 1 Car 0 0 -10 {} 5.1 {} 35.2 -1 -1 -1 -1000 -1000 -1000 -10\n"
    for name, left in (("gt", 7.9), ("pred", 16.8)):  # an overlap of exactly one half
        (tmp_path / f"{name}.txt").write_text(line.format(left, 25.7))
    evaluator = mot.Evaluator(benchmark="KITTI")
    evaluator.update(mot.read(tmp_path / "gt.txt"), mot.read(tmp_path / "pred.txt"), "pred")
    want = plain(mot.evaluate(tmp_path / "gt.txt", tmp_path / "pred.txt", benchmark="KITTI"))
    again = mot.Evaluator(benchmark="KITTI")
    again.load_state_dict(evaluator.state_dict())
    assert plain(evaluator.compute()) == plain(again.compute()) == want


def _rank(rank, folder, answer):
    import torch.distributed as dist

    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    given = whole(3)
    own = mot.Evaluator()
    for n, (name, (gt, pred)) in enumerate(given.items()):
        if n % 2 == rank:
            own.update(gt, pred, name)
    states = [None, None]
    dist.all_gather_object(states, own.state_dict())
    total = mot.Evaluator()
    for state in states:
        total.merge(restored(state))
    dist.destroy_process_group()
    answer.put((rank, {name: report["all"]["HOTA"] for name, report in total.compute().sequences.items()}))


def test_two_gloo_ranks_agree_with_one_process(tmp_path):
    pytest.importorskip("torch.distributed", reason="needs torch")
    context = multiprocessing.get_context("spawn")
    answer = context.Queue()
    ranks = [context.Process(target=_rank, args=(rank, str(tmp_path), answer)) for rank in range(2)]
    for process in ranks:
        process.start()
    found = dict(answer.get(timeout=120) for _ in ranks)
    for process in ranks:
        process.join()
    want = {name: figures["all"]["HOTA"] for name, figures in as_report(whole(3)).sequences.items()}
    assert found[0] == found[1] == want


# ---- the oracle -----------------------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_combined_counts_are_the_oracles_sums(seed):
    given_sides = whole(3, seed)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        combined = as_report(given_sides).combined["all"]
    wanted = [oracles.clear_and_identity(frames(gt), frames(pred)) for gt, pred in given_sides.values()]
    for key in ("CLR_TP", "CLR_FP", "CLR_FN", "IDSW", "Frag", "IDTP", "IDFP", "IDFN"):
        assert combined[key] == sum(one[key] for one in wanted)
