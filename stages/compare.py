"""`milan-pipeline compare FOLDERS...`: one table of all results below the folders."""

import dataclasses

import click

from milan_pipeline import storage
from milan_pipeline.comparison import rows_of, to_json, to_markdown
from milan_pipeline.options import arguments, option
from milan_pipeline.results import find_results
from milan_pipeline.stage_commands import stage_command


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compare:
    """Show the results of probe, finetune and segment in and below FOLDERS as one table.

    A row has the encoder, the stage, the seed, the metrics in per cent, the hash of all that the
    figures depend on, and the folder; where a stage's results differ in other options, those too.
    """

    folders: tuple[str, ...] = arguments()
    out: str | None = option(
        None,
        help="File to write the table to, too, beside printing it.",
        role="execution",
        group="Output",
    )
    over_seeds: bool = option(
        default=False,
        help="One row, mean ± sample standard deviation (number), for results that differ in seed "
        "only: their own, or that of runs with one --label.",
        role="execution",
        group="Output",
    )


def run(config: Compare) -> None:
    """Find the results and print their table."""
    rows = rows_of(find_results(config.folders), over_seeds=config.over_seeds)
    write = to_json if config.format == "json" else to_markdown
    text = write(rows, over_seeds=config.over_seeds)
    if config.out is not None:
        storage.put_bytes(config.out, text.encode())
    click.echo(text, nl=False)


command = stage_command("compare", Compare, run=run, dry_run=None)
