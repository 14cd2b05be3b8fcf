"""The pool of threads that the CPU paths share."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest

from cv3gpu import _threads


@pytest.fixture
def two_cores(monkeypatch):
    """A pool of two threads, whatever the machine has."""
    monkeypatch.setattr(_threads, "cores", lambda: 2)
    monkeypatch.setattr(_threads, "_pool", None)
    yield
    _threads._pool.shutdown()


def test_results_come_in_the_order_of_the_pieces(two_cores):
    assert _threads.each(lambda a, b: a - b, [(k, 1) for k in range(50)]) == [k - 1 for k in range(50)]


def test_pieces_run_at_once(two_cores):
    both = threading.Barrier(2, timeout=10)
    _threads.each(both.wait, [(), ()])  # would time out one after the other


def test_one_piece_runs_where_it_is(two_cores):
    _threads._the_pool()
    assert _threads.each(threading.get_ident, [()]) == [threading.get_ident()]


def test_an_exception_is_raised_by_the_call(two_cores):
    def fail(k):
        if k == 3:
            raise ValueError("piece 3")

    with pytest.raises(ValueError, match="piece 3"):
        _threads.each(fail, [(k,) for k in range(6)])
    assert _threads.each(abs, [(-1,), (-2,)]) == [1, 2]


def test_pieces_without_arguments(two_cores):
    assert _threads.each(lambda: 1, [(), ()]) == [1, 1]


def test_without_a_pool_the_caller_does_it(two_cores):
    _threads._the_pool().shutdown()
    assert _threads.each(abs, [(-1,), (-2,)]) == [1, 2]


def test_a_worker_does_not_wait_for_the_pool(two_cores):
    def outer(k):
        return sum(_threads.each(lambda x: x * k, [(x,) for x in range(4)]))

    assert _threads.each(outer, [(k,) for k in range(8)]) == [6 * k for k in range(8)]


def test_many_callers_share_the_pool(two_cores):
    results = []

    def caller(k):
        results.append(_threads.each(pow, [(k, 1), (k, 2), (k, 3)]))

    threads = [threading.Thread(target=caller, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert sorted(results) == [[k, k**2, k**3] for k in range(8)]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_has_a_pool_of_its_own():
    code = """
import os, signal
from cv3gpu import _threads
_threads.cores = lambda: 2
work = lambda: _threads.each(abs, [(-1,), (-2,), (-3,)])
assert work() == [1, 2, 3]
child = os.fork()
if child == 0:
    signal.alarm(20)
    os._exit(0 if work() == [1, 2, 3] else 1)
assert os.waitpid(child, 0)[1] == 0
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=60)
