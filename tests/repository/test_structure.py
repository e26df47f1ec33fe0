"""Every file lies where CONTRIBUTING says, and none grows beyond what a reader takes in."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = ("milan_pipeline", "stages")
MOST_MODULES, MOST_LINES = 20, 300
# Their tests are of commands, scripts and whole chains, not of one module of the library.
NOT_MIRRORED = {
    *("benchmarks", "browser", "devices", "docs", "end_to_end", "faults", "mutations", "options"),
    *("repository", "slurm", "stages", "workflows"),
}
# An `__init__.py` there has more than its sentence; CONTRIBUTING says why.
WITH_CODE = {"milan_pipeline", "milan_pipeline/storage", "milan_pipeline/images"}


def modules(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def named(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(ROOT)) for path in paths]


@pytest.mark.parametrize("root", [*SOURCES, "tests/stages"])
def test_no_folder_has_too_many_modules(root: str) -> None:
    folders = {path.parent for path in modules(root)}
    counts = {folder: len([*folder.glob("[!_]*.py")]) for folder in folders}
    assert not [f"{folder}: {count}" for folder, count in counts.items() if count > MOST_MODULES]


def test_no_module_is_too_long() -> None:
    lengths = {path: path.read_text(encoding="utf-8").count("\n") for path in modules(*SOURCES)}
    assert not named([path for path, lines in lengths.items() if lines > MOST_LINES])


def test_an_init_is_one_sentence() -> None:
    inits = [path for path in modules(*SOURCES) if path.name == "__init__.py"]
    for path in inits:
        if str(path.parent.relative_to(ROOT)) in WITH_CODE:
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        sentence = ast.get_docstring(tree)
        assert sentence, path
        assert len(tree.body) == 1, path
        assert "\n" not in sentence, path
        assert sentence.endswith("."), path


def misplaced(path: Path) -> bool:
    """Whether a test names no module of the package whose folder it lies in."""
    folder = path.parent.relative_to(ROOT / "tests")
    source = ROOT / "milan_pipeline" / folder
    words = path.stem.split("_")[1:]
    beginnings = ["_".join(words[: n + 1]) for n in range(len(words))]
    return not any((source / f"{name}.py").exists() for name in beginnings)


def test_every_test_names_a_module_of_the_package_that_it_lies_with() -> None:
    tests = [path for path in modules("tests") if path.name.startswith("test_")]
    mirrored = [p for p in tests if p.relative_to(ROOT / "tests").parts[0] not in NOT_MIRRORED]
    assert not named([path for path in mirrored if misplaced(path)])


def test_the_matrix_runs_tests_that_there_are() -> None:
    named = re.findall(r'"(\w+/[\w/]+\.py)"', (ROOT / "noxfile.py").read_text(encoding="utf-8"))
    assert len(named) > 10
    assert not [name for name in named if not (ROOT / "tests" / name).exists()]


def test_tests_share_what_lies_in_support_alone() -> None:
    for path in modules("tests"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [node.module] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            last = [name.rpartition(".")[2] for name in names if name]
            assert not [n for n in last if n == "conftest" or n.startswith("test_")], path
