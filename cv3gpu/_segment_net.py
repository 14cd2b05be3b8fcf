"""What ``cv3gpu segment net`` reads, computes and draws, without the shell."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from . import _files, viz
from .errors import BackendUnavailableError

__all__ = ["Share", "colours_of", "postprocess", "shares", "shown_size", "write"]

Array = np.ndarray[Any, Any]


def postprocess() -> Any:
    """`cv3gpu.nn.postprocess`, which needs torch."""
    try:
        from .nn import postprocess as found
    except ImportError as error:
        raise BackendUnavailableError("segment net needs torch: pip install 'cv3gpu[torch]'") from error
    return found


def shown_size(image: Sequence[int], trained: Sequence[int] | None) -> tuple[int, int]:
    """At which size a network sees an image: with as many pixels as it was trained with, in the image's proportions."""
    height, width = image
    if trained is None:
        return height, width
    factor = math.sqrt(trained[0] * trained[1] / (height * width))
    return max(1, round(height * factor)), max(1, round(width * factor))


class Share(NamedTuple):
    """How much of an image is of a class."""

    name: str
    pixels: int
    share: float
    confidence: float | None  # mean probability of the class where it is the label; None where it is nowhere


def shares(labels: Array, probabilities: Array, names: Sequence[str]) -> list[Share]:
    """Of each class."""
    count = np.bincount(labels.ravel(), minlength=len(names))
    best = np.take_along_axis(probabilities, labels[None], 0)[0]
    total = np.bincount(labels.ravel(), best.ravel(), len(names))
    return [
        Share(name, int(n), n / labels.size, float(total[k] / n) if n else None)
        for k, (name, n) in enumerate(zip(names, count.tolist(), strict=True))
    ]


def colours_of(config: Mapping[str, Any]) -> Array:
    """A colour for each class: those of the data that the network was trained on, as far as there are."""
    colours = viz.label_colours(max(256, config["num_classes"]))
    given = np.array(config["palette"] or [], np.uint8).reshape(-1, 3)[: len(colours)]
    colours[: len(given)] = given
    return colours


def write(
    folder: Path, title: str, image: Array, found: Any, config: Mapping[str, Any], probabilities: bool = False
) -> list[Path]:
    """Writes labels.png, overlay.png, legend.png and, where asked for, probabilities.npy."""
    colours = colours_of(config)
    labels = found.labels if found.refined is None else found.refined
    panels = {"image": None, config["model"]: found.labels}
    if found.refined is not None:
        panels["and a dense CRF"] = found.refined
    figure = viz.labels_figure(image, panels, colours=colours, names=config["names"], title=title)
    folder.mkdir(exist_ok=True)
    files = [folder / name for name in ("labels.png", "overlay.png", "legend.png")]
    viz.save_labels(labels, files[0], colours)
    viz.save_image(viz.overlay(image, labels, colours=colours, border=True), files[1])
    viz.save(figure, files[2])
    if probabilities:
        files.append(folder / "probabilities.npy")
        with _files.replacing(files[-1]) as unfinished:
            np.save(unfinished, found.probabilities)
    return files
