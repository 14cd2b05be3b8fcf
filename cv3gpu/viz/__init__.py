"""Pictures: labelled grids of images, label maps, tracks over time, metrics. matplotlib, loaded when a picture is made.

The functions return matplotlib figures that belong to no window; :func:`save` writes one. Colours are those
of Okabe and Ito, which people with any colour vision tell apart. :func:`save_labels` and :func:`save_image` write
pictures without frame or title, a pixel for each pixel, by Pillow; :func:`tracks_gif` writes an animation, and
:class:`Page` a page for the browser, with sliders, a player and tables.
"""

from ._base import COLOURS, save
from ._base import pillow as pillow
from ._base import require as require
from .animation import track_pictures, tracks_gif
from .benchmarks import roofline_figure, scaling_figure, speedup_figure
from .families import (
    checkerboard_figure,
    curves_figure,
    eigenvectors_figure,
    image_grid,
    iterations_figure,
    labels_figure,
    points_figure,
)
from .html import Page
from .images import boundaries, cutout, label_colours, mean_colours, overlay, save_image, save_labels
from .tracks import alpha_figure, identities_figure, tracking_graph_figure, tracks_figure

__all__ = [
    "COLOURS",
    "Page",
    "alpha_figure",
    "boundaries",
    "checkerboard_figure",
    "curves_figure",
    "cutout",
    "eigenvectors_figure",
    "identities_figure",
    "image_grid",
    "iterations_figure",
    "label_colours",
    "labels_figure",
    "mean_colours",
    "overlay",
    "points_figure",
    "roofline_figure",
    "save",
    "save_image",
    "save_labels",
    "scaling_figure",
    "speedup_figure",
    "track_pictures",
    "tracking_graph_figure",
    "tracks_figure",
    "tracks_gif",
]
