"""`milan-pipeline finetune`: an encoder + labelled images -> a classifier and its accuracy."""

import dataclasses
from typing import ClassVar

from milan_pipeline.cli.commands import lazily, stage_command
from milan_pipeline.cli.options import count, option
from milan_pipeline.errors import ConfigError
from milan_pipeline.stages.shared import common_options as common
from milan_pipeline.stages.shared import inputs
from milan_pipeline.stages.shared.labelled_options import LabelledOptions
from milan_pipeline.stages.shared.schedule import require_warmup
from milan_pipeline.stages.shared.training_options import run_training


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finetune(LabelledOptions):
    """Train an encoder and a classifier on labelled images by MILAN's recipe, and score them.

    The defaults are those of a ViT-B. For a ViT-L give --layer-decay 0.75 --drop-path 0.2. If the
    command is killed or stopped (Ctrl-C, SIGTERM, SIGUSR1), run it again: it continues from the
    newest checkpoint. On CPUs it ends with the same weights.
    """

    train: str | None = option(
        None,
        help="Labelled images to train on: a folder of shards or of class folders. Only "
        "--eval-only needs none; default: none.",
        role="execution",
        group="Input",
        look=inputs.place,
    )
    val: str = option(
        help="Labelled images to score on: a folder of shards or of class folders.",
        role="execution",
        group="Input",
        look=inputs.place,
    )
    image_size: int | None = count(
        None,
        "pixels",
        group="Input",
        help="Side of the views, in pixels; default: that of the encoder.",
    )
    pool: str = option(
        "mean",
        help="What the classifier sees: the mean of the patches, or the class token.",
        choices=("mean", "cls"),
        group="Encoder",
    )
    crop_pct: float | None = common.crop_pct(
        "Share of the resized image's side that is scored, from its middle"
    )
    drop_path: float = option(
        0.1,
        help="Rate of stochastic depth (arXiv 1603.09382).",
        least=0,
        group="Encoder",
        unit="rate",
    )
    epochs: int = count(
        100,
        "epochs",
        group="Schedule",
        help="Passes over the images. This sets the length of the schedule.",
    )
    least_steps: int | None = count(
        None,
        "steps",
        group="Schedule",
        help="Steps that the schedule has at least: for few images --epochs, warm-up and "
        "--eval-every are multiplied by the smallest whole number that does; default: none.",
    )
    warmup_epochs: float | None = option(
        None,
        help="Epochs of warm-up, in which the learning rate rises; default: 5, or a tenth of "
        "--epochs if that is less.",
        group="Schedule",
        unit="epochs",
    )
    base_lr: float = option(
        1e-4,
        help="Learning rate for a batch of 256. It is scaled to --batch-size.",
        least=0,
        group="Schedule",
        unit="rate",
    )
    min_lr: float = option(
        1e-6, help="Learning rate at the end.", least=0, group="Schedule", unit="rate"
    )
    weight_decay: float = option(
        0.05, help="AdamW's weight decay.", least=0, group="Schedule", unit="factor"
    )
    augment: str = option(
        "rand-m9-mstd0.5-inc1",
        help="Augmentation, by timm's name (RandAugment, arXiv 1909.13719); '' for none.",
        group="Augmentation",
    )
    min_scale: float = option(
        0.08,
        help="Smallest share of an image's area in a training view. Give more if the objects are "
        "small.",
        least=0,
        most=1,
        group="Augmentation",
        unit="share",
    )
    smoothing: float = option(0.1, help="Label smoothing.", least=0, group="Schedule", unit="share")
    mixup: float = option(
        0.8,
        help="Alpha of mixup (arXiv 1710.09412); 0 for none.",
        least=0,
        group="Augmentation",
        unit="alpha",
    )
    cutmix: float = option(
        1.0,
        help="Alpha of CutMix (arXiv 1905.04899); 0 for none.",
        least=0,
        group="Augmentation",
        unit="alpha",
    )
    erasing: float = option(
        0.25,
        help="Share of the images that lose a random box (arXiv 1708.04896).",
        least=0,
        most=1,
        group="Augmentation",
        unit="share",
    )
    eval_every: int = count(1, "epochs", group="Scoring", help="Epochs between evaluations.")

    scored_by: ClassVar[tuple[str, ...]] = (*LabelledOptions.scored_by, "crop_pct")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.crop_pct is not None and not 0.01 <= self.crop_pct <= 1:
            raise ConfigError(f"--crop-pct {self.crop_pct} is not within 0.01 to 1; try 0.875")
        for flag, value in (("--drop-path", self.drop_path), ("--smoothing", self.smoothing)):
            if not value < 1:
                raise ConfigError(f"{flag} {value} is not below 1; try 0.1")
        require_warmup(self.warmup_epochs, self.epochs)

    @property
    def warmup(self) -> float:
        """Epochs of warm-up, which the schedule's length settles if nothing else does."""
        return min(5.0, self.epochs / 10) if self.warmup_epochs is None else self.warmup_epochs


def run(config: Finetune) -> None:
    """Train to the last step, export the classifier and write its scores."""
    run_training("finetune", config, "milan_pipeline.stages.finetune.run:train")


dry_run = lazily("milan_pipeline.stages.finetune.run:describe")

command = stage_command(
    "finetune",
    Finetune,
    run=run,
    dry_run=dry_run,
    example="milan-pipeline finetune --encoder runs/first --train images/train \\\n"
    "    --val images/val --out runs/first-classes",
)
