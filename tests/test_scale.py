"""More than one machine: data sets and sequences on executors, images in chunks; all as in one piece."""

from __future__ import annotations

import functools
import importlib
import os
import subprocess
import sys
import threading
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cv3gpu
from cv3gpu import BackendUnavailableError, DataFormatError, _array, _tasks, _threads, mot, scale
from cv3gpu.scale import _tiles
from tests.conftest import need_gpu
from tests.tolerance import assert_close

da = pytest.importorskip("dask.array", reason="needs dask")
cloudpickle = pytest.importorskip("cloudpickle", reason="comes with dask")
HERE = {"scheduler": "synchronous"}


@pytest.fixture(scope="module")
def client():
    """A cluster of two processes with a thread each."""
    distributed = pytest.importorskip("distributed", reason="needs distributed")
    with (
        distributed.LocalCluster(n_workers=2, processes=True, threads_per_worker=1, dashboard_address=None) as cluster,
        distributed.Client(cluster) as found,
    ):
        yield found


# ---- a function over items --------------------------------------------------------------------------------


class Awkward(Exception):
    """An error that pickles, and can't be made again from what was pickled."""

    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


def enlarged(path):
    """What a worker does with an image; some names ask for trouble."""
    name = Path(path).stem
    if name == "awkward":
        raise Awkward(1, 2)
    if name == "lock":
        return threading.Lock()
    image = np.load(path)
    return cv3gpu.interpolate(image, scale_factor=2, mode="bilinear")


def process_id(item):
    """Where an item is worked at, and whether it shares its process's threads."""
    return os.getpid(), getattr(_threads._worker, "inside", False)


@pytest.fixture
def images(tmp_path):
    rng = np.random.default_rng(0)
    paths = []
    for k in range(7):
        paths.append(tmp_path / f"{k}.npy")
        np.save(paths[-1], rng.random((1, 2, 5 + k, 9)))
    return paths


def test_items_are_as_in_a_loop_on_every_executor(images, client):
    want = [enlarged(path) for path in images]
    for executor in (None, ThreadPoolExecutor(3), client.get_executor()):
        told = []
        found = scale.map_items(enlarged, images, executor=executor, progress=lambda *n, told=told: told.append(n))
        assert found.made == 7 and not found.failures and told == [(k, 7) for k in range(1, 8)]
        for got, wanted in zip(found.values, want, strict=True):
            np.testing.assert_array_equal(got, wanted)
    operator = functools.partial(cv3gpu.interpolate, scale_factor=2, mode="bilinear")
    given = [*map(np.load, images), "no array"]
    found = scale.map_items(operator, given, executor=client.get_executor(), on_error="keep")
    assert list(found.failures) == [7] and "x must be a NumPy, CuPy or torch array, got str" in str(found.failures[7])
    for got, wanted in zip(found.values[:7], want, strict=True):
        np.testing.assert_array_equal(got, wanted)
        assert got.flags.aligned
    assert scale.map_items(enlarged, []) == ([], {}, 0)


def test_items_compute_in_one_thread_of_another_process(client):
    found = scale.map_items(process_id, range(20), executor=client.get_executor()).values
    assert os.getpid() not in {process for process, _ in found} and all(inside for _, inside in found)
    assert scale.map_items(process_id, range(3)).values == [(os.getpid(), False)] * 3
    assert not getattr(_threads._worker, "inside", False)


@pytest.mark.parametrize("where", ["threads", "dask"])
def test_one_failing_item_loses_nothing_of_the_others(images, client, where):
    executor = client.get_executor() if where == "dask" else None
    items = [*images[:3], images[0].with_name("gone.npy"), images[3], Path("awkward"), *images[4:]]
    kept = scale.map_items(enlarged, items, executor=executor, on_error="keep")
    assert list(kept.failures) == [3, 5] and kept.made == 7 and kept.values[3] is None
    assert isinstance(kept.failures[3], FileNotFoundError) and kept.failures[3].filename == str(items[3])
    for i in (0, 1, 2, 4, 6, 7, 8):
        np.testing.assert_array_equal(kept.values[i], enlarged(items[i]))
    with pytest.raises(FileNotFoundError) as caught:
        scale.map_items(enlarged, items, executor=executor)
    notes = caught.value.__notes__
    assert notes[0] == f"item 3, {items[3]!r}, failed"
    assert notes[1].startswith("item 5, PosixPath('awkward'), failed: ") and notes[1].endswith("1 and 2")
    assert notes[2].startswith("7 of 9 items went well") and caught.value.mapped.made == 7
    if where == "dask":
        assert type(kept.failures[5]) is RuntimeError and str(kept.failures[5]) == "Awkward: 1 and 2"
        assert "in enlarged" in str(kept.failures[5].__cause__)
        assert "No such file" in str(kept.failures[3].__cause__)
    else:
        assert type(kept.failures[5]) is Awkward


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's thresholds")
@pytest.mark.parametrize("dask", [True, False])
def test_temporaries_stay_with_a_worker(dask):
    """What Dask's setting costs: each array mapped anew, a fault for each page. A task has none; what it kept goes."""
    code = """if True:
        import resource, threading
        import numpy as np
        from cv3gpu import _tasks
        def temporaries():
            begun = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
            for _ in range(10):
                arrays = [np.ones(100_000) for _ in range(10)]
                del arrays
            return resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - begun
        def resident():
            with open("/proc/self/statm") as file:
                return int(file.read().split()[1])
        def run():
            temporaries()
            before = temporaries()
            with _tasks.worker(), _tasks.worker():
                temporaries()
                inside = temporaries()
                kept = resident()
            np.ones(100_000)
            print(before, inside, temporaries(), kept - resident())
        run()
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
    """
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}
    environment |= {"MALLOC_TRIM_THRESHOLD_": "65536"} if dask else {}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    assert not done.stderr
    for line in done.stdout.splitlines():
        before, inside, after, returned = map(int, line.split())
        if dask:
            assert before > 15_000 and after > 15_000  # the premise: 100 arrays of 195 pages
            assert inside < 500 and returned > 500
        else:
            assert abs(before - after) < 500  # nothing is set where nothing was
    assert len(done.stdout.splitlines()) == 2


def test_what_does_not_travel_is_named(images, client):
    found = scale.map_items(enlarged, [images[0], Path("lock")], executor=client.get_executor(), on_error="keep")
    assert list(found.failures) == [1] and isinstance(found.failures[1], TypeError)
    assert str(found.failures[1]).startswith("a result must pickle to leave its process, got lock (TypeError: cannot p")
    doubled = scale.map_items(lambda x: 2 * x, range(3), executor=client.get_executor())
    assert doubled.values == [0, 2, 4]
    with ProcessPoolExecutor(1) as pool, pytest.raises(TypeError, match=r"map_items: function must pickle to travel"):
        scale.map_items(lambda x: x, range(3), executor=pool)
    lock = threading.Lock()
    with pytest.raises(TypeError, match=r"function must pickle .* define it at the top of a module"):
        scale.map_items(lambda x: lock, range(3), executor=client.get_executor())


def test_a_run_goes_on_where_it_was(images, client, tmp_path):
    def output(path):
        return tmp_path / "out" / Path(path).name

    (tmp_path / "out").mkdir()
    items = [*images[:3], tmp_path / "later.npy"]
    begun = scale.map_items(enlarged, items, output=output, executor=client.get_executor(), on_error="keep")
    assert begun.made == 3 and list(begun.failures) == [3] and begun.values[0] == str(output(items[0]))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["0.npy", "1.npy", "2.npy"]
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    np.save(items[3], np.load(images[4]))
    told = []
    ended = scale.map_items(enlarged, items, output=output, progress=lambda *n: told.append(n))
    assert ended.made == 1 and told == [(3, 4), (4, 4)] and not ended.failures
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())
    for item, path in zip(items, ended.values, strict=True):
        np.testing.assert_array_equal(np.load(path), enlarged(item))


def test_a_file_appears_whole_or_not_at_all(images, tmp_path):
    def save(path, result):
        Path(path).write_text("half")
        if result.shape[2] > 12:
            raise OSError("disk full")

    found = scale.map_items(enlarged, images, output=lambda p: tmp_path / f"{p.stem}.txt", save=save, on_error="keep")
    assert sorted(found.failures) == [2, 3, 4, 5, 6]
    assert sorted(p.name for p in tmp_path.glob("*.txt")) == ["0.txt", "1.txt"] and not list(tmp_path.glob(".*"))


class Inline:
    """An executor of two workers that works at once, keeps the sizes of tasks, and loses those with some item."""

    _max_workers = 2

    def __init__(self, lost=None):
        self.sizes, self.lost = [], lost

    def submit(self, function, task):
        self.sizes.append(len(task.items))
        future = Future()
        if self.lost in task.items:
            future.set_exception(EOFError("the worker has died"))
        else:
            future.set_result(function(task))
        return future


def test_small_items_go_together():
    pool = Inline()
    assert scale.map_items(abs, range(1000), executor=pool).values == list(range(1000))
    assert pool.sizes[0] == 1 and len(pool.sizes) < 100 and sum(pool.sizes) == 1000
    stream = _tasks._Stream(abs, range(1000), pool, None)
    stream.rate = 0.01  # seconds an item: half a second is 50 of them
    assert [len(stream._cut()) for _ in range(3)] == [50, 50, 50]
    stream.unsent = 40.0
    assert len(stream._cut()) == 10  # the rest shared out, twice to each worker
    weighed = _tasks._Stream(abs, [100, 10, 10, 10, 100], pool, float)
    weighed.rate, weighed.unsent = 0.01, 1e9
    assert [weighed._cut() for _ in range(3)] == [range(1), range(1, 4), range(4, 5)]


def test_a_task_that_fails_as_a_whole_is_tried_item_by_item():
    found = scale.map_items(abs, range(500), executor=(pool := Inline(lost=300)), on_error="keep")
    assert list(found.failures) == [300] and max(pool.sizes) > 1
    assert found.values == [None if i == 300 else i for i in range(500)]
    assert found.failures[300].__notes__ == [_tasks.NOT_BACK]


def test_a_pool_that_can_take_no_more_keeps_what_is_done():
    class Closing(Inline):
        def submit(self, function, task):
            if len(self.sizes) == 4:
                raise RuntimeError("cannot schedule new futures after shutdown")
            return super().submit(function, task)

    found = scale.map_items(abs, range(9), executor=Closing(), on_error="keep")
    assert found.values[:4] == [0, 1, 2, 3] and list(found.failures) == [4, 5, 6, 7, 8]


@pytest.mark.parametrize(
    "options, error, text",
    [
        (dict(function=3), TypeError, "map_items: function must be a function, got int"),
        (dict(items="a.png"), TypeError, "map_items: items must be an iterable of items, got str"),
        (dict(items=3), TypeError, "map_items: items must be an iterable of items, got int"),
        (dict(executor=4), TypeError, "map_items: executor must be a concurrent.futures.Executor, got 4"),
        (dict(on_error="skip"), ValueError, "map_items: on_error must be one of 'raise', 'keep', got 'skip'"),
        (dict(progress=1), TypeError, "map_items: progress must be a function, got int"),
        (dict(save=print), ValueError, "map_items: save must be given with output only, got no output"),
        (dict(output=lambda i: 3), TypeError, "map_items: output must be a path, got int"),
        (dict(output=lambda i: "a.png"), ValueError, "output must end in .npy where there is no save, got 'a.png'"),
        (dict(output=lambda i: "a.npy"), ValueError, "output must be another path for each item, got 'a.npy' twice"),
    ],
    ids=lambda value: None,
)
def test_items_refused(options, error, text):
    with pytest.raises(error) as caught:
        scale.map_items(**{"function": abs, "items": [1, 2], **options})
    assert text in str(caught.value)


# ---- sequences ------------------------------------------------------------------------------------------


def walk(seed, n=40):
    rng = np.random.default_rng(seed)
    frame, number = np.repeat(np.arange(1, n + 1), 5), np.tile(np.arange(1, 6), n)
    box = np.c_[10.0 * number + 0.3 * frame + rng.random(5 * n), frame + rng.random(5 * n), np.full((5 * n, 2), 8.0)]
    return mot.Tracks(frame, number, box)


def test_sequences_on_a_cluster(client, tmp_path):
    for side in ("gt", "pred"):
        (tmp_path / side).mkdir()
        for k in range(8):
            mot.write(tmp_path / side / f"s{k}.txt", walk(k + (side == "pred")))
    folders = tmp_path / "gt", tmp_path / "pred"
    whole = mot.evaluate(*folders)
    cluster = mot.evaluate(*folders, executor=client.get_executor())
    assert cluster.to_json() == whole.to_json() and not whole.failures
    (folders[1] / "s3.txt").write_text("1,1,0,0,9\n")
    kept = mot.evaluate(*folders, executor=client.get_executor(), on_error="keep")
    others = {name: figures for name, figures in whole.to_dict()["sequences"].items() if name != "s3"}
    told = kept.to_dict()
    assert told["sequences"] == others and list(told) == ["sequences", "failures"]
    assert told["failures"]["s3"].startswith("DataFormatError: ") and "s3.txt:1: line must have" in str(told)
    assert isinstance(kept.failures["s3"], DataFormatError)
    with pytest.raises(DataFormatError, match=r"s3.txt:1") as caught:
        mot.evaluate(*folders, executor=client.get_executor())
    assert caught.value.__notes__[-1].startswith("7 of 8 sequences went well")
    assert caught.value.report.to_dict()["sequences"] == others


def test_a_report_with_failures_has_no_total():
    wrong = mot.Tracks([1], [-1], [[0, 0, 9, 9]])
    report = mot.evaluate({"a": walk(0), "b": walk(1)}, {"a": walk(2), "b": wrong}, on_error="keep")
    assert repr(report) == "Report(1 sequences, all, 1 failed)" and not report.combined
    with pytest.raises(ValueError, match=r"combined must be of all sequences, got 1 of 2 that failed: 'b'; their err"):
        report.combined["all"]
    lines = str(report).splitlines()
    assert "COMBINED" not in str(report) and lines[1].startswith("a ") and lines[-1].startswith("FAILED b: ")
    rows = report.to_csv().splitlines()
    assert rows[1].startswith("a,all,") and rows[2].startswith("b,FAILED,,") and len(rows) == 3
    nothing = mot.evaluate({"b": walk(1)}, {"b": wrong}, on_error="keep")
    assert not nothing.sequences and str(nothing).startswith("FAILED b: ") and nothing.to_csv()
    with pytest.raises(ValueError, match=r"mot.evaluate: on_error must be one of 'raise', 'keep', got 'drop'"):
        mot.evaluate({"b": walk(1)}, {"b": walk(1)}, on_error="drop")


# ---- images in chunks: operators of finite reach ------------------------------------------------------------


def chunked(x, *chunks):
    return da.from_array(x, chunks=chunks)


RESIZES = [
    ("nearest", (48, 72), (96, 144), {}),
    ("nearest-exact", (48, 72), (24, 36), {}),
    ("nearest", (60, 60), (20, 100), {}),
    ("bilinear", (48, 72), (192, 72), {}),
    ("bilinear", (60, 72), (80, 54), {}),
    ("bilinear", (49, 73), (97, 145), {"align_corners": True}),
    ("bilinear", (61, 73), (41, 25), {"align_corners": True}),
    ("bicubic", (48, 72), (96, 24), {}),
    ("bicubic", (60, 72), (84, 96), {}),
    ("bicubic", (61, 73), (81, 97), {"align_corners": True}),
    ("bilinear", (64, 96), (32, 24), {"antialias": True}),
    ("bicubic", (60, 96), (20, 36), {"antialias": True}),
]


@pytest.mark.parametrize("mode, size, out, options", RESIZES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_resize_in_chunks(mode, size, out, options, dtype):
    x = np.random.default_rng(1).normal(size=(2, 3, *size)).astype(dtype)
    want = cv3gpu.interpolate(x, size=out, mode=mode, **options)
    for chunks in ((1, 2, 20, 24), (2, 3, 13, 72), (2, 3, 100, 9)):
        got = scale.interpolate(chunked(x, *chunks), size=out, mode=mode, **options)
        assert got.shape == want.shape and got.dtype == want.dtype
        assert max(len(got.chunks[2]), len(got.chunks[3])) > 1
        got = got.compute(**HERE)
        if "antialias" not in options:
            np.testing.assert_array_equal(got, want)
        else:
            scale_ = np.full(want.shape, 4 * np.abs(x).max())
            assert_close(got, want.astype(np.float64), dtype, terms=64, scale=scale_)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    st.integers(1, 6), st.integers(1, 6), st.integers(12, 20), st.sampled_from(["bilinear", "bicubic"]),
    st.booleans(), st.booleans(), st.data(),
)  # fmt: skip
def test_any_ratio_in_any_chunks(p, q, periods, mode, corners, antialias, data):
    n, m = p * periods + corners, q * periods + data.draw(st.integers(0, 3)) + corners
    widths = data.draw(st.lists(st.integers(1, n), min_size=1, max_size=4).filter(lambda w: sum(w) <= n))
    chunks = tuple(w for w in (*widths, n - sum(widths)) if w)
    x = np.random.default_rng(n).random((1, 1, n, 4))
    given = {"scale_factor": (m / n + 1e-3, 1)} if data.draw(st.booleans()) else {"size": (m, 4)}
    options = {**given, "mode": mode, "align_corners": corners, "antialias": antialias}
    want = cv3gpu.interpolate(x, **options)
    got = scale.interpolate(da.from_array(x, chunks=(1, 1, chunks, 4)), **options)
    assert got.shape == want.shape
    np.testing.assert_allclose(got.compute(**HERE), want, rtol=0, atol=1e-13 if antialias else 0)


@pytest.mark.parametrize("mode, size, out, options, kernels", [
    ("bilinear", (24, 24), (48, 16), {}, True),
    ("bilinear", (25, 19), (13, 37), {"align_corners": True}, True),
    ("bicubic", (48, 60), (24, 60), {"antialias": True}, True),
    ("bicubic", (23, 24), (41, 48), {}, False),
    ("nearest", (24, 29), (31, 24), {}, False),
    ("bilinear", (53, 51), (41, 30), {"antialias": True}, False),
    ("bilinear", (24, 24), None, {"scale_factor": 1.49}, False),
])  # fmt: skip
def test_resize_in_chunks_on_the_kernel_path(mode, size, out, options, kernels, host_backend):
    """By the kernels where chunks begin as the image does, by gathers elsewhere."""
    x = np.random.default_rng(1).normal(size=(1, 2, *size)).astype(np.float32)
    lazy = scale.interpolate(chunked(x, 1, 2, size[0] // 2, 10), size=out, mode=mode, **options)
    assert len(lazy.chunks[2]) * len(lazy.chunks[3]) > 2
    got = lazy.compute(**HERE)
    assert (host_backend.stats["launches"] > 0) == kernels
    token = _array.host_backend.set(None)
    want = cv3gpu.interpolate(x, size=out, mode=mode, **options)
    _array.host_backend.reset(token)
    assert_close(got, want.astype(np.float64), "float32", terms=16, scale=np.full(want.shape, 4 * np.abs(x).max()))


@pytest.mark.parametrize("taps, dilation", [((3, 3), 1), ((5, 2), (2, 3)), ((1, 4), 1), ((3, 3), 9)])
def test_convolution_in_chunks(taps, dilation):
    rng = np.random.default_rng(2)
    x, weight, bias = rng.normal(size=(1, 4, 40, 52)), rng.normal(size=(6, 2, *taps)), rng.normal(size=6)
    want = cv3gpu.conv2d(x, weight, bias, padding="same", dilation=dilation, groups=2)
    got = scale.conv2d(chunked(x, 1, 2, 13, 20), weight, bias, dilation=dilation, groups=2).compute(**HERE)
    terms = cv3gpu.conv2d(np.abs(x), np.abs(weight), np.abs(bias), padding="same", dilation=dilation, groups=2)
    assert_close(got, want, "float64", terms=2 * taps[0] * taps[1], scale=terms)


def test_a_halo_wider_than_the_image():
    x, weight = np.random.default_rng(2).normal(size=(1, 1, 3, 40)), np.ones((1, 1, 9, 9))
    got = scale.conv2d(chunked(x, 1, 1, 1, 20), weight).compute(**HERE)
    np.testing.assert_allclose(got, cv3gpu.conv2d(x, weight, padding="same"), rtol=0, atol=1e-12)
    got = scale.interpolate(chunked(x, 1, 1, 1, 1), size=(2, 5), mode="bicubic").compute(**HERE)
    np.testing.assert_array_equal(got, cv3gpu.interpolate(x, size=(2, 5), mode="bicubic"))


def test_places_of_chunks():
    """Each chunk is told where it lies, and not of the others: a side may have 10,000 of them."""
    one = _tiles.side((30,) * 10_000, 4, 8, (10, 7), 210_000)
    places = one.places()
    assert one.chunks == (30,) * 10_000 and one.out_chunks == (21,) * 10_000 and places.shape == (10_000,)
    assert _tiles.Place(*places[0].item()) == (0, 0, 0, 21)
    assert _tiles.Place(*places[-1].item()) == (299_966, 0, 209_979, 21)
    assert _tiles.Place(*_tiles.side((30, 30), 20, 20, (10, 7), 42).places()[1].item()) == (10, 14, 21, 21)
    assert _tiles.side((5, 5, 40, 3), 10, 4) == ((0, 10, 53), (0, 10, 53), 10, 4, (1, 1))
    lazy = scale.interpolate(da.zeros((1, 1, 8, 40_000), chunks=(1, 1, 8, 20)), size=(9, 40_001), mode="bilinear")
    tasks = [task for layer in lazy.dask.layers.values() for task in list(layer.values())[:20]]
    assert len(lazy.chunks[3]) == 2000 and max(len(cloudpickle.dumps(task)) for task in tasks) < 5_000


@pytest.mark.parametrize("options", [
    {"radius": 3}, {"radius": 4.5, "inclusive": True}, {"radius": 3, "stored": False}, {"radius": 4, "kind": "intervening_contour"},
], ids=str)  # fmt: skip
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_affinities_in_chunks(options, dtype):
    rng = np.random.default_rng(3)
    image, x = rng.random((37, 46)).astype(dtype), rng.random((37, 46, 3)).astype(dtype)
    affinity = cv3gpu.pixel_affinity(image, **options)
    degree = scale.affinity_degree(chunked(image, 12, 17), **options).compute(**HERE)
    np.testing.assert_array_equal(degree.ravel(), affinity.degree)
    product = scale.affinity_product(chunked(image, 12, 17), chunked(x, 11, 46, 2), **options).compute(**HERE)
    want = (affinity @ x.reshape(-1, 3)).reshape(x.shape)
    assert_close(product, want.astype(np.float64), dtype, terms=81, scale=want)
    if "kind" not in options:
        colours = rng.random((37, 46, 2)).astype(dtype)
        got = scale.affinity_degree(chunked(colours, 12, 17, 1), **options).compute(**HERE)
        np.testing.assert_array_equal(got.ravel(), cv3gpu.pixel_affinity(colours, **options).degree)


def test_chunks_on_a_cluster(client):
    x = np.random.default_rng(4).random((1, 1, 64, 64)).astype(np.float32)
    assert client.scheduler_info()["workers"]
    got = scale.interpolate(chunked(x, 1, 1, 16, 16), scale_factor=2, mode="bicubic").compute(scheduler=client)
    np.testing.assert_array_equal(got, cv3gpu.interpolate(x, scale_factor=2, mode="bicubic"))
    unary = -np.log(np.random.default_rng(5).dirichlet(np.ones(3), (40, 60)).transpose(2, 0, 1))
    got = scale.dense_crf(chunked(unary, 3, 40, 30), halo=40, theta_gamma=1, n_iter=2).compute(scheduler=client)
    want = cv3gpu.dense_crf(unary, theta_gamma=1, n_iter=2)
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-12)


# ---- images in chunks: the CRF ------------------------------------------------------------------------------


def photograph(size, labels=3):
    """A part of a photograph, and unaries by the distance of its colours to some of them."""
    data = importlib.import_module("skimage.data")
    image = np.ascontiguousarray(data.astronaut()[40 : 40 + size[0], 120 : 120 + size[1]])
    rng = np.random.default_rng(0)
    colours = image[rng.integers(0, size[0], labels), rng.integers(0, size[1], labels)].astype(float)
    p = np.exp(-((image - colours[:, None, None]) ** 2).sum(-1) / (2 * 40.0**2)) + 1e-9
    return image, -np.log(0.6 * p / p.sum(0) + 0.4 / labels)


@pytest.mark.parametrize("normalization", ["symmetric", "before", "after", "none"])
def test_crf_with_the_halo_of_no_error(normalization):
    image, unary = photograph((101, 175))
    widths = {"theta_alpha": (3, 2.5), "theta_gamma": 1, "theta_beta": 20, "n_iter": 2, "normalization": normalization}
    halo = scale.crf_halo(0, theta_alpha=(3, 2.5), theta_gamma=1, n_iter=2)
    assert halo == (30, 32)
    got = scale.dense_crf(chunked(unary, 1, 50, 60), chunked(image, 50, 100, 3), halo=halo, **widths)
    assert got.chunks[1:] == ((50, 51), (60, 60, 55))
    error = abs(got.compute(**HERE) - cv3gpu.dense_crf(unary, image, **widths))
    assert error.max() < 1e-9
    near = scale.dense_crf(chunked(unary, 3, 50, 60), chunked(image, 50, 60, 3), halo=4, **widths).compute(**HERE)
    assert abs(near - cv3gpu.dense_crf(unary, image, **widths)).max() > 1e-6  # the test can fail


def test_a_chunk_with_a_lattice_of_its_own_would_differ():
    """What the origin is for: the same pixels, more than the lattice's reach from the cut, on another lattice."""
    image, unary = photograph((60, 160))
    widths = {"theta_alpha": 3, "theta_gamma": 1, "n_iter": 2}
    whole = cv3gpu.dense_crf(unary, image, **widths)[:, :, 100:]
    alone = cv3gpu.dense_crf(np.ascontiguousarray(unary[:, :, 50:]), np.ascontiguousarray(image[:, 50:]), **widths)
    assert abs(alone[:, :, 50:] - whole).max() > 1e-3


@pytest.mark.parametrize("method", ["lattice", "lattice_fine", "exact"])
def test_crf_errors_stay_below_what_was_asked_for(method):
    exact = method == "exact"
    size, chunk = ((24, 96), 32) if exact else ((64, 192), 64)
    image, unary = photograph(size)
    widths = {"theta_alpha": 4 if exact else 8, "theta_gamma": 2, "n_iter": 3, "method": method}
    whole = cv3gpu.dense_crf(unary, image, **widths)
    means = []
    for wanted in (0.1, 1e-2, 1e-3):
        halo = scale.crf_halo(wanted, **widths)
        lazy = chunked(unary, 3, chunk, chunk), chunked(image, chunk, chunk, 3)
        q = scale.dense_crf(*lazy, halo=halo, **widths).compute(**HERE)
        means.append(abs(q - whole).mean())
        assert means[-1] <= wanted
    assert means[0] > means[2]


def test_crf_without_an_image_and_with_a_grey_one():
    image, unary = photograph((48, 96))
    for pixels, widths in ((None, {}), (np.ascontiguousarray(image[..., 0]), {"theta_alpha": 3, "theta_beta": 10})):
        widths |= {"n_iter": 1, "theta_gamma": 1}
        lazy = None if pixels is None else chunked(pixels, 24, 24)
        got = scale.dense_crf(chunked(unary, 3, 24, 48), lazy, halo=30, **widths).compute(**HERE)
        np.testing.assert_allclose(got, cv3gpu.dense_crf(unary, pixels, **widths), rtol=0, atol=1e-9)


def test_halos():
    assert scale.crf_halo(1e-3) == (298, 298)
    assert scale.crf_halo(1e-3, theta_alpha=(20, 80)) == (298, 75)
    assert scale.crf_halo(1e-3, theta_alpha=2, theta_gamma=9) == scale.crf_halo(1e-3, theta_alpha=9, theta_gamma=2)
    assert scale.crf_halo(1e-12, theta_alpha=10, n_iter=1) == (80, 70)  # no more than the lattice's reach
    assert scale.crf_halo(1e-4 / 64, theta_alpha=10, n_iter=1, method="exact") == (58, 58)  # 2 widths more
    assert scale.crf_halo(n_iter=0) == (0, 0)


# ---- what is refused ----------------------------------------------------------------------------------------


X = da.zeros((1, 1, 30, 30), chunks=(1, 1, 10, 10))
U = da.zeros((2, 30, 30), chunks=(2, 10, 10))
W = np.zeros((1, 1, 3, 3))


@pytest.mark.parametrize("call, error, text", [
    (lambda: scale.interpolate(np.zeros((1, 1, 4, 4)), 8), TypeError, "scale.interpolate: x must be a dask array, got ndarray"),
    (lambda: scale.interpolate(X[0], 8), ValueError, "x must have shape [N, C, H, W], got (1, 30, 30)"),
    (lambda: scale.interpolate(X, 60, mode="cubic"), ValueError, "scale.interpolate: mode must be one of"),
    (lambda: scale.interpolate(X), ValueError, "scale.interpolate: size must be given"),
    (lambda: scale.interpolate(X[:, :, da.arange(30, chunks=10) > 4], 8), ValueError, "x must have known sizes"),
    (lambda: scale.interpolate(X.astype("int32"), 60), TypeError, "scale.interpolate: x must have dtype"),
    (lambda: scale.conv2d(X.compute(), W), TypeError, "scale.conv2d: x must be a dask array"),
    (lambda: scale.conv2d(X, np.zeros((1, 2, 3, 3))), ValueError, "conv2d: "),
    (lambda: scale.affinity_degree(np.zeros((4, 4))), TypeError, "scale.affinity_degree: image must be a dask array"),
    (lambda: scale.affinity_degree(X[0, 0], radius=-1), ValueError, "pixel_affinity: radius must"),
    (lambda: scale.affinity_degree(X), ValueError, "image must have shape [H, W] or [H, W, C]"),
    (lambda: scale.affinity_product(X[0, 0], X[0, 0, :20]), ValueError, "x must have shape [30, 30] or [30, 30, b]"),
    (lambda: scale.affinity_product(X[0, 0], X[0, 0].astype("float32")), TypeError, "x must have the dtype of image"),
    (lambda: scale.dense_crf(np.zeros((2, 4, 4))), TypeError, "scale.dense_crf: unary must be a dask array"),
    (lambda: scale.dense_crf(U[0]), ValueError, "unary must have shape [L, H, W]"),
    (lambda: scale.dense_crf(U, np.zeros((30, 30))), TypeError, "image must be a dask array"),
    (lambda: scale.dense_crf(U, U[0, :20]), ValueError, "image must have shape [30, 30] or"),
    (lambda: scale.dense_crf(U, halo=-1), ValueError, "halo must be from 0"),
    (lambda: scale.dense_crf(U, theta_gamma=0), ValueError, "theta_gamma must be finite and positive"),
    (lambda: scale.dense_crf(U, n_iter=-1), ValueError, "n_iter must be from 0"),
    (lambda: scale.dense_crf(U, method="best"), ValueError, "method must be one of"),
    (lambda: scale.dense_crf(U.astype("int64")), TypeError, "unary must have dtype"),
    (lambda: scale.crf_halo(0.6), ValueError, "scale.crf_halo: error must be from 0 to 0.5, got 0.6"),
    (lambda: scale.crf_halo(0, method="exact"), ValueError, "error must be positive for method 'exact'"),
    (lambda: scale.crf_halo(True), TypeError, "error must be a number"),
    (lambda: scale.crf_halo(theta_alpha=(1, 2, 3)), ValueError, "theta_alpha must be a number or a pair"),
])  # fmt: skip
def test_chunks_refused(call, error, text):
    with pytest.raises(error) as caught:
        call()
    assert text in str(caught.value)


def test_without_dask(monkeypatch):
    monkeypatch.setitem(importlib.import_module("sys").modules, "dask.array", None)
    with pytest.raises(BackendUnavailableError, match=r"pip install 'cv3gpu\[dist\]'"):
        scale.interpolate(X, 60)


def test_cupy_chunks():
    need_gpu()
    cupy = importlib.import_module("cupy")
    image, unary = photograph((64, 96))
    x = unary[None].astype(np.float32)
    got = scale.interpolate(da.from_array(cupy.asarray(x), chunks=(1, 3, 32, 32), asarray=False), (128, 192))
    np.testing.assert_array_equal(
        cupy.asnumpy(got.compute(**HERE)), cupy.asnumpy(cv3gpu.interpolate(cupy.asarray(x), (128, 192)))
    )
    widths = {"theta_alpha": 2, "theta_gamma": 1, "n_iter": 1}
    lazy = (
        da.from_array(cupy.asarray(a), chunks=c, asarray=False) for a, c in ((unary, (3, 32, 48)), (image, (32, 48, 3)))
    )
    got = scale.dense_crf(*lazy, halo=scale.crf_halo(0, **widths), **widths).compute(**HERE)
    want = cv3gpu.dense_crf(cupy.asarray(unary), cupy.asarray(image), **widths)
    assert float(abs(got - want).max()) < 1e-9
