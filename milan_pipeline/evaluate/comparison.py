"""Puts many results in one table: a row each, or one for all that differ in their seed only."""

import dataclasses
import json
import os
import re
import statistics
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from milan_pipeline.core.console import named_lines, one_line
from milan_pipeline.evaluate.accuracies import accuracy_text, interval_text
from milan_pipeline.evaluate.dense_protocol import card_of
from milan_pipeline.evaluate.scores_file import Result
from milan_pipeline.provenance.identity import content_hash, own_content, short_fingerprint

STAGES = ("probe", "finetune", "segment")
METRICS = (
    "knn", "linear", "linear-official", "linear-sweep", "attentive", "top1", "top5",
    "miou", "macc", "aacc", "knn-miou", "knn-macc", "knn-aacc",
)  # fmt: skip
# These have columns of their own, or none.
NOT_SETTINGS = ("encoder", "random_init", "seed")
RESOLUTION = "resolution"
TRAINED_BEFORE = "eval_only"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One or more results, in a table.

    Attributes:
        encoder: its name in the table.
        stage: which stage measured.
        settings: options and inputs in which the stage's results differ, without encoder and seed.
        results: one, or those of several seeds.
    """

    encoder: str
    stage: str
    settings: dict[str, Any]
    results: tuple[Result, ...]

    def values(self, metric: str) -> list[float]:
        """Return the results' values of a metric, in per cent; empty where no result has it."""
        return [r.metrics[metric] for r in self.results if metric in r.metrics]


def rows_of(results: Iterable[Result], *, over_seeds: bool = False) -> list[Row]:
    """Put results into rows, ordered by stage, settings, encoder and seed.

    With `over_seeds`, results of one stage and name whose content options and inputs are the same
    but for the seed and the encoder's weights share a row: seeds of the evaluation, or runs of
    several seeds that were given one `--label`. Copies of a result (an equal hash) count once.

    Args:
        results: of any stages.
        over_seeds: whether to join them.
    """
    ordered = sorted(results, key=_place)
    settings = {id(result): _settings(result) for result in ordered}
    common = {
        stage: _common([settings[id(result)] for result in ordered if result.stage == stage])
        for stage in {result.stage for result in ordered}
    }
    groups: dict[Any, list[Result]] = {}
    for result in ordered:
        key = (result.stage, result.name, result.random_init, content_hash(settings[id(result)]))
        groups.setdefault(key if over_seeds else id(result), []).append(result)
    return [
        Row(
            encoder=group[0].name,
            stage=group[0].stage,
            settings={
                name: value
                for name, value in settings[id(group[0])].items()
                if name not in common[group[0].stage]
            },
            results=tuple({r.config_hash: r for r in reversed(group)}.values())[::-1],
        )
        for group in groups.values()
    ]


def metric_names(rows: Iterable[Row]) -> list[str]:
    """List every metric of the rows, in the order of `METRICS` and k, others last."""
    names = {name for row in rows for result in row.results for name in result.metrics}
    return sorted(names, key=_metric_place)


def to_documents(rows: Sequence[Row], *, over_seeds: bool = False) -> list[dict[str, Any]]:
    """Return each row as a JSON object.

    With `over_seeds`, seeds, hashes and folders are lists, and a metric is {"mean", "std", "n"}; of
    a single value the sample standard deviation is null.
    """
    return [_document_over_seeds(row) if over_seeds else _document(row) for row in rows]


def _document(row: Row) -> dict[str, Any]:
    (result,) = row.results
    return {
        "encoder": row.encoder,
        "stage": row.stage,
        "seed": result.seed,
        "settings": row.settings,
        "metrics": {name: result.metrics[name] for name in metric_names([row])},
        "intervals": {name: list(ends) for name, ends in result.intervals.items()},
        "protocol": card_of(result),
        "config_hash": result.config_hash,
        "folder": result.folder,
    }


def _document_over_seeds(row: Row) -> dict[str, Any]:
    return {
        "encoder": row.encoder,
        "stage": row.stage,
        "seeds": [result.seed for result in row.results],
        "settings": row.settings,
        "metrics": {name: _spread(row.values(name)) for name in metric_names([row])},
        "config_hashes": [result.config_hash for result in row.results],
        "folders": [result.folder for result in row.results],
    }


def to_markdown(
    rows: Sequence[Row],
    *,
    over_seeds: bool = False,
    without: Collection[str] = (),
    intervals: bool = True,
) -> str:
    """Write rows as a Markdown table; metrics in per cent, with two digits and their 95% interval.

    With `over_seeds` a metric is "mean ± sample standard deviation (number of results)".

    Args:
        rows: of the table.
        over_seeds: whether rows join results of several seeds.
        without: headings of columns that are left out.
        intervals: whether a metric of one result has its interval.
    """
    columns = _columns(rows, over_seeds=over_seeds, without=without, intervals=intervals)
    lines = [list(columns), ["---"] * len(columns), *map(list, zip(*columns.values(), strict=True))]
    cells = ([cell.replace("|", "\\|") for cell in line] for line in lines)
    return "".join(f"| {' | '.join(line)} |\n" for line in cells)


def to_blocks(
    rows: Sequence[Row], *, over_seeds: bool = False, without: Collection[str] = ()
) -> str:
    """Write rows one below the other, a line a cell, for a terminal too narrow for the table.

    Empty cells are left out. The arguments are those of `to_markdown`; intervals are there.
    """
    columns = _columns(rows, over_seeds=over_seeds, without=without, intervals=True)
    blocks = (
        named_lines(
            ((name, values[row]) for name, values in columns.items()), width=max(map(len, columns))
        )
        for row in range(len(rows))
    )
    return "\n".join("".join(f"{line}\n" for line in block) for block in blocks)


def _columns(
    rows: Sequence[Row], *, over_seeds: bool, without: Collection[str], intervals: bool
) -> dict[str, list[str]]:
    """Return the cells under each heading."""
    columns: dict[str, list[str]] = {
        "encoder": [row.encoder for row in rows],
        "stage": [row.stage for row in rows],
    }
    if any(row.settings for row in rows):
        columns["settings"] = [
            " ".join(f"{name}={_text(value)}" for name, value in row.settings.items())
            for row in rows
        ]
    columns["seed"] = [_listed(str(result.seed) for result in row.results) for row in rows]
    for metric in metric_names(rows):
        columns[metric] = [
            _spread_text(row.values(metric)) if over_seeds else _score(row, metric, intervals)
            for row in rows
        ]
    columns["config"] = [_listed(result.config_hash for result in row.results) for row in rows]
    columns["folder"] = [_listed(map(near, row.results)) for row in rows]
    return {
        name: list(map(one_line, cells)) for name, cells in columns.items() if name not in without
    }


def near(result: Result) -> str:
    """Return a result's folder as it is reached from here, if that is shorter."""
    if "://" in result.folder:
        return result.folder
    return min(os.path.relpath(result.folder), result.folder, key=len)


def _listed(texts: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(texts))


def _settings(result: Result) -> dict[str, Any]:
    """Return the content options and inputs of a result, but for encoder, weights and seed."""
    content = own_content(result.content, result.inputs)
    settings = {name: value for name, value in content.items() if name not in NOT_SETTINGS}
    inputs = {name: value for name, value in result.inputs.items() if name not in NOT_SETTINGS}
    settings |= {name: short_fingerprint(str(value)) for name, value in inputs.items()}
    # Of a dense protocol, what no option tells: it comes with the encoder.
    card = card_of(result)
    return settings if card is None else settings | {RESOLUTION: card.get(RESOLUTION)}


def _common(settings: Sequence[dict[str, Any]]) -> set[str]:
    """Return the names of the settings that are the same for all that may have them.

    Results of `--eval-only` have none of training.
    """
    first = {name: value for each in reversed(settings) for name, value in each.items()}
    return {
        name
        for name, value in first.items()
        if all(
            each[name] == value if name in each else bool(each.get(TRAINED_BEFORE))
            for each in settings
        )
    }


def _place(result: Result) -> tuple[Any, ...]:
    stage = STAGES.index(result.stage) if result.stage in STAGES else len(STAGES)
    settings = json.dumps(_settings(result), sort_keys=True)
    return (stage, result.stage, settings, result.name, result.seed, result.folder)


def _metric_place(name: str) -> tuple[int, int, str]:
    kind, _, k = name.partition("@")
    place = METRICS.index(kind) if kind in METRICS else len(METRICS)
    return (place, int(k) if re.fullmatch("[0-9]+", k) else 0, name)


def _spread(values: Sequence[float]) -> dict[str, Any]:
    std = statistics.stdev(values) if len(values) > 1 else None
    return {"mean": statistics.fmean(values), "std": std, "n": len(values)}


def _score(row: Row, metric: str, intervals: bool) -> str:
    (result,) = row.results
    if metric not in result.metrics:
        return ""
    interval = interval_text(result.intervals.get(metric)) if intervals else ""
    return accuracy_text(result.metrics[metric]) + (f" ({interval})" if interval else "")


def _spread_text(values: Sequence[float]) -> str:
    if not values:
        return ""
    spread = _spread(values)
    deviation = "" if spread["std"] is None else f" ± {accuracy_text(spread['std'])}"
    return f"{accuracy_text(spread['mean'])}{deviation} ({spread['n']})"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
