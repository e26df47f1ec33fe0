"""The table fits the code, and the runner tells what is caught from what survives."""

from pathlib import Path

import pytest

from tests.mutations.table import STAGES, Mutation, mutations_of
from tests.mutations.trials import Trials

ROOT = Path(__file__).parents[2]
LEAST = 10

DOUBLE = Mutation(
    means="nothing is doubled",
    file="code.py",
    old="return 2 * value",
    new="return value",
    tests=("test_code.py",),
)


@pytest.mark.parametrize("stage", STAGES)
def test_every_line_to_mutate_is_there_once_and_so_are_its_tests(stage):
    rows = mutations_of(stage)
    assert len(rows) >= LEAST
    assert len({row.means for row in rows}) == len(rows)
    for row in rows:
        source = (ROOT / row.file).read_text(encoding="utf-8")
        mutated = row.applied(source)
        compile(mutated, row.file, "exec")
        assert mutated != source
        assert row.tests
        for file, _, name in (test.partition("::") for test in row.tests):
            assert f"{name}(" in (ROOT / file).read_text(encoding="utf-8")


@pytest.mark.parametrize("source", ["", "return 2 * value\n  return 2 * value\n"])
def test_a_line_that_is_not_there_once_is_named(source):
    with pytest.raises(ValueError, match=r"code.py has the line 'return 2 \* value' [02] times"):
        DOUBLE.applied(source)


def test_what_a_test_notices_is_caught_and_the_working_tree_stays_as_it_is(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    (root / "code.py").write_text("def double(value):\n    return 2 * value\n")
    (root / "test_code.py").write_text(
        "from code import double\n"
        "def test_zero():\n    assert double(0) == 0\n"
        "def test_one():\n    assert double(1) == 2\n"
    )
    before = (root / "code.py").read_text()
    with Trials(root, tmp_path, libraries=()) as trials:
        assert trials.catcher(DOUBLE) == "test_code.py::test_one"
        assert trials.failing(()) == []
        (tmp_path / "copy" / "test_code.py").write_text("def test_nothing():\n    pass\n")
        assert trials.catcher(DOUBLE) is None
        with pytest.raises(RuntimeError, match=r"no_test.py exits with 4"):
            trials.failing(["no_test.py"])
    assert (root / "code.py").read_text() == before
