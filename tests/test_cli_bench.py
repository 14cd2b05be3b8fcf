"""``cv3gpu bench``: which measurements it picks, what it prints, and how it ends."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from bench.entry import Entry, Errors, Work
from cv3gpu import _bench, cli


def invoke(*arguments: str) -> Any:
    return CliRunner().invoke(cli.main, ["bench", *arguments])


def entry(name: str, off: float = 0.0, **changes: Any) -> Entry:
    peers: dict[str, Any] = {"another": lambda: sum(range(1000)), "a third": "not installed"}
    work = Work(ours=lambda: sum(range(100)), errors=lambda got: Errors(off, off), peers=peers)
    made = Entry(name, "a family", "a shape", "cpu", "float64", 8, 8, setup=lambda: work)
    return dataclasses.replace(made, **changes)


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> None:
    class Module:
        ENTRIES = (entry("one cpu", priority=0), entry("two cpu"), entry("one cuda", device="cuda"))

    monkeypatch.setattr("bench.table.benches", lambda: (Module,))


@pytest.mark.usefixtures("two")
def test_words_pick_and_no_words_are_those_of_the_readme() -> None:
    names = [row["name"] for row in json.loads(invoke("--list", "--json", "CPU").stdout)]
    assert names == ["one cpu", "two cpu"]
    assert [row["name"] for row in json.loads(invoke("--list", "--json").stdout)] == ["one cpu"]
    assert "one cuda" in invoke("--list", "--device", "cuda", "one").stdout


@pytest.mark.usefixtures("two")
def test_what_it_measures() -> None:
    result = invoke("two", "--seconds", "0.01", "--json")
    assert result.exit_code == 0, result.output
    (found,) = json.loads(result.stdout)
    assert found["status"] == "ok" and set(found["times"]) == {"ours", "another"}
    assert all(0 < t < 1 for t in found["times"].values())
    assert found["why"] == {"a third": "not installed"}
    shown = invoke("two", "--seconds", "0.01").stdout
    assert "two cpu" in shown and "another" in shown and "x)" in shown and "a third: not installed" in shown


def test_a_wrong_result_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_bench, "entries", lambda device, words: [entry("off", off=1.0)])
    result = invoke("off")
    assert result.exit_code == 1
    assert "wrong by 1.0e+00" in result.stdout


@pytest.mark.usefixtures("two")
def test_usage() -> None:
    result = invoke("three")
    assert result.exit_code == 2 and "WORD must be in the name of a measurement, got three" in result.output
    assert invoke("one", "--seconds", "0").exit_code == 2


def test_without_a_checkout(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(_bench, "ROOT", tmp_path)
    result = invoke()
    assert result.exit_code == 1
    assert "source checkout" in result.output
