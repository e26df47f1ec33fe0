"""What `segment` is about to do, settled before anything is trained."""

import dataclasses
import functools
from typing import TYPE_CHECKING

import torch

from milan_pipeline import storage
from milan_pipeline.cli.options import fields_from
from milan_pipeline.data.labelled import LabelledTable, open_labelled
from milan_pipeline.data.order import OrderConfig, StepClock
from milan_pipeline.data.stream import step_clock
from milan_pipeline.encoders.backbone import Backbone
from milan_pipeline.encoders.load import fingerprint, load_backbone
from milan_pipeline.errors import ConfigError
from milan_pipeline.evaluate.segmentation.files import SegmenterDescription
from milan_pipeline.evaluate.segmentation.model import HeadSpec, Segmenter, make_segmenter
from milan_pipeline.evaluate.segmentation.task import PUBLISHED_BATCH, SegmentationConfig
from milan_pipeline.evaluate.segmentation.views import MaskedViewConfig
from milan_pipeline.provenance.record import StageRecord
from milan_pipeline.training.checkpoints import require_recorded
from milan_pipeline.training.trainer import TrainingConfig, has_ended
from stages.segment.choices import labels_of, scale_rule, scans_of, settled
from stages.shared.training import (
    order_choice,
    say_images,
    say_sizes,
    say_space,
    say_steps_to_do,
    with_frozen_choices,
)

if TYPE_CHECKING:
    from stages.segment.command import Segment


STEPS, WARMUP_STEPS = 160_000, 1500


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """A run with nothing left open.

    Attributes:
        config: what was left to the data, the machine or an earlier run is filled in.
        backbone: what it begins from.
        learnt: the images and masks to learn from.
        val: those to score on.
        order: of what is learnt from.
        record: `config.json`.
    """

    config: "Segment"
    backbone: Backbone
    learnt: LabelledTable
    val: LabelledTable
    order: OrderConfig
    record: StageRecord

    @functools.cached_property
    def built(self) -> tuple[Segmenter, SegmenterDescription]:
        """The segmenter, with the weights that the run begins from, and what is told of it."""
        config, backbone = self.config, self.backbone
        spec = fields_from(HeadSpec, config)
        model = make_segmenter(
            backbone.arguments,
            spec,
            state=backbone.model.state_dict(),
            drop_path=config.drop_path or 0.0,
            freeze=config.freeze,
            seed=config.seed,
        )
        description = SegmenterDescription(
            arguments=backbone.arguments,
            mean=tuple(backbone.mean),
            std=tuple(backbone.std),
            spec=spec,
        )
        return model, description

    @property
    def clock(self) -> StepClock:
        """Which epoch a step is of."""
        return step_clock(self.learnt, self.order)

    @property
    def schedule_steps(self) -> int:
        """Length of the schedule."""
        config = self.config
        return self.clock.total(config.epochs) if config.epochs else config.steps or STEPS

    @functools.cached_property
    def training(self) -> TrainingConfig:
        """What the loop needs to know; most options are its fields' namesakes."""
        steps = min(self.schedule_steps, self.config.max_steps or self.schedule_steps)
        return fields_from(
            TrainingConfig,
            self.config,
            batch=self.order.batch,
            total_steps=steps,
            title="segment",
        )

    @property
    def recipe(self) -> SegmentationConfig:
        """What is learnt, and how.

        Raises:
            ConfigError: the warm-up is as long as the schedule.
        """
        total, warmup, clock = self.schedule_steps, self.config.warmup_steps, self.clock
        if warmup is None:
            warmup = min(WARMUP_STEPS, total // 10)
        if warmup >= total:
            raise ConfigError(
                f"--warmup-steps {warmup} is not below the {total} steps of the schedule; give less"
            )
        return fields_from(
            SegmentationConfig,
            self.config,
            batch=self.order.batch,
            epochs=clock.fractional_epoch(total),
            warmup_epochs=clock.fractional_epoch(warmup),
            bf16=self.config.precision == "bf16",
            mean=tuple(self.backbone.mean),
            std=tuple(self.backbone.std),
        )

    @property
    def views(self) -> MaskedViewConfig:
        """What is shown to learn from."""
        return fields_from(
            MaskedViewConfig,
            self.config,
            scale=scale_rule(self.config),
            mean=tuple(self.backbone.mean),
        )

    @property
    def is_done(self) -> bool:
        """Whether an earlier run into this folder did all of it.

        Raises:
            MismatchError: it was another run.
        """
        return has_ended(self.record, self.config.folder, self.training.total_steps)

    def require_pairs(self, processes: int, device: torch.device) -> None:
        """Refuse to train on single images, which BatchNorm has no statistics of.

        Raises:
            ConfigError: a norm would see one image.
        """
        if norms_are_shared(processes, device):
            return
        own, most = self.order.batch // processes, self.config.micro_batch
        if most == 1 or own % most == 1 or own == 1:
            raise ConfigError(
                f"--batch-size {self.order.batch} in {processes} processes with --micro-batch "
                f"{most} leaves a forward pass one image, which BatchNorm cannot norm; give others"
            )

    def describe(self) -> None:
        """Say how long the run is and what it will read and write."""
        _ = self.is_done, self.recipe  # to refuse what the run would refuse
        model, _ = self.built
        parameters = sum(parameter.numel() for parameter in model.parameters())
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        say_steps_to_do(self.config.folder, self.training.total_steps)
        say_images(self.learnt.samples, self.val.samples, self.config.classes)
        say_sizes(self.order.batch, self.order.lanes, parameters, trained=trained)
        # float32: all weights, and of those that are trained AdamW's two moments and, with a moving
        # average, one copy of all.
        copies = 1 if self.config.ema_decay is None else 2
        checkpoint = 4 * (copies * parameters + 2 * trained)
        checkpoints = checkpoint * (self.config.keep + 1)
        say_space(self.config.out, checkpoints=checkpoints, segmenters=8 * parameters)


def norms_are_shared(processes: int, device: torch.device) -> bool:
    """Tell whether BatchNorm takes its statistics of all processes' images together."""
    return device.type == "cuda" and processes > 1


def plan(config: "Segment", device: torch.device, *, remember: bool = False) -> Plan:
    """Open encoder, images and masks and settle what is open; nothing is trained yet.

    Args:
        config: the options.
        device: of this process.
        remember: what was found in shards, in the run folder, for later parts of the run.

    Raises:
        ConfigError: options do not fit each other, the encoder or the data.
        DataError: images have no masks.
        MissingDataError, MismatchError: there is no such encoder, or it is not done; or `--out`
            is of another run, or has checkpoints of no known one.
    """
    require_recorded(config.folder)
    config = settled(with_frozen_choices(config, "batch_size", "lanes", "precision"), device)
    labels_of(config)  # or say what is wrong with --classes
    scans = scans_of(config) if remember else None
    whole = open_labelled(str(config.train), kind="mask", scans=scans)
    learnt = whole.subset(config.label_fraction, config.seed)
    learnt = learnt.shuffled(config.seed)
    val = open_labelled(config.val, kind="mask", scans=scans)
    order = order_choice(config).settled(learnt.samples, PUBLISHED_BATCH)
    backbone = load_backbone(
        config.encoder,
        image_size=config.image_size,
        random_init=config.random_init,
        seed=config.seed,
        allow_unfinished=config.allow_unfinished,
    )
    config = dataclasses.replace(config, batch_size=order.batch, lanes=order.lanes)
    inputs = {
        "encoder": fingerprint(config.encoder, random_init=config.random_init),
        "train": learnt.source,
        "val": val.source,
    }
    record = StageRecord(
        url=storage.join(config.out, "config.json"), stage="segment", config=config, inputs=inputs
    )
    return Plan(
        config=config, backbone=backbone, learnt=learnt, val=val, order=order, record=record
    )
