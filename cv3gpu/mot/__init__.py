"""Multi-object tracking: tracks in files and in memory, and how well they follow the ground truth.

>>> import numpy as np
>>> from cv3gpu import mot
>>> box = np.array([[10.0, 10.0, 20.0, 40.0], [12.0, 10.0, 20.0, 40.0], [14.0, 10.0, 20.0, 40.0]])
>>> gt = mot.Tracks(frame=[1, 2, 3], id=[1, 1, 1], box=box)
>>> pred = mot.Tracks(frame=[1, 2, 3], id=[7, 7, 8], box=box)   # the identity changes in frame 3
>>> mot.clear(gt, pred)["IDSW"], mot.identity(gt, pred)["IDTP"]
(1, 2)
"""

from .metrics import Matches, clear, identity, match
from .tracks import Tracks, read, write

__all__ = ["Matches", "Tracks", "clear", "identity", "match", "read", "write"]
