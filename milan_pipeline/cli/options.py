"""A stage's configuration dataclass declares its command line: a field, an option, a YAML key."""

import dataclasses
import math
import sys
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, TypeVar

from milan_pipeline.errors import ConfigError

ConfigT = TypeVar("ConfigT")
Role = Literal["content", "extent", "execution"]
Auto = Literal["auto"]
AUTO: Auto = "auto"
"""In the place of a number: the command chooses it."""
Look = Callable[[str], object]
"""Raises a `MilanError` if a value, a path or a name, stands for nothing that is there."""

GROUPS = (
    *("Input", "Output", "Teacher", "Views", "Targets"),
    *("Student", "Decoder", "Objective", "Encoder", "Head", "Schedule", "Augmentation"),
    *("Scoring", "Patches", "Checkpoints and log", "Rates"),
    *("This machine", "Several machines", "Slurm", "General"),
)
"""The order in which `--help` shows groups of options; those that others name come last."""


def option(
    default: Any = dataclasses.MISSING,
    *,
    help: str,  # noqa: A002 - click's own word
    group: str = "Options",
    unit: str | None = None,
    choices: tuple[str, ...] | None = None,
    least: float | None = None,
    most: float | None = None,
    role: Role = "content",
    formerly: str | None = None,
    complete: Callable[[], Iterable[str]] | None = None,
    look: Look | None = None,
) -> Any:
    """Declare a configuration field that is also the option `--field-name`.

    Args:
        default: the field's default; without one the option is required.
        help: one line for `--help`; where `default` is None, it says what that means.
        group: heading that `--help` shows it under, one of `GROUPS`.
        unit: of a number: what is counted or measured, in a word (images, pixels, share of 1).
        choices: the only values allowed.
        least: the smallest value allowed, which `require_least` checks.
        most: the largest value allowed, which `require_least` checks, too.
        role: "content" shapes the output and must not change between runs into one output;
            "extent" may grow; "execution" (workers, device) is free.
        formerly: name of the field in earlier versions, which is refused with the new one.
        complete: returns values that a shell offers, beside files; loads nothing heavy.
        look: refuses a value that names nothing, before libraries load; see `require_inputs`.
    """
    metadata: dict[str, Any] = {"kind": "option", "help": help, "choices": choices, "role": role}
    metadata |= {"group": group, "unit": unit, "least": least, "most": most}
    metadata |= {"formerly": formerly, "complete": complete, "look": look}
    return dataclasses.field(default=default, metadata=metadata)


def count(default: Any, unit: str, *, group: str, help: str, role: Role = "content") -> Any:  # noqa: A002
    """Declare an option that is a number of things, at least 1; see `option`."""
    return option(default, help=help, group=group, unit=unit, least=1, role=role)


def argument(
    default: Any = dataclasses.MISSING,
    *,
    role: Role = "execution",
    formerly: str | None = None,
    complete: Callable[[], Iterable[str]] | None = None,
    look: Look | None = None,
) -> Any:
    """Declare a configuration field that is also a positional argument of the command.

    Args:
        default: the field's default; without one the argument is required.
        role: see `option`.
        formerly: name of the option that it was in earlier versions.
        complete: see `option`.
        look: see `option`.
    """
    metadata = {"kind": "argument", "role": role, "formerly": formerly, "complete": complete}
    return dataclasses.field(default=default, metadata=metadata | {"look": look})


def arguments(*, role: Role = "execution") -> Any:
    """Declare a configuration field that takes all remaining positional arguments."""
    return dataclasses.field(metadata={"kind": "arguments", "role": role})


def renamed_from(config_class: type, name: str) -> str | None:
    """Say what a field of an earlier version is called now; None if there was none of that name.

    Args:
        config_class: of the stage.
        name: the field's name then, with `_` or `-`.
    """
    for field in dataclasses.fields(config_class):
        if field.metadata.get("formerly") == name.replace("-", "_"):
            is_option = field.metadata["kind"] == "option"
            return f"--{field.name.replace('_', '-')}" if is_option else field.name.upper()
    return None


def require_inputs(config: Any) -> None:
    """Look whether the inputs are there, as their options do, before libraries are loaded.

    Raises:
        MilanError: one of them is not.
    """
    for field in dataclasses.fields(config):
        look: Look | None = field.metadata.get("look")
        given = getattr(config, field.name)
        for value in given if isinstance(given, tuple) else (given,):
            if look is not None and value is not None:
                look(value)


LARGEST: dict[type, float] = {float: 1e30, int: 2**63 - 1}
"""Of any option: a float that torch can compute with, an integer of 64 bits."""


def require_least(config: Any) -> None:
    """Refuse values below `least` or above `most` of their options, and infinite numbers.

    None is always allowed.

    Every value of a repeated option is checked.

    Raises:
        ConfigError: a value is not within them, or is infinite or NaN.
    """
    for field in dataclasses.fields(config):
        least, most = field.metadata.get("least"), field.metadata.get("most")
        given = getattr(config, field.name)
        flag = f"--{field.name.replace('_', '-')}"
        for value in given if isinstance(given, tuple) else (given,):
            if value == AUTO:
                continue
            most_of_kind = LARGEST.get(type(value))
            if most_of_kind is not None and not abs(value) <= most_of_kind:
                other = "a number" if math.isnan(value) else "a smaller one"
                raise ConfigError(f"{flag} {value} is not a usable number; give {other}")
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


def require_names(config_class: type, values: Mapping[str, Any]) -> None:
    """Refuse text that can be no name of a file, before any library is asked to open it.

    Those are names of other bytes than UTF-8, which libraries for weights cannot open, names with
    a NUL, as a recipe may have, and an empty name of a file, or where a text must say something.

    Raises:
        ConfigError: there is one.
    """
    for field in dataclasses.fields(config_class):
        value = values.get(field.name)
        for text in value if isinstance(value, tuple) else (value,):
            if not isinstance(text, str):
                continue
            is_option = field.metadata["kind"] == "option"
            name = f"--{field.name.replace('_', '-')}" if is_option else field.name.upper()
            shown = text.encode(errors="backslashreplace").decode()
            if shown != text:
                raise ConfigError(f"{name} {shown} is not UTF-8; {_remedy_of_names()}")
            if "\0" in text:
                raise ConfigError(f"{name} {text!r} has a NUL, which no name can have; correct it")
            names_file = field.metadata.get("group", "Input") in ("Input", "Output")
            # An option that is left open by default has no use for an empty text either.
            is_needed = names_file or field.default in (None, dataclasses.MISSING)
            if not text.strip() and is_needed:
                raise ConfigError(
                    f"{name} is empty; give a value (a variable of the shell may not be set)"
                )


def _remedy_of_names() -> str:
    """Say what helps where a name is no UTF-8: it may only be read as something else."""
    encoding = sys.getfilesystemencoding()
    if encoding.lower() != "utf-8":
        return f"set PYTHONUTF8=1, as by this locale names are taken for {encoding}"
    return "rename the file or folder, or give a link to it whose name is UTF-8"
