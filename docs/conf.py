"""Settings of the documentation site, which `make docs` builds from the Markdown files of the repository.

The source folder is the repository itself, so that a link between two files holds on the site as it does in a
checkout.
"""

from __future__ import annotations

import sys
from importlib.metadata import version as version_of
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # for the extensions of docs/site

project = "ab-harness"
version = release = version_of("ab-harness")
root_doc = "docs/index"
include_patterns = [
    "docs/**.md",
    "docs/**.ipynb",
    "experiments/**README.md",
    "harness/cli/verbs/guide/guide.md",  # docs/guide.md is a link to it
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
]
exclude_patterns = [
    ".*",
    "**/.ipynb_checkpoints",
    "docs/_build",
    "docs/guide.md",
    "build",
    "dist",
    "runs",
    "outputs",
    "tests",
]

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "docs.site.directives",
]
myst_heading_anchors = 4
highlight_language = "text"
nb_execution_mode = "off"  # the stored outputs are shown; a test compares them with what the code prints

default_role = "code"
autodoc_typehints = "signature"
autodoc_member_order = "bysource"

html_theme = "sphinx_book_theme"
html_title = "ab-harness"
html_theme_options = {"show_toc_level": 2, "use_download_button": False}
html_extra_path = ["site/root"]  # the address without a page leads to the first one
html_copy_source = False
