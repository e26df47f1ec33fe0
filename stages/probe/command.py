"""`milan-pipeline probe`: a frozen encoder's k-NN and linear accuracy on labelled shards."""

import dataclasses
from typing import Literal

from milan_pipeline import storage
from milan_pipeline.cli.commands import lazily, stage_command
from milan_pipeline.cli.options import AUTO, count, option, require_least
from milan_pipeline.core.cores import own_cores
from milan_pipeline.encoders.names import is_named
from milan_pipeline.errors import ConfigError
from milan_pipeline.evaluate.probe.protocols import OfficialLinear, Sweep
from milan_pipeline.stages.shared import common_options as common

LINEAR = ("logistic", "official", "sweep", "none")
OFFICIAL, SWEEP = OfficialLinear(), Sweep()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Probe:
    """Score a frozen encoder: accuracy of k-NN and of linear classifiers on its features.

    Both sets of shards need class numbers (.cls). The command prints a table and writes scores.json
    and answers.npy, which has the class and the answers for each test image. Features are computed
    once and kept.
    """

    encoder: str = option(
        help="The encoder: a run folder, a .safetensors with its .json, a timm name, "
        "open_clip:MODEL/TAG, or pixels.",
        group="Encoder",
    )
    train: str = option(
        help="Folder of labelled image shards to learn from.", role="execution", group="Input"
    )
    val: str = option(
        help="Folder of labelled image shards to score on, which are held out from --train.",
        role="execution",
        group="Input",
        formerly="test",
    )
    out: str | None = option(
        None,
        help="Folder for scores.json; default: probe/ in the run folder.",
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
        (10, 20, 100, 200),
        "neighbours",
        group="Scoring",
        help="Number of neighbours that vote; may be repeated for several scores.",
    )
    temperature: float = option(
        0.07, help="Temperature of the neighbours' votes.", group="Scoring", unit="temperature"
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
    random_init: bool = option(
        default=False, help="Give the encoder random weights: the score to beat.", group="Encoder"
    )
    seed: int = option(
        0,
        help="Seed of --random-init, of the views and of the linear classifiers.",
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
            if not values or len(set(values)) < len(values):
                flag = f"--{name.replace('_', '-')}"
                raise ConfigError(
                    f"{flag} {list(values)} is not one or more different values; give each once"
                )
        if self.crop_pct is not None and not 0.01 <= self.crop_pct <= 1:
            raise ConfigError(f"--crop-pct {self.crop_pct} is not within 0.01 to 1; try 0.875")
        if self.temperature <= 0:
            raise ConfigError(f"--temperature {self.temperature} must be above 0; give 0.07")
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
    def decoders(self) -> int:
        """How many threads decode."""
        return own_cores() if self.workers == AUTO else self.workers

    @property
    def folder(self) -> str:
        """Where the scores go."""
        return self.out or storage.join(self.encoder, "probe")

    @property
    def features_folder(self) -> str:
        """Where the features go."""
        return self.features or storage.join(self.folder, "features")


run = lazily("milan_pipeline.stages.probe.run:run")
dry_run = lazily("milan_pipeline.stages.probe.run:dry_run")
command = stage_command(
    "probe",
    Probe,
    run=run,
    dry_run=dry_run,
    example="milan-pipeline probe --encoder runs/first --train images/train --val images/val",
)
