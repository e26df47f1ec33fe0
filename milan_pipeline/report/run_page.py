"""The page of one run, or of several on shared axes."""

from collections.abc import Sequence
from typing import Any

from milan_pipeline.errors import ConfigError
from milan_pipeline.evaluate.accuracies import accuracy_text, interval_text
from milan_pipeline.evaluate.comparison import rows_of
from milan_pipeline.report.class_tables import class_tables
from milan_pipeline.report.facts import Facts, flattened, label_of, text_of
from milan_pipeline.report.page import Page, Table, shown
from milan_pipeline.report.run.facts import RunReport
from milan_pipeline.report.run.predictions import Predictions, predict, teacher_of
from milan_pipeline.report.run_plots import MOST_RUNS, plot_runs
from milan_pipeline.report.target_rows import ViewSource, read_target_rows
from milan_pipeline.weights.loaded_run import load_run

SHOWN = 12
"""Views that are predicted, at most: each takes a pass of every run's student."""
HIGHLIGHTS = {
    "loss": "loss",
    "images_per_second": "images/s",
    "data_wait_share": "waiting for data",
    "memory_bytes": "peak memory",
}


def run_page(
    runs: Sequence[RunReport],
    *,
    images: str | None,
    targets: str | None,
    gallery: int,
    seed: int,
) -> Page:
    """Make the page of runs; with images and targets, of their predictions, too.

    Args:
        runs: one or more.
        images: folder of image shards, or None.
        targets: target store or shards of these images, or None.
        gallery: views to predict, of which `SHOWN` are taken at most.
        seed: of which views those are, and of the masks.

    Raises:
        ConfigError: there are more runs than there are colours.
        MissingDataError, MismatchError: images, targets and runs do not belong together.
    """
    if len(runs) > MOST_RUNS:
        raise ConfigError(
            f"{len(runs)} runs are more than a plot can tell apart; give {MOST_RUNS} at most"
        )
    predictions = (
        _predictions(runs, images, targets, min(gallery, SHOWN), seed) if images and targets else []
    )
    first = runs[0].facts["run"]
    names = [run.name for run in runs]
    return Page(
        title=", ".join(names),
        kind="run" if len(runs) == 1 else f"{len(runs)} runs",
        state=str(first["state"]) if len(runs) == 1 else "",
        paths=[str(run.folder) for run in runs],
        highlights=_highlights(runs, predictions),
        facts=shown(_facts(runs)),
        notes=_notes(runs, predictions),
        plots=plot_runs(runs),
        plots_title="Training",
        plots_words="Against epochs; each point is the mean of neighbouring steps."
        + (" Runs differ in colour and in dashes." if len(runs) > 1 else ""),
        predictions=predictions,
        tables=[*_results(runs), *_classes(runs), *_differences(runs)],
    )


def _predictions(
    runs: Sequence[RunReport], images: str, targets: str, count: int, seed: int
) -> list[Predictions]:
    rows, source = read_target_rows(targets, count, seed), ViewSource(images)
    found = []
    for run in runs:
        teacher = teacher_of(run, rows, targets)
        size = load_run(run.folder).image_size
        found.append(predict(run, rows, list(source.views(rows, size)), teacher=teacher, seed=seed))
    return found


def _facts(runs: Sequence[RunReport]) -> Facts:
    if len(runs) == 1:
        return runs[0].facts
    return {
        f"{'state' if section == 'run' else section} of {run.name}": part
        for run in runs
        for section, part in run.facts.items()
        if section in ("run", "latest steps")
    }


def _highlights(
    runs: Sequence[RunReport], predictions: Sequence[Predictions]
) -> list[tuple[str, str]]:
    tiles = []
    for number, run in enumerate(runs):
        facts, of = run.facts, f" of {run.name}" if len(runs) > 1 else ""
        step, total = facts["run"]["step"], facts["run"]["total_steps"]
        if len(runs) == 1:
            tiles.append(("steps done", f"{step:,}" + (f" of {total:,}" if total else "")))
        wanted = HIGHLIGHTS if len(runs) == 1 else {"loss": "loss"}
        found = facts["latest steps"]
        tiles += [
            (f"{label}{of}", text_of(name, _short(found[name])))
            for name, label in wanted.items()
            if name in found
        ]
        if predictions:
            found_by = predictions[number]
            tiles += [
                (f"cosine of masked patches{of}", f"{found_by.masked_cosine:.3f}"),
                (f"the same of the mean target{of}", f"{found_by.floor_cosine:.3f}"),
            ]
    return tiles


def _short(value: Any) -> Any:
    return float(f"{value:.4g}") if isinstance(value, float) else value


def _results(runs: Sequence[RunReport]) -> list[Table]:
    names = {result.folder: run.name for run in runs for result in run.results}
    found = rows_of(result for run in runs for result in run.results)
    if not found:
        return []
    settings = any(row.settings for row in found)
    rows = []
    for row in found:
        (result,) = row.results
        settings_text = ", ".join(f"{name}={value}" for name, value in row.settings.items())
        rows += [
            [
                names[result.folder],
                row.stage,
                metric,
                f"{accuracy_text(value)}%",
                interval_text(result.intervals.get(metric)),
                *([settings_text] if settings else []),
            ]
            for metric, value in result.metrics.items()
        ]
    columns = [
        "run",
        "stage",
        "measure",
        "result",
        "95% interval, %",
        *(["settings"] if settings else []),
    ]
    words = "Of these runs' own weights, as their fingerprint tells."
    return [Table(anchor="results", title="Results", columns=columns, rows=rows, words=words)]


def _classes(runs: Sequence[RunReport]) -> list[Table]:
    """Tell how the runs' own scores are made up, class by class."""
    return [
        table
        for run in runs
        for result in run.results
        if result.folder == str(run.folder)
        for table in class_tables(result, run.name if len(runs) > 1 else "")
    ]


def _differences(runs: Sequence[RunReport]) -> list[Table]:
    """Tell the options and inputs in which runs differ."""
    if len(runs) == 1:
        return []
    options = [dict(flattened({k: run.record[k] for k in ("content", "inputs")})) for run in runs]
    names = dict.fromkeys(name for one in options for name in one)
    rows = [
        [label_of(name.partition(".")[2]), *(text_of(name, one.get(name)) for one in options)]
        for name in names
        if any(one.get(name) != options[0].get(name) for one in options)
    ]
    return [
        Table(
            anchor="differences",
            title="What the runs differ in",
            columns=("option or input", *(run.name for run in runs)),
            rows=rows or [["nothing", *("" for _ in runs)]],
        )
    ]


def _notes(runs: Sequence[RunReport], predictions: Sequence[Predictions]) -> list[str]:
    steps = ", ".join(f"{len(run.history.get('step', ()))} of {run.name}" for run in runs)
    logged = (
        f"Steps that are logged: {steps}. Figures of the latest steps are the ends of their curves."
    )
    memory = (
        "Memory is that of the first process alone, without the loader's workers; runs of older "
        "versions did not log it."
    )
    predicted = (
        f"{len(predictions[0].views)} views were predicted by the newest checkpoint, once each, "
        "from the patches that one draw of the run's masking kept."
        if predictions
        else "Predictions need --images and --targets, best of images that were held out."
    )
    return [logged, memory, predicted]
