"""Every command's help says all: its purpose, groups of options, defaults, units, an example."""

import shlex

import click
import pytest
from click.testing import CliRunner

from milan_pipeline.cli.commands import VERBOSITY, StageCommand, stage_command
from milan_pipeline.cli.main import group
from milan_pipeline.cli.options import GROUPS
from milan_pipeline.cli.recipes import PIPELINE, in_pipeline_order, installed_stages, stage_names
from milan_pipeline.cli.values import Number
from tests.support.cli import Bake

NUMBERS = (Number, click.types.IntParamType)


def loaded(stage: str) -> StageCommand:
    (entry,) = installed_stages().select(name=stage)
    command = entry.load()
    assert isinstance(command, StageCommand)
    return command


def flaws(command: StageCommand) -> list[str]:
    """Name what a command's help lacks."""
    purpose, *rest = (command.help or "").strip().splitlines() or [""]
    found = []
    if not (20 <= len(purpose) <= 100 and purpose.endswith(".")) or "".join(rest[:1]).strip():
        found.append("the help does not begin with one line on the purpose")
    for name, options in command.option_groups().items():
        found += [] if name in GROUPS else [f"the group {name} is unknown"]
        found += [f"{option.opts[0]} {flaw}" for option in options for flaw in option_flaws(option)]
    try:
        configured(command)
    except (ValueError, click.ClickException) as error:
        found.append(f"the example is wrong: {error}")
    return found


def option_flaws(option: click.Option) -> list[str]:
    said = (option.help or "").strip()
    found = [] if said.endswith(".") else ["has no help"]
    if isinstance(option.type, NUMBERS) and option.metavar is None:
        found.append("has no unit")
    is_plain_flag = option.is_flag and not option.secondary_opts
    if not (option.required or option.show_default or is_plain_flag or "default:" in said):
        found.append("has no default")
    return found


def configured(command: StageCommand) -> object:
    """Parse the example and make the stage's configuration of it, which checks it; run nothing."""
    program, *words = shlex.split((command.example or "").replace("\\\n", " ")) or [""]
    if [program, *words[:1]] != ["milan-pipeline", command.name]:
        raise ValueError(f"{command.example!r} is not one of {command.name}")
    values = command.make_context(str(command.name), words[1:]).params
    general = {"as_json", "dry_run_asked", *VERBOSITY}
    return command.config_class(**{k: v for k, v in values.items() if k not in general})


@pytest.mark.parametrize("stage", stage_names())
def test_the_help_of_every_stage_lacks_nothing(stage: str) -> None:
    command = loaded(stage)
    assert flaws(command) == []
    result = CliRunner().invoke(group, [stage, "--help"], prog_name="milan-pipeline")
    assert result.exit_code == 0
    usage, _, purpose = result.output.splitlines()[:3]
    assert usage.startswith(f"Usage: milan-pipeline {stage} [OPTIONS]")
    assert purpose.strip() in " ".join(str(command.help).split())
    headings = [f"{name}:" for name in command.option_groups()]
    assert [line for line in result.output.splitlines() if line in headings] == headings
    example = result.output.split("Example:\n")[1]
    assert [line.strip() for line in example.splitlines()] == [
        line.strip() for line in str(command.example).splitlines()
    ]


def test_what_is_lacking_is_named() -> None:
    command = stage_command("bake", Bake, run=print, dry_run=None, example="milan-pipeline bake")
    assert flaws(command) == [
        "the help does not begin with one line on the purpose",
        "the group Options is unknown",
        "--batch-size has no unit",
        "--heat has no unit",
        "--heat has no default",
        "--spice has no default",
        "the example is wrong: Missing parameter: flour",
    ]
    command = stage_command("bake", Bake, run=print, dry_run=None)
    assert flaws(command)[-1] == "the example is wrong: None is not one of bake"
    bare = click.Option(["--size"], type=int)
    assert option_flaws(bare) == ["has no help", "has no unit", "has no default"]


def test_stages_are_listed_in_the_order_of_a_pipeline() -> None:
    assert set(stage_names()) <= set(PIPELINE), "say in cli/recipes.py where a new stage stands"
    assert in_pipeline_order(["another", "pretrain", "index"]) == ["index", "pretrain", "another"]
    result = CliRunner().invoke(group, ["--help"], terminal_width=300)
    listed = result.output.split("pipeline:\n")[1].splitlines()
    assert [line.split()[0] for line in listed] == in_pipeline_order(stage_names())
    for line, stage in zip(listed, in_pipeline_order(stage_names()), strict=True):
        assert line.split(maxsplit=1)[1] in " ".join(str(loaded(stage).help).split())
        assert "..." not in line
