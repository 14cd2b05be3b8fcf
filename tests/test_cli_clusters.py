"""`cv3gpu segment kmeans`, `meanshift`, `spectral` and `ncut`: what they find, print, write and refuse."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import cv3gpu
from cv3gpu import _segment_cluster, cli, viz
from cv3gpu.cli import _shared
from tests.conftest import gpu_is_there

Image = pytest.importorskip("PIL.Image", reason="needs Pillow (pip install 'cv3gpu[viz]')")
pytest.importorskip("matplotlib", reason="needs matplotlib (pip install 'cv3gpu[viz]')")

H, W = 24, 31
PARTS = 3
COMMANDS = ("kmeans", "meanshift", "spectral", "ncut")


def invoke(*arguments: Any) -> Any:
    return CliRunner().invoke(cli.main, [*map(str, arguments)])


@pytest.fixture(scope="module")
def truth() -> np.ndarray:
    """A disc and a band on a ground."""
    y, x = np.indices((H, W))
    return np.where((y - 8) ** 2 + (x - 9) ** 2 < 30, 1, np.where(x > 21, 2, 0))


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory, truth: np.ndarray) -> Path:
    """Three colours and a little noise, as a file."""
    rng = np.random.default_rng(0)
    colours = np.array([[110, 110, 125], [165, 150, 105], [130, 80, 85]])[truth]
    path = tmp_path_factory.mktemp("data") / "image.png"
    Image.fromarray(np.clip(colours + rng.normal(0, 3, (H, W, 3)), 0, 255).astype(np.uint8)).save(path)
    return path


def run(picture: Path, out: Path, command: str, *more: Any) -> dict[str, Any]:
    result = invoke("segment", command, picture, "--out", out, "--json", *more)
    assert result.exit_code == 0, result.output
    assert result.stderr.replace(f"{_shared.COMPILING}\n", "") == ""  # the first run ever of some kernel
    return json.loads(result.stdout)


OPTIONS = {
    "kmeans": ["--clusters", PARTS],
    "meanshift": ["--min-size", 20, "--spatial", 25],
    "spectral": ["--segments", PARTS],
    "ncut": ["--segments", PARTS],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_it_finds_the_parts(picture: Path, truth: np.ndarray, tmp_path: Path, command: str) -> None:
    report = run(picture, tmp_path / "out", command, *OPTIONS[command])
    labels = np.array(Image.open(tmp_path / "out" / "labels.png"))
    assert cv3gpu.rand_index(labels, truth, adjusted=True) > 0.98
    assert (report["found"], report["height"], report["width"]) == (PARTS, H, W)
    sizes = np.sort(np.bincount(labels.ravel()))
    assert report["pixels"] == {"least": sizes[0], "median": sizes[1], "most": sizes[2]}
    extra = {"spectral": "eigenvectors.png", "ncut": "eigenvectors.png", "meanshift": "filtered.png"}.get(command)
    names = ["labels.png", "boundaries.png", "mean_colours.png", *([extra] if extra else [])]
    assert [Path(f).name for f in report["files"]] == names
    for file in report["files"]:
        assert np.ptp(np.array(Image.open(file))) > 0


def test_kmeans_is_that_of_the_library(picture: Path, tmp_path: Path) -> None:
    report = run(picture, tmp_path / "out", "kmeans", "--clusters", 5, "--nearness", 0.5, "--starts", 2, "--seed", 3)
    image = np.array(Image.open(picture))
    y, x = np.indices((H, W)) * 0.5
    points = np.concatenate([_segment_cluster.lab(image), y[..., None], x[..., None]], 2).reshape(-1, 5)
    want = cv3gpu.kmeans(points, 5, n_init=2, seed=3)
    assert report["inertia"] == pytest.approx(want.inertia, rel=1e-12)
    np.testing.assert_array_equal(np.array(Image.open(tmp_path / "out" / "labels.png")).ravel(), want.labels)


def test_ncut_of_superpixels_and_contours(picture: Path, truth: np.ndarray, tmp_path: Path) -> None:
    report = run(picture, tmp_path / "a", "ncut", "--superpixels", 30, "--max-ncut", 0.1)
    labels = np.array(Image.open(tmp_path / "a" / "labels.png"))
    assert cv3gpu.rand_index(labels, truth) > 0.9 and 20 < report["superpixels"] < 45
    assert all(cut["ncut"] <= 0.1 for cut in report["cuts"]) and len(report["cuts"]) == report["found"] - 1
    report = run(picture, tmp_path / "b", "ncut", "--kind", "contour", "--segments", 3, "--sigma-intensity", 0.05)
    labels = np.array(Image.open(tmp_path / "b" / "labels.png"))
    assert cv3gpu.rand_index(labels, truth) > 0.8 and report["converged"]


def test_spectral_chooses_a_number_by_itself(picture: Path, tmp_path: Path) -> None:
    report = run(picture, tmp_path / "out", "spectral")
    values = np.array(report["eigenvalues"])
    assert len(values) == 11 and report["found"] == cv3gpu.spectral.eigengap(values, max_clusters=10) in (2, PARTS)


def test_ncut_prints(picture: Path, tmp_path: Path) -> None:
    result = invoke("segment", "ncut", picture, "--segments", 2, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["cut", "ncut", "sizes"]
    number, value, *sizes = lines[2].split() if set(lines[1]) <= {"-", " "} else lines[1].split()
    assert number == "1" and 0 < float(value) < 0.1 and sum(int(s) for s in sizes if s != "|") == H * W
    assert "segments: 2" in lines and "converged: True" in lines


def test_warnings_are_lines(picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = _segment_cluster.k_means

    def warns(*args: Any) -> Any:
        warnings.warn("kmeans: something", UserWarning, stacklevel=2)
        return plain(*args)

    monkeypatch.setattr(_segment_cluster, "k_means", warns)
    result = invoke("segment", "kmeans", picture, "--out", tmp_path / "out")
    assert result.exit_code == 0 and "cv3gpu: kmeans: something\n" in result.stderr


def test_lab_is_that_of_scikit_image_and_back() -> None:
    colour = pytest.importorskip("skimage.color")
    image = np.random.default_rng(1).integers(0, 256, (20, 30, 3), np.uint8)
    image[0, :2] = [[0, 0, 0], [255, 255, 255]]
    np.testing.assert_allclose(_segment_cluster.lab(image), colour.rgb2lab(image), atol=2e-4)
    np.testing.assert_array_equal(_segment_cluster.rgb(_segment_cluster.lab(image)), image)


def test_eigenvectors_figure() -> None:
    vectors = np.random.default_rng(0).standard_normal((20, 30, 4))
    figure = viz.eigenvectors_figure(np.arange(1, 5) / 7, vectors, title="four")
    shown = [axis for axis in figure.axes if axis.get_visible()]
    assert [axis.get_title() for axis in shown] == ["2: λ = 0.143", "3: λ = 0.286", "4: λ = 0.429", "5: λ = 0.571"]
    assert viz.eigenvectors_figure(np.ones(1), np.zeros((5, 5, 1))).axes[0].images


@pytest.mark.parametrize("command", COMMANDS)
def test_bad_pictures_and_devices(tmp_path: Path, picture: Path, command: str) -> None:
    (tmp_path / "text.png").write_text("no picture")
    result = invoke("segment", command, tmp_path / "text.png", "--out", tmp_path / "out")
    assert result.exit_code == 3 and "must be an image" in result.stderr and not (tmp_path / "out").exists()
    if not gpu_is_there():
        result = invoke("segment", command, picture, "--device", "cuda", "--out", tmp_path / "out")
        assert result.exit_code == 4 and "--device cuda needs a GPU" in result.stderr


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("kmeans --clusters 0", "not in the range"),
        ("kmeans --nearness -1", "-1.0 is not a number from 0 on"),
        ("meanshift --range 0", "0.0 is not a positive number"),
        ("meanshift --kernel cubic", "is not one of"),
        ("spectral --segments 0", "not in the range"),
        ("spectral --radius inf", "inf is not a positive number"),
        ("spectral --assign hand", "is not one of"),
        ("ncut --max-ncut 3", "not in the range"),
        ("ncut --method kway", "--method kway needs --segments"),
        ("ncut --method kway --segments 3 --max-ncut 1", "--max-ncut goes with --method recursive"),
        ("ncut --superpixels 30 --radius 4", "--radius is of pixels: leave it out with --superpixels"),
        ("ncut --min-size 0", "not in the range"),
    ],
)
def test_usage_errors(picture: Path, words: str, text: str) -> None:
    command, *more = words.split()
    result = invoke("segment", command, picture, *more)
    assert result.exit_code == 2 and text in result.stderr
