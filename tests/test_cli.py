"""The shell commands: what they print, their JSON, and their exit codes."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner

import cv3gpu
from cv3gpu import _files, _report, cli, demo, mot, viz
from cv3gpu.cli import _shared
from cv3gpu.errors import BackendUnavailableError, DataFormatError

COMMANDS = [
    "bench",
    "demo",
    "doctor",
    "kernels list",
    "kernels compile",
    "mot eval",
    "mot compare",
    "segment crf",
    "segment graphcut",
    "segment kmeans",
    "segment meanshift",
    "segment ncut",
    "segment net",
    "segment slic",
    "segment spectral",
    "track",
    "train mpn",
    "train seg",
]


def invoke(*arguments):
    return CliRunner().invoke(cli.main, [*arguments])


# ---- all commands ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example(command):
    result = invoke(*command.split(), "--help")
    assert result.exit_code == 0
    assert f"Example:  cv3gpu {command}" in result.stdout and "--json" in result.stdout


@pytest.mark.parametrize("group", ["", "kernels", "mot", "segment", "train"])
def test_help_of_a_group_has_an_example(group):
    assert f"Example:  cv3gpu {group}" in invoke(*group.split(), "--help").stdout


def test_only_commands_that_exist_are_listed():
    listed = invoke("--help").stdout.split("Commands:")[1].split("Example:")[0].split("\n")
    assert [line.split()[0] for line in listed if line.strip()] == [
        *("bench", "demo", "doctor", "kernels", "mot", "segment", "track", "train")
    ]
    assert "..." not in "".join(listed)


@pytest.mark.parametrize(
    "arguments",
    [
        ["nothing"],
        ["demo", "--nothing"],
        ["demo", "--only", "nothing"],
        ["kernels", "compile", "nothing.cu"],
        ["kernels", "compile", "--arch", "12"],
        ["doctor", "surplus"],
        ["mot", "eval", "."],
        ["mot", "eval", "nowhere", "nowhere"],
        ["mot", "eval", ".", ".", "--benchmark", "MOT18"],
        ["mot", "compare", "."],
        ["mot", "compare", ".", "tests", "tests"],
        ["mot", "eval", ".", ".", "--csv", "nowhere/x.csv"],
        ["mot", "eval", ".", ".", "--events", "nowhere/x.csv"],
        ["mot", "eval", ".", ".", "--plot", "nowhere/x"],
        ["mot", "compare", ".", ".", "--plot", "nowhere/x"],
    ],
)
def test_usage_errors_give_2(arguments):
    result = invoke(*arguments)
    assert result.exit_code == 2 and result.stdout == "" and "Error: " in result.stderr


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (DataFormatError("a.txt:3: frame must be …"), 3),
        (BackendUnavailableError("demo: pictures need matplotlib"), 1),
        (PermissionError(13, "Permission denied", "/out"), 1),
    ],
)
def test_named_errors_are_one_line(monkeypatch, error, code):
    def fails(*arguments):
        raise error

    monkeypatch.setattr(demo, "run", fails)
    result = invoke("demo")
    assert result.exit_code == code
    assert result.stderr == f"cv3gpu: {error}\n" and result.stdout == ""


def test_module_and_version():
    command = [sys.executable, "-m", "cv3gpu", "--version"]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert said == f"cv3gpu, version {cv3gpu.__version__}\n"


def test_nothing_heavy_is_imported_before_it_is_needed():
    code = (
        "import sys, cv3gpu, cv3gpu.cli, cv3gpu.mot, cv3gpu.viz, cv3gpu.doctor, cv3gpu.demo\n"
        "heavy = {'torch', 'cupy', 'scipy', 'numba', 'matplotlib', 'skimage', 'rich', 'motmetrics'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "[]\n"


def test_plain_tables_are_aligned(capsys):
    _shared.print_table(("name", "ms"), [("a", "1.25"), ("longer", "10.00")], right=(1,))
    assert capsys.readouterr().out == "name       ms\na        1.25\nlonger  10.00\n"


@pytest.mark.parametrize("rich", [True, False])
def test_progress_bars(monkeypatch, rich):
    written = []
    terminal = SimpleNamespace(isatty=lambda: True, write=written.append, flush=lambda: None, encoding="utf-8")
    monkeypatch.setattr(_shared, "_rich", lambda: rich)
    monkeypatch.setattr(sys, "stderr", terminal)
    with _shared.progress("compile", 2) as begin:
        begin("first.cu")
        begin("second.cu")
    assert "compile" in "".join(written)


# ---- kernels --------------------------------------------------------------------------------------------


def test_kernels_list():
    found = json.loads(invoke("kernels", "list", "--json").stdout)
    assert {entry["kind"] for entry in found} == {"CUDA C++", "numba.cuda"}
    conv = next(entry for entry in found if entry["file"] == "conv.cu")
    assert "90" in conv["arch"] and conv["kernels"] and conv["variants"] > 1 and conv["formula"]
    assert not any(entry["file"].endswith(".cuh") for entry in found)
    assert "conv.cu" in invoke("kernels", "list").stdout


def test_kernels_compile():
    pytest.importorskip("cuda.bindings.nvrtc")
    result = invoke("kernels", "compile", "--arch", "90", "conv_pack.cu", "--json")
    assert result.exit_code == 0
    report = json.loads(result.stdout)
    assert report["ok"] and {row["arch"] for row in report["kernels"]} == {"90"}
    assert all(row["registers"] > 0 and row["error"] == "" for row in report["kernels"])


def test_kernels_that_do_not_compile_give_1(monkeypatch):
    rows = [
        _report.Row("conv.cu", "real=float32", "90", "", error="conv.cu(3): error: no"),
        _report.Row("conv.cu", "real=float64", "90", "conv2d", registers=40),
    ]
    monkeypatch.setattr(_report, "compile_report", lambda files, archs: rows)
    result = invoke("kernels", "compile", "--arch", "90", "conv.cu")
    assert result.exit_code == 1
    assert "conv.cu(3): error: no" in result.stderr and "1 kernels compiled, 1 files failed" in result.stdout
    assert json.loads(invoke("kernels", "compile", "--arch", "90", "conv.cu", "--json").stdout)["ok"] is False


# ---- demo -----------------------------------------------------------------------------------------------


def need_the_demo():
    pytest.importorskip("skimage")
    pytest.importorskip("matplotlib")
    try:
        importlib.metadata.distribution("motmetrics")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("needs the files of motmetrics (pip install --no-deps motmetrics)")


@pytest.fixture
def demo_run(tmp_path, monkeypatch):
    """The folder of a whole run of the demo, and its report: the run that CV3GPU_DEMO names, or one of its own.

    CV3GPU_DEMO=out after ``cv3gpu demo --out out --json >out.json``: the demo takes a minute, so CI runs it once.
    """
    if folder := os.environ.get("CV3GPU_DEMO"):
        return Path(folder), json.loads(Path(f"{folder}.json").read_text(encoding="utf-8"))
    need_the_demo()
    monkeypatch.setattr(demo._checks, "RUNS", 1)
    out = tmp_path / "out"
    result = invoke("demo", "--out", str(out), "--json")
    assert result.exit_code == 0, result.stdout
    return out, json.loads(result.stdout)


def test_demo(demo_run):
    out, report = demo_run
    assert report["ok"] and all(row["ok"] and row["error"] <= row["tolerance"] for row in report["rows"])
    operators = {row["operator"] for row in report["rows"]}
    assert operators == {
        "conv2d",
        "interpolate",
        "box_iou",
        "linear_sum_assignment",
        "mot.clear, mot.identity",
        "mot.evaluate_boxes",
        "mot.round_trajectories",
        "mot.track",
        "dense_crf, exact",
        "dense_crf, lattice",
        "dense_crf, lattice_fine",
        "gaussian_filter, exact",
        "gaussian_filter, lattice",
        "graph_cut",
        "boykov_jolly",
        "grab_cut",
        "slic",
        "kmeans",
        "mean_shift",
        "spectral_clustering",
        "smallest_eigenpairs",
        "normalized_cut",
    }
    assert sorted(path.name for path in out.iterdir()) == [
        "clusters.png",
        "crf_iterations.png",
        "crf_triptych.png",
        "dilated_convolution.png",
        "eigenvectors.png",
        "grab_cut.png",
        "graph_cut.png",
        "graph_cut_minimal_maximal.png",
        "hota.png",
        "identities.png",
        "mean_shift.png",
        "normalized_cut.png",
        "resize.png",
        "superpixels.png",
        "tracking_graph.png",
        "tracks.png",
        "trajectories.gif",
    ]
    assert [str(path) for path in sorted(out.iterdir())] == report["pictures"]
    from PIL import Image

    for path in out.iterdir():
        with Image.open(path) as picture:
            assert min(picture.size) > 300 and np.asarray(picture.convert("L")).std() > 10


def row(ok=True):
    return demo.Row("op", "input", "cpu (numpy)", 1.0, "max error 0", 0.0, 1e-6, ok)


def entry(function, family="fake"):
    return demo.Entry("fake", family, function)


def test_demo_prints_a_table(tmp_path, monkeypatch):
    def draws(out):
        (out / "a.png").write_text("new")
        return [row()]

    (tmp_path / "a.png").write_text("old")
    monkeypatch.setattr(demo, "ENTRIES", [entry(draws), entry(lambda out: 1 / 0, "other")])
    result = invoke("demo", "--out", str(tmp_path), "--only", "fake")
    assert result.exit_code == 0 and (tmp_path / "a.png").read_text() == "new"
    assert "op        input  cpu (numpy)  1.00  max error 0  ok" in result.stdout
    assert "1 of 1 agree" in result.stdout and str(tmp_path / "a.png") in result.stdout


@pytest.mark.parametrize("function", [lambda out: [row(), row(ok=False)], lambda out: 1 / 0])
def test_disagreement_gives_1(tmp_path, monkeypatch, function):
    monkeypatch.setattr(demo, "ENTRIES", [entry(function)])
    result = invoke("demo", "--out", str(tmp_path))
    assert result.exit_code == 1 and "FAILED" in result.stdout
    report = json.loads(invoke("demo", "--out", str(tmp_path), "--json").stdout)
    assert report["ok"] is False


def test_what_is_missing_is_named_and_nothing_is_written(tmp_path, monkeypatch):
    need_the_demo()

    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", missing)
    result = invoke("demo", "--out", str(tmp_path / "out"), "--only", "mot")
    assert result.exit_code == 1 and list((tmp_path / "out").iterdir()) == []
    assert result.stderr == "cv3gpu: demo: the tracks need the files of motmetrics; pip install 'cv3gpu[demo]'\n"
    monkeypatch.setitem(sys.modules, "skimage.data", None)
    result = invoke("demo", "--out", str(tmp_path / "out"), "--only", "resize")
    assert result.exit_code == 1
    assert "demo: the photograph needs scikit-image" in result.stderr and "pip install 'cv3gpu[demo]'" in result.stderr


@pytest.mark.parametrize(("value", "ok"), [(1.0, True), (1.1, False), (np.nan, False)])
def test_compare_holds_the_tolerance(value, ok):
    want = np.ones(3)
    rows = demo.compare("op", "input", lambda x: x * value, (want,), want, "ones", 1e-6)
    assert [r.ok for r in rows] == [ok] * len(rows) and rows[0].device == "cpu (numpy)"


def test_compare_holds_the_shape():
    assert not demo.compare("op", "input", lambda x: x[:2], (np.ones(3),), np.ones(3), "ones", 1e-6)[0].ok


# ---- mot ------------------------------------------------------------------------------------------------


@pytest.fixture
def tracked(tmp_path):
    """Ground truth of two sequences, and two trackers of which one switches."""
    box = [[0, 0, 9, 9]] * 4
    gt = mot.Tracks([1, 2, 3, 4], [1] * 4, box)
    for name, pred in (("gt", gt), ("good", gt), ("poor", mot.Tracks([1, 2, 4], [5, 6, 6], box[:3]))):
        (tmp_path / name).mkdir()
        for sequence in ("a", "b"):
            mot.write(tmp_path / name / f"{sequence}.txt", pred)
    return tmp_path


def test_the_choices_are_the_librarys():
    assert set(cli.mot.METRICS) == set(mot.metrics.METRICS)
    assert tuple(mot.benchmarks.BENCHMARKS) == cli.mot.BENCHMARKS and _shared.FORMATS == mot.formats.FORMATS


def test_mot_eval(tracked):
    arguments = ["mot", "eval", str(tracked / "gt"), str(tracked / "poor")]
    report = mot.evaluate(tracked / "gt", tracked / "poor")
    result = invoke(*arguments)
    assert (result.exit_code, result.stdout, result.stderr) == (0, f"{report}\n", "")
    result = invoke(*arguments, "--json", "--csv", str(tracked / "out.csv"))
    assert json.loads(result.stdout) == report.to_dict() and result.stderr == ""
    assert (tracked / "out.csv").read_text() == report.to_csv()
    identity = invoke(*arguments, "--metrics", "identity", "--metrics", "count", "--benchmark", "MOT15")
    assert identity.stdout.split()[:6] == ["sequence", "IDF1", "Dets", "GT_Dets", "IDs", "GT_IDs"]
    assert invoke(*arguments, "--format", "motchallenge").exit_code == 0


def test_mot_eval_events(tracked):
    file = tracked / "events.csv"
    arguments = ["mot", "eval", str(tracked / "gt"), str(tracked / "poor"), "--events", str(file)]
    result = invoke(*arguments)
    assert result.exit_code == 0, result.stderr
    assert "\nidentity switches: 2\n" in result.stdout and result.stdout.endswith(f"\nfiles:\n  {file}\n")
    assert "a             2         1            5       6              1\n" in result.stdout
    assert file.read_text() == mot.logs_to_csv(mot.event_logs(tracked / "gt", tracked / "poor"))
    assert json.loads(invoke(*arguments, "--json").stdout)["combined"]["all"]["IDSW"] == 2


def test_many_switches_are_cut(tracked, monkeypatch):
    monkeypatch.setattr(cli.mot, "SWITCHES", 1)
    result = invoke("mot", "eval", str(tracked / "gt"), str(tracked / "poor"), "--events", str(tracked / "e.csv"))
    assert "1            5       6              1\nand 1 more\n\nfiles:\n" in result.stdout
    result = invoke("mot", "eval", str(tracked / "gt"), str(tracked / "good"), "--events", str(tracked / "e.csv"))
    assert result.stdout.endswith(f"\nidentity switches: 0\n\nfiles:\n  {tracked / 'e.csv'}\n")


def test_mot_pictures(tracked):
    pytest.importorskip("matplotlib")
    both = str(tracked / "good"), str(tracked / "poor")
    result = invoke("mot", "eval", str(tracked / "gt"), both[1], "--plot", str(tracked / "one"))
    drawn = ["alpha-all.png", "identities-a-all.png", "identities-b-all.png"]
    assert sorted(path.name for path in (tracked / "one").iterdir()) == drawn
    assert result.stdout.endswith("".join(f"  {tracked / 'one' / name}\n" for name in drawn))
    result = invoke("mot", "compare", str(tracked / "gt"), *both, "--plot", str(tracked / "two"), "--json")
    assert list(json.loads(result.stdout)) == ["good", "poor"]
    assert [path.name for path in (tracked / "two").iterdir()] == ["alpha-all.png"]
    from PIL import Image

    for path in (*(tracked / "one").iterdir(), *(tracked / "two").iterdir()):
        with Image.open(path) as picture:
            assert min(picture.size) > 250 and np.asarray(picture.convert("L")).std() > 10


def test_mot_compare(tracked):
    names = {"good": tracked / "good", "poor": tracked / "poor"}
    comparison = mot.compare(tracked / "gt", names)
    arguments = ["mot", "compare", str(tracked / "gt"), *map(str, names.values())]
    assert invoke(*arguments).stdout == f"{comparison}\n"
    result = invoke(*arguments, "--json", "--csv", str(tracked / "out.csv"))
    assert json.loads(result.stdout) == comparison.to_dict()
    assert (tracked / "out.csv").read_text() == comparison.to_csv()


def test_trackers_of_one_name_keep_their_paths():
    assert cli.mot._named(["a/data", "b/data", "c", "d.zip"]) == {
        "a/data": "a/data",
        "b/data": "b/data",
        "c": "c",
        "d": "d.zip",
    }


def test_mot_bad_data_gives_3(tracked):
    (tracked / "poor" / "b.txt").write_text("1,1,0,0,9\n")
    (tracked / "poor" / "c.txt").write_text("")
    result = invoke("mot", "eval", str(tracked / "gt"), str(tracked / "poor"))
    assert (result.exit_code, result.stdout) == (3, "")
    lines = result.stderr.splitlines()
    assert lines[0] == f"cv3gpu: {tracked / 'poor' / 'b.txt'}:1: line must have 7 to 10 columns, got 5"
    assert lines[1:] == [
        "  sequence 'b' failed",
        "  1 of 2 sequences went well",
        "cv3gpu: mot.evaluate: predictions without ground truth are left out: c",
    ]
    (tracked / "poor" / "b.txt").unlink()
    result = invoke("mot", "compare", str(tracked / "gt"), str(tracked / "poor"))
    assert result.exit_code == 3 and "preds['poor'] must have every sequence of gt, got none named b" in result.stderr
    (tracked / "empty").mkdir()
    assert invoke("mot", "eval", str(tracked / "empty"), str(tracked / "poor")).exit_code == 3


@pytest.mark.parametrize("events", [False, True])
def test_what_a_benchmark_refuses_is_said_with_the_sequence(tracked, events):
    mot.write(tracked / "poor" / "b.txt", mot.Tracks([1], [1], [[0, 0, 9, 9]], class_=[7]))
    more = ["--events", str(tracked / "e.csv")] if events else []
    result = invoke("mot", "eval", str(tracked / "gt"), str(tracked / "poor"), "--benchmark", "MOT15", *more)
    assert (result.exit_code, result.stdout) == (3, "")
    first, *notes = result.stderr.splitlines()
    assert first.startswith("cv3gpu: mot.prepare: pred must have pedestrians only")
    assert notes == ["  sequence 'b' failed", "  1 of 2 sequences went well"]
    assert not (tracked / "e.csv").exists()


def test_mot_eval_imports_nothing_heavy(tracked):
    code = (
        "import sys\n"
        "from cv3gpu import cli\n"
        "cli.main(sys.argv[1:], standalone_mode=False)\n"
        "heavy = {'torch', 'cupy', 'scipy', 'numba', 'matplotlib', 'skimage', 'rich', 'distributed'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code, "mot", "eval", str(tracked / "gt"), str(tracked / "poor")]
    subprocess.run(command, check=True, capture_output=True)  # compiles what is not in the cache yet
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert said.endswith("\n[]\n")


# ---- files and pictures ---------------------------------------------------------------------------------


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    target = tmp_path / "a.txt"
    with _files.replacing(target) as unfinished:
        assert unfinished.suffix == ".txt" and unfinished.parent == tmp_path
        unfinished.write_text("one")
    with pytest.raises(KeyboardInterrupt), _files.replacing(target) as unfinished:
        unfinished.write_text("tw")
        raise KeyboardInterrupt
    assert target.read_text() == "one" and list(tmp_path.iterdir()) == [target]


def test_a_link_stays_and_its_file_is_replaced(tmp_path):
    (tmp_path / "far").mkdir()
    for name in ("there", "not yet"):
        link, target = tmp_path / f"{name}.txt", tmp_path / "far" / name
        link.symlink_to(target)
        if name == "there":
            target.write_text("old")
        with _files.replacing(link) as unfinished:
            assert unfinished.parent == tmp_path / "far"
            unfinished.write_text("new")
        assert link.is_symlink() and target.read_text() == "new"


def test_what_is_no_file_is_refused_before_anything_is_written(tmp_path):
    (tmp_path / "pipe").symlink_to("pipe.real")
    os.mkfifo(tmp_path / "pipe.real")
    (tmp_path / "folder").mkdir()
    before = sorted(tmp_path.iterdir())
    for path in (tmp_path / "pipe", tmp_path / "pipe.real", tmp_path / "folder", "/dev/null"):
        with pytest.raises(OSError, match="must be a regular file or not be there") as caught, _files.replacing(path):
            pytest.fail("the block must not be entered")
        assert caught.value.filename == str(path) and sorted(tmp_path.iterdir()) == before
    assert not os.path.isfile("/dev/null")


def test_errors_name_the_path_that_was_asked_for(tmp_path):
    (tmp_path / "file").write_text("")
    for folder in ("nowhere", "file"):
        path = tmp_path / folder / "x.csv"
        with pytest.raises(OSError) as caught, _files.replacing(path) as unfinished:
            unfinished.write_text("x")
        assert str(caught.value).endswith(f": '{path}'") and caught.value.filename == str(path)


def test_what_is_no_path_is_refused():
    rows = mot.Tracks([1], [1], [[0, 0, 9, 9]])
    for op, call in (
        ("mot.read", lambda path: mot.read(path)),
        ("mot.write", lambda path: mot.write(path, rows)),
        ("mot.sequences.find", lambda path: mot.sequences.find(path, "gt")),
    ):
        for path, got in ((None, "None"), (3, "int"), (b"a.txt", "bytes")):
            with pytest.raises(TypeError, match=f"{op}: path must be a path, got {got}"):
                call(path)


def test_a_file_of_two_letters_is_no_archive(tmp_path):
    (tmp_path / "a.txt").write_text("PK\n")
    with pytest.raises(DataFormatError, match=r"a.txt:1: line must have 7 to 10 columns, got 1"):
        mot.evaluate(tmp_path / "a.txt", tmp_path / "a.txt")


def test_pictures_without_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(BackendUnavailableError, match=r"viz: pictures need matplotlib .*pip install 'cv3gpu\[viz\]'"):
        viz.image_grid([[np.zeros((4, 4))]], columns=["a"])


def test_lines_break_at_missing_frames():
    frame, value = viz.tracks._broken(np.array([5, 1, 2, 6]), np.array([50.0, 10, 20, 60]))
    np.testing.assert_array_equal(frame, [1, 2, np.nan, 5, 6])
    np.testing.assert_array_equal(value, [10, 20, np.nan, 50, 60])
