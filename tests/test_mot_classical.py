"""SORT and ByteTrack against their code written out track by track, published figures, and scenes whose tracks are known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from bench import tracking_quality
from cv3gpu import box_iou, mot
from cv3gpu.mot import classical

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "mot"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data/mot")
TRACKERS = {"sort": mot.sort, "byte_track": mot.byte_track, "flow_tracker": mot.flow_tracker}


def scene(seed: int, people: int = 6, frames: int = 40, *, misses: float = 0.15, noise: float = 1.0,
          false: int = 1) -> tuple[mot.Tracks, mot.Tracks]:  # fmt: skip
    """People who walk on straight lines, as ground truth; and noisy detections, some missed, some false."""
    rng = np.random.default_rng(seed)
    frame, who = (x.reshape(-1) for x in np.meshgrid(np.arange(1, frames + 1), np.arange(people), indexing="ij"))
    size = np.stack([rng.uniform(18, 26, people), rng.uniform(50, 70, people)], 1)
    start, speed = rng.uniform(0, 500, (people, 2)), rng.uniform(-3, 3, (people, 2))
    box = np.concatenate([start[who] + speed[who] * frame[:, None], size[who]], 1)
    gt = mot.Tracks(frame=frame, id=who, box=box)
    seen = rng.random(len(frame)) > misses
    stray = rng.integers(1, frames + 1, false * frames // 4)
    where = np.concatenate([rng.uniform(0, 500, (len(stray), 2)), rng.uniform(20, 60, (len(stray), 2))], 1)
    boxes = np.concatenate([box[seen] + rng.normal(0, noise, (seen.sum(), 4)), where])
    score = np.concatenate([rng.uniform(0.3, 1, seen.sum()), rng.uniform(0.1, 0.7, len(stray))])
    frames_of = np.concatenate([frame[seen], stray])
    order = rng.permutation(len(frames_of))
    return mot.Tracks(frame=frames_of[order], id=np.full(len(order), -1), box=boxes[order], score=score[order]), gt


def same_tracks(found: mot.Tracks, wanted: list[tuple[int, int, np.ndarray]]) -> None:
    """Boxes (frame, identity, box) are the same ones, and identities differ in their names at most."""
    wanted = sorted(wanted, key=lambda row: (row[0], *row[2]))
    order = np.lexsort((*found.box.T[::-1], found.frame))
    assert found.frame[order].tolist() == [row[0] for row in wanted]
    if not wanted:
        return
    np.testing.assert_allclose(found.box[order], np.stack([row[2] for row in wanted]), rtol=0, atol=1e-6)
    names = set(zip(found.id[order].tolist(), (row[1] for row in wanted), strict=True))
    assert len(names) == len({a for a, _ in names}) == len({b for _, b in names})


# ---- the filters as they are published: one matrix of all numbers for each track ------------------------


class Filter:
    """A Kalman filter with full matrices, whose covariance is kept symmetric by Joseph's form."""

    def __init__(self, state: np.ndarray, variance: np.ndarray, velocities: int) -> None:
        self.x, self.p = state, np.diag(variance)
        n = len(state)
        self.f, self.h = np.eye(n), np.eye(4, n)
        self.f[np.arange(velocities), 4 + np.arange(velocities)] = 1

    def predict(self, noise: np.ndarray) -> None:
        self.x = self.f @ self.x
        self.p = self.f @ self.p @ self.f.T + np.diag(noise)

    def update(self, measured: np.ndarray, noise: np.ndarray) -> None:
        gain = self.p @ self.h.T @ np.linalg.inv(self.h @ self.p @ self.h.T + np.diag(noise))
        left = np.eye(len(self.x)) - gain @ self.h
        self.x = self.x + gain @ (measured - self.h @ self.x)
        self.p = left @ self.p @ left.T + gain @ np.diag(noise) @ gain.T


def iou(a: Any, b: Any, more: float = 0.0) -> np.ndarray:
    a, b = (np.asarray(x, float).reshape(-1, 4) + np.array([0, 0, more, more]) for x in (a, b))
    return box_iou(a, b, format="xywh")


def sort_by_track(found: mot.Tracks, max_age: int, min_hits: int, least: float) -> list[tuple[int, int, np.ndarray]]:
    tracks: list[Any] = []
    given, known = [], 0

    def box(x: np.ndarray) -> np.ndarray:
        w = np.sqrt(x[2] * x[3])
        return np.array([x[0] - w / 2, x[1] - x[2] / w / 2, w, x[2] / w])

    first = int(found.frame.min())
    for frame in range(first, int(found.frame.max()) + 1):
        boxes = found.box[found.frame == frame]
        for t in tracks:
            if t.x[6] + t.x[2] <= 0:
                t.x[6] = 0
            t.predict(np.array([1, 1, 1, 1, 1e-2, 1e-2, 1e-4]))
            t.streak = 0 if t.missed > 0 else t.streak
            t.missed += 1
        overlap = iou(boxes, [box(t.x) for t in tracks])
        near = overlap > least
        alone = near.size and near.sum(1).max() == 1 == near.sum(0).max()  # then SORT asks no further
        row, col = near.nonzero() if alone else linear_sum_assignment(overlap, maximize=True)
        pairs = {r: c for r, c in zip(row, col, strict=True) if overlap[r, c] >= least}
        for r, b in enumerate(boxes):
            z = np.array([b[0] + b[2] / 2, b[1] + b[3] / 2, b[2] * b[3], b[2] / b[3]])
            if r in pairs:
                t = tracks[pairs[r]]
                t.update(z, np.array([1, 1, 10, 10]))
                t.missed, t.streak = 0, t.streak + 1
            else:
                t = Filter(np.append(z, [0, 0, 0]), np.array([10.0] * 4 + [1e4] * 3), 3)
                t.missed = t.streak = 0  # type: ignore[attr-defined]
                t.name, known = known, known + 1  # type: ignore[attr-defined]
                tracks.append(t)
        shown = [t for t in tracks if t.missed < 1 and (t.streak >= min_hits or frame - first + 1 <= min_hits)]
        given += [(frame, t.name, box(t.x)) for t in shown]
        tracks = [t for t in tracks if t.missed <= max_age]
    return given


def byte_by_track(found: mot.Tracks, high: float, low: float, begin: float, max_age: int,
                  limit: float) -> list[tuple[int, int, np.ndarray]]:  # fmt: skip
    live: list[Any] = []
    lost: list[Any] = []
    given, known = [], 0

    def box(x: np.ndarray) -> np.ndarray:
        return np.array([x[0] - x[2] * x[3] / 2, x[1] - x[3] / 2, x[2] * x[3], x[3]])

    def noise(h: float, place: float, aspect: float) -> list[float]:
        return [(place * h) ** 2, (place * h) ** 2, aspect**2, (place * h) ** 2]

    def matched(tracks: list[Any], rows: list[int], fuse: bool, most: float) -> dict[int, int]:
        """Pairs of the least cost, where a row or a column that is left out costs half of the limit."""
        if not tracks or not rows:
            return {}
        overlap = iou([box(t.x) for t in tracks], found.box[rows], 1)
        cost = 1 - overlap * (found.score[rows] if fuse else 1)
        n, m = cost.shape
        whole = np.full((n + m, n + m), most / 2)
        whole[:n, :m], whole[n:, m:] = cost, 0
        return {r: c for r, c in zip(*linear_sum_assignment(whole), strict=True) if r < n and c < m}

    first = int(found.frame.min())
    for frame in range(first, int(found.frame.max()) + 1):
        rows = np.flatnonzero(found.frame == frame)
        strong = [r for r in rows if found.score[r] > high]
        weak = [r for r in rows if low < found.score[r] <= high]
        pool = [t for t in live if t.sure] + lost
        for t in pool:
            if t in lost:
                t.x[7] = 0
            t.predict(np.array(noise(t.x[3], 1 / 20, 1e-2) + noise(t.x[3], 1 / 160, 1e-5)))
        new = [t for t in live if not t.sure]

        def go_on(t: Any, row: int, now: int = frame) -> None:
            b = found.box[row]
            t.update(
                np.array([b[0] + b[2] / 2, b[1] + b[3] / 2, b[2] / b[3], b[3]]), np.array(noise(t.x[3], 1 / 20, 1e-1))
            )
            t.sure, t.updated = True, now

        pairs = matched(pool, strong, True, limit)
        hit = [pool[r] for r in pairs]
        for r, c in pairs.items():
            go_on(pool[r], strong[c])
        strong = [row for c, row in enumerate(strong) if c not in pairs.values()]
        left = [t for t in pool if t not in hit and t not in lost]
        pairs = matched(left, weak, False, 0.5)
        hit += [left[r] for r in pairs]
        for r, c in pairs.items():
            go_on(left[r], weak[c])
        newly_lost = [t for t in left if t not in hit]
        pairs = matched(new, strong, True, 0.7)
        hit += [new[r] for r in pairs]
        for r, c in pairs.items():
            go_on(new[r], strong[c])
        strong = [row for c, row in enumerate(strong) if c not in pairs.values()]
        for row in strong:
            if found.score[row] >= begin:
                b = found.box[row]
                h = b[3]
                variance = np.array(noise(2 * h, 1 / 20, 1e-2) + noise(10 * h, 1 / 160, 1e-5))
                t = Filter(np.array([b[0] + b[2] / 2, b[1] + b[3] / 2, b[2] / h, h, 0, 0, 0, 0]), variance, 4)
                t.sure, t.started, t.updated = frame == first, frame, frame  # type: ignore[attr-defined]
                t.name, known = known, known + 1  # type: ignore[attr-defined]
                hit.append(t)
        lost = [t for t in lost if t not in hit and frame - t.updated <= max_age] + newly_lost
        live = hit
        same = iou([box(t.x) for t in live], [box(t.x) for t in lost], 1) > 0.85
        out = [(live[p], lost[q]) for p, q in zip(*same.nonzero(), strict=True)]
        gone = [q if p.updated - p.started > q.updated - q.started else p for p, q in out]
        live, lost = [t for t in live if t not in gone], [t for t in lost if t not in gone]
        given += [(frame, t.name, box(t.x)) for t in live if t.sure]
    return given


@pytest.mark.parametrize("options", [(1, 3, 0.3), (0, 0, 0.05), (8, 1, 0.5)])
def test_sort_is_its_code_track_by_track(options: tuple[int, int, float]) -> None:
    for seed in range(4):
        found, _ = scene(seed, misses=0.3 * (seed % 2), false=2)
        age, hits, least = options
        got = mot.sort(found, max_age=age, min_hits=hits, min_iou=least)
        same_tracks(got, sort_by_track(found, *options))


@pytest.mark.parametrize("options", [(0.6, 0.1, 0.7, 30, 0.9), (0.5, 0.2, 0.4, 3, 0.7)])
def test_byte_track_is_its_code_track_by_track(options: tuple[float, float, float, int, float]) -> None:
    for seed in range(4):
        found, _ = scene(seed, people=9, misses=0.3 * (seed % 2), false=3)
        high, low, begin, age, cost = options
        got = mot.byte_track(found, high_score=high, low_score=low, new_score=begin, max_age=age, max_cost=cost)
        assert len(got)
        same_tracks(got, byte_by_track(found, *options))


def test_a_shrinking_box_does_not_break_sort() -> None:
    size = 40 * 0.6 ** np.arange(12)
    found = mot.Tracks(frame=range(1, 13), id=[-1] * 12, box=np.stack([0 * size, 0 * size, size, size], 1))
    got = mot.sort(found, max_age=9, min_hits=0, min_iou=0.1)
    assert len(got) and np.isfinite(got.box).all() and (got.box[:, 2:] > 0).all()


# ---- published figures ----------------------------------------------------------------------------------


@needs_data
@pytest.mark.parametrize(
    ("sequence", "counts"),
    [("TUD-Campus", (15, 113, 6)), ("Venice-2", (1650, 4109, 57)), ("TUD-Stadtmitte", (22, 295, 10))],
)
def test_sort_has_its_published_counts(sequence: str, counts: tuple[int, int, int]) -> None:
    """FP, FN and identity switches of SORT's README, on its own detections."""
    folder = DATA / "MOT15" / sequence
    gt = mot.read(folder / "gt" / "gt.txt")
    figures = mot.clear(gt[gt.score > 0], mot.sort(mot.read(folder / "det" / "det.txt")))
    assert (figures["CLR_FP"], figures["CLR_FN"], figures["IDSW"]) == counts


@pytest.fixture(scope="module")
def second_halves() -> dict[str, tracking_quality.Part]:
    if not DATA.is_dir():
        pytest.skip("needs ../shared/data/mot")
    return tracking_quality.load(DATA)


def percent(figures: dict[str, float], *names: str) -> list[float]:
    return [round(100 * figures[name], 2) for name in names]


def test_byte_track_reaches_its_published_figures(second_halves: dict[str, tracking_quality.Part]) -> None:
    """HOTA, MOTA, IDF1 of the released code on these detections; it passes over scores that are the threshold's."""

    def run(name: str, part: tracking_quality.Part) -> tuple[mot.Tracks, None]:
        return mot.byte_track(part.detections[part.detections.score != 0.6]), None

    plain, filled = tracking_quality.score("ByteTrack", run, second_halves)
    np.testing.assert_allclose(percent(plain.figures, "HOTA", "MOTA", "IDF1"), [67.80, 77.79, 79.89], atol=0.05)
    np.testing.assert_allclose(percent(filled.figures, "HOTA", "MOTA", "IDF1"), [68.91, 79.65, 80.83], atol=0.15)
    all_scores = tracking_quality.trackers([])["ByteTrack"]
    plain, _ = tracking_quality.score("ByteTrack", all_scores, second_halves)
    assert plain.figures["HOTA"] >= 0.678 and plain.figures["IDF1"] >= 0.7989


def test_flow_reaches_the_published_figure(second_halves: dict[str, tracking_quality.Part]) -> None:
    """65.41 HOTA: the exact flow with costs of overlap alone, chosen on the first halves."""
    plain, _ = tracking_quality.score("flow", tracking_quality.trackers([])["min-cost flow"], second_halves)
    assert plain.figures["HOTA"] >= 0.6541


def test_the_table_of_trackers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`python -m bench.tracking_quality`: second halves, whole sequences, the two ways it writes."""
    found, gt = scene(0, people=4, frames=41, false=0)
    for part, tracks in (("det", found), ("gt", gt)):
        (tmp_path / "walk" / part).mkdir(parents=True)
        kind = mot.Tracks(frame=tracks.frame, id=tracks.id, box=tracks.box, score=tracks.score,
                          class_=np.ones(len(tracks), int))  # fmt: skip
        mot.write(tmp_path / "walk" / part / f"{part}.txt", kind)
    (second,) = tracking_quality.load(tmp_path).values()
    assert second.length == 41 - 21 and second.gt.frame.min() == 1 and len(second.gt) == 4 * 20
    (first,) = tracking_quality.load(tmp_path, "first").values()
    assert first.length == 21 and len(first.gt) + len(second.gt) == len(gt)
    csv = tmp_path / "table.csv"
    options = ["--data", str(tmp_path), "--only", "sort", "byte", "--csv", str(csv), "--whole"]
    assert tracking_quality.main(options) == 0
    rows = [line.split(",") for line in csv.read_text().splitlines()]
    assert [row[0] for row in rows[1:]] == ["SORT", "SORT + interpolation", "ByteTrack", "ByteTrack + interpolation"]
    (whole,) = tracking_quality.load(tmp_path, "whole").values()
    figures = mot.clear(gt, mot.byte_track(whole.detections))
    assert rows[3][rows[0].index("FN")] == str(figures["CLR_FN"])
    printed = capsys.readouterr().out.splitlines()
    assert [[cell.strip() for cell in line.strip("|").split("|")] for line in printed[2:]] == rows[1:]


# ---- scenes whose tracks are known ----------------------------------------------------------------------


@pytest.mark.parametrize("tracker", list(TRACKERS))
def test_walkers_are_followed(tracker: str) -> None:
    for seed in range(5):
        found, gt = scene(seed, people=5, misses=0.05, false=0)
        got = TRACKERS[tracker](found[found.score > 0], **({"max_age": 10} if tracker == "sort" else {}))
        figures = mot.identity(gt, got)
        assert figures["IDF1"] > 0.8


def test_weak_detections_go_on_but_do_not_begin() -> None:
    box = [[5.0 * t, 0, 20, 50] for t in range(8)]
    score = [0.9, 0.9, 0.3, 0.2, 0.15, 0.9, 0.05, 0.9]
    found = mot.Tracks(frame=range(1, 9), id=[-1] * 8, box=box, score=score)
    got = mot.byte_track(found)
    assert got.frame.tolist() == [1, 2, 3, 4, 5, 6, 8] and set(got.id) == {1}
    weak = mot.Tracks(frame=range(1, 9), id=[-1] * 8, box=box, score=[0.5] * 8)
    assert len(mot.byte_track(weak)) == 0


def test_a_lost_track_is_found_again_for_so_long() -> None:
    frames = [1, 2, 3, 4, 10, 11]
    found = mot.Tracks(frame=frames, id=[-1] * 6, box=[[100.0, 50, 20, 50]] * 6, score=[0.9] * 6)
    assert len(set(mot.byte_track(found, max_age=5).id)) == 1
    assert len(set(mot.byte_track(found, max_age=4).id)) == 2
    assert len(set(mot.sort(found, max_age=5, min_hits=0).id)) == 1
    assert len(set(mot.sort(found, max_age=4, min_hits=0).id)) == 2
    assert len(set(mot.flow_tracker(found, max_gap=6).id)) == 1
    assert len(set(mot.flow_tracker(found, max_gap=5).id)) == 2


def test_the_flow_goes_on_by_motion() -> None:
    """Hidden for 12 frames by somebody who stands there: boxes before and after do not overlap, their predictions do."""
    frame = np.concatenate([np.arange(1, 11), np.arange(22, 32)])
    walking = np.stack([4.0 * frame, np.zeros(20), np.full(20, 30.0), np.full(20, 60.0)], 1)
    standing = walking + np.array([0.0, 8, 0, 0])
    standing[:, 0] = 60
    found = mot.Tracks(frame=np.tile(frame, 2), id=[-1] * 40, box=np.concatenate([walking, standing]), score=[0.9] * 40)
    got = mot.flow_tracker(found)
    assert box_iou(walking[9:10], walking[10:11], format="xywh").item() == 0
    assert len(got) == 40
    for identity in (1, 2):
        assert len(set(got.box[got.id == identity, 1])) == 1
    assert len(set(mot.flow_tracker(found, max_gap=11).id)) == 4


def test_an_unlikely_detection_alone_is_no_track() -> None:
    found = mot.Tracks(frame=[1], id=[-1], box=[[0, 0, 10, 20]], score=[0.2])
    assert len(mot.flow_tracker(found)) == 0
    likely = mot.Tracks(frame=[1], id=[-1], box=[[0, 0, 10, 20]], score=[0.5])
    assert len(mot.flow_tracker(likely)) == 0 and len(mot.flow_tracker(likely, end_cost=0.0)) == 1
    many = mot.Tracks(frame=range(1, 11), id=[-1] * 10, box=[[0, 0, 10, 20]] * 10, score=[0.95] * 10)
    assert len(mot.flow_tracker(many)) == 10 and len(mot.flow_tracker(many, end_cost=1e3)) == 0


def test_windows_bound_the_memory_and_join(monkeypatch: pytest.MonkeyPatch) -> None:
    """A long sequence is solved in parts, which give what the whole gives where nothing is ambiguous."""
    found, _ = scene(3, people=4, frames=300, misses=0.1, false=0)
    whole = mot.flow_tracker(found, max_gap=10, window=1000)
    reach: list[int] = []
    plain = classical.candidate_edges

    def recorded(frame: np.ndarray, *given: Any, **options: Any) -> Any:
        reach.append(int(frame[-1] - frame[0]) + 1)
        return plain(frame, *given, **options)

    monkeypatch.setattr(classical, "candidate_edges", recorded)
    parts = mot.flow_tracker(found, max_gap=10, window=50)
    assert max(reach) <= 50 + 4 * 10 and len(reach) >= 2 * 6
    same_tracks(parts, list(zip(whole.frame.tolist(), whole.id.tolist(), whole.box, strict=True)))


# ---- what all have in common ----------------------------------------------------------------------------


@pytest.mark.parametrize("tracker", list(TRACKERS))
@settings(max_examples=12, deadline=None, derandomize=True)
@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(1, 25))
def test_properties_of_tracks(tracker: str, seed: int, people: int, frames: int) -> None:
    found, _ = scene(seed, people, frames, misses=0.3, false=5)
    rng = np.random.default_rng(seed)
    kind = rng.integers(-1, 2, len(found))
    found = mot.Tracks(frame=found.frame, id=found.id, box=found.box, score=found.score, class_=kind)
    run = TRACKERS[tracker]
    got = run(found)  # Tracks refuse an identity twice in a frame
    assert set(got.id) == set(range(1, len(set(got.id)) + 1))
    rows = np.lexsort((got.id, got.frame))
    assert (rows == np.arange(len(got))).all()
    for identity in np.unique(got.id):
        assert len(set(got["class"][got.id == identity])) == 1
    where = {(f, c, s) for f, c, s in zip(found.frame, kind, found.score, strict=True)}
    assert {(f, c, s) for f, c, s in zip(got.frame, got["class"], got.score, strict=True)} <= where
    shuffled = found[rng.permutation(len(found))]
    same_tracks(run(shuffled), list(zip(got.frame.tolist(), got.id.tolist(), got.box, strict=True)))
    later = mot.Tracks(frame=found.frame + 7, id=found.id, box=found.box, score=found.score, class_=kind)
    np.testing.assert_array_equal(run(later).frame, got.frame + 7)


@pytest.mark.parametrize("tracker", list(TRACKERS))
def test_no_detections_and_one(tracker: str) -> None:
    none = mot.Tracks([], [], [])
    assert len(TRACKERS[tracker](none)) == 0
    one = mot.Tracks(frame=[5], id=[-1], box=[[0, 0, 9, 9]], score=[0.99])
    assert TRACKERS[tracker](one).frame.tolist() in ([5], [])


@pytest.mark.parametrize("tracker", list(TRACKERS))
def test_a_pause_of_many_frames_costs_nothing(tracker: str) -> None:
    found, _ = scene(1, people=2, frames=10, misses=0, false=0)
    far = found.frame + 10**8
    both = mot.Tracks(frame=np.append(found.frame, far), id=np.full(2 * len(far), -1), box=np.tile(found.box, (2, 1)),
                      score=np.full(2 * len(far), 0.9))  # fmt: skip
    got = TRACKERS[tracker](both)
    first, second = got[got.frame <= 10], got[got.frame > 10]
    assert len(first) and len(second) and not set(first.id) & set(second.id)


def test_short_tracks_are_left_out() -> None:
    tracks = mot.Tracks(frame=[1, 1, 2, 2, 3], id=[1, 2, 1, 2, 1], class_=[1, 1, 1, 2, 1], box=[[0, 0, 9, 9]] * 5)
    assert mot.drop_short(tracks, 2).id.tolist() == [1, 1, 1]
    assert len(mot.drop_short(tracks, 0)) == 5 == len(mot.drop_short(tracks, 1))
    assert len(mot.drop_short(tracks, 4)) == 0 == len(mot.drop_short(tracks[:0], 1))


# ---- refusals -------------------------------------------------------------------------------------------

SOME = mot.Tracks(frame=[1, 2], id=[-1, -1], box=[[0, 0, 9, 9]] * 2)
FLAT = mot.Tracks(frame=[1, 2], id=[-1, -1], box=[[0, 0, 9, 9], [0, 0, 9, 0]])

COMMON = [
    ({"detections": None}, TypeError, "detections must be Tracks, got None"),
    ({"detections": [1, 2]}, TypeError, "detections must be Tracks, got list"),
    ({"detections": FLAT}, ValueError, "detections must have boxes with a positive width and height, got another"),
]
REFUSED = {
    "sort": [
        ({"max_age": -1}, ValueError, "max_age must be from 0"),
        ({"max_age": 1.0}, TypeError, "max_age must be an integer"),
        ({"max_age": True}, TypeError, "max_age must be an integer"),
        ({"min_hits": -1}, ValueError, "min_hits must be from 0"),
        ({"min_hits": None}, TypeError, "min_hits must be an integer"),
        ({"min_iou": 1.1}, ValueError, "min_iou must be from 0 to 1, got 1.1"),
        ({"min_iou": -0.1}, ValueError, "min_iou must be from 0 to 1"),
        ({"min_iou": "0.3"}, TypeError, "min_iou must be a number"),
        ({"min_score": np.nan}, ValueError, "min_score must be finite, got nan"),
        ({"min_score": [0.5]}, TypeError, "min_score must be a number"),
    ],
    "byte_track": [
        ({"high_score": 2}, ValueError, "high_score must be from 0 to 1, got 2"),
        ({"high_score": None}, TypeError, "high_score must be a number"),
        ({"low_score": -1}, ValueError, "low_score must be from 0 to 1"),
        ({"low_score": 0.8}, ValueError, r"low_score must not be above high_score \(0.6\), got 0.8"),
        ({"new_score": 1.5}, ValueError, "new_score must be from 0 to 1"),
        ({"max_age": -1}, ValueError, "max_age must be from 0"),
        ({"max_age": "30"}, TypeError, "max_age must be an integer"),
        ({"max_cost": 1.2}, ValueError, "max_cost must be from 0 to 1"),
        ({"max_cost": np.inf}, ValueError, "max_cost must be finite"),
    ],
    "flow_tracker": [
        ({"max_gap": 0}, ValueError, "max_gap must be from 1"),
        ({"max_gap": 2.5}, TypeError, "max_gap must be an integer"),
        ({"min_score": -0.5}, ValueError, "min_score must be from 0 to 1"),
        ({"min_score": True}, TypeError, "min_score must be a number"),
        ({"end_cost": -1}, ValueError, "end_cost must not be negative, got -1"),
        ({"end_cost": np.nan}, ValueError, "end_cost must be finite"),
        ({"end_cost": "1"}, TypeError, "end_cost must be a number"),
        ({"window": 0}, ValueError, "window must be from 1"),
        ({"window": None}, TypeError, "window must be an integer"),
    ],
}


@pytest.mark.parametrize(
    ("tracker", "change", "error", "message"),
    [(name, *case) for name, cases in REFUSED.items() for case in [*COMMON, *cases]],
)
def test_trackers_refuse(tracker: str, change: dict[str, Any], error: type[Exception], message: str) -> None:
    given = {"detections": SOME} | change
    with pytest.raises(error, match=f"{tracker}: {message}"):
        TRACKERS[tracker](given.pop("detections"), **given)


@pytest.mark.parametrize(
    ("tracks", "length", "error", "message"),
    [
        (None, 1, TypeError, "tracks must be Tracks"),
        (SOME, 1, ValueError, "tracks must have an identity of at least 0 in every row"),
        (SOME[:0], -1, ValueError, "min_length must be from 0"),
        (SOME[:0], 1.5, TypeError, "min_length must be an integer"),
    ],
)
def test_drop_short_refuses(tracks: Any, length: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"drop_short: {message}"):
        mot.drop_short(tracks, length)
