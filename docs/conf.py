"""Sphinx configuration."""

import sys
from pathlib import Path

from airflow_provider_timextender import __version__

project = "airflow-provider-timextender"
author = "The airflow-provider-timextender authors"
copyright = author
release = version = __version__

sys.path.insert(0, str(Path(__file__).parent))

extensions = ["myst_parser", "sphinx.ext.autodoc", "pictures"]
exclude_patterns = ["_build", "_generated"]
html_theme = "furo"
html_title = "TimeXtender provider for Apache Airflow"

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_default_options = {"members": True, "show-inheritance": True}
