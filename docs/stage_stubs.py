"""The stub of the stages' functions, milan_pipeline/cli/stage_functions.pyi, from their options.

`python -m docs.command_reference` writes it; a test holds the file equal to this code.
"""

import inspect
import textwrap
from pathlib import Path

from milan_pipeline import cli
from milan_pipeline.cli.recipes import in_pipeline_order, installed_stages
from milan_pipeline.cli.run_stage import stage_function
from milan_pipeline.cli.signatures import function_name

STUB = Path(cli.__path__[0]) / "stage_functions.pyi"
HEAD = '''"""Every stage as a function; made of the commands' options by `make reference`."""

import os
from typing import Literal

from milan_pipeline.cli.run_stage import StageResult

StrPath = str | os.PathLike[str]
'''


def own_stages() -> list[str]:
    """Return the names of this package's stages, in the order of a pipeline."""
    own = [each.name for each in installed_stages() if each.value.startswith("milan_pipeline.")]
    return in_pipeline_order(own)


def whole_stub() -> str:
    """Return the stub: a function for each stage, with types, defaults and docstring."""
    return "\n\n".join([HEAD, *(f"{_stub(function_name(name))}\n" for name in own_stages())])


def _stub(name: str) -> str:
    function = stage_function(name)
    signature = inspect.signature(function)
    lines, named = [], False
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.VAR_POSITIONAL:
            named = True
        elif parameter.kind is parameter.KEYWORD_ONLY and not named:
            lines.append("*")
            named = True
        default = "" if parameter.default is parameter.empty else f" = {parameter.default!r}"
        star = "*" if parameter.kind is parameter.VAR_POSITIONAL else ""
        lines.append(f"{star}{parameter.name}: {parameter.annotation}{default}")
    parameters = "".join(f"    {line},\n" for line in lines)
    text = (function.__doc__ or "").replace("\\", "\\\\")
    docstring = textwrap.indent(f'"""{text}\n"""', "    ")
    return f"def {name}(\n{parameters}) -> {signature.return_annotation}:\n{docstring}"
