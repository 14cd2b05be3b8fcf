"""How the gallery finds its pictures: figures of matplotlib that belong to no window, and animations.

After each cell of an example every new figure among its variables is a picture of the page, and so is every new
path of a GIF file.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from sphinx_gallery.scrapers import figure_rst

__all__ = ["pictures"]


def _title(figure: Figure) -> str:
    """What a figure is called, for those who don't see it."""
    titles = [figure.get_suptitle(), *(axis.get_title() for axis in figure.axes)]
    return " ".join(next((title for title in titles if title), "").split())


def pictures(block: Any, block_vars: dict[str, Any], gallery_conf: dict[str, Any]) -> str:
    """Saves what a cell has made, and gives the reStructuredText that shows it: a scraper of sphinx-gallery."""
    known: list[Any] = block_vars.setdefault("pictures", [])  # of this example; sphinx-gallery keeps the dictionary
    shown = []
    for value in list(block_vars["example_globals"].values()):
        animation = isinstance(value, Path) and value.suffix == ".gif"
        if not (animation or isinstance(value, Figure)) or any(value is other for other in known):
            continue
        known.append(value)
        path = Path(next(block_vars["image_path_iterator"]))
        if animation:
            path = path.with_suffix(".gif")
            shutil.copyfile(value, path)
        else:
            value.savefig(path, dpi=110, bbox_inches="tight", pad_inches=0.08)
        shown.append(figure_rst([path], gallery_conf["src_dir"], "animation" if animation else _title(value)))
    return "\n".join(shown)
