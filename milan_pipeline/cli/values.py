"""Turns the words of a command line into values of options."""

import os
import re
import types
import typing
from collections.abc import Callable
from typing import Any

import click

from milan_pipeline.cli.numbers import real_number, whole_number
from milan_pipeline.cli.options import AUTO, Auto

HOME = re.compile(r"(?:(?<=:)|\A)~[^/:]*")


def text(value: str) -> str:
    """Return an option's text with the user's home folder for `~` at its start, or behind a colon.

    The shell leaves that of `--init=~/run` and of `local-dir:~/clip` as it is, and a recipe has no
    shell.
    """
    return HOME.sub(lambda found: os.path.expanduser(found[0]), str(value))  # noqa: PTH111


class Number(click.ParamType[Any]):
    """A number as users write it; see `numbers`.

    Args:
        kind: int or float.
        unit: of the option.
        is_open: whether it may also be "auto".
    """

    def __init__(self, kind: type, unit: str | None, *, is_open: bool) -> None:
        self.name = "integer" if kind is int else "float"
        self._read = whole_number if kind is int else real_number
        self._unit, self._is_open = unit, is_open

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float | Auto:
        """Return the number, or "auto" as it stands."""
        if not isinstance(value, str):  # a default
            return typing.cast("float", value)
        if self._is_open and value == AUTO:
            return AUTO
        try:
            return self._read(value, self._unit)
        except ValueError as error:
            self.fail(f"{error}{', and not auto' if self._is_open else ''}", param, ctx)


def scalar_type(hint: Any, unit: str | None = None) -> Callable[[str], Any] | click.ParamType[Any]:
    """Return what converts a word to `T`, `T | None`, `T | Auto` or an item of `tuple[T, ...]`.

    Args:
        hint: the type.
        unit: of a number, by which it may be written in other forms.
    """
    is_open = Auto in typing.get_args(hint)
    origin = typing.get_origin(hint)
    if origin in (types.UnionType, typing.Union, tuple):
        args = (arg for arg in typing.get_args(hint) if isinstance(arg, type))
        hint = next(arg for arg in args if arg is not types.NoneType)
    return text if hint is str else Number(hint, unit, is_open=is_open)
