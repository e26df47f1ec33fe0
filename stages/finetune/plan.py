"""What `finetune` is about to do, settled before anything is trained."""

import dataclasses
import functools
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from milan_pipeline import storage
from milan_pipeline.cli.options import fields_from
from milan_pipeline.data.class_order import warn_of_class_order
from milan_pipeline.data.labelled import LabelledTable, open_labelled, require_same_classes
from milan_pipeline.data.order import OrderConfig, StepClock
from milan_pipeline.data.stream import step_clock
from milan_pipeline.encoders.backbone import Backbone
from milan_pipeline.encoders.load import fingerprint, load_backbone
from milan_pipeline.errors import ConfigError
from milan_pipeline.evaluate.classification.model import Description, make_classifier
from milan_pipeline.evaluate.classification.task import ClassificationConfig
from milan_pipeline.evaluate.classification.views import ViewConfig
from milan_pipeline.evaluate.view import default_crop_pct
from milan_pipeline.provenance.record import StageRecord
from milan_pipeline.training.checkpoints import require_recorded
from milan_pipeline.training.trainer import TrainingConfig, has_ended
from stages.shared.training import (
    order_choice,
    say_images,
    say_sizes,
    say_space,
    say_steps_to_do,
    training_precision,
    with_frozen_choices,
)

if TYPE_CHECKING:
    from stages.finetune.command import Finetune


PUBLISHED_BATCH = 1024


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """A run with nothing left open.

    Attributes:
        config: what was left to the data, the machine or an earlier run is filled in.
        backbone: what it begins from.
        learnt: the labelled images to learn from.
        val: those to score on.
        order: of what is learnt from.
        record: `config.json`.
    """

    config: "Finetune"
    backbone: Backbone
    learnt: LabelledTable
    val: LabelledTable
    order: OrderConfig
    record: StageRecord

    @functools.cached_property
    def built(self) -> tuple[nn.Module, Description]:
        """The classifier, with the weights that the run begins from, and what is told of it."""
        config = self.config
        model, arguments = make_classifier(
            self.backbone,
            classes=self.learnt.class_count,
            pool=config.pool,
            drop_path=config.drop_path,
            seed=config.seed,
        )
        size = int(arguments["img_size"])
        crop_pct = default_crop_pct(size) if config.crop_pct is None else config.crop_pct
        return model, Description(
            arguments=arguments,
            mean=tuple(self.backbone.mean),
            std=tuple(self.backbone.std),
            crop_pct=crop_pct,
            classes=self.learnt.classes,
        )

    @property
    def clock(self) -> StepClock:
        """Which epoch a step is of."""
        return step_clock(self.learnt, self.order)

    @functools.cached_property
    def training(self) -> TrainingConfig:
        """What the loop needs to know; most options are its fields' namesakes."""
        total = self.clock.total(self.config.epochs)
        steps = min(total, self.config.max_steps or total)
        return fields_from(
            TrainingConfig,
            self.config,
            batch=self.order.batch,
            total_steps=steps,
            title="finetune",
        )

    @property
    def recipe(self) -> ClassificationConfig:
        """What is learnt, and how."""
        _, description = self.built
        return fields_from(
            ClassificationConfig,
            self.config,
            batch=self.order.batch,
            bf16=self.config.precision == "bf16",
            mean=description.mean,
            std=description.std,
        )

    @property
    def views(self) -> ViewConfig:
        """What the classifier is shown to learn from."""
        _, description = self.built
        return ViewConfig(
            image_size=description.image_size,
            mean=description.mean,
            augment=self.config.augment,
            min_scale=self.config.min_scale,
            crop_pct=description.crop_pct,
            seed=self.config.seed,
        )

    @property
    def is_done(self) -> bool:
        """Whether an earlier run into this folder did all of it.

        Raises:
            MismatchError: it was another run.
        """
        return has_ended(self.record, self.config.folder, self.training.total_steps)

    def warn(self) -> None:
        """Say so where batches would have few classes."""
        warn_of_class_order(self.learnt, self.order, str(self.config.train))

    def describe(self) -> None:
        """Say how long the run is and what it will read and write."""
        _ = self.is_done  # to refuse what the run would refuse
        model, _ = self.built
        parameters = sum(parameter.numel() for parameter in model.parameters())
        say_steps_to_do(self.config.folder, self.training.total_steps)
        classes = self.learnt.class_count
        say_images(self.learnt.samples, self.val.samples, classes)
        say_sizes(self.order.batch, self.order.lanes, parameters)
        # float32: weights and AdamW's two moments; with a moving average, each one's average too.
        copies = 12 if self.config.ema_decay is None else 16
        checkpoints = copies * parameters * (self.config.keep + 1)
        say_space(self.config.out, checkpoints=checkpoints, classifiers=8 * parameters)
        self.warn()


def plan(config: "Finetune", device: torch.device, *, remember: bool = False) -> Plan:
    """Open encoder and images and settle what is open; nothing is trained yet.

    Args:
        config: the options.
        device: of this process.
        remember: what was found in shards, in the run folder, for later parts of the run.

    Raises:
        ConfigError: options do not fit each other, the encoder or the data.
        DataError: images have no labels.
        MissingDataError, MismatchError: there is no such encoder, or it is not done; or `--out`
            is of another run, or has checkpoints of no known one.
    """
    require_recorded(config.folder)
    config = with_frozen_choices(config, "batch_size", "lanes", "precision")
    learnt, val = open_tables(config, scans=scans_of(config) if remember else None)
    order = order_choice(config).settled(learnt.samples, PUBLISHED_BATCH)
    backbone = load_backbone(
        config.encoder,
        image_size=config.image_size,
        random_init=config.random_init,
        seed=config.seed,
        allow_unfinished=config.allow_unfinished,
    )
    settled = dataclasses.replace(
        config,
        batch_size=order.batch,
        lanes=order.lanes,
        precision=training_precision(config.precision, device),
        warmup_epochs=config.warmup,
        image_size=backbone.image_size,
    )
    inputs = {
        "encoder": fingerprint(config.encoder, random_init=config.random_init),
        "train": learnt.source,
        "val": val.source,
    }
    record = StageRecord(
        url=storage.join(config.out, "config.json"), stage="finetune", config=settled, inputs=inputs
    )
    return Plan(
        config=settled, backbone=backbone, learnt=learnt, val=val, order=order, record=record
    )


def scans_of(config: "Finetune") -> Path:
    """Return where a run remembers the labels of shards."""
    return config.folder / "labels"


def open_tables(config: "Finetune", *, scans: Path | None) -> tuple[LabelledTable, LabelledTable]:
    """Open what is learnt from and what is scored on.

    Raises:
        ConfigError: there are no such images, or their classes do not fit each other.
        DataError: images have no labels.
    """
    whole = open_labelled(str(config.train), kind="class", scans=scans)
    val = open_labelled(config.val, kind="class", scans=scans)
    require_same_classes(whole, val, f"--train {config.train}", f"--val {config.val}")
    require_known_classes(val, whole.class_count, config.val)
    learnt = whole.subset(config.label_fraction, config.seed)
    return learnt.shuffled(config.seed), val


def require_known_classes(val: LabelledTable, classes: int, place: str) -> None:
    """Refuse images of a class that the classifier has no output for.

    Raises:
        ConfigError: there are some.
    """
    if val.class_count > classes:
        raise ConfigError(
            f"--val {place} has class {val.class_count - 1}, but the classifier knows classes 0 to "
            f"{classes - 1}; give images of its classes"
        )
