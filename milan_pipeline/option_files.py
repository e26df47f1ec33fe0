"""`--config`: option values out of a YAML file or an installed recipe."""

import difflib
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from milan_pipeline.errors import ConfigError
from milan_pipeline.recipes import find_recipe, read_document, recipe_names, section_of
from milan_pipeline.stage_names import stage_names

Borrowed = Mapping[str, tuple[str, ...]]
"""Names of options that a stage takes from other stages' sections, by the stage."""


def config_file_option(
    config_class: type, stage: str, *, borrowed: Borrowed | None = None
) -> click.Option:
    """Build `--config RECIPE`: values for any option of the stage; the command line wins."""

    def load(ctx: click.Context, _param: click.Parameter, name: str | None) -> None:
        if name is not None:
            values = read_config(find_recipe(name), config_class, stage, borrowed=borrowed)
            ctx.default_map = {**(ctx.default_map or {}), **values}

    return click.Option(
        ["--config"],
        metavar="RECIPE",
        is_eager=True,
        expose_value=False,
        callback=load,
        shell_complete=_complete_recipe,
        help="YAML file, or name of an installed recipe, with option values at the top or under "
        "the stage's name; the command line wins; default: none.",
    )


def _complete_recipe(
    _ctx: click.Context, _param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Offer installed recipes; where none fits, files."""
    names = [name for name in recipe_names() if name.startswith(incomplete)]
    return [CompletionItem(name) for name in names] or [CompletionItem(incomplete, type="file")]


def read_config(
    path: Path, config_class: type, stage: str, *, borrowed: Borrowed | None = None
) -> dict[str, Any]:
    """Read a stage's values from a YAML file.

    Keys are option names. A key that names a stage holds a section: the section of this stage is
    used, those of others are left to them, but for options that it borrows and does not have.

    Raises:
        ConfigError: the file is not a YAML mapping, a key is unknown (the nearest is named), or
            its value is a list or mapping where one value is needed.
    """
    document = read_document(path)
    stages = {*stage_names(), stage}
    values = {key: value for key, value in document.items() if key not in stages}
    section = section_of(path, stage, document.get(stage))
    hints = typing.get_type_hints(config_class)
    found: dict[str, Any] = _borrowed(path, document, borrowed or {})
    for key, value in {**values, **section}.items():
        found[_known_name(str(key), list(hints), path)] = value
    for name, value in found.items():
        repeated = typing.get_origin(hints[name]) is tuple
        if isinstance(value, dict) or (isinstance(value, list) and not repeated):
            key = name.replace("_", "-")
            raise ConfigError(f"--config {path}: {key!r} takes one value, not {value!r}")
        found[name] = _plain([value] if repeated and not isinstance(value, list) else value)
    return found


def _borrowed(path: Path, document: Mapping[Any, Any], borrowed: Borrowed) -> dict[str, Any]:
    """Return what other stages' sections say of the options that are borrowed from them."""
    return {
        name: value
        for stage, names in borrowed.items()
        for key, value in section_of(path, stage, document.get(stage)).items()
        if (name := str(key).replace("-", "_")) in names
    }


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
