"""The study's results: a table, its check, study.json, study.md and study.png."""

import json
import math
import statistics
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
from matplotlib import pyplot as plt

from milan_pipeline.evaluate.scores_file import read_scores
from workflows.demo.study_tasks import ENCODERS, folder_of

COLUMNS = {
    "k-NN": ("probe", "knn@20"),
    "linear": ("probe", "linear"),
    "linear, official": ("probe", "linear-official"),
    "fine-tuned, 1% of labels": ("finetune-1", "top1"),
    "10%": ("finetune-10", "top1"),
    "100%": ("finetune-100", "top1"),
    "segmentation, mIoU": ("segment", "miou"),
}
"""Title of a column: the folder and the metric that it shows."""
LINEAR = ("linear", "linear, official")
ALL_LABELS = "100%"
ROWS = {
    "random": "random weights",
    "pixels": "pixel reconstruction (MAE's objective)",
    "MILAN": "MILAN student",
    "teacher": "its teacher, the CLIP tower itself",
}
COLOURS = {"random": "#999999", "pixels": "#E69F00", "MILAN": "#0072B2", "teacher": "#009E73"}
"""Okabe and Ito's, which colour-blind readers tell apart."""


class Cell(NamedTuple):
    """What one encoder reached in one column, in per cent, a value for each seed."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Over the seeds."""
        return statistics.fmean(self.values)

    @property
    def spread(self) -> float:
        """Sample standard deviation over the seeds; NaN for one seed."""
        return statistics.stdev(self.values) if len(self.values) > 1 else math.nan

    def __str__(self) -> str:
        # Equal to the last image means that no seed enters: that is no measurement of a spread.
        if len(set(self.values)) == 1:
            return f"{self.mean:.1f}"
        return f"{self.mean:.1f} ± {self.spread:.1f}"


Table = dict[str, dict[str, Cell]]
"""Encoder -> column -> cell."""


def report(out: Path, seeds: tuple[int, ...]) -> bool:
    """Write the study's files, print the table and the check, and return whether all holds."""
    table = read_table(out, seeds)
    checks = checks_of(table)
    document = {
        "seeds": list(seeds),
        "table": {
            row: {
                title: {"mean": cell.mean, "values": list(cell.values)}
                | ({"spread": cell.spread} if len(seeds) > 1 else {})
                for title, cell in cells.items()
            }
            for row, cells in table.items()
        },
        "checks": [found._asdict() | {"holds": found.holds} for found in checks],
    }
    (out / "study.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    text = markdown(table, len(seeds)) + "\n" + "\n".join(f"- {found}" for found in checks) + "\n"
    (out / "study.md").write_text(text, encoding="utf-8")
    draw(table, out / "study.png")
    print(text, end="")
    return all(found.holds for found in checks)


def read_table(out: Path, seeds: tuple[int, ...]) -> Table:
    """Read every scores.json of the study.

    Raises:
        MissingDataError, StorageError: one is not there.
        KeyError: one lacks the metric of its column.
    """
    return {
        encoder: {
            title: Cell(
                tuple(
                    read_scores(str(folder_of(out, seed, encoder) / folder)).metrics[metric]
                    for seed in seeds
                )
            )
            for title, (folder, metric) in COLUMNS.items()
        }
        for encoder in ENCODERS
    }


class Check(NamedTuple):
    """Whether one cell is ahead of another by more than both spreads together."""

    ahead: str
    behind: str
    difference: float
    spreads: float

    @property
    def holds(self) -> bool:
        """Whether it is."""
        return self.difference > self.spreads

    def __str__(self) -> str:
        verdict = "holds" if self.holds else "does not hold"
        return (
            f"{self.ahead} is {self.difference:+.1f} from {self.behind}, both spreads together are "
            f"{self.spreads:.1f}: {verdict}"
        )


def check(ahead: str, one: Cell, behind: str, other: Cell) -> Check:
    """Compare two cells; with one seed the spread is not known and counts as 0."""
    both = sum(0.0 if math.isnan(cell.spread) else cell.spread for cell in (one, other))
    return Check(ahead, behind, one.mean - other.mean, both)


def checks_of(table: Table) -> list[Check]:
    """Check MILAN against pixels in every column, and fine-tuning against linear classifiers."""
    milan, pixels = table["MILAN"], table["pixels"]
    checks = [check(f"{title}: MILAN", milan[title], "pixels", pixels[title]) for title in COLUMNS]
    for encoder in ("MILAN", "teacher"):
        cells = table[encoder]
        # The better classifier of frozen features is the one to beat.
        best = max(LINEAR, key=lambda title: cells[title].mean)
        checks.append(
            check(f"{encoder}: {ALL_LABELS} fine-tuned", cells[ALL_LABELS], best, cells[best])
        )
    return checks


def markdown(table: Table, seeds: int) -> str:
    """Return the table as Markdown, with what its cells mean below it."""
    lines = ["| encoder | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    for encoder, cells in table.items():
        lines.append(f"| {ROWS[encoder]} | " + " | ".join(map(str, cells.values())) + " |")
    means = "Per cent"
    if seeds > 1:
        means += f", mean ± sample standard deviation over {seeds} seeds; without ± no seed enters"
    return "\n".join([*lines, "", means + ".", ""])


def draw(table: Table, file: Path) -> None:
    """Draw a group of bars for each column, a bar for each encoder."""
    mpl.use("Agg")
    figure, axis = plt.subplots(figsize=(10, 3.6), layout="constrained")
    width = 0.8 / len(table)
    for number, (encoder, cells) in enumerate(table.items()):
        places = [column + (number - 1.5) * width for column in range(len(COLUMNS))]
        spreads = [0.0 if math.isnan(cell.spread) else cell.spread for cell in cells.values()]
        axis.bar(
            places,
            [cell.mean for cell in cells.values()],
            width,
            yerr=spreads,
            capsize=2,
            color=COLOURS[encoder],
            label=ROWS[encoder],
        )
    axis.set_xticks(range(len(COLUMNS)), [title.replace(", ", ",\n") for title in COLUMNS])
    axis.set_ylabel("per cent")
    axis.set_ylim(0, 100)
    axis.spines[["top", "right"]].set_visible(False)
    figure.legend(ncols=len(table), loc="outside upper center", frameon=False)
    figure.savefig(file, dpi=110)
    plt.close(figure)
