"""`finetune --eval-only`: score a classifier that an earlier run has made."""

import dataclasses
import functools
from typing import Any

import numpy as np
import torch
from torch import nn

from milan_pipeline.cluster.world import World
from milan_pipeline.core.console import warn
from milan_pipeline.data.class_names import require_same_names
from milan_pipeline.data.labelled import LabelledTable
from milan_pipeline.encoders.load import fingerprint
from milan_pipeline.errors import ConfigError
from milan_pipeline.evaluate.class_coverage import warnings_of_classes
from milan_pipeline.evaluate.classification.model import ClassifierDescription, read_classifier
from milan_pipeline.evaluate.classification.scoring import (
    ClassificationEvaluator,
    EvaluationConfig,
)
from milan_pipeline.stages.finetune.check import classes_of
from milan_pipeline.stages.finetune.command import Finetune
from milan_pipeline.stages.finetune.plan import require_known_classes
from milan_pipeline.stages.shared.labelled import EvaluationPlan, evaluate_as_planned
from milan_pipeline.stages.shared.labelled_tables import open_scored
from milan_pipeline.stages.shared.training import (
    ledger_of,
    stage_record,
    training_precision,
    with_frozen_choices,
)
from milan_pipeline.stages.shared.training_options import Process


def plan_evaluation(
    config: Finetune, device: torch.device, *, world: World | None = None
) -> EvaluationPlan[Finetune]:
    """Open a classifier and the images.

    Args:
        config: the options.
        device: to score on.
        world: see `labelled.open_tables`.

    Raises:
        ConfigError: the images are not of its classes, or it takes others than `--image-size`.
        MissingDataError, DataError: there is no such classifier, or no labelled images.
        MismatchError: the classifier's weights do not fit its description.
    """
    config = with_frozen_choices("finetune", config, "precision")
    precision = training_precision(config.precision, device)
    config = dataclasses.replace(config, precision=precision)
    model, description = read_classifier(config.encoder)
    if config.image_size not in (None, description.image_size):
        raise ConfigError(
            f"--image-size {config.image_size} is not that of --encoder {config.encoder}, "
            f"{description.image_size}; leave it out"
        )
    if config.crop_pct is not None:
        description = dataclasses.replace(description, crop_pct=config.crop_pct)
    val = open_scored(config, kind="class", world=world)
    require_same_names(
        description.classes,
        val.classes,
        train_place=f"--encoder {config.encoder}",
        test_place=f"--val {config.val}",
    )
    require_known_classes(val, description.arguments["num_classes"], config.val)
    encoder = fingerprint(config.encoder)
    return EvaluationPlan(
        config=config,
        model=model,
        val=val,
        class_names=val.classes,
        record=stage_record("finetune", config, encoder=encoder, val=val.source),
        evaluator=functools.partial(evaluator_of, config, model, description, val),
    )


def evaluate_only(config: Finetune, process: Process) -> None:
    """Score a classifier, together with the other processes."""
    planned = plan_evaluation(config, process.device, world=process.world)
    if process.world.leads:
        _warn_of_unscored(planned)
    evaluate_as_planned(planned, process)


def _warn_of_unscored(planned: EvaluationPlan[Finetune]) -> None:
    """Say so where there are no images of some classes that the classifier knows."""
    model: Any = planned.model
    known = np.arange(int(model.num_classes))
    places = (f"--encoder {planned.config.encoder}", f"--val {planned.config.val}")
    names = planned.val.classes
    for text in warnings_of_classes(
        known, classes_of(planned.val), what="image", places=places, names=names
    ):
        warn(text)


def evaluator_of(
    config: Finetune, model: nn.Module, description: ClassifierDescription, val: LabelledTable
) -> ClassificationEvaluator:
    """Return what scores a classifier, with the resources that training may take."""
    ledger, bf16 = ledger_of(config, "val", val.samples), config.precision == "bf16"
    threads = max(1, config.loaders)
    how = EvaluationConfig(batch=config.micro_batch, threads=threads, bf16=bf16)
    return ClassificationEvaluator(model, description, val, ledger, how)
