"""Training of the neural solver for tracking: on sequences with detections and ground truth, level after level."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from .. import _check, _weights
from ..errors import DataFormatError
from ..mot import _tracklets, formats
from ..mot._tracklets import Level, Rows
from ..mot.graph import label_edges, match_detections
from ..mot.neural import Solver, link, load_solver, read_camera, steady
from ..mot.tracks import NO_ID, Tracks
from . import _training
from .models.mpn import MPNTracker, link_loss, mpn_tracker

__all__ = ["LEVELS", "Scene", "Trained", "read_sequences", "total_epochs", "train"]

Array = np.ndarray[Any, Any]

LEVELS = (
    Level(gap=2, neighbors=8, distance=2.0, window=64, threshold=0.8),
    Level(gap=10, neighbors=16, distance=3.0, window=64, threshold=0.7),
    Level(gap=40, neighbors=16, distance=4.0, window=256, confirmed=True, threshold=0.7),
)
NETWORK: dict[str, Any] = {
    "node_features": _tracklets.NODE_FEATURES,
    "edge_features": _tracklets.EDGE_FEATURES,
    "steps": 5,
    "node_dim": 16,
    "edge_dim": 16,
    "node_hidden": [16],
    "edge_hidden": [32],
    "step_hidden": 40,
    "message_hidden": 24,
    "directed": False,
}
PEOPLE = (1, 2, 7, 8, 12)  # classes of MOTChallenge that move as one's own do, and may be linked
NEAR = 8  # frames at the end of a tracklet in which its identity is looked for
EPOCHS = (2, 12, 60)
PARTS = ("all", "first", "second")
WARMUP, CLIP, DECAY = 50, 1.0, 1e-5
STEPS = 16  # that an epoch has at least, where there are as many windows: upper levels have few links


class Scene(NamedTuple):
    """A sequence to learn from."""

    name: str
    detections: Tracks  # sorted by frame
    ids: Array  # of the ground truth, -1 for none
    hidden: Array  # the share of each that is hidden, 0 where it is unknown
    camera: Array | None  # [F, 2, 3], see `cv3gpu.mot.track`


class Trained(NamedTuple):
    """What training gives."""

    weights: Path
    curves: list[dict[str, Any]]


class Copy(NamedTuple):
    """A sequence as one level sees it, changed at random or as it is."""

    rows: Rows
    ids: Array
    label: Array


# ---- data -----------------------------------------------------------------------------------------------


def read_sequences(
    data: str | os.PathLike[str], *, part: str = "all", detections: str | None = None, low: float = 0.1
) -> list[Scene]:
    """Reads ``<seq>/gt/gt.txt`` and ``<seq>/det/*.txt`` of a folder, with ``<seq>/gmc.txt`` where it is there.

    Parameters
    ----------
    data : path of a folder
    part : {"all", "first", "second"}
        The frames: all, the first N // 2, or those after frame N // 2 + 1, numbered anew from 1, where N is the last
        frame of the ground truth or detections.
    detections : str, optional
        The name of the file in ``det``; left out, there must be one at most. Without one the boxes of the ground truth
        are the detections.
    low : float
        Detections with a lower score are left out.

    Raises
    ------
    DataFormatError
        A malformed file, no sequence, several files of detections.
    """
    _check.choice("train", "part", part, PARTS)
    root = Path(data)
    found = []
    for folder in sorted(path.parent.parent for path in root.glob("*/gt/gt.txt")):
        gt = formats.read(folder / "gt" / "gt.txt", "motchallenge")
        files = sorted((folder / "det").glob("*.txt")) if detections is None else [folder / "det" / detections]
        if len(files) > 1:
            raise DataFormatError(f"{folder / 'det'}: must hold one file of detections, got {len(files)}; name one")
        gt = gt[(gt.id >= 0) & (np.isin(gt.class_, PEOPLE) | ((gt.class_ < 0) & (gt.score > 0)))]
        seen = formats.read(files[0], "motchallenge") if files else gt
        last = int(max(gt.frame.max(initial=0), seen.frame.max(initial=0)))
        motion = folder / "gmc.txt"
        camera = read_camera(motion, last) if motion.is_file() else None
        first, end = {"all": (1, last), "first": (1, last // 2), "second": (last // 2 + 2, last)}[part]
        gt, seen = (x[(x.frame >= first) & (x.frame <= end)] for x in (gt, seen))
        seen = seen[(seen.score >= low) & (seen.box[:, 2:] > 0).all(1)]
        seen = seen[np.argsort(seen.frame, kind="stable")]
        ids = match_detections(seen, gt)
        hidden = np.zeros(len(seen))
        known = {(int(f), int(i)): float(v) for f, i, v in zip(gt.frame, gt.id, gt.visibility, strict=True)}
        for row in np.flatnonzero(ids >= 0):
            hidden[row] = 1 - max(0.0, known[int(seen.frame[row]), int(ids[row])])
        if (gt.visibility < 0).any():
            hidden[:] = 0
        moved = Tracks(seen.frame - first + 1, np.full(len(seen), NO_ID), seen.box, score=seen.score)
        found.append(Scene(folder.name, moved, ids, hidden, None if camera is None else camera[first - 1 : end]))
    if not found:
        raise DataFormatError(f"{os.fspath(data)}: must hold sequences as <seq>/gt/gt.txt, got none")
    return found


def plain(given: Scene, *, camera: bool = False) -> Copy:
    """A sequence as it is."""
    d = given.detections
    box = steady(d.frame, d.box, given.camera if camera else None)
    return Copy(Rows(d.frame, box, d.score), given.ids, np.arange(len(d)))


def augmented(given: Scene, rng: np.random.Generator, low: float) -> Copy:
    """A sequence made harder at random, as a worse detector, another frame rate or another view would make it.

    Detections go, alone, in runs, or where they are hidden; others get lower scores; boxes are jittered; frames are
    left out; time runs backwards, left is right; the motion of the camera is taken out, or not.
    """
    d = given.detections
    frame, score, ids = d.frame, d.score.copy(), given.ids
    box = steady(frame, d.box, given.camera if rng.random() < 0.5 else None)
    step = int(rng.choice([1, 1, 1, 2, 3]))
    keep = frame % step == rng.integers(step)
    keep &= rng.random(len(frame)) > rng.uniform(0, 0.1)
    # Hidden ones: more than this share of them hidden, and the detector may miss them.
    limit = rng.uniform(0.3, 1.2)
    unsure = given.hidden > limit + rng.normal(0, 0.1, len(frame))
    keep &= ~(unsure & (rng.random(len(frame)) < rng.uniform(0.2, 0.9)))
    score[unsure] *= rng.uniform(0.15, 0.9)
    often = rng.uniform(0.2, 2.0) / 100  # runs per frame
    for number in np.unique(ids[ids >= 0]):
        own = np.flatnonzero(ids == number)
        begin, end = frame[own[0]], frame[own[-1]] + 1
        for _ in range(rng.poisson(often * (end - begin))):
            length = min(int(rng.geometric(1 / (15 * step))), 100 * step)
            first = int(rng.integers(begin - length // 2, end))
            run = own[(frame[own] >= first) & (frame[own] < first + length)]
            if rng.random() < 0.6:
                keep[run] = False
            else:
                score[run] *= rng.uniform(0.15, 0.7)
    odds = np.log(score / (1 - np.minimum(score, 0.999))) + rng.normal(0, 0.4, len(score)) - rng.uniform(0, 0.6)
    score = 1 / (1 + np.exp(-odds))
    keep &= score >= low
    noise = rng.uniform(0, 0.03)
    centre, size = box[:, :2] + box[:, 2:] / 2, box[:, 2:]
    centre = centre + rng.normal(0, noise, size.shape) * size
    size = size * np.exp(rng.normal(0, noise, size.shape))
    if rng.random() < 0.5:
        centre = centre * [-1, 1]
    frame = frame // step
    if rng.random() < 0.5:
        frame = frame.max(initial=0) - frame
    row = np.flatnonzero(keep)
    row = row[np.argsort(frame[row], kind="stable")]
    rows = Rows(frame[row] + 1, np.concatenate([centre - size / 2, size], 1)[row], score[row])
    return Copy(rows, ids[row], np.arange(len(row)))


# ---- graphs ---------------------------------------------------------------------------------------------


class Graph(NamedTuple):
    """A window: what the network is given, and what it should say."""

    nodes: Array  # [N, F]
    edges: Array  # [E, G]
    links: Array  # [2, E]
    time: Array  # [N]
    target: Array  # [E]
    known: Array  # [E], whether the ground truth says anything about a link


def _end_ids(copy: Copy, label: Array, nodes: _tracklets.Tracklets) -> tuple[Array, Array]:
    """The identity with which each tracklet begins and ends: the known one nearest to that end."""
    ends = []
    rows = np.flatnonzero((label >= 0) & (copy.ids >= 0))
    of, frame = label[rows], copy.rows.frame[rows]
    for chosen in (
        np.flatnonzero(frame - nodes.frame[of] < NEAR)[::-1],
        np.flatnonzero(nodes.last_frame[of] - frame < NEAR),
    ):
        ids = np.full(len(nodes.frame), NO_ID)
        ids[of[chosen]] = copy.ids[rows[chosen]]  # of several the last one counts
        ends.append(ids)
    return ends[0], ends[1]


def _graphs(copy: Copy, level: Level, high: float) -> list[Graph]:
    """The windows of a sequence, end to end."""
    label = _tracklets.confirm(copy.rows, copy.label, high) if level.confirmed else copy.label
    nodes = _tracklets.summary(copy.rows, label)
    links = _tracklets.links(nodes, level)
    if not links.shape[1]:
        return []
    begins, ends = _end_ids(copy, label, nodes)
    target, known = _targets(begins, ends, links, nodes)
    window = nodes.last_frame[links[0]] // level.window
    found = []
    for number in np.unique(window):
        inside = np.flatnonzero(window == number)
        which, local = np.unique(links[:, inside], return_inverse=True)
        part, local = nodes.take(which), local.reshape(2, -1)
        features = _tracklets.features(part, local)
        found.append(Graph(*features, local, part.frame, target[inside], known[inside]))
    return found


def _targets(begins: Array, ends: Array, links: Array, nodes: _tracklets.Tracklets) -> tuple[Array, Array]:
    """Which links hold, and which of them are known: a link between two boxes without identity is not."""
    n = len(begins)
    # A tracklet that ends as somebody else than it began stands twice, as receiver and as sender.
    twice = np.stack([links[0] + n, links[1]])
    frames = np.concatenate([nodes.frame, nodes.frame]), np.concatenate([nodes.last_frame, nodes.last_frame])
    target = label_edges(np.concatenate([begins, ends]), twice, *frames)
    return target, (ends[links[0]] >= 0) | (begins[links[1]] >= 0)


def _joined(graphs: Sequence[Graph]) -> Graph:
    """Several windows as one."""
    shift = np.cumsum([0, *(len(g.nodes) for g in graphs)])
    links = [g.links + s for g, s in zip(graphs, shift, strict=False)]
    parts = {k: np.concatenate([getattr(g, k) for g in graphs]) for k in ("nodes", "edges", "time", "target", "known")}
    return Graph(links=np.concatenate(links, 1), **parts)


def _batches(graphs: Sequence[Graph], size: int, rng: np.random.Generator) -> list[list[Graph]]:
    """Windows in random order, put together up to so many links."""
    found: list[list[Graph]] = [[]]
    held = 0
    for number in rng.permutation(len(graphs)):
        if held >= size:
            found.append([])
            held = 0
        found[-1].append(graphs[number])
        held += len(graphs[number].target)
    return found


# ---- training -------------------------------------------------------------------------------------------


def train(
    data: str | os.PathLike[str] | Sequence[Scene],
    out: str | os.PathLike[str],
    *,
    part: str = "all",
    detections: str | None = None,
    levels: Sequence[Level] = LEVELS,
    network: Mapping[str, Any] | None = None,
    copies: int = 14,
    epochs: int | Sequence[int] = EPOCHS,
    batch: int = 6000,
    lr: float = 2e-3,
    pos_weight: float = 3.0,
    focal: float = 0.0,
    low: float = 0.1,
    high: float = 0.6,
    start: float = 0.75,
    seed: int = 0,
    resume: bool = False,
    progress: Callable[[str], None] | None = None,
) -> Trained:
    """Trains a network for :func:`cv3gpu.mot.track`, each level on what the levels before it have joined.

    Parameters
    ----------
    data : path of a folder, or sequences
        Sequences as MOTChallenge has them, see :func:`read_sequences`.
    out : path of a folder, made where it is not there
        Gets ``model.safetensors``, ``curves.csv`` and ``state.pt``, from which ``resume`` goes on; after each epoch.
    part, detections : see :func:`read_sequences`
    levels : sequence of Level
    network : mapping, optional
        Arguments of `cv3gpu.nn.models.mpn_tracker` that differ from those of the network that is shipped.
    copies : int
        Randomly changed copies of each sequence, beside the sequence as it is.
    epochs : int, or one for each level
    batch : int
        Links that a step of the optimiser sees, at least; fewer where an epoch would have less than 16 steps.
    lr : float
        Of Adam, after a warm-up of 50 steps falling to 0.
    pos_weight : float
        Weight of links that hold.
    focal : float
        Exponent of the focal loss.
    low, high, start : float
        Thresholds of scores, kept with the network: see :func:`cv3gpu.mot.track`.
    seed : int
    resume : bool
        Goes on where an earlier training into ``out`` has stopped; its settings must be the same.
    progress : callable, optional
        Called with a word on each epoch as it begins.

    Returns
    -------
    Trained
        The path of ``model.safetensors``, and the rows of ``curves.csv``: loss, precision and recall of each epoch.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as said above; a file that is malformed raises `cv3gpu.errors.DataFormatError`.
    DivergedError
        If the loss is no longer finite.
    Interrupted
        If the user has asked to stop; the state is saved then.

    Notes
    -----
    The same seed gives the same weights, on one thread and one kind of machine, whether or not training was interrupted
    and resumed. The links of a window are those that begin in it; windows lie end to end.
    """
    op = "train"
    asked = _settings(
        op, part=part, levels=levels, network=network, copies=copies, epochs=epochs, batch=batch, lr=lr,
        pos_weight=pos_weight, focal=focal, low=low, high=high, start=start, seed=seed,
    )  # fmt: skip
    sequences = data if isinstance(data, Sequence) and not isinstance(data, str) else None
    if sequences is None:
        sequences = read_sequences(data, part=part, detections=detections, low=low)  # type: ignore[arg-type]
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    run = _Run(folder, asked, progress or (lambda _: None))
    if resume and (folder / "state.pt").exists():
        run.restore()
        if run.level + 1 == len(asked["levels"]) and run.epoch >= asked["epochs"][-1]:
            return Trained(run.write(), run.curves)
    copies_ = [plain(given, camera=camera) for given in sequences for camera in _cameras(given)]
    copies_ += [
        augmented(given, np.random.default_rng([seed, number, copy]), low)
        for number, given in enumerate(sequences)
        for copy in range(asked["copies"])
    ]
    with _training.interruptible() as stop:
        for level in range(len(asked["levels"])):
            run.learn(level, copies_, stop)
            if level + 1 < len(asked["levels"]):
                copies_ = run.lift(level, copies_)
    run.save()
    return Trained(run.write(), run.curves)


def total_epochs(epochs: Sequence[int]) -> int:
    """How many epochs a training has, all levels together, if told so many for all of them or for each; or none."""
    return len(LEVELS) * epochs[0] if len(epochs) == 1 else sum(epochs or EPOCHS)


def _cameras(given: Scene) -> tuple[bool, ...]:
    return (False,) if given.camera is None else (False, True)


def _settings(op: str, **given: Any) -> dict[str, Any]:
    """The settings as JSON can hold them."""
    levels = [level if isinstance(level, Level) else Level(**level) for level in given["levels"]]
    if not levels:
        _check.fail(op, "levels", "be at least one", 0)
    for level in levels:
        if level.window < 2 * level.gap:
            _check.fail(op, "levels", "have windows of at least twice their gap", level)
    epochs = given["epochs"]
    each = [epochs] * len(levels) if isinstance(epochs, int) else list(epochs)[: len(levels)]
    if len(each) != len(levels):
        _check.fail(op, "epochs", f"be one number, or one for each of {len(levels)} levels", repr(epochs))
    network = mpn_tracker(**{**NETWORK, **(given["network"] or {}), "levels": len(levels)}).arguments
    if (network["node_features"], network["edge_features"]) != (_tracklets.NODE_FEATURES, _tracklets.EDGE_FEATURES):
        _check.fail(op, "network", "leave the numbers of features as they are", repr(given["network"]))
    if network["shared"]:
        _check.fail(op, "network", "have weights for each level, as they are trained one after another", "shared=True")
    return {
        "part": _check.choice(op, "part", given["part"], PARTS),
        "levels": [level._asdict() for level in levels],
        "network": network,
        "copies": _check.integer(op, "copies", given["copies"], 0),
        "epochs": [_check.integer(op, "epochs", n, 0) for n in each],
        "batch": _check.integer(op, "batch", given["batch"], 1),
        **{key: _check.real(op, key, given[key], positive=True) for key in ("lr", "pos_weight", "low", "high")},
        "focal": _check.real(op, "focal", given["focal"]),
        "start": _check.real(op, "start", given["start"]),
        "seed": _check.integer(op, "seed", given["seed"], 0),
    }


class _Run:
    """A training in progress."""

    def __init__(self, folder: Path, settings: dict[str, Any], progress: Callable[[str], None]) -> None:
        self.folder, self.settings, self.progress = folder, settings, progress
        torch.manual_seed(settings["seed"])
        self.model = MPNTracker(settings["network"])
        self.levels = [Level(**level) for level in settings["levels"]]
        self.level, self.epoch = 0, 0  # those that are done
        self.optimizer: dict[str, Any] | None = None
        self.curves: list[dict[str, Any]] = []

    def restore(self) -> None:
        """Goes on from the saved state."""
        state = _training.read_state(self.folder / "state.pt")
        where = self.folder / "state.pt"
        try:
            settings = dict(json.loads(state["settings"]))
        except Exception as error:  # a file of another making raises whatever it leads to
            raise DataFormatError(f"{where}: must be a state of this training, got settings {error}") from error
        _training.require_same("train", settings, json.loads(json.dumps(self.settings)))
        try:
            self.model.load_state_dict(state["model"])
            self.level, self.epoch, self.optimizer = state["level"], state["epoch"], state["optimizer"]
            self.curves = list(state["curves"])
        except Exception as error:  # as above
            raise DataFormatError(f"{where}: must be a state of this training, got {error}") from error

    def save(self) -> None:
        """Writes the state, the curves and the network."""
        state = {
            "settings": json.dumps(self.settings),
            "model": self.model.state_dict(),
            "level": self.level,
            "epoch": self.epoch,
            "optimizer": self.optimizer,
            "curves": self.curves,
        }
        _training.write_state(self.folder / "state.pt", state)
        _training.write_metrics(self.folder / "curves.csv", self.curves)
        self.write()

    def write(self) -> Path:
        """Writes the network with the settings of its tracker."""
        s = self.settings
        config = {"model": "mpn_tracker", "arguments": s["network"]}
        config |= {key: s[key] for key in ("levels", "low", "high", "start")}
        path = self.folder / "model.safetensors"
        _weights.write(path, _training.arrays_of(self.model), config)
        return path

    def solver(self) -> Solver:
        """The network as inference uses it."""
        return load_solver(self.write())

    def learn(self, level: int, copies: Sequence[Copy], stop: Any) -> None:
        """Trains one level, or what is left of it."""
        epochs = self.settings["epochs"][level]
        if level < self.level or (level == self.level and self.epoch >= epochs):
            return
        s = self.settings
        graphs = [graph for copy in copies for graph in _graphs(copy, self.levels[level], s["high"])]
        if not graphs:
            return
        parameters = list(self.model.blocks[level].parameters())
        optimizer = torch.optim.Adam(parameters, s["lr"], weight_decay=DECAY)
        if level > self.level:
            self.level, self.epoch, self.optimizer = level, 0, None
        if self.optimizer is not None:
            optimizer.load_state_dict(self.optimizer)
        else:
            whole = _joined(graphs)
            self.model.normalise(level, torch.from_numpy(whole.nodes), torch.from_numpy(whole.edges))
        size = min(s["batch"], sum(len(graph.target) for graph in graphs) // STEPS)
        steps = len(_batches(graphs, size, np.random.default_rng(0)))
        for epoch in range(self.epoch, epochs):
            self.progress(f"level {level + 1}, epoch {epoch + 1}")
            began, sums = time.perf_counter(), np.zeros(5)
            batches = _batches(graphs, size, np.random.default_rng([s["seed"], level, epoch]))
            for number, part in enumerate(batches):
                # Orders differ from epoch to epoch, and so may the number of batches, by little.
                done = min(epoch * steps + number, epochs * steps - 1)
                optimizer.param_groups[0]["lr"] = s["lr"] * _training.poly(done, epochs * steps, WARMUP)
                sums += self._step(optimizer, parameters, _joined(part), level, epoch, number)
            self.epoch, self.optimizer = epoch + 1, optimizer.state_dict()
            loss, right, said, held, links = sums.tolist()
            self.curves.append(
                {
                    "level": level + 1,
                    "epoch": epoch + 1,
                    "loss": loss / links,
                    "precision": right / max(1.0, said),
                    "recall": right / max(1.0, held),
                    "seconds": time.perf_counter() - began,
                }
            )
            self.save()
            if stop.raised:
                raise _training.Interrupted(f"training was stopped after {self.progress_word()}")

    def progress_word(self) -> str:
        """Where training stands."""
        return f"level {self.level + 1}, epoch {self.epoch}"

    def _step(
        self, optimizer: Any, parameters: Sequence[Any], graph: Graph, level: int, epoch: int, number: int
    ) -> Array:
        """One step of the optimiser; loss, true, claimed, held and known links."""
        target, known = torch.from_numpy(graph.target), torch.from_numpy(graph.known)
        logits = self.model(
            torch.from_numpy(graph.nodes), torch.from_numpy(graph.edges), torch.from_numpy(graph.links),
            time=torch.from_numpy(graph.time), level=level, every=True,
        )  # fmt: skip
        s = self.settings
        loss = link_loss(logits, target, pos_weight=s["pos_weight"], weight=known, focal=s["focal"])
        _training.check_finite(loss.item(), epoch + 1, number)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, CLIP)
        optimizer.step()
        said = (logits[-1].detach().mean(0) > 0) & known
        count = len(target)
        sums = loss.item() * count, (said & target).sum().item(), said.sum().item(), target.sum().item(), count
        return np.asarray(sums, np.float64)

    def lift(self, level: int, copies: Sequence[Copy]) -> list[Copy]:
        """The copies as the next level sees them."""
        solver = self.solver()
        return [copy._replace(label=link(solver, copy.rows, copy.label, level).label) for copy in copies]
