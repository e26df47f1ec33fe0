"""Recipes (YAML files with options of stages, some installed by name) and the option `--config`.

Which stages are installed is read from entry points alone: none of them is imported.
"""

import functools
import importlib.resources
import os
import typing
from collections.abc import Mapping
from importlib.metadata import EntryPoints, entry_points
from pathlib import Path
from typing import Any

import click
import yaml
from click.shell_completion import CompletionItem

from milan_pipeline.cli.options import renamed_from
from milan_pipeline.cli.strict_yaml import OptionsLoader, StrictLoader, SurprisingYamlError
from milan_pipeline.core.suggestions import LEAST_ALIKE, did_you_mean
from milan_pipeline.errors import ConfigError, reason_of

PACKAGE = "milan_pipeline.workflows.recipes"
"""The package whose data the installed recipes are; it is not imported."""


def recipe_names() -> list[str]:
    """Name the installed recipes, in alphabetical order."""
    return sorted(path.stem for path in _folder().glob("*.yaml"))


def find_recipe(name: str) -> Path:
    """Return the file `name` if there is one, else the installed recipe of that name.

    Raises:
        ConfigError: there is neither; the nearest recipe is named.
    """
    path = Path(os.path.expanduser(name))  # noqa: PTH111 - `Path` fails for no such user
    if path.is_file():
        return path
    known = recipe_names()
    if name in known:
        return _folder() / f"{name}.yaml"
    hint = did_you_mean(Path(name).stem, known)
    raise ConfigError(f"{name!r} is neither a file nor a recipe ({', '.join(known)}){hint}")


def read_sections(path: Path) -> dict[str, dict[str, Any]]:
    """Read a recipe's sections: stage -> its options, as they stand in the YAML.

    Raises:
        ConfigError: the file is not plain YAML, or anything in it is not the section of a stage.
    """
    sections = {}
    for stage, options in read_yaml(path).items():
        if stage not in stage_names():
            hint = did_you_mean(str(stage), stage_names())
            raise ConfigError(f"{path} has the section {stage!r}, which names no stage{hint}")
        sections[stage] = section_of(path, stage, options)
    return sections


def read_yaml(path: Path, loader: type[StrictLoader] = StrictLoader) -> dict[Any, Any]:
    """Read a YAML mapping; an empty file is an empty one.

    Args:
        path: of the file.
        loader: how values are read.

    Raises:
        ConfigError: it cannot be read, is not plain YAML, has a key twice, or is no mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
        document = yaml.load(text, loader) or {}  # noqa: S506 - it is a safe one
    except SurprisingYamlError as error:
        raise ConfigError(f"{path}: {error}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is no text in UTF-8; save it so") from error
    # A date that does not exist is a ValueError.
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = reason_of(error)
        raise ConfigError(f"{path} is not plain YAML ({reason}); correct it") from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}); give another") from error
    if not isinstance(document, dict):
        raise ConfigError(f"{path} holds no mapping of option names to values; write one")
    return document


def section_of(path: Path, stage: str, options: Any) -> dict[str, Any]:
    """Return what a document holds under a stage's name; an empty section has no options.

    Raises:
        ConfigError: it is not a mapping.
    """
    if options is not None and not isinstance(options, dict):
        raise ConfigError(f"{path}: section {stage!r} must map option names to values")
    return options or {}


def _folder() -> Path:
    return Path(str(importlib.resources.files(PACKAGE)))


Borrowed = Mapping[str, tuple[str, ...]]
"""Names of options that a stage takes from other stages' sections, by the stage."""


def config_file_option(
    config_class: type, stage: str, *, borrowed: Borrowed | None = None
) -> click.Option:
    """Build `--config RECIPE`: values for any option of the stage; the command line wins."""

    def load(ctx: click.Context, _param: click.Parameter, name: str | None) -> None:
        if name is not None:
            values = read_options(find_recipe(name), config_class, stage, borrowed=borrowed)
            ctx.default_map = {**(ctx.default_map or {}), **values}

    return click.Option(
        ["--config"],
        metavar="RECIPE",
        is_eager=True,
        expose_value=False,
        callback=load,
        shell_complete=_complete_recipe,
        help="File or installed recipe (YAML) with values of options, at the top or under the "
        "command's name. Options on the command line win; default: none.",
    )


def _complete_recipe(
    _ctx: click.Context, _param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Offer installed recipes; where none fits, files."""
    names = [name for name in recipe_names() if name.startswith(incomplete)]
    return [CompletionItem(name) for name in names] or [CompletionItem(incomplete, type="file")]


def read_options(
    path: Path, config_class: type, stage: str, *, borrowed: Borrowed | None = None
) -> dict[str, Any]:
    """Read a stage's values from a YAML file.

    Keys are option names. A key that names a stage holds a section: the section of this stage is
    used, and of other stages' sections the options that it borrows and does not set itself.

    Raises:
        ConfigError: the file is not a YAML mapping, a key is unknown (the nearest is named), or
            its value is a list or mapping where one value is needed, or is of a type that YAML
            gave it.
    """
    document = read_yaml(path, OptionsLoader)
    stages = {*stage_names(), stage}
    values = {key: value for key, value in document.items() if key not in stages}
    section = section_of(path, stage, document.get(stage))
    hints = typing.get_type_hints(config_class)
    found: dict[str, Any] = _borrowed(path, document, borrowed or {})
    for key, value in {**values, **section}.items():
        now = renamed_from(config_class, str(key))
        if now is not None:
            new = now.removeprefix("--").lower()
            raise ConfigError(f"--config {path}: {key!r} is called {new!r} now; write that")
        found[_known_name(str(key), list(hints), path)] = value
    for name, value in found.items():
        where = f"--config {path}: {name.replace('_', '-')!r}"
        found[name] = _plain(where, value, hints[name])
    return found


def _borrowed(path: Path, document: Mapping[Any, Any], borrowed: Borrowed) -> dict[str, Any]:
    """Return the values that other stages' sections have for borrowed options."""
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
    if name.replace("_", "-") in {*stage_names()} - {key}:
        raise ConfigError(
            f"--config {path} has the section {key!r}; write it as {name.replace('_', '-')!r}"
        )
    hint = did_you_mean(key.lower(), [each.replace("_", "-") for each in known], least=LEAST_ALIKE)
    raise ConfigError(f"--config {path} has the unknown key {key!r}{hint}")


def _plain(where: str, value: Any, hint: Any) -> Any:
    """Return what click takes: a list for repeated options, text for what it must convert.

    Args:
        where: the file and the key.
        value: as YAML reads it; None is one only of options that may be left open.
        hint: the option's type.

    Raises:
        ConfigError: it is not of that type.
    """
    kinds = typing.get_args(hint) or (hint,)
    if typing.get_origin(hint) is tuple:
        if value == []:
            raise ConfigError(f"{where} is an empty list; give a value, or take the key out")
        if isinstance(value, dict) and value:
            pair = "{}={}".format(*next(iter(value.items())))
            raise ConfigError(f"{where} takes no mapping; write a list of texts, as [{pair!r}]")
        return [
            _item(where, item, kinds) for item in (value if isinstance(value, list) else [value])
        ]
    if isinstance(value, dict | list):
        raise ConfigError(f"{where} takes one value, not {value!r}")
    if value is None:
        if type(None) in kinds:
            return None
        lack = "text; put it in quotes" if str in kinds else "value; give one"
        raise ConfigError(f"{where} has no {lack}, or take the key out")
    return value if isinstance(value, bool) and bool in kinds else _item(where, value, kinds)


def _item(where: str, value: Any, kinds: tuple[Any, ...]) -> str:
    """Return one value as text, if that is what stands in the file."""
    if isinstance(value, dict | list) or value is None:
        raise ConfigError(f"{where} has the item {value!r}; put it in quotes, or take it out")
    if isinstance(value, bool) and bool not in kinds:
        remedy = "put it in quotes" if str in kinds else "give a number"
        raise ConfigError(
            f"{where} is read as {str(value).lower()}, since YAML takes yes, no, on and off for "
            f"truth values; {remedy}"
        )
    return str(value)


STAGES_GROUP = "milan_pipeline.stages"
PIPELINE = (
    *("pack-images", "index"),
    *("plan", "extract-targets", "status", "verify", "codecs", "transcode", "pack-targets"),
    *("import-checkpoint", "pretrain", "probe", "finetune", "segment", "compare", "inspect"),
    *("export", "recipes", "submit", "doctor"),
)
"""The order in which `--help` lists stages; those of other packages follow."""


@functools.cache
def installed_stages() -> EntryPoints:
    """Find every installed stage, once a process: it reads the metadata of all packages."""
    return entry_points(group=STAGES_GROUP)


def stage_names() -> list[str]:
    """Name every installed stage, those of other packages included, in alphabetical order."""
    return sorted({entry.name for entry in installed_stages()})


def in_pipeline_order(names: list[str]) -> list[str]:
    """Sort stages in the order of a pipeline; others come last, in the order given."""
    known = [name for name in PIPELINE if name in names]
    return known + [name for name in names if name not in known]
