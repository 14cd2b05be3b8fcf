"""A short pass of the fuzzing, and whether it finds what is planted. The long one: ``python -m tests.fuzz``."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests import fuzz
from tests.fuzz import __main__ as command
from tests.fuzz import engine, parsers

NEED_TORCH = {"conv", "data-set", "network", "pool", "resize", "state"}
NEED_PILLOW = {"data-set", "picture"}
CASES = 30  # of each family
SEED = 1


def need(name: str) -> None:
    """Skips where a family's libraries are missing."""
    for names, library in (
        (NEED_TORCH, "torch"),
        (NEED_PILLOW, "PIL"),
        ({"weights", "tracker", "network"}, "safetensors"),
    ):
        if name in names:
            pytest.importorskip(library)


@pytest.mark.parametrize("name", [*fuzz.PARSERS, *fuzz.OPERATORS])
def test_a_short_pass(name: str) -> None:
    need(name)
    tally = engine.run(name, SEED, cases=CASES, seconds=10.0)
    assert not tally.findings, "\n".join(map(str, tally.findings))
    assert tally.inputs > 0


@pytest.mark.parametrize("name", parsers.RAW)
def test_words_of_a_format_in_any_order(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    need(name)
    check, words = parsers.RAW[name]
    folder = tmp_path_factory.mktemp("words")

    @settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(parsers.texts(words))
    def of_words(data: bytes) -> None:
        check(data, folder)

    of_words()


def test_a_case_is_made_again_from_its_number(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        fuzz.again("motchallenge", 5, 17, tmp_path / folder)
    one, two = ((tmp_path / folder / "case" / "seq.txt").read_bytes() for folder in ("a", "b"))
    assert one == two
    fuzz.again("motchallenge", 6, 17, tmp_path / "c")
    assert (tmp_path / "c" / "case" / "seq.txt").read_bytes() != one


def test_what_is_planted_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A process that dies, one that hangs, and wrong results: with what tries them again."""
    from tests.fuzz import planted

    counter = tmp_path / "counter"
    counter.write_text("")
    monkeypatch.setenv("CV3GPU_PLANTED", str(counter))
    supervise = engine.supervise

    def once(name: str, seed: int, seconds: float, limit: float) -> engine.Tally:
        return supervise(name, seed, seconds, limit=limit, most=4)

    monkeypatch.setattr(engine, "supervise", once)
    keep = tmp_path / "kept"
    try:
        code = command.main(
            ["--family", planted.PLANTED, "--seconds", "100", "--limit", "2.5", "--seed", "3", "--keep", str(keep)]
        )
    finally:
        del fuzz.FAMILIES[planted.PLANTED]
    said = capsys.readouterr().out
    assert code == 1
    for word in (
        "the process ended with -6",
        "hangs: not done after 5 s",
        "planted, ",
        "again('planted', 3, ",
    ):
        assert word in said, said
    assert len(list(keep.glob("planted-3-*/finding.txt"))) >= 3


def test_a_process_that_takes_memory_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "MEMORY", 100 << 20)
    notes = tmp_path / "notes"
    notes.write_bytes(engine._SEEN.pack(0, 0))
    code = "import time; held = b'x' * (150 << 20); time.sleep(600)"
    process = subprocess.Popen([sys.executable, "-c", code], text=True)
    said = engine._watch(process, notes, 300.0)
    assert process.wait() == -signal.SIGKILL and said is not None
    assert said.startswith("memory: ") and said.endswith("at most 100 MiB allowed")


def test_slow_cases_and_clean_families(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(fuzz.FAMILIES, "slow", fuzz.Family("slow", lambda rng, folder: time.sleep(9)))
    tally = engine.run("slow", 0, cases=1, limit=0.05)
    assert "not done after 0.05 s" in tally.findings[0].what
    with pytest.raises(SystemExit) as caught:
        command.main(["--family", "no such family"])
    assert caught.value.code == 2


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.sampled_from(sorted(fuzz.PARSERS)), st.integers(0, 2**31))
def test_generators_are_told_apart(name: str, seed: int) -> None:
    """Cases and families draw numbers of their own."""
    draws = [
        engine.rng_of(family, seed, case).integers(2**62) for family, case in ((name, 0), (name, 1), (f"{name}x", 0))
    ]
    assert len(set(draws)) == 3 and draws[0] == engine.rng_of(name, seed, 0).integers(2**62)
