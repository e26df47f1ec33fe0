"""Sphinx directive `commands`: every command's purpose, usage, example and options, from click."""

import inspect
from collections.abc import Iterable, Iterator

import click
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from milan_pipeline.cli.commands import GENERAL, StageCommand
from milan_pipeline.cli.main import group


def reference(commands: click.Group) -> str:
    """Return the reference of a group's stages in Markdown: a section each, in their order.

    Options that every command has come first, once.
    """
    context = click.Context(commands, info_name="milan-pipeline")
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
    return [title, "\n".join(["| option | default | what |", "|---|---|---|", *rows])]


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
    return f"```text\n{text}\n```"


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


class Commands(SphinxDirective):
    """The reference of all installed stages."""

    def run(self) -> list[nodes.Node]:
        """Return its sections."""
        return self.parse_text_to_nodes(reference(group), allow_section_headings=True)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("commands", Commands)
    return {"parallel_read_safe": True}
