"""Recipes: YAML files of stages' options, found by name where they are installed with us."""

import difflib
import importlib.resources
from pathlib import Path
from typing import Any

import yaml

from milan_pipeline.errors import ConfigError
from milan_pipeline.stage_names import stage_names

PACKAGE = "workflows.recipes"
"""Whose data the installed recipes are; nothing of it is imported but its place."""


def recipe_names() -> list[str]:
    """Name the installed recipes, in alphabetical order."""
    return sorted(path.stem for path in _folder().glob("*.yaml"))


def find_recipe(name: str) -> Path:
    """Return the file `name` if there is one, else the installed recipe of that name.

    Raises:
        ConfigError: there is neither; the nearest recipe is named.
    """
    if Path(name).is_file():
        return Path(name)
    known = recipe_names()
    if name in known:
        return _folder() / f"{name}.yaml"
    near = difflib.get_close_matches(Path(name).stem, known, n=1, cutoff=0.0)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ConfigError(f"{name!r} is neither a file nor a recipe ({', '.join(known)}){hint}")


def read_sections(path: Path) -> dict[str, dict[str, Any]]:
    """Read a recipe's sections: stage -> its options, as they stand in the YAML.

    Raises:
        ConfigError: the file is not plain YAML, or anything in it is not the section of a stage.
    """
    sections = {}
    for stage, options in read_document(path).items():
        if stage not in stage_names():
            near = difflib.get_close_matches(str(stage), stage_names(), n=1, cutoff=0.0)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ConfigError(f"{path} has the section {stage!r}, which names no stage{hint}")
        sections[stage] = section_of(path, stage, options)
    return sections


def read_document(path: Path) -> dict[Any, Any]:
    """Read a YAML mapping; an empty file is an empty one.

    Raises:
        ConfigError: it cannot be read, is not plain YAML, or no mapping.
    """
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    # A date that does not exist is a ValueError, as what is no UTF-8 is.
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
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
