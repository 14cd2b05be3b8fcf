"""How Sphinx builds the documentation: ``python -m sphinx -W --keep-going -n docs docs/_build``."""

import sys
from pathlib import Path

DOCS = Path(__file__).parent
sys.path[:0] = [str(DOCS / "_ext"), str(DOCS.parent)]  # our extensions; cv3gpu and bench of this checkout

import cv3gpu  # noqa: E402

project = "cv3gpu"
author = "the authors of cv3gpu"
copyright = "the authors of cv3gpu"
version = release = cv3gpu.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "numpydoc",
    "myst_parser",
    "sphinx_gallery.gen_gallery",
    "cv3gpu_docs",
]
exclude_patterns = ["_build", "gallery", "auto_gallery/**/*.ipynb", "auto_gallery/**/*.py"]
default_role = "literal"
nitpicky = True
# The words of numpydoc's type slots and the classes of other libraries: nothing is fetched, so nothing to link to.
nitpick_ignore_regex = [(r"py:.*", r"(?!cv3gpu).*")]
suppress_warnings = ["config.cache"]  # sphinx-gallery's settings may hold functions

autodoc_typehints = "none"  # the docstrings say shapes and dtypes; annotations say Any
autodoc_member_order = "bysource"
autosummary_generate = False
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath", "attrs_inline"]
myst_heading_anchors = 3

html_theme = "pydata_sphinx_theme"
html_title = f"cv3gpu {release}"
html_static_path = ["_static"]
html_css_files = ["cv3gpu.css"]
html_sidebars = {page: [] for page in ("index", "install", "tour", "course")}  # these have no section around them
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {
    "logo": {"text": "cv3gpu"},
    "navbar_align": "left",
    "header_links_before_dropdown": 7,
    "show_toc_level": 2,
    "navigation_depth": 2,
    "footer_start": ["copyright"],
    "footer_end": ["theme-version"],
}

sphinx_gallery_conf = {
    "examples_dirs": "gallery",
    "gallery_dirs": "auto_gallery",
    "filename_pattern": r"plot_",
    "abort_on_example_error": True,
    "only_warn_on_example_error": False,
    "image_scrapers": ("figures.pictures",),
    "subsection_order": [
        f"gallery/{name}" for name in ("clustering", "segmentation", "networks", "tracking", "kernels")
    ],
    "within_subsection_order": "ExampleTitleSortKey",
    "doc_module": ("cv3gpu",),
    "backreferences_dir": "auto_gallery/backreferences",
    "download_all_examples": False,
    "write_computation_times": False,
    "show_signature": False,
    "remove_config_comments": True,
}
