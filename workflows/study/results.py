"""The scores of a study: a cell for each row and measure, with a value for each seed."""

import dataclasses
import math
import statistics
from collections.abc import Collection
from pathlib import Path

from milan_pipeline.errors import MissingDataError
from milan_pipeline.evaluate.scores_file import SCORES, Result, read_scores
from workflows.study.spec import Study
from workflows.study.tasks import scores_folder


@dataclasses.dataclass(frozen=True)
class Cell:
    """What one row reached by one measure, in per cent, by seed."""

    by_seed: dict[int, float]

    @property
    def values(self) -> list[float]:
        """A value for each seed."""
        return list(self.by_seed.values())

    @property
    def mean(self) -> float:
        """Over the seeds; NaN where nothing is measured."""
        return statistics.fmean(self.values) if self.by_seed else math.nan

    @property
    def spread(self) -> float:
        """Sample standard deviation over the seeds; NaN for one seed."""
        return statistics.stdev(self.values) if len(self.by_seed) > 1 else math.nan

    def __str__(self) -> str:
        if not self.by_seed:
            return "\u2013"
        # Equal to the last image means that no seed enters: that is no measurement of a spread.
        if len(set(self.values)) == 1:
            return f"{self.mean:.1f}"
        return f"{self.mean:.1f} ± {self.spread:.1f}"


Results = dict[str, dict[str, dict[int, Result]]]
"""Row -> measure -> seed -> its scores."""
Table = dict[str, dict[str, Cell]]
"""Row -> measure -> cell."""


def read_results(
    study: Study, out: Path, made: Collection[Path | None]
) -> tuple[Results, list[str]]:
    """Read the scores of a study that are there and that its commands made as they are now.

    Args:
        study: what was asked.
        out: its folder.
        made: the outputs of its commands that are done; see `task_graph.is_done`.

    Returns:
        The results, and a sentence for each reason to leave scores out.

    Raises:
        DataError: one is damaged.
    """
    found: Results = {}
    older, lacking = 0, set()
    for name, row in study.rows.items():
        found[name] = {title: {} for title in study.measures}
        for title in study.measures:
            for seed in study.seeds:
                folder = scores_folder(study, out, title, row, seed)
                if folder is None:
                    continue
                try:
                    result = read_scores(str(folder))
                except MissingDataError:
                    continue  # its command is still to be run
                if folder / SCORES not in made:
                    older += 1
                elif study.measures[title].metric not in result.metrics:
                    lacking.add(title)
                else:
                    found[name][title][seed] = result
    said = [f"measure {title!r}: scores lack {study.measures[title].metric!r}" for title in lacking]
    if older:
        said.append(f"{older} scores are not of the commands as they are now, and are left out")
    return found, sorted(said)


def table_of(study: Study, results: Results) -> Table:
    """Take each measure's metric."""
    return {
        row: {
            title: Cell({seed: r.metrics[study.measures[title].metric] for seed, r in of.items()})
            for title, of in by_title.items()
        }
        for row, by_title in results.items()
    }


def text_of(cell: Cell, seeds: int) -> str:
    """Write a cell; one of fewer seeds than the study has says so."""
    there = len(cell.by_seed)
    return f"{cell} ({there} of {seeds} seeds)" if 0 < there < seeds else str(cell)


def markdown(table: Table, seeds: int) -> str:
    """Return the table as Markdown, with what its cells mean below it."""
    titles = list(next(iter(table.values())))
    lines = ["| encoder | " + " | ".join(titles) + " |", "|---" * (len(titles) + 1) + "|"]
    for row, cells in table.items():
        texts = [text_of(cell, seeds) for cell in cells.values()]
        lines.append(f"| {row} | " + " | ".join(texts) + " |")
    means = "Per cent"
    if seeds > 1:
        means += f", mean ± sample standard deviation over {seeds} seeds; without ± no seed enters"
    return "\n".join([*lines, "", means + ".", ""])
