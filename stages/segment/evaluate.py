"""`segment --eval-only`: score a segmenter that an earlier run has made."""

import dataclasses
import functools

import torch

from milan_pipeline.cluster.world import World
from milan_pipeline.core.console import warn
from milan_pipeline.data.labelled import LabelledTable
from milan_pipeline.encoders.load import fingerprint
from milan_pipeline.errors import ConfigError
from milan_pipeline.evaluate.segmentation.files import (
    SegmenterDescription,
    read_segmenter,
    read_segmenter_description,
)
from milan_pipeline.evaluate.segmentation.model import Segmenter
from milan_pipeline.evaluate.segmentation.scoring import SegmentationEvaluator
from milan_pipeline.stages.segment.card import card_of_segmenter
from milan_pipeline.stages.segment.check import check_scored
from milan_pipeline.stages.segment.choices import (
    class_names,
    evaluation_config,
    labels_of,
    settled,
    warn_of_idle_options,
)
from milan_pipeline.stages.segment.command import Segment
from milan_pipeline.stages.shared.labelled import EvaluationPlan, evaluate_as_planned
from milan_pipeline.stages.shared.labelled_tables import open_scored
from milan_pipeline.stages.shared.training import ledger_of, stage_record, with_frozen_choices
from milan_pipeline.stages.shared.training_options import Process


def plan_evaluation(
    config: Segment, device: torch.device, *, world: World | None = None
) -> EvaluationPlan[Segment]:
    """Open a segmenter, images and masks.

    Args:
        config: the options; the segmenter itself says how many classes it knows.
        device: to score on.
        world: see `labelled.open_tables`.

    Raises:
        ConfigError: the segmenter tells another number of classes apart.
        MissingDataError, DataError, MismatchError: there is no such segmenter, or no masks.
    """
    model, description = read_segmenter(config.encoder)
    if config.classes not in (None, description.spec.classes):
        raise ConfigError(
            f"--classes {config.classes} is not what --encoder {config.encoder} tells apart, "
            f"{description.spec.classes}; leave it out"
        )
    config = with_frozen_choices("segment", config, "precision")
    config = settled(config, device, image_size=description.image_size)
    config = dataclasses.replace(config, **dataclasses.asdict(description.spec))
    names = class_names(config) or description.classes
    val = open_scored(config, kind="mask", world=world)
    encoder = fingerprint(config.encoder)
    return EvaluationPlan(
        config=config,
        model=model,
        val=val,
        class_names=names,
        record=stage_record("segment", config, encoder=encoder, val=val.source),
        evaluator=functools.partial(evaluator_of, config, model, description, val),
        card=card_of_segmenter(
            config, description.spec, evaluation_config(config, model, description).inference
        ),
    )


def evaluate_only(config: Segment, process: Process) -> None:
    """Score a segmenter, together with the other processes."""
    planned = plan_evaluation(config, process.device, world=process.world)
    if process.world.leads:
        warn_of_other_masks(config)
        warn_of_idle_options(planned.config)
    if planned.record.previous_state() != "done":
        check_scored(planned.config, planned.val, process.world)
    evaluate_as_planned(planned, process)


def warn_of_other_masks(config: Segment) -> None:
    """Say so where 0 means something else than in the masks that a segmenter was trained on."""
    trained = read_segmenter_description(config.encoder).reduce_zero_label
    if trained not in (None, config.reduce_zero_label):
        given = "with" if trained else "without"
        warn(
            f"--encoder {config.encoder} was trained {given} --reduce-zero-label, so that the "
            "numbers in these masks would mean other classes; score it alike, unless these masks "
            "are numbered otherwise"
        )


def evaluator_of(
    config: Segment, model: Segmenter, description: SegmenterDescription, val: LabelledTable
) -> SegmentationEvaluator:
    """Return what scores a segmenter; the options are settled."""
    ledger = ledger_of(config, "val", val.samples)
    how = evaluation_config(config, model, description)
    return SegmentationEvaluator(model, val, ledger, labels_of(config), how)
