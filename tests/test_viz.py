"""Pictures as arrays and figures: what they show, against plain loops and other libraries, and what they refuse."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from cv3gpu import mot, viz
from cv3gpu.checkerboard import checkerboard_study

pytest.importorskip("matplotlib", reason="needs matplotlib (pip install 'cv3gpu[viz]')")
Image = pytest.importorskip("PIL.Image", reason="needs Pillow (pip install 'cv3gpu[viz]')")

RESULTS = Path(__file__).resolve().parent.parent / "bench" / "results"

sizes = st.tuples(st.integers(0, 9), st.integers(0, 9))


@st.composite
def labelled(draw: Any) -> tuple[np.ndarray, np.ndarray]:
    """An image of either kind, grey or in colours, and labels of its size, some below 0 and some large."""
    size, colour = draw(sizes), draw(st.booleans())
    shape = (*size, 3) if colour else size
    numbers = st.floats(0, 1, width=32)
    image = draw(st.one_of(hnp.arrays(np.uint8, shape), hnp.arrays(np.float32, shape, elements=numbers)))
    return image, draw(hnp.arrays(np.int64, size, elements=st.sampled_from([-9, -1, 0, 1, 2, 70])))


def as_bytes(image: np.ndarray) -> np.ndarray:
    plain = image if image.dtype == np.uint8 else np.rint(255 * image)
    return np.broadcast_to(plain[..., None] if plain.ndim == 2 else plain, (*image.shape[:2], 3)).astype(np.uint8)


# ---- images ---------------------------------------------------------------------------------------------


@settings(derandomize=True, max_examples=60, deadline=None)
@given(labelled())
def test_overlay_goes_from_the_image_to_the_colours(both: tuple[np.ndarray, np.ndarray]) -> None:
    image, labels = both
    before = image.copy(), labels.copy()
    np.testing.assert_array_equal(viz.overlay(image, labels, opacity=0), as_bytes(image))
    solid, known = viz.overlay(image, labels, opacity=1), viz.label_colours(71)
    assert solid.shape == (*labels.shape, 3) and solid.dtype == np.uint8
    np.testing.assert_array_equal(solid[labels >= 0], known[labels[labels >= 0]])
    np.testing.assert_array_equal(solid[labels < 0], as_bytes(image)[labels < 0])
    np.testing.assert_array_equal(image, before[0])
    np.testing.assert_array_equal(labels, before[1])


@settings(derandomize=True, max_examples=60, deadline=None)
@given(labelled())
def test_boundaries_are_left_of_and_above_other_labels(both: tuple[np.ndarray, np.ndarray]) -> None:
    image, labels = both
    drawn = viz.boundaries(image, labels, colour=(1, 2, 3))
    for y, x in np.ndindex(*labels.shape):
        right, below = labels[y, x : x + 2], labels[y : y + 2, x]
        edge = len({*right.tolist(), *below.tolist()}) > 1
        assert tuple(drawn[y, x]) == ((1, 2, 3) if edge else tuple(as_bytes(image)[y, x]))


@settings(derandomize=True, max_examples=60, deadline=None)
@given(labelled())
def test_mean_colours_are_those_of_scipy(both: tuple[np.ndarray, np.ndarray]) -> None:
    image, labels = both
    found = viz.mean_colours(image, np.where(labels == 70, 2**40, labels))  # numbers may be large
    plain = image.astype(np.float64) if image.dtype == np.uint8 else 255.0 * image
    plain = plain[..., None] if plain.ndim == 2 else plain
    assert found.shape == plain.shape and found.dtype == np.uint8
    for label in np.unique(labels[labels >= 0]):
        for k in range(plain.shape[2]):
            mean = ndimage.mean(plain[..., k], labels, label)
            assert (abs(found[labels == label, k] - mean) <= 0.5 + 1e-4).all()
    np.testing.assert_allclose(found[labels < 0], plain[labels < 0], atol=0.5 + 1e-4)


def test_colours_differ_and_are_few_for_few() -> None:
    found = viz.label_colours(64)
    assert len(np.unique(found, axis=0)) == 64 and found.dtype == np.uint8 and viz.label_colours(0).shape == (0, 3)
    np.testing.assert_array_equal(viz.label_colours(9), found[:9])


def test_images_in_files(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    for picture in (image, image[..., 0], image[::-1, ::2]):
        viz.save_image(picture, tmp_path / "x.png")
        with Image.open(tmp_path / "x.png") as opened:
            np.testing.assert_array_equal(np.asarray(opened), picture)


# ---- figures --------------------------------------------------------------------------------------------


def shown(axis: Any) -> np.ndarray:
    return np.asarray(axis.images[0].get_array())


def test_a_sheet_shows_bytes_as_they_are() -> None:
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    figure = viz.image_grid(
        [[image, image / 255, image[..., 0] / 255]], columns=["bytes", "numbers", "grey"], rows=["a"]
    )
    np.testing.assert_array_equal(shown(figure.axes[0]), image)
    np.testing.assert_allclose(shown(figure.axes[1]), image / 255)
    assert [axis.get_title() for axis in figure.axes] == ["bytes", "numbers", "grey"]


@pytest.mark.parametrize("k", [1, 3, 8])
def test_image_eigenvectors_and_cuts(tmp_path: Path, k: int) -> None:
    rng = np.random.default_rng(0)
    vectors, image = rng.standard_normal((20, 30, k)), rng.integers(0, 256, (20, 30, 3), np.uint8)
    cuts = np.repeat(np.arange(3), 10) + np.zeros((20, 1), int)
    figure = viz.eigenvectors_figure(np.arange(1, k + 1) / 7, vectors, image=image, cuts=cuts, title="montage")
    axes = [axis for axis in figure.axes if axis.get_visible()]
    titles = [axis.get_title() for axis in axes]
    assert titles[0] == "image" and titles[-1] == "3 segments" and titles[1] == "2: λ = 0.143" and len(axes) == k + 2
    np.testing.assert_array_equal(shown(axes[0]), image)
    np.testing.assert_array_equal(shown(axes[-1]), viz.boundaries(image, cuts))
    order = np.argsort(vectors[..., 0].ravel())
    assert (np.diff(shown(axes[1]).ravel()[order]) >= 0).all()  # grey goes up with the vector
    viz.save(figure, tmp_path / "x.png")
    alone = viz.eigenvectors_figure(np.ones(1), vectors[..., :1], cuts=cuts)
    assert [axis.get_title() for axis in alone.axes if axis.get_visible()] == ["2: λ = 1", "3 segments"]
    assert shown(alone.axes[1]).shape == (20, 30, 3)


def test_track_pictures_are_those_of_the_animation(tmp_path: Path) -> None:
    frame, who = (x.reshape(-1) for x in np.meshgrid(np.arange(1, 8), [1, 2], indexing="ij"))
    tracks = mot.Tracks(frame, who, np.stack([10 * frame, 20 + 60 * who, 0 * frame + 20, 0 * frame + 40], 1))
    how: dict[str, Any] = {"size": (200, 220), "trail": 3, "longest": 200}
    viz.tracks_gif(tmp_path / "a.gif", tracks, **how)
    pictures = dict(viz.track_pictures(tracks, **how))
    assert list(pictures) == [f"frame {k}" for k in range(1, 8)]
    with Image.open(tmp_path / "a.gif") as opened:
        for k, picture in enumerate(pictures.values()):
            opened.seek(k)
            np.testing.assert_array_equal(np.asarray(opened.convert("RGB")), picture)
    some = dict(viz.track_pictures(tracks, every=3, **how))
    assert list(some) == ["frame 1", "frame 4", "frame 7"]
    assert all((picture == pictures[label]).all() for label, picture in some.items())


def test_tracks_with_nothing_on_one_side() -> None:
    some, none = mot.Tracks([1, 2], [1, 1], [[0, 0, 9, 9]] * 2), mot.Tracks([], [], np.empty((0, 4)))
    for gt, pred in ((some, none), (none, some), (none, none)):
        figure = viz.tracks_figure([("x", gt, pred, mot.match(gt, pred))])
        assert len(figure.axes) == 2


# ---- measurements ---------------------------------------------------------------------------------------


@settings(derandomize=True, max_examples=30, deadline=None)
@given(
    st.lists(st.floats(1, 1e9), min_size=2, max_size=9, unique=True),
    st.floats(-1, 4),
    st.floats(1e-9, 1e3),
    st.integers(0, 2**32 - 1),
)
def test_exponents_are_those_of_a_fit_by_numpy(at: list[float], power: float, factor: float, seed: int) -> None:
    x = np.array(at)
    if x.max() / x.min() < 1.5:
        return
    y = factor * x**power * np.exp(0.2 * np.random.default_rng(seed).standard_normal(len(x)))
    slope, offset = np.polyfit(np.log(x), np.log(y), 1)
    figure = viz.scaling_figure({"ours": (x, y)}, xlabel="pixels")
    (axis,) = figure.axes
    said = axis.get_legend().get_texts()[0].get_text()
    assert abs(float(said.split("^")[1]) - slope) < 0.006
    dashed = next(line for line in axis.lines if line.get_linestyle() == "--")
    ends = np.array([x.min(), x.max()])
    np.testing.assert_allclose(dashed.get_ydata(), np.exp(offset) * ends**slope, rtol=1e-6)
    assert axis.get_xscale() == axis.get_yscale() == "log" and axis.get_xlabel() == "pixels"


def test_scaling_with_ends_and_without_a_slope() -> None:
    figure = viz.scaling_figure({"a": ([4, 1], [2.0, 1.0], [1.5, 0.9], [3.0, 1.0]), "b": ([2], [1.0])}, title="x")
    words = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert words == ["a: size^0.50", "b"]
    (bars,) = (made.lines[2][0] for made in figure.axes[0].containers[:1])
    np.testing.assert_allclose(sorted(bars.get_segments()[1][:, 1].tolist()), [1.5, 3.0])


def entry(
    seconds: float | None, bytes: float = 1e6, flops: float = 0.0, dtype: str = "float32", **peers: float
) -> dict[str, Any]:
    times = {name.replace("_", " "): {"median": t} for name, t in peers.items()}
    ours = {} if seconds is None else {"ours": {"median": seconds, "p20": 0.8 * seconds, "p80": 2 * seconds}}
    return {"family": dtype, "bytes": bytes, "flops": flops, "dtype": dtype, "times": {**ours, **times}}


CEILINGS = {"copy": 1e10, "fp32": 1e11, "fp64": 5e10}


def test_rooflines_have_points_where_they_belong() -> None:
    entries = {"computes": entry(0.5, 1e9, 4e9), "moves": entry(0.25, 1e9), "was not timed": entry(None)}
    figure = viz.roofline_figure(entries, CEILINGS, title="a device")
    left, right = figure.axes
    points = [[line.get_xydata()[0] for line in axis.lines if line.get_ls() == "None"] for axis in (left, right)]
    np.testing.assert_allclose(points[1], [[4.0, 8.0]])  # operations per byte, GFLOP/s
    assert points[0][0][1] == 4.0  # GB/s
    roof = next(line for line in right.lines if line.get_ls() == "-").get_xydata()
    np.testing.assert_allclose(roof[1], [10.0, 100.0])  # the ridge: 1e11 / 1e10
    np.testing.assert_allclose(roof[0, 1] / roof[0, 0], 10.0)
    listed = [text.get_text() for text in figure.legends[-1].get_texts()]
    assert listed == ["1  moves", "2  computes"]


def test_rooflines_of_one_kind_alone() -> None:
    computing = viz.roofline_figure({str(k): entry(0.1, 1e9, 1e9) for k in range(20)}, CEILINGS)
    moving = viz.roofline_figure({"m": entry(0.1)}, {"copy": 1e10}, names=False)
    assert [axis.get_title() for axis in computing.axes] == ["computing"]
    assert [axis.get_title() for axis in moving.axes] == ["moving data"]
    assert [text.get_text() for text in computing.legends[0].get_texts()] == ["float32"]  # families, no numbers


def test_speedups_are_sorted_and_say_what_is_left_out() -> None:
    entries = {
        "slower": entry(2.0, SciPy=1.0, ours_on_all_cores=0.1),
        "faster": entry(1.0, SciPy=5.0, NumPy=4.0),
        "alone": entry(1.0, ours_again=3.0),
        "even": entry(1.0, SciPy=1.0),
    }
    figure = viz.speedup_figure(entries, title="a device")
    (axis,) = figure.axes
    assert [text.get_text() for text in axis.get_yticklabels()] == ["faster", "even", "slower"]
    np.testing.assert_allclose([1 + bar.get_width() for bar in axis.patches], [4.0, 1.0, 0.5])
    words = [text.get_text() for text in axis.texts]
    assert words == ["4x  NumPy", "1x  SciPy", "0.5x  SciPy"] and "left out" not in axis.get_xlabel()
    few = viz.speedup_figure(entries, most=2).axes[0]
    assert [text.get_text() for text in few.get_yticklabels()] == ["faster", "slower"]
    assert "1 in the middle are left out" in few.get_xlabel()


def test_kept_results_are_drawn(tmp_path: Path) -> None:
    """The files of the benchmarks as they are, with all their entries."""
    for file in sorted(RESULTS.glob("*.json")):
        kept = json.loads(file.read_text())
        viz.save(viz.roofline_figure(kept["entries"], kept["ceilings"], title=kept["device"]), tmp_path / "roof.png")
        viz.save(viz.speedup_figure(kept["entries"], title=kept["device"]), tmp_path / "speed.png")
        assert min((tmp_path / f"{name}.png").stat().st_size for name in ("roof", "speed")) > 20_000


# ---- refusals -------------------------------------------------------------------------------------------

G, L, B = np.zeros((4, 5)), np.zeros((4, 5), int), np.zeros((4, 5, 3), np.uint8)
NONE = mot.Tracks([], [], np.empty((0, 4)))
LOG = mot.events(NONE, NONE)
HOTA = mot.evaluate(
    mot.Tracks([1], [1], [[0, 0, 9, 9]]), mot.Tracks([1], [1], [[0, 0, 9, 9]]), metrics=["hota", "clear"]
).combined["all"]
V = np.zeros((4, 5, 2))
E = {"a": entry(1.0, SciPy=1.0)}

REFUSED: list[tuple[str, Any, type[Exception], str]] = [
    ("label_colours", lambda: viz.label_colours(-1), ValueError, "n must be from 0 to"),
    ("label_colours", lambda: viz.label_colours(2.0), TypeError, "n must be an integer"),
    ("overlay", lambda: viz.overlay([[1]], L), TypeError, "image must be a NumPy array, got list"),
    ("overlay", lambda: viz.overlay(L, L), TypeError, "image must have dtype uint8 or float, got int64"),
    ("overlay", lambda: viz.overlay(V, L), ValueError, r"image must have shape \[H, W\] or \[H, W, 3\], got \(4, 5, 2\)"),
    ("overlay", lambda: viz.overlay(G + np.nan, L), ValueError, "image must be finite, got nan"),
    ("overlay", lambda: viz.overlay(G, L.T), ValueError, r"labels must have shape \[4, 5\], got \(5, 4\)"),
    ("overlay", lambda: viz.overlay(G, G), TypeError, "labels must hold integers, got float64"),
    ("overlay", lambda: viz.overlay(G, L > 0), TypeError, "labels must hold integers, got bool"),
    ("overlay", lambda: viz.overlay(G, L + 2**40), ValueError, "labels must be below 1048576 where no colours are given"),
    ("overlay", lambda: viz.overlay(G, L + 1, colours=B[0, :1]), ValueError, "colours must have a row for each of 2 labels, got 1"),
    ("overlay", lambda: viz.overlay(G, L, colours=G[:, :3]), TypeError, "colours must have dtype uint8, got float64"),
    ("overlay", lambda: viz.overlay(G, L, opacity=1.5), ValueError, "opacity must be from 0 to 1, got 1.5"),
    ("boundaries", lambda: viz.boundaries(G, L[:2]), ValueError, "labels must have shape"),
    ("boundaries", lambda: viz.boundaries(G, L, colour=(1, 2)), TypeError, "colour must be three numbers"),
    ("boundaries", lambda: viz.boundaries(G, L, colour=(0, 0, 256)), ValueError, "colour must be from 0 to 255, got 256"),
    ("mean_colours", lambda: viz.mean_colours(None, L), TypeError, "image must be a NumPy array, got None"),
    ("mean_colours", lambda: viz.mean_colours(G[0], L), ValueError, "image must have shape"),
    ("cutout", lambda: viz.cutout(G, L, foreground=L), TypeError, "foreground must have dtype bool, got int64"),
    ("cutout", lambda: viz.cutout(G, L, background=(L > 0).T), ValueError, "background must have shape"),
    ("cutout", lambda: viz.cutout(G, L, rect=(1, 2, 3)), TypeError, "rect must be four numbers"),
    ("cutout", lambda: viz.cutout(G, L, rect=(-1, 2, 3, 3)), ValueError, "rect must be from 0"),
    ("cutout", lambda: viz.cutout(G, L, dimmed=-1), ValueError, "dimmed must be from 0 to 1, got -1"),
    ("save_image", lambda: viz.save_image(B, 3), TypeError, "path must be a path, got int"),
    ("save_image", lambda: viz.save_image(G, "x.png"), TypeError, "image must have dtype uint8, got float64"),
    ("save_image", lambda: viz.save_image(B[:0], "x.png"), ValueError, r"image must have a pixel, got \(0, 5, 3\)"),
    ("save_labels", lambda: viz.save_labels(G, "x.png"), TypeError, "labels must hold integers"),
    ("save_labels", lambda: viz.save_labels(L[:, :0], "x.png"), ValueError, "labels must have a pixel"),
    ("save_labels", lambda: viz.save_labels(L, "x.png", G), TypeError, "colours must have dtype uint8"),
    ("image_grid", lambda: viz.image_grid([], columns=["a"]), ValueError, "images must have an entry, got none"),
    ("image_grid", lambda: viz.image_grid([[G]], columns=["a", "b"]), ValueError, "images must have 2 entries, one for each column, got 1"),
    ("image_grid", lambda: viz.image_grid([[G]], columns="a"), TypeError, "columns must be a sequence, got str"),
    ("image_grid", lambda: viz.image_grid([[G]], columns=[1]), TypeError, "columns must hold text, got int"),
    ("image_grid", lambda: viz.image_grid([[G[:0]]], columns=["a"]), ValueError, "images must have shape .* with a pixel"),
    ("image_grid", lambda: viz.image_grid([[G + np.inf]], columns=["a"]), ValueError, "images must be finite, got inf"),
    ("image_grid", lambda: viz.image_grid([[G]], columns=["a"], rows=["a", "b"]), ValueError, "rows must have 1 entries"),
    ("image_grid", lambda: viz.image_grid([[G]], columns=["a"], size=0), ValueError, "size must be finite and positive, got 0"),
    ("labels_figure", lambda: viz.labels_figure(G, {}), ValueError, "panels must have an entry, got none"),
    ("labels_figure", lambda: viz.labels_figure(G, [L]), TypeError, "panels must be a mapping, got list"),
    ("labels_figure", lambda: viz.labels_figure(G, {"a": L.T}), ValueError, r"panels\['a'\] must have shape \[4, 5\]"),
    ("labels_figure", lambda: viz.labels_figure(G[:0], {"a": None}), ValueError, "image must have a pixel"),
    ("labels_figure", lambda: viz.labels_figure(G, {"a": L + 1}, names=["x"]), ValueError, "names must name each of 2 labels, got 1"),
    ("points_figure", lambda: viz.points_figure([G], [[L[0]]], columns=["a"]), ValueError, r"points must have shape \[N, 2\]"),
    ("points_figure", lambda: viz.points_figure([G[:, :2]], [[L[0]]], columns=["a"]), ValueError, r"values must have shape \[4\], got \(5,\)"),
    ("points_figure", lambda: viz.points_figure([G[:, :2]], [], columns=["a"]), ValueError, "values must have 1 entries"),
    ("eigenvectors_figure", lambda: viz.eigenvectors_figure(np.ones(3), V), ValueError, r"values must have shape \[2\]"),
    ("eigenvectors_figure", lambda: viz.eigenvectors_figure(np.ones(2), G), ValueError, r"vectors must have shape \[H, W, k\]"),
    ("eigenvectors_figure", lambda: viz.eigenvectors_figure(np.ones(2), V, cuts=L.T), ValueError, "cuts must have the size of the vectors"),
    ("eigenvectors_figure", lambda: viz.eigenvectors_figure(np.ones(2), V * 1j), TypeError, "vectors must hold real numbers"),
    ("eigenvectors_figure", lambda: viz.eigenvectors_figure(np.ones(2), V, first=0), ValueError, "first must be from 1"),
    ("iterations_figure", lambda: viz.iterations_figure(G, {}, marginal="a"), ValueError, "steps must have an entry"),
    ("iterations_figure", lambda: viz.iterations_figure(G, {0: (L,)}, marginal="a"), ValueError, r"steps\[0\] must have 2 entries"),
    ("iterations_figure", lambda: viz.iterations_figure(G, {"0": (L, G)}, marginal="a"), TypeError, "steps must be an integer"),
    ("iterations_figure", lambda: viz.iterations_figure(G, {0: (L, G.T)}, marginal="a"), ValueError, r"marginals of steps\[0\] must have shape"),
    ("checkerboard_figure", lambda: viz.checkerboard_figure([]), ValueError, "trials must have an entry"),
    ("checkerboard_figure", lambda: viz.checkerboard_figure([3]), TypeError, "trials must hold results of checkerboard_study, got int"),
    ("curves_figure", lambda: viz.curves_figure([{"epoch": 1}], {"a": ["loss"]}), ValueError, "rows must have 'loss', got 'epoch'"),
    ("curves_figure", lambda: viz.curves_figure([], {"a": ["loss"]}), ValueError, "rows must have an entry"),
    ("curves_figure", lambda: viz.curves_figure([{"epoch": 1}], {"a": "loss"}), TypeError, "panels must be a sequence, got str"),
    ("tracks_figure", lambda: viz.tracks_figure([]), ValueError, "sequences must have an entry"),
    ("tracks_figure", lambda: viz.tracks_figure([("a", NONE, NONE)]), ValueError, "sequences must have 4 entries: label, gt, pred and matches, got 3"),
    ("tracks_figure", lambda: viz.tracks_figure([("a", NONE, 3, None)]), TypeError, "pred must be Tracks, got int"),
    ("tracks_figure", lambda: viz.tracks_figure([("a", NONE, NONE, None)]), TypeError, "matches must be Matches, got None"),
    ("alpha_figure", lambda: viz.alpha_figure({}), ValueError, "figures must have an entry"),
    ("alpha_figure", lambda: viz.alpha_figure({"a": {"MOTA": 1.0}}), ValueError, "figures must have those of HOTA, got 'a' without HOTA"),
    ("identities_figure", lambda: viz.identities_figure([1]), TypeError, "events must be Events, got list"),
    ("identities_figure", lambda: viz.identities_figure(LOG, most=0), ValueError, "most must be from 1"),
    ("track_pictures", lambda: viz.track_pictures(NONE), ValueError, "tracks must hold a box, got none"),
    ("track_pictures", lambda: viz.track_pictures(NONE, every=0), ValueError, "every must be from 1"),
    ("scaling_figure", lambda: viz.scaling_figure({}), ValueError, "series must have an entry"),
    ("scaling_figure", lambda: viz.scaling_figure({"a": ([1, 2],)}), ValueError, r"series\['a'\] must be sizes and times"),
    ("scaling_figure", lambda: viz.scaling_figure({"a": ([1, 2], [1.0])}), ValueError, r"series\['a'\] must have shape \[2\], got \(1,\)"),
    ("scaling_figure", lambda: viz.scaling_figure({"a": ([1, 2], [1.0, 0.0])}), ValueError, r"series\['a'\] must hold positive numbers, got 0"),
    ("scaling_figure", lambda: viz.scaling_figure({"a": (["x"], [1.0])}), TypeError, r"series\['a'\] must hold real numbers"),
    ("roofline_figure", lambda: viz.roofline_figure({}, CEILINGS), ValueError, "entries must have an entry"),
    ("roofline_figure", lambda: viz.roofline_figure({"a": {}}, CEILINGS), ValueError, r"entries\['a'\] must have an entry"),
    ("roofline_figure", lambda: viz.roofline_figure({"a": {"bytes": 1}}, CEILINGS), ValueError, r"entries\['a'\] must have 'flops', got 'bytes'"),
    ("roofline_figure", lambda: viz.roofline_figure({"a": entry(None)}, CEILINGS), ValueError, "entries must have one that was timed, got none"),
    ("roofline_figure", lambda: viz.roofline_figure({"a": entry(0.0)}, CEILINGS), ValueError, "median of 'a' must be finite and positive, got 0.0"),
    ("roofline_figure", lambda: viz.roofline_figure({"a": entry(1.0, -1.0)}, CEILINGS), ValueError, "bytes of 'a' must not be negative"),
    ("roofline_figure", lambda: viz.roofline_figure(E, {"fp32": 1.0}), ValueError, "ceilings must have 'copy', got 'fp32'"),
    ("roofline_figure", lambda: viz.roofline_figure(E, {"copy": -1.0}), ValueError, r"ceilings\['copy'\] must be finite and positive"),
    ("roofline_figure", lambda: viz.roofline_figure(E, CEILINGS, names=1), TypeError, "names must be True or False"),
    ("speedup_figure", lambda: viz.speedup_figure({"a": entry(1.0)}), ValueError, "entries must have one with a peer, got none"),
    ("speedup_figure", lambda: viz.speedup_figure(E, most=1), ValueError, "most must be from 2"),
]  # fmt: skip


@pytest.mark.parametrize("case", range(len(REFUSED)), ids=[f"{k}-{row[0]}" for k, row in enumerate(REFUSED)])
def test_what_is_refused(case: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    op, call, kind, words = REFUSED[case]
    monkeypatch.chdir(tmp_path)
    with pytest.raises(kind, match=f"^{op}: {words}") as caught:
        call()
    assert re.search(r" must .*, got ", str(caught.value)) and not list(tmp_path.iterdir())


def test_every_public_name_is_looked_at() -> None:
    """Each function is refused something here or where the rest of it is tested."""
    elsewhere = {"COLOURS", "Page", "save", "tracking_graph_figure", "tracks_gif"}  # test_html.py, test_viz_tracks.py
    assert {row[0] for row in REFUSED} | elsewhere == set(viz.__all__)


def test_what_is_right_is_not_refused(tmp_path: Path) -> None:
    """The calls beside the refused ones, made into files."""
    trials = checkerboard_study(channels=2, size=12, steps=1)
    figures = [
        viz.labels_figure(B, {"image": None, "a": L}, names=["x"]),
        viz.points_figure([G[:, :2]], [[L[:, 0]]], columns=["a"], rows=["b"]),
        viz.iterations_figure(G, {0: (L, G)}, marginal="a"),
        viz.checkerboard_figure(trials[:1]),
        viz.alpha_figure({"a": HOTA}),
        viz.identities_figure(LOG),
    ]
    for figure in figures:
        viz.save(figure, tmp_path / "x.png")
        assert (tmp_path / "x.png").stat().st_size > 1000
