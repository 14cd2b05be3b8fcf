"""Pictures of trackers: the graph, and the animated GIF, which Pillow reads back; and `cv3gpu track --gif`."""

from __future__ import annotations

import io
import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from cv3gpu import cli, demo, mot, viz
from cv3gpu.demo import tracking
from cv3gpu.demo._inputs import SEQUENCES, track_files
from cv3gpu.demo._references import clear_and_identity, read_tracks
from cv3gpu.errors import BackendUnavailableError

pytest.importorskip("matplotlib")
Image = pytest.importorskip("PIL.Image")

BLUE, ORANGE = (0x00, 0x72, 0xB2), (0xE6, 0x9F, 0x00)
GREY = (0x8A, 0x8A, 0x8A)


def walkers(frames: int = 6, people: int = 2) -> mot.Tracks:
    """People one above the other who walk to the right, ten pixels a frame."""
    frame, who = (x.reshape(-1) for x in np.meshgrid(np.arange(1, frames + 1), np.arange(people), indexing="ij"))
    box = np.stack([10 * frame, 20 + 60 * who, 0 * frame + 20, 0 * frame + 40], 1)
    return mot.Tracks(frame, who + 1, box)


def frames_of(path: Path) -> list[np.ndarray]:
    with Image.open(path) as opened:
        return [np.asarray((opened.seek(k), opened.convert("RGB"))[1]) for k in range(opened.n_frames)]


def holds(picture: np.ndarray, colour: tuple[int, ...], near: int = 4) -> np.ndarray:
    """Where a picture has a colour: rows and columns, [2, N]."""
    return np.array(np.nonzero((np.abs(picture.astype(int) - colour) <= near).all(2)))


# ---- the graph ------------------------------------------------------------------------------------------


def lines_of(figure: Any) -> tuple[np.ndarray, np.ndarray, Any]:
    """Candidates and links of trajectories, [E, 2, 2] each, and the axis."""
    (axis,) = figure.axes
    candidates, active = axis.collections[:2]
    return *(np.array(lines.get_segments()).reshape(-1, 2, 2) for lines in (candidates, active)), axis


def test_the_graph_shows_candidates_and_trajectories() -> None:
    tracks = walkers(4)
    tracks = mot.Tracks(
        tracks.frame, np.where(tracks.frame == 2, [-1, 1] * 4, tracks.id), tracks.box
    )  # 1 is now here, now there
    edges = mot.candidate_edges(tracks.frame, tracks.box, max_gap=2, k=8)
    figure = viz.tracking_graph_figure(tracks, edges, title="links")
    candidates, active, axis = lines_of(figure)
    centre = tracks.box[:, 0] + 10
    want = np.stack([tracks.frame[edges], centre[edges]], -1).transpose(1, 0, 2)
    assert np.array_equal(candidates, want) and len(want)
    # From each box to the next of its identity: 1 goes from the upper row to the lower one and back; 2 misses a frame.
    steps = {(1, 2), (2, 3), (3, 4)}, {(1, 3), (3, 4)}
    assert sorted(map(tuple, active[:, :, 0].astype(int).tolist())) == sorted([*steps[0], *steps[1]])
    colours = axis.collections[1].get_colors()
    assert len(np.unique(colours, axis=0)) == 2 and axis.get_title() == "links"
    hollow = axis.collections[3].get_offsets()
    assert np.array_equal(hollow, [[2, 30]])
    words = [text.get_text() for text in figure.legends[0].get_texts()]
    assert words == ["candidate link", "link of a trajectory, a colour for each", "detection in no trajectory"]


def test_the_graph_of_some_frames() -> None:
    tracks = walkers(6)
    edges = mot.candidate_edges(tracks.frame, tracks.box, max_gap=1, k=8)
    candidates, active, axis = lines_of(viz.tracking_graph_figure(tracks, edges, frames=(2, 4)))
    assert set(candidates[:, :, 0].ravel()) == {2, 3, 4} and active[:, :, 0].min() == 2 and len(active) == 4
    assert axis.get_xlim() == (1.4, 4.6)
    assert len(axis.collections[2].get_offsets()) == 6


def test_the_graph_without_anything(tmp_path: Path) -> None:
    none = np.empty((2, 0), int)
    figure = viz.tracking_graph_figure(walkers()[:0], none, frames=(1, 3))
    candidates, active, _ = lines_of(figure)
    assert not len(candidates) and not len(active) and not figure.legends
    viz.save(figure, tmp_path / "empty.png")
    one = viz.tracking_graph_figure(walkers(1, 1), none)
    assert len(one.axes[0].collections[2].get_offsets()) == 1


def test_identities_of_two_classes_differ() -> None:
    frame, box = [1, 1, 2, 2], np.tile([[0.0, 0, 9, 9], [50, 0, 9, 9]], (2, 1))
    tracks = mot.Tracks(frame, [7, 7, 7, 7], box, class_=[1, 2, 1, 2])
    _, active, axis = lines_of(viz.tracking_graph_figure(tracks, np.empty((2, 0), int)))
    assert len(active) == 2 and len(np.unique(axis.collections[1].get_colors(), axis=0)) == 2


GOOD = np.array([[0], [2]])
GRAPH_REFUSALS = {
    "tracks": (((np.zeros(3), GOOD), {}), TypeError, "tracks must be Tracks, got ndarray"),
    "edges that are no integers": (((walkers(), GOOD * 1.0), {}), TypeError, "edges must have dtype int64 or int32"),
    "three rows": (((walkers(), np.zeros((3, 1), int)), {}), ValueError, r"edges must have shape \[2, E\]"),
    "an edge to no box": (((walkers(), np.array([[0], [99]])), {}), ValueError, "edges must hold nodes from 0 to 11, got 99"),
    "a loop": (((walkers(), np.array([[3], [3]])), {}), ValueError, "edges must link different nodes"),
    "no box": (((walkers()[:0], np.empty((2, 0), int)), {}), ValueError, "tracks must hold a box, got none"),
    "one frame": (((walkers(), GOOD), {"frames": 3}), TypeError, "frames must be a pair"),
    "three frames": (((walkers(), GOOD), {"frames": (1, 2, 3)}), TypeError, "frames must be a pair"),
    "frames that are no numbers": (((walkers(), GOOD), {"frames": (1, "b")}), TypeError, "frames must be an integer"),
    "frames backwards": (((walkers(), GOOD), {"frames": (4, 2)}), ValueError, "frames must be in order, got 4 and 2"),
    "a frame before the first": (((walkers(), GOOD), {"frames": (-1, 2)}), ValueError, "frames must be from 0 to"),
}  # fmt: skip


@pytest.mark.parametrize("case", GRAPH_REFUSALS)
def test_the_graph_refuses(case: str) -> None:
    (arguments, options), kind, words = GRAPH_REFUSALS[case]
    with pytest.raises(kind, match=f"tracking_graph_figure: {words}"):
        viz.tracking_graph_figure(*arguments, **options)


# ---- the animation --------------------------------------------------------------------------------------


def test_boxes_move_in_their_colours(tmp_path: Path) -> None:
    tracks, file = walkers(), tmp_path / "a.gif"
    viz.tracks_gif(file, tracks, size=(200, 150), trail=0, longest=200)
    pictures = frames_of(file)
    assert len(pictures) == 6 and all(p.shape == pictures[0].shape and p.shape[1] == 200 for p in pictures)
    for number, picture in enumerate(pictures, 1):
        for colour, top in ((BLUE, 20), (ORANGE, 80)):
            rows, columns = holds(picture, colour)
            # The outline, which is two pixels wide, and the name above the left corner.
            assert abs(columns.min() - 10 * number) <= 1 and abs(columns.max() - 10 * number - 20) <= 2
            assert abs(rows.max() - top - 40) <= 2 and top - 16 <= rows.min() < top
        assert (picture[5, 5] == 255).all() and (picture[120:140, 100:] == 255).all()
        inside = picture[50, 10 * number + 10]
        assert (inside != 255).any() and inside[2] > inside[0]  # a tint of blue


def test_trails_stay_for_some_frames(tmp_path: Path) -> None:
    tracks, file = walkers(12, 1), tmp_path / "a.gif"
    viz.tracks_gif(file, tracks, size=(200, 150), trail=4, longest=200)
    last = frames_of(file)[-1]
    foot = last[58:63, :118]  # left of the box, which stands at 120
    inked = np.flatnonzero((foot != 255).any((0, 2)))
    assert 87 <= inked.min() <= 92  # the foot was at 90 four frames ago
    assert np.isin(np.arange(93, 118), inked).all()
    gone = walkers(4, 1)
    viz.tracks_gif(file, gone, frames=(1, 12), size=(200, 150), trail=4, longest=200)
    pictures = frames_of(file)
    assert (pictures[5][:150] != 255).any() and (pictures[9][:150] == 255).all()


def test_a_trail_begins_before_the_first_frame_that_is_shown(tmp_path: Path) -> None:
    viz.tracks_gif(tmp_path / "a.gif", walkers(12, 1), frames=(10, 12), size=(200, 150), trail=5, longest=200)
    first = frames_of(tmp_path / "a.gif")[0]
    assert (first[58:63, 65:98] != 255).any((0, 2)).all()


def test_pictures_are_grey_behind_the_boxes(tmp_path: Path) -> None:
    ramp = np.broadcast_to(np.linspace(0, 255, 200).astype(np.uint8), (150, 200))
    colour = np.stack([ramp] * 3, 2).copy()
    colour[:10, :10] = (255, 0, 0)
    asked: list[int] = []

    def images(frame: int) -> Any:
        asked.append(frame)
        if frame == 2:  # from a file
            Image.fromarray(colour).save(tmp_path / "2.png")
            return tmp_path / "2.png"
        return colour / 255 if frame == 3 else colour

    viz.tracks_gif(tmp_path / "a.gif", walkers(3), images=images, trail=2)
    assert sorted(set(asked)) == [1, 2, 3]
    for number, picture in enumerate(frames_of(tmp_path / "a.gif"), 1):
        assert picture.shape[1] == 200  # not enlarged
        plain = picture[125:148]
        assert np.abs(plain.astype(int) - ramp[125:148, :, None]).max() <= 4
        red = picture[3, 3].astype(int)
        assert red.max() == red.min() and abs(red[0] - 76) <= 3
        assert holds(picture, BLUE).size and holds(picture, ORANGE).size
        assert (picture[100, 10 * number + 10] == picture[100, 10 * number + 10, 0]).all()  # boxes are not filled
    grey = tmp_path / "b.gif"
    viz.tracks_gif(grey, walkers(2), images=lambda frame: ramp, longest=100)
    assert frames_of(grey)[0].shape[1] == 100 and frames_of(grey)[0].shape[0] >= 75


def test_the_scene_is_as_large_as_the_boxes(tmp_path: Path) -> None:
    tracks = walkers()
    far = mot.Tracks(tracks.frame, tracks.id, tracks.box * 1000 + [5e6, -3e6, 0, 0])
    sizes = []
    for given_, name in ((tracks, "a"), (far, "b")):
        viz.tracks_gif(tmp_path / f"{name}.gif", given_, longest=300)
        sizes.append(frames_of(tmp_path / f"{name}.gif"))
        rows, columns = holds(sizes[-1][0], BLUE)
        assert rows.min() > 0 and columns.min() > 0
    assert all(np.array_equal(a, b) for a, b in zip(*sizes, strict=True))
    assert max(sizes[0][0].shape) >= 300


def test_names_do_not_hide_each_other(tmp_path: Path) -> None:
    box = [[40, 40, 30, 60], [41, 40, 30, 60], [42, 41, 30, 60]]
    canvas: list[Any] = []
    original = viz.animation._Canvas.places

    def places(self: Any) -> Any:
        canvas.append(self)
        return original(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(viz.animation._Canvas, "places", places)
        viz.tracks_gif(tmp_path / "a.gif", mot.Tracks([1, 1, 1], [1, 2, 3], box), size=(150, 150))
    (tags,) = [c.tags for c in canvas]
    assert len(tags) == 3
    for k, a in enumerate(tags):
        for b in tags[:k]:
            assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]


def test_boxes_without_identity_or_area(tmp_path: Path) -> None:
    box = [[20, 20, 30, 40], [100, 20, 0, 40], [100, 100, 30, -4]]
    viz.tracks_gif(tmp_path / "a.gif", mot.Tracks([1, 1, 1], [-1, 4, 5], box), size=(200, 150), longest=200)
    (picture,) = frames_of(tmp_path / "a.gif")
    _, columns = holds(picture[:150], GREY, 12)
    assert columns.min() >= 19 and columns.max() <= 52 and (picture[:150, 60:] == 255).all()


def test_the_same_bytes_on_every_run(tmp_path: Path) -> None:
    for name in "ab":
        viz.tracks_gif(tmp_path / f"{name}.gif", walkers(), size=(200, 150))
    assert (tmp_path / "a.gif").read_bytes() == (tmp_path / "b.gif").read_bytes()


@pytest.mark.parametrize(("fps", "first"), [(25.0, 40), (50.0, 20), (10, 100), (2.5, 400)])
def test_frames_per_second(tmp_path: Path, fps: float, first: int) -> None:
    viz.tracks_gif(tmp_path / "a.gif", walkers(), size=(200, 150), fps=fps)
    with Image.open(tmp_path / "a.gif") as opened:
        assert opened.info["duration"] == first and opened.info["loop"] == 0


def test_uneven_frame_rates_keep_time(tmp_path: Path) -> None:
    viz.tracks_gif(tmp_path / "a.gif", walkers(30, 1), size=(400, 150), fps=30, longest=64)
    with Image.open(tmp_path / "a.gif") as opened:
        total = sum((opened.seek(k), opened.info["duration"])[1] for k in range(opened.n_frames))
    assert total == 1000


@settings(derandomize=True, max_examples=20, deadline=None)
@given(st.integers(1, 5), st.integers(1, 40), st.integers(1, 40), st.integers(2, 255), st.integers(0, 2**32 - 1))
def test_what_is_packed_is_read_back(count: int, height: int, width: int, colours: int, seed: int) -> None:
    """Frames of random places in the palette, of which neighbours share many, come out of Pillow as they went in."""
    rng = np.random.default_rng(seed)
    pictures = [rng.integers(0, colours, (height, width), np.uint8)]
    for _ in range(count - 1):
        pictures.append(
            np.where(rng.random((height, width)) < 0.2, rng.integers(0, colours, (height, width)), pictures[-1])
        )
    table = np.frombuffer(viz.animation._palette(), np.uint8).reshape(-1, 3)
    data = b"".join(viz.animation._gif(iter(pictures), 10.0))
    with Image.open(io.BytesIO(data)) as opened:
        assert opened.n_frames == count
        for k, picture in enumerate(pictures):
            opened.seek(k)
            assert np.array_equal(np.asarray(opened.convert("RGB")), table[picture])


def test_memory_does_not_grow_with_the_frames(tmp_path: Path) -> None:
    def peak(frames: int) -> int:
        tracemalloc.start()
        viz.tracks_gif(tmp_path / "a.gif", walkers(2, 1), frames=(1, frames), size=(200, 150), longest=64)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    peak(4)  # palettes and fonts are kept
    assert peak(120) < 1.5 * peak(12)


def test_the_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "a.gif"
    file.write_bytes(b"before")

    def images(frame: int) -> np.ndarray:
        return np.zeros((50, 50 + (frame == 3)), np.uint8)

    with pytest.raises(
        ValueError, match="tracks_gif: images must be of one size, got 51 x 50 in frame 3 after 50 x 50"
    ):
        viz.tracks_gif(file, walkers(), images=images)
    with pytest.raises(FileNotFoundError, match=r"4\.jpg"):
        viz.tracks_gif(file, walkers(), images=lambda f: np.zeros((9, 9)) if f < 4 else tmp_path / f"{f}.jpg")
    assert file.read_bytes() == b"before" and [p.name for p in tmp_path.iterdir()] == ["a.gif"]


def blank(*shape: int, dtype: Any = np.uint8) -> Any:
    return lambda frame: np.zeros(shape, dtype)


GIF_REFUSALS: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "tracks": ({"tracks": [1, 2]}, TypeError, "tracks must be Tracks, got list"),
    "path": ({"path": 3}, TypeError, "path must be a path, got int"),
    "no box": ({"tracks": walkers()[:0]}, ValueError, "tracks must hold a box, got none"),
    "no box in these frames": ({"frames": (40, 50)}, ValueError, "size must be given where no box is shown"),
    "frames": ({"frames": 7}, TypeError, "frames must be a pair"),
    "frames backwards": ({"frames": (3, 1)}, ValueError, "frames must be in order"),
    "too many frames": ({"frames": (1, 10**6)}, ValueError, "frames must be at most 100000, got 1000000"),
    "a trail before time": ({"trail": -1}, ValueError, "trail must be from 0"),
    "a broken trail": ({"trail": 1.5}, TypeError, "trail must be an integer"),
    "no speed": ({"fps": 0}, ValueError, "fps must be finite and positive, got 0"),
    "too fast": ({"fps": 51}, ValueError, "fps must be at most 50, got 51"),
    "too small": ({"longest": 8}, ValueError, "longest must be from 32 to 4096, got 8"),
    "one side": ({"size": 100}, TypeError, "size must be a pair"),
    "no width": ({"size": (0, 5)}, ValueError, "size must be from 1"),
    "images that are none": ({"images": [1, 2]}, TypeError, "images must be a function of a frame's number, got list"),
    "images and size": ({"images": blank(9, 9), "size": (9, 9)}, ValueError, "size must be None where images are given"),
    "integers": ({"images": blank(9, 9, dtype=int)}, TypeError, "images must return uint8, float or a path, got int64"),
    "two channels": ({"images": blank(9, 9, 2)}, ValueError, r"images must return shape \[H, W\] or \[H, W, 3\]"),
    "an empty picture": ({"images": blank(0, 9)}, ValueError, r"images must return shape \[H, W\]"),
}  # fmt: skip


@pytest.mark.parametrize("case", GIF_REFUSALS)
def test_the_animation_refuses(case: str, tmp_path: Path) -> None:
    options, kind, words = GIF_REFUSALS[case]
    with pytest.raises(kind, match=f"tracks_gif: {words}"):
        viz.tracks_gif(**{"path": tmp_path / "a.gif", "tracks": walkers(), **options})
    assert not list(tmp_path.iterdir())


# ---- cv3gpu track --gif ---------------------------------------------------------------------------------


@pytest.fixture
def sequence(tmp_path: Path) -> Path:
    """A folder as MOTChallenge has it."""
    folder = tmp_path / "street"
    (folder / "det").mkdir(parents=True)
    tracks = walkers(12)
    mot.write(folder / "det" / "det.txt", mot.Tracks(tracks.frame, 0 * tracks.id - 1, tracks.box, tracks.score))
    return folder


def track(*arguments: Any) -> Any:
    return CliRunner().invoke(cli.main, ["track", *map(str, arguments)])


def test_the_command_draws(sequence: Path, tmp_path: Path) -> None:
    gif, out = tmp_path / "street.gif", tmp_path / "tracks.txt"
    result = track(sequence, "--method", "flow", "-o", out, "--gif", gif)
    assert result.exit_code == 0 and str(gif) in result.stdout, result.output
    plain = frames_of(gif)
    assert len(plain) == 12 and (plain[0][2, 2] == 255).all()
    (sequence / "img1").mkdir()
    for frame in range(1, 13):
        Image.new("L", (300, 200), 90).save(sequence / "img1" / f"{frame:06d}.jpg")
    result = track(sequence, "--method", "flow", "-o", out, "--gif", gif, "--json")
    told = json.loads(result.stdout)
    assert told["gif"] == str(gif) and set(told) == {"method", "sequences", "gif"}
    on_pictures = frames_of(gif)
    assert on_pictures[0].shape[1] == 300 and np.abs(on_pictures[0][2, 2].astype(int) - 90).max() <= 2
    assert set(json.loads(track(sequence, "--method", "flow", "-o", out, "--json").stdout)) == {"method", "sequences"}


def test_the_command_refuses(sequence: Path, tmp_path: Path) -> None:
    gif, out = tmp_path / "street.gif", tmp_path / "out"
    other = tmp_path / "yard" / "det"
    other.mkdir(parents=True)
    (other / "det.txt").write_bytes((sequence / "det" / "det.txt").read_bytes())
    result = track(tmp_path, "--method", "flow", "-o", out, "--gif", gif)
    assert result.exit_code == 2 and "--gif goes with one sequence, got 2." in result.stderr and not out.exists()
    result = track(sequence, "--method", "flow", "-o", tmp_path / "t.txt", "--gif", tmp_path / "no" / "a.gif")
    assert result.exit_code == 2 and "must exist" in result.stderr
    result = track(sequence, "--method", "flow", "--score", 5, "-o", tmp_path / "t.txt", "--gif", gif)
    assert result.exit_code == 3 and "cannot be drawn" in result.stderr and not gif.exists()


# ---- the demo -------------------------------------------------------------------------------------------


def test_the_demo_finds_people_again(tmp_path: Path) -> None:
    try:
        gt = mot.read(track_files(SEQUENCES[0])[0])
    except BackendUnavailableError:
        pytest.skip("needs the files of motmetrics (pip install --no-deps motmetrics)")
    detections = tracking._detections(gt)
    assert (detections.id == -1).all() and 300 < len(detections) < len(gt)
    (entry,) = (entry for entry in demo.ENTRIES if entry.name == "neural tracking")
    result = demo.run(tmp_path, [entry])
    assert result.ok, result.rows
    linked = [row for row in result.rows if row.operator == "mot.track"]
    assert len(linked) == 2 and all(0 < row.error < row.tolerance == 0.1 for row in linked if row.error is not None)
    assert [path.name for path in result.pictures] == ["tracking_graph.png", "trajectories.gif"]
    pictures = frames_of(tmp_path / "trajectories.gif")
    assert len(pictures) == 71 and pictures[0].shape[1] == 480
    # What a tracker that mixes people up gets: the plain evaluation sees it.
    mixed = mot.Tracks(gt.frame, (gt.id + gt.frame) % 20, gt.box)
    file = track_files(SEQUENCES[0])[0]
    got = clear_and_identity(read_tracks(file), tracking._by_frame(mixed))
    assert 1 - got["IDF1"] > tracking.LIMIT
