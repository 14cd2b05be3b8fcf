"""What each idea of the segmentation networks is worth on CamVid: ``python -m bench.segmentation_ablation --data DIR``.

One change at a time, everything else alike: same images, epochs, optimizer, seed and size of images as in
`bench.camvid`, whose data, widths and resuming it shares.

* output stride: DeepLabv3 at 8, 16, 32, strides given up for dilation;
* dilation: at an output stride of 8, the same network with every kernel's taps side by side;
* ASPP: the same backbone with the plain head of FCN;
* skip connections: FCN-32s, FCN-16s, FCN-8s, each trained from scratch;
* transposed convolution against resize-convolution in the expanding path of U-Net;
* CRF: a dense CRF after the networks that were trained, on the images at the size of the labels.

Finished lines stand in ``bench/results/segmentation_ablation.csv``, and are not made again.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

import cv3gpu
from cv3gpu.nn import models, segmentation_data, train_seg
from cv3gpu.nn.postprocess import refine

from .camvid import (
    CLASSES,
    FIGURES,
    IGNORED,
    KEY,
    LABELS,
    MODELS,
    SGD,
    Plan,
    add_row,
    carry_out,
    finished,
    parser_of,
    print_table,
    recipe_of,
    use_cores,
)

RESULTS = Path(__file__).parent / "results" / "segmentation_ablation.csv"
BACKBONE: dict[str, Any] = {"base_channels": 16, "backbone": "resnet18"}

# Chosen once, on no image of ``test``: pydensecrf's example, with less smoothing for labels that are 3 pixels wide.
CRF: dict[str, Any] = {
    "theta_gamma": 3.0, "compat_smooth": 2.0, "theta_alpha": 40.0, "theta_beta": 10.0, "compat_bilateral": 4.0,
    "n_iter": 5,
}  # fmt: skip
REFINED = ("DeepLabv3, output stride 8", "DeepLabv3, output stride 32", "FCN-32s", "U-Net, transposed convolution")


# ---- networks -------------------------------------------------------------------------------------------


def deeplab(output_stride: int, dilated: bool = True) -> Callable[[int], torch.nn.Module]:
    """DeepLabv3; without dilation the backbone's maps keep their size, and its kernels see less."""

    def make(n_classes: int) -> torch.nn.Module:
        network = models.deeplabv3(n_classes, output_stride=output_stride, **BACKBONE)
        for layer in network.backbone.modules():
            if isinstance(layer, torch.nn.Conv2d) and not dilated and layer.kernel_size == (3, 3):
                layer.dilation, layer.padding = (1, 1), (1, 1)
        return network

    return make


def plain_head(output_stride: int) -> Callable[[int], torch.nn.Module]:
    """The same backbone without ASPP."""
    return lambda n_classes: models.fcn_resnet(n_classes, output_stride=output_stride, **BACKBONE)


def fcn(stride: int) -> Callable[[int], torch.nn.Module]:
    """FCN-32s, FCN-16s or FCN-8s."""
    return lambda n_classes: getattr(models, f"fcn{stride}s")(n_classes, **MODELS["fcn8s"][0])


def unet(resize: str | None = None) -> Callable[[int], torch.nn.Module]:
    """U-Net, whose maps are enlarged by transposed convolutions, or by a resize and a convolution."""

    def make(n_classes: int) -> torch.nn.Module:
        network = models.unet(n_classes, **MODELS["unet"][0])
        for level in (1, 2, 3, 4) if resize else ():
            block: Any = network.get_submodule(f"up{level}")
            old = block.up
            block.up = cv3gpu.nn.ResizeConv2d(old.in_channels, old.out_channels, 3, scale_factor=2, mode=resize)
        return network

    return make


def plans(epochs: int, seed: int) -> Iterator[Plan]:
    """The trainings of one seed."""
    dense: dict[str, Any] = {"model": "deeplabv3", "arguments": BACKBONE, **SGD}
    variants: list[tuple[str, str, dict[str, Any], Callable[[int], torch.nn.Module]]] = [
        *((f"DeepLabv3, output stride {k}", "unet", dense, deeplab(k)) for k in (8, 16, 32)),
        ("DeepLabv3, output stride 8, no dilation", "unet", dense, deeplab(8, False)),
        ("no ASPP, output stride 8", "unet", dense | {"model": "fcn_resnet"}, plain_head(8)),
        *((f"FCN-{k}s", "fcn8s", {"model": f"fcn{k}s"}, fcn(k)) for k in (32, 16, 8)),
        ("U-Net, transposed convolution", "unet", {}, unet()),
        ("U-Net, bilinear resize-convolution", "unet", {}, unet("bilinear")),
        ("U-Net, nearest resize-convolution", "unet", {}, unet("nearest")),
    ]
    for name, base, changes, make in variants:
        yield Plan(name, dataclasses.replace(recipe_of(base, epochs, seed, "cv3gpu"), **changes), make)


# ---- CRF ------------------------------------------------------------------------------------------------


def refined(plan: Plan, data: Path, work: Path) -> np.ndarray:
    """Confusion matrix on ``test`` of a trained network followed by a dense CRF at the size of the labels."""
    network, config = train_seg.load(work / "-".join(plan.key) / "best.safetensors", make=plan.make)
    source = segmentation_data.opened(data)
    small = segmentation_data.read_split(source, "test", plan.recipe.size)
    large = segmentation_data.read_split(source, "test", LABELS)
    total = np.zeros((len(CLASSES), len(CLASSES)), np.int64)
    for shown, image, label in zip(small.images, large.images, large.labels, strict=True):
        x = torch.from_numpy(segmentation_data.normalised(shown, config["mean"], config["std"]))
        with torch.inference_mode():
            logits = network(x.permute(2, 0, 1)[None])
            q = refine(logits, torch.from_numpy(image).permute(2, 0, 1)[None], **CRF)
        total += cv3gpu.confusion_matrix(q[0].argmax(0).numpy(), label, len(CLASSES), IGNORED)
    return total


def refine_all(made: list[Plan], data: Path, work: Path, results: Path) -> None:
    """The lines with a CRF, of networks that are trained."""
    for plan in made:
        name = f"{plan.name}, CRF"
        key = (name, *plan.key[1:])
        if plan.name not in REFINED or key in {tuple(row[k] for k in KEY) for row in finished(results)}:
            continue
        (before,) = (row for row in finished(results) if tuple(row[k] for k in KEY) == plan.key)
        begun = time.perf_counter()
        scores = train_seg.scores_of(refined(plan, data, work))
        figures = {figure: f"{getattr(scores, figure):.5f}" for figure in FIGURES}
        more = {"minutes": f"{(time.perf_counter() - begun) / 60:.1f}"}
        classes = {"class_iou": " ".join(f"{v:.4f}" for v in scores.class_iou)}
        add_row(results, {**before, "name": name, **figures, **more, **classes})


def main() -> None:
    """Makes what is missing, and prints the table."""
    parser = parser_of(__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS, help="default: %(default)s")
    given = parser.parse_args()
    use_cores(given.threads)
    made = [plan for seed in map(int, given.seeds.split(",")) for plan in plans(given.epochs, seed)]
    done = given.table or carry_out(made, given.data, given.work, given.results, given.minutes)
    if done and not given.table:
        refine_all(made, given.data, given.work, given.results)
    print_table(finished(given.results))
    if not done:
        print("\nnot all runs are finished: the same command goes on")


if __name__ == "__main__":
    main()
