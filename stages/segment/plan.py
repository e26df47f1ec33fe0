"""What `segment` is about to do, settled before anything is trained."""

import dataclasses
import functools
from typing import Any

import torch
from torch import nn

from milan_pipeline.cli.options import fields_from
from milan_pipeline.cluster.world import World
from milan_pipeline.errors import ConfigError
from milan_pipeline.evaluate.segmentation.files import SegmenterDescription
from milan_pipeline.evaluate.segmentation.model import HeadSpec, Segmenter, make_segmenter
from milan_pipeline.evaluate.segmentation.scoring import SegmentationEvaluator
from milan_pipeline.evaluate.segmentation.task import PUBLISHED_BATCH, SegmentationConfig
from milan_pipeline.evaluate.segmentation.views import MaskedViewConfig
from milan_pipeline.stages.segment.card import card_of_segmenter
from milan_pipeline.stages.segment.check import check_masks
from milan_pipeline.stages.segment.choices import (
    class_names,
    evaluation_config,
    labels_of,
    scale_rule,
    settled,
    warn_of_idle_options,
)
from milan_pipeline.stages.segment.command import Segment
from milan_pipeline.stages.shared.checking import (
    tell_of_random_weights,
    warn_of_copies,
    warn_of_equal_sets,
)
from milan_pipeline.stages.shared.labelled import LabelledPlan, settled_parts
from milan_pipeline.stages.shared.labelled_tables import open_tables
from milan_pipeline.stages.shared.training import with_frozen_choices
from milan_pipeline.stages.shared.training_notes import warn_of_rising_rate
from milan_pipeline.training.checkpoints import require_recorded

STEPS, WARMUP_STEPS = 160_000, 1500


@dataclasses.dataclass(frozen=True, kw_only=True)
class SegmentPlan(LabelledPlan[Segment]):
    """A run with nothing left open.

    Attributes:
        names: of the classes, as they were when the run was planned.
    """

    last, key = "segmenter", SegmentationEvaluator.key

    @functools.cached_property
    def built(self) -> tuple[Segmenter, SegmenterDescription]:
        """The segmenter, with the weights that the run begins from, and its description."""
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
            reduce_zero_label=config.reduce_zero_label,
            classes=self.class_names,
        )
        return model, description

    names: tuple[str, ...]

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes; none where nobody gave them."""
        return self.names

    @property
    def schedule_steps(self) -> int:
        """Length of the schedule."""
        config = self.config
        return self.clock.total(config.epochs) if config.epochs else config.steps or STEPS

    @property
    def warmup_steps(self) -> int:
        """Steps in which the rate rises."""
        given = self.config.warmup_steps
        return min(WARMUP_STEPS, self.schedule_steps // 10) if given is None else given

    @property
    def card(self) -> dict[str, Any]:
        """See `LabelledPlan.card`."""
        model, description = self.built
        inference = evaluation_config(self.config, model, description).inference
        steps, warmup = self.training.total_steps, self.warmup_steps
        return card_of_segmenter(
            self.config, description.spec, inference, steps=steps, warmup_steps=warmup
        )

    @property
    def recipe(self) -> SegmentationConfig:
        """The recipe, and how it is computed.

        Raises:
            ConfigError: the warm-up is as long as the schedule.
        """
        total, warmup, clock = self.schedule_steps, self.warmup_steps, self.clock
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
        """How training images are cut and changed."""
        return fields_from(
            MaskedViewConfig,
            self.config,
            scale=scale_rule(self.config),
            mean=tuple(self.backbone.mean),
        )

    def warn(self) -> None:
        """Say what is odd about the images."""
        tell_of_random_weights(self.config.encoder, random_init=self.config.random_init)
        warn_of_equal_sets(self.train, self.val)
        config = self.config
        warn_of_rising_rate(config.base_lr or 0.0, config.min_lr, self.order.batch, PUBLISHED_BATCH)
        warn_of_idle_options(config)

    def check(self, world: World) -> None:
        """Look at what would end the run later; see `check.check_masks`."""
        if world.leads:
            warn_of_copies(self.train, self.val)
        check_masks(self.config, self.train, self.val, world, names=self.class_names)

    def require_pairs(self, processes: int, device: torch.device) -> None:
        """Refuse to train on single images, which BatchNorm has no statistics of.

        Raises:
            ConfigError: a norm would see one image.
        """
        if norms_are_shared(processes, device):
            return
        own, most = self.order.batch // processes, self.config.micro_batch
        if self.train.samples == 1:
            raise ConfigError(
                f"--train {self.config.train} has one image, and BatchNorm needs two in a batch; "
                "give more"
            )
        if most == 1 or own % most == 1 or own == 1:
            raise ConfigError(
                f"--batch-size {self.order.batch} in {processes} processes with --micro-batch "
                f"{most} leaves a forward pass one image, which BatchNorm cannot norm; give others"
            )

    def describe(self, model: nn.Module, processes: int) -> None:
        """See `TrainingPlan.describe`."""
        _ = self.recipe  # to refuse what the run would refuse
        super().describe(model, processes)

    def exported_bytes(self, model: nn.Module) -> dict[str, int]:
        """Return the size of the last and the best segmenter; see `LabelledPlan.exports`."""
        parameters = sum(parameter.numel() for parameter in model.parameters())
        return {"segmenters": 4 * len(self.exports) * parameters}


def norms_are_shared(processes: int, device: torch.device) -> bool:
    """Tell whether BatchNorm takes its statistics of all processes' images together."""
    return device.type == "cuda" and processes > 1


def plan(config: Segment, device: torch.device, *, world: World | None = None) -> SegmentPlan:
    """Open encoder, images and masks and settle what is open; nothing is trained yet.

    Args:
        config: the options.
        device: of this process.
        world: the processes of the run; None only plans, and writes nothing.

    Raises:
        ConfigError: options do not fit each other, the encoder or the data.
        DataError: images have no masks.
        MissingDataError, MismatchError: there is no such encoder, or it is not done; or `--out`
            is of another run, or has checkpoints of no known one.
    """
    require_recorded(config.folder)
    config = settled(
        with_frozen_choices("segment", config, "batch_size", "lanes", "precision"), device
    )
    labels_of(config)  # or say what is wrong with --classes
    names = class_names(config)
    tables = open_tables(config, kind="mask", world=world)
    size = config.image_size
    parts = settled_parts("segment", config, tables, PUBLISHED_BATCH, size)
    return SegmentPlan(**parts, names=names)
