"""How Sphinx builds the documentation; `make docs` treats its warnings as errors."""

import sys
from importlib import metadata
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

project = "milan-pipeline"
author = "the authors of milan-pipeline"
release = metadata.version(project)
extensions = ["myst_parser", "command_reference"]
myst_enable_extensions = ["amsmath", "dollarmath"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = project
smartquotes = False  # `--views` stays as it is
