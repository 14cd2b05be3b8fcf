"""Tables as text."""

from __future__ import annotations

from collections.abc import Collection, Sequence

__all__ = ["aligned"]


def aligned(header: Sequence[str], rows: Sequence[Sequence[str]], right: Collection[int] = ()) -> str:
    """Lines of aligned columns, those in ``right`` to the right.

    Examples
    --------
    >>> print(aligned(("name", "ms"), [("a", "1.25"), ("longer", "10.00")], right=(1,)))
    name       ms
    a        1.25
    longer  10.00
    """
    lines = (header, *rows)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if at in right else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )
