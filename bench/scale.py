"""Two processes of a Dask cluster against one process, on tasks of half a second and more; results must be identical.

    python -m bench.scale [--write] [--seconds 0.7] [--tasks 12]
    python -m bench.scale --halo

Each job runs serially, then on two workers with a thread each, in the same run, alternating, and the medians are
compared. The jobs: a dense CRF for each image of a data set, sequences of tracks from files (many to a task), and one
image in chunks. The first row is without an engine: cores that share what they compute with do not give 2x to anybody.
"""

from __future__ import annotations

import argparse
import csv
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

os.environ.update({name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")})

import numpy as np

import cv3gpu
from cv3gpu import mot, scale
from cv3gpu._files import replacing
from cv3gpu._threads import cores, one_thread

RESULTS = Path(__file__).parent / "results" / "scale.csv"
WIDTHS = {"theta_alpha": 20.0, "theta_gamma": 3.0, "n_iter": 5}
WANTED = 1.7
HALOS = (
    (20.0, 5, "lattice"),
    (40.0, 5, "lattice"),
    (40.0, 10, "lattice"),
    (80.0, 5, "lattice"),
    (40.0, 5, "lattice_fine"),
)


class Job(NamedTuple):
    """What is computed in both ways, and how many tasks it makes on the cluster, each of about how many seconds."""

    name: str
    serial: Callable[[], Any]
    spread: Callable[[Any], Any]  # of a client
    same: Callable[[Any, Any], bool]


def segmented(path: str) -> np.ndarray:
    """Labels of an image by a dense CRF; the image is read here, on the worker."""
    with np.load(path) as held:
        return cv3gpu.dense_crf(held["unary"], held["image"], **WIDTHS).argmax(0).astype(np.uint8)


def photograph(size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Smooth coloured areas with noise, and noisy unaries of 4 labels."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 255, (1, 3, max(2, size // 32), max(2, size // 32))).astype(np.float32)
    image = cv3gpu.interpolate(coarse, (size, size), mode="bilinear")[0].transpose(1, 2, 0)
    image = np.clip(image + rng.normal(0, 8, image.shape), 0, 255).astype(np.uint8)
    p = rng.dirichlet(np.ones(4), (size, size)).transpose(2, 0, 1) + 0.3 * (
        image[..., 0] // 64 == np.arange(4)[:, None, None]
    )
    return image, -np.log(p / p.sum(0)).astype(np.float32)


def walkers(seed: int, frames: int) -> mot.Tracks:
    """Tracks of 40 walkers."""
    rng = np.random.default_rng(seed)
    frame, number = np.repeat(np.arange(1, frames + 1), 40), np.tile(np.arange(1, 41), frames)
    place = rng.uniform(0, 900, (40, 2))[number - 1] + 0.2 * frame[:, None] + rng.normal(0, 1, (len(frame), 2))
    return mot.Tracks(frame, number, np.c_[place, np.full((len(frame), 2), 60.0)])


def segmented_all(paths: list[str]) -> list[np.ndarray]:
    """`segmented` of each, in one thread."""
    with one_thread():
        return [segmented(path) for path in paths]


def image_files(folder: Path, seconds: float, tasks: int) -> tuple[list[str], int]:
    """Images that take so many seconds each, and their size."""
    size = 256
    image, unary = photograph(size, 0)
    np.savez(folder / "probe.npz", image=image, unary=unary)
    segmented(str(folder / "probe.npz"))
    begun = time.perf_counter()
    with one_thread():
        segmented(str(folder / "probe.npz"))
    size = int(size * max(1.0, seconds / (time.perf_counter() - begun)) ** 0.5)
    paths = [str(folder / f"{k}.npz") for k in range(tasks)]
    for k, path in enumerate(paths):
        image, unary = photograph(size, k)
        np.savez(path, image=image, unary=unary)
    return paths, size


def halves_job(folder: Path, seconds: float, tasks: int) -> Job:
    """The images of `images_job` in two processes without an engine, halved by hand: what the machine can give."""
    paths, size = image_files(folder, seconds, tasks)
    pool = ProcessPoolExecutor(2, get_context("spawn"))
    halves = [paths[: tasks // 2], paths[tasks // 2 :]]
    return Job(
        f"no engine: dense_crf, {tasks} images of {size}x{size} halved by hand",
        lambda: segmented_all(paths),
        lambda client: [labels for half in pool.map(segmented_all, halves) for labels in half],
        lambda a, b: all(map(np.array_equal, a, b)),
    )


def images_job(folder: Path, seconds: float, tasks: int) -> Job:
    """A dense CRF for each image of a folder."""
    paths, size = image_files(folder, seconds, tasks)
    return Job(
        f"map_items, dense_crf, {tasks} images of {size}x{size}",
        lambda: segmented_all(paths),
        lambda client: scale.map_items(segmented, paths, executor=client.get_executor()).values,
        lambda a, b: all(map(np.array_equal, a, b)),
    )


def sequences_job(folder: Path, seconds: float, tasks: int) -> Job:
    """Sequences of tracks, from files; about eight of them take the time of a task."""

    def files(n: int, frames: int) -> tuple[Path, Path]:
        for side in ("gt", "pred"):
            (folder / side).mkdir(exist_ok=True)
            for k in range(n):
                mot.write(folder / side / f"s{k}.txt", walkers(2 * k + (side == "pred"), frames))
        return folder / "gt", folder / "pred"

    class Serial:
        """An executor that works at once."""

        def submit(self, function: Any, task: Any) -> Any:
            from concurrent.futures import Future

            future: Future[Any] = Future()
            with one_thread():
                future.set_result(function(task))
            return future

    def serial() -> str:
        return mot.evaluate(*sides, executor=Serial()).to_json()  # type: ignore[arg-type]

    sides = files(1, 200)
    serial()
    begun = time.perf_counter()
    serial()
    frames = int(200 * max(1.0, seconds / 8 / (time.perf_counter() - begun)))
    sides = files(8 * tasks, frames)
    return Job(
        f"mot.evaluate, {8 * tasks} sequences of {frames} frames, 40 boxes each",
        serial,
        lambda client: mot.evaluate(*sides, executor=client.get_executor()).to_json(),
        lambda a, b: a == b,
    )


def read_chunk(folder: str, name: str, block_info: Any = None) -> np.ndarray:
    """A chunk of an image on disk, read by the worker."""
    return np.array(
        np.load(Path(folder) / name, mmap_mode="r")[tuple(slice(*span) for span in block_info[None]["array-location"])]
    )


def chunks_job(folder: Path, seconds: float, tasks: int) -> Job:
    """One image in chunks, by a dense CRF with a halo; serially, the same chunks one after the other."""
    import dask.array as da

    rows, columns = 3, max(2, tasks // 3)
    probe = photograph(256, 1)
    cv3gpu.dense_crf(probe[1], probe[0], **WIDTHS)
    begun = time.perf_counter()
    with one_thread():
        cv3gpu.dense_crf(probe[1], probe[0], **WIDTHS)
    side = max(128, int(256 * (seconds / (time.perf_counter() - begun)) ** 0.5) - 120)
    image, unary = photograph(side * max(rows, columns), 2)
    image, unary = image[: rows * side, : columns * side], unary[:, : rows * side, : columns * side]
    np.save(folder / "image.npy", image)
    np.save(folder / "unary.npy", unary)

    def lazy() -> Any:
        chunks = {
            "unary": ((4,), (side,) * rows, (side,) * columns),
            "image": ((side,) * rows, (side,) * columns, (3,)),
        }
        kinds = {"unary": np.float32, "image": np.uint8}
        u, i = (
            da.map_blocks(read_chunk, str(folder), f"{n}.npy", chunks=chunks[n], dtype=kinds[n],
                          meta=np.empty((0, 0, 0), kinds[n])) for n in chunks
        )  # fmt: skip
        return scale.dense_crf(u, i, halo=60, **WIDTHS).argmax(0).astype(np.uint8)

    def serial() -> np.ndarray:
        with one_thread():
            return lazy().compute(scheduler="synchronous")

    return Job(
        f"scale.dense_crf, {rows * columns} chunks of {side}x{side}, halo 60",
        serial,
        lambda client: lazy().compute(scheduler=client),
        np.array_equal,
    )


def halo_table() -> None:
    """Prints the error of a chunk of 100 x 100 in the middle of a photograph against its halo, for the dense CRF."""
    from skimage import data

    from cv3gpu.crf.operators import dense_crf_part

    image = np.ascontiguousarray(data.astronaut())
    rng, labels, first, last = np.random.default_rng(0), 5, 206, 306
    places = rng.integers(0, 512, labels), rng.integers(0, 512, labels)
    p = np.exp(-((image - image[places].astype(float)[:, None, None]) ** 2).sum(-1) / (2 * 40.0**2)) + 1e-9
    unary = -np.log(0.6 * p / p.sum(0) + 0.4 / labels).astype(np.float32)
    for theta, n_iter, method in HALOS:
        widths = {"theta_gamma": 3.0, "theta_alpha": theta, "theta_beta": 13.0, "n_iter": n_iter, "method": method}
        whole = cv3gpu.dense_crf(unary, image, **widths)[:, first:last, first:last]
        for halo in sorted(
            int(theta * share) for share in (0.5, 1, 1.5, 2, 2.5, 3, 3.5, 4, 5, 6) if theta * share <= 200
        ):
            begin, end = first - halo, last + halo
            part = (np.ascontiguousarray(x) for x in (unary[:, begin:end, begin:end], image[begin:end, begin:end]))
            options = {"compat_smooth": 3.0, "compat_bilateral": 10.0, "normalization": "symmetric"}
            q = dense_crf_part(*part, origin=(begin, begin), **widths, **options)[:, halo:-halo, halo:-halo]
            error, other = abs(q - whole), (q.argmax(0) != whole.argmax(0)).mean()
            name = f"{method} {theta:g}, {n_iter} iterations, halo {halo}"
            most = f"99 % of pixels {np.quantile(error.max(0), 0.99):.1e}, max {error.max():.1e}"
            print(f"{name}: mean {error.mean():.1e}, {most}, labels {100 * other:.2f} %", flush=True)


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds, and the result."""
    begun = time.perf_counter()
    found = function()
    return time.perf_counter() - begun, found


def main() -> int:
    """Prints the table; 1 if a result differs."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=0.7, help="of work in a task")
    parser.add_argument("--tasks", type=int, default=12, help="of each job")
    parser.add_argument("--runs", type=int, default=3, help="of each way; medians are compared")
    parser.add_argument("--write", action="store_true", help=f"save {RESULTS.name} in bench/results")
    parser.add_argument("--halo", action="store_true", help="print the error of halos instead, for docs/scale.md")
    given = parser.parse_args()
    if given.halo:
        halo_table()
        return 0
    from distributed import Client, LocalCluster

    print(f"{cores()} cores, load {os.getloadavg()[0]:.1f}; tasks of about {given.seconds} s")
    rows, wrong = [], 0
    options = {"n_workers": 2, "processes": True, "threads_per_worker": 1, "dashboard_address": None}
    with tempfile.TemporaryDirectory() as scratch, LocalCluster(**options) as cluster, Client(cluster) as client:
        for make in (halves_job, images_job, sequences_job, chunks_job):
            folder = Path(scratch) / make.__name__
            folder.mkdir()
            job = make(folder, given.seconds, given.tasks)
            job.spread(client)  # workers load and compile what they need
            pairs = [(timed(job.serial), timed(lambda job=job: job.spread(client))) for _ in range(given.runs)]
            same = all(job.same(one[1], two[1]) for one, two in pairs)
            serial, spread = (statistics.median(pair[k][0] for pair in pairs) for k in (0, 1))
            rows.append([job.name, f"{serial:.2f}", f"{spread:.2f}", f"{serial / spread:.2f}", "yes" if same else "NO"])
            wrong += not same
            mark = "" if serial / spread >= WANTED else f"  (below {WANTED})"
            print(f"{job.name}: serial {serial:.2f} s, 2 processes {spread:.2f} s, {serial / spread:.2f}x, "
                  f"identical: {rows[-1][-1]}{mark}", flush=True)  # fmt: skip
    if given.write and not wrong:
        with replacing(RESULTS) as unfinished, open(unfinished, "w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["job", "serial_s", "two_processes_s", "ratio", "identical"])
            writer.writerows(rows)
        print(f"wrote {RESULTS}")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
