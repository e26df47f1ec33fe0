"""A configuration dataclass is a command line: options, YAML, precedence, refusals."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from milan_pipeline.cli.commands import HELP_OPTIONS, stage_command
from milan_pipeline.cli.main import group
from milan_pipeline.cli.options import arguments, option, require_least
from milan_pipeline.cli.recipes import read_options
from milan_pipeline.cli.values import text
from milan_pipeline.errors import ConfigError
from tests.support.cli import Bake, run_cli


@dataclasses.dataclass(frozen=True, kw_only=True)
class Eat:
    """Eat cakes."""

    cakes: tuple[str, ...] = arguments()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stack:
    """Stack cakes."""

    heights: tuple[int, ...] = option((1, 2), help="Heights; again for more.", least=1, most=9)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wait:
    """Wait."""

    seconds: int = option(1, help="Seconds.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Heat:
    """Heat the oven."""

    degrees: float = option(180.0, help="Degrees.")


def test_integers_of_more_than_64_bits_are_refused() -> None:
    require_least(Stack(heights=(1,)))
    with pytest.raises(
        ConfigError, match=f"--seconds {2**63} is not a usable number; give a smaller"
    ):
        require_least(Wait(seconds=2**63))


@pytest.mark.parametrize("degrees", [float("nan"), float("inf"), float("-inf"), 1e31, -1e300])
def test_numbers_without_end_are_refused(degrees: float) -> None:
    require_least(Heat())
    other = "a number" if degrees != degrees else "a smaller one"  # noqa: PLR0124 - NaN
    said = f"--degrees {degrees} is not a usable number; give {other}"
    with pytest.raises(ConfigError, match=f"{re.escape(said)}$"):
        require_least(Heat(degrees=degrees))


@pytest.mark.parametrize(
    ("heights", "said"), [((3, 0), "--heights 0 is below 1"), ((10, 3), "--heights 10 is above 9")]
)
def test_every_value_of_a_repeated_option_has_its_limits(
    heights: tuple[int, ...], said: str
) -> None:
    require_least(Stack())
    with pytest.raises(ConfigError, match=said):
        require_least(Stack(heights=heights))


def invoke(config_class: type, *words: object) -> Any:
    """Run a command; return the configuration it was given, or click's answer if it refused."""
    given: list[Any] = []
    command = stage_command("bake", config_class, run=given.append, dry_run=given.append)
    result = CliRunner().invoke(command, [str(word) for word in words])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return given[0] if given else result


def bake(folder: Path, text: str, *words: object) -> Any:
    path = folder / "bake.yaml"
    path.write_text(text)
    return invoke(Bake, "rye", "--config", path, *words)


def test_fields_become_options() -> None:
    assert invoke(Bake, "rye") == Bake(flour="rye")
    assert invoke(
        Bake, "rye", "--batch-size", 2, "--heat", 180, "--kind", "nut", "--spice", "a",
        "--spice", "b", "--no-cover",
    ) == Bake(
        flour="rye", batch_size=2, heat=180.0, kind="nut", spice=("a", "b"), cover=False
    )  # fmt: skip
    assert invoke(Eat, "a", "b") == Eat(cakes=("a", "b"))


@pytest.mark.parametrize(
    "words", [(), ("rye", "--batch-size", "x"), ("rye", "--kind", "cheese"), ("rye", "--bake", 1)]
)
def test_wrong_usage_is_2(words: tuple[object, ...]) -> None:
    assert invoke(Bake, *words).exit_code == 2


def test_dry_run_does_not_run() -> None:
    def refuse(_: Bake) -> None:
        raise AssertionError

    asked: list[Bake] = []
    command = stage_command("bake", Bake, run=refuse, dry_run=asked.append)
    assert CliRunner().invoke(command, ["rye", "--dry-run"]).exit_code == 0
    assert asked == [Bake(flour="rye")]


def test_a_command_that_only_reports_has_no_dry_run() -> None:
    given: list[Bake] = []
    command = stage_command("bake", Bake, run=given.append, dry_run=None)
    assert CliRunner().invoke(command, ["rye", "--dry-run"]).exit_code == 2
    assert not given
    assert CliRunner().invoke(command, ["rye"]).exit_code == 0
    assert given == [Bake(flour="rye")]


def test_yaml_at_the_top_and_in_the_section(tmp_path: Path) -> None:
    text = """
        batch_size: 7
        heat: 1e-3
        spice: [a, 1]
        index: {workers: 3}
        bake: {batch-size: 8, cover: no}
    """
    assert bake(tmp_path, text) == Bake(
        flour="rye", batch_size=8, heat=1e-3, spice=("a", "1"), cover=False
    )


def test_options_are_borrowed_from_sections_of_other_stages(tmp_path: Path) -> None:
    path = tmp_path / "bake.yaml"
    path.write_text("{index: {heat: 200, kind: nut, flour: rye}, bake: {kind: plain}}")
    borrowed = {"index": ("heat", "kind"), "probe": ("cover",)}
    assert read_options(path, Bake, "bake", borrowed=borrowed) == {"heat": "200", "kind": "plain"}
    assert read_options(path, Bake, "bake") == {"kind": "plain"}


def test_the_command_line_wins(tmp_path: Path) -> None:
    text = "{batch-size: 7, cover: false, spice: [a], kind: nut}"
    assert bake(
        tmp_path, text, "--batch-size", 1, "--cover", "--spice", "b", "--kind", "plain"
    ) == Bake(flour="rye", batch_size=1, spice=("b",))


def test_yaml_gives_positional_and_repeated_values(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("flour: rye\nspice: anise\nheat: null")
    assert invoke(Bake, "--config", path) == Bake(flour="rye", spice=("anise",))
    path.write_text("cakes: one.tar")
    assert invoke(Eat, "--config", path) == Eat(cakes=("one.tar",))


def test_an_empty_file_changes_nothing(tmp_path: Path) -> None:
    assert bake(tmp_path, "") == bake(tmp_path, "bake:") == Bake(flour="rye")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("bake: {index: 1}", "has the unknown key 'index'"),
        ("batch_sise: 1", "unknown key 'batch_sise'; did you mean 'batch-size'"),
        ("pack_images: {seed: 1}", "has the section 'pack_images'; write it as 'pack-images'"),
        ("bake: {hat: 1}", "unknown key 'hat'; did you mean 'heat'"),
        ("[1, 2]", "holds no mapping"),
        ("bake: 3", "section 'bake' must map"),
        ("heat: {a: 1}", "'heat' takes one value"),
        ("batch-size: [1, 2]", r"'batch-size' takes one value, not \[1, 2\]"),
        ("flour: no", "'flour' is read as false, since .*; put it in quotes"),
        ("batch-size: yes", "'batch-size' is read as true"),
        ("spice: [a, off]", "'spice' is read as false"),
        ("batch-size: null", "'batch-size' has no value; give one, or take the key out"),
        ("flour:", "'flour' has no text; put it in quotes, or take the key out"),
        ("spice: [export A: b]", "'spice' has the item {'export A': 'b'}; put it in quotes"),
        ("spice: [a, null]", "'spice' has the item None"),
        ("a: [", "is not plain YAML"),
        ("heat: !!python/object/apply:os.getcwd []", "is not plain YAML"),
        ("heat: !!python/name:os.getcwd", "is not plain YAML"),
        ("\x00", "is not plain YAML"),
    ],
)
def test_bad_files_are_refused_by_name(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        bake(tmp_path, text)
    assert "bake.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["batch-size: 1.5", "cover: maybe", "kind: cheese", "heat: warm"])
def test_bad_values_are_wrong_usage(tmp_path: Path, text: str) -> None:
    assert bake(tmp_path, text).exit_code == 2


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(ConfigError, match="is no text in UTF-8; save it so"):
        read_options(tmp_path / "c.yaml", Bake, "bake")


def stage_commands() -> dict[str, click.Command]:
    context = click.Context(group, **HELP_OPTIONS)
    found = {name: group.get_command(context, name) for name in group.list_commands(context)}
    return {name: command for name, command in found.items() if command is not None}


def test_the_stages_are_found() -> None:
    names = {"pack-images", "index", "extract-targets", "pack-targets", "pretrain", "probe"}
    assert names <= set(stage_commands())


@pytest.mark.parametrize("name", sorted(stage_commands()))
def test_every_stage_and_option_is_documented(name: str) -> None:
    command = stage_commands()[name]
    assert command.help
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.name
            assert parameter.help.endswith("."), parameter.name
        else:
            assert parameter.human_readable_name in command.help, parameter.name
    shared = {"as_json", "quiet", "verbose", "debug"}
    if name not in ("recipes", "doctor"):
        shared |= {"config"}
    assert shared <= {parameter.name for parameter in command.params}


def test_the_home_folder_is_put_in_at_the_start_and_behind_a_colon(monkeypatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    for given, found in {
        "~": "/home/me",
        "~/run": "/home/me/run",
        "local-dir:~/clip": "local-dir:/home/me/clip",
        "open_clip:local-dir:~/clip": "open_clip:local-dir:/home/me/clip",
        "./~/run": "./~/run",
        "a~b": "a~b",
        "~nobody-of-this-name/x": "~nobody-of-this-name/x",
        "s3://bucket/~/x": "s3://bucket/~/x",
    }.items():
        assert text(given) == found


def test_options_arguments_and_recipes_know_the_home_folder(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "recipe.yaml").write_text("spice: [~/salt, 'a:~/b']\n")
    found = invoke(Bake, "~/flour", "--config=~/recipe.yaml")
    assert found.flour == f"{tmp_path}/flour"
    assert found.spice == (f"{tmp_path}/salt", f"a:{tmp_path}/b")


@pytest.mark.parametrize(
    ("words", "message"),
    [(("",), "FLOUR is empty; give a value"), (("a\0b",), r"FLOUR 'a\x00b' has a NUL")],
)
def test_what_can_be_no_name_is_refused(words: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        invoke(Bake, *words)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("pack-images", "", "out"), "SOURCE is empty; give"),
        (("pack-images", "photos", ""), "DEST is empty; give"),
        (("index", "x.tar", ""), "URLS is empty; give"),
        (("index", "x.tar", "--out", ""), "--out is empty; give"),
        (("pretrain", "--images", "x", "--out", "y", "--init", ""), "--init is empty; give"),
    ],
)
def test_what_an_unset_variable_leaves_is_no_place(
    words: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run_cli(*words, code=2)
    assert said in capsys.readouterr().err
