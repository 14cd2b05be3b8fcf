"""Training of segmentation networks: data, augmentation, loss, steps, resuming, processes, and what is refused."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
Image = pytest.importorskip("PIL.Image", reason="needs Pillow (pip install 'cv3gpu[viz]')")

import cv3gpu  # noqa: E402
from bench import camvid, segmentation_ablation  # noqa: E402
from cv3gpu import _weights, viz  # noqa: E402
from cv3gpu.errors import DataFormatError  # noqa: E402
from cv3gpu.nn import _training, segmentation_data, train_seg  # noqa: E402
from cv3gpu.nn.segmentation_data import Augmentation, Split, TrainingSet  # noqa: E402
from cv3gpu.nn.stock import stock  # noqa: E402
from cv3gpu.nn.train_seg import Recipe  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
H, W = 32, 40
IGNORED = 9


@pytest.fixture(autouse=True)
def one_core() -> Any:
    """Sums are added up in one order, and other tests have the other cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def scene(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A red disc and a blue box on noise, and their labels; the border is ignored."""
    rng = np.random.default_rng(seed)
    image = rng.integers(90, 150, (H, W, 3)).astype(np.uint8)
    label = np.zeros((H, W), np.uint8)
    y, x = np.indices((H, W))
    cy, cx, r = rng.integers(8, H - 8), rng.integers(8, W - 8), rng.integers(5, 9)
    top, left = rng.integers(1, H - 13), rng.integers(1, W - 13)
    disc = (y - cy) ** 2 + (x - cx) ** 2 < r * r
    box = (y >= top) & (y < top + 11) & (x >= left) & (x < left + 11) & ~disc
    for n, (mask, colour) in enumerate(((disc, (210, 60, 50)), (box, (50, 60, 210))), 1):
        image[mask] = rng.integers(-20, 20, (int(mask.sum()), 3)) + colour
        label[mask] = n
    label[: seed % 5] = IGNORED  # of images differently much: a mean of means would be another one
    return image, label


def png(values: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(values).save(file, "PNG")
    return file.getvalue()


def files_of(counts: dict[str, int]) -> dict[str, bytes]:
    """The files of a data set."""
    found, seed = {}, 0
    for split, count in counts.items():
        for i in range(count):
            image, label = scene(seed)
            found[f"{split}/{i:02}.png"], found[f"{split}annot/{i:02}.png"] = png(image), png(label)
            seed += 1
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("shapes")
    for name, data in files_of({"train": 25, "val": 6, "test": 6}).items():
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_bytes(data)
    return out


def archive(path: Path, files: dict[str, bytes], prefix: str = "") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in files.items():
            file.writestr(prefix + name, data)
    return path


class Tiny(torch.nn.Sequential):
    """Logits at half of the image's size."""

    def __init__(self, n_classes: int, dropout: float = 0.2) -> None:
        layers: list[Any] = []
        for before, width, stride in ((3, 12, 2), (12, 16, 1)):
            layers += [
                cv3gpu.nn.Conv2d(before, width, 3, stride, padding=1),
                torch.nn.BatchNorm2d(width),
                torch.nn.ReLU(),
            ]
        super().__init__(*layers, torch.nn.Dropout(dropout), cv3gpu.nn.Conv2d(16, n_classes, 1))


PLAIN = Recipe(
    model="tiny", size=(H, W), ignore_index=IGNORED, epochs=3, batch=4, lr=0.1, warmup=2,
    augmentation=Augmentation(scale=(0.8, 1.25)),
)  # fmt: skip


def changed(**values: Any) -> Recipe:
    return dataclasses.replace(PLAIN, **values)


def weights_in(out: Path, name: str = "last.safetensors") -> dict[str, np.ndarray]:
    return _weights.read(out / name)[0]


def rows_in(out: Path) -> list[dict[str, str]]:
    with open(out / "metrics.csv") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


# ---- data -----------------------------------------------------------------------------------------------


def test_folder_and_zip_hold_the_same(folder: Path, tmp_path: Path) -> None:
    files = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*.png")}
    found = [
        segmentation_data.read_split(segmentation_data.opened(path), "val", (H, W))
        for path in (folder, archive(tmp_path / "a.zip", files), archive(tmp_path / "b.zip", files, "CamVid/"))
    ]
    assert [len(split) for split in found] == [6, 6, 6]
    for i, (image, label) in enumerate(scene(25 + i) for i in range(6)):
        for split in found:
            assert np.array_equal(split.images[i], image)
            assert np.array_equal(split.labels[i], label)


def test_pictures_are_resized_and_labels_keep_their_size_where_wanted(folder: Path) -> None:
    source = segmentation_data.opened(folder)
    small = segmentation_data.read_split(source, "test", (16, 20))
    own = segmentation_data.read_split(source, "test", (16, 20), own_labels=True)
    assert {image.shape for image in small.images} == {(16, 20, 3)}
    assert {label.shape for label in small.labels} == {(16, 20)}
    assert {label.shape for label in own.labels} == {(H, W)}
    assert set(np.unique(small.labels[0])) <= set(np.unique(own.labels[0]))
    assert np.abs(small.images[0].mean((0, 1)) - own.images[0].mean((0, 1))).max() == 0


def test_an_indexed_picture_gives_the_palette(tmp_path: Path) -> None:
    for name in ("train", "trainannot"):
        (tmp_path / name).mkdir()
    image, label = scene(0)
    Image.fromarray(image).save(tmp_path / "train/a.jpg")
    indexed = Image.fromarray(label)
    indexed.putpalette([1, 2, 3, 4, 5, 6] + [0] * 762)
    indexed.save(tmp_path / "trainannot/a.png")
    split = segmentation_data.read_split(segmentation_data.opened(tmp_path), "train", (H, W))
    assert split.palette is not None
    assert split.palette[:2] == [[1, 2, 3], [4, 5, 6]]
    assert np.array_equal(split.labels[0], label)


GOOD = files_of({"train": 1})
ONE, ANNOTATED = GOOD["train/00.png"], GOOD["trainannot/00.png"]


@pytest.mark.parametrize(
    ("files", "said"),
    [
        pytest.param({"train/a.png": ONE}, "must have a label picture in trainannot", id="no label"),
        pytest.param({"train/notes.txt": b"x"}, "must hold images in a folder train, got none", id="no image"),
        pytest.param(GOOD | {"train/00.png": b"not a picture"}, "must be an image", id="no picture"),
        pytest.param(GOOD | {"train/00.png": ONE[: len(ONE) // 2]}, "must be a whole image", id="cut short"),
        pytest.param(GOOD | {"trainannot/00.png": ONE}, "must be a grey or indexed picture", id="RGB label"),
        pytest.param(GOOD | {"train/00.png": png(np.zeros((4, 4), np.uint16))}, "8 bits a channel", id="16 bits"),
        pytest.param(
            GOOD | {"trainannot/00.png": png(np.zeros((4, 4), np.uint8))}, "must be 40 x 32 pixels", id="other size"
        ),
        pytest.param(GOOD | {"../up.png": ONE}, "must lead to a file inside the archive", id="above"),
        pytest.param(GOOD | {"/root.png": ONE}, "must lead to a file inside the archive", id="absolute"),
        pytest.param(GOOD | {"train/..\\x.png": ONE}, "must lead to a file inside the archive", id="backslash"),
        pytest.param(GOOD | {"C:/x.png": ONE}, "must lead to a file inside the archive", id="drive"),
        pytest.param(GOOD | {"b/train/00.png": ONE}, "must hold one folder train, got 2", id="two roots"),
    ],
)  # fmt: skip
def test_bad_data_are_refused(tmp_path: Path, files: dict[str, bytes], said: str) -> None:
    path = archive(tmp_path / "data.zip", files)
    with pytest.raises(DataFormatError, match=said) as caught:
        segmentation_data.read_split(segmentation_data.opened(path), "train", (H, W))
    assert str(path) in str(caught.value)


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = archive(tmp_path / "data.zip", GOOD | {"train/01.png": b"\0" * (1 << 16)})
    monkeypatch.setattr(segmentation_data, "MOST_BYTES", 1 << 15)
    with pytest.raises(DataFormatError, match=r"train/01.png: must have at most 32768 bytes, got 65536"):
        segmentation_data.opened(path)
    monkeypatch.setattr(segmentation_data, "MOST_BYTES", 1 << 20)
    monkeypatch.setattr(segmentation_data, "MOST_PIXELS", 1000)
    path = archive(tmp_path / "good.zip", GOOD)
    with pytest.raises(DataFormatError, match="must have at most 1000 pixels, got 40 x 32"):
        segmentation_data.read_split(segmentation_data.opened(path), "train", (H, W))


def test_an_archive_that_lies_or_is_damaged_is_refused(tmp_path: Path) -> None:
    path = archive(tmp_path / "data.zip", GOOD)
    data = bytearray(path.read_bytes())
    data[60] ^= 255
    (tmp_path / "damaged.zip").write_bytes(data)
    (tmp_path / "none.zip").write_bytes(b"PK no archive")
    with pytest.raises(DataFormatError, match="must be readable"):
        segmentation_data.read_split(segmentation_data.opened(tmp_path / "damaged.zip"), "train", (H, W))
    with pytest.raises(DataFormatError, match="must be a folder or a zip file"):
        segmentation_data.opened(tmp_path / "none.zip")
    with pytest.raises(FileNotFoundError):
        segmentation_data.opened(tmp_path / "nowhere")


def test_figures_of_a_data_set() -> None:
    pairs = [scene(i) for i in range(7)]
    split = Split(tuple("abcdefg"), tuple(p[0] for p in pairs), tuple(p[1] for p in pairs), None)
    assert segmentation_data.n_classes_of(split, IGNORED) == 3
    with pytest.raises(DataFormatError, match="a: labels must be from 0 to 1 or the ignored 9, got 2"):
        segmentation_data.n_classes_of(split, IGNORED, 2)
    every = np.concatenate([image.reshape(-1, 3) for image, _ in pairs]) / 255
    mean, std = segmentation_data.colour_statistics(split)
    assert np.allclose(mean, every.mean(0))
    assert np.allclose(std, every.std(0))
    assert np.allclose(
        segmentation_data.normalised(pairs[0][0], mean, std), (pairs[0][0] / 255 - mean) / std, atol=1e-5
    )
    frequency = []
    for c in range(3):
        there = [label for _, label in pairs if (label == c).any()]
        frequency.append(sum((label == c).sum() for label in there) / sum((label != IGNORED).sum() for label in there))
    wanted = [*(np.median(frequency) / frequency), 1.0]
    assert np.allclose(segmentation_data.median_frequency_weights(split, 4), wanted)


# ---- augmentation ---------------------------------------------------------------------------------------


def test_no_augmentation_is_the_image() -> None:
    image, label = scene(3)
    rng = np.random.default_rng(0)
    x, y = segmentation_data.augmented(image, label, Augmentation.none(), rng, [0.5] * 3, IGNORED)
    assert x.dtype == np.float32
    assert np.array_equal(x, image)
    assert np.array_equal(y, label)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6), scale=st.floats(0.5, 2.0))
def test_image_and_labels_are_moved_together(seed: int, scale: float) -> None:
    """Labels number the pixels of a ramp: where a label went, the grey value of its place must be."""
    ramp = np.arange(W, dtype=np.uint8)[None].repeat(H, 0)
    image = np.stack([ramp * 4] * 3, 2)
    how = Augmentation((scale, scale), True, 0.0, 0.0, 0.0)
    rng = np.random.default_rng(seed)
    x, y = segmentation_data.augmented(image, ramp, how, rng, [1.0] * 3, 255)
    inside = y != 255
    assert np.abs(x[..., 0][inside] - 4.0 * y[inside]).max() <= 4.0 * max(1.0, 1 / scale)
    assert (x[~inside] == 255).all()
    share = min(1.0, scale) ** 2
    assert abs(inside.mean() - share) < 0.08
    steps = np.diff(y[inside.any(1)][0][inside.any(0)].astype(int))
    assert (steps >= 0).all() or (steps <= 0).all()


def test_colours_change_within_their_factors() -> None:
    image, label = np.full((4, 4, 3), 100, np.uint8), np.zeros((4, 4), np.uint8)
    how = Augmentation((1.0, 1.0), False, 0.3, 0.0, 0.0)
    found = [
        segmentation_data.augmented(image, label, how, np.random.default_rng(i), [0] * 3, 9)[0] for i in range(200)
    ]
    means = np.array([x.mean() for x in found])
    assert 70 <= means.min() < 75
    assert 125 < means.max() <= 130
    assert all(np.ptp(x) < 1e-3 for x in found)
    grey = segmentation_data.augmented(
        scene(0)[0], scene(0)[1], Augmentation((1.0, 1.0), False, 0.0, 0.0, 0.9), np.random.default_rng(0), [0] * 3, 9
    )[0]
    assert grey.std(2).mean() != pytest.approx(scene(0)[0].std(2).mean(), rel=0.05)


def test_a_sample_depends_on_seed_epoch_and_number_alone() -> None:
    pairs = [scene(i) for i in range(6)]
    split = Split(tuple("abcdef"), tuple(p[0] for p in pairs), tuple(p[1] for p in pairs), None)
    config = {"mean": [0.5] * 3, "std": [0.2] * 3, "ignore_index": IGNORED}
    keys = [[(1, 4), (1, 2)], [(2, 4), (1, 0)]]
    data = TrainingSet(split, Augmentation(), config, 5)
    before = torch.get_rng_state()
    here = list(segmentation_data.batches(data, keys, 0))
    assert torch.equal(before, torch.get_rng_state())
    assert here[0][0].is_contiguous(memory_format=torch.channels_last)
    for workers in (0, 2):
        for got, wanted in zip(segmentation_data.batches(data, keys, workers), here, strict=True):
            assert torch.equal(got[0], wanted[0])
            assert torch.equal(got[1], wanted[1])
    assert torch.equal(data[(1, 4)][0], here[0][0][0].permute(1, 2, 0))
    assert not torch.equal(here[0][0][0], here[1][0][0])  # another epoch
    assert not torch.equal(data[(1, 4)][0], TrainingSet(split, Augmentation(), config, 6)[(1, 4)][0])
    assert sorted(segmentation_data.order(50, 0, 3)) == list(range(50))
    assert segmentation_data.order(50, 0, 3) != segmentation_data.order(50, 0, 4)


# ---- loss and evaluation --------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["cv3gpu", "torch"])
@pytest.mark.parametrize("size", [(H, W), (9, 11)], ids=["same size", "smaller"])
def test_the_loss_is_torchs_in_float64(backend: str, size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    logits = torch.from_numpy(rng.normal(size=(2, 3, *size)).astype(np.float32)).requires_grad_()
    labels = torch.from_numpy(np.stack([scene(1)[1], scene(2)[1]]))
    weight = torch.tensor([0.5, 1.0, 2.0])
    loss = train_seg.summed_loss(logits, labels, weight, ignore_index=IGNORED, backend=backend)
    loss.backward()
    exact = logits.detach().double().requires_grad_()
    large = torch.nn.functional.interpolate(exact, (H, W), mode="bilinear")
    wanted = torch.nn.functional.cross_entropy(
        large, labels.long(), weight.double(), ignore_index=IGNORED, reduction="sum"
    )
    wanted.backward()
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-5)
    assert torch.allclose(logits.grad.double(), exact.grad, atol=1e-4)


def test_evaluation_counts_at_the_size_of_the_labels(folder: Path) -> None:
    split = segmentation_data.read_split(segmentation_data.opened(folder), "test", (24, 28), own_labels=True)
    torch.manual_seed(0)
    network = Tiny(3).train()
    config = {"mean": [0.4, 0.5, 0.6], "std": [0.2] * 3, "num_classes": 3, "ignore_index": IGNORED}
    found = {
        backend: train_seg.evaluate(network, split, config, batch=4, backend=backend) for backend in ("cv3gpu", "torch")
    }
    assert network.training
    wanted = np.zeros((3, 3), np.int64)
    exact = Tiny(3).double().eval()
    exact.load_state_dict(network.state_dict())
    for image, label in zip(split.images, split.labels, strict=True):
        x = torch.from_numpy((image / 255 - config["mean"]) / config["std"]).permute(2, 0, 1)[None]
        with torch.inference_mode():
            large = torch.nn.functional.interpolate(exact(x), (H, W), mode="bilinear")
        pred, known = large.argmax(1)[0].numpy(), label != IGNORED
        wanted += np.bincount(3 * label[known].astype(int) + pred[known], minlength=9).reshape(3, 3)
    for matrix in found.values():
        assert matrix.sum() == wanted.sum()
        assert np.abs(matrix - wanted).sum() <= 4  # rounding decides ties
    scores = train_seg.scores_of(found["cv3gpu"])
    assert scores.mean_iou == cv3gpu.mean_iou(found["cv3gpu"])
    assert scores.class_accuracy == pytest.approx(np.mean(np.diag(wanted) / wanted.sum(1)), abs=0.01)


# ---- training -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, train_seg.Result, list[str]]:
    """A training that is long enough."""
    out, lines = tmp_path_factory.mktemp("trained") / "run", []
    recipe = changed(epochs=10, class_weights=True, names=["ground", "disc", "box"])
    return out, train_seg.train(folder, out, recipe, make=Tiny, begin=lines.append), lines


def test_a_small_network_learns_the_shapes(folder: Path, trained: Any) -> None:
    _, result, lines = trained
    assert result.best_mean_iou > 0.8
    scores, confusion = train_seg.score(folder, result.weights, make=Tiny)
    assert scores.mean_iou > 0.8
    assert scores.pixel_accuracy > 0.9
    assert confusion.sum() == sum((scene(31 + i)[1] != IGNORED).sum() for i in range(6))
    assert result.rows[-1]["loss"] < 0.5 * result.rows[0]["loss"]
    assert [row["epoch"] for row in result.rows] == list(range(1, 11))
    assert result.best_mean_iou == max(row["mIoU"] for row in result.rows)
    assert len(lines) == 10
    assert lines[0] == "epoch 1"


def test_what_is_written(folder: Path, trained: Any) -> None:
    out, result, _ = trained
    assert sorted(p.name for p in out.iterdir()) == ["best.safetensors", "last.safetensors", "metrics.csv", "state.pt"]
    arrays, config = _weights.read(result.weights)
    assert set(arrays) == set(Tiny(3).state_dict())
    assert {k: config[k] for k in ("model", "num_classes", "ignore_index", "names", "size")} == {
        "model": "tiny", "num_classes": 3, "ignore_index": IGNORED, "names": ["ground", "disc", "box"], "size": [H, W],
    }  # fmt: skip
    assert config["epoch"] == result.best_epoch
    assert config["mIoU"] == result.best_mean_iou
    with open(out / "metrics.csv") as file:
        rows = list(csv.DictReader(file))
    assert [{k: float(v) for k, v in row.items()} for row in rows] == result.rows
    network, again = train_seg.load(result.weights, make=Tiny)
    assert again == config
    assert not network.training
    json.dumps(config)
    panels = {"loss": ["loss"], "validation": ["mIoU", "pixel_accuracy"]}
    viz.save(viz.curves_figure(result.rows, panels, title="tiny"), out.parent / "curves.png")
    with Image.open(out.parent / "curves.png") as picture:
        assert picture.size[0] > 800


def test_a_resumed_training_ends_with_the_same_bits(folder: Path, tmp_path: Path) -> None:
    train_seg.train(folder, tmp_path / "whole", PLAIN, make=Tiny)

    def stop(line: str) -> None:
        if line.startswith("epoch 2"):
            os.kill(os.getpid(), signal.SIGINT)  # taken after the first step of the epoch

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(_training.Interrupted, match=r"epoch 2, step 1; resume"):
        train_seg.train(folder, tmp_path / "parts", PLAIN, make=Tiny, begin=stop, resume=True)
    assert signal.getsignal(signal.SIGINT) is before
    state = torch.load(tmp_path / "parts/state.pt", weights_only=True)
    assert (state["epoch"], state["step"]) == (1, 1)
    result = train_seg.train(folder, tmp_path / "parts", PLAIN, make=Tiny, resume=True)
    for name in ("best.safetensors", "last.safetensors"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes()
    assert rows_in(tmp_path / "whole") == rows_in(tmp_path / "parts")
    again = train_seg.train(folder, tmp_path / "parts", PLAIN, make=Tiny, resume=True)  # nothing is left to do
    assert again.rows == result.rows


def test_seeds_give_other_networks_and_the_callers_generator_is_left_alone(folder: Path, tmp_path: Path) -> None:
    recipe = changed(epochs=1)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train_seg.train(folder, tmp_path / name, dataclasses.replace(recipe, seed=seed), make=Tiny)
    assert torch.equal(before, torch.get_rng_state())
    first, same, other = (weights_in(tmp_path / name)["0.weight"] for name in "abc")
    assert np.array_equal(first, same)
    assert not np.array_equal(first, other)


def test_small_batches_add_up_to_a_large_one(folder: Path, tmp_path: Path) -> None:
    recipe = changed(epochs=1, batch=12, batch_norm="frozen", class_weights=True)
    parts = dataclasses.replace(recipe, batch=3, accumulate=4)

    def make(n: int) -> torch.nn.Module:
        return Tiny(n, 0.0)

    train_seg.train(folder, tmp_path / "large", recipe, make=make)
    train_seg.train(folder, tmp_path / "small", parts, make=make)
    large, small = weights_in(tmp_path / "large"), weights_in(tmp_path / "small")
    for name, value in large.items():
        assert np.allclose(value, small[name], atol=2e-6), name
    assert (large["1.running_mean"] == 0).all()  # frozen


def test_torchs_layers_take_the_same_way(folder: Path, tmp_path: Path) -> None:
    recipe = changed(epochs=2)
    results = {
        backend: train_seg.train(folder, tmp_path / backend, dataclasses.replace(recipe, backend=backend), make=Tiny)
        for backend in ("cv3gpu", "torch")
    }
    ours, theirs = (results[b].rows for b in ("cv3gpu", "torch"))
    assert [r["loss"] for r in ours] == pytest.approx([r["loss"] for r in theirs], rel=1e-3)
    assert ours[-1]["mIoU"] == pytest.approx(theirs[-1]["mIoU"], abs=0.02)
    network, _ = train_seg.load(results["torch"].weights, make=Tiny, backend="torch")
    assert set(network.state_dict()) == set(Tiny(3).state_dict())


@pytest.mark.parametrize("option", [{"precision": "bfloat16"}, {"optimizer": "adam", "lr": 0.01}], ids=["bf16", "adam"])
def test_other_ways_learn_too(folder: Path, tmp_path: Path, option: dict[str, Any]) -> None:
    result = train_seg.train(folder, tmp_path / "run", changed(epochs=6, **option), make=Tiny)
    assert result.best_mean_iou > 0.6
    assert all(value.dtype != np.uint16 for value in weights_in(tmp_path / "run").values())


def test_the_learning_rate_follows_the_schedule(folder: Path, tmp_path: Path) -> None:
    result = train_seg.train(folder, tmp_path / "run", PLAIN, make=Tiny)
    steps = 25 // 4
    for row in result.rows:
        done = (row["epoch"] * steps - 1 - 2) / (3 * steps - 2)
        assert row["lr"] == pytest.approx(0.1 * (1 - done) ** 0.9)


def test_a_loss_that_is_not_finite_stops_with_a_name(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(_training.DivergedError, match=r"the loss must be finite, got (nan|inf) at epoch 1, step"):
        train_seg.train(folder, tmp_path / "run", changed(lr=1e30, warmup=0), make=Tiny)
    assert not (tmp_path / "run/state.pt").exists()


def test_stages_of_fcn_begin_where_the_last_one_ended(folder: Path, tmp_path: Path) -> None:
    arguments = {"base_channels": 4, "padding": "same"}
    recipe = changed(model="fcn32s", arguments=arguments, epochs=1, batch=12, lr=0.01)
    coarse = train_seg.train(folder, tmp_path / "32", recipe)
    assert coarse.taken == []
    finer = dataclasses.replace(recipe, model="fcn16s", lr=1e-20, weight_decay=0.0)
    middle = train_seg.train(folder, tmp_path / "16", finer, init_from=coarse.weights)
    before, after = weights_in(tmp_path / "32"), weights_in(tmp_path / "16")
    assert set(middle.taken) == set(before) & set(after)
    assert "score_fr.weight" in middle.taken
    assert np.abs(after["fc6.weight"] - before["fc6.weight"]).max() < 1e-7
    assert np.abs(after["score_pool4.weight"]).max() < 1e-7  # so the scores are those of FCN-32s to begin with
    last = dataclasses.replace(finer, model="fcn8s")
    fine = train_seg.train(folder, tmp_path / "8", last, init_from=middle.weights)
    assert "score_pool4.weight" in fine.taken
    assert "score_pool3.weight" not in fine.taken
    image = torch.from_numpy(np.tile(scene(0)[0], (4, 4, 1)) / np.float32(255)).permute(2, 0, 1)[None]
    networks = [train_seg.load(r.weights)[0] for r in (coarse, middle, fine)]
    with torch.inference_mode():
        maps = [network(image)[:, :, 32:-32, 32:-32] for network in networks]  # far from the border, which fades
    for found in maps[1:]:
        assert (found - maps[0]).abs().mean() < 0.1 * maps[0].abs().mean()


SMALL = """
import cv3gpu, torch
def make(n_classes):
    layers = cv3gpu.nn.Conv2d(3, 8, 3, 2, padding=1), torch.nn.BatchNorm2d(8), torch.nn.ReLU()
    return torch.nn.Sequential(*layers, cv3gpu.nn.Conv2d(8, n_classes, 1))
"""
ONE_OF_TWO = """
import pickle, sys
from cv3gpu.nn import train_seg
torch.set_num_threads(1)
with open(sys.argv[3], "rb") as file:
    train_seg.train(sys.argv[1], sys.argv[2], pickle.load(file), make=make)
"""


def test_two_processes_have_the_gradients_of_one(folder: Path, tmp_path: Path) -> None:
    """Frozen norms, batches shared without overlap, as many ignored pixels as it comes."""
    recipe = changed(epochs=1, batch=6, batch_norm="frozen", accumulate=2, class_weights=True)
    (tmp_path / "recipe").write_bytes(pickle.dumps(recipe))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = []
    for rank in range(2):
        places = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_PORT": str(port)}
        environment = os.environ | places | {"MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-c", SMALL + ONE_OF_TWO, folder, tmp_path / "two", tmp_path / "recipe"]
        started.append(subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True))
    scope: dict[str, Any] = {}
    exec(SMALL, scope)
    train_seg.train(folder, tmp_path / "one", recipe, make=scope["make"])
    for process in started:
        _, said = process.communicate(timeout=300)
        assert process.returncode == 0, said
    one, two = weights_in(tmp_path / "one"), weights_in(tmp_path / "two")
    assert np.abs(one["0.weight"] - scope["make"](3).state_dict()["0.weight"].numpy()).max() > 1e-3
    for name, value in one.items():
        assert np.allclose(value, two[name], atol=2e-6), name
    first, second = rows_in(tmp_path / "one"), rows_in(tmp_path / "two")
    for a, b in zip(first, second, strict=True):
        assert {k: float(v) for k, v in a.items()} == pytest.approx({k: float(v) for k, v in b.items()}, rel=1e-4)


# ---- torch's own layers ---------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("name", ["unet", "segnet", "fcn8s", "deeplabv3plus", "deeplabv3", "pspnet"])
def test_stock_networks_compute_the_same(name: str, training: bool) -> None:
    options: dict[str, Any] = {"padding": "same"} if name == "fcn8s" else {}
    torch.manual_seed(0)
    ours = getattr(cv3gpu.nn.models, name)(4, base_channels=8, **options)
    for module in ours.modules():
        if isinstance(module, torch.nn.Dropout | torch.nn.Dropout2d):
            module.p = 0.0
    theirs = stock(ours)
    x = torch.rand(2, 3, 48, 64)
    found = [network.train(training)(x) for network in (ours, theirs)]
    logits = [y if isinstance(y, torch.Tensor) else y[0] for y in found]
    scale = logits[0].abs().max()
    assert (logits[0] - logits[1]).abs().max() < 1e-3 * scale
    assert set(theirs.state_dict()) == set(ours.state_dict())
    if training:
        for y in logits:
            y.square().mean().backward()
        pairs = [(a.grad, b.grad) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True)]
        pairs = [(a, b) for a, b in pairs if a is not None]
        whole = sum(a.square().sum() for a, _ in pairs).sqrt()
        assert sum((a - b).square().sum() for a, b in pairs).sqrt() < 1e-2 * whole


def test_stock_refuses_what_torch_does_not_have() -> None:
    with pytest.raises(NotImplementedError, match="stock: dense_crf has no form"):
        stock(cv3gpu.nn.DenseCRF(2))(torch.zeros(1, 2, 4, 4))


def test_stock_is_a_copy() -> None:
    ours = cv3gpu.nn.ASPP(4, (2,), 4)
    theirs = stock(ours)
    assert type(ours) is cv3gpu.nn.ASPP
    assert isinstance(theirs, cv3gpu.nn.ASPP)
    assert next(ours.parameters()) is not next(theirs.parameters())


# ---- the table of trainings -----------------------------------------------------------------------------


def test_a_table_goes_on_where_it_was_stopped(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    results, work = tmp_path / "table.csv", tmp_path / "work"
    recipes = (changed(epochs=2), changed(epochs=2, backend="torch"))
    plans = [camvid.Plan("tiny", recipe, Tiny) for recipe in recipes]
    assert not camvid.carry_out(plans, folder, work, results, 0.0)
    assert camvid.finished(results) == []
    assert camvid.carry_out(plans, folder, work, results, None)
    said = capsys.readouterr().out
    assert "tiny cv3gpu 0 2 32x40: epoch 2" in said
    rows = camvid.finished(results)
    assert [(row["name"], row["backend"]) for row in rows] == [("tiny", "cv3gpu"), ("tiny", "torch")]
    scores, confusion = train_seg.score(folder, work / "tiny-cv3gpu-0-2-32x40" / "best.safetensors", make=Tiny)
    assert float(rows[0]["mean_iou"]) == pytest.approx(scores.mean_iou, abs=1e-5)
    assert int(rows[0]["pixels"]) == confusion.sum()
    assert int(rows[0]["parameters"]) == sum(p.numel() for p in Tiny(3).parameters())
    monkeypatch.setattr(train_seg, "train", None)  # nothing is made again
    assert camvid.carry_out(plans, folder, work, results, None)
    for module in (camvid, segmentation_ablation):
        monkeypatch.setattr(module, "CLASSES", ("ground", "disc", "box"))
    monkeypatch.setattr(segmentation_ablation, "IGNORED", IGNORED)
    monkeypatch.setattr(segmentation_ablation, "LABELS", (H, W))
    monkeypatch.setattr(segmentation_ablation, "REFINED", ("tiny",))
    for _ in range(2):
        segmentation_ablation.refine_all(plans[:1], folder, work, results)
    refined = camvid.finished(results)[2:]
    assert [row["name"] for row in refined] == ["tiny, CRF"]
    assert float(refined[0]["mean_iou"]) != float(rows[0]["mean_iou"])
    assert float(refined[0]["pixel_accuracy"]) == pytest.approx(float(rows[0]["pixel_accuracy"]), abs=0.1)
    camvid.print_table(rows)
    assert "| tiny, 2 epochs at 32x40 | torch | 1 |" in capsys.readouterr().out


def test_baselines_need_no_network(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(camvid, "LABELS", (H, W))
    monkeypatch.setattr(camvid, "IGNORED", IGNORED)
    monkeypatch.setattr(camvid, "CLASSES", ("ground", "disc", "box"))
    found = dict(camvid.baselines(folder))
    labels = np.stack([scene(31 + i)[1] for i in range(6)])
    share = (labels[labels != IGNORED] == 0).mean()
    assert found["majority class"].pixel_accuracy == pytest.approx(share)
    assert found["majority class"].mean_iou == pytest.approx(share / 3)
    assert found["colour histogram"].mean_iou > 0.9  # three colours are three classes


@pytest.mark.parametrize("name", [plan.name for plan in segmentation_ablation.plans(1, 0)])
def test_networks_of_the_ablations_do_what_they_are_named_for(name: str) -> None:
    plan = next(plan for plan in segmentation_ablation.plans(1, 0) if plan.name == name)
    network = plan.make(3).eval()
    with torch.inference_mode():
        scores = network(torch.zeros(1, 3, 64, 96), upsample=False)
    stride = int(name.split("output stride ")[1].split(",")[0]) if "output stride" in name else 1
    assert tuple(scores.shape) == (1, 3, 64 // stride, 96 // stride)
    layers = (m for n, m in network.named_modules() if n.startswith("backbone") and isinstance(m, torch.nn.Conv2d))
    assert (max((layer.dilation[0] for layer in layers), default=1) > 1) == (
        stride in (8, 16) and "no dilation" not in name
    )
    assert any(isinstance(m, cv3gpu.nn.ASPP) for m in network.modules()) == name.startswith("DeepLabv3")
    assert any(isinstance(m, cv3gpu.nn.ResizeConv2d) for m in network.modules()) == ("resize" in name)
    plan.recipe.check(torch.device("cpu"))


# ---- refusals -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "error", "said"),
    [
        ({"model": 3}, TypeError, "model must be a name, got int"),
        ({"arguments": [1]}, TypeError, "arguments must be a mapping, got list"),
        ({"size": (0, 4)}, ValueError, "size must be from 1"),
        ({"num_classes": 300}, ValueError, "num_classes must be from 1 to 256, got 300"),
        ({"num_classes": 2, "names": ["a"]}, ValueError, "names must be 2 names, got 1"),
        ({"names": ["a"]}, ValueError, "names must be 3 names, got 1"),
        ({"ignore_index": -1}, ValueError, "ignore_index must be from 0 to 255, got -1"),
        ({"epochs": 0}, ValueError, "epochs must be from 1"),
        ({"batch": 2.5}, TypeError, "batch must be an integer, got 2.5"),
        ({"batch": 26}, ValueError, "batch must be at most the 25 images, times accumulate, got 26 x 1"),
        ({"warmup": -1}, ValueError, "warmup must be from 0"),
        ({"lr": 0.0}, ValueError, "lr must be finite and positive, got 0.0"),
        ({"lr": float("nan")}, ValueError, "lr must be finite and positive, got nan"),
        ({"momentum": 1.0}, ValueError, "momentum must be 0 or more, less than 1, got 1.0"),
        ({"weight_decay": -1.0}, ValueError, "weight_decay must be 0 or more, got -1.0"),
        ({"optimizer": "lion"}, ValueError, "optimizer must be one of 'sgd', 'adam', got 'lion'"),
        ({"precision": "float16"}, ValueError, "precision must be another on a CPU, got 'float16'"),
        ({"batch_norm": "sync"}, ValueError, "batch_norm must be another on a CPU, got 'sync'"),
        ({"backend": "jax"}, ValueError, "backend must be one of 'cv3gpu', 'torch', got 'jax'"),
        ({"augmentation": Augmentation(scale=(2.0, 1.0))}, ValueError, r"scale must be \(least, greatest\)"),
        ({"augmentation": Augmentation(contrast=1.0)}, ValueError, "contrast must be from 0 to less than 1, got 1.0"),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, dict) else "",
)
def test_a_recipe_that_cannot_be_is_refused(
    folder: Path, tmp_path: Path, option: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=f"train: {said}"):
        train_seg.train(folder, tmp_path / "run", changed(**option), make=Tiny)
    assert not (tmp_path / "run").exists()


def test_other_refusals(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="train: model must be one of 'deeplabv1'"):
        train_seg.train(folder, tmp_path / "run", PLAIN)
    with pytest.raises(ValueError, match="train: device must be a CPU or a CUDA device, got 'meta'"):
        train_seg.train(folder, tmp_path / "run", PLAIN, make=Tiny, device="meta")
    with pytest.raises(TypeError, match="train: out must be a path, got int"):
        train_seg.train(folder, 3, PLAIN, make=Tiny)  # type: ignore[arg-type]
    _weights.write(tmp_path / "other.safetensors", {"x": np.zeros(3)}, {})
    with pytest.raises(ValueError, match="train: init_from must hold weights of the network by name"):
        train_seg.train(folder, tmp_path / "run", PLAIN, make=Tiny, init_from=tmp_path / "other.safetensors")
    with pytest.raises(DataFormatError, match="must hold a network and its weights, got 'num_classes'"):
        train_seg.load(tmp_path / "other.safetensors", make=Tiny)
    with pytest.raises(DataFormatError, match="model must be said"):
        train_seg.load(tmp_path / "other.safetensors")
    with pytest.raises(DataFormatError, match="must be a safetensors file"):
        train_seg.load(folder / "train/00.png")


def test_what_was_begun_is_neither_overwritten_nor_resumed_otherwise(folder: Path, tmp_path: Path) -> None:
    recipe = changed(epochs=1)
    train_seg.train(folder, tmp_path, recipe, make=Tiny)
    with pytest.raises(ValueError, match="out must hold no training that was begun"):
        train_seg.train(folder, tmp_path, recipe, make=Tiny)
    with pytest.raises(ValueError, match=r"train: lr must be 0.1, got 0.2; a training is resumed with"):
        train_seg.train(folder, tmp_path, dataclasses.replace(recipe, lr=0.2), make=Tiny, resume=True)


class Hostile:
    def __reduce__(self) -> Any:
        return os.mkdir, ("ran",)


@pytest.mark.parametrize("kind", ["pickle", "list", "text", "empty", "zip"])
def test_a_state_of_another_kind_is_refused_and_runs_nothing(
    folder: Path, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "state.pt"
    if kind == "pickle":
        torch.save({"settings": Hostile()}, file)
    elif kind == "list":
        torch.save([1], file)
    elif kind == "zip":
        archive(file, {"a": b"b"})
    else:
        file.write_bytes(b"" if kind == "empty" else b"no state")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(DataFormatError, match="must be a state of training"):
            train_seg.train(folder, tmp_path, PLAIN, make=Tiny, resume=True)
    assert not (tmp_path / "ran").exists()
    with pytest.raises(DataFormatError, match="must be a state of this training"):
        _training.write_state(file, {"settings": PLAIN.settings()})
        train_seg.train(folder, tmp_path, PLAIN, make=Tiny, resume=True)
    assert pickle.dumps(PLAIN.settings())
