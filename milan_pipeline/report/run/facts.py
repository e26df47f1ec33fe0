"""Reads the facts of a run: what it trains, its progress, its speed and its results."""

import collections
import dataclasses
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from milan_pipeline import storage
from milan_pipeline.data.unreadable import unreadable_images
from milan_pipeline.encoders.load import fingerprint
from milan_pipeline.errors import ConfigError, MissingDataError
from milan_pipeline.evaluate.dense_protocol import card_line, card_of
from milan_pipeline.evaluate.scores_file import Result, find_results
from milan_pipeline.models.build import settled_student
from milan_pipeline.models.weight_files import ENCODER
from milan_pipeline.provenance.identity import identities_of
from milan_pipeline.provenance.record import read_record
from milan_pipeline.provenance.run_state import CONFIG_NAME, State, read_state
from milan_pipeline.report.facts import Facts, flattened
from milan_pipeline.report.folder_status import run_status
from milan_pipeline.report.run.history import (
    History,
    latest,
    read_evaluations,
    read_history,
    with_step_seconds,
)
from milan_pipeline.training.checkpoints import newest_checkpoint

NAMED = 5


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunReport:
    """A run as its folder tells of it.

    Attributes:
        folder: of the run.
        name: what plots and tables call it.
        record: its `config.json`.
        state: its `state.json`; None before the first step.
        history: its log.
        evaluations: the scores of its validation, in the same form; of `finetune` and `segment`.
        results: what `probe`, `finetune` and `segment` measured of its encoder.
    """

    folder: Path
    name: str
    record: dict[str, Any]
    state: State | None
    history: History
    evaluations: History
    results: list[Result]

    @property
    def step(self) -> int:
        """Steps that are done: by its log, as its state is written when it begins and ends."""
        logged = self.history.get("step", ())
        stated = 0 if self.state is None else self.state.get("step", 0)
        return max(stated, int(max(logged, default=0)))

    @functools.cached_property  # the newest checkpoint is found by its hashes: gigabytes are read
    def facts(self) -> Facts:
        """All of it for a terminal; keys are those of the record and the log."""
        newest, unreadable = newest_checkpoint(self.folder), _unreadable(self.folder)
        total = None if self.state is None else self.state.get("total_steps")
        cards = {
            f"{result.stage} ({name})": card_line(card)
            for result, name in self._named()
            if (card := card_of(result)) is not None
        }
        return {
            "run": {
                "path": str(self.folder),
                "stage": self.record["stage"],
                "state": run_status(str(self.folder)).state,
                "step": self.step,
                "total_steps": total,
                "newest_checkpoint": None if newest is None else newest[1].name,
                "encoder_exported": storage.exists(str(self.folder / ENCODER)),
            },
            "options": options_of(self.record),
            "inputs": {
                name: value
                for name, value in flattened(self.record["inputs"])
                if ".identity." not in f".{name}"
            },
            "latest steps": latest(self.history),
            "ledger": {"unreadable_images": len(unreadable), "first": unreadable[:NAMED]},
            "results": {
                f"{result.stage} {metric} ({name}), %": value
                for result, name in self._named()
                for metric, value in result.metrics.items()
            },
        } | ({"protocols": cards} if cards else {})

    def _named(self) -> Iterator[tuple[Result, str]]:
        """Yield results with their names, and with their folders where a stage has a name twice."""
        count = collections.Counter((result.stage, result.name) for result in self.results)
        folders = shortest_ends([result.folder for result in self.results])
        for result, folder in zip(self.results, folders, strict=True):
            is_alone = count[result.stage, result.name] == 1
            yield result, result.name if is_alone else f"{result.name}, {folder}"


def read_run(url: str, results: tuple[str, ...] = ()) -> RunReport:
    """Read what a run folder tells.

    Args:
        url: a local folder.
        results: folders with further results of the run, in them or below them.

    Raises:
        ConfigError: the folder is not local.
        MissingDataError: it holds no run, or a folder of `results` no result at all.
        DataError: it is damaged.
    """
    place = storage.local_path(url)
    if place is None:
        raise ConfigError(f"{url} is no local folder; copy the run to this machine")
    folder = Path(place)
    record = read_record(str(folder / CONFIG_NAME))
    if record is None:
        raise MissingDataError(f"{url} holds no run; `pretrain` makes one")
    batch = record.get("config", {}).get("batch_size")
    return RunReport(
        folder=folder,
        name=folder.name,
        record=record,
        state=read_state(str(folder)),
        history=with_step_seconds(read_history(folder), batch),
        evaluations=read_evaluations(folder),
        results=_results_of(folder, results),
    )


def distinctly_named(runs: Sequence[RunReport]) -> list[RunReport]:
    """Name each run by the shortest end of its path that tells it from the others."""
    names = shortest_ends([str(run.folder.resolve()) for run in runs])
    return [dataclasses.replace(run, name=name) for run, name in zip(runs, names, strict=True)]


def shortest_ends(paths: Sequence[str]) -> list[str]:
    """Return the shortest end of each path that no other path has; the last part of equal ones."""
    parts, ends = [path.rstrip("/").split("/") for path in paths], []
    for own in parts:
        lengths = range(1, len(own) + 1)
        alone = (n for n in lengths if sum(other[-n:] == own[-n:] for other in parts) == 1)
        ends.append("/".join(own[-next(alone, 1) :]))
    return ends


def options_of(record: dict[str, Any]) -> dict[str, Any]:
    """Return the options; of a student, also the sizes that its name and the targets settle."""
    options = dict(flattened(record["content"]))
    if "student" in options:
        identities = identities_of(record["inputs"]).values()  # of several teachers, in one grid
        grid = next((tuple(identity["teacher"]["grid"]) for identity in identities), None)
        sizes = settled_student(record["content"], grid)
        options |= {name: size for name, size in sizes.items() if options.get(name) is None}
    return options


def _unreadable(folder: Path) -> list[str]:
    """Say which images a run could not decode, and why."""
    rows = [row for what in ("train", "val") for row in unreadable_images(folder, what)]
    return [f"{row['shard']}:{row['key']} ({row['reason']})" for row in rows]


def _results_of(folder: Path, places: tuple[str, ...]) -> list[Result]:
    """Find results below the run, and elsewhere those of an encoder with its very weights."""
    own, others = _found(str(folder)), find_results(places) if places else []
    ours = fingerprint(str(folder)) if storage.exists(str(folder / ENCODER)) else None
    matching = [result for result in others if result.inputs.get("encoder") == ours]
    return list({result.folder: result for result in own + matching}.values())


def _found(folder: str) -> list[Result]:
    """Results below a run are optional."""
    try:
        return find_results([folder])
    except MissingDataError:
        return []
