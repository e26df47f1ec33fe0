"""What `finetune` is about to do, settled before anything is trained."""

import dataclasses
import functools
import math

import torch
from torch import nn

from milan_pipeline.cli.options import fields_from
from milan_pipeline.cluster.world import World
from milan_pipeline.core.console import warn
from milan_pipeline.data.class_names import require_same_names
from milan_pipeline.data.class_order import warn_of_class_order
from milan_pipeline.data.labelled import LabelledTable
from milan_pipeline.errors import ConfigError
from milan_pipeline.evaluate.classification.model import ClassifierDescription, make_classifier
from milan_pipeline.evaluate.classification.scoring import ClassificationEvaluator
from milan_pipeline.evaluate.classification.task import ClassificationConfig
from milan_pipeline.evaluate.classification.views import TrainingViews, ViewConfig
from milan_pipeline.evaluate.evaluation_view import default_crop_pct
from milan_pipeline.stages.finetune.check import (
    class_warnings,
    rate_warning,
    require_classes,
    require_images,
)
from milan_pipeline.stages.finetune.command import Finetune
from milan_pipeline.stages.shared.checking import (
    tell_of_random_weights,
    warn_of_copies,
    warn_of_equal_sets,
)
from milan_pipeline.stages.shared.labelled import LabelledPlan, settled_parts
from milan_pipeline.stages.shared.labelled_tables import open_tables
from milan_pipeline.stages.shared.training import training_precision, with_frozen_choices
from milan_pipeline.stages.shared.training_notes import warn_of_rising_rate
from milan_pipeline.training.checkpoints import require_recorded
from milan_pipeline.training.optim import BASE_BATCH

PUBLISHED_BATCH = 1024


@dataclasses.dataclass(frozen=True, kw_only=True)
class FinetunePlan(LabelledPlan[Finetune]):
    """A run with nothing left open."""

    last, key = "finetuned", ClassificationEvaluator.key

    @functools.cached_property
    def built(self) -> tuple[nn.Module, ClassifierDescription]:
        """The classifier, with the weights that the run begins from, and its description."""
        config = self.config
        model, arguments = make_classifier(
            self.backbone,
            classes=self.train.class_count,
            pool=config.pool,
            drop_path=config.drop_path,
            seed=config.seed,
        )
        size = int(arguments["img_size"])
        crop_pct = default_crop_pct(size) if config.crop_pct is None else config.crop_pct
        return model, ClassifierDescription(
            arguments=arguments,
            mean=tuple(self.backbone.mean),
            std=tuple(self.backbone.std),
            crop_pct=crop_pct,
            classes=self.train.classes,
        )

    @functools.cached_property
    def stretch(self) -> int:
        """Factor of all epochs of the schedule, so that it has `--least-steps`."""
        least, steps = self.config.least_steps or 0, self.clock.total(self.config.epochs)
        return max(1, math.ceil(least / max(1, steps)))

    @property
    def schedule_steps(self) -> int:
        """Length of the schedule."""
        return self.clock.total(self.config.epochs * self.stretch)

    def is_due(self, step: int) -> bool:
        """Whether the model is scored after a step."""
        epoch, within = self.clock.locate(step)
        return within == 0 and epoch % (self.config.eval_every * self.stretch) == 0

    @property
    def recipe(self) -> ClassificationConfig:
        """The recipe, and how it is computed."""
        _, description = self.built
        return fields_from(
            ClassificationConfig,
            self.config,
            batch=self.order.batch,
            epochs=self.config.epochs * self.stretch,
            warmup_epochs=self.config.warmup * self.stretch,
            bf16=self.config.precision == "bf16",
            mean=description.mean,
            std=description.std,
        )

    @property
    def views(self) -> ViewConfig:
        """How training images are cut and changed."""
        _, description = self.built
        return ViewConfig(
            image_size=description.image_size,
            mean=description.mean,
            augment=self.config.augment,
            min_scale=self.config.min_scale,
            crop_pct=description.crop_pct,
            seed=self.config.seed,
        )

    def warn(self) -> None:
        """Say what is odd about the classes, and where batches would have few."""
        config = self.config
        tell_of_random_weights(config.encoder, random_init=config.random_init)
        warn_of_equal_sets(self.train, self.val)
        places = (f"--train {config.train}", f"--val {config.val}")
        warn_of_rising_rate(config.base_lr, config.min_lr, self.order.batch, BASE_BATCH)
        rate = rate_warning(config.base_lr, self.order.batch, self.train.samples)
        for text in [*class_warnings(self.train, self.val, places), *([rate] if rate else [])]:
            warn(text)
        warn_of_class_order(self.train, self.order, str(config.train))

    def check(self, world: World) -> None:
        """Look at what would end the run later; see `check.require_images`."""
        if world.leads:
            warn_of_copies(self.train, self.val)
        require_images(self.config, self.val, world)

    def describe(self, model: nn.Module, processes: int) -> None:
        """See `TrainingPlan.describe`."""
        TrainingViews(self.views)  # to refuse what the run would refuse
        super().describe(model, processes)

    def exported_bytes(self, model: nn.Module) -> dict[str, int]:
        """Return the size of the last and the best classifier; see `LabelledPlan.exports`."""
        parameters = sum(parameter.numel() for parameter in model.parameters())
        return {"classifiers": 4 * len(self.exports) * parameters}


def plan(config: Finetune, device: torch.device, *, world: World | None = None) -> FinetunePlan:
    """Open encoder and images and settle what is open; nothing is trained yet.

    Args:
        config: the options.
        device: of this process.
        world: the processes of the run; None only plans, and writes nothing.

    Raises:
        ConfigError: options do not fit each other, the encoder or the data.
        DataError: images have no labels.
        MissingDataError, MismatchError: there is no such encoder, or it is not done; or `--out`
            is of another run, or has checkpoints of no known one.
    """
    require_recorded(config.folder)
    config = with_frozen_choices("finetune", config, "batch_size", "lanes", "precision")
    train, val = open_class_tables(config, world)
    precision = training_precision(config.precision, device)
    config = dataclasses.replace(config, precision=precision, warmup_epochs=config.warmup)
    size, tables = config.image_size, (train, val)
    return FinetunePlan(**settled_parts("finetune", config, tables, PUBLISHED_BATCH, size))


def open_class_tables(
    config: Finetune, world: World | None = None
) -> tuple[LabelledTable, LabelledTable]:
    """Open the images to train on and those to score on.

    Raises:
        ConfigError: there are no such images, or their classes do not fit each other.
        DataError: images have no labels, or those to train on are all of one class.
        MismatchError: class numbers mean other classes in one than in the other.
    """
    train, val = open_tables(config, kind="class", world=world)
    require_same_names(
        train.classes,
        val.classes,
        train_place=f"--train {config.train}",
        test_place=f"--val {config.val}",
    )
    require_known_classes(val, train.class_count, config.val)
    require_classes(train, str(config.train))
    return train, val


def require_partners(planned: FinetunePlan, processes: int) -> None:
    """Refuse to mix single images, which have no other to be mixed with.

    Raises:
        ConfigError: a process has one image in a step.
    """
    config, batch = planned.config, planned.order.batch
    if batch // processes == 1 and (config.mixup or config.cutmix):
        raise ConfigError(
            f"--batch-size {batch} in {processes} processes leaves each one image in a step, which "
            "has no other to be mixed with; give more, or --mixup 0 --cutmix 0"
        )


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
