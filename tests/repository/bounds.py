"""The lowest version of each dependency that pyproject.toml allows."""

import re
import tomllib
from pathlib import Path

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"
# What only tests and pages are made with; the rest is what a command may import.
TOOLS = {"docs", "fuzz", "matrix", "test"}
REQUIREMENT = re.compile(r"([\w.-]+)(?:\[[\w,]+\])?>=([\d.]+)")


def lower_bounds() -> dict[str, str]:
    """Return the lowest version allowed of each package that a command may import.

    Raises:
        ValueError: for a requirement that is more or less than a name and `>=`.
    """
    project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"].items()
    optional = [line for name, lines in extras if name not in TOOLS for line in lines]
    bounds: dict[str, str] = {}
    for requirement in project["dependencies"] + optional:
        match = REQUIREMENT.fullmatch(requirement)
        if match is None:
            raise ValueError(
                f"pyproject.toml: {requirement!r} has no plain lower bound: write NAME>=X.Y"
            )
        bounds[match[1]] = match[2]
    return bounds
