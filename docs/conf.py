"""Sphinx configuration; `make docs` builds the pages with warnings as errors."""

from __future__ import annotations

import sys
from importlib.metadata import version as installed_version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "bsr_theory"
author = "bsr_theory developers"
copyright = "2026, bsr_theory developers"  # the name Sphinx looks for
version = release = installed_version("bsr_theory")

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.viewcode",
    "numpydoc",
    "sphinx_copybutton",
    "sphinxcontrib.bibtex",
    "bsr_gallery",
    "bsr_links",
    "bsr_notebooks",
    "bsr_output",
    "bsr_references",
]
exclude_patterns = ["_build", "_ext", "jupyter_execute", "**.ipynb_checkpoints"]
default_role = "py:obj"  # `solve` in a docstring links to solve

myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

# Code on pages and in notebooks is run when it or the package has changed (_ext/bsr_notebooks.py):
# a page whose code fails fails the build.
nb_execution_mode = "cache"
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_merge_streams = True

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings give types together with shapes and ranges
numpydoc_show_class_members = False

bibtex_bibfiles = ["references.bib"]
bibtex_default_style = "unsrt"

html_theme = "furo"
html_title = f"bsr_theory {version}"
html_static_path = ["_static"]
html_css_files = ["custom.css"]
LIGHT, DARK = "#0072b2", "#56b4e9"  # the blues of the figures
html_theme_options = {
    f"{mode}_css_variables": {
        f"color-{part}": blue
        for part in ("brand-primary", "brand-content", "api-name", "api-pre-name")
    }
    for mode, blue in (("light", LIGHT), ("dark", DARK))
}
