"""Networks trained from scratch on CamVid, our kernels against torch's: ``python -m bench.camvid --data CamVid.zip``.

DATA is a folder or a zip file with ``train``, ``val`` and ``test`` of street scenes, labels 0-10, 11 ignored. Every
network is trained on the same images for the same number of epochs, once by our kernels and once by torch's own
operators, from the same initial weights; the weights of the epoch with the best mIoU on ``val`` are scored on ``test``,
at the size of its labels (360 x 480), of which the networks see images a third as large. Widths suit two CPU cores.

The whole table takes hours. A run that is finished is a line in ``bench/results/camvid.csv`` and is not made again; one
that ``--minutes`` or Ctrl-C stopped goes on, with the same bits, where it was.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

import cv3gpu
from cv3gpu import _weights
from cv3gpu.nn import _training, segmentation_data, train_seg

RESULTS = Path(__file__).parent / "results" / "camvid.csv"
CLASSES = (
    "sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist",
)  # fmt: skip
IGNORED = 11
SIZE, LABELS = (120, 160), (360, 480)
BACKENDS = ("cv3gpu", "torch")
SGD, ADAM = {"optimizer": "sgd", "lr": 0.05}, {"optimizer": "adam", "lr": 1e-3}

# Arguments of the networks, and how they are trained: FCN, which has no batch norm, by Adam.
MODELS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "unet": ({"base_channels": 12}, SGD),
    "segnet": ({"base_channels": 12}, SGD),
    "fcn8s": ({"base_channels": 8, "padding": "same", "dropout": 0.2}, ADAM),
    "deeplabv3plus": ({"base_channels": 16, "backbone": "resnet18"}, SGD),
}


class Plan(NamedTuple):
    """One training: its name in the table, how it goes, and what makes the network where that is no plain model."""

    name: str
    recipe: train_seg.Recipe
    make: Callable[[int], torch.nn.Module] | None = None

    @property
    def key(self) -> tuple[str, ...]:
        """What tells it from other lines of the table."""
        recipe = self.recipe
        return self.name, recipe.backend, str(recipe.seed), str(recipe.epochs), "x".join(map(str, recipe.size))


KEY = ("name", "backend", "seed", "epochs", "size")
FIGURES = ("mean_iou", "pixel_accuracy", "class_accuracy")


def recipe_of(model: str, epochs: int, seed: int, backend: str, size: tuple[int, int] = SIZE) -> train_seg.Recipe:
    """How one of the networks is trained."""
    arguments, steps = MODELS[model]
    common: dict[str, Any] = {"num_classes": len(CLASSES), "ignore_index": IGNORED, "names": CLASSES, "size": size}
    return train_seg.Recipe(
        model=model, arguments=arguments, epochs=epochs, seed=seed, backend=backend, **steps, **common
    )


def finished(results: Path) -> list[dict[str, str]]:
    """The lines of the table so far."""
    if not results.exists():
        return []
    with open(results, newline="") as file:
        return list(csv.DictReader(file))


def carry_out(plans: Sequence[Plan], data: Path, work: Path, results: Path, minutes: float | None) -> bool:
    """Makes the runs that are not in the table, one after the other; whether all are done.

    Between two epochs the time is looked at; what is not finished by then is left in ``work``.
    """
    ends = None if minutes is None else time.monotonic() + 60 * minutes
    for plan in plans:
        if plan.key in {tuple(row[name] for name in KEY) for row in finished(results)}:
            continue

        def begin(line: str, plan: Plan = plan) -> None:
            print(f"{time.strftime('%H:%M:%S')} {' '.join(plan.key)}: {line}", flush=True)
            if ends is not None and time.monotonic() > ends:
                raise _TimeIsUp

        out = work / "-".join(plan.key)
        work.mkdir(parents=True, exist_ok=True)
        try:
            result = train_seg.train(data, out, plan.recipe, make=plan.make, resume=True, begin=begin)
        except (_TimeIsUp, _training.Interrupted):
            return False
        scores, confusion = train_seg.score(data, result.weights, make=plan.make, backend=plan.recipe.backend)
        print(f"{' '.join(plan.key)}: test mIoU {scores.mean_iou:.4f}", flush=True)
        minutes_taken = sum(row["seconds"] for row in result.rows) / 60
        add_row(results, _row(plan, scores, confusion, result, minutes_taken))
    return True


class _TimeIsUp(Exception):
    """The state was saved at the end of the epoch before."""


def _row(plan: Plan, scores: train_seg.Scores, confusion: np.ndarray, result: Any, minutes: float) -> dict[str, Any]:
    arrays, _ = _weights.read(result.weights)
    weights = sum(a.size for name, a in arrays.items() if not name.endswith(("running_mean", "running_var", "tracked")))
    return {
        **dict(zip(KEY, plan.key, strict=True)),
        **{name: f"{getattr(scores, name):.5f}" for name in FIGURES},
        "best_epoch": result.best_epoch,
        "val_mean_iou": f"{result.best_mean_iou:.5f}",
        "last_loss": f"{result.rows[-1]['loss']:.5f}",
        "parameters": weights,
        "minutes": f"{minutes:.1f}",
        "class_iou": " ".join(f"{v:.4f}" for v in scores.class_iou),
        "pixels": int(confusion.sum()),
        "arguments": json.dumps(dict(plan.recipe.arguments), sort_keys=True),
    }


def add_row(results: Path, row: dict[str, Any]) -> None:
    """One line more."""
    rows: list[dict[str, Any]] = [*finished(results), row]
    _training.write_metrics(results, rows)


# ---- baselines ------------------------------------------------------------------------------------------


def baselines(data: Path) -> Iterator[tuple[str, train_seg.Scores]]:
    """What needs no network: the commonest class; that of each colour; that of each colour and row of the image."""
    source = segmentation_data.opened(data)
    train, test = (segmentation_data.read_split(source, split, LABELS) for split in ("train", "test"))
    for name, bins in (("majority class", _nothing), ("colour histogram", _colour), ("colour and row", _colour_row)):
        counts = np.zeros(_MOST * len(CLASSES), np.int64)
        for image, label in zip(train.images, train.labels, strict=True):
            known = label != IGNORED
            where = bins(image)[known].astype(np.int64) * len(CLASSES) + label[known]
            counts += np.bincount(where, minlength=len(counts))
        table = counts.reshape(_MOST, len(CLASSES))
        seen = table.sum(1) > 0
        best = np.where(seen, table.argmax(1), table.sum(0).argmax())
        confusion = np.zeros((len(CLASSES), len(CLASSES)), np.int64)
        for image, label in zip(test.images, test.labels, strict=True):
            confusion += cv3gpu.confusion_matrix(best[bins(image)], label, len(CLASSES), IGNORED)
        yield name, train_seg.scores_of(confusion)


_LEVELS, _ROWS = 16, 12
_MOST = _LEVELS**3 * _ROWS


def _nothing(image: np.ndarray) -> np.ndarray:
    return np.zeros(image.shape[:2], np.int64)


def _colour(image: np.ndarray) -> np.ndarray:
    level = image.astype(np.int64) * _LEVELS // 256
    return (level[..., 0] * _LEVELS + level[..., 1]) * _LEVELS + level[..., 2]


def _colour_row(image: np.ndarray) -> np.ndarray:
    row = np.arange(image.shape[0]) * _ROWS // image.shape[0]
    return _colour(image) * _ROWS + row[:, None]


# ---- the table ------------------------------------------------------------------------------------------


def print_table(rows: Sequence[dict[str, str]], plain: Sequence[tuple[str, train_seg.Scores]] = ()) -> None:
    """Means over the seeds, and the spread (greatest less least); per cent."""
    print("| network | layers | seeds | mIoU | pixel accuracy | class accuracy | minutes a run |")
    print("|---|---|---|---|---|---|---|")
    for name, scores in plain:
        print(f"| {name} | | | {' | '.join(f'{100 * getattr(scores, f):.1f}' for f in FIGURES)} | |")
    groups = dict.fromkeys((row["name"], row["backend"], row["epochs"], row["size"]) for row in rows)
    for name, backend, epochs, size in groups:
        key = name, backend, epochs, size
        mine = [row for row in rows if (row["name"], row["backend"], row["epochs"], row["size"]) == key]
        cells = []
        for figure in (*FIGURES, "minutes"):
            values = np.array([float(row[figure]) for row in mine]) * (1 if figure == "minutes" else 100)
            cells.append(f"{values.mean():.1f}" + (f" ({np.ptp(values):.1f})" if len(values) > 1 else ""))
        print(f"| {name}, {epochs} epochs at {size} | {backend} | {len(mine)} | {' | '.join(cells)} |")


def parser_of(text: str | None) -> argparse.ArgumentParser:
    """Options that the tables of trainings share."""
    parser = argparse.ArgumentParser(description=(text or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="CamVid, a folder or a zip file")
    parser.add_argument("--seeds", default="0,1", help="between commas; default: %(default)s")
    parser.add_argument("--epochs", type=int, default=40, help="of every run; default: %(default)s")
    parser.add_argument("--minutes", type=float, help="stop after so many; the next call goes on")
    parser.add_argument("--threads", type=int, help="CPU cores to use; default: all")
    parser.add_argument("--work", type=Path, default=Path("build/camvid"), help="for runs in progress: %(default)s")
    parser.add_argument("--table", action="store_true", help="print the table so far, and make no run")
    return parser


def use_cores(count: int | None) -> None:
    """Keeps torch and our loops to so many cores."""
    if count is not None:
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-count:])
        torch.set_num_threads(count)


def main() -> None:
    """Makes what is missing, and prints the table."""
    parser = parser_of(__doc__)
    parser.add_argument("--models", default=",".join(MODELS), help="between commas; default: %(default)s")
    parser.add_argument("--backends", default=",".join(BACKENDS), help="between commas; default: %(default)s")
    parser.add_argument("--results", type=Path, default=RESULTS, help="default: %(default)s")
    parser.add_argument("--baselines", action="store_true", help="score the baselines, too")
    given = parser.parse_args()
    use_cores(given.threads)
    models, backends = given.models.split(","), given.backends.split(",")
    for name, known in (("models", MODELS), ("backends", BACKENDS)):
        if unknown := set(getattr(given, name).split(",")) - set(known):
            parser.error(f"--{name} must be of {', '.join(known)}, got {', '.join(sorted(unknown))}")
    plans = [
        Plan(model, recipe_of(model, given.epochs, seed, backend))
        for seed in map(int, given.seeds.split(","))
        for model in models
        for backend in backends
    ]
    done = given.table or carry_out(plans, given.data, given.work, given.results, given.minutes)
    print_table(finished(given.results), list(baselines(given.data)) if given.baselines else ())
    if not done:
        print("\nnot all runs are finished: the same command goes on")


if __name__ == "__main__":
    main()
