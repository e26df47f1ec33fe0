"""`milan-pipeline probe`: a frozen encoder's k-NN and linear accuracy on labelled shards."""

import dataclasses

from milan_pipeline import storage
from milan_pipeline.cli.commands import lazily, stage_command
from milan_pipeline.cli.options import count, option, require_least
from milan_pipeline.encoders.names import is_named
from milan_pipeline.errors import ConfigError
from milan_pipeline.evaluate.probe.protocols import OfficialLinear, Sweep
from stages.shared import common_options as common

LINEAR = ("logistic", "official", "sweep", "none")
OFFICIAL, SWEEP = OfficialLinear(), Sweep()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Probe:
    """Score a frozen encoder by k-NN and by linear classifiers on its features.

    Shards need class numbers (.cls). Prints a table and writes scores.json and, for each test
    image, its class and answers: answers.npy. Features are extracted once and kept.
    """

    encoder: str = option(
        help="Run folder, .safetensors with its .json, timm name, open_clip:MODEL/TAG, or pixels.",
        group="Encoder",
    )
    train: str = option(
        help="Folder of labelled image shards to learn from.", role="execution", group="Input"
    )
    test: str = option(
        help="Folder of labelled image shards to score on.", role="execution", group="Input"
    )
    out: str | None = option(
        None,
        help="Folder for scores.json; default: probe/ in the run folder.",
        role="execution",
        group="Output",
    )
    label: str | None = option(
        None,
        help="What tables call the encoder; default: as --encoder does.",
        role="execution",
        group="Output",
    )
    features: str | None = option(
        None,
        help="Folder where features are kept, shared by any probes; default: features/ in --out.",
        role="execution",
        group="Output",
    )
    pool: str = option(
        "cls",
        help="Which tokens are the feature.",
        choices=("cls", "mean", "both"),
        group="Encoder",
    )
    crop_pct: float | None = common.crop_pct(
        "Share of the resized image's side that is shown, as finetune scores it"
    )
    k: tuple[int, ...] = count(
        (10, 20, 100, 200),
        "neighbours",
        group="Scoring",
        help="Neighbours that vote; repeat it for several scores.",
    )
    temperature: float = option(
        0.07, help="Temperature of their votes.", group="Scoring", unit="temperature"
    )
    linear: tuple[str, ...] = option(
        ("logistic",),
        help="Linear classifier; repeatable: logistic regression, MILAN's official protocol with "
        "LARS, DINOv2's sweep of rates over every pool, or none.",
        choices=LINEAR,
        group="Scoring",
    )
    train_views: int = count(
        1,
        "views",
        group="Scoring",
        help="Views that the epochs of official and sweep take in turn: 1 is the scored one, more "
        "are that many random crops and flips of each image.",
    )
    linear_epochs: int = count(OFFICIAL.epochs, "epochs", group="Scoring", help="Official: epochs.")
    linear_warmup_epochs: float = option(
        OFFICIAL.warmup_epochs,
        help="Official: warm-up, in epochs.",
        least=0,
        group="Scoring",
        unit="epochs",
    )
    linear_batch: int | None = option(
        None,
        help="Official: batch, by which --linear-lr is scaled; default: 16384 or, of a smaller set "
        "than ImageNet, a 78th, with the rate of 16384.",
        least=2,
        group="Scoring",
        unit="images",
    )
    linear_lr: float | None = option(
        None,
        help="Official: learning rate for a batch of 256; default: 0.05, or 0.02 from 1024 "
        "features on.",
        least=0,
        group="Scoring",
        unit="rate",
    )
    sweep_steps: int = count(SWEEP.steps, "steps", group="Scoring", help="Sweep: steps.")
    sweep_batch: int = count(SWEEP.batch, "images", group="Scoring", help="Sweep: batch.")
    sweep_lr: tuple[float, ...] = option(
        SWEEP.rates,
        help="Sweep: learning rate to try, for a batch of 256; repeat it.",
        least=0,
        group="Scoring",
        unit="rate",
    )
    random_init: bool = option(
        default=False, help="Draw the encoder's weights anew: a floor.", group="Encoder"
    )
    seed: int = option(
        0,
        help="Seed of --random-init, of views and of linear classifiers.",
        group="Scoring",
        unit="number",
    )
    precision: str = option(
        "fp32",
        help="Type of the encoder's arithmetic; auto: bf16 on a GPU that has it, else fp32.",
        choices=("auto", "fp32", "bf16"),
        group="Encoder",
    )
    batch_size: int = common.batch_size("Images in an encoder batch.")
    workers: int = common.workers("Decoding threads.")
    device: str = common.device("Where to compute")
    max_bad_fraction: float = common.max_bad_fraction()
    allow_unfinished: bool = common.allow_unfinished(
        "Score a run that is not done.", group="Encoder"
    )
    overwrite: bool = common.overwrite("Replace other scores.")

    def __post_init__(self) -> None:
        require_least(self)
        for name in ("k", "linear", "sweep_lr"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                flag = f"--{name.replace('_', '-')}"
                raise ConfigError(f"{flag} {list(values)} is not one or more different values")
        if self.crop_pct is not None and not 0.01 <= self.crop_pct <= 1:
            raise ConfigError(f"--crop-pct {self.crop_pct} is not within 0.01 to 1; try 0.875")
        if self.temperature <= 0:
            raise ConfigError(f"--temperature {self.temperature} must be above 0; give 0.07")
        if "none" in self.linear and len(self.linear) > 1:
            raise ConfigError("--linear none stands beside others; give it alone or leave it out")
        if self.linear_warmup_epochs >= self.linear_epochs:
            raise ConfigError(
                f"--linear-warmup-epochs {self.linear_warmup_epochs:g} leaves nothing of "
                f"--linear-epochs {self.linear_epochs}; give fewer"
            )
        if self.out is None and (is_named(self.encoder) or self.encoder.endswith(".safetensors")):
            raise ConfigError(f"--encoder {self.encoder!r} is no run folder; say --out FOLDER")

    @property
    def folder(self) -> str:
        """Where the scores go."""
        return self.out or storage.join(self.encoder, "probe")

    @property
    def features_folder(self) -> str:
        """Where the features go."""
        return self.features or storage.join(self.folder, "features")


run = lazily("stages.probe.run:run")
dry_run = lazily("stages.probe.run:dry_run")
command = stage_command(
    "probe",
    Probe,
    run=run,
    dry_run=dry_run,
    example="milan-pipeline probe --encoder runs/first --train images/train --test images/val",
)
