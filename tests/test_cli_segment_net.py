"""`cv3gpu segment net`: what it writes, prints and refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

torch = pytest.importorskip("torch")
Image = pytest.importorskip("PIL.Image", reason="needs Pillow (pip install 'cv3gpu[viz]')")
pytest.importorskip("matplotlib", reason="needs matplotlib (pip install 'cv3gpu[viz]')")
pytest.importorskip("safetensors")

from cv3gpu import _segment_net, _weights, cli, viz  # noqa: E402
from cv3gpu.nn import models, postprocess  # noqa: E402

H, W = 20, 31
NAMES = ["ground", "disc", "sea"]
CONFIG: dict[str, Any] = {
    "model": "unet",
    "num_classes": 3,
    "arguments": {"base_channels": 4},
    "mean": [0.5, 0.5, 0.5],
    "std": [0.25, 0.25, 0.25],
    "names": NAMES,
    "palette": [[10, 20, 30], [200, 100, 0]],
    "ignore_index": 255,
    "size": [16, 24],
}

KERNELS = {"theta_gamma": 2.0, "compat_smooth": 3.0, "theta_alpha": 30.0, "theta_beta": 20.0, "compat_bilateral": 8.0}

pytestmark = pytest.mark.usefixtures("one_thread")


def invoke(*arguments: Any) -> Any:
    return CliRunner().invoke(cli.main, [*map(str, arguments)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture, and weights of a network that has learned it."""
    where = tmp_path_factory.mktemp("net")
    y, x = np.indices((H, W))
    truth = np.where((y - 9) ** 2 + (x - 10) ** 2 < 40, 1, np.where(x > 22, 2, 0))
    colours = np.array([[90, 90, 90], [220, 60, 50], [40, 60, 210]])[truth]
    noisy = np.clip(colours + np.random.default_rng(0).normal(0, 12, (H, W, 3)), 0, 255).astype(np.uint8)
    Image.fromarray(noisy).save(where / "image.png")
    np.save(where / "truth.npy", truth)
    torch.manual_seed(0)
    network = models.unet(3, base_channels=4).eval()  # batch norms stay as they are
    images = torch.from_numpy((noisy / 255 - 0.5) / 0.25).float().permute(2, 0, 1)[None]
    target, optimizer = torch.from_numpy(truth)[None], torch.optim.Adam(network.parameters(), 0.01)
    for _ in range(40):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(network(images), target)
        loss.backward()
        optimizer.step()
    assert loss < 0.3
    arrays = {name: x.detach().numpy() for name, x in network.state_dict().items()}
    _weights.write(where / "w.safetensors", arrays, CONFIG)
    _weights.write(where / "plain.safetensors", arrays, {"arguments": {"base_channels": 4}})
    return where


def run(folder: Path, out: Path, *more: Any) -> dict[str, Any]:
    result = invoke(
        "segment", "net", folder / "image.png", "--weights", folder / "w.safetensors", "--out", out, "--json", *more
    )
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_what_it_writes(folder: Path, tmp_path: Path) -> None:
    truth, out = np.load(folder / "truth.npy"), tmp_path / "out"
    report = run(folder, out, "--size", f"{H}x{W}", "--probabilities")
    picture = Image.open(out / "labels.png")
    labels = np.array(picture)
    assert (labels == truth).mean() > 0.9
    assert picture.mode == "P" and picture.getpalette()[:6] == [10, 20, 30, 200, 100, 0]
    network, config = postprocess.load_network(folder / "w.safetensors")
    want = postprocess.predict(
        network, np.array(Image.open(folder / "image.png")), mean=config["mean"], std=config["std"]
    )
    assert np.array_equal(labels, want.labels)
    np.testing.assert_allclose(np.load(out / "probabilities.npy"), want.probabilities, atol=1e-6)
    assert [Path(f).name for f in report["files"]] == ["labels.png", "overlay.png", "legend.png", "probabilities.npy"]
    colours = viz.label_colours(256)
    colours[:2] = CONFIG["palette"]
    drawn = viz.overlay(np.array(Image.open(folder / "image.png")), labels, colours=colours, border=True)
    assert np.array_equal(np.array(Image.open(out / "overlay.png")), drawn)
    assert np.ptp(np.array(Image.open(out / "legend.png"))) > 0
    assert [(row["name"], row["pixels"]) for row in report["classes"]] == list(
        zip(NAMES, np.bincount(labels.ravel(), minlength=3).tolist(), strict=True)
    )
    assert sum(row["share"] for row in report["classes"]) == pytest.approx(1)
    best = want.probabilities.max(0)
    assert report["classes"][1]["confidence"] == pytest.approx(best[labels == 1].mean(), rel=1e-5)
    told = {key: report[key] for key in ("model", "height", "width", "shown", "crf", "device")}
    assert told == {"model": "unet", "height": H, "width": W, "shown": [H, W], "crf": False, "device": "cpu"}


def test_size_is_that_of_training_in_the_images_proportions(folder: Path, tmp_path: Path) -> None:
    report = run(folder, tmp_path / "out")
    rows, columns = report["shown"]
    assert abs(rows * columns - 16 * 24) < 30 and columns / rows == pytest.approx(W / H, rel=0.1)
    assert np.array(Image.open(tmp_path / "out" / "labels.png")).shape == (H, W)
    assert _segment_net.shown_size((10, 20), None) == (10, 20) and _segment_net.shown_size((1, 4000), (2, 2)) == (
        1,
        126,
    )


def test_crf(folder: Path, tmp_path: Path) -> None:
    truth = np.load(folder / "truth.npy")
    given = [word for name, value in KERNELS.items() for word in (f"--{name.replace('_', '-')}", value)]
    report = run(folder, tmp_path / "crf", "--crf", "--iterations", 3, "--size", "16x20", *given)
    labels = np.array(Image.open(tmp_path / "crf" / "labels.png"))
    run(folder, tmp_path / "plain", "--size", "16x20")
    plain = np.array(Image.open(tmp_path / "plain" / "labels.png"))
    network, config = postprocess.load_network(folder / "w.safetensors")
    image = np.array(Image.open(folder / "image.png"))
    how = {"mean": config["mean"], "std": config["std"], "size": (16, 20), "crf": {"n_iter": 3, **KERNELS}}
    want = postprocess.predict(network, image, **how)
    assert np.array_equal(labels, want.refined)
    assert report["iterations"] == 3 and KERNELS.items() <= report.items()
    assert (labels == truth).mean() > (plain == truth).mean() > 0.8  # borders were seen in coarse pixels


def test_table_and_the_other_weights(folder: Path, tmp_path: Path) -> None:
    given = ["--weights", folder / "plain.safetensors", "--model", "unet", "--classes", "a,b,c", "--size", "20x31"]
    result = invoke("segment", "net", folder / "image.png", *given, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["class", "pixels", "share", "mean", "probability"]
    counts = [int(line.split()[1]) for line in lines[1:4]]
    assert sum(counts) == H * W and counts == sorted(counts, reverse=True)
    assert {line.split()[0] for line in lines[1:4]} == {"a", "b", "c"} and "legend.png" in result.stdout


def test_class_that_is_nowhere() -> None:
    rows = _segment_net.shares(np.zeros((2, 3), int), np.full((2, 2, 3), 0.5, np.float32), ["x", "y"])
    assert rows == [("x", 6, 1.0, 0.5), ("y", 0, 0.0, None)]


@pytest.mark.parametrize(
    ("code", "text", "change"),
    [
        (2, "Missing option '--weights'", {"--weights": None}),
        (2, "--iterations needs --crf", {"--iterations": 4}),
        (2, "--theta-beta needs --crf", {"--theta-beta": "4,4,4"}),
        (2, "is not a size", {"--size": "20"}),
        (2, "is not a size", {"--size": "0x9"}),
        (2, "is not a size", {"--size": "9x99999"}),
        (2, "--classes must be different names", {"--classes": "a,a,b"}),
        (2, "does not exist", {"--weights": "nowhere.safetensors"}),
        (2, "the folder of", {"--out": "no/where/out"}),
        (3, "names must be 3 words", {"--classes": "a,b"}),
        (3, "model must be segnet, got 'unet'", {"--model": "segnet"}),
        (3, "model must be said, one of", {"--weights": "plain.safetensors"}),
        (3, "must be a safetensors file", {"--weights": "image.png"}),
        (3, "must be an image", {"image": "w.safetensors"}),
        (
            3,
            "must hold a network and its weights",
            {"--weights": "plain.safetensors", "--model": "segnet", "--classes": "a,b,c"},
        ),
        (3, "unet: x must have at least", {"--size": "4x4"}),
    ],
)
def test_refusals(folder: Path, tmp_path: Path, code: int, text: str, change: dict[str, Any]) -> None:
    given = {"--weights": "w.safetensors", "--out": "out"} | change
    image, arguments = folder / given.pop("image", "image.png"), []
    for name, value in given.items():
        if value is not None:
            arguments += [
                name,
                folder / value if name == "--weights" else tmp_path / value if name == "--out" else value,
            ]
    result = invoke("segment", "net", image, *arguments)
    assert result.exit_code == code, result.output
    assert text in " ".join(result.stderr.split()).replace("│ ", "")
    assert not (tmp_path / "out").exists()


def test_no_gpu(folder: Path, tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    result = invoke(
        "segment",
        "net",
        folder / "image.png",
        "--weights",
        folder / "w.safetensors",
        "--device",
        "cuda",
        "--out",
        tmp_path / "o",
    )
    assert result.exit_code == 4 and "needs a GPU" in result.stderr


def test_help_has_an_example() -> None:
    result = invoke("segment", "net", "--help")
    assert result.exit_code == 0 and "Example:  cv3gpu segment net photo.jpg --weights" in result.output
