"""Sphinx configuration."""

import re

from airflow_provider_timextender import __version__

project = "airflow-provider-timextender"
author = "The airflow-provider-timextender authors"
copyright = author
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "TimeXtender provider for Apache Airflow"

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_default_options = {"show-inheritance": True}


def setup(app):
    app.connect("source-read", with_navigation)


def with_navigation(app, page, source):
    # The navigation is made of the links of the index, which GitHub shows as they are.
    if page == "index":
        pages = "\n".join(re.findall(r"\]\(([\w-]+)\.md\)", source[0]))
        source[0] += f"\n```{{toctree}}\n:hidden:\n\n{pages}\n```\n"
