"""How Sphinx builds the documentation; `make docs` treats its warnings as errors."""

import sys
from importlib import metadata
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

project = "milan-pipeline"
author = "the authors of milan-pipeline"
project_copyright = author
release = metadata.version(project)
extensions = ["myst_parser", "docs.mathml"]
myst_enable_extensions = ["amsmath", "dollarmath"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]
smartquotes = False  # `--views` stays as it is
html_math_renderer = "mathml"
html_theme = "furo"
html_title = project
