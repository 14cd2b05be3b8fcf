"""Gaps of trajectories, filled."""

from __future__ import annotations

import numpy as np

from .. import _check
from .tracks import Tracks, identified

__all__ = ["interpolate"]


def interpolate(tracks: Tracks, max_gap: int) -> Tracks:
    """Fills the gaps of trajectories by straight lines between the boxes before and after.

    Parameters
    ----------
    tracks : Tracks
        With an identity in every row.
    max_gap : int, frames, at least 0
        The most frames in a row without a box that are filled; longer gaps stay.

    Returns
    -------
    Tracks
        The rows given and the new ones, sorted by frame, then identity. Box and score of a new row lie on the line, its
        class is that of the box before; visibility, truncation and occlusion are unknown.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as said above.

    Notes
    -----
    A trajectory is an identity of one class. ByteTrack's scripts fill up to 18 missing frames (two boxes less than 20
    frames apart). Given corners (:class:`Tracks`) are dropped where rows are added.

    Examples
    --------
    >>> from cv3gpu import mot
    >>> tracks = mot.Tracks(frame=[1, 4], id=[5, 5], box=[[0, 0, 10, 10], [30, 0, 10, 16]])
    >>> filled = mot.interpolate(tracks, max_gap=2)
    >>> filled.frame.tolist(), filled.box[1].tolist()
    ([1, 2, 3, 4], [10.0, 0.0, 10.0, 12.0])
    """
    op = "mot.interpolate"
    given = identified(op, "tracks", tracks)
    longest = _check.integer(op, "max_gap", max_gap, 0)
    order = np.lexsort((given.frame, given.class_, given.id))
    before, after = order[:-1], order[1:]
    missing = given.frame[after] - given.frame[before] - 1
    same = (given.id[before] == given.id[after]) & (given.class_[before] == given.class_[after])
    gap = same & (missing > 0) & (missing <= longest)
    before, after, missing = before[gap], after[gap], missing[gap]
    row = np.repeat(np.arange(len(missing)), missing)
    step = np.arange(len(row)) - np.repeat(np.cumsum(missing) - missing, missing) + 1
    part = step / (missing[row] + 1)

    def line(values: np.ndarray) -> np.ndarray:
        start, end = values[before][row], values[after][row]
        return start + (end - start) * (part if values.ndim == 1 else part[:, None])

    new = {"frame": given.frame[before][row] + step, "id": given.id[before][row], "class_": given.class_[before][row]}
    new |= {"box": line(given.box), "score": line(given.score)}
    untold = ("visibility", "truncation", "occlusion")
    unknown = {name: np.full(len(row), -1, getattr(given, name).dtype) for name in untold}
    columns = {name: np.concatenate([getattr(given, name), values]) for name, values in (new | unknown).items()}
    sort = np.lexsort((columns["id"], columns["frame"]))
    corner = None if given.corner is None or len(row) else given.corner[sort]
    return Tracks.trusted(ignored=given.ignored, corner=corner, **{name: x[sort] for name, x in columns.items()})
