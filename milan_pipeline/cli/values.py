"""Turns the words of a command line into values of options."""

import os
import re
import types
import typing
from collections.abc import Callable
from typing import Any

import click

from milan_pipeline.cli.options import AUTO, Auto

HOME = re.compile(r"(?:(?<=:)|\A)~[^/:]*")


def text(value: str) -> str:
    """Return an option's text with the user's home folder for `~` at its start, or behind a colon.

    The shell leaves that of `--init=~/run` and of `local-dir:~/clip` as it is, and a recipe has no
    shell.
    """
    return HOME.sub(lambda found: os.path.expanduser(found[0]), str(value))  # noqa: PTH111


def number_or_auto(value: str) -> int | Auto:
    """Return a whole number, or "auto" as it stands.

    Raises:
        BadParameter: it is neither.
    """
    if value == AUTO:
        return AUTO
    try:
        return int(value)
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is no whole number, and not auto") from error


def scalar_type(hint: Any) -> Callable[[str], Any]:
    """Return what converts a word to `T`, `T | None`, `T | Auto` or an item of `tuple[T, ...]`."""
    if Auto in typing.get_args(hint):
        return number_or_auto
    origin = typing.get_origin(hint)
    if origin in (types.UnionType, typing.Union, tuple):
        hint = next(arg for arg in typing.get_args(hint) if arg not in (type(None), Ellipsis))
    return text if hint is str else typing.cast(type, hint)
