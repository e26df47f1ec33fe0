"""`milan-pipeline pretrain`: image shards, target shards -> a run. No teacher anywhere."""

import dataclasses
from collections.abc import Mapping

from milan_pipeline.cli.commands import lazily, stage_command
from milan_pipeline.cli.options import count, option
from milan_pipeline.errors import ConfigError
from milan_pipeline.models.timm_names import require_model, vit_names
from milan_pipeline.pretraining.defaults import DEFAULTS, TARGETS
from milan_pipeline.stages.pretrain.teachers import look_at_targets, require_teachers
from milan_pipeline.stages.shared import common_options as common
from milan_pipeline.stages.shared import inputs
from milan_pipeline.stages.shared.schedule import require_warmup
from milan_pipeline.stages.shared.training_options import TrainingOptions, run_training


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pretrain(TrainingOptions):
    """Train a student to predict stored targets of masked patches (MILAN). No teacher runs.

    If the command is killed or stopped (Ctrl-C, SIGTERM, SIGUSR1), run it again: it continues from
    the newest checkpoint. On CPUs it ends with the same weights.
    """

    images: str = option(
        help="Folder of image shards with manifest.json.",
        role="execution",
        group="Input",
        look=inputs.image_shards,
    )
    target: str = option(
        "features",
        help="What the student predicts: a teacher's features, or pixels of masked patches (MAE, "
        "arXiv 2111.06377). Pixels need no teacher and no --targets.",
        choices=TARGETS,
        group="Objective",
    )
    targets: tuple[str, ...] = option(
        (),
        help="Folder of target shards with manifest.json. To learn from several teachers, repeat "
        "it with a name for each: clip=FOLDER, dino=FOLDER. Each has a head of its own; views and, "
        "without --resample-targets, the grid must be the same. Only --target pixels needs none; "
        "default: none.",
        role="execution",
        group="Input",
        look=look_at_targets,
    )
    target_weight: tuple[str, ...] = option(
        (),
        help="Weight of a teacher's loss, with its name in --targets: dino=0.5; may be repeated. "
        "The loss is the weighted mean; default: 1 each.",
        group="Objective",
    )
    prior_from: str | None = option(
        None,
        help="The teacher whose attention chooses patches, by its name in --targets, for --masking "
        "semantic; default: the first of --targets.",
        group="Objective",
    )
    min_scale: float | None = option(
        None,
        help="Smallest share of an image's area in a view, for --target pixels. For features, "
        "extract-targets has set it; default: 0.2.",
        group="Objective",
        unit="share",
    )
    init: str | None = option(
        None,
        help="Run to begin from, or its encoder.safetensors alone; default: random weights.",
        role="execution",
        group="Student",
        look=inputs.run_or_encoder,
    )
    student: str = option(
        "vit_base_patch16_224",
        help="The student: timm's name of a ViT with a class token.",
        group="Student",
        complete=vit_names,
    )
    image_size: int | None = count(
        None,
        "pixels",
        group="Student",
        help="Side of the student's view, in pixels; default: that of --student, or with "
        "--patch-size the one that fits the targets' grid.",
    )
    patch_size: int | None = count(
        None,
        "pixels",
        group="Student",
        help="Side of the student's patches, in pixels; default: that of --student.",
    )
    width: int | None = count(
        None, "channels", group="Student", help="Width of the student; default: that of --student."
    )
    depth: int | None = count(
        None,
        "blocks",
        group="Student",
        help="Number of the student's blocks; default: that of --student.",
    )
    heads: int | None = count(
        None,
        "heads",
        group="Student",
        help="Number of the student's attention heads; default: that of --student.",
    )
    decoder: str | None = option(
        None,
        help="prompting: mask tokens attend to visible ones (MILAN). mae: attention over all "
        "tokens (arXiv 2111.06377). linear: a linear head, and mask tokens enter the encoder "
        "(SimMIM, arXiv 2111.09886; EVA, 2211.07636); default: prompting, for pixels mae.",
        choices=("prompting", "mae", "linear"),
        group="Decoder",
    )
    decoder_width: int = count(
        512, "channels", group="Decoder", help="Width of the decoder; not for linear."
    )
    decoder_depth: int = count(
        8, "blocks", group="Decoder", help="Number of the decoder's blocks; not for linear."
    )
    decoder_heads: int = count(
        16,
        "heads",
        group="Decoder",
        help="Number of the decoder's attention heads; not for linear.",
    )
    loss: str | None = option(
        None,
        help="cosine: 2 - 2 cos (MILAN). smooth-l1: with beta 2, between the prediction and the "
        "normalised target (arXiv 2205.14141). mse: squared error (MAE); default: cosine, for "
        "pixels mse.",
        choices=("cosine", "smooth-l1", "mse"),
        group="Objective",
    )
    target_norm: str | None = option(
        None,
        help="l2: targets of length 1 (MILAN). layer: targets after a layer norm (arXiv "
        "2205.14141, 2210.10615). none: targets as they are stored, for smooth-l1 and mse. phi-s: "
        "rotated and scaled, so that no teacher counts more by the size of its values (arXiv "
        "2410.01680); needs pack-targets --phi-s; default: l2, for pixels layer.",
        choices=("l2", "layer", "none", "phi-s"),
        group="Objective",
    )
    resample_targets: bool = option(
        False,
        help="Resample targets of another grid than the student's: bilinear, with antialiasing "
        "where they get fewer; CLS stays. Else they are refused.",
        group="Objective",
    )
    supervise: str | None = option(
        None,
        help="Tokens that the loss counts: all (MILAN), masked patches (MAE, arXiv 2111.06377), "
        "or CLS and visible patches (MaskAlign, arXiv 2211.08887); default: all, for pixels "
        "masked.",
        choices=("all", "masked", "visible"),
        group="Objective",
    )
    masking: str | None = option(
        None,
        help="How patches are chosen. semantic: those that CLIP attends to are kept more often "
        "(MILAN). random: all alike (MAE, arXiv 2111.06377). block: masked in blocks (BEiT, arXiv "
        "2106.08254); default: semantic, for pixels random.",
        choices=("semantic", "random", "block"),
        group="Objective",
    )
    mask_ratio: float = option(
        0.75, help="Share of the patches that are masked.", group="Objective", unit="share"
    )
    views: int | None = count(
        None, "views", group="Input", help="Number of views to use; default: all that are packed."
    )
    epochs: int = count(
        400,
        "epochs",
        group="Schedule",
        help="Passes over the images. This sets the length of the schedule.",
    )
    warmup_epochs: float | None = option(
        None,
        help="Epochs of warm-up, in which the learning rate rises; default: a tenth of --epochs.",
        group="Schedule",
        unit="epochs",
    )
    base_lr: float = option(
        1.5e-4,
        help="Learning rate for a batch of 256. It is scaled to --batch-size.",
        least=0,
        group="Schedule",
        unit="rate",
    )
    weight_decay: float = option(
        0.05, help="AdamW's weight decay.", least=0, group="Schedule", unit="factor"
    )
    max_bad_fraction: float = common.max_bad_fraction(
        more=" With --target pixels, other images take their place. Images with targets must all "
        "be readable."
    )
    on_missing: str = option(
        "error",
        help="What to do with images without targets, and targets without images: stop, or leave "
        "them out.",
        choices=("error", "skip"),
        group="Input",
    )
    residual_dtype: str = option(
        "fp32",
        help="Number type of the tokens between blocks, for --precision bf16. bf16 needs less "
        "memory and bandwidth, and rounds more.",
        choices=("fp32", "bf16"),
        group="This machine",
    )
    fsdp: bool = option(
        False,
        help="Divide the student among the processes (FSDP2).",
        role="execution",
        group="Several machines",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.mask_ratio < 1:
            raise ConfigError(f"--mask-ratio {self.mask_ratio} is not within 0 to 1; try 0.75")
        require_warmup(self.warmup_epochs, self.epochs)
        if "." in self.student:
            raise ConfigError(
                f"--student {self.student} names trained weights, and a student begins with random "
                f"ones; give {self.student.partition('.')[0]}, or a run with --init"
            )
        require_model(self.student)
        if (self.target == "features") != bool(self.targets):
            raise ConfigError(
                f"--target {self.target} and --targets {', '.join(self.targets) or None} do not "
                "fit; give --targets for features, and none for pixels"
            )
        if self.min_scale is not None and not (self.target == "pixels" and 0 < self.min_scale <= 1):
            raise ConfigError(
                f"--min-scale {self.min_scale} is for --target pixels and within 0 to 1; for "
                "features give it to extract-targets"
            )
        choices = self.choices()
        require_teachers(self.targets, self.target_weight, self.prior_from)
        if self.prior_from is not None and choices["masking"] != "semantic":
            raise ConfigError(
                f"--prior-from {self.prior_from} is for --masking semantic and not "
                f"{choices['masking']}; leave it out"
            )
        if choices["target_norm"] == "none" and choices["loss"] == "cosine":
            raise ConfigError(
                "--target-norm none does not change --loss cosine, which takes directions alone; "
                "give --loss smooth-l1 or mse, or leave it out"
            )
        if self.target == "pixels":
            self._require_what_pixels_have(choices)

    def _require_what_pixels_have(self, choices: Mapping[str, str]) -> None:
        if self.resample_targets:
            raise ConfigError(
                "--resample-targets is for targets of teachers, which --target pixels does not "
                "have; leave it out"
            )
        if choices["target_norm"] == "phi-s":
            raise ConfigError(
                "--target-norm phi-s is for targets of teachers, which --target pixels does not "
                "have; give layer, or leave it out"
            )
        if choices["masking"] == "semantic":
            raise ConfigError(
                "--masking semantic needs a teacher's attention, which --target pixels does not "
                "have; give random or block"
            )
        if choices["supervise"] != "masked":
            raise ConfigError(
                f"--supervise {choices['supervise']} does not work with --target pixels, whose "
                "loss counts masked patches; leave it out"
            )

    def choices(self) -> dict[str, str]:
        """Return the choices, those that were not made as MILAN's or, of pixels, MAE's."""
        return {
            name: getattr(self, name) or default for name, default in DEFAULTS[self.target].items()
        }


def run(config: Pretrain) -> None:
    """Train to the last step and export the encoder."""
    run_training("pretrain", config, "milan_pipeline.stages.pretrain.run:train")


dry_run = lazily("milan_pipeline.stages.pretrain.run:describe")

command = stage_command(
    "pretrain",
    Pretrain,
    run=run,
    dry_run=dry_run,
    example="milan-pipeline pretrain --images images/train --targets target-shards \\\n"
    "    --out runs/first",
)
