r"""Tracks as a flow of least cost
=================================

Offline, a tracker may look at all frames at once. Detections are nodes, possible links are edges, and a set of tracks
is a flow: each unit enters the graph at a detection, passes from one to the next and leaves it. The flow of least cost
decides together which detections are real, which links hold and how many tracks there are.
"""

# %%
# Three people who cross. The detector misses one box in eight, sees people where there are none, and knows no names.
import numpy as np
from scipy.optimize import linprog
from scipy.sparse import coo_array

from cv3gpu import mot, viz

rng = np.random.default_rng(4)
FRAMES = 40
t = np.arange(FRAMES)
paths = [(20 + 7 * t, 40 + 0 * t), (300 - 7 * t, 62 + 0 * t), (160 + 40 * np.sin(t / 6), 20 + 2.2 * t)]
box = np.stack([np.stack([x, y, 0 * t + 28, 0 * t + 70], 1) for x, y in paths]).astype(float).reshape(-1, 4)
truth = mot.Tracks(frame=np.tile(t + 1, 3), id=np.repeat([1, 2, 3], FRAMES), box=box)

seen = rng.random(len(truth)) > 1 / 8
noisy = box[seen] + rng.normal(0, 1.5, (seen.sum(), 4))
extra = np.concatenate([rng.uniform([0, 0], [300, 110], (14, 2)), np.tile([28.0, 70.0], (14, 1))], 1)
detections = mot.Tracks(
    frame=np.concatenate([truth.frame[seen], rng.integers(1, FRAMES + 1, 14)]),
    id=np.full(seen.sum() + 14, -1),
    box=np.concatenate([noisy, extra]),
    score=np.clip(np.concatenate([rng.normal(0.85, 0.06, seen.sum()), rng.normal(0.4, 0.1, 14)]), 0.05, 0.98),
)
print(f"{len(detections)} detections of {len(truth)} boxes, 14 of them false")

# %%
# Costs are negative log-probabilities. A detection of probability p pays :math:`\log \frac{1 - p}{p}`, so that likely
# ones are a gain; a link pays for the distance and for frames without a detection; entering and leaving pays, too.
edges = mot.candidate_edges(detections.frame, detections.box, max_gap=4, k=8, max_distance=1.0, reciprocal=False)
start, end = edges
gap = detections.frame[end] - detections.frame[start]
moved = np.linalg.norm(detections.box[end, :2] - detections.box[start, :2], axis=1)
link_cost = moved / (10.0 * gap) + 1.0 * (gap - 1)
detection_cost = np.log((1 - detections.score) / detections.score)
active, used, objective = mot.min_cost_flow(edges, link_cost, detection_cost, entry_cost=3.0, exit_cost=3.0)

# %%
# The judge is a linear program, solved by HiGHS: a variable for each link, detection, entry and exit, and what flows
# into a detection flows out of it.
n, m = len(detections), edges.shape[1]
node, link = np.arange(n), np.arange(m)
rows = np.concatenate([end, node, node, n + start, n + node, n + node])
columns = np.concatenate([link, m + n + node, m + node, link, m + 2 * n + node, m + node])
signs = np.concatenate([np.ones(m), np.ones(n), -np.ones(n), np.ones(m), np.ones(n), -np.ones(n)])
balance = coo_array((signs, (rows, columns)), shape=(2 * n, m + 3 * n)).tocsr()
costs = np.concatenate([link_cost, detection_cost, np.full(2 * n, 3.0)])
program = linprog(costs, A_eq=balance, b_eq=np.zeros(2 * n), bounds=(0, 1), method="highs")
print(f"objective {objective:.6f}, HiGHS {program.fun:.6f}")
assert abs(objective - program.fun) < 1e-6
print(f"{m} links possible, {active.sum()} hold; {used.sum()} detections used")
assert np.bincount(start[active], minlength=n).max() == np.bincount(end[active], minlength=n).max() == 1

# %%
# Chains of links are tracks; gaps are filled by straight lines.
identity = np.full(n, -1)
for row in np.lexsort((node, detections.frame)):
    if used[row]:
        before = start[active & (end == row)]
        identity[row] = identity[before[0]] if before.size else identity.max() + 1
linked = mot.Tracks(detections.frame, np.where(used, identity + 1, -1), detections.box)
found = mot.interpolate(linked[used], max_gap=4)
online = mot.sort(detections)
scores = {name: mot.evaluate(truth, tracks).combined["all"] for name, tracks in (("flow", found), ("SORT", online))}
for name, score in scores.items():
    print(f"{name:5s} IDF1 {score['IDF1']:.3f}  MOTA {score['MOTA']:.3f}  switches {score['IDSW']}")
assert np.unique(found.id).size == 3, "three people, found"
assert scores["flow"]["IDF1"] > 0.95 and scores["flow"]["IDSW"] == 0
assert scores["flow"]["IDF1"] > scores["SORT"]["IDF1"]

figure = viz.tracking_graph_figure(linked, edges)
