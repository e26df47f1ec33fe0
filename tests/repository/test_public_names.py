"""What `milan_pipeline` offers: the same names in every list, found when they are asked for."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import milan_pipeline as mp
from docs.stage_stubs import own_stages
from milan_pipeline.cli.signatures import function_name

ROOT = Path(__file__).parents[2]


def names_for_types() -> set[str]:
    tree = ast.parse(Path(mp.__file__).read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    return {
        alias.name
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def test_all_lists_have_the_same_names() -> None:
    page = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`.*?`) \|", page, re.MULTILINE)
    shown = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert shown == set(mp.__all__)
    assert {*mp._HOMES, "errors"} == set(mp.__all__)
    assert names_for_types() == set(mp._HOMES)
    assert {function_name(stage) for stage in own_stages()} == set(mp._STAGES)


def test_every_name_is_found() -> None:
    for name in mp.__all__:
        assert getattr(mp, name).__name__.split(".")[-1] == name
    with pytest.raises(AttributeError, match="has no 'nonsense'"):
        _ = mp.nonsense  # type: ignore[attr-defined, unused-ignore]


def test_nothing_is_loaded_before_it_is_asked_for() -> None:
    check = (
        "import sys, milan_pipeline as mp; mp.errors.MilanError; mp.find_results; mp.pretrain;"
        "print(sorted({'torch', 'timm', 'open_clip'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", check], check=True, capture_output=True, text=True)
    assert done.stdout == "[]\n"
