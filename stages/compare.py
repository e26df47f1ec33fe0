"""`milan-pipeline compare FOLDERS...`: one table of all results below the folders."""

import dataclasses
import functools
import json
import textwrap

from milan_pipeline import storage
from milan_pipeline.cli.commands import stage_command
from milan_pipeline.cli.options import arguments, option
from milan_pipeline.core.console import fits_terminal, is_json, report
from milan_pipeline.evaluate.comparison import rows_of, to_blocks, to_documents, to_markdown
from milan_pipeline.evaluate.dense_protocol import warnings_of_protocols
from milan_pipeline.evaluate.differences import lines_of, ties, ties_of
from milan_pipeline.evaluate.scores_file import find_results

WIDTH = 100


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compare:
    """Show all results of probe, finetune and segment in and below FOLDERS as one table.

    A row has the encoder, stage, seed, the metrics in per cent, and the folder. It also has the
    options in which the results differ. A metric has its 95% interval behind it. Below the table
    are the pairs of rows that do not differ by a test at 95%: a paired one if both kept what they
    answered for each image. A line names mIoU of rows that were scored by different protocols.
    If the table is wider than the terminal, folders are left out of it,
    then intervals. If it is still too wide, each row is written as a block of lines.
    """

    folders: tuple[str, ...] = arguments()
    out: str | None = option(
        None,
        help="File to write the table to, in addition to printing it; default: none.",
        role="execution",
        group="Output",
    )
    over_seeds: bool = option(
        default=False,
        help="Join results that differ only in their seed, or in the seed of runs with one "
        "--label: mean ± sample standard deviation (number).",
        role="content",
        group="Output",
    )
    hashes: bool = option(
        default=False,
        help="Show a hash of everything that the figures depend on; --json always has it.",
        role="execution",
        group="Output",
    )


def run(config: Compare) -> None:
    """Find the results and print their table."""
    rows = rows_of(find_results(config.folders), over_seeds=config.over_seeds)
    hidden = () if config.hashes else ("config",)
    table = functools.partial(to_markdown, rows, over_seeds=config.over_seeds)
    text, found = table(without=hidden), [] if config.over_seeds else ties(rows)
    protocols = warnings_of_protocols(result for row in rows for result in row.results)
    lines = (textwrap.fill(each, WIDTH) for each in (*protocols, *lines_of(found)))
    said = "".join(f"\n{line}\n" for line in lines)
    document = to_documents(rows, over_seeds=config.over_seeds)
    if not config.over_seeds:
        for row, each in zip(rows, document, strict=True):
            each["do_not_differ"] = ties_of(row.results[0], found)
    if config.out is not None:
        kept = json.dumps(document, indent=1) + "\n" if is_json() else text + said
        storage.put_bytes(config.out, kept.encode(errors="backslashreplace"))
    if not fits_terminal(text):
        text = table(without=(*hidden, "folder"))
    if not fits_terminal(text):
        text = table(without=(*hidden, "folder"), intervals=False)
    if not fits_terminal(text):
        text = to_blocks(rows, over_seeds=config.over_seeds, without=hidden)
    report((text + said).splitlines(), document)


command = stage_command(
    "compare",
    Compare,
    run=run,
    dry_run=None,
    example="milan-pipeline compare runs --over-seeds",
)
