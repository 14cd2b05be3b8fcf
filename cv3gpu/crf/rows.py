"""Rows: a point after another, channels innermost, padded so that vectors of channels fit."""

from __future__ import annotations

from typing import Any, NamedTuple

__all__ = ["Message", "scaled", "width"]


class Message(NamedTuple):
    """What a kernel sends to each point before compatibility: rows of z, gathered by the filter, times a scale."""

    z: Any
    filter: Any  # with one entry: row i of z is point i's
    scale: Any  # [P], or None
    mu: Any  # [W] (a diagonal) or [W, W]


def width(channels: int) -> int:
    """Channels of a row that holds this many: 4, or a multiple of 8."""
    return 4 if channels <= 4 else -(-channels // 8) * 8


def scaled(rows: Any, scale: Any) -> Any:
    """Each row times its number; the rows themselves where there is none."""
    return rows if scale is None else rows * scale[:, None]
