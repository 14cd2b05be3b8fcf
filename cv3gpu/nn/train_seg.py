"""Training of segmentation networks: pixelwise cross entropy, SGD and the poly schedule, validation, resuming."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from .. import _check, _files, _weights
from ..errors import DataFormatError
from ..metrics import _ratios, class_accuracy, class_iou, confusion_matrix, mean_iou, pixel_accuracy
from ..upsample import upsample_argmax, upsample_cross_entropy
from . import models
from ._training import (
    Interrupted,
    Processes,
    arrays_of,
    check_finite,
    interruptible,
    load_named,
    poly,
    processes,
    read_state,
    require_same,
    write_metrics,
    write_state,
)
from .models._blocks import Network
from .postprocess import load_network
from .segmentation_data import (
    Augmentation,
    Split,
    TrainingSet,
    batches,
    colour_statistics,
    median_frequency_weights,
    n_classes_of,
    normalised,
    opened,
    order,
    read_split,
)
from .stock import stock

__all__ = ["Recipe", "Result", "Scores", "evaluate", "load", "score", "scores_of", "summed_loss", "train"]

Array = np.ndarray[Any, Any]

OP = "train"
NORMS = torch.nn.modules.batchnorm._BatchNorm
PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}
BEST, LAST, STATE, METRICS = "best.safetensors", "last.safetensors", "state.pt", "metrics.csv"


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What is trained and how; what `train` resumes must have been begun with the same.

    Parameters
    ----------
    model : str
        A function of `cv3gpu.nn.models`.
    arguments : mapping
        Its arguments after ``num_classes``, such as ``{"base_channels": 16}``; what JSON can hold.
    size : (rows, columns)
        Of the images that the network is shown.
    num_classes : int, optional
        Found in the training labels unless given.
    ignore_index : int, 0 to 255
        Pixels of this label have no loss and do not count.
    names : sequence of str, optional
        Of the classes.
    epochs, batch, accumulate : int
        A step takes ``accumulate`` batches of ``batch`` images and has the gradient of one large batch (but for batch
        norm's statistics). What is left of an epoch and fills no step waits for another epoch's order.
    optimizer : {"sgd", "adam"}
        SGD with momentum, or AdamW.
    lr, momentum, weight_decay, power, warmup
        The learning rate rises over ``warmup`` steps, and falls as (1 - share done) ** ``power``. Only weights decay:
        biases and the factors of norms do not.
    seed : int
        Of initial weights, order, augmentation and dropout.
    precision : {"float32", "bfloat16", "float16"}
        Of autocast; ``"float16"``, with scaled gradients, is of GPUs. The loss is in float32.
    class_weights : bool
        Median-frequency weights in the loss.
    aux_weight : float
        Of the loss of an auxiliary head, where the network has one.
    batch_norm : {"local", "frozen", "sync"}
        Statistics of each process's batch; the running ones, unchanged; those of the batch of all processes (GPUs).
    backend : {"cv3gpu", "torch"}
        Our kernels, or torch's own layers with the same weights (`cv3gpu.nn.stock.stock`).
    augmentation : Augmentation

    Examples
    --------
    >>> from cv3gpu.nn.train_seg import Recipe
    >>> recipe = Recipe(model="deeplabv3plus", arguments={"output_stride": 8}, ignore_index=11, epochs=40)
    >>> recipe.optimizer, recipe.settings()["size"]
    ('sgd', [180, 240])
    """

    model: str = "unet"
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    size: tuple[int, int] = (180, 240)
    num_classes: int | None = None
    ignore_index: int = 255
    names: Sequence[str] | None = None
    epochs: int = 60
    batch: int = 8
    accumulate: int = 1
    optimizer: str = "sgd"
    lr: float = 0.05
    momentum: float = 0.9
    weight_decay: float = 5e-4
    power: float = 0.9
    warmup: int = 20
    seed: int = 0
    precision: str = "float32"
    class_weights: bool = False
    aux_weight: float = 0.4
    batch_norm: str = "local"
    backend: str = "cv3gpu"
    augmentation: Augmentation = Augmentation()  # noqa: RUF009 (a tuple)

    def check(self, device: torch.device) -> None:
        """Raises what is wrong with it."""
        if not isinstance(self.model, str):
            _check.fail(OP, "model", "be a name", _check.kind(self.model), error=TypeError)
        if not isinstance(self.arguments, Mapping):
            _check.fail(OP, "arguments", "be a mapping", _check.kind(self.arguments), error=TypeError)
        _check.pair(OP, "size", self.size, 1)
        if self.num_classes is not None:
            _check.integer(OP, "num_classes", self.num_classes, 1, 256)
            if self.names is not None and len(self.names) != self.num_classes:
                _check.fail(OP, "names", f"be {self.num_classes} names", len(self.names))
        _check.integer(OP, "ignore_index", self.ignore_index, 0, 255)
        for name in ("epochs", "batch", "accumulate"):
            _check.integer(OP, name, getattr(self, name), 1)
        for name in ("warmup", "seed"):
            _check.integer(OP, name, getattr(self, name), 0)
        for name in ("lr", "power"):
            _check.real(OP, name, getattr(self, name), positive=True)
        for name, below in (("momentum", 1.0), ("weight_decay", math.inf), ("aux_weight", math.inf)):
            if not 0 <= _check.real(OP, name, getattr(self, name)) < below:
                _check.fail(OP, name, "be 0 or more" + (", less than 1" if below == 1 else ""), getattr(self, name))
        _check.choice(OP, "optimizer", self.optimizer, ("sgd", "adam"))
        _check.choice(OP, "precision", self.precision, tuple(PRECISIONS))
        _check.choice(OP, "batch_norm", self.batch_norm, ("local", "frozen", "sync"))
        _check.choice(OP, "backend", self.backend, ("cv3gpu", "torch"))
        _check.flag(OP, "class_weights", self.class_weights)
        self.augmentation.check(OP)
        if device.type != "cuda":
            for name, value in (("precision", "float16"), ("batch_norm", "sync")):
                if getattr(self, name) == value:
                    _check.fail(OP, name, "be another on a CPU", repr(value))

    def settings(self) -> dict[str, Any]:
        """All of it as numbers, words, lists and dicts."""
        plain = dataclasses.asdict(self)
        lists = {name: list(value) for name, value in plain.items() if isinstance(value, tuple)}
        augmentation = {k: list(v) if isinstance(v, tuple) else v for k, v in self.augmentation._asdict().items()}
        names = None if self.names is None else list(self.names)
        return plain | lists | {"augmentation": augmentation, "arguments": dict(self.arguments), "names": names}


class Scores(NamedTuple):
    """Of a confusion matrix: means over the classes that occur, and each class's intersection over union."""

    mean_iou: float
    pixel_accuracy: float
    class_accuracy: float
    class_iou: list[float]  # NaN for a class that neither labels nor predictions hold


class Result(NamedTuple):
    """What `train` has done."""

    rows: list[dict[str, float]]  # one an epoch, those of the metrics file
    best_epoch: int
    best_mean_iou: float
    taken: list[str]  # parameters and buffers that came from ``init_from``
    weights: Path  # of the best epoch


def scores_of(confusion: Array) -> Scores:
    """The figures of a confusion matrix [num_classes, num_classes], rows: target.

    Examples
    --------
    >>> import numpy as np
    >>> from cv3gpu.nn.train_seg import scores_of
    >>> scores_of(np.array([[3, 1], [0, 4]]))
    Scores(mean_iou=0.775, pixel_accuracy=0.875, class_accuracy=0.875, class_iou=[0.75, 0.8])
    """
    of_classes = class_accuracy(confusion)
    figures = mean_iou(confusion), pixel_accuracy(confusion), _ratios.mean(of_classes)
    return Scores(*figures, [float(v) for v in class_iou(confusion)])


# ---- loss and evaluation --------------------------------------------------------------------------------


def summed_loss(
    logits: Tensor,
    labels: Tensor,
    weight: Tensor | None,
    *,
    ignore_index: int,
    align_corners: bool = False,
    backend: str = "cv3gpu",
) -> Tensor:
    """The cross entropy [] of all pixels that are not ignored, summed.

    Logits smaller than the labels count as enlarged bilinearly: our operator does it without the enlarged logits,
    torch's with them.
    """
    logits = logits.float()
    same = logits.shape[-2:] == labels.shape[-2:]
    if backend == "cv3gpu" and not same:
        options: dict[str, Any] = {"ignore_index": ignore_index, "weight": weight, "reduction": "sum"}
        return upsample_cross_entropy(logits, labels, align_corners=align_corners, **options)
    if not same:
        logits = functional.interpolate(logits, labels.shape[-2:], mode="bilinear", align_corners=align_corners)
    return functional.cross_entropy(logits, labels.long(), weight, ignore_index=ignore_index, reduction="sum")


def _predicted(logits: Tensor, size: tuple[int, int], align_corners: bool, backend: str) -> Tensor:
    if backend == "cv3gpu":
        return upsample_argmax(logits.float(), size, align_corners=align_corners)
    return functional.interpolate(logits.float(), size, mode="bilinear", align_corners=align_corners).argmax(1)


def _how_to_call(network: torch.nn.Module) -> tuple[dict[str, Any], bool]:
    """The keywords that give a network's logits at its own resolution, and the corners of their enlargement."""
    if isinstance(network, Network):
        return {"upsample": False}, network.align_corners
    return {}, False


def evaluate(
    network: torch.nn.Module,
    split: Split,
    config: Mapping[str, Any],
    *,
    batch: int = 8,
    precision: str = "float32",
    backend: str = "cv3gpu",
    group: Processes | None = None,
) -> Array:
    """Confusion matrix [num_classes, num_classes], int64, of a network on a part of a data set.

    Parameters
    ----------
    network : torch.nn.Module
        It is evaluated in eval mode, and left in the mode in which it was.
    split : Split
        Labels at a size of their own are predicted at it: the logits are enlarged.
    config : mapping
        With ``num_classes``, ``ignore_index``, ``mean`` and ``std``, as a file of weights holds it.
    batch, precision, backend
        As in `Recipe`; they change rounding alone.
    group : Processes, optional
        Each takes its share of the images, and all get the matrix of all.
    """
    group = group or Processes()
    device = next(network.parameters()).device
    n_classes, ignore = config["num_classes"], config["ignore_index"]
    total = torch.zeros((n_classes, n_classes), dtype=torch.int64)
    keywords, corners = _how_to_call(network)
    was_training = network.training
    network.eval()
    mine = range(group.rank, len(split), group.count)
    try:
        with torch.inference_mode():
            for begin in range(0, len(mine), batch):
                part = mine[begin : begin + batch]
                images = np.stack([normalised(split.images[i], config["mean"], config["std"]) for i in part])
                x = torch.from_numpy(images).to(device).permute(0, 3, 1, 2)
                with _autocast(device, precision):
                    logits = network(x, **keywords)
                for i, one in zip(part, logits, strict=True):
                    label = split.labels[i]
                    found = _predicted(one[None], (label.shape[0], label.shape[1]), corners, backend)[0]
                    total += confusion_matrix(found, torch.from_numpy(label).to(device), n_classes, ignore).cpu()
    finally:
        network.train(was_training)
    matrix: Array = group.total(total.to(device)).cpu().numpy()
    return matrix


def _autocast(device: torch.device, precision: str) -> Any:
    dtype = PRECISIONS[precision]
    return contextlib.nullcontext() if dtype is None else torch.autocast(device.type, dtype)


# ---- files ----------------------------------------------------------------------------------------------


def load(
    path: str | os.PathLike[str],
    *,
    make: Callable[[int], torch.nn.Module] | None = None,
    backend: str = "cv3gpu",
) -> tuple[torch.nn.Module, dict[str, Any]]:
    """The network that a file of weights holds, in eval mode, and the file's config.

    Parameters
    ----------
    path : path
        Written by `train`.
    make : callable, optional
        Makes the network of so many classes, where it is none of `cv3gpu.nn.models`.
    backend : {"cv3gpu", "torch"}

    Raises
    ------
    DataFormatError
        The file is of another kind, or its arrays do not fit the network that it names.
    """
    if make is None:
        network, config = load_network(path)
    else:
        arrays, config = _weights.read(path)
        try:
            network = make(config["num_classes"])
            network.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()})
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            raise DataFormatError(f"{os.fspath(path)}: must hold a network and its weights, got {error}") from error
    return (stock(network) if backend == "torch" else network).eval(), config


def _made(model: str, num_classes: int, arguments: Mapping[str, Any]) -> torch.nn.Module:
    known = sorted(name for name in models.__all__ if not name.startswith("mpn"))
    _check.choice(OP, "model", model, known)
    network: torch.nn.Module = getattr(models, model)(num_classes, **arguments)
    return network


def score(
    data: str | os.PathLike[str],
    weights: str | os.PathLike[str],
    *,
    split: str = "test",
    make: Callable[[int], torch.nn.Module] | None = None,
    backend: str = "cv3gpu",
    device: str = "cpu",
    batch: int = 8,
) -> tuple[Scores, Array]:
    """Figures and confusion matrix of a file of weights on a part of a data set, at the size of its labels."""
    network, config = load(weights, make=make, backend=backend)
    if not {"size", "ignore_index"} <= config.keys():
        raise DataFormatError(f"{os.fspath(weights)}: config must have size and ignore_index, as train writes them")
    part = read_split(opened(data), split, tuple(config["size"]), own_labels=True)
    n_classes_of(part, config["ignore_index"], config["num_classes"])
    confusion = evaluate(network.to(torch.device(device)), part, config, batch=batch, backend=backend)
    return scores_of(confusion), confusion


# ---- training -------------------------------------------------------------------------------------------


def train(
    data: str | os.PathLike[str],
    out: str | os.PathLike[str],
    recipe: Recipe,
    *,
    make: Callable[[int], torch.nn.Module] | None = None,
    init_from: str | os.PathLike[str] | None = None,
    resume: bool = False,
    device: str = "cpu",
    workers: int = 0,
    begin: Callable[[str], None] | None = None,
) -> Result:
    """Trains a network on a data set of images and labels.

    Parameters
    ----------
    data : path
        A folder or a zip file in CamVid's layout, see `cv3gpu.nn.segmentation_data`. Without ``val`` the last epoch
        counts as the best.
    out : path
        Folder for ``best.safetensors`` and ``last.safetensors`` (weights, with a config in their header),
        ``metrics.csv`` and ``state.pt`` (what a training resumes from); it is made in one that exists.
    recipe : Recipe
    make : callable, optional
        Makes the network of so many classes, instead of ``recipe.model``.
    init_from : path, optional
        Weights to begin with: those of the same name and shape. The stages of FCN are trained so, FCN-16s from FCN-32s
        and FCN-8s from FCN-16s, each with a smaller learning rate; what a stage adds to the scores begins with zeros.
    resume : bool
        Go on where a training in ``out`` stopped; where there is none, begin. Else a training in ``out`` is refused.
    device : str
        ``"cpu"``, ``"cuda"``, or ``"cuda:1"``; under ``torchrun`` ``"cuda"`` is the process's own GPU.
    workers : int
        Processes that decode and augment; 0: this one.
    begin : callable, optional
        Called with a line of text as each epoch begins.

    Returns
    -------
    Result
        ``rows``: for each epoch ``epoch``, ``loss`` (mean over the pixels), ``lr`` (of the last step), ``mIoU``,
        ``pixel_accuracy`` and ``class_accuracy`` on ``val`` at the size of its labels, ``seconds``.

    Raises
    ------
    DivergedError
        The loss is not finite.
    Interrupted
        Ctrl-C, or SIGTERM: the state was saved, and ``resume=True`` goes on from it.
    DataFormatError
        The data, or a file in ``out``, is malformed.
    ValueError, TypeError
        An argument is wrong, or a training is resumed with another recipe.

    Notes
    -----
    A training that was stopped and resumed ends with the same bits as one that was not, on a CPU with one thread and
    wherever else the layers are deterministic: what is random depends on seed, epoch and step alone.

    Started by ``torchrun``, the processes share each batch without overlap, and the loss is divided by the weight of
    all their pixels: gradients are those of one process, where ``batch_norm`` is ``"frozen"`` or ``"sync"``; with
    ``"local"`` each normalises by its own part.

    References
    ----------
    L.-C. Chen et al., "DeepLab", PAMI 2018, section 4.1 (the poly schedule). J. Long, E. Shelhamer, T. Darrell, "Fully
    convolutional networks for semantic segmentation", CVPR 2015, section 4.3 (stages).
    """
    place = torch.device(device)
    if place.type not in ("cpu", "cuda"):
        _check.fail(OP, "device", "be a CPU or a CUDA device", repr(device))
    recipe.check(place)
    _check.integer(OP, "workers", workers, 0)
    if place.type == "cuda" and place.index is None and "LOCAL_RANK" in os.environ:
        place = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(place)
    for name, value in (("data", data), ("out", out), ("init_from", init_from)):
        if value is not None:
            _files.path(OP, name, value)
    with processes(place) as group, torch.random.fork_rng([place] if place.type == "cuda" else []):
        run = _Run(Path(out), recipe, place, group)
        run.read(data, workers)
        run.build(make)
        taken: list[str] = []
        if not (resume and run.resumed()) and init_from is not None:
            taken = run.initialise(Path(init_from))
        with interruptible() as flag:
            run.go(lambda: group.any(flag.raised, place), begin or (lambda line: None))
    return Result(run.rows, run.best_epoch, run.best, taken, run.out / BEST)


class _Run:
    """One training: what is read, built, and changes from step to step."""

    def __init__(self, out: Path, recipe: Recipe, device: torch.device, group: Processes) -> None:
        self.out, self.recipe, self.device, self.group = out, recipe, device, group
        if recipe.batch % group.count:
            _check.fail(OP, "batch", f"be a multiple of the number of processes ({group.count})", recipe.batch)
        self.rows: list[dict[str, float]] = []
        self.epoch, self.step = 0, 0  # the next ones
        self.loss_sum, self.share_sum, self.seconds = 0.0, 0.0, 0.0  # of the epoch so far
        self.best, self.best_epoch = -math.inf, 0

    # -- before

    def read(self, data: str | os.PathLike[str], workers: int) -> None:
        """The data, and the config that goes with the weights."""
        recipe, source = self.recipe, opened(data)
        split = read_split(source, "train", recipe.size)
        n_classes = n_classes_of(split, recipe.ignore_index, recipe.num_classes)
        if recipe.names is not None and len(recipe.names) != n_classes:
            _check.fail(OP, "names", f"be {n_classes} names", len(recipe.names))
        self.steps = len(split) // (recipe.batch * recipe.accumulate)
        if self.steps == 0:
            wanted = f"be at most the {len(split)} images, times accumulate"
            _check.fail(OP, "batch", wanted, f"{recipe.batch} x {recipe.accumulate}")
        self.val: Split | None = None
        if source.names("val"):
            self.val = read_split(source, "val", recipe.size, own_labels=True)
            n_classes_of(self.val, recipe.ignore_index, n_classes)
        mean, std = colour_statistics(split)
        self.config: dict[str, Any] = {
            "model": recipe.model,
            "num_classes": n_classes,
            "arguments": dict(recipe.arguments),
            "mean": mean,
            "std": std,
            "names": [str(k) for k in range(n_classes)] if recipe.names is None else list(recipe.names),
            "palette": split.palette,
            "ignore_index": recipe.ignore_index,
            "size": list(recipe.size),
        }
        weight = median_frequency_weights(split, n_classes) if recipe.class_weights else None
        self.weight = None if weight is None else torch.tensor(weight, device=self.device)
        self.workers = workers
        self.data = TrainingSet(split, recipe.augmentation, self.config, recipe.seed)

    def build(self, make: Callable[[int], torch.nn.Module] | None) -> None:
        """The network and its optimizer."""
        recipe, n_classes = self.recipe, self.config["num_classes"]
        torch.manual_seed(recipe.seed)
        network = _made(recipe.model, n_classes, recipe.arguments) if make is None else make(n_classes)
        if recipe.backend == "torch":
            network = stock(network)
        if recipe.batch_norm == "sync":
            network = torch.nn.SyncBatchNorm.convert_sync_batchnorm(network)
        self.network = network.to(self.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        decays = [p for p in network.parameters() if p.requires_grad and p.ndim > 1]
        others = [p for p in network.parameters() if p.requires_grad and p.ndim <= 1]
        groups = [{"params": decays, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
        self.optimizer: torch.optim.Optimizer
        if recipe.optimizer == "sgd":
            self.optimizer = torch.optim.SGD(groups, recipe.lr, recipe.momentum)
        else:
            self.optimizer = torch.optim.AdamW(groups, recipe.lr)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=recipe.precision == "float16")

    def initialise(self, path: Path) -> list[str]:
        """Weights of another network, by name; what FCN adds to scores that are learnt already begins with zeros."""
        taken, new = load_named(self.network, path)
        if not taken:
            _check.fail(OP, "init_from", "hold weights of the network by name and shape", f"none in {path}")
        with torch.no_grad():
            for name in new:
                if name.startswith("score_pool"):
                    self.network.get_parameter(name).zero_()
        return taken

    def resumed(self) -> bool:
        """Takes up what is in the folder; whether there was something."""
        path = self.out / STATE
        if not path.exists():
            return False
        state = read_state(path)
        if not isinstance(settings := state.get("settings"), dict):
            raise DataFormatError(f"{path}: must be a state of this training, got settings {_check.kind(settings)}")
        require_same(OP, settings, self.recipe.settings())
        try:
            self.network.load_state_dict(state["network"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.scaler.load_state_dict(state["scaler"])
            self.rows, self.epoch, self.step = state["rows"], state["epoch"], state["step"]
            self.loss_sum, self.share_sum, self.seconds = state["sums"]
            self.best, self.best_epoch = state["best"]
        except Exception as error:  # a file of another making raises whatever it leads to
            raise DataFormatError(f"{path}: must be a state of this training, got {error}") from error
        return True

    # -- after

    def save(self) -> None:
        """The state, by the first process."""
        if self.group.first:
            state = {
                "settings": self.recipe.settings(),
                "network": self.network.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "scaler": self.scaler.state_dict(),
                "rows": self.rows,
                "epoch": self.epoch,
                "step": self.step,
                "sums": [self.loss_sum, self.share_sum, self.seconds],
                "best": [self.best, self.best_epoch],
            }
            write_state(self.out / STATE, state)

    def finish_epoch(self, lr: float, begun: float) -> None:
        """Validates, and writes what is to be kept."""
        found = None
        if self.val is not None:
            options: dict[str, Any] = {"precision": self.recipe.precision, "backend": self.recipe.backend}
            of_own = max(1, self.recipe.batch // self.group.count)
            confusion = evaluate(self.network, self.val, self.config, batch=of_own, group=self.group, **options)
            found = scores_of(confusion)
        self.epoch, self.step = self.epoch + 1, 0
        self.rows.append(
            {
                "epoch": self.epoch,
                "loss": self.loss_sum / max(self.share_sum, 1e-12),
                "lr": lr,
                "mIoU": math.nan if found is None else found.mean_iou,
                "pixel_accuracy": math.nan if found is None else found.pixel_accuracy,
                "class_accuracy": math.nan if found is None else found.class_accuracy,
                "seconds": round(self.seconds + time.perf_counter() - begun, 3),
            }
        )
        self.loss_sum, self.share_sum, self.seconds = 0.0, 0.0, 0.0
        better = found is None or found.mean_iou > self.best or self.best_epoch == 0
        if better:
            self.best, self.best_epoch = math.nan if found is None else found.mean_iou, self.epoch
        if self.group.first:
            config = self.config | {"epoch": self.epoch, "mIoU": None if found is None else found.mean_iou}
            arrays = arrays_of(self.network)
            for name in (BEST, LAST) if better else (LAST,):
                _weights.write(self.out / name, arrays, config)
            write_metrics(self.out / METRICS, self.rows)
        self.save()

    # -- in between

    def go(self, stop: Callable[[], bool], begin: Callable[[str], None]) -> None:
        """All epochs that are left."""
        if self.group.first:
            self.out.mkdir(exist_ok=True)
            if self.epoch == self.step == 0 and (self.out / STATE).exists():
                _check.fail(OP, "out", "hold no training that was begun", str(self.out), "resume it, or remove it")
        model: torch.nn.Module = self.network
        if self.group.count > 1:
            model = DistributedDataParallel(model, [self.device] if self.device.type == "cuda" else None)
        while self.epoch < self.recipe.epochs:
            last = f", loss {self.rows[-1]['loss']:.3f}, mIoU {self.rows[-1]['mIoU']:.3f}" if self.rows else ""
            begin(f"epoch {self.epoch + 1}{last}")
            begun = time.perf_counter()
            lr = self.one_epoch(model, stop, begun)
            self.finish_epoch(lr, begun)
        self.group.wait()  # the first one still writes

    def one_epoch(self, model: torch.nn.Module, stop: Callable[[], bool], begun: float) -> float:
        """The steps of an epoch that are left; returns the learning rate of the last."""
        recipe, group = self.recipe, self.group
        self.network.train()
        if recipe.batch_norm == "frozen":
            for module in self.network.modules():
                if isinstance(module, NORMS):
                    module.eval()
        stream = self.batches()
        every = 1 if self.device.type == "cpu" else 50  # steps after which the loss is looked at: a GPU is waited for
        sums = torch.tensor([self.loss_sum, self.share_sum], dtype=torch.float64, device=self.device)
        while self.step < self.steps:
            micro = [next(stream) for _ in range(recipe.accumulate)]
            total = self.epoch * self.steps + self.step
            lr = recipe.lr * poly(total, recipe.epochs * self.steps, recipe.warmup, recipe.power)
            for parameters in self.optimizer.param_groups:
                parameters["lr"] = lr
            torch.manual_seed(_seed(recipe.seed, self.epoch, self.step, group.rank))  # of dropout
            sums += self.one_step(model, micro)
            self.step += 1
            if self.step % every == 0 or self.step == self.steps:
                check_finite(float(sums[0]), self.epoch + 1, self.step)
            if stop() and self.step < self.steps:
                self.loss_sum, self.share_sum = (float(v) for v in sums)
                self.seconds += time.perf_counter() - begun
                self.save()
                raise Interrupted(f"stopped at epoch {self.epoch + 1}, step {self.step}; resume goes on from there")
        self.loss_sum, self.share_sum = (float(v) for v in sums)
        return lr

    def batches(self) -> Iterator[Any]:
        """Those of this process that are left of the epoch."""
        recipe, group = self.recipe, self.group
        shuffled = order(len(self.data), recipe.seed, self.epoch)
        first = self.step * recipe.accumulate
        starts = range(first * recipe.batch, self.steps * recipe.accumulate * recipe.batch, recipe.batch)
        keys = [[(self.epoch, i) for i in shuffled[at : at + recipe.batch][group.rank :: group.count]] for at in starts]
        return batches(self.data, keys, self.workers)

    def one_step(self, model: torch.nn.Module, micro: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
        """A step of the optimizer; the summed loss and the summed weight of the pixels, of all processes, [2]."""
        recipe, device = self.recipe, self.device
        on_device = [(x.to(device, non_blocking=True), y.to(device, non_blocking=True)) for x, y in micro]
        share = sum((self.weight_of(labels) for _, labels in on_device), torch.zeros((), device=device))
        share = self.group.total(share)
        summed = torch.zeros((), device=device)
        keywords, corners = _how_to_call(self.network)
        options: dict[str, Any] = {"ignore_index": recipe.ignore_index, "align_corners": corners}
        options["backend"] = recipe.backend
        self.optimizer.zero_grad(set_to_none=True)
        for k, (images, labels) in enumerate(on_device):
            more = k + 1 < len(on_device) and isinstance(model, DistributedDataParallel)
            with model.no_sync() if more else contextlib.nullcontext():  # type: ignore[operator]
                with _autocast(device, recipe.precision):
                    logits = model(images, **keywords)
                heads = [logits] if isinstance(logits, Tensor) else logits
                losses = [summed_loss(one, labels, self.weight, **options) for one in heads]
                loss = losses[0] + recipe.aux_weight * sum(losses[1:])
                # processes average their gradients, of which the sum is wanted
                self.scaler.scale(loss * (self.group.count / share.clamp(min=1e-12))).backward()
            summed += losses[0].detach()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return torch.stack([self.group.total(summed).double(), share.double()])

    def weight_of(self, labels: Tensor) -> Tensor:
        """The sum of the weights of the pixels that are not ignored, []."""
        counted = labels != self.recipe.ignore_index
        if self.weight is None:
            return counted.sum().float()
        return self.weight[labels[counted].long()].sum()


def _seed(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))
