"""A stage's configuration dataclass is its command line: one field, one option, one YAML key."""

import dataclasses
import difflib
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeVar

import click

from milan_pipeline.errors import ConfigError
from milan_pipeline.recipes import find_recipe, read_document, section_of
from milan_pipeline.stage_names import stage_names

ConfigT = TypeVar("ConfigT")
Role = Literal["content", "extent", "execution"]


def option(
    default: Any = dataclasses.MISSING,
    *,
    help: str,  # noqa: A002 - click's own word
    choices: tuple[str, ...] | None = None,
    least: float | None = None,
    most: float | None = None,
    role: Role = "content",
) -> Any:
    """Declare a configuration field that is also the option `--field-name`.

    Args:
        default: the field's default; without one the option is required.
        help: one line for `--help`, with the unit where the value has one.
        choices: the only values allowed.
        least: the smallest value allowed, which `require_least` checks.
        most: the largest value allowed, which `require_least` checks, too.
        role: "content" shapes the output and must not change between runs into one output;
            "extent" may grow; "execution" (workers, device) is free.
    """
    metadata: dict[str, Any] = {"kind": "option", "help": help, "choices": choices, "role": role}
    metadata |= {"least": least, "most": most}
    return dataclasses.field(default=default, metadata=metadata)


def argument(*, role: Role = "execution") -> Any:
    """Declare a configuration field that is also a positional argument of the command."""
    return dataclasses.field(metadata={"kind": "argument", "role": role})


def arguments(*, role: Role = "execution") -> Any:
    """Declare a configuration field that takes all remaining positional arguments."""
    return dataclasses.field(metadata={"kind": "arguments", "role": role})


def require_least(config: Any) -> None:
    """Refuse values below what their options declare as least, or above most; None is left out.

    Of a repeated option every value is looked at.

    Raises:
        ConfigError: a value is not within them, or is NaN.
    """
    for field in dataclasses.fields(config):
        least, most = field.metadata.get("least"), field.metadata.get("most")
        given = getattr(config, field.name)
        flag = f"--{field.name.replace('_', '-')}"
        for value in given if isinstance(given, tuple) else (given,):
            if least is not None and value is not None and not value >= least:
                raise ConfigError(f"{flag} {value} is below {least:g}; give {least:g} or more")
            if most is not None and value is not None and not value <= most:
                raise ConfigError(f"{flag} {value} is above {most:g}; give {most:g} or less")


def fields_from(kind: type[ConfigT], config: Any, **settled: Any) -> ConfigT:
    """Make a configuration of the library from a stage's fields of the same names.

    Args:
        kind: the class to make; its fields that a stage does not have keep their defaults.
        config: the stage's configuration.
        settled: values that do not come from it.
    """
    names = [field.name for field in dataclasses.fields(typing.cast("Any", kind))]
    own = {name: getattr(config, name) for name in names if hasattr(config, name)}
    return kind(**(own | settled))


def parameters_of(config_class: type) -> list[click.Parameter]:
    """Build the click parameters of a configuration dataclass: its own fields, then inherited."""
    hints = typing.get_type_hints(config_class)
    # A stage's own options first, then those that it shares with others.
    own_first = sorted(
        dataclasses.fields(config_class), key=lambda f: f.name not in config_class.__annotations__
    )
    return [_parameter(field, hints[field.name]) for field in own_first]


def _parameter(field: "dataclasses.Field[Any]", hint: Any) -> click.Parameter:
    if field.metadata["kind"] == "argument":
        return click.Argument([field.name], metavar=field.name.upper())
    if field.metadata["kind"] == "arguments":
        return click.Argument([field.name], metavar=field.name.upper(), nargs=-1, required=True)
    flag = f"--{field.name.replace('_', '-')}"
    required = field.default is dataclasses.MISSING
    settings: dict[str, Any] = {"help": field.metadata["help"], "required": required}
    if not required:
        settings |= {"default": field.default, "show_default": field.default not in (None, "", ())}
    if hint is bool:
        return click.Option([f"{flag}/--no-{flag[2:]}"], **settings)
    settings["multiple"] = typing.get_origin(hint) is tuple
    choices = field.metadata["choices"]
    settings["type"] = click.Choice(choices) if choices else _scalar_type(hint)
    return click.Option([flag], **settings)


def _scalar_type(hint: Any) -> type:
    """The plain type behind `T`, `T | None` or `tuple[T, ...]`."""
    origin = typing.get_origin(hint)
    if origin in (types.UnionType, typing.Union, tuple):
        hint = next(arg for arg in typing.get_args(hint) if arg not in (type(None), Ellipsis))
    return typing.cast(type, hint)


def config_file_option(config_class: type, stage: str) -> click.Option:
    """Build `--config RECIPE`: values for any option of the stage; the command line wins."""

    def load(ctx: click.Context, _param: click.Parameter, name: str | None) -> None:
        if name is not None:
            values = read_config(find_recipe(name), config_class, stage)
            ctx.default_map = {**(ctx.default_map or {}), **values}

    return click.Option(
        ["--config"],
        metavar="RECIPE",
        is_eager=True,
        expose_value=False,
        callback=load,
        help="YAML file, or name of an installed recipe, with option values at the top or under "
        "the stage's name; the command line wins.",
    )


def read_config(path: Path, config_class: type, stage: str) -> dict[str, Any]:
    """Read a stage's values from a YAML file.

    Keys are option names. A key that names a stage holds a section: the section of this stage is
    used, those of others are left to them.

    Raises:
        ConfigError: the file is not a YAML mapping, a key is unknown (the nearest is named), or
            its value is a list or mapping where one value is needed.
    """
    document = read_document(path)
    stages = {*stage_names(), stage}
    values = {key: value for key, value in document.items() if key not in stages}
    section = section_of(path, stage, document.get(stage))
    hints = typing.get_type_hints(config_class)
    found: dict[str, Any] = {}
    for key, value in {**values, **section}.items():
        name = _known_name(str(key), list(hints), path)
        repeated = typing.get_origin(hints[name]) is tuple
        if isinstance(value, dict) or (isinstance(value, list) and not repeated):
            raise ConfigError(f"--config {path}: {key!r} takes one value, not {value!r}")
        found[name] = _plain([value] if repeated and not isinstance(value, list) else value)
    return found


def _known_name(key: str, known: list[str], path: Path) -> str:
    name = key.replace("-", "_")
    if name in known:
        return name
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
    hint = f"; did you mean {near[0].replace('_', '-')!r}?" if near else ""
    raise ConfigError(f"--config {path} has the unknown key {key!r}{hint}")


def _plain(value: Any) -> Any:
    """Give click the list itself for repeated options, and text for everything it must convert."""
    if isinstance(value, list):
        return [str(item) for item in value]
    return value if value is None or isinstance(value, bool) else str(value)


def stage_command(
    name: str,
    config_class: type[ConfigT],
    *,
    run: Callable[[ConfigT], None],
    dry_run: Callable[[ConfigT], None] | None,
) -> click.Command:
    """Build a stage's click command; its help text is the docstring of the configuration class.

    Args:
        name: of the command.
        config_class: its options.
        run: does the work.
        dry_run: says what `run` would do; None for a command that only reports, which then has no
            `--dry-run`.
    """

    def callback(*, dry_run_asked: bool = False, **values: Any) -> None:
        config = config_class(**values)
        (dry_run if dry_run_asked and dry_run is not None else run)(config)

    dry_run_option = click.Option(
        ["--dry-run", "dry_run_asked"],
        is_flag=True,
        help="Say what would be done, and do nothing.",
    )
    debug_option = click.Option(
        ["--debug"],
        is_flag=True,
        expose_value=False,
        help="Show the traceback of an error.",
    )
    return click.Command(
        name,
        callback=callback,
        params=[
            *parameters_of(config_class),
            config_file_option(config_class, name),
            *([] if dry_run is None else [dry_run_option]),
            debug_option,
        ],
        help=config_class.__doc__,
    )
