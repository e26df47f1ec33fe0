"""`segment --eval-only`: score a segmenter that an earlier run has made."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from milan_pipeline import storage
from milan_pipeline.cluster.world import World
from milan_pipeline.core.console import say, say_nothing_to_do
from milan_pipeline.core.interrupts import StopRequest
from milan_pipeline.data.labelled import LabelledTable, open_labelled
from milan_pipeline.encoders.load import fingerprint
from milan_pipeline.evaluate.results import write_stage_scores
from milan_pipeline.evaluate.segmentation.files import SegmenterDescription, read_segmenter
from milan_pipeline.evaluate.segmentation.model import Segmenter
from milan_pipeline.evaluate.segmentation.scoring import SegmentationExaminer
from milan_pipeline.models.layers import suit_cpu
from milan_pipeline.provenance.record import StageRecord
from milan_pipeline.training.run_folder import run_lock
from milan_pipeline.training.state import CONFIG_NAME
from stages.segment.choices import labels_of, scans_of, settled
from stages.segment.run import PICTURE, exam_config, table_of
from stages.shared.training import ledger_of, with_frozen_choices

if TYPE_CHECKING:
    from stages.segment.command import Segment


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationPlan:
    """An evaluation with nothing left open.

    Attributes:
        config: what was left to the machine or the segmenter is filled in.
        model: the segmenter.
        description: of it.
        val: the images and masks to score on.
        record: `config.json`.
    """

    config: "Segment"
    model: Segmenter
    description: SegmenterDescription
    val: LabelledTable
    record: StageRecord


def plan_evaluation(
    config: "Segment", device: torch.device, *, scans: Path | None = None
) -> EvaluationPlan:
    """Open a segmenter, images and masks.

    Args:
        config: the options; the segmenter itself says how many classes it knows.
        device: to score on.
        scans: see `labelled.open_labelled`.

    Raises:
        MissingDataError, DataError, MismatchError: there is no such segmenter, or no masks.
    """
    model, description = read_segmenter(config.encoder)
    config = with_frozen_choices(config, "precision")
    config = settled(config, device, image_size=description.image_size)
    config = dataclasses.replace(config, **dataclasses.asdict(description.spec))
    val = open_labelled(config.val, kind="mask", scans=scans)
    record = StageRecord(
        url=storage.join(config.out, CONFIG_NAME),
        stage="segment",
        config=config,
        inputs={"encoder": fingerprint(config.encoder), "val": val.source},
    )
    return EvaluationPlan(
        config=config, model=model, description=description, val=val, record=record
    )


def describe_evaluation(config: "Segment", device: torch.device) -> None:
    """Say how many images there are to score."""
    images = plan_evaluation(config, device).val.samples
    say(f"images to score: {images}", images_to_score=images)


def evaluate_only(
    config: "Segment",
    device: torch.device,
    world: World,
    stop: StopRequest,
    prepared: Callable[[], None],
) -> None:
    """Score a segmenter, together with the other processes; arguments are those of `train`."""
    planned = plan_evaluation(config, device, scans=scans_of(config))
    config = planned.config
    if planned.record.previous_state() == "done":
        if world.leads:
            say_nothing_to_do(config.out, "the scores are there")
        return
    model = planned.model.to(device)
    suit_cpu(model, bf16=config.precision == "bf16")
    how = exam_config(config, model, planned.description)
    ledger = ledger_of(config, "val", planned.val.samples)
    examiner = SegmentationExaminer(model, planned.val, ledger, labels_of(config), how)
    world.wait_for_all()  # until all have read what an earlier run left
    prepared()
    stop.raise_if_asked("no scores were written")
    scores = examiner.score(world)
    if not world.leads:
        return
    with run_lock(config.folder):
        planned.record.begin()
        storage.put_bytes(storage.join(config.out, PICTURE), examiner.draw())
        extras = {"val": planned.val.samples, "unreadable": {"val": ledger.count}}
        found = write_stage_scores(planned.record, scores.per_cent(), extras)
        planned.record.finish({"images": scores.images, "unreadable": ledger.count})
    say(table_of(found), out=config.out, metrics=found.metrics)
