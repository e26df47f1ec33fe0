"""What is imported is declared in pyproject.toml, with lower bounds that CONTRIBUTING's table shows."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

from tests.repository.bounds import PYPROJECT, lower_bounds

ROOT = PYPROJECT.parent
# Of the standard library on Windows; a package that others bring along; what a user of FSDP has.
OURS = {"milan_pipeline", "stages", "workflows"}


def imported() -> set[str]:
    """Return the top-level names that modules of the wheel import, wherever in a module."""
    names = set()
    for folder in ("milan_pipeline", "stages", "workflows"):
        for path in (ROOT / folder).rglob("*.py"):
            if "demo" in path.parts:
                continue
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import):
                    names |= {alias.name.partition(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module:
                    names.add(node.module.partition(".")[0])
    return names - sys.stdlib_module_names - OURS


if __name__ == "__main__":
    d = packages_distributions()
    for n in sorted(imported()):
        print(n, d.get(n))
