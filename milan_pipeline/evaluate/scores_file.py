"""Writes, reads and finds `scores.json`, the result of every stage that evaluates.

It holds the metrics in per cent and all that they depend on: the content options and the
fingerprints of the inputs. Execution options and paths are in the stage's record alone.
"""

import dataclasses
import json
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from milan_pipeline import storage
from milan_pipeline.core.schema import DocumentError, conforming, parsed
from milan_pipeline.errors import DataError, MismatchError, MissingDataError
from milan_pipeline.evaluate.intervals import Interval
from milan_pipeline.provenance.identity import content_hash, own_content
from milan_pipeline.provenance.record import StageRecord, config_by_role

SCORES = "scores.json"
Folder = str | os.PathLike[str]
HASH_DIGITS = 12


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """One `scores.json`.

    Attributes:
        folder: of the file.
        stage: which stage wrote it: "probe", "finetune", "segment".
        encoder: the spec that was evaluated.
        random_init: whether its weights were random.
        seed: of the evaluation.
        metrics: name to per cent: "knn@20", "linear", "top1", "top5", "miou", "macc", "aacc".
        content: the content options, by name.
        inputs: fingerprints of what was read, by name.
        label: the encoder's name in tables, if not its spec.
        intervals: of those metrics that have one, its 95% interval in per cent, by the same name.
        extras: the stage's own details.
    """

    folder: str
    stage: str
    encoder: str
    random_init: bool
    seed: int
    metrics: dict[str, float]
    content: dict[str, Any]
    inputs: dict[str, Any]
    label: str | None = None
    intervals: dict[str, Interval] = dataclasses.field(default_factory=dict)
    extras: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def name(self) -> str:
        """The encoder's name in tables."""
        if self.label is not None:
            return self.label
        return self.encoder + (" (random weights)" if self.random_init else "")

    @property
    def config_hash(self) -> str:
        """The hash of the content options and inputs; see `config_hash`."""
        return config_hash(self.content, self.inputs)


STORED = (
    *("stage", "encoder", "random_init", "seed", "config_hash"),
    *("metrics", "intervals", "content", "inputs", "label"),
)


def config_hash(content: Mapping[str, Any], inputs: Mapping[str, Any]) -> str:
    """Hash what a result depends on to 12 hexadecimal digits.

    Args:
        content: the stage's content options. For one that is an input, too, such as `encoder`, only
            the input's fingerprint counts, so that the hash of a run stays when it is moved.
        inputs: fingerprints of what the stage read.
    """
    document = {"content": own_content(content, inputs), "inputs": dict(inputs)}
    return content_hash(document)[:HASH_DIGITS]


def write_scores(result: Result) -> None:
    """Write `scores.json` into the result's folder, atomically.

    `extras` stand beside the attributes, under other names.

    Raises:
        DataError: a score is no number.
        StorageError: the folder cannot be written.
    """
    _require_finite(result)
    document = {name: getattr(result, name) for name in STORED} | result.extras
    text = json.dumps(document, indent=1, allow_nan=False) + "\n"
    storage.put_bytes(storage.join(result.folder, SCORES), text.encode())


def write_stage_scores(
    record: StageRecord, metrics: Mapping[str, float], extras: Mapping[str, Any]
) -> Result:
    """Write the scores of a training stage beside its record, by the options that it records.

    Args:
        record: its configuration has `encoder`, `random_init`, `seed` and `label`.
        metrics: see `Result`.
        extras: see `Result`; `intervals` among them are the result's.

    Raises:
        StorageError: the folder cannot be written.
    """
    config, extras = record.config, dict(extras)
    intervals = extras.pop("intervals", {})
    result = Result(
        folder=storage.folder_of(record.url),
        stage=record.stage,
        encoder=config.encoder,
        random_init=config.random_init,
        seed=config.seed,
        metrics=dict(metrics),
        content={
            name: value
            for name, value in config_by_role(config)["content"].items()
            if name not in getattr(config, "idle_options", ())
        },
        inputs={**record.inputs, **(record.extent or {})},
        label=config.label,
        intervals={name: (low, high) for name, (low, high) in intervals.items()},
        extras=extras,
    )
    write_scores(result)
    return result


def require_own_scores(record: StageRecord) -> None:
    """Refuse a folder with the scores of another stage, which this one would replace.

    Args:
        record: of the stage that will write its scores beside it.

    Raises:
        MismatchError: another stage wrote the scores there.
    """
    folder = storage.folder_of(record.url)
    try:
        stage = read_scores(folder).stage
    except (MissingDataError, DataError):
        return
    if stage != record.stage:
        raise MismatchError(
            f"--out {folder} holds the {SCORES} of `{stage}`, which `{record.stage}` would "
            "replace; give another --out"
        )


def read_scores(folder: str) -> Result:
    """Read `folder/scores.json`.

    Raises:
        MissingDataError: there is none.
        DataError: it is damaged, or no stage of this version wrote it.
    """
    url = storage.join(folder, SCORES)
    data = storage.read_bytes(url)
    try:
        document = parsed(data, dict[str, Any])
        values = {name: document.pop(name) for name in STORED if name in document}
        values.pop("config_hash", None)
        result = conforming({"folder": folder, "extras": document, **values}, Result)
        _require_finite(result)
    except (DocumentError, DataError) as error:
        raise DataError(
            f"{url} holds no scores of this version ({error}); run its stage again, which writes "
            "them anew, or into another --out if it has no checkpoint"
        ) from error
    return result


def has_scores(folder: str) -> bool:
    """Tell whether a folder has scores that can be read: a copy that was cut short has not."""
    try:
        read_scores(folder)
    except (MissingDataError, DataError):
        return False
    return True


def known_metrics(folder: str) -> dict[str, dict[str, float]]:
    """Return the `metrics` of the scores in a folder, under that name; nothing if there are none.

    For a stage that finds its scores written already.
    """
    try:
        return {"metrics": read_scores(folder).metrics}
    except (MissingDataError, DataError):
        return {}


def _require_finite(result: Result) -> None:
    """Refuse scores that are no numbers, which JSON has not and no table can compare."""
    for name, value in result.metrics.items():
        if not math.isfinite(value):
            raise DataError(f"the score {name} is {value}; score on images that have labels")


def find_results(folders: Folder | Iterable[Folder]) -> list[Result]:
    """Read every `scores.json` in local folders and below them, in the order of their paths.

    A file that lies below several of the folders is read once.

    Args:
        folders: one, or several.

    Raises:
        MissingDataError: there is none below one of the folders, or no such folder.
        DataError: one is damaged.
        StorageError: a folder cannot be listed.
    """
    places: dict[Path, str] = {}
    for given in [folders] if isinstance(folders, str | os.PathLike) else folders:
        folder = os.fspath(given)
        root = storage.local_path(folder)
        names = storage.list_tree(folder) if root else []
        scores = [name for name in names if storage.basename(name) == SCORES]
        below = sorted(str(Path(root or "", name).parent) for name in scores)
        if not below:
            wrote = "give local folders that probe, finetune or segment wrote to"
            raise MissingDataError(
                f"{folder} holds no {SCORES}, nor does a folder below it; "
                f"{storage.give_enclosing(folder, SCORES) or wrote}"
            )
        for place in below:
            places.setdefault(Path(place).resolve(), place)
    return [read_scores(place) for place in places.values()]
