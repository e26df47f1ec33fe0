"""A stage's command: its options in groups, an example, and how much it prints."""

import dataclasses
import importlib
import typing
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from milan_pipeline.cli.options import GROUPS, renamed_from, require_inputs, require_names
from milan_pipeline.cli.recipes import Borrowed, config_file_option
from milan_pipeline.cli.values import scalar_type, text
from milan_pipeline.core.console import Verbosity, output
from milan_pipeline.core.cores import computing
from milan_pipeline.core.interrupts import stop_request
from milan_pipeline.core.loader_deaths import explained_worker_deaths
from milan_pipeline.core.out_of_memory import explaining
from milan_pipeline.core.progress import waiting

ConfigT = TypeVar("ConfigT")
GENERAL = GROUPS[-1]
HELP_OPTIONS: dict[str, Any] = {"help_option_names": ["-h", "--help"]}
"""Settings of each context: click keeps the help option that the first one asks a command for."""
VERBOSITY = {
    "quiet": "Print errors only. Commands that report still print their report.",
    "verbose": "Print also what is done to each unit or shard.",
    "debug": "Print everything, and the traceback of an error.",
}


Names = Callable[[], Iterable[str]]
"""Returns values that a shell may offer."""


class StageOption(click.Option):
    """An option that `--help` shows under a heading; its value may be a file name."""

    def __init__(
        self, *args: Any, group: str = GENERAL, names: Names | None = None, **settings: Any
    ) -> None:
        super().__init__(*args, **settings)
        self.group, self.names = group, names

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Offer the choices or names; where there are none, the shell offers files."""
        found = super().shell_complete(ctx, incomplete) or _offered(self.names, incomplete)
        if found or getattr(self.type, "func", None) is not text:
            return found
        return [CompletionItem(incomplete, type="file")]


class StageArgument(click.Argument):
    """A positional argument, mostly a folder or file."""

    def __init__(self, *args: Any, names: Names | None = None, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.names = names

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Offer the names; where there are none, the shell offers files."""
        del ctx
        return _offered(self.names, incomplete) or [CompletionItem(incomplete, type="file")]


def _offered(names: Names | None, incomplete: str) -> list[CompletionItem]:
    known = names() if names is not None else ()
    return [CompletionItem(name) for name in known if name.startswith(incomplete)]


class StageCommand(click.Command):
    """A command whose help has options in groups, and an example; it prints as much as they say.

    Args:
        config_class: of its configuration.
        example: one command line that works, of as many lines as it needs.
        settings: those of `click.Command`.
    """

    def __init__(
        self, *args: Any, config_class: type, example: str | None = None, **settings: Any
    ) -> None:
        super().__init__(*args, **(settings | {"context_settings": HELP_OPTIONS}))
        self.config_class, self.example = config_class, example

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the words of a command line.

        Raises:
            UsageError: they are wrong; of an option of an earlier version, its new name is given.
        """
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            now = renamed_from(self.config_class, error.option_name.lstrip("-"))
            if now is None:
                raise
            text = f"{error.option_name} is now {now}: {ctx.command_path} {now}"
            raise click.UsageError(text + (" VALUE" if now.startswith("-") else ""), ctx) from error

    def option_groups(self) -> dict[str, list[click.Option]]:
        """Return the options under the headings of their groups, in the order of `GROUPS`."""
        groups: dict[str, list[click.Option]] = {group: [] for group in GROUPS}
        for parameter in self.params:
            if isinstance(parameter, click.Option):
                groups.setdefault(getattr(parameter, "group", GENERAL), []).append(parameter)
        general = {GENERAL: groups.pop(GENERAL)}
        return {group: options for group, options in (groups | general).items() if options}

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write each group's options under its heading."""
        groups = self.option_groups()
        help_option = self.get_help_option(ctx)
        if help_option is not None:
            groups.setdefault(GENERAL, []).append(help_option)
        for group, options in groups.items():
            records = [option.get_help_record(ctx) for option in options]
            with formatter.section(group):
                formatter.write_dl([record for record in records if record is not None])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the example as it is, to be copied."""
        super().format_epilog(ctx, formatter)
        if self.example is not None:
            with formatter.section("Example"):
                for line in self.example.splitlines():
                    formatter.write(f"{'':{formatter.current_indent}}{line}\n")

    def invoke(self, ctx: click.Context) -> Any:
        """Run, print as much as the options say, and return the document that --json prints.

        Raises:
            UsageError: two of them contradict each other.
        """
        asked = [name for name in VERBOSITY if ctx.params.pop(name, False)]
        if "quiet" in asked and len(asked) > 1:
            raise click.UsageError(f"--quiet and --{asked[1]} contradict each other; give one", ctx)
        verbosity = Verbosity[asked[-1].upper()] if asked else Verbosity.NORMAL
        with output(verbosity, as_json=ctx.params.pop("as_json", False)) as document:
            super().invoke(ctx)
        return document.value


def stage_command(
    name: str,
    config_class: type[ConfigT],
    *,
    run: Callable[[ConfigT], None],
    dry_run: Callable[[ConfigT], None] | None,
    example: str | None = None,
    borrowed: Borrowed | None = None,
    takes_recipes: bool = True,
) -> StageCommand:
    """Build a stage's command; its help text is the docstring of the configuration class.

    Args:
        name: of the command.
        config_class: its options.
        run: does the work.
        dry_run: says what `run` would do; None for a command that only reports, which then has no
            `--dry-run`.
        example: a command line that works, for `--help`.
        borrowed: options that `--config` also takes from other stages' sections.
        takes_recipes: whether the command has `--config`.
    """
    recipes = [config_file_option(config_class, name, borrowed=borrowed)] if takes_recipes else []

    def callback(*, dry_run_asked: bool = False, **values: Any) -> None:
        require_names(config_class, values)
        config = config_class(**values)
        require_inputs(config)
        with explained_worker_deaths(), explaining(config):
            (dry_run if dry_run_asked and dry_run is not None else run)(config)

    return StageCommand(
        name,
        callback=callback,
        params=[
            *parameters_of(config_class),
            *recipes,
            *general_options(dry_run=dry_run is not None),
        ],
        help=config_class.__doc__,
        config_class=config_class,
        example=example,
    )


def imported(target: str) -> Callable[..., None]:
    """Import and return a function, MODULE:FUNCTION."""
    module, _, name = target.partition(":")
    with waiting("loading libraries"):
        function: Callable[..., None] = getattr(importlib.import_module(module), name)
    return function


def lazily(target: str, *, stoppable: bool = False) -> Callable[[Any], None]:
    """Return a function that imports another one when it is called, and calls that.

    So a command loads torch only when it runs, and not for `--help`. It computes with as many
    threads as its `--threads` says, if it has that option.

    Args:
        target: MODULE:FUNCTION, which takes the configuration.
        stoppable: whether it also takes a `StopRequest`, which stop signals set.
    """

    def call(config: Any) -> None:
        function = imported(target)
        with computing(config):
            if stoppable:
                with stop_request() as stop:
                    function(config, stop)
            else:
                function(config)

    return call


def general_options(*, dry_run: bool) -> Iterator[click.Option]:
    """Yield the options of every command."""
    if dry_run:
        text = "Print what would be done, and do nothing."
        yield StageOption(["--dry-run", "dry_run_asked"], is_flag=True, help=text)
    text = "Print one JSON document; the summary or report then goes to standard error."
    yield StageOption(["--json", "as_json"], is_flag=True, help=text)
    for name, text in VERBOSITY.items():
        yield StageOption([f"--{name}"], is_flag=True, help=text)


def parameters_of(config_class: type) -> list[click.Parameter]:
    """Build the click parameters of a configuration dataclass: its own fields, then inherited."""
    hints = typing.get_type_hints(config_class)
    # A stage's own options first, then those that it shares with others.
    own_first = sorted(
        dataclasses.fields(config_class), key=lambda f: f.name not in config_class.__annotations__
    )
    return [_parameter(field, hints[field.name]) for field in own_first]


def _parameter(field: "dataclasses.Field[Any]", hint: Any) -> click.Parameter:
    if field.metadata["kind"] == "argument":
        given: dict[str, Any] = {"metavar": field.name.upper()}
        if field.default is not dataclasses.MISSING:
            given = {"default": field.default, "required": False}  # click adds its brackets
        return StageArgument([field.name], type=text, names=field.metadata["complete"], **given)
    if field.metadata["kind"] == "arguments":
        return StageArgument(
            [field.name], metavar=field.name.upper(), type=text, nargs=-1, required=True
        )
    flag = f"--{field.name.replace('_', '-')}"
    required = field.default is dataclasses.MISSING
    settings: dict[str, Any] = {name: field.metadata[name] for name in ("help", "group")}
    settings["required"] = required
    if not required:
        settings |= {"default": field.default, "show_default": field.default not in (None, "", ())}
    if hint is bool:
        return StageOption([f"{flag}/--no-{flag[2:]}"], **settings)
    settings["multiple"] = typing.get_origin(hint) is tuple
    choices, unit = field.metadata["choices"], field.metadata["unit"]
    settings["type"] = click.Choice(choices) if choices else scalar_type(hint, unit)
    settings["names"] = field.metadata["complete"]
    settings["metavar"] = unit and unit.upper().replace(" ", "-")
    return StageOption([flag], **settings)
