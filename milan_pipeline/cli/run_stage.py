"""Run a stage from Python, by the options of its command."""

from collections.abc import Iterator
from typing import Any

import click

from milan_pipeline.cli.recipes import installed_stages, stage_names
from milan_pipeline.errors import ConfigError


def run_stage(stage: str, **options: Any) -> None:
    """Run a stage as its command line does, but raise errors.

    Args:
        stage: the command, such as "pretrain".
        options: by the names of the command line, with `_` for `-`: strings, numbers, paths, lists
            where an option may be repeated, truth values of flags (`dry_run=True`); None leaves an
            option at its default.

    Raises:
        ConfigError: there is no such stage or option, or a value is not allowed.
        MilanError: whatever the stage finds wrong.
    """
    entries = installed_stages().select(name=stage)
    if not entries:
        raise ConfigError(f"there is no stage {stage!r}; take one of {', '.join(stage_names())}")
    command: click.Command = next(iter(entries)).load()
    try:
        command.main(args=list(_words(command, options)), prog_name=stage, standalone_mode=False)
    except click.ClickException as error:
        raise ConfigError(f"{stage}: {error.format_message()}") from error


def _words(command: click.Command, options: dict[str, Any]) -> Iterator[str]:
    """Yield the words of a command line with these options, then those of its arguments."""
    arguments = {each.name for each in command.params if isinstance(each, click.Argument)}
    for name, value in sorted(options.items(), key=lambda item: item[0] in arguments):
        flag = f"--{name.replace('_', '-')}"
        for each in value if isinstance(value, list | tuple) else [value]:
            if each is None:
                continue
            if isinstance(each, bool):
                yield flag if each else f"--no-{flag[2:]}"
            elif name in arguments:
                yield str(each)
            else:
                yield f"{flag}={each}"
