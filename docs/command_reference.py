"""Sphinx directive `commands`: every command's purpose, usage, options and example, from click."""

from collections.abc import Iterator
from typing import Any

import click
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from milan_pipeline.cli import group


def reference(commands: click.Group) -> str:
    """Return the reference of a group's commands in Markdown: a section each."""
    context = click.Context(commands, info_name="milan-pipeline")
    found = {name: commands.get_command(context, name) for name in commands.list_commands(context)}
    sections = [
        _section(name, command, context) for name, command in found.items() if command is not None
    ]
    return "\n\n".join(sections)


def _section(name: str, command: click.Command, parent: click.Context) -> str:
    context = click.Context(command, info_name=name, parent=parent)
    usage = f"{context.command_path} {' '.join(command.collect_usage_pieces(context))}"
    parts = [f"## {name}", _escaped(command.help or ""), _code(usage)]
    for title, options in _grouped(command).items():
        rows = [_row(option, context) for option in options]
        head = ["| option | default | what |", "|---|---|---|"]
        parts.append("\n".join([f"*{title}*", "", *head, *rows]))
    if example := getattr(command, "example", None):
        parts.append(_code(example))
    return "\n\n".join(parts)


def _grouped(command: click.Command) -> dict[str, list[click.Option]]:
    """Return a command's options by the titles that its help has them under, in its order."""
    groups: dict[str, list[click.Option]] = {}
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            groups.setdefault(getattr(parameter, "group", "Options"), []).append(parameter)
    return groups


def _row(option: click.Option, context: click.Context) -> str:
    flags = "/".join([*option.opts, *option.secondary_opts])
    takes = "" if option.is_flag else f" {option.make_metavar(context)}"
    return (
        f"| `{_cell(flags + takes)}` | {_default(option)} | {_cell(_escaped(option.help or ''))} |"
    )


def _default(option: click.Option) -> str:
    """Say what an option is that is not given; the empty text where its help says it."""
    if option.required:
        return "required"
    value: Any = option.default
    if option.is_flag or not option.show_default:
        return ""
    values = value if isinstance(value, tuple | list) else [value]
    return ", ".join(f"`{item}`" for item in values)


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
