"""`milan-pipeline pretrain`: image shards, target shards -> a run. No teacher anywhere."""

import dataclasses

from milan_pipeline.cli.commands import lazily, stage_command
from milan_pipeline.cli.options import count, option
from milan_pipeline.errors import ConfigError
from milan_pipeline.pretrain.defaults import DEFAULTS, TARGETS
from stages.shared.training_options import TrainingOptions, require_warmup, run_training


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pretrain(TrainingOptions):
    """Pretrain a vision transformer on stored targets, as MILAN does but without its teacher.

    Killed or stopped (Ctrl-C, SIGTERM, SIGUSR1), run the same command again: it goes on from the
    newest checkpoint and ends, on CPUs, with the same weights.
    """

    images: str = option(
        help="Folder of image shards with manifest.json.", role="execution", group="Input"
    )
    target: str = option(
        "features",
        help="What is predicted: a teacher's features, or the pixels of masked patches (MAE, arXiv "
        "2111.06377), which need neither a teacher nor --targets.",
        choices=TARGETS,
        group="Objective",
    )
    targets: str | None = option(
        None,
        help="Folder of target shards with manifest.json; default: none, for --target "
        "pixels alone.",
        role="execution",
        group="Input",
    )
    min_scale: float | None = option(
        None,
        help="Smallest share of an image's area in a view of --target pixels; default: 0.2. "
        "Features were extracted of views of their own.",
        group="Objective",
        unit="share",
    )
    init: str | None = option(
        None,
        help="Run whose newest weights to begin from; default: random.",
        role="execution",
        group="Student",
    )
    student: str = option(
        "vit_base_patch16_224", help="timm name of a ViT with a class token.", group="Student"
    )
    image_size: int | None = count(
        None,
        "pixels",
        group="Student",
        help="Side of the student's view, in pixels; default: the name's, or with --patch-size "
        "what fits the targets' grid.",
    )
    patch_size: int | None = count(
        None, "pixels", group="Student", help="Student's patch, in pixels; default: the name's."
    )
    width: int | None = count(
        None, "channels", group="Student", help="Student's width; default: the name's."
    )
    depth: int | None = count(
        None, "blocks", group="Student", help="Student's blocks; default: the name's."
    )
    heads: int | None = count(
        None, "heads", group="Student", help="Student's attention heads; default: the name's."
    )
    decoder: str | None = option(
        None,
        help="Mask tokens prompted by visible ones (MILAN), self-attention over all (MAE, arXiv "
        "2111.06377), or a linear head after an encoder that mask tokens enter (SimMIM, arXiv "
        "2111.09886; EVA, 2211.07636); default: prompting, of pixels mae.",
        choices=("prompting", "mae", "linear"),
        group="Decoder",
    )
    decoder_width: int = count(
        512, "channels", group="Decoder", help="Decoder's width; a linear one has none."
    )
    decoder_depth: int = count(
        8, "blocks", group="Decoder", help="Decoder's blocks; a linear one has none."
    )
    decoder_heads: int = count(
        16, "heads", group="Decoder", help="Decoder's attention heads; a linear one has none."
    )
    loss: str | None = option(
        None,
        help="2 - 2 cos (MILAN), or smooth L1 of beta 2 from the prediction as it is to the "
        "normalised target (feature distillation, arXiv 2205.14141), or squared error (MAE); "
        "default: cosine, of pixels mse.",
        choices=("cosine", "smooth-l1", "mse"),
        group="Objective",
    )
    target_norm: str | None = option(
        None,
        help="Targets of length 1 (MILAN), or layer-normed (arXiv 2205.14141, 2210.10615); "
        "default: l2, of pixels layer.",
        choices=("l2", "layer"),
        group="Objective",
    )
    supervise: str | None = option(
        None,
        help="Tokens with a loss: all (MILAN), masked patches (MAE, arXiv 2111.06377), or CLS and "
        "visible patches (MaskAlign, arXiv 2211.08887); default: all, of pixels masked.",
        choices=("all", "masked", "visible"),
        group="Objective",
    )
    masking: str | None = option(
        None,
        help="Keep patches by CLIP's attention to them (MILAN), all alike (MAE, arXiv 2111.06377), "
        "or mask them in blocks (BEiT, arXiv 2106.08254); default: semantic, of pixels random.",
        choices=("semantic", "random", "block"),
        group="Objective",
    )
    mask_ratio: float = option(
        0.75, help="Share of the patches that is masked.", group="Objective", unit="share"
    )
    views: int | None = count(
        None, "views", group="Input", help="Views to use; default: all that are packed."
    )
    epochs: int = count(
        400, "epochs", group="Schedule", help="Passes over the images; sets the schedule."
    )
    warmup_epochs: float | None = option(
        None,
        help="Epochs in which the learning rate rises; default: a tenth of --epochs.",
        group="Schedule",
        unit="epochs",
    )
    base_lr: float = option(
        1.5e-4,
        help="Learning rate for a batch of 256; scaled to the batch.",
        least=0,
        group="Schedule",
        unit="rate",
    )
    weight_decay: float = option(
        0.05, help="AdamW's weight decay.", least=0, group="Schedule", unit="factor"
    )
    on_missing: str = option(
        "error",
        help="Images without targets or the reverse.",
        choices=("error", "skip"),
        group="Input",
    )
    fsdp: bool = option(
        False,
        help="Shard the student over the processes (FSDP2).",
        role="execution",
        group="Several machines",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.mask_ratio < 1:
            raise ConfigError(f"--mask-ratio {self.mask_ratio} is not within 0 to 1; try 0.75")
        require_warmup(self.warmup_epochs, self.epochs)
        if (self.target == "features") != (self.targets is not None):
            raise ConfigError(
                f"--target {self.target} and --targets {self.targets} do not fit; give --targets "
                "for features, and none for pixels"
            )
        if self.min_scale is not None and not (self.target == "pixels" and 0 < self.min_scale <= 1):
            raise ConfigError(
                f"--min-scale {self.min_scale} is for --target pixels and within 0 to 1; for "
                "features give it to extract-targets"
            )
        choices = self.choices()
        if self.target == "pixels" and choices["masking"] == "semantic":
            raise ConfigError(
                "--masking semantic needs a teacher's attention, which --target pixels does not "
                "have; give random or block"
            )
        if self.target == "pixels" and choices["supervise"] != "masked":
            raise ConfigError(
                f"--supervise {choices['supervise']} cannot be had of --target pixels, whose "
                "objective is the masked patches; leave it out"
            )

    def choices(self) -> dict[str, str]:
        """Return the choices, those that were not made as MILAN's or, of pixels, MAE's."""
        return {
            name: getattr(self, name) or default for name, default in DEFAULTS[self.target].items()
        }


def run(config: Pretrain) -> None:
    """Train to the last step and export the encoder."""
    run_training("pretrain", config, "stages.pretrain.run:train")


dry_run = lazily("stages.pretrain.run:describe")

command = stage_command(
    "pretrain",
    Pretrain,
    run=run,
    dry_run=dry_run,
    example="milan-pipeline pretrain --images images/train --targets target-shards \\\n"
    "    --out runs/first",
)
