"""The page docs/commands.md: every command's purpose, usage, example and options, from click.

`make reference` writes it, and the stub of the stages' functions, which has the same options. A
test holds both equal to the code.
"""

import inspect
from collections.abc import Iterable, Iterator
from pathlib import Path

import click

from docs.stage_stubs import STUB, whole_stub
from milan_pipeline.cli.commands import GENERAL, HELP_OPTIONS, StageCommand
from milan_pipeline.cli.main import group

PAGE = Path(__file__).with_name("commands.md")
HEAD = """# Commands

This page is made from `--help` of each command (`make reference`). Options can also come from a
file: `--config FILE.yaml`, or the name of an [installed recipe](imagenet.md#recipes). The command
line wins over the file. Numbers may be written as `1e6`, `1_000_000` or `1.3M`, bytes also as
`110kB` or `2GiB`, shares as `1%`.

To complete commands, options, choices and recipes with Tab, put this line into `~/.bashrc`. There
are scripts for `zsh` and `fish`, too:

<!-- not run: it is for your own shell; tests/cli/test_commands_completion.py tries completions -->
```sh
eval "$(milan-pipeline --completion bash)"
```
"""


def whole_page() -> str:
    """Return the page: how to give options, a table of all commands, and their reference."""
    context = click.Context(group, info_name="milan-pipeline", **HELP_OPTIONS)
    rows = []
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        purpose = "" if command is None else inspect.cleandoc(command.help or "").split("\n\n")[0]
        rows.append(f"| [`{name}`](#{name}) | {_cell(_escaped(purpose))} |")
    table = "\n".join(["| command | what it gives |", "|---|---|", *rows])
    return "\n".join([HEAD, table, "", reference(group), ""])


def reference(commands: click.Group) -> str:
    """Return the reference of a group's stages in Markdown: a section each, in their order.

    Options that every command has come first, once.
    """
    context = click.Context(commands, info_name="milan-pipeline", **HELP_OPTIONS)
    found = {name: commands.get_command(context, name) for name in commands.list_commands(context)}
    stages = {name: stage for name, stage in found.items() if isinstance(stage, StageCommand)}
    general = {
        option.opts[0]: option
        for stage in stages.values()
        for option in stage.option_groups().get(GENERAL, [])
    }
    shared = "\n\n".join(["## Every command", *_table("", general.values(), context)])
    return "\n\n".join([shared, *(_section(*item, context) for item in stages.items())])


def _section(name: str, stage: StageCommand, parent: click.Context) -> str:
    context = click.Context(stage, info_name=name, parent=parent)
    usage = f"{context.command_path} {' '.join(stage.collect_usage_pieces(context))}"
    parts = [f"## {name}", _escaped(inspect.cleandoc(stage.help or "")), _code(usage)]
    if stage.example is not None:
        parts += ["For example:", _code(stage.example)]
    for title, options in stage.option_groups().items():
        if title != GENERAL:
            parts += _table(f"**{title}**", options, context)
    return "\n\n".join(parts)


def _table(title: str, options: Iterable[click.Option], context: click.Context) -> list[str]:
    rows = [_row(option, context) for option in options]
    table = "\n".join(["| option | default | what |", "|---|---|---|", *rows])
    return [title, table] if title else [table]


def _row(option: click.Option, context: click.Context) -> str:
    flags = "/".join([*option.opts, *option.secondary_opts])
    takes = "" if option.is_flag else f" {option.make_metavar(context)}"
    what = _cell(_escaped(option.help or ""))
    return f"| `{_cell(flags + takes)}` | {_default(option)} | {what} |"


def _default(option: click.Option) -> str:
    """Say what an option is that is not given; the empty text where its help says it."""
    if option.required:
        return "required"
    if option.secondary_opts:
        return f"`{(option.opts if option.default else option.secondary_opts)[0]}`"
    if option.is_flag or not option.show_default:
        return ""
    values = option.default if isinstance(option.default, tuple | list) else [option.default]
    return ", ".join(f"`{value}`" for value in values)


def _code(text: str) -> str:
    """Show text as it is, indented: a fenced block would need a mark that vouches for it."""
    return "\n".join(f"    {line}" for line in text.splitlines())


def _cell(text: str) -> str:
    """Keep a text from ending its cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")


def _escaped(text: str) -> str:
    """Have Markdown show plain help as it is."""
    return "".join(_escaped_characters(text))


def _escaped_characters(text: str) -> Iterator[str]:
    code = False
    for character in text:
        code ^= character == "`"
        yield f"\\{character}" if not code and character in "*_[]<>$" else character


if __name__ == "__main__":
    PAGE.write_text(whole_page(), encoding="utf-8")
    STUB.write_text(whole_stub(), encoding="utf-8")
