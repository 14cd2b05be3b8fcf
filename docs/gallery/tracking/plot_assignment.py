r"""Who is who in the next frame: the best matching against the greedy one
==========================================================================

Tracking by detection matches the boxes of one frame to those of the next by their overlap. Taking the largest overlap
first is quick and short-sighted: one greedy choice can leave two others without a partner. The Hungarian method finds
the matching of the most pairs and, of those, the one of the largest sum.
"""

# %%
# People in a queue who all move on, and C hurries: its new box overlaps D's old one more than its own.
import itertools

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from scipy.optimize import linear_sum_assignment

import cv3gpu
from cv3gpu import viz


def greedy(overlap, least):
    """Pairs from the largest overlap down."""
    left, pairs = overlap.copy(), []
    while left.size and left.max() >= least:
        row, column = np.unravel_index(left.argmax(), left.shape)
        pairs.append((int(row), int(column)))
        left[row], left[:, column] = -1, -1
    return sorted(pairs)


def matched(overlap, least):
    """Pairs of the greatest sum; those below the threshold are forbidden."""
    cost = np.where(overlap >= least, 1 - overlap, np.inf)
    row, column, _ = cv3gpu.linear_sum_assignment(cost)
    return [(int(r), int(c)) for r, c in zip(row, column, strict=True) if r >= 0]


now = np.array([[60.0 * k, 20.0, 50.0, 120.0] for k in range(6)])
steps = np.array([28.0, 28.0, 40.0, 28.0, 28.0, 28.0])
then = now + np.stack([steps, 2 * np.sin(np.arange(6)), 0 * steps, 0 * steps], 1)
overlap = cv3gpu.box_iou(now, then, format="xywh")
ways = {"greedy": greedy(overlap, 0.1), "best matching": matched(overlap, 0.1)}
for name, pairs in ways.items():
    print(f"{name:14s} {len(pairs)} pairs, overlaps add up to {sum(overlap[p] for p in pairs):.2f}: {pairs}")
assert ways["best matching"] == [(k, k) for k in range(6)], "everybody is recognised"
assert len(ways["greedy"]) == 5 and (3, 2) in ways["greedy"], "the greedy way takes C for D, and loses both"

figure = Figure(figsize=(9, 5), layout="constrained")
for axis, (name, pairs) in zip(figure.subplots(2, 1, sharex=True), ways.items(), strict=True):
    for boxes, shift, colour in ((now, 150, viz.COLOURS[0]), (then, 0, viz.COLOURS[5])):
        for k, (x, y, w, h) in enumerate(boxes):
            axis.add_patch(Rectangle((x, shift + 0.35 * y), w, 0.8 * h, fill=False, ec=colour, lw=1.8))
            axis.text(x + w / 2, shift + 0.35 * y + 0.4 * h, "ABCDEF"[k], ha="center", va="center", fontsize=12)
    for row, column in pairs:
        right = row == column
        x = [box[0] + box[2] / 2 for box in (now[row], then[column])]
        axis.plot(x, [157, 104], color="#404040" if right else viz.COLOURS[3], ls="-" if right else "--", lw=2.2)
    axis.set(xlim=(-10, 420), ylim=(0, 260), xticks=[])
    axis.set_yticks([205, 55], ["now", "then"])
    axis.tick_params(length=0, labelsize=11)
    axis.spines[:].set_visible(False)
    axis.set_title(f"{name}: {sum(r == c for r, c in pairs)} of 6 right", fontsize=11, loc="left")

# %%
# Never worse, often better: 300 crowds at once, as one batch. The judges are SciPy, and for small ones all
# permutations.
rng = np.random.default_rng(0)
spacings = (20.0, 40.0, 80.0, 160.0)
lost = []
for spacing in spacings:
    place = rng.uniform(0, spacing * 6, (300, 6, 2)) * [1.0, 0.3]
    boxes = np.concatenate([place, np.broadcast_to([30.0, 80.0], (300, 6, 2))], 2)
    moved = boxes + np.concatenate([rng.normal(0, 10, (300, 6, 2)), np.zeros((300, 6, 2))], 2)
    overlaps = cv3gpu.box_iou(boxes, moved, format="xywh")
    totals = cv3gpu.linear_sum_assignment(overlaps, maximize=True).total
    for one, total in zip(overlaps, totals, strict=True):
        np.testing.assert_allclose(total, one[linear_sum_assignment(one, maximize=True)].sum(), atol=1e-12)
    if spacing == spacings[0]:
        every = [overlaps[0][range(6), list(order)].sum() for order in itertools.permutations(range(6))]
        np.testing.assert_allclose(totals[0], max(every), atol=1e-12)
    short = np.array([sum(one[p] for p in greedy(one, 0.0)) for one in overlaps])
    assert np.all(short <= totals + 1e-12)
    lost.append(np.mean(short < totals - 1e-9))
    print(f"spacing {spacing:3.0f} pixels: greedy falls short in {lost[-1]:.0%} of the frames")
assert lost[0] > 0.2 and lost[-1] < lost[0], "the denser the crowd, the more often"

curve = Figure(figsize=(5.0, 3.1), layout="constrained")
axis = curve.subplots()
axis.plot(spacings, 100 * np.array(lost), "o-", color=viz.COLOURS[0])
axis.set(xlabel="spacing of people 30 pixels wide", ylabel="% of frames", title="Where greedy matching falls short")
axis.set_ylim(0)
axis.grid(color="#E5E5E5", lw=0.6)
