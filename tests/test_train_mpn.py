"""Training of the neural solver: what it learns, that it resumes exactly, what it reads, and what it refuses."""

from __future__ import annotations

import csv
import json
from pathlib import Path as File
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

torch = pytest.importorskip("torch")

from cv3gpu import mot  # noqa: E402
from cv3gpu.cli import main  # noqa: E402
from cv3gpu.errors import DataFormatError  # noqa: E402
from cv3gpu.mot import _tracklets, neural  # noqa: E402
from cv3gpu.mot._tracklets import Level, Rows  # noqa: E402
from cv3gpu.nn import _training, train_mpn  # noqa: E402
from tests.test_mpn import forgotten, walkers  # noqa: E402

DATA = File(__file__).resolve().parents[1] / ".." / "shared" / "data" / "mot"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data/mot")
pytestmark = pytest.mark.usefixtures("one_thread")

SMALL: dict[str, Any] = {
    "levels": (Level(2, 8, 2.0, 32), Level(16, 8, 4.0, 64, confirmed=True)),
    "network": {"steps": 2, "node_dim": 8, "edge_dim": 8, "node_hidden": [8], "edge_hidden": [16], "step_hidden": 16,
                "message_hidden": 8},
    "copies": 4,
    "epochs": (3, 6),
    "batch": 300,
    "lr": 5e-3,
}  # fmt: skip


def scene(seed: int, name: str = "street", camera: bool = False) -> train_mpn.Scene:
    """People who walk, and what hides them."""
    truth = walkers(60, seed=seed)
    still = np.tile(np.eye(2, 3), (60, 1, 1)) if camera else None
    return train_mpn.Scene(name, forgotten(truth), truth.id.copy(), np.zeros(len(truth)), still)


def write_folder(root: File, name: str = "street", detections: bool = True, hidden: bool = True) -> mot.Tracks:
    """A sequence as MOTChallenge has it."""
    truth = walkers(60, seed=5)
    folder = root / name
    (folder / "gt").mkdir(parents=True)
    visible = np.where(truth.id == 1, 0.25, 1.0)
    with open(folder / "gt" / "gt.txt", "w") as file:
        for f, i, b, v in zip(truth.frame, truth.id + 1, truth.box, visible, strict=True):
            file.write(f"{f},{i},{','.join(f'{x:.3f}' for x in b)},1,1,{v if hidden else -1}\n")
    if detections:
        (folder / "det").mkdir()
        with open(folder / "det" / "det.txt", "w") as file:
            for f, b in zip(truth.frame, truth.box, strict=True):
                file.write(f"{f},-1,{','.join(f'{x:.3f}' for x in b)},0.9,-1,-1,-1\n")
    return truth


# ---- learning -------------------------------------------------------------------------------------------


def test_what_is_trained_for_seconds_follows_people_who_cross(tmp_path: File) -> None:
    result = train_mpn.train([scene(s) for s in range(4)], tmp_path, seed=1, **{**SMALL, "epochs": (10, 14)})
    truth, seen = walkers(60, seed=11), forgotten(walkers(60, seed=11, drop=0.1))
    tracks, info = mot.track(seen, weights=result.weights, return_info=True)
    figures = mot.evaluate(truth, tracks, metrics=["identity", "clear"]).combined["all"]
    assert figures["IDF1"] > 0.95
    assert info.satisfied > 0.95
    first, last = (next(row for row in rows if row["level"] == 1) for rows in (result.curves, result.curves[9::-1]))
    assert last["epoch"] == 10
    assert last["loss"] < 0.5 * first["loss"]
    assert last["precision"] > 0.9
    assert last["recall"] > 0.9


def test_resumed_training_gives_the_same_weights(tmp_path: File, monkeypatch: pytest.MonkeyPatch) -> None:
    scenes = [scene(0, camera=True)]
    small = {**SMALL, "copies": 1}
    whole = train_mpn.train(scenes, tmp_path / "whole", **small)
    for stop_after in (2, 3, 5):  # within a level, between the two, within the second
        out = tmp_path / f"parts{stop_after}"
        with monkeypatch.context() as patch:
            saved, count = train_mpn._Run.save, 0

            def save(run: Any, saved: Any = saved, stop_after: int = stop_after) -> None:
                nonlocal count
                saved(run)
                count += 1
                if count == stop_after:
                    raise _training.Interrupted("enough")

            patch.setattr(train_mpn._Run, "save", save)
            with pytest.raises(_training.Interrupted):
                train_mpn.train(scenes, out, **small)
        parts = train_mpn.train(scenes, out, resume=True, **small)
        assert parts.weights.read_bytes() == whole.weights.read_bytes()
        wanted = [{k: v for k, v in row.items() if k != "seconds"} for row in whole.curves]
        assert [{k: v for k, v in row.items() if k != "seconds"} for row in parts.curves] == wanted
    other = train_mpn.train(scenes, tmp_path / "other", **{**small, "seed": 1})
    assert other.weights.read_bytes() != whole.weights.read_bytes()
    rows = list(csv.DictReader((tmp_path / "whole" / "curves.csv").read_text().splitlines()))
    assert [int(row["level"]) for row in rows] == [1, 1, 1, 2, 2, 2, 2, 2, 2]
    assert float(rows[-1]["loss"]) == whole.curves[-1]["loss"]


def test_a_signal_leaves_a_state_to_resume_from(tmp_path: File, monkeypatch: pytest.MonkeyPatch) -> None:
    import os
    import signal

    def word(text: str) -> None:
        if text == "level 1, epoch 2":
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(_training.Interrupted, match="level 1, epoch 2"):
        train_mpn.train([scene(0)], tmp_path, progress=word, **SMALL)
    assert _training.read_state(tmp_path / "state.pt")["epoch"] == 2
    done = train_mpn.train([scene(0)], tmp_path, resume=True, **SMALL)
    assert len(done.curves) == 9


def test_targets_leave_out_what_is_unknown_and_follow_identities() -> None:
    frame = np.array([1, 1, 2, 2, 3, 3])
    box = np.tile([[0.0, 0, 10, 20], [8, 0, 10, 20]], (3, 1))
    ids = np.array([5, -1, 5, -1, 5, 7])
    copy = train_mpn.Copy(Rows(frame, box, np.full(6, 0.9)), ids, np.arange(6))
    (graph,) = train_mpn._graphs(copy, Level(2, 16, 9.0, 8), 0.6)
    links = {
        tuple(map(int, link)): (bool(t), bool(k))
        for link, t, k in zip(graph.links.T, graph.target, graph.known, strict=True)
    }
    assert links[0, 2] == links[2, 4] == (True, True)
    assert links[0, 4] == (False, True)  # over the one between
    assert links[0, 3] == links[3, 5] == (False, True)
    assert links[1, 3] == (False, False)


def test_targets_of_a_tracklet_that_changed_its_identity() -> None:
    frame = np.arange(1, 13)
    ids = np.array([1, 1, 1, 1, 1, 1, 2, 2, 2, -1, 2, 1])
    label = np.repeat([0, 1, 2], [2, 6, 4])  # 1 1 | 1 1 1 1 2 2 | 2 -1 2 1
    copy = train_mpn.Copy(Rows(frame, np.tile([[0.0, 0, 10, 20]], (12, 1)), np.full(12, 0.9)), ids, label)
    nodes = _tracklets.summary(copy.rows, label)
    begins, ends = train_mpn._end_ids(copy, label, nodes)
    assert begins.tolist() == [1, 1, 2]
    assert ends.tolist() == [1, 2, 1]
    links = np.array([[0, 0, 1], [1, 2, 2]])
    target, known = train_mpn._targets(begins, ends, links, nodes)
    assert target.tolist() == [True, False, True]
    assert known.all()


def test_changed_copies_are_harder_but_true() -> None:
    given = scene(0, camera=True)
    counts = []
    for seed in range(12):
        copy = train_mpn.augmented(given, np.random.default_rng(seed), 0.1)
        n = len(copy.rows.frame)
        counts.append(n)
        assert (np.diff(copy.rows.frame) >= 0).all()
        assert copy.rows.frame.min() >= 1
        assert ((copy.rows.score >= 0.1) & (copy.rows.score < 1)).all()
        assert (copy.rows.box[:, 2:] > 0).all()
        assert np.isin(copy.ids, given.ids).all()
        assert len(np.unique(np.stack([copy.rows.frame, copy.ids]), axis=1).T) == n  # a person once in a frame
        again = train_mpn.augmented(given, np.random.default_rng(seed), 0.1)
        np.testing.assert_array_equal(copy.rows.box, again.rows.box)
    assert 20 < min(counts) < max(counts) <= len(given.ids)
    hidden = given._replace(hidden=np.where(given.ids == 1, 1.0, 0.0))
    share = [np.mean(train_mpn.augmented(hidden, np.random.default_rng(seed), 0.1).ids == 1) for seed in range(20)]
    assert np.mean(share) < 0.2  # of four people a quarter each


# ---- files ----------------------------------------------------------------------------------------------


def test_folder_is_read(tmp_path: File) -> None:
    truth = write_folder(tmp_path)
    np.savetxt(
        tmp_path / "street" / "gmc.txt", np.column_stack([np.arange(60), np.tile([1, 0, 2, 0, 1, 3.0], (60, 1))])
    )
    (one,) = train_mpn.read_sequences(tmp_path)
    assert one.name == "street"
    assert len(one.detections) == len(truth)
    np.testing.assert_array_equal(one.ids - 1, truth.id[np.argsort(truth.frame, kind="stable")])
    np.testing.assert_allclose(one.hidden, np.where(one.ids == 2, 0.75, 0.0))
    assert one.camera is not None
    assert one.camera.shape == (60, 2, 3)
    (first,), (second,) = (train_mpn.read_sequences(tmp_path, part=part) for part in ("first", "second"))
    assert first.detections.frame.max() == 30
    assert (second.detections.frame.min(), second.detections.frame.max()) == (1, 29)
    assert len(second.camera) == 29  # type: ignore[arg-type]
    assert len(train_mpn.read_sequences(tmp_path, low=0.95)[0].ids) == 0


def test_ground_truth_stands_in_for_detections(tmp_path: File) -> None:
    truth = write_folder(tmp_path, detections=False, hidden=False)
    (one,) = train_mpn.read_sequences(tmp_path)
    assert len(one.detections) == len(truth)
    assert (one.ids >= 0).all()
    assert (one.hidden == 0).all()


def test_command(tmp_path: File) -> None:
    pytest.importorskip("matplotlib")
    write_folder(tmp_path / "data")
    out = tmp_path / "out"
    words = ["train", "mpn", "--data", str(tmp_path / "data"), "--out", str(out), "--copies", "1", "--epochs", "1"]
    result = CliRunner().invoke(main, [*words, "--json"])
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert [row["level"] for row in told["rows"]] == [1, 2, 3][: len(told["rows"])]
    for file in told["files"]:
        assert File(file).stat().st_size
    assert neural.load_solver(out / "model.safetensors").levels == train_mpn.LEVELS
    plain = CliRunner().invoke(main, [*words, "--resume"])
    assert plain.exit_code == 0, plain.output
    assert "precision" in plain.output
    (tmp_path / "data" / "street" / "gt" / "gt.txt").write_text("1,2,oh\n")
    broken = CliRunner().invoke(main, words)
    assert broken.exit_code == 3
    assert CliRunner().invoke(main, [*words, "--lr", "-1"]).exit_code == 2


@needs_data
def test_real_sequence_is_read() -> None:
    found = train_mpn.read_sequences(DATA / "MOT17-yolox", part="first")
    assert [one.name for one in found] == [f"MOT17-{n}" for n in ("02", "04", "05", "09", "10", "11", "13")]
    one = found[1]
    assert one.camera is not None
    assert one.camera.shape == (525, 2, 3)
    assert 0.98 < (one.ids >= 0).mean() < 0.99
    assert one.hidden.max() > 0.5


def test_ablation_adds_each_line_once(tmp_path: File, monkeypatch: pytest.MonkeyPatch) -> None:
    from bench import tracking_ablation

    write_folder(tmp_path / "data")
    small = {**SMALL, "copies": 1, "epochs": (6, 1)}
    named = [("exact", {}), ("greedy", {"rounding": "greedy"}), ("no camera", {})]
    variants = [tracking_ablation.Variant(name, "small", small, use, name == "no camera") for name, use in named]
    monkeypatch.setattr(tracking_ablation, "variants", lambda seed: iter(variants))
    file = tmp_path / "table.csv"
    words = ["--data", str(tmp_path / "data"), "--out", str(tmp_path / "networks"), "--csv", str(file)]
    assert tracking_ablation.main([*words, "--only", "greedy"]) == 0
    for _ in range(2):
        assert tracking_ablation.main(words) == 0
    rows = list(csv.DictReader(file.read_text().splitlines()))
    assert [row["network"] for row in rows] == ["greedy", "exact", "no camera"]
    assert tuple(rows[0]) == tracking_ablation.HEADER
    assert float(rows[1]["HOTA"]) == float(rows[2]["HOTA"]) > 20
    assert [path.name for path in (tmp_path / "networks").iterdir()] == ["small"]


# ---- refusals -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"epochs": (1, 2, 3)[:1]}, ValueError, "epochs must be one number, or one for each of 2 levels"),
        ({"epochs": -1}, ValueError, "epochs must be from 0"),
        ({"levels": ()}, ValueError, "levels must be at least one"),
        ({"levels": (Level(9, 4, 1.0, 10),) * 2}, ValueError, "windows of at least twice their gap"),
        ({"network": {"shared": True}}, ValueError, "network must have weights for each level"),
        ({"network": {"node_features": 9}}, ValueError, "leave the numbers of features"),
        ({"network": {"depth": 9}}, TypeError, "depth"),
        ({"copies": 1.5}, TypeError, "copies must be an integer"),
        ({"batch": 0}, ValueError, "batch must be from 1"),
        ({"lr": 0.0}, ValueError, "lr must be finite and positive"),
        ({"pos_weight": -1.0}, ValueError, "pos_weight must be finite and positive"),
        ({"focal": "much"}, TypeError, "focal must be a number"),
        ({"seed": -1}, ValueError, "seed must be from 0"),
        ({"part": "third"}, ValueError, "part must be one of"),
    ],
)
def test_refused_settings(tmp_path: File, change: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        train_mpn.train([scene(0)], tmp_path, **{**SMALL, **change})
    assert not list(tmp_path.iterdir())


def test_refused_data_and_states(tmp_path: File) -> None:
    with pytest.raises(DataFormatError, match=r"must hold sequences as <seq>/gt/gt\.txt"):
        train_mpn.train(tmp_path, tmp_path / "out")
    write_folder(tmp_path)
    (tmp_path / "street" / "det" / "other.txt").write_text("")
    with pytest.raises(DataFormatError, match="one file of detections, got 2"):
        train_mpn.read_sequences(tmp_path)
    assert len(train_mpn.read_sequences(tmp_path, detections="det.txt")) == 1
    for text in ("a b c\n", "0 1 2\n", "0 1 0 0 0 1 nan\n" * 60):
        (tmp_path / "street" / "gmc.txt").write_text(text)
        with pytest.raises(DataFormatError, match=r"gmc\.txt"):
            train_mpn.read_sequences(tmp_path, detections="det.txt")

    out = tmp_path / "out"
    few = {**SMALL, "epochs": (1, 0)}
    train_mpn.train([scene(0)], out, **few)
    with pytest.raises(ValueError, match=r"lr must be 0\.005, got 0\.1; a training is resumed"):
        train_mpn.train([scene(0)], out, resume=True, **{**few, "lr": 0.1})
    state = torch.load(out / "state.pt", weights_only=True)
    del state["optimizer"]
    torch.save(state, out / "state.pt")
    with pytest.raises(DataFormatError, match="state of this training"):
        train_mpn.train([scene(0)], out, resume=True, **few)
    (out / "state.pt").write_bytes(b"\x80\x02K\x01.")
    with pytest.raises(DataFormatError, match="state of training"):
        train_mpn.train([scene(0)], out, resume=True, **few)


def test_a_loss_that_is_not_finite_stops(tmp_path: File) -> None:
    with pytest.raises(_training.DivergedError, match="the loss must be finite"):
        train_mpn.train([scene(0)], tmp_path, **{**SMALL, "pos_weight": 1e38})
