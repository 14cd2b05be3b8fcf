r"""How a kernel is written, and run without a GPU
=================================================

A kernel is a text file that anyone can read. The overlap of boxes is the smallest one of the package: here is its text,
and here it runs on the CPU, each CUDA thread as a fiber, with every access checked. A forgotten barrier is found on a
laptop, not on a cluster.
"""

# %%
# What the file says of itself: formula, layout, launch, cost. The kernel is a function of its constants; what it gives
# is compiled by numba.cuda for a GPU, or by the runner in ``tests/hostrun`` for the CPU.
import importlib
import inspect
import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numba import cuda

import cv3gpu

sys.path.insert(0, str(Path(cv3gpu.__file__).parents[1]))  # the checkout, where tests are
hostrun = importlib.import_module("tests.hostrun")
kernels = importlib.import_module("cv3gpu.kernels.boxes")

print(kernels.__doc__[: kernels.__doc__.index("\norder\n")])

# %%
# The body: tiles of pairs, the rows' boxes in shared memory, two barriers. This is the text that runs, not a copy.
text = inspect.getsource(kernels.make_box_iou)
print(text[text.index("    def box_iou(") : text.rindex("    return")])

# %%
# A launch has a grid of blocks, a block of threads, and arrays. On the CPU the order of threads and blocks is drawn
# from a seed, so that what depends on a lucky order does not stay hidden.
rng = np.random.default_rng(0)
corner, size = rng.uniform(0, 90, (1, 70, 2)), rng.uniform(5, 30, (1, 70, 2))
a = np.concatenate([corner, corner + size], 2)
b = a[:, ::-1][:, :45] + rng.normal(0, 4, (1, 45, 4))
out = hostrun.poisoned((1, 70, 45), np.float64)  # NaN in every place that nobody writes

backend = hostrun.HostBackend(mode="check", order="random", seed=1)
launch = backend.numba_kernel(kernels.make_box_iou("float64", "xyxy", "iou"))
grid = kernels.tiles(1, 70, 45)
launch((grid, 1, 1), (kernels.COLUMNS, kernels.LANES, 1), [a, b, out])
print(f"{grid} blocks of {kernels.COLUMNS} x {kernels.LANES} threads, every access in bounds and in order")

# %%
# The result, against the definition in NumPy and against the CPU path.
low, high = np.maximum(a[:, :, None, :2], b[:, None, :, :2]), np.minimum(a[:, :, None, 2:], b[:, None, :, 2:])
inter = np.prod(np.maximum(high - low, 0), axis=3)
area_a, area_b = (np.prod(np.maximum(box[..., 2:] - box[..., :2], 0), axis=2) for box in (a, b))
union = area_a[:, :, None] + area_b[:, None] - inter
np.testing.assert_allclose(out, inter / union, rtol=1e-12, atol=0)
np.testing.assert_allclose(out, cv3gpu.box_iou(a, b), rtol=1e-12, atol=0)

# %%
# Now a mistake. Each thread hands its number on through shared memory, and nobody waits until all have written. On many
# days the result would be right. The runner does not look at results: it reports that nothing orders the two accesses.


def reversed_without_barrier(x, out):
    """Turns the numbers of a block round, and forgets to wait."""
    shared = cuda.shared.array(64, "float32")
    thread = cuda.threadIdx.x
    shared[thread] = x[thread]
    out[thread] = shared[63 - thread]


def reversed_with_barrier(x, out):
    """Turns the numbers of a block round."""
    shared = cuda.shared.array(64, "float32")
    thread = cuda.threadIdx.x
    shared[thread] = x[thread]
    cuda.syncthreads()
    out[thread] = shared[63 - thread]


x, y = np.arange(64, dtype=np.float32), np.zeros(64, np.float32)
report = ""
try:
    backend.numba_kernel(reversed_without_barrier)((1, 1, 1), (64, 1, 1), [x, y])
except hostrun.RaceError as error:
    report = str(error)
print(report)
assert "race on shared array" in report, "found"

backend.numba_kernel(reversed_with_barrier)((1, 1, 1), (64, 1, 1), [x, y])
assert np.array_equal(y, x[::-1])

# %%
# Which block computes what: the tiles of the launch above, over its result.
figure = Figure(figsize=(6.2, 7.4), layout="constrained")
axis = figure.subplots()
picture = axis.imshow(out[0], cmap="viridis", vmin=0, interpolation="nearest")
for row in range(kernels.ROWS, 70, kernels.ROWS):
    axis.axhline(row - 0.5, color="white", lw=2)
for column in range(kernels.COLUMNS, 45, kernels.COLUMNS):
    axis.axvline(column - 0.5, color="white", lw=2)
axis.set(xlabel="boxes of b", ylabel="boxes of a", title=f"Overlaps, in {grid} tiles of 64 x 32 pairs, a block each")
figure.colorbar(picture, label="IoU", shrink=0.6)
assert grid == 4
