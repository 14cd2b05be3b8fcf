r"""A neural tracker over a crowd
================================

Message passing over a graph of detections: the network says of each possible link how probable it is, having heard what
its neighbours think, and their neighbours. It knows the future as well as the past, so that who disappears behind
somebody else is the same person afterwards. SORT, which goes frame by frame, gives out a new name.
"""

# %%
# A synthetic crowd. Nearer people are larger and hide those behind; the detector misses who is hidden, trembles, and
# sees people where there are none.
import tempfile
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from scipy.optimize import linear_sum_assignment

import cv3gpu
from cv3gpu import mot, viz

WIDTH, HEIGHT, FRAMES, PEOPLE, FALSE = 640, 360, 120, 16, 40
rng = np.random.default_rng(7)
foot = rng.uniform([40, 170], [WIDTH - 40, HEIGHT - 10], (PEOPLE, 2))
speed = rng.choice([-1, 1], PEOPLE) * rng.uniform(1.5, 3.5, PEOPLE)
tall = 0.42 * foot[:, 1]
box = np.empty((FRAMES, PEOPLE, 4))
for frame in range(FRAMES):
    foot[:, 0] += speed + 0.4 * np.sin(frame / 9 + np.arange(PEOPLE))
    speed = np.where(foot[:, 0] < 20, np.abs(speed), np.where(foot[:, 0] > WIDTH - 20, -np.abs(speed), speed))
    box[frame] = np.stack([foot[:, 0] - 0.2 * tall, foot[:, 1] - tall, 0.4 * tall, tall], 1)
names, frames = np.tile(np.arange(1, PEOPLE + 1), FRAMES), np.repeat(np.arange(1, FRAMES + 1), PEOPLE)
truth = mot.Tracks(frame=frames, id=names, box=box.reshape(-1, 4))

hidden_by = cv3gpu.box_iou(box, box, format="xywh", kind="ioa")  # share of a person that another one covers
nearer = foot[:, 1] > foot[:, 1, None]
hidden = np.where(nearer, hidden_by, 0).max(2).ravel() > 0.5
seen = ~hidden & (rng.random(len(truth)) > 0.06)
ghosts = np.concatenate([rng.uniform([0, 60], [WIDTH - 40, 250], (FALSE, 2)), np.tile([38.0, 95.0], (FALSE, 1))], 1)
detections = mot.Tracks(
    frame=np.concatenate([truth.frame[seen], rng.integers(1, FRAMES + 1, FALSE)]),
    id=np.full(seen.sum() + FALSE, -1),
    box=np.concatenate([truth.box[seen] + rng.normal(0, 1.5, (seen.sum(), 4)), ghosts]),
    score=np.clip(np.concatenate([rng.normal(0.85, 0.08, seen.sum()), rng.normal(0.45, 0.12, FALSE)]), 0.05, 0.99),
)
print(f"{len(truth)} boxes of {PEOPLE} people, {hidden.mean():.0%} hidden; {len(detections)} detections")

# %%
# Four trackers on the same detections.
trackers = {
    "message passing": mot.track(detections),
    "min-cost flow": mot.interpolate(mot.flow_tracker(detections), max_gap=30),
    "ByteTrack": mot.byte_track(detections),
    "SORT": mot.sort(detections),
}
comparison = mot.compare(truth, trackers)
print(comparison)

figures = {name: report.combined["all"] for name, report in comparison.reports.items()}
ours, online = figures["message passing"], figures["SORT"]
assert ours["IDF1"] > online["IDF1"] + 0.1, "names are kept through occlusions"
assert ours["HOTA"] > online["HOTA"] and ours["IDSW"] < online["IDSW"]

figure = Figure(figsize=(9.6, 3.4), layout="constrained")
axis = figure.subplots()
shown = ("HOTA", "DetA", "AssA", "IDF1", "MOTA")
for n, (name, values) in enumerate(figures.items()):
    height = [100 * values[key] for key in shown]
    bars = axis.bar(np.arange(5) + 0.2 * (n - 1.5), height, 0.19, color=viz.COLOURS[n], label=name)
    axis.bar_label(bars, fmt="%.0f", fontsize=8)
axis.set_xticks(range(5), shown)
axis.set(ylabel="%", ylim=(0, 108))
figure.legend(loc="outside upper center", ncols=4, frameon=False)
axis.spines[["top", "right"]].set_visible(False)

# %%
# IDF1, once more by hand: in how many frames do person and name overlap by at least a half, under the one-to-one naming
# that makes this largest?
for name, tracks in trackers.items():
    together = np.zeros((PEOPLE, tracks.id.max() + 1))
    for frame in range(1, FRAMES + 1):
        here = tracks[tracks.frame == frame]
        row, column = np.nonzero(cv3gpu.box_iou(box[frame - 1], here.box, format="xywh") >= 0.5)
        np.add.at(together, (row, here.id[column]), 1)
    explained = together[linear_sum_assignment(together, maximize=True)].sum()
    assert abs(2 * explained / (len(truth) + len(tracks)) - figures[name]["IDF1"]) < 1e-12

# %%
# Who followed whom: a row for each person, a colour for each name that SORT gave. Rows that change colour are people
# who lost their name.
rows = viz.identities_figure(mot.events(truth, trackers["SORT"]), title="SORT")

# %%
# The same for message passing.
rows_of_ours = viz.identities_figure(mot.events(truth, trackers["message passing"]), title="message passing")

# %%
# And its tracks in motion.

# sphinx_gallery_thumbnail_number = 4
folder = tempfile.TemporaryDirectory()
animation = Path(folder.name) / "crowd.gif"
viz.tracks_gif(animation, trackers["message passing"], frames=(1, 50), size=(WIDTH, HEIGHT), longest=420, fps=12)
