"""Options of `probe` that belong to one way of scoring each; loads no torch."""

import dataclasses
from typing import Literal

from milan_pipeline.cli.options import count, option
from milan_pipeline.encoders.names import require_there
from milan_pipeline.evaluate.probe.protocols import Attentive, OfficialLinear, Sweep
from milan_pipeline.stages.shared import common_options as common
from milan_pipeline.stages.shared import inputs

LINEAR = ("logistic", "official", "sweep", "none")
OFFICIAL, SWEEP, ATTENTIVE = OfficialLinear(), Sweep(), Attentive()
IGNORE_INDEX, MEMORY = 255, 100_000
OF_IMAGES = (
    *("features", "pool", "crop_pct", "linear", "train_views"),
    *("linear_epochs", "linear_warmup_epochs", "linear_batch", "linear_lr"),
    *("sweep_steps", "sweep_batch", "sweep_lr"),
)
"""Options that --dense does not use."""
OF_ATTENTIVE = ("attentive_epochs", "attentive_batch", "attentive_lr", "attentive_memory")
"""Options that only --attentive uses."""
OF_PATCHES = ("classes", "ignore_index", "reduce_zero_label", "memory")
"""Options that only --dense uses."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class FeatureOptions:
    """Encoder, images and neighbours."""

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


@dataclasses.dataclass(frozen=True, kw_only=True)
class LinearOptions:
    """Linear classifiers of pooled features."""

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


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttentiveOptions:
    """The attentive probe, a classifier of patch features."""

    attentive: bool = option(
        default=False,
        help="Also train an attentive probe: one query attends to all patches, and a linear layer "
        "classifies what it takes (arXiv 2401.08541). Its rate is chosen on a tenth of --train.",
        group="Scoring",
    )
    attentive_epochs: int = count(
        ATTENTIVE.epochs, "epochs", group="Scoring", help="For --attentive: epochs."
    )
    attentive_batch: int | None = option(
        None,
        help="For --attentive: batch; default: 1024, or a 78th of a set smaller than 80,000 images "
        "(at least 16).",
        least=2,
        group="Scoring",
        unit="images",
    )
    attentive_lr: tuple[float, ...] = option(
        ATTENTIVE.rates,
        help="For --attentive: a learning rate of AdamW to try; may be repeated.",
        least=0,
        group="Scoring",
        unit="rate",
    )
    attentive_memory: float = option(
        4.0,
        help="For --attentive: largest memory for patch features. A --train that needs more "
        "is encoded again in each epoch, and so twice where rates are tried.",
        role="execution",
        least=0,
        group="This machine",
        unit="GB",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class PatchOptions:
    """Scoring of patches by labelled patches."""

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


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncodingOptions:
    """How the encoder computes, and on what."""

    random_init: bool = option(
        default=False, help="Give the encoder random weights: the score to beat.", group="Encoder"
    )
    seed: int = option(
        0,
        help="Seed of --random-init, of views, of linear and attentive classifiers and of the "
        "patches that are kept.",
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
