"""Metrics of segmentations: classes, segments without classes, borders, and both at once (panoptic).

All start from how often two label maps hold which pair of labels at a pixel. That table is counted on the device of the
maps; what follows from it is a few numbers, and is computed on the CPU in float64.
"""

from __future__ import annotations

from .borders import boundary_f1
from .classes import class_accuracy, class_iou, confusion_matrix, mean_iou, pixel_accuracy
from .panoptic import PanopticQuality, panoptic_quality
from .segments import rand_index, segmentation_covering, variation_of_information

__all__ = [
    "PanopticQuality",
    "boundary_f1",
    "class_accuracy",
    "class_iou",
    "confusion_matrix",
    "mean_iou",
    "panoptic_quality",
    "pixel_accuracy",
    "rand_index",
    "segmentation_covering",
    "variation_of_information",
]
