"""``cv3gpu train``: networks for segmentation and tracking."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from ..errors import BackendUnavailableError, DataFormatError
from ._shared import (
    FAILURE,
    FILE,
    NO_GPU,
    Size,
    data_errors,
    device_option,
    fail,
    folder_option,
    json_option,
    not_negative,
    number_option,
    print_files,
    print_json,
    print_table,
    progress,
    seed_option,
)

__all__ = ["ASKED_OF_TRAINING", "NETWORKS", "train_group", "train_mpn", "train_seg"]

NETWORKS = (  # the library's own list, which a test compares
    "deeplabv1",
    "deeplabv2",
    "deeplabv3",
    "deeplabv3plus",
    "fcn16s",
    "fcn32s",
    "fcn8s",
    "fcn_resnet",
    "pspnet",
    "refinenet",
    "segnet",
    "unet",
)
ASKED_OF_TRAINING = ("epochs", "batch", "accumulate", "optimizer", "lr", "weight_decay", "warmup", "seed", "precision")


@click.group("train", epilog="Example:  cv3gpu train seg --data CamVid.zip --model unet --out unet-out")
def train_group() -> None:
    """Train networks."""


def _need_torch() -> None:
    if importlib.util.find_spec("torch") is None:
        raise BackendUnavailableError("train: training needs torch; pip install 'cv3gpu[torch]'")


def _torch_device(device: str) -> None:
    """Ends the command with 4 where torch sees no such device."""
    if device == "cuda" and not importlib.import_module("torch").cuda.is_available():
        click.echo("cv3gpu train: --device cuda needs a GPU that torch sees, and there is none", err=True)
        raise click.exceptions.Exit(NO_GPU)


@contextlib.contextmanager
def _usage_errors() -> Iterator[None]:
    """Turns what is wrong with the arguments, and not with the data, into an error of usage."""
    try:
        yield
    except DataFormatError:
        raise
    except (TypeError, ValueError) as error:
        raise click.UsageError(str(error)) from error


def _arguments(context: click.Context, parameter: click.Parameter, given: tuple[str, ...]) -> dict[str, Any]:
    """``NAME=VALUE`` as a mapping; a value that is no JSON is a word."""
    found = {}
    for one in given:
        name, equals, value = one.partition("=")
        if not equals or not name.isidentifier():
            raise click.BadParameter(f"{one!r} is not NAME=VALUE.")
        try:
            found[name] = json.loads(value)
        except json.JSONDecodeError:
            found[name] = value
    return found


@train_group.command(
    "seg", epilog="Example:  cv3gpu train seg --data CamVid.zip --ignore 11 --model unet --width 16 --out unet-out"
)
@click.option(
    "--data", required=True, type=click.Path(exists=True, path_type=Path), help="Folder or zip file in CamVid's layout."
)
@click.option("--model", type=click.Choice(NETWORKS), default="unet", show_default=True, help="The network.")
@click.option("--width", type=click.IntRange(4), help="Channels of its first layer; default: the published width.")
@click.option(
    "--argument",
    "arguments",
    multiple=True,
    callback=_arguments,
    metavar="NAME=VALUE",
    help="Another argument of the network, such as output_stride=8; may be given several times.",
)
@click.option("--size", type=Size(), default="180x240", show_default=True, metavar="HxW", help="Images are resized to.")
@click.option("--classes", type=click.IntRange(1, 256), help="How many; default: those of the training labels.")
@click.option("--ignore", type=click.IntRange(0, 255), default=255, show_default=True, help="Label that is no class.")
@click.option("--names", metavar="A,B,...", help="Names of the classes, between commas.")
@click.option("--epochs", type=click.IntRange(1), default=60, show_default=True, help="How often each image is shown.")
@click.option("--batch", type=click.IntRange(1), default=8, show_default=True, help="Images at a time.")
@click.option("--accumulate", type=click.IntRange(1), default=1, show_default=True, help="Batches of a step.")
@click.option("--optimizer", type=click.Choice(["sgd", "adam"]), default="sgd", show_default=True, help="The steps.")
@number_option("--lr", 0.05, "Learning rate at its highest; it falls to 0 by the poly schedule.")
@number_option("--weight-decay", 5e-4, "Of weights, not of biases and norms.", not_negative)
@click.option("--warmup", type=click.IntRange(0), default=20, show_default=True, help="Steps in which the rate rises.")
@click.option("--class-weights", is_flag=True, help="Weigh classes in the loss by median frequency.")
@click.option(
    "--precision",
    type=click.Choice(["float32", "bfloat16", "float16"]),
    default="float32",
    show_default=True,
    help="Of autocast; float16 on a GPU only.",
)
@click.option(
    "--batch-norm",
    type=click.Choice(["local", "frozen", "sync"]),
    default="local",
    show_default=True,
    help="Statistics of a process's batch, the running ones, or those of all processes (GPUs).",
)
@click.option(
    "--backend",
    type=click.Choice(["cv3gpu", "torch"]),
    default="cv3gpu",
    show_default=True,
    help="Our kernels, or torch's own, to compare.",
)
@click.option("--init-from", type=FILE, help="Weights to begin with, by name: FCN-32s's for FCN-16s.")
@click.option("--resume", is_flag=True, help="Go on with the training in --out, if there is one.")
@seed_option
@click.option("--workers", type=click.IntRange(0), default=0, show_default=True, help="Processes that read images.")
@folder_option("train-out")
@device_option
@json_option
def train_seg(data: Path, out: Path, **options: Any) -> None:
    """Train a segmentation network.

    DATA holds folders train, val and test of images, and trainannot, valannot and testannot of label pictures of the
    same names. Writes best.safetensors (weights of the epoch with the best mIoU on val; `cv3gpu segment net` reads
    them), last.safetensors, metrics.csv, curves.png and state.pt. Prints the figures of each epoch and, where there is
    a folder test, those of the best weights on it, at the size of its labels.

    Ctrl-C saves the state; --resume goes on from it, with the same bits on a CPU with one thread. Several processes
    start with torchrun: torchrun --nproc-per-node 2 -m cv3gpu train seg ...

    Exit code 1 if the loss is no longer finite or the training was stopped, 3 if a file is malformed, 4 if --device
    cuda finds no GPU.
    """
    _need_torch()
    from .. import viz
    from ..nn import _training, segmentation_data, train_seg

    viz.require()
    _torch_device(options["device"])
    arguments = options["arguments"] | ({"base_channels": options["width"]} if options["width"] else {})
    names = [name.strip() for name in options["names"].split(",")] if options["names"] else None
    recipe = train_seg.Recipe(
        model=options["model"],
        arguments=arguments,
        size=options["size"],
        num_classes=options["classes"],
        ignore_index=options["ignore"],
        names=names,
        class_weights=options["class_weights"],
        batch_norm=options["batch_norm"],
        backend=options["backend"],
        **{name: options[name] for name in ASKED_OF_TRAINING},
    )
    where = {name: options[name] for name in ("init_from", "resume", "device", "workers")}
    try:
        with data_errors(), _usage_errors(), progress("train", recipe.epochs) as begin:
            result = train_seg.train(data, out, recipe, begin=begin, **where)
            scores, first = None, os.environ.get("RANK", "0") == "0"
            if first and segmentation_data.opened(data).names("test"):
                choices: dict[str, Any] = {"backend": recipe.backend, "batch": recipe.batch}
                scores, _ = train_seg.score(data, result.weights, device=options["device"], **choices)
    except (_training.Interrupted, _training.DivergedError) as error:
        fail(error, FAILURE)
    if not first:
        return
    panels = {"loss": ["loss"], "validation": ["mIoU", "pixel_accuracy", "class_accuracy"], "learning rate": ["lr"]}
    viz.save(viz.curves_figure(result.rows, panels, title=recipe.model), out / "curves.png")
    files = [out / name for name in ("best.safetensors", "last.safetensors", "metrics.csv", "curves.png", "state.pt")]
    if options["as_json"]:
        told = {"best_epoch": result.best_epoch, "taken": len(result.taken), "rows": _plain(result.rows)}
        test = None if scores is None else _plain(scores._asdict())
        print_json({"settings": recipe.settings(), **told, "test": test, "files": list(map(str, files))})
        return
    cells = [[f"{v:.4g}" if isinstance(v, float) else str(v) for v in row.values()] for row in result.rows]
    print_table(list(result.rows[0]), cells, right=range(len(result.rows[0])))
    click.echo(f"\nbest epoch: {result.best_epoch}")
    if scores is not None:
        of_all = f"mIoU {scores.mean_iou:.4f}, pixels {scores.pixel_accuracy:.4f}, classes {scores.class_accuracy:.4f}"
        click.echo(f"test: {of_all}")
    print_files(files)


@train_group.command("mpn", epilog="Example:  cv3gpu train mpn --data MOT17/train --part first --out mpn-out")
@click.option(
    "--data", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path), help="Folder of sequences."
)
@click.option(
    "--part",
    type=click.Choice(["all", "first", "second"]),
    default="all",
    show_default=True,
    help="Frames to learn from: all, or one half of each sequence.",
)
@click.option("--detections", metavar="NAME", help="Name of the file in det; default: the only one.")
@click.option("--copies", type=click.IntRange(0), default=14, show_default=True, help="Changed copies of each one.")
@click.option(
    "--epochs", type=click.IntRange(1), multiple=True, help="For all levels, or given once for each of the three."
)
@click.option("--batch", type=click.IntRange(1), default=6000, show_default=True, help="Links at a time, at least.")
@number_option("--lr", 2e-3, "Learning rate at its highest.")
@number_option("--pos-weight", 3.0, "Weight of links that hold.")
@number_option("--focal", 0.0, "Exponent of the focal loss; 0 for cross-entropy.", not_negative)
@click.option("--resume", is_flag=True, help="Go on with the training in --out, if there is one.")
@seed_option
@folder_option("train-out")
@json_option
def train_mpn(data: Path, out: Path, epochs: tuple[int, ...], **options: Any) -> None:
    """Train the neural solver for tracking.

    DATA holds sequences as MOTChallenge has them: <seq>/gt/gt.txt, detections in <seq>/det/*.txt (without them the
    boxes of the ground truth are learned from), and the motion of the camera in <seq>/gmc.txt where it is known.
    Writes model.safetensors, which `cv3gpu track --weights` reads, curves.csv, curves.png and state.pt. Prints loss,
    precision and recall of each level's last epoch.

    Ctrl-C saves the state; --resume goes on from it.

    Exit code 1 if the loss is no longer finite or the training was stopped, 3 if a file is malformed.
    """
    _need_torch()
    from .. import viz
    from ..nn import _training, train_mpn

    viz.require()
    as_json = options.pop("as_json")
    if epochs:
        options["epochs"] = epochs[0] if len(epochs) == 1 else epochs
    try:
        with data_errors(), _usage_errors(), progress("train", train_mpn.total_epochs(epochs)) as begin:
            result = train_mpn.train(data, out, progress=begin, **options)
    except (_training.Interrupted, _training.DivergedError) as error:
        fail(error, FAILURE)
    rows = [{"step": number + 1, **row} for number, row in enumerate(result.curves)]
    panels = {"loss": ["loss"], "links": ["precision", "recall"]}
    viz.save(viz.curves_figure(rows, panels, x="step", title="epochs of all levels"), out / "curves.png")
    files = [out / name for name in ("model.safetensors", "curves.csv", "curves.png", "state.pt")]
    if as_json:
        print_json({"rows": _plain(rows), "files": list(map(str, files))})
        return
    last = list({row["level"]: row for row in result.curves}.values())
    cells = [[f"{v:.4g}" if isinstance(v, float) else str(v) for v in row.values()] for row in last]
    print_table(list(last[0]), cells, right=range(len(last[0])))
    print_files(files)


def _plain(value: Any) -> Any:
    """For JSON, which has no NaN: what is not finite is null."""
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
