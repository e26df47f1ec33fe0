"""The stages that are disturbed, each on what undisturbed ones before it have written."""

import dataclasses
import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from tests.faults import sameness
from tests.faults.victims import Victims, Words, finish, warm
from tests.support.clip import write_tiny_clip
from tests.support.finetune import TINY_VIT
from tests.support.labelled import write_coloured
from tests.support.pictures import write_ade_tree, write_picture
from tests.support.pretrain import TINY_STUDENT

PICTURES = 40


class Undisturbed(NamedTuple):
    """What a job gives where nothing goes wrong, and how long that takes."""

    out: Path
    seconds: float
    outcome: dict[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """One stage's command, or several that do it together.

    Attributes:
        name: for the counts.
        commands: run at the same time to write `out`, given the world they read from.
        outcome: reads what must be the same.
        begin: a command that runs before them, undisturbed.
    """

    name: str
    commands: Callable[["Inputs", Path], list[Words]]
    outcome: Callable[[Path], dict[str, Any]] = sameness.data_set
    begin: Callable[["Inputs", Path], Words] | None = None

    def start(self, inputs: "Inputs", out: Path) -> Victims:
        """Start the job's processes; one that was killed goes on like this, too."""
        log = out.with_suffix(".log")
        if self.begin is not None:
            finish(self.begin(inputs, out), log)
        return Victims(self.commands(inputs, out), log)


class Inputs:
    """What jobs read; each part is made when it is first asked for.

    Args:
        root: an empty folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    @functools.cached_property
    def pictures(self) -> Path:
        """Forty photos, enough for units to be killed between and within."""
        for number in range(PICTURES):
            path = self.root / "pictures" / f"{number:02d}.jpg"
            write_picture(path, number, (320, 240))
        return self.root / "pictures"

    @functools.cached_property
    def clip(self) -> Path:
        """The folder of a tiny teacher."""
        return write_tiny_clip(self.root / "clip")

    @functools.cached_property
    def coloured(self) -> Path:
        """Labelled pictures to train and to be tested on."""
        write_coloured(self.root / "coloured" / "train", 4)
        write_coloured(self.root / "coloured" / "val", 3, seed=1, noise=300)
        return self.root / "coloured"

    @functools.cached_property
    def painted(self) -> Path:
        """Pictures with masks."""
        tree: Path = write_ade_tree(self.root, {"training": 12, "validation": 3})
        return tree / "images"

    @property
    def shards(self) -> Path:
        """Eight image shards."""
        return self.undisturbed(PACK_IMAGES).out

    @property
    def store(self) -> Path:
        """Their targets in three views."""
        return self.undisturbed(EXTRACT).out

    @property
    def targets(self) -> Path:
        """The same as target shards."""
        return self.undisturbed(PACK_TARGETS).out

    @functools.cache  # noqa: B019 - there are few of these, and they live as long as the tests
    def undisturbed(self, job: Job) -> Undisturbed:
        """Run a job to its end, once."""
        out = self.root / "undisturbed" / job.name.replace(" ", "-").replace(",", "")
        out.parent.mkdir(exist_ok=True)
        job.commands(self, out)  # makes what the job reads, which is not to be timed
        warm(out.with_suffix(".log"))
        started = time.monotonic()
        with job.start(self, out) as victims:
            assert not any(victims.codes()), victims.said()
        return Undisturbed(out, time.monotonic() - started, job.outcome(out))


def extract_words(inputs: Inputs, out: Path, *more: object) -> Words:
    """Return the words of an extraction."""
    return [
        "extract-targets", "--images", inputs.shards, "--out", out, "--views", 3, "--workers", 1,
        "--teacher", f"local-dir:{inputs.clip}", "--batch-size", 1, "--precision", "fp32", *more,
    ]  # fmt: skip


def pretrain_words(shards: Path, targets: Path, out: Path, *more: object) -> Words:
    """Return the words of a pretraining of 120 steps."""
    return [
        "pretrain", "--images", shards, "--targets", targets, "--out", out,
        *TINY_STUDENT, "--batch-size", 8, "--epochs", 24, "--checkpoint-every", 5, "--log-every", 1,
        "--workers", 1, *more,
    ]  # fmt: skip


def _finetune(inputs: Inputs, out: Path) -> Words:
    root = inputs.coloured
    return [
        "finetune", *TINY_VIT, "--train", root / "train", "--val", root / "val", "--out", out,
        "--batch-size", 4, "--epochs", 20, "--eval-every", 2, "--checkpoint-every", 5,
        "--log-every", 1, "--base-lr", 0.02, "--workers", 1,
    ]  # fmt: skip


def _segment(inputs: Inputs, out: Path) -> Words:
    images = inputs.painted
    return [
        "segment", *TINY_VIT, "--train", images / "training", "--val", images / "validation",
        "--out", out, "--classes", 3, "--channels", 8, "--batch-size", 4, "--steps", 60,
        "--eval-every", 7, "--checkpoint-every", 5, "--log-every", 1, "--base-lr", 0.02,
        "--workers", 1,
    ]  # fmt: skip


PACK_IMAGES = Job(
    name="pack-images",
    commands=lambda inputs, out: [
        ["pack-images", inputs.pictures, out, "--samples-per-shard", 5, "--workers", 1]
    ],
)
EXTRACT = Job(name="extract-targets", commands=lambda inputs, out: [extract_words(inputs, out)])
EXTRACT_PARTS = Job(
    name="extract-targets in two parts",
    begin=lambda inputs, out: extract_words(inputs, out, "--init"),
    commands=lambda inputs, out: [
        extract_words(inputs, out, "--part", f"{part}/2") for part in range(2)
    ],
)
EXTRACT_DASK = Job(
    name="extract-targets on Dask",
    commands=lambda inputs, out: [extract_words(inputs, out, "--processes", 2)],
)
PACK_TARGETS = Job(
    name="pack-targets",
    commands=lambda inputs, out: [
        ["pack-targets", "--targets", inputs.store, "--out", out, "--workers", 1]
    ],
)
TRANSCODE = Job(
    name="transcode",
    commands=lambda inputs, out: [
        ["transcode", inputs.store, out, "--codec", "joint:bytes=4", "--workers", 1]
    ],
)
PRETRAIN = Job(
    name="pretrain",
    commands=lambda inputs, out: [pretrain_words(inputs.shards, inputs.targets, out)],
    outcome=sameness.run,
)
FINETUNE = Job(
    name="finetune",
    commands=lambda inputs, out: [_finetune(inputs, out)],
    outcome=sameness.run,
)
SEGMENT = Job(
    name="segment",
    commands=lambda inputs, out: [_segment(inputs, out)],
    outcome=sameness.run,
)
