"""The README's timing table, made from the result files: ``python -m bench.table``.

It stands between ``<!-- bench:begin -->`` and ``<!-- bench:end -->``, a row or two for each operation; the
documentation shows every entry. ``--check`` changes nothing and says whether it is up to date; ``--all`` prints every
entry in place of the headline ones.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from .entry import CEILING, RESULTS

BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"
README = RESULTS.parent.parent / "README.md"
NOT_MEASURED = "not measured"
KINDS = {"cuda": "GPU", "cpu": "CPU"}
HEAD = "| operation | ours | rate | nearest peer | others |\n|---|---|---|---|---|"

HEADLINES = (  # how the names of entries begin
    "conv2d forward D1 ",
    "conv2d forward X3 ",
    "conv_transpose2d forward F2 diagonal ",
    "separable_conv2d X3 ",
    "aspp head D",
    "interpolate forward D8 ",
    "resize_conv forward and backward nearest x2 ",
    "max pool S1 int64 ",
    "max unpool S1 int64 ",
    "upsample argmax H1 ",
    "upsample cross entropy and backward H1 ",
    "confusion_matrix",
    "boundary_f1",
    "panoptic_quality",
    "dense_crf lattice 512x512, 21 labels 80/13 5 iterations",
    "dense_crf lattice 512x512, 21 labels 67/3 5 iterations",
    "dense_crf lattice_fine 320x213, 21 labels 80/13",
    "dense_crf exact 320x213, 21 labels 80/13",
    "graph_cut 512x512, 8 neighbours, regions",
    "graph_cut 1024x1024, 4 neighbours, regions",
    "alpha_expansion astronaut",
    "slic",
    "kmeans 2",
    "kmeans 1",
    "mean_shift",
    "knn_affinity",
    "smallest_eigenpairs",
    "normalized_cut recursive",
    "spectral_clustering moons",
    "box_iou sequence",
    "linear_sum_assignment A ",
    "linear_sum_assignment B ",
    "message passing step 5000 nodes",
    "message passing step and backward 5000 nodes",
    "mot eval MOT17 process, 1 core",
    "mot eval crowd process, 1 core",
    "mot.evaluate_boxes",
    "round_trajectories",
    "candidate_edges",
)

Data = dict[str, Any]


def load(folder: Path) -> list[Data]:
    """All result files of a folder, sorted by name."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]
    return [data for data in found if data.get("kind") in KINDS and "entries" in data]


def duration(seconds: float) -> str:
    """Three digits, in µs, ms or s."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"


def rate(entry: Data, ceilings: dict[str, float]) -> str:
    """The rate, of bytes or of operations, that is nearer to its ceiling, and how near."""
    t = entry["times"]["ours"]["median"]
    reached = {"copy": entry["bytes"] / t, CEILING[entry["dtype"]]: entry["flops"] / t}
    shares = {name: value / ceilings[name] for name, value in reached.items() if ceilings.get(name)}
    name = max(shares, key=lambda n: shares[n], default="copy")
    said = f"{reached[name] / 1e9:.3g} GB/s" if name == "copy" else f"{reached[name] / 1e12:.3g} TFLOP/s"
    return f"{said}, {shares[name]:.0%} of {name}" if name in shares else said


def _peers(entry: Data) -> tuple[str, str]:
    """The fastest peer with its ratio to ours (above 1: ours is faster), and the others."""
    times = {name: figures["median"] for name, figures in entry["times"].items()}
    ours = times.pop("ours")
    ranked = sorted((name for name in times if not name.startswith("ours ")), key=lambda n: times[n])
    said = [f"{name} {duration(times[name])} ({times[name] / ours:.2f}x)" for name in ranked]
    said += [f"{name} {duration(t)}" for name, t in times.items() if name.startswith("ours ")]
    absent = [f"{name}: {why}" for name, why in entry["absent"].items()]
    said += [f"{name}: {value:g}" for name, value in entry.get("facts", {}).items()]
    first = said.pop(0) if ranked else "—"
    return first, "; ".join(said + absent) or "—"


def _row(name: str, entry: Data | None, ceilings: dict[str, float]) -> str:
    if entry is None:
        cells = [name, NOT_MEASURED, "", "", ""]
    elif entry["status"] != "ok":
        why = entry["absent"].get("ours", entry["status"])
        cells = [name, f"{entry['status']}: not timed", "", "", why]
    else:
        nearest, others = _peers(entry)
        cells = [
            f"{name}<br>{entry['shape']}",
            duration(entry["times"]["ours"]["median"]),
            rate(entry, ceilings),
            nearest,
            others,
        ]
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _section(kind: str, data: Data | None, names: Iterable[str]) -> str:
    if data is None:
        return f"**{KINDS[kind]}: {NOT_MEASURED}.**"
    ceilings = data.get("ceilings", {})
    limits = ", ".join(
        f"{name} {value / 1e9:.0f} GB/s" if name == "copy" else f"{name} {value / 1e12:.3g} TFLOP/s"
        for name, value in ceilings.items()
    )
    versions = data.get("versions", {})
    software = ", ".join(f"{name} {version}" for name, version in versions.items())
    heading = (
        f"**{data['device']}** ({KINDS[kind]}; {data.get('date', '')[:10]}, "
        f"commit {data.get('commit') or 'unknown'}; torch threads {data.get('torch_threads', '—')}; "
        f"{software}). "
        f"Ceilings of the latest run (entries may be of earlier ones): {limits}."
    )
    entries = data["entries"]
    return "\n".join([heading, "", HEAD, *(_row(name, entries.get(name), ceilings) for name in names)])


def benches() -> tuple[Any, ...]:
    """The modules with entries, in the order of the table."""
    families = (
        "conv separable resize resize_conv heads pool upsample metrics crf graphcut graphcut_moves superpixel cluster "
        "neighbors eigen ncut spectral boxes assignment message mot tracking"
    )
    return tuple(importlib.import_module(f"bench.bench_{name}") for name in families.split())


def headline_names() -> dict[str, list[str]]:
    """Names of the entries that the README shows, by kind of device."""
    every = [e for m in benches() for e in m.ENTRIES]
    first = [e for e in every if e.priority == 0 and e.name.startswith(HEADLINES)]
    return {kind: [e.name for e in first if e.device == kind] for kind in KINDS}


def make(results: Sequence[Data], names: dict[str, list[str]] | None = None) -> str:
    """The table in Markdown, a section for each device; ``names`` by kind of device, default all kept."""
    sections = []
    for kind in KINDS:
        of_kind: list[Data | None] = [data for data in results if data["kind"] == kind]
        for data in of_kind or [None]:
            chosen = names[kind] if names is not None else sorted(data["entries"] if data else ())
            sections.append(_section(kind, data, chosen))
    note = (
        "Medians; every result was compared with a float64 reference before it was timed. GPU: CUDA events, "
        "L2 cache flushed. Ratios above 1x: ours is faster. Rates count the least possible traffic and all "
        "operations."
    )
    return "\n\n".join([*sections, note])


def place(readme: str, table: str) -> str:
    """The README's text with the table between its markers."""
    if readme.count(BEGIN) != 1 or readme.count(END) != 1 or readme.index(BEGIN) > readme.index(END):
        raise ValueError(f"README: must hold {BEGIN} and {END} once each, in this order")
    head, _, rest = readme.partition(BEGIN)
    return f"{head}{BEGIN}\n{table}\n{END}{rest.partition(END)[2]}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 0; 1 where --check finds the README out of date; 2 where it has no markers."""
    parser = argparse.ArgumentParser(prog="python -m bench.table", description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of <device>.json")
    parser.add_argument("--readme", type=Path, default=README)
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--check", action="store_true", help="only say whether the README is up to date")
    how.add_argument("--print", action="store_true", help="print the headline table")
    how.add_argument("--all", action="store_true", help="print every entry")
    chosen = parser.parse_args(arguments)
    results = load(chosen.results)
    if chosen.all or chosen.print:
        print(make(results, None if chosen.all else headline_names()))
        return 0
    try:
        old = chosen.readme.read_text(encoding="utf-8")
        new = place(old, make(results, headline_names()))
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    if chosen.check:
        print("up to date" if old == new else f"{chosen.readme} is out of date: run python -m bench.table")
        return 0 if old == new else 1
    chosen.readme.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
