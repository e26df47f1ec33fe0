"""Run a command in this process, always into the same folder, and keep what came of it."""

import contextlib
import dataclasses
import io
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import numpy as np

from milan_pipeline.cli.commands import HELP_OPTIONS
from milan_pipeline.cli.main import group, main


@dataclasses.dataclass(frozen=True)
class Finished:
    """A run that has ended: its options with places filled in, its exit code, what it said."""

    settings: dict[str, Any]
    code: int
    said: str
    errors: str


def config_classes() -> dict[str, type]:
    """Return the configuration class of every installed command."""
    context = click.Context(group, **HELP_OPTIONS)
    found = {name: group.get_command(context, name) for name in group.list_commands(context)}
    return {name: command.config_class for name, command in found.items()}  # type: ignore[union-attr]


def words_of(config_class: type, settings: Mapping[str, Any]) -> list[str]:
    """Write settings as words of a command line; None leaves an option out.

    Raises:
        KeyError: there is no such option.
    """
    fields = {field.name: field for field in dataclasses.fields(config_class)}
    words: list[str] = []
    places: list[str] = []
    for name, value in settings.items():
        kind, flag = fields[name].metadata["kind"], name.replace("_", "-")
        values = value if isinstance(value, tuple) else (value,)
        if value is None:
            continue
        if kind != "option":
            places += map(str, values)
        elif isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            words += [f"--{flag}={each}" for each in values]
    return words + places


def filled(value: Any, places: Mapping[str, Any]) -> Any:
    """Put the paths of places into a text, or into those of a tuple."""
    if isinstance(value, tuple):
        return tuple(filled(each, places) for each in value)
    return value.format_map(places) if isinstance(value, str) else value


class Runner:
    """Runs commands into one folder, so that no output differs by where it lies.

    Args:
        folder: for `{out}` and `{else}`, which are emptied before each run.
        places: paths of input by name.
    """

    def __init__(self, folder: Path, places: Mapping[str, Any]) -> None:
        self._folder, self._classes = folder, config_classes()
        self._own = {"out": folder / "out", "else": folder / "else"}
        self._places = places

    def run(self, command: str, *all_settings: Mapping[str, Any]) -> Finished:
        """Run a command, once for each of the settings, and return how the last run ended."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        return [self._once(command, settings) for settings in all_settings][-1]

    def _once(self, command: str, settings: Mapping[str, Any]) -> Finished:
        known = _Both(self._own, self._places)
        resolved = {name: filled(value, known) for name, value in settings.items()}
        out, err = io.StringIO(), io.StringIO()
        words = [command, *words_of(self._classes[command], resolved), "--json"]
        code: Any = 0
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                main(words)
            except SystemExit as stop:
                code = stop.code or 0
        return Finished(resolved, code, out.getvalue(), err.getvalue())


class _Both(dict[str, Any]):
    """Places of the runner's own before those that are built when they are asked for."""

    def __init__(self, own: Mapping[str, Any], others: Mapping[str, Any]) -> None:
        super().__init__(own)
        self._others = others

    def __missing__(self, name: str) -> Any:
        return self._others[name]


def differences(one: Mapping[str, Any], two: Mapping[str, Any], within: float = 0.0) -> list[str]:
    """Name the parts of two outputs that are not the same, or are in one of them alone."""
    return [
        name
        for name in sorted(one.keys() | two.keys())
        if name not in one or name not in two or not _same(one[name], two[name], within)
    ]


def _same(one: Any, two: Any, within: float) -> bool:
    if not isinstance(one, np.ndarray):
        return bool(one == two)
    if one.shape != two.shape or one.dtype != two.dtype:
        return False
    if within and one.dtype.kind == "f":
        return bool(np.abs(one - two).max(initial=0) <= within)
    return bool(one.tobytes() == two.tobytes())
