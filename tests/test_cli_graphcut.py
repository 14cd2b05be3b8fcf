"""`cv3gpu segment graphcut` and `segment slic`: what they read, print, write and refuse; and their pictures."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import scipy.ndimage
from click.testing import CliRunner

import cv3gpu
from cv3gpu import _segment_cut, _segment_slic, cli, viz
from cv3gpu.cli import _shared
from cv3gpu.graphcut import seeds
from tests.conftest import gpu_is_there

Image = pytest.importorskip("PIL.Image", reason="needs Pillow (pip install 'cv3gpu[viz]')")
pytest.importorskip("matplotlib", reason="needs matplotlib (pip install 'cv3gpu[viz]')")

H, W = 36, 47
RECT = (10, 5, 28, 25)


def invoke(*arguments: Any) -> Any:
    return CliRunner().invoke(cli.main, [*map(str, arguments)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image with a disc, and its seeds in every form."""
    out = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    y, x = np.indices((H, W))
    disc = (y - 17) ** 2 + (x - 24) ** 2 < 100
    colours = np.array([[60, 90, 120], [190, 140, 60]])[disc.astype(int)]
    image = np.clip(colours + 20 * rng.standard_normal((H, W, 3)), 0, 255).astype(np.uint8)
    Image.fromarray(image).save(out / "image.png")
    fg, bg = np.zeros((2, H, W), bool)
    fg[15:20, 20:29] = True
    bg[1:3, 3:40] = bg[30:34, 40:45] = True
    Image.fromarray(fg).save(out / "fg.png")
    Image.fromarray((200 * bg).astype(np.uint8)).save(out / "bg.png")
    indexed = Image.fromarray(fg.astype(np.uint8))
    indexed.putpalette([9] * 768)
    indexed.save(out / "indexed.png")
    drawn = image.copy()
    drawn[fg], drawn[bg] = (255, 0, 0), (0, 0, 255)
    Image.fromarray(drawn).save(out / "scribbles.png")
    clear = np.zeros((H, W, 4), np.uint8)
    clear[..., :3] = (255, 0, 0)
    clear[fg | bg, 3] = 255
    clear[bg, :3] = (0, 0, 255)
    Image.fromarray(clear).save(out / "clear.png")
    Image.fromarray(drawn).convert("L").save(out / "grey_scribbles.png")
    (out / "text.png").write_text("no picture")
    Image.fromarray(image).save(out / "rgb.png")
    Image.fromarray(fg[:9]).save(out / "small.png")
    Image.fromarray(fg & False).save(out / "empty.png")
    Image.fromarray(np.zeros((H, W), np.uint16)).save(out / "deep.png")
    return out


@pytest.fixture
def given(folder: Path) -> SimpleNamespace:
    """What the files hold."""
    return SimpleNamespace(
        image=pixels_in(folder / "image.png"), fg=pixels_in(folder / "fg.png"), bg=pixels_in(folder / "bg.png") > 0
    )


def pixels_in(file: Path) -> Any:
    with Image.open(file) as picture:
        return np.array(picture)


def run(folder: Path, out: Path, *more: Any, command: str = "graphcut") -> dict[str, Any]:
    """The command with --json, which must go well."""
    result = invoke("segment", command, folder / "image.png", *more, "--out", out, "--json")
    said = result.stderr.replace(f"{_shared.COMPILING}\n", "")  # the first run ever of some kernel
    assert (result.exit_code, said) == (0, ""), result.stderr
    return json.loads(result.stdout)


# ---- graphcut: the same as the library ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "arguments"),
    [
        ([], {}),
        (["--lam", 3, "--sigma", 0.2], {"lam": 3.0, "sigma": 0.2}),
        (["--connectivity", 4], {"connectivity": 4}),
        (["--region", "histogram"], {"region": "histogram"}),
        (["--region", "gmm", "--lam", 0.5], {"region": "gmm", "lam": 0.5}),
    ],
)
def test_it_is_boykov_jolly(
    folder: Path, tmp_path: Path, given: Any, options: list[Any], arguments: dict[str, Any]
) -> None:
    report = run(folder, tmp_path / "out", "--fg", folder / "fg.png", "--bg", folder / "bg.png", *options)
    labels, flow = cv3gpu.boykov_jolly(given.image, given.fg, given.bg, **{"lam": 50.0, "sigma": None, **arguments})
    assert 200 < labels.sum() < 500
    mask = pixels_in(tmp_path / "out" / "mask.png")
    assert mask.dtype == np.uint8 and mask.shape == (H, W)
    np.testing.assert_array_equal(mask, 255 * labels)
    area = {"foreground": int(labels.sum()), "background": int((1 - labels).sum())}
    assert report["energy"] == pytest.approx(float(flow)) and report["area"] == area
    assert report["seeds"] == {"foreground": int(given.fg.sum()), "background": int(given.bg.sum())}
    assert (report["height"], report["width"], report["iterations"], report["converged"]) == (H, W, [], True)
    assert {name: report[name] for name in arguments} == arguments
    assert report["files"] == [str(tmp_path / "out" / name) for name in ("mask.png", "overlay.png")]


@pytest.mark.parametrize(
    "options",
    [
        ["--scribbles", "scribbles.png"],
        ["--scribbles", "clear.png"],
        ["--fg", "indexed.png", "--bg", "bg.png"],
        ["--fg", "empty.png", "--scribbles", "scribbles.png"],
    ],
)
def test_forms_of_seeds(folder: Path, tmp_path: Path, given: Any, options: list[str]) -> None:
    arguments = [folder / word if word.endswith(".png") else word for word in options]
    report = run(folder, tmp_path, *arguments)
    want = cv3gpu.boykov_jolly(given.image, given.fg, given.bg, lam=50.0, sigma=None)
    np.testing.assert_array_equal(pixels_in(tmp_path / "mask.png"), 255 * want.labels)
    assert report["seeds"] == {"foreground": int(given.fg.sum()), "background": int(given.bg.sum())}


def outside_of(rect: tuple[int, ...]) -> Any:
    x, y, width, height = rect
    outside = np.ones((H, W), bool)
    outside[y : y + height, x : x + width] = False
    return outside


def test_outside_of_the_rectangle_is_background(folder: Path, tmp_path: Path, given: Any) -> None:
    report = run(folder, tmp_path, "--fg", folder / "fg.png", "--rect", ",".join(map(str, RECT)))
    want = cv3gpu.boykov_jolly(given.image, given.fg, outside_of(RECT), lam=50.0, sigma=None)
    assert report["energy"] == pytest.approx(float(want.flow)) and report["rect"] == list(RECT)
    np.testing.assert_array_equal(pixels_in(tmp_path / "mask.png"), 255 * want.labels)


def test_grabcut_from_a_rectangle(folder: Path, tmp_path: Path, given: Any) -> None:
    options = ["--grabcut", "--rect", ",".join(map(str, RECT)), "--gamma", 20, "--components", 3]
    report = run(folder, tmp_path, *options)
    labels, energy, n_iter = cv3gpu.grab_cut(given.image, RECT, gamma=20.0, n_components=3)
    rows = report["iterations"]
    assert [row["iteration"] for row in rows] == list(range(1, n_iter + 1)) and rows[-1]["changed"] == 0
    assert [row["energy"] for row in rows] == energy.tolist() and report["energy"] == energy[-1]
    assert rows[-1]["foreground"] == pytest.approx(labels.mean()) and report["converged"]
    np.testing.assert_array_equal(pixels_in(tmp_path / "mask.png"), 255 * labels)


def test_grabcut_from_seeds_goes_on_from_a_cut(folder: Path, tmp_path: Path, given: Any) -> None:
    report = run(folder, tmp_path, "--grabcut", "--scribbles", folder / "scribbles.png", "--lam", 2, "--region", "gmm")
    start = cv3gpu.boykov_jolly(given.image, given.fg, given.bg, lam=2.0, sigma=None, region="gmm").labels
    mask = np.where(start == 1, seeds.PROBABLE_FOREGROUND, seeds.PROBABLE_BACKGROUND)
    mask[given.fg], mask[given.bg] = seeds.FOREGROUND, seeds.BACKGROUND
    labels, energy, _ = cv3gpu.grab_cut(given.image, mask=mask)
    assert [row["energy"] for row in report["iterations"]] == energy.tolist()
    np.testing.assert_array_equal(pixels_in(tmp_path / "mask.png"), 255 * labels)


def test_seeds_in_a_rectangle_hold_in_grabcut(folder: Path, tmp_path: Path, given: Any) -> None:
    Image.fromarray(~outside_of((12, 7, 3, 3))).save(tmp_path / "more.png")
    run(folder, tmp_path / "out", "--grabcut", "--rect", ",".join(map(str, RECT)), "--fg", tmp_path / "more.png",
        "--bg", folder / "indexed.png")  # fmt: skip
    mask = pixels_in(tmp_path / "out" / "mask.png")
    assert (mask[7:10, 12:15] == 255).all() and (mask[given.fg] == 0).all() and (mask[outside_of(RECT)] == 0).all()


# ---- graphcut: what is printed and written --------------------------------------------------------------


def test_text_and_pictures(folder: Path, tmp_path: Path, given: Any) -> None:
    out = tmp_path / "out"
    result = invoke("segment", "graphcut", folder / "image.png", "--scribbles", folder / "scribbles.png", "--out", out)
    assert (result.exit_code, result.stderr) == (0, "")
    labels, flow = cv3gpu.boykov_jolly(given.image, given.fg, given.bg, lam=50.0, sigma=None)
    assert result.stdout.splitlines() == [
        f"energy (flow): {float(flow):.6g}",
        f"foreground: {labels.sum()} of {H * W} pixels ({labels.mean():.1%})",
        "files:",
        f"  {out / 'mask.png'}",
        f"  {out / 'overlay.png'}",
    ]
    overlay = pixels_in(out / "overlay.png")
    assert overlay.shape == (H, W, 3)
    _, orange, blue = viz.label_colours(3)
    assert (overlay[given.fg] == orange).all() and (overlay[given.bg] == blue).all()
    inside = scipy.ndimage.binary_erosion(labels, iterations=2) & ~given.fg
    np.testing.assert_array_equal(overlay[inside], given.image[inside])
    far = scipy.ndimage.binary_erosion(1 - labels, iterations=2) & ~given.bg
    assert (overlay[far] <= np.rint(0.31 * given.image[far]) + 1).all()


def test_grabcut_prints_its_iterations(folder: Path, tmp_path: Path, given: Any) -> None:
    rect = ",".join(map(str, RECT))
    result = invoke("segment", "graphcut", folder / "image.png", "--grabcut", "--rect", rect, "--out", tmp_path)
    found = cv3gpu.grab_cut(given.image, RECT)
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["iteration", "energy", "foreground", "changed"]
    assert lines[found.n_iter].split() == [
        str(found.n_iter),
        f"{found.energy[-1]:.1f}",
        f"{found.labels.mean():.2%}",
        "0",
    ]
    assert lines[found.n_iter + 1] == "" and lines[found.n_iter + 2].startswith("energy (flow): ")
    overlay = pixels_in(tmp_path / "overlay.png")
    x, y, width, _ = RECT
    assert (overlay[y, x : x + width] == viz.label_colours(3)[2]).all()
    result = invoke("segment", "graphcut", folder / "image.png", "--grabcut", "--rect", rect, "--iterations", 1,
                    "--out", tmp_path)  # fmt: skip
    assert result.exit_code == 0 and "not converged after 1 iterations" in result.stdout


def test_progress(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts: list[Any] = []

    @contextlib.contextmanager
    def progress(label: str, total: int) -> Any:
        parts.extend([label, total])
        yield parts.append

    monkeypatch.setattr(cli.segment, "progress", progress)
    run(folder, tmp_path, "--grabcut", "--scribbles", folder / "scribbles.png", "--iterations", 1)
    assert parts == ["graphcut", 3, "cut", "iteration 1", "pictures"]


@pytest.mark.parametrize("command", ["graphcut", "slic"])
def test_on_a_gpu(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    needed = ["--scribbles", folder / "scribbles.png"] if command == "graphcut" else ["--segments", 30]
    if not gpu_is_there():
        result = invoke(
            "segment", command, folder / "image.png", *needed, "--device", "cuda", "--out", tmp_path / "out"
        )
        assert (result.exit_code, result.stdout) == (4, "") and not (tmp_path / "out").exists()
        assert result.stderr.startswith("cv3gpu segment: --device cuda needs a GPU and CuPy, and there is none")
        there: list[Any] = []
        fake = SimpleNamespace(
            cuda=SimpleNamespace(is_available=lambda: True), asarray=lambda x: there.append(x.shape) or x
        )
        monkeypatch.setitem(sys.modules, "cupy", fake)
    assert run(folder, tmp_path, *needed, "--device", "cuda", command=command)["device"] == "cuda"
    if not gpu_is_there():
        assert there == [(H, W, 3)] + [(H, W)] * (2 if command == "graphcut" else 0)


# ---- slic -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "arguments"),
    [
        ([], {"n_segments": 400}),
        (["--segments", 40, "--compactness", 20], {"n_segments": 40, "compactness": 20.0}),
        (["--segments", 30, "--zero"], {"n_segments": 30, "zero": True}),
        (["--segments", 30, "--iterations", 2, "--sigma", 1.5], {"n_segments": 30, "max_iter": 2, "sigma": 1.5}),
    ],
)
def test_it_is_slic(folder: Path, tmp_path: Path, given: Any, options: list[Any], arguments: dict[str, Any]) -> None:
    report = run(folder, tmp_path, *options, command="slic")
    want = cv3gpu.slic(given.image, **arguments)
    np.testing.assert_array_equal(pixels_in(tmp_path / "labels.png"), want)
    pixels = np.sort(np.bincount(want.ravel()))
    assert report["found"] == len(pixels) and report["segments"] == arguments["n_segments"]
    assert report["pixels"] == {"least": pixels[0], "median": pixels[len(pixels) // 2], "most": pixels[-1]}
    np.testing.assert_array_equal(pixels_in(tmp_path / "boundaries.png"), viz.boundaries(given.image, want))
    np.testing.assert_array_equal(pixels_in(tmp_path / "mean_colours.png"), viz.mean_colours(given.image, want))
    assert report["files"] == [str(tmp_path / name) for name in ("labels.png", "boundaries.png", "mean_colours.png")]


def test_slic_prints(folder: Path, tmp_path: Path, given: Any) -> None:
    result = invoke("segment", "slic", folder / "image.png", "--segments", 25, "--out", tmp_path / "out")
    assert (result.exit_code, result.stderr) == (0, "")
    pixels = np.sort(np.bincount(cv3gpu.slic(given.image, 25).ravel()))
    assert result.stdout.splitlines() == [
        f"segments: {len(pixels)}",
        f"pixels: {pixels[0]} to {pixels[-1]}, median {pixels[len(pixels) // 2]}",
        "files:",
        *(f"  {tmp_path / 'out' / name}" for name in ("labels.png", "boundaries.png", "mean_colours.png")),
    ]


def test_more_segments_than_a_picture_has_values(tmp_path: Path) -> None:
    labels = np.arange(65536 + 256).reshape(257, 256)
    files = _segment_slic.write_superpixels(tmp_path, np.zeros((257, 256, 3), np.uint8), labels)
    assert [path.name for path in files] == ["labels.npy", "boundaries.png", "mean_colours.png"]
    np.testing.assert_array_equal(np.load(files[0]), labels)
    files = _segment_slic.write_superpixels(tmp_path, np.zeros((256, 256, 3), np.uint8), labels[:256])
    assert files[0].name == "labels.png"
    np.testing.assert_array_equal(pixels_in(files[0]), labels[:256])


# ---- refusals -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "options", "message"),
    [
        ("graphcut", "", "Give seeds: --fg and --bg, or --scribbles; --rect is enough with --grabcut"),
        ("graphcut", "--fg fg.png", "Give seeds"),
        ("graphcut", "--bg bg.png --rect 1,1,5,5", "Give seeds"),
        ("graphcut", "--rect 1,1,5,5", "Give seeds"),
        ("graphcut", "--grabcut --bg bg.png", "Give seeds"),
        ("graphcut", "--fg nowhere.png --bg bg.png", "does not exist"),
        ("graphcut", "--grabcut --rect 1,1,5", "'1,1,5' is not a rectangle: four whole numbers"),
        ("graphcut", "--grabcut --rect 1,1,5,0", "is not a rectangle"),
        ("graphcut", "--grabcut --rect a,b,c,d", "is not a rectangle"),
        ("graphcut", "--grabcut --rect 40,1,8,5", "--rect must lie in the image of 47 x 36 pixels, got 40,1,8,5"),
        ("graphcut", "--scribbles scribbles.png --lam -1", "-1.0 is not a number from 0 on"),
        ("graphcut", "--scribbles scribbles.png --lam nan", "nan is not a number from 0 on"),
        ("graphcut", "--scribbles scribbles.png --sigma 0", "0.0 is not a positive number"),
        ("graphcut", "--scribbles scribbles.png --region kde", "'kde' is not one of"),
        ("graphcut", "--scribbles scribbles.png --connectivity 6", "'6' is not one of"),
        ("graphcut", "--scribbles scribbles.png --gamma 5", "--gamma needs --grabcut"),
        ("graphcut", "--scribbles scribbles.png --components 5", "--components needs --grabcut"),
        ("graphcut", "--scribbles scribbles.png --iterations 5", "--iterations needs --grabcut"),
        ("graphcut", "--grabcut --rect 1,1,5,5 --lam 5", "--lam has no effect with --grabcut and --rect"),
        ("graphcut", "--grabcut --rect 1,1,5,5 --region gmm", "--region has no effect with --grabcut and --rect"),
        ("graphcut", "--grabcut --rect 1,1,5,5 --components 65", "not in the range"),
        ("graphcut", "--scribbles scribbles.png --out nowhere/out", "must exist"),
        ("graphcut", "--scribbles scribbles.png --device tpu", "'tpu' is not one of"),
        ("slic", "--segments 0", "not in the range"),
        ("slic", "--compactness 0", "0.0 is not a positive number"),
        ("slic", "--compactness inf", "inf is not a positive number"),
        ("slic", "--iterations 0", "not in the range"),
        ("slic", "--sigma -1", "-1.0 is not a number from 0 on"),
        ("slic", "--out fg.png", "is a file"),
    ],
)
def test_usage_errors_give_2(
    folder: Path, monkeypatch: pytest.MonkeyPatch, command: str, options: str, message: str
) -> None:
    monkeypatch.chdir(folder)
    result = invoke("segment", command, "image.png", *options.split())
    assert (result.exit_code, result.stdout) == (2, ""), result.output
    assert message in " ".join(result.stderr.split())
    assert not (folder / f"{command}-out").exists()


@pytest.mark.parametrize(
    ("image", "options", "message"),
    [
        ("text.png", "--scribbles scribbles.png", "text.png: must be an image, got"),
        ("deep.png", "--scribbles scribbles.png", "deep.png: must have 8 bits a channel, got Pillow's mode I"),
        ("image.png", "--fg text.png --bg bg.png", "text.png: must be an image, got"),
        ("image.png", "--fg small.png --bg bg.png", "small.png: must have the size of the image, 47 x 36, got 47 x 9"),
        ("image.png", "--fg rgb.png --bg bg.png", "rgb.png: must be an indexed or grey image that is not 0 at seeds, got Pillow's mode RGB"),
        ("image.png", "--scribbles small.png", "small.png: must have the size of the image, 47 x 36, got 47 x 9"),
        ("image.png", "--scribbles rgb.png", "rgb.png: must have foreground in red (255, 0, 0) or background in blue (0, 0, 255), these very colours, got neither"),
        ("image.png", "--scribbles grey_scribbles.png", "these very colours, got neither"),
        ("image.png", "--fg empty.png --bg bg.png", "foreground must have a seed, got none"),
        ("image.png", "--fg fg.png --bg empty.png", "background must have a seed, got none"),
        ("image.png", "--fg fg.png --bg fg.png", "seeds must be of the foreground or of the background, got both at row 15, column 20 and 44 more"),
        ("image.png", "--fg fg.png --rect 0,0,21,36", "seeds of the foreground must lie in the rectangle, got one outside at row 15, column 21 and 39 more"),
        ("image.png", "--grabcut --rect 0,0,47,36", "mask must have a pixel of 0 or 2 (background), got none"),
    ],
)  # fmt: skip
def test_bad_data_gives_3(
    folder: Path, monkeypatch: pytest.MonkeyPatch, image: str, options: str, message: str
) -> None:
    monkeypatch.chdir(folder)
    result = invoke("segment", "graphcut", image, *options.split())
    assert (result.exit_code, result.stdout) == (3, ""), result.output
    assert message in result.stderr and result.stderr.count("\n") == 1
    assert not (folder / "graphcut-out").exists()


def test_slic_of_bad_data_gives_3(folder: Path, tmp_path: Path) -> None:
    for name, message in (("text.png", "must be an image"), ("deep.png", "must have 8 bits a channel")):
        result = invoke("segment", "slic", folder / name, "--out", tmp_path / "out")
        assert (result.exit_code, result.stdout) == (3, "") and message in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["graphcut", "slic"])
def test_without_pillow(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    arguments = ["--scribbles", folder / "scribbles.png"] if command == "graphcut" else []
    result = invoke("segment", command, folder / "image.png", *arguments, "--out", tmp_path / "out")
    assert result.exit_code == 1 and "images need Pillow" in result.stderr and not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["graphcut", "slic"])
def test_help_has_examples(command: str) -> None:
    result = invoke("segment", command, "--help")
    assert f"Example:  cv3gpu segment {command} photo.jpg" in result.stdout and "--json" in result.stdout
    assert f"  {command} " in invoke("segment", "--help").stdout
    if command == "graphcut":
        assert result.stdout.count("Example: ") == 2


def test_the_choices_are_the_librarys() -> None:
    assert cli.segment.REGIONS[1:] == seeds.REGIONS


# ---- pictures -------------------------------------------------------------------------------------------


def test_boundaries() -> None:
    labels = np.array([[0, 0, 1], [2, 2, 1], [2, 2, 1]])
    for image in (np.full((3, 3), 0.2), np.full((3, 3, 3), 51, np.uint8)):
        drawn = viz.boundaries(image, labels, colour=(1, 2, 3))
        edge = np.array([[1, 1, 0], [0, 1, 0], [0, 1, 0]], bool)
        assert drawn.dtype == np.uint8 and (drawn[edge] == (1, 2, 3)).all() and (drawn[~edge] == 51).all()


def test_mean_colours() -> None:
    image = np.array([[[0, 10, 20], [100, 30, 20], [7, 8, 9]]], np.uint8)
    labels = np.array([[1, 1, -1]])
    np.testing.assert_array_equal(viz.mean_colours(image, labels), [[[50, 20, 20], [50, 20, 20], [7, 8, 9]]])
    np.testing.assert_array_equal(viz.mean_colours(np.array([[0.0, 1.0]]), np.array([[0, 3]])), [[[0], [255]]])


def test_cutout_of_a_grey_image() -> None:
    labels = np.zeros((9, 12), np.uint8)
    labels[3:6, 4:8] = 1
    drawn = viz.cutout(np.full((9, 12), 0.5), labels, rect=(1, 1, 9, 7), dimmed=0.5)
    assert drawn.shape == (9, 12, 3) and (drawn[4, 5] == 128).all() and (drawn[0, 0] == 64).all()
    assert (drawn[1, 1:10] == viz.label_colours(3)[2]).all() and (drawn[2, 4] == 255).all()
    assert (drawn[2, 2] == 64).all()


def test_what_a_rectangle_leaves_open() -> None:
    nothing = np.zeros((H, W), bool)
    assert _segment_cut.Seeds(nothing, nothing, None).inside().all()
    np.testing.assert_array_equal(_segment_cut.Seeds(nothing, nothing, RECT).inside(), ~outside_of(RECT))
