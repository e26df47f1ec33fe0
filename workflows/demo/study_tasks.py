"""The study's commands as plain data, and which of them need others.

In addition to scenes, shards and targets there are, for each seed, two runs (MILAN's and MAE's
objective), and for each of four encoders a probe, three fine-tunings and a segmentation. A seed is
that of the runs or of the random weights, of the labels that are drawn and of every training.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from workflows.demo.task_graph import Task

DEMO = "workflows/demo"
TEACHER = f"open_clip:local-dir:{DEMO}/teacher"
CONFIG = f"{DEMO}/study.yaml"
# Half the demo's scenes: one machine trains 54 models here.
DEPTH = 4
ENCODERS = ("random", "pixels", "MILAN", "teacher")
IMAGE_SIZE = 64
"""Of the teacher, and so of every encoder here."""

STAGE = (sys.executable, "-m", "milan_pipeline")


@dataclass(frozen=True, kw_only=True)
class Training:
    """Fine-tuning or segmentation on a share of the labelled training scenes."""

    name: str
    fraction: float
    epochs: int
    batch: int


@dataclass(frozen=True, kw_only=True)
class Size:
    """How many scenes are drawn, and how long training is."""

    train: int
    test: int
    views: int
    epochs: int
    finetune: tuple[Training, ...]
    segment: Training


FULL = Size(
    train=4000,
    test=1200,
    views=4,
    epochs=12,
    finetune=(
        Training(name="finetune-1", fraction=0.01, epochs=40, batch=16),
        Training(name="finetune-10", fraction=0.1, epochs=20, batch=16),
        Training(name="finetune-100", fraction=1.0, epochs=8, batch=32),
    ),
    segment=Training(name="segment", fraction=0.2, epochs=12, batch=16),
)
QUICK = Size(
    train=240,
    test=48,
    views=1,
    epochs=3,
    finetune=tuple(
        Training(name=f"finetune-{100 * fraction:g}", fraction=fraction, epochs=1, batch=12)
        for fraction in (0.01, 0.1, 1.0)
    ),
    segment=Training(name="segment", fraction=0.125, epochs=1, batch=6),
)
"""Every command, to see that they work; its figures mean nothing."""


def folder_of(out: Path, seed: int, encoder: str) -> Path:
    """Return where an encoder's run and results of one seed lie."""
    return out / f"seed-{seed}" / encoder.lower()


def study_tasks(
    out: Path, *, seeds: tuple[int, ...], size: Size, scenes_seed: int = 0
) -> list[Task]:
    """List all commands of the study.

    Args:
        out: folder of the study.
        seeds: of everything but scenes and targets, which are the same for all.
        size: how much is drawn and trained.
        scenes_seed: of the scenes; another seed draws other images to train on and to score on.
    """
    tasks = list(_shared(out, size, scenes_seed))
    for seed in seeds:
        tasks += _pretrain(out, seed, size)
        for encoder in ENCODERS:
            tasks += _evaluate(out, seed, encoder, size)
    return tasks


def _stage(name: str, *words: object, config: str | None = None) -> tuple[str, ...]:
    options = ("--config", config) if config else ()
    return (*STAGE, name, *(str(word) for word in words), *options)


def _shared(out: Path, size: Size, scenes_seed: int) -> Iterator[Task]:
    scenes, images = out / "scenes", out / "images"
    numbers = ("--train", str(size.train), "--test", str(size.test), "--seed", str(scenes_seed))
    draw = (sys.executable, "-m", "workflows.demo.scenes", str(scenes), *numbers)
    yield Task(name="scenes", command=draw)
    for split in ("train", "test"):
        pack = (scenes / split, images / split, "--masks", scenes / "masks" / split)
        yield Task(name=f"pack-{split}", command=_stage("pack-images", *pack), needs=("scenes",))
    extract = ("--images", images / "train", "--out", out / "targets.zarr", "--views", size.views)
    yield Task(
        name="extract-targets",
        command=_stage("extract-targets", *extract, config=CONFIG),
        needs=("pack-train",),
    )
    yield Task(
        name="pack-targets",
        command=_stage(
            "pack-targets", "--targets", out / "targets.zarr", "--out", out / "target-shards"
        ),
        needs=("extract-targets",),
    )


def _pretrain(out: Path, seed: int, size: Size) -> Iterator[Task]:
    """Two runs that differ only in the objective.

    The pixels' is MAE's (arXiv 2111.06377): its decoder, loss and ratio, on
    views of the same sizes as the teacher's.
    """
    objectives = {
        "pixels": (
            ("--target", "pixels", "--min-scale", 0.4, "--mask-ratio", 0.75),
            "pack-train",
        ),
        "MILAN": (("--targets", out / "target-shards"), "pack-targets"),
    }  # fmt: skip
    # Without targets there is no grid from which the size of a view follows.
    shape = ("--image-size", IMAGE_SIZE, "--depth", DEPTH, "--epochs", size.epochs)
    common = ("--images", out / "images" / "train", *shape, "--seed", seed)
    for encoder, (own, need) in objectives.items():
        run = ("--out", folder_of(out, seed, encoder) / "run")
        yield Task(
            name=f"pretrain-{encoder.lower()}-{seed}",
            command=_stage("pretrain", *common, *own, *run, config=CONFIG),
            needs=(need,),
        )


def _evaluate(out: Path, seed: int, encoder: str, size: Size) -> Iterator[Task]:
    place = folder_of(out, seed, encoder)
    words, needs = _encoder(out, seed, encoder)
    train, test = (out / "images" / split for split in ("train", "test"))
    common = (*words, "--label", encoder, "--seed", seed, "--train", train)
    scored = (*common, "--val", test)
    # CLIP is trained on its class token; the students' recipe pools the mean of the patches.
    pool = "cls" if encoder == "teacher" else "mean"
    tail = f"{encoder.lower()}-{seed}"
    needs = (*needs, "pack-train", "pack-test")
    for training in size.finetune:
        yield Task(
            name=f"{training.name}-{tail}",
            command=_training("finetune", training, place, (*scored, "--pool", pool)),
            needs=needs,
        )
    yield Task(
        name=f"segment-{tail}",
        command=_training("segment", size.segment, place, scored),
        needs=needs,
    )
    probe = (*common, "--val", test, "--out", place / "probe")
    yield Task(name=f"probe-{tail}", command=_stage("probe", *probe, config=CONFIG), needs=needs)


def _encoder(out: Path, seed: int, encoder: str) -> tuple[tuple[object, ...], tuple[str, ...]]:
    """Return the options that name an encoder, and what must be finished to have it."""
    if encoder == "teacher":
        return ("--encoder", TEACHER), ()
    # Random weights need a run for their architecture alone.
    name = "MILAN" if encoder == "random" else encoder
    run = ("--encoder", folder_of(out, seed, name) / "run")
    drawn = ("--random-init",) if encoder == "random" else ()
    return (*run, *drawn), (f"pretrain-{name.lower()}-{seed}",)


def _training(
    stage: str, training: Training, place: Path, words: tuple[object, ...]
) -> tuple[str, ...]:
    amount = ("--label-fraction", training.fraction, "--epochs", training.epochs)
    own = (*amount, "--batch-size", training.batch)
    return _stage(stage, *words, "--out", place / training.name, *own, config=CONFIG)
