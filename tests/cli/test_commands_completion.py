"""Shells complete stages, options, choices, recipes and files."""

import importlib.util
import os
import subprocess
import sys

import pytest
from click.shell_completion import ShellComplete

from milan_pipeline.cli.known_names import teacher_names
from milan_pipeline.cli.main import COMPLETION, PROGRAM, group
from milan_pipeline.cli.recipes import recipe_names, stage_names
from milan_pipeline.models.timm_names import vit_names
from tests.support.cli import run_cli


def offered(*words: str) -> list[tuple[str, str]]:
    """Return what a shell is told after some words, of which the last is not finished."""
    completion = ShellComplete(group, {}, PROGRAM, COMPLETION)
    found = completion.get_completions(list(words[:-1]), words[-1])
    return [(item.value, item.type) for item in found]


def test_stages_are_offered() -> None:
    assert sorted(offered("")) == [(name, "plain") for name in stage_names()]
    assert offered("pack-t") == [("pack-targets", "plain")]


def test_options_are_offered() -> None:
    assert offered("pack-targets", "--vi") == [("--views", "plain")]
    names = [name for name, _ in offered("pretrain", "--")]
    assert {"--targets", "--config", "--json", "--dry-run", "--fsdp"} <= set(names)


def test_choices_are_offered() -> None:
    words = ("pretrain", "--masking", "")
    assert offered(*words) == [(name, "plain") for name in ("semantic", "random", "block")]


def test_recipes_are_offered_and_where_none_fits_files() -> None:
    assert offered("pretrain", "--config", "") == [(name, "plain") for name in recipe_names()]
    assert offered("pretrain", "--config", "./my") == [("./my", "file")]


@pytest.mark.parametrize("words", [("pretrain", "--targets"), ("compare",), ("pack-images", "a")])
def test_files_are_left_to_the_shell(words: tuple[str, ...]) -> None:
    assert offered(*words, "im") == [("im", "file")]
    assert offered("pretrain", "--epochs", "1") == []


def test_codecs_teachers_and_students_are_offered() -> None:
    assert offered("transcode", "a", "b", "--codec", "hi") == [("high", "plain")]
    assert ("ViT-B-16", "plain") in offered("extract-targets", "--teacher", "ViT-B-")
    assert offered("plan", "--teacher", "local-d") == [("local-dir:", "plain")]
    assert offered("plan", "--teacher", "run") == [("run:", "plain")]
    teacher = "timm:vit_base_patch14_reg4_dinov2"
    assert offered("plan", "--teacher", teacher) == [(f"{teacher}.lvd142m", "plain")]
    assert ("vit_small_patch16_224", "plain") in offered("pretrain", "--student", "vit_small")
    assert offered("recipes", "dem") == [("demo", "plain")]


def test_no_name_is_offered_of_what_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert vit_names() == []
    assert teacher_names() == ["hf-hub:", "local-dir:", "run:"]


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_the_script_is_printed(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    run_cli("--completion", shell)
    assert f"{COMPLETION}={shell}_complete" in capsys.readouterr().out


def test_a_shell_asks_the_program_itself() -> None:
    command = [sys.executable, "-c", "from milan_pipeline.cli.main import main; main()"]
    asked = {COMPLETION: "bash_complete", "COMP_WORDS": "milan-pipeline verif", "COMP_CWORD": "1"}
    said = subprocess.check_output(command, env=os.environ | asked, text=True)
    assert said == "plain,verify\n"
