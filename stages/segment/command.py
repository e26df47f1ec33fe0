"""`milan-pipeline segment`: an encoder + images and masks -> a segmenter and its mIoU."""

import dataclasses
from typing import ClassVar

from milan_pipeline.cli.commands import lazily, stage_command
from milan_pipeline.cli.options import count, option
from milan_pipeline.errors import ConfigError
from milan_pipeline.stages.shared import inputs
from milan_pipeline.stages.shared.labelled_options import LabelledOptions
from milan_pipeline.stages.shared.training_options import run_training


@dataclasses.dataclass(frozen=True, kw_only=True)
class Segment(LabelledOptions):
    """Train an encoder to name the class of each pixel, and measure mIoU, mAcc and aAcc.

    Defaults are the values of MAE with UPerNet on ADE20K, as mmsegmentation has them for a ViT-B
    (its configs/mae): BEiT's protocol (arXiv 2106.08254), which MILAN reports by. For ADE20K itself
    add --classes 150 --reduce-zero-label; for a ViT-L, --drop-path 0.2. For a frozen encoder with a
    linear head as DINOv2 has it (2304.07193): --head linear --freeze.

    If the command is killed or stopped (Ctrl-C, SIGTERM, SIGUSR1), run it again: it continues from
    the newest checkpoint. On CPUs it ends with the same weights.
    """

    train: str | None = option(
        None,
        help="Images and masks to train on: shards with .mask.png, or a folder below images/ with "
        "its masks below annotations/ (as in ADE20K). Only --eval-only needs none; default: none.",
        role="execution",
        group="Input",
        look=inputs.place,
    )
    val: str = option(
        help="Images and masks to score on: a folder of the same kind.",
        role="execution",
        group="Input",
        look=inputs.place,
    )
    classes: int | None = count(
        None,
        "classes",
        group="Input",
        help="Number of classes in the masks. Only --eval-only knows it from the segmenter; "
        "default: none.",
    )
    class_names: str | None = option(
        None,
        help="Text file with the name of a class in each line, in the order of their numbers; "
        "default: none, with --eval-only those of the segmenter.",
        role="execution",
        group="Input",
        look=inputs.place,
    )
    ignore_index: int = option(
        255,
        help="Value of mask pixels that do not count.",
        least=0,
        most=255,
        group="Input",
        unit="number",
    )
    reduce_zero_label: bool = option(
        False,
        help="Mask pixels with 0 do not count, and 1 is the first class.",
        group="Input",
    )
    head: str = option(
        "upernet",
        help="upernet: UPerNet on the patches of four blocks (arXiv 1807.10221). linear: "
        "BatchNorm and a 1x1 convolution on those of the last.",
        choices=("upernet", "linear"),
        group="Head",
    )
    channels: int = option(
        768,
        help="Width of UPerNet; not for linear.",
        least=2,
        group="Head",
        unit="channels",
    )
    freeze: bool = option(False, help="Train only the head.", group="Encoder")
    image_size: int | None = count(
        None,
        "pixels",
        group="Input",
        help="Side of the views, in pixels; default: 512, with --eval-only that of the segmenter.",
    )
    short_side: int | None = count(
        None,
        "pixels",
        group="Input",
        help="Length of an image's short side after scaling; default: --image-size.",
    )
    long_side: int | None = option(
        None,
        help="Largest length of the long side then; 0: no limit; default: four times the short "
        "side.",
        least=0,
        group="Input",
        unit="pixels",
    )
    least_scale: float = option(
        0.5, help="Smallest random factor of the scale.", group="Augmentation", unit="factor"
    )
    most_scale: float = option(
        2.0,
        help="Largest random factor of the scale.",
        most=100,
        group="Augmentation",
        unit="factor",
    )
    max_class_share: float = option(
        0.75,
        help="Largest share of a view that one class should cover. Several crops are tried.",
        most=1,
        group="Augmentation",
        unit="share",
    )
    photometric: bool = option(
        True,
        help="Change brightness, contrast, saturation and hue at random.",
        group="Augmentation",
    )
    drop_path: float | None = option(
        None,
        help="Rate of stochastic depth (arXiv 1603.09382); default: 0.1, with --freeze 0.",
        least=0,
        group="Encoder",
        unit="rate",
    )
    epochs: int | None = count(
        None,
        "epochs",
        group="Schedule",
        help="Length of the schedule in passes over the images, instead of --steps; default: "
        "--steps.",
    )
    steps: int | None = count(
        None, "steps", group="Schedule", help="Length of the schedule, in steps; default: 160,000."
    )
    warmup_steps: int | None = option(
        None,
        help="Steps of warm-up, in which the learning rate rises; default: 1500, or a tenth of "
        "all steps if that is less.",
        least=0,
        group="Schedule",
        unit="steps",
    )
    schedule: str = option(
        "poly",
        help="Learning rate after the warm-up: a straight line down, or half a cosine.",
        choices=("poly", "cosine"),
        group="Schedule",
    )
    base_lr: float | None = option(
        None,
        help="Learning rate for a batch of 16. It is scaled to --batch-size; default: 1e-4, with "
        "--freeze 1e-3.",
        least=0,
        group="Schedule",
        unit="rate",
    )
    min_lr: float = option(
        0.0, help="Learning rate at the end.", least=0, group="Schedule", unit="rate"
    )
    weight_decay: float | None = option(
        None,
        help="AdamW's weight decay; default: 0.05, with --freeze 1e-4.",
        least=0,
        group="Schedule",
        unit="factor",
    )
    evaluate: str = option(
        "slide",
        help="slide: score windows of --image-size and average their logits. whole: score each "
        "image at once.",
        choices=("slide", "whole"),
        group="Scoring",
    )
    stride: int | None = count(
        None,
        "pixels",
        group="Scoring",
        help="Pixels between windows; default: half of --image-size.",
    )
    multi_scale: bool = option(
        False,
        help="Average the scores of six scales (0.5 to 1.75) and of their mirror images.",
        group="Scoring",
    )
    eval_every: int = count(16_000, "steps", group="Scoring", help="Steps between evaluations.")

    scored_by: ClassVar[tuple[str, ...]] = (
        *LabelledOptions.scored_by,
        *("classes", "ignore_index", "reduce_zero_label", "head", "channels"),
        *("image_size", "short_side", "long_side", "evaluate", "stride", "multi_scale"),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.classes is None and not self.eval_only:
            raise ConfigError("--classes is missing; say how many the masks have (ADE20K: 150)")
        if self.classes == 1:
            raise ConfigError(
                "--classes 1 leaves nothing to tell apart, since any answer is right; give 2, of "
                "which 0 is the background in the masks and 1 the object"
            )
        self._require_views()
        if self.epochs is not None and self.steps is not None:
            raise ConfigError(
                f"--epochs {self.epochs} and --steps {self.steps} both set the schedule; give one"
            )
        if self.drop_path is not None and not self.drop_path < 1:
            raise ConfigError(f"--drop-path {self.drop_path} is not below 1; try 0.1")
        if self.freeze and self.drop_path:
            raise ConfigError(
                f"--drop-path {self.drop_path} has no use with --freeze; leave one of them out"
            )
        if self.stride is not None and self.image_size and self.stride > self.image_size:
            raise ConfigError(
                f"--stride {self.stride} is more than --image-size {self.image_size}, which would "
                "leave gaps; give less"
            )

    def _require_views(self) -> None:
        """Refuse views that cannot be cut."""
        if not 0 < self.least_scale <= self.most_scale:
            raise ConfigError(
                f"--least-scale {self.least_scale} is not above 0 and at most --most-scale "
                f"{self.most_scale}; give less"
            )
        if not self.max_class_share > 0:
            raise ConfigError(f"--max-class-share {self.max_class_share} is not above 0; try 0.75")


def run(config: Segment) -> None:
    """Train to the last step, export the segmenter and write its scores."""
    run_training("segment", config, "milan_pipeline.stages.segment.run:train")


dry_run = lazily("milan_pipeline.stages.segment.run:describe")

command = stage_command(
    "segment",
    Segment,
    run=run,
    dry_run=dry_run,
    example="milan-pipeline segment --encoder runs/first --train ade20k/training \\\n"
    "    --val ade20k/validation --classes 150 --reduce-zero-label --out runs/first-ade20k",
)
