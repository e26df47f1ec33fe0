"""The parameters and the docstring of a stage's function, made of its options.

Annotations are text, in the words of `stage_functions.pyi`, which is made of them.
"""

import dataclasses
import inspect
import re
import textwrap
import types
import typing
from collections.abc import Iterator
from typing import Any

import click

from milan_pipeline.cli.commands import GENERAL, StageCommand
from milan_pipeline.cli.options import Auto

OTHER_NAMES = {"codecs": "measure_codecs"}
"""`milan_pipeline.codecs` is a package, so that the command has another name as a function."""
OF_COMMANDS_ALONE = ("as_json", "help")
"""Options that a function does not have: it returns the document."""
WIDTH = 88
POSITIONAL, MANY, NAMED = (
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
    inspect.Parameter.VAR_POSITIONAL,
    inspect.Parameter.KEYWORD_ONLY,
)


def function_name(stage: str) -> str:
    """Return what the function of a command is called: pack_images of pack-images."""
    return OTHER_NAMES.get(stage, stage.replace("-", "_"))


def signature_of(command: StageCommand) -> inspect.Signature:
    """Return the parameters of a stage's function: arguments first, then its options by name."""
    found = [*_of_fields(command.config_class), *_of_every_command(command)]
    return inspect.Signature(sorted(found, key=_kind), return_annotation="StageResult")


def _kind(parameter: inspect.Parameter) -> int:
    return parameter.kind


def document_of(command: StageCommand) -> str:
    """Return a docstring: the help of the command, then that of each option."""
    lines = [inspect.cleandoc(command.help or ""), "", "Args:"]
    options = [each for each in command.params if isinstance(each, click.Option)]
    helps = {_python_name(option): option.help for option in options}
    wrapper = textwrap.TextWrapper(
        WIDTH, initial_indent="    ", subsequent_indent="        ", break_on_hyphens=False
    )
    for name in signature_of(command).parameters:
        text = helps.get(name) or f"{name.upper()} of the command line."
        lines += wrapper.wrap(f"{name}: {text}")
    return "\n".join(lines)


def _of_fields(config_class: type) -> Iterator[inspect.Parameter]:
    hints = typing.get_type_hints(config_class)
    for field in dataclasses.fields(config_class):
        kind = {"argument": POSITIONAL, "arguments": MANY}.get(field.metadata["kind"], NAMED)
        default = field.default
        if kind is MANY or default is dataclasses.MISSING:
            default = inspect.Parameter.empty
        annotation = _annotation(field, hints[field.name])
        yield inspect.Parameter(field.name, kind, default=default, annotation=annotation)


def _of_every_command(command: StageCommand) -> Iterator[inspect.Parameter]:
    for option in command.params:
        if option.name == "config":
            yield inspect.Parameter("config", NAMED, default=None, annotation="StrPath | None")
        elif getattr(option, "group", None) == GENERAL and option.name not in OF_COMMANDS_ALONE:
            yield inspect.Parameter(_python_name(option), NAMED, default=False, annotation="bool")


def _annotation(field: "dataclasses.Field[Any]", hint: Any) -> str:
    """Return the type of an option, as a stub has it."""
    metadata = field.metadata
    parts = typing.get_args(hint) if typing.get_origin(hint) is not typing.Literal else ()
    names_file = metadata["kind"] != "option" or metadata["group"] in ("Input", "Output")
    if metadata.get("choices"):
        scalar = f"Literal[{', '.join(map(_quoted, metadata['choices']))}]"
    elif str in (hint, *parts):
        scalar = "StrPath" if names_file else "str"
    else:
        scalar = next(kind.__name__ for kind in (bool, int, float) if kind in (hint, *parts))
    if metadata["kind"] == "arguments":
        return scalar
    if typing.get_origin(hint) is tuple:
        return f"{scalar} | list[{scalar}] | tuple[{scalar}, ...]"
    more = ' | Literal["auto"]' if Auto in parts else ""
    return scalar + more + (" | None" if types.NoneType in parts else "")


def _quoted(text: str) -> str:
    return '"' + re.sub(r'(["\\])', r"\\\1", text) + '"'


def _python_name(option: click.Parameter) -> str:
    return option.opts[0].removeprefix("--").replace("-", "_")
