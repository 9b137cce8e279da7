"""Sphinx: the pages of docs/ are Markdown (MyST); `make docs` builds site/ and fails on a broken link."""

import cnnlab

project = "cnnlab"
author = "The cnnlab authors"
copyright = "The cnnlab authors, Apache-2.0"
version = release = cnnlab.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
myst_enable_extensions = ["dollarmath", "deflist"]
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "description"

html_theme = "furo"
html_title = f"cnnlab {release}"
