"""What a study found: study.md, study.json, plots/ and the page study.html, of what is there."""

import json
import os
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

from milan_pipeline.report.page import Page, Table, render
from milan_pipeline.report.svg import Plot
from workflows.study.mark import read_mark
from workflows.study.pairs import Pair, pairs_of
from workflows.study.plots import plots_of
from workflows.study.results import Table as Cells
from workflows.study.results import markdown, read_results, table_of, text_of
from workflows.study.spec import Arm, Study, slug
from workflows.study.task_graph import Task, done_tasks


def report(study: Study, out: Path, *, marks: Path, tasks: Collection[Task]) -> str:
    """Write the study's files and return the text of study.md.

    study.md and study.json depend on scores alone, the page also says how long commands took.

    Args:
        study: what was asked.
        out: its folder.
        marks: of the tasks that are done.
        tasks: all of them.

    Raises:
        DataError: scores are damaged.
    """
    done = done_tasks(tasks, marks)
    results, left_out = read_results(study, out, {task.output for task in done})
    for sentence in left_out:
        print(f"note: {sentence}", file=sys.stderr)
    table, pairs = table_of(study, results), pairs_of(study, results)
    lines = [f"# {study.title}", "", markdown(table, len(study.seeds))]
    lines += [*(f"- {pair}" for pair in pairs), *([""] if pairs else []), *study.notes]
    text = "\n".join(lines).rstrip() + "\n"
    (out / "study.md").write_text(text, encoding="utf-8")
    document = document_of(study, table, pairs)
    (out / "study.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    plots = plots_of(study, table)
    (out / "plots").mkdir(exist_ok=True)
    for plot in plots:
        (out / "plots" / f"{slug(plot.title)}.svg").write_text(plot.file, encoding="utf-8")
    facts = _facts(study, marks, done, len(tasks))
    page = _page(study, out, (table, pairs, plots), facts)
    (out / "study.html").write_text(render(page), encoding="utf-8")
    return text


def document_of(study: Study, table: Cells, pairs: list[Pair]) -> dict[str, Any]:
    """Return the study's results as plain JSON."""
    rows = study.rows
    return {
        "title": study.title,
        "seeds": study.seeds,
        "rows": [
            {
                "name": name,
                **_settings(rows[name]),
                "scores": {
                    title: {"mean": cell.mean, "values": cell.by_seed}
                    | ({"spread": cell.spread} if len(cell.by_seed) > 1 else {})
                    for title, cell in cells.items()
                    if cell.by_seed
                },
            }
            for name, cells in table.items()
        ],
        "pairs": [
            {
                "measure": pair.measure,
                "above": pair.above,
                "below": pair.below,
                "differences": pair.by_seed,
                "mean": pair.mean,
                "interval": pair.interval,
            }
            for pair in pairs
        ],
    }


def _settings(row: Arm | str) -> dict[str, Any]:
    if isinstance(row, str):
        return {"student": row, "codec": None, "views": None, "epochs": None}
    return {
        "student": row.student,
        "codec": row.codec,
        "views": row.views,
        "epochs": row.epochs,
    }


def _facts(study: Study, marks: Path, done: Collection[Task], tasks: int) -> list[tuple[str, str]]:
    """Return what the page says of how the figures came about."""
    read = [read_mark(marks, task.name) for task in done]
    seconds, cpu = (sum(mark.get(key) or 0 for mark in read) for key in ("seconds", "cpu_seconds"))
    scenes, images = study.images.scenes, study.images
    source = f"{images.train}; {images.test}"
    if scenes is not None:
        source = f"{scenes.train} and {scenes.test} drawn scenes of seed {scenes.seed}"
    return [
        ("commands done", f"{len(done)} of {tasks}"),
        ("seconds of the last part of each command, added up", f"{seconds:.0f}"),
        ("seconds of CPU time in them", f"{cpu:.0f}"),
        ("cores of this machine", str(os.cpu_count())),
        ("images to learn from; to score on", source),
        ("teacher", "; ".join(study.teachers.values())),
        ("seeds", ", ".join(map(str, study.seeds))),
    ]


def _page(
    study: Study,
    out: Path,
    found: tuple[Cells, list[Pair], list[Plot]],
    facts: list[tuple[str, str]],
) -> Page:
    table, pairs, plots = found
    titles = list(study.measures)
    seeds = len(study.seeds)
    words = f"Per cent, mean ± sample standard deviation over {seeds} seeds." if seeds > 1 else ""
    tables = [
        Table(
            anchor="scores",
            title="Scores",
            columns=["encoder", *titles],
            rows=[
                [row, *(text_of(cell, seeds) for cell in cells.values())]
                for row, cells in table.items()
            ],
            words=words or "Per cent, of one seed.",
        )
    ]
    if pairs:
        rows = [[p.measure, p.above, p.below, f"{p.mean:+.1f}", _ends(p)] for p in pairs]
        tables.append(
            Table(
                anchor="pairs",
                title="Pairs",
                columns=["measure", "row", "compared with", "difference", "95% interval"],
                rows=rows,
                words="Points, in pairs of answers to the same images. Intervals are of a "
                "bootstrap over seeds and images; with two or three seeds they are too narrow.",
            )
        )
    return Page(
        title=study.title,
        kind="study",
        state="",
        paths=[str(out)],
        highlights=[],
        facts=[("study", facts)],
        notes=study.notes,
        plots=plots,
        plots_title="Plots",
        plots_words="Means over seeds; whiskers are the standard deviation over seeds.",
        tables=tables,
    )


def _ends(pair: Pair) -> str:
    return "" if pair.interval is None else f"{pair.interval[0]:+.1f} to {pair.interval[1]:+.1f}"
