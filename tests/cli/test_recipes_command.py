"""recipes: what the command lists, and what it shows of one."""

import json

import pytest

from milan_pipeline.cli.recipes import recipe_names
from tests.support.cli import run_cli

Captured = pytest.CaptureFixture[str]


def test_all_are_listed_with_what_they_are_for(capsys: Captured) -> None:
    run_cli("recipes")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == recipe_names()
    assert all(len(line.split()) > 5 for line in lines)
    run_cli("recipes", "--json")
    rows = json.loads(capsys.readouterr().out)
    assert rows[0]["name"] == "demo"
    assert "extract-targets" in rows[0]["stages"]


def test_one_is_shown_as_it_is(capsys: Captured) -> None:
    run_cli("recipes", "demo")
    assert capsys.readouterr().out.startswith("# The demo, from a checkout")
    run_cli("recipes", "demo", "--json")
    assert json.loads(capsys.readouterr().out)["sections"]["pretrain"]


def test_it_takes_no_options_from_a_file(capsys: Captured) -> None:
    run_cli("recipes", "--config", "demo", code=2)
    assert "No such option" in capsys.readouterr().err


def test_a_name_that_is_nearly_right(capsys: Captured) -> None:
    run_cli("recipes", "own-image-1gpu", code=2)
    assert "did you mean 'own-images-1gpu'?" in capsys.readouterr().err
