"""Evaluations in a process of their own: ``python -m bench.mot_peers TOOL ...`` prints one JSON document.

``figures`` by sequence and for all (COMBINED), ``stages`` in seconds, ``peak`` memory in bytes. Only what the
tool itself needs is imported. MOTChallenge's layout and rules; one thread.
"""

from __future__ import annotations

import contextlib
import json
import re
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

COUNTS = ("CLR_TP", "CLR_FP", "CLR_FN", "IDSW", "MT", "PT", "ML", "Frag", "IDTP", "IDFP", "IDFN")
RATIOS = ("HOTA", "DetA", "AssA", "MOTA", "MOTP", "IDF1")
Figures = dict[str, dict[str, float]]


def picked(found: Mapping[str, Any]) -> dict[str, float]:
    """The figures that are compared."""
    return {name: float(found[name]) for name in (*COUNTS, *RATIOS) if name in found}


def peak(again: bool = False) -> int:
    """The most memory that this process has had, bytes; ``again`` forgets what was before."""
    if again:
        Path("/proc/self/clear_refs").write_text("5")
    return int(re.search(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text())[1]) << 10  # type: ignore[index]


# ---- ours -----------------------------------------------------------------------------------------------


def cv3gpu(gt: str, pred: str, benchmark: str) -> dict[str, Any]:
    """Ours, for its memory: the bench times the shell command."""
    from cv3gpu import mot

    return {"figures": of_report(mot.evaluate(gt, pred, benchmark=benchmark).to_dict())}


def of_report(report: Mapping[str, Any], kind: str = "pedestrian") -> Figures:
    """Figures of a report as a dictionary, or of what ``cv3gpu mot eval --json`` prints."""
    found = {seq: picked(classes[kind]) for seq, classes in report["sequences"].items()}
    return {**found, "COMBINED": picked(report["combined"][kind])}


def walks(frames: str, people: str) -> dict[str, Any]:
    """Ours on random walkers in memory, for the memory that it takes beside its input."""
    from cv3gpu import mot

    from . import mot_data

    sides = mot_data.walk_tracks(int(frames), int(people))
    before = peak(again=True)
    return {"figures": of_report(mot.evaluate(*sides).to_dict(), "all"), "before": before}


# ---- TrackEval ------------------------------------------------------------------------------------------


def trackeval(gt: str, trackers: str, benchmark: str) -> dict[str, Any]:
    """TrackEval's own run of HOTA, CLEAR and Identity, without output, with a clock around each stage."""
    started = time.perf_counter()
    import trackeval as te

    stages = {"import": time.perf_counter() - started}
    quiet = ("PRINT_RESULTS", "PRINT_CONFIG", "TIME_PROGRESS", "OUTPUT_SUMMARY", "OUTPUT_DETAILED", "PLOT_CURVES")
    config = {**te.Evaluator.get_default_eval_config(), **dict.fromkeys(quiet, False), "USE_PARALLEL": False}
    places = {"GT_FOLDER": gt, "TRACKERS_FOLDER": trackers, "SKIP_SPLIT_FOL": True, "BENCHMARK": benchmark}
    lengths = {path.parent.name: None for path in sorted(Path(gt).glob("*/seqinfo.ini"))}
    places |= {"SEQ_INFO": lengths, "PRINT_CONFIG": False, "TRACKERS_TO_EVAL": [_tracker(trackers)]}
    dataset = te.datasets.MotChallenge2DBox(places)
    silent = {"PRINT_CONFIG": False}
    metrics = [te.metrics.HOTA(), te.metrics.CLEAR(silent), te.metrics.Identity(silent)]
    _clock(dataset, "_load_raw_file", stages, "load")
    _clock(dataset, "_calculate_similarities", stages, "IoU")
    _clock(dataset, "get_preprocessed_seq_data", stages, "preprocessing")
    for metric in metrics:
        _clock(metric, "eval_sequence", stages, metric.get_name())
    evaluated, _ = te.Evaluator(config).evaluate([dataset], metrics)
    (found,) = evaluated["MotChallenge2DBox"].values()
    return {"figures": {_name(seq): _merged(of["pedestrian"]) for seq, of in found.items()}, "stages": stages}


def _tracker(trackers: str) -> str:
    (only,) = Path(trackers).iterdir()
    return only.name


def _name(sequence: str) -> str:
    return "COMBINED" if sequence == "COMBINED_SEQ" else sequence


def _merged(families: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    every = {name: value for family in families.values() for name, value in family.items()}
    means = {name: every[name].mean() for name in ("HOTA", "DetA", "AssA")}
    return picked({**every, **means})


def _clock(owner: Any, name: str, stages: dict[str, float], stage: str) -> None:
    """Adds the time of each call of a method to a stage."""
    method: Callable[..., Any] = getattr(owner, name)
    stages.setdefault(stage, 0.0)

    def timed(*args: Any, **options: Any) -> Any:
        started = time.perf_counter()
        result = method(*args, **options)
        stages[stage] += time.perf_counter() - started
        return result

    setattr(owner, name, timed)


# ---- motrics --------------------------------------------------------------------------------------------


def motrics(gt: str, trackers: str, benchmark: str) -> dict[str, Any]:
    """The native interface of motrics; it combines no sequences, so the sums are formed here."""
    import motrics as mr

    found, hota = {}, []
    for path in sorted(Path(gt).glob("*/gt/gt.txt")):
        seq = path.parent.parent.name
        truth = mr.load_motchallenge_gt(path)
        given = mr.load_motchallenge(Path(trackers, _tracker(trackers), "data", f"{seq}.txt"))
        ids, boxes, pred_ids, pred_boxes = mr.preprocess_motchallenge(truth, given, benchmark=benchmark)
        result = mr.evaluate(mr.Frames(ids=ids, boxes=boxes), mr.Frames(ids=pred_ids, boxes=pred_boxes))
        clear, identity = result.clear, result.identity
        counts = (clear.num_matches, clear.num_false_positives, clear.num_misses, clear.num_switches)
        counts += (clear.mt, clear.pt, clear.ml, clear.frag, identity.idtp, identity.idfp, identity.idfn)
        ratios = (result.hota.hota, result.hota.deta, result.hota.assa, clear.mota, clear.motp, identity.idf1)
        found[seq] = picked(dict(zip((*COUNTS, *RATIOS), (*counts, *ratios), strict=True)))
        hota.append(result.hota)
    sums = {name: sum(of[name] for of in found.values()) for name in COUNTS}
    tp, fp, fn, idsw = (sums[name] for name in ("CLR_TP", "CLR_FP", "CLR_FN", "IDSW"))
    ratios = {"MOTA": (tp - fp - idsw) / (tp + fn)}
    ratios["IDF1"] = 2 * sums["IDTP"] / (2 * sums["IDTP"] + sums["IDFP"] + sums["IDFN"])
    means = []
    for k in range(19):
        both = sum(h.hota_tp_alphas[k] for h in hota)
        wrong = sum(h.hota_fn_alphas[k] + h.hota_fp_alphas[k] for h in hota)
        association = sum(h.assa_alphas[k] * h.hota_tp_alphas[k] for h in hota) / max(1.0, both)
        means.append((both / (both + wrong) * association) ** 0.5)
    return {"figures": {**found, "COMBINED": {**sums, **ratios, "HOTA": sum(means) / 19}}}


TOOLS: dict[str, Callable[..., dict[str, Any]]] = {
    "cv3gpu": cv3gpu,
    "walks": walks,
    "trackeval": trackeval,
    "motrics": motrics,
}

if __name__ == "__main__":
    with contextlib.redirect_stdout(sys.stderr):
        answer = TOOLS[sys.argv[1]](*sys.argv[2:])
    print(json.dumps({**answer, "peak": peak()}))
