"""The command: families one after the other, each in a watched process; exit code 1 when something was found."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from . import FAMILIES, OPERATORS, PARSERS, again, engine


def main(arguments: list[str]) -> int:
    if arguments[:1] == ["--worker"]:
        name, seed, seconds, first, notes, limit = arguments[1:]
        if name not in FAMILIES:
            from . import planted as planted
        engine.worker(name, int(seed), float(seconds), int(first), notes, float(limit))
        return 0
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    groups = {"parsers": list(PARSERS), "operators": list(OPERATORS)}
    parser.add_argument("--family", nargs="+", default=[*groups], choices=[*groups, *FAMILIES], metavar="NAME",
                        help=f"which: parsers, operators, {', '.join(FAMILIES)}")  # fmt: skip
    parser.add_argument("--seconds", type=float, default=60.0, help="for each family")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=float, default=engine.LIMIT, help="seconds for one case")
    parser.add_argument("--keep", type=Path, help="folder for what was found: the text, and the files of each case")
    given = parser.parse_args(arguments)
    names = dict.fromkeys(name for family in given.family for name in groups.get(family, [family]))
    wrong = 0
    for name in names:
        tally = engine.supervise(name, given.seed, given.seconds, limit=given.limit)
        print(f"{name:16} {tally.inputs:8} inputs {tally.seconds:6.1f} s {len(tally.findings):3} findings", flush=True)
        for finding in tally.findings:
            wrong += 1
            print(finding, flush=True)
            if given.keep is not None:
                kept = given.keep / f"{name}-{finding.seed}-{finding.case}"
                kept.mkdir(parents=True, exist_ok=True)
                (kept / "finding.txt").write_text(f"{finding}\n")
                if "Traceback" in finding.what or "Error" in finding.what:  # not what ended its process
                    try:
                        again(name, finding.seed, finding.case, kept)
                    except Exception as error:
                        (kept / "error.txt").write_text(f"{error}\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
