"""`cv3gpu segment`: what it reads, prints, writes and refuses; and the label pictures."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner

import cv3gpu
from cv3gpu import _njit, _segment, cli, densecrf, viz
from cv3gpu.cli import _shared
from tests.conftest import gpu_is_there
from tests.test_densecrf import scene

Image = pytest.importorskip("PIL.Image", reason="needs Pillow (pip install 'cv3gpu[viz]')")
pytest.importorskip("matplotlib", reason="needs matplotlib (pip install 'cv3gpu[viz]')")

W, H, L = 44, 31, 3
PICTURES = ["iterations.png", "labels.png", "overlay.png", "triptych.png"]


def invoke(*arguments: Any) -> Any:
    return CliRunner().invoke(cli.main, [*map(str, arguments)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image and what a classifier and people say of it, in every form."""
    out = tmp_path_factory.mktemp("data")
    image, p = scene(W, H, L, 0)
    Image.fromarray(image).save(out / "image.png")
    np.save(out / "p.npy", p)
    np.save(out / "p16.npy", p.astype(np.float16))
    np.save(out / "hwl.npy", p.transpose(1, 2, 0))
    np.save(out / "energy.npy", np.asfortranarray(-np.log(p.astype(np.float64))))
    np.save(out / "logits.npy", np.log(p) + 7)
    np.savez(out / "one.npz", p)
    np.savez_compressed(out / "two.npz", a=p, b=p[::-1])
    labels = p.argmax(0)
    labels[::2, ::3] = 3
    indexed = Image.fromarray(np.array([0, 15, 200, 255], np.uint8)[labels])
    indexed.save(out / "grey.png")
    indexed.putpalette([5] * 768)
    indexed.save(out / "indexed.png")
    Image.fromarray(np.array([0, 300, 1000, 65535], np.uint16)[labels]).save(out / "wide.png")
    Image.fromarray(labels == 0).save(out / "bits.png")
    return out


@pytest.fixture
def said(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """The image, and -log p of the classifier."""
    image = np.array(Image.open(folder / "image.png"))
    return image, densecrf.unary_from_softmax(np.load(folder / "p.npy")).reshape(L, H, W)


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are not drawn, which takes most of the time."""
    monkeypatch.setattr(viz, "save", lambda figure, path: path.touch())


def labels_in(file: Path) -> np.ndarray:
    with Image.open(file) as picture:
        return np.array(picture)


def run(folder: Path, out: Path, *more: Any) -> dict[str, Any]:
    """The command with --json, which must go well."""
    result = invoke("segment", "crf", folder / "image.png", *more, "--out", out, "--json")
    assert (result.exit_code, result.stderr) == (0, ""), result.stderr
    return json.loads(result.stdout)


# ---- the same as the library ----------------------------------------------------------------------------


@pytest.mark.usefixtures("no_figures")
@pytest.mark.parametrize(
    ("options", "arguments"),
    [
        ([], {}),
        (["--iterations", 3, "--method", "lattice_fine"], {"n_iter": 3, "method": "lattice_fine"}),
        (["--iterations", 2, "--method", "exact"], {"n_iter": 2, "method": "exact"}),
        (["--iterations", 0], {"n_iter": 0}),
        (["--normalization", "after"], {"normalization": "after"}),
        (["--normalization", "before"], {"normalization": "before"}),
        (["--normalization", "none", "--compat-smooth", 0.1, "--compat-bilateral", 0.02],
         {"normalization": "none", "compat_smooth": 0.1, "compat_bilateral": 0.02}),
        (["--theta-gamma", "2,4", "--theta-alpha", "30,20", "--theta-beta", "9,11.5,13", "--compat-smooth", 1.5],
         {"theta_gamma": (2, 4), "theta_alpha": (30, 20), "theta_beta": (9, 11.5, 13), "compat_smooth": 1.5}),
        (["--theta-gamma", 1, "--theta-alpha", 15, "--theta-beta", 8, "--compat-bilateral", -2],
         {"theta_gamma": 1, "theta_alpha": 15, "theta_beta": 8, "compat_bilateral": -2}),
    ],
)  # fmt: skip
def test_it_is_dense_crf(
    folder: Path, tmp_path: Path, said: Any, options: list[Any], arguments: dict[str, Any]
) -> None:
    image, unary = said
    q, info = cv3gpu.dense_crf(unary, image, return_info=True, **arguments)  # first: compiling would be told
    report = run(folder, tmp_path / "out", "--unary", folder / "p.npy", "--marginals", *options)
    np.testing.assert_array_equal(labels_in(tmp_path / "out" / "labels.png"), q.argmax(0))
    marginals = np.load(tmp_path / "out" / "marginals.npy")
    assert marginals.dtype == np.float32
    np.testing.assert_array_equal(marginals, q)
    rows = report["iterations"]
    assert [row["iteration"] for row in rows] == list(range(arguments.get("n_iter", 10) + 1))
    np.testing.assert_allclose([row["objective"] for row in rows], info.divergence)
    np.testing.assert_allclose([row["energy"] for row in rows], info.energy)
    np.testing.assert_allclose([row["change"] for row in rows[1:]], info.change)
    if len(rows) > 1:
        before = cv3gpu.dense_crf(unary, image, **arguments | {"n_iter": len(rows) - 2}).argmax(0)
        assert rows[-1]["relabelled"] == pytest.approx((before != q.argmax(0)).mean())
    assert rows[0]["change"] is rows[0]["relabelled"] is None
    assert report["share"] == {str(k): pytest.approx((q.argmax(0) == k).mean()) for k in range(L)}


@pytest.mark.usefixtures("no_figures")
@pytest.mark.parametrize(
    "options",
    [
        ["--unary", "p16.npy"],
        ["--unary", "hwl.npy", "--layout", "hwl"],
        ["--unary", "energy.npy", "--kind", "energy"],
        ["--unary", "logits.npy", "--kind", "logits"],
        ["--unary", "one.npz"],
        ["--unary", "two.npz", "--array", "a"],
    ],
)
def test_forms_of_unaries(folder: Path, tmp_path: Path, said: Any, options: list[str]) -> None:
    image, unary = said
    run(folder, tmp_path, "--unary", folder / options[1], *options[2:])
    want = cv3gpu.dense_crf(unary, image)
    decided = np.sort(want, 0)[-1] > 0.6
    assert decided.mean() > 0.99
    np.testing.assert_array_equal(labels_in(tmp_path / "labels.png")[decided], want.argmax(0)[decided])


@pytest.mark.usefixtures("no_figures")
@pytest.mark.parametrize(
    ("file", "values", "options"),
    [
        ("grey.png", [0, 15, 200], ["--unsure", 255]),
        ("indexed.png", [0, 15, 200], ["--unsure", 255, "--confidence", 0.9]),
        ("indexed.png", [0, 15, 200, 255], []),
        ("wide.png", [0, 300, 1000], ["--unsure", 65535]),
        ("bits.png", [0, 1], []),
    ],
)
def test_labels(folder: Path, tmp_path: Path, said: Any, file: str, values: list[int], options: list[Any]) -> None:
    report = run(folder, tmp_path, "--labels", folder / file, *options)
    given = labels_in(folder / file).astype(int)
    place = np.array([values.index(v) + 1 if v in values else 0 for v in given.ravel()])
    confidence = 0.9 if "--confidence" in options else 0.7
    unary = densecrf.unary_from_labels(place, len(values), confidence).reshape(-1, H, W)
    want = np.array(values)[cv3gpu.dense_crf(unary, said[0]).argmax(0)]
    np.testing.assert_array_equal(labels_in(tmp_path / "labels.png"), want)
    assert list(report["share"]) == [str(v) for v in values]


@pytest.mark.usefixtures("no_figures")
def test_a_grey_image_is_taken_as_rgb(folder: Path, tmp_path: Path, said: Any) -> None:
    grey = Image.fromarray(said[0]).convert("L")
    grey.save(tmp_path / "grey.jpg", quality=95)
    result = invoke("segment", "crf", tmp_path / "grey.jpg", "--unary", folder / "p.npy", "--out", tmp_path / "out")
    assert result.exit_code == 0
    image = np.repeat(labels_in(tmp_path / "grey.jpg")[..., None], 3, 2)
    want = cv3gpu.dense_crf(said[1], image).argmax(0)
    np.testing.assert_array_equal(labels_in(tmp_path / "out" / "labels.png"), want)


@pytest.mark.usefixtures("no_figures")
def test_a_label_that_is_forbidden(folder: Path, tmp_path: Path, said: Any) -> None:
    energy = said[1].copy()
    energy[1, :, : W // 2] = np.inf
    np.save(tmp_path / "e.npy", energy)
    report = run(folder, tmp_path / "out", "--unary", tmp_path / "e.npy", "--kind", "energy")
    assert not (labels_in(tmp_path / "out" / "labels.png")[:, : W // 2] == 1).any()
    assert all(np.isfinite([row["objective"], row["energy"]]).all() for row in report["iterations"])


# ---- what is printed and written ------------------------------------------------------------------------


def test_the_table_and_the_pictures(folder: Path, tmp_path: Path, said: Any) -> None:
    out = tmp_path / "out"
    result = invoke(
        "segment", "crf", folder / "image.png", "--unary", folder / "p.npy", "--out", out, "--names", "sky,tree,road"
    )
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["iteration", "objective", "energy", "largest", "change", "relabelled"]
    _, info = cv3gpu.dense_crf(said[1], said[0], return_info=True)
    assert lines[1].split() == ["0", f"{info.divergence[0]:.1f}", f"{info.energy[0]:.1f}"]
    assert lines[3].split()[:4] == ["2", f"{info.divergence[2]:.1f}", f"{info.energy[2]:.1f}", f"{info.change[1]:.1e}"]
    assert lines[11].startswith("       10") and lines[11].endswith("%")
    labels = labels_in(out / "labels.png")
    largest = ("sky", "tree", "road")[np.bincount(labels.ravel()).argmax()]
    assert lines[13].startswith(f"labels: {largest} ") and lines[13].count("%") == L
    assert lines[14:] == ["files:"] + [f"  {out / name}" for name in ("labels.png", "overlay.png", *PICTURES[::3])]
    assert sorted(path.name for path in out.iterdir()) == PICTURES
    with Image.open(out / "labels.png") as picture:
        assert picture.mode == "P" and picture.size == (W, H)
        palette = np.reshape(picture.getpalette(), (-1, 3))
    np.testing.assert_array_equal(palette[:L], viz.label_colours(L))
    want = viz.overlay(said[0], labels, border=True)
    np.testing.assert_array_equal(labels_in(out / "overlay.png"), want)
    for name in ("iterations.png", "triptych.png"):
        with Image.open(out / name) as picture:
            assert picture.width > 1000 and picture.height > 300
            assert np.asarray(picture.convert("L")).std() > 20


def test_what_is_drawn(folder: Path, tmp_path: Path, said: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    image, unary = said
    drawn: dict[str, Any] = {}
    monkeypatch.setattr(viz, "save", lambda figure, path: drawn.setdefault(path.name, figure))
    run(folder, tmp_path, "--unary", folder / "p.npy", "--iterations", 7, "--names", "a,b,c")
    iterations = {n: cv3gpu.dense_crf(unary, image, n_iter=n) for n in (0, 1, 2, 5, 7)}

    def shown(axis: Any) -> np.ndarray:
        return np.asarray(axis.images[0].get_array())

    above, below = np.reshape(drawn["iterations.png"].axes[:10], (2, 5))
    titles = ["start (unary)", "1 iteration", "2 iterations", "5 iterations", "7 iterations"]
    assert [axis.get_title() for axis in above] == titles
    followed = int(below[0].get_ylabel() == "Q of c") + 1
    assert below[0].get_ylabel() == f"Q of {'abc'[followed]}"
    for axis, other, q in zip(above, below, iterations.values(), strict=True):
        np.testing.assert_array_equal(shown(axis), viz.overlay(image, q.argmax(0), colours=viz.label_colours(L)))
        np.testing.assert_allclose(shown(other), q[followed], atol=1e-6)
    panels = drawn["triptych.png"].axes
    assert [axis.get_title() for axis in panels] == ["image", "unary: best labels", "smoothness only", "dense CRF"]
    smooth = cv3gpu.dense_crf(unary, None, n_iter=7)
    np.testing.assert_array_equal(shown(panels[0]), image)
    for axis, q in zip(panels[1:], (iterations[0], smooth, iterations[7]), strict=True):
        np.testing.assert_array_equal(shown(axis), viz.overlay(image, q.argmax(0), colours=viz.label_colours(L)))
    for figure in drawn.values():
        assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b", "c"]


def test_unsure_pixels_have_no_colour_at_the_start(folder: Path, said: Any) -> None:
    options = {"iterations": 1, "method": "lattice", "normalization": "symmetric", "theta_gamma": 3.0, "theta_alpha": 80.0,
               "theta_beta": 13.0, "compat_smooth": 3.0, "compat_bilateral": 10.0}  # fmt: skip
    energies, values = _segment.read_labels(folder / "grey.png", (H, W), 0.7, 255)
    ran = _segment.dense_crf(said[0], energies, options)
    np.testing.assert_array_equal(ran.steps[0][0] == -1, labels_in(folder / "grey.png") == 255)
    assert values == [0, 15, 200] and (ran.labels >= 0).all()
    np.testing.assert_array_equal(viz.overlay(said[0], np.full((H, W), -1)), said[0])


def test_existing_files_are_replaced_whole_or_not_at_all(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from matplotlib.figure import Figure

    def breaks(self: Any, path: Path, **_: Any) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device", str(path))

    for name in PICTURES:
        (tmp_path / name).write_text("old")
    monkeypatch.setattr(Figure, "savefig", breaks)
    result = invoke("segment", "crf", folder / "image.png", "--unary", folder / "p.npy", "--out", tmp_path)
    assert (result.exit_code, result.stdout) == (1, "") and "No space left on device" in result.stderr
    assert (tmp_path / "iterations.png").read_text() == (tmp_path / "triptych.png").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == PICTURES
    monkeypatch.undo()
    run(folder, tmp_path, "--unary", folder / "p.npy", "--iterations", 1)
    assert all((tmp_path / name).read_bytes()[:4] == b"\x89PNG" for name in PICTURES)


@pytest.mark.usefixtures("no_figures")
def test_progress_and_the_first_compilation(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts: list[Any] = []

    @contextlib.contextmanager
    def progress(label: str, total: int) -> Any:
        parts.extend([label, total])
        yield parts.append

    monkeypatch.setattr(cli.segment, "progress", progress)
    monkeypatch.setattr(_njit, "before_compiling", [])
    run(folder, tmp_path, "--unary", folder / "p.npy", "--iterations", 2)
    assert parts == ["crf", 5, "smoothness", "appearance", "iteration 1", "iteration 2", "pictures"]
    (before,) = _njit.before_compiling
    with monkeypatch.context() as patch:
        spoken: list[str] = []
        patch.setattr(click, "echo", lambda text, err: spoken.append(text))
        before()
    assert spoken == [_shared.COMPILING]


@pytest.mark.usefixtures("no_figures")
def test_on_a_gpu(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ("segment", "crf", folder / "image.png", "--unary", folder / "p.npy", "--device", "cuda")
    if not gpu_is_there():
        result = invoke(*arguments, "--out", tmp_path / "out")
        assert (result.exit_code, result.stdout) == (4, "") and not (tmp_path / "out").exists()
        assert result.stderr.startswith("cv3gpu segment: --device cuda needs a GPU and CuPy, and there is none")
        there: list[Any] = []
        fake = SimpleNamespace(
            cuda=SimpleNamespace(is_available=lambda: True), asarray=lambda x: there.append(x.shape) or x
        )
        monkeypatch.setitem(sys.modules, "cupy", fake)
    report = run(folder, tmp_path, *arguments[3:])
    assert report["device"] == "cuda"
    if not gpu_is_there():
        assert there == [(L, H * W), (H, W, 3)]


def test_without_matplotlib(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setattr(_segment, "dense_crf", lambda *_: pytest.fail("it should be known before the work"))
    arguments = ("segment", "crf", folder / "image.png", "--unary", folder / "p.npy", "--out", tmp_path / "out")
    result = invoke(*arguments)
    assert result.exit_code == 1 and "pictures need matplotlib" in result.stderr
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    result = invoke(*arguments)
    assert result.exit_code == 1 and "images need Pillow" in result.stderr and "cv3gpu[viz]" in result.stderr
    assert not (tmp_path / "out").exists()


def test_the_choices_are_the_librarys() -> None:
    assert cli.segment.METHODS == cv3gpu.crf.arguments.METHODS
    assert cli.segment.NORMALIZATIONS == cv3gpu.crf.arguments.NORMALIZATIONS
    assert cli.segment.KERNELS == cv3gpu.crf.arguments.PARAMETERS


# ---- refusals -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "Give either --unary or --labels"),
        (["--unary", "p.npy", "--labels", "grey.png"], "Give either --unary or --labels"),
        (["--unary", "nowhere.npy"], "does not exist"),
        (["--unary", "."], "is a directory"),
        (["--unary", "p.npy", "--unsure", "255"], "--unsure needs --labels"),
        (["--unary", "p.npy", "--confidence", "0.7"], "--confidence needs --labels"),
        (["--labels", "grey.png", "--layout", "lhw"], "--layout needs --unary"),
        (["--labels", "grey.png", "--kind", "energy"], "--kind needs --unary"),
        (["--labels", "grey.png", "--array", "a"], "--array needs --unary"),
        (["--labels", "grey.png", "--confidence", "1"], "1.0 is not between 0 and 1"),
        (["--labels", "grey.png", "--confidence", "nan"], "nan is not between 0 and 1"),
        (["--labels", "grey.png", "--unsure", "-1"], "not in the range"),
        (["--unary", "p.npy", "--iterations", "-1"], "not in the range"),
        (["--unary", "p.npy", "--iterations", "1.5"], "is not a valid integer"),
        (["--unary", "p.npy", "--method", "fast"], "'fast' is not one of"),
        (["--unary", "p.npy", "--normalization", "l2"], "'l2' is not one of"),
        (["--unary", "p.npy", "--theta-gamma", "0"], "'0' is neither a positive number nor 2 of them"),
        (["--unary", "p.npy", "--theta-gamma", "3,"], "'3,' is neither a positive number nor 2 of them"),
        (["--unary", "p.npy", "--theta-alpha", "1,2,3"], "is neither a positive number nor 2 of them"),
        (["--unary", "p.npy", "--theta-beta", "1,2"], "is neither a positive number nor 3 of them"),
        (["--unary", "p.npy", "--theta-beta", "inf"], "'inf' is neither a positive number"),
        (["--unary", "p.npy", "--compat-smooth", "nan"], "nan is not finite"),
        (["--unary", "p.npy", "--compat-bilateral", "inf"], "inf is not finite"),
        (["--unary", "p.npy", "--names", "a,b"], "--names must be 3 different names, got 'a,b'"),
        (["--unary", "p.npy", "--names", "a,b,a"], "--names must be 3 different names"),
        (["--unary", "p.npy", "--out", "nowhere/out"], "must exist"),
        (["--unary", "p.npy", "--out", "p.npy"], "is a file"),
        (["--unary", "p.npy", "--device", "tpu"], "'tpu' is not one of"),
    ],
)
def test_usage_errors_give_2(folder: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], message: str) -> None:
    monkeypatch.chdir(folder)
    result = invoke("segment", "crf", "image.png", *options)
    assert (result.exit_code, result.stdout) == (2, ""), result.stderr
    assert message in " ".join(result.stderr.split())
    assert not (folder / "crf-out").exists()


def bad_files(folder: Path) -> None:
    """Files that are not what they should be."""
    p = np.load(folder / "p.npy")
    wrong = {name: p.astype(np.float64) for name in ("nan", "negative", "sum", "one")}
    wrong["nan"][1, 2, 3] = wrong["nan"][2, 5, 5] = np.nan
    wrong["negative"][0, 4, 5] = -0.5
    wrong["sum"][:, 7, 8] *= 2 / 3
    wrong |= {"small": p[:, 1:], "flat": p.reshape(L, -1), "whole": (p * 9).astype(int), "logs": np.log(p)}
    energy = -np.log(p)
    never = energy.copy()
    never[:, 0, 1] = np.inf
    energy[1, 2, 3] = -np.inf
    wrong |= {"low": energy, "never": never, "complex": p * 1j, "many": np.zeros((1025, H, W), np.float32)}
    for name, values in wrong.items():
        np.save(folder / f"{name}.npy", values)
    np.save(folder / "object.npy", np.array([{}]), allow_pickle=True)
    (folder / "text.npy").write_text("0.5 0.5\n")
    (folder / "empty.npy").write_bytes(b"")
    (folder / "cut.npy").write_bytes((folder / "p.npy").read_bytes()[:500])
    (folder / "cut.npz").write_bytes((folder / "two.npz").read_bytes()[:500])
    np.savez(folder / "none.npz")
    image = Image.open(folder / "image.png")
    image.crop((0, 0, 9, 9)).save(folder / "small.png")
    image.convert("L").crop((0, 0, 9, 9)).save(folder / "small_labels.png")
    (folder / "text.png").write_text("no picture")
    (folder / "cut.png").write_bytes((folder / "image.png").read_bytes()[:300])
    Image.fromarray(np.zeros((H, W), np.uint16)).save(folder / "deep.png")
    Image.fromarray(np.zeros((H, W), np.float32)).save(folder / "float.tiff")
    Image.fromarray(np.zeros((H, W), np.uint8)).save(folder / "zero.png")


BAD = [
    ("image.png", "--unary nan.npy", "nan.npy: must hold probabilities, from 0 to 1, got nan at label 1, row 2, column 3 and 1 more"),
    ("image.png", "--unary negative.npy", "got -0.5 at label 0, row 4, column 5"),
    ("image.png", "--unary sum.npy", "must hold probabilities that sum to 1 over the labels, got 0.666667 at row 7, column 8"),
    ("image.png", "--unary logs.npy", "must hold probabilities, from 0 to 1"),
    ("image.png", "--unary whole.npy", "must hold real numbers (--kind probability), got int64"),
    ("image.png", "--unary complex.npy --kind energy", "must hold real numbers (--kind energy), got complex"),
    ("image.png", "--unary nan.npy --kind energy", "must hold numbers, or inf for a label that can't be, got nan at"),
    ("image.png", "--unary low.npy --kind energy", "or inf for a label that can't be, got -inf at label 1, row 2, column 3"),
    ("image.png", "--unary never.npy --kind logits", "or -inf for a label that can't be, got inf at"),
    ("image.png", "--unary never.npy --kind energy", "must allow some label everywhere, got inf at row 0, column 1"),
    ("image.png", "--unary small.npy", "must have shape [L, 31, 44] as the image, got (3, 30, 44)"),
    ("image.png", "--unary flat.npy", "must have shape [L, 31, 44] as the image, got (3, 1364)"),
    ("image.png", "--unary hwl.npy", "got (31, 44, 3); --layout hwl fits"),
    ("image.png", "--unary p.npy --layout hwl", "must have shape [31, 44, L] as the image, got (3, 31, 44); --layout lhw fits"),
    ("image.png", "--unary many.npy --kind energy", "must have 1 to 1024 labels, got 1025"),
    ("image.png", "--unary two.npz", "two.npz: must hold one array, or --array name one of them, got a, b"),
    ("image.png", "--unary two.npz --array c", "must hold an array c, got a, b"),
    ("image.png", "--unary none.npz", "must hold one array, or --array name one of them, got none"),
    ("image.png", "--unary p.npy --array a", "must be an .npz file for --array a, got one array"),
    ("image.png", "--unary object.npy", "object.npy: must be an .npy or .npz file of numbers, got"),
    ("image.png", "--unary text.npy", "text.npy: must be an .npy or .npz file of numbers, got"),
    ("image.png", "--unary empty.npy", "empty.npy: must be an .npy or .npz file of numbers, got"),
    ("image.png", "--unary cut.npy", "cut.npy: must be an .npy or .npz file of numbers, got"),
    ("image.png", "--unary cut.npz", "cut.npz: must be an .npy or .npz file of numbers, got"),
    ("small.png", "--unary p.npy", "p.npy: must have shape [L, 9, 9] as the image, got (3, 31, 44)"),
    ("text.png", "--unary p.npy", "text.png: must be an image, got"),
    ("cut.png", "--unary p.npy", "cut.png: must be a whole image, got"),
    ("deep.png", "--unary p.npy", "deep.png: must have 8 bits a channel, got Pillow's mode I"),
    ("image.png", "--labels image.png", "image.png: must be an indexed or grey image whose values are the labels, got Pillow's mode RGB"),
    ("image.png", "--labels float.tiff", "must be an indexed or grey image whose values are the labels, got Pillow's mode F"),
    ("image.png", "--labels small_labels.png", "must have the size of the image, 44 x 31, got 9 x 9"),
    ("image.png", "--labels zero.png", "zero.png: must have 2 to 1024 labels from 0 to 65535, got 0"),
    ("image.png", "--labels zero.png --unsure 0", "must have 2 to 1024 labels from 0 to 65535, got none"),
    ("image.png", "--labels text.png", "text.png: must be an image, got"),
]  # fmt: skip


@pytest.mark.parametrize(("image", "options", "message"), BAD)
def test_bad_data_gives_3(
    folder: Path, monkeypatch: pytest.MonkeyPatch, image: str, options: str, message: str
) -> None:
    if not (folder / "nan.npy").exists():
        bad_files(folder)
    monkeypatch.chdir(folder)
    result = invoke("segment", "crf", image, *options.split())
    assert (result.exit_code, result.stdout) == (3, ""), result.output
    assert message in result.stderr and result.stderr.count("\n") == 1
    assert not (folder / "crf-out").exists()


def test_files_that_may_not_be_read_give_1(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied", "image.png")

    monkeypatch.setattr(Image, "open", refuses)
    result = invoke("segment", "crf", folder / "image.png", "--unary", folder / "p.npy", "--out", tmp_path / "out")
    assert result.exit_code == 1 and "Permission denied" in result.stderr


# ---- label pictures -------------------------------------------------------------------------------------


def test_label_colours_are_all_different() -> None:
    colours = viz.label_colours(64)
    assert colours.shape == (64, 3) and colours.dtype == np.uint8 and len(np.unique(colours, axis=0)) == 64
    np.testing.assert_array_equal(viz.label_colours(3), colours[:3])
    assert viz.label_colours(0).shape == (0, 3)


def test_overlay_mixes_and_borders() -> None:
    image, labels = np.zeros((3, 4, 3), np.uint8), np.array([[0, 0, 1, 1]] * 3)
    colours = np.array([[10, 20, 30], [200, 100, 50]], np.uint8)
    mixed = viz.overlay(image, labels, colours=colours, opacity=0.5)
    np.testing.assert_array_equal(mixed[0], [[5, 10, 15]] * 2 + [[100, 50, 25]] * 2)
    bordered = viz.overlay(image, labels, colours=colours, opacity=0.5, border=True)
    np.testing.assert_array_equal(bordered[:, 1], 255)
    np.testing.assert_array_equal(bordered[:, [0, 2, 3]], mixed[:, [0, 2, 3]])
    grey = np.full((3, 4), 0.5)
    np.testing.assert_array_equal(viz.overlay(grey, labels, colours=colours, opacity=0)[..., 0], 128)


def test_labels_are_kept_as_they_are(tmp_path: Path) -> None:
    for labels, mode in ((np.arange(256).reshape(16, 16), "P"), (np.array([[0, 256, 65535]]), "I;16")):
        viz.save_labels(labels, tmp_path / "x.png")
        with Image.open(tmp_path / "x.png") as picture:
            assert picture.mode in (mode, "I")  # older versions of Pillow widen 16 bits
            np.testing.assert_array_equal(np.array(picture), labels)
    for wrong in (np.array([[-1]]), np.array([[65536]])):
        with pytest.raises(ValueError, match="save_labels: labels must be from 0 to 65535"):
            viz.save_labels(wrong, tmp_path / "x.png")


def test_figures_of_many_labels_and_large_images() -> None:
    image = np.zeros((2000, 1500), np.uint8)
    labels = np.arange(2000)[:, None] // 50 + np.zeros((1, 1500), int)
    figure = viz.labels_figure(image, {"image": None, "labels": labels}, title="many")
    words = [text.get_text() for text in figure.legends[0].get_texts()]
    assert len(words) == viz.families.LEGEND + 1 and words[-1] == f"and {40 - viz.families.LEGEND} more"
    assert max(figure.axes[1].images[0].get_array().shape[:2]) <= 1000
    assert viz.labels_figure(image, {"image": None}).legends == []
