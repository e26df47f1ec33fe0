"""Names of earlier versions, and names that are nearly right, are refused with the right one."""

import dataclasses
from pathlib import Path

import pytest
from click.testing import CliRunner

from milan_pipeline.cli.commands import stage_command
from milan_pipeline.cli.options import argument, option
from milan_pipeline.cli.recipes import read_options
from milan_pipeline.errors import ConfigError
from tests.support.cli import run_cli


@dataclasses.dataclass(frozen=True, kw_only=True)
class Taste:
    """Taste a cake."""

    cake: str = argument(formerly="pie")
    sweet_enough: float = option(1.0, help="Sweetness.", formerly="sugar")
    with_tea: str | None = argument(None)


TASTE = stage_command("taste", Taste, run=print, dry_run=None)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--pie", "plum"), "--pie is now CAKE: taste CAKE"),
        (("plum", "--sugar=2"), "--sugar is now --sweet-enough: taste --sweet-enough VALUE"),
        (("plum", "--sweet-enuogh", "2"), "Did you mean '--sweet-enough'?"),
    ],
)
def test_an_option(words: tuple[str, ...], said: str) -> None:
    ended = CliRunner().invoke(TASTE, words)
    assert ended.exit_code == 2
    assert said in ended.output


@pytest.mark.parametrize(("key", "now"), [("pie", "cake"), ("sugar", "sweet-enough")])
def test_a_key_of_a_recipe(key: str, now: str, tmp_path: Path) -> None:
    path = tmp_path / "taste.yaml"
    path.write_text(f"{key}: 1")
    with pytest.raises(ConfigError, match=f"'{key}' is called '{now}' now; write that"):
        read_options(path, Taste, "taste")


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("pack-image", "there is no command 'pack-image'; did you mean 'pack-images'?"),
        ("xyz", "there is no command 'xyz'\n"),
    ],
)
def test_a_command(word: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    run_cli(word, code=2)
    assert said in capsys.readouterr().err


def test_h_is_help(capsys: pytest.CaptureFixture[str]) -> None:
    run_cli("-h")
    run_cli("status", "-h")
    said = capsys.readouterr().out
    assert said.count("-h, --help") == 2


def test_an_argument_may_be_left_out() -> None:
    assert "with_tea=None" in CliRunner().invoke(TASTE, ["plum"]).output
    assert "with_tea='Assam'" in CliRunner().invoke(TASTE, ["plum", "Assam"]).output
