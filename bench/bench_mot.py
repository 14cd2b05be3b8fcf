"""Evaluation of trackers: from files in a fresh process, in memory, in long sequences, and on a GPU.

What the peers do in processes of their own stands in :mod:`bench.mot_peers`, the data in :mod:`bench.mot_data`.
TrackEval takes a minute on the crowd, so that it runs there once a session; its stages are kept as facts.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from cv3gpu import mot

from . import mot_data, mot_peers, peers
from .entry import Entry, Errors, Work
from .mot_data import Written
from .mot_peers import Figures

RULES = "MOT17"
WRONG = Errors(float("inf"), float("inf"))
MB = 1e6

SETS: dict[str, Callable[[], Written]] = {
    "MOT17": mot_data.mot17,
    "crowd": mot_data.crowd,
    "CROWD-01": functools.partial(mot_data.crowd, 1),
}
SAID = {
    "MOT17": "7 MOT17 sequences, 5,316 frames, linked YOLOX",
    "crowd": "7 tiled sequences, 15,390 frames of 143 pedestrians",
    "CROWD-01": "1 tiled sequence, 2,145 frames of 139 pedestrians",
}
TEXT = {"MOT17": 11_294_139, "crowd": 217_966_977, "CROWD-01": 23_853_546}  # bytes of all files


def figure_errors(reference: Figures, got: Figures) -> Errors:
    """Relative errors over all figures that ``got`` has of its sequences, of which all together must be one."""
    wanted = set(reference) if len(got) > 1 else {"COMBINED"}
    if set(got) != wanted:
        return WRONG
    pairs = np.array([(reference[seq][name], value) for seq, of in got.items() for name, value in of.items()])
    off = np.abs(pairs[:, 1] - pairs[:, 0]) / np.where(pairs[:, 0] == 0, 1, np.abs(pairs[:, 0]))
    found = Errors(float(np.sqrt((off**2).mean())), float(off.max()))
    return found if np.isfinite(found.norm) else WRONG


def _work(reference: Figures, ours: Callable[[], Figures], **more: Any) -> Work:
    return Work(ours=ours, errors=functools.partial(figure_errors, reference), **more)


# ---- from files, in a fresh process ---------------------------------------------------------------------


def _tool(tool: str, given: Written, one_core: bool = False) -> Callable[[], dict[str, Any]]:
    pred = given.pred if tool == "cv3gpu" else given.trackers
    return peers.command("-m", "bench.mot_peers", tool, str(given.gt), str(pred), RULES, one_core=one_core)


def _shell(given: Written, one_core: bool = False) -> Callable[[], Figures]:
    """Ours as a user runs it."""
    words = ("-m", "cv3gpu", "mot", "eval", str(given.gt), str(given.pred), "--benchmark", RULES, "--json")
    run = peers.command(*words, one_core=one_core)
    return lambda: mot_peers.of_report(run())


def _figures(run: Callable[[], dict[str, Any]]) -> Callable[[], Figures]:
    return lambda: run()["figures"]


def _together(run: Callable[[], dict[str, Any]]) -> Callable[[], Figures]:
    return lambda: {"COMBINED": run()["figures"]["COMBINED"]}


@functools.cache
def _trackeval(key: str) -> tuple[dict[str, Any], float]:
    """TrackEval's answer on one core, with its stages, and the time of the whole process."""
    run = _tool("trackeval", SETS[key](), one_core=True)
    started = time.perf_counter()
    answer = run()
    return answer, time.perf_counter() - started


def _stages(key: str) -> dict[str, float]:
    answer, _ = _trackeval(key)
    stages = {f"TrackEval {stage}, s": round(t, 3) for stage, t in answer["stages"].items()}
    return {**stages, "TrackEval peak memory, MB": round(answer["peak"] / MB)}


def _process(key: str, one_core: bool) -> Work:
    """A set of which a tool takes seconds: all are repeated."""
    pytest.importorskip("trackeval")
    given = SETS[key]()
    trackeval = _tool("trackeval", given, one_core)
    motrics = _tool("motrics", given, one_core)
    return _work(
        trackeval()["figures"],
        _shell(given, one_core),
        peers={
            "TrackEval": _figures(trackeval),
            "motrics (other CLEAR rules)": peers.need("motrics", lambda _: _together(motrics)),
        },
        limits={"motrics (other CLEAR rules)": "other rules"},
        facts={"peak memory, MB": round(_tool("cv3gpu", given, one_core)()["peak"] / MB)},
    )


def _crowd(key: str, one_core: bool) -> Work:
    """A set on which TrackEval and motrics run once."""
    pytest.importorskip("trackeval")
    given = SETS[key]()
    reference = _trackeval(key)[0]["figures"]
    return _work(
        reference,
        _shell(given, one_core),
        once={"TrackEval, 1 core, once": lambda: (reference, _trackeval(key)[1])},
        facts={"peak memory, MB": round(_tool("cv3gpu", given, one_core)()["peak"] / MB), **_stages(key)},
    )


# ---- in memory ------------------------------------------------------------------------------------------


def _in_memory(key: str, one_core: bool) -> Work:
    pytest.importorskip("trackeval")
    given = SETS[key]()
    reference, stages = (_trackeval(key)[0][part] for part in ("figures", "stages"))
    gt = {seq: mot.read(given.gt / seq / "gt" / "gt.txt") for seq in given.lengths}
    pred = {seq: mot.read(given.pred / f"{seq}.txt") for seq in given.lengths}
    compute = sum(t for stage, t in stages.items() if stage not in {"import", "load"})

    def ours() -> Figures:
        report = mot.evaluate(gt, pred, benchmark=RULES, lengths=given.lengths)
        return mot_peers.of_report({"sequences": report.sequences, "combined": report.combined})

    return _work(
        reference,
        peers.on_one_core(ours) if one_core else ours,
        once={"TrackEval's stages but loading, 1 core, once": lambda: (reference, compute)},
    )


def _warm(key: str) -> Work:
    """From files again, in a process in which everything is loaded and compiled."""
    pytest.importorskip("trackeval")
    given = SETS[key]()
    reference = _trackeval(key)[0]["figures"]
    return _work(
        reference,
        lambda: mot_peers.of_report(mot.evaluate(given.gt, given.pred, benchmark=RULES).to_dict()),
        once={"TrackEval without its import, once": lambda: (reference, _without_import(key))},
    )


def _without_import(key: str) -> float:
    answer, whole = _trackeval(key)
    return whole - answer["stages"]["import"]


# ---- reading --------------------------------------------------------------------------------------------

_COLUMNS = ("frame", "id", "box", "score", "class_", "visibility")


def _reading(key: str) -> Work:
    given = SETS[key]()
    path = given.files[-len(given.lengths) - 1]  # the last ground truth
    table = np.loadtxt(path, delimiter=",")

    def errors(got: Any) -> Errors:
        if isinstance(got, mot.Tracks):
            got = np.column_stack([getattr(got, name) for name in _COLUMNS])
        return Errors(0.0, 0.0) if np.array_equal(table, got) else WRONG

    return Work(
        ours=peers.on_one_core(lambda: mot.read(path)),  # type: ignore[arg-type]
        errors=errors,
        peers={
            "np.loadtxt": lambda: np.loadtxt(path, delimiter=","),
            "pandas": peers.need("pandas", lambda pd: lambda: pd.read_csv(path, header=None).to_numpy(float)),
        },
    )


# ---- long sequences -------------------------------------------------------------------------------------

PEOPLE = 20


def _long(frames: int) -> Work:
    """Time is to grow with the number of frames, and memory with the number of boxes."""
    run = peers.command("-m", "bench.mot_peers", "walks", str(frames), str(PEOPLE), one_core=True)()
    gt, pred = mot_data.walk_tracks(frames, PEOPLE)
    boxes = len(gt) + len(pred)

    def ours() -> Figures:
        report = mot.evaluate(gt, pred)
        return mot_peers.of_report({"sequences": report.sequences, "combined": report.combined}, "all")

    return _work(
        run["figures"],
        peers.on_one_core(ours),  # type: ignore[arg-type]
        facts={
            "boxes": boxes,
            "peak memory, MB": round(run["peak"] / MB),
            "before, MB": round(run["before"] / MB),
            "bytes a box beside the input": round((run["peak"] - run["before"]) / boxes),
        },
    )


# ---- arrays, where they are -----------------------------------------------------------------------------

ARRAYS = {"crowd": (7, 2143, 140, 116), "small": (2, 300, 20, 5)}  # sequences, frames, people, others


def array_errors(reference: list[Any], got: list[Any]) -> Errors:
    """Relative errors of all figures; infinite where an integer differs."""
    sides = [{str(k): mot_peers.picked(of) for k, of in enumerate(found)} for found in (reference, got)]
    for one, other in zip(reference, got, strict=True):
        if any(other[name] != value for name, value in one.items() if isinstance(value, int)):
            return WRONG
    return figure_errors(*({**side, "COMBINED": {}} for side in sides))  # type: ignore[arg-type]


def _arrays(key: str, device: str) -> Work:
    n, *shape = ARRAYS[key]
    host = mot_data.walks(n, *shape)
    evaluate = functools.partial(mot.evaluate_boxes, benchmark=RULES, n_sequences=n)
    reference = evaluate(*host)
    errors = functools.partial(array_errors, reference)
    if device == "cpu":
        return Work(ours=peers.on_one_core(lambda: evaluate(*host)), errors=errors)  # type: ignore[arg-type]
    cupy = pytest.importorskip("cupy")
    near = [mot.Boxes(*map(cupy.asarray, side)) for side in host]
    return Work(
        ours=lambda: evaluate(*near),
        errors=errors,
        host_peers={
            "ours on the CPU": lambda: evaluate(*host),
            "ours, arrays copied to the GPU first": lambda: evaluate(
                *(mot.Boxes(*map(cupy.asarray, side)) for side in host)
            ),
        },
    )


# ---- entries --------------------------------------------------------------------------------------------


def _entry(
    name: str, shape: str, size: int, setup: Callable[[], Work], priority: int = 0, device: str = "cpu"
) -> Entry:
    return Entry(
        name=f"{name} {device}", family="mot", shape=shape, device=device, dtype="float64", bytes=size, flops=0,
        setup=setup, priority=priority,
    )  # fmt: skip


def _file_entries() -> list[Entry]:
    cores = len(os.sched_getaffinity(0))
    found = []
    for one_core, said in ((True, "1 core"), *([(False, f"{cores} cores")] if cores > 1 else [])):
        for key, make, priority in (("MOT17", _process, 0), ("crowd", _crowd, 0), ("CROWD-01", _crowd, 1)):
            setup = functools.partial(make, key, one_core)
            found.append(_entry(f"mot eval {key} process, {said}", SAID[key], TEXT[key], setup, priority))
        for key, priority in (("crowd", 0), ("CROWD-01", 1)):
            setup = functools.partial(_in_memory, key, one_core)
            found.append(_entry(f"mot.evaluate {key} in memory, {said}", SAID[key], TEXT[key], setup, priority))
    found.append(_entry("mot.evaluate MOT17 warm", SAID["MOT17"], TEXT["MOT17"], functools.partial(_warm, "MOT17")))
    for key, size, priority in (("crowd", 19_944_802, 0), ("CROWD-01", 13_899_606, 1)):
        shape = "one ground truth, 600,060 lines" if key == "crowd" else "one ground truth, 399,705 lines"
        found.append(_entry(f"mot.read {key}, 1 core", shape, size, functools.partial(_reading, key), priority))
    return found


def _array_entry(key: str, device: str, priority: int) -> Entry:
    n, frames, people, others = ARRAYS[key]
    shape = f"{n} x {frames:,} frames of {people} + {others} boxes"
    rows = n * frames * (people + others + 0.75 * people + 0.05 * others)
    setup = functools.partial(_arrays, key, device)
    return _entry(f"mot.evaluate_boxes {key}", shape, int(72 * rows), setup, priority, device)


def _long_entry(frames: int) -> Entry:
    name = f"mot.evaluate {frames:,} frames, 1 core"
    return _entry(name, f"{PEOPLE} walkers", 72 * 35 * frames, functools.partial(_long, frames))


ENTRIES = [
    _array_entry("crowd", "cuda", 0),
    _array_entry("small", "cuda", 1),
    *_file_entries(),
    _long_entry(10_000),
    _long_entry(100_000),
    _array_entry("crowd", "cpu", 0),
]


@pytest.mark.parametrize("entry", ENTRIES, ids=str)
def bench_mot(entry: Entry, measure: Any) -> None:
    measure(entry)
