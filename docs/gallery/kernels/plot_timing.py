r"""Timing an operator honestly
==============================

What is measured matters more than the number. The first call compiles or loads and does not count; calls that are
compared take turns, so that a machine that slows down slows all; a median with its spread says more than a minimum; and
bytes per second against what the memory can do says whether there is anything left to gain. The CPU here; on a GPU the
clock must stop after the work, not after the launch.
"""

# %%
# Two ways from small logits to labels: in one go, and by enlarging first.
import time

import numpy as np

import cv3gpu
from cv3gpu import viz

rng = np.random.default_rng(0)


def interleaved(calls, rounds=9):
    """Times [rounds] of each call, s: each is warmed up, then they take turns."""
    for call in calls.values():
        call()
    times = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            begin = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - begin)
    return {name: np.array(seconds) for name, seconds in times.items()}


sides = np.array([65, 129, 193, 257])
one_go, two_steps = [], []
for side in sides:
    logits = rng.standard_normal((1, 21, side // 8 + 1, side // 8 + 1)).astype(np.float32)
    size = (int(side), int(side))
    times = interleaved(
        {
            "one": lambda logits=logits, size=size: cv3gpu.upsample_argmax(logits, size),
            "two": lambda logits=logits, size=size: cv3gpu.interpolate(logits, size, mode="bilinear").argmax(1),
        }
    )
    one_go.append(np.percentile(times["one"], [50, 20, 80]))
    two_steps.append(np.percentile(times["two"], [50, 20, 80]))
    # What is timed must be right: nothing is faster than a wrong answer.
    assert np.array_equal(
        cv3gpu.upsample_argmax(logits, size), cv3gpu.interpolate(logits, size, mode="bilinear").argmax(1)
    )

# %%
# Median, 20th and 80th percentile against the number of pixels. A straight line of slope 1 is time in proportion to the
# output. The numbers are those of the machine that built this page, and nothing depends on them.
pixels = sides**2
series = {
    "upsample_argmax": (pixels, *np.array(one_go).T),
    "interpolate, argmax": (pixels, *np.array(two_steps).T),
}
figure = viz.scaling_figure(series, xlabel="pixels of the label map")

# %%
# Bytes per second need a stated count of bytes. In one go the logits are read and the labels written, and nothing else
# has to pass through memory; a copy of an array shows what this machine can do at best. On a CPU the sums take the
# time, not the memory.
side = int(sides[-1])
moved = logits.nbytes + 8 * side * side
big = np.zeros(1 << 23)
copied = np.median(interleaved({"copy": lambda: big.copy()}, rounds=5)["copy"])
median = one_go[-1][0]
print(f"upsample_argmax moves {moved / 1e6:.1f} MB in {1000 * median:.2f} ms: {moved / median / 1e9:.2f} GB/s")
print(f"a copy on this machine: {2 * big.nbytes / copied / 1e9:.1f} GB/s")
assert moved == 21 * 33 * 33 * 4 + 8 * 257 * 257

# %%
# The package's own measurements are made so: ``cv3gpu bench`` prints the table of this machine, with the peers that
# are installed, and the pages of results say device, date and command.
