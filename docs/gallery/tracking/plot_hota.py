r"""MOTA, IDF1 and HOTA: three metrics, three winners
====================================================

Is it worse to miss people, or to mix them up? MOTA looks at detection and hardly minds a wrong name; IDF1 looks at
names and hardly minds what is missed; HOTA weighs both alike. Three trackers that anyone can compute by hand show it.
"""

# %%
# One person for 120 frames. Tracker A finds every box and changes the name four times; B finds the first 60 % and never
# errs; C finds 95 % and changes the name once, in the middle.
import numpy as np
from matplotlib.figure import Figure

from cv3gpu import mot, viz

FRAMES = 120
place = [[5.0 * t, 0.0, 40.0, 100.0] for t in range(FRAMES)]
truth = mot.Tracks(frame=range(1, FRAMES + 1), id=[1] * FRAMES, box=place)


def tracker(found, parts):
    """Finds so many of the boxes, and gives so many names, one after another."""
    return mot.Tracks(np.arange(1, found + 1), 1 + np.arange(found) * parts // found, place[:found])


trackers = {"A: finds all": (120, 5), "B: sure of names": (72, 1), "C: a bit of both": (114, 2)}
scores = {name: mot.evaluate(truth, tracker(*kind)).combined["all"] for name, kind in trackers.items()}

# %%
# With a share *f* of the boxes found, under *k* names of equal length:
#
# .. math:: \mathrm{MOTA} = f - \frac{k - 1}{N}, \quad \mathrm{IDF1} = \frac{2 f / k}{1 + f}, \quad
#    \mathrm{HOTA} = \sqrt{\mathrm{DetA} \cdot \mathrm{AssA}} = \sqrt{f \cdot f / k}
#
# since each true positive shares its name with *f N / k* of the N boxes that it should be together with.
for name, (found, k) in trackers.items():
    f = found / FRAMES
    wanted = {"MOTA": f - (k - 1) / FRAMES, "IDF1": 2 * f / k / (1 + f), "HOTA": np.sqrt(f * f / k)}
    wanted |= {"DetA": f, "AssA": f / k}
    for metric, value in wanted.items():
        np.testing.assert_allclose(scores[name][metric], value, atol=1e-12)
    print(f"{name:17s}", "  ".join(f"{metric} {100 * value:5.1f}" for metric, value in wanted.items()))

best = {metric: max(scores, key=lambda name: scores[name][metric]) for metric in ("MOTA", "IDF1", "HOTA")}
assert [best[metric][0] for metric in ("MOTA", "IDF1", "HOTA")] == ["A", "B", "C"], "each has its own favourite"

# %%
# Above, what each tracker did, a colour for each name; below, what the metrics make of it.
figure = Figure(figsize=(9, 5.2), layout="constrained")
above, below = figure.subplots(2, 1, height_ratios=(1, 2.2))
for row, (found, k) in enumerate(trackers.values()):
    above.broken_barh([(0, FRAMES)], (row - 0.08, 0.16), facecolors="#D9D9D9")
    for part in range(k):
        above.broken_barh([(found * part / k, found / k)], (row - 0.32, 0.64), facecolors=viz.COLOURS[part], ec="white")
above.set_yticks(range(3), list(trackers))
above.set(xlabel="frame", ylim=(2.6, -0.6))
above.spines[["top", "right"]].set_visible(False)
shown = ("MOTA", "IDF1", "HOTA", "DetA", "AssA")
for n, (name, values) in enumerate(scores.items()):
    height = [100 * values[metric] for metric in shown]
    grey = ("#404040", "#8C8C8C", "#C8C8C8")[n]
    bars = below.bar(np.arange(5) + 0.27 * (n - 1), height, 0.25, color=grey, label=name)
    stars = ["*" if best.get(metric) == name else "" for metric in shown]
    below.bar_label(bars, [f"{value:.0f}{star}" for value, star in zip(height, stars, strict=True)])
below.set_xticks(range(5), shown)
below.set(ylabel="%, * the best", ylim=(0, 110))
below.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, frameon=False)
below.spines[["top", "right"]].set_visible(False)

# %%
# HOTA is a mean over how exact boxes have to be. Boxes that are shifted so that they overlap by :math:`s` of their
# union count up to the threshold :math:`\alpha = s`, and no further. Here a tenth of the boxes each overlaps by 0.075,
# 0.175 and so on, so that DetA falls in steps.
overlap = 0.075 + 0.1 * (np.arange(FRAMES) % 10)
shift = 40 * (1 - overlap) / (1 + overlap)  # of boxes 40 wide: (40 - shift) / (40 + shift) = overlap
loose = mot.Tracks(truth.frame, truth.id, truth.box + np.stack([shift, 0 * shift, 0 * shift, 0 * shift], 1))
curves = mot.evaluate(truth, loose).combined["all"]
alpha = 0.05 * np.arange(1, 20)
hits = np.array([np.mean(overlap >= a) for a in alpha])
np.testing.assert_allclose(curves["HOTA_TP_alpha"], hits * FRAMES)
np.testing.assert_allclose(curves["DetA_alpha"], hits / (2 - hits))
assert np.all(np.diff(curves["HOTA_alpha"]) <= 1e-12)
steps = viz.alpha_figure({"loose boxes": curves})
