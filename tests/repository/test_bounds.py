"""What is imported has a lower bound, and CONTRIBUTING shows the bounds of today."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

from tests.repository.bounds import PYPROJECT, lower_bounds

ROOT = PYPROJECT.parent
PROJECT = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def imported_names(path: Path) -> set[str]:
    """Return the top-level names of other packages that a module imports, wherever it does so."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    tops = {name.partition(".")[0] for name in names}
    return tops - sys.stdlib_module_names - {"milan_pipeline", "workflows"}


def table_of_versions() -> list[dict[str, str]]:
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    lines = re.findall(r"^\| ((?:Python|3\.\d+) \|.*) \|$", page, re.MULTILINE)
    head, *rows = ([cell.strip() for cell in line.split("|")] for line in lines)
    return [dict(zip(head, row, strict=True)) for row in rows]


def test_the_wheel_imports_only_what_is_declared() -> None:
    folders = [ROOT / name for name in ("milan_pipeline", "stages", "workflows")]
    modules = [path for folder in folders for path in folder.rglob("*.py")]
    names = set().union(*(imported_names(path) for path in modules if "demo" not in path.parts))
    declared = {normal(name) for name in lower_bounds()} | {"distributed"}  # an extra of dask
    owners = packages_distributions()
    assert {name for name in names if normal(owners[name][0]) not in declared} == set()


def test_the_oldest_versions_in_the_table_are_the_lower_bounds() -> None:
    oldest = next(row for row in table_of_versions() if row["dependencies"] == "oldest")
    assert PROJECT["requires-python"] == f">={oldest['Python']}"
    shown = {name: oldest[name] for name in oldest.keys() & lower_bounds()}
    assert len(shown) == len(oldest) - len(("Python", "dependencies", "tests", "date"))
    assert shown == {name: lower_bounds()[name] for name in shown}


def test_the_matrix_runs_tests_that_are_there() -> None:
    text = (ROOT / "noxfile.py").read_text(encoding="utf-8")
    places = re.findall(r'"((?:\w+/)+\w+\.py)"', text)
    assert len(places) > 20
    assert [place for place in places if not (ROOT / "tests" / place).exists()] == []
