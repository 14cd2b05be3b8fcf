"""`cv3gpu train seg`: what it reads, prints, writes and refuses."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

pytest.importorskip("torch")
pytest.importorskip("PIL.Image", reason="needs Pillow (pip install 'cv3gpu[viz]')")
pytest.importorskip("matplotlib", reason="needs matplotlib (pip install 'cv3gpu[viz]')")

from cv3gpu import _weights, cli, viz
from cv3gpu.cli._shared import COMPILING
from cv3gpu.nn import models, train_seg
from tests.conftest import gpu_is_there
from tests.test_train_seg import IGNORED, archive, files_of, one_core  # noqa: F401

FEW = ("--ignore", IGNORED, "--width", 4, "--size", "32x40", "--epochs", 2, "--batch", 4, "--warmup", 1)
FILES = ["best.safetensors", "curves.png", "last.safetensors", "metrics.csv", "state.pt"]


def invoke(*arguments: Any) -> Any:
    return CliRunner().invoke(cli.main, ["train", "seg", *map(str, arguments)])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return archive(tmp_path_factory.mktemp("data") / "shapes.zip", files_of({"train": 12, "val": 3, "test": 3}))


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are not drawn, which takes most of the time."""
    monkeypatch.setattr(viz, "save", lambda figure, path: path.touch())


def test_it_trains_and_says_how_well(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = invoke("--data", data, *FEW, "--names", "ground,disc,box", "--out", out, "--json")
    assert result.exit_code == 0 and result.stderr.replace(f"{COMPILING}\n", "") == "", result.stderr
    told = json.loads(result.stdout)
    assert sorted(p.name for p in out.iterdir()) == FILES
    assert sorted(told["files"]) == [str(out / name) for name in FILES]
    assert [row["epoch"] for row in told["rows"]] == [1, 2]
    assert told["settings"]["arguments"] == {"base_channels": 4}
    config = _weights.read(out / "best.safetensors")[1]
    assert config["names"] == ["ground", "disc", "box"]
    assert (config["model"], config["num_classes"], config["arguments"]) == ("unet", 3, {"base_channels": 4})
    scores, _ = train_seg.score(data, out / "best.safetensors")
    assert told["test"]["mean_iou"] == pytest.approx(scores.mean_iou, abs=1e-9)


@pytest.mark.usefixtures("no_figures")
def test_it_prints_a_table_and_goes_on(data: Path, tmp_path: Path) -> None:
    arguments = ("--data", data, *FEW, "--out", tmp_path / "out", "--model", "deeplabv3plus")
    options = ("--argument", "backbone=resnet18", "--argument", "output_stride=8", "--class-weights", "--seed", 3)
    first = invoke(*arguments, *options)
    assert first.exit_code == 0 and first.stderr.replace(f"{COMPILING}\n", "") == "", first.stderr
    lines = first.stdout.splitlines()
    assert lines[0].split() == ["epoch", "loss", "lr", "mIoU", "pixel_accuracy", "class_accuracy", "seconds"]
    assert [line.split()[0] for line in lines[1:3]] == ["1", "2"]
    assert "best epoch: " in first.stdout
    assert "test: mIoU " in first.stdout
    assert str(tmp_path / "out" / "best.safetensors") in first.stdout
    config = _weights.read(tmp_path / "out" / "best.safetensors")[1]
    assert config["arguments"] == {"backbone": "resnet18", "base_channels": 4, "output_stride": 8}
    again = invoke(*arguments, *options)
    assert again.exit_code == 2
    assert "out must hold no training that was begun" in again.stderr
    resumed = invoke(*arguments, *options, "--resume")
    assert resumed.stdout == first.stdout
    other = invoke(*arguments, "--resume")
    assert other.exit_code == 2
    assert "must be" in other.stderr


@pytest.mark.usefixtures("no_figures")
def test_an_interrupted_training_says_so_and_is_resumed(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("--data", data, *FEW, "--out", tmp_path / "out")
    step = train_seg._Run.one_step

    def stopped(self: Any, *given: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        return step(self, *given)

    monkeypatch.setattr(train_seg._Run, "one_step", stopped)
    result = invoke(*arguments)
    assert result.exit_code == 1
    assert "stopped at epoch 1, step 1; resume goes on from there" in result.stderr
    monkeypatch.undo()
    monkeypatch.setattr(viz, "save", lambda figure, path: path.touch())
    assert invoke(*arguments, "--resume").exit_code == 0


def test_a_loss_that_is_not_finite_is_a_failure(data: Path, tmp_path: Path) -> None:
    result = invoke("--data", data, *FEW, "--lr", 1e30, "--warmup", 0, "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert "the loss must be finite" in result.stderr


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        (("--size", "32"), 2, "'32' is not a size"),
        (("--size", "0x4"), 2, "'0x4' is not a size"),
        (("--argument", "depth"), 2, "'depth' is not NAME=VALUE"),
        (("--argument", "depth=3"), 2, "unexpected keyword argument 'depth'"),
        (("--width", "6"), 2, "base_channels must be a multiple of 4, got 6"),
        (("--model", "vgg"), 2, "'vgg' is not one of"),
        (("--batch", "13"), 2, "batch must be at most the 12 images"),
        (("--names", "a,b"), 2, "names must be 3 names, got 2"),
        (("--lr", "0"), 2, "Invalid value for '--lr'"),
        (("--precision", "float16"), 2, "precision must be another on a CPU"),
        (("--classes", "2"), 3, "labels must be from 0 to 1 or the ignored 9, got 2"),
    ],
    ids=lambda value: "-".join(value).strip("-") if isinstance(value, tuple) else "",
)
def test_refusals(data: Path, tmp_path: Path, more: tuple[str, ...], code: int, said: str) -> None:
    result = invoke("--data", data, *FEW, "--out", tmp_path / "out", *more)
    assert (result.exit_code, said in result.stderr) == (code, True), result.stderr
    assert not (tmp_path / "out").exists()


def test_bad_files_are_bad_data(data: Path, tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_bytes(b"no archive")
    result = invoke("--data", tmp_path / "x.zip", *FEW, "--out", tmp_path / "out")
    assert result.exit_code == 3
    assert "must be a folder or a zip file" in result.stderr
    result = invoke("--data", data, *FEW, "--init-from", tmp_path / "x.zip", "--out", tmp_path / "out")
    assert result.exit_code == 3
    assert "must be a safetensors file" in result.stderr


@pytest.mark.skipif(gpu_is_there(), reason="there is a GPU")
def test_a_missing_gpu_has_its_code(data: Path, tmp_path: Path) -> None:
    assert invoke("--data", data, *FEW, "--device", "cuda", "--out", tmp_path / "out").exit_code == 4


def test_help_names_the_librarys_networks() -> None:
    assert set(cli.train.NETWORKS) == {name for name in models.__all__ if not name.startswith("mpn")}
    text = invoke("--help").stdout
    assert "Example:  cv3gpu train seg --data CamVid.zip" in text
