"""What an evaluation found: of one tracker, and of several side by side."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .. import _check, _files, _table

__all__ = ["COMBINED", "SHOWN", "ByClass", "Comparison", "Figures", "Report", "csv_text", "written"]

Figures = dict[str, Any]
ByClass = dict[str, Figures]

COMBINED = "COMBINED"  # the row of all sequences together
FAILED = "FAILED"  # in place of the class of a sequence that has no figures

# What a table shows: the figure under its heading, and whether more is better (+1), less (−1), or neither (0).
SHOWN = {
    "HOTA": ("HOTA", 1),
    "DetA": ("DetA", 1),
    "AssA": ("AssA", 1),
    "MOTA": ("MOTA", 1),
    "IDF1": ("IDF1", 1),
    "MOTP": ("MOTP", 1),
    "IDSW": ("IDSW", -1),
    "Frag": ("Frag", -1),
    "FP": ("CLR_FP", -1),
    "FN": ("CLR_FN", -1),
    "MT": ("MT", 1),
    "PT": ("PT", 0),
    "ML": ("ML", -1),
    "ATA": ("ATA", 1),
    "SFDA": ("SFDA", 1),
    "Dets": ("Dets", 0),
    "GT_Dets": ("GT_Dets", 0),
    "IDs": ("IDs", 0),
    "GT_IDs": ("GT_IDs", 0),
}


class _NoTotal(dict[str, Figures]):
    """What a report with failures has in place of a total: nothing, and asking for it says why."""

    def __init__(self, reason: str) -> None:
        super().__init__()
        self.reason = reason

    def __missing__(self, name: str) -> Figures:
        raise ValueError(self.reason)


@dataclass(frozen=True, eq=False, repr=False)
class Report:
    """The figures of a tracker: of each sequence and class, and of all sequences together.

    ``print(report)`` shows the best-known figures as a table, ratios in percent.

    Attributes
    ----------
    sequences : dict of sequence to dict of class to dict of figure to value
        Counts are int, ratios float, curves over HOTA's thresholds arrays [19] under ``<figure>_alpha``.
    combined : dict of class to dict of figure to value
        All sequences as one: counts are summed and ratios formed anew. Where sequences failed there is no total, which
        could flatter the tracker: it is empty, and asking for a class is a ValueError.
    failures : dict of sequence to exception
        Those that failed, of :func:`evaluate` with ``on_error="keep"``.

    Examples
    --------
    >>> from cv3gpu import mot
    >>> gt = mot.Tracks([1, 2], [1, 1], [[0, 0, 9, 9], [1, 0, 9, 9]])
    >>> report = mot.evaluate(gt, mot.Tracks([1, 2], [5, 6], gt.box), metrics=["identity"])
    >>> report.combined["all"]["IDF1"]
    0.5
    >>> print(report)
    sequence   IDF1
    sequence  50.00
    COMBINED  50.00
    """

    sequences: dict[str, ByClass]
    combined: ByClass
    failures: dict[str, Exception] = field(default_factory=dict)

    @classmethod
    def partial(cls, sequences: dict[str, ByClass], failures: dict[str, Exception]) -> Report:
        """A report of sequences of which some failed: without a total."""
        names = ", ".join(map(repr, failures))
        got = f"{len(failures)} of {len(failures) + len(sequences)} that failed: {names}"
        reason = _check.message("mot.Report", "combined", "be of all sequences", got, "their errors are in failures")
        return cls(sequences, _NoTotal(reason), failures)

    def __repr__(self) -> str:
        failed = f", {len(self.failures)} failed" if self.failures else ""
        return f"Report({len(self.sequences)} sequences, {' and '.join(self._classes())}{failed})"

    def __str__(self) -> str:
        return self.table()

    def table(self) -> str:
        """The best-known figures as text, a line for each sequence and one for all; ratios in percent.

        Where sequences failed there is none for all, but one for each of these.
        """
        failed = [f"FAILED {name}: {error}" for name, error in self.failures.items()]
        tables = [(name, _lines("sequence", self._of_class(name))) for name in self._classes()]
        return "\n".join([*([_by_class(tables)] if tables else []), *failed])

    def to_dict(self) -> dict[str, Any]:
        """``{"sequences": {sequence: {class: {figure: value}}}, "combined": {class: {…}}}`` in Python's own types.

        Where sequences failed there is ``"failures": {sequence: text}`` in place of ``"combined"``.
        """
        if self.failures:
            told = {name: f"{type(error).__name__}: {error}" for name, error in self.failures.items()}
            return _plain({"sequences": self.sequences, "failures": told})
        return _plain({"sequences": self.sequences, "combined": self.combined})

    def to_json(self, path: str | os.PathLike[str] | None = None) -> str:
        """:meth:`to_dict` as JSON; a file at ``path`` appears whole or not at all."""
        return written(json.dumps(self.to_dict(), indent=1, ensure_ascii=False) + "\n", path)

    def to_csv(self, path: str | os.PathLike[str] | None = None) -> str:
        """A line for each sequence and class, and for each class ``COMBINED``; curves are left out.

        Where sequences failed, there is no ``COMBINED``, and the table ends with a line ``FAILED`` for each of them.
        Numbers read back exactly. A file at ``path`` appears whole or not at all.
        """
        return written(_of_records(self._records()), path)

    def _classes(self) -> list[str]:
        return list(next(iter(self.sequences.values()), self.combined))

    def _of_class(self, name: str) -> dict[str, Figures]:
        rows = {sequence: classes[name] for sequence, classes in self.sequences.items()}
        return rows if self.failures else {**rows, COMBINED: self.combined[name]}

    def _records(self) -> Iterator[dict[str, Any]]:
        for sequence, classes in (*self.sequences.items(), (COMBINED, self.combined)):
            for name, figures in classes.items():
                scalars = {key: value for key, value in figures.items() if not np.ndim(value)}
                yield {"sequence": sequence, "class": name, **scalars}
        for sequence in self.failures:
            yield {"sequence": sequence, "class": FAILED}


@dataclass(frozen=True, eq=False, repr=False)
class Comparison:
    """The figures of several trackers side by side.

    ``print(comparison)`` shows those of all sequences together, with ``*`` behind the best of a column.

    Attributes
    ----------
    reports : dict of tracker to Report

    Examples
    --------
    >>> from cv3gpu import mot
    >>> gt = mot.Tracks([1, 2], [1, 1], [[0, 0, 9, 9], [1, 0, 9, 9]])
    >>> trackers = {"steady": gt, "restless": mot.Tracks([1, 2], [5, 6], gt.box)}
    >>> print(mot.compare(gt, trackers, metrics=["identity"]))
    tracker      IDF1
    steady    100.00*
    restless   50.00
    """

    reports: dict[str, Report]

    def __repr__(self) -> str:
        return f"Comparison({', '.join(self.reports)})"

    def __str__(self) -> str:
        return self.table()

    def table(self) -> str:
        """The best-known figures as text, a line for each tracker; ratios in percent, ``*`` behind the best."""
        return _by_class((name, _lines("tracker", self._of_class(name), self.best(name))) for name in self._classes())

    def best(self, class_name: str) -> dict[str, list[str]]:
        """The trackers with the best value of each figure of the table, of all sequences together.

        A figure that all trackers share has no best one. ValueError for a class that was not evaluated.
        """
        _check.choice("mot.Comparison.best", "class_name", class_name, list(self._classes()))
        rows, best = self._of_class(class_name), {}
        for key, way in SHOWN.values():
            values = {name: way * figures[key] for name, figures in rows.items() if way and key in figures}
            if len(set(values.values())) > 1:
                best[key] = [name for name, value in values.items() if value == max(values.values())]
        return best

    def to_dict(self) -> dict[str, Any]:
        """``{tracker: Report.to_dict()}``."""
        return {name: report.to_dict() for name, report in self.reports.items()}

    def to_json(self, path: str | os.PathLike[str] | None = None) -> str:
        """:meth:`to_dict` as JSON; a file at ``path`` appears whole or not at all."""
        return written(json.dumps(self.to_dict(), indent=1, ensure_ascii=False) + "\n", path)

    def to_csv(self, path: str | os.PathLike[str] | None = None) -> str:
        """The lines of :meth:`Report.to_csv` of all trackers, with the tracker's name in front."""
        records = ({"tracker": name, **record} for name, report in self.reports.items() for record in report._records())
        return written(_of_records(records), path)

    def _classes(self) -> ByClass:
        return next(iter(self.reports.values())).combined

    def _of_class(self, name: str) -> dict[str, Figures]:
        return {tracker: report.combined[name] for tracker, report in self.reports.items()}


# ---- text -----------------------------------------------------------------------------------------------


def csv_text(header: Sequence[str], rows: Iterable[Iterable[Any]]) -> str:
    """A line of headings and the rows as CSV."""
    import csv
    import io

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()


def _of_records(records: Iterable[dict[str, Any]]) -> str:
    rows = list(records)
    header = list(rows[0])
    return csv_text(header, ([row.get(name, "") for name in header] for row in rows))


def written(text: str, path: str | os.PathLike[str] | None) -> str:
    """The text, which is also written to ``path`` where there is one, whole or not at all."""
    if path is not None:
        with _files.replacing(path) as unfinished:
            Path(unfinished).write_text(text, encoding="utf-8")
    return text


def _plain(value: Any) -> Any:
    """Python's own types for NumPy's, throughout."""
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def _shown(value: float, mark: str) -> str:
    return (f"{100 * value:.2f}" if isinstance(value, float) else str(value)) + mark


def _lines(title: str, rows: Mapping[str, Figures], best: Mapping[str, Sequence[str]] | None = None) -> str:
    """The figures of one class as a table."""
    known = next(iter(rows.values()))
    columns = {heading: key for heading, (key, _) in SHOWN.items() if key in known}
    cells = []
    for name, figures in rows.items():
        marks = {key: "" if best is None else "*" if name in best.get(key, ()) else " " for key in columns.values()}
        cells.append((name, *(_shown(figures[key], marks[key]) for key in columns.values())))
    return _table.aligned((title, *columns), cells, right=range(1, len(columns) + 1))


def _by_class(tables: Iterable[tuple[str, str]]) -> str:
    """The tables under the names of their classes, if there are several."""
    found = list(tables)
    return found[0][1] if len(found) == 1 else "\n\n".join(f"{name}\n{text}" for name, text in found)
