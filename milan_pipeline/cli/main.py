"""The command group: it finds stages by entry points, and imports one only when it is called."""

import errno
import io
import os
import sys
import traceback

import click
from click.shell_completion import get_completion_class

from milan_pipeline.cli.commands import HELP_OPTIONS
from milan_pipeline.cli.recipes import in_pipeline_order, installed_stages, stage_names
from milan_pipeline.core.cores import wait_without_spinning
from milan_pipeline.core.interrupts import EXIT_INTERRUPTED
from milan_pipeline.core.out_of_memory import is_out_of_memory
from milan_pipeline.core.suggestions import LEAST_ALIKE, did_you_mean
from milan_pipeline.errors import ConfigError, InterruptedRunError, MilanError, reason_of

PROGRAM = "milan-pipeline"
COMPLETION = "_MILAN_PIPELINE_COMPLETE"
"""Variable by which a shell asks for completions."""
EXIT_FAILED = 1
EXIT_USAGE = 2
LONGEST_NAME = 120


class StageGroup(click.Group):
    """A click group whose commands are the installed stages."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name every installed stage in the order of a pipeline, those of other packages last."""
        del ctx
        return in_pipeline_order(stage_names())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one stage's command."""
        del ctx
        for entry in installed_stages().select(name=cmd_name):
            command = entry.load()
            if isinstance(command, click.Command):
                return command
        return None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that the first word names.

        Raises:
            UsageError: there is none; the nearest one is named.
        """
        word, known = args[0], self.list_commands(ctx)
        if not word.startswith("-") and word not in known:
            hint = did_you_mean(word, known, least=LEAST_ALIKE)
            raise click.UsageError(f"there is no command {word!r}{hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write each command's purpose in full."""
        found = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        with formatter.section("Commands, in the order of a pipeline"):
            formatter.write_dl(
                [
                    (name, command.get_short_help_str(limit=200))
                    for name, command in found
                    if command
                ]
            )


def _print_completion(ctx: click.Context, _param: click.Parameter, shell: str | None) -> None:
    kind = None if shell is None else get_completion_class(shell)
    if kind is not None:
        click.echo(kind(group, {}, PROGRAM, COMPLETION).source())
        ctx.exit()


@click.group(cls=StageGroup, context_settings=HELP_OPTIONS)
@click.version_option(package_name=PROGRAM)
@click.option(
    "--completion",
    type=click.Choice(("bash", "zsh", "fish")),
    is_eager=True,
    expose_value=False,
    callback=_print_completion,
    help="Print a script that completes commands and options with Tab. For bash, put this line "
    'into ~/.bashrc: eval "$(milan-pipeline --completion bash)"',
)
def group() -> None:
    """Train a vision transformer with CLIP as its teacher. CLIP runs once, not in every step.

    Numbers may be written as 1e6, 1_000_000 or 1.3M, bytes also as 110kB or 2GiB, shares as 1%.

    Exit codes: 0 done or nothing to do, 1 failed, 2 wrong usage, 75 interrupted (run it again).
    """


def main(args: list[str] | None = None) -> None:
    """Run the command line and exit with the documented code; errors are one sentence."""
    # Nothing is shown on a display. A notebook names its own backend to the commands that it
    # starts, and matplotlib may not know that one here.
    os.environ["MPLBACKEND"] = "agg"
    wait_without_spinning()
    exit_with(group, sys.argv[1:] if args is None else args, PROGRAM)


def exit_with(command: click.Command, words: list[str], name: str) -> None:
    """Run any command and exit with the documented code.

    Args:
        command: to be run.
        words: of its command line.
        name: of the command.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A file's name may be of any bytes, and a terminal may lack our characters.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        command.main(args=words, prog_name=name, standalone_mode=False)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(EXIT_USAGE)
    except (click.Abort, KeyboardInterrupt):
        click.echo("Interrupted; run the same command again to go on.", err=True)
        sys.exit(EXIT_INTERRUPTED)
    except Exception as error:  # noqa: BLE001 - the one place where errors become exit codes
        sys.exit(_report(error, debug="--debug" in words))


def _report(error: Exception, *, debug: bool) -> int:
    if debug:
        traceback.print_exception(error)
    reason = reason_of(error)
    if isinstance(error, InterruptedRunError):
        click.echo(f"Interrupted: {reason}", err=True)
        return EXIT_INTERRUPTED
    if isinstance(error, OSError) and error.filename and not isinstance(error, MilanError):
        reason = _of_file(error)
    elif not isinstance(error, MilanError):
        unexpected = f"unexpected {type(error).__name__}: {reason}"
        reason = _of_machine(error, reason) or f"{unexpected}; --debug shows where it came from"
    click.echo(f"Error: {reason}", err=True)
    return EXIT_USAGE if isinstance(error, ConfigError) else EXIT_FAILED


NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
REMEDIES = {
    errno.EACCES: "give yourself the right to it and to the folders above",
    errno.EPERM: "give yourself the right to it and to the folders above",
    errno.ENAMETOOLONG: "give a shorter name",
    errno.ENOSPC: "make room",
    errno.EDQUOT: "make room within your quota",
    errno.EROFS: "give another place",
}
"""What helps against errors of the file system; against all others, a look at the path."""


def _of_machine(error: Exception, reason: str) -> str | None:
    """Say what the machine lacks, if that is what an error without a file says."""
    if is_out_of_memory(error):
        return (
            f"the memory that this process may use does not suffice ({reason[-LONGEST_NAME:]}); "
            "free some, or raise its limit (`ulimit -v`, or the --mem of a Slurm job)"
        )
    if isinstance(error, ImportError):
        return f"a package cannot be loaded ({reason}); install it again, as `pip check` says"
    if isinstance(error, OSError) and error.errno in NO_ROOM:
        return (
            f"what is printed cannot be written ({reason}); make room where standard output goes, "
            "or send it to another place"
        )
    return None


def _of_file(error: OSError) -> str:
    """Say which file cannot be used; no stage knew it better."""
    name = os.fsdecode(error.filename) if isinstance(error.filename, bytes) else error.filename
    name = str(name).encode("utf-8", "backslashreplace").decode()
    short = name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}…"
    remedy = REMEDIES.get(error.errno or 0, "check that path, and the disk or network it lies on")
    return f"{short} cannot be used ({error.strerror}); {remedy}"
