"""The neural solver: its network against plain torch, its windows, what it makes of scenes, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path as File
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cv3gpu import _weights, mot
from cv3gpu.errors import DataFormatError
from cv3gpu.mot import _network, _tracklets, neural
from cv3gpu.mot._tracklets import Level, Rows

DATA = File(__file__).resolve().parents[1] / ".." / "shared" / "data" / "mot"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data/mot")


def walkers(n_frames: int = 40, seed: int = 0, drop: float = 0.0) -> mot.Tracks:
    """Four people: two cross each other's way, one stands, one walks off; ids are the truth."""
    rng = np.random.default_rng(seed)
    frame = np.arange(1, n_frames + 1)
    paths = [(50 + 6 * frame, 300.0), (50 + 6 * n_frames - 6 * frame, 330.0), (900 + 0 * frame, 200.0),
             (600 + 5 * frame, 500.0)]  # fmt: skip
    rows = []
    for number, (x, y) in enumerate(paths):
        keep = rng.random(n_frames) >= drop
        keep[[0, -1]] = True
        noise = rng.normal(0, 0.8, (n_frames, 4))
        box = np.stack([x, np.full(n_frames, y), np.full(n_frames, 40.0), np.full(n_frames, 110.0)], 1) + noise
        rows += [(f, number, *b) for f, b, k in zip(frame, box, keep, strict=True) if k]
    table = np.array(sorted(rows))
    return mot.Tracks(table[:, 0], table[:, 1], table[:, 2:], score=np.full(len(table), 0.9))


def forgotten(tracks: mot.Tracks) -> mot.Tracks:
    """The boxes without their identities."""
    return mot.Tracks(tracks.frame, np.full(len(tracks), -1), tracks.box, score=tracks.score)


def random_solver(levels: tuple[Level, ...], seed: int = 0, **arguments: Any) -> neural.Solver:
    """A network that was taught nothing."""
    few = {"node_features": 7, "edge_features": 22, "steps": 3, "node_dim": 8, "edge_dim": 8, "node_hidden": [8],
           "edge_hidden": [8], "step_hidden": 16, "message_hidden": 12, "directed": False}  # fmt: skip
    a = _network.arguments({**few, **arguments, "levels": len(levels)})
    rng = np.random.default_rng(seed)
    weights = {
        name: (np.ones(shape) if name.endswith("_scale") else rng.normal(0, 0.5, shape)).astype(np.float32)
        for name, shape in _network.shapes(a).items()
    }
    return neural.Solver(_network.blocks(weights, a), a, levels, 0.1, 0.6, 0.7)


# ---- network --------------------------------------------------------------------------------------------


def test_published_network_has_the_published_parameters() -> None:
    shapes = _network.shapes(_network.arguments({}))
    count = sum(int(np.prod(shape)) for name, shape in shapes.items() if not name.endswith(("_mean", "_scale")))
    assert count == 287_589


@pytest.mark.parametrize("directed", [True, False])
@pytest.mark.parametrize("time_aware", [True, False])
@pytest.mark.parametrize("shared", [True, False])
def test_torch_network_equals_plain_torch_in_float64(directed: bool, time_aware: bool, shared: bool) -> None:
    torch = pytest.importorskip("torch")
    from cv3gpu.nn import models

    torch.manual_seed(1)
    settings: dict[str, Any] = {"directed": directed, "time_aware": time_aware, "shared": shared}
    model = models.mpn_tracker(5, 6, levels=2, steps=3, node_dim=6, edge_dim=4, node_hidden=[7], edge_hidden=[5],
                               step_hidden=9, message_hidden=8, classifier_hidden=3, **settings).double()  # fmt: skip
    assert {name: tuple(x.shape) for name, x in model.state_dict().items()} == _network.shapes(model.arguments)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    n = 9
    links = torch.tensor([(i, j) for i in range(n) for j in range(i + 1, n) if (i * j) % 3]).T
    nodes, edges = torch.randn(n, 5).double(), torch.randn(links.shape[1], 6).double()
    model.normalise(1, nodes, edges)

    block = _network.blocks({**dict(model.named_parameters()), **dict(model.named_buffers())}, model.arguments)[1]

    def dense(x: Any, name: str, last: bool = True) -> Any:
        count = sum(key.startswith(f"{name}.") and key.endswith("weight") for key in block)
        for k in range(count):
            x = torch.nn.functional.linear(x, block[f"{name}.{k}.weight"], block[f"{name}.{k}.bias"])
            x = torch.relu(x) if last or k + 1 < count else x
        return x

    row, col = torch.cat([links, links.flip(0)], 1)
    copies = 2 if directed else 1
    e0 = dense((edges - edges.mean(0)) / (edges.std(0, unbiased=False) + 0.05), "edge_encoder")
    e0 = e0 + block["embedding"] if shared else e0
    h = dense((nodes - nodes.mean(0)) / (nodes.std(0, unbiased=False) + 0.05), "node_encoder")
    e0 = torch.cat([e0] * copies)
    e, wanted = e0, []
    for step in range(3):
        ends = (row, col) if directed else tuple(links)
        e = dense(torch.cat([h[ends[0]], h[ends[1]], e0, e], 1), "edge")
        both = e if directed else torch.cat([e, e])
        past = (col < row)[:, None]  # row receives
        given = torch.cat([h[col], both], 1)
        zero = torch.zeros(n, 6).double()
        first = zero.index_add(0, row, dense(given, "past") * past)
        second = zero.index_add(0, row, dense(given, "future" if time_aware else "past") * ~past)
        sums = torch.cat([first, second], 1) if time_aware else first + second
        h = torch.relu(torch.nn.functional.linear(sums, block["update.weight"], block["update.bias"]))
        if step:
            wanted.append(dense(e, "classifier", last=False).reshape(copies, -1))
    found = model(nodes, edges, links, level=1, every=True)
    assert len(found) == 2
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one.detach(), other.detach(), rtol=1e-10, atol=1e-12)
    gradients = [torch.autograd.grad(sum((x**2).sum() for x in z), list(model.parameters()), allow_unused=True)
                 for z in (found, wanted)]  # fmt: skip
    for one, other in zip(*gradients, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            np.testing.assert_allclose(one, other, rtol=1e-8, atol=1e-9)
    last = model(nodes, edges, links, level=1)
    assert len(last) == 1
    np.testing.assert_array_equal(last[0].detach(), found[-1].detach())


def test_numpy_network_equals_torch() -> None:
    torch = pytest.importorskip("torch")
    from cv3gpu.nn import models

    torch.manual_seed(0)
    model = models.mpn_tracker(7, 22, steps=4, node_dim=8, edge_dim=8, node_hidden=[8], edge_hidden=[8],
                               step_hidden=16, message_hidden=12, directed=False)  # fmt: skip
    rng = np.random.default_rng(0)
    links = np.array([(i, j) for i in range(12) for j in range(i + 1, 12)]).T
    nodes, edges = (rng.normal(size=(n, f)).astype(np.float32) for n, f in ((12, 7), (links.shape[1], 22)))
    block = _network.blocks({k: v.numpy() for k, v in model.state_dict().items()}, model.arguments)[0]
    graph = _network.graph_of(links, 12, np.arange(12), model.arguments)
    got = _network.probabilities(block, nodes, edges, graph, model.arguments)
    (logits,) = model(torch.from_numpy(nodes), torch.from_numpy(edges), torch.from_numpy(links))
    np.testing.assert_allclose(got, torch.sigmoid(logits[0]).detach(), rtol=2e-5, atol=2e-6)


def test_no_steps_and_no_features_of_nodes() -> None:
    torch = pytest.importorskip("torch")
    from cv3gpu.nn import models

    links = torch.tensor([[0, 1], [1, 2]])
    for steps in (0, 1, 2):
        model = models.mpn_tracker(0, 3, steps=steps, node_dim=4, edge_dim=4, node_hidden=[])
        (z,) = model(torch.zeros(3, 0), torch.randn(2, 3), links)
        assert z.shape == (2, 2)
        assert torch.isfinite(z).all()


def test_link_loss_is_the_formula() -> None:
    torch = pytest.importorskip("torch")
    from cv3gpu.nn.models.mpn import link_loss

    rng = np.random.default_rng(0)
    z, y, known = rng.normal(size=(2, 1, 5)), np.array([1, 0, 0, 1, 0]), np.array([1, 1, 0, 1, 1])
    p = 1 / (1 + np.exp(-z))
    for focal in (0.0, 2.0):
        terms = 3.0 * y * np.log(p) * (1 - p) ** focal + (1 - y) * np.log(1 - p) * p**focal
        got = link_loss(list(torch.tensor(z)), torch.tensor(y), pos_weight=3.0, weight=torch.tensor(known), focal=focal)
        assert got.item() == pytest.approx(-(terms * known).mean(), rel=1e-12)
    assert link_loss([torch.zeros(1, 0)], torch.zeros(0)).item() == 0


# ---- tracklets ------------------------------------------------------------------------------------------


def test_summary_of_a_straight_walk() -> None:
    frame = np.arange(1, 31)
    box = np.stack([10 + 2.0 * frame, 5 + 1.0 * frame, np.full(30, 20.0), np.full(30, 50.0)], 1)
    rows = Rows(np.repeat(frame, 2), np.repeat(box, 2, 0), np.linspace(0, 1, 60))
    label = np.tile([0, 1], 30)
    label[-2:] = -1  # the last frame belongs to nobody
    nodes = _tracklets.summary(rows, label)
    assert nodes.frame.tolist() == [1, 1]
    assert nodes.last_frame.tolist() == [29, 29]
    assert nodes.length.tolist() == [29, 29]
    assert nodes.last_row.tolist() == [56, 57]
    assert nodes.best.tolist() == [rows.score[56], rows.score[57]]
    spread = sum((t - 4.5) ** 2 for t in range(10))  # least squares over 10 frames, drawn to 0
    np.testing.assert_allclose(nodes.velocity, np.tile([2, 1], (2, 1)) * spread / (spread + _tracklets.PRIOR))
    np.testing.assert_allclose(nodes.last_velocity, nodes.velocity)
    np.testing.assert_allclose(nodes.score[0], rows.score[:58:2].mean())
    empty = _tracklets.summary(rows.take(np.arange(0)), np.arange(0))
    assert len(empty.frame) == 0
    assert _tracklets.links(empty, Level(2, 4, 1.0, 8)).shape == (2, 0)


def test_merge_and_confirm() -> None:
    label = np.array([0, 1, 2, 3, -1, 1])
    joined = _tracklets.merge(label, np.array([[0, 2], [2, 3]]), 4)
    assert joined[0] == joined[2] == joined[3] != joined[1] == joined[5]
    assert joined[4] == -1
    rows = Rows(np.arange(6), np.ones((6, 4)), np.array([0.3, 0.9, 0.3, 0.8, 0.3, 0.2]))
    one = np.zeros(6, np.int64)
    assert _tracklets.confirm(rows, one, 0.6).tolist() == [-1, 0, 0, 0, -1, -1]
    assert (_tracklets.confirm(rows, one, 0.6, 0.95) == -1).all()
    assert _tracklets.confirm(rows, np.array([0, 1, 0, 1, 2, 2]), 0.6).tolist() == [-1, 0, -1, 0, -1, -1]


def test_windows_give_what_the_whole_gives() -> None:
    tracks = walkers(200, drop=0.1)
    solver = random_solver((Level(3, 8, 3.0, 64),))
    rows = Rows(tracks.frame, tracks.box, tracks.score)
    nodes = _tracklets.summary(rows, np.arange(len(tracks)))
    edges = _tracklets.links(nodes, solver.levels[0])
    whole = neural.scores(solver, 0, nodes, edges, window=10_000)
    block = solver.blocks[0]
    graph = _network.graph_of(edges, len(tracks), nodes.frame, solver.arguments)
    direct = _network.probabilities(block, *_tracklets.features(nodes, edges), graph, solver.arguments)
    np.testing.assert_allclose(whole, direct, rtol=1e-4, atol=1e-6)
    assert np.ptp(whole) > 0.01  # scores differ, so that a mixed up order would show
    # A link sees 3 steps of 3 frames: the means of windows of 64 frames differ for links near a border alone.
    parts = neural.scores(solver, 0, nodes, edges)
    begin, end = nodes.last_frame[edges[0]], nodes.frame[edges[1]]
    far = ((begin % 32) > 12) & ((end % 32) < 20) & (begin // 32 == end // 32)
    assert far.sum() > 50
    np.testing.assert_allclose(parts[far], whole[far], rtol=1e-4, atol=1e-6)
    shuffled = np.random.default_rng(0).permutation(edges.shape[1])
    np.testing.assert_allclose(
        neural.scores(solver, 0, nodes, edges[:, shuffled]), parts[shuffled], rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("size", [8, 9, 16, 30])
def test_every_link_lies_in_one_window_or_two(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_network, "probabilities", lambda block, nodes, edges, graph, a: np.ones(len(edges)))
    tracks = walkers(60, drop=0.3)
    solver = random_solver((Level(4, 12, 5.0, size),))
    nodes = _tracklets.summary(Rows(tracks.frame, tracks.box, tracks.score), np.arange(len(tracks)))
    edges = _tracklets.links(nodes, solver.levels[0])
    assert edges.shape[1] > 200
    np.testing.assert_array_equal(neural.scores(solver, 0, nodes, edges), np.ones(edges.shape[1]))


# ---- tracking -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("drop", [0.0, 0.15])
@pytest.mark.parametrize("rounding", ["exact", "greedy"])
def test_shipped_network_follows_people_who_cross(drop: float, rounding: str) -> None:
    truth, seen = walkers(60, seed=3), forgotten(walkers(60, seed=3, drop=drop))
    tracks, info = mot.track(seen, rounding=rounding, return_info=True)
    figures = mot.evaluate(truth, tracks, metrics=["identity", "clear"]).combined["all"]
    assert figures["IDF1"] > 0.97
    assert figures["IDSW"] == 0
    assert len(np.unique(tracks.id)) == 4
    assert info.satisfied > 0.98
    assert len(info.levels) == len(neural._shipped().levels)
    again = mot.track(seen, rounding=rounding)
    assert np.array_equal(again.box, tracks.box)
    assert np.array_equal(again.id, tracks.id)


def test_a_long_gap_is_bridged_and_filled() -> None:
    truth = walkers(80, seed=1)
    hidden = (truth.id == 3) & (truth.frame > 30) & (truth.frame <= 45)
    seen = forgotten(truth[~hidden])
    filled = mot.track(seen, interpolate=20)
    assert len(filled) == len(truth)
    assert len(np.unique(filled.id)) == 4
    line = filled[(filled.frame > 30) & (filled.frame <= 45)]
    wanted = truth[hidden]
    distance = np.abs(line.box[None, :, :2] - wanted.box[:, None, :2]).max(2)
    assert distance.min(1).max() < 6
    assert len(mot.track(seen, interpolate=14)) == len(seen)
    assert len(np.unique(mot.track(seen, levels=1, interpolate=0).id)) == 5


def test_scores_decide_what_is_a_track() -> None:
    truth = walkers(40)
    score = np.where(truth.id == 2, 0.3, 0.9)  # never sure
    score[(truth.id == 0) & (truth.frame > 20) & (truth.frame < 25)] = 0.2  # bridged by low ones
    score[(truth.id == 1) & (truth.frame > 36)] = 0.2  # an unsure end
    score[(truth.id == 3) & (truth.frame == 10)] = 0.05  # left out, and filled
    given = mot.Tracks(truth.frame, np.full(len(truth), -1), truth.box, score=score)
    tracks = mot.track(given)
    frames = sorted(len(tracks[tracks.id == i]) for i in np.unique(tracks.id))
    assert frames == [36, 40, 40]
    assert len(mot.track(given, start=0.95)) == 0
    assert len(np.unique(mot.track(given, high=0.25, start=0.25).id)) == 4


def test_classes_are_linked_each_on_its_own() -> None:
    truth = walkers(30)
    given = mot.Tracks(truth.frame, np.full(len(truth), -1), truth.box, score=truth.score, class_=truth.frame % 2)
    tracks = mot.track(given, interpolate=0)
    assert len(tracks) == len(truth)
    for number in np.unique(tracks.id):
        assert len(np.unique(tracks.class_[tracks.id == number])) == 1
    mot.Tracks(tracks.frame, tracks.id, tracks.box)  # no identity twice in a frame


def test_rows_in_any_order_boxes_without_area_and_nothing() -> None:
    truth = walkers(30)
    given = forgotten(truth)
    order = np.random.default_rng(0).permutation(len(given))
    flat = np.array([[1.0, 1, 0, 5], [1, 1, 5, -1]])
    mixed = mot.Tracks(
        np.append(given.frame[order], [3, 4]), np.full(len(order) + 2, -1), np.concatenate([given.box[order], flat]),
        score=np.append(given.score[order], [0.9, 0.9]),
    )  # fmt: skip
    one, other = mot.track(given), mot.track(mixed)
    key = [np.lexsort((x.box[:, 0], x.frame)) for x in (one, other)]
    np.testing.assert_array_equal(one.box[key[0]], other.box[key[1]])
    nothing, info = mot.track(given[:0], return_info=True)
    assert len(nothing) == 0
    assert info.satisfied == 1
    assert len(mot.track(given[:1])) == 0  # shorter than two
    assert len(mot.track(given[:1], min_length=1)) == 1


def test_camera_motion_is_taken_out() -> None:
    truth = walkers(40)
    shake = np.cumsum(np.random.default_rng(0).normal(0, 60, (40, 2)), 0)
    moved = truth.box.copy()
    moved[:, :2] += shake[truth.frame - 1]
    camera = np.tile(np.eye(2, 3), (40, 1, 1))
    camera[1:, :, 2] = np.diff(shake, axis=0)
    steady = neural.steady(truth.frame, moved, camera)
    np.testing.assert_allclose(steady, truth.box - np.append(-shake[0], [0, 0]), atol=1e-9)
    given = mot.Tracks(truth.frame, np.full(len(truth), -1), moved, score=truth.score)
    tracks = mot.track(given, camera=camera)
    figures = mot.identity(mot.Tracks(truth.frame, truth.id, moved), tracks)
    assert figures["IDF1"] == 1
    turn = np.array([[0.0, -2, 3], [2, 0, 1]])  # a quarter turn, twice as large
    box = neural.steady(np.array([1, 2]), np.array([[0.0, 0, 2, 4], [0, 0, 2, 4]]), np.stack([turn, turn]))
    assert box[0].tolist() == [0, 0, 2, 4]
    np.testing.assert_allclose(box[1, 2:], [1, 2])
    np.testing.assert_allclose(box[1, :2] + box[1, 2:] / 2, np.linalg.solve(turn[:, :2], [1 - 3, 2 - 1]))


def test_appearance_reaches_the_network() -> None:
    truth = walkers(12)
    levels = (Level(3, 8, 3.0, 16),)
    solver = random_solver(levels, node_features=7 + 4, edge_features=23)
    looks = np.eye(4)[truth.id]
    some = mot.track(forgotten(truth), weights=solver, appearance=looks, high=0.0, start=0.0, min_length=1)
    other = mot.track(forgotten(truth), weights=solver, appearance=looks[::-1], high=0.0, start=0.0, min_length=1)
    assert len(some) == len(other) == len(truth)
    with pytest.raises(ValueError, match="appearance must have 4 numbers for each detection"):
        mot.track(forgotten(truth), weights=solver)
    with pytest.raises(ValueError, match=r"appearance must have shape"):
        mot.track(forgotten(truth), weights=solver, appearance=looks[:, :3])


@settings(max_examples=15, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**31), n=st.integers(0, 60), frames=st.integers(1, 12), least=st.integers(1, 3))
def test_tracks_are_made_of_detections(seed: int, n: int, frames: int, least: int) -> None:
    rng = np.random.default_rng(seed)
    box = np.concatenate([rng.uniform(0, 300, (n, 2)), rng.uniform(5, 80, (n, 2))], 1)
    seen = mot.Tracks(rng.integers(1, frames + 1, n), np.full(n, -1), box, score=rng.random(n))
    tracks, info = mot.track(seen, interpolate=0, min_length=least, return_info=True)
    solver = neural._shipped()
    rows = {(f, *b, s) for f, b, s in zip(seen.frame.tolist(), seen.box.tolist(), seen.score.tolist(), strict=True)}
    assert {
        (f, *b, s) for f, b, s in zip(tracks.frame.tolist(), tracks.box.tolist(), tracks.score.tolist(), strict=True)
    } <= rows
    mot.Tracks(tracks.frame, tracks.id, tracks.box)  # no identity twice in a frame
    assert sorted(set(tracks.id.tolist())) == list(range(1, len(set(tracks.id.tolist())) + 1))
    for number in np.unique(tracks.id):
        own = tracks[tracks.id == number]
        assert len(own) >= least
        assert min(own.score[0], own.score[-1]) >= solver.high
        assert own.score.max() >= solver.start
    assert 0 <= info.satisfied <= 1
    filled = mot.track(seen, interpolate=5, min_length=least)
    assert len(filled) >= len(tracks)


@needs_data
def test_real_people() -> None:
    gt = mot.read(DATA / "MOT15" / "TUD-Campus" / "gt" / "gt.txt")
    seen = mot.Tracks(gt.frame, np.full(len(gt), -1), gt.box, score=np.full(len(gt), 0.9))
    tracks = mot.track(seen)
    figures = mot.evaluate(gt, tracks, metrics=["identity", "clear"]).combined["all"]
    assert figures["IDF1"] > 0.9
    assert figures["MOTA"] > 0.95


# ---- refusals -------------------------------------------------------------------------------------------

SEEN = forgotten(walkers(6))


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"detections": SEEN.box}, TypeError, "mot.track: detections must be Tracks, got ndarray"),
        ({"weights": 5}, TypeError, "weights must be a path, a Solver or None, got int"),
        ({"rounding": "best"}, ValueError, "rounding must be one of 'exact', 'greedy', got 'best'"),
        ({"interpolate": -1}, ValueError, "interpolate must be from 0 to"),
        ({"interpolate": 2.5}, TypeError, "interpolate must be an integer"),
        ({"min_length": -1}, ValueError, "min_length must be from 0 to"),
        ({"levels": 0}, ValueError, "levels must be from 1 to"),
        ({"levels": 99}, ValueError, "levels must be from 1 to"),
        ({"low": "much"}, TypeError, "low must be a number"),
        ({"high": np.nan}, ValueError, "high must be finite"),
        ({"return_info": 1}, TypeError, "return_info must be True or False"),
        ({"appearance": np.ones((24, 3))}, ValueError, "appearance must be None, as the network was trained"),
        ({"camera": "still"}, TypeError, "camera must be an array of numbers"),
        ({"camera": [[["1", "0", "0"], ["0", "1", "0"]]]}, TypeError, "camera must be an array of numbers"),
        ({"camera": np.ones((6, 3, 3))}, ValueError, r"camera must have shape \[F, 2, 3\]"),
        ({"camera": np.ones((3, 2, 3))}, ValueError, "camera must have a row for each frame"),
        ({"camera": np.zeros((6, 2, 3))}, ValueError, "camera must be invertible"),
        ({"camera": np.full((6, 2, 3), np.inf)}, ValueError, "camera must be finite"),
    ],
)
def test_refused_arguments(change: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        mot.track(**{"detections": SEEN, **change})


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"steps": -1}, ValueError, "mpn_tracker: steps must be from 0 to"),
        ({"levels": 0}, ValueError, "levels must be from 1 to"),
        ({"node_dim": 1.5}, TypeError, "node_dim must be an integer"),
        ({"edge_hidden": 18}, TypeError, "edge_hidden must be a list of widths"),
        ({"edge_hidden": [0]}, ValueError, "edge_hidden must be from 1 to"),
        ({"time_aware": "yes"}, TypeError, "time_aware must be True or False"),
    ],
)
def test_refused_networks(change: dict[str, Any], error: type[Exception], text: str) -> None:
    pytest.importorskip("torch")
    from cv3gpu.nn import models

    with pytest.raises(error, match=text):
        models.mpn_tracker(**change)


def test_refused_calls_of_the_network() -> None:
    torch = pytest.importorskip("torch")
    from cv3gpu.nn import models

    model = models.mpn_tracker(2, 2, node_hidden=[])
    with pytest.raises(ValueError, match="level must be from 0 to 0, got 1"):
        model(torch.ones(2, 2), torch.ones(1, 2), torch.tensor([[0], [1]]), level=1)
    with pytest.raises(ValueError, match="edges must have nodes from 0 to 1"):
        model(torch.ones(2, 2), torch.ones(1, 2), torch.tensor([[0], [2]]))


def shipped() -> tuple[dict[str, Any], dict[str, Any]]:
    return _weights.read(neural.SHIPPED)


def changed(config: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """The config with one entry changed, named by a path such as levels/0/gap."""
    config = json.loads(json.dumps(config))
    *way, last = path.split("/")
    at: Any = config
    for key in way:
        at = at[int(key)] if isinstance(at, list) else at[key]
    at[last] = value
    return config


@pytest.mark.parametrize(
    ("path", "value", "text"),
    [
        ("model", "unet", "must hold a network of mpn_tracker, got 'unet'"),
        ("arguments/steps", "many", "settings of a tracker"),
        ("arguments/steps", 10**9, "settings of a tracker"),
        ("arguments/node_dim", 10**9, "settings of a tracker"),
        ("arguments/node_dim", 5, "must be float32 of shape"),
        ("arguments/edge_features", 6, "features of a tracker"),
        ("arguments/evil", 1, "settings of a tracker"),
        ("arguments/time_aware", False, "differing in"),
        ("arguments", 3, "settings of a tracker"),
        ("levels", [], "must have settings for"),
        ("levels/0/gap", -1, "gap must be from 1"),
        ("levels/0/gap", 10**5, "window must be from 200000"),
        ("levels/0/neighbors", 10**9, "neighbors must be"),
        ("levels/0/threshold", 1.0, "threshold must be below 1"),
        ("levels/0/distance", -1.0, "distance must be finite and positive"),
        ("low", "x", "low must be a number"),
    ],
)
def test_hostile_settings_are_refused(tmp_path: File, path: str, value: Any, text: str) -> None:
    arrays, config = shipped()
    file = tmp_path / "model.safetensors"
    _weights.write(file, arrays, changed(config, path, value))
    with pytest.raises(DataFormatError, match=text) as error:
        mot.track(SEEN, weights=file)
    assert str(file) in str(error.value)


def test_hostile_arrays_and_files_are_refused(tmp_path: File) -> None:
    arrays, config = shipped()
    name, first = next(iter(arrays.items()))
    file = tmp_path / "model.safetensors"
    for value, text in (
        (first[:1] * np.nan, "must be float32 of shape|must be finite"),
        (first.astype(np.float64), "be float32"),
    ):
        _weights.write(file, {**arrays, name: value}, config)
        with pytest.raises(DataFormatError, match=text):
            neural.load_solver(file)
    _weights.write(file, {**arrays, "blocks.0.edge_scale": arrays["blocks.0.edge_scale"] * 0}, config)
    with pytest.raises(DataFormatError, match="finite and positive"):
        neural.load_solver(file)
    del arrays[name]
    _weights.write(file, arrays, config)
    with pytest.raises(DataFormatError, match="differing in"):
        neural.load_solver(file)
    for content in (b"", b"\x80\x04K\x01.", b"\xff" * 100):
        file.write_bytes(content)
        with pytest.raises(DataFormatError, match="safetensors"):
            neural.load_solver(file)
    with pytest.raises(FileNotFoundError):
        neural.load_solver(tmp_path / "missing.safetensors")


def test_shipped_file_is_small() -> None:
    assert neural.SHIPPED.stat().st_size < 1_500_000
