"""`milan-pipeline probe`: a frozen encoder's k-NN and linear accuracy on labelled shards."""

import dataclasses
from typing import Literal

from milan_pipeline import storage
from milan_pipeline.cli.commands import lazily, stage_command
from milan_pipeline.cli.options import AUTO, count, option, require_least
from milan_pipeline.core.cores import own_cores
from milan_pipeline.encoders.names import is_named, require_there
from milan_pipeline.errors import ConfigError
from milan_pipeline.evaluate.probe.protocols import OfficialLinear, Sweep
from milan_pipeline.stages.shared import common_options as common
from milan_pipeline.stages.shared import inputs

LINEAR = ("logistic", "official", "sweep", "none")
OFFICIAL, SWEEP = OfficialLinear(), Sweep()
KS, TEMPERATURE = (10, 20, 100, 200), 0.07
IGNORE_INDEX, MEMORY = 255, 100_000
OF_IMAGES = (
    *("features", "pool", "crop_pct", "linear", "train_views"),
    *("linear_epochs", "linear_warmup_epochs", "linear_batch", "linear_lr"),
    *("sweep_steps", "sweep_batch", "sweep_lr"),
)
"""Options that --dense does not use."""
OF_PATCHES = ("classes", "ignore_index", "reduce_zero_label", "memory")
"""Options that only --dense uses."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Probe:
    """Score a frozen encoder: accuracy of k-NN and of linear classifiers on its features.

    Both sets of shards need class numbers (.cls). The command prints a table and writes scores.json
    and answers.npy, which has the class and the answers for each test image. Features are computed
    once and kept.

    With --dense, patches are scored instead of images. Both sets need masks, as for segment. Each
    patch takes its class from the labelled patches that are most like it, and the command writes
    the mIoU and its protocol.
    """

    encoder: str = option(
        help="The encoder: a run folder, a .safetensors with its .json, a timm name, "
        "open_clip:MODEL/TAG, or pixels.",
        group="Encoder",
        look=require_there,
    )
    train: str = option(
        help="Folder of labelled image shards to learn from; with --dense, images and masks as "
        "segment takes them.",
        role="execution",
        group="Input",
        look=inputs.place,
    )
    val: str = option(
        help="Folder of the same kind to score on, which is held out from --train.",
        role="execution",
        group="Input",
        look=inputs.place,
        formerly="test",
    )
    out: str | None = option(
        None,
        help="Folder for scores.json; default: probe/ in the run folder, with --dense "
        "probe-dense/.",
        role="execution",
        group="Output",
    )
    label: str | None = option(
        None,
        help="Name of the encoder in tables; default: --encoder.",
        role="execution",
        group="Output",
    )
    features: str | None = option(
        None,
        help="Folder that keeps the features; several probes may share it; default: features/ in "
        "--out.",
        role="execution",
        group="Output",
    )
    pool: str = option(
        "cls",
        help="Tokens that make the feature: the class token, the mean of the patches, or both.",
        choices=("cls", "mean", "both"),
        group="Encoder",
    )
    crop_pct: float | None = common.crop_pct(
        "Share of the resized image's side that is shown, from its middle; finetune shows the same"
    )
    k: tuple[int, ...] = count(
        (),
        "neighbours",
        group="Scoring",
        help="Number of neighbours that vote; may be repeated for several scores; default: 10, "
        "20, 100 and 200, with --dense 30 alone.",
    )
    temperature: float | None = option(
        None,
        help="Temperature of the neighbours' votes; default: 0.07, with --dense 0.02.",
        group="Scoring",
        unit="temperature",
    )
    linear: tuple[str, ...] = option(
        ("logistic",),
        help="Linear classifier; may be repeated. logistic: logistic regression. official: "
        "MILAN's protocol with LARS. sweep: DINOv2's, many rates for each pool.",
        choices=LINEAR,
        group="Scoring",
    )
    train_views: int = count(
        1,
        "views",
        group="Scoring",
        help="Views of each image that official and sweep use in turn. 1: the view that is "
        "scored. More: random crops and flips.",
    )
    linear_epochs: int = count(
        OFFICIAL.epochs, "epochs", group="Scoring", help="For official: epochs."
    )
    linear_warmup_epochs: float = option(
        OFFICIAL.warmup_epochs,
        help="For official: epochs of warm-up.",
        least=0,
        group="Scoring",
        unit="epochs",
    )
    linear_batch: int | None = option(
        None,
        help="For official: batch, to which --linear-lr is scaled; default: 16384. For sets "
        "smaller than ImageNet, a 78th of the set, with the rate of 16384.",
        least=2,
        group="Scoring",
        unit="images",
    )
    linear_lr: float | None = option(
        None,
        help="For official: learning rate for a batch of 256; default: 0.05, or 0.02 for 1024 "
        "features and more.",
        least=0,
        group="Scoring",
        unit="rate",
    )
    sweep_steps: int = count(SWEEP.steps, "steps", group="Scoring", help="For sweep: steps.")
    sweep_batch: int = count(SWEEP.batch, "images", group="Scoring", help="For sweep: batch.")
    sweep_lr: tuple[float, ...] = option(
        SWEEP.rates,
        help="For sweep: a learning rate to try, for a batch of 256; may be repeated.",
        least=0,
        group="Scoring",
        unit="rate",
    )
    dense: bool = option(
        default=False,
        help="Score patches by the classes of the nearest labelled patches (mIoU).",
        group="Patches",
    )
    classes: int | None = count(
        None,
        "classes",
        group="Patches",
        help="For --dense: number of classes in the masks, which it needs; default: none.",
    )
    ignore_index: int = option(
        IGNORE_INDEX,
        help="For --dense: value of mask pixels that do not count.",
        least=0,
        most=255,
        group="Patches",
        unit="number",
    )
    reduce_zero_label: bool = option(
        default=False,
        help="For --dense: mask pixels with 0 do not count, and 1 is the first class.",
        group="Patches",
    )
    memory: int = count(
        MEMORY,
        "patches",
        group="Patches",
        help="For --dense: labelled patches that are kept to look up, evenly of all images.",
    )
    random_init: bool = option(
        default=False, help="Give the encoder random weights: the score to beat.", group="Encoder"
    )
    seed: int = option(
        0,
        help="Seed of --random-init, of views, of linear classifiers and of the patches that are "
        "kept.",
        group="Scoring",
        unit="number",
    )
    precision: str = option(
        "fp32",
        help="Type of the encoder's arithmetic; auto: bf16 on a GPU that has it, else fp32.",
        choices=("auto", "fp32", "bf16"),
        group="Encoder",
    )
    batch_size: int = common.batch_size("Images in a batch of the encoder.")
    workers: int | Literal["auto"] = common.workers(
        "Threads that decode images; auto: one for each core that the command may use."
    )
    device: str = common.device("Where to compute")
    threads: int | Literal["auto"] = common.threads()
    max_bad_fraction: float = common.max_bad_fraction()
    allow_unfinished: bool = common.allow_unfinished(
        "Score a run that is not finished.", group="Encoder"
    )
    overwrite: bool = common.overwrite("Replace scores that were made with other options.")

    def __post_init__(self) -> None:
        require_least(self)
        for name in ("k", "linear", "sweep_lr"):
            values = getattr(self, name)
            if (not values and name != "k") or len(set(values)) < len(values):
                flag = f"--{name.replace('_', '-')}"
                raise ConfigError(
                    f"{flag} {list(values)} is not one or more different values; give each once"
                )
        if self.crop_pct is not None and not 0.01 <= self.crop_pct <= 1:
            raise ConfigError(f"--crop-pct {self.crop_pct} is not within 0.01 to 1; try 0.875")
        if self.temperature is not None and self.temperature <= 0:
            raise ConfigError(f"--temperature {self.temperature} must be above 0; give 0.07")
        self._require_fitting()
        if "none" in self.linear and len(self.linear) > 1:
            raise ConfigError("--linear none is given with others; give it alone or leave it out")
        if self.linear_warmup_epochs >= self.linear_epochs:
            raise ConfigError(
                f"--linear-warmup-epochs {self.linear_warmup_epochs:g} leaves nothing of "
                f"--linear-epochs {self.linear_epochs}; give fewer"
            )
        if self.out is None and (is_named(self.encoder) or self.encoder.endswith(".safetensors")):
            raise ConfigError(f"--encoder {self.encoder!r} is no run folder; give --out FOLDER")

    @property
    def idle_options(self) -> tuple[str, ...]:
        """The options that change nothing; scores do not depend on them."""
        return OF_IMAGES if self.dense else ("dense", *OF_PATCHES)

    def _require_fitting(self) -> None:
        """Refuse options that would change nothing with --dense, or without it."""
        for field in dataclasses.fields(self):
            if field.name in self.idle_options and getattr(self, field.name) != field.default:
                flag = f"--{field.name.replace('_', '-')}"
                where = "with" if self.dense else "without"
                raise ConfigError(f"{flag} changes nothing {where} --dense; leave it out")
        if self.dense and self.classes is None:
            raise ConfigError("--dense needs the number of classes in the masks; give --classes")
        if self.dense and len(self.k) > 1:
            raise ConfigError(f"--k {list(self.k)} with --dense is not one number; give it once")

    @property
    def decoders(self) -> int:
        """How many threads decode."""
        return own_cores() if self.workers == AUTO else self.workers

    @property
    def folder(self) -> str:
        """Where the scores go."""
        return self.out or storage.join(self.encoder, "probe-dense" if self.dense else "probe")

    @property
    def features_folder(self) -> str:
        """Where the features go."""
        return self.features or storage.join(self.folder, "features")


score_images = lazily("milan_pipeline.stages.probe.run:run")
describe_images = lazily("milan_pipeline.stages.probe.run:dry_run")
score_patches = lazily("milan_pipeline.stages.probe.patches:run")
describe_patches = lazily("milan_pipeline.stages.probe.patches:dry_run")


def look_at_shards(config: Probe) -> None:
    """Refuse other folders than those of shards, which only --dense takes."""
    for folder in () if config.dense else (config.train, config.val):
        inputs.image_shards(folder)


def run(config: Probe) -> None:
    """Score the images, or their patches."""
    look_at_shards(config)
    (score_patches if config.dense else score_images)(config)


def dry_run(config: Probe) -> None:
    """Say what `run` would do."""
    look_at_shards(config)
    (describe_patches if config.dense else describe_images)(config)


command = stage_command(
    "probe",
    Probe,
    run=run,
    dry_run=dry_run,
    example="milan-pipeline probe --encoder runs/first --train images/train --val images/val",
)
