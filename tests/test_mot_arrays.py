"""Evaluation of boxes in arrays: the kernels against the CPU path, decision for decision."""

from __future__ import annotations

import numpy as np
import pytest

from cv3gpu import mot
from cv3gpu.mot import accumulate, arrays

INTEGERS = ("CLR_TP", "CLR_FN", "CLR_FP", "IDSW", "MT", "PT", "ML", "Frag", "IDTP", "IDFN", "IDFP")
METRICS = ("clear", "identity", "hota", "count")


def random_side(rng, n_sequences, n_frames, n_ids, spread, whole=True):
    """Columns of boxes in a small space; whole coordinates make many exact ties."""
    rows = [
        (sequence, frame, 3 * identity, *rng.integers(0, spread, 2), *rng.integers(8, 13, 2))
        for sequence in range(n_sequences)
        for frame in range(1, n_frames + 1)
        for identity in range(n_ids)
        if rng.random() < 0.7
    ]
    table = rng.permutation(np.array(rows, float).reshape(-1, 7))
    box = table[:, 3:] if whole else table[:, 3:] + rng.random((len(table), 4))
    return {"frame": table[:, 1], "id": table[:, 2], "box": box, "sequence": table[:, 0]}


def boxes(path, columns):
    real = {"box", "score"}
    return mot.Boxes(**{name: path.array(x, "float64" if name in real else "int64") for name, x in columns.items()})


def assert_same(got, want):
    assert len(got) == len(want)
    for ours, theirs in zip(got, want, strict=True):
        assert ours.keys() == theirs.keys()
        for key in INTEGERS:
            assert ours.get(key) == theirs.get(key), key
        for key in ("HOTA_TP_alpha", "HOTA_FN_alpha", "HOTA_FP_alpha"):
            np.testing.assert_array_equal(ours[key], theirs[key])
        for key, value in theirs.items():
            np.testing.assert_allclose(ours[key], value, rtol=1e-12, atol=1e-12, err_msg=key)


def both_ways(path, gt, pred, **options):
    got = mot.evaluate_boxes(boxes(path, gt), boxes(path, pred), metrics=METRICS, **options)
    token = arrays._array.host_backend.set(None)
    try:
        cpu = [mot.Boxes(**{k: np.asarray(x, float if k in ("box", "score") else np.int64) for k, x in side.items()})
               for side in (gt, pred)]  # fmt: skip
        return got, mot.evaluate_boxes(*cpu, metrics=METRICS, **options)
    finally:
        arrays._array.host_backend.reset(token)


@pytest.mark.parametrize("seed", range(4))
def test_kernels_decide_as_the_cpu(kernel_path, seed):
    rng = np.random.default_rng(seed)
    gt, pred = (random_side(rng, 2, 5, n, 25, seed % 2 == 0) for n in (7, 5 + 4 * (seed % 2)))
    assert_same(*both_ways(kernel_path, gt, pred, n_sequences=2))


def test_sequences_without_boxes_on_a_side(kernel_path):
    rng = np.random.default_rng(7)
    gt, pred = random_side(rng, 4, 3, 4, 20), random_side(rng, 4, 3, 4, 20)
    keep = [(gt, gt["sequence"] != 1), (pred, (pred["sequence"] != 2) & (pred["frame"] != 2))]
    gt, pred = ({name: x[rows] for name, x in side.items()} for side, rows in keep)
    assert_same(*both_ways(kernel_path, gt, pred, n_sequences=5))


def test_a_crowded_frame(kernel_path):
    rng = np.random.default_rng(8)
    gt, pred = random_side(rng, 1, 1, 60, 60), random_side(rng, 1, 1, 230, 70)
    assert_same(*both_ways(kernel_path, gt, pred))
    assert_same(*both_ways(kernel_path, pred, gt))


@pytest.mark.parametrize("n", [8, 140])
def test_frames_with_a_single_prediction(kernel_path, n):
    rng = np.random.default_rng(n)
    frame = np.repeat(np.arange(3), n)
    box = np.column_stack([np.zeros((3 * n, 2)), np.full(3 * n, 20), rng.integers(7, 10, 3 * n)])
    gt = {"frame": frame, "id": np.tile(np.arange(n), 3), "box": box}
    pred = {"frame": np.arange(3), "id": np.ones(3), "box": np.tile([[0.0, 0, 20, 20]], (3, 1))}
    assert_same(*both_ways(kernel_path, gt, pred))


def test_scratch_in_global_memory(kernel_path, monkeypatch):
    monkeypatch.setattr(arrays, "_SHARED", 0)
    rng = np.random.default_rng(9)
    gt, pred = random_side(rng, 2, 4, 6, 20), random_side(rng, 2, 4, 8, 20)
    assert_same(*both_ways(kernel_path, gt, pred, n_sequences=2))


@pytest.mark.parametrize("rules", ["MOT15", "MOT17", "MOT20"])
def test_preprocessing(kernel_path, rules):
    rng = np.random.default_rng(10)
    gt, pred = random_side(rng, 2, 4, 8, 24), random_side(rng, 2, 4, 8, 24)
    for side in (gt, pred):
        side["score"] = rng.integers(0, 2, len(side["frame"])) * 0.999 + (rng.random(len(side["frame"])) < 0.7)
        side["class_"] = np.ones(len(side["frame"]))
    gt["class_"] = rng.choice([1, 1, 1, 2, 6, 7, 8, 12, 13], len(gt["frame"]))
    assert_same(*both_ways(kernel_path, gt, pred, n_sequences=2, benchmark=rules))


@pytest.mark.parametrize("rules", ["MOT15", "MOT17"])
def test_frames_that_the_rules_empty_count(kernel_path, rules):
    one = np.ones(2, np.int64)
    pred = {"frame": np.array([1, 2]), "id": one, "box": np.ones((2, 4)), "score": np.ones(2), "class_": one}
    last = {"frame": [3], "id": [2], "box": np.ones((1, 4)), "score": [0.0], "class_": [8]}
    gt = {name: np.concatenate([x, last[name]]) for name, x in pred.items()}
    got, want = both_ways(kernel_path, gt, pred, benchmark=rules)
    assert_same(got, want)
    sides = ({"a": mot.Tracks(**side)} for side in (gt, pred))
    expected = mot.evaluate(*sides, benchmark=rules, metrics=METRICS).sequences["a"]
    assert_same(want, [next(iter(expected.values()))])
    assert want[0]["CLR_Frames"] == 3


@pytest.mark.parametrize("format", ["xywh", "xyxy"])
def test_an_evaluator_computes_where_its_frames_are(kernel_path, monkeypatch, format):
    rng = np.random.default_rng(11)
    gt, pred = random_side(rng, 2, 4, 5, 22), random_side(rng, 2, 4, 6, 22)
    here, there = mot.Evaluator(METRICS), mot.Evaluator(METRICS, lengths={"b": 9})
    for sequence, name in enumerate("ab"):
        for frame in range(1, 5):
            args, arrays_ = [], []
            for side in (gt, pred):
                rows = (side["sequence"] == sequence) & (side["frame"] == frame)
                ids, box = side["id"][rows].astype(np.int64), side["box"][rows]
                args += [ids, box]
                corners = np.concatenate([box[:, :2], box[:, :2] + box[:, 2:]], axis=1)
                arrays_ += [kernel_path.array(ids), kernel_path.array(corners if format == "xyxy" else box)]
            here.update(
                *(mot.Tracks(np.full(len(i), frame), i, b) for i, b in zip(args[::2], args[1::2], strict=True)), name
            )
            there.update_frame(name, frame, *arrays_, format=format)
    here.lengths["b"] = 9
    monkeypatch.setattr(accumulate, "evaluate", None)
    got = there.compute()  # without a way to the CPU
    monkeypatch.undo()
    want = here.compute()
    assert_same([r["all"] for r in got.sequences.values()], [r["all"] for r in want.sequences.values()])
    assert_same([got.combined["all"]], [want.combined["all"]])


SIDE = {"frame": np.array([1, 2]), "id": np.array([1, 1]), "box": np.ones((2, 4))}


@pytest.mark.parametrize(
    ("changes", "options", "error", "message"),
    [
        ({"frame": [1, 2]}, {}, TypeError, r"gt.frame must be a NumPy, CuPy or torch array, got list"),
        ({"frame": np.ones(2)}, {}, TypeError, r"gt.frame must have dtype int32 or int64, got float64"),
        ({"id": np.array([1])}, {}, ValueError, r"gt.id must have shape \[2\], got \(1,\)"),
        ({"box": np.ones((2, 3))}, {}, ValueError, r"gt.box must have shape \[2, 4\], got \(2, 3\)"),
        ({"box": np.ones((2, 4), int)}, {}, TypeError, r"gt.box must have dtype float32 or float64, got int64"),
        ({"sequence": np.zeros(3, int)}, {}, ValueError, r"gt.sequence must have shape \[2\], got \(3,\)"),
        ({}, {"benchmark": "MOT17"}, ValueError, r"gt.score must be given for MOT17, got None"),
        (
            {"score": np.ones(2), "class_": np.ones(2, int)},
            {"benchmark": "KITTI"},
            ValueError,
            r"benchmark must be one of",
        ),
        ({}, {"benchmark": "KITTI"}, ValueError, r"benchmark must be one of 'MOT15'"),
        ({}, {"metrics": ("mota",)}, ValueError, r"metrics must be one of 'hota', 'clear'"),
        ({}, {"n_sequences": 0}, ValueError, r"n_sequences must be from 1"),
        ({"sequence": np.array([0, 1])}, {}, ValueError, r"gt.sequence must be from 0 to 0, got 1"),
        ({"sequence": np.array([-1, 0])}, {}, ValueError, r"gt.sequence must be from 0 to 0, got -1"),
        ({"frame": None}, {}, TypeError, r"gt.frame must be a NumPy, CuPy or torch array, got None"),
        ({}, {"metrics": ()}, ValueError, r"metrics must name at least one family, got none"),
        ({}, {"lengths": [1]}, ValueError, r"lengths must be at least 2, the frames of sequence 0, got 1"),
        ({}, {"lengths": [-5]}, ValueError, r"lengths must be from 0"),
        ({}, {"lengths": ["a"]}, TypeError, r"lengths must be an integer"),
        ({}, {"lengths": [1, 2]}, ValueError, r"lengths must have a number for each of 1 sequences, got 2"),
    ],
)
def test_refused(changes, options, error, message):
    side = mot.Boxes(**{**SIDE, **changes})
    with pytest.raises(error, match=rf"mot.evaluate_boxes: {message}"):
        mot.evaluate_boxes(side, side, **options)


def test_refused_sides():
    side = mot.Boxes(**SIDE)
    with pytest.raises(TypeError, match=r"mot.evaluate_boxes: pred must be mot.Boxes, got dict"):
        mot.evaluate_boxes(side, SIDE)
    torch = pytest.importorskip("torch")
    other = side._replace(box=torch.ones(2, 4))
    with pytest.raises(TypeError, match=r"pred.box must be where gt.frame is \(numpy on cpu\), got torch on cpu"):
        mot.evaluate_boxes(side, other)


def test_without_boxes(kernel_path):
    none = {"frame": np.zeros(0), "id": np.zeros(0), "box": np.zeros((0, 4))}
    some = {name: SIDE[name].astype(float) for name in SIDE}
    for gt, pred in ((none, some), (some, none), (none, none)):
        assert_same(*both_ways(kernel_path, gt, pred))
