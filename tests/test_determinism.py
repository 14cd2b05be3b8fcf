"""What is promised about the bits of results: complete for all operators, and kept."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator

import pytest

import cv3gpu
from cv3gpu import _array, _threads
from cv3gpu._determinism import LABELS, OPERATORS, determinism
from tests.calls import bits, calls

NAMES = sorted(OPERATORS)
PACKAGES = ("affinity", "cluster", "crf", "eigen", "graphcut", "message", "mot", "spectral")

# Public functions that compute nothing on arrays of any library, or call the operators step by step.
NO_OPERATORS = {
    "determinism": "it says what others promise",
    "crf.normalized": "a helper of the options of dense_crf",
    "graphcut.grab_cut_steps": "grab_cut, step by step",
    "message.join_windows": "numbers of edges put together on the host",
    **dict.fromkeys((f"mot.{n}" for n in ("read", "write", "event_logs", "logs_to_csv")), "reads or writes files"),
    **dict.fromkeys(
        (f"mot.{n}" for n in ("clear", "count", "hota", "identity", "match", "vace", "evaluate", "compare", "prepare")),
        "scores tracks on the CPU, as evaluate_boxes does on arrays",
    ),
    **dict.fromkeys((f"mot.{n}" for n in ("drop_short", "interpolate", "events")), "rearranges tracks on the CPU"),
    "mot.track": "a network's model with candidate_edges, the message passing and round_trajectories",
}


def public() -> Iterator[str]:
    """The public functions of the package and of its modules, each under its shortest name."""
    top = {name for name in cv3gpu.__all__ if inspect.isfunction(getattr(cv3gpu, name))}
    yield from sorted(top)
    for package in PACKAGES:
        module = importlib.import_module(f"cv3gpu.{package}")
        for name in module.__all__:
            value = getattr(module, name)
            if inspect.isfunction(value) and not (name in top and value is getattr(cv3gpu, name)):
                yield f"{package}.{name}"


def test_every_public_operator_has_a_label_and_a_call() -> None:
    assert set(OPERATORS.values()) <= set(LABELS)
    found = set(public())
    assert found - set(NO_OPERATORS) == set(OPERATORS)
    assert set(NO_OPERATORS) & set(OPERATORS) == set()
    assert set(calls("numpy")) == set(OPERATORS)


def test_labels_are_found_by_name_and_by_function() -> None:
    assert determinism("conv2d") == determinism(cv3gpu.conv2d) == "run_to_run"
    assert determinism("mot.label_edges") == determinism(cv3gpu.mot.label_edges) == "gpu_to_gpu"
    for name in NAMES:
        owner, _, last = name.rpartition(".")
        assert determinism(getattr(importlib.import_module(f"cv3gpu.{owner}".rstrip(".")), last)) == OPERATORS[name]


@pytest.mark.parametrize(
    ("given", "error", "got"),
    [
        ("conv3d", ValueError, "'conv3d'"),
        (print, ValueError, "print"),
        (cv3gpu.mot.interpolate, ValueError, "interpolate"),  # of tracks, and no image's
        (3, TypeError, "int"),
        (None, TypeError, "None"),
    ],
)
def test_what_is_no_operator_is_refused(given: object, error: type[Exception], got: str) -> None:
    with pytest.raises(error, match=f"^determinism: operator must be .*, got {got}$"):
        determinism(given)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", NAMES)
def test_twenty_runs_on_the_cpu(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With one thread and with two, whatever the machine has."""
    call = calls("numpy")[name]
    want = bits(call())
    assert want
    for cores in (1, 2):
        monkeypatch.setattr(_threads, "cores", lambda cores=cores: cores)
        monkeypatch.setattr(_threads, "_pool", None)
        for _ in range(10):
            assert bits(call()) == want
        if _threads._pool:
            _threads._pool.shutdown()


# What launches thousands of kernels: its own tests run it once on the CPU runner.
LONG = {"mot.byte_track", "mot.sort", "normalized_cut", "smallest_eigenpairs", "spectral_clustering"}


@pytest.mark.parametrize("name", [name for name in NAMES if name not in LONG])
def test_order_of_blocks_and_threads_changes_nothing(name: str) -> None:
    from tests.hostrun import HostBackend

    call = calls("numpy")[name]  # its arguments are made before the runner takes over
    results = []
    for order, seed in (("forward", 0), ("random", 1)):
        token = _array.host_backend.set(HostBackend(mode="check", order=order, seed=seed))
        try:
            results.append(bits(call()))
        finally:
            _array.host_backend.reset(token)
    assert results[1] == results[0]


@pytest.mark.parametrize("name", NAMES)
def test_torch_deterministic_algorithms(name: str) -> None:
    """No operator has to refuse, as none has the label "not_guaranteed"; torch then also poisons new memory."""
    torch = pytest.importorskip("torch")
    assert OPERATORS[name] != "not_guaranteed"
    call = calls("torch")[name]
    want = bits(call())
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        assert bits(call()) == want
    finally:
        torch.use_deterministic_algorithms(before)
