"""Options of the stages that train an encoder on labelled images; loads no torch."""

import dataclasses
from pathlib import Path
from typing import ClassVar

from milan_pipeline.cli.options import option
from milan_pipeline.encoders.names import require_there
from milan_pipeline.errors import ConfigError
from milan_pipeline.provenance.record import config_by_role
from milan_pipeline.stages.shared import common_options as common
from milan_pipeline.stages.shared import inputs
from milan_pipeline.stages.shared.training_options import TrainingOptions


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelledOptions(TrainingOptions):
    """Which encoder, and which labelled images to train and to score on."""

    encoder: str = option(
        help="The encoder: a run folder, a .safetensors with its .json, a timm name (with a tag: "
        "pretrained), or open_clip:MODEL/TAG.",
        group="Encoder",
        look=require_there,
    )
    train: str | None = option(
        None,
        help="Labelled images to train on. Only --eval-only needs none; default: none.",
        role="execution",
        group="Input",
        look=inputs.place,
    )
    val: str = option(
        help="Labelled images to score on.", role="execution", group="Input", look=inputs.place
    )
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
        help="Share of the training images to use. With classes: this share of each class, at "
        "least one image.",
        group="Input",
        unit="share",
    )
    check: str | None = option(
        None,
        help="Check masks and images to score on before the first step: all, or 1,000 of each "
        "set; default: all, with --dry-run none.",
        role="execution",
        choices=("all", "sample"),
        group="Input",
    )
    random_init: bool = option(
        False, help="Give the encoder random weights: a baseline.", group="Encoder"
    )
    layer_decay: float = option(
        0.65,
        help="Factor of a layer's learning rate for each layer that comes after it.",
        least=0,
        most=1,
        group="Schedule",
        unit="factor",
    )
    allow_unfinished: bool = common.allow_unfinished(
        "Start from a run that is not finished.", group="Encoder"
    )

    scored_by: ClassVar[tuple[str, ...]] = ("encoder", "precision", "eval_only")
    """The options that the scores of --eval-only depend on."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.train is None and not self.eval_only:
            raise ConfigError("--train is missing; give labelled images, or --eval-only")
        if self.eval_only and not self.encoder.endswith(".safetensors"):
            raise ConfigError(
                f"--eval-only scores a trained model, and --encoder {self.encoder!r} is no "
                ".safetensors file; give RUN/best.safetensors"
            )
        if self.eval_only and self.random_init:
            raise ConfigError(
                "--random-init draws weights, and --eval-only scores those of --encoder; leave one "
                "of them out"
            )
        if not self.layer_decay:
            raise ConfigError(
                f"--layer-decay {self.layer_decay} stops every layer but the last; give 1 for one "
                "rate in all of them"
            )
        if not 0 < self.label_fraction <= 1:
            raise ConfigError(
                f"--label-fraction {self.label_fraction} is not within 0 to 1; give 1 for all"
            )

    @property
    def idle_options(self) -> tuple[str, ...]:
        """The options of training, which change nothing where nothing is trained."""
        content = config_by_role(self)["content"] if self.eval_only else {}
        return tuple(name for name in content if name not in self.scored_by)

    @property
    def scans(self) -> Path:
        """Where a run keeps the labels that it found in shards."""
        return self.folder / "labels"
