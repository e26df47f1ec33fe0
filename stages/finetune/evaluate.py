"""`finetune --eval-only`: score a classifier that an earlier run has made."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from milan_pipeline import storage
from milan_pipeline.cluster.world import World
from milan_pipeline.core.console import say, say_nothing_to_do
from milan_pipeline.core.interrupts import StopRequest
from milan_pipeline.data.labelled import LabelledTable, open_labelled, require_same_classes
from milan_pipeline.encoders.load import fingerprint
from milan_pipeline.evaluate.classification.model import (
    Description,
    read_classifier,
    read_description,
)
from milan_pipeline.evaluate.classification.scoring import Examiner
from milan_pipeline.evaluate.results import write_stage_scores
from milan_pipeline.models.layers import suit_cpu
from milan_pipeline.provenance.record import StageRecord
from milan_pipeline.training.run_folder import run_lock
from milan_pipeline.training.state import CONFIG_NAME
from stages.finetune.plan import require_known_classes, scans_of
from stages.finetune.run import exam_config, table_of
from stages.shared.training import ledger_of, training_precision, with_frozen_choices

if TYPE_CHECKING:
    from stages.finetune.command import Finetune


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationPlan:
    """An evaluation with nothing left open.

    Attributes:
        config: what was left to the machine is filled in.
        description: of the classifier.
        val: the images to score on.
        record: `config.json`.
    """

    config: "Finetune"
    description: Description
    val: LabelledTable
    record: StageRecord


def plan_evaluation(config: "Finetune", *, scans: Path | None = None) -> EvaluationPlan:
    """Open a classifier's description and the images.

    Args:
        config: the options.
        scans: see `labelled.open_labelled`.

    Raises:
        ConfigError: the images are not of its classes.
        MissingDataError, DataError: there is no such classifier, or no labelled images.
    """
    description = read_description(config.encoder)
    if config.crop_pct is not None:
        description = dataclasses.replace(description, crop_pct=config.crop_pct)
    val = open_labelled(config.val, kind="class", scans=scans)
    known = dataclasses.replace(val, classes=description.classes)
    require_same_classes(known, val, f"--encoder {config.encoder}", f"--val {config.val}")
    require_known_classes(val, description.arguments["num_classes"], config.val)
    record = StageRecord(
        url=storage.join(config.out, CONFIG_NAME),
        stage="finetune",
        config=config,
        inputs={"encoder": fingerprint(config.encoder), "val": val.source},
    )
    return EvaluationPlan(config=config, description=description, val=val, record=record)


def evaluate_only(
    config: "Finetune",
    device: torch.device,
    world: World,
    stop: StopRequest,
    prepared: Callable[[], None],
) -> None:
    """Score a classifier, together with the other processes; arguments are those of `train`."""
    config = with_frozen_choices(config, "precision")
    precision = training_precision(config.precision, device)
    config = dataclasses.replace(config, precision=precision)
    planned = plan_evaluation(config, scans=scans_of(config))
    if planned.record.previous_state() == "done":
        if world.leads:
            say_nothing_to_do(config.out, "the scores are there")
        return
    model, bf16 = read_classifier(config.encoder)[0].to(device), precision == "bf16"
    suit_cpu(model, bf16=bf16)
    ledger, how = ledger_of(config, "val", planned.val.samples), exam_config(config, bf16=bf16)
    examiner = Examiner(model, planned.description, planned.val, ledger, how)
    world.wait_for_all()  # until all have read what an earlier run left
    prepared()
    stop.raise_if_asked("no scores were written")
    scores = examiner.score(world)
    if not world.leads:
        return
    with run_lock(config.folder):
        planned.record.begin()
        extras = {"val": planned.val.samples, "unreadable": {"val": ledger.count}}
        found = write_stage_scores(planned.record, scores.per_cent(), extras)
        planned.record.finish(scores._asdict() | {"unreadable": ledger.count})
    say(table_of(found), out=config.out, metrics=found.metrics)
