"""Two processes against one, by a Dask cluster and without any engine; results must be identical.

    python -m bench.scale [--write] [--seconds 0.7] [--tasks 12] [--runs 5] [--only clusters]
    python -m bench.scale --halo

Each job runs serially, then in two processes that get half of the items each, then as tasks of half a second and more
on two Dask workers with a thread each; all in the same run, in turns. The best time of each way counts, as what else
runs on a machine only adds. Halves without an engine are what the machine gives to this kind of work: cores that share
what they compute with do not give 2x to anybody. Beside the times stand the seconds of CPU that all processes of a way
took together (the least of all runs): those of two processes against those of one tell what tasks cost more there, also
where a machine is shared and times say little. The jobs: k-means of few points (they stay in a core's cache), dense
CRFs of images, sequences of tracks from files (many to a task), and one image in chunks; and, without an engine only,
loops that ask for arithmetic, for a core's cache and for memory.
"""

from __future__ import annotations

import argparse
import csv
import functools
import json
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

os.environ.update({name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")})

import numpy as np

import cv3gpu
from cv3gpu import mot, scale
from cv3gpu._files import replacing
from cv3gpu._threads import cores, one_thread

from .peers import timed

RESULTS = Path(__file__).parent / "results" / "scale.csv"
WIDTHS = {"theta_alpha": 20.0, "theta_gamma": 3.0, "n_iter": 5}
HALOS = (
    (20.0, 5, "lattice"),
    (40.0, 5, "lattice"),
    (40.0, 10, "lattice"),
    (80.0, 5, "lattice"),
    (40.0, 5, "lattice_fine"),
)


class Job(NamedTuple):
    """What is computed in each way; `same` compares what comes of the first with that of another."""

    name: str
    serial: Callable[[], Any]
    halved: Callable[[Executor], Any]  # on a pool of two processes
    spread: Callable[[Any], Any] | None  # on a Dask client
    same: Callable[[Any, Any], bool]


def all_of(function: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
    """`function` of each, in one thread."""
    with one_thread():
        return [function(item) for item in items]


def halved(function: Callable[[Any], Any], items: Sequence[Any], pool: Executor) -> list[Any]:
    """`all_of`, half of the items in each of two processes."""
    middle = len(items) // 2
    halves = [items[:middle], items[middle:]]
    return [found for half in pool.map(functools.partial(all_of, function), halves) for found in half]


def items_job(name: str, function: Callable[[Any], Any], items: Sequence[Any], engine: bool = True) -> Job:
    """A function of arrays or numbers over items."""
    return Job(
        name,
        functools.partial(all_of, function, items),
        functools.partial(halved, function, items),
        (lambda client: scale.map_items(function, items, executor=client.get_executor()).values) if engine else None,
        lambda a, b: all(map(np.array_equal, a, b)),
    )


def seconds_of(function: Callable[[], Any]) -> float:
    """How long a second call takes, in one thread."""
    function()
    with one_thread():
        return timed(function)[1]


# ---- loops: what the machine gives --------------------------------------------------------------------------


def arithmetic(repeats: int) -> int:
    """Integers in Python."""
    total = 0
    for k in range(repeats):
        total += k * k
    return total


def added(repeats: int, size: int) -> float:
    """One array added to another, again and again."""
    x, y = np.zeros(size), np.ones(size)
    for _ in range(repeats):
        x += y
    return float(x[0])


LOOPS: dict[str, tuple[str, Callable[[int], Any], int]] = {
    "arithmetic": ("integers in Python", arithmetic, 1_000_000),
    "cache": ("x += y, 64 kB each", functools.partial(added, size=2**13), 100_000),
    "memory": ("x += y, 64 MB each", functools.partial(added, size=2**23), 20),
}


def loop_job(which: str, folder: Path, seconds: float, tasks: int) -> Job:
    """A loop of LOOPS."""
    name, function, repeats = LOOPS[which]
    repeats = max(1, int(repeats * seconds / seconds_of(lambda: function(repeats))))
    return items_job(f"{name}, {tasks} times", function, [repeats] * tasks, engine=False)


# ---- jobs -------------------------------------------------------------------------------------------------


def clustered(item: tuple[int, int]) -> np.ndarray:
    """Labels of 4,096 points in 8 dimensions: 128 kB."""
    seed, n_init = item
    x = np.random.default_rng(seed).normal(size=(4096, 8)).astype(np.float32)
    return cv3gpu.kmeans(x, 32, n_init=n_init, seed=seed).labels


def clusters_job(folder: Path, seconds: float, tasks: int) -> Job:
    """k-means, from as many beginnings as take the time of a task."""
    n_init = max(1, round(4 * seconds / seconds_of(lambda: clustered((0, 4)))))
    items = [(seed, n_init) for seed in range(tasks)]
    return items_job(f"map_items, kmeans, {tasks} times 4096 points from {n_init} beginnings", clustered, items)


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


def images_job(folder: Path, seconds: float, tasks: int) -> Job:
    """A dense CRF for each image of a folder, of a size that takes the time of a task."""
    probe = folder / "probe.npz"
    image, unary = photograph(256, 0)
    np.savez(probe, image=image, unary=unary)
    size = int(256 * max(1.0, seconds / seconds_of(lambda: segmented(str(probe)))) ** 0.5)
    paths = [str(folder / f"{k}.npz") for k in range(tasks)]
    for k, path in enumerate(paths):
        image, unary = photograph(size, k)
        np.savez(path, image=image, unary=unary)
    return items_job(f"map_items, dense_crf, {tasks} images of {size}x{size}", segmented, paths)


class Serial:
    """An executor that works at once."""

    def submit(self, function: Any, task: Any) -> Any:
        """The future of a task, done."""
        from concurrent.futures import Future

        future: Future[Any] = Future()
        with one_thread():
            future.set_result(function(task))
        return future


def told(folder: Path, executor: Any) -> list[str]:
    """The figures of each sequence of a folder, and those of all."""
    found = mot.evaluate(folder / "gt", folder / "pred", executor=executor).to_dict()
    return [json.dumps(figures) for figures in (*found["sequences"].values(), found["combined"])]


def told_alone(folder: str) -> list[str]:
    """The figures of each sequence of a folder."""
    return told(Path(folder), Serial())[:-1]


def sequence_files(folder: Path, numbers: Sequence[int], frames: int) -> None:
    """Ground truth and prediction of sequences."""
    for side in ("gt", "pred"):
        (folder / side).mkdir(parents=True)
        for k in numbers:
            mot.write(folder / side / f"s{k:03}.txt", walkers(2 * k + (side == "pred"), frames))


def sequences_job(folder: Path, seconds: float, tasks: int) -> Job:
    """Sequences of tracks, from files; about eight of them take the time of a task."""
    sequence_files(folder / "probe", [0], 200)
    frames = int(200 * max(1.0, seconds / 8 / seconds_of(lambda: told(folder / "probe", Serial()))))
    n = 8 * tasks
    parts = {"all": range(n), "first": range(n // 2), "second": range(n // 2, n)}
    for name, numbers in parts.items():
        sequence_files(folder / name, numbers, frames)
    halves = [str(folder / "first"), str(folder / "second")]
    return Job(
        f"mot.evaluate, {n} sequences of {frames} frames, 40 boxes each",
        lambda: told(folder / "all", Serial()),
        lambda pool: [one for half in pool.map(told_alone, halves) for one in half],
        lambda client: told(folder / "all", client.get_executor()),
        lambda a, b: len(a) - len(b) in (0, 1) and all(one == two for one, two in zip(a, b, strict=False)),
    )


def read_chunk(folder: str, name: str, block_info: Any = None) -> np.ndarray:
    """A chunk of an image on disk, read by the worker."""
    return np.array(
        np.load(Path(folder) / name, mmap_mode="r")[tuple(slice(*span) for span in block_info[None]["array-location"])]
    )


def in_chunks(folder: str, side: int, rows: int, columns: int) -> Any:
    """Labels of the image of a folder, as a dask array of chunks of so many pixels a side."""
    import dask.array as da

    sides = (side,) * rows, (side,) * columns
    chunks: dict[str, Any] = {"unary": ((4,), *sides), "image": (*sides, (3,))}
    kinds = {"unary": np.float32, "image": np.uint8}
    unary, image = (
        da.map_blocks(
            read_chunk, folder, f"{name}.npy", chunks=chunks[name], dtype=kinds[name],
            meta=np.empty((0, 0, 0), kinds[name]),
        )
        for name in chunks
    )  # fmt: skip
    return scale.dense_crf(unary, image, halo=60, **WIDTHS).argmax(0).astype(np.uint8)


def columns_of(part: slice, folder: str, side: int, rows: int, columns: int) -> np.ndarray:
    """Some columns of chunks of `in_chunks`, in one thread."""
    with one_thread():
        return in_chunks(folder, side, rows, columns).blocks[:, part].compute(scheduler="synchronous")


def chunks_job(folder: Path, seconds: float, tasks: int) -> Job:
    """One image in chunks, by a dense CRF with a halo; serially, the same chunks one after the other."""
    rows, columns = 3, max(2, tasks // 6 * 2)
    probe = photograph(256, 1)
    took = seconds_of(lambda: cv3gpu.dense_crf(probe[1], probe[0], **WIDTHS))
    side = max(128, int(256 * (seconds / took) ** 0.5) - 120)
    image, unary = photograph(side * max(rows, columns), 2)
    np.save(folder / "image.npy", image[: rows * side, : columns * side])
    np.save(folder / "unary.npy", unary[:, : rows * side, : columns * side])
    given = str(folder), side, rows, columns
    halves = [slice(None, columns // 2), slice(columns // 2, None)]
    return Job(
        f"scale.dense_crf, {rows * columns} chunks of {side}x{side}, halo 60",
        lambda: columns_of(slice(None), *given),
        lambda pool: np.concatenate(
            list(pool.map(columns_of, halves, *([one] * len(halves) for one in given))), axis=1
        ),
        lambda client: in_chunks(*given).compute(scheduler=client),
        np.array_equal,
    )


JOBS: dict[str, Callable[[Path, float, int], Job]] = {
    **{which: functools.partial(loop_job, which) for which in LOOPS},
    "clusters": clusters_job,
    "images": images_job,
    "sequences": sequences_job,
    "chunks": chunks_job,
}
COLUMNS = (
    "work", "job", "serial_s", "serial_cpu_s", "halves_s", "halves_cpu_s", "halves_ratio", "dask_s", "dask_cpu_s",
    "dask_ratio", "identical",
)  # fmt: skip


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


def cpu_seconds(processes: Sequence[Any]) -> float:
    """What processes of psutil have computed so far."""
    return sum(sum(one.cpu_times()[:2]) for one in processes)


def measured(job: Job, pool: ProcessPoolExecutor, client: Any, runs: int) -> tuple[list[str], bool]:
    """A row of the table, and whether all ways gave the same."""
    import psutil

    ways: dict[str, Callable[[], Any]] = {"serial": job.serial, "halves": functools.partial(job.halved, pool)}
    if job.spread is not None:
        ways["dask"] = functools.partial(job.spread, client)
    for name in list(ways)[1:]:
        ways[name]()  # processes load and compile what they need
    ids = {"serial": [os.getpid()], "halves": list(pool._processes), "dask": list(client.run(os.getpid).values())}
    best, same = {name: (float("inf"), float("inf")) for name in ways}, True
    for _ in range(runs):
        found = {}
        for name, way in ways.items():
            processes = [psutil.Process(one) for one in ids[name]]
            before = cpu_seconds(processes)
            found[name], seconds = timed(way)
            took = seconds, cpu_seconds(processes) - before
            best[name] = (min(best[name][0], took[0]), min(best[name][1], took[1]))
        same = same and all(job.same(found["serial"], other) for other in found.values())
    row = [job.name, *(f"{value:.2f}" for value in best["serial"])]
    for name in ("halves", "dask"):
        ratio = best["serial"][0] / best[name][0] if name in best else 0.0
        row += [f"{value:.2f}" for value in (*best[name], ratio)] if name in best else [""] * 3
    return [*row, "yes" if same else "NO"], same


def main() -> int:
    """Prints the table; 1 if a result differs."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=0.7, help="of work in a task")
    parser.add_argument("--tasks", type=int, default=12, help="of each job")
    parser.add_argument("--runs", type=int, default=5, help="of each way; the best count")
    parser.add_argument("--only", nargs="+", choices=list(JOBS), help="these jobs alone")
    parser.add_argument("--write", action="store_true", help=f"keep the rows in bench/results/{RESULTS.name}")
    parser.add_argument("--halo", action="store_true", help="print the error of halos instead, for docs/scale.md")
    given = parser.parse_args()
    if given.halo:
        halo_table()
        return 0
    from distributed import Client, LocalCluster

    print(f"{cores()} cores, load {os.getloadavg()[0]:.1f}; tasks of about {given.seconds} s")
    rows, wrong = [], 0
    options = {"n_workers": 2, "processes": True, "threads_per_worker": 1, "dashboard_address": None}
    with (
        tempfile.TemporaryDirectory() as scratch,
        ProcessPoolExecutor(2, get_context("spawn")) as pool,
        LocalCluster(**options) as cluster,
        Client(cluster) as client,
    ):
        print(f"cores that the workers may use: {', '.join(map(str, client.run(cores).values()))}")
        for name in given.only or JOBS:
            folder = Path(scratch) / name
            folder.mkdir()
            row, same = measured(JOBS[name](folder, given.seconds, given.tasks), pool, client, given.runs)
            rows.append(row)
            wrong += not same
            line = [f"{row[0]}: serial {row[1]} s ({row[2]} s of CPU)", f"two halves {row[3]} s ({row[4]}), {row[5]}x"]
            line += [f"Dask {row[6]} s ({row[7]}), {row[8]}x"] if row[6] else []
            print(", ".join([*line, f"identical: {row[9]}"]), flush=True)
    if given.write and not wrong:
        known = {row[0]: row for row in csv.reader(RESULTS.open())} if RESULTS.exists() else {}
        known |= {name: [name, *row] for name, row in zip(given.only or JOBS, rows, strict=True)}
        with replacing(RESULTS) as unfinished, open(unfinished, "w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(COLUMNS)
            writer.writerows(known[name] for name in JOBS if name in known)
        print(f"wrote {RESULTS}")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
