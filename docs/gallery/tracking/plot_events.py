r"""An identity switch, looked at, and gaps filled
=================================================

Totals say that a tracker switched names; the event log says who, when, and to whom. Two people meet, and a tracker that
swaps them is held against one that only loses them for a while: gaps can be filled afterwards, swaps cannot.
"""

# %%
# Two people cross in the middle. One tracker swaps their names there; the other loses each for eight frames, one after
# the other.
import numpy as np

from cv3gpu import mot, viz

FRAMES, MEET = 60, 30
t = np.arange(1, FRAMES + 1)
lefts = (10.0 + 4.0 * t, 260.0 - 4.0 * t)
box = np.concatenate([np.stack([x, 0 * t + 45.0 * k, 0 * t + 30.0, 0 * t + 80.0], 1) for k, x in enumerate(lefts)])
frame, name = np.tile(t, 2), np.repeat([1, 2], FRAMES)
truth = mot.Tracks(frame, name, box)

swapped = mot.Tracks(frame, np.where(frame > MEET, 3 - name, name) + 10, box)
begin = np.where(name == 1, MEET - 5, MEET - 1)
hidden = (frame >= begin) & (frame < begin + 8)
lost = mot.Tracks(frame[~hidden], name[~hidden] + 10, box[~hidden])

# %%
# What happened, one event a row. A switch says which name came before, and in which frame it was last seen.
log = mot.events(truth, swapped)
print(log.of("switch").to_csv())
switches = log.of("switch")
assert switches.frame.tolist() == [MEET + 1] * 2
assert list(zip(switches.gt, switches.previous, switches.pred, strict=True)) == [(1, 11, 12), (2, 12, 11)]
assert set(switches.since.tolist()) == {MEET}

figure = viz.identities_figure(log, title="names are swapped")

# %%
# The other tracker: eight frames missed for each, then tracked again under the same name.
log = mot.events(truth, lost)
print(log.counts())
again = log.of("fragmentation")
assert log.counts()["miss"] == 16 and again.frame.tolist() == [MEET + 3, MEET + 7] and log.counts()["switch"] == 0
figure_lost = viz.identities_figure(log, title="names are lost for a while")

# %%
# The log has what the metrics count, and straight lines between the boxes before and after fill the gaps: exactly here,
# as people walk straight on. A swap cannot be mended so.
repaired = mot.interpolate(lost, max_gap=8)
order = np.lexsort((truth.id, truth.frame))
np.testing.assert_allclose(repaired.box, truth.box[order], atol=1e-9)
assert len(mot.interpolate(lost, max_gap=7)) == len(lost), "longer gaps stay"

rows = {
    "swapped": swapped,
    "lost": lost,
    "lost, then filled": repaired,
    "swapped, then filled": mot.interpolate(swapped, 8),
}
for name, tracks in rows.items():
    score = mot.evaluate(truth, tracks).combined["all"]
    counts = mot.events(truth, tracks).counts()
    assert (counts["switch"], counts["miss"]) == (score["IDSW"], score["CLR_FN"])
    print(f"{name:21s} MOTA {score['MOTA']:.3f}  IDF1 {score['IDF1']:.3f}  HOTA {score['HOTA']:.3f}")
assert mot.evaluate(truth, repaired).combined["all"]["IDF1"] == 1.0
assert mot.evaluate(truth, swapped).combined["all"]["IDF1"] == 0.5

pictures = viz.tracks_figure(
    [(label, truth, tracks, mot.match(truth, tracks)) for label, tracks in list(rows.items())[:2]],
)
