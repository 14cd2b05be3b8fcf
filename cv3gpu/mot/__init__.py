"""Multi-object tracking: tracks in files and in memory, and how well they follow the ground truth.

>>> import numpy as np
>>> from cv3gpu import mot
>>> box = np.array([[10.0, 10.0, 20.0, 40.0], [12.0, 10.0, 20.0, 40.0], [14.0, 10.0, 20.0, 40.0]])
>>> gt = mot.Tracks(frame=[1, 2, 3], id=[1, 1, 1], box=box)
>>> pred = mot.Tracks(frame=[1, 2, 3], id=[7, 7, 8], box=box)   # the identity changes in frame 3
>>> mot.clear(gt, pred)["IDSW"], mot.identity(gt, pred)["IDTP"]
(1, 2)
>>> print(mot.evaluate(gt, pred))
sequence    HOTA    DetA   AssA   MOTA   IDF1    MOTP  IDSW  Frag  FP  FN  MT  PT  ML
sequence   74.54  100.00  55.56  66.67  66.67  100.00     1     0   0   0   1   0   0
COMBINED   74.54  100.00  55.56  66.67  66.67  100.00     1     0   0   0   1   0   0
"""

from . import benchmarks, detrac, sequences
from .accumulate import Evaluator
from .arrays import Boxes, evaluate_boxes
from .benchmarks import prepare
from .classical import byte_track, drop_short, flow_tracker, sort
from .evaluate import compare, evaluate
from .events import Events, event_logs, events, logs_to_csv
from .flow import Flow, Rounding, min_cost_flow, round_trajectories
from .formats import read, write
from .gaps import interpolate
from .graph import candidate_edges, edge_features, label_edges, match_detections
from .metrics import Matches, clear, count, hota, identity, match, vace
from .neural import TrackInfo, track
from .report import Comparison, Report
from .tracks import Tracks

__all__ = [
    "Boxes",
    "Comparison",
    "Evaluator",
    "Events",
    "Flow",
    "Matches",
    "Report",
    "Rounding",
    "TrackInfo",
    "Tracks",
    "benchmarks",
    "byte_track",
    "candidate_edges",
    "clear",
    "compare",
    "count",
    "detrac",
    "drop_short",
    "edge_features",
    "evaluate",
    "evaluate_boxes",
    "event_logs",
    "events",
    "flow_tracker",
    "hota",
    "identity",
    "interpolate",
    "label_edges",
    "logs_to_csv",
    "match",
    "match_detections",
    "min_cost_flow",
    "prepare",
    "read",
    "round_trajectories",
    "sequences",
    "sort",
    "track",
    "vace",
    "write",
]
