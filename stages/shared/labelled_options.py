"""Options of the stages that train an encoder on labelled images; loads no torch."""

import dataclasses

from milan_pipeline.cli.options import option
from milan_pipeline.errors import ConfigError
from stages.shared import common_options as common
from stages.shared.training_options import TrainingOptions


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelledOptions(TrainingOptions):
    """Which encoder, and which labelled images to train and to score on."""

    encoder: str = option(
        help="Run folder, .safetensors with its .json, timm name (with its tag: pretrained), or "
        "open_clip:MODEL/TAG.",
        group="Encoder",
    )
    train: str | None = option(
        None,
        help="Labelled images to train on; default: none, for --eval-only alone.",
        role="execution",
        group="Input",
    )
    val: str = option(help="Labelled images to score on.", role="execution", group="Input")
    eval_only: bool = option(
        False,
        help="Do not train: score the model in --encoder, a .safetensors file of this stage.",
        group="Scoring",
    )
    label: str | None = option(
        None,
        help="Name of the encoder in tables; default: --encoder.",
        role="execution",
        group="Scoring",
    )
    label_fraction: float = option(
        1.0,
        help="Share of the training images to use; of images with a class, this share of each "
        "class and at least one image.",
        group="Input",
        unit="share",
    )
    check: str | None = option(
        None,
        help="Before the first step, look at all masks and at all images to score on, or at 1,000 "
        "of each set; default: all, and with --dry-run none.",
        role="execution",
        choices=("all", "sample"),
        group="Input",
    )
    random_init: bool = option(
        False, help="Draw the encoder's weights at random: a baseline.", group="Encoder"
    )
    layer_decay: float = option(
        0.65,
        help="Scale of a layer's learning rate for each layer after it.",
        least=0,
        most=1,
        group="Schedule",
        unit="factor",
    )
    allow_unfinished: bool = common.allow_unfinished(
        "Begin from a run that is not done.", group="Encoder"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.train is None and not self.eval_only:
            raise ConfigError("--train is missing; give labelled images, or --eval-only")
        if self.eval_only and not self.encoder.endswith(".safetensors"):
            raise ConfigError(
                f"--eval-only scores a trained model, and --encoder {self.encoder!r} is no "
                ".safetensors file; give RUN/best.safetensors"
            )
        if not 0 < self.label_fraction <= 1:
            raise ConfigError(
                f"--label-fraction {self.label_fraction} is not within 0 to 1; give 1 for all"
            )
