"""Run a stage from Python, by the options of its command, and return what it says."""

import dataclasses
import numbers
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import click

from milan_pipeline.cli.commands import StageCommand
from milan_pipeline.cli.recipes import installed_stages, stage_names
from milan_pipeline.cli.signatures import document_of, function_name, signature_of
from milan_pipeline.core.interrupts import EXIT_INTERRUPTED, as_guest
from milan_pipeline.errors import ConfigError, InterruptedRunError, MilanError, MissingDataError


@dataclasses.dataclass(frozen=True)
class StageResult:
    """What a stage says at its end.

    Attributes:
        stage: the command.
        summary: the document that `--json` prints, of dictionaries, lists, texts and numbers; of a
            stage that started other processes, only `out`.
    """

    stage: str
    summary: Any

    @property
    def out(self) -> str:
        """The folder that the stage wrote.

        Raises:
            MissingDataError: it wrote none.
        """
        if not isinstance(self.summary, dict) or "out" not in self.summary:
            raise MissingDataError(
                f"{self.stage} wrote no folder: it only reported; see its `summary`"
            )
        return str(self.summary["out"])


def run_stage(stage: str, **options: Any) -> StageResult:
    """Run a stage as its command line does, but raise errors.

    Args:
        stage: the command, such as "pretrain".
        options: by the names of the command line, with `_` for `-`: strings, numbers, paths, lists
            where an option may be repeated, truth values of flags (`dry_run=True`); None leaves an
            option at its default. Lists may be tuples and one-dimensional arrays.

    Raises:
        ConfigError: there is no such stage or option, or a value is not allowed.
        InterruptedRunError: a stop signal came; the same call goes on.
        MilanError: whatever the stage finds wrong.
    """
    command = _command(stage)
    words = list(_words(command, options))
    try:
        with as_guest():
            said = command.main(args=words, prog_name=stage, standalone_mode=False)
    except click.ClickException as error:
        raise ConfigError(f"{stage}: {error.format_message()}") from error
    except click.Abort as error:
        raise KeyboardInterrupt from error
    except SystemExit as end:  # of the processes that it started
        _raise_unless_done(stage, end.code)
        said = {"out": command.make_context(stage, list(words)).params["out"]}
    return StageResult(stage, said)


def stage_function(name: str) -> Callable[..., StageResult]:
    """Return a stage as a function, with its options as parameters and their help as its docstring.

    Args:
        name: of the function, see `signatures.function_name`.

    Raises:
        AttributeError: there is no such stage.
    """
    stage = next((each for each in stage_names() if function_name(each) == name), None)
    command = None if stage is None else _command(stage)
    if stage is None or not isinstance(command, StageCommand):
        raise AttributeError(f"there is no stage of the name {name!r}")
    arguments = [each.name for each in command.params if isinstance(each, click.Argument)]
    many = any(each.nargs == -1 for each in command.params)

    def function(*positional: Any, **options: Any) -> StageResult:
        if not many and len(positional) > len(arguments):
            raise ConfigError(
                f"{name} takes {len(arguments)} values without a name and not {len(positional)}; "
                "give options by their names"
            )
        values = [positional] if many else positional
        return run_stage(stage, **dict(zip(arguments, values, strict=False)), **options)

    function.__name__ = function.__qualname__ = name
    function.__module__ = "milan_pipeline"
    function.__doc__ = document_of(command)
    function.__signature__ = signature_of(command)  # type: ignore[attr-defined]  # for editors
    return function


def _command(stage: str) -> click.Command:
    entries = installed_stages().select(name=stage)
    if not entries:
        raise ConfigError(f"there is no stage {stage!r}; take one of {', '.join(stage_names())}")
    command: click.Command = next(iter(entries)).load()
    return command


def _raise_unless_done(stage: str, code: int | str | None) -> None:
    """Raise an error for the exit code of processes that a stage started, unless it is 0."""
    if code == EXIT_INTERRUPTED:
        raise InterruptedRunError(f"the processes of {stage} were interrupted; run it again")
    if code:
        raise MilanError(
            f"a process of {stage} ended with exit code {code}; what it printed says why"
        )


def _words(command: click.Command, options: dict[str, Any]) -> Iterator[str]:
    """Yield the words of a command line with these options, then those of its arguments.

    Raises:
        ConfigError: a value is of a type that no option takes.
    """
    arguments = {each.name for each in command.params if isinstance(each, click.Argument)}
    with_value = {
        word
        for each in command.params
        if isinstance(each, click.Option) and not each.is_flag
        for word in each.opts
    }
    without_no = {
        spelling
        for each in command.params
        if isinstance(each, click.Option) and each.is_flag and not each.secondary_opts
        for spelling in each.opts
    }
    for name, value in sorted(options.items(), key=lambda item: item[0] in arguments):
        flag = f"--{name.replace('_', '-')}"
        if isinstance(value, tuple) and not value:
            continue  # the default of what may be repeated
        if name not in arguments and not list(_flat([value])):
            raise ConfigError(f"{name} is an empty list; give a value, or leave it out")
        for each in map(_plain, _flat([value])):
            if each is None:
                continue
            _require_value(name, each, truth=flag not in with_value and name not in arguments)
            if isinstance(each, bool):
                if not each and flag in without_no:
                    continue
                yield flag if each else f"--no-{flag[2:]}"
            elif name in arguments:
                yield str(each)
            else:
                yield f"{flag}={each}"


def _flat(values: Iterable[Any]) -> Iterator[Any]:
    """Yield values, and those of lists, tuples and one-dimensional arrays among them."""
    for value in values:
        is_list = isinstance(value, list | tuple) or getattr(value, "ndim", 0) == 1
        yield from _flat(value) if is_list else [value]


def _plain(value: Any) -> Any:
    """Return a truth value of an array as Python's own; any other value as it is."""
    return bool(value) if str(getattr(value, "dtype", None)) == "bool" else value


def _require_value(name: str, value: Any, *, truth: bool) -> None:
    """Refuse a value that would not be one on a command line; `truth` tells if it may be a bool."""
    if isinstance(value, bool) and not truth:
        raise ConfigError(f"{name}={value} is a truth value; give a text, a number or a path")
    if isinstance(value, Mapping):
        pair = next((f"{key}={one}" for key, one in value.items()), "NAME=VALUE")
        raise ConfigError(f"{name} takes no dictionary; give a list of texts, as ['{pair}']")
    if not isinstance(value, str | numbers.Number | os.PathLike):
        raise ConfigError(
            f"{name} takes no {type(value).__name__}; give a text, a number, a path or a list of "
            "them"
        )
