"""A job on made-up shards with a teacher that computes each row from its own pixels alone."""

import threading
from collections.abc import Sequence
from pathlib import Path

import torch

from milan_pipeline.codecs.build import make_codec
from milan_pipeline.core.interrupts import StopRequest
from milan_pipeline.extraction.job import ExtractionJob
from milan_pipeline.extraction.loop import extract_units
from milan_pipeline.images.budget import BadImageBudget
from milan_pipeline.images.views import Interpolation, ViewPolicy
from milan_pipeline.shards.manifest import Manifest
from milan_pipeline.shards.writer import Sample, write_shard
from milan_pipeline.targets.units import Mark, Unit
from tests.support.pictures import write_picture

SIZE, WIDTH, SIDE = 16, 6, 2


class RowTeacher:
    """Means of pixels; notes the rows of each batch, and calls back before each."""

    image_size, grid, width = SIZE, (SIDE, SIDE), WIDTH
    device = torch.device("cpu")
    interpolation: Interpolation = "bicubic"

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.poison: dict[int, float] = {}  # what a batch's first token becomes

    def __call__(self, pixels_BCSS: torch.Tensor, /) -> tuple[torch.Tensor, torch.Tensor]:
        number = len(self.batches)
        self.batches.append(len(pixels_BCSS))
        half = SIZE // SIDE
        patches_BCL = pixels_BCSS.double().unfold(2, half, half).unfold(3, half, half)
        means_BLC = patches_BCL.mean((-1, -2)).flatten(2).transpose(1, 2).float()
        tokens_BND = torch.cat([means_BLC.mean(1, keepdim=True), means_BLC], 1).repeat(1, 1, 2)
        if number in self.poison:
            tokens_BND[0, 0] = self.poison[number]
        return tokens_BND - 100, means_BLC.mean(-1) / (255 * SIDE**2)


def pictures(folder: Path, count: int) -> list[bytes]:
    """Draw some small JPEGs."""
    for number in range(count):
        write_picture(folder / f"{number}.jpg", number, (20 + number % 5, 24))
    return [(folder / f"{number}.jpg").read_bytes() for number in range(count)]


def job_on(
    folder: Path, counts: Sequence[int], *, bad: Sequence[str] = (), **changes: object
) -> ExtractionJob:
    """Write one shard a count; images `bad`, as shard/number, cannot be read."""
    drawn = pictures(folder / "pictures", 12)
    shards = []
    for shard, count in enumerate(counts):
        samples = []
        for number in range(count):
            data = drawn[(shard + number) % len(drawn)]
            readable = f"{shard}/{number}" not in bad
            samples.append(Sample(f"k{number:03d}", {"jpg": data if readable else data[:99]}))
        shards.append(write_shard(str(folder / "images"), f"s{shard:03d}.tar", samples))
    values: dict[str, object] = {
        "manifest": Manifest(kind="images", folder=str(folder / "images"), shards=tuple(shards)),
        "store": str(folder / "targets.zarr"),
        "identity_hash": "id",
        "teacher": RowTeacher(),
        "policy": ViewPolicy(),
        "codec": make_codec("int8"),
        "batch_size": 4,
        "workers": 2,
    }
    return ExtractionJob(**{**values, **changes})  # type: ignore[arg-type]


def extract(job: ExtractionJob, units: Sequence[Unit]) -> list[Mark]:
    """Extract with patience for unreadable images."""
    budget = BadImageBudget(fraction=0.5, images=max(1, job.manifest.samples))
    return list(extract_units(job, units, budget, StopRequest()))


def threads_of_pools() -> int:
    """Count the threads that pools of this process have."""
    return sum("ThreadPool" in thread.name for thread in threading.enumerate())
