"""What the parts of the neural solver are worth: ``python -m bench.tracking_ablation --data DIR --out DIR``.

DATA is ``MOT17-yolox``: sequences with ground truth and one file of detections each, or a folder with it. Every network
is trained on the first halves by `cv3gpu.nn.train_mpn`, with the settings of the network that is shipped but for what
is asked about, and followed over the second halves:

* steps of message passing: 0, 1, 3, 6, 12
* time-aware against plain messages
* exact against greedy rounding, of the same network
* levels of the hierarchy: a network of one level that bridges ``GAP`` frames by itself; 1, 2 and 3 levels
* with and without the motion of the camera (``gmc.txt``)

``--mot15 DIR`` trains for the other table instead: for each MOT15 sequence a network of the ten others. Its folder
``leave-one-out`` is what ``python -m bench.tracking_quality --whole --benchmark MOT15 --weights`` takes.

Networks lie in ``--out`` and are taken from there when they are done; training goes on where it has stopped. Results
are added to ``--csv`` line by line. Ratios are percentages; gaps of up to ``FILL`` frames are filled.
"""

from __future__ import annotations

import argparse
import csv
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cv3gpu import mot
from cv3gpu.mot._tracklets import Level
from cv3gpu.mot.neural import read_camera
from cv3gpu.nn import train_mpn

from .entry import RESULTS

STEPS = (0, 1, 3, 6, 12)
GAP = 30  # frames that a network of one level bridges
FILL = 18  # frames, as in ByteTrack's scripts
COLUMNS = ("HOTA", "DetA", "AssA", "MOTA", "IDF1")
COUNTS = ("CLR_FP", "CLR_FN", "IDSW", "Frag")
HEADER = ("table", "network", "seed", *COLUMNS, *COUNTS, "constraints", "fps")


class Scene(NamedTuple):
    """A sequence to be followed."""

    detections: mot.Tracks
    gt: mot.Tracks
    camera: np.ndarray | None


class Variant(NamedTuple):
    """A network, and a way to use it."""

    name: str
    folder: str  # of the network, which several variants may share
    settings: dict[str, Any]  # of training
    use: dict[str, Any]  # of `mot.track`
    camera: bool = False


def variants(seed: int) -> Iterator[Variant]:
    """Those of the table."""
    for steps in STEPS:
        yield Variant(f"{steps} steps", f"steps{steps}-{seed}", {"network": {"steps": steps}}, {})
    yield Variant("5 steps (shipped settings)", f"shipped-{seed}", {}, {})
    yield Variant("not time-aware", f"plain-{seed}", {"network": {"time_aware": False}}, {})
    yield Variant("greedy rounding", f"shipped-{seed}", {}, {"rounding": "greedy"})
    single = Level(gap=GAP, neighbors=40, distance=3.0, window=4 * GAP, threshold=0.7)
    yield Variant(f"one level of {GAP} frames", f"single-{seed}", {"levels": (single,), "epochs": 20, "copies": 4}, {})
    for levels in (1, 2):
        yield Variant(f"first {levels} of 3 levels", f"shipped-{seed}", {}, {"levels": levels})
    yield Variant("motion of the camera known", f"shipped-{seed}", {}, {}, camera=True)


def cut(tracks: mot.Tracks, first: int, identity: np.ndarray | None = None) -> mot.Tracks:
    """The rows from frame ``first`` on, whose frames count from 1 again."""
    some = tracks.frame >= first
    part = tracks[some]
    ids = part.id if identity is None else identity[some]
    return mot.Tracks(part.frame - first + 1, ids, part.box, part.score, part.class_, part.visibility)


def load(folder: Path, second: bool) -> dict[str, Scene]:
    """The sequences of a folder, or their second halves: frames after N // 2 + 1."""
    found = {}
    for path in sorted(folder.glob("*/gt/gt.txt")):
        sequence = path.parent.parent
        (file,) = (sequence / "det").glob("*.txt")
        gt, seen = mot.read(path), mot.read(file)
        last = int(max(gt.frame.max(), seen.frame.max()))
        first = last // 2 + 2 if second else 1
        motion = sequence / "gmc.txt"
        camera = read_camera(motion)[first - 1 : last] if motion.is_file() else None
        nobody = np.full(len(seen), -1)
        found[sequence.name] = Scene(cut(seen, first, nobody), cut(gt, first), camera)
    return found


def follow(
    scenes: dict[str, Scene], weights: dict[str, Path], use: dict[str, Any], camera: bool, benchmark: str
) -> dict[str, float]:
    """The figures of a network, or of one for each sequence, over all sequences together."""
    found, shares, seconds, frames = {}, [], 0.0, 0
    for name, scene in scenes.items():
        motion = scene.camera if camera else None
        begun = time.perf_counter()
        found[name], info = mot.track(
            scene.detections, weights=weights[name], camera=motion, interpolate=FILL, return_info=True, **use
        )
        seconds += time.perf_counter() - begun
        frames += int(max(scene.detections.frame.max(initial=0), scene.gt.frame.max(initial=0)))
        shares.append((info.satisfied, len(scene.detections)))
    gt = {name: scene.gt for name, scene in scenes.items()}
    (figures,) = mot.evaluate(gt, found, benchmark=benchmark).combined.values()
    ratios = {name: 100 * float(np.mean(figures[name])) for name in COLUMNS}
    counts = {name: int(figures[name]) for name in COUNTS}
    constraints = 100 * float(np.average([x[0] for x in shares], weights=[x[1] for x in shares]))
    return {**ratios, **counts, "constraints": constraints, "fps": frames / seconds}


def trained(data: Any, out: Path, seed: int, settings: dict[str, Any], **where: Any) -> Path:
    """The weights of a training, which goes on if it was begun."""

    def tell(word: str) -> None:
        print(f"{out.name}: {word}", file=sys.stderr, flush=True)

    return train_mpn.train(data, out, seed=seed, resume=True, progress=tell, **settings, **where).weights


def add(file: Path, row: dict[str, Any]) -> None:
    """Adds a line, and prints it."""
    new = not file.exists()
    with file.open("a", newline="") as out:
        table = csv.DictWriter(out, HEADER, lineterminator="\n")
        if new:
            table.writeheader()
        table.writerow({k: f"{v:.2f}" if isinstance(v, float) else v for k, v in row.items()})
    print(*(f"{v:.2f}" if isinstance(v, float) else v for v in row.values()), sep="\t", flush=True)


def done(file: Path) -> set[tuple[str, str, str]]:
    """The lines that are there."""
    if not file.exists():
        return set()
    with file.open(newline="") as given:
        return {(row["table"], row["network"], row["seed"]) for row in csv.DictReader(given)}


def ablate(data: Path, out: Path, seeds: Sequence[int], file: Path, only: str | None) -> None:
    """The first table."""
    folder = data / "MOT17-yolox" if (data / "MOT17-yolox").is_dir() else data
    scenes = load(folder, second=True)
    for seed in seeds:
        for variant in variants(seed):
            known = ("ablation", variant.name, str(seed)) in done(file)
            if known or (only is not None and only not in variant.name):
                continue
            weights = trained(folder, out / variant.folder, seed, variant.settings, part="first")
            figures = follow(scenes, dict.fromkeys(scenes, weights), variant.use, variant.camera, "MOT17")
            add(file, {"table": "ablation", "network": variant.name, "seed": seed, **figures})


def leave_one_out(folder: Path, out: Path, seeds: Sequence[int], file: Path) -> None:
    """The second table."""
    scenes = load(folder, second=False)
    learned = train_mpn.read_sequences(folder)
    for seed in seeds:
        if ("MOT15", "leave-one-out", str(seed)) in done(file):
            continue
        weights = {}
        for name in scenes:
            others = [given for given in learned if given.name != name]
            weights[name] = trained(others, out / f"mot15-{name}-{seed}", seed, {})
            kept = out / str(seed) / "leave-one-out" / f"{name}.safetensors"
            kept.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(weights[name], kept)
        figures = follow(scenes, weights, {}, False, "MOT15")
        add(file, {"table": "MOT15", "network": "leave-one-out", "seed": seed, **figures})


def main(arguments: Sequence[str] | None = None) -> int:
    """Trains what is missing, and adds its figures."""
    parser = argparse.ArgumentParser(prog="python -m bench.tracking_ablation", description=__doc__.splitlines()[0])
    option = parser.add_argument
    option("--data", type=Path, help="folder of sequences")
    option("--mot15", type=Path, help="folder of MOT15's sequences, for leave-one-out")
    option("--out", type=Path, required=True, help="folder for networks")
    option("--seeds", type=int, nargs="+", default=[0])
    option("--only", metavar="WORD", help="only networks whose names hold it")
    option("--csv", type=Path, default=RESULTS / "tracking_ablation.csv", help="file to add to")
    chosen: Any = parser.parse_args(arguments)
    if chosen.data is None and chosen.mot15 is None:
        parser.error("one of --data and --mot15 must be given")
    if chosen.data is not None:
        ablate(chosen.data, chosen.out, chosen.seeds, chosen.csv, chosen.only)
    if chosen.mot15 is not None:
        leave_one_out(chosen.mot15, chosen.out, chosen.seeds, chosen.csv)
    return 0


if __name__ == "__main__":
    sys.exit(main())
