r"""A small network from scratch, and a CRF behind it
====================================================

A network with an output stride of four learns to tell discs from squares in a few seconds. Its labels are blurred, as
it decides on every fourth pixel. A dense CRF behind it moves the borders to where the image has them, without training.
"""

# %%
# Synthetic images: reddish discs and bluish squares on grey, with thin stripes of both colours that mean nothing.
# Colour alone is therefore not enough, and neither is the shape alone.
import numpy as np
import torch
from torch import nn

import cv3gpu
from cv3gpu import viz

SIDE, CLASSES = 64, ("background", "disc", "square")


def scenes(count, seed):
    """Images [count, 3, SIDE, SIDE], 0 to 1, and labels [count, SIDE, SIDE]."""
    rng = np.random.default_rng(seed)
    images = np.empty((count, SIDE, SIDE, 3))
    labels = np.zeros((count, SIDE, SIDE), np.int64)
    y, x = np.mgrid[:SIDE, :SIDE]
    hues = np.array([[0.0, 0.0, 0.0], [0.25, -0.1, -0.15], [-0.15, -0.1, 0.25]])
    for image, label in zip(images, labels, strict=True):
        image[:] = 0.5 + 0.05 * rng.standard_normal(3)
        for _ in range(4):  # stripes
            at, tilt, kind = rng.uniform(0, 2 * SIDE), rng.uniform(-1, 1), rng.integers(1, 3)
            image[np.abs(x + tilt * y - at) < 1.5] = 0.5 + hues[kind]
        for kind in rng.permutation([1, 2, 1, 2])[:3]:
            radius, (cy, cx) = rng.uniform(8, 13), rng.uniform(8, SIDE - 8, 2)
            disc, square = np.hypot(y - cy, x - cx), np.maximum(abs(y - cy), abs(x - cx)) / 0.85
            inside = (disc if kind == 1 else square) < radius
            image[inside] = 0.5 + hues[kind] * rng.uniform(0.8, 1.2) + 0.05 * rng.standard_normal(3)
            label[inside] = kind
        image += 0.04 * rng.standard_normal(image.shape)
    return torch.from_numpy(np.clip(images, 0, 1)).permute(0, 3, 1, 2).float(), torch.from_numpy(labels)


# %%
# Two strides, then dilation. The loss is taken at full size from the small logits, which are never enlarged in memory.
torch.manual_seed(0)
network = nn.Sequential(
    cv3gpu.nn.Conv2d(3, 12, 5, stride=2, padding=2),
    nn.ReLU(),
    cv3gpu.nn.Conv2d(12, 16, 3, stride=2, padding=1),
    nn.ReLU(),
    cv3gpu.nn.Conv2d(16, 16, 3, padding=2, dilation=2),
    nn.ReLU(),
    cv3gpu.nn.Conv2d(16, len(CLASSES), 1),
)
optimiser = torch.optim.Adam(network.parameters(), lr=0.01)
images, labels = scenes(64, seed=1)
rows = []
for epoch in range(1, 13):
    losses = []
    for part in torch.randperm(len(images)).split(8):
        loss = cv3gpu.upsample_cross_entropy(network(images[part] - 0.5), labels[part])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    rows.append({"epoch": epoch, "loss": float(np.mean(losses))})
assert rows[-1]["loss"] < 0.3 * rows[0]["loss"], "it learns"
# sphinx_gallery_thumbnail_number = 2
curve = viz.curves_figure(rows, {"training loss": ["loss"]})

# %%
# Mean intersection over union on new images: of the network, of the network with a CRF behind, and of a baseline that
# gives each pixel the class of the nearest mean colour.
unseen, truth = scenes(8, seed=2)
with torch.inference_mode():
    logits = network(unseen - 0.5)
    alone = cv3gpu.upsample_argmax(logits, (SIDE, SIDE))
    crf = {"theta_gamma": 1.0, "theta_alpha": 8.0, "theta_beta": 25.0, "compat_smooth": 1.0, "compat_bilateral": 4.0}
    refined = cv3gpu.nn.refine(logits, 255 * unseen, n_iter=5, **crf).argmax(1)
means = torch.stack([images.permute(0, 2, 3, 1)[labels == k].mean(0) for k in range(len(CLASSES))])
nearest = torch.cdist(unseen.permute(0, 2, 3, 1).reshape(-1, 3), means).argmin(1).reshape(truth.shape)


def miou(predicted):
    """Mean IoU over classes, and a plain count beside it."""
    confusion = cv3gpu.confusion_matrix(predicted, truth, len(CLASSES))
    plain = [
        ((predicted == k) & (truth == k)).sum() / ((predicted == k) | (truth == k)).sum() for k in range(len(CLASSES))
    ]
    assert abs(cv3gpu.mean_iou(confusion) - float(torch.stack(plain).mean())) < 1e-6
    return cv3gpu.mean_iou(confusion)


scores = {"nearest colour": miou(nearest), "network": miou(alone), "network and CRF": miou(refined)}
for name, score in scores.items():
    print(f"{name:16s} mIoU {score:.3f}, borders (F1 within a pixel) ", end="")
    predicted = {"nearest colour": nearest, "network": alone, "network and CRF": refined}[name]
    print(f"{cv3gpu.boundary_f1(predicted, truth, tolerance=1):.3f}")
assert scores["network"] > scores["nearest colour"] + 0.05
assert scores["network and CRF"] > scores["network"] + 0.02

picture = unseen[3].permute(1, 2, 0).numpy()
panels = {"image": None, "nearest colour": nearest[3].numpy(), "network": alone[3].numpy()}
panels |= {"and CRF": refined[3].numpy(), "truth": truth[3].numpy()}
figure = viz.labels_figure(picture, panels, names=CLASSES, size=2.1)
