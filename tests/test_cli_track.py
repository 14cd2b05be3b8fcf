"""`cv3gpu track`: where it looks for detections, what it writes, prints and refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from cv3gpu import _track, cli, mot
from cv3gpu.errors import DataFormatError

METHODS = ("mpn", "flow", "byte", "sort")


def invoke(*arguments: Any) -> Any:
    return CliRunner().invoke(cli.main, ["track", *map(str, arguments)])


def walkers(people: int = 3, frames: int = 30, hidden: tuple[int, int] = (12, 16)) -> mot.Tracks:
    """People side by side, of whom the first is hidden for some frames."""
    frame, who = (x.reshape(-1) for x in np.meshgrid(np.arange(1, frames + 1), np.arange(people), indexing="ij"))
    left = 100.0 * who + 2 * frame
    box = np.stack([left, 50 + 0 * left, np.full(left.size, 30.0), np.full(left.size, 80.0)], 1)
    seen = (who > 0) | (frame < hidden[0]) | (frame >= hidden[1])
    return mot.Tracks(frame=frame[seen], id=np.full(seen.sum(), -1), box=box[seen], score=np.full(seen.sum(), 0.9))


@pytest.fixture
def sequences(tmp_path: Path) -> Path:
    """Two sequences as MOTChallenge has them, one with a seqinfo.ini."""
    for name, people in (("street", 3), ("yard", 2)):
        folder = tmp_path / "data" / name / "det"
        folder.mkdir(parents=True)
        mot.write(folder / "det.txt", walkers(people))
    (tmp_path / "data" / "street" / "seqinfo.ini").write_text("[Sequence]\nframeRate=14\nseqLength=40\n")
    return tmp_path / "data"


@pytest.mark.parametrize("method", METHODS)
def test_people_become_tracks(sequences: Path, tmp_path: Path, method: str) -> None:
    result = invoke(sequences, "--method", method, "-o", tmp_path / "out", "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["method"] == method and list(told["sequences"]) == ["street", "yard"]
    street = told["sequences"]["street"]
    assert street["frames"] == 40 and street["detections"] == 86 and street["fps"] > 0
    assert told["sequences"]["yard"]["frames"] == 30
    assert (street["satisfied"] is None) == (method != "mpn")
    found = mot.read(street["file"])
    assert street["boxes"] == len(found) and street["tracks"] == len(set(found.id))
    # SORT forgets who is hidden; the others remember for 4 frames, and the gap is filled.
    gt = walkers(hidden=(0, 0))
    gt = mot.Tracks(frame=gt.frame, id=(gt.box[:, 0] - 2 * gt.frame) // 100, box=gt.box)
    assert street["tracks"] == (4 if method == "sort" else 3)
    assert mot.identity(gt, found)["IDF1"] > (0.7 if method == "sort" else 0.95)


def test_the_result_is_the_library_s(sequences: Path, tmp_path: Path) -> None:
    detections = sequences / "street" / "det" / "det.txt"
    options = ["--method", "byte", "--interpolate", 0, "--min-length", 0, "--score", 0.5]
    assert invoke(detections, *options, "-o", tmp_path / "one.txt").exit_code == 0
    assert invoke(sequences / "street", *options, "-o", tmp_path / "two.txt").exit_code == 0
    want = tmp_path / "want.txt"
    mot.write(want, mot.byte_track(mot.read(detections), max_age=14))
    assert want.read_bytes() == (tmp_path / "one.txt").read_bytes() == (tmp_path / "two.txt").read_bytes()


def test_options_are_followed(sequences: Path, tmp_path: Path) -> None:
    file, out = sequences / "street" / "det" / "det.txt", tmp_path / "out.txt"

    def boxes(*options: Any) -> int:
        result = invoke(file, "--method", "flow", "-o", out, *options, "--json")
        return json.loads(result.stdout)["sequences"]["street"]["boxes"]

    assert (boxes("--interpolate", 3), boxes("--interpolate", 4)) == (86, 90)
    assert boxes("--interpolate", 0, "--min-length", 27) == 60
    assert boxes("--score", 0.91) == 0


def test_files_of_tracks_side_by_side(tmp_path: Path) -> None:
    folder = tmp_path / "flat"
    folder.mkdir()
    for name in ("a", "b"):
        mot.write(folder / f"{name}.txt", walkers())
    result = invoke(folder, "--method", "sort", "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.txt", "b.txt"]
    assert invoke(folder, "--method", "sort", "-o", tmp_path / "out").exit_code == 0  # once more into the same folder
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["sequence", "frames", "detections", "tracks", "boxes", "fps"]
    assert lines[1].split()[:3] == ["a", "30", "86"]
    assert str(tmp_path / "out" / "b.txt") in result.stdout


def test_another_file_than_det_txt(sequences: Path, tmp_path: Path) -> None:
    folder = sequences / "yard" / "det"
    (folder / "det.txt").rename(folder / "yolox.txt")
    assert invoke(sequences, "--method", "sort", "-o", tmp_path / "out").exit_code == 0
    (folder / "more.txt").write_text("")
    result = invoke(sequences, "--method", "sort", "-o", tmp_path / "out")
    assert result.exit_code == 3
    assert "must hold det.txt or one other .txt file, got more.txt, yolox.txt" in result.stderr


@pytest.mark.parametrize("format", ["kitti", "detrac"])
def test_formats_of_tracks(tmp_path: Path, format: str) -> None:
    given = walkers()
    cars = mot.Tracks(frame=given.frame, id=given.id, box=given.box, class_=np.ones(len(given), int), score=given.score)
    mot.write(tmp_path / "cars.txt", cars)
    out = tmp_path / "out.txt"
    result = invoke(tmp_path / "cars.txt", "--method", "byte", "--format", format, "-o", out)
    assert result.exit_code == 0, result.output
    assert len(set(mot.read(out, format).id)) == 3


def test_no_detections(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("")
    for method in METHODS:
        result = invoke(tmp_path / "empty.txt", "--method", method, "-o", tmp_path / "out.txt")
        assert result.exit_code == 0, result.output
        assert (tmp_path / "out.txt").read_text() == ""


# ---- refusals -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1,-1,10,20,30\n", "det.txt:1"),
        ("1,-1,10,20,30,40,0.5\n2,-1,10,x,30,40,0.5\n", "det.txt:2"),
        ("1,-1,10,20,0,40,0.5\n", "detections must have boxes with a positive width and height"),
        ("1,-1,10,20,nan,40,0.5\n", "det.txt:1"),
    ],
)
def test_malformed_detections(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "det.txt").write_text(text)
    result = invoke(tmp_path / "det.txt", "--method", "byte", "-o", tmp_path / "out.txt")
    assert result.exit_code == 3 and words in result.stderr
    assert not (tmp_path / "out.txt").exists()


@pytest.mark.parametrize("line", ["frameRate=fast", "frameRate=0", "frameRate=-3", "seqLength=1.5", "seqLength="])
def test_malformed_seqinfo(sequences: Path, tmp_path: Path, line: str) -> None:
    (sequences / "yard" / "seqinfo.ini").write_text(f"[Sequence]\n{line}\n")
    key = line.split("=")[0]
    kind = "positive" if key == "frameRate" else "whole"
    with pytest.raises(DataFormatError, match=rf"seqinfo.ini:2: {key} must be a {kind} number"):
        _track.find(sequences)
    assert invoke(sequences, "--method", "byte", "-o", tmp_path / "out").exit_code == 3


def test_wrong_weights(sequences: Path, tmp_path: Path) -> None:
    (tmp_path / "no.safetensors").write_bytes(b"\0" * 100)
    result = invoke(sequences, "--weights", tmp_path / "no.safetensors", "-o", tmp_path / "out")
    assert result.exit_code == 3 and "no.safetensors" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "Missing argument"),
        (["{data}"], "Missing option '-o' / '--out'"),
        (["{data}/none", "-o", "{out}"], "does not exist"),
        (["{data}", "-o", "{out}/none/deeper"], "the folder of"),
        (["{data}", "-o", "{data}/street/det/det.txt"], "--out must be a folder for 2 sequences"),
        (["{data}", "-o", "{out}", "--method", "deep"], "is not one of"),
        (["{data}", "-o", "{out}", "--method", "byte", "--weights", "{data}/street/det/det.txt"], "--method mpn alone"),
        (["{data}", "-o", "{out}", "--interpolate", "-1"], "is not in the range"),
        (["{data}", "-o", "{out}", "--min-length", "few"], "is not a valid integer"),
        (["{data}", "-o", "{out}", "--score", "high"], "is not a valid float"),
        (["{data}", "-o", "{out}", "--score", "nan"], "must be finite"),
        (["{data}", "-o", "{out}", "--format", "xml"], "is not one of"),
    ],
)
def test_wrong_usage(sequences: Path, tmp_path: Path, arguments: list[str], words: str) -> None:
    result = invoke(*(a.format(data=sequences, out=tmp_path / "out") for a in arguments))
    assert result.exit_code == 2, result.output
    assert words in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_folder_without_detections(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    result = invoke(tmp_path / "empty", "-o", tmp_path / "out")
    assert (
        result.exit_code == 3 and "must hold detections as <seq>/det/det.txt or <seq>.txt, got nothing" in result.stderr
    )


def test_help_has_an_example_and_the_methods() -> None:
    result = invoke("--help")
    assert result.exit_code == 0 and "Example:  cv3gpu track" in result.stdout
    assert "|".join(_track.METHODS) in result.stdout


def test_the_motion_of_the_camera_is_read_from_beside_the_detections(sequences: Path, tmp_path: Path) -> None:
    step = 40.0  # pixels a frame, wider than a person: to and fro
    shift = np.where(np.arange(40) % 2, step, -step)
    shaken = walkers(people=2, hidden=(0, 0))
    box = shaken.box.copy()
    box[:, 0] += np.cumsum(np.append(0.0, shift[1:]))[shaken.frame - 1]
    mot.write(sequences / "yard" / "det" / "det.txt", mot.Tracks(shaken.frame, shaken.id, box, score=shaken.score))
    rows = [[k + 1, 1, 0, dx, 0, 1, 0] for k, dx in enumerate(shift)]
    file = sequences / "yard" / "gmc.txt"
    np.savetxt(file, rows)
    assert _track.find(sequences)[1].camera == file and _track.find(sequences)[0].camera is None
    result = invoke(sequences / "yard", "-o", tmp_path / "steady.txt", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["sequences"]["yard"]["tracks"] == 2
    found = mot.read(tmp_path / "steady.txt")
    assert len(found) == 60  # and the boxes are where they were seen
    assert set(found.box[found.frame == 2, 0]) == set(box[shaken.frame == 2, 0])
    file.write_text("1 2 3\n")
    broken = invoke(sequences / "yard", "-o", tmp_path / "broken.txt")
    assert broken.exit_code == 3 and "gmc.txt:1: line must have 7 columns, got 3" in broken.output
    assert invoke(sequences / "yard", "--method", "byte", "-o", tmp_path / "byte.txt").exit_code == 0
