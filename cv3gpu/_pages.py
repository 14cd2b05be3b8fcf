"""The pages that commands write with ``--html``, without the shell."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from . import _segment, _segment_cluster, _segment_cut, _segment_net, _segment_slic, _track, mot, viz
from .checkerboard import checkerboard_study
from .mot.report import COMBINED, SHOWN
from .viz.html import MOST_FRAMES

__all__ = ["bench", "clusters", "comparison", "crf", "cut", "demo", "evaluation", "net", "superpixels", "tracks"]

Array = np.ndarray[Any, Any]

MOST_PICTURES = 24  # of one kind
MOST_FILMS = 8
MOST_CURVES = 8  # sequences in HOTA's figure
FEWEST_FRAMES = 30  # of a film among several
MOST_SWITCHES = 2000


def _facts(page: viz.Page, facts: Mapping[str, Any], title: str = "Result") -> viz.Page:
    return page.table(["what", "value"], [[name, _said(value)] for name, value in facts.items()], title=title)


def _said(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_said, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)


# ---- segmentation -----------------------------------------------------------------------------------------


def crf(title: str, image: Array, run: _segment.Run, names: Sequence[str]) -> viz.Page:
    """Of `segment crf`: the image against its labels, mean field iteration by iteration, objective and energy."""
    style: dict[str, Any] = {"colours": viz.label_colours(len(names))}
    found = viz.overlay(image, run.labels, border=True, **style)
    page = viz.Page(f"{title}: dense CRF", note=f"{len(names)} labels, {len(run.rows) - 1} iterations of mean field.")
    page.swipe(image, found, names=("image", "dense CRF"), title="Image and labels")
    labels, beliefs = {}, {}
    for k, (best, marginals) in run.steps.items():
        name = f"iteration {k}" if k else "start (unary)"
        labels[name], beliefs[name] = viz.overlay(image, best, **style), np.clip(marginals, 0, 1)
    last = max(run.steps)
    note = "" if len(run.steps) > last else f"Of {last} iterations {len(run.steps) - 1} are shown."
    page.slider(labels, title="Best labels, iteration by iteration", start=0, note=note)
    which = f"Q of {names[run.followed]}: black is 0, white is 1"
    page.slider(beliefs, title=which, start=0, note=note)
    smooth = viz.overlay(image, run.smooth, border=True, **style)
    page.swipe(smooth, found, names=("smoothness only", "dense CRF"), title="What the appearance kernel does")
    panels = {"image": None, "unary: best labels": run.steps[0][0], "dense CRF": run.labels}
    page.figure(viz.labels_figure(image, panels, names=names, **style), title="Legend")
    rows = [row._asdict() for row in run.rows]
    if len(rows) > 1:
        curves = {"KL divergence up to a constant": ["objective"], "energy of the best labels": ["energy"]}
        page.figure(viz.curves_figure(rows, curves, x="iteration"), title="Convergence")
    header = ["iteration", "objective", "energy", "largest change", "relabelled"]
    return page.table(header, [list(row) for row in run.rows], title="Iterations")


def cut(title: str, image: Array, known: _segment_cut.Seeds, run: _segment_cut.Run) -> viz.Page:
    """Of `segment graphcut`: the image against the cut, and GrabCut's iterations."""
    seeds: dict[str, Any] = {"foreground": known.foreground, "background": known.background, "rect": known.rect}
    page = viz.Page(f"{title}: graph cut", note=f"Energy {run.energy:.6g}; seeds in orange and blue.")
    found = viz.cutout(image, run.labels, **seeds)
    page.swipe(image, found, names=("image", "object"), title="Image and cut")
    if run.rows:
        steps = {
            f"iteration {row.iteration}": viz.cutout(image, labels, rect=known.rect)
            for row, labels in itertools.islice(zip(run.rows, run.steps, strict=True), MOST_PICTURES)
        }
        few = f"The first {MOST_PICTURES} of {len(run.rows)}." if len(run.rows) > MOST_PICTURES else ""
        page.slider(steps, title="GrabCut, iteration by iteration", start=0, note=few)
        page.table(
            ["iteration", "energy", "foreground", "changed"], [list(row) for row in run.rows], title="Iterations"
        )
    pixels = int(run.labels.sum())
    share = {"foreground, pixels": pixels, "of all pixels": f"{pixels / run.labels.size:.1%}"}
    return _facts(page, {"energy (flow)": float(run.energy), **share})


def _regions(page: viz.Page, image: Array, labels: Array) -> viz.Page:
    lines = viz.boundaries(image, labels)
    page.swipe(image, lines, names=("image", "boundaries"), title="Image and boundaries")
    means = viz.mean_colours(image, labels)
    return page.swipe(lines, means, names=("boundaries", "mean colours"), title="Each segment in its mean colour")


def superpixels(title: str, image: Array, labels: Array) -> viz.Page:
    """Of `segment slic`: boundaries and mean colours."""
    page = _regions(viz.Page(f"{title}: superpixels"), image, labels)
    sizes = _segment_slic.sizes(labels)
    return _facts(page, {"segments" if name == "count" else f"{name} pixels": n for name, n in sizes.items()})


def clusters(title: str, name: str, image: Array, found: _segment_cluster.Found) -> viz.Page:
    """Of `segment kmeans`, `meanshift`, `spectral` and `ncut`: segments, iterations, cuts, eigenvectors, modes."""
    page = _regions(viz.Page(f"{title}: {name}"), image, found.labels)
    if found.course is not None:
        course = _segment_cluster.pictures(found.course)
        page.slider(course, title=found.course.title, start=0, note=found.course.note)
    stages = _segment_cluster.stages(found)[: MOST_PICTURES + 1]
    if len(stages) > 1:
        shown = {f"{k} cuts" if k != 1 else "1 cut": viz.boundaries(image, labels) for k, labels in enumerate(stages)}
        made = len(found.cuts[0])
        few = f" The first {MOST_PICTURES} of {made}." if made > MOST_PICTURES else ""
        page.slider(shown, title="Cut by cut", start=0, note="Each cut divides one segment in two." + few)
    if found.filtered is not None:
        filtered = _segment_cluster.rgb(found.filtered)
        page.swipe(image, filtered, names=("image", "filtered"), title="Each pixel in the colour of its mode")
    if found.eigenvectors is not None and found.eigenvalues is not None and len(found.eigenvalues) > 1:
        pictures = {"image": image}
        for k in range(1, min(len(found.eigenvalues), _segment_cluster.DRAWN + 1)):
            grey = viz.families.stretched(found.eigenvectors[..., k])
            pictures[f"{k + 1}: λ = {found.eigenvalues[k]:.3g}"] = grey
        pictures[f"{len(np.unique(found.labels))} segments"] = viz.boundaries(image, found.labels)
        page.montage(pictures, title="Eigenvectors", note="The first is the same everywhere. A click enlarges.")
    facts = dict(found.facts)
    if made := facts.pop("cuts", []):
        rows = [[k, one["ncut"], *one["sizes"]] for k, one in enumerate(made, 1)]
        page.table(["cut", "ncut", "first part", "second part"], rows, title="Cuts")
    sizes = _segment_slic.sizes(found.labels)
    return _facts(page, {"segments": sizes.pop("count"), **{f"{n} pixels": v for n, v in sizes.items()}, **facts})


def net(title: str, image: Array, found: Any, config: Mapping[str, Any], rows: Sequence[Any]) -> viz.Page:
    """Of `segment net`: the image against its labels, the network against the CRF behind it, each class."""
    colours = _segment_net.colours_of(config)
    page = viz.Page(f"{title}: {config['model']}")
    labels = found.labels if found.refined is None else found.refined
    last = config["model"] if found.refined is None else "dense CRF"
    drawn = viz.overlay(image, labels, colours=colours, border=True)
    page.swipe(image, drawn, names=("image", last), title="Image and labels")
    panels = {"image": None, config["model"]: found.labels}
    if found.refined is not None:
        before = viz.overlay(image, found.labels, colours=colours, border=True)
        page.swipe(before, drawn, names=(config["model"], "dense CRF"), title="What the CRF does")
        panels["and a dense CRF"] = found.refined
    page.figure(viz.labels_figure(image, panels, colours=colours, names=config["names"]), title="Legend")
    largest = sorted(rows, key=lambda row: -row.pixels)
    beliefs = {
        row.name: np.clip(found.probabilities[config["names"].index(row.name)], 0, 1)
        for row in largest[:MOST_PICTURES]
        if row.pixels
    }
    page.montage(beliefs, title="Probability of each class", note="Black is 0, white is 1. A click enlarges.")
    cells = [[row.name, row.pixels, row.share, row.confidence] for row in largest]
    return page.table(["class", "pixels", "share", "mean probability"], cells, title="Classes")


# ---- tracking ---------------------------------------------------------------------------------------------


def tracks(sequences: Sequence[_track.Sequence], done: Mapping[str, _track.Tracked], method: str) -> viz.Page:
    """Of `track`: each sequence as a film, and a table."""
    page = viz.Page(
        f"Tracks by {method}", note=f"{len(done)} sequences; each identity has a colour, which comes again after ten."
    )
    filmed = sequences[:MOST_FILMS]
    most = max(FEWEST_FRAMES, MOST_FRAMES // len(filmed))
    for sequence in filmed:
        found = mot.read(done[sequence.name].file)
        if not len(found):
            page.text("There is no track.", title=sequence.name)
            continue
        count = int(found.frame.max() - found.frame.min()) + 1
        every = -(-count // most)
        pictures = viz.track_pictures(found, images=_track.images_of(sequence), every=every)
        few = "" if every == 1 else f"One of {every} frames is shown, of {count}."
        fps = min(60.0, max(1.0, sequence.fps / every))
        page.scrubber(pictures, fps=fps, count=-(-count // every), title=sequence.name, note=few)
    if len(sequences) > len(filmed):
        page.text(f"Films of the first {len(filmed)} of {len(sequences)} sequences.")
    header = ["sequence", "frames", "detections", "tracks", "boxes", "frames per second"]
    rows = [[name, t.frames, t.detections, t.tracks, t.boxes, round(t.fps, 1)] for name, t in done.items()]
    if any(t.satisfied is not None for t in done.values()):
        header.append("constraints, %")
        rows = [[*row, 100 * (t.satisfied or 0)] for row, t in zip(rows, done.values(), strict=True)]
    return page.table(header, rows, title="Sequences")


def _percent(value: Any) -> str:
    return f"{100 * value:.2f}" if isinstance(value, float) else str(value)


def _figures(page: viz.Page, first: str, rows: Mapping[str, Mapping[str, Any]], title: str, foot: Any = None) -> None:
    """A table of the best-known figures of sequences or trackers, ratios in percent."""
    known = next(iter(rows.values()))
    columns = {heading: key for heading, (key, _) in SHOWN.items() if key in known}
    cells = [[name, *(figures[key] for key in columns.values())] for name, figures in rows.items()]
    below = [] if foot is None else [[COMBINED, *(foot[key] for key in columns.values())]]
    note = "Ratios in percent. A click on a heading sorts."
    page.table([first, *columns], cells, foot=below, show=_percent, title=title, note=note)


def evaluation(title: str, report: Any, logs: Mapping[str, Mapping[str, Any]]) -> viz.Page:
    """Of `mot eval`: tables, HOTA's curves, who followed whom, and identity switches."""
    page = viz.Page(title, note=f"{len(report.sequences)} sequences.")
    for name, combined in report.combined.items():
        heading = f"Figures: {name}" if len(report.combined) > 1 else "Figures"
        rows = {sequence: classes[name] for sequence, classes in report.sequences.items()}
        _figures(page, "sequence", rows, heading, combined)
        if "HOTA" in combined:
            page.figure(viz.alpha_figure({"all": combined}), title=f"HOTA over the threshold: {name}")
            if 1 < len(rows) <= MOST_CURVES:
                page.figure(viz.alpha_figure(rows), title=f"Sequence by sequence: {name}")
    bars = {
        f"{sequence}, {name}": viz.identities_figure(log, title=f"{sequence}, {name}")
        for sequence, name, log in itertools.islice(_with_truth(logs), MOST_PICTURES)
    }
    if bars:
        count = sum(1 for _ in _with_truth(logs))
        few = f" The first {MOST_PICTURES} of {count}." if count > MOST_PICTURES else ""
        page.montage(bars, title="Who followed whom", note="A click enlarges." + few)
    switches = [
        [sequence, *row]
        for sequence, _, log in _with_truth(logs)
        for row in zip(*(column.tolist() for column in _switches(log)), strict=True)
    ]
    if switches:
        header = ["sequence", "frame", "identity", "followed by", "now by", "last in frame"]
        few = f"The first {MOST_SWITCHES} of {len(switches)}." if len(switches) > MOST_SWITCHES else ""
        page.table(header, switches[:MOST_SWITCHES], title="Identity switches", note=few)
    return page


def _with_truth(logs: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, str, Any]]:
    """Logs in which there is ground truth."""
    for sequence, classes in logs.items():
        for name, log in classes.items():
            if (log.gt >= 0).any():
                yield sequence, name, log


def _switches(log: Any) -> tuple[Array, ...]:
    found = log.of("switch")
    return found.frame, found.gt, found.previous, found.pred, found.since


def comparison(title: str, found: Any) -> viz.Page:
    """Of `mot compare`: a table of the trackers, and HOTA's curves."""
    page = viz.Page(title, note=f"{len(found.reports)} trackers, all sequences together.")
    for name in next(iter(found.reports.values())).combined:
        rows = {tracker: report.combined[name] for tracker, report in found.reports.items()}
        _figures(page, "tracker", rows, f"Figures: {name}")
        if all("HOTA" in figures for figures in rows.values()):
            page.figure(viz.alpha_figure(rows), title=f"HOTA over the threshold: {name}")
    return page


# ---- the whole package ------------------------------------------------------------------------------------


def demo(result: Any) -> viz.Page:
    """Of `demo`: what agreed, and the pictures."""
    right = sum(row.ok for row in result.rows)
    page = viz.Page("cv3gpu demo", note=f"{right} of {len(result.rows)} agree with an independent reference.")
    still = [path for path in result.pictures if path.suffix == ".png"]
    moving = [path for path in result.pictures if path.suffix == ".gif"]
    if still:
        page.montage({_worded(path): path for path in still}, title="Pictures", note="A click enlarges.")
    for path in moving:
        page.figure(path, title=_worded(path))
    if any(row.operator.startswith("conv") for row in result.rows):
        _upsampling(page)
    rows = [
        [r.operator, "ok" if r.ok else "FAILED", r.input, r.device, round(r.milliseconds, 2), r.agreement]
        for r in result.rows
    ]
    return page.table(["operator", "result", "input", "device", "ms", "agreement"], rows, title="Operators")


def _upsampling(page: viz.Page) -> None:
    """Transposed convolution against resize-convolution, with the first weights."""
    transposed, resized = (
        trial for trial in checkerboard_study(steps=0) if trial.name.startswith(("transposed 3", "near"))
    )
    pictures = [viz.families.stretched(trial.start) for trial in (transposed, resized)]
    amplitudes = f"{transposed.start_amplitude:.2g} and {resized.start_amplitude:.2g}"
    note = f"A smooth image, doubled by random weights. The pattern of the stride's period has amplitude {amplitudes}."
    page.swipe(*pictures, names=(transposed.name, resized.name), title="Checkerboards of upsampling layers", note=note)


def _worded(path: Path) -> str:
    return path.stem.replace("_", " ")


def bench(found: Sequence[Any], device: str) -> viz.Page:
    """Of `bench`: ratios to the nearest peer, and a table with a line for each way."""
    page = viz.Page(
        "cv3gpu bench", note=f"Medians of this run, on {device}. Results were compared with a reference first."
    )
    timed: dict[str, Any] = {
        one.name: {"bytes": 0, "flops": 0, "dtype": "", "times": {name: {"median": t} for name, t in one.times.items()}}
        for one in found
        if "ours" in one.times
    }
    if any(not name.startswith("ours") for entry in timed.values() for name in entry["times"]):
        page.figure(viz.speedup_figure(timed), title="Nearest peer")
    rows: list[list[Any]] = []
    for one in found:
        ours = one.times.get("ours")
        for name, seconds in one.times.items():
            rows.append([one.name, name, 1000 * seconds, seconds / ours if ours else None, ""])
        rows += [[one.name, name, None, None, why] for name, why in one.why.items()]
    return page.table(["measurement", "way", "ms", "times ours", "remark"], rows, title="Times")
